//! What any thread does with the server: frames into one buffer, and the state behind its lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use fastmq_driver::Driver;
use fastmq_driver::sockets::Waker;
use fastmq_memory::sync::{Mutex, MutexGuard, OnceLock, lock};
use fastmq_wire::message::flag;
use fastmq_wire::{
    Agreement, ControlDraft, Draft, Field, HEADER_BYTES, Kind, NoMemory, Sending, Subject, round_up,
};

use crate::asking::Fate;
use crate::call;
use crate::error::{Error, Fault, Result, Status};
use crate::message::Message;

use super::asked::{Operations, Subscribed};
use super::names::Names;
use super::tokens::{OF_SERVER, Tokens};
use super::{ConnectOptions, OUTGOING_BYTES_MAX, REQUESTS_MAX};

/// The way of a remote client's messages to its server. Used from any thread.
pub struct Uplink {
    pub(super) driver: Arc<dyn Driver>,
    pub(super) options: ConnectOptions,
    state: Mutex<State>,
    /// There is something for the link to do: what its wait looks at.
    pub(super) has_work: AtomicBool,
    pub(super) waker: OnceLock<Waker>,
    /// There is a thread that drives the link, which closing waits for.
    pub(super) has_thread: AtomicBool,
    /// Its number, once it runs.
    pub(super) link_thread: AtomicU64,
    /// Changes when something is answered, connected or ended.
    pub(super) answered: AtomicU32,
    /// Changes when there is room for more.
    room: AtomicU32,
    room_waiters: AtomicU32,
    pub(super) is_closing: AtomicBool,
    pub(super) has_ended: AtomicBool,
}

/// Where the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is none.
    Offline,
    /// It takes messages.
    Online,
    /// There will be none any more.
    Over,
}

/// What all threads of a client share.
pub(super) struct State {
    pub(super) phase: Phase,
    /// What holds for the connection.
    pub(super) agreement: Agreement,
    pub(super) payload_max: u64,
    pub(super) credit: Sending,
    pub(super) names: Names,
    /// Frames that wait for the socket.
    pub(super) out: Vec<u8>,
    /// Those that go before them.
    pub(super) urgent: Vec<u8>,
    /// Publishes that wait for a connection, or for credit behind such; the word of a TTL says
    /// until when.
    pub(super) stored: Vec<u8>,
    pub(super) stored_at: usize,
    pub(super) operations: Operations,
    pub(super) next_correlation: u32,
    /// Open requests, with the token of the asker.
    pub(super) asked: HashMap<u32, u64>,
    pub(super) tokens: Tokens,
    pub(super) subscriptions: HashMap<u32, Subscribed>,
    /// Subscriptions that have ended since the link has looked.
    pub(super) gone: Vec<u32>,
    /// Why there is no connection, as the last attempt said.
    pub(super) last_error: Option<Error>,
    /// All servers were tried, in vain.
    pub(super) has_failed: bool,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink").finish_non_exhaustive()
    }
}

const NO_ROOM: Error = Error::new(&Fault(
    Status::Again,
    "the connection takes no more now; publish again when it has sent, or wait for room",
));

const STORE_FULL: Error = Error::new(&Fault(
    Status::Again,
    "there is no connection, and as much waits for one as may; publish again later",
));

const NOT_CONNECTED: Error = Error::new(&Fault(
    Status::Unavailable,
    "there is no connection to the server now; try again later",
));

const TOO_LARGE: Error = Error::new(&Fault(
    Status::TooLarge,
    "the message is larger than the server takes",
));

const TOKEN_UNKNOWN: Error = Error::new(&Fault(
    Status::NotFound,
    "this token names no request that waits for an answer; its connection may have ended",
));

const ON_LINK: Error = Error::new(&Fault(
    Status::Misuse,
    "an inline handler or event of a remote client runs on its link, which would wait for \
     itself; ask and subscribe on another thread",
));

impl Uplink {
    pub(super) fn new(options: ConnectOptions, driver: Arc<dyn Driver>) -> Self {
        let state = State {
            phase: Phase::Offline,
            agreement: Agreement {
                version: fastmq_wire::VERSION,
                capabilities: 0,
                ours: Default::default(),
                theirs: Default::default(),
            },
            payload_max: 0,
            credit: Sending::new(0),
            names: Names::new(0, 0),
            out: Vec::new(),
            urgent: Vec::new(),
            stored: Vec::new(),
            stored_at: 0,
            operations: Operations::default(),
            next_correlation: 0,
            asked: HashMap::new(),
            tokens: Tokens::default(),
            subscriptions: HashMap::new(),
            gone: Vec::new(),
            last_error: None,
            has_failed: false,
        };
        Self {
            driver,
            options,
            state: Mutex::new(state),
            has_work: AtomicBool::new(false),
            waker: OnceLock::new(),
            has_thread: AtomicBool::new(false),
            link_thread: AtomicU64::new(0),
            answered: AtomicU32::new(0),
            room: AtomicU32::new(0),
            room_waiters: AtomicU32::new(0),
            is_closing: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Has the link look; a call of the system only if it sleeps and nobody has woken it yet.
    pub(super) fn nudge(&self) {
        if !self.has_work.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    /// Whether this thread is the link.
    pub(super) fn is_here(&self) -> bool {
        self.link_thread.load(Ordering::Relaxed) == call::thread_number()
    }

    pub(super) fn check_not_here(&self) -> Result<()> {
        if self.is_here() { Err(ON_LINK) } else { Ok(()) }
    }

    /// Whether a token is that of a request which the server has delivered.
    pub(crate) fn is_asked_by_server(token: u64) -> bool {
        token & OF_SERVER != 0
    }

    /// Publishes. AGAIN: no room, or no credit. TOO_LARGE. Without a connection the message waits
    /// for one.
    pub(crate) fn publish(
        &self,
        message: &Message<'_>,
        draft: &fastmq_memory::Draft<'_>,
        publisher: u64,
    ) -> Result<()> {
        let mut state = self.state();
        let make = |subject| {
            let is_text = matches!(subject, Subject::Text(_));
            let mut sent = Draft::message(0, subject, message.payload);
            sent.sequence = (draft.sequence > 0).then_some(draft.sequence);
            sent.publisher = (is_text && publisher > 0 && draft.sequence > 0).then_some(publisher);
            fill(sent, message, draft)
        };
        let sent = match state.phase {
            Phase::Over => Err(Error::CLOSED),
            Phase::Online if state.stored.is_empty() => {
                let counted = if draft.sequence > 0 { publisher } else { 0 };
                state.send(message.subject, counted, make)
            }
            _ => {
                let mut stored = make(Subject::Text(message.subject));
                stored.ttl_ns = (message.ttl_ns > 0).then_some(draft.expiry);
                state.store(&stored, self.options.store_max)
            }
        };
        drop(state);
        sent?;
        self.nudge();
        Ok(())
    }

    /// Asks; the answer will come with the draft's token. UNAVAILABLE: there is no connection.
    pub(crate) fn request(
        &self,
        message: &Message<'_>,
        draft: &fastmq_memory::Draft<'_>,
    ) -> Result<Fate> {
        self.check_not_here()?;
        let mut state = self.state();
        match state.phase {
            Phase::Over => return Err(Error::CLOSED),
            Phase::Offline => return Err(NOT_CONNECTED),
            Phase::Online => {}
        }
        if state.asked.len() >= REQUESTS_MAX || !state.stored.is_empty() {
            return Ok(Fate::Busy);
        }
        state.asked.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        let correlation = state.new_correlation();
        let make = |subject| {
            let sent = Draft::request(correlation, subject, message.payload);
            let mut sent = fill(sent, message, draft);
            sent.ttl_ns = (message.ttl_ns > 0).then_some(message.ttl_ns);
            sent
        };
        match state.send(message.subject, 0, make) {
            Ok(()) => {}
            Err(error) if error.status() == Status::Again => return Ok(Fate::Busy),
            Err(error) => return Err(error),
        }
        state.asked.insert(correlation, draft.token);
        drop(state);
        self.nudge();
        Ok(Fate::Sent(1))
    }

    /// As [`Uplink::reply`], of an answer as a record.
    pub(crate) fn reply_by(&self, draft: &fastmq_memory::Draft<'_>) -> Result<()> {
        let status = u32::from(draft.status);
        self.reply(draft.token, status, draft.payload, draft.headers)
    }

    /// Answers a request that the server has delivered. NOT_FOUND: it was answered, or its
    /// connection has ended. AGAIN, TOO_LARGE.
    pub(crate) fn reply(
        &self,
        token: u64,
        status: u32,
        payload: &[u8],
        headers: &[u8],
    ) -> Result<()> {
        if !Self::is_asked_by_server(token) {
            return Err(TOKEN_UNKNOWN);
        }
        let mut state = self.state();
        let mut sent = Draft::reply(0, status as u8, payload);
        sent.headers = headers;
        let size = sent.size();
        if size > state.agreement.theirs.frame_max as usize {
            return Err(TOO_LARGE);
        }
        // Those of a turn go together with publishes: they have some room of their own.
        if state.out.len() + size > OUTGOING_BYTES_MAX + OUTGOING_BYTES_MAX / 4 {
            return Err(NO_ROOM);
        }
        state.out.try_reserve(size).map_err(|_| Error::NO_MEMORY)?;
        let theirs = state.tokens.take(token).ok_or(TOKEN_UNKNOWN)?;
        let mut sent = Draft::reply(theirs, status as u8, payload);
        sent.headers = headers;
        sent.append(&mut state.out).map_err(no_memory)?;
        drop(state);
        self.nudge();
        Ok(())
    }

    /// Waits until there may be room for a publish, or the time has come.
    pub(crate) fn wait_for_room(&self, deadline_ns: u64) {
        self.room_waiters.fetch_add(1, Ordering::SeqCst);
        let seen = self.room.load(Ordering::SeqCst);
        if !self.state().may_have_room(self.options.store_max) {
            self.driver.park(&self.room, seen, deadline_ns);
        }
        self.room_waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Tells those who wait that there may be room.
    pub(super) fn report_room(&self) {
        if self.room_waiters.load(Ordering::SeqCst) > 0 {
            self.room.fetch_add(1, Ordering::SeqCst);
            self.driver.wake(&self.room, u32::MAX);
        }
    }

    /// Tells those who wait that something was answered.
    pub(super) fn report_answer(&self) {
        self.answered.fetch_add(1, Ordering::SeqCst);
        self.driver.wake(&self.answered, u32::MAX);
    }

    /// Moves what is to be sent behind `into`; false: nothing.
    pub(super) fn take_output(&self, into: &mut Vec<u8>, now_ns: u64) -> bool {
        self.has_work.store(false, Ordering::SeqCst);
        let mut state = self.state();
        state.flush_stored(now_ns);
        if state.urgent.is_empty() && state.out.is_empty() {
            return false;
        }
        if into.is_empty() && state.urgent.is_empty() {
            std::mem::swap(into, &mut state.out);
        } else if into
            .try_reserve(state.urgent.len() + state.out.len())
            .is_ok()
        {
            let state = &mut *state;
            into.extend_from_slice(&state.urgent);
            into.extend_from_slice(&state.out);
            state.urgent.clear();
            state.out.clear();
        } else {
            return !into.is_empty();
        }
        drop(state);
        self.report_room();
        true
    }

    /// Takes what goes before all else, and nothing of the rest; false: nothing.
    pub(super) fn take_urgent(&self, into: &mut Vec<u8>) -> bool {
        *into = std::mem::take(&mut self.state().urgent);
        !into.is_empty()
    }

    /// Says goodbye to the server and ends the link, until the deadline.
    pub(crate) fn close(&self, deadline_ns: u64) {
        self.is_closing.store(true, Ordering::SeqCst);
        self.has_work.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
        if !self.has_thread.load(Ordering::Relaxed) || self.is_here() {
            return;
        }
        loop {
            let seen = self.answered.load(Ordering::SeqCst);
            if self.has_ended.load(Ordering::SeqCst) || self.driver.monotonic_ns() >= deadline_ns {
                return;
            }
            self.driver.park(&self.answered, seen, deadline_ns);
        }
    }
}

/// The fields that publishes and requests have in common.
fn fill<'m>(
    mut sent: Draft<'m>,
    message: &Message<'m>,
    draft: &fastmq_memory::Draft<'m>,
) -> Draft<'m> {
    sent.ttl_ns = (message.ttl_ns > 0).then_some(message.ttl_ns);
    sent.timestamp_ns = (draft.timestamp > 0).then_some(draft.timestamp);
    sent.reply_to = message.reply_to;
    sent.key = message.key;
    sent.headers = message.headers;
    sent
}

pub(super) fn no_memory(_: NoMemory) -> Error {
    Error::NO_MEMORY
}

impl State {
    fn check_size(&self, sent: &Draft<'_>) -> Result<()> {
        let is_payload_large = self.payload_max > 0 && sent.payload.len() as u64 > self.payload_max;
        if is_payload_large || sent.size() > self.agreement.theirs.frame_max as usize {
            return Err(TOO_LARGE);
        }
        Ok(())
    }

    /// Appends a message, by a number for its subject if there is one.
    fn send<'m>(
        &mut self,
        subject: &'m [u8],
        publisher: u64,
        make: impl Fn(Subject<'m>) -> Draft<'m>,
    ) -> Result<()> {
        let by_text = make(Subject::Text(subject));
        self.check_size(&by_text)?;
        let size = by_text.size();
        // With its alias, in the worst case.
        if self.out.len() + size + subject.len() + 64 > OUTGOING_BYTES_MAX {
            return Err(NO_ROOM);
        }
        if self.credit.left() < size as u64 {
            return Err(NO_ROOM);
        }
        self.out.try_reserve(size).map_err(|_| Error::NO_MEMORY)?;
        let alias = self.names.alias(subject, publisher, &mut self.out);
        let sent = match alias.map_err(no_memory)? {
            Some(alias) => make(Subject::Alias(alias)),
            None => by_text,
        };
        sent.append(&mut self.out).map_err(no_memory)?;
        let is_granted = self.credit.take(sent.size());
        debug_assert!(is_granted, "it was looked at before");
        Ok(())
    }

    fn store(&mut self, stored: &Draft<'_>, max: u64) -> Result<()> {
        if self.phase == Phase::Online {
            self.check_size(stored)?;
        }
        if (self.stored.len() - self.stored_at + stored.size()) as u64 > max {
            return Err(STORE_FULL);
        }
        self.compact_stored();
        stored.append(&mut self.stored).map_err(no_memory)
    }

    /// Gives room back of what was sent, now and then.
    fn compact_stored(&mut self) {
        if self.stored_at > self.stored.len() / 2 {
            self.stored.drain(..self.stored_at);
            self.stored_at = 0;
        }
    }

    fn may_have_room(&self, store_max: u64) -> bool {
        let stored = (self.stored.len() - self.stored_at) as u64;
        match self.phase {
            Phase::Over => true,
            Phase::Online if stored == 0 => {
                let frame_max = u64::from(self.agreement.theirs.frame_max);
                self.out.len() < OUTGOING_BYTES_MAX / 2 && self.credit.left() >= frame_max
            }
            _ => stored < store_max / 2,
        }
    }

    /// Moves publishes that have waited to what is sent, as far as credit and room go. Returns
    /// nothing of those that have expired or that the server does not take: they are dropped.
    fn flush_stored(&mut self, now_ns: u64) {
        if self.stored.is_empty() || self.phase != Phase::Online {
            return;
        }
        while let Some(frame) = self.stored.get(self.stored_at..)
            && let Some(length) = frame.first_chunk::<4>()
        {
            let size = round_up(u32::from_le_bytes(*length) as usize);
            if self.out.len() + size > OUTGOING_BYTES_MAX || self.credit.left() < size as u64 {
                if size <= self.agreement.theirs.frame_max as usize {
                    return;
                }
            } else if let Some(frame) = frame.get(..size)
                && self.out.try_reserve(size).is_ok()
            {
                let at = self.out.len();
                self.out.extend_from_slice(frame);
                if is_still_worth(&mut self.out[at..], now_ns) {
                    let _granted = self.credit.take(size);
                } else {
                    self.out.truncate(at);
                }
            } else {
                return;
            }
            self.stored_at += size;
        }
        self.stored.clear();
        self.stored_at = 0;
    }

    fn new_correlation(&mut self) -> u32 {
        loop {
            self.next_correlation = self.next_correlation.wrapping_add(1);
            if !self.asked.contains_key(&self.next_correlation) {
                return self.next_correlation;
            }
        }
    }

    /// Appends a control frame of two numbers.
    pub(super) fn control(
        &mut self,
        kind: Kind,
        (first, second): (u32, u32),
        field: Option<(Field, u64)>,
    ) -> std::result::Result<(), NoMemory> {
        let draft = ControlDraft::pair(&mut self.out, kind, first, second)?;
        if let Some((field, value)) = field {
            draft.number(field, value)?;
        }
        Ok(())
    }

    /// Publishes among the frames that wait for the socket.
    pub(super) fn unsent(&self) -> u64 {
        let (mut at, mut count) = (0, 0);
        while let Some(frame) = self.out.get(at..)
            && let Some(head) = frame.first_chunk::<HEADER_BYTES>()
        {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            count += u64::from(head[4] == Kind::Message as u8);
            at += round_up(length as usize);
        }
        count
    }
}

/// Turns the time until which a stored message is worth it into what is left of it; false: none.
fn is_still_worth(frame: &mut [u8], now_ns: u64) -> bool {
    let flags = u16::from_le_bytes([frame[6], frame[7]]);
    if flags & flag::TTL == 0 {
        return true;
    }
    let at = HEADER_BYTES + 8 * usize::from(flags & flag::SEQUENCE != 0);
    let Some(word) = frame.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) else {
        return true;
    };
    let left_ns = u64::from_le_bytes(*word).saturating_sub(now_ns);
    *word = left_ns.to_le_bytes();
    left_ns > 0
}

//! What any thread does with the server: frames into one buffer, and the state behind its lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use fastmq_driver::sockets::Waker;
use fastmq_driver::{Driver, FOREVER_NS};
use fastmq_memory::sync::{Mutex, MutexGuard, OnceLock, lock};
use fastmq_wire::{Agreement, Draft, Sending};

use crate::call;
use crate::error::{Error, Fault, Result, Status};
use crate::frames;
use crate::ready::ReadyList;

use super::asked::Operations;
use super::draining::Draining;
use super::helm::Helm;
use super::names::Names;
use super::open::Open;
use super::state::{NO_ROOM, Phase, State, TOO_LARGE, no_memory};
use super::streams::Streams;
use super::tokens::{OF_SERVER, Tokens};
use super::{ConnectOptions, OUTGOING_BYTES_MAX};

/// The way of a remote client's messages to its server. Used from any thread.
pub struct Uplink {
    pub(super) driver: Arc<dyn Driver>,
    pub(super) options: ConnectOptions,
    state: Mutex<State>,
    /// There is something for the link to do: what its wait looks at.
    pub(super) has_work: AtomicBool,
    pub(super) waker: OnceLock<Waker>,
    /// Who drives the link.
    pub(crate) helm: Helm,
    /// The list of the user's loop, of a polled client.
    pub(super) polled: OnceLock<Arc<ReadyList>>,
    /// Changes when something is answered, connected or ended.
    pub(super) answered: AtomicU32,
    /// Changes when there is room for more.
    room: AtomicU32,
    room_waiters: AtomicU32,
    /// Subscriptions have ended that the drive still knows.
    pub(super) has_gone: AtomicBool,
    /// Deliveries that wait beside their queues.
    pub(super) held: AtomicUsize,
    pub(super) is_closing: AtomicBool,
    /// Until when closing waits.
    pub(super) close_until_ns: AtomicU64,
    /// Closed by whoever drives a polled client: he goes on until the end.
    pub(super) is_closed_here: AtomicBool,
    pub(super) has_ended: AtomicBool,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink").finish_non_exhaustive()
    }
}

/// Replies go together with publishes: they have some room of their own.
const REPLIES_BYTES_MAX: usize = OUTGOING_BYTES_MAX + OUTGOING_BYTES_MAX / 4;

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
            plain_max: 0,
            credit: Sending::new(0),
            names: Names::new(0, 0),
            out: Vec::new(),
            urgent: Vec::new(),
            stored: Vec::new(),
            stored_at: 0,
            operations: Operations::default(),
            asked: Open::default(),
            asked_unsent: 0,
            epoch: 0,
            tokens: Tokens::default(),
            streams: Streams::default(),
            subscriptions: HashMap::new(),
            gone: Vec::new(),
            draining: Draining::default(),
            last_error: None,
            has_failed: false,
        };
        Self {
            driver,
            options,
            state: Mutex::new(state),
            has_work: AtomicBool::new(false),
            waker: OnceLock::new(),
            helm: Helm::default(),
            polled: OnceLock::new(),
            answered: AtomicU32::new(0),
            room: AtomicU32::new(0),
            room_waiters: AtomicU32::new(0),
            has_gone: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            close_until_ns: AtomicU64::new(FOREVER_NS),
            is_closed_here: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Has whoever drives look; a call of the system only if he sleeps and nobody has woken him
    /// yet. If nobody drives the next one who does looks.
    #[inline(always)]
    pub(super) fn nudge(&self) -> bool {
        // Who reads that there is work has added to it before whoever drives takes it.
        let is_first = !self.has_work.load(Ordering::Relaxed);
        if is_first {
            self.nudge_first();
        }
        is_first
    }

    #[cold]
    fn nudge_first(&self) {
        // The fence of the waker is between this and its look at who sleeps.
        self.has_work.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(list) = self.polled.get() {
            list.wake();
        }
    }

    /// Wakes whoever drives, if he sleeps.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Whether this thread drives the link.
    #[inline]
    pub(super) fn is_here(&self) -> bool {
        let thread = self.helm.thread.load(Ordering::Relaxed);
        thread != 0 && thread == call::thread_number()
    }

    pub(super) fn check_not_here(&self) -> Result<()> {
        if self.is_here() { Err(ON_LINK) } else { Ok(()) }
    }

    /// Whether a token is that of a request which the server has delivered.
    pub(crate) fn is_asked_by_server(token: u64) -> bool {
        token & OF_SERVER != 0
    }

    /// As [`Uplink::reply`], of a payload alone, if there is room; false: it has done nothing.
    #[inline(never)]
    pub(crate) fn reply_usual(&self, token: u64, status: u32, payload: &[u8]) -> bool {
        let make = |theirs| Draft::reply(theirs, status as u8, payload);
        let size = make(0).size();
        let mut state = self.state();
        if state.phase != Phase::Online
            || size > state.agreement.theirs.frame_max as usize
            || state.out.len() + size > REPLIES_BYTES_MAX
            || state.out.capacity() - state.out.len() < size
        {
            return false;
        }
        let Some(theirs) = state.tokens.take(token) else {
            return false;
        };
        state.streams.answered(theirs);
        let is_sent = frames::append_plain(&make(theirs), &mut state.out).is_ok();
        debug_assert!(is_sent, "there was room");
        drop(state);
        self.nudge();
        true
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
        if state.phase != Phase::Online {
            // Behind our goodbye the server reads nothing.
            return Err(TOKEN_UNKNOWN);
        }
        let mut sent = Draft::reply(0, status as u8, payload);
        sent.headers = headers;
        let size = sent.size();
        if size > state.agreement.theirs.frame_max as usize {
            return Err(TOO_LARGE);
        }
        if state.out.len() + size > REPLIES_BYTES_MAX {
            return Err(NO_ROOM);
        }
        let room = frames::room(&sent);
        state.out.try_reserve(room).map_err(|_| Error::NO_MEMORY)?;
        let theirs = state.tokens.take(token).ok_or(TOKEN_UNKNOWN)?;
        state.streams.answered(theirs);
        let mut sent = Draft::reply(theirs, status as u8, payload);
        sent.headers = headers;
        frames::append(&sent, &mut state.out).map_err(no_memory)?;
        drop(state);
        self.nudge();
        Ok(())
    }

    /// Waits until there may be room for a publish, or the time has come.
    pub(crate) fn wait_for_room(&self, deadline_ns: u64) {
        if let Some(mut held) = self.take_helm(deadline_ns) {
            let mut max_ns = 0;
            while !self.state().may_have_room(self.options.store_max) && held.turn(max_ns, 0) {
                let now_ns = self.driver.monotonic_ns();
                if now_ns >= deadline_ns {
                    return;
                }
                max_ns = deadline_ns - now_ns;
                held.listen();
            }
            return;
        }
        self.room_waiters.fetch_add(1, Ordering::SeqCst);
        let seen = self.room.load(Ordering::SeqCst);
        if !self.state().may_have_room(self.options.store_max) {
            self.park(&self.room, seen, deadline_ns);
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

    /// The asker of a request wants no answer any more; without a number, the requester. One that
    /// comes finds nobody.
    #[cold]
    pub(crate) fn give_up(&self, token: u64) {
        let is_noted = self.state().asked.give_up(token);
        if is_noted {
            self.nudge();
        }
    }

    /// Moves what is to be sent behind `into`; false: nothing.
    pub(super) fn take_output(&self, into: &mut Vec<u8>) -> bool {
        // The lock behind it has who adds to the buffer afterwards see it.
        self.has_work.store(false, Ordering::Relaxed);
        let mut state = self.state();
        if state.asked.look_for_given_up() {
            self.has_work.store(true, Ordering::SeqCst);
        }
        if !state.stored.is_empty() {
            state.flush_stored(self.driver.monotonic_ns());
        }
        if state.urgent.is_empty() && state.out.is_empty() {
            return false;
        }
        state.asked_unsent = 0;
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
        self.close_until_ns.store(deadline_ns, Ordering::SeqCst);
        self.is_closing.store(true, Ordering::SeqCst);
        self.has_work.store(true, Ordering::SeqCst);
        self.wake();
        if !self.helm.is_open() {
            return;
        }
        if self.is_here() {
            self.is_closed_here.store(true, Ordering::Relaxed);
            return;
        }
        self.wake_resting();
        loop {
            let seen = self.answered.load(Ordering::SeqCst);
            let now_ns = self.driver.monotonic_ns();
            if self.has_ended.load(Ordering::SeqCst) {
                return;
            }
            let is_late = now_ns >= deadline_ns;
            if self.options.polled
                && let Some(mut held) = self.try_helm()
            {
                held.listen();
                // At the end the drive leaves without waiting.
                held.turn(deadline_ns.saturating_sub(now_ns), 0);
                if !is_late {
                    continue;
                }
            }
            if is_late {
                return;
            }
            self.park(&self.answered, seen, deadline_ns);
        }
    }
}

//! One connection without I/O: received bytes in, bytes to send out (`docs/protocol.md` §9).
//!
//! A [`Session`] is driven by its shard: [`on_bytes`](Session::on_bytes) with what has arrived,
//! [`pull`](Session::pull) when its queues may have something, [`on_time`](Session::on_time) at its
//! [`deadline_ns`](Session::deadline_ns). What it has to say it appends to
//! [`outgoing`](Session::outgoing). It reads no clock: the time is that of its [`Parts`].

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};

use fastmq_driver::FOREVER_NS;
use fastmq_memory::sync::lock;
use fastmq_wire::control::{flag, write_fault};
use fastmq_wire::handshake::{capability, read_hello};
use fastmq_wire::{
    Agreement, Aliases, ControlDraft, Fault, Field, Frame, Frames, Kind, Limits, NoMemory, Numbers,
    PING_NS_DEFAULT, Reason, Receiving, Sending, Side, State, VERSION, Welcome,
};

use crate::error::Status;
use crate::liveness::{Liveness, Sign};
use crate::log::{self, Level};
use crate::rings::{Offer, RING_BYTES};

use super::asking::Asker;
use super::delivering::Outgoing;
use super::feed::Feed;
use super::inbox::SessionKey;
use super::many::Streams;
use super::owed::Owed;
use super::parts::Parts;
use super::publishing::{Known, Parked};
use super::stats::Traffic;
use super::{ALIAS_BYTES_MAX, ALIASES_MAX, CREDIT_BYTES, HANDSHAKE_NS};

/// What this server can.
const CAPABILITIES: u64 = capability::ACK
    | capability::MANY
    | capability::KEY_SHARED
    | capability::LATEST
    | capability::LAST_VALUE;
/// What it takes of each connection.
const LIMITS: Limits = Limits {
    frame_max: fastmq_wire::FRAME_BYTES_DEFAULT as u32,
    credit: CREDIT_BYTES,
    alias_max: ALIASES_MAX,
    alias_bytes_max: ALIAS_BYTES_MAX,
    ping_ns: PING_NS_DEFAULT,
};

/// One connection.
pub struct Session {
    pub(super) key: SessionKey,
    pub(super) state: State,
    /// Those who listen to presence know of it.
    is_present: bool,
    /// Why it is not let in, if it is not.
    refusal: Option<(Reason, &'static str)>,
    pub(super) capabilities: u64,
    /// Whether it may have rings: it is a process of the same user.
    pub(super) may_have_rings: bool,
    /// Its rings, which go out with the WELCOME.
    pub(super) offer: Option<Box<Offer>>,
    pub(super) theirs: Limits,
    /// It stands in the list of those that the shard looks at in this turn.
    pub(super) is_touched: bool,
    pub(super) out: Outgoing,
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    /// What their aliases stand for.
    pub(super) aliases: Aliases<Known>,
    /// Numbers that we have given to subjects.
    pub(super) numbers: Numbers,
    pub(super) numbered: HashMap<Box<[u8]>, u32>,
    pub(super) last_numbered: (Vec<u8>, u32),
    pub(super) feeds: Vec<Option<Feed>>,
    pub(super) feed_of: HashMap<u32, u32>,
    /// Feeds that may have something, each once.
    pub(super) ready: VecDeque<u32>,
    /// DRAIN of all subscriptions: the operation that is answered at the end.
    pub(super) draining_all: Option<u32>,
    pub(super) asker: Option<Box<Asker>>,
    /// Requests that it has to answer.
    pub(super) owed: Owed,
    /// The streams by which it answers.
    pub(super) streams: Streams,
    pub(super) parked: Parked,
    pub(super) parked_again_ns: u64,
    /// It stands in the list of those that wait for room.
    pub(super) is_waiting: bool,
    /// A delivery that could have come past its queue did not, as this connection was held up.
    pub(super) has_turned_away: Cell<bool>,
    /// The number of the last large message that it was given past a queue.
    pub(super) last_large: Cell<u64>,
    /// The other side has said CLOSE, and publishes still wait for room.
    pub(super) is_close_owed: bool,
    /// Numbers of the engine for their publishers.
    pub(super) publishers: HashMap<u64, u64>,
    /// When an ERROR for no operation was last sent, by status.
    pub(super) told_ns: Vec<(u8, u64)>,
    /// Reasons of refusals that were logged.
    logged: u64,
    opened_ns: u64,
    liveness: Liveness,
    pub(super) traffic: Traffic,
    /// When it is looked whether too much waits; `FOREVER_NS`: nothing is held up.
    pub(super) slow_check_ns: u64,
    /// It was told that much waits for it.
    pub(super) is_slow: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("serial", &self.key.serial)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A connection that has just been accepted. `key` names it among those of its shard.
    pub fn new(parts: &Parts, key: SessionKey) -> Self {
        let none = Limits::default();
        Self {
            key,
            state: State::default(),
            is_present: false,
            refusal: None,
            capabilities: 0,
            may_have_rings: false,
            offer: None,
            theirs: none,
            is_touched: false,
            out: Outgoing::default(),
            receiving: Receiving::new(LIMITS.credit),
            sending: Sending::new(0),
            aliases: Aliases::new(LIMITS.alias_max, LIMITS.alias_bytes_max),
            numbers: Numbers::new(0, 0),
            numbered: HashMap::new(),
            last_numbered: (Vec::new(), 0),
            feeds: Vec::new(),
            feed_of: HashMap::new(),
            ready: VecDeque::new(),
            draining_all: None,
            asker: None,
            owed: Owed::default(),
            streams: Streams::default(),
            parked: Parked::default(),
            parked_again_ns: 0,
            is_waiting: false,
            has_turned_away: Cell::new(false),
            last_large: Cell::new(0),
            is_close_owed: false,
            publishers: HashMap::new(),
            told_ns: Vec::new(),
            logged: 0,
            opened_ns: parts.now_ns,
            liveness: Liveness::new(parts.now_ns, LIMITS.ping_ns, None),
            traffic: Traffic::default(),
            slow_check_ns: FOREVER_NS,
            is_slow: false,
        }
    }

    /// The same for one that is too many: its HELLO is answered with LIMIT.
    pub fn refused(parts: &Parts, key: SessionKey) -> Self {
        Self {
            refusal: Some((
                Reason::Limit,
                "the server has as many connections as it may",
            )),
            ..Self::new(parts, key)
        }
    }

    /// Where the connection is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// Bytes to send; what the shard has taken is gone from here.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.out.bytes
    }

    /// The shard has taken all of [`outgoing`](Session::outgoing).
    pub fn taken(&mut self) {
        self.out.delivered = 0;
    }

    /// Takes the frames at the front of `bytes` and gives how many of these bytes are dealt with;
    /// the rest is the begin of a frame, and comes again with more behind it.
    pub fn on_bytes(&mut self, parts: &mut Parts, bytes: &[u8]) -> usize {
        self.liveness.hear(parts.now_ns);
        let mut consumed = 0;
        if self.state == State::Waiting {
            consumed = self.on_hello(parts, bytes);
            if self.state == State::Waiting {
                return consumed;
            }
        }
        if self.state != State::Ready || self.is_close_owed {
            return bytes.len();
        }
        let rest = &bytes[consumed..];
        let mut frames = Frames::new(rest, Side::Server, LIMITS.frame_max);
        let mut count = 0;
        loop {
            count += 1;
            let before = frames.consumed();
            let taken = match frames.next_frame() {
                Ok(Some(frame)) => {
                    let size = frames.consumed() - before;
                    let is_message = matches!(frame, Frame::Message(_));
                    let taken = self.on_frame(parts, frame, &rest[before..before + size]);
                    match is_message && taken.is_ok() {
                        true => self
                            .publish_rows(parts, &mut frames)
                            .map(|more| count += more),
                        false => taken,
                    }
                }
                Ok(None) => {
                    let checked = self.check_commands();
                    if let Err(fatal) = checked {
                        self.refuse(parts, &fatal);
                        return bytes.len();
                    }
                    break;
                }
                Err(fault) => Err(fault.into()),
            };
            if let Err(fatal) = taken {
                self.refuse(parts, &fatal);
            }
            if self.state != State::Ready || self.is_close_owed {
                return bytes.len();
            }
        }
        // All but the last look have found one.
        self.traffic.received_messages += count - 1;
        self.traffic.received_bytes += frames.consumed() as u64;
        consumed + frames.consumed()
    }

    /// Bytes that the frame whose begin is `rest` occupies, as far as that is known.
    pub fn frame_bytes(&self, rest: &[u8]) -> usize {
        Frames::new(rest, Side::Server, LIMITS.frame_max).wanted()
    }

    /// In one piece with what decodes it, so that what it says stays in registers.
    #[inline(always)]
    fn on_frame(&mut self, parts: &mut Parts, frame: Frame<'_>, bytes: &[u8]) -> Result<(), Fatal> {
        match frame {
            Frame::Message(message) => {
                self.receiving.receive(bytes.len())?;
                self.on_message(parts, &message, bytes)
            }
            Frame::Request(message) => {
                self.receiving.receive(bytes.len())?;
                self.on_request(parts, message)?;
                self.done_with(bytes.len())
            }
            Frame::Reply(message) => self.on_reply(parts, message),
            Frame::Control(control) => self.on_control(parts, &control),
        }
    }

    /// Received bytes of messages take no room any more.
    pub(super) fn done_with(&mut self, size: usize) -> Result<(), Fatal> {
        match self.receiving.finish(size, LIMITS.frame_max) {
            Some(limit) => {
                ControlDraft::whole(&mut self.out.bytes, Kind::Credit, limit)?;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn on_hello(&mut self, parts: &mut Parts, bytes: &[u8]) -> usize {
        let capabilities = match self.may_have_rings {
            true => CAPABILITIES | capability::SHM,
            false => CAPABILITIES,
        };
        let (hello, size) = match read_hello(bytes, capabilities) {
            Ok(Some(hello)) => hello,
            Ok(None) => return 0,
            Err(fault) => {
                self.refuse(parts, &fault.into());
                return bytes.len();
            }
        };
        let fatal = |reason, status, text| Some(Fatal::new(reason, status, text));
        let mut refusal = None;
        let (is_stranger, subscriptions_max) = {
            let changes = lock(&parts.changes);
            let token = &changes.token;
            let is_stranger = !token.is_empty() && !hello.has_token(token);
            (is_stranger, changes.subscriptions_max)
        };
        if is_stranger {
            let says = "the token is wrong or missing";
            refusal = fatal(Reason::Authentication, Status::Denied, says);
        } else if let Some((reason, says)) = self.refusal {
            refusal = fatal(reason, Status::Unavailable, says);
        } else if parts.is_draining {
            let says = "the server is closing";
            refusal = fatal(Reason::Draining, Status::Unavailable, says);
        }
        if let Some(fatal) = refusal {
            self.refuse(parts, &fatal);
            return bytes.len();
        }
        let mut capabilities = capabilities & hello.capabilities;
        let mut rings = None;
        if capabilities & capability::SHM != 0 {
            self.offer = parts.offer_rings();
            rings = self.offer.is_some().then_some((RING_BYTES, RING_BYTES));
            capabilities ^= if rings.is_none() { capability::SHM } else { 0 };
        }
        let name = parts.options.name.as_bytes();
        let welcome = Welcome {
            version: VERSION,
            capabilities,
            name: &name[..name.len().min(255)],
            client: self.key.serial,
            instance: parts.instance,
            payload_max: parts.broker.options().payload_max,
            subscriptions_max: u64::from(subscriptions_max),
            servers: parts.options.servers.as_bytes(),
            rings,
            limits: LIMITS,
        };
        let agreement = Agreement::of_server(&hello, &welcome);
        if welcome.write(&mut self.out.bytes).is_err() || self.state.welcomed().is_err() {
            self.refuse(parts, &NoMemory.into());
            return bytes.len();
        }
        self.is_present = true;
        parts
            .broker
            .connected(parts.instance, self.key.serial, hello.name);
        self.capabilities = agreement.capabilities;
        self.theirs = agreement.theirs;
        if rings.is_some() {
            self.theirs.frame_max = self.theirs.frame_max.min(RING_BYTES as u32 / 2);
        }
        let silence_ns_max = agreement.silence_ns_max();
        self.liveness = Liveness::new(parts.now_ns, LIMITS.ping_ns, silence_ns_max);
        self.sending = Sending::new(self.theirs.credit);
        let alias_bytes_max = self.theirs.alias_bytes_max.min(ALIAS_BYTES_MAX);
        self.numbers = Numbers::new(self.theirs.alias_max.min(ALIASES_MAX), alias_bytes_max);
        self.begin_figures(parts, hello.name);
        size
    }

    /// Whether both sides can this.
    pub(super) fn has(&self, capability: u64) -> bool {
        self.capabilities & capability != 0
    }

    /// Ends the connection with an ERROR.
    pub(super) fn refuse(&mut self, parts: &mut Parts, fatal: &Fatal) {
        self.log_refusal(fatal.reason(), fatal);
        let out = &mut self.out.bytes;
        // Without memory the connection ends without a word.
        let _ = match fatal {
            Fatal::Fault(fault) => write_fault(out, fault),
            Fatal::Other(reason, status, text) => {
                fastmq_wire::control::write_error(out, 0, *reason, *status as u8, flag::FATAL, text)
            }
        };
        self.state.said_goodbye();
        let why = self.is_present.then(|| fatal.to_string());
        self.let_go(parts, why.as_deref());
    }

    /// The other side has broken its rings: that is all it is told.
    pub(super) fn refuse_rings(&mut self, parts: &mut Parts) {
        self.out.bytes.clear();
        let says = "the rings' cursors or frames are out of range";
        self.refuse(parts, &Fatal::new(Reason::Length, Status::Invalid, says));
    }

    /// Logs a refusal, once for a connection and reason.
    pub(super) fn log_refusal(&mut self, reason: Reason, why: &dyn std::fmt::Display) {
        let bit = 1 << reason as u32;
        if self.logged & bit == 0 {
            self.logged |= bit;
            let (serial, name) = (self.key.serial, reason.name());
            let text = format!("connection {serial} is refused something: {name}: {why}");
            log::write(Level::Warn, "server", &text);
        }
    }

    /// Says CLOSE, or answers it.
    pub(super) fn say_close(&mut self, parts: &mut Parts, status: Status) {
        let draft = ControlDraft::whole(&mut self.out.bytes, Kind::Close, 0);
        drop(draft.map(|draft| draft.status(status as u8)));
        self.state.said_goodbye();
        self.let_go(parts, None);
    }

    /// The server will close at `deadline_ns`.
    pub fn announce_drain(&mut self, parts: &mut Parts, deadline_ns: u64) {
        match self.state {
            State::Ready => {
                let left_ns = deadline_ns.saturating_sub(parts.now_ns);
                let draft = ControlDraft::whole(&mut self.out.bytes, Kind::Drain, 0);
                let draft = draft.and_then(|draft| draft.number(Field::DeadlineNs, left_ns));
                let servers = parts.options.servers.as_bytes();
                if !servers.is_empty() {
                    drop(draft.and_then(|draft| draft.bytes(Field::Servers, servers)));
                }
            }
            State::Waiting => {
                let says = "the server is closing";
                let fatal = Fatal::new(Reason::Draining, Status::Unavailable, says);
                self.refuse(parts, &fatal);
            }
            _ => {}
        }
    }

    /// The server closes now.
    pub fn close(&mut self, parts: &mut Parts) {
        match self.state {
            State::Ready => self.say_close(parts, Status::Ok),
            State::Waiting => self.on_end(parts),
            _ => {}
        }
    }

    /// Nothing more will arrive, or nothing can be sent.
    pub fn on_end(&mut self, parts: &mut Parts) {
        let is_clean = self.state.heard_nothing_more();
        let says = "the connection broke";
        self.let_go(parts, (!is_clean).then_some(says));
    }

    /// Gives back all that the connection has of the engine; `broken`: how it has ended, if not
    /// by CLOSE.
    pub(super) fn let_go(&mut self, parts: &mut Parts, broken: Option<&str>) {
        self.end_figures(parts);
        let was_present = std::mem::take(&mut self.is_present);
        self.cancel_held(parts, None);
        // Their askers hear CANCELLED.
        self.streams = Streams::default();
        for token in self.owed.take_all() {
            parts.broker.answer_late(token, Status::Cancelled);
        }
        for feed in self.feeds.drain(..).flatten() {
            feed.end(parts);
        }
        self.feed_of.clear();
        self.ready.clear();
        self.parked = Parked::default();
        self.asker = None;
        self.draining_all = None;
        self.slow_check_ns = FOREVER_NS;
        self.numbered = HashMap::new();
        self.aliases = Aliases::new(0, 0);
        self.publishers = HashMap::new();
        // Behind what has ended with it.
        if was_present {
            parts
                .broker
                .disconnected(parts.instance, self.key.serial, broken);
        }
    }

    /// When [`on_time`](Session::on_time) has something to do; `FOREVER_NS`: never.
    pub fn deadline_ns(&self) -> u64 {
        match self.state {
            State::Waiting => self.opened_ns.saturating_add(HANDSHAKE_NS),
            State::Ready => {
                let asked_ns = self
                    .asker
                    .as_ref()
                    .map_or(FOREVER_NS, |it| it.deadline_ns());
                // Answers are looked at again when there is room for them.
                let asked_ns = if self.is_full() { FOREVER_NS } else { asked_ns };
                self.liveness
                    .deadline_ns()
                    .min(asked_ns)
                    .min(self.parked_at_ns())
                    .min(self.slow_check_ns)
                    .min(self.streams.again_ns())
            }
            _ => FOREVER_NS,
        }
    }

    /// Does what is due at the time of `parts`.
    pub fn on_time(&mut self, parts: &mut Parts) {
        let now_ns = parts.now_ns;
        let timed_out = |says| Fatal::new(Reason::Timeout, Status::Timeout, says);
        match self.state {
            State::Waiting if now_ns >= self.opened_ns.saturating_add(HANDSHAKE_NS) => {
                self.refuse(parts, &timed_out("no HELLO came within 10 s"));
            }
            State::Ready => {
                match self.liveness.on_time(now_ns) {
                    Sign::Nothing => {}
                    Sign::Ping => {
                        let _ = ControlDraft::whole(&mut self.out.bytes, Kind::Ping, now_ns);
                    }
                    Sign::Dead => {
                        self.refuse(parts, &timed_out("the connection gives no sign of life"));
                        return;
                    }
                }
                let done = self.retry_parked(parts).and_then(|()| match self.state {
                    State::Ready if now_ns >= self.slow_check_ns => self.check_slow(parts),
                    _ => Ok(()),
                });
                if let Err(fatal) = done {
                    self.refuse(parts, &fatal);
                }
            }
            _ => {}
        }
    }
}

/// What ends a connection.
#[derive(Debug)]
pub(super) enum Fatal {
    /// Bytes that are wrong.
    Fault(Fault),
    /// Anything else.
    Other(Reason, Status, &'static str),
}

impl Fatal {
    pub(super) fn new(reason: Reason, status: Status, text: &'static str) -> Self {
        Self::Other(reason, status, text)
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Fault(fault) => fault.reason(),
            Self::Other(reason, ..) => *reason,
        }
    }
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Other(_, _, text) => f.write_str(text),
        }
    }
}

impl From<Fault> for Fatal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<NoMemory> for Fatal {
    fn from(_: NoMemory) -> Self {
        let says = "there is no memory for the connection";
        Self::Other(Reason::Limit, Status::NoMemory, says)
    }
}

//! One connection after the other, without I/O: bytes and the time in, bytes out.
//!
//! Whatever the server sends, the outcome is a delivery, a change of the state, or the end of the
//! connection with a reason. Memory is bounded by our credit, the table of aliases and FRAME_MAX.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_driver::FOREVER_NS;
use fastmq_memory::Kind as RecordKind;
use fastmq_wire::control::{self, write_error, write_fault};
use fastmq_wire::handshake::{Answer, capability, read_welcome};
use fastmq_wire::{
    Agreement, Aliases, ControlDraft, Frame, Frames, HEADER_BYTES, Hello, Kind, Limits, Reason,
    Receiving, Sending, Side, State as Life, VERSION, Welcome,
};

use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::liveness::{Liveness, Sign};
use crate::log;
use crate::survey::LEG;
use crate::writer::Writer;

use super::control::{closed, said};
use super::deliver::Deliveries;
use super::many::HeldReplies;
use super::names::Names;
use super::run::{Run, is_usual};
use super::state::{Phase, no_memory};
use super::uplink::Uplink;
use super::{ALIAS_BYTES_MAX, ALIASES_MAX, Event, HANDSHAKE_NS, PING_NS};

/// What this version can do of what a server may.
const CAPABILITIES: u64 =
    capability::MANY | capability::KEY_SHARED | capability::LATEST | capability::LAST_VALUE;
/// Most that texts and words add to a payload.
const AROUND_BYTES_MAX: u64 = 136 << 10;
/// Least credit that the server gets.
const CREDIT_MIN: u64 = 2 << 20;

/// Why a connection has ended, for the application.
pub(super) type Ending = Error;

/// The link of a client, but for its sockets.
pub(super) struct Session {
    pub(super) uplink: Arc<Uplink>,
    pub(super) writer: Writer,
    pub(super) life: Life,
    pub(super) limits: Limits,
    agreement: Agreement,
    /// What has come and was not taken yet.
    buffer: Vec<u8>,
    pub(super) aliases: Aliases<Box<[u8]>>,
    pub(super) receiving: Receiving,
    /// The credit of the last HELLO.
    credit: u64,
    pub(super) deliveries: Deliveries,
    pub(super) held_replies: HeldReplies,
    started_ns: u64,
    liveness: Liveness,
    /// The last server's INSTANCE; 0: there was none.
    instance: u64,
    is_again: bool,
    /// Whether it asks for shared memory.
    pub(super) wants_rings: bool,
    /// Capacities of the rings that came with the WELCOME, until they are used.
    pub(super) rings: Option<(u64, u64)>,
    /// Where else the server has said one may connect when it drains, and when it greeted.
    pub(super) elsewhere: Option<String>,
    pub(super) others: Option<String>,
    /// The server will close; the client leaves as soon as nothing is open.
    pub(super) leave_ns: u64,
    goodbye_until_ns: u64,
    pub(super) farewell: Farewell,
}

/// What is still to be sent when a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Nothing: the other side is gone.
    Nothing,
    /// What is wrong with its bytes.
    Refusal,
    /// All that is due, and CLOSE.
    Everything,
}

/// What came of received bytes.
#[derive(Debug)]
pub(super) enum Turn {
    /// The connection goes on.
    On,
    /// It has ended: what is still to be sent is to be sent, then it is closed.
    Ended(Ending),
}

pub(super) fn ended(status: &'static Fault) -> Ending {
    Error::new(status)
}

impl Session {
    pub(super) fn new(broker: &Arc<Broker>, uplink: Arc<Uplink>) -> Result<Self> {
        let frame_max = (broker.options.payload_max + AROUND_BYTES_MAX + 7) & !7;
        let limits = Limits {
            frame_max: frame_max as u32,
            credit: CREDIT_MIN.max(2 * frame_max),
            alias_max: ALIASES_MAX,
            alias_bytes_max: ALIAS_BYTES_MAX,
            ping_ns: PING_NS,
        };
        Ok(Self {
            uplink,
            writer: Writer::new(broker, None)?,
            life: Life::Ended,
            limits,
            agreement: Agreement {
                version: VERSION,
                capabilities: 0,
                ours: limits,
                theirs: Limits::default(),
            },
            buffer: Vec::new(),
            aliases: Aliases::new(0, 0),
            receiving: Receiving::new(0),
            credit: 0,
            deliveries: Deliveries::new(limits.credit, limits.frame_max),
            held_replies: HeldReplies::default(),
            started_ns: 0,
            liveness: Liveness::new(0, PING_NS, None),
            instance: 0,
            is_again: false,
            wants_rings: false,
            rings: None,
            elsewhere: None,
            others: None,
            leave_ns: FOREVER_NS,
            goodbye_until_ns: FOREVER_NS,
            farewell: Farewell::Nothing,
        })
    }

    /// Whether this side has said goodbye and waits for the other one.
    pub(super) fn is_going(&self) -> bool {
        self.life == Life::Ending
    }

    /// Whether it waits for the WELCOME.
    pub(super) fn is_waiting(&self) -> bool {
        self.life == Life::Waiting
    }

    /// The server has broken the rings: that is all it is told.
    pub(super) fn refuse_rings(&mut self) -> Ending {
        let mut state = self.uplink.state();
        state.urgent.clear();
        let (status, text) = (Status::Invalid as u8, "the rings are wrong");
        // Without memory the connection ends without a word.
        let _ = write_error(
            &mut state.urgent,
            0,
            Reason::Length,
            status,
            control::flag::FATAL,
            text,
        );
        drop(state);
        self.life.said_goodbye();
        self.farewell = Farewell::Refusal;
        ended(&Fault(
            Status::Invalid,
            "the server's rings in shared memory are wrong",
        ))
    }

    /// A connection has been made: says HELLO.
    pub(super) fn start(&mut self, now_ns: u64) -> Result<()> {
        self.life = Life::Waiting;
        self.buffer.clear();
        self.started_ns = now_ns;
        self.leave_ns = FOREVER_NS;
        self.goodbye_until_ns = FOREVER_NS;
        self.farewell = Farewell::Nothing;
        self.elsewhere = None;
        self.rings = None;
        let Limits {
            credit, frame_max, ..
        } = self.limits;
        self.receiving = Receiving::holding(self.deliveries.begin(), credit, frame_max);
        self.credit = self.receiving.granted();
        let uplink = self.uplink.clone();
        let mut state = uplink.state();
        state.urgent.clear();
        self.hello(&uplink)
            .write(&mut state.urgent)
            .map_err(no_memory)
    }

    fn hello<'u>(&self, uplink: &'u Uplink) -> Hello<'u> {
        Hello {
            versions: (VERSION, VERSION),
            capabilities: match self.wants_rings {
                true => CAPABILITIES | capability::SHM,
                false => CAPABILITIES,
            },
            required: 0,
            name: uplink.options.name.as_bytes(),
            token: &uplink.options.token,
            limits: Limits {
                credit: self.credit,
                ..self.limits
            },
        }
    }

    /// Takes bytes that have come.
    pub(super) fn receive(&mut self, bytes: &[u8], now_ns: u64) -> Turn {
        self.liveness.hear(now_ns);
        match self.take_all(bytes, now_ns) {
            Ok(()) => Turn::On,
            Err(ending) => Turn::Ended(ending),
        }
    }

    /// Takes what came: what a frame lacked that was cut, then the others where they are.
    fn take_all(&mut self, mut bytes: &[u8], now_ns: u64) -> std::result::Result<(), Ending> {
        while !self.buffer.is_empty() {
            let lacking = self.wanted().saturating_sub(self.buffer.len());
            let (more, rest) = bytes.split_at(lacking.max(1).min(bytes.len()));
            keep(&mut self.buffer, more)?;
            bytes = rest;
            let buffer = std::mem::take(&mut self.buffer);
            let taken = self.take(&buffer, now_ns);
            self.buffer = buffer;
            self.buffer.drain(..taken?);
            if bytes.is_empty() {
                return Ok(());
            }
        }
        let taken = self.take(bytes, now_ns)?;
        keep(&mut self.buffer, bytes.get(taken..).unwrap_or_default())
    }

    /// Bytes that the frame occupies of which the first are kept, as far as that is known.
    fn wanted(&self) -> usize {
        Frames::new(&self.buffer, Side::Client, self.limits.frame_max).wanted()
    }

    /// Takes whole frames; how many bytes.
    fn take(&mut self, bytes: &[u8], now_ns: u64) -> std::result::Result<usize, Ending> {
        let mut start = 0;
        if self.life == Life::Waiting {
            start = match read_welcome(bytes) {
                Ok(None) => return Ok(0),
                Ok(Some((Answer::Welcome(welcome), size))) => {
                    self.welcomed(&welcome, now_ns)?;
                    size
                }
                Ok(Some((Answer::Refused(error), _))) => {
                    self.life = Life::Ended;
                    return Err(said(&error, Status::Unavailable));
                }
                Err(fault) => return Err(self.refuse(&fault)),
            };
        }
        let rest = bytes.get(start..).unwrap_or_default();
        let mut frames = Frames::new(rest, Side::Client, self.limits.frame_max);
        let mut run = Run::new();
        loop {
            let is_row = self.life.is_listening()
                && match frames.kind() {
                    Some(Kind::Reply) => {
                        self.end_run(&mut run, now_ns)?;
                        self.take_replies(&mut frames)
                    }
                    Some(Kind::Request) => {
                        self.end_run(&mut run, now_ns)?;
                        self.take_questions(&mut frames, now_ns)?
                    }
                    _ => false,
                };
            if is_row {
                continue;
            }
            let next = frames.next_frame();
            if let Ok(Some(Frame::Message(message))) = &next
                && is_usual(message)
                && self.life.is_listening()
            {
                if !run.takes(message.subscription()) {
                    self.end_run(&mut run, now_ns)?;
                    run.begin(message.subscription());
                }
                run.add(message);
                continue;
            }
            self.end_run(&mut run, now_ns)?;
            match next {
                Ok(None) => return Ok(start + frames.consumed()),
                Ok(Some(frame)) => self.on_frame(&frame, now_ns)?,
                Err(_) if !self.life.is_listening() => return Ok(bytes.len()),
                Err(fault) => return Err(self.refuse(&fault)),
            }
        }
    }

    /// Tells the server what is wrong with its bytes.
    pub(super) fn refuse(&mut self, fault: &fastmq_wire::Fault) -> Ending {
        let mut state = self.uplink.state();
        // Without memory the connection ends without a word.
        let _ = write_fault(&mut state.urgent, fault);
        drop(state);
        self.life.said_goodbye();
        self.farewell = Farewell::Refusal;
        let fallback = &Fault(Status::Invalid, "the server's bytes are wrong");
        Error::with(
            fallback,
            format_args!("the server's bytes are wrong: {fault}"),
        )
    }

    fn welcomed(&mut self, welcome: &Welcome<'_>, now_ns: u64) -> std::result::Result<(), Ending> {
        let uplink = self.uplink.clone();
        self.agreement = Agreement::of_client(&self.hello(&uplink), welcome);
        if self.agreement.has(capability::SHM) {
            let (to_server, to_client) = welcome.rings.unwrap_or_default();
            if u64::from(welcome.limits.frame_max) > to_server / 2 {
                return Err(ended(&Fault(
                    Status::Invalid,
                    "the server's bytes are wrong: its rings are smaller than its frames",
                )));
            }
            self.rings = Some((to_server, to_client));
        }
        self.liveness = Liveness::new(now_ns, PING_NS, self.agreement.silence_ns_max());
        self.aliases = Aliases::new(self.limits.alias_max, self.limits.alias_bytes_max);
        let _was_waiting = self.life.welcomed();
        self.started_ns = now_ns;
        let is_other = self.instance != welcome.instance && self.is_again;
        self.instance = welcome.instance;
        if !welcome.servers.is_empty() {
            self.others = Some(String::from_utf8_lossy(welcome.servers).into_owned());
        }
        let theirs = welcome.limits;
        let mut state = uplink.state();
        state.phase = Phase::Online;
        state.epoch = state.epoch.wrapping_add(1).max(1);
        state.has_failed = false;
        state.agreement = self.agreement;
        state.payload_max = welcome.payload_max;
        state.plain_max = match welcome.payload_max {
            0 => plain_max(theirs.frame_max),
            payload_max => plain_max(theirs.frame_max).min(payload_max as usize),
        };
        state.credit = Sending::new(theirs.credit);
        state.names = Names::new(theirs.alias_max, theirs.alias_bytes_max);
        let granted = self.receiving.granted();
        if granted > self.credit {
            // Room that came since HELLO. Without memory it is told with the next.
            let _ = ControlDraft::whole(&mut state.out, Kind::Credit, granted);
        }
        let too_large = state.drop_too_large();
        let mut ids: Vec<u32> = Vec::new();
        let room = ids.try_reserve(state.subscriptions.len());
        room.map_err(|_| Error::NO_MEMORY)?;
        if !state.draining.is_asked {
            ids.extend(state.subscriptions.keys());
        }
        let mut refused = Vec::new();
        for id in &ids {
            if let Err(error) = state.ask_for(*id) {
                refused.push((*id, error));
            }
        }
        drop(state);
        for (id, error) in refused {
            self.tell_unsubscribed(id, &error);
        }
        uplink.nudge();
        uplink.report_answer();
        uplink.report_room();
        let is_again = std::mem::replace(&mut self.is_again, true);
        self.tell(&Event::Connected {
            server: &String::from_utf8_lossy(welcome.name),
            is_again,
            is_other_instance: is_other,
            subscriptions: ids.len(),
        });
        self.tell_too_large(&too_large);
        Ok(())
    }

    pub(super) fn on_frame(
        &mut self,
        frame: &Frame<'_>,
        now_ns: u64,
    ) -> std::result::Result<(), Ending> {
        if !self.life.is_listening() {
            // Only how the other side ends is of interest.
            return match frame {
                Frame::Control(control) if control.kind() == Kind::Close => Err(closed()),
                _ => Ok(()),
            };
        }
        match frame {
            Frame::Message(message) => self.on_delivery(message, RecordKind::Message, now_ns),
            Frame::Request(message) => self.on_delivery(message, RecordKind::Request, now_ns),
            Frame::Reply(message) => {
                self.on_reply(message);
                Ok(())
            }
            Frame::Control(control) => self.on_control(control, now_ns),
        }
    }

    /// Writes deliveries and replies whose queues were full; true: some of the deliveries.
    pub(super) fn retry(&mut self, now_ns: u64) -> bool {
        let size = self.deliveries.retry(&self.uplink, &self.writer, now_ns);
        if size > 0 {
            let held = self.deliveries.held_count();
            self.uplink.held.store(held, Ordering::SeqCst);
        }
        self.finish(size);
        self.retry_replies();
        size > 0
    }

    /// When there may be room for what is held, of which nobody calls.
    pub(super) fn retry_at_ns(&self, now_ns: u64) -> u64 {
        let is_called = self.writer.shard.is_some();
        let deliveries_ns = self.deliveries.retry_at_ns(now_ns, is_called);
        deliveries_ns.min(self.held_replies.retry_at_ns(now_ns))
    }

    /// Says CLOSE, once; until then the server is waited for.
    pub(super) fn say_goodbye(&mut self, until_ns: u64) {
        if self.life == Life::Ready {
            self.goodbye_until_ns = until_ns;
            let mut state = self.uplink.state();
            state.phase = Phase::Offline;
            let _ = ControlDraft::pair(&mut state.out, Kind::Close, 0, 0);
            drop(state);
            self.life.said_goodbye();
            self.uplink.nudge();
        }
    }

    /// What the time brings.
    pub(super) fn tick(&mut self, now_ns: u64) -> Turn {
        if self.life == Life::Waiting && now_ns >= self.started_ns + HANDSHAKE_NS {
            return Turn::Ended(ended(&Fault(
                Status::Timeout,
                "the server did not answer the handshake",
            )));
        }
        if self.is_going() && now_ns >= self.goodbye_until_ns {
            return Turn::Ended(ended(&Fault(
                Status::Timeout,
                "the server did not answer the goodbye",
            )));
        }
        if self.life != Life::Ready {
            return Turn::On;
        }
        match self.liveness.on_time(now_ns) {
            Sign::Nothing => {}
            Sign::Ping => {
                let mut state = self.uplink.state();
                let _ = ControlDraft::whole(&mut state.urgent, Kind::Ping, now_ns);
                drop(state);
                self.uplink.nudge();
            }
            Sign::Dead => {
                return Turn::Ended(ended(&Fault(
                    Status::Timeout,
                    "the server has given no sign of life",
                )));
            }
        }
        let nothing_open = || {
            let state = self.uplink.state();
            state.asked.count() == 0 && !state.tokens.is_owing()
        };
        if self.leave_ns != FOREVER_NS && (now_ns >= self.leave_ns || nothing_open()) {
            self.say_goodbye(now_ns + HANDSHAKE_NS);
        }
        Turn::On
    }

    /// When `tick` or `retry` next has something to do.
    pub(super) fn deadline_ns(&self, now_ns: u64) -> u64 {
        let own = match self.life {
            Life::Waiting => self.started_ns + HANDSHAKE_NS,
            Life::Ready => {
                let leave_ns = match self.leave_ns {
                    FOREVER_NS => FOREVER_NS,
                    _ => self.leave_ns.min(now_ns + 10_000_000),
                };
                self.liveness.deadline_ns().min(leave_ns)
            }
            Life::Ending => self.goodbye_until_ns,
            _ => FOREVER_NS,
        };
        own.min(self.retry_at_ns(now_ns))
    }

    /// The connection is gone.
    pub(super) fn end(&mut self, why: &Ending, has_failed: bool) {
        self.life = Life::Ended;
        self.buffer = Vec::new();
        let uplink = self.uplink.clone();
        let mut state = uplink.state();
        if state.phase == Phase::Online {
            state.phase = Phase::Offline;
        }
        let unsent = state.unsent();
        state.out.clear();
        state.urgent.clear();
        state.operations.open.clear();
        state.draining.disconnected();
        state.tokens.forget();
        state.names = Names::new(0, 0);
        state.last_error = Some(why.clone());
        state.has_failed |= has_failed;
        let asked = state.asked.take_all();
        let streams = state.streams.take_open();
        drop(state);
        for token in asked.tokens() {
            let status = Status::Disconnected;
            match token as u32 & LEG {
                0 => self.writer.broker().answer_late(token, status),
                // Behind the answers that have come.
                _ => self.end_many(token, status as u32, &[]),
            }
        }
        for credit in streams {
            credit.close(self.writer.broker());
        }
        uplink.report_answer();
        uplink.report_room();
        let status = match why.status() {
            Status::Ok => Status::Disconnected,
            status => status,
        };
        self.tell(&Event::Disconnected {
            status,
            why: why.text(),
            unsent,
        });
    }

    /// The link ends: nothing will be sent any more.
    pub(super) fn over(&mut self) {
        let uplink = self.uplink.clone();
        uplink.state().phase = Phase::Over;
        uplink.has_ended.store(true, Ordering::SeqCst);
        uplink.report_answer();
        uplink.report_room();
    }

    pub(super) fn tell_unsubscribed(&self, subscription: u32, error: &Error) {
        self.tell(&Event::Unsubscribed {
            subscription,
            status: error.status(),
            why: error.text(),
        });
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        if let Event::Disconnected { why, .. } | Event::Refused { why, .. } = event {
            log::write(log::Level::Warn, "link", why);
        }
        if let Some(on_event) = &self.uplink.options.on_event {
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| on_event(event)));
            if told.is_err() {
                log::write(log::Level::Error, "link", "the handler of events panicked");
            }
        }
    }
}

/// Largest payload of a frame without words and texts, where frames have at most so many bytes.
fn plain_max(frame_max: u32) -> usize {
    (frame_max as usize & !7).saturating_sub(HEADER_BYTES)
}

fn keep(buffer: &mut Vec<u8>, bytes: &[u8]) -> std::result::Result<(), Ending> {
    buffer
        .try_reserve(bytes.len())
        .map_err(|_| Error::NO_MEMORY)?;
    buffer.extend_from_slice(bytes);
    Ok(())
}

//! What a connection publishes.
//!
//! A publish that meets a full queue, and has no operation that could be answered, is parked: a
//! copy of its frame waits for room, and the publishes of the connection behind it with it. Parked
//! bytes are not dealt with, so the connection's credit bounds them.

use std::sync::atomic::Ordering;

use fastmq_driver::FOREVER_NS;
use fastmq_memory::allocation::try_bytes;
use fastmq_memory::record::flag as record;
use fastmq_wire::control::write_error;
use fastmq_wire::handshake::capability;
use fastmq_wire::message::flag;
use fastmq_wire::{ControlDraft, Fault, Field, Frame, Frames, Kind, Message as Received};
use fastmq_wire::{Reason, Side};

use crate::error::{Error, Status};
use crate::message::Message;
use crate::publisher::NEXT_PUBLISHER;
use crate::route::Route;
use crate::writer::Writer;

use super::parts::Parts;
use super::session::{Fatal, Session};
use super::{PARKED_NS, PUBLISHERS_MAX};

/// How often room is looked for. Whoever makes it may be any thread of the process.
const AGAIN_NS: u64 = 1_000_000;
/// Least time between two ERRORs for no operation, for each status.
const TOLD_NS: u64 = 1_000_000_000;
/// Flags of a message that need nothing beyond its subject and payload.
const USUAL: u16 = flag::ALIAS | flag::MORE | flag::TOKEN | flag::LOST;

/// What an alias stands for.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) subject: Box<[u8]>,
    pub(super) route: Option<Box<Route>>,
}

impl Known {
    pub(super) fn new(subject: &[u8]) -> Result<Self, Fault> {
        let subject = try_bytes(subject).map_err(|_| Fault::NoMemory)?;
        let route = None;
        Ok(Self { subject, route })
    }
}

/// A publish that waits for room.
pub(super) struct Parked {
    subject: Box<[u8]>,
    frame: Box<[u8]>,
    publisher: u64,
    since_ns: u64,
}

/// What a publish carries beyond what users of the library give.
#[derive(Clone, Copy, Default)]
struct Origin {
    sequence: u64,
    publisher: u64,
    timestamp_ns: u64,
}

impl Session {
    pub(super) fn on_message(
        &mut self,
        parts: &mut Parts,
        message: &Received<'_>,
        bytes: &[u8],
    ) -> Result<(), Fatal> {
        let operation = self.operation_of(message);
        if !self.parked.is_empty() {
            return self.park(parts, message, bytes);
        }
        let published = match message.alias() {
            Some(alias) => {
                let entry = self.aliases.get(alias)?;
                let (known, publisher) = (&mut entry.value, entry.publisher);
                match &mut known.route {
                    Some(route) if message.flags() & !USUAL == 0 => {
                        let (subject, payload) = (&known.subject, message.payload());
                        parts.writer.publish_at(route, subject, payload)
                    }
                    route => {
                        let origin = origin(&mut self.publishers, message, publisher);
                        let sent = message_of(message, &known.subject, 0);
                        parts.writer.publish_from(route, &sent, origin)
                    }
                }
            }
            None => {
                let origin = origin(&mut self.publishers, message, 0);
                let sent = message_of(message, message.subject(), 0);
                parts.writer.publish_from(&mut None, &sent, origin)
            }
        };
        match published {
            Err(error) if error.status() == Status::Again && operation == 0 => {
                return self.park(parts, message, bytes);
            }
            published => self.settle(parts, message, operation, published)?,
        }
        self.done_with(bytes.len())
    }

    /// The operation that is to be answered; 0: none.
    fn operation_of(&self, message: &Received<'_>) -> u32 {
        match self.has(capability::ACK) {
            true => message.operation(),
            false => 0,
        }
    }

    /// Says what became of a publish.
    fn settle(
        &mut self,
        parts: &Parts,
        message: &Received<'_>,
        operation: u32,
        published: Result<(), Error>,
    ) -> Result<(), Fatal> {
        let Err(error) = published else {
            if operation > 0 {
                ControlDraft::pair(&mut self.out.bytes, Kind::Ack, operation, 0)?;
            }
            return Ok(());
        };
        let (reason, status) = refusal_of(&error);
        if operation > 0 {
            return self.fail(operation, reason, status, error.text());
        }
        let subject = match message.alias() {
            Some(alias) => self
                .aliases
                .get(alias)
                .map(|entry| entry.value.subject.clone())?,
            None => message.subject().into(),
        };
        self.tell(parts, reason, status, error.text(), &subject)
    }

    /// An ERROR for no operation, unless there was one of this status within the last second.
    fn tell(
        &mut self,
        parts: &Parts,
        reason: Reason,
        status: Status,
        text: &str,
        subject: &[u8],
    ) -> Result<(), Fatal> {
        self.log_refusal(reason, &text);
        let code = status as u8;
        match self.told_ns.iter_mut().find(|(other, _)| *other == code) {
            Some((_, ns)) if parts.now_ns < ns.saturating_add(TOLD_NS) => return Ok(()),
            Some((_, ns)) => *ns = parts.now_ns,
            None => self.told_ns.push((code, parts.now_ns)),
        }
        if subject.len() > fastmq_wire::SUBJECT_BYTES_MAX {
            return Ok(write_error(&mut self.out.bytes, 0, reason, code, 0, text)?);
        }
        let text = &text[..text.floor_char_boundary(1024)];
        ControlDraft::pair(&mut self.out.bytes, Kind::Error, 0, reason as u32)?
            .status(code)
            .bytes(Field::Sentence, text.as_bytes())?
            .bytes(Field::Subject, subject)?;
        Ok(())
    }

    fn park(&mut self, parts: &Parts, message: &Received<'_>, bytes: &[u8]) -> Result<(), Fatal> {
        let no_memory = || Fatal::from(fastmq_wire::NoMemory);
        let (subject, publisher) = match message.alias() {
            Some(alias) => {
                let entry = self.aliases.get(alias)?;
                (&*entry.value.subject, entry.publisher)
            }
            None => (message.subject(), 0),
        };
        let parked = Parked {
            subject: try_bytes(subject).map_err(|_| no_memory())?,
            frame: try_bytes(bytes).map_err(|_| no_memory())?,
            publisher,
            since_ns: parts.now_ns,
        };
        self.parked.try_reserve(1).map_err(|_| no_memory())?;
        self.parked.push_back(parked);
        Ok(())
    }

    /// When room is looked for.
    pub(super) fn parked_at_ns(&self) -> u64 {
        match self.parked.is_empty() {
            true => FOREVER_NS,
            false => self.parked_again_ns,
        }
    }

    /// Publishes what was parked, as far as there is room.
    pub(super) fn retry_parked(&mut self, parts: &mut Parts) -> Result<(), Fatal> {
        self.parked_again_ns = parts.now_ns.saturating_add(AGAIN_NS);
        while let Some(parked) = self.parked.front() {
            let mut frames = Frames::new(&parked.frame, Side::Server, u32::MAX);
            // It was decoded before.
            let Ok(Some(Frame::Message(message))) = frames.next_frame() else {
                self.parked.pop_front();
                continue;
            };
            let waited_ns = parts.now_ns.saturating_sub(parked.since_ns);
            let operation = self.operation_of(&message);
            let is_expired = message.ttl_ns().is_some_and(|ttl_ns| waited_ns >= ttl_ns);
            let origin = origin(&mut self.publishers, &message, parked.publisher);
            let published = match is_expired {
                true => Ok(()),
                false => {
                    let sent = message_of(&message, &parked.subject, waited_ns);
                    parts.writer.publish_from(&mut None, &sent, origin)
                }
            };
            let is_full = matches!(&published, Err(error) if error.status() == Status::Again);
            if is_full && operation == 0 && waited_ns < PARKED_NS {
                return Ok(());
            }
            let Some(parked) = self.parked.pop_front() else {
                return Ok(());
            };
            match published {
                Ok(()) if operation > 0 => {
                    ControlDraft::pair(&mut self.out.bytes, Kind::Ack, operation, 0)?;
                }
                Ok(()) => {}
                Err(error) => {
                    let (reason, status) = refusal_of(&error);
                    match operation {
                        0 => self.tell(parts, reason, status, error.text(), &parked.subject)?,
                        operation => self.fail(operation, reason, status, error.text())?,
                    }
                }
            }
            self.done_with(parked.frame.len())?;
        }
        self.answer_close(parts);
        Ok(())
    }
}

/// The engine's message for a received one, `waited_ns` after it came.
pub(super) fn message_of<'m>(
    message: &Received<'m>,
    subject: &'m [u8],
    waited_ns: u64,
) -> Message<'m> {
    Message {
        subject,
        payload: message.payload(),
        reply_to: message.reply_to(),
        key: message.key(),
        headers: message.headers(),
        ttl_ns: match message.ttl_ns() {
            Some(ttl_ns) => ttl_ns.saturating_sub(waited_ns).max(1),
            None => 0,
        },
        keep_last: false,
    }
}

/// What else a message carries; its publisher gets a number that no other has.
fn origin(
    publishers: &mut std::collections::HashMap<u64, u64>,
    message: &Received<'_>,
    of_alias: u64,
) -> Origin {
    let sequence = message.sequence().unwrap_or(0);
    if sequence == 0 && message.timestamp_ns().is_none() {
        return Origin::default();
    }
    let theirs = message.publisher().unwrap_or(of_alias);
    let known = publishers.get(&theirs).copied();
    let is_room = publishers.len() < PUBLISHERS_MAX && publishers.try_reserve(1).is_ok();
    let publisher = match known {
        _ if sequence == 0 || theirs == 0 => 0,
        Some(publisher) => publisher,
        None if !is_room => 0,
        None => {
            let publisher = NEXT_PUBLISHER.fetch_add(1, Ordering::Relaxed);
            publishers.insert(theirs, publisher);
            publisher
        }
    };
    Origin {
        sequence,
        publisher,
        timestamp_ns: message.timestamp_ns().unwrap_or(0),
    }
}

/// How an error of the engine is told.
pub(super) fn refusal_of(error: &Error) -> (Reason, Status) {
    let status = error.status();
    match status {
        Status::Again => (Reason::Full, status),
        Status::Invalid => (Reason::Subject, status),
        Status::TooLarge => (Reason::Payload, status),
        Status::Closed => (Reason::Draining, Status::Unavailable),
        Status::NoMemory | Status::NoSpace => (Reason::Limit, Status::NoSpace),
        Status::Unsupported => (Reason::Option, status),
        Status::Denied => (Reason::Permission, status),
        _ => (Reason::Internal, status),
    }
}

impl Writer {
    /// Publishes a payload along a route that the caller keeps.
    #[inline]
    fn publish_at(
        &self,
        route: &mut Box<Route>,
        subject: &[u8],
        payload: &[u8],
    ) -> Result<(), Error> {
        if !self.is_current(route) {
            **route = self.make_route(self.hash.hash(subject), subject)?;
        }
        if self.is_usual(payload) {
            return self.send_usual(&route.targets, subject, payload, 0, 0);
        }
        let message = Message {
            subject,
            payload,
            ..Message::default()
        };
        self.send(&route.targets, &message, &self.draft(&message)?)
    }

    /// Publishes what another publisher has counted, and keeps the route.
    fn publish_from(
        &self,
        route: &mut Option<Box<Route>>,
        message: &Message<'_>,
        origin: Origin,
    ) -> Result<(), Error> {
        let mut draft = self.draft(message)?;
        if origin.sequence > 0 {
            draft.flags |= record::SEQUENCE;
            draft.sequence = origin.sequence;
        }
        if origin.publisher > 0 {
            draft.flags |= record::PUBLISHER;
            draft.publisher = origin.publisher;
        }
        if origin.timestamp_ns > 0 {
            draft.flags |= record::TIMESTAMP;
            draft.timestamp = origin.timestamp_ns;
        }
        let hash = self.hash.hash(message.subject);
        match route {
            Some(route) if self.is_current(route) => {}
            _ => *route = Some(Box::new(self.make_route(hash, message.subject)?)),
        }
        match route {
            Some(route) => self.send(&route.targets, message, &draft),
            None => Err(Error::NO_MEMORY),
        }
    }
}

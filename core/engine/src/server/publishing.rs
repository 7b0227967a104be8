//! What a connection publishes.
//!
//! A publish that meets a full queue, and has no operation that could be answered, is parked: a
//! copy of its frame waits for room, and the publishes of the connection behind it with it. Parked
//! bytes are not dealt with, so the connection's credit bounds them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

use fastmq_driver::FOREVER_NS;
use fastmq_memory::Draft;
use fastmq_memory::allocation::{try_box, try_bytes};
use fastmq_memory::record::flag as record;
use fastmq_wire::control::write_error;
use fastmq_wire::handshake::capability;
use fastmq_wire::message::flag;
use fastmq_wire::{ControlDraft, Fault, Field, Frame, Frames, Kind, Message as Received};
use fastmq_wire::{NoMemory, Reason, Side};

use crate::error::{Error, Status};
use crate::message::Message;
use crate::publisher::NEXT_PUBLISHER;
use crate::route::{Route, Targets};
use crate::writer::Writer;

use super::parts::Parts;
use super::session::{Fatal, Session};
use super::{PARKED_NS, PUBLISHERS_MAX};

/// How often those that wait are looked at though no queue has said that it has room: how long they
/// have waited counts, too.
const AGAIN_NS: u64 = 10_000_000;
/// How long a publish that waits lets a queue of its shard become empty, past which it then goes.
const PATIENCE_NS: u64 = 50_000_000;
/// Least time between two ERRORs for no operation, for each status.
const TOLD_NS: u64 = 1_000_000_000;
/// Flags of a message that need nothing beyond its subject and payload.
const USUAL: u16 = flag::ALIAS | flag::MORE | flag::TOKEN | flag::LOST | flag::SEQUENCE;

/// What an alias stands for.
#[derive(Debug)]
pub(super) struct Known {
    /// Names it among all of the shard.
    pub(super) number: u64,
    pub(super) subject: Box<[u8]>,
    pub(super) route: Option<Box<Route>>,
    /// The engine's number for the publisher of the alias; 0: it has none yet.
    pub(super) publisher: u64,
}

impl Known {
    pub(super) fn new(number: u64, subject: &[u8]) -> Result<Self, Fault> {
        Ok(Self {
            number,
            subject: try_bytes(subject).map_err(|_| Fault::NoMemory)?,
            route: None,
            publisher: 0,
        })
    }
}

/// Publishes that wait for room, in the order in which they came.
#[derive(Default)]
pub(super) struct Parked {
    /// Their frames, from `at` on.
    frames: Vec<u8>,
    at: usize,
    each: VecDeque<Waits>,
    /// How many of them are to what an alias stood for when they came, by [`Known::number`].
    uses: HashMap<u64, u32>,
    /// The subject and publisher of those whose alias stands for something else by now.
    renamed: HashMap<u64, Renamed>,
}

/// One of them.
struct Waits {
    size: u32,
    since_ns: u64,
    /// What its alias stood for; 0: it has none.
    known: u64,
}

/// What an alias has stood for.
type Renamed = (Box<[u8]>, u64);

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    fn push(&mut self, frame: &[u8], since_ns: u64, known: u64) -> Result<(), NoMemory> {
        if self.at > self.frames.len() / 2 {
            self.frames.drain(..self.at);
            self.at = 0;
        }
        let is_room = self.frames.try_reserve(frame.len()).is_ok();
        if !is_room || self.each.try_reserve(1).is_err() || self.uses.try_reserve(1).is_err() {
            return Err(NoMemory);
        }
        if known != 0 {
            *self.uses.entry(known).or_default() += 1;
        }
        self.frames.extend_from_slice(frame);
        self.each.push_back(Waits {
            size: frame.len() as u32,
            since_ns,
            known,
        });
        Ok(())
    }

    fn pop(&mut self) {
        if let Some(first) = self.each.pop_front() {
            self.at += first.size as usize;
            let uses = self.uses.get_mut(&first.known);
            if let Some(uses) = uses {
                *uses -= 1;
                if *uses == 0 {
                    self.uses.remove(&first.known);
                    self.renamed.remove(&first.known);
                }
            }
        }
        if self.each.is_empty() {
            *self = Self::default();
        }
    }

    /// Before an alias stands for another subject: those that wait keep theirs.
    fn rename(&mut self, known: u64, subject: &[u8], publisher: u64) -> Result<(), NoMemory> {
        if self.uses.contains_key(&known) {
            self.renamed.try_reserve(1).map_err(|_| NoMemory)?;
            let subject = try_bytes(subject).map_err(|_| NoMemory)?;
            self.renamed.insert(known, (subject, publisher));
        }
        Ok(())
    }
}

/// What a publish carries beyond what users of the library give.
#[derive(Clone, Copy, Default)]
pub(super) struct Origin {
    pub(super) sequence: u64,
    pub(super) publisher: u64,
    pub(super) timestamp_ns: u64,
}

impl Session {
    pub(super) fn on_message(
        &mut self,
        parts: &mut Parts,
        message: &Received<'_>,
        bytes: &[u8],
    ) -> Result<(), Fatal> {
        let operation = self.operation_of(message);
        if let Some(alias) = message.alias() {
            self.aliases.get(alias)?;
        }
        if !self.parked.is_empty() {
            return self.park(parts, message, bytes);
        }
        let published = self.publish(parts, message, 0, false, None);
        match published {
            Err(error) if error.status() == Status::Again && operation == 0 => {
                return self.park(parts, message, bytes);
            }
            published => self.settle(parts, message, operation, None, published)?,
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
        renamed: Option<&Renamed>,
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
        let subject = match (renamed, message.alias()) {
            (Some((subject, _)), _) => subject.clone(),
            (None, Some(alias)) => self.aliases.get(alias)?.value.subject.clone(),
            (None, None) => message.subject().into(),
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

    fn park(
        &mut self,
        parts: &mut Parts,
        message: &Received<'_>,
        bytes: &[u8],
    ) -> Result<(), Fatal> {
        let known = match message.alias() {
            Some(alias) => self.aliases.get(alias)?.value.number,
            None => 0,
        };
        self.parked.push(bytes, parts.now_ns, known)?;
        parts.wait_for_room(self);
        Ok(())
    }

    /// An alias is about to stand for another subject.
    pub(super) fn keep_parked(&mut self, alias: u32) -> Result<(), Fatal> {
        if !self.parked.is_empty()
            && let Ok(entry) = self.aliases.get(alias)
        {
            let known = &entry.value;
            let (number, publisher) = (known.number, entry.publisher);
            self.parked.rename(number, &known.subject, publisher)?;
        }
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
        while let Some(waits) = self.parked.each.front() {
            let (size, since_ns, known) = (waits.size, waits.since_ns, waits.known);
            let renamed = self.parked.renamed.remove(&known);
            let frames = std::mem::take(&mut self.parked.frames);
            let at = self.parked.at;
            let frame = frames.get(at..at + size as usize).unwrap_or_default();
            let is_done = self.retry_first(parts, frame, since_ns, renamed.as_ref());
            self.parked.frames = frames;
            if let Some(renamed) = renamed {
                // There is room for what was just taken out.
                self.parked.renamed.insert(known, renamed);
            }
            if is_done? {
                self.parked.pop();
                self.done_with(size as usize)?;
            } else {
                parts.wait_for_room(self);
                return Ok(());
            }
        }
        self.answer_close(parts);
        Ok(())
    }

    /// Publishes the first of those that wait. False: there is no room yet.
    fn retry_first(
        &mut self,
        parts: &mut Parts,
        frame: &[u8],
        since_ns: u64,
        renamed: Option<&Renamed>,
    ) -> Result<bool, Fatal> {
        let mut frames = Frames::new(frame, Side::Server, u32::MAX);
        // It was decoded before.
        let Ok(Some(Frame::Message(message))) = frames.next_frame() else {
            return Ok(true);
        };
        let waited_ns = parts.now_ns.saturating_sub(since_ns);
        if message.ttl_ns().is_some_and(|ttl_ns| waited_ns >= ttl_ns) {
            self.settle(parts, &message, self.operation_of(&message), None, Ok(()))?;
            return Ok(true);
        }
        let operation = self.operation_of(&message);
        let waits = operation == 0 && waited_ns < PATIENCE_NS;
        let published = self.publish(parts, &message, waited_ns, waits, renamed);
        let is_full = matches!(&published, Err(error) if error.status() == Status::Again);
        if is_full && operation == 0 && waited_ns < PARKED_NS {
            return Ok(false);
        }
        self.settle(parts, &message, operation, renamed, published)?;
        Ok(true)
    }

    /// Publishes a received message, `waited_ns` after it came.
    #[inline(always)]
    fn publish(
        &mut self,
        parts: &mut Parts,
        message: &Received<'_>,
        waited_ns: u64,
        waits: bool,
        renamed: Option<&Renamed>,
    ) -> Result<(), Error> {
        if let Some(alias) = message.alias()
            && renamed.is_none()
        {
            let Ok(entry) = self.aliases.get(alias) else {
                return Ok(());
            };
            let (known, publisher) = (&mut entry.value, entry.publisher);
            let (origin, sent) = match message.flags() & !USUAL {
                0 => {
                    let sequence = message.sequence().unwrap_or(0);
                    let origin = origin_of(&mut self.publishers, known, sequence, publisher);
                    (origin, usual(&known.subject, message.payload()))
                }
                _ => (
                    origin(&mut self.publishers, message, publisher),
                    message_of(message, &known.subject, waited_ns),
                ),
            };
            return parts.publish(&mut known.route, &sent, origin, known.number, waits);
        }
        let (subject, publisher) = match renamed {
            Some((subject, publisher)) => (&**subject, *publisher),
            None => (message.subject(), 0),
        };
        let origin = origin(&mut self.publishers, message, publisher);
        let sent = message_of(message, subject, waited_ns);
        parts.publish(&mut None, &sent, origin, 0, waits)
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

/// A message that has nothing but a subject and a payload.
#[inline(always)]
fn usual<'m>(subject: &'m [u8], payload: &'m [u8]) -> Message<'m> {
    Message {
        subject,
        payload,
        ..Message::default()
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
    Origin {
        sequence,
        publisher: match sequence {
            0 => 0,
            _ => numbered(publishers, theirs),
        },
        timestamp_ns: message.timestamp_ns().unwrap_or(0),
    }
}

/// What a message has whose alias names its publisher: nothing is looked up after the first.
#[inline(always)]
pub(super) fn origin_of(
    publishers: &mut HashMap<u64, u64>,
    known: &mut Known,
    sequence: u64,
    of_alias: u64,
) -> Origin {
    if sequence > 0 && known.publisher == 0 && of_alias > 0 {
        known.publisher = numbered(publishers, of_alias);
    }
    Origin {
        sequence,
        publisher: if sequence > 0 { known.publisher } else { 0 },
        timestamp_ns: 0,
    }
}

/// The engine's number for a publisher of theirs; 0: it has none.
#[cold]
fn numbered(publishers: &mut HashMap<u64, u64>, theirs: u64) -> u64 {
    if theirs == 0 {
        return 0;
    }
    if let Some(publisher) = publishers.get(&theirs) {
        return *publisher;
    }
    if publishers.len() >= PUBLISHERS_MAX || publishers.try_reserve(1).is_err() {
        return 0;
    }
    let publisher = NEXT_PUBLISHER.fetch_add(1, Ordering::Relaxed);
    publishers.insert(theirs, publisher);
    publisher
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

impl Parts {
    /// Publishes what another publisher may have counted, and keeps the route.
    #[inline(always)]
    fn publish(
        &mut self,
        route: &mut Option<Box<Route>>,
        message: &Message<'_>,
        origin: Origin,
        known: u64,
        waits: bool,
    ) -> Result<(), Error> {
        let is_current = matches!(route, Some(route) if self.writer.is_current(route));
        if !is_current {
            self.writer.renew_boxed(route, message)?;
        }
        match route {
            Some(route) => self.send(&route.targets, message, origin, known, waits),
            None => Err(Error::NO_MEMORY),
        }
    }
}

impl Writer {
    #[cold]
    fn renew_boxed(
        &self,
        route: &mut Option<Box<Route>>,
        message: &Message<'_>,
    ) -> Result<(), Error> {
        // Checks the message before the subject.
        self.draft(message)?;
        let made = self.make_route(self.hash.hash(message.subject), message.subject)?;
        *route = Some(try_box(made)?);
        Ok(())
    }

    /// The draft of a message of another publisher.
    pub(super) fn draft_from<'m>(
        &self,
        message: &Message<'m>,
        origin: Origin,
    ) -> Result<Draft<'m>, Error> {
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
        Ok(draft)
    }

    /// Sends a message of another publisher along a route, through queues.
    pub(super) fn send_from(
        &self,
        targets: &Targets,
        message: &Message<'_>,
        origin: Origin,
    ) -> Result<(), Error> {
        self.send(targets, message, &self.draft_from(message, origin)?)
    }
}

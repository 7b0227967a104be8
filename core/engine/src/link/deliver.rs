//! A delivery into its queue or handler.
//!
//! The link is the only writer of a remote client's queues. A message for a backpressure queue that
//! is full is held, and what comes for that queue behind it; the server gets no credit for it, so
//! what is held is bounded, and nothing else has to wait. It counts against the credit of the next
//! connection, too; what that still brings beyond the bound is lost, and counted. A request is
//! answered BUSY.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use fastmq_driver::FOREVER_NS;
use fastmq_memory::allocation::try_bytes;
use fastmq_memory::record::flag;
use fastmq_memory::view::{Numbers, Optional, View, view_flag};
use fastmq_memory::{Draft, Kind, LaneWriter, Plain, Policy, Pushed};
use fastmq_wire::{Aliases, Frame, Frames, Message, Side, round_up};

use crate::call;
use crate::error::{Error, Result, Status};
use crate::latest::LatestTarget;
use crate::log;
use crate::route::{Group, LaneTarget};
use crate::subscription::Target;
use crate::writer::Writer;

use super::run::Asked;
use super::uplink::Uplink;

/// Pause before a full queue is tried again where nobody calls when it has room.
pub(super) const RETRY_NS: u64 = 500_000;
/// Most losses that one frame tells.
const LOST_MAX: u64 = 1 << 20;

/// Subject and publisher of a delivery.
type Named<'a> = (&'a [u8], u64);

/// A delivery whose queue is full.
struct Held {
    frame: Box<[u8]>,
    subject: Box<[u8]>,
    publisher: u64,
    /// When it came.
    came_ns: u64,
    target: Target,
    /// What its LOST says was told.
    is_lost_told: bool,
    /// Messages behind it that were lost.
    lost_behind: u64,
}

/// Where deliveries go.
#[derive(Default)]
pub(super) struct Deliveries {
    targets: HashMap<u32, Target>,
    /// By queue.
    held: HashMap<u64, VecDeque<Held>>,
    /// Bytes of their frames, and how many there may be.
    held_bytes: usize,
    held_bytes_max: usize,
    /// Bytes of this connection's that were lost beyond that: they come from credit that is not
    /// there again until less is held.
    beyond_bytes: usize,
    /// Where the last one went: most come in a row for the same subscription.
    last: Option<Last>,
}

/// A subscription's queue, and the link's lane there.
struct Last {
    id: u32,
    place: u64,
    lane: u32,
}

/// What came of a delivery.
enum Outcome {
    Done,
    Full,
}

/// What became of a delivery that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Done,
    Held,
    /// It has found no room beside its queue either.
    Lost,
}

impl Deliveries {
    /// For frames of up to `frame_max`, within a window of so much credit.
    pub(super) fn new(window: u64, frame_max: u32) -> Self {
        Self {
            held_bytes_max: window as usize + frame_max as usize,
            ..Self::default()
        }
    }

    /// Bytes that wait for room when a connection begins.
    pub(super) fn begin(&mut self) -> u64 {
        self.beyond_bytes = 0;
        self.held_bytes as u64
    }

    /// Delivers, or holds what has no room.
    pub(super) fn take(
        &mut self,
        uplink: &Uplink,
        writer: &Writer,
        message: &Message<'_>,
        kind: Kind,
        subject: Named<'_>,
        now_ns: u64,
    ) -> Result<Taken> {
        let id = message.subscription();
        let Some(target) = self.target(uplink, writer, id)? else {
            // Of a subscription that has ended meanwhile.
            if let (Kind::Request, Some(token)) = (kind, give_token(uplink, message)) {
                let _ = uplink.reply(token, Status::Cancelled as u32, &[], &[]);
            }
            return Ok(Taken::Done);
        };
        let place = target.queue().map_or(0, |place| place.id());
        let is_behind = self.held.contains_key(&place);
        if !is_behind || kind == Kind::Request {
            if !is_latest(&target) {
                note_lost(writer, &target, id, message.lost());
            }
            let outcome = deliver(uplink, writer, &target, message, kind, subject, now_ns)?;
            if let Outcome::Done = outcome {
                self.note_last(writer, &target, id)?;
                return Ok(Taken::Done);
            }
        }
        self.last = None;
        let size = round_up(message.bytes().len());
        if self.held_bytes + size > self.held_bytes_max {
            self.beyond_bytes += size;
            let lost = 1 + if is_behind { message.lost() } else { 0 };
            match self.held.get_mut(&place).and_then(VecDeque::back_mut) {
                // Told behind those that came before.
                Some(last) => {
                    last.lost_behind += lost;
                    count_lost(writer, id, lost);
                }
                None => note_lost(writer, &target, id, lost),
            }
            return Ok(Taken::Lost);
        }
        self.held.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        let queue = self.held.entry(place).or_default();
        queue.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        let mut frame = Vec::new();
        frame
            .try_reserve_exact(size)
            .map_err(|_| Error::NO_MEMORY)?;
        frame.extend_from_slice(message.bytes());
        frame.resize(size, 0);
        queue.push_back(Held {
            frame: frame.into_boxed_slice(),
            subject: try_bytes(subject.0)?,
            publisher: subject.1,
            came_ns: now_ns,
            target,
            is_lost_told: !is_behind,
            lost_behind: 0,
        });
        self.held_bytes += size;
        Ok(Taken::Held)
    }

    /// The subscription whose deliveries may go where the last one went.
    #[inline(always)]
    pub(super) fn last_subscription(&self) -> Option<u32> {
        self.last.as_ref().map(|last| last.id)
    }

    /// Writes usual messages where the last one went, until one needs more; how many.
    #[inline(always)]
    pub(super) fn put(
        &self,
        writer: &Writer,
        aliases: &Aliases<Box<[u8]>>,
        messages: &[Option<Message<'_>>],
    ) -> usize {
        self.put_by(writer, |lane, last| {
            let mut count = 0;
            for message in messages.iter().flatten() {
                let Some(entry) = aliases.find(message.alias().unwrap_or(u32::MAX)) else {
                    break;
                };
                let named = (&*entry.value, entry.publisher);
                if message.subscription() != last.id
                    || message.payload().len() > writer.usual_bytes
                    || !put_message(lane, message, named)
                {
                    break;
                }
                count += 1;
            }
            count
        })
    }

    /// As [`put`](Self::put), of questions to the same subscription.
    #[inline(always)]
    pub(super) fn put_questions(
        &self,
        writer: &Writer,
        aliases: &Aliases<Box<[u8]>>,
        questions: &[Asked<'_>],
    ) -> usize {
        self.put_by(writer, |lane, last| {
            let mut count = 0;
            for row in questions.chunk_by(|asked, next| asked.alias == next.alias) {
                let alias = row.first().map_or(u32::MAX, |asked| asked.alias);
                let Some(entry) = aliases.find(alias) else {
                    break;
                };
                let subject = &*entry.value;
                let plains = row.iter().map_while(|asked| {
                    let is_usual = asked.token != 0 && asked.payload.len() <= writer.usual_bytes;
                    is_usual.then_some(Plain {
                        kind: Kind::Request,
                        flags: flag::TOKEN,
                        status: 0,
                        word: asked.token,
                        subject,
                        payload: asked.payload,
                    })
                });
                let written = lane.try_plains_quiet(plains, last.id);
                count += written;
                if written < row.len() {
                    break;
                }
            }
            count
        })
    }

    /// Has something written where the last delivery went, and then shown; how many.
    #[inline(always)]
    fn put_by(&self, writer: &Writer, put: impl FnOnce(&mut LaneWriter, &Last) -> usize) -> usize {
        let Some(last) = &self.last else { return 0 };
        let mut lanes = writer.lanes.borrow_mut();
        // A lane whose queue was closed gives its place to another one.
        let lane = lanes.get(last.lane);
        let Some(lane) = lane.filter(|lane| lane.place.id() == last.place) else {
            return 0;
        };
        let count = put(&mut lane.writer, last);
        if count > 0 && lane.writer.publish().is_err() {
            drop(lanes);
            writer.empty_closed(last.lane);
        }
        count
    }

    /// Where the next one may go by [`put`](Self::put): a queue that refuses rather than drops, and
    /// is not held.
    fn note_last(&mut self, writer: &Writer, target: &Target, id: u32) -> Result<()> {
        self.last = match target {
            Target::Queue(place)
                if place.lanes().policy() == Policy::Backpressure && self.held.is_empty() =>
            {
                Some(Last {
                    id,
                    place: place.id(),
                    lane: writer.lane_to(place)?,
                })
            }
            _ => None,
        };
        Ok(())
    }

    fn target(&mut self, uplink: &Uplink, writer: &Writer, id: u32) -> Result<Option<Target>> {
        if let Some(target) = self.targets.get(&id) {
            return Ok(Some(target.clone()));
        }
        let state = uplink.state();
        let Some(subscribed) = state.subscriptions.get(&id) else {
            return Ok(None);
        };
        let target = subscribed.target.clone();
        drop(state);
        if let Target::Queue(place) = &target
            && !place.is_latest()
        {
            writer.lane_to(place)?;
        }
        self.targets.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        self.targets.insert(id, target.clone());
        Ok(Some(target))
    }

    /// Forgets subscriptions that have ended.
    #[inline]
    pub(super) fn forget_gone(&mut self, uplink: &Uplink, writer: &Writer) {
        if uplink.has_gone.load(Ordering::Acquire) {
            self.forget(uplink, writer);
        }
    }

    #[cold]
    fn forget(&mut self, uplink: &Uplink, writer: &Writer) {
        uplink.has_gone.store(false, Ordering::Relaxed);
        let gone = std::mem::take(&mut uplink.state().gone);
        self.last = None;
        for id in gone {
            self.targets.remove(&id);
        }
        writer.sweep();
    }

    /// Tries again what is held; how many bytes of frames are done with.
    #[inline]
    pub(super) fn retry(&mut self, uplink: &Uplink, writer: &Writer, now_ns: u64) -> usize {
        match self.held.is_empty() {
            true => 0,
            false => self.retry_held(uplink, writer, now_ns),
        }
    }

    #[cold]
    fn retry_held(&mut self, uplink: &Uplink, writer: &Writer, now_ns: u64) -> usize {
        let mut done = 0;
        self.held.retain(|_, queue| {
            while let Some(held) = queue.front_mut() {
                if !held.retry(uplink, writer, now_ns) {
                    return true;
                }
                done += held.frame.len();
                tell_lost(writer, &held.target, held.lost_behind);
                queue.pop_front();
            }
            false
        });
        self.held_bytes -= done;
        if self.held_bytes + self.beyond_bytes <= self.held_bytes_max {
            done += std::mem::take(&mut self.beyond_bytes);
        }
        done
    }

    /// Deliveries that wait for room.
    pub(super) fn held_count(&self) -> usize {
        self.held.values().map(VecDeque::len).sum()
    }

    /// When to try again, unless whoever makes room calls.
    pub(super) fn retry_at_ns(&self, now_ns: u64, is_called: bool) -> u64 {
        match self.held.is_empty() || is_called {
            true => FOREVER_NS,
            false => now_ns + RETRY_NS,
        }
    }

    /// Messages of a subscription were lost on the way.
    pub(super) fn note_lost(&mut self, uplink: &Uplink, writer: &Writer, id: u32, lost: u64) {
        if let Ok(Some(target)) = self.target(uplink, writer, id) {
            note_lost(writer, &target, id, lost);
        }
    }
}

impl Held {
    fn retry(&mut self, uplink: &Uplink, writer: &Writer, now_ns: u64) -> bool {
        let mut frames = Frames::new(&self.frame, Side::Client, u32::MAX);
        let Ok(Some(Frame::Message(message))) = frames.next_frame() else {
            return true;
        };
        if !std::mem::replace(&mut self.is_lost_told, true) {
            note_lost(writer, &self.target, message.subscription(), message.lost());
        }
        let subject = (&*self.subject, self.publisher);
        // Its time has begun when it came.
        let came_ns = self.came_ns.min(now_ns);
        let kind = Kind::Message;
        let outcome = deliver(
            uplink,
            writer,
            &self.target,
            &message,
            kind,
            subject,
            came_ns,
        );
        !matches!(outcome, Ok(Outcome::Full))
    }
}

fn give_token(uplink: &Uplink, message: &Message<'_>) -> Option<u64> {
    let mut state = uplink.state();
    let (theirs, token) = (message.token(), state.tokens.give(message.token())?);
    if let Some(many) = message.many()
        && many.credit > 0
    {
        let oldest = state.tokens.oldest();
        state.streams.offer(theirs, token, many.credit, oldest);
    }
    Some(token)
}

/// Writes a message without showing it; false: it has done nothing.
#[inline(always)]
fn put_message(lane: &mut LaneWriter, message: &Message<'_>, (subject, named): Named<'_>) -> bool {
    let id = message.subscription();
    let sequence = message.sequence();
    let publisher = message.publisher().unwrap_or(named);
    let timestamp = message.timestamp_ns();
    if timestamp.is_none() && publisher == 0 {
        let plain = Plain {
            kind: Kind::Message,
            flags: if sequence.is_some() {
                flag::SEQUENCE
            } else {
                0
            },
            status: 0,
            word: sequence.unwrap_or(0),
            subject,
            payload: message.payload(),
        };
        return lane.try_plain_quiet(&plain, id);
    }
    let mut draft = Draft {
        sequence: sequence.unwrap_or(0),
        publisher,
        subject,
        payload: message.payload(),
        timestamp: timestamp.unwrap_or(0),
        ..Draft::default()
    };
    let mut set = |is_set: bool, flag: u16| draft.flags |= if is_set { flag } else { 0 };
    set(sequence.is_some(), flag::SEQUENCE);
    set(sequence.is_some() && publisher != 0, flag::PUBLISHER);
    set(timestamp.is_some(), flag::TIMESTAMP);
    lane.push_quiet(&draft, id) == Ok(Pushed::Written)
}

/// Whether a target keeps one message of each subject.
fn is_latest(target: &Target) -> bool {
    target.queue().is_some_and(|place| place.is_latest())
}

/// Counts losses of a subscription, and has its next message tell them.
fn note_lost(writer: &Writer, target: &Target, id: u32, lost: u64) {
    if lost > 0 {
        count_lost(writer, id, lost);
        tell_lost(writer, target, lost);
    }
}

/// Counts losses of a subscription.
fn count_lost(writer: &Writer, id: u32, lost: u64) {
    if let Some(slot) = writer.broker().slots.get(id)
        && slot.is(id)
    {
        slot.count_dropped_by(lost.min(LOST_MAX));
    }
}

/// Has the next message of a queue tell losses.
fn tell_lost(writer: &Writer, target: &Target, lost: u64) {
    if lost > 0
        && let Target::Queue(place) = target
        && !place.is_latest()
        && let Ok(index) = writer.lane_to(place)
        && let Some(lane) = writer.lanes.borrow_mut().get(index)
    {
        lane.writer.note_lost(lost.min(LOST_MAX));
    }
}

fn deliver(
    uplink: &Uplink,
    writer: &Writer,
    target: &Target,
    message: &Message<'_>,
    kind: Kind,
    (subject, named): Named<'_>,
    now_ns: u64,
) -> Result<Outcome> {
    let id = message.subscription();
    let token = match kind {
        Kind::Request => give_token(uplink, message).ok_or(Error::NO_MEMORY)?,
        _ => 0,
    };
    let sequence = message.sequence().unwrap_or(0);
    let publisher = message.publisher().unwrap_or(named);
    let place = match target {
        Target::Queue(place) => place,
        Target::Inline(handler) => {
            let numbers = Numbers {
                sequence,
                publisher,
                token,
                timestamp_ns: message.timestamp_ns().unwrap_or(0),
                subscription_id: id,
                flags: if token == 0 { 0 } else { view_flag::REQUEST },
                tag: handler.tag,
                ..Numbers::default()
            };
            let optional = Optional {
                reply_to: message.reply_to(),
                key: message.key(),
                headers: message.headers(),
            };
            let payload = message.payload();
            let called = catch_unwind(AssertUnwindSafe(|| {
                View::with_borrowed(subject, payload, numbers, Some(optional), |view| {
                    let _ = call::call(handler, view);
                });
            }));
            if called.is_err() {
                log::write(log::Level::Error, "call", "a handler panicked");
            }
            return Ok(Outcome::Done);
        }
    };
    let mut draft = Draft {
        kind,
        sequence,
        publisher,
        token,
        subject,
        payload: message.payload(),
        reply_to: message.reply_to(),
        key: message.key(),
        headers: message.headers(),
        timestamp: message.timestamp_ns().unwrap_or(0),
        ..Draft::default()
    };
    let mut set = |is_set: bool, flag: u16| draft.flags |= if is_set { flag } else { 0 };
    set(token != 0, flag::TOKEN);
    set(message.sequence().is_some(), flag::SEQUENCE);
    set(
        message.sequence().is_some() && publisher != 0,
        flag::PUBLISHER,
    );
    set(message.timestamp_ns().is_some(), flag::TIMESTAMP);
    let texts = message.reply_to().len() + message.key().len() + message.headers().len();
    set(texts > 0, flag::SIZES);
    if let Some(ttl_ns) = message.ttl_ns() {
        draft.flags |= flag::EXPIRY;
        draft.expiry = now_ns.saturating_add(ttl_ns);
    }
    if place.is_latest() {
        // What LOST counts was replaced at the server, by this one.
        let counted = if message.sequence().is_some() {
            publisher
        } else {
            0
        };
        let (subject, lost) = (draft.subject, message.lost().min(LOST_MAX));
        let slot = LatestTarget::of(id, place, subject, counted);
        let put = slot.and_then(|slot| writer.put_replacing(&slot, &draft, lost));
        if put.is_err() {
            note_lost(writer, target, id, 1);
        }
        return Ok(Outcome::Done);
    }
    let target = LaneTarget {
        lane: writer.lane_to(place)?,
        subscription: id,
    };
    let sent = writer.send_any::<Group>(&[target], &[], &crate::Message::default(), &draft);
    match sent {
        // Its queue was closed before: nobody empties it once more.
        Ok(sent) if token != 0 && sent.reached + sent.held == 0 => {
            let _ = uplink.reply(token, Status::Cancelled as u32, &[], &[]);
            Ok(Outcome::Done)
        }
        Ok(_) => Ok(Outcome::Done),
        Err(error) if error.status() == Status::Again && kind == Kind::Message => Ok(Outcome::Full),
        Err(error) => {
            if token != 0 {
                let _ = uplink.reply(token, Status::Busy as u32, &[], &[]);
            } else if error.status() != Status::Closed {
                note_lost(writer, &Target::Queue(place.clone()), id, 1);
            }
            Ok(Outcome::Done)
        }
    }
}

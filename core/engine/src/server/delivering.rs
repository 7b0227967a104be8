//! What a connection is sent: deliveries within its credit, and what bounds all of it.

use fastmq_driver::FOREVER_NS;
use fastmq_memory::View;
use fastmq_memory::allocation::try_bytes;
use fastmq_memory::words::expect;
use fastmq_wire::control::event;
use fastmq_wire::{
    ControlDraft, Draft, Field, HEADER_BYTES, Kind, NoMemory, Reason, State, Subject, round_up,
};

use crate::broker::Broker;
use crate::error::Status;
use crate::frames;

use super::feed::Feed;
use super::owed::Before;
use super::parts::Parts;
use super::session::{Fatal, Session};
use super::{OUTGOING_BYTES_MAX, TURN_MESSAGES};

/// Bytes to be sent above which queues are left as they are: what waits, waits in them.
const OUTGOING_BYTES_FULL: usize = 256 << 10;
/// The same for requests and answers on the shard's thread, which windows bound.
const OUTGOING_BYTES_ASKED: usize = 1 << 20;
/// How often it is looked whether too much waits for a connection that is held up.
const SLOW_CHECK_NS: u64 = 100_000_000;

/// Bytes to be sent.
#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    /// How many of them are deliveries and answers: queues hold those back, nothing the others.
    pub(super) delivered: usize,
    /// Deliveries that credit is missing for, from `held_at` on.
    pub(super) held: Vec<u8>,
    pub(super) held_at: usize,
}

impl Outgoing {
    /// Bytes that are to be sent, now or with more credit.
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() + self.held().len()
    }

    /// The memory of what is to be sent.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity() + self.held.capacity()
    }

    #[inline]
    fn held(&self) -> &[u8] {
        self.held.get(self.held_at..).unwrap_or_default()
    }
}

/// The frame at the front of frames that we have made.
fn first_size(frames: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*frames.first_chunk()?);
    Some(round_up(length as usize))
}

impl Session {
    /// True while there is enough to send.
    pub(super) fn is_full(&self) -> bool {
        self.out.bytes.len() >= OUTGOING_BYTES_FULL
    }

    /// True while queues are left as they are: there is enough to send, or no credit.
    pub(super) fn is_held_up(&self) -> bool {
        self.is_full() || !self.out.held().is_empty()
    }

    /// Takes what the queues have, up to what one turn gives a connection. True: there is more, and
    /// it may be taken now.
    pub fn pull(&mut self, parts: &mut Parts) -> bool {
        if self.state != State::Ready {
            return false;
        }
        match self.pull_all(parts) {
            Ok(is_more) => is_more,
            Err(fatal) => {
                self.refuse(parts, &fatal);
                false
            }
        }
    }

    fn pull_all(&mut self, parts: &mut Parts) -> Result<bool, Fatal> {
        if parts.now_ns >= self.parked_at_ns() {
            self.retry_parked(parts)?;
        }
        if self.has_turned_away.get() && !self.is_held_up() {
            self.has_turned_away.set(false);
            parts.has_room = true;
        }
        if self.has_streams_due(parts.now_ns) {
            self.pull_streams(parts)?;
            self.check_commands()?;
        }
        let mut left = TURN_MESSAGES;
        if !self.pull_answers(parts, &mut left)? {
            self.hold_up(parts);
            return Ok(!self.is_held_up());
        }
        let mut rounds = self.ready.len();
        while left > 0 && rounds > 0 && !self.is_held_up() {
            let Some(at) = self.ready.pop_front() else {
                break;
            };
            rounds -= 1;
            if self.pull_feed(parts, at, &mut left)? {
                self.ready.push_back(at);
            }
            if self.state != State::Ready {
                return Ok(false);
            }
        }
        if self.is_held_up() && !self.ready.is_empty() {
            self.hold_up(parts);
            return Ok(false);
        }
        if !self.is_held_up() {
            self.slow_check_ns = FOREVER_NS;
        }
        Ok(!self.ready.is_empty())
    }

    /// Has it looked at soon whether too much waits.
    fn hold_up(&mut self, parts: &Parts) {
        if self.slow_check_ns == FOREVER_NS {
            self.slow_check_ns = parts.now_ns.saturating_add(SLOW_CHECK_NS);
        }
    }

    /// Has all its queues looked at by the next [`pull`](Session::pull): for who has no shard,
    /// which hears of those that have something.
    pub fn look_everywhere(&mut self) {
        self.answers_ready();
        self.streams.look_everywhere();
        (0..self.feeds.len() as u32).for_each(|at| self.set_ready(at));
    }

    /// Asks for the memory of what a pull looks at first.
    #[inline]
    pub(super) fn expect_feeds(&self) {
        let (ready, _) = self.ready.as_slices();
        ready.iter().take(1).for_each(expect);
        self.feeds.iter().take(1).for_each(expect);
    }

    /// The feed that a pull begins with.
    #[inline]
    pub(super) fn first_ready(&self) -> Option<&Feed> {
        let at = *self.ready.front()?;
        self.feeds.get(at as usize)?.as_ref()
    }

    /// Lists a feed that may have something.
    pub(super) fn set_ready(&mut self, at: u32) {
        if let Some(Some(feed)) = self.feeds.get_mut(at as usize)
            && !feed.is_ready
        {
            feed.is_ready = true;
            self.ready.push_back(at);
        }
    }

    /// Takes what one feed has. True: it may have more.
    fn pull_feed(&mut self, parts: &mut Parts, at: u32, left: &mut usize) -> Result<bool, Fatal> {
        let broker = parts.broker.clone();
        // The last batch was all that there was: one look is for that and for what arming needs.
        let mut is_drained = false;
        while *left > 0 && !self.is_held_up() {
            let Some(Some(feed)) = self.feeds.get_mut(at as usize) else {
                return Ok(false);
            };
            let place = feed.place.clone();
            let limit = feed.batch_max().min(*left);
            let received = match is_drained {
                true => None,
                false => match place.receive(&broker, limit, 0) {
                    Ok(batch) => Some(batch),
                    Err(error) if error.status() == Status::NoMemory => return Err(NoMemory.into()),
                    // Empty, or closed by the broker's end.
                    Err(_) => None,
                },
            };
            let Some(batch) = received else {
                match place.is_ready_or_wakes(&broker, &feed.waker) {
                    Ok(true) => is_drained = false,
                    is_open => {
                        feed.is_ready = false;
                        parts.outlets.found_empty(feed.outlet());
                        parts.has_room = true;
                        self.found_empty(parts, at, is_open.is_err())?;
                        return Ok(false);
                    }
                }
                continue;
            };
            let (number, is_loss_fatal) = (feed.number, feed.is_loss_fatal);
            let from = self.out.bytes.len() + self.out.held.len();
            let messages = batch.messages();
            is_drained = messages.len() < limit;
            *left -= messages.len().min(*left);
            for (sent, view) in messages.iter().enumerate() {
                let delivered = match is_loss_fatal && view.lost_before > 0 {
                    true => Err(too_slow()),
                    false => self.deliver(parts, number, view).map_err(Fatal::from),
                };
                if let Err(fatal) = delivered {
                    let unsent = messages[sent..].iter().filter(|view| view.token != 0);
                    unsent.for_each(|it| broker.answer_late(it.token, Status::Cancelled));
                    return Err(fatal);
                }
            }
            drop(batch);
            let bytes = (self.out.bytes.len() + self.out.held.len()).saturating_sub(from);
            if let Some(Some(feed)) = self.feeds.get_mut(at as usize) {
                feed.learn(bytes);
            }
        }
        Ok(true)
    }

    /// Sends one message of a queue, or holds it back until there is credit.
    fn deliver(&mut self, parts: &Parts, number: u32, view: &View) -> Result<(), NoMemory> {
        let subject = match self.alias_of(view.subject())? {
            Some(alias) => Subject::Alias(alias),
            None => Subject::Text(view.subject()),
        };
        let mut owed = 0;
        let mut draft = if view.token == 0 {
            Draft::message(number, subject, view.payload())
        } else {
            let Ok((name, before)) = self.owed.enter(view.token) else {
                parts.broker.answer_late(view.token, Status::Busy);
                return Ok(());
            };
            if let Some(before) = before {
                self.give_way(&parts.broker, before);
            }
            owed = name;
            Draft::question(number, subject, owed, view.payload())
        };
        draft.sequence = (view.sequence > 0).then_some(view.sequence);
        draft.publisher = (view.publisher > 0).then_some(view.publisher);
        draft.timestamp_ns = (view.timestamp_ns > 0).then_some(view.timestamp_ns);
        draft.lost = u64::from(view.lost_before);
        draft.reply_to = view.reply_to();
        draft.key = view.key();
        draft.headers = view.headers();
        draft.many = self.stream_offer(parts, view.token);
        if draft.length() <= self.theirs.frame_max as usize {
            if let Some(many) = draft.many {
                self.note_offer(owed, view.token, many);
            }
            return self.put(&draft);
        }
        if view.token != 0 {
            self.owed.take(owed);
            parts.broker.answer_late(view.token, Status::Busy);
            return Ok(());
        }
        self.skip(number, 1 + u64::from(view.lost_before), view.subject())
    }

    /// A request that this connection was given will not be answered: it owes too many.
    #[cold]
    fn give_way(&mut self, broker: &Broker, before: Before) {
        self.streams.forget(before.number);
        broker.answer_late(before.token, Status::Cancelled);
    }

    /// Appends a delivery to what is sent, or to what is held back until there is credit.
    #[inline(always)]
    pub(super) fn put(&mut self, draft: &Draft<'_>) -> Result<(), NoMemory> {
        frames::append(draft, self.room_for(draft.size()))
    }

    /// The same for a request, which the connection owes an answer from here on. False: it takes no
    /// frame that is as large, or there is no memory.
    #[inline(always)]
    pub(super) fn put_question(
        &mut self,
        broker: &Broker,
        number: u32,
        subject: Subject<'_>,
        token: u64,
        payload: &[u8],
    ) -> bool {
        let draft = |name| Draft::question(number, subject, name, payload);
        if draft(0).length() > self.theirs.frame_max as usize {
            return false;
        }
        let Ok((name, before)) = self.owed.enter(token) else {
            return false;
        };
        if let Some(before) = before {
            self.give_way(broker, before);
        }
        let is_put = self.put(&draft(name)).is_ok();
        if !is_put {
            self.owed.take(name);
        }
        is_put
    }

    /// Where a delivery of `size` bytes goes, which uses up its credit.
    #[inline(always)]
    pub(super) fn room_for(&mut self, size: usize) -> &mut Vec<u8> {
        if self.out.held().is_empty() && self.sending.take(size) {
            self.out.delivered += size;
            return &mut self.out.bytes;
        }
        &mut self.out.held
    }

    /// The other side takes no frame that is as large: it is told of the gap.
    #[cold]
    pub(super) fn skip(&mut self, number: u32, lost: u64, subject: &[u8]) -> Result<(), NoMemory> {
        ControlDraft::pair(&mut self.out.bytes, Kind::Event, number, event::GAP)?
            .number(Field::Count, lost)?
            .bytes(Field::Subject, subject)?;
        Ok(())
    }

    /// Whether a request may be, or an answer.
    #[inline(always)]
    pub(super) fn takes_answers(&self) -> bool {
        self.state == State::Ready && self.out.bytes.len() < OUTGOING_BYTES_ASKED
    }

    /// Whether a request may be.
    #[inline(always)]
    pub(super) fn takes_questions(&self) -> bool {
        self.takes_answers() && self.out.held().is_empty()
    }

    /// Whether a delivery may be put to what is to be sent now. If not, those who wait hear when.
    #[inline(always)]
    pub(super) fn takes_deliveries(&self) -> bool {
        if self.state == State::Ready && !self.is_held_up() {
            return true;
        }
        self.has_turned_away.set(true);
        false
    }

    /// The number of a subject, which is given to it at its first use. `None`: there are no more.
    pub(super) fn alias_of(&mut self, subject: &[u8]) -> Result<Option<u32>, NoMemory> {
        if !subject.is_empty() && self.last_numbered.0 == subject {
            return Ok(Some(self.last_numbered.1));
        }
        let alias = match self.numbered.get(subject) {
            Some(alias) => *alias,
            None => {
                let (Ok(()), Ok(key)) = (self.numbered.try_reserve(1), try_bytes(subject)) else {
                    return Ok(None);
                };
                let Some(alias) = self.numbers.define(&mut self.out.bytes, subject, 0)? else {
                    return Ok(None);
                };
                self.numbered.insert(key, alias);
                alias
            }
        };
        let last = &mut self.last_numbered;
        last.0.clear();
        if last.0.try_reserve(subject.len()).is_ok() {
            last.0.extend_from_slice(subject);
            last.1 = alias;
        }
        Ok(Some(alias))
    }

    /// There is more credit.
    pub(super) fn on_credit(&mut self, limit: u64) -> Result<(), NoMemory> {
        self.sending.raise(limit);
        let held = &self.out.held;
        let (from, mut to) = (self.out.held_at, self.out.held_at);
        while let Some(size) = first_size(&held[to..])
            && self.sending.take(size)
        {
            to += size;
        }
        self.out
            .bytes
            .try_reserve(to - from)
            .map_err(|_| NoMemory)?;
        self.out.bytes.extend_from_slice(&held[from..to]);
        self.out.delivered += to - from;
        self.out.held_at = to;
        if to == self.out.held.len() {
            self.out.held = Vec::new();
            self.out.held_at = 0;
        }
        Ok(())
    }

    /// Drops deliveries that are held back, of one subscription or of all; requests among them are
    /// answered CANCELLED.
    pub(super) fn cancel_held(&mut self, parts: &Parts, number: Option<u32>) {
        let held = std::mem::take(&mut self.out.held);
        let mut rest = held.get(self.out.held_at..).unwrap_or_default();
        self.out.held_at = 0;
        while let Some(size) = first_size(rest)
            && let Some((frame, behind)) = rest.split_at_checked(size)
        {
            rest = behind;
            let is_meant = number.is_none_or(|number| frame[8..12] == number.to_le_bytes());
            if !is_meant {
                self.out.held.extend_from_slice(frame);
            } else if frame[4] == Kind::Request as u8
                && let Some(number) = token_in(frame)
                && let Some(token) = self.owed.take(number)
            {
                self.streams.forget(number);
                parts.broker.answer_late(token, Status::Cancelled);
            }
        }
    }

    /// Ends a connection that commands are sent to and that reads none of the answers.
    pub(super) fn check_commands(&self) -> Result<(), Fatal> {
        match self.out.bytes.len().saturating_sub(self.out.delivered) > OUTGOING_BYTES_MAX {
            true => Err(too_slow()),
            false => Ok(()),
        }
    }

    /// Ends a connection for which too much waits.
    pub(super) fn check_slow(&mut self, parts: &Parts) -> Result<(), Fatal> {
        self.slow_check_ns = FOREVER_NS;
        if !self.is_held_up() {
            self.is_slow = false;
            return Ok(());
        }
        let feeds = self
            .feeds
            .iter()
            .flatten()
            .filter(|feed| feed.is_loss_fatal);
        let mut waits: u64 = feeds.map(|feed| feed.pending_bytes()).sum();
        self.traffic.queued_bytes = waits;
        waits += self.asker.as_ref().map_or(0, |asker| asker.pending_bytes());
        if waits > OUTGOING_BYTES_MAX as u64 {
            return Err(too_slow());
        }
        if waits > OUTGOING_BYTES_MAX as u64 / 2 && !std::mem::replace(&mut self.is_slow, true) {
            let out = &mut self.out.bytes;
            let draft = ControlDraft::pair(out, Kind::Event, 0, event::SLOW)?;
            draft.number(Field::Count, waits)?;
        }
        self.hold_up(parts);
        Ok(())
    }
}

/// The word TOKEN of a request that we have made.
fn token_in(frame: &[u8]) -> Option<u64> {
    let flags = u16::from_le_bytes([*frame.get(6)?, *frame.get(7)?]);
    let before = (flags & fastmq_wire::message::flag::SEQUENCE) as usize;
    let word = frame.get(HEADER_BYTES + 8 * before..)?.first_chunk()?;
    Some(u64::from_le_bytes(*word))
}

fn too_slow() -> Fatal {
    let says = "more waits for this connection than may";
    Fatal::new(Reason::Slow, Status::SlowConsumer, says)
}

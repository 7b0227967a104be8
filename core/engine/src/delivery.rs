//! Delivering to more than one queue, to groups, and by blocks: what a writer does off its hot
//! path.
//!
//! All or nothing: room is reserved in every backpressure queue and in one member of each group,
//! then the record is written to all; or nothing is written.

use std::borrow::Borrow;

use fastmq_memory::block::{BlockError, Descriptor};
use fastmq_memory::record::{DESCRIPTOR_BYTES, flag};
use fastmq_memory::{Draft, Policy, Pushed, Refused};

use crate::asking::{Asking, Fate, Fates};
use crate::error::{Error, Result, Status};
use crate::place::Place;
use crate::promise::is_hopeless;
use crate::route::{Group, LaneTarget, Many, Member, Responder, Targets};
use crate::wide::{EXPECTED_MIN, expect};
use crate::writer::{BLOCK_BYTES, Message, Writer, count};

/// With more targets than this, a payload above `FAN_OUT_BYTES` is written once into a block.
const FAN_OUT_TARGETS: usize = 16;
pub(crate) const FAN_OUT_BYTES: usize = 256;

/// What came of a message for one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its queue has the record.
    Written,
    /// Its queue has the record, but was closed: somebody may have seen it, or nobody will.
    Unread,
    /// A handler had it at once.
    Called,
    /// Its queue's policy dropped it.
    Dropped,
    /// Its queue is closed.
    Gone,
}

/// Which member of a group gets a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    Lane(LaneTarget),
    /// A handler, by its place among the members.
    Inline(usize),
    #[default]
    Nobody,
}

/// What came of a message for all its targets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    /// How many queues hold the record, and with it a reference to its block.
    pub(crate) held: u32,
    /// How many targets will see it.
    pub(crate) reached: u32,
    /// Of a group that was the only target, the member.
    pub(crate) choice: Choice,
}

impl Sent {
    fn add(&mut self, outcome: Outcome) {
        self.held += u32::from(matches!(outcome, Outcome::Written | Outcome::Unread));
        self.reached += u32::from(matches!(outcome, Outcome::Written | Outcome::Called));
    }
}

impl Writer {
    #[inline(never)]
    pub(crate) fn send_slow(
        &self,
        targets: &Targets,
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<()> {
        match targets {
            Targets::Group(group) if draft.payload.len() <= BLOCK_BYTES => {
                let sent = self.send_to_group(group, message, draft, Attempt::Push);
                if is_too_wide(&sent, draft) {
                    self.send_blocks(&[], std::slice::from_ref(group), message, draft)?;
                } else {
                    sent?;
                }
            }
            Targets::Group(group) => {
                self.send_blocks(&[], std::slice::from_ref(group), message, draft)?;
            }
            Targets::Many(many) => self.send_many(many, message, draft)?,
            // More bytes than a record in its lanes may have.
            Targets::One(target) => {
                self.send_blocks::<Group>(std::slice::from_ref(target), &[], message, draft)?;
            }
            Targets::Latest(target) => self.put_one(target, draft)?,
            Targets::Remote(remote) => remote.publish(message, draft, self.publisher())?,
            Targets::Inline(_) | Targets::Nobody => {}
        }
        self.count_call(&self.counters.published);
        Ok(())
    }

    pub(crate) fn send_many(
        &self,
        many: &Many,
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<()> {
        many.forget_room();
        self.send_any(&many.plain, &many.groups, message, draft)?;
        self.send_rest(many, message, draft);
        Ok(())
    }

    /// Sends to the targets that refuse nothing, once the others have the message.
    pub(crate) fn send_rest(&self, many: &Many, message: &Message<'_>, draft: &Draft<'_>) {
        if !many.latest.is_empty() {
            self.put_all(&many.latest, draft);
        }
        for handler in &many.inline {
            // One that nests too deep is left out.
            let _ = self.call_message(handler, message, draft);
        }
    }

    /// Sends records, or writes the payload once into a block: when it is large, when it goes to
    /// many, and when the lanes of a target could never hold the record.
    pub(crate) fn send_any<G: Borrow<Group>>(
        &self,
        plain: &[LaneTarget],
        groups: &[G],
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<Sent> {
        let size = draft.payload.len();
        let targets = plain.len() + groups.len();
        let is_small = size <= BLOCK_BYTES && (targets <= FAN_OUT_TARGETS || size <= FAN_OUT_BYTES);
        if is_small || targets == 0 {
            let sent = self.send_all(plain, groups, message, draft);
            if !is_too_wide(&sent, draft) {
                return sent;
            }
        }
        self.send_blocks(plain, groups, message, draft)
    }

    /// Writes the payload once and sends descriptors.
    pub(crate) fn send_blocks<G: Borrow<Group>>(
        &self,
        plain: &[LaneTarget],
        groups: &[G],
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<Sent> {
        let references = (plain.len() + groups.len()) as u32;
        let written = self.broker.blocks.write(draft.payload, references);
        let descriptor = written.map_err(block_refused)?;
        self.send_descriptor(plain, groups, message, draft, &descriptor)
    }

    /// Sends the descriptor of a block, which has a pending reference for each target; gives back
    /// those that no queue holds then.
    pub(crate) fn send_descriptor<G: Borrow<Group>>(
        &self,
        plain: &[LaneTarget],
        groups: &[G],
        message: &Message<'_>,
        draft: &Draft<'_>,
        descriptor: &Descriptor,
    ) -> Result<Sent> {
        let references = (plain.len() + groups.len()) as u32;
        let blocks = &self.broker.blocks;
        let bytes = descriptor.to_bytes();
        let mut by_block = *draft;
        by_block.payload = &bytes;
        by_block.flags |= flag::BLOCK;
        match self.send_all(plain, groups, message, &by_block) {
            Ok(sent) => {
                blocks.release(descriptor, references - sent.held);
                Ok(sent)
            }
            Err(error) => {
                blocks.release(descriptor, references);
                Err(error)
            }
        }
    }

    /// Reserves room in every backpressure target, then writes to all.
    pub(crate) fn send_all<G: Borrow<Group>>(
        &self,
        plain: &[LaneTarget],
        groups: &[G],
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<Sent> {
        let single = plain.len() + groups.len() == 1;
        let chosen = if single {
            Vec::new()
        } else {
            self.promise(plain, groups, message, draft)?
        };
        let mut sent = Sent::default();
        for (at, target) in plain.iter().enumerate() {
            if plain.len() >= EXPECTED_MIN {
                expect(&mut self.lanes.borrow_mut(), plain, at);
            }
            sent.add(self.push_promised(*target, draft, single)?);
        }
        for (index, group) in groups.iter().enumerate() {
            let group = group.borrow();
            if single {
                let (choice, outcome) = self.send_to_group(group, message, draft, Attempt::Push)?;
                sent.add(outcome);
                sent.choice = choice;
                continue;
            }
            if let Some(Choice::Lane(target)) = chosen.get(index) {
                let outcome = self.push_promised(*target, draft, false)?;
                if outcome == Outcome::Gone && group.keyed.is_some() {
                    self.hand_over_unwritten(*target, message, draft);
                }
                sent.add(outcome);
            }
        }
        // Handlers last: one that publishes must not find room that is promised, nor free a lane
        // that is still to be written.
        for (group, choice) in groups.iter().zip(&chosen) {
            if let Choice::Inline(member) = choice
                && let Some(Member::Inline(handler)) = group.borrow().members.get(*member)
            {
                let _ = self.call_message(handler, message, draft);
                sent.add(Outcome::Called);
            }
        }
        Ok(sent)
    }

    /// Writes to one target. `is_single`: nothing was reserved, and a refusal is the caller's.
    pub(crate) fn push_promised(
        &self,
        target: LaneTarget,
        draft: &Draft<'_>,
        is_single: bool,
    ) -> Result<Outcome> {
        let mut lanes = self.lanes.borrow_mut();
        let Some(lane) = lanes.get(target.lane) else {
            return Ok(Outcome::Gone);
        };
        let is_promised = !is_single && lane.writer.policy() == Policy::Backpressure;
        let pushed = if is_promised {
            lane.writer.push_reserved(draft, target.subscription)
        } else {
            lane.writer.push(draft, target.subscription)
        };
        let has_evicted = lane.writer.has_evicted();
        let result = match pushed {
            Ok(Pushed::Written) => Ok(Outcome::Written),
            Ok(Pushed::Dropped) => {
                self.count_dropped(target.subscription);
                Ok(Outcome::Dropped)
            }
            Err(Refused::Unread) => Ok(Outcome::Unread),
            Err(Refused::Closed) => Ok(Outcome::Gone),
            Err(refused) if is_single => Err(self.refuse(refused, &lane.place)),
            // An evicting queue without memory for its first lane: dropped, and counted.
            Err(_) => {
                self.count_dropped(target.subscription);
                Ok(Outcome::Dropped)
            }
        };
        drop(lanes);
        if matches!(result, Ok(Outcome::Unread)) {
            self.empty_closed(target.lane);
        }
        if has_evicted {
            self.report_evicted(target.lane);
        }
        result
    }

    /// Empties the queue of a lane again: it was closed, and perhaps emptied, before this writer's
    /// last record was in it.
    #[cold]
    pub(crate) fn empty_closed(&self, lane: u32) {
        let place = match self.lanes.borrow_mut().get(lane) {
            Some(lane) => lane.place.clone(),
            None => return,
        };
        place.finish(&self.broker);
    }

    /// Chooses the member that takes the message, and sends or reserves; which, and what came of
    /// it.
    pub(crate) fn send_to_group(
        &self,
        group: &Group,
        message: &Message<'_>,
        draft: &Draft<'_>,
        attempt: Attempt,
    ) -> Result<(Choice, Outcome)> {
        if let Some(keyed) = group.keyed {
            return self.send_by_key(keyed, group, message, draft, attempt);
        }
        let count = group.members.len();
        let first = {
            let lanes = self.lanes.borrow();
            let load = |member: usize| match &group.members[member] {
                Member::Lane(target) => match lanes.slots.get(target.lane as usize) {
                    Some(Some(lane)) => lane.writer.load(),
                    _ => u64::MAX,
                },
                Member::Inline(_) => 0,
            };
            group
                .run
                .borrow_mut()
                .next(count, &group.weights, 0, load, || self.random())
        };
        let mut refusal = Refused::Closed;
        for step in 0..count {
            let member = (first + step) % count;
            let target = match &group.members[member] {
                Member::Lane(target) => *target,
                Member::Inline(handler) => {
                    if attempt == Attempt::Push {
                        group.run.borrow_mut().choose(member);
                        self.call_message(handler, message, draft)?;
                    }
                    return Ok((Choice::Inline(member), Outcome::Called));
                }
            };
            let mut lanes = self.lanes.borrow_mut();
            let Some(lane) = lanes.get(target.lane) else {
                continue;
            };
            let outcome = match attempt {
                Attempt::Push => lane.writer.push(draft, target.subscription),
                Attempt::Reserve if lane.writer.policy() == Policy::Backpressure => {
                    lane.writer.reserve(draft, 1).map(|()| Pushed::Written)
                }
                Attempt::Reserve if is_hopeless(&lane.writer, draft) => Err(Refused::TooLarge),
                Attempt::Reserve => Ok(Pushed::Written),
            };
            let has_evicted = lane.writer.has_evicted();
            drop(lanes);
            if has_evicted {
                self.report_evicted(target.lane);
            }
            match outcome {
                Ok(pushed) => {
                    if step > 0 {
                        group.run.borrow_mut().choose(member);
                    }
                    if pushed == Pushed::Dropped {
                        self.count_dropped(target.subscription);
                        return Ok((Choice::Lane(target), Outcome::Dropped));
                    }
                    return Ok((Choice::Lane(target), Outcome::Written));
                }
                // Somebody may have read it: no other member gets it.
                Err(Refused::Unread) => {
                    self.empty_closed(target.lane);
                    return Ok((Choice::Lane(target), Outcome::Unread));
                }
                Err(Refused::Closed) => {}
                Err(refused) => refusal = refused,
            }
        }
        group.run.borrow_mut().end_run();
        if refusal == Refused::Closed {
            // Every member is closing: as if nobody had subscribed.
            return Ok((Choice::Nobody, Outcome::Gone));
        }
        for member in &group.members {
            if let Member::Lane(target) = member
                && let Some(lane) = self.lanes.borrow_mut().get(target.lane)
            {
                lane.place.want_room(self.shard.as_ref());
            }
        }
        Err(self.count_refused(refusal))
    }

    /// Counts what a push has dropped or evicted, and turns a refusal into an error.
    #[cold]
    pub(crate) fn note_push(
        &self,
        target: LaneTarget,
        pushed: std::result::Result<Pushed, Refused>,
    ) -> Result<()> {
        let mut lanes = self.lanes.borrow_mut();
        let Some(lane) = lanes.get(target.lane) else {
            return Ok(());
        };
        let has_evicted = lane.writer.has_evicted();
        let place = lane.place.clone();
        drop(lanes);
        if has_evicted {
            self.report_evicted(target.lane);
        }
        match pushed {
            Ok(Pushed::Written) => Ok(()),
            Ok(Pushed::Dropped) => {
                self.count_dropped(target.subscription);
                Ok(())
            }
            // A queue that closes is no longer a target.
            Err(Refused::Closed) => Ok(()),
            Err(Refused::Unread) => {
                self.empty_closed(target.lane);
                Ok(())
            }
            Err(refused) => Err(self.refuse(refused, &place)),
        }
    }

    #[cold]
    pub(crate) fn refuse(&self, refused: Refused, place: &Place) -> Error {
        if refused == Refused::Full {
            place.want_room(self.shard.as_ref());
        }
        let error = self.count_refused(refused);
        self.refused_by.set(place.id());
        error
    }

    #[cold]
    pub(crate) fn count_refused(&self, refused: Refused) -> Error {
        if refused != Refused::TooLarge {
            count(&self.counters.refused, 1);
        }
        self.refused_by.set(0);
        refused.into()
    }

    #[cold]
    pub(crate) fn count_dropped(&self, subscription: u32) {
        self.broker.count_dropped(subscription);
    }

    /// Counts what a push has evicted, and tells the askers of evicted requests.
    #[cold]
    pub(crate) fn report_evicted(&self, lane: u32) {
        let evicted = match self.lanes.borrow_mut().get(lane) {
            Some(lane) => lane.writer.take_evicted(),
            None => return,
        };
        for record in evicted {
            self.count_dropped(record.subscription);
            if record.token != 0 {
                self.broker.answer_late(record.token, Status::Busy);
            }
        }
    }

    #[inline(never)]
    pub(crate) fn send_request_slow(
        &self,
        targets: &Targets,
        message: &Message<'_>,
        draft: &Draft<'_>,
        mut asking: Asking<'_>,
    ) -> Result<Fate> {
        // Each responder that has room gets the request, and the first answer counts.
        let mut fates = Fates::default();
        for responder in targets.responders() {
            let again = reborrow(&mut asking);
            let sent = self.ask_one(&responder, message, draft, again);
            fates.add(sent.map(|(fate, _)| fate))?;
        }
        Ok(fates.fate)
    }

    /// Sends a request to one responder; which subscription got it, too.
    pub(crate) fn ask_one(
        &self,
        responder: &Responder<'_>,
        message: &Message<'_>,
        draft: &Draft<'_>,
        asking: Asking<'_>,
    ) -> Result<(Fate, u32)> {
        // Local handlers come first: they have no queue that could be loaded.
        let handler = match responder {
            Responder::Inline(handler) => Some(&**handler),
            Responder::Group(group) => group.inline_member(),
            Responder::Remote(remote) => {
                return Ok((remote.request(message, draft)?, 0));
            }
            Responder::Queue(_) => None,
        };
        if let Some(handler) = handler {
            let fate = self.ask_message(handler, message, draft, asking)?;
            return Ok((fate, handler.id));
        }
        let sent = match responder {
            Responder::Queue(target) => {
                self.send_any::<Group>(std::slice::from_ref(target), &[], message, draft)
            }
            Responder::Group(group) => {
                self.send_any(&[], std::slice::from_ref(*group), message, draft)
            }
            Responder::Inline(_) | Responder::Remote(_) => Ok(Sent::default()),
        };
        match sent {
            // One that went into a queue that was closed is cancelled by whoever empties that.
            Ok(sent) if sent.reached + sent.held == 0 => Ok((Fate::Cancelled, 0)),
            Ok(sent) => Ok((Fate::Sent(1), responder.subscription(sent.choice))),
            Err(error) if error.status() == Status::Again => Ok((Fate::Busy, 0)),
            Err(error) => Err(error),
        }
    }

    #[inline(always)]
    pub(crate) fn random(&self) -> u64 {
        // SplitMix64's increment and mixer: good enough to choose between two members.
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 27)
    }
}

#[cold]
pub(crate) fn block_refused(error: BlockError) -> Error {
    match error {
        BlockError::OverBudget => Error::OVER_BUDGET,
        _ => Error::NO_MEMORY,
    }
}

/// Whether a group's choice is written at once or only promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Push,
    Reserve,
}

/// True if no lane of a target could hold the record, and a descriptor is shorter.
pub(crate) fn is_too_wide<T>(sent: &Result<T>, draft: &Draft<'_>) -> bool {
    matches!(sent, Err(error) if error.status() == Status::TooLarge)
        && draft.payload.len() > DESCRIPTOR_BYTES
}

fn reborrow<'a>(asking: &'a mut Asking<'_>) -> Asking<'a> {
    match asking {
        Asking::Later => Asking::Later,
        Asking::Now(calls, use_answer) => Asking::Now(calls, &mut **use_answer),
    }
}

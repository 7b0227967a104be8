//! A writer's way into one queue: the shared lane first, its own lane when it is hot.
//!
//! Invariant (order): the reader takes nothing from a writer's own lane before the last record that
//! the writer put into the shared lane has left it; nor, when the writer goes back to the shared
//! lane, did it leave anything in its own. Invariant (all or nothing): room that `reserve` promised
//! is there when `push_reserved` comes, whatever other writers do meanwhile.

mod claim;
mod mark;
mod post;
mod quiet;

use std::sync::Arc;

use crate::block::Descriptor;
use crate::consumer::Consumer;
use crate::lane::{Label, LaneState, NoRoom};
use crate::queue::{After, Policy, Queue, Shared, WriteEnd};
use crate::record::{DESCRIPTOR_BYTES, Draft, Kind, Plain, flag};
use crate::sync::{MutexGuard, lock, try_lock};

pub use mark::Mark;

/// Messages through the shared lane after which a writer asks for a lane of its own.
pub const HOT_MESSAGES: u32 = 16;

/// What became of a message that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It is in the queue.
    Written,
    /// It was dropped by the queue's policy, and counted.
    Dropped,
}

/// What the shortest way did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Tried {
    /// It is in the queue, and its reader is awake.
    Written,
    /// It is in the queue; [`LaneWriter::notify`] comes next.
    Unnoticed,
    /// Nothing: push it.
    Not,
}

/// Why a message was refused; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No room now.
    Full,
    /// The memory cap does not allow the lane to grow.
    OverBudget,
    /// The allocator had no memory.
    NoMemory,
    /// Larger than half of a lane's capacity.
    TooLarge,
    /// The queue is closed.
    Closed,
    /// The queue was closed after the record was written: somebody may have seen it, or nobody
    /// will.
    Unread,
}

impl From<NoRoom> for Refused {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Full => Self::Full,
            NoRoom::OverBudget => Self::OverBudget,
            NoRoom::NoMemory => Self::NoMemory,
            NoRoom::TooLarge => Self::TooLarge,
        }
    }
}

/// A record that was dropped to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// The subscription it was for.
    pub subscription: u32,
    /// Of a request, its token, so that the asker can be told; else 0.
    pub token: u64,
}

/// One writer × one queue. Used by one thread at a time.
pub struct LaneWriter {
    own: Option<WriteEnd>,
    queue: Arc<Queue>,
    policy: Policy,
    label: Option<Label>,
    /// The lane and count of the last record that went through the shared lane.
    last_shared: Option<(Arc<LaneState>, u64)>,
    shared_count: u32,
    /// Bytes promised in the shared lane.
    reserved: u64,
    /// Records promised in the own lane; one of the two is 0.
    copies: u64,
    /// Messages dropped at the shared lane that no record has told yet.
    lost: u64,
    evicted: Vec<Evicted>,
    pushed_at_sweep: u64,
}

impl std::fmt::Debug for LaneWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneWriter")
            .field("is_own", &self.own.is_some())
            .finish_non_exhaustive()
    }
}

impl LaneWriter {
    /// A writer for `queue`. With `label`, every message has that subject and publisher, and an
    /// own lane need not repeat them.
    pub fn new(queue: Arc<Queue>, label: Option<&Label>) -> Self {
        Self {
            own: None,
            policy: queue.policy(),
            queue,
            label: label.cloned(),
            last_shared: None,
            shared_count: 0,
            reserved: 0,
            copies: 0,
            lost: 0,
            evicted: Vec::new(),
            pushed_at_sweep: 0,
        }
    }

    /// The queue.
    #[inline(always)]
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// What the queue does when it is full.
    #[inline(always)]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Asks for memory that a push some ten pushes from now will wait for, when one message goes to
    /// more queues than a cache holds.
    #[inline(always)]
    pub fn expect_far(&self) {
        if let Some(own) = &self.own {
            own.producer.expect_far();
            self.queue.expect_notice();
        }
    }

    /// The same for a push that comes soon; `expect_far` was called before.
    #[inline(always)]
    pub fn expect_near(&self) {
        if let Some(own) = &self.own {
            own.producer.expect_near();
        }
    }

    /// True when the writer has a lane of its own.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Writes one message and wakes the reader if it sleeps.
    #[inline(always)]
    pub fn push(&mut self, draft: &Draft<'_>, subscription: u32) -> Result<Pushed, Refused> {
        if let Some(own) = &mut self.own
            && own.producer.push(draft, subscription).is_ok()
        {
            return self.notify();
        }
        self.push_slow(draft, subscription)
    }

    /// Writes one plain message and wakes the reader if it sleeps.
    #[inline(always)]
    pub fn push_plain(&mut self, plain: &Plain<'_>, subscription: u32) -> Result<Pushed, Refused> {
        match self.try_plain(plain, subscription) {
            Tried::Written => Ok(Pushed::Written),
            Tried::Unnoticed => self.notify(),
            Tried::Not => self.push_slow(&plain.draft(), subscription),
        }
    }

    /// Writes one plain message if the writer's own lane takes it as it is.
    #[inline(always)]
    pub fn try_plain(&mut self, plain: &Plain<'_>, subscription: u32) -> Tried {
        if let Some(own) = &mut self.own
            && own.producer.try_plain(plain, subscription)
        {
            own.producer.publish();
            return if self.queue.needs_no_notice() {
                Tried::Written
            } else {
                Tried::Unnoticed
            };
        }
        Tried::Not
    }

    /// Wakes the reader if it sleeps, after a record was published.
    #[inline(always)]
    pub fn notify(&self) -> Result<Pushed, Refused> {
        if self.queue.notify_reader() {
            Ok(Pushed::Written)
        } else {
            Err(Refused::Unread)
        }
    }

    /// True if a lane of the queue can hold the record when it is empty.
    pub fn can_hold(&self, draft: &Draft<'_>) -> bool {
        2 * ((draft.length(false, true) as u64 + 7) & !7) <= self.queue.capacity()
    }

    /// Promises room for `copies` more records of one message. Follow with as many
    /// `push_reserved`, or `cancel`.
    #[inline(always)]
    pub fn reserve(&mut self, draft: &Draft<'_>, copies: u64) -> Result<(), Refused> {
        if let Some(own) = &mut self.own {
            let step = own.producer.step(draft);
            let copies = self.copies + copies;
            if own.producer.reserve(step, spare(step, copies)).is_ok() {
                self.copies = copies;
                return Ok(());
            }
        }
        self.reserve_slow(draft, copies)
    }

    #[cold]
    fn reserve_slow(&mut self, draft: &Draft<'_>, copies: u64) -> Result<(), Refused> {
        if self.queue.is_closed() {
            return Err(Refused::Closed);
        }
        if self.own.is_none() && self.reserved == 0 && self.is_ready_for_own() {
            self.move_to_own();
        }
        let capacity = self.queue.capacity();
        // What the lane must have free for them, wherever in its ring it stands: a filler, the
        // record, and what is kept free behind it. More than there is would be AGAIN for ever.
        let check_size = |step: u64, kept: u64| match 2 * step + kept {
            need if need <= capacity => Ok(()),
            _ => Err(Refused::TooLarge),
        };
        if let Some(own) = &mut self.own {
            let step = own.producer.step(draft);
            let copies = self.copies + copies;
            check_size(step, spare(step, copies))?;
            own.producer.reserve(step, spare(step, copies))?;
            self.copies = copies;
            return Ok(());
        }
        let (queue, draft) = (self.queue.clone(), &self.in_full(draft));
        let mut shared = Self::lock_shared(&queue)?;
        let reserved = shared.reserved;
        let end = shared.end.as_mut().ok_or(Refused::Closed)?;
        let step = end.producer.step(draft);
        // Twice, for the filler that may be needed at the ring's end.
        let kept = step + spare(step, copies);
        check_size(step, self.reserved + kept)?;
        end.producer.reserve(step, reserved + kept)?;
        self.reserved += 2 * step * copies;
        shared.reserved += 2 * step * copies;
        Ok(())
    }

    /// Writes a message for which `reserve` has promised room, and wakes the reader.
    #[inline(always)]
    pub fn push_reserved(&mut self, draft: &Draft<'_>, sub: u32) -> Result<Pushed, Refused> {
        if self.copies > 0
            && let Some(own) = &mut self.own
        {
            self.copies -= 1;
            own.producer.write(draft, sub);
            own.producer.publish();
            return self.notify();
        }
        self.push_reserved_slow(draft, sub)
    }

    #[cold]
    fn push_reserved_slow(&mut self, draft: &Draft<'_>, sub: u32) -> Result<Pushed, Refused> {
        if self.reserved == 0 {
            // The queue was closed when room was asked for.
            return self.push(draft, sub);
        }
        let (queue, draft) = (self.queue.clone(), &self.in_full(draft));
        let mut shared = Self::lock_shared(&queue)?;
        let end = shared.end.as_mut().ok_or(Refused::Closed)?;
        let step = end.producer.step(draft);
        let promised = (2 * step).min(self.reserved);
        self.reserved -= promised;
        shared.reserved -= promised.min(shared.reserved);
        let spare = shared.reserved;
        let end = shared.end.as_mut().ok_or(Refused::Closed)?;
        end.producer
            .reserve(step, spare)
            .or_else(|_| end.producer.reserve(step, 0))?;
        end.producer.write(draft, sub);
        end.producer.publish();
        self.note_shared(&shared);
        drop(shared);
        self.notify()
    }

    /// Takes back what is left of a promise.
    pub fn cancel(&mut self) {
        self.copies = 0;
        let promised = std::mem::take(&mut self.reserved);
        if promised > 0 {
            let mut shared = lock(self.queue.shared());
            shared.reserved -= promised.min(shared.reserved);
        }
    }

    /// Bytes that wait for the reader as far as this writer knows, for balancing.
    pub fn load(&self) -> u64 {
        let own = match (&self.own, &self.last_shared) {
            (Some(own), _) => own.producer.state().pending_bytes(),
            (None, Some((state, _))) => state.pending_bytes(),
            (None, None) => 0,
        };
        own + self.queue.load_hint()
    }

    /// What this writer's pushes have evicted since the last call.
    pub fn take_evicted(&mut self) -> Vec<Evicted> {
        std::mem::take(&mut self.evicted)
    }

    /// True if [`LaneWriter::take_evicted`] has something.
    #[inline(always)]
    pub fn has_evicted(&self) -> bool {
        !self.evicted.is_empty()
    }

    /// Gives an own lane back that is drained and was not used since the last call.
    pub fn sweep(&mut self) {
        if let Some(own) = &self.own {
            let pushed = own.producer.pushed();
            if pushed == self.pushed_at_sweep && own.producer.is_drained() {
                self.drop_own();
            }
            self.pushed_at_sweep = pushed;
        }
    }

    fn drop_own(&mut self) {
        if let Some(mut own) = self.own.take() {
            self.lost += own.producer.take_lost();
            self.queue.give_own_place();
            self.shared_count = 0;
            self.pushed_at_sweep = 0;
            // The own lane was drained or belongs to a dead writer; what comes next in the shared
            // lane is behind nothing, unless the own lane was never used.
            if own.producer.pushed() > 0 {
                self.last_shared = None;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn push_slow(&mut self, draft: &Draft<'_>, subscription: u32) -> Result<Pushed, Refused> {
        if self.queue.is_closed() {
            return Err(Refused::Closed);
        }
        if self.own.is_none() && self.is_ready_for_own() {
            self.move_to_own();
        }
        let queue = self.queue.clone();
        let result = match self.own.as_mut() {
            Some(own) => Self::push_to(&queue, own, 0, &mut self.evicted, draft, subscription),
            None => {
                let draft = &self.in_full(draft);
                let mut shared = Self::lock_shared(&queue)?;
                let spare = shared.reserved;
                let lost = std::mem::take(&mut shared.lost) + std::mem::take(&mut self.lost);
                let evicted = &mut self.evicted;
                let end = shared.end.as_mut().ok_or(Refused::Closed)?;
                // Losses belong to the writer: they go with it when it leaves the shared lane.
                end.producer.add_lost(lost);
                let result = Self::push_to(&queue, end, spare, evicted, draft, subscription);
                self.lost = end.producer.take_lost();
                self.note_shared(&shared);
                result
            }
        };
        match result {
            Ok(Pushed::Written) => self.notify(),
            other => other,
        }
    }

    /// Pushes into a lane, following the queue's policy when it is full.
    fn push_to(
        queue: &Queue,
        end: &mut WriteEnd,
        spare: u64,
        evicted: &mut Vec<Evicted>,
        draft: &Draft<'_>,
        subscription: u32,
    ) -> Result<Pushed, Refused> {
        let step = end.producer.step(draft);
        let no_room = match end.producer.reserve(step, spare) {
            Ok(()) => {
                end.producer.write(draft, subscription);
                end.producer.publish();
                return Ok(Pushed::Written);
            }
            Err(no_room) => no_room,
        };
        // A request is told that the responder is busy rather than dropped or let drop others.
        if no_room == NoRoom::TooLarge || draft.kind != Kind::Message {
            return Err(no_room.into());
        }
        match queue.policy() {
            Policy::Backpressure | Policy::Latest => Err(no_room.into()),
            Policy::DropNewest => {
                end.producer.count_lost();
                Ok(Pushed::Dropped)
            }
            Policy::DropOldest => {
                // Where only memory is missing, evicting would not help.
                if end.producer.fits_ring(step)
                    && let Some(evict) = &end.evict
                    && let Some(mut consumer) = try_lock(evict)
                {
                    // Again when the oldest were in a ring that the writer has left behind.
                    while make_room(&mut consumer, queue, step, evicted) > 0 {
                        if end.producer.reserve(step, spare).is_ok() {
                            end.producer.write(draft, subscription);
                            end.producer.publish();
                            return Ok(Pushed::Written);
                        }
                    }
                }
                // The reader is copying out right now, or memory is out: the new message is the
                // one that is lost.
                end.producer.count_lost();
                Ok(Pushed::Dropped)
            }
        }
    }

    /// The message as the shared lane has to say it.
    fn in_full<'m>(&self, draft: &Draft<'m>) -> Draft<'m> {
        draft.published_by(self.label.as_ref().map_or(0, |label| label.publisher))
    }

    fn lock_shared(queue: &Queue) -> Result<MutexGuard<'_, Shared>, Refused> {
        let mut shared = lock(queue.shared());
        shared.locks += 1;
        if shared.end.is_none() {
            if queue.is_closed() {
                return Err(Refused::Closed);
            }
            shared.end = Some(queue.new_lane(None, None)?);
        }
        Ok(shared)
    }

    fn note_shared(&mut self, shared: &Shared) {
        let Some(end) = &shared.end else { return };
        let (state, pushed) = (end.producer.state(), end.producer.pushed());
        match &mut self.last_shared {
            Some((last, count)) if Arc::ptr_eq(last, state) => *count = pushed,
            last => *last = Some((state.clone(), pushed)),
        }
        self.shared_count = self.shared_count.saturating_add(1);
    }

    /// The reader keeps the order (`After`), so that nothing has to drain first.
    fn is_ready_for_own(&self) -> bool {
        // What waits in the shared lane comes on top of the own lane's capacity: let it be little.
        self.shared_count >= HOT_MESSAGES
            && self
                .last_shared
                .as_ref()
                .is_none_or(|(state, _)| state.pending_bytes() <= self.queue.capacity() / 8)
    }

    fn move_to_own(&mut self) {
        // Asked again after as many messages, should the places or the memory be out now.
        self.shared_count = 0;
        if !self.queue.take_own_place() {
            return;
        }
        // Kept: a mark needs it as long as the own lane is empty.
        let after = self.last_shared.clone();
        let after = after.map(|(state, count)| After { state, count });
        match self.queue.new_lane(self.label.clone(), after) {
            Ok(mut end) => {
                end.producer.add_lost(std::mem::take(&mut self.lost));
                self.own = Some(end);
            }
            Err(_) => self.queue.give_own_place(),
        }
    }
}

impl Drop for LaneWriter {
    fn drop(&mut self) {
        self.cancel();
        self.drop_own();
        if self.lost > 0 {
            lock(self.queue.shared()).lost += self.lost;
        }
    }
}

/// Bytes to keep free behind the first of several copies, one filler included.
#[inline(always)]
fn spare(step: u64, copies: u64) -> u64 {
    if copies > 1 { step * copies } else { 0 }
}

/// Evicts the oldest records until `step` bytes, and a sixteenth of the ring, are free: one
/// eviction then pays for many messages. Returns how many records it has evicted.
fn make_room(consumer: &mut Consumer, queue: &Queue, step: u64, evicted: &mut Vec<Evicted>) -> u64 {
    let goal = (2 * step).max(consumer.capacity() / 16);
    let (mut bytes, mut count) = (0, 0);
    while bytes < goal {
        // Without memory to report it nothing is dropped.
        if evicted.try_reserve(1).is_err() {
            break;
        }
        // An error ends the lane for the reader too; there is nothing to make room for.
        let Ok(Some(taken)) = consumer.next() else {
            break;
        };
        evicted.push(Evicted {
            subscription: taken.parsed.subscription,
            token: match taken.parsed.kind {
                Kind::Request => consumer.word(&taken, flag::TOKEN),
                _ => 0,
            },
        });
        let lost = consumer.word(&taken, flag::LOST);
        consumer.untold = consumer.untold.saturating_add(lost);
        if taken.parsed.flags & flag::BLOCK != 0 {
            release_block(consumer, queue, &taken);
        }
        bytes += taken.parsed.step;
        count += 1;
    }
    consumer.count_evicted(count);
    consumer.release();
    count
}

fn release_block(consumer: &Consumer, queue: &Queue, taken: &crate::consumer::Taken) {
    let mut bytes = [0; DESCRIPTOR_BYTES];
    if consumer.copy_payload(taken, &mut bytes) {
        drop(queue.blocks().get(&Descriptor::from_bytes(&bytes)));
    }
}

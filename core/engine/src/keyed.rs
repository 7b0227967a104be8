//! A key-shared group: who its members are, whose each key is, and what a member that left had not
//! read.
//!
//! Keys fall into slots, and a slot belongs to one member (`fastmq_route::shares`). Whoever comes
//! or goes moves slots. Each writer follows in its own time (`by_key`): it sends nothing of a slot
//! that moved before all that it sent to the former owner was handled.
//!
//! What a member that leaves had not read is **handed over**: whoever meets such a record (the
//! reader of the queue, or whoever empties it) copies it. The copy goes to the new owner when no
//! batch of the queue is open any more, which may show earlier messages of its key; the owner's
//! reader takes it before anything else. Until the batch that shows it ends, its slot counts as
//! outstanding. A copy is handed over again if that member leaves too.
//!
//! Invariant: a record counts as outstanding before it leaves the lane of its former owner. Copies
//! leave a queue in their order, and by whoever has the right to read it; one whose elder, the copy
//! that was given before it, is with another queue follows it there.
//!
//! Lock order: `KeyGroup::state`, `SlotCopies::line`, `PlaceShares::handed`. Nobody is woken under
//! any.

use std::collections::VecDeque;
use std::sync::atomic::{self, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crossbeam_utils::CachePadded;

use fastmq_memory::allocation::{try_arc, try_box};
use fastmq_memory::sync::{Mutex, OnceLock, lock};
use fastmq_memory::{Handed, ReaderGuard, View};
use fastmq_route::SubjectHash;
use fastmq_route::shares::{NOBODY, NoShare, SLOTS, Shares, slot_of};

use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::place::Place;
use crate::slots::Slot;

static NEXT_MEMBER: AtomicU64 = AtomicU64::new(1);

/// Names of subscriptions that a queue keeps after they have ended, for what is still in it.
const LEFT_MAX: usize = 1024;

/// A key-shared group.
pub(crate) struct KeyGroup {
    hash: SubjectHash,
    /// Raised, under the lock, with each change of the members.
    version: CachePadded<AtomicU64>,
    /// Copies that were handed over and not handled yet: in all, and by slot.
    outstanding: AtomicU64,
    by_slot: OnceLock<Box<[SlotCopies]>>,
    state: Mutex<State>,
}

/// Who is a member, and of what.
pub(crate) struct State {
    pub(crate) shares: Shares,
    /// By the numbers of `shares`.
    pub(crate) members: Vec<Option<KeyMember>>,
}

/// A member.
#[derive(Clone)]
pub(crate) struct KeyMember {
    /// Its subscription.
    pub(crate) id: u32,
    /// Unique in the process and never reused, as numbers are.
    pub(crate) serial: u64,
    pub(crate) place: Arc<Place>,
}

/// The copies of one slot.
#[derive(Default)]
struct SlotCopies {
    /// Those that are not handled yet.
    all: AtomicU32,
    line: Mutex<Line>,
}

/// The copies of a slot that an owner was given once, in their order, and the queue of each.
#[derive(Default)]
struct Line {
    placed: VecDeque<Placed>,
    /// Numbers that were given to copies.
    count: u64,
}

struct Placed {
    number: u64,
    place: Weak<Place>,
    /// An open batch of the queue shows it.
    is_shown: bool,
}

impl Line {
    /// The index of a copy, which is the last if it is new; `None` without memory.
    fn enter(&mut self, way: &Way) -> Option<usize> {
        let number = way.number.load(Ordering::Relaxed);
        if number > 0 {
            return self.find(number);
        }
        self.placed.try_reserve(1).ok()?;
        self.count += 1;
        way.number.store(self.count, Ordering::Relaxed);
        self.placed.push_back(Placed {
            number: self.count,
            place: Weak::new(),
            is_shown: false,
        });
        Some(self.placed.len() - 1)
    }

    fn leave(&mut self, number: u64) {
        if let Some(at) = self.find(number) {
            self.placed.remove(at);
        }
    }

    /// True if no elder of a copy waits, wherever that is.
    fn is_due(&self, number: u64, place: &Place) -> bool {
        let elder = self.find(number).and_then(|at| at.checked_sub(1));
        elder.is_none_or(|elder| {
            let elder = &self.placed[elder];
            elder.is_shown && std::ptr::eq(elder.place.as_ptr(), place)
        })
    }

    fn note_shown(&mut self, number: u64, is_shown: bool) {
        if let Some(at) = self.find(number) {
            self.placed[at].is_shown = is_shown;
        }
    }

    fn find(&self, number: u64) -> Option<usize> {
        let found = self.placed.binary_search_by_key(&number, |one| one.number);
        found.ok()
    }
}

/// A copy on its way to a new owner.
struct Waiting {
    way: Arc<Way>,
    /// The subscription that it waits for, or that has left it.
    id: u32,
    message: Handed,
}

/// Counts a copy as outstanding for as long as it exists.
struct Way {
    group: Arc<KeyGroup>,
    slot: usize,
    /// Its number in the line of the slot; 0: no owner was given it yet.
    number: AtomicU64,
    /// It never was in a lane: what comes from there later is older.
    is_unwritten: bool,
    /// When the message expires; `u64::MAX`: never.
    expiry_ns: u64,
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(copies) = self.group.copies(self.slot) {
            let number = *self.number.get_mut();
            if number > 0 {
                lock(&copies.line).leave(number);
            }
            copies.all.fetch_sub(1, Ordering::Release);
            self.group.outstanding.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Way {
    /// True if a batch of this queue may show the copy: no other comes before it.
    fn is_due(&self, place: &Place) -> bool {
        let number = self.number.load(Ordering::Relaxed);
        let copies = self.group.copies(self.slot);
        copies.is_none_or(|copies| lock(&copies.line).is_due(number, place))
    }

    fn note_shown(&self, is_shown: bool) {
        let number = self.number.load(Ordering::Relaxed);
        if let Some(copies) = self.group.copies(self.slot) {
            lock(&copies.line).note_shown(number, is_shown);
        }
    }
}

impl Waiting {
    fn new(way: Arc<Way>, message: &View) -> Option<Self> {
        Some(Self {
            message: Handed::new(message, way.clone())?,
            way,
            id: message.subscription_id,
        })
    }

    /// True if this copy comes before one of its slot that was given before, or that no lane had.
    fn is_before(&self, other: &Self) -> bool {
        let number = |one: &Self| one.way.number.load(Ordering::Relaxed);
        if number(self) + number(other) == 0 {
            return other.way.is_unwritten && !self.way.is_unwritten;
        }
        Arc::ptr_eq(&self.way.group, &other.way.group)
            && self.way.slot == other.way.slot
            && (1..number(other)).contains(&number(self))
    }

    /// Gives the copy to the owner of its slot now.
    fn give(self, broker: &Broker) {
        let group = self.way.group.clone();
        // Whoever closes its queue may not have come so far yet.
        group.leave(self.id);
        if !broker.is_closed() {
            broker.count_lost(u64::from(!group.give(broker, self)));
        }
    }

    /// Adds the copy to the batch being made, or gives it back without memory.
    fn show(
        self,
        guard: &mut ReaderGuard<'_>,
        subscription: &Slot,
        shares: &PlaceShares,
    ) -> std::result::Result<(), Self> {
        let mut shown = lock(&shares.shown);
        if shown.try_reserve(1).is_err() {
            return Err(self);
        }
        let Self { way, id, message } = self;
        let address = message.address();
        match guard.push_handed(message, id, subscription.tag()) {
            Ok(()) => {
                way.note_shown(true);
                shown.push((address, Arc::downgrade(&way)));
                subscription.count(1);
                Ok(())
            }
            Err(message) => Err(Self { way, id, message }),
        }
    }
}

/// What a queue has to do with key-shared groups.
#[derive(Default)]
pub(crate) struct PlaceShares {
    /// The groups of subscriptions that feed the queue, or did.
    groups: Mutex<Vec<(u32, Arc<KeyGroup>)>>,
    handed: Mutex<VecDeque<Waiting>>,
    /// Copies that a batch may still show, by the address of their subject.
    shown: Mutex<Vec<(usize, Weak<Way>)>>,
}

impl PlaceShares {
    /// The way of a copy that a batch shows, and that is not handled after all.
    fn take_shown(&self, message: &View) -> Option<Arc<Way>> {
        let address = message.subject().as_ptr().addr();
        let mut shown = lock(&self.shown);
        // Of those of earlier batches nothing is left.
        let is_it = |one: &(usize, Weak<Way>)| one.0 == address && one.1.strong_count() > 0;
        let at = shown.iter().position(is_it)?;
        shown.swap_remove(at).1.upgrade()
    }
}

impl std::fmt::Debug for KeyGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyGroup").finish_non_exhaustive()
    }
}

impl KeyGroup {
    pub(crate) fn new(hash: SubjectHash) -> Result<Arc<Self>> {
        let state = State {
            shares: Shares::new().map_err(|_| Error::NO_MEMORY)?,
            members: Vec::new(),
        };
        Ok(try_arc(Self {
            hash,
            version: CachePadded::new(AtomicU64::new(0)),
            outstanding: AtomicU64::new(0),
            by_slot: OnceLock::new(),
            state: Mutex::new(state),
        })?)
    }

    /// Which members there are: it changes with each that comes or goes.
    #[inline(always)]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Looks at the members, with the version that they are of.
    pub(crate) fn look<R>(&self, look: impl FnOnce(u64, &State) -> R) -> R {
        let state = lock(&self.state);
        look(self.version(), &state)
    }

    /// True if there is no member.
    pub(crate) fn is_empty(&self) -> bool {
        self.look(|_, state| state.members.iter().all(Option::is_none))
    }

    /// Copies of this slot that are not handled yet.
    pub(crate) fn outstanding_of(&self, slot: usize) -> u32 {
        let copies = self.copies(slot);
        copies.map_or(0, |copies| copies.all.load(Ordering::Acquire))
    }

    fn copies(&self, slot: usize) -> Option<&SlotCopies> {
        self.by_slot.get().map(|by_slot| &by_slot[slot])
    }

    /// Copies of all slots that are not handled yet.
    pub(crate) fn outstanding(&self) -> u64 {
        self.outstanding.load(Ordering::Acquire)
    }

    /// Makes a subscription a member; `weight` 0 is 1.
    pub(crate) fn join(&self, id: u32, place: &Arc<Place>, weight: u32) -> Result<()> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.members.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        let number = state.shares.join(weight).map_err(|error| match error {
            NoShare::NoMemory => Error::NO_MEMORY,
            NoShare::Full => Error::new(&Fault(
                Status::NoSpace,
                "a key-shared group has at most 1,024 members",
            )),
        })?;
        let member = Some(KeyMember {
            id,
            serial: NEXT_MEMBER.fetch_add(1, Ordering::Relaxed),
            place: place.clone(),
        });
        if number == state.members.len() {
            state.members.push(member);
        } else {
            state.members[number] = member;
        }
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Takes a subscription out, if it is a member; its slots go to the others.
    pub(crate) fn leave(&self, id: u32) {
        let left = {
            let mut state = lock(&self.state);
            let is_it = |member: &Option<KeyMember>| member.as_ref().is_some_and(|it| it.id == id);
            let Some(number) = state.members.iter().position(is_it) else {
                return;
            };
            let left = state.members[number].take();
            state.shares.leave(number);
            self.version.fetch_add(1, Ordering::Release);
            left
        };
        // Its reader has to hand copies over, if there are any.
        if let Some(left) = left.filter(|left| left.place.has_handed.load(Ordering::Acquire)) {
            left.place.lanes.notify_reader();
        }
    }

    /// A copy of a message that counts as outstanding; `None` without memory for it.
    fn copy(
        self: &Arc<Self>,
        message: &View,
        is_unwritten: bool,
        expiry_ns: u64,
    ) -> Option<Waiting> {
        let key = match message.key() {
            [] => message.subject(),
            key => key,
        };
        let slot = slot_of(self.hash.hash(key));
        if self.by_slot.get().is_none() {
            let mut counts = Vec::new();
            counts.try_reserve_exact(SLOTS).ok()?;
            counts.resize_with(SLOTS, SlotCopies::default);
            let _ = self.by_slot.set(counts.into_boxed_slice());
        }
        self.copies(slot)?.all.fetch_add(1, Ordering::Relaxed);
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        let way = Way {
            group: self.clone(),
            slot,
            number: AtomicU64::new(0),
            is_unwritten,
            expiry_ns,
        };
        Waiting::new(try_arc(way).ok()?, message)
    }

    /// Gives a copy to the owner of its slot, or to the queue that still holds its elder; without
    /// members it is gone, as a message that is published then. False: there was no memory.
    fn give(&self, broker: &Broker, mut copy: Waiting) -> bool {
        // Whatever ends here ends after the locks: it may be the last of its kind.
        let (way, place) = (copy.way.clone(), &mut None);
        let Some(copies) = self.copies(way.slot) else {
            return true;
        };
        {
            let state = lock(&self.state);
            let Some(owner) = state.owner(way.slot) else {
                return true;
            };
            let mut line = lock(&copies.line);
            let Some(at) = line.enter(&way) else {
                return false;
            };
            *place = at
                .checked_sub(1)
                .and_then(|elder| line.placed[elder].place.upgrade());
            let elder = place.as_ref().filter(|it| !Arc::ptr_eq(it, &owner.place));
            // Behind its elder, and then to whom that goes; of no subscription.
            let (target, id) = elder.map_or((&owner.place, owner.id), |elder| (elder, 0));
            let target = target.clone();
            copy.id = id;
            // Under the lock: one that leaves now finds it.
            if !target.keep(copy) {
                return false;
            }
            line.placed[at].place = Arc::downgrade(&target);
            *place = Some(target);
        }
        if let Some(place) = place {
            place.lanes.notify_reader();
            place.finish(broker);
        }
        true
    }
}

impl State {
    /// The member that a slot belongs to.
    pub(crate) fn owner(&self, slot: usize) -> Option<&KeyMember> {
        match self.shares.owners()[slot] {
            NOBODY => None,
            number => self.members[usize::from(number)].as_ref(),
        }
    }
}

impl Place {
    /// Notes that a member of this group has this queue.
    pub(crate) fn enter_group(
        &self,
        broker: &Broker,
        id: u32,
        group: &Arc<KeyGroup>,
    ) -> Result<()> {
        if self.shares.get().is_none() {
            let _ = self.shares.set(try_box(PlaceShares::default())?);
        }
        let shares = self.shares.get().ok_or(Error::NO_MEMORY)?;
        let mut groups = lock(&shares.groups);
        if groups.len() >= LEFT_MAX || self.statistics().pending == 0 {
            let is_there = |id: u32| broker.slots.get(id).is_some_and(|slot| slot.is(id));
            groups.retain(|(id, _)| is_there(*id));
        }
        groups.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        groups.push((id, group.clone()));
        Ok(())
    }

    /// Copies a record that a subscription will not read, if the others of its group are to have
    /// it. Called with the right to read, or for what was never written.
    #[cold]
    pub(crate) fn hand_over(
        &self,
        broker: &Broker,
        message: &View,
        is_unwritten: bool,
        expiry_ns: u64,
    ) {
        let Some(shares) = self.shares.get() else {
            return;
        };
        if let Some(way) = shares.take_shown(message) {
            way.note_shown(false);
            let is_kept = Waiting::new(way, message).is_some_and(|copy| self.keep(copy));
            return broker.count_lost(u64::from(!is_kept));
        }
        let id = message.subscription_id;
        let group = {
            let groups = lock(&shares.groups);
            let found = groups.iter().find(|(other, _)| *other == id);
            found.map(|(_, group)| group.clone())
        };
        if let Some(group) = group
            && !broker.is_closed()
        {
            let copy = group.copy(message, is_unwritten, expiry_ns);
            let is_kept = copy.is_some_and(|copy| self.keep(copy));
            broker.count_lost(u64::from(!is_kept));
        }
    }

    /// Keeps a copy until the reader looks next; false without memory.
    fn keep(&self, copy: Waiting) -> bool {
        let Some(shares) = self.shares.get() else {
            return false;
        };
        let mut handed = lock(&shares.handed);
        if handed.try_reserve(1).is_err() {
            return false;
        }
        // One that a batch has shown, but nobody handled, goes back to its place.
        let behind = handed.iter().position(|other| copy.is_before(other));
        let at = behind.unwrap_or(handed.len());
        handed.insert(at, copy);
        self.has_handed.store(true, Ordering::SeqCst);
        true
    }

    /// Adds copies that were handed over to the batch being made, and hands those of members that
    /// have left to others.
    #[cold]
    pub(crate) fn take_handed(&self, broker: &Broker, guard: &mut ReaderGuard<'_>, limit: usize) {
        let Some(shares) = self.shares.get() else {
            return;
        };
        if guard.count() == 0 {
            lock(&shares.shown).clear();
        }
        let mut left = self.handed_count();
        while guard.count() < limit && left > 0 {
            left -= 1;
            // Nobody else takes any out, who has not the right to read.
            let Some(mut copy) = lock(&shares.handed).pop_front() else {
                break;
            };
            let expiry_ns = copy.way.expiry_ns;
            if expiry_ns != u64::MAX && expiry_ns < broker.driver.monotonic_ns() {
                guard.count_expired();
                continue;
            }
            let slot = broker.slots.get(copy.id).filter(|slot| slot.is(copy.id));
            let copy = match slot {
                Some(slot) if copy.way.is_due(self) => match copy.show(guard, slot, shares) {
                    Ok(()) => continue,
                    Err(copy) => copy,
                },
                // The batch may show earlier messages of its key: after it.
                _ if guard.count() > 0 => copy,
                _ => {
                    if slot.is_some() {
                        // Its elder has gone elsewhere; the member stays one.
                        copy.id = 0;
                    }
                    copy.give(broker);
                    continue;
                }
            };
            // It was there before: no memory is needed.
            lock(&shares.handed).push_front(copy);
            break;
        }
        let handed = lock(&shares.handed);
        self.has_handed.store(!handed.is_empty(), Ordering::SeqCst);
    }

    /// Hands all copies to others: the queue is closed.
    #[cold]
    pub(crate) fn give_handed(&self, broker: &Broker) {
        let Some(shares) = self.shares.get() else {
            return;
        };
        loop {
            // Whoever has the right instead does the same when he gives it back.
            let Ok(guard) = self.lanes.reader() else {
                return;
            };
            loop {
                let copy = lock(&shares.handed).pop_front();
                let Some(copy) = copy else { break };
                copy.give(broker);
            }
            {
                let handed = lock(&shares.handed);
                self.has_handed.store(!handed.is_empty(), Ordering::SeqCst);
            }
            drop(guard);
            // One that came now was left to us.
            atomic::fence(Ordering::SeqCst);
            if !self.has_handed.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Copies that wait to be taken.
    pub(crate) fn handed_count(&self) -> u64 {
        let shares = self.shares.get();
        shares.map_or(0, |shares| lock(&shares.handed).len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use fastmq_driver::NullDriver;
    use fastmq_memory::Policy;
    use fastmq_memory::view::{Numbers, Optional};

    use super::*;
    use crate::{GroupMode, Options, QueueOptions, SubscribeOptions};

    /// Its queue was closed between the promise and the writing, and its closer has still to empty
    /// the lane in which earlier messages of the same key wait.
    #[test]
    fn what_was_never_written_comes_behind_what_was() {
        let broker = Broker::open(Options::default(), Arc::new(NullDriver::new())).unwrap();
        let member = || {
            let options = QueueOptions {
                policy: Policy::Backpressure,
                ..QueueOptions::default()
            };
            let queue = broker.open_queue(options).unwrap();
            let options = SubscribeOptions {
                group: b"workers",
                group_mode: GroupMode::KeyShared,
                queue: Some(&queue),
                ..SubscribeOptions::default()
            };
            let subscription = broker.subscribe_with(b"job", options).unwrap();
            (queue, subscription)
        };
        let (leaving, subscription) = member();
        let mut publisher = crate::Publisher::open(&broker, b"job").unwrap();
        publisher.publish(b"1").unwrap();
        publisher.publish(b"2").unwrap();
        let numbers = Numbers {
            subscription_id: subscription.id(),
            ..Numbers::default()
        };
        let no_more = Some(Optional::default());
        View::with_borrowed(b"job", b"3", numbers, no_more, |view| {
            leaving.hand_over(&broker, view, true, u64::MAX);
        });
        let (staying, _subscription) = member();
        broker.close_queue(&leaving);
        let batch = staying.receive(&broker, 10, 0).unwrap();
        let payloads: Vec<_> = batch.messages().iter().map(View::payload).collect();
        assert_eq!(payloads, [b"1", b"2", b"3"]);
    }
}

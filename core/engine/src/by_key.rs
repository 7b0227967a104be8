//! How a writer sends to key-shared groups: to the owner of the key's slot, and after a move not
//! before what it sent to the former owner was handled.
//!
//! A writer has a copy of the owners. When the group's version says that members have come or gone,
//! it takes the new owners over and marks, for each former owner of a slot that moved, what it has
//! pushed to it so far. Messages of such a slot are refused with AGAIN until the mark is past and
//! nothing that was handed over is outstanding; other slots go on. So the order of a writer's
//! messages of one key is kept by that writer alone, with nothing shared between writers.

use std::sync::Arc;

use fastmq_memory::allocation::try_box;
use fastmq_memory::record::flag;
use fastmq_memory::view::{Numbers, View};
use fastmq_memory::{Draft, Mark, Policy, Pushed, Refused};
use fastmq_route::shares::{NOBODY, SLOTS, slot_of};

use crate::delivery::{Attempt, Choice, Outcome};
use crate::error::{Error, Fault, Result, Status};
use crate::keyed::{KeyGroup, State};
use crate::message::{Message, optional_of};
use crate::place::Place;
use crate::route::{Group, LaneTarget};
use crate::writer::{Writer, count};

/// The lane of a member to which nothing was sent yet.
const NO_LANE: u32 = u32::MAX;
/// Members that may close one after the other while one message looks for its owner.
const OWNERS_TRIED_MAX: u32 = 8;

/// A key-shared group as one writer sees it.
pub(crate) struct Keyed {
    group: Arc<KeyGroup>,
    /// What the rest is of.
    version: u64,
    owners: Box<[u16]>,
    /// By number.
    members: Vec<Owner>,
    transit: Option<Transit>,
}

#[derive(Clone, Copy)]
struct Owner {
    serial: u64,
    target: LaneTarget,
}

/// Slots that have moved, and what their former owners have not handled yet.
struct Transit {
    /// By slot: which source, from 1; 0: it has not moved.
    from: Box<[u16]>,
    sources: Vec<Source>,
}

struct Source {
    place: Arc<Place>,
    mark: Mark,
}

const NO_OWNER: Owner = Owner {
    serial: 0,
    target: LaneTarget {
        lane: NO_LANE,
        subscription: 0,
    },
};

impl Keyed {
    /// True if all that this writer sent before members came and went was handled.
    fn is_settled(&self) -> bool {
        let is_past = |source: &Source| source.mark.is_past();
        self.transit.as_ref().is_none_or(|transit| {
            transit.sources.iter().all(is_past) && self.group.outstanding() == 0
        })
    }
}

impl Keyed {
    /// Lets a slot arrive at its owner, or says which queue still has earlier messages of it.
    fn arrive(&mut self, slot: usize) -> Option<Arc<Place>> {
        let transit = self.transit.as_mut()?;
        let from = usize::from(transit.from[slot]);
        if from > 0 {
            let source = &transit.sources[from - 1];
            if !source.mark.is_past() {
                return Some(source.place.clone());
            }
            if self.group.outstanding_of(slot) > 0 {
                let owner = |_, state: &State| state.owner(slot).map(|owner| owner.place.clone());
                let owner = self.group.look(owner);
                return Some(owner.unwrap_or_else(|| source.place.clone()));
            }
            transit.from[slot] = 0;
        }
        if self.is_settled() {
            self.transit = None;
        }
        None
    }
}

impl Transit {
    fn new() -> Result<Self> {
        let mut from = Vec::new();
        from.try_reserve_exact(SLOTS)
            .map_err(|_| Error::NO_MEMORY)?;
        from.resize(SLOTS, 0);
        Ok(Self {
            from: from.into_boxed_slice(),
            sources: Vec::new(),
        })
    }

    /// Forgets the slots that have arrived, and sources that no slot comes from any more: there
    /// are never more than slots.
    fn compact(&mut self, group: &KeyGroup) {
        for (slot, from) in self.from.iter_mut().enumerate() {
            let source = self.sources.get(usize::from(*from).wrapping_sub(1));
            if source.is_some_and(|source| source.mark.is_past()) && group.outstanding_of(slot) == 0
            {
                *from = 0;
            }
        }
        let mut kept = 0;
        for index in 0..self.sources.len() {
            let (old, new) = (index as u16 + 1, kept as u16 + 1);
            let mut is_kept = false;
            for from in &mut self.from {
                if *from == old {
                    (*from, is_kept) = (new, true);
                }
            }
            if is_kept {
                self.sources.swap(kept, index);
                kept += 1;
            }
        }
        self.sources.truncate(kept);
    }

    fn add(&mut self, source: Source) -> Result<u16> {
        self.sources.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        self.sources.push(source);
        Ok(self.sources.len() as u16)
    }
}

impl Writer {
    /// The index of this writer's view of a group.
    pub(crate) fn keyed_index(&self, group: &Arc<KeyGroup>) -> Result<u32> {
        let mut all = self.by_key.borrow_mut();
        let is_it = |keyed: &Option<Box<Keyed>>| {
            let keyed = keyed.as_ref();
            keyed.is_some_and(|keyed| Arc::ptr_eq(&keyed.group, group))
        };
        if let Some(index) = all.iter().position(is_it) {
            return Ok(index as u32);
        }
        let index = all.iter().position(Option::is_none).unwrap_or(all.len());
        all.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        let mut owners = Vec::new();
        owners
            .try_reserve_exact(SLOTS)
            .map_err(|_| Error::NO_MEMORY)?;
        owners.resize(SLOTS, NOBODY);
        let keyed = try_box(Keyed {
            group: group.clone(),
            // None: the members are looked at before the first message.
            version: u64::MAX,
            owners: owners.into_boxed_slice(),
            members: Vec::new(),
            transit: None,
        })?;
        if index == all.len() {
            all.push(Some(keyed));
        } else {
            all[index] = Some(keyed);
        }
        Ok(index as u32)
    }

    /// The slot of a message in any group.
    #[inline(always)]
    fn slot_of(&self, group: &Group, message: &Message<'_>) -> usize {
        match message.key {
            // The subject, whose hash the route knows.
            [] => group.slot,
            key => slot_of(self.hash.hash(key)),
        }
    }

    /// Sends to the owner of the message's slot, or reserves there.
    pub(crate) fn send_by_key(
        &self,
        index: u32,
        group: &Group,
        message: &Message<'_>,
        draft: &Draft<'_>,
        attempt: Attempt,
    ) -> Result<(Choice, Outcome)> {
        let slot = self.slot_of(group, message);
        for _ in 0..OWNERS_TRIED_MAX {
            let Some(target) = self.owner_of(index, slot)? else {
                return Ok((Choice::Nobody, Outcome::Gone));
            };
            let mut lanes = self.lanes.borrow_mut();
            let Some(lane) = lanes.get(target.lane) else {
                return Ok((Choice::Nobody, Outcome::Gone));
            };
            debug_assert_eq!(lane.writer.queue().policy(), Policy::Backpressure);
            let outcome = match attempt {
                Attempt::Push => lane.writer.push(draft, target.subscription),
                Attempt::Reserve => lane.writer.reserve(draft, 1).map(|()| Pushed::Written),
            };
            match outcome {
                Ok(_) => return Ok((Choice::Lane(target), Outcome::Written)),
                // Emptying it hands the message over.
                Err(Refused::Unread) => {
                    drop(lanes);
                    self.empty_closed(target.lane);
                    return Ok((Choice::Lane(target), Outcome::Unread));
                }
                Err(Refused::Closed) => {
                    drop(lanes);
                    self.leave_for(index, target.subscription);
                }
                Err(refused) => {
                    let error = self.refuse(refused, &lane.place);
                    return Err(error);
                }
            }
        }
        Err(self.count_refused(Refused::Full))
    }

    /// After a promise: the member's queue was closed before the message was written to it. Its
    /// next owner gets it.
    #[cold]
    pub(crate) fn hand_over_unwritten(
        &self,
        target: LaneTarget,
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) {
        let place = match self.lanes.borrow_mut().get(target.lane) {
            Some(lane) => lane.place.clone(),
            None => return,
        };
        let numbers = Numbers {
            sequence: draft.sequence,
            publisher: self.publisher(),
            timestamp_ns: draft.timestamp,
            subscription_id: target.subscription,
            ..Numbers::default()
        };
        let optional = Some(optional_of(message));
        let expiry_ns = match draft.flags & flag::EXPIRY {
            0 => u64::MAX,
            _ => draft.expiry,
        };
        View::with_borrowed(
            message.subject,
            message.payload,
            numbers,
            optional,
            |view| {
                place.hand_over(&self.broker, view, true, expiry_ns);
            },
        );
        place.finish(&self.broker);
    }

    /// The lane to the owner of a slot; `None` if there is no member.
    #[inline]
    fn owner_of(&self, index: u32, slot: usize) -> Result<Option<LaneTarget>> {
        {
            let all = self.by_key.borrow();
            let keyed = all.get(index as usize).and_then(Option::as_ref);
            let Some(keyed) = keyed else {
                return Ok(None);
            };
            if keyed.version == keyed.group.version()
                && keyed.transit.is_none()
                && let Some(owner) = keyed.members.get(usize::from(keyed.owners[slot]))
                && owner.target.lane != NO_LANE
            {
                return Ok(Some(owner.target));
            }
        }
        self.owner_of_slow(index, slot)
    }

    #[cold]
    #[inline(never)]
    fn owner_of_slow(&self, index: u32, slot: usize) -> Result<Option<LaneTarget>> {
        let mut all = self.by_key.borrow_mut();
        let Some(keyed) = all.get_mut(index as usize).and_then(Option::as_mut) else {
            return Ok(None);
        };
        loop {
            if keyed.version != keyed.group.version() {
                self.adopt(keyed)?;
            }
            if let Some(place) = keyed.arrive(slot) {
                drop(all);
                return Err(self.wait_for_slot(&place));
            }
            let number = keyed.owners[slot];
            if number == NOBODY {
                return Ok(None);
            }
            let number = usize::from(number);
            let owner = keyed.members[number];
            if owner.target.lane != NO_LANE {
                return Ok(Some(owner.target));
            }
            let member = keyed.group.look(|_, state| state.members[number].clone());
            if let Some(member) = member.filter(|member| member.serial == owner.serial) {
                let lane = self.lane_to(&member.place)?;
                keyed.members[number].target.lane = lane;
            }
            // Else it has left meanwhile, and the version says so.
        }
    }

    #[cold]
    fn wait_for_slot(&self, place: &Place) -> Error {
        // A batch that was open when its queue was closed may have ended unseen.
        place.finish(&self.broker);
        place.want_room(self.shard.as_ref());
        count(&self.counters.refused, 1);
        self.refused_by.set(place.id());
        Error::new(&Fault(
            Status::Again,
            "the key moves to another member of its group, and earlier messages of it are not \
             handled yet",
        ))
    }

    /// What a lane has got so far as a source of slots that move; 0 if all of it was handled.
    fn source_of(&self, lane: u32, group: &KeyGroup, transit: &mut Option<Transit>) -> Result<u16> {
        let mut lanes = self.lanes.borrow_mut();
        let Some(lane) = lanes.get(lane) else {
            return Ok(0);
        };
        let mark = lane.writer.mark();
        // In this order: what was handed over counts before it is past.
        if mark.is_past() && group.outstanding() == 0 {
            return Ok(0);
        }
        let place = lane.place.clone();
        let transit = match transit {
            Some(transit) => transit,
            None => transit.insert(Transit::new()?),
        };
        transit.add(Source { place, mark })
    }

    /// Takes over what has changed in each group: a lane must not go before it is marked.
    pub(crate) fn adopt_all(&self) -> Result<()> {
        let mut all = self.by_key.borrow_mut();
        for keyed in all.iter_mut().flatten() {
            if keyed.version != keyed.group.version() {
                self.adopt(keyed)?;
            }
        }
        // A group that lost its last member is forgotten, unless one that comes must wait.
        for keyed in all.iter_mut() {
            if keyed
                .as_ref()
                .is_some_and(|keyed| keyed.group.is_empty() && keyed.is_settled())
            {
                *keyed = None;
            }
        }
        Ok(())
    }

    /// True if a message by key may go to this lane.
    pub(crate) fn is_lane_by_key(&self, lane: u32) -> bool {
        let all = self.by_key.borrow();
        let mut owners = all.iter().flatten().flat_map(|keyed| &keyed.members);
        owners.any(|owner| owner.target.lane == lane)
    }

    /// A member whose queue is closed leaves now, whoever closes it may not have come so far.
    #[cold]
    fn leave_for(&self, index: u32, subscription: u32) {
        let all = self.by_key.borrow();
        if let Some(keyed) = all.get(index as usize).and_then(Option::as_ref) {
            keyed.group.leave(subscription);
        }
    }

    /// Takes the members over as they are now, and marks what the former owners of slots have got.
    fn adopt(&self, keyed: &mut Keyed) -> Result<()> {
        let group = keyed.group.clone();
        if let Some(transit) = &mut keyed.transit {
            transit.compact(&group);
        }
        group.look(|version, state| {
            let count = state.members.len().max(keyed.members.len());
            let more = count - keyed.members.len();
            keyed
                .members
                .try_reserve(more)
                .map_err(|_| Error::NO_MEMORY)?;
            keyed.members.resize(count, NO_OWNER);
            // By number of the former owner: its source, once it is known.
            let mut sources = Vec::new();
            sources
                .try_reserve_exact(count)
                .map_err(|_| Error::NO_MEMORY)?;
            sources.resize(count, None);
            for slot in 0..SLOTS {
                let Some(former) = keyed.members.get(usize::from(keyed.owners[slot])) else {
                    continue;
                };
                let stays = state.owner(slot).map(|owner| owner.serial) == Some(former.serial);
                if stays || former.target.lane == NO_LANE {
                    continue;
                }
                let number = usize::from(keyed.owners[slot]);
                let source = match sources[number] {
                    Some(source) => source,
                    None => self.source_of(former.target.lane, &group, &mut keyed.transit)?,
                };
                sources[number] = Some(source);
                if let Some(transit) = &mut keyed.transit
                    // One that moves again has got nothing since it first did.
                    && transit.from[slot] == 0
                {
                    transit.from[slot] = source;
                }
            }
            keyed.owners.copy_from_slice(state.shares.owners());
            for (number, owner) in keyed.members.iter_mut().enumerate() {
                let member = state.members.get(number).and_then(Option::as_ref);
                let serial = member.map_or(0, |member| member.serial);
                if owner.serial != serial {
                    let subscription = member.map_or(0, |member| member.id);
                    *owner = Owner {
                        serial,
                        target: LaneTarget {
                            lane: NO_LANE,
                            subscription,
                        },
                    };
                }
            }
            keyed.version = version;
            Ok(())
        })
    }
}

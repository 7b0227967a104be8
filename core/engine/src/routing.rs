//! How a writer finds its way: making routes, opening lanes, and dropping those no longer used.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_memory::LaneWriter;
use fastmq_memory::allocation::{try_box, try_bytes};
use fastmq_memory::snapshot::pin;
use fastmq_route::interest::Search;
use fastmq_route::shares::slot_of;

use crate::error::{Error, Result};
use crate::latest::{LatestTarget, add_latest};
use crate::link::Remote;
use crate::place::Place;
use crate::presence::{check_remote_subject, check_subject};
use crate::route::{Group, LaneTarget, Member, Route, Targets, add};
use crate::subscription::{Entry, Interested, Target};
use crate::writer::{Lane, Lanes, Writer};

/// Lanes that a writer may have before it looks for closed ones among them.
const LANES_CROWDED: usize = 64;

/// Lanes that are looked at one by one.
const LANES_FEW: usize = 4;

/// Adds a key-shared group, once however many members it has.
#[inline(never)]
fn add_keyed(targets: &mut Targets, keyed: u32, slot: usize) -> Result<()> {
    let mut many = std::mem::take(targets).into_many()?;
    if many.groups.iter().all(|group| group.keyed != Some(keyed)) {
        let group = Group {
            keyed: Some(keyed),
            slot,
            ..Group::new(b"")?
        };
        add(&mut many.groups, group)?;
    }
    *targets = Targets::Many(many);
    Ok(())
}

/// Adds one of several targets.
#[inline(never)]
fn add_member(targets: &mut Targets, interested: &Interested, member: Member) -> Result<()> {
    let group = interested.group();
    let mut many = std::mem::take(targets).into_many()?;
    if !group.is_empty() {
        let is_it = |other: &Group| other.keyed.is_none() && *other.name == *group;
        let at = many.groups.iter().position(is_it);
        let at = at.unwrap_or(many.groups.len());
        if at == many.groups.len() {
            add(&mut many.groups, Group::new(group)?)?;
        }
        let group = &mut many.groups[at];
        let weight = interested.weight();
        group.weights.add(weight).map_err(|_| Error::NO_MEMORY)?;
        add(&mut group.members, member)?;
    } else {
        match member {
            Member::Lane(target) => add(&mut many.plain, target)?,
            Member::Inline(handler) => add(&mut many.inline, handler)?,
        }
    }
    *targets = Targets::Many(many);
    Ok(())
}

impl Writer {
    /// Makes a route for a subject that missed, uses it, and keeps it if it is worth it.
    #[cold]
    #[inline(never)]
    pub(crate) fn with_new_route<R>(
        &self,
        hash: u64,
        subject: &[u8],
        use_targets: impl FnOnce(&Targets) -> Result<R>,
    ) -> Result<R> {
        self.sweep_if_crowded();
        {
            let pin = pin();
            // The lookup waits for memory; the checks do not.
            let search = self.broker.interest.search(hash, &pin);
            self.check_subject(subject)?;
            let is_kept = match self.routes.try_borrow_mut() {
                Ok(mut routes) => routes.knows(hash) || routes.admit(hash),
                Err(_) => true,
            };
            if !is_kept {
                let targets = self.resolve(search, subject)?;
                drop(pin);
                let _held = self.routes.try_borrow();
                return use_targets(&targets);
            }
        }
        let route = self.route_of(hash, subject)?;
        let result = {
            // Held as for a route in the cache: no lane goes while a handler runs in here.
            let _held = self.routes.try_borrow();
            use_targets(&route.targets)
        };
        match self.routes.try_borrow_mut() {
            Ok(mut routes) => {
                drop(routes.insert(hash, route));
                for (hash, route) in self.late_routes.borrow_mut().drain(..) {
                    drop(routes.insert(hash, route));
                }
            }
            // A handler inside an outer publish: the outermost puts it into the cache.
            Err(_) => {
                let mut late = self.late_routes.borrow_mut();
                if late.len() < 64 && late.try_reserve(1).is_ok() {
                    late.push((hash, route));
                }
            }
        }
        result
    }

    #[inline]
    fn check_subject(&self, subject: &[u8]) -> Result<()> {
        match self.broker.uplink {
            None => check_subject(subject),
            Some(_) => check_remote_subject(subject),
        }
    }

    pub(crate) fn make_route(&self, hash: u64, subject: &[u8]) -> Result<Route> {
        self.check_subject(subject)?;
        self.sweep_if_crowded();
        self.route_of(hash, subject)
    }

    /// The route of a checked subject.
    fn route_of(&self, hash: u64, subject: &[u8]) -> Result<Route> {
        // Before the lookup: a change meanwhile voids the route.
        let stamp = self.broker.interest.stamp(subject, hash);
        let pin = pin();
        let search = self.broker.interest.search(hash, &pin);
        Ok(Route {
            subject: try_bytes(subject)?,
            stamp,
            targets: self.resolve(search, subject)?,
        })
    }

    /// Ends the lookup of a subject and opens the lanes that are missing.
    #[inline]
    fn resolve(&self, search: Search<'_, Interested>, subject: &[u8]) -> Result<Targets> {
        if let Some(uplink) = &self.broker.uplink {
            return Ok(Targets::Remote(try_box(Remote::new(uplink.clone()))?));
        }
        let mut targets = Targets::Nobody;
        let mut result = Ok(());
        // No handler runs in here.
        search.visit(subject, |entry| {
            if result.is_ok() {
                result = self.add_target(&mut targets, entry, subject);
            }
        });
        result?;
        match targets {
            Targets::Many(many) => many.simplify(),
            few => Ok(few),
        }
    }

    /// Adds what a subscription wants to the targets of its subject.
    #[inline]
    fn add_target(&self, targets: &mut Targets, entry: &Entry, subject: &[u8]) -> Result<()> {
        if let Some(group) = entry.value().keyed() {
            let slot = slot_of(self.hash.hash(subject));
            return add_keyed(targets, self.keyed_index(group)?, slot);
        }
        let group = entry.value().group();
        let member = match entry.value().target() {
            Target::Queue(place) if place.is_latest() => {
                return add_latest(
                    targets,
                    LatestTarget::new(entry, place, subject, self.publisher())?,
                );
            }
            Target::Queue(place) => Member::Lane(LaneTarget {
                lane: self.lane_to(place)?,
                subscription: entry.id(),
            }),
            Target::Inline(handler) => Member::Inline(handler.clone()),
        };
        match (&*targets, member) {
            (Targets::Nobody, Member::Lane(target)) if group.is_empty() => {
                *targets = Targets::One(target);
            }
            (Targets::Nobody, Member::Inline(handler)) if group.is_empty() => {
                *targets = Targets::Inline(handler);
            }
            (_, member) => add_member(targets, entry.value(), member)?,
        }
        Ok(())
    }

    /// The index of this writer's lane into a queue.
    pub(crate) fn lane_to(&self, place: &Arc<Place>) -> Result<u32> {
        let mut lanes = self.lanes.borrow_mut();
        // Of a few lanes the right one is sooner seen than computed.
        let is_here = |lane: &Option<Lane>| {
            let lane = lane.as_ref();
            lane.is_some_and(|lane| Arc::ptr_eq(&lane.place, place))
        };
        if let Some(index) = lanes.slots.iter().take(LANES_FEW).position(is_here) {
            return Ok(index as u32);
        }
        if let Some(index) = lanes.index.get(&place.id()) {
            return Ok(*index);
        }
        lanes.index.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        // Answers have no subject: the label is that of the messages.
        let label = self.label.as_ref().filter(|_| !place.is_answers());
        let writer = LaneWriter::new(place.lanes.clone(), label);
        let lane = Some(Lane {
            writer,
            place: place.clone(),
            outlet: place.outlet.load(Ordering::Relaxed),
        });
        let index = match lanes.free.pop() {
            Some(index) => {
                lanes.slots[index as usize] = lane;
                index
            }
            None => {
                let count = lanes.slots.len() + 1;
                lanes.slots.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
                // So that a sweep needs no memory.
                let free = count - lanes.free.len();
                lanes.free.try_reserve(free).map_err(|_| Error::NO_MEMORY)?;
                lanes.slots.push(lane);
                count as u32 - 1
            }
        };
        lanes.index.insert(place.id(), index);
        Ok(index)
    }

    /// A writer that meets ever new queues, each for a short time, must not keep them all until
    /// the next sweep. Called without a pin: giving lanes back takes a while.
    pub(crate) fn sweep_if_crowded(&self) {
        let is_crowded = {
            let lanes = self.lanes.borrow();
            lanes.index.len() >= lanes.sweep_at.max(LANES_CROWDED)
        };
        // Inside a handler an outer publish may hold indices of lanes.
        if is_crowded && self.routes.try_borrow_mut().is_ok() {
            self.sweep();
            let mut lanes = self.lanes.borrow_mut();
            lanes.sweep_at = 2 * lanes.index.len();
        }
    }

    /// Drops all lanes.
    pub(crate) fn drop_lanes(&self) {
        let Ok(mut lanes) = self.lanes.try_borrow_mut() else {
            return;
        };
        let Lanes { slots, .. } = std::mem::take(&mut *lanes);
        drop(lanes);
        for lane in slots.into_iter().flatten() {
            self.drop_lane(lane);
        }
    }

    /// Drops a lane, and with it what a closed queue kept of it.
    fn drop_lane(&self, lane: Lane) {
        let Lane { writer, place, .. } = lane;
        drop(writer);
        if place.is_closed() {
            place.finish(&self.broker);
        }
    }

    /// Drops lanes to closed queues and gives idle lanes back.
    #[cold]
    pub(crate) fn sweep(&self) {
        // A route that is in use names lanes by their index: none may go to another queue.
        let Ok(mut routes) = self.routes.try_borrow_mut() else {
            return;
        };
        // Lanes that groups no longer send to are marked first; then they may go.
        if self.lanes.try_borrow_mut().is_err() || self.adopt_all().is_err() {
            return;
        }
        let Ok(mut lanes) = self.lanes.try_borrow_mut() else {
            return;
        };
        let lanes = &mut *lanes;
        for (index, slot) in lanes.slots.iter_mut().enumerate() {
            let Some(lane) = slot else { continue };
            if !lane.place.is_closed() {
                lane.writer.sweep();
                continue;
            }
            // Until its last subscription is gone, a route that names the lane may look current.
            if lane.place.subscriptions.load(Ordering::Acquire) > 0
                || self.is_lane_by_key(index as u32)
            {
                continue;
            }
            lanes.index.remove(&lane.place.id());
            if let Some(lane) = slot.take() {
                self.drop_lane(lane);
            }
            lanes.free.push(index as u32);
            for reply in &mut lanes.replies {
                if reply.1 == index as u32 {
                    *reply = (0, 0);
                }
            }
        }
        // A route that names a lane just freed is stale: its subscriptions are gone.
        let broker = &self.broker;
        routes.retain(|route| broker.interest.is_current(&route.stamp));
    }

    /// The queue that refuses a message with this subject now, to wait for its room.
    pub(crate) fn full_places(&self, subject: &[u8]) -> Result<Vec<Arc<Place>>> {
        let mut places = Vec::new();
        let mut result = Ok(());
        let hash = self.hash.hash(subject);
        let pin = pin();
        let search = self.broker.interest.search(hash, &pin);
        search.visit(subject, |entry| {
            if let Some(place) = entry.value().target().queue()
                && result.is_ok()
            {
                result = add(&mut places, place.clone());
            }
        });
        result.map(|()| places)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.drop_lanes();
        self.broker.retire_writer(&self.counters);
    }
}

//! How a writer finds its way: making routes, opening lanes, and dropping those no longer used.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_memory::LaneWriter;
use fastmq_route::check_subject;

use crate::error::{Error, Result};
use crate::place::Place;
use crate::route::{Group, LaneTarget, Many, Member, Route, Targets};
use crate::subscription::{Entry, Target};
use crate::writer::{Lane, Lanes, Writer};

/// Lanes that a writer may have before it looks for closed ones among them.
const LANES_CROWDED: usize = 64;

/// Adds to a list, or says that there is no memory.
fn add<T>(list: &mut Vec<T>, item: T) -> Result<()> {
    list.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
    list.push(item);
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
        check_subject(subject)?;
        let is_kept = match self.routes.try_borrow_mut() {
            Ok(mut routes) => routes.get_mut(hash, subject).is_some() || routes.admit(hash),
            Err(_) => true,
        };
        let (targets, stamp) = self.resolve(hash, subject)?;
        if !is_kept {
            let _held = self.routes.try_borrow();
            return use_targets(&targets);
        }
        let mut text = Vec::new();
        text.try_reserve_exact(subject.len())
            .map_err(|_| Error::NO_MEMORY)?;
        text.extend_from_slice(subject);
        let route = Route {
            subject: text.into_boxed_slice(),
            stamp,
            targets,
        };
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

    pub(crate) fn make_route(&self, hash: u64, subject: &[u8]) -> Result<Route> {
        check_subject(subject)?;
        let (targets, stamp) = self.resolve(hash, subject)?;
        Ok(Route {
            subject: Box::from(subject),
            stamp,
            targets,
        })
    }

    /// Looks the subject up and opens the lanes that are missing.
    pub(crate) fn resolve(
        &self,
        hash: u64,
        subject: &[u8],
    ) -> Result<(Targets, fastmq_route::Stamp)> {
        self.sweep_if_crowded();
        // Handlers do not run in here, so one list would do; it is short-lived all the same.
        let mut found: Vec<Entry> = Vec::new();
        let stamp = self
            .broker
            .interest
            .try_lookup(subject, hash, &mut found)
            .map_err(|_| Error::NO_MEMORY)?;
        if let [Entry(one)] = found.as_slice()
            && one.group.is_empty()
        {
            let targets = match &one.target {
                Target::Queue(place) => Targets::One(LaneTarget {
                    lane: self.lane_to(place)?,
                    subscription: one.id,
                }),
                Target::Inline(handler) => Targets::Inline(handler.clone()),
            };
            return Ok((targets, stamp));
        }
        let mut many = Many::default();
        for Entry(entry) in found {
            let member = match &entry.target {
                Target::Queue(place) => Member::Lane(LaneTarget {
                    lane: self.lane_to(place)?,
                    subscription: entry.id,
                }),
                Target::Inline(handler) => Member::Inline(handler.clone()),
            };
            if !entry.group.is_empty() {
                let at = many
                    .groups
                    .iter()
                    .position(|group| group.name == entry.group);
                let at = at.unwrap_or(many.groups.len());
                if at == many.groups.len() {
                    let group = Group {
                        name: entry.group.clone(),
                        members: Vec::new(),
                        run: RefCell::default(),
                    };
                    add(&mut many.groups, group)?;
                }
                add(&mut many.groups[at].members, member)?;
                continue;
            }
            match member {
                Member::Lane(target) => add(&mut many.plain, target)?,
                Member::Inline(handler) => add(&mut many.inline, handler)?,
            }
        }
        Ok((many.simplify(), stamp))
    }

    /// The index of this writer's lane into a queue.
    pub(crate) fn lane_to(&self, place: &Arc<Place>) -> Result<u32> {
        let mut lanes = self.lanes.borrow_mut();
        if let Some(index) = lanes.index.get(&place.id()) {
            return Ok(*index);
        }
        lanes.index.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        // Answers have no subject: the label is that of the messages.
        let label = self.label.as_deref().filter(|_| !place.is_answers());
        let writer = LaneWriter::new(place.lanes.clone(), label);
        let lane = Some(Lane {
            writer,
            place: place.clone(),
        });
        let index = match lanes.free.pop() {
            Some(index) => {
                lanes.slots[index as usize] = lane;
                index
            }
            None => {
                lanes.slots.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
                lanes.slots.push(lane);
                lanes.slots.len() as u32 - 1
            }
        };
        lanes.index.insert(place.id(), index);
        Ok(index)
    }

    /// A writer that meets ever new queues, each for a short time, must not keep them all until
    /// the next sweep.
    fn sweep_if_crowded(&self) {
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
        let Lane { writer, place } = lane;
        drop(writer);
        if place.is_closed() {
            place.finish(&self.broker);
        }
    }

    /// Drops lanes to closed queues and gives idle lanes back.
    #[cold]
    pub(crate) fn sweep(&self) {
        // A route that is in use names lanes by their index: none may go to another queue.
        let (Ok(mut routes), Ok(mut lanes)) =
            (self.routes.try_borrow_mut(), self.lanes.try_borrow_mut())
        else {
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
            if lane.place.subscriptions.load(Ordering::Acquire) > 0 {
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
    pub(crate) fn full_places(&self, subject: &[u8]) -> Vec<Arc<Place>> {
        let mut found = Vec::new();
        let hash = self.hash.hash(subject);
        if self
            .broker
            .interest
            .try_lookup(subject, hash, &mut found)
            .is_err()
        {
            return Vec::new();
        }
        let places = found
            .into_iter()
            .filter_map(|Entry(entry)| match &entry.target {
                Target::Queue(place) => Some(place.clone()),
                Target::Inline(_) => None,
            });
        places.collect()
    }
}

//! A writer: one publisher handle, one requester, or one thread that publishes by subject.
//!
//! It owns a route cache and its lanes into the queues it writes to, and is used by one thread at
//! a time. Handlers that run inside a publish may publish through the same writer again: nothing
//! is borrowed exclusively while a handler runs.
//!
//! Hot path: hash, probe, compare, one generation load, one record, one fence and one load.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastmq_memory::block::BlockError;
use fastmq_memory::record::flag;
use fastmq_memory::view::{Numbers, Optional, View, view_flag};
use fastmq_memory::{Draft, Kind, LaneWriter, Policy, Pushed, Refused};
use fastmq_route::cache::RouteCache;
use fastmq_route::{SubjectHash, check_subject};

use crate::broker::Broker;
use crate::call::{self, NotCalled};
use crate::error::{Error, Result, Status};
use crate::place::Place;
use crate::route::{Group, LaneTarget, Many, Member, Route, Targets};
use crate::subscription::{Entry, Handler, Target};

/// Payloads above this go into a block: a ring stays small enough for the cache.
pub const BLOCK_BYTES: usize = 8 << 10;
/// With more targets than this, a payload above `FAN_OUT_BYTES` is written once into a block.
const FAN_OUT_TARGETS: usize = 16;
const FAN_OUT_BYTES: usize = 256;
/// Publishes between two looks for lanes that are closed or idle.
const SWEEP_EVERY: u32 = 8192;

/// A message to send. Fields that are empty are absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// Where to.
    pub subject: &'a [u8],
    /// What.
    pub payload: &'a [u8],
    /// Where an answer may be published.
    pub reply_to: &'a [u8],
    /// What keeps messages of one kind in order in key-shared groups.
    pub key: &'a [u8],
    /// Encoded headers.
    pub headers: &'a [u8],
    /// How long it is worth delivering, in nanoseconds; 0: for ever.
    pub ttl_ns: u64,
}

/// Counters of one writer; written by its thread only.
#[derive(Debug, Default)]
pub struct WriterCounters {
    pub(crate) published: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) answers: AtomicU64,
    pub(crate) inline: AtomicU64,
}

#[inline(always)]
fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

struct Lane {
    writer: LaneWriter,
    place: Arc<Place>,
}

#[derive(Default)]
struct Lanes {
    slots: Vec<Option<Lane>>,
    index: HashMap<u64, u32>,
    free: Vec<u32>,
    /// By the index of a requester: its id and the lane to it.
    replies: Vec<(u32, u32)>,
}

impl Lanes {
    #[inline(always)]
    fn get(&mut self, index: u32) -> Option<&mut Lane> {
        self.slots.get_mut(index as usize)?.as_mut()
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A responder has it.
    Sent,
    /// Nobody answers this subject.
    NoResponder,
    /// No responder had room.
    Busy,
    /// The responder's queue was closed meanwhile.
    Cancelled,
}

/// How a responder that runs on this thread is asked.
pub(crate) enum Asking<'a> {
    /// Its answer travels through the requester's queue.
    Later,
    /// Its answer, if it comes at once, is handed to this closure as (status, payload, headers).
    Now(&'a mut dyn FnMut(u32, &[u8], &[u8])),
}

/// A writer.
pub struct Writer {
    broker: Arc<Broker>,
    hash: SubjectHash,
    routes: RefCell<RouteCache<Route>>,
    /// Routes made while an outer publish looked at the cache.
    late_routes: RefCell<Vec<(u64, Route)>>,
    lanes: RefCell<Lanes>,
    random: Cell<u64>,
    until_sweep: Cell<u32>,
    counters: Arc<WriterCounters>,
    /// The only subject, for publisher handles.
    label: Option<Box<[u8]>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn new(broker: &Arc<Broker>, label: Option<&[u8]>) -> Self {
        let counters = Arc::new(WriterCounters::default());
        broker.register_writer(&counters);
        Self {
            hash: broker.interest.hasher(),
            routes: RefCell::new(RouteCache::new()),
            late_routes: RefCell::default(),
            lanes: RefCell::default(),
            random: Cell::new(broker.driver.random() | 1),
            until_sweep: Cell::new(SWEEP_EVERY),
            counters,
            label: label.map(Box::from),
            broker: broker.clone(),
        }
    }

    /// The broker.
    #[inline(always)]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Publishes one message to every subscription whose pattern matches, and to one member of each group.
    ///
    /// Never blocks. AGAIN: a backpressure queue is full, and nobody got the message.
    #[inline(always)]
    pub fn publish(&self, message: &Message<'_>) -> Result<()> {
        let draft = self.draft(message)?;
        let hash = self.hash.hash(message.subject);
        if let Ok(routes) = self.routes.try_borrow()
            && let Some(route) = routes.get(hash, message.subject)
            && self.is_current(route)
        {
            return self.send(&route.targets, message, &draft);
        }
        self.with_new_route(hash, message.subject, |targets| {
            self.send(targets, message, &draft)
        })
    }

    /// Publishes along a route that the caller keeps, renewing it when it is stale.
    #[inline(always)]
    pub(crate) fn publish_by(
        &self,
        route: &mut Option<Route>,
        message: &Message<'_>,
        sequence: u64,
    ) -> Result<()> {
        let mut draft = self.draft(message)?;
        draft.sequence = sequence;
        draft.flags |= flag::SEQUENCE;
        let route = self.renewed(route, message.subject)?;
        self.send(&route.targets, message, &draft)
    }

    /// The caller's route, made new if it is stale.
    #[inline(always)]
    pub(crate) fn renewed<'r>(
        &self,
        route: &'r mut Option<Route>,
        subject: &[u8],
    ) -> Result<&'r Route> {
        let is_current = matches!(route, Some(route) if self.is_current(route));
        if !is_current {
            *route = None;
            *route = Some(self.make_route(self.hash.hash(subject), subject)?);
        }
        route.as_ref().ok_or(Error::NO_MEMORY)
    }

    /// Publishes several payloads by a kept route; returns how many were accepted, and why not more.
    #[inline(always)]
    pub(crate) fn publish_many_by<'m>(
        &self,
        route: &mut Option<Route>,
        subject: &[u8],
        sequence: &mut u64,
        payloads: impl Iterator<Item = &'m [u8]>,
    ) -> (usize, Result<()>) {
        let mut accepted = 0;
        let route = match self.renewed(route, subject) {
            Ok(route) => route,
            Err(error) => return (0, Err(error)),
        };
        let mut result = Ok(());
        if let Targets::One(target) = &route.targets {
            let mut lanes = self.lanes.borrow_mut();
            let Some(lane) = lanes.get(target.lane) else {
                return (0, Err(Error::new(Status::Closed, "the queue is closed")));
            };
            let mut payloads = payloads;
            while let Some(payload) = payloads.next() {
                let message = Message {
                    subject,
                    payload,
                    ..Message::default()
                };
                if payload.len() > BLOCK_BYTES {
                    drop(lanes);
                    let mut one = || self.publish_numbered(route, &message, sequence);
                    result = one();
                    accepted += usize::from(result.is_ok());
                    if result.is_err() {
                        return (accepted, result);
                    }
                    let (more, rest) = self.publish_each(route, subject, sequence, payloads);
                    return (accepted + more, rest);
                }
                let mut draft = match self.draft(&message) {
                    Ok(draft) => draft,
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                };
                draft.sequence = *sequence + 1;
                draft.flags |= flag::SEQUENCE;
                match lane.writer.push_quiet(&draft, target.subscription) {
                    Ok(Pushed::Written) => {}
                    Ok(Pushed::Dropped) => self.count_dropped(target.subscription),
                    Err(refused) => {
                        result = Err(self.refuse(refused, &lane.place));
                        break;
                    }
                }
                *sequence += 1;
                accepted += 1;
            }
            if lane.writer.publish().is_err() && result.is_ok() {
                result = Err(Error::new(Status::Closed, "the queue is closed"));
            }
            let has_evicted = lane.writer.has_evicted();
            let index = target.lane;
            drop(lanes);
            if has_evicted {
                self.report_evicted(index);
            }
            count(&self.counters.published, accepted as u64);
            return (accepted, result);
        }
        self.publish_each(route, subject, sequence, payloads)
    }

    fn publish_each<'m>(
        &self,
        route: &Route,
        subject: &[u8],
        sequence: &mut u64,
        payloads: impl Iterator<Item = &'m [u8]>,
    ) -> (usize, Result<()>) {
        let mut accepted = 0;
        for payload in payloads {
            let message = Message {
                subject,
                payload,
                ..Message::default()
            };
            if let Err(error) = self.publish_numbered(route, &message, sequence) {
                return (accepted, Err(error));
            }
            accepted += 1;
        }
        (accepted, Ok(()))
    }

    fn publish_numbered(
        &self,
        route: &Route,
        message: &Message<'_>,
        sequence: &mut u64,
    ) -> Result<()> {
        let mut draft = self.draft(message)?;
        draft.sequence = *sequence + 1;
        draft.flags |= flag::SEQUENCE;
        self.send(&route.targets, message, &draft)?;
        *sequence += 1;
        Ok(())
    }

    /// Checks the limits and makes the draft that all targets share.
    #[inline(always)]
    pub(crate) fn draft<'m>(&self, message: &Message<'m>) -> Result<Draft<'m>> {
        let mut draft = Draft {
            kind: Kind::Message,
            subject: message.subject,
            payload: message.payload,
            ..Draft::default()
        };
        if message.payload.len() as u64 > self.broker.options.payload_max {
            return Err(self.too_large(message.payload.len()));
        }
        let others = message.reply_to.len() | message.key.len() | message.headers.len();
        if others != 0 || message.ttl_ns != 0 {
            self.draft_rare(message, &mut draft)?;
        }
        if !self.broker.is_open() {
            return Err(self.closed());
        }
        Ok(draft)
    }

    #[cold]
    fn too_large(&self, size: usize) -> Error {
        let max = self.broker.options.payload_max;
        let text = format!("the payload has {size} bytes; the client's payload_max is {max}");
        Error::with(Status::TooLarge, text)
    }

    #[cold]
    fn closed(&self) -> Error {
        // The lanes are of no more use; their memory is.
        if self.broker.is_closed()
            && let Ok(mut lanes) = self.lanes.try_borrow_mut()
        {
            *lanes = Lanes::default();
        }
        self.broker.closed_error()
    }

    #[inline(never)]
    fn draft_rare<'m>(&self, message: &Message<'m>, draft: &mut Draft<'m>) -> Result<()> {
        if !message.reply_to.is_empty() {
            check_subject(message.reply_to)?;
        }
        if message.key.len() > u16::MAX as usize {
            return Err(Error::new(
                Status::TooLarge,
                "the key has more than 65,535 bytes",
            ));
        }
        if message.headers.len() > crate::headers::HEADERS_BYTES_MAX {
            return Err(Error::new(
                Status::TooLarge,
                "the headers have more than 65,536 bytes",
            ));
        }
        if message.reply_to.len() + message.key.len() + message.headers.len() > 0 {
            draft.flags |= flag::SIZES;
            draft.reply_to = message.reply_to;
            draft.key = message.key;
            draft.headers = message.headers;
        }
        if message.ttl_ns > 0 {
            draft.flags |= flag::EXPIRY;
            draft.expiry = self
                .broker
                .driver
                .monotonic_ns()
                .saturating_add(message.ttl_ns);
        }
        Ok(())
    }

    #[inline(always)]
    fn is_current(&self, route: &Route) -> bool {
        let mut stamp = route.stamp.get();
        let is_current = self.broker.interest.is_current(&mut stamp);
        route.stamp.set(stamp);
        is_current
    }

    /// Sends along a route, whole or not at all.
    #[inline(always)]
    fn send(&self, targets: &Targets, message: &Message<'_>, draft: &Draft<'_>) -> Result<()> {
        match targets {
            Targets::One(target) if draft.payload.len() <= BLOCK_BYTES => {
                let mut lanes = self.lanes.borrow_mut();
                let Some(lane) = lanes.get(target.lane) else {
                    return Ok(());
                };
                match lane.writer.push(draft, target.subscription) {
                    Ok(Pushed::Written) => {}
                    Ok(Pushed::Dropped) => self.count_dropped(target.subscription),
                    // A queue that closes is no longer a target.
                    Err(Refused::Closed) => {}
                    Err(refused) => return Err(self.refuse(refused, &lane.place)),
                }
                if lane.writer.has_evicted() {
                    drop(lanes);
                    self.report_evicted(target.lane);
                }
            }
            Targets::Inline(handler) => self.call_inline(handler, message, draft)?,
            Targets::Nobody => {}
            _ => return self.send_slow(targets, message, draft),
        }
        count(&self.counters.published, 1);
        self.tick();
        Ok(())
    }

    #[inline(always)]
    fn tick(&self) {
        let left = self.until_sweep.get() - 1;
        self.until_sweep.set(left);
        if left == 0 {
            self.sweep();
        }
    }

    #[inline(never)]
    fn send_slow(&self, targets: &Targets, message: &Message<'_>, draft: &Draft<'_>) -> Result<()> {
        match targets {
            Targets::Group(group) if draft.payload.len() <= BLOCK_BYTES => {
                self.send_to_group(group, message, draft, Attempt::Push)?;
            }
            Targets::Many(many) => self.send_many(many, message, draft)?,
            Targets::One(target) => {
                let many = Many {
                    plain: vec![*target],
                    ..Many::default()
                };
                self.send_many(&many, message, draft)?;
            }
            Targets::Group(group) => {
                self.send_blocks(&[], std::slice::from_ref(group), message, draft)?
            }
            Targets::Inline(_) | Targets::Nobody => {}
        }
        count(&self.counters.published, 1);
        self.tick();
        Ok(())
    }

    fn send_many(&self, many: &Many, message: &Message<'_>, draft: &Draft<'_>) -> Result<()> {
        let size = draft.payload.len();
        let targets = many.plain.len() + many.groups.len();
        if targets > 0
            && (size > BLOCK_BYTES || (targets > FAN_OUT_TARGETS && size > FAN_OUT_BYTES))
        {
            self.send_blocks(&many.plain, &many.groups, message, draft)?;
        } else {
            self.send_all(&many.plain, &many.groups, message, draft)?;
        }
        for handler in &many.inline {
            // The others have the message: one that nests too deep is left out.
            let _ = self.call_inline(handler, message, draft);
        }
        Ok(())
    }

    /// Writes the payload once and sends descriptors.
    fn send_blocks<G: std::borrow::Borrow<Group>>(
        &self,
        plain: &[LaneTarget],
        groups: &[G],
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<()> {
        let references = (plain.len() + groups.len()) as u32;
        let blocks = &self.broker.blocks;
        let descriptor = blocks
            .write(draft.payload, references)
            .map_err(|error| match error {
                BlockError::OverBudget => Error::OVER_BUDGET,
                _ => Error::NO_MEMORY,
            })?;
        let bytes = descriptor.to_bytes();
        let mut by_block = *draft;
        by_block.payload = &bytes;
        by_block.flags |= flag::BLOCK;
        match self.send_all(plain, groups, message, &by_block) {
            Ok(written) => {
                blocks.release(&descriptor, references - written);
                Ok(())
            }
            Err(error) => {
                blocks.release(&descriptor, references);
                Err(error)
            }
        }
    }

    /// Reserves room in every backpressure target, then writes to all. Returns how many targets
    /// hold the record now.
    fn send_all<G: std::borrow::Borrow<Group>>(
        &self,
        plain: &[LaneTarget],
        groups: &[G],
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<u32> {
        let mut chosen = Vec::new();
        chosen
            .try_reserve_exact(groups.len())
            .map_err(|_| Error::NO_MEMORY)?;
        let single = plain.len() + groups.len() == 1;
        if !single {
            let mut reserved = 0;
            let mut failure = None;
            for run in plain.chunk_by(|a, b| a.lane == b.lane) {
                if let Err(error) = self.reserve(run[0].lane, draft, run.len() as u64) {
                    failure = Some(error);
                    break;
                }
                reserved += run.len();
            }
            if failure.is_none() {
                for group in groups {
                    match self.send_to_group(group.borrow(), message, draft, Attempt::Reserve) {
                        Ok(member) => chosen.push(member),
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                    }
                }
            }
            if let Some(error) = failure {
                for target in &plain[..reserved] {
                    self.cancel(target.lane);
                }
                for (group, member) in groups.iter().zip(&chosen) {
                    if let Some(Member::Lane(target)) = group.borrow().members.get(*member) {
                        self.cancel(target.lane);
                    }
                }
                return Err(error);
            }
        }
        let mut written = 0;
        for target in plain {
            written += u32::from(self.push_promised(*target, draft, single)?);
        }
        for (index, group) in groups.iter().enumerate() {
            let group = group.borrow();
            if single {
                self.send_to_group(group, message, draft, Attempt::Push)?;
                // An inline member saw the bytes at once and holds nothing.
                let member = group.run.borrow().chosen();
                written += u32::from(matches!(group.members.get(member), Some(Member::Lane(_))));
                continue;
            }
            match chosen
                .get(index)
                .and_then(|member| group.members.get(*member))
            {
                Some(Member::Lane(target)) => {
                    written += u32::from(self.push_promised(*target, draft, false)?);
                }
                Some(Member::Inline(handler)) => {
                    let _ = self.call_inline(handler, message, draft);
                }
                None => {}
            }
        }
        Ok(written)
    }

    fn reserve(&self, lane: u32, draft: &Draft<'_>, copies: u64) -> Result<()> {
        let mut lanes = self.lanes.borrow_mut();
        let Some(lane) = lanes.get(lane) else {
            return Ok(());
        };
        if lane.writer.queue().policy() != Policy::Backpressure {
            return Ok(());
        }
        match lane.writer.reserve(draft, copies) {
            Ok(()) | Err(Refused::Closed) => Ok(()),
            Err(refused) => Err(self.refuse(refused, &lane.place)),
        }
    }

    fn cancel(&self, lane: u32) {
        if let Some(lane) = self.lanes.borrow_mut().get(lane) {
            lane.writer.cancel();
        }
    }

    /// Writes to one target. `is_single`: nothing was reserved, and a refusal is the caller's.
    /// Returns whether the queue has the record.
    fn push_promised(
        &self,
        target: LaneTarget,
        draft: &Draft<'_>,
        is_single: bool,
    ) -> Result<bool> {
        let mut lanes = self.lanes.borrow_mut();
        let Some(lane) = lanes.get(target.lane) else {
            return Ok(false);
        };
        let is_promised = !is_single && lane.writer.queue().policy() == Policy::Backpressure;
        let pushed = if is_promised {
            lane.writer.push_reserved(draft, target.subscription)
        } else {
            lane.writer.push(draft, target.subscription)
        };
        let has_evicted = lane.writer.has_evicted();
        let result = match pushed {
            Ok(Pushed::Written) => Ok(true),
            Ok(Pushed::Dropped) => {
                self.count_dropped(target.subscription);
                Ok(false)
            }
            Err(Refused::Closed) => Ok(false),
            Err(refused) if is_single => Err(self.refuse(refused, &lane.place)),
            // An evicting queue without memory for its first lane: dropped, and counted.
            Err(_) => {
                self.count_dropped(target.subscription);
                Ok(false)
            }
        };
        drop(lanes);
        if has_evicted {
            self.report_evicted(target.lane);
        }
        result
    }

    /// Chooses the member that takes the message, and sends or reserves.
    fn send_to_group(
        &self,
        group: &Group,
        message: &Message<'_>,
        draft: &Draft<'_>,
        attempt: Attempt,
    ) -> Result<usize> {
        let count = group.members.len();
        let first = {
            let lanes = self.lanes.borrow();
            let load = |member: usize| match &group.members[member] {
                Member::Lane(target) => lanes.slots[target.lane as usize]
                    .as_ref()
                    .map_or(u64::MAX, |lane| lane.writer.load()),
                Member::Inline(_) => 0,
            };
            group
                .run
                .borrow_mut()
                .next(count, 0, load, || self.random())
        };
        let mut refusal = Refused::Closed;
        for step in 0..count {
            let member = (first + step) % count;
            let target = match &group.members[member] {
                Member::Lane(target) => *target,
                Member::Inline(handler) => {
                    if attempt == Attempt::Push {
                        group.run.borrow_mut().choose(member);
                        self.call_inline(handler, message, draft)?;
                    }
                    return Ok(member);
                }
            };
            let mut lanes = self.lanes.borrow_mut();
            let Some(lane) = lanes.get(target.lane) else {
                continue;
            };
            let outcome = match attempt {
                Attempt::Push => lane.writer.push(draft, target.subscription),
                Attempt::Reserve if lane.writer.queue().policy() == Policy::Backpressure => {
                    lane.writer.reserve(draft, 1).map(|()| Pushed::Written)
                }
                Attempt::Reserve => Ok(Pushed::Written),
            };
            let has_evicted = lane.writer.has_evicted();
            drop(lanes);
            if has_evicted {
                self.report_evicted(target.lane);
            }
            match outcome {
                Ok(pushed) => {
                    if pushed == Pushed::Dropped {
                        self.count_dropped(target.subscription);
                    }
                    if step > 0 {
                        group.run.borrow_mut().choose(member);
                    }
                    return Ok(member);
                }
                Err(Refused::Closed) => {}
                Err(refused) => refusal = refused,
            }
        }
        group.run.borrow_mut().end_run();
        if refusal == Refused::Closed {
            // Every member is closing: as if nobody had subscribed.
            return Ok(count);
        }
        for member in &group.members {
            if let Member::Lane(target) = member
                && let Some(lane) = self.lanes.borrow_mut().get(target.lane)
            {
                lane.place.want_room();
            }
        }
        Err(self.count_refused(refusal))
    }

    #[cold]
    fn refuse(&self, refused: Refused, place: &Place) -> Error {
        place.want_room();
        self.count_refused(refused)
    }

    #[cold]
    fn count_refused(&self, refused: Refused) -> Error {
        count(&self.counters.refused, 1);
        refused.into()
    }

    #[cold]
    fn count_dropped(&self, subscription: u32) {
        if let Some(slot) = self.broker.slots.get(subscription)
            && slot.is(subscription)
        {
            slot.count_dropped();
        }
    }

    /// Counts what a push has evicted, and tells the askers of evicted requests.
    #[cold]
    fn report_evicted(&self, lane: u32) {
        let evicted = match self.lanes.borrow_mut().get(lane) {
            Some(lane) => lane.writer.take_evicted(),
            None => return,
        };
        for record in evicted {
            self.count_dropped(record.subscription);
            if record.token != 0 {
                let _ = self.reply(record.token, Status::Busy as u32, &[], &[], false);
            }
        }
    }

    #[inline(always)]
    fn call_inline(
        &self,
        handler: &Handler,
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<()> {
        let numbers = Numbers {
            sequence: draft.sequence,
            subscription_id: handler.id,
            tag: handler.tag,
            ..Numbers::default()
        };
        let called = with_view(message, numbers, |view| call::call(handler, view));
        self.count_inline(handler, called)
    }

    #[inline(always)]
    fn count_inline(
        &self,
        handler: &Handler,
        called: std::result::Result<(), NotCalled>,
    ) -> Result<()> {
        match called {
            Ok(()) => {
                count(&self.counters.inline, 1);
                if let Some(slot) = self.broker.slots.get(handler.id) {
                    slot.count_inline();
                }
                Ok(())
            }
            Err(NotCalled::Inactive) => Ok(()),
            Err(NotCalled::TooDeep) => Err(too_deep()),
        }
    }

    #[inline(always)]
    fn random(&self) -> u64 {
        // SplitMix64's increment and mixer: good enough to choose between two members.
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 27)
    }

    /// Makes a route for a subject that missed, uses it, and keeps it if it is worth it.
    #[cold]
    #[inline(never)]
    fn with_new_route<R>(
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
            return use_targets(&targets);
        }
        let mut text = Vec::new();
        text.try_reserve_exact(subject.len())
            .map_err(|_| Error::NO_MEMORY)?;
        text.extend_from_slice(subject);
        let route = Route {
            subject: text.into_boxed_slice(),
            stamp: Cell::new(stamp),
            targets,
        };
        let result = use_targets(&route.targets);
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

    fn make_route(&self, hash: u64, subject: &[u8]) -> Result<Route> {
        check_subject(subject)?;
        let (targets, stamp) = self.resolve(hash, subject)?;
        Ok(Route {
            subject: Box::from(subject),
            stamp: Cell::new(stamp),
            targets,
        })
    }

    /// Looks the subject up and opens the lanes that are missing.
    fn resolve(&self, hash: u64, subject: &[u8]) -> Result<(Targets, fastmq_route::Stamp)> {
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
                match at {
                    Some(at) => many.groups[at].members.push(member),
                    None => many.groups.push(Group {
                        name: entry.group.clone(),
                        members: vec![member],
                        run: RefCell::default(),
                    }),
                }
                continue;
            }
            match member {
                Member::Lane(target) => many.plain.push(target),
                Member::Inline(handler) => many.inline.push(handler),
            }
        }
        Ok((many.simplify(), stamp))
    }

    /// The index of this writer's lane into a queue.
    fn lane_to(&self, place: &Arc<Place>) -> Result<u32> {
        let mut lanes = self.lanes.borrow_mut();
        if let Some(index) = lanes.index.get(&place.id()) {
            return Ok(*index);
        }
        lanes.index.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        let writer = LaneWriter::new(place.lanes.clone(), self.label.as_deref());
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

    /// Drops lanes to closed queues and gives idle lanes back.
    #[cold]
    fn sweep(&self) {
        self.until_sweep.set(SWEEP_EVERY);
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
            lanes.index.remove(&lane.place.id());
            *slot = None;
            lanes.free.push(index as u32);
            for reply in &mut lanes.replies {
                if reply.1 == index as u32 {
                    *reply = (0, 0);
                }
            }
        }
        // A route that names a lane just freed is stale: its subscriptions are gone.
        let broker = &self.broker;
        if let Ok(mut routes) = self.routes.try_borrow_mut() {
            routes.retain(|route| broker.interest.is_current(route.stamp.get_mut()));
        }
    }

    /// Sends a request whose answer will carry `token`.
    #[inline(always)]
    pub(crate) fn request(
        &self,
        message: &Message<'_>,
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let draft = self.request_draft(message, token)?;
        let hash = self.hash.hash(message.subject);
        if let Ok(routes) = self.routes.try_borrow()
            && let Some(route) = routes.get(hash, message.subject)
            && self.is_current(route)
        {
            return self.send_request(&route.targets, message, &draft, asking);
        }
        self.with_new_route(hash, message.subject, |targets| {
            self.send_request(targets, message, &draft, asking)
        })
    }

    /// Sends a request along a kept route.
    #[inline(always)]
    pub(crate) fn request_by(
        &self,
        route: &mut Option<Route>,
        message: &Message<'_>,
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let draft = self.request_draft(message, token)?;
        let route = self.renewed(route, message.subject)?;
        self.send_request(&route.targets, message, &draft, asking)
    }

    #[inline(always)]
    fn request_draft<'m>(&self, message: &Message<'m>, token: u64) -> Result<Draft<'m>> {
        let mut draft = self.draft(message)?;
        draft.kind = Kind::Request;
        draft.token = token;
        draft.flags |= flag::TOKEN;
        Ok(draft)
    }

    #[inline(always)]
    fn send_request(
        &self,
        targets: &Targets,
        message: &Message<'_>,
        draft: &Draft<'_>,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        count(&self.counters.requests, 1);
        self.tick();
        match targets {
            Targets::One(target) if draft.payload.len() <= BLOCK_BYTES => {
                let mut lanes = self.lanes.borrow_mut();
                let Some(lane) = lanes.get(target.lane) else {
                    return Ok(Fate::NoResponder);
                };
                match lane.writer.push(draft, target.subscription) {
                    Ok(_) => Ok(Fate::Sent),
                    Err(refused) => fate_of(refused),
                }
            }
            Targets::Inline(handler) => self.ask_inline(handler, message, draft, asking),
            Targets::Nobody => Ok(Fate::NoResponder),
            _ => self.send_request_slow(targets, message, draft, asking),
        }
    }

    #[inline(never)]
    fn send_request_slow(
        &self,
        targets: &Targets,
        message: &Message<'_>,
        draft: &Draft<'_>,
        mut asking: Asking<'_>,
    ) -> Result<Fate> {
        let (plain, groups, inline): (&[LaneTarget], &[Group], &[Arc<Handler>]) = match targets {
            Targets::One(target) => (std::slice::from_ref(target), &[], &[]),
            Targets::Group(group) => (&[], std::slice::from_ref(&**group), &[]),
            Targets::Many(many) => (&many.plain, &many.groups, &many.inline),
            Targets::Inline(_) | Targets::Nobody => (&[], &[], &[]),
        };
        // Each responder that has room gets the request, and the first answer counts.
        let mut fate = Fate::NoResponder;
        let mut note = |outcome: Result<Fate>| -> Result<()> {
            match outcome {
                Ok(Fate::Sent) => fate = Fate::Sent,
                Ok(other) if fate != Fate::Sent => fate = other,
                Ok(_) => {}
                Err(error) if fate != Fate::Sent => return Err(error),
                Err(_) => {}
            }
            Ok(())
        };
        for target in plain {
            let outcome = self.send_request_to(&[*target], &[], message, draft);
            note(outcome)?;
        }
        for group in groups {
            let member = match group.members.iter().find_map(|member| match member {
                Member::Inline(handler) => Some(handler),
                Member::Lane(_) => None,
            }) {
                // Local handlers come first: they have no queue that could be loaded.
                Some(handler) => {
                    let again = reborrow(&mut asking);
                    self.ask_inline(handler, message, draft, again)
                }
                None => self.send_request_to(&[], std::slice::from_ref(group), message, draft),
            };
            note(member)?;
        }
        for handler in inline {
            let again = reborrow(&mut asking);
            note(self.ask_inline(handler, message, draft, again))?;
        }
        Ok(fate)
    }

    fn send_request_to(
        &self,
        plain: &[LaneTarget],
        groups: &[Group],
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<Fate> {
        let sent = if draft.payload.len() > BLOCK_BYTES {
            self.send_blocks(plain, groups, message, draft).map(|()| 1)
        } else {
            self.send_all(plain, groups, message, draft)
        };
        match sent {
            Ok(0) => Ok(Fate::Cancelled),
            Ok(_) => Ok(Fate::Sent),
            Err(error) if error.status() == Status::Again => Ok(Fate::Busy),
            Err(error) => Err(error),
        }
    }

    #[inline(always)]
    fn ask_inline(
        &self,
        handler: &Handler,
        message: &Message<'_>,
        draft: &Draft<'_>,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let numbers = Numbers {
            token: draft.token,
            subscription_id: handler.id,
            flags: view_flag::REQUEST,
            tag: handler.tag,
            ..Numbers::default()
        };
        let called = with_view(message, numbers, |view| match asking {
            Asking::Later => call::call(handler, view),
            Asking::Now(use_answer) => {
                call::ask(handler, draft.token, view, |asked, payload, headers| {
                    if let call::Asked::Answered { status } = asked {
                        use_answer(status, payload, headers);
                    }
                })
            }
        });
        if called == Err(NotCalled::Inactive) {
            return Ok(Fate::Cancelled);
        }
        self.count_inline(handler, called).map(|()| Fate::Sent)
    }

    /// Answers a request. AGAIN: the asker's queue has no room; NOT_FOUND: the asker is gone.
    #[inline(always)]
    pub fn reply(
        &self,
        token: u64,
        status: u32,
        payload: &[u8],
        headers: &[u8],
        has_more: bool,
    ) -> Result<()> {
        if payload.len() as u64 > self.broker.options.payload_max {
            return Err(self.too_large(payload.len()));
        }
        match call::answer_in_place(token, status, payload, headers) {
            Ok(true) => {
                count(&self.counters.answers, 1);
                return Ok(());
            }
            Ok(false) => {}
            Err(()) => return Err(Error::NO_MEMORY),
        }
        let requester = (token >> 32) as u32;
        let index = requester & crate::request::REQUESTER_INDEX_MASK;
        let mut draft = Draft {
            kind: Kind::Reply,
            flags: flag::TOKEN,
            status: status as u16,
            token,
            payload,
            ..Draft::default()
        };
        if !headers.is_empty() {
            draft.flags |= flag::SIZES;
            draft.headers = headers;
        }
        if has_more {
            draft.flags |= flag::MORE;
        }
        let mut lanes = self.lanes.borrow_mut();
        if let Some((id, lane)) = lanes.replies.get(index as usize).copied()
            && id == requester
            && id != 0
            && payload.len() <= BLOCK_BYTES
            && let Some(lane) = lanes.get(lane)
        {
            return match lane.writer.push(&draft, 0) {
                Ok(_) => {
                    count(&self.counters.answers, 1);
                    Ok(())
                }
                Err(refused) => Err(reply_refused(refused)),
            };
        }
        drop(lanes);
        self.reply_slow(requester, &draft)
    }

    #[cold]
    #[inline(never)]
    fn reply_slow(&self, requester: u32, draft: &Draft<'_>) -> Result<()> {
        let place = self.broker.requester_place(requester)?;
        let lane = self.lane_to(&place)?;
        let index = (requester & crate::request::REQUESTER_INDEX_MASK) as usize;
        {
            let mut lanes = self.lanes.borrow_mut();
            let missing = (index + 1).saturating_sub(lanes.replies.len());
            lanes
                .replies
                .try_reserve(missing)
                .map_err(|_| Error::NO_MEMORY)?;
            if missing > 0 {
                lanes.replies.resize(index + 1, (0, 0));
            }
            lanes.replies[index] = (requester, lane);
        }
        let target = LaneTarget {
            lane,
            subscription: 0,
        };
        let message = Message::default();
        let sent = if draft.payload.len() > BLOCK_BYTES {
            self.send_blocks::<Group>(&[target], &[], &message, draft)
                .map(|()| 1)
        } else {
            self.send_all::<Group>(&[target], &[], &message, draft)
        };
        match sent {
            Ok(0) => Err(reply_refused(Refused::Closed)),
            Ok(_) => {
                count(&self.counters.answers, 1);
                Ok(())
            }
            Err(error) if error.status() == Status::Again => Err(reply_refused(Refused::Full)),
            Err(error) => Err(error),
        }
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

impl Drop for Writer {
    fn drop(&mut self) {
        self.broker.retire_writer(&self.counters);
    }
}

/// Whether a group's choice is written at once or only promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Push,
    Reserve,
}

fn reborrow<'a>(asking: &'a mut Asking<'_>) -> Asking<'a> {
    match asking {
        Asking::Later => Asking::Later,
        Asking::Now(use_answer) => Asking::Now(&mut **use_answer),
    }
}

#[cold]
fn too_deep() -> Error {
    let text = "inline handlers are nested 16 deep; break the cycle or use a queue";
    Error::new(Status::Misuse, text)
}

#[cold]
fn fate_of(refused: Refused) -> Result<Fate> {
    match refused {
        Refused::Full => Ok(Fate::Busy),
        Refused::Closed => Ok(Fate::Cancelled),
        other => Err(other.into()),
    }
}

#[cold]
fn reply_refused(refused: Refused) -> Error {
    match refused {
        Refused::Full => Error::new(
            Status::Again,
            "the asker's queue of answers is full; answer again when it has received",
        ),
        Refused::Closed => Error::new(Status::NotFound, "the asker of this request is gone"),
        other => other.into(),
    }
}

/// Gives a view of a message that is not in a lane.
#[inline(always)]
fn with_view<R>(message: &Message<'_>, numbers: Numbers, use_view: impl FnOnce(&View) -> R) -> R {
    let others = message.reply_to.len() | message.key.len() | message.headers.len();
    let optional = (others != 0).then_some(Optional {
        reply_to: message.reply_to,
        key: message.key,
        headers: message.headers,
    });
    View::with_borrowed(
        message.subject,
        message.payload,
        numbers,
        optional,
        use_view,
    )
}

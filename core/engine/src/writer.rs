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

use fastmq_memory::record::flag;
use fastmq_memory::view::{Numbers, Optional, View};
use fastmq_memory::{Draft, Kind, Label, LaneWriter, Plain, Pushed, Refused, Tried};
use fastmq_route::cache::RouteCache;
use fastmq_route::{SubjectHash, check_subject};

use crate::broker::Broker;
use crate::by_key::Keyed;
use crate::call::{self, NotCalled};
use crate::ended::DropEnded;
use crate::error::{Error, Fault, Result, Status, too_deep};
pub use crate::message::Message;
use crate::message::optional_of;
use crate::place::Place;
use crate::route::{LaneTarget, Route, Targets};
pub use crate::statistics::WriterCounters;
use crate::subscription::Handler;

/// Payloads above this go into a block: a ring stays small enough for the cache.
pub const BLOCK_BYTES: usize = 8 << 10;
/// Publishes between two looks for lanes that are closed or idle.
const SWEEP_EVERY: u64 = 8192;

#[inline(always)]
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// A lane into one queue.
pub(crate) struct Lane {
    pub(crate) writer: LaneWriter,
    pub(crate) place: Arc<Place>,
    /// [`Place::outlet`], at hand.
    pub(crate) outlet: u64,
}

/// All lanes of a writer.
#[derive(Default)]
pub(crate) struct Lanes {
    pub(crate) slots: Vec<Option<Lane>>,
    pub(crate) index: HashMap<u64, u32>,
    pub(crate) free: Vec<u32>,
    /// By the index of a requester: its id and the lane to it.
    pub(crate) replies: Vec<(u32, u32)>,
    /// How many lanes there may be before the closed ones among them are looked for.
    pub(crate) sweep_at: usize,
}

impl Lanes {
    #[inline(always)]
    pub(crate) fn get(&mut self, index: u32) -> Option<&mut Lane> {
        self.slots.get_mut(index as usize)?.as_mut()
    }
}

/// A writer.
pub struct Writer {
    pub(crate) broker: Arc<Broker>,
    pub(crate) hash: SubjectHash,
    pub(crate) routes: RefCell<RouteCache<Route>>,
    /// Routes made while an outer publish looked at the cache.
    pub(crate) late_routes: RefCell<Vec<(u64, Route)>>,
    pub(crate) lanes: RefCell<Lanes>,
    /// Its view of the key-shared groups that it has met.
    pub(crate) by_key: RefCell<Vec<Option<Box<Keyed>>>>,
    pub(crate) random: Cell<u64>,
    /// The queue that last refused a message for want of room; 0: none, or the members of a group.
    pub(crate) refused_by: Cell<u64>,
    /// Of a server's shard or a client's link: what a queue that refuses a message calls when it
    /// has room.
    pub(crate) shard: Option<std::task::Waker>,
    pub(crate) counters: Arc<WriterCounters>,
    /// Largest payload of a usual message.
    pub(crate) usual_bytes: usize,
    /// Where the payloads of usual messages end; 0: none is usual, as each has its time.
    usual_end: usize,
    /// The only subject, for publisher handles.
    pub(crate) label: Option<Label>,
    _ended: DropEnded,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn new(broker: &Arc<Broker>, label: Option<Label>) -> Result<Self> {
        let counters = broker.new_counters()?;
        let usual_bytes = (broker.options.payload_max as usize).min(BLOCK_BYTES);
        let has_time = broker.stamper.is_on();
        Ok(Self {
            usual_bytes,
            usual_end: if has_time { 0 } else { usual_bytes + 1 },
            hash: broker.interest.hasher(),
            routes: RefCell::new(RouteCache::new()),
            late_routes: RefCell::default(),
            lanes: RefCell::default(),
            by_key: RefCell::default(),
            random: Cell::new(broker.driver.random() | 1),
            refused_by: Cell::new(0),
            shard: None,
            counters,
            label,
            broker: broker.clone(),
            _ended: DropEnded,
        })
    }

    /// Names the publisher that counts this writer's sequences; 0: none does.
    #[inline(always)]
    pub(crate) fn publisher(&self) -> u64 {
        self.label.as_ref().map_or(0, |label| label.publisher)
    }

    /// The broker.
    #[inline(always)]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Publishes a payload to every subscription whose pattern matches, and to one member of each
    /// group.
    ///
    /// Never blocks. AGAIN: a backpressure queue is full, and nobody got the message.
    #[inline(always)]
    pub fn publish(&self, subject: &[u8], payload: &[u8]) -> Result<()> {
        if self.is_usual(payload) {
            let hash = self.hash.hash(subject);
            if let Ok(routes) = self.routes.try_borrow()
                && let Some(route) = routes.get(hash, subject)
                && self.is_current(route)
            {
                return self.send_usual(&route.targets, subject, payload, 0, 0);
            }
        }
        self.publish_message(&Message {
            subject,
            payload,
            ..Message::default()
        })
    }

    /// Publishes a message that may have optional fields; else as [`Writer::publish`].
    #[inline(never)]
    pub fn publish_message(&self, message: &Message<'_>) -> Result<()> {
        let draft = self.draft(message)?;
        let hash = self.hash.hash(message.subject);
        if message.keep_last {
            return self.publish_kept(hash, message, &draft);
        }
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

    /// True for a payload that a plain record can carry, while the client is open.
    #[inline(always)]
    pub(crate) fn is_usual(&self, payload: &[u8]) -> bool {
        payload.len() < self.usual_end && self.broker.is_open()
    }

    /// Sends a usual message along a route.
    #[inline(always)]
    pub(crate) fn send_usual(
        &self,
        targets: &Targets,
        subject: &[u8],
        payload: &[u8],
        flags: u16,
        sequence: u64,
    ) -> Result<()> {
        let Targets::One(target) = targets else {
            return self.send_usual_slow(targets, subject, payload, flags, sequence);
        };
        let plain = Plain {
            kind: Kind::Message,
            flags,
            status: 0,
            word: sequence,
            subject,
            payload,
        };
        match self.try_plain(*target, &plain) {
            Tried::Written => {}
            Tried::Unnoticed => self.notice(*target)?,
            Tried::Not => {
                return self.send_usual_slow(targets, subject, payload, flags, sequence);
            }
        }
        self.count_call(&self.counters.published);
        Ok(())
    }

    /// Writes a plain message to one queue if that needs nothing unusual.
    #[inline(always)]
    pub(crate) fn try_plain(&self, target: LaneTarget, plain: &Plain<'_>) -> Tried {
        let mut lanes = self.lanes.borrow_mut();
        match lanes.get(target.lane) {
            Some(lane) => lane.writer.try_plain(plain, target.subscription),
            None => Tried::Not,
        }
    }

    /// After `try_plain`: wakes the reader of the queue.
    #[cold]
    #[inline(never)]
    pub(crate) fn notice(&self, target: LaneTarget) -> Result<()> {
        let mut lanes = self.lanes.borrow_mut();
        let Some(lane) = lanes.get(target.lane) else {
            return Ok(());
        };
        let pushed = lane.writer.notify();
        drop(lanes);
        if pushed == Ok(Pushed::Written) {
            return Ok(());
        }
        self.note_push(target, pushed)
    }

    #[inline(never)]
    pub(crate) fn send_usual_slow(
        &self,
        targets: &Targets,
        subject: &[u8],
        payload: &[u8],
        flags: u16,
        sequence: u64,
    ) -> Result<()> {
        if let Targets::Inline(handler) = targets {
            let numbers = Numbers {
                sequence,
                publisher: self.publisher(),
                ..Numbers::default()
            };
            self.call_inline(handler, subject, payload, None, numbers)?;
            self.count_call(&self.counters.published);
            return Ok(());
        }
        if let Targets::Remote(remote) = targets
            && remote.publish_usual(payload, sequence, self.publisher())
        {
            self.count_call(&self.counters.published);
            return Ok(());
        }
        if let Targets::Latest(target) = targets {
            return self.put_usual(target, payload, flags, sequence);
        }
        if let Targets::Many(many) = targets
            && self.send_wide(many, subject, payload, flags, sequence)
        {
            self.count_call(&self.counters.published);
            return Ok(());
        }
        let message = Message {
            subject,
            payload,
            ..Message::default()
        };
        let mut draft = self.draft(&message)?;
        draft.sequence = sequence;
        draft.flags |= flags;
        self.send(targets, &message, &draft)
    }

    /// Publishes along a route that the caller keeps, renewing it when it is stale.
    #[inline(always)]
    pub(crate) fn publish_by(
        &self,
        route: &mut Option<Route>,
        subject: &[u8],
        payload: &[u8],
        sequence: u64,
    ) -> Result<()> {
        let route = self.renewed(route, subject)?;
        if self.is_usual(payload) {
            return self.send_usual(&route.targets, subject, payload, flag::SEQUENCE, sequence);
        }
        self.send_numbered(
            route,
            &Message {
                subject,
                payload,
                ..Message::default()
            },
            sequence,
        )
    }

    /// Sends a message with a sequence along a route.
    #[inline(never)]
    pub(crate) fn send_numbered(
        &self,
        route: &Route,
        message: &Message<'_>,
        sequence: u64,
    ) -> Result<()> {
        let mut draft = self.draft(message)?;
        draft.sequence = sequence;
        draft.flags |= flag::SEQUENCE;
        if message.keep_last {
            return self.send_kept(Some(route), message, &draft);
        }
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
            self.renew(route, subject)?;
        }
        route.as_ref().ok_or(Error::NO_MEMORY)
    }

    #[cold]
    pub(crate) fn renew(&self, route: &mut Option<Route>, subject: &[u8]) -> Result<()> {
        *route = None;
        *route = Some(self.make_route(self.hash.hash(subject), subject)?);
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
        if message.has_more() || message.ttl_ns != 0 || self.usual_end == 0 {
            self.draft_rare(message, &mut draft)?;
        }
        if !self.broker.is_open() {
            return Err(self.closed());
        }
        Ok(draft)
    }

    #[cold]
    pub(crate) fn too_large(&self, size: usize) -> Error {
        self.broker.too_large(size)
    }

    #[cold]
    pub(crate) fn closed(&self) -> Error {
        // The lanes are of no more use; their memory is.
        if self.broker.is_closed() {
            self.drop_lanes();
        }
        self.broker.closed_error()
    }

    #[inline(never)]
    pub(crate) fn draft_rare<'m>(
        &self,
        message: &Message<'m>,
        draft: &mut Draft<'m>,
    ) -> Result<()> {
        if !message.reply_to.is_empty() {
            check_subject(message.reply_to)?;
        }
        if message.key.len() > u16::MAX as usize {
            return Err(Error::new(&Fault(
                Status::TooLarge,
                "the key has more than 65,535 bytes",
            )));
        }
        if message.headers.len() > crate::headers::HEADERS_BYTES_MAX {
            return Err(Error::new(&Fault(
                Status::TooLarge,
                "the headers have more than 65,536 bytes",
            )));
        }
        if message.reply_to.len() + message.key.len() + message.headers.len() > 0 {
            draft.flags |= flag::SIZES;
            draft.reply_to = message.reply_to;
            draft.key = message.key;
            draft.headers = message.headers;
        }
        if self.usual_end == 0 {
            draft.flags |= flag::TIMESTAMP;
            draft.timestamp = self.broker.stamp_ns();
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
    pub(crate) fn is_current(&self, route: &Route) -> bool {
        self.broker.interest.is_current(&route.stamp)
    }

    /// Sends along a route, whole or not at all.
    #[inline(never)]
    pub(crate) fn send(
        &self,
        targets: &Targets,
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<()> {
        match targets {
            Targets::One(target) if draft.payload.len() <= BLOCK_BYTES => {
                let mut lanes = self.lanes.borrow_mut();
                let Some(lane) = lanes.get(target.lane) else {
                    return Ok(());
                };
                let pushed = lane.writer.push(draft, target.subscription);
                drop(lanes);
                if pushed == Err(Refused::TooLarge) {
                    return self.send_slow(targets, message, draft);
                }
                self.note_push(*target, pushed)?;
            }
            Targets::Inline(handler) => self.call_message(handler, message, draft)?,
            Targets::Nobody => {}
            _ => return self.send_slow(targets, message, draft),
        }
        self.count_call(&self.counters.published);
        Ok(())
    }

    /// Counts a publish or a request; now and then it looks for lanes to give back.
    #[inline(always)]
    pub(crate) fn count_call(&self, counter: &AtomicU64) {
        let calls = counter.load(Ordering::Relaxed) + 1;
        counter.store(calls, Ordering::Relaxed);
        if calls.is_multiple_of(SWEEP_EVERY) {
            self.sweep();
        }
    }

    /// As [`count_call`](Writer::count_call), several.
    pub(crate) fn count_calls(&self, counter: &AtomicU64, by: u64) {
        let before = counter.load(Ordering::Relaxed);
        let calls = before + by;
        counter.store(calls, Ordering::Relaxed);
        if calls / SWEEP_EVERY != before / SWEEP_EVERY {
            self.sweep();
        }
    }

    /// Calls an inline handler with a message that may have optional fields.
    pub(crate) fn call_message(
        &self,
        handler: &Handler,
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<()> {
        let numbers = Numbers {
            sequence: draft.sequence,
            publisher: match draft.publisher {
                0 => self.publisher(),
                of_another => of_another,
            },
            timestamp_ns: draft.timestamp,
            ..Numbers::default()
        };
        let (subject, payload) = (message.subject, message.payload);
        let optional = Some(optional_of(message));
        self.call_inline(handler, subject, payload, optional, numbers)
    }

    #[inline(always)]
    pub(crate) fn call_inline(
        &self,
        handler: &Handler,
        subject: &[u8],
        payload: &[u8],
        optional: Option<Optional<'_>>,
        mut numbers: Numbers,
    ) -> Result<()> {
        numbers.subscription_id = handler.id;
        numbers.tag = handler.tag;
        let called = View::with_borrowed(subject, payload, numbers, optional, |view| {
            call::call(handler, view)
        });
        self.count_inline(called)
    }

    #[inline(always)]
    pub(crate) fn count_inline(&self, called: std::result::Result<(), NotCalled>) -> Result<()> {
        match called {
            Ok(()) => {
                count(&self.counters.inline, 1);
                Ok(())
            }
            Err(NotCalled::Inactive) => Ok(()),
            Err(NotCalled::TooDeep) => Err(too_deep()),
            Err(NotCalled::NoMemory) => Err(Error::NO_MEMORY),
        }
    }
}

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
use fastmq_memory::view::{Numbers, Optional, View, view_flag};
use fastmq_memory::{Draft, Kind, LaneWriter, Plain, Pushed, Refused};
use fastmq_route::cache::RouteCache;
use fastmq_route::{SubjectHash, check_subject};

use crate::broker::Broker;
use crate::call::{self, Calls, NotCalled};
use crate::error::{Error, Result, Status};
use crate::place::Place;
use crate::route::{LaneTarget, Route, Targets};
use crate::subscription::Handler;

/// Payloads above this go into a block: a ring stays small enough for the cache.
pub const BLOCK_BYTES: usize = 8 << 10;
/// Publishes between two looks for lanes that are closed or idle.
pub(crate) const SWEEP_EVERY: u32 = 8192;

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
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// A lane into one queue.
pub(crate) struct Lane {
    pub(crate) writer: LaneWriter,
    pub(crate) place: Arc<Place>,
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

/// What came of asking a responder on this thread.
pub(crate) enum Here<R> {
    /// It answered.
    Answer(R),
    /// It has the request; its answer may come later.
    Pending,
}

/// How a responder that runs on this thread is asked.
pub(crate) enum Asking<'a> {
    /// Its answer travels through the requester's queue.
    Later,
    /// Its answer, if it comes at once, is handed to this closure as (status, payload, headers).
    Now(&'a Calls, &'a mut dyn FnMut(u32, &[u8], &[u8])),
}

/// A writer.
pub struct Writer {
    pub(crate) broker: Arc<Broker>,
    pub(crate) hash: SubjectHash,
    pub(crate) routes: RefCell<RouteCache<Route>>,
    /// Routes made while an outer publish looked at the cache.
    pub(crate) late_routes: RefCell<Vec<(u64, Route)>>,
    pub(crate) lanes: RefCell<Lanes>,
    pub(crate) random: Cell<u64>,
    pub(crate) until_sweep: Cell<u32>,
    pub(crate) counters: Arc<WriterCounters>,
    /// Largest payload of a usual message.
    usual_bytes: usize,
    /// The only subject, for publisher handles.
    pub(crate) label: Option<Box<[u8]>>,
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
        let usual_bytes = (broker.options.payload_max as usize).min(BLOCK_BYTES);
        Self {
            usual_bytes,
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
    fn is_usual(&self, payload: &[u8]) -> bool {
        payload.len() <= self.usual_bytes && self.broker.is_open()
    }

    /// Sends a usual message along a route.
    #[inline(always)]
    fn send_usual(
        &self,
        targets: &Targets,
        subject: &[u8],
        payload: &[u8],
        flags: u16,
        sequence: u64,
    ) -> Result<()> {
        match targets {
            Targets::One(target) => {
                let plain = Plain {
                    kind: Kind::Message,
                    flags,
                    status: 0,
                    word: sequence,
                    subject,
                    payload,
                };
                let mut lanes = self.lanes.borrow_mut();
                let Some(lane) = lanes.get(target.lane) else {
                    return Ok(());
                };
                let pushed = lane.writer.push_plain(&plain, target.subscription);
                if pushed != Ok(Pushed::Written) || lane.writer.has_evicted() {
                    drop(lanes);
                    self.note_push(*target, pushed)?;
                }
            }
            Targets::Inline(handler) => {
                self.call_inline(handler, subject, payload, None, sequence)?;
            }
            Targets::Nobody => {}
            Targets::Group(_) | Targets::Many(_) => {
                return self.send_usual_slow(targets, subject, payload, flags, sequence);
            }
        }
        count(&self.counters.published, 1);
        self.tick();
        Ok(())
    }

    #[inline(never)]
    fn send_usual_slow(
        &self,
        targets: &Targets,
        subject: &[u8],
        payload: &[u8],
        flags: u16,
        sequence: u64,
    ) -> Result<()> {
        let message = Message {
            subject,
            payload,
            ..Message::default()
        };
        let mut draft = self.draft(&message)?;
        draft.sequence = sequence;
        draft.flags |= flags;
        self.send_slow(targets, &message, &draft)
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
    fn renew(&self, route: &mut Option<Route>, subject: &[u8]) -> Result<()> {
        *route = None;
        *route = Some(self.make_route(self.hash.hash(subject), subject)?);
        Ok(())
    }

    /// Publishes several payloads by a kept route; returns how many were accepted, and why not more.
    #[inline(always)]
    pub(crate) fn publish_many_by<'m>(
        &self,
        route: &mut Option<Route>,
        subject: &[u8],
        sequence: &mut u64,
        mut payloads: impl Iterator<Item = &'m [u8]>,
    ) -> (usize, Result<()>) {
        let route = match self.renewed(route, subject) {
            Ok(route) => route,
            Err(error) => return (0, Err(error)),
        };
        let mut accepted = 0;
        while let Some(payload) = payloads.next() {
            // A run of usual messages for one queue becomes visible at once.
            let mut unusual = payload;
            if let Targets::One(target) = &route.targets
                && self.broker.is_open()
            {
                let (count, stopped) =
                    self.publish_run(*target, subject, sequence, payload, &mut payloads);
                accepted += count;
                match stopped {
                    Ok(None) => break,
                    Ok(Some(payload)) => unusual = payload,
                    Err(error) => return (accepted, Err(error)),
                }
            }
            let message = Message {
                subject,
                payload: unusual,
                ..Message::default()
            };
            if let Err(error) = self.send_numbered(route, &message, *sequence + 1) {
                return (accepted, Err(error));
            }
            *sequence += 1;
            accepted += 1;
        }
        (accepted, Ok(()))
    }

    /// Writes usual messages to one queue and publishes them together. Returns how many, and the
    /// first payload that is not usual, if one stopped it.
    #[inline(always)]
    fn publish_run<'m>(
        &self,
        target: LaneTarget,
        subject: &[u8],
        sequence: &mut u64,
        first: &'m [u8],
        payloads: &mut impl Iterator<Item = &'m [u8]>,
    ) -> (usize, Result<Option<&'m [u8]>>) {
        let mut lanes = self.lanes.borrow_mut();
        let Some(lane) = lanes.get(target.lane) else {
            return (0, Err(Error::new(Status::Closed, &"the queue is closed")));
        };
        let mut accepted = 0;
        let mut next = Some(first);
        let mut pushed = Ok(Pushed::Written);
        while let Some(payload) = next {
            if payload.len() > self.usual_bytes {
                break;
            }
            let plain = Plain {
                kind: Kind::Message,
                flags: flag::SEQUENCE,
                status: 0,
                word: *sequence + 1,
                subject,
                payload,
            };
            pushed = lane.writer.push_plain_quiet(&plain, target.subscription);
            match pushed {
                Ok(Pushed::Written) => {}
                Ok(Pushed::Dropped) => self.count_dropped(target.subscription),
                Err(_) => break,
            }
            *sequence += 1;
            accepted += 1;
            next = payloads.next();
        }
        let published = lane.writer.publish();
        let has_evicted = lane.writer.has_evicted();
        drop(lanes);
        count(&self.counters.published, accepted as u64);
        if has_evicted {
            self.report_evicted(target.lane);
        }
        if let Err(refused) = pushed.map(|_| ()).and(published) {
            if refused == Refused::Closed {
                return (
                    accepted,
                    Err(Error::new(Status::Closed, &"the queue is closed")),
                );
            }
            let result = self.note_push(target, Err(refused));
            return (accepted, result.map(|()| None));
        }
        (accepted, Ok(next))
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
    pub(crate) fn too_large(&self, size: usize) -> Error {
        let max = self.broker.options.payload_max;
        let text = format!("the payload has {size} bytes; the client's payload_max is {max}");
        Error::with(Status::TooLarge, text)
    }

    #[cold]
    pub(crate) fn closed(&self) -> Error {
        // The lanes are of no more use; their memory is.
        if self.broker.is_closed()
            && let Ok(mut lanes) = self.lanes.try_borrow_mut()
        {
            *lanes = Lanes::default();
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
            return Err(Error::new(
                Status::TooLarge,
                &"the key has more than 65,535 bytes",
            ));
        }
        if message.headers.len() > crate::headers::HEADERS_BYTES_MAX {
            return Err(Error::new(
                Status::TooLarge,
                &"the headers have more than 65,536 bytes",
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
    pub(crate) fn is_current(&self, route: &Route) -> bool {
        let mut stamp = route.stamp.get();
        let is_current = self.broker.interest.is_current(&mut stamp);
        route.stamp.set(stamp);
        is_current
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
                self.note_push(*target, pushed)?;
            }
            Targets::Inline(handler) => self.call_message(handler, message, draft.sequence)?,
            Targets::Nobody => {}
            _ => return self.send_slow(targets, message, draft),
        }
        count(&self.counters.published, 1);
        self.tick();
        Ok(())
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
            Err(refused) => Err(self.refuse(refused, &place)),
        }
    }

    #[inline(always)]
    pub(crate) fn tick(&self) {
        let left = self.until_sweep.get() - 1;
        self.until_sweep.set(left);
        if left == 0 {
            self.sweep();
        }
    }

    /// Sends a request whose answer will carry `token`.
    #[inline(always)]
    pub(crate) fn request(
        &self,
        subject: &[u8],
        payload: &[u8],
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        if self.is_usual(payload) {
            let hash = self.hash.hash(subject);
            if let Ok(routes) = self.routes.try_borrow()
                && let Some(route) = routes.get(hash, subject)
                && self.is_current(route)
            {
                return self.send_usual_request(&route.targets, subject, payload, token, asking);
            }
        }
        self.request_message(
            &Message {
                subject,
                payload,
                ..Message::default()
            },
            token,
            asking,
        )
    }

    /// Sends a request that may have optional fields.
    #[inline(never)]
    pub(crate) fn request_message(
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

    /// Sends a request along a kept route, renewing it when it is stale.
    #[inline(always)]
    pub(crate) fn request_by(
        &self,
        route: &mut Option<Route>,
        subject: &[u8],
        payload: &[u8],
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let route = self.renewed(route, subject)?;
        if self.is_usual(payload) {
            return self.send_usual_request(&route.targets, subject, payload, token, asking);
        }
        self.request_along(
            route,
            &Message {
                subject,
                payload,
                ..Message::default()
            },
            token,
            asking,
        )
    }

    /// Sends a request that may have optional fields along a route.
    #[inline(never)]
    pub(crate) fn request_along(
        &self,
        route: &Route,
        message: &Message<'_>,
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let draft = self.request_draft(message, token)?;
        self.send_request(&route.targets, message, &draft, asking)
    }

    #[inline(always)]
    fn send_usual_request(
        &self,
        targets: &Targets,
        subject: &[u8],
        payload: &[u8],
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let fate = match targets {
            Targets::One(target) => {
                let plain = Plain {
                    kind: Kind::Request,
                    flags: flag::TOKEN,
                    status: 0,
                    word: token,
                    subject,
                    payload,
                };
                let mut lanes = self.lanes.borrow_mut();
                let Some(lane) = lanes.get(target.lane) else {
                    return Ok(Fate::NoResponder);
                };
                match lane.writer.push_plain(&plain, target.subscription) {
                    Ok(_) => Ok(Fate::Sent),
                    Err(refused) => fate_of(refused),
                }
            }
            Targets::Inline(handler) => {
                self.ask_inline(handler, subject, payload, None, token, asking)
            }
            Targets::Nobody => Ok(Fate::NoResponder),
            Targets::Group(_) | Targets::Many(_) => {
                let message = Message {
                    subject,
                    payload,
                    ..Message::default()
                };
                let draft = self.request_draft(&message, token)?;
                return self.send_request(targets, &message, &draft, asking);
            }
        };
        count(&self.counters.requests, 1);
        self.tick();
        fate
    }

    #[inline(always)]
    pub(crate) fn request_draft<'m>(&self, message: &Message<'m>, token: u64) -> Result<Draft<'m>> {
        let mut draft = self.draft(message)?;
        draft.kind = Kind::Request;
        draft.token = token;
        draft.flags |= flag::TOKEN;
        Ok(draft)
    }

    #[inline(never)]
    pub(crate) fn send_request(
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
            Targets::Inline(handler) => self.ask_message(handler, message, draft.token, asking),
            Targets::Nobody => Ok(Fate::NoResponder),
            _ => self.send_request_slow(targets, message, draft, asking),
        }
    }

    #[inline(always)]
    fn ask_inline(
        &self,
        handler: &Handler,
        subject: &[u8],
        payload: &[u8],
        optional: Option<Optional<'_>>,
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let numbers = Numbers {
            token,
            subscription_id: handler.id,
            flags: view_flag::REQUEST,
            tag: handler.tag,
            ..Numbers::default()
        };
        let called =
            View::with_borrowed(subject, payload, numbers, optional, |view| match asking {
                Asking::Later => call::call(handler, view),
                Asking::Now(calls, use_answer) => {
                    calls.ask(handler, token, view).map(|is_answered| {
                        if is_answered {
                            calls.use_answer(use_answer);
                        }
                    })
                }
            });
        if called == Err(NotCalled::Inactive) {
            return Ok(Fate::Cancelled);
        }
        self.count_inline(called).map(|()| Fate::Sent)
    }

    /// Asks the subject's responder on this thread, if there is exactly one and it is inline: the
    /// shortest way. `None`: ask by `request`.
    #[inline(always)]
    pub(crate) fn ask_here<R>(
        &self,
        calls: &Calls,
        targets: &Targets,
        subject: &[u8],
        payload: &[u8],
        token: u64,
        use_answer: impl FnOnce(u32, &[u8], &[u8]) -> R,
    ) -> Option<Result<Here<R>>> {
        let Targets::Inline(handler) = targets else {
            return None;
        };
        let numbers = Numbers {
            token,
            subscription_id: handler.id,
            flags: view_flag::REQUEST,
            tag: handler.tag,
            ..Numbers::default()
        };
        let asked = View::with_borrowed(subject, payload, numbers, None, |view| {
            calls.ask(handler, token, view)
        });
        count(&self.counters.requests, 1);
        self.tick();
        match asked {
            Ok(true) => {
                count(&self.counters.inline, 1);
                Some(Ok(Here::Answer(calls.use_answer(use_answer))))
            }
            Ok(false) => {
                count(&self.counters.inline, 1);
                Some(Ok(Here::Pending))
            }
            Err(NotCalled::Inactive) => None,
            Err(NotCalled::TooDeep) => Some(Err(too_deep())),
        }
    }

    /// As `ask_here` for a subject in the cache.
    #[inline(always)]
    pub(crate) fn ask_here_by_subject<R>(
        &self,
        calls: &Calls,
        subject: &[u8],
        payload: &[u8],
        token: u64,
        use_answer: impl FnOnce(u32, &[u8], &[u8]) -> R,
    ) -> Option<Result<Here<R>>> {
        if !self.is_usual(payload) {
            return None;
        }
        let hash = self.hash.hash(subject);
        let routes = self.routes.try_borrow().ok()?;
        let route = routes.get(hash, subject)?;
        if !self.is_current(route) {
            return None;
        }
        self.ask_here(calls, &route.targets, subject, payload, token, use_answer)
    }

    /// As `ask_here` along a kept route.
    #[inline(always)]
    pub(crate) fn ask_here_by_route<R>(
        &self,
        calls: &Calls,
        route: &Option<Route>,
        (subject, payload): (&[u8], &[u8]),
        token: u64,
        use_answer: impl FnOnce(u32, &[u8], &[u8]) -> R,
    ) -> Option<Result<Here<R>>> {
        let route = route.as_ref()?;
        if !self.is_usual(payload) || !self.is_current(route) {
            return None;
        }
        self.ask_here(calls, &route.targets, subject, payload, token, use_answer)
    }

    /// Asks an inline responder with a message that may have optional fields.
    pub(crate) fn ask_message(
        &self,
        handler: &Handler,
        message: &Message<'_>,
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let optional = Some(optional_of(message));
        self.ask_inline(
            handler,
            message.subject,
            message.payload,
            optional,
            token,
            asking,
        )
    }

    /// Calls an inline handler with a message that may have optional fields.
    pub(crate) fn call_message(
        &self,
        handler: &Handler,
        message: &Message<'_>,
        sequence: u64,
    ) -> Result<()> {
        let optional = Some(optional_of(message));
        self.call_inline(
            handler,
            message.subject,
            message.payload,
            optional,
            sequence,
        )
    }

    #[inline(always)]
    fn call_inline(
        &self,
        handler: &Handler,
        subject: &[u8],
        payload: &[u8],
        optional: Option<Optional<'_>>,
        sequence: u64,
    ) -> Result<()> {
        let numbers = Numbers {
            sequence,
            subscription_id: handler.id,
            tag: handler.tag,
            ..Numbers::default()
        };
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
        }
    }

    /// Answers a request. AGAIN: the asker's queue has no room; NOT_FOUND: the asker is gone.
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
        if headers.is_empty() && !has_more {
            return self.reply_away(token, status, payload);
        }
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
        self.reply_slow((token >> 32) as u32, &draft)
    }

    /// Sends an answer without headers to an asker elsewhere.
    #[inline(always)]
    pub(crate) fn reply_away(&self, token: u64, status: u32, payload: &[u8]) -> Result<()> {
        let requester = (token >> 32) as u32;
        if payload.len() <= self.usual_bytes {
            let mut lanes = self.lanes.borrow_mut();
            let index = requester & crate::request::REQUESTER_INDEX_MASK;
            if let Some((id, lane)) = lanes.replies.get(index as usize).copied()
                && id == requester
                && id != 0
                && let Some(lane) = lanes.get(lane)
            {
                let plain = Plain {
                    kind: Kind::Reply,
                    flags: flag::TOKEN,
                    status: status as u16,
                    word: token,
                    subject: &[],
                    payload,
                };
                return match lane.writer.push_plain(&plain, 0) {
                    Ok(_) => {
                        count(&self.counters.answers, 1);
                        Ok(())
                    }
                    Err(refused) => Err(reply_refused(refused)),
                };
            }
        }
        self.reply_first(token, status, payload)
    }

    /// The first answer to a requester, or a large one.
    #[cold]
    #[inline(never)]
    fn reply_first(&self, token: u64, status: u32, payload: &[u8]) -> Result<()> {
        if payload.len() as u64 > self.broker.options.payload_max {
            return Err(self.too_large(payload.len()));
        }
        let draft = Draft {
            kind: Kind::Reply,
            flags: flag::TOKEN,
            status: status as u16,
            token,
            payload,
            ..Draft::default()
        };
        self.reply_slow((token >> 32) as u32, &draft)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.broker.retire_writer(&self.counters);
    }
}

#[cold]
fn too_deep() -> Error {
    let text = &"inline handlers are nested 16 deep; break the cycle or use a queue";
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
pub(crate) fn reply_refused(refused: Refused) -> Error {
    match refused {
        Refused::Full => Error::new(
            Status::Again,
            &"the asker's queue of answers is full; answer again when it has received",
        ),
        Refused::Closed => Error::new(Status::NotFound, &"the asker of this request is gone"),
        other => other.into(),
    }
}

fn optional_of<'m>(message: &Message<'m>) -> Optional<'m> {
    Optional {
        reply_to: message.reply_to,
        key: message.key,
        headers: message.headers,
    }
}

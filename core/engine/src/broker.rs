//! The broker: what all handles of one client share, and its life from open to close.
//!
//! It owns the interest table, the subscription slots, the budget and the lists of queues and
//! requesters. Nothing here is on the path of a message.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use fastmq_driver::{Driver, fence, fork};
use fastmq_memory::block::BlockPool;
use fastmq_memory::budget::Budget;
use fastmq_route::{Interest, check_pattern};

use crate::answers::{REQUESTER_INDEX_MASK, Requesters};
use crate::call;
use crate::error::{Error, Fault, Result, Status};
use crate::log;
pub use crate::options::Options;
use crate::options::{check_capacity, check_group, check_options};
use crate::place::{Place, QueueOptions};
use crate::ready::ReadyList;
use crate::slots::Slots;
use crate::statistics::Retired;
use crate::subscription::{
    Counts, Delivery, Entry, Handler, Interested, OnMessage, Subscription, Target,
};
use crate::threads::Threads;
use crate::writer::WriterCounters;

const OPEN: u32 = 0;
const DRAINING: u32 = 1;
const CLOSED: u32 = 2;
const DRAINED: u32 = 3;

static NEXT_BROKER: AtomicU64 = AtomicU64::new(1);
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// A broker in this process.
pub struct Broker {
    id: u64,
    state: AtomicU32,
    pub(crate) options: Options,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) interest: Interest<Interested>,
    pub(crate) slots: Slots,
    pub(crate) budget: Arc<Budget>,
    pub(crate) blocks: Arc<BlockPool>,
    /// Queues for the user's own loop.
    pub(crate) polled: Arc<ReadyList>,
    /// Queues for library threads.
    pub(crate) threads: Threads,
    pub(crate) requesters: Mutex<Requesters>,
    places: Mutex<HashMap<u64, Weak<Place>>>,
    next_place: AtomicU64,
    /// Held while a subscription is entered or a queue is marked as closed.
    subscribing: Mutex<()>,
    writers: Mutex<Vec<Arc<WriterCounters>>>,
    pub(crate) retired: Mutex<Retired>,
    pub(crate) late_answers: AtomicU64,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    /// Opens a broker in this process, over `driver`. Starts no thread and opens no descriptor.
    pub fn open(options: Options, driver: Arc<dyn Driver>) -> Result<Arc<Self>> {
        check_options(&options)?;
        // Once for the process: the fences of the publish path and the mark that a fork wipes.
        fence::register();
        fork::arm();
        let budget = Arc::new(Budget::new(options.memory_max));
        Ok(Arc::new(Self {
            id: NEXT_BROKER.fetch_add(1, Ordering::Relaxed),
            state: AtomicU32::new(OPEN),
            interest: Interest::new(driver.random()),
            slots: Slots::default(),
            blocks: Arc::new(BlockPool::new(budget.clone())),
            budget,
            polled: Arc::new(ReadyList::new(driver.clone())),
            threads: Threads::new(driver.clone(), options.threads_max),
            requesters: Mutex::default(),
            places: Mutex::default(),
            next_place: AtomicU64::new(1),
            subscribing: Mutex::default(),
            writers: Mutex::default(),
            retired: Mutex::default(),
            late_answers: AtomicU64::new(0),
            options,
            driver,
        }))
    }

    /// Names the broker for as long as the process lives.
    #[inline(always)]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The options it was opened with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The driver.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// True until drain or close.
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Relaxed) == OPEN
    }

    /// True after close.
    #[inline(always)]
    pub fn is_closed(&self) -> bool {
        self.state.load(Ordering::Relaxed) == CLOSED
    }

    /// True after a drain that found every queue empty: nothing more will come.
    pub(crate) fn is_drained(&self) -> bool {
        self.state.load(Ordering::Acquire) == DRAINED
    }

    /// Ends a drain: readers that wait are told that nothing more will come.
    fn end_drain(&self) {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let _ = self
            .state
            .compare_exchange(DRAINING, DRAINED, order.0, order.1);
        for place in self.all_places() {
            place.lanes.notify_reader();
        }
    }

    #[cold]
    pub(crate) fn closed_error(&self) -> Error {
        match self.state.load(Ordering::Relaxed) {
            CLOSED => Error::CLOSED,
            _ => Error::new(&Fault(
                Status::Closed,
                "the client is draining; it takes no more",
            )),
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_open() {
            Ok(())
        } else {
            Err(self.closed_error())
        }
    }

    pub(crate) fn next_place_id(&self) -> u64 {
        self.next_place.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn register_place(&self, place: &Arc<Place>) -> Result<()> {
        let mut places = lock(&self.places);
        places.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        places.insert(place.id(), Arc::downgrade(place));
        Ok(())
    }

    pub(crate) fn all_places(&self) -> Vec<Arc<Place>> {
        lock(&self.places)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    pub(crate) fn place_count(&self) -> u64 {
        lock(&self.places).len() as u64
    }

    pub(crate) fn subscription_count(&self) -> u64 {
        self.interest.len() as u64
    }

    pub(crate) fn register_writer(&self, counters: &Arc<WriterCounters>) {
        lock(&self.writers).push(counters.clone());
    }

    pub(crate) fn retire_writer(&self, counters: &Arc<WriterCounters>) {
        let mut writers = lock(&self.writers);
        writers.retain(|other| !Arc::ptr_eq(other, counters));
        lock(&self.retired).add_writer(counters);
    }

    pub(crate) fn each_writer(&self, visit: impl FnMut(&Arc<WriterCounters>)) {
        lock(&self.writers).iter().for_each(visit);
    }

    /// Opens a queue for subscriptions.
    pub fn open_queue(self: &Arc<Self>, options: QueueOptions) -> Result<Arc<Place>> {
        self.check_open()?;
        check_capacity(options.capacity)?;
        let place = Place::open(self, options, None, true)?;
        place.join(&self.polled);
        Ok(place)
    }

    /// Closes a queue and ends the subscriptions that feed it. An open batch stays readable until
    /// it is dropped; requests that wait are answered CANCELLED.
    pub fn close_queue(&self, place: &Arc<Place>) {
        let mut feeding = Vec::new();
        {
            // Under the lock: whoever subscribes finds the queue closed, or is found here.
            let _subscribing = lock(&self.subscribing);
            place.lanes.close();
            if place.subscriptions.load(Ordering::Acquire) > 0 {
                self.interest.for_each(|entry| {
                    let queue = entry.value().target().queue();
                    if queue.is_some_and(|other| Arc::ptr_eq(other, place)) {
                        feeding.push(entry.clone());
                    }
                });
            }
        }
        for entry in feeding {
            self.end(&entry, false, None);
        }
        place.close(self);
        self.polled.remove(place);
        self.forget_place(place);
    }

    pub(crate) fn forget_place(&self, place: &Arc<Place>) {
        if lock(&self.places).remove(&place.id()).is_some() {
            lock(&self.retired).add_place(&place.statistics());
        }
    }

    /// Subscribes. `queue`: where messages wait, for `Delivery::Queue`; `None` makes one.
    /// `on_message` is needed for the other deliveries.
    pub fn subscribe(
        self: &Arc<Self>,
        pattern: &[u8],
        group: &[u8],
        delivery: Delivery,
        queue: Option<&Arc<Place>>,
        tag: u64,
        on_message: Option<Box<OnMessage>>,
    ) -> Result<Subscription> {
        self.check_open()?;
        check_pattern(pattern)?;
        check_group(group)?;
        match (delivery, on_message.is_some(), queue) {
            (Delivery::Queue, true, _) => {
                let fault = &Fault(
                    Status::Invalid,
                    "on_message is set, but delivery is QUEUE; choose THREAD, DISPATCH or \
                            INLINE, or leave on_message out",
                );
                return Err(Error::new(fault));
            }
            (Delivery::Queue, false, Some(place)) if place.is_closed() => {
                return Err(Error::new(&Fault(Status::Closed, "the queue is closed")));
            }
            (Delivery::Queue, false, _) => {}
            (_, false, _) => {
                return Err(Error::new(&Fault(
                    Status::Invalid,
                    "this delivery needs on_message",
                )));
            }
            (_, true, Some(_)) => {
                let fault = &Fault(
                    Status::Invalid,
                    "a subscription with on_message has a queue of its own; leave queue out",
                );
                return Err(Error::new(fault));
            }
            (_, true, None) => {}
        }
        let id = self.slots.take(tag).ok_or(Error::NO_MEMORY)?;
        let made = self.make_target(id, tag, delivery, queue, on_message);
        let target = match made {
            Ok(target) => target,
            Err(error) => {
                self.slots.give(id);
                return Err(error);
            }
        };
        let owns_queue = queue.is_none() && delivery != Delivery::Inline;
        if let Err(error) = self.enter(id, pattern, group, &target) {
            self.slots.give(id);
            if let Some(place) = target.queue().filter(|_| owns_queue) {
                self.close_queue(place);
            }
            return Err(error);
        }
        let broker = self.clone();
        Ok(Subscription::new(broker, id, pattern, &target, owns_queue))
    }

    fn make_target(
        self: &Arc<Self>,
        id: u32,
        tag: u64,
        delivery: Delivery,
        queue: Option<&Arc<Place>>,
        on_message: Option<Box<OnMessage>>,
    ) -> Result<Target> {
        let handler = on_message.map(|call| {
            Arc::new(Handler {
                call,
                id,
                tag,
                serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
                is_active: true.into(),
                counts: Counts::default(),
            })
        });
        match (delivery, handler, queue) {
            (Delivery::Inline, Some(handler), _) => Ok(Target::Inline(handler)),
            (_, None, Some(place)) => Ok(Target::Queue(place.clone())),
            (_, None, None) => self.open_queue(QueueOptions::default()).map(Target::Queue),
            (_, handler, _) => {
                let place = Place::open(self, QueueOptions::default(), handler, true)?;
                let list = match delivery {
                    Delivery::Thread => {
                        if let Err(error) = self.threads.start(self) {
                            self.forget_place(&place);
                            return Err(error);
                        }
                        self.threads.list().clone()
                    }
                    _ => self.polled.clone(),
                };
                let _ = place.sleepers.list.set(list);
                place.lanes.readers().arm(fastmq_memory::gate::LIST);
                Ok(Target::Queue(place))
            }
        }
    }

    /// Enters a subscription into the table; from now on its messages come.
    fn enter(&self, id: u32, pattern: &[u8], group: &[u8], target: &Target) -> Result<()> {
        let _subscribing = lock(&self.subscribing);
        let place = target.queue();
        if place.is_some_and(|place| place.is_closed()) {
            return Err(Error::new(&Fault(Status::Closed, "the queue is closed")));
        }
        // Counted first: whoever finds it in the table may count it off.
        if let Some(place) = place {
            place.subscriptions.fetch_add(1, Ordering::AcqRel);
        }
        let interested = Interested::new(group, target.clone());
        let inserted = self.interest.insert(id, pattern, interested);
        if inserted.is_err()
            && let Some(place) = place
        {
            place.subscriptions.fetch_sub(1, Ordering::AcqRel);
        }
        inserted.map_err(|_| Error::NO_MEMORY)
    }

    fn end(&self, entry: &Entry, owns_queue: bool, deadline_ns: Option<u64>) {
        let (pattern, target) = (entry.pattern().as_bytes(), entry.value().target());
        self.unsubscribe(pattern, entry.id(), target, owns_queue, deadline_ns);
    }

    /// Ends a subscription, whose messages go to `target`. `deadline_ns`: when waiting for its
    /// handler ends; `None`: after `close_timeout`.
    pub(crate) fn unsubscribe(
        &self,
        pattern: &[u8],
        id: u32,
        target: &Target,
        owns_queue: bool,
        deadline_ns: Option<u64>,
    ) {
        // Closing the client or the queue may have ended it; its handler may run all the same.
        let is_first = self.interest.remove(pattern, id).is_some();
        if is_first {
            self.slots.give(id);
        }
        match target {
            Target::Inline(handler) => self.rest_inline(handler, deadline_ns),
            Target::Queue(place) => {
                if is_first {
                    place.subscriptions.fetch_sub(1, Ordering::AcqRel);
                }
                if owns_queue {
                    if let Some(handler) = &place.handler {
                        handler.is_active.store(false, Ordering::Release);
                    }
                    self.close_queue(place);
                    if place.handler.is_some() {
                        self.rest_served(place, deadline_ns);
                    }
                }
            }
        }
    }

    /// Waits until no other thread runs an inline handler that was unsubscribed.
    fn rest_inline(&self, handler: &Handler, deadline_ns: Option<u64>) {
        handler.is_active.store(false, Ordering::Release);
        fence::heavy();
        let what = "an inline handler still runs after unsubscribe";
        self.rest(what, deadline_ns, || call::is_at_rest(handler.serial));
    }

    /// Waits until no other thread runs the handler of a queue that was closed.
    fn rest_served(&self, place: &Place, deadline_ns: Option<u64>) {
        let me = std::thread::current().id();
        self.rest(
            "a handler still runs after unsubscribe",
            deadline_ns,
            || lock(&place.serving).is_none_or(|thread| thread == me),
        );
    }

    /// When whoever begins to close now stops waiting.
    fn close_deadline(&self) -> u64 {
        let now_ns = self.driver.monotonic_ns();
        now_ns.saturating_add(self.options.close_timeout_ns)
    }

    fn rest(&self, what: &str, deadline_ns: Option<u64>, is_at_rest: impl Fn() -> bool) {
        if is_at_rest() {
            return;
        }
        let deadline_ns = deadline_ns.unwrap_or_else(|| self.close_deadline());
        let pause = AtomicU32::new(0);
        let mut pause_ns = 1_000;
        while !is_at_rest() {
            let now_ns = self.driver.monotonic_ns();
            if now_ns >= deadline_ns {
                log::write(log::Level::Warn, "close", what);
                return;
            }
            self.driver
                .park(&pause, 0, deadline_ns.min(now_ns + pause_ns));
            pause_ns = (pause_ns * 2).min(1_000_000);
        }
    }

    /// Stops taking messages and waits until every queue is empty and no handler runs.
    ///
    /// A queue whose handler calls this is left out. TIMEOUT: something still waits; the sentence
    /// says what.
    pub fn drain(&self, timeout_ns: u64) -> Result<()> {
        if self.is_closed() {
            return Err(Error::CLOSED);
        }
        let _ = self
            .state
            .compare_exchange(OPEN, DRAINING, Ordering::AcqRel, Ordering::Acquire);
        fence::heavy();
        let deadline_ns = self.driver.monotonic_ns().saturating_add(timeout_ns);
        let pause = AtomicU32::new(0);
        let mut pause_ns = 1_000;
        loop {
            let (queues, messages) = self.undrained();
            let handlers = self.inline_running();
            if queues == 0 && handlers == 0 {
                self.end_drain();
                return Ok(());
            }
            let now_ns = self.driver.monotonic_ns();
            if now_ns >= deadline_ns {
                let text = match queues {
                    0 => format!("{handlers} inline handlers still run on other threads"),
                    _ => format!("{messages} messages still wait in {queues} queues"),
                };
                return Err(Error::with(Status::Timeout, text));
            }
            if self.is_closed() {
                return Err(Error::CLOSED);
            }
            self.driver
                .park(&pause, 0, deadline_ns.min(now_ns + pause_ns));
            pause_ns = (pause_ns * 2).min(1_000_000);
        }
    }

    /// Queues that are not empty, and the messages in them.
    fn undrained(&self) -> (usize, u64) {
        let me = std::thread::current().id();
        let handling = call::handling();
        let (mut queues, mut messages) = (0, 0);
        for place in self.all_places() {
            let is_mine = place.id() == handling || lock(&place.serving).is_some_and(|t| t == me);
            let pending = place.statistics().pending;
            // What comes too late for a question of this or another thread is read by nobody.
            let is_mine = is_mine || place.is_of_a_thread();
            if !is_mine && !place.is_closed() && pending > 0 {
                queues += 1;
                messages += pending;
            }
        }
        (queues, messages)
    }

    /// Inline handlers that run on other threads now.
    fn inline_running(&self) -> usize {
        let running = call::running_elsewhere();
        if running.is_empty() {
            return 0;
        }
        let mut handlers = 0;
        self.interest.for_each(|entry| {
            if let Target::Inline(handler) = entry.value().target() {
                handlers += usize::from(running.contains(&handler.serial));
            }
        });
        handlers
    }

    /// Closes the broker: every handle answers CLOSED from now on, waiting calls return, requests
    /// in queues are answered CANCELLED, library threads end. Returns within `close_timeout` even
    /// if a handler does not.
    pub fn close(&self) {
        if self.state.swap(CLOSED, Ordering::AcqRel) == CLOSED {
            return;
        }
        fence::heavy();
        let deadline_ns = self.close_deadline();
        let mut entries = Vec::new();
        self.interest.for_each(|entry| entries.push(entry.clone()));
        for entry in &entries {
            // Quick first: nothing new starts anywhere while we wait for what runs.
            if let Some(place) = entry.value().target().queue() {
                if let Some(handler) = &place.handler {
                    handler.is_active.store(false, Ordering::Release);
                }
                place.lanes.close();
            }
        }
        for entry in &entries {
            let queue = entry.value().target().queue();
            let owns = queue.is_some_and(|place| place.handler.is_some());
            self.end(entry, owns, Some(deadline_ns));
        }
        for place in self.all_places() {
            self.close_queue(&place);
        }
        self.threads.stop(deadline_ns);
        self.polled.wake();
        crate::thread_client::forget_thread_client(self.id);
    }

    /// Ends a request in the place of a responder that will not answer it.
    pub(crate) fn answer_late(&self, token: u64, status: Status) {
        // Not as a record: an answer of a responder counts at once, this only if it is the last,
        // and nobody has promised room for it.
        if let Ok(place) = self.requester_place((token >> 32) as u32) {
            place.settle_late(token, status);
        }
    }

    pub(crate) fn requester_place(&self, requester: u32) -> Result<Arc<Place>> {
        let requesters = lock(&self.requesters);
        let index = requester & REQUESTER_INDEX_MASK;
        requesters.place(index, requester).ok_or(Error::new(&Fault(
            Status::NotFound,
            "this token names no request that waits for an answer",
        )))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.close();
    }
}

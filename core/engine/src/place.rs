//! A queue as the engine knows it: `memory`'s lanes, plus how its reader waits.
//!
//! A `Place` is shared by its writers (through cached routes), its reader, and the broker. It
//! outlives its handle as a husk: writers that still hold it find it closed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use fastmq_driver::{FOREVER_NS, Parked, fence};
use fastmq_memory::allocation::{try_arc, try_box};
use fastmq_memory::gate::{EVENT, FUTEX, LIST};
use fastmq_memory::queue::QueueStatistics;
use fastmq_memory::reader::FillError;
use fastmq_memory::sync::{Mutex, OnceLock, lock};
use fastmq_memory::view::{Numbers, View, Visit, view_flag};
use fastmq_memory::{Batch, Policy, Queue, ReaderGuard};

use crate::broker::Broker;
use crate::call;
use crate::error::{Error, Fault, Result, Status};
use crate::gather::Gather;
use crate::keyed::PlaceShares;
use crate::slots::Slot;
use crate::subscription::Handler;
use crate::survey::Surveys;
use crate::wait::{Pace, Profile, Sleepers, Spin, Waker};
use crate::watch::UNASKED;

/// What a queue is opened with.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueOptions {
    /// What happens when a lane is full.
    pub policy: Policy,
    /// Bytes per lane at most; 0: the client's default.
    pub capacity: u64,
    /// How the reader waits; `None`: the client's default.
    pub wait: Option<Profile>,
}

/// Looks between two readings of the clock while spinning.
const SPINS_PER_CLOCK: u32 = 32;

/// A queue; on cache lines of its own, as its reader writes in it.
#[repr(align(128))]
pub struct Place {
    id: u64,
    pub(crate) lanes: Arc<Queue>,
    pub(crate) sleepers: Arc<Sleepers>,
    profile: Profile,
    pub(crate) spin: Spin,
    pub(crate) gather: Gather,
    /// Who is called, if messages are not pulled.
    pub(crate) handler: Option<Arc<Handler>>,
    broker: Weak<Broker>,
    /// True while a reader looks at subscriptions: false for queues of answers.
    has_subscriptions: bool,
    /// When its owner next has work without a message (answers time out): monotonic nanoseconds.
    pub(crate) deadline_ns: AtomicU64,
    /// Of a queue of answers: responders that will not answer, as (token, status).
    pub(crate) late: Mutex<VecDeque<(u64, Status)>>,
    pub(crate) has_late: AtomicBool,
    /// Of a queue of answers: its requests that several answers may come to.
    pub(crate) surveys: Mutex<Surveys>,
    /// The requester keeps fates that no record told: a queue of answers that looks empty is not.
    pub(crate) has_fates: AtomicBool,
    /// Whether requests were submitted, and whether a loop wants to know their deadlines.
    pub(crate) asking: AtomicU32,
    /// The thread that runs this queue's handler now.
    pub(crate) serving: Mutex<Option<u64>>,
    /// The thread that received last, so that a publisher who waits in vain can be told.
    last_reader: AtomicU64,
    /// Subscriptions that feed this queue.
    pub(crate) subscriptions: AtomicU64,
    /// Its part in key-shared groups, if it ever had one; and whether copies wait to be taken.
    pub(crate) shares: OnceLock<Box<PlaceShares>>,
    pub(crate) has_handed: AtomicBool,
    /// Of a connection's queue: its name among its shard's outlets (`server/outlets.rs`), or 0.
    pub(crate) outlet: AtomicU64,
    /// True while the queue stands in a ready list: it stands there once.
    pub(crate) is_listed: AtomicBool,
    /// The queue behind this one in the ready list; changed under that list's lock only.
    pub(crate) next_ready: Mutex<Option<Arc<Place>>>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Place {
    pub(crate) fn open(
        broker: &Arc<Broker>,
        options: QueueOptions,
        handler: Option<Arc<Handler>>,
        has_subscriptions: bool,
    ) -> Result<Arc<Self>> {
        let sleepers = Sleepers::new(broker.driver.clone(), broker.polled.clone());
        let sleepers = try_arc(sleepers)?;
        let capacity = match options.capacity {
            0 => broker.options.queue_capacity,
            other => other,
        };
        let lanes = try_arc(Queue::new(fastmq_memory::QueueOptions {
            policy: options.policy,
            capacity,
            budget: broker.budget.clone(),
            blocks: broker.blocks.clone(),
            wake: try_box(Waker(sleepers.clone()))?,
        }))?;
        let id = broker.new_place_id()?;
        let place = try_arc(Self {
            id,
            lanes,
            sleepers,
            profile: options.wait.unwrap_or(broker.options.wait),
            spin: Spin::default(),
            gather: Gather::default(),
            handler,
            broker: Arc::downgrade(broker),
            has_subscriptions,
            deadline_ns: AtomicU64::new(u64::MAX),
            late: Mutex::new(VecDeque::new()),
            has_late: AtomicBool::new(false),
            surveys: Mutex::default(),
            has_fates: AtomicBool::new(false),
            asking: AtomicU32::new(UNASKED),
            serving: Mutex::new(None),
            last_reader: AtomicU64::new(0),
            subscriptions: AtomicU64::new(0),
            shares: OnceLock::new(),
            has_handed: AtomicBool::new(false),
            outlet: AtomicU64::new(0),
            is_listed: AtomicBool::new(false),
            next_ready: Mutex::new(None),
        });
        let place = place.inspect_err(|_| broker.give_place_id(id))?;
        let _ = place.sleepers.place.set(Arc::downgrade(&place));
        broker.register_place(&place);
        // Closing marks the broker, then visits the list: it finds this queue, or we find the mark.
        if broker.is_closed() {
            broker.forget_place(&place);
            return Err(Error::CLOSED);
        }
        Ok(place)
    }

    /// Names the queue for as long as the broker lives.
    #[inline(always)]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The lanes, for a border that keeps a batch open without a guard.
    #[inline(always)]
    pub fn lanes(&self) -> &Queue {
        &self.lanes
    }

    /// The broker, unless it is gone.
    pub fn broker(&self) -> Option<Arc<Broker>> {
        self.broker.upgrade()
    }

    /// How the reader waits.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// True after close.
    pub fn is_closed(&self) -> bool {
        self.lanes.is_closed()
    }

    /// True if nothing will come any more: closed, or the client was drained. Answers still come
    /// to a client that was drained.
    pub(crate) fn is_over(&self, broker: &Broker) -> bool {
        self.is_closed() || (self.has_subscriptions && broker.is_drained())
    }

    /// Figures of this queue.
    pub fn statistics(&self) -> QueueStatistics {
        self.lanes.statistics()
    }

    /// Times that a reader slept, and times that one was woken.
    pub fn waits(&self) -> (u64, u64) {
        let sleepers = &self.sleepers;
        (
            sleepers.waits.load(Ordering::Relaxed),
            sleepers.wakes.load(Ordering::Relaxed),
        )
    }

    /// Takes the right to read.
    pub(crate) fn reader(&self) -> Result<ReaderGuard<'_>> {
        self.lanes.reader().map_err(|_| self.busy())
    }

    /// Why the right to read is not given.
    #[cold]
    pub fn busy(&self) -> Error {
        // Whoever closes the queue empties it meanwhile: that is no misuse of the caller's.
        if self.is_closed() {
            return closed_and_drained();
        }
        Error::new(&Fault(
            Status::Misuse,
            "this queue has an open batch or another thread receives from it; \
             free the batch first",
        ))
    }

    /// Looks once. Messages of subscriptions that are gone are left out.
    #[inline(always)]
    pub(crate) fn look(
        &self,
        broker: &Broker,
        guard: &mut ReaderGuard<'_>,
        limit: usize,
    ) -> Result<usize> {
        let clock = || broker.driver.monotonic_ns();
        let found = if self.has_subscriptions {
            if self.has_handed.load(Ordering::Relaxed) {
                self.take_handed(broker, guard, limit);
            }
            let mut known = Known::new(broker, self);
            let found = guard.fill(limit, &clock, |visit| known.visit(visit));
            if matches!(found, Ok(0)) && self.has_handed.load(Ordering::Relaxed) {
                // What was left out is for others.
                self.take_handed(broker, guard, limit);
            }
            found.map(|found| found.max(guard.count()))
        } else {
            guard.fill(limit, &clock, |_| true)
        };
        if self.has_late.load(Ordering::Relaxed) {
            self.take_late(|token, status| {
                let mut numbers = numbers_of(token, status);
                numbers.flags = view_flag::GONE;
                guard.count() < limit && guard.push_local(numbers)
            });
            return match guard.count() {
                // Nobody would come and wake a reader who slept now.
                0 if self.has_late.load(Ordering::Relaxed) => Err(Error::NO_MEMORY),
                count => Ok(count),
            };
        }
        found.map_err(unread)
    }

    /// Receives up to `limit` messages, as many as a batch holds if it is 0, waiting for the first
    /// for at most `timeout_ns`.
    ///
    /// An empty batch never comes back: AGAIN (timeout 0), TIMEOUT, or END when the queue is
    /// closed and drained.
    #[inline]
    pub fn receive(&self, broker: &Broker, limit: usize, timeout_ns: u64) -> Result<Batch<'_>> {
        let limit = or_all(limit);
        let guard = self.reader()?;
        self.last_reader
            .store(call::thread_number(), Ordering::Relaxed);
        let received = self.receive_with(broker, guard, limit, timeout_ns);
        if received.is_err() {
            self.finish(broker);
        } else if broker.stamper.is_on() {
            self.note_received(broker);
        }
        received
    }

    /// Notes when a batch was received, for clients that ask for time stamps.
    #[cold]
    pub(crate) fn note_received(&self, broker: &Broker) {
        self.lanes.note_received(broker.stamp_ns());
    }

    #[inline(always)]
    fn receive_with<'q>(
        &'q self,
        broker: &Broker,
        mut guard: ReaderGuard<'q>,
        limit: usize,
        timeout_ns: u64,
    ) -> Result<Batch<'q>> {
        let count = self.look(broker, &mut guard, limit)?;
        if count > 0 {
            self.gather
                .more(count, limit, || self.look(broker, &mut guard, limit));
            return Ok(guard.into_batch());
        }
        self.gather.starve();
        self.wait(broker, guard, timeout_ns, |guard| {
            self.look(broker, guard, limit)
        })
    }

    /// Waits until `look` finds something. `look` returns how many messages the batch has.
    #[inline]
    pub(crate) fn wait<'q>(
        &'q self,
        broker: &Broker,
        mut guard: ReaderGuard<'q>,
        timeout_ns: u64,
        mut look: impl FnMut(&mut ReaderGuard<'q>) -> Result<usize>,
    ) -> Result<Batch<'q>> {
        if let Some(uplink) = &broker.uplink
            && uplink.helm.is_open()
        {
            return self.wait_linked(broker, uplink, guard, timeout_ns, &mut look);
        }
        if timeout_ns == 0 {
            let nothing = Error::new(&Fault(Status::Again, "no message is waiting"));
            return self.settle(broker, guard, look, nothing);
        }
        let driver = &broker.driver;
        let budget_ns = if driver.may_spin() || self.profile == Profile::BusyPoll {
            self.spin.budget_ns(self.profile)
        } else {
            0
        };
        let mut start_ns = 0;
        let mut deadline_ns = u64::MAX;
        if budget_ns > 0 {
            let mut pace = Pace::default();
            loop {
                for _ in 0..SPINS_PER_CLOCK {
                    if look(&mut guard)? > 0 {
                        if start_ns > 0 {
                            self.spin.learn(true);
                        }
                        return Ok(guard.into_batch());
                    }
                    // Looking takes the cache line away from the writer; a pause lets it write on.
                    // One is enough: with eight a round trip takes half as long again, and no rate
                    // is higher.
                    std::hint::spin_loop();
                }
                let now_ns = driver.monotonic_ns();
                if start_ns == 0 {
                    start_ns = now_ns;
                    deadline_ns = now_ns.saturating_add(timeout_ns);
                }
                pace.spin_on(&**driver, now_ns, deadline_ns);
                if now_ns >= deadline_ns || self.is_over(broker) {
                    break;
                }
                if now_ns - start_ns >= budget_ns {
                    self.spin.learn(false);
                    break;
                }
            }
        } else {
            deadline_ns = driver.monotonic_ns().saturating_add(timeout_ns);
        }
        loop {
            // Read before arming: a wake after this changes it, and the park returns at once.
            let seen = self.sleepers.reader_word.load(Ordering::Acquire);
            self.lanes.readers().arm(FUTEX);
            let found = look(&mut guard);
            if !matches!(found, Ok(0)) {
                self.lanes.readers().disarm(FUTEX);
                found?;
                return Ok(guard.into_batch());
            }
            if self.is_over(broker) {
                self.lanes.readers().disarm(FUTEX);
                return Err(closed_and_drained());
            }
            if self.profile == Profile::BusyPoll && budget_ns > 0 {
                // Only the deadline ends its spinning.
                self.lanes.readers().disarm(FUTEX);
                return self.settle(broker, guard, look, no_message());
            }
            guard.trim();
            let wake_ns = deadline_ns.min(self.deadline_ns.load(Ordering::Relaxed));
            self.sleepers.waits.fetch_add(1, Ordering::Relaxed);
            let parked = driver.park(&self.sleepers.reader_word, seen, wake_ns);
            if look(&mut guard)? > 0 {
                self.lanes.readers().disarm(FUTEX);
                return Ok(guard.into_batch());
            }
            if parked == Parked::Deadlock {
                self.lanes.readers().disarm(FUTEX);
                let nobody = &Fault(
                    Status::Timeout,
                    "nobody is left who could publish to this queue (simulated driver)",
                );
                return self.settle(broker, guard, look, Error::new(nobody));
            }
            if deadline_ns != FOREVER_NS && driver.monotonic_ns() >= deadline_ns {
                self.lanes.readers().disarm(FUTEX);
                return self.settle(broker, guard, look, no_message());
            }
        }
    }

    /// A look that found nothing and may wait no longer: clears the descriptor, arms, looks again.
    pub(crate) fn settle<'q>(
        &'q self,
        broker: &Broker,
        mut guard: ReaderGuard<'q>,
        mut look: impl FnMut(&mut ReaderGuard<'q>) -> Result<usize>,
        nothing: Error,
    ) -> Result<Batch<'q>> {
        if let Some(event) = self.sleepers.event.get() {
            event.clear();
            if self.lanes.readers().bits() & EVENT == 0 {
                self.lanes.readers().arm(EVENT);
                if look(&mut guard)? > 0 {
                    event.signal();
                    return Ok(guard.into_batch());
                }
            }
            self.set_event_deadline();
        }
        if self.handler.is_none() && self.is_watched() {
            self.arm_list(&mut guard, &mut look)?;
            if guard.count() > 0 {
                return Ok(guard.into_batch());
            }
        }
        if self.is_over(broker) {
            return Err(closed_and_drained());
        }
        Err(nothing)
    }

    fn arm_list<'q>(
        &'q self,
        guard: &mut ReaderGuard<'q>,
        look: &mut impl FnMut(&mut ReaderGuard<'q>) -> Result<usize>,
    ) -> Result<()> {
        if self.lanes.readers().bits() & LIST == 0 {
            self.lanes.readers().arm(LIST);
            look(guard)?;
        }
        Ok(())
    }

    /// True if this thread was the last to receive from the queue.
    pub(crate) fn was_read_here(&self) -> bool {
        self.last_reader.load(Ordering::Relaxed) == call::thread_number()
    }

    /// True for the queue of answers in which a thread waits for one answer at a time.
    pub(crate) fn is_of_a_thread(&self) -> bool {
        self.is_answers() && self.sleepers.list.get().is_none()
    }

    /// True for a queue of answers.
    pub(crate) fn is_answers(&self) -> bool {
        !self.has_subscriptions
    }

    /// Closes the queue. Requests that wait in it are answered CANCELLED.
    pub(crate) fn close(&self, broker: &Broker) {
        self.lanes.close();
        if self.is_answers() {
            lock(&self.surveys).close_all(broker);
        }
        self.purge(broker);
    }

    /// Drops what a closed queue holds; does nothing while a batch is open.
    /// Called by whoever has given the right to read back: if the queue was closed meanwhile, its
    /// closer left the emptying to this reader.
    #[inline(always)]
    pub fn finish(&self, broker: &Broker) {
        // Pairs with the heavy fence of closing: the closer sees that nobody reads any more, or we
        // see that the queue is closed.
        fence::light();
        if self.is_closed() {
            self.purge(broker);
        }
    }

    #[cold]
    pub(crate) fn purge(&self, broker: &Broker) {
        // A queue of answers holds tokens too, but nobody waits for those to be answered.
        let has_requests = self.has_subscriptions;
        self.lanes.purge(|view: &View, expiry_ns| {
            if has_requests {
                self.skip_unsubscribed(broker, view, expiry_ns);
            }
        });
        if self.has_handed.load(Ordering::Acquire) {
            self.give_handed(broker);
        }
    }
}

/// The subscription of the messages that are looked at: most come in a row for the same one.
struct Known<'a> {
    broker: &'a Broker,
    place: &'a Place,
    slot: Option<&'a Slot>,
    id: u32,
    tag: u64,
    /// Messages not yet counted in the slot.
    count: u64,
}

impl<'a> Known<'a> {
    fn new(broker: &'a Broker, place: &'a Place) -> Self {
        Self {
            broker,
            place,
            slot: None,
            id: 0,
            tag: 0,
            count: 0,
        }
    }

    /// Says whether the message has a subscription, and gives it the tag.
    #[inline(always)]
    fn visit(&mut self, visit: &mut Visit<'_>) -> bool {
        if visit.is_expired() {
            let token = visit.view().token;
            self.broker.answer_late(token, Status::Timeout);
            return false;
        }
        let id = visit.view().subscription_id;
        if (id != self.id || self.slot.is_none()) && !self.meet(id) {
            let (view, expiry_ns) = (visit.view(), visit.expiry_ns());
            self.place.skip_unsubscribed(self.broker, view, expiry_ns);
            return false;
        }
        visit.set_tag(self.tag);
        self.count += 1;
        true
    }

    fn meet(&mut self, id: u32) -> bool {
        self.settle();
        self.slot = self.broker.slots.get(id).filter(|slot| slot.is(id));
        self.id = id;
        self.tag = self.slot.map_or(0, Slot::tag);
        self.slot.is_some()
    }

    #[inline(always)]
    fn settle(&mut self) {
        if let Some(slot) = self.slot {
            slot.count(std::mem::take(&mut self.count));
        }
    }
}

impl Drop for Known<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.settle();
    }
}

/// The fate of a request as a message.
pub(crate) fn numbers_of(token: u64, status: Status) -> Numbers {
    Numbers {
        token,
        status: status as u32,
        ..Numbers::default()
    }
}

#[cold]
pub(crate) fn unread(error: FillError) -> Error {
    match error {
        FillError::NoMemory => Error::NO_MEMORY,
        FillError::Damaged(error) => Error::with(
            &Fault(Status::Corrupt, "a lane of this queue is damaged"),
            format_args!("a lane of this queue is damaged: {error}"),
        ),
    }
}

/// How many messages a batch may have; 0: as many as it can.
#[inline(always)]
pub(crate) fn or_all(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

pub(crate) fn no_message() -> Error {
    Error::new(&Fault(
        Status::Timeout,
        "no message came within the timeout",
    ))
}

pub(crate) fn closed_and_drained() -> Error {
    Error::new(&Fault(Status::End, "the queue is closed and drained"))
}

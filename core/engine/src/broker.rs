//! The broker: what all handles of one client share, and its life from open to close.
//!
//! It owns the interest table, the subscription slots, the budget and the lists of queues and
//! requesters. Nothing here is on the path of a message.

use std::alloc::Layout;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use fastmq_driver::{Driver, NullDriver, fence, fork};
use fastmq_memory::allocation::{try_arc, with_memory};
use fastmq_memory::block::BlockPool;
use fastmq_memory::budget::Budget;
use fastmq_memory::sync::{Mutex, lock};
use fastmq_route::{Interest, Text, check_pattern};

use crate::answers::{REQUESTER_INDEX_MASK, Requesters};
use crate::ended::{self, DropEnded};
use crate::error::{Error, Fault, Result, Status};
use crate::kept::Kept;
use crate::key_groups::KeyGroups;
use crate::link::Uplink;
use crate::message::Message;
pub use crate::options::Options;
use crate::options::{SubscribeOptions, check_capacity, check_options, check_subscribe};
use crate::page_options::take_memory;
use crate::place::{Place, QueueOptions};
use crate::presence::{Presence, check_listener};
use crate::ready::ReadyList;
use crate::register::Register;
use crate::slots::Slots;
use crate::statistics::Retired;
use crate::subscription::{
    Counts, Delivery, GroupMode, Handler, Interested, Membership, OnMessage, Subscription, Target,
};
use crate::threads::{self, Threads};
use crate::timestamps::Stamper;
use crate::writer::WriterCounters;

pub(crate) const OPEN: u32 = 0;
pub(crate) const DRAINING: u32 = 1;
pub(crate) const CLOSED: u32 = 2;
pub(crate) const DRAINED: u32 = 3;

static NEXT_BROKER: AtomicU64 = AtomicU64::new(1);
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// A broker in this process.
pub struct Broker {
    id: u64,
    pub(crate) state: AtomicU32,
    pub(crate) options: Options,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) stamper: Stamper,
    pub(crate) interest: Interest<Interested>,
    pub(crate) slots: Slots,
    pub(crate) budget: Arc<Budget>,
    pub(crate) blocks: Arc<BlockPool>,
    pub(crate) kept: Kept,
    pub(crate) presence: Presence,
    /// Queues for the user's own loop.
    pub(crate) polled: Arc<ReadyList>,
    /// Queues for library threads.
    pub(crate) threads: Threads,
    pub(crate) requesters: Mutex<Requesters>,
    pub(crate) key_groups: Mutex<KeyGroups>,
    places: Register<Weak<Place>>,
    next_place: AtomicU64,
    /// Held while a subscription is entered or a queue is marked as closed.
    pub(crate) subscribing: Mutex<()>,
    writers: Mutex<Vec<Arc<WriterCounters>>>,
    pub(crate) retired: Mutex<Retired>,
    pub(crate) late_answers: AtomicU64,
    /// Reply streams that are open.
    pub(crate) streams: AtomicU64,
    /// Of a remote client: what goes to the server instead of to queues of this process.
    pub(crate) uplink: Option<Arc<Uplink>>,
    _ended: DropEnded,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Bits of a queue's id that name its place in the list: 16.7 million queues at once.
const PLACE_BITS: u32 = 24;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;
/// What the standard library takes to read how many cores the process may use: a few paths and a
/// line of a file each.
const CORES_BLOCKS: usize = 12;
const CORES_BYTES: usize = 512;

impl Broker {
    /// Opens a broker in this process, over `driver`. Starts no thread and opens no descriptor;
    /// only options of library threads are tried on a thread that ends at once.
    pub fn open(options: Options, driver: Arc<dyn Driver>) -> Result<Arc<Self>> {
        Self::open_linked(options, driver, None)
    }

    /// The same, of a remote client if there is an uplink.
    pub(crate) fn open_linked(
        options: Options,
        driver: Arc<dyn Driver>,
        uplink: Option<Arc<Uplink>>,
    ) -> Result<Arc<Self>> {
        check_options(&options)?;
        threads::try_options(&driver, &options.threads)?;
        // Once for the process: the fences of the publish path and the mark that a fork wipes.
        fence::register();
        fork::arm();
        let budget = take_memory(&options)?;
        Ok(try_arc(Self {
            id: NEXT_BROKER.fetch_add(1, Ordering::Relaxed),
            state: AtomicU32::new(OPEN),
            interest: Interest::new(driver.random()),
            slots: Slots::default(),
            blocks: try_arc(BlockPool::new(budget.clone()))?,
            budget,
            kept: Kept::default(),
            presence: Presence::default(),
            polled: try_arc(ReadyList::new(driver.clone()))?,
            threads: Threads::new(driver.clone(), options.threads_max)?,
            requesters: Mutex::default(),
            key_groups: Mutex::default(),
            places: Register::default(),
            next_place: AtomicU64::new(1),
            subscribing: Mutex::default(),
            writers: Mutex::default(),
            retired: Mutex::default(),
            late_answers: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            stamper: Stamper::new(options.timestamps, &*driver),
            options,
            driver,
            uplink,
            _ended: DropEnded,
        })?)
    }

    /// The driver of an embedded broker: the real kernel.
    pub fn system_driver() -> Result<Arc<dyn Driver>> {
        let memory = [Layout::new::<[u128; CORES_BYTES / 16]>(); CORES_BLOCKS];
        Ok(try_arc(with_memory(&memory, NullDriver::new)?)?)
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

    /// Unix nanoseconds now, if the client asked for time stamps; else 0.
    pub fn stamp_ns(&self) -> u64 {
        self.stamper.now_ns(&*self.driver)
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

    /// An id that no other queue has or had, with a place in the list.
    pub(crate) fn new_place_id(&self) -> Result<u64> {
        let number = self.places.number()?;
        if u64::from(number) > PLACE_MASK {
            self.places.give(number);
            let fault = &Fault(Status::NoSpace, "there are 16 million queues already");
            return Err(Error::new(fault));
        }
        let serial = self.next_place.fetch_add(1, Ordering::Relaxed);
        Ok(serial << PLACE_BITS | u64::from(number))
    }

    /// Gives back an id that no queue got.
    pub(crate) fn give_place_id(&self, id: u64) {
        self.places.give((id & PLACE_MASK) as u32);
    }

    pub(crate) fn register_place(&self, place: &Arc<Place>) {
        let number = (place.id() & PLACE_MASK) as u32;
        self.places.put(number, Arc::downgrade(place));
    }

    pub(crate) fn all_places(&self) -> impl Iterator<Item = Arc<Place>> {
        self.places.all().filter_map(|place| place.upgrade())
    }

    pub(crate) fn place_count(&self) -> u64 {
        self.places.count()
    }

    pub(crate) fn subscription_count(&self) -> u64 {
        self.interest.len() as u64
    }

    /// Counters for a writer, until it is retired.
    pub(crate) fn new_counters(&self) -> Result<Arc<WriterCounters>> {
        let counters = try_arc(WriterCounters::default())?;
        let mut writers = lock(&self.writers);
        writers.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        writers.push(counters.clone());
        Ok(counters)
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

    pub(crate) fn forget_place(&self, place: &Arc<Place>) {
        let number = (place.id() & PLACE_MASK) as u32;
        let is_it = |other: &Weak<Place>| other.as_ptr() == Arc::as_ptr(place);
        if self.places.take(number, is_it).is_some() {
            lock(&self.retired).add_place(&place.statistics());
        }
    }

    /// Subscribes with the usual options; see [`Broker::subscribe_with`].
    pub fn subscribe(
        self: &Arc<Self>,
        pattern: &[u8],
        group: &[u8],
        delivery: Delivery,
        queue: Option<&Arc<Place>>,
        tag: u64,
        on_message: Option<Box<OnMessage>>,
    ) -> Result<Subscription> {
        let options = SubscribeOptions {
            group,
            delivery,
            queue,
            tag,
            on_message,
            ..SubscribeOptions::default()
        };
        self.subscribe_with(pattern, options)
    }

    /// Subscribes.
    pub fn subscribe_with(
        self: &Arc<Self>,
        pattern: &[u8],
        options: SubscribeOptions<'_>,
    ) -> Result<Subscription> {
        let _ended = DropEnded;
        self.check_open()?;
        check_pattern(pattern)?;
        check_subscribe(&options)?;
        check_listener(pattern, &options)?;
        let text = Text::new(pattern).map_err(|_| Error::NO_MEMORY)?;
        let id = self.slots.take(options.tag).ok_or(Error::NO_MEMORY)?;
        let wanted = match &self.uplink {
            Some(uplink) => {
                let wanted = uplink.wanted(id, pattern, &options);
                Some(wanted.inspect_err(|_| self.slots.give(id))?)
            }
            None => None,
        };
        // The groups of a remote client are its server's.
        let membership = match wanted {
            Some(_) => Membership::NONE,
            None => options.membership(),
        };
        let replay_last = options.replay_last;
        let owns_queue = options.queue.is_none() && options.delivery != Delivery::Inline;
        let target = match self.make_target(id, options) {
            Ok(target) => target,
            Err(error) => {
                self.slots.give(id);
                return Err(error);
            }
        };
        let is_told = Cell::new(false);
        let enter = || {
            let entered = self.enter(id, &text, &membership, &target, replay_last);
            entered.map(|told| is_told.set(told))
        };
        let entered = match target.queue().filter(|_| replay_last) {
            Some(place) => self.kept.join(self, pattern, id, place, enter),
            None => enter(),
        };
        entered.inspect_err(|_| {
            self.slots.give(id);
            if let Some(place) = target.queue().filter(|_| owns_queue) {
                self.close_queue(place);
            }
        })?;
        if is_told.get() {
            self.presence.wake(self);
        }
        let broker = self.clone();
        let subscription = Subscription::new(broker, id, text, &target, owns_queue);
        if let (Some(uplink), Some(wanted)) = (&self.uplink, wanted) {
            let asked = uplink.subscribe(id, wanted, target);
            asked.inspect_err(|_| subscription.unsubscribe())?;
        }
        Ok(subscription)
    }

    fn make_target(self: &Arc<Self>, id: u32, options: SubscribeOptions<'_>) -> Result<Target> {
        let (delivery, queue, tag) = (options.delivery, options.queue, options.tag);
        let own = QueueOptions {
            policy: options.policy,
            ..QueueOptions::default()
        };
        let handler = options.on_message.map(|call| {
            ended::expect()?;
            try_arc(Handler {
                call,
                id,
                tag,
                serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
                is_active: true.into(),
                counts: Counts::default(),
            })
        });
        let handler = handler.transpose()?;
        match (delivery, handler, queue) {
            (Delivery::Inline, Some(handler), _) => Ok(Target::Inline(handler)),
            (_, None, Some(place)) => Ok(Target::Queue(place.clone())),
            (_, None, None) => self.open_queue(own).map(Target::Queue),
            (_, handler, _) => {
                let place = Place::open(self, own, handler, true)?;
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

    /// Enters a subscription into the table; from now on its messages come. True: those who listen
    /// to presence have to be woken.
    fn enter(
        &self,
        id: u32,
        pattern: &Text,
        membership: &Membership<'_>,
        target: &Target,
        replay_last: bool,
    ) -> Result<bool> {
        let _subscribing = lock(&self.subscribing);
        if self.is_closed() {
            return Err(Error::CLOSED);
        }
        let place = target.queue();
        if place.is_some_and(|place| place.is_closed()) {
            return Err(Error::new(&Fault(Status::Closed, "the queue is closed")));
        }
        let mut keyed = None;
        match (membership.mode, place) {
            (GroupMode::KeyShared, Some(place)) => {
                let (group, weight) = (membership.group, membership.weight);
                keyed = Some(self.join_group(pattern.as_bytes(), group, id, place, weight)?);
            }
            _ if !membership.group.is_empty() => {
                self.check_not_keyed(pattern.as_bytes(), membership.group)?;
            }
            _ => {}
        }
        let leave = |_: &Error| {
            if let Some(group) = &keyed {
                group.leave(id);
            }
        };
        let interested = Interested::new(membership, target.clone(), keyed.clone());
        let interested = interested.map_err(Error::from).inspect_err(leave)?;
        // Counted first: whoever finds it in the table may count it off.
        if let Some(place) = place {
            place.subscriptions.fetch_add(1, Ordering::AcqRel);
        }
        let inserted = self.insert(id, pattern, membership.group, interested, replay_last);
        if inserted.is_err()
            && let Some(place) = place
        {
            place.subscriptions.fetch_sub(1, Ordering::AcqRel);
        }
        inserted.inspect_err(leave)
    }

    #[cold]
    pub(crate) fn too_large(&self, size: usize) -> Error {
        let max = self.options.payload_max;
        Error::with(
            &Fault(Status::TooLarge, "the payload is above payload_max"),
            format_args!("the payload has {size} bytes; the client's payload_max is {max}"),
        )
    }

    /// Ends a request in the place of a responder that will not answer it.
    pub(crate) fn answer_late(&self, token: u64, status: Status) {
        if let Some(uplink) = &self.uplink
            && Uplink::is_asked_by_server(token)
        {
            let _ = uplink.reply(token, status as u32, &[], &[]);
            return;
        }
        // Not as a record: an answer of a responder counts at once, this only if it is the last,
        // and nobody has promised room for it.
        if let Ok(place) = self.requester_place((token >> 32) as u32) {
            place.settle_late(token, status);
        }
    }

    /// The asker of a request wants no answer any more; without a number, the requester does not.
    #[cold]
    pub(crate) fn give_up(&self, token: u64) {
        if let Some(uplink) = &self.uplink {
            uplink.give_up(token);
        }
    }

    /// A request as its responder gets it. A server is told how long its asker waits, as it would
    /// keep it for longer: for ten minutes, as it does if he waits for ever. Until then it is one
    /// of the open requests of the connection, also if he gives up.
    pub(crate) fn with_timeout<'a, 'm>(
        &self,
        message: &'a Message<'m>,
        timeout_ns: u64,
        room: &'a mut Option<Message<'m>>,
    ) -> &'a Message<'m> {
        if self.uplink.is_none() || message.ttl_ns > 0 || timeout_ns == u64::MAX {
            return message;
        }
        room.insert(Message {
            ttl_ns: timeout_ns,
            ..*message
        })
    }

    /// What a stream that answers this request may send to begin with; `None`: nobody takes one.
    pub(crate) fn stream_credit(&self, token: u64) -> Option<u64> {
        let place = self.requester_place((token >> 32) as u32).ok()?;
        lock(&place.surveys).stream_credit(token as u32)
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

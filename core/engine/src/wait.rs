//! Sleeping and waking at a queue: the futex word, the descriptor, the ready list.
//!
//! [`Sleepers`] is what a queue's gates wake; [`Profile`] says how long to spin before sleeping.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use fastmq_driver::scheduling::is_realtime;
use fastmq_driver::{Driver, LoopFd};
use fastmq_memory::gate::{EVENT, FUTEX, LEFT, LIST, TASK};
use fastmq_memory::queue::Wake;
use fastmq_memory::sync::{Mutex, OnceLock, lock};

use crate::place::Place;
use crate::ready::ReadyList;

/// How a reader waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Spins 20–50 µs, longer while that pays, then sleeps.
    #[default]
    Balanced,
    /// Spins up to 1 ms before it sleeps.
    Latency,
    /// Sleeps at once.
    LowPower,
    /// Never sleeps.
    BusyPoll,
}

/// Spin bounds in nanoseconds.
const SPIN_NS_FIRST: u64 = 50_000;
const SPIN_NS_MIN: u64 = 2_000;
const SPIN_NS_MAX: u64 = 200_000;
const SPIN_NS_LATENCY: u64 = 1_000_000;

/// The adaptive spin: doubled when spinning found something, halved when it did not.
#[derive(Debug)]
pub struct Spin {
    budget_ns: AtomicU64,
}

impl Default for Spin {
    fn default() -> Self {
        Self {
            budget_ns: AtomicU64::new(SPIN_NS_FIRST),
        }
    }
}

impl Spin {
    /// Nanoseconds to spin now; `u64::MAX`: for ever.
    pub fn budget_ns(&self, profile: Profile) -> u64 {
        match profile {
            Profile::Balanced => self.budget_ns.load(Ordering::Relaxed),
            Profile::Latency => SPIN_NS_LATENCY,
            Profile::LowPower => 0,
            Profile::BusyPoll => u64::MAX,
        }
    }

    /// Says that a spin found nothing, and how long it took from its begin until something came. If
    /// a longer spin had found it, the next one is longer: else it would never be again, once
    /// something has come late a few times.
    pub fn learn_late(&self, late_ns: u64) {
        self.learn(late_ns < SPIN_NS_FIRST);
    }

    /// Says whether the last spin found something.
    pub fn learn(&self, has_hit: bool) {
        let now = self.budget_ns.load(Ordering::Relaxed);
        let next = if has_hit { now * 2 } else { now / 2 };
        self.budget_ns
            .store(next.clamp(SPIN_NS_MIN, SPIN_NS_MAX), Ordering::Relaxed);
    }
}

/// How long a real-time thread spins before it lets others have its core.
const REALTIME_SPIN_NS: u64 = 10_000_000;
/// How long it lets them.
const REALTIME_PAUSE_NS: u64 = 50_000;

thread_local! {
    /// What this thread has spun since its last pause.
    static SPUN_NS: Cell<u64> = const { Cell::new(0) };
}

/// Keeps a real-time thread that spins from taking its core for itself: whoever it waits for may
/// need that core. The time is that of all its spinning, whatever it waited for.
#[derive(Default)]
pub(crate) struct Pace {
    last_ns: u64,
}

impl Pace {
    /// Called with each reading of the clock while spinning; a pause ends at `deadline_ns`.
    #[inline]
    pub(crate) fn spin_on(&mut self, driver: &dyn Driver, now_ns: u64, deadline_ns: u64) {
        if is_realtime() {
            self.spin_on_realtime(driver, now_ns, deadline_ns);
        }
    }

    #[cold]
    fn spin_on_realtime(&mut self, driver: &dyn Driver, now_ns: u64, deadline_ns: u64) {
        let spun_ns = match self.last_ns {
            0 => SPUN_NS.get(),
            last_ns => SPUN_NS.get() + (now_ns - last_ns),
        };
        self.last_ns = now_ns;
        SPUN_NS.set(spun_ns);
        if spun_ns < REALTIME_SPIN_NS {
            return;
        }
        SPUN_NS.set(0);
        self.last_ns = 0;
        let end_ns = now_ns.saturating_add(REALTIME_PAUSE_NS).min(deadline_ns);
        // Nobody wakes it: only the time does.
        driver.park(&AtomicU32::new(0), 0, end_ns);
    }
}

/// Who sleeps at one queue.
pub struct Sleepers {
    pub(crate) driver: Arc<dyn Driver>,
    /// Changed by every wake of a reader.
    pub(crate) reader_word: AtomicU32,
    /// Changed by every wake of a writer.
    pub(crate) writer_word: AtomicU32,
    /// The queue's own descriptor, once asked for.
    pub(crate) event: OnceLock<LoopFd>,
    /// Where the queue reports that it is ready.
    pub(crate) list: OnceLock<Arc<ReadyList>>,
    /// The list of the user's own loop, which hears of room whoever reads the queue.
    pub(crate) rooms: Arc<ReadyList>,
    pub(crate) place: OnceLock<Weak<Place>>,
    /// The task that waits in `Place::poll_ready`.
    pub(crate) task: Mutex<Option<std::task::Waker>>,
    /// Shards of servers, and a client's link, with messages that wait for room.
    pub(crate) shards: Mutex<Vec<std::task::Waker>>,
    pub(crate) wakes: AtomicU64,
    pub(crate) waits: AtomicU64,
}

impl std::fmt::Debug for Sleepers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleepers").finish_non_exhaustive()
    }
}

impl Sleepers {
    pub(crate) fn new(driver: Arc<dyn Driver>, rooms: Arc<ReadyList>) -> Self {
        Self {
            driver,
            rooms,
            reader_word: AtomicU32::new(0),
            writer_word: AtomicU32::new(0),
            event: OnceLock::new(),
            list: OnceLock::new(),
            place: OnceLock::new(),
            task: Mutex::new(None),
            shards: Mutex::new(Vec::new()),
            wakes: AtomicU64::new(0),
            waits: AtomicU64::new(0),
        }
    }

    /// Reports the queue to its list.
    pub(crate) fn list_push(&self) {
        if let (Some(list), Some(place)) = (self.list.get(), self.place.get())
            && let Some(place) = place.upgrade()
        {
            list.push(place);
        }
    }
}

impl Sleepers {
    /// Has a shard woken when room comes. True: it was not to be before.
    pub(crate) fn add_shard(&self, waker: &std::task::Waker) -> bool {
        let mut shards = lock(&self.shards);
        let is_new = !shards.iter().any(|other| other.will_wake(waker));
        // Without memory the shard still has its clock.
        let is_added = is_new && shards.try_reserve(1).is_ok();
        if is_added {
            shards.push(waker.clone());
        }
        is_added
    }

    #[cold]
    pub(crate) fn wake_shards(&self) {
        let shards = std::mem::take(&mut *lock(&self.shards));
        shards.into_iter().for_each(std::task::Waker::wake);
    }
}

/// The face that the queue sees.
pub(crate) struct Waker(pub(crate) Arc<Sleepers>);

impl Wake for Waker {
    fn wake_reader(&self, bits: u32) {
        let sleepers = &self.0;
        sleepers.wakes.fetch_add(1, Ordering::Relaxed);
        if bits & FUTEX != 0 {
            sleepers.reader_word.fetch_add(1, Ordering::Release);
            sleepers.driver.wake(&sleepers.reader_word, u32::MAX);
        }
        if bits & EVENT != 0
            && let Some(event) = sleepers.event.get()
        {
            event.signal();
        }
        if bits & LIST != 0 {
            sleepers.list_push();
        }
        if bits & TASK != 0 {
            sleepers.wake_task();
        }
    }

    fn wake_writers(&self, bits: u32) {
        let sleepers = &self.0;
        if bits & FUTEX != 0 {
            sleepers.writer_word.fetch_add(1, Ordering::Release);
            sleepers.driver.wake(&sleepers.writer_word, u32::MAX);
        }
        if bits & LIST != 0 {
            sleepers.rooms.report_room();
        }
        if bits & LEFT != 0 {
            sleepers.list_push();
        }
        if bits & TASK != 0 {
            sleepers.wake_shards();
        }
    }
}

//! Library threads: they serve the queues whose subscriptions have a handler.
//!
//! No thread exists before the first such subscription. A queue is served by one thread at a time,
//! a bounded number of messages in a row.

use std::alloc::Layout;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use fastmq_driver::scheduling::{SetupError, ThreadOptions, set_up_current_thread};
use fastmq_driver::{Driver, FOREVER_NS, Thread};
use fastmq_memory::allocation::{try_arc, try_box, with_memory};
use fastmq_memory::gate::{LEFT, LIST};
use fastmq_memory::sync::{Mutex, OnceLock, lock};

use crate::broker::Broker;
use crate::call;
use crate::error::{Error, Fault, Result, Status};
use crate::log;
use crate::place::Place;
use crate::ready::ReadyList;
use crate::thread_options::{numbered, refused};
use crate::wait::{Pace, Profile, Spin};

/// Messages that one queue may have handled before the next gets its turn.
const SERVE_MESSAGES: usize = 64;

/// Blocks and their size that the standard library takes to start a thread: its name, its handle,
/// what it runs and what it gives back; some six, and none is larger.
const SPAWN_BLOCKS: usize = 10;
const SPAWN_BYTES: usize = 256;

/// The threads of one broker.
#[derive(Debug)]
pub(crate) struct Threads {
    list: Arc<ReadyList>,
    running: Mutex<Vec<Thread>>,
    max: u32,
    count: Arc<AtomicU32>,
    is_stopping: Arc<AtomicBool>,
}

impl Threads {
    pub(crate) fn new(driver: Arc<dyn Driver>, max: u32) -> Result<Self> {
        Ok(Self {
            list: try_arc(ReadyList::new(driver))?,
            running: Mutex::default(),
            max,
            count: try_arc(AtomicU32::new(0))?,
            is_stopping: try_arc(AtomicBool::new(false))?,
        })
    }

    pub(crate) fn list(&self) -> &Arc<ReadyList> {
        &self.list
    }

    /// Threads that run now.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Starts one more thread, if there may be more.
    pub(crate) fn start(&self, broker: &Arc<Broker>) -> Result<()> {
        let mut running = lock(&self.running);
        if running.len() as u32 >= self.max {
            return Ok(());
        }
        running.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        let list = self.list.clone();
        let weak = Arc::downgrade(broker);
        let is_stopping = self.is_stopping.clone();
        let driver = broker.driver.clone();
        let count = self.count.clone();
        self.count.fetch_add(1, Ordering::Relaxed);
        let options = &broker.options.threads;
        let started = start(
            &broker.driver,
            options,
            ("call", running.len()),
            move || {
                run(&weak, &list, &*driver, &is_stopping);
                count.fetch_sub(1, Ordering::Relaxed);
            },
        );
        let started = started.inspect_err(|_| {
            self.count.fetch_sub(1, Ordering::Relaxed);
        });
        running.push(started?);
        Ok(())
    }

    /// Ends the threads; one that runs a handler is waited for until the deadline.
    pub(crate) fn stop(&self, deadline_ns: u64) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.list.wake();
        let running = std::mem::take(&mut *lock(&self.running));
        let pause = AtomicU32::new(0);
        for thread in running {
            if thread.is_current() {
                continue;
            }
            let driver = self.list.driver();
            let mut pause_ns = 1_000;
            while !thread.is_finished() && driver.monotonic_ns() < deadline_ns {
                let wake_ns = driver.monotonic_ns() + pause_ns;
                driver.park(&pause, 0, deadline_ns.min(wake_ns));
                pause_ns = (pause_ns * 2).min(1_000_000);
            }
            if thread.is_finished() {
                let _ = thread.join();
            } else {
                log::write(
                    log::Level::Warn,
                    "close",
                    "a handler still runs; its thread is left",
                );
            }
        }
    }
}

/// Whether a thread can be what the options say: tries it on one that ends at once.
pub(crate) fn try_options(driver: &Arc<dyn Driver>, options: &ThreadOptions) -> Result<()> {
    if *options == ThreadOptions::default() {
        return Ok(());
    }
    let _ = start(driver, options, ("call", 0), || {})?.join();
    Ok(())
}

/// What a new thread tells the one that starts it.
struct Start {
    /// 1 as soon as the thread is what it was to be, or has failed to be.
    is_known: AtomicU32,
    failure: OnceLock<SetupError>,
}

/// Starts a thread that runs `body` when it is what the options say.
pub(crate) fn start(
    driver: &Arc<dyn Driver>,
    options: &ThreadOptions,
    (kind, number): (&str, usize),
    body: impl FnOnce() + Send + 'static,
) -> Result<Thread> {
    let start = try_arc(Start {
        is_known: AtomicU32::new(0),
        failure: OnceLock::new(),
    })?;
    let mut own = *options;
    if !own.name.is_empty() {
        own.name = numbered(&own.name, number);
    }
    let (told, waker) = (start.clone(), driver.clone());
    let body = try_box(move || {
        let set_up = set_up_current_thread(&own);
        if let Err(error) = set_up {
            let _ = told.failure.set(error);
        }
        told.is_known.store(1, Ordering::Release);
        waker.wake(&told.is_known, 1);
        if set_up.is_ok() {
            body();
        }
    })?;
    let memory = [Layout::new::<[u128; SPAWN_BYTES / 16]>(); SPAWN_BLOCKS];
    let spawned = with_memory(&memory, || driver.spawn(&format!("{kind}-{number}"), body));
    let thread = spawned?.map_err(|error| {
        let fault = &Fault(
            Status::Unsupported,
            "cannot start a thread for THREAD delivery; DISPATCH needs none",
        );
        Error::with_io(fault, fault.1, &error)
    })?;
    while start.is_known.load(Ordering::Acquire) == 0 {
        driver.park(&start.is_known, 0, FOREVER_NS);
    }
    match start.failure.get() {
        None => Ok(thread),
        Some(error) => {
            let _ = thread.join();
            Err(refused(options, *error))
        }
    }
}

fn run(weak: &Weak<Broker>, list: &ReadyList, driver: &dyn Driver, is_stopping: &AtomicBool) {
    let spin = Spin::default();
    loop {
        let seen = list.word.load(Ordering::Acquire);
        if is_stopping.load(Ordering::SeqCst) {
            return;
        }
        let Some(place) = list.pop() else {
            list.park(seen, FOREVER_NS);
            continue;
        };
        // The broker is held only while there is work, so that dropping the last handle closes it.
        let Some(broker) = weak.upgrade() else { return };
        let may_spin = driver.may_spin() && place.profile() != Profile::LowPower;
        let spin = may_spin.then_some(&spin);
        let served = catch_unwind(AssertUnwindSafe(|| {
            serve_for_a_while(&broker, list, &place, driver, spin, is_stopping);
        }));
        if served.is_err() {
            let text = "a handler panicked; the rest of its batch is lost";
            log::write(log::Level::Error, "call", text);
            list.push(place);
        }
    }
}

/// Serves one queue until it has been empty for a spin, or others wait.
fn serve_for_a_while(
    broker: &Arc<Broker>,
    list: &ReadyList,
    place: &Arc<Place>,
    driver: &dyn Driver,
    spin: Option<&Spin>,
    is_stopping: &AtomicBool,
) {
    let mut empty_since_ns = 0;
    let mut pace = Pace::default();
    loop {
        let handled = serve(broker, place, SERVE_MESSAGES).unwrap_or(0);
        if place.is_closed() || is_stopping.load(Ordering::Relaxed) {
            return;
        }
        if handled > 0 {
            if empty_since_ns > 0
                && let Some(spin) = spin
            {
                spin.learn(true);
            }
            empty_since_ns = 0;
            pace = Pace::default();
            if !list.is_empty() {
                list.push(place.clone());
                return;
            }
            continue;
        }
        if let Some(spin) = spin {
            let now_ns = driver.monotonic_ns();
            if empty_since_ns == 0 {
                empty_since_ns = now_ns;
            }
            pace.spin_on(driver, now_ns, FOREVER_NS);
            if now_ns - empty_since_ns < spin.budget_ns(place.profile()) && list.is_empty() {
                for _ in 0..32 {
                    std::hint::spin_loop();
                }
                continue;
            }
            spin.learn(false);
        }
        if rearm(place) {
            return;
        }
        empty_since_ns = 0;
    }
}

/// Lets the next writer report the queue; false if something came meanwhile and must be served.
pub(crate) fn rearm(place: &Place) -> bool {
    place.lanes.readers().arm(LIST);
    let mut has_news = place.has_news();
    if has_news.is_none() {
        // What the reader leaves is seen when it has gone: it reports the queue then.
        place.lanes.writers().arm(LEFT);
        has_news = place.has_news();
    }
    if has_news != Some(true) {
        return true;
    }
    // Whoever takes the bit away reports the queue; if a writer was faster, it already has.
    let was_armed = place.lanes.readers().bits() & LIST != 0;
    place.lanes.readers().disarm(LIST);
    !was_armed
}

/// Calls the queue's handler for up to `limit` waiting messages; returns how many.
pub(crate) fn serve(broker: &Broker, place: &Place, limit: usize) -> Result<usize> {
    let Some(handler) = &place.handler else {
        return Ok(0);
    };
    let mut guard = place.reader()?;
    // Before the look, which may leave the queue empty: a drain sees one or the other.
    *lock(&place.serving) = Some(call::thread_number());
    // Before the batch, so that it is dropped after it, by unwinding too.
    let served = Served { place, broker };
    let found = place.look(broker, &mut guard, limit);
    if !matches!(found, Ok(1..)) {
        drop(guard);
        return found;
    }
    let batch = guard.into_batch();
    call::while_handling(place.id(), || {
        for message in batch.messages() {
            if !handler.is_active.load(Ordering::Acquire) {
                // It was shown in time, if it is not a copy, which knows its own.
                place.skip_unsubscribed(broker, message, u64::MAX);
                continue;
            }
            (handler.call)(message);
        }
    });
    drop(batch);
    drop(served);
    found
}

/// Says that the handler has returned, even if it unwound.
struct Served<'a> {
    place: &'a Place,
    broker: &'a Broker,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        *lock(&self.place.serving) = None;
        self.place.finish(self.broker);
    }
}

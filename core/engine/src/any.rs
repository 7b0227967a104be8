//! One wait over many queues.
//!
//! Each queue has the waiting thread as its task: whoever puts something into one of them wakes it.
//! A queue stays armed until its writer takes that away, so that waiting again costs a look at each
//! queue and no fence.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

use fastmq_driver::{Driver, Parked};
use fastmq_memory::allocation::try_arc;

use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::place::Place;
use crate::thread_client::here;
use crate::wait::{Pace, Profile};

/// Most queues of one wait.
pub const QUEUES_MAX: usize = 1024;
/// Looks at queues between two readings of the clock.
const LOOKS_PER_CLOCK: usize = 32;

/// What a thread sleeps on when it waits for several queues.
pub(crate) struct Sleeper {
    driver: Arc<dyn Driver>,
    word: AtomicU32,
}

impl Sleeper {
    pub(crate) fn new(driver: &Arc<dyn Driver>) -> Result<Arc<Self>> {
        let driver = driver.clone();
        let word = AtomicU32::new(0);
        Ok(try_arc(Self { driver, word })?)
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.word.fetch_add(1, Ordering::Release);
        self.driver.wake(&self.word, 1);
    }
}

thread_local! {
    /// Where the thread's next wait begins to look.
    static NEXT: Cell<usize> = const { Cell::new(0) };
}

/// What is done with one of the queues.
pub type Look<'a> = dyn FnMut(&Place, &Arc<Broker>) -> Result<bool> + 'a;

/// Waits until one of `count` queues has something to receive, and says which.
///
/// `visit` runs its second argument with the queue of an index. The look begins behind the queue
/// that this thread's last wait found, so that none is passed over. Spins as the most eager of the
/// queues does, then sleeps.
///
/// # Errors
/// AGAIN: nothing is there and the time-out is 0. TIMEOUT. END: a queue is empty, and closed or
/// drained. INVALID: no queue, or more than 1,024.
/// MISUSE: a batch of a queue is open, or another thread receives. NO_MEMORY. What `visit` says.
pub fn wait_any(
    count: usize,
    timeout_ns: u64,
    visit: impl Fn(usize, &mut Look<'_>) -> Result<bool>,
) -> Result<usize> {
    if count == 0 || count > QUEUES_MAX {
        return Err(Error::with(
            &Fault(Status::Invalid, "a wait is for 1 to 1,024 queues"),
            format_args!("a wait for {count} queues; between 1 and {QUEUES_MAX}"),
        ));
    }
    let find = |look: &mut Look<'_>| -> Result<Option<usize>> {
        let first = NEXT.get() % count;
        for index in (first..count).chain(0..first) {
            if visit(index, look)? {
                NEXT.set(index + 1);
                return Ok(Some(index));
            }
        }
        Ok(None)
    };
    let (mut broker, mut budget_ns) = (None, 0);
    let found = find(&mut |place, its_broker| {
        budget_ns = budget_ns.max(place.spin_ns(its_broker));
        let _ = broker.get_or_insert_with(|| its_broker.clone());
        place.is_ready(its_broker)
    })?;
    if let Some(index) = found {
        return Ok(index);
    }
    let link = broker.as_ref().and_then(|broker| broker.uplink.clone());
    let mut held =
        (link.as_ref()).and_then(|link| link.take_helm(if timeout_ns == 0 { 0 } else { u64::MAX }));
    if let Some(held) = &mut held {
        // Something of the server may be there already.
        held.turn(0, 0);
        if let Some(index) = find(&mut |place, broker| place.is_ready(broker))? {
            return Ok(index);
        }
    }
    if timeout_ns == 0 {
        let fault = &Fault(Status::Again, "no message is waiting in any of the queues");
        return Err(Error::new(fault));
    }
    let broker = broker.ok_or(Error::CLOSED)?;
    let driver = &broker.driver;
    let start_ns = driver.monotonic_ns();
    let deadline_ns = start_ns.saturating_add(timeout_ns);
    let mut now_ns = start_ns;
    let mut pace = Pace::default();
    while now_ns - start_ns < budget_ns && now_ns < deadline_ns {
        if let Some(held) = &mut held {
            held.turn(0, 0);
        }
        for _ in 0..LOOKS_PER_CLOCK.div_ceil(count) {
            if let Some(index) = find(&mut |place, broker| place.is_ready(broker))? {
                return Ok(index);
            }
            std::hint::spin_loop();
        }
        now_ns = driver.monotonic_ns();
        pace.spin_on(&**driver, now_ns, deadline_ns);
    }
    if let Some(held) = &mut held {
        let (caller, waker) = held.caller()?;
        loop {
            // In this order: whoever has something calls, or it is seen here.
            caller.listen();
            let found = find(&mut |place, broker| place.is_ready_or_wakes(broker, waker))?;
            if let Some(index) = found {
                return Ok(index);
            }
            if now_ns >= deadline_ns {
                return Err(nothing_came());
            }
            if !held.turn(deadline_ns - now_ns, 0) {
                break;
            }
            now_ns = driver.monotonic_ns();
        }
    }
    drop(held);
    let sleeper = here(&broker, |client| client.sleeper())?;
    let waker = Waker::from(sleeper.clone());
    let mut parked = Parked::Woken;
    loop {
        let seen = sleeper.word.load(Ordering::Acquire);
        if let Some(mut held) = link.as_ref().and_then(|link| link.try_helm()) {
            held.turn(0, 0);
        }
        if let Some(index) = find(&mut |place, broker| place.is_ready_or_wakes(broker, &waker))? {
            return Ok(index);
        }
        if parked == Parked::Deadlock || driver.monotonic_ns() >= deadline_ns {
            return Err(nothing_came());
        }
        parked = match &link {
            // Whoever drives may let go: then this thread is to.
            Some(link) if link.helm.is_open() => {
                link.park(&sleeper.word, seen, deadline_ns);
                Parked::Woken
            }
            _ => driver.park(&sleeper.word, seen, deadline_ns),
        };
    }
}

#[cold]
fn nothing_came() -> Error {
    Error::new(&Fault(
        Status::Timeout,
        "no message came to any of the queues within the timeout",
    ))
}

impl Place {
    /// How long a reader of this queue spins before it sleeps.
    fn spin_ns(&self, broker: &Broker) -> u64 {
        match self.profile() {
            Profile::BusyPoll => u64::MAX,
            profile if broker.driver.may_spin() => self.spin.budget_ns(profile),
            _ => 0,
        }
    }
}

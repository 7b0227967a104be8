//! Waiting for a queue as a task of somebody's executor.
//!
//! One task at a time waits for a queue: the one that was polled last is woken. Nothing here starts
//! a thread or keeps time.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use fastmq_memory::ReaderGuard;
use fastmq_memory::gate::TASK;
use fastmq_memory::sync::lock;

use crate::broker::Broker;
use crate::error::Result;
use crate::place::{Place, closed_and_drained};
use crate::request::Requester;
use crate::wait::Sleepers;

/// A future that completes when a receive has something to say: a message, an answer, or the end.
///
/// Any executor can poll it, and no thread of the library is behind it. One task at a time waits
/// for a queue: of several the one that was polled last is woken. Dropping it is fine at any time.
///
/// Its waker is called inside the publish, receive or unsubscribe that has something for it, and
/// must not use the client there: one that polls its task at once panics or waits for ever.
///
/// It completes with MISUSE while a batch of the queue is open or a thread receives.
#[must_use = "a future does nothing until it is polled"]
pub struct Ready<'q> {
    place: &'q Place,
    broker: &'q Broker,
}

impl<'q> Ready<'q> {
    /// Waits for this queue.
    pub fn new(place: &'q Place, broker: &'q Broker) -> Self {
        Self { place, broker }
    }
}

impl fmt::Debug for Ready<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

impl Future for Ready<'_> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.place.poll_ready(self.broker, context)
    }
}

impl Requester {
    /// Completes when `receive` has an answer or a fate.
    ///
    /// A request that times out wakes nobody: a task that must hear of it polls again after
    /// [`Requester::next_deadline`], by the timer of its executor.
    pub fn ready(&mut self) -> Ready<'_> {
        Ready::new(self.place(), self.broker())
    }
}

impl Place {
    /// Whether a receive has something to say: a message, an answer, a fate, or the end. If not,
    /// the task is woken when it may have.
    ///
    /// MISUSE: a batch is open, or a thread receives.
    fn poll_ready(&self, broker: &Broker, context: &mut Context<'_>) -> Poll<Result<()>> {
        let ready = self.reader().map(|mut guard| {
            if self.has_something(broker, &mut guard) {
                return true;
            }
            self.sleepers.set_task(context.waker());
            self.lanes.readers().arm(TASK);
            if self.has_something(broker, &mut guard) {
                self.lanes.readers().disarm(TASK);
                return true;
            }
            false
        });
        // The guard is gone: whoever closed the queue meanwhile has left its emptying to us.
        self.finish(broker);
        match ready {
            Ok(false) => Poll::Pending,
            ready => Poll::Ready(ready.map(|_| ())),
        }
    }
}

impl Place {
    /// Whether a receive has a message.
    ///
    /// END: there is none and none will come. MISUSE: a batch is open, or a thread receives.
    pub(crate) fn is_ready(&self, broker: &Broker) -> Result<bool> {
        let ready = self.reader().and_then(|mut guard| {
            if self.has_message(&mut guard) {
                return Ok(true);
            }
            self.check_not_over(broker)
        });
        self.finish(broker);
        ready
    }

    /// The same; if not, `waker` is woken when it may have. Costs no fence while the queue is still
    /// armed for it.
    pub(crate) fn is_ready_or_wakes(&self, broker: &Broker, waker: &Waker) -> Result<bool> {
        // Before the look: a writer whose message that does not see finds the queue armed.
        let is_armed = self.lanes.readers().bits() & TASK != 0;
        let is_armed = is_armed && self.sleepers.has_task(waker);
        let ready = self.reader().and_then(|mut guard| {
            if !is_armed && !self.has_message(&mut guard) {
                self.sleepers.set_task(waker);
                self.lanes.readers().arm(TASK);
            }
            if self.has_message(&mut guard) {
                return Ok(true);
            }
            self.gather.starve();
            self.check_not_over(broker)
        });
        self.finish(broker);
        ready
    }

    /// False, or END if nothing will come any more.
    fn check_not_over(&self, broker: &Broker) -> Result<bool> {
        if self.is_over(broker) {
            return Err(closed_and_drained());
        }
        Ok(false)
    }

    fn has_message(&self, guard: &mut ReaderGuard<'_>) -> bool {
        self.has_late.load(Ordering::Acquire)
            || self.has_fates.load(Ordering::Acquire)
            || self.has_handed.load(Ordering::Acquire)
            || guard.has_waiting()
    }

    fn has_something(&self, broker: &Broker, guard: &mut ReaderGuard<'_>) -> bool {
        self.has_message(guard) || self.is_over(broker)
    }
}

impl Sleepers {
    /// Keeps the task to wake.
    pub(crate) fn set_task(&self, waker: &Waker) {
        let mut task = lock(&self.task);
        if task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            return;
        }
        // A waker is the user's code: it is neither copied nor dropped under the lock.
        drop(task);
        let waker = waker.clone();
        task = lock(&self.task);
        let before = task.replace(waker);
        drop(task);
        drop(before);
    }

    fn has_task(&self, waker: &Waker) -> bool {
        let task = lock(&self.task);
        task.as_ref().is_some_and(|task| task.will_wake(waker))
    }

    /// Has the task polled again.
    #[cold]
    pub(crate) fn wake_task(&self) {
        let task = lock(&self.task).take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

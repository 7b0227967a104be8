//! How foreign loops watch a queue: its own descriptor, and the list of the client's.
//!
//! A loop is told of messages by the gate's bits, of fates that no record told by `has_fates`, and
//! of deadlines by the timer of a descriptor. What is watched late is looked through once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_driver::fence;
use fastmq_memory::gate::{EVENT, FUTEX, LIST, TASK};

use crate::error::{Error, Fault, Result, Status};
use crate::place::Place;
use crate::ready::ReadyList;

/// No request was submitted, and no loop watches.
pub(crate) const UNASKED: u32 = 0;
/// Requests were submitted without reading the clock.
const ASKED: u32 = 1;
/// A loop watches: each submit reads the clock.
const WATCHED: u32 = 2;

impl Place {
    /// The queue's own descriptor: readable exactly while there is something to do.
    pub fn fd(&self) -> Result<i32> {
        if let Some(event) = self.sleepers.event.get() {
            return Ok(event.fd());
        }
        let event = self.sleepers.driver.loop_fd().map_err(|error| {
            let fault = &Fault(Status::Io, "cannot make the queue's descriptor");
            Error::with_io(fault, fault.1, &error)
        })?;
        let _ = self.sleepers.event.set(event);
        let Some(event) = self.sleepers.event.get() else {
            return Err(Error::new(&Fault(
                Status::Internal,
                "the queue's descriptor is gone",
            )));
        };
        self.lanes.readers().arm(EVENT);
        self.watch_deadlines();
        // Whether something waits already can only be seen by the reader; if one is at work now,
        // a signal too many costs it one empty look.
        let is_ready = self.has_news() != Some(false);
        if is_ready || self.is_closed() {
            event.signal();
        }
        self.set_event_deadline();
        Ok(event.fd())
    }

    pub(crate) fn set_event_deadline(&self) {
        if let Some(event) = self.sleepers.event.get() {
            let deadline_ns = self.deadline_ns.load(Ordering::Relaxed);
            event.set_deadline((deadline_ns != u64::MAX).then_some(deadline_ns));
        }
    }

    /// True if a loop looks at the list where this queue reports.
    pub(crate) fn is_watched(&self) -> bool {
        let list = self.sleepers.list.get();
        list.is_some_and(|list| list.is_watched())
    }

    /// Joins the list of the user's own loop.
    pub(crate) fn join(&self, list: &Arc<ReadyList>) {
        let _ = self.sleepers.list.set(list.clone());
        // The queue is empty and has no writer yet: there is nothing to look for again.
        if list.is_watched() {
            self.lanes.readers().arm(LIST);
            self.watch_deadlines();
        }
    }

    /// Asks for a report to the user's own loop, and to `shard`, when room comes.
    pub(crate) fn want_room(&self, shard: Option<&std::task::Waker>) {
        let sleepers = &self.sleepers;
        let writers = self.lanes.writers();
        let mut bits = 0;
        if sleepers.rooms.is_watched() && writers.bits() & LIST == 0 {
            bits |= LIST;
        }
        if shard.is_some_and(|shard| sleepers.add_shard(shard)) {
            bits |= TASK;
        }
        if bits == 0 {
            return;
        }
        writers.arm(bits);
        // A reader that took the last message before it could see that never comes back.
        if self.statistics().pending == 0 {
            writers.disarm(bits);
            if bits & LIST != 0 {
                sleepers.rooms.report_room();
            }
            if bits & TASK != 0 {
                sleepers.wake_shards();
            }
        }
    }

    /// Waits until room may have come, or `deadline_ns`. `try_again` is called after arming.
    pub(crate) fn wait_for_room(
        &self,
        deadline_ns: u64,
        mut try_again: impl FnMut() -> bool,
    ) -> bool {
        let driver = &self.sleepers.driver;
        let seen = self.sleepers.writer_word.load(Ordering::Acquire);
        self.lanes.writers().arm(FUTEX);
        if try_again() {
            self.lanes.writers().disarm(FUTEX);
            return true;
        }
        driver.park(&self.sleepers.writer_word, seen, deadline_ns);
        false
    }

    /// Whether a receive would find something; `None` while somebody receives.
    pub(crate) fn has_news(&self) -> Option<bool> {
        // In this order: the requester says that it has fates before it takes the late ones.
        let kept = [&self.has_late, &self.has_fates, &self.has_handed];
        if kept.iter().any(|has_some| has_some.load(Ordering::Acquire)) {
            return Some(true);
        }
        self.lanes.has_waiting()
    }

    /// The requester has a fate that no record told: loops must hear of it.
    #[cold]
    pub(crate) fn report_fate(&self) {
        self.has_fates.store(true, Ordering::Release);
        // Pairs with the heavy fence of `arm`: a loop that begins to watch now sees the fate, or
        // we see the loop.
        fence::light();
        if let Some(event) = self.sleepers.event.get() {
            event.signal();
        }
        if self.is_watched() {
            self.sleepers.list_push();
        }
    }

    /// After a submit: true if a loop must hear of its deadline.
    #[inline(always)]
    pub(crate) fn is_deadline_watched(&self) -> bool {
        self.asking.load(Ordering::Relaxed) != ASKED && self.is_watched_from_start()
    }

    #[cold]
    fn is_watched_from_start(&self) -> bool {
        let (order, failed) = (Ordering::AcqRel, Ordering::Acquire);
        let first = self.asking.compare_exchange(UNASKED, ASKED, order, failed);
        first.is_err()
    }

    /// From now on each submit makes its deadline known. Those of earlier ones are not: the loop
    /// is told that one has passed, and the receive that follows reads the clock for all.
    pub(crate) fn watch_deadlines(&self) {
        if self.asking.swap(WATCHED, Ordering::AcqRel) == ASKED {
            let now_ns = self.sleepers.driver.monotonic_ns();
            self.deadline_ns.fetch_min(now_ns, Ordering::Release);
        }
    }

    /// The next deadline of the requests in flight: tells the loops that watch.
    #[cold]
    pub(crate) fn report_deadline(&self, deadline_ns: u64) {
        if self.deadline_ns.swap(deadline_ns, Ordering::SeqCst) == deadline_ns {
            return;
        }
        self.set_event_deadline();
        // Of the client's descriptor this is one deadline of several: it is never taken away here.
        if deadline_ns != u64::MAX
            && let Some(list) = self.sleepers.list.get()
            && let Some(fd) = list.existing_fd()
        {
            fd.set_deadline(Some(deadline_ns));
        }
    }
}

//! How things end: subscriptions, queues, a drain, the broker.
//!
//! Nothing here may fail for want of memory, nor wait longer than its deadline. What is marked as
//! closed is marked first; then comes the waiting for what runs.

use std::sync::Arc;
use std::sync::atomic::{self, AtomicU32, Ordering};

use fastmq_driver::fence;
use fastmq_memory::snapshot;
use fastmq_memory::sync::lock;
use fastmq_memory::view::View;

use crate::broker::{Broker, CLOSED, DRAINED, DRAINING, OPEN};
use crate::call::{self, Draining};
use crate::ended::DropEnded;
use crate::error::{Error, Fault, Result, Status};
use crate::log;
use crate::place::Place;
use crate::subscription::{Entry, Handler, Target};

impl Broker {
    /// Closes a queue and ends the subscriptions that feed it. An open batch stays readable until
    /// it is dropped; requests that wait are answered CANCELLED.
    pub fn close_queue(&self, place: &Arc<Place>) {
        {
            // Under the lock: whoever subscribes finds the queue closed, or is found here.
            let _subscribing = lock(&self.subscribing);
            place.lanes.close();
        }
        if place.subscriptions.load(Ordering::Acquire) > 0 {
            let is_feeding = |entry: &Entry| {
                let queue = entry.value().target().queue();
                queue.is_some_and(|other| Arc::ptr_eq(other, place))
            };
            self.end_those(is_feeding, None);
        }
        place.close(self);
        if let Some(list) = place.sleepers.list.get() {
            list.remove(place);
        }
        self.forget_place(place);
    }

    /// Ends all subscriptions that are meant; a queue whose handler is called ends with its own.
    fn end_those(&self, is_meant: impl Fn(&Entry) -> bool, deadline_ns: Option<u64>) {
        // As many at once as there is memory for, and one at least.
        loop {
            let (mut first, mut others) = (None, Vec::new());
            self.interest.for_each(|entry| {
                if !is_meant(entry) {
                    return;
                }
                if first.is_none() {
                    first = Some(entry.clone());
                } else if others.try_reserve(1).is_ok() {
                    others.push(entry.clone());
                }
            });
            let Some(first) = first else { return };
            for entry in others.into_iter().chain([first]) {
                let (pattern, target) = (entry.pattern().as_bytes(), entry.value().target());
                let owns = target.queue().is_some_and(|place| place.handler.is_some());
                self.unsubscribe(pattern, entry.id(), target, owns, deadline_ns);
            }
        }
    }

    /// Takes a subscription out of the table, but leaves its number, so that what waits in its
    /// queue can be received. True: `forget_subscription` is to follow.
    pub(crate) fn stop_subscription(&self, pattern: &[u8], id: u32) -> bool {
        let (removed, is_told) = self.remove(pattern, id);
        if let Some(group) = removed.as_ref().and_then(|entry| entry.value().keyed()) {
            group.leave(id);
        }
        if is_told {
            self.presence.wake(self);
        }
        removed.is_some()
    }

    /// What follows when nothing of a stopped subscription waits any more, or is wanted.
    pub(crate) fn forget_subscription(&self, id: u32, place: &Place) {
        self.slots.give(id);
        self.end_streams(id);
        place.subscriptions.fetch_sub(1, Ordering::AcqRel);
        place.lanes.forget_replays(id);
        if place.is_latest() {
            place.lanes.forget_latest(id);
        }
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
        let _ended = DropEnded;
        // Closing the client or the queue may have ended it; its handler may run all the same.
        let (removed, is_told) = self.remove(pattern, id);
        let is_first = removed.is_some();
        if let Some(entry) = removed {
            self.slots.give(id);
            self.end_streams(id);
            if let Some(group) = entry.value().keyed() {
                group.leave(id);
            }
            if let Some(uplink) = &self.uplink {
                uplink.unsubscribe(id);
            }
        }
        if is_told {
            self.presence.wake(self);
        }
        match target {
            Target::Inline(handler) => self.rest_inline(handler, deadline_ns),
            Target::Queue(place) => {
                if is_first {
                    place.subscriptions.fetch_sub(1, Ordering::AcqRel);
                    place.lanes.forget_replays(id);
                    if place.is_latest() {
                        place.lanes.forget_latest(id);
                    }
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

    /// Ends the reply streams of a subscription that has ended.
    fn end_streams(&self, id: u32) {
        // Pairs with the fence of who opens one: either it is counted here, or the opener sees that
        // the subscription is gone.
        atomic::fence(Ordering::SeqCst);
        if self.streams.load(Ordering::SeqCst) == 0 {
            return;
        }
        // One at a time: telling the asker may call the user's own waker.
        let mut index = 0;
        while let Some(place) = self.nth_requester(index) {
            if let Some(place) = place
                && lock(&place.surveys).unsubscribed(self, id)
            {
                place.report_ended();
            }
            index += 1;
        }
    }

    fn nth_requester(&self, index: usize) -> Option<Option<Arc<Place>>> {
        lock(&self.requesters).nth(index)
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
        let me = call::thread_number();
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
    /// A queue whose handler calls this is left out, and so are handlers that call this too: two
    /// would wait for each other. TIMEOUT: something still waits; the sentence
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
        if let Some(uplink) = &self.uplink {
            uplink.drain(deadline_ns)?;
        }
        let draining = Draining::new(self.id());
        let pause = AtomicU32::new(0);
        let mut pause_ns = 1_000;
        loop {
            let (queues, messages, serving) = self.undrained(&draining);
            let handlers = serving + self.inline_running(&draining);
            if queues == 0 && handlers == 0 && !self.is_held_up() {
                self.end_drain();
                return Ok(());
            }
            let now_ns = self.driver.monotonic_ns();
            if now_ns >= deadline_ns {
                return Err(match queues {
                    0 => Error::with(
                        &Fault(Status::Timeout, "handlers still run"),
                        format_args!("{handlers} handlers still run on other threads"),
                    ),
                    _ => Error::with(
                        &Fault(Status::Timeout, "messages still wait"),
                        format_args!("{messages} messages still wait in {queues} queues"),
                    ),
                });
            }
            if self.is_closed() {
                return Err(Error::CLOSED);
            }
            self.driver
                .park(&pause, 0, deadline_ns.min(now_ns + pause_ns));
            pause_ns = (pause_ns * 2).min(1_000_000);
        }
    }

    /// Whether a remote client has deliveries that wait beside full queues. Who drives a client
    /// itself drives it here, too.
    fn is_held_up(&self) -> bool {
        let Some(uplink) = &self.uplink else {
            return false;
        };
        if uplink.held() > 0 && uplink.is_polled() {
            uplink.dispatch();
        }
        uplink.held() > 0
    }

    /// Queues that are not empty, the messages in them, and empty ones whose handler runs: what
    /// was copied out for it, or stands beside the queue, waits there no more.
    fn undrained(&self, draining: &Draining) -> (usize, u64, usize) {
        let handling = call::handling();
        let (mut queues, mut messages, mut serving) = (0, 0, 0);
        for place in self.all_places() {
            // In this order: whoever takes the last message says before that it serves.
            let pending = place.statistics().pending + place.handed_count();
            let server = *lock(&place.serving);
            let is_mine =
                place.id() == handling || server.is_some_and(|thread| draining.leaves_out(thread));
            // What comes too late for a question of this or another thread is read by nobody.
            let is_mine = is_mine || place.is_of_a_thread();
            if is_mine || place.is_closed() {
                continue;
            }
            if pending > 0 {
                queues += 1;
                messages += pending;
            } else {
                serving += usize::from(server.is_some());
            }
        }
        (queues, messages, serving)
    }

    /// Inline handlers that run on other threads now.
    fn inline_running(&self, draining: &Draining) -> usize {
        if !draining.waits_for(|serial| serial != 0) {
            return 0;
        }
        let mut handlers = 0;
        self.interest.for_each(|entry| {
            if let Target::Inline(handler) = entry.value().target() {
                let serial = handler.serial;
                handlers += usize::from(draining.waits_for(|other| other == serial));
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
        // Whoever subscribes has entered the table by now, or finds the broker closed.
        drop(lock(&self.subscribing));
        let deadline_ns = self.close_deadline();
        self.interest.for_each(|entry| {
            // Quick first: nothing new starts anywhere while we wait for what runs.
            if let Some(place) = entry.value().target().queue() {
                if let Some(handler) = &place.handler {
                    handler.is_active.store(false, Ordering::Release);
                }
                place.lanes.close();
            }
        });
        self.end_those(|_| true, Some(deadline_ns));
        for place in self.all_places() {
            self.close_queue(&place);
        }
        self.kept.clear();
        self.threads.stop(deadline_ns);
        if let Some(uplink) = &self.uplink {
            uplink.close(deadline_ns);
        }
        self.polled.wake();
        crate::thread_client::forget_thread_client(self.id());
        // The last subscriptions, and with them their queues: else their memory would stay until
        // something is subscribed or unsubscribed in this process.
        let _ended = DropEnded;
        snapshot::flush();
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
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.close();
    }
}

impl Place {
    /// A message for a subscription that is gone: left out, or handed over to the others of its
    /// group, to expire when it would have. A request's asker is told.
    #[cold]
    pub(crate) fn skip_unsubscribed(&self, broker: &Broker, view: &View, expiry_ns: u64) {
        if view.token != 0 {
            broker.answer_late(view.token, Status::Cancelled);
        } else {
            self.hand_over(broker, view, false, expiry_ns);
        }
    }
}

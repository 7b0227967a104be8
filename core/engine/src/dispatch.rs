//! The user's own loop: one descriptor for the client, one call that does what is ready.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_memory::sync::lock;

use crate::broker::Broker;
use crate::error::{Error, Result, Status};
use crate::link::Uplink;
use crate::place::Place;
use crate::ready::ReadyList;
use crate::threads;

/// Most messages handled between two looks at the clock; one at first, and more while they take
/// little of the budget.
const MESSAGES_PER_CLOCK: usize = 16;

/// What `dispatch` found.
pub mod ready {
    /// Messages wait in a queue that is pulled, or were handled.
    pub const MESSAGES: u32 = 1;
    /// A requester has answers.
    pub const ANSWERS: u32 = 2;
    /// A queue that refused a publish has room.
    pub const ROOM: u32 = 4;
    /// A deadline has passed.
    pub const DEADLINE: u32 = 8;
    /// The budget ended before the work.
    pub const MORE: u32 = 16;
}

/// Pulled queues that still hold something: back into the list, since readable means readable, but
/// not before this dispatch has seen the others.
struct Pulled<'a> {
    list: &'a ReadyList,
    places: Vec<Arc<Place>>,
}

impl Pulled<'_> {
    /// Keeps a queue for later; false: without memory it stands in the list again, and this
    /// dispatch must end before it meets it.
    fn keep(&mut self, place: Arc<Place>) -> bool {
        if self.places.try_reserve(1).is_err() {
            self.list.push(place);
            return false;
        }
        self.places.push(place);
        true
    }
}

impl Drop for Pulled<'_> {
    fn drop(&mut self) {
        for place in self.places.drain(..) {
            self.list.push(place);
        }
    }
}

/// A pulled queue in the list: what it still holds.
fn report(place: &Place) -> u32 {
    if place.has_news() != Some(true) && threads::rearm(place) {
        return 0;
    }
    if place.is_answers() {
        ready::ANSWERS
    } else {
        ready::MESSAGES
    }
}

impl Broker {
    /// The client's descriptor: readable exactly while `dispatch` has something to do.
    pub fn fd(self: &Arc<Self>) -> Result<i32> {
        self.check_open()?;
        let is_new = self.polled.existing_fd().is_none();
        let loop_fd = self.polled.fd()?;
        if let Some(uplink) = self.polled_uplink()
            && is_new
        {
            uplink.join_loop(&self.polled, loop_fd)?;
        }
        let fd = loop_fd.fd();
        self.watch_all();
        self.update_deadline();
        Ok(fd)
    }

    /// Pulled queues and requesters report from the first call on.
    fn watch_all(&self) {
        if self.polled.watch() {
            for place in self.all_places() {
                self.watch(&place);
            }
        }
    }

    /// Makes a queue report to the client's list when it next has something.
    fn watch(&self, place: &Arc<Place>) {
        let is_polled = place
            .sleepers
            .list
            .get()
            .is_some_and(|list| Arc::ptr_eq(list, &self.polled));
        if is_polled {
            place.watch_deadlines();
            if !threads::rearm(place) {
                self.polled.push(place.clone());
            }
        }
    }

    /// Calls handlers of DISPATCH subscriptions and says what else is ready, within a budget of
    /// messages (0: no limit) and nanoseconds (0: no limit).
    pub fn dispatch(self: &Arc<Self>, message_max: u32, budget_ns: u64) -> Result<u32> {
        if self.is_closed() {
            return Err(Error::CLOSED);
        }
        self.watch_all();
        let uplink = self.polled_uplink();
        if let Some(uplink) = uplink {
            uplink.dispatch();
        }
        let has_fd = self.polled.existing_fd();
        let mut start_ns = 0;
        if budget_ns > 0 {
            start_ns = self.driver.monotonic_ns();
        }
        let mut left = if message_max == 0 {
            usize::MAX
        } else {
            message_max as usize
        };
        let mut ready = 0;
        if self.polled.take_room() {
            ready |= ready::ROOM;
        }
        let mut pulled = Pulled {
            list: &self.polled,
            places: Vec::new(),
        };
        let mut over = false;
        let mut has_served = false;
        while !over {
            let Some(place) = self.polled.pop() else {
                break;
            };
            if place.is_closed() {
                continue;
            }
            if place.handler.is_none() {
                let found = report(&place);
                ready |= found;
                if found != 0 && !pulled.keep(place) {
                    ready |= ready::MORE;
                    over = true;
                }
                continue;
            }
            let mut chunk = 1;
            loop {
                let before_ns = if budget_ns > 0 {
                    self.driver.monotonic_ns()
                } else {
                    0
                };
                // One message at least, or a small budget would never get anywhere.
                let is_late = budget_ns > 0 && has_served && before_ns - start_ns >= budget_ns;
                if left == 0 || is_late {
                    // To the end: the next call begins with the others.
                    self.polled.push(place);
                    ready |= ready::MORE;
                    over = true;
                    break;
                }
                let limit = match budget_ns {
                    0 => left.min(256),
                    _ => left.min(chunk),
                };
                let handled = match threads::serve(self, &place, limit) {
                    Ok(handled) => handled,
                    // Its handler calls dispatch: it goes on when that has returned.
                    Err(error) if error.status() == Status::Misuse => {
                        over = !pulled.keep(place);
                        break;
                    }
                    Err(error) => {
                        self.polled.push(place);
                        return Err(error);
                    }
                };
                if handled > 0 {
                    ready |= ready::MESSAGES;
                    has_served = true;
                    if budget_ns > 0 {
                        let spent_ns = self.driver.monotonic_ns() - before_ns;
                        let is_cheap = spent_ns < budget_ns / MESSAGES_PER_CLOCK as u64;
                        chunk = if is_cheap {
                            (chunk * 2).min(MESSAGES_PER_CLOCK)
                        } else {
                            1
                        };
                    }
                    left = left.saturating_sub(handled);
                    continue;
                }
                if place.is_closed() || threads::rearm(&place) {
                    break;
                }
            }
        }
        drop(pulled);
        let now_ns = self.driver.monotonic_ns();
        if self.earliest_deadline() <= now_ns {
            ready |= ready::DEADLINE | ready::ANSWERS;
        }
        if let Some(fd) = has_fd
            && self.polled.is_empty()
        {
            fd.clear();
            if !self.polled.is_empty() {
                fd.signal();
            }
            if let Some(uplink) = uplink {
                uplink.send_added();
            }
            self.update_deadline();
        }
        Ok(ready)
    }

    fn update_deadline(&self) {
        if let Some(fd) = self.polled.existing_fd() {
            let deadline_ns = self.earliest_deadline().min(self.turn_due_ns());
            fd.set_deadline((deadline_ns != u64::MAX).then_some(deadline_ns));
        }
    }

    /// The link that nobody drives but calls of this client.
    fn polled_uplink(&self) -> Option<&Uplink> {
        self.uplink.as_deref().filter(|uplink| uplink.is_polled())
    }

    /// When that has something to do, though nothing may have come.
    fn turn_due_ns(&self) -> u64 {
        self.polled_uplink().map_or(u64::MAX, Uplink::due_ns)
    }

    /// Only queues of answers have deadlines.
    fn earliest_deadline(&self) -> u64 {
        let requesters = lock(&self.requesters);
        let deadlines = requesters
            .places()
            .map(|place| place.deadline_ns.load(Ordering::Relaxed));
        deadlines.min().unwrap_or(u64::MAX)
    }

    /// Nanoseconds until something times out; `u64::MAX`: nothing will.
    pub fn next_deadline(&self) -> u64 {
        self.watch_all();
        match self.earliest_deadline().min(self.turn_due_ns()) {
            u64::MAX => u64::MAX,
            deadline_ns => deadline_ns.saturating_sub(self.driver.monotonic_ns()),
        }
    }
}

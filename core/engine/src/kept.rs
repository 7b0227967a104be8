//! Last values: of each subject whose publisher asks for it, the newest message, for whoever
//! subscribes later and asks for it, too.
//!
//! What is promised to a subscriber: of each matching subject it gets the value that was kept when
//! it subscribed, before any newer message of that subject, and each of those once. The message
//! that a publisher sends meanwhile is either on its way by a route that leads to the new
//! subscription, or it is not and is handed over when it has arrived everywhere else. So a publish
//! that keeps is a *flight*: it begins under the table's lock with a route that is current there,
//! and ends under it; in between it sends as any other, handlers included. Whoever subscribes does
//! so under that lock: a flight which had begun does not know him, and he waits for it as a
//! *newcomer*; one which begins later has a route that leads to him.
//!
//! A message that was refused is not kept. Of two publishes at once, the one that began last has
//! the last value: so has one that a handler makes inside the other. A newcomer who was given that
//! value does not get the other any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use fastmq_driver::Driver;
use fastmq_memory::sync::{Mutex, lock};
use fastmq_memory::{Draft, KeptMessage};
use fastmq_route::matches;

use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::place::Place;
use crate::route::Route;
use crate::writer::{Message, Writer};

/// Subjects of which a client keeps the last value.
pub(crate) const KEPT_MAX: usize = 65_536;
/// How long whoever adds a replay pauses at first, and at most, while a reader looks.
const PAUSE_NS: u64 = 1_000;
const PAUSE_NS_MAX: u64 = 1_000_000;

/// The last values of a client.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Box<[u8]>, Entry>,
    /// Numbers flights as they begin.
    next: u64,
    /// When the first value expires, or one that is gone: monotonic nanoseconds; `None`: never.
    expires_ns: Option<u64>,
}

/// A subject.
#[derive(Debug, Default)]
struct Entry {
    /// The value, and the number of its flight.
    last: Option<(u64, Arc<KeptMessage>)>,
    /// Those under way.
    flights: Vec<u64>,
    newcomers: Vec<Newcomer>,
}

/// A subscription that flights under way do not know.
#[derive(Debug)]
struct Newcomer {
    /// Flights from this one on know it.
    until: u64,
    place: Arc<Place>,
    subscription: u32,
    /// Its reader has to be woken.
    is_due: bool,
}

impl Entry {
    fn is_unused(&self) -> bool {
        self.last.is_none() && self.flights.is_empty() && self.newcomers.is_empty()
    }

    /// Drops newcomers for whom nothing is left to do.
    fn drop_newcomers(&mut self) {
        let flights = &self.flights;
        self.newcomers.retain(|newcomer| {
            newcomer.is_due || flights.iter().any(|other| *other < newcomer.until)
        });
    }
}

impl Kept {
    /// How many values there are.
    pub(crate) fn count(&self) -> u64 {
        lock(&self.table).entries.len() as u64
    }

    /// Begins to publish to a subject, or `None` if the route is not right any more.
    fn begin(
        &self,
        broker: &Broker,
        subject: &[u8],
        is_current: impl Fn() -> bool,
    ) -> Result<Option<u64>> {
        let mut table = lock(&self.table);
        // Nothing is added once `clear` has been here.
        if !broker.is_open() {
            return Err(broker.closed_error());
        }
        if !is_current() {
            return Ok(None);
        }
        let flight = table.next;
        if !table.entries.contains_key(subject) {
            if table.entries.len() >= KEPT_MAX {
                table.drop_expired(broker.driver.monotonic_ns());
            }
            table.add(subject)?;
        }
        if let Some(entry) = table.entries.get_mut(subject) {
            if entry.flights.try_reserve(1).is_err() {
                if entry.is_unused() {
                    table.entries.remove(subject);
                }
                return Err(Error::NO_MEMORY);
            }
            entry.flights.push(flight);
        }
        table.next += 1;
        Ok(Some(flight))
    }

    /// Ends a flight: its message is the last value, or was refused.
    fn end(&self, broker: &Broker, subject: &[u8], flight: u64, kept: Option<Arc<KeptMessage>>) {
        let mut table = lock(&self.table);
        let Some(entry) = table.entries.get_mut(subject) else {
            return;
        };
        entry.flights.retain(|other| *other != flight);
        // What began earlier is older than what is kept.
        let is_newer = |(last, _): &(u64, _)| *last < flight;
        let kept = kept.filter(|_| entry.last.as_ref().is_none_or(is_newer));
        let unknowing = |newcomer: &&mut Newcomer| flight < newcomer.until;
        let mut is_any_due = false;
        for newcomer in entry.newcomers.iter_mut().filter(unknowing) {
            let place = &newcomer.place;
            match &kept {
                Some(kept) => {
                    place.lanes.add_replay(newcomer.subscription, kept.clone());
                    place.await_look(&*broker.driver);
                    newcomer.is_due = true;
                    is_any_due = true;
                }
                None => place.lanes.give_up_replays(1),
            }
        }
        entry.drop_newcomers();
        let expires_ns = kept.as_ref().and_then(|kept| kept.expires_ns());
        let old = match kept {
            Some(kept) => entry.last.replace((flight, kept)),
            None => None,
        };
        let unused = match entry.is_unused() {
            true => table.entries.remove_entry(subject),
            false => None,
        };
        table.note_expiry(expires_ns);
        drop(table);
        drop((old, unused));
        while is_any_due {
            is_any_due = self.notice_next(broker, subject);
        }
    }

    /// Wakes the reader of a newcomer that has to be woken; false: there is none. One by one, since
    /// waking may call the user's own waker, which may publish.
    fn notice_next(&self, broker: &Broker, subject: &[u8]) -> bool {
        let mut table = lock(&self.table);
        let Some(entry) = table.entries.get_mut(subject) else {
            return false;
        };
        let Some(newcomer) = entry.newcomers.iter_mut().find(|one| one.is_due) else {
            return false;
        };
        newcomer.is_due = false;
        let place = newcomer.place.clone();
        entry.drop_newcomers();
        // Its value may have been forgotten meanwhile.
        if entry.is_unused() {
            table.entries.remove(subject);
        }
        drop(table);
        place.notice_added(broker);
        true
    }

    /// Enters a subscription by `enter`, and gives it the last values that match.
    pub(crate) fn join(
        &self,
        broker: &Broker,
        pattern: &[u8],
        subscription: u32,
        place: &Arc<Place>,
        enter: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut table = lock(&self.table);
        let (mut found, mut flights) = (Vec::new(), 0);
        let mut is_refused = false;
        let clock = || broker.driver.monotonic_ns();
        table.each(pattern, |entry| {
            entry.last.take_if(|(_, kept)| kept.is_expired(&clock));
            if let Some(last) = &entry.last {
                is_refused |= found.try_reserve(1).is_err();
                if !is_refused {
                    found.push(last.clone());
                }
            }
            if !entry.flights.is_empty() {
                flights += entry.flights.len();
                is_refused |= entry.newcomers.try_reserve(1).is_err();
            }
        });
        if is_refused || place.lanes.promise_replays(found.len() + flights).is_err() {
            return Err(Error::NO_MEMORY);
        }
        // In the order in which they were published.
        found.sort_unstable_by_key(|(flight, _)| *flight);
        let has_found = !found.is_empty();
        for (_, kept) in found {
            place.lanes.add_replay(subscription, kept);
        }
        if has_found {
            // Before anything newer can come.
            place.await_look(&*broker.driver);
        }
        if let Err(error) = enter() {
            place.lanes.forget_replays(subscription);
            place.lanes.give_up_replays(flights);
            return Err(error);
        }
        if flights > 0 {
            let until = table.next;
            table.each(pattern, |entry| {
                if !entry.flights.is_empty() {
                    entry.newcomers.push(Newcomer {
                        until,
                        place: place.clone(),
                        subscription,
                        is_due: false,
                    });
                }
            });
        }
        drop(table);
        if has_found {
            place.notice_added(broker);
        }
        Ok(())
    }

    /// Forgets the last value of a subject; false: there is none.
    fn forget(&self, subject: &[u8]) -> bool {
        let mut table = lock(&self.table);
        let Some(entry) = table.entries.get_mut(subject) else {
            return false;
        };
        let last = entry.last.take();
        let unused = match entry.is_unused() {
            true => table.entries.remove_entry(subject),
            false => None,
        };
        drop(table);
        drop(unused);
        last.is_some()
    }

    /// Drops the values whose time is over; false: there are none.
    #[cold]
    fn drop_expired(&self, broker: &Broker) -> bool {
        lock(&self.table).drop_expired(broker.driver.monotonic_ns())
    }

    /// Forgets all last values: the client is closed.
    pub(crate) fn clear(&self) {
        let mut table = lock(&self.table);
        let entries = std::mem::take(&mut table.entries);
        drop(table);
        drop(entries);
    }
}

impl Table {
    fn add(&mut self, subject: &[u8]) -> Result<()> {
        if self.entries.len() >= KEPT_MAX {
            return Err(Error::with(
                &Fault(Status::NoSpace, "too many last values are kept"),
                format_args!("{KEPT_MAX} last values are kept already; forget some"),
            ));
        }
        let refused = |_| Error::NO_MEMORY;
        self.entries.try_reserve(1).map_err(refused)?;
        let subject = fastmq_memory::allocation::try_bytes(subject)?;
        self.entries.insert(subject, Entry::default());
        Ok(())
    }

    fn note_expiry(&mut self, expires_ns: Option<u64>) {
        self.expires_ns = self.expires_ns.into_iter().chain(expires_ns).min();
    }

    /// Drops the values whose time is over; false: there are none. Looks at them only if there may
    /// be some.
    fn drop_expired(&mut self, now_ns: u64) -> bool {
        if self.expires_ns.is_none_or(|first| first >= now_ns) {
            return false;
        }
        let (mut is_any, mut first) = (false, None::<u64>);
        self.entries.retain(|_, entry| {
            let expires_ns = entry.last.as_ref().and_then(|(_, kept)| kept.expires_ns());
            if expires_ns.is_some_and(|expires_ns| expires_ns < now_ns) {
                entry.last = None;
                is_any = true;
            } else {
                first = first.into_iter().chain(expires_ns).min();
            }
            !entry.is_unused()
        });
        self.expires_ns = first;
        is_any
    }

    /// Visits the subjects that match, and drops those of which nothing is left.
    fn each(&mut self, pattern: &[u8], mut visit: impl FnMut(&mut Entry)) {
        let is_wild = |token: &[u8]| matches!(token, b"*" | b">");
        if pattern.split(|byte| *byte == b'.').any(is_wild) {
            self.entries.retain(|subject, entry| {
                if matches(pattern, subject) {
                    visit(entry);
                }
                !entry.is_unused()
            });
        } else if let Some(entry) = self.entries.get_mut(pattern) {
            visit(entry);
            if entry.is_unused() {
                self.entries.remove(pattern);
            }
        }
    }
}

/// A publish that keeps, under way.
struct Flight<'a> {
    broker: &'a Broker,
    subject: &'a [u8],
    number: u64,
    /// What is kept if it arrives.
    kept: Option<Arc<KeptMessage>>,
}

impl Flight<'_> {
    fn end(mut self, has_arrived: bool) {
        if !has_arrived {
            self.kept = None;
        }
    }
}

impl Drop for Flight<'_> {
    /// A handler that unwinds ends it, too: the message has arrived at others.
    fn drop(&mut self) {
        let kept = self.kept.take();
        let broker = self.broker;
        broker.kept.end(broker, self.subject, self.number, kept);
    }
}

impl Writer {
    /// Sends a message along a route, or a newer one, and keeps it as the last value.
    #[inline(never)]
    pub(crate) fn send_kept(
        &self,
        route: Option<&Route>,
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<()> {
        let (broker, subject) = (&*self.broker, draft.subject);
        if broker.uplink.is_some() {
            return Err(KEPT_REMOTE);
        }
        let copy = || KeptMessage::new(draft, self.publisher(), &broker.budget);
        let mut kept = copy();
        if kept.is_err() && broker.kept.drop_expired(broker) {
            kept = copy();
        }
        let kept = kept.map_err(|refused| self.count_refused(refused))?;
        let mut fresh = None;
        loop {
            let route = match (&fresh, route) {
                (Some(route), _) | (None, Some(route)) => route,
                (None, None) => {
                    fresh = Some(self.make_route(self.hash.hash(subject), subject)?);
                    continue;
                }
            };
            let Some(number) = broker
                .kept
                .begin(broker, subject, || self.is_current(route))?
            else {
                fresh = Some(self.make_route(self.hash.hash(subject), subject)?);
                continue;
            };
            let flight = Flight {
                broker,
                subject,
                number,
                kept: Some(kept),
            };
            let sent = self.send(&route.targets, message, draft);
            flight.end(sent.is_ok());
            return sent;
        }
    }

    /// Publishes a message by subject and keeps it.
    #[inline(never)]
    pub(crate) fn publish_kept(
        &self,
        hash: u64,
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<()> {
        let is_known = match self.routes.try_borrow() {
            Ok(routes) => routes.get(hash, message.subject).is_some(),
            Err(_) => false,
        };
        if !is_known {
            // Into the cache, if the subject comes more than once.
            self.with_new_route(hash, message.subject, |_| Ok(()))?;
        }
        // Held while handlers run: no lane goes.
        let held = self.routes.try_borrow();
        let route = match &held {
            Ok(routes) => routes.get(hash, message.subject),
            Err(_) => None,
        };
        self.send_kept(route, message, draft)
    }
}

impl Place {
    /// Waits until no look is at work that may have missed replays.
    pub(crate) fn await_look(&self, driver: &dyn Driver) {
        let pause = AtomicU32::new(0);
        let mut pause_ns = PAUSE_NS;
        while self.lanes.is_looking() {
            driver.park(&pause, 0, driver.monotonic_ns() + pause_ns);
            pause_ns = (2 * pause_ns).min(PAUSE_NS_MAX);
        }
    }

    /// Wakes the reader for what was added beside it; a queue that was closed meanwhile is emptied.
    pub(crate) fn notice_added(&self, broker: &Broker) {
        if !self.lanes.notify_reader() {
            self.finish(broker);
        }
    }
}

const KEPT_REMOTE: Error = Error::new(&Fault(
    Status::Unsupported,
    "a remote client cannot keep last values",
));

impl Broker {
    /// Forgets the last value of a subject. NOT_FOUND: there is none.
    pub fn forget_last(&self, subject: &[u8]) -> Result<()> {
        self.check_open()?;
        fastmq_route::check_subject(subject)?;
        if self.kept.forget(subject) {
            return Ok(());
        }
        Err(Error::new(&Fault(
            Status::NotFound,
            "no last value of this subject is kept",
        )))
    }
}

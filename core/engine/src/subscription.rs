//! A subscription: a pattern, a group, and where its messages go.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use fastmq_memory::View;
use fastmq_route::interest::Subscriber;

use crate::broker::Broker;
use crate::place::Place;

/// How messages reach the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Pulled from a queue.
    #[default]
    Queue,
    /// A handler, on a thread of the library.
    Thread,
    /// A handler, inside `dispatch`.
    Dispatch,
    /// A handler, on the publishing thread; no queue.
    Inline,
}

/// What is called with each message.
pub type OnMessage = dyn Fn(&View) + Send + Sync;

/// How often an inline handler was called: a counter for each of the first threads, which only
/// that thread writes, and one for all others.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    own: [CachePadded<AtomicU64>; Counts::THREADS],
    others: AtomicU64,
}

impl Counts {
    const THREADS: usize = 8;

    /// Counts one call on the thread with this number.
    #[inline(always)]
    pub(crate) fn add(&self, thread: u64) {
        match self.own.get(thread as usize) {
            Some(own) => own.store(own.load(Ordering::Relaxed) + 1, Ordering::Relaxed),
            None => {
                self.others.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// All calls.
    pub(crate) fn sum(&self) -> u64 {
        let own: u64 = self.own.iter().map(|own| own.load(Ordering::Relaxed)).sum();
        own + self.others.load(Ordering::Relaxed)
    }
}

/// A subscription's handler.
pub struct Handler {
    pub(crate) call: Box<OnMessage>,
    /// The subscription's id, known once it is in the table.
    pub(crate) id: u32,
    pub(crate) tag: u64,
    /// Unique in the process and never reused: what a running inline call announces.
    pub(crate) serial: u64,
    pub(crate) is_active: AtomicBool,
    /// Calls of an inline handler.
    pub(crate) counts: Counts,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Where messages of a subscription go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Queue(Arc<Place>),
    Inline(Arc<Handler>),
}

/// One subscription, as the interest table holds it.
#[derive(Debug)]
pub(crate) struct Interested {
    pub(crate) id: u32,
    pub(crate) pattern: Box<[u8]>,
    /// Empty: no group.
    pub(crate) group: Box<[u8]>,
    pub(crate) target: Target,
}

/// The entry of the interest table.
#[derive(Clone, Debug)]
pub(crate) struct Entry(pub(crate) Arc<Interested>);

impl Subscriber for Entry {
    fn pattern(&self) -> &[u8] {
        &self.0.pattern
    }

    fn same(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

/// A user's hold on a subscription; dropping it does not unsubscribe.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) broker: Arc<Broker>,
    pub(crate) entry: Entry,
    pub(crate) owns_queue: bool,
    is_open: AtomicBool,
}

impl Subscription {
    pub(crate) fn new(broker: Arc<Broker>, entry: Entry, owns_queue: bool) -> Self {
        Self {
            broker,
            entry,
            owns_queue,
            is_open: AtomicBool::new(true),
        }
    }

    /// The number that messages of this subscription carry.
    pub fn id(&self) -> u32 {
        self.entry.0.id
    }

    /// The pattern.
    pub fn pattern(&self) -> &[u8] {
        &self.entry.0.pattern
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The queue it feeds; `None` for an inline subscription.
    pub fn queue(&self) -> Option<&Arc<Place>> {
        match &self.entry.0.target {
            Target::Queue(place) => Some(place),
            Target::Inline(_) => None,
        }
    }

    /// True if the queue was made for this subscription and closes with it.
    pub fn owns_queue(&self) -> bool {
        self.owns_queue
    }

    /// Messages delivered, and messages dropped for it by its queue's policy.
    pub fn counts(&self) -> (u64, u64) {
        let (delivered, dropped) = match self.broker.slots.get(self.id()) {
            Some(slot) if slot.is(self.id()) => slot.counts(),
            _ => (0, 0),
        };
        match &self.entry.0.target {
            Target::Inline(handler) => (handler.counts.sum(), dropped),
            Target::Queue(_) => (delivered, dropped),
        }
    }

    /// Ends the subscription. When this returns, its handler does not run and will not, except
    /// when it is the handler itself that calls, or the client's `close_timeout` has passed.
    pub fn unsubscribe(&self) {
        if self.is_open.swap(false, Ordering::AcqRel) {
            self.broker.unsubscribe(&self.entry, self.owns_queue);
        }
    }
}

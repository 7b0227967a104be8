//! A subscription: a pattern, a group, and where its messages go.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use fastmq_memory::View;
use fastmq_memory::allocation::{NoMemory, try_arc, try_bytes};
use fastmq_route::Text;

use crate::broker::Broker;
use crate::ended::{self, DropEnded};
use crate::keyed::KeyGroup;
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

/// How the members of a group share its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupMode {
    /// By load: each message goes to a member that is less loaded than others.
    #[default]
    Balanced,
    /// By key: messages of one key go to one member, in order, whoever comes and goes.
    KeyShared,
}

/// A subscription's part in a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Membership<'a> {
    /// Members of a group share its messages; empty: no group.
    pub(crate) group: &'a [u8],
    /// How they do; the same for all members.
    pub(crate) mode: GroupMode,
    /// This member's part beside that of the others, up to 1,000; 0: 1.
    pub(crate) weight: u32,
}

impl Membership<'_> {
    /// That of no group.
    pub(crate) const NONE: Self = Self {
        group: &[],
        mode: GroupMode::Balanced,
        weight: 0,
    };
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

impl Drop for Handler {
    fn drop(&mut self) {
        // A function that owns nothing takes no memory.
        ended::keep(std::mem::replace(&mut self.call, Box::new(|_| ())));
    }
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

impl Target {
    /// The queue, if it is one.
    pub(crate) fn queue(&self) -> Option<&Arc<Place>> {
        match self {
            Self::Queue(place) => Some(place),
            Self::Inline(_) => None,
        }
    }
}

/// Who wants the messages of a pattern.
#[derive(Clone, Debug)]
pub(crate) enum Interested {
    /// For itself.
    Alone(Target),
    /// With others of a group, one of which gets each message.
    Grouped(Arc<Grouped>),
}

/// A member of a group.
#[derive(Debug)]
pub(crate) struct Grouped {
    group: Box<[u8]>,
    weight: u32,
    target: Target,
    keyed: Option<Arc<KeyGroup>>,
}

impl Interested {
    /// `keyed`: the group that it has joined, if that is key-shared.
    pub(crate) fn new(
        membership: &Membership<'_>,
        target: Target,
        keyed: Option<Arc<KeyGroup>>,
    ) -> Result<Self, NoMemory> {
        if membership.group.is_empty() {
            return Ok(Self::Alone(target));
        }
        Ok(Self::Grouped(try_arc(Grouped {
            group: try_bytes(membership.group)?,
            weight: membership.weight.max(1),
            target,
            keyed,
        })?))
    }

    /// The key-shared group that it is a member of.
    pub(crate) fn keyed(&self) -> Option<&Arc<KeyGroup>> {
        match self {
            Self::Alone(_) => None,
            Self::Grouped(member) => member.keyed.as_ref(),
        }
    }

    /// Its part in a group beside that of others.
    pub(crate) fn weight(&self) -> u32 {
        match self {
            Self::Alone(_) => 1,
            Self::Grouped(member) => member.weight,
        }
    }

    /// The group's name; empty: none.
    #[inline]
    pub(crate) fn group(&self) -> &[u8] {
        match self {
            Self::Alone(_) => &[],
            Self::Grouped(member) => &member.group,
        }
    }

    /// Where the messages go.
    #[inline]
    pub(crate) fn target(&self) -> &Target {
        match self {
            Self::Alone(target) => target,
            Self::Grouped(member) => &member.target,
        }
    }
}

/// One subscription, as the interest table holds it: a value, so that a lookup waits for memory
/// once.
pub(crate) type Entry = fastmq_route::Entry<Interested>;

const _: () = assert!(size_of::<Entry>() <= 48);

/// A user's hold on a subscription; dropping it does not unsubscribe.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) broker: Arc<Broker>,
    pattern: Text,
    held: Held,
    _ended: DropEnded,
}

// Most of what a subscription costs is this hold: bytes count.
const _: () = assert!(size_of::<Subscription>() <= 48);

/// Where the messages go, and the small fields that find room beside that.
#[derive(Debug)]
enum Held {
    Queue {
        place: Arc<Place>,
        id: u32,
        is_open: AtomicBool,
        owns_queue: bool,
    },
    Inline {
        handler: Arc<Handler>,
        id: u32,
        is_open: AtomicBool,
    },
}

impl Subscription {
    pub(crate) fn new(
        broker: Arc<Broker>,
        id: u32,
        pattern: Text,
        target: &Target,
        owns_queue: bool,
    ) -> Self {
        let is_open = AtomicBool::new(true);
        let held = match target.clone() {
            Target::Queue(place) => Held::Queue {
                place,
                id,
                is_open,
                owns_queue,
            },
            Target::Inline(handler) => Held::Inline {
                handler,
                id,
                is_open,
            },
        };
        Self {
            broker,
            pattern,
            held,
            _ended: DropEnded,
        }
    }

    /// The number that messages of this subscription carry.
    pub fn id(&self) -> u32 {
        match self.held {
            Held::Queue { id, .. } | Held::Inline { id, .. } => id,
        }
    }

    /// The pattern.
    pub fn pattern(&self) -> &[u8] {
        self.pattern.as_bytes()
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The queue it feeds; `None` for an inline subscription.
    pub fn queue(&self) -> Option<&Arc<Place>> {
        match &self.held {
            Held::Queue { place, .. } => Some(place),
            Held::Inline { .. } => None,
        }
    }

    /// True if the queue was made for this subscription and closes with it.
    pub fn owns_queue(&self) -> bool {
        matches!(
            self.held,
            Held::Queue {
                owns_queue: true,
                ..
            }
        )
    }

    /// Messages delivered, and messages dropped for it by its queue's policy.
    pub fn counts(&self) -> (u64, u64) {
        let (delivered, dropped) = match self.broker.slots.get(self.id()) {
            Some(slot) if slot.is(self.id()) => slot.counts(),
            _ => (0, 0),
        };
        match &self.held {
            Held::Inline { handler, .. } => (handler.counts.sum(), dropped),
            Held::Queue { .. } => (delivered, dropped),
        }
    }

    /// Ends the subscription. When this returns, its handler does not run and will not, except
    /// when it is the handler itself that calls, or the client's `close_timeout` has passed.
    pub fn unsubscribe(&self) {
        let (target, is_open) = match &self.held {
            Held::Queue { place, is_open, .. } => (Target::Queue(place.clone()), is_open),
            Held::Inline {
                handler, is_open, ..
            } => (Target::Inline(handler.clone()), is_open),
        };
        if is_open.swap(false, Ordering::AcqRel) {
            let (pattern, owns_queue) = (self.pattern(), self.owns_queue());
            self.broker
                .unsubscribe(pattern, self.id(), &target, owns_queue, None);
        }
    }
}

//! Last values on their way to a queue: messages that were kept before their reader subscribed.
//!
//! They stand beside the lanes, shared by all who get them: they take no room of the queue, and
//! whoever adds them is refused nothing. A look gives them before all that is in lanes and slots.
//!
//! Invariant: once [`Queue::add_replay`] and [`Queue::is_looking`] have said so, no look gives a
//! message that is written from then on before the replays that were added. A look says that it
//! looks, and then looks for replays; who adds some sees either that nobody looks, or a look that
//! may have missed them, which ends soon.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::allocation::{NoMemory, try_arc, try_bytes};
use crate::budget::Budget;
use crate::queue::Queue;
use crate::reader::{FillError, Reader};
use crate::record::Draft;
use crate::sync::{AtomicBool, Mutex, Ordering, fence_heavy, fence_light, lock};
use crate::value::Value;
use crate::view::{Field, View, Visit};
use crate::writer::Refused;

/// Views by which a list that is full grows.
const VIEWS_MORE: usize = 16;

/// What a place in a table of kept messages takes, beside the subject.
const ENTRY_BYTES: u64 = 128;

/// A message that is kept as the last value of its subject.
pub struct KeptMessage {
    subject: Box<[u8]>,
    value: Value,
    budget: Arc<Budget>,
}

impl std::fmt::Debug for KeptMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptMessage").finish_non_exhaustive()
    }
}

impl KeptMessage {
    /// A copy of a message whose sequence `publisher` counts. Its payload is not in a block.
    ///
    /// # Errors
    /// No memory.
    pub fn new(
        draft: &Draft<'_>,
        publisher: u64,
        budget: &Arc<Budget>,
    ) -> Result<Arc<Self>, Refused> {
        let subject = try_bytes(draft.subject).map_err(|_| Refused::NoMemory)?;
        let reserved = budget.reserve(Self::own_bytes(&subject));
        reserved.map_err(|_| Refused::OverBudget)?;
        // From here on its drop gives all back.
        let mut kept = Self {
            subject,
            value: Value::default(),
            budget: budget.clone(),
        };
        kept.value.grow(Value::size_of(draft), budget)?;
        kept.value.set(draft, publisher);
        try_arc(kept).map_err(|_| Refused::NoMemory)
    }

    /// The subject.
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// When its time is over, in monotonic nanoseconds; `None`: never.
    pub fn expires_ns(&self) -> Option<u64> {
        self.value.expires_ns()
    }

    /// Whether its time is over; asks for the time only if it has one.
    pub fn is_expired(&self, clock: &dyn Fn() -> u64) -> bool {
        self.value.is_expired(clock)
    }

    /// What it takes beside the buffer: itself with the counts of its `Arc`, and the subject; here
    /// and as an entry of whoever keeps it.
    fn own_bytes(subject: &[u8]) -> u64 {
        (size_of::<Self>() + 16 + 2 * subject.len()) as u64 + ENTRY_BYTES
    }
}

impl Drop for KeptMessage {
    fn drop(&mut self) {
        let bytes = Self::own_bytes(&self.subject) + self.value.capacity() as u64;
        self.budget.release(bytes);
    }
}

/// What is on its way to one queue.
#[derive(Default)]
pub(crate) struct Replays {
    is_any: AtomicBool,
    is_looking: AtomicBool,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    /// Each with the subscription that it is for.
    waiting: VecDeque<(u32, Arc<KeptMessage>)>,
    /// Room that is promised to those who have not added theirs yet.
    promised: usize,
}

impl Replays {
    /// A look begins; true if there are replays.
    #[inline(always)]
    pub(crate) fn begin_look(&self) -> bool {
        self.is_looking.store(true, Ordering::Relaxed);
        fence_light();
        self.is_any.load(Ordering::Relaxed)
    }

    /// The look has ended.
    #[inline(always)]
    pub(crate) fn end_look(&self) {
        self.is_looking.store(false, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }

    /// How many wait.
    pub(crate) fn count(&self) -> u64 {
        lock(&self.list).waiting.len() as u64
    }

    /// Drops those that are meant.
    pub(crate) fn forget(&self, is_meant: impl Fn(u32) -> bool) {
        if !self.is_any() {
            return;
        }
        let mut list = lock(&self.list);
        list.waiting
            .retain(|(subscription, _)| !is_meant(*subscription));
        let is_any = !list.waiting.is_empty();
        self.is_any.store(is_any, Ordering::Relaxed);
    }
}

/// Adds views of replays up to `limit`; gives how many have expired.
#[cold]
pub(crate) fn fill_replays(
    queue: &Queue,
    reader: &mut Reader,
    limit: usize,
    clock: &dyn Fn() -> u64,
    visit: &mut dyn FnMut(&mut Visit<'_>) -> bool,
) -> (u64, Result<(), FillError>) {
    let replays = queue.replays();
    let mut expired = 0;
    let mut list = lock(&replays.list);
    while reader.views.len() < limit {
        if reader.views.len() == reader.views.capacity()
            && reader.views.try_reserve(VIEWS_MORE).is_err()
            || reader.kept.try_reserve(1).is_err()
        {
            return (expired, Err(FillError::NoMemory));
        }
        let Some((subscription, kept)) = list.waiting.pop_front() else {
            break;
        };
        if kept.is_expired(clock) {
            expired += 1;
            continue;
        }
        let mut view = View::EMPTY;
        kept.value.show(&mut view);
        view.subject = Field {
            data: kept.subject.as_ptr(),
            size: kept.subject.len(),
        };
        view.subscription_id = subscription;
        let is_expired = false;
        if visit(&mut Visit {
            view: &mut view,
            is_expired,
            expiry_ns: u64::MAX,
        }) {
            reader.views.push(view);
            reader.kept.push(kept);
        }
    }
    let is_any = !list.waiting.is_empty();
    replays.is_any.store(is_any, Ordering::Relaxed);
    if !is_any && list.promised == 0 {
        list.waiting = VecDeque::new();
    }
    (expired, Ok(()))
}

impl Queue {
    /// Promises memory for so many replays, each to be added or given up.
    ///
    /// # Errors
    /// There is none.
    pub fn promise_replays(&self, count: usize) -> Result<(), NoMemory> {
        let mut list = lock(&self.replays().list);
        let promised = list.promised + count;
        let reserved = list.waiting.try_reserve(promised);
        reserved.map_err(|_| NoMemory)?;
        list.promised = promised;
        Ok(())
    }

    /// Takes back promises of memory.
    pub fn give_up_replays(&self, count: usize) {
        lock(&self.replays().list).promised -= count;
    }

    /// Adds a replay for a subscription, for which memory was promised. The next look gives it,
    /// before all else; one that is at work may not: see [`Queue::is_looking`].
    pub fn add_replay(&self, subscription: u32, kept: Arc<KeptMessage>) {
        let replays = self.replays();
        let mut list = lock(&replays.list);
        list.promised -= 1;
        list.waiting.push_back((subscription, kept));
        replays.is_any.store(true, Ordering::Relaxed);
    }

    /// After replays were added: true while a look is at work that may have missed them. It is over
    /// soon. What is written once this was false comes behind them.
    pub fn is_looking(&self) -> bool {
        fence_heavy();
        self.replays().is_looking.load(Ordering::Acquire)
    }

    /// Drops the replays of a subscription that has ended.
    pub fn forget_replays(&self, subscription: u32) {
        self.replays().forget(|other| other == subscription);
    }
}

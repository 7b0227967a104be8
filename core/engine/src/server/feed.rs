//! One subscription of a connection: a queue of its own, which the session empties.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use fastmq_memory::Policy;

use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::options::SubscribeOptions;
use crate::place::{Place, QueueOptions};
use crate::subscription::{GroupMode, Subscription};

use super::inbox::SessionKey;
use super::parts::Parts;

/// Messages that are taken at once as long as they are small, and to begin with.
const BATCH_MAX: usize = 32;
const BATCH_FIRST: usize = 8;
/// Bytes of a batch above which the next one is smaller.
const BATCH_BYTES: usize = 64 << 10;

/// What the client asks for.
pub(super) struct Wanted<'a> {
    pub(super) pattern: &'a [u8],
    pub(super) group: &'a [u8],
    pub(super) group_mode: GroupMode,
    pub(super) weight: u32,
    /// `None`: the default of the protocol.
    pub(super) policy: Option<Policy>,
    pub(super) capacity: u64,
    pub(super) replay_last: bool,
}

/// One subscription.
pub(super) struct Feed {
    /// The client's number for it.
    pub(super) number: u32,
    pub(super) place: Arc<Place>,
    subscription: Subscription,
    pub(super) waker: Waker,
    outlet: u64,
    /// A message that is lost ends the connection.
    pub(super) is_loss_fatal: bool,
    pub(super) is_ready: bool,
    /// The operation that is answered when it is empty, 0 for one that all are drained for.
    pub(super) draining: Option<u32>,
    /// It was taken out of the table, and not forgotten yet.
    is_stopped: bool,
    batch: usize,
}

impl Feed {
    /// Opens the queue and subscribes.
    pub(super) fn open(
        parts: &mut Parts,
        session: SessionKey,
        number: u32,
        wanted: &Wanted<'_>,
        waker: Waker,
    ) -> Result<Self> {
        let broker = &parts.broker;
        let is_plain_default = wanted.policy.is_none() && wanted.group.is_empty();
        let policy = match wanted.policy {
            Some(policy) => policy,
            // What does not fit is dropped, so that no publisher waits, and then the connection.
            None if is_plain_default => Policy::DropNewest,
            None => Policy::Backpressure,
        };
        crate::options::check_capacity(wanted.capacity)?;
        let options = QueueOptions {
            policy,
            capacity: wanted.capacity,
            wait: None,
        };
        // Not by `open_queue`: the user's own loop is not to hear of it.
        let place = Place::open(broker, options, None, true)?;
        let Ok(outlet) = parts.outlets.open(session.index, number) else {
            broker.close_queue(&place);
            return Err(Error::NO_MEMORY);
        };
        place.outlet.store(outlet, Ordering::Relaxed);
        let options = SubscribeOptions {
            group: wanted.group,
            group_mode: wanted.group_mode,
            // Without a group there is nobody to share with.
            weight: match wanted.group.is_empty() {
                true => 0,
                false => wanted.weight,
            },
            queue: Some(&place),
            replay_last: wanted.replay_last,
            ..SubscribeOptions::default()
        };
        let subscription = broker
            .subscribe_with(wanted.pattern, options)
            .inspect_err(|_| {
                broker.close_queue(&place);
                parts.outlets.close(outlet);
            })?;
        Ok(Self {
            number,
            place,
            subscription,
            waker,
            outlet,
            is_loss_fatal: is_plain_default,
            is_ready: false,
            draining: None,
            is_stopped: false,
            batch: BATCH_FIRST,
        })
    }

    /// Its name among the outlets of the shard.
    pub(super) fn outlet(&self) -> u64 {
        self.outlet
    }

    /// How many messages to take at once.
    pub(super) fn batch_max(&self) -> usize {
        self.batch
    }

    /// Learns from a batch.
    pub(super) fn learn(&mut self, bytes: usize) {
        self.batch = match bytes {
            0..BATCH_BYTES => (self.batch * 2).min(BATCH_MAX),
            _ => 1,
        };
    }

    /// New messages no longer come; those that wait still do.
    pub(super) fn stop(&mut self, broker: &Broker) {
        let subscription = &self.subscription;
        self.is_stopped |= broker.stop_subscription(subscription.pattern(), subscription.id());
    }

    /// Bytes that wait.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.place.statistics().pending_bytes
    }

    /// Ends it. Messages that wait are dropped, requests among them answered CANCELLED.
    pub(super) fn end(self, parts: &mut Parts) {
        let broker = &parts.broker;
        if self.is_stopped {
            broker.forget_subscription(self.subscription.id(), &self.place);
        }
        self.subscription.unsubscribe();
        broker.close_queue(&self.place);
        // Nobody sends to it any more: its subscription is gone.
        parts.outlets.close(self.outlet);
    }
}

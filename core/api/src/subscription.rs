//! A subscription: a pattern and where its messages go.
//!
//! Dropping it unsubscribes, so that a forgotten one does not fill its queue for ever.

use fastmq_engine::memory::{Batch, Policy, View};
use fastmq_engine::{Delivery, Error, Fault, GroupMode, Result, Status};

use crate::client::Client;
use crate::queue::Queue;

/// What is called with each message.
pub type OnMessage = dyn Fn(&View) + Send + Sync;

/// How to subscribe; the default is a queue of its own and no group.
#[derive(Default)]
pub struct SubscribeOptions<'a> {
    /// Members of a group share its messages; empty: no group.
    pub group: &'a [u8],
    /// How the members of the group share them; the same for all members.
    pub group_mode: GroupMode,
    /// This member's part beside that of the others, up to 1,000; 0: 1.
    pub weight: u32,
    /// How messages reach the application.
    pub delivery: Delivery,
    /// For [`Delivery::Queue`]: where they wait; `None`: a queue of its own.
    pub queue: Option<&'a Queue>,
    /// What happens when a queue of its own is full.
    pub policy: Policy,
    /// The last value of each matching subject, if its publisher keeps it, comes first; with
    /// [`SUBJECT_JOINED`](crate::SUBJECT_JOINED), who is there.
    pub replay_last: bool,
    /// Comes back with each message.
    pub tag: u64,
    /// For the other deliveries: what is called. What it owns is dropped some time after the
    /// subscription has ended, on any thread that subscribes, unsubscribes or closes something; it
    /// may use the client then.
    pub on_message: Option<Box<OnMessage>>,
}

/// A subscription; dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    inner: fastmq_engine::Subscription,
    queue: Option<Queue>,
}

impl Subscription {
    pub(crate) fn new(client: Client, inner: fastmq_engine::Subscription, is_pulled: bool) -> Self {
        let place = inner.queue().filter(|_| is_pulled);
        let queue = place.map(|place| Queue::new(client, place.clone()));
        Self { inner, queue }
    }

    /// The number that its messages carry.
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// The pattern.
    pub fn pattern(&self) -> &[u8] {
        self.inner.pattern()
    }

    /// The queue that it feeds; `None` if a handler is called.
    pub fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    /// True if the queue was made for this subscription and closes with it.
    pub fn owns_queue(&self) -> bool {
        self.inner.owns_queue()
    }

    /// Receives from the subscription's queue.
    ///
    /// # Errors
    /// MISUSE: a handler gets its messages. Else as [`Queue::receive`].
    pub fn receive(&self, message_max: usize, timeout_ns: u64) -> Result<Batch<'_>> {
        let Some(queue) = &self.queue else {
            let fault = &Fault(
                Status::Misuse,
                "this subscription's messages go to its handler; it has no queue",
            );
            return Err(Error::new(fault));
        };
        queue.receive(message_max, timeout_ns)
    }

    /// Messages delivered, and messages dropped for it by its queue's policy.
    pub fn counts(&self) -> (u64, u64) {
        self.inner.counts()
    }

    /// Ends the subscription, and its queue if it owns that. When this returns its handler does
    /// not run and will not, unless the handler itself is what calls.
    pub fn unsubscribe(&self) {
        self.inner.unsubscribe();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.unsubscribe();
    }
}

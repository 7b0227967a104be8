//! A queue: where messages wait until they are received.
//!
//! Closing is explicit, because a subscription and its queue may both be held; a queue that is
//! dropped without it lives on while a subscription feeds it.

use std::sync::Arc;

use fastmq_engine::memory::Batch;
use fastmq_engine::memory::queue::QueueStatistics;
use fastmq_engine::{Place, Result};

use crate::client::Client;

/// A queue; one thread at a time receives from it.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    place: Arc<Place>,
}

impl Queue {
    #[doc(hidden)]
    pub fn new(client: Client, place: Arc<Place>) -> Self {
        Self { client, place }
    }

    /// The client.
    #[inline(always)]
    pub fn client(&self) -> &Client {
        &self.client
    }

    #[doc(hidden)]
    #[inline(always)]
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Receives up to `message_max` messages, waiting for the first for at most `timeout_ns`.
    ///
    /// # Errors
    /// AGAIN: nothing is there and the time-out is 0. TIMEOUT. END: closed and drained. MISUSE: a
    /// batch is open, or another thread receives.
    #[inline(always)]
    pub fn receive(&self, message_max: usize, timeout_ns: u64) -> Result<Batch<'_>> {
        self.place
            .receive(self.client.broker(), message_max, timeout_ns)
    }

    /// The queue's own descriptor: readable exactly while there is something to receive.
    ///
    /// # Errors
    /// IO: out of descriptors.
    pub fn fd(&self) -> Result<i32> {
        self.place.fd()
    }

    /// Figures of this queue.
    pub fn statistics(&self) -> QueueStatistics {
        self.place.statistics()
    }

    /// Times that a reader slept, and times that one was woken.
    pub fn waits(&self) -> (u64, u64) {
        self.place.waits()
    }

    /// Ends the queue and the subscriptions that feed it. An open batch stays readable.
    pub fn close(&self) {
        self.client.broker().close_queue(&self.place);
    }
}

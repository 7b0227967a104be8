//! A queue: where messages wait until they are received.
//!
//! Closing is explicit, because a subscription and its queue may both be held; a queue that is
//! dropped without it lives on while a subscription feeds it.

use std::sync::Arc;

use fastmq_engine::memory::Batch;
use fastmq_engine::memory::queue::QueueStatistics;
use fastmq_engine::{Place, Ready, Result, Status};

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

    /// Receives up to `message_max` messages, as many as a batch holds if it is 0, waiting for the
    /// first for at most `timeout_ns`.
    ///
    /// # Errors
    /// AGAIN: nothing is there and the time-out is 0. TIMEOUT. END: closed and drained. MISUSE: a
    /// batch is open, or another thread receives.
    #[inline(always)]
    pub fn receive(&self, message_max: usize, timeout_ns: u64) -> Result<Batch<'_>> {
        self.place
            .receive(self.client.broker(), message_max, timeout_ns)
    }

    /// Receives as a task of any executor: as [`Queue::receive`] without a time-out, which is the
    /// executor's to keep.
    ///
    /// ```
    /// # fn main() -> fastmq::Result<()> {
    /// # let client = fastmq::Client::open(fastmq::Options::default())?;
    /// let prices = client.queue(fastmq::QueueOptions::default())?;
    /// # let options = fastmq::SubscribeOptions { queue: Some(&prices), ..Default::default() };
    /// # let _subscription = client.subscribe_with("price.>", options)?;
    /// # client.publish("price.ACME", "12.5")?;
    /// let task = async {
    ///     let batch = prices.receive_async(64).await?;
    ///     assert_eq!(batch.messages()[0].payload(), b"12.5");
    ///     fastmq::Result::Ok(())
    /// };
    /// # let mut task = std::pin::pin!(task);
    /// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    /// # assert!(task.as_mut().poll(&mut context).is_ready());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// END, MISUSE, as [`Queue::receive`].
    pub async fn receive_async(&self, message_max: usize) -> Result<Batch<'_>> {
        loop {
            match self.receive(message_max, 0) {
                Err(error) if error.status() == Status::Again => self.ready().await?,
                received => return received,
            }
        }
    }

    /// Completes when a receive has something to say.
    pub fn ready(&self) -> Ready<'_> {
        Ready::new(&self.place, self.client.broker())
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

/// Waits until one of 1 to 1,024 queues has something to receive, and gives its index. Queues take
/// turns: the look begins behind the one that this thread's last wait found.
///
/// ```
/// # fn main() -> fastmq::Result<()> {
/// # let client = fastmq::Client::open(fastmq::Options::default())?;
/// let orders = client.subscribe("order.>")?;
/// let prices = client.subscribe("price.>")?;
/// client.publish("price.ACME", "12.5")?;
/// let queues = [orders.queue().unwrap(), prices.queue().unwrap()];
/// assert_eq!(fastmq::wait_any(&queues, 1_000_000_000)?, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// AGAIN: nothing is there and the time-out is 0. TIMEOUT. END: a queue is empty, and closed or
/// drained. INVALID: no queue, or more than 1,024.
/// MISUSE: a batch of a queue is open, or another thread receives. NO_MEMORY.
pub fn wait_any(queues: &[&Queue], timeout_ns: u64) -> Result<usize> {
    fastmq_engine::any::wait_any(queues.len(), timeout_ns, |index, look| {
        let queue = queues[index];
        look(&queue.place, queue.client.broker())
    })
}

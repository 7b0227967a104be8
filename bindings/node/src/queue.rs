//! Queues and subscriptions as JavaScript holds them.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fastmq::{Error, Fault, Queue, Status, Subscription};
use napi::bindgen_prelude::BufferSlice;
use napi_derive::napi;

use crate::copy;
use crate::error::{Thrown, failed, thrown};
use crate::held::{Handles, Held};
use crate::hub::{Hub, Waiter};
use crate::view::Reading;

/// What `receive` says when the slab is too small: `needed` says how large it must be.
pub(crate) const TOO_SMALL: i32 = -1000;

/// A queue.
#[napi]
pub struct NativeQueue {
    reading: Rc<Held<Reading>>,
    waker: Waker,
    /// Nobody else closes it: it goes when JavaScript lets go of it.
    is_own: bool,
}

impl Drop for NativeQueue {
    fn drop(&mut self) {
        if self.is_own {
            self.close();
        }
    }
}

const CLOSED: &Fault = &Fault(Status::Closed, "the queue is closed");

impl NativeQueue {
    pub(crate) fn new(
        hub: &Hub,
        number: u32,
        queue: Queue,
        is_own: bool,
        handles: &Handles,
    ) -> Self {
        let waiter: Arc<Waiter> = Waiter::new(hub, number);
        let reading = Rc::new(Held::new(Reading::new(queue), CLOSED));
        handles.add(&reading);
        Self {
            reading,
            waker: waiter.into(),
            is_own,
        }
    }

    pub(crate) fn queue(&self) -> fastmq::Result<Queue> {
        self.reading.with(|reading| Ok(reading.queue().clone()))
    }

    /// Whether a receive has something to say; if not, the waiter will hear when it may have.
    fn is_ready(&self, queue: &Queue) -> bool {
        let mut ready = queue.ready();
        let mut context = Context::from_waker(&self.waker);
        // An error is something that receive says.
        !matches!(Pin::new(&mut ready).poll(&mut context), Poll::Pending)
    }
}

#[napi]
impl NativeQueue {
    /// Ends the batch that was open and opens one of up to `message_max` messages, which is
    /// written into `slab` from `at` on. Gives their number, `-status`, or -1000: the slab is too
    /// small, and `copy` writes the same batch into another one. With `arm` the waiter hears when
    /// there is more after FASTMQ_AGAIN.
    #[napi]
    pub fn receive(&self, mut slab: BufferSlice<'_>, at: u32, message_max: u32, arm: bool) -> i32 {
        let limit = message_max as usize;
        let written = self.reading.with(|reading| {
            let mut received = reading.receive(limit);
            // Looks again only if something came while it armed.
            while arm
                && let Err(error) = &received
                && error.status() == Status::Again
                && self.is_ready(reading.queue())
            {
                received = reading.receive(limit);
            }
            match received {
                Ok(()) => Ok(write(reading, &mut slab, at)),
                Err(error) => Err(ended(reading.queue(), error)),
            }
        });
        written.unwrap_or_else(|error| -(failed(&error) as i32))
    }

    /// Writes the open batch into another slab.
    #[napi]
    pub fn copy(&self, mut slab: BufferSlice<'_>, at: u32) -> i32 {
        let written = self
            .reading
            .with(|reading| Ok(write(reading, &mut slab, at)));
        written.unwrap_or_else(|error| -(failed(&error) as i32))
    }

    /// The bytes that the open batch takes in a slab.
    #[napi]
    pub fn needed(&self) -> f64 {
        let needed = (self.reading).with(|reading| Ok(copy::needed(reading.messages().0)));
        needed.map_or(0.0, |needed| needed as f64)
    }

    /// Ends the open batch.
    #[napi]
    pub fn release(&self) {
        // One that is closed has none.
        let _ = self.reading.with(|reading| {
            reading.release();
            Ok(())
        });
    }

    /// The queue's own descriptor.
    #[napi]
    pub fn fd(&self) -> Result<i32, Thrown> {
        self.queue().and_then(|queue| queue.fd()).map_err(thrown)
    }

    /// The figures of the queue, in the order of `fastmq_queue_statistics`.
    #[napi]
    pub fn statistics(&self) -> Result<Vec<f64>, Thrown> {
        let queue = self.queue().map_err(thrown)?;
        let of = queue.statistics();
        let (waits, wakes) = queue.waits();
        let figures = [
            u64::from(of.lanes),
            of.published,
            of.delivered,
            of.dropped,
            of.expired,
            of.pending,
            of.pending_bytes,
            of.high_water_bytes,
            of.locks,
            waits,
            wakes,
            of.replaced,
        ];
        Ok(figures.iter().map(|figure| *figure as f64).collect())
    }

    /// Ends the queue and the subscriptions that feed it.
    #[napi]
    pub fn close(&self) {
        // The batch that may be open ends with it: JavaScript has a copy.
        if let Some(mut reading) = self.reading.close() {
            reading.release();
            reading.queue().close();
        }
    }
}

/// END is for a queue that was drained; one that was closed is CLOSED.
#[cold]
fn ended(queue: &Queue, error: Error) -> Error {
    if error.status() == Status::End && queue.place().is_closed() {
        return Error::new(CLOSED);
    }
    error
}

fn write(reading: &Reading, slab: &mut [u8], at: u32) -> i32 {
    let (messages, received_ns) = reading.messages();
    if copy::copy(messages, received_ns, slab, at as usize) {
        messages.len() as i32
    } else {
        TOO_SMALL
    }
}

/// A subscription.
#[napi]
pub struct NativeSubscription {
    id: u32,
    subscription: Rc<Held<Subscription>>,
    handles: Rc<Handles>,
}

impl NativeSubscription {
    pub(crate) fn new(subscription: Subscription, handles: &Rc<Handles>) -> Self {
        let id = subscription.id();
        let subscription = Rc::new(Held::new(subscription, CLOSED));
        handles.add(&subscription);
        Self {
            id,
            subscription,
            handles: handles.clone(),
        }
    }
}

#[napi]
impl NativeSubscription {
    /// The queue that it feeds.
    #[napi]
    pub fn queue(&self, hub: &Hub, number: u32) -> Result<NativeQueue, Thrown> {
        let queue = (self.subscription)
            .with(|subscription| subscription.queue().cloned().ok_or(Error::new(CLOSED)))
            .map_err(thrown)?;
        Ok(NativeQueue::new(hub, number, queue, false, &self.handles))
    }

    /// The number that its messages carry.
    #[napi]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Messages delivered, and messages dropped for it; 0 once it has ended.
    #[napi]
    pub fn counts(&self) -> Vec<f64> {
        let counts = self
            .subscription
            .with(|subscription| Ok(subscription.counts()));
        let (delivered, dropped) = counts.unwrap_or_default();
        vec![delivered as f64, dropped as f64]
    }

    /// Ends it, and its queue if that was made for it.
    #[napi]
    pub fn unsubscribe(&self) {
        if let Some(subscription) = self.subscription.close() {
            subscription.unsubscribe();
        }
    }
}

//! A publisher handle: one subject with its route, sequence and lanes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastmq_memory::Label;
use fastmq_memory::allocation::try_arc_bytes;

use fastmq_memory::block::BlockClaim;

use crate::broker::Broker;
use crate::call;
use crate::claim::Open;
use crate::error::{Error, Fault, Result, Status};
use crate::place::Place;
use crate::presence::check_subject;
use crate::route::Route;
use crate::thread_client::ThreadClient;
use crate::writer::{Message, Writer};

/// The next publisher's number: not used twice in a process.
pub(crate) static NEXT_PUBLISHER: AtomicU64 = AtomicU64::new(1);

/// A subject to publish to; the hot path. Used by one thread at a time.
pub struct Publisher {
    pub(crate) writer: Writer,
    pub(crate) subject: Arc<[u8]>,
    pub(crate) route: Option<Route>,
    pub(crate) sequence: u64,
    pub(crate) claim: Option<Open>,
    /// Where a claim is written that is in no lane; between claims, the last one's memory.
    pub(crate) block: Option<BlockClaim>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// Opens a publisher for a subject.
    pub fn open(broker: &Arc<Broker>, subject: &[u8]) -> Result<Self> {
        broker.check_open()?;
        check_subject(subject)?;
        let subject = try_arc_bytes(subject)?;
        let label = Label {
            subject: subject.clone(),
            publisher: NEXT_PUBLISHER.fetch_add(1, Ordering::Relaxed),
        };
        Ok(Self {
            writer: Writer::new(broker, Some(label))?,
            subject,
            route: None,
            sequence: 0,
            claim: None,
            block: None,
        })
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<Broker> {
        self.writer.broker()
    }

    /// Publishes one payload. Never blocks.
    #[inline(always)]
    pub fn publish(&mut self, payload: &[u8]) -> Result<()> {
        self.check_unclaimed()?;
        let sequence = self.sequence + 1;
        self.writer
            .publish_by(&mut self.route, &self.subject, payload, sequence)?;
        self.sequence = sequence;
        Ok(())
    }

    /// Publishes one message, whose subject must be empty: the publisher has its own.
    pub fn publish_message(&mut self, message: &Message<'_>) -> Result<()> {
        if !message.subject.is_empty() {
            let fault = &Fault(
                Status::Invalid,
                "the publisher has a subject of its own; leave the message's subject empty",
            );
            return Err(Error::new(fault));
        }
        self.check_unclaimed()?;
        let message = Message {
            subject: &self.subject,
            ..*message
        };
        let route = self.writer.renewed(&mut self.route, &self.subject)?;
        self.writer
            .send_numbered(route, &message, self.sequence + 1)?;
        self.sequence += 1;
        Ok(())
    }

    /// Publishes several payloads in order; readers see them at once where that is cheaper.
    ///
    /// Returns how many were accepted; if not all, why not the next. More than that may have been
    /// taken from `payloads`.
    #[inline(always)]
    pub fn publish_batch<'m>(
        &mut self,
        payloads: impl Iterator<Item = &'m [u8]>,
    ) -> (usize, Result<()>) {
        if let Err(error) = self.check_unclaimed() {
            return (0, Err(error));
        }
        let sequence = &mut self.sequence;
        self.writer
            .publish_many_by(&mut self.route, &self.subject, sequence, payloads)
    }

    /// Publishes one payload, waiting for room for at most `timeout_ns`.
    pub fn publish_wait(&mut self, payload: &[u8], timeout_ns: u64) -> Result<()> {
        let first = self.publish(payload);
        if !is_full(&first) {
            return first;
        }
        let broker = self.broker().clone();
        let places = self.writer.full_places(&self.subject)?;
        let attempt = || (self.publish(payload), self.writer.refused_by.get());
        wait(&broker, &places, timeout_ns, attempt)
    }
}

impl ThreadClient {
    /// Publishes one message by subject, waiting for room for at most `timeout_ns`.
    ///
    /// MISUSE inside a handler of the full queue, which nobody else could drain.
    pub fn publish_wait(&self, message: &Message<'_>, timeout_ns: u64) -> Result<()> {
        let first = self.writer.publish_message(message);
        if !is_full(&first) {
            return first;
        }
        let broker = self.writer.broker().clone();
        let places = self.writer.full_places(message.subject)?;
        let attempt = || {
            let result = self.writer.publish_message(message);
            (result, self.writer.refused_by.get())
        };
        wait(&broker, &places, timeout_ns, attempt)
    }
}

/// How long a publisher waits for one member of a full group before it asks the others again.
const GROUP_AGAIN_NS: u64 = 1_000_000;
/// How long it waits for the queue that refused: its subscription may have gone without a word.
const REFUSING_AGAIN_NS: u64 = 100_000_000;

fn is_full(result: &Result<()>) -> bool {
    matches!(result, Err(error) if error.status() == Status::Again)
}

/// Waits until `attempt` is no longer refused for want of room; beside its result it says which
/// queue has refused.
fn wait(
    broker: &Broker,
    places: &[Arc<Place>],
    timeout_ns: u64,
    mut attempt: impl FnMut() -> (Result<()>, u64),
) -> Result<()> {
    let handling = call::handling();
    let deadline_ns = broker.driver.monotonic_ns().saturating_add(timeout_ns);
    loop {
        let (mut last, refused_by) = attempt();
        if !is_full(&last) {
            return last;
        }
        if handling != 0 && refused_by == handling {
            return Err(Error::new(&Fault(
                Status::Misuse,
                "publish_wait inside a handler of the full queue: only this handler could make \
                 room",
            )));
        }
        if timeout_ns == 0 {
            return last;
        }
        let now_ns = broker.driver.monotonic_ns();
        if now_ns >= deadline_ns {
            return Err(timed_out(places));
        }
        // The queue that refused is watched. Of a group any member will do: one is watched, and
        // the others are looked at again every millisecond.
        let refusing = places.iter().find(|place| place.id() == refused_by);
        let fullest = || {
            let pending = |place: &&Arc<Place>| place.statistics().pending_bytes;
            places.iter().max_by_key(pending)
        };
        if let Some(uplink) = &broker.uplink {
            uplink.wait_for_room(deadline_ns.min(now_ns.saturating_add(REFUSING_AGAIN_NS)));
            continue;
        }
        let Some(place) = refusing.or_else(fullest) else {
            return last;
        };
        let again_ns = match refusing {
            Some(_) => REFUSING_AGAIN_NS,
            None => GROUP_AGAIN_NS,
        };
        let wake_ns = deadline_ns.min(now_ns.saturating_add(again_ns));
        place.wait_for_room(wake_ns, || {
            last = attempt().0;
            !is_full(&last)
        });
        if !is_full(&last) {
            return last;
        }
    }
}

fn timed_out(places: &[Arc<Place>]) -> Error {
    let is_mine = places.iter().any(|place| place.was_read_here());
    Error::new(if is_mine {
        &Fault(
            Status::Timeout,
            "no room came within the timeout; this thread was the last reader of the full queue: \
             receive from it here, or read it on another thread",
        )
    } else {
        &Fault(Status::Timeout, "no room came within the timeout")
    })
}

//! A reply stream: many answers of one responder to one request, each only with the asker's credit.
//!
//! It is a leg of the asker's `survey`, a `credit` that both share, and a writer of its own, so
//! that replies keep their order whichever thread sends them. Its end is no record: it needs no
//! room, and the asker takes it when it has received every reply that was sent before.

use std::sync::Arc;
use std::sync::atomic::{self, Ordering};
use std::task::Waker;

use fastmq_driver::{FOREVER_NS, Parked};
use fastmq_memory::allocation::{try_arc, try_box};
use fastmq_memory::record::flag;
use fastmq_memory::sync::lock;
use fastmq_memory::{Draft, Kind};

use crate::broker::Broker;
use crate::call;
use crate::credit::{Credit, LOOP, TASK, THREAD};
use crate::error::{Error, Fault, Result, Status};
use crate::headers::HEADERS_BYTES_MAX;
use crate::link::FarStream;
use crate::place::Place;
use crate::route::{Group, LaneTarget};
use crate::survey::{LEG, ONE_ANSWER};
use crate::writer::{Message, Writer};

/// How long a responder waits for room before it looks again: the asker may have gone.
const ROOM_AGAIN_NS: u64 = 100_000_000;

/// A responder's stream of replies. Used by one thread at a time; dropping it before its end
/// cancels it.
pub struct ReplyStream {
    broker: Arc<Broker>,
    way: Way,
    credit: Arc<Credit>,
    token: u64,
    /// Replies sent, and what is known to be granted.
    sent: u64,
    granted: u64,
    has_ended: bool,
}

/// How its replies get to the asker.
enum Way {
    /// Into the asker's queue.
    Here {
        writer: Box<Writer>,
        place: Arc<Place>,
    },
    /// To the server that has asked.
    Far(FarStream),
}

impl std::fmt::Debug for ReplyStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyStream")
            .field("token", &self.token)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

impl ReplyStream {
    /// Opens the stream of the request with this token.
    ///
    /// NOT_FOUND: nobody waits for its answer. UNSUPPORTED: its asker takes no stream. EXISTS: it
    /// was opened before. CANCELLED: the responder's subscription has ended.
    pub fn open(broker: &Arc<Broker>, token: u64) -> Result<Self> {
        if broker.is_closed() {
            return Err(Error::CLOSED);
        }
        if let Some(uplink) = &broker.uplink {
            let (far, credit) = FarStream::open(uplink, token)?;
            return Ok(Self::new(broker, Way::Far(far), credit, token));
        }
        let place = broker.requester_place((token >> 32) as u32)?;
        let number = token as u32;
        if number & LEG == 0 {
            return Err(ONE_ANSWER);
        }
        let writer = try_box(Writer::new(broker, None)?)?;
        let make = |granted| Ok(try_arc(Credit::new(granted))?);
        // Counted first: whoever ends a subscription looks for its streams.
        broker.streams.fetch_add(1, Ordering::SeqCst);
        atomic::fence(Ordering::SeqCst);
        let opened = lock(&place.surveys).open_stream(broker, number, make);
        let credit = opened.inspect_err(|_| {
            broker.streams.fetch_sub(1, Ordering::SeqCst);
        })?;
        let way = Way::Here { writer, place };
        Ok(Self::new(broker, way, credit, token))
    }

    fn new(broker: &Arc<Broker>, way: Way, credit: Arc<Credit>, token: u64) -> Self {
        Self {
            broker: broker.clone(),
            way,
            granted: credit.granted(),
            credit,
            token,
            sent: 0,
            has_ended: false,
        }
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// How many replies may be sent now.
    ///
    /// CANCELLED: nobody waits for more; MISUSE: the stream was ended here.
    pub fn credit(&self) -> Result<u64> {
        self.check()?;
        if self.credit.has_ended() {
            return Err(self.cancelled());
        }
        Ok(self.credit.granted().saturating_sub(self.sent))
    }

    /// All that was granted so far.
    pub(crate) fn granted(&self) -> u64 {
        self.credit.granted()
    }

    /// Has a task woken when the credit changes, once after each [`wake_again`](Self::wake_again).
    pub(crate) fn wake_by(&self, waker: Waker) {
        self.credit.set_task(waker);
    }

    /// Look afterwards.
    pub(crate) fn wake_again(&self) {
        self.credit.wait(TASK);
    }

    /// Sends one reply. Never blocks.
    ///
    /// AGAIN: the asker has granted no more replies, or has no room; its client's loop hears of
    /// either as room. CANCELLED: nobody waits for more.
    pub fn send(&mut self, payload: &[u8], headers: &[u8]) -> Result<()> {
        self.check()?;
        let broker = self.broker();
        if payload.len() as u64 > broker.options.payload_max {
            return Err(broker.too_large(payload.len()));
        }
        if headers.len() > HEADERS_BYTES_MAX {
            return Err(HEADERS_TOO_LARGE);
        }
        if self.sent >= self.granted {
            self.look_for_credit()?;
        }
        let (writer, place) = match &self.way {
            Way::Here { writer, place } => (writer, place),
            Way::Far(far) => {
                if !self.credit.begin() {
                    return Err(self.cancelled());
                }
                let sent = far.send(&self.credit, payload, headers);
                match sent.is_ok() {
                    true => self.sent += 1,
                    false => drop(self.credit.take_back()),
                }
                return sent;
            }
        };
        let mut draft = Draft {
            kind: Kind::Reply,
            flags: flag::TOKEN | flag::MORE,
            token: self.token,
            payload,
            ..Draft::default()
        };
        if !headers.is_empty() {
            draft.flags |= flag::SIZES;
            draft.headers = headers;
        }
        // Each time: a sweep of the writer's may have taken it.
        let target = LaneTarget {
            lane: writer.lane_to(place)?,
            subscription: 0,
        };
        if !self.credit.begin() {
            return Err(self.cancelled());
        }
        let message = Message::default();
        let sent = writer.send_any::<Group>(&[target], &[], &message, &draft);
        let error = match sent {
            Ok(sent) if sent.reached > 0 => {
                crate::writer::count(&writer.counters.answers, 1);
                self.sent += 1;
                return Ok(());
            }
            Ok(_) => self.cancelled(),
            Err(error) if error.status() == Status::Again => NO_ROOM,
            Err(error) => error,
        };
        if self.credit.take_back() && lock(&place.surveys).recount(self.token as u32) {
            place.report_ended();
        }
        Err(error)
    }

    /// Sends one reply, waiting for credit and room for at most `timeout_ns`.
    ///
    /// TIMEOUT: neither came. MISUSE inside the asker's own submit, since only the asker could
    /// receive.
    pub fn send_wait(&mut self, payload: &[u8], headers: &[u8], timeout_ns: u64) -> Result<()> {
        let first = self.send(payload, headers);
        if timeout_ns == 0 || !is_again(&first) {
            return first;
        }
        if let Way::Here { place, .. } = &self.way
            && lock(&place.surveys).sender == call::thread_number()
        {
            return Err(INSIDE_SUBMIT);
        }
        let driver = self.broker().driver.clone();
        let start_ns = driver.monotonic_ns();
        let deadline_ns = start_ns.saturating_add(timeout_ns);
        loop {
            // Read before saying so: a wake after this changes it, and the park returns at once.
            let seen = self.credit.word.load(Ordering::Acquire);
            self.credit.wait(THREAD);
            let sent = self.send(payload, headers);
            if !is_again(&sent) {
                return sent;
            }
            let now_ns = driver.monotonic_ns();
            if now_ns >= deadline_ns {
                return Err(TIMED_OUT);
            }
            let wake_ns = deadline_ns.min(now_ns.saturating_add(ROOM_AGAIN_NS));
            let place = match &self.way {
                Way::Here { place, .. } => place.clone(),
                Way::Far(far) if self.sent < self.granted => {
                    far.wait_for_room(wake_ns);
                    continue;
                }
                Way::Far(far) => {
                    far.wait_for_credit(&self.credit, seen, deadline_ns)?;
                    continue;
                }
            };
            if self.sent < self.granted {
                let mut last = Err(NO_ROOM);
                place.wait_for_room(wake_ns, || {
                    last = self.send(payload, headers);
                    !is_again(&last)
                });
                if !is_again(&last) {
                    return last;
                }
            } else if driver.park(&self.credit.word, seen, deadline_ns) == Parked::Deadlock {
                debug_assert_eq!(deadline_ns, FOREVER_NS);
                return Err(TIMED_OUT);
            }
        }
    }

    /// Ends the stream; the asker receives `status` as the last word of this responder, END for OK.
    ///
    /// Needs no room and no credit. CANCELLED: it has ended already, by the other side.
    pub fn end(&mut self, status: Status) -> Result<()> {
        self.check()?;
        self.has_ended = true;
        let status = match status {
            Status::Ok => Status::End,
            other => other,
        };
        if self.finish((status, true)) {
            Ok(())
        } else {
            Err(self.cancelled())
        }
    }

    fn finish(&self, end: (Status, bool)) -> bool {
        let (broker, number) = (self.broker(), self.token as u32);
        let place = match &self.way {
            Way::Here { place, .. } => place,
            Way::Far(far) => return far.end(broker, &self.credit, end.0),
        };
        let ended = lock(&place.surveys).end_stream(broker, number, Some(&self.credit), end);
        if ended {
            place.report_ended();
        }
        ended
    }

    fn check(&self) -> Result<()> {
        if self.has_ended {
            return Err(ENDED);
        }
        if self.broker().is_closed() {
            return Err(Error::CLOSED);
        }
        Ok(())
    }

    /// No credit is known: asks, and says who waits if there is none.
    #[cold]
    fn look_for_credit(&mut self) -> Result<()> {
        self.credit.wait(LOOP);
        self.granted = self.credit.granted();
        if self.credit.has_ended() {
            return Err(self.cancelled());
        }
        if self.sent < self.granted {
            return Ok(());
        }
        Err(NO_CREDIT)
    }

    #[cold]
    fn cancelled(&self) -> Error {
        if self.broker().is_closed() {
            return Error::CLOSED;
        }
        Error::new(&GONE)
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        if !self.has_ended {
            self.finish((Status::Cancelled, false));
        }
        if let Way::Here { .. } = self.way {
            self.broker().streams.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn is_again(result: &Result<()>) -> bool {
    matches!(result, Err(error) if error.status() == Status::Again)
}

const ENDED: Error = Error::new(&Fault(
    Status::Misuse,
    "this reply stream has ended; it takes no more replies",
));

pub(crate) static GONE: Fault = Fault(
    Status::Cancelled,
    "nobody waits for more of this reply stream: the asker, its deadline, the end of the \
     subscription or of the connection has ended it",
);

const NO_CREDIT: Error = Error::new(&Fault(
    Status::Again,
    "the asker has granted no more replies; send again when it has received",
));

const NO_ROOM: Error = Error::new(&Fault(
    Status::Again,
    "the asker's queue of answers is full; send again when it has received",
));

const TIMED_OUT: Error = Error::new(&Fault(
    Status::Timeout,
    "the asker granted no reply and made no room within the timeout",
));

const INSIDE_SUBMIT: Error = Error::new(&Fault(
    Status::Misuse,
    "this thread is submitting the request that is answered: nobody could receive meanwhile",
));

const HEADERS_TOO_LARGE: Error = Error::new(&Fault(
    Status::TooLarge,
    "the headers have more than 65,536 bytes",
));

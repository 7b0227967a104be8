//! Asking: requesters with many requests in flight, and one question at a time from any thread.
//!
//! A token is (requester, number): the answer finds its way back without a table in between.
//! Every accepted submit ends in exactly one final answer: the responder's, or NO_RESPONDER, BUSY,
//! TIMEOUT or CANCELLED.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_memory::allocation::{try_arc_bytes, try_box};
use fastmq_memory::sync::lock;
use fastmq_memory::view::{Numbers, View};
use fastmq_memory::{Batch, Label, ReaderGuard, ReplyBuffer};

use crate::answers::{Answers, token_of};
use crate::asking::{Asking, Fate, Here};
use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::flight::{Flight, IN_FLIGHT_MAX, timeout_of};
use crate::many::ManyTaken;
use crate::place::{Place, numbers_of, or_all, unread};
use crate::route::Route;
use crate::survey::LEG;
use crate::thread_client::{here, with_answer};
use crate::wait::Profile;
use crate::writer::{Message, Writer};
/// Default requests in flight.
pub const IN_FLIGHT_DEFAULT: u32 = 1024;

/// What a requester is opened with.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequesterOptions<'a> {
    /// Requests in flight at most; 0: 1,024.
    pub in_flight_max: u32,
    /// The subject of every request; empty: each names its own.
    pub subject: &'a [u8],
    /// How `receive` waits; `None`: the client's default.
    pub wait: Option<Profile>,
}

/// Many requests in flight from one thread at a time.
pub struct Requester {
    pub(crate) writer: Writer,
    /// For other subjects than its own, of a requester that has one; made when first needed.
    pub(crate) other: Option<Box<Writer>>,
    pub(crate) answers: Answers,
    pub(crate) subject: Arc<[u8]>,
    pub(crate) route: Option<Route>,
    pub(crate) flight: Flight,
    until_clock: u32,
}

impl std::fmt::Debug for Requester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requester")
            .field("id", &self.answers.id)
            .finish_non_exhaustive()
    }
}

/// Receives that found something between two readings of the clock.
const RECEIVES_PER_CLOCK: u32 = 64;

impl Requester {
    /// Opens a requester.
    pub fn open(broker: &Arc<Broker>, options: RequesterOptions<'_>) -> Result<Self> {
        broker.check_open()?;
        let max = match options.in_flight_max {
            0 => IN_FLIGHT_DEFAULT,
            max if max <= IN_FLIGHT_MAX => max,
            max => {
                return Err(Error::with(
                    &Fault(Status::Invalid, "in_flight_max is at most 65,535"),
                    format_args!("in_flight_max is {max}; at most 65,535"),
                ));
            }
        };
        if !options.subject.is_empty() {
            crate::presence::check_subject(options.subject)?;
        }
        let requester = Self::open_apart(broker, options.subject, max, options.wait)?;
        requester.answers.place.join(&broker.polled);
        Ok(requester)
    }

    /// Opens one of which the user's loop does not hear.
    pub(crate) fn open_apart(
        broker: &Arc<Broker>,
        subject: &[u8],
        max: u32,
        wait: Option<Profile>,
    ) -> Result<Self> {
        let subject = try_arc_bytes(subject)?;
        let label = (!subject.is_empty()).then(|| Label {
            subject: subject.clone(),
            publisher: 0,
        });
        let answers = Answers::open(broker, wait)?;
        Ok(Self {
            writer: Writer::new(broker, label)?,
            other: None,
            answers,
            subject,
            route: None,
            flight: Flight::new(max),
            until_clock: RECEIVES_PER_CLOCK,
        })
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<Broker> {
        self.writer.broker()
    }

    /// The queue of answers.
    pub fn place(&self) -> &Arc<Place> {
        &self.answers.place
    }

    /// Requests without a final answer, those with one not yet received included.
    pub fn in_flight(&self) -> u32 {
        self.flight.count()
    }

    /// Sends a request to the requester's own subject.
    #[inline(always)]
    pub fn submit(&mut self, payload: &[u8], user_token: u64, timeout_ns: u64) -> Result<()> {
        if self.subject.is_empty() {
            return Err(NO_SUBJECT);
        }
        let number = self.take(user_token, timeout_ns)?;
        let token = self.answers.token(number);
        let route = &mut self.route;
        let sent = self
            .writer
            .request_by(route, &self.subject, payload, token, Asking::Later);
        self.sent(number, sent)
    }

    /// Sends a request to a subject, whether or not the requester has one of its own.
    #[inline(always)]
    pub fn submit_to(
        &mut self,
        subject: &[u8],
        payload: &[u8],
        user_token: u64,
        timeout_ns: u64,
    ) -> Result<()> {
        if !self.subject.is_empty() {
            let message = Message {
                subject,
                payload,
                ..Message::default()
            };
            return self.submit_message(&message, user_token, timeout_ns);
        }
        let number = self.take(user_token, timeout_ns)?;
        let token = self.answers.token(number);
        let sent = self.writer.request(subject, payload, token, Asking::Later);
        self.sent(number, sent)
    }

    /// Sends a request; its answer comes by `receive` with `user_token`.
    ///
    /// AGAIN: as many requests are in flight as may be, or as the connection to a server takes now:
    /// receive answers first. OK means that one final answer will come.
    pub fn submit_message(
        &mut self,
        message: &Message<'_>,
        user_token: u64,
        timeout_ns: u64,
    ) -> Result<()> {
        let has_own = !self.subject.is_empty();
        if !has_own && message.subject.is_empty() {
            return Err(NO_SUBJECT);
        }
        let mut room = None;
        let message = self.broker().with_timeout(message, timeout_ns, &mut room);
        let number = self.take(user_token, timeout_ns)?;
        let token = self.answers.token(number);
        let sent = if message.subject.is_empty() {
            let message = Message {
                subject: &self.subject,
                ..*message
            };
            self.writer
                .renewed(&mut self.route, &self.subject)
                .and_then(|route| {
                    self.writer
                        .request_along(route, &message, token, Asking::Later)
                })
        } else if has_own {
            other_writer(&mut self.other, self.writer.broker())
                .and_then(|other| other.request_message(message, token, Asking::Later))
        } else {
            self.writer.request_message(message, token, Asking::Later)
        };
        self.sent(number, sent)
    }

    /// Takes a place in the window.
    #[inline(always)]
    fn take(&mut self, user_token: u64, timeout_ns: u64) -> Result<u32> {
        self.flight
            .take(user_token, timeout_of(timeout_ns))
            .ok_or_else(|| self.no_place())
    }

    #[cold]
    pub(crate) fn no_place(&self) -> Error {
        if self.flight.is_full() {
            WINDOW_FULL
        } else {
            Error::NO_MEMORY
        }
    }

    #[inline(always)]
    fn sent(&mut self, number: u32, sent: Result<Fate>) -> Result<()> {
        if !matches!(sent, Ok(Fate::Sent(1))) {
            return self.sent_otherwise(number, sent);
        }
        if self.answers.place.is_deadline_watched() {
            self.stamp_now();
        }
        Ok(())
    }

    /// Notes what became of a request that not exactly one responder has.
    #[cold]
    #[inline(never)]
    fn sent_otherwise(&mut self, number: u32, sent: Result<Fate>) -> Result<()> {
        match sent {
            Ok(Fate::Sent(responders)) => {
                self.flight.share(number, responders);
                self.sent(number, Ok(Fate::Sent(1)))
            }
            Ok(Fate::Busy) if self.is_ahead(1) => {
                self.flight.answer(number);
                Err(CONNECTION_FULL)
            }
            Ok(fate) => {
                self.settle(number, status_of(fate));
                Ok(())
            }
            Err(error) => {
                self.flight.answer(number);
                Err(error)
            }
        }
    }

    /// Whether it is the connection to a server that takes no request now, and there is something
    /// to receive meanwhile, beside so many requests that were not sent.
    pub(crate) fn is_ahead(&self, unsent: u32) -> bool {
        self.broker().uplink.is_some() && self.flight.count() > unsent
    }

    #[cold]
    fn settle(&mut self, number: u32, status: Status) {
        if self.flight.settle(number, status) {
            self.answers.place.report_fate();
        }
    }

    /// Makes the deadlines of recent submits known to the loops that watch.
    #[cold]
    pub(crate) fn stamp_now(&mut self) {
        let now_ns = self.broker().driver.monotonic_ns();
        self.flight.stamp(now_ns);
        self.answers
            .place
            .report_deadline(self.flight.deadline_ns());
    }

    /// Ends a request; its answer will be CANCELLED. NOT_FOUND: no request in flight has this
    /// token.
    pub fn cancel(&mut self, user_token: u64) -> Result<()> {
        match self.flight.find(user_token) {
            Some(number) => {
                self.broker().give_up(self.answers.token(number));
                self.settle(number, Status::Cancelled);
            }
            None => self.cancel_many(user_token)?,
        }
        Ok(())
    }

    /// Nanoseconds until the next request in flight times out, at most: it may be sooner than any
    /// open one does, by one that was answered since. `u64::MAX`: none will. Reads the clock.
    pub fn next_deadline(&mut self) -> u64 {
        let now_ns = self.broker().driver.monotonic_ns();
        self.flight.stamp(now_ns);
        match self.flight.deadline_ns() {
            u64::MAX => u64::MAX,
            deadline_ns => deadline_ns.saturating_sub(now_ns),
        }
    }

    /// Receives up to `limit` answers, as many as a batch holds if it is 0, waiting for the first
    /// for at most `timeout_ns`.
    #[inline(always)]
    pub fn receive(&mut self, limit: usize, timeout_ns: u64) -> Result<Batch<'_>> {
        let limit = or_all(limit);
        let broker: &Broker = self.writer.broker();
        let place = &self.answers.place;
        let mut guard = place.reader()?;
        let mut state = Collect {
            flight: &mut self.flight,
            until_clock: &mut self.until_clock,
            place,
            requester: self.answers.id,
            broker,
            limit,
        };
        let count = state.look(&mut guard, false)?;
        if count > 0 {
            place
                .gather
                .more(count, limit, || state.look(&mut guard, false));
            if broker.stamper.is_on() {
                place.note_received(broker);
            }
            return Ok(guard.into_batch());
        }
        place.gather.starve();
        let waited = place.wait(broker, guard, timeout_ns, |guard| state.look(guard, true));
        if broker.stamper.is_on() && waited.is_ok() {
            place.note_received(broker);
        }
        waited
    }

    /// Asks and waits for the answer, which `use_answer` gets.
    ///
    /// A requester with a subject of its own asks there; the message's subject is ignored.
    pub fn request<R>(
        &mut self,
        message: &Message<'_>,
        timeout_ns: u64,
        use_answer: impl FnOnce(&View) -> R,
    ) -> Result<R> {
        let subject = &*self.subject;
        let (route, writer) = (&mut self.route, &self.writer);
        let mut room = None;
        let message = writer.broker().with_timeout(message, timeout_ns, &mut room);
        let use_answer = |status, payload: &[u8], headers: &[u8]| {
            with_answer(status, payload, headers, use_answer)
        };
        here(writer.broker(), |client| {
            let named = if subject.is_empty() {
                message.subject
            } else {
                subject
            };
            client.ask(named, timeout_ns, use_answer, |token, asking| {
                if subject.is_empty() {
                    return writer.request_message(message, token, asking);
                }
                let message = Message {
                    subject,
                    ..*message
                };
                writer.request_along(writer.renewed(route, subject)?, &message, token, asking)
            })
        })
    }

    /// Asks the requester's own subject and waits for the answer, which goes to `reply`.
    #[inline(always)]
    pub fn request_into(
        &mut self,
        payload: &[u8],
        timeout_ns: u64,
        reply: &mut ReplyBuffer<'_>,
    ) -> Result<()> {
        if self.subject.is_empty() {
            return Err(NO_SUBJECT);
        }
        let (route, writer, subject) = (&mut self.route, &self.writer, &*self.subject);
        here(writer.broker(), |client| {
            let token = client.next_token()?;
            let message = (subject, payload);
            let asked = writer.ask_here_by_route(&client.calls, route, message, token, reply);
            if asked == Here::Answered {
                return Ok(());
            }
            client.ask_on(asked, subject, token, timeout_ns, reply, |asking| {
                writer.request_by(route, subject, payload, token, asking)
            })
        })
    }
}

/// The writer for other subjects than the requester's own.
#[cold]
pub(crate) fn other_writer<'w>(
    other: &'w mut Option<Box<Writer>>,
    broker: &Arc<Broker>,
) -> Result<&'w Writer> {
    if other.is_none() {
        *other = Some(try_box(Writer::new(broker, None)?)?);
    }
    other.as_deref().ok_or(Error::NO_MEMORY)
}

const WINDOW_FULL: Error = Error::new(&Fault(
    Status::Again,
    "the requester has in_flight_max requests in flight; receive answers first",
));

pub(crate) const CONNECTION_FULL: Error = Error::new(&Fault(
    Status::Again,
    "the connection to the server takes no more requests now; receive answers first",
));

pub(crate) const NOT_IN_FLIGHT: Error = Error::new(&Fault(
    Status::NotFound,
    "no request in flight has this token; it may have been answered",
));

pub(crate) const NO_SUBJECT: Error = Error::new(&Fault(
    Status::Invalid,
    "this requester has no subject of its own; name one with each request",
));

pub(crate) fn status_of(fate: Fate) -> Status {
    match fate {
        Fate::Sent(_) => Status::Ok,
        Fate::NoResponder => Status::NoResponder,
        Fate::Busy => Status::Busy,
        Fate::Cancelled => Status::Cancelled,
    }
}

/// What `receive` works on.
struct Collect<'a> {
    flight: &'a mut Flight,
    until_clock: &'a mut u32,
    place: &'a Place,
    requester: u32,
    broker: &'a Broker,
    limit: usize,
}

impl Collect<'_> {
    #[inline(always)]
    fn look(&mut self, guard: &mut ReaderGuard<'_>, is_waiting: bool) -> Result<usize> {
        let mut late = 0;
        let (flight, many) = (
            &mut *self.flight,
            &mut ManyTaken::new(self.broker, self.place),
        );
        let clock = || self.broker.driver.monotonic_ns();
        let found = guard.fill(self.limit, &clock, |visit| {
            match flight.answer(visit.view().token as u32) {
                Some(user_token) => {
                    visit.set_token(user_token);
                    true
                }
                None if many.take(flight, visit) => true,
                None => {
                    late += 1;
                    false
                }
            }
        });
        many.end();
        let mut count = found.map_err(unread)?;
        if late > 0 {
            self.broker.late_answers.fetch_add(late, Ordering::Relaxed);
        }
        if self.place.has_late.load(Ordering::Relaxed) {
            self.take_late();
            count = self.take_fates(guard)?;
        } else if self.flight.has_fates() {
            count = self.take_fates(guard)?;
        }
        let has_deadline = self.flight.has_unstamped() || self.flight.deadline_ns() != u64::MAX;
        if has_deadline {
            *self.until_clock -= 1;
            if *self.until_clock == 0
                || (is_waiting && self.until_clock.is_multiple_of(16))
                || count == 0 && !is_waiting
            {
                count = self.look_at_clock(guard)?;
            }
        } else if self.place.deadline_ns.load(Ordering::Acquire) != u64::MAX {
            self.place.deadline_ns.store(u64::MAX, Ordering::Relaxed);
        }
        Ok(count)
    }

    /// Responders that will not answer.
    #[cold]
    fn take_late(&mut self) {
        self.place.has_fates.store(true, Ordering::Release);
        let (flight, broker, place) = (&mut *self.flight, self.broker, self.place);
        place.take_late(|token, status| {
            match token as u32 {
                number if number & LEG == 0 => flight.leave(number, status),
                number => {
                    let ended = lock(&place.surveys).leave(broker, number, status);
                    if let Some((word, status)) = ended {
                        flight.settle_many(word.user_token, status);
                    }
                }
            }
            true
        });
    }

    #[cold]
    fn look_at_clock(&mut self, guard: &mut ReaderGuard<'_>) -> Result<usize> {
        *self.until_clock = RECEIVES_PER_CLOCK;
        let now_ns = self.broker.driver.monotonic_ns();
        self.flight.stamp(now_ns);
        let is_due = self.flight.is_due(now_ns);
        let timed_out = |number| self.broker.give_up(token_of(self.requester, number));
        self.flight.expire(now_ns, timed_out);
        if is_due && self.flight.has_many() {
            let (flight, mut surveys) = (&mut *self.flight, lock(&self.place.surveys));
            let timed_out = |user_token| flight.settle_many(user_token, Status::Timeout);
            let next_ns = surveys.expire(self.broker, now_ns, timed_out);
            self.flight.note_deadline(next_ns);
        }
        self.place
            .deadline_ns
            .store(self.flight.deadline_ns(), Ordering::Relaxed);
        self.take_fates(guard)
    }

    #[cold]
    fn take_fates(&mut self, guard: &mut ReaderGuard<'_>) -> Result<usize> {
        let limit = self.limit;
        self.flight.receive_fates(|token, status, flags| {
            let numbers = Numbers {
                flags,
                ..numbers_of(token, status)
            };
            guard.count() < limit && guard.push_local(numbers)
        });
        let has_ended = self.flight.has_many() && self.take_ended(guard);
        if has_ended {
            // The next receive looks here again.
            self.place.has_late.store(true, Ordering::Release);
        } else if !self.flight.has_fates() {
            self.place.has_fates.store(false, Ordering::Release);
        } else if !self.place.has_fates.load(Ordering::Relaxed) {
            // More have timed out than this batch may have.
            self.place.report_fate();
        }
        match guard.count() {
            // Nobody would come and wake a reader who slept now.
            0 if self.flight.has_fates() || has_ended => Err(Error::NO_MEMORY),
            count => Ok(count),
        }
    }

    /// Hands over how streams have ended; true if more is left.
    #[cold]
    fn take_ended(&mut self, guard: &mut ReaderGuard<'_>) -> bool {
        let mut surveys = lock(&self.place.surveys);
        while surveys.has_ended() {
            // Room first: what was taken cannot be given back.
            if guard.count() >= self.limit || !guard.reserve_local() {
                return true;
            }
            let Some((word, status)) = surveys.take_ended(self.broker) else {
                break;
            };
            if word.is_last() {
                self.flight.end_many();
            }
            let is_pushed = guard.push_local(Numbers {
                flags: word.flags,
                subscription_id: word.subscription,
                ..numbers_of(word.user_token, status)
            });
            debug_assert!(is_pushed);
        }
        false
    }
}

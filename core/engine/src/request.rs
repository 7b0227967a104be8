//! Asking: requesters with many requests in flight, and one question at a time from any thread.
//!
//! A token is (requester, number): the answer finds its way back without a table in between.
//! Every accepted submit ends in exactly one final answer: the responder's, or NO_RESPONDER, BUSY,
//! TIMEOUT or CANCELLED.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_memory::view::{Numbers, Optional, View, view_flag};
use fastmq_memory::{Batch, Detached, ReaderGuard};

use crate::broker::{Broker, lock};
use crate::call::{self, Calls};
use crate::error::{Error, Result, Status};
use crate::flight::{Flight, IN_FLIGHT_MAX, timeout_of};
use crate::place::{Place, QueueOptions, corrupt};
use crate::route::Route;
use crate::wait::Profile;
use crate::writer::{Asking, Fate, Here, Message, Writer};

/// Bits of a requester's id that name its place in the table: 524,288 requesters at once.
const REQUESTER_INDEX_BITS: u32 = 19;
/// The same as a mask.
pub(crate) const REQUESTER_INDEX_MASK: u32 = (1 << REQUESTER_INDEX_BITS) - 1;
/// Generations of a place; the top bit of a token stays 0.
const REQUESTER_GENERATIONS: u32 = 1 << 12;
/// Default requests in flight.
pub const IN_FLIGHT_DEFAULT: u32 = 1024;

/// Who waits for answers.
#[derive(Debug, Default)]
pub(crate) struct Requesters {
    places: Vec<(u32, Option<Arc<Place>>)>,
    free: VecDeque<u32>,
}

impl Requesters {
    /// Enters a queue of answers and gives its requester's id.
    fn enter(&mut self, place: &Arc<Place>) -> Option<u32> {
        let index = if self.free.len() > 64 {
            self.free.pop_front()
        } else {
            None
        };
        let index = match index {
            Some(index) => index,
            None if self.places.len() as u32 <= REQUESTER_INDEX_MASK => {
                self.places.try_reserve(1).ok()?;
                self.places.push((0, None));
                self.places.len() as u32 - 1
            }
            None => self.free.pop_front()?,
        };
        let (generation, slot) = &mut self.places[index as usize];
        // Generation 0 is never used, so that no token is 0.
        *generation = *generation % (REQUESTER_GENERATIONS - 1) + 1;
        *slot = Some(place.clone());
        Some(index | *generation << REQUESTER_INDEX_BITS)
    }

    fn leave(&mut self, id: u32) {
        let index = id & REQUESTER_INDEX_MASK;
        if let Some((generation, slot)) = self.places.get_mut(index as usize)
            && *generation == id >> REQUESTER_INDEX_BITS
            && slot.take().is_some()
        {
            self.free.push_back(index);
        }
    }

    pub(crate) fn place(&self, index: u32, id: u32) -> Option<Arc<Place>> {
        let (generation, place) = self.places.get(index as usize)?;
        if *generation != id >> REQUESTER_INDEX_BITS {
            return None;
        }
        place.clone()
    }
}

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

/// A queue of answers and the id under which they find it.
struct Answers {
    broker: Arc<Broker>,
    place: Arc<Place>,
    id: u32,
}

impl Answers {
    fn open(broker: &Arc<Broker>, wait: Option<Profile>) -> Result<Self> {
        let place = Place::open(
            broker,
            QueueOptions {
                wait,
                ..Default::default()
            },
            None,
            false,
        )?;
        let id = lock(&broker.requesters).enter(&place).ok_or(Error::new(
            Status::NoSpace,
            &"there are 524,288 requesters already; close some",
        ))?;
        Ok(Self {
            broker: broker.clone(),
            place,
            id,
        })
    }

    #[inline(always)]
    fn token(&self, number: u32) -> u64 {
        u64::from(self.id) << 32 | u64::from(number)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        lock(&self.broker.requesters).leave(self.id);
        self.place.close(&self.broker);
        self.broker.polled.remove(&self.place);
        self.broker.forget_place(&self.place);
    }
}

/// Many requests in flight from one thread at a time.
pub struct Requester {
    writer: Writer,
    /// For other subjects than its own, of a requester that has one; made when first needed.
    other: Option<Box<Writer>>,
    answers: Answers,
    subject: Box<[u8]>,
    route: Option<Route>,
    flight: Flight,
    /// Requests whose fate was known at once: (user token, status).
    fates: VecDeque<(u64, Status)>,
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
                let text = format!("in_flight_max is {max}; at most 65,535");
                return Err(Error::with(Status::Invalid, text));
            }
        };
        if !options.subject.is_empty() {
            fastmq_route::check_subject(options.subject)?;
        }
        let label = (!options.subject.is_empty()).then_some(options.subject);
        let answers = Answers::open(broker, options.wait)?;
        answers.place.join(&broker.polled);
        Ok(Self {
            writer: Writer::new(broker, label),
            other: None,
            answers,
            subject: Box::from(options.subject),
            route: None,
            flight: Flight::new(max),
            fates: VecDeque::new(),
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
        self.flight.count() + self.fates.len() as u32
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
            let message = Message { subject, payload, ..Message::default() };
            return self.submit_message(&message, user_token, timeout_ns);
        }
        let number = self.take(user_token, timeout_ns)?;
        let token = self.answers.token(number);
        let sent = self.writer.request(subject, payload, token, Asking::Later);
        self.sent(number, sent)
    }

    /// Sends a request; its answer comes by `receive` with `user_token`.
    ///
    /// AGAIN: as many requests are in flight as may be. OK means that one final answer will come.
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
        let number = self.take(user_token, timeout_ns)?;
        let token = self.answers.token(number);
        let sent = if message.subject.is_empty() {
            let message = Message { subject: &self.subject, ..*message };
            self.writer
                .renewed(&mut self.route, &self.subject)
                .and_then(|route| self.writer.request_along(route, &message, token, Asking::Later))
        } else if has_own {
            let broker = self.writer.broker();
            let other = self.other.get_or_insert_with(|| Box::new(Writer::new(broker, None)));
            other.request_message(message, token, Asking::Later)
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
            .ok_or(WINDOW_FULL)
    }

    #[inline(always)]
    fn sent(&mut self, number: u32, sent: Result<Fate>) -> Result<()> {
        match sent {
            Ok(Fate::Sent) => {
                if self.answers.place.sleepers.event.get().is_some() {
                    self.stamp_now();
                }
                Ok(())
            }
            Ok(fate) => self.settle(number, status_of(fate)),
            Err(error) => {
                self.flight.answer(number, false);
                Err(error)
            }
        }
    }

    #[cold]
    fn settle(&mut self, number: u32, status: Status) -> Result<()> {
        if let Some(user_token) = self.flight.answer(number, false) {
            self.fates.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
            self.fates.push_back((user_token, status));
            // A foreign loop must hear of it, although no record came.
            if let Some(event) = self.answers.place.sleepers.event.get() {
                event.signal();
            }
        }
        Ok(())
    }

    /// Makes the deadlines of recent submits known to the descriptor.
    #[cold]
    fn stamp_now(&mut self) {
        let now_ns = self.broker().driver.monotonic_ns();
        self.flight.stamp(now_ns);
        let deadline_ns = self.flight.deadline_ns();
        let place = &self.answers.place;
        if place.deadline_ns.swap(deadline_ns, Ordering::Relaxed) != deadline_ns
            && let Some(event) = place.sleepers.event.get()
        {
            event.set_deadline((deadline_ns != u64::MAX).then_some(deadline_ns));
        }
    }

    /// Ends a request; its answer will be CANCELLED. NOT_FOUND: no request in flight has this token.
    pub fn cancel(&mut self, user_token: u64) -> Result<()> {
        let number = self.flight.find(user_token).ok_or(Error::new(
            Status::NotFound,
            &"no request in flight has this token; it may have been answered",
        ))?;
        self.settle(number, Status::Cancelled)
    }

    /// Receives up to `limit` answers, waiting for the first for at most `timeout_ns`.
    #[inline(always)]
    pub fn receive(&mut self, limit: usize, timeout_ns: u64) -> Result<Batch<'_>> {
        let broker = self.writer.broker().clone_for_receive();
        let place = &self.answers.place;
        let mut guard = place.reader()?;
        let mut state = Collect {
            flight: &mut self.flight,
            fates: &mut self.fates,
            until_clock: &mut self.until_clock,
            place,
            broker,
            limit,
        };
        if state.look(&mut guard, false)? > 0 {
            return Ok(guard.into_batch());
        }
        place.wait(broker, guard, timeout_ns, |guard| state.look(guard, true))
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
        let use_answer = |status, payload: &[u8], headers: &[u8]| {
            with_answer(status, payload, headers, use_answer)
        };
        here(writer.broker(), |client| {
            let named = if subject.is_empty() { message.subject } else { subject };
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

    /// Asks the requester's own subject and waits for the answer, which `use_answer` gets as
    /// (status, payload, encoded headers).
    #[inline(always)]
    pub fn request_parts<R>(
        &mut self,
        payload: &[u8],
        timeout_ns: u64,
        use_answer: impl FnOnce(u32, &[u8], &[u8]) -> R,
    ) -> Result<R> {
        if self.subject.is_empty() {
            return Err(NO_SUBJECT);
        }
        let (route, writer, subject) = (&mut self.route, &self.writer, &*self.subject);
        here(writer.broker(), |client| {
            let token = client.next_token()?;
            let mut use_answer = Some(use_answer);
            let asked = writer.ask_here_by_route(
                &client.calls,
                route,
                (subject, payload),
                token,
                |status, payload, headers| {
                    use_answer
                        .take()
                        .map(|use_answer| use_answer(status, payload, headers))
                },
            );
            if let Some(Ok(Here::Answer(Some(result)))) = asked {
                return Ok(result);
            }
            client.ask_on(asked, subject, token, timeout_ns, use_answer, |asking| {
                writer.request_by(route, subject, payload, token, asking)
            })
        })
    }
}

/// Runs `body` with this thread's part of the broker.
#[inline(always)]
fn here<R>(broker: &Arc<Broker>, body: impl FnOnce(&ThreadClient) -> Result<R>) -> Result<R> {
    let find = || Some(broker.clone());
    with_thread_client(broker.id(), find, body).unwrap_or(Err(Error::CLOSED))
}

const WINDOW_FULL: Error = Error::new(
    Status::Again,
    &"the requester has in_flight_max requests in flight; receive answers first",
);

const NO_SUBJECT: Error = Error::new(
    Status::Invalid,
    &"this requester has no subject of its own; name one with each request",
);

fn status_of(fate: Fate) -> Status {
    match fate {
        Fate::Sent => Status::Ok,
        Fate::NoResponder => Status::NoResponder,
        Fate::Busy => Status::Busy,
        Fate::Cancelled => Status::Cancelled,
    }
}

/// What `receive` works on.
struct Collect<'a> {
    flight: &'a mut Flight,
    fates: &'a mut VecDeque<(u64, Status)>,
    until_clock: &'a mut u32,
    place: &'a Place,
    broker: &'a Broker,
    limit: usize,
}

impl Collect<'_> {
    #[inline(always)]
    fn look(&mut self, guard: &mut ReaderGuard<'_>, is_waiting: bool) -> Result<usize> {
        let flight = &mut *self.flight;
        let mut late = 0;
        let clock = || self.broker.driver.monotonic_ns();
        let found = guard.fill(self.limit, &clock, |visit| {
            let has_more = visit.view().flags & view_flag::MORE != 0;
            match flight.answer(visit.view().token as u32, has_more) {
                Some(user_token) => {
                    visit.set_token(user_token);
                    true
                }
                None => {
                    late += 1;
                    false
                }
            }
        });
        let mut count = found.map_err(corrupt)?;
        if late > 0 {
            self.broker.late_answers.fetch_add(late, Ordering::Relaxed);
        }
        if !self.fates.is_empty() {
            count = self.take_fates(guard);
        }
        let has_deadline = self.flight.has_unstamped() || self.flight.deadline_ns() != u64::MAX;
        if has_deadline {
            *self.until_clock -= 1;
            if *self.until_clock == 0
                || (is_waiting && *self.until_clock % 16 == 0)
                || count == 0 && !is_waiting
            {
                count = self.look_at_clock(guard);
            }
        } else if self.place.deadline_ns.load(Ordering::Relaxed) != u64::MAX {
            self.place.deadline_ns.store(u64::MAX, Ordering::Relaxed);
        }
        Ok(count)
    }

    #[cold]
    fn look_at_clock(&mut self, guard: &mut ReaderGuard<'_>) -> usize {
        *self.until_clock = RECEIVES_PER_CLOCK;
        let now_ns = self.broker.driver.monotonic_ns();
        self.flight.stamp(now_ns);
        let fates = &mut *self.fates;
        self.flight
            .expire(now_ns, |token| fates.push_back((token, Status::Timeout)));
        self.place
            .deadline_ns
            .store(self.flight.deadline_ns(), Ordering::Relaxed);
        self.take_fates(guard)
    }

    #[cold]
    fn take_fates(&mut self, guard: &mut ReaderGuard<'_>) -> usize {
        while guard.count() < self.limit {
            let Some((token, status)) = self.fates.pop_front() else {
                break;
            };
            guard.push_local(Numbers {
                token,
                status: status as u32,
                ..Numbers::default()
            });
        }
        guard.count()
    }
}

impl Broker {
    /// A plain borrow, named where it stands beside mutable borrows of a requester's other fields.
    #[inline(always)]
    fn clone_for_receive(&self) -> &Self {
        self
    }
}

/// Everything of one client that belongs to one thread: its writer, and its way to ask.
pub struct ThreadClient {
    /// The writer for publishes by subject.
    pub writer: Writer,
    calls: Rc<Calls>,
    answers: OnceCell<Answers>,
    next_number: Cell<u32>,
    /// Answers to questions of an outer call that came while an inner one waited.
    stray: RefCell<Vec<Detached>>,
}

impl ThreadClient {
    fn new(broker: &Arc<Broker>) -> Self {
        Self {
            writer: Writer::new(broker, None),
            calls: call::of_this_thread(),
            answers: OnceCell::new(),
            next_number: Cell::new(1),
            stray: RefCell::default(),
        }
    }

    /// Answers a request; see [`Writer::reply`].
    #[inline(always)]
    pub fn reply(&self, token: u64, status: u32, payload: &[u8]) -> Result<()> {
        // An answer to an asker further up this thread's stack does not travel.
        if self.calls.is_asking() && payload.len() <= crate::writer::BLOCK_BYTES {
            match self.calls.answer(token, status, payload, &[]) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(()) => return Err(Error::NO_MEMORY),
            }
        }
        self.writer.reply_away(token, status, payload)
    }

    /// Asks by subject and waits for the answer, which `use_answer` gets.
    pub fn request<R>(
        &self,
        message: &Message<'_>,
        timeout_ns: u64,
        use_answer: impl FnOnce(&View) -> R,
    ) -> Result<R> {
        let use_answer = |status, payload: &[u8], headers: &[u8]| {
            with_answer(status, payload, headers, use_answer)
        };
        self.ask(message.subject, timeout_ns, use_answer, |token, asking| {
            self.writer.request_message(message, token, asking)
        })
    }

    /// The same for a message without optional fields; the answer comes as (status, payload,
    /// encoded headers).
    #[inline(always)]
    pub fn request_parts<R>(
        &self,
        subject: &[u8],
        payload: &[u8],
        timeout_ns: u64,
        use_answer: impl FnOnce(u32, &[u8], &[u8]) -> R,
    ) -> Result<R> {
        let token = self.next_token()?;
        let mut use_answer = Some(use_answer);
        let asked = self.writer.ask_here_by_subject(
            &self.calls,
            subject,
            payload,
            token,
            |status, payload, headers| {
                use_answer
                    .take()
                    .map(|use_answer| use_answer(status, payload, headers))
            },
        );
        if let Some(Ok(Here::Answer(Some(result)))) = asked {
            return Ok(result);
        }
        self.ask_on(asked, subject, token, timeout_ns, use_answer, |asking| {
            self.writer.request(subject, payload, token, asking)
        })
    }

    #[inline(always)]
    fn next_token(&self) -> Result<u64> {
        let answers = match self.answers.get() {
            Some(answers) => answers,
            None => self.open_answers()?,
        };
        let number = self.next_number.get();
        self.next_number.set(number.wrapping_add(1));
        Ok(answers.token(number))
    }

    /// Goes on with a question that was not answered on the shortest way.
    #[inline(never)]
    fn ask_on<R>(
        &self,
        asked: Option<Result<Here<Option<R>>>>,
        subject: &[u8],
        token: u64,
        timeout_ns: u64,
        use_answer: Option<impl FnOnce(u32, &[u8], &[u8]) -> R>,
        send: impl FnOnce(Asking<'_>) -> Result<Fate>,
    ) -> Result<R> {
        let Some(use_answer) = use_answer else {
            return Err(Error::new(Status::Internal, &"an answer was used twice"));
        };
        match asked {
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => self.wait_for(token, timeout_ns, |view| {
                use_answer(view.status, view.payload(), view.headers())
            }),
            None => self.ask_with(subject, token, timeout_ns, use_answer, send),
        }
    }

    fn ask<R>(
        &self,
        subject: &[u8],
        timeout_ns: u64,
        use_answer: impl FnOnce(u32, &[u8], &[u8]) -> R,
        send: impl FnOnce(u64, Asking<'_>) -> Result<Fate>,
    ) -> Result<R> {
        let token = self.next_token()?;
        self.ask_with(subject, token, timeout_ns, use_answer, |asking| send(token, asking))
    }

    fn ask_with<R>(
        &self,
        subject: &[u8],
        token: u64,
        timeout_ns: u64,
        use_answer: impl FnOnce(u32, &[u8], &[u8]) -> R,
        send: impl FnOnce(Asking<'_>) -> Result<Fate>,
    ) -> Result<R> {
        let mut use_answer = Some(use_answer);
        let mut result = None;
        let mut now = |status: u32, payload: &[u8], headers: &[u8]| {
            if let Some(use_answer) = use_answer.take() {
                result = Some(use_answer(status, payload, headers));
            }
        };
        let fate = send(Asking::Now(&self.calls, &mut now))?;
        match (result, use_answer) {
            (Some(result), _) => Ok(result),
            (None, Some(use_answer)) if fate == Fate::Sent => {
                self.wait_for(token, timeout_ns, |view| {
                    use_answer(view.status, view.payload(), view.headers())
                })
            }
            (None, _) => Err(fate_error(fate, subject)),
        }
    }

    #[cold]
    fn open_answers(&self) -> Result<&Answers> {
        let answers = Answers::open(self.writer.broker(), None)?;
        Ok(self.answers.get_or_init(|| answers))
    }

    #[inline(never)]
    fn wait_for<R>(
        &self,
        token: u64,
        timeout_ns: u64,
        use_answer: impl FnOnce(&View) -> R,
    ) -> Result<R> {
        let Some(answers) = self.answers.get() else {
            return Err(Error::CLOSED);
        };
        let broker: &Broker = self.writer.broker();
        let start_ns = broker.driver.monotonic_ns();
        let deadline_ns = start_ns.saturating_add(timeout_ns);
        loop {
            let stray = {
                let mut stray = self.stray.borrow_mut();
                let at = stray
                    .iter()
                    .position(|one| one.messages()[0].token == token);
                at.map(|at| stray.swap_remove(at))
            };
            if let Some(stray) = stray {
                return Ok(use_answer(&stray.messages()[0]));
            }
            let now_ns = broker.driver.monotonic_ns();
            let left_ns = deadline_ns.saturating_sub(now_ns);
            match answers.place.receive(broker, 1, left_ns) {
                Ok(batch) => {
                    let view = &batch.messages()[0];
                    if view.token == token {
                        return Ok(use_answer(view));
                    }
                    self.keep_stray(view, token);
                }
                Err(error) if matches!(error.status(), Status::Timeout | Status::Again) => {
                    return Err(Error::new(
                        Status::Timeout,
                        &"the responder did not answer within the timeout",
                    ));
                }
                Err(error) if error.status() == Status::End => return Err(Error::CLOSED),
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps an answer for an outer question; one that nobody waits for any more is dropped.
    fn keep_stray(&self, view: &View, inner: u64) {
        // Numbers grow: what is older than all nested questions was given up.
        let age = (inner as u32).wrapping_sub(view.token as u32);
        let mut stray = self.stray.borrow_mut();
        if age as usize <= 4 * crate::call::INLINE_DEPTH_MAX && stray.len() < 64 {
            stray.extend(Detached::copy(std::slice::from_ref(view)));
        } else {
            self.writer
                .broker()
                .late_answers
                .fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cold]
fn fate_error(fate: Fate, subject: &[u8]) -> Error {
    match fate {
        Fate::Sent | Fate::Cancelled => Error::new(
            Status::Cancelled,
            &"the responder went away before it answered",
        ),
        Fate::NoResponder => Error::with(
            Status::NoResponder,
            format!("nobody answers {} now", String::from_utf8_lossy(subject)),
        ),
        Fate::Busy => Error::new(
            Status::Busy,
            &"the responder's queue is full; try again later",
        ),
    }
}

/// Gives a view of an answer that is not in a lane.
fn with_answer<R>(
    status: u32,
    payload: &[u8],
    headers: &[u8],
    use_answer: impl FnOnce(&View) -> R,
) -> R {
    let numbers = Numbers {
        status,
        ..Numbers::default()
    };
    let optional = Optional {
        headers,
        ..Optional::default()
    };
    View::with_borrowed(&[], payload, numbers, Some(optional), use_answer)
}

#[derive(Default)]
struct ThreadClients {
    last: RefCell<Option<(u64, Rc<ThreadClient>)>>,
    all: RefCell<Vec<(u64, Rc<ThreadClient>)>>,
}

impl Drop for ThreadClients {
    fn drop(&mut self) {
        // In a forked child a lock may be held for ever by a thread that is not there.
        if fastmq_driver::fork::is_forked_child() {
            std::mem::forget(self.last.take());
            std::mem::forget(self.all.take());
        }
    }
}

thread_local! {
    static CLIENTS: ThreadClients = ThreadClients::default();
}

/// Runs `body` with this thread's part of the broker with this id. `find` gives the broker when the thread
/// meets it for the first time; `None`: there is no such broker, or the thread is ending.
#[inline(always)]
pub fn with_thread_client<R>(
    id: u64,
    find: impl FnOnce() -> Option<Arc<Broker>>,
    body: impl FnOnce(&ThreadClient) -> R,
) -> Option<R> {
    CLIENTS
        .try_with(|clients| {
            if let Ok(last) = clients.last.try_borrow()
                && let Some((last_id, client)) = &*last
                && *last_id == id
            {
                return Some(body(client));
            }
            let client = meet(clients, id, find)?;
            Some(body(&client))
        })
        .ok()?
}

#[cold]
#[inline(never)]
fn meet(
    clients: &ThreadClients,
    id: u64,
    find: impl FnOnce() -> Option<Arc<Broker>>,
) -> Option<Rc<ThreadClient>> {
    let known = clients
        .all
        .borrow()
        .iter()
        .find(|(other, _)| *other == id)
        .map(|(_, c)| c.clone());
    let client = match known {
        Some(client) => client,
        None => {
            let broker = find()?;
            let client = Rc::new(ThreadClient::new(&broker));
            let closed: Vec<_> = {
                let mut all = clients.all.borrow_mut();
                let (closed, open) = std::mem::take(&mut *all)
                    .into_iter()
                    .partition(|(_, client)| client.writer.broker().is_closed());
                *all = open;
                all.push((id, client.clone()));
                closed
            };
            // Dropped without a borrow: a writer's end may touch much.
            drop(closed);
            client
        }
    };
    if let Ok(mut last) = clients.last.try_borrow_mut() {
        *last = Some((id, client.clone()));
    }
    Some(client)
}

/// Drops this thread's part of a broker that was closed.
pub(crate) fn forget_thread_client(id: u64) {
    let _ = CLIENTS.try_with(|clients| {
        if let Ok(mut last) = clients.last.try_borrow_mut()
            && last.as_ref().is_some_and(|(other, _)| *other == id)
        {
            *last = None;
        }
        let gone = clients.all.try_borrow_mut().ok().and_then(|mut all| {
            let at = all.iter().position(|(other, _)| *other == id)?;
            Some(all.swap_remove(at))
        });
        drop(gone);
    });
}

//! Asking many: requests to which several responders answer, or one with a stream of replies.
//!
//! Each responder gets the request under a token of its own, a leg of the requester's `survey`.
//! What the asker receives says with MORE that more may come, and with END that nothing will:
//! exactly one message of each request has END.

use std::sync::atomic::Ordering;

use fastmq_driver::FOREVER_NS;
use fastmq_memory::Detached;
use fastmq_memory::allocation::try_box;
use fastmq_memory::sync::{MutexGuard, lock};
use fastmq_memory::view::{View, Visit, view_flag};
use fastmq_wire::message::Many;

use crate::answers::Answers;
use crate::asking::{Asking, Fate, Fates};
use crate::broker::Broker;
use crate::call;
use crate::error::{Error, Fault, Result, Status};
use crate::flight::{Flight, timeout_of};
use crate::link::{Far, Remote, Uplink};
use crate::options::ManyOptions;
use crate::place::Place;
use crate::request::{
    CONNECTION_FULL, NO_SUBJECT, NOT_IN_FLIGHT, Requester, other_writer, status_of,
};
use crate::route::Targets;
use crate::survey::{CREDIT_MAX, LEG, Surveys};
use crate::thread_client::{ThreadClient, fate_error, gone_error};
use crate::writer::{Message, Writer};

/// Where the legs of one request are entered.
pub(crate) struct Legs<'a> {
    answers: &'a Answers,
    survey: u32,
    /// What a server is to be asked for, and for how long.
    many: Many,
    timeout_ns: u64,
}

impl<'a> Legs<'a> {
    fn new(answers: &'a Answers, survey: u32, timeout_ns: u64, options: &ManyOptions) -> Self {
        Self {
            answers,
            survey,
            many: Many {
                answers: options.answers_max,
                credit: options.credit,
            },
            timeout_ns: timeout_of(timeout_ns),
        }
    }

    /// A token for one responder, whose subscription may not be known yet.
    fn add(&self, subscription: u32) -> Result<u64> {
        let place = &self.answers.place;
        match lock(&place.surveys).add_leg(self.survey, subscription) {
            Some(number) => Ok(self.answers.token(number)),
            // A handler among the responders has closed the asker.
            None if place.is_closed() => Err(Error::CLOSED),
            None => Err(Error::NO_MEMORY),
        }
    }

    fn drop(&self, token: u64) {
        lock(&self.answers.place.surveys).drop_leg(token as u32);
    }

    fn set_far(&self, token: u64, uplink: &Uplink, far: Box<Far>) {
        let (place, correlation) = (&self.answers.place, far.correlation);
        if !lock(&place.surveys).set_far(token as u32, far) {
            uplink.cancel(correlation);
        }
    }

    fn set_subscription(&self, token: u64, id: u32) {
        let (broker, place) = (&self.answers.broker, &self.answers.place);
        if lock(&place.surveys).set_subscription(broker, token as u32, id) {
            place.report_ended();
        }
    }
}

impl Writer {
    /// Sends a request to each responder, each with a token of its own.
    fn scatter(&self, targets: &Targets, message: &Message<'_>, legs: &Legs<'_>) -> Result<Fate> {
        if let Targets::Remote(remote) = targets {
            return self.ask_far(remote, message, legs);
        }
        let mut draft = self.request_draft(message, 0)?;
        self.count_call(&self.counters.requests);
        let mut fates = Fates::default();
        for responder in targets.responders() {
            let known = responder.known_subscription();
            let sent = legs.add(known).and_then(|token| {
                draft.token = token;
                let sent = self.ask_one(&responder, message, &draft, Asking::Later);
                match &sent {
                    Ok((Fate::Sent(_), id)) if *id != known => legs.set_subscription(token, *id),
                    Ok((Fate::Sent(_), _)) => {}
                    _ => legs.drop(token),
                }
                sent
            });
            fates.add(sent.map(|(fate, _)| fate))?;
        }
        Ok(fates.fate)
    }

    /// Sends it to a server, whose responders are one leg here.
    fn ask_far(&self, remote: &Remote, message: &Message<'_>, legs: &Legs<'_>) -> Result<Fate> {
        let ttl_ns = match (message.ttl_ns, legs.timeout_ns) {
            (0, u64::MAX) => 0,
            (0, timeout_ns) => timeout_ns,
            (ttl_ns, timeout_ns) => ttl_ns.min(timeout_ns),
        };
        let message = Message { ttl_ns, ..*message };
        // Before it is sent, so that it can be ended.
        let mut far = try_box(Far::default())?;
        let token = legs.add(0)?;
        let draft = self.request_draft(&message, token);
        self.count_call(&self.counters.requests);
        let asked = draft.and_then(|draft| remote.request_many(&message, &draft, legs.many));
        let Ok((Fate::Sent(responders), correlation)) = asked else {
            legs.drop(token);
            return asked.map(|(fate, _)| fate);
        };
        *far = Far::new(correlation);
        legs.set_far(token, &remote.uplink, far);
        Ok(Fate::Sent(responders))
    }

    /// The same for a subject.
    fn scatter_by_subject(&self, message: &Message<'_>, legs: &Legs<'_>) -> Result<Fate> {
        let hash = self.hash.hash(message.subject);
        if let Ok(routes) = self.routes.try_borrow()
            && let Some(route) = routes.get(hash, message.subject)
            && self.is_current(route)
        {
            return self.scatter(&route.targets, message, legs);
        }
        self.with_new_route(hash, message.subject, |targets| {
            self.scatter(targets, message, legs)
        })
    }
}

impl Requester {
    /// Sends a request to which several answers may come; by `receive`, with `user_token`.
    ///
    /// AGAIN: as many requests are in flight as may be. OK means that exactly one message with END
    /// will come, and before it what `options` ask for, each with MORE.
    pub fn submit_many(
        &mut self,
        message: &Message<'_>,
        user_token: u64,
        timeout_ns: u64,
        options: &ManyOptions,
    ) -> Result<()> {
        let has_own = !self.subject.is_empty();
        if !has_own && message.subject.is_empty() {
            return Err(NO_SUBJECT);
        }
        let survey = self.begin_many(user_token, timeout_ns, options)?;
        let legs = Legs::new(&self.answers, survey, timeout_ns, options);
        let sent = if message.subject.is_empty() {
            let message = Message {
                subject: &self.subject,
                ..*message
            };
            let route = self.writer.renewed(&mut self.route, &self.subject);
            route.and_then(|route| self.writer.scatter(&route.targets, &message, &legs))
        } else if has_own {
            other_writer(&mut self.other, self.writer.broker())
                .and_then(|other| other.scatter_by_subject(message, &legs))
        } else {
            self.writer.scatter_by_subject(message, &legs)
        };
        self.sent_many(survey, user_token, sent)
    }

    /// The same by a writer whose order with other messages counts.
    pub(crate) fn submit_many_by(
        &mut self,
        writer: &Writer,
        message: &Message<'_>,
        user_token: u64,
        timeout_ns: u64,
        options: &ManyOptions,
    ) -> Result<()> {
        let survey = self.begin_many(user_token, timeout_ns, options)?;
        let legs = Legs::new(&self.answers, survey, timeout_ns, options);
        let sent = writer.scatter_by_subject(message, &legs);
        self.sent_many(survey, user_token, sent)
    }

    /// Enters a request that is about to be sent.
    fn begin_many(
        &mut self,
        user_token: u64,
        timeout_ns: u64,
        options: &ManyOptions,
    ) -> Result<u32> {
        check_credit(options.credit)?;
        let now_ns = self.broker().driver.monotonic_ns();
        let deadline_ns = match timeout_of(timeout_ns) {
            u64::MAX => u64::MAX,
            timeout_ns => now_ns.saturating_add(timeout_ns),
        };
        if !self.flight.take_many(deadline_ns) {
            return Err(self.no_place());
        }
        if options.gap_ns > 0 {
            self.flight
                .note_deadline(now_ns.saturating_add(options.gap_ns));
        }
        let opened = {
            let mut surveys = lock(&self.answers.place.surveys);
            surveys.sender = call::thread_number();
            surveys.open(user_token, options, now_ns, deadline_ns)
        };
        if opened.is_none() {
            self.flight.end_many();
        }
        opened.ok_or(Error::NO_MEMORY)
    }

    /// Notes what became of it.
    fn sent_many(&mut self, survey: u32, user_token: u64, sent: Result<Fate>) -> Result<()> {
        let mut surveys = lock(&self.answers.place.surveys);
        surveys.sender = 0;
        let is_sent = matches!(sent, Ok(Fate::Sent(_)));
        if !is_sent {
            surveys.close(self.writer.broker(), survey);
        }
        drop(surveys);
        match sent {
            Ok(Fate::Sent(_)) => {
                if self.answers.place.is_deadline_watched() {
                    self.stamp_now();
                }
            }
            Ok(Fate::Busy) if self.is_ahead(1) => {
                self.flight.end_many();
                return Err(CONNECTION_FULL);
            }
            Ok(fate) => {
                self.flight.settle_many(user_token, status_of(fate));
                self.answers.place.report_fate();
            }
            Err(error) => {
                self.flight.end_many();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Grants `replies` more replies to each reply stream of a request.
    ///
    /// NOT_FOUND: no request for many answers in flight has this token. INVALID: `replies` is 0 or
    /// above [`CREDIT_MAX`], or the request takes no streams.
    pub fn grant(&mut self, user_token: u64, replies: u32) -> Result<()> {
        check_credit(replies)?;
        if replies == 0 {
            return Err(NOTHING_GRANTED);
        }
        let broker = self.writer.broker();
        let mut surveys = lock(&self.answers.place.surveys);
        let survey = surveys.find(user_token).ok_or(NOT_IN_FLIGHT)?;
        if surveys.grant(broker, survey, replies) {
            Ok(())
        } else {
            Err(NO_STREAMS)
        }
    }

    /// Ends a request for many answers.
    #[cold]
    pub(crate) fn cancel_many(&mut self, user_token: u64) -> Result<()> {
        let broker = self.writer.broker();
        let mut surveys = lock(&self.answers.place.surveys);
        let survey = surveys.find(user_token).ok_or(NOT_IN_FLIGHT)?;
        surveys.close(broker, survey);
        drop(surveys);
        self.flight.settle_many(user_token, Status::Cancelled);
        self.answers.place.report_fate();
        Ok(())
    }
}

#[cold]
fn check_credit(replies: u32) -> Result<()> {
    if replies <= CREDIT_MAX {
        return Ok(());
    }
    Err(Error::with(
        &Fault(Status::Invalid, "a credit is at most 1,048,576 replies"),
        format_args!("a credit of {replies} replies; at most 1,048,576"),
    ))
}

const NOTHING_GRANTED: Error = Error::new(&Fault(
    Status::Invalid,
    "a credit of 0 replies grants nothing",
));

const NO_STREAMS: Error = Error::new(&Fault(
    Status::Invalid,
    "this request takes no reply streams: it was submitted with credit 0",
));

/// Answers of one batch that are not of single requests.
pub(crate) struct ManyTaken<'a> {
    broker: &'a Broker,
    place: &'a Place,
    /// Held from the first of them to the last.
    surveys: Option<MutexGuard<'a, Surveys>>,
    /// When they came; 0: not known yet.
    now_ns: u64,
}

impl<'a> ManyTaken<'a> {
    #[inline(always)]
    pub(crate) fn new(broker: &'a Broker, place: &'a Place) -> Self {
        Self {
            broker,
            place,
            surveys: None,
            now_ns: 0,
        }
    }

    /// Takes an answer; false: nobody waits for it.
    #[cold]
    #[inline(never)]
    pub(crate) fn take(&mut self, flight: &mut Flight, visit: &mut Visit<'_>) -> bool {
        let number = visit.view().token as u32;
        if number & LEG == 0 {
            return false;
        }
        let has_more = visit.view().flags & view_flag::MORE != 0;
        let from = (has_more, visit.view().subscription_id);
        let (broker, place, now_ns) = (self.broker, self.place, &mut self.now_ns);
        let clock = || {
            if *now_ns == 0 {
                *now_ns = broker.driver.monotonic_ns();
            }
            *now_ns
        };
        let surveys = self.surveys.get_or_insert_with(|| lock(&place.surveys));
        let Some(word) = surveys.answer(broker, number, from, clock) else {
            return false;
        };
        visit.set_token(word.user_token);
        visit.set_flags(word.flags);
        visit.set_subscription(word.subscription);
        if word.is_last() {
            flight.end_many();
        }
        true
    }

    /// The last was taken.
    #[inline(always)]
    pub(crate) fn end(&mut self) {
        if self.surveys.is_some() {
            self.end_taken();
        }
    }

    #[cold]
    fn end_taken(&mut self) {
        if let Some(surveys) = self.surveys.take()
            && surveys.has_ended()
        {
            self.place.has_late.store(true, Ordering::Release);
        }
    }
}

impl ThreadClient {
    /// Asks by subject and waits until up to `answers_max` responders have answered, all that have
    /// the request, or the time-out. The last message has END; if it is no answer, it has no
    /// subscription, and its status says why no more came.
    ///
    /// NO_RESPONDER, BUSY, TIMEOUT, CANCELLED: nobody has answered.
    pub fn request_many(
        &self,
        message: &Message<'_>,
        answers_max: u32,
        timeout_ns: u64,
    ) -> Result<Detached> {
        let broker = self.writer.broker();
        // An inner question, asked by a handler, finds it taken.
        let mut requester = match self.many.take() {
            Some(requester) => requester,
            None => try_box(Requester::open_apart(broker, b"", 1, None)?)?,
        };
        let options = ManyOptions {
            answers_max,
            ..ManyOptions::default()
        };
        requester.submit_many(message, 0, timeout_ns, &options)?;
        let all = receive_all(&mut requester);
        if requester.in_flight() == 0 {
            self.many.set(Some(requester));
        }
        let all = all?;
        match all.messages() {
            [only] if only.subscription_id == 0 => Err(match Status::from_number(only.status) {
                Some(Status::NoResponder) => fate_error(Fate::NoResponder, message.subject),
                Some(Status::Busy) => fate_error(Fate::Busy, message.subject),
                Some(Status::Timeout) => NO_ANSWER_IN_TIME,
                _ => gone_error(only.status),
            }),
            _ => Ok(all),
        }
    }
}

const NO_ANSWER_IN_TIME: Error = Error::new(&Fault(
    Status::Timeout,
    "no responder answered within the timeout",
));

/// Receives all messages of the only request.
fn receive_all(requester: &mut Requester) -> Result<Detached> {
    let mut all: Option<Detached> = None;
    loop {
        let batch = match requester.receive(usize::MAX, FOREVER_NS) {
            Ok(batch) => batch,
            Err(error) if error.status() == Status::End => return Err(Error::CLOSED),
            Err(error) => return Err(error),
        };
        let is_last = |view: &View| view.flags & view_flag::END != 0;
        let is_over = batch.messages().iter().any(is_last);
        let more = batch.detach().ok_or(Error::NO_MEMORY)?;
        drop(batch);
        let sum = match all {
            None => more,
            Some(mut sum) => {
                sum.append(more).ok_or(Error::NO_MEMORY)?;
                sum
            }
        };
        if is_over {
            return Ok(sum);
        }
        all = Some(sum);
    }
}

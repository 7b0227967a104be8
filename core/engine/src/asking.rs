//! Requests and answers of a writer: sending a request along a route, asking a responder on this
//! thread, and sending an answer back.

use fastmq_memory::record::flag;
use fastmq_memory::view::{Numbers, Optional, View, view_flag};
use fastmq_memory::{Draft, Kind, Plain, Refused, ReplyBuffer, Tried};

use crate::answers::REQUESTER_INDEX_MASK;
use crate::call::{self, Calls, Came, NotCalled};
use crate::error::{Error, Fault, Result, Status};
use crate::message::optional_of;
use crate::route::{Group, LaneTarget, Route, Targets};
use crate::subscription::Handler;
use crate::writer::{BLOCK_BYTES, Message, Writer, count};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// So many responders have it, one at least.
    Sent(u32),
    /// Nobody answers this subject.
    NoResponder,
    /// No responder had room.
    Busy,
    /// The responder's queue was closed meanwhile.
    Cancelled,
}

/// What became of a request that several may answer: sent, if one has it.
pub(crate) struct Fates {
    pub(crate) fate: Fate,
}

impl Default for Fates {
    fn default() -> Self {
        Self {
            fate: Fate::NoResponder,
        }
    }
}

impl Fates {
    /// Adds what came of one responder; an error only while nobody has the request.
    pub(crate) fn add(&mut self, outcome: Result<Fate>) -> Result<()> {
        match (self.fate, outcome) {
            (Fate::Sent(others), Ok(Fate::Sent(more))) => self.fate = Fate::Sent(others + more),
            (Fate::Sent(_), _) => {}
            (_, Ok(fate)) => self.fate = fate,
            (_, Err(error)) => return Err(error),
        }
        Ok(())
    }
}

// A result that travels in two registers, as `Error` says.
const _: () = assert!(size_of::<Result<Fate>>() == 16);

/// What came of asking a responder on this thread, on the shortest way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Here {
    /// It answered, into the asker's memory.
    Answered,
    /// It answered; [`Calls::use_answer`] has the answer.
    Kept,
    /// It has the request; its answer may come later.
    Pending,
    /// Nobody was asked: go the long way.
    Elsewhere,
    /// Handlers are nested too deep.
    TooDeep,
    /// There was no memory.
    NoMemory,
}

/// Gets an answer as (status, payload, encoded headers).
pub(crate) type OnAnswer<'a> = dyn FnMut(u32, &[u8], &[u8]) + 'a;

/// How a responder that runs on this thread is asked.
pub(crate) enum Asking<'a> {
    /// Its answer travels through the requester's queue.
    Later,
    /// Its answer, if it comes at once, is handed to this closure as (status, payload, headers).
    Now(&'a Calls, &'a mut OnAnswer<'a>),
}

impl Writer {
    /// Sends a request whose answer will carry `token`.
    #[inline(always)]
    pub(crate) fn request(
        &self,
        subject: &[u8],
        payload: &[u8],
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        if self.is_usual(payload) {
            let hash = self.hash.hash(subject);
            if let Ok(routes) = self.routes.try_borrow()
                && let Some(route) = routes.get(hash, subject)
                && self.is_current(route)
            {
                return self.send_usual_request(&route.targets, subject, payload, token, asking);
            }
        }
        self.request_message(
            &Message {
                subject,
                payload,
                ..Message::default()
            },
            token,
            asking,
        )
    }

    /// Sends a request that may have optional fields.
    #[inline(never)]
    pub(crate) fn request_message(
        &self,
        message: &Message<'_>,
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let draft = self.request_draft(message, token)?;
        let hash = self.hash.hash(message.subject);
        if let Ok(routes) = self.routes.try_borrow()
            && let Some(route) = routes.get(hash, message.subject)
            && self.is_current(route)
        {
            return self.send_request(&route.targets, message, &draft, asking);
        }
        self.with_new_route(hash, message.subject, |targets| {
            self.send_request(targets, message, &draft, asking)
        })
    }

    /// Sends a request along a kept route, renewing it when it is stale.
    #[inline(always)]
    pub(crate) fn request_by(
        &self,
        route: &mut Option<Route>,
        subject: &[u8],
        payload: &[u8],
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let route = self.renewed(route, subject)?;
        if self.is_usual(payload) {
            return self.send_usual_request(&route.targets, subject, payload, token, asking);
        }
        self.request_along(
            route,
            &Message {
                subject,
                payload,
                ..Message::default()
            },
            token,
            asking,
        )
    }

    /// Sends a request that may have optional fields along a route.
    #[inline(never)]
    pub(crate) fn request_along(
        &self,
        route: &Route,
        message: &Message<'_>,
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let draft = self.request_draft(message, token)?;
        self.send_request(&route.targets, message, &draft, asking)
    }

    #[inline(always)]
    pub(crate) fn send_usual_request(
        &self,
        targets: &Targets,
        subject: &[u8],
        payload: &[u8],
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let Targets::One(target) = targets else {
            if let Targets::Remote(remote) = targets
                && remote.request_usual(payload, token)
            {
                self.count_call(&self.counters.requests);
                return Ok(Fate::Sent(1));
            }
            return self.send_usual_request_slow(targets, subject, payload, token, asking);
        };
        let plain = Plain {
            kind: Kind::Request,
            flags: flag::TOKEN,
            status: 0,
            word: token,
            subject,
            payload,
        };
        match self.try_plain(*target, &plain) {
            Tried::Written => {
                self.count_call(&self.counters.requests);
                Ok(Fate::Sent(1))
            }
            Tried::Unnoticed => self.notice_request(target.lane),
            Tried::Not => self.send_usual_request_slow(targets, subject, payload, token, asking),
        }
    }

    /// After `try_plain`: wakes the reader of the queue.
    #[cold]
    #[inline(never)]
    fn notice_request(&self, lane: u32) -> Result<Fate> {
        self.count_call(&self.counters.requests);
        let mut lanes = self.lanes.borrow_mut();
        let Some(lane) = lanes.get(lane) else {
            return Ok(Fate::Cancelled);
        };
        match lane.writer.notify() {
            Ok(_) => Ok(Fate::Sent(1)),
            Err(refused) => fate_of(refused),
        }
    }

    #[inline(never)]
    fn send_usual_request_slow(
        &self,
        targets: &Targets,
        subject: &[u8],
        payload: &[u8],
        token: u64,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        match targets {
            Targets::Inline(handler) => {
                let fate = self.ask_inline(handler, subject, payload, None, (token, 0), asking);
                self.count_call(&self.counters.requests);
                fate
            }
            Targets::Nobody => {
                self.count_call(&self.counters.requests);
                Ok(Fate::NoResponder)
            }
            _ => {
                let message = Message {
                    subject,
                    payload,
                    ..Message::default()
                };
                let draft = self.request_draft(&message, token)?;
                self.send_request(targets, &message, &draft, asking)
            }
        }
    }

    #[inline(always)]
    pub(crate) fn request_draft<'m>(&self, message: &Message<'m>, token: u64) -> Result<Draft<'m>> {
        if message.keep_last {
            return Err(kept_request());
        }
        let mut draft = self.draft(message)?;
        draft.kind = Kind::Request;
        draft.token = token;
        draft.flags |= flag::TOKEN;
        Ok(draft)
    }

    #[inline(never)]
    pub(crate) fn send_request(
        &self,
        targets: &Targets,
        message: &Message<'_>,
        draft: &Draft<'_>,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        self.count_call(&self.counters.requests);
        match targets {
            Targets::One(target) if draft.payload.len() <= BLOCK_BYTES => {
                let mut lanes = self.lanes.borrow_mut();
                let Some(lane) = lanes.get(target.lane) else {
                    return Ok(Fate::NoResponder);
                };
                let pushed = lane.writer.push(draft, target.subscription);
                drop(lanes);
                match pushed {
                    Ok(_) => Ok(Fate::Sent(1)),
                    Err(Refused::TooLarge) => {
                        self.send_request_slow(targets, message, draft, asking)
                    }
                    Err(refused) => fate_of(refused),
                }
            }
            Targets::Inline(handler) => self.ask_message(handler, message, draft, asking),
            Targets::Nobody => Ok(Fate::NoResponder),
            _ => self.send_request_slow(targets, message, draft, asking),
        }
    }

    #[inline(always)]
    fn ask_inline(
        &self,
        handler: &Handler,
        subject: &[u8],
        payload: &[u8],
        optional: Option<Optional<'_>>,
        (token, timestamp_ns): (u64, u64),
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let numbers = Numbers {
            token,
            timestamp_ns,
            subscription_id: handler.id,
            flags: view_flag::REQUEST,
            tag: handler.tag,
            ..Numbers::default()
        };
        let called =
            View::with_borrowed(subject, payload, numbers, optional, |view| match asking {
                Asking::Later => call::call(handler, view),
                Asking::Now(calls, use_answer) => calls
                    .ask(handler, (self.broker.id(), token), view, None)
                    .map(|came| {
                        if came != Came::Nothing {
                            count(&self.counters.answers, 1);
                            calls.use_answer(use_answer);
                        }
                    }),
            });
        if called == Err(NotCalled::Inactive) {
            return Ok(Fate::Cancelled);
        }
        self.count_inline(called).map(|()| Fate::Sent(1))
    }

    /// Asks the subject's responder on this thread, if there is exactly one and it is inline: the
    /// shortest way.
    #[inline(always)]
    pub(crate) fn ask_here(
        &self,
        calls: &Calls,
        targets: &Targets,
        (subject, payload): (&[u8], &[u8]),
        token: u64,
        reply: &mut ReplyBuffer<'_>,
    ) -> Here {
        let Targets::Inline(handler) = targets else {
            return Here::Elsewhere;
        };
        let numbers = Numbers {
            token,
            subscription_id: handler.id,
            flags: view_flag::REQUEST,
            tag: handler.tag,
            ..Numbers::default()
        };
        let asked = View::with_borrowed(subject, payload, numbers, None, |view| {
            calls.ask(handler, (self.broker.id(), token), view, Some(reply))
        });
        if let Err(NotCalled::Inactive) = asked {
            return Here::Elsewhere;
        }
        self.count_call(&self.counters.requests);
        let here = match asked {
            Ok(Came::Written) => Here::Answered,
            Ok(Came::Kept) => Here::Kept,
            Ok(Came::Nothing) => Here::Pending,
            Err(NotCalled::NoMemory) => return Here::NoMemory,
            Err(_) => return Here::TooDeep,
        };
        count(&self.counters.inline, 1);
        if here != Here::Pending {
            count(&self.counters.answers, 1);
        }
        here
    }

    /// As `ask_here` for a subject in the cache.
    #[inline(always)]
    pub(crate) fn ask_here_by_subject(
        &self,
        calls: &Calls,
        (subject, payload): (&[u8], &[u8]),
        token: u64,
        reply: &mut ReplyBuffer<'_>,
    ) -> Here {
        if self.is_usual(payload) {
            let hash = self.hash.hash(subject);
            if let Ok(routes) = self.routes.try_borrow()
                && let Some(route) = routes.get(hash, subject)
                && self.is_current(route)
            {
                return self.ask_here(calls, &route.targets, (subject, payload), token, reply);
            }
        }
        Here::Elsewhere
    }

    /// As `ask_here` along a kept route.
    #[inline(always)]
    pub(crate) fn ask_here_by_route(
        &self,
        calls: &Calls,
        route: &Option<Route>,
        (subject, payload): (&[u8], &[u8]),
        token: u64,
        reply: &mut ReplyBuffer<'_>,
    ) -> Here {
        match route {
            Some(route) if self.is_usual(payload) && self.is_current(route) => {
                self.ask_here(calls, &route.targets, (subject, payload), token, reply)
            }
            _ => Here::Elsewhere,
        }
    }

    /// Asks an inline responder with a message that may have optional fields.
    pub(crate) fn ask_message(
        &self,
        handler: &Handler,
        message: &Message<'_>,
        draft: &Draft<'_>,
        asking: Asking<'_>,
    ) -> Result<Fate> {
        let optional = Some(optional_of(message));
        self.ask_inline(
            handler,
            message.subject,
            message.payload,
            optional,
            (draft.token, draft.timestamp),
            asking,
        )
    }

    /// Answers a request. AGAIN: the asker's queue has no room; NOT_FOUND: the asker is gone.
    #[inline]
    pub fn reply(&self, token: u64, status: u32, payload: &[u8], headers: &[u8]) -> Result<()> {
        if payload.len() as u64 > self.broker.options.payload_max {
            return Err(self.too_large(payload.len()));
        }
        match call::answer_in_place((self.broker.id(), token), status, payload, headers) {
            // The asker counts it.
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(()) => return Err(Error::NO_MEMORY),
        }
        if headers.is_empty() {
            return self.reply_away(token, status, payload);
        }
        let draft = Draft {
            kind: Kind::Reply,
            flags: flag::TOKEN | flag::SIZES,
            status: status as u16,
            token,
            payload,
            headers,
            ..Draft::default()
        };
        self.reply_slow((token >> 32) as u32, &draft)
    }

    /// Sends an answer without headers to an asker elsewhere.
    #[inline(always)]
    pub(crate) fn reply_away(&self, token: u64, status: u32, payload: &[u8]) -> Result<()> {
        if self.broker.reply_far(token, status, payload) {
            return Ok(());
        }
        match self.try_answer(token, status, payload) {
            Some(answered) => answered,
            None => self.reply_first(token, status, payload),
        }
    }

    /// The first answer to a requester, a large one, or one whose lane needs more than a look.
    #[cold]
    #[inline(never)]
    fn reply_first(&self, token: u64, status: u32, payload: &[u8]) -> Result<()> {
        if payload.len() as u64 > self.broker.options.payload_max {
            return Err(self.too_large(payload.len()));
        }
        let draft = Draft {
            kind: Kind::Reply,
            flags: flag::TOKEN,
            status: status as u16,
            token,
            payload,
            ..Draft::default()
        };
        self.reply_slow((token >> 32) as u32, &draft)
    }

    #[cold]
    #[inline(never)]
    fn reply_slow(&self, requester: u32, draft: &Draft<'_>) -> Result<()> {
        let uplink = self.broker.uplink.as_ref();
        uplink.map_or_else(|| self.answer(requester, draft), |it| it.reply_by(draft))
    }

    /// Answers an asker of this process.
    pub(crate) fn answer(&self, requester: u32, draft: &Draft<'_>) -> Result<()> {
        // Who only answers meets ever new queues, too: those of askers that are gone by now.
        self.sweep_if_crowded();
        let place = self.broker.requester_place(requester)?;
        let lane = self.lane_to(&place)?;
        let index = (requester & REQUESTER_INDEX_MASK) as usize;
        {
            let mut lanes = self.lanes.borrow_mut();
            let missing = (index + 1).saturating_sub(lanes.replies.len());
            lanes
                .replies
                .try_reserve(missing)
                .map_err(|_| Error::NO_MEMORY)?;
            if missing > 0 {
                lanes.replies.resize(index + 1, (0, 0));
            }
            lanes.replies[index] = (requester, lane);
        }
        let target = LaneTarget {
            lane,
            subscription: 0,
        };
        let message = Message::default();
        match self.send_any::<Group>(&[target], &[], &message, draft) {
            Ok(sent) if sent.reached == 0 => Err(reply_refused(Refused::Closed)),
            Ok(_) => {
                count(&self.counters.answers, 1);
                Ok(())
            }
            Err(error) if error.status() == Status::Again => Err(reply_refused(Refused::Full)),
            Err(error) => Err(error),
        }
    }
}

#[cold]
pub(crate) fn fate_of(refused: Refused) -> Result<Fate> {
    match refused {
        Refused::Full => Ok(Fate::Busy),
        Refused::Closed | Refused::Unread => Ok(Fate::Cancelled),
        other => Err(other.into()),
    }
}

#[cold]
pub(crate) fn reply_refused(refused: Refused) -> Error {
    match refused {
        Refused::Full => Error::new(&Fault(
            Status::Again,
            "the asker's queue of answers is full; answer again when it has received",
        )),
        Refused::Closed | Refused::Unread => Error::new(&Fault(
            Status::NotFound,
            "the asker of this request is gone",
        )),
        other => other.into(),
    }
}

#[cold]
fn kept_request() -> Error {
    let fault = &Fault(
        Status::Invalid,
        "a request cannot be kept as a last value; publish it, or leave keep_last out",
    );
    Error::new(fault)
}

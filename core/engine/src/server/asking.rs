//! What a connection asks, and what it answers.
//!
//! Requests are those of a requester, whose window, deadlines and fates are the engine's; its user
//! token is the correlation. They are written by the shard's writer, so that publishes and requests
//! of a connection keep their order.
//!
//! An answer that is given on the shard's own thread goes straight to what the asker is sent: that
//! of an inline responder, and that of a connection of the same shard. While the asker has enough
//! to be sent, and from other threads, it goes through the asker's queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use fastmq_memory::allocation::try_box;
use fastmq_memory::view::view_flag;
use fastmq_memory::{ReplyBuffer, View};
use fastmq_wire::message::flag;
use fastmq_wire::{Draft, HEADER_BYTES, Message as Received, NoMemory, Reason, SHORT_BYTES, State};

use crate::asking::{Asking, Fate, Here, OnAnswer};
use crate::broker::Broker;
use crate::error::{Error, Status, too_deep};
use crate::frames;
use crate::place::Place;
use crate::request::{Requester, status_of};
use crate::route::{Route, Targets};
use crate::survey::LEG;
use crate::writer::count;

use super::delivering::Outgoing;
use super::inbox::{Nudge, Source};
use super::parts::Parts;
use super::publishing::{Known, message_of, refusal_of};
use super::session::{Fatal, Session};
use super::{REQUEST_NS_MAX, REQUESTS_MAX};

/// Answers that are taken at once.
const BATCH_MAX: usize = 32;
/// What makes a request more than a subject and a payload.
const UNUSUAL: u16 = flag::SIZES;

/// The requests of a connection.
pub(super) struct Asker {
    pub(super) requester: Requester,
    place: Arc<Place>,
    waker: Waker,
    /// Its queue may have something.
    pub(super) is_ready: bool,
}

impl Asker {
    fn open(parts: &Parts, session: &Session) -> Result<Self, Error> {
        let source = Source::Answers;
        let nudge = Nudge::new(&parts.inbox, session.key, source).ok_or(Error::NO_MEMORY)?;
        let requester = Requester::open_apart(&parts.broker, b"", REQUESTS_MAX, None)?;
        Ok(Self {
            place: requester.place().clone(),
            requester,
            waker: nudge.into(),
            is_ready: true,
        })
    }

    /// When the next request times out.
    pub(super) fn deadline_ns(&self) -> u64 {
        self.requester.flight.deadline_ns()
    }

    pub(super) fn pending_bytes(&self) -> u64 {
        self.place.statistics().pending_bytes
    }
}

/// What a responder says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u32,
    pub(super) payload: &'a [u8],
    pub(super) headers: &'a [u8],
}

impl Session {
    /// A request. What is rare gets a copy of the message, so that the message itself needs no
    /// address.
    #[inline(always)]
    pub(super) fn on_request(
        &mut self,
        parts: &mut Parts,
        message: Received<'_>,
    ) -> Result<(), Fatal> {
        let correlation = message.correlation();
        if self.asker.is_none()
            && let Err(error) = self.open_asker(parts)
        {
            return self.request_failed(correlation, &error);
        }
        if let Some(many) = message.many() {
            return self.on_request_for_many(parts, &{ message }, many);
        }
        // What is answered at once is sent at once, as long as not too much waits to be sent.
        let is_full = !self.takes_answers();
        let Some(asker) = &mut self.asker else {
            return Ok(());
        };
        let Some(number) = asker.requester.flight.next() else {
            // Nobody has it.
            return Ok(self.say_refusal(correlation, Status::Busy, "")?);
        };
        let token = asker.requester.answers.token(number);
        if let Some(alias) = message.alias()
            && !is_full
            && parts.ask_past(&self.aliases.get(alias)?.value, message, token)
        {
            return Ok(self.note_request(parts, number, message, Fate::Sent(1), is_full)?);
        }
        let mut put = None;
        let (out, frame_max) = (&mut self.out, self.theirs.frame_max);
        let mut use_answer = |status, payload: &[u8], headers: &[u8]| {
            let answer = Answer {
                status,
                payload,
                headers,
            };
            put = Some(out.answer(frame_max, correlation, &answer));
        };
        let use_answer = (!is_full).then_some(&mut use_answer as &mut OnAnswer<'_>);
        let sent = match message.alias() {
            Some(alias) => {
                let known = &mut self.aliases.get(alias)?.value;
                parts.ask_known(known, message, token, use_answer)
            }
            None => parts.ask(message, token, use_answer),
        };
        if let Some(put) = put {
            // It has ended before it was one of those in flight.
            return Ok(put?);
        }
        match sent {
            Ok(fate) => Ok(self.note_request(parts, number, message, fate, is_full)?),
            Err(error) if error.status() == Status::Denied => {
                self.on_reserved(parts, &{ message }, &error)
            }
            Err(error) => self.request_failed(correlation, &error),
        }
    }

    /// Notes a request that is not answered yet.
    #[inline(always)]
    fn note_request(
        &mut self,
        parts: &Parts,
        number: u32,
        message: Received<'_>,
        fate: Fate,
        is_full: bool,
    ) -> Result<(), NoMemory> {
        let correlation = message.correlation();
        let Some(asker) = &mut self.asker else {
            return Ok(());
        };
        let timeout_ns = message.ttl_ns().unwrap_or(REQUEST_NS_MAX);
        let deadline_ns = parts.now_ns.saturating_add(timeout_ns);
        let responders = match fate {
            Fate::Sent(responders) => responders,
            fate if !is_full => {
                let answer = Answer {
                    status: status_of(fate) as u32,
                    payload: &[],
                    headers: &[],
                };
                return self.out.answer(self.theirs.frame_max, correlation, &answer);
            }
            _ => 1,
        };
        let flight = &mut asker.requester.flight;
        flight.enter(number, u64::from(correlation), deadline_ns, responders);
        if !matches!(fate, Fate::Sent(_)) {
            flight.settle(number, status_of(fate));
        }
        // Answers that an inline responder gave, and what nobody will answer.
        asker.is_ready |= is_full;
        Ok(())
    }

    #[cold]
    fn open_asker(&mut self, parts: &mut Parts) -> Result<(), Error> {
        let asker = try_box(Asker::open(parts, self)?)?;
        match parts.note_asker(asker.requester.answers.id, self.key.index) {
            true => self.asker = Some(asker),
            false => return Err(Error::NO_MEMORY),
        }
        Ok(())
    }

    #[cold]
    pub(super) fn request_failed(&mut self, correlation: u32, error: &Error) -> Result<(), Fatal> {
        let (reason, status) = refusal_of(error);
        let status = match status {
            Status::Invalid | Status::Denied | Status::TooLarge | Status::Unsupported => status,
            Status::Unavailable => Status::NoResponder,
            _ => Status::Busy,
        };
        self.refuse_request(correlation, reason, status, error.text())
    }

    #[cold]
    pub(super) fn refuse_request(
        &mut self,
        correlation: u32,
        reason: Reason,
        status: Status,
        text: &str,
    ) -> Result<(), Fatal> {
        self.log_refusal(reason, &text);
        Ok(self.say_refusal(correlation, status, text)?)
    }

    /// Answers a request that nobody was given. No window bounds these: they count as what is said
    /// to commands.
    pub(super) fn say_refusal(
        &mut self,
        correlation: u32,
        status: Status,
        text: &str,
    ) -> Result<(), NoMemory> {
        self.say(correlation, status, text.as_bytes())
    }

    /// Says something of the server's own as an answer; bounded as a refusal is.
    pub(super) fn say(
        &mut self,
        correlation: u32,
        status: Status,
        payload: &[u8],
    ) -> Result<(), NoMemory> {
        let mut draft = Draft::answer(correlation, 0, status as u8, payload);
        if draft.length() > self.theirs.frame_max as usize {
            draft = Draft::answer(correlation, 0, Status::TooLarge as u8, &[]);
        }
        draft.append(&mut self.out.bytes)
    }

    /// Takes the answer to one of its requests past the queue of answers. False: it is not its, or
    /// there is enough to send.
    #[inline(always)]
    pub(super) fn take_answer(&mut self, broker: &Broker, token: u64, answer: &Answer<'_>) -> bool {
        let size = HEADER_BYTES * 2 + answer.payload.len() + answer.headers.len();
        let is_full = !self.takes_answers() || !self.out.has_room(size);
        let Some(asker) = &mut self.asker else {
            return false;
        };
        if is_full || asker.requester.answers.id != (token >> 32) as u32 {
            return false;
        }
        match asker.requester.flight.answer(token as u32) {
            Some(correlation) => {
                let frame_max = self.theirs.frame_max;
                let put = self.out.answer(frame_max, correlation as u32, answer);
                debug_assert!(put.is_ok(), "there is room");
            }
            None => note_late(broker),
        }
        true
    }

    /// The queue of answers may have something.
    pub(super) fn answers_ready(&mut self) {
        if let Some(asker) = &mut self.asker {
            asker.is_ready = true;
        }
    }

    /// Takes answers and fates. False: the turn's messages are used up, or the rest has to wait.
    pub(super) fn pull_answers(&mut self, parts: &Parts, left: &mut usize) -> Result<bool, Fatal> {
        let Some(mut asker) = self.asker.take() else {
            return Ok(true);
        };
        let pulled = self.pull_from(parts, &mut asker, left);
        if self.state == State::Ready {
            self.asker = Some(asker);
        }
        pulled
    }

    fn pull_from(
        &mut self,
        parts: &Parts,
        asker: &mut Asker,
        left: &mut usize,
    ) -> Result<bool, Fatal> {
        let is_due = asker.deadline_ns() <= parts.now_ns;
        if !asker.is_ready && !is_due {
            return Ok(true);
        }
        asker.is_ready = true;
        while *left > 0 && !self.is_full() {
            let limit = BATCH_MAX.min(*left);
            let error = match asker.requester.receive(limit, 0) {
                Ok(batch) => {
                    *left -= batch.messages().len().min(*left);
                    for view in batch.messages() {
                        self.answer_by(view)?;
                    }
                    continue;
                }
                Err(error) => error,
            };
            if error.status() == Status::NoMemory {
                return Err(NoMemory.into());
            }
            let ready = asker.place.is_ready_or_wakes(&parts.broker, &asker.waker);
            if !matches!(ready, Ok(true)) {
                asker.is_ready = false;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn answer_by(&mut self, view: &View) -> Result<(), NoMemory> {
        if view.flags & (view_flag::MORE | view_flag::END) != 0 {
            return self.answer_many(view);
        }
        let answer = Answer {
            status: view.status,
            payload: view.payload(),
            headers: view.headers(),
        };
        let frame_max = self.theirs.frame_max;
        self.out.answer(frame_max, view.token as u32, &answer)
    }

    #[inline(always)]
    pub(super) fn on_reply(
        &mut self,
        parts: &mut Parts,
        message: Received<'_>,
    ) -> Result<(), Fatal> {
        let Some(token) = self.owed.take(message.token()) else {
            if !self.on_stream(parts, &{ message })? {
                note_late(&parts.broker);
            }
            return Ok(());
        };
        let is_of_many = message.is_more() || token as u32 & LEG != 0;
        if is_of_many && self.on_reply_of_many(parts, &{ message }, token)? {
            return Ok(());
        }
        let status = Status::from_number(u32::from(message.status()));
        let answer = Answer {
            status: status.unwrap_or(Status::Internal) as u32,
            payload: message.payload(),
            headers: message.headers(),
        };
        let is_here = !is_of_many
            && answer.payload.len() <= parts.writer.usual_bytes
            && (parts.answer_here(token, &answer)
                || self.take_answer(&parts.broker, token, &answer));
        if is_here {
            count(&parts.writer.counters.answers, 1);
            return Ok(());
        }
        let (status, payload, headers) = (answer.status, answer.payload, answer.headers);
        let replied = parts.writer.reply(token, status, payload, headers);
        match replied.map_err(|error| error.status()) {
            Ok(()) | Err(Status::NotFound) => {}
            // The asker does not receive: its request ends, as the responder will not try again.
            Err(Status::TooLarge) => parts.broker.answer_late(token, Status::TooLarge),
            Err(_) => parts.broker.answer_late(token, Status::Busy),
        }
        Ok(())
    }
}

#[cold]
fn note_late(broker: &Broker) {
    broker.late_answers.fetch_add(1, Ordering::Relaxed);
}

impl Outgoing {
    /// Makes sure of room.
    #[inline(always)]
    fn has_room(&mut self, size: usize) -> bool {
        let (bytes, size) = (&mut self.bytes, size.max(SHORT_BYTES));
        bytes.capacity() - bytes.len() >= size || bytes.try_reserve(size).is_ok()
    }

    /// Appends an answer.
    #[inline(always)]
    fn answer(
        &mut self,
        frame_max: u32,
        correlation: u32,
        answer: &Answer<'_>,
    ) -> Result<(), NoMemory> {
        let mut draft = Draft::answer(correlation, 0, answer.status as u8, answer.payload);
        draft.headers = answer.headers;
        if draft.length() > frame_max as usize {
            draft = Draft::answer(correlation, 0, Status::TooLarge as u8, &[]);
        }
        self.delivered += draft.size();
        frames::append(&draft, &mut self.bytes)
    }
}

impl Parts {
    /// Sends a request to a subject that has an alias past the queue of its responder. False: it
    /// has to go another way.
    #[inline(always)]
    fn ask_past(&mut self, known: &Known, message: Received<'_>, token: u64) -> bool {
        let Some(route) = &known.route else {
            return false;
        };
        let Targets::One(target) = route.targets else {
            return false;
        };
        let payload = message.payload();
        let is_usual = message.flags() & UNUSUAL == 0 && self.writer.is_usual(payload);
        is_usual
            && self.writer.is_current(route)
            && self.ask_past_queue(target, (&known.subject, payload), token, known.number)
    }

    /// Sends a request to a subject that has an alias. `use_answer` gets an answer that comes at
    /// once; without it that goes to the asker's queue.
    #[inline(always)]
    fn ask_known(
        &mut self,
        known: &mut Known,
        message: Received<'_>,
        token: u64,
        use_answer: Option<&mut OnAnswer<'_>>,
    ) -> Result<Fate, Error> {
        let (writer, subject) = (&self.writer, &*known.subject);
        let is_current = matches!(&known.route, Some(route) if writer.is_current(route));
        if !is_current {
            let made = writer.make_route(writer.hash.hash(subject), subject)?;
            known.route = Some(try_box(made)?);
        }
        let Some(route) = &known.route else {
            return Err(Error::NO_MEMORY);
        };
        let payload = message.payload();
        if message.flags() & UNUSUAL != 0 || !writer.is_usual(payload) {
            return self.ask_along(Some(route), message, subject, token, use_answer);
        }
        let Some(use_answer) = use_answer else {
            return self.ask_along(Some(route), message, subject, token, None);
        };
        if !matches!(route.targets, Targets::Inline(_)) {
            if message.flags() & flag::TTL != 0 {
                let use_answer = Some(use_answer);
                return self.ask_along(Some(route), message, subject, token, use_answer);
            }
            let asking = Asking::Now(&self.calls, use_answer);
            return writer.send_usual_request(&route.targets, subject, payload, token, asking);
        }
        let mut reply = ReplyBuffer::new(&mut self.reply[..]);
        let asked = (subject, payload);
        match writer.ask_here(&self.calls, &route.targets, asked, token, &mut reply) {
            Here::Answered => {
                let (status, size) = (reply.status(), reply.size());
                use_answer(status, self.reply.get(..size).unwrap_or_default(), &[]);
                Ok(Fate::Sent(1))
            }
            Here::Kept => {
                self.calls.use_answer(use_answer);
                Ok(Fate::Sent(1))
            }
            Here::Pending => Ok(Fate::Sent(1)),
            // Its subscription has just ended.
            Here::Elsewhere => Ok(Fate::Cancelled),
            Here::TooDeep => Err(too_deep()),
            Here::NoMemory => Err(Error::NO_MEMORY),
        }
    }

    /// The same to a subject that is spelled out.
    #[inline(never)]
    fn ask(
        &mut self,
        message: Received<'_>,
        token: u64,
        use_answer: Option<&mut OnAnswer<'_>>,
    ) -> Result<Fate, Error> {
        self.ask_along(None, message, message.subject(), token, use_answer)
    }

    /// The same for a message that may have optional fields.
    #[inline(never)]
    fn ask_along(
        &self,
        route: Option<&Route>,
        message: Received<'_>,
        subject: &[u8],
        token: u64,
        use_answer: Option<&mut OnAnswer<'_>>,
    ) -> Result<Fate, Error> {
        let asking = match use_answer {
            Some(use_answer) => Asking::Now(&self.calls, use_answer),
            None => Asking::Later,
        };
        let sent = message_of(&message, subject, 0);
        match route {
            Some(route) => self.writer.request_along(route, &sent, token, asking),
            None => self.writer.request_message(&sent, token, asking),
        }
    }
}

//! What a connection asks, and what it answers.
//!
//! Requests go through a requester, whose window, deadlines and fates are the engine's; its user
//! token is the correlation. They are written by the shard's writer, so that publishes and requests
//! of a connection keep their order. Answers come with the token that its request brought, sealed
//! for the connection.

use std::sync::Arc;
use std::task::Waker;

use fastmq_memory::View;
use fastmq_wire::{Draft, Message as Received, NoMemory, Reason, State};

use crate::error::{Error, Status};
use crate::place::Place;
use crate::request::Requester;

use super::inbox::{Nudge, Source};
use super::parts::Parts;
use super::publishing::{message_of, refusal_of};
use super::session::{Fatal, Session};
use super::{REQUEST_NS_MAX, REQUESTS_MAX};

/// Answers that are taken at once.
const BATCH_MAX: usize = 32;

/// The requests of a connection.
pub(super) struct Asker {
    requester: Requester,
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

impl Session {
    pub(super) fn on_request(
        &mut self,
        parts: &mut Parts,
        message: &Received<'_>,
    ) -> Result<(), Fatal> {
        let correlation = message.correlation();
        if message.many().is_some() {
            let says = "this connection has no requests for many answers";
            let (reason, status) = (Reason::Option, Status::Unsupported);
            return self.refuse_request(correlation, reason, status, says);
        }
        if self.asker.is_none() {
            match Asker::open(parts, self) {
                Ok(asker) => self.asker = Some(Box::new(asker)),
                Err(error) => return self.request_failed(correlation, &error),
            }
        }
        let subject = match message.alias() {
            Some(alias) => &*self.aliases.get(alias)?.value.subject,
            None => message.subject(),
        };
        let Some(asker) = &mut self.asker else {
            return Ok(());
        };
        let sent = message_of(message, subject, 0);
        let timeout_ns = match sent.ttl_ns {
            0 => REQUEST_NS_MAX,
            ttl_ns => ttl_ns,
        };
        let user_token = u64::from(correlation);
        let requester = &mut asker.requester;
        let submitted = requester.submit_through(&parts.writer, &sent, user_token, timeout_ns);
        requester.flight.stamp(parts.now_ns);
        asker.is_ready = true;
        match submitted {
            Ok(()) => Ok(()),
            // The window is full: nobody has it.
            Err(error) if error.status() == Status::Again => {
                Ok(self.answer(correlation, Status::Busy as u32, &[], &[])?)
            }
            Err(error) => self.request_failed(correlation, &error),
        }
    }

    fn request_failed(&mut self, correlation: u32, error: &Error) -> Result<(), Fatal> {
        let (reason, status) = refusal_of(error);
        let status = match status {
            Status::Invalid | Status::Denied | Status::TooLarge | Status::Unsupported => status,
            Status::Unavailable => Status::NoResponder,
            _ => Status::Busy,
        };
        self.refuse_request(correlation, reason, status, error.text())
    }

    fn refuse_request(
        &mut self,
        correlation: u32,
        reason: Reason,
        status: Status,
        text: &str,
    ) -> Result<(), Fatal> {
        self.log_refusal(reason, &text);
        Ok(self.answer(correlation, status as u32, text.as_bytes(), &[])?)
    }

    /// Sends an answer.
    fn answer(
        &mut self,
        correlation: u32,
        status: u32,
        payload: &[u8],
        headers: &[u8],
    ) -> Result<(), NoMemory> {
        let mut draft = Draft::answer(correlation, 0, status as u8, payload);
        draft.headers = headers;
        if draft.length() > self.theirs.frame_max as usize {
            draft = Draft::answer(correlation, 0, Status::TooLarge as u8, &[]);
        }
        self.out.delivered += draft.size();
        draft.append(&mut self.out.bytes)
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
        let correlation = view.token as u32;
        self.answer(correlation, view.status, view.payload(), view.headers())
    }

    pub(super) fn on_reply(
        &mut self,
        parts: &mut Parts,
        message: &Received<'_>,
    ) -> Result<(), Fatal> {
        // A connection that was given no token has none to answer to.
        let Some(seal) = &self.seal else {
            return Ok(());
        };
        let token = seal.open(message.token());
        if message.is_more() {
            // A stream, for which nobody has credit.
            let says = "a reply beyond its credit";
            self.fail(0, Reason::Stream, Status::Misuse, says)?;
            parts.broker.answer_late(token, Status::Cancelled);
            return Ok(());
        }
        let status = Status::from_number(u32::from(message.status()));
        let status = status.unwrap_or(Status::Internal) as u32;
        let (payload, headers) = (message.payload(), message.headers());
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

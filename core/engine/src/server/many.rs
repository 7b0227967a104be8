//! Requests of a connection for several answers, and reply streams of a connection that answers.
//!
//! Both are the engine's: a request is a survey of the connection's requester, whose credit the
//! client grants; a stream is a [`ReplyStream`], opened by the first reply that says MORE. What
//! its asker grants, and that it wants no more, is told to the client when the credit wakes us.
//! Replies for which the asker has no room wait here, as many as it has granted.

use std::collections::{HashMap, VecDeque};
use std::task::Waker;

use fastmq_driver::FOREVER_NS;
use fastmq_memory::View;
use fastmq_memory::allocation::try_bytes;
use fastmq_memory::view::view_flag;
use fastmq_wire::handshake::capability;
use fastmq_wire::message::Many;
use fastmq_wire::{Control, ControlDraft, Draft, Field, Kind, Message as Received, NoMemory};
use fastmq_wire::{Reason, State};

use crate::error::{Error, Status};
use crate::options::ManyOptions;
use crate::reply_stream::ReplyStream;
use crate::survey::{CREDIT_MAX, LEG};

use super::inbox::{Nudge, Source};
use super::parts::Parts;
use super::publishing::message_of;
use super::session::{Fatal, Session};
use super::{OUTGOING_BYTES_MAX, REQUEST_NS_MAX};

/// How often room for replies that wait is looked for.
const AGAIN_NS: u64 = 1_000_000;

/// The streams by which a connection answers, by its numbers for the requests.
#[derive(Default)]
pub(super) struct Streams {
    /// Requests that may be answered by one: the engine's token, and the credit that was told.
    offered: HashMap<u64, (u64, u64)>,
    open: HashMap<u64, Open>,
    /// Those whose credit may have changed.
    ready: VecDeque<u64>,
    /// Bytes of replies that wait for room, and when that is looked for.
    held_bytes: usize,
    again_ns: Option<u64>,
}

/// Payload and headers of a reply.
type Held = (Box<[u8]>, Box<[u8]>);

struct Open {
    stream: ReplyStream,
    /// Credit that was told.
    told: u64,
    held: VecDeque<Held>,
    /// How it ends behind those.
    end: Option<Status>,
}

/// What came of a stream's replies.
enum Went {
    Sent,
    Waits,
    /// So, and then its end.
    Ended(Status),
    /// It is over, for this reason.
    Over(Status),
}

impl Streams {
    pub(super) fn again_ns(&self) -> u64 {
        self.again_ns.unwrap_or(FOREVER_NS)
    }

    /// A stream's credit may have changed.
    pub(super) fn set_ready(&mut self, number: u64) {
        if self.open.contains_key(&number) && !self.ready.contains(&number) {
            // There is room for all that are open.
            self.ready.push_back(number);
        }
    }

    /// Has all of them looked at.
    pub(super) fn look_everywhere(&mut self) {
        let numbers: Vec<u64> = self.open.keys().copied().collect();
        numbers
            .into_iter()
            .for_each(|number| self.set_ready(number));
    }

    /// A request that will not be answered any more, by its number.
    pub(super) fn forget(&mut self, number: u64) {
        if !self.offered.is_empty() {
            self.offered.remove(&number);
        }
    }
}

/// What a reply that is kept counts as; an empty one, too, takes memory.
fn kept_bytes(payload: &[u8], headers: &[u8]) -> usize {
    payload.len() + headers.len() + 64
}

impl Open {
    /// Sends one reply, or keeps it.
    fn send(&mut self, message: &Received<'_>, kept: &mut usize) -> Result<Went, NoMemory> {
        match self.stream.credit() {
            Ok(credit) if credit <= self.held.len() as u64 => {
                return Ok(Went::Over(Status::Misuse));
            }
            Ok(_) => {}
            Err(_) => return Ok(Went::Over(Status::Cancelled)),
        }
        let (payload, headers) = (message.payload(), message.headers());
        if self.held.is_empty() {
            match self.stream.send(payload, headers) {
                Ok(()) => return Ok(Went::Sent),
                Err(error) if error.status() == Status::Again => {}
                Err(error) => return Ok(Went::Over(error.status())),
            }
        }
        let size = kept_bytes(payload, headers);
        if *kept + size > OUTGOING_BYTES_MAX {
            return Ok(Went::Over(Status::Busy));
        }
        self.held.try_reserve(1).map_err(|_| NoMemory)?;
        let keep = |bytes| try_bytes(bytes).map_err(|_| NoMemory);
        self.held.push_back((keep(payload)?, keep(headers)?));
        *kept += size;
        Ok(Went::Waits)
    }

    /// Sends what was kept, and its end.
    fn retry(&mut self, kept: &mut usize) -> Went {
        while let Some((payload, headers)) = self.held.front() {
            match self.stream.send(payload, headers) {
                Ok(()) => {}
                Err(error) if error.status() == Status::Again => return Went::Waits,
                Err(error) => return Went::Over(error.status()),
            }
            *kept -= kept_bytes(payload, headers);
            self.held.pop_front();
        }
        match self.end {
            Some(status) => Went::Ended(status),
            None => Went::Sent,
        }
    }
}

impl Session {
    /// A request that wants several answers.
    #[cold]
    pub(super) fn on_request_for_many(
        &mut self,
        parts: &mut Parts,
        message: &Received<'_>,
        many: Many,
    ) -> Result<(), Fatal> {
        let correlation = message.correlation();
        if !self.has(capability::MANY) {
            let says = "this connection has no requests for many answers";
            let (reason, status) = (Reason::Option, Status::Unsupported);
            return self.refuse_request(correlation, reason, status, says);
        }
        let subject = match message.alias() {
            Some(alias) => &*self.aliases.get(alias)?.value.subject,
            None => message.subject(),
        };
        let Some(asker) = &mut self.asker else {
            return Ok(());
        };
        let options = ManyOptions {
            answers_max: many.answers,
            credit: many.credit,
            // The client says when.
            is_manual: true,
            gap_ns: 0,
        };
        let timeout_ns = message.ttl_ns().unwrap_or(REQUEST_NS_MAX);
        let sent = message_of(message, subject, 0);
        let (requester, token) = (&mut asker.requester, u64::from(correlation));
        let asked = requester.submit_many_by(&parts.writer, &sent, token, timeout_ns, &options);
        asker.is_ready = true;
        match asked {
            Ok(()) => Ok(()),
            Err(error) if error.status() == Status::Again => {
                Ok(self.say_refusal(correlation, Status::Busy, "")?)
            }
            Err(error) => self.request_failed(correlation, &error),
        }
    }

    /// One of the answers to a request for many.
    #[cold]
    pub(super) fn answer_many(&mut self, view: &View) -> Result<(), NoMemory> {
        let (correlation, responder) = (view.token as u32, view.subscription_id);
        let is_more = view.flags & view_flag::MORE != 0;
        let mut draft = Draft::answer(correlation, responder, view.status as u8, view.payload());
        draft.headers = view.headers();
        draft.is_more = is_more;
        if draft.length() > self.theirs.frame_max as usize {
            draft = Draft::answer(correlation, responder, Status::TooLarge as u8, &[]);
            draft.is_more = is_more;
        }
        self.out.delivered += draft.size();
        draft.append(&mut self.out.bytes)
    }

    /// GRANT and CANCEL of one who has asked.
    pub(super) fn on_asker_control(&mut self, control: &Control<'_>) {
        let Some(asker) = &mut self.asker else {
            return;
        };
        let token = u64::from(control.correlation());
        // What is no longer open is ignored.
        let _ = match control.kind() {
            Kind::Grant => {
                let replies = control.number(Field::Replies).unwrap_or(0);
                asker.requester.grant(token, replies as u32)
            }
            _ => asker.requester.cancel_many(token),
        };
        asker.is_ready = true;
    }

    /// What is offered to the responder of a request: credit for a stream, if its asker takes one.
    pub(super) fn stream_offer(&self, parts: &Parts, token: u64) -> Option<Many> {
        if token as u32 & LEG == 0 || !self.has(capability::MANY) {
            return None;
        }
        let granted = parts.broker.stream_credit(token)?;
        let credit = granted.min(u64::from(CREDIT_MAX)) as u32;
        Some(Many { answers: 0, credit })
    }

    /// It was delivered with that, by this number.
    pub(super) fn note_offer(&mut self, number: u64, token: u64, many: Many) {
        let offered = &mut self.streams.offered;
        // Without memory its stream is refused.
        if offered.try_reserve(1).is_ok() {
            offered.insert(number, (token, u64::from(many.credit)));
        }
    }

    /// A reply with MORE, or to a request that several answer. True: it was dealt with.
    #[cold]
    pub(super) fn on_reply_of_many(
        &mut self,
        parts: &mut Parts,
        message: &Received<'_>,
        token: u64,
    ) -> Result<bool, Fatal> {
        let number = message.token();
        let offered = self.streams.offered.remove(&number);
        if !message.is_more() {
            return Ok(false);
        }
        let Some((_, told)) = offered else {
            parts.broker.answer_late(token, Status::Cancelled);
            self.refuse_stream()?;
            return Ok(true);
        };
        match self.open_stream(parts, number, token, told) {
            Ok(()) => drop(self.on_stream(parts, message)?),
            // Its asker is gone.
            Err(error) if error.status() != Status::NoMemory => self.cancel_stream(number)?,
            Err(_) => return Err(NoMemory.into()),
        }
        Ok(true)
    }

    fn open_stream(
        &mut self,
        parts: &Parts,
        number: u64,
        token: u64,
        told: u64,
    ) -> Result<(), Error> {
        let stream = ReplyStream::open(&parts.broker, token)?;
        let source = Source::Stream(number);
        let nudge = Nudge::new(&parts.inbox, self.key, source).ok_or(Error::NO_MEMORY)?;
        stream.wake_by(Waker::from(nudge));
        let streams = &mut self.streams;
        let count = streams.open.len() + 1;
        let is_room = streams.open.try_reserve(1).is_ok()
            && streams
                .ready
                .try_reserve(count - streams.ready.len())
                .is_ok();
        if !is_room {
            return Err(Error::NO_MEMORY);
        }
        let open = Open {
            stream,
            told,
            held: VecDeque::new(),
            end: None,
        };
        streams.open.insert(number, open);
        // What was granted since it was told.
        streams.set_ready(number);
        Ok(())
    }

    /// A reply of a stream; true: there is one.
    #[cold]
    pub(super) fn on_stream(
        &mut self,
        parts: &mut Parts,
        message: &Received<'_>,
    ) -> Result<bool, Fatal> {
        let number = message.token();
        let streams = &mut self.streams;
        let Some(open) = streams.open.get_mut(&number) else {
            return Ok(false);
        };
        if !message.is_more() {
            let status = Status::from_number(u32::from(message.status()));
            open.end = Some(status.unwrap_or(Status::Internal));
            return self.retry_stream(parts, number).map(|()| true);
        }
        match open.send(message, &mut streams.held_bytes)? {
            Went::Sent | Went::Ended(_) => {}
            Went::Waits => streams.again_ns = Some(parts.now_ns.saturating_add(AGAIN_NS)),
            Went::Over(status) => {
                self.drop_stream(number, status);
                self.cancel_stream(number)?;
                if status == Status::Misuse {
                    self.refuse_stream()?;
                }
            }
        }
        Ok(true)
    }

    /// A reply that nobody has granted.
    fn refuse_stream(&mut self) -> Result<(), Fatal> {
        let says = "a reply beyond its credit";
        self.fail(0, Reason::Stream, Status::Misuse, says)
    }

    /// Tells the responder that nobody waits for more.
    fn cancel_stream(&mut self, number: u64) -> Result<(), NoMemory> {
        ControlDraft::whole(&mut self.out.bytes, Kind::Cancel, number)?;
        Ok(())
    }

    /// Ends a stream for its asker.
    fn drop_stream(&mut self, number: u64, status: Status) {
        let Some(mut open) = self.streams.open.remove(&number) else {
            return;
        };
        let held = open.held.iter();
        let bytes: usize = held
            .map(|(payload, headers)| kept_bytes(payload, headers))
            .sum();
        self.streams.held_bytes -= bytes;
        self.streams.ready.retain(|other| *other != number);
        if !matches!(status, Status::Misuse | Status::Cancelled) {
            let _ = open.stream.end(status);
        }
    }

    /// Looks at the streams whose credit may have changed, and for room.
    #[cold]
    pub(super) fn pull_streams(&mut self, parts: &mut Parts) -> Result<(), Fatal> {
        while let Some(number) = self.streams.ready.pop_front() {
            let Some(open) = self.streams.open.get_mut(&number) else {
                continue;
            };
            open.stream.wake_again();
            if open.stream.credit().is_err() {
                self.drop_stream(number, Status::Cancelled);
                self.cancel_stream(number)?;
                continue;
            }
            let mut missing = open.stream.granted().saturating_sub(open.told);
            open.told += missing;
            while missing > 0 {
                let replies = missing.min(u64::from(CREDIT_MAX));
                missing -= replies;
                let draft = ControlDraft::whole(&mut self.out.bytes, Kind::Grant, number)?;
                draft.number(Field::Replies, replies)?;
            }
        }
        if parts.now_ns >= self.streams.again_ns() {
            self.streams.again_ns = None;
            let open = self.streams.open.iter();
            let waits = open.filter(|(_, it)| !it.held.is_empty());
            let numbers: Vec<u64> = waits.map(|(number, _)| *number).collect();
            for number in numbers {
                self.retry_stream(parts, number)?;
            }
        }
        Ok(())
    }

    fn retry_stream(&mut self, parts: &Parts, number: u64) -> Result<(), Fatal> {
        let streams = &mut self.streams;
        let Some(open) = streams.open.get_mut(&number) else {
            return Ok(());
        };
        match open.retry(&mut streams.held_bytes) {
            Went::Sent => {}
            Went::Waits => streams.again_ns = Some(parts.now_ns.saturating_add(AGAIN_NS)),
            Went::Ended(status) => {
                if let Some(mut open) = streams.open.remove(&number) {
                    let _ = open.stream.end(status);
                }
            }
            Went::Over(status) => {
                self.drop_stream(number, status);
                self.cancel_stream(number)?;
            }
        }
        Ok(())
    }

    /// Whether streams are to be looked at.
    #[inline(always)]
    pub(super) fn has_streams_due(&self, now_ns: u64) -> bool {
        !self.streams.ready.is_empty() || now_ns >= self.streams.again_ns()
    }

    /// A stream's credit may have changed.
    pub(super) fn stream_ready(&mut self, number: u64) {
        if self.state == State::Ready {
            self.streams.set_ready(number);
        }
    }
}

//! Frames in a row that are dealt with together: usual ones of one kind, for one subscription. And
//! deliveries that are dealt with by themselves.

use std::sync::atomic::Ordering;

use fastmq_memory::Kind as RecordKind;
use fastmq_wire::message::flag;
use fastmq_wire::{ControlDraft, Frame, Kind, Message, State as Life, round_up};

use crate::error::{Fault, Status};

use super::deliver::Taken;
use super::session::{Ending, Session, ended};

/// Frames that are dealt with at a time.
pub(super) const RUN_MAX: usize = 32;

/// Flags of a delivery that needs no more than a record in its queue.
const MESSAGE_FLAGS: u16 = flag::ALIAS | flag::SEQUENCE | flag::PUBLISHER | flag::TIMESTAMP;
const REQUEST_FLAGS: u16 = flag::ALIAS | flag::TOKEN;

/// The frames.
pub(super) struct Run<'a> {
    messages: [Option<Message<'a>>; RUN_MAX],
    count: usize,
    way: Way,
}

/// What frames of one run have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way(u64);

impl Way {
    const REPLIES: Self = Self::of(Kind::Reply, 0);

    #[inline(always)]
    const fn of(kind: Kind, subscription: u32) -> Self {
        Self((kind as u64) << 32 | subscription as u64)
    }
}

/// A frame with nothing unusual about it.
#[inline(always)]
pub(super) fn usual<'f, 'a>(frame: &'f Frame<'a>) -> Option<(Way, &'f Message<'a>)> {
    match frame {
        Frame::Reply(reply) => {
            let is_word = reply.status() != 0 && reply.payload().is_empty();
            // One that says who answers may be of a request for many.
            if reply.flags() != 0 || reply.responder() != 0 || is_word {
                return None;
            }
            Some((Way::REPLIES, reply))
        }
        Frame::Request(request) => {
            if request.flags() != REQUEST_FLAGS {
                return None;
            }
            Some((Way::of(Kind::Request, request.subscription()), request))
        }
        Frame::Message(message) => {
            let flags = message.flags();
            if flags & !MESSAGE_FLAGS != 0 || flags & flag::ALIAS == 0 {
                return None;
            }
            Some((Way::of(Kind::Message, message.subscription()), message))
        }
        Frame::Control(_) => None,
    }
}

impl<'a> Run<'a> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self {
            messages: [None; RUN_MAX],
            count: 0,
            way: Way::REPLIES,
        }
    }

    /// Whether one more may be added.
    #[inline(always)]
    pub(super) fn takes(&self, way: Way) -> bool {
        self.way == way && self.count < RUN_MAX
    }

    /// Begins one that was ended.
    #[inline(always)]
    pub(super) fn begin(&mut self, way: Way) {
        self.way = way;
    }

    #[inline(always)]
    pub(super) fn add(&mut self, message: &Message<'a>) {
        if let Some(place) = self.messages.get_mut(self.count) {
            *place = Some(*message);
            self.count += 1;
        }
    }
}

impl Session {
    /// Deals with the frames of a run, if there are any.
    #[inline(always)]
    pub(super) fn end_run(&mut self, run: &mut Run<'_>, now_ns: u64) -> Result<(), Ending> {
        let count = std::mem::take(&mut run.count);
        match run.messages.get(..count) {
            None | Some([]) => Ok(()),
            Some(messages) if run.way == Way::REPLIES => {
                self.answer(messages);
                Ok(())
            }
            Some(messages) => match run.way.0 >> 32 == Kind::Request as u64 {
                true => self.deliver(messages, RecordKind::Request, now_ns),
                false => self.deliver(messages, RecordKind::Message, now_ns),
            },
        }
    }

    pub(super) fn on_delivery(
        &mut self,
        message: &Message<'_>,
        kind: RecordKind,
        now_ns: u64,
    ) -> std::result::Result<(), Ending> {
        let size = round_up(message.bytes().len());
        if let Err(fault) = self.receiving.receive(size) {
            return Err(self.refuse(&fault));
        }
        let subject = match message.alias() {
            Some(alias) => match self.aliases.get(alias) {
                Ok(entry) => (&*entry.value, entry.publisher),
                Err(fault) => return Err(self.refuse(&fault)),
            },
            None => (message.subject(), 0),
        };
        let is_text = message.alias().is_none();
        let is_wrong = is_text && fastmq_route::check_subject(subject.0).is_err()
            || !message.reply_to().is_empty()
                && fastmq_route::check_subject(message.reply_to()).is_err();
        if is_wrong {
            return Err(ended(&Fault(
                Status::Invalid,
                "the server's bytes are wrong: a delivery's subject is none",
            )));
        }
        let (uplink, writer) = (&self.uplink, &self.writer);
        let taken = self
            .deliveries
            .take(uplink, writer, message, kind, subject, now_ns)?;
        match taken {
            Taken::Done => self.finish(size),
            Taken::Held => drop(self.uplink.held.fetch_add(1, Ordering::SeqCst)),
            Taken::Lost => {}
        }
        Ok(())
    }

    /// Deliveries of so many bytes take no room any more.
    #[inline]
    pub(super) fn finish(&mut self, size: usize) {
        if size > 0
            && let Some(limit) = self.receiving.finish(size, self.limits.frame_max)
            && self.life == Life::Ready
        {
            let mut state = self.uplink.state();
            // Without memory it is told with the next one.
            let _ = ControlDraft::whole(&mut state.out, Kind::Credit, limit);
            drop(state);
            self.uplink.nudge();
        }
    }

    #[inline(never)]
    fn deliver(
        &mut self,
        messages: &[Option<Message<'_>>],
        kind: RecordKind,
        now_ns: u64,
    ) -> Result<(), Ending> {
        let count = self.put(messages, kind)?;
        for message in messages.iter().skip(count).flatten() {
            self.on_delivery(message, kind, now_ns)?;
        }
        Ok(())
    }

    /// Writes those at the front that go where the last ones went; how many.
    #[inline(always)]
    fn put(&mut self, messages: &[Option<Message<'_>>], kind: RecordKind) -> Result<usize, Ending> {
        let is_known = |message: &&Message<'_>| self.deliveries.goes_on(message.subscription());
        let Some(_) = messages.iter().flatten().next().filter(is_known) else {
            return Ok(0);
        };
        let mut tokens = [0; RUN_MAX];
        if kind == RecordKind::Request {
            let mut state = self.uplink.state();
            for (token, message) in tokens.iter_mut().zip(messages.iter().flatten()) {
                // Without memory: none, and the request is answered BUSY.
                *token = state.tokens.give(message.token()).unwrap_or(0);
            }
        }
        let (writer, aliases) = (&self.writer, &mut self.aliases);
        let count = self
            .deliveries
            .put(writer, aliases, messages, (kind, &tokens));
        if kind == RecordKind::Request && count < messages.len() {
            let mut state = self.uplink.state();
            for token in tokens.iter().take(messages.len()).skip(count) {
                let _unused = state.tokens.take(*token);
            }
        }
        let sizes = messages.iter().take(count).flatten();
        let size = sizes.map(|message| round_up(message.bytes().len())).sum();
        if let Err(fault) = self.receiving.receive(size) {
            return Err(self.refuse(&fault));
        }
        self.finish(size);
        Ok(count)
    }
}

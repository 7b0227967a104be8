//! Frames in a row that are dealt with together: usual messages for one subscription, and questions
//! to one. And deliveries that are dealt with by themselves.

use std::sync::atomic::Ordering;

use fastmq_memory::Kind as RecordKind;
use fastmq_wire::message::flag;
use fastmq_wire::{ControlDraft, Frames, Kind, Message, Shape, State as Life, round_up};

use crate::error::{Fault, Status};

use super::deliver::Taken;
use super::session::{Ending, Session, ended};

/// Frames that are dealt with at a time.
const RUN_MAX: usize = 32;

/// Flags of a delivery that needs no more than a record in its queue.
const MESSAGE_FLAGS: u16 = flag::ALIAS | flag::SEQUENCE | flag::PUBLISHER | flag::TIMESTAMP;

/// The messages of a row.
pub(super) struct Run<'a> {
    messages: [Option<Message<'a>>; RUN_MAX],
    count: usize,
    subscription: u32,
}

/// A question of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// Ours; 0: there was no memory for one, and the long way is tried.
    pub(super) token: u64,
    pub(super) alias: u32,
    pub(super) payload: &'a [u8],
}

/// Whether there is nothing unusual about a message.
#[inline(always)]
pub(super) fn is_usual(message: &Message<'_>) -> bool {
    let flags = message.flags();
    flags & !MESSAGE_FLAGS == 0 && flags & flag::ALIAS != 0
}

impl<'a> Run<'a> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self {
            messages: [None; RUN_MAX],
            count: 0,
            subscription: 0,
        }
    }

    /// Whether one more may be added.
    #[inline(always)]
    pub(super) fn takes(&self, subscription: u32) -> bool {
        self.subscription == subscription && self.count < RUN_MAX
    }

    /// Begins one that was ended.
    #[inline(always)]
    pub(super) fn begin(&mut self, subscription: u32) {
        self.subscription = subscription;
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
    /// Deals with the messages of a run, if there are any.
    #[inline(always)]
    pub(super) fn end_run(&mut self, run: &mut Run<'_>, now_ns: u64) -> Result<(), Ending> {
        let count = std::mem::take(&mut run.count);
        match run.messages.get(..count) {
            None | Some([]) => Ok(()),
            Some(messages) => self.deliver(messages, now_ns),
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
    fn deliver(&mut self, messages: &[Option<Message<'_>>], now_ns: u64) -> Result<(), Ending> {
        let count = self.put(messages)?;
        for message in messages.iter().skip(count).flatten() {
            self.on_delivery(message, RecordKind::Message, now_ns)?;
        }
        Ok(())
    }

    /// Writes those at the front that go where the last ones went; how many.
    #[inline(always)]
    fn put(&mut self, messages: &[Option<Message<'_>>]) -> Result<usize, Ending> {
        let (writer, aliases) = (&self.writer, &mut self.aliases);
        let count = self.deliveries.put(writer, aliases, messages);
        let sizes = messages.iter().take(count).flatten();
        let size = sizes.map(|message| round_up(message.bytes().len())).sum();
        self.took(size)?;
        Ok(count)
    }

    /// Deliveries of so many bytes have come and are done with.
    #[inline(always)]
    fn took(&mut self, size: usize) -> Result<(), Ending> {
        if let Err(fault) = self.receiving.receive(size) {
            return Err(self.refuse(&fault));
        }
        self.finish(size);
        Ok(())
    }

    /// Takes the plain questions that come next, if they go where the last delivery went; false:
    /// there is none. The first that needs more than a record goes the long way, and so do those
    /// behind it.
    #[inline(never)]
    pub(super) fn take_questions(
        &mut self,
        frames: &mut Frames<'_>,
        now_ns: u64,
    ) -> Result<bool, Ending> {
        let Some(subscription) = self.deliveries.last_subscription() else {
            return Ok(false);
        };
        let (mut ahead, mut shape) = (frames.clone(), Shape::default());
        let Some(mut question) = ahead.next_plain_question(&mut shape, subscription) else {
            return Ok(false);
        };
        let mut row = [NONE; RUN_MAX];
        let mut count = 0;
        let mut state = self.uplink.state();
        for place in &mut row {
            *place = Asked {
                token: state.tokens.give(question.token).unwrap_or(0),
                alias: question.alias,
                payload: question.payload,
            };
            count += 1;
            if count < RUN_MAX
                && let Some(next) = ahead.next_plain_question(&mut shape, subscription)
            {
                question = next;
            } else {
                break;
            }
        }
        drop(state);
        let row = row.get(..count).unwrap_or_default();
        let (writer, aliases) = (&self.writer, &mut self.aliases);
        let written = self.deliveries.put_questions(writer, aliases, row);
        let left = row.get(written..).unwrap_or_default();
        let start = frames.consumed();
        if left.is_empty() {
            *frames = ahead;
            self.took(frames.consumed() - start)?;
            return Ok(true);
        }
        let mut state = self.uplink.state();
        for asked in left {
            let _unused = state.tokens.take_back(asked.token);
        }
        drop(state);
        for _ in 0..written {
            let _written = frames.next_plain_question(&mut shape, subscription);
        }
        self.took(frames.consumed() - start)?;
        for _ in left {
            if let Ok(Some(frame)) = frames.next_frame() {
                self.on_frame(&frame, now_ns)?;
            }
        }
        Ok(true)
    }
}

/// No question.
const NONE: Asked<'_> = Asked {
    token: 0,
    alias: 0,
    payload: &[],
};

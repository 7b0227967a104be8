//! The server's replies into the queues of the askers.

use std::sync::atomic::Ordering;

use fastmq_memory::Kind as RecordKind;
use fastmq_memory::record::flag;
use fastmq_wire::{Frames, Message, Shape};

use crate::answers::Answer;
use crate::error::Status;
use crate::survey::LEG;

use super::session::Session;

/// Replies that are handed over at a time.
const ROW_MAX: usize = 64;
const NONE: Answer<'_> = Answer {
    token: 0,
    status: 0,
    payload: &[],
};

impl Session {
    /// Hands over the plain replies that come next, one behind the other; false: there is none.
    #[inline(never)]
    pub(super) fn take_replies(&mut self, frames: &mut Frames<'_>) -> bool {
        let (mut ahead, mut shape) = (frames.clone(), Shape::default());
        let Some(mut reply) = ahead.next_plain_reply(&mut shape) else {
            return false;
        };
        let mut row = [NONE; ROW_MAX];
        let mut count = 0;
        let mut state = self.uplink.state();
        {
            let mut take = state.asked.taking();
            for place in &mut row {
                *place = Answer {
                    token: take(reply.correlation),
                    status: reply.status,
                    payload: reply.payload,
                };
                count += 1;
                if count < ROW_MAX
                    && let Some(next) = ahead.next_plain_reply(&mut shape)
                {
                    reply = next;
                } else {
                    break;
                }
            }
        }
        *frames = ahead;
        drop(state);
        let mut answers = row.get(..count).unwrap_or_default();
        loop {
            let written = self.writer.answer_row(answers);
            let left = answers.get(written..).unwrap_or_default();
            let Some((answer, rest)) = left.split_first() else {
                return true;
            };
            self.answer_otherwise(answer);
            answers = rest;
        }
    }

    /// Hands over what needs more than a record in a queue that is known.
    #[cold]
    fn answer_otherwise(&mut self, answer: &Answer<'_>) {
        let (token, status) = (answer.token, u32::from(answer.status));
        if token as u32 & LEG != 0 {
            self.end_many(token, status, answer.payload);
        } else if token != 0 {
            self.answer_first(token, status, answer.payload, &[]);
        } else {
            self.count_late(1);
        }
    }

    pub(super) fn on_reply(&mut self, message: &Message<'_>) {
        let number = message.correlation();
        let mut state = self.uplink.state();
        let token = state.asked.get(number).unwrap_or(0);
        let is_many = token as u32 & LEG != 0;
        if token == 0 || message.is_more() && !is_many {
            drop(state);
            return self.note_late(message);
        }
        if !message.is_more() {
            let _ = state.asked.take(number);
        }
        drop(state);
        if is_many {
            return self.on_reply_of_many(token, message);
        }
        let status = u32::from(message.status());
        let broker = self.writer.broker();
        if is_fate(message) {
            let status = Status::from_number(status).unwrap_or(Status::Cancelled);
            broker.answer_late(token, status);
            return;
        }
        self.answer_first(token, status, message.payload(), message.headers());
    }

    /// Its request was given up, or asked for no more.
    #[cold]
    fn note_late(&self, reply: &Message<'_>) {
        self.count_late(u64::from(!is_fate(reply)));
    }

    fn count_late(&self, count: u64) {
        let late_answers = &self.writer.broker().late_answers;
        late_answers.fetch_add(count, Ordering::Relaxed);
    }

    #[cold]
    fn answer_first(&self, token: u64, status: u32, payload: &[u8], headers: &[u8]) {
        let broker = self.writer.broker();
        let mut draft = fastmq_memory::Draft {
            kind: RecordKind::Reply,
            flags: flag::TOKEN,
            status: status as u16,
            token,
            payload,
            ..Default::default()
        };
        if !headers.is_empty() {
            draft.flags |= flag::SIZES;
            draft.headers = headers;
        }
        match self.writer.answer((token >> 32) as u32, &draft) {
            Ok(()) => {}
            Err(error) if error.status() == Status::NotFound => {}
            // The asker does not receive: its request ends without the answer.
            Err(error) if error.status() == Status::Again => {
                broker.answer_late(token, Status::Busy);
            }
            Err(error) => broker.answer_late(token, error.status()),
        }
    }
}

/// Whether that is no answer but why there is none.
fn is_fate(reply: &Message<'_>) -> bool {
    let status = Status::from_number(u32::from(reply.status()));
    matches!(
        status,
        Some(Status::NoResponder | Status::Busy | Status::Timeout | Status::Cancelled)
    ) && reply.payload().is_empty()
}

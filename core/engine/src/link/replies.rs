//! The server's replies into the queues of the askers.

use std::sync::atomic::Ordering;

use fastmq_memory::Kind as RecordKind;
use fastmq_memory::record::flag;
use fastmq_wire::Message;

use crate::error::Status;
use crate::survey::LEG;

use super::run::RUN_MAX;
use super::session::Session;

impl Session {
    /// Hands replies over that came one behind the other.
    #[inline(never)]
    pub(super) fn answer(&mut self, replies: &[Option<Message<'_>>]) {
        let mut tokens = [0; RUN_MAX];
        let mut state = self.uplink.state();
        for (token, reply) in tokens.iter_mut().zip(replies.iter().flatten()) {
            *token = state.asked.take(reply.correlation()).unwrap_or(0);
        }
        drop(state);
        let mut answers = tokens.iter().copied().zip(replies.iter().flatten());
        loop {
            answers = self.writer.answer_run(answers);
            let Some((token, reply)) = answers.next() else {
                return;
            };
            let status = u32::from(reply.status());
            if token as u32 & LEG != 0 {
                self.end_many(token, status, reply.payload());
            } else if token != 0 {
                self.answer_first(token, status, reply.payload(), &[]);
            } else {
                self.note_late(reply);
            }
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
        let late_answers = &self.writer.broker().late_answers;
        late_answers.fetch_add(u64::from(!is_fate(reply)), Ordering::Relaxed);
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

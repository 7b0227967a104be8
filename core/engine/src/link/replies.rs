//! The server's replies into the queues of the askers.

use fastmq_memory::Kind as RecordKind;
use fastmq_memory::record::flag;
use fastmq_wire::Message;

use crate::error::Status;
use crate::survey::LEG;

use super::session::Session;

/// Replies that are handed over at a time.
const RUN_MAX: usize = 64;

/// Replies in a row of which each is all that there is to an answer.
pub(super) struct Run<'a> {
    replies: [Reply<'a>; RUN_MAX],
    count: usize,
}

/// A reply's number, status and payload.
pub(super) type Reply<'a> = (u32, u32, &'a [u8]);

impl<'a> Run<'a> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self {
            replies: [(0, 0, &[]); RUN_MAX],
            count: 0,
        }
    }

    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.count == RUN_MAX
    }

    #[inline(always)]
    pub(super) fn add(&mut self, reply: Reply<'a>) {
        if let Some(room) = self.replies.get_mut(self.count) {
            *room = reply;
            self.count += 1;
        }
    }
}

/// What an answer is made of, unless there is more to it.
#[inline(always)]
pub(super) fn plain<'a>(message: &Message<'a>) -> Option<Reply<'a>> {
    let status = u32::from(message.status());
    let payload = message.payload();
    // One that says who answers may be of a request for many.
    let is_plain =
        message.flags() == 0 && message.responder() == 0 && (status == 0 || !payload.is_empty());
    is_plain.then(|| (message.correlation(), status, payload))
}

impl Session {
    /// Hands replies over that came one behind the other.
    #[inline(always)]
    pub(super) fn answer(&mut self, run: &mut Run<'_>) {
        if run.count > 0 {
            self.answer_some(run);
        }
    }

    #[inline(never)]
    fn answer_some(&mut self, run: &mut Run<'_>) {
        let replies = run.replies.get(..run.count).unwrap_or_default();
        run.count = 0;
        let mut tokens = [0; RUN_MAX];
        let mut state = self.uplink.state();
        for (token, (number, ..)) in tokens.iter_mut().zip(replies) {
            *token = state.asked.take(*number).unwrap_or(0);
        }
        drop(state);
        for (token, (_, status, payload)) in tokens.into_iter().zip(replies) {
            if token == 0 {
                continue;
            }
            if token as u32 & LEG != 0 {
                self.end_many(token, *status, payload);
                continue;
            }
            match self.writer.try_answer(token, *status, payload) {
                Some(Ok(())) => {}
                _ => self.answer_first(token, *status, payload, &[]),
            }
        }
    }

    pub(super) fn on_reply(&mut self, message: &Message<'_>) {
        let number = message.correlation();
        let mut state = self.uplink.state();
        let token = state.asked.get(number).unwrap_or(0);
        let is_many = token as u32 & LEG != 0;
        if token == 0 || message.is_more() && !is_many {
            return;
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
        let is_fate = matches!(
            Status::from_number(status),
            Some(Status::NoResponder | Status::Busy | Status::Timeout | Status::Cancelled)
        );
        if is_fate && message.payload().is_empty() {
            let status = Status::from_number(status).unwrap_or(Status::Cancelled);
            broker.answer_late(token, status);
            return;
        }
        self.answer_first(token, status, message.payload(), message.headers());
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

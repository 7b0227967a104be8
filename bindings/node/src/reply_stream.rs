//! A responder's stream of replies as JavaScript holds it.

use std::cell::RefCell;

use fastmq::{Error, Fault, ReplyStream, Status};
use napi_derive::napi;

use crate::error::{failed, told};

/// A reply stream; without one inside once it is closed.
#[napi]
pub struct NativeReplyStream {
    stream: RefCell<Option<ReplyStream>>,
}

const CLOSED: Error = Error::new(&Fault(Status::Misuse, "the reply stream is closed"));

impl NativeReplyStream {
    pub(crate) fn new(stream: ReplyStream) -> Self {
        Self {
            stream: RefCell::new(Some(stream)),
        }
    }

    fn with(&self, body: impl FnOnce(&mut ReplyStream) -> fastmq::Result<()>) -> u32 {
        match &mut *self.stream.borrow_mut() {
            Some(stream) => told(&body(stream)),
            None => failed(&CLOSED),
        }
    }
}

#[napi]
impl NativeReplyStream {
    /// Replies that the asker has granted and that were not sent; -status on failure.
    #[napi]
    pub fn credit(&self) -> f64 {
        let stream = self.stream.borrow();
        let credit = stream.as_ref().map_or(Err(CLOSED), ReplyStream::credit);
        match credit {
            Ok(replies) => replies as f64,
            Err(error) => -f64::from(failed(&error)),
        }
    }

    /// Sends one reply.
    #[napi]
    pub fn send(&self, payload: &[u8], headers: &[u8]) -> u32 {
        self.with(|stream| stream.send(payload, headers))
    }

    /// Ends the stream.
    #[napi]
    pub fn end(&self, status: u32) -> u32 {
        let status = Status::from_number(status).unwrap_or(Status::Internal);
        self.with(|stream| stream.end(status))
    }

    /// Closes it; one that was not ended ends with FASTMQ_CANCELLED.
    #[napi]
    pub fn close(&self) {
        *self.stream.borrow_mut() = None;
    }
}

//! A responder's stream of replies as JavaScript holds it.

use std::rc::Rc;

use fastmq::{Fault, ReplyStream, Status};
use napi_derive::napi;

use crate::error::{failed, told};
use crate::held::{Handles, Held};

/// A reply stream.
#[napi]
pub struct NativeReplyStream {
    stream: Rc<Held<ReplyStream>>,
}

const CLOSED: &Fault = &Fault(Status::Misuse, "the reply stream is closed");

impl NativeReplyStream {
    pub(crate) fn new(stream: ReplyStream, handles: &Handles) -> Self {
        let stream = Rc::new(Held::new(stream, CLOSED));
        handles.add(&stream);
        Self { stream }
    }

    fn with(&self, body: impl FnOnce(&mut ReplyStream) -> fastmq::Result<()>) -> u32 {
        told(&self.stream.with(body))
    }
}

#[napi]
impl NativeReplyStream {
    /// Replies that the asker has granted and that were not sent; -status on failure.
    #[napi]
    pub fn credit(&self) -> f64 {
        match self.stream.with(|stream| stream.credit()) {
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
        drop(self.stream.close());
    }
}

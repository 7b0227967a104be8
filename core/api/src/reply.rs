//! An answer that was copied out, so that it outlives the call that asked.

use bytes::Bytes;
use fastmq_engine::Status;
use fastmq_engine::memory::View;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What the responder said of it; [`Status::Ok`] unless it chose another.
    pub status: Status,
    /// The payload.
    pub payload: Bytes,
    /// Encoded headers: see [`crate::headers`].
    pub headers: Bytes,
}

impl Reply {
    pub(crate) fn copy(view: &View) -> Self {
        Self {
            status: Status::from_number(view.status).unwrap_or(Status::Internal),
            payload: Bytes::copy_from_slice(view.payload()),
            headers: Bytes::copy_from_slice(view.headers()),
        }
    }
}

impl From<Reply> for Bytes {
    fn from(reply: Reply) -> Self {
        reply.payload
    }
}

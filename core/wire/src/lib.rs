//! The native protocol: bytes to frames and back (`docs/protocol.md`).
//!
//! Nothing here opens a socket, reads a clock or draws a number; nothing but the tables of aliases
//! allocates for itself. Decoding shows a frame where its bytes lie and trusts none of them:
//! whatever they are, the outcome is a frame, a wait for more bytes, or a [`Fault`] that names
//! what is wrong. Encoding appends to a buffer, or fills room, of the caller.
//!
//! | module | owns |
//! |---|---|
//! | [`kind`] | kinds of frames, and who takes which in which state |
//! | [`frames`] | the frames of received bytes |
//! | [`message`] | MESSAGE, REQUEST and REPLY as they were received |
//! | [`draft`] | MESSAGE, REQUEST and REPLY as they are sent |
//! | [`control`] | all other frames, both ways |
//! | [`field`] | the fields of control frames and what is checked of them |
//! | [`handshake`] | HELLO and WELCOME, and what two sides agree on |
//! | [`alias`] | numbers for subjects, on both ends |
//! | [`credit`] | what may be sent and when to grant more |
//! | [`fault`] | what can be wrong, with its reason, status and sentence |
//!
//! Not here: whether a text is a subject or a pattern (`route`), what a frame leads to (`engine`).

#![forbid(unsafe_code)]

pub mod alias;
pub mod control;
pub mod credit;
pub mod draft;
pub mod fault;
pub mod field;
pub mod frames;
pub mod handshake;
pub mod kind;
pub mod message;

pub use alias::{Aliases, Numbers};
pub use control::{Control, ControlDraft};
pub use credit::{Receiving, Sending};
pub use draft::{Draft, SHORT_BYTES, Subject, append_readdressed};
pub use fault::{Fault, Reason};
pub use field::Field;
pub use frames::{Frame, Frames, Plain, PlainQuestion, PlainReply, Shape};
pub use handshake::{Agreement, Hello, Limits, Welcome};
pub use kind::{Kind, Side, State};
pub use message::Message;

/// Bytes that start each frame.
pub const HEADER_BYTES: usize = 16;
/// Largest control frame.
pub const CONTROL_BYTES_MAX: usize = 8192;
/// FRAME_MAX of a side that does not say its own: 1 MiB and 136 KiB.
pub const FRAME_BYTES_DEFAULT: u64 = 1_187_840;
/// CREDIT of a side that does not say its own.
pub const CREDIT_DEFAULT: u64 = 8 << 20;
/// PING_NS of a side that does not say its own.
pub const PING_NS_DEFAULT: u64 = 30_000_000_000;
/// The version of the protocol.
pub const VERSION: u32 = 1;
/// Longest subject and reply address.
pub const SUBJECT_BYTES_MAX: usize = 1024;
/// Most bytes of encoded headers.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;

/// What a frame of `length` bytes occupies.
#[inline(always)]
pub const fn round_up(length: usize) -> usize {
    (length + 7) & !7
}

/// The buffer could not grow; it holds what it held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl std::fmt::Display for NoMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there is no memory for the frame")
    }
}

impl std::error::Error for NoMemory {}

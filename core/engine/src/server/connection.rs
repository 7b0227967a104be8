//! A connection as its shard knows it: where it is in its life, and the begin of a frame.
//!
//! Not here: what the frames say; that is `session.rs`.

use fastmq_driver::FOREVER_NS;
use fastmq_driver::sockets::ConnectionId;

use super::parts::Parts;
use super::session::Session;

/// One connection.
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) serial: u64,
    /// The begin of a frame.
    pub(super) rest: Vec<u8>,
    pub(super) is_sending: bool,
    /// It is looked at again when that is sent.
    pub(super) waits_for_sent: bool,
    pub(super) has_rings: bool,
    /// Nothing can be sent any more.
    pub(super) is_broken: bool,
    pub(super) has_ended: bool,
    pub(super) is_finished: bool,
    pub(super) is_closing: bool,
    /// When the other side is waited for no longer, once we have said our last word.
    pub(super) linger_ns: u64,
    /// The earliest time that the shard looks at it.
    pub(super) scheduled_ns: u64,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, serial: u64) -> Self {
        Self {
            id,
            serial,
            rest: Vec::new(),
            is_sending: false,
            waits_for_sent: false,
            has_rings: false,
            is_broken: false,
            has_ended: false,
            is_finished: false,
            is_closing: false,
            linger_ns: FOREVER_NS,
            scheduled_ns: FOREVER_NS,
        }
    }

    /// Bytes have come.
    pub(super) fn on_received(&mut self, session: &mut Session, parts: &mut Parts, bytes: &[u8]) {
        if self.rest.is_empty() {
            let consumed = session.on_bytes(parts, bytes);
            self.keep(session, parts, &bytes[consumed..]);
            return;
        }
        // Only the frame that is cut is completed in the copy; what follows is taken in place.
        let mut bytes = bytes;
        while !self.rest.is_empty() && !bytes.is_empty() {
            let wanted = session.frame_bytes(&self.rest);
            let missing = wanted.saturating_sub(self.rest.len()).clamp(1, bytes.len());
            let (now, later) = bytes.split_at(missing);
            self.keep(session, parts, now);
            bytes = later;
            let rest = std::mem::take(&mut self.rest);
            let consumed = session.on_bytes(parts, &rest);
            if consumed < rest.len() {
                self.rest = rest;
                self.rest.drain(..consumed);
            }
        }
        if !bytes.is_empty() {
            let consumed = session.on_bytes(parts, bytes);
            self.keep(session, parts, &bytes[consumed..]);
        }
    }

    /// Keeps the begin of a frame; it is bounded, as a larger one than may come is refused by its
    /// first bytes.
    fn keep(&mut self, session: &mut Session, parts: &mut Parts, bytes: &[u8]) {
        if self.rest.try_reserve(bytes.len()).is_err() {
            self.is_broken = true;
            session.on_end(parts);
            return;
        }
        self.rest.extend_from_slice(bytes);
    }
}

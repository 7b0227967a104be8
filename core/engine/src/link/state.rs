//! What all threads of a client share: the buffers, the credit, what is open.

use std::cell::Cell;
use std::collections::HashMap;

use fastmq_memory::allocation::try_bytes;
use fastmq_wire::message::flag;
use fastmq_wire::{
    Agreement, ControlDraft, Draft, Field, Frame, Frames, HEADER_BYTES, Kind, NoMemory, Sending,
    Side, Subject, round_up,
};

use crate::error::{Error, Fault, Result, Status};
use crate::frames;

use super::OUTGOING_BYTES_MAX;
use super::asked::{Operations, Subscribed};
use super::draining::Draining;
use super::names::Names;
use super::open::Open;
use super::remote::Known;
use super::streams::Streams;
use super::tokens::Tokens;

pub(super) const NO_ROOM: Error = Error::new(&Fault(
    Status::Again,
    "the connection takes no more now; publish again when it has sent, or wait for room",
));

const STORE_FULL: Error = Error::new(&Fault(
    Status::Again,
    "there is no connection, and as much waits for one as may; publish again later",
));

pub(super) const TOO_LARGE: Error = Error::new(&Fault(
    Status::TooLarge,
    "the message is larger than the server takes",
));

/// Where the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is none.
    Offline,
    /// It takes messages.
    Online,
    /// There will be none any more.
    Over,
}

/// What all threads of a client share.
pub(super) struct State {
    pub(super) phase: Phase,
    /// What holds for the connection.
    pub(super) agreement: Agreement,
    pub(super) payload_max: u64,
    /// Largest payload that a frame without words and texts may have.
    pub(super) plain_max: usize,
    pub(super) credit: Sending,
    pub(super) names: Names,
    /// Frames that wait for the socket.
    pub(super) out: Vec<u8>,
    /// Those that go before them.
    pub(super) urgent: Vec<u8>,
    /// Publishes that wait for a connection, or for credit behind such; the word of a TTL says
    /// until when.
    pub(super) stored: Vec<u8>,
    pub(super) stored_at: usize,
    pub(super) operations: Operations,
    /// Open requests, with the token of the asker.
    pub(super) asked: Open,
    /// Those of them that wait for the socket.
    pub(super) asked_unsent: u32,
    /// Which connection this is; 0: there was none yet.
    pub(super) epoch: u32,
    pub(super) tokens: Tokens,
    /// Requests to be answered that streams may answer.
    pub(super) streams: Streams,
    pub(super) subscriptions: HashMap<u32, Subscribed>,
    /// Subscriptions that have ended since the link has looked.
    pub(super) gone: Vec<u32>,
    pub(super) draining: Draining,
    /// Why there is no connection, as the last attempt said.
    pub(super) last_error: Option<Error>,
    /// All servers were tried, in vain.
    pub(super) has_failed: bool,
}

impl State {
    #[inline(always)]
    fn check_size(&self, sent: &Draft<'_>) -> Result<()> {
        let is_payload_large = self.payload_max > 0 && sent.payload.len() as u64 > self.payload_max;
        if is_payload_large || sent.size() > self.agreement.theirs.frame_max as usize {
            return Err(TOO_LARGE);
        }
        Ok(())
    }

    /// Largest payload of a message with an alias and a sequence.
    pub(super) fn numbered_payload_max(&self) -> usize {
        let frame_max = self.agreement.theirs.frame_max as usize & !7;
        let in_frame = frame_max.saturating_sub(HEADER_BYTES + 8);
        match usize::try_from(self.payload_max) {
            Ok(payload_max) if payload_max > 0 => payload_max.min(in_frame),
            _ => in_frame,
        }
    }

    /// Bytes of messages that may be appended.
    pub(super) fn left(&self) -> usize {
        let left = OUTGOING_BYTES_MAX.saturating_sub(self.out.len());
        usize::try_from(self.credit.left()).map_or(left, |granted| left.min(granted))
    }

    /// Whether a number of a subject still means it, and nothing stands in its way.
    #[inline(always)]
    pub(super) fn is_current(&self, known: Known) -> bool {
        known.epoch == self.epoch && self.phase == Phase::Online && self.stored.is_empty()
    }

    /// Appends a message if it may be sent.
    #[inline(always)]
    pub(super) fn append(&mut self, sent: &Draft<'_>) -> Result<()> {
        let size = sent.size();
        self.check_size(sent)?;
        if self.out.len() + size > OUTGOING_BYTES_MAX || self.credit.left() < size as u64 {
            return Err(NO_ROOM);
        }
        frames::append(sent, &mut self.out).map_err(no_memory)?;
        let is_granted = self.credit.take(size);
        debug_assert!(is_granted, "it was looked at before");
        Ok(())
    }

    /// Appends a request with a payload alone, if it may be sent; false: it has done nothing.
    #[inline(always)]
    pub(super) fn ask(&mut self, alias: u32, payload: &[u8], token: u64) -> bool {
        let make = |number| Draft::request(number, Subject::Alias(alias), payload);
        let size = make(0).size();
        if payload.len() > self.plain_max
            || self.out.len() + size > OUTGOING_BYTES_MAX
            || self.credit.left() < size as u64
            || !self.asked.reserve()
        {
            return false;
        }
        let number = self.asked.put(token);
        if frames::append_plain(&make(number), &mut self.out).is_err() {
            let _not_sent = self.asked.take(number);
            return false;
        }
        let is_granted = self.credit.take(size);
        debug_assert!(is_granted, "it was looked at before");
        true
    }

    /// Appends a message, by a number for its subject if there is one.
    pub(super) fn send<'m>(
        &mut self,
        known: &Cell<Known>,
        subject: &'m [u8],
        publisher: u64,
        make: impl Fn(Subject<'m>) -> Draft<'m>,
    ) -> Result<()> {
        let it = known.get();
        if self.is_current(it) && it.publisher == publisher {
            return self.append(&make(Subject::Alias(it.alias)));
        }
        let by_text = make(Subject::Text(subject));
        self.check_size(&by_text)?;
        let size = by_text.size();
        // With its alias, in the worst case.
        if self.out.len() + size + subject.len() + 64 > OUTGOING_BYTES_MAX {
            return Err(NO_ROOM);
        }
        if self.credit.left() < size as u64 {
            return Err(NO_ROOM);
        }
        self.out.try_reserve(size).map_err(|_| Error::NO_MEMORY)?;
        let alias = self.names.alias(subject, publisher, &mut self.out);
        let Some(alias) = alias.map_err(no_memory)? else {
            return self.append(&by_text);
        };
        known.set(Known {
            epoch: self.epoch,
            alias,
            publisher,
        });
        self.append(&make(Subject::Alias(alias)))
    }

    pub(super) fn store(&mut self, stored: &Draft<'_>, max: u64) -> Result<()> {
        if self.phase == Phase::Online {
            self.check_size(stored)?;
        }
        if (self.stored.len() - self.stored_at + stored.size()) as u64 > max {
            return Err(STORE_FULL);
        }
        self.compact_stored();
        stored.append(&mut self.stored).map_err(no_memory)
    }

    /// Gives room back of what was sent, now and then.
    fn compact_stored(&mut self) {
        if self.stored_at > self.stored.len() / 2 {
            self.stored.drain(..self.stored_at);
            self.stored_at = 0;
        }
    }

    pub(super) fn may_have_room(&self, store_max: u64) -> bool {
        let stored = (self.stored.len() - self.stored_at) as u64;
        match self.phase {
            Phase::Over => true,
            Phase::Online if stored == 0 => {
                let frame_max = u64::from(self.agreement.theirs.frame_max);
                self.out.len() < OUTGOING_BYTES_MAX / 2 && self.credit.left() >= frame_max
            }
            _ => stored < store_max / 2,
        }
    }

    /// Drops the stored publishes that are larger than the server takes: with them it would end
    /// the connection. Their subjects, as far as there is memory for them.
    pub(super) fn drop_too_large(&mut self) -> Vec<Box<[u8]>> {
        let frame_max = self.agreement.theirs.frame_max as usize;
        let payload_max = match self.payload_max {
            0 => u64::MAX,
            payload_max => payload_max,
        };
        let mut subjects = Vec::new();
        let (mut at, mut kept) = (self.stored_at, self.stored_at);
        while let Some(frame) = self.stored.get(at..)
            && let Ok(Some(Frame::Message(message))) =
                Frames::new(frame, Side::Server, u32::MAX).next_frame()
        {
            let size = round_up(message.bytes().len());
            if size <= frame_max && message.payload().len() as u64 <= payload_max {
                if kept < at {
                    self.stored.copy_within(at..at + size, kept);
                }
                kept += size;
            } else if subjects.try_reserve(1).is_ok()
                && let Ok(subject) = try_bytes(message.subject())
            {
                subjects.push(subject);
            }
            at += size;
        }
        self.stored.drain(kept..at);
        subjects
    }

    /// Moves publishes that have waited to what is sent, as far as credit and room go. Returns
    /// nothing of those that have expired: they are dropped.
    pub(super) fn flush_stored(&mut self, now_ns: u64) {
        if self.stored.is_empty() || self.phase != Phase::Online {
            return;
        }
        while let Some(frame) = self.stored.get(self.stored_at..)
            && let Some(length) = frame.first_chunk::<4>()
        {
            let size = round_up(u32::from_le_bytes(*length) as usize);
            if self.out.len() + size > OUTGOING_BYTES_MAX || self.credit.left() < size as u64 {
                return;
            }
            if let Some(frame) = frame.get(..size)
                && self.out.try_reserve(size).is_ok()
            {
                let at = self.out.len();
                self.out.extend_from_slice(frame);
                if is_still_worth(&mut self.out[at..], now_ns) {
                    let _granted = self.credit.take(size);
                } else {
                    self.out.truncate(at);
                }
            } else {
                return;
            }
            self.stored_at += size;
        }
        self.stored.clear();
        self.stored_at = 0;
    }

    /// Appends a control frame of two numbers.
    pub(super) fn control(
        &mut self,
        kind: Kind,
        (first, second): (u32, u32),
        field: Option<(Field, u64)>,
    ) -> std::result::Result<(), NoMemory> {
        let draft = ControlDraft::pair(&mut self.out, kind, first, second)?;
        if let Some((field, value)) = field {
            draft.number(field, value)?;
        }
        Ok(())
    }

    /// Publishes among the frames that wait for the socket.
    pub(super) fn unsent(&self) -> u64 {
        let (mut at, mut count) = (0, 0);
        while let Some(frame) = self.out.get(at..)
            && let Some(head) = frame.first_chunk::<HEADER_BYTES>()
        {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            count += u64::from(head[4] == Kind::Message as u8);
            at += round_up(length as usize);
        }
        count
    }
}

/// Turns the time until which a stored message is worth it into what is left of it; false: none.
fn is_still_worth(frame: &mut [u8], now_ns: u64) -> bool {
    let flags = u16::from_le_bytes([frame[6], frame[7]]);
    if flags & flag::TTL == 0 {
        return true;
    }
    let at = HEADER_BYTES + 8 * usize::from(flags & flag::SEQUENCE != 0);
    let Some(word) = frame.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) else {
        return true;
    };
    let left_ns = u64::from_le_bytes(*word).saturating_sub(now_ns);
    *word = left_ns.to_le_bytes();
    left_ns > 0
}

pub(super) fn no_memory(_: NoMemory) -> Error {
    Error::NO_MEMORY
}

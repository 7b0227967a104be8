//! Publishing and asking: from a route into the buffer.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_memory::sync::MutexGuard;
use fastmq_wire::handshake::capability;
use fastmq_wire::message::Many;
use fastmq_wire::{Draft, Subject};

use crate::asking::Fate;
use crate::error::{Error, Fault, Result, Status};
use crate::frames;
use crate::message::Message;
use crate::presence::check_not_reserved;

use super::state::{Phase, State};
use super::{SEGMENT_BYTES, Uplink};

/// Requests that wait for the socket are sent by whoever asks, as many at a time or a multiple, if
/// no more than that are on the way: the server then works while the next ones are made, and does
/// not wait until the asker does.
const PRESS_REQUESTS: usize = 128;

/// The way of one subject's messages to the server, as a route keeps it.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) uplink: Arc<Uplink>,
    known: Cell<Known>,
}

/// The number that a connection has given to the subject, for this publisher.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) epoch: u32,
    pub(super) alias: u32,
    pub(super) publisher: u64,
}

const NOT_CONNECTED: Error = Error::new(&Fault(
    Status::Unavailable,
    "there is no connection to the server now; try again later",
));

const NOT_MANY: Error = Error::new(&Fault(
    Status::Unsupported,
    "the server has no requests for several answers",
));

impl Uplink {
    /// After a publish that has made `before` bytes more.
    #[inline(always)]
    fn published(&self, state: MutexGuard<'_, State>, before: usize) {
        let is_much = is_much(before, state.out.len());
        let gathers = self.helm.gathers.load(Ordering::Relaxed);
        drop(state);
        if is_much {
            self.press();
        } else if gathers || self.nudge() {
            let woken = &self.helm.woken;
            woken.store(woken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            self.call_napping();
        }
    }

    /// Publishes. AGAIN: no room, or no credit. TOO_LARGE. DENIED: the subject is reserved. Without
    /// a connection the message waits for one.
    fn publish(
        &self,
        known: &Cell<Known>,
        message: &Message<'_>,
        draft: &fastmq_memory::Draft<'_>,
        publisher: u64,
    ) -> Result<()> {
        check_not_reserved(message.subject)?;
        let mut state = self.state();
        let before = state.out.len();
        let make = |subject| {
            let is_text = matches!(subject, Subject::Text(_));
            let mut sent = Draft::message(0, subject, message.payload);
            sent.sequence = (draft.sequence > 0).then_some(draft.sequence);
            sent.publisher = (is_text && publisher > 0 && draft.sequence > 0).then_some(publisher);
            fill(sent, message, draft)
        };
        let sent = match state.phase {
            Phase::Over => Err(Error::CLOSED),
            Phase::Online if state.stored.is_empty() => {
                let counted = if draft.sequence > 0 { publisher } else { 0 };
                state.send(known, message.subject, counted, make)
            }
            _ => {
                let mut stored = make(Subject::Text(message.subject));
                stored.ttl_ns = (message.ttl_ns > 0).then_some(draft.expiry);
                state.store(&stored, self.options.store_max)
            }
        };
        sent?;
        self.published(state, before);
        Ok(())
    }

    /// Asks, `many` or one; what comes back will have the draft's token. Gives the number of the
    /// request on the connection, too. UNAVAILABLE: there is no connection.
    fn request(
        &self,
        known: &Cell<Known>,
        message: &Message<'_>,
        draft: &fastmq_memory::Draft<'_>,
        many: Option<Many>,
    ) -> Result<(Fate, u32)> {
        self.check_not_here()?;
        // Whatever is published to one takes the way on which it is refused.
        let apart = Cell::default();
        let known = match check_not_reserved(message.subject) {
            Ok(()) => known,
            Err(_) => &apart,
        };
        let mut state = self.state();
        match state.phase {
            Phase::Over => return Err(Error::CLOSED),
            Phase::Offline => return Err(NOT_CONNECTED),
            Phase::Online => {}
        }
        if many.is_some() && state.agreement.capabilities & capability::MANY == 0 {
            return Err(NOT_MANY);
        }
        if !state.stored.is_empty() || !state.asked.reserve() {
            return Ok((Fate::Busy, 0));
        }
        let correlation = state.asked.put(draft.token);
        let before = state.out.len();
        let make = |subject| {
            let sent = Draft::request(correlation, subject, message.payload);
            let mut sent = fill(sent, message, draft);
            sent.many = many;
            sent
        };
        if let Err(error) = state.send(known, message.subject, 0, make) {
            let _not_sent = state.asked.take(correlation);
            return match error.status() {
                Status::Again => Ok((Fate::Busy, 0)),
                _ => Err(error),
            };
        }
        self.requested(state, before);
        Ok((Fate::Sent(1), correlation))
    }

    /// After a request that has made `before` bytes more.
    #[inline(always)]
    fn requested(&self, mut state: MutexGuard<'_, State>, before: usize) {
        state.asked_unsent += 1;
        let unsent = state.asked_unsent as usize;
        let is_due = unsent.is_multiple_of(PRESS_REQUESTS) && 2 * unsent >= state.asked.count();
        let is_much = is_due || is_much(before, state.out.len());
        drop(state);
        if is_much {
            self.press();
        } else {
            self.nudge();
        }
    }
}

/// Whether so much waits for the socket, and did not `before`, that whoever adds to it sends it: a
/// segment, and then each 64 KiB more.
#[inline(always)]
fn is_much(before: usize, now: usize) -> bool {
    const STEP: usize = SEGMENT_BYTES.next_power_of_two();
    const SHIFT: usize = STEP - SEGMENT_BYTES;
    (before + SHIFT) ^ (now + SHIFT) >= STEP
}

impl Remote {
    pub(crate) fn new(uplink: Arc<Uplink>) -> Self {
        Self {
            uplink,
            known: Cell::default(),
        }
    }

    /// As [`Uplink::publish`].
    pub(crate) fn publish(
        &self,
        message: &Message<'_>,
        draft: &fastmq_memory::Draft<'_>,
        publisher: u64,
    ) -> Result<()> {
        self.uplink.publish(&self.known, message, draft, publisher)
    }

    /// Publishes a payload with a sequence, or 0 for none, if its subject has a number and there is
    /// room; false: it has done nothing.
    #[inline(always)]
    pub(crate) fn publish_usual(&self, payload: &[u8], sequence: u64, publisher: u64) -> bool {
        let (uplink, known) = (&*self.uplink, self.known.get());
        let mut state = uplink.state();
        let counted = if sequence > 0 { publisher } else { 0 };
        if !state.is_current(known) || known.publisher != counted {
            return false;
        }
        let before = state.out.len();
        let mut sent = Draft::message(0, Subject::Alias(known.alias), payload);
        sent.sequence = (sequence > 0).then_some(sequence);
        if state.append(&sent).is_err() {
            return false;
        }
        uplink.published(state, before);
        true
    }

    /// Publishes payloads whose sequences count from `sequence` on, as far as
    /// [`publish_usual`](Remote::publish_usual) would; how many.
    pub(crate) fn publish_run(&self, payloads: &[&[u8]], sequence: u64, publisher: u64) -> usize {
        let (uplink, known) = (&*self.uplink, self.known.get());
        let mut state = uplink.state();
        if !state.is_current(known) || known.publisher != publisher {
            return 0;
        }
        let before = state.out.len();
        let (payload_max, mut left) = (state.numbered_payload_max(), state.left());
        let mut sent = 0;
        for payload in payloads {
            let mut draft = Draft::message(0, Subject::Alias(known.alias), payload);
            draft.sequence = Some(sequence + sent as u64);
            let size = draft.size();
            if payload.len() > payload_max || size > left {
                break;
            }
            if frames::append(&draft, &mut state.out).is_err() {
                break;
            }
            left -= size;
            sent += 1;
        }
        let appended = state.out.len() - before;
        let is_granted = state.credit.take(appended);
        debug_assert!(is_granted, "it was looked at before");
        if sent > 0 {
            uplink.published(state, before);
        }
        sent
    }

    /// As [`Uplink::request`].
    pub(crate) fn request(
        &self,
        message: &Message<'_>,
        draft: &fastmq_memory::Draft<'_>,
    ) -> Result<Fate> {
        let asked = self.uplink.request(&self.known, message, draft, None);
        asked.map(|(fate, _)| fate)
    }

    /// As [`Uplink::request`], for several answers. UNSUPPORTED: the server has no such requests.
    pub(crate) fn request_many(
        &self,
        message: &Message<'_>,
        draft: &fastmq_memory::Draft<'_>,
        many: Many,
    ) -> Result<(Fate, u32)> {
        self.uplink.request(&self.known, message, draft, Some(many))
    }

    /// Asks with a payload, if the subject has a number and there is room; false: it has done
    /// nothing.
    #[inline(never)]
    pub(crate) fn request_usual(&self, payload: &[u8], token: u64) -> bool {
        let (uplink, known) = (&*self.uplink, self.known.get());
        if uplink.is_here() {
            return false;
        }
        let mut state = uplink.state();
        if !state.is_current(known) || known.publisher != 0 {
            return false;
        }
        let before = state.out.len();
        if !state.ask(known.alias, payload, token) {
            return false;
        }
        uplink.requested(state, before);
        true
    }
}

/// The fields that publishes and requests have in common.
fn fill<'m>(
    mut sent: Draft<'m>,
    message: &Message<'m>,
    draft: &fastmq_memory::Draft<'m>,
) -> Draft<'m> {
    sent.ttl_ns = (message.ttl_ns > 0).then_some(message.ttl_ns);
    sent.timestamp_ns = (draft.timestamp > 0).then_some(draft.timestamp);
    sent.reply_to = message.reply_to;
    sent.key = message.key;
    sent.headers = message.headers;
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_sent_once_and_then_each_64_kib() {
        let sent: Vec<usize> = (1..300)
            .filter(|kib| is_much((kib - 1) << 10, kib << 10))
            .collect();
        assert_eq!(sent, [60, 124, 188, 252]);
        assert!(is_much(0, 200 << 10) && !is_much(61 << 10, 61 << 10));
    }
}

//! Requests for several answers of which a server knows the responders.
//!
//! For the asker's queue all of its responders are one leg of its `survey`: the server counts
//! them, and says with MORE that something is still to come. A reply whose queue is full waits
//! here, and those of the same asker behind it: there are no more of them than the asker granted,
//! if the server keeps to that, and no more than [`HELD_BYTES_MAX`] if it does not.

use std::collections::{HashMap, VecDeque};

use fastmq_driver::FOREVER_NS;
use fastmq_memory::allocation::try_bytes;
use fastmq_memory::record::flag;
use fastmq_memory::{Draft, Kind as RecordKind};
use fastmq_wire::{Field, Kind, Message};

use crate::error::{Error, Fault, Result, Status};
use crate::route::{Group, LaneTarget};
use crate::survey::{CREDIT_MAX, LEG};
use crate::writer::{Writer, count};

use super::Uplink;
use super::deliver::RETRY_NS;
use super::session::Session;
use super::state::Phase;

/// What an asker knows of a request at the server.
#[derive(Debug, Default)]
pub(crate) struct Far {
    /// Its number on the connection.
    pub(crate) correlation: u32,
    /// Replies that were received of each responder.
    received: Vec<(u32, u64)>,
    /// Replies that each was granted for those.
    returned: u64,
}

impl Far {
    pub(crate) fn new(correlation: u32) -> Self {
        Self {
            correlation,
            ..Self::default()
        }
    }

    /// A reply was received. How many to grant in its place, if it is time for that: a grant is for
    /// every responder, so the one that has sent most decides.
    pub(crate) fn receive(&mut self, responder: u32, batch: u32) -> Option<u32> {
        let known = self.received.iter_mut().find(|(it, _)| *it == responder);
        let replies = match known {
            Some((_, replies)) => {
                *replies += 1;
                *replies
            }
            None => {
                // Without memory its replies bring no credit.
                self.received.try_reserve(1).ok()?;
                self.received.push((responder, 1));
                1
            }
        };
        let missing = replies.saturating_sub(self.returned);
        if batch == 0 || missing < u64::from(batch) {
            return None;
        }
        let granted = missing.min(u64::from(CREDIT_MAX));
        self.returned += granted;
        Some(granted as u32)
    }
}

impl Uplink {
    /// Grants more replies to each stream of a request. Without memory they wait for the next one.
    pub(crate) fn grant(&self, correlation: u32, replies: u32) {
        let mut state = self.state();
        if state.phase == Phase::Online && state.asked.get(correlation).is_some() {
            let field = Some((Field::Replies, u64::from(replies)));
            let _ = state.control(Kind::Grant, (correlation, 0), field);
        }
        drop(state);
        self.nudge();
    }

    /// Ends a request at the server; what still comes of it finds nobody.
    pub(crate) fn cancel(&self, correlation: u32) {
        let mut state = self.state();
        if state.asked.take(correlation).is_some() && state.phase == Phase::Online {
            // Without memory its time-out ends it.
            let _ = state.control(Kind::Cancel, (correlation, 0), None);
        }
        drop(state);
        self.nudge();
    }
}

/// Bytes of replies that may wait for room, of all askers.
const HELD_BYTES_MAX: usize = 8 << 20;
/// What each counts beside its payload and headers.
const HELD_BYTES: usize = 64;

const HELD_FULL: Error = Error::new(&Fault(
    Status::Busy,
    "too many replies wait for room in their askers' queues",
));

/// A reply whose asker has no room.
struct Held {
    token: u64,
    status: u16,
    is_more: bool,
    responder: u32,
    payload: Box<[u8]>,
    headers: Box<[u8]>,
}

impl Held {
    fn bytes(&self) -> usize {
        HELD_BYTES + self.payload.len() + self.headers.len()
    }

    fn draft(&self) -> Draft<'_> {
        draft(
            self.token,
            self.status,
            self.is_more,
            &self.payload,
            &self.headers,
        )
    }
}

fn draft<'m>(
    token: u64,
    status: u16,
    is_more: bool,
    payload: &'m [u8],
    headers: &'m [u8],
) -> Draft<'m> {
    let more = if is_more { flag::MORE } else { 0 };
    let sizes = if headers.is_empty() { 0 } else { flag::SIZES };
    Draft {
        kind: RecordKind::Reply,
        flags: flag::TOKEN | more | sizes,
        status,
        token,
        payload,
        headers,
        ..Draft::default()
    }
}

/// Replies that wait for room, by requester.
#[derive(Default)]
pub(super) struct HeldReplies {
    by_requester: HashMap<u32, VecDeque<Held>>,
    bytes: usize,
}

impl HeldReplies {
    /// When to try again.
    pub(super) fn retry_at_ns(&self, now_ns: u64) -> u64 {
        match self.by_requester.is_empty() {
            true => FOREVER_NS,
            false => now_ns + RETRY_NS,
        }
    }

    fn hold(&mut self, draft: &Draft<'_>, responder: u32) -> Result<()> {
        let bytes = HELD_BYTES + draft.payload.len() + draft.headers.len();
        if self.bytes + bytes > HELD_BYTES_MAX {
            return Err(HELD_FULL);
        }
        let held = Held {
            token: draft.token,
            status: draft.status,
            is_more: draft.flags & flag::MORE != 0,
            responder,
            payload: try_bytes(draft.payload)?,
            headers: try_bytes(draft.headers)?,
        };
        let requester = (draft.token >> 32) as u32;
        let reserved = self.by_requester.try_reserve(1);
        reserved.map_err(|_| Error::NO_MEMORY)?;
        let queue = self.by_requester.entry(requester).or_default();
        queue.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        queue.push_back(held);
        self.bytes += bytes;
        Ok(())
    }
}

/// Writes a reply into its asker's queue; false: that is full.
fn write(writer: &Writer, draft: &Draft<'_>, responder: u32) -> Result<bool> {
    writer.sweep_if_crowded();
    let place = writer
        .broker()
        .requester_place((draft.token >> 32) as u32)?;
    let target = LaneTarget {
        lane: writer.lane_to(&place)?,
        subscription: responder,
    };
    match writer.send_any::<Group>(&[target], &[], &crate::Message::default(), draft) {
        Ok(_) => {
            count(&writer.counters.answers, 1);
            Ok(true)
        }
        Err(error) if error.status() == Status::Again => Ok(false),
        Err(error) => Err(error),
    }
}

impl Session {
    /// One of the replies to a request for many; the last one if it does not say MORE.
    pub(super) fn on_reply_of_many(&mut self, token: u64, message: &Message<'_>) {
        let draft = draft(
            token,
            u16::from(message.status()),
            message.is_more(),
            message.payload(),
            message.headers(),
        );
        self.pass_on(&draft, message.responder(), message.correlation());
    }

    /// The server's last word on a request for many.
    pub(super) fn end_many(&mut self, token: u64, status: u32, payload: &[u8]) {
        debug_assert!(token as u32 & LEG != 0, "a request for one");
        self.pass_on(&draft(token, status as u16, false, payload, &[]), 0, 0);
    }

    fn pass_on(&mut self, draft: &Draft<'_>, responder: u32, number: u32) {
        let requester = (draft.token >> 32) as u32;
        let is_behind = self.held_replies.by_requester.contains_key(&requester);
        let passed = match is_behind {
            true => Ok(false),
            false => write(&self.writer, draft, responder),
        };
        let passed = match passed {
            Ok(false) => self.held_replies.hold(draft, responder),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = passed {
            self.drop_reply(draft.token, number, &error);
        }
    }

    /// A reply cannot be passed on: its request ends with that, unless the asker has gone.
    #[cold]
    fn drop_reply(&self, token: u64, number: u32, error: &Error) {
        self.uplink.cancel(number);
        if !matches!(error.status(), Status::NotFound | Status::Closed) {
            self.writer.broker().answer_late(token, error.status());
        }
    }

    /// Tries again what waits for room.
    #[inline]
    pub(super) fn retry_replies(&mut self) {
        if !self.held_replies.by_requester.is_empty() {
            self.retry_held_replies();
        }
    }

    #[cold]
    fn retry_held_replies(&mut self) {
        let writer = &self.writer;
        let mut dropped = Vec::new();
        let HeldReplies {
            by_requester,
            bytes,
        } = &mut self.held_replies;
        by_requester.retain(|_, queue| {
            while let Some(held) = queue.front() {
                match write(writer, &held.draft(), held.responder) {
                    Ok(false) => return true,
                    Ok(true) => {}
                    // Without memory its time-out ends the request.
                    Err(error) if dropped.try_reserve(1).is_ok() => {
                        dropped.push((held.token, error));
                    }
                    Err(_) => {}
                }
                *bytes -= held.bytes();
                queue.pop_front();
            }
            false
        });
        for (token, error) in dropped {
            self.drop_reply(token, 0, &error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_that_has_sent_most_decides_what_is_granted() {
        let mut far = Far::new(7);
        let grants = |far: &mut Far, responder, count: u32| -> Vec<u32> {
            (0..count)
                .filter_map(|_| far.receive(responder, 4))
                .collect()
        };
        assert_eq!(grants(&mut far, 1, 3), []);
        assert_eq!(grants(&mut far, 2, 3), [], "each by itself");
        assert_eq!(grants(&mut far, 2, 1), [4]);
        assert_eq!(grants(&mut far, 1, 4), [], "it was granted those already");
        assert_eq!(grants(&mut far, 1, 4), [4]);
        assert_eq!(
            far.receive(3, 0),
            None,
            "without streams nothing is granted"
        );
    }

    #[test]
    fn replies_are_held_up_to_a_bound_whoever_asked() {
        let payload = vec![0; (1 << 20) - HELD_BYTES];
        let mut held = HeldReplies::default();
        let mut hold = |requester: u64, payload| {
            held.hold(&draft(requester << 32 | 1, 0, true, payload, &[]), 1)
        };
        for requester in 1..=8 {
            hold(requester % 3, &payload).unwrap();
        }
        assert_eq!(hold(1, &[]).unwrap_err().status(), Status::Busy);
        assert_eq!(held.bytes, HELD_BYTES_MAX);
    }
}

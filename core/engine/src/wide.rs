//! The short way of a usual message to many queues, when all are known to have room.
//!
//! All or nothing asks every target before the message is written to any. A handle that sends the
//! same way again and again need not ask each time: `Many::room` says how many bytes each of its
//! lanes still has, and only the handle's own messages take from that. Whoever sends another way
//! along the same route calls [`Many::forget_room`] first. Not here: groups, queues that evict, and
//! lanes that other subjects of a writer may fill.

use fastmq_memory::record::{Kind, Plain};
use fastmq_memory::{Policy, Refused, Tried};

use crate::delivery::FAN_OUT_BYTES;
use crate::route::{LaneTarget, Many};
use crate::writer::{Lanes, Writer};

/// With as many targets their lanes no longer stay in a near cache, and the memory of each is asked
/// for by [`expect`].
pub(crate) const EXPECTED_MIN: usize = 512;
/// In two steps, so many pushes ahead.
const EXPECTED_FAR: usize = 16;
const EXPECTED_NEAR: usize = 8;

/// Before the push to target `at` of many: asks for the memory of those that come after it.
#[inline(always)]
pub(crate) fn expect(lanes: &mut Lanes, plain: &[LaneTarget], at: usize) {
    if let Some(far) = plain.get(at + EXPECTED_FAR)
        && let Some(lane) = lanes.get(far.lane)
    {
        lane.writer.expect_far();
    }
    if let Some(near) = plain.get(at + EXPECTED_NEAR)
        && let Some(lane) = lanes.get(near.lane)
    {
        lane.writer.expect_near();
    }
}

impl Writer {
    /// Sends a usual message to all targets of a route; false: nothing was done, ask each.
    #[inline(never)]
    pub(crate) fn send_wide(
        &self,
        many: &Many,
        subject: &[u8],
        payload: &[u8],
        flags: u16,
        sequence: u64,
    ) -> bool {
        let is_plain = many.groups.is_empty() && many.latest.is_empty() && many.inline.is_empty();
        if self.label.is_none() || payload.len() > FAN_OUT_BYTES || !is_plain {
            return false;
        }
        let plain = &Plain {
            kind: Kind::Message,
            flags,
            status: 0,
            word: sequence,
            subject,
            payload,
        };
        let step = plain.labelled_step();
        if many.room.get() < step && !self.ask_all(many, step) {
            return false;
        }
        many.room.set(many.room.get() - step);
        self.push_all(many, plain);
        true
    }

    /// Asks every lane for its room.
    fn ask_all(&self, many: &Many, step: u64) -> bool {
        let mut lanes = self.lanes.borrow_mut();
        let mut room = u64::MAX;
        let mut last = None;
        for target in &many.plain {
            let Some(lane) = lanes.get(target.lane) else {
                return false;
            };
            let is_other = last.replace(target.lane) != Some(target.lane);
            if !is_other || lane.writer.policy() != Policy::Backpressure {
                return false;
            }
            room = room.min(lane.writer.room(step));
            if room < step {
                return false;
            }
        }
        many.room.set(room);
        !many.plain.is_empty()
    }

    fn push_all(&self, many: &Many, plain: &Plain<'_>) {
        let plain_targets = &many.plain[..];
        let is_expected = plain_targets.len() >= EXPECTED_MIN;
        let mut lanes = self.lanes.borrow_mut();
        for (at, target) in plain_targets.iter().enumerate() {
            if is_expected {
                expect(&mut lanes, plain_targets, at);
            }
            let Some(lane) = lanes.get(target.lane) else {
                continue;
            };
            let refused = match lane.writer.try_plain(plain, target.subscription) {
                Tried::Written => continue,
                Tried::Unnoticed => lane.writer.notify().err(),
                // Never: the lane said that it has room. The message is not lost if it has some.
                Tried::Not => lane.writer.push_plain(plain, target.subscription).err(),
            };
            if refused == Some(Refused::Unread) {
                drop(lanes);
                self.empty_closed(target.lane);
                lanes = self.lanes.borrow_mut();
            }
        }
    }
}

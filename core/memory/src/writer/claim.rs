//! Messages that a writer makes in its own lane, where their reader will see them.
//!
//! A claim is the room behind the lane's last record, which is the writer's anyway. So nothing
//! keeps it: what is pushed meanwhile is written over it.

use super::{LaneWriter, Refused, Tried};
use crate::record::Plain;

impl LaneWriter {
    /// Makes room for a plain message whose payload of `size` bytes is written in place:
    /// [`LaneWriter::claimed`] lends the bytes, [`LaneWriter::commit`] publishes them. To abandon
    /// it, do neither.
    ///
    /// `plain` says the rest of the message. False: there is no own lane with the subject, or a
    /// loss has to be told; write the message elsewhere and push it.
    pub fn claim(&mut self, plain: &Plain<'_>, size: usize) -> Result<bool, Refused> {
        if self.queue.is_closed() {
            return Err(Refused::Closed);
        }
        if self.own.is_none() && self.is_ready_for_own() {
            self.move_to_own();
        }
        match &mut self.own {
            Some(own) => Ok(own.producer.claim(plain, size)?),
            None => Ok(false),
        }
    }

    /// The payload at once, if the writer's own lane has room that is known to be free.
    #[inline(always)]
    pub fn try_claim(&mut self, plain: &Plain<'_>, size: usize) -> Option<&mut [u8]> {
        self.own.as_mut()?.producer.try_claim(plain, size)
    }

    /// The payload of a message for which `claim` has said yes, with the same arguments; nothing
    /// was pushed since. Empty if there is no own lane.
    ///
    /// # Panics
    /// The lane has no such room.
    #[inline(always)]
    pub fn claimed(&mut self, plain: &Plain<'_>, size: usize) -> &mut [u8] {
        match &mut self.own {
            Some(own) => own.producer.claimed(plain, size),
            None => &mut [],
        }
    }

    /// Publishes the first `size` bytes of what was claimed. `Not`: there is no own lane.
    ///
    /// # Panics
    /// The lane has no such room.
    #[inline(always)]
    pub fn commit(&mut self, plain: &Plain<'_>, size: usize, subscription: u32) -> Tried {
        let Some(own) = &mut self.own else {
            return Tried::Not;
        };
        own.producer.commit(plain, size, subscription);
        own.producer.publish();
        if self.queue.needs_no_notice() {
            Tried::Written
        } else {
            Tried::Unnoticed
        }
    }

    /// Bytes of plain records that the writer's own lane takes for certain, if it takes one of
    /// `step` bytes; else 0. Only this writer's pushes make it less.
    pub fn room(&mut self, step: u64) -> u64 {
        match &mut self.own {
            Some(own) => own.producer.room(step),
            None => 0,
        }
    }
}

//! Promises: room that is kept in every target before a message is written to any of them.

use std::borrow::Borrow;

use fastmq_memory::record::{DESCRIPTOR_BYTES, flag};
use fastmq_memory::{Draft, LaneWriter, Policy, Refused};

use crate::delivery::{Attempt, Choice};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::route::{Group, LaneTarget};
use crate::writer::Writer;

impl Writer {
    /// Promises room in every backpressure target, or in none; says which member of each group it
    /// is promised in.
    pub(crate) fn promise<G: Borrow<Group>>(
        &self,
        plain: &[LaneTarget],
        groups: &[G],
        message: &Message<'_>,
        draft: &Draft<'_>,
    ) -> Result<Vec<Choice>> {
        let mut chosen = Vec::new();
        chosen
            .try_reserve_exact(groups.len())
            .map_err(|_| Error::NO_MEMORY)?;
        let mut reserved = 0;
        for run in plain.chunk_by(|a, b| a.lane == b.lane) {
            if let Err(error) = self.reserve(run[0].lane, draft, run.len() as u64) {
                self.take_back(&plain[..reserved], &chosen);
                return Err(error);
            }
            reserved += run.len();
        }
        for group in groups {
            match self.send_to_group(group.borrow(), message, draft, Attempt::Reserve) {
                Ok((choice, _)) => chosen.push(choice),
                Err(error) => {
                    self.take_back(plain, &chosen);
                    return Err(error);
                }
            }
        }
        Ok(chosen)
    }

    /// Takes promises back: those of plain targets, and those of the chosen members.
    pub(crate) fn take_back(&self, plain: &[LaneTarget], chosen: &[Choice]) {
        for target in plain {
            self.cancel(target.lane);
        }
        for choice in chosen {
            if let Choice::Lane(target) = choice {
                self.cancel(target.lane);
            }
        }
    }

    pub(crate) fn reserve(&self, lane: u32, draft: &Draft<'_>, copies: u64) -> Result<()> {
        let mut lanes = self.lanes.borrow_mut();
        let Some(lane) = lanes.get(lane) else {
            return Ok(());
        };
        if lane.writer.policy() != Policy::Backpressure {
            // Nothing is promised; but what could only be dropped goes by block.
            return match is_hopeless(&lane.writer, draft) {
                true => Err(self.refuse(Refused::TooLarge, &lane.place)),
                false => Ok(()),
            };
        }
        match lane.writer.reserve(draft, copies) {
            Ok(()) | Err(Refused::Closed | Refused::Unread) => Ok(()),
            Err(refused) => Err(self.refuse(refused, &lane.place)),
        }
    }

    pub(crate) fn cancel(&self, lane: u32) {
        if let Some(lane) = self.lanes.borrow_mut().get(lane) {
            lane.writer.cancel();
        }
    }
}

/// True if the lane could never hold the record, and a descriptor may do.
pub(crate) fn is_hopeless(writer: &LaneWriter, draft: &Draft<'_>) -> bool {
    draft.flags & flag::BLOCK == 0
        && draft.payload.len() > DESCRIPTOR_BYTES
        && !writer.can_hold(draft)
}

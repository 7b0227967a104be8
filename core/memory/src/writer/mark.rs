//! How far the records of one writer in a queue have got, and what was lost before they came.

use super::LaneWriter;
use crate::queue::After;

/// What one writer had pushed into a queue at some time.
#[derive(Clone, Debug)]
pub struct Mark([Option<After>; 2]);

impl Mark {
    /// True once all of it has left the queue: the batches that showed it have ended. In a queue
    /// whose policy evicts, a message leaves before that.
    pub fn is_past(&self) -> bool {
        let has_left = |after: &After| after.state.gone() >= after.count;
        self.0.iter().flatten().all(has_left)
    }
}

impl LaneWriter {
    /// What this writer has pushed so far.
    pub fn mark(&self) -> Mark {
        let own = self.own.as_ref().map(|own| After {
            state: own.producer.state().clone(),
            count: own.producer.pushed(),
        });
        // What is in the own lane comes after this, but there may be nothing yet.
        let shared = self.last_shared.as_ref().map(|(state, count)| After {
            state: state.clone(),
            count: *count,
        });
        Mark([own, shared])
    }

    /// Counts messages that were lost on their way here: the next record tells them.
    pub fn note_lost(&mut self, lost: u64) {
        match &mut self.own {
            Some(own) => own.producer.add_lost(lost),
            None => self.lost += lost,
        }
    }

    /// True if all that this writer has put into the queue was taken and released, and no loss of
    /// its is left for a record to tell: what it says past the queue now overtakes nothing.
    #[inline(always)]
    pub fn has_nothing_before(&self) -> bool {
        let is_shared_out = match &self.last_shared {
            Some((state, count)) => state.gone() >= *count,
            None => true,
        };
        let is_own_out = match &self.own {
            Some(own) => own.producer.is_drained() && own.producer.has_told_all(),
            None => true,
        };
        is_shared_out && is_own_out && self.lost == 0
    }
}

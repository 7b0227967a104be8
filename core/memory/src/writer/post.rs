//! Records of the library's own, which nobody waits for.

use super::{LaneWriter, Pushed, Refused};
use crate::queue::Queue;
use crate::record::Draft;
use crate::sync::lock;

impl Queue {
    /// Writes one message into the shared lane. If there is no room for it, it is dropped and
    /// counted, whatever the queue's policy: nobody waits, and nothing else is evicted. So all that
    /// is posted by whoever does so one at a time comes out in that order.
    ///
    /// Nobody is woken, so that locks may be held: [`Queue::notify_reader`] comes next.
    ///
    /// # Errors
    /// The queue is closed.
    pub fn post(&self, draft: &Draft<'_>, subscription: u32) -> Result<Pushed, Refused> {
        if self.is_closed() {
            return Err(Refused::Closed);
        }
        let mut shared = match LaneWriter::lock_shared(self) {
            Ok(shared) => shared,
            Err(Refused::Closed) => return Err(Refused::Closed),
            // There is no memory for the first lane.
            Err(_) => {
                lock(self.shared()).lost += 1;
                return Ok(Pushed::Dropped);
            }
        };
        let (spare, lost) = (shared.reserved, std::mem::take(&mut shared.lost));
        let end = shared.end.as_mut().ok_or(Refused::Closed)?;
        end.producer.add_lost(lost);
        let step = end.producer.step(draft);
        let is_written = end.producer.reserve(step, spare).is_ok();
        if is_written {
            end.producer.write(draft, subscription);
            end.producer.publish();
        } else {
            end.producer.count_lost();
        }
        shared.lost = end.producer.take_lost();
        Ok(if is_written {
            Pushed::Written
        } else {
            Pushed::Dropped
        })
    }
}

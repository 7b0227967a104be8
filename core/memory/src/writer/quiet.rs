//! Messages that their reader sees together.

use crate::record::{Draft, Plain};

use super::{LaneWriter, Pushed, Refused};

impl LaneWriter {
    /// As [`LaneWriter::try_plain`]; the reader sees it only after [`LaneWriter::publish`]. False:
    /// it has done nothing.
    #[inline(always)]
    pub fn try_plain_quiet(&mut self, plain: &Plain<'_>, subscription: u32) -> bool {
        self.own
            .as_mut()
            .is_some_and(|own| own.producer.try_plain(plain, subscription))
    }

    /// As [`try_plain_quiet`](Self::try_plain_quiet) for one after the other, until one needs more;
    /// how many.
    #[inline(always)]
    pub fn try_plains_quiet<'p>(
        &mut self,
        plains: impl Iterator<Item = Plain<'p>>,
        subscription: u32,
    ) -> usize {
        let own = self.own.as_mut();
        own.map_or(0, |own| own.producer.try_plains(plains, subscription))
    }

    /// Writes one plain message; the reader sees it only after [`LaneWriter::publish`].
    #[inline(always)]
    pub fn push_plain_quiet(
        &mut self,
        plain: &Plain<'_>,
        subscription: u32,
    ) -> Result<Pushed, Refused> {
        if self.try_plain_quiet(plain, subscription) {
            return Ok(Pushed::Written);
        }
        self.push_quiet(&plain.draft(), subscription)
    }

    /// Writes one message; the reader sees it only after [`LaneWriter::publish`].
    #[inline(always)]
    pub fn push_quiet(&mut self, draft: &Draft<'_>, subscription: u32) -> Result<Pushed, Refused> {
        if let Some(own) = &mut self.own {
            let step = own.producer.step(draft);
            if own.producer.reserve(step, 0).is_ok() {
                own.producer.write(draft, subscription);
                return Ok(Pushed::Written);
            }
            own.producer.publish();
        }
        self.push_slow(draft, subscription)
    }

    /// Publishes what `push_quiet` wrote. `Closed` if nobody will read it.
    #[inline(always)]
    pub fn publish(&mut self) -> Result<(), Refused> {
        if let Some(own) = &mut self.own {
            own.producer.publish();
        }
        self.notify().map(|_| ())
    }
}

//! Latest queues as a writer sees them: one slot for each subject of a subscription.
//!
//! A route holds its slots itself, so that an update looks nothing up: it is one short lock of the
//! slot, which is shared with the slot's reader and with other writers of the subject only.
//! Such a queue is never full, so nothing is reserved: its updates come after all that may refuse.

use std::sync::Arc;

use fastmq_memory::allocation::try_box;
use fastmq_memory::latest::{NoSlot, SUBJECTS_MAX};
use fastmq_memory::record::flag;
use fastmq_memory::{Draft, Kind, Plain, Policy, Pushed, Refused, SlotWriter};

use crate::delivery::block_refused;
use crate::error::{Error, Fault, Result, Status};
use crate::place::Place;
use crate::route::{Targets, add};
use crate::subscription::Entry;
use crate::writer::{BLOCK_BYTES, Writer};

/// A slot that a route leads to, and the queue that it belongs to.
#[derive(Debug)]
pub(crate) struct LatestTarget {
    slot: SlotWriter,
    place: Arc<Place>,
    subscription: u32,
}

impl LatestTarget {
    /// The slot of a subject of a subscription, for a writer whose sequences `publisher` counts.
    pub(crate) fn new(
        entry: &Entry,
        place: &Arc<Place>,
        subject: &[u8],
        publisher: u64,
    ) -> Result<Self> {
        Self::of(entry.id(), place, subject, publisher)
    }

    /// The same by the subscription's number.
    pub(crate) fn of(
        subscription: u32,
        place: &Arc<Place>,
        subject: &[u8],
        publisher: u64,
    ) -> Result<Self> {
        let slot = place.lanes.latest_slot(subscription, subject, publisher);
        Ok(Self {
            slot: slot.map_err(no_slot)?,
            place: place.clone(),
            subscription,
        })
    }
}

impl Place {
    /// What happens when it is full.
    pub(crate) fn policy(&self) -> Policy {
        self.lanes.policy()
    }

    /// True if it keeps one message for each subject.
    #[inline]
    pub(crate) fn is_latest(&self) -> bool {
        self.policy() == Policy::Latest
    }
}

#[cold]
fn no_slot(error: NoSlot) -> Error {
    match error {
        NoSlot::TooMany => Error::with(
            &Fault(Status::NoSpace, "a latest queue has too many subjects"),
            format_args!("a latest queue has {SUBJECTS_MAX} subjects already, and keeps no more"),
        ),
        NoSlot::OverBudget => Error::OVER_BUDGET,
        NoSlot::NoMemory => Error::NO_MEMORY,
    }
}

impl Writer {
    /// Puts a usual message into the only slot of a route.
    #[inline(always)]
    pub(crate) fn put_usual(
        &self,
        target: &LatestTarget,
        payload: &[u8],
        flags: u16,
        sequence: u64,
    ) -> Result<()> {
        let plain = Plain {
            kind: Kind::Message,
            flags,
            status: 0,
            word: sequence,
            subject: &[],
            payload,
        };
        let put = target.slot.put_plain(&plain);
        if put != Ok(Pushed::Written) {
            self.note_put(target, put)?;
        }
        self.count_call(&self.counters.published);
        Ok(())
    }

    /// Puts a message into the only slot of a route.
    pub(crate) fn put_one(&self, target: &LatestTarget, draft: &Draft<'_>) -> Result<()> {
        self.with_block(draft, 1, |draft| {
            let put = target.slot.put(draft);
            let held = u32::from(is_held(put));
            (held, self.note_put(target, put))
        })?
    }

    /// Puts a message into one slot, in whose place others were elsewhere before.
    pub(crate) fn put_replacing(
        &self,
        target: &LatestTarget,
        draft: &Draft<'_>,
        replaced: u64,
    ) -> Result<()> {
        if replaced > 0 {
            target.slot.note_replaced(replaced);
        }
        self.put_one(target, draft)
    }

    /// Puts a message into several slots. The others have it: where memory is missing it is
    /// dropped, and counted.
    pub(crate) fn put_all(&self, targets: &[LatestTarget], draft: &Draft<'_>) {
        let references = targets.len() as u32;
        let put = self.with_block(draft, references, |draft| {
            let mut held = 0;
            for target in targets {
                let put = target.slot.put(draft);
                if self.note_put(target, put).is_err() {
                    self.drop_update(target);
                }
                held += u32::from(is_held(put));
            }
            (held, ())
        });
        if put.is_err() {
            targets.iter().for_each(|target| self.drop_update(target));
        }
    }

    /// Runs `put` with a draft whose payload is in a block if it is large. `put` says how many
    /// references it has taken.
    fn with_block<R>(
        &self,
        draft: &Draft<'_>,
        references: u32,
        put: impl FnOnce(&Draft<'_>) -> (u32, R),
    ) -> Result<R> {
        if draft.payload.len() <= BLOCK_BYTES {
            return Ok(put(draft).1);
        }
        let blocks = &self.broker.blocks;
        let written = blocks.write(draft.payload, references);
        let descriptor = written.map_err(block_refused)?;
        let bytes = descriptor.to_bytes();
        let mut by_block = *draft;
        by_block.payload = &bytes;
        by_block.flags |= flag::BLOCK;
        let (held, result) = put(&by_block);
        blocks.release(&descriptor, references - held);
        Ok(result)
    }

    #[cold]
    fn drop_update(&self, target: &LatestTarget) {
        target.slot.count_dropped();
        self.count_dropped(target.subscription);
    }

    /// Turns a refusal into an error; a queue that was closed beside the put is emptied again.
    #[inline]
    fn note_put(
        &self,
        target: &LatestTarget,
        put: std::result::Result<Pushed, Refused>,
    ) -> Result<()> {
        match put {
            Ok(_) => Ok(()),
            Err(Refused::Unread | Refused::Closed) => {
                target.place.finish(&self.broker);
                Ok(())
            }
            Err(refused) => Err(self.refuse(refused, &target.place)),
        }
    }
}

/// True if the slot has the message, and with it a reference to its block.
fn is_held(put: std::result::Result<Pushed, Refused>) -> bool {
    matches!(put, Ok(_) | Err(Refused::Unread))
}

/// Adds a slot to the targets of its subject.
pub(crate) fn add_latest(targets: &mut Targets, target: LatestTarget) -> Result<()> {
    if let Targets::Nobody = targets {
        *targets = Targets::Latest(try_box(target)?);
        return Ok(());
    }
    let mut many = std::mem::take(targets).into_many()?;
    add(&mut many.latest, target)?;
    *targets = Targets::Many(many);
    Ok(())
}

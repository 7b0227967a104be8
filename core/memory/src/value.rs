//! A message without its subject, kept in memory of its own: what a slot holds, and what is kept
//! as the last value of a subject.

use crate::allocation::NoMemory;
use crate::arena::Region;
use crate::block::{BlockRef, Descriptor};
use crate::budget::Budget;
use crate::queue::Queue;
use crate::record::{Draft, Plain, flag};
use crate::view::{Field, View};
use crate::words::copy;
use crate::writer::Refused;

/// The smallest buffer that is not empty.
const BUFFER_BYTES_MIN: usize = 64;

/// The message: payload, reply address, key and headers stand one after another in the buffer.
#[derive(Default)]
pub(crate) struct Value {
    /// Grows and never shrinks.
    buffer: Region,
    payload: usize,
    reply_to: usize,
    key: usize,
    headers: usize,
    flags: u16,
    sequence: u64,
    publisher: u64,
    timestamp: u64,
    expiry: u64,
    /// Where the payload is, if not in the buffer; this is a reference to it.
    block: Option<Descriptor>,
}

impl Value {
    #[inline(always)]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.bytes()
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.payload + self.reply_to + self.key + self.headers) as u64
    }

    /// Bytes of the buffer that a message needs.
    pub(crate) fn size_of(draft: &Draft<'_>) -> usize {
        let payload = match draft.flags & flag::BLOCK {
            0 => draft.payload.len(),
            _ => 0,
        };
        payload + draft.reply_to.len() + draft.key.len() + draft.headers.len()
    }

    /// Makes the buffer large enough; what is in it may be gone then.
    #[inline(always)]
    pub(crate) fn grow(&mut self, size: usize, budget: &Budget) -> Result<(), Refused> {
        if size <= self.capacity() {
            return Ok(());
        }
        self.replace_buffer(size, budget)
    }

    #[cold]
    fn replace_buffer(&mut self, size: usize, budget: &Budget) -> Result<(), Refused> {
        let bytes = size.next_power_of_two().max(BUFFER_BYTES_MIN);
        let reserved = budget.reserve(bytes as u64);
        reserved.map_err(|_| Refused::OverBudget)?;
        let arena = budget.arena();
        let buffer = Region::take(arena, bytes, 0).map_err(|NoMemory| {
            budget.release(bytes as u64);
            match arena {
                Some(_) => Refused::OverBudget,
                None => Refused::NoMemory,
            }
        })?;
        let old_bytes = self.capacity() as u64;
        self.buffer = buffer;
        budget.release(old_bytes);
        Ok(())
    }

    /// Takes a message; the buffer is large enough, and what was there refers to no block.
    pub(crate) fn set(&mut self, draft: &Draft<'_>, publisher: u64) {
        let (payload, block) = match draft.payload.try_into() {
            Ok(bytes) if draft.flags & flag::BLOCK != 0 => {
                (&[][..], Some(Descriptor::from_bytes(bytes)))
            }
            _ => (draft.payload, None),
        };
        let mut at = 0;
        for part in [payload, draft.reply_to, draft.key, draft.headers] {
            self.write(at, part);
            at += part.len();
        }
        self.payload = payload.len();
        self.reply_to = draft.reply_to.len();
        self.key = draft.key.len();
        self.headers = draft.headers.len();
        self.flags = draft.flags;
        self.sequence = draft.sequence;
        self.publisher = publisher;
        self.timestamp = draft.timestamp;
        self.expiry = draft.expiry;
        self.block = block;
    }

    /// As [`Value::set`] for a plain message.
    #[inline(always)]
    pub(crate) fn set_plain(&mut self, plain: &Plain<'_>, publisher: u64) {
        self.write(0, plain.payload);
        self.payload = plain.payload.len();
        (self.reply_to, self.key, self.headers) = (0, 0, 0);
        self.flags = plain.flags;
        self.sequence = plain.word;
        self.publisher = publisher;
    }

    /// When its time is over, in monotonic nanoseconds; `None`: never.
    pub(crate) fn expires_ns(&self) -> Option<u64> {
        (self.flags & flag::EXPIRY != 0).then_some(self.expiry)
    }

    /// Whether its time is over; asks for the time only if it has one.
    pub(crate) fn is_expired(&self, clock: &dyn Fn() -> u64) -> bool {
        self.flags & flag::EXPIRY != 0 && self.expiry < clock()
    }

    /// Writes bytes into the buffer, which has room for them.
    #[inline(always)]
    fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.capacity(), "no room was made");
        let target = self.buffer.base().as_ptr().wrapping_add(at);
        // SAFETY: inside the buffer, as asserted, which the caller has exclusively; a slice that is
        // borrowed now lies elsewhere.
        unsafe { copy(bytes.as_ptr(), target, bytes.len()) };
    }

    /// Points a view at the message.
    pub(crate) fn show(&self, view: &mut View) {
        let start = self.buffer.base().as_ptr().cast_const();
        view.payload = Field {
            data: start,
            size: self.payload,
        };
        let mut at = start.wrapping_add(self.payload);
        let mut field = |size: usize| {
            let field = Field { data: at, size };
            at = at.wrapping_add(size);
            if size == 0 { Field::EMPTY } else { field }
        };
        view.reply_to = field(self.reply_to);
        view.key = field(self.key);
        view.headers = field(self.headers);
        if self.flags & flag::SEQUENCE != 0 {
            view.sequence = self.sequence;
            view.publisher = self.publisher;
        }
        if self.flags & flag::TIMESTAMP != 0 {
            view.timestamp_ns = self.timestamp;
        }
    }

    /// Gives the block back where the payload is, if it is in one.
    #[inline(always)]
    pub(crate) fn release_block(&mut self, queue: &Queue) {
        if let Some(descriptor) = self.block.take() {
            queue.blocks().release(&descriptor, 1);
        }
    }

    /// Turns the reference to the block, if there is one, into one that the reader holds.
    pub(crate) fn take_block(&mut self, queue: &Queue) -> Option<BlockRef> {
        let descriptor = self.block.take()?;
        let block = queue.blocks().get(&descriptor);
        Some(block.expect("a block that a slot refers to is there"))
    }
}

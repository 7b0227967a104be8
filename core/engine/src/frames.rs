//! Frames that connections send.

use fastmq_memory::appending::{Behind, append_rounded};
use fastmq_wire::{Draft, HEADER_BYTES, NoMemory, SHORT_BYTES, append_readdressed};

/// Appends a frame, as [`Draft::append`] does; short ones without a call.
#[inline(always)]
pub(crate) fn append(draft: &Draft<'_>, out: &mut Vec<u8>) -> Result<(), NoMemory> {
    if draft.size() > SHORT_BYTES {
        return draft.append(out);
    }
    let mut behind = Behind::<SHORT_BYTES>::new(out).map_err(|_| NoMemory)?;
    let size = draft.write_short(behind.room());
    behind.append(size);
    Ok(())
}

/// A frame for many connections, which differs for them in two numbers.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Of a short frame more than it has: as many as are copied.
    bytes: Vec<u8>,
    size: usize,
}

impl Shared {
    /// There is none.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.size = 0;
    }

    /// How long it is, 0: there is none.
    #[inline(always)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Makes it.
    pub(crate) fn make(&mut self, draft: &Draft<'_>) -> Result<(), NoMemory> {
        self.bytes.clear();
        draft.append(&mut self.bytes)?;
        let size = self.bytes.len();
        if size < SHORT_BYTES {
            self.bytes
                .try_reserve(SHORT_BYTES - size)
                .map_err(|_| NoMemory)?;
            self.bytes.resize(SHORT_BYTES, 0);
        }
        self.size = size;
        Ok(())
    }

    /// Appends it for a subscription and with an alias; a short one without a call.
    #[inline(always)]
    pub(crate) fn append(
        &self,
        out: &mut Vec<u8>,
        subscription: u32,
        alias: u32,
    ) -> Result<(), NoMemory> {
        let Some(short) = self
            .bytes
            .first_chunk()
            .filter(|_| self.size <= SHORT_BYTES)
        else {
            return append_readdressed(out, &self.bytes, subscription, alias);
        };
        let mut behind = Behind::<SHORT_BYTES>::new(out).map_err(|_| NoMemory)?;
        let numbers = u64::from(subscription) | u64::from(alias) << 32;
        let room = behind.room();
        *room = *short;
        room[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&numbers.to_le_bytes());
        behind.append(self.size);
        Ok(())
    }
}

/// Spare capacity with which [`append`] asks for no memory.
#[inline(always)]
pub(crate) fn room(draft: &Draft<'_>) -> usize {
    draft.size().max(SHORT_BYTES)
}

/// As [`append`], of a frame without words and texts.
#[inline(always)]
pub(crate) fn append_plain(draft: &Draft<'_>, out: &mut Vec<u8>) -> Result<(), NoMemory> {
    append_rounded(out, draft.plain_header(), draft.payload).map_err(|_| NoMemory)
}

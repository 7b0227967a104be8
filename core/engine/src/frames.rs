//! Frames that connections send.

use fastmq_memory::appending::Behind;
use fastmq_wire::{Draft, NoMemory, SHORT_BYTES};

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

/// Spare capacity with which [`append`] asks for no memory.
#[inline(always)]
pub(crate) fn room(draft: &Draft<'_>) -> usize {
    draft.size().max(SHORT_BYTES)
}

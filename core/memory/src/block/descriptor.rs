//! The 32 bytes that name a block in a lane.
//!
//! Plain bytes that anybody can make; only the pool says whether they name something. The layout
//! is frozen in docs/formats.md, "Block descriptor".

use crate::record::DESCRIPTOR_BYTES;

/// What a lane carries instead of the payload: docs/formats.md, "Block descriptor".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// The pool that wrote the block.
    pub pool: u32,
    /// The block's place in the pool's table.
    pub index: u32,
    /// Which of the blocks that were ever at that place; 0 names none.
    pub generation: u64,
    /// Bytes of the payload.
    pub size: u64,
}

impl Descriptor {
    /// The bytes that go into a record.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        bytes[0..4].copy_from_slice(&self.pool.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.index.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.size.to_le_bytes());
        bytes
    }

    /// Reads what `to_bytes` wrote. Any other bytes give a descriptor too, which names no block;
    /// so does a reserved word that is not 0.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; DESCRIPTOR_BYTES]) -> Self {
        let word = |at: usize| {
            let word = bytes[at..at + 8]
                .try_into()
                .expect("a slice of eight bytes");
            u64::from_le_bytes(word)
        };
        let first = word(0);
        let generation = if word(24) == 0 { word(8) } else { 0 };
        Self {
            pool: (first & u64::from(u32::MAX)) as u32,
            index: (first >> 32) as u32,
            generation,
            size: word(16),
        }
    }
}

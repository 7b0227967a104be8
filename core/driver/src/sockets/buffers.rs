//! The receive buffers that a ring chooses from: a provided-buffer ring.
//!
//! All connections share a few buffers, so an idle one has none. Two ways to fill them. *Whole*: a
//! receive takes a buffer, which comes back when its bytes were decoded. *By parts* (Linux 6.12):
//! a receive takes as much of the front buffer as it needs and the next goes on behind it, so
//! thousands of small messages fit into one, and a large read is still one.
//!
//! The kernel fills a buffer and posts its completion under one lock, in order, so the offset of a
//! part is the sum of the parts before. A receive's last completion is posted later than others
//! only if the completion queue was full, and then all that follow are posted later, too: the test
//! `a_ring_that_overflows_loses_nothing_and_mixes_nothing` checks the bytes of such connections.
//!
//! Invariant: a buffer is in the ring, or its bytes are being shown, never both.

use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::{AtomicU16, Ordering};
use std::io;

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};

/// The group's number: a ring of ours has one.
pub(super) const GROUP: u16 = 0;
/// `IOU_PBUF_RING_INC`: buffers are taken by parts.
const BY_PARTS: u16 = 2;

#[derive(Debug)]
pub(super) struct Buffers {
    ring: Mapping,
    data: Mapping,
    count: u16,
    bytes: u32,
    tail: u16,
    /// Where the next part of each buffer begins.
    offsets: Vec<u32>,
    has_parts: bool,
}

/// Bytes that have arrived, and the buffer that goes back with them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    start: usize,
    count: usize,
    /// The buffer, if this was its last part.
    ends: Option<u16>,
}

impl Buffers {
    /// Makes the buffers and gives them to the ring, by parts if `takes_parts` and the kernel can.
    pub(super) fn new(
        ring: &IoUring,
        count: u16,
        bytes: u32,
        takes_parts: bool,
    ) -> io::Result<Self> {
        assert!(
            count.is_power_of_two() && bytes > 0,
            "checked by the caller"
        );
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let data = Mapping::new(usize::from(count) * bytes as usize)?;
        let mut buffers = Self {
            ring: entries,
            data,
            count,
            bytes,
            tail: 0,
            offsets: vec![0; usize::from(count)],
            has_parts: takes_parts,
        };
        if takes_parts && buffers.register(ring, BY_PARTS).is_err() {
            buffers.has_parts = false;
        }
        if !buffers.has_parts {
            buffers.register(ring, 0)?;
        }
        for index in 0..count {
            buffers.provide(index);
        }
        Ok(buffers)
    }

    fn register(&self, ring: &IoUring, flags: u16) -> io::Result<()> {
        let (address, count) = (self.ring.start.as_ptr() as u64, self.count);
        // SAFETY: the entries are `count` long, page-aligned, and unmapped only when the ring is
        // gone: `UringSockets` drops its ring first.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, count, GROUP, flags)
        }
    }

    /// What a completion has brought: `count` bytes in the buffer that its flags name, if any.
    pub(super) fn take(&mut self, flags: u32, count: usize) -> Option<Part> {
        let index = cqueue::buffer_select(flags)?;
        let offset = &mut self.offsets[usize::from(index)];
        let start = usize::from(index) * self.bytes as usize + *offset as usize;
        assert!(
            *offset as usize + count <= self.bytes as usize,
            "the kernel has written {count} bytes behind {offset} of {} in a buffer",
            self.bytes
        );
        let has_more = self.has_parts && cqueue::buffer_more(flags);
        *offset = if has_more { *offset + count as u32 } else { 0 };
        let ends = (!has_more).then_some(index);
        Some(Part { start, count, ends })
    }

    /// The bytes of a part that has not been given back.
    pub(super) fn show(&self, part: Part) -> &[u8] {
        // SAFETY: `take` has checked that the part is inside its buffer, so inside the mapping.
        let start = unsafe { self.data.start.as_ptr().add(part.start) };
        // SAFETY: inside the mapping, written by the kernel before its completion, and not
        // written again before `give_back`, which borrows `self` mutably.
        unsafe { slice::from_raw_parts(start, part.count) }
    }

    /// Ends the showing of a part: its buffer goes back into the ring with its last.
    pub(super) fn give_back(&mut self, part: Part) {
        if let Some(index) = part.ends {
            self.provide(index);
        }
    }

    /// Never gives the memory back: for a kernel that does not let go of it.
    pub(super) fn leak(&mut self) {
        self.ring.is_kept = true;
        self.data.is_kept = true;
    }

    fn provide(&mut self, index: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        let entries = self.ring.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the place is below `count`, so inside the mapping.
        let entry = unsafe { entries.add(place) };
        // SAFETY: as above; the kernel reads an entry only when the tail is behind it.
        let entry = unsafe { &mut *entry };
        let offset = usize::from(index) * self.bytes as usize;
        entry.set_addr(self.data.start.as_ptr() as u64 + offset as u64);
        entry.set_len(self.bytes);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the base of the ring that was registered.
        let tail = unsafe { BufRingEntry::tail(entries) }.cast_mut();
        // SAFETY: aligned, inside the mapping, and otherwise only read, by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Memory of its own pages, which are there when they are touched.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    is_kept: bool,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: asks for new memory at an address of the kernel's choice; nothing is replaced.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("a mapping is never at address zero");
        Ok(Self {
            start,
            bytes,
            is_kept: false,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // SAFETY: the range is exactly the mapping made above, and nobody points into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

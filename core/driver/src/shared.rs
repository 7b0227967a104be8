//! Memory that two processes share, and the eventfds that they wake each other with.
//!
//! The maker creates a memfd, puts memory behind all of it, and seals its size, so that nobody can
//! take the end of the mapping away under the other's feet (`SIGBUS`). A peer may still punch
//! holes: they read as zeros. Whoever has the descriptor may change the bytes at any time, so they
//! are reached as atomics only.
//! Invariant: a `SharedMemory` owns exactly the range that it has mapped, of a file whose size can
//! no longer change.

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, AtomicU64};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::clock;
use crate::event::{add_one, eventfd, own};
use crate::fork::is_forked_child;

/// What a shared memory must be sealed against.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Zeroed memory that another process has too. Unmapped when dropped; the memory itself goes when
/// the last process has dropped it.
#[derive(Debug)]
pub struct SharedMemory {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the range is reached through atomics only.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes `bytes` of it, all of them there, and the descriptor for the other process.
    ///
    /// # Errors
    /// What `memfd_create`, `ftruncate`, `fallocate` or `mmap` say: out of descriptors or memory.
    pub fn create(bytes: usize) -> io::Result<(Self, OwnedFd)> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is a string with a zero at its end.
        let fd = own(unsafe { libc::memfd_create(c"fastmq".as_ptr(), flags) })?;
        let size = libc::off_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: takes no pointer; the descriptor is open.
        check(unsafe { libc::ftruncate(fd.as_raw_fd(), size) })?;
        // Now rather than by a fault later, for which there may be no memory.
        // SAFETY: as above.
        check(unsafe { libc::fallocate(fd.as_raw_fd(), 0, 0, size) })?;
        // SAFETY: as above.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
        Ok((Self::map(fd.as_fd(), bytes)?, fd))
    }

    /// Maps the first `bytes` of what another process has made.
    ///
    /// # Errors
    /// `InvalidData`: it is no memfd, its size is not sealed, or it has less than `bytes`. Else
    /// what `mmap` says.
    pub fn open(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let wrong = |says| io::Error::new(io::ErrorKind::InvalidData, says);
        // SAFETY: takes no pointer; the descriptor is open.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        let size_seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        if seals < 0 || seals & size_seals != size_seals {
            return Err(wrong("the shared memory can change its size"));
        }
        // SAFETY: takes no pointer; where a memfd is read from is nobody's business.
        let size = unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_END) };
        if usize::try_from(size).is_ok_and(|size| size >= bytes) {
            return Self::map(fd, bytes);
        }
        Err(wrong("the shared memory is smaller than it should be"))
    }

    /// Maps memory whose size is sealed and at least `bytes`.
    fn map(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        // SAFETY: asks for a mapping at an address of the kernel's choice; nothing is replaced.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Self { base, bytes };
        // A child of `fork` has no business here. Best effort: old kernels and sanitizers.
        // SAFETY: the range is exactly the mapping, and no byte changes.
        unsafe { libc::madvise(memory.base.as_ptr().cast(), bytes, libc::MADV_DONTFORK) };
        Ok(memory)
    }

    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `count` words from byte `at` on, a multiple of 8.
    ///
    /// # Panics
    /// They do not all lie in the memory.
    #[inline(always)]
    #[must_use]
    pub fn words(&self, at: usize, count: usize) -> &[AtomicU64] {
        let is_inside = at <= self.bytes && count <= (self.bytes - at) / 8;
        assert!(is_inside && at.is_multiple_of(8), "{count} words at {at}");
        let start = self.base.as_ptr().wrapping_add(at).cast();
        // SAFETY: in range and aligned by the assertion, mapped as long as `self`, and a word of
        // any bits is an `AtomicU64`. Everybody reaches it by atomics, processes by their kernels.
        unsafe { core::slice::from_raw_parts(start, count) }
    }

    /// Four bytes at `at`, a multiple of 4, which nobody reaches as a word.
    ///
    /// # Panics
    /// They do not lie in the memory.
    #[inline(always)]
    #[must_use]
    pub fn flag(&self, at: usize) -> &AtomicU32 {
        let is_inside = at < self.bytes && self.bytes - at >= 4;
        assert!(is_inside && at.is_multiple_of(4), "a flag at {at}");
        // SAFETY: as `words`.
        unsafe { &*self.base.as_ptr().wrapping_add(at).cast() }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // A child of `fork` does not have it, and may have something else there by now.
        if is_forked_child() {
            return;
        }
        // SAFETY: the range is the mapping's own, and its owner is gone.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(result, 0, "the range was mapped as a whole");
    }
}

/// An eventfd that two processes share: one watches it
/// ([`Sockets::watch`](crate::sockets::Sockets::watch)), the other signals.
///
/// # Errors
/// Out of descriptors or memory.
pub fn wake_event() -> io::Result<OwnedFd> {
    eventfd()
}

/// Wakes whoever watches an eventfd. A peer that fills it and makes it blocking could hold the
/// caller up: eventfds are taken from, and given to, processes of the same user only.
pub fn wake(event: &OwnedFd) {
    add_one(event);
}

/// The monotonic clock, for whoever spins on shared memory. Not in a simulation: that has none.
#[must_use]
pub fn now_ns() -> u64 {
    clock::monotonic_ns()
}

/// The effective user of this process.
#[must_use]
pub fn current_user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn both_see_what_either_writes_and_the_size_is_sealed() {
        let (ours, fd) = SharedMemory::create(12_288).unwrap();
        let theirs = SharedMemory::open(fd.as_fd(), 12_288).unwrap();
        ours.words(8, 1)[0].store(7, Ordering::Relaxed);
        theirs.flag(12_284).store(9, Ordering::Relaxed);
        assert_eq!(theirs.words(0, 1536)[1].load(Ordering::Relaxed), 7);
        assert_eq!(ours.flag(12_284).load(Ordering::Relaxed), 9);
        for size in [0, 4096, 1 << 20] {
            // SAFETY: takes no pointer.
            let result = unsafe { libc::ftruncate(fd.as_raw_fd(), size) };
            assert_eq!((result, errno()), (-1, libc::EPERM), "{size}");
        }
        drop(ours);
        assert_eq!(theirs.words(8, 1)[0].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_hole_reads_as_zeros() {
        let (ours, fd) = SharedMemory::create(8192).unwrap();
        ours.words(4096, 1)[0].store(u64::MAX, Ordering::Relaxed);
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: takes no pointer.
        check(unsafe { libc::fallocate(fd.as_raw_fd(), punch, 0, 8192) }).unwrap();
        assert_eq!(ours.words(4096, 1)[0].load(Ordering::Relaxed), 0);
        ours.words(4096, 1)[0].store(3, Ordering::Relaxed);
        assert_eq!(ours.words(4096, 1)[0].load(Ordering::Relaxed), 3);
    }

    #[test]
    fn what_could_shrink_or_is_too_small_is_refused() {
        // SAFETY: the name is a string with a zero at its end.
        let open = own(unsafe { libc::memfd_create(c"x".as_ptr(), libc::MFD_CLOEXEC) }).unwrap();
        let event = wake_event().unwrap();
        let (_, sealed) = SharedMemory::create(4096).unwrap();
        for (fd, bytes) in [(&open, 0), (&event, 0), (&sealed, 4097), (&sealed, 8192)] {
            let error = SharedMemory::open(fd.as_fd(), bytes).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        assert!(SharedMemory::open(sealed.as_fd(), 4096).is_ok());
        assert!(SharedMemory::create(usize::MAX).is_err());
    }

    #[test]
    #[should_panic(expected = "2 words at 4088")]
    fn nothing_beyond_the_end_is_reached() {
        let (memory, _) = SharedMemory::create(4096).unwrap();
        let _ = memory.words(4088, 2);
    }

    fn errno() -> i32 {
        io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }
}

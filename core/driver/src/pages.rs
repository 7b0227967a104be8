//! Memory in whole pages: there from the start, locked, in huge pages.
//!
//! For programs that must not wait for the kernel on their hot path: everything that may fail or
//! take long happens in [`Pages::map`]. An allocator's memory cannot be locked piece by piece,
//! since its pages are shared with others and one unlock ends all locks.
//! Invariant: a `Pages` owns exactly the range that it has mapped.

use core::ptr::{self, NonNull};
use std::fs::File;
use std::io::{self, Read};

/// What memory is to be. The default is an allocator's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageOptions {
    /// Locked: no page is ever written to a swap file or taken away.
    pub lock: bool,
    /// Touched when it is mapped, so that its first use does not fault; the others imply it.
    pub prefault: bool,
    /// In huge pages.
    pub huge: bool,
}

/// Why there are no such pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagesError {
    /// The system has no memory, or no room for another mapping.
    NoMemory,
    /// They may not be locked: `RLIMIT_MEMLOCK` is reached, and the right to pass it is missing.
    LockDenied,
    /// The kernel has neither reserved huge pages nor makes any.
    NoHugePages,
}

/// The size of a huge page.
pub const HUGE_BYTES: usize = 2 << 20;
/// The smallest page there is: touching more often than needed is only slower.
const PAGE_BYTES: usize = 4096;
/// Where the kernel says whether it makes huge pages of memory that asks for them.
const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Zeroed pages. Given back when dropped.
#[derive(Debug)]
pub struct Pages {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it owns its range; what is done with the bytes is the owner's to protect.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl PageOptions {
    /// True if an allocator's memory will not do.
    #[must_use]
    pub fn is_special(self) -> bool {
        self != Self::default()
    }
}

/// What the process may lock, in bytes; `None`: no limit.
#[must_use]
pub fn lock_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is written during the call only.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    debug_assert_eq!(result, 0, "every system has this limit");
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Whether the kernel makes huge pages of memory that asks for them.
#[must_use]
pub fn has_transparent_huge_pages() -> bool {
    let mut text = [0; 64];
    let read = File::open(TRANSPARENT).and_then(|mut file| file.read(&mut text));
    read.is_ok_and(|size| makes_huge_pages(&text[..size]))
}

/// The kernel's words, of which that in brackets holds: `always [madvise] never`.
fn makes_huge_pages(enabled: &[u8]) -> bool {
    [&b"[always]"[..], b"[madvise]"]
        .iter()
        .any(|word| enabled.windows(word.len()).any(|part| part == *word))
}

impl Pages {
    /// Maps at least `bytes` zeroed bytes, and touches each page. Huge pages are those that the
    /// administrator has reserved, if there are enough, else such as the kernel makes.
    ///
    /// # Errors
    /// [`PagesError`]; nothing is mapped then.
    pub fn map(bytes: usize, options: PageOptions) -> Result<Self, PagesError> {
        let step = if options.huge { HUGE_BYTES } else { PAGE_BYTES };
        let bytes = bytes
            .max(1)
            .checked_next_multiple_of(step)
            .ok_or(PagesError::NoMemory)?;
        let pages = match options.huge {
            true => Self::reserve_huge(bytes)?,
            false => Self::reserve(bytes, 0)?,
        };
        if options.lock {
            pages.lock()?;
        }
        pages.touch()?;
        Ok(pages)
    }

    /// The first byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn reserve(bytes: usize, flags: libc::c_int) -> Result<Self, PagesError> {
        // SAFETY: asks for new memory at an address of the kernel's choice; nothing is replaced.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            // With all future memory locked (`mlockall`) a mapping is refused for the lock.
            return Err(match errno() {
                libc::EAGAIN => PagesError::LockDenied,
                _ => PagesError::NoMemory,
            });
        }
        let base = NonNull::new(base.cast()).ok_or(PagesError::NoMemory)?;
        Ok(Self { base, bytes })
    }

    fn reserve_huge(bytes: usize) -> Result<Self, PagesError> {
        let flags = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
        if let Ok(reserved) = Self::reserve(bytes, flags) {
            return Ok(reserved);
        }
        if !has_transparent_huge_pages() {
            return Err(PagesError::NoHugePages);
        }
        let pages = Self::reserve_aligned(bytes)?;
        // SAFETY: the range is exactly the mapping.
        let result =
            unsafe { libc::madvise(pages.base.as_ptr().cast(), pages.bytes, libc::MADV_HUGEPAGE) };
        match result {
            0 => Ok(pages),
            _ => Err(PagesError::NoHugePages),
        }
    }

    /// Pages that begin where a huge page may: more is mapped, and what is beside is given back.
    fn reserve_aligned(bytes: usize) -> Result<Self, PagesError> {
        let wide = bytes.checked_add(HUGE_BYTES).ok_or(PagesError::NoMemory)?;
        let mut pages = Self::reserve(wide, 0)?;
        let start = pages.base.as_ptr();
        let before = start.align_offset(HUGE_BYTES);
        let base = start.wrapping_add(before);
        let after = wide - before - bytes;
        pages.base = NonNull::new(base).ok_or(PagesError::NoMemory)?;
        pages.bytes = bytes;
        for (start, size) in [(start, before), (base.wrapping_add(bytes), after)] {
            if size > 0 {
                // SAFETY: whole pages of the mapping beside what `pages` owns; nobody has them.
                unsafe { libc::munmap(start.cast(), size) };
            }
        }
        Ok(pages)
    }

    fn lock(&self) -> Result<(), PagesError> {
        // The system call itself: under the sanitizers the function does nothing.
        // SAFETY: the range is exactly the mapping; locking changes no byte.
        let result = unsafe { libc::syscall(libc::SYS_mlock, self.base.as_ptr(), self.bytes) };
        match result {
            0 => Ok(()),
            // Some pages could not be had.
            _ if errno() == libc::EAGAIN => Err(PagesError::NoMemory),
            _ => Err(PagesError::LockDenied),
        }
    }

    /// Has the kernel put memory behind every page.
    fn touch(&self) -> Result<(), PagesError> {
        let base = self.base.as_ptr().cast();
        // SAFETY: the range is exactly the mapping, and no byte changes.
        let result = unsafe { libc::madvise(base, self.bytes, libc::MADV_POPULATE_WRITE) };
        if result == 0 {
            return Ok(());
        }
        if errno() != libc::EINVAL {
            return Err(PagesError::NoMemory);
        }
        // A kernel before 5.14.
        for at in (0..self.bytes).step_by(PAGE_BYTES) {
            let byte = self.base.as_ptr().wrapping_add(at);
            // SAFETY: inside the mapping, which nobody else has yet; it holds zeros.
            unsafe { byte.write_volatile(0) };
        }
        Ok(())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping's own, and its owner is gone.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(result, 0, "the range was mapped as a whole");
    }
}

fn errno() -> libc::c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(lock: bool, prefault: bool, huge: bool) -> PageOptions {
        PageOptions {
            lock,
            prefault,
            huge,
        }
    }

    /// Bytes of the range that have memory behind them.
    fn resident(pages: &Pages) -> usize {
        let mut seen = vec![0_u8; pages.bytes.div_ceil(PAGE_BYTES)];
        // SAFETY: the range is mapped, and there is a byte for each of its pages.
        let result = unsafe {
            libc::mincore(
                pages.base.as_ptr().cast(),
                pages.bytes,
                seen.as_mut_ptr().cast(),
            )
        };
        assert_eq!(result, 0);
        seen.iter().filter(|page| **page & 1 == 1).count() * PAGE_BYTES
    }

    #[test]
    fn pages_are_there_from_the_start() {
        let pages = Pages::map(100_000, options(false, true, false)).unwrap();
        assert_eq!((pages.bytes(), resident(&pages)), (102_400, 102_400));
        let untouched = Pages::reserve(102_400, 0).unwrap();
        assert_eq!(resident(&untouched), 0);
    }

    #[test]
    fn huge_pages_begin_at_their_boundary() {
        let pages = Pages::reserve_aligned(4 << 20).unwrap();
        assert_eq!(pages.base().as_ptr() as usize % HUGE_BYTES, 0);
        assert_eq!(pages.bytes(), 4 << 20);
        pages.touch().unwrap();
        match Pages::map(3 << 20, options(false, false, true)) {
            Ok(pages) => assert_eq!((pages.bytes(), resident(&pages)), (4 << 20, 4 << 20)),
            Err(error) => assert_eq!(error, PagesError::NoHugePages),
        }
    }

    #[test]
    fn the_kernels_words_say_whether_it_makes_huge_pages() {
        assert!(makes_huge_pages(b"always [madvise] never\n"));
        assert!(makes_huge_pages(b"[always] madvise never\n"));
        assert!(!makes_huge_pages(b"always madvise [never]\n"));
        assert!(!makes_huge_pages(b""));
    }

    #[test]
    fn more_than_there_can_be_is_refused() {
        for options in [options(false, true, false), options(false, false, true)] {
            for bytes in [usize::MAX, usize::MAX / 2] {
                let error = Pages::map(bytes, options).unwrap_err();
                let is_huge = error == PagesError::NoHugePages && options.huge;
                assert!(error == PagesError::NoMemory || is_huge, "{error:?}");
            }
        }
    }
}

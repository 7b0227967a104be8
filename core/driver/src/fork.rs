//! Whether this process is a forked child of the one that opened the library.
//!
//! A child has the memory and descriptors of its parent but not its threads, so every call in it
//! must be refused before it touches anything. A system call for that would cost more than a
//! message; a page that the kernel wipes on fork (`MADV_WIPEONFORK`) costs two loads. Where the
//! kernel refuses that advice, a `pthread_atfork` hook writes the same byte; only a raw `clone`
//! that goes around the C library is not seen then.
//!
//! Invariant: `BYTE` always points to a byte that lives for the rest of the process: first to
//! `UNWIPED`, later perhaps to the page, which is never unmapped. Zero means "forked child".

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};
use std::sync::OnceLock;

const WIPED: u8 = 0;
const ORIGINAL: u8 = 1;

/// What `BYTE` points to until there is a page, and for good where the hook does the work.
static UNWIPED: AtomicU8 = AtomicU8::new(ORIGINAL);
static BYTE: AtomicPtr<AtomicU8> = AtomicPtr::new((&raw const UNWIPED).cast_mut());

/// Starts to watch for forks; later calls do nothing. Call it when a broker opens.
///
/// Returns false if a fork would go unseen: no memory for a page, and none for a hook.
pub fn arm() -> bool {
    static IS_ARMED: OnceLock<bool> = OnceLock::new();
    *IS_ARMED.get_or_init(|| arm_page() || arm_hook())
}

/// True in a child forked after [`arm`], and in its children; two loads, no system call.
#[inline(always)]
#[must_use]
pub fn is_forked_child() -> bool {
    let byte = BYTE.load(Ordering::Acquire);
    // SAFETY: by the invariant above it points to an atomic byte that is never freed. The kernel's
    // wipe is no race: it happens in the copy, before the child runs.
    let byte = unsafe { &*byte };
    byte.load(Ordering::Relaxed) == WIPED
}

/// Points `BYTE` to a page that a child finds wiped.
fn arm_page() -> bool {
    // SAFETY: takes a number and returns one.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Ok(page_bytes) = usize::try_from(page_bytes) else {
        return false;
    };
    // SAFETY: asks for new memory at an address of the kernel's choice; nothing is replaced.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            page_bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: the range is exactly the mapping made above.
    let advice = unsafe { libc::madvise(page, page_bytes, libc::MADV_WIPEONFORK) };
    if advice != 0 {
        // SAFETY: the range is exactly the mapping made above, and nobody points into it.
        unsafe { libc::munmap(page, page_bytes) };
        return false;
    }
    let byte = page.cast::<AtomicU8>();
    // SAFETY: the mapping is writable, larger than a byte and known to this thread only; an
    // atomic byte has no alignment to keep and no invalid value.
    unsafe { byte.write(AtomicU8::new(ORIGINAL)) };
    BYTE.store(byte, Ordering::Release);
    true
}

/// Has the C library write the byte in a child.
fn arm_hook() -> bool {
    extern "C" fn in_child() {
        UNWIPED.store(WIPED, Ordering::Relaxed);
    }
    // SAFETY: the hook stores to a static and does nothing else, which is allowed after a fork.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `is_forked_child` says in a child and in that child's child: bits 0 and 1.
    fn answer_in_children() -> i32 {
        // SAFETY: the child calls nothing but what is allowed after a fork, and ends by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let first = i32::from(is_forked_child());
            // SAFETY: as above.
            let grandchild = unsafe { libc::fork() };
            let code = if grandchild == 0 {
                i32::from(is_forked_child())
            } else {
                first | exit_code(grandchild) << 1
            };
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(code) };
        }
        exit_code(child)
    }

    fn exit_code(child: libc::pid_t) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is writable, and the child is ours.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if waited != child || !libc::WIFEXITED(status) {
            return -1;
        }
        libc::WEXITSTATUS(status)
    }

    // One test, because the ways to notice a fork build on each other and last for the process.
    #[test]
    fn the_hook_and_the_page_each_notice_a_fork() {
        assert!(!is_forked_child());
        assert_eq!(answer_in_children(), 0, "nothing is armed");
        assert!(arm_hook());
        assert!(!is_forked_child());
        assert_eq!(answer_in_children(), 3, "armed by the hook");
        assert!(arm_page(), "this kernel has no MADV_WIPEONFORK (4.14)");
        assert!(!is_forked_child());
        assert_eq!(answer_in_children(), 3, "armed by the page");
        assert!(arm());
        assert!(arm());
        assert!(!is_forked_child());
        assert_eq!(answer_in_children(), 3, "armed again");
    }
}

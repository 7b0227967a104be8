//! Sleeping on a word of memory: `futex` with an absolute monotonic deadline.
//!
//! `FUTEX_WAIT_BITSET` and not `FUTEX_WAIT`, because only it takes an absolute time: a wait that is
//! interrupted and repeated keeps its deadline without another clock call. Always private: words
//! shared between processes are woken through an eventfd.

use core::ptr;
use core::sync::atomic::AtomicU32;
use std::io;

use crate::{FOREVER_NS, Parked, clock};

/// Sleeps while `*word == expected`; see [`Driver::park`](crate::Driver::park).
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline_ns: u64) -> Parked {
    let deadline = clock::timespec(deadline_ns);
    let timeout = if deadline_ns == FOREVER_NS {
        ptr::null()
    } else {
        ptr::from_ref(&deadline)
    };
    // SAFETY: `word` is a live, aligned 32-bit word and `timeout` is null or points to `deadline`,
    // both for the whole call; the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout,
            ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    if result == 0 {
        return Parked::Woken;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Parked::Changed,
        Some(libc::ETIMEDOUT) => Parked::TimedOut,
        other => {
            debug_assert_eq!(
                other,
                Some(libc::EINTR),
                "no other error fits these arguments"
            );
            Parked::Woken
        }
    }
}

/// Wakes at most `count` sleepers.
pub(crate) fn wake(word: &AtomicU32, count: u32) {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    // SAFETY: the address only names the queue of sleepers; the kernel does not touch the memory.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            count,
        )
    };
}

//! The asymmetric fence: nearly free where it is passed often, dear where it is passed seldom.
//!
//! Two threads each write a word and then read the other's; at least one must see the other's write
//! (a publisher and a reader that goes to sleep). That takes a full fence between write and read on
//! both sides. `membarrier` lets one side run every running thread of the process through a full
//! fence, so that the other side needs a compiler fence only.
//!
//! # Why the switch is right
//! One byte, `mode`, goes once from UNDECIDED to EXPEDITED or REFUSED, and never changes again.
//! - `light` skips the full fence only after it read EXPEDITED; else it executes one.
//! - `heavy` decides first if nobody has, so it never runs UNDECIDED. In EXPEDITED it does a full
//!   fence *and* the system call: the call serves each light side that skipped its fence, the fence
//!   pairs with each that did not (it read UNDECIDED before). In REFUSED no light side ever read
//!   EXPEDITED, as the mode was never that; both sides execute full fences.
//! - EXPEDITED is stored after the kernel has registered the process, so every `heavy` that reads
//!   it may make the call. It needs no order towards `light`: a stale UNDECIDED costs a fence.
//!
//! Registration is of the whole process, not of a thread; `register` belongs to opening a broker,
//! because with threads running it waits for a grace period of the kernel (milliseconds).
//! Under `cfg(fastmq_tsan)` the mode is REFUSED, as the sanitizer cannot see `membarrier`.

use core::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};
use std::io;

const UNDECIDED: u8 = 0;
const EXPEDITED: u8 = 1;
const REFUSED: u8 = 2;

/// From `linux/membarrier.h`; the `libc` crate has them for Android only.
const MEMBARRIER_CMD_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// How often `heavy` repeats a call for which the kernel had no memory.
const TRIES_MAX: u32 = 1_000;

static MODE: AtomicU8 = AtomicU8::new(UNDECIDED);

/// The frequent side: put it between the write of one's own word and the read of the other's.
#[inline(always)]
pub fn light() {
    compiler_fence(Ordering::SeqCst);
    if MODE.load(Ordering::Relaxed) != EXPEDITED {
        full();
    }
}

#[cold]
#[inline(never)]
fn full() {
    fence(Ordering::SeqCst);
}

/// The seldom side: the same place between write and read, at the price of a system call.
///
/// # Panics
/// If the kernel takes back what it granted at registration (a seccomp filter installed later that
/// forbids `membarrier`): no light side could be trusted any more, and there is no other cure.
pub fn heavy() {
    fence(Ordering::SeqCst);
    if !register() {
        return;
    }
    for _ in 0..TRIES_MAX {
        let Err(error) = membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) else {
            return;
        };
        let is_out_of_memory = error.raw_os_error() == Some(libc::ENOMEM);
        assert!(
            is_out_of_memory,
            "membarrier was granted at open and is refused now: {error}"
        );
        std::thread::yield_now();
    }
    panic!("membarrier found no memory in {TRIES_MAX} tries");
}

/// Asks the kernel, once; true if `light` is cheap from now on. Call it when a broker opens.
pub fn register() -> bool {
    let mode = match MODE.load(Ordering::Acquire) {
        UNDECIDED => decide(),
        mode => mode,
    };
    mode == EXPEDITED
}

/// Racing threads may all ask the kernel, which allows it; the first answer stands.
#[cold]
fn decide() -> u8 {
    let is_granted =
        !cfg!(fastmq_tsan) && membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED).is_ok();
    let answer = if is_granted { EXPEDITED } else { REFUSED };
    match MODE.compare_exchange(UNDECIDED, answer, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => answer,
        Err(first) => first,
    }
}

fn membarrier(command: libc::c_int) -> io::Result<()> {
    // SAFETY: takes numbers only and touches no memory of ours; flags and core number are 0.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

//! The asymmetric fence: nearly free where it is passed often, dear where it is passed seldom.
//!
//! Two threads each write a word and then read the other's; at least one must see the other's write
//! (a publisher and a reader that goes to sleep). That takes a full fence between write and read on
//! both sides. `membarrier` lets one side run every running thread of the process through a full
//! fence, so that the other side needs a compiler fence only.
//!
//! # Why the switch is right
//! One byte, `mode`, goes once from UNDECIDED over ASKING to REFUSED, or over ASKING and GRANTED to
//! EXPEDITED.
//! - `light` skips the full fence only after it read EXPEDITED; else it executes one.
//! - `heavy` does a full fence, and *then* reads the mode. From GRANTED on it makes the system call
//!   as well: the call serves each light side that skips its fence, the fence pairs with each that
//!   does not. GRANTED is stored after the kernel has registered the process, so it may.
//! - A `heavy` that reads less has done enough. Whoever stores EXPEDITED does a full fence between
//!   GRANTED and it, and this `heavy` has read a mode older than GRANTED: its fence comes before
//!   that one, and with it the word that it wrote. A `light` that reads EXPEDITED (acquire) comes
//!   after that one, so it reads that word. In REFUSED no light side skips its fence.
//!
//! Registration is of the whole process, not of a thread; `register` belongs to opening a broker.
//! With threads running it waits for a grace period of the kernel (ten milliseconds and more): one
//! thread does, and others go on with full fences meanwhile, so that a host may have it done on a
//! thread that has nothing else to do.
//! Under `cfg(fastmq_tsan)` the mode is REFUSED, as the sanitizer cannot see `membarrier`.

use core::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};
use std::io;

const UNDECIDED: u8 = 0;
/// Somebody asks the kernel.
const ASKING: u8 = 1;
const REFUSED: u8 = 2;
/// The kernel makes the call for whoever is heavy; nobody is light yet.
const GRANTED: u8 = 3;
const EXPEDITED: u8 = 4;

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
    if MODE.load(Ordering::Acquire) != EXPEDITED {
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
    if MODE.load(Ordering::Acquire) < GRANTED {
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

/// Asks the kernel, once; true if `light` is cheap from now on. Call it when a broker opens. It
/// does not wait for another thread that asks already: then it is false, and later true.
pub fn register() -> bool {
    let order = Ordering::AcqRel;
    match MODE.compare_exchange(UNDECIDED, ASKING, order, Ordering::Acquire) {
        Ok(_) => decide(),
        Err(mode) => mode == EXPEDITED,
    }
}

#[cold]
fn decide() -> bool {
    let is_granted =
        !cfg!(fastmq_tsan) && membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED).is_ok();
    if is_granted {
        MODE.store(GRANTED, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        MODE.store(EXPEDITED, Ordering::Release);
    } else {
        MODE.store(REFUSED, Ordering::Release);
    }
    is_granted
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

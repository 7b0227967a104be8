//! Threads of the library: named, counted, deaf to the host's signals; and cores.
//!
//! No thread is started unless a feature needs one, and each can be seen: its name starts with
//! `fmq-`, and `Counters::threads` says how many run.
//! Not here: telling a thread to end. Its body watches a word of the engine's.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crate::counters::Tally;

/// What every name starts with.
const PREFIX: &str = "fmq-";
/// What the kernel keeps of a name.
const NAME_BYTES_MAX: usize = 15;

/// Signals that stay open in a library thread: faults belong to the thread that made them, and a
/// profiler wants to see every thread.
const SIGNALS_OPEN: [libc::c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGPROF,
];

/// A running thread of the library. Dropping it detaches the thread.
#[derive(Debug)]
pub struct Thread {
    handle: JoinHandle<()>,
}

impl Thread {
    pub(crate) fn spawn(
        name: &str,
        body: Box<dyn FnOnce() + Send>,
        tally: Arc<Tally>,
    ) -> io::Result<Self> {
        let running = Running::count(tally);
        // The new thread inherits the mask, so there is no moment in which it takes a signal.
        let _blocked = SignalsBlocked::new()?;
        let handle = Builder::new().name(full_name(name)).spawn(move || {
            let _running = running;
            body();
        })?;
        Ok(Self { handle })
    }

    /// Waits until the thread has ended; `Err` carries the value of its panic.
    ///
    /// Called by the thread itself it returns at once and detaches, since nothing can wait for its
    /// own end.
    ///
    /// # Errors
    /// The panic of the body.
    pub fn join(self) -> std::thread::Result<()> {
        if self.is_current() {
            return Ok(());
        }
        self.handle.join()
    }

    /// Whether the caller runs on this thread.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.handle.thread().id() == std::thread::current().id()
    }

    /// Whether the body has returned, so that `join` will not wait for it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// Binds the calling thread to one core, by the kernel's number. For benchmarks and shards.
///
/// # Errors
/// `InvalidInput` for a number the kernel's set cannot hold; what the kernel says for a core that
/// is absent, or closed to this process.
pub fn pin_current_thread(core: usize) -> io::Result<()> {
    // Not `CPU_SETSIZE`: for musl the crate has the bytes of the set there, not the bits.
    let core_max = size_of::<libc::cpu_set_t>() * 8;
    if core >= core_max {
        let text = format!("core is {core}, and the highest number is {}", core_max - 1);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    // SAFETY: a set of bits, for which zeros are a value.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: the number was checked against the size of the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: 0 is the calling thread, and the set is alive and as large as said.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How many cores the process could use when it first asked: its affinity and its cgroup, at least
/// 1. Remembered, so that a thread which has pinned itself does not see one.
#[must_use]
pub fn core_count() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let known = COUNT.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    // Who asks at the same time hears the same.
    match COUNT.compare_exchange(0, count, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => count,
        Err(first) => first,
    }
}

/// Counts a thread for as long as it runs.
struct Running {
    tally: Arc<Tally>,
}

impl Running {
    fn count(tally: Arc<Tally>) -> Self {
        tally.threads.fetch_add(1, Ordering::Relaxed);
        Self { tally }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tally.threads.fetch_sub(1, Ordering::Release);
    }
}

/// Blocks the calling thread's signals while it exists.
struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    fn new() -> io::Result<Self> {
        let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: writes the set and reads nothing.
        unsafe { libc::sigfillset(blocked.as_mut_ptr()) };
        for signal in SIGNALS_OPEN {
            // SAFETY: the set was filled above, and the signal is one of the system's.
            unsafe { libc::sigdelset(blocked.as_mut_ptr(), signal) };
        }
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        let how = libc::SIG_SETMASK;
        // SAFETY: `blocked` was filled, and `before` is writable.
        let result = unsafe { libc::pthread_sigmask(how, blocked.as_ptr(), before.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        // SAFETY: the call above succeeded and wrote the set.
        let before = unsafe { before.assume_init() };
        Ok(Self { before })
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set is the one the kernel gave, and the old set is not asked for.
        let result = unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                core::ptr::null_mut(),
            )
        };
        debug_assert_eq!(result, 0, "a mask that the kernel gave is valid");
    }
}

/// The name as the kernel will show it.
fn full_name(name: &str) -> String {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let mut full = String::with_capacity(NAME_BYTES_MAX);
    full.push_str(PREFIX);
    for letter in rest.chars() {
        if full.len() + letter.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        // A NUL would end the name, and the standard library refuses it with a panic.
        full.push(if letter == '\0' { '?' } else { letter });
    }
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_prefixed_once_and_cut_between_letters() {
        let check = |name: &str, expected: &str| assert_eq!(full_name(name), expected);
        check("deliver", "fmq-deliver");
        check("fmq-deliver", "fmq-deliver");
        check("", "fmq-");
        check("deliver-0123456789", "fmq-deliver-012");
        check("0123456789é", "fmq-0123456789");
        check("a\0b", "fmq-a?b");
    }
}

//! Being asked to end or to look at the configuration again: signals that are waited for in place
//! of a handler.
//!
//! For programs of our own, whose main thread has nothing else to do. A library in somebody else's
//! process leaves signals alone.

use core::mem::MaybeUninit;
use std::io;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM, SIGINT.
    End,
    /// SIGHUP.
    Reload,
}

/// The three signals, held back from this thread and those that it starts afterwards.
#[derive(Debug)]
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Holds them back; call it before other threads are started.
    ///
    /// # Errors
    /// What `pthread_sigmask` says, which is nothing here.
    pub fn hold_back() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `set` has room for a set, which `sigemptyset` makes an empty one; it cannot fail.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: `sigemptyset` has made it a set.
        let mut set = unsafe { set.assume_init() };
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: `set` is a set, and the number is a signal's.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: `set` is a set; the old one is not asked for.
        let error = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, core::ptr::null_mut())
        };
        match error {
            0 => Ok(Self { set }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Waits until one of them comes to the process, and takes it.
    ///
    /// # Errors
    /// What `sigwait` says, which is nothing here.
    pub fn wait(&self) -> io::Result<Wish> {
        let mut signal = 0;
        // SAFETY: `set` is a set, and `signal` is written to by the call alone.
        let error = unsafe { libc::sigwait(&raw const self.set, &raw mut signal) };
        match (error, signal) {
            (0, libc::SIGHUP) => Ok(Wish::Reload),
            (0, _) => Ok(Wish::End),
            (error, _) => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

//! One io_uring: its tokens, its submission side, its completions.
//!
//! A request that finds the submission queue full is submitted with the rest, or waits in a backlog
//! if the kernel does not take more; the order stays. One thread owns a ring for its whole life
//! (single issuer).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, cqueue, squeue, types};

use crate::{FOREVER_NS, clock};

use super::slots::Key;

/// Completions for each request of the submission queue: a turn's worth of receives.
const COMPLETIONS_PER_ENTRY: u32 = 8;

/// What a completion is of. 6 and 7 are kept for writes and syncs of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Receive = 0,
    Send = 1,
    Accept = 2,
    Connect = 3,
    Waker = 4,
    Cancel = 5,
}

/// A kind and whose it is, as the ring carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(u64);

impl Token {
    pub(super) fn new(kind: Kind, key: Key) -> Self {
        Self(key.pack(kind as u8))
    }

    /// Of the shard itself.
    pub(super) fn of(kind: Kind) -> Self {
        let key = Key {
            index: 0,
            generation: 0,
        };
        Self::new(kind, key)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn unpack(bits: u64) -> (Kind, Key) {
        let (kind, key) = Key::unpack(bits);
        let kind = match kind {
            0 => Kind::Receive,
            1 => Kind::Send,
            2 => Kind::Accept,
            3 => Kind::Connect,
            4 => Kind::Waker,
            5 => Kind::Cancel,
            _ => panic!("the kernel returned the token {bits:#x}, which nobody gave it"),
        };
        (kind, key)
    }
}

pub(super) struct Ring {
    inner: IoUring,
    backlog: VecDeque<squeue::Entry>,
}

impl Ring {
    /// A ring with everything that this tier is about, or the kernel's refusal.
    pub(super) fn new(entries: u32) -> io::Result<Self> {
        let inner = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(entries * COMPLETIONS_PER_ENTRY)
            .build(entries)?;
        Ok(Self {
            inner,
            backlog: VecDeque::new(),
        })
    }

    pub(super) fn inner(&self) -> &IoUring {
        &self.inner
    }

    pub(super) fn fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }

    /// Prepares a request; the next submission starts it.
    ///
    /// # Safety
    /// What the request points to lives, and what it writes to is nobody else's, until its last
    /// completion.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.bits());
        if self.backlog.is_empty() {
            if self.try_push(&entry) {
                return;
            }
            // Full: what is in goes now. An error shows again at the next submission.
            let _ = self.inner.submit();
            if self.try_push(&entry) {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: entries come from `push`, whose contract is the queue's.
        unsafe { self.inner.submission().push(entry) }.is_ok()
    }

    /// Whether a completion can be taken without a call.
    pub(super) fn has_completions(&self) -> bool {
        // SAFETY: the ring has one thread, so nobody else uses the queue meanwhile.
        !unsafe { self.inner.completion_shared() }.is_empty()
    }

    /// Whether the kernel has completions to make, for which it waits to be called.
    pub(super) fn has_task_work(&self) -> bool {
        // SAFETY: the ring has one thread, so nobody else uses the queue meanwhile.
        let queue = unsafe { self.inner.submission_shared() };
        queue.taskrun() || queue.cq_overflow()
    }

    pub(super) fn next(&mut self) -> Option<cqueue::Entry> {
        self.inner.completion().next()
    }

    /// Starts what was prepared and has the kernel make its completions; no call if there is
    /// nothing of either.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        while self.fill() > 0 || self.has_task_work() {
            let is_taken = passable(self.inner.submit())?;
            if !is_taken || self.backlog.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Starts what was prepared and sleeps until there is a completion; false after `until_ns`.
    pub(super) fn submit_and_sleep(&mut self, until_ns: u64) -> io::Result<bool> {
        self.fill();
        if !self.backlog.is_empty() {
            self.submit()?;
            return Ok(true);
        }
        if until_ns == FOREVER_NS {
            passable(self.inner.submitter().submit_and_wait(1))?;
            return Ok(true);
        }
        let rest_ns = until_ns.saturating_sub(clock::monotonic_ns());
        let rest = types::Timespec::from(Duration::from_nanos(rest_ns));
        let arguments = types::SubmitArgs::new().timespec(&rest);
        match self.inner.submitter().submit_with_args(1, &arguments) {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                // A completion may have come in the same moment.
                Ok(self.has_completions())
            }
            result => passable(result).map(|_| true),
        }
    }

    /// Moves the backlog into the queue; how many requests the queue has.
    fn fill(&mut self) -> usize {
        while let Some(entry) = self.backlog.front().cloned() {
            if !self.try_push(&entry) {
                break;
            }
            self.backlog.pop_front();
        }
        self.inner.submission().len()
    }
}

/// Whether a submission went through. A signal, or a kernel that has too many completions waiting
/// or no memory at the moment, is no reason to give the ring up: the next call tries again.
fn passable(result: io::Result<usize>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(false),
            _ => Err(error),
        },
    }
}

//! How queues tell a shard that they have something.
//!
//! A queue that was found empty is armed for a task ([`Place::is_ready_or_wakes`]): the first
//! writer after that calls the [`Nudge`], which lists the queue once and wakes the shard if it
//! sleeps.
//!
//! [`Place::is_ready_or_wakes`]: crate::place::Place

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use fastmq_driver::sockets;
use fastmq_memory::sync::{Mutex, lock};

/// A session of a shard; `serial` is not used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionKey {
    /// Its place in the shard.
    pub index: u32,
    /// Which of those that had the place.
    pub serial: u64,
}

/// Which queue of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Answers,
    Feed(u32),
}

/// Queues of one shard that have something.
#[derive(Default)]
pub(super) struct Inbox {
    listed: Mutex<Listed>,
    is_filled: AtomicBool,
    waker: Option<sockets::Waker>,
}

#[derive(Default)]
struct Listed {
    nudges: Vec<Arc<Nudge>>,
    /// How many there are: room for all, so that listing needs no memory.
    count: usize,
}

impl Inbox {
    /// For a shard that `waker` wakes.
    pub(super) fn new(waker: Option<sockets::Waker>) -> Arc<Self> {
        Arc::new(Self {
            waker,
            ..Self::default()
        })
    }

    /// Whether a queue has something. One load.
    pub(super) fn is_filled(&self) -> bool {
        self.is_filled.load(Ordering::SeqCst)
    }

    /// Moves what is listed to `to`. A queue may be listed again from here on.
    pub(super) fn take(&self, to: &mut Vec<Arc<Nudge>>) {
        if !self.is_filled.swap(false, Ordering::SeqCst) {
            return;
        }
        let from = to.len();
        to.append(&mut lock(&self.listed).nudges);
        for nudge in &to[from..] {
            nudge.is_listed.store(false, Ordering::SeqCst);
        }
    }
}

/// One queue's word to its shard.
pub(super) struct Nudge {
    inbox: Arc<Inbox>,
    pub(super) session: SessionKey,
    pub(super) source: Source,
    is_listed: AtomicBool,
}

impl Nudge {
    /// `None`: there is no memory to list it.
    pub(super) fn new(
        inbox: &Arc<Inbox>,
        session: SessionKey,
        source: Source,
    ) -> Option<Arc<Self>> {
        {
            let mut listed = lock(&inbox.listed);
            let missing = (listed.count + 1).saturating_sub(listed.nudges.len());
            listed.nudges.try_reserve(missing).ok()?;
            listed.count += 1;
        }
        Some(Arc::new(Self {
            inbox: inbox.clone(),
            session,
            source,
            is_listed: AtomicBool::new(false),
        }))
    }
}

impl Drop for Nudge {
    fn drop(&mut self) {
        lock(&self.inbox.listed).count -= 1;
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        if self.is_listed.swap(true, Ordering::SeqCst) {
            return;
        }
        let inbox = self.inbox.clone();
        lock(&inbox.listed).nudges.push(self);
        inbox.is_filled.store(true, Ordering::SeqCst);
        if let Some(waker) = &inbox.waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_listed_once_until_it_is_taken() {
        let inbox = Inbox::new(None);
        let key = SessionKey::default();
        let nudge = Nudge::new(&inbox, key, Source::Feed(3)).unwrap();
        assert!(!inbox.is_filled());
        nudge.clone().wake();
        nudge.clone().wake();
        assert!(inbox.is_filled());
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].source, Source::Feed(3));
        assert!(!inbox.is_filled());
        nudge.wake();
        inbox.take(&mut taken);
        assert_eq!(taken.len(), 2);
    }
}

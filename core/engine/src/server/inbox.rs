//! What comes to a shard from other threads: queues that have something, and connections.
//!
//! A queue that was found empty is armed for a task ([`Place::is_ready_or_wakes`]): the first
//! writer after that calls the [`Nudge`], which lists the queue once and wakes the shard if it
//! sleeps.
//!
//! The shard that accepts gives a connection to the one that has the fewest ([`place`]).
//!
//! [`Place::is_ready_or_wakes`]: crate::place::Place

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Wake;

use fastmq_driver::sockets::{self, Socket};
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
    /// Of none: a queue that refused a publish of the shard has room.
    Room,
    Answers,
    Feed(u32),
    /// The credit of a reply stream, by its number.
    Stream(u64),
}

/// A connection for another shard than the one that has accepted it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) socket: Socket,
    /// Names it among all of the server.
    pub(super) serial: u64,
}

/// What one shard is given by others. Opaque: it names the shard that it is given to.
#[derive(Default)]
pub struct Inbox {
    listed: Mutex<Listed>,
    is_filled: AtomicBool,
    /// Connections of the shard, those that it is about to take with them.
    connections: AtomicU32,
    waker: Option<sockets::Waker>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Listed {
    nudges: Vec<Arc<Nudge>>,
    /// How many there are: room for all, so that listing needs no memory.
    count: usize,
    arrived: Vec<Arrived>,
    /// The shard has ended.
    is_closed: bool,
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

    /// Moves what is listed to `to`, and new connections to `arrived`. A queue may be listed again
    /// from here on.
    pub(super) fn take(&self, to: &mut Vec<Arc<Nudge>>, arrived: &mut Vec<Arrived>) {
        if !self.is_filled.swap(false, Ordering::SeqCst) {
            return;
        }
        let from = to.len();
        {
            let mut listed = lock(&self.listed);
            to.append(&mut listed.nudges);
            arrived.append(&mut listed.arrived);
        }
        for nudge in &to[from..] {
            nudge.is_listed.store(false, Ordering::SeqCst);
        }
    }

    /// Connections that the shard has, or is about to have.
    pub(super) fn connection_count(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }

    /// There is one more.
    pub(super) fn count_in(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
    }

    /// There is one less.
    pub(super) fn count_out(&self) {
        self.connections.fetch_sub(1, Ordering::SeqCst);
    }

    /// Gives the shard a connection. Gives it back if the shard has ended, or without memory.
    pub(super) fn hand_over(&self, arrived: Arrived) -> Result<(), Arrived> {
        {
            let mut listed = lock(&self.listed);
            if listed.is_closed || listed.arrived.try_reserve(1).is_err() {
                return Err(arrived);
            }
            self.count_in();
            listed.arrived.push(arrived);
        }
        self.wake();
        Ok(())
    }

    /// The shard ends: what it was given and has not taken is closed.
    pub(super) fn close(&self, nudges: &mut Vec<Arc<Nudge>>) {
        let arrived = {
            let mut listed = lock(&self.listed);
            listed.is_closed = true;
            // Queues that are listed know the list.
            nudges.append(&mut listed.nudges);
            std::mem::take(&mut listed.arrived)
        };
        drop(arrived);
    }

    fn wake(&self) {
        self.is_filled.store(true, Ordering::SeqCst);
        if let Some(waker) = &self.waker {
            waker.wake();
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
        inbox.wake();
    }
}

/// Which of several shards gets one more connection: the first of those that have the fewest.
pub(super) fn place(shards: &[Arc<Inbox>]) -> Option<&Arc<Inbox>> {
    shards.iter().min_by_key(|inbox| inbox.connection_count())
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
        inbox.take(&mut taken, &mut Vec::new());
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].source, Source::Feed(3));
        assert!(!inbox.is_filled());
        nudge.wake();
        inbox.take(&mut taken, &mut Vec::new());
        assert_eq!(taken.len(), 2);
    }
}

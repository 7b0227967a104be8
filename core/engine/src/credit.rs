//! The credit of a reply stream: how many replies its responder may send, and how many it has sent.
//!
//! The responder counts what it sends, the asker grants more. Whoever ends the stream marks the
//! count, so that both know which reply was the last: one that was counted before the mark was
//! sent, or is taken back. A responder that waits has said so first and looked again; whoever
//! grants or ends looks for it afterwards.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Waker;

use crossbeam_utils::CachePadded;
use fastmq_memory::sync::OnceLock;

use crate::broker::Broker;

/// Marks the count of a stream that has ended.
const ENDED: u64 = 1 << 63;
/// A thread sleeps on `word`.
pub(crate) const THREAD: u32 = 1;
/// The user's own loop is to hear of it.
pub(crate) const LOOP: u32 = 2;
/// Whoever has left a waker is to be woken.
pub(crate) const TASK: u32 = 4;

#[derive(Debug)]
pub(crate) struct Credit {
    /// Replies sent, and [`ENDED`].
    sent: CachePadded<AtomicU64>,
    /// Replies granted; the asker adds.
    granted: CachePadded<AtomicU64>,
    /// Who waits.
    waiting: AtomicU32,
    /// Changed when a thread is woken.
    pub(crate) word: AtomicU32,
    /// It must not touch the asker's queue, whose surveys may be locked.
    task: OnceLock<Waker>,
}

impl Credit {
    pub(crate) fn new(granted: u64) -> Self {
        Self {
            sent: CachePadded::default(),
            granted: CachePadded::new(granted.into()),
            waiting: AtomicU32::new(0),
            word: AtomicU32::new(0),
            task: OnceLock::new(),
        }
    }

    /// Replies sent; final once the stream has ended, but for those that are taken back.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst) & !ENDED
    }

    pub(crate) fn granted(&self) -> u64 {
        self.granted.load(Ordering::SeqCst)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.sent.load(Ordering::SeqCst) & ENDED != 0
    }

    /// Counts a reply that is about to be sent; false: the stream has ended.
    pub(crate) fn begin(&self) -> bool {
        let count = |sent: u64| (sent & ENDED == 0).then_some(sent + 1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        self.sent.fetch_update(set, fetch, count).is_ok()
    }

    /// Takes a reply back that was counted and not sent; true: the stream has ended meanwhile, and
    /// the asker may wait for it.
    pub(crate) fn take_back(&self) -> bool {
        self.sent.fetch_sub(1, Ordering::SeqCst) & ENDED != 0
    }

    /// Grants more replies.
    pub(crate) fn grant(&self, broker: &Broker, replies: u64) {
        self.granted.fetch_add(replies, Ordering::SeqCst);
        self.wake(broker);
    }

    /// Marks the end.
    pub(crate) fn close(&self, broker: &Broker) {
        self.sent.fetch_or(ENDED, Ordering::SeqCst);
        self.wake(broker);
    }

    /// Says who waits. Look again afterwards.
    pub(crate) fn wait(&self, who: u32) {
        self.waiting.fetch_or(who, Ordering::SeqCst);
    }

    /// Who is woken as TASK; once.
    pub(crate) fn set_task(&self, waker: Waker) {
        let _ = self.task.set(waker);
    }

    fn wake(&self, broker: &Broker) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waiting = self.waiting.swap(0, Ordering::SeqCst);
        if waiting & THREAD != 0 {
            self.word.fetch_add(1, Ordering::Release);
            broker.driver.wake(&self.word, u32::MAX);
        }
        if waiting & LOOP != 0 {
            broker.polled.report_room();
        }
        if waiting & TASK != 0
            && let Some(task) = self.task.get()
        {
            task.wake_by_ref();
        }
    }
}

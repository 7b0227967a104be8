//! Figures of a client: sums over its writers and queues, those already gone included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastmq_memory::queue::QueueStatistics;
use fastmq_memory::sync::lock;

use crate::broker::Broker;

/// Counters of one writer; written by its thread only, so on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WriterCounters {
    pub(crate) published: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) answers: AtomicU64,
    pub(crate) inline: AtomicU64,
}

/// What writers and queues that are gone have counted.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    published: u64,
    refused: u64,
    requests: u64,
    answers: u64,
    inline: u64,
    delivered: u64,
    pub(crate) dropped: u64,
    expired: u64,
    locks: u64,
}

impl Retired {
    pub(crate) fn add_writer(&mut self, counters: &Arc<WriterCounters>) {
        self.published += counters.published.load(Ordering::Relaxed);
        self.refused += counters.refused.load(Ordering::Relaxed);
        self.requests += counters.requests.load(Ordering::Relaxed);
        self.answers += counters.answers.load(Ordering::Relaxed);
        self.inline += counters.inline.load(Ordering::Relaxed);
    }

    pub(crate) fn add_place(&mut self, statistics: &QueueStatistics) {
        self.delivered += statistics.delivered;
        self.dropped += statistics.dropped;
        self.expired += statistics.expired;
        self.locks += statistics.locks;
    }
}

/// Figures of a client since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Library threads that run now.
    pub threads: u32,
    /// Messages accepted from publishers, requests and answers not counted.
    pub published: u64,
    /// Messages, requests and answers given to readers and handlers.
    pub delivered: u64,
    /// Messages dropped by a queue's policy.
    pub dropped: u64,
    /// Messages that expired unread.
    pub expired: u64,
    /// Publishes refused with AGAIN, NO_SPACE or NO_MEMORY.
    pub refused: u64,
    /// Requests sent.
    pub requests: u64,
    /// Answers sent.
    pub answers: u64,
    /// Answers that came for a request that was over.
    pub late_answers: u64,
    /// Bytes of lanes, blocks and latest values now.
    pub memory: u64,
    /// The most there ever were.
    pub memory_high: u64,
    /// Queues that are open, those of requesters and handlers included.
    pub queues: u64,
    /// Subscriptions that are open.
    pub subscriptions: u64,
    /// Readings of the clock.
    pub clock_calls: u64,
    /// Locks of shared lanes taken.
    pub locks: u64,
    /// Times that a thread went to sleep.
    pub parks: u64,
    /// Wake-ups sent, signalled descriptors included.
    pub wakes: u64,
    /// Last values that are kept now.
    pub last_values: u64,
}

impl Broker {
    /// Counts messages that were lost on their way from one member of a group to another.
    pub(crate) fn count_lost(&self, messages: u64) {
        if messages > 0 {
            lock(&self.retired).dropped += messages;
        }
    }

    /// Figures of this client.
    pub fn statistics(&self) -> Statistics {
        let counters = self.driver.counters();
        let mut statistics = Statistics {
            threads: self.threads.count(),
            late_answers: self.late_answers.load(Ordering::Relaxed),
            memory: self.budget.used(),
            memory_high: self.budget.high(),
            queues: self.place_count(),
            subscriptions: self.subscription_count(),
            clock_calls: counters.clock_calls,
            parks: counters.parks,
            wakes: counters.wakes,
            last_values: self.kept.count(),
            ..Statistics::default()
        };
        self.each_writer(|writer| {
            statistics.published += writer.published.load(Ordering::Relaxed);
            statistics.refused += writer.refused.load(Ordering::Relaxed);
            statistics.requests += writer.requests.load(Ordering::Relaxed);
            statistics.answers += writer.answers.load(Ordering::Relaxed);
            statistics.delivered += writer.inline.load(Ordering::Relaxed);
        });
        for place in self.all_places() {
            let queue = place.statistics();
            statistics.delivered += queue.delivered;
            statistics.dropped += queue.dropped;
            statistics.expired += queue.expired;
            statistics.locks += queue.locks;
        }
        let retired = lock(&self.retired);
        statistics.published += retired.published;
        statistics.refused += retired.refused;
        statistics.requests += retired.requests;
        statistics.answers += retired.answers;
        statistics.delivered += retired.delivered + retired.inline;
        statistics.dropped += retired.dropped;
        statistics.expired += retired.expired;
        statistics.locks += retired.locks;
        statistics
    }
}

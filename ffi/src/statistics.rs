//! Statistics: structs that the library fills, as many bytes as the caller's version has.

use std::mem::{offset_of, size_of};
use std::ptr;

use fastmq::Result;

use crate::client::{check_parent, client_of, fastmq_client};
use crate::error::boundary;
use crate::handle::{self, find};
use crate::options::{Plain, size_of_struct};
use crate::queue::{fastmq_queue, queue_of};
use crate::status::fastmq_status;
use crate::subscription::{SubscriptionObject, fastmq_subscription};

/// Figures of a client since it was opened. Set `struct_size`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_client_statistics {
    /// sizeof(fastmq_client_statistics).
    pub struct_size: u32,
    /// Library threads that run now.
    pub threads: u32,
    /// Messages accepted from publishers; requests and answers not counted.
    pub published: u64,
    /// Messages, requests and answers given to readers and callbacks.
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
    /// Bytes of lanes, blocks, latest and last values now.
    pub memory: u64,
    /// The most there ever were.
    pub memory_high: u64,
    /// Queues that are open, those of requesters and callbacks included.
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

/// Figures of a queue since it was opened. Set `struct_size`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_queue_statistics {
    /// sizeof(fastmq_queue_statistics).
    pub struct_size: u32,
    /// Lanes that exist now.
    pub lanes: u32,
    /// Messages written; those dropped at the door not counted.
    pub published: u64,
    /// Messages given to the reader.
    pub delivered: u64,
    /// Messages dropped: refused at the door by drop_newest, or evicted.
    pub dropped: u64,
    /// Messages that expired unread.
    pub expired: u64,
    /// Messages that wait or are in an open batch.
    pub pending: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// The most bytes that the reader has seen waiting.
    pub high_water_bytes: u64,
    /// Locks of the shared lane taken.
    pub locks: u64,
    /// Times that the reader slept.
    pub waits: u64,
    /// Times that it was woken.
    pub wakes: u64,
    /// Messages of a latest queue that newer ones have replaced unread.
    pub replaced: u64,
}

/// Figures of a subscription since it was made. Set `struct_size`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_subscription_statistics {
    /// sizeof(fastmq_subscription_statistics).
    pub struct_size: u32,
    /// The number that its messages carry.
    pub id: u32,
    /// Messages delivered.
    pub delivered: u64,
    /// Messages dropped for it by its queue's policy.
    pub dropped: u64,
}

const _: () = {
    assert!(size_of::<fastmq_client_statistics>() == 144);
    assert!(offset_of!(fastmq_client_statistics, threads) == 4);
    assert!(offset_of!(fastmq_client_statistics, published) == 8);
    assert!(offset_of!(fastmq_client_statistics, memory) == 72);
    assert!(offset_of!(fastmq_client_statistics, wakes) == 128);
    assert!(offset_of!(fastmq_client_statistics, last_values) == 136);
    assert!(size_of::<fastmq_queue_statistics>() == 96);
    assert!(offset_of!(fastmq_queue_statistics, lanes) == 4);
    assert!(offset_of!(fastmq_queue_statistics, published) == 8);
    assert!(offset_of!(fastmq_queue_statistics, pending) == 40);
    assert!(offset_of!(fastmq_queue_statistics, wakes) == 80);
    assert!(size_of::<fastmq_subscription_statistics>() == 24);
    assert!(offset_of!(fastmq_subscription_statistics, id) == 4);
    assert!(offset_of!(fastmq_subscription_statistics, dropped) == 16);
};

// SAFETY: integers in C order without padding, zeros are a value, size first.
unsafe impl Plain for fastmq_client_statistics {
    const NAME: &'static str = "out";
    const FIRST_SIZE: usize = 136;
}

// SAFETY: as above.
unsafe impl Plain for fastmq_queue_statistics {
    const NAME: &'static str = "out";
    const FIRST_SIZE: usize = 88;
}

// SAFETY: as above.
unsafe impl Plain for fastmq_subscription_statistics {
    const NAME: &'static str = "out";
    const FIRST_SIZE: usize = 24;
}

/// Asks for the figures and writes as many bytes of them as the caller has.
///
/// # Safety
/// Unless it is NULL, `out` is readable for 4 bytes and writable for the `struct_size` in them.
unsafe fn fill<T: Plain>(out: *mut T, figures: impl FnOnce(u32) -> Result<T>) -> Result<()> {
    // SAFETY: by the contract.
    let size = unsafe { size_of_struct(out.cast_const()) }?;
    let value = figures(size as u32)?;
    let known = size.min(size_of::<T>());
    let from = (&raw const value).cast::<u8>();
    // SAFETY: `value` has at least `known` bytes, `out` too by the contract, and `value` is ours.
    unsafe { ptr::copy_nonoverlapping(from, out.cast::<u8>(), known) };
    Ok(())
}

/// Gives the figures of a client.
///
/// Writes `out->struct_size` bytes at most. Safe from any thread; consistent only when nothing is
/// under way.
/// Returns OK, INVALID, MISUSE.
///
/// # Safety
/// `out` is NULL or writable for its `struct_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_client_statistics_read(
    client: *mut fastmq_client,
    out: *mut fastmq_client_statistics,
) -> fastmq_status {
    boundary(|| {
        let figures = |struct_size| {
            let figures = client_of(client)?.statistics();
            Ok(fastmq_client_statistics {
                struct_size,
                threads: figures.threads,
                published: figures.published,
                delivered: figures.delivered,
                dropped: figures.dropped,
                expired: figures.expired,
                refused: figures.refused,
                requests: figures.requests,
                answers: figures.answers,
                late_answers: figures.late_answers,
                memory: figures.memory,
                memory_high: figures.memory_high,
                queues: figures.queues,
                subscriptions: figures.subscriptions,
                clock_calls: figures.clock_calls,
                locks: figures.locks,
                parks: figures.parks,
                wakes: figures.wakes,
                last_values: figures.last_values,
            })
        };
        // SAFETY: by the contract.
        unsafe { fill(out, figures) }
    })
}

/// Gives the figures of a queue.
///
/// As fastmq_client_statistics_read. Returns OK, CLOSED, INVALID, MISUSE.
///
/// # Safety
/// `out` is NULL or writable for its `struct_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_queue_statistics_read(
    queue: *mut fastmq_queue,
    out: *mut fastmq_queue_statistics,
) -> fastmq_status {
    boundary(|| {
        let figures = |struct_size| {
            let queue = queue_of(queue)?;
            check_parent(queue.client())?;
            let figures = queue.statistics();
            let (waits, wakes) = queue.waits();
            Ok(fastmq_queue_statistics {
                struct_size,
                lanes: figures.lanes,
                published: figures.published,
                delivered: figures.delivered,
                dropped: figures.dropped,
                expired: figures.expired,
                pending: figures.pending,
                pending_bytes: figures.pending_bytes,
                high_water_bytes: figures.high_water_bytes,
                locks: figures.locks,
                waits,
                wakes,
                replaced: figures.replaced,
            })
        };
        // SAFETY: by the contract.
        unsafe { fill(out, figures) }
    })
}

/// Gives the figures of a subscription.
///
/// As fastmq_client_statistics_read. Returns OK, CLOSED, INVALID, MISUSE.
///
/// # Safety
/// `out` is NULL or writable for its `struct_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_subscription_statistics_read(
    subscription: *mut fastmq_subscription,
    out: *mut fastmq_subscription_statistics,
) -> fastmq_status {
    boundary(|| {
        let figures = |struct_size| {
            let number = handle::number(subscription);
            let slot = find::<SubscriptionObject>(number)?;
            slot.look(number, |object| {
                check_parent(&object.client)?;
                let (delivered, dropped) = object.subscription.counts();
                let id = object.subscription.id();
                Ok(fastmq_subscription_statistics {
                    struct_size,
                    id,
                    delivered,
                    dropped,
                })
            })?
        };
        // SAFETY: by the contract.
        unsafe { fill(out, figures) }
    })
}

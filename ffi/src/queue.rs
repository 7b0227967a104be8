//! Queues: open, receive, close.
//!
//! A queue that belongs to a subscription has a handle that is only lent: the subscription closes
//! it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use fastmq::border::wait_any;
use fastmq::{Error, Fault, Queue, Result, Status};

use crate::batch::{QUEUE_BATCH, fastmq_batch};
use crate::bytes::{Out, is_null};
use crate::client::{check_parent, client_of, fastmq_client};
use crate::error::{boundary, closing, guarded};
use crate::handle::{self, Hold, Kind, Object, Table, compose, enter, find, kind};
use crate::options::{fastmq_queue_options, read_or_default};
use crate::status::fastmq_status;

/// A place where messages wait until they are received.
pub struct fastmq_queue;

static QUEUES: Table<QueueObject> = Table::new();

/// What the handle names; on cache lines of its own, as its reader writes beside it.
#[repr(align(128))]
pub(crate) struct QueueObject {
    pub(crate) queue: Queue,
    /// The subscription closes it.
    is_lent: bool,
}

impl Object for QueueObject {
    const KIND: Kind = kind!(3, "queue");
    type Beside = OpenBatch;
    fn table() -> &'static Table<Self> {
        &QUEUES
    }
}

/// The handle of the batch that is open, beside the queue that it belongs to.
#[derive(Default)]
pub(crate) struct OpenBatch {
    number: AtomicU64,
    generation: AtomicU32,
}

/// A batch that is being freed.
const FREEING: u64 = 1;

impl Hold for OpenBatch {
    fn is_held(&self) -> bool {
        self.number.load(Ordering::Acquire) != 0
    }
}

/// Lets a receive begin, unless a batch is open or still being freed.
///
/// The right to read comes back before the freeing has ended; whoever opened another batch then
/// would have its handle overwritten.
#[inline(always)]
pub(crate) fn check_vacant(open: &OpenBatch, queue: &Queue) -> Result<()> {
    if open.is_held() {
        return Err(ended(queue, queue.place().busy()));
    }
    Ok(())
}

impl OpenBatch {
    /// Gives the batch that was just opened its handle. Only the one reader calls this.
    #[inline(always)]
    pub(crate) fn open(&self, kind: u8, index: u32) -> *mut fastmq_batch {
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1);
        self.generation.store(generation, Ordering::Relaxed);
        let number = compose(u64::from(generation), kind, index);
        self.number.store(number, Ordering::Relaxed);
        handle::handle(number)
    }

    /// True while the batch with this handle is open.
    #[inline(always)]
    pub(crate) fn is(&self, number: u64) -> bool {
        self.number.load(Ordering::Relaxed) == number
    }

    /// The batch's handle ends; its queue stays held.
    #[inline(always)]
    pub(crate) fn begin_free(&self) {
        self.number.store(FREEING, Ordering::Relaxed);
    }

    /// The queue is no longer held. No batch was opened meanwhile: see [`check_vacant`].
    #[inline(always)]
    pub(crate) fn end_free(&self) {
        self.number.store(0, Ordering::Release);
    }
}

/// Gives a subscription's own queue a handle that is lent.
pub(crate) fn lend(queue: Queue) -> Result<u64> {
    QUEUES.open(QueueObject {
        queue,
        is_lent: true,
    })
}

/// Takes the handle of a lent queue back; the queue itself was closed by its subscription.
pub(crate) fn take_back(number: u64) {
    let _ = handle::close::<QueueObject, ()>(number, |_| (), |()| ());
}

/// The queue of a handle.
pub(crate) fn queue_of(queue: *const fastmq_queue) -> Result<Queue> {
    let number = handle::number(queue);
    find::<QueueObject>(number)?.look(number, |object| object.queue.clone())
}

/// Opens a queue that several subscriptions may feed.
///
/// `options` is borrowed until the call returns; NULL: the defaults. `*out` is yours until
/// fastmq_queue_close. Safe from any thread.
/// Returns OK, INVALID, CLOSED, NO_MEMORY, MISUSE.
///
/// # Safety
/// `options` is NULL or readable for its `struct_size`; `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_queue_open(
    client: *mut fastmq_client,
    options: *const fastmq_queue_options,
    out: *mut *mut fastmq_queue,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        // SAFETY: by the contract.
        let options = unsafe { read_or_default(options) }?.convert()?;
        let queue = client_of(client)?.queue(options)?;
        let opened = QUEUES.open(QueueObject {
            queue: queue.clone(),
            is_lent: false,
        });
        // Nobody else has it: without a handle it would stay open for ever.
        let number = opened.inspect_err(|_| queue.close())?;
        out.set(handle::handle(number));
        Ok(())
    })
}

/// Gives the queue's descriptor for epoll or poll: readable exactly while there is something to
/// receive.
///
/// The descriptor is the library's: only wait on it. Safe from any thread.
/// Returns -1 on failure: IO, CLOSED, INVALID, MISUSE in fastmq_last_error.
///
/// # Safety
/// None: any value of `queue` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_queue_fd(queue: *mut fastmq_queue) -> i32 {
    guarded(-1, || {
        let queue = queue_of(queue)?;
        check_parent(queue.client())?;
        queue.fd()
    })
}

/// Receives up to `message_max` messages (0: as many as a batch holds), waiting for the first for
/// at most `timeout_ns`.
///
/// `*out` is never an empty batch, and yours until fastmq_batch_free; a queue has at most one open
/// batch. One thread at a time.
/// Returns OK, AGAIN (nothing is there, and the time-out is 0), TIMEOUT, END (the client was
/// drained), NO_MEMORY, CLOSED, CORRUPT, INVALID, MISUSE (a batch is open, or another thread
/// receives).
///
/// # Safety
/// `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_receive(
    queue: *mut fastmq_queue,
    message_max: u32,
    timeout_ns: u64,
    out: *mut *mut fastmq_batch,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        let entered = enter::<QueueObject>(handle::number(queue))?;
        let queue = &entered.object()?.queue;
        check_vacant(&entered.slot.beside, queue)?;
        let limit = message_max as usize;
        let batch = queue
            .receive(limit, timeout_ns)
            .map_err(|error| ended(queue, error))?;
        out.set(entered.slot.beside.open(QUEUE_BATCH, entered.index()));
        batch.keep_open();
        Ok(())
    })
}

/// Waits until one of `count` queues (1 to 1,024) has something to receive, and says which.
///
/// `*out_index` gets its place in `queues`; a receive there does not wait, though it may say AGAIN
/// if the messages have expired. The look begins behind the queue that this thread's last
/// wait found, so that none is passed over. Waits as the most eager of the queues does; each is
/// received from by this thread only meanwhile. The queues may belong to several clients, and
/// `queues` is borrowed until the call returns.
/// Returns OK, AGAIN (nothing is there, and the time-out is 0), TIMEOUT, END (a queue is empty, and
/// its client was drained), CLOSED (so is a queue or its client), NO_MEMORY, INVALID, MISUSE (a
/// handle is not open, also if it is closed meanwhile; a batch is open, or another thread
/// receives).
///
/// # Safety
/// `queues` is readable for `count` handles; `out_index` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_wait_any(
    queues: *const *mut fastmq_queue,
    count: usize,
    timeout_ns: u64,
    out_index: *mut usize,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out_index, 0, "out_index") }?;
        if queues.is_null() {
            return Err(is_null("queues"));
        }
        let index = wait_any(count, timeout_ns, |index, look| {
            // SAFETY: below `count`, so readable by the contract.
            let queue = unsafe { queues.wrapping_add(index).read() };
            let entered = enter::<QueueObject>(handle::number(queue))?;
            let queue = &entered.object()?.queue;
            check_vacant(&entered.slot.beside, queue)?;
            look(queue.place(), queue.client().broker()).map_err(|error| ended(queue, error))
        })?;
        out.set(index);
        Ok(())
    })
}

/// END is for a queue that was drained; one that was closed is CLOSED.
#[cold]
pub(crate) fn ended(queue: &Queue, error: Error) -> Error {
    if error.status() == Status::End && queue.place().is_closed() {
        return Error::new(&Fault(Status::Closed, "the queue is closed"));
    }
    error
}

/// Closes a queue and ends the subscriptions that feed it; a receive that waits returns CLOSED.
///
/// Takes NULL. An open batch stays readable until it is freed. Safe from any thread. The queue of
/// a subscription is closed by fastmq_unsubscribe. In a forked child it ends the handle only.
///
/// # Safety
/// None: any value of `queue` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_queue_close(queue: *mut fastmq_queue) {
    if queue.is_null() {
        return;
    }
    closing(|| {
        let number = handle::number(queue);
        if fastmq::border::fork::is_forked_child() {
            return handle::close::<QueueObject, ()>(number, |_| (), |()| ());
        }
        if find::<QueueObject>(number)?.look(number, |object| object.is_lent)? {
            let fault = &Fault(
                Status::Misuse,
                "this queue belongs to a subscription; fastmq_unsubscribe closes it",
            );
            return Err(Error::new(fault));
        }
        let copy = |object: &QueueObject| object.queue.clone();
        handle::close::<QueueObject, _>(number, copy, |queue: Queue| queue.close())
    });
}

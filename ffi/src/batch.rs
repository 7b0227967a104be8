//! Batches: what a receive gave, read in place, and copies that outlive it.
//!
//! A batch in place has no slot of its own: its handle names the queue or requester that it was
//! received from, with a generation of its own.

use std::ptr;

use fastmq::{Detached, Error, Queue, Result, View};

use crate::bytes::Out;
use crate::error::{boundary, closing, guarded};
use crate::handle::{self, Kind, Object, Slot, Table, enter, kind};
use crate::message::{fastmq_message, for_c};
use crate::queue::{OpenBatch, QueueObject};
use crate::request::RequesterObject;
use crate::status::fastmq_status;

/// Received messages, open until they are freed. Used by one thread at a time.
pub struct fastmq_batch;

/// Type of a batch that a queue gave.
pub(crate) const QUEUE_BATCH: u8 = 7;
/// Type of a batch that a requester gave.
pub(crate) const REQUESTER_BATCH: u8 = 8;

static DETACHED: Table<Detached> = Table::new();

impl Object for Detached {
    const KIND: Kind = kind!(9, "batch");
    type Beside = ();
    fn table() -> &'static Table<Self> {
        &DETACHED
    }
}

/// Gives copied messages a handle.
pub(crate) fn open_detached(detached: Detached) -> Result<*mut fastmq_batch> {
    Ok(handle::handle(DETACHED.open(detached)?))
}

/// An object that batches are received from.
trait Source: Object<Beside = OpenBatch> {
    fn queue(&self) -> &Queue;
}

impl Source for QueueObject {
    #[inline(always)]
    fn queue(&self) -> &Queue {
        &self.queue
    }
}

impl Source for RequesterObject {
    #[inline(always)]
    fn queue(&self) -> &Queue {
        &self.queue
    }
}

/// The slot that an open batch belongs to.
#[inline(always)]
fn slot_of<S: Source>(number: u64) -> Result<&'static Slot<S>> {
    match S::table().slot(number) {
        Some(slot) if slot.beside.is(number) => Ok(slot),
        _ => Err(refusal(number)),
    }
}

#[cold]
fn refusal(number: u64) -> Error {
    match handle::type_of(number) {
        _ if number == 0 => Error::new(Detached::KIND.null),
        QUEUE_BATCH | REQUESTER_BATCH => Error::new(Detached::KIND.stale),
        _ => Error::new(Detached::KIND.foreign),
    }
}

/// The messages of an open batch.
///
/// # Safety
/// The batch is not freed while the result is used.
#[inline(always)]
unsafe fn views<S: Source>(number: u64) -> Result<&'static [View]> {
    let slot = slot_of::<S>(number)?;
    // SAFETY: the batch is open, so the slot is held, and by the contract it stays so.
    let object = unsafe { slot.held() }?;
    // SAFETY: as above; the views change only when the batch is freed.
    Ok(unsafe { object.queue().place().lanes().open_views() })
}

/// When a batch was received.
fn received_ns(number: u64) -> Result<u64> {
    match handle::type_of(number) {
        QUEUE_BATCH => received_in_place_ns::<QueueObject>(number),
        REQUESTER_BATCH => received_in_place_ns::<RequesterObject>(number),
        _ => Ok(enter::<Detached>(number)?.object()?.received_ns),
    }
}

fn received_in_place_ns<S: Source>(number: u64) -> Result<u64> {
    let slot = slot_of::<S>(number)?;
    // SAFETY: the batch is open and one thread at a time uses it, so the slot stays held.
    let object = unsafe { slot.held() }?;
    Ok(object.queue().place().lanes().received_ns())
}

/// Frees a batch in place.
#[inline(always)]
fn free<S: Source>(number: u64) -> Result<()> {
    let slot = slot_of::<S>(number)?;
    let owner = slot.number();
    // SAFETY: the batch is open, so the slot is held; we end that below.
    let queue = unsafe { slot.held() }?.queue();
    slot.beside.begin_free();
    // SAFETY: the batch was open and its handle has just ended, so nobody else does this.
    drop(unsafe { queue.place().lanes().open_batch() });
    queue.place().finish(queue.client().broker());
    slot.beside.end_free();
    // A handle that was closed before never equals `owner` when that has no type.
    slot.left(if handle::type_of(owner) == 0 {
        0
    } else {
        owner
    });
    Ok(())
}

/// Gives the messages of a batch, in the order in which they are to be handled.
///
/// The array and all that it points to live until fastmq_batch_free. One thread at a time.
/// Returns NULL with `*out_count` 0 on failure: INVALID, MISUSE in fastmq_last_error.
///
/// # Safety
/// `out_count` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_batch_messages(
    batch: *const fastmq_batch,
    out_count: *mut usize,
) -> *const fastmq_message {
    guarded(ptr::null(), || {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out_count, 0, "out_count") }?;
        let number = handle::number(batch);
        let views = match handle::type_of(number) {
            // SAFETY: the caller reads the messages before it frees the batch.
            QUEUE_BATCH => unsafe { views::<QueueObject>(number) }?,
            // SAFETY: as above.
            REQUESTER_BATCH => unsafe { views::<RequesterObject>(number) }?,
            _ => {
                let entered = enter::<Detached>(number)?;
                let messages = entered.object()?.messages();
                out.set(messages.len());
                return Ok(for_c(messages.as_ptr()));
            }
        };
        out.set(views.len());
        Ok(for_c(views.as_ptr()))
    })
}

/// Gives the time when a batch was received, in Unix nanoseconds; 0 if the client was opened
/// without time stamps.
///
/// One thread at a time. Returns 0 on failure, too: INVALID, MISUSE in fastmq_last_error.
///
/// # Safety
/// None: any value of `batch` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_batch_time(batch: *const fastmq_batch) -> u64 {
    guarded(0, || received_ns(handle::number(batch)))
}

/// Copies a batch out, so that its queue gets its room back, and closes it.
///
/// `*out` is yours until fastmq_batch_free, also after the queue and the client are closed. After a
/// failure `batch` is as it was. One thread at a time.
/// Returns OK, NO_MEMORY, INVALID, MISUSE.
///
/// # Safety
/// `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_batch_detach(
    batch: *mut fastmq_batch,
    out: *mut *mut fastmq_batch,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        let number = handle::number(batch);
        let received_ns = received_ns(number)?;
        let copy = |views: &[View]| {
            let mut detached = Detached::copy(views).ok_or(Error::NO_MEMORY)?;
            detached.received_ns = received_ns;
            open_detached(detached)
        };
        let copied = match handle::type_of(number) {
            QUEUE_BATCH => {
                // SAFETY: the views are copied before the batch is freed.
                let copied = copy(unsafe { views::<QueueObject>(number) }?)?;
                free::<QueueObject>(number)?;
                copied
            }
            REQUESTER_BATCH => {
                // SAFETY: as above.
                let copied = copy(unsafe { views::<RequesterObject>(number) }?)?;
                free::<RequesterObject>(number)?;
                copied
            }
            _ => {
                let copied = copy(enter::<Detached>(number)?.object()?.messages())?;
                handle::close::<Detached, ()>(number, |_| (), |()| ())?;
                copied
            }
        };
        out.set(copied);
        Ok(())
    })
}

/// Frees a batch; its queue gets the room back.
///
/// Takes NULL. One thread at a time. In a forked child it does nothing.
///
/// # Safety
/// Nothing that the batch gave is used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_batch_free(batch: *mut fastmq_batch) {
    if batch.is_null() {
        return;
    }
    closing(|| {
        if fastmq::border::fork::is_forked_child() {
            return Ok(());
        }
        let number = handle::number(batch);
        match handle::type_of(number) {
            QUEUE_BATCH => free::<QueueObject>(number),
            REQUESTER_BATCH => free::<RequesterObject>(number),
            _ => handle::close::<Detached, ()>(number, |_| (), |()| ()),
        }
    });
}

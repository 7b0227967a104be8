//! Publishing: by subject through the client, and through publisher handles.

use std::mem::size_of;
use std::slice;

use fastmq::{Error, Fault, Message, Publisher, Result, Status};

use crate::bytes::{Out, fastmq_bytes, is_null};
use crate::client::{client_of, fastmq_client, here};
use crate::error::{boundary, closing, guarded};
use crate::handle::{self, Kind, Object, Own, Table, enter, kind};
use crate::message::{fastmq_outgoing, with_message};
use crate::options::size_of_struct;
use crate::status::fastmq_status;

/// A subject to publish to: the fastest way. Used by one thread at a time.
pub struct fastmq_publisher;

static PUBLISHERS: Table<Own<Publisher>> = Table::new();

impl Object for Own<Publisher> {
    const KIND: Kind = kind!(2, "publisher");
    type Beside = ();
    fn table() -> &'static Table<Self> {
        &PUBLISHERS
    }
}

#[inline(always)]
fn with_publisher<R>(
    publisher: *const fastmq_publisher,
    body: impl FnOnce(&mut Publisher) -> Result<R>,
) -> Result<R> {
    let entered = enter::<Own<Publisher>>(handle::number(publisher))?;
    let object = entered.object()?;
    // SAFETY: we have entered the slot, and this is the only use of its object.
    body(unsafe { object.get() })
}

/// Publishes one message by subject to every subscription whose pattern matches, and to one member
/// of each group.
///
/// `subject` and `payload` are borrowed until the call returns, which does not block. Safe from any
/// thread; each thread's messages keep their order.
/// Returns OK, AGAIN (a queue is full, and nobody got the message), INVALID, DENIED (the subject
/// begins with $SYS), TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED, MISUSE.
///
/// # Safety
/// Both byte ranges are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publish(
    client: *mut fastmq_client,
    subject: fastmq_bytes,
    payload: fastmq_bytes,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let subject = unsafe { subject.read("subject") }?;
        // SAFETY: by the contract.
        let payload = unsafe { payload.read("payload") }?;
        here(client, |here| here.writer.publish(subject, payload))
    })
}

/// Publishes one message with all its fields.
///
/// As fastmq_publish; `message` and what it points to are borrowed until the call returns.
///
/// # Safety
/// `message` is NULL or readable for its `struct_size`, and so are its byte ranges.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publish_message(
    client: *mut fastmq_client,
    message: *const fastmq_outgoing,
) -> fastmq_status {
    boundary(|| {
        let publish =
            |message: &Message<'_>, _| here(client, |here| here.writer.publish_message(message));
        // SAFETY: by the contract.
        unsafe { with_message(message, publish) }
    })
}

/// Forgets the last value of a subject (FASTMQ_OUTGOING_KEEP_LAST).
///
/// Who subscribed before may still receive it. A publish that is under way may set another. Safe
/// from any thread.
/// Returns OK, NOT_FOUND (none is kept), INVALID (not a subject), CLOSED, MISUSE.
///
/// # Safety
/// `subject` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_forget_last(
    client: *mut fastmq_client,
    subject: fastmq_bytes,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let subject = unsafe { subject.read("subject") }?;
        client_of(client)?.forget_last(subject)
    })
}

/// Publishes several messages in order, up to the first that is refused.
///
/// `*out_accepted` says how many were published. As fastmq_publish; all messages have the same
/// `struct_size`, which is their distance.
///
/// # Safety
/// `messages` is readable for `count` structs, and so are their byte ranges; `out_accepted` is
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publish_batch(
    client: *mut fastmq_client,
    messages: *const fastmq_outgoing,
    count: usize,
    out_accepted: *mut usize,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out_accepted, 0, "out_accepted") }?;
        here(client, |here| {
            if count == 0 {
                return Ok(());
            }
            // SAFETY: by the contract.
            let stride = unsafe { size_of_struct(messages) }?;
            let step = |index: usize| messages.cast::<u8>().wrapping_add(index * stride).cast();
            for index in 0..count {
                let message: *const fastmq_outgoing = step(index);
                // SAFETY: one of the `count` structs of the contract.
                if unsafe { size_of_struct(message) }? != stride {
                    return Err(unequal_sizes(index));
                }
                // SAFETY: as above.
                unsafe {
                    with_message(message, |message, _| here.writer.publish_message(message))
                }?;
                out.set(index + 1);
            }
            Ok(())
        })
    })
}

#[cold]
fn unequal_sizes(index: usize) -> Error {
    Error::with(
        &Fault(Status::Invalid, "struct_size differs between messages"),
        format_args!("struct_size of message {index} differs from 0's"),
    )
}

const _: () = assert!(size_of::<fastmq_outgoing>().is_multiple_of(8));

/// Publishes one message, waiting for room for at most `timeout_ns`.
///
/// As fastmq_publish_message, but it may block. A callback of the full queue must not call it.
/// Returns as fastmq_publish, and TIMEOUT, and MISUSE inside a callback of the full queue.
///
/// # Safety
/// As for fastmq_publish_message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publish_wait(
    client: *mut fastmq_client,
    message: *const fastmq_outgoing,
    timeout_ns: u64,
) -> fastmq_status {
    boundary(|| {
        let publish =
            |message: &Message<'_>, _| here(client, |here| here.publish_wait(message, timeout_ns));
        // SAFETY: by the contract.
        unsafe { with_message(message, publish) }
    })
}

/// Opens a publisher for one subject.
///
/// `subject` is copied. `*out` is yours until fastmq_publisher_close. Safe from any thread.
/// Returns OK, INVALID, DENIED (the subject begins with $SYS), CLOSED, NO_MEMORY, MISUSE.
///
/// # Safety
/// `subject` is readable; `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publisher_open(
    client: *mut fastmq_client,
    subject: fastmq_bytes,
    out: *mut *mut fastmq_publisher,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        // SAFETY: by the contract.
        let subject = unsafe { subject.read("subject") }?;
        let publisher = client_of(client)?.publisher(subject)?;
        out.set(handle::handle(PUBLISHERS.open(Own::new(publisher))?));
        Ok(())
    })
}

/// Publishes one payload to the publisher's subject.
///
/// `payload` is borrowed until the call returns, which does not block. One thread at a time.
/// Returns as fastmq_publish.
///
/// # Safety
/// `payload` is readable; no other call uses the publisher.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publisher_publish(
    publisher: *mut fastmq_publisher,
    payload: fastmq_bytes,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let payload = unsafe { payload.read("payload") }?;
        with_publisher(publisher, |publisher| publisher.publish(payload))
    })
}

/// Publishes one message with all its fields; its subject must be empty.
///
/// As fastmq_publisher_publish; `message` and what it points to are borrowed until the call
/// returns.
///
/// # Safety
/// As for fastmq_publish_message; no other call uses the publisher.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publisher_publish_message(
    publisher: *mut fastmq_publisher,
    message: *const fastmq_outgoing,
) -> fastmq_status {
    boundary(|| {
        let publish = |message: &Message<'_>, _| {
            with_publisher(publisher, |publisher| publisher.publish_message(message))
        };
        // SAFETY: by the contract.
        unsafe { with_message(message, publish) }
    })
}

/// Publishes several payloads in order, up to the first that is refused.
///
/// `*out_accepted` says how many were published. Readers may see them all at once. As
/// fastmq_publisher_publish.
///
/// # Safety
/// `payloads` is readable for `count` structs, and so are their byte ranges; `out_accepted` is
/// writable; no other call uses the publisher.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publisher_publish_batch(
    publisher: *mut fastmq_publisher,
    payloads: *const fastmq_bytes,
    count: usize,
    out_accepted: *mut usize,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out_accepted, 0, "out_accepted") }?;
        let payloads = if count == 0 {
            &[]
        } else if payloads.is_null() || count > isize::MAX as usize / size_of::<fastmq_bytes>() {
            return Err(is_null("payloads"));
        } else {
            // SAFETY: not NULL, not too large for a slice, and readable by the contract.
            unsafe { slice::from_raw_parts(payloads, count) }
        };
        with_publisher(publisher, |publisher| {
            let mut bad = None;
            let good = payloads.iter().map_while(|payload| {
                // SAFETY: by the contract.
                match unsafe { payload.read("payload") } {
                    Ok(payload) => Some(payload),
                    Err(error) => {
                        bad = Some(error);
                        None
                    }
                }
            });
            let (accepted, result) = publisher.publish_batch(good);
            out.set(accepted);
            result.and(bad.map_or(Ok(()), Err))
        })
    })
}

/// Publishes one payload, waiting for room for at most `timeout_ns`.
///
/// As fastmq_publisher_publish, but it may block. A callback of the full queue must not call it.
/// Returns as fastmq_publish, and TIMEOUT, and MISUSE inside a callback of the full queue.
///
/// # Safety
/// As for fastmq_publisher_publish.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publisher_publish_wait(
    publisher: *mut fastmq_publisher,
    payload: fastmq_bytes,
    timeout_ns: u64,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let payload = unsafe { payload.read("payload") }?;
        with_publisher(publisher, |publisher| {
            publisher.publish_wait(payload, timeout_ns)
        })
    })
}

/// Claims room for one payload of at most `size` bytes, to be written in place and committed.
///
/// `*out` is yours to write until fastmq_publisher_commit or fastmq_publisher_abandon is called,
/// whatever the commit returns, or the publisher is closed; it is aligned to 8 bytes, and what is
/// there at first is unspecified. A publisher has one claim at a time and publishes nothing else
/// meanwhile: MISUSE. One that is never committed keeps nobody from anything. Does not block. One
/// thread at a time.
/// Returns OK, AGAIN (a queue is full), TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED, MISUSE, INVALID.
///
/// # Safety
/// `out` is writable; no other call uses the publisher; nothing is written to `*out` later than
/// said above, nor behind its `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publisher_claim(
    publisher: *mut fastmq_publisher,
    size: usize,
    out: *mut *mut u8,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, std::ptr::null_mut(), "out") }?;
        with_publisher(publisher, |publisher| {
            out.set(publisher.open_claim(size)?);
            Ok(())
        })
    })
}

/// Publishes the first `size` bytes of the publisher's open claim to whoever subscribes now.
///
/// Whatever is not OK leaves the claim open with its bytes as they are: commit it again or abandon
/// it. Does not block. One thread at a time.
/// Returns as fastmq_publish, and INVALID for more bytes than were claimed, and MISUSE without a
/// claim. AGAIN is rare, as there was room for the claim: a queue came since, or shares the room
/// that it had with other publishers.
///
/// # Safety
/// No other call uses the publisher.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publisher_commit(
    publisher: *mut fastmq_publisher,
    size: usize,
) -> fastmq_status {
    boundary(|| with_publisher(publisher, |publisher| publisher.commit(size)))
}

/// Gives the publisher's open claim back unpublished; without one it does nothing.
///
/// Takes NULL. One thread at a time.
///
/// # Safety
/// No other call uses the publisher.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publisher_abandon(publisher: *mut fastmq_publisher) {
    if publisher.is_null() {
        return;
    }
    guarded((), || {
        with_publisher(publisher, |publisher| {
            publisher.abandon();
            Ok(())
        })
    });
}

/// Closes a publisher; what it published stays, an open claim is abandoned.
///
/// Takes NULL. Inside a callback of its own publish it is freed when that publish returns. In a
/// forked child it ends the handle only.
///
/// # Safety
/// None: any value of `publisher` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_publisher_close(publisher: *mut fastmq_publisher) {
    if publisher.is_null() {
        return;
    }
    closing(|| handle::close::<Own<Publisher>, ()>(handle::number(publisher), |_| (), |()| ()));
}

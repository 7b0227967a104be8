//! Asking and answering: one question at a time by client, many in flight by requester.

use std::slice;

use fastmq::{
    Detached, Error, Fault, Message, Queue, ReplyBuffer, Requester, RequesterOptions, Result,
    Status, View,
};

use crate::batch::{REQUESTER_BATCH, fastmq_batch, open_detached};
use crate::bytes::{Out, fastmq_bytes, is_null};
use crate::client::{check_parent, client_of, fastmq_client, here};
use crate::error::{boundary, closing, guarded};
use crate::handle::{self, Kind, Object, Own, Table, enter, kind};
use crate::message::{check_zero, fastmq_outgoing, with_answer, with_message};
use crate::options::{fastmq_requester_options, read_or_default, wait_of};
use crate::queue::{OpenBatch, check_vacant, ended};
use crate::status::fastmq_status;

/// Many requests in flight. Used by one thread at a time.
pub struct fastmq_requester;

static REQUESTERS: Table<RequesterObject> = Table::new();

/// What the handle names.
pub(crate) struct RequesterObject {
    requester: Own<Requester>,
    /// Where its answers wait; what its batches are read from.
    pub(crate) queue: Queue,
}

impl Object for RequesterObject {
    const KIND: Kind = kind!(5, "requester");
    type Beside = OpenBatch;
    fn table() -> &'static Table<Self> {
        &REQUESTERS
    }
}

#[inline(always)]
pub(crate) fn with_requester<R>(
    requester: *const fastmq_requester,
    body: impl FnOnce(&mut Requester) -> Result<R>,
) -> Result<R> {
    let entered = enter::<RequesterObject>(handle::number(requester))?;
    let object = entered.object()?;
    // SAFETY: we have entered the slot, and this is the only use of the requester in it.
    body(unsafe { object.requester.get() })
}

/// As `with_requester`, for calls that do not go through the engine's own check.
fn with_open_requester<R>(
    requester: *const fastmq_requester,
    body: impl FnOnce(&mut Requester) -> Result<R>,
) -> Result<R> {
    with_requester(requester, |requester| {
        if requester.broker().is_closed() {
            return Err(Error::CLOSED);
        }
        body(requester)
    })
}

/// Asks by `ask` and says what came.
///
/// # Safety
/// `payload` is readable; unless it is NULL, `reply` is writable for `capacity` bytes; `out_size`
/// is writable; nobody else uses these two meanwhile.
#[inline(always)]
unsafe fn ask_into(
    payload: fastmq_bytes,
    reply: *mut std::ffi::c_void,
    capacity: usize,
    out_size: *mut usize,
    ask: impl FnOnce(&[u8], &mut ReplyBuffer<'_>) -> Result<()>,
) -> Result<()> {
    // SAFETY: by the contract.
    let out_size = unsafe { Out::new(out_size, 0, "out_size") }?;
    if reply.is_null() && capacity > 0 {
        return Err(is_null("reply"));
    }
    // SAFETY: by the contract.
    let payload = unsafe { payload.read("payload") }?;
    let (start, from) = (reply.addr(), payload.as_ptr().addr());
    let is_before = from.wrapping_sub(start) < capacity && !payload.is_empty();
    if is_before || start.wrapping_sub(from) < payload.len() && capacity > 0 {
        return Err(OVERLAP);
    }
    // SAFETY: by the contract.
    let mut reply = unsafe { ReplyBuffer::from_raw(reply.cast(), capacity) };
    ask(payload, &mut reply)?;
    out_size.set(reply.size());
    if reply.is_too_small() {
        return Err(too_large(reply.size(), capacity));
    }
    match reply.status() {
        0 => Ok(()),
        status => Err(answered_with(status)),
    }
}

const OVERLAP: Error = Error::new(&Fault(
    Status::Invalid,
    "reply overlaps the payload; the answer needs memory of its own",
));

#[cold]
fn too_large(size: usize, capacity: usize) -> Error {
    let arguments = format_args!("the answer has {size} bytes; reply_capacity is {capacity}");
    Error::with(
        &Fault(Status::TooLarge, "the answer is larger than reply_capacity"),
        arguments,
    )
}

#[cold]
fn answered_with(status: u32) -> Error {
    const TEXT: &str = "the responder answered with this status";
    static ANSWERS: [Fault; Status::ALL.len()] = {
        let mut answers = [const { Fault(Status::Internal, TEXT) }; Status::ALL.len()];
        let mut index = 0;
        while index < answers.len() {
            answers[index].0 = Status::ALL[index];
            index += 1;
        }
        answers
    };
    let answer = ANSWERS.iter().find(|answer| answer.0 as u32 == status);
    Error::new(answer.unwrap_or(&Fault(Status::Internal, TEXT)))
}

/// Asks and waits for the answer for at most `timeout_ns`.
///
/// `request` and what it points to are borrowed until the call returns. `*out_reply` is a batch of
/// one, yours until fastmq_batch_free; the responder's status is in its message. Safe from any
/// thread.
/// Returns OK, NO_RESPONDER, BUSY, TIMEOUT, CANCELLED, INVALID, DENIED (the subject begins with
/// $SYS), TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED, MISUSE; a client of a server also DISCONNECTED
/// (the connection broke: it may or may not have been handled) and UNAVAILABLE (there is none).
///
/// # Safety
/// As for fastmq_publish_message; `out_reply` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_request(
    client: *mut fastmq_client,
    request: *const fastmq_outgoing,
    timeout_ns: u64,
    out_reply: *mut *mut fastmq_batch,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out_reply, handle::handle(0), "out_reply") }?;
        let ask = |message: &Message<'_>, _| {
            let copy = |answer: &View| Detached::copy(slice::from_ref(answer));
            here(client, |here| {
                let answer = here.request(message, timeout_ns, copy)?;
                Ok(answer.map(|mut answer| {
                    answer.received_ns = here.writer.broker().stamp_ns();
                    answer
                }))
            })
        };
        // SAFETY: by the contract.
        let answer = unsafe { with_message(request, ask) }?.ok_or(Error::NO_MEMORY)?;
        out.set(open_detached(answer)?);
        Ok(())
    })
}

/// Asks and writes the answer's payload to `reply`.
///
/// `*out_size` is the payload's size, also when it is larger than `reply_capacity`. Everything is
/// borrowed until the call returns; until then nobody else reads or writes `reply`, which must not
/// overlap the subject or the payload: a responder on this thread answers straight into it. Safe
/// from any thread.
/// Returns the responder's status; TOO_LARGE (larger than `reply_capacity`); else as
/// fastmq_request.
///
/// # Safety
/// Both byte ranges are readable; `reply` is writable for `reply_capacity` bytes; `out_size` is
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_request_into(
    client: *mut fastmq_client,
    subject: fastmq_bytes,
    payload: fastmq_bytes,
    timeout_ns: u64,
    reply: *mut std::ffi::c_void,
    reply_capacity: usize,
    out_size: *mut usize,
) -> fastmq_status {
    boundary(|| {
        let ask = |payload: &[u8], reply: &mut ReplyBuffer<'_>| {
            // SAFETY: by the contract.
            let subject = unsafe { subject.read("subject") }?;
            here(client, |here| {
                here.request_into(subject, payload, timeout_ns, reply)
            })
        };
        // SAFETY: by the contract.
        unsafe { ask_into(payload, reply, reply_capacity, out_size, ask) }
    })
}

/// Answers a request with a payload and status OK.
///
/// `token` is that of the request's message. `payload` is borrowed until the call returns, which
/// does not block. Safe from any thread.
/// Returns OK, AGAIN (the asker has no room), NOT_FOUND (the asker is gone), TOO_LARGE, INVALID,
/// NO_SPACE, NO_MEMORY, CLOSED, MISUSE.
///
/// # Safety
/// `payload` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_reply(
    client: *mut fastmq_client,
    token: u64,
    payload: fastmq_bytes,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let payload = unsafe { payload.read("payload") }?;
        if token == 0 {
            return Err(NO_TOKEN);
        }
        here(client, |here| here.reply(token, 0, payload))
    })
}

pub(crate) const NO_TOKEN: Error = Error::new(&Fault(
    Status::Invalid,
    "token is 0; the message to answer is not a request",
));

/// The status that a responder gives.
pub(crate) fn status_of_answer(status: u32) -> Result<Status> {
    Status::from_number(status).ok_or_else(|| {
        let arguments = format_args!("status is {status}, which is no status");
        Error::with(&Fault(Status::Invalid, "status is unknown"), arguments)
    })
}

/// Answers a request with a payload, headers and a status.
///
/// The subject of `answer` must be empty; `status` is any fastmq_status. As fastmq_reply.
///
/// # Safety
/// `answer` is NULL or readable for its `struct_size`, and so are its byte ranges.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_reply_message(
    client: *mut fastmq_client,
    token: u64,
    answer: *const fastmq_outgoing,
    status: u32,
) -> fastmq_status {
    boundary(|| {
        status_of_answer(status)?;
        let reply = |message: &Message<'_>| {
            if token == 0 {
                return Err(NO_TOKEN);
            }
            here(client, |here| {
                here.writer
                    .reply(token, status, message.payload, message.headers)
            })
        };
        // SAFETY: by the contract.
        unsafe { with_answer(answer, reply) }
    })
}

/// Opens a requester.
///
/// `options` is borrowed until the call returns; NULL: the defaults. `*out` is yours until
/// fastmq_requester_close. Safe from any thread.
/// Returns OK, INVALID, DENIED (its subject begins with $SYS), CLOSED, NO_SPACE, NO_MEMORY, MISUSE.
///
/// # Safety
/// `options` is NULL or readable for its `struct_size`, and so is its subject; `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_open(
    client: *mut fastmq_client,
    options: *const fastmq_requester_options,
    out: *mut *mut fastmq_requester,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        let client = client_of(client)?;
        // SAFETY: by the contract.
        let options = unsafe { read_or_default(options) }?;
        check_zero("options", &[("reserved", options.reserved)])?;
        // SAFETY: by the contract.
        let subject = unsafe { options.subject.read("subject") }?;
        let requester = client.requester(RequesterOptions {
            in_flight_max: options.in_flight_max,
            subject,
            wait: wait_of(options.wait)?,
        })?;
        let queue = Queue::new(client, requester.place().clone());
        let object = RequesterObject {
            requester: Own::new(requester),
            queue,
        };
        out.set(handle::handle(REQUESTERS.open(object)?));
        Ok(())
    })
}

/// Sends a request to the requester's own subject.
///
/// `payload` is borrowed until the call returns, which does not block. After OK exactly one final
/// answer comes by fastmq_requester_receive with this token: the responder's, or NO_RESPONDER,
/// BUSY, TIMEOUT, CANCELLED, or DISCONNECTED (a client of a server: the connection broke). One
/// thread at a time.
/// Returns OK, AGAIN (in_flight_max are in flight, or as many as the connection to a server takes
/// now: receive answers first), INVALID, DENIED (the subject begins with $SYS), TOO_LARGE,
/// UNAVAILABLE (a client of a server without a connection), NO_SPACE, NO_MEMORY, CLOSED, MISUSE.
///
/// # Safety
/// `payload` is readable; no other call uses the requester.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_submit(
    requester: *mut fastmq_requester,
    payload: fastmq_bytes,
    token: u64,
    timeout_ns: u64,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let payload = unsafe { payload.read("payload") }?;
        with_requester(requester, |requester| {
            requester.submit(payload, token, timeout_ns)
        })
    })
}

/// Sends a request to a subject that it names.
///
/// As fastmq_requester_submit, for a requester without a subject of its own or another subject.
///
/// # Safety
/// Both byte ranges are readable; no other call uses the requester.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_submit_to(
    requester: *mut fastmq_requester,
    subject: fastmq_bytes,
    payload: fastmq_bytes,
    token: u64,
    timeout_ns: u64,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let subject = unsafe { subject.read("subject") }?;
        // SAFETY: by the contract.
        let payload = unsafe { payload.read("payload") }?;
        with_requester(requester, |requester| {
            requester.submit_to(subject, payload, token, timeout_ns)
        })
    })
}

/// Sends a request with all its fields; its token is that of the struct.
///
/// As fastmq_requester_submit_to; `request` and what it points to are borrowed until the call
/// returns.
///
/// # Safety
/// As for fastmq_publish_message; no other call uses the requester.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_submit_message(
    requester: *mut fastmq_requester,
    request: *const fastmq_outgoing,
    timeout_ns: u64,
) -> fastmq_status {
    boundary(|| {
        let submit = |message: &Message<'_>, token| {
            with_requester(requester, |requester| {
                requester.submit_message(message, token, timeout_ns)
            })
        };
        // SAFETY: by the contract.
        unsafe { with_message(request, submit) }
    })
}

/// Receives up to `reply_max` answers (0: as many as a batch holds), waiting for the first for at
/// most `timeout_ns`.
///
/// `*out` is yours until fastmq_batch_free; a requester has at most one open batch. Each message's
/// `token` is that of its submit, its `status` the fate. One thread at a time.
/// Returns OK, AGAIN (nothing is there, and the time-out is 0), TIMEOUT, NO_MEMORY, CLOSED,
/// INVALID, MISUSE.
///
/// # Safety
/// `out` is writable; no other call uses the requester.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_receive(
    requester: *mut fastmq_requester,
    reply_max: u32,
    timeout_ns: u64,
    out: *mut *mut fastmq_batch,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        let entered = enter::<RequesterObject>(handle::number(requester))?;
        let object = entered.object()?;
        check_vacant(&entered.slot.beside, &object.queue)?;
        // SAFETY: we have entered the slot, and this is the only use of the requester in it.
        let requester = unsafe { object.requester.get() };
        let batch = requester
            .receive(reply_max as usize, timeout_ns)
            .map_err(|error| ended(&object.queue, error))?;
        out.set(entered.slot.beside.open(REQUESTER_BATCH, entered.index()));
        batch.keep_open();
        Ok(())
    })
}

/// Asks the requester's own subject and writes the answer's payload to `reply`.
///
/// As fastmq_request_into, by handle. One thread at a time.
///
/// # Safety
/// `payload` is readable; `reply` is writable for `reply_capacity` bytes; `out_size` is writable;
/// no other call uses the requester.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_request_into(
    requester: *mut fastmq_requester,
    payload: fastmq_bytes,
    timeout_ns: u64,
    reply: *mut std::ffi::c_void,
    reply_capacity: usize,
    out_size: *mut usize,
) -> fastmq_status {
    boundary(|| {
        let ask = |payload: &[u8], reply: &mut ReplyBuffer<'_>| {
            with_requester(requester, |requester| {
                requester.request_into(payload, timeout_ns, reply)
            })
        };
        // SAFETY: by the contract.
        unsafe { ask_into(payload, reply, reply_capacity, out_size, ask) }
    })
}

/// Ends a request: its answer arrives with CANCELLED.
///
/// One thread at a time.
/// Returns OK, NOT_FOUND (no request in flight has this token), CLOSED, INVALID, MISUSE.
///
/// # Safety
/// No other call uses the requester.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_cancel(
    requester: *mut fastmq_requester,
    token: u64,
) -> fastmq_status {
    boundary(|| with_open_requester(requester, |requester| requester.cancel(token)))
}

/// Says how many requests have no final answer yet, those with one that was not received included.
///
/// One thread at a time. Returns 0 on failure: CLOSED, INVALID, MISUSE in fastmq_last_error.
///
/// # Safety
/// No other call uses the requester.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_in_flight(requester: *mut fastmq_requester) -> u32 {
    guarded(0, || {
        with_open_requester(requester, |requester| Ok(requester.in_flight()))
    })
}

/// Gives the requester's descriptor for epoll or poll: readable exactly while there is an answer
/// to receive or a request has timed out.
///
/// The descriptor is the library's: only wait on it. One thread at a time.
/// Returns -1 on failure: IO, CLOSED, INVALID, MISUSE in fastmq_last_error.
///
/// # Safety
/// No other call uses the requester.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_fd(requester: *mut fastmq_requester) -> i32 {
    guarded(-1, || {
        let entered = enter::<RequesterObject>(handle::number(requester))?;
        let queue = &entered.object()?.queue;
        check_parent(queue.client())?;
        queue.fd()
    })
}

/// Closes a requester; requests in flight are given up.
///
/// Takes NULL. An open batch stays readable until it is freed. Inside a callback of its own submit
/// it is freed when that returns. In a forked child it ends the handle only.
///
/// # Safety
/// None: any value of `requester` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_close(requester: *mut fastmq_requester) {
    if requester.is_null() {
        return;
    }
    closing(|| {
        let copy = |object: &RequesterObject| object.queue.clone();
        let number = handle::number(requester);
        handle::close::<RequesterObject, _>(number, copy, |queue: Queue| queue.close())
    });
}

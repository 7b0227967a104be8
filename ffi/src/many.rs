//! Asking many, and streams of replies.

use fastmq::{Error, Message, ReplyStream, Result};

use crate::batch::{fastmq_batch, open_detached};
use crate::bytes::{Out, fastmq_bytes};
use crate::client::{client_of, fastmq_client, here};
use crate::error::{boundary, closing};
use crate::handle::{self, Kind, Object, Own, Table, enter, kind};
use crate::message::{fastmq_outgoing, with_answer, with_message};
use crate::options::{fastmq_many_options, read_or_default};
use crate::request::{NO_TOKEN, fastmq_requester, status_of_answer, with_requester};
use crate::status::fastmq_status;

/// A responder's stream of replies to one request. Used by one thread at a time.
pub struct fastmq_reply_stream;

static REPLY_STREAMS: Table<Own<ReplyStream>> = Table::new();

impl Object for Own<ReplyStream> {
    const KIND: Kind = kind!(10, "stream");
    type Beside = ();
    fn table() -> &'static Table<Self> {
        &REPLY_STREAMS
    }
}

#[inline(always)]
fn with_stream<R>(
    stream: *const fastmq_reply_stream,
    body: impl FnOnce(&mut ReplyStream) -> Result<R>,
) -> Result<R> {
    let entered = enter::<Own<ReplyStream>>(handle::number(stream))?;
    let object = entered.object()?;
    // SAFETY: we have entered the slot, and this is the only use of its object.
    body(unsafe { object.get() })
}

/// Sends a request to which several answers may come: of several responders, or of one that
/// streams its replies.
///
/// As fastmq_requester_submit_message, without a subject to the requester's own; `options` is
/// borrowed until the call returns; NULL: the defaults. After OK fastmq_requester_receive gives
/// each answer with this token. Each has the flag FASTMQ_MESSAGE_MORE but the last, which has
/// FASTMQ_MESSAGE_END; exactly one has that. `subscription_id` says whose answer it is. If it is
/// 0, the message is the library's own and the last: its status is FASTMQ_NO_RESPONDER,
/// FASTMQ_BUSY, FASTMQ_TIMEOUT, FASTMQ_CANCELLED, or FASTMQ_END (whoever has not answered is gone).
/// The end of a reply stream is a message too: FASTMQ_END, FASTMQ_CANCELLED (its responder went
/// away), or the error that the responder ended it with.
/// `timeout_ns` is for the request as a whole. A responder's answer or the end of its stream counts
/// as one of `answers_max`.
/// Returns OK, AGAIN (in_flight_max are in flight, or as many as the connection to a server takes
/// now: receive answers first), INVALID, DENIED (the subject begins with $SYS), TOO_LARGE,
/// NO_SPACE, NO_MEMORY, CLOSED, MISUSE.
///
/// # Safety
/// As for fastmq_publish_message; `options` is NULL or readable for its `struct_size`; no other
/// call uses the requester.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_submit_many(
    requester: *mut fastmq_requester,
    request: *const fastmq_outgoing,
    timeout_ns: u64,
    options: *const fastmq_many_options,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let options = unsafe { read_or_default(options) }?.convert()?;
        let submit = |message: &Message<'_>, token| {
            with_requester(requester, |requester| {
                requester.submit_many(message, token, timeout_ns, &options)
            })
        };
        // SAFETY: by the contract.
        unsafe { with_message(request, submit) }
    })
}

/// Grants `replies` more replies to each reply stream of a request.
///
/// One thread at a time. A responder that waits for credit hears of it.
/// Returns OK, NOT_FOUND (no request for many answers in flight has this token), INVALID (`replies`
/// is 0 or above 1,048,576, or the request takes no streams), CLOSED, MISUSE.
///
/// # Safety
/// No other call uses the requester.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_requester_grant(
    requester: *mut fastmq_requester,
    token: u64,
    replies: u32,
) -> fastmq_status {
    boundary(|| {
        with_requester(requester, |requester| {
            if requester.broker().is_closed() {
                return Err(Error::CLOSED);
            }
            requester.grant(token, replies)
        })
    })
}

/// Asks and waits until `answers_max` responders have answered (FASTMQ_ANSWERS_ALL: all that have
/// the request), or for at most `timeout_ns`.
///
/// `request` and what it points to are borrowed until the call returns. `*out_answers` is a batch
/// of one answer or more, yours until fastmq_batch_free. Its last message has the flag
/// FASTMQ_MESSAGE_END; if its `subscription_id` is 0 it is no answer, and its status says why fewer
/// came than were asked for: FASTMQ_TIMEOUT, or FASTMQ_END (the others are gone). Safe from any
/// thread.
/// Returns OK; where nobody has answered NO_RESPONDER, BUSY, TIMEOUT, CANCELLED; INVALID, DENIED
/// (the subject begins with $SYS), TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED, MISUSE.
///
/// # Safety
/// As for fastmq_publish_message; `out_answers` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_request_many(
    client: *mut fastmq_client,
    request: *const fastmq_outgoing,
    answers_max: u32,
    timeout_ns: u64,
    out_answers: *mut *mut fastmq_batch,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out_answers, handle::handle(0), "out_answers") }?;
        let ask = |message: &Message<'_>, _| {
            here(client, |here| {
                here.request_many(message, answers_max, timeout_ns)
            })
        };
        // SAFETY: by the contract.
        let answers = unsafe { with_message(request, ask) }?;
        out.set(open_detached(answers)?);
        Ok(())
    })
}

/// Opens the reply stream of a request.
///
/// `token` is that of the request's message, also after its batch is gone or its callback has
/// returned. `*out` is yours until fastmq_reply_stream_close. Safe from any thread. It ends when
/// the subscription ends by which the request came.
/// Returns OK, NOT_FOUND (nobody waits for an answer), UNSUPPORTED (the asker takes no stream:
/// answer with fastmq_reply), EXISTS (it was opened before), CANCELLED (the subscription has
/// ended), INVALID, NO_MEMORY, CLOSED, MISUSE.
///
/// # Safety
/// `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_reply_stream_open(
    client: *mut fastmq_client,
    token: u64,
    out: *mut *mut fastmq_reply_stream,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        let client = client_of(client)?;
        if token == 0 {
            return Err(NO_TOKEN);
        }
        let stream = client.reply_stream(token)?;
        out.set(handle::handle(REPLY_STREAMS.open(Own::new(stream))?));
        Ok(())
    })
}

/// Says how many replies the asker has granted that were not sent.
///
/// Sends nothing and does not block: the way to learn that nobody waits for more. One thread at a
/// time.
/// Returns OK (also with 0 replies), CANCELLED (the asker has cancelled or closed, a deadline has
/// passed, or the subscription has ended), MISUSE (the stream was ended), CLOSED, INVALID.
///
/// # Safety
/// `out_replies` is writable; no other call uses the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_reply_stream_credit(
    stream: *mut fastmq_reply_stream,
    out_replies: *mut u64,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out_replies, 0, "out_replies") }?;
        out.set(with_stream(stream, |stream| stream.credit())?);
        Ok(())
    })
}

/// Sends one reply.
///
/// `payload` is borrowed until the call returns, which does not block. Replies keep their order.
/// After AGAIN a loop is told by FASTMQ_READY_ROOM of fastmq_dispatch on the responder's client
/// when to try again. One thread at a time.
/// Returns OK, AGAIN (the asker has granted no more replies, or has no room), CANCELLED (nobody
/// waits for more), MISUSE (the stream was ended), TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED, INVALID.
///
/// # Safety
/// `payload` is readable; no other call uses the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_reply_stream_send(
    stream: *mut fastmq_reply_stream,
    payload: fastmq_bytes,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let payload = unsafe { payload.read("payload") }?;
        with_stream(stream, |stream| stream.send(payload, &[]))
    })
}

/// Sends one reply with a payload and headers.
///
/// The other fields of `reply` must be empty. As fastmq_reply_stream_send.
///
/// # Safety
/// `reply` is NULL or readable for its `struct_size`, and so are its byte ranges; no other call
/// uses the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_reply_stream_send_message(
    stream: *mut fastmq_reply_stream,
    reply: *const fastmq_outgoing,
) -> fastmq_status {
    boundary(|| {
        let send = |message: &Message<'_>| {
            with_stream(stream, |stream| {
                stream.send(message.payload, message.headers)
            })
        };
        // SAFETY: by the contract.
        unsafe { with_answer(reply, send) }
    })
}

/// Sends one reply, waiting for credit and room for at most `timeout_ns`.
///
/// As fastmq_reply_stream_send, but it may block. A callback that runs inside the asker's own
/// submit must not call it.
/// Returns as fastmq_reply_stream_send, and TIMEOUT, and MISUSE inside the asker's submit.
///
/// # Safety
/// As for fastmq_reply_stream_send.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_reply_stream_send_wait(
    stream: *mut fastmq_reply_stream,
    payload: fastmq_bytes,
    timeout_ns: u64,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let payload = unsafe { payload.read("payload") }?;
        with_stream(stream, |stream| stream.send_wait(payload, &[], timeout_ns))
    })
}

/// Ends a reply stream: behind the last reply the asker receives a message without a payload, with
/// `status`, or FASTMQ_END for FASTMQ_OK.
///
/// `status` is any fastmq_status. Needs no credit and no room, and does not block. The handle is
/// still yours to close. One thread at a time.
/// Returns OK, CANCELLED (the other side has ended it), MISUSE (the stream was ended), CLOSED,
/// INVALID.
///
/// # Safety
/// No other call uses the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_reply_stream_end(
    stream: *mut fastmq_reply_stream,
    status: u32,
) -> fastmq_status {
    boundary(|| {
        let status = status_of_answer(status)?;
        with_stream(stream, |stream| stream.end(status))
    })
}

/// Closes a reply stream; one that was not ended ends with FASTMQ_CANCELLED.
///
/// Takes NULL. In a forked child it ends the handle only.
///
/// # Safety
/// None: any value of `stream` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_reply_stream_close(stream: *mut fastmq_reply_stream) {
    if stream.is_null() {
        return;
    }
    closing(|| handle::close::<Own<ReplyStream>, ()>(handle::number(stream), |_| (), |()| ()));
}

//! Messages as C sees them: the frozen view of a received one, and the struct of one to send.

use std::mem::{align_of, offset_of, size_of};

use fastmq::{Error, Fault, Message, Result, Status, View};

use crate::bytes::fastmq_bytes;
use crate::handle;
use crate::headers::{HeadersObject, fastmq_headers};
use crate::options::{Plain, read};

/// A received message; frozen, 144 bytes (docs/formats.md, section 3). An absent field is NULL with
/// size 0.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_message {
    /// The subject; empty for an answer.
    pub subject: fastmq_bytes,
    /// The payload.
    pub payload: fastmq_bytes,
    /// Where an answer may be published.
    pub reply_to: fastmq_bytes,
    /// Encoded headers: fastmq_headers_get.
    pub headers: fastmq_bytes,
    /// The key.
    pub key: fastmq_bytes,
    /// The publisher's sequence, from 1 on; 0: published without a handle.
    pub sequence: u64,
    /// Unix nanoseconds of the publish, or 0.
    pub timestamp_ns: u64,
    /// Names the request to answer, or the request that this answers; 0: none.
    pub token: u64,
    /// 1 on the first delivery.
    pub delivery_count: u32,
    /// Messages dropped by this queue since the previous one.
    pub lost_before: u32,
    /// Status of an answer; 0 otherwise.
    pub status: u32,
    /// The subscription that this came by; of an answer to fastmq_requester_submit_many and
    /// fastmq_request_many, the responder's.
    pub subscription_id: u32,
    /// FASTMQ_MESSAGE_... bits.
    pub flags: u32,
    /// Reserved.
    pub reserved0: u32,
    /// The number given at subscribe.
    pub tag: u64,
    /// Names the publisher that counts `sequence`; 0: published without a handle. After a message
    /// of the same publisher and subscription, a sequence that is not one more tells of a gap:
    /// messages that a policy dropped (lost_before), that expired, or that went to others of a
    /// group.
    pub publisher: u64,
}

const _: () = {
    assert!(size_of::<fastmq_message>() == 144);
    assert!(size_of::<fastmq_message>() == size_of::<View>());
    assert!(align_of::<fastmq_message>() == align_of::<View>());
    assert!(offset_of!(fastmq_message, payload) == 16);
    assert!(offset_of!(fastmq_message, reply_to) == 32);
    assert!(offset_of!(fastmq_message, headers) == 48);
    assert!(offset_of!(fastmq_message, key) == 64);
    assert!(offset_of!(fastmq_message, sequence) == offset_of!(View, sequence));
    assert!(offset_of!(fastmq_message, timestamp_ns) == offset_of!(View, timestamp_ns));
    assert!(offset_of!(fastmq_message, token) == offset_of!(View, token));
    assert!(offset_of!(fastmq_message, delivery_count) == offset_of!(View, delivery_count));
    assert!(offset_of!(fastmq_message, lost_before) == offset_of!(View, lost_before));
    assert!(offset_of!(fastmq_message, status) == offset_of!(View, status));
    assert!(offset_of!(fastmq_message, subscription_id) == offset_of!(View, subscription_id));
    assert!(offset_of!(fastmq_message, flags) == offset_of!(View, flags));
    assert!(offset_of!(fastmq_message, reserved0) == 124);
    assert!(offset_of!(fastmq_message, tag) == offset_of!(View, tag));
    assert!(offset_of!(fastmq_message, publisher) == offset_of!(View, publisher));
};

/// The same message for C; both structs have the layout that the asserts above check.
#[inline(always)]
pub(crate) fn for_c(view: *const View) -> *const fastmq_message {
    view.cast()
}

/// Bits of `fastmq_message.flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_message_flag {
    /// Delivered before.
    FASTMQ_MESSAGE_REDELIVERED = 1,
    /// More replies follow.
    FASTMQ_MESSAGE_MORE = 2,
    /// The last of several replies.
    FASTMQ_MESSAGE_END = 4,
    /// An answer is expected.
    FASTMQ_MESSAGE_REQUEST = 8,
}

/// Bits of `fastmq_outgoing.flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_outgoing_flag {
    /// The message becomes the last value of its subject: whoever subscribes later with
    /// FASTMQ_SUBSCRIBE_REPLAY_LAST gets it first. One that was refused does not; a message
    /// without this flag leaves the last value as it is. Of two publishers at once, either may
    /// have the last value. For 65,536 subjects of a client, beyond them NO_SPACE; their memory
    /// counts in `memory_max`. The message is copied under a lock, so such a publish takes about
    /// a microsecond. Not for requests and answers: INVALID. See fastmq_forget_last.
    FASTMQ_OUTGOING_KEEP_LAST = 1,
}

/// A message to send: set `struct_size`, what you need, and the rest to 0.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_outgoing {
    /// sizeof(fastmq_outgoing).
    pub struct_size: u32,
    /// FASTMQ_OUTGOING_... bits.
    pub flags: u32,
    /// Where to; empty where a handle has a subject of its own.
    pub subject: fastmq_bytes,
    /// What.
    pub payload: fastmq_bytes,
    /// Where an answer may be published; empty: nowhere.
    pub reply_to: fastmq_bytes,
    /// What keeps messages of one kind in order in key-shared groups; empty: none.
    pub key: fastmq_bytes,
    /// Headers, or NULL.
    pub headers: *const fastmq_headers,
    /// Requests: comes back with the answer.
    pub token: u64,
    /// How long it is worth delivering; 0: for ever. A request not read by then ends in TIMEOUT.
    pub ttl_ns: u64,
    /// 0, reserved.
    pub priority: u32,
    /// 0, reserved.
    pub reserved: u32,
}

const KEEP_LAST: u32 = fastmq_outgoing_flag::FASTMQ_OUTGOING_KEEP_LAST as u32;

const _: () = {
    assert!(size_of::<fastmq_outgoing>() == 104);
    assert!(offset_of!(fastmq_outgoing, subject) == 8);
    assert!(offset_of!(fastmq_outgoing, payload) == 24);
    assert!(offset_of!(fastmq_outgoing, reply_to) == 40);
    assert!(offset_of!(fastmq_outgoing, key) == 56);
    assert!(offset_of!(fastmq_outgoing, headers) == 72);
    assert!(offset_of!(fastmq_outgoing, token) == 80);
    assert!(offset_of!(fastmq_outgoing, ttl_ns) == 88);
    assert!(offset_of!(fastmq_outgoing, priority) == 96);
    assert!(offset_of!(fastmq_outgoing, reserved) == 100);
};

// SAFETY: integers and pointers in C order without padding, zeros are a value, size first.
unsafe impl Plain for fastmq_outgoing {
    const NAME: &'static str = "message";
    const FIRST_SIZE: usize = 104;
}

/// Reads a message to send and hands it to `body` with its token.
///
/// # Safety
/// Unless it is NULL, `outgoing` is readable for its `struct_size`, and so are its byte ranges.
pub(crate) unsafe fn with_message<R>(
    outgoing: *const fastmq_outgoing,
    body: impl FnOnce(&Message<'_>, u64) -> Result<R>,
) -> Result<R> {
    // SAFETY: by the contract.
    let outgoing = unsafe { read(outgoing) }?;
    check_reserved(&outgoing)?;
    // SAFETY: by the contract, as for the next three.
    let subject = unsafe { outgoing.subject.read("subject") }?;
    // SAFETY: as above.
    let payload = unsafe { outgoing.payload.read("payload") }?;
    // SAFETY: as above.
    let reply_to = unsafe { outgoing.reply_to.read("reply_to") }?;
    // SAFETY: as above.
    let key = unsafe { outgoing.key.read("key") }?;
    let mut message = Message {
        subject,
        payload,
        reply_to,
        key,
        ttl_ns: outgoing.ttl_ns,
        keep_last: flags_of("message", outgoing.flags, KEEP_LAST)? != 0,
        ..Message::default()
    };
    if outgoing.headers.is_null() {
        return body(&message, outgoing.token);
    }
    // Nobody changes the headers while we are inside.
    let entered = handle::enter::<HeadersObject>(handle::number(outgoing.headers))?;
    let headers = entered.object()?;
    // SAFETY: we have entered the slot, and this is the only use of its object.
    message.headers = unsafe { headers.get() }.as_bytes();
    body(&message, outgoing.token)
}

/// Hands an answer to `body`, as `with_message` does.
///
/// # Safety
/// As for [`with_message`].
pub(crate) unsafe fn with_answer<R>(
    answer: *const fastmq_outgoing,
    body: impl FnOnce(&Message<'_>) -> Result<R>,
) -> Result<R> {
    let checked = |message: &Message<'_>, _| {
        if message.keep_last {
            return Err(Error::new(&Fault(
                Status::Invalid,
                "an answer cannot be kept as a last value; leave FASTMQ_OUTGOING_KEEP_LAST out",
            )));
        }
        body(message)
    };
    // SAFETY: by the contract.
    unsafe { with_message(answer, checked) }
}

/// Checks bits that the caller sets against those that are known.
pub(crate) fn flags_of(what: &'static str, flags: u32, known: u32) -> Result<u32> {
    if flags & !known != 0 {
        return Err(Error::with(
            &Fault(Status::Invalid, "an unknown flag is set"),
            format_args!("flags of {what} are {flags:#x}; this version knows {known:#x}"),
        ));
    }
    Ok(flags)
}

fn check_reserved(outgoing: &fastmq_outgoing) -> Result<()> {
    let reserved = [
        ("priority", outgoing.priority),
        ("reserved", outgoing.reserved),
    ];
    check_zero("message", &reserved)
}

/// Fields that must be 0 in this version.
pub(crate) fn check_zero(what: &'static str, fields: &[(&'static str, u32)]) -> Result<()> {
    match fields.iter().find(|(_, value)| *value != 0) {
        None => Ok(()),
        Some((name, value)) => Err(must_be_zero(what, name, *value)),
    }
}

#[cold]
fn must_be_zero(what: &'static str, name: &'static str, value: u32) -> Error {
    let arguments = format_args!("{name} of {what} is {value}; this version knows 0 only");
    Error::with(
        &Fault(Status::Invalid, "a reserved field is not 0"),
        arguments,
    )
}

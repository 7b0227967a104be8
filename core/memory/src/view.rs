//! The message view: what a reader sees of a record, in place (`docs/formats.md` §3).
//!
//! A `View` is only reachable by reference from the batch that keeps its bytes alive, so its slices
//! are safe to hand out for as long as the view is borrowed. The C ABI hands out pointers to the
//! same structs.

use std::mem::{offset_of, size_of};

/// A pointer and a size, as C sees it; NULL when absent.
#[derive(Debug)]
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Field {
    pub(crate) data: *const u8,
    pub(crate) size: usize,
}

impl Field {
    pub(crate) const EMPTY: Self = Self {
        data: std::ptr::null(),
        size: 0,
    };

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: a batch fills fields only with ranges that stay readable and unchanged while the
        // batch is open, and a view cannot outlive the borrow of its batch.
        unsafe { std::slice::from_raw_parts(self.data, self.size) }
    }
}

/// One received message; frozen layout, 144 bytes.
#[derive(Debug)]
#[repr(C)]
pub struct View {
    pub(crate) subject: Field,
    pub(crate) payload: Field,
    pub(crate) reply_to: Field,
    pub(crate) headers: Field,
    pub(crate) key: Field,
    /// The publisher's sequence, or 0.
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
    /// The subscription this came by.
    pub subscription_id: u32,
    /// [`view_flag`] bits.
    pub flags: u32,
    pub(crate) reserved0: u32,
    /// The number given at subscribe.
    pub tag: u64,
    /// Names the publisher that counts `sequence`; 0: none does.
    pub publisher: u64,
}

/// Flag bits of a view.
pub mod view_flag {
    /// Delivered before.
    pub const REDELIVERED: u32 = 1;
    /// More replies follow.
    pub const MORE: u32 = 2;
    /// The last of several replies.
    pub const END: u32 = 4;
    /// An answer is expected.
    pub const REQUEST: u32 = 8;
    /// Not an answer: a responder that has the request will not answer. Inside the library only.
    pub const GONE: u32 = 1 << 31;
}

const _: () = {
    assert!(size_of::<View>() == 144);
    assert!(offset_of!(View, payload) == 16);
    assert!(offset_of!(View, reply_to) == 32);
    assert!(offset_of!(View, headers) == 48);
    assert!(offset_of!(View, key) == 64);
    assert!(offset_of!(View, sequence) == 80);
    assert!(offset_of!(View, timestamp_ns) == 88);
    assert!(offset_of!(View, token) == 96);
    assert!(offset_of!(View, delivery_count) == 104);
    assert!(offset_of!(View, lost_before) == 108);
    assert!(offset_of!(View, status) == 112);
    assert!(offset_of!(View, subscription_id) == 116);
    assert!(offset_of!(View, flags) == 120);
    assert!(offset_of!(View, tag) == 128);
    assert!(offset_of!(View, publisher) == 136);
};

// SAFETY: a view is a set of borrowed byte ranges and numbers; it is shared as `&[u8]` would be.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// A view with borrowed fields and nothing else.
    pub(crate) const EMPTY: Self = Self {
        subject: Field::EMPTY,
        payload: Field::EMPTY,
        reply_to: Field::EMPTY,
        headers: Field::EMPTY,
        key: Field::EMPTY,
        sequence: 0,
        timestamp_ns: 0,
        token: 0,
        delivery_count: 1,
        lost_before: 0,
        status: 0,
        subscription_id: 0,
        flags: 0,
        reserved0: 0,
        tag: 0,
        publisher: 0,
    };

    /// Gives `use_view` a view over borrowed bytes: for handlers that run on the publisher's
    /// thread, where the message never was in a lane.
    ///
    /// The closure gets the view by shared reference, so it can neither keep it nor swap it.
    #[inline(always)]
    pub fn with_borrowed<R>(
        subject: &[u8],
        payload: &[u8],
        numbers: Numbers,
        optional: Option<Optional<'_>>,
        use_view: impl FnOnce(&View) -> R,
    ) -> R {
        let field = |bytes: &[u8]| match bytes.len() {
            0 => Field::EMPTY,
            size => Field {
                data: bytes.as_ptr(),
                size,
            },
        };
        let optional = optional.unwrap_or_default();
        // One literal with every field: a constant that is then changed would be copied by a call.
        let view = View {
            subject: Field {
                data: subject.as_ptr(),
                size: subject.len(),
            },
            payload: Field {
                data: payload.as_ptr(),
                size: payload.len(),
            },
            reply_to: field(optional.reply_to),
            headers: field(optional.headers),
            key: field(optional.key),
            sequence: numbers.sequence,
            timestamp_ns: numbers.timestamp_ns,
            token: numbers.token,
            delivery_count: 1,
            lost_before: 0,
            status: numbers.status,
            subscription_id: numbers.subscription_id,
            flags: numbers.flags,
            reserved0: 0,
            tag: numbers.tag,
            publisher: numbers.publisher,
        };
        use_view(&view)
    }

    /// The subject; empty for an answer.
    #[inline]
    pub fn subject(&self) -> &[u8] {
        self.subject.bytes()
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.payload.bytes()
    }

    /// The reply address; empty if there is none.
    #[inline]
    pub fn reply_to(&self) -> &[u8] {
        self.reply_to.bytes()
    }

    /// The encoded headers; empty if there are none.
    #[inline]
    pub fn headers(&self) -> &[u8] {
        self.headers.bytes()
    }

    /// The key; empty if there is none.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.key.bytes()
    }
}

/// The rarely used fields of a borrowed view.
#[derive(Clone, Copy, Debug, Default)]
pub struct Optional<'a> {
    /// Reply address.
    pub reply_to: &'a [u8],
    /// Key.
    pub key: &'a [u8],
    /// Encoded headers.
    pub headers: &'a [u8],
}

/// The numbers of a borrowed view.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    /// The publisher's sequence, or 0.
    pub sequence: u64,
    /// Unix nanoseconds of the publish, or 0.
    pub timestamp_ns: u64,
    /// The request's token, or 0.
    pub token: u64,
    /// The subscription.
    pub subscription_id: u32,
    /// Status of an answer.
    pub status: u32,
    /// [`view_flag`] bits.
    pub flags: u32,
    /// The number given at subscribe.
    pub tag: u64,
    /// The publisher that counts the sequence, or 0.
    pub publisher: u64,
}

/// A view that is being made: its numbers may be changed, its bytes not.
#[derive(Debug)]
pub struct Visit<'a> {
    pub(crate) view: &'a mut View,
    pub(crate) is_expired: bool,
    pub(crate) expiry_ns: u64,
}

impl Visit<'_> {
    /// The view as the reader will see it.
    #[inline(always)]
    pub fn view(&self) -> &View {
        self.view
    }

    /// True for a request that has expired: nobody will see it, but its asker waits. Its payload
    /// may be gone.
    #[inline(always)]
    pub fn is_expired(&self) -> bool {
        self.is_expired
    }

    /// When the message expires, in monotonic nanoseconds; `u64::MAX`: never.
    #[inline(always)]
    pub fn expiry_ns(&self) -> u64 {
        self.expiry_ns
    }

    /// Sets the token.
    #[inline(always)]
    pub fn set_token(&mut self, token: u64) {
        self.view.token = token;
    }

    /// Sets the status.
    #[inline(always)]
    pub fn set_status(&mut self, status: u32) {
        self.view.status = status;
    }

    /// Sets the flags.
    pub fn set_flags(&mut self, flags: u32) {
        self.view.flags = flags;
    }

    /// Sets the subscription.
    pub fn set_subscription(&mut self, id: u32) {
        self.view.subscription_id = id;
    }

    /// Sets the tag.
    #[inline(always)]
    pub fn set_tag(&mut self, tag: u64) {
        self.view.tag = tag;
    }
}

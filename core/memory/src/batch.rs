//! Batches: open ones in place, detached ones with memory of their own.

use crate::queue::Queue;
use crate::view::{Field, View};

/// An open batch: messages in place. One per queue; dropping it gives the room back.
#[derive(Debug)]
pub struct Batch<'q> {
    queue: &'q Queue,
}

impl<'q> Batch<'q> {
    pub(crate) fn resume(queue: &'q Queue) -> Self {
        Self { queue }
    }

    /// The messages.
    #[inline(always)]
    pub fn messages(&self) -> &[View] {
        // SAFETY: an open batch holds the right to read, so nobody changes the views.
        unsafe { self.queue.open_views() }
    }

    /// When it was received, in Unix nanoseconds; 0 if the client did not ask for time stamps.
    pub fn received_ns(&self) -> u64 {
        self.queue.received_ns()
    }

    /// A copy of the messages that outlives the batch, or `None` without memory for it.
    pub fn detach(&self) -> Option<Detached> {
        let mut copy = Detached::copy(self.messages())?;
        copy.received_ns = self.received_ns();
        Some(copy)
    }

    /// Leaves the batch open without a guard: `Queue::open_views` and `Queue::open_batch` reach it.
    pub fn keep_open(self) {
        std::mem::forget(self);
    }
}

impl Drop for Batch<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the batch holds the right to read; its views are borrowed from it and gone.
        let reader = unsafe { self.queue.reader_state() };
        reader.release();
        self.queue.end_reading();
    }
}

/// Messages copied out of a batch, with memory of their own.
#[derive(Debug)]
pub struct Detached {
    /// When it was received, in Unix nanoseconds; 0: not known.
    pub received_ns: u64,
    views: Vec<View>,
    _bytes: Vec<u8>,
    /// Of batches that were appended.
    others: Vec<Vec<u8>>,
}

impl Detached {
    /// Copies messages, or says that there is no memory.
    pub fn copy(messages: &[View]) -> Option<Self> {
        let size = |view: &View| {
            // Payloads stay 8-aligned.
            view.payload.size.next_multiple_of(8)
                + (view.subject.size + view.reply_to.size + view.key.size + view.headers.size)
                    .next_multiple_of(8)
        };
        let total: usize = messages.iter().map(size).sum::<usize>() + 8;
        let mut bytes: Vec<u8> = Vec::new();
        bytes.try_reserve_exact(total).ok()?;
        let mut views = Vec::new();
        views.try_reserve_exact(messages.len()).ok()?;
        bytes.resize(bytes.as_ptr().align_offset(8).min(8), 0);
        for message in messages {
            let mut view = View::EMPTY;
            view.payload = append(&mut bytes, message.payload());
            bytes.resize(bytes.len() + pad(&bytes), 0);
            view.subject = append(&mut bytes, message.subject());
            view.reply_to = append(&mut bytes, message.reply_to());
            view.key = append(&mut bytes, message.key());
            view.headers = append(&mut bytes, message.headers());
            bytes.resize(bytes.len() + pad(&bytes), 0);
            view.sequence = message.sequence;
            view.timestamp_ns = message.timestamp_ns;
            view.token = message.token;
            view.delivery_count = message.delivery_count;
            view.lost_before = message.lost_before;
            view.status = message.status;
            view.subscription_id = message.subscription_id;
            view.flags = message.flags;
            view.tag = message.tag;
            view.publisher = message.publisher;
            views.push(view);
        }
        Some(Self {
            received_ns: 0,
            views,
            _bytes: bytes,
            others: Vec::new(),
        })
    }

    /// Adds the messages of another one, or says that there is no memory.
    pub fn append(&mut self, other: Self) -> Option<()> {
        self.views.try_reserve(other.views.len()).ok()?;
        self.others.try_reserve(1 + other.others.len()).ok()?;
        self.views.extend(other.views);
        // The bytes stay where they are: views point at them.
        self.others.push(other._bytes);
        self.others.extend(other.others);
        Some(())
    }

    /// The messages.
    pub fn messages(&self) -> &[View] {
        &self.views
    }
}

fn pad(bytes: &[u8]) -> usize {
    let end = bytes.as_ptr() as usize + bytes.len();
    end.next_multiple_of(8) - end
}

fn append(bytes: &mut Vec<u8>, field: &[u8]) -> Field {
    if field.is_empty() {
        return Field::EMPTY;
    }
    // `copy` reserved the whole size: a vector that grew would move what views point at.
    assert!(
        bytes.capacity() - bytes.len() >= field.len(),
        "a detached batch outgrew its size"
    );
    let at = bytes.len();
    bytes.extend_from_slice(field);
    Field {
        data: bytes.as_ptr().wrapping_add(at),
        size: field.len(),
    }
}

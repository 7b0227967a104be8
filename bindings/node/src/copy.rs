//! Messages as JavaScript reads them: one table of numbers and the bytes behind it, written in one
//! go into memory of JavaScript's.
//!
//! The layout is between this file and `lib/batch.js` and nobody else's.

use fastmq::View;

/// Words of 32 bits before the records: where all ends, how many there are, when they came (2).
pub(crate) const HEAD_WORDS: usize = 4;
/// Words of one record.
pub(crate) const RECORD_WORDS: usize = 26;
const WORD: usize = 4;

/// The bytes that `copy` needs.
pub(crate) fn needed(messages: &[View]) -> usize {
    let of = |view: &View| {
        let texts = view.subject().len() + view.reply_to().len() + view.key().len();
        (RECORD_WORDS * WORD + texts + view.headers().len() + view.payload().len() + 7) & !7
    };
    HEAD_WORDS * WORD + messages.iter().map(of).sum::<usize>() + 8
}

struct Writer<'s> {
    slab: &'s mut [u8],
    word: usize,
    end: usize,
}

impl Writer<'_> {
    #[inline(always)]
    fn put(&mut self, value: u32) {
        self.slab[self.word..self.word + WORD].copy_from_slice(&value.to_ne_bytes());
        self.word += WORD;
    }

    #[inline(always)]
    fn put_wide(&mut self, value: u64) {
        self.put(value as u32);
        self.put((value >> 32) as u32);
    }

    #[inline(always)]
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put(self.end as u32);
        self.put(bytes.len() as u32);
        self.slab[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }
}

/// Writes `messages` into `slab` from `at` on, a multiple of 8; false without room for them.
pub(crate) fn copy(messages: &[View], received_ns: u64, slab: &mut [u8], at: usize) -> bool {
    let Some(room) = slab.len().checked_sub(at) else {
        return false;
    };
    if room < needed(messages) || slab.len() > u32::MAX as usize {
        return false;
    }
    let records = HEAD_WORDS * WORD + messages.len() * RECORD_WORDS * WORD;
    let mut to = Writer {
        slab,
        word: at + HEAD_WORDS * WORD,
        end: at + records,
    };
    // A subject that was just written is not written again: JavaScript knows its text by the place.
    let (mut last, mut place) = (&[][..], 0);
    for view in messages {
        let subject = view.subject();
        if !subject.is_empty() && subject == last {
            to.put(place);
            to.put(subject.len() as u32);
        } else {
            (last, place) = (subject, to.end as u32);
            to.put_bytes(subject);
        }
        to.put_bytes(view.payload());
        to.put_bytes(view.reply_to());
        to.put_bytes(view.headers());
        to.put_bytes(view.key());
        to.put_wide(view.sequence);
        to.put_wide(view.timestamp_ns);
        to.put_wide(view.token);
        to.put(view.delivery_count);
        to.put(view.lost_before);
        to.put(view.status);
        to.put(view.subscription_id);
        to.put(view.flags);
        to.put_wide(view.tag);
        to.put_wide(view.publisher);
        to.put(0);
    }
    to.word = at;
    to.put(to.end.next_multiple_of(8) as u32);
    to.put(messages.len() as u32);
    to.put_wide(received_ns);
    true
}

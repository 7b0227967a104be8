//! The record of a lane: encoding and decoding (`docs/formats.md` §1).
//!
//! Decoding trusts nothing: header words are read once, every size is checked against the bytes
//! that are there, and what is wrong is named. Encoding is told how large the record is and writes
//! exactly that.

use crate::words::Words;

/// Size of the fixed header in bytes.
pub const HEADER_BYTES: usize = 16;
/// Longest subject in bytes.
pub const SUBJECT_BYTES_MAX: usize = 1024;
/// Size of a block descriptor in bytes.
pub const DESCRIPTOR_BYTES: usize = 32;
/// Longest reply address in bytes.
pub const REPLY_TO_BYTES_MAX: usize = 1024;
/// Most bytes of encoded headers.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;

/// What a record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A published message.
    #[default]
    Message = 1,
    /// A message that expects an answer.
    Request = 2,
    /// An answer.
    Reply = 3,
    /// Filler up to the end of the ring.
    Skip = 4,
}

/// Flag bits of the header, in the order of their words.
pub mod flag {
    /// A word with the publisher's sequence.
    pub const SEQUENCE: u16 = 1 << 0;
    /// A word with the request's token.
    pub const TOKEN: u16 = 1 << 1;
    /// A word with the monotonic nanosecond after which the record is skipped.
    pub const EXPIRY: u16 = 1 << 2;
    /// A word with the Unix nanosecond of the publish.
    pub const TIMESTAMP: u16 = 1 << 3;
    /// A word with the count of messages dropped since the writer's previous record.
    pub const LOST: u16 = 1 << 4;
    /// A word with the sizes of reply address, key and headers.
    pub const SIZES: u16 = 1 << 5;
    /// The payload is a block descriptor.
    pub const BLOCK: u16 = 1 << 6;
    /// The subject is an id.
    pub const SUBJECT_ID: u16 = 1 << 7;
    /// More replies follow.
    pub const MORE: u16 = 1 << 8;
    /// A word with the publisher, where the lane does not say who that is.
    pub const PUBLISHER: u16 = 1 << 9;
    /// The first flags, each of which has a word; PUBLISHER, the last, has one too.
    pub const WORDS: u16 = 0x3f;
    /// All flags that have a meaning.
    pub const KNOWN: u16 = 0x3ff;
}

/// How many words a set of flags brings: a table, as the baseline x86-64 has no popcount.
const WORD_COUNT: [u8; 64] = {
    let mut table = [0; 64];
    let mut flags = 0;
    while flags < 64 {
        table[flags] = (flags as u8).count_ones() as u8;
        flags += 1;
    }
    table
};

#[inline(always)]
fn words_bytes(flags: u16) -> usize {
    let publisher = (flags & flag::PUBLISHER) / (flag::PUBLISHER / 8);
    WORD_COUNT[(flags & flag::WORDS) as usize] as usize * 8 + publisher as usize
}

/// What a writer wants to say; the lane turns it into a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draft<'a> {
    /// Message, request or reply.
    pub kind: Kind,
    /// Which of the words below are present: [`flag`] bits SEQUENCE to TIMESTAMP, SIZES, BLOCK,
    /// MORE, PUBLISHER.
    pub flags: u16,
    /// Status of a reply.
    pub status: u16,
    /// The publisher's sequence.
    pub sequence: u64,
    /// The request's token.
    pub token: u64,
    /// When it expires, in monotonic nanoseconds.
    pub expiry: u64,
    /// When it was published, in Unix nanoseconds.
    pub timestamp: u64,
    /// The publisher that counts the sequence.
    pub publisher: u64,
    /// Subject text; empty for a reply.
    pub subject: &'a [u8],
    /// Payload, or the 32 bytes of a block descriptor with flag BLOCK.
    pub payload: &'a [u8],
    /// Reply address; at most 1,024 bytes. Needs flag SIZES, as the next two.
    pub reply_to: &'a [u8],
    /// Key; at most 65,535 bytes.
    pub key: &'a [u8],
    /// Encoded headers.
    pub headers: &'a [u8],
}

impl Draft<'_> {
    /// The same with the publisher that counts the sequence, if it has one; 0: none does.
    pub(crate) fn published_by(mut self, publisher: u64) -> Self {
        if publisher != 0 && self.flags & flag::SEQUENCE != 0 {
            self.flags |= flag::PUBLISHER;
            self.publisher = publisher;
        }
        self
    }

    /// Bytes of the record before rounding up.
    #[inline(always)]
    pub fn length(&self, labelled: bool, is_lost: bool) -> usize {
        let subject = if labelled { 0 } else { self.subject.len() };
        let mut length = HEADER_BYTES + words_bytes(self.flags) + self.payload.len() + subject;
        if is_lost {
            length += 8;
        }
        if self.flags & flag::SIZES != 0 {
            length += self.reply_to.len() + self.key.len() + self.headers.len();
        }
        length
    }
}

/// The usual message: at most one word, and no optional field. What it can say is a small part of
/// a [`Draft`], and it is written with a third of the instructions.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a> {
    /// Message, request or reply.
    pub kind: Kind,
    /// Nothing, or [`flag::SEQUENCE`], or [`flag::TOKEN`].
    pub flags: u16,
    /// Status of a reply.
    pub status: u16,
    /// The word of the flag.
    pub word: u64,
    /// Subject text; empty for a reply.
    pub subject: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

impl<'a> Plain<'a> {
    /// The same as a draft.
    pub fn draft(&self) -> Draft<'a> {
        Draft {
            kind: self.kind,
            flags: self.flags,
            status: self.status,
            sequence: self.word,
            token: self.word,
            subject: self.subject,
            payload: self.payload,
            ..Draft::default()
        }
    }

    /// Bytes of the record before rounding up.
    #[inline(always)]
    pub(crate) fn length(&self, labelled: bool) -> usize {
        let subject = if labelled { 0 } else { self.subject.len() };
        self.payload_at() + self.payload.len() + subject
    }

    /// Bytes of the record in a lane that says subject and publisher itself.
    #[inline(always)]
    pub fn labelled_step(&self) -> u64 {
        (self.length(true) as u64 + 7) & !7
    }

    #[inline(always)]
    fn is_reply(&self) -> bool {
        self.kind as u8 == Kind::Reply as u8
    }

    /// Offset of the payload in the record.
    #[inline(always)]
    pub(crate) fn payload_at(&self) -> usize {
        let word = if self.flags == 0 { 0 } else { 8 };
        HEADER_BYTES + word
    }
}

/// Writes the record of `plain` at `offset`.
///
/// # Safety
/// As [`encode`].
#[inline(always)]
pub(crate) unsafe fn encode_plain<W: Words>(
    words: &W,
    offset: usize,
    length: usize,
    plain: &Plain<'_>,
    subscription: u32,
    labelled: bool,
) {
    let [first, second] = head_of_plain(length, plain, subscription, labelled);
    let (payload, text) = (plain.payload, plain.subject);
    match (plain.flags != 0, labelled || plain.is_reply()) {
        // SAFETY: all that is `length` bytes, which the caller owns.
        (true, true) => unsafe { words.write_all(offset, [first, second, plain.word], [payload]) },
        (true, false) => {
            let three = [first, second, plain.word];
            // SAFETY: as above.
            unsafe { words.write_all(offset, three, [payload, text]) };
        }
        // SAFETY: as above.
        (false, true) => unsafe { words.write_all(offset, [first, second], [payload]) },
        // SAFETY: as above.
        (false, false) => unsafe { words.write_all(offset, [first, second], [payload, text]) },
    }
}

/// Writes all of the record of `plain`, in a lane that has its subject, but the payload, which has
/// `size` bytes and is there.
///
/// # Safety
/// As [`encode`]; the record is that of `plain` with such a payload.
#[inline(always)]
pub(crate) unsafe fn encode_around<W: Words>(
    words: &W,
    offset: usize,
    plain: &Plain<'_>,
    size: usize,
    subscription: u32,
) {
    let length = plain.payload_at() + size;
    let [first, second] = head_of_plain(length, plain, subscription, true);
    match plain.flags != 0 {
        // SAFETY: the words lie inside the record, which the caller owns.
        true => unsafe { words.write_all(offset, [first, second, plain.word], []) },
        // SAFETY: as above.
        false => unsafe { words.write_all(offset, [first, second], []) },
    }
}

/// The first two words of the record of `plain`.
#[inline(always)]
fn head_of_plain(length: usize, plain: &Plain<'_>, subscription: u32, labelled: bool) -> [u64; 2] {
    let mut flags = plain.flags;
    let mut subject = plain.subject.len() as u32;
    if labelled {
        flags |= flag::SUBJECT_ID;
        subject = 0;
    }
    if plain.is_reply() {
        subject = u32::from(plain.status);
    }
    let first = length as u64 | (plain.kind as u64) << 32 | u64::from(flags) << 48;
    let second = u64::from(subscription) | u64::from(subject) << 32;
    [first, second]
}

/// Writes the record of `draft` at `offset`.
///
/// # Safety
/// The caller owns `[offset, offset + round_up(length, 8))` of the data; `length` is
/// `draft.length(labelled, lost > 0)`; `offset` is a multiple of 8.
#[inline(always)]
pub(crate) unsafe fn encode<W: Words>(
    words: &W,
    offset: usize,
    length: usize,
    draft: &Draft<'_>,
    subscription: u32,
    labelled: bool,
    lost: u64,
) {
    let mut flags = draft.flags;
    if lost > 0 {
        flags |= flag::LOST;
    }
    let mut subject = draft.subject.len() as u32;
    if labelled {
        flags |= flag::SUBJECT_ID;
        subject = 0;
    }
    if draft.kind as u8 == Kind::Reply as u8 {
        subject = u32::from(draft.status);
    }
    let first = length as u64 | (draft.kind as u64) << 32 | u64::from(flags) << 48;
    let second = u64::from(subscription) | u64::from(subject) << 32;
    let mut at = offset;
    let mut put = |value: u64| {
        // SAFETY: the words lie inside `length`, which the caller owns.
        unsafe { words.write(at, value) };
        at += 8;
    };
    put(first);
    put(second);
    if flags & flag::SEQUENCE != 0 {
        put(draft.sequence);
    }
    if flags & flag::TOKEN != 0 {
        put(draft.token);
    }
    const RARE: u16 = flag::EXPIRY | flag::TIMESTAMP | flag::LOST | flag::SIZES | flag::PUBLISHER;
    if flags & RARE != 0 {
        if flags & flag::EXPIRY != 0 {
            put(draft.expiry);
        }
        if flags & flag::TIMESTAMP != 0 {
            put(draft.timestamp);
        }
        if flags & flag::LOST != 0 {
            put(lost);
        }
        if flags & flag::SIZES != 0 {
            put(draft.reply_to.len() as u64
                | (draft.key.len() as u64) << 16
                | (draft.headers.len() as u64) << 32);
        }
        if flags & flag::PUBLISHER != 0 {
            put(draft.publisher);
        }
    }
    // SAFETY: the payload field lies inside `length`.
    unsafe { words.copy_in(at, draft.payload) };
    at += draft.payload.len();
    if !labelled {
        // SAFETY: the subject field lies inside `length`.
        unsafe { words.copy_in(at, draft.subject) };
        at += draft.subject.len();
    }
    if flags & flag::SIZES != 0 {
        for field in [draft.reply_to, draft.key, draft.headers] {
            // SAFETY: the field lies inside `length`.
            unsafe { words.copy_in(at, field) };
            at += field.len();
        }
    }
    debug_assert_eq!(at, offset + length);
}

/// The first word of a SKIP record of `length` bytes.
#[inline(always)]
pub(crate) fn skip_word(length: usize) -> u64 {
    length as u64 | (Kind::Skip as u64) << 32
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// `length` is below the smallest record or above what is there.
    Length {
        /// The length that was read.
        length: u32,
        /// Bytes that could belong to this record.
        available: u64,
    },
    /// `kind` has no meaning.
    Kind(u8),
    /// A flag, or a field that must be 0, is set without a meaning.
    Flags(u16),
    /// The subject is empty, too long, or not inside the record.
    Subject(u32),
    /// The optional fields do not fit in the record.
    Sizes,
    /// A block descriptor of the wrong size, or one that names no block of this pool.
    Block,
    /// Cursors outside what is possible.
    Cursor,
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length { length, available } => {
                write!(f, "record length {length} with {available} bytes available")
            }
            Self::Kind(kind) => write!(f, "record kind {kind} is unknown"),
            Self::Flags(flags) => write!(f, "record flags {flags:#06x} are not allowed here"),
            Self::Subject(size) => write!(f, "subject size {size} does not fit the record"),
            Self::Sizes => write!(f, "optional fields do not fit the record"),
            Self::Block => write!(f, "block descriptor names no block"),
            Self::Cursor => write!(f, "ring cursors are out of range"),
        }
    }
}

impl std::error::Error for RecordError {}

/// A decoded header: values, and where the fields lie from the start of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What the record is.
    pub kind: Kind,
    /// Its flags.
    pub flags: u16,
    /// Bytes it occupies in the ring.
    pub step: u64,
    /// The subscription it was routed to.
    pub subscription: u32,
    /// Subject size, subject id or status, as the format says.
    pub subject: u32,
    /// Offset of the payload.
    pub payload_at: u32,
    /// Size of the payload field.
    pub payload_size: u32,
    /// Size of the subject text.
    pub subject_size: u32,
    /// Size of the reply address.
    pub reply_to_size: u32,
    /// Size of the key.
    pub key_size: u32,
    /// Size of the headers.
    pub headers_size: u32,
}

impl Parsed {
    /// Offset of the word of `flag`, which must be set.
    #[inline(always)]
    pub fn word_at(&self, flag: u16) -> usize {
        HEADER_BYTES + words_bytes(self.flags & (flag - 1))
    }
}

/// Decodes the header of a record of which `available` contiguous bytes exist, and which may be
/// `half` of its ring at most (a SKIP: all of it).
///
/// `read` gives the 8-byte word at an offset below `available`; it is called at most once for an
/// offset, so that a writer who changes the bytes meanwhile cannot make the checks disagree with
/// the use.
#[inline(always)]
pub fn parse(
    available: u64,
    half: u64,
    read: impl Fn(usize) -> u64,
) -> Result<Parsed, RecordError> {
    if available < 8 {
        return Err(RecordError::Cursor);
    }
    let first = read(0);
    let length = first as u32;
    let kind = (first >> 32) as u8;
    let priority = (first >> 40) as u8;
    let flags = (first >> 48) as u16;
    let step = (u64::from(length) + 7) & !7;
    let kind = match kind {
        1 => Kind::Message,
        2 => Kind::Request,
        3 => Kind::Reply,
        4 => return parse_skip(length, priority, flags, available),
        other => return Err(RecordError::Kind(other)),
    };
    if (length as usize) < HEADER_BYTES || step > available.min(half) {
        let available = available.min(half);
        return Err(RecordError::Length { length, available });
    }
    if flags & !flag::KNOWN != 0 || priority != 0 {
        return Err(RecordError::Flags(flags));
    }
    let second = read(8);
    let subject = (second >> 32) as u32;
    let payload_at = HEADER_BYTES + words_bytes(flags);
    let mut parsed = Parsed {
        kind,
        flags,
        step,
        subscription: second as u32,
        subject,
        payload_at: payload_at as u32,
        payload_size: 0,
        subject_size: 0,
        reply_to_size: 0,
        key_size: 0,
        headers_size: 0,
    };
    if kind as u8 == Kind::Reply as u8 {
        if subject > 0xffff || flags & flag::SUBJECT_ID != 0 {
            return Err(RecordError::Subject(subject));
        }
    } else if flags & flag::SUBJECT_ID == 0 {
        if subject == 0 || subject as usize > SUBJECT_BYTES_MAX {
            return Err(RecordError::Subject(subject));
        }
        parsed.subject_size = subject;
    }
    if flags & flag::SIZES != 0 {
        if payload_at > length as usize {
            return Err(RecordError::Sizes);
        }
        let sizes = read(parsed.word_at(flag::SIZES));
        parsed.reply_to_size = u32::from(sizes as u16);
        parsed.key_size = u32::from((sizes >> 16) as u16);
        parsed.headers_size = (sizes >> 32) as u32;
        if parsed.reply_to_size as usize > REPLY_TO_BYTES_MAX
            || parsed.headers_size as usize > HEADERS_BYTES_MAX
        {
            return Err(RecordError::Sizes);
        }
    }
    let others = payload_at as u64
        + u64::from(parsed.subject_size)
        + u64::from(parsed.reply_to_size)
        + u64::from(parsed.key_size)
        + u64::from(parsed.headers_size);
    if others > u64::from(length) {
        return Err(RecordError::Sizes);
    }
    parsed.payload_size = (u64::from(length) - others) as u32;
    if flags & flag::BLOCK != 0
        && (parsed.payload_size as usize != DESCRIPTOR_BYTES || read(payload_at + 24) != 0)
    {
        return Err(RecordError::Block);
    }
    Ok(parsed)
}

#[cold]
fn parse_skip(
    length: u32,
    priority: u8,
    flags: u16,
    available: u64,
) -> Result<Parsed, RecordError> {
    if length < 8 || !length.is_multiple_of(8) || u64::from(length) > available {
        return Err(RecordError::Length { length, available });
    }
    if flags != 0 || priority != 0 {
        return Err(RecordError::Flags(flags));
    }
    Ok(Parsed {
        kind: Kind::Skip,
        flags,
        step: u64::from(length),
        subscription: 0,
        subject: 0,
        payload_at: 8,
        payload_size: 0,
        subject_size: 0,
        reply_to_size: 0,
        key_size: 0,
        headers_size: 0,
    })
}

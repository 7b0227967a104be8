//! MESSAGE, REQUEST and REPLY as they were received (`docs/protocol.md` §2).
//!
//! A [`Message`] borrows its frame. What is read of every message was read when it was decoded;
//! words and texts are looked up when they are asked for, inside bounds that decoding has checked.

use crate::fault::Fault;
use crate::kind::{Kind, Side};
use crate::{HEADER_BYTES, HEADERS_BYTES_MAX, SUBJECT_BYTES_MAX};

/// Flag bits, in the order of their words.
pub mod flag {
    /// A word with the publisher's sequence.
    pub const SEQUENCE: u16 = 1 << 0;
    /// A word that says where the answer goes.
    pub const TOKEN: u16 = 1 << 1;
    /// A word with the nanoseconds that it is still worth delivering.
    pub const TTL: u16 = 1 << 2;
    /// A word with the Unix nanosecond of the publish.
    pub const TIMESTAMP: u16 = 1 << 3;
    /// A word with the count of messages dropped before it.
    pub const LOST: u16 = 1 << 4;
    /// A word with the sizes of reply address, key and headers.
    pub const SIZES: u16 = 1 << 5;
    /// Reserved.
    pub const BLOCK: u16 = 1 << 6;
    /// The subject is an alias.
    pub const ALIAS: u16 = 1 << 7;
    /// More replies follow.
    pub const MORE: u16 = 1 << 8;
    /// A word with the publisher.
    pub const PUBLISHER: u16 = 1 << 9;
    /// A word with the answers wanted and the credit of streams.
    pub const MANY: u16 = 1 << 10;
    /// A word that an extension follows.
    pub const EXTENSION: u16 = 1 << 11;
    /// What is refused because ignoring it would be wrong.
    pub(crate) const REFUSED: u16 = BLOCK | 0xc000;
    /// What is refused, or brings a word whose value is checked.
    pub(crate) const UNUSUAL: u16 = REFUSED | SIZES | EXTENSION;
}

/// Extension bits that are refused, as this version knows none of them.
const EXTENSION_REFUSED: u32 = 0xffff_0000;

/// How many of three or six flags are set: a table, as the baseline x86-64 has no popcount.
const COUNT: [u8; 64] = {
    let mut table = [0; 64];
    let mut flags = 0;
    while flags < 64 {
        table[flags] = (flags as u8).count_ones() as u8;
        flags += 1;
    }
    table
};

/// Bytes of the words that a set of flags brings.
#[inline(always)]
pub(crate) const fn words_bytes(flags: u16) -> usize {
    (COUNT[(flags & 0x3f) as usize] + COUNT[(flags >> 9 & 7) as usize]) as usize * 8
}

/// What a request says about several answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Many {
    /// Responders whose answers are wanted; `u32::MAX`: all.
    pub answers: u32,
    /// Replies that each may stream ahead; 0: no streams.
    pub credit: u32,
}

/// What later versions say beside the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// What is inside.
    pub bits: u32,
    /// It, in the order of the bits.
    pub bytes: &'a [u8],
}

/// One received MESSAGE, REQUEST or REPLY.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The frame without its rounding.
    bytes: &'a [u8],
    head: u64,
    numbers: u64,
    payload_at: u32,
    payload_size: u32,
}

impl<'a> Message<'a> {
    /// The message in `bytes`, which are one frame that starts with `head`. `kind` is that of the
    /// head, and `side` the receiver's.
    #[inline(always)]
    pub(crate) fn read(
        bytes: &'a [u8],
        head: u64,
        numbers: u64,
        kind: Kind,
        side: Side,
    ) -> Result<Self, Fault> {
        let flags = (head >> 48) as u16;
        let is_reply = kind as u8 == Kind::Reply as u8;
        let is_asked = kind as u8 == Kind::Request as u8 && side as u8 == Side::Client as u8;
        let second = (numbers >> 32) as u32;
        let plain = if is_reply { 0 } else { flag::ALIAS };
        let word = if is_asked {
            flag::TOKEN
        } else {
            flag::SEQUENCE
        };
        const ONE_WORD: usize = HEADER_BYTES + 8;
        let (payload_at, payload_size) = if flags & !flag::MORE == plain && !is_asked {
            (HEADER_BYTES as u32, (bytes.len() - HEADER_BYTES) as u32)
        } else if flags == plain | word && !is_reply && bytes.len() >= ONE_WORD {
            (ONE_WORD as u32, (bytes.len() - ONE_WORD) as u32)
        } else {
            place(bytes, flags, second, kind, is_asked)?
        };
        Ok(Self {
            bytes,
            head,
            numbers,
            payload_at,
            payload_size,
        })
    }

    /// The frame without its rounding.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its flags.
    #[inline(always)]
    pub fn flags(&self) -> u16 {
        (self.head >> 48) as u16
    }

    #[inline(always)]
    fn code(&self) -> u8 {
        (self.head >> 40) as u8
    }

    #[inline(always)]
    fn is_reply(&self) -> bool {
        (self.head >> 32) as u8 == Kind::Reply as u8
    }

    /// What a publish wants to be answered by; 0: nothing.
    #[inline(always)]
    pub fn operation(&self) -> u32 {
        self.numbers as u32
    }

    /// The subscription that it is delivered to.
    #[inline(always)]
    pub fn subscription(&self) -> u32 {
        self.numbers as u32
    }

    /// Of a request to the server and of a reply to its asker.
    #[inline(always)]
    pub fn correlation(&self) -> u32 {
        self.numbers as u32
    }

    /// Who says this reply; 0: the server itself, or a request without MANY.
    #[inline(always)]
    pub fn responder(&self) -> u32 {
        (self.numbers >> 32) as u32
    }

    /// Status of a reply.
    #[inline(always)]
    pub fn status(&self) -> u8 {
        self.code()
    }

    /// Whether more replies follow for the same request.
    #[inline(always)]
    pub fn is_more(&self) -> bool {
        self.flags() & flag::MORE != 0
    }

    /// The number that stands for the subject.
    #[inline(always)]
    pub fn alias(&self) -> Option<u32> {
        (self.flags() & flag::ALIAS != 0).then_some((self.numbers >> 32) as u32)
    }

    /// The subject's text; empty if it has a number, and for a reply.
    pub fn subject(&self) -> &'a [u8] {
        self.text(0, self.subject_size())
    }

    /// The payload.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        let at = self.payload_at as usize;
        self.bytes
            .get(at..at + self.payload_size as usize)
            .unwrap_or_default()
    }

    /// The publisher's sequence.
    pub fn sequence(&self) -> Option<u64> {
        self.word(flag::SEQUENCE)
    }

    /// The publisher that counts the sequence, where it is not that of the alias.
    pub fn publisher(&self) -> Option<u64> {
        self.word(flag::PUBLISHER)
    }

    /// Where the answer goes: a request's word, or the numbers of a reply to the server.
    #[inline(always)]
    pub fn token(&self) -> u64 {
        if self.is_reply() {
            return self.numbers;
        }
        self.word(flag::TOKEN).unwrap_or(0)
    }

    /// Nanoseconds that it was still worth delivering when it was sent.
    #[inline(always)]
    pub fn ttl_ns(&self) -> Option<u64> {
        self.word(flag::TTL)
    }

    /// Unix nanoseconds of the publish.
    pub fn timestamp_ns(&self) -> Option<u64> {
        self.word(flag::TIMESTAMP)
    }

    /// Messages dropped for this subscription since the previous one.
    pub fn lost(&self) -> u64 {
        self.word(flag::LOST).unwrap_or(0)
    }

    /// What a request says about several answers.
    #[inline(always)]
    pub fn many(&self) -> Option<Many> {
        let word = self.word(flag::MANY)?;
        Some(Many {
            answers: word as u32,
            credit: (word >> 32) as u32,
        })
    }

    /// What later versions say.
    pub fn extension(&self) -> Option<Extension<'a>> {
        let word = self.word(flag::EXTENSION)?;
        let at = HEADER_BYTES + words_bytes(self.flags());
        let bytes = self.bytes.get(at..self.payload_at as usize)?;
        let bits = word as u32;
        Some(Extension { bits, bytes })
    }

    /// Where an answer may be published.
    pub fn reply_to(&self) -> &'a [u8] {
        self.text(self.subject_size(), self.sizes().0)
    }

    /// The key.
    pub fn key(&self) -> &'a [u8] {
        let (reply_to, key, _) = self.sizes();
        self.text(self.subject_size() + reply_to, key)
    }

    /// The encoded headers.
    #[inline(always)]
    pub fn headers(&self) -> &'a [u8] {
        match self.flags() & flag::SIZES {
            0 => &[],
            _ => self.headers_behind(),
        }
    }

    fn headers_behind(&self) -> &'a [u8] {
        let (reply_to, key, headers) = self.sizes();
        self.text(self.subject_size() + reply_to + key, headers)
    }

    /// The word of a flag, if that is set.
    #[inline(always)]
    fn word(&self, flag: u16) -> Option<u64> {
        let flags = self.flags();
        if flags & flag == 0 {
            return None;
        }
        word(self.bytes, flags, flag)
    }

    fn subject_size(&self) -> usize {
        if self.flags() & flag::ALIAS != 0 || self.is_reply() {
            return 0;
        }
        (self.numbers >> 32) as usize
    }

    /// Sizes of reply address, key and headers.
    fn sizes(&self) -> (usize, usize, usize) {
        sizes(self.word(flag::SIZES).unwrap_or(0))
    }

    /// `size` bytes that start `offset` bytes behind the payload.
    fn text(&self, offset: usize, size: usize) -> &'a [u8] {
        let at = (self.payload_at + self.payload_size) as usize + offset;
        self.bytes.get(at..at + size).unwrap_or_default()
    }
}

/// The word of a flag that is set.
#[inline(always)]
fn word(bytes: &[u8], flags: u16, flag: u16) -> Option<u64> {
    let at = HEADER_BYTES + words_bytes(flags & (flag - 1));
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*word))
}

/// Sizes of reply address, key and headers in their word.
#[inline(always)]
fn sizes(word: u64) -> (usize, usize, usize) {
    let (reply_to, key) = (word & 0xffff, word >> 16 & 0xffff);
    (reply_to as usize, key as usize, (word >> 32) as usize)
}

/// Offset and size of the payload. Nearly all messages have only words whose values need no check:
/// that is done here, in registers.
#[inline(always)]
fn place(
    bytes: &[u8],
    flags: u16,
    second: u32,
    kind: Kind,
    is_asked: bool,
) -> Result<(u32, u32), Fault> {
    let is_reply = kind as u8 == Kind::Reply as u8;
    let has_text = !is_reply && flags & flag::ALIAS == 0;
    let text = if has_text { second as usize } else { 0 };
    let at = HEADER_BYTES + words_bytes(flags);
    let is_usual = flags & flag::UNUSUAL == 0
        && !(is_reply && flags & flag::ALIAS != 0)
        && !(is_asked && flags & flag::TOKEN == 0)
        && !(has_text && second.wrapping_sub(1) >= SUBJECT_BYTES_MAX as u32)
        && at + text <= bytes.len();
    if is_usual {
        return Ok((at as u32, (bytes.len() - at - text) as u32));
    }
    let place = check(bytes, flags, second, kind, is_asked)?;
    Ok((place as u32, (place >> 32) as u32))
}

/// Finds the payload of any message, or its fault: its offset in the low 32 bits, its
/// size in the high ones.
#[inline(never)]
fn check(bytes: &[u8], flags: u16, second: u32, kind: Kind, is_asked: bool) -> Result<u64, Fault> {
    let length = bytes.len();
    if flags & flag::REFUSED != 0 {
        let flags = flags & flag::REFUSED;
        return Err(Fault::Flags { kind, flags });
    }
    let is_reply = kind as u8 == Kind::Reply as u8;
    if is_reply && flags & flag::ALIAS != 0 {
        let flags = flag::ALIAS;
        return Err(Fault::Flags { kind, flags });
    }
    if is_asked && flags & flag::TOKEN == 0 {
        return Err(Fault::NoToken);
    }
    let mut at = HEADER_BYTES + words_bytes(flags);
    if at > length {
        return Err(Fault::Words { end: at, length });
    }
    if flags & flag::EXTENSION != 0 {
        let word = word(bytes, flags, flag::EXTENSION).unwrap_or(0);
        let (bits, size) = (word as u32, (word >> 32) as u32);
        if bits & EXTENSION_REFUSED != 0 {
            return Err(Fault::Extension(bits & EXTENSION_REFUSED));
        }
        if !size.is_multiple_of(8) || size as usize > length - at {
            return Err(Fault::ExtensionSize(size));
        }
        at += size as usize;
    }
    let mut texts = 0;
    if !is_reply && flags & flag::ALIAS == 0 {
        if second == 0 || second as usize > SUBJECT_BYTES_MAX {
            return Err(Fault::Subject(second));
        }
        texts = u64::from(second);
    }
    if flags & flag::SIZES != 0 {
        let (reply_to, key, headers) = sizes(word(bytes, flags, flag::SIZES).unwrap_or(0));
        if reply_to > SUBJECT_BYTES_MAX {
            return Err(Fault::ReplyTo(reply_to as u16));
        }
        if headers > HEADERS_BYTES_MAX {
            return Err(Fault::Headers(headers as u32));
        }
        texts += (reply_to + key + headers) as u64;
    }
    let room = length - at;
    if texts > room as u64 {
        return Err(Fault::Texts { size: texts, room });
    }
    Ok(at as u64 | (room as u64 - texts) << 32)
}

//! MESSAGE, REQUEST and REPLY as they are sent (`docs/protocol.md` §2).
//!
//! What a [`Draft`] does not say costs nothing: written where it is made, the compiler drops the
//! parts that are constants.

use crate::kind::Kind;
use crate::message::{Many, flag, words_bytes};
use crate::{HEADER_BYTES, HEADERS_BYTES_MAX, NoMemory, SUBJECT_BYTES_MAX, round_up};

/// Frames up to this size are short ones: with a token and a payload of 64 bytes, for example.
pub const SHORT_BYTES: usize = 96;

/// What a message is about, as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// By the number that an ALIAS has given.
    Alias(u32),
    /// As text of 1 to 1,024 bytes.
    Text(&'a [u8]),
}

/// One message to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    kind: Kind,
    /// Priority of a message, status of a reply.
    code: u8,
    numbers: u64,
    text: &'a [u8],
    is_alias: bool,
    token: Option<u64>,
    /// The payload.
    pub payload: &'a [u8],
    /// Whether more replies follow for the same request.
    pub is_more: bool,
    /// The publisher's sequence.
    pub sequence: Option<u64>,
    /// The publisher that counts the sequence, where it is not that of the alias.
    pub publisher: Option<u64>,
    /// Nanoseconds that it is still worth delivering.
    pub ttl_ns: Option<u64>,
    /// Unix nanoseconds of the publish.
    pub timestamp_ns: Option<u64>,
    /// Messages dropped for the subscription since its previous one; 0 is not written.
    pub lost: u64,
    /// What a request says about several answers.
    pub many: Option<Many>,
    /// Where an answer may be published; at most 1,024 bytes.
    pub reply_to: &'a [u8],
    /// The key; at most 65,535 bytes.
    pub key: &'a [u8],
    /// Encoded headers; at most 64 KiB.
    pub headers: &'a [u8],
}

impl<'a> Draft<'a> {
    #[inline(always)]
    fn new(kind: Kind, code: u8, numbers: u64, payload: &'a [u8]) -> Self {
        Self {
            kind,
            code,
            numbers,
            text: &[],
            is_alias: false,
            token: None,
            payload,
            is_more: false,
            sequence: None,
            publisher: None,
            ttl_ns: None,
            timestamp_ns: None,
            lost: 0,
            many: None,
            reply_to: &[],
            key: &[],
            headers: &[],
        }
    }

    #[inline(always)]
    fn about(kind: Kind, first: u32, subject: Subject<'a>, payload: &'a [u8]) -> Self {
        let (text, second, is_alias) = match subject {
            Subject::Alias(alias) => (&[][..], alias, true),
            Subject::Text(text) => (text, text.len() as u32, false),
        };
        let numbers = u64::from(first) | u64::from(second) << 32;
        Self {
            text,
            is_alias,
            ..Self::new(kind, 0, numbers, payload)
        }
    }

    /// A publish to the server, answered if `operation` is not 0; or a delivery to the client,
    /// where the number is that of its subscription.
    #[inline(always)]
    pub fn message(number: u32, subject: Subject<'a>, payload: &'a [u8]) -> Self {
        Self::about(Kind::Message, number, subject, payload)
    }

    /// A question to the server.
    #[inline(always)]
    pub fn request(correlation: u32, subject: Subject<'a>, payload: &'a [u8]) -> Self {
        Self::about(Kind::Request, correlation, subject, payload)
    }

    /// A question from the server to a responder, who answers to `token`.
    #[inline(always)]
    pub fn question(
        subscription: u32,
        subject: Subject<'a>,
        token: u64,
        payload: &'a [u8],
    ) -> Self {
        Self {
            token: Some(token),
            ..Self::about(Kind::Request, subscription, subject, payload)
        }
    }

    /// An answer to the server.
    #[inline(always)]
    pub fn reply(token: u64, status: u8, payload: &'a [u8]) -> Self {
        Self::new(Kind::Reply, status, token, payload)
    }

    /// An answer from the server to the asker; `responder` 0: its own word.
    #[inline(always)]
    pub fn answer(correlation: u32, responder: u32, status: u8, payload: &'a [u8]) -> Self {
        let numbers = u64::from(correlation) | u64::from(responder) << 32;
        Self::new(Kind::Reply, status, numbers, payload)
    }

    /// Sends the same to another subscription, whose receiver may know the subject by another
    /// number. For a message or a question.
    #[inline(always)]
    pub fn address(&mut self, subscription: u32, subject: Subject<'a>) {
        let it = Self::about(self.kind, subscription, subject, self.payload);
        self.numbers = it.numbers;
        self.text = it.text;
        self.is_alias = it.is_alias;
    }

    #[inline(always)]
    fn flags(&self) -> u16 {
        let mut flags = 0;
        let mut set = |is_set: bool, flag: u16| flags |= if is_set { flag } else { 0 };
        set(self.sequence.is_some(), flag::SEQUENCE);
        set(self.token.is_some(), flag::TOKEN);
        set(self.ttl_ns.is_some(), flag::TTL);
        set(self.timestamp_ns.is_some(), flag::TIMESTAMP);
        set(self.lost > 0, flag::LOST);
        set(self.texts_size() > 0, flag::SIZES);
        set(self.is_alias, flag::ALIAS);
        set(self.is_more, flag::MORE);
        set(self.publisher.is_some(), flag::PUBLISHER);
        set(self.many.is_some(), flag::MANY);
        flags
    }

    #[inline(always)]
    fn texts_size(&self) -> usize {
        self.reply_to.len() + self.key.len() + self.headers.len()
    }

    /// Bytes of the frame without its rounding.
    #[inline(always)]
    pub fn length(&self) -> usize {
        let words = words_bytes(self.flags());
        HEADER_BYTES + words + self.payload.len() + self.text.len() + self.texts_size()
    }

    /// Bytes that the frame occupies.
    #[inline(always)]
    pub fn size(&self) -> usize {
        round_up(self.length())
    }

    /// Appends the frame. What a receiver would refuse is a bug of ours: sizes are the caller's to
    /// check before.
    #[inline(always)]
    pub fn append(&self, out: &mut Vec<u8>) -> Result<(), NoMemory> {
        let size = self.size();
        if out.capacity() - out.len() < size {
            out.try_reserve(size).map_err(|_| NoMemory)?;
        }
        self.put(out);
        Ok(())
    }

    /// Writes a frame of at most [`SHORT_BYTES`] to the front of zeroed room, and gives the bytes
    /// that it occupies. In room of a size that is known, parts of known sizes are stored without
    /// a call.
    #[inline(always)]
    pub fn write_short(&self, room: &mut [u8; SHORT_BYTES]) -> usize {
        self.put(&mut Room(room));
        self.size()
    }

    /// Writes the frame to the front of `room`, and gives the bytes that it occupies; `None`: it
    /// does not fit, and nothing is written.
    #[inline(always)]
    pub fn write(&self, room: &mut [u8]) -> Option<usize> {
        let size = self.size();
        self.put(&mut Room(room.get_mut(..size)?));
        Some(size)
    }

    /// The header of a frame without words and texts: behind it are the payload and zeros up to a
    /// multiple of 8.
    #[inline(always)]
    pub fn plain_header(&self) -> [u64; 2] {
        debug_assert!(words_bytes(self.flags()) == 0 && self.text.is_empty());
        [self.head(), self.numbers]
    }

    #[inline(always)]
    fn head(&self) -> u64 {
        self.length() as u64
            | (self.kind as u64) << 32
            | u64::from(self.code) << 40
            | u64::from(self.flags()) << 48
    }

    #[inline(always)]
    fn put(&self, out: &mut impl Sink) {
        debug_assert!(self.reply_to.len() <= SUBJECT_BYTES_MAX);
        debug_assert!(self.key.len() <= usize::from(u16::MAX));
        debug_assert!(self.headers.len() <= HEADERS_BYTES_MAX);
        debug_assert!(self.text.len() <= SUBJECT_BYTES_MAX);
        let (flags, length) = (self.flags(), self.length());
        let header = u128::from(self.head()) | u128::from(self.numbers) << 64;
        out.put(&header.to_le_bytes());
        if words_bytes(flags) > 0 {
            self.put_words(out);
        }
        out.put_short(self.payload);
        if !self.text.is_empty() {
            out.put(self.text);
        }
        if self.texts_size() > 0 {
            out.put(self.reply_to);
            out.put(self.key);
            out.put(self.headers);
        }
        if !length.is_multiple_of(8) {
            out.put(&[0; 8][..round_up(length) - length]);
        }
    }

    #[inline(always)]
    fn put_words(&self, out: &mut impl Sink) {
        let mut put = |word: Option<u64>| {
            if let Some(word) = word {
                out.put(&word.to_le_bytes());
            }
        };
        put(self.sequence);
        put(self.token);
        put(self.ttl_ns);
        put(self.timestamp_ns);
        put((self.lost > 0).then_some(self.lost));
        let (reply_to, key) = (self.reply_to.len() as u64, self.key.len() as u64);
        let sizes = reply_to | key << 16 | (self.headers.len() as u64) << 32;
        put((sizes > 0).then_some(sizes));
        put(self.publisher);
        put(self
            .many
            .map(|many| u64::from(many.answers) | u64::from(many.credit) << 32));
    }
}

/// Appends a frame whose subject is an alias, as [`Draft::append`] has made it, for another
/// subscription and alias.
#[inline(always)]
pub fn append_readdressed(
    out: &mut Vec<u8>,
    frame: &[u8],
    subscription: u32,
    alias: u32,
) -> Result<(), NoMemory> {
    if out.capacity() - out.len() < frame.len() {
        out.try_reserve(frame.len()).map_err(|_| NoMemory)?;
    }
    let at = out.len();
    out.extend_from_slice(frame);
    let numbers = u64::from(subscription) | u64::from(alias) << 32;
    if let Some(place) = out.get_mut(at + 8..at + HEADER_BYTES) {
        place.copy_from_slice(&numbers.to_le_bytes());
    }
    Ok(())
}

/// Where a frame is put, part by part.
trait Sink {
    fn put(&mut self, bytes: &[u8]);

    /// Puts what is short most of the time.
    fn put_short(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline(always)]
    fn put_short(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Room of exactly a frame's size.
struct Room<'r>(&'r mut [u8]);

impl Sink for Room<'_> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        let (here, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        self.0 = rest;
    }

    #[inline(always)]
    fn put_short(&mut self, bytes: &[u8]) {
        let (here, behind) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        match bytes.len() {
            16..=32 => copy_ends::<16>(here, bytes),
            8..16 => copy_ends::<8>(here, bytes),
            33..=64 if bytes.len().is_multiple_of(8) => copy_words(here, bytes),
            _ => here.copy_from_slice(bytes),
        }
        self.0 = behind;
    }
}

/// Copies the first and the last `N` bytes, which overlap where that is more than all.
#[inline(always)]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk()) {
        *to = *from;
    }
}

/// Copies words of 8 bytes.
#[inline(always)]
fn copy_words(to: &mut [u8], from: &[u8]) {
    let words = from.as_chunks::<8>().0;
    for (place, word) in to.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *place = *word;
    }
}

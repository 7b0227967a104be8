//! The frames of received bytes (`docs/protocol.md` §1).

use crate::control::Control;
use crate::fault::Fault;
use crate::kind::{Kind, SKIPPED_FIRST, SKIPPED_LAST, Side};
use crate::message::{Message, flag};
use crate::{CONTROL_BYTES_MAX, HEADER_BYTES, round_up};

/// One received frame.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// A publish to the server, a delivery to the client.
    Message(Message<'a>),
    /// A question to the server, or from it to a responder.
    Request(Message<'a>),
    /// An answer to the server, or from it to the asker.
    Reply(Message<'a>),
    /// Anything else.
    Control(Control<'a>),
}

/// A publish that has nothing but an alias, a payload and maybe a sequence, and is not answered.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a> {
    /// What stands for its subject.
    pub alias: u32,
    /// The publisher's sequence; 0: none.
    pub sequence: u64,
    /// The payload.
    pub payload: &'a [u8],
    /// Bytes that its frame occupies.
    pub size: usize,
}

/// A reply to an asker that has nothing but a status and a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainReply<'a> {
    /// Which request it answers.
    pub correlation: u32,
    /// Its status.
    pub status: u8,
    /// Its payload, which is not empty if the status is not 0: that would be the server's word.
    pub payload: &'a [u8],
}

/// A question to a responder that has nothing but a subject, a token and a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainQuestion<'a> {
    /// The number of its subject.
    pub alias: u32,
    /// Where the answer goes.
    pub token: u64,
    /// Its payload.
    pub payload: &'a [u8],
}

/// What plain frames in a row have in common, most of the time: it is looked at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// 0: that of none.
    head: u64,
    length: usize,
    size: usize,
}

/// Kind and flags of plain frames, as the upper half of a frame's first word has them.
const REPLY: u32 = Kind::Reply as u32;
/// See [`REPLY`].
const QUESTION: u32 = Kind::Request as u32 | ((flag::ALIAS | flag::TOKEN) as u32) << 16;
/// The byte between them: status or priority.
const CODE: u32 = 0xff00;

/// Takes the whole frames off the front of bytes that a ready connection has received.
///
/// ```
/// # use fastmq_wire::{Frame, Frames, Side};
/// let bytes = [
///     20, 0, 0, 0, 2, 0, 0x80, 0, 7, 0, 0, 0, 3, 0, 0, 0, b'p', b'i', b'n', b'g', 0, 0, 0, 0,
/// ];
/// let mut frames = Frames::new(&bytes, Side::Server, 8192);
/// let Ok(Some(Frame::Request(request))) = frames.next_frame() else { panic!() };
/// assert_eq!((request.correlation(), request.alias()), (7, Some(3)));
/// assert_eq!(request.payload(), b"ping");
/// assert!(matches!(frames.next_frame(), Ok(None)));
/// assert_eq!(frames.consumed(), bytes.len());
/// ```
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
    size: usize,
    side: Side,
    frame_max: u32,
}

impl<'a> Frames<'a> {
    /// Over `bytes`, which start with a frame, of a connection whose `side` receives and takes
    /// frames of at most `frame_max` bytes.
    #[inline(always)]
    pub fn new(bytes: &'a [u8], side: Side, frame_max: u32) -> Self {
        Self {
            rest: bytes,
            size: bytes.len(),
            side,
            frame_max,
        }
    }

    /// Bytes of the frames that were taken: what is behind them is to be kept.
    #[inline(always)]
    pub fn consumed(&self) -> usize {
        self.size - self.rest.len()
    }

    /// Bytes that the frame at the front occupies, as far as that is known: what a buffer needs
    /// room for before it is asked again. At most what the side takes.
    pub fn wanted(&self) -> usize {
        let Some(length) = self.rest.first_chunk() else {
            return HEADER_BYTES;
        };
        let length = u32::from_le_bytes(*length).min(self.frame_max);
        round_up((length as usize).max(HEADER_BYTES))
    }

    /// What is at the front if it is a [`Plain`] publish, whole and of a size that is taken; it
    /// stays there. `None`: [`next_frame`](Frames::next_frame) says what else it is.
    #[inline(always)]
    pub fn plain(&self) -> Option<Plain<'a>> {
        const LIKE: u32 = Kind::Message as u32 | (flag::ALIAS as u32) << 16;
        const SEQUENCE: u32 = (flag::SEQUENCE as u32) << 16;
        let (head, numbers) = split(self.rest.first_chunk::<HEADER_BYTES>()?);
        let like = (head >> 32) as u32;
        if like & !SEQUENCE != LIKE || numbers as u32 != 0 {
            return None;
        }
        let length = head as u32;
        if length > self.frame_max {
            return None;
        }
        let frame = self.rest.get(..length as usize)?;
        let (sequence, payload) = match like & SEQUENCE {
            0 => (0, frame.get(HEADER_BYTES..)?),
            _ => {
                let (word, payload) = frame.get(HEADER_BYTES..)?.split_first_chunk()?;
                (u64::from_le_bytes(*word), payload)
            }
        };
        let size = round_up(length as usize);
        (size <= self.rest.len()).then_some(Plain {
            alias: (numbers >> 32) as u32,
            sequence,
            payload,
            size,
        })
    }

    /// Takes the frame that [`plain`](Frames::plain) has shown.
    #[inline(always)]
    pub fn pass(&mut self, plain: &Plain<'_>) {
        self.rest = self.rest.get(plain.size..).unwrap_or_default();
    }

    /// The next frame; `None`: more bytes are needed. A fault stays.
    #[inline(always)]
    pub fn next_frame(&mut self) -> Result<Option<Frame<'a>>, Fault> {
        loop {
            let Some(header) = self.rest.first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            let (head, numbers) = split(header);
            // Each kind by itself, so that what depends on it is decided while compiling.
            let frame = match (head >> 32) as u8 {
                1 => self
                    .message(head, numbers, Kind::Message)?
                    .map(Frame::Message),
                2 => self
                    .message(head, numbers, Kind::Request)?
                    .map(Frame::Request),
                3 => self.message(head, numbers, Kind::Reply)?.map(Frame::Reply),
                _ => match other_frame(self.rest, self.side, self.frame_max)? {
                    Other::Control(control, size) => {
                        self.rest = self.rest.get(size..).unwrap_or_default();
                        Some(Frame::Control(control))
                    }
                    Other::Skipped(size) => {
                        self.rest = self.rest.get(size..).unwrap_or_default();
                        continue;
                    }
                    Other::Cut => None,
                },
            };
            return Ok(frame);
        }
    }

    /// The kind of the next frame; `None`: it has none, or has not come.
    #[inline(always)]
    pub fn kind(&self) -> Option<Kind> {
        let header = self.rest.first_chunk::<HEADER_BYTES>()?;
        Kind::of(header[4])
    }

    /// The next frame of a client, if it is a plain reply; `None`: it is another one, or not whole,
    /// or wrong, which [`next_frame`](Self::next_frame) tells. `shape` is that of the one before.
    #[inline(always)]
    pub fn next_plain_reply(&mut self, shape: &mut Shape) -> Option<PlainReply<'a>> {
        let (head, numbers) = split(self.rest.first_chunk()?);
        if head != shape.head {
            *shape = self.shape(head, REPLY, 0)?;
        }
        let (frame, rest) = self.rest.split_at_checked(shape.size)?;
        if numbers >> 32 != 0 {
            return None;
        }
        self.rest = rest;
        Some(PlainReply {
            correlation: numbers as u32,
            status: (head >> 40) as u8,
            payload: frame.get(HEADER_BYTES..shape.length)?,
        })
    }

    /// The next frame of a client, if it is a plain question to this subscription; else as
    /// [`next_plain_reply`](Self::next_plain_reply).
    #[inline(always)]
    pub fn next_plain_question(
        &mut self,
        shape: &mut Shape,
        subscription: u32,
    ) -> Option<PlainQuestion<'a>> {
        let (head, numbers) = split(self.rest.first_chunk()?);
        if head != shape.head {
            *shape = self.shape(head, QUESTION, 8)?;
        }
        let (frame, rest) = self.rest.split_at_checked(shape.size)?;
        if numbers as u32 != subscription {
            return None;
        }
        let (token, payload) = frame.get(HEADER_BYTES..shape.length)?.split_first_chunk()?;
        self.rest = rest;
        Some(PlainQuestion {
            alias: (numbers >> 32) as u32,
            token: u64::from_le_bytes(*token),
            payload,
        })
    }

    /// The shape of a frame of this kind, which has so many bytes of words; `None`: it is none, or
    /// a wrong one, or a reply that is the server's word.
    #[inline(never)]
    fn shape(&self, head: u64, kind: u32, words: u32) -> Option<Shape> {
        let (length, code) = (head as u32, (head >> 32) as u32);
        let least = HEADER_BYTES as u32 + words;
        let is_word = code & CODE != 0 && length == least;
        let is_plain = code & !CODE == kind && !(kind == REPLY && is_word);
        let is_fine = (least..=self.frame_max).contains(&length);
        (is_plain && is_fine).then_some(Shape {
            head,
            length: length as usize,
            size: round_up(length as usize),
        })
    }

    /// Takes a message; `None`: not all of it is there.
    #[inline(always)]
    fn message(
        &mut self,
        head: u64,
        numbers: u64,
        kind: Kind,
    ) -> Result<Option<Message<'a>>, Fault> {
        let Some((bytes, rest)) = take(self.rest, head as u32, self.frame_max)? else {
            return Ok(None);
        };
        let message = Message::read(bytes, head, numbers, kind, self.side)?;
        self.rest = rest;
        Ok(Some(message))
    }
}

/// What is at the front where that is no message, and the bytes that it occupies.
enum Other<'a> {
    Control(Control<'a>, usize),
    Skipped(usize),
    Cut,
}

/// Takes a frame that is no message.
#[inline(never)]
fn other_frame(bytes: &[u8], side: Side, frame_max: u32) -> Result<Other<'_>, Fault> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(Other::Cut);
    };
    let (head, numbers) = split(header);
    let number = (head >> 32) as u8;
    let kind = Kind::of(number);
    if kind.is_none() && !(SKIPPED_FIRST..=SKIPPED_LAST).contains(&number) {
        return Err(Fault::Kind(number));
    }
    let max = frame_max.min(CONTROL_BYTES_MAX as u32);
    let Some((frame, _)) = take(bytes, head as u32, max)? else {
        return Ok(Other::Cut);
    };
    let size = round_up(frame.len());
    let Some(kind) = kind else {
        return Ok(Other::Skipped(size));
    };
    if !side.takes(kind) {
        return Err(Fault::State(kind));
    }
    let control = Control::read(frame, head, numbers, kind, side)?;
    Ok(Other::Control(control, size))
}

/// The first frame of a connection, whose side waits for the handshake, and what it occupies.
pub(crate) fn first_frame(bytes: &[u8], side: Side) -> Result<Option<(Control<'_>, usize)>, Fault> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let (head, numbers) = split(header);
    let kind = Kind::of((head >> 32) as u8);
    let is_ours = numbers == crate::control::MAGIC;
    let kind = match (side, kind) {
        (Side::Server, Some(Kind::Hello)) if is_ours => Kind::Hello,
        (Side::Server, _) => return Err(Fault::Magic),
        (Side::Client, Some(Kind::Welcome)) if is_ours => Kind::Welcome,
        (Side::Client, Some(Kind::Welcome)) => return Err(Fault::Magic),
        (Side::Client, Some(Kind::Error)) => Kind::Error,
        (Side::Client, Some(other)) => return Err(Fault::State(other)),
        (Side::Client, None) => return Err(Fault::Kind((head >> 32) as u8)),
    };
    let Some((frame, _)) = take(bytes, head as u32, CONTROL_BYTES_MAX as u32)? else {
        return Ok(None);
    };
    let control = Control::read(frame, head, numbers, kind, side)?;
    Ok(Some((control, round_up(frame.len()))))
}

#[inline(always)]
fn split(header: &[u8; HEADER_BYTES]) -> (u64, u64) {
    let both = u128::from_le_bytes(*header);
    (both as u64, (both >> 64) as u64)
}

/// A frame of `length` bytes without its rounding, and what is behind it; `None`: not all of it
/// is there.
#[inline(always)]
#[allow(clippy::type_complexity)]
fn take(bytes: &[u8], length: u32, max: u32) -> Result<Option<(&[u8], &[u8])>, Fault> {
    if length.wrapping_sub(HEADER_BYTES as u32) > max.wrapping_sub(HEADER_BYTES as u32) {
        return Err(wrong_length(length, max));
    }
    let length = length as usize;
    match bytes.split_at_checked(round_up(length)) {
        Some((frame, rest)) => Ok(frame.get(..length).map(|frame| (frame, rest))),
        None => Ok(None),
    }
}

#[cold]
fn wrong_length(length: u32, max: u32) -> Fault {
    if length < HEADER_BYTES as u32 {
        return Fault::Short { length };
    }
    Fault::Long { length, max }
}

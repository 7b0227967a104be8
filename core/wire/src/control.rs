//! Control frames: all that are no messages, received and sent (`docs/protocol.md` §3).

use std::fmt::{self, Write};

use crate::fault::{Fault, Reason};
use crate::field::{self, FIELD_HEAD_BYTES, Field};
use crate::kind::{Kind, Side};
use crate::{CONTROL_BYTES_MAX, HEADER_BYTES, NoMemory, round_up};

/// Flag bits of control frames.
pub mod flag {
    /// ERROR: the sender closes behind it.
    pub const FATAL: u16 = 1;
    /// SUBSCRIBE: messages of one key go to one member.
    pub const KEY_SHARED: u16 = 1;
    /// SUBSCRIBE: the newest message of each subject comes first.
    pub const LAST_VALUE: u16 = 2;
    /// PRESENCE: from now on; without it: no more.
    pub const WATCH: u16 = 1;
    /// What is refused because ignoring it would be wrong.
    pub(crate) const REFUSED: u16 = 0xc000;
}

/// What an EVENT tells; the numbers are those of the frame.
pub mod event {
    /// A client is connected.
    pub const PRESENT: u32 = 1;
    /// It has just connected.
    pub const ARRIVED: u32 = 2;
    /// It has closed cleanly.
    pub const LEFT: u32 = 3;
    /// Its connection broke.
    pub const GONE: u32 = 4;
    /// Much waits for the receiver.
    pub const SLOW: u32 = 5;
    /// Messages were lost.
    pub const GAP: u32 = 6;
    /// Something will be refused soon.
    pub const LIMIT: u32 = 7;
}

/// The first number of HELLO and WELCOME: "FASTMQW1".
pub const MAGIC: u64 = u64::from_le_bytes(*b"FASTMQW1");

/// One received control frame; its fields have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Control<'a> {
    kind: Kind,
    code: u8,
    flags: u16,
    numbers: u64,
    body: &'a [u8],
}

impl<'a> Control<'a> {
    /// The control frame in `bytes`, which are one frame that starts with `head`.
    pub(crate) fn read(
        bytes: &'a [u8],
        head: u64,
        numbers: u64,
        kind: Kind,
        side: Side,
    ) -> Result<Self, Fault> {
        let flags = (head >> 48) as u16;
        if flags & flag::REFUSED != 0 {
            let flags = flags & flag::REFUSED;
            return Err(Fault::Flags { kind, flags });
        }
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        field::check(kind, body)?;
        let control = Self {
            kind,
            code: (head >> 40) as u8,
            flags,
            numbers,
            body,
        };
        if side == Side::Server && control.is_answered() && control.operation() == 0 {
            return Err(Fault::Operation(kind));
        }
        Ok(control)
    }

    /// Whether the server answers it by its operation.
    fn is_answered(&self) -> bool {
        matches!(
            self.kind,
            Kind::Subscribe | Kind::Unsubscribe | Kind::Drain | Kind::Presence
        )
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Status of an ERROR or CLOSE.
    pub fn status(&self) -> u8 {
        self.code
    }

    /// Its flags: [`flag`].
    pub fn flags(&self) -> u16 {
        self.flags
    }

    /// The operation that it is, or that it answers.
    pub fn operation(&self) -> u32 {
        match self.kind {
            Kind::Error | Kind::Ack => self.numbers as u32,
            _ => (self.numbers >> 32) as u32,
        }
    }

    /// The subscription of SUBSCRIBE, UNSUBSCRIBE, DRAIN and EVENT.
    pub fn subscription(&self) -> u32 {
        self.numbers as u32
    }

    /// The alias of ALIAS.
    pub fn alias(&self) -> u32 {
        self.numbers as u32
    }

    /// The correlation of GRANT and CANCEL to the server.
    pub fn correlation(&self) -> u32 {
        self.numbers as u32
    }

    /// The token of GRANT and CANCEL to the client, the limit of CREDIT, the value of PING and
    /// PONG, the magic of HELLO and WELCOME.
    pub fn whole(&self) -> u64 {
        self.numbers
    }

    /// Which event: [`event`], or one that is not known yet.
    pub fn event(&self) -> u32 {
        (self.numbers >> 32) as u32
    }

    /// The reason of an ERROR, if this version knows it.
    pub fn reason(&self) -> Option<Reason> {
        Reason::of((self.numbers >> 32) as u32)
    }

    /// Whether the sender of this ERROR closes behind it.
    pub fn is_fatal(&self) -> bool {
        self.kind == Kind::Error && self.flags & flag::FATAL != 0
    }

    /// The bytes of a field, if it is there.
    pub fn bytes(&self, field: Field) -> Option<&'a [u8]> {
        field::find(self.body, field)
    }

    /// The number of a field, if it is there.
    pub fn number(&self, field: Field) -> Option<u64> {
        let value = self.bytes(field)?.first_chunk()?;
        Some(u64::from_le_bytes(*value))
    }
}

/// A control frame being written: whole after each call, or not there at all.
#[derive(Debug)]
pub struct ControlDraft<'b> {
    out: &'b mut Vec<u8>,
    at: usize,
}

impl<'b> ControlDraft<'b> {
    /// A frame of `kind` behind the frames of `out`, with a number of 8 bytes.
    pub fn whole(out: &'b mut Vec<u8>, kind: Kind, number: u64) -> Result<Self, NoMemory> {
        debug_assert!(!kind.is_message(), "messages are written by `Draft`");
        out.try_reserve(HEADER_BYTES).map_err(|_| NoMemory)?;
        let at = out.len();
        let head = HEADER_BYTES as u64 | (kind as u64) << 32;
        out.extend_from_slice(&head.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        Ok(Self { out, at })
    }

    /// A frame of `kind` behind the frames of `out`, with two numbers of 4 bytes.
    pub fn pair(
        out: &'b mut Vec<u8>,
        kind: Kind,
        first: u32,
        second: u32,
    ) -> Result<Self, NoMemory> {
        Self::whole(out, kind, u64::from(first) | u64::from(second) << 32)
    }

    /// The status of an ERROR or CLOSE.
    #[must_use]
    pub fn status(self, status: u8) -> Self {
        self.out[self.at + 5] = status;
        self
    }

    /// Flags: [`flag`].
    #[must_use]
    pub fn flags(self, flags: u16) -> Self {
        self.out[self.at + 6..self.at + 8].copy_from_slice(&flags.to_le_bytes());
        self
    }

    /// Adds a field with a number.
    pub fn number(self, field: Field, value: u64) -> Result<Self, NoMemory> {
        self.bytes(field, &value.to_le_bytes())
    }

    /// Adds a field with bytes. Without memory the whole frame is taken back. A draft that would
    /// hold more than 8,192 bytes is a bug of ours.
    pub fn bytes(self, field: Field, value: &[u8]) -> Result<Self, NoMemory> {
        let size = FIELD_HEAD_BYTES + round_up(value.len());
        let length = self.out.len() - self.at + size;
        assert!(
            length <= CONTROL_BYTES_MAX,
            "a control frame of {length} bytes"
        );
        if self.out.try_reserve(size).is_err() {
            self.out.truncate(self.at);
            return Err(NoMemory);
        }
        let head = field as u64 | (value.len() as u64) << 32;
        self.out.extend_from_slice(&head.to_le_bytes());
        self.out.extend_from_slice(value);
        self.out.resize(self.at + length, 0);
        self.out[self.at..self.at + 4].copy_from_slice(&(length as u32).to_le_bytes());
        Ok(self)
    }
}

/// Appends an ERROR with the sentence of a fault, which ends the connection. Nothing is written
/// for [`Fault::Magic`]: the peer speaks something else.
pub fn write_fault(out: &mut Vec<u8>, fault: &Fault) -> Result<(), NoMemory> {
    if *fault == Fault::Magic {
        return Ok(());
    }
    let mut draft = ControlDraft::pair(out, Kind::Error, 0, fault.reason() as u32)?
        .status(fault.status())
        .flags(flag::FATAL);
    if let Fault::Version { .. } = fault {
        let version = u64::from(crate::VERSION);
        draft = draft.number(Field::Versions, version | version << 32)?;
    }
    let mut sentence = Sentence::default();
    // A sentence that is longer than its room is cut: it is for people.
    let _ = write!(sentence, "{fault}");
    draft.bytes(Field::Sentence, sentence.bytes())?;
    Ok(())
}

/// Room for the sentence of a fault, so that telling it needs no memory but the frame's.
struct Sentence {
    room: [u8; 160],
    size: usize,
}

impl Default for Sentence {
    fn default() -> Self {
        let room = [0; 160];
        Self { room, size: 0 }
    }
}

impl Sentence {
    fn bytes(&self) -> &[u8] {
        &self.room[..self.size]
    }
}

impl Write for Sentence {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.room[self.size..];
        let size = text.floor_char_boundary(room.len());
        room[..size].copy_from_slice(&text.as_bytes()[..size]);
        self.size += size;
        Ok(())
    }
}

/// Appends an ERROR for an operation, or for the connection with [`flag::FATAL`]. A sentence of
/// more than 1,024 bytes is cut.
pub fn write_error(
    out: &mut Vec<u8>,
    operation: u32,
    reason: Reason,
    status: u8,
    flags: u16,
    sentence: &str,
) -> Result<(), NoMemory> {
    let sentence = &sentence[..sentence.floor_char_boundary(1024)];
    ControlDraft::pair(out, Kind::Error, operation, reason as u32)?
        .status(status)
        .flags(flags)
        .bytes(Field::Sentence, sentence.as_bytes())?;
    Ok(())
}

//! What can be wrong with received bytes (`docs/protocol.md` §8).

use std::fmt;

use crate::kind::Kind;

/// Why something is refused; the numbers are those of ERROR frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
#[allow(missing_docs)] // The table of the protocol says what each one means.
pub enum Reason {
    Length = 1,
    Kind = 2,
    Flags = 3,
    Fields = 4,
    Field = 5,
    Magic = 6,
    Version = 7,
    Capability = 8,
    Authentication = 9,
    State = 10,
    Alias = 11,
    Sizes = 12,
    Credit = 13,
    Subject = 14,
    Pattern = 15,
    Payload = 16,
    Limit = 17,
    Subscription = 18,
    Permission = 19,
    Timeout = 20,
    Slow = 21,
    Draining = 22,
    Full = 23,
    Stream = 24,
    Option = 25,
    Internal = 26,
    Operation = 27,
}

impl Reason {
    /// Every reason with its name in the protocol.
    pub const ALL: [(Self, &'static str); 27] = [
        (Self::Length, "LENGTH"),
        (Self::Kind, "KIND"),
        (Self::Flags, "FLAGS"),
        (Self::Fields, "FIELDS"),
        (Self::Field, "FIELD"),
        (Self::Magic, "MAGIC"),
        (Self::Version, "VERSION"),
        (Self::Capability, "CAPABILITY"),
        (Self::Authentication, "AUTHENTICATION"),
        (Self::State, "STATE"),
        (Self::Alias, "ALIAS"),
        (Self::Sizes, "SIZES"),
        (Self::Credit, "CREDIT"),
        (Self::Subject, "SUBJECT"),
        (Self::Pattern, "PATTERN"),
        (Self::Payload, "PAYLOAD"),
        (Self::Limit, "LIMIT"),
        (Self::Subscription, "SUBSCRIPTION"),
        (Self::Permission, "PERMISSION"),
        (Self::Timeout, "TIMEOUT"),
        (Self::Slow, "SLOW"),
        (Self::Draining, "DRAINING"),
        (Self::Full, "FULL"),
        (Self::Stream, "STREAM"),
        (Self::Option, "OPTION"),
        (Self::Internal, "INTERNAL"),
        (Self::Operation, "OPERATION"),
    ];

    /// The reason with this number.
    pub fn of(number: u32) -> Option<Self> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Self::ALL.get(index).map(|(reason, _)| *reason)
    }

    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize - 1].1
    }
}

/// Statuses that faults have, by the numbers of `docs/formats.md` §4.
pub mod status {
    /// The peer's bytes are wrong.
    pub const INVALID: u8 = 10;
    /// They are wrong here.
    pub const MISUSE: u8 = 11;
    /// Larger than a limit.
    pub const TOO_LARGE: u8 = 12;
    /// Not known to this version.
    pub const UNSUPPORTED: u8 = 13;
    /// Not permitted.
    pub const DENIED: u8 = 40;
    /// The allocator said no.
    pub const NO_MEMORY: u8 = 44;
}

/// What is wrong with received bytes. All of them end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// `length` is below 16.
    Short {
        /// What it says.
        length: u32,
    },
    /// `length` is above the limit.
    Long {
        /// What it says.
        length: u32,
        /// The limit.
        max: u32,
    },
    /// No kind of this version, and none to skip.
    Kind(u8),
    /// A kind that does not belong here.
    State(Kind),
    /// Flags that must not be ignored.
    Flags {
        /// The frame's kind.
        kind: Kind,
        /// The flags that are not known.
        flags: u16,
    },
    /// Bits of an extension that must not be ignored.
    Extension(u32),
    /// The words end beyond the frame.
    Words {
        /// Where they end.
        end: usize,
        /// The frame's length.
        length: usize,
    },
    /// An extension that does not fit, or is no multiple of 8.
    ExtensionSize(u32),
    /// The size of a subject's text: 0 or above 1,024.
    Subject(u32),
    /// A reply address above 1,024 bytes.
    ReplyTo(u16),
    /// Headers above 64 KiB.
    Headers(u32),
    /// Subject and texts are larger than what is there.
    Texts {
        /// Their sizes together.
        size: u64,
        /// Bytes behind the words.
        room: usize,
    },
    /// A request to its responder says not where the answer goes.
    NoToken,
    /// The fields do not end where the frame ends.
    FieldEnd {
        /// Where the field starts, from the start of the frame.
        at: usize,
    },
    /// A field has a size that it cannot have.
    FieldSize {
        /// The field.
        id: u16,
        /// Its size.
        size: u32,
    },
    /// A field has a value that it cannot have.
    FieldValue {
        /// The field.
        id: u16,
        /// Its value.
        value: u64,
    },
    /// A field comes twice.
    FieldTwice(u16),
    /// A field that this kind needs is not there.
    FieldMissing {
        /// The frame's kind.
        kind: Kind,
        /// The field.
        id: u16,
    },
    /// A field that must not be ignored is not known.
    FieldUnknown(u16),
    /// The first bytes are not of this protocol.
    Magic,
    /// No version in common.
    Version {
        /// The lowest that the peer has.
        min: u32,
        /// The highest that the peer has.
        max: u32,
    },
    /// Capabilities that the peer requires are not there.
    Capability(u64),
    /// An operation of 0 where an answer is due.
    Operation(Kind),
    /// An alias beyond the table.
    AliasNumber {
        /// The alias.
        alias: u32,
        /// How many there are.
        max: u32,
    },
    /// An alias that stands for no subject.
    AliasUnknown(u32),
    /// Subjects of aliases beyond the sum that is kept.
    AliasBytes {
        /// The sum.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// There is no memory for an alias.
    NoMemory,
    /// Messages beyond the credit.
    Credit {
        /// The sum that was sent.
        sent: u64,
        /// What was granted.
        limit: u64,
    },
}

impl Fault {
    /// What an ERROR frame says as `reason`.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Short { .. } | Self::Long { .. } => Reason::Length,
            Self::Kind(_) => Reason::Kind,
            Self::State(_) => Reason::State,
            Self::Flags { .. } | Self::Extension(_) => Reason::Flags,
            Self::Words { .. } | Self::ExtensionSize(_) | Self::Subject(_) => Reason::Sizes,
            Self::ReplyTo(_) | Self::Headers(_) | Self::Texts { .. } => Reason::Sizes,
            Self::NoToken => Reason::Sizes,
            Self::FieldEnd { .. } | Self::FieldSize { .. } | Self::FieldTwice(_) => Reason::Fields,
            Self::FieldValue { .. } | Self::FieldMissing { .. } => Reason::Fields,
            Self::FieldUnknown(_) => Reason::Field,
            Self::Magic => Reason::Magic,
            Self::Version { .. } => Reason::Version,
            Self::Capability(_) => Reason::Capability,
            Self::Operation(_) => Reason::Operation,
            Self::AliasNumber { .. } | Self::AliasUnknown(_) => Reason::Alias,
            Self::AliasBytes { .. } => Reason::Alias,
            Self::NoMemory => Reason::Limit,
            Self::Credit { .. } => Reason::Credit,
        }
    }

    /// What an ERROR frame says as `code`.
    pub fn status(&self) -> u8 {
        match self {
            Self::Long { .. } => status::TOO_LARGE,
            Self::NoMemory => status::NO_MEMORY,
            _ => match self.reason() {
                Reason::Kind | Reason::Flags | Reason::Field => status::UNSUPPORTED,
                Reason::Version | Reason::Capability => status::UNSUPPORTED,
                Reason::State | Reason::Credit => status::MISUSE,
                _ => status::INVALID,
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { length } => write!(f, "the frame's length is {length}, below 16"),
            Self::Long { length, max } => {
                write!(
                    f,
                    "the frame's length is {length}, above the limit of {max}"
                )
            }
            Self::Kind(kind) => write!(f, "frame kind {kind} is unknown"),
            Self::State(kind) => write!(f, "{} is not taken here", kind.name()),
            Self::Flags { kind, flags } => {
                write!(f, "flags {flags:#06x} of {} are not allowed", kind.name())
            }
            Self::Extension(bits) => write!(f, "extension bits {bits:#010x} are unknown"),
            Self::Words { end, length } => {
                write!(
                    f,
                    "the words end at {end}, beyond the frame's length {length}"
                )
            }
            Self::ExtensionSize(size) => write!(f, "an extension of {size} bytes does not fit"),
            Self::Subject(size) => write!(f, "the subject's size is {size}, not 1 to 1024"),
            Self::ReplyTo(size) => write!(f, "the reply address has {size} bytes, above 1024"),
            Self::Headers(size) => write!(f, "the headers have {size} bytes, above 65536"),
            Self::Texts { size, room } => {
                write!(f, "the texts need {size} bytes, of which {room} are there")
            }
            Self::NoToken => f.write_str("the request has no token, so nobody could answer"),
            Self::FieldEnd { at } => write!(f, "the field at {at} ends beyond its frame"),
            Self::FieldSize { id, size } => write!(f, "field {id} cannot have {size} bytes"),
            Self::FieldValue { id, value } => write!(f, "field {id} cannot be {value}"),
            Self::FieldTwice(id) => write!(f, "field {id} comes twice"),
            Self::FieldMissing { kind, id } => write!(f, "{} needs field {id}", kind.name()),
            Self::FieldUnknown(id) => write!(f, "field {id:#06x} is unknown"),
            Self::Magic => f.write_str("the first bytes are not of this protocol"),
            Self::Version { min, max } => {
                write!(
                    f,
                    "the versions {min} to {max} do not include {}",
                    crate::VERSION
                )
            }
            Self::Capability(bits) => write!(f, "capabilities {bits:#x} are missing"),
            Self::Operation(kind) => write!(f, "{} needs an operation, not 0", kind.name()),
            Self::AliasNumber { alias, max } => {
                write!(f, "alias {alias} is not below the limit of {max}")
            }
            Self::AliasUnknown(alias) => write!(f, "alias {alias} stands for no subject"),
            Self::AliasBytes { size, max } => {
                write!(
                    f,
                    "the subjects of the aliases have {size} bytes, above {max}"
                )
            }
            Self::NoMemory => f.write_str("there is no memory for the alias"),
            Self::Credit { sent, limit } => {
                write!(
                    f,
                    "{sent} bytes of messages were sent, above the credit of {limit}"
                )
            }
        }
    }
}

impl std::error::Error for Fault {}

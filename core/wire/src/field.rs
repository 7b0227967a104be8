//! The fields of control frames (`docs/protocol.md` §3).

use crate::fault::Fault;
use crate::kind::Kind;
use crate::round_up;

/// Bytes in front of a field's value.
pub(crate) const FIELD_HEAD_BYTES: usize = 8;
/// From here on, a field that is not known is refused.
const REFUSED_FIRST: u16 = 0x8000;
/// Most replies that one GRANT grants.
pub const REPLIES_MAX: u64 = 1_048_576;
/// The smallest FRAME_MAX.
pub const FRAME_BYTES_MIN: u64 = 8192;

/// What a field is about; the numbers are its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[non_exhaustive]
#[allow(missing_docs)] // The table of the protocol says what each one means.
pub enum Field {
    Versions = 1,
    Version = 2,
    Capabilities = 3,
    Required = 4,
    Name = 5,
    Token = 6,
    FrameMax = 7,
    PayloadMax = 8,
    Credit = 9,
    AliasMax = 10,
    AliasBytesMax = 11,
    SubscriptionsMax = 12,
    PingNs = 13,
    Client = 14,
    Instance = 15,
    Sentence = 16,
    Subject = 17,
    Publisher = 18,
    Pattern = 19,
    Group = 20,
    Weight = 21,
    Policy = 22,
    Capacity = 23,
    Replies = 24,
    Count = 25,
    DeadlineNs = 26,
    Servers = 27,
    Address = 28,
    Rings = 29,
}

/// What a field's value may be.
#[derive(Clone, Copy)]
enum Rule {
    /// Bytes or text of a size between these.
    Bytes(u32, u32),
    /// A number between these.
    Number(u64, u64),
}

/// The rules by id.
const RULES: [Rule; 30] = {
    let any = Rule::Number(0, u64::MAX);
    let mut rules = [any; 30];
    rules[Field::Name as usize] = Rule::Bytes(0, 255);
    rules[Field::Token as usize] = Rule::Bytes(0, 4096);
    rules[Field::FrameMax as usize] = Rule::Number(FRAME_BYTES_MIN, u64::MAX);
    rules[Field::Sentence as usize] = Rule::Bytes(0, 1024);
    rules[Field::Subject as usize] = Rule::Bytes(0, 1024);
    rules[Field::Publisher as usize] = Rule::Number(1, u64::MAX);
    rules[Field::Pattern as usize] = Rule::Bytes(1, 1024);
    rules[Field::Group as usize] = Rule::Bytes(1, 255);
    rules[Field::Replies as usize] = Rule::Number(1, REPLIES_MAX);
    rules[Field::Servers as usize] = Rule::Bytes(0, 4096);
    rules[Field::Address as usize] = Rule::Bytes(0, 255);
    rules[Field::Rings as usize] = Rule::Bytes(16, 16);
    rules
};

/// The field without which a frame of this kind says nothing.
const fn required(kind: Kind) -> Option<Field> {
    match kind {
        Kind::Hello => Some(Field::Versions),
        Kind::Welcome => Some(Field::Version),
        Kind::Subscribe => Some(Field::Pattern),
        Kind::Alias => Some(Field::Subject),
        Kind::Grant => Some(Field::Replies),
        _ => None,
    }
}

/// The next field of `body` at `at`: id, value, and where the one behind it starts. `None`: it
/// does not fit.
#[inline(always)]
fn next(body: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let head: &[u8; FIELD_HEAD_BYTES] = body.get(at..)?.first_chunk()?;
    let head = u64::from_le_bytes(*head);
    let size = (head >> 32) as usize;
    let value = body.get(at + FIELD_HEAD_BYTES..)?.get(..size)?;
    let after = at + FIELD_HEAD_BYTES + round_up(size);
    (after <= body.len()).then_some((head as u16, value, after))
}

/// Checks what is behind the 16 bytes of a control frame.
pub(crate) fn check(kind: Kind, body: &[u8]) -> Result<(), Fault> {
    let (mut at, mut seen) = (0, 0_u64);
    while at < body.len() {
        let Some((id, value, after)) = next(body, at) else {
            let at = at + crate::HEADER_BYTES;
            return Err(Fault::FieldEnd { at });
        };
        at = after;
        let rule = match RULES.get(usize::from(id)) {
            Some(rule) if id > 0 => rule,
            _ if id >= REFUSED_FIRST => return Err(Fault::FieldUnknown(id)),
            _ => continue,
        };
        if seen & 1 << id != 0 {
            return Err(Fault::FieldTwice(id));
        }
        seen |= 1 << id;
        let size = value.len() as u32;
        match *rule {
            Rule::Bytes(min, max) if size < min || size > max => {
                return Err(Fault::FieldSize { id, size });
            }
            Rule::Bytes(..) => {}
            Rule::Number(min, max) => match <[u8; 8]>::try_from(value).map(u64::from_le_bytes) {
                Ok(value) if value < min || value > max => {
                    return Err(Fault::FieldValue { id, value });
                }
                Ok(_) => {}
                Err(_) => return Err(Fault::FieldSize { id, size }),
            },
        }
    }
    match required(kind) {
        Some(field) if seen & 1 << field as u16 == 0 => {
            let id = field as u16;
            Err(Fault::FieldMissing { kind, id })
        }
        _ => Ok(()),
    }
}

/// The value of a field in a body that was checked.
pub(crate) fn find(body: &[u8], field: Field) -> Option<&[u8]> {
    let mut at = 0;
    while let Some((id, value, after)) = next(body, at) {
        if id == field as u16 {
            return Some(value);
        }
        at = after;
    }
    None
}

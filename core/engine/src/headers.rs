//! Headers: a sequence of name and value (`docs/formats.md` §1).

use crate::error::{Error, Fault, Result, Status};

/// Most bytes of all headers of one message.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;
/// Longest name in bytes.
pub const NAME_BYTES_MAX: usize = 255;
const SIZES: usize = 4;

/// Headers being written.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    bytes: Vec<u8>,
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one at the end; a name may stand several times.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let fault = &Fault(Status::Invalid, "a header name has between 1 and 255 bytes");
            let size = name.len();
            return Err(Error::with(
                fault,
                format_args!("the header name has {size} bytes; between 1 and 255"),
            ));
        }
        let Ok(text) = std::str::from_utf8(name) else {
            return Err(Error::new(&Fault(
                Status::Invalid,
                "the header name is not UTF-8",
            )));
        };
        if text.chars().any(char::is_control) {
            let fault = &Fault(Status::Invalid, "the header name has a control character");
            return Err(Error::new(fault));
        }
        let size = SIZES + name.len() + value.len();
        if value.len() > u16::MAX as usize || self.bytes.len() + size > HEADERS_BYTES_MAX {
            let total = self.bytes.len() + size;
            let fault = &Fault(Status::TooLarge, "headers have at most 65,536 bytes");
            return Err(Error::with(
                fault,
                format_args!("the headers would have {total} bytes; at most 65,536"),
            ));
        }
        self.bytes.try_reserve(size).map_err(|_| Error::NO_MEMORY)?;
        self.bytes
            .extend_from_slice(&(name.len() as u16).to_le_bytes());
        self.bytes
            .extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The encoded form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The header at `cursor` and where the next one starts; `None` at the end. INVALID: not headers.
#[allow(clippy::type_complexity)]
pub fn next(headers: &[u8], cursor: usize) -> Result<Option<(&[u8], &[u8], usize)>> {
    if cursor == headers.len() {
        return Ok(None);
    }
    let parse = || {
        let rest = headers.get(cursor..)?;
        let (sizes, rest) = rest.split_at_checked(SIZES)?;
        let name_size = usize::from(u16::from_le_bytes([sizes[0], sizes[1]]));
        let value_size = usize::from(u16::from_le_bytes([sizes[2], sizes[3]]));
        let (name, rest) = rest.split_at_checked(name_size)?;
        let value = rest.get(..value_size)?;
        let is_named = !name.is_empty() && name_size <= NAME_BYTES_MAX;
        is_named.then_some((name, value, cursor + SIZES + name_size + value_size))
    };
    match parse() {
        Some(found) => Ok(Some(found)),
        None => {
            let size = headers.len();
            Err(Error::with(
                &Fault(Status::Invalid, "these bytes are not a header"),
                format_args!("the bytes at {cursor} of {size} are not a header"),
            ))
        }
    }
}

/// The value of the first header with this name, compared without ASCII case. NOT_FOUND: none has
/// it.
pub fn get<'h>(headers: &'h [u8], name: &[u8]) -> Result<&'h [u8]> {
    let mut cursor = 0;
    while let Some((found, value, after)) = next(headers, cursor)? {
        if found.eq_ignore_ascii_case(name) {
            return Ok(value);
        }
        cursor = after;
    }
    Err(Error::new(&Fault(
        Status::NotFound,
        "no header has this name",
    )))
}

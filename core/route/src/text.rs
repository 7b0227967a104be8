//! A text that never changes, kept where its owner is when it is short.
//!
//! A lookup waits for memory once where the text lies beside what it belongs to, and twice where
//! it does not. So a short text is a value; a longer one is shared by its copies.

use std::fmt;
use std::sync::Arc;

use fastmq_memory::allocation::try_arc_bytes;

use crate::allocation::NoMemory;

/// The longest text that is kept in place: what fits beside its size in 24 bytes.
const SHORT_BYTES_MAX: usize = 22;

/// A pattern or another text of some bytes; cheap to copy.
#[derive(Clone)]
pub struct Text(Form);

#[derive(Clone)]
enum Form {
    Short {
        size: u8,
        bytes: [u8; SHORT_BYTES_MAX],
    },
    Long(Arc<[u8]>),
}

const _: () = assert!(size_of::<Text>() <= 24);

impl Text {
    /// A copy of `text`.
    ///
    /// # Errors
    /// There is no memory for a long one.
    pub fn new(text: &[u8]) -> Result<Self, NoMemory> {
        if text.len() > SHORT_BYTES_MAX {
            return Ok(Self(Form::Long(try_arc_bytes(text)?)));
        }
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text);
        let size = text.len() as u8;
        Ok(Self(Form::Short { size, bytes }))
    }

    /// The text.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Short { size, bytes } => &bytes[..usize::from(*size)],
            Form::Long(text) => text,
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_size_comes_back() {
        for size in 0..100 {
            let bytes: Vec<u8> = (0..size).collect();
            let text = Text::new(&bytes).unwrap();
            assert_eq!(text.as_bytes(), bytes);
            assert_eq!(text.clone().as_bytes(), bytes);
            let is_short = matches!(text.0, Form::Short { .. });
            assert_eq!(is_short, usize::from(size) <= SHORT_BYTES_MAX);
        }
        assert_eq!(format!("{:?}", Text::new(b"a.b").unwrap()), "\"a.b\"");
    }
}

//! Byte ranges and out pointers as C hands them over.
//!
//! Invariant: nothing is read through a pointer before it was checked for NULL and for a size that
//! Rust can hold.

use std::ffi::{CStr, c_char};
use std::mem::{offset_of, size_of};
use std::slice;

use fastmq::{Error, Fault, Result, Status};

/// A pointer and a size; NULL with size 0 is empty.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_bytes {
    /// The first byte.
    pub data: *const u8,
    /// How many bytes.
    pub size: usize,
}

const _: () = {
    assert!(size_of::<fastmq_bytes>() == 2 * size_of::<usize>());
    assert!(offset_of!(fastmq_bytes, size) == size_of::<usize>());
};

impl fastmq_bytes {
    pub(crate) const EMPTY: Self = Self {
        data: std::ptr::null(),
        size: 0,
    };

    /// The view of a slice, NULL if it is empty.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match bytes.len() {
            0 => Self::EMPTY,
            size => Self {
                data: bytes.as_ptr(),
                size,
            },
        }
    }

    /// The range as a slice; `name` is the parameter, for the sentence.
    ///
    /// # Safety
    /// Unless it is NULL, `data` is readable for `size` bytes that nobody writes while the result
    /// is used.
    #[inline(always)]
    pub(crate) unsafe fn read<'a>(self, name: &'static str) -> Result<&'a [u8]> {
        if self.data.is_null() || self.size > isize::MAX as usize {
            return self.unusual(name);
        }
        // SAFETY: not NULL and not too large for a slice; readable by the contract.
        Ok(unsafe { slice::from_raw_parts(self.data, self.size) })
    }

    #[cold]
    fn unusual<'a>(self, name: &'static str) -> Result<&'a [u8]> {
        if self.size == 0 {
            return Ok(&[]);
        }
        if self.data.is_null() {
            let arguments = format_args!("{name} is NULL, but its size is {}", self.size);
            return Err(Error::with(
                &Fault(Status::Invalid, "bytes are NULL with a size"),
                arguments,
            ));
        }
        let arguments = format_args!("{name} has {} bytes, more than there can be", self.size);
        Err(Error::with(
            &Fault(Status::TooLarge, "there are more bytes than there can be"),
            arguments,
        ))
    }
}

/// A text that ends with a zero; `name` is the parameter, for the sentence.
///
/// # Safety
/// Unless it is NULL, `text` ends with a zero, and nobody writes it while the result is used.
pub(crate) unsafe fn read_c_text<'a>(text: *const c_char, name: &'static str) -> Result<&'a str> {
    if text.is_null() {
        return Err(is_null(name));
    }
    // SAFETY: not NULL, and ends with a zero by the contract.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| no_text(name))
}

/// A copy of bytes that the engine keeps.
pub(crate) fn copy_of(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())
        .map_err(|_| Error::NO_MEMORY)?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// A copy of a text that the engine keeps; `name` is the parameter, for the sentence.
pub(crate) fn text_of(bytes: &[u8], name: &'static str) -> Result<String> {
    String::from_utf8(copy_of(bytes)?).map_err(|_| no_text(name))
}

#[cold]
fn no_text(name: &'static str) -> Error {
    Error::with(
        &Fault(Status::Invalid, "a text is not UTF-8"),
        format_args!("{name} is not UTF-8"),
    )
}

/// Where a result goes, set to `empty` first.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Checks the out parameter `name`.
    ///
    /// # Safety
    /// Unless it is NULL, `pointer` is writable until the result is dropped.
    #[inline(always)]
    pub(crate) unsafe fn new(pointer: *mut T, empty: T, name: &'static str) -> Result<Self> {
        if pointer.is_null() {
            return Err(is_null(name));
        }
        let out = Self(pointer);
        out.set(empty);
        Ok(out)
    }

    /// Writes the result.
    #[inline(always)]
    pub(crate) fn set(&self, value: T) {
        // SAFETY: checked for NULL in `new`, and writable by its contract.
        unsafe { self.0.write(value) };
    }
}

/// The error for a parameter that may not be NULL.
#[cold]
pub(crate) fn is_null(name: &'static str) -> Error {
    Error::with(
        &Fault(Status::Invalid, "a parameter is NULL"),
        format_args!("{name} is NULL"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: fastmq_bytes, expected: std::result::Result<&[u8], (Status, &str)>) {
        // SAFETY: the tests pass ranges that are readable, or are refused before they are read.
        let read = unsafe { bytes.read("subject") };
        let read = read.map_err(|error| (error.status(), error.text().to_owned()));
        assert_eq!(
            read,
            expected.map_err(|(status, text)| (status, text.to_owned()))
        );
    }

    #[test]
    fn null_is_empty_only_with_size_0() {
        check(fastmq_bytes::EMPTY, Ok(b""));
        check(fastmq_bytes::of(b"abc"), Ok(b"abc"));
        check(
            fastmq_bytes {
                data: std::ptr::dangling(),
                size: 0,
            },
            Ok(b""),
        );
        let null = fastmq_bytes {
            data: std::ptr::null(),
            size: 5,
        };
        check(
            null,
            Err((Status::Invalid, "subject is NULL, but its size is 5")),
        );
        let wide = fastmq_bytes {
            data: b"a".as_ptr(),
            size: 1 << 63,
        };
        let text = &"subject has 9223372036854775808 bytes, more than there can be";
        check(wide, Err((Status::TooLarge, text)));
    }
}

//! Arguments: seconds, texts, payloads, headers, numbers of constants.

use fastmq::{FOREVER_NS, Headers, Message};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::errors::{Raise, invalid, raise};
use crate::view::copy_of;

/// Nanoseconds of a time-out in seconds; `None`: it never comes.
#[inline]
pub(crate) fn timeout_ns(seconds: Option<f64>) -> PyResult<u64> {
    match seconds {
        None => Ok(FOREVER_NS),
        Some(seconds) => nanoseconds("timeout", seconds),
    }
}

/// Nanoseconds of a duration in seconds.
pub(crate) fn nanoseconds(name: &str, seconds: f64) -> PyResult<u64> {
    if seconds >= 0.0 {
        // Beyond the range it is for ever.
        return Ok((seconds * 1e9) as u64);
    }
    Err(invalid(&format!(
        "{name} is {seconds}; it is a number of seconds, 0 or more"
    )))
}

/// Text or bytes, read in place: a subject, a pattern, a name, a key.
pub(crate) fn text<'a>(name: &str, value: &'a Bound<'_, PyAny>) -> PyResult<&'a [u8]> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(text.to_str()?.as_bytes());
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(bytes.as_bytes());
    }
    Err(wrong_type(name, "str or bytes", value))
}

/// As [`text`]; absent is empty.
pub(crate) fn optional_text<'a>(
    name: &str,
    value: Option<&'a Bound<'_, PyAny>>,
) -> PyResult<&'a [u8]> {
    value.map_or(Ok(&[]), |value| text(name, value))
}

#[cold]
pub(crate) fn wrong_type(name: &str, wanted: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let type_name = value.get_type().name();
    let type_name = type_name.map_or_else(|_| String::from("?"), |name| name.to_string());
    pyo3::exceptions::PyTypeError::new_err(format!("{name} is {wanted}, not {type_name}"))
}

/// Refuses what cannot be called.
pub(crate) fn function(name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match value.is_callable() {
        true => Ok(()),
        false => Err(wrong_type(name, "a function", value)),
    }
}

/// A payload, which nobody changes while the engine reads it: what could be changed is copied.
pub(crate) enum Payload<'a> {
    /// Of `bytes` or `str`, in place.
    Fixed(&'a [u8]),
    /// Of another buffer.
    Copied(Vec<u8>),
}

impl<'a> Payload<'a> {
    /// Takes bytes, text as UTF-8, or any contiguous buffer.
    #[inline]
    pub(crate) fn of(value: &'a Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Self::Fixed(bytes.as_bytes()));
        }
        if let Ok(text) = value.cast::<PyString>() {
            return Ok(Self::Fixed(text.to_str()?.as_bytes()));
        }
        match copy_of(value)? {
            Some((bytes, _)) => Ok(Self::Copied(bytes)),
            None => {
                let wanted = "bytes, str or a contiguous buffer";
                Err(wrong_type("payload", wanted, value))
            }
        }
    }

    /// The bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

/// A column of whole numbers of 32 or 64 bits, such as offsets and tokens.
pub(crate) fn numbers(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    let Some((bytes, element)) = copy_of(value)? else {
        return Err(wrong_type(name, "a contiguous buffer of integers", value));
    };
    match (element.is_integer, element.size) {
        (true, 8) => Ok(chunks(&bytes, u64::from_ne_bytes)),
        (true, 4) => Ok(chunks(&bytes, |four| u64::from(u32::from_ne_bytes(four)))),
        _ => Err(invalid(&format!("{name} are integers of 32 or 64 bits"))),
    }
}

fn chunks<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> u64) -> Vec<u64> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|chunk| read(*chunk))
        .collect()
}

/// Rows of a column: byte ranges between offsets, all of them inside the data.
pub(crate) struct Rows<'a> {
    data: &'a [u8],
    offsets: Vec<u64>,
}

impl<'a> Rows<'a> {
    /// Reads and checks offsets: one more than there are rows.
    pub(crate) fn of(name: &str, value: &Bound<'_, PyAny>, data: &'a [u8]) -> PyResult<Self> {
        let offsets = numbers(name, value)?;
        let is_rising = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        let last = offsets.last().copied();
        if !is_rising || last.is_none_or(|last| last > data.len() as u64) {
            let size = data.len();
            return Err(invalid(&format!(
                "{name} do not rise from one row to the next within the {size} bytes of data, or \
                 are none; they are one more than there are rows"
            )));
        }
        Ok(Self { data, offsets })
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The rows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'_, 'a> {
        // Below the size of the data, as checked, so in the range of a `usize`.
        let row = |pair: &[u64]| &self.data[pair[0] as usize..pair[1] as usize];
        self.offsets.windows(2).map(row)
    }
}

/// What a message may have beside subject and payload, as keyword arguments.
#[derive(Default)]
pub(crate) struct More<'a> {
    reply_to: &'a [u8],
    key: &'a [u8],
    headers: Headers,
    ttl_ns: u64,
    keep_last: bool,
}

/// The keyword arguments as they come.
pub(crate) struct Keywords<'a, 'py> {
    pub(crate) headers: Option<&'a Bound<'py, PyAny>>,
    pub(crate) key: Option<&'a Bound<'py, PyAny>>,
    pub(crate) reply_to: Option<&'a Bound<'py, PyAny>>,
    pub(crate) ttl: Option<f64>,
    pub(crate) keep_last: bool,
}

impl<'a, 'py> Keywords<'a, 'py> {
    /// Those of a request.
    pub(crate) fn of_request(
        headers: Option<&'a Bound<'py, PyAny>>,
        key: Option<&'a Bound<'py, PyAny>>,
        ttl: Option<f64>,
    ) -> Self {
        Self {
            headers,
            key,
            reply_to: None,
            ttl,
            keep_last: false,
        }
    }

    /// Whether there is none: the short way.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.headers.is_none()
            && self.key.is_none()
            && self.reply_to.is_none()
            && self.ttl.is_none()
            && !self.keep_last
    }

    /// Converts them.
    pub(crate) fn convert(&self) -> PyResult<More<'a>> {
        Ok(More {
            reply_to: optional_text("reply_to", self.reply_to)?,
            key: optional_text("key", self.key)?,
            headers: headers(self.headers)?,
            ttl_ns: self.ttl.map_or(Ok(0), |ttl| nanoseconds("ttl", ttl))?,
            keep_last: self.keep_last,
        })
    }
}

impl More<'_> {
    /// The message to send.
    pub(crate) fn message<'m>(&'m self, subject: &'m [u8], payload: &'m [u8]) -> Message<'m> {
        Message {
            subject,
            payload,
            reply_to: self.reply_to,
            key: self.key,
            headers: self.headers.as_bytes(),
            ttl_ns: self.ttl_ns,
            keep_last: self.keep_last,
        }
    }
}

/// Headers of a dictionary, or of pairs: a name may stand several times there.
pub(crate) fn headers(value: Option<&Bound<'_, PyAny>>) -> PyResult<Headers> {
    let mut headers = Headers::new();
    let Some(value) = value else {
        return Ok(headers);
    };
    let mut add = |name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>| {
        let (name, value) = (text("header name", name)?, text("header value", value)?);
        headers.add(name, value).raised()
    };
    if let Ok(dictionary) = value.cast::<PyDict>() {
        for (name, value) in dictionary.iter() {
            add(&name, &value)?;
        }
    } else {
        for pair in value.try_iter()? {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
            add(&name, &value)?;
        }
    }
    Ok(headers)
}

/// The constant with this number.
pub(crate) fn one_of<T: Copy>(name: &str, number: u32, values: &[T]) -> PyResult<T> {
    let value = usize::try_from(number).ok().and_then(|at| values.get(at));
    value.copied().ok_or_else(|| {
        let last = values.len() - 1;
        invalid(&format!("{name} is {number}; between 0 and {last}"))
    })
}

/// How many of several things were accepted; if none was, why not.
///
/// Who sees that some are left learns why by offering them again.
pub(crate) fn accepted(count: usize, refused: fastmq::Result<()>) -> PyResult<usize> {
    match refused {
        Err(error) if count == 0 => Err(raise(error)),
        _ => Ok(count),
    }
}

/// Offers one after another, up to the first that is refused.
pub(crate) fn each_accepted<T>(
    items: impl Iterator<Item = T>,
    mut offer: impl FnMut(T) -> fastmq::Result<()>,
) -> PyResult<usize> {
    let mut count = 0;
    for item in items {
        if let Err(error) = offer(item) {
            return accepted(count, Err(error));
        }
        count += 1;
    }
    Ok(count)
}

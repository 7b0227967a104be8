//! Headers: a set to send, and reading those of a received message.

use fastmq::{Error, Fault, Headers, Result, Status, headers};

use crate::bytes::{Out, fastmq_bytes, is_null};
use crate::error::{boundary, closing};
use crate::handle::{self, Kind, Object, Own, Table, enter, kind};
use crate::status::fastmq_status;

/// Headers to send with messages. Used by one thread at a time, also while a message with them is
/// being published.
pub struct fastmq_headers;

/// What the handle names.
pub(crate) type HeadersObject = Own<Headers>;

static HEADERS: Table<HeadersObject> = Table::new();

impl Object for HeadersObject {
    const KIND: Kind = kind!(6, "headers");
    type Beside = ();
    fn table() -> &'static Table<Self> {
        &HEADERS
    }
}

fn with_headers<R>(
    number: *const fastmq_headers,
    body: impl FnOnce(&mut Headers) -> Result<R>,
) -> Result<R> {
    let entered = enter::<HeadersObject>(handle::number(number))?;
    let object = entered.object()?;
    // SAFETY: we have entered the slot, and this is the only use of its object.
    body(unsafe { object.get() })
}

/// Makes an empty set of headers.
///
/// `*out` is yours until fastmq_headers_close; it belongs to no client. Safe from any thread.
/// Returns OK, INVALID, NO_MEMORY.
///
/// # Safety
/// `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_headers_open(out: *mut *mut fastmq_headers) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        out.set(handle::handle(HEADERS.open(Own::new(Headers::new()))?));
        Ok(())
    })
}

/// Adds a header at the end; a name may stand several times.
///
/// `name` and `value` are copied. One thread at a time.
/// Returns OK, INVALID, TOO_LARGE (64 KiB in all), NO_MEMORY, MISUSE.
///
/// # Safety
/// Both byte ranges are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_headers_add(
    headers: *mut fastmq_headers,
    name: fastmq_bytes,
    value: fastmq_bytes,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let name = unsafe { name.read("name") }?;
        // SAFETY: by the contract.
        let value = unsafe { value.read("value") }?;
        with_headers(headers, |headers| headers.add(name, value))
    })
}

/// Removes all headers of a set.
///
/// Takes NULL. One thread at a time.
///
/// # Safety
/// None: any value of `headers` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_headers_clear(headers: *mut fastmq_headers) {
    if headers.is_null() {
        return;
    }
    boundary(|| {
        with_headers(headers, |headers| {
            headers.clear();
            Ok(())
        })
    });
}

/// Frees a set of headers; messages sent with it keep theirs.
///
/// Takes NULL. One thread at a time.
///
/// # Safety
/// None: any value of `headers` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_headers_close(headers: *mut fastmq_headers) {
    if headers.is_null() {
        return;
    }
    closing(|| handle::close::<HeadersObject, ()>(handle::number(headers), |_| (), |()| ()));
}

/// Finds the first header with this name, compared without ASCII case.
///
/// `headers` is that of a received message; `*out_value` points into it. Safe from any thread.
/// Returns OK, NOT_FOUND, INVALID.
///
/// # Safety
/// Both byte ranges are readable; `out_value` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_headers_get(
    headers: fastmq_bytes,
    name: fastmq_bytes,
    out_value: *mut fastmq_bytes,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out_value, fastmq_bytes::EMPTY, "out_value") }?;
        // SAFETY: by the contract.
        let headers = unsafe { headers.read("headers") }?;
        // SAFETY: by the contract.
        let name = unsafe { name.read("name") }?;
        out.set(fastmq_bytes::of(headers::get(headers, name)?));
        Ok(())
    })
}

/// Gives one header after the other; `*cursor` starts at 0.
///
/// `headers` is that of a received message; the results point into it. Safe from any thread.
/// Returns OK, END, INVALID.
///
/// # Safety
/// `headers` is readable; `cursor` is readable and writable; both out pointers are writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_headers_next(
    headers: fastmq_bytes,
    cursor: *mut usize,
    out_name: *mut fastmq_bytes,
    out_value: *mut fastmq_bytes,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out_name = unsafe { Out::new(out_name, fastmq_bytes::EMPTY, "out_name") }?;
        // SAFETY: by the contract.
        let out_value = unsafe { Out::new(out_value, fastmq_bytes::EMPTY, "out_value") }?;
        if cursor.is_null() {
            return Err(is_null("cursor"));
        }
        // SAFETY: by the contract.
        let headers = unsafe { headers.read("headers") }?;
        // SAFETY: not NULL, and readable by the contract.
        let at = unsafe { cursor.read() };
        let Some((name, value, after)) = headers::next(headers, at)? else {
            return Err(Error::new(&Fault(
                Status::End,
                "there is no further header",
            )));
        };
        // SAFETY: not NULL, and writable by the contract.
        unsafe { cursor.write(after) };
        out_name.set(fastmq_bytes::of(name));
        out_value.set(fastmq_bytes::of(value));
        Ok(())
    })
}

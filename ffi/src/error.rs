//! The boundary that every entry passes, and the thread's last error.
//!
//! Invariant: nothing unwinds out of the library, nothing is printed, and a call in a forked child
//! touches nothing. A failure costs a store into thread-local memory; the sentence becomes a C
//! string only when somebody asks for it.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use fastmq::border::fork::is_forked_child;
use fastmq::log::{self, Level};
use fastmq::{Error, Fault, Result, Status};

use crate::status::fastmq_status;

/// The last failure of one thread.
struct Last {
    error: Option<Error>,
    /// The sentence with its terminating zero; empty until somebody asks.
    text: Vec<u8>,
}

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { error: None, text: Vec::new() }) };
}

/// Notes a failure as the thread's last one.
#[cold]
pub(crate) fn fail(error: Error) -> fastmq_status {
    let status = error.status();
    // A thread that is ending has no last error any more.
    let _ = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            last.text.clear();
            last.error = Some(error);
        }
    });
    fastmq_status::from(status)
}

#[cold]
fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    Error::with(
        &Fault(Status::Internal, "a bug in fastmq"),
        format_args!("a bug in fastmq: {text}"),
    )
}

#[cold]
fn forked() -> Error {
    let fault = &Fault(
        Status::Misuse,
        "this is a forked child; its parent's handles can only be closed here",
    );
    Error::new(fault)
}

/// What every entry runs in; the value of the failed call is `failed`.
#[inline(always)]
pub(crate) fn guarded<R>(failed: R, body: impl FnOnce() -> Result<R>) -> R {
    if is_forked_child() {
        fail(forked());
        return failed;
    }
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            fail(error);
            failed
        }
        Err(panic) => {
            fail(panicked(&*panic));
            failed
        }
    }
}

/// What every entry with a status runs in.
#[inline(always)]
pub(crate) fn boundary(body: impl FnOnce() -> Result<()>) -> fastmq_status {
    if is_forked_child() {
        return fail(forked());
    }
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => fastmq_status::FASTMQ_OK,
        Ok(Err(error)) => fail(error),
        Err(panic) => fail(panicked(&*panic)),
    }
}

/// What every destroyer runs in. Its failures are logged, as it has no status.
#[inline(always)]
pub(crate) fn closing(body: impl FnOnce() -> Result<()>) {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => not_closed(error),
        Err(panic) => not_closed(panicked(&*panic)),
    }
}

#[cold]
fn not_closed(error: Error) {
    if !is_forked_child() {
        log::write(Level::Warn, "handle", error.text());
    }
    fail(error);
}

/// Sends the text of a panic to the log hook: the standard library would print it.
pub(crate) fn quiet_panics() {
    static ONCE: Once = Once::new();
    if cfg!(test) {
        return;
    }
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            if !is_forked_child() {
                log::write(Level::Error, "panic", &info.to_string());
            }
        }));
    });
}

/// Gives the sentence about this thread's last failed call, or "".
///
/// It is yours to read until the next call that fails on this thread. Safe from any thread, also
/// after fork.
#[unsafe(no_mangle)]
pub extern "C" fn fastmq_last_error() -> *const c_char {
    let text = LAST.try_with(|last| {
        let Ok(mut last) = last.try_borrow_mut() else {
            return c"".as_ptr();
        };
        let Last { error, text } = &mut *last;
        let Some(error) = error else {
            return c"".as_ptr();
        };
        if text.is_empty() {
            let bytes = error.text().as_bytes();
            if text.try_reserve(bytes.len() + 1).is_err() {
                return c"the allocator has no memory".as_ptr();
            }
            text.extend(
                bytes
                    .iter()
                    .map(|byte| if *byte == 0 { b'?' } else { *byte }),
            );
            text.push(0);
        }
        text.as_ptr().cast()
    });
    text.unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn last() -> String {
        // SAFETY: the text ends with a zero and lives until the next failure of this thread.
        let text = unsafe { CStr::from_ptr(fastmq_last_error()) };
        text.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_last_error_is_kept_until_the_next_failure() {
        assert_eq!(last(), "");
        assert_eq!(boundary(|| Err(Error::FULL)), fastmq_status::FASTMQ_AGAIN);
        assert_eq!(last(), Error::FULL.text());
        assert_eq!(boundary(|| Ok(())), fastmq_status::FASTMQ_OK);
        assert_eq!(last(), Error::FULL.text());
        let status = boundary(|| {
            Err(Error::with(
                &Fault(Status::Invalid, "x"),
                format_args!("policy is {}\0", 99),
            ))
        });
        assert_eq!(status, fastmq_status::FASTMQ_INVALID);
        assert_eq!(last(), "policy is 99?");
        assert_eq!(last(), "policy is 99?");
    }

    #[test]
    fn a_panic_is_internal_and_keeps_its_text() {
        let status = boundary(|| panic!("index {} is gone", 3));
        assert_eq!(status, fastmq_status::FASTMQ_INTERNAL);
        assert_eq!(last(), "a bug in fastmq: index 3 is gone");
    }
}

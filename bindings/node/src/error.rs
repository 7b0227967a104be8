//! What a call says to JavaScript: a status, whose sentence is kept for whoever asks, or a thrown
//! error with the C name as its code.

use std::cell::RefCell;

use fastmq::{Error, Result, Status};
use napi_derive::napi;

/// A thrown error; its code is the C name of a status.
pub(crate) type Thrown = napi::Error<&'static str>;

thread_local! {
    static LAST: RefCell<(Option<Status>, String)> = const { RefCell::new((None, String::new())) };
}

/// The C name of a status.
pub(crate) fn name_of(status: Status) -> &'static str {
    status.c_name().to_str().unwrap_or("FASTMQ_UNKNOWN")
}

/// An error as JavaScript gets it thrown.
pub(crate) fn thrown(error: Error) -> Thrown {
    napi::Error::new(name_of(error.status()), error.text().to_owned())
}

/// The number of a failure, whose sentence `last_error` gives.
#[cold]
pub(crate) fn failed(error: &Error) -> u32 {
    LAST.with_borrow_mut(|last| {
        last.0 = Some(error.status());
        last.1.clear();
        last.1.push_str(error.text());
    });
    error.status() as u32
}

/// The number of a result, whose sentence `last_error` gives.
#[inline(always)]
pub(crate) fn told(result: &Result<()>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(error) => failed(error),
    }
}

/// What a call on another thread has failed with.
#[napi(object)]
pub struct Failure {
    /// The number of the status.
    pub status: u32,
    /// The sentence.
    pub text: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            status: error.status() as u32,
            text: error.text().to_owned(),
        }
    }
}

/// The sentence about this thread's last status that was not 0.
#[napi]
pub fn last_error() -> String {
    LAST.with_borrow(|last| last.1.clone())
}

/// That status.
#[napi]
pub fn last_status() -> u32 {
    LAST.with_borrow(|last| last.0.map_or(0, |status| status as u32))
}

/// One status.
#[napi(object)]
pub struct StatusEntry {
    /// Its number.
    pub number: u32,
    /// Its C name.
    pub name: String,
    /// One line about it.
    pub text: String,
}

/// All statuses.
#[napi]
pub fn statuses() -> Vec<StatusEntry> {
    let entry = |status: &Status| StatusEntry {
        number: *status as u32,
        name: name_of(*status).to_owned(),
        text: status.c_text().to_string_lossy().into_owned(),
    };
    Status::ALL.iter().map(entry).collect()
}

/// The version of the library.
#[napi]
pub fn version() -> String {
    fastmq::VERSION.to_owned()
}

/// The ABI of C that this library has: major << 16 | minor.
#[napi]
pub fn abi() -> u32 {
    fastmq::ABI
}

//! The status numbers of the ABI and their names (`docs/formats.md` §4), and the library's version.
//!
//! The numbers stand here a second time, because the header is made from this crate; the asserts
//! below hold them to the engine's.

use std::ffi::{CStr, c_char};

use fastmq::Status;

/// What a call says; the tens say what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_status {
    /// Done.
    FASTMQ_OK = 0,
    /// Nothing ready, or no room: wait, then call again.
    FASTMQ_AGAIN = 1,
    /// The time is up.
    FASTMQ_TIMEOUT = 2,
    /// Closed and drained.
    FASTMQ_END = 3,
    /// Cancelled before it was answered.
    FASTMQ_CANCELLED = 4,
    /// An argument is wrong, and the sentence names it.
    FASTMQ_INVALID = 10,
    /// The call is wrong here: overlap, second open batch, stale handle, after fork.
    FASTMQ_MISUSE = 11,
    /// Larger than a limit.
    FASTMQ_TOO_LARGE = 12,
    /// Not supported.
    FASTMQ_UNSUPPORTED = 13,
    /// The parent of the handle is closed.
    FASTMQ_CLOSED = 14,
    /// There is no such thing.
    FASTMQ_NOT_FOUND = 20,
    /// It exists already.
    FASTMQ_EXISTS = 21,
    /// Nobody answers this subject.
    FASTMQ_NO_RESPONDER = 22,
    /// The responder has no room.
    FASTMQ_BUSY = 23,
    /// Another change came first.
    FASTMQ_CONFLICT = 24,
    /// Not now; try again.
    FASTMQ_UNAVAILABLE = 30,
    /// The connection is gone; the fate is unknown.
    FASTMQ_DISCONNECTED = 31,
    /// Disconnected for being slow.
    FASTMQ_SLOW_CONSUMER = 32,
    /// Not permitted.
    FASTMQ_DENIED = 40,
    /// A memory cap or the disk is full.
    FASTMQ_NO_SPACE = 41,
    /// Data are damaged.
    FASTMQ_CORRUPT = 42,
    /// The operating system refused.
    FASTMQ_IO = 43,
    /// The allocator has no memory.
    FASTMQ_NO_MEMORY = 44,
    /// A bug of this library.
    FASTMQ_INTERNAL = 50,
}

use fastmq_status::*;

/// Each status of the engine with that of the ABI.
const PAIRS: [(Status, fastmq_status); 24] = [
    (Status::Ok, FASTMQ_OK),
    (Status::Again, FASTMQ_AGAIN),
    (Status::Timeout, FASTMQ_TIMEOUT),
    (Status::End, FASTMQ_END),
    (Status::Cancelled, FASTMQ_CANCELLED),
    (Status::Invalid, FASTMQ_INVALID),
    (Status::Misuse, FASTMQ_MISUSE),
    (Status::TooLarge, FASTMQ_TOO_LARGE),
    (Status::Unsupported, FASTMQ_UNSUPPORTED),
    (Status::Closed, FASTMQ_CLOSED),
    (Status::NotFound, FASTMQ_NOT_FOUND),
    (Status::Exists, FASTMQ_EXISTS),
    (Status::NoResponder, FASTMQ_NO_RESPONDER),
    (Status::Busy, FASTMQ_BUSY),
    (Status::Conflict, FASTMQ_CONFLICT),
    (Status::Unavailable, FASTMQ_UNAVAILABLE),
    (Status::Disconnected, FASTMQ_DISCONNECTED),
    (Status::SlowConsumer, FASTMQ_SLOW_CONSUMER),
    (Status::Denied, FASTMQ_DENIED),
    (Status::NoSpace, FASTMQ_NO_SPACE),
    (Status::Corrupt, FASTMQ_CORRUPT),
    (Status::Io, FASTMQ_IO),
    (Status::NoMemory, FASTMQ_NO_MEMORY),
    (Status::Internal, FASTMQ_INTERNAL),
];

const _: () = {
    assert!(PAIRS.len() == Status::ALL.len());
    let mut index = 0;
    while index < PAIRS.len() {
        assert!(PAIRS[index].0 as u32 == PAIRS[index].1 as u32);
        assert!(PAIRS[index].0 as u32 == Status::ALL[index] as u32);
        index += 1;
    }
};

impl From<Status> for fastmq_status {
    fn from(status: Status) -> Self {
        PAIRS
            .iter()
            .find(|(ours, _)| *ours == status)
            .map_or(FASTMQ_INTERNAL, |(_, theirs)| *theirs)
    }
}

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no NUL inside"),
    };

/// Says which ABI the library has: `major << 16 | minor`.
///
/// Safe from any thread, also after fork.
#[unsafe(no_mangle)]
pub extern "C" fn fastmq_abi() -> u32 {
    fastmq::ABI
}

/// Gives the version of the library, such as "0.1.0".
///
/// The text lives as long as the library is loaded. Safe from any thread, also after fork.
#[unsafe(no_mangle)]
pub extern "C" fn fastmq_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Gives the name of a status, such as "FASTMQ_AGAIN", or "FASTMQ_UNKNOWN".
///
/// The text lives as long as the library is loaded. Safe from any thread, also after fork.
#[unsafe(no_mangle)]
pub extern "C" fn fastmq_status_name(status: u32) -> *const c_char {
    Status::from_number(status)
        .map_or(c"FASTMQ_UNKNOWN", Status::c_name)
        .as_ptr()
}

/// Gives one line about a status for people.
///
/// The text lives as long as the library is loaded. Safe from any thread, also after fork.
#[unsafe(no_mangle)]
pub extern "C" fn fastmq_status_text(status: u32) -> *const c_char {
    Status::from_number(status)
        .map_or(c"not a status of this library", Status::c_text)
        .as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_engine_has_its_number_in_the_abi() {
        for status in Status::ALL {
            assert_eq!(fastmq_status::from(status) as u32, status as u32);
        }
    }
}

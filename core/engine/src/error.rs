//! Statuses and errors: one enum for every call of every language (`docs/formats.md` §4).

use std::alloc::Layout;
use std::fmt::{self, Write};
use std::io;

use fastmq_memory::allocation::{NoMemory, try_box, with_memory};

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Nothing ready, or no room: wait, then call again.
    Again = 1,
    /// The time is up.
    Timeout = 2,
    /// Closed and drained.
    End = 3,
    /// Cancelled before it was answered.
    Cancelled = 4,
    /// An argument is wrong.
    Invalid = 10,
    /// The call is wrong here and now.
    Misuse = 11,
    /// Larger than a limit.
    TooLarge = 12,
    /// Not supported.
    Unsupported = 13,
    /// The handle or its parent is closed.
    Closed = 14,
    /// There is no such thing.
    NotFound = 20,
    /// It exists already.
    Exists = 21,
    /// Nobody answers this subject.
    NoResponder = 22,
    /// The responder has no room.
    Busy = 23,
    /// Another change came first.
    Conflict = 24,
    /// Not now; try again.
    Unavailable = 30,
    /// The connection is gone; the fate is unknown.
    Disconnected = 31,
    /// Disconnected for being slow.
    SlowConsumer = 32,
    /// Not permitted.
    Denied = 40,
    /// A memory cap or the disk is full.
    NoSpace = 41,
    /// Data are damaged.
    Corrupt = 42,
    /// The operating system refused.
    Io = 43,
    /// The allocator has no memory.
    NoMemory = 44,
    /// A bug of this library.
    Internal = 50,
}

impl Status {
    /// All statuses, in the order of their numbers.
    pub const ALL: [Status; 24] = [
        Status::Ok,
        Status::Again,
        Status::Timeout,
        Status::End,
        Status::Cancelled,
        Status::Invalid,
        Status::Misuse,
        Status::TooLarge,
        Status::Unsupported,
        Status::Closed,
        Status::NotFound,
        Status::Exists,
        Status::NoResponder,
        Status::Busy,
        Status::Conflict,
        Status::Unavailable,
        Status::Disconnected,
        Status::SlowConsumer,
        Status::Denied,
        Status::NoSpace,
        Status::Corrupt,
        Status::Io,
        Status::NoMemory,
        Status::Internal,
    ];

    /// The status with this number, if there is one.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|status| *status as u32 == number)
    }

    /// The C name with its terminating zero.
    pub fn c_name(self) -> &'static std::ffi::CStr {
        match self {
            Self::Ok => c"FASTMQ_OK",
            Self::Again => c"FASTMQ_AGAIN",
            Self::Timeout => c"FASTMQ_TIMEOUT",
            Self::End => c"FASTMQ_END",
            Self::Cancelled => c"FASTMQ_CANCELLED",
            Self::Invalid => c"FASTMQ_INVALID",
            Self::Misuse => c"FASTMQ_MISUSE",
            Self::TooLarge => c"FASTMQ_TOO_LARGE",
            Self::Unsupported => c"FASTMQ_UNSUPPORTED",
            Self::Closed => c"FASTMQ_CLOSED",
            Self::NotFound => c"FASTMQ_NOT_FOUND",
            Self::Exists => c"FASTMQ_EXISTS",
            Self::NoResponder => c"FASTMQ_NO_RESPONDER",
            Self::Busy => c"FASTMQ_BUSY",
            Self::Conflict => c"FASTMQ_CONFLICT",
            Self::Unavailable => c"FASTMQ_UNAVAILABLE",
            Self::Disconnected => c"FASTMQ_DISCONNECTED",
            Self::SlowConsumer => c"FASTMQ_SLOW_CONSUMER",
            Self::Denied => c"FASTMQ_DENIED",
            Self::NoSpace => c"FASTMQ_NO_SPACE",
            Self::Corrupt => c"FASTMQ_CORRUPT",
            Self::Io => c"FASTMQ_IO",
            Self::NoMemory => c"FASTMQ_NO_MEMORY",
            Self::Internal => c"FASTMQ_INTERNAL",
        }
    }

    /// One line for people.
    pub fn text(self) -> &'static str {
        self.c_text().to_str().unwrap_or_default()
    }

    /// The same with its terminating zero.
    pub fn c_text(self) -> &'static std::ffi::CStr {
        match self {
            Self::Ok => c"done",
            Self::Again => c"nothing is ready, or there is no room; wait, then call again",
            Self::Timeout => c"the time is up",
            Self::End => c"closed and drained",
            Self::Cancelled => c"cancelled before it was answered",
            Self::Invalid => c"an argument is wrong",
            Self::Misuse => c"this call is wrong here and now",
            Self::TooLarge => c"larger than a limit",
            Self::Unsupported => c"not supported",
            Self::Closed => c"the handle or its parent is closed",
            Self::NotFound => c"there is no such thing",
            Self::Exists => c"it exists already",
            Self::NoResponder => c"nobody answers this subject",
            Self::Busy => c"the responder has no room; try again later",
            Self::Conflict => c"another change came first",
            Self::Unavailable => c"not available now; try again later",
            Self::Disconnected => c"the connection is gone and the fate unknown",
            Self::SlowConsumer => c"disconnected for being slow",
            Self::Denied => c"not permitted",
            Self::NoSpace => c"a memory cap or the disk is full",
            Self::Corrupt => c"data are damaged",
            Self::Io => c"the operating system refused",
            Self::NoMemory => c"the allocator has no memory",
            Self::Internal => c"a bug in fastmq",
        }
    }
}

/// A status with a fixed sentence about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault(pub Status, pub &'static str);

/// A status and a sentence that names what was wrong.
///
/// A tag and a pointer, so that a result travels in two registers: one that goes through memory is
/// stored in pieces and loaded whole, which costs as much as a short call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Repr);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Repr {
    Fixed(&'static Fault),
    Made(Box<(Status, String)>),
}

const _: () = assert!(size_of::<Result<()>>() == 16);

/// Longest sentence that is made, in bytes.
const SENTENCE_BYTES_MAX: usize = 2048;

/// The result of every call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a fixed sentence; costs nothing to make.
    #[inline(always)]
    pub const fn new(fault: &'static Fault) -> Self {
        Self(Repr::Fixed(fault))
    }

    /// An error whose sentence has values in it; without memory for it, that of `fallback`.
    #[cold]
    pub fn with(fallback: &'static Fault, sentence: fmt::Arguments<'_>) -> Self {
        let mut text = Sentence(String::new());
        if text.write_fmt(sentence).is_err() {
            return Self::new(fallback);
        }
        match try_box((fallback.0, text.0)) {
            Ok(made) => Self(Repr::Made(made)),
            Err(NoMemory) => Self::new(fallback),
        }
    }

    /// An error of whatever status somebody else has said.
    #[cold]
    pub(crate) fn made(status: Status, sentence: fmt::Arguments<'_>) -> Self {
        let mut text = Sentence(String::new());
        match text.write_fmt(sentence) {
            Ok(()) => {
                try_box((status, text.0)).map_or(Self::NO_MEMORY, |made| Self(Repr::Made(made)))
            }
            Err(_) => Self::NO_MEMORY,
        }
    }

    /// The same for a refusal of the system; `doing` is what it refused.
    #[cold]
    pub fn with_io(fallback: &'static Fault, doing: &str, error: &io::Error) -> Self {
        // The standard library takes memory for the system's words.
        let words = [Layout::new::<[u8; 256]>(); 4];
        let make = || Self::with(fallback, format_args!("{doing}: {error}"));
        with_memory(&words, make).unwrap_or(Self::new(fallback))
    }

    /// The status.
    #[inline]
    pub fn status(&self) -> Status {
        match &self.0 {
            Repr::Fixed(fault) => fault.0,
            Repr::Made(made) => made.0,
        }
    }

    /// The sentence, without the status.
    #[inline]
    pub fn text(&self) -> &str {
        match &self.0 {
            Repr::Fixed(fault) => fault.1,
            Repr::Made(made) => &made.1,
        }
    }

    /// The sentence, if it is a fixed one.
    #[inline]
    pub fn fixed_text(&self) -> Option<&'static str> {
        match &self.0 {
            Repr::Fixed(fault) => Some(fault.1),
            Repr::Made(_) => None,
        }
    }

    /// The handle or its parent is closed.
    pub const CLOSED: Self = Self::new(&Fault(Status::Closed, "the client is closed"));
    /// A full queue.
    pub const FULL: Self = Self::new(&Fault(
        Status::Again,
        "a subscriber's queue is full; receive from it or wait for room",
    ));
    /// No memory.
    pub const NO_MEMORY: Self = Self::new(&Fault(Status::NoMemory, "the allocator has no memory"));
    /// The cap.
    pub const OVER_BUDGET: Self = Self::new(&Fault(
        Status::NoSpace,
        "the client's memory_max is reached; receive or raise it",
    ));
}

#[cold]
pub(crate) fn too_deep() -> Error {
    let fault = &Fault(
        Status::Misuse,
        "inline handlers are nested 16 deep; break the cycle or use a queue",
    );
    Error::new(fault)
}

/// A text that grows as long as there is memory.
struct Sentence(String);

impl Write for Sentence {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.0.len() + more.len() > SENTENCE_BYTES_MAX {
            return Err(fmt::Error);
        }
        self.0.try_reserve(more.len()).map_err(|_| fmt::Error)?;
        self.0.push_str(more);
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Error {}

impl From<fastmq_memory::Refused> for Error {
    #[inline]
    fn from(refused: fastmq_memory::Refused) -> Self {
        use fastmq_memory::Refused;
        match refused {
            Refused::Full => Self::FULL,
            Refused::OverBudget => Self::OVER_BUDGET,
            Refused::NoMemory => Self::NO_MEMORY,
            Refused::TooLarge => Self::new(&Fault(
                Status::TooLarge,
                "reply address, key and headers are larger than half of the queue's capacity; \
                 open it with more",
            )),
            Refused::Closed | Refused::Unread => {
                Self::new(&Fault(Status::Closed, "the queue is closed"))
            }
        }
    }
}

impl From<fastmq_route::SubjectError> for Error {
    #[cold]
    fn from(error: fastmq_route::SubjectError) -> Self {
        let fallback = &Fault(Status::Invalid, "this is not a subject or pattern");
        Self::with(fallback, format_args!("{error}"))
    }
}

impl From<NoMemory> for Error {
    #[cold]
    fn from(_: NoMemory) -> Self {
        Self::NO_MEMORY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_found_by_its_number() {
        for status in Status::ALL {
            assert_eq!(Status::from_number(status as u32), Some(status));
        }
        assert_eq!(Status::from_number(5), None);
        assert_eq!(Status::from_number(51), None);
    }

    #[test]
    fn a_sentence_that_is_too_long_is_the_fixed_one() {
        const FAULT: &Fault = &Fault(Status::Invalid, "short");
        let long = "x".repeat(SENTENCE_BYTES_MAX + 1);
        let made = |text: &str| Error::with(FAULT, format_args!("{text}"));
        assert_eq!(made(&long).text(), "short");
        assert_eq!(made(&long[1..]).text(), &long[1..]);
        let error = io::Error::from_raw_os_error(24);
        let refused = Error::with_io(FAULT, "cannot do it", &error);
        assert_eq!(refused.text(), format!("cannot do it: {error}"));
        assert_eq!(refused.status(), Status::Invalid);
    }
}

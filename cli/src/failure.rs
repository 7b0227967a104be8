//! Why a command fails: a sentence for people and an exit code for scripts
//! (`docs/reference/cli.md`).

use std::fmt;
use std::io;
use std::process::ExitCode;

use fastmq::{Error, Status};

/// Exit codes; clap ends with [`USAGE`] too.
pub(crate) mod code {
    /// What no other code says.
    pub(crate) const OTHER: u8 = 1;
    /// The command line, the configuration, a subject or a payload is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// No server answers, or the connection was lost.
    pub(crate) const NO_SERVER: u8 = 3;
    /// The server does not let us.
    pub(crate) const DENIED: u8 = 4;
    /// The time is up.
    pub(crate) const TIMEOUT: u8 = 5;
    /// Nobody answers the subject.
    pub(crate) const NO_RESPONDER: u8 = 6;
    /// There is no room now.
    pub(crate) const BUSY: u8 = 7;
}

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// The end of a command that has not done what it should.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Empty: there is nobody to tell, or it was told.
    text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// The user is to write something else.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(code::USAGE, text)
    }

    /// Everything was said; only the code is left.
    pub(crate) fn told(code: u8) -> Self {
        Self::new(code, "")
    }

    /// The same with what it is about in front of it.
    pub(crate) fn about(mut self, what: impl fmt::Display) -> Self {
        if !self.text.is_empty() {
            self.text = format!("{what}: {}", self.text);
        }
        self
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

/// The exit code of a status.
pub(crate) fn code_of(status: Status) -> u8 {
    match status {
        Status::Invalid | Status::Misuse | Status::TooLarge | Status::Unsupported => code::USAGE,
        Status::Unavailable | Status::Disconnected | Status::SlowConsumer => code::NO_SERVER,
        Status::Denied => code::DENIED,
        Status::Timeout => code::TIMEOUT,
        Status::NoResponder => code::NO_RESPONDER,
        Status::Busy | Status::Again | Status::NoSpace => code::BUSY,
        _ => code::OTHER,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(code_of(error.status()), error.text())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // `fastmq sub … | head` is no failure.
            io::ErrorKind::BrokenPipe => Self::told(0),
            _ => Self::new(code::OTHER, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code(), failure.text()), (0, ""));
        assert_eq!(Failure::from(io::Error::other("disk")).code(), code::OTHER);
    }

    #[test]
    fn no_failed_status_ends_with_zero() {
        for status in Status::ALL {
            assert_ne!(code_of(status), 0, "{status:?}");
        }
    }
}

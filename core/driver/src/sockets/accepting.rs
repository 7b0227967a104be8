//! A listener that cannot accept rests instead of spinning.
//!
//! Out of descriptors, a pending connection keeps the listener ready for ever. So it is left alone
//! until a connection of the shard closes (which frees a descriptor) or a pause is over.

use std::io;

use crate::{FOREVER_NS, clock};

use super::ACCEPT_PAUSE_NS;

/// What an accept that failed calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The connection was gone, or a signal came: the next may be fine.
    Again,
    /// Nobody is waiting.
    None,
    /// Something has run out, or is broken.
    Pause,
}

/// When resting listeners go on.
#[derive(Debug)]
pub(super) struct Pause {
    until_ns: u64,
    is_cut_short: bool,
}

impl Pause {
    pub(super) fn new() -> Self {
        Self {
            until_ns: FOREVER_NS,
            is_cut_short: false,
        }
    }

    /// A listener has started to rest.
    pub(super) fn start(&mut self) {
        if self.until_ns == FOREVER_NS {
            self.until_ns = clock::monotonic_ns().saturating_add(ACCEPT_PAUSE_NS);
        }
    }

    /// A connection has closed.
    pub(super) fn cut_short(&mut self) {
        self.is_cut_short = self.until_ns != FOREVER_NS;
    }

    /// Whether resting listeners go on now; asked once a turn, and reads the clock only if one
    /// rests.
    pub(super) fn is_over(&mut self) -> bool {
        if self.until_ns == FOREVER_NS {
            return false;
        }
        let is_over = self.is_cut_short || clock::monotonic_ns() >= self.until_ns;
        if is_over {
            *self = Self::new();
        }
        is_over
    }

    pub(super) fn due_ns(&self) -> u64 {
        self.until_ns
    }
}

pub(super) fn remedy(error: &io::Error) -> Remedy {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Remedy::None,
        // accept(2): errors that wait on the new connection are handed to the accepter.
        Some(
            libc::EINTR
            | libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::ECANCELED,
        ) => Remedy::Again,
        _ => Remedy::Pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_run_out_pauses() {
        let check = |code, expected| {
            assert_eq!(remedy(&io::Error::from_raw_os_error(code)), expected);
        };
        check(libc::EMFILE, Remedy::Pause);
        check(libc::ENFILE, Remedy::Pause);
        check(libc::ENOBUFS, Remedy::Pause);
        check(libc::ECONNABORTED, Remedy::Again);
        check(libc::EAGAIN, Remedy::None);
    }

    #[test]
    fn a_closed_connection_ends_a_pause() {
        let mut pause = Pause::new();
        pause.cut_short();
        assert!(!pause.is_over(), "nobody rests");
        pause.start();
        assert!(pause.due_ns() < FOREVER_NS);
        pause.cut_short();
        assert!(pause.is_over());
        assert_eq!(pause.due_ns(), FOREVER_NS);
        assert!(!pause.is_over());
    }
}

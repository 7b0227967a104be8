//! Whether a descriptor is readable, as a foreign loop sees it.

use std::time::Duration;

/// True if the descriptor is readable within `patience`; zero does not wait.
pub fn is_readable(fd: i32, patience: Duration) -> bool {
    let mut one = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout_ms = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `one` is one valid entry and outlives the call.
    let count = unsafe { libc::poll(&raw mut one, 1, timeout_ms) };
    count == 1 && one.revents & libc::POLLIN != 0
}

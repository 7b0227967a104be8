//! Foreign loops and threadless use: the client's descriptor, dispatch, the next deadline.

use fastmq::FOREVER_NS;

use crate::bytes::Out;
use crate::client::{check_parent, client_of, fastmq_client};
use crate::error::{boundary, guarded};
use crate::status::fastmq_status;

/// What fastmq_dispatch found ready, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_ready {
    /// Messages wait in a queue that is pulled, or were handled.
    FASTMQ_READY_MESSAGES = 1,
    /// A requester has answers.
    FASTMQ_READY_ANSWERS = 2,
    /// A queue that refused a publish has room.
    FASTMQ_READY_ROOM = 4,
    /// A deadline has passed.
    FASTMQ_READY_DEADLINE = 8,
    /// The budget ended before the work.
    FASTMQ_READY_MORE = 16,
}

const _: () = {
    use fastmq::ready;
    assert!(fastmq_ready::FASTMQ_READY_MESSAGES as u32 == ready::MESSAGES);
    assert!(fastmq_ready::FASTMQ_READY_ANSWERS as u32 == ready::ANSWERS);
    assert!(fastmq_ready::FASTMQ_READY_ROOM as u32 == ready::ROOM);
    assert!(fastmq_ready::FASTMQ_READY_DEADLINE as u32 == ready::DEADLINE);
    assert!(fastmq_ready::FASTMQ_READY_MORE as u32 == ready::MORE);
};

/// Gives the client's descriptor for epoll or poll: readable exactly while fastmq_dispatch has
/// something to do.
///
/// The descriptor is the library's: only wait on it. Safe from any thread.
/// Returns -1 on failure: IO, CLOSED, INVALID, MISUSE in fastmq_last_error.
///
/// # Safety
/// None: any value of `client` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_fd(client: *mut fastmq_client) -> i32 {
    guarded(-1, || client_of(client)?.fd())
}

/// Calls the callbacks of FASTMQ_DELIVERY_DISPATCH and says what else is ready.
///
/// Stops after `message_max` messages and `budget_ns` nanoseconds, FASTMQ_FOREVER or 0 for no
/// limit; `*out_ready` gets fastmq_ready bits. Does not wait. Safe from any thread.
/// Returns OK, NO_MEMORY, CLOSED, CORRUPT, INVALID, MISUSE.
///
/// # Safety
/// `out_ready` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_dispatch(
    client: *mut fastmq_client,
    message_max: u32,
    budget_ns: u64,
    out_ready: *mut u32,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out_ready, 0, "out_ready") }?;
        let budget_ns = if budget_ns == FOREVER_NS {
            0
        } else {
            budget_ns
        };
        out.set(client_of(client)?.dispatch(message_max, budget_ns)?);
        Ok(())
    })
}

/// Says in how many nanoseconds something times out, for loops with their own timers.
///
/// Safe from any thread. Returns FASTMQ_FOREVER if nothing will, and on failure: CLOSED, INVALID,
/// MISUSE in fastmq_last_error.
///
/// # Safety
/// None: any value of `client` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_next_deadline(client: *mut fastmq_client) -> u64 {
    guarded(FOREVER_NS, || {
        let client = client_of(client)?;
        check_parent(&client)?;
        Ok(client.next_deadline())
    })
}

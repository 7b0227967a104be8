//! What ended handlers own, until it can be dropped.
//!
//! The last hold on a handler goes at any place: while a table of subscriptions is changed, while a
//! route leaves a cache. What the handler owns may subscribe, publish or close when it is dropped,
//! and would wait there for a lock that its own thread holds. So the drop of a handler puts it
//! here, and it is dropped where the engine holds no lock and has borrowed nothing.

use std::cell::Cell;

use fastmq_memory::allocation::NoMemory;
use fastmq_memory::sync::{Mutex, lock};

use crate::subscription::OnMessage;

struct Ended {
    calls: Vec<Box<OnMessage>>,
    /// Handlers that there are; there is room for all.
    expected: usize,
}

/// Of all brokers: what is dropped while one is changed may belong to another.
static ENDED: Mutex<Ended> = Mutex::new(Ended {
    calls: Vec::new(),
    expected: 0,
});

/// Makes room for one more handler, so that its end needs no memory.
pub(crate) fn expect() -> Result<(), NoMemory> {
    let mut ended = lock(&ENDED);
    let expected = ended.expected + 1;
    ended.calls.try_reserve(expected).map_err(|_| NoMemory)?;
    ended.expected = expected;
    Ok(())
}

/// Keeps what a handler owns, for which there is room, until a [`DropEnded`] goes.
pub(crate) fn keep(call: Box<OnMessage>) {
    let mut ended = lock(&ENDED);
    ended.expected -= 1;
    ended.calls.push(call);
}

/// The next one; the last leaves no memory behind.
fn next() -> Option<Box<OnMessage>> {
    let mut ended = lock(&ENDED);
    let call = ended.calls.pop();
    if call.is_none() && ended.expected == 0 {
        ended.calls = Vec::new();
    }
    call
}

/// Drops what ended handlers own when it is dropped itself: the first local of a call that ends
/// something, or the last field of what may hold a handler, so that all else is over by then.
#[derive(Debug)]
pub(crate) struct DropEnded;

impl Drop for DropEnded {
    fn drop(&mut self) {
        thread_local! {
            static IS_DROPPING: Cell<bool> = const { Cell::new(false) };
        }
        // What is dropped here may end others: they wait for the next turn of the loop below.
        if IS_DROPPING.replace(true) {
            return;
        }
        struct Done;
        impl Drop for Done {
            fn drop(&mut self) {
                IS_DROPPING.set(false);
            }
        }
        let _done = Done;
        // In a forked child the lock may be held for ever by a thread that is not there.
        if fastmq_driver::fork::is_forked_child() {
            return;
        }
        while let Some(call) = next() {
            drop(call);
        }
    }
}

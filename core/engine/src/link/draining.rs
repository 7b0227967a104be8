//! Draining: what waits at the server comes, what was published leaves, and nothing new.

use std::sync::atomic::Ordering;

use fastmq_wire::Kind;

use crate::error::{Error, Fault, Result, Status};

use super::Uplink;
use super::state::{Phase, State, no_memory};

/// How often it is looked whether what was published has left.
const AGAIN_NS: u64 = 10_000_000;

/// How far a client's drain is.
#[derive(Debug, Default)]
pub(super) struct Draining {
    /// The client is not to subscribe again.
    pub(super) is_asked: bool,
    /// The operation that the server will answer.
    operation: Option<u32>,
    /// It has: nothing more will come on this connection.
    pub(super) is_done: bool,
}

impl Draining {
    /// The server has answered an operation.
    pub(super) fn answered(&mut self, operation: u32) {
        if self.operation == Some(operation) {
            self.operation = None;
            self.is_done = true;
        }
    }

    /// The connection has ended.
    pub(super) fn disconnected(&mut self) {
        self.operation = None;
        self.is_done = false;
    }
}

const SERVER_WAITS: Error = Error::new(&Fault(
    Status::Timeout,
    "the server has not sent all that waits there",
));

const UNSENT: Error = Error::new(&Fault(
    Status::Timeout,
    "messages still wait for a connection",
));

impl State {
    /// Asks for the drain, once for a connection; true: it has ended.
    fn drain(&mut self) -> Result<bool> {
        self.draining.is_asked = true;
        match self.phase {
            Phase::Over => return Err(Error::CLOSED),
            Phase::Offline => return Ok(self.stored.is_empty()),
            Phase::Online => {}
        }
        if self.stored.is_empty() && !self.draining.is_done && self.draining.operation.is_none() {
            let operation = self.operations.begin(0).map_err(no_memory)?;
            self.control(Kind::Drain, (0, operation), None)
                .map_err(no_memory)?;
            self.draining.operation = Some(operation);
        }
        Ok(self.draining.is_done)
    }
}

impl Uplink {
    /// Waits until all that waits for this client at the server has come, and all that it has
    /// published was read there. TIMEOUT, MISUSE: on the thread that drives the link.
    pub(crate) fn drain(&self, deadline_ns: u64) -> Result<()> {
        self.check_not_here()?;
        loop {
            let seen = self.answered.load(Ordering::SeqCst);
            let is_stored = {
                let mut state = self.state();
                if state.drain()? {
                    return Ok(());
                }
                !state.stored.is_empty()
            };
            self.nudge();
            let now_ns = self.driver.monotonic_ns();
            if now_ns >= deadline_ns {
                return Err(if is_stored { UNSENT } else { SERVER_WAITS });
            }
            self.wait_answer(seen, deadline_ns.min(now_ns.saturating_add(AGAIN_NS)));
        }
    }

    /// Deliveries that wait beside their queues, which are full.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }
}

//! What the sessions of a shard share.

use std::sync::Arc;

use crate::broker::Broker;
use crate::error::Result;
use crate::writer::Writer;

use super::ServerOptions;
use super::inbox::Inbox;

/// The broker and what a shard has of it.
pub struct Parts {
    pub(super) broker: Arc<Broker>,
    /// All that connections publish, ask and answer goes through it, so that their order holds.
    pub(super) writer: Writer,
    pub(super) inbox: Arc<Inbox>,
    pub(super) options: ServerOptions,
    /// Which run of the server this is.
    pub(super) instance: u64,
    /// The turn's time.
    pub(super) now_ns: u64,
    /// No new connections and subscriptions.
    pub(super) is_draining: bool,
}

impl Parts {
    /// For sessions without a shard: nothing wakes anybody.
    ///
    /// # Errors
    /// NO_MEMORY.
    pub fn new(broker: &Arc<Broker>, options: ServerOptions) -> Result<Self> {
        Self::over(broker, options, Inbox::new(None))
    }

    pub(super) fn over(
        broker: &Arc<Broker>,
        options: ServerOptions,
        inbox: Arc<Inbox>,
    ) -> Result<Self> {
        let driver = broker.driver();
        Ok(Self {
            broker: broker.clone(),
            writer: Writer::new(broker, None)?,
            inbox,
            options,
            instance: driver.random(),
            now_ns: driver.monotonic_ns(),
            is_draining: false,
        })
    }

    /// Reads the clock: once a turn.
    pub fn read_clock(&mut self) -> u64 {
        self.now_ns = self.broker.driver().monotonic_ns();
        self.now_ns
    }

    /// New connections and subscriptions are refused from now on.
    pub fn start_draining(&mut self) {
        self.is_draining = true;
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

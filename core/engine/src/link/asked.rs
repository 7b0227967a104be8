//! Subscribing at the server, and what waits for its answers.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use fastmq_memory::Policy;
use fastmq_wire::control::flag;
use fastmq_wire::handshake::capability;
use fastmq_wire::{ControlDraft, Field, Kind, NoMemory};

use crate::error::{Error, Fault, Result, Status};
use crate::options::SubscribeOptions;
use crate::subscription::{Delivery, GroupMode, Target};

use super::state::{Phase, State, no_memory};
use super::uplink::Uplink;

/// What is open at the server, by the operation's number.
#[derive(Debug, Default)]
pub(super) struct Operations {
    next: u32,
    /// The subscription that it is about.
    pub(super) open: HashMap<u32, u32>,
}

impl Operations {
    /// A number for an operation about a subscription.
    pub(super) fn begin(&mut self, subscription: u32) -> std::result::Result<u32, NoMemory> {
        self.open.try_reserve(1).map_err(|_| NoMemory)?;
        loop {
            self.next = self.next.wrapping_add(1);
            if self.next != 0 && !self.open.contains_key(&self.next) {
                self.open.insert(self.next, subscription);
                return Ok(self.next);
            }
        }
    }
}

/// A subscription as the server is asked for it.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// SUBSCRIBE, whose operation is filled in each time.
    frame: Vec<u8>,
    needs: u64,
}

/// A subscription of the client.
#[derive(Debug)]
pub(super) struct Subscribed {
    wanted: Wanted,
    pub(super) target: Target,
    /// The server's answer to the first SUBSCRIBE.
    answer: Option<Result<()>>,
    /// Somebody waits for that.
    is_awaited: bool,
}

const LACKING: Error = Error::new(&Fault(
    Status::Unsupported,
    "the server cannot do what this subscription asks for",
));

const NO_ANSWER: Error = Error::new(&Fault(
    Status::Timeout,
    "the server did not answer the subscribe within operation_timeout",
));

impl Uplink {
    /// What the server is to be asked for. UNSUPPORTED: what no remote client can.
    pub(crate) fn wanted(
        &self,
        id: u32,
        pattern: &[u8],
        options: &SubscribeOptions<'_>,
    ) -> Result<Wanted> {
        self.check_not_here()?;
        let policy = match options.queue {
            Some(place) => place.lanes().policy(),
            None => options.policy,
        };
        let policy = match policy {
            // An inline handler has no queue that could be full.
            _ if options.delivery == Delivery::Inline => 1,
            Policy::Backpressure => 1,
            Policy::DropOldest => 2,
            Policy::DropNewest => 3,
            Policy::Latest => 4,
        };
        let (mut flags, mut needs) = (0, 0);
        if policy == 4 {
            needs |= capability::LATEST;
        }
        if options.group_mode == GroupMode::KeyShared {
            flags |= flag::KEY_SHARED;
            needs |= capability::KEY_SHARED;
        }
        if options.replay_last {
            flags |= flag::LAST_VALUE;
            needs |= capability::LAST_VALUE;
        }
        let mut frame = Vec::new();
        let draft = ControlDraft::pair(&mut frame, Kind::Subscribe, id, 0);
        let draft = draft.and_then(|draft| {
            let mut draft = draft.flags(flags).bytes(Field::Pattern, pattern)?;
            if !options.group.is_empty() {
                draft = draft.bytes(Field::Group, options.group)?;
            }
            if options.weight > 1 {
                draft = draft.number(Field::Weight, u64::from(options.weight))?;
            }
            draft.number(Field::Policy, policy)
        });
        draft.map_err(no_memory)?;
        Ok(Wanted { frame, needs })
    }

    /// Asks the server for a subscription, and waits for its answer. Deliveries may come before.
    pub(crate) fn subscribe(&self, id: u32, wanted: Wanted, target: Target) -> Result<()> {
        let timeout_ns = self.options.operation_timeout_ns;
        let subscribed = Subscribed {
            wanted,
            target,
            answer: None,
            is_awaited: timeout_ns > 0,
        };
        let mut state = self.state();
        if state.phase == Phase::Over {
            return Err(Error::CLOSED);
        }
        let state_ref = &mut *state;
        state_ref
            .subscriptions
            .try_reserve(1)
            .map_err(|_| Error::NO_MEMORY)?;
        // So that ending it needs no memory.
        let room = state_ref.subscriptions.len() + 1;
        state_ref
            .gone
            .try_reserve(room)
            .map_err(|_| Error::NO_MEMORY)?;
        state_ref.subscriptions.insert(id, subscribed);
        if state_ref.phase == Phase::Online {
            state_ref.ask_for(id)?;
        }
        drop(state);
        self.nudge();
        if timeout_ns == 0 {
            return Ok(());
        }
        let deadline_ns = self.driver.monotonic_ns().saturating_add(timeout_ns);
        loop {
            let seen = self.answered.load(Ordering::SeqCst);
            {
                let mut state = self.state();
                let is_over = state.phase == Phase::Over;
                let last_error = state.last_error.clone();
                let Some(subscribed) = state.subscriptions.get_mut(&id) else {
                    return Err(Error::CLOSED);
                };
                if let Some(answer) = subscribed.answer.take() {
                    subscribed.is_awaited = false;
                    return answer;
                }
                if is_over {
                    return Err(Error::CLOSED);
                }
                if self.driver.monotonic_ns() >= deadline_ns {
                    return Err(last_error.unwrap_or(NO_ANSWER));
                }
            }
            self.wait_answer(seen, deadline_ns);
        }
    }

    /// Ends a subscription at the server.
    pub(crate) fn unsubscribe(&self, id: u32) {
        let mut state = self.state();
        let removed = state.subscriptions.remove(&id);
        if removed.is_none() {
            return;
        }
        state.gone.push(id);
        self.has_gone.store(true, Ordering::Release);
        if state.phase == Phase::Online
            && !state.draining.is_done
            && let Ok(operation) = state.operations.begin(0)
        {
            // Without memory deliveries go on to come, and are dropped.
            let _ = state.control(Kind::Unsubscribe, (id, operation), None);
        }
        drop(state);
        // Its queue or handler may go with it: not under the lock.
        drop(removed);
        self.nudge();
    }

    /// Waits for the first connection, or until all servers were tried in vain.
    pub(super) fn wait_connected(&self, timeout_ns: u64) -> Result<()> {
        let deadline_ns = self.driver.monotonic_ns().saturating_add(timeout_ns);
        loop {
            let seen = self.answered.load(Ordering::SeqCst);
            {
                let state = self.state();
                match state.phase {
                    Phase::Online => return Ok(()),
                    Phase::Over => return Err(state.last_error.clone().unwrap_or(Error::CLOSED)),
                    Phase::Offline => {}
                }
                let is_late = self.driver.monotonic_ns() >= deadline_ns;
                if is_late || state.has_failed {
                    let none = Error::new(&Fault(
                        Status::Timeout,
                        "no server answered within connect_timeout",
                    ));
                    return Err(state.last_error.clone().unwrap_or(none));
                }
            }
            self.wait_answer(seen, deadline_ns);
        }
    }
}

/// What becomes of a subscription that the server has refused.
pub(super) enum Refusal {
    /// Whoever subscribes is told.
    Told,
    /// Nobody waits.
    Untold(u32),
}

impl State {
    /// Asks for a subscription.
    pub(super) fn ask_for(&mut self, id: u32) -> Result<()> {
        let Some(subscribed) = self.subscriptions.get_mut(&id) else {
            return Ok(());
        };
        if self.agreement.capabilities & subscribed.wanted.needs != subscribed.wanted.needs {
            return Err(LACKING);
        }
        let frame = &subscribed.wanted.frame;
        self.out
            .try_reserve(frame.len())
            .map_err(|_| Error::NO_MEMORY)?;
        let operation = self.operations.begin(id).map_err(no_memory)?;
        let at = self.out.len();
        self.out.extend_from_slice(frame);
        self.out[at + 12..at + 16].copy_from_slice(&operation.to_le_bytes());
        Ok(())
    }

    /// The server has answered an operation.
    pub(super) fn answered(&mut self, operation: u32, result: Result<()>) -> Refusal {
        let id = self.operations.open.remove(&operation).unwrap_or(0);
        self.draining.answered(operation);
        let is_refused = result.is_err();
        match self.subscriptions.get_mut(&id) {
            Some(subscribed) if subscribed.is_awaited => {
                subscribed.answer = Some(result);
                Refusal::Told
            }
            Some(_) if is_refused => Refusal::Untold(id),
            _ => Refusal::Told,
        }
    }
}

//! The part of the simulation that keeps last values: publishers that keep and some that do not,
//! and subscribers who come late, forget, read and go.
//!
//! The model knows of each subscription what must come, in order: first what was kept when it
//! subscribed, as it was published, then all that matches. One thread publishes, so it is strict.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fastmq_engine::driver::{Driver, SimulatedDriver};
use fastmq_engine::memory::Policy;
use fastmq_engine::{Broker, Message, Publisher, Status, SubscribeOptions, Subscription};

use super::matches;
use super::steps::*;

const SUBJECTS: [&str; 4] = ["k.0", "k.1", "k.2", "k.1.x"];
const PATTERNS: [&str; 5] = ["k.0", "k.1", "k.*", "k.>", "k.*.x"];
const SUBSCRIPTIONS_MAX: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Value {
    subject: usize,
    number: u64,
    expiry: u64,
}

struct Late {
    handle: Subscription,
    pattern: &'static str,
    is_latest: bool,
    replays: VecDeque<Value>,
    /// In a latest queue one of each subject.
    fresh: VecDeque<Value>,
}

pub(crate) struct Keeping {
    broker: Arc<Broker>,
    driver: Arc<SimulatedDriver>,
    publishers: Vec<Publisher>,
    /// By subject.
    kept: BTreeMap<usize, Value>,
    late: Vec<Late>,
    number: u64,
    pub(crate) replayed: u64,
}

impl Keeping {
    pub(crate) fn new(broker: &Arc<Broker>, driver: &Arc<SimulatedDriver>) -> Self {
        let open = |subject: &&str| Publisher::open(broker, subject.as_bytes()).unwrap();
        Self {
            broker: broker.clone(),
            driver: driver.clone(),
            publishers: SUBJECTS.iter().map(open).collect(),
            kept: BTreeMap::new(),
            late: Vec::new(),
            number: 0,
            replayed: 0,
        }
    }

    pub(crate) fn step(&mut self, dice: &mut Dice) {
        match dice.below(20) {
            0..=9 => self.publish(dice),
            10..=11 => self.subscribe(dice),
            12 => self.unsubscribe(dice),
            13 => self.forget(dice),
            _ => self.receive(dice),
        }
    }

    fn publish(&mut self, dice: &mut Dice) {
        let subject = dice.below(SUBJECTS.len() as u64) as usize;
        let (keep_last, by_handle) = (dice.below(3) > 0, subject < 2);
        let ttl_ns = match dice.below(6) {
            0 => 1 + dice.below(3000),
            _ => 0,
        };
        let size = match dice.below(30) {
            0 => 9000,
            other => 8 + other as usize,
        };
        let mut payload = vec![0; size];
        payload[..8].copy_from_slice(&self.number.to_le_bytes());
        let message = Message {
            payload: &payload,
            ttl_ns,
            keep_last,
            ..Message::default()
        };
        // By one way each, so that the order of a subject is that of one writer.
        let sent = if by_handle {
            self.publishers[subject].publish_message(&message)
        } else {
            let subject = SUBJECTS[subject].as_bytes();
            let message = Message { subject, ..message };
            client(&self.broker, |client| {
                client.writer.publish_message(&message)
            })
        };
        let number = self.number;
        self.number += 1;
        if sent.is_err() {
            assert_eq!(status(&sent), Status::Again, "{sent:?}");
            return;
        }
        let expiry = match ttl_ns {
            0 => u64::MAX,
            _ => self.driver.monotonic_ns() + ttl_ns,
        };
        let value = Value {
            subject,
            number,
            expiry,
        };
        if keep_last {
            self.kept.insert(subject, value);
        }
        for late in &mut self.late {
            if matches(late.pattern, SUBJECTS[subject]) {
                if late.is_latest {
                    late.fresh.retain(|other| other.subject != subject);
                }
                late.fresh.push_back(value);
            }
        }
    }

    fn subscribe(&mut self, dice: &mut Dice) {
        if self.late.len() == SUBSCRIPTIONS_MAX {
            return;
        }
        let pattern = PATTERNS[dice.below(PATTERNS.len() as u64) as usize];
        let is_latest = dice.below(4) == 0;
        let policy = match is_latest {
            true => Policy::Latest,
            false => Policy::Backpressure,
        };
        let options = SubscribeOptions {
            policy,
            replay_last: true,
            ..SubscribeOptions::default()
        };
        let handle = self.broker.subscribe_with(pattern.as_bytes(), options);
        let now = self.driver.monotonic_ns();
        let is_kept = |value: &&Value| matches(pattern, SUBJECTS[value.subject]);
        let mut replays: Vec<_> = self.kept.values().filter(is_kept).copied().collect();
        replays.retain(|value| value.expiry >= now);
        replays.sort_unstable_by_key(|value| value.number);
        self.late.push(Late {
            handle: handle.unwrap(),
            pattern,
            is_latest,
            replays: replays.into(),
            fresh: VecDeque::new(),
        });
    }

    fn unsubscribe(&mut self, dice: &mut Dice) {
        if !self.late.is_empty() {
            let at = dice.below(self.late.len() as u64) as usize;
            self.late.swap_remove(at).handle.unsubscribe();
        }
    }

    fn forget(&mut self, dice: &mut Dice) {
        let subject = dice.below(SUBJECTS.len() as u64) as usize;
        let said = self.broker.forget_last(SUBJECTS[subject].as_bytes());
        let was_kept = self.kept.remove(&subject);
        let now = self.driver.monotonic_ns();
        match was_kept {
            // Whoever subscribed since may have found it expired.
            Some(value) if value.expiry < now => {
                assert!(matches!(status(&said), Status::Ok | Status::NotFound));
            }
            Some(_) => check(said, Status::Ok),
            None => check(said, Status::NotFound),
        }
    }

    fn receive(&mut self, dice: &mut Dice) {
        if self.late.is_empty() {
            return;
        }
        let at = dice.below(self.late.len() as u64) as usize;
        let limit = 1 + dice.below(30) as usize;
        let now = self.driver.monotonic_ns();
        let late = &mut self.late[at];
        let seen: Vec<Seen> = match queue_of(&late.handle).receive(&self.broker, limit, 0) {
            Ok(batch) => batch.messages().iter().map(Seen::of).collect(),
            Err(error) => {
                assert_eq!(error.status(), Status::Again, "{error}");
                Vec::new()
            }
        };
        for one in &seen {
            self.replayed += late.note(one, now);
        }
        if seen.len() < limit && (seen.is_empty() || late.is_latest) {
            let is_due = |value: &&Value| value.expiry >= now;
            assert_eq!(late.replays.iter().find(is_due).map(|one| one.number), None);
            assert_eq!(late.fresh.iter().find(is_due).map(|one| one.number), None);
            late.replays.clear();
            late.fresh.clear();
        }
    }

    pub(crate) fn finish(&mut self) {
        for late in self.late.drain(..) {
            late.handle.unsubscribe();
        }
        self.publishers.clear();
    }
}

impl Late {
    /// A message that came: 1 if it is a replay.
    fn note(&mut self, seen: &Seen, now: u64) -> u64 {
        let number = seen.number();
        while let Some(value) = self.replays.pop_front() {
            if value.number == number {
                assert_eq!(SUBJECTS[value.subject], seen.subject);
                return 1;
            }
            assert!(value.expiry < now, "a last value is missing: {value:?}");
        }
        // Writers are drained in turn: the order is that of each subject.
        let at = self.fresh.iter().position(|value| value.number == number);
        let value = self.fresh[at.expect("a message that nobody sent")];
        assert_eq!(SUBJECTS[value.subject], seen.subject);
        let is_over = |other: &Value| other.subject == value.subject && other.number <= number;
        for other in &self.fresh {
            if is_over(other) && other.number < number {
                assert!(other.expiry < now, "missing: {other:?} before {number}");
            }
        }
        self.fresh.retain(|other| !is_over(other));
        0
    }
}

//! The part of the simulation that listens to who comes and goes.
//!
//! One listener is there from the start and loses nothing: who joined and has not left is who is
//! there. One comes late again and again, and knows the same. One has a small queue that is seldom
//! read: what it got and what it lost is what was told.

use std::collections::BTreeSet;
use std::sync::Arc;

use fastmq_engine::memory::Policy;
use fastmq_engine::presence::{HEADER_SUBSCRIPTION, SUBJECT_JOINED, SUBJECT_LEFT};
use fastmq_engine::{Broker, Place, Status, SubscribeOptions, Subscription, headers};

use super::steps::*;

const POLICIES: [Policy; 3] = [Policy::Backpressure, Policy::DropNewest, Policy::DropOldest];

struct Listener {
    handle: Subscription,
    present: BTreeSet<u32>,
    told: u64,
    lost: u64,
}

pub(crate) struct Listening {
    broker: Arc<Broker>,
    always: Listener,
    late: Option<Listener>,
    small: Listener,
}

impl Listener {
    fn new(broker: &Arc<Broker>, queue: &Arc<Place>, replay_last: bool) -> Self {
        let options = SubscribeOptions {
            queue: Some(queue),
            replay_last,
            ..SubscribeOptions::default()
        };
        Self {
            handle: broker.subscribe_with(b"$SYS.*.>", options).unwrap(),
            present: BTreeSet::new(),
            told: 0,
            lost: 0,
        }
    }

    /// Takes what is there. `is_whole`: nothing is missing.
    fn read(&mut self, broker: &Broker, is_whole: bool) {
        loop {
            let batch = match queue_of(&self.handle).receive(broker, 100, 0) {
                Ok(batch) => batch,
                Err(error) => {
                    assert_eq!(error.status(), Status::Again, "{error}");
                    return;
                }
            };
            for view in batch.messages() {
                let id = headers::get(view.headers(), HEADER_SUBSCRIPTION.as_bytes()).unwrap();
                let id: u32 = std::str::from_utf8(id).unwrap().parse().unwrap();
                self.told += 1;
                self.lost += u64::from(view.lost_before);
                let has_joined = view.subject().starts_with(SUBJECT_JOINED.as_bytes());
                assert!(has_joined || view.subject().starts_with(SUBJECT_LEFT.as_bytes()));
                let is_right = match has_joined {
                    true => self.present.insert(id),
                    false => self.present.remove(&id),
                };
                assert!(is_right || !is_whole, "{id} joined or left twice");
            }
        }
    }
}

impl Listening {
    pub(crate) fn new(broker: &Arc<Broker>, seed: u64) -> Self {
        let policy = POLICIES[seed as usize % POLICIES.len()];
        let (large, small) = (
            queue(broker, Policy::Backpressure, 1 << 20),
            queue(broker, policy, SMALL),
        );
        Self {
            always: Listener::new(broker, &large, false),
            small: Listener::new(broker, &small, false),
            late: None,
            broker: broker.clone(),
        }
    }

    pub(crate) fn step(&mut self, dice: &mut Dice) {
        match dice.below(8) {
            0 => self.listen_late(),
            1 => self.small.read(&self.broker, false),
            _ => self.check_present(),
        }
    }

    fn listen_late(&mut self) {
        if let Some(late) = self.late.take() {
            self.broker.close_queue(queue_of(&late.handle));
            late.handle.unsubscribe();
        }
        let large = queue(&self.broker, Policy::Backpressure, 1 << 20);
        self.late = Some(Listener::new(&self.broker, &large, true));
    }

    fn check_present(&mut self) {
        let mut listeners = 2;
        self.always.read(&self.broker, true);
        if let Some(late) = &mut self.late {
            late.read(&self.broker, true);
            assert_eq!(late.present, self.always.present);
            listeners += 1;
        }
        let present = self.always.present.len() as u64;
        assert_eq!(present + listeners, self.broker.statistics().subscriptions);
    }

    /// True if the subscription is known to be there.
    pub(crate) fn knows(&self, id: u32) -> bool {
        self.always.present.contains(&id)
    }

    /// How many were told.
    pub(crate) fn finish(&mut self) -> u64 {
        self.small.read(&self.broker, false);
        // Tells what was lost before it.
        let last = subscribe(&self.broker, "last");
        self.small.read(&self.broker, false);
        self.check_present();
        assert!(self.knows(last.id()));
        assert_eq!(self.small.told + self.small.lost, self.always.told);
        let counts = (self.small.told, self.small.lost);
        assert_eq!(self.small.handle.counts(), counts);
        last.unsubscribe();
        let late = self.late.take();
        for listener in [&self.always, &self.small].into_iter().chain(&late) {
            self.broker.close_queue(queue_of(&listener.handle));
        }
        self.always.told
    }
}

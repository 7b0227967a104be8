//! The simulated engine: one thread, a virtual clock, and a seed that decides what happens next. A
//! model knows after each step what must be delivered, in which order per writer, what a policy may
//! drop, and which fate each request may have.
//!
//! A failure prints the command that repeats it. The model is strict: what a queue that neither
//! drops nor expires has accepted must come, once, before anything newer of the same writer.

#![forbid(unsafe_code)]
// One thread has no races: nothing to find for the thread sanitizer.
#![cfg(not(fastmq_tsan))]

#[path = "simulation/kept.rs"]
mod kept;
#[path = "simulation/many.rs"]
mod many;
#[path = "simulation/presence.rs"]
mod presence;
mod steps;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use fastmq_engine::driver::{Driver, SimulatedDriver};
use fastmq_engine::memory::view::view_flag;
use fastmq_engine::memory::{Policy, View};
use fastmq_engine::{
    Broker, Delivery, Message, Options, Place, Publisher, QueueOptions, Requester,
    RequesterOptions, Result, Status, Subscription,
};
use steps::*;

const SEEDS: u64 = 1000;
const STEPS: u64 = 3000;
const SUBJECTS: [&str; 7] = ["a", "a.b", "a.c", "a.b.c", "x", "x.y", "x.c"];
const PATTERNS: [&str; 10] = [
    "a", "a.b", "a.*", "a.>", "*.c", "x", "x.*", "*.b.*", "a.b.c", "*",
];
const GROUPS: [&str; 3] = ["", "g", "h"];
/// What requests are sent to; no pattern above matches it.
const QUESTIONS: [&str; 3] = ["q.0.r", "q.1.r", "q.2.r"];
const QUEUES_MAX: usize = 6;
const SUBSCRIPTIONS_MAX: usize = 24;
const CAPACITY: u64 = 16 << 10;

/// The meaning of a pattern, written from the grammar alone.
fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// A message that a queue has accepted and nobody has received.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    subject: &'static str,
    expiry: u64,
    size: usize,
}

struct QueueModel {
    place: Arc<Place>,
    policy: Policy,
    is_open: bool,
    /// By (writer, number, subscription).
    waiting: BTreeMap<(u64, u64, u32), Waiting>,
    /// The newest number received of each writer; in a latest queue, of each of its subjects and
    /// subscriptions.
    newest: HashMap<(u64, String, u32), u64>,
    received: u64,
    lost: u64,
    /// Surely dropped, and dropped or gone for another reason.
    dropped: u64,
    perhaps: u64,
}

struct SubscriptionModel {
    handle: Subscription,
    pattern: &'static str,
    group: &'static str,
    /// Index of its queue; `None`: inline.
    queue: Option<usize>,
    owns_queue: bool,
    /// Its handler runs in `dispatch`.
    is_dispatched: bool,
    received: u64,
}

/// A message to one member of a group: which, only the engine knows until it is received.
struct ForGroup {
    members: HashSet<u32>,
    expiry: u64,
    /// It may stay away: a member has gone, or drops.
    is_excused: bool,
    size: usize,
}

struct Question {
    deadline: u64,
    subject: usize,
    is_cancelled: bool,
    is_answered: bool,
    had_responder: bool,
    responder_changed: bool,
}

struct World {
    dice: Dice,
    driver: Arc<SimulatedDriver>,
    broker: Arc<Broker>,
    queues: Vec<QueueModel>,
    subscriptions: Vec<SubscriptionModel>,
    publishers: Vec<(u64, &'static str, u64, Publisher)>,
    /// Of each publisher, what is written in its open claim.
    claims: Vec<Option<(usize, Vec<u8>)>>,
    groups: BTreeMap<(&'static str, u64), ForGroup>,
    number: u64,
    writers: u64,
    published: u64,
    delivered: u64,
    /// What handlers saw: (queue or subscription, message).
    heard: Arc<Mutex<Vec<Seen>>>,
    asker: Requester,
    questions: HashMap<u64, Question>,
    next_token: u64,
    responders: Vec<Option<Subscription>>,
    /// Requests that responders hold: (token, number of the question).
    held: Vec<(u64, u64)>,
    many: many::Many,
    keeping: kept::Keeping,
    listening: presence::Listening,
}

fn payload(writer: u64, number: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; size.max(16)];
    bytes[..8].copy_from_slice(&writer.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes
}

impl World {
    fn new(seed: u64) -> Self {
        let driver = Arc::new(SimulatedDriver::new(seed));
        let options = Options {
            queue_capacity: CAPACITY,
            ..Options::default()
        };
        let broker = Broker::open(options, driver.clone()).unwrap();
        let asker = RequesterOptions {
            in_flight_max: 40,
            ..RequesterOptions::default()
        };
        Self {
            dice: Dice(seed),
            many: many::Many::new(&broker, &driver),
            keeping: kept::Keeping::new(&broker, &driver),
            listening: presence::Listening::new(&broker, seed),
            asker: Requester::open(&broker, asker).unwrap(),
            driver,
            broker,
            queues: Vec::new(),
            subscriptions: Vec::new(),
            publishers: Vec::new(),
            claims: Vec::new(),
            groups: BTreeMap::new(),
            number: 0,
            writers: 1,
            published: 0,
            delivered: 0,
            heard: Arc::default(),
            questions: HashMap::new(),
            next_token: 1,
            responders: vec![None, None, None],
            held: Vec::new(),
        }
    }

    fn now(&self) -> u64 {
        self.driver.monotonic_ns()
    }

    fn pick(&mut self, count: usize) -> usize {
        self.dice.below(count as u64) as usize
    }

    fn step(&mut self) {
        match self.dice.below(144) {
            0..=29 => self.publish_by_subject(),
            30..=47 => self.publish_by_handle(),
            48..=62 => self.receive(),
            63..=66 => self.subscribe(),
            67..=68 => self.unsubscribe(),
            69 => self.open_queue(),
            70 => self.close_queue(),
            71..=72 => self.open_publisher(),
            73 => self.close_publisher(),
            74..=77 => self.dispatch(),
            78..=80 => {
                let ns = self.dice.below(3000);
                self.driver.advance(ns);
            }
            81..=86 => self.ask(),
            87..=89 => self.respond(),
            90..=93 => self.answer(),
            94..=97 => self.collect(),
            98 => self.change_responder(),
            99 => self.cancel(),
            100..=129 => self.many.step(&mut self.dice),
            130..=139 => self.keeping.step(&mut self.dice),
            _ => self.listening.step(&mut self.dice),
        }
    }

    // Publishing.

    fn publish_by_subject(&mut self) {
        let subject = SUBJECTS[self.pick(SUBJECTS.len())];
        let ttl_ns = if self.dice.below(4) == 0 {
            1 + self.dice.below(5000)
        } else {
            0
        };
        let size = self.some_size();
        let bytes = payload(0, self.number, size);
        let message = Message {
            subject: subject.as_bytes(),
            payload: &bytes,
            ttl_ns,
            ..Message::default()
        };
        let sent = if self.dice.below(2) == 0 && ttl_ns == 0 {
            publish(&self.broker, subject, &bytes)
        } else {
            client(&self.broker, |client| {
                client.writer.publish_message(&message)
            })
        };
        let expiry = if ttl_ns == 0 {
            u64::MAX
        } else {
            self.now() + ttl_ns
        };
        self.note_publish(subject, 0, expiry, bytes.len(), &sent);
    }

    fn some_size(&mut self) -> usize {
        match self.dice.below(60) {
            0 => 9000 + self.pick(20_000),
            1..=5 => 300 + self.pick(500),
            _ => 16 + self.pick(180),
        }
    }

    fn publish_by_handle(&mut self) {
        if self.publishers.is_empty() {
            return;
        }
        let at = self.pick(self.publishers.len());
        if self.claims[at].is_some() || self.dice.below(3) == 0 {
            return self.claim_by_handle(at);
        }
        let count = if self.dice.below(3) == 0 {
            1 + self.pick(20)
        } else {
            1
        };
        let size = self.some_size();
        let (writer, subject) = (self.publishers[at].0, self.publishers[at].1);
        let first = self.number;
        let payloads: Vec<_> = (0..count as u64)
            .map(|n| payload(writer, first + n, size))
            .collect();
        let publisher = &mut self.publishers[at].3;
        let (accepted, result) = match count {
            1 => {
                let sent = publisher.publish(&payloads[0]);
                (usize::from(sent.is_ok()), sent)
            }
            _ => publisher.publish_batch(payloads.iter().map(|one| &one[..])),
        };
        assert_eq!(result.is_ok(), accepted == count);
        for one in &payloads[..accepted] {
            self.publishers[at].2 += 1;
            self.note_publish(subject, writer, u64::MAX, one.len(), &Ok(()));
        }
        if accepted < count {
            self.note_publish(subject, writer, u64::MAX, size.max(16), &result);
        }
        assert!(self.heard.lock().unwrap().is_empty());
    }

    /// Opens a claim, or ends the one that an earlier step has opened.
    fn claim_by_handle(&mut self, at: usize) {
        let (writer, subject) = (self.publishers[at].0, self.publishers[at].1);
        let Some((claimed, bytes)) = self.claims[at].take() else {
            let size = self.some_size();
            let bytes = payload(writer, self.number, size);
            let claimed = bytes.len() + self.pick(100);
            let opened = self.publishers[at].3.claim(claimed).map(|mut claim| {
                assert_eq!(claim.bytes().len(), claimed);
                claim.bytes()[..bytes.len()].copy_from_slice(&bytes);
                // It stays open until a later step ends it.
                std::mem::forget(claim);
            });
            match opened {
                Ok(()) => {
                    self.number += 1;
                    self.claims[at] = Some((claimed, bytes));
                }
                Err(error) => {
                    self.note_publish(subject, writer, u64::MAX, bytes.len(), &Err(error));
                }
            }
            return;
        };
        let publisher = &mut self.publishers[at].3;
        check(publisher.publish(b"claimed"), Status::Misuse);
        if self.dice.below(4) == 0 {
            return publisher.abandon();
        }
        // Its number is that of the commit.
        let number = number_of(&bytes[8..]);
        let sent = publisher.commit(bytes.len());
        let is_sent = sent.is_ok();
        let next = std::mem::replace(&mut self.number, number);
        self.note_publish(subject, writer, u64::MAX, bytes.len(), &sent);
        self.number = next;
        if is_sent {
            self.publishers[at].2 += 1;
        } else {
            self.claims[at] = Some((claimed, bytes));
        }
    }

    fn targets(&self, subject: &str) -> Vec<usize> {
        let is_match = |at: &usize| matches(self.subscriptions[*at].pattern, subject);
        (0..self.subscriptions.len()).filter(is_match).collect()
    }

    /// Enters what a publish must lead to.
    fn note_publish(
        &mut self,
        subject: &'static str,
        writer: u64,
        expiry: u64,
        size: usize,
        sent: &Result<()>,
    ) {
        let number = self.number;
        self.number += 1;
        let targets = self.targets(subject);
        if sent.is_err() {
            assert_eq!(status(sent), Status::Again, "{sent:?}");
            let is_full = targets.iter().any(|at| {
                self.subscriptions[*at].queue.is_some_and(|queue| {
                    let queue = &self.queues[queue];
                    queue.policy == Policy::Backpressure && queue.place.statistics().pending > 0
                })
            });
            assert!(
                is_full,
                "AGAIN, but no queue that could refuse holds anything"
            );
            self.check_heard(number, &[]);
            return;
        }
        self.published += 1;
        let mut inline = Vec::new();
        let mut by_group: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
        for at in targets {
            let subscription = &self.subscriptions[at];
            let id = subscription.handle.id();
            if !subscription.group.is_empty() {
                by_group.entry(subscription.group).or_default().push(at);
                continue;
            }
            match subscription.queue {
                None => inline.push(at),
                Some(queue) => {
                    let waiting = Waiting {
                        subject,
                        expiry,
                        size,
                    };
                    self.queues[queue].accept((writer, number, id), waiting);
                }
            }
        }
        for (group, members) in by_group {
            let drops = |at: &usize| {
                let queue = self.subscriptions[*at].queue;
                queue.is_some_and(|queue| self.queues[queue].policy != Policy::Backpressure)
            };
            let entry = ForGroup {
                is_excused: members.iter().any(drops),
                members: members
                    .iter()
                    .map(|at| self.subscriptions[*at].handle.id())
                    .collect(),
                expiry,
                size,
            };
            self.groups.insert((group, number), entry);
        }
        self.check_heard(number, &inline);
    }

    /// Inline handlers have run when publish returns: those that match, and one of each group at
    /// most.
    fn check_heard(&mut self, number: u64, inline: &[usize]) {
        // A batch has run them for all of its messages, in order.
        let mut heard = std::mem::take(&mut *self.heard.lock().unwrap());
        let is_this = |seen: &Seen| number_of(&seen.payload[8..]) == number;
        let later = heard.split_off(heard.iter().take_while(|seen| is_this(seen)).count());
        *self.heard.lock().unwrap() = later;
        let mut expected: HashSet<u32> = inline
            .iter()
            .map(|at| self.subscriptions[*at].handle.id())
            .collect();
        for seen in heard {
            self.delivered += 1;
            let at = self
                .subscriptions
                .iter()
                .position(|one| one.handle.id() == seen.id)
                .unwrap();
            self.subscriptions[at].received += 1;
            let group = self.subscriptions[at].group;
            if group.is_empty() {
                assert!(
                    expected.remove(&seen.id),
                    "a handler that was not meant, or twice"
                );
            } else {
                let entry = self
                    .groups
                    .remove(&(group, number))
                    .expect("one of a group");
                assert!(entry.members.contains(&seen.id));
            }
        }
        assert!(
            expected.is_empty(),
            "inline handlers that did not run: {expected:?}"
        );
    }

    // Receiving.

    fn receive(&mut self) {
        if self.queues.is_empty() {
            return;
        }
        let at = self.pick(self.queues.len());
        let limit = 1 + self.pick(40);
        self.receive_from(at, limit);
    }

    /// Receives once; false when there was nothing.
    fn receive_from(&mut self, at: usize, limit: usize) -> bool {
        if self.queues[at].place.is_closed() || self.is_handled(at) {
            return false;
        }
        let place = self.queues[at].place.clone();
        let before = self.now();
        let timeout_ns = if self.dice.below(8) == 0 { 1000 } else { 0 };
        match place.receive(&self.broker, limit, timeout_ns) {
            Ok(batch) => {
                assert!((1..=limit).contains(&batch.messages().len()));
                let seen: Vec<Seen> = batch.messages().iter().map(Seen::of).collect();
                let copy = batch.detach().unwrap();
                drop(batch);
                let copied: Vec<Seen> = copy.messages().iter().map(Seen::of).collect();
                assert_eq!(copied, seen);
                seen.iter().for_each(|one| self.note_received(at, one));
                true
            }
            Err(error) => {
                let expected = if timeout_ns == 0 {
                    Status::Again
                } else {
                    Status::Timeout
                };
                assert_eq!(error.status(), expected, "{error}");
                assert_eq!(self.now() - before, timeout_ns);
                self.note_empty(at);
                false
            }
        }
    }

    fn is_handled(&self, at: usize) -> bool {
        self.subscriptions
            .iter()
            .any(|one| one.queue == Some(at) && one.is_dispatched)
    }

    fn note_received(&mut self, at: usize, seen: &Seen) {
        let now = self.now();
        let writer = number_of(&seen.payload);
        let number = number_of(&seen.payload[8..]);
        let subscription = self
            .subscriptions
            .iter_mut()
            .find(|one| one.handle.id() == seen.id)
            .expect("a message of a subscription that is gone");
        assert_eq!(subscription.queue, Some(at));
        assert!(matches(subscription.pattern, &seen.subject));
        subscription.received += 1;
        let group = subscription.group;
        let queue = &mut self.queues[at];
        let size = if group.is_empty() {
            let waiting = queue.waiting.remove(&(writer, number, seen.id));
            let waiting = waiting.expect("never accepted, or received twice");
            assert!(waiting.expiry >= now, "expired");
            waiting.size
        } else {
            let entry = self.groups.remove(&(group, number));
            let entry = entry.expect("never accepted, or a second member got it");
            assert!(entry.members.contains(&seen.id) && entry.expiry >= now);
            entry.size
        };
        assert_eq!(seen.payload, payload(writer, number, size));
        let is_latest = queue.policy == Policy::Latest;
        let key = if is_latest {
            (writer, seen.subject.clone(), seen.id)
        } else {
            (writer, String::new(), 0)
        };
        let newest = queue.newest.entry(key).or_insert(0);
        assert!(
            number >= *newest,
            "writer {writer}: {number} after {newest}"
        );
        *newest = number;
        queue.received += 1;
        queue.lost += seen.lost;
        self.delivered += 1;
        if is_latest {
            return;
        }
        // What the same writer had put there before will not come any more.
        let range = (writer, 0, 0)..(writer, number, 0);
        let skipped: Vec<_> = queue
            .waiting
            .range(range)
            .map(|(key, one)| (*key, *one))
            .collect();
        for (key, waiting) in skipped {
            queue.waiting.remove(&key);
            queue.note_missing(key, waiting, now);
        }
    }

    /// The queue has said that it holds nothing.
    fn note_empty(&mut self, at: usize) {
        let now = self.now();
        let queue = &mut self.queues[at];
        for (key, waiting) in std::mem::take(&mut queue.waiting) {
            queue.note_missing(key, waiting, now);
        }
        let figures = queue.place.statistics();
        assert_eq!(figures.pending, 0);
        assert_eq!(figures.delivered, queue.received);
        let dropped = figures.dropped;
        assert!(
            dropped >= queue.dropped,
            "{dropped} dropped, {} missing",
            queue.dropped
        );
        assert!(queue.lost <= dropped + figures.replaced);
        if matches!(queue.policy, Policy::Backpressure | Policy::Latest) {
            assert_eq!(dropped, 0);
        }
    }

    // Subscriptions, queues and handles come and go.

    fn open_queue(&mut self) {
        let open = self.queues.iter().filter(|queue| queue.is_open).count();
        if open >= QUEUES_MAX {
            return;
        }
        let policies = [
            Policy::Backpressure,
            Policy::DropOldest,
            Policy::DropNewest,
            Policy::Latest,
        ];
        let policy = policies[self.pick(policies.len())];
        let options = QueueOptions {
            policy,
            capacity: CAPACITY << self.dice.below(3),
            wait: None,
        };
        let place = self.broker.open_queue(options).unwrap();
        self.queues.push(QueueModel::new(place, policy));
    }

    fn close_queue(&mut self) {
        let open: Vec<usize> = (0..self.queues.len())
            .filter(|at| self.queues[*at].is_open && !self.is_owned(*at))
            .collect();
        if open.is_empty() {
            return;
        }
        let at = open[self.pick(open.len())];
        let place = self.queues[at].place.clone();
        self.broker.close_queue(&place);
        check(place.receive(&self.broker, 1, 0), Status::End);
        let gone: Vec<usize> = (0..self.subscriptions.len())
            .rev()
            .filter(|one| self.subscriptions[*one].queue == Some(at))
            .collect();
        for one in gone {
            self.forget(one);
        }
        self.queues[at].close();
    }

    fn is_owned(&self, at: usize) -> bool {
        self.subscriptions
            .iter()
            .any(|one| one.queue == Some(at) && one.owns_queue)
    }

    fn subscribe(&mut self) {
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return;
        }
        let pattern = PATTERNS[self.pick(PATTERNS.len())];
        let group = GROUPS[[0, 0, 0, 1, 2][self.pick(5)]];
        let heard = self.heard.clone();
        let hear = move |view: &View| heard.lock().unwrap().push(Seen::of(view));
        let open: Vec<usize> = (0..self.queues.len())
            .filter(|at| self.queues[*at].is_open && !self.is_owned(*at))
            .collect();
        let kind = self.dice.below(8);
        let (delivery, queue) = match kind {
            0 => (Delivery::Inline, None),
            1 => (Delivery::Dispatch, None),
            2 => (Delivery::Queue, None),
            _ if open.is_empty() => return,
            _ => (Delivery::Queue, Some(open[self.pick(open.len())])),
        };
        let is_latest = queue.is_some_and(|at| self.queues[at].policy == Policy::Latest);
        let group = if is_latest { "" } else { group };
        let place = queue.map(|at| self.queues[at].place.clone());
        let on_message: Option<Box<fastmq_engine::subscription::OnMessage>> = match delivery {
            Delivery::Queue => None,
            _ => Some(Box::new(hear)),
        };
        let (pattern_bytes, group_bytes) = (pattern.as_bytes(), group.as_bytes());
        let handle = self
            .broker
            .subscribe(
                pattern_bytes,
                group_bytes,
                delivery,
                place.as_ref(),
                0,
                on_message,
            )
            .unwrap();
        let queue = match (queue, handle.queue()) {
            (Some(at), _) => Some(at),
            (None, Some(place)) => {
                self.queues
                    .push(QueueModel::new(place.clone(), Policy::Backpressure));
                Some(self.queues.len() - 1)
            }
            (None, None) => None,
        };
        // A message on its way to the group may now be a newcomer's; only later ones are.
        self.subscriptions.push(SubscriptionModel {
            owns_queue: handle.owns_queue(),
            is_dispatched: delivery == Delivery::Dispatch,
            handle,
            pattern,
            group,
            queue,
            received: 0,
        });
    }

    fn unsubscribe(&mut self) {
        if self.subscriptions.is_empty() {
            return;
        }
        let at = self.pick(self.subscriptions.len());
        let subscription = &self.subscriptions[at];
        if let Some(queue) = subscription.queue
            && !subscription.owns_queue
        {
            let (_, dropped) = subscription.handle.counts();
            let figures = self.queues[queue].place.statistics();
            assert!(dropped <= figures.dropped);
        }
        assert_eq!(
            subscription.handle.counts().0,
            subscription.received,
            "delivered"
        );
        let (queue, owns_queue) = (subscription.queue, subscription.owns_queue);
        subscription.handle.unsubscribe();
        self.forget(at);
        if let Some(queue) = queue
            && owns_queue
        {
            self.queues[queue].close();
        }
    }

    /// What waits for a subscription that is gone will not come.
    fn forget(&mut self, at: usize) {
        let gone = self.subscriptions.swap_remove(at);
        let id = gone.handle.id();
        if let Some(queue) = gone.queue {
            let queue = &mut self.queues[queue];
            let before = queue.waiting.len();
            queue.waiting.retain(|key, _| key.2 != id);
            queue.perhaps += (before - queue.waiting.len()) as u64;
        }
        for entry in self.groups.values_mut() {
            entry.is_excused |= entry.members.contains(&id);
        }
    }

    fn open_publisher(&mut self) {
        if self.publishers.len() < 6 {
            let subject = SUBJECTS[self.pick(SUBJECTS.len())];
            let publisher = Publisher::open(&self.broker, subject.as_bytes()).unwrap();
            self.publishers.push((self.writers, subject, 0, publisher));
            self.claims.push(None);
            self.writers += 1;
        }
    }

    fn close_publisher(&mut self) {
        if !self.publishers.is_empty() {
            let at = self.pick(self.publishers.len());
            self.publishers.swap_remove(at);
            self.claims.swap_remove(at);
        }
    }

    fn dispatch(&mut self) {
        let budget = if self.dice.below(3) == 0 {
            0
        } else {
            1 + self.dice.below(20) as u32
        };
        let found = self.broker.dispatch(budget, 0).unwrap();
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        assert!(budget == 0 || heard.len() <= budget as usize);
        for seen in heard {
            let owner = self
                .subscriptions
                .iter()
                .find(|one| one.handle.id() == seen.id);
            let queue = owner.expect("a handler that is gone").queue.unwrap();
            self.note_received(queue, &seen);
        }
        let has_more = found & fastmq_engine::dispatch::ready::MORE != 0;
        if budget == 0 {
            assert!(!has_more, "no budget, yet more is left");
        }
        if !has_more {
            for at in 0..self.queues.len() {
                if self.queues[at].is_open && self.is_handled(at) {
                    self.note_empty(at);
                }
            }
        }
    }

    // Requests.

    fn change_responder(&mut self) {
        let at = self.pick(QUESTIONS.len());
        match self.responders[at].take() {
            Some(responder) => {
                responder.unsubscribe();
                for question in self.questions.values_mut() {
                    question.responder_changed |= question.subject == at;
                }
            }
            None => self.responders[at] = Some(subscribe(&self.broker, QUESTIONS[at])),
        }
    }

    fn ask(&mut self) {
        let subject = self.pick(QUESTIONS.len());
        let token = self.next_token;
        let timeout_ns = 1 + self.dice.below(20_000);
        let bytes = token.to_le_bytes();
        let message = Message {
            subject: QUESTIONS[subject].as_bytes(),
            payload: &bytes,
            ..Message::default()
        };
        let sent = match self.dice.below(2) {
            0 => self
                .asker
                .submit_to(message.subject, &bytes, token, timeout_ns),
            _ => self.asker.submit_message(&message, token, timeout_ns),
        };
        if sent.is_err() {
            assert_eq!(status(&sent), Status::Again);
            assert_eq!(
                self.asker.in_flight(),
                40,
                "AGAIN means that the window is full"
            );
            return;
        }
        self.next_token += 1;
        let question = Question {
            // Counted from the next reading of the clock, so never earlier than this.
            deadline: self.now() + timeout_ns,
            subject,
            is_cancelled: false,
            is_answered: false,
            had_responder: self.responders[subject].is_some(),
            responder_changed: false,
        };
        self.questions.insert(token, question);
    }

    fn respond(&mut self) {
        let at = self.pick(QUESTIONS.len());
        let Some(responder) = &self.responders[at] else {
            return;
        };
        let place = queue_of(responder).clone();
        let limit = 1 + self.pick(20);
        if let Ok(batch) = place.receive(&self.broker, limit, 0) {
            for view in batch.messages() {
                assert_eq!(view.flags, view_flag::REQUEST);
                self.held.push((view.token, number_of(view.payload())));
            }
        }
    }

    fn answer(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.pick(self.held.len());
        let (token, number) = self.held[at];
        // Now and then an answer is given again later.
        if self.dice.below(5) != 0 {
            self.held.swap_remove(at);
        }
        let bytes = number.to_le_bytes();
        let sent = client(&self.broker, |client| {
            client.writer.reply(token, 0, &bytes, &[])
        });
        if status(&sent) == Status::Ok {
            if let Some(question) = self.questions.get_mut(&number) {
                question.is_answered = true;
            }
        } else {
            assert_eq!(status(&sent), Status::Again, "{sent:?}");
        }
    }

    fn cancel(&mut self) {
        let mut tokens: Vec<u64> = self.questions.keys().copied().collect();
        tokens.sort_unstable();
        if tokens.is_empty() {
            return;
        }
        let token = tokens[self.pick(tokens.len())];
        match self.asker.cancel(token) {
            Ok(()) => self.questions.get_mut(&token).unwrap().is_cancelled = true,
            // Its fate is known already and only waits to be received.
            Err(error) => assert_eq!(error.status(), Status::NotFound),
        }
    }

    fn collect(&mut self) {
        let limit = 1 + self.pick(50);
        let Ok(batch) = self.asker.receive(limit, 0) else {
            return;
        };
        let seen: Vec<Seen> = batch.messages().iter().map(Seen::of).collect();
        drop(batch);
        for one in seen {
            self.note_answer(&one);
        }
        assert!(self.asker.in_flight() as usize <= self.questions.len());
    }

    fn note_answer(&mut self, seen: &Seen) {
        let now = self.now();
        let question = self
            .questions
            .get(&seen.token)
            .expect("an answer to nothing, or a second");
        match Status::from_number(seen.status).unwrap() {
            Status::Ok => {
                assert!(question.is_answered);
                assert_eq!(seen.number(), seen.token, "the answer to another question");
            }
            Status::NoResponder => assert!(!question.had_responder),
            Status::Busy => assert!(question.had_responder),
            Status::Timeout => assert!(now >= question.deadline, "too early"),
            Status::Cancelled => assert!(question.is_cancelled || question.responder_changed),
            other => panic!("{other:?}"),
        }
        self.questions.remove(&seen.token);
    }

    // The end.

    /// What no message has told yet, the next one of this thread and of a new writer do, when the
    /// writers that may know more have ended.
    fn hear_of_all_losses(&mut self) {
        self.publishers.clear();
        let mut publisher = Publisher::open(&self.broker, b"mark.mark").unwrap();
        for (at, queue) in self.queues.iter_mut().enumerate() {
            let mut mine = self
                .subscriptions
                .iter()
                .filter(|one| one.queue == Some(at));
            if !queue.is_open || mine.any(|one| one.is_dispatched) {
                continue;
            }
            let subscription = subscribe_on(&self.broker, "mark.mark", "", &queue.place, 0);
            publish_number(&self.broker, "mark.mark", 0).unwrap();
            publisher.publish(b"mark.mark").unwrap();
            let marks = take_all(&self.broker, &queue.place);
            if queue.policy == Policy::Latest {
                assert_eq!((marks.len(), marks[0].lost), (1, 1));
                subscription.unsubscribe();
                continue;
            }
            assert_eq!(marks.len(), 2);
            queue.lost += marks.iter().map(|mark| mark.lost).sum::<u64>();
            assert_eq!(queue.lost, queue.place.statistics().dropped);
            subscription.unsubscribe();
        }
    }

    /// How many comings and goings were told.
    fn finish(mut self) -> u64 {
        // Time-outs run from the first reading of the clock after the submit, and a receive that
        // finds something need not read it.
        for _ in 0..200 {
            self.collect();
            self.driver.advance(100_000);
        }
        self.many.finish();
        self.keeping.finish();
        let told = self.listening.finish();
        let mut there = self.subscriptions.iter().map(|one| one.handle.id());
        assert!(there.all(|id| self.listening.knows(id)));
        assert!(self.questions.is_empty(), "each question ends");
        check(self.asker.receive(1, 0), Status::Again);
        assert_eq!(self.asker.in_flight(), 0);
        for responder in self.responders.iter().flatten() {
            take_all(&self.broker, queue_of(responder));
        }
        let is_dry = self.dice.below(2) == 0;
        if is_dry {
            while self.broker.dispatch(0, 0).unwrap() & fastmq_engine::dispatch::ready::MORE != 0 {}
            let heard = std::mem::take(&mut *self.heard.lock().unwrap());
            for seen in heard {
                let owner = self
                    .subscriptions
                    .iter()
                    .find(|one| one.handle.id() == seen.id);
                let queue = owner.unwrap().queue.unwrap();
                self.note_received(queue, &seen);
            }
            for at in 0..self.queues.len() {
                while self.queues[at].is_open && self.receive_from(at, 4096) {}
            }
            let now = self.now();
            for ((group, number), entry) in &self.groups {
                let is_excused = entry.is_excused || entry.expiry < now;
                assert!(is_excused, "group {group} has lost message {number}");
            }
            if self.dice.below(2) == 0 {
                self.hear_of_all_losses();
            }
            check(self.broker.drain(0), Status::Ok);
        }
        for (writer, _, sequence, publisher) in &mut self.publishers {
            publisher.abandon();
            let sent = publisher.publish(b"late");
            let expected = if is_dry { Status::Closed } else { Status::Ok };
            let is_full = status(&sent) == Status::Again && !is_dry;
            assert!(
                status(&sent) == expected || is_full,
                "{writer} {sequence} {sent:?}"
            );
        }
        assert!(self.broker.statistics().published >= self.published);
        self.broker.close();
        self.publishers.clear();
        for queue in &self.queues {
            check(queue.place.receive(&self.broker, 1, 0), Status::End);
        }
        let figures = self.broker.statistics();
        assert_eq!((figures.subscriptions, figures.threads), (0, 0));
        told
    }
}

impl QueueModel {
    fn new(place: Arc<Place>, policy: Policy) -> Self {
        Self {
            place,
            policy,
            is_open: true,
            waiting: BTreeMap::new(),
            newest: HashMap::new(),
            received: 0,
            lost: 0,
            dropped: 0,
            perhaps: 0,
        }
    }

    fn close(&mut self) {
        self.is_open = false;
        self.waiting.clear();
    }

    /// A message that must come, unless the queue keeps only newer ones.
    fn accept(&mut self, key: (u64, u64, u32), waiting: Waiting) {
        if self.policy == Policy::Latest {
            let is_other = |other: &(u64, u64, u32), one: &mut Waiting| {
                other.2 != key.2 || one.subject != waiting.subject
            };
            self.waiting.retain(is_other);
        }
        self.waiting.insert(key, waiting);
    }

    /// A message that will not come: its time is over, or the policy has dropped it.
    fn note_missing(&mut self, key: (u64, u64, u32), waiting: Waiting, now: u64) {
        if waiting.expiry < now {
            self.perhaps += 1;
            return;
        }
        assert!(
            matches!(self.policy, Policy::DropOldest | Policy::DropNewest),
            "lost: {key:?} {waiting:?}"
        );
        self.dropped += 1;
    }
}

/// Says how to repeat a run that fails.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "repeat with: FASTMQ_SEED={} cargo test -p fastmq-engine --test simulation",
                self.0
            );
        }
    }
}

fn run(seed: u64) -> (u64, u64, u64, u64) {
    let _repeat = Repeat(seed);
    let mut world = World::new(seed);
    for _ in 0..3 {
        world.open_queue();
        world.open_publisher();
        world.subscribe();
    }
    for _ in 0..STEPS {
        world.step();
    }
    let counts = (world.delivered, world.many.received, world.keeping.replayed);
    let told = world.finish();
    (counts.0, counts.1, counts.2, told)
}

#[test]
fn whatever_the_seed_decides_every_promise_is_kept() {
    let seed = std::env::var("FASTMQ_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(seed) = seed {
        run(seed);
        return;
    }
    let (mut delivered, mut received, mut replayed, mut told) = (0, 0, 0, 0);
    for (messages, answers, values, events) in (0..SEEDS).map(run) {
        delivered += messages;
        received += answers;
        replayed += values;
        told += events;
    }
    assert!(
        delivered > SEEDS * 1000,
        "only {delivered} messages were delivered"
    );
    assert!(
        received > SEEDS * 100,
        "only {received} of many answers were received"
    );
    assert!(replayed > SEEDS * 5, "only {replayed} last values came");
    assert!(told > SEEDS * 100, "only {told} came and went");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [11, 12] {
        assert_eq!(run(seed), run(seed));
    }
}

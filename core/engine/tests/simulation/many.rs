//! The part of the simulation that asks many: requests with several answers, and reply streams.
//!
//! The model knows who got each request, what each of them has sent, and what may end it. It is
//! strict: replies come in order and once, an end comes after all that was sent before it, each
//! request has exactly one END, and a stream without credit is one whose asker has to receive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use fastmq_engine::driver::{Driver, SimulatedDriver};
use fastmq_engine::memory::View;
use fastmq_engine::memory::view::view_flag::{END, MORE, REQUEST};
use fastmq_engine::{
    ANSWERS_ALL, Broker, Delivery, ManyOptions, Message, ReplyStream, Requester, RequesterOptions,
    Status, Subscription,
};

use super::steps::*;

const SUBJECTS: [&str; 2] = ["m.0.m", "m.1.m"];
const RESPONDERS_MAX: usize = 8;
const IN_FLIGHT_MAX: u32 = 12;
/// In place of a reply's number: this is the whole answer.
const WHOLE: u64 = u64::MAX;

/// What one responder has of a request.
#[derive(Debug, Default)]
struct Leg {
    /// Its whole answer was given, and was received.
    is_answered: bool,
    is_seen: bool,
    /// Replies of its stream, and those that were received.
    sent: u64,
    received: u64,
    /// How its stream has ended.
    end: Option<Status>,
}

#[derive(Debug)]
struct Asked {
    options: ManyOptions,
    granted: u64,
    deadline: u64,
    last_word: u64,
    is_cancelled: bool,
    /// Some that got it, or could have, have gone.
    has_lost: bool,
    /// By subscription. Of a group one member gets it, which the model learns from its request.
    legs: BTreeMap<u32, Leg>,
    responders: BTreeSet<u32>,
    answers: u32,
}

struct Held {
    token: u64,
    asked: u64,
    id: u32,
}

struct Open {
    stream: ReplyStream,
    asked: u64,
    id: u32,
}

#[derive(Default)]
struct Heard {
    held: Vec<Held>,
    open: Vec<Open>,
}

struct Responder {
    subject: usize,
    handle: Subscription,
    is_inline: bool,
}

pub(crate) struct Many {
    broker: Arc<Broker>,
    driver: Arc<SimulatedDriver>,
    asker: Requester,
    responders: Vec<Responder>,
    asked: BTreeMap<u64, Asked>,
    held: Vec<Held>,
    open: Vec<Open>,
    /// From inline responders.
    heard: Arc<Mutex<Heard>>,
    next_token: u64,
    pub(crate) received: u64,
}

fn payload(asked: u64, number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&asked.to_le_bytes());
    bytes[8..].copy_from_slice(&number.to_le_bytes());
    bytes
}

impl Many {
    pub(crate) fn new(broker: &Arc<Broker>, driver: &Arc<SimulatedDriver>) -> Self {
        let options = RequesterOptions {
            in_flight_max: IN_FLIGHT_MAX,
            ..RequesterOptions::default()
        };
        Self {
            broker: broker.clone(),
            driver: driver.clone(),
            asker: Requester::open(broker, options).unwrap(),
            responders: Vec::new(),
            asked: BTreeMap::new(),
            held: Vec::new(),
            open: Vec::new(),
            heard: Arc::default(),
            next_token: 1,
            received: 0,
        }
    }

    pub(crate) fn step(&mut self, dice: &mut Dice) {
        match dice.below(100) {
            0..=19 => self.ask(dice),
            20..=34 => self.respond(dice),
            35..=44 => self.answer(dice),
            45..=69 => self.send(dice),
            70..=76 => self.end(dice),
            77..=92 => self.collect(1 + dice.below(20) as usize),
            93..=94 => self.grant(dice),
            95..=96 => self.cancel(dice),
            97 => self.leave(dice),
            _ => self.join(dice),
        }
    }

    fn now(&self) -> u64 {
        self.driver.monotonic_ns()
    }

    // Who answers.

    fn join(&mut self, dice: &mut Dice) {
        if self.responders.len() >= RESPONDERS_MAX {
            return;
        }
        let subject = dice.below(2) as usize;
        let (pattern, group) = (SUBJECTS[subject], ["", "", "g"][dice.below(3) as usize]);
        let is_inline = dice.below(4) == 0;
        let (heard, there) = (self.heard.clone(), Arc::downgrade(&self.broker));
        let hear = move |view: &View| {
            let (broker, mut heard) = (there.upgrade().unwrap(), heard.lock().unwrap());
            let (asked, id) = (number_of(view.payload()), view.subscription_id);
            // Every other time it streams at once.
            match ReplyStream::open(&broker, view.token) {
                Ok(mut stream) if asked.is_multiple_of(2) => {
                    stream.send(&payload(asked, 0), &[]).unwrap();
                    heard.open.push(Open { stream, asked, id });
                }
                Ok(stream) => heard.open.push(Open { stream, asked, id }),
                Err(error) => {
                    assert_eq!(error.status(), Status::Unsupported);
                    let token = view.token;
                    heard.held.push(Held { token, asked, id });
                }
            }
        };
        let on_message: Option<Box<fastmq_engine::subscription::OnMessage>> =
            is_inline.then(|| Box::new(hear) as _);
        let delivery = if is_inline {
            Delivery::Inline
        } else {
            Delivery::Queue
        };
        let (pattern, group) = (pattern.as_bytes(), group.as_bytes());
        let handle = self
            .broker
            .subscribe(pattern, group, delivery, None, 0, on_message)
            .unwrap();
        self.responders.push(Responder {
            subject,
            handle,
            is_inline,
        });
    }

    fn leave(&mut self, dice: &mut Dice) {
        if self.responders.is_empty() {
            return;
        }
        let at = dice.below(self.responders.len() as u64) as usize;
        let gone = self.responders.swap_remove(at);
        gone.handle.unsubscribe();
        let id = gone.handle.id();
        for asked in self.asked.values_mut() {
            asked.has_lost |= asked.responders.contains(&id);
        }
        for open in self.open.iter().filter(|open| open.id == id) {
            if let Some(asked) = self.asked.get_mut(&open.asked) {
                let leg = asked.legs.get_mut(&id).unwrap();
                leg.end.get_or_insert(Status::Cancelled);
            }
        }
    }

    // The asker.

    fn ask(&mut self, dice: &mut Dice) {
        let subject = dice.below(2) as usize;
        let options = ManyOptions {
            answers_max: [0, 1, 2, 3, 100, ANSWERS_ALL][dice.below(6) as usize],
            credit: [0, 1, 2, 5, 16][dice.below(5) as usize],
            is_manual: dice.below(4) == 0,
            gap_ns: [0, 0, 1 + dice.below(5000)][dice.below(3) as usize],
        };
        let token = self.next_token;
        let timeout_ns = [1 + dice.below(20_000), FOREVER][dice.below(2) as usize];
        let now = self.now();
        let bytes = token.to_le_bytes();
        let message = Message {
            subject: SUBJECTS[subject].as_bytes(),
            payload: &bytes,
            ..Message::default()
        };
        let sent = self
            .asker
            .submit_many(&message, token, timeout_ns, &options);
        if sent.is_err() {
            assert_eq!(status(&sent), Status::Again, "{sent:?}");
            assert_eq!(self.asker.in_flight(), IN_FLIGHT_MAX);
            return;
        }
        self.next_token += 1;
        let is_its = |one: &&Responder| one.subject == subject;
        let mut asked = Asked {
            granted: u64::from(options.credit),
            options,
            deadline: now.saturating_add(timeout_ns),
            last_word: now,
            is_cancelled: false,
            has_lost: false,
            legs: BTreeMap::new(),
            responders: self
                .responders
                .iter()
                .filter(is_its)
                .map(|one| one.handle.id())
                .collect(),
            answers: 0,
        };
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        for held in &heard.held {
            asked.legs.entry(held.id).or_default();
        }
        for open in &heard.open {
            let leg = asked.legs.entry(open.id).or_default();
            leg.sent = u64::from(token.is_multiple_of(2));
        }
        self.held.extend(heard.held);
        self.open.extend(heard.open);
        self.asked.insert(token, asked);
    }

    fn some_asked(&self, dice: &mut Dice) -> Option<u64> {
        let count = self.asked.len() as u64;
        let at = dice.below(count.max(1)) as usize;
        self.asked.keys().nth(at).copied()
    }

    fn cancel(&mut self, dice: &mut Dice) {
        let Some(token) = self.some_asked(dice) else {
            return;
        };
        match self.asker.cancel(token) {
            Ok(()) => self.asked.get_mut(&token).unwrap().is_cancelled = true,
            // Its end is known already and only waits to be received.
            Err(error) => assert_eq!(error.status(), Status::NotFound),
        }
    }

    fn grant(&mut self, dice: &mut Dice) {
        let Some(token) = self.some_asked(dice) else {
            return;
        };
        let replies = 1 + dice.below(5) as u32;
        let asked = self.asked.get_mut(&token).unwrap();
        match self.asker.grant(token, replies) {
            Ok(()) => asked.granted += u64::from(replies),
            Err(error) if error.status() == Status::Invalid => {
                assert_eq!(asked.options.credit, 0);
            }
            Err(error) => assert_eq!(error.status(), Status::NotFound),
        }
    }

    fn collect(&mut self, limit: usize) {
        let Ok(batch) = self.asker.receive(limit, 0) else {
            return;
        };
        assert!((1..=limit).contains(&batch.messages().len()));
        let seen: Vec<Seen> = batch.messages().iter().map(Seen::of).collect();
        drop(batch);
        for one in &seen {
            self.note(one);
        }
        assert_eq!(self.asker.in_flight() as usize, self.asked.len());
    }

    fn note(&mut self, seen: &Seen) {
        self.received += 1;
        let now = self.now();
        let asked = self.asked.get_mut(&seen.token);
        let asked = asked.expect("a message for a request that has ended, or never was");
        let is_last = seen.flags == END;
        assert!(is_last || seen.flags == MORE, "{seen:?}");
        let said = Status::from_number(seen.status).unwrap();
        if seen.id == 0 {
            assert!(is_last, "the engine speaks once");
            match said {
                Status::NoResponder => assert!(asked.responders.is_empty()),
                Status::Timeout => {
                    let gap = match asked.options.gap_ns {
                        0 => u64::MAX,
                        gap => asked.last_word + gap,
                    };
                    assert!(now >= asked.deadline.min(gap), "too early: {asked:?}");
                }
                Status::Cancelled => assert!(asked.is_cancelled || asked.has_lost),
                Status::End => assert!(asked.has_lost && asked.answers > 0, "{asked:?}"),
                other => panic!("{other:?}"),
            }
            self.asked.remove(&seen.token);
            return;
        }
        asked.last_word = now;
        let leg = asked.legs.get_mut(&seen.id);
        let leg = leg.expect("an answer of somebody who has not got the request");
        if said == Status::Ok {
            assert_eq!(number_of(&seen.payload), seen.token, "another's answer");
            match number_of(&seen.payload[8..]) {
                WHOLE => {
                    assert!(leg.is_answered && !leg.is_seen, "twice");
                    leg.is_seen = true;
                    asked.answers += 1;
                }
                number => {
                    assert_eq!(number, leg.received, "out of order, lost or twice");
                    assert!(number < leg.sent && !is_last);
                    leg.received += 1;
                    return;
                }
            }
        } else {
            assert_eq!(leg.end, Some(said));
            assert_eq!(leg.received, leg.sent, "an end before what was sent");
            assert!(!std::mem::replace(&mut leg.is_seen, true), "twice");
            asked.answers += u32::from(said != Status::Cancelled);
        }
        let wanted = asked.options.answers_max.max(1);
        assert!(asked.answers <= wanted);
        if wanted == asked.answers {
            assert!(is_last, "as many as were wanted");
        } else if is_last {
            // Who else has it has gone, or ended.
            let waits = |leg: &Leg| !leg.is_seen && leg.end != Some(Status::Cancelled);
            let waiting = asked.legs.values().filter(|leg| waits(leg)).count();
            assert!(waiting == 0 || asked.has_lost, "{asked:?}");
        }
        if is_last {
            self.asked.remove(&seen.token);
        }
    }

    // The responders.

    fn respond(&mut self, dice: &mut Dice) {
        if self.responders.is_empty() {
            return;
        }
        let responder = &self.responders[dice.below(self.responders.len() as u64) as usize];
        if responder.is_inline {
            return;
        }
        let id = responder.handle.id();
        let limit = 1 + dice.below(5) as usize;
        let place = queue_of(&responder.handle);
        if let Ok(batch) = place.receive(&self.broker, limit, 0) {
            for view in batch.messages() {
                assert_eq!(view.flags, REQUEST);
                let (token, asked) = (view.token, number_of(view.payload()));
                if let Some(asked) = self.asked.get_mut(&asked) {
                    let before = asked.legs.insert(id, Leg::default());
                    assert!(before.is_none(), "the same request twice");
                }
                self.held.push(Held { token, asked, id });
            }
        }
    }

    fn is_there(&self, id: u32) -> bool {
        self.responders.iter().any(|one| one.handle.id() == id)
    }

    /// True if a request may have ended although nobody has received that.
    fn may_be_over(&self, asked: &Asked) -> bool {
        let gap = match asked.options.gap_ns {
            0 => u64::MAX,
            gap => asked.last_word.saturating_add(gap),
        };
        asked.is_cancelled || self.now() >= asked.deadline.min(gap)
    }

    fn answer(&mut self, dice: &mut Dice) {
        if self.held.is_empty() {
            return;
        }
        let at = dice.below(self.held.len() as u64) as usize;
        let Held { token, asked, id } = self.held[at];
        if dice.below(2) == 0 {
            self.open_stream(at);
            return;
        }
        // Now and then the answer is given again later.
        if dice.below(5) != 0 {
            self.held.swap_remove(at);
        }
        let bytes = payload(asked, WHOLE);
        let sent = client(&self.broker, |client| {
            client.writer.reply(token, 0, &bytes, &[])
        });
        check(sent, Status::Ok);
        if let Some(asked) = self.asked.get_mut(&asked) {
            asked.legs.get_mut(&id).unwrap().is_answered = true;
        }
    }

    fn open_stream(&mut self, at: usize) {
        let Held { token, asked, id } = self.held[at];
        let opened = ReplyStream::open(&self.broker, token);
        let known = self.asked.get(&asked);
        match opened {
            Ok(stream) => {
                let known = known.expect("its request waits");
                assert!(known.options.credit > 0 && self.is_there(id));
                assert_eq!(stream.credit(), Ok(known.granted));
                self.held.swap_remove(at);
                self.open.push(Open { stream, asked, id });
            }
            Err(error) => match error.status() {
                Status::Unsupported => {
                    assert!(known.is_none_or(|one| one.options.credit == 0));
                }
                Status::Cancelled => assert!(!self.is_there(id)),
                Status::NotFound => {
                    let is_over =
                        known.is_none_or(|one| self.may_be_over(one) || one.legs[&id].is_answered);
                    assert!(is_over, "{known:?}");
                }
                other => panic!("{other:?}"),
            },
        }
    }

    /// A stream says CANCELLED: that has a reason.
    fn check_cancelled(&self, asked: u64, id: u32) {
        if let Some(asked) = self.asked.get(&asked) {
            // The whole answer ends a stream that was opened beside it.
            let has_left = !self.is_there(id) || asked.legs[&id].is_answered;
            assert!(has_left || self.may_be_over(asked), "{asked:?}");
        }
    }

    fn send(&mut self, dice: &mut Dice) {
        if self.open.is_empty() {
            return;
        }
        let at = dice.below(self.open.len() as u64) as usize;
        for _ in 0..1 + dice.below(6) {
            let open = &mut self.open[at];
            let known = self.asked.get_mut(&open.asked);
            let number = known.as_ref().map_or(0, |asked| asked.legs[&open.id].sent);
            let sent = open.stream.send(&payload(open.asked, number), &[]);
            match status(&sent) {
                Status::Ok => {
                    let asked = known.expect("its request waits");
                    let leg = asked.legs.get_mut(&open.id).unwrap();
                    leg.sent += 1;
                    let ahead = leg.sent - leg.received;
                    if asked.options.is_manual {
                        assert!(leg.sent <= asked.granted);
                    } else {
                        assert!(ahead <= asked.granted, "ahead of its credit");
                    }
                }
                Status::Again => {
                    let asked = known.expect("a stream of nobody");
                    let leg = &asked.legs[&open.id];
                    if asked.options.is_manual {
                        assert_eq!(leg.sent, asked.granted);
                    } else {
                        assert!(leg.sent > leg.received, "it would wait for ever");
                    }
                    assert_eq!(open.stream.credit(), Ok(0));
                    return;
                }
                Status::Cancelled => {
                    let (asked, id) = (open.asked, open.id);
                    self.check_cancelled(asked, id);
                    self.open.swap_remove(at);
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn end(&mut self, dice: &mut Dice) {
        if self.open.is_empty() {
            return;
        }
        let at = dice.below(self.open.len() as u64) as usize;
        let Open {
            mut stream,
            asked,
            id,
        } = self.open.swap_remove(at);
        let how = [Status::Ok, Status::Ok, Status::Io, Status::Cancelled][dice.below(4) as usize];
        if how == Status::Cancelled {
            // Without a word.
            drop(stream);
        } else {
            let ended = stream.end(how);
            if ended.is_err() {
                check(ended, Status::Cancelled);
                self.check_cancelled(asked, id);
                return;
            }
        }
        if let Some(asked) = self.asked.get_mut(&asked) {
            let how = if how == Status::Ok { Status::End } else { how };
            asked.legs.get_mut(&id).unwrap().end.get_or_insert(how);
        }
    }

    // The end.

    pub(crate) fn finish(&mut self) {
        let open = std::mem::take(&mut self.open);
        for mut one in open {
            if one.stream.end(Status::Ok).is_ok()
                && let Some(asked) = self.asked.get_mut(&one.asked)
            {
                asked.legs.get_mut(&one.id).unwrap().end = Some(Status::End);
            }
        }
        while !self.responders.is_empty() {
            self.leave(&mut Dice(0));
        }
        // What a responder has taken and not answered ends by its time, or by its asker.
        for _ in 0..200 {
            self.collect(7);
            self.driver.advance(1000);
        }
        let left: Vec<u64> = self.asked.keys().copied().collect();
        for token in left {
            let is_silent = |leg: &Leg| !leg.is_answered && leg.end.is_none();
            let asked = &self.asked[&token];
            assert!(asked.legs.values().any(is_silent), "{asked:?}");
            self.asker.cancel(token).unwrap();
            self.asked.get_mut(&token).unwrap().is_cancelled = true;
        }
        for _ in 0..IN_FLIGHT_MAX {
            self.collect(1);
        }
        assert!(self.asked.is_empty(), "each request ends");
        check(self.asker.receive(1, 0), Status::Again);
        assert_eq!(self.asker.in_flight(), 0);
    }
}

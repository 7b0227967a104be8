//! Connections that ask for several answers, and that answer by streams.

use std::sync::Arc;

use fastmq_engine::driver::SimulatedDriver;
use fastmq_engine::server::{Parts, ServerOptions, Session, SessionKey};
use fastmq_engine::{Broker, Status};
use fastmq_wire::handshake::capability;
use fastmq_wire::message::Many;
use fastmq_wire::{ControlDraft, Draft, Field, Kind, Limits, Reason, State, Subject};

use crate::peer::{Heard, Peer};
use crate::steps::*;

/// Connections of one shard, without sockets.
struct World {
    broker: Arc<Broker>,
    driver: Arc<SimulatedDriver>,
    parts: Parts,
    ends: Vec<(Session, Peer)>,
}

impl World {
    fn new(connections: u64) -> Self {
        let (broker, driver) = open_simulated(5);
        let parts = Parts::new(&broker, ServerOptions::default()).unwrap();
        let mut world = Self {
            broker,
            driver,
            parts,
            ends: Vec::new(),
        };
        for serial in 0..connections {
            let key = SessionKey {
                index: serial as u32,
                serial,
            };
            let mut peer = Peer::with(Limits {
                credit: 1 << 30,
                ..Limits::default()
            });
            peer.hello_with(b"", capability::ALL);
            world.ends.push((Session::new(&world.parts, key), peer));
        }
        world.pass();
        world
            .ends
            .iter_mut()
            .for_each(|(_, peer)| peer.heard.clear());
        world
    }

    fn peer(&mut self, at: usize) -> &mut Peer {
        &mut self.ends[at].1
    }

    /// Lets what one has to say arrive.
    fn say(&mut self, at: usize) {
        let (session, peer) = &mut self.ends[at];
        session.on_bytes(&mut self.parts, &std::mem::take(&mut peer.out));
    }

    /// Lets one hear what there is for it.
    fn hear(&mut self, at: usize) {
        let (session, peer) = &mut self.ends[at];
        session.look_everywhere();
        loop {
            let is_more = session.pull(&mut self.parts);
            let bytes = std::mem::take(session.outgoing());
            session.taken();
            peer.hear(&bytes);
            if !is_more && bytes.is_empty() {
                return;
            }
        }
    }

    /// Everything arrives, and a millisecond goes by.
    fn pass(&mut self) {
        for _ in 0..3 {
            for at in 0..self.ends.len() {
                self.say(at);
                self.hear(at);
            }
        }
        self.driver.advance(MILLISECOND);
        let now_ns = self.parts.read_clock();
        for (session, _) in &mut self.ends {
            if session.deadline_ns() <= now_ns {
                session.on_time(&mut self.parts);
            }
        }
    }

    fn ask(&mut self, at: usize, correlation: u32, subject: &str, many: Many) {
        let mut draft = Draft::request(correlation, Subject::Text(subject.as_bytes()), b"?");
        draft.many = Some(many);
        self.peer(at).say(&draft);
    }

    /// What a responder was asked: its token and credit.
    fn asked(&mut self, at: usize) -> (u64, u32) {
        let question = self.peer(at).question();
        (question.token, question.credit)
    }

    fn stream(&mut self, at: usize, token: u64, payload: &[u8]) {
        let mut draft = Draft::reply(token, 0, payload);
        draft.is_more = true;
        self.peer(at).say(&draft);
    }

    fn end(&mut self, at: usize, token: u64, status: Status) {
        self.peer(at).say(&Draft::reply(token, status as u8, b""));
    }

    /// Replies that one has got: payload, status and MORE.
    fn replies(&mut self, at: usize) -> Vec<(Vec<u8>, u8, bool)> {
        let heard = std::mem::take(&mut self.peer(at).heard);
        let replies = heard.into_iter().map(|heard| match heard {
            Heard::Reply {
                status, payload, ..
            } => (payload, status, false),
            Heard::OneOfMany {
                status,
                payload,
                is_more,
                ..
            } => (payload, status, is_more),
            other => panic!("{other:?} in place of a reply"),
        });
        replies.collect()
    }
}

const ALL: u32 = u32::MAX;

fn many(answers: u32, credit: u32) -> Many {
    Many { answers, credit }
}

#[test]
fn as_many_answer_as_are_wanted_and_each_once() {
    let mut world = World::new(4);
    for at in 1..4 {
        world.peer(at).subscribe(at as u32, 1, "who");
    }
    world.pass();
    for at in 1..4 {
        assert_eq!(world.peer(at).heard.pop_front(), Some(Heard::Ack(1)));
    }
    for (wanted, count) in [(0, 1), (1, 1), (2, 2), (ALL, 3)] {
        world.ask(0, 9, "who", many(wanted, 0));
        world.pass();
        for at in 1..4 {
            let (token, credit) = world.asked(at);
            assert_eq!(credit, 0);
            world.peer(at).reply(token, &[at as u8]);
            world.peer(at).reply(token, b"again");
        }
        world.pass();
        let replies = world.replies(0);
        let expected: Vec<_> = (1..=count)
            .map(|at| (vec![at as u8], 0, at < count))
            .collect();
        assert_eq!(replies, expected);
    }
    world.ask(0, 9, "nobody", many(2, 0));
    world.pass();
    let fate = Status::NoResponder as u8;
    assert_eq!(world.replies(0), [(Vec::new(), fate, false)]);
}

#[test]
fn credit_travels_to_the_responder_and_replies_back() {
    let mut world = World::new(2);
    world.peer(1).subscribe(1, 1, "count");
    world.pass();
    world.peer(1).heard.clear();
    world.ask(0, 9, "count", many(1, 2));
    world.pass();
    let (token, credit) = world.asked(1);
    assert_eq!(credit, 2);
    // Granted before the stream has begun: told when it does.
    let grant = |world: &mut World, replies: u64| {
        let draft = world.peer(0).pair(Kind::Grant, 9, 0);
        draft.number(Field::Replies, replies).unwrap();
    };
    grant(&mut world, 3);
    world.pass();
    assert_eq!(world.peer(1).heard.pop_front(), None);
    world.stream(1, token, b"1");
    world.pass();
    assert_eq!(
        world.peer(1).heard.pop_front(),
        Some(Heard::Grant(token, 3))
    );
    assert_eq!(world.replies(0), [(b"1".to_vec(), 0, true)]);
    (2..=5).for_each(|number| world.stream(1, token, &[number]));
    world.pass();
    assert_eq!(world.replies(0).len(), 4);
    assert_eq!(
        world.peer(1).heard.pop_front(),
        None,
        "only the asker grants"
    );
    grant(&mut world, 1);
    world.pass();
    assert_eq!(
        world.peer(1).heard.pop_front(),
        Some(Heard::Grant(token, 1))
    );
    world.stream(1, token, b"6");
    world.end(1, token, Status::End);
    world.end(1, token, Status::End);
    world.pass();
    let end = (Vec::new(), Status::End as u8, false);
    assert_eq!(world.replies(0), [(b"6".to_vec(), 0, true), end]);
    // What is over is ignored.
    grant(&mut world, 1);
    world.pass();
    assert!(world.peer(1).heard.is_empty() && world.peer(0).heard.is_empty());
}

#[test]
fn a_reply_beyond_its_credit_ends_the_stream_for_both() {
    let mut world = World::new(2);
    world.peer(1).subscribe(1, 1, "count");
    world.pass();
    world.peer(1).heard.clear();
    for credit in [0, 2] {
        world.ask(0, 9, "count", many(1, credit));
        world.pass();
        let token = world.asked(1).0;
        (0..=credit).for_each(|_| world.stream(1, token, b"x"));
        world.pass();
        let replies = world.replies(0);
        assert_eq!(replies.len(), credit as usize + 1);
        let last = (Vec::new(), Status::Cancelled as u8, false);
        assert_eq!(replies.last(), Some(&last));
        if credit > 0 {
            assert_eq!(
                world.peer(1).heard.pop_front(),
                Some(Heard::Grant(token, 0))
            );
        }
        let refusal = world.peer(1).refusal();
        assert_eq!(refusal.reason, Some(Reason::Stream));
        assert!(!refusal.is_fatal && refusal.operation == 0);
        assert_eq!(world.ends[1].0.state(), State::Ready);
    }
}

#[test]
fn cancel_of_the_asker_and_the_end_of_the_responder_reach_the_other() {
    let mut world = World::new(3);
    for at in [1, 2] {
        world.peer(at).subscribe(1, 1, "count");
    }
    world.pass();
    (1..3).for_each(|at| world.peer(at).heard.clear());
    world.ask(0, 9, "count", many(ALL, 4));
    world.pass();
    let tokens = [world.asked(1).0, world.asked(2).0];
    world.stream(1, tokens[0], b"a");
    world.pass();
    assert_eq!(world.replies(0), [(b"a".to_vec(), 0, true)]);
    let _draft: ControlDraft<'_> = world.peer(0).pair(Kind::Cancel, 9, 0);
    world.pass();
    let cancelled = (Vec::new(), Status::Cancelled as u8, false);
    assert_eq!(world.replies(0), std::slice::from_ref(&cancelled));
    assert_eq!(
        world.peer(1).heard.pop_front(),
        Some(Heard::Grant(tokens[0], 0))
    );
    // One that has not begun hears of it when it does.
    world.stream(2, tokens[1], b"b");
    world.pass();
    assert_eq!(
        world.peer(2).heard.pop_front(),
        Some(Heard::Grant(tokens[1], 0))
    );
    assert!(world.peer(0).heard.is_empty());
    // By unsubscribing, and by leaving.
    for leaves in [false, true] {
        world.ask(0, 10, "count", many(ALL, 4));
        world.pass();
        let tokens = [world.asked(1).0, world.asked(2).0];
        world.stream(1, tokens[0], b"a");
        world.stream(2, tokens[1], b"b");
        world.pass();
        world.end(2, tokens[1], Status::End);
        if leaves {
            let (session, _) = &mut world.ends[1];
            session.on_end(&mut world.parts);
        } else {
            world.peer(1).pair(Kind::Unsubscribe, 1, 2);
        }
        world.pass();
        let mut replies = world.replies(0);
        assert_eq!(replies.pop().map(|last| last.2), Some(false));
        assert!(replies.iter().all(|(_, _, is_more)| *is_more));
        if !leaves {
            let heard = std::mem::take(&mut world.peer(1).heard);
            assert!(heard.contains(&Heard::Grant(tokens[0], 0)), "{heard:?}");
            world.peer(1).subscribe(1, 1, "count");
            world.pass();
            world.peer(1).heard.clear();
        }
    }
}

#[test]
fn replies_for_which_there_is_no_room_wait_and_are_bounded() {
    let mut world = World::new(2);
    world.peer(1).subscribe(1, 1, "count");
    world.pass();
    world.peer(1).heard.clear();
    let payload = vec![7; 4096];
    // More than a queue holds, then more than may wait beside it.
    for (count, is_whole) in [(3000, true), (10_000, false)] {
        world.ask(0, 9, "count", many(1, 100_000));
        world.pass();
        let token = world.asked(1).0;
        for _ in 0..count {
            world.stream(1, token, &payload);
        }
        world.end(1, token, Status::End);
        // The asker is not looked at meanwhile.
        world.say(1);
        world.hear(1);
        let mut replies = Vec::new();
        for _ in 0..200 {
            world.pass();
            replies.extend(world.replies(0));
        }
        let (last, streamed) = replies.split_last().unwrap();
        assert!(
            streamed
                .iter()
                .all(|(it, _, is_more)| *it == payload && *is_more)
        );
        let heard = std::mem::take(&mut world.peer(1).heard);
        match is_whole {
            true => {
                assert_eq!(streamed.len(), count);
                assert_eq!(*last, (Vec::new(), Status::End as u8, false));
                assert!(heard.is_empty(), "{heard:?}");
            }
            false => {
                assert!(streamed.len() < count);
                assert_eq!(*last, (Vec::new(), Status::Busy as u8, false));
                assert_eq!(heard, [Heard::Grant(token, 0)]);
            }
        }
    }
    drop(world.broker);
}

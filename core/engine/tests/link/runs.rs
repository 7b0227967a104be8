//! Frames that come one behind the other and are dealt with together: order, fates, and cuts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fastmq_engine::driver::sockets::Faults;
use fastmq_engine::memory::Policy;
use fastmq_engine::{Delivery, Status};
use fastmq_wire::{ControlDraft, Draft, Field, Kind, Subject};

use crate::steps::{
    Seen, check, client, handle, queue, queue_of, subscribe, subscribe_on, take_all, wide,
};
use crate::world::{World, options};

/// Bytes that one receive sees at most.
const CUTS: [usize; 4] = [24, 37, 1000, usize::MAX];

fn world(seed: u64, chunk_bytes_max: usize) -> World {
    let faults = Faults {
        chunk_bytes_max,
        ..Faults::default()
    };
    let mut world = World::with(seed, faults, options(), 1);
    world.until("connected", |world| world.peers[0].current().is_some());
    world.peer().say(|out| {
        let plain = ControlDraft::pair(out, Kind::Alias, 0, 0).unwrap();
        plain.bytes(Field::Subject, b"s.t").unwrap();
        let counted = ControlDraft::pair(out, Kind::Alias, 1, 0).unwrap();
        let counted = counted.bytes(Field::Subject, b"s.t").unwrap();
        counted.number(Field::Publisher, 77).unwrap();
    });
    world
}

fn reply(world: &World, token: u64, payload: &[u8]) -> fastmq_engine::Result<()> {
    client(&world.broker, |client| {
        client.writer.reply(token, 0, payload, &[])
    })
}

/// A small random number that a seed decides.
fn roll(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 40
}

#[test]
fn deliveries_in_a_row_keep_their_order_and_say_what_they_said() {
    for (seed, cut) in CUTS.into_iter().enumerate() {
        let mut world = world(seed as u64, cut);
        let broker = world.broker.clone();
        let both = queue(&broker, Policy::Backpressure, 0);
        let [first, second] = ["s.>", "s.*"].map(|it| subscribe_on(&broker, it, "", &both, 0));
        let apart = subscribe(&broker, "s.t");
        world.until("subscribed", |world| {
            world.peer().number_of("s.t").is_some()
        });
        let (mut state, mut expected, mut alone) = (seed as u64, Vec::new(), Vec::new());
        let (mut seen, mut seen_alone): (Vec<Seen>, Vec<Seen>) = (Vec::new(), Vec::new());
        for number in 0..3000_u64 {
            // Mostly the same way as the one before.
            let id = match (number >> 5).wrapping_add(roll(&mut state) / 12_000_000) % 3 {
                0 => first.id(),
                1 => second.id(),
                _ => apart.id(),
            };
            let payload = &wide(number)[..8 + roll(&mut state) as usize % 60];
            let alias = u32::from(number % 400 > 200);
            let subject = match number % 97 {
                0 => Subject::Text(b"s.t"),
                _ => Subject::Alias(alias),
            };
            let mut draft = Draft::message(id, subject, payload);
            match number / 100 % 4 {
                0 => {}
                1 => draft.sequence = Some(number),
                2 => draft = Draft::question(id, subject, number, payload),
                _ => (draft.sequence, draft.timestamp_ns) = (Some(number), Some(number)),
            }
            let is_request = number / 100 % 4 == 2;
            let is_counted = draft.sequence.is_some();
            let publisher = match subject {
                Subject::Alias(1) if is_counted => 77,
                _ => 0,
            };
            let sequence = draft.sequence.unwrap_or(0);
            let what = (
                number,
                id,
                sequence,
                publisher,
                is_request,
                payload.to_vec(),
            );
            match id == apart.id() {
                true => alone.push(what),
                false => expected.push(what),
            }
            assert!(world.peer().send(&draft));
            if number % 50 == 0 {
                world.step();
                seen.extend(take_all(&broker, &both));
                seen_alone.extend(take_all(&broker, queue_of(&apart)));
            }
        }
        world.until("all came", |world| {
            seen.extend(take_all(&world.broker, &both));
            seen_alone.extend(take_all(&world.broker, queue_of(&apart)));
            seen.len() + seen_alone.len() == 3000
        });
        let told = |seen: &[Seen]| -> Vec<_> {
            let what = |it: &Seen| {
                let payload = it.payload.clone();
                let (id, sequence, publisher) = (it.id, it.sequence, it.publisher);
                (it.number(), id, sequence, publisher, it.token != 0, payload)
            };
            seen.iter().map(what).collect()
        };
        assert_eq!(told(&seen), expected);
        assert_eq!(told(&seen_alone), alone);
        // Each request has an answer of its own, once.
        let asked: Vec<&Seen> = seen
            .iter()
            .chain(&seen_alone)
            .filter(|it| it.token != 0)
            .collect();
        for it in &asked {
            reply(&world, it.token, &it.payload).unwrap();
            check(reply(&world, it.token, b"again"), Status::NotFound);
        }
        world.until("all answered", |world| {
            world.peer().replies.len() == asked.len()
        });
        let mut answers = world.peer().replies.clone();
        answers.sort();
        let mut correct: Vec<_> = asked
            .iter()
            .map(|it| (it.number(), 0, it.payload.clone()))
            .collect();
        correct.sort();
        assert_eq!(answers, correct);
        assert_eq!(world.peer().faults, Vec::<String>::new());
    }
}

#[test]
fn requests_that_a_queue_has_no_room_for_are_answered_busy_each_once() {
    for (seed, cut) in CUTS.into_iter().enumerate() {
        let mut world = world(seed as u64, cut);
        let broker = world.broker.clone();
        let small = queue(&broker, Policy::Backpressure, 8192);
        let asked = subscribe_on(&broker, "s.t", "", &small, 0);
        world.until("subscribed", |world| {
            world.peer().number_of("s.t").is_some()
        });
        const COUNT: u64 = 1000;
        for token in 0..COUNT {
            let payload = token.to_le_bytes();
            let question = Draft::question(asked.id(), Subject::Alias(0), token, &payload);
            assert!(world.peer().send(&question));
        }
        let mut taken = 0;
        let mut statuses = BTreeMap::new();
        world.until("all ended", |world| {
            if world.peer().replies.len() > 100 {
                for it in take_all(&world.broker, &small) {
                    reply(world, it.token, &it.payload).unwrap();
                    taken += 1;
                }
            }
            world.peer().replies.len() as u64 == COUNT
        });
        for (token, status, payload) in &world.peer().replies {
            let is_busy = *status == Status::Busy as u8;
            assert!(is_busy && payload.is_empty() || *payload == token.to_le_bytes());
            assert_eq!(
                statuses.insert(*token, *status),
                None,
                "{token} ended twice"
            );
        }
        assert_eq!(statuses.len() as u64, COUNT);
        assert!(taken > 50 && taken < COUNT, "{taken}");
        let busy = statuses.values().filter(|it| **it == Status::Busy as u8);
        assert_eq!(busy.count() as u64, COUNT - taken);
    }
}

#[test]
fn requests_in_a_queue_that_closes_are_answered_cancelled() {
    let mut world = world(7, usize::MAX);
    let broker = world.broker.clone();
    let asked = subscribe(&broker, "s.t");
    world.until("subscribed", |world| {
        world.peer().number_of("s.t").is_some()
    });
    let id = asked.id();
    let ask = |world: &mut World, tokens: std::ops::Range<u64>| {
        for token in tokens {
            let question = Draft::question(id, Subject::Alias(0), token, b"?");
            assert!(world.peer().send(&question));
        }
    };
    ask(&mut world, 0..100);
    world.settle();
    ask(&mut world, 100..200);
    asked.unsubscribe();
    world.until("all ended", |world| world.peer().replies.len() == 200);
    let mut tokens = Vec::new();
    for (token, status, _) in &world.peer().replies {
        assert_eq!(*status, Status::Cancelled as u8);
        tokens.push(*token);
    }
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..200));
}

#[test]
fn a_question_behind_the_end_of_its_subscription_is_answered_cancelled() {
    // As above, but the subscription ends in the middle of a turn of the link.
    let mut world = world(8, usize::MAX);
    let broker = world.broker.clone();
    let asked = Arc::new(Mutex::new(Some(subscribe(&broker, "s.t"))));
    let id = asked.lock().unwrap().as_ref().unwrap().id();
    let ends = asked.clone();
    let ender = handle(&broker, "end", Delivery::Inline, move |_| {
        if let Some(asked) = ends.lock().unwrap().take() {
            asked.unsubscribe();
        }
    });
    world.until("subscribed", |world| {
        world.peer().number_of("s.t").is_some() && world.peer().number_of("end").is_some()
    });
    let ask = |world: &mut World, token: u64| {
        let question = Draft::question(id, Subject::Alias(0), token, b"?");
        assert!(world.peer().send(&question));
    };
    ask(&mut world, 1);
    world.settle();
    ask(&mut world, 2);
    assert!(world.peer().deliver(ender.id(), "end", b""));
    ask(&mut world, 3);
    ask(&mut world, 4);
    world.settle();
    let mut replies = world.peer().replies.clone();
    replies.sort_unstable();
    let cancelled = |token| (token, Status::Cancelled as u8, Vec::new());
    assert_eq!(replies, [1, 2, 3, 4].map(cancelled));
}

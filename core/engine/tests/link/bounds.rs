//! What a server leaves undone or does without end: the client waits and keeps within bounds.

use std::sync::Arc;

use fastmq_engine::driver::sockets::{Faults, Waited};
use fastmq_engine::memory::Policy;
use fastmq_engine::{
    ANSWERS_ALL, ManyOptions, Message, Options, ReplyStream, Requester, RequesterOptions, Status,
};
use fastmq_wire::message::Many;
use fastmq_wire::{ControlDraft, Draft, Field, Kind, Subject};

use crate::steps::*;
use crate::world::{Told, World, options};

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_draining_server_that_does_not_close_is_left_after_a_time() {
    let mut world = World::connected(1);
    world.peer().manners.ignores_close = true;
    world.peer().say(|out| {
        let draft = ControlDraft::pair(out, Kind::Drain, 0, 0).unwrap();
        draft.number(Field::DeadlineNs, 100 * SECOND).unwrap();
    });
    world.until("said goodbye", |world| world.peers[0].closes == 1);
    world.pass(9 * SECOND);
    assert_eq!(world.peer().accepted, 1, "it may still close");
    world.pass(2 * SECOND);
    let told = world.told();
    assert!(
        matches!(&told[2], Told::Disconnected(Status::Timeout, ..)),
        "{told:?}"
    );
    world.until("again", |world| world.peers[0].accepted == 2);
}

#[test]
fn what_would_be_answered_behind_our_goodbye_finds_nobody() {
    let mut world = World::connected(9);
    let broker = world.broker.clone();
    let asked = subscribe(&broker, "ask");
    world.settle();
    for token in 1..=5 {
        let mut question = Draft::question(asked.id(), Subject::Text(b"ask"), token, b"?");
        let both = Many {
            answers: 0,
            credit: 2,
        };
        question.many = (token >= 3).then_some(both);
        assert!(world.peer().send(&question));
    }
    world.settle();
    let tokens: Vec<u64> = take_all(&broker, queue_of(&asked))
        .iter()
        .map(|seen| seen.token)
        .collect();
    assert_eq!(tokens.len(), 5);
    let mut stream = ReplyStream::open(&broker, tokens[2]).unwrap();
    stream.send(b"first", b"").unwrap();
    world.peer().manners.ignores_close = true;
    world.peer().say(|out| {
        let draft = ControlDraft::pair(out, Kind::Drain, 0, 0).unwrap();
        draft.number(Field::DeadlineNs, 100 * SECOND).unwrap();
    });
    world.until("said goodbye", |world| world.peers[0].closes == 1);
    client(&broker, |client| {
        let usual = client.writer.reply(tokens[0], 0, b"late", b"");
        check(usual, Status::NotFound);
        let long = client
            .writer
            .reply(tokens[1], 0, b"late", b"\x01\0\x01\0kv");
        check(long, Status::NotFound);
    });
    check(stream.send(b"second", b""), Status::Cancelled);
    check(ReplyStream::open(&broker, tokens[3]), Status::NotFound);
    let late = client(&broker, |client| {
        client.writer.reply(tokens[4], 0, b"late", b"")
    });
    check(late, Status::NotFound);
    world.settle();
    assert_eq!(world.peer().streamed, [(3, b"first".to_vec())]);
    assert_eq!(world.peer().replies, []);
    // The stream ends with the connection, and the next one begins anew.
    world.until("again", |world| world.peers[0].accepted == 2);
    check(stream.end(Status::Ok), Status::Cancelled);
    world.until("subscribed again", |world| {
        world.peers[0].number_of("ask").is_some()
    });
    let question = Draft::question(asked.id(), Subject::Text(b"ask"), 6, b"?");
    assert!(world.peer().send(&question));
    world.settle();
    let seen = take_all(&broker, queue_of(&asked));
    let answered = client(&broker, |client| {
        client.writer.reply(seen[0].token, 0, b"in time", b"")
    });
    answered.unwrap();
    world.settle();
    assert_eq!(world.peer().replies, [(6, 0, b"in time".to_vec())]);
}

#[test]
fn a_close_that_may_take_for_ever_waits_for_the_server() {
    let endless = fastmq_engine::link::ConnectOptions {
        broker: Options {
            close_timeout_ns: u64::MAX,
            ..Options::default()
        },
        ..options()
    };
    let mut world = World::with(2, Faults::default(), endless, 1);
    world.until("connected", |world| world.peers[0].current().is_some());
    world.settle();
    world.peer().manners.ignores_close = true;
    world.broker.clone().close();
    world.settle();
    assert_eq!(world.peer().closes, 1);
    let waited = world.drive.turn(&mut world.sockets, MILLISECOND, 0);
    assert_eq!(waited.unwrap(), Waited::TimedOut, "it sleeps meanwhile");
    world.pass(60 * SECOND);
    assert!(!world.drive.is_over());
}

#[test]
fn pings_of_a_server_are_not_all_answered_if_they_come_too_fast() {
    const COUNT: u64 = 20_000;
    let mut world = World::connected(3);
    world.peer().say(|out| {
        for number in 0..COUNT {
            ControlDraft::whole(out, Kind::Ping, number).unwrap();
        }
    });
    world.settle();
    let answered = world.peer().pongs.len() as u64;
    assert!((1..COUNT).contains(&answered), "{answered}");
    world.peer().say(|out| {
        ControlDraft::whole(out, Kind::Ping, COUNT).unwrap();
    });
    world.settle();
    assert_eq!(world.peer().pongs.last(), Some(&COUNT));
    assert_eq!(world.peer().faults, Vec::<String>::new());
}

#[test]
fn a_stored_publish_that_the_server_would_not_take_is_dropped_alone() {
    let mut world = World::new(5);
    let broker = world.broker.clone();
    world.peer().manners.payload_max = 1000;
    publish_number(&broker, "before", 1).unwrap();
    publish(&broker, "large", &[7; 1001]).unwrap();
    publish_number(&broker, "between", 2).unwrap();
    publish(&broker, "large.too", &[7; 100_000]).unwrap();
    publish(&broker, "fits", &[7; 1000]).unwrap();
    world.until("sent", |world| world.peers[0].published.len() == 3);
    world.settle();
    let published = world.peer().published.iter();
    let subjects: Vec<&str> = published.map(|got| got.subject.as_str()).collect();
    assert_eq!(subjects, ["before", "between", "fits"]);
    let refused = |subject: &str| Told::Refused(subject.to_owned(), Status::TooLarge);
    assert_eq!(world.told()[1..], [refused("large"), refused("large.too")]);
    assert_eq!(world.peer().faults, Vec::<String>::new());
}

/// Requests to a server that does not answer, and then drains; how they end is up to `end`.
fn leaves_as_soon_as_nobody_waits(end: impl FnOnce(&mut World, Requester) -> Option<Requester>) {
    let mut world = World::connected(6);
    world.peer().manners.echoes = false;
    let mut requester = Requester::open(&world.broker, RequesterOptions::default()).unwrap();
    for token in 0..100 {
        let submitted = requester.submit_to(b"ask", b"?", token, MILLISECOND);
        submitted.unwrap();
    }
    world.settle();
    assert_eq!(world.peer().requests.len(), 100);
    let _requester = end(&mut world, requester);
    world.settle();
    // Too late: it finds nobody.
    let correlation = world.peer().requests[5].correlation;
    world.peer().say(|out| {
        let late = Draft::answer(correlation, 0, 0, b"late");
        late.append(out).unwrap();
    });
    world.settle();
    assert_eq!(world.broker.statistics().late_answers, 1);
    world.peer().say(|out| {
        let draft = ControlDraft::pair(out, Kind::Drain, 0, 0).unwrap();
        draft.number(Field::DeadlineNs, 100 * SECOND).unwrap();
    });
    world.settle();
    assert_eq!(world.peer().closes, 1, "nobody waits for an answer");
    assert_eq!(world.peer().faults, Vec::<String>::new());
}

/// Receives what is there: how often with this status.
fn count_of(requester: &mut Requester, status: Status) -> usize {
    let mut count = 0;
    while let Ok(batch) = requester.receive(64, 0) {
        let ended = batch.messages().iter();
        count += ended.filter(|view| view.status == status as u32).count();
    }
    count
}

#[test]
fn requests_that_timed_out_are_forgotten() {
    leaves_as_soon_as_nobody_waits(|world, mut requester| {
        assert_eq!(count_of(&mut requester, Status::Timeout), 0);
        world.driver.advance(2 * MILLISECOND);
        assert_eq!(count_of(&mut requester, Status::Timeout), 100);
        Some(requester)
    });
}

#[test]
fn requests_that_were_cancelled_are_forgotten() {
    leaves_as_soon_as_nobody_waits(|_, mut requester| {
        for token in 0..100 {
            requester.cancel(token).unwrap();
        }
        Some(requester)
    });
}

#[test]
fn requests_of_a_closed_requester_are_forgotten() {
    leaves_as_soon_as_nobody_waits(|_, requester| {
        drop(requester);
        None
    });
}

#[test]
fn a_question_that_timed_out_is_forgotten() {
    leaves_as_soon_as_nobody_waits(|world, requester| {
        drop(requester);
        let message = Message {
            subject: b"ask",
            payload: b"?",
            ..Message::default()
        };
        let asked = client(&world.broker, |client| client.request(&message, 0, |_| ()));
        assert_eq!(status(&asked), Status::Timeout);
        world.settle();
        let asked = world.peers[0].requests.pop().unwrap();
        world.peers[0].requests[5] = asked;
        None
    });
}

/// Delivers as much as there is credit for; the next number.
fn deliver_all(world: &mut World, id: u32, mut number: u64) -> u64 {
    while world.peer().deliver(id, "slow", &wide(number)) {
        number += 1;
        if number.is_multiple_of(512) {
            world.step();
        }
    }
    world.settle();
    number
}

#[test]
fn what_waits_for_a_queue_counts_against_the_next_connections() {
    let mut world = World::connected(7);
    let broker = world.broker.clone();
    let small = queue(&broker, Policy::Backpressure, 8192);
    let slow = subscribe_on(&broker, "slow", "", &small, 0);
    world.settle();
    let window = world.peer().current().unwrap().credit;
    let frame_max = window / 2;
    let mut sent = deliver_all(&mut world, slow.id(), 0);
    assert!(sent * 224 > window - frame_max / 2);
    let kept = sent;
    // Each connection may bring one frame of the largest, and what is beyond that is counted.
    for connections in 2..6 {
        world.peer().cut();
        world.until("again", |world| {
            world.peers[0].accepted == connections && world.peers[0].current().is_some()
        });
        world.settle();
        assert_eq!(world.peer().current().unwrap().credit, frame_max);
        sent = deliver_all(&mut world, slow.id(), sent);
    }
    assert!(sent > 2 * kept, "{sent} of {kept}");
    // The last one tells what was lost before it.
    let (mut next, mut lost, mut came, mut is_last_sent) = (0, 0, 0, false);
    world.until("all came", |world| {
        for seen in take_all(&world.broker, &small) {
            next += seen.lost + 1;
            lost += seen.lost;
            came += 1;
            assert_eq!(seen.number() + 1, next, "each loss is told where it was");
        }
        if next > kept && !is_last_sent {
            is_last_sent = world.peer().deliver(slow.id(), "slow", &wide(sent));
        }
        next == sent + u64::from(is_last_sent) && is_last_sent
    });
    assert!(lost > kept && came + lost == sent + 1, "{lost} and {came}");
    world.settle();
    assert_eq!(world.peer().faults, Vec::<String>::new());
}

/// Who only listens answers nothing; also what it hears after another connection has ended, and
/// what comes in rows that need more than the room that is there.
#[test]
fn a_draining_server_is_left_by_who_only_listens() {
    let mut world = World::connected(14);
    let broker = world.broker.clone();
    let listener = subscribe(&broker, "ask");
    for round in 1..=3 {
        world.until("subscribed", |world| {
            world.peers[0].number_of("ask").is_some()
        });
        world.peer().say(|out| {
            let draft = ControlDraft::pair(out, Kind::Alias, 0, 0).unwrap();
            draft.bytes(Field::Subject, b"ask").unwrap();
        });
        for token in 1..=100 {
            let (id, payload) = (listener.id(), [b'?'; 300]);
            let question = Draft::question(id, Subject::Alias(0), token, &payload);
            assert!(world.peer().send(&question));
        }
        world.settle();
        assert_eq!(take_all(&broker, queue_of(&listener)).len(), 100);
        world.peer().say(|out| {
            let draft = ControlDraft::pair(out, Kind::Drain, 0, 0).unwrap();
            draft.number(Field::DeadlineNs, 100 * SECOND).unwrap();
        });
        world.settle();
        assert_eq!(world.peer().closes, round, "it owes nothing");
        world.until("again", |world| world.peers[0].accepted == round + 1);
    }
}

/// Only the link writes to the queues of askers; it keeps those of few that are gone.
#[test]
fn askers_that_are_gone_are_forgotten() {
    let mut world = World::connected(13);
    let broker = world.broker.clone();
    let mut kept_of = |many: Option<ManyOptions>| {
        let gone = (0..1000).map(|token| {
            let mut requester = Requester::open(&broker, RequesterOptions::default()).unwrap();
            match &many {
                None => requester.submit_to(b"ask", b"?", token, SECOND).unwrap(),
                Some(many) => {
                    let question = Message {
                        subject: b"ask",
                        ..Message::default()
                    };
                    let submitted = requester.submit_many(&question, token, SECOND, many);
                    submitted.unwrap();
                }
            }
            world.until("answered", |_| count_of(&mut requester, Status::Ok) > 0);
            Arc::downgrade(requester.place())
        });
        let gone: Vec<_> = gone.collect();
        gone.iter().filter(|it| it.strong_count() > 0).count()
    };
    let all = ManyOptions {
        answers_max: ANSWERS_ALL,
        ..ManyOptions::default()
    };
    let kept = [kept_of(None), kept_of(Some(all))];
    assert!(
        kept.iter().all(|kept| *kept < 200),
        "queues of answers: {kept:?}"
    );
}

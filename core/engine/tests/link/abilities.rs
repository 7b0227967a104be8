//! What a client of a server can do as one of a broker in its process: latest queues, draining,
//! presence; and what its server tells it.

use fastmq_engine::memory::Policy;
use fastmq_engine::{Message, Requester, RequesterOptions, Status, SubscribeOptions, Subscription};
use fastmq_wire::control::event;
use fastmq_wire::{ControlDraft, Draft, Field, Kind, Subject};

use crate::steps::*;
use crate::world::{Told, World};

fn latest(world: &World, pattern: &str) -> Subscription {
    let options = SubscribeOptions {
        policy: Policy::Latest,
        ..SubscribeOptions::default()
    };
    world
        .broker
        .subscribe_with(pattern.as_bytes(), options)
        .unwrap()
}

#[test]
fn a_latest_queue_keeps_the_newest_of_each_subject_and_counts_the_others() {
    let mut world = World::connected(3);
    let prices = latest(&world, "price.*");
    world.settle();
    assert_eq!(world.peer().subscribed[0].3, 4, "the policy");
    let number = prices.id();
    let deliver = |world: &mut World, subject: &str, payload: &[u8], lost: u64| {
        let subject = Subject::Text(subject.as_bytes());
        let mut draft = Draft::message(number, subject, payload);
        draft.lost = lost;
        draft.sequence = Some(9);
        draft.publisher = Some(70);
        assert!(world.peer().send(&draft));
    };
    let take = |world: &World| -> Vec<(String, Vec<u8>, u32, u64)> {
        let mut all = Vec::new();
        while let Ok(batch) = queue_of(&prices).receive(&world.broker, 100, 0) {
            let views = batch.messages().iter();
            all.extend(views.map(|view| {
                let subject = String::from_utf8(view.subject().to_vec()).unwrap();
                (
                    subject,
                    view.payload().to_vec(),
                    view.lost_before,
                    view.publisher,
                )
            }));
        }
        all
    };
    let big = vec![7; 20_000];
    deliver(&mut world, "price.a", b"1", 0);
    deliver(&mut world, "price.b", b"5", 4);
    deliver(&mut world, "price.a", b"2", 2);
    deliver(&mut world, "price.a", &big, 0);
    world.settle();
    let expected = [
        ("price.a".to_owned(), big, 4, 70),
        ("price.b".to_owned(), b"5".to_vec(), 4, 70),
    ];
    assert_eq!(take(&world), expected);
    // Of many subjects nothing waits that was taken, and credit is given back.
    for round in 0..50 {
        for subject in 0..100 {
            deliver(&mut world, &format!("price.{subject}"), &[round; 1000], 0);
        }
        world.settle();
    }
    let taken = take(&world);
    assert_eq!(taken.len(), 100);
    assert!(
        taken
            .iter()
            .all(|(_, payload, lost, _)| payload[0] == 49 && *lost == 49)
    );
    assert_eq!(world.peer().faults, Vec::<String>::new());
}

#[test]
fn a_drain_waits_for_what_the_server_has_and_does_not_subscribe_again() {
    let mut world = World::connected(3);
    let numbers = subscribe(&world.broker, "n");
    world.settle();
    publish(&world.broker, "out", b"before").unwrap();
    check(world.broker.drain(0), Status::Timeout);
    check(publish(&world.broker, "out", b"after"), Status::Closed);
    let id = numbers.id();
    assert!(world.peer().deliver(id, "n", &7u64.to_le_bytes()));
    world.settle();
    let operation = match world.peer().drains[..] {
        [operation] => operation,
        ref drains => panic!("{drains:?}"),
    };
    assert_eq!(world.peer().published.len(), 1, "it has left before");
    check(world.broker.drain(0), Status::Timeout);
    world.peer().say(|out| {
        ControlDraft::pair(out, Kind::Ack, operation, 0).unwrap();
    });
    world.settle();
    check(world.broker.drain(0), Status::Timeout);
    assert_eq!(take_numbers(&world.broker, queue_of(&numbers)), [7]);
    world.broker.drain(0).unwrap();
    assert_eq!(world.peer().drains.len(), 1, "asked once");
    world.peer().cut();
    world.until("again", |world| world.peer().accepted == 2);
    world.settle();
    assert_eq!(world.peer().subscribed.len(), 1, "not subscribed again");
    drop(numbers);
    world.settle();
    assert_eq!(world.peer().faults, Vec::<String>::new());
}

#[test]
fn presence_is_the_servers() {
    let mut world = World::connected(3);
    let options = SubscribeOptions {
        replay_last: true,
        ..SubscribeOptions::default()
    };
    let _before = subscribe(&world.broker, "room.1");
    let listener = world.broker.subscribe_with(b"$SYS.>", options).unwrap();
    let _after = subscribe(&world.broker, "room.2");
    world.settle();
    assert_eq!(take_all(&world.broker, queue_of(&listener)).len(), 0);
    let id = listener.id();
    assert!(world.peer().deliver(id, "$SYS.JOINED.room.2", b"room.2"));
    world.settle();
    assert_eq!(take_all(&world.broker, queue_of(&listener)).len(), 1);
}

#[test]
fn the_server_warns_and_ends_who_is_slow_and_says_so() {
    let mut world = World::connected(3);
    let before = world.told().len();
    world.peer().say(|out| {
        let draft = ControlDraft::pair(out, Kind::Event, 0, event::SLOW).unwrap();
        draft.number(Field::Count, 5_000_000).unwrap();
        let draft = ControlDraft::pair(out, Kind::Event, 0, event::LIMIT).unwrap();
        draft.bytes(Field::Sentence, b"15 of 16").unwrap();
        let reason = fastmq_wire::Reason::Slow;
        let (status, fatal) = (
            Status::SlowConsumer as u8,
            fastmq_wire::control::flag::FATAL,
        );
        fastmq_wire::control::write_error(out, 0, reason, status, fatal, "too slow").unwrap();
    });
    world.until("told", |world| world.told().len() >= before + 4);
    let told = &world.told()[before..];
    assert_eq!(told[0], Told::Slow(5_000_000));
    assert_eq!(told[1], Told::Limit("15 of 16".to_owned()));
    assert!(
        matches!(&told[2], Told::Disconnected(Status::SlowConsumer, ..)),
        "{told:?}"
    );
    assert!(
        matches!(told[3], Told::Connected { is_again: true, .. }),
        "{told:?}"
    );
}

#[test]
fn a_request_says_how_long_its_asker_waits() {
    let mut world = World::connected(3);
    world.peer().manners.echoes = false;
    let mut requester = Requester::open(&world.broker, RequesterOptions::default()).unwrap();
    let ask = |requester: &mut Requester, ttl_ns, timeout_ns| {
        let message = Message {
            subject: b"a",
            ttl_ns,
            ..Message::default()
        };
        requester.submit_message(&message, 1, timeout_ns).unwrap();
    };
    ask(&mut requester, 0, 5000);
    ask(&mut requester, 70, 5000);
    ask(&mut requester, 0, u64::MAX);
    world.settle();
    let told: Vec<_> = world.peer().requests.iter().map(|it| it.ttl_ns).collect();
    assert_eq!(told, [Some(5000), Some(70), None]);
}

#[test]
fn servers_that_a_server_has_named_are_tried_when_it_is_gone() {
    let mut world = World::new(3);
    let spare = world.add_peer();
    world.peer().manners.servers = spare.into_bytes();
    world.until("connected", |world| world.peers[0].current().is_some());
    world.settle();
    world.peer().cut();
    world.peers[0].manners.refuses =
        Some((fastmq_wire::Reason::Draining, Status::Unavailable as u8));
    world.until("elsewhere", |world| world.peers[1].current().is_some());
}

#[test]
fn nothing_is_published_to_what_a_server_is_asked() {
    const STATS: &str = "$SYS.SERVER.STATS";
    let mut world = World::new(20);
    let broker = world.broker.clone();
    check(publish(&broker, STATS, b"x"), Status::Denied);
    world.until("connected", |world| world.peers[0].current().is_some());
    world.settle();
    for _ in 0..3 {
        // Asking teaches the route nothing that a publish could use.
        let asked = client(&broker, |client| {
            let message = Message {
                subject: STATS.as_bytes(),
                ..Message::default()
            };
            client.request(&message, 0, |_| ())
        });
        check(asked, Status::Timeout);
        check(publish(&broker, STATS, b"x"), Status::Denied);
        world.settle();
    }
    let headers = Message {
        subject: STATS.as_bytes(),
        key: b"k",
        ..Message::default()
    };
    let published = client(&broker, |client| client.writer.publish_message(&headers));
    check(published, Status::Denied);
    world.settle();
    assert_eq!(world.peer().requests.len(), 3);
    assert_eq!(world.peer().published, []);
}

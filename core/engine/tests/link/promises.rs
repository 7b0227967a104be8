//! Each promise of a remote client, one test, on the simulated clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastmq_engine::driver::sockets::Faults;
use fastmq_engine::driver::{Driver, SimulatedDriver};
use fastmq_engine::link::{self, ConnectOptions};
use fastmq_engine::memory::Policy;
use fastmq_engine::{
    Delivery, ManyOptions, Message, Publisher, Requester, RequesterOptions, Status,
};
use fastmq_wire::control::event;
use fastmq_wire::{ControlDraft, Draft, Field, Kind, Limits, Reason, Subject};

use crate::steps::{
    MILLISECOND, check, client, handle, publish, publish_number, queue, queue_of, status,
    subscribe, subscribe_on, take_all, take_numbers, wide,
};
use crate::world::{Told, World, options};

const SECOND: u64 = 1_000_000_000;

fn reply(world: &World, token: u64, payload: &[u8]) -> fastmq_engine::Result<()> {
    client(&world.broker, |client| {
        client.writer.reply(token, 0, payload, &[])
    })
}

#[test]
fn publishes_arrive_in_order_with_their_fields_and_by_number_from_the_second_on() {
    let mut world = World::connected(1);
    let broker = world.broker.clone();
    for number in 0..5 {
        publish_number(&broker, "a.b", number).unwrap();
    }
    let mut publisher = Publisher::open(&broker, b"p").unwrap();
    publisher.publish(b"one").unwrap();
    let mut claim = publisher.claim(100).unwrap();
    claim.bytes()[..3].copy_from_slice(b"two");
    claim.commit(3).unwrap();
    let batch: [&[u8]; 2] = [b"three", b"four"];
    let (accepted, refused) = publisher.publish_batch(batch.into_iter());
    assert!(accepted == 2 && refused.is_ok());
    let message = Message {
        subject: b"full",
        payload: &[7; 20_000],
        key: b"key",
        ttl_ns: 5 * SECOND,
        ..Message::default()
    };
    client(&broker, |client| client.writer.publish_message(&message)).unwrap();
    world.settle();
    let got = world.peer().published.clone();
    let numbers: Vec<Vec<u8>> = (0..5_u64)
        .map(|number| number.to_le_bytes().to_vec())
        .collect();
    let first: Vec<Vec<u8>> = got[..5].iter().map(|one| one.payload.clone()).collect();
    assert_eq!(first, numbers);
    let by_number: Vec<bool> = got[..5].iter().map(|one| one.is_alias).collect();
    assert_eq!(by_number, [false, true, true, true, true]);
    assert!(
        got[..5]
            .iter()
            .all(|one| one.subject == "a.b" && one.sequence.is_none())
    );
    let numbered: Vec<Option<u64>> = got[5..9].iter().map(|one| one.sequence).collect();
    assert_eq!(numbered, [1, 2, 3, 4].map(Some));
    assert_eq!(
        (&*got[6].payload, &*got[8].payload),
        (&b"two"[..], &b"four"[..])
    );
    assert!(got[5].publisher > 0 && got[5].publisher == got[6].publisher);
    assert_eq!((got[9].payload.len(), &*got[9].key), (20_000, &b"key"[..]));
    assert_eq!(got[9].ttl_ns, Some(5 * SECOND));
    assert_eq!(got.len(), 10);
    assert_eq!(world.peer().faults, Vec::<String>::new());
}

#[test]
fn deliveries_come_with_what_the_server_says_of_them() {
    let mut world = World::connected(2);
    let broker = world.broker.clone();
    let all = subscribe(&broker, "x.>");
    world.settle();
    let id = world.peer().number_of("x.>").unwrap();
    assert_eq!(id, all.id());
    assert_eq!(world.peer().subscribed[0].3, 1, "backpressure");
    world.peer().say(|out| {
        let draft = ControlDraft::pair(out, Kind::Alias, 3, 0).unwrap();
        let draft = draft.bytes(Field::Subject, b"x.alias").unwrap();
        draft.number(Field::Publisher, 77).unwrap();
    });
    let mut draft = Draft::message(id, Subject::Alias(3), b"by number");
    draft.sequence = Some(9);
    draft.lost = 4;
    assert!(world.peer().send(&draft));
    let mut draft = Draft::message(id, Subject::Text(b"x.text"), b"by text");
    (draft.sequence, draft.publisher) = (Some(1), Some(78));
    (draft.headers, draft.ttl_ns) = (b"\x01\x00", Some(SECOND));
    assert!(world.peer().send(&draft));
    assert!(world.peer().deliver(id, "x.large", &[1; 30_000]));
    world.settle();
    let seen = take_all(&broker, queue_of(&all));
    assert_eq!(seen.len(), 3);
    let first = &seen[0];
    assert_eq!(
        (&*first.subject, first.sequence, first.publisher),
        ("x.alias", 9, 77)
    );
    assert_eq!((first.lost, &*first.payload), (4, &b"by number"[..]));
    assert_eq!(
        (seen[1].sequence, seen[1].publisher, seen[1].lost),
        (1, 78, 0)
    );
    assert_eq!(seen[2].payload.len(), 30_000);
    assert_eq!(all.counts(), (3, 4));
    // One that nobody took in time is not shown.
    assert!(world.peer().send(&draft));
    world.settle();
    world.driver.advance(2 * SECOND);
    assert_eq!(take_all(&broker, queue_of(&all)), []);
}

#[test]
fn a_request_ends_once_with_the_servers_answer_or_its_fate() {
    let mut world = World::connected(3);
    let broker = world.broker.clone();
    let mut asker = Requester::open(&broker, RequesterOptions::default()).unwrap();
    asker.submit_to(b"echo", b"hello", 1, 10 * SECOND).unwrap();
    asker
        .submit_to(b"echo", &[5; 9000], 2, 10 * SECOND)
        .unwrap();
    world.settle();
    {
        let batch = asker.receive(10, 0).unwrap();
        let answers = batch.messages();
        assert_eq!((answers[0].token, answers[0].payload()), (1, &b"hello"[..]));
        assert_eq!((answers[1].token, answers[1].payload().len()), (2, 9000));
    }
    world.peer().manners.echoes = false;
    asker.submit_to(b"none", b"", 3, 10 * SECOND).unwrap();
    asker.submit_to(b"late", b"", 4, SECOND).unwrap();
    world.settle();
    let correlation = world.peer().requests[2].correlation;
    for _ in 0..2 {
        let answer = Draft::answer(correlation, 0, Status::NoResponder as u8, b"");
        world.peer().say(|out| answer.append(out).unwrap());
    }
    world.settle();
    let statuses = |asker: &mut Requester| -> Vec<(u64, u32)> {
        let batch = asker.receive(10, 0).unwrap();
        batch
            .messages()
            .iter()
            .map(|one| (one.token, one.status))
            .collect()
    };
    assert_eq!(statuses(&mut asker), [(3, Status::NoResponder as u32)]);
    assert!(asker.next_deadline() <= SECOND);
    world.pass(2 * SECOND);
    assert_eq!(statuses(&mut asker), [(4, Status::Timeout as u32)]);
    assert_eq!(asker.in_flight(), 0);
}

#[test]
fn a_delivered_request_is_answered_once_and_not_on_a_later_connection() {
    let mut world = World::connected(4);
    let broker = world.broker.clone();
    let asked = subscribe(&broker, "ask");
    world.settle();
    let id = asked.id();
    let ask = |world: &mut World, token: u64| {
        let question = Draft::question(id, Subject::Text(b"ask"), token, b"?");
        assert!(world.peer().send(&question));
        world.settle();
        let seen = take_all(&world.broker, queue_of(&asked));
        assert_eq!(seen.len(), 1);
        seen[0].token
    };
    let token = ask(&mut world, u64::MAX - 3);
    reply(&world, token, b"!").unwrap();
    check(reply(&world, token, b"again"), Status::NotFound);
    world.settle();
    assert_eq!(world.peer().replies, [(u64::MAX - 3, 0, b"!".to_vec())]);
    // One whose connection has ended leads nowhere.
    let token = ask(&mut world, 5);
    world.peer().cut();
    world.until("connected again", |world| {
        world.peer().number_of("ask").is_some()
    });
    check(reply(&world, token, b"late"), Status::NotFound);
    // One that is dropped unread is answered by the library.
    assert!(
        world
            .peer()
            .send(&Draft::question(id, Subject::Text(b"ask"), 6, b"?"))
    );
    world.settle();
    asked.unsubscribe();
    world.settle();
    let cancelled = (6, Status::Cancelled as u8, Vec::new());
    assert_eq!(world.peer().replies[1..], [cancelled]);
    assert_eq!(world.peer().unsubscribed, [id]);
}

#[test]
fn handlers_are_called_and_answer() {
    let mut world = World::connected(5);
    let broker = world.broker.clone();
    let calls = Arc::new(AtomicU64::new(0));
    let (count, replier) = (calls.clone(), Arc::downgrade(&broker));
    let _inline = handle(&broker, "inline", Delivery::Inline, move |view| {
        count.fetch_add(1, Ordering::Relaxed);
        let broker = replier.upgrade().unwrap();
        client(&broker, |client| {
            client.writer.reply(view.token, 0, view.payload(), &[])
        })
        .unwrap();
    });
    let count = calls.clone();
    let _dispatched = handle(&broker, "dispatch", Delivery::Dispatch, move |_| {
        count.fetch_add(10, Ordering::Relaxed);
    });
    world.settle();
    let number = world.peer().number_of("inline").unwrap();
    world.peer().send(&Draft::question(
        number,
        Subject::Text(b"inline"),
        9,
        b"in place",
    ));
    let number = world.peer().number_of("dispatch").unwrap();
    world.peer().deliver(number, "dispatch", b"");
    world.settle();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    broker.dispatch(100, 0).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 11);
    assert_eq!(world.peer().replies, [(9, 0, b"in place".to_vec())]);
}

#[test]
fn publishes_wait_for_a_connection_up_to_the_bound_and_their_time() {
    let driver_options = ConnectOptions {
        store_max: 4096,
        ..options()
    };
    let mut world = World::with(6, Faults::default(), driver_options, 1);
    let broker = world.broker.clone();
    let short = Message {
        subject: b"short",
        ttl_ns: 10 * MILLISECOND,
        ..Message::default()
    };
    client(&broker, |client| client.writer.publish_message(&short)).unwrap();
    let long = Message {
        subject: b"long",
        ttl_ns: SECOND,
        ..Message::default()
    };
    client(&broker, |client| client.writer.publish_message(&long)).unwrap();
    let mut accepted = 0;
    while publish(&broker, "s", &wide(accepted)).is_ok() {
        accepted += 1;
    }
    assert!((10..20).contains(&accepted), "{accepted}");
    check(
        publish(&broker, "s", b"more of it, and longer than what is left"),
        Status::Again,
    );
    world.driver.advance(100 * MILLISECOND);
    world.until("sent", |world| {
        world.peers[0].published.len() as u64 == accepted + 1
    });
    world.settle();
    let got = &world.peers[0].published;
    assert_eq!(got[0].subject, "long");
    assert!(got[0].ttl_ns.unwrap() <= 900 * MILLISECOND);
    for (number, one) in got[1..].iter().enumerate() {
        assert_eq!(one.payload, wide(number as u64));
    }
    publish(&broker, "s", b"now").unwrap();
    let mut asker = Requester::open(&broker, RequesterOptions::default()).unwrap();
    world.peer().cut();
    world.until("broken", |world| {
        world.disconnected.load(Ordering::Relaxed) > 0
    });
    check(
        asker.submit_to(b"echo", b"", 1, SECOND),
        Status::Unavailable,
    );
}

#[test]
fn without_credit_publishers_get_again_until_there_is_more() {
    let mut world = World::new(7);
    world.peer().manners.limits = Limits {
        frame_max: 8192,
        credit: 16_384,
        ..Limits::default()
    };
    world.peer().manners.grants = false;
    world.until("connected", |world| world.peers[0].current().is_some());
    world.settle();
    let broker = world.broker.clone();
    let mut accepted = 0;
    while publish(&broker, "s", &wide(accepted)).is_ok() {
        accepted += 1;
        world.step();
    }
    assert_eq!(accepted, 16_384 / 224);
    check(publish(&broker, "s", &[0; 9000]), Status::TooLarge);
    world.settle();
    assert_eq!(world.peer().published.len() as u64, accepted);
    world.peer().say(|out| {
        ControlDraft::whole(out, Kind::Credit, 32_768).unwrap();
    });
    world.settle();
    publish(&broker, "s", &wide(accepted)).unwrap();
    world.settle();
    assert_eq!(world.peer().published.len() as u64, accepted + 1);
}

#[test]
fn a_batch_ends_where_its_messages_would_one_by_one() {
    let mut world = World::new(17);
    world.peer().manners.limits = Limits {
        frame_max: 8192,
        credit: 16_384,
        ..Limits::default()
    };
    (
        world.peer().manners.grants,
        world.peer().manners.payload_max,
    ) = (false, 500);
    world.until("connected", |world| world.peers[0].current().is_some());
    world.settle();
    let broker = world.broker.clone();
    let mut publisher = Publisher::open(&broker, b"batch").unwrap();
    let payloads: Vec<[u8; 200]> = (0..1000).map(wide).collect();
    // The server takes no more than 500 bytes; those before that are on their way.
    let mixed = [&payloads[0][..], &[], &payloads[2][..], &[1; 501], &[2]];
    let (accepted, refused) = publisher.publish_batch(mixed.into_iter());
    assert_eq!(accepted, 3);
    check(refused, Status::TooLarge);
    // An iterator may use the client.
    let rest = payloads[3..].iter().map(|payload| {
        assert!(broker.is_open());
        let published = publish(&broker, "beside", b"");
        assert!(published.is_ok() || status(&published) == Status::Again);
        &payload[..]
    });
    let (accepted, refused) = publisher.publish_batch(rest);
    check(refused, Status::Again);
    let accepted = 3 + accepted;
    let (none, refused) = publisher.publish_batch([&[3; 200][..]].into_iter());
    assert_eq!(none, 0);
    check(refused, Status::Again);
    world.settle();
    let of_batch = |world: &mut World| -> Vec<(Option<u64>, Vec<u8>)> {
        let published = world.peer().published.iter();
        let published = published.filter(|one| one.subject == "batch");
        published
            .map(|one| (one.sequence, one.payload.clone()))
            .collect()
    };
    assert_eq!(of_batch(&mut world).len(), accepted);
    world.peer().say(|out| {
        ControlDraft::whole(out, Kind::Credit, 1 << 20).unwrap();
    });
    world.settle();
    let rest = payloads[accepted..].iter().map(|payload| &payload[..]);
    let (more, refused) = publisher.publish_batch(rest);
    assert!(refused.is_ok());
    assert_eq!(accepted + more, payloads.len());
    world.settle();
    for (number, (sequence, payload)) in of_batch(&mut world).iter().enumerate() {
        assert_eq!(*sequence, Some(number as u64 + 1));
        let expected = if number == 1 {
            &[][..]
        } else {
            &payloads[number]
        };
        assert_eq!(payload, expected, "{number}");
    }
}

#[test]
fn a_full_queue_holds_up_nobody_else_and_loses_nothing() {
    let mut world = World::connected(8);
    let broker = world.broker.clone();
    let small = queue(&broker, Policy::Backpressure, 8192);
    let slow = subscribe_on(&broker, "slow", "", &small, 0);
    let fast = subscribe(&broker, "fast");
    world.settle();
    let (slow_id, fast_id) = (slow.id(), fast.id());
    let mut sent = 0;
    while world.peer().deliver(slow_id, "slow", &wide(sent)) {
        sent += 1;
        assert!(sent < 1_000_000, "credit without end");
        if sent % 512 == 0 {
            world.step();
        }
    }
    world.settle();
    let credit = world.peer().current().unwrap().credit;
    assert!(sent * 224 > 1 << 20, "{sent}");
    world.pass(SECOND);
    assert_eq!(
        world.peer().current().unwrap().credit,
        credit,
        "nothing was read"
    );
    // What is free of credit goes on.
    let mut asker = Requester::open(&broker, RequesterOptions::default()).unwrap();
    asker.submit_to(b"echo", b"x", 1, SECOND).unwrap();
    world.settle();
    assert_eq!(asker.receive(1, 0).unwrap().messages().len(), 1);
    // More comes while it is being emptied.
    let (mut numbers, all) = (Vec::new(), sent + 5000);
    world.until("all came", |world| {
        numbers.extend(take_numbers(&world.broker, &small));
        while sent < all && world.peer().deliver(slow_id, "slow", &wide(sent)) {
            sent += 1;
        }
        numbers.len() as u64 == all
    });
    assert!(numbers.into_iter().eq(0..sent));
    world.settle();
    assert!(world.peer().current().unwrap().credit > credit);
    assert!(world.peer().deliver(fast_id, "fast", b""));
    world.settle();
    assert_eq!(take_all(&broker, queue_of(&fast)).len(), 1);
}

#[test]
fn a_queue_that_drops_counts_what_it_drops_and_what_the_server_lost() {
    let mut world = World::connected(9);
    let broker = world.broker.clone();
    let small = queue(&broker, Policy::DropNewest, 4096);
    let subscription = subscribe_on(&broker, "d", "", &small, 0);
    world.settle();
    assert_eq!(world.peer().subscribed[0].3, 3);
    let id = subscription.id();
    for number in 0..100 {
        assert!(world.peer().deliver(id, "d", &wide(number)));
    }
    world.settle();
    let first = take_numbers(&broker, &small).len() as u64;
    assert!(first < 100 && first > 5);
    world.peer().say(|out| {
        let draft = ControlDraft::pair(out, Kind::Event, id, event::GAP).unwrap();
        draft.number(Field::Count, 7).unwrap();
    });
    assert!(world.peer().deliver(id, "d", &wide(100)));
    world.settle();
    let seen = take_all(&broker, &small);
    assert_eq!(seen[0].lost, 100 - first + 7);
    assert_eq!(subscription.counts(), (first + 1, 100 - first + 7));
    assert!(world.told().contains(&Told::Gap(id, 7)));
}

#[test]
fn a_broken_connection_ends_requests_asks_again_and_says_so() {
    let mut world = World::with(10, Faults::default(), options(), 2);
    let broker = world.broker.clone();
    let kept = subscribe(&broker, "kept");
    let gone = subscribe(&broker, "gone");
    world.until("connected", |world| {
        world.peers[0].number_of("gone").is_some()
    });
    world.settle();
    gone.unsubscribe();
    world.peers[0].manners.echoes = false;
    world.peers[1].manners.instance = 2;
    let mut asker = Requester::open(&broker, RequesterOptions::default()).unwrap();
    asker.submit_to(b"x", b"", 1, 100 * SECOND).unwrap();
    world.settle();
    world.peers[0].cut();
    world.until("elsewhere", |world| {
        world.peers[1].number_of("kept").is_some()
    });
    world.settle();
    let batch = asker.receive(10, 0).unwrap();
    let ends: Vec<(u64, u32)> = batch
        .messages()
        .iter()
        .map(|it| (it.token, it.status))
        .collect();
    assert_eq!(ends, [(1, Status::Disconnected as u32)]);
    drop(batch);
    let patterns: Vec<&str> = world.peers[1]
        .subscribed
        .iter()
        .map(|one| &*one.1)
        .collect();
    assert_eq!(patterns, ["kept"]);
    assert!(world.peers[1].deliver(kept.id(), "kept", b"again"));
    world.settle();
    assert_eq!(take_all(&broker, queue_of(&kept)).len(), 1);
    let told = world.told();
    assert_eq!(
        told[0],
        Told::Connected {
            is_again: false,
            is_other_instance: false,
            subscriptions: 2
        }
    );
    assert!(
        matches!(told[1], Told::Disconnected(Status::Disconnected, _, 0)),
        "{told:?}"
    );
    assert_eq!(
        told[2],
        Told::Connected {
            is_again: true,
            is_other_instance: true,
            subscriptions: 1
        }
    );
}

#[test]
fn what_had_not_left_when_the_connection_broke_is_counted() {
    let faults = Faults {
        capacity_bytes: 1000,
        ..Faults::default()
    };
    let mut world = World::with(19, faults, options(), 1);
    world.until("connected", |world| world.peers[0].current().is_some());
    world.settle();
    let broker = world.broker.clone();
    for number in 0..10 {
        publish(&broker, "s", &wide(number)).unwrap();
    }
    // The socket has these, as far as it goes.
    world.drive.turn(&mut world.sockets, 0, 0).unwrap();
    for number in 10..17 {
        publish(&broker, "s", &wide(number)).unwrap();
    }
    world.drive.turn(&mut world.sockets, 0, 0).unwrap();
    world.peer().cut();
    world.until("again", |world| world.peers[0].current().is_some());
    let told = world.told();
    assert!(matches!(told[1], Told::Disconnected(_, _, 7)), "{told:?}");
    publish_number(&broker, "s", 100).unwrap();
    world.settle();
    let last = &world.peer().published.last().unwrap().payload;
    assert_eq!(*last, 100_u64.to_le_bytes());
    assert_eq!(world.peer().faults, Vec::<String>::new());
}

#[test]
fn a_server_that_refuses_is_tried_again_ever_more_slowly() {
    let mut world = World::new(11);
    world.peer().manners.refuses = Some((Reason::Authentication, Status::Denied as u8));
    let start_ns = world.driver.monotonic_ns();
    let mut at = Vec::new();
    world.until("refused often", |world| {
        let count = world.disconnected.load(Ordering::Relaxed) as usize;
        if count > at.len() {
            at.push(world.driver.monotonic_ns() - start_ns);
        }
        count == 12
    });
    let pauses: Vec<u64> = at.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[0] < 50 * MILLISECOND, "{pauses:?}");
    assert!(
        pauses[10] > 2 * SECOND && pauses[10] < 6 * SECOND,
        "{pauses:?}"
    );
    let Told::Disconnected(Status::Denied, why, 0) = &world.told()[0] else {
        panic!("{:?}", world.told());
    };
    assert!(why.contains("go away"), "{why}");
    world.peer().manners.refuses = None;
    world.until("taken", |world| world.peers[0].current().is_some());
}

#[test]
fn a_refused_subscription_is_told() {
    let mut world = World::connected(12);
    world.peer().manners.refuses_subscribe = Some((Reason::Permission, Status::Denied as u8));
    let refused = subscribe(&world.broker, "secret");
    world.settle();
    assert!(
        world
            .told()
            .contains(&Told::Unsubscribed(refused.id(), Status::Denied))
    );
    // What it cannot do is known at once.
    let kept = Message {
        subject: b"k",
        keep_last: true,
        ..Message::default()
    };
    check(
        client(&world.broker, |client| client.writer.publish_message(&kept)),
        Status::Unsupported,
    );
    world.peer().say(|out| {
        let draft = ControlDraft::pair(out, Kind::Error, 0, Reason::Permission as u32).unwrap();
        draft
            .status(Status::Denied as u8)
            .bytes(Field::Subject, b"no.way")
            .unwrap();
    });
    world.settle();
    assert!(
        world
            .told()
            .contains(&Told::Refused("no.way".into(), Status::Denied))
    );
}

#[test]
fn signs_of_life_go_both_ways_and_silence_ends_a_connection() {
    let mut world = World::connected(13);
    world.peer().say(|out| {
        ControlDraft::whole(out, Kind::Ping, 99).unwrap();
    });
    world.settle();
    assert_eq!(world.peer().pongs, [99]);
    world.pass(35 * SECOND);
    assert!(
        (2..=4).contains(&world.peer().pings),
        "{}",
        world.peer().pings
    );
    assert_eq!(world.disconnected.load(Ordering::Relaxed), 0);
    // Alone, without the peer's turns.
    let start_ns = world.driver.monotonic_ns();
    while world.disconnected.load(Ordering::Relaxed) == 0 {
        world.driver.advance(100 * MILLISECOND);
        world.drive.turn(&mut world.sockets, 0, 0).unwrap();
        assert!(world.driver.monotonic_ns() - start_ns < 100 * SECOND);
    }
    let silent_ns = world.driver.monotonic_ns() - start_ns;
    assert!(
        (50 * SECOND..61 * SECOND).contains(&silent_ns),
        "{silent_ns}"
    );
}

#[test]
fn a_mute_server_is_given_up() {
    let mut world = World::new(14);
    world.peer().manners.is_mute = true;
    world.pass(11 * SECOND);
    let told = world.told();
    assert!(
        matches!(&told[0], Told::Disconnected(Status::Timeout, ..)),
        "{told:?}"
    );
}

#[test]
fn a_draining_server_is_left_when_nothing_is_open() {
    let mut world = World::with(15, Faults::default(), options(), 2);
    let broker = world.broker.clone();
    world.until("connected", |world| world.peers[0].current().is_some());
    world.settle();
    world.peers[0].manners.echoes = false;
    let mut asker = Requester::open(&broker, RequesterOptions::default()).unwrap();
    asker.submit_to(b"x", b"", 1, 100 * SECOND).unwrap();
    world.settle();
    world.peers[0].say(|out| {
        let draft = ControlDraft::pair(out, Kind::Drain, 0, 0).unwrap();
        draft.number(Field::DeadlineNs, 10 * SECOND).unwrap();
    });
    world.pass(SECOND);
    assert!(world.peers[0].current().is_some(), "a request is open");
    let correlation = world.peers[0].requests[0].correlation;
    let answer = Draft::answer(correlation, 1, 0, b"done");
    world.peers[0].say(|out| answer.append(out).unwrap());
    world.until("elsewhere", |world| world.peers[1].current().is_some());
    assert_eq!(world.peers[0].closes, 1);
    let batch = asker.receive(1, 0).unwrap();
    assert_eq!(batch.messages()[0].payload(), b"done");
    assert!(world.told().contains(&Told::Draining));
}

#[test]
fn a_draining_server_is_left_when_all_is_answered() {
    let mut world = World::connected(26);
    let broker = world.broker.clone();
    let asked = subscribe(&broker, "ask");
    world.settle();
    for token in 1..=2 {
        let question = Draft::question(asked.id(), Subject::Text(b"ask"), token, b"?");
        assert!(world.peer().send(&question));
    }
    world.settle();
    let seen = take_all(&broker, queue_of(&asked));
    let answer = |token| client(&broker, |client| client.writer.reply(token, 0, b"!", b""));
    answer(seen[0].token).unwrap();
    world.peer().manners.ignores_close = true;
    world.peer().say(|out| {
        let draft = ControlDraft::pair(out, Kind::Drain, 0, 0).unwrap();
        draft.number(Field::DeadlineNs, 100 * SECOND).unwrap();
    });
    world.pass(50 * SECOND);
    assert_eq!(world.peers[0].closes, 0, "it owes an answer");
    answer(seen[1].token).unwrap();
    world.until("said goodbye", |world| world.peers[0].closes == 1);
    let tokens: Vec<u64> = world.peer().replies.iter().map(|it| it.0).collect();
    assert_eq!(tokens, [1, 2]);
}

#[test]
fn closing_sends_what_was_accepted_and_says_goodbye() {
    let mut world = World::connected(16);
    let broker = world.broker.clone();
    for number in 0..1000 {
        publish_number(&broker, "s", number).unwrap();
    }
    broker.close();
    check(publish_number(&broker, "s", 0), Status::Closed);
    world.until("over", |world| world.drive.is_over());
    assert_eq!(world.peer().published.len(), 1000);
    assert_eq!((world.peer().closes, world.peer().faults.len()), (1, 0));
    let mut alone = World::new(17);
    alone.broker.close();
    alone.until("over", |world| world.drive.is_over());
}

#[test]
fn a_client_that_nobody_holds_ends() {
    let mut world = World::new(18);
    // On a thread that ends, as each thread that publishes holds its part of the client.
    let used = std::thread::spawn(|| {
        let driver = Arc::new(SimulatedDriver::new(1));
        let (broker, drive) = link::open("tcp://127.0.0.1:1", options(), driver).unwrap();
        publish_number(&broker, "s", 1).unwrap();
        (drive, broker)
    });
    let (mut drive, broker) = used.join().unwrap();
    drive.turn(&mut world.sockets, 0, 0).unwrap();
    assert!(!drive.is_over());
    drop(broker);
    drive.turn(&mut world.sockets, 0, 0).unwrap();
    assert!(drive.is_over());
}

#[test]
fn options_and_urls_are_checked() {
    let open = |urls: &str, options: ConnectOptions| {
        link::open(urls, options, Arc::new(SimulatedDriver::new(1))).map(|_| ())
    };
    check(open("tcp://127.0.0.1:1", options()), Status::Ok);
    check(open("http://x", options()), Status::Invalid);
    let name = "x".repeat(256);
    check(
        open("unix:/x", ConnectOptions { name, ..options() }),
        Status::Invalid,
    );
    let name = "a\nb".to_owned();
    check(
        open("unix:/x", ConnectOptions { name, ..options() }),
        Status::Invalid,
    );
    let token = vec![0; 4097];
    check(
        open("unix:/x", ConnectOptions { token, ..options() }),
        Status::Invalid,
    );
    let backwards = ConnectOptions {
        backoff_min_ns: 2,
        backoff_max_ns: 1,
        ..options()
    };
    check(open("unix:/x", backwards), Status::Invalid);
    assert!(
        !format!(
            "{:?}",
            ConnectOptions {
                token: b"secret".to_vec(),
                ..options()
            }
        )
        .contains("secret")
    );
}

#[test]
fn a_requester_is_told_to_receive_when_the_connection_takes_no_more() {
    let mut world = World::new(21);
    world.peers[0].manners.echoes = false;
    world.peers[0].manners.grants = false;
    let limits = &mut world.peers[0].manners.limits;
    (limits.frame_max, limits.credit) = (8192, 16384);
    world.until("connected", |world| world.peers[0].current().is_some());
    world.settle();
    let broker = world.broker.clone();
    let mut asker = Requester::open(&broker, RequesterOptions::default()).unwrap();
    let submit = |asker: &mut Requester, token| asker.submit_to(b"ask", &[7; 1000], token, SECOND);
    let mut sent = 0;
    let refused = loop {
        match submit(&mut asker, sent) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.status(), Status::Again, "{refused}");
    assert!((10..=16).contains(&sent), "{sent}");
    assert_eq!(u64::from(asker.in_flight()), sent);
    world.settle();
    assert_eq!(world.peer().requests.len() as u64, sent);
    // Another one has nothing to receive: it is told what it may wait for.
    let mut other = Requester::open(&broker, RequesterOptions::default()).unwrap();
    submit(&mut other, 70).unwrap();
    let batch = other.receive(1, 0).unwrap();
    assert_eq!(batch.messages()[0].status, Status::Busy as u32);
    drop(batch);
    let many = ManyOptions::default();
    let message = Message {
        subject: b"ask",
        payload: &[7; 1000],
        ..Message::default()
    };
    let refused = asker.submit_many(&message, 71, SECOND, &many);
    check(refused, Status::Again);
    assert_eq!(u64::from(asker.in_flight()), sent);
    // With answers and credit it goes on.
    let correlations = world.peer().requests.drain(..);
    let correlations: Vec<u32> = correlations.map(|got| got.correlation).collect();
    world.peer().say(|out| {
        for correlation in correlations {
            Draft::answer(correlation, 0, 0, b"").append(out).unwrap();
        }
        ControlDraft::whole(out, Kind::Credit, 1 << 20).unwrap();
    });
    world.settle();
    let mut answered = 0;
    while let Ok(batch) = asker.receive(64, 0) {
        answered += batch.messages().len() as u64;
    }
    assert_eq!(answered, sent);
    submit(&mut asker, 80).unwrap();
    world.settle();
    assert_eq!(world.peer().requests.len(), 1);
}

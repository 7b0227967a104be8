//! Last values: whoever subscribes late gets what was kept, before anything newer, each message
//! once; whatever is published, subscribed and forgotten at the same time.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::steps::*;
use fastmq_engine::driver::SimulatedDriver;
use fastmq_engine::memory::Policy;
use fastmq_engine::{
    Broker, Delivery, Message, Options, Place, Publisher, Requester, RequesterOptions, Result,
    Status, SubscribeOptions, Subscription,
};

/// Publishes by a handle and keeps.
fn keep(publisher: &mut Publisher, payload: &[u8]) -> Result<()> {
    publisher.publish_message(&Message {
        payload,
        keep_last: true,
        ..Message::default()
    })
}

fn handle_of(broker: &Arc<Broker>, subject: &str) -> Publisher {
    Publisher::open(broker, subject.as_bytes()).unwrap()
}

fn late(broker: &Arc<Broker>, pattern: &str) -> Subscription {
    late_with(broker, pattern, SubscribeOptions::default()).unwrap()
}

fn late_with(
    broker: &Arc<Broker>,
    pattern: &str,
    options: SubscribeOptions<'_>,
) -> Result<Subscription> {
    let options = SubscribeOptions {
        replay_last: true,
        ..options
    };
    broker.subscribe_with(pattern.as_bytes(), options)
}

fn late_on(broker: &Arc<Broker>, pattern: &str, queue: &Arc<Place>) -> Subscription {
    let options = SubscribeOptions {
        queue: Some(queue),
        ..SubscribeOptions::default()
    };
    late_with(broker, pattern, options).unwrap()
}

fn publish_kept(broker: &Arc<Broker>, subject: &str, number: u64) -> Result<()> {
    let message = Message {
        subject: subject.as_bytes(),
        payload: &number.to_le_bytes(),
        keep_last: true,
        ..Message::default()
    };
    client(broker, |client| client.writer.publish_message(&message))
}

fn told(seen: &[Seen]) -> Vec<(&str, u64)> {
    seen.iter()
        .map(|one| (&*one.subject, one.number()))
        .collect()
}

fn take(broker: &Broker, subscription: &Subscription) -> Vec<Seen> {
    take_all(broker, queue_of(subscription))
}

#[test]
fn a_late_subscriber_gets_the_last_value_of_each_subject_then_what_comes() {
    let broker = open();
    let mut a = handle_of(&broker, "state.a");
    let mut b = handle_of(&broker, "state.b");
    keep(&mut a, &1u64.to_le_bytes()).unwrap();
    keep(&mut b, &2u64.to_le_bytes()).unwrap();
    keep(&mut a, &3u64.to_le_bytes()).unwrap();
    publish_kept(&broker, "state.c", 4).unwrap();
    publish_kept(&broker, "other", 5).unwrap();
    assert_eq!(broker.statistics().last_values, 4);
    let all = late(&broker, "state.*");
    let one = late(&broker, "state.b");
    let none = subscribe(&broker, "state.*");
    keep(&mut b, &6u64.to_le_bytes()).unwrap();
    publish_number(&broker, "state.a", 7).unwrap();
    // In the order in which they were kept.
    let seen = take(&broker, &all);
    let expected = [
        ("state.b", 2),
        ("state.a", 3),
        ("state.c", 4),
        ("state.b", 6),
        ("state.a", 7),
    ];
    assert_eq!(told(&seen), expected);
    assert_eq!((seen[1].sequence, seen[2].sequence), (2, 0));
    assert!(seen.iter().all(|one| one.id == all.id() && one.lost == 0));
    assert_eq!(told(&take(&broker, &one)), [("state.b", 2), ("state.b", 6)]);
    assert_eq!(
        told(&take(&broker, &none)),
        [("state.b", 6), ("state.a", 7)]
    );
    assert_eq!(all.counts(), (5, 0));
    // What does not ask to be kept is not.
    assert_eq!(
        told(&take(&broker, &late(&broker, "state.a"))),
        [("state.a", 3)]
    );
}

#[test]
fn a_handle_keeps_what_it_says_and_nothing_else() {
    let broker = open();
    let _others = [subscribe(&broker, "a"), subscribe(&broker, "*")];
    let mut publisher = handle_of(&broker, "a");
    for number in 0..40u64 {
        let payload = number.to_le_bytes();
        if number % 2 == 0 {
            publisher
                .publish_message(&Message {
                    payload: &payload,
                    key: b"k",
                    headers: b"",
                    reply_to: b"to.me",
                    keep_last: true,
                    ..Message::default()
                })
                .unwrap();
        } else {
            publisher.publish(&payload).unwrap();
        }
        let late = late(&broker, "a");
        let seen = take(&broker, &late);
        assert_eq!(told(&seen), [("a", number & !1)]);
        assert_eq!(seen[0].sequence, (number & !1) + 1);
        late.unsubscribe();
    }
    // A large payload goes by block and is kept as a copy; an empty one is a value, too.
    keep(&mut publisher, &[9; 20_000]).unwrap();
    let seen = take(&broker, &late(&broker, "a"));
    assert_eq!(seen[0].payload, vec![9; 20_000]);
    keep(&mut publisher, b"").unwrap();
    assert_eq!(take(&broker, &late(&broker, "a"))[0].payload, b"");
}

#[test]
fn what_was_refused_is_not_kept() {
    let broker = open();
    let full = queue(&broker, Policy::Backpressure, SMALL);
    let _subscription = subscribe_on(&broker, "a", "", &full, 0);
    let mut publisher = handle_of(&broker, "a");
    let mut accepted = 0;
    while keep(&mut publisher, &wide(accepted)).is_ok() {
        accepted += 1;
    }
    assert_eq!(
        told(&take(&broker, &late(&broker, "a"))),
        [("a", accepted - 1)]
    );
    check(publish_kept(&broker, "b.no", 1), Status::Ok);
    take_all(&broker, &full);
    keep(&mut publisher, &wide(accepted)).unwrap();
    assert_eq!(told(&take(&broker, &late(&broker, "a"))), [("a", accepted)]);
}

#[test]
fn a_value_is_forgotten_and_may_come_again() {
    let broker = open();
    publish_kept(&broker, "a", 1).unwrap();
    check(broker.forget_last(b"b"), Status::NotFound);
    check(broker.forget_last(b"a.*"), Status::Invalid);
    check(broker.forget_last(b"a"), Status::Ok);
    check(broker.forget_last(b"a"), Status::NotFound);
    assert_eq!(broker.statistics().last_values, 0);
    let before = late(&broker, "a");
    assert_eq!(take(&broker, &before), []);
    publish_kept(&broker, "a", 2).unwrap();
    assert_eq!(told(&take(&broker, &before)), [("a", 2)]);
    assert_eq!(told(&take(&broker, &late(&broker, "a"))), [("a", 2)]);
}

#[test]
fn a_value_that_has_expired_does_not_come() {
    let (broker, driver) = open_simulated(1);
    let message = Message {
        subject: b"a",
        payload: &1u64.to_le_bytes(),
        ttl_ns: 1000,
        keep_last: true,
        ..Message::default()
    };
    client(&broker, |client| client.writer.publish_message(&message)).unwrap();
    let in_time = late(&broker, "a");
    let too_late = late(&broker, "*");
    assert_eq!(told(&take(&broker, &in_time)), [("a", 1)]);
    driver.advance(2000);
    assert_eq!(take(&broker, &too_late), [], "it expired in the queue");
    assert_eq!(queue_of(&too_late).statistics().expired, 1);
    assert_eq!(take(&broker, &late(&broker, "*")), []);
    assert_eq!(broker.statistics().last_values, 0);
}

/// Values that nobody will get make room for others: places in the table, and memory.
#[test]
fn values_that_have_expired_make_room() {
    for (memory_max, count) in [(0, 65_536), (64 << 10, 1000)] {
        let driver = Arc::new(SimulatedDriver::new(1));
        let options = Options {
            memory_max,
            ..Options::default()
        };
        let broker = Broker::open(options, driver.clone()).unwrap();
        let keep = |number: u64, ttl_ns| {
            let subject = format!("a.{number}");
            let message = Message {
                subject: subject.as_bytes(),
                payload: b"value",
                ttl_ns,
                keep_last: true,
                ..Message::default()
            };
            client(&broker, |client| client.writer.publish_message(&message))
        };
        keep(count, 0).unwrap();
        let room = (0..count)
            .find(|number| keep(*number, 1 << 40).is_err())
            .unwrap();
        check(keep(room, 0), Status::NoSpace);
        driver.advance(2 << 40);
        check(keep(room, 1 << 40), Status::Ok);
        let late = late(&broker, ">");
        let subjects: Vec<_> = take(&broker, &late)
            .into_iter()
            .map(|one| one.subject)
            .collect();
        assert_eq!(subjects, [format!("a.{count}"), format!("a.{room}")]);
        late.unsubscribe();
        // Once more: what expires first is known again.
        for number in 0..room - 1 {
            keep(number, 1 << 40).unwrap();
        }
        check(keep(count + 1, 0), Status::NoSpace);
        driver.advance(2 << 40);
        check(keep(count + 1, 0), Status::Ok);
    }
}

#[test]
fn handlers_latest_queues_and_small_batches_get_them_first() {
    let broker = open();
    for number in 0..10 {
        publish_kept(&broker, &format!("a.{number}"), number).unwrap();
    }
    let expected: Vec<u64> = (0..10).collect();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = |delivery| {
        let heard = heard.clone();
        let options = SubscribeOptions {
            delivery,
            on_message: Some(Box::new(move |view| {
                heard.lock().unwrap().push(Seen::of(view))
            })),
            ..SubscribeOptions::default()
        };
        late_with(&broker, "a.*", options).unwrap()
    };
    let dispatched = hear(Delivery::Dispatch);
    publish_number(&broker, "a.0", 10).unwrap();
    broker.dispatch(0, 0).unwrap();
    let numbers = |seen: Vec<Seen>| seen.iter().map(Seen::number).collect::<Vec<_>>();
    let seen = std::mem::take(&mut *heard.lock().unwrap());
    assert_eq!(numbers(seen), (0..=10).collect::<Vec<_>>());
    dispatched.unsubscribe();
    let threaded = hear(Delivery::Thread);
    until("the thread has heard them", || {
        heard.lock().unwrap().len() == 10
    });
    threaded.unsubscribe();
    assert_eq!(
        numbers(std::mem::take(&mut *heard.lock().unwrap())),
        expected
    );

    let latest = queue(&broker, Policy::Latest, 0);
    let _late = late_on(&broker, "a.*", &latest);
    publish_number(&broker, "a.3", 30).unwrap();
    publish_number(&broker, "a.3", 31).unwrap();
    assert_eq!(latest.statistics().pending, 11);
    let mut seen = Vec::new();
    while let Ok(batch) = latest.receive(&broker, 4, 0) {
        assert!(batch.messages().len() <= 4);
        seen.extend(batch.messages().iter().map(Seen::of));
    }
    assert_eq!(numbers(seen), [&expected[..], &[31]].concat());
}

#[test]
fn a_shared_queue_gets_them_for_the_newcomer_alone() {
    let broker = open();
    let place = queue(&broker, Policy::Backpressure, 0);
    let first = subscribe_on(&broker, "a", "", &place, 0);
    publish_kept(&broker, "a", 1).unwrap();
    let second = late_on(&broker, "a", &place);
    let seen = take_all(&broker, &place);
    let ids: Vec<_> = seen.iter().map(|one| one.id).collect();
    assert_eq!(ids, [second.id(), first.id()]);
    // One that leaves before it was served gets nothing.
    let third = late_on(&broker, "a", &place);
    assert_eq!(place.statistics().pending, 1);
    third.unsubscribe();
    assert_eq!(place.statistics().pending, 0);
    assert_eq!(take_all(&broker, &place), []);
}

#[test]
fn what_cannot_be_is_refused() {
    let broker = open();
    let inline = SubscribeOptions {
        delivery: Delivery::Inline,
        on_message: Some(Box::new(|_| ())),
        ..SubscribeOptions::default()
    };
    check(late_with(&broker, "a", inline), Status::Invalid);
    let grouped = SubscribeOptions {
        group: b"g",
        ..SubscribeOptions::default()
    };
    check(late_with(&broker, "a", grouped), Status::Invalid);
    let question = Message {
        subject: b"a",
        keep_last: true,
        ..Message::default()
    };
    check(
        client(&broker, |client| client.request(&question, 0, |_| ())),
        Status::Invalid,
    );
    let mut asker = Requester::open(&broker, RequesterOptions::default()).unwrap();
    check(asker.submit_message(&question, 1, 0), Status::Invalid);
    let figures = broker.statistics();
    assert_eq!((figures.last_values, figures.subscriptions), (0, 0));
}

#[test]
fn whoever_subscribes_in_the_middle_of_a_publish_gets_the_old_value_and_the_new_one_once() {
    let broker = open();
    let mut publisher = handle_of(&broker, "a");
    keep(&mut publisher, &1u64.to_le_bytes()).unwrap();
    let newcomers = Arc::new(Mutex::new(Vec::new()));
    let (there, list) = (Arc::downgrade(&broker), newcomers.clone());
    // Its handler runs while the publish is under way.
    let inline = handle(&broker, "a", Delivery::Inline, move |_| {
        let broker = there.upgrade().unwrap();
        let late = late(&broker, "a");
        let seen = take(&broker, &late);
        list.lock().unwrap().push((late, told_owned(&seen)));
    });
    keep(&mut publisher, &2u64.to_le_bytes()).unwrap();
    publish_kept(&broker, "a", 3).unwrap();
    inline.unsubscribe();
    keep(&mut publisher, &4u64.to_le_bytes()).unwrap();
    let newcomers = std::mem::take(&mut *newcomers.lock().unwrap());
    let at_once: Vec<_> = newcomers.iter().map(|one| one.1.clone()).collect();
    assert_eq!(at_once, [[1], [2]]);
    let later: Vec<_> = newcomers
        .iter()
        .map(|one| told_owned(&take(&broker, &one.0)))
        .collect();
    assert_eq!(later, [vec![2, 3, 4], vec![3, 4]]);
    assert_eq!(told(&take(&broker, &late(&broker, "a"))), [("a", 4)]);
}

#[test]
fn what_a_handler_publishes_inside_a_publish_is_newer() {
    let broker = open();
    let newcomers = Arc::new(Mutex::new(Vec::new()));
    let (there, list) = (Arc::downgrade(&broker), newcomers.clone());
    let inline = handle(&broker, "a", Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        if number_of(view.payload()) == 1 {
            publish_kept(&broker, "a", 2).unwrap();
            list.lock().unwrap().push(late(&broker, "a"));
        }
    });
    publish_kept(&broker, "a", 1).unwrap();
    inline.unsubscribe();
    assert_eq!(told(&take(&broker, &late(&broker, "a"))), [("a", 2)]);
    // It has the newer one, so it does not get the older one behind it.
    let newcomers = std::mem::take(&mut *newcomers.lock().unwrap());
    assert_eq!(told_owned(&take(&broker, &newcomers[0])), [2]);
    publish_kept(&broker, "a", 3).unwrap();
    assert_eq!(told_owned(&take(&broker, &newcomers[0])), [3]);
}

#[test]
fn nothing_is_kept_by_a_client_that_is_closed() {
    let broker = open();
    let there = Arc::downgrade(&broker);
    let mut publisher = handle_of(&broker, "a");
    let _inline = handle(&broker, "a", Delivery::Inline, move |_| {
        there.upgrade().unwrap().close();
    });
    let _ = keep(&mut publisher, b"1");
    check(keep(&mut publisher, b"2"), Status::Closed);
    let figures = broker.statistics();
    assert_eq!((figures.last_values, figures.memory), (0, 0));
}

fn told_owned(seen: &[Seen]) -> Vec<u64> {
    seen.iter().map(Seen::number).collect()
}

#[test]
fn a_handler_that_unwinds_ends_the_publish_all_the_same() {
    let broker = open();
    let place = queue(&broker, Policy::Backpressure, 0);
    let _queued = subscribe_on(&broker, "a", "", &place, 0);
    let inline = handle(&broker, "a", Delivery::Inline, |_| {
        panic!("a handler's own")
    });
    let unwound = catch_unwind(AssertUnwindSafe(|| publish_kept(&broker, "a", 1)));
    assert!(unwound.is_err());
    inline.unsubscribe();
    let late = late(&broker, "a");
    assert_eq!(told(&take(&broker, &late)), [("a", 1)]);
    publish_kept(&broker, "a", 2).unwrap();
    assert_eq!(told(&take(&broker, &late)), [("a", 2)]);
    assert_eq!(broker.statistics().last_values, 1);
}

#[test]
fn there_are_so_many_and_no_more_and_memory_max_counts_them() {
    const MAX: u64 = 65_536;
    let broker = open();
    for number in 0..MAX {
        publish_kept(&broker, &format!("many.{number}"), number).unwrap();
    }
    let one_more = publish_kept(&broker, "one.more", 0).unwrap_err();
    assert_eq!(one_more.status(), Status::NoSpace, "{one_more}");
    check(publish_kept(&broker, "many.7", 8), Status::Ok);
    check(broker.forget_last(b"many.9"), Status::Ok);
    check(publish_kept(&broker, "one.more", 0), Status::Ok);
    let late = late(&broker, ">");
    assert_eq!(queue_of(&late).statistics().pending, MAX);
    assert_eq!(take(&broker, &late).len() as u64, MAX);
    assert!(broker.statistics().memory > MAX * 100);
    broker.close();
    assert_eq!(broker.statistics().memory, 0);

    let broker = open_with(Options {
        memory_max: 64 << 10,
        ..Options::default()
    });
    let mut kept = 0;
    let refused = loop {
        match publish_kept(&broker, &format!("many.{kept}"), kept) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.status(), Status::NoSpace, "{refused}");
    assert!((50..500).contains(&kept), "{kept}");
    assert_eq!(broker.statistics().last_values, kept);
}

#[test]
fn drain_waits_for_them_and_an_open_batch_outlives_them() {
    let broker = open();
    publish_kept(&broker, "a", 1).unwrap();
    let late = late(&broker, "a");
    check(broker.drain(0), Status::Timeout);
    let batch = queue_of(&late).receive(&broker, 1, 0).unwrap();
    broker.close();
    assert_eq!(number_of(batch.messages()[0].payload()), 1);
    assert_eq!(batch.messages()[0].subject(), b"a");
    drop(batch);
    assert_eq!(broker.statistics().memory, 0);
}

#[test]
fn under_load_no_newcomer_misses_doubles_or_reorders_anything() {
    const PUBLISHERS: usize = 2;
    const SUBJECTS: usize = 3;
    const ROUNDS: usize = if cfg!(fastmq_tsan) { 100 } else { 1500 };
    let broker = open();
    let is_over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..PUBLISHERS)
        .map(|writer| {
            let (broker, is_over) = (broker.clone(), is_over.clone());
            std::thread::spawn(move || {
                let subject = |at: usize| format!("load.{writer}.{at}");
                let mut handles: Vec<_> = (0..SUBJECTS)
                    .map(|at| handle_of(&broker, &subject(at)))
                    .collect();
                let mut numbers = [0; SUBJECTS];
                while !is_over.load(Ordering::Relaxed) {
                    for (at, handle) in handles.iter_mut().enumerate() {
                        numbers[at] += 1;
                        let number: u64 = numbers[at];
                        // By string and by handle in turn, by one thread: in order all the same.
                        if at == 0 {
                            publish_kept(&broker, &subject(at), number).unwrap();
                        } else {
                            keep(handle, &number.to_le_bytes()).unwrap();
                        }
                    }
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    // Some subscribe for one queue that is read all the time, some for their own.
    let shared = queue(&broker, Policy::Backpressure, 0);
    let reader = {
        let (broker, shared, is_over) = (broker.clone(), shared.clone(), is_over.clone());
        std::thread::spawn(move || {
            let mut newest: HashMap<(u32, String), u64> = HashMap::new();
            let mut firsts = 0;
            while !is_over.load(Ordering::Relaxed) {
                let Ok(batch) = shared.receive(&broker, 50, MILLISECOND) else {
                    continue;
                };
                for view in batch.messages() {
                    let seen = Seen::of(view);
                    let number = seen.number();
                    let key = (seen.id, seen.subject);
                    match newest.insert(key, number) {
                        Some(before) => assert_eq!(number, before + 1, "{view:?}"),
                        None => firsts += 1,
                    }
                }
            }
            firsts
        })
    };
    until("each subject has a value", || {
        broker.statistics().last_values as usize == PUBLISHERS * SUBJECTS
    });
    for round in 0..ROUNDS {
        let on_shared = late_on(&broker, "load.>", &shared);
        let own = late(&broker, "load.>");
        let mut newest: HashMap<String, u64> = HashMap::new();
        let mut count = 0;
        while count < 3 * PUBLISHERS * SUBJECTS {
            let batch = queue_of(&own).receive(&broker, 100, PATIENCE_NS).unwrap();
            for view in batch.messages() {
                let seen = Seen::of(view);
                let number = seen.number();
                if let Some(before) = newest.insert(seen.subject, number) {
                    assert_eq!(number, before + 1, "round {round}: {view:?}");
                }
                count += 1;
            }
        }
        assert_eq!(
            newest.len(),
            PUBLISHERS * SUBJECTS,
            "a value of each subject"
        );
        own.unsubscribe();
        on_shared.unsubscribe();
    }
    is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(reader.join().unwrap() > 0);
}

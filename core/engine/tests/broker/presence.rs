//! Presence: who subscribes and who leaves is told in that order on reserved subjects, to all who
//! listen, also to those who come late; nobody waits for a listener, nobody else publishes there.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::steps::*;
use fastmq_engine::memory::{Policy, View};
use fastmq_engine::presence::{HEADER_SUBSCRIPTION, SUBJECT_JOINED, SUBJECT_LEFT};
use fastmq_engine::{
    Broker, Delivery, GroupMode, ManyOptions, Message, Options, Place, Publisher, Ready, Requester,
    RequesterOptions, Status, SubscribeOptions, Subscription, Timestamps, headers,
};

/// What one event says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    subject: String,
    pattern: String,
    group: String,
    id: u32,
    lost: u64,
}

impl Event {
    fn of(view: &View) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let name = HEADER_SUBSCRIPTION.as_bytes();
        let id = text(headers::get(view.headers(), name).unwrap());
        Self {
            subject: text(view.subject()),
            pattern: text(view.payload()),
            group: text(view.key()),
            id: id.parse().unwrap(),
            lost: u64::from(view.lost_before),
        }
    }

    fn has_joined(&self) -> bool {
        self.subject.starts_with(SUBJECT_JOINED)
    }

    /// What it says in short.
    fn line(&self) -> String {
        let what = if self.has_joined() { '+' } else { '-' };
        format!("{what}{}", self.pattern)
    }
}

fn take_events(broker: &Broker, queue: &Place) -> Vec<Event> {
    let mut events = Vec::new();
    while let Ok(batch) = queue.receive(broker, 100, 0) {
        events.extend(batch.messages().iter().map(Event::of));
    }
    events
}

fn take(broker: &Broker, listener: &Subscription) -> Vec<Event> {
    take_events(broker, queue_of(listener))
}

fn lines(broker: &Broker, listener: &Subscription) -> Vec<String> {
    take(broker, listener).iter().map(Event::line).collect()
}

fn late(broker: &Arc<Broker>, pattern: &str, queue: Option<&Arc<Place>>) -> Subscription {
    let options = SubscribeOptions {
        queue,
        replay_last: true,
        ..SubscribeOptions::default()
    };
    broker.subscribe_with(pattern.as_bytes(), options).unwrap()
}

#[test]
fn who_joins_and_who_leaves_is_told_in_order() {
    let broker = open();
    let listener = subscribe(&broker, "$SYS.>");
    let a = subscribe(&broker, "room.1");
    let queue = queue(&broker, Policy::Backpressure, 0);
    let b = subscribe_on(&broker, "room.*", "workers", &queue, 7);
    a.unsubscribe();
    let c = handle(&broker, ">", Delivery::Inline, |_| {});
    c.unsubscribe();
    // A second end is none.
    c.unsubscribe();
    broker.close_queue(&queue);
    let event = |subject: &str, pattern: &str, group: &str, of: &Subscription| Event {
        subject: subject.into(),
        pattern: pattern.into(),
        group: group.into(),
        id: of.id(),
        lost: 0,
    };
    let expected = [
        event("$SYS.JOINED.room.1", "room.1", "", &a),
        event("$SYS.JOINED.room.(*)", "room.*", "workers", &b),
        event("$SYS.LEFT.room.1", "room.1", "", &a),
        event("$SYS.JOINED.(>)", ">", "", &c),
        event("$SYS.LEFT.(>)", ">", "", &c),
        event("$SYS.LEFT.room.(*)", "room.*", "workers", &b),
    ];
    assert_eq!(take(&broker, &listener), expected);
    assert_eq!(listener.counts(), (6, 0));
}

#[test]
fn a_listener_hears_of_the_patterns_that_it_asks_for() {
    let broker = open();
    let joined = subscribe(&broker, "$SYS.JOINED.room.>");
    let left = subscribe(&broker, "$SYS.LEFT.>");
    let wild = subscribe(&broker, "$SYS.JOINED.*.(*)");
    let exact = subscribe(&broker, "$SYS.JOINED.room.(>)");
    let both = subscribe(&broker, "$SYS.*.door");
    // Wildcards in the first token are for the subjects of users.
    let users = [subscribe(&broker, ">"), subscribe(&broker, "*.>")];
    let other = subscribe(&broker, "$SYS.OTHER.>");
    drop(take(&broker, &joined));
    for pattern in ["room.1", "room.*", "room.>", "door", "$SYSTEM.x"] {
        subscribe(&broker, pattern).unsubscribe();
    }
    let all = ["+room.1", "+room.*", "+room.>"];
    assert_eq!(lines(&broker, &joined), all);
    let all = ["-room.1", "-room.*", "-room.>", "-door", "-$SYSTEM.x"];
    assert_eq!(lines(&broker, &left), all);
    assert_eq!(lines(&broker, &wild), ["+room.*"]);
    assert_eq!(lines(&broker, &exact), ["+room.>"]);
    assert_eq!(lines(&broker, &both), ["+door", "-door"]);
    assert!(lines(&broker, &other).is_empty());
    for user in users {
        assert!(take_all(&broker, queue_of(&user)).is_empty());
    }
}

#[test]
fn a_pattern_that_does_not_fit_is_told_on_the_subject_alone() {
    let broker = open();
    let listener = subscribe(&broker, "$SYS.JOINED");
    let below = subscribe(&broker, "$SYS.JOINED.>");
    let long = ["x"; 64].join(".");
    let longest = "y".repeat(1024);
    let subscriptions = [subscribe(&broker, &long), subscribe(&broker, &longest)];
    let events = take(&broker, &listener);
    assert_eq!(events.len(), 2);
    for (event, subscription) in events.iter().zip(&subscriptions) {
        assert_eq!(
            (&*event.subject, event.id),
            (SUBJECT_JOINED, subscription.id())
        );
        assert_eq!(event.pattern.as_bytes(), subscription.pattern());
    }
    assert!(take(&broker, &below).is_empty());
}

#[test]
fn two_subscriptions_of_one_queue_are_told_in_one_order() {
    let broker = open();
    let queue = queue(&broker, Policy::Backpressure, 0);
    let _joined = subscribe_on(&broker, "$SYS.JOINED.>", "", &queue, 1);
    let _left = subscribe_on(&broker, "$SYS.LEFT.>", "", &queue, 2);
    let mut expected = Vec::new();
    // More than a writer puts into the shared lane.
    for number in 0..100 {
        let pattern = format!("room.{number}");
        subscribe(&broker, &pattern).unsubscribe();
        expected.extend([format!("+{pattern}"), format!("-{pattern}")]);
    }
    let events = take_events(&broker, &queue);
    let lines: Vec<_> = events.iter().map(Event::line).collect();
    assert_eq!(lines, expected);
}

#[test]
fn a_late_listener_hears_first_who_is_there() {
    let broker = open();
    let a = subscribe(&broker, "room.a");
    let gone = subscribe(&broker, "room.b");
    let options = SubscribeOptions {
        group: b"g",
        group_mode: GroupMode::KeyShared,
        ..SubscribeOptions::default()
    };
    let c = broker.subscribe_with(b"room.*", options).unwrap();
    let _elsewhere = subscribe(&broker, "hall");
    let _deaf = subscribe(&broker, "$SYS.JOINED.room.>");
    gone.unsubscribe();
    let listener = late(&broker, "$SYS.*.room.>", None);
    let none = late(&broker, "$SYS.LEFT.>", None);
    assert_eq!(broker.statistics().last_values, 0);
    let d = subscribe(&broker, "room.d");
    a.unsubscribe();
    let events = take(&broker, &listener);
    let present: HashSet<_> = events[..2]
        .iter()
        .map(|one| (one.id, &*one.group))
        .collect();
    assert_eq!(present, HashSet::from([(a.id(), ""), (c.id(), "g")]));
    assert!(events[..2].iter().all(Event::has_joined));
    let rest: Vec<_> = events[2..].iter().map(|one| (one.line(), one.id)).collect();
    let expected = [("+room.d".into(), d.id()), ("-room.a".into(), a.id())];
    assert_eq!(rest, expected);
    assert_eq!(lines(&broker, &none), ["-room.a"]);
}

#[test]
fn who_is_there_takes_no_room_of_a_queue() {
    let broker = open();
    let subscriptions: Vec<_> = (0..300)
        .map(|number| subscribe(&broker, &format!("some.room.{number}")))
        .collect();
    let queue = queue(&broker, Policy::Backpressure, SMALL);
    let listener = late(&broker, "$SYS.JOINED.>", Some(&queue));
    let events = take_events(&broker, &queue);
    let ids: HashSet<_> = events.iter().map(|event| event.id).collect();
    let all = subscriptions.iter().map(Subscription::id).collect();
    assert_eq!((events.len(), ids), (300, all));
    assert_eq!(listener.counts(), (300, 0));
    // Without memory for it there is no listener.
    let options = Options {
        memory_max: 64 << 10,
        ..Options::default()
    };
    let small = open_with(options);
    let subscriptions: Vec<_> = (0..300)
        .map(|number| subscribe(&small, &format!("some.room.{number}")))
        .collect();
    let options = SubscribeOptions {
        replay_last: true,
        ..SubscribeOptions::default()
    };
    check(small.subscribe_with(b"$SYS.>", options), Status::NoSpace);
    assert_eq!(small.statistics().memory, 0);
    assert_eq!(small.statistics().subscriptions, 300);
    drop(subscriptions);
}

#[test]
fn a_full_listener_loses_events_and_is_told() {
    for policy in [Policy::Backpressure, Policy::DropNewest, Policy::DropOldest] {
        let broker = open();
        let queue = queue(&broker, policy, SMALL);
        let listener = subscribe_on(&broker, "$SYS.>", "", &queue, 0);
        let mut told = 0;
        for number in 0..200 {
            subscribe(&broker, &format!("room.{number}")).unsubscribe();
            told += 2;
        }
        let first = take_events(&broker, &queue);
        let last = subscribe(&broker, "room.last");
        told += 1;
        let rest = take_events(&broker, &queue);
        // Whatever the policy, the oldest stay.
        assert_eq!(first[0].line(), "+room.0", "{policy:?}");
        assert_eq!((rest.len(), rest[0].id), (1, last.id()), "{policy:?}");
        let (received, lost) = (first.len() as u64 + 1, rest[0].lost);
        assert!(lost > 100, "{policy:?}: {lost}");
        assert_eq!(received + lost, told, "{policy:?}");
        assert_eq!(listener.counts(), (received, lost), "{policy:?}");
        assert_eq!(queue.statistics().dropped, lost, "{policy:?}");
        assert_eq!(broker.statistics().refused, 0);
    }
}

#[test]
fn a_queue_too_small_for_an_event_drops_it() {
    let broker = open();
    let queue = queue(&broker, Policy::Backpressure, SMALL);
    let listener = subscribe_on(&broker, "$SYS.>", "", &queue, 0);
    // Twice in the event: more than half of the queue.
    let long = subscribe(&broker, &"x".repeat(1000));
    let short = subscribe(&broker, "x");
    let events = take_events(&broker, &queue);
    assert_eq!(
        (events.len(), events[0].id, events[0].lost),
        (1, short.id(), 1)
    );
    assert_eq!(listener.counts(), (1, 1));
    drop(long);
}

#[test]
fn handlers_hear_of_presence_and_may_use_the_client() {
    for delivery in [Delivery::Thread, Delivery::Dispatch] {
        let broker = open();
        let there = Arc::downgrade(&broker);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let heard_in = heard.clone();
        let listener = handle(&broker, "$SYS.*.door.>", delivery, move |view| {
            let event = Event::of(view);
            heard_in.lock().unwrap().push(event.line());
            // One is answered by one, whose end is heard, too.
            if event.line() == "+door.1" {
                let broker = there.upgrade().unwrap();
                subscribe(&broker, "door.2").unsubscribe();
            }
        });
        let door = subscribe(&broker, "door.1");
        let expected = ["+door.1", "+door.2", "-door.2"];
        until("the handler has heard all", || {
            if delivery == Delivery::Dispatch {
                let _ = broker.dispatch(100, 0);
            }
            heard.lock().unwrap().len() == expected.len()
        });
        assert_eq!(*heard.lock().unwrap(), expected);
        listener.unsubscribe();
        door.unsubscribe();
        assert_eq!(heard.lock().unwrap().len(), expected.len());
        broker.close();
    }
}

#[test]
fn a_handler_may_end_itself_and_is_told_no_more() {
    let broker = open();
    let slot: Arc<Mutex<Option<Subscription>>> = Arc::default();
    let (slot_in, calls) = (slot.clone(), Arc::new(AtomicU64::new(0)));
    let calls_in = calls.clone();
    let listener = handle(&broker, "$SYS.>", Delivery::Dispatch, move |_| {
        calls_in.fetch_add(1, Ordering::Relaxed);
        slot_in.lock().unwrap().take().unwrap().unsubscribe();
    });
    *slot.lock().unwrap() = Some(listener);
    let subscriptions = [subscribe(&broker, "a"), subscribe(&broker, "b")];
    broker.dispatch(100, 0).unwrap();
    let _third = subscribe(&broker, "c");
    let _ = broker.dispatch(100, 0);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    drop(subscriptions);
}

#[test]
fn a_listener_that_ended_is_told_no_more() {
    let broker = open();
    let queue = queue(&broker, Policy::Backpressure, 0);
    let first = subscribe_on(&broker, "$SYS.>", "", &queue, 1);
    let second = subscribe_on(&broker, "$SYS.>", "", &queue, 2);
    let _a = subscribe(&broker, "a");
    first.unsubscribe();
    let _b = subscribe(&broker, "b");
    let seen = take_all(&broker, &queue);
    let told: Vec<_> = seen.iter().map(|one| (one.tag, &*one.subject)).collect();
    // What waits for a subscription that has ended is not delivered.
    assert_eq!(told, [(2, "$SYS.JOINED.a"), (2, "$SYS.JOINED.b")]);
    second.unsubscribe();
    let _c = subscribe(&broker, "c");
    assert_eq!(queue.statistics().pending, 0);
}

#[test]
fn closing_a_queue_tells_of_all_its_subscriptions_and_closing_the_client_of_none() {
    let broker = open();
    let listener = subscribe(&broker, "$SYS.>");
    let queue = queue(&broker, Policy::Backpressure, 0);
    let mut ids = HashSet::new();
    for pattern in ["a", "b.*", "$SYS.JOINED.>", "c.>"] {
        let subscription = subscribe_on(&broker, pattern, "", &queue, 0);
        if !pattern.starts_with('$') {
            ids.insert(subscription.id());
        }
    }
    drop(take(&broker, &listener));
    broker.close_queue(&queue);
    let events = take(&broker, &listener);
    assert!(events.iter().all(|event| !event.has_joined()));
    assert_eq!(events.len(), 3);
    assert_eq!(events.iter().map(|one| one.id).collect::<HashSet<_>>(), ids);

    let _stays = subscribe(&broker, "stays");
    assert_eq!(lines(&broker, &listener), ["+stays"]);
    let place = queue_of(&listener).clone();
    broker.close();
    assert_eq!(place.statistics().pending, 0);
    assert_eq!(broker.statistics().subscriptions, 0);
}

#[test]
fn a_client_that_drains_tells_nothing_more() {
    let broker = open();
    let listener = subscribe(&broker, "$SYS.>");
    let a = subscribe(&broker, "a");
    assert_eq!(lines(&broker, &listener), ["+a"]);
    broker.drain(PATIENCE_NS).unwrap();
    a.unsubscribe();
    check(queue_of(&listener).receive(&broker, 10, 0), Status::End);
}

#[test]
fn a_reader_that_sleeps_is_woken() {
    let broker = open();
    let listener = subscribe(&broker, "$SYS.>");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let queue = queue_of(&listener);
            let mut lines = Vec::new();
            while lines.len() < 20 {
                let batch = queue.receive(&broker, 10, PATIENCE_NS).unwrap();
                lines.extend(batch.messages().iter().map(|view| Event::of(view).line()));
            }
            lines
        });
        for _ in 0..10 {
            let queue = queue_of(&listener);
            until("the reader has all and sleeps", || {
                queue.statistics().pending == 0
            });
            subscribe(&broker, "a").unsubscribe();
        }
        assert_eq!(reader.join().unwrap(), ["+a", "-a"].repeat(10));
    });
}

#[test]
fn reserved_subjects_are_for_the_library() {
    let broker = open();
    let _listener = subscribe(&broker, "$SYS.>");
    for subject in ["$SYS", "$SYS.JOINED.a", "$SYS.mine"] {
        let bytes = subject.as_bytes();
        for _ in 0..3 {
            check(publish(&broker, subject, b"x"), Status::Denied);
        }
        for keep_last in [false, true] {
            let message = Message {
                subject: bytes,
                ttl_ns: 1,
                keep_last,
                ..Message::default()
            };
            let sent = client(&broker, |client| client.writer.publish_message(&message));
            check(sent, Status::Denied);
        }
        check(Publisher::open(&broker, bytes), Status::Denied);
        let options = RequesterOptions {
            subject: bytes,
            ..RequesterOptions::default()
        };
        check(Requester::open(&broker, options), Status::Denied);
        let mut requester = Requester::open(&broker, RequesterOptions::default()).unwrap();
        let message = Message {
            subject: bytes,
            ..Message::default()
        };
        check(
            requester.submit_message(&message, 1, MILLISECOND),
            Status::Denied,
        );
        let many = ManyOptions::default();
        check(
            requester.submit_many(&message, 1, MILLISECOND, &many),
            Status::Denied,
        );
    }
    publish(&broker, "$SYSTEM", b"x").unwrap();
    publish(&broker, "a.$SYS.JOINED", b"x").unwrap();
}

#[test]
fn a_listener_needs_a_queue_of_its_own_order() {
    let broker = open();
    let options = || SubscribeOptions {
        on_message: None,
        ..SubscribeOptions::default()
    };
    let latest = queue(&broker, Policy::Latest, 0);
    let refused = [
        SubscribeOptions {
            group: b"g",
            ..options()
        },
        SubscribeOptions {
            policy: Policy::Latest,
            ..options()
        },
        SubscribeOptions {
            queue: Some(&latest),
            ..options()
        },
        SubscribeOptions {
            delivery: Delivery::Inline,
            on_message: Some(Box::new(|_| {})),
            ..options()
        },
    ];
    for options in refused {
        let result = broker.subscribe_with(b"$SYS.>", options);
        assert_eq!(status(&result), Status::Invalid);
        assert!(result.unwrap_err().to_string().contains("$SYS"));
    }
    assert_eq!(broker.statistics().subscriptions, 0);
}

#[test]
fn events_have_the_time_if_the_client_asked_for_it() {
    let options = Options {
        timestamps: Timestamps::Clock,
        ..Options::default()
    };
    let broker = open_with(options);
    let _first = subscribe(&broker, "a");
    let listener = late(&broker, "$SYS.>", None);
    let _second = subscribe(&broker, "b");
    let batch = queue_of(&listener).receive(&broker, 10, 0).unwrap();
    let times: Vec<_> = batch
        .messages()
        .iter()
        .map(|view| view.timestamp_ns)
        .collect();
    assert!(
        times.len() == 2 && 0 < times[0] && times[0] <= times[1],
        "{times:?}"
    );
}

/// Whoever comes and goes on many threads: each listener hears of each once, in an order in which
/// nobody leaves who has not joined, and knows at the end who is there.
#[test]
fn many_threads_join_and_leave() {
    let broker = open();
    let first = subscribe(&broker, "$SYS.>");
    let is_over = AtomicBool::new(false);
    let there: Vec<Subscription> = std::thread::scope(|scope| {
        let joiners: Vec<_> = (0..4)
            .map(|thread| {
                let broker = &broker;
                scope.spawn(move || {
                    let mut dice = Dice(thread);
                    let mut mine = Vec::new();
                    for number in 0..500 {
                        mine.push(subscribe(broker, &format!("t.{thread}.{number}")));
                        if dice.below(3) > 0 {
                            let at = dice.below(mine.len() as u64) as usize;
                            mine.swap_remove(at).unsubscribe();
                        }
                    }
                    mine
                })
            })
            .collect();
        let (broker, over) = (&broker, &is_over);
        let listeners = scope.spawn(move || {
            let mut count = 0;
            while !over.load(Ordering::Acquire) || count < 20 {
                let listener = late(broker, "$SYS.>", None);
                let mut present = HashSet::new();
                for _ in 0..5 {
                    note(&mut present, &take(broker, &listener));
                }
                listener.unsubscribe();
                count += 1;
            }
        });
        let there = joiners.into_iter().flat_map(|one| one.join().unwrap());
        let there = there.collect();
        is_over.store(true, Ordering::Release);
        listeners.join().unwrap();
        there
    });
    let ids: HashSet<_> = there.iter().map(Subscription::id).collect();
    for listener in [first, late(&broker, "$SYS.>", None)] {
        let mut present = HashSet::new();
        note(&mut present, &take(&broker, &listener));
        assert_eq!(present, ids);
    }
}

fn note(present: &mut HashSet<u32>, events: &[Event]) {
    for event in events {
        assert_eq!(event.lost, 0);
        if event.has_joined() {
            assert!(present.insert(event.id), "{event:?} twice");
        } else {
            assert!(event.subject.starts_with(SUBJECT_LEFT));
            assert!(present.remove(&event.id), "{event:?} without a join");
        }
    }
}

/// A waker of the user's may subscribe: no lock is held.
#[test]
fn a_waker_may_subscribe() {
    use std::task::{Context, Wake, Waker};
    struct Subscriber(Arc<Broker>, Mutex<Vec<Subscription>>);
    impl Wake for Subscriber {
        fn wake(self: Arc<Self>) {
            let mut own = self.1.lock().unwrap();
            if own.is_empty() {
                own.push(subscribe(&self.0, "woken"));
            }
        }
    }
    let broker = open();
    let listener = subscribe(&broker, "$SYS.>");
    let waker = Arc::new(Subscriber(broker.clone(), Mutex::default()));
    let mut ready = std::pin::pin!(Ready::new(queue_of(&listener), &broker));
    let used = Waker::from(waker.clone());
    assert!(
        ready
            .as_mut()
            .poll(&mut Context::from_waker(&used))
            .is_pending()
    );
    let _a = subscribe(&broker, "a");
    assert_eq!(lines(&broker, &listener), ["+a", "+woken"]);
    waker.1.lock().unwrap().clear();
}

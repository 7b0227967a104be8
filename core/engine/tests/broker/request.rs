//! Requests: every fate, many in flight, and tokens that name one request once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::steps::*;
use fastmq_engine::memory::view::view_flag;
use fastmq_engine::memory::{Policy, View};
use fastmq_engine::{
    Broker, Delivery, Message, Place, Publisher, Requester, RequesterOptions, Result, Status,
    Subscription,
};

fn requester(broker: &Arc<Broker>, subject: &str, in_flight_max: u32) -> Requester {
    let options = RequesterOptions {
        in_flight_max,
        subject: subject.as_bytes(),
        wait: None,
    };
    Requester::open(broker, options).unwrap()
}

fn reply(broker: &Arc<Broker>, token: u64, payload: &[u8]) -> Result<()> {
    client(broker, |client| client.writer.reply(token, 0, payload, &[]))
}

#[test]
fn a_responder_keeps_nothing_of_askers_that_are_gone() {
    let broker = open();
    let subscription = subscribe(&broker, "a");
    let gone = (0..1000).map(|number| {
        let mut asker = requester(&broker, "a", 1);
        asker.submit(b"?", number, FOREVER).unwrap();
        assert_eq!(answer_all(&broker, queue_of(&subscription)), 1);
        assert_eq!(answers(&mut asker).len(), 1);
        Arc::downgrade(asker.place())
    });
    let gone: Vec<_> = gone.collect();
    let kept = gone.iter().filter(|place| place.strong_count() > 0).count();
    assert!(kept < 200, "{kept} queues of answers");
}

/// However full the asker's queue of answers is, each request ends once.
#[test]
fn requests_that_are_cancelled_while_the_asker_has_no_room_still_end() {
    const REQUESTS: u64 = 1000;
    let broker = open_with(fastmq_engine::Options {
        queue_capacity: SMALL,
        ..Default::default()
    });
    let responder = queue(&broker, Policy::Backpressure, 1 << 20);
    let _subscription = subscribe_on(&broker, "full", "", &responder, 0);
    let mut asker = requester(&broker, "full", REQUESTS as u32);
    for number in 0..REQUESTS {
        asker.submit(b"?", number, FOREVER).unwrap();
    }
    // Its answers have room for some two hundred.
    broker.close_queue(&responder);
    let mut fates = answers(&mut asker);
    fates.sort();
    let expected: Vec<_> = (0..REQUESTS)
        .map(|number| (number, Status::Cancelled as u32, Vec::new()))
        .collect();
    assert_eq!(fates, expected);
}

#[test]
fn requests_and_answers_that_no_lane_can_hold_go_by_block() {
    let broker = open_with(fastmq_engine::Options {
        queue_capacity: SMALL,
        ..Default::default()
    });
    let plain = subscribe(&broker, "plain");
    let member = queue(&broker, Policy::Backpressure, SMALL);
    let _member = subscribe_on(&broker, "group", "team", &member, 0);
    let mut asker = requester(&broker, "plain", 4);
    for round in 0..30 {
        for size in [1300, 2000, 3000, 8192, 20_000] {
            let payload = vec![round; size];
            asker.submit(&payload, 1, FOREVER).unwrap();
            assert_eq!(answer_all(&broker, queue_of(&plain)), 1, "{size}");
            assert_eq!(answers(&mut asker), [(1, 0, payload.clone())]);
            asker.submit_to(b"group", &payload, 2, FOREVER).unwrap();
            assert_eq!(answer_all(&broker, &member), 1, "{size}");
            assert_eq!(answers(&mut asker), [(2, 0, payload.clone())]);
        }
    }
}

/// Answers every waiting request with its own payload; returns how many.
fn answer_all(broker: &Arc<Broker>, queue: &Place) -> usize {
    let requests = take_all(broker, queue);
    for request in &requests {
        assert_ne!(request.token, 0);
        assert_eq!(request.flags, view_flag::REQUEST);
        reply(broker, request.token, &request.payload).unwrap();
    }
    requests.len()
}

/// What waits for an asker: (token, status, payload).
fn answers(requester: &mut Requester) -> Vec<(u64, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while let Ok(batch) = requester.receive(100, 0) {
        let answer = |view: &View| (view.token, view.status, view.payload().to_vec());
        all.extend(batch.messages().iter().map(answer));
    }
    all
}

fn ask(broker: &Arc<Broker>, subject: &str, timeout_ns: u64) -> Result<(u32, Vec<u8>)> {
    let message = Message {
        subject: subject.as_bytes(),
        payload: b"?",
        ..Message::default()
    };
    let answer = |view: &View| (view.status, view.payload().to_vec());
    client(broker, |client| {
        client.request(&message, timeout_ns, answer)
    })
}

fn echo(broker: &Arc<Broker>, subject: &str, delivery: Delivery) -> Subscription {
    let there = Arc::downgrade(broker);
    handle(broker, subject, delivery, move |view| {
        let broker = there.upgrade().unwrap();
        reply(&broker, view.token, view.payload()).unwrap();
    })
}

#[test]
fn many_requests_in_flight_are_answered_each_with_its_own() {
    let broker = open();
    let responder = subscribe(&broker, "ask.*");
    let mut own = requester(&broker, "ask.own", 0);
    let mut any = requester(&broker, "", 512);
    for round in 0..50u64 {
        for token in 0..500 {
            let payload = (round * 500 + token).to_le_bytes();
            own.submit(&payload, token, FOREVER).unwrap();
            let message = Message {
                subject: b"ask.any",
                payload: &payload,
                ..Message::default()
            };
            any.submit_message(&message, token + 1000, FOREVER).unwrap();
        }
        assert_eq!((own.in_flight(), any.in_flight()), (500, 500));
        assert_eq!(answer_all(&broker, queue_of(&responder)), 1000);
        for (requester, first) in [(&mut own, 0), (&mut any, 1000)] {
            let answers = answers(requester);
            assert_eq!(answers.len(), 500);
            for (index, (token, status, payload)) in answers.iter().enumerate() {
                assert_eq!((*token, *status), (first + index as u64, 0));
                assert_eq!(number_of(payload), round * 500 + index as u64);
            }
            assert_eq!(requester.in_flight(), 0);
        }
    }
    let figures = broker.statistics();
    assert_eq!(
        (figures.requests, figures.answers, figures.late_answers),
        (50_000, 50_000, 0)
    );
}

#[test]
fn a_full_window_is_again_and_an_answer_makes_room() {
    let broker = open();
    let responder = subscribe(&broker, "window");
    let mut asker = requester(&broker, "window", 100);
    for token in 0..100 {
        asker.submit(b"", token, FOREVER).unwrap();
    }
    let error = asker.submit(b"", 100, FOREVER).unwrap_err();
    assert_eq!(error.status(), Status::Again);
    assert!(error.text().contains("in_flight_max"), "{error}");
    let request = Seen::of(
        &queue_of(&responder)
            .receive(&broker, 1, 0)
            .unwrap()
            .messages()[0],
    );
    reply(&broker, request.token, b"").unwrap();
    assert_eq!(answers(&mut asker).len(), 1);
    check(asker.submit(b"", 100, FOREVER), Status::Ok);
    check(asker.submit(b"", 101, FOREVER), Status::Again);
}

#[test]
fn a_fate_that_was_not_received_is_in_flight() {
    let broker = open();
    let mut asker = requester(&broker, "nobody", 8);
    for token in 0..8 {
        asker.submit(b"", token, FOREVER).unwrap();
    }
    check(asker.submit(b"", 8, FOREVER), Status::Again);
    assert_eq!(asker.in_flight(), 8);
    assert_eq!(asker.receive(3, 0).unwrap().messages().len(), 3);
    for token in 8..11 {
        asker.submit(b"", token, FOREVER).unwrap();
    }
    check(asker.submit(b"", 11, FOREVER), Status::Again);
    let tokens: Vec<u64> = answers(&mut asker).iter().map(|one| one.0).collect();
    assert_eq!(tokens, (3..11).collect::<Vec<_>>());
    assert_eq!(asker.in_flight(), 0);
}

#[test]
fn nobody_is_no_responder_at_once() {
    let broker = open();
    check(ask(&broker, "nobody", FOREVER), Status::NoResponder);
    let mut asker = requester(&broker, "nobody", 0);
    asker.submit(b"", 7, FOREVER).unwrap();
    assert_eq!(
        answers(&mut asker),
        [(7, Status::NoResponder as u32, vec![])]
    );
    assert_eq!(asker.in_flight(), 0);
    let responder = echo(&broker, "nobody", Delivery::Inline);
    assert_eq!(ask(&broker, "nobody", FOREVER), Ok((0, b"?".to_vec())));
    responder.unsubscribe();
    check(ask(&broker, "nobody", FOREVER), Status::NoResponder);
}

#[test]
fn a_full_responder_is_busy_under_every_policy_and_drops_nothing() {
    for policy in [Policy::Backpressure, Policy::DropOldest, Policy::DropNewest] {
        let broker = open();
        let queue = queue(&broker, policy, SMALL);
        let _responder = subscribe_on(&broker, "busy", "", &queue, 0);
        let mut asker = requester(&broker, "busy", 2000);
        for token in 0..1000 {
            asker.submit(&wide(token), token, FOREVER).unwrap();
        }
        let mut fates = answers(&mut asker);
        assert!(
            fates.iter().all(|fate| fate.1 == Status::Busy as u32),
            "{policy:?}"
        );
        let busy = fates.len();
        assert!((900..1000).contains(&busy), "{busy}");
        assert_eq!(answer_all(&broker, &queue), 1000 - busy);
        fates = answers(&mut asker);
        assert_eq!(fates.len(), 1000 - busy);
        assert!(fates.iter().all(|fate| fate.1 == 0));
        assert_eq!((asker.in_flight(), queue.statistics().dropped), (0, 0));
    }
}

#[test]
fn a_request_that_a_message_evicts_is_busy() {
    let broker = open();
    let queue = queue(&broker, Policy::DropOldest, SMALL);
    let _responder = subscribe_on(&broker, "evict", "", &queue, 0);
    let mut asker = requester(&broker, "", 100);
    // Through one writer, so that the requests are in the lane whose oldest records go.
    let by_asker = Message {
        subject: b"evict",
        payload: &wide(0),
        ..Message::default()
    };
    for token in 0..5 {
        asker.submit_message(&by_asker, token, FOREVER).unwrap();
    }
    for number in 0..100 {
        publish(&broker, "evict", &wide(number)).unwrap();
    }
    let fates = answers(&mut asker);
    let waiting = take_all(&broker, &queue)
        .iter()
        .filter(|one| one.token != 0)
        .count();
    assert!(
        fates.iter().all(|fate| fate.1 == Status::Busy as u32),
        "{fates:?}"
    );
    assert_eq!(fates.len() + waiting, 5);
}

#[test]
fn a_request_times_out_by_the_clock_and_its_late_answer_is_counted() {
    let (broker, driver) = open_simulated(5);
    let responder = subscribe(&broker, "late");
    let mut asker = requester(&broker, "late", 0);
    for token in 0..100 {
        asker.submit(b"", token, 1000 * (token + 1)).unwrap();
    }
    check(asker.receive(1, 0), Status::Again);
    let requests = take_all(&broker, queue_of(&responder));
    driver.advance(50_000);
    let mut ended: Vec<u64> = Vec::new();
    for (token, status, _) in answers(&mut asker) {
        assert_eq!(status, Status::Timeout as u32);
        ended.push(token);
    }
    ended.sort_unstable();
    assert_eq!(ended, (0..50).collect::<Vec<_>>());
    for request in &requests {
        let _ = reply(&broker, request.token, b"late");
    }
    let mut in_time: Vec<u64> = answers(&mut asker).iter().map(|one| one.0).collect();
    in_time.sort_unstable();
    assert_eq!(in_time, (50..100).collect::<Vec<_>>());
    assert_eq!(broker.statistics().late_answers, 50);
    // Answered twice: nobody is there any more.
    for request in &requests {
        let _ = reply(&broker, request.token, b"twice");
    }
    assert_eq!(answers(&mut asker), []);
    assert_eq!(
        (asker.in_flight(), broker.statistics().late_answers),
        (0, 150)
    );
}

#[test]
fn a_request_whose_time_to_live_ends_is_answered_timeout() {
    for policy in [Policy::Backpressure, Policy::DropOldest] {
        for size in [10, 100_000] {
            let (broker, driver) = open_simulated(8);
            let queue = queue(&broker, policy, 0);
            let _responder = subscribe_on(&broker, "brief", "", &queue, 0);
            let mut asker = requester(&broker, "", 0);
            let payload = vec![1; size];
            let mut submit = |token, ttl_ns| {
                let message = Message {
                    subject: b"brief",
                    payload: &payload,
                    ttl_ns,
                    ..Message::default()
                };
                asker.submit_message(&message, token, FOREVER).unwrap();
            };
            submit(1, 1000);
            submit(2, 5000);
            submit(3, 0);
            driver.advance(1001);
            assert_eq!(answer_all(&broker, &queue), 2);
            assert_eq!(queue.statistics().expired, 1);
            let mut fates: Vec<_> = answers(&mut asker).iter().map(|f| (f.0, f.1)).collect();
            fates.sort_unstable();
            assert_eq!(fates, [(1, Status::Timeout as u32), (2, 0), (3, 0)]);
            assert_eq!(asker.in_flight(), 0);
        }
    }
}

#[test]
fn one_question_waits_exactly_until_its_timeout() {
    let (broker, driver) = open_simulated(6);
    let _silent = subscribe(&broker, "silent");
    let now = || fastmq_engine::driver::Driver::monotonic_ns(&*driver);
    let before = now();
    check(ask(&broker, "silent", 3 * MILLISECOND), Status::Timeout);
    assert_eq!(now() - before, 3 * MILLISECOND);
    check(ask(&broker, "silent", 0), Status::Timeout);
}

#[test]
fn a_receive_wakes_for_the_first_deadline_of_its_requests() {
    let (broker, driver) = open_simulated(7);
    let _silent = subscribe(&broker, "silent");
    let mut asker = requester(&broker, "silent", 0);
    asker.submit(b"", 1, 9 * MILLISECOND).unwrap();
    asker.submit(b"", 2, 4 * MILLISECOND).unwrap();
    let now = || fastmq_engine::driver::Driver::monotonic_ns(&*driver);
    let before = now();
    for (token, after) in [(2, 4), (1, 9)] {
        let batch = asker.receive(10, FOREVER).unwrap();
        assert_eq!(batch.messages().len(), 1);
        let view = &batch.messages()[0];
        assert_eq!((view.token, view.status), (token, Status::Timeout as u32));
        drop(batch);
        assert_eq!(now() - before, after * MILLISECOND);
    }
}

#[test]
fn a_cancelled_request_ends_once_and_its_answer_is_late() {
    let broker = open();
    let responder = subscribe(&broker, "cancel");
    let mut asker = requester(&broker, "cancel", 0);
    for token in 0..10 {
        asker.submit(b"", token, FOREVER).unwrap();
    }
    asker.cancel(3).unwrap();
    check(asker.cancel(3), Status::NotFound);
    check(asker.cancel(77), Status::NotFound);
    assert_eq!(answers(&mut asker), [(3, Status::Cancelled as u32, vec![])]);
    assert_eq!(answer_all(&broker, queue_of(&responder)), 10);
    let tokens: Vec<u64> = answers(&mut asker).iter().map(|one| one.0).collect();
    assert_eq!(tokens, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(broker.statistics().late_answers, 1);
    check(asker.cancel(4), Status::NotFound);
}

#[test]
fn a_responder_that_goes_away_cancels_what_it_had_not_read() {
    for closes_queue in [false, true] {
        let broker = open();
        let queue = queue(&broker, Policy::Backpressure, 0);
        let responder = subscribe_on(&broker, "gone", "", &queue, 0);
        let mut asker = requester(&broker, "gone", 0);
        for token in 0..40 {
            asker.submit(b"", token, FOREVER).unwrap();
        }
        let first = Seen::of(&queue.receive(&broker, 1, 0).unwrap().messages()[0]);
        if closes_queue {
            broker.close_queue(&queue);
        } else {
            responder.unsubscribe();
            assert_eq!(take_all(&broker, &queue), []);
        }
        reply(&broker, first.token, b"in time").unwrap();
        let fates = answers(&mut asker);
        assert_eq!(fates.len(), 40);
        assert_eq!(
            fates
                .iter()
                .filter(|fate| fate.1 == Status::Cancelled as u32)
                .count(),
            39
        );
        assert_eq!(fates.iter().filter(|fate| fate.1 == 0).count(), 1);
    }
}

#[test]
fn tokens_are_used_again_and_old_answers_find_nobody() {
    let broker = open();
    let responder = subscribe(&broker, "again");
    let mut old = Vec::new();
    for round in 0..300u64 {
        let mut asker = requester(&broker, "again", 4);
        for token in 0..4 {
            asker.submit(&round.to_le_bytes(), token, FOREVER).unwrap();
        }
        let requests = take_all(&broker, queue_of(&responder));
        for token in &old {
            let _ = reply(&broker, *token, b"stale");
        }
        assert_eq!(answers(&mut asker), [], "a stale token has found somebody");
        for request in &requests {
            reply(&broker, request.token, &request.payload).unwrap();
        }
        assert_eq!(answers(&mut asker).len(), 4);
        old = requests.iter().map(|request| request.token).collect();
        drop(asker);
        check(reply(&broker, old[0], b""), Status::NotFound);
    }
    for token in [0, 1, u64::MAX, 1 << 63, 5 << 32] {
        check(reply(&broker, token, b""), Status::NotFound);
    }
}

#[test]
fn an_old_answer_finds_nobody_however_many_requests_came_since() {
    let broker = open();
    let slow = subscribe(&broker, "slow");
    let fast = subscribe(&broker, "fast");
    let mut asker = requester(&broker, "", 1);
    asker.submit_to(b"slow", b"", 1, FOREVER).unwrap();
    let old = take_all(&broker, queue_of(&slow))[0].token;
    asker.cancel(1).unwrap();
    assert_eq!(answers(&mut asker).len(), 1);
    // The window's one place is used again and again.
    for token in 2..140_000 {
        asker.submit_to(b"fast", b"", token, FOREVER).unwrap();
        let _ = reply(&broker, old, b"old");
        assert_eq!(answer_all(&broker, queue_of(&fast)), 1);
        assert_eq!(answers(&mut asker), [(token, 0, vec![])]);
    }
}

#[test]
fn an_inline_responder_answers_in_place_and_nests() {
    let broker = open();
    let _echo = echo(&broker, "inline.echo", Delivery::Inline);
    let there = Arc::downgrade(&broker);
    let _relay = handle(&broker, "inline.relay", Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        let (_, mut payload) = ask(&broker, "inline.echo", FOREVER).unwrap();
        payload.extend_from_slice(view.payload());
        reply(&broker, view.token, &payload).unwrap();
    });
    for _ in 0..1000 {
        assert_eq!(ask(&broker, "inline.echo", FOREVER), Ok((0, b"?".to_vec())));
        assert_eq!(
            ask(&broker, "inline.relay", FOREVER),
            Ok((0, b"??".to_vec()))
        );
    }
    let mut asker = requester(&broker, "inline.echo", 0);
    for token in 0..100 {
        asker.submit(b"x", token, FOREVER).unwrap();
    }
    let tokens: Vec<u64> = answers(&mut asker).iter().map(|one| one.0).collect();
    assert_eq!(tokens, (0..100).collect::<Vec<_>>());
}

#[test]
fn an_inline_responder_may_answer_later_from_another_thread() {
    let broker = open();
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = Mutex::new(sender);
    let _later = handle(&broker, "inline.later", Delivery::Inline, move |view| {
        sender.lock().unwrap().send(view.token).unwrap();
    });
    let there = broker.clone();
    let worker = std::thread::spawn(move || {
        for token in receiver.iter().take(200) {
            reply(&there, token, b"later").unwrap();
        }
    });
    for _ in 0..200 {
        assert_eq!(
            ask(&broker, "inline.later", PATIENCE_NS),
            Ok((0, b"later".to_vec()))
        );
    }
    worker.join().unwrap();
}

#[test]
fn two_threads_ask_and_answer_with_statuses_and_headers() {
    let broker = open();
    let responder = subscribe(&broker, "pair");
    let there = broker.clone();
    let worker = std::thread::spawn(move || {
        let queue = queue_of(&responder);
        let mut headers = fastmq_engine::headers::Headers::new();
        headers.add(b"n", b"v").unwrap();
        for number in 0..2000u32 {
            let request = Seen::of(&queue.receive(&there, 1, PATIENCE_NS).unwrap().messages()[0]);
            let answer = |client: &fastmq_engine::ThreadClient| {
                let (token, payload) = (request.token, &request.payload);
                client
                    .writer
                    .reply(token, number % 100, payload, headers.as_bytes())
            };
            client(&there, answer).unwrap();
        }
    });
    for number in 0..2000u32 {
        let message = Message {
            subject: b"pair",
            payload: &number.to_le_bytes(),
            ..Message::default()
        };
        let look = |view: &View| {
            assert_eq!(view.payload(), number.to_le_bytes());
            assert_eq!(view.status, number % 100);
            assert_eq!(
                fastmq_engine::headers::get(view.headers(), b"n"),
                Ok(&b"v"[..])
            );
        };
        client(&broker, |client| {
            client.request(&message, PATIENCE_NS, look)
        })
        .unwrap();
    }
    worker.join().unwrap();
}

#[test]
fn a_group_of_responders_answers_each_request_once() {
    let broker = open();
    let queues: Vec<_> = (0..3)
        .map(|_| queue(&broker, Policy::Backpressure, 0))
        .collect();
    let _all: Vec<_> = queues
        .iter()
        .map(|queue| subscribe_on(&broker, "team", "t", queue, 0))
        .collect();
    let mut asker = requester(&broker, "team", 2000);
    for token in 0..2000 {
        asker.submit(b"", token, FOREVER).unwrap();
    }
    let answered: usize = queues.iter().map(|queue| answer_all(&broker, queue)).sum();
    assert_eq!(answered, 2000);
    let mut tokens: Vec<u64> = answers(&mut asker).iter().map(|one| one.0).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..2000).collect::<Vec<_>>());
}

#[test]
fn of_several_responders_the_first_answer_counts() {
    let broker = open();
    let responders: Vec<_> = (0..3).map(|_| subscribe(&broker, "several")).collect();
    let mut asker = requester(&broker, "several", 0);
    asker.submit(b"x", 1, FOREVER).unwrap();
    for responder in &responders {
        assert_eq!(answer_all(&broker, queue_of(responder)), 1);
    }
    assert_eq!(answers(&mut asker).len(), 1);
    assert_eq!(broker.statistics().late_answers, 2);
}

#[test]
fn a_responder_that_leaves_ends_a_request_only_if_it_was_the_last() {
    for left in 1..=3 {
        let broker = open();
        let responders: Vec<_> = (0..3).map(|_| subscribe(&broker, "several")).collect();
        let mut asker = requester(&broker, "several", 1);
        asker.submit(b"x", 1, FOREVER).unwrap();
        for responder in &responders[..left] {
            responder.unsubscribe();
        }
        let cancelled = [(1, Status::Cancelled as u32, Vec::new())];
        assert_eq!(answers(&mut asker), cancelled[..left / 3]);
        assert_eq!(asker.in_flight(), u32::from(left < 3));
        for responder in &responders[left..] {
            assert_eq!(answer_all(&broker, queue_of(responder)), 1);
        }
        if left < 3 {
            assert_eq!(answers(&mut asker), [(1, 0, b"x".to_vec())]);
        }
        assert_eq!(
            broker.statistics().late_answers,
            2_u64.saturating_sub(left as u64)
        );
    }
}

/// The fate of a question that waits for its answer, while `end` takes its responder away.
fn ask_meanwhile(
    broker: &Arc<Broker>,
    message: Message<'static>,
    end: impl FnOnce(),
) -> Result<()> {
    let there = broker.clone();
    let asker = std::thread::spawn(move || {
        client(&there, |client| {
            client.request(&message, PATIENCE_NS, |_| ())
        })
    });
    end();
    asker.join().unwrap()
}

#[test]
fn one_question_ends_with_the_status_that_the_engine_gives_it() {
    let message = Message {
        subject: b"ends",
        payload: b"?",
        ..Message::default()
    };
    let is_there = |queue: &Place| queue.statistics().pending == 1;

    let broker = open();
    let responder = subscribe(&broker, "ends");
    let fate = ask_meanwhile(&broker, message, || {
        until("asked", || is_there(queue_of(&responder)));
        responder.unsubscribe();
    });
    check(fate, Status::Cancelled);

    // One of two goes, and the other answers.
    let (first, second) = (subscribe(&broker, "ends"), subscribe(&broker, "ends"));
    let fate = ask_meanwhile(&broker, message, || {
        until("asked", || is_there(queue_of(&second)));
        first.unsubscribe();
        assert_eq!(answer_all(&broker, queue_of(&second)), 1);
    });
    check(fate, Status::Ok);
    second.unsubscribe();

    let responder = subscribe(&broker, "ends");
    let brief = Message {
        ttl_ns: 1,
        ..message
    };
    let fate = ask_meanwhile(&broker, brief, || {
        until("expired", || {
            assert_eq!(take_all(&broker, queue_of(&responder)), []);
            queue_of(&responder).statistics().expired == 1
        });
    });
    check(fate, Status::Timeout);
}

#[test]
fn an_evicted_request_is_busy_through_a_publisher_handle_too() {
    let broker = open();
    let queue = queue(&broker, Policy::DropOldest, SMALL);
    let _responder = subscribe_on(&broker, "evict", "", &queue, 0);
    let _news = subscribe_on(&broker, "news", "", &queue, 0);
    let mut publisher = Publisher::open(&broker, b"news").unwrap();
    let mut asker = requester(&broker, "evict", 0);
    let mut count = 0;
    for round in 0..100 {
        for token in 0..10 {
            asker
                .submit(&wide(token), round * 10 + token, FOREVER)
                .unwrap();
        }
        publisher.publish(&wide(0)).unwrap();
        loop {
            match asker.receive(100, 0) {
                Ok(batch) => {
                    let is_busy = |view: &View| view.status == Status::Busy as u32;
                    assert!(batch.messages().iter().all(is_busy));
                    count += batch.messages().len();
                }
                Err(error) => {
                    assert_eq!(error.status(), Status::Again, "{error}");
                    break;
                }
            }
        }
    }
    let waiting = take_all(&broker, &queue);
    count += waiting.iter().filter(|one| one.token != 0).count();
    assert_eq!(count, 1000);
}

#[test]
fn an_answer_in_place_is_counted_and_has_limits() {
    let broker = open_with(fastmq_engine::Options {
        payload_max: 1000,
        ..Default::default()
    });
    let there = Arc::downgrade(&broker);
    let _responder = handle(&broker, "place", Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        let reply = |payload| client(&broker, |client| client.reply(view.token, 0, payload));
        check(reply(&[1; 1001]), Status::TooLarge);
        check(reply(&[1; 1000]), Status::Ok);
    });
    for _ in 0..100 {
        assert_eq!(ask(&broker, "place", FOREVER), Ok((0, vec![1; 1000])));
    }
    let statistics = broker.statistics();
    assert_eq!((statistics.requests, statistics.answers), (100, 100));
}

/// The answer to the outer question, and word that its other responder has left, come while the
/// handler asks its first inner ones; many more follow.
#[test]
fn an_outer_question_keeps_its_answer_however_many_are_asked_inside() {
    const INNER: u64 = 300;
    let broker = open();
    let inner = subscribe(&broker, "inner");
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = Mutex::new(sender);
    let there = Arc::downgrade(&broker);
    let _outer = handle(&broker, "outer", Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        sender.lock().unwrap().send(view.token).unwrap();
        for _ in 0..INNER {
            assert_eq!(ask(&broker, "inner", PATIENCE_NS).unwrap().1, b"?");
        }
    });
    let leaves = subscribe(&broker, "outer");
    let there = broker.clone();
    let worker = std::thread::spawn(move || {
        for number in 0..2 * INNER {
            let queue = queue_of(&inner);
            let request = Seen::of(&queue.receive(&there, 1, PATIENCE_NS).unwrap().messages()[0]);
            match number % INNER {
                0 if number == 0 => leaves.unsubscribe(),
                1 => reply(&there, receiver.recv().unwrap(), b"outer").unwrap(),
                _ => {}
            }
            reply(&there, request.token, &request.payload).unwrap();
        }
    });
    for _ in 0..2 {
        let answer = ask(&broker, "outer", PATIENCE_NS);
        assert_eq!(answer, Ok((0, b"outer".to_vec())));
    }
    worker.join().unwrap();
    assert_eq!(broker.statistics().late_answers, 0);
}

#[test]
fn large_requests_and_answers_travel_by_block() {
    let broker = open();
    let responder = subscribe(&broker, "large");
    let payload: Vec<u8> = (0..200_000).map(|at| (at % 253) as u8).collect();
    let mut asker = requester(&broker, "large", 0);
    for token in 0..20 {
        asker.submit(&payload, token, FOREVER).unwrap();
        assert_eq!(answer_all(&broker, queue_of(&responder)), 1);
        let answers = answers(&mut asker);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].2, payload);
    }
    assert!(broker.statistics().memory < 2 << 20);
}

#[test]
fn wrong_use_of_a_requester_is_named() {
    let broker = open();
    let options = |subject: &'static [u8], in_flight_max| RequesterOptions {
        in_flight_max,
        subject,
        wait: None,
    };
    check(
        Requester::open(&broker, options(b"a.*", 0)),
        Status::Invalid,
    );
    check(
        Requester::open(&broker, options(b"", 65_536)),
        Status::Invalid,
    );
    let mut own = requester(&broker, "own", 0);
    let mut any = requester(&broker, "", 0);
    let named = Message {
        subject: b"own",
        ..Message::default()
    };
    let unnamed = Message::default();
    check(any.submit(b"", 0, FOREVER), Status::Invalid);
    check(any.submit_message(&unnamed, 0, FOREVER), Status::Invalid);
    assert_eq!((own.in_flight(), any.in_flight()), (0, 0));
    // A requester with a subject of its own may ask others, too.
    check(own.submit_message(&named, 9, FOREVER), Status::Ok);
    assert_eq!(answers(&mut own), [(9, Status::NoResponder as u32, vec![])]);
    let calls = AtomicU64::new(0);
    let count = |_: &View| calls.fetch_add(1, Ordering::SeqCst);
    check(
        own.request(&Message::default(), FOREVER, count),
        Status::NoResponder,
    );
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// Requests that a publisher's messages evict are answered BUSY, through whatever lane: the
/// publisher's own has a label, and answers have no subject.
#[test]
fn requests_that_a_publisher_evicts_end_with_busy() {
    const REQUESTS: u64 = 200;
    let broker = open();
    let responder = queue(&broker, Policy::DropOldest, SMALL);
    let _subscription = subscribe_on(&broker, "evict", "", &responder, 0);
    let mut asker = requester(&broker, "evict", 1 << 10);
    let mut publisher = fastmq_engine::Publisher::open(&broker, b"evict").unwrap();
    let mut fates = Vec::new();
    for number in 0..REQUESTS {
        asker.submit(b"?", number, FOREVER).unwrap();
        for _ in 0..100 {
            publisher.publish(&[0; 100]).unwrap();
        }
        fates.extend(answers(&mut asker));
    }
    broker.close_queue(&responder);
    fates.extend(answers(&mut asker));
    fates.sort();
    assert_eq!(fates.len() as u64, REQUESTS);
    for (number, (token, status, _)) in fates.into_iter().enumerate() {
        assert_eq!(token, number as u64);
        let known = [Status::Busy as u32, Status::Cancelled as u32];
        assert!(known.contains(&status), "{status}");
    }
}

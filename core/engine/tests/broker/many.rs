//! Requests with many answers: of several responders, and of one that streams its replies. Credit,
//! both cancels, every end, and deadlines by the simulated clock.

use std::sync::Arc;

use crate::steps::*;
use fastmq_engine::dispatch::ready;
use fastmq_engine::memory::Policy;
use fastmq_engine::memory::view::view_flag::{END, MORE};
use fastmq_engine::{
    ANSWERS_ALL, Broker, CREDIT_MAX, Delivery, ManyOptions, Message, Options, ReplyStream,
    Requester, RequesterOptions, Result, Status, Subscription,
};

const BUSY: u32 = Status::Busy as u32;
const CANCELLED: u32 = Status::Cancelled as u32;
const ENDED: u32 = Status::End as u32;
const NO_RESPONDER: u32 = Status::NoResponder as u32;
const TIMEOUT: u32 = Status::Timeout as u32;

fn requester(broker: &Arc<Broker>, in_flight_max: u32) -> Requester {
    let options = RequesterOptions {
        in_flight_max,
        ..RequesterOptions::default()
    };
    Requester::open(broker, options).unwrap()
}

fn answers(answers_max: u32) -> ManyOptions {
    ManyOptions {
        answers_max,
        ..ManyOptions::default()
    }
}

fn streams(credit: u32) -> ManyOptions {
    ManyOptions {
        credit,
        ..ManyOptions::default()
    }
}

fn submit(
    asker: &mut Requester,
    subject: &str,
    token: u64,
    timeout_ns: u64,
    options: &ManyOptions,
) -> Result<()> {
    let message = Message {
        subject: subject.as_bytes(),
        payload: b"?",
        ..Message::default()
    };
    asker.submit_many(&message, token, timeout_ns, options)
}

fn reply(broker: &Arc<Broker>, token: u64, payload: &[u8]) -> Result<()> {
    client(broker, |client| client.writer.reply(token, 0, payload, &[]))
}

/// What has come: (token, status, flags, payload).
fn received(asker: &mut Requester) -> Vec<(u64, u32, u32, Vec<u8>)> {
    received_by(asker, 100)
}

fn received_by(asker: &mut Requester, limit: usize) -> Vec<(u64, u32, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while let Ok(batch) = asker.receive(limit, 0) {
        assert!((1..=limit).contains(&batch.messages().len()));
        for view in batch.messages() {
            all.push((view.token, view.status, view.flags, view.payload().to_vec()));
        }
    }
    all
}

/// The same without payloads.
fn fates(asker: &mut Requester) -> Vec<(u64, u32, u32)> {
    let all = received(asker);
    all.iter().map(|one| (one.0, one.1, one.2)).collect()
}

/// Takes the only request that waits; its token.
fn taken(broker: &Arc<Broker>, responder: &Subscription) -> u64 {
    let requests = take_all(broker, queue_of(responder));
    assert_eq!(requests.len(), 1);
    requests[0].token
}

/// An asker whose request one responder has taken, and the stream that this has opened.
fn streaming(options: &ManyOptions) -> (Arc<Broker>, Subscription, Requester, ReplyStream) {
    let broker = open();
    let responder = subscribe(&broker, "stream");
    let mut asker = requester(&broker, 0);
    submit(&mut asker, "stream", 7, FOREVER, options).unwrap();
    let stream = ReplyStream::open(&broker, taken(&broker, &responder)).unwrap();
    (broker, responder, asker, stream)
}

fn send(stream: &mut ReplyStream, number: u64) -> Result<()> {
    stream.send(&number.to_le_bytes(), &[])
}

// Several responders.

#[test]
fn the_first_answers_count_and_the_last_of_them_is_the_end() {
    for wanted in 0..=4 {
        let broker = open();
        let responders: Vec<_> = (0..4).map(|_| subscribe(&broker, "all")).collect();
        let mut asker = requester(&broker, 1);
        submit(&mut asker, "all", 9, FOREVER, &answers(wanted)).unwrap();
        for (number, responder) in responders.iter().enumerate() {
            reply(&broker, taken(&broker, responder), &[number as u8]).unwrap();
        }
        let count = wanted.max(1) as usize;
        let all = received(&mut asker);
        assert_eq!(all.len(), count);
        for (at, (token, status, flags, payload)) in all.into_iter().enumerate() {
            let expected = if at + 1 == count { END } else { MORE };
            assert_eq!((token, status, flags), (9, 0, expected));
            assert_eq!(payload, [at as u8]);
        }
        assert_eq!(broker.statistics().late_answers, 4 - count as u64);
        assert_eq!(asker.in_flight(), 0);
    }
}

#[test]
fn more_answers_than_responders_end_with_the_last_responder() {
    for wanted in [3, 4, 1000, ANSWERS_ALL] {
        let broker = open();
        let plain: Vec<_> = (0..2).map(|_| subscribe(&broker, "all")).collect();
        let members: Vec<_> = (0..2)
            .map(|_| queue(&broker, Policy::Backpressure, 0))
            .collect();
        let group: Vec<_> = members
            .iter()
            .map(|queue| subscribe_on(&broker, "all", "g", queue, 0))
            .collect();
        let mut asker = requester(&broker, 1);
        submit(&mut asker, "all", 1, FOREVER, &answers(wanted)).unwrap();
        let mut answered = Vec::new();
        for responder in plain.iter().chain(&group) {
            for request in take_all(&broker, queue_of(responder)) {
                reply(&broker, request.token, b"").unwrap();
                answered.push(responder.id());
            }
        }
        let batch = asker.receive(10, 0).unwrap();
        let seen: Vec<_> = batch.messages().iter().map(|m| m.subscription_id).collect();
        assert_eq!(seen, answered, "an answer says who gave it");
        assert_eq!(seen.len(), 3, "one of a group");
        let flags: Vec<_> = batch.messages().iter().map(|m| m.flags).collect();
        assert_eq!(flags, [MORE, MORE, END]);
        drop(batch);
        check(asker.receive(1, 0), Status::Again);
    }
}

#[test]
fn all_answers_until_the_deadline_and_then_a_timeout() {
    let (broker, driver) = open_simulated(3);
    let responders: Vec<_> = (0..3).map(|_| subscribe(&broker, "all")).collect();
    let mut asker = requester(&broker, 1);
    submit(&mut asker, "all", 1, 1000, &answers(ANSWERS_ALL)).unwrap();
    let tokens: Vec<u64> = responders.iter().map(|one| taken(&broker, one)).collect();
    reply(&broker, tokens[0], b"first").unwrap();
    driver.advance(999);
    reply(&broker, tokens[2], b"second").unwrap();
    let all = received(&mut asker);
    assert_eq!(all[0], (1, 0, MORE, b"first".to_vec()));
    assert_eq!(all[1..], [(1, 0, MORE, b"second".to_vec())]);
    driver.advance(1);
    assert_eq!(fates(&mut asker), [(1, TIMEOUT, END)]);
    reply(&broker, tokens[1], b"late").unwrap();
    assert_eq!(received(&mut asker), []);
    assert_eq!(broker.statistics().late_answers, 1);
}

#[test]
fn a_receive_wakes_for_the_deadline_of_many_answers() {
    let (broker, driver) = open_simulated(4);
    let _silent = subscribe(&broker, "silent");
    let mut asker = requester(&broker, 0);
    let now = || fastmq_engine::driver::Driver::monotonic_ns(&*driver);
    let before = now();
    let all = answers(ANSWERS_ALL);
    submit(&mut asker, "silent", 1, 5 * MILLISECOND, &all).unwrap();
    let batch = asker.receive(10, FOREVER).unwrap();
    assert_eq!(batch.messages()[0].status, TIMEOUT);
    assert_eq!(now() - before, 5 * MILLISECOND);
}

#[test]
fn a_responder_answers_once() {
    let broker = open();
    let responders: Vec<_> = (0..2).map(|_| subscribe(&broker, "all")).collect();
    let mut asker = requester(&broker, 0);
    submit(&mut asker, "all", 1, FOREVER, &answers(2)).unwrap();
    let twice = taken(&broker, &responders[0]);
    for _ in 0..3 {
        reply(&broker, twice, b"again and again").unwrap();
    }
    assert_eq!(fates(&mut asker), [(1, 0, MORE)]);
    assert_eq!(broker.statistics().late_answers, 2);
    reply(&broker, taken(&broker, &responders[1]), b"").unwrap();
    assert_eq!(fates(&mut asker), [(1, 0, END)]);
    assert_eq!(asker.in_flight(), 0);
}

#[test]
fn responders_that_leave_end_the_request_with_the_last() {
    for answered in 0..=2 {
        let broker = open();
        let responders: Vec<_> = (0..3).map(|_| subscribe(&broker, "all")).collect();
        let mut asker = requester(&broker, 0);
        submit(&mut asker, "all", 1, FOREVER, &answers(ANSWERS_ALL)).unwrap();
        for responder in &responders[..answered] {
            reply(&broker, taken(&broker, responder), b"").unwrap();
        }
        for responder in &responders[answered..] {
            responder.unsubscribe();
        }
        let mut all = fates(&mut asker);
        let last = if answered == 0 { CANCELLED } else { ENDED };
        assert_eq!(all.pop(), Some((1, last, END)));
        assert_eq!(all, vec![(1, 0, MORE); answered]);
        assert_eq!(asker.in_flight(), 0);
    }
}

#[test]
fn the_fates_of_a_request_for_many_are_those_of_one() {
    let broker = open();
    let mut asker = requester(&broker, 0);
    submit(&mut asker, "nobody", 1, FOREVER, &answers(3)).unwrap();
    assert_eq!(fates(&mut asker), [(1, NO_RESPONDER, END)]);
    let small = queue(&broker, Policy::Backpressure, SMALL);
    let _full = subscribe_on(&broker, "busy", "", &small, 0);
    let message = Message {
        subject: b"busy",
        payload: &wide(0),
        ..Message::default()
    };
    let mut busy = 0;
    for token in 0..100 {
        asker
            .submit_many(&message, token, FOREVER, &answers(2))
            .unwrap();
        busy += fates(&mut asker).len();
    }
    assert!((50..100).contains(&busy), "{busy}");
    let has_room = subscribe(&broker, "busy");
    asker
        .submit_many(&message, 200, FOREVER, &answers(2))
        .unwrap();
    reply(&broker, taken(&broker, &has_room), b"").unwrap();
    assert_eq!(fates(&mut asker), [(200, 0, END)], "only one has it");
    broker.close_queue(&small);
    let cancelled = fates(&mut asker);
    assert_eq!(cancelled.len(), 100 - busy);
    assert!(
        cancelled
            .iter()
            .all(|one| (one.1, one.2) == (CANCELLED, END))
    );
    // A request that a message evicts.
    let evicting = queue(&broker, Policy::DropOldest, SMALL);
    let _evicting = subscribe_on(&broker, "evict", "", &evicting, 0);
    submit(&mut asker, "evict", 1, FOREVER, &answers(2)).unwrap();
    for number in 0..100 {
        publish(&broker, "evict", &wide(number)).unwrap();
    }
    broker.close_queue(&evicting);
    let fate = fates(&mut asker);
    assert!([BUSY, CANCELLED].contains(&fate[0].1) && fate[0].2 == END);
    assert_eq!(asker.in_flight(), 0);
}

#[test]
fn a_request_for_many_takes_one_place_of_the_window() {
    let broker = open();
    let responders: Vec<_> = (0..40).map(|_| subscribe(&broker, "all")).collect();
    let mut asker = requester(&broker, 3);
    for token in 0..3 {
        submit(&mut asker, "all", token, FOREVER, &answers(ANSWERS_ALL)).unwrap();
    }
    assert_eq!(asker.in_flight(), 3);
    let again = submit(&mut asker, "all", 3, FOREVER, &answers(1));
    check(again, Status::Again);
    check(asker.submit_to(b"all", b"", 3, FOREVER), Status::Again);
    asker.cancel(1).unwrap();
    check(asker.cancel(1), Status::NotFound);
    check(asker.submit_to(b"all", b"", 3, FOREVER), Status::Again);
    assert_eq!(fates(&mut asker), [(1, CANCELLED, END)]);
    asker.submit_to(b"all", b"", 3, FOREVER).unwrap();
    for responder in &responders {
        for request in take_all(&broker, queue_of(responder)) {
            reply(&broker, request.token, b"").unwrap();
        }
    }
    let all = received(&mut asker);
    assert_eq!(all.len(), 2 * 40 + 1);
    let last = all.iter().filter(|one| one.2 == END);
    assert_eq!(last.map(|one| one.0).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(asker.in_flight(), 0);
}

#[test]
fn one_call_gathers_the_answers_of_all() {
    let broker = open();
    let message = Message {
        subject: b"all",
        payload: b"?",
        ..Message::default()
    };
    let ask = |answers_max, timeout_ns| {
        client(&broker, |client| {
            client.request_many(&message, answers_max, timeout_ns)
        })
    };
    check(ask(2, FOREVER), Status::NoResponder);
    let there = Arc::downgrade(&broker);
    let inline: Vec<_> = (0..3_u8)
        .map(|number| {
            let there = there.clone();
            handle(&broker, "all", Delivery::Inline, move |view| {
                reply(&there.upgrade().unwrap(), view.token, &[number]).unwrap();
            })
        })
        .collect();
    for wanted in [1, 2, 3, 4, ANSWERS_ALL] {
        let gathered = ask(wanted, FOREVER).unwrap();
        let payloads: Vec<_> = gathered.messages().iter().map(|m| m.payload()[0]).collect();
        assert_eq!(payloads, (0..wanted.min(3) as u8).collect::<Vec<_>>());
        assert_eq!(gathered.messages().last().unwrap().flags, END);
    }
    let silent = subscribe(&broker, "all");
    let gathered = ask(ANSWERS_ALL, MILLISECOND).unwrap();
    assert_eq!(gathered.messages().len(), 4);
    let last = &gathered.messages()[3];
    assert_eq!(
        (last.status, last.flags, last.subscription_id),
        (TIMEOUT, END, 0)
    );
    inline.iter().for_each(Subscription::unsubscribe);
    check(ask(ANSWERS_ALL, 0), Status::Timeout);
    silent.unsubscribe();
    take_all(&broker, queue_of(&silent));
    // A handler may ask many in its turn.
    let _deep = handle(&broker, "deep", Delivery::Inline, {
        let there = there.clone();
        move |view| reply(&there.upgrade().unwrap(), view.token, b"deep").unwrap()
    });
    let _all = handle(&broker, "all", Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        let deeper = Message {
            subject: b"deep",
            ..Message::default()
        };
        let inner = client(&broker, |client| client.request_many(&deeper, 5, FOREVER)).unwrap();
        reply(&broker, view.token, inner.messages()[0].payload()).unwrap();
    });
    let gathered = ask(2, FOREVER).unwrap();
    assert_eq!(gathered.messages()[0].payload(), b"deep");
}

#[test]
fn a_question_to_all_on_other_threads_has_an_answer_of_each() {
    const ROUNDS: u64 = 200;
    let broker = open();
    let responders: Vec<_> = (0..2).map(|_| subscribe(&broker, "all")).collect();
    let workers: Vec<_> = responders
        .into_iter()
        .map(|responder| {
            let there = broker.clone();
            std::thread::spawn(move || {
                for _ in 0..ROUNDS {
                    let queue = queue_of(&responder);
                    let batch = queue.receive(&there, 1, PATIENCE_NS).unwrap();
                    reply(&there, batch.messages()[0].token, b"yes").unwrap();
                }
            })
        })
        .collect();
    let message = Message {
        subject: b"all",
        ..Message::default()
    };
    for _ in 0..ROUNDS {
        let gathered = client(&broker, |client| {
            client.request_many(&message, ANSWERS_ALL, PATIENCE_NS)
        });
        assert_eq!(gathered.unwrap().messages().len(), 2);
    }
    workers.into_iter().for_each(|one| one.join().unwrap());
}

// Streams.

#[test]
fn a_stream_keeps_its_order_and_ends_with_a_mark() {
    for (how, expected) in [
        (Status::Ok, ENDED),
        (Status::End, ENDED),
        (Status::Conflict, Status::Conflict as u32),
    ] {
        for limit in [1, 7, 100] {
            let (broker, responder, mut asker, mut stream) = streaming(&streams(1000));
            for number in 0..100 {
                send(&mut stream, number).unwrap();
            }
            stream.end(how).unwrap();
            let mut all = received_by(&mut asker, limit);
            assert_eq!(all.pop(), Some((7, expected, END, Vec::new())));
            assert_eq!(all.len(), 100);
            for (number, (token, status, flags, payload)) in all.into_iter().enumerate() {
                assert_eq!((token, status, flags), (7, 0, MORE));
                assert_eq!(number_of(&payload), number as u64);
            }
            assert_eq!(asker.in_flight(), 0);
            check(send(&mut stream, 100), Status::Misuse);
            check(stream.end(Status::Ok), Status::Misuse);
            check(stream.credit(), Status::Misuse);
            assert_eq!(broker.statistics().late_answers, 0);
            assert_eq!(broker.statistics().answers, 100);
            drop((stream, responder));
        }
    }
}

#[test]
fn a_stream_stops_without_credit_and_goes_on_as_the_asker_receives() {
    for credit in [1, 2, 3, 64] {
        let (_broker, _responder, mut asker, mut stream) = streaming(&streams(credit));
        let mut next = 0;
        let mut seen = 0;
        for _ in 0..20 {
            let first = next;
            loop {
                match send(&mut stream, next) {
                    Ok(()) => next += 1,
                    Err(error) => {
                        assert_eq!(error.status(), Status::Again, "{error}");
                        break;
                    }
                }
            }
            assert_eq!(stream.credit(), Ok(0));
            assert!((1..=u64::from(credit)).contains(&(next - first)));
            assert!(next - seen <= u64::from(credit), "ahead of the asker");
            for (_, _, flags, payload) in received(&mut asker) {
                assert_eq!((flags, number_of(&payload)), (MORE, seen));
                seen += 1;
            }
            assert!(stream.credit().unwrap() >= 1);
        }
        stream.end(Status::Ok).unwrap();
        assert_eq!(fates(&mut asker), [(7, ENDED, END)]);
    }
}

#[test]
fn manual_credit_comes_by_grant_alone() {
    let options = ManyOptions {
        is_manual: true,
        ..streams(2)
    };
    let (_broker, _responder, mut asker, mut stream) = streaming(&options);
    for round in 0..10 {
        for _ in 0..2 + u64::from(round > 0) {
            send(&mut stream, round).unwrap();
        }
        check(send(&mut stream, round), Status::Again);
        assert!(received(&mut asker).len() >= 2);
        check(send(&mut stream, round), Status::Again);
        asker.grant(7, 3).unwrap();
        assert_eq!(stream.credit(), Ok(3));
    }
    check(asker.grant(7, 0), Status::Invalid);
    check(asker.grant(7, CREDIT_MAX + 1), Status::Invalid);
    check(asker.grant(8, 1), Status::NotFound);
    stream.end(Status::Ok).unwrap();
    assert_eq!(fates(&mut asker), [(7, ENDED, END)]);
    check(asker.grant(7, 1), Status::NotFound);
}

#[test]
fn a_grant_counts_for_a_stream_that_opens_later() {
    let broker = open();
    let responder = subscribe(&broker, "stream");
    let mut asker = requester(&broker, 0);
    submit(&mut asker, "stream", 1, FOREVER, &streams(2)).unwrap();
    asker.grant(1, 5).unwrap();
    let stream = ReplyStream::open(&broker, taken(&broker, &responder)).unwrap();
    assert_eq!(stream.credit(), Ok(7));
    submit(&mut asker, "stream", 2, FOREVER, &answers(2)).unwrap();
    check(asker.grant(2, 1), Status::Invalid);
    let too_much = submit(&mut asker, "stream", 3, FOREVER, &streams(CREDIT_MAX + 1));
    check(too_much, Status::Invalid);
    assert_eq!(asker.in_flight(), 2);
}

#[test]
fn only_who_has_a_request_for_a_stream_opens_one_and_once() {
    let broker = open();
    let responder = subscribe(&broker, "stream");
    let mut asker = requester(&broker, 0);
    for token in [0, 1, u64::MAX, 1 << 63 | 1, 5 << 32 | 1 << 31] {
        check(ReplyStream::open(&broker, token), Status::NotFound);
    }
    asker.submit_to(b"stream", b"", 1, FOREVER).unwrap();
    let single = taken(&broker, &responder);
    check(ReplyStream::open(&broker, single), Status::Unsupported);
    submit(&mut asker, "stream", 2, FOREVER, &answers(2)).unwrap();
    let plain = taken(&broker, &responder);
    check(ReplyStream::open(&broker, plain), Status::Unsupported);
    submit(&mut asker, "stream", 3, FOREVER, &streams(1)).unwrap();
    let token = taken(&broker, &responder);
    check(ReplyStream::open(&broker, token + 1), Status::NotFound);
    let stream = ReplyStream::open(&broker, token).unwrap();
    check(ReplyStream::open(&broker, token), Status::Exists);
    drop(stream);
    for token in [single, plain] {
        reply(&broker, token, b"").unwrap();
    }
    let mut all = fates(&mut asker);
    all.sort_unstable();
    assert_eq!(all, [(1, 0, 0), (2, 0, END), (3, CANCELLED, END)]);
    check(ReplyStream::open(&broker, token), Status::NotFound);
}

#[test]
fn a_plain_answer_is_a_stream_of_one() {
    let broker = open();
    let responder = subscribe(&broker, "stream");
    let mut asker = requester(&broker, 0);
    submit(&mut asker, "stream", 1, FOREVER, &streams(5)).unwrap();
    let token = taken(&broker, &responder);
    reply(&broker, token, b"all").unwrap();
    assert_eq!(received(&mut asker), [(1, 0, END, b"all".to_vec())]);
    // And it ends a stream that was opened.
    submit(&mut asker, "stream", 2, FOREVER, &streams(5)).unwrap();
    let token = taken(&broker, &responder);
    let mut stream = ReplyStream::open(&broker, token).unwrap();
    reply(&broker, token, b"all").unwrap();
    assert_eq!(fates(&mut asker), [(2, 0, END)]);
    check(send(&mut stream, 0), Status::Cancelled);
    check(stream.end(Status::Ok), Status::Cancelled);
}

#[test]
fn a_cancel_reaches_the_responder() {
    let (broker, _responder, mut asker, mut stream) = streaming(&streams(4));
    send(&mut stream, 0).unwrap();
    assert_eq!(stream.credit(), Ok(3));
    asker.cancel(7).unwrap();
    check(asker.cancel(7), Status::NotFound);
    check(stream.credit(), Status::Cancelled);
    check(send(&mut stream, 1), Status::Cancelled);
    check(stream.send_wait(b"", &[], FOREVER), Status::Cancelled);
    check(stream.end(Status::Ok), Status::Cancelled);
    assert_eq!(fates(&mut asker), [(7, CANCELLED, END)]);
    assert_eq!(broker.statistics().late_answers, 1);
    assert_eq!(asker.in_flight(), 0);
}

#[test]
fn a_responder_that_goes_away_cancels_after_what_it_has_sent() {
    for how in 0..4 {
        for limit in [1, 2, 100] {
            let (broker, responder, mut asker, mut stream) = streaming(&streams(10));
            for number in 0..5 {
                send(&mut stream, number).unwrap();
            }
            let (mut kept, mut dropped) = (None, None);
            match how {
                0 => dropped = Some(stream),
                1 => {
                    responder.unsubscribe();
                    kept = Some(stream);
                }
                _ => {
                    broker.close_queue(queue_of(&responder));
                    kept = Some(stream);
                }
            }
            drop(dropped);
            let mut all = received_by(&mut asker, limit);
            assert_eq!(all.pop(), Some((7, CANCELLED, END, Vec::new())));
            assert_eq!(all.len(), 5);
            assert!(all.iter().all(|one| one.2 == MORE));
            if let Some(mut stream) = kept {
                check(send(&mut stream, 5), Status::Cancelled);
                check(stream.end(Status::Ok), Status::Cancelled);
            }
            assert_eq!(asker.in_flight(), 0);
        }
    }
}

#[test]
fn a_stream_that_opens_after_its_subscription_has_ended_is_refused() {
    let broker = open();
    let queues: Vec<_> = (0..2)
        .map(|_| queue(&broker, Policy::Backpressure, 0))
        .collect();
    for group in ["", "g"] {
        let responder = subscribe_on(&broker, "stream", group, &queues[0], 0);
        let mut asker = requester(&broker, 0);
        submit(&mut asker, "stream", 1, FOREVER, &streams(1)).unwrap();
        let token = taken(&broker, &responder);
        responder.unsubscribe();
        check(ReplyStream::open(&broker, token), Status::Cancelled);
        // What it took it may still answer.
        reply(&broker, token, b"").unwrap();
        assert_eq!(fates(&mut asker), [(1, 0, END)]);
    }
}

#[test]
fn an_asker_that_goes_away_ends_its_streams() {
    let (broker, responder, mut asker, mut stream) = streaming(&streams(4));
    submit(&mut asker, "stream", 8, FOREVER, &streams(4)).unwrap();
    let token = taken(&broker, &responder);
    send(&mut stream, 0).unwrap();
    drop(asker);
    check(stream.credit(), Status::Cancelled);
    check(send(&mut stream, 1), Status::Cancelled);
    check(ReplyStream::open(&broker, token), Status::NotFound);
}

#[test]
fn a_closed_client_closes_its_streams_and_wakes_who_waits() {
    let (broker, _responder, asker, mut stream) = streaming(&streams(1));
    send(&mut stream, 0).unwrap();
    let waiting = std::thread::spawn(move || {
        let sent = stream.send_wait(b"", &[], FOREVER);
        (sent, stream)
    });
    until("asleep", || broker.statistics().parks > 0);
    broker.close();
    let (sent, mut stream) = waiting.join().unwrap();
    check(sent, Status::Closed);
    check(send(&mut stream, 1), Status::Closed);
    check(stream.credit(), Status::Closed);
    check(stream.end(Status::Ok), Status::Closed);
    drop((stream, asker));
}

#[test]
fn who_waits_for_credit_hears_of_it_and_of_the_end() {
    for credit in [1, 5, 64] {
        let (_broker, _responder, mut asker, mut stream) = streaming(&streams(credit));
        let worker = std::thread::spawn(move || {
            for number in 0..5000_u64 {
                stream
                    .send_wait(&number.to_le_bytes(), &[], PATIENCE_NS)
                    .unwrap();
            }
            let mut last = Ok(());
            while last.is_ok() {
                last = stream.send_wait(&[0; 8], &[], PATIENCE_NS);
            }
            last
        });
        let mut next = 0;
        while next < 5000 {
            let batch = asker.receive(100, PATIENCE_NS).unwrap();
            for view in batch.messages() {
                if next < 5000 {
                    assert_eq!((view.flags, number_of(view.payload())), (MORE, next));
                    next += 1;
                }
            }
        }
        asker.cancel(7).unwrap();
        check(worker.join().unwrap(), Status::Cancelled);
        let all = fates(&mut asker);
        assert_eq!(all.last(), Some(&(7, CANCELLED, END)));
    }
}

#[test]
fn a_stream_waits_for_room_too() {
    let broker = open_with(Options {
        queue_capacity: SMALL,
        ..Options::default()
    });
    let responder = subscribe(&broker, "stream");
    let mut asker = requester(&broker, 0);
    submit(&mut asker, "stream", 7, FOREVER, &streams(1000)).unwrap();
    let mut stream = ReplyStream::open(&broker, taken(&broker, &responder)).unwrap();
    let mut count = 0;
    let full = loop {
        match stream.send(&wide(count), &[]) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.status(), Status::Again);
    assert!(
        count < 100 && stream.credit().unwrap() > 0,
        "room, not credit"
    );
    // The end needs none.
    let worker = std::thread::spawn(move || {
        for number in count..3000 {
            stream.send_wait(&wide(number), &[], PATIENCE_NS).unwrap();
        }
        while stream.send(&wide(3000), &[]).is_ok() {}
        stream.end(Status::Ok).unwrap();
    });
    let mut next = 0;
    loop {
        let batch = asker.receive(10, PATIENCE_NS).unwrap();
        let is_over = batch.messages().iter().any(|view| view.flags == END);
        for view in batch.messages().iter().filter(|view| view.flags == MORE) {
            assert_eq!(number_of(view.payload()), next.min(3000));
            next += 1;
        }
        if is_over {
            break;
        }
    }
    worker.join().unwrap();
    assert!(next >= 3000);
}

#[test]
fn who_waits_in_vain_is_told_when_by_the_clock() {
    let (broker, driver) = open_simulated(6);
    let responder = subscribe(&broker, "stream");
    let mut asker = requester(&broker, 0);
    submit(&mut asker, "stream", 7, FOREVER, &streams(1)).unwrap();
    let mut stream = ReplyStream::open(&broker, taken(&broker, &responder)).unwrap();
    send(&mut stream, 0).unwrap();
    let now = || fastmq_engine::driver::Driver::monotonic_ns(&*driver);
    let before = now();
    check(stream.send_wait(b"", &[], 0), Status::Again);
    assert_eq!(now(), before);
    let waited = stream.send_wait(b"", &[], 3 * MILLISECOND);
    check(waited, Status::Timeout);
    assert_eq!(now() - before, 3 * MILLISECOND);
}

#[test]
fn the_deadline_and_the_gap_end_a_stream() {
    let (broker, driver) = open_simulated(9);
    let responder = subscribe(&broker, "stream");
    let mut asker = requester(&broker, 0);
    let options = ManyOptions {
        gap_ns: 100,
        ..streams(10)
    };
    // As long as replies come, only the deadline counts.
    submit(&mut asker, "stream", 1, 1000, &options).unwrap();
    let mut stream = ReplyStream::open(&broker, taken(&broker, &responder)).unwrap();
    for number in 0..10 {
        driver.advance(99);
        send(&mut stream, number).unwrap();
        assert_eq!(fates(&mut asker), [(1, 0, MORE)]);
    }
    driver.advance(9);
    assert_eq!(fates(&mut asker), []);
    driver.advance(1);
    assert_eq!(fates(&mut asker), [(1, TIMEOUT, END)]);
    check(send(&mut stream, 10), Status::Cancelled);
    // One that pauses ends by the gap.
    submit(&mut asker, "stream", 2, FOREVER, &options).unwrap();
    let mut stream = ReplyStream::open(&broker, taken(&broker, &responder)).unwrap();
    driver.advance(99);
    send(&mut stream, 0).unwrap();
    assert_eq!(fates(&mut asker), [(2, 0, MORE)]);
    driver.advance(99);
    assert_eq!(fates(&mut asker), []);
    driver.advance(1);
    assert_eq!(fates(&mut asker), [(2, TIMEOUT, END)]);
    check(stream.credit(), Status::Cancelled);
    // So does one that never begins.
    submit(&mut asker, "stream", 3, FOREVER, &options).unwrap();
    driver.advance(100);
    assert_eq!(fates(&mut asker), [(3, TIMEOUT, END)]);
    // What came in time counts, however late it is received.
    submit(&mut asker, "stream", 4, FOREVER, &options).unwrap();
    take_all(&broker, queue_of(&responder));
    submit(&mut asker, "stream", 5, FOREVER, &options).unwrap();
    let mut stream = ReplyStream::open(&broker, taken(&broker, &responder)).unwrap();
    send(&mut stream, 0).unwrap();
    driver.advance(5000);
    assert_eq!(fates(&mut asker), [(5, 0, MORE), (4, TIMEOUT, END)]);
    assert_eq!(asker.in_flight(), 1);
}

#[test]
fn several_streams_of_one_request_each_end() {
    let broker = open();
    let responders: Vec<_> = (0..3).map(|_| subscribe(&broker, "stream")).collect();
    let mut asker = requester(&broker, 0);
    let options = ManyOptions {
        answers_max: ANSWERS_ALL,
        ..streams(8)
    };
    submit(&mut asker, "stream", 1, FOREVER, &options).unwrap();
    let mut open = responders
        .iter()
        .map(|one| ReplyStream::open(&broker, taken(&broker, one)).unwrap());
    let (mut first, mut second, third) = (
        open.next().unwrap(),
        open.next().unwrap(),
        open.next().unwrap(),
    );
    send(&mut first, 1).unwrap();
    send(&mut second, 2).unwrap();
    first.end(Status::Ok).unwrap();
    second.end(Status::Io).unwrap();
    drop(third);
    let mut seen = Vec::new();
    while let Ok(batch) = asker.receive(2, 0) {
        for view in batch.messages() {
            let at = responders
                .iter()
                .position(|r| r.id() == view.subscription_id);
            seen.push((at.unwrap(), view.status, view.flags));
        }
    }
    seen.sort_unstable();
    let io = Status::Io as u32;
    let expected = [
        (0, 0, MORE),
        (0, ENDED, MORE),
        (1, 0, MORE),
        (1, io, MORE),
        (2, CANCELLED, END),
    ];
    assert_eq!(seen, expected);
    assert_eq!(asker.in_flight(), 0);
    // The first one that ends is enough.
    submit(&mut asker, "stream", 2, FOREVER, &streams(8)).unwrap();
    let mut open = responders
        .iter()
        .map(|one| ReplyStream::open(&broker, taken(&broker, one)).unwrap());
    let (mut first, mut second) = (open.next().unwrap(), open.next().unwrap());
    send(&mut second, 1).unwrap();
    first.end(Status::Ok).unwrap();
    assert_eq!(fates(&mut asker), [(2, 0, MORE), (2, ENDED, END)]);
    check(send(&mut second, 2), Status::Cancelled);
}

#[test]
fn an_inline_responder_streams_too() {
    let broker = open();
    let there = Arc::downgrade(&broker);
    let kept: Arc<Mutex<Vec<ReplyStream>>> = Arc::default();
    let keep = kept.clone();
    let _responder = handle(&broker, "inline", Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        let mut stream = ReplyStream::open(&broker, view.token).unwrap();
        for number in 0..4 {
            send(&mut stream, number).unwrap();
        }
        check(send(&mut stream, 4), Status::Again);
        // Nobody receives before this returns.
        check(stream.send_wait(b"", &[], FOREVER), Status::Misuse);
        keep.lock().unwrap().push(stream);
    });
    let mut asker = requester(&broker, 0);
    submit(&mut asker, "inline", 1, FOREVER, &streams(4)).unwrap();
    let mut stream = kept.lock().unwrap().pop().unwrap();
    let numbers = |all: Vec<(u64, u32, u32, Vec<u8>)>| -> Vec<u64> {
        all.iter().map(|one| number_of(&one.3)).collect()
    };
    assert_eq!(numbers(received(&mut asker)), [0, 1, 2, 3]);
    stream
        .send_wait(&4_u64.to_le_bytes(), &[], FOREVER)
        .unwrap();
    assert_eq!(numbers(received(&mut asker)), [4]);
    stream.end(Status::Ok).unwrap();
    assert_eq!(fates(&mut asker), [(1, ENDED, END)]);
}

#[test]
fn the_loop_of_a_client_hears_of_credit_and_of_the_end() {
    for is_cancelled in [false, true] {
        let (broker, _responder, mut asker, mut stream) = streaming(&streams(2));
        broker.dispatch(0, 0).unwrap();
        send(&mut stream, 0).unwrap();
        send(&mut stream, 1).unwrap();
        check(send(&mut stream, 2), Status::Again);
        assert_eq!(broker.dispatch(0, 0).unwrap() & ready::ROOM, 0);
        if is_cancelled {
            asker.cancel(7).unwrap();
        } else {
            assert_eq!(received(&mut asker).len(), 2);
        }
        assert_eq!(broker.dispatch(0, 0).unwrap() & ready::ROOM, ready::ROOM);
        assert_eq!(broker.dispatch(0, 0).unwrap() & ready::ROOM, 0);
        let expected = if is_cancelled {
            Status::Cancelled
        } else {
            Status::Ok
        };
        check(send(&mut stream, 2), expected);
    }
}

#[test]
fn the_loop_of_an_asker_hears_of_the_end_of_a_stream() {
    let (broker, _responder, mut asker, mut stream) = streaming(&streams(2));
    broker.dispatch(0, 0).unwrap();
    assert_eq!(received(&mut asker), []);
    assert_eq!(broker.dispatch(0, 0).unwrap() & ready::ANSWERS, 0);
    stream.end(Status::Ok).unwrap();
    assert_eq!(
        broker.dispatch(0, 0).unwrap() & ready::ANSWERS,
        ready::ANSWERS
    );
    assert_eq!(fates(&mut asker), [(7, ENDED, END)]);
    assert_eq!(broker.dispatch(0, 0).unwrap() & ready::ANSWERS, 0);
}

#[test]
fn large_replies_and_headers_stream_as_others() {
    let (broker, _responder, mut asker, mut stream) = streaming(&streams(100));
    let mut headers = fastmq_engine::headers::Headers::new();
    headers.add(b"n", b"v").unwrap();
    for size in [0, 100, 9000, 200_000] {
        stream.send(&vec![3; size], headers.as_bytes()).unwrap();
        let batch = asker.receive(1, 0).unwrap();
        let view = &batch.messages()[0];
        assert_eq!((view.payload().len(), view.flags), (size, MORE));
        let value = fastmq_engine::headers::get(view.headers(), b"n");
        assert_eq!(value, Ok(&b"v"[..]));
    }
    check(stream.send(&vec![0; (1 << 20) + 1], &[]), Status::TooLarge);
    check(stream.send(b"", &[0; 70_000]), Status::TooLarge);
    send(&mut stream, 1).unwrap();
    assert_eq!(received(&mut asker).len(), 1);
    assert!(broker.statistics().memory < 2 << 20);
}

#[test]
fn tokens_of_old_legs_find_nobody_however_many_came_since() {
    let broker = open();
    let responders: Vec<_> = (0..5).map(|_| subscribe(&broker, "all")).collect();
    let mut asker = requester(&broker, 2);
    // One stays, so that others pass over it.
    submit(&mut asker, "all", 0, FOREVER, &streams(1)).unwrap();
    let kept: Vec<u64> = responders.iter().map(|one| taken(&broker, one)).collect();
    let mut old: Vec<u64> = Vec::new();
    for token in 1..3000 {
        submit(&mut asker, "all", token, FOREVER, &answers(2)).unwrap();
        for token in &old {
            reply(&broker, *token, b"old").unwrap();
        }
        old = responders.iter().map(|one| taken(&broker, one)).collect();
        assert!(old.iter().all(|token| !kept.contains(token)));
        for token in &old[..2] {
            reply(&broker, *token, b"new").unwrap();
        }
        let all = received(&mut asker);
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|one| one.0 == token && one.3 == b"new"));
    }
    for token in kept {
        reply(&broker, token, b"").unwrap();
    }
    assert_eq!(fates(&mut asker), [(0, 0, END)], "the first of five");
}

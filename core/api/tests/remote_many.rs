//! Several answers to one request, and streams of replies, across processes' connections.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::thread;

use fastmq::{
    ANSWERS_ALL, Client, ConnectOptions, Delivery, ManyOptions, Message, Options, Requester,
    RequesterOptions, Server, ServerOptions, Status, SubscribeOptions, Subscription,
};
use fastmq_engine::memory::view::view_flag::{END, MORE};

const PATIENCE_NS: u64 = 30_000_000_000;

fn serve(name: &str) -> (Client, Server, Vec<String>) {
    let broker = Client::open(Options::default()).unwrap();
    let file = format!("fastmq-many-{name}-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(file);
    let unix = format!("unix:{}", path.display());
    let urls = [unix.as_str(), "tcp://127.0.0.1:0"];
    let server = broker.listen(&urls, ServerOptions::default()).unwrap();
    let urls = server.urls();
    (broker, server, urls)
}

fn connect(url: &str) -> Client {
    Client::connect(url, ConnectOptions::default()).unwrap()
}

fn about<'m>(subject: &'m str, payload: &'m [u8]) -> Message<'m> {
    Message {
        subject: subject.as_bytes(),
        payload,
        ..Message::default()
    }
}

/// Answers each request once, with a name.
fn answering(client: &Client, subject: &str, name: &'static str) -> Subscription {
    let answering = client.clone();
    let on_message = Box::new(move |view: &fastmq::View| {
        answering.reply(view.token, name).unwrap();
    });
    let options = SubscribeOptions {
        delivery: Delivery::Thread,
        on_message: Some(on_message),
        ..SubscribeOptions::default()
    };
    client.subscribe_with(subject, options).unwrap()
}

/// Answers each request by a stream of as many numbers as the payload says, then by its end.
fn counting(client: &Client, subject: &str, last: Arc<Mutex<Option<Status>>>) -> Subscription {
    let there = client.clone();
    let on_message = Box::new(move |view: &fastmq::View| {
        let count = u64::from_le_bytes(view.payload().try_into().unwrap());
        let mut stream = there.reply_stream(view.token).unwrap();
        for number in 0..count {
            let sent = stream.send_wait(&number.to_le_bytes(), &[], PATIENCE_NS);
            if let Err(error) = sent {
                *last.lock().unwrap() = Some(error.status());
                return;
            }
        }
        stream.end(Status::Ok).unwrap();
        *last.lock().unwrap() = Some(Status::Ok);
    });
    let options = SubscribeOptions {
        delivery: Delivery::Thread,
        on_message: Some(on_message),
        ..SubscribeOptions::default()
    };
    client.subscribe_with(subject, options).unwrap()
}

/// What a request brought, in order: its numbers by responder, and its last status.
fn collect(requester: &mut Requester, token: u64, upto: usize) -> (Vec<(u32, u64)>, Option<u32>) {
    let mut numbers = Vec::new();
    while numbers.len() < upto {
        let batch = requester.receive(64, PATIENCE_NS).unwrap();
        for view in batch.messages() {
            assert_eq!(view.token, token);
            if let Ok(number) = view.payload().try_into() {
                numbers.push((view.subscription_id, u64::from_le_bytes(number)));
            }
            if view.flags & END != 0 {
                return (numbers, Some(view.status));
            }
            assert_ne!(view.flags & MORE, 0);
        }
    }
    (numbers, None)
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if is_so() {
            return;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("never {what}");
}

#[test]
fn all_who_have_a_request_answer_wherever_they_are() {
    let (local, server, urls) = serve("all");
    let remote = [connect(&urls[0]), connect(&urls[1])];
    let everybody = [&local, &remote[0], &remote[1]];
    let names = ["local", "first", "second"];
    let _answering: Vec<_> = everybody
        .iter()
        .zip(names)
        .map(|(client, name)| answering(client, "who", name))
        .collect();
    for asker in everybody {
        for _ in 0..50 {
            let all = asker
                .request_many(&about("who", b"?"), ANSWERS_ALL, PATIENCE_NS)
                .unwrap();
            let said: HashSet<_> = all.messages().iter().map(|it| it.payload()).collect();
            assert_eq!(said, names.iter().map(|name| name.as_bytes()).collect());
            let who: HashSet<_> = all.messages().iter().map(|it| it.subscription_id).collect();
            assert!(who.len() == 3 && !who.contains(&0), "{who:?}");
            let ends = all.messages().iter().map(|it| it.flags & (MORE | END));
            assert_eq!(ends.collect::<Vec<_>>(), [MORE, MORE, END]);
        }
        let two = asker.request_many(&about("who", b"?"), 2, PATIENCE_NS);
        assert_eq!(two.unwrap().messages().len(), 2);
        let none = asker.request_many(&about("nobody", b"?"), 2, PATIENCE_NS);
        assert_eq!(none.unwrap_err().status(), Status::NoResponder);
    }
    remote.iter().for_each(Client::close);
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn one_that_says_nothing_leaves_the_answers_of_the_others() {
    let (local, server, urls) = serve("mute");
    let (asker, other) = (connect(&urls[0]), connect(&urls[1]));
    let _answering = answering(&local, "who", "local");
    let _mute = other.subscribe("who").unwrap();
    let mut requester = asker.requester(RequesterOptions::default()).unwrap();
    let options = ManyOptions {
        answers_max: ANSWERS_ALL,
        ..ManyOptions::default()
    };
    let message = about("who", b"?");
    requester
        .submit_many(&message, 7, 100_000_000, &options)
        .unwrap();
    let mut got = Vec::new();
    while got.last().is_none_or(|(_, _, flags)| flags & END == 0) {
        let batch = requester.receive(64, PATIENCE_NS).unwrap();
        let views = batch.messages().iter();
        got.extend(views.map(|it| (it.payload().to_vec(), it.status, it.flags & (MORE | END))));
    }
    let timeout = Status::Timeout as u32;
    assert_eq!(
        got,
        [(b"local".to_vec(), 0, MORE), (Vec::new(), timeout, END)]
    );
    assert_eq!(requester.in_flight(), 0);
    asker.close();
    other.close();
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn streams_come_whole_and_in_order_within_their_credit() {
    let (local, server, urls) = serve("streams");
    let remote = [connect(&urls[0]), connect(&urls[1])];
    let last: Vec<Arc<Mutex<Option<Status>>>> = vec![Arc::default(), Arc::default()];
    let places = [
        (&local, &remote[0]),
        (&remote[0], &local),
        (&remote[0], &remote[1]),
    ];
    for (answering, asking) in places {
        let _first = counting(answering, "count", last[0].clone());
        let _second = counting(&remote[1], "count", last[1].clone());
        let mut requester = asking.requester(RequesterOptions::default()).unwrap();
        for (credit, count) in [(1, 100), (8, 1000), (5000, 2000)] {
            last.iter().for_each(|last| *last.lock().unwrap() = None);
            let options = ManyOptions {
                answers_max: ANSWERS_ALL,
                credit,
                ..ManyOptions::default()
            };
            let payload = u64::to_le_bytes(count);
            let message = about("count", &payload);
            requester
                .submit_many(&message, 9, PATIENCE_NS, &options)
                .unwrap();
            let (numbers, status) = collect(&mut requester, 9, usize::MAX);
            assert_eq!(status, Some(Status::End as u32), "credit {credit}");
            let who: HashSet<u32> = numbers.iter().map(|(who, _)| *who).collect();
            assert_eq!(who.len(), 2);
            for one in who {
                let its = numbers.iter().filter(|(who, _)| *who == one);
                assert!(
                    its.map(|(_, number)| *number).eq(0..count),
                    "credit {credit}"
                );
            }
            eventually("both have ended", || {
                last.iter()
                    .all(|last| *last.lock().unwrap() == Some(Status::Ok))
            });
        }
        assert_eq!(requester.in_flight(), 0);
    }
    remote.iter().for_each(Client::close);
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn whoever_grants_by_hand_gets_what_it_granted_and_ends_it_when_it_wants() {
    let (local, server, urls) = serve("grants");
    let (asker, responder) = (connect(&urls[0]), connect(&urls[1]));
    let last: Arc<Mutex<Option<Status>>> = Arc::default();
    let _counting = counting(&responder, "count", last.clone());
    let mut requester = asker.requester(RequesterOptions::default()).unwrap();
    let options = ManyOptions {
        credit: 3,
        is_manual: true,
        ..ManyOptions::default()
    };
    let payload = 100u64.to_le_bytes();
    let message = about("count", &payload);
    requester
        .submit_many(&message, 5, PATIENCE_NS, &options)
        .unwrap();
    assert_eq!(collect(&mut requester, 5, 3).0.len(), 3);
    let nothing = requester.receive(64, 20_000_000).map(drop).unwrap_err();
    assert_eq!(nothing.status(), Status::Timeout, "no more was granted");
    requester.grant(5, 4).unwrap();
    let (numbers, status) = collect(&mut requester, 5, 4);
    assert!(numbers.iter().map(|(_, number)| *number).eq(3..7) && status.is_none());
    requester.cancel(5).unwrap();
    assert_eq!(
        collect(&mut requester, 5, 1).1,
        Some(Status::Cancelled as u32)
    );
    eventually("the responder hears of it", || {
        *last.lock().unwrap() == Some(Status::Cancelled)
    });
    asker.close();
    responder.close();
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn who_asks_for_one_answer_gets_no_stream() {
    let (local, server, urls) = serve("single");
    let (asker, responder) = (connect(&urls[0]), connect(&urls[1]));
    let asked = responder.subscribe("one").unwrap();
    let mut requester = asker.requester(RequesterOptions::default()).unwrap();
    let message = about("one", b"?");
    requester.submit_message(&message, 1, PATIENCE_NS).unwrap();
    let several = ManyOptions {
        answers_max: 2,
        ..ManyOptions::default()
    };
    requester
        .submit_many(&message, 2, PATIENCE_NS, &several)
        .unwrap();
    let mut tokens = Vec::new();
    while tokens.len() < 2 {
        let batch = asked.receive(2, PATIENCE_NS).unwrap();
        tokens.extend(batch.messages().iter().map(|view| view.token));
    }
    for token in &tokens {
        let refused = responder.reply_stream(*token).map(drop).unwrap_err();
        assert_eq!(refused.status(), Status::Unsupported);
        responder.reply(*token, "here").unwrap();
        let refused = responder.reply_stream(*token).map(drop).unwrap_err();
        assert_eq!(refused.status(), Status::NotFound);
    }
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let batch = requester.receive(2, PATIENCE_NS).unwrap();
        let views = batch.messages().iter();
        answers.extend(views.map(|view| (view.token, view.payload().to_vec())));
    }
    answers.sort();
    assert_eq!(answers, [(1, b"here".to_vec()), (2, b"here".to_vec())]);
    asker.close();
    responder.close();
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn who_goes_ends_what_was_open() {
    let (local, server, urls) = serve("gone");
    let (asker, responder) = (connect(&urls[0]), connect(&urls[1]));
    let asked = responder.subscribe("count").unwrap();
    let mut requester = asker.requester(RequesterOptions::default()).unwrap();
    let options = ManyOptions {
        credit: 10,
        ..ManyOptions::default()
    };
    let message = about("count", b"?");
    requester
        .submit_many(&message, 5, PATIENCE_NS, &options)
        .unwrap();
    let token = asked.receive(1, PATIENCE_NS).unwrap().messages()[0].token;
    let mut stream = responder.reply_stream(token).unwrap();
    let again = responder.reply_stream(token).map(drop).unwrap_err();
    assert_eq!(again.status(), Status::Exists);
    for number in 0..4u64 {
        stream.send(&number.to_le_bytes(), &[]).unwrap();
    }
    assert_eq!(collect(&mut requester, 5, 4).0.len(), 4);
    // The responder goes.
    responder.close();
    let gone = stream.send(b"more", &[]).unwrap_err();
    assert_eq!(gone.status(), Status::Closed);
    assert_eq!(
        collect(&mut requester, 5, 1).1,
        Some(Status::Cancelled as u32)
    );
    // The server goes.
    let mute = local.subscribe("count").unwrap();
    requester
        .submit_many(&message, 6, PATIENCE_NS, &options)
        .unwrap();
    drop(mute.receive(1, PATIENCE_NS).unwrap());
    drop(server);
    assert_eq!(
        collect(&mut requester, 6, 1).1,
        Some(Status::Disconnected as u32)
    );
    asker.close();
    local.close();
}

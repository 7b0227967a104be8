//! Requests of connections that are answered past the queue of answers, and who must answer them.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastmq_engine::driver::SimulatedDriver;
use fastmq_engine::driver::sockets::{
    Address, Completion, Config, ConnectionId, ConnectionOptions, Faults, SendMode, Sending,
    SimulatedNetwork, SimulatedSockets, Sockets,
};
use fastmq_engine::server::{Parts, ServerOptions, Session, SessionKey, Shard};
use fastmq_engine::{Broker, Delivery, Status, Subscription};
use fastmq_wire::handshake::capability;
use fastmq_wire::{Draft, Kind, Limits, Reason, State, Subject};

use crate::peer::{Got, Heard, Peer};
use crate::steps::*;

/// Bytes that wait to be sent above which answers wait in their queue.
const FULL: usize = 1 << 20;

/// A responder in the server's process that answers on the asker's thread with what it was asked.
fn echo(broker: &Arc<Broker>, subject: &str) -> Subscription {
    let there = Arc::downgrade(broker);
    handle(broker, subject, Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        client(&broker, |client| {
            client.reply(view.token, 0, view.payload())
        })
        .unwrap();
    })
}

/// Counts answers by correlation; none comes twice.
fn count_answers(peer: &mut Peer, answers: &mut BTreeMap<u32, (u8, Vec<u8>)>) {
    while let Some(heard) = peer.heard.pop_front() {
        if let Heard::Reply {
            correlation,
            status,
            payload,
        } = heard
        {
            let before = answers.insert(correlation, (status, payload));
            assert_eq!(before, None, "{correlation} is answered once");
        }
    }
}

#[test]
fn answers_at_once_are_sent_at_once_until_much_waits() {
    let (broker, _driver) = open_simulated(3);
    let echo = echo(&broker, "echo");
    let mut parts = Parts::new(&broker, ServerOptions::default()).unwrap();
    let mut session = Session::new(&parts, SessionKey::default());
    let mut peer = Peer::with(Limits {
        credit: 1 << 30,
        ..Limits::default()
    });
    peer.hello_with(b"", capability::ALL);
    peer.alias(5, "echo");
    session.on_bytes(&mut parts, &std::mem::take(&mut peer.out));
    peer.hear(&std::mem::take(session.outgoing()));
    session.taken();
    // By alias and by name, plain and with more than a payload.
    let ask = |peer: &mut Peer, number: u32| {
        let payload = number.to_le_bytes().repeat(100);
        let subject = match number % 2 {
            0 => Subject::Alias(5),
            _ => Subject::Text(b"echo"),
        };
        let mut draft = Draft::request(number, subject, &payload);
        draft.ttl_ns = number.is_multiple_of(3).then_some(1_000_000_000);
        draft.key = if number.is_multiple_of(5) {
            b"key"
        } else {
            b""
        };
        peer.say(&draft);
    };
    for number in 0..10 {
        ask(&mut peer, number);
    }
    session.on_bytes(&mut parts, &std::mem::take(&mut peer.out));
    let mut answers = BTreeMap::new();
    peer.hear(&std::mem::take(session.outgoing()));
    session.taken();
    count_answers(&mut peer, &mut answers);
    assert_eq!(answers.len(), 10, "before any queue is looked at");
    // Nobody takes what is to be sent.
    for number in 10..5000 {
        ask(&mut peer, number);
    }
    session.on_bytes(&mut parts, &std::mem::take(&mut peer.out));
    let most = FULL + 1000;
    assert!(session.outgoing().len() <= most);
    let _ = session.pull(&mut parts);
    assert!(session.outgoing().len() <= most, "the rest waits");
    loop {
        let out = std::mem::take(session.outgoing());
        if out.is_empty() {
            break;
        }
        session.taken();
        peer.hear(&out);
        session.look_everywhere();
        while session.pull(&mut parts) {}
    }
    count_answers(&mut peer, &mut answers);
    assert_eq!(answers.len(), 5000);
    for (number, (status, payload)) in answers {
        assert_eq!((status, payload), (0, number.to_le_bytes().repeat(100)));
    }
    assert_eq!(echo.counts().0, 5000);
    assert_eq!(session.state(), State::Ready);
}

#[test]
fn requests_that_nobody_can_take_are_bounded_too() {
    let (broker, _driver) = open_simulated(3);
    let mut parts = Parts::new(&broker, ServerOptions::default()).unwrap();
    let mut session = Session::new(&parts, SessionKey::default());
    let mut peer = Peer::new();
    peer.hello_with(b"", capability::ALL);
    peer.alias(5, "nobody");
    let mut number = 0;
    while session.state() != State::Ending {
        assert!(number < 1_000_000, "who reads nothing is closed");
        for _ in 0..4096 {
            peer.say(&Draft::request(number, Subject::Alias(5), b""));
            number += 1;
        }
        session.on_bytes(&mut parts, &std::mem::take(&mut peer.out));
        let _ = session.pull(&mut parts);
        assert!(session.outgoing().len() < 16 << 20);
    }
}

/// A shard with clients, over a network that loses nothing.
struct World {
    broker: Arc<Broker>,
    driver: Arc<SimulatedDriver>,
    shard: Shard,
    sockets: SimulatedSockets,
    address: Address,
    clients: Vec<(ConnectionId, Peer, bool)>,
}

impl World {
    fn new() -> Self {
        let (broker, driver) = open_simulated(11);
        let faults = Faults {
            capacity_bytes: 16 << 10,
            ..Faults::default()
        };
        let network = SimulatedNetwork::new(&driver, 11, faults);
        let config = Config {
            connections_max: 8,
            ..Config::default()
        };
        let options = ServerOptions::default();
        let sockets = SimulatedSockets::new(&network, &config);
        let mut shard = Shard::new(&broker, Box::new(sockets), options).unwrap();
        let address = Address::Unix("/simulated".into());
        shard.listen(&address).unwrap();
        Self {
            broker,
            driver,
            shard,
            sockets: SimulatedSockets::new(&network, &config),
            address,
            clients: Vec::new(),
        }
    }

    fn connect(&mut self) -> usize {
        self.connect_with(Limits {
            credit: 1 << 30,
            ..Limits::default()
        })
    }

    fn connect_with(&mut self, limits: Limits) -> usize {
        let mut peer = Peer::with(limits);
        peer.hello_with(b"", capability::ALL);
        let options = ConnectionOptions::default();
        let id = self.sockets.connect(&self.address, options).unwrap();
        self.clients.push((id, peer, false));
        self.run();
        let at = self.clients.len() - 1;
        let welcome = self.peer(at).heard.pop_front();
        assert!(matches!(welcome, Some(Heard::Welcome { .. })));
        at
    }

    fn peer(&mut self, at: usize) -> &mut Peer {
        &mut self.clients[at].1
    }

    /// Turns until nothing moves; no time passes beyond what the network takes.
    fn run(&mut self) {
        let (mut still, mut turns) = (0, 0);
        while still < 20 {
            still += 1;
            turns += 1;
            assert!(turns < 1_000_000, "it comes to no end");
            self.shard.turn(0, &|| false).unwrap();
            self.sockets.wait(0, 0, &mut |_| false).unwrap();
            while let Some(completion) = self.sockets.next() {
                still = 0;
                match completion {
                    Completion::Received { connection, bytes } => {
                        let known = self.clients.iter_mut().find(|it| it.0 == connection);
                        known.unwrap().1.hear(bytes);
                    }
                    Completion::Sent { connection, .. } => {
                        let known = self.clients.iter_mut().find(|it| it.0 == connection);
                        known.into_iter().for_each(|it| it.2 = false);
                    }
                    _ => {}
                }
            }
            for (id, peer, is_sending) in &mut self.clients {
                if *is_sending {
                    still = 0;
                }
                if peer.out.is_empty() || *is_sending {
                    continue;
                }
                still = 0;
                let mut bytes = std::mem::take(&mut peer.out);
                let sent = self.sockets.send(*id, &mut bytes, SendMode::Batched);
                *is_sending = matches!(sent, Ok(Sending::Started));
            }
            self.driver.advance(1000);
        }
    }

    fn questions(&mut self, at: usize) -> Vec<Got> {
        let heard = self.peer(at).heard.drain(..);
        let asked = heard.filter_map(|heard| match heard {
            Heard::Request(got) => Some(got),
            _ => None,
        });
        asked.collect()
    }
}

#[test]
fn a_connection_is_answered_by_another_once_and_by_nobody_else() {
    let mut world = World::new();
    let (asker, responder, other) = (world.connect(), world.connect(), world.connect());
    world.peer(responder).subscribe(1, 1, "q");
    world.peer(other).subscribe(1, 1, "other");
    world.run();
    world.peer(asker).alias(1, "q");
    for number in 0..100 {
        let draft = Draft::request(number, Subject::Alias(1), b"?");
        world.peer(asker).say(&draft);
    }
    world.peer(asker).request(1000, "other", b"");
    world.run();
    let questions = world.questions(responder);
    let mine = world.questions(other).pop().unwrap();
    assert_eq!(questions.len(), 100);
    // What others were given means nothing here, and so does what was made up.
    for question in &questions {
        if question.token != mine.token {
            world.peer(other).reply(question.token, b"forged");
        }
    }
    for bit in 0..64 {
        world.peer(other).reply(mine.token ^ 1 << bit, b"forged");
    }
    world.run();
    let mut answers = BTreeMap::new();
    count_answers(world.peer(asker), &mut answers);
    assert_eq!(answers, BTreeMap::new());
    // Backwards, each twice, at once and later.
    for question in questions.iter().rev() {
        world.peer(responder).reply(question.token, b"!");
        world.peer(responder).reply(question.token, b"again");
    }
    world.peer(other).reply(mine.token, b"mine");
    world.run();
    world.peer(responder).reply(questions[0].token, b"late");
    world.run();
    count_answers(world.peer(asker), &mut answers);
    assert_eq!(answers.remove(&1000), Some((0, b"mine".to_vec())));
    assert_eq!(answers.len(), 100);
    assert!(answers.values().all(|it| *it == (0, b"!".to_vec())));
    assert!(world.broker.statistics().late_answers > 100);
}

#[test]
fn who_asked_one_that_goes_is_told_at_once() {
    let mut world = World::new();
    let (asker, responder) = (world.connect(), world.connect());
    world.peer(responder).subscribe(1, 1, "q");
    world.run();
    world.peer(asker).alias(1, "q");
    for number in 0..10 {
        // Past its queue and through it.
        let subject = match number % 2 {
            0 => Subject::Alias(1),
            _ => Subject::Text(b"q"),
        };
        let payload = [number as u8];
        let draft = Draft::request(number, subject, &payload);
        world.peer(asker).say(&draft);
        world.run();
    }
    let questions = world.questions(responder);
    let asked: Vec<u8> = questions.iter().map(|it| it.payload[0]).collect();
    assert_eq!(asked, (0..10).collect::<Vec<_>>());
    // It wants no more, and still answers what it has.
    world.peer(responder).pair(Kind::Unsubscribe, 1, 2);
    world.peer(responder).reply(questions[4].token, b"4");
    world.run();
    let mut answers = BTreeMap::new();
    count_answers(world.peer(asker), &mut answers);
    assert_eq!(answers, BTreeMap::from([(4, (0, b"4".to_vec()))]));
    let id = world.clients[responder].0;
    world.sockets.close(id);
    world.run();
    count_answers(world.peer(asker), &mut answers);
    assert_eq!(answers.len(), 10);
    answers.remove(&4);
    let cancelled = (Status::Cancelled as u8, Vec::new());
    assert!(answers.values().all(|it| *it == cancelled));
}

#[test]
fn an_asker_that_reads_slowly_gets_every_answer_and_holds_up_nobody() {
    let mut world = World::new();
    let (asker, responder, quick) = (world.connect(), world.connect(), world.connect());
    world.peer(responder).subscribe(1, 1, "q");
    world.run();
    let slow = world.clients[asker].0;
    world.sockets.set_receiving(slow, false).unwrap();
    for number in 0..6000 {
        world.peer(asker).request(number, "q", &[7; 200]);
    }
    world.run();
    let mut count = 0;
    loop {
        let questions = world.questions(responder);
        if questions.is_empty() {
            break;
        }
        count += questions.len();
        for question in questions {
            world
                .peer(responder)
                .reply(question.token, &question.payload);
        }
        world.run();
    }
    assert_eq!(count, 6000);
    assert!(world.shard.buffered_bytes() < 8 << 20);
    world.peer(quick).request(1, "q", b"?");
    world.run();
    let question = world.questions(responder).pop().unwrap();
    world.peer(responder).reply(question.token, b"!");
    world.run();
    let mut answers = BTreeMap::new();
    count_answers(world.peer(quick), &mut answers);
    assert_eq!(answers, BTreeMap::from([(1, (0, b"!".to_vec()))]));
    world.sockets.set_receiving(slow, true).unwrap();
    world.run();
    answers.clear();
    count_answers(world.peer(asker), &mut answers);
    assert_eq!(answers.len(), 6000);
    assert!(answers.values().all(|it| *it == (0, vec![7; 200])));
}

/// What a client gets that takes aliases.
const ALIASES: Limits = Limits {
    credit: 1 << 30,
    alias_max: 64,
    alias_bytes_max: 4096,
    frame_max: 8192,
    ping_ns: 0,
};

fn number_in(payload: &[u8]) -> u32 {
    u32::from_le_bytes(payload[..4].try_into().unwrap())
}

#[test]
fn requests_to_connections_of_a_shard_go_past_their_queues() {
    let mut world = World::new();
    let (asker, responder) = (world.connect(), world.connect_with(ALIASES));
    world.peer(responder).subscribe(1, 1, "q.*");
    world.peer(responder).subscribe(2, 2, "p");
    world.run();
    world.questions(responder);
    world.peer(asker).alias(1, "q.a");
    world.peer(asker).alias(2, "q.b");
    world.peer(asker).alias(3, "p");
    // The first one to each makes a route.
    for alias in 1..=3 {
        let draft = Draft::request(9100 + alias, Subject::Alias(alias), b"");
        world.peer(asker).say(&draft);
    }
    world.run();
    for question in world.questions(responder) {
        world.peer(responder).reply(question.token, b"");
    }
    world.run();
    let mut answers = BTreeMap::new();
    count_answers(world.peer(asker), &mut answers);
    assert_eq!(answers.len(), 3);
    answers.clear();
    let memory = world.broker.statistics().memory_high;
    let names = ["q.a", "q.b", "p"];
    for number in 0..9000_u32 {
        let payload = number.to_le_bytes();
        let subject = Subject::Alias(1 + number % 3);
        let draft = Draft::request(number, subject, &payload);
        world.peer(asker).say(&draft);
    }
    world.run();
    let questions = world.questions(responder);
    assert_eq!(questions.len(), 9000);
    for (number, question) in questions.iter().enumerate() {
        assert_eq!(question.subject, names[number % 3].as_bytes());
        assert_eq!(question.subscription, [1, 1, 2][number % 3]);
        assert_eq!(question.payload, (number as u32).to_le_bytes());
        assert!(question.is_alias && question.token != 0);
        world
            .peer(responder)
            .reply(question.token, &question.payload);
    }
    let statistics = world.broker.statistics();
    assert_eq!(statistics.requests, 9003);
    assert_eq!(statistics.memory_high, memory, "no queue had to grow");
    world.run();
    count_answers(world.peer(asker), &mut answers);
    assert_eq!(answers.len(), 9000);
    for (number, answer) in &answers {
        assert_eq!(*answer, (0, number.to_le_bytes().to_vec()));
    }
    // An alias that stands for something else now.
    world.peer(asker).alias(3, "q.c");
    let draft = Draft::request(9000, Subject::Alias(3), b"");
    world.peer(asker).say(&draft);
    // Who asks itself is given it, too.
    world.peer(responder).alias(1, "p");
    let draft = Draft::request(1, Subject::Alias(1), b"mine");
    world.peer(responder).say(&draft);
    world.run();
    let mut asked = world.questions(responder);
    asked.sort_by_key(|question| question.payload.len());
    assert_eq!(asked.len(), 2);
    assert_eq!(
        (&asked[0].subject[..], asked[0].subscription),
        (&b"q.c"[..], 1)
    );
    assert_eq!(
        (&asked[1].subject[..], asked[1].subscription),
        (&b"p"[..], 2)
    );
    world.peer(responder).reply(asked[1].token, b"me");
    world.run();
    answers.clear();
    count_answers(world.peer(responder), &mut answers);
    assert_eq!(answers, BTreeMap::from([(1, (0, b"me".to_vec()))]));
}

/// Numbered messages and requests, past the queue and through it.
fn say_many(peer: &mut Peer, numbers: std::ops::Range<u32>, size: usize) {
    for number in numbers {
        let mut payload = vec![0; size];
        payload[..4].copy_from_slice(&number.to_le_bytes());
        let subject = match number % 5 {
            0 => Subject::Text(b"q"),
            _ => Subject::Alias(1),
        };
        peer.say(&match number % 7 {
            0 => Draft::message(0, subject, &payload),
            _ => Draft::request(number, subject, &payload),
        });
    }
}

/// The numbers that a responder has heard since, which answers what are requests.
fn hear_many(world: &mut World, at: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    let peer = world.peer(at);
    for heard in std::mem::take(&mut peer.heard) {
        match heard {
            Heard::Message(got) => numbers.push(number_in(&got.payload)),
            Heard::Request(got) => {
                numbers.push(number_in(&got.payload));
                peer.reply(got.token, b"!");
            }
            _ => {}
        }
    }
    numbers
}

#[test]
fn requests_wait_in_the_queue_until_there_is_credit() {
    const COUNT: u32 = 3000;
    let mut world = World::new();
    let credit = 20_000;
    let asker = world.connect();
    let responder = world.connect_with(Limits { credit, ..ALIASES });
    world.peer(responder).grants = false;
    world.peer(responder).subscribe(1, 1, "q");
    world.run();
    world.peer(asker).alias(1, "q");
    world.run();
    let memory = world.broker.statistics().memory_high;
    say_many(world.peer(asker), 0..COUNT, 40);
    world.run();
    let mut heard = hear_many(&mut world, responder);
    assert!((200..credit as usize / 56).contains(&heard.len()));
    let waits = world.broker.statistics().memory_high - memory;
    assert!(
        waits > 100_000,
        "the others wait in the queue: {waits} bytes"
    );
    let mut limit = credit;
    while heard.len() < COUNT as usize {
        limit += credit;
        assert!(limit < 1 << 20, "{} have come", heard.len());
        world.peer(responder).grant(limit);
        world.run();
        heard.extend(hear_many(&mut world, responder));
    }
    // Past it again.
    world.peer(responder).grant(1 << 30);
    world.run();
    let memory = world.broker.statistics().memory_high;
    for round in 1..10 {
        say_many(world.peer(asker), round * COUNT..(round + 1) * COUNT, 40);
        world.run();
        heard.extend(hear_many(&mut world, responder));
    }
    assert_eq!(heard, (0..10 * COUNT).collect::<Vec<_>>());
    assert_eq!(world.broker.statistics().memory_high, memory);
    world.run();
    let mut answers = BTreeMap::new();
    count_answers(world.peer(asker), &mut answers);
    let requests = (0..10 * COUNT).filter(|number| number % 7 != 0).count();
    assert_eq!(answers.len(), requests);
    assert!(answers.values().all(|it| *it == (0, b"!".to_vec())));
}

#[test]
fn requests_wait_in_the_queue_while_much_is_to_be_sent() {
    const COUNT: u32 = 10_000;
    let mut world = World::new();
    let (asker, responder) = (world.connect(), world.connect_with(ALIASES));
    world.peer(responder).subscribe(1, 1, "q");
    world.run();
    let slow = world.clients[responder].0;
    world.sockets.set_receiving(slow, false).unwrap();
    world.peer(asker).alias(1, "q");
    say_many(world.peer(asker), 0..COUNT, 400);
    world.run();
    assert_eq!(hear_many(&mut world, responder), []);
    let buffered = world.shard.buffered_bytes();
    assert!((FULL / 4..4 * FULL).contains(&buffered), "{buffered}");
    world.sockets.set_receiving(slow, true).unwrap();
    world.run();
    let heard = hear_many(&mut world, responder);
    assert_eq!(heard, (0..COUNT).collect::<Vec<_>>());
    world.run();
    let mut answers = BTreeMap::new();
    count_answers(world.peer(asker), &mut answers);
    let requests = (0..COUNT).filter(|number| number % 7 != 0).count();
    assert_eq!(answers.len(), requests);
}

#[test]
fn a_responder_that_takes_no_frame_as_large_is_busy() {
    let mut world = World::new();
    let (asker, responder) = (world.connect(), world.connect_with(ALIASES));
    world.peer(responder).subscribe(1, 1, "q");
    world.run();
    world.peer(asker).alias(1, "q");
    // A question has a word more than a request.
    for (number, size) in [(1, 8192 - 24), (2, 8192 - 16), (3, 9000)] {
        let payload = vec![7; size];
        let draft = Draft::request(number, Subject::Alias(1), &payload);
        world.peer(asker).say(&draft);
    }
    world.run();
    let questions = world.questions(responder);
    assert_eq!(questions.len(), 1);
    world.peer(responder).reply(questions[0].token, b"!");
    world.run();
    let mut answers = BTreeMap::new();
    count_answers(world.peer(asker), &mut answers);
    let busy = (Status::Busy as u8, Vec::new());
    let expected = [(1, (0, b"!".to_vec())), (2, busy.clone()), (3, busy)];
    assert_eq!(answers, BTreeMap::from(expected));
}

#[test]
fn a_reply_address_that_is_none_is_refused_past_the_queue_too() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.connect(), world.connect_with(ALIASES));
    world.peer(subscriber).subscribe(1, 1, "p");
    world.run();
    world.peer(subscriber).heard.clear();
    world.peer(publisher).alias(1, "p");
    for reply_to in [&b"answers"[..], b"a..b", b"*", b"answers"] {
        let mut draft = Draft::message(0, Subject::Alias(1), b"x");
        draft.reply_to = reply_to;
        world.peer(publisher).say(&draft);
        world.run();
    }
    let refused: Vec<_> = world.peer(publisher).heard.drain(..).collect();
    let is_refusal = |heard: &Heard| match heard {
        Heard::Error(refusal) => refusal.reason == Some(Reason::Subject) && !refusal.is_fatal,
        _ => false,
    };
    // One in a second of each status.
    assert_eq!(
        refused.iter().filter(|it| is_refusal(it)).count(),
        1,
        "{refused:?}"
    );
    let heard = world.peer(subscriber).heard.drain(..);
    let answers = heard.map(|heard| match heard {
        Heard::Message(got) => got.reply_to,
        other => panic!("{other:?}"),
    });
    assert!(answers.eq([b"answers".to_vec(), b"answers".to_vec()]));
}

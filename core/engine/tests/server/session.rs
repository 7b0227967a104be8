//! What a connection of the server promises, driven by bytes alone: no socket, no real clock.

use std::sync::Arc;
use std::sync::Mutex;

use fastmq_engine::driver::SimulatedDriver;
use fastmq_engine::memory::Policy;
use fastmq_engine::server::{self, Parts, ServerOptions, Session, SessionKey};
use fastmq_engine::{Broker, Delivery, Options, Requester, RequesterOptions, Status, Subscription};
use fastmq_wire::control::event;
use fastmq_wire::handshake::capability;
use fastmq_wire::{ControlDraft, Draft, Field, Kind, Limits, Reason, State, Subject};

use crate::peer::{Got, Heard, Peer};
use crate::steps::*;

const SECOND: u64 = 1_000_000_000;

/// A server without sockets.
struct Rig {
    broker: Arc<Broker>,
    driver: Arc<SimulatedDriver>,
    parts: Parts,
    serial: u64,
}

/// One connection to it.
struct Link {
    session: Session,
    peer: Peer,
    rest: Vec<u8>,
}

impl Rig {
    fn new() -> Self {
        Self::with(ServerOptions::default())
    }

    fn with(options: ServerOptions) -> Self {
        let (broker, driver) = open_simulated(7);
        let parts = Parts::new(&broker, options).unwrap();
        Self {
            broker,
            driver,
            parts,
            serial: 0,
        }
    }

    /// A connection that has said nothing.
    fn accept(&mut self, peer: Peer) -> Link {
        self.serial += 1;
        let key = SessionKey {
            index: self.serial as u32,
            serial: self.serial,
        };
        let session = Session::new(&self.parts, key);
        Link {
            session,
            peer,
            rest: Vec::new(),
        }
    }

    /// A connection that is ready.
    fn connect(&mut self) -> Link {
        self.connect_with(Peer::new(), capability::ALL)
    }

    fn connect_with(&mut self, mut peer: Peer, capabilities: u64) -> Link {
        peer.hello_with(b"", capabilities);
        let mut link = self.accept(peer);
        self.exchange(&mut link);
        assert!(matches!(
            link.peer.heard.pop_front(),
            Some(Heard::Welcome { .. })
        ));
        assert_eq!(link.session.state(), State::Ready);
        link
    }

    /// Carries bytes both ways until nobody has anything to say.
    fn exchange(&mut self, link: &mut Link) {
        loop {
            self.parts.read_clock();
            let mut bytes = std::mem::take(&mut link.rest);
            bytes.append(&mut link.peer.out);
            if !bytes.is_empty() {
                let consumed = link.session.on_bytes(&mut self.parts, &bytes);
                link.rest = bytes.split_off(consumed);
            }
            link.session.look_everywhere();
            while link.session.pull(&mut self.parts) {}
            let out = std::mem::take(link.session.outgoing());
            link.session.taken();
            link.peer.hear(&out);
            if out.is_empty() && link.peer.out.is_empty() {
                return;
            }
        }
    }

    /// Lets time pass.
    fn wait(&mut self, link: &mut Link, ns: u64) {
        self.driver.advance(ns);
        self.parts.read_clock();
        if link.session.deadline_ns() <= self.parts.read_clock() {
            link.session.on_time(&mut self.parts);
        }
        self.exchange(link);
    }

    /// What a ready connection that says `bytes` hears.
    fn after(&mut self, say: impl FnOnce(&mut Peer)) -> Link {
        let mut link = self.connect();
        say(&mut link.peer);
        self.exchange(&mut link);
        link
    }
}

/// A frame of 16 bytes.
fn raw(length: u32, kind: u8, code: u8, flags: u16, numbers: u64) -> Vec<u8> {
    let head = u64::from(length) | u64::from(kind) << 32 | u64::from(code) << 40;
    let head = head | u64::from(flags) << 48;
    [head.to_le_bytes(), numbers.to_le_bytes()].concat()
}

#[test]
fn a_welcome_answers_a_hello_cut_anywhere() {
    let mut rig = Rig::new();
    let mut peer = Peer::new();
    peer.hello();
    let hello = std::mem::take(&mut peer.out);
    for cut in 0..hello.len() {
        let mut link = rig.accept(Peer::new());
        link.peer.out = hello[..cut].to_vec();
        rig.exchange(&mut link);
        assert!(link.peer.heard.is_empty(), "after {cut} bytes");
        link.peer.out = hello[cut..].to_vec();
        rig.exchange(&mut link);
        let heard = link.peer.heard.pop_front();
        let kept = capability::LATEST | capability::LAST_VALUE;
        let offered = capability::ACK | capability::MANY | capability::KEY_SHARED | kept;
        assert!(
            matches!(heard, Some(Heard::Welcome { capabilities, .. }) if capabilities == offered)
        );
    }
}

#[test]
fn the_handshake_is_refused_by_the_table() {
    let options = ServerOptions {
        token: b"secret".to_vec(),
        ..ServerOptions::default()
    };
    let mut rig = Rig::with(options);
    let mut check = |draining: bool, say: &dyn Fn(&mut Peer), reason, status: Status| {
        if draining {
            rig.parts.start_draining();
        }
        let mut link = rig.accept(Peer::new());
        say(&mut link.peer);
        rig.exchange(&mut link);
        let refusal = link.peer.refusal();
        assert_eq!(
            (refusal.reason, refusal.status),
            (Some(reason), status as u8)
        );
        assert!(refusal.is_fatal);
        assert_eq!(link.session.state(), State::Ending);
    };
    let hello = |peer: &mut Peer, token: &[u8]| peer.hello_with(token, capability::ALL);
    let versions = |peer: &mut Peer, versions: u64, required: u64| {
        let draft =
            ControlDraft::whole(&mut peer.out, Kind::Hello, u64::from_le_bytes(*b"FASTMQW1"));
        let draft = draft.unwrap().number(Field::Versions, versions).unwrap();
        draft.number(Field::Required, required).unwrap();
    };
    let denied = (Reason::Authentication, Status::Denied);
    check(false, &|peer| hello(peer, b""), denied.0, denied.1);
    check(false, &|peer| hello(peer, b"secre"), denied.0, denied.1);
    check(false, &|peer| hello(peer, b"secreT"), denied.0, denied.1);
    check(false, &|peer| hello(peer, b"secrets"), denied.0, denied.1);
    check(
        false,
        &|peer| versions(peer, 2 | 9 << 32, 0),
        Reason::Version,
        Status::Unsupported,
    );
    let missing = capability::SHM;
    let lacks = (Reason::Capability, Status::Unsupported);
    check(
        false,
        &|peer| versions(peer, 1 | 1 << 32, missing),
        lacks.0,
        lacks.1,
    );
    let long = raw(
        9000,
        Kind::Hello as u8,
        0,
        0,
        u64::from_le_bytes(*b"FASTMQW1"),
    );
    check(
        false,
        &|peer| peer.out = long.clone(),
        Reason::Length,
        Status::TooLarge,
    );
    check(
        true,
        &|peer| hello(peer, b"secret"),
        Reason::Draining,
        Status::Unavailable,
    );
}

#[test]
fn a_stranger_is_left_without_a_word() {
    let mut rig = Rig::new();
    let mut link = rig.accept(Peer::new());
    link.peer.out = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    rig.exchange(&mut link);
    assert!(link.peer.heard.is_empty());
    assert_eq!(link.session.state(), State::Ending);
}

#[test]
fn one_too_many_is_told_so() {
    let mut rig = Rig::new();
    let mut link = rig.accept(Peer::new());
    link.session = Session::refused(
        &rig.parts,
        SessionKey {
            index: 9,
            serial: 9,
        },
    );
    link.peer.hello();
    rig.exchange(&mut link);
    let refusal = link.peer.refusal();
    assert_eq!(refusal.reason, Some(Reason::Limit));
    assert_eq!(refusal.status, Status::Unavailable as u8);
}

#[test]
fn a_hello_has_ten_seconds() {
    let mut rig = Rig::new();
    let mut link = rig.accept(Peer::new());
    rig.wait(&mut link, 10 * SECOND - 1_000_000);
    assert_eq!(link.session.state(), State::Waiting);
    rig.wait(&mut link, SECOND);
    let refusal = link.peer.refusal();
    assert_eq!(refusal.reason, Some(Reason::Timeout));
    assert_eq!(refusal.status, Status::Timeout as u8);
}

#[test]
fn faults_of_a_ready_connection_end_it_by_the_table() {
    let mut rig = Rig::new();
    let mut check = |bytes: Vec<u8>, reason: Reason, status: Status| {
        let mut link = rig.after(|peer| {
            peer.out = bytes;
            // What comes behind is not carried out.
            peer.out.extend(raw(16, Kind::Ping as u8, 0, 0, 77));
        });
        let refusal = link.peer.refusal();
        let expected = (Some(reason), status as u8, true);
        assert_eq!((refusal.reason, refusal.status, refusal.is_fatal), expected);
        assert_eq!(link.peer.heard.pop_front(), None);
        assert_eq!(link.session.state(), State::Ending);
        link.peer.out.extend(raw(16, Kind::Ping as u8, 0, 0, 77));
        rig.exchange(&mut link);
        assert_eq!(
            link.peer.heard.pop_front(),
            None,
            "it drops what it receives"
        );
    };
    let field = |kind: Kind, field: Field, value: &[u8]| {
        let mut out = Vec::new();
        let draft = ControlDraft::pair(&mut out, kind, 1, 1).unwrap();
        draft.bytes(field, value).unwrap();
        out
    };
    check(raw(15, 1, 0, 0, 0), Reason::Length, Status::Invalid);
    check(raw(u32::MAX, 1, 0, 0, 0), Reason::Length, Status::TooLarge);
    check(
        raw(8193, Kind::Ping as u8, 0, 0, 0),
        Reason::Length,
        Status::TooLarge,
    );
    for kind in [0, 4, 15, 34, 63, 128, 255] {
        check(raw(16, kind, 0, 0, 0), Reason::Kind, Status::Unsupported);
    }
    check(
        raw(16, Kind::Ping as u8, 0, 0x4000, 0),
        Reason::Flags,
        Status::Unsupported,
    );
    check(
        raw(16, Kind::Message as u8, 0, 1 << 6, 0),
        Reason::Flags,
        Status::Unsupported,
    );
    check(
        raw(16, Kind::Reply as u8, 0, 1 << 7, 0),
        Reason::Flags,
        Status::Unsupported,
    );
    check(
        raw(16, Kind::Subscribe as u8, 0, 0, 1 << 32 | 1),
        Reason::Fields,
        Status::Invalid,
    );
    check(
        field(Kind::Subscribe, Field::Group, b"g"),
        Reason::Fields,
        Status::Invalid,
    );
    let mut unknown = field(Kind::Subscribe, Field::Pattern, b"a");
    unknown[16..18].copy_from_slice(&0x8001_u16.to_le_bytes());
    check(unknown, Reason::Field, Status::Unsupported);
    for kind in [
        Kind::Hello,
        Kind::Welcome,
        Kind::Auth,
        Kind::Event,
        Kind::Ack,
        Kind::Fragment,
    ] {
        check(raw(16, kind as u8, 0, 0, 0), Reason::State, Status::Misuse);
    }
    check(
        raw(16, Kind::Message as u8, 0, 1 << 7, 3 << 32),
        Reason::Alias,
        Status::Invalid,
    );
    check(
        raw(16, Kind::Request as u8, 0, 1 << 7, 1 << 50),
        Reason::Alias,
        Status::Invalid,
    );
    check(
        field(Kind::Alias, Field::Subject, b"a..b"),
        Reason::Alias,
        Status::Invalid,
    );
    check(
        raw(16, Kind::Message as u8, 0, 0, 9 << 32),
        Reason::Sizes,
        Status::Invalid,
    );
    check(
        raw(16, Kind::Message as u8, 0, 0, 0),
        Reason::Sizes,
        Status::Invalid,
    );
    for kind in [Kind::Unsubscribe, Kind::Drain, Kind::Presence] {
        check(
            raw(16, kind as u8, 0, 0, 1),
            Reason::Operation,
            Status::Invalid,
        );
    }
}

#[test]
fn faults_of_an_operation_leave_the_connection() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let peer = &mut link.peer;
    peer.subscribe(1, 1, "a.>");
    peer.subscribe(1, 2, "b");
    peer.subscribe(0, 3, "b");
    peer.subscribe(2, 4, "a..b");
    peer.pair(Kind::Unsubscribe, 5, 5);
    peer.pair(Kind::Drain, 5, 6);
    peer.publish(7, "a.*", b"");
    peer.publish(8, "a", &vec![0; (1 << 20) + 1]);
    peer.subscribe_as(9, "c", 5, 0);
    peer.subscribe_as(10, "c", 1, 1 << 40);
    let draft = peer
        .pair(Kind::Subscribe, 11, 11)
        .bytes(Field::Pattern, b"c")
        .unwrap();
    draft.number(Field::Weight, 0).unwrap();
    let draft = peer
        .pair(Kind::Subscribe, 12, 12)
        .bytes(Field::Pattern, b"c")
        .unwrap();
    drop(draft.flags(fastmq_wire::control::flag::KEY_SHARED));
    let draft = peer
        .pair(Kind::Subscribe, 13, 13)
        .bytes(Field::Pattern, b"c")
        .unwrap();
    draft.bytes(Field::Group, b"no spaces").unwrap();
    let draft = peer
        .pair(Kind::Subscribe, 14, 14)
        .bytes(Field::Pattern, b"c")
        .unwrap();
    draft.number(Field::Weight, 1001).unwrap();
    ControlDraft::whole(&mut peer.out, Kind::Ping, 5).unwrap();
    rig.exchange(&mut link);
    assert_eq!(link.peer.heard.pop_front(), Some(Heard::Ack(1)));
    let mut check = |operation, reason, status: Status| {
        let refusal = link.peer.refusal();
        let expected = (operation, Some(reason), status as u8, false);
        let heard = (
            refusal.operation,
            refusal.reason,
            refusal.status,
            refusal.is_fatal,
        );
        assert_eq!(heard, expected);
    };
    check(2, Reason::Subscription, Status::Exists);
    check(3, Reason::Subscription, Status::Invalid);
    check(4, Reason::Pattern, Status::Invalid);
    check(5, Reason::Subscription, Status::NotFound);
    check(6, Reason::Subscription, Status::NotFound);
    check(7, Reason::Subject, Status::Invalid);
    check(8, Reason::Payload, Status::TooLarge);
    check(1_000_009, Reason::Pattern, Status::Invalid);
    check(1_000_010, Reason::Pattern, Status::Invalid);
    check(11, Reason::Pattern, Status::Invalid);
    check(12, Reason::Pattern, Status::Invalid);
    check(13, Reason::Pattern, Status::Invalid);
    check(14, Reason::Option, Status::Unsupported);
    assert_eq!(link.peer.heard.pop_front(), Some(Heard::Pong(5)));
    assert_eq!(link.session.state(), State::Ready);
}

#[test]
fn frames_of_a_capability_that_the_connection_does_not_have_end_it() {
    let mut rig = Rig::new();
    for kind in [Kind::Grant, Kind::Cancel, Kind::Presence] {
        let mut link = rig.connect_with(Peer::new(), capability::ACK);
        link.peer
            .pair(kind, 1, 1)
            .number(Field::Replies, 1)
            .unwrap();
        rig.exchange(&mut link);
        let refusal = link.peer.refusal();
        assert!(refusal.is_fatal);
        assert_eq!(refusal.reason, Some(Reason::State));
        assert_eq!(link.session.state(), State::Ending);
    }
}

#[test]
fn a_request_is_refused_by_a_reply() {
    let mut rig = Rig::new();
    let mut link = rig.connect_with(Peer::new(), capability::ALL & !capability::MANY);
    link.peer.request(1, "a.*", b"");
    link.peer.request(2, "a", &vec![0; (1 << 20) + 1]);
    let subject = Subject::Text(b"a");
    let many = Some(fastmq_wire::message::Many {
        answers: 2,
        credit: 0,
    });
    let mut draft = Draft::request(3, subject, b"");
    draft.many = many;
    link.peer.say(&draft);
    link.peer.request(4, "nobody", b"");
    rig.exchange(&mut link);
    let expected = [
        Status::Invalid,
        Status::TooLarge,
        Status::Unsupported,
        Status::NoResponder,
    ];
    for (index, expected) in expected.into_iter().enumerate() {
        let heard = link.peer.heard.pop_front();
        let Some(Heard::Reply {
            correlation,
            status,
            payload,
        }) = heard
        else {
            panic!("{heard:?}");
        };
        assert_eq!((correlation, status), (index as u32 + 1, expected as u8));
        assert_eq!(
            payload.is_empty(),
            expected == Status::NoResponder,
            "a sentence"
        );
    }
}

#[test]
fn local_and_remote_see_one_another() {
    let mut rig = Rig::new();
    let (mut one, mut two) = (rig.connect(), rig.connect());
    one.peer.subscribe(4, 1, "news.>");
    two.peer.subscribe(9, 1, "news.*");
    rig.exchange(&mut one);
    rig.exchange(&mut two);
    let local = subscribe(&rig.broker, "news.>");
    publish(&rig.broker, "news.a", b"from here").unwrap();
    one.peer.alias(3, "news.b");
    let alias = Subject::Alias(3);
    one.peer.say(&Draft::message(6, alias, b"from one"));
    let mut draft = Draft::message(0, alias, b"x");
    draft.key = b"k";
    draft.reply_to = b"back";
    one.peer.say(&draft);
    rig.exchange(&mut one);
    rig.exchange(&mut two);
    assert_eq!(one.peer.heard.pop_front(), Some(Heard::Ack(1)));
    assert_eq!(two.peer.heard.pop_front(), Some(Heard::Ack(1)));
    let expected: [(&[u8], &[u8]); 3] = [
        (b"news.a", b"from here"),
        (b"news.b", b"from one"),
        (b"news.b", b"x"),
    ];
    let mut from_one = Vec::new();
    while let Some(heard) = one.peer.heard.pop_front() {
        match heard {
            Heard::Message(got) => from_one.push((got, 4)),
            other => assert_eq!(other, Heard::Ack(6)),
        }
    }
    let from_two: Vec<(Got, u32)> = (0..3).map(|_| (two.peer.message(), 9)).collect();
    for received in [from_one, from_two] {
        assert_eq!(received.len(), 3);
        for ((got, number), (subject, payload)) in received.iter().zip(expected) {
            assert_eq!((&*got.subject, &*got.payload), (subject, payload));
            assert_eq!(got.subscription, *number);
            assert!(got.is_alias, "by a number from the first use on");
        }
        assert_eq!(
            (&*received[2].0.key, &*received[2].0.reply_to),
            (&b"k"[..], &b"back"[..])
        );
    }
    let batch = local.queue().unwrap().receive(&rig.broker, 9, 0).unwrap();
    let subjects: Vec<_> = batch
        .messages()
        .iter()
        .map(|view| view.subject().to_vec())
        .collect();
    assert_eq!(subjects, [b"news.a", b"news.b", b"news.b"]);
}

#[test]
fn sequences_go_with_a_publisher_that_nobody_else_has() {
    let mut rig = Rig::new();
    let (mut one, mut two, mut three) = (rig.connect(), rig.connect(), rig.connect());
    three.peer.subscribe(1, 1, "a");
    rig.exchange(&mut three);
    three.peer.heard.clear();
    for link in [&mut one, &mut two] {
        for sequence in 1..3 {
            let mut draft = Draft::message(0, Subject::Text(b"a"), b"");
            draft.sequence = Some(sequence);
            draft.publisher = Some(5);
            link.peer.say(&draft);
        }
        rig.exchange(link);
    }
    rig.exchange(&mut three);
    let got: Vec<Got> = (0..4).map(|_| three.peer.message()).collect();
    assert_eq!(
        got.iter().map(|got| got.sequence).collect::<Vec<_>>(),
        [1, 2, 1, 2]
    );
    assert!(got.iter().all(|got| got.publisher != 0));
    assert_eq!(got[0].publisher, got[1].publisher);
    assert_eq!(got[2].publisher, got[3].publisher);
    assert_ne!(got[0].publisher, got[2].publisher);
}

#[test]
fn a_question_goes_to_a_responder_and_back() {
    let mut rig = Rig::new();
    let (mut asker, mut responder) = (rig.connect(), rig.connect());
    responder.peer.join(2, 1, "add", "workers");
    rig.exchange(&mut responder);
    assert_eq!(responder.peer.heard.pop_front(), Some(Heard::Ack(1)));
    asker.peer.request(70, "add", b"1 2");
    rig.exchange(&mut asker);
    assert_eq!(asker.peer.heard.pop_front(), None);
    rig.exchange(&mut responder);
    let question = responder.peer.question();
    assert_eq!(
        (question.subscription, &*question.payload),
        (2, &b"1 2"[..])
    );
    responder.peer.reply(question.token, b"3");
    responder.peer.reply(question.token, b"3 again");
    rig.exchange(&mut responder);
    rig.exchange(&mut asker);
    let payload = b"3".to_vec();
    let reply = Heard::Reply {
        correlation: 70,
        status: 0,
        payload,
    };
    assert_eq!(asker.peer.heard.pop_front(), Some(reply));
    assert_eq!(
        asker.peer.heard.pop_front(),
        None,
        "the second answer finds nobody"
    );
    // One of this process asks, and is answered.
    let mut requester = Requester::open(&rig.broker, RequesterOptions::default()).unwrap();
    requester.submit_to(b"add", b"5 5", 8, FOREVER).unwrap();
    rig.exchange(&mut responder);
    let question = responder.peer.question();
    responder.peer.reply(question.token, b"10");
    rig.exchange(&mut responder);
    let batch = requester.receive(9, 0).unwrap();
    assert_eq!(
        (batch.messages()[0].token, batch.messages()[0].payload()),
        (8, &b"10"[..])
    );
}

#[test]
fn who_was_not_asked_cannot_answer() {
    let mut rig = Rig::new();
    let (mut asker, mut responder, mut other) = (rig.connect(), rig.connect(), rig.connect());
    responder.peer.subscribe(1, 1, "q");
    other.peer.subscribe(1, 1, "other");
    rig.exchange(&mut responder);
    rig.exchange(&mut other);
    asker.peer.request(1, "q", b"");
    asker.peer.request(2, "other", b"");
    rig.exchange(&mut asker);
    rig.exchange(&mut responder);
    rig.exchange(&mut other);
    responder.peer.heard.clear();
    let (mine, _) = (other.peer.heard.pop_back(), other.peer.heard.clear());
    let Some(Heard::Request(mine)) = mine else {
        panic!("{mine:?}")
    };
    // Near what it was given, what the engine's own tokens look like, and noise.
    let near = (0..64).map(|bit| mine.token ^ 1 << bit);
    let plain = (0..64).flat_map(|id| (0..64).map(move |number| (id | 1 << 19) << 32 | number));
    for token in near.chain(plain) {
        other.peer.reply(token, b"forged");
    }
    rig.exchange(&mut other);
    rig.exchange(&mut asker);
    assert_eq!(asker.peer.heard.pop_front(), None, "nobody was answered");
    assert_eq!(other.session.state(), State::Ready);
    other.peer.reply(mine.token, b"true");
    rig.exchange(&mut other);
    rig.exchange(&mut asker);
    let payload = b"true".to_vec();
    let reply = Heard::Reply {
        correlation: 2,
        status: 0,
        payload,
    };
    assert_eq!(asker.peer.heard.pop_front(), Some(reply));
}

#[test]
fn each_request_ends() {
    let mut rig = Rig::new();
    let (mut asker, mut responder) = (rig.connect(), rig.connect());
    responder.peer.subscribe(1, 1, "q");
    rig.exchange(&mut responder);
    responder.peer.heard.clear();
    let ask = |asker: &mut Link, correlation, ttl_ns| {
        let mut draft = Draft::request(correlation, Subject::Text(b"q"), b"");
        draft.ttl_ns = ttl_ns;
        asker.peer.say(&draft);
    };
    let ended = |rig: &mut Rig, asker: &mut Link, correlation, expected: Status| {
        rig.exchange(asker);
        let payload = Vec::new();
        let reply = Heard::Reply {
            correlation,
            status: expected as u8,
            payload,
        };
        assert_eq!(asker.peer.heard.pop_front(), Some(reply));
    };
    // It waits in the queue of a subscription that ends.
    ask(&mut asker, 1, None);
    rig.exchange(&mut asker);
    responder.peer.pair(Kind::Unsubscribe, 1, 2);
    rig.exchange(&mut responder);
    ended(&mut rig, &mut asker, 1, Status::Cancelled);
    responder.peer.subscribe(1, 3, "q");
    rig.exchange(&mut responder);
    // Its time passes, whoever has it.
    ask(&mut asker, 2, Some(SECOND));
    rig.exchange(&mut asker);
    rig.exchange(&mut responder);
    rig.wait(&mut asker, SECOND + 1_000_000);
    ended(&mut rig, &mut asker, 2, Status::Timeout);
    // Without a time of its own it has the server's.
    ask(&mut asker, 3, None);
    rig.exchange(&mut asker);
    rig.driver.advance(server::REQUEST_NS_MAX - 20 * SECOND);
    for link in [&mut asker, &mut responder] {
        ControlDraft::whole(&mut link.peer.out, Kind::Ping, 1).unwrap();
        rig.exchange(link);
        link.peer.heard.clear();
    }
    rig.wait(&mut asker, 21 * SECOND);
    ended(&mut rig, &mut asker, 3, Status::Timeout);
    // The responder's connection breaks while it waits.
    ask(&mut asker, 4, None);
    rig.exchange(&mut asker);
    responder.session.on_end(&mut rig.parts);
    ended(&mut rig, &mut asker, 4, Status::Cancelled);
}

#[test]
fn a_reply_to_a_stream_that_nobody_asked_for_ends_the_request() {
    let mut rig = Rig::new();
    let (mut asker, mut responder) = (rig.connect(), rig.connect());
    responder.peer.subscribe(1, 1, "q");
    rig.exchange(&mut responder);
    asker.peer.request(1, "q", b"");
    rig.exchange(&mut asker);
    rig.exchange(&mut responder);
    responder.peer.heard.pop_front();
    let question = responder.peer.question();
    let mut draft = Draft::reply(question.token, 0, b"part");
    draft.is_more = true;
    responder.peer.say(&draft);
    rig.exchange(&mut responder);
    let refusal = responder.peer.refusal();
    assert_eq!(
        (refusal.reason, refusal.is_fatal),
        (Some(Reason::Stream), false)
    );
    rig.exchange(&mut asker);
    let status = Status::Cancelled as u8;
    let reply = Heard::Reply {
        correlation: 1,
        status,
        payload: Vec::new(),
    };
    assert_eq!(asker.peer.heard.pop_front(), Some(reply));
}

#[test]
fn unsubscribe_drops_what_waits_and_drain_delivers_it() {
    let mut rig = Rig::new();
    let limits = Limits {
        credit: 8192,
        frame_max: 8192,
        ..Limits::default()
    };
    let mut peer = Peer::with(limits);
    peer.grants = false;
    let mut link = rig.connect_with(peer, capability::ALL);
    link.peer.subscribe(1, 1, "a");
    link.peer.subscribe(2, 2, "b");
    rig.exchange(&mut link);
    for number in 0..100 {
        publish(&rig.broker, "a", &wide(number)).unwrap();
        publish(&rig.broker, "b", &wide(number)).unwrap();
    }
    rig.exchange(&mut link);
    let delivered = link.peer.heard.len();
    assert!(
        (30..40).contains(&delivered),
        "{delivered}: credit for 8 KiB"
    );
    link.peer.pair(Kind::Unsubscribe, 1, 3);
    link.peer.pair(Kind::Drain, 2, 4);
    rig.exchange(&mut link);
    assert_eq!(link.peer.heard.back(), Some(&Heard::Ack(3)));
    publish(&rig.broker, "b", b"too late").unwrap();
    link.peer.heard.clear();
    link.peer.grant(1 << 20);
    rig.exchange(&mut link);
    assert_eq!(
        link.peer.heard.pop_back(),
        Some(Heard::Ack(4)),
        "at its end"
    );
    let numbers: Vec<u8> = (0..link.peer.heard.len())
        .map(|_| link.peer.message())
        .inspect(|got| assert_eq!(got.subscription, 2))
        .map(|got| got.payload[0])
        .collect();
    assert_eq!(numbers.last(), Some(&99));
    assert!(
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{numbers:?}"
    );
    // Both numbers are free.
    link.peer.subscribe(1, 5, "a");
    link.peer.subscribe(2, 6, "b");
    link.peer.pair(Kind::Drain, 0, 7);
    rig.exchange(&mut link);
    let heard: Vec<Heard> = link.peer.heard.drain(..).collect();
    assert_eq!(heard, [Heard::Ack(5), Heard::Ack(6), Heard::Ack(7)]);
}

#[test]
fn a_close_is_answered_and_an_error_is_not() {
    let mut rig = Rig::new();
    let mut link = rig.after(|peer| {
        peer.pair(Kind::Close, 0, 0);
    });
    assert_eq!(link.peer.heard.pop_front(), Some(Heard::Close(0)));
    assert_eq!(link.session.state(), State::Ended);
    let mut link = rig.after(|peer| {
        let draft = peer.pair(Kind::Error, 0, Reason::Kind as u32);
        drop(draft.flags(fastmq_wire::control::flag::FATAL));
    });
    assert_eq!(link.peer.heard.pop_front(), None);
    assert_eq!(link.session.state(), State::Ended);
}

#[test]
fn a_publish_that_meets_a_full_queue_waits_and_those_behind_it() {
    let mut rig = Rig::new();
    let queue = queue(&rig.broker, Policy::Backpressure, SMALL);
    let _subscription = subscribe_on(&rig.broker, "full", "", &queue, 0);
    let mut link = rig.connect();
    let mut sent = 0_u64;
    while queue.statistics().pending < 12 || sent < 40 {
        link.peer.publish(0, "full", &wide(sent));
        sent += 1;
        rig.exchange(&mut link);
    }
    link.peer.alias(1, "full");
    link.peer
        .say(&Draft::message(0, Subject::Alias(1), &wide(sent)));
    link.peer.alias(1, "elsewhere");
    sent += 1;
    link.peer.publish(0, "full", &wide(sent));
    sent += 1;
    ControlDraft::whole(&mut link.peer.out, Kind::Ping, 3).unwrap();
    rig.exchange(&mut link);
    assert_eq!(
        link.peer.heard.pop_front(),
        Some(Heard::Pong(3)),
        "others are handled"
    );
    let mut received = 0;
    while let Ok(batch) = queue.receive(&rig.broker, 4, 0) {
        for view in batch.messages() {
            assert_eq!(view.payload()[..8], u64::to_le_bytes(received), "in order");
            received += 1;
        }
        drop(batch);
        rig.wait(&mut link, 10 * MILLISECOND);
    }
    assert_eq!(received, sent, "none is lost");
    assert_eq!(link.peer.heard.pop_front(), None);
}

#[test]
fn a_publish_waits_for_ten_seconds_and_one_with_an_operation_not_at_all() {
    let mut rig = Rig::new();
    let queue = queue(&rig.broker, Policy::Backpressure, SMALL);
    let _subscription = subscribe_on(&rig.broker, "full", "", &queue, 0);
    fill(&rig.broker, "full");
    let mut link = rig.connect();
    link.peer.publish(1, "full", &wide(1));
    rig.exchange(&mut link);
    let refusal = link.peer.refusal();
    assert_eq!((refusal.operation, refusal.reason), (1, Some(Reason::Full)));
    assert_eq!(refusal.status, Status::Again as u8);
    link.peer.publish(0, "full", &wide(2));
    link.peer.publish(0, "full", &wide(3));
    link.peer.publish(9, "free", &wide(4));
    rig.exchange(&mut link);
    rig.wait(&mut link, 9 * SECOND);
    assert_eq!(link.peer.heard.pop_front(), None);
    rig.wait(&mut link, SECOND);
    let refusal = link.peer.refusal();
    assert_eq!(
        (refusal.operation, refusal.status),
        (0, Status::Again as u8)
    );
    assert_eq!((&*refusal.subject, refusal.is_fatal), (&b"full"[..], false));
    // The second one is told within the same second, so not at all.
    assert_eq!(link.peer.heard.pop_front(), Some(Heard::Ack(9)));
    assert_eq!(link.peer.heard.pop_front(), None);
}

#[test]
fn a_close_waits_for_publishes_that_wait() {
    let mut rig = Rig::new();
    let queue = queue(&rig.broker, Policy::Backpressure, SMALL);
    let _subscription = subscribe_on(&rig.broker, "full", "", &queue, 0);
    fill(&rig.broker, "full");
    let mut link = rig.connect();
    link.peer.publish(0, "full", &wide(2));
    link.peer.pair(Kind::Close, 0, 0);
    rig.exchange(&mut link);
    assert_eq!(link.peer.heard.pop_front(), None);
    let _ = queue.receive(&rig.broker, 100, 0).unwrap();
    rig.wait(&mut link, 10 * MILLISECOND);
    assert_eq!(link.peer.heard.pop_front(), Some(Heard::Close(0)));
}

#[test]
fn credit_binds_both_sides() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    // One that keeps to it goes on for ever.
    for _ in 0..5 {
        link.peer.publish(0, "nobody", &vec![0; 1 << 20]);
        rig.exchange(&mut link);
    }
    assert_eq!(link.session.state(), State::Ready);
    // Parked publishes are not dealt with.
    let queue = queue(&rig.broker, Policy::Backpressure, SMALL);
    let _subscription = subscribe_on(&rig.broker, "full", "", &queue, 0);
    fill(&rig.broker, "full");
    for _ in 0..4 {
        link.peer.publish(0, "full", &vec![0; 1 << 20]);
        rig.exchange(&mut link);
    }
    let refusal = link.peer.refusal();
    assert_eq!(
        (refusal.reason, refusal.is_fatal),
        (Some(Reason::Credit), true)
    );
    assert_eq!(refusal.status, Status::Misuse as u8);
}

#[test]
fn who_reads_too_slowly_is_closed_and_nobody_waits() {
    let mut rig = Rig::new();
    let limits = Limits {
        credit: 8192,
        frame_max: 8192,
        ..Limits::default()
    };
    let mut peer = Peer::with(limits);
    peer.grants = false;
    let mut link = rig.connect_with(peer, capability::ALL);
    link.peer.subscribe(1, 1, "flood");
    rig.exchange(&mut link);
    let payload = [7; 1000];
    for _ in 0..(server::OUTGOING_BYTES_MAX / 1000 + 1000) {
        publish(&rig.broker, "flood", &payload).unwrap();
    }
    rig.exchange(&mut link);
    rig.wait(&mut link, SECOND);
    let refusal = loop {
        match link.peer.heard.pop_front() {
            Some(Heard::Error(refusal)) => break refusal,
            Some(_) => {}
            None => panic!("it was not closed"),
        }
    };
    assert_eq!(
        (refusal.reason, refusal.is_fatal),
        (Some(Reason::Slow), true)
    );
    assert_eq!(refusal.status, Status::SlowConsumer as u8);
}

#[test]
fn who_asks_and_never_reads_is_closed() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let mut pings = Vec::new();
    for _ in 0..4096 {
        pings.extend(raw(16, Kind::Ping as u8, 0, 0, 1));
    }
    for _ in 0..(server::OUTGOING_BYTES_MAX / pings.len() + 2) {
        link.session.on_bytes(&mut rig.parts, &pings);
    }
    assert_eq!(link.session.state(), State::Ending);
    let most = server::OUTGOING_BYTES_MAX + pings.len() + 4096;
    assert!(link.session.outgoing().len() <= most);
}

#[test]
fn figures_that_nobody_reads_are_bounded_within_one_read() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    link.peer.request(0, "$SYS.SERVER.STATS", b"");
    rig.exchange(&mut link);
    let Some(Heard::Reply { payload, .. }) = link.peer.heard.pop_front() else {
        panic!("no figures");
    };
    let count = 2 * server::OUTGOING_BYTES_MAX / payload.len();
    for correlation in 0..count as u32 {
        link.peer.request(correlation, "$SYS.SERVER.STATS", b"");
    }
    let asked = std::mem::take(&mut link.peer.out);
    link.session.on_bytes(&mut rig.parts, &asked);
    assert_eq!(link.session.state(), State::Ending);
    let most = server::OUTGOING_BYTES_MAX + 2 * payload.len() + 4096;
    assert!(link.session.outgoing().len() <= most);
}

#[test]
fn policies_are_the_engines() {
    let mut rig = Rig::new();
    let limits = Limits {
        credit: 8192,
        frame_max: 8192,
        ..Limits::default()
    };
    let mut peer = Peer::with(limits);
    peer.grants = false;
    let mut link = rig.connect_with(peer, capability::ALL);
    link.peer.publish(0, "fill", b"");
    link.peer.subscribe_as(1, "oldest", 2, SMALL);
    link.peer.subscribe_as(2, "newest", 3, SMALL);
    link.peer.subscribe_as(3, "latest", 4, 0);
    link.peer.subscribe_as(4, "back", 1, SMALL);
    link.peer.subscribe(5, 5, "first");
    rig.exchange(&mut link);
    // Uses the credit up.
    for number in 0..60 {
        publish(&rig.broker, "first", &wide(number)).unwrap();
    }
    rig.exchange(&mut link);
    link.peer.heard.clear();
    for number in 0..200 {
        publish(&rig.broker, "oldest", &wide(number)).unwrap();
        publish(&rig.broker, "newest", &wide(number)).unwrap();
        publish(&rig.broker, "latest", &wide(number)).unwrap();
    }
    let went_in = fill(&rig.broker, "back");
    link.peer.grant(1 << 30);
    rig.exchange(&mut link);
    publish(&rig.broker, "newest", &wide(200)).unwrap();
    rig.exchange(&mut link);
    let mut by_subject = std::collections::HashMap::<Vec<u8>, (Vec<u8>, u64)>::new();
    for heard in link.peer.heard.drain(..) {
        let Heard::Message(got) = heard else {
            panic!("{heard:?}")
        };
        let entry = by_subject.entry(got.subject).or_default();
        entry.0.push(got.payload[0]);
        entry.1 += got.lost;
    }
    let (oldest, lost) = &by_subject[&b"oldest"[..]];
    assert_eq!(
        (oldest.last(), oldest.len() as u64 + lost),
        (Some(&199), 200)
    );
    let (newest, lost) = &by_subject[&b"newest"[..]];
    assert_eq!((newest[0], newest.len() as u64 + lost), (0, 201));
    assert_eq!(by_subject[&b"latest"[..]].0, [199]);
    assert_eq!(
        by_subject[&b"back"[..]].0.len() as u64,
        went_in,
        "none is lost"
    );
}

#[test]
fn what_is_too_large_for_the_client_is_told_as_a_gap() {
    let mut rig = Rig::new();
    let limits = Limits {
        credit: 1 << 20,
        frame_max: 8192,
        ..Limits::default()
    };
    let mut link = rig.connect_with(Peer::with(limits), capability::ALL);
    link.peer.subscribe(1, 1, "big");
    rig.exchange(&mut link);
    link.peer.heard.clear();
    publish(&rig.broker, "big", &[1; 9000]).unwrap();
    publish(&rig.broker, "big", b"small").unwrap();
    let mut requester = Requester::open(&rig.broker, RequesterOptions::default()).unwrap();
    requester.submit_to(b"big", &[1; 9000], 8, FOREVER).unwrap();
    rig.exchange(&mut link);
    let gap = Heard::Event {
        subscription: 1,
        event: event::GAP,
        count: 1,
    };
    assert_eq!(link.peer.heard.pop_front(), Some(gap));
    assert_eq!(link.peer.message().payload, b"small");
    let batch = requester.receive(9, 0).unwrap();
    assert_eq!(batch.messages()[0].status, Status::Busy as u32);
    drop(batch);
    // An answer that is too large for its asker.
    let responder = subscribe(&rig.broker, "q");
    link.peer.request(5, "q", b"");
    rig.exchange(&mut link);
    let batch = responder
        .queue()
        .unwrap()
        .receive(&rig.broker, 1, 0)
        .unwrap();
    let token = batch.messages()[0].token;
    client(&rig.broker, |client| {
        client.writer.reply(token, 0, &[2; 9000], b"")
    })
    .unwrap();
    drop(batch);
    rig.exchange(&mut link);
    let status = Status::TooLarge as u8;
    let reply = Heard::Reply {
        correlation: 5,
        status,
        payload: Vec::new(),
    };
    assert_eq!(link.peer.heard.pop_front(), Some(reply));
}

#[test]
fn silence_is_broken_by_a_ping_and_then_ends_it() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    rig.wait(&mut link, 30 * SECOND);
    assert!(matches!(link.peer.heard.pop_front(), Some(Heard::Ping(_))));
    ControlDraft::whole(&mut link.peer.out, Kind::Pong, 1).unwrap();
    rig.exchange(&mut link);
    // A shard that stood still for as long does not take it for the client's silence.
    rig.wait(&mut link, 500 * SECOND);
    assert!(matches!(link.peer.heard.pop_front(), Some(Heard::Ping(_))));
    ControlDraft::whole(&mut link.peer.out, Kind::Pong, 1).unwrap();
    rig.exchange(&mut link);
    rig.wait(&mut link, 50 * SECOND);
    assert!(matches!(link.peer.heard.pop_front(), Some(Heard::Ping(_))));
    rig.wait(&mut link, 9 * SECOND);
    assert_eq!(link.peer.heard.pop_front(), None);
    rig.wait(&mut link, 2 * SECOND);
    assert_eq!(link.peer.refusal().reason, Some(Reason::Timeout));
}

#[test]
fn a_refusal_is_logged_once_for_a_connection_and_reason() {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let to = lines.clone();
    let hook = fastmq_engine::log::hook(move |_, target, text| {
        if target == "server" && text.contains("SUBJECT") {
            to.lock().unwrap().push(text.to_owned());
        }
    });
    fastmq_engine::log::set(4, Some(hook.unwrap()));
    let mut rig = Rig::new();
    rig.serial = 4_000_000;
    let (mut one, mut two) = (rig.connect(), rig.connect());
    for link in [&mut one, &mut two] {
        for operation in 1..4 {
            link.peer.publish(operation, "a..b", b"");
        }
        rig.exchange(link);
        assert_eq!(link.peer.heard.len(), 3);
    }
    let lines = lines.lock().unwrap();
    let count = |serial: &str| lines.iter().filter(|line| line.contains(serial)).count();
    assert_eq!((count("4000001"), count("4000002")), (1, 1), "{lines:?}");
}

#[test]
fn without_acks_a_publish_is_not_answered() {
    let mut rig = Rig::new();
    let mut link = rig.connect_with(Peer::new(), 0);
    link.peer.publish(5, "a", b"");
    link.peer.subscribe_as(1, "a", 4, 0);
    rig.exchange(&mut link);
    let refusal = link.peer.refusal();
    assert_eq!(
        (refusal.operation, refusal.reason),
        (1_000_001, Some(Reason::Option))
    );
    assert_eq!(link.peer.heard.pop_front(), None);
}

#[test]
fn limits_of_subscriptions_and_numbers_hold() {
    let options = ServerOptions {
        subscriptions_max: 2,
        ..ServerOptions::default()
    };
    let mut rig = Rig::with(options);
    let mut peer = Peer::with(Limits {
        alias_max: 1,
        alias_bytes_max: 100,
        ..Limits::default()
    });
    peer.grants = true;
    let mut link = rig.connect_with(peer, capability::ALL);
    link.peer.subscribe(1, 1, "a.>");
    link.peer.subscribe(2, 2, "b.>");
    link.peer.subscribe(3, 3, "c.>");
    rig.exchange(&mut link);
    link.peer.heard.drain(..2);
    let refusal = link.peer.refusal();
    assert_eq!(
        (refusal.reason, refusal.status),
        (Some(Reason::Limit), Status::NoSpace as u8)
    );
    for subject in ["a.1", "a.2", "a.1", "a.2"] {
        publish(&rig.broker, subject, subject.as_bytes()).unwrap();
    }
    rig.exchange(&mut link);
    for is_alias in [true, false, true, false] {
        let got = link.peer.message();
        assert_eq!((got.is_alias, &got.subject), (is_alias, &got.payload));
    }
}

#[test]
fn a_drain_of_the_server_is_told_and_takes_what_is_open() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    link.peer.subscribe(1, 1, "a");
    rig.exchange(&mut link);
    rig.parts.start_draining();
    link.session.announce_drain(&mut rig.parts, 5 * SECOND);
    link.peer.subscribe(2, 2, "b");
    link.peer.publish(3, "a", b"still");
    rig.exchange(&mut link);
    let heard: Vec<Heard> = link.peer.heard.drain(..).collect();
    assert_eq!(heard[..2], [Heard::Ack(1), Heard::Drain]);
    assert!(matches!(&heard[2], Heard::Error(it) if it.reason == Some(Reason::Draining)));
    assert_eq!(heard[3], Heard::Ack(3));
    assert!(matches!(&heard[4], Heard::Message(got) if got.payload == b"still"));
    link.session.close(&mut rig.parts);
    rig.exchange(&mut link);
    assert_eq!(link.peer.heard.pop_front(), Some(Heard::Close(0)));
}

#[test]
fn a_broker_that_closes_says_so() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    link.peer.subscribe(1, 1, "a");
    rig.exchange(&mut link);
    link.peer.heard.clear();
    rig.broker.close();
    rig.exchange(&mut link);
    assert_eq!(
        link.peer.heard.pop_front(),
        Some(Heard::Close(Status::Closed as u8))
    );
}

#[test]
fn messages_of_one_key_go_to_one_member() {
    let mut rig = Rig::new();
    let (mut one, mut two) = (rig.connect(), rig.connect());
    for link in [&mut one, &mut two] {
        let draft = link.peer.pair(Kind::Subscribe, 1, 1);
        let draft = draft.bytes(Field::Pattern, b"jobs").unwrap();
        let draft = draft.bytes(Field::Group, b"g").unwrap();
        drop(draft.flags(fastmq_wire::control::flag::KEY_SHARED));
        rig.exchange(link);
        assert_eq!(link.peer.heard.pop_front(), Some(Heard::Ack(1)));
    }
    let mut publisher = rig.connect();
    for number in 0..64_u8 {
        let payload = [number];
        let mut draft = Draft::message(0, Subject::Text(b"jobs"), &payload);
        let key = [b'a' + number % 16];
        draft.key = &key;
        publisher.peer.say(&draft);
    }
    rig.exchange(&mut publisher);
    let mut seen = std::collections::HashMap::new();
    let mut count = 0;
    for (member, link) in [&mut one, &mut two].into_iter().enumerate() {
        rig.exchange(link);
        while let Some(Heard::Message(got)) = link.peer.heard.pop_front() {
            assert_eq!(*seen.entry(got.key).or_insert(member), member);
            count += 1;
        }
    }
    assert_eq!((count, seen.len()), (64, 16));
}

#[test]
fn last_values_come_first() {
    let mut rig = Rig::new();
    client(&rig.broker, |client| {
        let message = fastmq_engine::Message {
            subject: b"lamp",
            payload: b"on",
            keep_last: true,
            ..fastmq_engine::Message::default()
        };
        client.writer.publish_message(&message)
    })
    .unwrap();
    let mut link = rig.connect();
    let draft = link
        .peer
        .pair(Kind::Subscribe, 1, 1)
        .bytes(Field::Pattern, b"lamp")
        .unwrap();
    drop(draft.flags(fastmq_wire::control::flag::LAST_VALUE));
    rig.exchange(&mut link);
    assert_eq!(link.peer.heard.pop_front(), Some(Heard::Ack(1)));
    assert_eq!(link.peer.message().payload, b"on");
}

#[test]
fn the_end_of_a_connection_gives_everything_back() {
    let mut rig = Rig::new();
    let before = rig.broker.statistics();
    for round in 0..50 {
        let mut link = rig.connect();
        link.peer.subscribe(1, 1, "a");
        link.peer.join(2, 2, "b", "g");
        link.peer.subscribe_as(3, "c", 4, 0);
        link.peer.request(1, "nobody", b"");
        link.peer.publish(0, "a", b"x");
        if round % 2 == 0 {
            rig.exchange(&mut link);
        }
        if round % 3 == 0 {
            link.peer.pair(Kind::Drain, 0, 9);
            rig.exchange(&mut link);
        }
        link.session.on_end(&mut rig.parts);
    }
    let after = rig.broker.statistics();
    assert_eq!(
        (after.subscriptions, after.queues),
        (before.subscriptions, before.queues)
    );
}

#[test]
fn no_bytes_make_it_panic() {
    let mut rig = Rig::new();
    let mut good = Peer::new();
    good.hello();
    let hello = std::mem::take(&mut good.out);
    good.subscribe(1, 1, "a.>");
    good.join(2, 2, "q", "g");
    good.alias(0, "a.b");
    good.say(&Draft::message(3, Subject::Alias(0), b"payload"));
    good.request(1, "q", b"question");
    good.reply(77, b"answer");
    good.pair(Kind::Drain, 1, 4);
    good.pair(Kind::Unsubscribe, 2, 5);
    good.pair(Kind::Close, 0, 0);
    let frames = std::mem::take(&mut good.out);
    let mut random = fastmq_engine::driver::SplitMix64::new(99);
    let mut ready = 0;
    for round in 0..4000 {
        let is_welcomed = round % 2 == 0;
        let mut link = rig.accept(Peer::new());
        if is_welcomed {
            let consumed = link.session.on_bytes(&mut rig.parts, &hello);
            assert_eq!(consumed, hello.len());
        }
        let mut bytes = if is_welcomed {
            frames.clone()
        } else {
            hello.clone()
        };
        match round % 3 {
            0 => bytes
                .iter_mut()
                .for_each(|byte| *byte = random.next_u64() as u8),
            _ => {
                for _ in 0..=random.next_u64() % 4 {
                    let at = random.next_u64() as usize % bytes.len();
                    bytes[at] ^= 1 << (random.next_u64() % 8);
                }
            }
        }
        let (mut at, mut rest) = (0, Vec::new());
        while at < bytes.len() {
            let size = (1 + random.next_u64() as usize % 200).min(bytes.len() - at);
            rest.extend_from_slice(&bytes[at..at + size]);
            at += size;
            let consumed = link.session.on_bytes(&mut rig.parts, &rest);
            rest.drain(..consumed);
            link.session.look_everywhere();
            while link.session.pull(&mut rig.parts) {}
        }
        ready += u32::from(link.session.state() == State::Ready);
        link.session.on_end(&mut rig.parts);
    }
    assert!(ready > 0, "some survive");
    let statistics = rig.broker.statistics();
    assert_eq!(statistics.subscriptions, 0);
}

#[test]
fn options_of_a_broker_hold_for_connections() {
    let driver = Arc::new(SimulatedDriver::new(3));
    let options = Options {
        payload_max: 100,
        ..Options::default()
    };
    let broker = Broker::open(options, driver.clone()).unwrap();
    let parts = Parts::new(&broker, ServerOptions::default()).unwrap();
    let mut rig = Rig {
        broker,
        driver,
        parts,
        serial: 0,
    };
    let mut link = rig.connect();
    link.peer.publish(1, "a", &[0; 101]);
    rig.exchange(&mut link);
    assert_eq!(link.peer.refusal().reason, Some(Reason::Payload));
}

/// One message of a row, as it was said.
type Said = (String, Vec<u8>, u64, bool);

/// Says one of many kinds of publishes about `row.*`, and what an inline handler is to see of it.
fn say_in_row(peer: &mut Peer, number: u64) -> Said {
    let size = match number % 61 {
        60 => 9000,
        step => (number as usize * 13 + step as usize) % 120,
    };
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + size, number as u8);
    let alias = u32::from(number % 40 >= 30);
    let name = ["row.a", "row.b"][alias as usize];
    let subject = match number % 17 {
        0 => Subject::Text(name.as_bytes()),
        _ => Subject::Alias(alias),
    };
    let operation = if number % 29 == 28 { number as u32 } else { 0 };
    let mut draft = Draft::message(operation, subject, &payload);
    let is_counted = (number / 100).is_multiple_of(2);
    draft.sequence = is_counted.then_some(number + 1);
    draft.ttl_ns = (number % 23 == 22).then_some(SECOND);
    peer.say(&draft);
    let has_publisher = is_counted && alias == 0 && matches!(subject, Subject::Alias(_));
    let sequence = if is_counted { number + 1 } else { 0 };
    (name.to_owned(), payload, sequence, has_publisher)
}

#[test]
fn publishes_in_a_row_are_what_they_are_one_by_one() {
    const COUNT: u64 = 2000;
    for cut in [24, 999, usize::MAX] {
        let mut rig = Rig::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = seen.clone();
        let _here = handle(&rig.broker, "row.*", Delivery::Inline, move |view| {
            sees.lock().unwrap().push(Seen::of(view));
        });
        let mut link = rig.connect();
        let draft = ControlDraft::pair(&mut link.peer.out, Kind::Alias, 0, 0).unwrap();
        let draft = draft.bytes(Field::Subject, b"row.a").unwrap();
        draft.number(Field::Publisher, 5).unwrap();
        link.peer.alias(1, "row.b");
        let mut said = Vec::new();
        for number in 0..COUNT {
            said.push(say_in_row(&mut link.peer, number));
            if number % 250 == 249 {
                let bytes = std::mem::take(&mut link.peer.out);
                for piece in bytes.chunks(cut.min(bytes.len())) {
                    link.peer.out.extend_from_slice(piece);
                    rig.exchange(&mut link);
                }
            }
        }
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), said.len());
        let publishers: Vec<u64> = seen.iter().map(|one| one.publisher).collect();
        let publisher = *publishers.iter().find(|number| **number != 0).unwrap();
        for (seen, (subject, payload, sequence, has_publisher)) in seen.iter().zip(&said) {
            assert_eq!((&seen.subject, &seen.payload), (subject, payload));
            let by = if *has_publisher { publisher } else { 0 };
            assert_eq!((seen.sequence, seen.publisher), (*sequence, by));
        }
        let acks = link.peer.heard.iter();
        let acks = acks.filter(|heard| matches!(heard, Heard::Ack(_)));
        assert_eq!(
            acks.count() as u64,
            (0..COUNT).filter(|n| n % 29 == 28).count() as u64
        );
        assert_eq!(rig.broker.statistics().published, COUNT);
    }
}

#[test]
fn who_comes_or_goes_in_the_middle_of_a_row_gets_what_is_his() {
    let mut rig = Rig::new();
    let broker = Arc::downgrade(&rig.broker);
    let (calls, late) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
    let itself: Arc<Mutex<Option<Subscription>>> = Arc::new(Mutex::new(None));
    let (sees, comes, leaves) = (calls.clone(), late.clone(), itself.clone());
    let here = handle(&rig.broker, "row", Delivery::Inline, move |view| {
        let number = number_of(view.payload());
        sees.lock().unwrap().push(number);
        if number == 300 {
            *comes.lock().unwrap() = Some(subscribe(&broker.upgrade().unwrap(), "row"));
        }
        if number == 700 {
            let itself = leaves.lock().unwrap().take();
            itself.unwrap().unsubscribe();
        }
    });
    *itself.lock().unwrap() = Some(here);
    let mut link = rig.connect();
    link.peer.alias(0, "row");
    for number in 0..1000_u64 {
        let payload = number.to_le_bytes();
        let draft = Draft::message(0, Subject::Alias(0), &payload);
        link.peer.say(&draft);
    }
    rig.exchange(&mut link);
    assert_eq!(*calls.lock().unwrap(), (0..=700).collect::<Vec<_>>());
    let late = late.lock().unwrap();
    let queue = queue_of(late.as_ref().unwrap());
    assert_eq!(
        take_numbers(&rig.broker, queue),
        (301..1000).collect::<Vec<_>>()
    );
}

//! Presence where there are connections: who connects and who goes, for local and remote users.

use std::sync::Arc;

use fastmq_engine::connections::{
    HEADER_BROKEN, HEADER_CLIENT, SUBJECT_CONNECTED, SUBJECT_DISCONNECTED,
};
use fastmq_engine::server::{Parts, ServerOptions, Session, SessionKey};
use fastmq_engine::{Broker, SubscribeOptions, Subscription, headers};
use fastmq_wire::control::flag;
use fastmq_wire::handshake::capability;
use fastmq_wire::{Field, Hello, Kind, Limits, VERSION};

use crate::peer::{Heard, Peer};
use crate::steps::*;

/// Connections without sockets.
struct World {
    broker: Arc<Broker>,
    parts: Parts,
    next: u64,
}

struct End {
    session: Session,
    peer: Peer,
}

impl World {
    fn new() -> Self {
        let (broker, _driver) = open_simulated(5);
        let parts = Parts::new(&broker, ServerOptions::default()).unwrap();
        Self {
            broker,
            parts,
            next: 1,
        }
    }

    fn connect(&mut self, name: &str) -> End {
        let key = SessionKey {
            index: 0,
            serial: self.next,
        };
        self.next += 1;
        let mut peer = Peer::new();
        let hello = Hello {
            versions: (VERSION, VERSION),
            capabilities: capability::ALL,
            required: 0,
            name: name.as_bytes(),
            token: b"",
            limits: Limits::default(),
        };
        hello.write(&mut peer.out).unwrap();
        let session = Session::new(&self.parts, key);
        let mut end = End { session, peer };
        self.exchange(&mut end);
        assert!(matches!(
            end.peer.heard.pop_front(),
            Some(Heard::Welcome { .. })
        ));
        end
    }

    fn exchange(&mut self, end: &mut End) {
        for _ in 0..3 {
            let bytes = std::mem::take(&mut end.peer.out);
            end.session.on_bytes(&mut self.parts, &bytes);
            end.session.look_everywhere();
            while end.session.pull(&mut self.parts) {}
            let bytes = std::mem::take(end.session.outgoing());
            end.session.taken();
            end.peer.hear(&bytes);
        }
    }

    fn listen(&self, pattern: &str) -> Subscription {
        let options = SubscribeOptions {
            replay_last: true,
            ..SubscribeOptions::default()
        };
        self.broker
            .subscribe_with(pattern.as_bytes(), options)
            .unwrap()
    }

    /// What a listener was told: subject, name, number and how it broke.
    fn told(&self, listener: &Subscription) -> Vec<(String, String, String, String)> {
        let mut told = Vec::new();
        while let Ok(batch) = queue_of(listener).receive(&self.broker, 100, 0) {
            for view in batch.messages() {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let header = |name: &str| {
                    let value = headers::get(view.headers(), name.as_bytes());
                    text(value.unwrap_or_default())
                };
                told.push((
                    text(view.subject()),
                    text(view.payload()),
                    header(HEADER_CLIENT),
                    header(HEADER_BROKEN),
                ));
            }
        }
        told
    }
}

fn line(subject: &str, name: &str, client: u64, broken: &str) -> (String, String, String, String) {
    let client = client.to_string();
    (subject.into(), name.into(), client, broken.into())
}

#[test]
fn who_connects_and_goes_is_told_in_order_and_to_late_listeners() {
    let mut world = World::new();
    let all = world.listen("$SYS.>");
    let mut first = world.connect("meter.7");
    let _second = world.connect("meter.8");
    let connected = |name: &str, client| {
        let subject = format!("{SUBJECT_CONNECTED}.{name}");
        line(&subject, name, client, "")
    };
    let both = [connected("meter.7", 1), connected("meter.8", 2)];
    assert_eq!(world.told(&all), both);
    let late = world.listen(&format!("{SUBJECT_CONNECTED}.meter.*"));
    let mut told = world.told(&late);
    told.sort();
    assert_eq!(told, both);
    // One says goodbye.
    first.peer.pair(Kind::Close, 0, 0);
    world.exchange(&mut first);
    let gone = line(&format!("{SUBJECT_DISCONNECTED}.meter.7"), "meter.7", 1, "");
    assert_eq!(world.told(&all), [gone]);
    first.session.on_end(&mut world.parts);
    assert_eq!(world.told(&all), [], "once");
    assert_eq!(
        world.told(&world.listen("$SYS.CONNECTED.>")),
        [connected("meter.8", 2)]
    );
}

#[test]
fn one_that_breaks_says_how() {
    let mut world = World::new();
    let all = world.listen("$SYS.DISCONNECTED.>");
    let mut cut = world.connect("cut");
    cut.session.on_end(&mut world.parts);
    let subject = |name: &str| format!("{SUBJECT_DISCONNECTED}.{name}");
    let expected = line(&subject("cut"), "cut", 1, "the connection broke");
    assert_eq!(world.told(&all), [expected]);
    let mut wrong = world.connect("wrong");
    wrong.peer.out = vec![0; 16];
    world.exchange(&mut wrong);
    let told = world.told(&all);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].0 == subject("wrong") && told[0].3.len() > 10,
        "{told:?}"
    );
    let mut angry = world.connect("angry");
    let _error = angry.peer.pair(Kind::Error, 0, 1).flags(flag::FATAL);
    world.exchange(&mut angry);
    let told = world.told(&all);
    assert!(told.len() == 1 && !told[0].3.is_empty(), "{told:?}");
    // Who was never let in was never there.
    let mut stranger = Session::new(&world.parts, SessionKey::default());
    stranger.on_bytes(&mut world.parts, &[1; 16]);
    stranger.on_end(&mut world.parts);
    assert_eq!(world.told(&all), []);
}

#[test]
fn a_name_that_makes_no_subject_is_told_in_the_payload_alone() {
    let mut world = World::new();
    let all = world.listen("$SYS.>");
    for (name, behind) in [
        ("", ""),
        ("a..b", ""),
        ("a*", ".a*"),
        ("*", ".(*)"),
        ("a b", ""),
    ] {
        let mut end = world.connect(name);
        end.session.close(&mut world.parts);
        let told = world.told(&all);
        assert_eq!(told.len(), 2, "{name:?}");
        assert_eq!(
            told[0].0,
            format!("{SUBJECT_CONNECTED}{behind}"),
            "{name:?}"
        );
        assert_eq!(told[1].0, format!("{SUBJECT_DISCONNECTED}{behind}"));
        assert!(told.iter().all(|one| one.1 == name && one.3.is_empty()));
    }
}

#[test]
fn remote_listeners_hear_of_subscriptions_and_connections() {
    let mut world = World::new();
    let mut listener = world.connect("listener");
    let draft = listener
        .peer
        .pair(Kind::Subscribe, 4, 1)
        .flags(flag::LAST_VALUE);
    draft.bytes(Field::Pattern, b"$SYS.>").unwrap();
    world.exchange(&mut listener);
    assert_eq!(listener.peer.heard.pop_front(), Some(Heard::Ack(1)));
    assert_eq!(listener.peer.message().subject, b"$SYS.CONNECTED.listener");
    let local = subscribe(&world.broker, "room.1");
    let mut other = world.connect("other");
    other.peer.subscribe(3, 1, "room.2");
    world.exchange(&mut other);
    other.session.on_end(&mut world.parts);
    local.unsubscribe();
    world.exchange(&mut listener);
    let heard = std::iter::from_fn(|| match listener.peer.heard.pop_front() {
        Some(Heard::Message(got)) => Some(String::from_utf8(got.subject).unwrap()),
        None => None,
        other => panic!("{other:?}"),
    });
    let expected = [
        "$SYS.JOINED.room.1",
        "$SYS.CONNECTED.other",
        "$SYS.JOINED.room.2",
        "$SYS.LEFT.room.2",
        "$SYS.DISCONNECTED.other",
        "$SYS.LEFT.room.1",
    ];
    assert_eq!(heard.collect::<Vec<_>>(), expected);
}

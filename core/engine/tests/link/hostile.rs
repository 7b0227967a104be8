//! A server that sends anything: the link ends the connection with a reason, and goes on.

use std::sync::atomic::Ordering;

use fastmq_engine::Status;
use fastmq_engine::driver::sockets::Faults;
use fastmq_wire::{Draft, Subject};

use crate::steps::{Dice, subscribe};
use crate::world::{Told, World, options};

/// The first thing that the client says of a server that begins with `bytes`.
fn after_hello(bytes: &[u8]) -> Told {
    let mut world = World::new(1);
    world.peer().manners.says_instead = Some(bytes.to_vec());
    world.until("refused", |world| {
        world.disconnected.load(Ordering::Relaxed) > 0
    });
    world.told()[0].clone()
}

#[test]
fn what_is_no_welcome_ends_the_handshake() {
    let frame = |length: u32, kind: u8, magic: &[u8; 8]| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[kind, 0, 0, 0]);
        bytes.extend_from_slice(magic);
        bytes
    };
    let cases = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n    ".to_vec(), "wrong"),
        (frame(16, 17, b"SOMETHIN"), "not of this protocol"),
        (frame(16, 17, b"FASTMQW1"), "needs field 2"),
        (frame(16, 21, &[0; 8]), "ACK is not taken"),
        (frame(u32::MAX, 17, b"FASTMQW1"), "above the limit"),
        (frame(3, 17, b"FASTMQW1"), "below 16"),
    ];
    for (bytes, what) in cases {
        match after_hello(&bytes) {
            Told::Disconnected(Status::Invalid, why, 0) => assert!(why.contains(what), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn any_bytes_end_in_a_reason_or_in_nothing() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let faults = Faults {
            chunk_bytes_max: 1 + dice.below(200) as usize,
            ..Faults::default()
        };
        let mut world = World::with(seed, faults, options(), 1);
        let _subscription = subscribe(&world.broker, "s");
        world.until("connected", |world| world.peers[0].number_of("s").is_some());
        let number = world.peer().number_of("s").unwrap();
        let mut bytes = Vec::new();
        let valid = dice.below(2) == 0;
        for _ in 0..1 + dice.below(8) {
            if valid {
                let mut draft = Draft::message(number, Subject::Text(b"s.t"), b"payload");
                draft.sequence = Some(dice.below(9));
                draft.lost = dice.below(3);
                draft.append(&mut bytes).unwrap();
                let answer = Draft::answer(dice.below(9) as u32, 1, 0, b"x");
                answer.append(&mut bytes).unwrap();
            } else {
                let mut frame = vec![0; 16 + 8 * dice.below(6) as usize];
                let size = frame.len() as u32;
                frame.fill_with(|| dice.below(256) as u8);
                frame[..4].copy_from_slice(&size.to_le_bytes());
                frame[4] = dice.below(34) as u8;
                frame[7] &= 0x3f;
                bytes.extend_from_slice(&frame);
            }
        }
        for _ in 0..dice.below(4) {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] = dice.below(256) as u8;
        }
        world.peer().say(|out| out.extend_from_slice(&bytes));
        world.settle();
        // What does not end it, cuts the rest of it off.
        world.peer().cut();
        world.until("again", |world| world.peers[0].number_of("s").is_some());
        assert_eq!(world.peer().faults, Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn a_delivery_beyond_credit_or_without_a_subject_ends_the_connection() {
    let mut world = World::connected(3);
    let _subscription = subscribe(&world.broker, "s");
    world.settle();
    let number = world.peer().number_of("s").unwrap();
    let draft = Draft::message(number, Subject::Text(b"a..b"), b"");
    assert!(world.peer().send(&draft));
    world.settle();
    let told = world.told();
    assert!(
        matches!(&told[1], Told::Disconnected(Status::Invalid, ..)),
        "{told:?}"
    );
    world.until("again", |world| world.peers[0].number_of("s").is_some());
    let draft = Draft::message(number, Subject::Alias(16_385), b"");
    assert!(world.peer().send(&draft));
    world.settle();
    assert_eq!(world.peer().refused_us, [Status::Invalid as u8]);
}

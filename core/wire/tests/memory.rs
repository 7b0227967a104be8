//! What costs memory: no message does, on either way; whoever writes without memory is told so and
//! finds the buffer as it was.

use fastmq_test_support::allocation::{self, Counting};
use fastmq_wire::control::{flag, write_error, write_fault};
use fastmq_wire::handshake::{read_hello, read_welcome};
use fastmq_wire::{
    Aliases, Control, Draft, Fault, Field, Frame, Frames, Hello, Limits, NoMemory, Numbers, Reason,
    Side, Subject, Welcome,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HELLO: Hello<'_> = Hello {
    versions: (1, 1),
    capabilities: 1,
    required: 0,
    name: b"gate",
    token: b"s3cret",
    limits: Limits {
        frame_max: 8192,
        credit: 8192,
        alias_max: 8,
        alias_bytes_max: 256,
        ping_ns: 0,
    },
};

const WELCOME: Welcome<'_> = Welcome {
    version: 1,
    capabilities: 1,
    name: b"tower",
    client: 1,
    instance: 2,
    payload_max: 4096,
    subscriptions_max: 10,
    servers: b"tcp://a:7077",
    rings: Some((4096, 4096)),
    limits: HELLO.limits,
};

#[test]
fn no_message_allocates() {
    let mut batch = Vec::with_capacity(1 << 16);
    let mut answers = Vec::with_capacity(1 << 16);
    let mut aliases = Aliases::new(4, 100);
    let defined = aliases.define(3, b"a.b", 0, || Ok(7_u32));
    assert!(defined.is_ok());
    let before = allocation::count();
    for index in 0..300 {
        let draft = Draft::request(index, Subject::Alias(3), b"sixteen bytes, 1");
        assert!(draft.append(&mut batch).is_ok());
        let mut draft = Draft::message(0, Subject::Text(b"a.b"), b"payload");
        (draft.sequence, draft.headers) = (Some(1), b"\x01\0\x01\0nv");
        assert!(draft.append(&mut batch).is_ok());
    }
    let mut frames = Frames::new(&batch, Side::Server, 8192);
    let mut count = 0;
    while let Ok(Some(frame)) = frames.next_frame() {
        count += 1;
        match frame {
            Frame::Request(request) => {
                let entry = aliases.get(request.alias().unwrap_or(0));
                assert_eq!(entry.map(|entry| entry.value), Ok(7));
                let token = request.correlation().into();
                let draft = Draft::reply(token, 0, request.payload());
                assert!(draft.append(&mut answers).is_ok());
            }
            Frame::Message(message) => assert_eq!(message.headers().len(), 6),
            _ => unreachable!(),
        }
    }
    assert_eq!(count, 600);
    assert_eq!(allocation::count(), before);
}

#[test]
fn a_handshake_is_read_without_memory() {
    let mut bytes = Vec::new();
    HELLO.write(&mut bytes).unwrap();
    let hello = bytes.len();
    WELCOME.write(&mut bytes).unwrap();
    let before = allocation::count();
    let (hello, welcome) = bytes.split_at(hello);
    assert!(matches!(read_hello(hello, 1), Ok(Some(_))));
    assert!(matches!(read_welcome(welcome), Ok(Some(_))));
    assert!(read_hello(welcome, 1).is_err());
    assert_eq!(allocation::count(), before);
}

/// Refuses each allocation of `write` in turn: what was written before stays, nothing is added.
fn is_all_or_nothing(what: &str, write: impl Fn(&mut Vec<u8>) -> Result<(), NoMemory>) {
    let mut refusals = 0;
    for k in 1.. {
        let mut out = Vec::with_capacity(8);
        out.extend_from_slice(b"8 before");
        let (result, is_refused) = allocation::refusing(k, || write(&mut out));
        if !is_refused {
            assert_eq!(result, Ok(()), "{what}");
            assert!(out.len() > 8 && out.len().is_multiple_of(8), "{what}");
            break;
        }
        assert_eq!(result, Err(NoMemory), "{what}, refusal {k}");
        assert_eq!(out, b"8 before", "{what}, refusal {k}");
        refusals += 1;
    }
    assert!(refusals > 0, "{what} allocates");
}

#[test]
fn what_is_written_is_there_as_a_whole_or_not_at_all() {
    is_all_or_nothing("message", |out| {
        Draft::message(1, Subject::Text(b"a"), b"payload").append(out)
    });
    is_all_or_nothing("hello", |out| HELLO.write(out));
    is_all_or_nothing("welcome", |out| WELCOME.write(out));
    is_all_or_nothing("fault", |out| {
        write_fault(out, &Fault::Version { min: 2, max: 3 })
    });
    is_all_or_nothing("error", |out| {
        write_error(out, 1, Reason::Permission, 40, 0, "not allowed")
    });
}

#[test]
fn an_alias_that_finds_no_memory_changes_nothing() {
    let mut aliases = Aliases::new(100, 1000);
    let (result, _) = allocation::refusing(1, || aliases.define(9, b"a", 0, || Ok(())).is_ok());
    assert!(!result);
    assert_eq!(aliases.get(9).unwrap_err(), Fault::AliasUnknown(9));
    assert!(aliases.define(9, b"a", 0, || Ok(())).is_ok());
    for k in 1..=2 {
        let mut numbers = Numbers::new(100, 1000);
        let (taken, is_refused) = allocation::refusing(k, || numbers.take(5));
        assert_eq!((taken, is_refused), (None, true));
        assert_eq!(numbers.take(5), Some(0));
    }
}

#[test]
fn a_long_sentence_is_cut_between_characters() {
    let mut out = Vec::new();
    let long = "ü".repeat(600);
    write_error(&mut out, 0, Reason::Limit, 41, flag::FATAL, &long).unwrap();
    let mut frames = Frames::new(&out, Side::Client, 8192);
    let Ok(Some(Frame::Control(error))) = frames.next_frame() else {
        panic!("an ERROR")
    };
    let sentence = |error: &Control<'_>| error.bytes(Field::Sentence).unwrap().len();
    assert_eq!(sentence(&error), 1024);
    assert!(error.is_fatal() && error.operation() == 0);
}

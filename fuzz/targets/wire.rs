//! Bytes that a connection receives, before and after the handshake: each frame lies where its
//! bytes are, all others are refused, a fault stays, and what was shown can be written again.
//! Input: one byte (which side), then the bytes.
#![no_main]

use fastmq_wire::handshake::{capability, read_hello, read_welcome};
use fastmq_wire::{Control, Draft, Field, Frame, Frames, Message, Side, Subject};
use libfuzzer_sys::fuzz_target;

const FRAME_MAX: u32 = 8192;

fn inside(part: &[u8], whole: &[u8]) {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    assert!(
        part.is_empty() || (part.start >= whole.start && part.end <= whole.end),
        "a part outside its frame"
    );
}

fn message(found: &Message<'_>, draft: Draft<'_>) {
    let mut draft = draft;
    let extension = found
        .extension()
        .map_or(&[][..], |extension| extension.bytes);
    for part in [
        found.payload(),
        found.subject(),
        found.reply_to(),
        found.key(),
        found.headers(),
        extension,
    ] {
        inside(part, found.bytes());
    }
    draft.is_more = found.is_more();
    draft.sequence = found.sequence();
    draft.publisher = found.publisher();
    draft.ttl_ns = found.ttl_ns();
    draft.timestamp_ns = found.timestamp_ns();
    draft.lost = found.lost();
    draft.many = found.many();
    (draft.reply_to, draft.key, draft.headers) = (found.reply_to(), found.key(), found.headers());
    let mut written = Vec::new();
    draft.append(&mut written).expect("there is memory");
    // What is ignored (extensions, words of 0) is not written again.
    assert!(written.len() <= found.bytes().len().next_multiple_of(8));
}

fn control(found: &Control<'_>, bytes: &[u8]) {
    for field in [
        Field::Name,
        Field::Sentence,
        Field::Pattern,
        Field::Rings,
        Field::Versions,
    ] {
        inside(found.bytes(field).unwrap_or_default(), bytes);
        let _ = found.number(field);
    }
    let _ = (
        found.operation(),
        found.event(),
        found.reason(),
        found.is_fatal(),
    );
}

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    if let Ok(Some((hello, size))) = read_hello(bytes, capability::ALL) {
        inside(hello.token, bytes);
        assert!(size <= bytes.len());
    }
    if let Ok(Some((_, size))) = read_welcome(bytes) {
        assert!(size <= bytes.len());
    }
    let side = if which % 2 == 0 {
        Side::Server
    } else {
        Side::Client
    };
    let mut frames = Frames::new(bytes, side, FRAME_MAX);
    loop {
        let consumed = frames.consumed();
        let frame = match frames.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                assert!(frames.wanted() > bytes.len() - frames.consumed());
                return;
            }
            Err(fault) => {
                assert!(!fault.to_string().is_empty());
                assert_eq!(frames.next_frame().unwrap_err(), fault, "it stays refused");
                return;
            }
        };
        assert!(frames.consumed() >= consumed + 16);
        match &frame {
            Frame::Message(found) | Frame::Request(found) => {
                let text = found.subject();
                let about = found.alias().map_or(Subject::Text(text), Subject::Alias);
                let first = found.operation();
                let is_asked = matches!(frame, Frame::Request(_)) && side == Side::Client;
                let draft = match &frame {
                    Frame::Message(_) => Draft::message(first, about, found.payload()),
                    _ if is_asked => Draft::question(first, about, found.token(), found.payload()),
                    _ => Draft::request(first, about, found.payload()),
                };
                message(found, draft);
            }
            Frame::Reply(found) => {
                let draft = Draft::reply(found.token(), found.status(), found.payload());
                message(found, draft);
            }
            Frame::Control(found) => control(found, bytes),
        }
    }
});

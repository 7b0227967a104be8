//! Prints what frames cost: `cargo run --release -p fastmq-wire --example cost [WORD]`, where a
//! word chooses the lines that have it.
//!
//! Rough figures for whoever changes this crate, not results; those come from `make bench`. The
//! floor beside them copies the same bytes without looking at them.

use std::hint::black_box;
use std::time::Instant;

use fastmq_wire::{Aliases, Draft, Frame, Frames, Side, Subject};

/// Frames of one batch, as one turn of a loop has them.
const BATCH: usize = 1024;
const ROUNDS: usize = 2_000;
const REPEATS: usize = 7;

/// Runs `batch` for many batches and prints the median time of one frame.
fn measure(what: &str, mut batch: impl FnMut()) {
    let word = std::env::args().nth(1).unwrap_or_default();
    if !what.contains(&word) {
        return;
    }
    let mut times: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let start = Instant::now();
            (0..ROUNDS).for_each(|_| batch());
            start.elapsed().as_nanos() as f64 / (ROUNDS * BATCH) as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (least, median, most) = (times[0], times[REPEATS / 2], times[REPEATS - 1]);
    println!("{what:<52} {median:>6.2} ns [{least:.2}-{most:.2}]");
}

fn decode(bytes: &[u8], side: Side, mut each: impl FnMut(Frame<'_>)) {
    let mut frames = Frames::new(black_box(bytes), side, 1 << 20);
    let mut count = 0;
    while let Some(frame) = frames.next_frame().expect("frames of ours") {
        each(frame);
        count += 1;
    }
    assert_eq!(count, BATCH);
}

/// The first bytes of a payload, so that it is looked at.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |first| u64::from_le_bytes(*first))
}

fn main() {
    let payload = *b"sixteen bytes, 1";
    let mut out = Vec::with_capacity(1 << 20);
    let fill = |out: &mut Vec<u8>, each: &dyn Fn(u32, &mut Vec<u8>)| {
        out.clear();
        (0..BATCH as u32).for_each(|index| each(index, out));
        out.clone()
    };
    let alias = |index: u32| Subject::Alias(index % 1024);
    let requests = fill(&mut out, &|index, out| {
        let _ = Draft::request(index, alias(index), &payload).append(out);
    });
    let questions = fill(&mut out, &|index, out| {
        let _ = Draft::question(1, alias(index), 7, &payload).append(out);
    });
    let replies = fill(&mut out, &|index, out| {
        let _ = Draft::reply(index.into(), 0, &payload).append(out);
    });
    let publishes = fill(&mut out, &|index, out| {
        let mut draft = Draft::message(0, alias(index), &payload);
        draft.sequence = Some(index.into());
        let _ = draft.append(out);
    });
    let texts = fill(&mut out, &|_, out| {
        let _ = Draft::message(0, Subject::Text(b"flight.LAX.JFK.1"), &payload).append(out);
    });
    println!(
        "bytes of a frame: request {}, question {}, reply {}, publish {}, by text {}",
        requests.len() / BATCH,
        questions.len() / BATCH,
        replies.len() / BATCH,
        publishes.len() / BATCH,
        texts.len() / BATCH,
    );

    measure("floor: copy 32 bytes each", || {
        out.clear();
        for frame in black_box(&requests).chunks_exact(32) {
            out.extend_from_slice(frame);
        }
        black_box(&out);
    });
    measure("decode request, payload 16, alias", || {
        let mut all = 0;
        decode(&requests, Side::Server, |frame| {
            if let Frame::Request(request) = frame {
                all += sum(request.payload()) + u64::from(request.alias().unwrap_or(0));
                all += u64::from(request.correlation());
            }
        });
        black_box(all);
    });
    measure("decode question (with token)", || {
        let mut all = 0;
        decode(&questions, Side::Client, |frame| {
            if let Frame::Request(request) = frame {
                all += sum(request.payload()) + request.token();
            }
        });
        black_box(all);
    });
    measure("decode reply", || {
        let mut all = 0;
        decode(&replies, Side::Server, |frame| {
            if let Frame::Reply(reply) = frame {
                all += sum(reply.payload()) + reply.token();
            }
        });
        black_box(all);
    });
    measure("decode publish with sequence", || {
        let mut all = 0;
        decode(&publishes, Side::Server, |frame| {
            if let Frame::Message(message) = frame {
                all += sum(message.payload()) + message.sequence().unwrap_or(0);
            }
        });
        black_box(all);
    });
    measure("decode publish by text", || {
        let mut all = 0;
        decode(&texts, Side::Server, |frame| {
            if let Frame::Message(message) = frame {
                all += sum(message.payload()) + message.subject().len() as u64;
            }
        });
        black_box(all);
    });
    measure("encode request", || {
        out.clear();
        for index in 0..BATCH as u32 {
            let _ = Draft::request(index, alias(index), black_box(&payload)).append(&mut out);
        }
        black_box(&out);
    });
    measure("encode reply", || {
        out.clear();
        for index in 0..BATCH as u64 {
            let _ = Draft::reply(index, 0, black_box(&payload)).append(&mut out);
        }
        black_box(&out);
    });
    measure("encode publish with sequence", || {
        out.clear();
        for index in 0..BATCH as u32 {
            let mut draft = Draft::message(0, alias(index), black_box(&payload));
            draft.sequence = Some(index.into());
            let _ = draft.append(&mut out);
        }
        black_box(&out);
    });
    let mut room = vec![0; 64];
    measure("encode request into room", || {
        for index in 0..BATCH as u32 {
            let draft = Draft::request(index, alias(index), black_box(&payload));
            black_box(draft.write(black_box(&mut room)));
        }
    });

    let mut aliases = Aliases::new(1024, 1 << 16);
    for index in 0..1024 {
        let subject = format!("flight.{index}");
        let defined = aliases.define(index, subject.as_bytes(), 0, || Ok(index));
        defined.expect("there is memory");
    }
    measure("decode request, alias, encode question", || {
        out.clear();
        decode(&requests, Side::Server, |frame| {
            if let Frame::Request(request) = frame {
                let number = request.alias().unwrap_or(0);
                let Ok(entry) = aliases.get(number) else {
                    return;
                };
                let token = u64::from(request.correlation()) | 9 << 32;
                let subject = Subject::Alias(entry.value);
                let draft = Draft::question(1, subject, token, request.payload());
                let _ = draft.append(&mut out);
            }
        });
        black_box(&out);
    });
    measure("decode reply, encode answer", || {
        out.clear();
        decode(&replies, Side::Server, |frame| {
            if let Frame::Reply(reply) = frame {
                let token = reply.token() as u32;
                let draft = Draft::answer(token, 0, reply.status(), reply.payload());
                let _ = draft.append(&mut out);
            }
        });
        black_box(&out);
    });
}

//! A request answered on the asker's own thread, through function pointers of the C ABI.
//!
//! By string: hash, probe and comparison among 1,024 subjects used in turn. By handle: the handler
//! is already known. The handler is reached through a pointer and answers with 16 bytes; the
//! answer is checked. No ring, no record: nothing crosses a thread.

use std::hint::black_box;

use crate::Address;
use crate::report::{self, Plan};
use crate::ring::pin;
use crate::subjects::{SUBJECT_BYTES, Table, names};

const CALLS_PER_STEP: u64 = 1024;
/// Payload and answer.
type Payload = [u64; 2];

/// A subject as C hands it over: its size is known at run time only.
#[repr(C)]
struct Subject {
    bytes: [u8; SUBJECT_BYTES + 8],
    size: usize,
}

type Handler = extern "C" fn(payload: &Payload, answer: &mut Payload);
type Dispatch =
    for<'a> extern "C" fn(&'a Engine, &'a Subject, u32, &'a Payload, &'a mut Payload) -> u32;

/// Opaque to the caller, like a handle.
#[repr(C)]
struct Engine {
    handlers: Box<Handlers>,
}

struct Handlers {
    table: Table,
    by_id: Vec<Handler>,
}

extern "C" fn answer(payload: &Payload, answer: &mut Payload) {
    // Two different operations, so that the compiler keeps two loads of a word: one of 16 bytes
    // would wait for the store buffer.
    answer[0] = payload[1];
    answer[1] = payload[0].wrapping_mul(3);
}

extern "C" fn dispatch_by_text(
    engine: &Engine,
    subject: &Subject,
    _id: u32,
    payload: &Payload,
    answer: &mut Payload,
) -> u32 {
    let Some(text) = subject.bytes.get(..subject.size) else {
        return 1;
    };
    match engine.handlers.table.find(text) {
        Some(id) => dispatch_by_id(engine, subject, id, payload, answer),
        None => 2,
    }
}

extern "C" fn dispatch_by_id(
    engine: &Engine,
    _subject: &Subject,
    id: u32,
    payload: &Payload,
    answer: &mut Payload,
) -> u32 {
    match engine.handlers.by_id.get(id as usize) {
        Some(handler) => {
            handler(payload, answer);
            0
        }
        None => 2,
    }
}

/// Millions of requests answered a second, on one thread.
pub(crate) fn run(plan: Plan, address: Address) -> Result<f64, String> {
    pin(1);
    let names = names();
    let table = Table::new(&names);
    let by_id = vec![black_box(answer as Handler); names.len()];
    let engine = Engine {
        handlers: Box::new(Handlers { table, by_id }),
    };
    let subjects: Vec<Subject> = names
        .iter()
        .map(|name| {
            let mut bytes = [0; SUBJECT_BYTES + 8];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            Subject {
                bytes,
                size: name.len(),
            }
        })
        .collect();
    let dispatch: Dispatch = match address {
        Address::Text => black_box(dispatch_by_text),
        Address::Handle => black_box(dispatch_by_id),
    };
    let mut wrong = 0u64;
    let mut number = 0u64;
    let step = || {
        for (index, subject) in subjects.iter().enumerate().take(CALLS_PER_STEP as usize) {
            let payload = [number, index as u64];
            let mut reply = [0; 2];
            let id = if address == Address::Handle {
                7
            } else {
                u32::MAX
            };
            let status = dispatch(&engine, subject, id, &payload, &mut reply);
            let is_right =
                status == 0 && reply[0] == index as u64 && reply[1] == number.wrapping_mul(3);
            wrong += u64::from(!is_right);
            number += 1;
        }
        CALLS_PER_STEP
    };
    let rate = report::rate(plan, step, || {});
    if wrong == 0 {
        Ok(rate)
    } else {
        Err(format!("{wrong} answers are wrong"))
    }
}

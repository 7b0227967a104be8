//! Small calls without an object: a handle is a number here, as finding the native half of an
//! object costs Node more than publishing a message.
//!
//! Each thread of JavaScript has its own numbers. A number belongs to the native half that opened
//! it and ends with that; 0 is nobody's. Behind it is also the scratch of its hub, where JavaScript
//! writes subjects and small payloads: a thread that loads the package twice has two.

use std::cell::RefCell;
use std::rc::Rc;

use fastmq::{Client, Error, Fault, Requester, Result, Status};
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

use crate::error::{failed, told};
use crate::held::{CLIENT_CLOSED, Held};
use crate::hub::lock;
use crate::options::ns;
use crate::view::SharedPublisher;

/// A requester, until it is closed.
pub(crate) type SharedRequester = Rc<Held<Requester>>;

/// What a number stands for.
pub(crate) enum Port {
    /// To publish by subject.
    Client(Client),
    /// To publish by handle.
    Publisher(SharedPublisher),
    /// To ask.
    Requester(SharedRequester),
    /// Nothing more: its client was closed.
    Ended,
}

/// Where the JavaScript of one hub writes what calls by number take.
pub(crate) type Scratch = Rc<Uint8Array>;

struct Open {
    port: Port,
    scratch: Scratch,
}

#[derive(Default)]
struct Ports {
    open: Vec<Option<Open>>,
    free: Vec<u32>,
}

thread_local! {
    static PORTS: RefCell<Ports> = RefCell::default();
}

/// A number, for as long as this lives.
pub(crate) struct Number(u32);

impl Number {
    pub(crate) fn open(port: Port, scratch: Scratch) -> Self {
        let port = Open { port, scratch };
        PORTS.with_borrow_mut(|ports| match ports.free.pop() {
            Some(number) => {
                ports.open[number as usize - 1] = Some(port);
                Self(number)
            }
            None => {
                ports.open.push(Some(port));
                Self(ports.open.len() as u32)
            }
        })
    }

    pub(crate) fn get(&self) -> u32 {
        self.0
    }

    /// Lets go of what it stood for, and stays nobody else's.
    pub(crate) fn end(&self) {
        let ended = PORTS.with_borrow_mut(|ports| match &mut ports.open[self.0 as usize - 1] {
            Some(open) => Some(std::mem::replace(&mut open.port, Port::Ended)),
            None => None,
        });
        // What it closes may come back here.
        drop(ended);
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // A thread that has ended has no numbers either.
        let port = PORTS.try_with(|ports| {
            let mut ports = ports.borrow_mut();
            ports.free.push(self.0);
            ports.open[self.0 as usize - 1].take()
        });
        // What it closes may come back here.
        drop(port);
    }
}

const NOT_THERE: Error = Error::new(&Fault(Status::Internal, "the bytes are not in the scratch"));

const NOBODY: Error = Error::new(&Fault(Status::Misuse, "the handle is closed"));

/// Calls `body` with the port of a number and the two parts of what is in the scratch.
#[inline(always)]
fn call(
    number: u32,
    first: u32,
    second: u32,
    body: impl FnOnce(&Port, &[u8], &[u8]) -> Result<()>,
) -> u32 {
    PORTS.with_borrow(|ports| {
        let Some(Some(open)) = ports.open.get((number as usize).wrapping_sub(1)) else {
            return failed(&NOBODY);
        };
        let (first, second) = (first as usize, second as usize);
        let Some(both) = open.scratch.get(..first + second) else {
            return failed(&NOT_THERE);
        };
        let (first, second) = both.split_at(first);
        told(&body(&open.port, first, second))
    })
}

/// Publishes what is in the scratch: to a client a subject and a payload, to a publisher a payload
/// behind a subject of no bytes.
#[napi]
pub fn publish(number: u32, subject_size: u32, payload_size: u32) -> u32 {
    call(
        number,
        subject_size,
        payload_size,
        |port, subject, payload| match port {
            Port::Client(client) => client.publish(subject, payload),
            Port::Publisher(publisher) => lock(publisher).publish(payload),
            Port::Requester(_) => Err(NOBODY),
            Port::Ended => Err(CLIENT_CLOSED),
        },
    )
}

/// Sends the request in the scratch, a subject and a payload; without a subject to the requester's
/// own.
#[napi]
pub fn submit(number: u32, subject_size: u32, payload_size: u32, token: u32, timeout: f64) -> u32 {
    call(
        number,
        subject_size,
        payload_size,
        |port, subject, payload| {
            let Port::Requester(requester) = port else {
                return Err(NOBODY);
            };
            requester.with(|requester| match subject {
                [] => requester.submit(payload, u64::from(token), ns(timeout)),
                subject => requester.submit_to(subject, payload, u64::from(token), ns(timeout)),
            })
        },
    )
}

/// Answers a request with what is in the scratch; its token is given in two halves.
#[napi]
pub fn reply(number: u32, token_low: u32, token_high: u32, payload_size: u32) -> u32 {
    call(number, 0, payload_size, |port, _, payload| match port {
        Port::Client(client) => client.reply(wide(token_low, token_high), payload),
        Port::Ended => Err(CLIENT_CLOSED),
        _ => Err(NOBODY),
    })
}

/// A number of 64 bits from its halves.
#[inline(always)]
pub(crate) fn wide(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// What a requester says that was closed.
pub(crate) const CLOSED: &Fault = &Fault(Status::Misuse, "the requester is closed");

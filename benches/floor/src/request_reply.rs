//! Requests and their answers over two rings, and the round trip with one outstanding.
//!
//! The asker, on core 1, keeps a number of requests outstanding: it takes up to 64 answers, checks
//! each, and sends as many new requests. The responder, on core 0, copies the payload into the
//! answer. Every record is published at once, except in the `burst` variant.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::Address;
use crate::report::{self, Percentiles, Plan};
use crate::ring::{Consumer, Head, Producer, REPLY, REQUEST, SUBJECT_ID, TOKEN, pin, ring};
use crate::subjects::{SUBJECT_COUNT, Table, names};

const RING_BYTES: usize = 256 * 1024;
const BURST: usize = 64;
const PAIRS_PER_STEP: u64 = 1024;

struct Asker {
    requests: Producer,
    replies: Consumer,
    names: Vec<String>,
    table: Table,
    address: Address,
    is_burst: bool,
    sent: u64,
    answered: u64,
    wrong: u64,
}

impl Asker {
    #[inline(always)]
    fn send(&mut self) {
        let number = self.sent;
        let mut payload = [0; 16];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        payload[8..].copy_from_slice(&(!number).to_le_bytes());
        let payload = std::hint::black_box(&payload[..]);
        let head = Head {
            kind: REQUEST,
            flags: TOKEN,
            subscription: 1,
            subject: 0,
            word: number,
        };
        let is_written = match self.address {
            Address::Text => {
                let subject = self.names[number as usize % SUBJECT_COUNT].as_bytes();
                match self.table.find(subject) {
                    Some(id) => {
                        let head = Head {
                            subscription: id,
                            ..head
                        };
                        self.requests.write(head, payload, subject)
                    }
                    None => false,
                }
            }
            Address::Handle => self.requests.write(
                Head {
                    flags: TOKEN | SUBJECT_ID,
                    ..head
                },
                payload,
                &[],
            ),
        };
        assert!(is_written, "the ring holds more than the window");
        if !self.is_burst {
            self.requests.publish();
        }
        self.sent += 1;
    }

    /// Takes up to `BURST` answers that are here.
    #[inline(always)]
    fn collect(&mut self) {
        let mut count = 0;
        while count < BURST {
            let Some(reply) = self.replies.next() else {
                break;
            };
            let expected = self.answered.to_le_bytes();
            let is_right = reply.head.word == self.answered
                && reply.payload.len() == 16
                && reply.payload[..8] == expected;
            self.wrong += u64::from(!is_right);
            self.answered += 1;
            count += 1;
        }
        if count > 0 {
            self.replies.release();
        }
    }

    fn turn(&mut self, outstanding: u64) {
        while self.sent - self.answered < outstanding {
            self.send();
        }
        if self.is_burst {
            self.requests.publish();
        }
        self.collect();
    }

    fn settle(&mut self) {
        while self.answered < self.sent {
            self.collect();
        }
    }
}

fn respond(mut requests: Consumer, mut replies: Producer, is_burst: bool, stop: &AtomicBool) {
    loop {
        let mut count = 0;
        while count < BURST {
            let Some(request) = requests.next() else {
                break;
            };
            let head = Head {
                kind: REPLY,
                flags: TOKEN,
                subscription: 0,
                subject: 0,
                word: request.head.word,
            };
            assert!(
                replies.write(head, request.payload, &[]),
                "the ring holds more than the window"
            );
            if !is_burst {
                replies.publish();
            }
            count += 1;
        }
        if count > 0 {
            replies.publish();
            requests.release();
        } else if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn with_asker<R>(
    address: Address,
    is_burst: bool,
    measure: impl FnOnce(&mut Asker) -> R,
) -> Result<R, String> {
    let (requests, requests_out) = ring(RING_BYTES);
    let (replies_in, replies) = ring(RING_BYTES);
    let names = names();
    let table = Table::new(&names);
    let (sent, answered, wrong) = (0, 0, 0);
    let mut asker = Asker {
        requests,
        replies,
        names,
        table,
        address,
        is_burst,
        sent,
        answered,
        wrong,
    };
    let stop = AtomicBool::new(false);
    let pinned = AtomicU64::new(0);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            pinned.fetch_add(u64::from(pin(0)), Ordering::Relaxed);
            respond(requests_out, replies_in, is_burst, &stop);
        });
        pinned.fetch_add(u64::from(pin(1)), Ordering::Relaxed);
        let result = measure(&mut asker);
        stop.store(true, Ordering::Relaxed);
        result
    });
    match (asker.wrong, pinned.into_inner()) {
        (0, 2) => Ok(result),
        (0, _) => Err("cores 0 and 1 are not both here".to_owned()),
        (wrong, _) => Err(format!("{wrong} answers are wrong")),
    }
}

/// Millions of pairs a second with `outstanding` requests in flight.
pub(crate) fn run(
    plan: Plan,
    address: Address,
    outstanding: u64,
    is_burst: bool,
) -> Result<f64, String> {
    if outstanding > 2048 {
        return Err(format!(
            "{outstanding} outstanding do not fit the ring; at most 2048"
        ));
    }
    with_asker(address, is_burst, |asker| {
        let asker = std::cell::RefCell::new(asker);
        let step = || {
            let asker = &mut *asker.borrow_mut();
            let before = asker.answered;
            while asker.answered - before < PAIRS_PER_STEP {
                asker.turn(outstanding);
            }
            asker.answered - before
        };
        report::rate(plan, step, || asker.borrow_mut().settle())
    })
}

/// The round trip with one outstanding, both sides spinning, by string.
pub(crate) fn round_trip(plan: Plan) -> Result<Percentiles, String> {
    with_asker(Address::Text, false, |asker| {
        report::percentiles(plan, || {
            asker.send();
            asker.settle();
        })
    })
}

//! The same work over bounded crossbeam channels: what a Rust programmer has without FAST MQ.
//!
//! A message is 48 bytes by value, the size of the record by string; there are no subjects. Both
//! sides spin on `try_send` and `try_recv`: parking would only make the channel slower here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use crate::report::{self, Percentiles, Plan};
use crate::ring::pin;

/// As many messages as the ring of the floor holds.
const CAPACITY: usize = 256 * 1024 / size_of::<Message>();
const BURST: usize = 64;
const COUNT_PER_STEP: u64 = 1024;
const PUBLISHERS_MAX: usize = 64;

#[derive(Clone, Copy)]
struct Message {
    source: u64,
    number: u64,
    _payload: [u64; 2],
    _subject: [u8; 16],
}

impl Message {
    fn new(source: u64, number: u64) -> Message {
        Message {
            source,
            number,
            _payload: [number, !number],
            _subject: *b"player.000000001",
        }
    }
}

fn send(channel: &Sender<Message>, message: Message) {
    let mut message = message;
    while let Err(error) = channel.try_send(message) {
        message = error.into_inner();
    }
}

/// Millions of messages a second from `publishers` publishers.
pub(crate) fn one_way(plan: Plan, publishers: usize) -> Result<f64, String> {
    if publishers > PUBLISHERS_MAX {
        return Err(format!(
            "{publishers} publishers are more than {PUBLISHERS_MAX}"
        ));
    }
    let (input, output) = bounded::<Message>(CAPACITY);
    let wrong = AtomicU64::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let rate = thread::scope(|scope| {
        scope.spawn(|| {
            pin(0);
            let mut expected = vec![0; publishers];
            loop {
                match output.try_recv() {
                    Ok(message) => {
                        let expected = &mut expected[message.source as usize];
                        if message.number != *expected {
                            wrong.fetch_add(1, Ordering::Relaxed);
                        }
                        *expected += 1;
                    }
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        });
        let handles: Vec<_> = (0..publishers)
            .map(|index| {
                let input = input.clone();
                scope.spawn(move || {
                    pin(if cores > 2 {
                        1 + index % (cores - 1)
                    } else {
                        1
                    });
                    let mut number = 0;
                    let step = || {
                        for _ in 0..COUNT_PER_STEP {
                            send(&input, Message::new(index as u64, number));
                            number += 1;
                        }
                        COUNT_PER_STEP
                    };
                    report::rate(plan, step, || while !input.is_empty() {})
                })
            })
            .collect();
        drop(input);
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or(f64::NAN))
            .sum()
    });
    match wrong.into_inner() {
        0 => Ok(rate),
        wrong => Err(format!("{wrong} messages are wrong")),
    }
}

struct Asker {
    requests: Sender<Message>,
    replies: Receiver<Message>,
    sent: u64,
    answered: u64,
    wrong: u64,
}

impl Asker {
    fn send(&mut self) {
        send(&self.requests, Message::new(0, self.sent));
        self.sent += 1;
    }

    fn collect(&mut self) {
        for _ in 0..BURST {
            let Ok(reply) = self.replies.try_recv() else {
                break;
            };
            self.wrong += u64::from(reply.number != self.answered);
            self.answered += 1;
        }
    }

    fn settle(&mut self) {
        while self.answered < self.sent {
            self.collect();
        }
    }
}

fn with_asker<R>(measure: impl FnOnce(&mut Asker) -> R) -> Result<R, String> {
    let (requests, requests_out) = bounded::<Message>(CAPACITY);
    let (replies_in, replies) = bounded::<Message>(CAPACITY);
    let mut asker = Asker {
        requests,
        replies,
        sent: 0,
        answered: 0,
        wrong: 0,
    };
    let stop = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            pin(0);
            while !stop.load(Ordering::Relaxed) {
                while let Ok(request) = requests_out.try_recv() {
                    send(&replies_in, request);
                }
            }
        });
        pin(1);
        let result = measure(&mut asker);
        stop.store(true, Ordering::Relaxed);
        result
    });
    match asker.wrong {
        0 => Ok(result),
        wrong => Err(format!("{wrong} answers are wrong")),
    }
}

/// Millions of pairs a second with `outstanding` requests in flight.
pub(crate) fn request_reply(plan: Plan, outstanding: u64) -> Result<f64, String> {
    if outstanding > CAPACITY as u64 {
        return Err(format!(
            "{outstanding} outstanding do not fit; at most {CAPACITY}"
        ));
    }
    with_asker(|asker| {
        let asker = std::cell::RefCell::new(asker);
        let step = || {
            let asker = &mut *asker.borrow_mut();
            let before = asker.answered;
            while asker.answered - before < COUNT_PER_STEP {
                while asker.sent - asker.answered < outstanding {
                    asker.send();
                }
                asker.collect();
            }
            asker.answered - before
        };
        report::rate(plan, step, || asker.borrow_mut().settle())
    })
}

/// The round trip with one outstanding, both sides spinning.
pub(crate) fn round_trip(plan: Plan) -> Result<Percentiles, String> {
    with_asker(|asker| {
        report::percentiles(plan, || {
            asker.send();
            asker.settle();
        })
    })
}

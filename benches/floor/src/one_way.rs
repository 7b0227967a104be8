//! Messages in one direction: one ring per publisher, one receiver that goes round.
//!
//! Publishers run on core 1 (more than one: on all cores but 0), the receiver on core 0. The first
//! and the last word of a payload carry its number, so that a missing, doubled or half-written
//! message is seen; the bytes between are not read, as a receiver in place need not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::Address;
use crate::report::{self, Plan};
use crate::ring::{Consumer, Head, MESSAGE, Producer, SEQUENCE, SUBJECT_ID, pin, ring};
use crate::subjects::{SUBJECT_BYTES, SUBJECT_COUNT, Table, names};

const RING_BYTES: usize = 256 * 1024;
/// Large payloads: the ring still fits the second-level cache.
const RING_BYTES_LARGE: usize = 1024 * 1024;
const BURST_COUNT: usize = 64;
const STEP_BYTES: usize = 1024 * 64;
/// A receiver that finds nothing waits this long before it looks again: looking takes the line of
/// `tail` away from the publisher.
const EMPTY_PAUSES: u32 = 16;
const PUBLISHERS_MAX: usize = 64;

struct Publisher {
    ring: Producer,
    names: Vec<String>,
    table: Table,
    address: Address,
    payload: Vec<u8>,
    batch: usize,
    sent: u64,
}

impl Publisher {
    #[inline(always)]
    fn write(&mut self) -> bool {
        let number = self.sent;
        let last = self.payload.len() - 8;
        self.payload[..8].copy_from_slice(&number.to_le_bytes());
        self.payload[last..].copy_from_slice(&(!number).to_le_bytes());
        let head = Head {
            kind: MESSAGE,
            flags: 0,
            subscription: 1,
            subject: 0,
            word: number,
        };
        let is_written = match self.address {
            Address::Text => {
                let subject = self.names[number as usize % SUBJECT_COUNT].as_bytes();
                let id = self
                    .table
                    .find(subject)
                    .expect("every name is in the table");
                self.ring.write(
                    Head {
                        subscription: id,
                        ..head
                    },
                    &self.payload,
                    subject,
                )
            }
            Address::Handle => {
                let flags = SEQUENCE | SUBJECT_ID;
                self.ring.write(Head { flags, ..head }, &self.payload, &[])
            }
        };
        self.sent += u64::from(is_written);
        is_written
    }

    #[inline(always)]
    fn send_batch(&mut self) {
        for _ in 0..self.batch {
            while !self.write() {
                self.ring.publish();
            }
        }
        self.ring.publish();
    }
}

fn receive(mut rings: Vec<Consumer>, address: Address, burst: usize, stop: &AtomicBool) -> u64 {
    let mut expected = vec![0u64; rings.len()];
    let mut wrong = 0;
    loop {
        let mut total = 0;
        for (ring, expected) in rings.iter_mut().zip(&mut expected) {
            let mut count = 0;
            while count < burst {
                let Some(record) = ring.next() else { break };
                let payload = record.payload;
                let is_right = payload[..8] == expected.to_le_bytes()
                    && payload[payload.len() - 8..] == (!*expected).to_le_bytes()
                    && match address {
                        Address::Text => record.subject.len() == SUBJECT_BYTES,
                        Address::Handle => record.head.word == *expected,
                    };
                wrong += u64::from(!is_right);
                *expected += 1;
                count += 1;
            }
            if count > 0 {
                ring.release();
            }
            total += count;
        }
        if total == 0 {
            if stop.load(Ordering::Relaxed) {
                return wrong;
            }
            for _ in 0..EMPTY_PAUSES {
                std::hint::spin_loop();
            }
        }
    }
}

/// Millions of messages a second from `publishers` publishers, published after every `batch`.
pub(crate) fn run(
    plan: Plan,
    address: Address,
    payload_bytes: usize,
    batch: usize,
    publishers: usize,
) -> Result<f64, String> {
    if !(16..=256 * 1024).contains(&payload_bytes) || publishers > PUBLISHERS_MAX {
        return Err(format!(
            "{payload_bytes} bytes, {publishers} publishers is out of range"
        ));
    }
    let large = payload_bytes > 4096;
    let ring_bytes = if large { RING_BYTES_LARGE } else { RING_BYTES };
    let burst = (ring_bytes / 8 / payload_bytes).clamp(1, BURST_COUNT);
    let step_count = (STEP_BYTES / payload_bytes).clamp(batch, 1024);
    let stop = AtomicBool::new(false);
    let pinned = AtomicU64::new(0);
    let (inputs, outputs): (Vec<_>, Vec<_>) = (0..publishers).map(|_| ring(ring_bytes)).unzip();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let publish = |index: usize, ring: Producer| {
        let core = if cores > 2 {
            1 + index % (cores - 1)
        } else {
            1
        };
        pinned.fetch_add(u64::from(pin(core)), Ordering::Relaxed);
        let names = names();
        let table = Table::new(&names);
        let payload = vec![0; std::hint::black_box(payload_bytes)];
        let publisher = Publisher {
            ring,
            names,
            table,
            address,
            payload,
            batch,
            sent: 0,
        };
        let publisher = std::cell::RefCell::new(publisher);
        let step = || {
            let publisher = &mut *publisher.borrow_mut();
            for _ in 0..step_count / batch {
                publisher.send_batch();
            }
            (step_count / batch * batch) as u64
        };
        report::rate(
            plan,
            step,
            || while !publisher.borrow().ring.is_drained() {},
        )
    };
    let (rate, wrong) = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            pinned.fetch_add(u64::from(pin(0)), Ordering::Relaxed);
            receive(outputs, address, burst, &stop)
        });
        let publish = &publish;
        let publishers: Vec<_> = inputs
            .into_iter()
            .enumerate()
            .map(|(index, ring)| scope.spawn(move || publish(index, ring)))
            .collect();
        let join = |handle: thread::ScopedJoinHandle<'_, f64>| handle.join().unwrap_or(f64::NAN);
        let rate: f64 = publishers.into_iter().map(join).sum();
        stop.store(true, Ordering::Relaxed);
        (rate, receiver.join().unwrap_or(u64::MAX))
    });
    match (wrong, pinned.into_inner()) {
        (0, count) if count == publishers as u64 + 1 => Ok(rate),
        (0, _) => Err("cores 0 and 1 are not both here".to_owned()),
        (wrong, _) => Err(format!("{wrong} messages are wrong")),
    }
}

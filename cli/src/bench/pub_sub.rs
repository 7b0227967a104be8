//! Messages one way: from the load to the broker, or through it to a third process.
//!
//! Messages are numbered and come in order; the last one has a mark, at which the other side says
//! how many have come and how many it has missed. The clock stops when it says so.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fastmq::{Client, Delivery, FOREVER_NS, Publisher, Status, SubscribeOptions};
use fastmq_wire::{Draft, Message, Subject};

use super::asking::{PATIENCE_NS, length_ns, number_of, numbered, warm_up};
use super::child::{self, Child, Orders, Says};
use super::clock::{Stopwatch, now_ns};
use super::plan::{Maker, Over, Plan, Responder, Row};
use super::report::Figure;
use super::streams::address_of;
use super::wire::{BACKPRESSURE, Exit, User, Wire};
use super::{embedded, pin};

/// Where messages to the broker's process go.
const SUNK: &str = "bench.sink";
/// Where messages to a third process go.
const HEARD: &str = "bench.heard";
/// Set in the number of the last message.
const LAST: u64 = 1 << 63;
/// Messages of one batch.
const BATCH: usize = 256;
/// Most bytes of a batch, unless one message has more.
const BATCH_BYTES: usize = 256 << 10;

/// Measures one row once.
pub(super) fn measure(plan: &Plan, row: &Row) -> io::Result<Figure> {
    if row.over == Over::Embedded {
        return in_one_process(plan, row);
    }
    if row.responder == Responder::Load {
        return to_ourselves(plan, row);
    }
    let mut serving = child::server(plan, row)?;
    let url = serving.url.clone();
    let other = child::other_side(plan, row, "subscriber", &mut serving)?;
    let mut other = other.ok_or_else(|| io::Error::other("nobody listens"))?;
    pin(plan.cores.load)?;
    let subject = match row.responder {
        Responder::Broker => SUNK,
        Responder::Third | Responder::Load => HEARD,
    };
    let mut hears = || heard(&mut other);
    match row.maker {
        Maker::Library => {
            let options = child::connecting(row.load_wait);
            let client = Client::connect(&url, options).map_err(io::Error::other)?;
            let publisher = client.publisher(subject).map_err(io::Error::other)?;
            let mut sends = by_library(publisher, row.size);
            let figure = timed(plan, &mut sends, &mut hears);
            client.close();
            figure
        }
        Maker::Frames => {
            let sending = Publishing {
                payload: vec![0; row.size],
                next: 0,
                until: 0,
            };
            let mut wire = Wire::connect(&address_of(&url)?, 1, row.load_wait, sending)?;
            wire.alias(0, 0, subject.as_bytes())?;
            timed(
                plan,
                &mut |next, end_ns| wire.publish(next, end_ns),
                &mut hears,
            )
        }
    }
}

/// What the other side says at the end: how many have come, how many were missed.
fn heard(child: &mut Child) -> io::Result<(u64, u64)> {
    let line = child.line()?;
    let numbers = line
        .split_once(' ')
        .and_then(|(came, missed)| Some((came.parse().ok()?, missed.parse().ok()?)));
    numbers.ok_or_else(|| io::Error::other(format!("`{line}` is no count")))
}

/// Warms up and measures. `send` publishes from a number on until a time and gives the next one;
/// until the time 0: one message that is the last.
fn timed(
    plan: &Plan,
    send: &mut dyn FnMut(u64, u64) -> io::Result<u64>,
    hear: &mut dyn FnMut() -> io::Result<(u64, u64)>,
) -> io::Result<Figure> {
    let mut next = 0;
    let mut run = |length_ns: u64| -> io::Result<(u64, u64, Stopwatch)> {
        let stopwatch = Stopwatch::start();
        next = send(next, now_ns() + length_ns)?;
        next = send(next, 0)?;
        let (came, missed) = hear()?;
        Ok((came, missed, stopwatch))
    };
    run(warm_up(plan).as_nanos() as u64)?;
    let (came, missed, stopwatch) = run(length_ns(plan))?;
    let mut figure = Figure::rate("M msg/s", came, stopwatch.elapsed());
    if missed > 0 {
        figure.notes.push(("missed", missed as f64));
    }
    Ok(figure)
}

/// Publishes by the library: batches, as whoever has many messages does.
fn by_library(mut publisher: Publisher, size: usize) -> impl FnMut(u64, u64) -> io::Result<u64> {
    let count = (BATCH_BYTES / size).clamp(1, BATCH);
    let mut payloads = vec![0; count * size];
    let mut publish = move |first: u64, count: usize| -> io::Result<()> {
        let payloads = &mut payloads[..count * size];
        for (number, payload) in (first..).zip(payloads.chunks_exact_mut(size)) {
            numbered(payload, number);
        }
        let mut rest = &*payloads;
        while !rest.is_empty() {
            let (accepted, published) = publisher.publish_batch(rest.chunks_exact(size));
            rest = &rest[accepted * size..];
            match published {
                Ok(()) => {}
                Err(error) if error.status() == Status::Again => {
                    let (next, behind) = rest.split_at(size);
                    let waited = publisher.publish_wait(next, PATIENCE_NS);
                    waited.map_err(io::Error::other)?;
                    rest = behind;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    };
    move |mut next, end_ns| {
        if end_ns == 0 {
            publish(next | LAST, 1)?;
            return Ok(next + 1);
        }
        while now_ns() < end_ns {
            publish(next, count)?;
            next += count as u64;
        }
        Ok(next)
    }
}

fn in_one_process(plan: &Plan, row: &Row) -> io::Result<Figure> {
    let client = embedded::open(row)?;
    let subscription = client.subscribe(HEARD).map_err(io::Error::other)?;
    let (says, hears) = mpsc::channel();
    let reader = embedded::beside(plan.cores.server, move || {
        let count = Count::default();
        while let Ok(batch) = subscription.receive(BATCH, FOREVER_NS) {
            for view in batch.messages() {
                if let Some(sum) = count.add(view.payload())? {
                    let _ = says.send(sum);
                }
            }
        }
        Ok(())
    });
    pin(plan.cores.load)?;
    let publisher = client.publisher(HEARD).map_err(io::Error::other)?;
    let mut sends = by_library(publisher, row.size);
    let mut hear = || hears.recv().map_err(io::Error::other);
    let figure = timed(plan, &mut sends, &mut hear);
    client.close();
    embedded::joined(reader)?;
    figure
}

/// From one connection of the load to another, with so many messages under way.
fn to_ourselves(plan: &Plan, row: &Row) -> io::Result<Figure> {
    let serving = child::server(plan, row)?;
    pin(plan.cores.load)?;
    let (publisher, listener) = (0, 1);
    let mut wire = Wire::connect(&address_of(&serving.url)?, 2, row.load_wait, Hearing(0))?;
    wire.alias(publisher, 0, HEARD.as_bytes())?;
    wire.subscribe(listener, 1, HEARD.as_bytes(), BACKPRESSURE)?;
    wire.settle()?;
    let (mut payload, mut next) = (vec![0; row.size], 0);
    let mut run = |length: Duration| -> io::Result<(u64, Duration)> {
        let (stopwatch, first) = (Stopwatch::start(), next);
        let mut is_over = false;
        while !is_over || wire.speaking.user.0 < next {
            is_over = stopwatch.elapsed() >= length;
            let (mut exit, hearing) = wire.exit(publisher);
            while !is_over && next - hearing.0 < u64::from(row.amount) {
                numbered(&mut payload, next);
                if !exit.send(&Draft::message(0, Subject::Alias(0), &payload))? {
                    break;
                }
                next += 1;
            }
            let (before, deadline_ns) = (hearing.0, now_ns() + PATIENCE_NS);
            // All may have come while there is no credit for more: that comes, too.
            if before < next || !is_over {
                wire.turn(deadline_ns)?;
            }
            if wire.speaking.user.0 == before && now_ns() >= deadline_ns {
                return Err(io::Error::other("messages have not come"));
            }
        }
        Ok((next - first, stopwatch.elapsed()))
    };
    run(warm_up(plan))?;
    let (count, spent) = run(Duration::from_secs_f64(plan.seconds))?;
    Ok(Figure::rate("M msg/s", count, spent))
}

/// A listener of frames, which expects this number.
struct Hearing(u64);

impl User for Hearing {
    #[inline(always)]
    fn came(
        &mut self,
        _peer: usize,
        message: &Message<'_>,
        _exit: &mut Exit<'_>,
    ) -> io::Result<()> {
        if number_of(message.payload())? != self.0 {
            return Err(io::Error::other("a message was lost, or is out of order"));
        }
        self.0 += 1;
        Ok(())
    }
}

/// What has come since the last mark. One thread at a time counts; a handler may be called by any,
/// so it is made of atomics.
#[derive(Debug, Default)]
struct Count {
    came: AtomicU64,
    missed: AtomicU64,
    next: AtomicU64,
}

impl Count {
    /// One more; at the last one how many have come and how many were missed.
    #[inline(always)]
    fn add(&self, payload: &[u8]) -> io::Result<Option<(u64, u64)>> {
        let number = number_of(payload)?;
        let (is_last, number) = (number & LAST != 0, number & !LAST);
        // A number that comes again, or late, is a miss as well.
        let missed = number.abs_diff(self.next.load(Relaxed));
        self.next.store(number + 1, Relaxed);
        if missed > 0 {
            self.missed
                .store(self.missed.load(Relaxed) + missed, Relaxed);
        }
        self.came.store(self.came.load(Relaxed) + 1, Relaxed);
        if !is_last {
            return Ok(None);
        }
        Ok(Some((
            self.came.swap(0, Relaxed),
            self.missed.swap(0, Relaxed),
        )))
    }
}

fn say(says: &Says, (came, missed): (u64, u64)) {
    says.line(format!("{came} {missed}"));
}

/// Counts in the broker's process, inside the publish.
pub(super) fn count_inline(client: &Client, says: &Says) -> io::Result<()> {
    let (count, says) = (Count::default(), says.clone());
    let on_message = move |view: &fastmq::View| {
        if let Ok(Some(sum)) = count.add(view.payload()) {
            say(&says, sum);
        }
    };
    let options = SubscribeOptions {
        delivery: Delivery::Inline,
        on_message: Some(Box::new(on_message)),
        ..SubscribeOptions::default()
    };
    let subscription = client.subscribe_with(SUNK, options);
    // It ends with the process.
    std::mem::forget(subscription.map_err(io::Error::other)?);
    Ok(())
}

/// Counts in a third process, on a thread of its own.
pub(super) fn start_subscriber(orders: &Orders, says: &Says) -> io::Result<()> {
    let says = says.clone();
    match orders.maker {
        Maker::Library => {
            let client = child::connect(orders)?;
            let subscription = client.subscribe(HEARD).map_err(io::Error::other)?;
            thread::spawn(move || {
                let (_client, count) = (client, Count::default());
                while let Ok(batch) = subscription.receive(BATCH, FOREVER_NS) {
                    for view in batch.messages() {
                        if let Ok(Some(sum)) = count.add(view.payload()) {
                            say(&says, sum);
                        }
                    }
                }
            });
            Ok(())
        }
        Maker::Frames => {
            let counting = Counting {
                count: Count::default(),
                says,
            };
            Wire::start(&orders.url, orders.wait, counting, HEARD, BACKPRESSURE)
        }
    }
}

/// A subscriber of frames.
struct Counting {
    count: Count,
    says: Says,
}

impl User for Counting {
    #[inline(always)]
    fn came(
        &mut self,
        _peer: usize,
        message: &Message<'_>,
        _exit: &mut Exit<'_>,
    ) -> io::Result<()> {
        if let Some(sum) = self.count.add(message.payload())? {
            say(&self.says, sum);
        }
        Ok(())
    }
}

/// A publisher of frames: what lacks credit waits.
struct Publishing {
    payload: Vec<u8>,
    next: u64,
    /// The number at which it pauses.
    until: u64,
}

impl User for Publishing {
    fn came(
        &mut self,
        _peer: usize,
        _message: &Message<'_>,
        _exit: &mut Exit<'_>,
    ) -> io::Result<()> {
        Err(io::Error::other("a publisher was sent something"))
    }

    fn turned(&mut self, _peer: usize, exit: &mut Exit<'_>) -> io::Result<()> {
        while self.next < self.until {
            numbered(&mut self.payload, self.next);
            if !exit.send(&Draft::message(0, Subject::Alias(0), &self.payload))? {
                break;
            }
            self.next += 1;
        }
        Ok(())
    }
}

impl Wire<Publishing> {
    fn publish(&mut self, next: u64, end_ns: u64) -> io::Result<u64> {
        if end_ns == 0 {
            // The mark counts as the number that it stands for.
            self.speaking.user.next = next | LAST;
            self.speaking.user.until = (next | LAST) + 1;
            self.push()?;
            while !self.has_sent(0) {
                self.turn(now_ns() + PATIENCE_NS)?;
            }
            self.speaking.user.next = next + 1;
            self.speaking.user.until = next + 1;
            return Ok(next + 1);
        }
        self.speaking.user.next = next;
        let mut reached = next;
        while now_ns() < end_ns {
            reached += BATCH as u64;
            self.speaking.user.until = reached;
            self.push()?;
        }
        Ok(reached)
    }

    /// Sends until the pause.
    fn push(&mut self) -> io::Result<()> {
        loop {
            let (mut exit, user) = self.exit(0);
            user.turned(0, &mut exit)?;
            let is_done = user.next >= user.until;
            let is_full = self.waiting_bytes(0) > 256 << 10;
            if is_done && !is_full {
                // What has come is looked at, without waiting for it.
                return self.turn(0);
            }
            self.turn(now_ns() + PATIENCE_NS)?;
        }
    }
}

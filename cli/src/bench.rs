//! `fastmq bench`: a first impression of this machine, in one process.
//!
//! Four rows over the Rust API, each for a given time, payload 16 bytes. One message of a request
//! row is one question and its answer. Not here: comparison, percentiles and raw results; `make
//! bench` has them.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fastmq::border::{core_count, pin_current_thread};
use fastmq::{
    Client, Delivery, Driver, Error, FOREVER_NS, Fault, NullDriver, Options, ReplyBuffer,
    Requester, RequesterOptions, Status, SubscribeOptions,
};

const SUBJECT: &str = "bench.subject.16";
const PAYLOAD: [u8; 16] = [7; 16];
/// Operations between two readings of the clock.
const STEP: u64 = 1024;
/// Requests in flight of the row with two threads.
const IN_FLIGHT: u32 = 512;
/// Messages of one batch.
const BATCH: usize = 256;
/// How long a thread waits before it looks whether the row is over.
const WAIT_NS: u64 = 100_000_000;

/// Writes the table.
pub(crate) fn run(out: &mut dyn Write, seconds: u64) -> io::Result<()> {
    let driver = NullDriver::new();
    let rows: [(&str, Row); 4] = [
        ("request, inline, by subject", inline_by_subject),
        ("request, inline, by handle", inline_by_handle),
        ("request, two threads, 512 in flight", two_threads),
        ("one way, two threads, in batches", one_way),
    ];
    writeln!(
        out,
        "{:<38} {:>14} {:>12}",
        "16 bytes", "million/s", "ns each"
    )?;
    for (name, row) in rows {
        let stopwatch = Stopwatch::start(&driver, seconds);
        let count = row(&stopwatch).map_err(|error| io::Error::other(error.to_string()))?;
        let spent_ns = stopwatch.spent_ns().max(1);
        let rate = count as f64 * 1e3 / spent_ns as f64;
        writeln!(
            out,
            "{name:<38} {rate:>14.2} {:>12.1}",
            1e3 / rate.max(1e-9)
        )?;
        out.flush()?;
    }
    Ok(())
}

/// Runs until the stopwatch says so and returns how many messages went through.
type Row = fn(&Stopwatch<'_>) -> fastmq::Result<u64>;

/// Says when a row is over.
struct Stopwatch<'a> {
    driver: &'a NullDriver,
    start_ns: u64,
    end_ns: u64,
}

impl<'a> Stopwatch<'a> {
    fn start(driver: &'a NullDriver, seconds: u64) -> Self {
        let start_ns = driver.monotonic_ns();
        Self {
            driver,
            start_ns,
            end_ns: start_ns + seconds * 1_000_000_000,
        }
    }

    fn spent_ns(&self) -> u64 {
        self.driver.monotonic_ns() - self.start_ns
    }

    fn is_over(&self) -> bool {
        self.driver.monotonic_ns() >= self.end_ns
    }
}

/// A client whose inline responder echoes.
fn echoing_client() -> fastmq::Result<(Client, fastmq::Subscription)> {
    let client = Client::open(Options::default())?;
    let answering = client.clone();
    let echo = move |message: &fastmq::View| {
        // The asker waits on this thread, so there is room for its answer.
        let _ = answering.reply(message.token, message.payload());
    };
    let options = SubscribeOptions {
        delivery: Delivery::Inline,
        on_message: Some(Box::new(echo)),
        ..SubscribeOptions::default()
    };
    let subscription = client.subscribe_with(SUBJECT, options)?;
    Ok((client, subscription))
}

fn inline_by_subject(stopwatch: &Stopwatch<'_>) -> fastmq::Result<u64> {
    let (client, _responder) = echoing_client()?;
    let message = fastmq::Message {
        subject: SUBJECT.as_bytes(),
        payload: &PAYLOAD,
        ..fastmq::Message::default()
    };
    let mut count = 0;
    loop {
        for _ in 0..STEP {
            client.request(&message, FOREVER_NS)?;
        }
        count += STEP;
        if stopwatch.is_over() {
            break;
        }
    }
    client.close();
    Ok(count)
}

fn requester(client: &Client) -> fastmq::Result<Requester> {
    client.requester(RequesterOptions {
        in_flight_max: IN_FLIGHT,
        subject: SUBJECT.as_bytes(),
        wait: None,
    })
}

fn inline_by_handle(stopwatch: &Stopwatch<'_>) -> fastmq::Result<u64> {
    let (client, _responder) = echoing_client()?;
    let mut requester = requester(&client)?;
    let mut bytes = [0; PAYLOAD.len()];
    let mut reply = ReplyBuffer::new(&mut bytes);
    let mut count = 0;
    loop {
        for _ in 0..STEP {
            requester.request_into(&PAYLOAD, FOREVER_NS, &mut reply)?;
        }
        count += STEP;
        if stopwatch.is_over() {
            break;
        }
    }
    client.close();
    Ok(count)
}

/// Runs `body` on a thread of its own, on another core where there is one.
fn beside<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> thread::JoinHandle<R> {
    thread::spawn(move || {
        if core_count() > 1 {
            // A core that is closed to us leaves the choice to the kernel.
            let _ = pin_current_thread(1);
        }
        body()
    })
}

fn joined<R>(thread: thread::JoinHandle<R>) -> fastmq::Result<R> {
    thread.join().map_err(|_| {
        Error::new(&Fault(
            Status::Internal,
            "a thread of the bench has panicked",
        ))
    })
}

fn two_threads(stopwatch: &Stopwatch<'_>) -> fastmq::Result<u64> {
    let client = Client::open(Options::default())?;
    let subscription = client.subscribe(SUBJECT)?;
    let answering = client.clone();
    let responder = beside(move || {
        while let Ok(batch) = subscription.receive(BATCH, FOREVER_NS) {
            for message in batch.messages() {
                // The asker's window is no larger than its queue of answers.
                let _ = answering.reply(message.token, message.payload());
            }
        }
    });
    let mut requester = requester(&client)?;
    let mut count = 0;
    loop {
        for _ in 0..STEP / 64 {
            while requester.in_flight() < IN_FLIGHT {
                requester.submit(&PAYLOAD, 0, FOREVER_NS)?;
            }
            match requester.receive(BATCH, WAIT_NS) {
                Ok(batch) => count += batch.messages().len() as u64,
                Err(error) if error.status() == Status::Timeout => {}
                Err(error) => return Err(error),
            }
        }
        if stopwatch.is_over() {
            break;
        }
    }
    client.close();
    joined(responder)?;
    Ok(count)
}

fn one_way(stopwatch: &Stopwatch<'_>) -> fastmq::Result<u64> {
    let client = Client::open(Options::default())?;
    let subscription = client.subscribe(SUBJECT)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let (writing, is_told) = (client.clone(), is_over.clone());
    let writer = beside(move || -> fastmq::Result<()> {
        let mut publisher = writing.publisher(SUBJECT)?;
        while !is_told.load(Ordering::Relaxed) {
            let payloads = std::iter::repeat_n(PAYLOAD.as_slice(), BATCH);
            match publisher.publish_batch(payloads) {
                (_, Ok(())) => {}
                (_, Err(error)) if error.status() == Status::Again => std::hint::spin_loop(),
                (_, Err(error)) => return Err(error),
            }
        }
        Ok(())
    });
    let mut count = 0;
    loop {
        for _ in 0..STEP / 64 {
            match subscription.receive(BATCH, WAIT_NS) {
                Ok(batch) => count += batch.messages().len() as u64,
                Err(error) if error.status() == Status::Timeout => {}
                Err(error) => return Err(error),
            }
        }
        if stopwatch.is_over() {
            break;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    joined(writer)??;
    client.close();
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_moves_messages() {
        let driver = NullDriver::new();
        let start_ns = driver.monotonic_ns();
        for row in [inline_by_subject, inline_by_handle, two_threads, one_way] {
            let end_ns = driver.monotonic_ns() + 5_000_000;
            let stopwatch = Stopwatch {
                driver: &driver,
                start_ns,
                end_ns,
            };
            assert!(row(&stopwatch).unwrap() > 0);
        }
    }
}

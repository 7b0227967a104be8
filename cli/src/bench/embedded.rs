//! The same cases in one process: what there is without a server.
//!
//! The service has a thread of its own, on the server's core; the case `inline` answers on the
//! asker's own thread.

use std::io;
use std::thread;
use std::time::Duration;

use fastmq::{
    Client, Delivery, FOREVER_NS, Options, ReplyBuffer, RequesterOptions, SubscribeOptions,
};

use super::asking::{self, numbered, warm_up};
use super::child::SERVED;
use super::clock::Stopwatch;
use super::pin;
use super::plan::{Case, Core, Plan, Row};
use super::report::Figure;

/// Messages of one receive.
const BATCH: usize = 1024;
/// Calls between two readings of the clock.
const STEP: u64 = 1024;

/// A broker of this process.
pub(super) fn open(row: &Row) -> io::Result<Client> {
    let options = Options {
        wait: row.wait.profile(),
        ..Options::default()
    };
    Client::open(options).map_err(io::Error::other)
}

/// Runs `body` on a thread of the server's core.
pub(super) fn beside<R: Send + 'static>(
    core: Core,
    body: impl FnOnce() -> io::Result<R> + Send + 'static,
) -> thread::JoinHandle<io::Result<R>> {
    thread::spawn(move || {
        pin(core)?;
        body()
    })
}

/// What such a thread has to say.
pub(super) fn joined<R>(thread: thread::JoinHandle<io::Result<R>>) -> io::Result<R> {
    let panicked = |_| io::Error::other("a thread of the bench has panicked");
    thread.join().map_err(panicked)?
}

/// Requests and answers of one process.
pub(super) fn asking(plan: &Plan, row: &Row) -> io::Result<Figure> {
    with_service(plan, row, |client| match row.case {
        Case::RoundTrip => asking::one_by_one(plan, row, client),
        _ => asking::many(plan, row, client),
    })
}

/// Runs `body` on the load's core, with a service on the server's.
pub(super) fn with_service(
    plan: &Plan,
    row: &Row,
    body: impl FnOnce(&Client) -> io::Result<Figure>,
) -> io::Result<Figure> {
    let client = open(row)?;
    let pattern = format!("{SERVED}.*");
    let subscription = client.subscribe(pattern).map_err(io::Error::other)?;
    let answering = client.clone();
    let service = beside(plan.cores.server, move || {
        while let Ok(batch) = subscription.receive(BATCH, FOREVER_NS) {
            for message in batch.messages() {
                // The asker's window is no larger than its queue of answers.
                let _ = answering.reply(message.token, message.payload());
            }
        }
        Ok(())
    });
    pin(plan.cores.load)?;
    let figure = body(&client);
    client.close();
    joined(service)?;
    figure
}

/// Requests that an inline responder answers on the asker's thread.
pub(super) fn inline(plan: &Plan, row: &Row) -> io::Result<Figure> {
    let client = open(row)?;
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
    let _service = client
        .subscribe_with(SERVED, options)
        .map_err(io::Error::other)?;
    pin(plan.cores.load)?;
    let requester = client.requester(RequesterOptions {
        in_flight_max: 1,
        subject: SERVED.as_bytes(),
        wait: None,
    });
    let mut requester = requester.map_err(io::Error::other)?;
    let (mut payload, mut bytes) = (vec![0; row.size], vec![0; row.size]);
    let mut reply = ReplyBuffer::new(&mut bytes);
    let mut run = |length: Duration| -> io::Result<(u64, Duration)> {
        let started = Stopwatch::start();
        let mut count = 0;
        while started.elapsed() < length {
            for number in count..count + STEP {
                numbered(&mut payload, number);
                let asked = requester.request_into(&payload, FOREVER_NS, &mut reply);
                asked.map_err(io::Error::other)?;
            }
            count += STEP;
        }
        Ok((count, started.elapsed()))
    };
    run(warm_up(plan))?;
    let (count, spent) = run(Duration::from_secs_f64(plan.seconds))?;
    client.close();
    Ok(Figure::rate("M pairs/s", count, spent))
}

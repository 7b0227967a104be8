//! Requests and their answers: many in flight, and one at a time.
//!
//! Every answer is compared with its question, whose number is in the first 8 bytes of the payload.
//! What is counted has been answered and compared.

use std::io;
use std::thread;
use std::time::Duration;

use fastmq::{Client, FOREVER_NS, ReplyBuffer, Requester, RequesterOptions, Status};
use fastmq_wire::{Draft, Message, Subject};
use hdrhistogram::Histogram;

use super::child::{self, Child, Orders, ROUTED, SERVED, Serving};
use super::clock::{Stopwatch, now_ns};
use super::plan::{Case, Maker, Over, Plan, Responder, Row};
use super::report::{Figure, latencies};
use super::streams::address_of;
use super::wire::{BACKPRESSURE, Exit, User, Wire};
use super::{embedded, pin};

/// Messages that one receive takes.
pub(super) const BATCH: usize = 1024;
/// No answer for so long is a failure.
pub(super) const PATIENCE_NS: u64 = 10_000_000_000;
/// Bytes of a payload that are its number.
const NUMBER_BYTES: usize = 8;

/// Measures one row once.
pub(super) fn measure(plan: &Plan, row: &Row) -> io::Result<Figure> {
    if row.over == Over::Embedded {
        return embedded::asking(plan, row);
    }
    let (server, _responder) = serving(plan, row)?;
    pin(plan.cores.load)?;
    match row.maker {
        Maker::Library => by_library(plan, row, &server.url),
        Maker::Frames => by_frames(plan, row, &server.url),
    }
}

/// A server, and whoever answers for it in a third process.
pub(super) fn serving(plan: &Plan, row: &Row) -> io::Result<(Serving, Option<Child>)> {
    let server = child::server(plan, row)?;
    let responder = match row.responder {
        Responder::Broker | Responder::Load => None,
        Responder::Third => Some(child::third(plan, row, "responder", &server.url)?),
    };
    Ok((server, responder))
}

/// What is asked.
pub(super) fn subject(row: &Row, number: u32) -> String {
    match row.responder {
        Responder::Broker | Responder::Load => format!("{SERVED}.{number}"),
        Responder::Third => format!("{ROUTED}.{number}"),
    }
}

/// Answers with what was asked, from now until the process ends, on a thread of its own.
pub(super) fn start_responder(orders: &Orders) -> io::Result<()> {
    let pattern = format!("{ROUTED}.*");
    if orders.maker == Maker::Frames {
        return Wire::start(&orders.url, orders.wait, Answering, &pattern, BACKPRESSURE);
    }
    let client = child::connect(orders)?;
    let subscription = client.subscribe(pattern).map_err(io::Error::other)?;
    thread::spawn(move || {
        while let Ok(batch) = subscription.receive(BATCH, FOREVER_NS) {
            for view in batch.messages() {
                answer(&client, view);
            }
        }
    });
    Ok(())
}

/// Answers, also when the way to the server is full.
fn answer(client: &Client, question: &fastmq::View) {
    while let Err(error) = client.reply(question.token, question.payload()) {
        if error.status() != Status::Again {
            break;
        }
        thread::yield_now();
    }
}

/// A responder of frames.
struct Answering;

impl User for Answering {
    fn came(&mut self, _peer: usize, message: &Message<'_>, exit: &mut Exit<'_>) -> io::Result<()> {
        exit.reply(&Draft::reply(message.token(), 0, message.payload()))
    }
}

/// How long a row warms up before it is measured.
pub(super) fn warm_up(plan: &Plan) -> Duration {
    Duration::from_secs_f64((plan.seconds / 4.0).min(0.5))
}

fn by_library(plan: &Plan, row: &Row, url: &str) -> io::Result<Figure> {
    let options = child::connecting(row.load_wait);
    let client = Client::connect(url, options).map_err(io::Error::other)?;
    let figure = match row.case {
        Case::RoundTrip => one_by_one(plan, row, &client),
        _ => many(plan, row, &client),
    };
    client.close();
    figure
}

/// A payload with a number.
#[inline(always)]
pub(super) fn numbered(payload: &mut [u8], number: u64) {
    payload[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
}

/// The number of a payload.
#[inline(always)]
pub(super) fn number_of(payload: &[u8]) -> io::Result<u64> {
    let number = payload.first_chunk::<NUMBER_BYTES>();
    let number = number.ok_or_else(|| io::Error::other("a message has lost its number"))?;
    Ok(u64::from_le_bytes(*number))
}

pub(super) fn wrong(status: u32) -> io::Error {
    io::Error::other(format!("a request has ended with the status {status}"))
}

/// Whether an answer is that to its question, whose number is its token.
#[inline(always)]
pub(super) fn check(view: &fastmq::View, size: usize) -> io::Result<()> {
    if view.status != 0 {
        return Err(wrong(view.status));
    }
    if view.payload().len() != size || number_of(view.payload())? != view.token {
        return Err(io::Error::other("an answer is not its question"));
    }
    Ok(())
}

/// Many requests in flight, by the library.
pub(super) fn many(plan: &Plan, row: &Row, client: &Client) -> io::Result<Figure> {
    let subjects: Vec<String> = (0..plan.subjects)
        .map(|number| subject(row, number))
        .collect();
    let own = match subjects.as_slice() {
        [one] => one.as_bytes(),
        _ => &[],
    };
    let requester = client.requester(RequesterOptions {
        in_flight_max: row.amount,
        subject: own,
        wait: None,
    });
    let mut requester = requester.map_err(io::Error::other)?;
    let mut payload = vec![0; row.size];
    let mut number = 0;
    let mut run = |duration: Duration| -> io::Result<(u64, Duration)> {
        let started = Stopwatch::start();
        let mut count = 0;
        loop {
            let is_over = started.elapsed() >= duration;
            while !is_over && requester.in_flight() < row.amount {
                numbered(&mut payload, number);
                let asked = match subjects.as_slice() {
                    [_] => requester.submit(&payload, number, PATIENCE_NS),
                    several => {
                        let subject = several[number as usize % several.len()].as_bytes();
                        requester.submit_to(subject, &payload, number, PATIENCE_NS)
                    }
                };
                match asked {
                    Ok(()) => number += 1,
                    Err(error) if error.status() == Status::Again => break,
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
            if requester.in_flight() == 0 {
                return Ok((count, started.elapsed()));
            }
            let batch = requester
                .receive(BATCH, PATIENCE_NS)
                .map_err(io::Error::other)?;
            for view in batch.messages() {
                check(view, row.size)?;
            }
            count += batch.messages().len() as u64;
        }
    };
    run(warm_up(plan))?;
    let (count, spent) = run(Duration::from_secs_f64(plan.seconds))?;
    Ok(Figure::rate("M pairs/s", count, spent))
}

/// One question at a time, by the library.
pub(super) fn one_by_one(plan: &Plan, row: &Row, client: &Client) -> io::Result<Figure> {
    let subject = subject(row, 0);
    let requester = client.requester(RequesterOptions {
        in_flight_max: 1,
        subject: subject.as_bytes(),
        wait: None,
    });
    let mut requester = requester.map_err(io::Error::other)?;
    let (mut payload, mut bytes) = (vec![0; row.size], vec![0; row.size]);
    timed(plan, |number| {
        numbered(&mut payload, number);
        ask(&mut requester, &payload, &mut bytes)?;
        match number_of(&bytes)? == number {
            true => Ok(()),
            false => Err(io::Error::other("an answer is not its question")),
        }
    })
}

fn ask(requester: &mut Requester, payload: &[u8], bytes: &mut [u8]) -> io::Result<()> {
    let mut reply = ReplyBuffer::new(bytes);
    let asked = requester.request_into(payload, PATIENCE_NS, &mut reply);
    asked.map(drop).map_err(io::Error::other)
}

/// How long a row is measured.
pub(super) fn length_ns(plan: &Plan) -> u64 {
    (plan.seconds * 1e9) as u64
}

/// Times `step` again and again.
pub(super) fn timed(
    plan: &Plan,
    mut step: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<Figure> {
    let mut number = 0;
    let warm = Stopwatch::start();
    while warm.elapsed() < warm_up(plan) {
        step(number)?;
        number += 1;
    }
    let mut histogram: Histogram<u64> = latencies();
    let end_ns = now_ns() + length_ns(plan);
    let mut before_ns = now_ns();
    while before_ns < end_ns {
        step(number)?;
        number += 1;
        let after_ns = now_ns();
        histogram.saturating_record(after_ns - before_ns);
        before_ns = after_ns;
    }
    Ok(Figure::latency(histogram))
}

/// An asker of frames.
struct Asking {
    outstanding: u64,
    subjects: u32,
    payload: Vec<u8>,
    asked: u64,
    answered: u64,
    /// Whether it asks on.
    is_asking: bool,
}

impl User for Asking {
    #[inline(always)]
    fn came(
        &mut self,
        _peer: usize,
        message: &Message<'_>,
        _exit: &mut Exit<'_>,
    ) -> io::Result<()> {
        if message.status() != 0 {
            return Err(wrong(u32::from(message.status())));
        }
        let payload = message.payload();
        if payload.len() != self.payload.len()
            || number_of(payload)? as u32 != message.correlation()
        {
            return Err(io::Error::other("an answer is not its question"));
        }
        self.answered += 1;
        Ok(())
    }

    fn turned(&mut self, _peer: usize, exit: &mut Exit<'_>) -> io::Result<()> {
        while self.is_asking && self.asked - self.answered < self.outstanding {
            let number = self.asked;
            numbered(&mut self.payload, number);
            let subject = Subject::Alias((number % u64::from(self.subjects)) as u32);
            if !exit.send(&Draft::request(number as u32, subject, &self.payload))? {
                break;
            }
            self.asked += 1;
        }
        Ok(())
    }
}

fn by_frames(plan: &Plan, row: &Row, url: &str) -> io::Result<Figure> {
    let asking = Asking {
        outstanding: u64::from(row.amount),
        subjects: plan.subjects,
        payload: vec![0; row.size],
        asked: 0,
        answered: 0,
        is_asking: false,
    };
    let mut wire = Wire::connect(&address_of(url)?, 1, row.load_wait, asking)?;
    for number in 0..plan.subjects {
        wire.alias(0, number, subject(row, number).as_bytes())?;
    }
    if row.case == Case::RoundTrip {
        return timed(plan, |_| {
            let answered = wire.speaking.user.answered;
            ask_on(&mut wire, true)?;
            wire.speaking.user.is_asking = false;
            while wire.speaking.user.answered == answered {
                turn(&mut wire)?;
            }
            Ok(())
        });
    }
    let mut run = |length: Duration| -> io::Result<(u64, Duration)> {
        let (started, before) = (Stopwatch::start(), wire.speaking.user.answered);
        ask_on(&mut wire, true)?;
        while started.elapsed() < length {
            turn(&mut wire)?;
        }
        ask_on(&mut wire, false)?;
        while wire.speaking.user.answered < wire.speaking.user.asked {
            turn(&mut wire)?;
        }
        Ok((wire.speaking.user.answered - before, started.elapsed()))
    };
    run(warm_up(plan))?;
    let (count, spent) = run(Duration::from_secs_f64(plan.seconds))?;
    Ok(Figure::rate("M pairs/s", count, spent))
}

fn ask_on(wire: &mut Wire<Asking>, is_asking: bool) -> io::Result<()> {
    let (mut exit, asking) = wire.exit(0);
    asking.is_asking = is_asking;
    asking.turned(0, &mut exit)
}

/// A turn in which something must come.
fn turn(wire: &mut Wire<Asking>) -> io::Result<()> {
    let before = wire.speaking.user.answered;
    let deadline_ns = now_ns() + PATIENCE_NS;
    wire.turn(deadline_ns)?;
    let user = &wire.speaking.user;
    if user.answered == before && now_ns() >= deadline_ns {
        let open = user.asked - user.answered;
        return Err(io::Error::other(format!(
            "{open} requests are not answered"
        )));
    }
    Ok(())
}

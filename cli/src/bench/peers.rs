//! The same load for servers of others, so that they can be compared: requests that a third process
//! answers, and messages from one connection of the load to another.
//!
//! It is driven by the same sockets, with as many in flight and as large batches as for ours. What
//! has no requests of its own gets them as messages there and back.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::asking::{PATIENCE_NS, number_of, numbered, timed, warm_up};
use super::child::{self, Orders};
use super::clock::{Stopwatch, now_ns};
use super::dialect::{self, Envelope, Heard};
use super::pin;
use super::plan::{Case, Plan, Protocol, Responder, Row, Waiting};
use super::report::Figure;
use super::streams::{self, Streams, address_of};

const THERE: &str = "bench.far.0";
const BACK: &str = "bench.back";
/// The connection that publishes; the last one listens.
const PUBLISHER: usize = 0;

/// Measures one row once.
pub(super) fn measure(plan: &Plan, row: &Row) -> io::Result<Figure> {
    let serving = child::server(plan, row)?;
    let _responder = match row.responder {
        Responder::Third => Some(child::third(plan, row, "responder", &serving.url)?),
        _ => None,
    };
    pin(plan.cores.load)?;
    let is_one_way = row.case == Case::PubSub;
    let (hears, tells) = if is_one_way {
        (THERE, THERE)
    } else {
        (BACK, THERE)
    };
    let count = if is_one_way {
        2
    } else {
        connections(row.protocol)
    };
    let mut talk = Talk::begin(&serving.url, row.protocol, row.load_wait, count, hears)?;
    let reply_to = if is_one_way { "" } else { BACK };
    let envelope = Envelope::new(row.protocol, tells.as_bytes(), reply_to, row.size);
    let mut payload = vec![0; row.size];
    let mut asked = 0;
    if row.case == Case::RoundTrip {
        return timed(plan, |number| {
            talk.publish(&envelope, &mut payload, number);
            talk.wait_for(number + 1)
        });
    }
    let window = u64::from(row.amount);
    let mut run = |length: Duration| -> io::Result<(u64, Duration)> {
        let (stopwatch, before) = (Stopwatch::start(), talk.ears.came);
        while stopwatch.elapsed() < length {
            while asked - talk.ears.came < window {
                talk.publish(&envelope, &mut payload, asked);
                asked += 1;
            }
            talk.wait_for(talk.ears.came + 1)?;
        }
        talk.wait_for(asked)?;
        Ok((talk.ears.came - before, stopwatch.elapsed()))
    };
    run(warm_up(plan))?;
    let (count, spent) = run(Duration::from_secs_f64(plan.seconds))?;
    let unit = if is_one_way { "M msg/s" } else { "M pairs/s" };
    Ok(Figure::rate(unit, count, spent))
}

/// How many connections one who publishes and listens needs.
fn connections(protocol: Protocol) -> usize {
    // A Redis connection that listens cannot publish.
    if protocol == Protocol::Redis { 2 } else { 1 }
}

/// Answers with what was asked, from now until the process ends, on a thread of its own.
pub(super) fn start_responder(orders: &Orders) -> io::Result<()> {
    let orders = orders.clone();
    let (says, hears) = mpsc::channel();
    thread::spawn(move || {
        let count = connections(orders.protocol);
        match Talk::begin(&orders.url, orders.protocol, orders.wait, count, THERE) {
            Ok(mut talk) => {
                let _ = says.send(Ok(()));
                talk.ears.answers = Some(Envelope::default());
                while talk.turn(fastmq::FOREVER_NS).is_ok() {}
            }
            Err(error) => {
                let _ = says.send(Err::<(), io::Error>(error));
            }
        }
    });
    hears.recv().map_err(io::Error::other)?
}

/// Connections and what they hear.
struct Talk {
    streams: Streams,
    ears: Ears,
}

struct Ears {
    protocol: Protocol,
    /// Operations that are done.
    ready: usize,
    /// Messages that have come.
    came: u64,
    /// What an answer stands in, if this is a responder, and for which address and size.
    answers: Option<Envelope>,
    answers_for: (Vec<u8>, usize),
    /// What the publishing connection is to send.
    aside: Vec<u8>,
}

impl Talk {
    fn begin(
        url: &str,
        protocol: Protocol,
        wait: Waiting,
        count: usize,
        topic: &str,
    ) -> io::Result<Self> {
        let mut ears = Ears {
            protocol,
            ready: 0,
            came: 0,
            answers: None,
            answers_for: (Vec::new(), 0),
            aside: Vec::new(),
        };
        let streams = Streams::connect(&address_of(url)?, count, wait, &mut ears)?;
        let mut talk = Self { streams, ears };
        for stream in 0..count {
            dialect::hello(protocol, talk.streams.output(stream), stream);
        }
        talk.settle(count)?;
        dialect::subscribe(protocol, talk.streams.output(count - 1), topic);
        talk.settle(count + 1)?;
        Ok(talk)
    }

    /// Waits until so many operations are done.
    fn settle(&mut self, ready: usize) -> io::Result<()> {
        let deadline_ns = now_ns() + PATIENCE_NS;
        while self.ears.ready < ready {
            self.turn(deadline_ns)?;
            if now_ns() >= deadline_ns {
                return Err(io::Error::other("the server does not answer"));
            }
        }
        Ok(())
    }

    fn publish(&mut self, envelope: &Envelope, payload: &mut [u8], number: u64) {
        numbered(payload, number);
        envelope.put(self.streams.output(PUBLISHER), payload);
    }

    /// Waits until so many messages have come in all.
    fn wait_for(&mut self, count: u64) -> io::Result<()> {
        while self.ears.came < count {
            let (before, deadline_ns) = (self.ears.came, now_ns() + PATIENCE_NS);
            self.turn(deadline_ns)?;
            if self.ears.came == before && now_ns() >= deadline_ns {
                return Err(io::Error::other("messages have not come"));
            }
        }
        Ok(())
    }

    fn turn(&mut self, deadline_ns: u64) -> io::Result<()> {
        self.streams.turn(&mut self.ears, deadline_ns)?;
        if !self.ears.aside.is_empty() {
            self.streams.output(PUBLISHER).append(&mut self.ears.aside);
        }
        Ok(())
    }
}

impl streams::Protocol for Ears {
    fn take(&mut self, _stream: usize, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let mut taken = 0;
        while let Some((heard, size)) = dialect::next(self.protocol, &bytes[taken..])? {
            taken += size;
            match heard {
                Heard::Message { reply_to, payload } if self.answers.is_some() => {
                    self.answer(reply_to, payload);
                }
                Heard::Message { payload, .. } => {
                    if number_of(payload)? != self.came {
                        return Err(io::Error::other("a message was lost, or is out of order"));
                    }
                    self.came += 1;
                }
                Heard::Ready => self.ready += 1,
                Heard::Ping => dialect::pong(out),
                Heard::Nothing => {}
            }
        }
        Ok(taken)
    }
}

impl Ears {
    fn answer(&mut self, reply_to: &[u8], payload: &[u8]) {
        let reply_to = if reply_to.is_empty() {
            BACK.as_bytes()
        } else {
            reply_to
        };
        if self.answers_for.0 != reply_to || self.answers_for.1 != payload.len() {
            self.answers_for = (reply_to.to_vec(), payload.len());
            let envelope = Envelope::new(self.protocol, reply_to, "", payload.len());
            self.answers = Some(envelope);
        }
        if let Some(envelope) = &self.answers {
            envelope.put(&mut self.aside, payload);
        }
    }
}

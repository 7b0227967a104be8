//! Questions at a fixed rate, and how late their answers are.
//!
//! A latency counts from the moment when the question was due, whether or not it could be sent
//! then: a pause of the server is seen by every question that was due meanwhile, and not by one.

use std::io;

use fastmq::{Client, RequesterOptions, Status};
use fastmq_wire::{Draft, Message, Subject};
use hdrhistogram::Histogram;

use super::asking::{self, BATCH, PATIENCE_NS, length_ns, number_of, numbered, subject, warm_up};
use super::child;
use super::clock::now_ns;
use super::plan::{Maker, Over, Plan, Row};
use super::report::{Figure, latencies};
use super::streams::address_of;
use super::wire::{Exit, User, Wire};
use super::{embedded, pin};

/// Questions in flight; beyond it they wait, and are late.
const IN_FLIGHT_MAX: u32 = 32_768;

/// Measures one row once.
pub(super) fn measure(plan: &Plan, row: &Row) -> io::Result<Figure> {
    if row.over == Over::Embedded {
        return embedded::with_service(plan, row, |client| by_library(plan, row, client));
    }
    let (serving, _responder) = asking::serving(plan, row)?;
    pin(plan.cores.load)?;
    match row.maker {
        Maker::Library => {
            let options = child::connecting(row.load_wait);
            let client = Client::connect(&serving.url, options).map_err(io::Error::other)?;
            let figure = by_library(plan, row, &client);
            client.close();
            figure
        }
        Maker::Frames => by_frames(plan, row, &serving.url),
    }
}

/// When each question is due, and how late the answers are.
struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    /// The first question that is measured.
    first: u64,
    /// How many there are.
    count: u64,
    asked: u64,
    answered: u64,
    late: Histogram<u64>,
}

impl Schedule {
    fn new(plan: &Plan, row: &Row) -> Self {
        let interval_ns = 1e9 / f64::from(row.amount);
        let in_time = |ns: u64| (ns as f64 / interval_ns).ceil() as u64;
        let first = in_time(warm_up(plan).as_nanos() as u64);
        Self {
            start_ns: now_ns(),
            interval_ns,
            first,
            count: first + in_time(length_ns(plan)).max(1),
            asked: 0,
            answered: 0,
            late: latencies(),
        }
    }

    fn due_ns(&self, number: u64) -> u64 {
        self.start_ns + (number as f64 * self.interval_ns) as u64
    }

    /// Whether the next question is to be sent.
    fn is_due(&self, now_ns: u64) -> bool {
        self.asked < self.count
            && self.asked - self.answered < u64::from(IN_FLIGHT_MAX)
            && self.due_ns(self.asked) <= now_ns
    }

    /// When to look again, though nothing has come.
    fn deadline_ns(&self) -> u64 {
        if self.asked < self.count && self.asked - self.answered < u64::from(IN_FLIGHT_MAX) {
            self.due_ns(self.asked)
        } else {
            now_ns() + PATIENCE_NS
        }
    }

    fn answered(&mut self, number: u64, now_ns: u64) {
        self.answered += 1;
        if number >= self.first {
            let late_ns = now_ns.saturating_sub(self.due_ns(number));
            self.late.saturating_record(late_ns);
        }
    }

    fn is_over(&self) -> bool {
        self.answered == self.count
    }

    /// An error if nothing has come for so long.
    fn check(&self, answered_before: u64, waited_until_ns: u64) -> io::Result<()> {
        let is_stuck = self.asked == self.count && self.answered == answered_before;
        if is_stuck && now_ns() >= waited_until_ns {
            let open = self.asked - self.answered;
            return Err(io::Error::other(format!(
                "{open} requests are not answered"
            )));
        }
        Ok(())
    }
}

fn by_library(plan: &Plan, row: &Row, client: &Client) -> io::Result<Figure> {
    let subject = subject(row, 0);
    let requester = client.requester(RequesterOptions {
        in_flight_max: IN_FLIGHT_MAX,
        subject: subject.as_bytes(),
        wait: None,
    });
    let mut requester = requester.map_err(io::Error::other)?;
    let mut payload = vec![0; row.size];
    let mut schedule = Schedule::new(plan, row);
    while !schedule.is_over() {
        while schedule.is_due(now_ns()) {
            numbered(&mut payload, schedule.asked);
            match requester.submit(&payload, schedule.asked, PATIENCE_NS) {
                Ok(()) => schedule.asked += 1,
                Err(error) if error.status() == Status::Again => break,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let wait_ns = schedule.deadline_ns().saturating_sub(now_ns());
        match requester.receive(BATCH, wait_ns) {
            Ok(batch) => {
                let now_ns = now_ns();
                for view in batch.messages() {
                    asking::check(view, row.size)?;
                    schedule.answered(view.token, now_ns);
                }
            }
            Err(error) if matches!(error.status(), Status::Timeout | Status::Again) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(Figure::latency(schedule.late))
}

/// An asker of frames.
struct Pacing {
    schedule: Schedule,
    payload: Vec<u8>,
    /// When what is shown now has come.
    now_ns: u64,
}

impl User for Pacing {
    fn came(
        &mut self,
        _peer: usize,
        message: &Message<'_>,
        _exit: &mut Exit<'_>,
    ) -> io::Result<()> {
        if self.now_ns == 0 {
            self.now_ns = now_ns();
        }
        if message.status() != 0 {
            return Err(asking::wrong(u32::from(message.status())));
        }
        let number = number_of(message.payload())?;
        self.schedule.answered(number, self.now_ns);
        Ok(())
    }

    fn turned(&mut self, _peer: usize, exit: &mut Exit<'_>) -> io::Result<()> {
        self.now_ns = 0;
        let now_ns = now_ns();
        while self.schedule.is_due(now_ns) {
            let number = self.schedule.asked;
            numbered(&mut self.payload, number);
            let draft = Draft::request(number as u32, Subject::Alias(0), &self.payload);
            if !exit.send(&draft)? {
                break;
            }
            self.schedule.asked += 1;
        }
        Ok(())
    }
}

fn by_frames(plan: &Plan, row: &Row, url: &str) -> io::Result<Figure> {
    // Nothing is due before the connection is there.
    let nothing = Schedule {
        count: 0,
        ..Schedule::new(plan, row)
    };
    let pacing = Pacing {
        schedule: nothing,
        payload: vec![0; row.size],
        now_ns: 0,
    };
    let mut wire = Wire::connect(&address_of(url)?, 1, row.load_wait, pacing)?;
    wire.alias(0, 0, subject(row, 0).as_bytes())?;
    wire.speaking.user.schedule = Schedule::new(plan, row);
    while !wire.speaking.user.schedule.is_over() {
        let (mut exit, user) = wire.exit(0);
        user.turned(0, &mut exit)?;
        let (before, until_ns) = (user.schedule.answered, user.schedule.deadline_ns());
        wire.turn(until_ns)?;
        wire.speaking.user.schedule.check(before, until_ns)?;
    }
    Ok(Figure::latency(wire.speaking.user.schedule.late.clone()))
}

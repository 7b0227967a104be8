//! One publisher, many connections that all get everything.
//!
//! A tick is some messages at once. The next tick but one is published when every connection has
//! all of a tick, so there is always one under way. All connections are the load's.

use std::io;
use std::time::Duration;

use fastmq_wire::{Draft, Message, Subject};

use super::asking::{PATIENCE_NS, number_of, numbered, warm_up};
use super::child;
use super::clock::{Stopwatch, now_ns};
use super::pin;
use super::plan::{Plan, Row};
use super::report::Figure;
use super::streams::address_of;
use super::wire::{BACKPRESSURE, Exit, User, Wire};

const SUBJECT: &str = "bench.fan";
/// Ticks under way.
const TICKS_AHEAD: u64 = 2;
/// The connection that publishes; the others listen.
const PUBLISHER: usize = 0;

/// Measures one row once.
pub(super) fn measure(plan: &Plan, row: &Row) -> io::Result<Figure> {
    let serving = child::server(plan, row)?;
    pin(plan.cores.load)?;
    let count = row.amount as usize;
    let listening = Listening {
        next: vec![0; count + 1],
        came: 0,
    };
    let mut wire = Wire::connect(
        &address_of(&serving.url)?,
        count + 1,
        row.load_wait,
        listening,
    )?;
    for listener in 1..=count {
        wire.subscribe(listener, 1, SUBJECT.as_bytes(), BACKPRESSURE)?;
    }
    wire.alias(PUBLISHER, 0, SUBJECT.as_bytes())?;
    wire.settle()?;
    let tick = u64::from(plan.burst) * count as u64;
    let (mut payload, mut number) = (vec![0; row.size], 0);
    let mut run = |length: Duration| -> io::Result<(u64, Duration)> {
        let (stopwatch, before) = (Stopwatch::start(), wire.speaking.user.came);
        let mut published = before;
        while stopwatch.elapsed() < length {
            while published - wire.speaking.user.came <= (TICKS_AHEAD - 1) * tick {
                for _ in 0..plan.burst {
                    numbered(&mut payload, number);
                    number += 1;
                    let draft = Draft::message(0, Subject::Alias(0), &payload);
                    if !wire.exit(PUBLISHER).0.send(&draft)? {
                        return Err(io::Error::other("there is no credit for a tick"));
                    }
                }
                published += tick;
            }
            next_message(&mut wire, published)?;
        }
        while wire.speaking.user.came < published {
            next_message(&mut wire, published)?;
        }
        Ok((published - before, stopwatch.elapsed()))
    };
    run(warm_up(plan))?;
    let (count, spent) = run(Duration::from_secs_f64(plan.seconds))?;
    Ok(Figure::rate("M deliveries/s", count, spent))
}

/// A turn in which something must come.
fn next_message(wire: &mut Wire<Listening>, published: u64) -> io::Result<()> {
    let (before, deadline_ns) = (wire.speaking.user.came, now_ns() + PATIENCE_NS);
    wire.turn(deadline_ns)?;
    let came = wire.speaking.user.came;
    if came == before && now_ns() >= deadline_ns {
        let missing = published - came;
        return Err(io::Error::other(format!(
            "{missing} deliveries have not come"
        )));
    }
    Ok(())
}

/// What every listener expects next.
struct Listening {
    next: Vec<u64>,
    came: u64,
}

impl User for Listening {
    #[inline(always)]
    fn came(&mut self, peer: usize, message: &Message<'_>, _exit: &mut Exit<'_>) -> io::Result<()> {
        if number_of(message.payload())? != self.next[peer] {
            return Err(io::Error::other(
                "a delivery was lost, or came out of order",
            ));
        }
        self.next[peer] += 1;
        self.came += 1;
        Ok(())
    }
}

//! A game: players who send, rooms who send to their players, both by the tick.
//!
//! Each player is a connection of its own, that sends 32 bytes each tick to its room, at a time of
//! its own, and gets what the room sends: 512 bytes each tick, all rooms at the same moment. The
//! rooms are in the broker's process or in a third one, which has one connection. What is measured
//! is the time from the tick (when it was due) until a player has the room's message, after
//! [`WARM_TICKS`]. Nobody may be dropped: what a player or a room has not got is counted, from the
//! first tick on.
//!
//! One thread plays all players. It sends for those whose time has come when something has come
//! for others, and every [`PAUSE_NS`]: it would sleep 40,000 times a second else, which its core
//! does hardly anything beside.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;

use fastmq::{Client, Delivery, SubscribeOptions};
use fastmq_wire::{Draft, Message, Subject};
use hdrhistogram::Histogram;

use super::asking::{PATIENCE_NS, length_ns, number_of, numbered};
use super::child::{self, Orders, Says};
use super::clock::{now_ns, rest_until};
use super::pin;
use super::plan::{PLAYER_BYTES, Plan, ROOM_BYTES, Row};
use super::report::{Figure, latencies};
use super::streams::address_of;
use super::wire::{BACKPRESSURE, Exit, User, Wire};

/// Time between the word to begin and the first tick.
const COUNTDOWN_NS: u64 = 50_000_000;
/// Ticks that are not measured: with the first one all queues get memory, with the 17th message of
/// a publisher the lanes that are its own.
const WARM_TICKS: u64 = 20;
/// How late a player may send, while nothing comes.
const PAUSE_NS: u64 = 250_000;
/// Time between two looks whether the rooms have heard everything.
const LOOK_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Measures one row once.
pub(super) fn measure(plan: &Plan, row: &Row) -> io::Result<Figure> {
    let game = plan.game;
    let mut serving = child::server(plan, row)?;
    let url = serving.url.clone();
    let rooms = child::other_side(plan, row, "rooms", &mut serving)?;
    let mut rooms = rooms.ok_or_else(|| io::Error::other("there are no rooms"))?;
    pin(plan.cores.load)?;
    let count = game.players as usize;
    let playing = Playing {
        came: 0,
        late: latencies(),
        first_ns: u64::MAX,
        now_ns: 0,
    };
    let mut wire = Wire::connect(&address_of(&url)?, count, row.load_wait, playing)?;
    for player in 0..count {
        let room = player % game.rooms as usize;
        wire.subscribe(
            player,
            1,
            format!("bench.room.{room}").as_bytes(),
            BACKPRESSURE,
        )?;
        wire.alias(player, 0, format!("bench.play.{room}").as_bytes())?;
    }
    wire.settle()?;
    let tick_ns = SECOND_NS / u64::from(game.ticks_per_second);
    let ticks = WARM_TICKS + (length_ns(plan) / tick_ns).max(1);
    let start_ns = now_ns() + COUNTDOWN_NS;
    wire.speaking.user.first_ns = start_ns + WARM_TICKS * tick_ns;
    rooms.tell(&format!("{ticks}"))?;
    rooms.tell(&format!("{start_ns}"))?;
    let sent = play(&mut wire, start_ns, tick_ns, ticks)?;
    let expected = ticks * u64::from(game.players);
    let mut patience_ns = now_ns() + PATIENCE_NS;
    while wire.speaking.user.came < expected && now_ns() < patience_ns {
        let before = wire.speaking.user.came;
        wire.turn(patience_ns)?;
        if wire.speaking.user.came > before {
            patience_ns = now_ns() + PATIENCE_NS;
        }
    }
    // The rooms have had time to hear everything: they say when, or give up.
    rooms.tell(&format!("{sent}"))?;
    let heard: u64 = rooms.line()?.parse().map_err(io::Error::other)?;
    let came = wire.speaking.user.came;
    let mut figure = Figure::latency(wire.speaking.user.late.clone());
    figure
        .notes
        .push(("not delivered", expected.saturating_sub(came) as f64));
    figure
        .notes
        .push(("not heard", sent.saturating_sub(heard) as f64));
    Ok(figure)
}

/// Every player sends once a tick, one after the other; how many messages that were.
fn play(wire: &mut Wire<Playing>, start_ns: u64, tick_ns: u64, ticks: u64) -> io::Result<u64> {
    let players = wire.count() as u64;
    let payload = [0; PLAYER_BYTES];
    let mut sent = 0;
    while sent < ticks * players {
        let due_ns =
            |number: u64| start_ns + (number as f64 * tick_ns as f64 / players as f64) as u64;
        let now_ns = now_ns();
        while sent < ticks * players && due_ns(sent) <= now_ns {
            let player = (sent % players) as usize;
            let draft = Draft::message(0, Subject::Alias(0), &payload);
            if !wire.exit(player).0.send(&draft)? {
                return Err(io::Error::other("a player has no credit"));
            }
            sent += 1;
        }
        wire.turn(due_ns(sent).max(now_ns + PAUSE_NS))?;
    }
    Ok(sent)
}

/// The players' side.
struct Playing {
    came: u64,
    late: Histogram<u64>,
    /// When the first tick is due that is measured.
    first_ns: u64,
    /// When what is shown now has come.
    now_ns: u64,
}

impl User for Playing {
    fn came(
        &mut self,
        _peer: usize,
        message: &Message<'_>,
        _exit: &mut Exit<'_>,
    ) -> io::Result<()> {
        if self.now_ns == 0 {
            self.now_ns = now_ns();
        }
        // The rooms' clock is ours: one machine, and the monotonic clock of all its processes.
        let due_ns = number_of(message.payload())?;
        if due_ns >= self.first_ns {
            self.late
                .saturating_record(self.now_ns.saturating_sub(due_ns));
        }
        self.came += 1;
        Ok(())
    }

    fn turned(&mut self, _peer: usize, _exit: &mut Exit<'_>) -> io::Result<()> {
        self.now_ns = 0;
        Ok(())
    }
}

/// The rooms' side, on a thread of its own: told how many ticks there are and when the first one is
/// due it plays them, told how many messages the players have sent it says how many it has heard.
pub(super) fn start_rooms(
    client: &Client,
    orders: &Orders,
    says: &Says,
    told: Receiver<String>,
) -> io::Result<()> {
    let heard = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&heard);
    let options = SubscribeOptions {
        delivery: Delivery::Inline,
        on_message: Some(Box::new(move |_| {
            counting.fetch_add(1, Ordering::Relaxed);
        })),
        ..SubscribeOptions::default()
    };
    let subscription = client.subscribe_with("bench.play.*", options);
    // It ends with the process.
    std::mem::forget(subscription.map_err(io::Error::other)?);
    let publishers: fastmq::Result<Vec<_>> = (0..orders.rooms)
        .map(|room| client.publisher(format!("bench.room.{room}")))
        .collect();
    let mut publishers = publishers.map_err(io::Error::other)?;
    let tick_ns = SECOND_NS / u64::from(orders.ticks_per_second);
    let (says, client) = (says.clone(), client.clone());
    thread::spawn(move || {
        let _client = client;
        let number = || told.recv().ok().and_then(|line| line.parse::<u64>().ok());
        while let (Some(ticks), Some(start_ns)) = (number(), number()) {
            let mut payload = vec![0; ROOM_BYTES];
            for tick in 0..ticks {
                let due_ns = start_ns + tick * tick_ns;
                rest_until(due_ns);
                numbered(&mut payload, due_ns);
                for publisher in &mut publishers {
                    // What cannot be published the players miss, and it is counted there.
                    let _ = publisher.publish_wait(&payload, tick_ns);
                }
            }
            let Some(sent) = number() else { break };
            let patience_ns = now_ns() + PATIENCE_NS;
            while heard.load(Ordering::Relaxed) < sent && now_ns() < patience_ns {
                rest_until(now_ns() + LOOK_NS);
            }
            says.line(heard.swap(0, Ordering::Relaxed).to_string());
        }
    });
    Ok(())
}

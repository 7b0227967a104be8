//! A game: each player sends 48 bytes a tick, each gets 528 bytes a tick, all from a bare server.
//!
//! Server on core 0, all players on core 1, both spin on epoll; each player is a connection. What
//! players send is spread evenly over the tick and is counted, not looked at. What they get is sent
//! to one after the other from the moment when the tick is due, which the bytes name: so the
//! latency is that of the bench's case `game`, without rooms, subjects or queues. The ticks of the
//! warm-up are played and not measured.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::echo::{BUFFER_BYTES, Stream, tcp_pair};
use crate::epoll::Epoll;
use crate::report::{Percentiles, Plan, of_samples};
use crate::ring::pin;

/// A payload of 32 bytes and one of 512, each behind a header of 16.
const PLAYER_BYTES: usize = 48;
const ROOM_BYTES: usize = 528;
/// Time between the start and the first tick.
const COUNTDOWN: Duration = Duration::from_millis(20);
/// Time for what is late after the last one.
const PATIENCE: Duration = Duration::from_secs(5);

/// How late players have what a tick sends them.
pub(crate) fn run(plan: Plan, players: u64, per_second: u64) -> Result<Percentiles, String> {
    measure(plan, players as usize, per_second).map_err(|error| error.to_string())
}

/// What both sides know.
struct Game {
    start: Instant,
    tick: Duration,
    /// Ticks that are not measured, and all.
    warm: u64,
    ticks: u64,
    is_over: AtomicBool,
    /// Bytes that the server has had from players.
    heard: AtomicU64,
}

impl Game {
    /// When a tick is due, or a part of it has passed.
    fn due(&self, tick: f64) -> Instant {
        self.start + self.tick.mul_f64(tick)
    }
}

fn measure(plan: Plan, players: usize, per_second: u64) -> io::Result<Percentiles> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..players {
        let (player, served) = tcp_pair()?;
        player.set_blocking(false)?;
        served.set_blocking(false)?;
        ours.push(player);
        theirs.push(served);
    }
    let tick = Duration::from_secs(1) / per_second as u32;
    let ticks_in = |time: Duration| time.div_duration_f64(tick).ceil() as u64;
    let warm = ticks_in(plan.warm_up);
    let game = Game {
        start: Instant::now() + COUNTDOWN,
        tick,
        warm,
        ticks: warm + ticks_in(plan.measure),
        is_over: AtomicBool::new(false),
        heard: AtomicU64::new(0),
    };
    let game = &game;
    let late = thread::scope(|scope| {
        let serving = scope.spawn(move || {
            pin(0);
            serve(game, theirs)
        });
        pin(1);
        let late = play(game, ours);
        game.is_over.store(true, Ordering::Relaxed);
        let panicked = |_| io::Error::other("the server has panicked");
        serving.join().map_err(panicked)??;
        late
    })?;
    Ok(of_samples(late))
}

/// Sends to all players by the tick, and takes what they send.
fn serve(game: &Game, mut players: Vec<TcpStream>) -> io::Result<()> {
    let mut epoll = Epoll::new()?;
    for (index, player) in players.iter().enumerate() {
        epoll.add(player, index as u64)?;
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = [7; ROOM_BYTES];
    let mut sent = 0;
    while !game.is_over.load(Ordering::Relaxed) {
        if sent < game.ticks && Instant::now() >= game.due(sent as f64) {
            bytes[..8].copy_from_slice(&sent.to_le_bytes());
            for player in &mut players {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() && !game.is_over.load(Ordering::Relaxed) {
                    match player.write(rest) {
                        Ok(count) => rest = &rest[count..],
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            sent += 1;
        }
        for index in 0..epoll.wait(0)? {
            match players[epoll.ready(index)].read(&mut buffer) {
                Ok(count) => drop(game.heard.fetch_add(count as u64, Ordering::Relaxed)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// All players: how late each of them had each tick.
fn play(game: &Game, mut players: Vec<TcpStream>) -> io::Result<Vec<u32>> {
    let mut epoll = Epoll::new()?;
    for (index, player) in players.iter().enumerate() {
        epoll.add(player, index as u64)?;
    }
    let count = players.len() as u64;
    let all = game.ticks * count;
    let mut late = Vec::with_capacity(all as usize);
    // The beginning of what a player is being sent.
    let mut cut = vec![Vec::new(); players.len()];
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut sent = 0;
    let over = game.due(game.ticks as f64) + PATIENCE;
    let bytes = all * PLAYER_BYTES as u64;
    let mut came = 0;
    while came < all || game.heard.load(Ordering::Relaxed) < bytes {
        if Instant::now() > over {
            return Err(io::Error::other("something was not heard"));
        }
        while sent < all && Instant::now() >= game.due(sent as f64 / count as f64) {
            players[(sent % count) as usize].write_all(&[7; PLAYER_BYTES])?;
            sent += 1;
        }
        for index in 0..epoll.wait(0)? {
            let player = epoll.ready(index);
            let got = match players[player].read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("the server has ended")),
                Ok(got) => &buffer[..got],
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            let cut = &mut cut[player];
            cut.extend_from_slice(got);
            while let Some(tick) = cut[..].first_chunk().filter(|_| cut.len() >= ROOM_BYTES) {
                let tick = u64::from_le_bytes(*tick);
                if tick >= game.warm {
                    let lateness = now.saturating_duration_since(game.due(tick as f64));
                    late.push(u32::try_from(lateness.as_nanos()).unwrap_or(u32::MAX));
                }
                came += 1;
                cut.drain(..ROOM_BYTES);
            }
        }
    }
    Ok(late)
}

//! A game server in one process: 10 rooms of 100 players, 60 ticks a second.
//!
//! ```text
//! players --input.PLAYER--> game     what they press; when the game is behind, the oldest go
//! game --room.ROOM--> players        what each room looks like, 512 bytes to each player in it
//! game --at.PLAYER--> board          where everybody is: only the newest place of each matters
//! ```
//!
//! The game's queue drops the oldest and counts them, the board's keeps the latest of each subject:
//! it looks ten times a second and gets each player who has moved once. At the end every message
//! is accounted for: handled, or counted as dropped.
//!
//! `game_room [SECONDS]`, or `--check`: 20 ticks without waiting, for the tests

#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use fastmq::{
    Client, Options, Policy, Publisher, Queue, QueueOptions, Result, SubscribeOptions,
    Subscription, View,
};

const ROOMS: u32 = 10;
const PLAYERS: u32 = 1000;
const TICKS_PER_S: u32 = 60;
const BOARD_EVERY: u32 = 6;
const ROOM_BYTES: usize = 512;

type Place = [i32; 2];

fn queue(mq: &Client, policy: Policy, capacity: u64) -> Result<Queue> {
    mq.queue(QueueOptions {
        policy,
        capacity,
        ..QueueOptions::default()
    })
}

fn listen_to(mq: &Client, pattern: &str, queue: &Queue, tag: u64) -> Result<Subscription> {
    let options = SubscribeOptions {
        queue: Some(queue),
        tag,
        ..SubscribeOptions::default()
    };
    mq.subscribe_with(pattern, options)
}

fn speak(mq: &Client, what: &str, count: u32) -> Result<Vec<Publisher>> {
    (0..count)
        .map(|number| mq.publisher(format!("{what}.{number}")))
        .collect()
}

/// Calls `use_view` with each message that waits in a queue.
fn take(queue: &Queue, mut use_view: impl FnMut(&View) -> Result<()>) -> Result<()> {
    while let Ok(batch) = queue.receive(64, 0) {
        batch.messages().iter().try_for_each(&mut use_view)?;
    }
    Ok(())
}

/// The players: each presses something in each tick, and sees its room.
struct Players {
    sight: Queue,
    /// All share one queue; the tag says whose eyes it were.
    _eyes: Vec<Subscription>,
    hands: Vec<Publisher>,
    seen: u64,
}

impl Players {
    fn new(mq: &Client) -> Result<Self> {
        let sight = queue(mq, Policy::DropOldest, 4 << 20)?;
        let look_at = |player| {
            let room = format!("room.{}", player % ROOMS);
            listen_to(mq, &room, &sight, u64::from(player))
        };
        let eyes: Result<Vec<_>> = (0..PLAYERS).map(look_at).collect();
        Ok(Self {
            _eyes: eyes?,
            sight,
            hands: speak(mq, "input", PLAYERS)?,
            seen: 0,
        })
    }

    fn press(&mut self, tick: u32) -> Result<()> {
        for (player, hand) in (0..).zip(&mut self.hands) {
            let moves = [(player + tick) % 3, (player * 7 + tick) % 3];
            let mut input = u32::to_le_bytes(player).to_vec();
            input.extend(moves.map(|by| by as u8));
            hand.publish(&input)?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        take(&self.sight, |room| {
            assert_eq!(u64::from(room.payload()[0]), room.tag % u64::from(ROOMS));
            self.seen += 1;
            Ok(())
        })
    }
}

/// The game: moves whoever pressed something, shows each room, tells where everybody is.
struct Game {
    inputs: Queue,
    _heard: Subscription,
    rooms: Vec<Publisher>,
    tells: Vec<Publisher>,
    places: Vec<Place>,
    handled: u64,
}

impl Game {
    fn new(mq: &Client) -> Result<Self> {
        let inputs = queue(mq, Policy::DropOldest, 1 << 20)?;
        Ok(Self {
            _heard: listen_to(mq, "input.*", &inputs, 0)?,
            inputs,
            rooms: speak(mq, "room", ROOMS)?,
            tells: speak(mq, "at", PLAYERS)?,
            places: vec![[0; 2]; PLAYERS as usize],
            handled: 0,
        })
    }

    fn tick(&mut self) -> Result<()> {
        take(&self.inputs, |input| {
            let (player, by) = input.payload().split_first_chunk().expect("no input");
            let player = u32::from_le_bytes(*player) as usize;
            let place = &mut self.places[player];
            *place = [
                place[0] + i32::from(by[0]) - 1,
                place[1] + i32::from(by[1]) - 1,
            ];
            self.handled += 1;
            self.tells[player].publish(place.map(i32::to_le_bytes).as_flattened())
        })?;
        for (room, publisher) in (0..).zip(&mut self.rooms) {
            // Made where it will lie, once for all players of the room: nothing is copied.
            let mut view = publisher.claim(ROOM_BYTES)?;
            view.bytes().fill(room);
            view.commit(ROOM_BYTES)?;
        }
        Ok(())
    }
}

/// The board: who has moved since it last looked, once each.
struct Board {
    queue: Queue,
    _told: Subscription,
    places: Vec<Place>,
    looks: u64,
    updates: u64,
    replaced: u64,
}

impl Board {
    fn new(mq: &Client) -> Result<Self> {
        let queue = queue(mq, Policy::Latest, 0)?;
        Ok(Self {
            _told: listen_to(mq, "at.*", &queue, 0)?,
            queue,
            places: vec![[0; 2]; PLAYERS as usize],
            looks: 0,
            updates: 0,
            replaced: 0,
        })
    }

    fn look(&mut self) -> Result<()> {
        self.looks += 1;
        take(&self.queue, |place| {
            let player = place.subject().strip_prefix(b"at.").expect("at.PLAYER");
            let player: usize = String::from_utf8_lossy(player).parse().expect("a number");
            let (x, y) = place.payload().split_first_chunk().expect("a place");
            let y = y.try_into().expect("a place");
            self.places[player] = [i32::from_le_bytes(*x), i32::from_le_bytes(y)];
            self.updates += 1;
            self.replaced += u64::from(place.lost_before);
            Ok(())
        })
    }
}

fn main() -> Result<()> {
    let argument = std::env::args().nth(1).unwrap_or_else(|| "3".to_owned());
    let is_check = argument == "--check";
    let seconds = argument.parse().unwrap_or(1);
    let ticks = if is_check { 20 } else { seconds * TICKS_PER_S };
    let mq = Client::open(Options::default())?;
    let (mut players, mut game, mut board) =
        (Players::new(&mq)?, Game::new(&mq)?, Board::new(&mq)?);
    let begun = Instant::now();
    for tick in 1..=ticks {
        players.press(tick)?;
        game.tick()?;
        players.look()?;
        if tick % BOARD_EVERY == 0 {
            board.look()?;
        }
        if !is_check {
            let next = begun + Duration::from_secs(1) * tick / TICKS_PER_S;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    board.look()?;

    let (heard, saw) = (game.inputs.statistics(), players.sight.statistics());
    println!(
        "{ticks} ticks of {ROOMS} rooms with {} players",
        PLAYERS / ROOMS
    );
    println!(
        "inputs: {} handled, {} dropped as too old",
        game.handled, heard.dropped
    );
    println!(
        "views of rooms: {} seen, {} dropped as too old",
        players.seen, saw.dropped
    );
    println!(
        "board: {} looks, {} places seen, {} replaced by newer ones",
        board.looks, board.updates, board.replaced
    );
    let sent = u64::from(ticks) * u64::from(PLAYERS);
    assert_eq!(game.handled + heard.dropped, sent);
    assert_eq!(players.seen + saw.dropped, sent);
    assert_eq!(board.updates + board.replaced, game.handled);
    assert_eq!(board.places, game.places);
    println!("every message is accounted for");
    Ok(())
}

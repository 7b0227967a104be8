//! What is measured: the words of the command line, and the rows that follow from them.

use std::fmt;
use std::str::FromStr;

use clap::ArgMatches;
use fastmq::Profile;
use fastmq::border::core_count;

/// Smallest payload: a message has its number in it.
pub(super) const SIZE_MIN: usize = 8;
/// Largest payload.
pub(super) const SIZE_MAX: usize = 1 << 20;

/// A word of the command line that is one of a few.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $name { $($(#[$what])* $word,)+ }

        impl $name {
            pub(super) const ALL: &[$name] = &[$($name::$word,)+];

            pub(super) fn name(self) -> &'static str {
                match self { $($name::$word => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|word| word.name() == text);
                found.copied().ok_or_else(|| {
                    let words: Vec<&str> = Self::ALL.iter().map(|word| word.name()).collect();
                    format!("it may be {}", words.join(", "))
                })
            }
        }
    };
}

words! {
    /// What is measured.
    Case {
        /// Questions that the asker's own thread answers.
        Inline = "inline",
        /// Questions and their answers, many in flight.
        RequestReply = "request-reply",
        /// One question and its answer at a time.
        RoundTrip = "round-trip",
        /// Messages one way, as many as go.
        PubSub = "pub-sub",
        /// One publisher, many connections that all get everything.
        FanOut = "fan-out",
        /// Questions at a fixed rate, and how late their answers are.
        Latency = "latency",
        /// Players who send, rooms who send to their players, both by the tick.
        Game = "game",
    }
}

words! {
    /// How the load reaches the broker.
    Over {
        /// It is in the same process.
        Embedded = "embedded",
        /// Memory that two processes share.
        Shm = "shm",
        /// A Unix socket.
        Unix = "unix",
        /// TCP over the loopback interface.
        Tcp = "tcp",
    }
}

words! {
    /// Who answers, or listens.
    Responder {
        /// A service in the broker's process.
        Broker = "broker",
        /// A process of its own.
        Third = "third",
        /// Another connection of the load.
        Load = "load",
    }
}

words! {
    /// What is spoken with the server.
    Protocol {
        /// The native protocol.
        Fastmq = "fastmq",
        /// That of nats-server.
        Nats = "nats",
        /// RESP 2, of redis-server.
        Redis = "redis",
        /// MQTT 3.1.1, of mosquitto.
        Mqtt = "mqtt",
    }
}

words! {
    /// What the load is made with.
    Maker {
        /// The client library.
        Library = "library",
        /// Frames of the protocol, written and read by the bench itself.
        Frames = "frames",
    }
}

words! {
    /// How everybody waits.
    Waiting {
        /// Spins a while, then sleeps.
        Adaptive = "adaptive",
        /// Never sleeps.
        Busy = "busy",
        /// Sleeps at once.
        Parked = "parked",
    }
}

words! {
    /// Which tier of the driver the server's sockets have.
    Tier {
        /// The best that there is.
        Best = "best",
        /// A completion ring.
        Uring = "uring",
        /// A ring that knows no provided buffers.
        UringBasic = "uring-basic",
        /// Calls on ready sockets.
        Epoll = "epoll",
    }
}

impl Waiting {
    pub(super) fn profile(self) -> Profile {
        match self {
            Waiting::Adaptive => Profile::Balanced,
            Waiting::Busy => Profile::BusyPoll,
            Waiting::Parked => Profile::LowPower,
        }
    }
}

/// A core by number; `None`: wherever the kernel likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Core(pub(super) Option<usize>);

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(core) => write!(f, "{core}"),
            None => f.write_str("any"),
        }
    }
}

impl FromStr for Core {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" {
            return Ok(Core(None));
        }
        let core = text.parse().map_err(|_| "it is a core's number, or any")?;
        Ok(Core(Some(core)))
    }
}

/// Where the threads run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores {
    pub(super) server: Core,
    pub(super) load: Core,
    /// The responder or subscriber in a third process.
    pub(super) third: Core,
}

/// The case `game`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Game {
    pub(super) players: u32,
    pub(super) rooms: u32,
    pub(super) ticks_per_second: u32,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) cases: Vec<Case>,
    pub(super) overs: Vec<Over>,
    pub(super) responders: Vec<Responder>,
    pub(super) makers: Vec<Maker>,
    pub(super) waits: Vec<Waiting>,
    pub(super) tiers: Vec<Tier>,
    pub(super) outstanding: Vec<u32>,
    /// Requests a second, of the case `latency`.
    pub(super) rates: Vec<u32>,
    /// Connections that get everything, of the case `fan-out`.
    pub(super) connections: Vec<u32>,
    /// Messages of a tick of the case `fan-out`.
    pub(super) burst: u32,
    pub(super) game: Game,
    pub(super) sizes: Vec<usize>,
    pub(super) subjects: u32,
    /// Of the server that is started.
    pub(super) shards: u32,
    pub(super) seconds: f64,
    pub(super) rounds: u32,
    pub(super) cores: Cores,
    pub(super) protocol: Protocol,
    /// A server that is there already.
    pub(super) server: Option<String>,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) case: Case,
    pub(super) protocol: Protocol,
    pub(super) over: Over,
    pub(super) responder: Responder,
    pub(super) maker: Maker,
    pub(super) wait: Waiting,
    /// How load and third process wait: those who share a core do not spin, unless they must.
    pub(super) load_wait: Waiting,
    pub(super) tier: Tier,
    /// Requests in flight, requests a second, connections: by its case.
    pub(super) amount: u32,
    pub(super) size: usize,
}

impl Row {
    /// Its name, of which there is one in a table.
    pub(super) fn name(&self) -> String {
        let mut name = format!("{}, {}", self.case, self.over);
        if self.protocol != Protocol::Fastmq {
            name = format!("{}, {}", self.protocol, name);
        }
        name += match (self.case, self.responder) {
            (Case::Inline | Case::FanOut, _) => "",
            (_, Responder::Load) => ", to the load",
            (Case::PubSub, Responder::Broker) => ", into the broker",
            (Case::Game, Responder::Broker) => ", rooms in the broker",
            (Case::Game, Responder::Third) => ", rooms in a third process",
            (_, Responder::Broker) => ", in the broker",
            (_, Responder::Third) => ", routed",
        };
        if self.over != Over::Embedded {
            name += &format!(", by {}", self.maker);
        }
        name += &match self.case {
            Case::RequestReply => format!(", {} outstanding", self.amount),
            Case::PubSub if self.responder == Responder::Load => {
                format!(", {} outstanding", self.amount)
            }
            Case::Latency => format!(", {}/s", self.amount),
            Case::FanOut => format!(", {} connections", self.amount),
            Case::Game => format!(", {} players", self.amount),
            _ => String::new(),
        };
        name += &format!(", {} B, {}", self.size, self.wait);
        match self.tier {
            Tier::Best => name,
            tier => name + &format!(", server on {tier}"),
        }
    }
}

impl Plan {
    pub(super) fn of(arguments: &ArgMatches) -> Self {
        fn many<T: Clone + Send + Sync + 'static>(arguments: &ArgMatches, name: &str) -> Vec<T> {
            let values = arguments.get_many::<T>(name);
            values
                .map(|values| values.cloned().collect())
                .unwrap_or_default()
        }
        fn one<T: Copy + Send + Sync + 'static>(arguments: &ArgMatches, name: &str, or: T) -> T {
            arguments.get_one::<T>(name).copied().unwrap_or(or)
        }
        let server = arguments.get_one::<String>("server").cloned();
        let overs = match &server {
            Some(url) if url.starts_with("unix:") => vec![Over::Unix],
            Some(url) if url.starts_with("shm:") => vec![Over::Shm],
            Some(_) => vec![Over::Tcp],
            None => many(arguments, "over"),
        };
        let cores = core_count();
        // The third process shares the load's core where there are only two.
        let server_core = one(arguments, "server-core", Core((cores > 1).then_some(0)));
        let load = one(arguments, "load-core", Core((cores > 1).then_some(1)));
        let third = Core((cores > 2).then_some(2))
            .0
            .map_or(load, |core| Core(Some(core)));
        Self {
            cases: many(arguments, "case"),
            overs,
            responders: many(arguments, "responder"),
            makers: many(arguments, "client"),
            waits: many(arguments, "wait"),
            tiers: many(arguments, "driver"),
            outstanding: many(arguments, "outstanding"),
            rates: many(arguments, "rate"),
            connections: many(arguments, "connections"),
            burst: one(arguments, "burst", 16),
            game: Game {
                players: one(arguments, "players", 2000),
                rooms: one(arguments, "rooms", 100),
                ticks_per_second: one(arguments, "ticks", 20),
            },
            sizes: many(arguments, "size")
                .into_iter()
                .map(|size: u64| size as usize)
                .collect(),
            subjects: one(arguments, "subjects", 1),
            shards: one(arguments, "shards", 1),
            seconds: one(arguments, "seconds", 1.0),
            rounds: one(arguments, "rounds", 3),
            cores: Cores {
                server: server_core,
                load,
                third: one(arguments, "third-core", third),
            },
            protocol: one(arguments, "protocol", Protocol::Fastmq),
            server,
        }
    }

    /// The lines of the table: everything with everything, where that makes sense.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut add = |row: Row| {
            if self.makes_sense(&row) {
                rows.push(row);
            }
        };
        for &case in &self.cases {
            for &over in &self.overs {
                for &responder in &self.responders {
                    for &maker in &self.makers {
                        for &wait in &self.waits {
                            for &tier in &self.tiers {
                                self.sizes_of(case, responder, |amount, size| {
                                    add(Row {
                                        case,
                                        protocol: self.protocol,
                                        over,
                                        responder,
                                        maker,
                                        wait,
                                        load_wait: wait,
                                        tier,
                                        amount,
                                        size,
                                    });
                                });
                            }
                        }
                    }
                }
            }
        }
        for row in &mut rows {
            if matches!(row.case, Case::FanOut | Case::Game) {
                // The library has a thread for each connection.
                row.maker = Maker::Frames;
            }
            let is_shared = row.responder == Responder::Third
                && self.cores.third == self.cores.load
                && self.cores.load.0.is_some();
            if is_shared && row.wait == Waiting::Adaptive {
                row.load_wait = Waiting::Parked;
            }
            if !self.has_tier(row) {
                row.tier = Tier::Best;
            }
        }
        rows
    }

    fn sizes_of(&self, case: Case, responder: Responder, mut add: impl FnMut(u32, usize)) {
        let amounts = match case {
            Case::RequestReply => self.outstanding.as_slice(),
            Case::PubSub if responder == Responder::Load => &self.outstanding,
            Case::Latency => &self.rates,
            Case::FanOut => &self.connections,
            Case::Game => &[self.game.players],
            Case::Inline | Case::RoundTrip | Case::PubSub => &[1],
        };
        for &amount in amounts {
            match case {
                Case::Game => add(amount, PLAYER_BYTES),
                _ => self.sizes.iter().for_each(|&size| add(amount, size)),
            }
        }
    }

    /// Whether the tier of the server is ours to choose: somebody else's has its own, and one
    /// process has no sockets.
    fn has_tier(&self, row: &Row) -> bool {
        self.server.is_none() && row.over != Over::Embedded
    }

    fn makes_sense(&self, row: &Row) -> bool {
        let is_ours = self.server.is_none();
        if row.protocol != Protocol::Fastmq {
            let is_comparable = match row.case {
                Case::RequestReply | Case::RoundTrip => row.responder == Responder::Third,
                Case::PubSub => row.responder == Responder::Load,
                _ => false,
            };
            return is_comparable && !is_ours && row.maker == Maker::Frames;
        }
        let is_first = row.maker == self.makers[0];
        if !self.has_tier(row) && row.tier != self.tiers[0] {
            return false;
        }
        if row.over == Over::Embedded {
            // One process, and nothing to make frames for.
            return is_ours
                && !matches!(row.case, Case::FanOut | Case::Game)
                && row.maker == Maker::Library
                && row.responder == Responder::Broker;
        }
        // The bench's own frames go over sockets.
        if row.over == Over::Shm
            && (row.maker == Maker::Frames || matches!(row.case, Case::FanOut | Case::Game))
        {
            return false;
        }
        match (row.case, row.responder) {
            (Case::Inline, _) => false,
            // All that listen are connections of the load.
            (Case::FanOut, responder) => is_first && responder == self.responders[0],
            (Case::PubSub, Responder::Load) => row.maker == Maker::Frames,
            (_, Responder::Load) => false,
            // In somebody else's server there is nothing of ours.
            (_, Responder::Broker) if !is_ours => false,
            (Case::Game, _) => is_first,
            _ => true,
        }
    }
}

/// What a player sends each tick.
pub(super) const PLAYER_BYTES: usize = 32;
/// What a room sends each tick.
pub(super) const ROOM_BYTES: usize = 512;

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
    }
}

words! {
    /// How the load reaches the broker.
    Over {
        /// It is in the same process.
        Embedded = "embedded",
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

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) cases: Vec<Case>,
    pub(super) overs: Vec<Over>,
    pub(super) responders: Vec<Responder>,
    pub(super) makers: Vec<Maker>,
    pub(super) waits: Vec<Waiting>,
    pub(super) outstanding: Vec<u32>,
    pub(super) sizes: Vec<usize>,
    pub(super) subjects: u32,
    pub(super) seconds: f64,
    pub(super) rounds: u32,
    pub(super) cores: Cores,
    /// A server that is there already.
    pub(super) server: Option<String>,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) case: Case,
    pub(super) over: Over,
    pub(super) responder: Responder,
    pub(super) maker: Maker,
    pub(super) wait: Waiting,
    pub(super) outstanding: u32,
    pub(super) size: usize,
}

impl Row {
    /// Its name, of which there is one in a table.
    pub(super) fn name(&self) -> String {
        let mut name = format!("{}, {}", self.case, self.over);
        if self.case != Case::Inline {
            name += match self.responder {
                Responder::Broker => ", in the broker",
                Responder::Third => ", routed",
            };
        }
        if self.over != Over::Embedded {
            name += &format!(", by {}", self.maker);
        }
        if self.case == Case::RequestReply {
            name += &format!(", {} outstanding", self.outstanding);
        }
        name + &format!(", {} B, {}", self.size, self.wait)
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
        let cores = core_count();
        // The third process shares the load's core where there are only two.
        let server = one(arguments, "server-core", Core((cores > 1).then_some(0)));
        let load = one(arguments, "load-core", Core((cores > 1).then_some(1)));
        let third = Core((cores > 2).then_some(2))
            .0
            .map_or(load, |core| Core(Some(core)));
        Self {
            cases: many(arguments, "case"),
            overs: many(arguments, "over"),
            responders: many(arguments, "responder"),
            makers: many(arguments, "client"),
            waits: many(arguments, "wait"),
            outstanding: many(arguments, "outstanding"),
            sizes: many(arguments, "size")
                .into_iter()
                .map(|size: u64| size as usize)
                .collect(),
            subjects: one(arguments, "subjects", 1),
            seconds: one(arguments, "seconds", 1.0),
            rounds: one(arguments, "rounds", 3),
            cores: Cores {
                server,
                load,
                third: one(arguments, "third-core", third),
            },
            server: arguments.get_one::<String>("server").cloned(),
        }
    }

    /// The lines of the table: everything with everything, where that makes sense.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for &case in &self.cases {
            for &over in &self.overs {
                for &responder in &self.responders {
                    for &maker in &self.makers {
                        for &wait in &self.waits {
                            self.sizes_of(case, |outstanding, size| {
                                let row = Row {
                                    case,
                                    over,
                                    responder,
                                    maker,
                                    wait,
                                    outstanding,
                                    size,
                                };
                                if self.makes_sense(&row) {
                                    rows.push(row);
                                }
                            });
                        }
                    }
                }
            }
        }
        rows
    }

    fn sizes_of(&self, case: Case, mut add: impl FnMut(u32, usize)) {
        for &size in &self.sizes {
            match case {
                Case::RequestReply => {
                    for &outstanding in &self.outstanding {
                        add(outstanding, size);
                    }
                }
                Case::Inline | Case::RoundTrip => add(1, size),
            }
        }
    }

    fn makes_sense(&self, row: &Row) -> bool {
        if row.over == Over::Embedded {
            // One process, and nothing to make frames for.
            return self.server.is_none()
                && row.maker == Maker::Library
                && row.responder == Responder::Broker;
        }
        if row.case == Case::Inline {
            return false;
        }
        // In somebody else's server there is no service of ours.
        self.server.is_none() || row.responder == Responder::Third
    }
}

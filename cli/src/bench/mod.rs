//! `fastmq bench`: how fast this machine is, in one process and between several.
//!
//! Every row is measured in turn, round by round, with a server and processes of its own; the
//! median of the rounds counts. Where the threads run is said and can be chosen. What crosses
//! cores depends on where the host puts them, so each round begins with the time that one cache
//! line takes there and back. Not here: comparison with others; `make bench` has it.

mod asking;
pub(crate) mod child;
mod clock;
mod dialect;
mod embedded;
mod fan_out;
mod game;
mod paced;
mod peers;
mod ping_pong;
mod plan;
mod plot;
mod pub_sub;
mod report;
mod streams;
mod wire;

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::thread;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use fastmq::border::{pin_current_thread, sockets};

use plan::{
    Case, Core, Maker, Over, Plan, Protocol, Responder, Row, SIZE_MAX, SIZE_MIN, Tier, Waiting,
};
use report::{Figure, Line};

/// Longest time that one row may take in one round.
const SECONDS_MAX: f64 = 60.0;
/// Most rounds.
const ROUNDS_MAX: i64 = 100;
/// Most requests in flight: a server takes no more of a connection.
const OUTSTANDING_MAX: i64 = 65_535;
/// Most requests a second of the case `latency`.
const RATE_MAX: i64 = 10_000_000;
/// Most connections: what a server takes by default, but for a few.
const CONNECTIONS_MAX: i64 = 65_000;
/// Most messages of a tick: their credit is there.
const BURST_MAX: i64 = 1024;
/// Most ticks a second.
const TICKS_MAX: i64 = 1000;
/// Most shards of a server.
const SHARDS_MAX: i64 = 64;
/// Most subjects: a server takes so many numbers.
const SUBJECTS_MAX: i64 = 4096;

/// The command line.
pub(crate) fn command() -> Command {
    let option = |name: &'static str, parser: ValueParser, help: &'static str| {
        Arg::new(name).long(name).value_parser(parser).help(help)
    };
    let list = |name, parser, default, help| {
        let default: &'static str = default;
        option(name, parser, help)
            .action(ArgAction::Append)
            .value_delimiter(',')
            .default_value(default)
    };
    Command::new("bench")
        .about("Measures this machine: rates and latencies, in one process and between several")
        .arg(
            Arg::new("case")
                .value_parser(words(Case::ALL, Case::name))
                .action(ArgAction::Append)
                .default_values(["request-reply", "round-trip"])
                .help("What to measure"),
        )
        .args([
            list(
                "over",
                words(Over::ALL, Over::name),
                "embedded,shm,unix,tcp",
                "How the load reaches the broker",
            ),
            list(
                "responder",
                words(Responder::ALL, Responder::name),
                "broker,third",
                "Who answers or listens: the broker's process, a third one, or (pub-sub) the load",
            ),
            list(
                "client",
                words(Maker::ALL, Maker::name),
                "library",
                "What makes the load: the client library, or the bench's own frames",
            ),
            list(
                "wait",
                words(Waiting::ALL, Waiting::name),
                "adaptive",
                "How server and load wait",
            ),
            list(
                "driver",
                words(Tier::ALL, Tier::name),
                "best",
                "Tier of the sockets of the server that the bench starts",
            ),
            list(
                "outstanding",
                value_parser!(u32).range(1..=OUTSTANDING_MAX).into(),
                "512,4096",
                "Requests in flight",
            ),
            list(
                "rate",
                value_parser!(u32).range(1..=RATE_MAX).into(),
                "10000",
                "Requests a second of the case latency",
            ),
            list(
                "connections",
                value_parser!(u32).range(1..=CONNECTIONS_MAX).into(),
                "1000",
                "Connections of the case fan-out that get everything",
            ),
            option(
                "burst",
                value_parser!(u32).range(1..=BURST_MAX).into(),
                "Messages of a tick of the case fan-out",
            )
            .default_value("16"),
            option(
                "players",
                value_parser!(u32).range(1..=CONNECTIONS_MAX).into(),
                "Players of the case game",
            )
            .default_value("2000"),
            option(
                "rooms",
                value_parser!(u32).range(1..=CONNECTIONS_MAX).into(),
                "Rooms of the case game",
            )
            .default_value("100"),
            option(
                "ticks",
                value_parser!(u32).range(1..=TICKS_MAX).into(),
                "Ticks a second of the case game",
            )
            .default_value("20"),
            list(
                "size",
                value_parser!(u64)
                    .range(SIZE_MIN as u64..=SIZE_MAX as u64)
                    .into(),
                "16",
                "Bytes of a payload",
            ),
            option(
                "subjects",
                value_parser!(u32).range(1..=SUBJECTS_MAX).into(),
                "Subjects that are used in turn",
            )
            .default_value("1"),
            option(
                "shards",
                value_parser!(u32).range(1..=SHARDS_MAX).into(),
                "Shards of the server that the bench starts",
            )
            .default_value("1"),
            option("seconds", seconds(), "How long a row runs in each round").default_value("1"),
            option(
                "rounds",
                value_parser!(u32).range(1..=ROUNDS_MAX).into(),
                "Rounds, of which the median counts",
            )
            .default_value("3"),
            option(
                "server-core",
                value_parser!(Core).into(),
                "Core of the server: its number, or any [default: 0]",
            ),
            option(
                "load-core",
                value_parser!(Core).into(),
                "Core of the load [default: 1]",
            ),
            option(
                "third-core",
                value_parser!(Core).into(),
                "Core of the third process [default: 2 if there is one, else the load's]",
            ),
            Arg::new("server")
                .long("server")
                .value_name("URL")
                .help("Measure this server instead of one that the bench starts"),
            option(
                "protocol",
                words(Protocol::ALL, Protocol::name),
                "What the server speaks: with --server, --client frames and --responder third,load",
            )
            .default_value("fastmq"),
            Arg::new("json")
                .long("json")
                .help("Write JSON instead of a table")
                .action(ArgAction::SetTrue),
            Arg::new("plot")
                .long("plot")
                .value_name("FILE")
                .help("Draw rates and latencies into this file too, as SVG"),
        ])
}

/// A parser of one of a few words.
fn words<T>(all: &'static [T], name: fn(T) -> &'static str) -> ValueParser
where
    T: Copy + FromStr<Err = String> + Send + Sync + 'static,
{
    use clap::builder::TypedValueParser;
    let names: Vec<&'static str> = all.iter().map(|&word| name(word)).collect();
    let parser = clap::builder::PossibleValuesParser::new(names);
    ValueParser::new(parser.try_map(|text| T::from_str(&text)))
}

fn seconds() -> ValueParser {
    ValueParser::new(|text: &str| -> Result<f64, String> {
        match text.parse() {
            Ok(seconds) if seconds > 0.0 && seconds <= SECONDS_MAX => Ok(seconds),
            _ => Err(format!("it is more than 0 and at most {SECONDS_MAX}")),
        }
    })
}

/// Measures, and writes what it has found.
pub(crate) fn run(out: &mut dyn Write, arguments: &ArgMatches) -> io::Result<()> {
    let plan = Plan::of(arguments);
    let rows = plan.rows();
    if rows.is_empty() {
        let says = "no row is left: embedded goes with --client library, a server that is there \
                    with --responder third, the responder load with pub-sub and --client frames";
        return Err(io::Error::other(says));
    }
    let is_json = arguments.get_flag("json");
    let mut facts = vec![
        ("version", fastmq::VERSION.to_owned()),
        ("server core", plan.cores.server.to_string()),
        ("load core", plan.cores.load.to_string()),
        ("third core", plan.cores.third.to_string()),
        ("driver", driver()?.to_owned()),
    ];
    let mut lines: Vec<Line> = rows.iter().map(Line::of).collect();
    let mut calibrations = Vec::new();
    for round in 0..plan.rounds {
        calibrations.extend(apart(|| ping_pong::run(&plan.cores))?);
        for (index, row) in rows.iter().enumerate() {
            progress(&format!(
                "round {}/{}, row {}/{}: {}",
                round + 1,
                plan.rounds,
                index + 1,
                rows.len(),
                lines[index].name
            ));
            let figure = apart(|| measure(&plan, row));
            let explain =
                |error: io::Error| io::Error::other(format!("{}: {error}", lines[index].name));
            let figure = figure.map_err(explain)?;
            lines[index].figures.push(figure);
        }
    }
    progress("");
    let calibration = match report::middle(calibrations.clone()) {
        _ if calibrations.is_empty() => "not measured".to_owned(),
        (median, least, most) => format!("{median:.0} ns ({least:.0}–{most:.0})"),
    };
    facts.push(("cache line there and back", calibration));
    if let Some(path) = arguments.get_one::<String>("plot") {
        let facts: Vec<String> = facts
            .iter()
            .map(|(name, fact)| format!("{name} {fact}"))
            .collect();
        plot::write(path, &format!("fastmq bench: {}", facts.join(", ")), &lines)?;
    }
    if is_json {
        return report::json(out, &facts, &lines);
    }
    for (name, value) in &facts {
        writeln!(out, "{name}: {value}")?;
    }
    writeln!(out)?;
    report::table(out, &lines)
}

impl Line {
    fn of(row: &Row) -> Self {
        Self {
            name: row.name(),
            figures: Vec::new(),
        }
    }
}

/// Runs `body` on a thread of its own. It may pin that, and the processes that are started next
/// still have all cores.
fn apart<R: Send>(body: impl FnOnce() -> io::Result<R> + Send) -> io::Result<R> {
    thread::scope(|scope| {
        let panicked = |_| io::Error::other("a thread of the bench has panicked");
        scope.spawn(body).join().map_err(panicked)?
    })
}

fn measure(plan: &Plan, row: &Row) -> io::Result<Figure> {
    if row.protocol != Protocol::Fastmq {
        return peers::measure(plan, row);
    }
    match row.case {
        Case::Inline => embedded::inline(plan, row),
        Case::RequestReply | Case::RoundTrip => asking::measure(plan, row),
        Case::PubSub => pub_sub::measure(plan, row),
        Case::FanOut => fan_out::measure(plan, row),
        Case::Latency => paced::measure(plan, row),
        Case::Game => game::measure(plan, row),
    }
}

/// The driver of sockets that server and load have.
fn driver() -> io::Result<&'static str> {
    let opened = sockets::open(&sockets::Config::default())?;
    Ok(opened.sockets.tier().name())
}

/// Where it is, on a terminal.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        // Whoever has closed the terminal does not miss it.
        let _ = write!(io::stderr(), "\r\x1b[K{text}");
    }
}

/// Binds the calling thread, and those that it starts, to a core.
fn pin(core: Core) -> io::Result<()> {
    let Some(core) = core.0 else {
        return Ok(());
    };
    let explain = |error| io::Error::other(format!("core {core} cannot be used: {error}"));
    pin_current_thread(core).map_err(explain)
}

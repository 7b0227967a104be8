//! `fastmq serve`: a broker that other processes use, until SIGTERM or SIGINT.

use std::io::{self, Write};
use std::num::NonZero;
use std::thread;

use crate::remote::URL_DEFAULT;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use fastmq::border::signals::EndSignals;
use fastmq::{Client, Options, SHARDS_MAX, ServerOptions, log};

/// How long a drain waits for the clients, at most.
const DRAIN_SECONDS_MAX: u64 = 3600;
const SECOND_NS: u64 = 1_000_000_000;
/// Threads if nobody says, at most; one on machines of one or two cores.
const SHARDS_DEFAULT_MAX: usize = 16;

/// The command line.
pub(crate) fn command() -> Command {
    let listen = Arg::new("listen")
        .long("listen")
        .value_name("URL")
        .help("unix:PATH or tcp://HOST:PORT; may be given several times")
        .action(ArgAction::Append)
        .default_value(URL_DEFAULT);
    let token_file = Arg::new("token-file")
        .long("token-file")
        .value_name("FILE")
        .help("What clients must know: the content of this file, without white space at its end");
    let insecure = Arg::new("insecure")
        .long("insecure")
        .help("Listen where other machines reach it, though all is sent in the clear")
        .action(ArgAction::SetTrue);
    let drain = Arg::new("drain-seconds")
        .long("drain-seconds")
        .help("How long clients have to finish after SIGTERM or SIGINT")
        .default_value("10")
        .value_parser(value_parser!(u64).range(0..=DRAIN_SECONDS_MAX));
    let shards = Arg::new("shards")
        .long("shards")
        .help(
            "Threads that serve connections [default: one for each core, at most 16; 1 on one or \
             two cores]",
        )
        .value_parser(value_parser!(u32).range(1..=i64::from(SHARDS_MAX)));
    Command::new("serve")
        .about("Serves other processes until SIGTERM or SIGINT")
        .args([listen, token_file, insecure, drain, shards])
}

/// One thread for each core, but one alone where there are no more than two: clients need some.
fn shards_default() -> u32 {
    match thread::available_parallelism().map_or(1, NonZero::get) {
        ..=2 => 1,
        cores => cores.min(SHARDS_DEFAULT_MAX) as u32,
    }
}

/// Serves until it is asked to end.
pub(crate) fn run(out: &mut dyn Write, arguments: &ArgMatches) -> crate::failure::Outcome {
    let ends = EndSignals::hold_back()?;
    let options = ServerOptions {
        token: match arguments.get_one::<String>("token-file") {
            Some(path) => crate::remote::token_in(path)?,
            None => Vec::new(),
        },
        shards: match arguments.get_one("shards") {
            Some(shards) => *shards,
            None => shards_default(),
        },
        is_insecure_allowed: arguments.get_flag("insecure"),
        ..ServerOptions::default()
    };
    let hook = log::hook(|level, target, text| {
        let _ = writeln!(io::stderr(), "fastmq: {level:?}: {target}: {text}");
    });
    log::set(log::Level::Info as u32, Some(hook?));
    let urls: Vec<&str> = arguments
        .get_many::<String>("listen")
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let client = Client::open(Options::default())?;
    let server = client.listen(&urls, options)?;
    for url in server.urls() {
        writeln!(out, "listening at {url}")?;
    }
    out.flush()?;
    ends.wait()?;
    writeln!(out, "draining")?;
    out.flush()?;
    let seconds = arguments.get_one::<u64>("drain-seconds").copied();
    server.close(seconds.unwrap_or(0) * SECOND_NS);
    client.close();
    Ok(())
}

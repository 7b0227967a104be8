//! `fastmq serve`: a broker that other processes use, until SIGTERM or SIGINT.

use std::io::{self, Write};

use crate::remote::URL_DEFAULT;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use fastmq::border::signals::EndSignals;
use fastmq::{Client, Options, ServerOptions, log};

/// How long a drain waits for the clients, at most.
const DRAIN_SECONDS_MAX: u64 = 3600;
const SECOND_NS: u64 = 1_000_000_000;

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
    Command::new("serve")
        .about("Serves other processes until SIGTERM or SIGINT")
        .args([listen, token_file, insecure, drain])
}

/// Serves until it is asked to end.
pub(crate) fn run(out: &mut dyn Write, arguments: &ArgMatches) -> crate::failure::Outcome {
    let ends = EndSignals::hold_back()?;
    let options = ServerOptions {
        token: match arguments.get_one::<String>("token-file") {
            Some(path) => crate::remote::token_in(path)?,
            None => Vec::new(),
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

//! The `fastmq` command: what version this is, what this machine offers, how fast it goes, and a
//! server.
//!
//! It uses the crate `fastmq` alone, as any program would. Each command stands in a module of its
//! own and writes to standard output; errors go to standard error with a non-zero exit code.

#![forbid(unsafe_code)]

mod bench;
mod doctor;
mod serve;
mod version;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Arg, Command, value_parser};

/// Longest time that one row of the bench may take.
const SECONDS_MAX: u64 = 60;

fn command() -> Command {
    let seconds = Arg::new("seconds")
        .long("seconds")
        .help("How long each row runs")
        .default_value("1")
        .value_parser(value_parser!(u64).range(1..=SECONDS_MAX));
    Command::new("fastmq")
        .version(fastmq::VERSION)
        .about("A message queue in your process, and between processes")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("version").about("Shows the versions of the library and its ABI"))
        .subcommand(Command::new("doctor").about("Shows what this machine offers the library"))
        .subcommand(
            Command::new("bench")
                .about("Measures this machine, in one process")
                .arg(seconds),
        )
        .subcommand(serve::command())
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let mut out = io::stdout().lock();
    let result = match matches.subcommand() {
        Some(("version", _)) => version::run(&mut out),
        Some(("doctor", _)) => doctor::run(&mut out),
        Some(("bench", arguments)) => {
            let seconds = arguments.get_one::<u64>("seconds").copied().unwrap_or(1);
            bench::run(&mut out, seconds)
        }
        Some(("serve", arguments)) => serve::run(&mut out, arguments),
        _ => Ok(()),
    };
    match result.and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // `fastmq doctor | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "fastmq: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_row_runs_for_one_second_to_a_minute() {
        let check = |seconds: &str, is_fine: bool| {
            let parsed = command().try_get_matches_from(["fastmq", "bench", "--seconds", seconds]);
            assert_eq!(parsed.is_ok(), is_fine, "{seconds}");
        };
        check("1", true);
        check("60", true);
        check("0", false);
        check("61", false);
        check("fast", false);
    }
}

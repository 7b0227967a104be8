//! The `fastmq` command: what version this is, what this machine offers, how fast it goes, and a
//! server.
//!
//! It uses the crate `fastmq` as any program would; the bench also `fastmq-wire`, to load servers
//! with frames of its own. Each command stands in a module of its own and writes to standard
//! output; errors go to standard error with a non-zero exit code.

#![forbid(unsafe_code)]

mod bench;
mod doctor;
mod serve;
mod version;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Command;

fn command() -> Command {
    Command::new("fastmq")
        .version(fastmq::VERSION)
        .about("A message queue in your process, and between processes")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("version").about("Shows the versions of the library and its ABI"))
        .subcommand(Command::new("doctor").about("Shows what this machine offers the library"))
        .subcommand(bench::command())
        .subcommand(bench::child::command())
        .subcommand(serve::command())
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let mut out = io::stdout().lock();
    let result = match matches.subcommand() {
        Some(("version", _)) => version::run(&mut out),
        Some(("doctor", _)) => doctor::run(&mut out),
        Some(("bench", arguments)) => bench::run(&mut out, arguments),
        Some((bench::child::COMMAND, arguments)) => bench::child::run(&mut out, arguments),
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
}

//! The `fastmq` command: what version this is, what this machine offers, how fast it goes, a
//! server, its configuration, and clients of one for the shell.
//!
//! It uses the crate `fastmq` as any program would; the bench also `fastmq-wire`, to load servers
//! with frames of its own. Each command stands in a module of its own and writes to standard
//! output; errors go to standard error with an exit code of `docs/reference/cli.md`.

#![forbid(unsafe_code)]

mod bench;
mod config;
mod configuration;
mod doctor;
mod failure;
mod notify;
mod output;
mod process;
mod publish;
mod remote;
mod reply;
mod request;
mod root;
mod serve;
mod shell;
mod subscribe;
mod top;
mod version;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgMatches, Command};

use failure::Outcome;

fn command() -> Command {
    Command::new("fastmq")
        .version(fastmq::VERSION)
        .about("A message queue in your process, and between processes")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("version").about("Shows the versions of the library and its ABI"))
        .subcommand(doctor::command())
        .subcommand(bench::command())
        .subcommand(bench::child::command())
        .subcommand(serve::command())
        .subcommand(publish::command())
        .subcommand(subscribe::command())
        .subcommand(request::command())
        .subcommand(reply::command())
        .subcommand(top::command())
        .subcommand(config::command())
        .subcommand(shell::completions())
        .subcommand(shell::man())
}

fn run(out: &mut dyn Write, matches: &ArgMatches) -> Outcome {
    match matches.subcommand() {
        Some(("version", _)) => version::run(out)?,
        Some(("doctor", arguments)) => doctor::run(out, arguments)?,
        Some(("bench", arguments)) => bench::run(out, arguments)?,
        Some((bench::child::COMMAND, arguments)) => bench::child::run(out, arguments)?,
        Some(("serve", arguments)) => serve::run(out, arguments)?,
        Some(("pub", arguments)) => publish::run(arguments)?,
        Some(("sub", arguments)) => subscribe::run(out, arguments)?,
        Some(("request", arguments)) => request::run(out, arguments)?,
        Some(("reply", arguments)) => reply::run(arguments)?,
        Some(("top", arguments)) => top::run(out, arguments)?,
        Some(("config", arguments)) => config::run(out, arguments)?,
        Some(("completions", arguments)) => shell::run_completions(out, command(), arguments)?,
        Some(("man", arguments)) => shell::run_man(out, command(), arguments)?,
        _ => {}
    }
    Ok(out.flush()?)
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let mut out = io::stdout().lock();
    match run(&mut out, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // What was said before the failure is seen before it.
            let _ = out.flush();
            if !failure.text().is_empty() {
                let _ = writeln!(io::stderr(), "fastmq: {}", failure.text());
            }
            failure.exit_code()
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

//! `fastmq completions` and `fastmq man`: what packages install beside the command.

use std::io::Write;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use crate::failure::{Failure, Outcome};

/// The command line of `completions`.
pub(crate) fn completions() -> Command {
    let shell = Arg::new("shell")
        .value_name("SHELL")
        .required(true)
        .value_parser(value_parser!(Shell));
    Command::new("completions")
        .about("Writes what completes this command's words in a shell")
        .arg(shell)
}

/// The command line of `man`.
pub(crate) fn man() -> Command {
    let page = Arg::new("page")
        .value_name("COMMAND")
        .help("The page of this command; that of fastmq if not given");
    Command::new("man")
        .about("Writes a man page: fastmq man sub | man -l -")
        .arg(page)
}

pub(crate) fn run_completions(
    out: &mut dyn Write,
    mut root: Command,
    arguments: &ArgMatches,
) -> Outcome {
    let mut script = Vec::new();
    if let Some(shell) = arguments.get_one::<Shell>("shell") {
        clap_complete::generate(*shell, &mut root, "fastmq", &mut script);
    }
    Ok(out.write_all(&script)?)
}

pub(crate) fn run_man(out: &mut dyn Write, mut root: Command, arguments: &ArgMatches) -> Outcome {
    root.build();
    let page = match arguments.get_one::<String>("page") {
        None => root,
        Some(name) => {
            let found = root.find_subcommand(name).cloned();
            let unknown = || Failure::usage(format!("there is no command `{name}`"));
            found
                .ok_or_else(unknown)?
                .display_name(format!("fastmq-{name}"))
        }
    };
    Ok(clap_mangen::Man::new(page).render(out)?)
}

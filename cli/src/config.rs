//! `fastmq config`: each setting, its value, and who has said so.

use std::io::Write;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use crate::configuration::{Configuration, Part, arguments};
use crate::failure::Outcome;

/// The command line.
pub(crate) fn command() -> Command {
    let json = Arg::new("json")
        .long("json")
        .help("A line of JSON for each setting")
        .action(ArgAction::SetTrue);
    Command::new("config")
        .about("Shows each setting, its value, and where that comes from")
        .arg(json)
        .args(arguments(Part::Server))
        .args(arguments(Part::Client).filter(|it| it.get_id() == "server"))
}

/// Writes the settings.
pub(crate) fn run(out: &mut dyn Write, matches: &ArgMatches) -> Outcome {
    let configuration = Configuration::load(Part::Both, matches)?;
    for entry in configuration.entries() {
        let (key, source) = (entry.setting.key, entry.source.to_string());
        if matches.get_flag("json") {
            let value = entry.value.as_ref().map_or(Value::Null, |it| it.json());
            let object = json!({"key": key, "value": value, "source": source});
            writeln!(out, "{object}")?;
            continue;
        }
        writeln!(out, "{key:<18} {:<32} {source}", entry.show())?;
    }
    Ok(())
}

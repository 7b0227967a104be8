//! `fastmq sub`: what is published, line by line.

use std::io::{BufWriter, Write};

use clap::{Arg, ArgAction, ArgMatches, Command};
use fastmq::{FOREVER_NS, Status, SubscribeOptions};

use crate::failure::{Failure, Outcome, code};
use crate::output::{self, Form};
use crate::remote::{self, Remote};

/// Messages that are taken at once.
const BATCH_MAX: usize = 256;

/// The command line.
pub(crate) fn command() -> Command {
    let pattern = Arg::new("pattern").value_name("PATTERN").required(true);
    let quiet = Arg::new("quiet")
        .long("quiet")
        .short('q')
        .help("Does not say when it has subscribed, nor that messages were lost")
        .action(ArgAction::SetTrue);
    Command::new("sub")
        .about("Shows the messages of a pattern")
        .args([pattern, group(), quiet])
        .arg(remote::count("count", "Ends after so many messages"))
        .arg(remote::seconds(
            "timeout",
            "Ends if nothing comes for so long",
        ))
        .args(output::arguments())
        .args(remote::arguments())
}

/// The group of a subscription.
pub(crate) fn group() -> Arg {
    Arg::new("group")
        .long("group")
        .value_name("NAME")
        .help("Shares the messages with the others of this group")
        .default_value("")
        .hide_default_value(true)
}

pub(crate) fn run(out: &mut dyn Write, arguments: &ArgMatches) -> Outcome {
    let text = |name| arguments.get_one::<String>(name).map_or("", String::as_str);
    let form = Form::of(arguments);
    let mut out = BufWriter::new(out);
    let is_quiet = arguments.get_flag("quiet");
    let timeout_ns = remote::ns(arguments, "timeout").unwrap_or(FOREVER_NS);
    let mut left = arguments.get_one::<u64>("count").copied();
    let remote = Remote::connect(arguments)?;
    let options = SubscribeOptions {
        group: text("group").as_bytes(),
        ..SubscribeOptions::default()
    };
    let subscription = remote.client.subscribe_with(text("pattern"), options)?;
    if !is_quiet {
        remote::note(&format!("subscribed to {}", text("pattern")));
    }
    while left != Some(0) {
        let most = left.map_or(BATCH_MAX, |left| left.min(BATCH_MAX as u64) as usize);
        let batch = match subscription.receive(most, timeout_ns) {
            // Without a wait, nothing there is no time left.
            Err(error) if error.status() == Status::Again => {
                return Err(Failure::new(code::TIMEOUT, "nothing has come"));
            }
            batch => batch?,
        };
        for view in batch.messages() {
            if view.lost_before > 0 && !is_quiet {
                remote::note(&format!("{} messages were lost", view.lost_before));
            }
            form.write(&mut out, view)?;
        }
        left = left.map(|left| left - batch.messages().len() as u64);
        drop(batch);
        out.flush()?;
    }
    drop(subscription);
    remote.close()
}

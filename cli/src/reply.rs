//! `fastmq reply`: answers with what was asked, or with what a command says.

use std::io::{self, Write};
use std::process::{Command as Process, Output, Stdio};
use std::thread;

use clap::{Arg, ArgMatches, Command};
use fastmq::{Client, FOREVER_NS, Status, SubscribeOptions, View};

use crate::failure::Outcome;
use crate::remote::{self, Remote};
use crate::subscribe::group;

/// Bytes of what a command says on standard error that go into an answer.
const SAID_MAX: usize = 4096;

/// The command line.
pub(crate) fn command() -> Command {
    let subject = Arg::new("subject").value_name("SUBJECT").required(true);
    let command = Arg::new("command")
        .long("command")
        .value_name("COMMAND")
        .help("Runs it by the shell for each request: payload in, answer out; fails: so does it");
    Command::new("reply")
        .about("Answers requests with what they ask, or with what a command says")
        .args([subject, command, group()])
        .arg(remote::count("count", "Ends after so many requests"))
        .args(remote::arguments())
}

pub(crate) fn run(arguments: &ArgMatches) -> Outcome {
    let text = |name| arguments.get_one::<String>(name).map_or("", String::as_str);
    let command = arguments.get_one::<String>("command");
    let mut left = arguments.get_one::<u64>("count").copied();
    let remote = Remote::connect(arguments)?;
    let options = SubscribeOptions {
        group: text("group").as_bytes(),
        ..SubscribeOptions::default()
    };
    let subscription = remote.client.subscribe_with(text("subject"), options)?;
    remote::note(&format!("answering {}", text("subject")));
    while left != Some(0) {
        let batch = subscription.receive(1, FOREVER_NS)?;
        for request in batch.messages() {
            // What nobody asks, a publish, has no answer.
            if request.token == 0 {
                continue;
            }
            let said = match command {
                Some(command) => answer(&remote.client, request, command),
                None => remote.client.reply(request.token, request.payload()),
            };
            if let Err(error) = said {
                remote::note(&format!("an answer was not sent: {}", error.text()));
            }
            left = left.map(|left| left - 1);
        }
    }
    drop(subscription);
    remote.close()
}

/// Answers by a command.
fn answer(client: &Client, request: &View, command: &str) -> fastmq::Result<()> {
    let failed = |why: String| {
        remote::note(&why);
        client.reply_with(request.token, Status::Internal, why, b"")
    };
    let output = match run_command(request, command) {
        Ok(output) => output,
        Err(error) => return failed(format!("the command cannot be run: {error}")),
    };
    if output.status.success() {
        let replied = client.reply(request.token, &output.stdout);
        return match replied {
            Err(error) if error.status() == Status::TooLarge => {
                client.reply_with(request.token, Status::TooLarge, "", b"")
            }
            replied => replied,
        };
    }
    let said = &output.stderr[..output.stderr.len().min(SAID_MAX)];
    let said = String::from_utf8_lossy(said.trim_ascii()).into_owned();
    match said.as_str() {
        "" => failed(format!("the command has failed: {}", output.status)),
        said => failed(format!("the command has failed: {}: {said}", output.status)),
    }
}

fn run_command(request: &View, command: &str) -> io::Result<Output> {
    let subject = String::from_utf8_lossy(request.subject()).into_owned();
    let mut child = Process::new("sh")
        .args(["-c", command])
        .env("FASTMQ_SUBJECT", subject)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let input = child.stdin.take();
    thread::scope(|scope| {
        // Beside the reading: a command may say much before it has read all.
        scope.spawn(move || {
            // One that does not want to read is no failure.
            let _ = input.map(|mut input| input.write_all(request.payload()));
        });
        child.wait_with_output()
    })
}

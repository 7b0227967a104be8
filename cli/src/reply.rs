//! `fastmq reply`: answers with what was asked, or with what a command says.

use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use clap::{Arg, ArgMatches, Command, value_parser};
use fastmq::{Client, FOREVER_NS, Status, SubscribeOptions, Subscription, View};

use crate::failure::Outcome;
use crate::process::{self, Ended, Job};
use crate::remote::{self, Remote};
use crate::subscribe::group;

/// How long a command may take, if nobody says.
const TIMEOUT_NS: u64 = 60_000_000_000;
/// Commands at once, at most.
const JOBS_MAX: u64 = 1024;

/// The command line.
pub(crate) fn command() -> Command {
    let subject = Arg::new("subject").value_name("SUBJECT").required(true);
    let command = Arg::new("command")
        .long("command")
        .value_name("COMMAND")
        .help("Runs it by the shell for each request: payload in, answer out; fails: so does it");
    let jobs = Arg::new("jobs")
        .long("jobs")
        .short('j')
        .value_name("NUMBER")
        .help("Commands that run at once; 1 if not given")
        .requires("command")
        .value_parser(value_parser!(u64).range(1..=JOBS_MAX));
    let timeout = remote::seconds("timeout", "How long a command may take; 60 if not given");
    Command::new("reply")
        .about("Answers requests with what they ask, or with what a command says")
        .args([subject, command, group(), jobs])
        .arg(timeout.requires("command"))
        .arg(remote::count("count", "Ends after so many requests"))
        .args(remote::arguments())
}

pub(crate) fn run(arguments: &ArgMatches) -> Outcome {
    let text = |name| arguments.get_one::<String>(name).map_or("", String::as_str);
    let left = arguments.get_one::<u64>("count").copied();
    let remote = Remote::connect(arguments)?;
    let client = &remote.client;
    let options = SubscribeOptions {
        group: text("group").as_bytes(),
        ..SubscribeOptions::default()
    };
    let subscription = client.subscribe_with(text("subject"), options)?;
    remote::note(&format!("answering {}", text("subject")));
    match arguments.get_one::<String>("command") {
        None => each_request(&subscription, left, |request| {
            tell(client.reply(request.token, request.payload()));
        })?,
        Some(command) => {
            let jobs = arguments.get_one::<u64>("jobs").copied().unwrap_or(1);
            let timeout_ns = remote::ns(arguments, "timeout").unwrap_or(TIMEOUT_NS);
            let answer = |job: &Job| tell(answer(client, job, command, timeout_ns));
            let (give, take) = mpsc::sync_channel(0);
            let take = Mutex::new(take);
            thread::scope(|scope| {
                for _ in 0..jobs {
                    scope.spawn(|| work(&take, &answer));
                }
                // Who is not taken at once waits in the queue, where its asker may give up.
                let end = each_request(&subscription, left, |request| give_to(&give, request));
                drop(give);
                end
            })?;
        }
    }
    drop(subscription);
    remote.close()
}

/// Hands on requests, until there were as many as wanted.
fn each_request(
    subscription: &Subscription,
    mut left: Option<u64>,
    mut body: impl FnMut(&View),
) -> Outcome {
    while left != Some(0) {
        let batch = subscription.receive(1, FOREVER_NS)?;
        for request in batch.messages() {
            // What nobody asks, a publish, has no answer.
            if request.token == 0 {
                continue;
            }
            body(request);
            left = left.map(|left| left - 1);
        }
    }
    Ok(())
}

fn give_to(give: &SyncSender<Job>, request: &View) {
    let job = Job {
        token: request.token,
        subject: String::from_utf8_lossy(request.subject()).into_owned(),
        payload: request.payload().to_vec(),
    };
    // The threads that take end after this one.
    let _ = give.send(job);
}

/// Runs one command after the other.
fn work(take: &Mutex<Receiver<Job>>, answer: &dyn Fn(&Job)) {
    loop {
        let taken = match take.lock() {
            Ok(take) => take.recv(),
            Err(_) => return,
        };
        match taken {
            Ok(job) => answer(&job),
            Err(_) => return,
        }
    }
}

fn tell(said: fastmq::Result<()>) {
    if let Err(error) = said {
        remote::note(&format!("an answer was not sent: {}", error.text()));
    }
}

/// Answers by a command.
fn answer(client: &Client, job: &Job, command: &str, timeout_ns: u64) -> fastmq::Result<()> {
    let failed = |status, why: String| {
        remote::note(&why);
        client.reply_with(job.token, status, why, b"")
    };
    let output = match process::run(job, command, timeout_ns) {
        Ok(Ended::ByItself(output)) => output,
        Ok(Ended::TooLate) => {
            return failed(Status::Timeout, "the command takes too long".to_owned());
        }
        Ok(Ended::TooLarge) => {
            return failed(Status::TooLarge, "the command says too much".to_owned());
        }
        Err(error) => {
            let why = format!("the command cannot be run: {error}");
            return failed(Status::Internal, why);
        }
    };
    if output.status.success() {
        return match client.reply(job.token, &output.stdout) {
            Err(error) if error.status() == Status::TooLarge => {
                client.reply_with(job.token, Status::TooLarge, "", b"")
            }
            replied => replied,
        };
    }
    let said = String::from_utf8_lossy(output.stderr.trim_ascii()).into_owned();
    let why = match said.as_str() {
        "" => format!("the command has failed: {}", output.status),
        said => format!("the command has failed: {}: {said}", output.status),
    };
    failed(Status::Internal, why)
}

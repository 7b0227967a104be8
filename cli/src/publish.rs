//! `fastmq pub`: one message, the same again, or one for each line.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::AtomicU32;

use clap::{Arg, ArgMatches, Command, value_parser};
use fastmq::{Driver, FOREVER_NS, Message, NullDriver};

use crate::failure::{Failure, Outcome};
use crate::remote::{self, Remote};

/// How long nobody is told how far it is, and how often afterwards.
const QUIET_NS: u64 = 1_000_000_000;
const EVERY_NS: u64 = 200_000_000;
const SECOND_NS: f64 = 1e9;

/// The command line.
pub(crate) fn command() -> Command {
    let subject = Arg::new("subject").value_name("SUBJECT").required(true);
    let payload = Arg::new("payload")
        .value_name("PAYLOAD")
        .help("What to publish; -: each line of standard input")
        .default_value("");
    let rate = Arg::new("rate")
        .long("rate")
        .value_name("NUMBER")
        .help("At most so many in a second")
        .value_parser(value_parser!(u64).range(1..=1_000_000_000));
    Command::new("pub")
        .about("Publishes a message, or one for each line of standard input")
        .args([subject, payload, remote::header_argument()])
        .arg(remote::count("count", "Publishes it so many times"))
        .arg(rate)
        .arg(remote::seconds("ttl", "How long it is worth delivering"))
        .args(remote::arguments())
}

pub(crate) fn run(arguments: &ArgMatches) -> Outcome {
    let text = |name| arguments.get_one::<String>(name).map_or("", String::as_str);
    let (subject, payload) = (text("subject"), text("payload"));
    let count = arguments.get_one::<u64>("count").copied();
    let is_lines = payload == "-";
    if is_lines && count.is_some() {
        return Err(Failure::usage(
            "--count does not go with -, which publishes each line once",
        ));
    }
    let headers = remote::headers(arguments)?;
    let blank = Message {
        ttl_ns: remote::ns(arguments, "ttl").unwrap_or(0),
        ..remote::message(subject, b"", &headers)
    };
    let remote = Remote::connect(arguments)?;
    let rate = arguments.get_one::<u64>("rate").copied();
    let mut pace = Pace::new(rate, count);
    let client = remote.client.clone();
    let mut publish = |payload: &[u8]| {
        pace.wait();
        let message = Message { payload, ..blank };
        Ok(client.publish_wait(&message, FOREVER_NS)?)
    };
    let published = match is_lines {
        true => remote::each_line(&mut publish),
        false => (0..count.unwrap_or(1)).try_for_each(|_| publish(payload.as_bytes())),
    };
    pace.end();
    published.and(remote.close())
}

/// When the next message may go, and how far it is.
struct Pace {
    rate: Option<u64>,
    total: Option<u64>,
    done: u64,
    clock: NullDriver,
    start_ns: u64,
    /// When it is shown next.
    show_ns: u64,
    /// Somebody sees it.
    is_shown: bool,
    has_shown: bool,
}

impl Pace {
    fn new(rate: Option<u64>, total: Option<u64>) -> Self {
        let clock = NullDriver::new();
        let start_ns = clock.monotonic_ns();
        Self {
            rate,
            total,
            done: 0,
            clock,
            start_ns,
            show_ns: start_ns + QUIET_NS,
            is_shown: io::stderr().is_terminal(),
            has_shown: false,
        }
    }

    fn wait(&mut self) {
        if let Some(rate) = self.rate {
            let due_ns = self.start_ns + (self.done as f64 * SECOND_NS / rate as f64) as u64;
            // Nobody wakes this word; a signal may.
            let word = AtomicU32::new(0);
            while self.clock.monotonic_ns() < due_ns {
                self.clock.park(&word, 0, due_ns);
            }
        }
        self.done += 1;
        // Without a rate the clock is read for one message in 64.
        if self.is_shown && (self.rate.is_some() || self.done.is_multiple_of(64)) {
            self.show();
        }
    }

    fn show(&mut self) {
        let now_ns = self.clock.monotonic_ns();
        if now_ns < self.show_ns {
            return;
        }
        self.show_ns = now_ns + EVERY_NS;
        self.has_shown = true;
        let rate = self.done as f64 * SECOND_NS / (now_ns - self.start_ns) as f64;
        let done = self.done;
        let part = match self.total {
            Some(total) => {
                let filled = (done * 30 / total) as usize;
                format!("[{:<30}] {done} of {total}", "#".repeat(filled))
            }
            None => format!("{done} messages"),
        };
        let _ = write!(io::stderr(), "\r\x1b[K{part}, {rate:.0}/s");
    }

    fn end(&self) {
        if self.has_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

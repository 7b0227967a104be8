//! `fastmq top`: what a server does, and who is slow, again and again.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::atomic::AtomicU32;

use clap::{Arg, ArgAction, ArgMatches, Command};
use fastmq::headers::Headers;
use fastmq::{Driver, NullDriver, SUBJECT_STATS, Status};
use serde_json::Value;

use crate::failure::{Failure, Outcome, code_of};
use crate::output::harmless;
use crate::remote::{self, Remote};

const INTERVAL_NS: u64 = 1_000_000_000;
const TIMEOUT_NS: u64 = 5_000_000_000;
const SECOND_NS: f64 = 1e9;
/// Rows of each table.
const ROWS_MAX: usize = 15;
/// Back to the first line, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The command line.
pub(crate) fn command() -> Command {
    let once = Arg::new("once")
        .long("once")
        .help("Shows it once; what is a rate otherwise is a sum since the server has started")
        .action(ArgAction::SetTrue);
    let json = Arg::new("json")
        .long("json")
        .help("A line of JSON each time")
        .action(ArgAction::SetTrue);
    Command::new("top")
        .about("Shows what a server does: rates, connections, patterns, and who is slow")
        .args([once, json])
        .arg(remote::seconds(
            "interval",
            "How long between two looks; 1 if not given",
        ))
        .args(remote::arguments())
}

pub(crate) fn run(out: &mut dyn Write, arguments: &ArgMatches) -> Outcome {
    let interval_ns = remote::ns(arguments, "interval").unwrap_or(INTERVAL_NS);
    let (is_once, is_json) = (arguments.get_flag("once"), arguments.get_flag("json"));
    let is_screen = std::io::stdout().is_terminal() && !is_once && !is_json;
    let remote = Remote::connect(arguments)?;
    let clock = NullDriver::new();
    let mut before: Option<Value> = None;
    loop {
        let now = look(&remote)?;
        // The server makes an answer anew a few times a second.
        let is_new = before.as_ref() != Some(&now);
        match (is_json, is_once) {
            (true, _) if is_new => writeln!(out, "{now}")?,
            (false, true) => out.write_all(table(&now, None).as_bytes())?,
            _ if !is_new => {}
            _ => {
                if is_screen {
                    out.write_all(CLEAR.as_bytes())?;
                }
                out.write_all(table(&now, before.as_ref()).as_bytes())?;
            }
        }
        out.flush()?;
        if is_once {
            return remote.close();
        }
        before = Some(now);
        let due_ns = clock.monotonic_ns().saturating_add(interval_ns);
        // Nobody wakes this word; a signal may.
        let word = AtomicU32::new(0);
        while clock.monotonic_ns() < due_ns {
            clock.park(&word, 0, due_ns);
        }
    }
}

/// Asks the server.
fn look(remote: &Remote) -> Outcome<Value> {
    let none = Headers::new();
    let question = remote::message(SUBJECT_STATS, b"", &none);
    let reply = remote.client.request(&question, TIMEOUT_NS)?;
    if reply.status != Status::Ok {
        let status = reply.status.c_name().to_string_lossy();
        let text = format!("the server does not tell its figures: {status}");
        return Err(Failure::new(code_of(reply.status), text));
    }
    let parsed = serde_json::from_slice(&reply.payload);
    parsed.map_err(|error| Failure::new(1, format!("the server's figures: {error}")))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

/// What is between two looks.
struct Rates<'v> {
    now: &'v Value,
    before: Option<&'v Value>,
    seconds: f64,
}

impl<'v> Rates<'v> {
    /// Of objects that have as many seconds between them.
    fn new(now: &'v Value, before: Option<&'v Value>, seconds: f64) -> Self {
        // Whoever has less than before has begun anew.
        let before = before.filter(|_| seconds > 0.0);
        Self {
            now,
            before,
            seconds,
        }
    }

    /// A rate, or the sum without an earlier look.
    fn show(&self, key: &str) -> String {
        let now = number(self.now, key);
        match self.before {
            None => short(now as f64),
            Some(before) => {
                let more = now.saturating_sub(number(before, key));
                format!("{}/s", short(more as f64 / self.seconds))
            }
        }
    }
}

/// A number in few characters.
fn short(number: f64) -> String {
    for (unit, size) in [("G", 1e9), ("M", 1e6), ("k", 1e3)] {
        if number >= size * 10.0 {
            return format!("{:.0} {unit}", number / size);
        }
        if number >= size {
            return format!("{:.1} {unit}", number / size);
        }
    }
    format!("{number:.0}")
}

fn table(now: &Value, before: Option<&Value>) -> String {
    let uptime_ns = number(now, "uptime_ns");
    let passed_ns = before.map_or(0, |it| uptime_ns.saturating_sub(number(it, "uptime_ns")));
    let seconds = passed_ns as f64 / SECOND_NS;
    let rates = Rates::new(now, before, seconds);
    let text = |value: &Value| harmless(value.as_str().unwrap_or("").as_bytes());
    let mut out = String::new();
    let name = match text(&now["name"]) {
        name if name.is_empty() => "server".to_owned(),
        name => name,
    };
    let cap = match number(now, "memory_max") {
        0 => String::new(),
        max => format!(" of {}B", short(max as f64)),
    };
    // Writing to a text cannot fail.
    let _ = writeln!(
        out,
        "{name} {}, up {} s, shards {}, memory {}B{cap}\n\
         published {}  delivered {}  requests {}  answers {}  dropped {}  refused {}\n\
         connections {} of {}, slow {}  subscriptions {}  queues {}\n",
        text(&now["version"]),
        uptime_ns / 1_000_000_000,
        number(now, "shards"),
        short(number(now, "memory") as f64),
        rates.show("published"),
        rates.show("delivered"),
        rates.show("requests"),
        rates.show("answers"),
        rates.show("dropped"),
        rates.show("refused"),
        number(now, "connections"),
        number(now, "connections_max"),
        number(now, "slow"),
        number(now, "subscriptions"),
        number(now, "queues"),
    );
    let _ = writeln!(
        out,
        "{:>8} {:<20} {:>6} {:>10} {:>10} {:>10} {:>10}  slow",
        "client", "name", "subs", "messages", "bytes in", "bytes out", "waiting"
    );
    let empty = Vec::new();
    let clients = now["clients"].as_array().unwrap_or(&empty);
    for client in clients.iter().take(ROWS_MAX) {
        let earlier = before.and_then(|it| it["clients"].as_array());
        let earlier = earlier.and_then(|all| all.iter().find(|it| it["id"] == client["id"]));
        let rates = Rates::new(client, earlier, seconds);
        let slow = match number(client, "slow_ns") {
            0 => String::new(),
            ns => format!("for {:.1} s", ns as f64 / SECOND_NS),
        };
        let _ = writeln!(
            out,
            "{:>8} {:<20.20} {:>6} {:>10} {:>10} {:>10} {:>10}  {slow}",
            number(client, "id"),
            text(&client["name"]),
            number(client, "subscriptions"),
            rates.show("received_messages"),
            rates.show("received_bytes"),
            rates.show("sent_bytes"),
            short(number(client, "waiting_bytes") as f64),
        );
    }
    let _ = writeln!(
        out,
        "\n{:<40} {:>8} {:>10} {:>10}",
        "pattern", "subs", "waiting", "dropped"
    );
    let patterns = now["patterns"].as_array().unwrap_or(&empty);
    for pattern in patterns.iter().take(ROWS_MAX) {
        let _ = writeln!(
            out,
            "{:<40.40} {:>8} {:>10} {:>10}",
            text(&pattern["pattern"]),
            number(pattern, "subscriptions"),
            short(number(pattern, "waiting_bytes") as f64),
            number(pattern, "dropped"),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn two_looks_make_a_rate() {
        let look = |uptime_s: u64, published: u64, bytes: u64| {
            json!({
                "version": "1", "uptime_ns": uptime_s * 1_000_000_000, "published": published,
                "clients": [{"id": 7, "name": "a\u{1b}", "received_bytes": bytes}],
                "patterns": [{"pattern": "x.>", "subscriptions": 2}],
            })
        };
        let (first, second) = (look(10, 1000, 50), look(12, 41_000, 250));
        let once = table(&first, None);
        assert!(once.contains("published 1.0 k "), "{once}");
        assert!(!once.contains("/s"), "{once}");
        assert!(!once.contains('\u{1b}'), "{once}");
        let shown = table(&second, Some(&first));
        assert!(shown.contains("published 20 k/s"), "{shown}");
        assert!(shown.contains("100/s"), "{shown}");
        assert!(shown.contains("x.>"), "{shown}");
    }

    #[test]
    fn numbers_are_short() {
        let check = |number, expected| assert_eq!(short(number), expected);
        check(0.0, "0");
        check(999.0, "999");
        check(1500.0, "1.5 k");
        check(25_000.0, "25 k");
        check(7.1e9, "7.1 G");
    }
}

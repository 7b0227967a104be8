//! The server that a command talks to.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Arg, ArgMatches, value_parser};
use fastmq::{Client, ConnectOptions, Event, Message, Status, headers::Headers};

use crate::configuration::{self, Configuration, Part};
use crate::failure::{Failure, Outcome, code};

/// The longest time that an option takes: a year.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;
const SECOND_NS: f64 = 1e9;

/// The options of each command that talks to a server.
pub(crate) fn arguments() -> impl Iterator<Item = Arg> {
    configuration::arguments(Part::Client)
}

/// A connection and what was lost on it.
pub(crate) struct Remote {
    pub(crate) client: Client,
    lost: Arc<Lost>,
}

/// What events have told.
#[derive(Default)]
struct Lost {
    unsent: AtomicU64,
    /// The exit code of the last refusal.
    refused: AtomicU64,
}

impl Remote {
    /// Connects, and says on standard error what happens to the connection later.
    pub(crate) fn connect(arguments: &ArgMatches) -> Outcome<Self> {
        let configuration = Configuration::load(Part::Client, arguments)?;
        let (url, token) = (configuration.text("url"), configuration.token()?);
        let lost = Arc::new(Lost::default());
        let events = lost.clone();
        let options = ConnectOptions {
            name: "fastmq".to_owned(),
            token,
            on_event: Some(Arc::new(move |event: &Event<'_>| tell(event, &events))),
            ..ConnectOptions::default()
        };
        let client = Client::connect(url, options);
        let client = client.map_err(|error| Failure::from(error).about(url))?;
        Ok(Self { client, lost })
    }

    /// Sends what was accepted, closes, and fails if some of it was lost or refused.
    pub(crate) fn close(self) -> Outcome {
        self.client.close();
        let unsent = self.lost.unsent.load(Ordering::SeqCst);
        if unsent > 0 {
            let text = format!("{unsent} messages were not sent: the connection was lost");
            return Err(Failure::new(code::NO_SERVER, text));
        }
        match self.lost.refused.load(Ordering::SeqCst) {
            0 => Ok(()),
            code => Err(Failure::told(code as u8)),
        }
    }
}

fn tell(event: &Event<'_>, lost: &Lost) {
    let text = match event {
        Event::Disconnected {
            status: Status::Closed,
            unsent,
            ..
        } => {
            lost.unsent.fetch_add(*unsent, Ordering::SeqCst);
            return;
        }
        Event::Disconnected { why, unsent, .. } => {
            lost.unsent.fetch_add(*unsent, Ordering::SeqCst);
            format!("disconnected: {why}")
        }
        Event::Connected {
            server,
            is_again: true,
            ..
        } => format!("connected again, to {server}"),
        Event::Refused {
            subject,
            status,
            why,
        } => {
            let code = u64::from(crate::failure::code_of(*status));
            lost.refused.store(code, Ordering::SeqCst);
            format!("{}: {why}", String::from_utf8_lossy(subject))
        }
        Event::Unsubscribed { why, .. } => format!("unsubscribed: {why}"),
        Event::Slow { bytes } => format!("too slow: {bytes} bytes wait at the server"),
        Event::Draining => "the server is about to close".to_owned(),
        _ => return,
    };
    note(&text);
}

/// Says something beside the command's output.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "fastmq: {text}");
}

/// An option that is a number of seconds, with a fraction if you like.
pub(crate) fn seconds(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("SECONDS")
        .help(help)
        .value_parser(ns_of)
}

/// Its value in nanoseconds.
pub(crate) fn ns(arguments: &ArgMatches, name: &str) -> Option<u64> {
    arguments.get_one::<u64>(name).copied()
}

fn ns_of(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok((seconds * SECOND_NS) as u64),
        _ => Err("a number of seconds, at least 0 and at most a year".to_owned()),
    }
}

/// An option that is a number above 0.
pub(crate) fn count(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("NUMBER")
        .help(help)
        .value_parser(value_parser!(u64).range(1..))
}

/// Headers of a message.
pub(crate) fn header_argument() -> Arg {
    Arg::new("header")
        .long("header")
        .short('H')
        .value_name("NAME=VALUE")
        .help("A header; may be given several times")
        .action(clap::ArgAction::Append)
}

/// The headers that were given, encoded.
pub(crate) fn headers(arguments: &ArgMatches) -> Outcome<Headers> {
    let mut headers = Headers::new();
    for text in arguments.get_many::<String>("header").into_iter().flatten() {
        let Some((name, value)) = text.split_once('=') else {
            let text = format!("`{text}` is no header; it is NAME=VALUE");
            return Err(Failure::usage(text));
        };
        headers.add(name.as_bytes(), value.as_bytes())?;
    }
    Ok(headers)
}

/// A message with a subject, a payload and headers.
pub(crate) fn message<'m>(
    subject: &'m str,
    payload: &'m [u8],
    headers: &'m Headers,
) -> Message<'m> {
    Message {
        subject: subject.as_bytes(),
        payload,
        headers: headers.as_bytes(),
        ..Message::default()
    }
}

/// Lines of standard input, without what ends them.
pub(crate) fn each_line(mut body: impl FnMut(&[u8]) -> Outcome) -> Outcome {
    use std::io::BufRead;
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let end = line.strip_suffix(b"\n").unwrap_or(&line);
        body(end.strip_suffix(b"\r").unwrap_or(end))?;
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_fraction_and_are_bounded() {
        let check = |text, expected| assert_eq!(ns_of(text).ok(), expected, "{text}");
        check("0", Some(0));
        check("0.25", Some(250_000_000));
        check("-1", None);
        check("1e99", None);
        check("NaN", None);
        check("soon", None);
    }
}

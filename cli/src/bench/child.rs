//! Processes of the bench: the server, and who answers or listens in a third process.
//!
//! A child is this program with the hidden command `bench-part`. It says one line when it is ready
//! and ends when its input does, which also happens when the bench is killed.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{self, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use clap::{Arg, ArgMatches, value_parser};
use fastmq::{Client, ConnectOptions, Delivery, Options, ServerOptions, SubscribeOptions};

use super::plan::{Core, Maker, Over, Plan, Row, Waiting};
use super::{asking, pin};

/// What the hidden command is called.
pub(crate) const COMMAND: &str = "bench-part";
/// What the service in the broker answers.
pub(super) const SERVED: &str = "bench.here";
/// What the responder in a third process answers.
pub(super) const ROUTED: &str = "bench.far";

/// A running part of the bench, which ends with this.
pub(super) struct Child {
    process: process::Child,
    out: BufReader<ChildStdout>,
}

/// A server to measure, and where it listens.
pub(super) struct Serving {
    pub(super) url: String,
    /// Ends the server when it goes; none for one that was there before.
    _child: Option<Child>,
}

impl Child {
    /// Starts a part and waits until it is ready; the line that it says then.
    pub(super) fn start(words: &[&str]) -> io::Result<(Self, String)> {
        let mut process = Command::new(env::current_exe()?)
            .arg(COMMAND)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = process.stdout.take();
        let out = out.ok_or_else(|| io::Error::other("a part of the bench has no output"))?;
        let mut child = Self {
            process,
            out: BufReader::new(out),
        };
        let line = child.line()?;
        Ok((child, line))
    }

    /// The next line that it says.
    pub(super) fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.out.read_line(&mut line)? == 0 {
            return Err(io::Error::other("a part of the bench has ended too soon"));
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The server of a row: the one that is there, or one of our own.
pub(super) fn server(plan: &Plan, row: &Row) -> io::Result<Serving> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if let Some(url) = &plan.server {
        return Ok(Serving {
            url: url.clone(),
            _child: None,
        });
    }
    let listen = match row.over {
        Over::Unix => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("fastmq-bench-{}-{number}.sock", process::id());
            format!("unix:{}", env::temp_dir().join(name).display())
        }
        _ => "tcp://127.0.0.1:0".to_owned(),
    };
    let (core, wait) = (plan.cores.server.to_string(), row.wait.name());
    let words = ["server", "--url", &listen, "--core", &core, "--wait", wait];
    let (child, url) = Child::start(&words)?;
    Ok(Serving {
        url,
        _child: Some(child),
    })
}

/// A responder in a process of its own.
pub(super) fn responder(plan: &Plan, row: &Row, url: &str) -> io::Result<Child> {
    let (core, wait, maker) = (
        plan.cores.third.to_string(),
        row.wait.name(),
        row.maker.name(),
    );
    let words = [
        "responder",
        "--url",
        url,
        "--core",
        &core,
        "--wait",
        wait,
        "--client",
        maker,
    ];
    Ok(Child::start(&words)?.0)
}

/// The hidden command line.
pub(crate) fn command() -> clap::Command {
    let text = |name: &'static str| Arg::new(name).long(name).required(true);
    clap::Command::new(COMMAND)
        .hide(true)
        .about("A process that fastmq bench starts")
        .arg(
            Arg::new("part")
                .required(true)
                .value_parser(["server", "responder"]),
        )
        .arg(text("url"))
        .arg(text("core").value_parser(value_parser!(Core)))
        .arg(text("wait").value_parser(value_parser!(Waiting)))
        .arg(
            text("client")
                .required(false)
                .value_parser(value_parser!(Maker)),
        )
}

/// Is a part of a bench until its input ends.
pub(crate) fn run(out: &mut dyn Write, arguments: &ArgMatches) -> io::Result<()> {
    let absent = || io::Error::other("a word is missing");
    let part: &String = arguments.get_one("part").ok_or_else(absent)?;
    let url: &String = arguments.get_one("url").ok_or_else(absent)?;
    let core: Core = *arguments.get_one("core").ok_or_else(absent)?;
    let wait: Waiting = *arguments.get_one("wait").ok_or_else(absent)?;
    let maker = arguments
        .get_one("client")
        .copied()
        .unwrap_or(Maker::Library);
    pin(core)?;
    match part.as_str() {
        "server" => serve(out, url, wait),
        _ => {
            asking::start_responder(url, wait, maker)?;
            ready(out, "ready")
        }
    }
}

/// Says that it is ready, and ends with its input.
fn ready(out: &mut dyn Write, line: &str) -> io::Result<()> {
    writeln!(out, "{line}")?;
    out.flush()?;
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A broker that listens, with a service that echoes.
fn serve(out: &mut dyn Write, url: &str, wait: Waiting) -> io::Result<()> {
    let options = Options {
        wait: wait.profile(),
        ..Options::default()
    };
    let client = Client::open(options).map_err(io::Error::other)?;
    let answering = client.clone();
    let echo = move |message: &fastmq::View| {
        let _ = answering.reply(message.token, message.payload());
    };
    let service = SubscribeOptions {
        delivery: Delivery::Inline,
        on_message: Some(Box::new(echo)),
        ..SubscribeOptions::default()
    };
    let _service = client
        .subscribe_with(format!("{SERVED}.*"), service)
        .map_err(io::Error::other)?;
    let options = ServerOptions {
        wait: wait.profile(),
        ..ServerOptions::default()
    };
    let server = client.listen(&[url], options).map_err(io::Error::other)?;
    ready(out, &server.urls()[0])?;
    server.close(0);
    client.close();
    Ok(())
}

/// The options of a client that waits so.
pub(super) fn connecting(wait: Waiting) -> ConnectOptions {
    ConnectOptions {
        broker: Options {
            wait: wait.profile(),
            ..Options::default()
        },
        name: "fastmq bench".to_owned(),
        ..ConnectOptions::default()
    }
}

//! Processes of the bench: the server, and who answers, listens or plays in a third process.
//!
//! A child is this program with the hidden command `bench-part`. It says one line when it is ready,
//! may be told lines, may say more, and ends when its input does, which also happens when the bench
//! is killed.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{self, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, value_parser};
use fastmq::border::{core_count, sockets};
use fastmq::{Client, ConnectOptions, Delivery, Options, Server, ServerOptions, SubscribeOptions};

use super::plan::{Core, Maker, Over, Plan, Protocol, Responder, Row, Tier, Waiting};
use super::{asking, game, peers, pin, pub_sub};

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
    pub(super) child: Option<Child>,
}

impl Child {
    /// Starts a part and waits until it is ready; the line that it says then.
    fn start(words: &[String], tier: Tier) -> io::Result<(Self, String)> {
        let mut command = Command::new(env::current_exe()?);
        if tier != Tier::Best {
            command.env(sockets::VARIABLE, tier.name());
        }
        let mut process = command
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

    /// Tells it a line.
    pub(super) fn tell(&mut self, line: &str) -> io::Result<()> {
        let gone = || io::Error::other("a part of the bench hears nothing");
        let input = self.process.stdin.as_mut().ok_or_else(gone)?;
        writeln!(input, "{line}")?;
        input.flush()
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
            child: None,
        });
    }
    let listen = match row.over {
        Over::Unix | Over::Shm => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("fastmq-bench-{}-{number}.sock", process::id());
            format!("{}:{}", row.over, env::temp_dir().join(name).display())
        }
        _ => "tcp://127.0.0.1:0".to_owned(),
    };
    let core = plan.cores.server;
    let words = words(plan, row, "server", &listen, core);
    let (child, url) = Child::start(&words, row.tier)?;
    Ok(Serving {
        url,
        child: Some(child),
    })
}

/// A part in a process of its own that uses a server.
pub(super) fn third(plan: &Plan, row: &Row, part: &str, url: &str) -> io::Result<Child> {
    let words = words(plan, row, part, url, plan.cores.third);
    Ok(Child::start(&words, Tier::Best)?.0)
}

/// The process that plays the other side of a row: the server itself, or a third one.
pub(super) fn other_side(
    plan: &Plan,
    row: &Row,
    part: &str,
    serving: &mut Serving,
) -> io::Result<Option<Child>> {
    match row.responder {
        Responder::Broker => Ok(serving.child.take()),
        Responder::Load => Ok(None),
        Responder::Third => third(plan, row, part, &serving.url).map(Some),
    }
}

fn words(plan: &Plan, row: &Row, part: &str, url: &str, core: Core) -> [String; 9] {
    let game = plan.game;
    let wait = match part {
        "server" => row.wait,
        _ => row.load_wait,
    };
    [
        part.to_owned(),
        format!("--url={url}"),
        format!("--core={core}"),
        format!("--wait={wait}"),
        format!("--client={}", row.maker),
        format!("--protocol={}", row.protocol),
        format!("--rooms={}", game.rooms),
        format!("--ticks={}", game.ticks_per_second),
        format!("--shards={}", plan.shards),
    ]
}

/// What a part is told at its start.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    pub(super) url: String,
    pub(super) wait: Waiting,
    pub(super) maker: Maker,
    pub(super) protocol: Protocol,
    pub(super) rooms: u32,
    pub(super) ticks_per_second: u32,
    shards: u32,
}

/// How a part talks with the bench, from any thread.
#[derive(Clone, Debug)]
pub(super) struct Says(mpsc::Sender<Option<String>>);

impl Says {
    /// Says a line. Nobody misses it once the part ends.
    pub(super) fn line(&self, line: String) {
        let _ = self.0.send(Some(line));
    }
}

/// The hidden command line.
pub(crate) fn command() -> clap::Command {
    let text = |name: &'static str| Arg::new(name).long(name).required(true);
    let number: fn() -> ValueParser = || value_parser!(u32).into();
    clap::Command::new(COMMAND)
        .hide(true)
        .about("A process that fastmq bench starts")
        .arg(Arg::new("part").required(true).value_parser([
            "server",
            "responder",
            "subscriber",
            "rooms",
        ]))
        .arg(text("url"))
        .arg(text("core").value_parser(value_parser!(Core)))
        .arg(text("wait").value_parser(value_parser!(Waiting)))
        .arg(text("client").value_parser(value_parser!(Maker)))
        .arg(text("protocol").value_parser(value_parser!(Protocol)))
        .arg(text("rooms").value_parser(number()))
        .arg(text("ticks").value_parser(number()))
        .arg(text("shards").value_parser(number()))
}

/// Is a part of a bench until its input ends.
pub(crate) fn run(out: &mut dyn Write, arguments: &ArgMatches) -> io::Result<()> {
    fn word<T: Clone + Send + Sync + 'static>(arguments: &ArgMatches, name: &str) -> io::Result<T> {
        let value = arguments.get_one::<T>(name).cloned();
        value.ok_or_else(|| io::Error::other(format!("{name} is missing")))
    }
    let orders = Orders {
        url: word(arguments, "url")?,
        wait: word(arguments, "wait")?,
        maker: word(arguments, "client")?,
        protocol: word(arguments, "protocol")?,
        rooms: word(arguments, "rooms")?,
        ticks_per_second: word(arguments, "ticks")?,
        shards: word(arguments, "shards")?,
    };
    // Who is on one core does not spin unless he knows that there are more.
    let _ = core_count();
    pin(word(arguments, "core")?)?;
    let (says, said) = mpsc::channel();
    let (tells, told) = mpsc::channel();
    let ends = says.clone();
    let says = Says(says);
    let part: String = word(arguments, "part")?;
    let mut serving = None;
    match part.as_str() {
        "server" => serving = Some(serve(&orders, &says, told)?),
        "responder" if orders.protocol != Protocol::Fastmq => peers::start_responder(&orders)?,
        "responder" => asking::start_responder(&orders)?,
        "subscriber" => pub_sub::start_subscriber(&orders, &says)?,
        _ => {
            let client = connect(&orders)?;
            game::start_rooms(&client, &orders, &says, told)?;
        }
    }
    match &serving {
        Some((_, server)) => says.line(server.urls()[0].clone()),
        None => says.line("ready".to_owned()),
    }
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if tells.send(line).is_err() {
                break;
            }
        }
        let _ = ends.send(None);
    });
    while let Ok(Some(line)) = said.recv() {
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    if let Some((client, server)) = serving {
        server.close(0);
        client.close();
    }
    Ok(())
}

/// A broker that listens, with all that may run in the broker's process.
fn serve(
    orders: &Orders,
    says: &Says,
    told: mpsc::Receiver<String>,
) -> io::Result<(Client, Server)> {
    let options = Options {
        wait: orders.wait.profile(),
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
    let service = client.subscribe_with(format!("{SERVED}.*"), service);
    // It ends with the process.
    std::mem::forget(service.map_err(io::Error::other)?);
    pub_sub::count_inline(&client, says)?;
    game::start_rooms(&client, orders, says, told)?;
    let options = ServerOptions {
        shards: orders.shards,
        wait: orders.wait.profile(),
        ..ServerOptions::default()
    };
    let server = client.listen(&[&orders.url], options);
    Ok((client, server.map_err(io::Error::other)?))
}

/// A client of the library, as the orders say.
pub(super) fn connect(orders: &Orders) -> io::Result<Client> {
    let options = connecting(orders.wait);
    Client::connect(&orders.url, options).map_err(io::Error::other)
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

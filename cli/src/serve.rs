//! `fastmq serve`: a broker that other processes use, until SIGTERM or SIGINT.

use std::io::{self, Write};
use std::sync::Arc;

use clap::{ArgMatches, Command};
use fastmq::border::descriptors;
use fastmq::border::signals::{Signals, Wish};
use fastmq::{Client, Options, Server, ServerChanges, ServerOptions, log};

use crate::configuration::{Configuration, Part, Value, WAITS, arguments};
use crate::failure::Outcome;
use crate::notify;
use crate::remote::note;
use crate::root::DataRoot;

const SECOND_NS: u64 = 1_000_000_000;

/// The command line.
pub(crate) fn command() -> Command {
    Command::new("serve")
        .about("Serves other processes until SIGTERM or SIGINT")
        .args(arguments(Part::Server))
}

/// Serves until it is asked to end.
pub(crate) fn run(out: &mut dyn Write, matches: &ArgMatches) -> Outcome {
    let signals = Signals::hold_back()?;
    let mut configuration = Configuration::load(Part::Server, matches)?;
    set_log(&configuration)?;
    let mut server_options = server_options(&configuration)?;
    let sockets = descriptors::take_inherited()?;
    server_options.sockets = sockets.into_iter().map(Arc::new).collect();
    let _data_root = DataRoot::take(&configuration)?;
    // A descriptor for each connection; what an administrator allows at most is the limit.
    if let Err(error) = descriptors::raise_limit() {
        note(&format!("the limit of open files stays as it is: {error}"));
    }
    let urls = match server_options.sockets.is_empty() || !configuration.is_default("listen") {
        true => configuration.get("listen").map_or(&[][..], Value::texts),
        // Whoever started us listens instead.
        false => &[],
    };
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let client = Client::open(options(&configuration))?;
    let server = client.listen(&urls, server_options)?;
    for url in server.urls() {
        writeln!(out, "listening at {url}")?;
    }
    out.flush()?;
    notify::say(&format!(
        "READY=1\nSTATUS=listening at {}",
        server.urls().join(", ")
    ));
    while signals.wait()? == Wish::Reload {
        notify::say_reloading();
        match reload(matches, &configuration, &server) {
            Ok(again) => configuration = again,
            Err(failure) => note(&format!("all stays as it is: {}", failure.text())),
        }
        say(out, "reloaded");
        notify::say("READY=1");
    }
    notify::say("STOPPING=1\nSTATUS=waiting for clients to finish");
    say(out, "draining");
    server.close(configuration.number("drain_seconds") * SECOND_NS);
    client.close();
    Ok(())
}

/// Says what happens, to whoever still reads: a server does not end because nobody does.
fn say(out: &mut dyn Write, text: &str) {
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Reads the configuration again, and takes over what can be.
fn reload(matches: &ArgMatches, before: &Configuration, server: &Server) -> Outcome<Configuration> {
    let after = Configuration::load(Part::Server, matches)?;
    let options = server_options(&after)?;
    server.change(&ServerChanges {
        token: options.token,
        subscriptions_max: options.subscriptions_max,
    })?;
    set_log(&after)?;
    for (new, old) in after.entries().iter().zip(before.entries()) {
        if new.value != old.value && !new.setting.is_reloaded {
            note(&format!(
                "{} is {} from the next start on",
                new.setting.key,
                new.show()
            ));
        }
    }
    Ok(after)
}

fn set_log(configuration: &Configuration) -> Outcome {
    let level = match configuration.text("log") {
        "error" => log::Level::Error as u32,
        "warn" => log::Level::Warn as u32,
        "info" => log::Level::Info as u32,
        "debug" => log::Level::Debug as u32,
        _ => 0,
    };
    let hook = log::hook(|level, target, text| {
        let _ = writeln!(io::stderr(), "fastmq: {level:?}: {target}: {text}");
    });
    log::set(level, Some(hook?));
    Ok(())
}

fn wait(configuration: &Configuration) -> fastmq::Profile {
    let name = configuration.text("wait");
    let found = WAITS.iter().find(|(known, _)| *known == name);
    found.map_or_else(fastmq::Profile::default, |(_, profile)| *profile)
}

fn options(configuration: &Configuration) -> Options {
    Options {
        memory_max: configuration.number("memory_max"),
        payload_max: configuration.number("payload_max"),
        queue_capacity: configuration.number("queue_capacity"),
        ..Options::default()
    }
}

fn server_options(configuration: &Configuration) -> Outcome<ServerOptions> {
    let number = |key| u32::try_from(configuration.number(key)).unwrap_or(u32::MAX);
    Ok(ServerOptions {
        token: configuration.token()?,
        name: configuration.text("name").to_owned(),
        servers: configuration
            .get("servers")
            .map_or(&[][..], Value::texts)
            .join(","),
        shards: number("shards"),
        is_insecure_allowed: configuration.is_true("insecure"),
        connections_max: number("connections_max"),
        subscriptions_max: number("subscriptions_max"),
        wait: wait(configuration),
        ..ServerOptions::default()
    })
}

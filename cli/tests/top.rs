//! `fastmq top`, and what a server says of itself.

mod support;

use serde_json::Value;
use support::{Running, Server, err, out};

/// Looks until what is shown is as expected. Answers are up to a quarter of a second old.
fn look_until(server: &Server, mut is_expected: impl FnMut(&Value) -> bool) -> Value {
    loop {
        let line = out(&server.run(&["top", "--once", "--json"]));
        let figures: Value = serde_json::from_str(&line).unwrap();
        if is_expected(&figures) {
            return figures;
        }
    }
}

fn client(figures: &Value, is_it: impl Fn(&Value) -> bool) -> Option<&Value> {
    figures["clients"].as_array()?.iter().find(|it| is_it(it))
}

#[test]
fn connections_and_patterns_of_all_shards_are_shown() {
    let server = Server::start_with(&["--shards", "2", "--name", "mine"]);
    let mut readers = [(); 2].map(|()| server.subscriber(&["flight.*", "--raw"]));
    out(&server.run(&["pub", "flight.1", "hello", "--count", "100"]));
    for reader in &mut readers {
        for _ in 0..100 {
            assert_eq!(reader.line(), "hello");
        }
    }
    let figures = look_until(&server, |figures| {
        figures["connections"] == 3 && figures["published"] == 100
    });
    assert_eq!(figures["name"], "mine");
    assert_eq!(figures["shards"], 2);
    assert_eq!(figures["delivered"], 200);
    assert_eq!(figures["slow"], 0);
    let pattern = &figures["patterns"][0];
    assert_eq!(pattern["pattern"], "flight.*");
    assert_eq!(pattern["subscriptions"], 2);
    let is_reader = |it: &&Value| it["subscriptions"] == 1;
    let clients = figures["clients"].as_array().unwrap();
    let readers: Vec<&Value> = clients.iter().filter(is_reader).collect();
    assert_eq!(readers.len(), 2);
    for reader in readers {
        assert_eq!(reader["name"], "fastmq");
        assert!(reader["sent_bytes"].as_u64().unwrap() > 100 * 5, "{reader}");
    }
    // Those who have gone are not shown.
    drop(look_until(&server, |figures| {
        figures["accepted"].as_u64() > Some(3)
    }));
}

#[test]
fn a_reader_that_stands_still_is_slow() {
    let server = Server::start();
    let reader = server.subscriber(&["much"]);
    look_until(&server, |figures| figures["connections"] == 2);
    reader.signal("-STOP");
    let payload = "x".repeat(1000);
    out(&server.run(&["pub", "much", &payload, "--count", "3000"]));
    let figures = look_until(&server, |figures| figures["slow"] == 1);
    let slow = client(&figures, |it| it["slow_ns"] != 0).unwrap();
    assert_eq!(slow["subscriptions"], 1);
    assert!(slow["waiting_bytes"].as_u64() > Some(100_000), "{slow}");
    assert_eq!(figures["clients"][0], *slow, "it is the first in the list");
    reader.signal("-CONT");
    look_until(&server, |figures| figures["slow"] == 0);
}

#[test]
fn rates_are_shown_from_the_second_look_on() {
    let server = Server::start_with(&["--name", "n"]);
    let mut top = Running::start(&mut server.command(&["top", "--interval", "0.01"]));
    assert!(top.line().starts_with("n "));
    assert!(top.line().starts_with("published 0  delivered 0  "));
    let shown = loop {
        let line = top.line();
        if line.starts_with("published") {
            break line;
        }
    };
    assert!(shown.starts_with("published 0/s  "), "{shown}");
    let once = out(&server.run(&["top", "--once"]));
    assert!(
        once.contains("connections ") && once.contains("fastmq"),
        "{once}"
    );
    assert!(!once.contains('\u{1b}'), "{once}");
}

#[test]
fn the_figures_are_asked_for_by_a_subject_that_nobody_else_may_use() {
    let server = Server::start();
    let subject = "$SYS.SERVER.STATS";
    let answer = out(&server.run(&["request", subject]));
    let figures: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(figures["connections"], 1);
    // Asked more often than answers are made, and by an alias.
    let answers = out(&server.pipe(&["request", subject, "-"], &"\n".repeat(20)));
    assert_eq!(answers.lines().count(), 20);
    for command in ["pub", "request"] {
        let output = server.run(&[command, "$SYS.OTHER", "x"]);
        assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    }
}

//! `fastmq bench` as its users start it: every case moves messages, and bad words are refused.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fastmq"));
    command.arg("bench").args(words.split(' '));
    if !words.contains("-core") {
        // A machine of one core is enough.
        command.args("--server-core any --load-core any --third-core any".split(' '));
    }
    command.output().unwrap()
}

/// The rows of a run that must work.
fn rows(words: &str) -> Vec<Value> {
    let output = bench(&format!("{words} --json --seconds 0.02"));
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {says}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["rows"].as_array().unwrap().clone()
}

fn name(row: &Value) -> &str {
    row["case"].as_str().unwrap()
}

#[test]
fn requests_are_answered_everywhere() {
    let words = "inline request-reply round-trip --client library,frames --outstanding 64";
    let rows = rows(&format!("{words} --rounds 2 --subjects 3 --size 8,1000"));
    // One process: inline, many, one at a time. Unix and TCP: many and one at a time, each by two
    // clients, each answered in two places; shared memory by one client.
    assert_eq!(rows.len(), 2 * (3 + 2 * 2 * 2 * 2 + 2 * 2));
    for row in rows {
        assert_eq!(row["rounds"].as_array().unwrap().len(), 2, "{}", name(&row));
        assert!(row["count"].as_u64().unwrap() > 0, "{}", name(&row));
        let is_latency = row["unit"] == "µs";
        assert_eq!(is_latency, name(&row).starts_with("round-trip"));
        assert_eq!(is_latency, row["p99"].is_number(), "{}", name(&row));
    }
}

#[test]
fn messages_go_one_way_everywhere() {
    let words = "pub-sub --client library,frames --responder broker,third,load --outstanding 32";
    let rows = rows(&format!("{words} --rounds 2 --size 16,3000"));
    // One process; shared memory to two places; Unix and TCP by two clients, each to two places,
    // and by frames to itself.
    assert_eq!(rows.len(), 2 * (1 + 2 + 2 * (2 * 2 + 1)));
    for row in rows {
        assert!(row["count"].as_u64().unwrap() > 0, "{}", name(&row));
        assert!(row["missed"].is_null(), "{}: {row}", name(&row));
    }
}

#[test]
fn every_listener_gets_every_tick() {
    let rows = rows("fan-out --connections 3,20 --burst 4 --rounds 1 --shards 2");
    assert_eq!(rows.len(), 2 * 2);
    for row in rows {
        let a_tick = 4 * if name(&row).contains(" 3 ") { 3 } else { 20 };
        let count = row["count"].as_u64().unwrap();
        assert!(count > 0 && count % a_tick == 0, "{}: {count}", name(&row));
    }
}

#[test]
fn a_fixed_rate_is_kept() {
    let rows = rows("latency --rate 1000,5000 --client library,frames --rounds 1");
    assert_eq!(rows.len(), 2 * (1 + 2 + 2 * 2 * 2));
    for row in rows {
        let expected = if name(&row).contains("1000/s") {
            20
        } else {
            100
        };
        assert_eq!(row["count"], expected, "{}", name(&row));
        assert!(row["max"].as_f64().unwrap() > 0.0, "{}", name(&row));
    }
}

#[test]
fn nobody_drops_out_of_a_game() {
    let rows = rows("game --players 30 --rooms 4 --ticks 200 --rounds 2");
    // Unix and TCP, rooms in two places.
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row["count"], 2 * 4 * 30, "{}", name(&row));
        assert_eq!(row["not delivered"], 0, "{}", name(&row));
        assert_eq!(row["not heard"], 0, "{}", name(&row));
    }
}

#[test]
fn nobody_has_to_spin_or_to_sleep() {
    let rows = rows("round-trip --over unix --responder broker --wait parked,busy --rounds 1");
    assert!(name(&rows[0]).ends_with("parked") && name(&rows[1]).ends_with("busy"));
    for row in rows {
        assert!(row["count"].as_u64().unwrap() > 0, "{}", name(&row));
    }
}

#[test]
fn the_server_has_the_tier_that_it_is_given() {
    let rows = rows("round-trip --responder broker --driver best,epoll --rounds 1");
    let names: Vec<&str> = rows.iter().map(name).collect();
    // In one process there is no tier to choose.
    assert_eq!(names.len(), 1 + 2 * 3, "{names:?}");
    let on_epoll = names
        .iter()
        .filter(|name| name.ends_with(", server on epoll"));
    assert_eq!(on_epoll.count(), 3, "{names:?}");
}

#[test]
fn a_picture_is_drawn_beside_the_table() {
    let name = format!("fastmq-plot-{}.svg", std::process::id());
    let path = std::env::temp_dir().join(name);
    let words = format!("inline --seconds 0.01 --plot {}", path.display());
    assert!(bench(&words).status.success());
    let picture = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(picture.starts_with("<svg ") && picture.contains("inline, embedded"));
}

#[test]
fn the_table_names_places_and_rows() {
    let output = bench("inline --rounds 1 --seconds 0.01");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in [
        "server core: any",
        "cache line there and back",
        "inline, embedded",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let check = |words: &str, says: &str| {
        let output = bench(words);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{words}");
        assert!(error.contains(says), "{words}: {error}");
    };
    check("request-replies", "request-reply");
    check("--over carrier-pigeon", "embedded, shm, unix, tcp");
    check("--size 7", "8..=1048576");
    check("--outstanding 65536", "1..=65535");
    check("--seconds 0", "more than 0");
    check("--seconds 61", "at most 60");
    check("--shards 65", "1..=64");
    check("--rounds 0", "1..=100");
    check("--server-core first", "a core's number");
    check("--over embedded --responder third", "no row is left");
    check(
        "--responder broker --server tcp://127.0.0.1:1",
        "no row is left",
    );
    check("--protocol nats --client frames", "no row is left");
    check("fan-out --over embedded", "no row is left");
    check(
        "inline --plot /nowhere/at/all --seconds 0.01",
        "/nowhere/at/all",
    );
    let nobody = "round-trip --over tcp --responder third --client frames --server tcp://[::1]:1";
    check(nobody, "Connection refused");
    check("--driver kqueue", "uring-basic");
    check("inline --load-core 99999", "99999");
}

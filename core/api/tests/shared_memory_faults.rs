//! Processes that share memory, and what happens to one of them: killed at any point, stopped for
//! a while. It hurts itself only, and leaves nothing behind.
//!
//! The others are this program again, which then runs nothing but [`a_victim`] or a server.

mod process;

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use fastmq::{Client, ConnectOptions, Message, Policy, Publisher, Status, SubscribeOptions, View};

use process::{PATIENCE_NS, Process, echoes};

const URL: &str = "FASTMQ_TEST_URL";
const SEED: &str = "FASTMQ_TEST_SEED";
/// Victims that are killed: more than a server has rings for.
const VICTIMS: u64 = 80;
/// What is published while somebody is stopped, in messages of [`NOISE_BYTES`].
const NOISE_COUNT: u64 = 40_000;
const NOISE_BYTES: usize = 1024;
/// What a server may keep for a client that is stopped: 8 MiB that wait, 4 MiB of rings, and what
/// the allocator adds.
const KEPT_BYTES_MAX: u64 = 32 << 20;

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("fastmq-{name}-{}.sock", std::process::id()))
}

/// Mappings of shared memory that a process has.
fn mappings(process: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let is_ours = |line: &&str| line.contains("memfd:fastmq");
    maps.lines().filter(is_ours).count()
}

fn descriptors(process: u32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    entries.count()
}

fn signal(name: &str, process: u32) {
    let mut kill = Command::new("kill");
    let sent = kill.args([name, &process.to_string()]).status();
    assert!(sent.unwrap().success());
}

fn connect(url: &str) -> Client {
    Client::connect(url, ConnectOptions::default()).unwrap()
}

/// A client that does what its seed says until it is killed; with seed 0 it listens.
#[test]
#[ignore = "is the victim of the other tests"]
fn a_victim() {
    let url = std::env::var(URL).unwrap();
    let mut state: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let client = connect(&url);
    let noise = SubscribeOptions {
        policy: Policy::DropOldest,
        ..SubscribeOptions::default()
    };
    let heard = client.subscribe_with("noise.>", noise).unwrap();
    assert_eq!(mappings(std::process::id()), 1);
    println!("\nready");
    let is_idle = state == 0;
    let mut payload = vec![0; 200_000];
    let mut publisher = client.publisher("noise.victim").unwrap();
    loop {
        if is_idle {
            let batch = heard.receive(64, PATIENCE_NS).unwrap();
            let is_last = |view: &View| view.payload().is_empty();
            if batch.messages().iter().any(is_last) {
                println!("\nheard the last one");
            }
            continue;
        }
        let size = random(&mut state) as usize % [64, 5000, 200_000][state as usize % 3];
        payload[..size].fill(state as u8);
        match random(&mut state) % 4 {
            0 => drop(client.subscribe(format!("more.{}", state % 10)).unwrap()),
            1 => echoes(&client, &payload[..size]),
            _ => drop(publisher.publish(&payload[..size])),
        }
        drop(heard.receive(64, 0));
    }
}

/// A process that is killed at the end, and what it says.
struct Victim {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Victim {
    fn start(url: &str, seed: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["a_victim", "--exact", "--ignored", "--nocapture"])
            .envs([(URL, url), (SEED, &seed.to_string())])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut victim = Self { child, lines };
        victim.wait_for("ready");
        victim
    }

    fn wait_for(&mut self, what: &str) {
        let found = self.lines.any(|line| line.unwrap() == what);
        assert!(found, "it says {what}");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn clients_that_are_killed_leave_nothing_behind() {
    let path = socket("victims");
    let process = Process::start(&format!("shm:{}", path.display()), &[]);
    let url = process.urls[0].clone();
    assert!(url.starts_with("shm:"), "{url}");
    let client = connect(&url);
    let mut publisher = client.publisher("noise.neighbour").unwrap();
    echoes(&client, b"before");
    let kept = || (mappings(process.id()), descriptors(process.id()));
    let before = kept();
    assert_eq!(before.0, 1);
    for seed in 1..=VICTIMS {
        let victim = Victim::start(&url, seed);
        let mut state = seed;
        for _ in 0..random(&mut state) % 200 {
            publisher.publish_wait(&[1; 100], PATIENCE_NS).unwrap();
            echoes(&client, &seed.to_le_bytes());
        }
        drop(victim);
    }
    let mut tries = 0;
    while kept() != before {
        echoes(&client, b"until all is given back");
        tries += 1;
        assert!(tries < 1_000_000, "{:?} is not {before:?}", kept());
    }
    client.close();
    assert!(path.exists(), "the server lives");
}

/// Publishes what a stopped process does not take.
fn make_noise(publisher: &mut Publisher) {
    for _ in 0..NOISE_COUNT {
        let published = publisher.publish_wait(&[7; NOISE_BYTES], PATIENCE_NS);
        published.unwrap();
    }
}

#[test]
fn a_client_that_is_stopped_holds_nobody_up_and_goes_on() {
    let path = socket("stopped-client");
    let process = Process::start(&format!("shm:{}", path.display()), &[]);
    let url = process.urls[0].clone();
    let client = connect(&url);
    let mut publisher = client.publisher("noise.neighbour").unwrap();
    make_noise(&mut publisher);
    echoes(&client, b"before");
    let mut victim = Victim::start(&url, 0);
    let before = process.resident();
    signal("-STOP", victim.child.id());
    make_noise(&mut publisher);
    echoes(&client, b"meanwhile");
    let grown = process.resident().saturating_sub(before);
    assert!(grown < KEPT_BYTES_MAX, "{grown} bytes for a stopped client");
    signal("-CONT", victim.child.id());
    publisher.publish_wait(b"", PATIENCE_NS).unwrap();
    victim.wait_for("heard the last one");
    client.close();
}

#[test]
fn a_server_that_is_stopped_costs_its_clients_time_only() {
    let path = socket("stopped-server");
    let process = Process::start(&format!("shm:{}", path.display()), &[]);
    let url = process.urls[0].clone();
    let client = connect(&url);
    let mut publisher = client.publisher("noise.neighbour").unwrap();
    echoes(&client, b"before");
    signal("-STOP", process.id());
    // What is published waits, within bounds.
    let mut status = Status::Ok;
    for _ in 0..NOISE_COUNT {
        let published = publisher.publish(&[7; NOISE_BYTES]);
        status = published.map_or_else(|error| error.status(), |()| Status::Ok);
        if status != Status::Ok {
            break;
        }
    }
    assert_eq!(status, Status::Again);
    let question = Message {
        subject: b"echo",
        ..Message::default()
    };
    let fate = client.request(&question, 1_000_000).unwrap_err();
    assert_eq!(fate.status(), Status::Timeout, "{fate}");
    signal("-CONT", process.id());
    echoes(&client, b"after");
    client.close();
}

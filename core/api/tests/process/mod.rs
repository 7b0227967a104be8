//! A server in a process of its own: the same program again, which then runs nothing but
//! [`a_server`].

#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use fastmq::{Client, Delivery, Message, Options, ServerOptions, SubscribeOptions};

pub(crate) const PATIENCE_NS: u64 = 60_000_000_000;
const URLS: &str = "FASTMQ_TEST_URLS";
pub(crate) const CONNECTIONS_MAX: &str = "FASTMQ_TEST_CONNECTIONS_MAX";

/// The body of the server's process, which serves `echo` and ends with its input.
#[test]
#[ignore = "is the server of the other tests"]
fn a_server() {
    let urls = std::env::var(URLS).unwrap();
    let broker = Client::open(Options::default()).unwrap();
    let answering = broker.clone();
    let on_message = move |view: &fastmq::View| {
        let _ = answering.reply(view.token, view.payload());
    };
    let inline = SubscribeOptions {
        delivery: Delivery::Inline,
        on_message: Some(Box::new(on_message)),
        ..SubscribeOptions::default()
    };
    let _echo = broker.subscribe_with("echo", inline).unwrap();
    let mut options = ServerOptions::default();
    if let Ok(max) = std::env::var(CONNECTIONS_MAX) {
        options.connections_max = max.parse().unwrap();
    }
    // The test's own network, or this machine's loopback.
    options.is_insecure_allowed = std::env::var(CONNECTIONS_MAX).is_err();
    let urls: Vec<&str> = urls.split(',').collect();
    let server = broker.listen(&urls, options).unwrap();
    println!("\nserving {}", server.urls().join(","));
    let _ = std::io::stdin().read(&mut [0]);
    server.close(0);
    broker.close();
}

/// A server's process, which is killed at the end.
pub(crate) struct Process {
    child: Child,
    pub(crate) urls: Vec<String>,
    /// Open until the end: the test program says after a minute that it still runs, and ends if
    /// nobody could hear that.
    _output: BufReader<ChildStdout>,
}

impl Process {
    /// With as many descriptors as it can have.
    pub(crate) fn start(urls: &str, variables: &[(&str, &str)]) -> Self {
        Self::run(with_descriptors("$(ulimit -Hn)"), urls, variables)
    }

    pub(crate) fn run(mut command: Command, urls: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = command
            .args(["process::a_server", "--exact", "--ignored", "--nocapture"])
            .env(URLS, urls)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let lines = output.by_ref().lines().map(|line| line.unwrap());
        let mut urls = lines.filter_map(|line| Some(line.strip_prefix("serving ")?.to_owned()));
        let urls = urls.next().expect("the server starts");
        let urls = urls.split(',').map(str::to_owned).collect();
        Self {
            child,
            urls,
            _output: output,
        }
    }

    pub(crate) fn address(&self, at: usize) -> SocketAddr {
        let url = self.urls[at].strip_prefix("tcp://").unwrap();
        url.parse().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and everything of it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Memory of the process, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let pages = std::fs::read_to_string(path).unwrap();
        let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program, with so many descriptors.
pub(crate) fn with_descriptors(count: &str) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -n {count} && exec \"$0\" \"$@\"");
    shell.args(["-c", &script]);
    shell.arg(std::env::current_exe().unwrap());
    shell
}

/// Asks `echo` until it answers.
pub(crate) fn echoes(client: &Client, payload: &[u8]) {
    let message = Message {
        subject: b"echo",
        payload,
        ..Message::default()
    };
    let reply = client.request(&message, PATIENCE_NS).unwrap();
    assert_eq!(reply.payload[..], *payload);
}

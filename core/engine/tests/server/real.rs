//! A server over the kernel's own sockets, Unix and TCP, with real threads and the real clock.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use fastmq_engine::driver::sockets::Address;
use fastmq_engine::server::{SHARDS_MAX, Server, ServerOptions};
use fastmq_engine::{Broker, Requester, RequesterOptions, Status};
use fastmq_wire::Kind;

use crate::peer::{Heard, Peer};
use crate::steps::*;

const SECOND: u64 = 1_000_000_000;

/// A stream of either kind.
trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A client that blocks.
struct Caller {
    stream: Box<dyn Stream>,
    peer: Peer,
}

impl Caller {
    fn connect(address: &Address) -> Self {
        let mut caller = Self {
            stream: stream_to(address),
            peer: Peer::new(),
        };
        caller.peer.hello();
        let heard = caller.next();
        assert!(matches!(heard, Heard::Welcome { .. }), "{heard:?}");
        caller
    }

    fn say(&mut self) {
        let bytes = std::mem::take(&mut self.peer.out);
        self.stream.write_all(&bytes).unwrap();
    }

    /// What is heard next; what was to be said is said before.
    fn next(&mut self) -> Heard {
        let mut bytes = [0; 64 << 10];
        loop {
            self.say();
            if let Some(heard) = self.peer.heard.pop_front() {
                return heard;
            }
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the connection has ended");
            self.peer.hear(&bytes[..count]);
        }
    }

    fn subscribe(&mut self, number: u32, pattern: &str) {
        self.peer.subscribe(number, number, pattern);
        assert_eq!(self.next(), Heard::Ack(number));
    }
}

fn stream_to(address: &Address) -> Box<dyn Stream> {
    match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Box::new(stream)
        }
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Box::new(stream)
        }
    }
}

/// A path of this test's own.
fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fmq-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

fn tcp() -> Address {
    Address::Tcp("127.0.0.1:0".parse().unwrap())
}

fn serve(broker: &Arc<Broker>, addresses: &[Address]) -> Server {
    serve_by(1, broker, addresses)
}

fn serve_by(shards: u32, broker: &Arc<Broker>, addresses: &[Address]) -> Server {
    let options = ServerOptions {
        shards,
        ..ServerOptions::default()
    };
    Server::listen(broker, addresses, options).unwrap()
}

#[test]
fn clients_of_unix_tcp_and_this_process_see_one_another() {
    [1, 3].into_iter().for_each(all_see_one_another);
}

fn all_see_one_another(shards: u32) {
    let broker = open();
    let unix = Address::Unix(path("both"));
    let server = serve_by(shards, &broker, &[unix.clone(), tcp()]);
    let addresses = server.addresses().to_vec();
    assert_eq!(addresses[0], unix);
    let (mut one, mut two) = (
        Caller::connect(&addresses[0]),
        Caller::connect(&addresses[1]),
    );
    one.subscribe(1, "a.>");
    two.subscribe(1, "a.>");
    let local = subscribe(&broker, "a.>");
    publish(&broker, "a.local", b"1").unwrap();
    for caller in [&mut one, &mut two] {
        assert!(matches!(caller.next(), Heard::Message(got) if got.payload == b"1"));
    }
    one.peer.publish(5, "a.one", b"2");
    let mut heard = [one.next(), one.next()];
    heard.sort_by_key(|heard| matches!(heard, Heard::Message(_)));
    assert_eq!(heard[0], Heard::Ack(5));
    assert!(matches!(two.next(), Heard::Message(got) if got.subject == b"a.one"));
    let place = local.queue().unwrap();
    let mut received = 0;
    while received < 2 {
        received += place
            .receive(&broker, 9, PATIENCE_NS)
            .unwrap()
            .messages()
            .len();
    }
    // A question from each side to the other.
    two.subscribe(2, "ask");
    one.peer.request(6, "ask", b"?");
    one.say();
    let question = loop {
        if let Heard::Request(got) = two.next() {
            break got;
        }
    };
    two.peer.reply(question.token, b"!");
    two.say();
    let reply = Heard::Reply {
        correlation: 6,
        status: 0,
        payload: b"!".to_vec(),
    };
    assert_eq!(one.next(), reply);
    let mut requester = Requester::open(&broker, RequesterOptions::default()).unwrap();
    requester.submit_to(b"ask", b"?", 8, FOREVER).unwrap();
    let Heard::Request(question) = two.next() else {
        panic!()
    };
    two.peer.reply(question.token, b"!");
    two.say();
    let batch = requester.receive(1, PATIENCE_NS).unwrap();
    assert_eq!(
        (batch.messages()[0].token, batch.messages()[0].payload()),
        (8, &b"!"[..])
    );
    drop(batch);
    drop((one, two));
    server.close(0);
    assert!(
        !path("both").exists(),
        "the socket file goes with the server"
    );
}

#[test]
fn many_threads_publish_and_a_client_gets_all_in_order() {
    [1, 3].into_iter().for_each(publish_by_threads);
}

fn publish_by_threads(shards: u32) {
    const THREADS: u64 = 3;
    const EACH: u64 = 20_000;
    let broker = open();
    let server = serve_by(shards, &broker, &[Address::Unix(path("order"))]);
    let mut caller = Caller::connect(&server.addresses()[0]);
    caller.peer.subscribe_as(1, "t.*", 1, 0);
    assert_eq!(caller.next(), Heard::Ack(1_000_001));
    let threads: Vec<_> = (0..THREADS)
        .map(|name| {
            let broker = broker.clone();
            thread::spawn(move || {
                let subject = format!("t.{name}");
                for number in 0..EACH {
                    let message = fastmq_engine::Message {
                        subject: subject.as_bytes(),
                        payload: &number.to_le_bytes(),
                        ..fastmq_engine::Message::default()
                    };
                    client(&broker, |it| it.publish_wait(&message, PATIENCE_NS)).unwrap();
                }
            })
        })
        .collect();
    let mut next = [0; THREADS as usize];
    for _ in 0..THREADS * EACH {
        let Heard::Message(got) = caller.next() else {
            panic!()
        };
        let name = usize::from(got.subject[2] - b'0');
        assert_eq!(got.payload, u64::to_le_bytes(next[name]));
        next[name] += 1;
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    server.close(0);
}

#[test]
fn a_client_that_breaks_leaves_nothing_and_nobody_else_notices() {
    [1, 3].into_iter().for_each(break_many);
}

fn break_many(shards: u32) {
    let broker = open();
    let server = serve_by(shards, &broker, &[tcp()]);
    let mut stays = Caller::connect(&server.addresses()[0]);
    stays.subscribe(1, "a");
    for round in 0..20 {
        let mut breaks = Caller::connect(&server.addresses()[0]);
        breaks.subscribe(2, "a");
        if round % 2 == 0 {
            breaks.peer.out = vec![0xff; 100];
            breaks.say();
        }
    }
    until("the others are gone", || {
        broker.statistics().subscriptions == 1
    });
    publish(&broker, "a", b"x").unwrap();
    assert!(matches!(stays.next(), Heard::Message(_)));
    server.close(0);
}

#[test]
fn a_close_tells_the_clients_and_waits_for_them() {
    [1, 3].into_iter().for_each(close_while_connected);
}

fn close_while_connected(shards: u32) {
    let broker = open();
    for timeout_ns in [20 * SECOND, u64::MAX] {
        let server = serve_by(shards, &broker, &[tcp()]);
        let mut caller = Caller::connect(&server.addresses()[0]);
        let thread = thread::spawn(move || server.close(timeout_ns));
        // It is told once.
        assert_eq!(caller.next(), Heard::Drain);
        caller.peer.pair(Kind::Close, 0, 0);
        assert_eq!(caller.next(), Heard::Close(0));
        drop(caller);
        thread.join().unwrap();
    }
    // Without an answer it says CLOSE itself.
    let server = serve_by(shards, &broker, &[tcp()]);
    let mut caller = Caller::connect(&server.addresses()[0]);
    let thread = thread::spawn(move || server.close(0));
    assert_eq!(
        [caller.next(), caller.next()],
        [Heard::Drain, Heard::Close(0)]
    );
    drop(caller);
    thread.join().unwrap();
}

#[test]
fn addresses_are_checked() {
    let broker = open();
    let refused = |address: &Address, options: ServerOptions| {
        Server::listen(&broker, std::slice::from_ref(address), options).unwrap_err()
    };
    let everywhere = Address::Tcp("0.0.0.0:0".parse().unwrap());
    let error = refused(&everywhere, ServerOptions::default());
    assert_eq!(error.status(), Status::Denied);
    assert!(error.text().contains("insecure"), "{error}");
    let allowed = ServerOptions {
        is_insecure_allowed: true,
        ..ServerOptions::default()
    };
    Server::listen(&broker, &[everywhere], allowed)
        .unwrap()
        .close(0);
    assert_eq!(
        Server::listen(&broker, &[], ServerOptions::default())
            .unwrap_err()
            .status(),
        Status::Invalid
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = Address::Tcp(listener.local_addr().unwrap());
    assert_eq!(
        refused(&taken, ServerOptions::default()).status(),
        Status::Io
    );
    let token = vec![0; 4097];
    let long = ServerOptions {
        token,
        ..ServerOptions::default()
    };
    assert_eq!(refused(&tcp(), long).status(), Status::Invalid);
    for shards in [0, SHARDS_MAX + 1] {
        let options = ServerOptions {
            shards,
            ..ServerOptions::default()
        };
        assert_eq!(refused(&tcp(), options).status(), Status::Invalid);
    }
    // What hinders the first shard ends the others.
    let options = ServerOptions {
        shards: 3,
        ..ServerOptions::default()
    };
    assert_eq!(refused(&taken, options).status(), Status::Io);
}

#[test]
fn a_socket_file_is_private_and_a_stale_one_replaced() {
    let broker = open();
    let path = path("stale");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "nobody listens there");
    let address = Address::Unix(path.clone());
    let server = serve(&broker, std::slice::from_ref(&address));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let second = Server::listen(
        &broker,
        std::slice::from_ref(&address),
        ServerOptions::default(),
    );
    assert_eq!(second.unwrap_err().status(), Status::Io, "in use");
    drop(Caller::connect(&address));
    server.close(0);
    // What is no socket is nobody's to remove.
    fs::write(&path, b"precious").unwrap();
    let third = Server::listen(
        &broker,
        std::slice::from_ref(&address),
        ServerOptions::default(),
    );
    assert_eq!(third.unwrap_err().status(), Status::Io);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_stranger_reads_the_protocol_and_is_served() {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/protocol/visitor.py"
    );
    let broker = open();
    let options = ServerOptions {
        token: b"secret".to_vec(),
        ..ServerOptions::default()
    };
    let server = Server::listen(&broker, &[tcp()], options).unwrap();
    let Address::Tcp(address) = server.addresses()[0].clone() else {
        panic!()
    };
    let port = address.port().to_string();
    let ran = Command::new("python3")
        .args([script, &port, "secret"])
        .output();
    let Ok(ran) = ran else {
        eprintln!("skipped: there is no python3");
        return;
    };
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&ran.stdout)
    );
    server.close(0);
}

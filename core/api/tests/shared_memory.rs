//! Clients that share memory with their broker's process, end to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fastmq::{
    Client, ConnectOptions, Delivery, Message, Options, Server, ServerOptions, Status,
    SubscribeOptions, Subscription,
};
use fastmq_test_support::readable::is_readable;

const PATIENCE_NS: u64 = 30_000_000_000;
const PATIENCE: Duration = Duration::from_nanos(PATIENCE_NS);

/// A broker that listens at a socket of its own, and the socket.
fn serve(name: &str) -> (Client, Server, PathBuf) {
    let broker = Client::open(Options::default()).unwrap();
    let file = format!("fastmq-shm-{name}-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(file);
    let url = format!("shm:{}", path.display());
    let server = broker.listen(&[&url], ServerOptions::default()).unwrap();
    (broker, server, path)
}

fn connect(path: &Path) -> Client {
    let url = format!("shm:{}", path.display());
    Client::connect(&url, ConnectOptions::default()).unwrap()
}

/// Mappings of shared memory that this process has.
fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_ours = |line: &&str| line.contains("memfd:fastmq");
    maps.lines().filter(is_ours).count()
}

fn size_of(number: usize) -> usize {
    [number % 300, number * 97 % 3000][usize::from(number % 50 == 49)]
}

/// Takes messages until there were `count`, each as large and as filled as its number says.
fn check_all(subscription: &Subscription, count: usize) {
    let mut number = 0;
    while number < count {
        let batch = subscription.receive(64, PATIENCE_NS).unwrap();
        for view in batch.messages() {
            assert_eq!(
                view.payload(),
                vec![number as u8; size_of(number)],
                "{number}"
            );
            number += 1;
        }
    }
}

/// One test, because it counts the mappings of the process.
#[test]
fn messages_and_requests_cross_the_rings() {
    let (local, server, path) = serve("all");
    assert_eq!(mappings(), 0);
    let (left, right) = (connect(&path), connect(&path));
    // Each client has its mapping, and so has the server of each.
    assert_eq!(mappings(), 4);
    publish_everywhere([&local, &left, &right]);
    ask_everywhere([&local, &left, &right]);
    wake_a_loop(&path, &local);
    left.close();
    right.close();
    server.close(PATIENCE_NS);
    assert_eq!(mappings(), 0);
    local.close();
}

fn publish_everywhere(clients: [&Client; 3]) {
    const COUNT: usize = 10_000;
    for (from, sender) in clients.iter().enumerate() {
        let subject = format!("sizes.{from}");
        let listening = clients.map(|client| client.subscribe("sizes.*").unwrap());
        let mut publisher = sender.publisher(&subject).unwrap();
        thread::scope(|scope| {
            for subscription in &listening {
                scope.spawn(|| check_all(subscription, COUNT));
            }
            for number in 0..COUNT {
                let payload = vec![number as u8; size_of(number)];
                publisher.publish_wait(&payload, PATIENCE_NS).unwrap();
            }
        });
    }
}

/// A client without a thread, whose loop sleeps on a descriptor, hears of each message.
fn wake_a_loop(path: &Path, sender: &Client) {
    let options = ConnectOptions {
        polled: true,
        ..ConnectOptions::default()
    };
    let url = format!("shm:{}", path.display());
    let polled = Client::connect(&url, options).unwrap();
    let heard = Arc::new(AtomicU64::new(0));
    let counting = heard.clone();
    let handler = SubscribeOptions {
        delivery: Delivery::Dispatch,
        on_message: Some(Box::new(move |_| {
            counting.fetch_add(1, Ordering::SeqCst);
        })),
        ..SubscribeOptions::default()
    };
    let subscription = polled.subscribe_with("loop", handler).unwrap();
    let fd = polled.fd().unwrap();
    for round in 1..=500 {
        sender.publish("loop", b"wake").unwrap();
        while heard.load(Ordering::SeqCst) < round {
            assert!(is_readable(fd, PATIENCE), "{round}");
            polled.dispatch(0, 0).unwrap();
        }
    }
    subscription.unsubscribe();
    polled.close();
}

/// Echoes of payloads up to the largest, by a client that shares memory and by the broker itself.
fn ask_everywhere(clients: [&Client; 3]) {
    for responder in [clients[1], clients[0]] {
        let answering = responder.clone();
        let echoing = responder.subscribe_with(
            "echo",
            SubscribeOptions {
                delivery: Delivery::Thread,
                on_message: Some(Box::new(move |view| {
                    let _ = answering.reply(view.token, view.payload());
                })),
                ..SubscribeOptions::default()
            },
        );
        let echoing = echoing.unwrap();
        for number in 0..1000usize {
            let payload = vec![number as u8; [number, 1 << 20][usize::from(number % 100 == 99)]];
            let question = Message {
                subject: b"echo",
                payload: &payload,
                ..Message::default()
            };
            let asker = [clients[2], clients[1], clients[0]][number % 3];
            let reply = asker.request(&question, PATIENCE_NS).unwrap();
            assert_eq!(reply.payload[..], payload, "{number}");
        }
        echoing.unsubscribe();
    }
    let nobody = Message {
        subject: b"nobody",
        ..Message::default()
    };
    let fate = clients[2].request(&nobody, PATIENCE_NS).unwrap_err();
    assert_eq!(fate.status(), Status::NoResponder);
}

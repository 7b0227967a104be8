//! A client of another process: both ends of the native protocol, over real sockets.

use std::sync::{Arc, Mutex};
use std::thread;

use fastmq::{
    Client, ConnectOptions, Delivery, Event, Message, Options, RequesterOptions, Server,
    ServerOptions, Status, SubscribeOptions,
};

const PATIENCE_NS: u64 = 30_000_000_000;

/// A broker that listens at a socket file of its own and by TCP, and where.
fn serve(name: &str) -> (Client, Server, Vec<String>) {
    serve_by(1, name)
}

/// The same with several threads.
fn serve_by(shards: u32, name: &str) -> (Client, Server, Vec<String>) {
    let broker = Client::open(Options::default()).unwrap();
    let file = format!("fastmq-{name}-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(file);
    let unix = format!("unix:{}", path.display());
    let urls = [unix.as_str(), "tcp://127.0.0.1:0"];
    let options = ServerOptions {
        shards,
        ..ServerOptions::default()
    };
    let server = broker.listen(&urls, options).unwrap();
    let urls = server.urls();
    (broker, server, urls)
}

fn connect(url: &str) -> Client {
    Client::connect(url, ConnectOptions::default()).unwrap()
}

/// The numbers that a subscription gets, until there are `count`.
fn numbers(subscription: &fastmq::Subscription, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let batch = subscription.receive(256, PATIENCE_NS).unwrap();
        for view in batch.messages() {
            numbers.push(u64::from_le_bytes(view.payload().try_into().unwrap()));
        }
    }
    numbers
}

#[test]
fn local_and_remote_clients_see_one_another() {
    [1, 2, 3].into_iter().for_each(all_see_one_another);
}

fn all_see_one_another(shards: u32) {
    let (local, server, urls) = serve_by(shards, "heard");
    assert_eq!(urls.len(), 2);
    let remote: Vec<Client> = urls.iter().map(|url| connect(url)).collect();
    let everybody = [&local, &remote[0], &remote[1]];
    for (from, sender) in everybody.iter().enumerate() {
        let subject = format!("numbers.{from}");
        let listening: Vec<_> = everybody
            .iter()
            .map(|client| client.subscribe("numbers.*").unwrap())
            .collect();
        let mut publisher = sender.publisher(&subject).unwrap();
        thread::scope(|scope| {
            let reading: Vec<_> = listening
                .iter()
                .map(|subscription| scope.spawn(|| numbers(subscription, 5000)))
                .collect();
            for number in 0..5000u64 {
                publisher
                    .publish_wait(&number.to_le_bytes(), PATIENCE_NS)
                    .unwrap();
            }
            for reader in reading {
                assert_eq!(reader.join().unwrap(), (0..5000).collect::<Vec<_>>());
            }
        });
    }
    for client in &remote {
        client.close();
    }
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn requests_cross_two_connections_and_know_their_fate() {
    [1, 2, 3].into_iter().for_each(ask_across);
}

fn ask_across(shards: u32) {
    let (local, server, urls) = serve_by(shards, "asked");
    let asker = connect(&urls[0]);
    let responder = connect(&urls[1]);
    let answering = responder.clone();
    let _doubling = responder
        .subscribe_with(
            "double",
            SubscribeOptions {
                delivery: Delivery::Thread,
                on_message: Some(Box::new(move |view| {
                    let number = u64::from_le_bytes(view.payload().try_into().unwrap());
                    let _ = answering.reply(view.token, (2 * number).to_le_bytes());
                })),
                ..SubscribeOptions::default()
            },
        )
        .unwrap();
    for number in 0..2000u64 {
        let question = Message {
            subject: b"double",
            payload: &number.to_le_bytes(),
            ..Message::default()
        };
        let client = if number % 2 == 0 { &asker } else { &local };
        let reply = client.request(&question, PATIENCE_NS).unwrap();
        assert_eq!(reply.payload[..], (2 * number).to_le_bytes());
    }
    let nobody = Message {
        subject: b"nobody",
        ..Message::default()
    };
    let fate = asker.request(&nobody, PATIENCE_NS).unwrap_err();
    assert_eq!(fate.status(), Status::NoResponder);
    asker.close();
    responder.close();
    server.close(PATIENCE_NS);
    local.close();
}

/// Many requests in flight keep the server at work while their asker makes more: also those of a
/// client that has no thread, and whose asker does not wait.
#[test]
fn requests_leave_before_their_asker_waits() {
    let (local, server, urls) = serve("pressed");
    let questions = local.subscribe("asked").unwrap();
    for url in &urls {
        let options = ConnectOptions {
            polled: true,
            ..ConnectOptions::default()
        };
        let asker = Client::connect(url, options).unwrap();
        let options = RequesterOptions {
            in_flight_max: 1024,
            subject: b"asked",
            ..RequesterOptions::default()
        };
        let mut requester = asker.requester(options).unwrap();
        for number in 0..1024u64 {
            let payload = number.to_le_bytes();
            requester.submit(&payload, number, PATIENCE_NS).unwrap();
        }
        assert_eq!(numbers(&questions, 1024), (0..1024).collect::<Vec<_>>());
        asker.close();
    }
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn a_client_of_a_server_does_not_listen() {
    let (local, server, urls) = serve("chain");
    let remote = connect(&urls[0]);
    let refused = remote.listen(&["tcp://127.0.0.1:0"], ServerOptions::default());
    assert_eq!(refused.unwrap_err().status(), Status::Unsupported);
    remote.close();
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn the_last_event_comes_before_close_returns_however_early_that_is() {
    for _ in 0..50 {
        let last = Arc::new(Mutex::new(None));
        let told = last.clone();
        let options = ConnectOptions {
            connect_timeout_ns: 0,
            on_event: Some(Arc::new(move |event| {
                if let Event::Disconnected { status, .. } = event {
                    *told.lock().unwrap() = Some(*status);
                }
            })),
            ..ConnectOptions::default()
        };
        let client = Client::connect("unix:/nowhere/at/all", options).unwrap();
        client.close();
        assert_eq!(*last.lock().unwrap(), Some(Status::Closed));
    }
}

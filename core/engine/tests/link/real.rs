//! Over Unix and TCP sockets, with the link's own thread and a peer on another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use fastmq_engine::driver::sockets::{self, Address, Config};
use fastmq_engine::driver::{Driver, NullDriver};
use fastmq_engine::link::{self, ConnectOptions};
use fastmq_engine::{Broker, Delivery, Message, Status};
use fastmq_wire::{Limits, Reason};

use crate::peer::{Manners, Peer};
use crate::steps::{
    Mutex, PATIENCE_NS, check, client, handle, publish_number, queue_of, subscribe, until,
};

/// A peer on a thread of its own, which delivers each publish to whoever subscribes to its subject,
/// else to whoever subscribes to "back".
pub(crate) struct Server {
    pub(crate) urls: String,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Record>>,
}

/// What the peer was told.
pub(crate) struct Record {
    pub(crate) published: u64,
    pub(crate) requests: usize,
    pub(crate) closes: u64,
    pub(crate) faults: Vec<String>,
}

impl Server {
    pub(crate) fn start(address: Address, manners: Manners) -> Self {
        let found: Arc<Mutex<Option<Address>>> = Arc::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (tell, ends) = (found.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            let opened = sockets::open(&Config {
                connections_max: 8,
                ..Config::default()
            });
            let (mut peer, address) = Peer::new(opened.unwrap().sockets, &address);
            peer.manners = manners;
            *tell.lock().unwrap() = Some(address);
            let driver = NullDriver::new();
            let mut returned = 0;
            while !ends.load(Ordering::SeqCst) {
                peer.turn(driver.monotonic_ns() + 1_000_000);
                while let Some(got) = peer.published.get(returned).cloned()
                    && let Some((number, subject)) = [&*got.subject, "back"]
                        .into_iter()
                        .find_map(|it| Some((peer.number_of(it)?, it)))
                {
                    if !peer.deliver(number, subject, &got.payload) {
                        break;
                    }
                    returned += 1;
                }
            }
            Record {
                published: peer.published.len() as u64,
                requests: peer.requests.len(),
                closes: peer.closes,
                faults: peer.faults,
            }
        });
        until("it listens", || found.lock().unwrap().is_some());
        let urls = found.lock().unwrap().take().unwrap().to_string();
        Self {
            urls,
            is_over,
            thread: Some(thread),
        }
    }

    pub(crate) fn stop(mut self) -> Record {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

pub(crate) fn request(broker: &Arc<Broker>, payload: &[u8]) -> fastmq_engine::Result<Vec<u8>> {
    let message = Message {
        subject: b"echo",
        payload,
        ..Message::default()
    };
    let copy = |view: &fastmq_engine::memory::View| view.payload().to_vec();
    client(broker, |client| client.request(&message, PATIENCE_NS, copy))
}

fn round_trip(address: Address) {
    // So little credit that publishers have to wait for it.
    let limits = Limits {
        frame_max: 16_384,
        credit: 65_536,
        alias_max: 10,
        alias_bytes_max: 1000,
        ..Limits::default()
    };
    let manners = Manners {
        limits,
        ..Manners::default()
    };
    let server = Server::start(address, manners);
    let options = ConnectOptions {
        token: b"secret".to_vec(),
        ..ConnectOptions::default()
    };
    let broker = link::connect(&server.urls, options).unwrap();
    let back = subscribe(&broker, "back");
    const COUNT: u64 = 20_000;
    let publisher = broker.clone();
    let publishing = std::thread::spawn(move || {
        for number in 0..COUNT {
            let payload = number.to_le_bytes();
            let message = Message {
                subject: b"out",
                payload: &payload,
                ..Message::default()
            };
            client(&publisher, |client| {
                client.publish_wait(&message, PATIENCE_NS)
            })
            .unwrap();
        }
    });
    let mut next = 0;
    while next < COUNT {
        let batch = queue_of(&back).receive(&broker, 1000, PATIENCE_NS).unwrap();
        for message in batch.messages() {
            assert_eq!(message.payload(), next.to_le_bytes());
            next += 1;
        }
    }
    publishing.join().unwrap();
    for number in 0..100_u64 {
        assert_eq!(
            request(&broker, &number.to_le_bytes()).unwrap(),
            number.to_le_bytes()
        );
    }
    broker.close();
    let record = server.stop();
    assert_eq!((record.published, record.requests), (COUNT, 100));
    assert_eq!((record.faults, record.closes), (Vec::new(), 1));
}

#[test]
fn messages_and_requests_go_over_tcp() {
    round_trip(Address::Tcp("127.0.0.1:0".parse().unwrap()));
}

#[test]
fn messages_and_requests_go_over_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("fastmq-link-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    round_trip(Address::Unix(path.clone()));
    let _ = std::fs::remove_file(&path);
}

#[test]
fn a_refused_connect_says_what_the_server_said() {
    let manners = Manners {
        refuses: Some((Reason::Authentication, Status::Denied as u8)),
        ..Manners::default()
    };
    let server = Server::start(Address::Tcp("127.0.0.1:0".parse().unwrap()), manners);
    let refused = link::connect(&server.urls, ConnectOptions::default()).unwrap_err();
    assert_eq!(refused.status(), Status::Denied);
    assert!(refused.text().contains("go away"), "{refused}");
    server.stop();
    let nowhere = "unix:/nonexistent/fastmq.sock";
    let refused = link::connect(nowhere, ConnectOptions::default()).unwrap_err();
    assert_eq!(refused.status(), Status::Unavailable, "{refused}");
    assert!(refused.text().contains(nowhere), "{refused}");
}

#[test]
fn a_refused_subscribe_fails_and_an_inline_handler_may_not_ask() {
    let server = Server::start(
        Address::Tcp("127.0.0.1:0".parse().unwrap()),
        Manners::default(),
    );
    let broker = link::connect(&server.urls, ConnectOptions::default()).unwrap();
    let told: Arc<Mutex<Vec<Status>>> = Arc::default();
    let (tell, asker) = (told.clone(), Arc::downgrade(&broker));
    let _inline = handle(&broker, "back", Delivery::Inline, move |_| {
        let broker = asker.upgrade().unwrap();
        let asked = request(&broker, b"").unwrap_err().status();
        let subscribed = broker.subscribe(b"x", b"", Delivery::Queue, None, 0, None);
        let mut told = tell.lock().unwrap();
        told.extend([asked, subscribed.unwrap_err().status()]);
    });
    publish_number(&broker, "out", 1).unwrap();
    until("told", || told.lock().unwrap().len() == 2);
    assert_eq!(*told.lock().unwrap(), [Status::Misuse; 2]);
    broker.close();
    server.stop();
    let manners = Manners {
        refuses_subscribe: Some((Reason::Permission, Status::Denied as u8)),
        ..Manners::default()
    };
    let server = Server::start(Address::Tcp("127.0.0.1:0".parse().unwrap()), manners);
    let broker = link::connect(&server.urls, ConnectOptions::default()).unwrap();
    let refused = broker.subscribe(b"secret", b"", Delivery::Queue, None, 0, None);
    check(refused, Status::Denied);
    broker.close();
    server.stop();
}

//! What clients of a server do as embedded ones do, end to end: presence, latest queues, draining,
//! servers that are named.

use std::sync::{Arc, Mutex};
use std::thread;

use fastmq::{
    Client, ConnectOptions, Event, Message, Options, Policy, Publisher, SUBJECT_CONNECTED,
    SUBJECT_DISCONNECTED, Server, ServerOptions, Status, SubscribeOptions, Subscription,
};

const PATIENCE_NS: u64 = 30_000_000_000;

fn serve(name: &str, options: ServerOptions) -> (Client, Server, Vec<String>) {
    let broker = Client::open(Options::default()).unwrap();
    let file = format!("fastmq-can-{name}-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(file);
    let unix = format!("unix:{}", path.display());
    let urls = [unix.as_str(), "tcp://127.0.0.1:0"];
    let server = broker.listen(&urls, options).unwrap();
    let urls = server.urls();
    (broker, server, urls)
}

fn connect(url: &str) -> Client {
    connect_as(url, "")
}

fn connect_as(url: &str, name: &str) -> Client {
    let options = ConnectOptions {
        name: name.to_owned(),
        ..ConnectOptions::default()
    };
    Client::connect(url, options).unwrap()
}

fn subjects(listener: &Subscription, count: usize) -> Vec<String> {
    let mut subjects = Vec::new();
    while subjects.len() < count {
        let batch = listener.receive(64, PATIENCE_NS).unwrap();
        let views = batch.messages().iter();
        subjects.extend(views.map(|it| String::from_utf8(it.subject().to_vec()).unwrap()));
    }
    subjects
}

fn replaying() -> SubscribeOptions<'static> {
    SubscribeOptions {
        replay_last: true,
        ..SubscribeOptions::default()
    }
}

#[test]
fn whoever_listens_hears_who_subscribes_and_who_connects_wherever_he_is() {
    let (local, server, urls) = serve("presence", ServerOptions::default());
    let listening = connect_as(&urls[0], "listener");
    let _there = local.subscribe("room.1").unwrap();
    let near = local.subscribe_with("$SYS.>", replaying()).unwrap();
    let mut there = subjects(&near, 2);
    there.sort();
    let own = format!("{SUBJECT_CONNECTED}.listener");
    assert_eq!(there, [own, "$SYS.JOINED.room.1".to_owned()]);
    let far = listening.subscribe_with("$SYS.>", replaying()).unwrap();
    assert_eq!(subjects(&far, 2).len(), 2);
    let other = connect_as(&urls[1], "other");
    let room = other.subscribe("room.2").unwrap();
    drop(room);
    other.close();
    let connected = format!("{SUBJECT_CONNECTED}.other");
    let gone = format!("{SUBJECT_DISCONNECTED}.other");
    let expected = [
        &*connected,
        "$SYS.JOINED.room.2",
        "$SYS.LEFT.room.2",
        &*gone,
    ];
    assert_eq!(subjects(&near, 4), expected);
    assert_eq!(subjects(&far, 4), expected);
    listening.close();
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn a_latest_queue_of_a_remote_client_ends_with_the_newest_of_each_subject() {
    let (local, server, urls) = serve("latest", ServerOptions::default());
    let remote = connect(&urls[0]);
    let options = SubscribeOptions {
        policy: Policy::Latest,
        ..SubscribeOptions::default()
    };
    let prices = remote.subscribe_with("price.*", options).unwrap();
    let names: Vec<String> = (0..10).map(|number| format!("price.{number}")).collect();
    let mut publishers: Vec<Publisher> = names
        .iter()
        .map(|name| local.publisher(name).unwrap())
        .collect();
    const COUNT: u64 = 3000;
    for number in 1..=COUNT {
        for publisher in &mut publishers {
            publisher.publish(&number.to_le_bytes()).unwrap();
        }
    }
    let mut newest = [0; 10];
    let mut seen = [0; 10];
    while newest.iter().any(|number| *number < COUNT) {
        let batch = prices.receive(64, PATIENCE_NS).unwrap();
        for view in batch.messages() {
            let at = usize::from(view.subject()[6] - b'0');
            let number = u64::from_le_bytes(view.payload().try_into().unwrap());
            assert!(number > newest[at], "nothing old behind something new");
            newest[at] = number;
            seen[at] += 1 + u64::from(view.lost_before);
        }
    }
    assert_eq!(seen, [COUNT; 10], "each is there or was replaced");
    remote.close();
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn a_drain_brings_what_waits_at_the_server_and_sends_what_was_published() {
    let (local, server, urls) = serve("drain", ServerOptions::default());
    let remote = connect(&urls[0]);
    let numbers = remote.subscribe("to.remote").unwrap();
    let heard = local.subscribe("to.local").unwrap();
    const COUNT: u64 = 5000;
    let payload = [7; 400];
    let mut publisher = local.publisher("to.remote").unwrap();
    for _ in 0..COUNT {
        publisher.publish_wait(&payload, PATIENCE_NS).unwrap();
        let message = Message {
            subject: b"to.local",
            payload: &payload,
            ..Message::default()
        };
        remote.publish_wait(&message, PATIENCE_NS).unwrap();
    }
    let reader = thread::spawn(move || {
        let mut count = 0;
        loop {
            match numbers.receive(64, PATIENCE_NS) {
                Ok(batch) => count += batch.messages().len() as u64,
                Err(error) => {
                    assert_eq!(error.status(), Status::End);
                    return count;
                }
            }
        }
    });
    remote.drain(PATIENCE_NS).unwrap();
    let refused = remote.publish("to.local", payload).unwrap_err();
    assert_eq!(refused.status(), Status::Closed);
    assert_eq!(reader.join().unwrap(), COUNT);
    let mut count = 0;
    while let Ok(batch) = heard.receive(64, 0) {
        count += batch.messages().len() as u64;
    }
    assert_eq!(
        count, COUNT,
        "the server has read them before the drain ended"
    );
    remote.close();
    server.close(PATIENCE_NS);
    local.close();
}

#[test]
fn clients_go_to_the_servers_that_theirs_has_named() {
    let (second, spare, elsewhere) = serve("spare", ServerOptions::default());
    let options = ServerOptions {
        servers: elsewhere[0].clone(),
        ..ServerOptions::default()
    };
    let (first, server, urls) = serve("first", options);
    let connections = Arc::new(Mutex::new(0));
    let count = connections.clone();
    let options = ConnectOptions {
        on_event: Some(Arc::new(move |event| {
            if let Event::Connected { .. } = event {
                *count.lock().unwrap() += 1;
            }
        })),
        ..ConnectOptions::default()
    };
    let remote = Client::connect(&urls[0], options).unwrap();
    let heard = remote.subscribe("a").unwrap();
    server.close(PATIENCE_NS);
    first.close();
    while *connections.lock().unwrap() < 2 {
        thread::yield_now();
    }
    // Until its subscription is there.
    let got = loop {
        second.publish("a", "here").unwrap();
        if let Ok(batch) = heard.receive(1, 1_000_000) {
            break batch.messages()[0].payload().to_vec();
        }
    };
    assert_eq!(got, b"here");
    remote.close();
    spare.close(PATIENCE_NS);
    second.close();
}

#[test]
fn a_server_refuses_to_name_what_is_no_url() {
    let broker = Client::open(Options::default()).unwrap();
    let options = ServerOptions {
        servers: "nowhere".to_owned(),
        ..ServerOptions::default()
    };
    let refused = broker.listen(&["tcp://127.0.0.1:0"], options).unwrap_err();
    assert_eq!(refused.status(), Status::Invalid);
    broker.close();
}

//! The promises of `Sockets`, each of which every tier keeps.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use fastmq_driver::sockets::{
    Address, Config, ConnectionId, ConnectionOptions, DESCRIPTORS_MAX, Look, SendMode, Sending,
    Waited,
};
use fastmq_driver::{Driver, Event, FOREVER_NS, NullDriver};

use crate::echo;
use crate::world::{Family, Happened, Kind, PLAIN, Side, World};

const MEGABYTE: usize = 1 << 20;
const MILLISECOND_NS: u64 = 1_000_000;

/// More than two socket buffers of the kernel hold.
const MORE_THAN_FITS: usize = 32 * MEGABYTE;

pub(crate) fn every_byte_comes_back_whatever_the_chunks(kind: Kind) {
    for family in [Family::Unix, Family::Tcp, Family::Tcp6] {
        for mode in [SendMode::Batched, SendMode::Direct] {
            let Some(mut world) = World::new(kind, family) else {
                return;
            };
            echo::run(&mut world, 40, 200_000, 3000, mode);
        }
    }
}

pub(crate) fn a_large_payload_arrives_whole(kind: Kind) {
    for family in [Family::Unix, Family::Tcp] {
        let Some(mut world) = World::new(kind, family) else {
            return;
        };
        let size = if kind == Kind::UringFew { 2 } else { 8 } * MEGABYTE;
        let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let (server, client) = world.pair();
        let mut bytes = payload.clone();
        let sending = world.client.send(client, &mut bytes, SendMode::Batched);
        assert_eq!(sending.unwrap(), Sending::Started);
        assert_eq!(bytes.capacity(), 0, "the vector is the driver's");
        let second = &mut vec![1];
        let refused = world.client.send(client, second, SendMode::Batched);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ResourceBusy);
        assert_eq!(second, &[1]);
        assert_eq!(
            world.client.finish(client).unwrap_err().kind(),
            ErrorKind::ResourceBusy
        );
        let (mut received, mut is_sent) = (Vec::new(), false);
        while received.len() < size || !is_sent {
            for (_, happened) in world.turn() {
                match happened {
                    Happened::Received(id, bytes) if id == server => received.extend(bytes),
                    Happened::Sent(id, buffer, Ok(())) if id == client => {
                        assert!(buffer.capacity() >= size, "the vector comes back");
                        is_sent = true;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(received == payload);
    }
}

pub(crate) fn a_half_closed_peer_gets_its_answer(kind: Kind) {
    for family in [Family::Unix, Family::Tcp] {
        let Some(mut world) = World::new(kind, family) else {
            return;
        };
        let (server, client) = world.pair();
        world.send(Side::Client, client, b"question");
        world.client.finish(client).unwrap();
        assert_eq!(world.receive(Side::Server, server, 8), b"question");
        let ended = world.until(|_, happened| matches!(happened, Happened::Ended(..)));
        assert!(
            matches!(ended, Happened::Ended(id, None) if id == server),
            "{ended:?}"
        );
        world.send(Side::Server, server, b"answer");
        assert_eq!(world.receive(Side::Client, client, 6), b"answer");
        world.server.finish(server).unwrap();
        let ended = world.until(|_, happened| matches!(happened, Happened::Ended(..)));
        assert!(
            matches!(ended, Happened::Ended(id, None) if id == client),
            "{ended:?}"
        );
        world.close(Side::Server, server);
        world.close(Side::Client, client);
    }
}

pub(crate) fn a_reset_is_an_error_and_not_the_end_of_the_process(kind: Kind) {
    let families = [Family::Unix, Family::Tcp];
    for (family, is_alone) in families
        .into_iter()
        .flat_map(|it| [(it, false), (it, true)])
    {
        let Some(mut world) = World::new(kind, family) else {
            return;
        };
        let server = match world.is_simulated() {
            true => {
                let (server, client) = world.pair();
                world.client.set_receiving(client, false).unwrap();
                world.send(Side::Server, server, b"unread");
                world.close(Side::Client, client);
                server
            }
            false => reset_by_a_plain_client(&mut world, is_alone),
        };
        let ended = world.until(|_, happened| matches!(happened, Happened::Ended(..)));
        let Happened::Ended(id, error) = ended else {
            panic!("{ended:?}");
        };
        let error = error.expect("a reset is no end in order");
        assert_eq!((id, error.kind()), (server, ErrorKind::ConnectionReset));
        let error = loop {
            let sending = world
                .server
                .send(server, &mut vec![0; 10], SendMode::Batched);
            match sending {
                Err(error) => break error,
                Ok(Sending::Done) => continue,
                Ok(_) => {}
            }
            let sent = world.until(|_, happened| matches!(happened, Happened::Sent(..)));
            if let Happened::Sent(_, _, Err(error)) = sent {
                break error;
            }
        };
        let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error}");
        world.close(Side::Server, server);
    }
}

/// A client that closes while bytes wait unread, as a process does that is killed. `is_alone`: the
/// server's socket is the only one that it has.
fn reset_by_a_plain_client(world: &mut World, is_alone: bool) -> ConnectionId {
    let (listener, address) = world.listen();
    let mut client: Box<dyn Read> = match &address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).unwrap()),
        Address::Tcp(address) => Box::new(TcpStream::connect(address).unwrap()),
    };
    let accepted = world.until(|_, happened| matches!(happened, Happened::Accepted(_)));
    let Happened::Accepted(socket) = accepted else {
        panic!("{accepted:?}");
    };
    let server = world.server.adopt(socket, PLAIN).unwrap();
    if is_alone {
        world.server.close_listener(listener);
        world.until(|_, happened| matches!(happened, Happened::ListenerClosed));
    }
    world.send(Side::Server, server, b"unread");
    // The first byte says that the others are there.
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    server
}

pub(crate) fn closing_lets_go_of_a_send_in_flight(kind: Kind) {
    for family in [Family::Unix, Family::Tcp] {
        let Some(mut world) = World::new(kind, family) else {
            return;
        };
        let (server, client) = world.pair();
        world.client.set_receiving(client, false).unwrap();
        let mut bytes = vec![7; MORE_THAN_FITS];
        let sending = world.server.send(server, &mut bytes, SendMode::Batched);
        assert_eq!(sending.unwrap(), Sending::Started);
        for _ in 0..3 {
            for (_, happened) in world.turn() {
                assert!(!matches!(happened, Happened::Sent(..)), "{happened:?}");
            }
        }
        world.server.close(server);
        let refused = world.server.send(server, &mut vec![1], SendMode::Batched);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        let first = world.until(|side, _| side == Side::Server);
        assert!(
            matches!(first, Happened::Closed(id) if id == server),
            "{first:?}"
        );
        // The place is used again; the old id means nobody.
        let (again, _) = world.pair();
        assert_eq!(again.index(), server.index());
        assert_ne!(again, server);
        let refused = world.server.set_receiving(server, true);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        world.server.close(server);
        world.send(Side::Server, again, b"still here");
    }
}

pub(crate) fn receiving_stops_and_goes_on(kind: Kind) {
    for family in [Family::Unix, Family::Tcp] {
        let Some(mut world) = World::new(kind, family) else {
            return;
        };
        let (server, client) = world.pair();
        for round in 0..20_u8 {
            world.server.set_receiving(server, false).unwrap();
            world.turn();
            world.send(Side::Client, client, &[round; 100]);
            for _ in 0..3 {
                assert!(world.turn().is_empty(), "nothing is shown");
            }
            world.server.set_receiving(server, true).unwrap();
            // Off and on again within a turn changes nothing.
            world.server.set_receiving(server, false).unwrap();
            world.server.set_receiving(server, true).unwrap();
            assert_eq!(world.receive(Side::Server, server, 100), [round; 100]);
        }
    }
}

pub(crate) fn descriptors_come_with_their_bytes(kind: Kind) {
    let Some(mut world) = World::new(kind, Family::Unix) else {
        return;
    };
    let options = ConnectionOptions {
        takes_descriptors: true,
    };
    let (server, client) = world.pair_with(options);
    for round in 1..=DESCRIPTORS_MAX {
        let pipes: Vec<_> = (0..round).map(|_| io::pipe().unwrap()).collect();
        let readers: Vec<_> = pipes.iter().map(|(reader, _)| reader.as_fd()).collect();
        world
            .server
            .send_descriptors(server, b"pipes", &readers)
            .unwrap();
        let arrived = world.until(|_, happened| matches!(happened, Happened::Descriptors(..)));
        let Happened::Descriptors(id, descriptors) = arrived else {
            panic!("{arrived:?}");
        };
        assert_eq!((id, descriptors.len()), (client, round));
        for (descriptor, (_, mut writer)) in descriptors.into_iter().zip(pipes) {
            writer.write_all(b"through").unwrap();
            drop(writer);
            let mut text = String::new();
            let mut reader = std::fs::File::from(descriptor);
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "through");
        }
    }
    // Without descriptors it is a connection like any other.
    world.send(Side::Server, server, b"plain");
    let expected = [b"pipes".repeat(DESCRIPTORS_MAX), b"plain".to_vec()].concat();
    assert_eq!(
        world.receive(Side::Client, client, expected.len()),
        expected
    );
    let none = world.server.send_descriptors(server, b"none", &[]);
    assert_eq!(none.unwrap_err().kind(), ErrorKind::InvalidInput);
    world.server.finish(server).unwrap();
    world.until(|_, happened| matches!(happened, Happened::Ended(id, None) if *id == client));
    world.close(Side::Client, client);
}

pub(crate) fn descriptors_that_nobody_takes_are_closed(kind: Kind) {
    let Some(mut world) = World::new(kind, Family::Unix) else {
        return;
    };
    let (server, client) = world.pair();
    let (reader, mut writer) = io::pipe().unwrap();
    world
        .server
        .send_descriptors(server, b"bytes", &[reader.as_fd()])
        .unwrap();
    drop(reader);
    assert_eq!(world.receive(Side::Client, client, 5), b"bytes");
    // No reader is left anywhere. Rust's tests ignore SIGPIPE.
    assert_eq!(
        writer.write(b"x").unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
}

pub(crate) fn a_waker_ends_a_wait_and_no_wake_is_lost(kind: Kind) {
    const ROUNDS: u32 = 2000;
    let Some(mut world) = World::new(kind, Family::Unix) else {
        return;
    };
    let work = AtomicU32::new(0);
    let done = AtomicU32::new(0);
    let waker = world.server.waker();
    let may_be_late = world.is_simulated();
    thread::scope(|scope| {
        let waking = scope.spawn(|| {
            for round in 1..=ROUNDS {
                work.store(round, Ordering::Release);
                waker.wake();
                while done.load(Ordering::Acquire) != round {
                    thread::yield_now();
                }
            }
        });
        let mut seen = 0;
        while seen < ROUNDS {
            // A simulated wait has nobody who could wake it.
            let deadline_ns = if may_be_late { 0 } else { FOREVER_NS };
            let mut look = |_| work.load(Ordering::Acquire) != seen;
            world.server.wait(deadline_ns, 0, &mut look).unwrap();
            assert!(world.server.next().is_none());
            if work.load(Ordering::Acquire) != seen {
                seen += 1;
                assert_eq!(work.load(Ordering::Acquire), seen);
                done.store(seen, Ordering::Release);
            }
        }
        // Joined by hand: the scope's own join is none that the thread sanitizer sees.
        waking.join().unwrap();
    });
}

pub(crate) fn eventfds_of_peers_end_waits_and_cannot_be_taken_away(kind: Kind) {
    let Some(mut world) = World::new(kind, Family::Unix) else {
        return;
    };
    if world.is_simulated() {
        let event = OwnedFd::from(io::pipe().unwrap().0);
        let refused = world.server.watch(event).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        return;
    }
    let driver = NullDriver::new();
    let events: Vec<Event> = (0..100).map(|_| driver.event().unwrap()).collect();
    let copy = |event: &Event| {
        // SAFETY: the event is open for the whole test.
        let fd = unsafe { BorrowedFd::borrow_raw(event.fd()) };
        fd.try_clone_to_owned().unwrap()
    };
    let ids: Vec<_> = events
        .iter()
        .map(|event| world.server.watch(copy(event)).unwrap())
        .collect();
    for _ in 0..3 {
        for event in &events {
            event.signal();
            event.signal();
        }
        let mut waiting: Vec<_> = ids.clone();
        while !waiting.is_empty() {
            let signalled = world.until(|_, _| true);
            let Happened::Signalled(id) = signalled else {
                panic!("{signalled:?}");
            };
            let at = waiting.iter().position(|it| *it == id);
            waiting.remove(at.expect("each is told once"));
        }
        for _ in 0..3 {
            assert!(world.turn().is_empty(), "what was told is not told again");
        }
    }
    // A peer that empties the eventfd takes nothing away.
    events[0].signal();
    events[0].clear();
    events[1].signal();
    let signalled = world.until(|_, _| true);
    assert!(matches!(signalled, Happened::Signalled(id) if id == ids[1] || id == ids[0]));
    // A sleeping shard wakes.
    world.turn();
    let mut waited = Waited::TimedOut;
    thread::scope(|scope| {
        let mut signalling = None;
        let mut look = |why| {
            if why == Look::Sleeping && signalling.is_none() {
                signalling = Some(scope.spawn(|| events[2].signal()));
            }
            false
        };
        waited = world.server.wait(FOREVER_NS, 0, &mut look).unwrap();
        if let Some(thread) = signalling {
            thread.join().unwrap();
        }
    });
    assert_eq!(waited, Waited::Slept);
    let signalled = world.until(|_, _| true);
    assert!(matches!(signalled, Happened::Signalled(id) if id == ids[2]));
    // One that is closed here tells nothing, though its peer still has it.
    events[3].signal();
    world.server.wait(0, 0, &mut |_| false).unwrap();
    world.server.unwatch(ids[3]);
    events[3].signal();
    for _ in 0..3 {
        assert!(world.turn().is_empty());
    }
}

pub(crate) fn a_wait_ends_at_its_deadline_and_not_before(kind: Kind) {
    let Some(mut world) = World::new(kind, Family::Unix) else {
        return;
    };
    let (_server, _client) = world.pair();
    let cases = [
        (5 * MILLISECOND_NS, 0),
        (1, 0),
        (MILLISECOND_NS, 10_000),
        (MILLISECOND_NS, FOREVER_NS),
    ];
    for (rest_ns, spin_ns) in cases {
        let deadline_ns = world.now_ns() + rest_ns;
        let may_sleep = spin_ns < FOREVER_NS || world.is_simulated();
        let mut looks = 0;
        loop {
            let mut look = |why| {
                assert!(
                    why == Look::Spinning || may_sleep,
                    "it was to spin until then"
                );
                looks += 1;
                false
            };
            let waited = world.server.wait(deadline_ns, spin_ns, &mut look).unwrap();
            assert!(world.server.next().is_none());
            // An earlier return without a reason is allowed, but it must not say "timed out".
            if waited == Waited::TimedOut {
                break;
            }
        }
        assert!(world.now_ns() >= deadline_ns);
        assert!(looks > 0);
    }
    // Other work ends it at once.
    let waited = world.server.wait(FOREVER_NS, 0, &mut |_| true).unwrap();
    assert_eq!(waited, Waited::Ready);
    let spinning = if world.is_simulated() {
        Waited::Ready
    } else {
        Waited::Spun
    };
    let mut looks = 0;
    let mut look = |_| {
        looks += 1;
        looks > 3 || spinning == Waited::Ready
    };
    let waited = world
        .server
        .wait(FOREVER_NS, FOREVER_NS / 2, &mut look)
        .unwrap();
    assert_eq!(waited, spinning);
}

pub(crate) fn a_thousand_connections_are_served(kind: Kind) {
    for family in [Family::Unix, Family::Tcp] {
        let Some(mut world) = World::new(kind, family) else {
            return;
        };
        let count = if cfg!(fastmq_tsan) { 200 } else { 1000 };
        echo::run(&mut world, count, 50_000, 100, SendMode::Batched);
    }
}

pub(crate) fn a_ring_that_overflows_loses_nothing_and_mixes_nothing(kind: Kind) {
    // Twice as many connections as completions fit: the kernel keeps the rest, and ends requests.
    let count = if cfg!(fastmq_tsan) { 600 } else { 1000 };
    for family in [Family::Unix, Family::Tcp] {
        let config = Config {
            ring_entries: 64,
            receive_bytes: 16 * 1024,
            ..Config::default()
        };
        let Some(mut world) = World::with(kind, family, config) else {
            return;
        };
        echo::run(&mut world, count, 400_000, 1500, SendMode::Direct);
    }
}

pub(crate) fn one_connection_more_than_the_limit_is_refused(kind: Kind) {
    let config = Config {
        connections_max: 2,
        ..Config::default()
    };
    let Some(mut world) = World::with(kind, Family::Unix, config) else {
        return;
    };
    let (_, address) = world.listen();
    let (first, _) = (world.connect(&address), world.connect(&address));
    let refused = world.client.connect(&address, PLAIN).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
    assert_eq!(refused.to_string(), "the limit of 2 connections is reached");
    world.close(Side::Client, first);
    world.connect(&address);
}

pub(crate) fn a_connect_that_is_refused_says_so(kind: Kind) {
    let Some(mut world) = World::new(kind, Family::Tcp) else {
        return;
    };
    // A port that was free a moment ago.
    let (listener, address) = world.listen();
    world.server.close_listener(listener);
    world.until(|_, happened| matches!(happened, Happened::ListenerClosed));
    let client = match world.client.connect(&address, PLAIN) {
        Ok(client) => client,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            return;
        }
    };
    let early = world.client.send(client, &mut vec![1], SendMode::Batched);
    assert_eq!(early.unwrap_err().kind(), ErrorKind::NotConnected);
    let connected = world.until(|_, happened| matches!(happened, Happened::Connected(..)));
    let Happened::Connected(id, Err(error)) = connected else {
        panic!("{connected:?}");
    };
    assert_eq!((id, error.kind()), (client, ErrorKind::ConnectionRefused));
    world.close(Side::Client, client);
}

pub(crate) fn an_address_is_used_once(kind: Kind) {
    for family in [Family::Unix, Family::Tcp] {
        let Some(mut world) = World::new(kind, family) else {
            return;
        };
        let (listener, address) = world.listen();
        let refused = world.client.listen(&address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        world.server.close_listener(listener);
        world.until(|_, happened| matches!(happened, Happened::ListenerClosed));
        if let Address::Unix(path) = &address {
            let _ = std::fs::remove_file(path);
        }
        world.client.listen(&address).unwrap();
    }
}

pub(crate) fn a_unix_peer_is_known(kind: Kind) {
    let Some(mut world) = World::new(kind, Family::Unix) else {
        return;
    };
    let (server, _) = world.pair();
    let peer = world.server.peer_credentials(server).unwrap();
    if !world.is_simulated() {
        assert_eq!(u32::try_from(peer.process), Ok(process::id()));
    }
    let Some(mut world) = World::new(kind, Family::Tcp) else {
        return;
    };
    let (server, _) = world.pair();
    if !world.is_simulated() {
        let refused = world.server.peer_credentials(server).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        let Address::Tcp(peer) = world.server.peer_address(server).unwrap() else {
            panic!("not TCP");
        };
        assert!(peer.ip().is_loopback());
    }
}

pub(crate) fn a_turn_is_bounded(kind: Kind) {
    use fastmq_driver::sockets::TURN_COMPLETIONS_MAX;
    let Some(mut world) = World::new(kind, Family::Unix) else {
        return;
    };
    // Each closed connection is a completion that needs nobody else.
    let (_, address) = world.listen();
    let count = TURN_COMPLETIONS_MAX as usize + 10;
    let mut ids = Vec::new();
    while ids.len() < count {
        match world.client.connect(&address, PLAIN) {
            Ok(id) => ids.push(id),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        if ids.len() % 100 == 0 {
            world.turn();
        }
    }
    for id in ids {
        world.client.close(id);
    }
    let mut total = 0;
    while total < count {
        world.client.wait(0, 0, &mut |_| false).unwrap();
        let mut in_turn = 0;
        while world.client.next().is_some() {
            in_turn += 1;
        }
        assert!(in_turn <= TURN_COMPLETIONS_MAX);
        total += in_turn as usize;
    }
}

pub(crate) fn what_is_dropped_leaves_nothing_behind(kind: Kind) {
    for family in [Family::Unix, Family::Tcp] {
        let Some(mut world) = World::new(kind, family) else {
            return;
        };
        let (server, client) = world.pair();
        let (_, _) = world.listen();
        world.server.set_receiving(server, false).unwrap();
        let mut bytes = vec![7; MORE_THAN_FITS];
        world
            .client
            .send(client, &mut bytes, SendMode::Batched)
            .unwrap();
        world.turn();
        // With a send in flight, receives armed and a listener: the peer sees an end.
        let (mut dropped, mut rest) = (World::new(kind, family).unwrap(), world);
        std::mem::swap(&mut dropped.client, &mut rest.client);
        if !rest.is_simulated() {
            drop(dropped);
            rest.server.set_receiving(server, true).unwrap();
            rest.until(|_, happened| matches!(happened, Happened::Ended(id, _) if *id == server));
        }
    }
}

//! A server in a process of its own, and what happens to it: killed, flooded, fed with nonsense,
//! out of descriptors. Others keep working, and everything that was asked has exactly one fate.

mod process;

use std::collections::HashSet;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastmq::{Client, ConnectOptions, Event, RequesterOptions, Status};

use process::{CONNECTIONS_MAX, PATIENCE_NS, Process, echoes, with_descriptors};

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("fastmq-{name}-{}.sock", std::process::id()))
}

/// A HELLO of version 1 as docs/protocol.md has it.
fn hello() -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&32u32.to_le_bytes());
    frame.extend_from_slice(&[16, 0, 0, 0]);
    frame.extend_from_slice(b"FASTMQW1");
    frame.extend_from_slice(&[1, 0, 0, 0, 8, 0, 0, 0]);
    frame.extend_from_slice(&(1u64 | 1 << 32).to_le_bytes());
    frame
}

/// A connection that has been welcomed; `None`: it was refused or closed.
fn welcomed(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&hello()).unwrap();
    let mut head = [0; 16];
    stream.read_exact(&mut head).ok()?;
    (head[4] == 17).then_some(stream)
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[test]
fn a_killed_server_leaves_every_request_with_one_fate_and_comes_back() {
    is_killed_and_comes_back("unix");
}

#[test]
fn so_does_one_that_shared_memory() {
    is_killed_and_comes_back("shm");
}

fn is_killed_and_comes_back(way: &str) {
    let path = socket(&format!("killed-{way}"));
    let url = format!("{way}:{}", path.display());
    let mut process = Process::start(&url, &[]);
    let connected = Arc::new(AtomicU64::new(0));
    let lost = Arc::new(AtomicU64::new(0));
    let (counting, losing) = (connected.clone(), lost.clone());
    let options = ConnectOptions {
        backoff_min_ns: 1_000_000,
        backoff_max_ns: 20_000_000,
        on_event: Some(Arc::new(move |event| match event {
            Event::Connected { .. } => {
                counting.fetch_add(1, Ordering::SeqCst);
            }
            Event::Disconnected { .. } => {
                losing.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        })),
        ..ConnectOptions::default()
    };
    let client = Client::connect(&url, options).unwrap();
    let heard = client.subscribe("news.>").unwrap();
    let mut requester = client
        .requester(RequesterOptions {
            in_flight_max: 512,
            subject: b"echo",
            ..RequesterOptions::default()
        })
        .unwrap();
    let (mut answered, mut broken) = (0u64, 0u64);
    for round in 0..5u64 {
        let mut open = HashSet::new();
        let mut next = round << 32;
        let enough = answered + 20_000;
        let mut is_killed = false;
        while !(is_killed && open.is_empty()) {
            while !is_killed && open.len() < 512 {
                let submitted = requester.submit(&next.to_le_bytes(), next, PATIENCE_NS);
                match submitted {
                    Ok(()) => assert!(open.insert(next)),
                    Err(error) => {
                        let status = error.status();
                        assert!(
                            matches!(status, Status::Again | Status::Unavailable),
                            "{error:?}"
                        );
                        break;
                    }
                }
                next += 1;
            }
            let Ok(batch) = requester.receive(512, 100_000_000) else {
                continue;
            };
            for view in batch.messages() {
                assert!(open.remove(&view.token), "one fate for each");
                match Status::from_number(view.status) {
                    Some(Status::Ok) => {
                        assert_eq!(view.payload(), view.token.to_le_bytes());
                        answered += 1;
                    }
                    Some(Status::Disconnected | Status::Busy) => broken += 1,
                    other => panic!("{other:?}"),
                }
            }
            drop(batch);
            if !is_killed && answered >= enough {
                process.kill();
                is_killed = true;
            }
        }
        assert!(path.exists(), "a killed server leaves its socket file");
        process = Process::start(&url, &[]);
        // A publish that is heard shows that the subscription was made again.
        let mut news = 0;
        loop {
            let published = client.publish("news.round", round.to_le_bytes());
            assert!(published.is_ok() || news > 0, "{published:?}");
            news += 1;
            match heard.receive(16, 20_000_000) {
                Ok(batch) => {
                    let last = batch.messages().last().unwrap();
                    if last.payload() == round.to_le_bytes() {
                        break;
                    }
                }
                Err(error) => assert_eq!(error.status(), Status::Timeout),
            }
        }
        echoes(&client, b"again");
    }
    assert!(answered >= 100_000);
    assert!(lost.load(Ordering::SeqCst) >= 5);
    assert!(connected.load(Ordering::SeqCst) >= 6);
    let _ = broken;
    drop(requester);
    client.close();
    process.kill();
    let _ = std::fs::remove_file(&path);
}

/// The kernel holds the port of a killed server for some milliseconds after its process has gone.
#[test]
fn a_killed_server_starts_again_at_its_port_at_once() {
    let mut process = Process::start("tcp://127.0.0.1:0", &[]);
    let url = process.urls[0].clone();
    for _ in 0..5 {
        let client = Client::connect(&url, ConnectOptions::default()).unwrap();
        echoes(&client, b"before");
        process.kill();
        process = Process::start(&url, &[]);
        client.close();
    }
}

#[test]
fn six_thousand_connections_meet_a_limit_of_five_thousand() {
    let crowd = with_descriptors("$(ulimit -Hn)")
        .args(["a_crowd", "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&crowd.stderr);
    assert!(crowd.status.success(), "{said}");
    let said = String::from_utf8_lossy(&crowd.stdout);
    assert!(said.contains("1 passed"), "{said}");
}

/// The clients of that test, in a process that may have as many descriptors.
#[test]
#[ignore = "is run by six_thousand_connections_meet_a_limit_of_five_thousand"]
fn a_crowd() {
    let process = Process::start("tcp://127.0.0.1:0", &[(CONNECTIONS_MAX, "5000")]);
    let client = Client::connect(&process.urls[0], ConnectOptions::default()).unwrap();
    let address = process.address(0);
    let before = process.resident();
    let mut kept = Vec::new();
    let mut refused = 0;
    for _ in 0..6000 {
        match welcomed(address) {
            Some(stream) => kept.push(stream),
            None => refused += 1,
        }
    }
    assert_eq!((kept.len(), refused), (4999, 1001));
    echoes(&client, b"still here");
    let each = process.resident().saturating_sub(before) / 5000;
    assert!(each < 16 << 10, "{each} bytes for a connection");
    // Room that is given back is used again.
    kept.truncate(4000);
    while kept.len() < 4500 {
        if let Some(stream) = welcomed(address) {
            kept.push(stream);
        }
    }
    echoes(&client, b"and here");
    client.close();
}

#[test]
fn a_server_without_descriptors_serves_those_that_it_has_and_then_the_others() {
    let process = Process::run(with_descriptors("64"), "tcp://127.0.0.1:0", &[]);
    let client = Client::connect(&process.urls[0], ConnectOptions::default()).unwrap();
    let address = process.address(0);
    let mut waiting: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&hello()).unwrap();
            stream
        })
        .collect();
    // The first ones are served although the last ones cannot be.
    let mut head = [0; 16];
    waiting[0].read_exact(&mut head).unwrap();
    assert_eq!(head[4], 17);
    echoes(&client, b"no descriptors left");
    // The last ones are served when the first ones have gone.
    waiting.drain(..60);
    for stream in &mut waiting {
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[4], 17);
    }
    echoes(&client, b"some are free");
    client.close();
}

#[test]
fn nonsense_before_and_after_the_handshake_hurts_nobody_else() {
    let process = Process::start("tcp://127.0.0.1:0", &[]);
    let client = Client::connect(&process.urls[0], ConnectOptions::default()).unwrap();
    let address = process.address(0);
    echoes(&client, b"before");
    let before = process.resident();
    let mut state = 7;
    for round in 0..300u64 {
        let mut stream = match round % 2 {
            0 => TcpStream::connect(address).unwrap(),
            _ => welcomed(address).unwrap(),
        };
        let mut bytes = vec![0; 1 + (random(&mut state) % 5000) as usize];
        for byte in &mut bytes {
            *byte = random(&mut state) as u8;
        }
        match round % 6 {
            // A length of 4 GiB, then silence until it is closed.
            0 | 1 => bytes.iter_mut().take(4).for_each(|byte| *byte = 0xFF),
            // A whole frame of a plausible size.
            2 | 3 if bytes.len() >= 8 => {
                let length = (bytes.len() as u32).to_le_bytes();
                bytes[..4].copy_from_slice(&length);
                bytes[4] = (random(&mut state) % 34) as u8;
            }
            _ => {}
        }
        match stream.write_all(&bytes) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
        if round % 10 == 0 {
            echoes(&client, &bytes[..bytes.len().min(100)]);
        }
    }
    // As many that claim much and send little, all at once.
    let greedy: Vec<TcpStream> = (0..500)
        .map(|_| {
            let mut stream = welcomed(address).unwrap();
            let length = 1_000_000u32.to_le_bytes();
            stream.write_all(&length).unwrap();
            stream.write_all(&[1, 0, 0, 0, 0, 0]).unwrap();
            stream
        })
        .collect();
    echoes(&client, b"after");
    let grown = process.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for nothing");
    drop(greedy);
    client.close();
}

#[test]
fn a_byte_at_a_time_is_served_and_a_closed_half_closed() {
    let process = Process::start("tcp://127.0.0.1:0", &[]);
    let address = process.address(0);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut question = Vec::new();
    question.extend_from_slice(&24u32.to_le_bytes());
    question.extend_from_slice(&[2, 0, 0, 0]);
    question.extend_from_slice(&5u32.to_le_bytes());
    question.extend_from_slice(&4u32.to_le_bytes());
    question.extend_from_slice(b"pingecho");
    for byte in hello() {
        stream.write_all(&[byte]).unwrap();
    }
    let mut received = BufReader::new(stream.try_clone().unwrap());
    let mut next = || {
        let mut head = [0; 16];
        received.read_exact(&mut head).unwrap();
        let length = u32::from_le_bytes(head[..4].try_into().unwrap());
        let mut rest = vec![0; (length as usize).next_multiple_of(8) - 16];
        received.read_exact(&mut rest).unwrap();
        rest.truncate(length as usize - 16);
        (head[4], rest)
    };
    assert_eq!(next().0, 17);
    for byte in &question {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(next(), (3, b"ping".to_vec()));
    // An end without CLOSE is the end of the connection: ours comes behind it.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(received.read(&mut [0]).unwrap(), 0);
}

//! A process that writes into the memory it shares with another whatever it likes: it ends its own
//! connection and hurts nobody else. The frames are made by hand, from `docs/protocol.md`.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use fastmq::{
    Client, ConnectOptions, Delivery, Message, Options, Server, ServerOptions, SubscribeOptions,
    Subscription, View,
};
use fastmq_engine::driver::shared::{self, SharedMemory};
use fastmq_engine::driver::sockets::{
    self, Address, Completion, Config, ConnectionId, ConnectionOptions, Look, SendMode, Sockets,
};
use fastmq_engine::driver::{Driver, NullDriver};

const PATIENCE_NS: u64 = 60_000_000_000;
const RING_BYTES: u64 = 4 << 20;
/// Where the rings and their words are.
const TO_CLIENT: usize = (384 + RING_BYTES as usize).next_multiple_of(4096);
const MEMORY_BYTES: usize = 2 * TO_CLIENT;
const TAIL: usize = 128;
const HEAD: usize = 256;
const DATA: usize = 384;
/// More than a shard has rings for.
const ROUNDS: u64 = 100;

const HELLO: u8 = 16;
const WELCOME: u8 = 17;
const ERROR: u8 = 19;
const PING: u8 = 28;
const SHM: u64 = 1 << 6;
const LENGTH: u32 = 1;

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A control frame with fields.
fn frame(kind: u8, first: u64, fields: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, kind, 0, 0, 0];
    bytes.extend_from_slice(&first.to_le_bytes());
    for (id, value) in fields {
        bytes.extend_from_slice(&u64::from(*id).to_le_bytes()[..4]);
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn magic() -> u64 {
    u64::from_le_bytes(*b"FASTMQW1")
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("fastmq-{name}-{}.sock", std::process::id()))
}

fn connect(url: &str) -> Client {
    let options = ConnectOptions {
        backoff_min_ns: 1_000_000,
        backoff_max_ns: 20_000_000,
        ..ConnectOptions::default()
    };
    Client::connect(url, options).unwrap()
}

/// A broker that shares memory and echoes.
fn serve(path: &Path) -> (Client, Server, Subscription) {
    let broker = Client::open(Options::default()).unwrap();
    let answering = broker.clone();
    let on_message = move |view: &View| {
        let _ = answering.reply(view.token, view.payload());
    };
    let inline = SubscribeOptions {
        delivery: Delivery::Inline,
        on_message: Some(Box::new(on_message)),
        ..SubscribeOptions::default()
    };
    let echo = broker.subscribe_with("echo", inline).unwrap();
    let url = format!("shm:{}", path.display());
    let server = broker.listen(&[&url], ServerOptions::default()).unwrap();
    (broker, server, echo)
}

/// Whether `echo` answers.
fn echoes(client: &Client, payload: &[u8]) -> bool {
    let message = Message {
        subject: b"echo",
        payload,
        ..Message::default()
    };
    let reply = client.request(&message, PATIENCE_NS);
    reply.is_ok_and(|reply| reply.payload[..] == *payload)
}

/// Sockets, and what has come over a connection.
struct Peer {
    sockets: Box<dyn Sockets + Send>,
    connection: Option<ConnectionId>,
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    has_ended: bool,
}

impl Peer {
    fn new() -> Self {
        Self {
            sockets: sockets::open_movable(&Config::default()).unwrap(),
            connection: None,
            bytes: Vec::new(),
            descriptors: Vec::new(),
            has_ended: false,
        }
    }

    /// Waits for something until `is_there` says that it has come.
    fn wait_until(&mut self, is_there: impl Fn(&Self) -> bool) {
        let end_ns = NullDriver::new().monotonic_ns() + PATIENCE_NS;
        while !is_there(self) {
            let waited = self.sockets.wait(end_ns, 0, &mut |_: Look| false);
            assert!(waited.is_ok() && NullDriver::new().monotonic_ns() < end_ns);
            while let Some(completion) = self.sockets.next() {
                match completion {
                    Completion::Received { bytes, .. } => self.bytes.extend_from_slice(bytes),
                    Completion::Descriptors { descriptors, .. } => self.descriptors = descriptors,
                    Completion::Connected { connection, result } => {
                        result.unwrap();
                        self.connection = Some(connection);
                    }
                    Completion::Accepted { socket, .. } => {
                        let options = ConnectionOptions::default();
                        let adopted = self.sockets.adopt(socket, options);
                        self.connection = Some(adopted.unwrap());
                    }
                    Completion::Ended { .. } => self.has_ended = true,
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let connection = self.connection.unwrap();
        let mut bytes = bytes.to_vec();
        let sent = self.sockets.send(connection, &mut bytes, SendMode::Direct);
        sent.unwrap();
    }
}

/// A client with rings that it may write to.
struct Intruder {
    peer: Peer,
    memory: SharedMemory,
    file: OwnedFd,
    wakes_server: OwnedFd,
}

impl Intruder {
    fn join(path: &Path) -> Self {
        let mut peer = Peer::new();
        let options = ConnectionOptions {
            takes_descriptors: true,
        };
        let address = Address::Unix(path.to_owned());
        peer.sockets.connect(&address, options).unwrap();
        peer.wait_until(|it| it.connection.is_some());
        let versions = (1u64 | 1 << 32).to_le_bytes();
        let fields: [(u16, &[u8]); 2] = [(1, &versions), (3, &SHM.to_le_bytes())];
        peer.send(&frame(HELLO, magic(), &fields));
        peer.wait_until(|it| it.descriptors.len() == 3 && it.bytes.len() >= 16);
        assert_eq!(peer.bytes[4], WELCOME);
        let mut descriptors = std::mem::take(&mut peer.descriptors).into_iter();
        let mut next = || descriptors.next().unwrap();
        let (file, wakes_server) = (next(), next());
        peer.bytes.clear();
        Self {
            memory: SharedMemory::open(file.as_fd(), MEMORY_BYTES).unwrap(),
            peer,
            file,
            wakes_server,
        }
    }

    fn write(&self, at: usize, value: u64) {
        self.memory.words(at, 1)[0].store(value, Ordering::SeqCst);
    }

    fn write_bytes(&self, at: usize, bytes: &[u8]) {
        for (at, word) in (at..).step_by(8).zip(bytes.chunks_exact(8)) {
            self.write(at, u64::from_le_bytes(word.try_into().unwrap()));
        }
    }

    /// Moves the cursor that says how much there is, and wakes the server.
    fn show(&self, tail: u64) {
        self.write(TAIL, tail);
        shared::wake(&self.wakes_server);
    }

    fn is_refused(&mut self) {
        self.peer.wait_until(|it| it.has_ended);
    }
}

#[test]
fn the_memory_cannot_be_taken_away() {
    let path = socket("seals");
    let (broker, server, _echo) = serve(&path);
    let neighbour = connect(&format!("shm:{}", path.display()));
    let intruder = Intruder::join(&path);
    let file = File::from(intruder.file.try_clone().unwrap());
    assert_eq!(file.metadata().unwrap().len(), MEMORY_BYTES as u64);
    for size in [0, 4096, 2 * MEMORY_BYTES as u64] {
        let error = file.set_len(size).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{size}");
    }
    // What is there is still used.
    intruder.write_bytes(DATA, &frame(PING, 7, &[]));
    intruder.show(16);
    while intruder.memory.words(TO_CLIENT + TAIL, 1)[0].load(Ordering::SeqCst) == 0 {
        assert!(echoes(&neighbour, b"until the PONG is there"));
    }
    neighbour.close();
    server.close(0);
    broker.close();
}

#[test]
fn cursors_out_of_range_end_the_connection_with_a_word_over_the_socket() {
    let path = socket("cursors");
    let (broker, server, _echo) = serve(&path);
    let neighbour = connect(&format!("shm:{}", path.display()));
    for tail in [1, 4, RING_BYTES + 8, 1 << 32, u64::MAX - 7, u64::MAX] {
        let mut intruder = Intruder::join(&path);
        intruder.show(tail);
        intruder.is_refused();
        let said = &intruder.peer.bytes;
        let reason = u32::from_le_bytes(said[12..16].try_into().unwrap());
        assert_eq!((said[4], reason), (ERROR, LENGTH), "{tail}");
        assert!(echoes(&neighbour, &tail.to_le_bytes()));
    }
    neighbour.close();
    server.close(0);
    broker.close();
}

#[test]
fn scribbling_hurts_nobody_else() {
    let path = socket("scribbling");
    let (broker, server, _echo) = serve(&path);
    let neighbour = connect(&format!("shm:{}", path.display()));
    let heard = neighbour.subscribe("noise").unwrap();
    for seed in 0..ROUNDS {
        let mut state = seed;
        let mut intruder = Intruder::join(&path);
        match seed % 4 {
            // Frames of nothing, as a hole in the file would be.
            0 => {
                intruder.show(16 << (random(&mut state) % 16));
                intruder.is_refused();
            }
            // Frames of chance, the first of which nobody knows.
            1 => {
                let size = 64 + random(&mut state) % 100_000 / 8 * 8;
                intruder.write(DATA, 16);
                for at in (DATA + 8..DATA + size as usize).step_by(8) {
                    intruder.write(at, random(&mut state));
                }
                intruder.show(size);
                intruder.is_refused();
            }
            // A frame that says to be longer than a frame may be.
            2 => {
                let length = [4 << 20, u64::from(u32::MAX)][random(&mut state) as usize % 2];
                intruder.write(DATA, length | 1 << 32);
                intruder.show(24);
                intruder.is_refused();
            }
            // Anything anywhere, while the server reads and writes.
            _ => {
                let words = [TAIL, TAIL + 8, HEAD, HEAD + 8, 0, 8];
                for round in 0..3000 {
                    let ring = [0, TO_CLIENT][random(&mut state) as usize % 2];
                    let at = match random(&mut state) % 4 {
                        0 => words[random(&mut state) as usize % words.len()],
                        _ => DATA + random(&mut state) as usize % 4096 / 8 * 8,
                    };
                    let shift = random(&mut state) % 64;
                    intruder.write(ring + at, random(&mut state) >> shift);
                    if round % 100 == 0 {
                        shared::wake(&intruder.wakes_server);
                        neighbour.publish("noise", b"meanwhile").unwrap();
                    }
                }
            }
        }
        assert!(echoes(&neighbour, &seed.to_le_bytes()), "{seed}");
        while heard.receive(64, 0).is_ok() {}
    }
    neighbour.close();
    server.close(0);
    broker.close();
}

/// What a server does that means its clients ill.
#[derive(Clone, Copy, Debug)]
enum Malice {
    FewDescriptors,
    NoMemory,
    TooSmall,
    Empty,
    OddSizes,
    BadCursor,
    BadFrames,
}

/// Welcomes one client with rings that are not what they should be.
fn welcome_badly(peer: &mut Peer, malice: Malice) {
    peer.wait_until(|it| it.bytes.len() >= 16);
    let bytes = match malice {
        Malice::TooSmall => MEMORY_BYTES / 2,
        _ => MEMORY_BYTES,
    };
    let (memory, mut file) = SharedMemory::create(bytes).unwrap();
    let word = |at: usize, value: u64| memory.words(at, 1)[0].store(value, Ordering::SeqCst);
    let is_ring = !matches!(malice, Malice::Empty | Malice::TooSmall);
    for base in [0, TO_CLIENT].into_iter().filter(|_| is_ring) {
        word(base, u64::from_le_bytes(*b"FASTMQL1"));
        word(base + 8, RING_BYTES);
    }
    match malice {
        Malice::NoMemory => file = shared::wake_event().unwrap(),
        Malice::BadCursor => word(TO_CLIENT + TAIL, RING_BYTES + 8),
        Malice::BadFrames => word(TO_CLIENT + TAIL, 64),
        _ => {}
    }
    let mut rings = [RING_BYTES.to_le_bytes(), RING_BYTES.to_le_bytes()].concat();
    if matches!(malice, Malice::OddSizes) {
        rings[0] = 8;
    }
    let one = 1u64.to_le_bytes();
    let fields: [(u16, &[u8]); 3] = [(2, &one), (3, &SHM.to_le_bytes()), (29, &rings)];
    let welcome = frame(WELCOME, magic(), &fields);
    let events = [shared::wake_event().unwrap(), shared::wake_event().unwrap()];
    let descriptors = [file.as_fd(), events[0].as_fd(), events[1].as_fd()];
    let count = match malice {
        Malice::FewDescriptors => 1,
        _ => 3,
    };
    let connection = peer.connection.unwrap();
    let sockets = &mut peer.sockets;
    let sent = sockets.send_descriptors(connection, &welcome, &descriptors[..count]);
    sent.unwrap();
    peer.wait_until(|it| it.has_ended);
}

#[test]
fn a_client_leaves_a_server_whose_rings_are_wrong_for_the_next_one() {
    let path = socket("honest");
    let (broker, server, _echo) = serve(&path);
    for malice in [
        Malice::FewDescriptors,
        Malice::NoMemory,
        Malice::TooSmall,
        Malice::Empty,
        Malice::OddSizes,
        Malice::BadCursor,
        Malice::BadFrames,
    ] {
        let bad = socket("malicious");
        let mut peer = Peer::new();
        peer.sockets.listen(&Address::Unix(bad.clone())).unwrap();
        let serving = std::thread::spawn(move || welcome_badly(&mut peer, malice));
        let client = connect(&format!("shm:{},shm:{}", bad.display(), path.display()));
        while !echoes(&client, b"at the next one") {}
        serving.join().unwrap();
        client.close();
        std::fs::remove_file(&bad).unwrap();
    }
    server.close(0);
    broker.close();
}

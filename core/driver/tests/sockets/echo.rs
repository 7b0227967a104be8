//! An echo server and clients that check every byte: the load of several tests.

use std::collections::BTreeMap;

use fastmq_driver::SplitMix64;
use fastmq_driver::sockets::{Address, ConnectionId, SendMode, Sending, Sockets};

use crate::world::{Happened, Side, World};

/// One end: what waits to be sent, in turn with what is in flight.
#[derive(Default)]
pub(crate) struct Outbox {
    pending: BTreeMap<ConnectionId, Vec<u8>>,
    busy: Vec<ConnectionId>,
}

impl Outbox {
    pub(crate) fn push(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.pending.entry(connection).or_default().extend(bytes);
    }

    pub(crate) fn sent(&mut self, connection: ConnectionId) {
        self.busy.retain(|id| *id != connection);
    }

    /// One send for each connection that has something and nothing in flight.
    pub(crate) fn flush(&mut self, sockets: &mut dyn Sockets, mode: SendMode) {
        for (connection, bytes) in &mut self.pending {
            if bytes.is_empty() || self.busy.contains(connection) {
                continue;
            }
            match sockets.send(*connection, bytes, mode).unwrap() {
                Sending::Done => assert!(bytes.is_empty()),
                Sending::Started => self.busy.push(*connection),
            }
        }
    }
}

/// The bytes of one client: a sequence of its own.
pub(crate) struct Stream {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) total: u64,
    seed: u64,
}

impl Stream {
    pub(crate) fn new(seed: u64, total: u64) -> Stream {
        Stream {
            sent: 0,
            received: 0,
            total,
            seed,
        }
    }

    fn byte(&self, at: u64) -> u8 {
        let mut random = SplitMix64::new(self.seed ^ (at / 8).wrapping_mul(0x9E37_79B9));
        random.next_u64().to_le_bytes()[(at % 8) as usize]
    }

    pub(crate) fn take(&mut self, count: u64) -> Vec<u8> {
        let end = (self.sent + count).min(self.total);
        let bytes = (self.sent..end).map(|at| self.byte(at)).collect();
        self.sent = end;
        bytes
    }

    pub(crate) fn check(&mut self, bytes: &[u8]) {
        for byte in bytes {
            assert_eq!(*byte, self.byte(self.received), "byte {}", self.received);
            self.received += 1;
        }
        assert!(self.received <= self.sent);
    }
}

/// `count` clients send up to `bytes_max` bytes each in random chunks of up to `chunk_max`, and get
/// them back.
pub(crate) fn run(world: &mut World, count: u64, bytes_max: u64, chunk_max: u64, mode: SendMode) {
    let (_, address) = world.listen();
    let mut random = SplitMix64::new(count ^ bytes_max);
    let mut waiting = count;
    let mut streams = BTreeMap::new();
    let (mut inbox, mut outbox) = (Outbox::default(), Outbox::default());
    let mut done = 0;
    while done < count {
        connect(world, &address, &mut waiting, &mut streams, bytes_max);
        for (side, happened) in world.turn() {
            match (side, happened) {
                (Side::Server, Happened::Accepted(socket)) => {
                    world.server.adopt(socket, Default::default()).unwrap();
                }
                (Side::Server, Happened::Received(id, bytes)) => inbox.push(id, &bytes),
                (Side::Server, Happened::Sent(id, _, result)) => {
                    result.unwrap();
                    inbox.sent(id);
                }
                (Side::Client, Happened::Connected(id, result)) => {
                    result.unwrap();
                    let first = streams.get_mut(&id).map(|it: &mut Stream| it.take(1));
                    outbox.push(id, &first.unwrap());
                }
                (Side::Client, Happened::Received(id, bytes)) => {
                    let stream = streams.get_mut(&id).unwrap();
                    stream.check(&bytes);
                    let chunk = stream.take(1 + random.next_u64() % chunk_max);
                    outbox.push(id, &chunk);
                    if stream.received == stream.total {
                        done += 1;
                    }
                }
                (Side::Client, Happened::Sent(id, _, result)) => {
                    result.unwrap();
                    outbox.sent(id);
                }
                other => panic!("{other:?}"),
            }
        }
        inbox.flush(world.server.as_mut(), mode);
        outbox.flush(world.client.as_mut(), mode);
    }
}

/// Connects as many as the backlog takes.
fn connect(
    world: &mut World,
    address: &Address,
    waiting: &mut u64,
    streams: &mut BTreeMap<ConnectionId, Stream>,
    bytes_max: u64,
) {
    while *waiting > 0 {
        match world.client.connect(address, Default::default()) {
            Ok(id) => {
                streams.insert(id, Stream::new(*waiting, 1 + bytes_max / *waiting));
                *waiting -= 1;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
}

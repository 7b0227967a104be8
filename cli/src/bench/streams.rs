//! Many connections of one thread, as bytes: what the bench loads servers with.
//!
//! The sockets are the library's, with the driver that it would choose (`FASTMQ_DRIVER` forces
//! one). What arrives is shown to a [`Protocol`] where it lies; what that appends is sent once for
//! each turn and connection. So every server, of ours or not, is asked in equally large batches.

use std::io;
use std::net::SocketAddr;

use fastmq::border::sockets::{
    self, Address, Completion, Config, ConnectionId, ConnectionOptions, SendMode, Sending, Sockets,
};

use super::plan::Waiting;

/// How long an adaptive wait looks before it sleeps.
const SPIN_NS: u64 = 50_000;
/// Vectors that are kept for later sends.
const SPARES_MAX: usize = 64;

/// What the bytes mean.
pub(super) trait Protocol {
    /// Takes what it can off the front of `bytes` and says how many; may append to `out`.
    fn take(&mut self, stream: usize, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<usize>;
}

/// Connections that one thread drives.
pub(super) struct Streams {
    sockets: Box<dyn Sockets>,
    streams: Vec<Stream>,
    /// Streams by the place of their connection.
    by_place: Vec<usize>,
    touched: Vec<usize>,
    spares: Vec<Vec<u8>>,
    spin_ns: u64,
}

struct Stream {
    connection: ConnectionId,
    /// The beginning of something, without its end.
    input: Vec<u8>,
    output: Vec<u8>,
    is_connected: bool,
    is_sending: bool,
    is_touched: bool,
}

/// The address of a URL: `unix:PATH` or `tcp://HOST:PORT`.
pub(super) fn address_of(url: &str) -> io::Result<Address> {
    if let Some(path) = url.strip_prefix("unix:") {
        return Ok(Address::Unix(path.into()));
    }
    let tcp = url.strip_prefix("tcp://").unwrap_or_default();
    let tcp = tcp.replace("localhost:", "127.0.0.1:");
    match tcp.parse::<SocketAddr>() {
        Ok(address) => Ok(Address::Tcp(address)),
        Err(_) => Err(io::Error::other(format!(
            "`{url}` is no address that the bench knows; it is unix:PATH or tcp://ADDRESS:PORT"
        ))),
    }
}

impl Streams {
    /// `count` connections to one address, all of them there.
    pub(super) fn connect(
        address: &Address,
        count: usize,
        waiting: Waiting,
        protocol: &mut impl Protocol,
    ) -> io::Result<Self> {
        let config = Config {
            connections_max: u32::try_from(count.max(64)).map_err(io::Error::other)?,
            ..Config::default()
        };
        let mut streams = Self {
            sockets: sockets::open(&config)?.sockets,
            streams: Vec::with_capacity(count),
            by_place: Vec::new(),
            touched: Vec::new(),
            spares: Vec::new(),
            spin_ns: match waiting {
                Waiting::Adaptive => SPIN_NS,
                Waiting::Busy => u64::MAX,
                Waiting::Parked => 0,
            },
        };
        for _ in 0..count {
            streams.add(address)?;
            // One after the other: a backlog is short.
            while !streams.streams.last().is_none_or(|last| last.is_connected) {
                streams.turn(protocol, fastmq::FOREVER_NS)?;
            }
        }
        Ok(streams)
    }

    fn add(&mut self, address: &Address) -> io::Result<()> {
        let options = ConnectionOptions::default();
        let connection = self.sockets.connect(address, options)?;
        let place = connection.index();
        if self.by_place.len() <= place {
            self.by_place.resize(place + 1, usize::MAX);
        }
        self.by_place[place] = self.streams.len();
        self.streams.push(Stream {
            connection,
            input: Vec::new(),
            output: Vec::new(),
            is_connected: false,
            is_sending: false,
            is_touched: false,
        });
        Ok(())
    }

    /// Appends to what a connection sends in the next turn.
    pub(super) fn output(&mut self, stream: usize) -> &mut Vec<u8> {
        touch(&mut self.streams[stream], stream, &mut self.touched);
        &mut self.streams[stream].output
    }

    /// Whether the kernel has all that a connection was to send.
    pub(super) fn has_sent(&self, stream: usize) -> bool {
        let stream = &self.streams[stream];
        !stream.is_sending && stream.output.is_empty()
    }

    /// Sends, waits until something has come or `deadline_ns` (monotonic) has passed, and shows
    /// what has come.
    pub(super) fn turn(
        &mut self,
        protocol: &mut impl Protocol,
        deadline_ns: u64,
    ) -> io::Result<()> {
        self.flush()?;
        self.sockets
            .wait(deadline_ns, self.spin_ns, &mut |_| false)?;
        while let Some(completion) = self.sockets.next() {
            match completion {
                Completion::Received { connection, bytes } => {
                    let number = self.by_place[connection.index()];
                    let stream = &mut self.streams[number];
                    touch(stream, number, &mut self.touched);
                    if stream.input.is_empty() {
                        let taken = protocol.take(number, bytes, &mut stream.output)?;
                        stream.input.extend_from_slice(&bytes[taken..]);
                    } else {
                        stream.input.extend_from_slice(bytes);
                        let taken = protocol.take(number, &stream.input, &mut stream.output)?;
                        stream.input.drain(..taken);
                    }
                }
                Completion::Connected { connection, result } => {
                    result?;
                    self.streams[self.by_place[connection.index()]].is_connected = true;
                }
                Completion::Sent {
                    connection,
                    buffer,
                    result,
                } => {
                    result?;
                    let number = self.by_place[connection.index()];
                    let stream = &mut self.streams[number];
                    stream.is_sending = false;
                    if self.spares.len() < SPARES_MAX {
                        self.spares.push(buffer);
                    }
                    touch(stream, number, &mut self.touched);
                }
                Completion::Ended { error, .. } => {
                    let says = "the server has ended the connection";
                    return Err(error.unwrap_or_else(|| io::Error::other(says)));
                }
                _ => {}
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        for number in self.touched.drain(..) {
            let stream = &mut self.streams[number];
            stream.is_touched = false;
            if stream.is_sending || stream.output.is_empty() {
                continue;
            }
            let connection = stream.connection;
            let sent = self
                .sockets
                .send(connection, &mut stream.output, SendMode::Batched)?;
            if sent == Sending::Started {
                stream.is_sending = true;
                stream.output = self.spares.pop().unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn touch(stream: &mut Stream, number: usize, touched: &mut Vec<usize>) {
    if !stream.is_touched {
        stream.is_touched = true;
        touched.push(number);
    }
}

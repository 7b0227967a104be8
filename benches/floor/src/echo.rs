//! Frames of 48 bytes to an echo server and back over one socket, many outstanding.
//!
//! One client for all servers: a thread on core 1 that writes as many frames as came back, by plain
//! calls, and checks the number in each. The server is on core 0: the bare one of `epoll.rs`, or
//! the product's `Sockets` in one of its tiers. "spin" means that the server looks for 50 µs before
//! it sleeps and the client never sleeps; "sleep" that both always do.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastmq_driver::FOREVER_NS;
use fastmq_driver::sockets::{
    Completion, Config, ConnectionOptions, SendMode, Sending, Socket, Tier, open_tier,
};

use crate::epoll::{self, SPIN};
use crate::report::{Percentiles, Plan, percentiles, rate};
use crate::ring::pin;

pub(crate) const FRAME_BYTES: usize = 48;
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;

/// Who echoes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    Bare,
    Sockets(Tier),
}

/// How both sides wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    Spin(Duration),
    Sleep,
}

impl Wait {
    pub(crate) fn of(name: &str) -> Result<Wait, String> {
        match name {
            "spin" => Ok(Wait::Spin(SPIN)),
            "sleep" => Ok(Wait::Sleep),
            _ => Err(format!("{name} is neither spin nor sleep")),
        }
    }
}

pub(crate) fn tier(name: &str) -> Result<Tier, String> {
    let mut tiers = Tier::ALL.into_iter();
    tiers
        .find(|tier| tier.name() == name)
        .ok_or_else(|| format!("{name} is none of uring, uring-basic, epoll"))
}

/// A stream of either family.
pub(crate) trait Stream: Read + Write + AsRawFd + Send + Into<OwnedFd> {
    fn set_blocking(&self, is_blocking: bool) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn set_blocking(&self, is_blocking: bool) -> io::Result<()> {
        self.set_nonblocking(!is_blocking)
    }
}

impl Stream for TcpStream {
    fn set_blocking(&self, is_blocking: bool) -> io::Result<()> {
        self.set_nodelay(true)?;
        self.set_nonblocking(!is_blocking)
    }
}

/// Millions of frames a second that came back.
pub(crate) fn run(
    plan: Plan,
    server: Server,
    family: &str,
    outstanding: u64,
    wait: Wait,
) -> Result<f64, String> {
    with_client(server, family, wait, |client| {
        let missing = |client: &mut dyn Window| outstanding - client.in_flight();
        let value = {
            let client = std::cell::RefCell::new(client);
            rate(
                plan,
                || {
                    let mut client = client.borrow_mut();
                    let count = missing(&mut **client);
                    client.send(count);
                    client.receive()
                },
                || {
                    let mut client = client.borrow_mut();
                    while client.in_flight() > 0 {
                        client.receive();
                    }
                },
            )
        };
        Ok(value)
    })
}

/// The time of one frame to the server and back.
pub(crate) fn round_trip(
    plan: Plan,
    server: Server,
    family: &str,
    wait: Wait,
) -> Result<Percentiles, String> {
    with_client(server, family, wait, |client| {
        let percentiles = percentiles(plan, || {
            client.send(1);
            while client.receive() == 0 {}
        });
        Ok(percentiles)
    })
}

fn with_client<T>(
    server: Server,
    family: &str,
    wait: Wait,
    body: impl FnOnce(&mut dyn Window) -> Result<T, String>,
) -> Result<T, String> {
    let pair = match family {
        "unix" => return over(UnixStream::pair(), server, wait, body),
        "tcp" => tcp_pair(),
        _ => return Err(format!("{family} is neither unix nor tcp")),
    };
    over(pair, server, wait, body)
}

pub(crate) fn tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    Ok((ours, listener.accept()?.0))
}

fn over<S: Stream, T>(
    pair: io::Result<(S, S)>,
    server: Server,
    wait: Wait,
    body: impl FnOnce(&mut dyn Window) -> Result<T, String>,
) -> Result<T, String> {
    let (ours, theirs) = pair.map_err(|error| error.to_string())?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            pin(0);
            match server {
                Server::Bare => theirs
                    .set_blocking(false)
                    .and_then(|()| epoll::serve(theirs, wait, &stop)),
                Server::Sockets(tier) => serve(tier, theirs.into(), wait),
            }
        });
        if !pin(1) {
            return Err("there is no core 1".to_owned());
        }
        let is_blocking = matches!(wait, Wait::Sleep);
        ours.set_blocking(is_blocking)
            .map_err(|error| error.to_string())?;
        let mut client = Client::new(ours);
        let result = body(&mut client);
        stop.store(true, Ordering::Relaxed);
        drop(client);
        let served = serving.join().map_err(|_| "the server panicked")?;
        served.map_err(|error| error.to_string())?;
        result
    })
}

/// Echoes through the product's sockets until the peer ends.
fn serve(tier: Tier, stream: OwnedFd, wait: Wait) -> io::Result<()> {
    let mut sockets = open_tier(tier, &Config::default())?.sockets;
    let options = ConnectionOptions::default();
    let connection = sockets.adopt(Socket::from_fd(stream), options)?;
    let spin_ns = match wait {
        Wait::Spin(spin) => spin.as_nanos() as u64,
        Wait::Sleep => 0,
    };
    let (mut pending, mut spare, mut is_busy) = (Vec::new(), Vec::new(), false);
    loop {
        sockets.wait(FOREVER_NS, spin_ns, &mut |_| false)?;
        while let Some(completion) = sockets.next() {
            match completion {
                Completion::Received { bytes, .. } => pending.extend_from_slice(bytes),
                Completion::Sent { buffer, result, .. } => {
                    result?;
                    spare = buffer;
                    is_busy = false;
                }
                Completion::Ended { .. } => return Ok(()),
                _ => {}
            }
        }
        if is_busy || pending.is_empty() {
            continue;
        }
        // A message that is alone goes at once.
        let mode = match pending.len() {
            FRAME_BYTES => SendMode::Direct,
            _ => SendMode::Batched,
        };
        if sockets.send(connection, &mut pending, mode)? == Sending::Started {
            is_busy = true;
            std::mem::swap(&mut pending, &mut spare);
        }
    }
}

/// The client's side, of whatever family.
pub(crate) trait Window {
    fn in_flight(&self) -> u64;

    fn send(&mut self, count: u64);

    /// Reads what is there; how many frames came back.
    fn receive(&mut self) -> u64;
}

pub(crate) struct Client<S> {
    pub(crate) stream: S,
    output: Vec<u8>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are the beginning of a frame.
    left: usize,
    sent: u64,
    received: u64,
}

impl<S: Stream> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            output: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            left: 0,
            sent: 0,
            received: 0,
        }
    }
}

impl<S: Stream> Window for Client<S> {
    fn in_flight(&self) -> u64 {
        self.sent - self.received
    }

    fn send(&mut self, count: u64) {
        for _ in 0..count {
            let mut frame = [0; FRAME_BYTES];
            frame[..8].copy_from_slice(&self.sent.to_le_bytes());
            self.output.extend_from_slice(&frame);
            self.sent += 1;
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => {
                    self.output.drain(..count);
                }
                // The server waits until its answers are read.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the server is gone: {error}"),
            }
        }
    }

    fn receive(&mut self) -> u64 {
        if !self.output.is_empty() {
            self.send(0);
        }
        let count = match self.stream.read(&mut self.buffer[self.left..]) {
            Ok(0) => panic!("the server has ended"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::hint::spin_loop();
                return 0;
            }
            Err(error) => panic!("the server is gone: {error}"),
        };
        let end = self.left + count;
        let whole = end - end % FRAME_BYTES;
        for frame in self.buffer[..whole].chunks_exact(FRAME_BYTES) {
            let (number, _) = frame.split_first_chunk().expect("48 bytes are 8 and more");
            assert_eq!(u64::from_le_bytes(*number), self.received);
            self.received += 1;
        }
        self.buffer.copy_within(whole..end, 0);
        self.left = end - whole;
        (whole / FRAME_BYTES) as u64
    }
}

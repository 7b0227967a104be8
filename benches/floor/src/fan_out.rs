//! Some bytes to many connections: a bare server writes what one connection sends to all others.
//!
//! Server on core 0, all connections on core 1, both spin on epoll. A tick is some frames of 80
//! bytes (a payload of 64); two ticks are under way. What has come is counted, not looked at.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::echo::{BUFFER_BYTES, Stream, tcp_pair};
use crate::epoll::Epoll;
use crate::report::{Plan, rate};
use crate::ring::pin;

const FRAME_BYTES: u64 = 80;
/// Ticks under way.
const TICKS_AHEAD: u64 = 2;

/// Millions of frames a second that arrived.
pub(crate) fn run(
    plan: Plan,
    family: &str,
    connections: u64,
    messages: u64,
) -> Result<f64, String> {
    let value = match family {
        "unix" => between(plan, UnixStream::pair, connections, messages),
        "tcp" => between(plan, tcp_pair, connections, messages),
        _ => return Err(format!("{family} is neither unix nor tcp")),
    };
    value.map_err(|error| error.to_string())
}

fn between<S: Stream>(
    plan: Plan,
    pair: impl Fn() -> io::Result<(S, S)>,
    connections: u64,
    messages: u64,
) -> io::Result<f64> {
    let (publisher, source) = pair()?;
    source.set_blocking(false)?;
    let (mut listeners, mut targets) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        let (listener, target) = pair()?;
        listener.set_blocking(false)?;
        target.set_blocking(false)?;
        listeners.push(listener);
        targets.push(target);
    }
    let mut epoll = Epoll::new()?;
    for (index, listener) in listeners.iter().enumerate() {
        epoll.add(listener, index as u64)?;
    }
    let tick_bytes = (messages * FRAME_BYTES) as usize;
    let crowd = Crowd {
        publisher,
        listeners,
        epoll,
        tick: vec![7; tick_bytes],
        buffer: vec![0; BUFFER_BYTES],
        sent: 0,
        came: 0,
    };
    let is_over = AtomicBool::new(false);
    let is_over = &is_over;
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            pin(0);
            serve(source, targets, tick_bytes, is_over)
        });
        pin(1);
        let value = crowd.measure(plan);
        is_over.store(true, Ordering::Relaxed);
        let panicked = |_| io::Error::other("the server has panicked");
        serving.join().map_err(panicked)??;
        value
    })
}

/// Writes each tick that comes to all, until told otherwise.
fn serve<S: Stream>(
    mut source: S,
    mut targets: Vec<S>,
    tick_bytes: usize,
    is_over: &AtomicBool,
) -> io::Result<()> {
    let mut epoll = Epoll::new()?;
    epoll.add(&source, 0)?;
    let mut tick = vec![0; tick_bytes];
    let mut have = 0;
    while !is_over.load(Ordering::Relaxed) {
        if epoll.wait(0)? == 0 {
            continue;
        }
        have += match source.read(&mut tick[have..]) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if have < tick_bytes {
            continue;
        }
        have = 0;
        for target in &mut targets {
            let mut rest = tick.as_slice();
            while !rest.is_empty() && !is_over.load(Ordering::Relaxed) {
                match target.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

/// All connections of the client: one publishes, the others listen.
struct Crowd<S> {
    publisher: S,
    listeners: Vec<S>,
    epoll: Epoll,
    tick: Vec<u8>,
    buffer: Vec<u8>,
    /// Bytes that are to come in all, and those that have.
    sent: u64,
    came: u64,
}

impl<S: Stream> Crowd<S> {
    fn measure(self, plan: Plan) -> io::Result<f64> {
        let crowd = RefCell::new(self);
        let mut fault = Ok(());
        let failed = RefCell::new(&mut fault);
        let keep = |result: io::Result<u64>| match result {
            Ok(count) => count,
            Err(error) => {
                **failed.borrow_mut() = Err(error);
                0
            }
        };
        let step = || keep(crowd.borrow_mut().step());
        let settle = || {
            let mut crowd = crowd.borrow_mut();
            while crowd.came < crowd.sent && failed.borrow().is_ok() {
                keep(crowd.receive());
            }
        };
        let value = rate(plan, step, settle);
        fault.map(|()| value)
    }

    fn step(&mut self) -> io::Result<u64> {
        let all = (self.tick.len() * self.listeners.len()) as u64;
        while self.sent - self.came <= (TICKS_AHEAD - 1) * all {
            self.publisher.write_all(&self.tick)?;
            self.sent += all;
        }
        self.receive()
    }

    /// How many frames have come to their end.
    fn receive(&mut self) -> io::Result<u64> {
        let before = self.came / FRAME_BYTES;
        for index in 0..self.epoll.wait(0)? {
            match self.listeners[self.epoll.ready(index)].read(&mut self.buffer) {
                Ok(0) => return Err(io::Error::other("the server has ended")),
                Ok(count) => self.came += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.came / FRAME_BYTES - before)
    }
}

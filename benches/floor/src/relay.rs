//! Frames that go through a bare server to a responder and back: two connections, each of whose
//! bytes the server writes to the other.
//!
//! Server on core 0, which spins on epoll; asker and responder are two threads of core 1 that sleep
//! when nothing has come, since they share it.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::echo::{BUFFER_BYTES, Client, Stream, Window, tcp_pair};
use crate::epoll::{Epoll, SLEEP_MS};
use crate::report::{Plan, rate};
use crate::ring::pin;

/// Millions of frames a second that came back.
pub(crate) fn run(plan: Plan, family: &str, outstanding: u64) -> Result<f64, String> {
    let value = match family {
        "unix" => between(plan, UnixStream::pair, outstanding),
        "tcp" => between(plan, tcp_pair, outstanding),
        _ => return Err(format!("{family} is neither unix nor tcp")),
    };
    value.map_err(|error| error.to_string())
}

fn between<S: Stream>(
    plan: Plan,
    pair: impl Fn() -> io::Result<(S, S)>,
    outstanding: u64,
) -> io::Result<f64> {
    let ((asker, from_asker), (responder, from_responder)) = (pair()?, pair()?);
    let mut ends = [from_asker, from_responder];
    for end in &ends {
        end.set_blocking(false)?;
    }
    asker.set_blocking(false)?;
    responder.set_blocking(true)?;
    let is_over = AtomicBool::new(false);
    let panicked = |_| io::Error::other("a thread has panicked");
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            pin(0);
            let served = serve(&mut ends, &is_over);
            // The responder hears of it.
            drop(ends);
            served
        });
        let answering = scope.spawn(|| {
            pin(1);
            answer(responder)
        });
        pin(1);
        let value = ask(plan, asker, outstanding);
        is_over.store(true, Ordering::Relaxed);
        serving.join().map_err(panicked)??;
        answering.join().map_err(panicked)??;
        value
    })
}

/// Moves bytes from each end to the other, until told otherwise.
fn serve<S: Stream>(ends: &mut [S; 2], is_over: &AtomicBool) -> io::Result<()> {
    let mut epoll = Epoll::new()?;
    for (index, end) in ends.iter().enumerate() {
        epoll.add(end, index as u64)?;
    }
    // What each end is still to be written.
    let mut pending = [Vec::new(), Vec::new()];
    let mut buffer = vec![0; BUFFER_BYTES];
    while !is_over.load(Ordering::Relaxed) {
        for index in 0..epoll.wait(0)? {
            let from = epoll.ready(index);
            let to = 1 - from;
            if !pending[to].is_empty() {
                continue;
            }
            match ends[from].read(&mut buffer) {
                Ok(count) => pending[to].extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        for (end, bytes) in ends.iter_mut().zip(&mut pending) {
            if bytes.is_empty() {
                continue;
            }
            match end.write(bytes) {
                Ok(count) => drop(bytes.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Sends back what comes, until the server ends.
fn answer(mut stream: impl Stream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

fn ask(plan: Plan, stream: impl Stream, outstanding: u64) -> io::Result<f64> {
    let mut epoll = Epoll::new()?;
    epoll.add(&stream, 0)?;
    let client = std::cell::RefCell::new((Client::new(stream), epoll));
    let receive = || {
        let (client, epoll) = &mut *client.borrow_mut();
        let count = client.receive();
        if count == 0 && client.in_flight() > 0 {
            // It may fail: then the next receive waits by looking.
            let _ = epoll.wait(SLEEP_MS);
        }
        count
    };
    let step = || {
        let (client, _) = &mut *client.borrow_mut();
        let missing = outstanding - client.in_flight();
        client.send(missing);
    };
    Ok(rate(
        plan,
        || {
            step();
            receive()
        },
        || {
            while client.borrow().0.in_flight() > 0 {
                receive();
            }
        },
    ))
}

//! A server: a thread with a shard, the addresses that it listens at, and its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;

use fastmq_driver::sockets::{self, Address, Config};
use fastmq_driver::{FOREVER_NS, Thread};

use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::log::{self, Level};
use crate::thread_options::set_up_thread;

use super::shard::Shard;
use super::{CONNECTIONS_REFUSED_MAX, LINGER_NS, ServerOptions};

/// What the handle asks of the thread.
const RUN: u32 = 0;
const DRAIN: u32 = 1;
/// How long the thread goes on after a drain has ended, for the last bytes.
const LAST_NS: u64 = LINGER_NS * 2;

/// Between a handle and its thread.
#[derive(Default)]
struct Control {
    command: AtomicU32,
    drain_ns: AtomicU64,
}

/// What the thread says once it listens.
struct Ready {
    addresses: Vec<Address>,
    waker: sockets::Waker,
}

/// A broker that listens. Dropping it closes at once, with a CLOSE to each client.
pub struct Server {
    broker: Arc<Broker>,
    control: Arc<Control>,
    waker: sockets::Waker,
    thread: Option<Thread>,
    addresses: Vec<Address>,
    paths: Vec<PathBuf>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Starts a thread that serves connections to `broker` at `addresses`.
    ///
    /// A Unix socket is made for this user alone (mode 0600); a socket file that nobody answers at
    /// is replaced.
    ///
    /// # Errors
    /// DENIED: a TCP address that other machines reach, without `is_insecure_allowed`. INVALID: no
    /// address, a name above 255 bytes, a token above 4,096. UNSUPPORTED: the broker is a remote
    /// client. IO: an address is in use, or the system refuses. CLOSED, NO_MEMORY.
    pub fn listen(
        broker: &Arc<Broker>,
        addresses: &[Address],
        options: ServerOptions,
    ) -> Result<Self> {
        broker.check_open()?;
        if broker.uplink.is_some() {
            return Err(Error::new(&REMOTE));
        }
        check(addresses, &options)?;
        for address in addresses {
            if let Address::Unix(path) = address {
                remove_stale(path)?;
            }
        }
        let control = Arc::new(Control::default());
        let (say, hear) = mpsc::channel();
        let body = {
            let (broker, control) = (broker.clone(), control.clone());
            let addresses = addresses.to_vec();
            move || run(&broker, &addresses, options, &control, &say)
        };
        let thread = broker.driver().spawn("shard-0", Box::new(body));
        let thread =
            thread.map_err(|error| io_error("cannot start the server's thread", &error))?;
        let gone = Error::new(&Fault(Status::Internal, "the server's thread has ended"));
        let ready = match hear.recv().unwrap_or(Err(gone)) {
            Ok(ready) => ready,
            Err(error) => {
                let _ = thread.join();
                return Err(error);
            }
        };
        let paths = addresses.iter().filter_map(|address| match address {
            Address::Unix(path) => Some(path.clone()),
            Address::Tcp(_) => None,
        });
        Ok(Self {
            broker: broker.clone(),
            control,
            waker: ready.waker,
            thread: Some(thread),
            addresses: ready.addresses,
            paths: paths.collect(),
        })
    }

    /// Where it listens, in the order in which it was asked; port 0 is the one that was free.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Takes no more connections, asks the clients to finish, and closes when they have gone or
    /// after `timeout_ns`. Blocks until then.
    pub fn close(mut self, timeout_ns: u64) {
        self.end(timeout_ns);
    }

    fn end(&mut self, timeout_ns: u64) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let now_ns = self.broker.driver().monotonic_ns();
        let drain_ns = now_ns.saturating_add(timeout_ns);
        self.control.drain_ns.store(drain_ns, Ordering::Relaxed);
        self.control.command.store(DRAIN, Ordering::SeqCst);
        self.waker.wake();
        if thread.is_current() {
            // A handler that the thread calls: it ends when that has returned.
            return;
        }
        if thread.join().is_err() {
            log::write(Level::Error, "server", "the server's thread has panicked");
        }
        for path in &self.paths {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(0);
    }
}

static REMOTE: Fault = Fault(
    Status::Unsupported,
    "a client of another server cannot listen; connect to that server",
);

fn check(addresses: &[Address], options: &ServerOptions) -> Result<()> {
    let wrong = |says| Err(Error::new(says));
    if addresses.is_empty() {
        return wrong(&Fault(
            Status::Invalid,
            "a server needs an address to listen at",
        ));
    }
    if addresses.len() > sockets::LISTENERS_MAX as usize {
        return wrong(&Fault(
            Status::Invalid,
            "a server listens at 64 addresses at most",
        ));
    }
    if options.name.len() > 255 {
        return wrong(&Fault(
            Status::Invalid,
            "a server's name has at most 255 bytes",
        ));
    }
    if options.token.len() > 4096 {
        return wrong(&Fault(Status::Invalid, "a token has at most 4,096 bytes"));
    }
    for address in addresses {
        if let Address::Tcp(tcp) = address
            && !tcp.ip().is_loopback()
            && !options.is_insecure_allowed
        {
            return Err(Error::with(
                &Fault(
                    Status::Denied,
                    "an address that other machines reach would carry everything in the clear; \
                     listen at a loopback address, or allow it by `insecure`",
                ),
                format_args!(
                    "{address} can be reached from other machines and would carry everything, the \
                     token too, in the clear; listen at 127.0.0.1 or [::1], or allow it by \
                     `insecure`"
                ),
            ));
        }
    }
    Ok(())
}

/// Removes a socket file that nobody listens at any more.
fn remove_stale(path: &Path) -> Result<()> {
    match sockets::is_answered(path) {
        Some(false) => fs::remove_file(path)
            .map_err(|error| io_error("cannot remove a stale socket file", &error)),
        Some(true) => Err(Error::with(
            &Fault(Status::Io, "the address is in use"),
            format_args!("{} is in use: another server answers there", path.display()),
        )),
        // Whatever is there, the listen says so.
        None => Ok(()),
    }
}

fn io_error(doing: &str, error: &io::Error) -> Error {
    Error::with_io(&Fault(Status::Io, "the server cannot listen"), doing, error)
}

/// The thread.
fn run(
    broker: &Arc<Broker>,
    addresses: &[Address],
    options: ServerOptions,
    control: &Control,
    say: &mpsc::Sender<Result<Ready>>,
) {
    let mut shard = match start(broker, addresses, options) {
        Ok((shard, ready)) => {
            let _ = say.send(Ok(ready));
            shard
        }
        Err(error) => {
            let _ = say.send(Err(error));
            return;
        }
    };
    let is_asked = || control.command.load(Ordering::SeqCst) != RUN;
    let mut end_ns = FOREVER_NS;
    loop {
        let look = || end_ns == FOREVER_NS && is_asked();
        if let Err(error) = shard.turn(end_ns, &look) {
            let text = format!("the server ends, as its sockets fail: {error}");
            log::write(Level::Error, "server", &text);
            return;
        }
        if end_ns == FOREVER_NS && is_asked() {
            let drain_ns = control.drain_ns.load(Ordering::Relaxed);
            shard.drain(drain_ns);
            end_ns = drain_ns.saturating_add(LAST_NS);
        }
        if shard.is_done() || broker.driver().monotonic_ns() >= end_ns {
            return;
        }
    }
}

fn start(
    broker: &Arc<Broker>,
    addresses: &[Address],
    options: ServerOptions,
) -> Result<(Shard, Ready)> {
    set_up_thread(&options.thread)?;
    let spare = CONNECTIONS_REFUSED_MAX;
    let config = Config {
        connections_max: options.connections_max.saturating_add(spare),
        ..Config::default()
    };
    let opened = sockets::open(&config).map_err(|error| io_error("cannot open sockets", &error))?;
    for passed in &opened.report.passed_over {
        let text = format!("sockets without {}: {}", passed.tier.name(), passed.why);
        log::write(Level::Info, "server", &text);
    }
    let waker = opened.sockets.waker();
    let mut shard = Shard::new(broker, opened.sockets, options)?;
    let mut bound = Vec::new();
    for address in addresses {
        match shard.listen(address) {
            Ok(address) => bound.push(address),
            Err(error) => {
                remove_made(&addresses[..bound.len()]);
                return Err(io_error(&format!("cannot listen at {address}"), &error));
            }
        }
    }
    let addresses = bound;
    Ok((shard, Ready { addresses, waker }))
}

/// Removes the socket files of a server that does not start.
fn remove_made(addresses: &[Address]) {
    for address in addresses {
        if let Address::Unix(path) = address {
            let _ = fs::remove_file(path);
        }
    }
}

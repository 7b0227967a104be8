//! A server: a thread for each shard, the addresses that it listens at, and its end.
//!
//! The first shard accepts all connections and gives them to whichever has the fewest, itself
//! among them. So it starts last, when there is somebody to give to, and whatever hinders one of
//! them to start ends those that have.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;

use fastmq_driver::sockets::{self, Address, Config};
use fastmq_driver::{FOREVER_NS, Thread};
use fastmq_memory::allocation::try_arc;
use fastmq_memory::sync::{Mutex, lock};

use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::log::{self, Level};
use crate::thread_options::set_up_thread;

use super::inbox::Inbox;
use super::shard::Shard;
use super::stats::Board;
use super::{CONNECTIONS_REFUSED_MAX, Changes, LINGER_NS, SHARDS_MAX, ServerOptions};

/// What the handle asks of the threads.
const RUN: u32 = 0;
const DRAIN: u32 = 1;
/// How long a thread goes on after a drain has ended, for the last bytes.
const LAST_NS: u64 = LINGER_NS * 2;

/// Between a handle and its threads.
struct Control {
    command: AtomicU32,
    drain_ns: AtomicU64,
    changes: Arc<Mutex<Changes>>,
}

impl Control {
    fn new(options: &ServerOptions) -> Self {
        Self {
            command: AtomicU32::new(RUN),
            drain_ns: AtomicU64::new(0),
            changes: Arc::new(Mutex::new(Changes::of(options))),
        }
    }
}

/// What a thread needs to begin, and says when it has.
struct Start {
    broker: Arc<Broker>,
    options: ServerOptions,
    control: Arc<Control>,
    instance: u64,
    board: Arc<Board>,
    /// Where the first one listens.
    addresses: Vec<Address>,
    /// The shards that the first one gives connections to.
    others: Vec<Arc<Inbox>>,
}

impl Start {
    /// Whether this is the one that accepts.
    fn is_first(&self) -> bool {
        !self.addresses.is_empty() || !self.options.sockets.is_empty()
    }
}

struct Ready {
    addresses: Vec<Address>,
    inbox: Arc<Inbox>,
    waker: sockets::Waker,
}

/// A shard's thread.
struct Running {
    thread: Thread,
    waker: sockets::Waker,
}

/// A broker that listens. Dropping it closes at once, with a CLOSE to each client.
pub struct Server {
    broker: Arc<Broker>,
    control: Arc<Control>,
    running: Vec<Running>,
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
    /// Starts threads that serve connections to `broker` at `addresses`, one for each shard.
    ///
    /// A Unix socket is made for this user alone (mode 0600); a socket file that nobody answers at
    /// is replaced.
    ///
    /// # Errors
    /// DENIED: a TCP address that other machines reach, without `is_insecure_allowed`. INVALID: no
    /// address and no socket, a name above 255 bytes, a token above 4,096, no shard or more than
    /// [`SHARDS_MAX`]. UNSUPPORTED: the broker is a remote
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
        let mut server = Self {
            broker: broker.clone(),
            control: try_arc(Control::new(&options))?,
            running: Vec::new(),
            addresses: Vec::new(),
            paths: Vec::new(),
        };
        let instance = broker.driver().random();
        let board = Board::new(broker.driver().monotonic_ns())?;
        let mut others = Vec::new();
        for index in (0..options.shards).rev() {
            let is_first = index == 0;
            let sockets = match is_first {
                true => options.sockets.clone(),
                false => Vec::new(),
            };
            let start = Start {
                broker: broker.clone(),
                options: ServerOptions {
                    sockets,
                    ..options.clone()
                },
                control: server.control.clone(),
                instance,
                board: board.clone(),
                addresses: match is_first {
                    true => addresses.to_vec(),
                    false => Vec::new(),
                },
                others: match is_first {
                    true => std::mem::take(&mut others),
                    false => Vec::new(),
                },
            };
            let ready = server.start(index, start)?;
            server.addresses = ready.addresses;
            others.insert(0, ready.inbox);
        }
        let paths = addresses.iter().filter_map(|address| match address {
            Address::Unix(path) => Some(path.clone()),
            Address::Tcp(_) => None,
        });
        server.paths = paths.collect();
        Ok(server)
    }

    /// Starts the thread of a shard, and returns when that has started, or why it has not.
    fn start(&mut self, index: u32, start: Start) -> Result<Ready> {
        let (say, hear) = mpsc::channel();
        let body = move || run(&start, &say);
        let name = format!("shard-{index}");
        let thread = self.broker.driver().spawn(&name, Box::new(body));
        let thread =
            thread.map_err(|error| io_error("cannot start a thread of the server", &error))?;
        let gone = Error::new(&Fault(Status::Internal, "a thread of the server has ended"));
        match hear.recv().unwrap_or(Err(gone)) {
            Ok(ready) => {
                let waker = ready.waker.clone();
                self.running.push(Running { thread, waker });
                Ok(ready)
            }
            Err(error) => {
                let _ = thread.join();
                Err(error)
            }
        }
    }

    /// Where it listens, in the order in which it was asked; port 0 is the one that was free.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Takes changes over, without a break for those who are connected.
    ///
    /// # Errors
    /// INVALID: a token above 4,096 bytes.
    pub fn change(&self, changes: &Changes) -> Result<()> {
        check_token(&changes.token)?;
        lock(&self.control.changes).clone_from(changes);
        Ok(())
    }

    /// Takes no more connections, asks the clients to finish, and closes when they have gone or
    /// after `timeout_ns`. Blocks until then.
    pub fn close(mut self, timeout_ns: u64) {
        self.end(timeout_ns);
    }

    fn end(&mut self, timeout_ns: u64) {
        if self.running.is_empty() {
            return;
        }
        let now_ns = self.broker.driver().monotonic_ns();
        let drain_ns = now_ns.saturating_add(timeout_ns);
        self.control.drain_ns.store(drain_ns, Ordering::Relaxed);
        self.control.command.store(DRAIN, Ordering::SeqCst);
        self.running.iter().for_each(|it| it.waker.wake());
        let running = std::mem::take(&mut self.running);
        if running.iter().any(|it| it.thread.is_current()) {
            // A handler that such a thread calls: they end when that has returned.
            return;
        }
        for Running { thread, .. } in running {
            if thread.join().is_err() {
                log::write(
                    Level::Error,
                    "server",
                    "a thread of the server has panicked",
                );
            }
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
    if addresses.is_empty() && options.sockets.is_empty() {
        return wrong(&Fault(
            Status::Invalid,
            "a server needs an address to listen at",
        ));
    }
    if addresses.len() + options.sockets.len() > sockets::LISTENERS_MAX as usize {
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
    if options.servers.len() > 4096 {
        return wrong(&Fault(
            Status::Invalid,
            "the URLs of other servers have at most 4,096 bytes",
        ));
    }
    if !options.servers.is_empty() {
        crate::url::servers(&options.servers)?;
    }
    check_token(&options.token)?;
    if !(1..=SHARDS_MAX).contains(&options.shards) {
        return wrong(&Fault(Status::Invalid, "a server has 1 to 64 shards"));
    }
    let mut addresses = addresses.iter();
    addresses.try_for_each(|address| check_reach(address, options))
}

fn check_token(token: &[u8]) -> Result<()> {
    let says = &Fault(Status::Invalid, "a token has at most 4,096 bytes");
    match token.len() {
        ..=4096 => Ok(()),
        _ => Err(Error::new(says)),
    }
}

/// Whether so many may reach an address.
fn check_reach(address: &Address, options: &ServerOptions) -> Result<()> {
    match address {
        Address::Tcp(tcp) if !tcp.ip().is_loopback() && !options.is_insecure_allowed => {
            Err(Error::with(
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
            ))
        }
        _ => Ok(()),
    }
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

/// A thread.
fn run(start: &Start, say: &mpsc::Sender<Result<Ready>>) {
    let Start {
        broker, control, ..
    } = start;
    let mut shard = match open_shard(start) {
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
    let (mut end_ns, mut is_ending) = (FOREVER_NS, false);
    loop {
        let look = || !is_ending && is_asked();
        if let Err(error) = shard.turn(end_ns, &look) {
            let text = format!("a shard of the server ends, as its sockets fail: {error}");
            log::write(Level::Error, "server", &text);
            return;
        }
        if !is_ending && is_asked() {
            is_ending = true;
            let drain_ns = control.drain_ns.load(Ordering::Relaxed);
            shard.drain(drain_ns);
            end_ns = drain_ns.saturating_add(LAST_NS);
        }
        if shard.is_done() || is_ending && broker.driver().monotonic_ns() >= end_ns {
            return;
        }
    }
}

fn open_shard(start: &Start) -> Result<(Shard, Ready)> {
    let (addresses, options) = (&start.addresses, start.options.clone());
    set_up_thread(&options.thread)?;
    let spare = CONNECTIONS_REFUSED_MAX;
    let config = Config {
        connections_max: options.connections_max.saturating_add(spare),
        ..Config::default()
    };
    let opened = sockets::open(&config).map_err(|error| io_error("cannot open sockets", &error))?;
    // The others would say the same.
    if start.is_first() {
        for passed in &opened.report.passed_over {
            let text = format!("sockets without {}: {}", passed.tier.name(), passed.why);
            log::write(Level::Info, "server", &text);
        }
    }
    let waker = opened.sockets.waker();
    let mut shard = Shard::new(&start.broker, opened.sockets, options.clone())?;
    shard.set_instance(start.instance);
    shard.set_board(&start.board);
    shard.share_changes(&start.control.changes);
    shard.spread_over(&start.others);
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
    for socket in &options.sockets {
        let adopted = socket.try_clone().and_then(|it| shard.adopt_listener(it));
        let adopted = adopted.map_err(|error| io_error("cannot listen at a socket", &error));
        let checked = adopted.and_then(|address| check_reach(&address, &options).map(|()| address));
        bound.push(checked.inspect_err(|_| remove_made(addresses))?);
    }
    let ready = Ready {
        addresses: bound,
        inbox: shard.inbox(),
        waker,
    };
    Ok((shard, ready))
}

/// Removes the socket files of a server that does not start.
fn remove_made(addresses: &[Address]) {
    for address in addresses {
        if let Address::Unix(path) = address {
            let _ = fs::remove_file(path);
        }
    }
}

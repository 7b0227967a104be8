//! A network in memory that a seed decides: what simulated sockets are connected by.
//!
//! Each direction of a connection is a queue of chunks with the virtual time from which they can be
//! received. The seed chooses how long a chunk takes, how much of it one receive sees, how much
//! of a send there is room for, and which connections break. The same seed and calls give the same
//! run, always. Order within a direction is kept, as TCP keeps it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::random::SplitMix64;
use crate::simulated::{SimulatedDriver, VirtualClock};

use super::{Address, BACKLOG};

/// The first port that is given to whoever listens on port 0.
const PORT_FIRST: u16 = 49_152;
const MILLION: u64 = 1_000_000;

/// What goes wrong on a simulated network, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Longest way of a chunk, in nanoseconds; 0 delivers at once.
    pub delay_ns_max: u64,
    /// Most bytes that one receive sees or one send moves at a time.
    pub chunk_bytes_max: usize,
    /// Bytes on their way in one direction before a sender waits.
    pub capacity_bytes: usize,
    /// Sends of a million that break their connection.
    pub resets_per_million: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay_ns_max: 0,
            chunk_bytes_max: usize::MAX,
            capacity_bytes: 64 * 1024,
            resets_per_million: 0,
        }
    }
}

/// The network of a simulation. A clone is the same network.
#[derive(Clone, Debug)]
pub struct SimulatedNetwork {
    network: Arc<Mutex<Network>>,
    clock: Arc<VirtualClock>,
}

#[derive(Debug)]
pub(super) struct Network {
    random: SplitMix64,
    faults: Faults,
    /// Both ends of connection n are 2n and 2n + 1.
    ends: BTreeMap<u32, End>,
    next_end: u32,
    listeners: Vec<Listening>,
    next_port: u16,
}

#[derive(Debug)]
struct Listening {
    address: Address,
    /// When a connection arrives, and the end that waits for an accept.
    backlog: VecDeque<(u64, u32)>,
}

#[derive(Debug, Default)]
struct End {
    incoming: VecDeque<Chunk>,
    incoming_bytes: usize,
    has_finished: bool,
    is_reset: bool,
}

#[derive(Debug)]
struct Chunk {
    ready_ns: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Bytes {
        bytes: VecDeque<u8>,
        descriptors: Vec<OwnedFd>,
    },
    End,
    Reset,
}

/// One end of a connection. Closes it when dropped.
#[derive(Debug)]
pub(super) struct Stream {
    network: SimulatedNetwork,
    end: u32,
}

impl SimulatedNetwork {
    /// A network without anybody, on the clock of `driver`.
    #[must_use]
    pub fn new(driver: &SimulatedDriver, seed: u64, faults: Faults) -> Self {
        let network = Network {
            random: SplitMix64::new(seed),
            faults,
            ends: BTreeMap::new(),
            next_end: 0,
            listeners: Vec::new(),
            next_port: PORT_FIRST,
        };
        Self {
            network: Arc::new(Mutex::new(network)),
            clock: driver.clock(),
        }
    }

    /// When the next thing on its way arrives, if any is: where a scheduler that has nothing
    /// else to do moves the clock to.
    #[must_use]
    pub fn next_arrival_ns(&self) -> Option<u64> {
        let now_ns = self.now_ns();
        let network = self.lock();
        let chunks = network.ends.values().flat_map(|end| end.incoming.iter());
        let chunks = chunks.map(|chunk| chunk.ready_ns);
        let backlogs = network.listeners.iter();
        let backlogs = backlogs.flat_map(|it| it.backlog.iter().map(|(ready_ns, _)| *ready_ns));
        chunks.chain(backlogs).filter(|ns| *ns > now_ns).min()
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.clock.peek_ns()
    }

    pub(super) fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn listen(&self, address: &Address) -> io::Result<Address> {
        let mut network = self.lock();
        let mut address = address.clone();
        if let Address::Tcp(tcp) = &mut address
            && tcp.port() == 0
        {
            tcp.set_port(network.next_port);
            network.next_port = network.next_port.checked_add(1).unwrap_or(PORT_FIRST);
        }
        if network.listeners.iter().any(|it| it.address == address) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        network.listeners.push(Listening {
            address: address.clone(),
            backlog: VecDeque::new(),
        });
        Ok(address)
    }

    pub(super) fn close_listener(&self, address: &Address) {
        let mut network = self.lock();
        let found = network
            .listeners
            .iter()
            .position(|it| it.address == *address);
        let now_ns = self.now_ns();
        if let Some(index) = found {
            let closed = network.listeners.remove(index);
            for (_, end) in closed.backlog {
                network.close(end, now_ns);
            }
        }
    }

    /// The next connection that has arrived.
    pub(super) fn accept(&self, address: &Address) -> Option<Stream> {
        let now_ns = self.now_ns();
        let mut network = self.lock();
        let mut listeners = network.listeners.iter_mut();
        let listening = listeners.find(|it| it.address == *address)?;
        let (ready_ns, end) = *listening.backlog.front()?;
        if ready_ns > now_ns {
            return None;
        }
        listening.backlog.pop_front();
        Some(self.stream(end))
    }

    fn stream(&self, end: u32) -> Stream {
        Stream {
            network: self.clone(),
            end,
        }
    }

    /// Whether an accept would find somebody.
    pub(super) fn has_arrived(&self, address: &Address) -> bool {
        let now_ns = self.now_ns();
        let network = self.lock();
        let mut listeners = network.listeners.iter();
        let listening = listeners.find(|it| it.address == *address);
        let front = listening.and_then(|it| it.backlog.front());
        front.is_some_and(|(ready_ns, _)| *ready_ns <= now_ns)
    }

    /// Our end of a new connection, and when it is known that there is one.
    pub(super) fn connect(&self, address: &Address) -> io::Result<(Stream, u64)> {
        let now_ns = self.now_ns();
        let mut network = self.lock();
        let ready_ns = now_ns + network.delay_ns();
        let end = network.next_end;
        let mut listeners = network.listeners.iter_mut();
        let Some(listening) = listeners.find(|it| it.address == *address) else {
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        };
        if listening.backlog.len() >= BACKLOG as usize {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        listening.backlog.push_back((ready_ns, end + 1));
        network.ends.insert(end, End::default());
        network.ends.insert(end + 1, End::default());
        network.next_end = end + 2;
        Ok((self.stream(end), ready_ns))
    }
}

impl Network {
    fn delay_ns(&mut self) -> u64 {
        self.below(self.faults.delay_ns_max)
    }

    /// A number from 0 to `max`.
    pub(super) fn below(&mut self, max: u64) -> u64 {
        match max.checked_add(1) {
            Some(count) => self.random.next_u64() % count,
            None => self.random.next_u64(),
        }
    }

    /// A number from 1 to `max`, and at most as much as may pass at once.
    fn some_of(&mut self, max: usize) -> usize {
        let max = max.min(self.faults.chunk_bytes_max).max(1);
        match self.faults.chunk_bytes_max {
            usize::MAX => max,
            _ => 1 + self.below(max as u64 - 1) as usize,
        }
    }

    /// Puts something on the way to an end, behind what is there.
    fn put(&mut self, end: u32, what: What, now_ns: u64) {
        let ready_ns = now_ns + self.delay_ns();
        let Some(end) = self.ends.get_mut(&end) else {
            return;
        };
        let last_ns = end.incoming.back().map_or(0, |chunk| chunk.ready_ns);
        if let What::Bytes { bytes, .. } = &what {
            end.incoming_bytes += bytes.len();
        }
        end.incoming.push_back(Chunk {
            ready_ns: ready_ns.max(last_ns),
            what,
        });
    }

    /// Ends one end, as TCP does: what was left unread breaks the connection, else the peer sees
    /// the end.
    fn close(&mut self, end: u32, now_ns: u64) {
        let state = self.ends.get(&end);
        if state.is_some_and(|state| state.incoming_bytes > 0) {
            self.reset(end, now_ns);
        }
        let Some(state) = self.ends.remove(&end) else {
            return;
        };
        if !state.has_finished && !state.is_reset {
            self.put(end ^ 1, What::End, now_ns);
        }
    }

    /// Breaks a connection: both ends lose what is on its way to them.
    fn reset(&mut self, end: u32, now_ns: u64) {
        for end in [end, end ^ 1] {
            if let Some(state) = self.ends.get_mut(&end) {
                state.incoming.clear();
                state.incoming_bytes = 0;
                state.is_reset = true;
                self.put(end, What::Reset, now_ns);
            }
        }
    }
}

impl Stream {
    /// Sends what there is room for; 0 if there is none.
    pub(super) fn send(&self, bytes: &[u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let now_ns = self.network.now_ns();
        let mut network = self.network.lock();
        let end = network.ends.get(&self.end);
        if end.is_none_or(|end| end.is_reset) {
            return Err(io::Error::from_raw_os_error(libc::ECONNRESET));
        }
        if end.is_some_and(|end| end.has_finished) {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let Some(peer) = network.ends.get(&(self.end ^ 1)) else {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        };
        let room = network
            .faults
            .capacity_bytes
            .saturating_sub(peer.incoming_bytes);
        if room == 0 || (!descriptors.is_empty() && room < bytes.len()) {
            return Ok(0);
        }
        let per_million = network.faults.resets_per_million;
        if per_million > 0 && network.below(MILLION - 1) < per_million {
            network.reset(self.end, now_ns);
            return Err(io::Error::from_raw_os_error(libc::ECONNRESET));
        }
        let count = match descriptors.is_empty() {
            true => network.some_of(room.min(bytes.len())),
            false => bytes.len(),
        };
        let what = What::Bytes {
            bytes: bytes[..count].iter().copied().collect(),
            descriptors: std::mem::take(descriptors),
        };
        network.put(self.end ^ 1, what, now_ns);
        Ok(count)
    }

    /// Receives what has arrived; `WouldBlock` if nothing has, 0 at the end.
    pub(super) fn receive(
        &self,
        buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> io::Result<usize> {
        let now_ns = self.network.now_ns();
        let mut network = self.network.lock();
        let some = network.some_of(buffer.len());
        let end = network.ends.get_mut(&self.end);
        let end = end.ok_or(io::ErrorKind::NotConnected)?;
        let chunk = end.incoming.front_mut();
        let Some(chunk) = chunk.filter(|chunk| chunk.ready_ns <= now_ns) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        match &mut chunk.what {
            What::End => Ok(0),
            What::Reset => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
            What::Bytes {
                bytes,
                descriptors: with,
            } => {
                descriptors.append(with);
                let count = some.min(bytes.len());
                for (to, from) in buffer.iter_mut().zip(bytes.drain(..count)) {
                    *to = from;
                }
                let is_used_up = bytes.is_empty();
                end.incoming_bytes -= count;
                if is_used_up {
                    end.incoming.pop_front();
                }
                Ok(count)
            }
        }
    }

    /// Whether a receive would say something now.
    pub(super) fn is_readable(&self) -> bool {
        let now_ns = self.network.now_ns();
        let network = self.network.lock();
        let end = network.ends.get(&self.end);
        let front = end.and_then(|end| end.incoming.front());
        front.is_some_and(|chunk| chunk.ready_ns <= now_ns)
    }

    /// Whether a send would move something now, or fail.
    pub(super) fn is_writable(&self) -> bool {
        let network = self.network.lock();
        let is_reset = network.ends.get(&self.end).is_none_or(|end| end.is_reset);
        let peer = network.ends.get(&(self.end ^ 1));
        let capacity_bytes = network.faults.capacity_bytes;
        is_reset || peer.is_none_or(|peer| peer.incoming_bytes < capacity_bytes)
    }

    /// Says to the peer that all was sent.
    pub(super) fn finish(&self) {
        let now_ns = self.network.now_ns();
        let mut network = self.network.lock();
        if let Some(end) = network.ends.get_mut(&self.end)
            && !end.has_finished
            && !end.is_reset
        {
            end.has_finished = true;
            network.put(self.end ^ 1, What::End, now_ns);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let now_ns = self.network.now_ns();
        self.network.lock().close(self.end, now_ns);
    }
}

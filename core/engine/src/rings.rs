//! Connections whose frames travel in shared memory (`docs/protocol.md` §10), beside sockets.
//!
//! [`Rings`] stands before the [`Sockets`] of a loop and gives the same: `wait`, `next`, `send`,
//! `close`. Of a connection that has rings it takes and sends bytes there, and tells of them by the
//! same completions, so the loop does not know the difference. The socket stays open: its end is
//! the other side's, and what comes over it is shown, too.
//!
//! A side whose cursors are out of range is told by [`Completion::Ended`] with an error that
//! [`is_hostile`] knows; the connection has no rings then, and its last words go over the socket.
//!
//! Bounded: [`RINGS_MAX`] connections of a shard, [`BURST_BYTES`] of each in a turn (or one
//! frame), and one vector in flight for each. Not here: HELLO and WELCOME.

use std::hint;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use fastmq_driver::shared::{self, SharedMemory};
use fastmq_driver::sockets::{
    Completion, ConnectionId, Look, SendMode, Sending, Sockets, Waited, WatchId,
};
use fastmq_memory::ring::{self, Capacities, Hostile};

/// Connections with rings of one shard.
pub(crate) const RINGS_MAX: usize = 64;
/// Bytes of each ring that a server makes: the least that takes two of the largest frames.
pub(crate) const RING_BYTES: u64 = 4 << 20;
/// Smallest and largest ring that a client takes from a server.
const RING_BYTES_TAKEN: std::ops::RangeInclusive<u64> = 32 << 10..=256 << 20;
/// Waits in a row that end by the rings before the sockets are asked, too: that is a system call.
const PASSED_OVER_MAX: u32 = 8;
/// Looks at the rings between two of them, of one spin.
const LOOKS_PER_CALL: u32 = 128;
/// Looks at the rings for each at what else the loop waits for.
const LOOKS_PER_LOOK: u32 = 4;
/// Bytes that a connection may bring in a turn before the others have theirs.
const BURST_BYTES: usize = 64 << 10;

/// Memory for rings and what wakes both sides, before the client has them.
#[derive(Debug)]
pub(crate) struct Offer {
    rings: ring::Rings,
    memory: OwnedFd,
    wakes_server: OwnedFd,
    wakes_client: OwnedFd,
}

impl Offer {
    /// Makes them.
    ///
    /// # Errors
    /// Out of memory or descriptors.
    pub(crate) fn make() -> io::Result<Self> {
        let capacities = capacities(RING_BYTES, RING_BYTES)?;
        let (memory, fd) = SharedMemory::create(capacities.bytes())?;
        Ok(Self {
            rings: ring::Rings::make(memory, capacities),
            memory: fd,
            wakes_server: shared::wake_event()?,
            wakes_client: shared::wake_event()?,
        })
    }
}

fn capacities(to_server: u64, to_client: u64) -> io::Result<Capacities> {
    let is_taken = RING_BYTES_TAKEN.contains(&to_server) && RING_BYTES_TAKEN.contains(&to_client);
    let known = Capacities::new(to_server, to_client).filter(|_| is_taken);
    known.ok_or_else(|| wrong("the rings have a size that is not taken"))
}

/// Whether a connection has ended because of what the other side has done to its rings.
pub(crate) fn is_hostile(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// Whether a new connection of a server may have rings: to a process of the same user.
pub(crate) fn may_have(sockets: &dyn Sockets, connection: ConnectionId) -> bool {
    let peer = sockets.peer_credentials(connection);
    // A simulation shares no memory.
    sockets.fd() >= 0 && peer.is_ok_and(|peer| peer.user == shared::current_user())
}

fn wrong(says: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, says)
}

/// A connection with rings.
#[derive(Debug)]
struct Line {
    connection: ConnectionId,
    rings: ring::Rings,
    /// Tells that the other side has woken us.
    watch: WatchId,
    wakes_other: OwnedFd,
    /// What had no room, and how much of it was sent.
    unsent: Option<(Vec<u8>, usize)>,
    /// Something was taken, and the other side does not know.
    is_taken: bool,
    is_hostile: bool,
    /// The socket has ended; shown after what is in the ring.
    ended: Option<Option<io::Error>>,
    /// Bytes that are still taken after that: what the ring can hold.
    last_bytes: u64,
}

/// What came of a look at a connection.
enum Seen {
    Bytes,
    Sent(Vec<u8>, io::Result<()>),
    Ended(Option<io::Error>),
}

/// Connections with rings of one loop. One thread uses it at a time.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    lines: Vec<Line>,
    /// Its loop sleeps elsewhere, on the descriptor of its sockets: the other sides are told so in
    /// each turn.
    is_polled: bool,
    /// Waits in a row that have not asked the sockets.
    passed_over: u32,
    /// The sockets were asked in this wait: they may have completions.
    has_asked: bool,
    is_quick: bool,
    /// Where the turn is in `lines`.
    at: usize,
    /// The bytes that are shown.
    burst: Vec<u8>,
}

impl Rings {
    /// None yet. `is_polled`: the loop sleeps on the descriptor of its sockets, not in `wait`.
    pub(crate) fn new(is_polled: bool) -> Self {
        Self {
            is_polled,
            ..Self::default()
        }
    }

    /// Gives a client its rings, with the WELCOME.
    ///
    /// # Errors
    /// The client is gone, has not read, or this loop has too many.
    pub(crate) fn give(
        &mut self,
        sockets: &mut dyn Sockets,
        connection: ConnectionId,
        offer: Offer,
        welcome: &mut Vec<u8>,
    ) -> io::Result<()> {
        let descriptors = [&offer.memory, &offer.wakes_server, &offer.wakes_client];
        let sent = sockets.send_descriptors(connection, welcome, &descriptors.map(AsFd::as_fd));
        welcome.clear();
        sent?;
        let watch = sockets.watch(offer.wakes_server)?;
        self.add(
            connection,
            offer.rings,
            RING_BYTES,
            watch,
            offer.wakes_client,
        )
    }

    /// Takes the rings that a server gives: their capacities, and what came with its WELCOME.
    ///
    /// # Errors
    /// They are not what they should be, or out of memory.
    pub(crate) fn take(
        &mut self,
        sockets: &mut dyn Sockets,
        connection: ConnectionId,
        (to_server, to_client): (u64, u64),
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let Ok([memory, wakes_server, wakes_client]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            return Err(wrong("the rings did not come with their three descriptors"));
        };
        let capacities = capacities(to_server, to_client)?;
        let memory = SharedMemory::open(memory.as_fd(), capacities.bytes())?;
        let rings = ring::Rings::join(memory, capacities)
            .map_err(|Hostile| wrong("the memory holds no rings"))?;
        let watch = sockets.watch(wakes_client)?;
        self.add(connection, rings, to_client, watch, wakes_server)
    }

    fn add(
        &mut self,
        connection: ConnectionId,
        rings: ring::Rings,
        last_bytes: u64,
        watch: WatchId,
        wakes_other: OwnedFd,
    ) -> io::Result<()> {
        self.lines.try_reserve(1)?;
        self.lines.push(Line {
            connection,
            rings,
            watch,
            wakes_other,
            unsent: None,
            is_taken: false,
            is_hostile: false,
            ended: None,
            last_bytes,
        });
        Ok(())
    }

    /// As [`Sockets::wait`].
    pub(crate) fn wait(
        &mut self,
        sockets: &mut dyn Sockets,
        deadline_ns: u64,
        spin_ns: u64,
        look: &mut dyn FnMut(Look) -> bool,
    ) -> io::Result<Waited> {
        if self.lines.is_empty() {
            return sockets.wait(deadline_ns, spin_ns, look);
        }
        self.at = 0;
        (self.has_asked, self.is_quick) = (false, false);
        self.lines.iter_mut().for_each(Line::release);
        let lines = &self.lines;
        let is_there = || lines.iter().any(Line::has_news);
        let mut is_due = self.is_polled || self.passed_over >= PASSED_OVER_MAX;
        if !is_due && (is_there() || look(Look::Spinning) || deadline_ns == 0) {
            self.passed_over += 1;
            self.is_quick = true;
            return Ok(Waited::Ready);
        }
        let mut end_ns = 0;
        while deadline_ns > 0 && spin_ns > 0 && !self.is_polled {
            if is_due {
                self.passed_over = 0;
                self.has_asked = true;
                if sockets.wait(0, 0, &mut |_| false)? == Waited::Ready {
                    return Ok(Waited::Spun);
                }
            }
            for at in 0..LOOKS_PER_CALL {
                if is_there() || at % LOOKS_PER_LOOK == 0 && look(Look::Spinning) {
                    self.passed_over += 1;
                    self.is_quick = end_ns == 0;
                    return Ok(Waited::Spun);
                }
                hint::spin_loop();
            }
            is_due = true;
            // What is found before this costs no clock.
            let now_ns = shared::now_ns();
            if end_ns == 0 {
                end_ns = now_ns.saturating_add(spin_ns).min(deadline_ns);
            }
            if now_ns >= end_ns {
                break;
            }
        }
        self.passed_over = 0;
        self.has_asked = true;
        let mut has_slept = false;
        let waited = sockets.wait(deadline_ns, 0, &mut |why| {
            if why == Look::Sleeping {
                has_slept = true;
                lines.iter().for_each(Line::announce);
            }
            is_there() || look(why)
        });
        if self.is_polled {
            // Before the turn takes what is there: the loop may sleep behind it without a word.
            lines.iter().for_each(Line::announce);
        } else if has_slept {
            lines.iter().for_each(|line| line.rings.awake());
        }
        waited
    }

    /// Whether waits look at rings first.
    pub(crate) fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Whether the rings had something within the first looks of the last wait: the time that was
    /// read before it is good enough.
    pub(crate) fn was_quick(&self) -> bool {
        self.is_quick
    }

    /// As [`Sockets::next`].
    pub(crate) fn next<'a>(&'a mut self, sockets: &'a mut dyn Sockets) -> Option<Completion<'a>> {
        while self.at < self.lines.len() {
            let line = &mut self.lines[self.at];
            let connection = line.connection;
            self.burst.clear();
            match line.look(&mut self.burst) {
                None => self.at += 1,
                Some(Seen::Bytes) => {
                    // One burst of each in a turn; all of one that has ended, and where nothing
                    // looks again.
                    self.at += usize::from(line.ended.is_none() && !self.is_polled);
                    let bytes = &self.burst;
                    return Some(Completion::Received { connection, bytes });
                }
                Some(Seen::Sent(buffer, result)) => {
                    return Some(Completion::Sent {
                        connection,
                        buffer,
                        result,
                    });
                }
                Some(Seen::Ended(error)) => {
                    self.drop_line(sockets, connection);
                    return Some(Completion::Ended { connection, error });
                }
            }
        }
        if !self.has_asked && !self.lines.is_empty() {
            return None;
        }
        match sockets.next() {
            Some(Completion::Ended { connection, error }) => {
                let at = self.position(connection);
                let Some(at) = at else {
                    return Some(Completion::Ended { connection, error });
                };
                // First what is in the ring: the turn goes on there.
                let line = &mut self.lines[at];
                line.ended = Some(error);
                self.at = at;
                let bytes: &[u8] = &[];
                Some(Completion::Received { connection, bytes })
            }
            other => other,
        }
    }

    /// As [`Sockets::send`].
    pub(crate) fn send(
        &mut self,
        sockets: &mut dyn Sockets,
        connection: ConnectionId,
        bytes: &mut Vec<u8>,
        mode: SendMode,
    ) -> io::Result<Sending> {
        let Some(at) = self.position(connection) else {
            return sockets.send(connection, bytes, mode);
        };
        let line = &mut self.lines[at];
        if line.unsent.is_some() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let mut sent = line.rings.send(bytes);
        line.publish();
        if self.is_polled && sent.is_ok_and(|sent| sent < bytes.len()) {
            // What has moved before this is seen here, the rest is told.
            line.rings.announce_sleep(true);
            let before = sent.unwrap_or(0);
            sent = line.rings.send(&bytes[before..]).map(|now| before + now);
            line.publish();
        }
        match sent {
            Ok(sent) if sent == bytes.len() => {
                bytes.clear();
                Ok(Sending::Done)
            }
            sent => {
                line.is_hostile |= sent.is_err();
                line.unsent = Some((std::mem::take(bytes), sent.unwrap_or(0)));
                Ok(Sending::Started)
            }
        }
    }

    /// As [`Sockets::close`].
    pub(crate) fn close(&mut self, sockets: &mut dyn Sockets, connection: ConnectionId) {
        self.drop_line(sockets, connection);
        sockets.close(connection);
    }

    fn position(&self, connection: ConnectionId) -> Option<usize> {
        let mut lines = self.lines.iter();
        lines.position(|line| line.connection == connection)
    }

    /// Gives back the memory of a connection.
    fn drop_line(&mut self, sockets: &mut dyn Sockets, connection: ConnectionId) {
        if let Some(at) = self.position(connection) {
            let line = self.lines.swap_remove(at);
            sockets.unwatch(line.watch);
        }
    }
}

impl Line {
    fn announce(&self) {
        self.rings.announce_sleep(self.unsent.is_some());
    }

    /// A few loads.
    #[inline]
    fn has_news(&self) -> bool {
        self.rings.has_arrived()
            || self.is_hostile
            || self.unsent.is_some() && self.rings.has_moved()
    }

    /// Takes what has arrived, or goes on with what had no room.
    fn look(&mut self, burst: &mut Vec<u8>) -> Option<Seen> {
        let hostile = || Some(Seen::Ended(Some(wrong("the other side's rings are wrong"))));
        if self.is_hostile {
            return hostile();
        }
        if self.unsent.is_some() && self.rings.has_moved() {
            let (bytes, at) = self.unsent.as_mut()?;
            let sent = self.rings.send(&bytes[*at..]);
            let Ok(sent) = sent else { return hostile() };
            *at += sent;
            let is_sent = *at == bytes.len();
            self.publish();
            if is_sent {
                let (mut buffer, _) = self.unsent.take()?;
                buffer.clear();
                return Some(Seen::Sent(buffer, Ok(())));
            }
        }
        // A side that goes on moving its cursor after it has left would never be done with.
        if self.rings.has_arrived() && (self.ended.is_none() || self.last_bytes > 0) {
            match self.rings.receive(burst, BURST_BYTES) {
                Ok(0) => {}
                Ok(taken) => {
                    self.is_taken = true;
                    if self.ended.is_some() {
                        self.last_bytes = self.last_bytes.saturating_sub(taken as u64);
                    }
                    return Some(Seen::Bytes);
                }
                Err(Hostile) => return hostile(),
            }
        }
        if self.ended.is_some()
            && let Some((mut buffer, _)) = self.unsent.take()
        {
            buffer.clear();
            return Some(Seen::Sent(buffer, Err(io::ErrorKind::BrokenPipe.into())));
        }
        self.ended.take().map(Seen::Ended)
    }

    /// Gives back the room of what was taken, unless a send has done so.
    fn release(&mut self) {
        if self.is_taken {
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.is_taken = false;
        if self.rings.publish() {
            shared::wake(&self.wakes_other);
        }
    }
}

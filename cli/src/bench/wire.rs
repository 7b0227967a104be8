//! Connections that speak the native protocol, without the client library: what a server can do is
//! measured, and not what a client of one thread can.
//!
//! One thread drives any number of them. Frames are made and read by `fastmq-wire`; handshake,
//! credit and signs of life are kept here, the rest is the [`User`]'s.

use std::io;
use std::sync::mpsc;
use std::thread;

use fastmq::border::sockets::Address;
use fastmq_wire::control::{ControlDraft, flag};
use fastmq_wire::handshake::{Answer, Hello, Limits, Welcome, read_welcome};
use fastmq_wire::{
    Control, Draft, Field, Frame, Frames, Kind, Message, Receiving, Sending, Side, VERSION,
};

use super::plan::Waiting;
use super::streams::{Protocol, Streams, address_of};

/// Bytes of messages that a server may send ahead.
const WINDOW_BYTES: u64 = 8 << 20;
/// The policy of a subscription for which publishers wait.
pub(super) const BACKPRESSURE: u64 = 1;
/// Largest frame that is taken.
const FRAME_BYTES_MAX: u32 = 1_187_840;

/// Where a connection's frames go.
pub(super) struct Exit<'a> {
    out: &'a mut Vec<u8>,
    credit: &'a mut Sending,
}

impl Exit<'_> {
    /// Sends a publish or a request; false: there is no credit, [`User::turned`] comes again.
    #[inline(always)]
    pub(super) fn send(&mut self, draft: &Draft<'_>) -> io::Result<bool> {
        if !self.credit.take(draft.size()) {
            return Ok(false);
        }
        draft.append(self.out).map_err(io::Error::other)?;
        Ok(true)
    }

    /// Sends a reply, which needs no credit.
    #[inline(always)]
    pub(super) fn reply(&mut self, draft: &Draft<'_>) -> io::Result<()> {
        draft.append(self.out).map_err(io::Error::other)
    }
}

/// What is done with messages.
pub(super) trait User {
    /// A delivery, a question or an answer has come.
    fn came(&mut self, peer: usize, message: &Message<'_>, exit: &mut Exit<'_>) -> io::Result<()>;

    /// All that had come is told: time to send more.
    fn turned(&mut self, _peer: usize, _exit: &mut Exit<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// Some connections and their user.
pub(super) struct Wire<U> {
    streams: Streams,
    pub(super) speaking: Speaking<U>,
}

/// What the connections have said and heard.
pub(super) struct Speaking<U> {
    peers: Vec<Peer>,
    pub(super) user: U,
    /// Operations that were not answered.
    open: u32,
}

struct Peer {
    is_ready: bool,
    sending: Sending,
    receiving: Receiving,
}

impl<U: User> Wire<U> {
    /// `count` connections that are welcome.
    pub(super) fn connect(
        address: &Address,
        count: usize,
        waiting: Waiting,
        user: U,
    ) -> io::Result<Self> {
        let hello = Hello {
            versions: (VERSION, VERSION),
            capabilities: 0,
            required: 0,
            name: b"fastmq bench",
            token: &[],
            limits: Limits {
                frame_max: FRAME_BYTES_MAX,
                credit: WINDOW_BYTES,
                alias_max: 4096,
                alias_bytes_max: 256 << 10,
                ping_ns: 0,
            },
        };
        let peers = (0..count).map(|_| Peer {
            is_ready: false,
            sending: Sending::new(0),
            receiving: Receiving::new(WINDOW_BYTES),
        });
        let mut speaking = Speaking {
            peers: peers.collect(),
            user,
            open: count as u32,
        };
        let mut streams = Streams::connect(address, count, waiting, &mut speaking)?;
        for stream in 0..count {
            hello
                .write(streams.output(stream))
                .map_err(io::Error::other)?;
        }
        while speaking.open > 0 {
            streams.turn(&mut speaking, fastmq::FOREVER_NS)?;
        }
        Ok(Self { streams, speaking })
    }

    /// A connection with one subscription, on a thread of its own until it breaks.
    pub(super) fn start(
        url: &str,
        waiting: Waiting,
        user: U,
        pattern: &str,
        policy: u64,
    ) -> io::Result<()>
    where
        U: Send + 'static,
    {
        let (address, pattern) = (address_of(url)?, pattern.to_owned());
        let (says, hears) = mpsc::channel();
        thread::spawn(move || {
            let begin = || {
                let mut wire = Self::connect(&address, 1, waiting, user)?;
                wire.subscribe(0, 1, pattern.as_bytes(), policy)?;
                wire.settle()?;
                Ok(wire)
            };
            match begin() {
                Ok(mut wire) => {
                    let _ = says.send(Ok(()));
                    while wire.turn(fastmq::FOREVER_NS).is_ok() {}
                }
                Err(error) => {
                    let _ = says.send(Err::<(), io::Error>(error));
                }
            }
        });
        hears.recv().map_err(io::Error::other)?
    }

    /// How many connections there are.
    pub(super) fn count(&self) -> usize {
        self.speaking.peers.len()
    }

    /// Bytes of a connection that the kernel has not taken yet.
    pub(super) fn waiting_bytes(&mut self, peer: usize) -> usize {
        self.streams.output(peer).len()
    }

    /// Whether the kernel has all that a connection was to send.
    pub(super) fn has_sent(&self, peer: usize) -> bool {
        self.streams.has_sent(peer)
    }

    /// Gives a number to a subject.
    pub(super) fn alias(&mut self, peer: usize, alias: u32, subject: &[u8]) -> io::Result<()> {
        ControlDraft::pair(self.streams.output(peer), Kind::Alias, alias, 0)
            .and_then(|draft| draft.bytes(Field::Subject, subject))
            .map_err(io::Error::other)?;
        Ok(())
    }

    /// Asks for the messages of a pattern; [`settle`](Self::settle) waits until it is so.
    pub(super) fn subscribe(
        &mut self,
        peer: usize,
        subscription: u32,
        pattern: &[u8],
        policy: u64,
    ) -> io::Result<()> {
        let out = self.streams.output(peer);
        ControlDraft::pair(out, Kind::Subscribe, subscription, subscription)
            .and_then(|draft| draft.bytes(Field::Pattern, pattern))
            .and_then(|draft| draft.number(Field::Policy, policy))
            .map_err(io::Error::other)?;
        self.speaking.open += 1;
        Ok(())
    }

    /// Waits until every operation was answered.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        while self.speaking.open > 0 {
            self.turn(fastmq::FOREVER_NS)?;
        }
        Ok(())
    }

    /// Where a connection's frames go, for a user who begins.
    pub(super) fn exit(&mut self, peer: usize) -> (Exit<'_>, &mut U) {
        let exit = Exit {
            out: self.streams.output(peer),
            credit: &mut self.speaking.peers[peer].sending,
        };
        (exit, &mut self.speaking.user)
    }

    /// Sends, and takes what comes until `deadline_ns` (monotonic).
    pub(super) fn turn(&mut self, deadline_ns: u64) -> io::Result<()> {
        self.streams.turn(&mut self.speaking, deadline_ns)
    }
}

impl<U: User> Protocol for Speaking<U> {
    fn take(&mut self, stream: usize, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let mut taken = 0;
        if !self.peers[stream].is_ready {
            let Some((answer, size)) = read_welcome(bytes).map_err(refused)? else {
                return Ok(0);
            };
            match answer {
                Answer::Welcome(welcome) => self.peers[stream].welcome(&welcome),
                Answer::Refused(control) => return Err(sentence(&control)),
            }
            self.open -= 1;
            taken = size;
        }
        let mut frames = Frames::new(&bytes[taken..], Side::Client, FRAME_BYTES_MAX);
        let mut granted = 0;
        loop {
            let peer = &mut self.peers[stream];
            let message = match frames.next_frame().map_err(refused)? {
                None => break,
                Some(Frame::Message(message) | Frame::Request(message)) => {
                    let size = fastmq_wire::round_up(message.bytes().len());
                    peer.receiving.receive(size).map_err(refused)?;
                    granted += size;
                    message
                }
                Some(Frame::Reply(message)) => message,
                Some(Frame::Control(control)) => {
                    self.control(stream, &control, out)?;
                    continue;
                }
            };
            let mut exit = Exit {
                out,
                credit: &mut peer.sending,
            };
            self.user.came(stream, &message, &mut exit)?;
        }
        let peer = &mut self.peers[stream];
        if granted > 0
            && let Some(limit) = peer.receiving.finish(granted, FRAME_BYTES_MAX)
        {
            ControlDraft::whole(out, Kind::Credit, limit).map_err(io::Error::other)?;
        }
        let mut exit = Exit {
            out,
            credit: &mut peer.sending,
        };
        self.user.turned(stream, &mut exit)?;
        Ok(taken + frames.consumed())
    }
}

impl<U> Speaking<U> {
    #[inline(never)]
    fn control(
        &mut self,
        stream: usize,
        control: &Control<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        match control.kind() {
            Kind::Credit => self.peers[stream].sending.raise(control.whole()),
            Kind::Ack => self.open = self.open.saturating_sub(1),
            Kind::Ping => {
                ControlDraft::whole(out, Kind::Pong, control.whole()).map_err(io::Error::other)?;
            }
            Kind::Error | Kind::Close | Kind::Drain => return Err(sentence(control)),
            _ => {}
        }
        Ok(())
    }
}

impl Peer {
    fn welcome(&mut self, welcome: &Welcome<'_>) {
        self.is_ready = true;
        self.sending = Sending::new(welcome.limits.credit);
    }
}

fn refused(fault: fastmq_wire::Fault) -> io::Error {
    io::Error::other(format!("the server's frame: {fault}"))
}

fn sentence(control: &Control<'_>) -> io::Error {
    let text = control.bytes(Field::Sentence).unwrap_or_default();
    let fatal = if control.flags() & flag::FATAL != 0 {
        "it has ended the connection: "
    } else {
        ""
    };
    let text = String::from_utf8_lossy(text);
    io::Error::other(format!("the server says: {fatal}{text}"))
}

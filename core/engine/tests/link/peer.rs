//! A server of a few lines over `fastmq-wire`: it says WELCOME, acknowledges, writes down what it
//! was told, and sends what a test has it send.

use std::collections::{BTreeMap, HashMap};

use fastmq_engine::driver::sockets::{
    Address, Completion, ConnectionId, ConnectionOptions, ListenerId, SendMode, Sending, Sockets,
};
use fastmq_wire::control::{flag, write_error};
use fastmq_wire::handshake::{capability, read_hello};
use fastmq_wire::message::Many;
use fastmq_wire::{
    Aliases, ControlDraft, Draft, Field, Frame, Frames, Kind, Limits, Reason, Receiving, Side,
    Subject, VERSION, Welcome, round_up,
};

/// A publish or request as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) subject: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) sequence: Option<u64>,
    pub(crate) publisher: u64,
    pub(crate) ttl_ns: Option<u64>,
    pub(crate) headers: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) correlation: u32,
    pub(crate) is_alias: bool,
    pub(crate) many: Option<Many>,
}

/// How the peer behaves.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    pub(crate) limits: Limits,
    pub(crate) instance: u64,
    pub(crate) payload_max: u64,
    /// Answers HELLO with this ERROR.
    pub(crate) refuses: Option<(Reason, u8)>,
    pub(crate) refuses_subscribe: Option<(Reason, u8)>,
    /// Says nothing at all.
    pub(crate) is_mute: bool,
    /// Answers each request with its payload.
    pub(crate) echoes: bool,
    /// Sends this instead of WELCOME.
    pub(crate) says_instead: Option<Vec<u8>>,
    /// Gives credit back.
    pub(crate) grants: bool,
    /// Where else it says one may connect.
    pub(crate) servers: Vec<u8>,
    /// Does not answer CLOSE.
    pub(crate) ignores_close: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            limits: Limits {
                alias_max: 100,
                alias_bytes_max: 10_000,
                ..Limits::default()
            },
            instance: 1,
            payload_max: 1 << 20,
            refuses: None,
            refuses_subscribe: None,
            is_mute: false,
            echoes: true,
            says_instead: None,
            grants: true,
            servers: Vec::new(),
            ignores_close: false,
        }
    }
}

pub(crate) struct Connection {
    buffer: Vec<u8>,
    is_welcomed: bool,
    out: Vec<u8>,
    is_sending: bool,
    aliases: Aliases<String>,
    receiving: Receiving,
    /// What the client granted, and what was sent of it.
    pub(crate) credit: u64,
    pub(crate) sent: u64,
    pub(crate) subscriptions: HashMap<u32, String>,
    pub(crate) token: Vec<u8>,
    is_leaving: bool,
}

/// The peer, and what it was told on all connections.
pub(crate) struct Peer {
    sockets: Box<dyn Sockets>,
    pub(crate) manners: Manners,
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) accepted: u64,
    pub(crate) published: Vec<Got>,
    pub(crate) requests: Vec<Got>,
    pub(crate) replies: Vec<(u64, u8, Vec<u8>)>,
    /// Those of streams.
    pub(crate) streamed: Vec<(u64, Vec<u8>)>,
    /// GRANT and CANCEL, which grants nothing, by correlation.
    pub(crate) granted: Vec<(u32, u64)>,
    /// The operations of DRAIN.
    pub(crate) drains: Vec<u32>,
    pub(crate) subscribed: Vec<(u32, String, String, u64)>,
    pub(crate) unsubscribed: Vec<u32>,
    pub(crate) pongs: Vec<u64>,
    pub(crate) pings: u64,
    pub(crate) closes: u64,
    /// Statuses of fatal ERRORs of the client.
    pub(crate) refused_us: Vec<u8>,
    /// What the client must not do.
    pub(crate) faults: Vec<String>,
}

impl Peer {
    pub(crate) fn new(mut sockets: Box<dyn Sockets>, address: &Address) -> (Self, Address) {
        let listener: ListenerId = sockets.listen(address).unwrap();
        let address = sockets.local_address(listener).unwrap();
        let peer = Self {
            sockets,
            manners: Manners::default(),
            connections: BTreeMap::new(),
            accepted: 0,
            published: Vec::new(),
            requests: Vec::new(),
            replies: Vec::new(),
            streamed: Vec::new(),
            granted: Vec::new(),
            drains: Vec::new(),
            subscribed: Vec::new(),
            unsubscribed: Vec::new(),
            pongs: Vec::new(),
            pings: 0,
            closes: 0,
            refused_us: Vec::new(),
            faults: Vec::new(),
        };
        (peer, address)
    }

    /// The newest connection that was welcomed.
    pub(crate) fn current(&mut self) -> Option<&mut Connection> {
        let ready = self
            .connections
            .values_mut()
            .filter(|one| one.is_welcomed && !one.is_leaving);
        ready.last()
    }

    /// The number of the subscription to a pattern on the newest connection.
    pub(crate) fn number_of(&mut self, pattern: &str) -> Option<u32> {
        let subscriptions = &self.current()?.subscriptions;
        let found = subscriptions.iter().find(|(_, other)| *other == pattern);
        found.map(|(number, _)| *number)
    }

    /// Appends a MESSAGE or REQUEST within the client's credit; false: there is none.
    pub(crate) fn send(&mut self, draft: &Draft<'_>) -> bool {
        let Some(connection) = self.current() else {
            return false;
        };
        if connection.sent + draft.size() as u64 > connection.credit {
            return false;
        }
        connection.sent += draft.size() as u64;
        draft.append(&mut connection.out).unwrap();
        true
    }

    pub(crate) fn deliver(&mut self, number: u32, subject: &str, payload: &[u8]) -> bool {
        self.send(&Draft::message(
            number,
            Subject::Text(subject.as_bytes()),
            payload,
        ))
    }

    /// Appends what is free of credit.
    pub(crate) fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(connection) = self.current() {
            write(&mut connection.out);
        }
    }

    /// Breaks all connections.
    pub(crate) fn cut(&mut self) {
        for (id, _) in std::mem::take(&mut self.connections) {
            self.sockets.close(id);
        }
    }

    /// One turn, which waits for at most so long.
    pub(crate) fn turn(&mut self, deadline_ns: u64) {
        self.flush();
        self.sockets.wait(deadline_ns, 0, &mut |_| false).unwrap();
        let mut accepted = Vec::new();
        let mut ended = Vec::new();
        loop {
            match self.sockets.next() {
                None => break,
                Some(Completion::Accepted { socket, .. }) => accepted.push(socket),
                Some(Completion::Received { connection, bytes }) => {
                    if let Some(one) = self.connections.get_mut(&connection) {
                        one.buffer.extend_from_slice(bytes);
                    }
                }
                Some(Completion::Ended { connection, .. }) => ended.push(connection),
                Some(Completion::Sent {
                    connection, result, ..
                }) => {
                    if let Some(one) = self.connections.get_mut(&connection) {
                        one.is_sending = false;
                    }
                    if result.is_err() {
                        ended.push(connection);
                    }
                }
                Some(_) => {}
            }
        }
        for socket in accepted {
            let id = self
                .sockets
                .adopt(socket, ConnectionOptions::default())
                .unwrap();
            self.accepted += 1;
            let connection = Connection {
                buffer: Vec::new(),
                is_welcomed: false,
                out: Vec::new(),
                is_sending: false,
                aliases: Aliases::new(self.manners.limits.alias_max, 10_000),
                receiving: Receiving::new(self.manners.limits.credit),
                credit: 0,
                sent: 0,
                subscriptions: HashMap::new(),
                token: Vec::new(),
                is_leaving: false,
            };
            self.connections.insert(id, connection);
        }
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(mut one) = self.connections.remove(&id) else {
                continue;
            };
            self.read(&mut one);
            self.connections.insert(id, one);
        }
        self.flush();
        for id in ended {
            if self.connections.remove(&id).is_some() {
                self.sockets.close(id);
            }
        }
    }

    fn flush(&mut self) {
        let mut gone = Vec::new();
        for (id, one) in &mut self.connections {
            if one.is_sending {
                continue;
            }
            if !one.out.is_empty() {
                match self.sockets.send(*id, &mut one.out, SendMode::Direct) {
                    Ok(Sending::Done) => {}
                    Ok(Sending::Started) => one.is_sending = true,
                    Err(_) => gone.push(*id),
                }
            }
            if one.is_leaving && !one.is_sending {
                gone.push(*id);
            }
        }
        for id in gone {
            self.connections.remove(&id);
            self.sockets.close(id);
        }
    }

    fn read(&mut self, one: &mut Connection) {
        let buffer = std::mem::take(&mut one.buffer);
        let mut start = 0;
        if !one.is_welcomed && !self.manners.is_mute && !one.is_leaving {
            match read_hello(&buffer, capability::ALL) {
                Ok(Some((hello, size))) => {
                    start = size;
                    if buffer.len() > size {
                        self.faults.push("spoke before WELCOME".to_owned());
                    }
                    one.credit = hello.limits.credit;
                    one.token = hello.token.to_vec();
                    self.welcome(one);
                }
                Ok(None) => {}
                Err(fault) => self.faults.push(fault.to_string()),
            }
        }
        if !one.is_welcomed {
            one.buffer = buffer[start..].to_vec();
            return;
        }
        let frame_max = self.manners.limits.frame_max;
        let mut frames = Frames::new(&buffer[start..], Side::Server, frame_max);
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => self.on_frame(one, &frame),
                Ok(None) => break,
                Err(fault) => {
                    self.faults.push(fault.to_string());
                    break;
                }
            }
        }
        one.buffer = buffer[start + frames.consumed()..].to_vec();
    }

    fn welcome(&mut self, one: &mut Connection) {
        let manners = &self.manners;
        if let Some((reason, status)) = manners.refuses {
            write_error(&mut one.out, 0, reason, status, flag::FATAL, "go away").unwrap();
            one.is_leaving = true;
            return;
        }
        if let Some(bytes) = &manners.says_instead {
            one.out.extend_from_slice(bytes);
            return;
        }
        let welcome = Welcome {
            version: VERSION,
            capabilities: capability::ALL,
            name: b"peer",
            client: self.accepted,
            instance: manners.instance,
            payload_max: manners.payload_max,
            subscriptions_max: 0,
            servers: &manners.servers,
            rings: None,
            limits: manners.limits,
        };
        welcome.write(&mut one.out).unwrap();
        one.is_welcomed = true;
    }

    fn on_frame(&mut self, one: &mut Connection, frame: &Frame<'_>) {
        match frame {
            Frame::Message(message) | Frame::Request(message) => {
                let size = round_up(message.bytes().len());
                if let Err(fault) = one.receiving.receive(size) {
                    self.faults.push(fault.to_string());
                }
                if self.manners.grants
                    && let Some(limit) = one.receiving.finish(size, self.manners.limits.frame_max)
                {
                    ControlDraft::whole(&mut one.out, Kind::Credit, limit).unwrap();
                }
                let (subject, publisher) = match message.alias() {
                    Some(alias) => {
                        let entry = one.aliases.get(alias).unwrap();
                        (entry.value.clone(), entry.publisher)
                    }
                    None => (String::from_utf8(message.subject().to_vec()).unwrap(), 0),
                };
                let got = Got {
                    subject,
                    payload: message.payload().to_vec(),
                    sequence: message.sequence(),
                    publisher: message.publisher().unwrap_or(publisher),
                    ttl_ns: message.ttl_ns(),
                    headers: message.headers().to_vec(),
                    key: message.key().to_vec(),
                    correlation: message.correlation(),
                    is_alias: message.alias().is_some(),
                    many: message.many(),
                };
                if let Frame::Message(_) = frame {
                    self.published.push(got);
                    return;
                }
                if self.manners.echoes {
                    let answer = Draft::answer(got.correlation, 1, 0, &got.payload);
                    answer.append(&mut one.out).unwrap();
                }
                self.requests.push(got);
            }
            Frame::Reply(message) => {
                let payload = message.payload().to_vec();
                if message.is_more() {
                    self.streamed.push((message.token(), payload));
                    return;
                }
                self.replies
                    .push((message.token(), message.status(), payload));
            }
            Frame::Control(control) => self.on_control(one, control),
        }
    }

    fn on_control(&mut self, one: &mut Connection, control: &fastmq_wire::Control<'_>) {
        let text = |field| {
            let bytes = control.bytes(field).unwrap_or_default();
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let operation = control.operation();
        match control.kind() {
            Kind::Alias => {
                let publisher = control.number(Field::Publisher).unwrap_or(0);
                let subject = text(Field::Subject);
                let made =
                    one.aliases
                        .define(control.alias(), subject.as_bytes(), publisher, || {
                            Ok(subject.clone())
                        });
                made.unwrap();
            }
            Kind::Subscribe => {
                let (number, pattern) = (control.subscription(), text(Field::Pattern));
                let policy = control.number(Field::Policy).unwrap_or(0);
                self.subscribed
                    .push((number, pattern.clone(), text(Field::Group), policy));
                if let Some((reason, status)) = self.manners.refuses_subscribe {
                    write_error(&mut one.out, operation, reason, status, 0, "no").unwrap();
                    return;
                }
                let before = one.subscriptions.insert(number, pattern);
                assert_eq!(before, None, "a number in use");
                ControlDraft::pair(&mut one.out, Kind::Ack, operation, 0).unwrap();
            }
            Kind::Unsubscribe => {
                one.subscriptions.remove(&control.subscription());
                self.unsubscribed.push(control.subscription());
                ControlDraft::pair(&mut one.out, Kind::Ack, operation, 0).unwrap();
            }
            Kind::Grant => {
                let replies = control.number(Field::Replies).unwrap();
                self.granted.push((control.correlation(), replies));
            }
            Kind::Drain => self.drains.push(operation),
            Kind::Cancel => self.granted.push((control.correlation(), 0)),
            Kind::Credit => one.credit = one.credit.max(control.whole()),
            Kind::Ping => {
                self.pings += 1;
                ControlDraft::whole(&mut one.out, Kind::Pong, control.whole()).unwrap();
            }
            Kind::Pong => self.pongs.push(control.whole()),
            Kind::Error => self.refused_us.push(control.status()),
            Kind::Close => {
                self.closes += 1;
                if self.manners.ignores_close {
                    return;
                }
                if !one.is_leaving {
                    ControlDraft::pair(&mut one.out, Kind::Close, 0, 0).unwrap();
                }
                one.is_leaving = true;
            }
            _ => {}
        }
    }
}

//! A client of the protocol for tests, on the client side of `fastmq-wire`, without I/O: what it
//! says is collected in `out`, what it hears is listed in `heard`.

use std::collections::VecDeque;

use fastmq_wire::control::flag;
use fastmq_wire::handshake::{Answer, capability, read_welcome};
use fastmq_wire::{
    Aliases, ControlDraft, Draft, Field, Frame, Frames, Hello, Kind, Limits, Message, Reason,
    Receiving, Side, Subject, VERSION,
};

/// What was heard, in owned bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Welcome {
        capabilities: u64,
        client: u64,
    },
    Message(Got),
    Request(Got),
    Reply {
        correlation: u32,
        status: u8,
        payload: Vec<u8>,
    },
    /// The same of one that says MORE, or who answers.
    OneOfMany {
        correlation: u32,
        status: u8,
        payload: Vec<u8>,
        responder: u32,
        is_more: bool,
    },
    /// GRANT and CANCEL, by token; CANCEL grants nothing.
    Grant(u64, u64),
    Ack(u32),
    Error(Refusal),
    Event {
        subscription: u32,
        event: u32,
        count: u64,
    },
    Ping(u64),
    Pong(u64),
    Drain,
    Close(u8),
}

/// A message or request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Got {
    pub subscription: u32,
    pub subject: Vec<u8>,
    pub payload: Vec<u8>,
    pub token: u64,
    pub sequence: u64,
    pub publisher: u64,
    pub lost: u64,
    pub reply_to: Vec<u8>,
    pub key: Vec<u8>,
    pub headers: Vec<u8>,
    pub is_alias: bool,
    /// Credit for a stream.
    pub credit: u32,
}

/// An ERROR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub operation: u32,
    pub reason: Option<Reason>,
    pub status: u8,
    pub is_fatal: bool,
    pub subject: Vec<u8>,
}

/// One client.
pub(crate) struct Peer {
    pub out: Vec<u8>,
    pub heard: VecDeque<Heard>,
    pub limits: Limits,
    /// Whether it grants more as it receives.
    pub grants: bool,
    rest: Vec<u8>,
    is_ready: bool,
    aliases: Aliases<Vec<u8>>,
    receiving: Receiving,
    /// Bytes of messages received, and what was granted by hand.
    received: u64,
    granted: u64,
}

impl Peer {
    /// One that has said nothing yet.
    pub(crate) fn new() -> Self {
        Self::with(Limits {
            alias_max: 64,
            alias_bytes_max: 4096,
            ..Limits::default()
        })
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self {
            out: Vec::new(),
            heard: VecDeque::new(),
            limits,
            grants: true,
            rest: Vec::new(),
            is_ready: false,
            aliases: Aliases::new(limits.alias_max, limits.alias_bytes_max),
            receiving: Receiving::new(limits.credit),
            received: 0,
            granted: limits.credit,
        }
    }

    pub(crate) fn hello(&mut self) {
        // It has no rings.
        self.hello_with(b"", capability::ALL & !capability::SHM);
    }

    pub(crate) fn hello_with(&mut self, token: &[u8], capabilities: u64) {
        let hello = Hello {
            versions: (VERSION, VERSION),
            capabilities,
            required: 0,
            name: b"peer",
            token,
            limits: self.limits,
        };
        hello.write(&mut self.out).unwrap();
    }

    pub(crate) fn pair(&mut self, kind: Kind, first: u32, second: u32) -> ControlDraft<'_> {
        ControlDraft::pair(&mut self.out, kind, first, second).unwrap()
    }

    pub(crate) fn subscribe(&mut self, number: u32, operation: u32, pattern: &str) {
        let draft = self.pair(Kind::Subscribe, number, operation);
        draft.bytes(Field::Pattern, pattern.as_bytes()).unwrap();
    }

    /// Subscribes with a policy and a capacity.
    pub(crate) fn subscribe_as(&mut self, number: u32, pattern: &str, policy: u64, capacity: u64) {
        let draft = self.pair(Kind::Subscribe, number, 1_000_000 + number);
        let draft = draft.bytes(Field::Pattern, pattern.as_bytes()).unwrap();
        let draft = draft.number(Field::Policy, policy).unwrap();
        draft.number(Field::Capacity, capacity).unwrap();
    }

    pub(crate) fn join(&mut self, number: u32, operation: u32, pattern: &str, group: &str) {
        let draft = self.pair(Kind::Subscribe, number, operation);
        let draft = draft.bytes(Field::Pattern, pattern.as_bytes()).unwrap();
        draft.bytes(Field::Group, group.as_bytes()).unwrap();
    }

    /// Grants credit, for one that does not by itself.
    pub(crate) fn grant(&mut self, limit: u64) {
        self.granted = limit;
        ControlDraft::whole(&mut self.out, Kind::Credit, limit).unwrap();
    }

    pub(crate) fn alias(&mut self, alias: u32, subject: &str) {
        let draft = self.pair(Kind::Alias, alias, 0);
        draft.bytes(Field::Subject, subject.as_bytes()).unwrap();
    }

    pub(crate) fn publish(&mut self, operation: u32, subject: &str, payload: &[u8]) {
        let subject = Subject::Text(subject.as_bytes());
        self.say(&Draft::message(operation, subject, payload));
    }

    pub(crate) fn request(&mut self, correlation: u32, subject: &str, payload: &[u8]) {
        let subject = Subject::Text(subject.as_bytes());
        self.say(&Draft::request(correlation, subject, payload));
    }

    pub(crate) fn reply(&mut self, token: u64, payload: &[u8]) {
        self.say(&Draft::reply(token, 0, payload));
    }

    pub(crate) fn say(&mut self, draft: &Draft<'_>) {
        draft.append(&mut self.out).unwrap();
    }

    /// Takes what was received.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        if !self.is_ready {
            let Some((answer, size)) = read_welcome(&self.rest).unwrap() else {
                return;
            };
            match answer {
                Answer::Welcome(welcome) => {
                    self.is_ready = true;
                    self.heard.push_back(Heard::Welcome {
                        capabilities: welcome.capabilities,
                        client: welcome.client,
                    });
                }
                Answer::Refused(error) => self.heard.push_back(Heard::Error(refusal(&error))),
            }
            at = size;
        }
        let rest = std::mem::take(&mut self.rest);
        let mut frames = Frames::new(&rest[at..], Side::Client, self.limits.frame_max);
        let mut granted = None;
        while let Some(frame) = frames.next_frame().unwrap() {
            let heard = match frame {
                Frame::Message(message) => Some(Heard::Message(self.got(&message, &mut granted))),
                Frame::Request(message) => Some(Heard::Request(self.got(&message, &mut granted))),
                Frame::Reply(reply) if reply.is_more() || reply.responder() > 0 => {
                    Some(Heard::OneOfMany {
                        correlation: reply.correlation(),
                        status: reply.status(),
                        payload: reply.payload().to_vec(),
                        responder: reply.responder(),
                        is_more: reply.is_more(),
                    })
                }
                Frame::Reply(reply) => Some(Heard::Reply {
                    correlation: reply.correlation(),
                    status: reply.status(),
                    payload: reply.payload().to_vec(),
                }),
                Frame::Control(control) => match control.kind() {
                    Kind::Ack => Some(Heard::Ack(control.operation())),
                    Kind::Error => Some(Heard::Error(refusal(&control))),
                    Kind::Event => Some(Heard::Event {
                        subscription: control.subscription(),
                        event: control.event(),
                        count: control.number(Field::Count).unwrap_or(0),
                    }),
                    Kind::Alias => {
                        let subject = control.bytes(Field::Subject).unwrap();
                        let keep = || Ok(subject.to_vec());
                        self.aliases
                            .define(control.alias(), subject, 0, keep)
                            .unwrap();
                        None
                    }
                    Kind::Ping => Some(Heard::Ping(control.whole())),
                    Kind::Pong => Some(Heard::Pong(control.whole())),
                    Kind::Grant => {
                        let replies = control.number(Field::Replies).unwrap();
                        Some(Heard::Grant(control.whole(), replies))
                    }
                    Kind::Cancel => Some(Heard::Grant(control.whole(), 0)),
                    Kind::Drain => Some(Heard::Drain),
                    Kind::Close => Some(Heard::Close(control.status())),
                    _ => None,
                },
            };
            self.heard.extend(heard);
        }
        self.rest = rest[at + frames.consumed()..].to_vec();
        if let Some(limit) = granted.filter(|_| self.grants) {
            ControlDraft::whole(&mut self.out, Kind::Credit, limit).unwrap();
        }
    }

    fn got(&mut self, message: &Message<'_>, granted: &mut Option<u64>) -> Got {
        let size = fastmq_wire::round_up(message.bytes().len());
        self.received += size as u64;
        if !self.grants {
            assert!(self.received <= self.granted, "beyond the credit");
        } else {
            self.receiving.receive(size).unwrap();
            *granted = self
                .receiving
                .finish(size, self.limits.frame_max)
                .or(*granted);
        }
        let subject = match message.alias() {
            Some(alias) => self.aliases.get(alias).unwrap().value.clone(),
            None => message.subject().to_vec(),
        };
        Got {
            subscription: message.subscription(),
            subject,
            payload: message.payload().to_vec(),
            token: message.token(),
            sequence: message.sequence().unwrap_or(0),
            publisher: message.publisher().unwrap_or(0),
            lost: message.lost(),
            reply_to: message.reply_to().to_vec(),
            key: message.key().to_vec(),
            headers: message.headers().to_vec(),
            is_alias: message.alias().is_some(),
            credit: message.many().map_or(0, |many| many.credit),
        }
    }

    /// The next thing heard that is a delivery.
    pub(crate) fn message(&mut self) -> Got {
        match self.heard.pop_front() {
            Some(Heard::Message(got)) => got,
            other => panic!("{other:?} in place of a message"),
        }
    }

    /// The next thing heard, which is a question.
    pub(crate) fn question(&mut self) -> Got {
        match self.heard.pop_front() {
            Some(Heard::Request(got)) => got,
            other => panic!("{other:?} in place of a request"),
        }
    }

    /// The next thing heard, which is a refusal.
    pub(crate) fn refusal(&mut self) -> Refusal {
        match self.heard.pop_front() {
            Some(Heard::Error(refusal)) => refusal,
            other => panic!("{other:?} in place of an error"),
        }
    }
}

fn refusal(control: &fastmq_wire::Control<'_>) -> Refusal {
    Refusal {
        operation: control.operation(),
        reason: control.reason(),
        status: control.status(),
        is_fatal: control.flags() & flag::FATAL != 0,
        subject: control.bytes(Field::Subject).unwrap_or_default().to_vec(),
    }
}

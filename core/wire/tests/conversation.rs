//! A whole conversation without a socket: an asker, a broker and a responder that have this crate
//! and nothing else, over streams that cut frames anywhere.

use fastmq_wire::control::{ControlDraft, write_fault};
use fastmq_wire::field::Field;
use fastmq_wire::handshake::{Answer, capability, read_hello, read_welcome};
use fastmq_wire::{
    Agreement, Aliases, Draft, Fault, Frame, Frames, Hello, Kind, Limits, Message, Numbers,
    Receiving, Sending, Side, State, Subject, Welcome,
};

const SUBJECT: &[u8] = b"tower.clearance";
const REQUESTS: u32 = 500;
const LIMITS: Limits = Limits {
    frame_max: 8192,
    credit: 8192,
    alias_max: 8,
    alias_bytes_max: 256,
    ping_ns: 1_000_000_000,
};

/// One end of a connection.
struct End {
    side: State,
    is: Side,
    received: Vec<u8>,
    out: Vec<u8>,
    sending: Sending,
    receiving: Receiving,
    aliases: Aliases<Vec<u8>>,
    numbers: Numbers,
}

impl End {
    fn new(is: Side) -> Self {
        Self {
            side: State::default(),
            is,
            received: Vec::new(),
            out: Vec::new(),
            sending: Sending::new(0),
            receiving: Receiving::new(LIMITS.credit),
            aliases: Aliases::new(LIMITS.alias_max, LIMITS.alias_bytes_max),
            numbers: Numbers::new(0, 0),
        }
    }

    fn agree(&mut self, agreement: &Agreement) {
        let theirs = agreement.theirs;
        self.sending = Sending::new(theirs.credit);
        self.numbers = Numbers::new(theirs.alias_max, theirs.alias_bytes_max);
        self.side.welcomed().unwrap();
    }

    /// Sends an ALIAS for the subject and gives its number.
    fn alias(&mut self, subject: &[u8]) -> u32 {
        let alias = self.numbers.take(subject.len()).expect("there is room");
        let draft = ControlDraft::pair(&mut self.out, Kind::Alias, alias, 0).unwrap();
        draft.bytes(Field::Subject, subject).unwrap();
        alias
    }

    /// Takes what has come; `each` gets the messages with their subject's text.
    fn take(&mut self, mut each: impl FnMut(&str, &Message<'_>, &[u8])) -> Result<(), Fault> {
        let received = std::mem::take(&mut self.received);
        let mut frames = Frames::new(&received, self.is, LIMITS.frame_max);
        while self.side == State::Ready {
            let Some(frame) = frames.next_frame()? else {
                break;
            };
            match frame {
                Frame::Message(_) => panic!("nobody publishes here"),
                Frame::Reply(reply) => each("reply", &reply, b""),
                Frame::Request(request) => {
                    let size = request.bytes().len().next_multiple_of(8);
                    self.receiving.receive(size)?;
                    let subject = match request.alias() {
                        Some(alias) => &self.aliases.get(alias)?.value,
                        None => request.subject(),
                    };
                    each("request", &request, subject);
                    if let Some(limit) = self.receiving.finish(size, LIMITS.frame_max) {
                        ControlDraft::whole(&mut self.out, Kind::Credit, limit).unwrap();
                    }
                }
                Frame::Control(control) => match control.kind() {
                    Kind::Alias => {
                        let subject = control.bytes(Field::Subject).unwrap_or_default();
                        let define = || Ok(subject.to_vec());
                        self.aliases.define(control.alias(), subject, 0, define)?;
                    }
                    Kind::Credit => self.sending.raise(control.whole()),
                    Kind::Ping => {
                        let value = control.whole();
                        ControlDraft::whole(&mut self.out, Kind::Pong, value).unwrap();
                    }
                    Kind::Pong => assert_eq!(control.whole(), 77),
                    Kind::Close => {
                        if self.side.heard_goodbye() {
                            ControlDraft::pair(&mut self.out, Kind::Close, 0, 0).unwrap();
                        }
                    }
                    other => panic!("{} was not expected", other.name()),
                },
            }
        }
        self.received = received[frames.consumed()..].to_vec();
        Ok(())
    }
}

/// Moves a part of what waits from one end to the other: frames are cut anywhere.
fn carry(from: &mut Vec<u8>, to: &mut Vec<u8>, seed: &mut u64) {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    let size = from.len().min((*seed >> 33) as usize % 300);
    to.extend(from.drain(..size));
}

/// The handshake of a client and its end at the broker.
fn shake_hands(client: &mut End, broker: &mut End, seed: &mut u64) {
    let hello = Hello {
        versions: (1, 4),
        capabilities: capability::ACK,
        required: 0,
        name: b"gate",
        token: b"s3cret",
        limits: LIMITS,
    };
    let welcome = Welcome {
        version: 1,
        capabilities: capability::ACK,
        name: b"tower",
        client: 1,
        instance: 2,
        payload_max: 4096,
        subscriptions_max: 10,
        servers: b"",
        rings: None,
        limits: LIMITS,
    };
    hello.write(&mut client.out).unwrap();
    while client.side == State::Waiting {
        carry(&mut client.out, &mut broker.received, seed);
        carry(&mut broker.out, &mut client.received, seed);
        if broker.side == State::Waiting
            && let Some((said, size)) = read_hello(&broker.received, capability::ALL).unwrap()
        {
            assert!(said.has_token(b"s3cret") && !said.has_token(b"s3creT"));
            let agreement = Agreement::of_server(&said, &welcome);
            broker.received.drain(..size);
            broker.agree(&agreement);
            welcome.write(&mut broker.out).unwrap();
        }
        if let Some((Answer::Welcome(said), size)) = read_welcome(&client.received).unwrap() {
            let agreement = Agreement::of_client(&hello, &said);
            client.received.drain(..size);
            client.agree(&agreement);
        }
    }
}

#[test]
fn requests_reach_their_responder_and_replies_their_asker() {
    for start in 0..20 {
        let seed = &mut (start * 7 + 1);
        let (mut asker, mut asker_at) = (End::new(Side::Client), End::new(Side::Server));
        let (mut responder, mut responder_at) = (End::new(Side::Client), End::new(Side::Server));
        shake_hands(&mut asker, &mut asker_at, seed);
        shake_hands(&mut responder, &mut responder_at, seed);

        let by_asker = asker.alias(SUBJECT);
        let by_broker = responder_at.alias(SUBJECT);
        ControlDraft::whole(&mut asker.out, Kind::Ping, 77).unwrap();
        let (mut asked, mut answered) = (0, 0);
        while answered < REQUESTS {
            while asked < REQUESTS {
                let payload = asked.to_le_bytes();
                let subject = match asked % 3 {
                    0 => Subject::Text(SUBJECT),
                    _ => Subject::Alias(by_asker),
                };
                let draft = Draft::request(asked, subject, &payload);
                if !asker.sending.take(draft.size()) {
                    break;
                }
                draft.append(&mut asker.out).unwrap();
                asked += 1;
            }
            carry(&mut asker.out, &mut asker_at.received, seed);
            let (out, sending) = (&mut responder_at.out, &mut responder_at.sending);
            let take = |kind: &str, request: &Message<'_>, subject: &[u8]| {
                assert_eq!((kind, subject), ("request", SUBJECT));
                // The token leads back without a table: connection 9 of generation 3.
                let token = u64::from(request.correlation()) | 0x0009_0003 << 32;
                let subject = Subject::Alias(by_broker);
                let draft = Draft::question(5, subject, token, request.payload());
                assert!(sending.take(draft.size()), "a broker would answer BUSY");
                draft.append(out).unwrap();
            };
            asker_at.take(take).unwrap();

            carry(&mut responder_at.out, &mut responder.received, seed);
            let mut replies = Vec::new();
            let answer = |kind: &str, question: &Message<'_>, subject: &[u8]| {
                assert_eq!((kind, subject), ("request", SUBJECT));
                assert_eq!(question.subscription(), 5);
                let draft = Draft::reply(question.token(), 0, question.payload());
                draft.append(&mut replies).unwrap();
            };
            responder.take(answer).unwrap();
            responder.out.extend(replies);

            carry(&mut responder.out, &mut responder_at.received, seed);
            let out = &mut asker_at.out;
            let back = |kind: &str, reply: &Message<'_>, _: &[u8]| {
                assert_eq!(kind, "reply");
                assert_eq!(reply.token() >> 32, 0x0009_0003);
                let correlation = reply.token() as u32;
                let draft = Draft::answer(correlation, 0, reply.status(), reply.payload());
                draft.append(out).unwrap();
            };
            responder_at.take(back).unwrap();

            carry(&mut asker_at.out, &mut asker.received, seed);
            let done = |kind: &str, reply: &Message<'_>, _: &[u8]| {
                assert_eq!((kind, reply.correlation()), ("reply", answered));
                assert_eq!(reply.payload(), answered.to_le_bytes());
                answered += 1;
            };
            asker.take(done).unwrap();
        }

        ControlDraft::pair(&mut asker.out, Kind::Close, 0, 0).unwrap();
        asker.side.said_goodbye();
        asker_at.received.append(&mut asker.out);
        asker_at.take(|_, _, _| panic!("all is answered")).unwrap();
        assert_eq!(asker_at.side, State::Ended);
        assert!(!asker_at.out.is_empty(), "the CLOSE that it owes");
        assert!(asker.side.heard_nothing_more(), "that was clean");
    }
}

#[test]
fn an_alias_that_was_never_given_ends_the_connection() {
    let seed = &mut 1;
    let (mut client, mut broker) = (End::new(Side::Client), End::new(Side::Server));
    shake_hands(&mut client, &mut broker, seed);
    let draft = Draft::request(1, Subject::Alias(3), b"");
    draft.append(&mut broker.received).unwrap();
    let fault = broker.take(|_, _, _| panic!("refused")).unwrap_err();
    assert_eq!(fault, Fault::AliasUnknown(3));
    write_fault(&mut client.received, &fault).unwrap();
    let mut frames = Frames::new(&client.received, Side::Client, 8192);
    let Ok(Some(Frame::Control(error))) = frames.next_frame() else {
        panic!("an ERROR")
    };
    assert!(error.is_fatal());
    let sentence = error.bytes(Field::Sentence).unwrap();
    assert_eq!(sentence, b"alias 3 stands for no subject");
}

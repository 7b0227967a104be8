//! The golden vectors of `tests/vectors/protocol.json`: what the page says is read value by value
//! and written bit for bit, what may be ignored is, and what is forbidden is refused with its
//! reason.

use fastmq_wire::control::{self, Control, ControlDraft, MAGIC, event};
use fastmq_wire::field::Field;
use fastmq_wire::handshake::{Answer, capability, read_hello, read_welcome};
use fastmq_wire::message::{Many, flag};
use fastmq_wire::{Draft, Fault, Frame, Frames, Kind, Message, Reason, Side, Subject};
use serde_json::{Map, Value};

const FRAME_MAX: u32 = 1_187_840;

fn load() -> Value {
    let path = format!(
        "{}/../../tests/vectors/protocol.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).expect("the vectors are in the repository");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let list = value[name].as_array().expect("a list of cases");
    assert!(!list.is_empty());
    list
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().expect("a text")
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |place: usize| {
        let digit = char::from(hex.as_bytes()[place]).to_digit(16);
        digit.expect("a hex digit") as u8
    };
    (0..hex.len() / 2)
        .map(|index| digit(2 * index) << 4 | digit(2 * index + 1))
        .collect()
}

fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.parse().expect("a decimal number"),
        other => other.as_u64().expect("a number"),
    }
}

fn side(case: &Value) -> Side {
    match text(case, "to") {
        "server" => Side::Server,
        "client" => Side::Client,
        other => panic!("{other} is no side"),
    }
}

/// What a case says, looked up by name.
struct Values<'a>(&'a Map<String, Value>);

impl<'a> Values<'a> {
    fn of(case: &'a Value) -> Self {
        Self(case["values"].as_object().expect("values"))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(number)
    }

    fn small(&self, name: &str) -> u32 {
        u32::try_from(self.number(name).unwrap_or(0)).expect("a number of 4 bytes")
    }

    fn text(&self, name: &str) -> &'a str {
        self.0.get(name).map_or("", |value| value.as_str().unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        bytes(self.text(name))
    }

    fn many(&self) -> Option<Many> {
        let many = self.0.get("many")?;
        Some(Many {
            answers: number(&many["answers"]) as u32,
            credit: number(&many["credit"]) as u32,
        })
    }
}

fn check_message(message: &Message<'_>, kind: Kind, side: Side, case: &Value, is_good: bool) {
    let (values, name) = (Values::of(case), text(case, "name"));
    let first = match (kind, side) {
        (Kind::Message, Side::Server) => Some(("operation", message.operation())),
        (Kind::Request, Side::Server) => Some(("correlation", message.correlation())),
        (Kind::Reply, Side::Server) => None,
        (Kind::Reply, Side::Client) => Some(("correlation", message.correlation())),
        (_, Side::Client) => Some(("subscription", message.subscription())),
        _ => unreachable!(),
    };
    if let Some((label, first)) = first {
        assert_eq!(first, values.small(label), "{name}: {label}");
    }
    if kind == Kind::Reply {
        let status = message.status();
        assert_eq!(u32::from(status), values.small("status"), "{name}");
        assert_eq!(message.is_more(), values.0.contains_key("more"), "{name}");
        assert_eq!(message.alias(), None, "{name}");
        if side == Side::Client {
            assert_eq!(message.responder(), values.small("responder"), "{name}");
        } else {
            assert_eq!(Some(message.token()), values.number("token"), "{name}");
        }
    } else {
        let alias = message.alias().map(u64::from);
        assert_eq!(alias, values.number("alias"), "{name}");
    }
    if kind == Kind::Request && side == Side::Client {
        assert_eq!(Some(message.token()), values.number("token"), "{name}");
    }
    if side == Side::Client {
        let lost = values.number("lost").unwrap_or(0);
        assert_eq!(message.lost(), lost, "{name}");
    }
    assert_eq!(message.sequence(), values.number("sequence"), "{name}");
    assert_eq!(message.publisher(), values.number("publisher"), "{name}");
    assert_eq!(message.ttl_ns(), values.number("ttl_ns"), "{name}");
    let timestamp = values.number("timestamp_ns");
    assert_eq!(message.timestamp_ns(), timestamp, "{name}");
    if kind == Kind::Request {
        assert_eq!(message.many(), values.many(), "{name}");
    }
    assert_eq!(message.payload(), values.bytes("payload"), "{name}");
    let subject = values.text("subject").as_bytes();
    assert_eq!(message.subject(), subject, "{name}");
    let reply_to = values.text("reply_to").as_bytes();
    assert_eq!(message.reply_to(), reply_to, "{name}");
    assert_eq!(message.key(), values.bytes("key"), "{name}");
    assert_eq!(message.headers(), values.bytes("headers"), "{name}");
    if is_good {
        let extension = message.extension();
        let found = extension.map(|extension| (extension.bits, extension.bytes.to_vec()));
        let said = values.0.get("extension").map(|extension| {
            let bits = number(&extension["bits"]) as u32;
            (bits, bytes(text(extension, "data")))
        });
        assert_eq!(found, said, "{name}");
    }
}

fn check_control(frame: &Control<'_>, side: Side, case: &Value, fields: &Value) {
    let (values, name) = (Values::of(case), text(case, "name"));
    for (label, value) in values.0 {
        let found = match (label.as_str(), frame.kind()) {
            ("operation", _) => u64::from(frame.operation()),
            ("subscription", _) => u64::from(frame.subscription()),
            ("alias", _) => u64::from(frame.alias()),
            ("correlation", _) => u64::from(frame.correlation()),
            ("event", _) => u64::from(frame.event()),
            ("reason", _) => frame.reason().expect("a reason that is known") as u64,
            ("status", _) => u64::from(frame.status()),
            ("flags", _) => u64::from(frame.flags()),
            ("limit" | "value" | "token", _) => frame.whole(),
            ("fields", _) => {
                for (field, value) in value.as_object().expect("fields") {
                    check_field(frame, field, value, fields, name);
                }
                continue;
            }
            other => panic!("{name}: {other:?} has no place in the frame"),
        };
        assert_eq!(found, number(value), "{name}: {label}");
    }
    let is_fatal = frame.kind() == Kind::Error && values.small("flags") & 1 != 0;
    assert_eq!(frame.is_fatal(), is_fatal, "{name}");
    if frame.kind() == Kind::Hello && side == Side::Server {
        assert_eq!(frame.whole(), MAGIC, "{name}");
    }
}

const FIELDS: [(&str, Field); 29] = [
    ("VERSIONS", Field::Versions),
    ("VERSION", Field::Version),
    ("CAPABILITIES", Field::Capabilities),
    ("REQUIRED", Field::Required),
    ("NAME", Field::Name),
    ("TOKEN", Field::Token),
    ("FRAME_MAX", Field::FrameMax),
    ("PAYLOAD_MAX", Field::PayloadMax),
    ("CREDIT", Field::Credit),
    ("ALIAS_MAX", Field::AliasMax),
    ("ALIAS_BYTES_MAX", Field::AliasBytesMax),
    ("SUBSCRIPTIONS_MAX", Field::SubscriptionsMax),
    ("PING_NS", Field::PingNs),
    ("CLIENT", Field::Client),
    ("INSTANCE", Field::Instance),
    ("SENTENCE", Field::Sentence),
    ("SUBJECT", Field::Subject),
    ("PUBLISHER", Field::Publisher),
    ("PATTERN", Field::Pattern),
    ("GROUP", Field::Group),
    ("WEIGHT", Field::Weight),
    ("POLICY", Field::Policy),
    ("CAPACITY", Field::Capacity),
    ("REPLIES", Field::Replies),
    ("COUNT", Field::Count),
    ("DEADLINE_NS", Field::DeadlineNs),
    ("SERVERS", Field::Servers),
    ("ADDRESS", Field::Address),
    ("RINGS", Field::Rings),
];
const BYTES: [&str; 2] = ["TOKEN", "RINGS"];
const TEXTS: [&str; 7] = [
    "NAME", "SENTENCE", "SUBJECT", "PATTERN", "GROUP", "SERVERS", "ADDRESS",
];

fn field(name: &str) -> Field {
    let found = FIELDS.iter().find(|(field, _)| *field == name);
    found.expect("a field that is known").1
}

fn check_field(frame: &Control<'_>, label: &str, value: &Value, ids: &Value, name: &str) {
    let which = field(label);
    assert_eq!(which as u64, number(&ids[label]), "{label}");
    if BYTES.contains(&label) {
        let found = frame.bytes(which).expect(label);
        assert_eq!(found, bytes(value.as_str().unwrap()), "{name}: {label}");
    } else if TEXTS.contains(&label) {
        let found = frame.bytes(which).expect(label);
        assert_eq!(found, value.as_str().unwrap().as_bytes(), "{name}: {label}");
    } else {
        assert_eq!(frame.number(which), Some(number(value)), "{name}: {label}");
    }
}

/// The first frame of `bytes` of a connection that is ready or, for HELLO and WELCOME, begins.
fn check_frame(data: &[u8], case: &Value, vectors: &Value, is_good: bool) {
    let (name, side) = (text(case, "name"), side(case));
    let kind = text(case, "kind");
    if kind == "HELLO" {
        let (hello, size) = read_hello(data, capability::ALL).expect(name).expect(name);
        let fields = &case["values"]["fields"];
        assert_eq!(size, data.len(), "{name}");
        let versions = u64::from(hello.versions.0) | u64::from(hello.versions.1) << 32;
        assert_eq!(versions, number(&fields["VERSIONS"]), "{name}");
        assert_eq!(hello.name, fields["NAME"].as_str().unwrap_or("").as_bytes());
        assert_eq!(hello.token, bytes(fields["TOKEN"].as_str().unwrap_or("")));
        assert!(hello.has_token(&bytes(fields["TOKEN"].as_str().unwrap_or(""))));
        assert!(!hello.has_token(b"another"));
        for (label, found, default) in [
            ("CAPABILITIES", hello.capabilities, 0),
            ("REQUIRED", hello.required, 0),
            ("FRAME_MAX", hello.limits.frame_max.into(), 1_187_840),
            ("CREDIT", hello.limits.credit, 8_388_608),
            ("ALIAS_MAX", hello.limits.alias_max.into(), 0),
            ("ALIAS_BYTES_MAX", hello.limits.alias_bytes_max, 0),
            ("PING_NS", hello.limits.ping_ns, 30_000_000_000),
        ] {
            let said = fields.get(label).map_or(default, number);
            assert_eq!(found, said, "{name}: {label}");
        }
        return;
    }
    if kind == "WELCOME" {
        let (answer, size) = read_welcome(data).expect(name).expect(name);
        let Answer::Welcome(welcome) = answer else {
            panic!("{name} is a refusal")
        };
        let fields = &case["values"]["fields"];
        assert_eq!(size, data.len(), "{name}");
        assert_eq!(welcome.version, 1);
        let said = fields["NAME"].as_str().unwrap_or("");
        assert_eq!(welcome.name, said.as_bytes());
        let said = fields["SERVERS"].as_str().unwrap_or("");
        assert_eq!(welcome.servers, said.as_bytes());
        for (label, found, default) in [
            ("CAPABILITIES", welcome.capabilities, 0),
            ("CLIENT", welcome.client, 0),
            ("INSTANCE", welcome.instance, 0),
            ("PAYLOAD_MAX", welcome.payload_max, 0),
            ("SUBSCRIPTIONS_MAX", welcome.subscriptions_max, 0),
            ("FRAME_MAX", welcome.limits.frame_max.into(), 1_187_840),
        ] {
            let said = fields.get(label).map_or(default, number);
            assert_eq!(found, said, "{name}: {label}");
        }
        let rings = fields.get("RINGS").map(|_| (1 << 22, 1 << 23));
        assert_eq!(welcome.rings, rings, "{name}");
        return;
    }
    let mut frames = Frames::new(data, side, FRAME_MAX);
    let frame = frames.next_frame().expect(name);
    assert_eq!(frames.consumed(), data.len(), "{name}");
    let expected = number(vectors["kinds"].get(kind).unwrap_or(&Value::from(0)));
    match frame {
        None => assert_eq!(kind, "none", "{name}"),
        Some(Frame::Message(message)) => {
            assert_eq!(kind, "MESSAGE");
            check_message(&message, Kind::Message, side, case, is_good);
        }
        Some(Frame::Request(message)) => {
            assert_eq!(kind, "REQUEST");
            check_message(&message, Kind::Request, side, case, is_good);
        }
        Some(Frame::Reply(message)) => {
            assert_eq!(kind, "REPLY");
            check_message(&message, Kind::Reply, side, case, is_good);
        }
        Some(Frame::Control(control)) => {
            assert_eq!(control.kind() as u64, expected, "{name}");
            assert_eq!(control.kind().name(), kind, "{name}");
            check_control(&control, side, case, &vectors["fields"]);
        }
    }
    assert!(matches!(frames.next_frame(), Ok(None)), "{name}");
}

/// What we write for a good case.
fn written(case: &Value) -> Vec<u8> {
    let (values, side) = (Values::of(case), side(case));
    let mut out = Vec::new();
    let subject = match values.number("alias") {
        Some(alias) => Subject::Alias(alias as u32),
        None => Subject::Text(values.text("subject").as_bytes()),
    };
    let (payload, key) = (values.bytes("payload"), values.bytes("key"));
    let (headers, status) = (values.bytes("headers"), values.small("status") as u8);
    let token = values.number("token").unwrap_or(0);
    let mut draft = match (text(case, "kind"), side) {
        ("MESSAGE", Side::Server) => Draft::message(values.small("operation"), subject, &payload),
        ("MESSAGE", _) => Draft::message(values.small("subscription"), subject, &payload),
        ("REQUEST", Side::Server) => Draft::request(values.small("correlation"), subject, &payload),
        ("REQUEST", _) => Draft::question(values.small("subscription"), subject, token, &payload),
        ("REPLY", Side::Server) => Draft::reply(token, status, &payload),
        ("REPLY", _) => {
            let (asker, responder) = (values.small("correlation"), values.small("responder"));
            Draft::answer(asker, responder, status, &payload)
        }
        (kind, _) => {
            write_control(&mut out, kind, side, &values);
            return out;
        }
    };
    draft.is_more = values.0.contains_key("more");
    draft.sequence = values.number("sequence");
    draft.publisher = values.number("publisher");
    draft.ttl_ns = values.number("ttl_ns");
    draft.timestamp_ns = values.number("timestamp_ns");
    draft.lost = values.number("lost").unwrap_or(0);
    draft.many = values.many();
    draft.reply_to = values.text("reply_to").as_bytes();
    draft.key = &key;
    draft.headers = &headers;
    assert_eq!(draft.length() as u64, number(&case["length"]));
    draft.append(&mut out).unwrap();
    assert_eq!(draft.size(), out.len());
    let mut room = vec![0xaa; out.len() + 8];
    assert_eq!(draft.write(&mut room), Some(out.len()));
    assert_eq!(room[..out.len()], out, "{}", case["name"]);
    assert_eq!(room[out.len()..], [0xaa; 8], "{}", case["name"]);
    let length = out.len();
    assert_eq!(draft.write(&mut room[..length - 1]), None);
    out
}

fn write_control(out: &mut Vec<u8>, kind: &str, side: Side, values: &Values<'_>) {
    let known = (0..=255).filter_map(Kind::of);
    let kind = known
        .into_iter()
        .find(|found| found.name() == kind)
        .unwrap();
    let is_whole = match kind {
        Kind::Hello | Kind::Welcome | Kind::Credit | Kind::Ping | Kind::Pong => true,
        Kind::Grant | Kind::Cancel => side == Side::Client,
        _ => false,
    };
    let small = |name| values.small(name);
    let draft = if is_whole {
        let one = ["limit", "value", "token"].iter();
        let number = one.filter_map(|name| values.number(name)).next();
        ControlDraft::whole(out, kind, number.unwrap_or(MAGIC))
    } else {
        let (first, second) = match kind {
            Kind::Error => (small("operation"), small("reason")),
            Kind::Event => (small("subscription"), small("event")),
            Kind::Ack => (small("operation"), 0),
            Kind::Alias => (small("alias"), 0),
            Kind::Grant | Kind::Cancel => (small("correlation"), 0),
            _ => (small("subscription"), small("operation")),
        };
        ControlDraft::pair(out, kind, first, second)
    };
    let mut draft = draft.unwrap();
    if let Some(status) = values.number("status") {
        draft = draft.status(status as u8);
    }
    if let Some(flags) = values.number("flags") {
        draft = draft.flags(flags as u16);
    }
    let none = Map::new();
    let fields = values.0.get("fields").and_then(Value::as_object);
    let mut fields: Vec<_> = fields.unwrap_or(&none).iter().collect();
    fields.sort_by_key(|(name, _)| field(name) as u16);
    for (name, value) in fields {
        let which = field(name);
        draft = match value.as_str().unwrap() {
            hex if BYTES.contains(&name.as_str()) => draft.bytes(which, &bytes(hex)),
            text if TEXTS.contains(&name.as_str()) => draft.bytes(which, text.as_bytes()),
            _ => draft.number(which, number(value)),
        }
        .unwrap();
    }
}

#[test]
fn every_good_frame_is_read_and_written() {
    let vectors = load();
    let mut extended = 0;
    for case in list(&vectors, "good") {
        let data = bytes(text(case, "hex"));
        check_frame(&data, case, &vectors, true);
        if case["values"].get("extension").is_some() {
            extended += 1;
            continue;
        }
        assert_eq!(written(case), data, "{}", case["name"]);
    }
    assert!(extended < 40, "most are written");
}

#[test]
fn a_frame_that_is_cut_anywhere_is_waited_for() {
    let vectors = load();
    for case in list(&vectors, "good") {
        let data = bytes(text(case, "hex"));
        let (side, name) = (side(case), text(case, "name"));
        let is_first = ["HELLO", "WELCOME"].contains(&text(case, "kind"));
        let step = 1 + data.len() / 200;
        for cut in (0..data.len()).step_by(step) {
            let part = &data[..cut];
            if is_first {
                let is_cut = match side {
                    Side::Server => matches!(read_hello(part, capability::ALL), Ok(None)),
                    Side::Client => matches!(read_welcome(part), Ok(None)),
                };
                assert!(is_cut, "{name} cut at {cut}");
                continue;
            }
            let mut frames = Frames::new(part, side, FRAME_MAX);
            assert!(
                matches!(frames.next_frame(), Ok(None)),
                "{name} cut at {cut}"
            );
            assert_eq!(frames.consumed(), 0);
            let wanted = if cut < 4 { 16 } else { data.len() };
            assert_eq!(frames.wanted(), wanted, "{name} cut at {cut}");
        }
    }
}

#[test]
fn a_batch_is_its_frames_one_behind_the_other() {
    let vectors = load();
    for to in [Side::Server, Side::Client] {
        let mut batch = Vec::new();
        let mut cases = Vec::new();
        for case in list(&vectors, "good") {
            let is_first = ["HELLO", "WELCOME"].contains(&text(case, "kind"));
            if side(case) == to && !is_first {
                batch.extend(bytes(text(case, "hex")));
                cases.push(case);
            }
        }
        let mut frames = Frames::new(&batch, to, FRAME_MAX);
        let mut consumed = 0;
        for case in &cases {
            let frame = frames.next_frame().unwrap().expect("as many as went in");
            let size = frames.consumed() - consumed;
            consumed = frames.consumed();
            assert_eq!(size, text(case, "hex").len() / 2, "{}", case["name"]);
            if let Frame::Message(message) = frame {
                check_message(&message, Kind::Message, to, case, true);
            }
        }
        assert!(matches!(frames.next_frame(), Ok(None)));
        assert_eq!(frames.consumed(), batch.len());
        assert!(cases.len() > 50);
    }
}

#[test]
fn what_may_be_ignored_is() {
    let vectors = load();
    for case in list(&vectors, "ignored") {
        let data = bytes(text(case, "hex"));
        check_frame(&data, case, &vectors, false);
    }
}

#[test]
fn every_bad_frame_is_refused_with_its_reason() {
    let vectors = load();
    for case in list(&vectors, "bad") {
        let (name, data) = (text(case, "name"), bytes(text(case, "hex")));
        let frame_max = number(&case["frame_max"]) as u32;
        let mut frames = Frames::new(&data, side(case), frame_max);
        let fault = frames.next_frame().expect_err(name);
        assert_eq!(
            fault.reason().name(),
            text(case, "reason"),
            "{name}: {fault}"
        );
        assert_eq!(fault.reason() as u64, number(&case["number"]), "{name}");
        assert_eq!(u64::from(fault.status()), number(&case["status"]), "{name}");
        assert!(!fault.to_string().is_empty());
        assert_eq!(frames.consumed(), 0, "{name}");
        assert_eq!(frames.next_frame().expect_err(name), fault, "it stays");
        check_refusal(&fault);
    }
}

/// The ERROR that tells a peer of a fault says what the fault is.
fn check_refusal(fault: &Fault) {
    let mut out = vec![1, 2, 3, 4, 5, 6, 7, 8];
    control::write_fault(&mut out, fault).unwrap();
    if *fault == Fault::Magic {
        assert_eq!(
            out.len(),
            8,
            "nothing is said to what speaks something else"
        );
        return;
    }
    let mut frames = Frames::new(&out[8..], Side::Client, 8192);
    let Ok(Some(Frame::Control(error))) = frames.next_frame() else {
        panic!("no ERROR for {fault}")
    };
    assert!(error.is_fatal());
    assert_eq!(error.reason(), Some(fault.reason()));
    assert_eq!(error.status(), fault.status());
    let sentence = error.bytes(Field::Sentence).unwrap();
    assert_eq!(sentence, fault.to_string().as_bytes());
}

#[test]
fn first_frames_lead_where_the_page_says() {
    let vectors = load();
    for case in list(&vectors, "handshakes") {
        let (name, data) = (text(case, "name"), bytes(text(case, "hex")));
        let outcome = match side(case) {
            Side::Server => read_hello(&data, capability::ALL).map(|hello| {
                let (hello, size) = hello.expect(name);
                assert_eq!(size, data.len(), "{name}");
                assert!(hello.versions.0 <= 1 && hello.versions.1 >= 1, "{name}");
                "WELCOME"
            }),
            Side::Client => read_welcome(&data).map(|answer| match answer.expect(name).0 {
                Answer::Welcome(welcome) => {
                    assert_eq!(u64::from(welcome.version), number(&case["version"]));
                    "WELCOME"
                }
                Answer::Refused(error) => {
                    assert!(error.is_fatal());
                    "ERROR"
                }
            }),
        };
        let found = outcome.unwrap_or_else(|fault| {
            check_refusal(&fault);
            fault.reason().name()
        });
        assert_eq!(found, text(case, "outcome"), "{name}");
    }
}

#[test]
fn numbers_are_those_of_the_page() {
    let vectors = load();
    assert_eq!(bytes(text(&vectors, "magic_hex")), MAGIC.to_le_bytes());
    let kinds = vectors["kinds"].as_object().unwrap();
    for (name, value) in kinds {
        let kind = Kind::of(number(value) as u8);
        match name.as_str() {
            "SKIP" => assert_eq!(kind, None, "only in rings"),
            _ => assert_eq!(kind.expect(name).name(), name),
        }
    }
    assert_eq!(kinds.len(), 22);
    for (reason, name) in Reason::ALL {
        assert_eq!(reason as u64, number(&vectors["reasons"][name]), "{name}");
        assert_eq!(Reason::of(reason as u32), Some(reason));
    }
    assert_eq!(
        vectors["reasons"].as_object().unwrap().len(),
        Reason::ALL.len()
    );
    assert_eq!((Reason::of(0), Reason::of(28)), (None, None));
    let flags = [
        ("SEQUENCE", flag::SEQUENCE),
        ("TOKEN", flag::TOKEN),
        ("TTL", flag::TTL),
        ("TIMESTAMP", flag::TIMESTAMP),
        ("LOST", flag::LOST),
        ("SIZES", flag::SIZES),
        ("BLOCK", flag::BLOCK),
        ("ALIAS", flag::ALIAS),
        ("MORE", flag::MORE),
        ("PUBLISHER", flag::PUBLISHER),
        ("MANY", flag::MANY),
        ("EXTENSION", flag::EXTENSION),
    ];
    for (name, bit) in flags {
        assert_eq!(
            u64::from(bit),
            1 << number(&vectors["flags"][name]),
            "{name}"
        );
    }
    let capabilities = [
        ("ACK", capability::ACK),
        ("MANY", capability::MANY),
        ("PRESENCE", capability::PRESENCE),
        ("KEY_SHARED", capability::KEY_SHARED),
        ("LATEST", capability::LATEST),
        ("LAST_VALUE", capability::LAST_VALUE),
        ("SHM", capability::SHM),
    ];
    for (name, bit) in capabilities {
        assert_eq!(bit, 1 << number(&vectors["capabilities"][name]), "{name}");
    }
    let events = [
        ("PRESENT", event::PRESENT),
        ("ARRIVED", event::ARRIVED),
        ("LEFT", event::LEFT),
        ("GONE", event::GONE),
        ("SLOW", event::SLOW),
        ("GAP", event::GAP),
        ("LIMIT", event::LIMIT),
    ];
    for (name, number_of) in events {
        assert_eq!(
            u64::from(number_of),
            number(&vectors["events"][name]),
            "{name}"
        );
    }
    assert_eq!(vectors["fields"].as_object().unwrap().len(), FIELDS.len());
}

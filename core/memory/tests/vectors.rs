//! The golden vectors of `tests/vectors` against the lane: what we write is bit for bit what the
//! format says, what the format says is read field by field, and what it forbids is refused.

#![cfg(not(loom))]

mod fixture;

use fastmq_memory::consumer::Consumer;
use fastmq_memory::lane::{Producer, lane};
use fastmq_memory::record::{Draft, Kind, Parsed, flag};
use fastmq_memory::view::view_flag;
use fastmq_memory::words::{DATA_OFFSET, HeapWords, MAGIC};
use fastmq_memory::{Label, LaneWriter, Policy, View};
use serde_json::Value;

use fixture::{Owned, Place, label, parts, word};

const LABEL: &[u8] = b"the.lane's.own";

fn load(name: &str) -> Value {
    let path = format!(
        "{}/../../tests/vectors/{name}.json",
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

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| digit.to_digit(16).expect("a hex digit") as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.parse().expect("a decimal number"),
        other => other.as_u64().expect("a number"),
    }
}

/// A record of the vectors, with memory of its own.
#[derive(Debug, Default)]
struct Case {
    name: String,
    capacity: u64,
    position: u64,
    length: u64,
    hex: Vec<u8>,
    kind: Kind,
    subscription: u32,
    status: u16,
    subject_id: Option<u64>,
    lost: u64,
    flags: u16,
    words: [Option<u64>; 5],
    subject: Vec<u8>,
    payload: Vec<u8>,
    reply_to: Vec<u8>,
    key: Vec<u8>,
    headers: Vec<u8>,
}

impl Case {
    fn of(value: &Value) -> Self {
        let fields = &value["fields"];
        let optional = |name: &str| fields.get(name).map(number);
        let hex = |name: &str| {
            fields
                .get(name)
                .map_or(Vec::new(), |v| bytes(v.as_str().unwrap()))
        };
        let text = |name: &str| {
            fields
                .get(name)
                .map_or(Vec::new(), |v| v.as_str().unwrap().as_bytes().to_vec())
        };
        let mut payload = hex("payload");
        if let Some(block) = fields.get("block") {
            payload.extend((number(&block["pool"]) as u32).to_le_bytes());
            payload.extend((number(&block["index"]) as u32).to_le_bytes());
            payload.extend(number(&block["generation"]).to_le_bytes());
            payload.extend(number(&block["size"]).to_le_bytes());
            payload.extend(0_u64.to_le_bytes());
        }
        Self {
            name: value["name"].as_str().unwrap().into(),
            capacity: number(&value["capacity"]),
            position: number(&value["position"]),
            length: number(&value["length"]),
            hex: bytes(value["hex"].as_str().unwrap()),
            kind: match fields["kind"].as_str().unwrap() {
                "MESSAGE" => Kind::Message,
                "REQUEST" => Kind::Request,
                "REPLY" => Kind::Reply,
                "SKIP" => Kind::Skip,
                other => panic!("kind {other}"),
            },
            subscription: optional("subscription").unwrap_or(0) as u32,
            status: optional("status").unwrap_or(0) as u16,
            subject_id: optional("subject_id"),
            lost: optional("lost").unwrap_or(0),
            flags: number(&value["flags"]) as u16,
            words: [
                "sequence",
                "token",
                "expiry_ns",
                "timestamp_ns",
                "publisher",
            ]
            .map(optional),
            subject: text("subject"),
            payload,
            reply_to: text("reply_to"),
            key: hex("key"),
            headers: hex("headers"),
        }
    }

    /// What a writer says to get this record; LOST and SUBJECT_ID are the lane's to set.
    fn draft(&self) -> Draft<'_> {
        let words = self.words.map(Option::unwrap_or_default);
        let [sequence, token, expiry, timestamp, publisher] = words;
        Draft {
            kind: self.kind,
            flags: self.flags & !(flag::LOST | flag::SUBJECT_ID),
            status: self.status,
            sequence,
            token,
            expiry,
            timestamp,
            publisher,
            subject: if self.subject_id.is_some() {
                LABEL
            } else {
                &self.subject
            },
            payload: &self.payload,
            reply_to: &self.reply_to,
            key: &self.key,
            headers: &self.headers,
        }
    }

    /// True if a lane can be brought to write this record.
    fn is_writable(&self) -> bool {
        self.kind != Kind::Skip && self.lost < 1000 && self.subject_id.unwrap_or(0) == 0
    }

    fn label(&self) -> Option<Label> {
        self.subject_id.map(|_| label(LABEL))
    }

    fn check_parsed(&self, parsed: &Parsed, record: &[u8]) {
        let name = &self.name;
        assert_eq!(
            (parsed.kind, parsed.flags),
            (self.kind, self.flags),
            "{name}"
        );
        assert_eq!(parsed.subscription, self.subscription, "{name}");
        let found = parts(parsed, record);
        assert_eq!(found.payload, self.payload, "{name}");
        assert_eq!(found.subject, self.subject, "{name}");
        assert_eq!(found.reply_to, self.reply_to, "{name}");
        assert_eq!(found.key, self.key, "{name}");
        assert_eq!(found.headers, self.headers, "{name}");
        let flags = [
            flag::SEQUENCE,
            flag::TOKEN,
            flag::EXPIRY,
            flag::TIMESTAMP,
            flag::PUBLISHER,
        ];
        assert_eq!(
            flags.map(|flag| word(parsed, record, flag)),
            self.words,
            "{name}"
        );
        assert_eq!(
            word(parsed, record, flag::LOST).unwrap_or(0),
            self.lost,
            "{name}"
        );
        match self.kind {
            Kind::Reply => assert_eq!(parsed.subject, u32::from(self.status), "{name}"),
            _ => {
                let expected = self.subject_id.unwrap_or(self.subject.len() as u64);
                assert_eq!(u64::from(parsed.subject), expected, "{name}");
            }
        }
    }

    fn check_view(&self, seen: &Owned) {
        let name = &self.name;
        let subject = if self.subject_id.is_some() {
            LABEL
        } else {
            &self.subject[..]
        };
        assert_eq!(seen.subject, subject, "{name}");
        assert_eq!(seen.payload, self.payload, "{name}");
        assert_eq!(seen.reply_to, self.reply_to, "{name}");
        assert_eq!(seen.key, self.key, "{name}");
        assert_eq!(seen.headers, self.headers, "{name}");
        let words = self.words.map(Option::unwrap_or_default);
        let [sequence, token, _, timestamp, publisher] = words;
        let numbers = (seen.sequence, seen.token, seen.timestamp, seen.publisher);
        assert_eq!(numbers, (sequence, token, timestamp, publisher), "{name}");
        assert_eq!(seen.status, u32::from(self.status), "{name}");
        assert_eq!(seen.subscription, self.subscription, "{name}");
        let mut flags = 0;
        if self.kind == Kind::Request {
            flags |= view_flag::REQUEST;
        }
        if self.flags & flag::MORE != 0 {
            flags |= view_flag::MORE;
        }
        assert_eq!(seen.flags, flags, "{name}");
    }
}

/// A lane whose ring has `capacity` bytes and is empty, and the position of its ends.
fn ring(capacity: u64, label: Option<Label>) -> (Producer, Consumer, u64) {
    let (mut producer, mut consumer) = lane::<HeapWords>(capacity, label, None).unwrap();
    if consumer.capacity() == capacity {
        return (producer, consumer, 0);
    }
    // A record of half the ring makes the lane grow to it.
    let payload = vec![0; capacity as usize / 2 - 24];
    let filler = Draft {
        payload: &payload,
        subject: b"filler.1",
        ..Draft::default()
    };
    let step = producer.step(&filler);
    producer.push(&filler, 0).unwrap();
    let mut record = Vec::new();
    assert!(consumer.next_copied(&mut record).unwrap().is_some());
    consumer.release();
    assert_eq!(consumer.capacity(), capacity);
    (producer, consumer, step)
}

#[test]
fn what_a_lane_writes_is_the_record_of_the_vectors_and_reads_back() {
    let vectors = load("record");
    let mut written = 0;
    for value in list(&vectors, "good") {
        let case = Case::of(value);
        if !case.is_writable() {
            continue;
        }
        let (mut producer, mut consumer, _) = ring(case.capacity, case.label());
        for _ in 0..case.lost {
            producer.count_lost();
        }
        let step = producer.step(&case.draft());
        assert_eq!(step, number(&value["occupies"]), "{}", case.name);
        producer.push(&case.draft(), case.subscription).unwrap();
        let mut record = Vec::new();
        let parsed = consumer
            .next_copied(&mut record)
            .unwrap()
            .expect("one record");
        assert_eq!(parsed.step, step, "{}", case.name);
        assert_eq!(
            &record[..case.length as usize],
            &case.hex[..],
            "{}",
            case.name
        );
        case.check_parsed(&parsed, &record);
        assert_eq!(consumer.next_copied(&mut record), Ok(None));
        written += 1;
    }
    assert!(
        written > 120,
        "{written} of the good records can be written"
    );
}

#[test]
fn every_good_record_is_read_field_by_field() {
    let vectors = load("record");
    for value in list(&vectors, "good") {
        let case = Case::of(value);
        if case.kind == Kind::Skip {
            continue;
        }
        let (mut producer, mut consumer, at) = ring(case.capacity, case.label());
        let mut filled = case.hex.clone();
        // The bytes that round a record up are unspecified.
        filled.resize(case.hex.len().next_multiple_of(8), 0xa5);
        producer.scribble(at as usize, &filled, at + filled.len() as u64);
        let mut record = Vec::new();
        let parsed = consumer
            .next_copied(&mut record)
            .expect(&case.name)
            .expect("one record");
        assert_eq!(parsed.step, number(&value["occupies"]), "{}", case.name);
        case.check_parsed(&parsed, &record);
        assert_eq!(consumer.next_copied(&mut record), Ok(None), "{}", case.name);
    }
}

#[test]
fn a_skip_ends_the_ring_and_is_what_a_lane_writes() {
    let vectors = load("record");
    let mut skips = 0;
    for value in list(&vectors, "good") {
        let case = Case::of(value);
        if case.kind != Kind::Skip {
            continue;
        }
        skips += 1;
        let (mut producer, mut consumer, _) = ring(case.capacity, None);
        let mut record = Vec::new();
        // Brings both ends to the position of the skip, with records of at most half the ring.
        let mut tail = 0;
        while tail < case.position {
            let size = (case.position - tail).min(case.capacity / 2);
            let payload = vec![7; size as usize - 24];
            let filler = Draft {
                payload: &payload,
                subject: b"filler.1",
                ..Draft::default()
            };
            producer.push(&filler, 0).unwrap();
            tail += size;
            assert!(consumer.next_copied(&mut record).unwrap().is_some());
            consumer.release();
        }
        let after = Draft {
            subject: b"after",
            ..Draft::default()
        };
        let mut bytes = case.hex.clone();
        assert_eq!(bytes.len(), 8);
        // The record after the skip stands at the start of the ring.
        let end = case.position + case.length;
        producer.scribble(case.position as usize, &bytes, tail);
        bytes.clear();
        bytes.extend([21, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0]);
        bytes.extend(*b"after\0\0\0");
        if case.position > 0 {
            producer.scribble(0, &bytes, end + 24);
        } else {
            // The whole ring is skipped: there is no room for a record before the release.
            producer.scribble(0, &case.hex, end);
            assert_eq!(consumer.next_copied(&mut record), Ok(None));
            consumer.release();
            producer.scribble(0, &bytes, end + 24);
        }
        let parsed = consumer
            .next_copied(&mut record)
            .expect(&case.name)
            .expect("one record");
        assert_eq!(
            parts(&parsed, &record).subject,
            after.subject,
            "{}",
            case.name
        );
        assert_eq!(parsed.subscription, 9);

        if case.length > 8 && case.position > case.capacity / 2 {
            // And a lane that is brought there writes the same eight bytes.
            let (mut producer, mut consumer, _) = ring(case.capacity, None);
            let first = vec![1; case.capacity as usize / 2 - 24];
            let second = vec![2; (case.position - case.capacity / 2) as usize - 24];
            for payload in [&first, &second] {
                let filler = Draft {
                    payload,
                    subject: b"filler.1",
                    ..Draft::default()
                };
                producer.push(&filler, 0).unwrap();
                assert!(consumer.next_copied(&mut record).unwrap().is_some());
                consumer.release();
            }
            producer.push(&after, 9).unwrap();
            let parsed = consumer
                .next_copied(&mut record)
                .unwrap()
                .expect("one record");
            assert_eq!(parsed.subscription, 9);
            assert_eq!(consumer.held_bytes(), case.length + 24, "{}", case.name);
        }
    }
    assert_eq!(skips, 4);
}

#[test]
fn every_bad_record_is_refused_and_the_reader_does_not_move() {
    let vectors = load("record");
    for value in list(&vectors, "bad") {
        let name = value["name"].as_str().unwrap();
        let (mut producer, mut consumer, at) = ring(number(&value["capacity"]), None);
        let mut filled = bytes(value["hex"].as_str().unwrap());
        let published = number(&value["published"]);
        filled.resize(published as usize, 0);
        producer.scribble(at as usize, &filled, at + published);
        let mut record = Vec::new();
        let held = consumer.held_bytes();
        let found = consumer.next_copied(&mut record);
        let error = found.expect_err(&format!("{name}: {}", value["reason"]));
        assert!(!error.to_string().is_empty());
        assert_eq!(consumer.held_bytes(), held, "{name}");
        assert_eq!(
            consumer.next_copied(&mut record),
            Err(error),
            "{name}: it stays refused"
        );
        assert_eq!(consumer.peek_step(), Err(error), "{name}");
    }
}

#[test]
fn a_view_shows_what_the_vectors_say() {
    let vectors = load("record");
    for value in list(&vectors, "good") {
        let case = Case::of(value);
        if !case.is_writable() || case.lost > 0 || case.flags & flag::BLOCK != 0 {
            continue;
        }
        let place = Place::new(Policy::Backpressure, case.capacity);
        let label = case.label();
        let mut writer = LaneWriter::new(place.queue.clone(), label.as_ref());
        let _ = writer.push(&case.draft(), case.subscription).unwrap();
        let seen = place.read_all();
        assert_eq!(seen.len(), 1, "{}", case.name);
        case.check_view(&seen[0]);
    }
}

#[test]
fn the_view_has_the_layout_of_the_vectors() {
    let vectors = load("view");
    assert_eq!(size_of::<View>() as u64, number(&vectors["size"]));
    assert_eq!(align_of::<View>() as u64, number(&vectors["alignment"]));
    let offsets = [
        ("sequence", std::mem::offset_of!(View, sequence)),
        ("timestamp_ns", std::mem::offset_of!(View, timestamp_ns)),
        ("token", std::mem::offset_of!(View, token)),
        ("delivery_count", std::mem::offset_of!(View, delivery_count)),
        ("lost_before", std::mem::offset_of!(View, lost_before)),
        ("status", std::mem::offset_of!(View, status)),
        (
            "subscription_id",
            std::mem::offset_of!(View, subscription_id),
        ),
        ("flags", std::mem::offset_of!(View, flags)),
        ("tag", std::mem::offset_of!(View, tag)),
        ("publisher", std::mem::offset_of!(View, publisher)),
    ];
    let fields = list(&vectors, "fields");
    for (name, offset) in offsets {
        let field = fields
            .iter()
            .find(|field| field["name"] == name)
            .expect(name);
        assert_eq!(offset as u64, number(&field["offset"]), "{name}");
    }
    let flags = [
        ("REDELIVERED", view_flag::REDELIVERED),
        ("MORE", view_flag::MORE),
        ("END", view_flag::END),
        ("REQUEST", view_flag::REQUEST),
    ];
    for (name, value) in flags {
        assert_eq!(u64::from(value), number(&vectors["flags"][name]), "{name}");
    }
}

#[test]
fn the_control_block_has_the_numbers_of_the_vectors() {
    let vectors = load("control");
    assert_eq!(
        MAGIC.to_le_bytes().to_vec(),
        bytes(vectors["magic_hex"].as_str().unwrap())
    );
    assert_eq!(DATA_OFFSET as u64, number(&vectors["offsets"]["data"]));
    use fastmq_memory::words::Control;
    assert_eq!(Control::Tail as u64, number(&vectors["offsets"]["tail"]));
    assert_eq!(Control::Head as u64, number(&vectors["offsets"]["head"]));
    let max = fastmq_memory::lane::LANE_BYTES_MAX;
    assert_eq!(max, number(&vectors["capacity_max"]));
}

//! What holds for any frame and for any bytes: what is written is read back, bytes that nobody
//! has written are a frame, a wait or a fault, and never a panic or a frame outside its bytes.

use fastmq_wire::control::{Control, ControlDraft, MAGIC, flag};
use fastmq_wire::field::Field;
use fastmq_wire::handshake::{Answer, capability, read_hello, read_welcome};
use fastmq_wire::message::Many;
use fastmq_wire::{
    Agreement, Draft, Frame, Frames, Hello, Kind, Limits, Message, Plain, Sending, Shape, Side,
    Subject, Welcome, round_up,
};
use proptest::prelude::*;

const FRAME_MAX: u32 = 1 << 21;

/// All that a message can say.
#[derive(Clone, Debug)]
struct Said {
    which: u8,
    first: u32,
    code: u8,
    alias: Option<u32>,
    subject: Vec<u8>,
    token: u64,
    words: [Option<u64>; 4],
    lost: u64,
    many: Option<(u32, u32)>,
    is_more: bool,
    payload: Vec<u8>,
    texts: [Vec<u8>; 3],
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

fn said() -> impl Strategy<Value = Said> {
    let numbers = (0..5_u8, any::<u32>(), any::<u8>(), any::<Option<u32>>());
    let words = (any::<u64>(), any::<[Option<u64>; 4]>(), any::<u64>());
    let subject = prop::collection::vec(any::<u8>(), 1..=1024);
    let texts = (bytes(300), bytes(1024), bytes(3000), bytes(3000));
    let rest = (any::<Option<(u32, u32)>>(), any::<bool>(), subject, texts);
    (numbers, words, rest, any::<u8>()).prop_map(|(numbers, words, rest, which_texts)| {
        let (which, first, code, alias) = numbers;
        let (token, words, lost) = words;
        let (many, is_more, subject, (payload, reply_to, key, headers)) = rest;
        let pick = |bit: u8, text| match which_texts & bit {
            0 => Vec::new(),
            _ => text,
        };
        Said {
            which,
            first,
            code,
            alias,
            subject,
            token,
            words,
            lost: if lost % 2 == 0 { 0 } else { lost },
            many,
            is_more,
            payload,
            texts: [pick(1, reply_to), pick(2, key), pick(4, headers)],
        }
    })
}

impl Said {
    fn side(&self) -> Side {
        match self.which {
            0 | 1 | 3 => Side::Server,
            _ => Side::Client,
        }
    }

    fn draft(&self) -> Draft<'_> {
        let subject = match self.alias {
            Some(alias) => Subject::Alias(alias),
            None => Subject::Text(&self.subject),
        };
        let payload = &self.payload;
        let mut draft = match self.which {
            0 => Draft::message(self.first, subject, payload),
            1 => Draft::request(self.first, subject, payload),
            2 => Draft::question(self.first, subject, self.token, payload),
            3 => Draft::reply(self.token, self.code, payload),
            _ => Draft::answer(self.first, self.token as u32, self.code, payload),
        };
        [
            draft.sequence,
            draft.publisher,
            draft.ttl_ns,
            draft.timestamp_ns,
        ] = self.words;
        draft.lost = self.lost;
        draft.many = self.many.map(|(answers, credit)| Many { answers, credit });
        draft.is_more = self.is_more;
        draft.reply_to = &self.texts[0];
        draft.key = &self.texts[1];
        draft.headers = &self.texts[2];
        draft
    }

    fn check(&self, frame: &Frame<'_>) {
        let (Frame::Message(message) | Frame::Request(message) | Frame::Reply(message)) = frame
        else {
            panic!("a message was written")
        };
        let is_reply = matches!(frame, Frame::Reply(_));
        match frame {
            Frame::Message(_) => assert_eq!(self.which, 0),
            Frame::Request(_) => assert!([1, 2].contains(&self.which)),
            _ => assert!([3, 4].contains(&self.which)),
        }
        if self.which != 3 {
            assert_eq!(message.operation(), self.first);
        }
        match self.which {
            2 | 3 => assert_eq!(message.token(), self.token),
            4 => assert_eq!(message.responder(), self.token as u32),
            _ => {}
        }
        if is_reply {
            assert_eq!((message.status(), message.alias()), (self.code, None));
            assert!(message.subject().is_empty());
        } else {
            assert_eq!(message.alias(), self.alias);
            let text = if self.alias.is_some() {
                &[]
            } else {
                &self.subject[..]
            };
            assert_eq!(message.subject(), text);
        }
        let words = [
            message.sequence(),
            message.publisher(),
            message.ttl_ns(),
            message.timestamp_ns(),
        ];
        assert_eq!(words, self.words);
        assert_eq!(message.lost(), self.lost);
        let many = message.many().map(|many| (many.answers, many.credit));
        assert_eq!(many, self.many);
        assert_eq!(message.is_more(), self.is_more);
        assert_eq!(message.extension(), None);
        let texts = [message.reply_to(), message.key(), message.headers()];
        assert_eq!(texts, self.texts.each_ref().map(|text| &text[..]));
        assert_eq!(message.payload(), self.payload);
        let at = message.payload().as_ptr() as usize - message.bytes().as_ptr() as usize;
        assert!(self.payload.is_empty() || at.is_multiple_of(8));
    }
}

/// Reads everything that a message shows, and says how much it was.
fn touch(message: &Message<'_>) -> usize {
    let fixed = [
        message.flags() as usize,
        message.operation() as usize,
        message.responder() as usize,
        message.token() as usize,
        message.lost() as usize,
        message.sequence().unwrap_or(0) as usize,
        message.publisher().unwrap_or(0) as usize,
        message.ttl_ns().unwrap_or(0) as usize,
        message.timestamp_ns().unwrap_or(0) as usize,
        message.many().unwrap_or_default().credit as usize,
    ];
    std::hint::black_box(fixed);
    let extension = message.extension().map_or(&[][..], |found| found.bytes);
    let parts = [
        message.payload(),
        message.subject(),
        message.reply_to(),
        message.key(),
        message.headers(),
        extension,
    ];
    let frame = message.bytes().as_ptr_range();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let part = part.as_ptr_range();
        assert!(part.start >= frame.start && part.end <= frame.end);
    }
    parts.iter().map(|part| part.len()).sum()
}

fn touch_control(control: &Control<'_>) -> usize {
    for field in [Field::Versions, Field::Sentence, Field::Rings, Field::Count] {
        std::hint::black_box((control.bytes(field), control.number(field)));
    }
    std::hint::black_box((control.operation(), control.event(), control.reason()));
    control.bytes(Field::Sentence).map_or(0, <[u8]>::len)
}

/// Takes what is in `data`, whatever that is.
/// What is shown as plain is what decoding finds then.
fn check_plain(plain: &Plain<'_>, found: Option<&Frame<'_>>) {
    let Some(Frame::Message(message)) = found else {
        panic!("{found:?} in place of {plain:?}");
    };
    assert_eq!(message.alias(), Some(plain.alias));
    assert_eq!(message.sequence().unwrap_or(0), plain.sequence);
    assert_eq!(message.payload(), plain.payload);
    assert_eq!(message.operation(), 0);
    assert_eq!(plain.size, round_up(message.bytes().len()));
}

fn decode_any(data: &[u8], side: Side) {
    let mut frames = Frames::new(data, side, FRAME_MAX);
    let mut consumed = 0;
    loop {
        let before = frames.clone();
        let next = frames.next_frame();
        if let Some(plain) = before.plain() {
            check_plain(&plain, next.as_ref().ok().and_then(Option::as_ref));
        }
        match next {
            Ok(Some(frame)) => {
                let size = match &frame {
                    Frame::Message(found) | Frame::Request(found) | Frame::Reply(found) => {
                        touch(found)
                    }
                    Frame::Control(control) => touch_control(control),
                };
                assert!(frames.consumed() >= consumed + 16, "each frame is a step");
                assert!(size <= frames.consumed() - consumed);
                consumed = frames.consumed();
                assert!(consumed <= data.len() && consumed.is_multiple_of(8));
            }
            Ok(None) => {
                assert!(frames.wanted() >= 16);
                let wanted = frames.wanted();
                assert!(wanted > data.len() - frames.consumed(), "more is needed");
                return;
            }
            Err(fault) => {
                assert!(!fault.to_string().is_empty());
                assert_eq!(frames.next_frame().unwrap_err(), fault, "a fault stays");
                return;
            }
        }
    }
}

fn decode_first(data: &[u8]) {
    if let Ok(Some((hello, size))) = read_hello(data, capability::ALL) {
        assert!(size <= data.len() && hello.name.len() <= 255 && hello.token.len() <= 4096);
    }
    if let Ok(Some((Answer::Welcome(welcome), size))) = read_welcome(data) {
        assert!(size <= data.len() && welcome.limits.frame_max >= 8192);
    }
}

/// A frame for a client that is plain most of the time: a reply or a question.
fn nearly_plain() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (any::<bool>(), 0..3_u32, any::<u64>(), 0..5_usize);
    (numbers, 0..12_u8).prop_map(|((is_reply, first, token, size), unusual)| {
        let payload = &[7; 40][..[0, 1, 8, 16, 40][size]];
        let mut draft = match is_reply {
            true => Draft::answer(first, u32::from(unusual == 0), 0, payload),
            false => Draft::question(first, Subject::Alias(first), token, payload),
        };
        match unusual {
            1 => draft.is_more = is_reply,
            2 => draft.headers = b"1234",
            3 if !is_reply => draft.ttl_ns = Some(token),
            4 | 5 if is_reply => draft = Draft::answer(first, 0, unusual, payload),
            6 => draft = Draft::message(first, Subject::Alias(first), payload),
            _ => {}
        }
        let mut frame = Vec::new();
        draft.append(&mut frame).unwrap();
        frame
    })
}

/// What a message says that may be plain.
fn plain_words(message: &Message<'_>) -> (u32, u8, u64, Option<u32>, Vec<u8>) {
    let token = if message.alias().is_some() {
        message.token()
    } else {
        0
    };
    let (first, status) = (message.correlation(), message.status());
    (
        first,
        status,
        token,
        message.alias(),
        message.payload().to_vec(),
    )
}

proptest! {
    /// Plain frames are those that the long way shows with nothing else in them, and nothing is
    /// left out or taken twice where both ways are gone in turns.
    #[test]
    fn plain_frames_are_what_the_long_way_shows(
        all in prop::collection::vec(nearly_plain(), 0..60),
        cut in any::<prop::sample::Index>(),
        small in any::<bool>(),
    ) {
        let mut batch = all.concat();
        batch.truncate(cut.index(batch.len() + 1));
        let frame_max = if small { 40 } else { FRAME_MAX };
        let mut slow = Frames::new(&batch, Side::Client, frame_max);
        let mut fast = slow.clone();
        let mut plain = 0;
        loop {
            let before = fast.clone();
            let mut shapes = (Shape::default(), Shape::default());
            while let Some(reply) = fast.next_plain_reply(&mut shapes.0) {
                let Ok(Some(Frame::Reply(message))) = slow.next_frame() else {
                    panic!("no reply");
                };
                let seen = (reply.correlation, reply.status, 0, None, reply.payload.to_vec());
                prop_assert_eq!(seen, plain_words(&message));
                prop_assert_eq!((message.flags(), message.responder()), (0, 0));
                prop_assert!(message.status() == 0 || !message.payload().is_empty());
                plain += 1;
            }
            while let Some(question) = fast.next_plain_question(&mut shapes.1, 1) {
                let Ok(Some(Frame::Request(message))) = slow.next_frame() else {
                    panic!("no question");
                };
                let alias = Some(question.alias);
                let seen = (1, 0, question.token, alias, question.payload.to_vec());
                prop_assert_eq!(seen, plain_words(&message));
                plain += 1;
            }
            prop_assert_eq!(fast.consumed(), slow.consumed());
            if fast.consumed() > before.consumed() {
                continue;
            }
            let (left, right) = (fast.next_frame(), slow.next_frame());
            prop_assert_eq!(format!("{left:?}"), format!("{right:?}"));
            match left {
                // The usual ones have been taken.
                Ok(Some(Frame::Reply(message))) => prop_assert!(
                    message.flags() != 0
                        || message.responder() != 0
                        || message.status() != 0 && message.payload().is_empty()
                ),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        if cut.index(batch.len() + 1) == batch.len() && all.len() > 50 && !small {
            prop_assert!(plain > 0, "none of {} was plain", all.len());
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written(all in prop::collection::vec(said(), 1..8)) {
        for side in [Side::Server, Side::Client] {
            let all: Vec<_> = all.iter().filter(|said| said.side() == side).collect();
            let mut batch = Vec::new();
            for said in &all {
                let start = batch.len();
                said.draft().append(&mut batch).unwrap();
                prop_assert_eq!(batch.len() - start, said.draft().size());
                let mut room = vec![0xaa; said.draft().size()];
                prop_assert_eq!(said.draft().write(&mut room), Some(room.len()));
                prop_assert_eq!(&room[..], &batch[start..]);
            }
            let mut frames = Frames::new(&batch, side, FRAME_MAX);
            for said in &all {
                let frame = frames.next_frame().unwrap().expect("as many as were written");
                said.check(&frame);
            }
            prop_assert!(matches!(frames.next_frame(), Ok(None)));
            prop_assert_eq!(frames.consumed(), batch.len());
        }
    }

    #[test]
    fn any_bytes_are_frames_or_faults(data in bytes(600), side in any::<bool>()) {
        decode_any(&data, if side { Side::Server } else { Side::Client });
        decode_first(&data);
    }

    #[test]
    fn a_plain_publish_is_shown_where_it_is_whole(
        (alias, sequence) in any::<(u32, Option<u64>)>(),
        (operation, lost, code) in (0..2_u32, 0..2_u64, 0..2_u8),
        payload in bytes(100),
        cut in 0..140_usize,
    ) {
        let mut draft = Draft::message(operation, Subject::Alias(alias), &payload);
        (draft.sequence, draft.lost) = (sequence, lost);
        let mut frame = Vec::new();
        draft.append(&mut frame).unwrap();
        frame[5] = code;
        let is_plain = cut >= frame.len() && (operation, lost, code) == (0, 0, 0);
        let size = draft.size() as u32;
        frame.extend_from_slice(&frame.clone());
        let shown = &frame[..cut.min(frame.len())];
        let mut frames = Frames::new(shown, Side::Server, size);
        let plain = frames.plain();
        prop_assert_eq!(plain.is_some(), is_plain);
        if let Some(plain) = plain {
            check_plain(&plain, frames.clone().next_frame().unwrap().as_ref());
            frames.pass(&plain);
            prop_assert_eq!(frames.consumed(), size as usize);
            let smaller = Frames::new(shown, Side::Server, draft.length() as u32 - 1);
            prop_assert!(smaller.plain().is_none(), "larger than is taken");
        }
    }

    /// Bytes that get past the first checks: a head that could be, then anything.
    #[test]
    fn any_bytes_behind_a_head_are_frames_or_faults(
        kind in prop_oneof![1..=3_u8, 16..=33_u8, 60..=70_u8],
        flags in any::<u16>(),
        numbers in any::<[u32; 2]>(),
        mut body in bytes(300),
        small in any::<bool>(),
        side in any::<bool>(),
    ) {
        let mut data = Vec::new();
        data.extend((16 + body.len() as u32).to_le_bytes());
        data.extend([kind, 0]);
        data.extend((flags & 0x3fff).to_le_bytes());
        let second = if small { numbers[1] % 32 } else { numbers[1] };
        data.extend(numbers[0].to_le_bytes());
        data.extend(second.to_le_bytes());
        if kind >= 16 {
            // Fields that could be: small ids and sizes.
            for head in body.chunks_mut(16).filter(|head| head.len() == 16) {
                head[0] %= 40;
                head[1] = 0;
                head[4] %= 20;
                head[5..8].fill(0);
            }
        }
        data.extend(&body);
        data.resize(data.len().next_multiple_of(8), 0);
        decode_any(&data, if side { Side::Server } else { Side::Client });
        data[8..16].copy_from_slice(b"FASTMQW1");
        decode_first(&data);
    }

    /// A good batch with some bytes changed.
    #[test]
    fn a_scribbled_batch_is_frames_or_faults(
        all in prop::collection::vec(said(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        is_early in any::<bool>(),
    ) {
        let mut batch = Vec::new();
        for said in &all {
            said.draft().append(&mut batch).unwrap();
        }
        for (place, value) in &changes {
            let within = if is_early { batch.len().min(48) } else { batch.len() };
            batch[place.index(within)] = *value;
        }
        decode_any(&batch, Side::Server);
        decode_any(&batch, Side::Client);
    }

    #[test]
    fn a_hello_and_its_welcome_agree(
        capabilities in any::<[u64; 2]>(),
        names in any::<[u8; 2]>(),
        token in bytes(4096),
        frame_max in (1024..=1_u32 << 27).prop_map(|eighth| 8 * eighth),
        more in any::<u32>(),
        aliases in any::<(u32, u64, u64)>(),
        rings in any::<Option<(u64, u64)>>(),
    ) {
        let limits = Limits {
            frame_max,
            credit: u64::from(frame_max) + u64::from(more),
            alias_max: aliases.0,
            alias_bytes_max: aliases.1,
            ping_ns: aliases.2,
        };
        let hello = Hello {
            versions: (1, 1 + more % 5),
            capabilities: capabilities[0],
            required: 0,
            name: &vec![b'c'; names[0].into()],
            token: &token,
            limits,
        };
        let mut out = Vec::new();
        hello.write(&mut out).unwrap();
        let (read, size) = read_hello(&out, capabilities[1]).unwrap().unwrap();
        prop_assert_eq!((read, size), (hello, out.len()));
        prop_assert!(read.has_token(&token));

        let welcome = Welcome {
            version: 1,
            capabilities: capabilities[0] & capabilities[1],
            name: &vec![b's'; names[1].into()],
            client: aliases.1,
            instance: aliases.2,
            payload_max: aliases.1,
            subscriptions_max: aliases.2,
            servers: b"tcp://a:7077",
            rings,
            limits: Limits::default(),
        };
        out.clear();
        welcome.write(&mut out).unwrap();
        let (answer, size) = read_welcome(&out).unwrap().unwrap();
        let Answer::Welcome(read) = answer else { panic!("a welcome was written") };
        prop_assert_eq!((read, size), (welcome, out.len()));
        let client = Agreement::of_client(&hello, &read);
        let server = Agreement::of_server(&hello, &welcome);
        prop_assert_eq!(client.capabilities, server.capabilities);
        prop_assert_eq!((client.ours, client.theirs), (server.theirs, server.ours));
        prop_assert_eq!(client.silence_ns_max(), server.silence_ns_max());
    }

    #[test]
    fn the_largest_frame_fits_into_the_smallest_credit(frame_max in 8192..1_u64 << 40) {
        let mut out = Vec::new();
        ControlDraft::whole(&mut out, Kind::Hello, MAGIC)
            .and_then(|draft| draft.number(Field::Versions, 1 | 1 << 32))
            .and_then(|draft| draft.number(Field::FrameMax, frame_max))
            .and_then(|draft| draft.number(Field::Credit, frame_max))
            .unwrap();
        let (hello, _) = read_hello(&out, 0).unwrap().unwrap();
        let largest = hello.limits.frame_max as usize;
        prop_assert!(largest as u64 <= frame_max);
        prop_assert!(Sending::new(hello.limits.credit).take(round_up(largest)));
    }

    #[test]
    fn fields_are_read_as_they_were_written(
        name in bytes(255),
        sentence in bytes(1024),
        count in any::<u64>(),
        numbers in any::<[u32; 2]>(),
    ) {
        let mut out = Vec::new();
        let draft = ControlDraft::pair(&mut out, Kind::Event, numbers[0], numbers[1]).unwrap();
        let draft = draft.flags(flag::WATCH).bytes(Field::Name, &name).unwrap();
        let draft = draft.number(Field::Count, count).unwrap();
        draft.bytes(Field::Sentence, &sentence).unwrap();
        let mut frames = Frames::new(&out, Side::Client, 8192);
        let Ok(Some(Frame::Control(event))) = frames.next_frame() else { panic!("an event") };
        prop_assert_eq!((event.subscription(), event.event()), (numbers[0], numbers[1]));
        prop_assert_eq!(event.bytes(Field::Name), Some(&name[..]));
        prop_assert_eq!(event.number(Field::Count), Some(count));
        prop_assert_eq!(event.bytes(Field::Sentence), Some(&sentence[..]));
        prop_assert_eq!(event.bytes(Field::Subject), None);
        prop_assert_eq!(frames.consumed(), out.len());
    }
}

#[test]
fn a_claim_of_four_gigabytes_is_refused_before_it_has_come() {
    for kind in [1, 2, 3, 22, 28, 64] {
        let mut data = [0xff; 16];
        data[4] = kind;
        let mut frames = Frames::new(&data, Side::Server, FRAME_MAX);
        let fault = frames.next_frame().unwrap_err();
        assert_eq!(fault.reason().name(), "LENGTH", "kind {kind}");
        assert!(frames.wanted() <= FRAME_MAX as usize);
    }
}

#[test]
fn a_connection_without_pings_is_never_given_up() {
    let quiet = Limits {
        ping_ns: 0,
        ..Limits::default()
    };
    let agreement = |ours, theirs| Agreement {
        version: 1,
        capabilities: capability::ACK,
        ours,
        theirs,
    };
    assert_eq!(agreement(quiet, quiet).silence_ns_max(), None);
    let busy = Limits {
        ping_ns: 1,
        ..quiet
    };
    let least = Some(10_000_000_000);
    assert_eq!(agreement(quiet, busy).silence_ns_max(), least);
    let usual = agreement(Limits::default(), quiet);
    assert_eq!(usual.silence_ns_max(), Some(60_000_000_000));
    assert!(usual.has(capability::ACK) && !usual.has(capability::ACK | capability::MANY));
}

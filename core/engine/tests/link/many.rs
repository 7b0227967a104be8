//! Requests for several answers and reply streams of a client, as its server sees them.

use fastmq_engine::memory::view::view_flag::{END, MORE};
use fastmq_engine::{
    ANSWERS_ALL, ManyOptions, Message, ReplyStream, Requester, RequesterOptions, Status,
};
use fastmq_wire::message::Many;
use fastmq_wire::{ControlDraft, Draft, Field, Kind, Subject};

use crate::steps::*;
use crate::world::World;

const PATIENCE_NS: u64 = 1_000_000_000;

fn silent() -> World {
    let mut world = World::connected(3);
    world.peer().manners.echoes = false;
    world
}

fn ask(requester: &mut Requester, token: u64, options: ManyOptions) {
    let message = Message {
        subject: b"count",
        payload: b"?",
        ..Message::default()
    };
    requester
        .submit_many(&message, token, PATIENCE_NS, &options)
        .unwrap();
}

fn streaming(credit: u32) -> ManyOptions {
    ManyOptions {
        answers_max: ANSWERS_ALL,
        credit,
        ..ManyOptions::default()
    }
}

/// Sends a reply of a responder to the newest request.
fn reply(world: &mut World, responder: u32, status: Status, payload: &[u8], is_more: bool) {
    let correlation = world.peer().requests.last().unwrap().correlation;
    let mut draft = Draft::answer(correlation, responder, status as u8, payload);
    draft.is_more = is_more;
    world.peer().say(|out| draft.append(out).unwrap());
}

/// What was received: responder, status, first byte, and MORE or END.
fn received(requester: &mut Requester) -> Vec<(u32, u32, Option<u8>, u32)> {
    let mut all = Vec::new();
    while let Ok(batch) = requester.receive(64, 0) {
        let views = batch.messages().iter().map(|view| {
            let first = view.payload().first().copied();
            (
                view.subscription_id,
                view.status,
                first,
                view.flags & (MORE | END),
            )
        });
        all.extend(views);
    }
    all
}

#[test]
fn a_server_is_asked_for_many_and_says_when_all_have_answered() {
    let mut world = silent();
    let mut requester = Requester::open(&world.broker, RequesterOptions::default()).unwrap();
    ask(&mut requester, 7, streaming(4));
    world.settle();
    let got = world.peer().requests.last().unwrap().clone();
    let many = Many {
        answers: ANSWERS_ALL,
        credit: 4,
    };
    assert_eq!((got.many, got.ttl_ns), (Some(many), Some(PATIENCE_NS)));
    reply(&mut world, 11, Status::Ok, b"a", true);
    reply(&mut world, 12, Status::Ok, b"b", true);
    reply(&mut world, 11, Status::Ok, b"c", true);
    world.settle();
    let expected = [
        (11, 0, Some(b'a'), MORE),
        (12, 0, Some(b'b'), MORE),
        (11, 0, Some(b'c'), MORE),
    ];
    assert_eq!(received(&mut requester), expected);
    world.settle();
    let number = got.correlation;
    assert_eq!(
        world.peer().granted,
        [(number, 2)],
        "half of the credit is back"
    );
    reply(&mut world, 12, Status::End, b"", true);
    reply(&mut world, 11, Status::Ok, b"d", false);
    reply(&mut world, 11, Status::Ok, b"late", false);
    world.settle();
    let (ok, end) = (Status::Ok as u32, Status::End as u32);
    let expected = [(12, end, None, MORE), (11, ok, Some(b'd'), END)];
    assert_eq!(received(&mut requester), expected);
    assert_eq!(requester.in_flight(), 0);
    // The server's own word.
    ask(&mut requester, 8, ManyOptions::default());
    world.settle();
    reply(&mut world, 0, Status::NoResponder, b"", false);
    world.settle();
    let none = Status::NoResponder as u32;
    assert_eq!(received(&mut requester), [(0, none, None, END)]);
    assert_eq!(world.peer().faults, Vec::<String>::new());
}

#[test]
fn who_gives_up_tells_the_server() {
    let mut world = silent();
    let mut requester = Requester::open(&world.broker, RequesterOptions::default()).unwrap();
    let mut numbers = Vec::new();
    for end in 0..3 {
        ask(&mut requester, end, streaming(4));
        world.settle();
        numbers.push(world.peer().requests.last().unwrap().correlation);
        reply(&mut world, 1, Status::Ok, b"a", true);
        world.settle();
        assert_eq!(received(&mut requester).len(), 1);
        match end {
            0 => requester.cancel(0).unwrap(),
            1 => world.driver.advance(PATIENCE_NS),
            _ => drop(std::mem::replace(
                &mut requester,
                Requester::open(&world.broker, RequesterOptions::default()).unwrap(),
            )),
        }
        let last = received(&mut requester);
        match end {
            0 => assert_eq!(last, [(0, Status::Cancelled as u32, None, END)]),
            1 => assert_eq!(last, [(0, Status::Timeout as u32, None, END)]),
            _ => assert_eq!(last, []),
        }
        reply(&mut world, 1, Status::Ok, b"late", true);
        world.settle();
        assert_eq!(received(&mut requester), []);
    }
    let cancels: Vec<_> = numbers.into_iter().map(|number| (number, 0)).collect();
    assert_eq!(world.peer().granted, cancels);
}

#[test]
fn replies_wait_for_room_and_the_end_of_the_connection_comes_behind_them() {
    let mut world = silent();
    let mut requester = Requester::open(&world.broker, RequesterOptions::default()).unwrap();
    ask(&mut requester, 7, streaming(10_000));
    world.settle();
    // A queue has room for 2,000 of these.
    let payload = vec![b'x'; 4096];
    for _ in 0..30 {
        (0..100).for_each(|_| reply(&mut world, 3, Status::Ok, &payload, true));
        world.settle();
    }
    world.peer().cut();
    world.until("told", |world| world.told().len() > 1);
    let mut got = Vec::new();
    for _ in 0..50 {
        got.extend(received(&mut requester));
        world.step_on();
    }
    let (last, streamed) = got.split_last().unwrap();
    assert_eq!(streamed, vec![(3, 0, Some(b'x'), MORE); 3000]);
    assert_eq!(*last, (0, Status::Disconnected as u32, None, END));
}

#[test]
fn a_server_that_sends_more_than_can_wait_has_its_request_end_as_busy() {
    const SENT: usize = 5000;
    let mut world = silent();
    let mut requester = Requester::open(&world.broker, RequesterOptions::default()).unwrap();
    ask(&mut requester, 7, streaming(8));
    world.settle();
    let number = world.peer().requests.last().unwrap().correlation;
    // A queue has room for 2,000 of these, and as many may wait for it.
    let payload = vec![b'x'; 4096];
    for _ in 0..SENT / 100 {
        (0..100).for_each(|_| reply(&mut world, 3, Status::Ok, &payload, true));
        world.settle();
    }
    assert_eq!(world.peer().granted, [(number, 0)], "CANCEL, once");
    let mut got = Vec::new();
    for _ in 0..50 {
        got.extend(received(&mut requester));
        world.step_on();
    }
    let (last, streamed) = got.split_last().unwrap();
    assert_eq!(*last, (0, Status::Busy as u32, None, END));
    // What a first look finds comes before; the rest waits for nobody any more.
    let count = streamed.len();
    assert!((1..=64).contains(&count), "{count}");
    assert_eq!(streamed, vec![(3, 0, Some(b'x'), MORE); count]);
    assert_eq!(requester.in_flight(), 0);
    let late = world.broker.statistics().late_answers;
    let refused = 1;
    let is_all = late as usize + refused + count == SENT;
    assert!(
        is_all,
        "each but that was received or is late: {late}, {count}"
    );
    // There is room again for another request's.
    ask(&mut requester, 8, streaming(SENT as u32));
    world.settle();
    for _ in 0..30 {
        (0..100).for_each(|_| reply(&mut world, 3, Status::Ok, &payload, true));
        world.settle();
    }
    reply(&mut world, 3, Status::End, b"", false);
    let mut got = Vec::new();
    for _ in 0..50 {
        got.extend(received(&mut requester));
        world.step_on();
    }
    let (last, streamed) = got.split_last().unwrap();
    assert_eq!(*last, (3, Status::End as u32, None, END));
    assert_eq!(streamed.len(), 3000);
}

#[test]
fn a_responder_streams_within_its_credit_until_the_server_cancels() {
    let mut world = silent();
    let queue = subscribe(&world.broker, "ask.*");
    world.settle();
    let number = world.peer().number_of("ask.*").unwrap();
    let question = |world: &mut World, token, credit| {
        let subject = Subject::Text(b"ask.x");
        let mut draft = Draft::question(number, subject, token, b"?");
        draft.many = Some(Many { answers: 0, credit });
        assert!(world.peer().send(&draft));
        world.settle();
        let batch = queue_of(&queue).receive(&world.broker, 1, 0).unwrap();
        batch.messages()[0].token
    };
    let token = question(&mut world, 70, 2);
    let mut stream = ReplyStream::open(&world.broker, token).unwrap();
    assert_eq!(stream.credit(), Ok(2));
    stream.send(b"a", b"").unwrap();
    stream.send(b"b", b"").unwrap();
    let refused = stream.send(b"c", b"").unwrap_err();
    assert_eq!(refused.status(), Status::Again);
    world.peer().say(|out| {
        let draft = ControlDraft::whole(out, Kind::Grant, 70).unwrap();
        draft.number(Field::Replies, 3).unwrap();
    });
    world.settle();
    assert_eq!(stream.credit(), Ok(3));
    stream.send(b"c", b"").unwrap();
    stream.end(Status::Ok).unwrap();
    world.settle();
    let sent: Vec<_> = world.peer().streamed.drain(..).collect();
    let expected = [b"a", b"b", b"c"].map(|it| (70, it.to_vec()));
    assert_eq!(sent, expected);
    let end = Status::End as u8;
    assert_eq!(world.peer().replies, [(70, end, Vec::new())]);
    // Dropped, cancelled, and cut.
    let token = question(&mut world, 71, 2);
    drop(ReplyStream::open(&world.broker, token).unwrap());
    world.settle();
    let cancelled = Status::Cancelled as u8;
    assert_eq!(world.peer().replies[1..], [(71, cancelled, Vec::new())]);
    let token = question(&mut world, 72, 2);
    let mut stream = ReplyStream::open(&world.broker, token).unwrap();
    world.peer().say(|out| {
        ControlDraft::whole(out, Kind::Cancel, 72).unwrap();
    });
    world.settle();
    let gone = stream.send(b"x", b"").unwrap_err();
    assert_eq!(gone.status(), Status::Cancelled);
    let token = question(&mut world, 73, 2);
    let mut stream = ReplyStream::open(&world.broker, token).unwrap();
    let unopened = question(&mut world, 74, 2);
    world.peer().cut();
    world.until("again", |world| world.peer().accepted == 2);
    world.settle();
    let gone = stream.send(b"x", b"").unwrap_err();
    assert_eq!(gone.status(), Status::Cancelled);
    let gone = ReplyStream::open(&world.broker, unopened).unwrap_err();
    assert_eq!(gone.status(), Status::NotFound);
    drop(stream);
    world.settle();
    assert_eq!(world.peer().streamed, []);
    assert_eq!(world.peer().replies.len(), 2);
}

//! Publish and subscribe: patterns, a shared queue, a publisher handle, headers and a callback.
//!
//! Everything happens on one thread: the messages wait in a queue between publish and receive, and
//! the callback runs inside publish.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fastmq::{
    Client, Delivery, Headers, Message, Options, QueueOptions, SubscribeOptions, headers,
};

const KITCHEN: u64 = 1;
const ALARM: u64 = 2;

fn main() -> fastmq::Result<()> {
    let mq = Client::open(Options::default())?;

    // One queue for two subscriptions, so that one loop reads both. The tag comes back with each
    // message and says which of the two it is for: no subject needs to be looked at again.
    let queue = mq.queue(QueueOptions::default())?;
    let listen_to = |pattern, tag| {
        let options = SubscribeOptions {
            queue: Some(&queue),
            tag,
            ..SubscribeOptions::default()
        };
        mq.subscribe_with(pattern, options)
    };
    let _kitchen = listen_to("house.kitchen.*", KITCHEN)?;
    let _alarms = listen_to("house.*.smoke", ALARM)?;

    // A callback instead of a queue, here on the publishing thread.
    let in_house = Arc::new(AtomicU32::new(0));
    let count = in_house.clone();
    let options = SubscribeOptions {
        delivery: Delivery::Inline,
        on_message: Some(Box::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })),
        ..SubscribeOptions::default()
    };
    let _counter = mq.subscribe_with("house.>", options)?;

    // By subject: right for subjects that change from message to message.
    mq.publish("house.kitchen.light", "on")?;
    mq.publish("house.cellar.light", "nobody listens")?;

    // By handle: the subject is checked and routed once, each publish is cheaper.
    let mut smoke = mq.publisher("house.kitchen.smoke")?;
    smoke.publish(b"none")?;

    // A message with more to it than a payload.
    let mut unit = Headers::new();
    unit.add(b"unit", b"celsius")?;
    mq.publish_message(&Message {
        subject: b"house.kitchen.temperature",
        payload: b"21.5",
        headers: unit.as_bytes(),
        ..Message::default()
    })?;

    // Receive in batches, in place: nothing is copied; the views live as long as the batch. A
    // time-out of 0 means "what is there now"; AGAIN says that there is nothing (more).
    let (mut for_kitchen, mut for_alarm) = (0, 0);
    while let Ok(batch) = queue.receive(64, 0) {
        for message in batch.messages() {
            let is_alarm = message.tag == ALARM;
            let whose = if is_alarm { "alarm" } else { "kitchen" };
            let subject = String::from_utf8_lossy(message.subject());
            let payload = String::from_utf8_lossy(message.payload());
            let unit = headers::get(message.headers(), b"unit").unwrap_or_default();
            let text = format!("{payload} {}", String::from_utf8_lossy(unit));
            println!("{whose:8} {subject}: {}", text.trim_end());
            for_alarm += u32::from(is_alarm);
            for_kitchen += u32::from(!is_alarm);
        }
    }
    let in_house = in_house.load(Ordering::Relaxed);
    println!("{in_house} messages in the house");
    // kitchen.smoke matches both patterns, so each of the two subscriptions has it.
    assert_eq!((for_kitchen, for_alarm, in_house), (3, 1, 4));
    Ok(())
}

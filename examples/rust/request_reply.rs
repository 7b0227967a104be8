//! Request and reply: a responder on its own thread, one question at a time, many at a time, and
//! the ways in which a question ends without an answer.

#![forbid(unsafe_code)]

use std::thread;

use fastmq::{
    Client, FOREVER_NS, Message, Options, RequesterOptions, Result, Status, Subscription, View,
};

const QUESTIONS: u64 = 1000;
const SECOND: u64 = 1_000_000_000;

fn parse(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Answers one question: the token says whom the answer is for.
fn answer(mq: &Client, question: &View) -> Result<()> {
    match parse(question.payload()) {
        Some(number) => mq.reply(question.token, (number * number).to_string()),
        None => mq.reply_with(question.token, Status::Invalid, "not a number", &[]),
    }
}

/// Answers until the queue is drained.
fn serve(mq: &Client, questions: &Subscription) -> Result<()> {
    while let Ok(batch) = questions.receive(64, FOREVER_NS) {
        for question in batch.messages() {
            answer(mq, question)?;
        }
    }
    Ok(())
}

/// Asks a thousand questions without waiting in between; the answers come in batches.
fn ask_many(mq: &Client) -> Result<usize> {
    let mut requester = mq.requester(RequesterOptions {
        subject: b"math.square",
        ..RequesterOptions::default()
    })?;
    for number in 0..QUESTIONS {
        requester.submit(number.to_string().as_bytes(), number, 5 * SECOND)?;
    }
    let mut right = 0;
    while requester.in_flight() > 0 {
        // The token is the one given with the question; the status says how it ended.
        let is_right = |answer: &&View| {
            answer.status == Status::Ok as u32
                && parse(answer.payload()) == Some(answer.token * answer.token)
        };
        let answers = requester.receive(64, FOREVER_NS)?;
        right += answers.messages().iter().filter(is_right).count();
    }
    Ok(right)
}

fn main() -> Result<()> {
    let mq = Client::open(Options::default())?;
    let questions = mq.subscribe("math.square")?;
    let ask = |subject: &str, payload: &str, timeout_ns| {
        let question = Message {
            subject: subject.as_bytes(),
            payload: payload.as_bytes(),
            ..Message::default()
        };
        mq.request(&question, timeout_ns)
    };
    thread::scope(|scope| {
        let responder = scope.spawn(|| serve(&mq, &questions));

        let reply = ask("math.square", "12", 5 * SECOND)?;
        println!("12 squared is {}", String::from_utf8_lossy(&reply.payload));

        let right = ask_many(&mq)?;
        println!("{right} of {QUESTIONS} answers are right");
        assert_eq!(right as u64, QUESTIONS);

        // The responder may refuse: its status and its words are in the answer.
        let refused = ask("math.square", "twelve", 5 * SECOND)?;
        let (status, words) = (refused.status, String::from_utf8_lossy(&refused.payload));
        println!(
            "math.square of twelve: {}, {words}",
            status.c_name().to_string_lossy()
        );
        assert_eq!(status, Status::Invalid);

        // Nobody listens: the engine says so at once, whatever the time-out.
        let nobody = ask("math.cube", "12", FOREVER_NS);
        let status = nobody.map_or_else(|error| error.status(), |reply| reply.status);
        println!("math.cube: {}", status.c_name().to_string_lossy());
        assert_eq!(status, Status::NoResponder);

        // Drain ends the responder's loop: its receive says END.
        mq.drain(5 * SECOND)?;
        responder.join().expect("the responder panicked")
    })
}

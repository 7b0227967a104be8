//! Many answers to one request: a census that asks everybody, and a search that streams what it
//! finds for as long as somebody wants to hear it.

#![forbid(unsafe_code)]

use std::thread;

use fastmq::{
    ANSWERS_ALL, Client, Delivery, FOREVER_NS, ManyOptions, Message, Options, ReplyStream,
    Requester, RequesterOptions, Result, Status, SubscribeOptions, Subscription, view_flag,
};

const SECOND: u64 = 1_000_000_000;

fn is_prime(number: &u64) -> bool {
    *number > 1
        && (2..)
            .take_while(|by| by * by <= *number)
            .all(|by| !number.is_multiple_of(by))
}

/// A payload of 8 bytes.
fn number(payload: &[u8]) -> u64 {
    payload.try_into().map_or(0, u64::from_le_bytes)
}

/// Streams the primes from 2 on; the asker says how many it wants, by taking them.
fn stream_primes(mut stream: ReplyStream, end: u64) -> Result<()> {
    for prime in (2..end).filter(is_prime) {
        // Waits while the asker is behind: its credit is what it can take.
        match stream.send_wait(&prime.to_le_bytes(), &[], FOREVER_NS) {
            Err(error) if error.status() == Status::Cancelled => {
                println!("the search has stopped"); // Nobody wants more.
                return Ok(());
            }
            sent => sent?,
        }
    }
    stream.end(Status::Ok)
}

/// Answers until the queue is drained.
fn search(mq: &Client, questions: &Subscription) -> Result<()> {
    while let Ok(batch) = questions.receive(1, FOREVER_NS) {
        let question = &batch.messages()[0];
        let (token, end) = (question.token, number(question.payload()));
        drop(batch); // The token is good for longer.
        stream_primes(mq.reply_stream(token)?, end)?;
    }
    Ok(())
}

/// Asks for the primes below `end` and takes `wanted` of them at most; how many came.
fn take_primes(requester: &mut Requester, end: u64, wanted: u64) -> Result<u64> {
    let question = Message {
        payload: &end.to_le_bytes(),
        ..Message::default()
    };
    let options = ManyOptions {
        credit: 16,          // As far may the search be ahead.
        gap_ns: 10 * SECOND, // It hangs if it is silent for so long.
        ..ManyOptions::default()
    };
    requester.submit_many(&question, end, FOREVER_NS, &options)?;
    let (mut primes, mut last, mut is_over) = (0, 0, false);
    while !is_over {
        let before = primes;
        for reply in requester.receive(64, FOREVER_NS)?.messages() {
            is_over |= reply.flags & view_flag::END != 0;
            if !is_over && primes < wanted {
                primes += 1;
                last = number(reply.payload());
            }
        }
        if before < wanted && primes == wanted {
            println!("{primes} primes are enough, the last is {last}");
            requester.cancel(end)?;
        }
    }
    if primes < wanted {
        println!("{primes} primes below {end}, the last is {last}");
    }
    Ok(primes)
}

fn main() -> Result<()> {
    let mq = Client::open(Options::default())?;

    // Everybody who listens gets the question; one call waits for the answers of all.
    let members: Result<Vec<Subscription>> = (0..3)
        .map(|_| {
            let here = mq.clone();
            let options = SubscribeOptions {
                delivery: Delivery::Inline,
                on_message: Some(Box::new(move |question| {
                    here.reply(question.token, "here").expect("report");
                })),
                ..SubscribeOptions::default()
            };
            mq.subscribe_with("census", options)
        })
        .collect();
    let members = members?;
    let census = Message {
        subject: b"census",
        ..Message::default()
    };
    let answers = mq.request_many(&census, ANSWERS_ALL, SECOND)?;
    println!("{} members are here", answers.messages().len());
    assert_eq!(answers.messages().len(), members.len());

    let questions = mq.subscribe("primes")?;
    thread::scope(|scope| {
        let searcher = scope.spawn(|| search(&mq, &questions));
        let mut requester = mq.requester(RequesterOptions {
            subject: b"primes",
            ..RequesterOptions::default()
        })?;
        // A stream to its end, and one that is cancelled when there is enough.
        assert_eq!(take_primes(&mut requester, 1000, u64::MAX)?, 168);
        assert_eq!(take_primes(&mut requester, u64::MAX, 5000)?, 5000);

        // Before drain: what a cancelled search had sent already is nobody's.
        drop(requester);
        mq.drain(5 * SECOND)?;
        searcher.join().expect("the searcher panicked")
    })
}

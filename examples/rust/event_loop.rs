//! An event loop: three tasks on one thread, which sleeps until a message, a question, an answer or
//! the next tick of a timer is there. Nothing blocks it.
//!
//! The library's futures want no certain executor; the one here is as small as one can be, with a
//! timer. A loop that waits for descriptors takes `Client::fd` instead: event_loop.c.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use fastmq::{Client, Options, RequesterOptions, Result, Subscription};

const READINGS: u32 = 5;
const TICK: Duration = Duration::from_millis(2);
const SECOND: u64 = 1_000_000_000;

/// Wakes the thread of the loop.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread. It is looked at when it was woken, and at each tick.
fn run<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        thread::park_timeout(TICK);
    }
}

/// Is over when the next tick is due.
async fn tick() {
    let due = Instant::now() + TICK;
    poll_fn(|_| match Instant::now() < due {
        true => Poll::Pending,
        false => Poll::Ready(()),
    })
    .await;
}

/// The sensors: each tick is a reading.
async fn measure(mq: &Client) -> Result<()> {
    for number in 0..READINGS {
        tick().await;
        mq.publish(format!("sensor.{}", number % 2), format!("{}", 20 + number))?;
    }
    Ok(())
}

/// Prints the readings and keeps the newest; asks for it when it has all.
async fn read(mq: &Client, readings: &Subscription, newest: &RefCell<String>) -> Result<String> {
    let queue = readings.queue().expect("it is pulled");
    let mut count = 0;
    while count < READINGS {
        for reading in queue.receive_async(64).await?.messages() {
            let degrees = String::from_utf8_lossy(reading.payload());
            let subject = String::from_utf8_lossy(reading.subject());
            println!("{subject}: {degrees} degrees");
            newest.replace(degrees.into_owned());
            count += 1;
        }
    }
    let mut asker = mq.requester(RequesterOptions {
        subject: b"temperature",
        ..RequesterOptions::default()
    })?;
    asker.submit(b"", 0, 5 * SECOND)?;
    asker.ready().await?;
    let answers = asker.receive(1, 0)?;
    let answer = String::from_utf8_lossy(answers.messages()[0].payload());
    Ok(answer.into_owned())
}

/// Answers questions with the newest reading.
async fn answer(mq: &Client, questions: &Subscription, newest: &RefCell<String>) -> Result<()> {
    let queue = questions.queue().expect("it is pulled");
    loop {
        for question in queue.receive_async(64).await?.messages() {
            mq.reply(question.token, newest.borrow().as_bytes())?;
        }
    }
}

/// Runs tasks beside the main one until that is over.
async fn beside<T>(
    main: impl Future<Output = T>,
    mut others: [Pin<&mut dyn Future<Output = Result<()>>>; 2],
) -> T {
    let mut main = pin!(main);
    let mut is_over = [false; 2];
    poll_fn(|context| {
        for (task, is_over) in others.iter_mut().zip(&mut is_over) {
            *is_over = *is_over || task.as_mut().poll(context).is_ready();
        }
        main.as_mut().poll(context)
    })
    .await
}

fn main() -> Result<()> {
    let mq = Client::open(Options::default())?;
    let readings = mq.subscribe("sensor.*")?;
    let questions = mq.subscribe("temperature")?;
    let newest = RefCell::new(String::new());
    let (sensors, thermometer) = (measure(&mq), answer(&mq, &questions, &newest));
    let others: [Pin<&mut dyn Future<Output = Result<()>>>; 2] = [pin!(sensors), pin!(thermometer)];
    let degrees = run(beside(read(&mq, &readings, &newest), others))?;
    println!("it is {degrees} degrees now");
    assert_eq!(degrees, "24");
    Ok(())
}

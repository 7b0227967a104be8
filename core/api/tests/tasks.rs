//! Queues and requesters as tasks: woken when there is something, by whoever causes it.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use fastmq::{
    Client, Delivery, Message, Options, Queue, QueueOptions, RequesterOptions, Result, Status,
    SubscribeOptions,
};

/// Wakes a thread, and counts.
struct Unpark {
    thread: Thread,
    wakes: AtomicUsize,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn unpark() -> Arc<Unpark> {
    Arc::new(Unpark {
        thread: thread::current(),
        wakes: AtomicUsize::new(0),
    })
}

/// The smallest executor.
fn block_on<F: Future>(task: F) -> F::Output {
    let waker = Waker::from(unpark());
    let mut task = pin!(task);
    loop {
        match task.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn queue_of(client: &Client, pattern: &str) -> (Queue, fastmq::Subscription) {
    let queue = client.queue(QueueOptions::default()).unwrap();
    let options = SubscribeOptions {
        queue: Some(&queue),
        ..SubscribeOptions::default()
    };
    let subscription = client.subscribe_with(pattern, options).unwrap();
    (queue, subscription)
}

#[test]
fn what_users_hold_may_be_sent_and_shared() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Client>();
    is_shared::<Queue>();
    is_shared::<fastmq::Subscription>();
    is_shared::<fastmq::Error>();
    is_shared::<fastmq::Reply>();
    is_shared::<fastmq::View>();
    is_send::<fastmq::Publisher>();
    is_send::<fastmq::Requester>();
    is_send::<fastmq::Detached>();
    is_send::<fastmq::Ready<'static>>();
}

#[test]
fn a_task_gets_every_message_that_other_threads_publish() {
    const COUNT: u64 = 20_000;
    let client = Client::open(Options::default()).unwrap();
    let (queue, _subscription) = queue_of(&client, "number");
    let publisher = thread::spawn({
        let client = client.clone();
        move || {
            for number in 0..COUNT {
                while let Err(error) = client.publish("number", number.to_le_bytes()) {
                    assert_eq!(error.status(), Status::Again);
                    thread::yield_now();
                }
            }
        }
    });
    let received: Result<u64> = block_on(async {
        let mut next = 0;
        while next < COUNT {
            let batch = queue.receive_async(16).await?;
            for message in batch.messages() {
                assert_eq!(message.payload(), next.to_le_bytes());
                next += 1;
            }
        }
        Ok(next)
    });
    assert_eq!(received.unwrap(), COUNT);
    publisher.join().unwrap();
}

#[test]
fn a_task_that_waits_is_woken_once_by_what_it_waits_for() {
    let client = Client::open(Options::default()).unwrap();
    let (queue, subscription) = queue_of(&client, "a");
    let counter = unpark();
    let waker = Waker::from(counter.clone());
    let mut context = Context::from_waker(&waker);
    let mut ready = pin!(queue.ready());
    assert!(ready.as_mut().poll(&mut context).is_pending());
    client.publish("b", "").unwrap();
    assert_eq!(counter.wakes.load(Ordering::SeqCst), 0);
    client.publish("a", "1").unwrap();
    client.publish("a", "2").unwrap();
    assert_eq!(counter.wakes.load(Ordering::SeqCst), 1);
    assert!(matches!(
        ready.as_mut().poll(&mut context),
        Poll::Ready(Ok(()))
    ));

    // A batch that is open is in the way of its successor: it would tell nothing new.
    let batch = queue.receive(1, 0).unwrap();
    let Poll::Ready(Err(error)) = pin!(queue.ready()).poll(&mut context) else {
        panic!("an open batch is no reason to wait");
    };
    assert_eq!(error.status(), Status::Misuse);
    drop(batch);
    drop(queue.receive(1, 0).unwrap());

    // The last one that was polled is woken.
    let other = unpark();
    let other_waker = Waker::from(other.clone());
    assert!(pin!(queue.ready()).poll(&mut context).is_pending());
    let mut second = pin!(queue.ready());
    assert!(
        second
            .as_mut()
            .poll(&mut Context::from_waker(&other_waker))
            .is_pending()
    );
    client.publish("a", "3").unwrap();
    assert_eq!(other.wakes.load(Ordering::SeqCst), 1);
    drop(queue.receive(1, 0).unwrap());

    // The end is something to say, too.
    assert!(second.as_mut().poll(&mut context).is_pending());
    let before = counter.wakes.load(Ordering::SeqCst);
    queue.close();
    assert_eq!(counter.wakes.load(Ordering::SeqCst), before + 1);
    assert!(matches!(
        second.as_mut().poll(&mut context),
        Poll::Ready(Ok(()))
    ));
    assert_eq!(queue.receive(1, 0).unwrap_err().status(), Status::End);
    subscription.unsubscribe();
}

#[test]
fn closing_the_client_wakes_a_task() {
    let client = Client::open(Options::default()).unwrap();
    let (queue, _subscription) = queue_of(&client, "a");
    let closer = thread::spawn({
        let client = client.clone();
        move || client.close()
    });
    let error = block_on(queue.receive_async(1)).unwrap_err();
    assert!(
        matches!(error.status(), Status::End | Status::Closed),
        "{error}"
    );
    closer.join().unwrap();
}

#[test]
fn a_requester_is_ready_for_an_answer_and_for_a_fate() {
    let client = Client::open(Options::default()).unwrap();
    let (queue, _subscription) = queue_of(&client, "ask");
    let mut requester = client.requester(RequesterOptions::default()).unwrap();
    let counter = unpark();
    let waker = Waker::from(counter.clone());
    let mut context = Context::from_waker(&waker);
    assert_eq!(requester.next_deadline(), fastmq::FOREVER_NS);

    requester
        .submit_to(b"ask", b"?", 7, 60_000_000_000)
        .unwrap();
    assert!(requester.next_deadline() <= 60_000_000_000);
    assert!(pin!(requester.ready()).poll(&mut context).is_pending());
    let token = queue.receive(1, 0).unwrap().messages()[0].token;
    client.reply(token, "!").unwrap();
    assert_eq!(counter.wakes.load(Ordering::SeqCst), 1);
    assert!(pin!(requester.ready()).poll(&mut context).is_ready());
    let answer = requester.receive(8, 0).unwrap();
    assert_eq!(
        (answer.messages()[0].token, answer.messages()[0].payload()),
        (7, &b"!"[..])
    );
    drop(answer);

    requester
        .submit_to(b"nobody", b"?", 8, fastmq::FOREVER_NS)
        .unwrap();
    assert!(
        pin!(requester.ready()).poll(&mut context).is_ready(),
        "its fate is known"
    );
    let fate = requester.receive(8, 0).unwrap();
    assert_eq!(fate.messages()[0].status, Status::NoResponder as u32);
}

/// Publishes and subscribes when it is woken: no lock may be held then.
struct Keeper {
    client: Client,
    wakes: AtomicUsize,
}

fn keep(client: &Client, subject: &str) -> Result<()> {
    client.publish_message(&Message {
        subject: subject.as_bytes(),
        payload: b"kept",
        keep_last: true,
        ..Message::default()
    })
}

impl Wake for Keeper {
    fn wake(self: Arc<Self>) {
        keep(&self.client, "state.b").unwrap();
        let late = SubscribeOptions {
            replay_last: true,
            ..SubscribeOptions::default()
        };
        let late = self.client.subscribe_with("state.*", late).unwrap();
        late.unsubscribe();
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn whoever_is_woken_for_a_last_value_may_keep_one() {
    let client = Client::open(Options::default()).unwrap();
    let queue = client.queue(QueueOptions::default()).unwrap();
    let keeper = Arc::new(Keeper {
        client: client.clone(),
        wakes: AtomicUsize::new(0),
    });
    let mut ready = pin!(queue.ready());
    let waker = Waker::from(keeper.clone());
    let mut context = Context::from_waker(&waker);
    assert!(ready.as_mut().poll(&mut context).is_pending());
    // It subscribes in the middle of a publish, whose end hands the value over.
    let there = client.clone();
    let late = Arc::new(Mutex::new(None));
    let list = late.clone();
    let own = Queue::new(client.clone(), queue.place().clone());
    let inline = SubscribeOptions {
        delivery: Delivery::Inline,
        on_message: Some(Box::new(move |_| {
            let options = SubscribeOptions {
                queue: Some(&own),
                replay_last: true,
                ..SubscribeOptions::default()
            };
            *list.lock().unwrap() = Some(there.subscribe_with("state.a", options).unwrap());
        })),
        ..SubscribeOptions::default()
    };
    let inline = client.subscribe_with("state.a", inline).unwrap();
    keep(&client, "state.a").unwrap();
    assert_eq!(keeper.wakes.load(Ordering::SeqCst), 1);
    assert!(ready.as_mut().poll(&mut context).is_ready());
    let batch = queue.receive(10, 0).unwrap();
    assert_eq!(batch.messages().len(), 1);
    assert_eq!(batch.messages()[0].subject(), b"state.a");
    drop(batch);
    inline.unsubscribe();
    client.close();
    late.lock().unwrap().take();
}

#[test]
fn a_limit_of_zero_is_as_many_as_a_batch_holds() {
    let client = Client::open(Options::default()).unwrap();
    let (queue, subscription) = queue_of(&client, "a");
    let options = RequesterOptions {
        subject: b"a",
        ..RequesterOptions::default()
    };
    let mut requester = client.requester(options).unwrap();
    let ask = |requester: &mut fastmq::Requester| {
        for number in 0..3 {
            requester.submit(b"?", number, u64::MAX).unwrap();
        }
    };
    ask(&mut requester);
    for message in queue.receive(0, u64::MAX).unwrap().messages() {
        client.reply(message.token, b"!").unwrap();
    }
    let answers = requester.receive(0, u64::MAX).unwrap();
    assert_eq!(answers.messages().len(), 3);
    drop(answers);
    ask(&mut requester);
    assert_eq!(
        block_on(queue.receive_async(0)).unwrap().messages().len(),
        3
    );
    drop(subscription);
    let own = client.subscribe("b").unwrap();
    client.publish("b", "x").unwrap();
    assert_eq!(own.receive(0, u64::MAX).unwrap().messages().len(), 1);
}

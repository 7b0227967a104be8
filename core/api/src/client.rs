//! A client: the handle to a broker in this process.
//!
//! It owns nothing but its share of the broker. Clones are the same client; the broker ends when it
//! is closed, or when the last handle of any kind is gone.

use std::sync::Arc;

use fastmq_engine::driver::{Driver, NullDriver};
use fastmq_engine::link::ConnectOptions;
use fastmq_engine::memory::Detached;
use fastmq_engine::statistics::Statistics;
use fastmq_engine::{
    self as engine, Broker, Delivery, Message, Options, Publisher, QueueOptions, ReplyStream,
    Requester, RequesterOptions, Result, Status, ThreadClient, with_thread_client,
};

use crate::queue::Queue;
use crate::reply::Reply;
use crate::subscription::{SubscribeOptions, Subscription};

/// A client. Used from any thread at the same time.
#[derive(Clone, Debug)]
pub struct Client {
    broker: Arc<Broker>,
}

impl Client {
    /// Opens a broker in this process. No thread is started before a feature needs one; only
    /// options of library threads are tried on a thread that ends at once.
    ///
    /// # Errors
    /// INVALID: an option is out of its range. DENIED: the right to the scheduling of library
    /// threads is missing. UNSUPPORTED, IO: such a thread cannot be started. NO_MEMORY.
    pub fn open(options: Options) -> Result<Self> {
        Self::open_with(options, Arc::new(NullDriver::new()))
    }

    /// Connects to the first of the servers that answers: `tcp://host:port`, `unix:/path` or
    /// `shm:NAME` (shared memory, as [`listen`](Self::listen) has it; a server without it serves
    /// over the socket), with commas between them. What the client can do is what one of a broker
    /// in this process can, over a thread of its own, which connects again whenever the connection
    /// breaks: then it subscribes again, requests that were open end as DISCONNECTED, and publishes
    /// wait for the next connection up to `store_max` bytes. [`crate::Event`] tells what has
    /// happened.
    ///
    /// It keeps no last values (UNSUPPORTED); what else differs is in
    /// `docs/reference/processes.md`. A handler with [`Delivery::Inline`] runs on that thread, and
    /// must not ask or subscribe there (MISUSE). Close the client, which sends what was accepted:
    /// one that nobody holds ends by itself, but up to ten seconds later.
    ///
    /// ```no_run
    /// # fn main() -> fastmq::Result<()> {
    /// use fastmq::{Client, ConnectOptions};
    /// let client = Client::connect("tcp://127.0.0.1:4860", ConnectOptions::default())?;
    /// let flights = client.subscribe("flight.*.JFK")?;
    /// client.publish("flight.LAX.JFK", "delayed 12 minutes")?;
    /// let batch = flights.receive(64, 1_000_000_000)?;
    /// assert_eq!(batch.messages()[0].payload(), b"delayed 12 minutes");
    /// # drop(batch);
    /// client.close();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// INVALID: a URL or an option. UNAVAILABLE, DENIED, UNSUPPORTED, or what else the last server
    /// said once all were tried. TIMEOUT: none has answered within `connect_timeout`. IO,
    /// NO_MEMORY.
    pub fn connect(urls: &str, options: ConnectOptions) -> Result<Self> {
        Ok(Self {
            broker: engine::link::connect(urls, options)?,
        })
    }

    /// Opens a broker over a driver of your own, such as the simulated one.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub fn open_with(options: Options, driver: Arc<dyn Driver>) -> Result<Self> {
        Ok(Self {
            broker: Broker::open(options, driver)?,
        })
    }

    /// The broker.
    #[doc(hidden)]
    #[inline(always)]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Runs `body` with this thread's part of the client.
    #[inline(always)]
    fn here<R>(&self, body: impl FnOnce(&ThreadClient) -> Result<R>) -> Result<R> {
        let find = || Some(self.broker.clone());
        with_thread_client(self.broker.id(), find, body)?
    }

    /// Publishes one message to every subscription whose pattern matches, and to one member of
    /// each group. Never blocks.
    ///
    /// # Errors
    /// AGAIN: a backpressure queue is full, and nobody got the message. INVALID, TOO_LARGE,
    /// NO_SPACE, NO_MEMORY, CLOSED.
    #[inline]
    pub fn publish(&self, subject: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Result<()> {
        let (subject, payload) = (subject.as_ref(), payload.as_ref());
        self.here(|here| here.writer.publish(subject, payload))
    }

    /// Publishes one message with all its fields. Never blocks.
    ///
    /// # Errors
    /// As [`Client::publish`].
    #[inline]
    pub fn publish_message(&self, message: &Message<'_>) -> Result<()> {
        self.here(|here| here.writer.publish_message(message))
    }

    /// Publishes one message, waiting for room for at most `timeout_ns`.
    ///
    /// # Errors
    /// TIMEOUT; MISUSE inside a handler of the full queue; else as [`Client::publish`].
    pub fn publish_wait(&self, message: &Message<'_>, timeout_ns: u64) -> Result<()> {
        self.here(|here| here.publish_wait(message, timeout_ns))
    }

    /// Opens a publisher for one subject: the fastest way to publish. Its messages are numbered.
    ///
    /// ```
    /// # fn main() -> fastmq::Result<()> {
    /// # let client = fastmq::Client::open(fastmq::Options::default())?;
    /// let prices = client.subscribe("price.*")?;
    /// let mut acme = client.publisher("price.ACME")?;
    /// acme.publish(b"12.5")?;
    /// let payloads: [&[u8]; 2] = [b"12.6", b"12.4"];
    /// let (accepted, refused) = acme.publish_batch(payloads.into_iter());
    /// assert!(accepted == 2 && refused.is_ok());
    /// let batch = prices.receive(64, 0)?;
    /// let numbers: Vec<u64> = batch.messages().iter().map(|price| price.sequence).collect();
    /// assert_eq!(numbers, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// INVALID: not a subject. CLOSED.
    pub fn publisher(&self, subject: impl AsRef<[u8]>) -> Result<Publisher> {
        Publisher::open(&self.broker, subject.as_ref())
    }

    /// Forgets the last value of a subject; its publishers may set another.
    ///
    /// # Errors
    /// NOT_FOUND: none is kept. INVALID: not a subject. CLOSED.
    pub fn forget_last(&self, subject: impl AsRef<[u8]>) -> Result<()> {
        self.broker.forget_last(subject.as_ref())
    }

    /// Opens a queue that several subscriptions may feed.
    ///
    /// ```
    /// # fn main() -> fastmq::Result<()> {
    /// # let client = fastmq::Client::open(fastmq::Options::default())?;
    /// use fastmq::{Policy, QueueOptions, SubscribeOptions};
    /// // The newest matter more than the oldest: a full queue drops those, and says how many.
    /// let options = QueueOptions { policy: Policy::DropOldest, ..Default::default() };
    /// let board = client.queue(options)?;
    /// let into_board = |tag| SubscribeOptions { queue: Some(&board), tag, ..Default::default() };
    /// let _arrivals = client.subscribe_with("flight.*.JFK", into_board(1))?;
    /// let _departures = client.subscribe_with("flight.JFK.*", into_board(2))?;
    /// client.publish("flight.JFK.LAX", "on time")?;
    /// let batch = board.receive(64, 0)?;
    /// assert_eq!((batch.messages()[0].tag, batch.messages()[0].lost_before), (2, 0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// INVALID: an option is out of its range. CLOSED, NO_MEMORY.
    pub fn queue(&self, options: QueueOptions) -> Result<Queue> {
        Ok(Queue::new(self.clone(), self.broker.open_queue(options)?))
    }

    /// Subscribes with a queue of its own.
    ///
    /// # Errors
    /// INVALID: not a pattern. CLOSED, NO_MEMORY.
    pub fn subscribe(&self, pattern: impl AsRef<[u8]>) -> Result<Subscription> {
        self.subscribe_with(pattern, SubscribeOptions::default())
    }

    /// Subscribes, with a handler instead of a queue if the options name one.
    ///
    /// ```
    /// # fn main() -> fastmq::Result<()> {
    /// # let client = fastmq::Client::open(fastmq::Options::default())?;
    /// use fastmq::{Delivery, SubscribeOptions};
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// let alarms = Arc::new(AtomicU32::new(0));
    /// let count = alarms.clone();
    /// let on_alarm = SubscribeOptions {
    ///     delivery: Delivery::Inline, // on the thread that publishes
    ///     on_message: Some(Box::new(move |_alarm| {
    ///         count.fetch_add(1, Ordering::Relaxed);
    ///     })),
    ///     ..Default::default()
    /// };
    /// let _subscription = client.subscribe_with("alarm.>", on_alarm)?;
    /// client.publish("alarm.room.7", "smoke")?;
    /// assert_eq!(alarms.load(Ordering::Relaxed), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::subscribe`], and UNSUPPORTED where the driver has no threads for
    /// [`Delivery::Thread`].
    pub fn subscribe_with(
        &self,
        pattern: impl AsRef<[u8]>,
        options: SubscribeOptions<'_>,
    ) -> Result<Subscription> {
        let is_pulled = options.delivery == Delivery::Queue;
        let options = engine::SubscribeOptions {
            group: options.group,
            group_mode: options.group_mode,
            weight: options.weight,
            delivery: options.delivery,
            queue: options.queue.map(Queue::place),
            policy: options.policy,
            replay_last: options.replay_last,
            tag: options.tag,
            on_message: options.on_message,
        };
        let subscription = self.broker.subscribe_with(pattern.as_ref(), options)?;
        Ok(Subscription::new(self.clone(), subscription, is_pulled))
    }

    /// Asks and waits for the answer.
    ///
    /// ```
    /// # fn main() -> fastmq::Result<()> {
    /// # let client = fastmq::Client::open(fastmq::Options::default())?;
    /// use fastmq::{Delivery, Message, SubscribeOptions};
    /// let responder = client.clone();
    /// let double = SubscribeOptions {
    ///     delivery: Delivery::Inline,
    ///     on_message: Some(Box::new(move |request| {
    ///         let answer = request.payload().repeat(2);
    ///         responder.reply(request.token, answer).expect("the asker waits");
    ///     })),
    ///     ..Default::default()
    /// };
    /// let _subscription = client.subscribe_with("double", double)?;
    /// let question = Message { subject: b"double", payload: b"la", ..Default::default() };
    /// assert_eq!(client.request(&question, 1_000_000_000)?.payload, "lala");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// NO_RESPONDER, BUSY, TIMEOUT, CANCELLED; else as [`Client::publish`].
    pub fn request(&self, message: &Message<'_>, timeout_ns: u64) -> Result<Reply> {
        self.here(|here| here.request(message, timeout_ns, Reply::copy))
    }

    /// Asks and waits until `answers_max` responders have answered ([`crate::ANSWERS_ALL`]: all
    /// that have the request), or for at most `timeout_ns`. The last message has the flag END; if
    /// it has no subscription it is no answer, and its status says why fewer came.
    ///
    /// # Errors
    /// Nobody has answered: NO_RESPONDER, BUSY, TIMEOUT, CANCELLED; else as [`Client::publish`].
    pub fn request_many(
        &self,
        message: &Message<'_>,
        answers_max: u32,
        timeout_ns: u64,
    ) -> Result<Detached> {
        self.here(|here| here.request_many(message, answers_max, timeout_ns))
    }

    /// Opens the reply stream of the request with this token, which was submitted with credit.
    ///
    /// # Errors
    /// NOT_FOUND: nobody waits for an answer. UNSUPPORTED: the asker takes no stream. EXISTS: it
    /// was opened before. CANCELLED: the responder's subscription has ended. NO_MEMORY, CLOSED.
    pub fn reply_stream(&self, token: u64) -> Result<ReplyStream> {
        ReplyStream::open(&self.broker, token)
    }

    /// Opens a requester: many requests in flight from one thread.
    ///
    /// ```
    /// # fn main() -> fastmq::Result<()> {
    /// # let client = fastmq::Client::open(fastmq::Options::default())?;
    /// use fastmq::{RequesterOptions, Status};
    /// let workers = client.subscribe("square")?;
    /// let mut asker = client.requester(RequesterOptions::default())?;
    /// for number in 1..=3u64 {
    ///     asker.submit_to(b"square", &number.to_le_bytes(), number, 1_000_000_000)?;
    /// }
    /// // Elsewhere, usually: each request is answered by its token.
    /// for request in workers.receive(64, 0)?.messages() {
    ///     let number = u64::from_le_bytes(request.payload().try_into().expect("8 bytes"));
    ///     client.reply(request.token, (number * number).to_le_bytes())?;
    /// }
    /// for answer in asker.receive(64, 1_000_000_000)?.messages() {
    ///     assert_eq!(answer.status, Status::Ok as u32);
    ///     assert_eq!(answer.payload(), (answer.token * answer.token).to_le_bytes());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// INVALID: not a subject, or a number out of its range. CLOSED, NO_MEMORY.
    pub fn requester(&self, options: RequesterOptions<'_>) -> Result<Requester> {
        Requester::open(&self.broker, options)
    }

    /// Answers the request with this token.
    ///
    /// # Errors
    /// AGAIN: the asker has no room. NOT_FOUND: the asker is gone. TOO_LARGE, CLOSED.
    #[inline]
    pub fn reply(&self, token: u64, payload: impl AsRef<[u8]>) -> Result<()> {
        let payload = payload.as_ref();
        if self.broker.reply_far(token, 0, payload) {
            return Ok(());
        }
        self.here(|here| here.writer.reply(token, 0, payload, &[]))
    }

    /// Answers the request with this token with a status and encoded headers
    /// ([`crate::Headers`]): what the asker finds in its [`Reply`].
    ///
    /// # Errors
    /// As [`Client::reply`].
    pub fn reply_with(
        &self,
        token: u64,
        status: Status,
        payload: impl AsRef<[u8]>,
        headers: &[u8],
    ) -> Result<()> {
        let payload = payload.as_ref();
        self.here(|here| here.writer.reply(token, status as u32, payload, headers))
    }

    /// Calls the handlers of [`Delivery::Dispatch`] and says what else is ready, as bits of
    /// [`crate::ready`]. Budgets in messages and nanoseconds; 0: no limit.
    ///
    /// # Errors
    /// CLOSED.
    pub fn dispatch(&self, message_max: u32, budget_ns: u64) -> Result<u32> {
        self.broker.dispatch(message_max, budget_ns)
    }

    /// The descriptor for a foreign loop: readable exactly while [`Client::dispatch`] has
    /// something to do. Only wait on it.
    ///
    /// # Errors
    /// IO: out of descriptors. CLOSED.
    pub fn fd(&self) -> Result<i32> {
        self.broker.fd()
    }

    /// Nanoseconds until something times out; [`crate::FOREVER_NS`]: nothing will.
    pub fn next_deadline(&self) -> u64 {
        self.broker.next_deadline()
    }

    /// Figures since the client was opened.
    pub fn statistics(&self) -> Statistics {
        self.broker.statistics()
    }

    /// Stops taking messages and waits until every queue is empty and no handler runs.
    ///
    /// # Errors
    /// TIMEOUT: something still waits, and the sentence says what. CLOSED.
    pub fn drain(&self, timeout_ns: u64) -> Result<()> {
        self.broker.drain(timeout_ns)
    }

    /// Ends the broker: every handle answers CLOSED from now on, waiting calls return.
    pub fn close(&self) {
        self.broker.close();
    }
}

//! A client as JavaScript holds it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};

use fastmq::{Client, Error, Fault, Message, Status, ready};
use napi::Env;
use napi::bindgen_prelude::AsyncTask;
use napi_derive::napi;

use crate::error::{Thrown, failed, thrown, told};
use crate::held::{Handles, Held, LetGo};
use crate::hub::{Hub, Notes, Waiter, lock};
use crate::options::{
    ClientChoices, ConnectChoices, ListenChoices, QueueChoices, SubscribeChoices, ms, ns,
};
use crate::ports::{Number, Port, Scratch, wide};
use crate::publisher::NativePublisher;
use crate::queue::{NativeQueue, NativeSubscription};
use crate::reply_stream::NativeReplyStream;
use crate::requester::NativeRequester;
use crate::server::NativeServer;
use crate::tasks::{Closing, Connecting, Draining, Warming};
use crate::told::ToldEvent;
use crate::view::Watch;

/// A client that was shared, and who listens to it.
type Shared = (Client, Arc<Listeners>);

/// Clients that were shared with other threads, by their keys.
static SHARED: LazyLock<Mutex<HashMap<u32, Shared>>> = LazyLock::new(Mutex::default);
static NEXT_KEY: AtomicU32 = AtomicU32::new(1);

/// A handle to a client whose loop listens for room.
struct Listener {
    /// What was found since JavaScript asked.
    found: AtomicU32,
    waiter: Arc<Waiter>,
}

/// Those of all threads that share a client: each `dispatch` takes what it finds away from the
/// others, and tells them.
#[derive(Default)]
struct Listeners(Mutex<Vec<Weak<Listener>>>);

impl Listeners {
    fn add(&self, listener: &Arc<Listener>) {
        let mut all = lock(&self.0);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(listener));
    }

    fn tell(&self, bits: u32) {
        if bits & (ready::ROOM | ready::DEADLINE) == 0 {
            return;
        }
        // The last of one may close what locks again.
        let all: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        for listener in all {
            listener.found.fetch_or(bits, Ordering::AcqRel);
            listener.waiter.ring();
        }
    }
}

/// A client.
#[napi]
pub struct NativeClient {
    // Before the client, whose descriptor it watches.
    watch: RefCell<Option<Watch>>,
    client: Held<Client>,
    /// What else of it JavaScript holds.
    handles: Rc<Handles>,
    /// The last figures of one that is closed.
    figures: RefCell<Vec<f64>>,
    events: Option<Arc<Notes<ToldEvent>>>,
    number: Number,
    listener: Arc<Listener>,
    listeners: Arc<Listeners>,
    scratch: Scratch,
}

/// A message with all its fields, beside its payload.
#[napi(object)]
pub struct Outgoing {
    /// Where an answer may be published; empty: nowhere.
    pub reply_to: String,
    /// How long it is worth delivering in milliseconds; 0: for ever.
    pub ttl: f64,
    /// Whether it becomes the last value of its subject.
    pub keep_last: bool,
}

impl Outgoing {
    pub(crate) fn message<'m>(
        &'m self,
        subject: &'m [u8],
        payload: &'m [u8],
        key: &'m [u8],
        headers: &'m [u8],
    ) -> Message<'m> {
        Message {
            subject,
            payload,
            reply_to: self.reply_to.as_bytes(),
            key,
            headers,
            ttl_ns: ns(self.ttl),
            keep_last: self.keep_last,
        }
    }
}

const CLOSED: &Fault = &Fault(Status::Closed, "the client is closed");

impl NativeClient {
    /// The client, for as long as a call needs it.
    fn client(&self) -> fastmq::Result<Client> {
        self.client.with(|client| Ok(client.clone()))
    }

    fn new(
        hub: &Hub,
        number: u32,
        client: Client,
        events: Option<Arc<Notes<ToldEvent>>>,
        listeners: Arc<Listeners>,
    ) -> Self {
        Self {
            watch: RefCell::default(),
            events,
            number: Number::open(Port::Client(client.clone()), hub.scratch.clone()),
            client: Held::new(client, CLOSED),
            handles: Rc::default(),
            figures: RefCell::default(),
            listener: Arc::new(Listener {
                found: AtomicU32::new(0),
                waiter: Waiter::new(hub, number),
            }),
            listeners,
            scratch: hub.scratch.clone(),
        }
    }

    /// The only handle to a client.
    pub(crate) fn first(
        hub: &Hub,
        number: u32,
        client: Client,
        events: Option<Arc<Notes<ToldEvent>>>,
    ) -> Self {
        Self::new(hub, number, client, events, Arc::default())
    }
}

/// Opens a broker in this process.
#[napi]
pub fn open(hub: &Hub, number: u32, choices: ClientChoices) -> Result<NativeClient, Thrown> {
    let client = Client::open(choices.options()).map_err(thrown)?;
    Ok(NativeClient::first(hub, number, client, None))
}

/// Begins what takes the first `open` of a process ten milliseconds and more where there are other
/// threads: the system waits for all of them once. Who opens meanwhile does not.
#[napi]
pub fn warm() -> AsyncTask<Warming> {
    AsyncTask::new(Warming)
}

/// Connects to a server, on a thread that may wait.
#[napi]
pub fn connect(
    hub: &Hub,
    number: u32,
    urls: String,
    choices: ConnectChoices,
) -> AsyncTask<Connecting> {
    AsyncTask::new(Connecting::new(hub, number, urls, choices.options()))
}

/// Opens another handle to a client that was shared.
#[napi]
pub fn attach(hub: &Hub, number: u32, key: u32) -> Result<NativeClient, Thrown> {
    match lock(&SHARED).get(&key) {
        Some((client, listeners)) => {
            let (client, listeners) = (client.clone(), listeners.clone());
            Ok(NativeClient::new(hub, number, client, None, listeners))
        }
        None => Err(thrown(Error::new(&Fault(
            Status::NotFound,
            "no client of this process is shared under this key",
        )))),
    }
}

#[napi]
impl NativeClient {
    /// What calls by number call it.
    #[napi]
    pub fn number(&self) -> u32 {
        self.number.get()
    }

    /// Publishes a payload that is no small one.
    #[napi]
    pub fn publish_bytes(&self, subject: String, payload: &[u8]) -> u32 {
        told(&self.client.with(|client| client.publish(subject, payload)))
    }

    /// Publishes a message with all its fields.
    #[napi]
    pub fn publish_message(
        &self,
        subject: String,
        payload: &[u8],
        key: &[u8],
        headers: &[u8],
        with: Outgoing,
    ) -> u32 {
        let message = with.message(subject.as_bytes(), payload, key, headers);
        told(&self.client.with(|client| client.publish_message(&message)))
    }

    /// Opens a publisher.
    #[napi]
    pub fn publisher(&self, subject: String) -> Result<NativePublisher, Thrown> {
        let publisher = self
            .client
            .with(|client| client.publisher(subject))
            .map_err(thrown)?;
        Ok(NativePublisher::new(
            publisher,
            self.scratch.clone(),
            &self.handles,
        ))
    }

    /// Forgets the last value of a subject.
    #[napi]
    pub fn forget_last(&self, subject: String) -> u32 {
        told(&self.client.with(|client| client.forget_last(subject)))
    }

    /// Opens a queue.
    #[napi]
    pub fn queue(
        &self,
        hub: &Hub,
        number: u32,
        choices: QueueChoices,
    ) -> Result<NativeQueue, Thrown> {
        let queue = self
            .client
            .with(|client| client.queue(choices.options()))
            .map_err(thrown)?;
        Ok(NativeQueue::new(hub, number, queue, true, &self.handles))
    }

    /// Subscribes with a queue of its own.
    #[napi]
    pub fn subscribe(
        &self,
        pattern: String,
        choices: SubscribeChoices,
    ) -> Result<NativeSubscription, Thrown> {
        let options = choices.options();
        let subscribed = self
            .client
            .with(|client| client.subscribe_with(pattern, options));
        let subscription = subscribed.map_err(thrown)?;
        Ok(NativeSubscription::new(subscription, &self.handles))
    }

    /// Subscribes with a queue that others may feed, too.
    #[napi]
    pub fn subscribe_into(
        &self,
        pattern: String,
        choices: SubscribeChoices,
        queue: &NativeQueue,
    ) -> Result<NativeSubscription, Thrown> {
        let queue = queue.queue().map_err(thrown)?;
        let options = fastmq::SubscribeOptions {
            queue: Some(&queue),
            ..choices.options()
        };
        let subscribed = self
            .client
            .with(|client| client.subscribe_with(pattern, options));
        let subscription = subscribed.map_err(thrown)?;
        Ok(NativeSubscription::new(subscription, &self.handles))
    }

    /// Opens a requester; without a subject each request names its own.
    #[napi]
    pub fn requester(
        &self,
        hub: &Hub,
        number: u32,
        subject: String,
        in_flight_max: u32,
    ) -> Result<NativeRequester, Thrown> {
        let open = |client: &mut Client| {
            NativeRequester::open(hub, number, client, &subject, in_flight_max, &self.handles)
        };
        self.client.with(open).map_err(thrown)
    }

    /// Answers a request with a payload, headers and a status.
    #[napi]
    pub fn reply_message(
        &self,
        token_low: u32,
        token_high: u32,
        payload: &[u8],
        headers: &[u8],
        status: u32,
    ) -> u32 {
        let token = wide(token_low, token_high);
        let status = Status::from_number(status).unwrap_or(Status::Internal);
        let replied =
            (self.client).with(|client| client.reply_with(token, status, payload, headers));
        told(&replied)
    }

    /// Answers several requests in order, up to the first answer that is refused; gives their
    /// number. `numbers` has three for each: its token in two halves, and its payload's size; the
    /// payloads are in `data`, one behind the other. Of a refusal `last_status` tells.
    #[napi]
    pub fn reply_batch(&self, data: &[u8], numbers: &[u32], count: u32) -> u32 {
        let mut rest = data;
        let mut done = 0;
        for answer in numbers.chunks_exact(3).take(count as usize) {
            let Some((payload, after)) = rest.split_at_checked(answer[2] as usize) else {
                failed(&Error::new(&Fault(
                    Status::Invalid,
                    "the answers end behind data",
                )));
                break;
            };
            rest = after;
            let token = wide(answer[0], answer[1]);
            if told(&self.client.with(|client| client.reply(token, payload))) != 0 {
                break;
            }
            done += 1;
        }
        done
    }

    /// Opens the reply stream of a request.
    #[napi]
    pub fn reply_stream(
        &self,
        token_low: u32,
        token_high: u32,
    ) -> Result<NativeReplyStream, Thrown> {
        let token = wide(token_low, token_high);
        let stream = self
            .client
            .with(|client| client.reply_stream(token))
            .map_err(thrown)?;
        Ok(NativeReplyStream::new(stream, &self.handles))
    }

    /// Has the loop watch the client's descriptor: from now on the waiter hears of room, and a
    /// polled client's connection is driven.
    #[napi]
    pub fn watch(&self, env: Env) -> Result<(), Thrown> {
        if self.watch.borrow().is_some() {
            return Ok(());
        }
        let client = self.client().map_err(thrown)?;
        let fd = client.fd().map_err(thrown)?;
        self.listeners.add(&self.listener);
        let listeners = self.listeners.clone();
        let on_readable = move || {
            let found = client.dispatch(0, 0);
            // Whoever waits for room of a client that was closed hears so when he tries.
            listeners.tell(*found.as_ref().unwrap_or(&ready::ROOM));
            found.is_ok()
        };
        match Watch::start(&env, fd, Box::new(on_readable)) {
            Some(watch) => {
                *self.watch.borrow_mut() = Some(watch);
                Ok(())
            }
            None => Err(thrown(Error::new(&Fault(
                Status::Io,
                "the event loop cannot watch the client's descriptor",
            )))),
        }
    }

    /// What the loop has found ready since the last call, as bits of `fastmq_ready`.
    #[napi]
    pub fn take_found(&self) -> u32 {
        self.listener.found.swap(0, Ordering::AcqRel)
    }

    /// Calls what is to be called now and says what else is ready; -status on failure.
    #[napi]
    pub fn dispatch(&self, message_max: u32, budget_ms: f64) -> i32 {
        match self
            .client
            .with(|client| client.dispatch(message_max, ns(budget_ms)))
        {
            Ok(bits) => {
                self.listeners.tell(bits);
                bits as i32
            }
            Err(error) => -(failed(&error) as i32),
        }
    }

    /// The client's descriptor.
    #[napi]
    pub fn fd(&self) -> Result<i32, Thrown> {
        self.client.with(|client| client.fd()).map_err(thrown)
    }

    /// Milliseconds until something times out.
    #[napi]
    pub fn next_deadline(&self) -> f64 {
        let next = self.client.with(|client| Ok(ms(client.next_deadline())));
        next.unwrap_or(f64::INFINITY)
    }

    /// Listens for other processes.
    #[napi]
    pub fn listen(
        &self,
        urls: Vec<String>,
        choices: ListenChoices,
    ) -> Result<NativeServer, Thrown> {
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let server = self
            .client
            .with(|client| client.listen(&urls, choices.options()));
        server.map(NativeServer::new).map_err(thrown)
    }

    /// Stops taking messages and waits until every queue is empty, on a thread that may wait.
    #[napi]
    pub fn drain(&self, timeout: f64) -> Result<AsyncTask<Draining>, Thrown> {
        let client = self.client().map_err(thrown)?;
        Ok(AsyncTask::new(Draining::new(client, ns(timeout))))
    }

    /// Ends the broker.
    #[napi]
    pub fn close(&self) {
        *self.watch.borrow_mut() = None;
        let _ = self.client.with(|client| {
            client.close();
            Ok(())
        });
    }

    /// The same on a thread that may wait.
    #[napi]
    pub fn close_later(&self) -> Result<AsyncTask<Closing>, Thrown> {
        *self.watch.borrow_mut() = None;
        let client = self.client().map_err(thrown)?;
        Ok(AsyncTask::new(Closing::new(client)))
    }

    /// Lets go of what a client that is closed still holds, and all its handles.
    #[napi]
    pub fn let_go(&self) {
        *self.figures.borrow_mut() = self.statistics();
        self.handles.let_go();
        self.number.end();
        self.client.let_go();
    }

    /// Lets other threads of this process attach to this client under the key that it gives.
    #[napi]
    pub fn share(&self) -> Result<u32, Thrown> {
        let client = self.client().map_err(thrown)?;
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        lock(&SHARED).insert(key, (client, self.listeners.clone()));
        Ok(key)
    }

    /// Ends what `share` began.
    #[napi]
    pub fn unshare(&self, key: u32) {
        lock(&SHARED).remove(&key);
    }

    /// What has happened to the connection since the last call.
    #[napi]
    pub fn take_events(&self) -> Vec<ToldEvent> {
        self.events
            .as_ref()
            .map(|events| events.take())
            .unwrap_or_default()
    }

    /// The figures of the client, in the order of `fastmq_client_statistics`.
    #[napi]
    pub fn statistics(&self) -> Vec<f64> {
        let Ok(of) = self.client.with(|client| Ok(client.statistics())) else {
            return self.figures.borrow().clone();
        };
        let wide = [
            of.published,
            of.delivered,
            of.dropped,
            of.expired,
            of.refused,
            of.requests,
            of.answers,
            of.late_answers,
            of.memory,
            of.memory_high,
            of.queues,
            of.subscriptions,
            of.clock_calls,
            of.locks,
            of.parks,
            of.wakes,
            of.last_values,
        ];
        let first = f64::from(of.threads);
        std::iter::once(first)
            .chain(wide.map(|figure| figure as f64))
            .collect()
    }
}

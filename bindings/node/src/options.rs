//! Options as JavaScript gives them, turned into those of the library.
//!
//! `lib/options.js` has checked their types and put the numbers of enums in. Times are in
//! milliseconds there and in nanoseconds in the library; `Infinity` is for ever.

use fastmq::{
    ConnectOptions, FOREVER_NS, GroupMode, ManyOptions, Options, PageOptions, Policy, Profile,
    QueueOptions, ServerOptions, Timestamps,
};
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

/// Milliseconds as nanoseconds; what is no time at all is 0.
#[inline(always)]
pub(crate) fn ns(ms: f64) -> u64 {
    if ms == f64::INFINITY {
        return FOREVER_NS;
    }
    // Saturates; a number that is no time was refused before.
    (ms * 1e6) as u64
}

/// Nanoseconds as milliseconds.
pub(crate) fn ms(ns: u64) -> f64 {
    if ns == FOREVER_NS {
        return f64::INFINITY;
    }
    ns as f64 / 1e6
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn profile(number: u32) -> Profile {
    match number {
        1 => Profile::Latency,
        2 => Profile::LowPower,
        3 => Profile::BusyPoll,
        _ => Profile::Balanced,
    }
}

pub(crate) fn policy(number: u32) -> Policy {
    match number {
        1 => Policy::DropOldest,
        2 => Policy::DropNewest,
        3 => Policy::Latest,
        _ => Policy::Backpressure,
    }
}

/// Options of a client.
#[napi(object)]
#[derive(Default)]
pub struct ClientChoices {
    /// Cap on bytes.
    pub memory_max: Option<f64>,
    /// Default capacity of a lane in bytes.
    pub queue_capacity: Option<f64>,
    /// Largest payload in bytes.
    pub payload_max: Option<f64>,
    /// How readers wait.
    pub wait: Option<u32>,
    /// How long close waits for callbacks, in milliseconds.
    pub close_timeout: Option<f64>,
    /// Where time stamps come from.
    pub timestamps: Option<u32>,
    /// Bits: touched, locked, in huge pages.
    pub memory: Option<u32>,
}

impl ClientChoices {
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::default();
        set(
            &mut options.memory_max,
            self.memory_max.map(|max| max as u64),
        );
        set(
            &mut options.queue_capacity,
            self.queue_capacity.map(|max| max as u64),
        );
        set(
            &mut options.payload_max,
            self.payload_max.map(|max| max as u64),
        );
        set(&mut options.wait, self.wait.map(profile));
        set(&mut options.close_timeout_ns, self.close_timeout.map(ns));
        options.timestamps = match self.timestamps {
            Some(1) => Timestamps::Clock,
            Some(2) => Timestamps::Tsc,
            _ => Timestamps::None,
        };
        let memory = self.memory.unwrap_or(0);
        options.memory = PageOptions {
            prefault: memory & 1 != 0,
            lock: memory & 2 != 0,
            huge: memory & 4 != 0,
        };
        options
    }
}

/// How a client connects.
#[napi(object)]
#[derive(Default)]
pub struct ConnectChoices {
    /// As of a client of a broker in this process.
    pub client: Option<ClientChoices>,
    /// What the client is called.
    pub name: Option<String>,
    /// The secret that the server asks for.
    pub token: Option<Buffer>,
    /// How long to wait for a connection, in milliseconds.
    pub connect_timeout: Option<f64>,
    /// How long subscribing waits for the server's answer, in milliseconds.
    pub operation_timeout: Option<f64>,
    /// Bytes of publishes that wait without a connection.
    pub store_max: Option<f64>,
    /// The shortest pause before servers are tried again, in milliseconds.
    pub backoff_min: Option<f64>,
    /// The longest.
    pub backoff_max: Option<f64>,
    /// Whether the loop of JavaScript drives the connection, and no thread of the library.
    pub polled: Option<bool>,
}

impl ConnectChoices {
    pub(crate) fn options(self) -> ConnectOptions {
        let mut options = ConnectOptions::default();
        if let Some(client) = self.client {
            options.broker = client.options();
        }
        set(&mut options.name, self.name);
        set(&mut options.token, self.token.map(|token| token.to_vec()));
        set(
            &mut options.connect_timeout_ns,
            self.connect_timeout.map(ns),
        );
        set(
            &mut options.operation_timeout_ns,
            self.operation_timeout.map(ns),
        );
        set(&mut options.store_max, self.store_max.map(|max| max as u64));
        set(&mut options.backoff_min_ns, self.backoff_min.map(ns));
        options.backoff_max_ns = options.backoff_max_ns.max(options.backoff_min_ns);
        set(&mut options.backoff_max_ns, self.backoff_max.map(ns));
        set(&mut options.polled, self.polled);
        options
    }
}

/// Options of a queue.
#[napi(object)]
#[derive(Default)]
pub struct QueueChoices {
    /// What happens when a lane is full.
    pub policy: Option<u32>,
    /// Bytes per lane at most.
    pub capacity: Option<f64>,
    /// How the reader waits.
    pub wait: Option<u32>,
}

impl QueueChoices {
    pub(crate) fn options(&self) -> QueueOptions {
        QueueOptions {
            policy: policy(self.policy.unwrap_or(0)),
            capacity: self.capacity.unwrap_or(0.0) as u64,
            wait: self.wait.map(profile),
        }
    }
}

/// Options of a subscription, but for its queue.
#[napi(object)]
#[derive(Default)]
pub struct SubscribeChoices {
    /// Members of a group share its messages.
    pub group: Option<String>,
    /// Whether they do so by key.
    pub is_key_shared: Option<bool>,
    /// This member's part.
    pub weight: Option<u32>,
    /// What happens when a queue of its own is full.
    pub policy: Option<u32>,
    /// Whether last values come first.
    pub replay_last: Option<bool>,
    /// Comes back with each message.
    pub tag: Option<f64>,
}

impl SubscribeChoices {
    pub(crate) fn options(&self) -> fastmq::SubscribeOptions<'_> {
        fastmq::SubscribeOptions {
            group: self.group.as_deref().unwrap_or("").as_bytes(),
            group_mode: match self.is_key_shared {
                Some(true) => GroupMode::KeyShared,
                _ => GroupMode::Balanced,
            },
            weight: self.weight.unwrap_or(0),
            policy: policy(self.policy.unwrap_or(0)),
            replay_last: self.replay_last.unwrap_or(false),
            tag: self.tag.unwrap_or(0.0) as u64,
            ..fastmq::SubscribeOptions::default()
        }
    }
}

/// What a request wants to which several answers may come.
#[napi(object)]
#[derive(Default)]
pub struct ManyChoices {
    /// How many responders' answers.
    pub answers_max: u32,
    /// Replies that a responder may stream before the first is taken.
    pub credit: u32,
    /// The longest time without a message, in milliseconds.
    pub gap: f64,
}

impl ManyChoices {
    pub(crate) fn options(&self) -> ManyOptions {
        ManyOptions {
            answers_max: self.answers_max,
            credit: self.credit,
            // JavaScript grants more as it takes them.
            is_manual: true,
            gap_ns: ns(self.gap),
        }
    }
}

/// How a broker listens.
#[napi(object)]
#[derive(Default)]
pub struct ListenChoices {
    /// What clients must know.
    pub token: Option<Buffer>,
    /// What the server is called.
    pub name: Option<String>,
    /// Whether it may listen beyond this machine.
    pub insecure: Option<bool>,
    /// Threads that serve connections.
    pub shards: Option<u32>,
    /// Connections at once.
    pub connections_max: Option<u32>,
    /// Subscriptions of one connection.
    pub subscriptions_max: Option<u32>,
    /// How its threads wait.
    pub wait: Option<u32>,
    /// Where else its clients may connect, with commas between them.
    pub servers: Option<String>,
}

impl ListenChoices {
    pub(crate) fn options(self) -> ServerOptions {
        let mut options = ServerOptions::default();
        set(&mut options.token, self.token.map(|token| token.to_vec()));
        set(&mut options.name, self.name);
        set(&mut options.servers, self.servers);
        set(&mut options.is_insecure_allowed, self.insecure);
        set(&mut options.shards, self.shards);
        set(&mut options.connections_max, self.connections_max);
        set(&mut options.subscriptions_max, self.subscriptions_max);
        set(&mut options.wait, self.wait.map(profile));
        options
    }
}

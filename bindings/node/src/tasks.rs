//! Calls that wait: they run on a thread of Node's pool, and JavaScript has a promise.
//!
//! What fails resolves to a [`Failure`], which JavaScript throws: a rejection would lose its code.

use std::sync::Arc;

use fastmq::{Client, ConnectOptions, Event, Options, Result, Server};
use napi::bindgen_prelude::Either;
use napi::{Env, Task};
use napi_derive::napi;

use crate::client::NativeClient;
use crate::error::Failure;
use crate::hub::{Hub, Notes, Waiter};
use crate::told::ToldEvent;

/// A client that has connected, on its way to the thread of JavaScript that asked for it.
#[napi]
pub struct NativeConnected {
    client: Option<Client>,
    events: Arc<Notes<ToldEvent>>,
}

#[napi]
impl NativeConnected {
    /// The client, once; its events ring for the waiter with this number.
    #[napi]
    pub fn client(&mut self, hub: &Hub, number: u32) -> Option<NativeClient> {
        let client = self.client.take()?;
        Some(NativeClient::first(
            hub,
            number,
            client,
            Some(self.events.clone()),
        ))
    }
}

/// Opening a broker that nobody needs: what the first one has to wait for.
pub struct Warming;

impl Task for Warming {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        // What fails here fails again where somebody hears of it.
        drop(Client::open(Options::default()));
        Ok(())
    }

    fn resolve(&mut self, _env: Env, _output: ()) -> napi::Result<()> {
        Ok(())
    }
}

/// Connecting to a server.
pub struct Connecting {
    urls: String,
    options: ConnectOptions,
    events: Arc<Notes<ToldEvent>>,
}

impl Connecting {
    pub(crate) fn new(hub: &Hub, number: u32, urls: String, mut options: ConnectOptions) -> Self {
        let events = Notes::new(Waiter::new(hub, number));
        let told = events.clone();
        options.on_event = Some(Arc::new(move |event: &Event<'_>| {
            if let Some(event) = ToldEvent::of(event) {
                told.add(event);
            }
        }));
        Self {
            urls,
            options,
            events,
        }
    }
}

impl Task for Connecting {
    type Output = Result<Client>;
    type JsValue = Either<NativeConnected, Failure>;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        Ok(Client::connect(&self.urls, self.options.clone()))
    }

    fn resolve(&mut self, _env: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(match output {
            Ok(client) => Either::A(NativeConnected {
                client: Some(client),
                events: self.events.clone(),
            }),
            Err(error) => Either::B(error.into()),
        })
    }
}

/// Draining a client.
pub struct Draining {
    client: Client,
    timeout_ns: u64,
}

impl Draining {
    pub(crate) fn new(client: Client, timeout_ns: u64) -> Self {
        Self { client, timeout_ns }
    }
}

impl Task for Draining {
    type Output = Result<()>;
    type JsValue = Option<Failure>;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        Ok(self.client.drain(self.timeout_ns))
    }

    fn resolve(&mut self, _env: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(output.err().map(Failure::from))
    }
}

/// Closing a client.
pub struct Closing {
    client: Client,
}

impl Closing {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Task for Closing {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        self.client.close();
        Ok(())
    }

    fn resolve(&mut self, _env: Env, _output: ()) -> napi::Result<()> {
        Ok(())
    }
}

/// Closing a server.
pub struct ServerClosing {
    server: Option<Server>,
    timeout_ns: u64,
}

impl ServerClosing {
    pub(crate) fn new(server: Option<Server>, timeout_ns: u64) -> Self {
        Self { server, timeout_ns }
    }
}

impl Task for ServerClosing {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        if let Some(server) = self.server.take() {
            server.close(self.timeout_ns);
        }
        Ok(())
    }

    fn resolve(&mut self, _env: Env, _output: ()) -> napi::Result<()> {
        Ok(())
    }
}

//! A broker that listens, as JavaScript holds it.

use fastmq::{Error, Fault, Server, ServerChanges, Status};
use napi::bindgen_prelude::{AsyncTask, Buffer};
use napi_derive::napi;

use crate::error::{Thrown, thrown};
use crate::options::ns;
use crate::tasks::ServerClosing;

/// A server; without one inside once it is closed.
#[napi]
pub struct NativeServer {
    server: Option<Server>,
    urls: Vec<String>,
}

impl NativeServer {
    pub(crate) fn new(server: Server) -> Self {
        Self {
            urls: server.urls(),
            server: Some(server),
        }
    }
}

#[napi]
impl NativeServer {
    /// Where it listens.
    #[napi]
    pub fn urls(&self) -> Vec<String> {
        self.urls.clone()
    }

    /// Takes over a token and a limit.
    #[napi]
    pub fn change(&self, token: Buffer, subscriptions_max: u32) -> Result<(), Thrown> {
        const CLOSED: Error = Error::new(&Fault(Status::Misuse, "the server is closed"));
        let server = self.server.as_ref().ok_or(thrown(CLOSED))?;
        let changes = ServerChanges {
            token: token.to_vec(),
            subscriptions_max,
        };
        server.change(&changes).map_err(thrown)
    }

    /// Closes it on a thread that may wait for its clients.
    #[napi]
    pub fn close_later(&mut self, timeout: f64) -> AsyncTask<ServerClosing> {
        AsyncTask::new(ServerClosing::new(self.server.take(), ns(timeout)))
    }

    /// Closes it at once.
    #[napi]
    pub fn close(&mut self) {
        if let Some(server) = self.server.take() {
            server.close(0);
        }
    }
}

//! A broker that other processes use.

use std::sync::{Arc, Mutex};

use fastmq::border::fork::is_forked_child;
use fastmq::{Server as EngineServer, ServerChanges};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::client::Client;
use crate::convert::nanoseconds;
use crate::errors::{Raise, check_process, raise_text};
use crate::lifetime::{Kept, lock};
use crate::options;

/// The server until it is closed, by itself or with its client.
pub(crate) type Slot = Arc<Mutex<Option<Kept<EngineServer>>>>;

/// Closes what is there; the caller lets the interpreter go.
pub(crate) fn close(slot: &Slot, timeout_ns: u64) {
    let server = lock(slot).take();
    if let Some(server) = server.and_then(Kept::take) {
        server.close(timeout_ns);
    }
}

#[doc = doc!("Server")]
#[pyclass(frozen, module = "fastmq")]
pub(crate) struct Server {
    slot: Slot,
    #[doc = doc!("Server.urls")]
    #[pyo3(get)]
    urls: Vec<String>,
    _client: Py<Client>,
}

impl Server {
    /// A server of the engine.
    pub(crate) fn new(client: Py<Client>, server: EngineServer) -> (Self, Slot) {
        let urls = server.urls();
        let slot: Slot = Arc::new(Mutex::new(Some(Kept::new(server))));
        let server = Self {
            slot: slot.clone(),
            urls,
            _client: client,
        };
        (server, slot)
    }
}

#[pymethods]
impl Server {
    #[doc = doc!("Server.change")]
    #[pyo3(signature = (**options))]
    fn change(&self, options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        check_process()?;
        let options = options::of_listener(options)?;
        let changes = ServerChanges {
            token: options.token,
            subscriptions_max: options.subscriptions_max,
        };
        match &*lock(&self.slot) {
            Some(server) => server.change(&changes).raised(),
            None => Err(raise_text(fastmq::Status::Closed, "the server is closed")),
        }
    }

    #[doc = doc!("Server.close")]
    #[pyo3(signature = (timeout = 0.0))]
    fn close(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let timeout_ns = nanoseconds("timeout", timeout)?;
        if !is_forked_child() {
            py.detach(|| close(&self.slot, timeout_ns));
        }
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py, 0.0)
    }

    fn __repr__(&self) -> String {
        format!("<fastmq.Server {}>", self.urls.join(","))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !is_forked_child() {
            Python::attach(|py| py.detach(|| close(&self.slot, 0)));
        }
    }
}

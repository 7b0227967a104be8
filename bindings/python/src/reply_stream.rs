//! A responder's stream of replies to one request.

use std::sync::{Mutex, TryLockError};

use fastmq::border::fork::is_forked_child;
use fastmq::{ReplyStream as EngineStream, Status};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::convert::{Payload, headers as headers_of, timeout_ns};
use crate::errors::{Raise, check_process, invalid, misuse, raise_text};
use crate::lifetime::Kept;
use crate::queue::wait;

#[doc = doc!("ReplyStream")]
#[pyclass(frozen, module = "fastmq")]
pub(crate) struct ReplyStream {
    stream: Mutex<Option<Kept<EngineStream>>>,
}

impl ReplyStream {
    /// A stream of the engine.
    pub(crate) fn new(stream: EngineStream) -> Self {
        Self {
            stream: Mutex::new(Some(Kept::new(stream))),
        }
    }

    fn with<R>(&self, body: impl FnOnce(&mut EngineStream) -> PyResult<R>) -> PyResult<R> {
        check_process()?;
        let mut guard = match self.stream.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(misuse(
                    "another call uses this stream; one thread at a time may",
                ));
            }
        };
        match guard.as_deref_mut() {
            Some(stream) => body(stream),
            None => Err(raise_text(Status::Closed, "the reply stream is closed")),
        }
    }
}

/// The status with this number.
pub(crate) fn status_of(number: u32) -> PyResult<Status> {
    let unknown = || invalid(&format!("status is {number}, which is no status"));
    Status::from_number(number).ok_or_else(unknown)
}

#[pymethods]
impl ReplyStream {
    #[doc = doc!("ReplyStream.send")]
    #[pyo3(signature = (payload, *, headers = None))]
    fn send(&self, payload: &Bound<'_, PyAny>, headers: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let (payload, headers) = (Payload::of(payload)?, headers_of(headers)?);
        self.with(|stream| stream.send(payload.bytes(), headers.as_bytes()).raised())
    }

    #[doc = doc!("ReplyStream.send_wait")]
    #[pyo3(signature = (payload, timeout = None, *, headers = None))]
    fn send_wait(
        &self,
        py: Python<'_>,
        payload: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (payload, headers) = (Payload::of(payload)?, headers_of(headers)?);
        let timeout_ns = timeout_ns(timeout)?;
        self.with(|stream| {
            wait(py, timeout_ns, |timeout_ns| match timeout_ns {
                0 => stream.send(payload.bytes(), headers.as_bytes()),
                _ => stream.send_wait(payload.bytes(), headers.as_bytes(), timeout_ns),
            })
        })
    }

    #[doc = doc!("ReplyStream.credit")]
    fn credit(&self) -> PyResult<u64> {
        self.with(|stream| stream.credit().raised())
    }

    #[doc = doc!("ReplyStream.end")]
    #[pyo3(signature = (status = 0))]
    fn end(&self, status: u32) -> PyResult<()> {
        let status = status_of(status)?;
        self.with(|stream| stream.end(status).raised())
    }

    #[doc = doc!("ReplyStream.close")]
    fn close(&self) -> PyResult<()> {
        if is_forked_child() {
            return Ok(());
        }
        let closed = match self.stream.try_lock() {
            Ok(mut guard) => guard.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
            Err(TryLockError::WouldBlock) => {
                return Err(misuse("another call uses this stream; close it afterwards"));
            }
        };
        drop(closed);
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close()
    }
}

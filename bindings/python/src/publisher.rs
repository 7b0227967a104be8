//! Publisher handles and their claims; the messages of a columnar batch.

use std::sync::{Arc, Mutex, TryLockError};

use fastmq::Publisher as EnginePublisher;
use fastmq::border::fork::is_forked_child;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMemoryView, PyTuple};

use crate::convert::{Keywords, Payload, Rows, accepted, timeout_ns};
use crate::errors::{Raise, check_process, misuse, raise_text};
use crate::lifetime::{Kept, lock};
use crate::queue::wait;
use crate::view::{self, ClaimView, Claiming, Shared};

#[doc = doc!("Publisher")]
#[pyclass(frozen, module = "fastmq")]
pub(crate) struct Publisher {
    shared: Shared,
}

impl Publisher {
    /// A publisher of the engine.
    pub(crate) fn new(publisher: EnginePublisher) -> Self {
        let claiming = Kept::new(Claiming::new(publisher));
        Self {
            shared: Arc::new(Mutex::new(Some(claiming))),
        }
    }
}

/// Runs `body` with the publisher, unless it is closed or somebody else uses it.
#[inline]
fn with<R>(shared: &Shared, body: impl FnOnce(&mut Claiming) -> PyResult<R>) -> PyResult<R> {
    check_process()?;
    let mut guard = match shared.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            return Err(misuse(
                "another call uses this publisher; one thread at a time may",
            ));
        }
    };
    match guard.as_deref_mut() {
        Some(claiming) => body(claiming),
        None => Err(raise_text(
            fastmq::Status::Closed,
            "the publisher is closed",
        )),
    }
}

#[pymethods]
impl Publisher {
    #[doc = doc!("Publisher.publish")]
    #[pyo3(signature = (
        payload, *, headers = None, key = None, reply_to = None, ttl = None, keep_last = false
    ))]
    fn publish(
        &self,
        payload: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        reply_to: Option<&Bound<'_, PyAny>>,
        ttl: Option<f64>,
        keep_last: bool,
    ) -> PyResult<()> {
        let more = Keywords {
            headers,
            key,
            reply_to,
            ttl,
            keep_last,
        };
        let payload = Payload::of(payload)?;
        if more.is_empty() {
            return with(&self.shared, |claiming| {
                claiming.publisher().publish(payload.bytes()).raised()
            });
        }
        let more = more.convert()?;
        with(&self.shared, |claiming| {
            let message = more.message(&[], payload.bytes());
            claiming.publisher().publish_message(&message).raised()
        })
    }

    #[doc = doc!("Publisher.publish_batch")]
    fn publish_batch(&self, py: Python<'_>, payloads: &Bound<'_, PyAny>) -> PyResult<usize> {
        let list = match payloads.cast::<PyList>() {
            Ok(list) => list.clone(),
            Err(_) => PyList::new(py, payloads.try_iter()?.collect::<PyResult<Vec<_>>>()?)?,
        };
        let objects: Vec<Bound<'_, PyAny>> = list.iter().collect();
        let borrowed: PyResult<Vec<Payload<'_>>> = objects.iter().map(Payload::of).collect();
        let borrowed = borrowed?;
        with(&self.shared, |claiming| {
            let payloads = borrowed.iter().map(Payload::bytes);
            let (count, refused) = claiming.publisher().publish_batch(payloads);
            accepted(count, refused)
        })
    }

    #[doc = doc!("Publisher.publish_columns")]
    fn publish_columns(
        &self,
        data: &Bound<'_, PyAny>,
        offsets: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let data = Payload::of(data)?;
        let rows = Rows::of("offsets", offsets, data.bytes())?;
        with(&self.shared, |claiming| {
            let (count, refused) = claiming.publisher().publish_batch(rows.iter());
            accepted(count, refused)
        })
    }

    #[doc = doc!("Publisher.publish_wait")]
    #[pyo3(signature = (payload, timeout = None))]
    fn publish_wait(
        &self,
        py: Python<'_>,
        payload: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let payload = Payload::of(payload)?;
        let timeout_ns = timeout_ns(timeout)?;
        with(&self.shared, |claiming| {
            let publisher = claiming.publisher();
            wait(py, timeout_ns, |timeout_ns| match timeout_ns {
                0 => publisher.publish(payload.bytes()),
                _ => publisher.publish_wait(payload.bytes(), timeout_ns),
            })
        })
    }

    #[doc = doc!("Publisher.claim")]
    fn claim(&self, size: usize) -> PyResult<Claim> {
        let number = with(&self.shared, |claiming| claiming.claim(size).raised())?;
        Ok(Claim {
            shared: self.shared.clone(),
            number,
            view: Mutex::new(None),
            is_held: Arc::default(),
        })
    }

    #[doc = doc!("Publisher.close")]
    fn close(&self) -> PyResult<()> {
        if is_forked_child() {
            return Ok(());
        }
        let mut shared = match self.shared.try_lock() {
            Ok(shared) => shared,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(misuse(
                    "another call uses this publisher; close it afterwards",
                ));
            }
        };
        if shared
            .as_ref()
            .is_some_and(|claiming| claiming.is_exported())
        {
            return Err(STILL_WRITTEN());
        }
        let closed = shared.take();
        drop(shared);
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

/// Somebody can still write to a claim.
const STILL_WRITTEN: fn() -> PyErr =
    || misuse("a slice or an array of the claim's view is still there; delete it first");

#[doc = doc!("Claim")]
#[pyclass(frozen, module = "fastmq")]
pub(crate) struct Claim {
    shared: Shared,
    number: u64,
    view: Mutex<Option<Py<PyMemoryView>>>,
    /// Gone with it, for its views to see.
    is_held: Arc<()>,
}

impl Claim {
    /// Ends the view that was given out; fails if somebody has made another one of it.
    fn end_view(&self, py: Python<'_>) -> PyResult<()> {
        let view = lock(&self.view).take();
        if let Some(view) = view {
            let _ = view.bind(py).call_method0("release");
        }
        with(&self.shared, |claiming| match claiming.is_exported() {
            true => Err(STILL_WRITTEN()),
            false => Ok(()),
        })
    }
}

impl Drop for Claim {
    /// One that is forgotten holds its publisher up until nobody can write to it.
    fn drop(&mut self) {
        if is_forked_child() {
            return;
        }
        drop(lock(&self.view).take());
        view::forget_claim(&self.shared, self.number);
    }
}

#[pymethods]
impl Claim {
    #[doc = doc!("Claim.view")]
    #[getter]
    fn view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        check_process()?;
        if let Some(view) = &*lock(&self.view) {
            return Ok(view.bind(py).clone());
        }
        let exporter = with(&self.shared, |claiming| {
            let is_held = Arc::downgrade(&self.is_held);
            let shared = self.shared.clone();
            Ok(ClaimView::new(shared, claiming, self.number, is_held))
        })?;
        let exporter = Bound::new(py, exporter)?;
        let view = PyMemoryView::from(exporter.as_any())?;
        *lock(&self.view) = Some(view.clone().unbind());
        Ok(view)
    }

    #[doc = doc!("Claim.commit")]
    fn commit(&self, py: Python<'_>, size: usize) -> PyResult<()> {
        self.end_view(py)?;
        with(&self.shared, |claiming| {
            if !claiming.is_open(self.number) {
                return Err(misuse("the publisher has no open claim"));
            }
            claiming.commit(size).raised()
        })
    }

    #[doc = doc!("Claim.abandon")]
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        if is_forked_child() {
            return Ok(());
        }
        match with(&self.shared, |claiming| Ok(claiming.is_open(self.number))) {
            // Closed, which has ended the claim.
            Err(error) if error.is_instance_of::<PyValueError>(py) => return Ok(()),
            Err(error) => return Err(error),
            Ok(false) => return Ok(()),
            Ok(true) => self.end_view(py)?,
        }
        with(&self.shared, |claiming| {
            claiming.abandon();
            Ok(())
        })
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.abandon(py)
    }
}

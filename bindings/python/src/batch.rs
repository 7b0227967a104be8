//! Batches: what a receive gave, read in place or as copies, row by row or by columns.
//!
//! A batch stays in the queue's memory until it is closed. A queue has one open batch; the next
//! receive copies out what is left open, unless `with` holds it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fastmq::View;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView};

use crate::errors::{check_process, misuse, raise};
use crate::lifetime::lock;
use crate::message::{LastSubject, Message};
use crate::view::{Column, Messages, PayloadView, Table};

/// What a batch and its queue both know.
#[derive(Debug)]
pub(crate) struct BatchState {
    /// `None`: closed. Never held while Python code could run.
    messages: Mutex<Option<Arc<Messages>>>,
    /// Inside `with`.
    is_held: AtomicBool,
}

impl BatchState {
    /// An open batch.
    pub(crate) fn new(messages: Messages) -> Arc<Self> {
        Arc::new(Self {
            messages: Mutex::new(Some(Arc::new(messages))),
            is_held: AtomicBool::new(false),
        })
    }

    fn open(&self) -> PyResult<Arc<Messages>> {
        match &*lock(&self.messages) {
            Some(messages) => Ok(messages.clone()),
            None => Err(misuse("the batch is closed")),
        }
    }

    /// Copies the messages out, so that the queue can be received from, unless `with` holds them
    /// or somebody looks at them.
    pub(crate) fn let_go(&self) -> PyResult<()> {
        if self.is_held.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut messages = lock(&self.messages);
        let copy = match messages.as_mut().map(Arc::get_mut) {
            Some(Some(Messages::InPlace(batch))) => batch.copy(),
            _ => return Ok(()),
        };
        let copy = copy.map_err(raise)?;
        *messages = Some(Arc::new(Messages::Detached(copy)));
        Ok(())
    }
}

#[doc = doc!("Batch")]
#[pyclass(frozen, sequence, module = "fastmq")]
pub(crate) struct Batch {
    state: Arc<BatchState>,
    count: usize,
    /// Views that were given out, which end with the batch.
    views: Mutex<Vec<Py<PyMemoryView>>>,
}

impl Batch {
    /// Shows messages.
    pub(crate) fn new(state: Arc<BatchState>) -> PyResult<Self> {
        let count = state.open()?.views().len();
        Ok(Self {
            state,
            count,
            views: Mutex::default(),
        })
    }

    fn index(&self, index: isize) -> PyResult<usize> {
        let count = self.count as isize;
        let at = if index < 0 { index + count } else { index };
        if (0..count).contains(&at) {
            return Ok(at as usize);
        }
        Err(PyIndexError::new_err("the batch has no such message"))
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.count
    }

    fn __getitem__(&self, py: Python<'_>, index: isize) -> PyResult<Message> {
        check_process()?;
        let messages = self.state.open()?;
        Ok(Message::one(py, &messages.views()[self.index(index)?]))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.messages(py)?.try_iter()?.into_any())
    }

    #[doc = doc!("Batch.messages")]
    fn messages<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        check_process()?;
        let messages = self.state.open()?;
        let mut subjects = LastSubject::default();
        let views = messages.views().iter();
        PyList::new(py, views.map(|view| Message::copy(py, view, &mut subjects)))
    }

    #[doc = doc!("Batch.payloads")]
    fn payloads<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        check_process()?;
        let messages = self.state.open()?;
        let views = messages.views().iter();
        PyList::new(py, views.map(|view| PyBytes::new(py, view.payload())))
    }

    #[doc = doc!("Batch.subjects")]
    fn subjects<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        check_process()?;
        let messages = self.state.open()?;
        let mut subjects = LastSubject::default();
        let views = messages.views().iter();
        PyList::new(py, views.map(|view| subjects.text(py, view.subject())))
    }

    #[doc = doc!("Batch.view")]
    fn view<'py>(&self, py: Python<'py>, index: isize) -> PyResult<Bound<'py, PyMemoryView>> {
        check_process()?;
        if !self.state.is_held.load(Ordering::Relaxed) {
            return Err(misuse(
                "payloads are read in place inside `with batch:`; elsewhere take messages",
            ));
        }
        let messages = self.state.open()?;
        let exporter = Bound::new(py, PayloadView::new(messages, self.index(index)?))?;
        let view = PyMemoryView::from(exporter.as_any())?;
        lock(&self.views).push(view.clone().unbind());
        Ok(view)
    }

    #[doc = doc!("Batch.columns")]
    fn columns(&self, py: Python<'_>) -> PyResult<Columns> {
        check_process()?;
        Columns::copy(py, self.state.open()?.views())
    }

    #[doc = doc!("Batch.received_ns")]
    #[getter]
    fn received_ns(&self) -> PyResult<u64> {
        check_process()?;
        Ok(self.state.open()?.received_ns())
    }

    #[doc = doc!("Batch.closed")]
    #[getter]
    fn closed(&self) -> bool {
        lock(&self.state.messages).is_none()
    }

    #[doc = doc!("Batch.close")]
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let views = std::mem::take(&mut *lock(&self.views));
        for view in views {
            // One that somebody has made another view of stays, and is seen below.
            let _ = view.bind(py).call_method0("release");
        }
        let messages = lock(&self.state.messages).take();
        self.state.is_held.store(false, Ordering::Relaxed);
        match messages.map(Arc::try_unwrap) {
            Some(Err(shared)) if matches!(*shared, Messages::InPlace(_)) => Err(misuse(
                "a slice or an array of a view of this batch is still there; the queue gets its \
                 room back when that is gone",
            )),
            // Dropped: that gives the room back and wakes whoever waits for it.
            _ => Ok(()),
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        check_process()?;
        slf.get().state.open()?;
        slf.get().state.is_held.store(true, Ordering::Relaxed);
        Ok(slf)
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        let closed = if self.closed() { ", closed" } else { "" };
        format!("<fastmq.Batch of {}{closed}>", self.count)
    }
}

#[doc = doc!("Columns")]
#[pyclass(frozen, module = "fastmq")]
pub(crate) struct Columns {
    count: usize,
    #[doc = doc!("Columns.data")]
    #[pyo3(get)]
    data: Py<PyMemoryView>,
    #[doc = doc!("Columns.offsets")]
    #[pyo3(get)]
    offsets: Py<PyMemoryView>,
    #[doc = doc!("Columns.subject_data")]
    #[pyo3(get)]
    subject_data: Py<PyMemoryView>,
    #[doc = doc!("Columns.subject_offsets")]
    #[pyo3(get)]
    subject_offsets: Py<PyMemoryView>,
    #[doc = doc!("Columns.tokens")]
    #[pyo3(get)]
    tokens: Py<PyMemoryView>,
    #[doc = doc!("Columns.tags")]
    #[pyo3(get)]
    tags: Py<PyMemoryView>,
    #[doc = doc!("Columns.sequences")]
    #[pyo3(get)]
    sequences: Py<PyMemoryView>,
    #[doc = doc!("Columns.timestamps_ns")]
    #[pyo3(get)]
    timestamps_ns: Py<PyMemoryView>,
    #[doc = doc!("Columns.statuses")]
    #[pyo3(get)]
    statuses: Py<PyMemoryView>,
    #[doc = doc!("Columns.subscription_ids")]
    #[pyo3(get)]
    subscription_ids: Py<PyMemoryView>,
}

/// Byte ranges, one after another, and where each begins and the last one ends.
struct Ranges {
    data: Vec<u8>,
    offsets: Vec<i64>,
}

impl Ranges {
    fn copy<'v>(views: &'v [View], field: impl Fn(&'v View) -> &'v [u8]) -> Self {
        let size = views.iter().map(|view| field(view).len()).sum();
        let mut ranges = Self {
            data: Vec::with_capacity(size),
            offsets: Vec::with_capacity(views.len() + 1),
        };
        ranges.offsets.push(0);
        for view in views {
            ranges.data.extend_from_slice(field(view));
            ranges.offsets.push(ranges.data.len() as i64);
        }
        ranges
    }
}

impl Columns {
    fn copy(py: Python<'_>, views: &[View]) -> PyResult<Self> {
        let shown = |column| {
            let table = Bound::new(py, Table::new(column))?;
            PyResult::Ok(PyMemoryView::from(table.as_any())?.unbind())
        };
        let large =
            |number: fn(&View) -> u64| shown(Column::Large(views.iter().map(number).collect()));
        let small =
            |number: fn(&View) -> u32| shown(Column::Small(views.iter().map(number).collect()));
        let payloads = Ranges::copy(views, View::payload);
        let subjects = Ranges::copy(views, View::subject);
        Ok(Self {
            count: views.len(),
            data: shown(Column::Bytes(payloads.data))?,
            offsets: shown(Column::Offsets(payloads.offsets))?,
            subject_data: shown(Column::Bytes(subjects.data))?,
            subject_offsets: shown(Column::Offsets(subjects.offsets))?,
            tokens: large(|view| view.token)?,
            tags: large(|view| view.tag)?,
            sequences: large(|view| view.sequence)?,
            timestamps_ns: large(|view| view.timestamp_ns)?,
            statuses: small(|view| view.status)?,
            subscription_ids: small(|view| view.subscription_id)?,
        })
    }
}

#[pymethods]
impl Columns {
    fn __len__(&self) -> usize {
        self.count
    }

    fn __repr__(&self) -> String {
        format!("<fastmq.Columns of {}>", self.count)
    }
}

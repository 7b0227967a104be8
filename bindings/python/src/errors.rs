//! Errors: a status and the engine's sentence become an exception of the status's class.
//!
//! The classes are Python's (`fastmq/_errors.py`), so that each can also be what the language
//! calls it: a `TimeoutError`, a `ConnectionError`.

use fastmq::border::fork::is_forked_child;
use fastmq::{Error, Fault, Status};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// The classes by number.
static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// The exception for a failure of the engine.
#[cold]
pub(crate) fn raise(error: Error) -> PyErr {
    raise_text(error.status(), error.text())
}

/// The exception for a status and a sentence.
#[cold]
pub(crate) fn raise_text(status: Status, text: &str) -> PyErr {
    Python::attach(|py| match exception(py, status, text) {
        Ok(error) | Err(error) => error,
    })
}

fn exception(py: Python<'_>, status: Status, text: &str) -> PyResult<PyErr> {
    let classes = CLASSES.get_or_try_init(py, || {
        let module = py.import("fastmq._errors")?;
        let classes = module.getattr("CLASSES")?.cast_into::<PyDict>()?;
        PyResult::Ok(classes.unbind())
    })?;
    let class = classes.bind(py).as_any().get_item(status as u32)?;
    Ok(PyErr::from_value(class.call1((text,))?))
}

/// INVALID with a sentence.
#[cold]
pub(crate) fn invalid(text: &str) -> PyErr {
    raise_text(Status::Invalid, text)
}

/// MISUSE with a sentence.
#[cold]
pub(crate) fn misuse(text: &str) -> PyErr {
    raise_text(Status::Misuse, text)
}

/// MISUSE in a forked child, before anything is touched.
#[inline(always)]
pub(crate) fn check_process() -> PyResult<()> {
    if is_forked_child() {
        return Err(misuse(
            "this is a forked child; its parent's handles can only be closed here",
        ));
    }
    Ok(())
}

/// Why a request ended without an answer: the sentence of its fate.
///
/// As the engine says it to who asks one at a time; a requester gets a number.
#[cold]
pub(crate) fn fate(status: u32, subject: &[u8]) -> PyErr {
    let status = Status::from_number(status).unwrap_or(Status::Internal);
    let fault = Fault(
        status,
        match status {
            Status::NoResponder => {
                let subject = String::from_utf8_lossy(subject);
                return raise_text(status, &format!("nobody answers {subject} now"));
            }
            Status::Busy => "the responder's queue is full; try again later",
            Status::Timeout => "the responder did not answer within the timeout",
            Status::Cancelled => "the responder went away before it answered",
            Status::Disconnected => {
                "the connection broke before an answer came; whether it was carried out is unknown"
            }
            Status::End => "whoever has not answered is gone",
            _ => "the request ended without an answer",
        },
    );
    raise_text(fault.0, fault.1)
}

/// As [`fate`], for the face for asyncio.
#[pyfunction]
pub(crate) fn _fate(py: Python<'_>, status: u32, subject: &[u8]) -> Py<PyAny> {
    fate(status, subject).into_value(py).into_any()
}

/// The failure of an engine's call, as an exception.
pub(crate) trait Raise<T> {
    /// As an exception.
    fn raised(self) -> PyResult<T>;
}

impl<T> Raise<T> for fastmq::Result<T> {
    #[inline(always)]
    fn raised(self) -> PyResult<T> {
        self.map_err(raise)
    }
}

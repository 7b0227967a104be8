//! What the engine calls: handlers of messages, of events, of the log. They run on its threads.
//!
//! An exception that leaves one goes to `sys.unraisablehook`, as nobody could catch it; a
//! `KeyboardInterrupt` goes to the main thread. A thread that comes when the interpreter is ending
//! finds nobody to call.

use fastmq::log::{self, Level};
use fastmq::{Event, OnEvent, OnMessage, Status, View};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::errors::{Raise, check_process};
use crate::message::{Message, constant, status};

/// Calls `handler` with a copy of each message.
pub(crate) fn on_message(handler: Py<PyAny>) -> Box<OnMessage> {
    Box::new(move |view: &View| {
        call(&handler, |py| handler.call1(py, (Message::one(py, view),)));
    })
}

/// Calls `handler` with each event.
pub(crate) fn on_event(handler: Py<PyAny>) -> Box<OnEvent> {
    Box::new(move |event: &Event<'_>| {
        let event = Happened::copy(event);
        call(&handler, |py| handler.call1(py, (event,)));
    })
}

fn call(handler: &Py<PyAny>, body: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>>) {
    // `None`: the interpreter is ending.
    Python::try_attach(|py| {
        let Err(error) = body(py) else { return };
        // Ctrl-C in a handler is meant for the program.
        let is_interrupt = error.is_instance_of::<PyKeyboardInterrupt>(py);
        if !is_interrupt || interrupt_main(py).is_err() {
            error.write_unraisable(py, Some(handler.bind(py)));
        }
    });
}

/// Has the main thread interrupted as soon as it runs Python code.
fn interrupt_main(py: Python<'_>) -> PyResult<()> {
    py.import("_thread")?.call_method0("interrupt_main")?;
    Ok(())
}

#[doc = doc!("Event")]
#[pyclass(frozen, name = "Event", module = "fastmq")]
#[derive(Default)]
pub(crate) struct Happened {
    kind: u32,
    flags: u32,
    status: u32,
    #[doc = doc!("Event.subscription_id")]
    #[pyo3(get)]
    subscription_id: u32,
    #[doc = doc!("Event.count")]
    #[pyo3(get)]
    count: u64,
    #[doc = doc!("Event.server")]
    #[pyo3(get)]
    server: String,
    #[doc = doc!("Event.subject")]
    #[pyo3(get)]
    subject: String,
    #[doc = doc!("Event.detail")]
    #[pyo3(get)]
    detail: String,
}

/// Numbers of the kinds in C.
mod kind {
    pub(super) const CONNECTED: u32 = 1;
    pub(super) const DISCONNECTED: u32 = 2;
    pub(super) const REFUSED: u32 = 3;
    pub(super) const UNSUBSCRIBED: u32 = 4;
    pub(super) const GAP: u32 = 5;
    pub(super) const SLOW: u32 = 6;
    pub(super) const DRAINING: u32 = 7;
    pub(super) const LIMIT: u32 = 8;
}

const AGAIN: u32 = 1;
const OTHER_INSTANCE: u32 = 2;

impl Happened {
    /// Copies an event.
    fn copy(event: &Event<'_>) -> Self {
        let of = |kind| Self {
            kind,
            ..Self::default()
        };
        let failed = |kind, status: Status, why: &str| Self {
            status: status as u32,
            detail: why.to_owned(),
            ..of(kind)
        };
        match *event {
            Event::Connected {
                server,
                is_again,
                is_other_instance,
                subscriptions,
            } => Self {
                flags: u32::from(is_again) * AGAIN + u32::from(is_other_instance) * OTHER_INSTANCE,
                count: subscriptions as u64,
                server: server.to_owned(),
                ..of(kind::CONNECTED)
            },
            Event::Disconnected {
                status,
                why,
                unsent,
            } => Self {
                count: unsent,
                ..failed(kind::DISCONNECTED, status, why)
            },
            Event::Refused {
                subject,
                status,
                why,
            } => Self {
                subject: String::from_utf8_lossy(subject).into_owned(),
                ..failed(kind::REFUSED, status, why)
            },
            Event::Unsubscribed {
                subscription,
                status,
                why,
            } => Self {
                subscription_id: subscription,
                ..failed(kind::UNSUBSCRIBED, status, why)
            },
            Event::Gap {
                subscription,
                messages,
            } => Self {
                subscription_id: subscription,
                count: messages,
                ..of(kind::GAP)
            },
            Event::Slow { bytes } => Self {
                count: bytes,
                ..of(kind::SLOW)
            },
            Event::Limit { why } => Self {
                detail: why.to_owned(),
                ..of(kind::LIMIT)
            },
            Event::Draining => of(kind::DRAINING),
            // Of a kind that this version of the binding does not know.
            _ => of(0),
        }
    }
}

#[pymethods]
impl Happened {
    #[doc = doc!("Event.kind")]
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static KIND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        constant(py, &KIND, "EventKind", self.kind)
    }

    #[doc = doc!("Event.flags")]
    #[getter]
    fn flags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static FLAG: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        constant(py, &FLAG, "EventFlag", self.flags)
    }

    #[doc = doc!("Event.status")]
    #[getter]
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        status(py, self.status)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Self { kind, count, .. } = self;
        let (server, subject, detail) = (&self.server, &self.subject, &self.detail);
        let name = self.kind(py)?.getattr("name");
        let kind = name.map_or_else(|_| kind.to_string(), |name| name.to_string());
        Ok(format!(
            "<fastmq.Event {kind}: {count} {server}{subject} {detail}>"
        ))
    }
}

/// Sets what gets the lines of the log; `None`: nobody.
#[pyfunction]
pub(crate) fn _set_log(py: Python<'_>, level: u32, on_log: Option<Py<PyAny>>) -> PyResult<()> {
    check_process()?;
    let Some(on_log) = on_log else {
        py.detach(|| log::set(0, None));
        return Ok(());
    };
    let hook = move |level: Level, target: &str, text: &str| {
        call(&on_log, |py| on_log.call1(py, (level as u32, target, text)));
    };
    let hook = log::hook(hook).raised()?;
    // Waits for nobody who needs the interpreter, but it drops the hook before.
    py.detach(|| log::set(level.min(Level::Debug as u32), Some(hook)));
    Ok(())
}

//! Queues and subscriptions: receiving, and waiting so that Ctrl-C ends it.

use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use fastmq::border::wait_any as wait_any_of;
use fastmq::{Error, FOREVER_NS, Fault, Queue as EngineQueue, Status, Subscription as Subscribed};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple};

use crate::alarm::Alarm;
use crate::batch::{Batch, BatchState};
use crate::client::Client;
use crate::convert::timeout_ns;
use crate::errors::{Raise, check_process, misuse, raise};
use crate::lifetime::{Kept, lock};
use crate::message::{KnownSubject, Message, text_of};
use crate::statistics;
use crate::view::{InPlace, Messages};

/// The longest wait between two looks at the signals that Python has got, in nanoseconds.
const SLICE_NS: u64 = 50_000_000;

/// A queue, and what of it is open in Python.
pub(crate) struct QueueState {
    queue: Kept<EngineQueue>,
    /// The batch that was received last.
    last: Mutex<Weak<BatchState>>,
    /// Wakes the event loop that waits for it.
    waker: Mutex<Option<Waker>>,
    /// The subject of the message that an iteration gave last.
    subject: KnownSubject,
}

impl QueueState {
    /// A queue of the engine.
    pub(crate) fn new(queue: EngineQueue) -> Arc<Self> {
        Arc::new(Self {
            queue: Kept::new(queue),
            last: Mutex::default(),
            waker: Mutex::default(),
            subject: KnownSubject::default(),
        })
    }

    /// The engine's queue.
    pub(crate) fn queue(&self) -> &EngineQueue {
        &self.queue
    }

    /// Copies out what the last batch still shows in place.
    pub(crate) fn settle(&self) -> PyResult<()> {
        let last = lock(&self.last).upgrade();
        last.map_or(Ok(()), |last| last.let_go())
    }

    /// The batch of what was received.
    pub(crate) fn opened(&self, received: InPlace) -> PyResult<Batch> {
        let state = BatchState::new(Messages::InPlace(received));
        *lock(&self.last) = Arc::downgrade(&state);
        Batch::new(state)
    }

    /// END is for a queue that was drained; one that was closed is CLOSED.
    #[cold]
    fn ended(&self, error: Error) -> Error {
        if error.status() == Status::End && self.queue.place().is_closed() {
            return Error::new(&Fault(Status::Closed, "the queue is closed"));
        }
        error
    }

    fn receive(&self, py: Python<'_>, message_max: u32, timeout_ns: u64) -> PyResult<Batch> {
        check_process()?;
        self.settle()?;
        let limit = message_max as usize;
        let look = |timeout_ns| {
            let received = InPlace::receive(&self.queue, limit, timeout_ns);
            received.map_err(|error| self.ended(error))
        };
        self.opened(wait(py, timeout_ns, look)?)
    }

    fn receive_now(&self, message_max: u32) -> PyResult<Option<Batch>> {
        check_process()?;
        self.settle()?;
        match InPlace::receive(&self.queue, message_max as usize, 0) {
            Ok(received) => self.opened(received).map(Some),
            Err(error) if error.status() == Status::Again => Ok(None),
            Err(error) => Err(raise(self.ended(error))),
        }
    }

    /// Has the loop told when there is something to receive; true: there is, now.
    pub(crate) fn poll_ready(&self, alarm: &Alarm, number: u64) -> PyResult<bool> {
        check_process()?;
        self.settle()?;
        let mut waker = lock(&self.waker);
        let waker = waker.get_or_insert_with(|| alarm.waker(number));
        let mut ready = std::pin::pin!(self.queue.ready());
        match ready.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => Err(raise(self.ended(error))),
        }
    }
}

/// Looks once with the interpreter held, then waits without it, so that other threads run, and
/// comes back now and then for signals.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    timeout_ns: u64,
    mut look: impl FnMut(u64) -> fastmq::Result<T> + Send,
) -> PyResult<T> {
    match look(0) {
        Err(error) if error.status() == Status::Again && timeout_ns > 0 => {}
        looked => return looked.raised(),
    }
    in_slices(py, timeout_ns, look)
}

/// Waits without the interpreter, and comes back now and then for signals.
pub(crate) fn in_slices<T: Send>(
    py: Python<'_>,
    timeout_ns: u64,
    mut look: impl FnMut(u64) -> fastmq::Result<T> + Send,
) -> PyResult<T> {
    let mut left_ns = timeout_ns;
    loop {
        py.check_signals()?;
        let next_ns = left_ns.min(SLICE_NS);
        match py.detach(|| look(next_ns)) {
            Err(error) if error.status() == Status::Timeout && left_ns > SLICE_NS => {}
            looked => return looked.raised(),
        }
        if timeout_ns != FOREVER_NS {
            left_ns -= next_ns;
        }
    }
}

#[doc = doc!("Queue")]
#[pyclass(frozen, module = "fastmq")]
pub(crate) struct Queue {
    pub(crate) state: Arc<QueueState>,
    /// The subscription that closes it, if it has one.
    is_lent: bool,
}

impl Queue {
    /// A queue of its own.
    pub(crate) fn new(queue: EngineQueue) -> Self {
        Self {
            state: QueueState::new(queue),
            is_lent: false,
        }
    }
}

#[pymethods]
impl Queue {
    #[doc = doc!("Queue.receive")]
    #[pyo3(signature = (message_max = 0, timeout = None))]
    fn receive(&self, py: Python<'_>, message_max: u32, timeout: Option<f64>) -> PyResult<Batch> {
        self.state.receive(py, message_max, timeout_ns(timeout)?)
    }

    #[pyo3(signature = (message_max = 0))]
    fn _receive_now(&self, message_max: u32) -> PyResult<Option<Batch>> {
        self.state.receive_now(message_max)
    }

    fn _poll_ready(&self, alarm: &Alarm, number: u64) -> PyResult<bool> {
        self.state.poll_ready(alarm, number)
    }

    #[doc = doc!("Queue.fd")]
    fn fd(&self) -> PyResult<i32> {
        check_process()?;
        self.state.queue.fd().raised()
    }

    #[doc = doc!("Queue.statistics")]
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        check_process()?;
        statistics::of_queue(py, self.state.queue())
    }

    #[doc = doc!("Queue.close")]
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if fastmq::border::fork::is_forked_child() {
            return Ok(());
        }
        if self.is_lent {
            return Err(misuse(
                "this queue belongs to a subscription; unsubscribe closes it",
            ));
        }
        py.detach(|| self.state.queue.close());
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        next(&self.state, py)
    }
}

/// The next message; `None` at the end: the queue or its client was closed or drained.
///
/// One at a time, so that an iterator that is abandoned has taken nothing that nobody saw.
fn next(state: &QueueState, py: Python<'_>) -> PyResult<Option<Message>> {
    check_process()?;
    state.settle()?;
    let queue = state.queue();
    let ended = |error: Error| match error.status() {
        Status::End | Status::Closed => Ok(None),
        _ => Err(error),
    };
    let received = match queue.receive(1, 0) {
        // What is there needs no handle of its own.
        Ok(batch) => {
            let message = Message::like(py, &batch.messages()[0], &state.subject);
            drop(batch);
            queue.place().finish(queue.client().broker());
            return Ok(Some(message));
        }
        Err(error) if error.status() == Status::Again => in_slices(py, FOREVER_NS, |timeout_ns| {
            InPlace::receive(queue, 1, timeout_ns).map_or_else(ended, |received| Ok(Some(received)))
        })?,
        Err(error) => ended(error).raised()?,
    };
    Ok(received.map(|received| Message::like(py, &received.messages()[0], &state.subject)))
}

#[doc = doc!("Subscription")]
#[pyclass(frozen, module = "fastmq")]
pub(crate) struct Subscription {
    subscription: Kept<Subscribed>,
    state: Option<Arc<QueueState>>,
    is_lent: bool,
    /// What it was made with, so that these live as long.
    _client: Py<Client>,
}

impl Subscription {
    /// A subscription of the engine; `queue` is the one that it was given.
    pub(crate) fn new(
        client: Py<Client>,
        subscription: Subscribed,
        queue: Option<Arc<QueueState>>,
    ) -> Self {
        let is_lent = queue.is_none();
        let own = || subscription.queue().cloned().map(QueueState::new);
        let state = queue.or_else(own);
        Self {
            subscription: Kept::new(subscription),
            state,
            is_lent,
            _client: client,
        }
    }

    fn state(&self) -> PyResult<&Arc<QueueState>> {
        self.state.as_ref().ok_or_else(|| {
            misuse("this subscription's messages go to its handler; it has no queue")
        })
    }
}

#[pymethods]
impl Subscription {
    #[doc = doc!("Subscription.id")]
    #[getter]
    fn id(&self) -> u32 {
        self.subscription.id()
    }

    #[doc = doc!("Subscription.pattern")]
    #[getter]
    fn pattern<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        text_of(py, self.subscription.pattern()).into_any()
    }

    #[doc = doc!("Subscription.queue")]
    #[getter]
    fn queue(&self) -> PyResult<Queue> {
        Ok(Queue {
            state: self.state()?.clone(),
            is_lent: self.is_lent,
        })
    }

    #[doc = doc!("Subscription.receive")]
    #[pyo3(signature = (message_max = 0, timeout = None))]
    fn receive(&self, py: Python<'_>, message_max: u32, timeout: Option<f64>) -> PyResult<Batch> {
        self.state()?.receive(py, message_max, timeout_ns(timeout)?)
    }

    #[pyo3(signature = (message_max = 0))]
    fn _receive_now(&self, message_max: u32) -> PyResult<Option<Batch>> {
        self.state()?.receive_now(message_max)
    }

    fn _poll_ready(&self, alarm: &Alarm, number: u64) -> PyResult<bool> {
        self.state()?.poll_ready(alarm, number)
    }

    #[doc = doc!("Subscription.statistics")]
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        check_process()?;
        statistics::of_subscription(py, &self.subscription)
    }

    #[doc = doc!("Subscription.unsubscribe")]
    fn unsubscribe(&self, py: Python<'_>) {
        if !fastmq::border::fork::is_forked_child() {
            // It waits for a running handler, which may need the interpreter.
            py.detach(|| self.subscription.unsubscribe());
        }
    }

    #[doc = doc!("Subscription.close")]
    fn close(&self, py: Python<'_>) {
        self.unsubscribe(py);
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) {
        self.unsubscribe(py);
    }

    fn __iter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().state()?;
        Ok(slf)
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        next(self.state()?, py)
    }

    fn __repr__(&self) -> String {
        let pattern = String::from_utf8_lossy(self.subscription.pattern()).into_owned();
        format!("<fastmq.Subscription {} to {pattern:?}>", self.id())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Unsubscribing waits for a running handler, which may need the interpreter.
        if !fastmq::border::fork::is_forked_child() {
            Python::attach(|py| py.detach(|| self.subscription.unsubscribe()));
        }
    }
}

#[doc = doc!("wait_any")]
#[pyfunction]
#[pyo3(signature = (queues, timeout = None))]
pub(crate) fn wait_any(
    py: Python<'_>,
    queues: Vec<Bound<'_, PyAny>>,
    timeout: Option<f64>,
) -> PyResult<usize> {
    check_process()?;
    let mut states = Vec::new();
    for queue in &queues {
        let state = match queue.cast::<Queue>() {
            Ok(queue) => queue.get().state.clone(),
            Err(_) => match queue.cast::<Subscription>() {
                Ok(subscription) => subscription.get().state()?.clone(),
                Err(_) => {
                    let wanted = "a Queue or a Subscription";
                    return Err(crate::convert::wrong_type("each of queues", wanted, queue));
                }
            },
        };
        state.settle()?;
        states.push(state);
    }
    let look = |timeout_ns| {
        wait_any_of(states.len(), timeout_ns, |index, look| {
            let state = &states[index];
            let broker = state.queue.client().broker();
            look(state.queue.place(), broker).map_err(|error| state.ended(error))
        })
    };
    wait(py, timeout_ns(timeout)?, look)
}

//! Requesters: many requests in flight from one thread.

use std::sync::{Arc, Mutex, TryLockError};

use fastmq::border::fork::is_forked_child;
use fastmq::{Client as EngineClient, ManyOptions, Queue, Requester as EngineRequester};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::alarm::Alarm;
use crate::batch::Batch;
use crate::convert::{
    Keywords, Payload, Rows, each_accepted, nanoseconds, one_of, optional_text, timeout_ns,
};
use crate::errors::{Raise, check_process, misuse, raise, raise_text};
use crate::lifetime::Kept;
use crate::queue::{QueueState, wait};
use crate::view::InPlace;

#[doc = doc!("Requester")]
#[pyclass(frozen, module = "fastmq")]
pub(crate) struct Requester {
    requester: Mutex<Option<Kept<EngineRequester>>>,
    /// Where its answers come.
    state: Arc<QueueState>,
}

impl Requester {
    /// A requester of the engine.
    pub(crate) fn new(client: &EngineClient, requester: EngineRequester) -> Self {
        let queue = Queue::new(client.clone(), requester.place().clone());
        Self {
            state: QueueState::new(queue),
            requester: Mutex::new(Some(Kept::new(requester))),
        }
    }

    /// Runs `body` with the requester, unless it is closed or somebody else uses it.
    #[inline]
    fn with<R>(&self, body: impl FnOnce(&mut EngineRequester) -> PyResult<R>) -> PyResult<R> {
        check_process()?;
        let mut guard = match self.requester.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(misuse(
                    "another call uses this requester; one thread at a time may",
                ));
            }
        };
        match guard.as_deref_mut() {
            Some(requester) => body(requester),
            None => Err(raise_text(
                fastmq::Status::Closed,
                "the requester is closed",
            )),
        }
    }
}

/// What a request for several answers wants, from keyword arguments.
pub(crate) fn many_options(
    answers_max: u32,
    credit: u32,
    credit_mode: u32,
    gap: Option<f64>,
) -> PyResult<ManyOptions> {
    Ok(ManyOptions {
        answers_max,
        credit,
        is_manual: one_of("credit_mode", credit_mode, &[false, true])?,
        gap_ns: gap.map_or(Ok(0), |gap| nanoseconds("gap", gap))?,
    })
}

#[pymethods]
impl Requester {
    #[doc = doc!("Requester.submit")]
    #[pyo3(signature = (
        payload, token, timeout = Some(5.0), *, subject = None, headers = None, key = None,
        ttl = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn submit(
        &self,
        payload: &Bound<'_, PyAny>,
        token: u64,
        timeout: Option<f64>,
        subject: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        ttl: Option<f64>,
    ) -> PyResult<()> {
        let more = keywords(headers, key, ttl);
        let (payload, timeout_ns) = (Payload::of(payload)?, timeout_ns(timeout)?);
        let subject = optional_text("subject", subject)?;
        if more.is_empty() {
            return self.with(|requester| {
                let submitted = match subject {
                    [] => requester.submit(payload.bytes(), token, timeout_ns),
                    subject => requester.submit_to(subject, payload.bytes(), token, timeout_ns),
                };
                submitted.raised()
            });
        }
        let more = more.convert()?;
        let message = more.message(subject, payload.bytes());
        self.with(|requester| {
            requester
                .submit_message(&message, token, timeout_ns)
                .raised()
        })
    }

    #[doc = doc!("Requester.submit_columns")]
    #[pyo3(signature = (data, offsets, first_token, timeout = Some(5.0)))]
    fn submit_columns(
        &self,
        data: &Bound<'_, PyAny>,
        offsets: &Bound<'_, PyAny>,
        first_token: u64,
        timeout: Option<f64>,
    ) -> PyResult<usize> {
        let data = Payload::of(data)?;
        let rows = Rows::of("offsets", offsets, data.bytes())?;
        let timeout_ns = timeout_ns(timeout)?;
        self.with(|requester| {
            let mut token = first_token;
            let submit = |row: &[u8]| {
                requester.submit(row, token, timeout_ns)?;
                token = token.wrapping_add(1);
                Ok(())
            };
            each_accepted(rows.iter(), submit)
        })
    }

    #[doc = doc!("Requester.submit_many")]
    #[pyo3(signature = (
        payload, token, timeout = Some(5.0), *, subject = None, answers_max = 1, credit = 0,
        credit_mode = 0, gap = None, headers = None, key = None, ttl = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn submit_many(
        &self,
        payload: &Bound<'_, PyAny>,
        token: u64,
        timeout: Option<f64>,
        subject: Option<&Bound<'_, PyAny>>,
        answers_max: u32,
        credit: u32,
        credit_mode: u32,
        gap: Option<f64>,
        headers: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        ttl: Option<f64>,
    ) -> PyResult<()> {
        let more = keywords(headers, key, ttl).convert()?;
        let (payload, timeout_ns) = (Payload::of(payload)?, timeout_ns(timeout)?);
        let options = many_options(answers_max, credit, credit_mode, gap)?;
        let message = more.message(optional_text("subject", subject)?, payload.bytes());
        self.with(|requester| {
            let submitted = requester.submit_many(&message, token, timeout_ns, &options);
            submitted.raised()
        })
    }

    #[doc = doc!("Requester.grant")]
    fn grant(&self, token: u64, replies: u32) -> PyResult<()> {
        self.with(|requester| requester.grant(token, replies).raised())
    }

    #[doc = doc!("Requester.receive")]
    #[pyo3(signature = (message_max = 0, timeout = None))]
    fn receive(&self, py: Python<'_>, message_max: u32, timeout: Option<f64>) -> PyResult<Batch> {
        let timeout_ns = timeout_ns(timeout)?;
        self.state.settle()?;
        let limit = message_max as usize;
        let received = self.with(|requester| {
            let queue = self.state.queue();
            wait(py, timeout_ns, |timeout_ns| {
                InPlace::receive_answers(requester, queue, limit, timeout_ns)
            })
        })?;
        self.state.opened(received)
    }

    #[pyo3(signature = (message_max = 0))]
    fn _receive_now(&self, message_max: u32) -> PyResult<Option<Batch>> {
        self.state.settle()?;
        let received = self.with(|requester| {
            let queue = self.state.queue();
            let limit = message_max as usize;
            match InPlace::receive_answers(requester, queue, limit, 0) {
                Ok(received) => Ok(Some(received)),
                Err(error) if error.status() == fastmq::Status::Again => Ok(None),
                Err(error) => Err(raise(error)),
            }
        })?;
        received
            .map(|received| self.state.opened(received))
            .transpose()
    }

    /// As `_receive_now`, waiting for a moment: at most `timeout` seconds.
    fn _receive_soon(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<Batch>> {
        let timeout_ns = nanoseconds("timeout", timeout)?;
        self.state.settle()?;
        let received = self.with(|requester| {
            let queue = self.state.queue();
            let look = || InPlace::receive_answers(requester, queue, usize::MAX, timeout_ns);
            match py.detach(look) {
                Ok(received) => Ok(Some(received)),
                Err(error) if error.status() == fastmq::Status::Timeout => {
                    // The loop sleeps elsewhere: somebody has to see to the connection.
                    queue.client().broker().hand_over();
                    Ok(None)
                }
                Err(error) => Err(raise(error)),
            }
        })?;
        received
            .map(|received| self.state.opened(received))
            .transpose()
    }

    fn _poll_ready(&self, alarm: &Alarm, number: u64) -> PyResult<bool> {
        self.state.poll_ready(alarm, number)
    }

    /// Seconds until the next request times out; `None`: none will.
    fn _next_deadline(&self) -> PyResult<Option<f64>> {
        self.with(|requester| {
            let left_ns = requester.next_deadline();
            Ok((left_ns != u64::MAX).then_some(left_ns as f64 / 1e9))
        })
    }

    #[doc = doc!("Requester.cancel")]
    fn cancel(&self, token: u64) -> PyResult<()> {
        self.with(|requester| requester.cancel(token).raised())
    }

    #[doc = doc!("Requester.in_flight")]
    fn in_flight(&self) -> PyResult<u32> {
        self.with(|requester| Ok(requester.in_flight()))
    }

    #[doc = doc!("Requester.fd")]
    fn fd(&self) -> PyResult<i32> {
        self.with(|_| self.state.queue().fd().raised())
    }

    #[doc = doc!("Requester.close")]
    fn close(&self) -> PyResult<()> {
        if is_forked_child() {
            return Ok(());
        }
        let closed = match self.requester.try_lock() {
            Ok(mut guard) => guard.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
            Err(TryLockError::WouldBlock) => {
                return Err(misuse(
                    "another call uses this requester; close it afterwards",
                ));
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

fn keywords<'a, 'py>(
    headers: Option<&'a Bound<'py, PyAny>>,
    key: Option<&'a Bound<'py, PyAny>>,
    ttl: Option<f64>,
) -> Keywords<'a, 'py> {
    Keywords {
        headers,
        key,
        reply_to: None,
        ttl,
        keep_last: false,
    }
}

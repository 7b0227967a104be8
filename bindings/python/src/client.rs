//! The client: a broker in this process, or one of a server in another.

use std::sync::Arc;

use fastmq::border::fork::is_forked_child;
use fastmq::{
    Client as EngineClient, Delivery, FOREVER_NS, GroupMode, Policy, QueueOptions,
    Requester as EngineRequester, RequesterOptions, Status, SubscribeOptions,
};
use pyo3::exceptions::PyResourceWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::convert::{
    Keywords, Payload, Rows, each_accepted, function, headers as headers_of, nanoseconds, numbers,
    one_of, optional_text, text, timeout_ns,
};
use crate::errors::{Raise, check_process, fate, invalid, misuse, raise_text};
use crate::lifetime::{Kept, Shared, enter, lock};
use crate::message::{Message, token_of};
use crate::publisher::Publisher;
use crate::queue::{Queue, Subscription, in_slices, wait};
use crate::reply_stream::{ReplyStream, status_of};
use crate::requester::{Requester, many_options};
use crate::server::Server;
use crate::view::Room;
use crate::{hooks, options, statistics};

const POLICIES: [Policy; 4] = [
    Policy::Backpressure,
    Policy::DropOldest,
    Policy::DropNewest,
    Policy::Latest,
];
const DELIVERIES: [Delivery; 4] = [
    Delivery::Queue,
    Delivery::Thread,
    Delivery::Dispatch,
    Delivery::Inline,
];
const GROUP_MODES: [GroupMode; 2] = [GroupMode::Balanced, GroupMode::KeyShared];

#[doc = doc!("Client")]
#[pyclass(frozen, weakref, module = "fastmq")]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

#[doc = doc!("open")]
#[pyfunction]
#[pyo3(signature = (**options))]
pub(crate) fn open(py: Python<'_>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Client> {
    check_process()?;
    let options = options::of_broker(options)?;
    Ok(Client::new(
        py.detach(|| EngineClient::open(options)).raised()?,
    ))
}

#[doc = doc!("connect")]
#[pyfunction]
#[pyo3(signature = (urls, **options))]
pub(crate) fn connect(
    py: Python<'_>,
    urls: &str,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Client> {
    check_process()?;
    let options = options::of_connection(options)?;
    let connected = py.detach(|| EngineClient::connect(urls, options));
    Ok(Client::new(connected.raised()?))
}

impl Client {
    fn new(client: EngineClient) -> Self {
        let shared = Arc::new(Shared::new(client));
        enter(&shared);
        Self { shared }
    }

    #[inline]
    fn engine(&self) -> PyResult<&EngineClient> {
        check_process()?;
        Ok(&self.shared.client)
    }

    /// Asks with a requester of the client that nobody else uses meanwhile, and gives what
    /// `receive` makes of it. One that fails may still have an answer under way, and is dropped.
    fn ask<R>(
        &self,
        submit: impl FnOnce(&mut EngineRequester) -> fastmq::Result<()>,
        receive: impl FnOnce(&mut EngineRequester) -> PyResult<R>,
    ) -> PyResult<R> {
        let engine = self.engine()?;
        let idle = lock(&self.shared.idle).pop();
        let mut requester = match idle {
            Some(requester) => requester,
            None => {
                let options = RequesterOptions {
                    in_flight_max: 1,
                    ..RequesterOptions::default()
                };
                Kept::new(engine.requester(options).raised()?)
            }
        };
        submit(&mut requester).raised()?;
        let received = receive(&mut requester)?;
        lock(&self.shared.idle).push(requester);
        Ok(received)
    }
}

#[pymethods]
impl Client {
    #[doc = doc!("Client.publish")]
    #[pyo3(signature = (
        subject, payload, *, headers = None, key = None, reply_to = None, ttl = None,
        keep_last = false
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn publish(
        &self,
        py: Python<'_>,
        subject: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        reply_to: Option<&Bound<'_, PyAny>>,
        ttl: Option<f64>,
        keep_last: bool,
    ) -> PyResult<()> {
        let engine = self.engine()?;
        let subject = text("subject", subject)?;
        let payload = Payload::of(payload)?;
        let more = Keywords {
            headers,
            key,
            reply_to,
            ttl,
            keep_last,
        };
        if more.is_empty() {
            return engine.publish(subject, payload.bytes()).raised();
        }
        let more = more.convert()?;
        let message = more.message(subject, payload.bytes());
        match keep_last {
            // It is copied under a lock.
            true => py.detach(|| engine.publish_message(&message)).raised(),
            false => engine.publish_message(&message).raised(),
        }
    }

    #[doc = doc!("Client.publish_wait")]
    #[pyo3(signature = (
        subject, payload, timeout = None, *, headers = None, key = None, reply_to = None,
        ttl = None, keep_last = false
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn publish_wait(
        &self,
        py: Python<'_>,
        subject: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        headers: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        reply_to: Option<&Bound<'_, PyAny>>,
        ttl: Option<f64>,
        keep_last: bool,
    ) -> PyResult<()> {
        let engine = self.engine()?;
        let subject = text("subject", subject)?;
        let payload = Payload::of(payload)?;
        let more = Keywords {
            headers,
            key,
            reply_to,
            ttl,
            keep_last,
        };
        let more = more.convert()?;
        let message = more.message(subject, payload.bytes());
        wait(py, timeout_ns(timeout)?, |timeout_ns| match timeout_ns {
            0 => engine.publish_message(&message),
            _ => engine.publish_wait(&message, timeout_ns),
        })
    }

    #[doc = doc!("Client.publish_batch")]
    fn publish_batch(&self, messages: &Bound<'_, PyAny>) -> PyResult<usize> {
        let engine = self.engine()?;
        let mut count = 0;
        for message in messages.try_iter()? {
            let (subject, payload): (Bound<'_, PyAny>, Bound<'_, PyAny>) = message?.extract()?;
            let (subject, payload) = (text("subject", &subject)?, Payload::of(&payload)?);
            match engine.publish(subject, payload.bytes()) {
                Ok(()) => count += 1,
                refused => return crate::convert::accepted(count, refused),
            }
        }
        Ok(count)
    }

    #[doc = doc!("Client.publish_columns")]
    fn publish_columns(
        &self,
        subject_data: &Bound<'_, PyAny>,
        subject_offsets: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offsets: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let engine = self.engine()?;
        let (data, subject_data) = (Payload::of(data)?, Payload::of(subject_data)?);
        let payloads = Rows::of("offsets", offsets, data.bytes())?;
        let subjects = Rows::of("subject_offsets", subject_offsets, subject_data.bytes())?;
        if payloads.len() != subjects.len() {
            let (payloads, subjects) = (payloads.len(), subjects.len());
            return Err(invalid(&format!(
                "there are {subjects} subjects for {payloads} payloads"
            )));
        }
        let rows = subjects.iter().zip(payloads.iter());
        each_accepted(rows, |(subject, payload)| engine.publish(subject, payload))
    }

    #[doc = doc!("Client.forget_last")]
    fn forget_last(&self, py: Python<'_>, subject: &Bound<'_, PyAny>) -> PyResult<()> {
        let (engine, subject) = (self.engine()?, text("subject", subject)?);
        py.detach(|| engine.forget_last(subject)).raised()
    }

    #[doc = doc!("Client.publisher")]
    fn publisher(&self, py: Python<'_>, subject: &Bound<'_, PyAny>) -> PyResult<Publisher> {
        let (engine, subject) = (self.engine()?, text("subject", subject)?);
        Ok(Publisher::new(
            py.detach(|| engine.publisher(subject)).raised()?,
        ))
    }

    #[doc = doc!("Client.queue")]
    #[pyo3(signature = (*, policy = 0, capacity = 0, wait = 0))]
    fn queue(&self, py: Python<'_>, policy: u32, capacity: u64, wait: u32) -> PyResult<Queue> {
        let engine = self.engine()?;
        let options = QueueOptions {
            policy: one_of("policy", policy, &POLICIES)?,
            capacity,
            wait: options::wait_of(wait)?,
        };
        Ok(Queue::new(py.detach(|| engine.queue(options)).raised()?))
    }

    #[doc = doc!("Client.subscribe")]
    #[pyo3(signature = (
        pattern, *, group = None, group_mode = 0, weight = 0, delivery = 0, queue = None,
        policy = 0, replay_last = false, tag = 0, on_message = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn subscribe(
        slf: Bound<'_, Self>,
        py: Python<'_>,
        pattern: &Bound<'_, PyAny>,
        group: Option<&Bound<'_, PyAny>>,
        group_mode: u32,
        weight: u32,
        delivery: u32,
        queue: Option<&Bound<'_, Queue>>,
        policy: u32,
        replay_last: bool,
        tag: u64,
        on_message: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Subscription> {
        let engine = slf.get().engine()?;
        if let Some(handler) = on_message {
            function("on_message", handler)?;
        }
        let state = queue.map(|queue| queue.get().state.clone());
        let is_foreign =
            |queue: &fastmq::Queue| queue.client().broker().id() != engine.broker().id();
        if state
            .as_ref()
            .is_some_and(|state| is_foreign(state.queue()))
        {
            return Err(invalid("queue belongs to another client"));
        }
        let pattern = text("pattern", pattern)?;
        let options = SubscribeOptions {
            group: optional_text("group", group)?,
            group_mode: one_of("group_mode", group_mode, &GROUP_MODES)?,
            weight,
            delivery: one_of("delivery", delivery, &DELIVERIES)?,
            queue: state.as_ref().map(|state| state.queue()),
            policy: one_of("policy", policy, &POLICIES)?,
            replay_last,
            tag,
            on_message: on_message.map(|handler| hooks::on_message(handler.clone().unbind())),
        };
        let subscribed = py
            .detach(|| engine.subscribe_with(pattern, options))
            .raised()?;
        Ok(Subscription::new(slf.clone().unbind(), subscribed, state))
    }

    #[doc = doc!("Client.request")]
    #[pyo3(signature = (
        subject, payload, timeout = Some(5.0), *, headers = None, key = None, ttl = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn request(
        &self,
        py: Python<'_>,
        subject: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        headers: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        ttl: Option<f64>,
    ) -> PyResult<Message> {
        let (subject, payload) = (text("subject", subject)?, Payload::of(payload)?);
        let timeout_ns = timeout_ns(timeout)?;
        let more = Keywords::of_request(headers, key, ttl).convert()?;
        let message = more.message(subject, payload.bytes());
        let token = 1;
        let receive = |requester: &mut EngineRequester| {
            let answered = wait(py, FOREVER_NS, |slice_ns| {
                let answers = requester.receive(1, slice_ns)?;
                Ok(answers.detach().ok_or(fastmq::Error::NO_MEMORY))
            })?;
            Ok(Message::one(py, &answered.raised()?.messages()[0]))
        };
        let submit =
            |requester: &mut EngineRequester| requester.submit_message(&message, token, timeout_ns);
        let answer = self.ask(submit, receive)?;
        if answer.is_bare_failure(py) {
            return Err(fate(answer.status_number(), subject));
        }
        Ok(answer)
    }

    #[doc = doc!("Client.request_into")]
    #[pyo3(signature = (
        subject, payload, into, timeout = Some(5.0), *, headers = None, key = None, ttl = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn request_into(
        &self,
        py: Python<'_>,
        subject: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
        into: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        headers: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        ttl: Option<f64>,
    ) -> PyResult<usize> {
        let room = Room::of(into)?;
        let answer = self.request(py, subject, payload, timeout, headers, key, ttl)?;
        match answer.status_number() {
            0 => room.put(answer.payload(py)),
            status => Err(raise_text(
                Status::from_number(status).unwrap_or(Status::Internal),
                "the responder answered with this status; `request` gives what it said",
            )),
        }
    }

    #[doc = doc!("Client.request_many")]
    #[pyo3(signature = (
        subject, payload, timeout = Some(5.0), *, answers_max = u32::MAX, gap = None,
        headers = None, key = None, ttl = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn request_many<'py>(
        &self,
        py: Python<'py>,
        subject: &Bound<'py, PyAny>,
        payload: &Bound<'py, PyAny>,
        timeout: Option<f64>,
        answers_max: u32,
        gap: Option<f64>,
        headers: Option<&Bound<'py, PyAny>>,
        key: Option<&Bound<'py, PyAny>>,
        ttl: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (subject, payload) = (text("subject", subject)?, Payload::of(payload)?);
        let timeout_ns = timeout_ns(timeout)?;
        let more = Keywords::of_request(headers, key, ttl).convert()?;
        let message = more.message(subject, payload.bytes());
        let wanted = many_options(answers_max, 0, 0, gap)?;
        let submit = |requester: &mut EngineRequester| {
            requester.submit_many(&message, 1, timeout_ns, &wanted)
        };
        let answers = self.ask(submit, |requester| {
            let mut answers: Vec<Message> = Vec::new();
            while !answers.last().is_some_and(Message::is_last) {
                let received = wait(py, FOREVER_NS, |slice_ns| {
                    let answers = requester.receive(usize::MAX, slice_ns)?;
                    Ok(answers.detach().ok_or(fastmq::Error::NO_MEMORY))
                })?;
                let received = received.raised()?;
                answers.extend(
                    received
                        .messages()
                        .iter()
                        .map(|view| Message::one(py, view)),
                );
            }
            Ok(answers)
        })?;
        match &*answers {
            [only] if only.is_of_library() => Err(fate(only.status_number(), subject)),
            _ => PyList::new(py, answers),
        }
    }

    #[doc = doc!("Client.reply")]
    #[pyo3(signature = (request, payload, *, status = 0, headers = None))]
    fn reply(
        &self,
        request: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
        status: u32,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (engine, token) = (self.engine()?, token_of(request)?);
        let payload = Payload::of(payload)?;
        if status == Status::Ok as u32 && headers.is_none() {
            return engine.reply(token, payload.bytes()).raised();
        }
        let (status, headers) = (status_of(status)?, headers_of(headers)?);
        engine
            .reply_with(token, status, payload.bytes(), headers.as_bytes())
            .raised()
    }

    #[doc = doc!("Client.reply_columns")]
    fn reply_columns(
        &self,
        tokens: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offsets: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let engine = self.engine()?;
        let (tokens, data) = (numbers("tokens", tokens)?, Payload::of(data)?);
        let rows = Rows::of("offsets", offsets, data.bytes())?;
        if rows.len() != tokens.len() {
            let (rows, tokens) = (rows.len(), tokens.len());
            return Err(invalid(&format!(
                "there are {tokens} tokens for {rows} payloads"
            )));
        }
        let rows = tokens.into_iter().zip(rows.iter());
        each_accepted(rows, |(token, payload)| engine.reply(token, payload))
    }

    #[doc = doc!("Client.reply_stream")]
    fn reply_stream(&self, request: &Bound<'_, PyAny>) -> PyResult<ReplyStream> {
        let (engine, token) = (self.engine()?, token_of(request)?);
        Ok(ReplyStream::new(engine.reply_stream(token).raised()?))
    }

    #[doc = doc!("Client.requester")]
    #[pyo3(signature = (subject = None, *, in_flight_max = 0, wait = 0))]
    fn requester(
        &self,
        py: Python<'_>,
        subject: Option<&Bound<'_, PyAny>>,
        in_flight_max: u32,
        wait: u32,
    ) -> PyResult<Requester> {
        let engine = self.engine()?;
        let options = RequesterOptions {
            in_flight_max,
            subject: optional_text("subject", subject)?,
            wait: options::wait_of(wait)?,
        };
        let requester = py.detach(|| engine.requester(options)).raised()?;
        Ok(Requester::new(engine, requester))
    }

    #[doc = doc!("Client.listen")]
    #[pyo3(signature = (urls = None, **options))]
    fn listen(
        slf: Bound<'_, Self>,
        py: Python<'_>,
        urls: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Server> {
        let client = slf.get();
        let (engine, options) = (client.engine()?, options::of_listener(options)?);
        if urls.is_none() && options.sockets.is_empty() {
            return Err(invalid("there are neither urls nor sockets to listen at"));
        }
        let urls: Vec<&str> = urls.map_or_else(Vec::new, |urls| urls.split(',').collect());
        let server = py.detach(|| engine.listen(&urls, options)).raised()?;
        let (server, slot) = Server::new(slf.clone().unbind(), server);
        let mut servers = lock(&client.shared.servers);
        servers.retain(|other| lock(other).is_some());
        servers.push(slot);
        drop(servers);
        Ok(server)
    }

    #[doc = doc!("Client.dispatch")]
    #[pyo3(signature = (message_max = 0, budget = 0.0))]
    fn dispatch(&self, py: Python<'_>, message_max: u32, budget: f64) -> PyResult<u32> {
        let (engine, budget_ns) = (self.engine()?, nanoseconds("budget", budget)?);
        py.detach(|| engine.dispatch(message_max, budget_ns))
            .raised()
    }

    #[doc = doc!("Client.fd")]
    fn fd(&self) -> PyResult<i32> {
        self.engine()?.fd().raised()
    }

    #[doc = doc!("Client.next_deadline")]
    fn next_deadline(&self) -> PyResult<Option<f64>> {
        let left_ns = self.engine()?.next_deadline();
        Ok((left_ns != FOREVER_NS).then_some(left_ns as f64 / 1e9))
    }

    #[doc = doc!("Client.statistics")]
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        statistics::of_client(py, self.engine()?)
    }

    #[doc = doc!("Client.drain")]
    #[pyo3(signature = (timeout = None))]
    fn drain(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let (engine, timeout_ns) = (self.engine()?, timeout_ns(timeout)?);
        // Asked again, it goes on where it was.
        in_slices(py, timeout_ns, |slice_ns| engine.drain(slice_ns))
    }

    #[doc = doc!("Client.closed")]
    #[getter]
    fn closed(&self) -> bool {
        self.shared.client.broker().is_closed()
    }

    #[doc = doc!("Client.close")]
    fn close(&self, py: Python<'_>) {
        if !is_forked_child() {
            py.detach(|| self.shared.close());
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().engine()?;
        Ok(slf)
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(misuse(
            "a client stays in its process; open or connect another one there",
        ))
    }
}

impl Drop for Client {
    /// A safety net, which warns.
    fn drop(&mut self) {
        if is_forked_child() || self.shared.client.broker().is_closed() {
            return;
        }
        Python::attach(|py| {
            // It may be dropped while an exception is on its way, which goes on afterwards.
            let pending = PyErr::take(py);
            let category = py.get_type::<PyResourceWarning>();
            let text = c"a fastmq.Client was not closed; use `with`, or call close()";
            if let Err(error) = PyErr::warn(py, &category, text, 1) {
                error.write_unraisable(py, None);
            }
            py.detach(|| self.shared.close());
            if let Some(pending) = pending {
                pending.restore(py);
            }
        });
    }
}

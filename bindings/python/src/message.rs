//! Messages: copies that outlive their batch.

use std::sync::Mutex;

use fastmq::{View, headers};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::convert::wrong_type;
use crate::errors::{Raise, invalid};
use crate::lifetime::lock;

const REDELIVERED: u32 = 1;
const MORE: u32 = 2;
const END: u32 = 4;
const REQUEST: u32 = 8;

#[doc = doc!("Message")]
#[pyclass(frozen, freelist = 512, module = "fastmq")]
pub(crate) struct Message {
    #[doc = doc!("Message.subject")]
    #[pyo3(get)]
    subject: Py<PyString>,
    #[doc = doc!("Message.payload")]
    #[pyo3(get)]
    payload: Py<PyBytes>,
    #[doc = doc!("Message.sequence")]
    #[pyo3(get)]
    sequence: u64,
    #[doc = doc!("Message.publisher")]
    #[pyo3(get)]
    publisher: u64,
    #[doc = doc!("Message.timestamp_ns")]
    #[pyo3(get)]
    timestamp_ns: u64,
    #[doc = doc!("Message.token")]
    #[pyo3(get)]
    pub(crate) token: u64,
    #[doc = doc!("Message.tag")]
    #[pyo3(get)]
    tag: u64,
    #[doc = doc!("Message.delivery_count")]
    #[pyo3(get)]
    delivery_count: u32,
    #[doc = doc!("Message.lost_before")]
    #[pyo3(get)]
    lost_before: u32,
    #[doc = doc!("Message.subscription_id")]
    #[pyo3(get)]
    subscription_id: u32,
    #[doc = doc!("Message.flags")]
    #[pyo3(get)]
    flags: u32,
    status: u32,
    /// What few messages have.
    rare: Option<Box<Rare>>,
}

struct Rare {
    reply_to: Box<[u8]>,
    key: Box<[u8]>,
    headers: Box<[u8]>,
}

/// The subject of the message before, which is often that of this one, too.
#[derive(Default)]
pub(crate) struct LastSubject<'v> {
    last: Option<(&'v [u8], Py<PyString>)>,
}

impl<'v> LastSubject<'v> {
    /// The subject as text.
    #[inline]
    pub(crate) fn text(&mut self, py: Python<'_>, subject: &'v [u8]) -> Py<PyString> {
        match &self.last {
            Some((bytes, text)) if *bytes == subject => text.clone_ref(py),
            _ => {
                let text = text_of(py, subject).unbind();
                self.last = Some((subject, text.clone_ref(py)));
                text
            }
        }
    }
}

/// The same across messages that are taken one by one.
#[derive(Default)]
pub(crate) struct KnownSubject(Mutex<Option<Py<PyString>>>);

impl KnownSubject {
    /// The subject as text.
    #[inline]
    fn text(&self, py: Python<'_>, subject: &[u8]) -> Py<PyString> {
        let known = lock(&self.0).as_ref().map(|text| text.clone_ref(py));
        if let Some(text) = known
            && text.to_str(py).is_ok_and(|text| text.as_bytes() == subject)
        {
            return text;
        }
        let text = text_of(py, subject).unbind();
        // What it replaces is dropped behind the lock.
        let before = lock(&self.0).replace(text.clone_ref(py));
        drop(before);
        text
    }
}

/// Text of the engine, which is UTF-8 wherever the engine has checked it.
pub(crate) fn text_of<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    PyString::new(py, &String::from_utf8_lossy(bytes))
}

/// The constant of a class in `fastmq._constants` with this number, or the number.
pub(crate) fn constant<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    class: &str,
    number: u32,
) -> PyResult<Bound<'py, PyAny>> {
    let class = cell.get_or_try_init(py, || {
        let module = py.import("fastmq._constants")?;
        PyResult::Ok(module.getattr(class)?.unbind())
    })?;
    match class.bind(py).call1((number,)) {
        Ok(constant) => Ok(constant),
        Err(_) => number.into_bound_py_any(py),
    }
}

/// The status with this number.
pub(crate) fn status(py: Python<'_>, number: u32) -> PyResult<Bound<'_, PyAny>> {
    static STATUS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    constant(py, &STATUS, "Status", number)
}

impl Message {
    /// Copies a view.
    #[inline]
    pub(crate) fn copy<'v>(py: Python<'_>, view: &'v View, subjects: &mut LastSubject<'v>) -> Self {
        Self::with_subject(py, view, subjects.text(py, view.subject()))
    }

    /// Copies one view, whose subject is often that of the one before.
    #[inline]
    pub(crate) fn like(py: Python<'_>, view: &View, subject: &KnownSubject) -> Self {
        Self::with_subject(py, view, subject.text(py, view.subject()))
    }

    #[inline]
    fn with_subject(py: Python<'_>, view: &View, subject: Py<PyString>) -> Self {
        let is_plain =
            view.reply_to().is_empty() && view.key().is_empty() && view.headers().is_empty();
        Self {
            subject,
            payload: PyBytes::new(py, view.payload()).unbind(),
            sequence: view.sequence,
            publisher: view.publisher,
            timestamp_ns: view.timestamp_ns,
            token: view.token,
            tag: view.tag,
            delivery_count: view.delivery_count,
            lost_before: view.lost_before,
            subscription_id: view.subscription_id,
            flags: view.flags,
            status: view.status,
            rare: (!is_plain).then(|| {
                Box::new(Rare {
                    reply_to: view.reply_to().into(),
                    key: view.key().into(),
                    headers: view.headers().into(),
                })
            }),
        }
    }

    /// Copies one view.
    pub(crate) fn one(py: Python<'_>, view: &View) -> Self {
        Self::copy(py, view, &mut LastSubject::default())
    }

    /// True for the last of several answers.
    pub(crate) fn is_last(&self) -> bool {
        self.flags & END != 0
    }

    /// True if no responder sent it, among several answers.
    pub(crate) fn is_of_library(&self) -> bool {
        self.subscription_id == 0
    }

    /// The payload.
    pub(crate) fn payload<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, PyBytes> {
        self.payload.bind(py)
    }

    /// The status as a number.
    pub(crate) fn status_number(&self) -> u32 {
        self.status
    }
}

#[pymethods]
impl Message {
    #[doc = doc!("Message.status")]
    #[getter]
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        status(py, self.status)
    }

    #[doc = doc!("Message.reply_to")]
    #[getter]
    fn reply_to<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        text_of(py, self.rare.as_ref().map_or(&[], |rare| &rare.reply_to))
    }

    #[doc = doc!("Message.key")]
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.rare.as_ref().map_or(&[], |rare| &rare.key))
    }

    #[doc = doc!("Message.headers")]
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let encoded: &[u8] = self.rare.as_ref().map_or(&[], |rare| &rare.headers);
        headers_list(py, encoded)
    }

    #[doc = doc!("Message.header")]
    fn header<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyBytes>> {
        let encoded: &[u8] = self.rare.as_ref().map_or(&[], |rare| &rare.headers);
        Ok(PyBytes::new(
            py,
            headers::get(encoded, name.as_bytes()).raised()?,
        ))
    }

    /// True for an answer that has a status other than OK and nothing else: the fate of a request.
    #[getter(_is_bare_failure)]
    pub(crate) fn is_bare_failure(&self, py: Python<'_>) -> bool {
        self.status != 0 && self.payload.bind(py).as_bytes().is_empty() && self.rare.is_none()
    }

    #[doc = doc!("Message.is_redelivered")]
    #[getter]
    fn is_redelivered(&self) -> bool {
        self.flags & REDELIVERED != 0
    }

    #[doc = doc!("Message.has_more")]
    #[getter]
    fn has_more(&self) -> bool {
        self.flags & MORE != 0
    }

    #[doc = doc!("Message.is_end")]
    #[getter]
    fn is_end(&self) -> bool {
        self.flags & END != 0
    }

    #[doc = doc!("Message.is_request")]
    #[getter]
    fn is_request(&self) -> bool {
        self.flags & REQUEST != 0
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.payload.bind(py).clone()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let subject = self.subject.bind(py).repr()?;
        let payload = self.payload.bind(py);
        let shown = PyBytes::new(py, &payload.as_bytes()[..payload.as_bytes().len().min(64)]);
        let (shown, size) = (shown.repr()?, payload.as_bytes().len());
        let rest = if size > 64 {
            format!(" and more, {size} bytes")
        } else {
            String::new()
        };
        Ok(format!("<fastmq.Message {subject}: {shown}{rest}>"))
    }
}

/// Encoded headers as pairs of name and value.
pub(crate) fn headers_list<'py>(py: Python<'py>, encoded: &[u8]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    let mut cursor = 0;
    while let Some((name, value, after)) = headers::next(encoded, cursor).raised()? {
        let Ok(name) = std::str::from_utf8(name) else {
            return Err(invalid("the header name is not UTF-8"));
        };
        list.append((name, PyBytes::new(py, value)))?;
        cursor = after;
    }
    Ok(list)
}

#[doc = doc!("encode_headers")]
#[pyfunction]
pub(crate) fn encode_headers<'py>(
    py: Python<'py>,
    headers: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let headers = crate::convert::headers(Some(headers))?;
    Ok(PyBytes::new(py, headers.as_bytes()))
}

#[doc = doc!("decode_headers")]
#[pyfunction]
pub(crate) fn decode_headers<'py>(
    py: Python<'py>,
    encoded: &Bound<'py, PyBytes>,
) -> PyResult<Bound<'py, PyList>> {
    headers_list(py, encoded.as_bytes())
}

/// The token of a request: a message's, or the number itself.
pub(crate) fn token_of(request: &Bound<'_, PyAny>) -> PyResult<u64> {
    let token = match request.cast::<Message>() {
        Ok(message) => message.get().token,
        Err(_) => match request.extract() {
            Ok(token) => token,
            Err(_) => return Err(wrong_type("request", "a Message or its token", request)),
        },
    };
    match token {
        0 => Err(invalid(
            "token is 0; the message to answer is not a request",
        )),
        token => Ok(token),
    }
}

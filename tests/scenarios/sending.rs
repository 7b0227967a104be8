//! What steps send, and how what comes is compared.

use fastmq::headers::{self, Headers};
use fastmq::{Message, Status};

use crate::step::{Failed, Pair, Step, decode, fails, show};

pub(crate) const MILLISECOND: u64 = 1_000_000;
pub(crate) const PATIENCE_MS: u64 = 20_000;

/// Why a step has not done what it should: the library's word, or the scenario's.
pub(crate) enum Refusal {
    Library(fastmq::Error),
    Scenario(Failed),
}

impl From<fastmq::Error> for Refusal {
    fn from(error: fastmq::Error) -> Self {
        Self::Library(error)
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        Self::Scenario(failed)
    }
}

pub(crate) fn same(what: &str, got: &[u8], expected: &[u8]) -> Result<(), Failed> {
    if got == expected {
        return Ok(());
    }
    fails(format!(
        "{what}: got {}, expected {}",
        show(got),
        show(expected)
    ))
}

pub(crate) fn same_numbers(step: &mut Step, figures: &[(&str, u64)]) -> Result<(), Failed> {
    for (name, value) in std::mem::take(&mut step.fields) {
        let Some((_, got)) = figures.iter().find(|(figure, _)| *figure == name) else {
            return fails(format!("unknown field {name}"));
        };
        same(&name, got.to_string().as_bytes(), &decode(&value)?)?;
    }
    Ok(())
}

/// By the name in C, without its prefix.
pub(crate) fn status(name: &str) -> Result<Status, Failed> {
    let mut all = (0..=50).filter_map(Status::from_number);
    let found = all.find(|status| name_of(*status) == name);
    found.ok_or_else(|| Failed(format!("unknown status {name}")))
}

/// The name in C of `NoResponder` is `NO_RESPONDER`, behind the prefix.
pub(crate) fn name_of(status: Status) -> String {
    let mut name = String::new();
    for letter in format!("{status:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The status that a step is to answer with.
pub(crate) fn said(step: &mut Step) -> Result<Status, Failed> {
    let name = step.take("status")?.unwrap_or_else(|| b"OK".to_vec());
    status(&text(name)?)
}

pub(crate) fn text(bytes: Vec<u8>) -> Result<String, Failed> {
    String::from_utf8(bytes).map_err(|_| Failed("no UTF-8".to_owned()))
}

/// The encoded headers among the fields of a step.
pub(crate) fn headers_of(step: &mut Step) -> Result<Headers, Refusal> {
    let mut headers = Headers::new();
    for (name, value) in step.prefixed("header.")? {
        headers.add(&name, &value)?;
    }
    Ok(headers)
}

/// What a step sends, owned; `message` borrows it.
pub(crate) struct Outgoing {
    subject: Vec<u8>,
    payload: Vec<u8>,
    headers: Headers,
    key: Vec<u8>,
    reply_to: Vec<u8>,
    ttl_ns: u64,
    keep_last: bool,
}

impl Outgoing {
    pub(crate) fn new(
        step: &mut Step,
        subject: Vec<u8>,
        payload: Vec<u8>,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            subject,
            payload,
            headers: headers_of(step)?,
            key: step.take("key")?.unwrap_or_default(),
            reply_to: step.take("reply_to")?.unwrap_or_default(),
            ttl_ns: step.number("ttl", 0)? * MILLISECOND,
            keep_last: step.number("keep_last", 0)? != 0,
        })
    }

    pub(crate) fn message(&self) -> Message<'_> {
        Message {
            subject: &self.subject,
            payload: &self.payload,
            reply_to: &self.reply_to,
            key: &self.key,
            headers: self.headers.as_bytes(),
            ttl_ns: self.ttl_ns,
            keep_last: self.keep_last,
        }
    }
}

pub(crate) fn timeout_ns(step: &mut Step) -> Result<u64, Failed> {
    Ok(step.number("timeout", PATIENCE_MS)? * MILLISECOND)
}

pub(crate) fn same_headers(encoded: &[u8], wanted: &[Pair]) -> Result<(), Failed> {
    let (mut cursor, mut got) = (0, Vec::new());
    while let Ok(Some((name, value, next))) = headers::next(encoded, cursor) {
        got.push((name.to_vec(), value.to_vec()));
        cursor = next;
    }
    let listed = |headers: &[Pair]| {
        let one = |(name, value): &Pair| [name, &b"="[..], value].concat();
        headers.iter().map(one).collect::<Vec<_>>().join(&b' ')
    };
    same("headers", &listed(&got), &listed(wanted))
}

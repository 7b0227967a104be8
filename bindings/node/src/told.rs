//! What the library tells by itself: events of connections, and lines of its log.

use std::sync::Arc;

use fastmq::{Event, log};
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

use crate::error::{Thrown, name_of, thrown};
use crate::hub::{Hub, Notes, Waiter};

/// What has happened to a connection; 0 and empty where the kind names no field.
#[napi(object)]
pub struct ToldEvent {
    /// What it is about, in camel case.
    pub kind: String,
    /// Not for the first time.
    pub is_again: bool,
    /// Another server than before.
    pub is_other_instance: bool,
    /// The C name of a status.
    pub code: String,
    /// Which subscription.
    pub subscription_id: u32,
    /// How many.
    pub count: f64,
    /// What the server is called.
    pub server: String,
    /// The subject of a message.
    pub subject: Buffer,
    /// Why, as a sentence.
    pub detail: String,
}

impl ToldEvent {
    fn new(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            is_again: false,
            is_other_instance: false,
            code: "FASTMQ_OK".to_owned(),
            subscription_id: 0,
            count: 0.0,
            server: String::new(),
            subject: Vec::new().into(),
            detail: String::new(),
        }
    }

    /// A copy of an event, if it is one that this version knows.
    pub(crate) fn of(event: &Event<'_>) -> Option<Self> {
        Some(match *event {
            Event::Connected {
                server,
                is_again,
                is_other_instance,
                subscriptions,
            } => Self {
                is_again,
                is_other_instance,
                count: subscriptions as f64,
                server: server.to_owned(),
                ..Self::new("connected")
            },
            Event::Disconnected {
                status,
                why,
                unsent,
            } => Self {
                code: name_of(status).to_owned(),
                count: unsent as f64,
                detail: why.to_owned(),
                ..Self::new("disconnected")
            },
            Event::Refused {
                subject,
                status,
                why,
            } => Self {
                code: name_of(status).to_owned(),
                subject: subject.to_vec().into(),
                detail: why.to_owned(),
                ..Self::new("refused")
            },
            Event::Unsubscribed {
                subscription,
                status,
                why,
            } => Self {
                code: name_of(status).to_owned(),
                subscription_id: subscription,
                detail: why.to_owned(),
                ..Self::new("unsubscribed")
            },
            Event::Gap {
                subscription,
                messages,
            } => Self {
                subscription_id: subscription,
                count: messages as f64,
                ..Self::new("gap")
            },
            Event::Slow { bytes } => Self {
                count: bytes as f64,
                ..Self::new("slow")
            },
            Event::Draining => Self::new("draining"),
            Event::Limit { why } => Self {
                detail: why.to_owned(),
                ..Self::new("limit")
            },
            _ => return None,
        })
    }
}

/// A line of the log.
#[napi(object)]
pub struct ToldLine {
    /// How important it is.
    pub level: u32,
    /// Which part of the library says it.
    pub target: String,
    /// What it says.
    pub text: String,
}

/// The log of the process, as one thread of JavaScript has it.
#[napi]
pub struct NativeLog {
    lines: Arc<Notes<ToldLine>>,
}

#[napi]
impl NativeLog {
    /// Takes the process's log over: lines up to `level` ring for the waiter with this number.
    #[napi(constructor)]
    pub fn new(hub: &Hub, number: u32, level: u32) -> Result<Self, Thrown> {
        let lines = Notes::new(Waiter::new(hub, number));
        let to = lines.clone();
        let hook = log::hook(move |level, target: &str, text: &str| {
            to.add(ToldLine {
                level: level as u32,
                target: target.to_owned(),
                text: text.to_owned(),
            });
        });
        log::set(level, Some(hook.map_err(thrown)?));
        Ok(Self { lines })
    }

    /// The lines since the last call.
    #[napi]
    pub fn take(&self) -> Vec<ToldLine> {
        self.lines.take()
    }
}

/// Gives the log back: nobody gets it.
#[napi]
pub fn clear_log() {
    log::set(0, None);
}

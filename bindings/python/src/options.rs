//! Options, as keyword arguments: those of a client, of a connection, of a listener, of threads.
//!
//! A keyword that is `None` or left out takes the engine's default, as 0 does in C.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fastmq::border::fork;
use fastmq::{
    ConnectOptions, Options, PageOptions, Profile, Scheduling, ServerOptions, ThreadOptions,
    Timestamps, set_up_thread, thread_name,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::convert::{function, nanoseconds, one_of, text, wrong_type};
use crate::errors::{Raise, check_process, invalid};
use crate::hooks;
use crate::view::duplicate;

const WAITS: [Profile; 4] = [
    Profile::Balanced,
    Profile::Latency,
    Profile::LowPower,
    Profile::BusyPoll,
];
const TIMESTAMPS: [Timestamps; 3] = [Timestamps::None, Timestamps::Clock, Timestamps::Tsc];
const SCHEDULINGS: [Scheduling; 4] = [
    Scheduling::Keep,
    Scheduling::Other,
    Scheduling::Fifo,
    Scheduling::RoundRobin,
];
const PREFAULT: u32 = 1;
const LOCK: u32 = 2;
const HUGE_PAGES: u32 = 4;

/// How a queue waits; 0: as the client.
pub(crate) fn wait_of(number: u32) -> PyResult<Option<Profile>> {
    let profile = one_of("wait", number, &WAITS)?;
    Ok((number != 0).then_some(profile))
}

/// Hands each keyword that is set to `set`, which says whether there is such a one.
fn each(
    function: &str,
    keywords: Option<&Bound<'_, PyDict>>,
    mut set: impl FnMut(&str, &Bound<'_, PyAny>) -> PyResult<bool>,
) -> PyResult<()> {
    for (name, value) in keywords.into_iter().flatten() {
        let name = name.cast::<PyString>()?.to_str()?.to_owned();
        if !value.is_none() && !set(&name, &value)? {
            return Err(PyTypeError::new_err(format!(
                "{function}() got an unexpected keyword argument '{name}'"
            )));
        }
    }
    Ok(())
}

/// A number that is 0 for the default.
fn number(field: &mut u64, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match value.extract()? {
        0 => {}
        wanted => *field = wanted,
    }
    Ok(())
}

fn small(field: &mut u32, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match value.extract()? {
        0 => {}
        wanted => *field = wanted,
    }
    Ok(())
}

fn seconds(field: &mut u64, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match nanoseconds(name, value.extract()?)? {
        0 => {}
        wanted => *field = wanted,
    }
    Ok(())
}

/// Text of an option.
fn owned(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let bytes = text(name, value)?.to_vec();
    String::from_utf8(bytes).map_err(|_| invalid(&format!("{name} is not UTF-8")))
}

/// Sets an option that all clients have.
fn set_option(options: &mut Options, name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match name {
        "memory_max" => number(&mut options.memory_max, value)?,
        "queue_capacity" => number(&mut options.queue_capacity, value)?,
        "payload_max" => number(&mut options.payload_max, value)?,
        "wait" => options.wait = one_of("wait", value.extract()?, &WAITS)?,
        "threads_max" => small(&mut options.threads_max, value)?,
        "close_timeout" => seconds(&mut options.close_timeout_ns, name, value)?,
        "threads" => options.threads = threads(name, value)?,
        "timestamps" => options.timestamps = one_of(name, value.extract()?, &TIMESTAMPS)?,
        "memory" => options.memory = memory(value.extract()?)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn memory(bits: u32) -> PyResult<PageOptions> {
    let known = PREFAULT | LOCK | HUGE_PAGES;
    if bits & !known != 0 {
        return Err(invalid(&format!(
            "memory is {bits:#x}; this version knows {known:#x}"
        )));
    }
    Ok(PageOptions {
        lock: bits & LOCK != 0,
        prefault: bits & PREFAULT != 0,
        huge: bits & HUGE_PAGES != 0,
    })
}

/// What a `fastmq.ThreadOptions` says.
fn threads(option: &str, value: &Bound<'_, PyAny>) -> PyResult<ThreadOptions> {
    let Ok(name) = value.getattr("name") else {
        return Err(wrong_type(option, "a ThreadOptions", value));
    };
    Ok(ThreadOptions {
        name: thread_name(text("name", &name)?).raised()?,
        cores: value.getattr("cores")?.extract()?,
        scheduling: one_of(
            "scheduling",
            value.getattr("scheduling")?.extract()?,
            &SCHEDULINGS,
        )?,
        priority: value.getattr("priority")?.extract()?,
    })
}

/// The options of a broker in this process.
pub(crate) fn of_broker(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Options> {
    let mut options = Options::default();
    each("open", keywords, |name, value| {
        set_option(&mut options, name, value)
    })?;
    Ok(options)
}

/// The options of a connection.
pub(crate) fn of_connection(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<ConnectOptions> {
    let mut options = ConnectOptions::default();
    let (mut is_later, mut is_unconfirmed) = (false, false);
    let mut backoff_max_ns = 0;
    each("connect", keywords, |name, value| {
        match name {
            "name" => options.name = owned(name, value)?,
            "token" => options.token = text(name, value)?.to_vec(),
            "connect_timeout" => seconds(&mut options.connect_timeout_ns, name, value)?,
            "operation_timeout" => seconds(&mut options.operation_timeout_ns, name, value)?,
            "store_max" => number(&mut options.store_max, value)?,
            "backoff_min" => seconds(&mut options.backoff_min_ns, name, value)?,
            "backoff_max" => seconds(&mut backoff_max_ns, name, value)?,
            "later" => is_later = value.extract()?,
            "unconfirmed" => is_unconfirmed = value.extract()?,
            "polled" => options.polled = value.extract()?,
            "on_event" => {
                function(name, value)?;
                options.on_event = Some(hooks::on_event(value.clone().unbind()).into());
            }
            _ => return set_option(&mut options.broker, name, value),
        }
        Ok(true)
    })?;
    options.backoff_max_ns = match backoff_max_ns {
        0 => options.backoff_max_ns.max(options.backoff_min_ns),
        wanted => wanted,
    };
    if is_later {
        options.connect_timeout_ns = 0;
    }
    if is_unconfirmed {
        options.operation_timeout_ns = 0;
    }
    Ok(options)
}

/// Duplicates of sockets that listen: numbers, or what has `fileno()`.
fn sockets(value: &Bound<'_, PyAny>) -> PyResult<Vec<Arc<OwnedFd>>> {
    let each = value.try_iter()?.map(|socket| {
        let socket = socket?;
        let number = match socket.extract::<i32>() {
            Ok(number) => number,
            Err(_) => match socket.call_method0("fileno") {
                Ok(number) => number.extract()?,
                Err(_) => return Err(wrong_type("each of sockets", "a socket", &socket)),
            },
        };
        Ok(Arc::new(duplicate(number)?))
    });
    each.collect()
}

/// The options of a listener.
pub(crate) fn of_listener(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<ServerOptions> {
    let mut options = ServerOptions::default();
    each("listen", keywords, |name, value| {
        match name {
            "token" => options.token = text(name, value)?.to_vec(),
            "name" => options.name = owned(name, value)?,
            "insecure" => options.is_insecure_allowed = value.extract()?,
            "connections_max" => small(&mut options.connections_max, value)?,
            "subscriptions_max" => small(&mut options.subscriptions_max, value)?,
            "wait" => options.wait = one_of("wait", value.extract()?, &WAITS)?,
            "shards" => small(&mut options.shards, value)?,
            "thread" => options.thread = threads(name, value)?,
            "sockets" => options.sockets = sockets(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

#[doc = doc!("thread_setup")]
#[pyfunction]
#[pyo3(signature = (options = None))]
pub(crate) fn thread_setup(options: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    check_process()?;
    fork::arm();
    let options = options.map_or_else(
        || Ok(ThreadOptions::default()),
        |options| threads("options", options),
    )?;
    set_up_thread(&options).raised()
}

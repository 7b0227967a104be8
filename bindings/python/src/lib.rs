//! FAST MQ for Python: the extension module `fastmq._fastmq`.
//!
//! It translates types, errors, lifetimes and waiting, and owns nothing else: each call is one call
//! into the crate `fastmq`. What users see is documented in `python/fastmq/_fastmq.pyi`.
//!
//! Two rules about the interpreter. Whatever may wait lets it go, and so does whatever may wait for
//! somebody who needs it: subscribing, closing, dispatching. What does not wait keeps it. And no
//! lock of this crate is held while Python code could run.

#![cfg_attr(not(doc), deny(unsafe_code))]

/// What the stub says about a name, cut out by `build.rs`: `help` shows it, too.
macro_rules! doc {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name))
    };
}

mod alarm;
mod batch;
mod client;
mod convert;
mod errors;
mod hooks;
mod lifetime;
mod message;
mod options;
mod publisher;
mod queue;
mod reply_stream;
mod requester;
mod server;
mod statistics;
#[allow(unsafe_code)]
mod view;

use pyo3::prelude::*;

/// Hands out memory that was taken for what cannot be refused, as in the C library.
#[global_allocator]
static ALLOCATOR: fastmq::border::Allocator = fastmq::border::Allocator::new();

#[doc = doc!("abi")]
#[pyfunction]
fn abi() -> u32 {
    fastmq::ABI
}

#[doc = doc!("status_text")]
#[pyfunction]
fn status_text(status: u32) -> String {
    let status = fastmq::Status::from_number(status);
    status.map_or_else(
        || String::from("no status has this number"),
        |status| status.c_text().to_string_lossy().into_owned(),
    )
}

#[pymodule]
mod _fastmq {
    #[pymodule_export]
    use super::{abi, status_text};
    #[pymodule_export]
    use crate::alarm::Alarm;
    #[pymodule_export]
    use crate::batch::{Batch, Columns};
    #[pymodule_export]
    use crate::client::{Client, connect, open};
    #[pymodule_export]
    use crate::errors::_fate;
    #[pymodule_export]
    use crate::hooks::{_set_log, Happened};
    #[pymodule_export]
    use crate::lifetime::_close_all;
    #[pymodule_export]
    use crate::message::{Message, decode_headers, encode_headers};
    #[pymodule_export]
    use crate::options::thread_setup;
    #[pymodule_export]
    use crate::publisher::{Claim, Publisher};
    #[pymodule_export]
    use crate::queue::{Queue, Subscription, wait_any};
    #[pymodule_export]
    use crate::reply_stream::ReplyStream;
    #[pymodule_export]
    use crate::requester::Requester;
    #[pymodule_export]
    use crate::server::Server;

    use pyo3::exceptions::PyImportError;
    use pyo3::prelude::*;

    use crate::view::is_main_interpreter;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Threads of the library come to the first interpreter of a process and no other.
        if !is_main_interpreter(module.py()) {
            return Err(PyImportError::new_err(
                "fastmq works in the main interpreter of a process, not in a subinterpreter",
            ));
        }
        module.add("VERSION", fastmq::VERSION)
    }
}

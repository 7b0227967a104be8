//! The client's handle: open, drain, close.

use std::sync::atomic::{AtomicU64, Ordering};

use fastmq::border::{Broker, ThreadClient, with_thread_client};
use fastmq::{Client, Error, Result};

use crate::bytes::Out;
use crate::error::{boundary, closing, quiet_panics};
use crate::handle::{self, Hold, Kind, Object, Table, find, kind};
use crate::options::{fastmq_options, read_or_default};
use crate::server;
use crate::status::fastmq_status;

/// A broker in this process (fastmq_open), or one of a server in another (fastmq_connect). Used
/// from any thread at the same time.
pub struct fastmq_client;

static CLIENTS: Table<Client> = Table::new();

/// The broker's id, so that a warm publish touches no reference count.
#[derive(Default)]
pub(crate) struct BrokerId(AtomicU64);

impl Hold for BrokerId {}

impl Object for Client {
    const KIND: Kind = kind!(1, "client");
    type Beside = BrokerId;
    fn table() -> &'static Table<Self> {
        &CLIENTS
    }
}

/// The client of a handle.
pub(crate) fn client_of(client: *const fastmq_client) -> Result<Client> {
    let number = handle::number(client);
    find::<Client>(number)?.look(number, Client::clone)
}

/// Runs `body` with this thread's part of the client.
#[inline(always)]
pub(crate) fn here<R>(
    client: *const fastmq_client,
    body: impl FnOnce(&ThreadClient) -> Result<R>,
) -> Result<R> {
    let number = handle::number(client);
    let slot = find::<Client>(number)?;
    let id = slot.beside.0.load(Ordering::Relaxed);
    let find = || slot.look(number, |client| client.broker().clone()).ok();
    with_thread_client(id, find, body)?
}

/// CLOSED if the client that a handle belongs to was closed.
pub(crate) fn check_parent(client: &Client) -> Result<()> {
    if client.broker().is_closed() {
        Err(Error::CLOSED)
    } else {
        Ok(())
    }
}

/// The handle of a new client, which is closed if there is no memory for one.
pub(crate) fn open_handle(client: Client) -> Result<*mut fastmq_client> {
    let broker = client.broker().clone();
    let number = CLIENTS.open(client).inspect_err(|_| broker.close())?;
    find::<Client>(number)?
        .beside
        .0
        .store(broker.id(), Ordering::Relaxed);
    Ok(handle::handle(number))
}

/// Opens a broker in this process; starts no thread and opens no descriptor. Options of library
/// threads are tried on a thread that has ended when this returns.
///
/// `options` is borrowed until the call returns; NULL: the defaults. `*out` is yours until
/// fastmq_close. Safe from any thread.
/// Returns OK, INVALID, DENIED (the right to the options of library threads, or to lock so much
/// memory, is missing; the sentence names the cure), UNSUPPORTED (no thread can be started, or
/// there are no huge pages), IO, NO_MEMORY, MISUSE.
///
/// # Safety
/// `options` is NULL or readable for its `struct_size`, and so is what it points to; `out` is
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_open(
    options: *const fastmq_options,
    out: *mut *mut fastmq_client,
) -> fastmq_status {
    quiet_panics();
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        // SAFETY: by the contract.
        let options = unsafe { read_or_default(options) }?;
        // SAFETY: by the contract.
        let options = unsafe { options.convert() }?;
        let client = Client::open_with(options, Broker::system_driver()?)?;
        out.set(open_handle(client)?);
        Ok(())
    })
}

/// Stops taking messages and waits until every queue is empty and no callback runs.
///
/// Safe from any thread. A callback that calls it does not count, nor do others that call it too.
/// Returns OK, TIMEOUT (the sentence says what still waits), CLOSED, INVALID, MISUSE.
///
/// # Safety
/// None: any value of `client` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_drain(
    client: *mut fastmq_client,
    timeout_ns: u64,
) -> fastmq_status {
    boundary(|| client_of(client)?.drain(timeout_ns))
}

/// Closes the broker: its other handles answer CLOSED from now on, waiting calls return, requests
/// that wait are answered CANCELLED (those that are out at a server DISCONNECTED), and library
/// threads end. Its servers close first, at once.
///
/// Takes NULL. Waits for running callbacks for at most `close_timeout_ns`, not for one that calls
/// it. The other handles are still closed once each. Safe from any thread. In a forked child it
/// ends the handle only.
///
/// # Safety
/// None: any value of `client` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_close(client: *mut fastmq_client) {
    if client.is_null() {
        return;
    }
    closing(|| {
        if let Some(client) = handle::take::<Client>(handle::number(client))? {
            let broker = client.broker().id();
            server::close_those_of(broker);
            client.close();
            // One that began to listen meanwhile.
            server::close_those_of(broker);
        }
        Ok(())
    });
}

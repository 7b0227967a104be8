//! The handle of a broker that listens.
//!
//! A server is a child of its client: closing the client ends it, and its handle answers CLOSED
//! from then on. So each open one stands in a list, by its client's broker.

use std::ffi::{CString, c_char};
use std::mem::{offset_of, size_of};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastmq::border::try_arc;
use fastmq::{Error, Fault, Result, Server, ServerChanges, ServerOptions, Status};

use crate::bytes::{Out, copy_of, fastmq_bytes, is_null, read_c_text, text_of};
use crate::client::{check_parent, client_of, fastmq_client};
use crate::error::{boundary, closing, guarded};
use crate::handle::{self, Kind, Object, Table, find, kind};
use crate::message::flags_of;
use crate::options::{Plain, read_or_default, wait_of};
use crate::status::fastmq_status;
use crate::threads::fastmq_thread_options;

/// A broker that other processes use. Used from any thread at the same time.
pub struct fastmq_server;

static SERVERS: Table<ServerObject> = Table::new();
/// Of each open server its broker's id and its handle.
static LISTENING: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// What the handle names.
struct ServerObject {
    /// `None`: its client was closed.
    server: Mutex<Option<Server>>,
    client: fastmq::Client,
    urls: Vec<CString>,
}

impl Object for ServerObject {
    const KIND: Kind = kind!(11, "server");
    type Beside = ();
    fn table() -> &'static Table<Self> {
        &SERVERS
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bits of `fastmq_listen_options.flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_listen_flag {
    /// It may listen at addresses that other machines reach, where its bytes, the token too, can be
    /// read by others.
    FASTMQ_LISTEN_INSECURE = 1,
}

/// How a broker listens: set `struct_size`; 0 in the others is the default.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_listen_options {
    /// sizeof(fastmq_listen_options).
    pub struct_size: u32,
    /// FASTMQ_LISTEN_... bits.
    pub flags: u32,
    /// What clients must know, at most 4,096 bytes; copied; empty: nothing.
    pub token: fastmq_bytes,
    /// What the server is called, at most 255 bytes; copied.
    pub name: fastmq_bytes,
    /// Connections at once, of all its threads together; 0: 65,536.
    pub connections_max: u32,
    /// Subscriptions of one connection; 0: 4,096.
    pub subscriptions_max: u32,
    /// How its threads wait: fastmq_wait.
    pub wait: u32,
    /// Threads that serve connections, at most 64; each connection has one of them; 0: 1.
    pub shards: u32,
    /// What its threads are, borrowed; NULL: as the thread that starts them.
    pub thread: *const fastmq_thread_options,
    /// Sockets that listen already, which a service manager has made, to accept at beside the URLs:
    /// descriptors, borrowed and duplicated. Their files are left alone.
    pub sockets: *const i32,
    /// How many.
    pub sockets_count: usize,
    /// Where else its clients may connect: URLs with commas between them, at most 4,096 bytes;
    /// copied. They are told when they connect and when this server drains, and try those, too,
    /// when it is gone.
    pub servers: fastmq_bytes,
}

const _: () = {
    assert!(size_of::<fastmq_listen_options>() == 96);
    assert!(offset_of!(fastmq_listen_options, flags) == 4);
    assert!(offset_of!(fastmq_listen_options, token) == 8);
    assert!(offset_of!(fastmq_listen_options, name) == 24);
    assert!(offset_of!(fastmq_listen_options, connections_max) == 40);
    assert!(offset_of!(fastmq_listen_options, subscriptions_max) == 44);
    assert!(offset_of!(fastmq_listen_options, wait) == 48);
    assert!(offset_of!(fastmq_listen_options, shards) == 52);
    assert!(offset_of!(fastmq_listen_options, thread) == 56);
    assert!(offset_of!(fastmq_listen_options, sockets) == 64);
    assert!(offset_of!(fastmq_listen_options, sockets_count) == 72);
    assert!(offset_of!(fastmq_listen_options, servers) == 80);
};

// SAFETY: integers and pointers in C order without padding, zeros are a value, size first.
unsafe impl Plain for fastmq_listen_options {
    const NAME: &'static str = "listen options";
    const FIRST_SIZE: usize = 80;
}

const INSECURE: u32 = fastmq_listen_flag::FASTMQ_LISTEN_INSECURE as u32;

impl fastmq_listen_options {
    /// Descriptors of our own for the caller's.
    ///
    /// # Safety
    /// `sockets` is readable for `sockets_count` numbers.
    unsafe fn duplicates(&self) -> Result<Vec<Arc<OwnedFd>>> {
        if self.sockets.is_null() && self.sockets_count > 0 {
            return Err(is_null("sockets"));
        }
        let mut duplicates = Vec::new();
        for index in 0..self.sockets_count {
            // SAFETY: below `sockets_count`, so readable by the contract.
            let socket = unsafe { self.sockets.wrapping_add(index).read() };
            if socket < 0 {
                let fault = &Fault(Status::Invalid, "a socket's descriptor is below 0");
                return Err(Error::new(fault));
            }
            // SAFETY: not -1, and used for one call of the system, which checks it.
            let socket = unsafe { BorrowedFd::borrow_raw(socket) };
            let duplicate = socket.try_clone_to_owned().map_err(|error| {
                let fault = &Fault(Status::Io, "cannot duplicate a socket");
                Error::with_io(fault, fault.1, &error)
            })?;
            duplicates.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
            duplicates.push(try_arc(duplicate).map_err(|_| Error::NO_MEMORY)?);
        }
        Ok(duplicates)
    }

    /// # Safety
    /// `token`, `name`, `servers`, `sockets`, and `thread` with the name in it, are readable.
    unsafe fn convert(&self) -> Result<ServerOptions> {
        let flags = flags_of("listen options", self.flags, INSECURE)?;
        // SAFETY: by the contract.
        let thread = unsafe { read_or_default(self.thread) }?;
        let mut options = ServerOptions {
            // SAFETY: by the contract.
            token: copy_of(unsafe { self.token.read("token") }?)?,
            // SAFETY: by the contract.
            name: text_of(unsafe { self.name.read("name") }?, "name")?,
            // SAFETY: by the contract.
            servers: text_of(unsafe { self.servers.read("servers") }?, "servers")?,
            is_insecure_allowed: flags & INSECURE != 0,
            // SAFETY: by the contract.
            thread: unsafe { thread.convert() }?,
            // SAFETY: by the contract.
            sockets: unsafe { self.duplicates() }?,
            ..ServerOptions::default()
        };
        if let Some(wait) = wait_of(self.wait)? {
            options.wait = wait;
        }
        if self.shards != 0 {
            options.shards = self.shards;
        }
        if self.connections_max != 0 {
            options.connections_max = self.connections_max;
        }
        if self.subscriptions_max != 0 {
            options.subscriptions_max = self.subscriptions_max;
        }
        Ok(options)
    }
}

/// Where a server listens, for C.
fn urls_of(server: &Server) -> Result<Vec<CString>> {
    let urls = server.urls().into_iter().map(CString::new);
    urls.collect::<std::result::Result<_, _>>().map_err(|_| {
        let fault = &Fault(Status::Internal, "a bug in fastmq: a URL has a zero inside");
        Error::new(fault)
    })
}

/// Ends the servers of a broker; their handles stay.
pub(crate) fn close_those_of(broker: u64) {
    loop {
        let found = {
            let mut listening = lock(&LISTENING);
            let at = listening.iter().position(|(of, _)| *of == broker);
            at.map(|at| listening.swap_remove(at).1)
        };
        let Some(number) = found else { return };
        let taken = find::<ServerObject>(number)
            .and_then(|slot| slot.look(number, |object| lock(&object.server).take()));
        // Not under the slot's lock: it waits for a thread.
        if let Ok(Some(server)) = taken {
            server.close(0);
        }
    }
}

fn forget(number: u64) {
    lock(&LISTENING).retain(|(_, other)| *other != number);
}

/// Serves other processes: each that connects to one of `urls` uses the client's broker, beside
/// this process.
///
/// `urls` ends with a zero: `unix:/path`, `shm:NAME` or `tcp://host:port`, with commas between
/// several. `shm:` is a Unix socket over which each client gets 8 MiB of memory that it shares with
/// this process: NAME is in `$WORK_ROOT`, else in `$XDG_RUNTIME_DIR/fastmq`, else in a directory of
/// this user's own under the temporary directory, which nobody else may write to; `shm:/path` is
/// explicit. The host is an IP address or localhost; port 0 takes a free one, which
/// fastmq_server_url tells. A Unix socket is for this user alone (mode 0600); a socket file that
/// nobody answers at is replaced. It listens when the call returns, on threads of its own, until
/// fastmq_server_close or fastmq_close. With sockets in the options `urls` may be NULL.
///
/// `urls` and `options` are borrowed until the call returns; NULL options: the defaults. `*out` is
/// yours until fastmq_server_close. Safe from any thread.
/// Returns OK, INVALID (a URL or an option; the sentence says which), DENIED (other machines would
/// reach it, and FASTMQ_LISTEN_INSECURE is not set; or the right to the thread's options is
/// missing), UNSUPPORTED (the client is one of another server, or no thread can be started), IO (an
/// address is in use, or the system refuses), CLOSED, NO_MEMORY, MISUSE.
///
/// # Safety
/// `urls` is NULL or ends with a zero; `options` is NULL or readable for its `struct_size`, and so
/// is what it points to; `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_listen(
    client: *mut fastmq_client,
    urls: *const c_char,
    options: *const fastmq_listen_options,
    out: *mut *mut fastmq_server,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        let client = client_of(client)?;
        // SAFETY: by the contract.
        let options = unsafe { read_or_default(options) }?;
        // SAFETY: by the contract.
        let options = unsafe { options.convert() }?;
        let mut list = Vec::new();
        if !urls.is_null() || options.sockets.is_empty() {
            // SAFETY: by the contract.
            let urls = unsafe { read_c_text(urls, "urls") }?;
            for url in urls.split(',') {
                list.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
                list.push(url.trim());
            }
        }
        let server = client.listen(&list, options)?;
        let urls = urls_of(&server)?;
        let number = SERVERS.open(ServerObject {
            server: Mutex::new(Some(server)),
            client: client.clone(),
            urls,
        })?;
        let broker = client.broker().id();
        let kept = {
            let mut listening = lock(&LISTENING);
            let room = listening.try_reserve(1).map_err(|_| Error::NO_MEMORY);
            room.map(|()| listening.push((broker, number)))
        };
        // Closed meanwhile: whoever closes finds it in the list, or we find that it is closed.
        if let Err(error) = kept.and_then(|()| check_parent(&client)) {
            forget(number);
            drop(handle::take::<ServerObject>(number)?);
            return Err(error);
        }
        out.set(handle::handle(number));
        Ok(())
    })
}

/// Gives the URL of the address with this index, from 0, in the order of fastmq_listen's, then
/// those of its sockets; NULL behind the last one.
///
/// It ends with a zero, and is yours to read until fastmq_server_close. Safe from any thread.
/// Returns NULL on failure too: NOT_FOUND (there are no more), CLOSED, INVALID, MISUSE in
/// fastmq_last_error.
///
/// # Safety
/// None: any value of `server` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_server_url(
    server: *mut fastmq_server,
    index: usize,
) -> *const c_char {
    guarded(ptr::null(), || {
        let number = handle::number(server);
        find::<ServerObject>(number)?.look(number, |object| {
            check_parent(&object.client)?;
            let fault = &Fault(
                Status::NotFound,
                "the server has no address with this index",
            );
            let url = object.urls.get(index).ok_or(Error::new(fault))?;
            Ok(url.as_ptr())
        })?
    })
}

/// Takes over the `token` and the `subscriptions_max` of `options`, for who connects and what is
/// subscribed from now on; the others are not looked at.
///
/// Connections stay as they are. `options` is borrowed until the call returns; NULL: the defaults.
/// Safe from any thread; does not block.
/// Returns OK, INVALID, CLOSED, NO_MEMORY, MISUSE.
///
/// # Safety
/// `options` is NULL or readable for its `struct_size`, and so is its token.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_server_change(
    server: *mut fastmq_server,
    options: *const fastmq_listen_options,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let options = unsafe { read_or_default(options) }?;
        let changes = ServerChanges {
            // SAFETY: by the contract.
            token: copy_of(unsafe { options.token.read("token") }?)?,
            subscriptions_max: match options.subscriptions_max {
                0 => ServerOptions::default().subscriptions_max,
                subscriptions_max => subscriptions_max,
            },
        };
        let number = handle::number(server);
        find::<ServerObject>(number)?.look(number, |object| match &*lock(&object.server) {
            Some(server) => server.change(&changes),
            None => Err(Error::CLOSED),
        })?
    })
}

/// Takes no more connections, asks the clients to finish, and closes when they have gone or after
/// `timeout_ns`; 0: at once.
///
/// Takes NULL. The client stays open, and what local users have is left as it is. Blocks until the
/// server has closed, for the last bytes some seconds beyond the time-out at most. Safe from any
/// thread; a callback that a thread of the server runs is not waited for. In a forked child it
/// ends the handle only.
///
/// # Safety
/// None: any value of `server` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_server_close(server: *mut fastmq_server, timeout_ns: u64) {
    if server.is_null() {
        return;
    }
    closing(|| {
        let number = handle::number(server);
        if let Some(object) = handle::take::<ServerObject>(number)? {
            forget(number);
            let server = lock(&object.server).take();
            if let Some(server) = server {
                server.close(timeout_ns);
            }
        }
        Ok(())
    });
}

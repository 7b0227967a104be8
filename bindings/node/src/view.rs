//! What needs unsafe code: open batches, a descriptor watched by Node's loop, and payloads that
//! JavaScript writes in place.
//!
//! Everything here is used on the one thread of JavaScript that made it.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use fastmq::{Publisher, Queue, Result, View};
use napi::Env;

use crate::hub::lock;

/// A queue that is read, with the batch that is open, if one is.
pub(crate) struct Reading {
    queue: Queue,
    is_open: bool,
}

impl Reading {
    pub(crate) fn new(queue: Queue) -> Self {
        Self {
            queue,
            is_open: false,
        }
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Receives what is there after ending the batch that was open; this one stays open.
    pub(crate) fn receive(&mut self, message_max: usize) -> Result<()> {
        self.release();
        let batch = self.queue.receive(message_max, 0)?;
        batch.keep_open();
        self.is_open = true;
        Ok(())
    }

    /// The messages of the open batch, and when they were received.
    pub(crate) fn messages(&self) -> (&[View], u64) {
        if !self.is_open {
            return (&[], 0);
        }
        let lanes = self.queue.place().lanes();
        // SAFETY: a batch that `receive` left open is open until `release`, which takes `&mut`.
        let views = unsafe { lanes.open_views() };
        (views, lanes.received_ns())
    }

    /// Ends the open batch, if there is one: its queue gets the room back.
    pub(crate) fn release(&mut self) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let place = self.queue.place();
        // SAFETY: `receive` left a batch open that nobody has ended since, and `&mut` says that
        // nobody uses its views.
        drop(unsafe { place.lanes().open_batch() });
        place.finish(self.queue.client().broker());
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.release();
    }
}

// Of libuv, which Node exports.
unsafe extern "C" {
    fn uv_handle_size(kind: c_int) -> usize;
    fn uv_poll_init(on: *mut c_void, handle: *mut c_void, fd: c_int) -> c_int;
    fn uv_poll_start(
        handle: *mut c_void,
        events: c_int,
        done: extern "C" fn(*mut c_void, c_int, c_int),
    ) -> c_int;
    fn uv_poll_stop(handle: *mut c_void) -> c_int;
    fn uv_close(handle: *mut c_void, done: extern "C" fn(*mut c_void));
    fn uv_unref(handle: *mut c_void);
    fn uv_handle_set_data(handle: *mut c_void, data: *mut c_void);
    fn uv_handle_get_data(handle: *const c_void) -> *mut c_void;
}

/// `UV_POLL` of `uv_handle_type`.
const UV_POLL: c_int = 8;
/// `UV_READABLE` of `uv_poll_event`.
const UV_READABLE: c_int = 1;

/// What is called when the descriptor is readable; false: never again.
type OnReadable = dyn Fn() -> bool;

/// What a handle points to: its own memory and descriptor, which libuv has until it is closed, and
/// what to call.
struct Watched {
    _memory: Box<[u64]>,
    _fd: OwnedFd,
    on_readable: Box<OnReadable>,
}

/// A descriptor that Node's loop watches; it keeps no process alive. Dropping it ends that.
pub(crate) struct Watch {
    handle: *mut c_void,
}

impl Watch {
    /// Watches what `fd` is now: a duplicate, as another thread may close it, and as a loop watches
    /// each descriptor once. `None`: the system refuses.
    pub(crate) fn start(env: &Env, fd: i32, on_readable: Box<OnReadable>) -> Option<Self> {
        let on: *mut c_void = env.get_uv_event_loop().ok()?.cast();
        // SAFETY: a client's descriptor, which the caller's client keeps open during the call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let fd = fd.try_clone_to_owned().ok()?;
        // SAFETY: takes a number and looks into a table.
        let size = unsafe { uv_handle_size(UV_POLL) };
        let mut memory = vec![0_u64; size.div_ceil(8)].into_boxed_slice();
        let handle: *mut c_void = memory.as_mut_ptr().cast();
        // SAFETY: the loop is that of this thread, and `memory` has the size of a poll handle.
        if unsafe { uv_poll_init(on, handle, fd.as_raw_fd()) } != 0 {
            return None;
        }
        let watched = Box::into_raw(Box::new(Watched {
            _memory: memory,
            _fd: fd,
            on_readable,
        }));
        // SAFETY: the handle was initialised above.
        unsafe { uv_handle_set_data(handle, watched.cast()) };
        // SAFETY: as above.
        unsafe { uv_unref(handle) };
        let watch = Self { handle };
        // SAFETY: as above; `readable` is called on this thread until the handle is closed.
        let started = unsafe { uv_poll_start(handle, UV_READABLE, readable) };
        (started == 0).then_some(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: `start` has initialised the handle, and nobody else closes it. Node's objects
        // are dropped on its thread. `closed` frees the memory when libuv has let go of it.
        unsafe { uv_close(self.handle, closed) };
    }
}

extern "C" fn readable(handle: *mut c_void, _status: c_int, _events: c_int) {
    // SAFETY: libuv gives a handle that `start` has set the data of.
    let watched = unsafe { uv_handle_get_data(handle) }.cast::<Watched>();
    // SAFETY: it lives until `closed`, which libuv calls last.
    let on_readable = unsafe { &(*watched).on_readable };
    // What a panic here would unwind into is C.
    let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(on_readable));
    if !called.unwrap_or(false) {
        // SAFETY: the handle is open: libuv has just called for it.
        unsafe { uv_poll_stop(handle) };
    }
}

extern "C" fn closed(handle: *mut c_void) {
    // SAFETY: the data was set by `start`, and this is the last call for the handle.
    let watched = unsafe { uv_handle_get_data(handle) }.cast::<Watched>();
    // SAFETY: `start` took it from a box; nobody uses it after this. It owns the handle's memory,
    // which libuv does not touch after this call.
    drop(unsafe { Box::from_raw(watched) });
}

/// A publisher as it is shared with the bytes that it has lent to JavaScript.
pub(crate) type SharedPublisher = Arc<Mutex<Publisher>>;

/// Bytes of an open claim, lent to JavaScript as an ArrayBuffer.
///
/// The ArrayBuffer holds the publisher, so that its memory outlives whoever looks at it, and is
/// detached before the claim ends: then it has no bytes. One that somebody else has detached may
/// have been moved to where we cannot reach it; its claim is never ended.
pub(crate) mod claimed {
    use super::{SharedPublisher, c_void, lock};
    use fastmq::Result;
    use napi::bindgen_prelude::{ArrayBuffer, FromNapiValue, JsValue};
    use napi::{Env, sys};

    unsafe extern "C" fn let_go(_env: sys::napi_env, _data: *mut c_void, hint: *mut c_void) {
        // SAFETY: `lend` took it from a box, and Node calls this once.
        drop(unsafe { Box::from_raw(hint.cast::<SharedPublisher>()) });
    }

    /// Claims `size` bytes, which must not be 0, and lends them.
    pub(crate) fn lend<'e>(
        env: &'e Env,
        publisher: &SharedPublisher,
        size: usize,
    ) -> Result<Option<ArrayBuffer<'e>>> {
        let bytes = lock(publisher).open_claim(size)?;
        // What was there is other people's: JavaScript may read it before it writes.
        // SAFETY: the claim has `size` bytes, which are ours until it ends.
        unsafe { bytes.write_bytes(0, size) };
        let hint = Box::into_raw(Box::new(publisher.clone()));
        let mut value = std::ptr::null_mut();
        // SAFETY: the bytes stay where they are until the claim ends, which `take_back` precedes
        // by detaching, or the publisher is freed, which `hint` prevents.
        let made = unsafe {
            sys::napi_create_external_arraybuffer(
                env.raw(),
                bytes.cast(),
                size,
                Some(let_go),
                hint.cast(),
                &raw mut value,
            )
        };
        if made != sys::Status::napi_ok {
            // SAFETY: Node has refused, and does not know of it.
            drop(unsafe { Box::from_raw(hint) });
            lock(publisher).abandon();
            return Ok(None);
        }
        // SAFETY: the value is the ArrayBuffer that was just made in this environment.
        Ok(unsafe { ArrayBuffer::from_napi_value(env.raw(), value) }.ok())
    }

    /// Takes the bytes back from JavaScript; false if they are not there any more.
    pub(crate) fn take_back(env: &Env, lent: &ArrayBuffer<'_>, size: usize) -> bool {
        if lent.len() != size {
            return false;
        }
        // SAFETY: a live value of this environment.
        let detached = unsafe { sys::napi_detach_arraybuffer(env.raw(), lent.value().value) };
        detached == sys::Status::napi_ok
    }
}

//! Lifetimes: what a forked child must not touch, and who is open when the interpreter ends.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use fastmq::border::fork::is_forked_child;
use fastmq::{Client, Requester};
use pyo3::prelude::*;

use crate::server::{self, Slot};

/// A handle of the engine; a forked child forgets it, as its locks and threads are the parent's.
#[derive(Debug)]
pub(crate) struct Kept<T>(Option<T>);

impl<T> Kept<T> {
    /// Keeps a handle.
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Gives it out, to be ended; a forked child gets nothing.
    pub(crate) fn take(mut self) -> Option<T> {
        let value = self.0.take();
        if is_forked_child() {
            mem::forget(value);
            return None;
        }
        value
    }
}

const TAKEN: &str = "only `take` empties it, and consumes it";

impl<T> Deref for Kept<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_ref().expect(TAKEN)
    }
}

impl<T> DerefMut for Kept<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(TAKEN)
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if is_forked_child() {
            mem::forget(self.0.take());
        }
    }
}

/// Locks; what is behind it is right whatever a panic has interrupted.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client of the engine and what ends with it.
pub(crate) struct Shared {
    pub(crate) client: Kept<Client>,
    /// Its servers; those that were closed are empty.
    pub(crate) servers: Mutex<Vec<Slot>>,
    /// Requesters for calls that ask and wait, which nobody uses now.
    pub(crate) idle: Mutex<Vec<Kept<Requester>>>,
}

impl Shared {
    /// A client with nothing beside it.
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client: Kept::new(client),
            servers: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    /// Closes the servers and then the client. The caller has let the interpreter go: handlers
    /// that are waited for may need it.
    pub(crate) fn close(&self) {
        let close_servers = || {
            let servers = mem::take(&mut *lock(&self.servers));
            servers.iter().for_each(|slot| server::close(slot, 0));
        };
        close_servers();
        self.client.close();
        // One that began to listen meanwhile.
        close_servers();
        let idle = mem::take(&mut *lock(&self.idle));
        drop(idle);
    }
}

/// Clients that are open, to be closed before the interpreter is gone: their threads call into it.
static OPEN: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Notes a client that was opened, and forgets those that are gone.
pub(crate) fn enter(shared: &Arc<Shared>) {
    let mut open = lock(&OPEN);
    open.retain(|other| other.strong_count() > 0);
    open.push(Arc::downgrade(shared));
}

/// Closes all clients; the package has the interpreter call it at its end.
#[pyfunction]
pub(crate) fn _close_all(py: Python<'_>) {
    if is_forked_child() {
        return;
    }
    let open = mem::take(&mut *lock(&OPEN));
    py.detach(|| {
        open.iter()
            .filter_map(Weak::upgrade)
            .for_each(|shared| shared.close())
    });
}

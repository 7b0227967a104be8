//! The ready list: queues that have something, for one loop that serves many of them.
//!
//! A queue arms its gate's LIST bit and is pushed here by the first writer after that. The loop is
//! either the user's (`dispatch`, woken by a descriptor) or a library thread's (woken by a futex).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use fastmq_driver::{Driver, LoopFd};
use fastmq_memory::sync::{Mutex, OnceLock, lock};

use crate::error::{Error, Fault, Result, Status};
use crate::place::Place;

/// Queues with something to do, in the order in which they became ready.
pub struct ReadyList {
    driver: Arc<dyn Driver>,
    chain: Mutex<Chain>,
    /// Changed by every push; what library threads sleep on.
    pub(crate) word: AtomicU32,
    sleeping: AtomicU32,
    fd: OnceLock<LoopFd>,
    has_room: AtomicBool,
    /// True once a loop has asked: until then nobody would ever take a queue off the list.
    is_watched: AtomicBool,
}

impl std::fmt::Debug for ReadyList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadyList").finish_non_exhaustive()
    }
}

impl ReadyList {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Self {
        Self {
            driver,
            chain: Mutex::default(),
            word: AtomicU32::new(0),
            sleeping: AtomicU32::new(0),
            fd: OnceLock::new(),
            has_room: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
        }
    }

    /// Marks the list as one that a loop looks at; false if it was already.
    pub(crate) fn watch(&self) -> bool {
        !self.is_watched.load(Ordering::Relaxed) && !self.is_watched.swap(true, Ordering::SeqCst)
    }

    /// True if a loop looks at this list.
    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::SeqCst)
    }

    /// Adds a queue at the end, unless it is in the list or closed, and wakes the loop.
    pub(crate) fn push(&self, place: Arc<Place>) {
        let mut chain = lock(&self.chain);
        // Its closer removes it afterwards: a queue that stayed here would keep itself alive, as it
        // knows the list.
        if !place.is_closed() && !place.is_listed.swap(true, Ordering::SeqCst) {
            chain.push(place);
        }
        drop(chain);
        self.wake();
    }

    /// Wakes the loop without a queue: for closing, and for room.
    pub(crate) fn wake(&self) {
        self.word.fetch_add(1, Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            self.driver.wake(&self.word, u32::MAX);
        }
        if let Some(fd) = self.fd.get() {
            fd.signal();
        }
    }

    /// Says that a queue that refused a publish has room again.
    pub(crate) fn report_room(&self) {
        self.has_room.store(true, Ordering::Release);
        self.wake();
    }

    /// True once after `report_room`.
    pub(crate) fn take_room(&self) -> bool {
        self.has_room.swap(false, Ordering::Acquire)
    }

    pub(crate) fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    pub(crate) fn pop(&self) -> Option<Arc<Place>> {
        let mut chain = lock(&self.chain);
        let place = chain.pop()?;
        // Under the lock, or a queue that is taken out and listed again would stand there twice.
        place.is_listed.store(false, Ordering::SeqCst);
        Some(place)
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.chain).first.is_none() && !self.has_room.load(Ordering::Acquire)
    }

    /// Takes a queue out that was closed.
    pub(crate) fn remove(&self, place: &Arc<Place>) {
        let mut chain = lock(&self.chain);
        if place.is_listed.swap(false, Ordering::SeqCst) {
            chain.remove(place);
        }
    }

    /// The descriptor of the loop, made when first asked for; readable while something is here.
    pub(crate) fn fd(&self) -> Result<&LoopFd> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd);
        }
        let fd = self.driver.loop_fd().map_err(|error| {
            let fault = &Fault(Status::Io, "cannot make the client's descriptor");
            Error::with_io(fault, fault.1, &error)
        })?;
        let _ = self.fd.set(fd);
        let fd = self.fd.get().ok_or(Error::new(&Fault(
            Status::Internal,
            "the descriptor is gone",
        )))?;
        if !self.is_empty() {
            fd.signal();
        }
        Ok(fd)
    }

    pub(crate) fn existing_fd(&self) -> Option<&LoopFd> {
        self.fd.get()
    }

    /// Sleeps until a push after `seen` was read from `word`.
    pub(crate) fn park(&self, seen: u32, deadline_ns: u64) {
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        self.driver.park(&self.word, seen, deadline_ns);
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Queues in a row, each of which knows the next: adding one needs no memory. A queue stands in one
/// chain at a time, once.
#[derive(Default)]
struct Chain {
    first: Option<Arc<Place>>,
    last: Option<Arc<Place>>,
}

impl Chain {
    fn push(&mut self, place: Arc<Place>) {
        match self.last.replace(place.clone()) {
            Some(before) => *lock(&before.next_ready) = Some(place),
            None => self.first = Some(place),
        }
    }

    fn pop(&mut self) -> Option<Arc<Place>> {
        let place = self.first.take()?;
        self.first = lock(&place.next_ready).take();
        if self.first.is_none() {
            self.last = None;
        }
        Some(place)
    }

    fn remove(&mut self, place: &Arc<Place>) {
        let mut before: Option<Arc<Place>> = None;
        let mut at = self.first.clone();
        while let Some(here) = at {
            let next = lock(&here.next_ready).clone();
            if !Arc::ptr_eq(&here, place) {
                (before, at) = (Some(here), next);
                continue;
            }
            lock(&here.next_ready).take();
            if next.is_none() {
                self.last = before.clone();
            }
            match before {
                Some(before) => *lock(&before.next_ready) = next,
                None => self.first = next,
            }
            return;
        }
    }
}

impl Drop for Chain {
    /// One after another: a long chain must not use up the stack.
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

//! One thread-safe function for all that waits on a thread of JavaScript.
//!
//! Whoever has something for a waiter puts its number into a list; JavaScript is called once for
//! as many as stand there and takes them all. The function is weak: it keeps no process alive.
//! What else other threads have to tell (events, lines of the log) goes the same way, bounded.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use napi::bindgen_prelude::{Function, Uint8Array};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;

use crate::error::Thrown;
use crate::ports::Scratch;

/// Texts that wait for JavaScript at most: a thread that does not look loses the oldest.
const NOTES_MAX: usize = 1024;

type Call = ThreadsafeFunction<(), (), (), napi::Status, false, true>;

/// A lock that a panic elsewhere does not take away.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is ready, and how to say so.
pub(crate) struct Bell {
    ready: Mutex<Vec<u32>>,
    is_rung: AtomicBool,
    call: Call,
}

impl Bell {
    /// Has JavaScript called for the waiter with this number. From any thread; does not block.
    pub(crate) fn ring(&self, waiter: u32) {
        lock(&self.ready).push(waiter);
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            // Refused only when the thread of JavaScript ends: then nobody waits any more.
            let _ = self.call.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    fn take(&self) -> Vec<u32> {
        // In this order: what comes in between rings again.
        self.is_rung.store(false, Ordering::Release);
        std::mem::take(&mut *lock(&self.ready))
    }
}

/// A waiter of JavaScript's as the engine knows it.
pub(crate) struct Waiter {
    bell: Arc<Bell>,
    number: u32,
}

impl Waiter {
    pub(crate) fn new(hub: &Hub, number: u32) -> Arc<Self> {
        Arc::new(Self {
            bell: hub.bell.clone(),
            number,
        })
    }

    pub(crate) fn ring(&self) {
        self.bell.ring(self.number);
    }
}

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// Things that other threads tell a waiter, oldest first.
pub(crate) struct Notes<T> {
    waiter: Arc<Waiter>,
    waiting: Mutex<VecDeque<T>>,
}

impl<T> Notes<T> {
    pub(crate) fn new(waiter: Arc<Waiter>) -> Arc<Self> {
        Arc::new(Self {
            waiter,
            waiting: Mutex::default(),
        })
    }

    pub(crate) fn add(&self, note: T) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() == NOTES_MAX {
            waiting.pop_front();
        }
        waiting.push_back(note);
        let is_first = waiting.len() == 1;
        drop(waiting);
        if is_first {
            self.waiter.ring();
        }
    }

    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut *lock(&self.waiting)).into()
    }
}

/// What a thread of JavaScript shares with the library.
#[napi]
pub struct Hub {
    pub(crate) bell: Arc<Bell>,
    pub(crate) scratch: Scratch,
}

#[napi]
impl Hub {
    /// Opens the hub of a thread. `on_ready` is called when `take` has something; `scratch` is
    /// where JavaScript writes subjects and small payloads.
    #[napi(constructor)]
    pub fn new(on_ready: Function<'_, (), ()>, scratch: Uint8Array) -> Result<Self, Thrown> {
        let call = on_ready
            .build_threadsafe_function()
            .weak::<true>()
            .callee_handled::<false>()
            .build()
            .map_err(|error| napi::Error::new("FASTMQ_INTERNAL", error.reason.clone()))?;
        let bell = Bell {
            ready: Mutex::default(),
            is_rung: AtomicBool::new(false),
            call,
        };
        Ok(Self {
            bell: Arc::new(bell),
            scratch: Rc::new(scratch),
        })
    }

    /// The numbers of those who are ready.
    #[napi]
    pub fn take(&self) -> Vec<u32> {
        self.bell.take()
    }
}

//! Handlers that run on the publishing thread: nesting, answers in place, and knowing when a
//! handler that was unsubscribed has come to rest.
//!
//! Each thread has a stack of calls. A call announces the handler's serial, then looks whether the
//! handler is still active; unsubscribe takes the activity away, then (after a heavy fence) waits
//! until no other thread announces it. The announcement costs a store and a light fence.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use fastmq_driver::fence;
use fastmq_memory::allocation::{NoMemory, try_arc, try_rc};
use fastmq_memory::reply::Loan;
use fastmq_memory::sync::{Mutex, lock};
use fastmq_memory::words::append;
use fastmq_memory::{ReplyBuffer, View};

use crate::subscription::Handler;

/// How deep inline handlers may nest on one thread.
pub const INLINE_DEPTH_MAX: usize = 16;
/// Capacity that an answer buffer keeps between calls.
const ANSWER_BYTES_KEPT: usize = 64 << 10;

/// What one thread runs now: serials of handlers, 0 for none.
#[derive(Debug)]
struct Announcements {
    serials: [AtomicU64; INLINE_DEPTH_MAX],
    /// The broker that the thread drains inside a handler; 0: none.
    drained: AtomicU64,
    /// See [`thread_number`].
    thread: u64,
}

static THREADS: Mutex<Vec<Weak<Announcements>>> = Mutex::new(Vec::new());

/// An answer caught while its asker waits on the same thread.
#[derive(Default)]
pub(crate) struct Answer {
    /// The token of the request that is being asked; 0: no request.
    token: Cell<u64>,
    /// Whose token it is: two brokers of a process may have equal ones.
    broker: Cell<u64>,
    came: Cell<Came>,
    status: Cell<u32>,
    /// The asker's memory for the payload.
    loan: Loan,
    /// The payload, if it is not there.
    payload: RefCell<Vec<u8>>,
    has_headers: Cell<bool>,
    headers: RefCell<Vec<u8>>,
}

/// What came of a request before its responder returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Came {
    /// No answer yet.
    #[default]
    Nothing,
    /// An answer, written to the asker's memory.
    Written,
    /// An answer; [`Calls::use_answer`] has it.
    Kept,
}

/// One thread's stack of handlers. A client of the thread holds it too, to reach it directly.
pub(crate) struct Calls {
    depth: Cell<usize>,
    announcements: Arc<Announcements>,
    answers: [Answer; INLINE_DEPTH_MAX],
    /// See [`thread_number`].
    pub(crate) thread: u64,
}

impl Calls {
    fn new() -> Result<Self, NoMemory> {
        let announcements = try_arc(Announcements {
            serials: Default::default(),
            drained: AtomicU64::new(0),
            thread: thread_number(),
        })?;
        let mut threads = lock(&THREADS);
        threads.retain(|thread| thread.strong_count() > 0);
        threads.try_reserve(1).map_err(|_| NoMemory)?;
        threads.push(Arc::downgrade(&announcements));
        Ok(Self {
            depth: Cell::new(0),
            announcements,
            answers: std::array::from_fn(|_| Answer::default()),
            thread: thread_number(),
        })
    }
}

thread_local! {
    static CALLS: OnceCell<Rc<Calls>> = const { OnceCell::new() };
}

/// This thread's stack, made when it is first needed.
pub(crate) fn of_this_thread() -> Result<Rc<Calls>, NoMemory> {
    let found = CALLS.try_with(|calls| calls.get().cloned());
    if let Ok(Some(calls)) = found {
        return Ok(calls);
    }
    let made = try_rc(Calls::new()?)?;
    // A thread that is ending keeps none.
    let _ = CALLS.try_with(|calls| calls.set(made.clone()));
    Ok(made)
}

/// Why a handler was not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotCalled {
    /// Handlers are nested too deep.
    TooDeep,
    /// The subscription is gone.
    Inactive,
    /// There is no memory for the first call on this thread.
    NoMemory,
}

/// Takes the announcement back even if the handler unwinds.
struct Depth<'a> {
    calls: &'a Calls,
    depth: usize,
}

impl Drop for Depth<'_> {
    fn drop(&mut self) {
        self.calls.announcements.serials[self.depth].store(0, Ordering::Release);
        self.calls.depth.set(self.depth);
    }
}

#[inline(always)]
fn enter<'a>(calls: &'a Calls, handler: &Handler) -> Result<Depth<'a>, NotCalled> {
    let depth = calls.depth.get();
    if depth >= INLINE_DEPTH_MAX {
        return Err(NotCalled::TooDeep);
    }
    calls.announcements.serials[depth].store(handler.serial, Ordering::Relaxed);
    // Pairs with the heavy fence of `rest`: either it sees the serial, or we see that the
    // handler is no longer active.
    fence::light();
    calls.depth.set(depth + 1);
    let guard = Depth { calls, depth };
    if !handler.is_active.load(Ordering::Acquire) {
        return Err(NotCalled::Inactive);
    }
    Ok(guard)
}

/// Calls an inline handler with a message that expects no answer in place.
#[inline(always)]
pub(crate) fn call(handler: &Handler, view: &View) -> Result<(), NotCalled> {
    let called = CALLS.try_with(|calls| match calls.get() {
        Some(calls) => calls.call(handler, view),
        None => call_first(handler, view),
    });
    called.unwrap_or_else(|_| call_at_end(handler, view))
}

/// The first call on this thread.
#[cold]
fn call_first(handler: &Handler, view: &View) -> Result<(), NotCalled> {
    let calls = of_this_thread().map_err(|_| NotCalled::NoMemory)?;
    calls.call(handler, view)
}

/// Calls a handler on a thread that is ending and has lost its stack: a destructor of the user's
/// may publish.
#[cold]
fn call_at_end(handler: &Handler, view: &View) -> Result<(), NotCalled> {
    thread_local! {
        // Without a destructor, so that it is there until the end.
        static DEPTH: Cell<usize> = const { Cell::new(0) };
    }
    struct Leave(usize);
    impl Drop for Leave {
        fn drop(&mut self) {
            DEPTH.set(self.0);
        }
    }
    let depth = DEPTH.get();
    if depth >= INLINE_DEPTH_MAX {
        return Err(NotCalled::TooDeep);
    }
    let _leave = Leave(depth);
    DEPTH.set(depth + 1);
    let calls = Calls::new().map_err(|_| NotCalled::NoMemory)?;
    calls.call(handler, view)
}

impl Calls {
    #[inline(always)]
    fn call(&self, handler: &Handler, view: &View) -> Result<(), NotCalled> {
        let depth = enter(self, handler)?;
        self.answers[depth.depth].token.set(0);
        (handler.call)(view);
        handler.counts.add(self.thread);
        Ok(())
    }

    /// Announces an inline handler once for a row of messages. While the row is there, whoever
    /// unsubscribes the handler waits for it.
    #[inline(always)]
    pub(crate) fn row<'c>(&'c self, handler: &'c Handler) -> Result<Row<'c>, NotCalled> {
        let depth = enter(self, handler)?;
        self.answers[depth.depth].token.set(0);
        Ok(Row { depth, handler })
    }

    /// Calls an inline responder and says what came of it. Without memory of the asker's the
    /// answer is kept.
    #[inline(always)]
    pub(crate) fn ask(
        &self,
        handler: &Handler,
        (broker, token): (u64, u64),
        view: &View,
        reply: Option<&mut ReplyBuffer<'_>>,
    ) -> Result<Came, NotCalled> {
        let depth = enter(self, handler)?;
        let answer = &self.answers[depth.depth];
        answer.token.set(token);
        answer.broker.set(broker);
        answer.came.set(Came::Nothing);
        match reply {
            Some(reply) => {
                answer.loan.lend(reply, || (handler.call)(view));
                if answer.came.get() == Came::Written {
                    reply.set_written(answer.status.get(), &answer.loan);
                }
            }
            None => (handler.call)(view),
        }
        handler.counts.add(self.thread);
        answer.token.set(0);
        Ok(answer.came.get())
    }

    /// Hands the answer that `ask` has just kept to `body` as (status, payload, encoded headers).
    pub(crate) fn use_answer<R>(&self, body: impl FnOnce(u32, &[u8], &[u8]) -> R) -> R {
        let answer = &self.answers[self.depth.get()];
        let payload = answer.payload.borrow();
        let result = if answer.has_headers.get() {
            body(answer.status.get(), &payload, &answer.headers.borrow())
        } else {
            body(answer.status.get(), &payload, &[])
        };
        if payload.capacity() > ANSWER_BYTES_KEPT {
            drop(payload);
            *answer.payload.borrow_mut() = Vec::new();
        }
        result
    }

    /// True if any handler runs on this thread.
    #[inline(always)]
    pub(crate) fn is_asking(&self) -> bool {
        self.depth.get() > 0
    }

    /// True if a responder runs further up this thread's stack for this request, unanswered.
    #[cold]
    pub(crate) fn is_asked(&self, (broker, token): (u64, u64)) -> bool {
        let outer = &self.answers[..self.depth.get()];
        let mut outer = outer
            .iter()
            .filter(|answer| answer.came.get() == Came::Nothing);
        outer.any(|answer| answer.is_of((broker, token)))
    }

    /// See [`answer_in_place`].
    #[inline(always)]
    pub(crate) fn answer(
        &self,
        (broker, token): (u64, u64),
        status: u32,
        payload: &[u8],
        headers: &[u8],
    ) -> Result<bool, ()> {
        let mut depth = self.depth.get();
        while depth > 0 {
            depth -= 1;
            let answer = &self.answers[depth];
            if token != 0 && answer.is_of((broker, token)) {
                return answer.set(status, payload, headers);
            }
        }
        Ok(false)
    }
}

/// Messages for one inline handler, see [`Calls::row`].
pub(crate) struct Row<'c> {
    depth: Depth<'c>,
    handler: &'c Handler,
}

impl Row<'_> {
    /// Calls the handler, which expects no answer in place. False: it was unsubscribed meanwhile,
    /// and the row is to end.
    #[inline(always)]
    pub(crate) fn call(&self, view: &View) -> bool {
        // It is announced as long as the row is there, so whoever has made it inactive and does
        // not see that here waits.
        if !self.handler.is_active.load(Ordering::Acquire) {
            return false;
        }
        (self.handler.call)(view);
        self.handler.counts.add(self.depth.calls.thread);
        true
    }
}

impl Answer {
    #[inline(always)]
    fn is_of(&self, (broker, token): (u64, u64)) -> bool {
        self.token.get() == token && self.broker.get() == broker
    }

    #[inline(always)]
    fn set(&self, status: u32, payload: &[u8], headers: &[u8]) -> Result<bool, ()> {
        if self.came.get() != Came::Nothing {
            // The first answer counts.
            return Ok(true);
        }
        if headers.is_empty() && self.loan.write(payload) {
            self.status.set(status);
            self.came.set(Came::Written);
            return Ok(true);
        }
        self.keep(status, payload, headers)
    }

    #[inline(never)]
    fn keep(&self, status: u32, payload: &[u8], headers: &[u8]) -> Result<bool, ()> {
        // Borrowed: whoever uses the previous answer at this depth asks again. This one travels.
        let Ok(mut bytes) = self.payload.try_borrow_mut() else {
            return Ok(false);
        };
        bytes.clear();
        if bytes.capacity() < payload.len() {
            bytes.try_reserve(payload.len().max(64)).map_err(|_| ())?;
        }
        append(&mut bytes, payload);
        self.has_headers.set(!headers.is_empty());
        if !headers.is_empty() {
            let mut kept = self.headers.borrow_mut();
            kept.clear();
            kept.try_reserve(headers.len()).map_err(|_| ())?;
            kept.extend_from_slice(headers);
        }
        self.status.set(status);
        self.came.set(Came::Kept);
        Ok(true)
    }
}

/// Gives an answer to a request that this very thread is asking further up its stack. False: it is
/// not, and the answer must travel. `Err`: no memory.
#[inline(always)]
pub(crate) fn answer_in_place(
    (broker, token): (u64, u64),
    status: u32,
    payload: &[u8],
    headers: &[u8],
) -> Result<bool, ()> {
    let answered = CALLS.try_with(|calls| {
        let calls = calls.get()?;
        Some(calls.answer((broker, token), status, payload, headers))
    });
    let answered = answered.ok().flatten();
    // No stack, or no more: nobody asks on this thread.
    answered.unwrap_or(Ok(false))
}

/// True if no thread (this one aside) runs a handler with this serial. Called after the handler
/// was made inactive and a heavy fence.
pub(crate) fn is_at_rest(serial: u64) -> bool {
    !runs_elsewhere(|other| other == serial)
}

/// True if another thread runs a handler now whose serial is meant. Called after a heavy fence.
pub(crate) fn runs_elsewhere(is_meant: impl Fn(u64) -> bool) -> bool {
    any_other(|thread| thread.runs(&is_meant))
}

fn any_other(is_meant: impl Fn(&Announcements) -> bool) -> bool {
    let me = thread_number();
    let threads = lock(&THREADS);
    let mut threads = threads.iter().filter_map(Weak::upgrade);
    threads.any(|thread| thread.thread != me && is_meant(&thread))
}

impl Announcements {
    fn runs(&self, is_meant: impl Fn(u64) -> bool) -> bool {
        let mut serials = self.serials.iter();
        serials.any(|serial| is_meant(serial.load(Ordering::Acquire)))
    }
}

/// This thread drains a broker. Inside a handler it says so, and leaves out the handlers of others
/// that do the same: they would wait for each other.
pub(crate) struct Draining {
    broker: u64,
    /// `None`: outside of every handler, or without memory to say so.
    calls: Option<Rc<Calls>>,
}

impl Draining {
    pub(crate) fn new(broker: u64) -> Self {
        let calls = of_this_thread().ok();
        let calls = calls.filter(|calls| calls.depth.get() > 0 || handling() != 0);
        if let Some(calls) = &calls {
            calls.announcements.drained.store(broker, Ordering::Release);
        }
        Self { broker, calls }
    }

    fn is_left_out(&self, thread: &Announcements) -> bool {
        self.calls.is_some() && thread.drained.load(Ordering::Acquire) == self.broker
    }

    /// As [`runs_elsewhere`].
    pub(crate) fn waits_for(&self, is_meant: impl Fn(u64) -> bool) -> bool {
        any_other(|thread| !self.is_left_out(thread) && thread.runs(&is_meant))
    }

    /// Whether the queue that a thread serves is left out.
    pub(crate) fn leaves_out(&self, number: u64) -> bool {
        number == thread_number()
            || any_other(|thread| thread.thread == number && self.is_left_out(thread))
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if let Some(calls) = &self.calls {
            calls.announcements.drained.store(0, Ordering::Release);
        }
    }
}

/// Marks this thread as running the handler of a queue while `body` runs.
pub(crate) fn while_handling<R>(place_id: u64, body: impl FnOnce() -> R) -> R {
    struct Restore(u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            HANDLING.set(self.0);
        }
    }
    let _restore = Restore(HANDLING.replace(place_id));
    body()
}

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(0) };
    /// The queue whose handler this thread runs; 0: none.
    static HANDLING: Cell<u64> = const { Cell::new(0) };
}

/// A number of this thread, never 0 and never reused.
#[inline(always)]
pub(crate) fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

/// The queue whose handler this thread runs; 0: none.
pub(crate) fn handling() -> u64 {
    HANDLING.get()
}

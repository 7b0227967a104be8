//! What handles of JavaScript hold of the library, and letting go of it.
//!
//! An object of JavaScript is collected some time, and the collector does not know how much memory
//! of the library hangs on it. So a handle that is closed holds nothing any more, and neither does
//! any handle of a client that is closed.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use fastmq::{Error, Fault, Result, Status};

enum State<T> {
    Open(T),
    /// The handle was closed.
    Closed,
    /// Its client was.
    Ended,
}

/// Something, until its handle or its client is closed.
pub(crate) struct Held<T> {
    state: RefCell<State<T>>,
    /// What is said once the handle is closed.
    closed: &'static Fault,
}

/// What is said once the client is closed.
pub(crate) const CLIENT_CLOSED: Error = Error::new(&Fault(Status::Closed, "the client is closed"));

impl<T> Held<T> {
    pub(crate) fn new(held: T, closed: &'static Fault) -> Self {
        Self {
            state: RefCell::new(State::Open(held)),
            closed,
        }
    }

    /// Calls `body` with it.
    #[inline(always)]
    pub(crate) fn with<R>(&self, body: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        match &mut *self.state.borrow_mut() {
            State::Open(held) => body(held),
            State::Closed => Err(Error::new(self.closed)),
            State::Ended => Err(CLIENT_CLOSED),
        }
    }

    /// Closes the handle: what it held, if it was open.
    pub(crate) fn close(&self) -> Option<T> {
        match self.state.replace(State::Closed) {
            State::Open(held) => Some(held),
            State::Closed | State::Ended => None,
        }
    }
}

/// What is let go of when its client is closed.
pub(crate) trait LetGo {
    fn let_go(&self);
}

impl<T> LetGo for Held<T> {
    fn let_go(&self) {
        let is_open = matches!(*self.state.borrow(), State::Open(_));
        if is_open {
            // Dropped when nothing is borrowed: it may come back here.
            drop(self.state.replace(State::Ended));
        }
    }
}

/// How many handles are listed before those that are gone are looked for.
const LISTED_MIN: usize = 16;

/// The handles of a client; who is collected leaves some time.
#[derive(Default)]
pub(crate) struct Handles {
    listed: RefCell<Vec<Weak<dyn LetGo>>>,
    /// With so many, those that are gone are looked for.
    limit: Cell<usize>,
}

impl Handles {
    pub(crate) fn add<T: LetGo + 'static>(&self, handle: &Rc<T>) {
        let mut listed = self.listed.borrow_mut();
        if listed.len() >= self.limit.get().max(LISTED_MIN) {
            listed.retain(|other| other.strong_count() > 0);
            self.limit.set(listed.len() * 2);
        }
        let handle: Rc<dyn LetGo> = handle.clone();
        listed.push(Rc::downgrade(&handle));
    }

    pub(crate) fn let_go(&self) {
        let listed = self.listed.take();
        for handle in listed.iter().filter_map(Weak::upgrade) {
            handle.let_go();
        }
    }
}

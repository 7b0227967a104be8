//! One thread's part of one client: its writer, and its way to ask and wait.
//!
//! Made when the thread first uses the client, dropped when the thread ends or the client closes.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_memory::allocation::try_rc;
use fastmq_memory::view::{Numbers, Optional, View, view_flag};
use fastmq_memory::{Detached, ReplyBuffer};

use crate::answers::Answers;
use crate::any::Sleeper;
use crate::asking::{Asking, Fate, Here};
use crate::broker::Broker;
use crate::call::{self, Calls};
use crate::error::{Error, Fault, Result, Status, too_deep};
use crate::request::Requester;
use crate::writer::{Message, Writer};

/// Runs `body` with this thread's part of the broker.
#[inline(always)]
pub(crate) fn here<R>(
    broker: &Arc<Broker>,
    body: impl FnOnce(&ThreadClient) -> Result<R>,
) -> Result<R> {
    let find = || Some(broker.clone());
    with_thread_client(broker.id(), find, body)?
}

/// Everything of one client that belongs to one thread: its writer, and its way to ask.
pub struct ThreadClient {
    /// The writer for publishes by subject.
    pub writer: Writer,
    pub(crate) calls: Rc<Calls>,
    pub(crate) answers: OnceCell<Answers>,
    pub(crate) next_number: Cell<u32>,
    /// For questions further up this thread's stack: one for each at most.
    strays: RefCell<Vec<Stray>>,
    /// For questions with several answers.
    pub(crate) many: Cell<Option<Box<Requester>>>,
    /// For waits over several queues; made when first needed.
    sleeper: OnceCell<Arc<Sleeper>>,
}

/// What came for an outer question while an inner one waited.
struct Stray {
    token: u64,
    /// The first answer, or that there was no memory for it.
    answer: Option<Result<Detached>>,
    /// Responders that will not answer, and the last one's reason.
    gone: u32,
    status: u32,
}

impl ThreadClient {
    pub(crate) fn new(broker: &Arc<Broker>) -> Result<Self> {
        Ok(Self {
            writer: Writer::new(broker, None)?,
            calls: call::of_this_thread()?,
            answers: OnceCell::new(),
            next_number: Cell::new(1),
            strays: RefCell::default(),
            many: Cell::default(),
            sleeper: OnceCell::new(),
        })
    }

    /// What this thread sleeps on when it waits for several queues.
    pub(crate) fn sleeper(&self) -> Result<Arc<Sleeper>> {
        if let Some(sleeper) = self.sleeper.get() {
            return Ok(sleeper.clone());
        }
        let sleeper = Sleeper::new(&self.writer.broker().driver)?;
        Ok(self.sleeper.get_or_init(|| sleeper).clone())
    }

    /// Answers a request; see [`Writer::reply`].
    #[inline(always)]
    pub fn reply(&self, token: u64, status: u32, payload: &[u8]) -> Result<()> {
        // An answer to an asker further up this thread's stack does not travel.
        if self.calls.is_asking() && payload.len() <= self.writer.usual_bytes {
            match self
                .calls
                .answer((self.writer.broker().id(), token), status, payload, &[])
            {
                // The asker counts it.
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(()) => return Err(Error::NO_MEMORY),
            }
        }
        self.writer.reply_away(token, status, payload)
    }

    /// Asks by subject and waits for the answer, which `use_answer` gets.
    pub fn request<R>(
        &self,
        message: &Message<'_>,
        timeout_ns: u64,
        use_answer: impl FnOnce(&View) -> R,
    ) -> Result<R> {
        let use_answer = |status, payload: &[u8], headers: &[u8]| {
            with_answer(status, payload, headers, use_answer)
        };
        let mut room = None;
        let message = self
            .writer
            .broker()
            .with_timeout(message, timeout_ns, &mut room);
        self.ask(message.subject, timeout_ns, use_answer, |token, asking| {
            self.writer.request_message(message, token, asking)
        })
    }

    /// The same for a message without optional fields; the answer goes to `reply`.
    #[inline(always)]
    pub fn request_into(
        &self,
        subject: &[u8],
        payload: &[u8],
        timeout_ns: u64,
        reply: &mut ReplyBuffer<'_>,
    ) -> Result<()> {
        let token = self.next_token()?;
        let (calls, message) = (&*self.calls, (subject, payload));
        let asked = self
            .writer
            .ask_here_by_subject(calls, message, token, reply);
        if asked == Here::Answered {
            return Ok(());
        }
        self.ask_on(asked, subject, token, timeout_ns, reply, |asking| {
            self.writer.request(subject, payload, token, asking)
        })
    }

    #[inline(always)]
    pub(crate) fn next_token(&self) -> Result<u64> {
        let answers = match self.answers.get() {
            Some(answers) => answers,
            None => self.open_answers()?,
        };
        let number = self.next_number.get();
        self.next_number.set(number.wrapping_add(1));
        Ok(answers.token(number))
    }

    /// Goes on with a question that was not answered on the shortest way.
    #[inline(never)]
    pub(crate) fn ask_on(
        &self,
        asked: Here,
        subject: &[u8],
        token: u64,
        timeout_ns: u64,
        reply: &mut ReplyBuffer<'_>,
        send: impl FnOnce(Asking<'_>) -> Result<Fate>,
    ) -> Result<()> {
        let mut put = |status, payload: &[u8], _: &[u8]| reply.put(status, payload);
        match asked {
            Here::Answered => Ok(()),
            Here::Kept => {
                self.calls.use_answer(put);
                Ok(())
            }
            Here::Pending => self.wait_for(token, 1, timeout_ns, |view| {
                put(view.status, view.payload(), &[]);
            }),
            Here::Elsewhere => self.ask_with(subject, token, timeout_ns, put, send),
            Here::TooDeep => Err(too_deep()),
            Here::NoMemory => Err(Error::NO_MEMORY),
        }
    }

    pub(crate) fn ask<R>(
        &self,
        subject: &[u8],
        timeout_ns: u64,
        use_answer: impl FnOnce(u32, &[u8], &[u8]) -> R,
        send: impl FnOnce(u64, Asking<'_>) -> Result<Fate>,
    ) -> Result<R> {
        let token = self.next_token()?;
        self.ask_with(subject, token, timeout_ns, use_answer, |asking| {
            send(token, asking)
        })
    }

    pub(crate) fn ask_with<R>(
        &self,
        subject: &[u8],
        token: u64,
        timeout_ns: u64,
        use_answer: impl FnOnce(u32, &[u8], &[u8]) -> R,
        send: impl FnOnce(Asking<'_>) -> Result<Fate>,
    ) -> Result<R> {
        let mut use_answer = Some(use_answer);
        let mut result = None;
        let mut now = |status: u32, payload: &[u8], headers: &[u8]| {
            if let Some(use_answer) = use_answer.take() {
                result = Some(use_answer(status, payload, headers));
            }
        };
        let fate = send(Asking::Now(&self.calls, &mut now))?;
        match (result, use_answer, fate) {
            (Some(result), _, _) => Ok(result),
            (None, Some(use_answer), Fate::Sent(responders)) => {
                self.wait_for(token, responders, timeout_ns, |view| {
                    use_answer(view.status, view.payload(), view.headers())
                })
            }
            (None, _, _) => Err(fate_error(fate, subject)),
        }
    }

    #[cold]
    pub(crate) fn open_answers(&self) -> Result<&Answers> {
        let answers = Answers::open(self.writer.broker(), None)?;
        // Room for what comes for outer questions: it must not get lost for want of memory.
        let mut strays = self.strays.borrow_mut();
        strays
            .try_reserve(call::INLINE_DEPTH_MAX)
            .map_err(|_| Error::NO_MEMORY)?;
        Ok(self.answers.get_or_init(|| answers))
    }

    /// Waits for the first answer of those who have the request. One who will not answer (the
    /// engine says so in their place) is the end only if nobody else is left.
    #[inline(never)]
    pub(crate) fn wait_for<R>(
        &self,
        token: u64,
        responders: u32,
        timeout_ns: u64,
        use_answer: impl FnOnce(&View) -> R,
    ) -> Result<R> {
        let Some(answers) = self.answers.get() else {
            return Err(Error::CLOSED);
        };
        let broker: &Broker = self.writer.broker();
        if let Some(uplink) = &broker.uplink {
            // It leaves before this thread does anything else.
            uplink.send_added();
        }
        let start_ns = broker.driver.monotonic_ns();
        let deadline_ns = start_ns.saturating_add(timeout_ns);
        let (mut left, mut left_ns) = (responders, timeout_ns);
        if let Some(stray) = self.take_stray(token) {
            if let Some(answer) = stray.answer {
                return Ok(use_answer(&answer?.messages()[0]));
            }
            left = left.saturating_sub(stray.gone);
            if left == 0 {
                return Err(gone_error(stray.status));
            }
        }
        loop {
            match answers.place.receive(broker, 1, left_ns) {
                Ok(batch) => {
                    let view = &batch.messages()[0];
                    if view.token != token {
                        self.keep_stray(view);
                    } else if view.flags & view_flag::GONE == 0 {
                        return Ok(use_answer(view));
                    } else {
                        left = left.saturating_sub(1);
                        if left == 0 {
                            return Err(gone_error(view.status));
                        }
                    }
                }
                Err(error) if matches!(error.status(), Status::Timeout | Status::Again) => {
                    broker.give_up(token);
                    return Err(Error::new(&Fault(
                        Status::Timeout,
                        "the responder did not answer within the timeout",
                    )));
                }
                Err(error) if error.status() == Status::End => return Err(Error::CLOSED),
                Err(error) => return Err(error),
            }
            left_ns = deadline_ns.saturating_sub(broker.driver.monotonic_ns());
        }
    }

    fn take_stray(&self, token: u64) -> Option<Stray> {
        let mut strays = self.strays.borrow_mut();
        let at = strays.iter().position(|one| one.token == token)?;
        Some(strays.swap_remove(at))
    }

    /// Keeps an answer for an outer question; one that nobody waits for any more is dropped.
    #[cold]
    fn keep_stray(&self, view: &View) {
        let broker = self.writer.broker().id();
        let mut strays = self.strays.borrow_mut();
        // An outer question that was answered in place leaves its stray behind.
        strays.retain(|stray| self.calls.is_asked((broker, stray.token)));
        let is_gone = view.flags & view_flag::GONE != 0;
        let at = strays.iter().position(|one| one.token == view.token);
        let is_late = at.is_some_and(|at| strays[at].answer.is_some());
        if is_late || !self.calls.is_asked((broker, view.token)) {
            let late_answers = &self.writer.broker().late_answers;
            late_answers.fetch_add(u64::from(!is_gone), Ordering::Relaxed);
            return;
        }
        let at = at.unwrap_or(strays.len());
        if at == strays.len() {
            // Without memory the outer question ends by its time-out.
            if strays.try_reserve(1).is_err() {
                return;
            }
            strays.push(Stray {
                token: view.token,
                answer: None,
                gone: 0,
                status: 0,
            });
        }
        let stray = &mut strays[at];
        if is_gone {
            stray.gone += 1;
            stray.status = view.status;
        } else {
            let copy = Detached::copy(std::slice::from_ref(view));
            stray.answer = Some(copy.ok_or(Error::NO_MEMORY));
        }
    }
}

/// Why nobody will answer a request that was sent.
#[cold]
pub(crate) fn gone_error(status: u32) -> Error {
    const BUSY: u32 = Status::Busy as u32;
    const TIMEOUT: u32 = Status::Timeout as u32;
    const NO_RESPONDER: u32 = Status::NoResponder as u32;
    const DISCONNECTED: u32 = Status::Disconnected as u32;
    Error::new(match status {
        BUSY => &Fault(
            Status::Busy,
            "a newer message took the request's place in the responder's queue",
        ),
        TIMEOUT => &Fault(
            Status::Timeout,
            "the request's time to live ended before a responder read it",
        ),
        NO_RESPONDER => &Fault(Status::NoResponder, "nobody answers this subject now"),
        DISCONNECTED => &Fault(
            Status::Disconnected,
            "the connection broke before an answer came; whether it was carried out is unknown",
        ),
        _ => &CANCELLED,
    })
}

static CANCELLED: Fault = Fault(
    Status::Cancelled,
    "the responder went away before it answered",
);

#[cold]
pub(crate) fn fate_error(fate: Fate, subject: &[u8]) -> Error {
    match fate {
        Fate::Sent(_) | Fate::Cancelled => Error::new(&CANCELLED),
        Fate::NoResponder => Error::with(
            &Fault(Status::NoResponder, "nobody answers this subject now"),
            format_args!(
                "nobody answers {} now",
                std::str::from_utf8(subject).unwrap_or("this subject")
            ),
        ),
        Fate::Busy => Error::new(&Fault(
            Status::Busy,
            "the responder's queue is full; try again later",
        )),
    }
}

/// Gives a view of an answer that is not in a lane.
pub(crate) fn with_answer<R>(
    status: u32,
    payload: &[u8],
    headers: &[u8],
    use_answer: impl FnOnce(&View) -> R,
) -> R {
    let numbers = Numbers {
        status,
        ..Numbers::default()
    };
    let optional = Optional {
        headers,
        ..Optional::default()
    };
    View::with_borrowed(&[], payload, numbers, Some(optional), use_answer)
}

/// The client that the thread used last, with its broker's id.
type Last = Option<(u64, Rc<ThreadClient>)>;

#[derive(Default)]
struct ThreadClients {
    last: RefCell<Last>,
    all: RefCell<Vec<(u64, Rc<ThreadClient>)>>,
}

impl Drop for ThreadClients {
    fn drop(&mut self) {
        // In a forked child a lock may be held for ever by a thread that is not there.
        if fastmq_driver::fork::is_forked_child() {
            std::mem::forget(self.last.take());
            std::mem::forget(self.all.take());
        }
    }
}

thread_local! {
    static CLIENTS: ThreadClients = ThreadClients::default();
}

/// Runs `body` with this thread's part of the broker with this id. `find` gives the broker when the
/// thread meets it for the first time. CLOSED: there is no such broker. MISUSE: the thread is
/// ending. NO_MEMORY: none for the thread's part.
#[inline(always)]
pub fn with_thread_client<R>(
    id: u64,
    find: impl FnOnce() -> Option<Arc<Broker>>,
    body: impl FnOnce(&ThreadClient) -> R,
) -> Result<R> {
    CLIENTS
        .try_with(|clients| {
            let known = |last: &Ref<'_, Last>| matches!(&**last, Some((other, _)) if *other == id);
            let last = clients.last.try_borrow().ok().filter(known);
            // One call of `body`, so that it becomes part of its caller.
            let met;
            let client = match last.as_deref() {
                Some(Some((_, client))) => client,
                _ => {
                    met = meet(clients, id, find)?;
                    &met
                }
            };
            Ok(body(client))
        })
        .unwrap_or(Err(THREAD_ENDS))
}

const THREAD_ENDS: Error = Error::new(&Fault(
    Status::Misuse,
    "this thread is ending and has given up its part of the client; publish through a handle",
));

#[cold]
#[inline(never)]
fn meet(
    clients: &ThreadClients,
    id: u64,
    find: impl FnOnce() -> Option<Arc<Broker>>,
) -> Result<Rc<ThreadClient>> {
    let known = clients
        .all
        .borrow()
        .iter()
        .find(|(other, _)| *other == id)
        .map(|(_, c)| c.clone());
    let client = match known {
        Some(client) => client,
        None => {
            let broker = find().ok_or(Error::CLOSED)?;
            let client = try_rc(ThreadClient::new(&broker)?)?;
            while let Some(closed) = take_closed(clients) {
                // Dropped without a borrow: a writer's end may touch much.
                drop(closed);
            }
            let mut all = clients.all.borrow_mut();
            all.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
            all.push((id, client.clone()));
            client
        }
    };
    if let Ok(mut last) = clients.last.try_borrow_mut() {
        *last = Some((id, client.clone()));
    }
    Ok(client)
}

/// Takes out a client whose broker was closed.
fn take_closed(clients: &ThreadClients) -> Option<Rc<ThreadClient>> {
    let mut all = clients.all.borrow_mut();
    let is_closed = |(_, client): &(u64, Rc<ThreadClient>)| client.writer.broker().is_closed();
    let at = all.iter().position(is_closed)?;
    Some(all.swap_remove(at).1)
}

/// Drops this thread's part of a broker that was closed.
pub(crate) fn forget_thread_client(id: u64) {
    let _ = CLIENTS.try_with(|clients| {
        if let Ok(mut last) = clients.last.try_borrow_mut()
            && last.as_ref().is_some_and(|(other, _)| *other == id)
        {
            *last = None;
        }
        let gone = clients.all.try_borrow_mut().ok().and_then(|mut all| {
            let at = all.iter().position(|(other, _)| *other == id)?;
            Some(all.swap_remove(at))
        });
        drop(gone);
    });
}

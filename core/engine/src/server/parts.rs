//! What the sessions of a shard share.

use std::rc::Rc;
use std::sync::Arc;

use fastmq_memory::allocation::{try_arc, try_box};
use fastmq_memory::sync::Mutex;
use fastmq_memory::words::{expect, expect_shared};

use crate::answers::REQUESTER_INDEX_MASK;
use crate::broker::Broker;
use crate::call::{self, Calls};
use crate::error::{Error, Result};
use crate::log::{self, Level};
use crate::rings::Offer;
use crate::writer::Writer;

use super::asking::Answer;
use super::inbox::{Inbox, Nudge, SessionKey, Source};
use super::outlets::Outlets;
use super::session::Session;
use super::stats::Board;
use super::{Changes, ServerOptions, TURN_SESSIONS};

/// Bytes of vectors that are kept for what connections say next, and of the largest of them.
const POOL_BYTES_MAX: usize = 8 << 20;
const POOLED_BYTES_MAX: usize = 1 << 20;
/// Payloads of answers that inline responders leave where they are taken from; larger ones are
/// kept for a moment.
const REPLY_BYTES: usize = 1024;

/// The broker and what a shard has of it.
pub struct Parts {
    pub(super) broker: Arc<Broker>,
    /// All that connections publish, ask and answer goes through it, so that their order holds.
    pub(super) writer: Writer,
    pub(super) inbox: Arc<Inbox>,
    pub(super) options: ServerOptions,
    /// Those of the options that may change while it runs: what counts is here.
    pub(super) changes: Arc<Mutex<Changes>>,
    /// Which run of the server this is.
    pub(super) instance: u64,
    /// What the shards of the server say of it.
    pub(super) board: Arc<Board>,
    /// The turn's time.
    pub(super) now_ns: u64,
    /// Connections that may still have rings.
    pub(super) rings_left: usize,
    /// No new connections and subscriptions.
    pub(super) is_draining: bool,
    /// The sessions of a shard, by their index. One that is at work is not here: it finds the
    /// others, so that what is theirs can be given to them at once.
    pub(super) sessions: Vec<Option<Box<Session>>>,
    /// Sessions that have something to do or to say, in the order in which they have their turn.
    /// Each once; those that are served now, and again behind them.
    pub(super) touched: Vec<u32>,
    pub(super) pool: Pool,
    /// The queues of their subscriptions.
    pub(super) outlets: Outlets,
    known: u64,
    /// Sessions whose publishes wait for room.
    waiting: Vec<u32>,
    /// A queue was emptied, or a connection takes deliveries again, since they last tried.
    pub(super) has_room: bool,
    /// The sessions that ask, as (requester, index), by the requester's place in the table.
    askers: Vec<(u32, u32)>,
    /// What this thread runs.
    pub(super) calls: Rc<Calls>,
    /// Where an inline responder leaves its answer.
    pub(super) reply: Box<[u8; REPLY_BYTES]>,
}

impl Parts {
    /// For sessions without a shard: nothing wakes anybody.
    ///
    /// # Errors
    /// NO_MEMORY.
    pub fn new(broker: &Arc<Broker>, options: ServerOptions) -> Result<Self> {
        Self::over(broker, options, Inbox::new(None))
    }

    pub(super) fn over(
        broker: &Arc<Broker>,
        options: ServerOptions,
        inbox: Arc<Inbox>,
    ) -> Result<Self> {
        let driver = broker.driver();
        let room = Nudge::new(&inbox, SessionKey::default(), Source::Room);
        let mut writer = Writer::new(broker, None)?;
        writer.shard = Some(room.ok_or(Error::NO_MEMORY)?.into());
        let changes = Changes::of(&options);
        Ok(Self {
            broker: broker.clone(),
            writer,
            inbox,
            changes: try_arc(Mutex::new(changes))?,
            options,
            instance: driver.random(),
            board: Board::new(driver.monotonic_ns())?,
            now_ns: driver.monotonic_ns(),
            rings_left: crate::rings::RINGS_MAX,
            is_draining: false,
            sessions: Vec::new(),
            touched: Vec::new(),
            pool: Pool::default(),
            outlets: Outlets::default(),
            known: 0,
            waiting: Vec::new(),
            has_room: false,
            askers: Vec::new(),
            calls: call::of_this_thread()?,
            reply: try_box([0; REPLY_BYTES])?,
        })
    }

    /// Reads the clock: once a turn.
    pub fn read_clock(&mut self) -> u64 {
        self.now_ns = self.broker.driver().monotonic_ns();
        self.now_ns
    }

    /// Makes room for so many sessions; false: there is no memory.
    pub(super) fn reserve(&mut self, count: usize) -> bool {
        let missing = count.saturating_sub(self.sessions.len());
        let is_room = self.sessions.try_reserve(missing).is_ok()
            && self
                .touched
                .try_reserve((count + TURN_SESSIONS).saturating_sub(self.touched.len()))
                .is_ok();
        if is_room && missing > 0 {
            self.sessions.resize_with(count, || None);
        }
        is_room
    }

    /// Asks for the memory of the touched sessions behind `at`, which are served next, each step
    /// for what the one before has brought: to wait for it was most of what a delivery to one of
    /// thousands cost.
    #[inline]
    pub(super) fn expect_next(&self, at: usize) {
        let ahead = |steps| {
            let index = *self.touched.get(at + steps)?;
            self.sessions.get(index as usize)?.as_deref()
        };
        ahead(4).into_iter().for_each(expect);
        ahead(3).into_iter().for_each(Session::expect_feeds);
        if let Some(feed) = ahead(2).and_then(Session::first_ready) {
            expect_shared(&feed.place);
        }
        if let Some(feed) = ahead(1).and_then(Session::first_ready) {
            expect(feed.place.lanes());
        }
    }

    /// The same for those that queues have been listed for.
    #[inline]
    pub(super) fn expect_nudged(&self, nudges: &[Arc<Nudge>], at: usize) {
        nudges.get(at + 4).into_iter().for_each(expect_shared);
        if let Some(nudge) = nudges.get(at + 2)
            && let Some(Some(session)) = self.sessions.get(nudge.session.index as usize)
        {
            expect(&**session);
        }
    }

    /// Takes a session to work with; [`put_back`](Parts::put_back) gives it back.
    #[inline]
    pub(super) fn take_session(&mut self, index: u32) -> Option<Box<Session>> {
        self.sessions.get_mut(index as usize)?.take()
    }

    /// Gives back a session of this shard.
    #[inline]
    pub(super) fn put_back(&mut self, session: Box<Session>) {
        if let Some(slot) = self.sessions.get_mut(session.key.index as usize) {
            *slot = Some(session);
        }
    }

    /// Has a session looked at in this turn, with a vector for what it is about to say: an idle one
    /// has none.
    #[inline(always)]
    pub(super) fn touch(&mut self, session: &mut Session) {
        touch(session, &mut self.touched, &mut self.pool);
    }

    /// Notes the requester of a session; false: there is no memory.
    pub(super) fn note_asker(&mut self, requester: u32, session: u32) -> bool {
        let index = (requester & REQUESTER_INDEX_MASK) as usize;
        let missing = (index + 1).saturating_sub(self.askers.len());
        if self.askers.try_reserve(missing).is_err() {
            return false;
        }
        if missing > 0 {
            self.askers.resize(index + 1, (0, 0));
        }
        self.askers[index] = (requester, session);
        true
    }

    /// Gives an answer to the connection of this shard that asked, past its queue. False: there is
    /// none, or it has enough to send.
    #[inline(always)]
    pub(super) fn answer_here(&mut self, token: u64, answer: &Answer<'_>) -> bool {
        let requester = (token >> 32) as u32;
        let index = (requester & REQUESTER_INDEX_MASK) as usize;
        match self.askers.get(index) {
            Some((known, session)) if *known == requester => {
                let Some(Some(session)) = self.sessions.get_mut(*session as usize) else {
                    return false;
                };
                touch(session, &mut self.touched, &mut self.pool);
                session.take_answer(&self.broker, token, answer)
            }
            _ => false,
        }
    }

    /// Has a session tried again when a connection of this shard has room.
    #[inline(always)]
    pub(super) fn wait_for_room(&mut self, session: &mut Session) {
        // Without memory there is still the clock.
        if !session.is_waiting && self.waiting.try_reserve(1).is_ok() {
            session.is_waiting = true;
            self.waiting.push(session.key.index);
        }
    }

    /// Has those touched that wait for room, if there is some.
    pub(super) fn wake_waiting(&mut self) {
        if !std::mem::take(&mut self.has_room) {
            return;
        }
        for index in self.waiting.drain(..) {
            if let Some(Some(session)) = self.sessions.get_mut(index as usize) {
                session.is_waiting = false;
                session.parked_again_ns = 0;
                touch(session, &mut self.touched, &mut self.pool);
            }
        }
    }

    /// A number for a subject that a connection has an alias for.
    pub(super) fn next_known(&mut self) -> u64 {
        self.known += 1;
        self.known
    }

    /// Rings for one connection more; `None`: there are as many as may be, or no memory.
    pub(super) fn offer_rings(&mut self) -> Option<Box<Offer>> {
        self.rings_left.checked_sub(1)?;
        let made = Offer::make().map(try_box);
        if let Err(error) = &made {
            let text = format!("a connection has no shared memory: {error}");
            log::write(Level::Warn, "server", &text);
        }
        let offer = made.ok()?.ok()?;
        self.rings_left -= 1;
        Some(offer)
    }

    /// New connections and subscriptions are refused from now on.
    pub fn start_draining(&mut self) {
        self.is_draining = true;
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// Vectors that nobody uses, so that an idle connection needs none and a busy one grows none.
#[derive(Default)]
pub(super) struct Pool {
    vectors: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// Keeps a vector, which is empty.
    #[inline]
    pub(super) fn keep(&mut self, vector: Vec<u8>) {
        let bytes = vector.capacity();
        let is_fit = (1..=POOLED_BYTES_MAX).contains(&bytes);
        if is_fit && self.bytes + bytes <= POOL_BYTES_MAX && self.vectors.try_reserve(1).is_ok() {
            self.bytes += bytes;
            self.vectors.push(vector);
        }
    }

    #[inline]
    fn take(&mut self) -> Option<Vec<u8>> {
        let vector = self.vectors.pop()?;
        self.bytes -= vector.capacity();
        Some(vector)
    }
}

/// See [`Parts::touch`].
#[inline(always)]
pub(super) fn touch(session: &mut Session, touched: &mut Vec<u32>, pool: &mut Pool) {
    if !session.is_touched {
        touch_first(session, touched, pool);
    }
}

#[inline(never)]
fn touch_first(session: &mut Session, touched: &mut Vec<u32>, pool: &mut Pool) {
    if touched.len() == touched.capacity() && touched.try_reserve(1).is_err() {
        return;
    }
    touched.push(session.key.index);
    session.is_touched = true;
    let out = session.outgoing();
    if out.capacity() == 0
        && let Some(vector) = pool.take()
    {
        *out = vector;
    }
}

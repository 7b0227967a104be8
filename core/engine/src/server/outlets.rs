//! What is sent past the queues: messages that are routed on the shard's own thread to connections
//! of the same shard.
//!
//! An [`Outlet`] is the queue of a subscription as the shard's writer sees it. `Place::outlet`
//! names it, and the writer's lane has the name at hand: so whoever has a route has the outlets of
//! its targets, and looks nothing up.
//!
//! **Order.** An outlet is open to a message while nothing that the same writer has put into its
//! queue is still in there, nothing is held back, and no loss is left to be told. Messages of other
//! writers have no order to keep with ours.
//!
//! **All or nothing.** An open outlet refuses nothing. So the others are sent to first, through
//! their queues: if one of them refuses, nobody has the message.

use std::sync::atomic::{AtomicU32, Ordering};

use fastmq_memory::Policy;
use fastmq_wire::{Draft, NoMemory, Subject};

use crate::error::{Error, Fault, Result, Status};
use crate::frames::Shared;
use crate::message::Message;
use crate::route::{LaneTarget, Many, Targets};
use crate::writer::{Lane, count};

use super::parts::Parts;
use super::publishing::Origin;
use super::session::Session;

/// Payloads above this go to a connection past one queue each, however many of its subscriptions
/// match: there is no bound on what one message brings otherwise.
const LARGE_BYTES: usize = 1024;

static HELD_UP: Fault = Fault(Status::Again, "the subscriber has enough to read");

/// One queue of a connection.
#[derive(Clone, Copy, Debug)]
struct Outlet {
    /// The connection's place in the shard.
    session: u32,
    /// The client's number for the subscription.
    number: u32,
    /// Its queue was found empty once: what the subscription began with is out.
    is_open: bool,
    /// The known subject of the last message, and its alias.
    last: (u64, u32),
}

/// The outlets of a shard.
#[derive(Debug)]
pub(super) struct Outlets {
    /// This shard, of all that the process ever had.
    shard: u32,
    all: Vec<Option<Outlet>>,
    free: Vec<u32>,
    /// How many large messages there were.
    larges: u64,
    /// Of the message that is being sent: targets of queues, and the outlets of the others.
    queued: Vec<LaneTarget>,
    open: Vec<u32>,
    /// The frame of that message.
    frame: Shared,
}

impl Default for Outlets {
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self {
            shard: NEXT.fetch_add(1, Ordering::Relaxed),
            all: Vec::new(),
            free: Vec::new(),
            larges: 0,
            queued: Vec::new(),
            open: Vec::new(),
            frame: Shared::default(),
        }
    }
}

impl Outlets {
    /// Opens one for a subscription of a connection; gives its name, which is not 0 and that of no
    /// other shard's.
    pub(super) fn open(&mut self, session: u32, number: u32) -> Result<u64> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let count = self.all.len() + 1;
                // The list of free ones too, so that closing one needs no memory.
                let missing = count - self.free.len();
                if self.all.try_reserve(1).is_err() || self.free.try_reserve(missing).is_err() {
                    return Err(Error::NO_MEMORY);
                }
                self.all.push(None);
                count as u32 - 1
            }
        };
        self.all[index as usize] = Some(Outlet {
            session,
            number,
            is_open: false,
            last: (0, 0),
        });
        Ok(u64::from(self.shard) << 32 | u64::from(index))
    }

    /// Closes one, to which no current route leads any more.
    pub(super) fn close(&mut self, name: u64) {
        if let Some(outlet) = self.all.get_mut(name as u32 as usize)
            && outlet.take().is_some()
        {
            self.free.push(name as u32);
        }
    }

    /// The queue of one was found empty.
    pub(super) fn found_empty(&mut self, name: u64) {
        if let Some(Some(outlet)) = self.all.get_mut(name as u32 as usize) {
            outlet.is_open = true;
        }
    }

    /// The outlet of a lane's queue, as far as it is one of this shard's. `large` is the number of
    /// the message if it is a large one, else 0.
    #[inline(always)]
    fn of(&self, sessions: &[Option<Box<Session>>], lane: &Lane, large: u64) -> Way {
        let name = lane.outlet;
        if (name >> 32) as u32 != self.shard {
            return Way::Queue;
        }
        let Some(Some(outlet)) = self.all.get(name as u32 as usize) else {
            return Way::Queue;
        };
        // A session that is at work is not there: its own messages go through its queues.
        let Some(Some(session)) = sessions.get(outlet.session as usize) else {
            return Way::Queue;
        };
        let is_open = outlet.is_open && lane.writer.has_nothing_before();
        if !(session.takes_deliveries() && is_open) {
            return Way::Shut;
        }
        match large > 0 && session.last_large.replace(large) == large {
            true => Way::Shut,
            false => Way::Open(name as u32),
        }
    }
}

/// How a message gets to a target.
enum Way {
    /// Past the queue, by an outlet.
    Open(u32),
    /// Through the queue for now: it is not empty, or its connection has enough to send.
    Shut,
    Queue,
}

impl Parts {
    /// Sends along a route of the shard's writer, whole or not at all. `known` is the number of a
    /// subject that a connection has an alias for, else 0. `waits`: one that waits already does so
    /// until a queue of this shard is empty, rather than keep it full.
    ///
    /// # Errors
    /// AGAIN: a queue that nothing is dropped from is full. Those of [`Writer::publish`].
    ///
    /// [`Writer::publish`]: crate::writer::Writer::publish
    pub(super) fn send(
        &mut self,
        targets: &Targets,
        message: &Message<'_>,
        origin: Origin,
        known: u64,
        waits: bool,
    ) -> Result<()> {
        let writer = &self.writer;
        let (plain, many) = match targets {
            Targets::One(target) => (std::slice::from_ref(target), None),
            Targets::Many(many) => (&many.plain[..], Some(&**many)),
            _ => return writer.send_from(targets, message, origin),
        };
        let outlets = &mut self.outlets;
        outlets.queued.clear();
        outlets.open.clear();
        let mut large = 0;
        if message.payload.len() > LARGE_BYTES {
            outlets.larges += 1;
            large = outlets.larges;
        }
        let is_room = outlets.queued.try_reserve(plain.len()).is_ok()
            && outlets.open.try_reserve(plain.len()).is_ok();
        if !is_room {
            return writer.send_from(targets, message, origin);
        }
        {
            let lanes = writer.lanes.borrow();
            for target in plain {
                let Some(Some(lane)) = lanes.slots.get(target.lane as usize) else {
                    continue;
                };
                match outlets.of(&self.sessions, lane, large) {
                    Way::Open(outlet) => outlets.open.push(outlet),
                    Way::Shut
                        if waits
                            && many.is_none()
                            && lane.writer.policy() == Policy::Backpressure =>
                    {
                        return Err(Error::new(&HELD_UP));
                    }
                    Way::Shut | Way::Queue => outlets.queued.push(*target),
                }
            }
        }
        if outlets.open.is_empty() {
            return writer.send_from(targets, message, origin);
        }
        let mut origin = origin;
        if message.has_more() || !writer.is_usual(message.payload) {
            // For its checks, and its time where messages have one.
            let draft = writer.draft(message)?;
            origin.timestamp_ns = match origin.timestamp_ns {
                0 => draft.timestamp,
                known => known,
            };
        }
        if let Some(many) = many {
            self.send_to_others(many, message, origin)?;
        }
        self.send_past_queues(message, origin, known);
        let writer = &self.writer;
        if let Some(many) = many
            && !(many.latest.is_empty() && many.inline.is_empty())
        {
            let draft = writer.draft_from(message, origin)?;
            writer.send_rest(many, message, &draft);
        }
        writer.count_call(&writer.counters.published);
        Ok(())
    }

    /// Sends to the targets that may refuse.
    fn send_to_others(&mut self, many: &Many, message: &Message<'_>, origin: Origin) -> Result<()> {
        if self.outlets.queued.is_empty() && many.groups.is_empty() {
            return Ok(());
        }
        many.forget_room();
        let draft = self.writer.draft_from(message, origin)?;
        let (queued, groups) = (&self.outlets.queued, &many.groups);
        self.writer.send_any(queued, groups, message, &draft)?;
        Ok(())
    }

    fn send_past_queues(&mut self, message: &Message<'_>, origin: Origin, known: u64) {
        let (subject, payload) = (message.subject, message.payload);
        let mut draft = Draft::message(0, Subject::Text(subject), payload);
        draft.sequence = (origin.sequence > 0).then_some(origin.sequence);
        draft.publisher = (origin.publisher > 0).then_some(origin.publisher);
        draft.timestamp_ns = (origin.timestamp_ns > 0).then_some(origin.timestamp_ns);
        draft.reply_to = message.reply_to;
        draft.key = message.key;
        draft.headers = message.headers;
        let open = std::mem::take(&mut self.outlets.open);
        count(&self.writer.counters.inline, open.len() as u64);
        self.outlets.frame.clear();
        for index in &open {
            let outlets = &mut self.outlets;
            let Some(Some(outlet)) = outlets.all.get_mut(*index as usize) else {
                continue;
            };
            let Some(Some(session)) = self.sessions.get_mut(outlet.session as usize) else {
                continue;
            };
            super::parts::touch(session, &mut self.touched, &mut self.pool);
            let sent = match known > 0 && outlet.last.0 == known {
                true => Ok(Some(outlet.last.1)),
                false => session.alias_of(subject),
            };
            let sent = sent.and_then(|alias| match alias {
                Some(alias)
                    if outlets.frame.size() > 0
                        && outlets.frame.size() <= session.theirs.frame_max as usize =>
                {
                    outlet.last = (known, alias);
                    session.put_frame(&outlets.frame, outlet.number, alias)
                }
                Some(alias) => {
                    outlet.last = (known, alias);
                    draft.address(outlet.number, Subject::Alias(alias));
                    if draft.length() > session.theirs.frame_max as usize {
                        return session.skip(outlet.number, 1, subject);
                    }
                    if open.len() > 1 && outlets.frame.size() == 0 {
                        outlets.frame.make(&draft)?;
                    }
                    session.put(&draft)
                }
                None => {
                    draft.address(outlet.number, Subject::Text(subject));
                    match draft.length() > session.theirs.frame_max as usize {
                        true => session.skip(outlet.number, 1, subject),
                        false => session.put(&draft),
                    }
                }
            });
            if sent.is_err() {
                let index = outlet.session;
                self.out_of_memory(index);
            }
        }
        self.outlets.open = open;
    }

    /// Hands a request to a connection of this shard past its queue. False: it has to go through
    /// that. `known` as in [`send`](Parts::send).
    #[inline(always)]
    pub(super) fn ask_past_queue(
        &mut self,
        target: LaneTarget,
        (subject, payload): (&[u8], &[u8]),
        token: u64,
        known: u64,
    ) -> bool {
        let (writer, outlets) = (&self.writer, &mut self.outlets);
        let name = match writer.lanes.borrow().slots.get(target.lane as usize) {
            Some(Some(lane)) if lane.writer.has_nothing_before() => lane.outlet,
            _ => return false,
        };
        if (name >> 32) as u32 != outlets.shard {
            return false;
        }
        let Some(Some(outlet)) = outlets.all.get_mut(name as u32 as usize) else {
            return false;
        };
        let session = match self.sessions.get_mut(outlet.session as usize) {
            Some(Some(session)) if outlet.is_open && session.takes_questions() => session,
            _ => return false,
        };
        super::parts::touch(session, &mut self.touched, &mut self.pool);
        let subject = match known > 0 && outlet.last.0 == known {
            true => Subject::Alias(outlet.last.1),
            false => match session.alias_of(subject) {
                Ok(Some(alias)) => {
                    outlet.last = (known, alias);
                    Subject::Alias(alias)
                }
                Ok(None) => Subject::Text(subject),
                Err(NoMemory) => return false,
            },
        };
        if !session.put_question(&self.broker, outlet.number, subject, token, payload) {
            return false;
        }
        count(&writer.counters.inline, 1);
        writer.count_call(&writer.counters.requests);
        true
    }

    /// Ends the connection that could not be given its message.
    #[cold]
    fn out_of_memory(&mut self, index: u32) {
        if let Some(mut session) = self.take_session(index) {
            session.refuse(self, &NoMemory.into());
            self.put_back(session);
        }
    }
}

impl Session {
    /// Appends a frame whose subject is an alias, for another subscription and alias.
    #[inline(always)]
    fn put_frame(
        &mut self,
        frame: &Shared,
        number: u32,
        alias: u32,
    ) -> std::result::Result<(), NoMemory> {
        frame.append(self.room_for(frame.size()), number, alias)
    }
}

//! Where answers go: queues of answers and the table of who asks.
//!
//! A token's upper half is the asker's id in this table, so an answer needs no table in between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_memory::record::flag;
use fastmq_memory::sync::lock;
use fastmq_memory::{Kind, Plain, Refused, Tried};

use crate::asking::reply_refused;
use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::link::Uplink;
use crate::place::{Place, QueueOptions};
use crate::survey::LEG;
use crate::wait::Profile;
use crate::writer::{Writer, count};

/// Bits of a requester's id that name its place in the table: 524,288 requesters at once.
pub(crate) const REQUESTER_INDEX_BITS: u32 = 19;
/// The same as a mask.
pub(crate) const REQUESTER_INDEX_MASK: u32 = (1 << REQUESTER_INDEX_BITS) - 1;
/// Generations of a place; the top bit of a token stays 0.
pub(crate) const REQUESTER_GENERATIONS: u32 = 1 << 12;

/// The token of a requester's request.
#[inline(always)]
pub(crate) fn token_of(requester: u32, number: u32) -> u64 {
    u64::from(requester) << 32 | u64::from(number)
}

/// Who waits for answers.
#[derive(Debug, Default)]
pub(crate) struct Requesters {
    pub(crate) places: Vec<(u32, Option<Arc<Place>>)>,
    pub(crate) free: VecDeque<u32>,
}

impl Requesters {
    /// Enters a queue of answers and gives its requester's id.
    pub(crate) fn enter(&mut self, place: &Arc<Place>) -> Result<u32> {
        let index = if self.free.len() > 64 {
            self.free.pop_front()
        } else {
            None
        };
        let index = match index {
            Some(index) => index,
            None if self.places.len() as u32 <= REQUESTER_INDEX_MASK => {
                let count = self.places.len() + 1;
                let is_room = self.places.try_reserve(1).is_ok()
                    // So that leaving needs no memory.
                    && self.free.try_reserve(count - self.free.len()).is_ok();
                if !is_room {
                    return Err(Error::NO_MEMORY);
                }
                self.places.push((0, None));
                count as u32 - 1
            }
            None => self.free.pop_front().ok_or(Error::new(&Fault(
                Status::NoSpace,
                "there are 524,288 requesters already; close some",
            )))?,
        };
        let (generation, slot) = &mut self.places[index as usize];
        // Generation 0 is never used, so that no token is 0.
        *generation = *generation % (REQUESTER_GENERATIONS - 1) + 1;
        *slot = Some(place.clone());
        Ok(index | *generation << REQUESTER_INDEX_BITS)
    }

    /// All queues of answers.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.places.iter().filter_map(|(_, place)| place.as_ref())
    }

    pub(crate) fn leave(&mut self, id: u32) {
        let index = id & REQUESTER_INDEX_MASK;
        if let Some((generation, slot)) = self.places.get_mut(index as usize)
            && *generation == id >> REQUESTER_INDEX_BITS
            && slot.take().is_some()
        {
            self.free.push_back(index);
        }
    }

    /// The queue of answers in this place of the table; `None` behind the last.
    pub(crate) fn nth(&self, index: usize) -> Option<Option<Arc<Place>>> {
        self.places.get(index).map(|(_, place)| place.clone())
    }

    pub(crate) fn place(&self, index: u32, id: u32) -> Option<Arc<Place>> {
        let (generation, place) = self.places.get(index as usize)?;
        if *generation != id >> REQUESTER_INDEX_BITS {
            return None;
        }
        place.clone()
    }
}

/// A queue of answers and the id under which they find it.
pub(crate) struct Answers {
    pub(crate) broker: Arc<Broker>,
    pub(crate) place: Arc<Place>,
    pub(crate) id: u32,
}

impl Answers {
    pub(crate) fn open(broker: &Arc<Broker>, wait: Option<Profile>) -> Result<Self> {
        let place = Place::open(
            broker,
            QueueOptions {
                wait,
                ..Default::default()
            },
            None,
            false,
        )?;
        let entered = lock(&broker.requesters).enter(&place);
        let id = entered.inspect_err(|_| broker.forget_place(&place))?;
        Ok(Self {
            broker: broker.clone(),
            place,
            id,
        })
    }

    #[inline(always)]
    pub(crate) fn token(&self, number: u32) -> u64 {
        token_of(self.id, number)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.broker.give_up(self.token(0));
        lock(&self.broker.requesters).leave(self.id);
        self.place.close(&self.broker);
        self.broker.polled.remove(&self.place);
        self.broker.forget_place(&self.place);
    }
}

impl Place {
    /// Tells the asker that a responder will not answer, however full its queue of answers is.
    pub(crate) fn settle_late(&self, token: u64, status: Status) {
        let mut late = lock(&self.late);
        // Without memory it times out instead: room cannot be kept, as several responders may have
        // each request of the window. No log: a queue may be locked, and the hook is the user's.
        if late.try_reserve(1).is_ok() {
            late.push_back((token, status));
            self.has_late.store(true, Ordering::SeqCst);
        }
        drop(late);
        self.lanes.notify_reader();
    }

    /// Hands over what `settle_late` has left, until one is refused.
    #[cold]
    pub(crate) fn take_late(&self, mut use_fate: impl FnMut(u64, Status) -> bool) {
        let mut late = lock(&self.late);
        while let Some((token, status)) = late.front()
            && use_fate(*token, *status)
        {
            late.pop_front();
        }
        self.has_late.store(!late.is_empty(), Ordering::Release);
    }

    /// Tells the asker that a reply stream has ended.
    pub(crate) fn report_ended(&self) {
        self.has_late.store(true, Ordering::SeqCst);
        self.lanes.notify_reader();
    }
}

impl Broker {
    /// Answers what a server has asked, if that needs nothing unusual; false: it has done nothing.
    #[inline(always)]
    pub fn reply_far(&self, token: u64, status: u32, payload: &[u8]) -> bool {
        Uplink::is_asked_by_server(token)
            && payload.len() as u64 <= self.options.payload_max
            && matches!(&self.uplink, Some(it) if it.reply_usual(token, status, payload))
    }
}

/// An answer of several in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    /// 0: nobody waits for it.
    pub(crate) token: u64,
    pub(crate) status: u8,
    pub(crate) payload: &'a [u8],
}

impl Writer {
    /// Answers an asker of this process that has been answered before; `None`: it has done nothing.
    #[inline(always)]
    pub(crate) fn try_answer(&self, token: u64, status: u32, payload: &[u8]) -> Option<Result<()>> {
        let requester = (token >> 32) as u32;
        if payload.len() <= self.usual_bytes {
            let mut lanes = self.lanes.borrow_mut();
            let index = requester & REQUESTER_INDEX_MASK;
            if let Some((id, at)) = lanes.replies.get(index as usize).copied()
                && id == requester
                && id != 0
                && let Some(lane) = lanes.get(at)
            {
                let plain = Plain {
                    kind: Kind::Reply,
                    flags: flag::TOKEN,
                    status: status as u16,
                    word: token,
                    subject: &[],
                    payload,
                };
                match lane.writer.try_plain(&plain, 0) {
                    Tried::Written => {
                        count(&self.counters.answers, 1);
                        return Some(Ok(()));
                    }
                    Tried::Unnoticed => {
                        drop(lanes);
                        return Some(self.notice_reply(at));
                    }
                    Tried::Not => {}
                }
            }
        }
        None
    }

    /// Answers the asker of the first one, who has been answered before, as long as the answers are
    /// his and need nothing unusual; he sees them at once. How many.
    #[inline(always)]
    pub(crate) fn answer_row(&self, answers: &[Answer<'_>]) -> usize {
        let requester = answers
            .first()
            .map_or(0, |first| (first.token >> 32) as u32);
        let mut lanes = self.lanes.borrow_mut();
        let index = requester & REQUESTER_INDEX_MASK;
        let Some((id, at)) = lanes.replies.get(index as usize).copied() else {
            return 0;
        };
        let Some(lane) = lanes.get(at).filter(|_| id == requester && id != 0) else {
            return 0;
        };
        let (usual_bytes, his) = (self.usual_bytes, u64::from(requester) << 32);
        let is_usual = |answer: &&Answer<'_>| {
            let is_his = (answer.token ^ his) & !u64::from(!LEG) == 0;
            is_his && answer.payload.len() <= usual_bytes
        };
        let usual = answers.iter().take_while(is_usual);
        let plains = usual.map(|answer| Plain {
            kind: Kind::Reply,
            flags: flag::TOKEN,
            status: u16::from(answer.status),
            word: answer.token,
            subject: &[],
            payload: answer.payload,
        });
        let written = lane.writer.try_plains_quiet(plains, 0);
        // Of an asker that is gone nobody will read them.
        if written > 0 && lane.writer.publish().is_ok() {
            count(&self.counters.answers, written as u64);
        }
        written
    }

    /// After `try_plain`: wakes the asker.
    #[cold]
    #[inline(never)]
    fn notice_reply(&self, lane: u32) -> Result<()> {
        let mut lanes = self.lanes.borrow_mut();
        match lanes.get(lane).map(|lane| lane.writer.notify()) {
            Some(Ok(_)) => {
                count(&self.counters.answers, 1);
                Ok(())
            }
            Some(Err(refused)) => Err(reply_refused(refused)),
            None => Err(reply_refused(Refused::Closed)),
        }
    }
}

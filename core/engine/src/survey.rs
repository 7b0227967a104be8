//! Requests that several answers may come to: which of their responders have not ended yet.
//!
//! A *survey* is one such request; a *leg* is the part of it that one responder has. Each leg has a
//! number of its own, so that an answer says whose it is, and a second one of the same responder
//! finds nobody. These numbers have the top bit, those of single requests do not. Invariant: a leg
//! ends once, and with its last leg, or the last answer that was asked for, its survey does.
//!
//! The asker and its responders share this, under the lock of the asker's queue: the asker adds
//! legs and takes answers, a responder opens and ends the stream of its leg.
//! Not here: the window of the requester and its clock (`flight`), and records.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use fastmq_memory::view::view_flag;

use crate::broker::Broker;
use crate::credit::Credit;
use crate::error::{Error, Fault, Result, Status};
use crate::link::Far;
use crate::options::ManyOptions;

/// The bit that the number of a leg has.
pub(crate) const LEG: u32 = 1 << 31;
/// As many answers as there are responders.
pub const ANSWERS_ALL: u32 = u32::MAX;
/// Most replies that may be granted at once.
pub const CREDIT_MAX: u32 = 1 << 20;
/// No survey.
const NONE: u32 = u32::MAX;
/// Slots of legs to begin with.
const LEGS_FIRST: usize = 16;

/// One request.
#[derive(Debug)]
struct Survey {
    user_token: u64,
    /// The open ones of the same user token before and after it; [`NONE`]: there is none.
    older: u32,
    newer: u32,
    is_open: bool,
    has_answer: bool,
    is_manual: bool,
    /// Legs that have not ended.
    legs: u32,
    /// Answers that are still wanted; [`ANSWERS_ALL`]: all.
    answers: u32,
    /// Replies after which credit is topped up; 0: no streams.
    batch: u32,
    /// What a stream that opens now may send.
    granted: u64,
    /// The first number of its legs, and the one behind the last.
    numbers: (u32, u32),
    /// Monotonic nanoseconds; `u64::MAX`: none.
    deadline_ns: u64,
    gap_ns: u64,
    gap_deadline_ns: u64,
}

/// What one responder has of a request.
#[derive(Debug, Default)]
struct Leg {
    /// 0: free.
    number: u32,
    survey: u32,
    /// Of the responder; 0: not known yet.
    subscription: u32,
    /// Received replies that were not granted anew.
    unreturned: u32,
    /// Replies of the stream that were received.
    received: u64,
    /// How the stream has ended, and whether that is an answer. The asker takes it when it has
    /// received all that was sent before.
    end: Option<(Status, bool)>,
    is_listed: bool,
    credit: Option<Arc<Credit>>,
    /// All responders, of a request that is at a server.
    far: Option<Box<Far>>,
}

/// A message for the asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) user_token: u64,
    /// MORE or END.
    pub(crate) flags: u32,
    /// The responder's.
    pub(crate) subscription: u32,
}

impl Word {
    /// True for the last of its request.
    pub(crate) fn is_last(&self) -> bool {
        self.flags & view_flag::END != 0
    }
}

/// The requests of one requester that several answers may come to.
#[derive(Debug, Default)]
pub(crate) struct Surveys {
    surveys: Vec<Survey>,
    /// The newest open one of each user token.
    by_token: HashMap<u64, u32>,
    free: Vec<u32>,
    /// A power of two, and at least twice as many as are used. A leg's place is the lower bits of
    /// its number.
    legs: Box<[Leg]>,
    used: usize,
    /// Numbers go up, so that an old one finds nobody.
    next: u32,
    /// Legs whose stream has ended, for the asker to take; room for every leg.
    ended: VecDeque<u32>,
    /// The thread that sends a request now; 0: none.
    pub(crate) sender: u64,
}

fn after(number: u32) -> u32 {
    number.wrapping_add(1) | LEG
}

impl Surveys {
    /// Enters a request; `None` without memory.
    pub(crate) fn open(
        &mut self,
        user_token: u64,
        options: &ManyOptions,
        now_ns: u64,
        deadline_ns: u64,
    ) -> Option<u32> {
        self.by_token.try_reserve(1).ok()?;
        let survey = Survey {
            user_token,
            older: self.find(user_token).unwrap_or(NONE),
            newer: NONE,
            is_open: true,
            has_answer: false,
            is_manual: options.is_manual,
            legs: 0,
            answers: options.answers_max.max(1),
            batch: options.credit.div_ceil(2),
            granted: u64::from(options.credit),
            numbers: (self.next | LEG, self.next | LEG),
            deadline_ns,
            gap_ns: options.gap_ns,
            gap_deadline_ns: gap_deadline(now_ns, options.gap_ns),
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.surveys[index as usize] = survey;
                index
            }
            None => {
                self.surveys.try_reserve(1).ok()?;
                let count = self.surveys.len() + 1;
                // So that ending needs no memory.
                self.free.try_reserve(count - self.free.len()).ok()?;
                self.surveys.push(survey);
                count as u32 - 1
            }
        };
        if let Some(older) = self.by_token.insert(user_token, index) {
            self.surveys[older as usize].newer = index;
        }
        Some(index)
    }

    /// Takes one that has ended out of those of its user token.
    fn unlink(&mut self, index: u32) {
        let survey = &self.surveys[index as usize];
        let (user_token, older, newer) = (survey.user_token, survey.older, survey.newer);
        if let Some(survey) = self.surveys.get_mut(older as usize) {
            survey.newer = newer;
        }
        match self.surveys.get_mut(newer as usize) {
            Some(survey) => survey.older = older,
            None if older == NONE => drop(self.by_token.remove(&user_token)),
            // It is there already, so this needs no memory.
            None => drop(self.by_token.insert(user_token, older)),
        }
    }

    /// Adds a leg and gives its number; `None` without memory, or when the request has ended.
    pub(crate) fn add_leg(&mut self, survey: u32, subscription: u32) -> Option<u32> {
        let is_open = self.surveys.get(survey as usize)?.is_open;
        if !is_open || 2 * self.used >= self.legs.len() && !self.grow() {
            return None;
        }
        let mut number = self.next | LEG;
        while self.slot(number)?.number != 0 {
            number = after(number);
        }
        self.next = after(number);
        *self.slot(number)? = Leg {
            number,
            survey,
            subscription,
            ..Leg::default()
        };
        self.used += 1;
        let next = self.next;
        let survey = self.surveys.get_mut(survey as usize)?;
        survey.legs += 1;
        survey.numbers.1 = next;
        Some(number)
    }

    fn grow(&mut self) -> bool {
        let after = (2 * self.legs.len()).max(LEGS_FIRST);
        let mut legs = Vec::new();
        if legs.try_reserve_exact(after).is_err()
            || self.ended.try_reserve(after - self.ended.len()).is_err()
        {
            return false;
        }
        legs.resize_with(after, Leg::default);
        for leg in self.legs.iter_mut().filter(|leg| leg.number != 0) {
            let leg = std::mem::take(leg);
            // Numbers that differed in fewer bits differ in more.
            let at = leg.number as usize & (after - 1);
            legs[at] = leg;
        }
        self.legs = legs.into_boxed_slice();
        true
    }

    fn slot(&mut self, number: u32) -> Option<&mut Leg> {
        let mask = self.legs.len().wrapping_sub(1);
        self.legs.get_mut(number as usize & mask)
    }

    fn leg(&mut self, number: u32) -> Option<&mut Leg> {
        self.slot(number)
            .filter(|leg| leg.number == number && number != 0)
    }

    /// A leg that nobody got.
    pub(crate) fn drop_leg(&mut self, number: u32) {
        if let Some(leg) = self.leg(number) {
            let survey = leg.survey;
            *leg = Leg::default();
            self.used -= 1;
            self.surveys[survey as usize].legs -= 1;
        }
    }

    /// Says whose a leg is. A stream that it has opened meanwhile ends if the subscription has;
    /// true: that was so.
    pub(crate) fn set_subscription(&mut self, broker: &Broker, number: u32, id: u32) -> bool {
        let Some(leg) = self.leg(number) else {
            return false;
        };
        leg.subscription = id;
        let is_there = broker.slots.get(id).is_some_and(|slot| slot.is(id));
        !is_there && self.end_stream(broker, number, None, (Status::Cancelled, false))
    }

    /// Ends a request that was not sent, whose end came at once, or that nobody waits for.
    pub(crate) fn close(&mut self, broker: &Broker, index: u32) {
        let open = self.surveys.get_mut(index as usize);
        let Some(survey) = open.filter(|survey| survey.is_open) else {
            return;
        };
        let (mut number, end) = survey.numbers;
        (survey.is_open, survey.legs) = (false, 0);
        self.unlink(index);
        let mut was_listed = false;
        while number != end {
            if let Some(leg) = self.leg(number)
                && leg.survey == index
            {
                was_listed |= leg.is_listed;
                let leg = std::mem::take(leg);
                if let Some(credit) = leg.credit {
                    credit.close(broker);
                }
                if let (Some(far), Some(uplink)) = (leg.far, &broker.uplink) {
                    uplink.cancel(far.correlation);
                }
                self.used -= 1;
            }
            number = after(number);
        }
        if was_listed {
            let (legs, mask) = (&self.legs, self.legs.len() - 1);
            self.ended
                .retain(|number| legs[*number as usize & mask].number == *number);
        }
        self.free.push(index);
    }

    /// Ends all: nobody will receive.
    pub(crate) fn close_all(&mut self, broker: &Broker) {
        for index in 0..self.surveys.len() {
            if self.surveys[index].is_open {
                self.close(broker, index as u32);
            }
        }
    }

    /// One responder has ended; says whether its request has.
    fn end_leg(&mut self, broker: &Broker, number: u32, is_answer: bool) -> Option<Word> {
        let leg = std::mem::take(self.leg(number)?);
        self.used -= 1;
        if let Some(credit) = leg.credit {
            credit.close(broker);
        }
        if leg.is_listed {
            self.ended.retain(|other| *other != number);
        }
        let survey = &mut self.surveys[leg.survey as usize];
        survey.legs -= 1;
        survey.has_answer |= is_answer;
        if is_answer && survey.answers != ANSWERS_ALL {
            survey.answers -= 1;
        }
        let is_over = survey.legs == 0 || survey.answers == 0;
        let word = Word {
            user_token: survey.user_token,
            flags: if is_over {
                view_flag::END
            } else {
                view_flag::MORE
            },
            subscription: leg.subscription,
        };
        if is_over {
            self.close(broker, leg.survey);
        }
        Some(word)
    }

    /// Says that a leg is all that is at a server; false: its request has ended.
    pub(crate) fn set_far(&mut self, number: u32, far: Box<Far>) -> bool {
        let leg = self.leg(number);
        leg.is_some_and(|leg| leg.far.replace(far).is_none())
    }

    /// An answer came; `None`: nobody waits for it. `has_more`: the reply of a stream, or of one
    /// of several responders at a server, which `responder` tells apart.
    pub(crate) fn answer(
        &mut self,
        broker: &Broker,
        number: u32,
        (has_more, responder): (bool, u32),
        now_ns: impl FnOnce() -> u64,
    ) -> Option<Word> {
        let index = self.leg(number)?.survey as usize;
        let survey = &mut self.surveys[index];
        if survey.gap_ns > 0 {
            survey.gap_deadline_ns = gap_deadline(now_ns(), survey.gap_ns);
        }
        let (user_token, batch, is_manual) = (survey.user_token, survey.batch, survey.is_manual);
        let leg = self.leg(number)?;
        if leg.far.is_some() {
            leg.subscription = responder;
        }
        if !has_more {
            return self.end_leg(broker, number, true);
        }
        if let Some(far) = &mut leg.far {
            if !is_manual
                && let Some(replies) = far.receive(responder, batch)
                && let Some(uplink) = &broker.uplink
            {
                uplink.grant(far.correlation, replies);
            }
            return Some(Word {
                user_token,
                flags: view_flag::MORE,
                subscription: responder,
            });
        }
        leg.received += 1;
        leg.unreturned += 1;
        let subscription = leg.subscription;
        if let Some(credit) = &leg.credit {
            if leg.unreturned >= batch && !is_manual {
                credit.grant(broker, u64::from(std::mem::take(&mut leg.unreturned)));
            }
            let is_all = leg.end.is_some() && credit.sent() == leg.received;
            if is_all && !std::mem::replace(&mut leg.is_listed, true) {
                self.ended.push_back(number);
            }
        }
        Some(Word {
            user_token,
            flags: view_flag::MORE,
            subscription,
        })
    }

    /// A responder will not answer. The word and the status that end the request, if they do.
    pub(crate) fn leave(
        &mut self,
        broker: &Broker,
        number: u32,
        status: Status,
    ) -> Option<(Word, Status)> {
        let index = self.leg(number)?.survey as usize;
        let has_answer = self.surveys[index].has_answer;
        let word = self.end_leg(broker, number, false)?;
        let status = if has_answer { Status::End } else { status };
        word.is_last().then_some((word, status))
    }

    /// True if the end of a stream waits to be taken.
    pub(crate) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Takes the end of a stream of which everything was received.
    pub(crate) fn take_ended(&mut self, broker: &Broker) -> Option<(Word, Status)> {
        while let Some(number) = self.ended.pop_front() {
            let Some(leg) = self.leg(number) else {
                continue;
            };
            leg.is_listed = false;
            let index = leg.survey as usize;
            let sent = leg.credit.as_ref().map_or(0, |credit| credit.sent());
            // The rest is on its way; the last one lists the leg again.
            if let Some((status, is_answer)) = leg.end
                && leg.received == sent
            {
                let survey = &mut self.surveys[index];
                if survey.gap_ns > 0 {
                    let now_ns = broker.driver.monotonic_ns();
                    survey.gap_deadline_ns = gap_deadline(now_ns, survey.gap_ns);
                }
                let word = self.end_leg(broker, number, is_answer)?;
                return Some((word, status));
            }
        }
        None
    }

    /// The newest request with this user token.
    pub(crate) fn find(&self, user_token: u64) -> Option<u32> {
        self.by_token.get(&user_token).copied()
    }

    /// Grants more replies to each stream of a request, open or not yet; false: it has none.
    pub(crate) fn grant(&mut self, broker: &Broker, index: u32, replies: u32) -> bool {
        let survey = &mut self.surveys[index as usize];
        if survey.batch == 0 {
            return false;
        }
        survey.granted += u64::from(replies);
        let (mut number, end) = survey.numbers;
        while number != end {
            if let Some(leg) = self.leg(number)
                && leg.survey == index
            {
                if let Some(credit) = &leg.credit {
                    credit.grant(broker, u64::from(replies));
                }
                if let (Some(far), Some(uplink)) = (&leg.far, &broker.uplink) {
                    uplink.grant(far.correlation, replies);
                }
            }
            number = after(number);
        }
        true
    }

    /// Ends requests whose time is up, each told to `timed_out`, and gives the next deadline.
    pub(crate) fn expire(
        &mut self,
        broker: &Broker,
        now_ns: u64,
        mut timed_out: impl FnMut(u64),
    ) -> u64 {
        let mut next_ns = u64::MAX;
        for index in 0..self.surveys.len() {
            let survey = &self.surveys[index];
            let deadline_ns = survey.deadline_ns.min(survey.gap_deadline_ns);
            if !survey.is_open {
                continue;
            }
            if deadline_ns > now_ns || deadline_ns == u64::MAX {
                next_ns = next_ns.min(deadline_ns);
                continue;
            }
            let user_token = survey.user_token;
            self.close(broker, index as u32);
            timed_out(user_token);
        }
        next_ns
    }

    /// What a stream of this leg may send when it opens; `None`: its asker takes none.
    pub(crate) fn stream_credit(&mut self, number: u32) -> Option<u64> {
        let survey = self.leg(number)?.survey;
        let survey = self.surveys.get(survey as usize)?;
        (survey.batch > 0).then_some(survey.granted)
    }

    /// Opens the stream of a leg for its responder.
    pub(crate) fn open_stream(
        &mut self,
        broker: &Broker,
        number: u32,
        make: impl FnOnce(u64) -> Result<Arc<Credit>>,
    ) -> Result<Arc<Credit>> {
        let (index, id) = match self.leg(number) {
            Some(leg) if leg.credit.is_none() => (leg.survey, leg.subscription),
            Some(_) => return Err(OPEN_ALREADY),
            None => return Err(NOBODY),
        };
        let survey = &self.surveys[index as usize];
        if survey.batch == 0 {
            return Err(ONE_ANSWER);
        }
        // 0: its asker is about to know.
        if id != 0 && !broker.slots.get(id).is_some_and(|slot| slot.is(id)) {
            return Err(UNSUBSCRIBED);
        }
        let credit = make(survey.granted)?;
        if let Some(leg) = self.leg(number) {
            leg.credit = Some(credit.clone());
        }
        Ok(credit)
    }

    /// Ends a stream: `credit`'s, or any of the leg. False: it has ended already.
    pub(crate) fn end_stream(
        &mut self,
        broker: &Broker,
        number: u32,
        credit: Option<&Arc<Credit>>,
        end: (Status, bool),
    ) -> bool {
        let Some(leg) = self.leg(number) else {
            return false;
        };
        let is_its = |own: &Arc<Credit>| credit.is_none_or(|credit| Arc::ptr_eq(own, credit));
        if leg.end.is_some() || !leg.credit.as_ref().is_some_and(is_its) {
            return false;
        }
        if let Some(credit) = &leg.credit {
            credit.close(broker);
        }
        leg.end = Some(end);
        leg.is_listed = true;
        self.ended.push_back(number);
        true
    }

    /// A reply that was counted was not sent: what is left may now be complete. True: look again.
    pub(crate) fn recount(&mut self, number: u32) -> bool {
        let Some(leg) = self.leg(number) else {
            return false;
        };
        if leg.end.is_none() || std::mem::replace(&mut leg.is_listed, true) {
            return false;
        }
        self.ended.push_back(number);
        true
    }

    /// Ends the streams of a subscription that has ended; true if there was one.
    pub(crate) fn unsubscribed(&mut self, broker: &Broker, id: u32) -> bool {
        let mut any = false;
        for at in 0..self.legs.len() {
            let leg = &self.legs[at];
            if leg.number != 0 && leg.subscription == id {
                let number = leg.number;
                any |= self.end_stream(broker, number, None, (Status::Cancelled, false));
            }
        }
        any
    }
}

fn gap_deadline(now_ns: u64, gap_ns: u64) -> u64 {
    match gap_ns {
        0 => u64::MAX,
        _ => now_ns.saturating_add(gap_ns),
    }
}

pub(crate) const NOBODY: Error = Error::new(&Fault(
    Status::NotFound,
    "this token names no request that waits for an answer",
));

pub(crate) const ONE_ANSWER: Error = Error::new(&Fault(
    Status::Unsupported,
    "the asker of this request takes no reply stream; answer it with one reply",
));

pub(crate) const OPEN_ALREADY: Error = Error::new(&Fault(
    Status::Exists,
    "the reply stream of this token was opened already",
));

const UNSUBSCRIBED: Error = Error::new(&Fault(
    Status::Cancelled,
    "the subscription by which this request came has ended",
));

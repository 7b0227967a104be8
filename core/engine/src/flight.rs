//! Requests in flight: which answers are expected, for whom, and until when.
//!
//! A request's number is a count that goes up, so that an answer that comes late or twice finds
//! nobody: a number comes again after four billion requests. Its slot is the number's lower bits; a
//! number whose slot is still used is passed over. Time-outs count from when the clock is read next
//! after a submit, never earlier than asked, so that a submit reads no clock. A reading is noted
//! for all numbers before it, and gone into when a deadline may have passed: most requests are
//! answered without that.
//!
//! The window holds a request until its final answer is received, also one whose fate is known
//! without a record. There is room for every fate: whoever ends a request needs no memory.

use std::collections::VecDeque;

use fastmq_memory::view::view_flag;

use crate::error::Status;
use crate::survey::LEG;

/// Most requests in flight of one requester.
pub const IN_FLIGHT_MAX: u32 = 65_535;
/// Slots to begin with.
const SLOTS_FIRST: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// 0: free.
    number: u32,
    /// Responders that have the request, too, besides the one whose fate decides.
    others: u32,
    user_token: u64,
    /// Nanoseconds: relative until it matters, then a monotonic deadline; `u64::MAX`: none.
    deadline_ns: u64,
}

impl Slot {
    const FREE: Self = Self {
        number: 0,
        others: 0,
        user_token: 0,
        deadline_ns: u64::MAX,
    };
}

/// A reading of the clock: the time-outs of earlier numbers count from it that do not yet.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    end: u32,
    now_ns: u64,
}

/// Readings of the clock of which it is known which requests they are for; the older half of more
/// is gone through, request by request.
const STAMPS_MAX: usize = 32;

/// The requests of one requester.
#[derive(Debug)]
pub(crate) struct Flight {
    /// A power of two, and at least twice as many as are used: on the average one number at most
    /// is passed over for each that is taken.
    slots: Box<[Slot]>,
    next_number: u32,
    /// Requests that wait for an answer.
    waiting: u32,
    /// Requests that ended without a record: (user token, status, flags).
    fates: VecDeque<(u64, Status, u32)>,
    /// How many of those that wait are kept elsewhere, by `survey`.
    many: u32,
    /// The least time-out since the clock was read last; `u64::MAX`: none has one.
    least_timeout_ns: u64,
    /// The first of the numbers that `stamps` are for, or a later one: all before it have ended or
    /// are stamped.
    stamps_from: u32,
    /// When the clock was read, the oldest first; has room for [`STAMPS_MAX`] once there are slots.
    stamps: Vec<Stamp>,
    /// No deadline is earlier than this; `u64::MAX`: none.
    deadline_ns: u64,
    /// Requests that there may be before the slots grow, and at all.
    limit: u32,
    max: u32,
}

impl Flight {
    pub(crate) fn new(max: u32) -> Self {
        Self {
            slots: Box::default(),
            next_number: 1,
            waiting: 0,
            fates: VecDeque::new(),
            many: 0,
            least_timeout_ns: u64::MAX,
            stamps_from: 1,
            stamps: Vec::new(),
            deadline_ns: u64::MAX,
            limit: 0,
            max,
        }
    }

    /// Requests whose final answer was not received.
    #[inline(always)]
    pub(crate) fn count(&self) -> u32 {
        self.waiting + self.fates.len() as u32
    }

    /// True if no more requests may be in flight.
    pub(crate) fn is_full(&self) -> bool {
        self.count() >= self.max
    }

    /// A lower bound of the next deadline.
    #[inline(always)]
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// True if a deadline waits for the clock to be read.
    #[inline(always)]
    pub(crate) fn has_unstamped(&self) -> bool {
        self.least_timeout_ns != u64::MAX
    }

    /// Takes a place; `None` when the window is full or there is no memory.
    #[inline(always)]
    pub(crate) fn take(&mut self, user_token: u64, timeout_ns: u64) -> Option<u32> {
        let number = self.next()?;
        *self.slot(number)? = Slot {
            number,
            others: 0,
            user_token,
            deadline_ns: timeout_ns,
        };
        self.waiting += 1;
        self.least_timeout_ns = self.least_timeout_ns.min(timeout_ns);
        Some(number)
    }

    /// A number whose place is free, for [`enter`](Flight::enter); `None` when the window is full
    /// or there is no memory. A request that ends without having been entered was never here.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<u32> {
        if self.count() >= self.limit && !self.grow() {
            return None;
        }
        let mut number = self.next_number;
        // At most half of the slots are used.
        while number as i32 <= 0 || self.slot(number)?.number != 0 {
            // Those with the top bit are of `survey`.
            number = (number & !LEG).wrapping_add(1);
        }
        self.next_number = number.wrapping_add(1);
        Some(number)
    }

    /// Takes the place of the number that [`next`](Flight::next) gave last, with a deadline by the
    /// monotonic clock, for so many responders.
    #[inline(always)]
    pub(crate) fn enter(
        &mut self,
        number: u32,
        user_token: u64,
        deadline_ns: u64,
        responders: u32,
    ) {
        let deadline_ns = deadline_ns.min(STAMPED - 1);
        let Some(slot) = self.slot(number) else {
            return;
        };
        *slot = Slot {
            number,
            others: responders.saturating_sub(1),
            user_token,
            deadline_ns: deadline_ns | STAMPED,
        };
        self.waiting += 1;
        self.deadline_ns = self.deadline_ns.min(deadline_ns);
    }

    #[inline(always)]
    fn slot(&mut self, number: u32) -> Option<&mut Slot> {
        let mask = self.slots.len().wrapping_sub(1);
        self.slots.get_mut(number as usize & mask)
    }

    #[cold]
    fn grow(&mut self) -> bool {
        if self.limit >= self.max {
            return false;
        }
        let limit = self.slots.len().max(SLOTS_FIRST / 2).min(self.max as usize);
        let after = (2 * limit).next_power_of_two();
        let mut slots = Vec::new();
        let fates = limit.saturating_sub(self.fates.len());
        if slots.try_reserve_exact(after).is_err()
            || self.fates.try_reserve(fates).is_err()
            || self
                .stamps
                .try_reserve_exact(STAMPS_MAX - self.stamps.len())
                .is_err()
        {
            return false;
        }
        slots.resize(after, Slot::FREE);
        for slot in self.slots.iter().filter(|slot| slot.number != 0) {
            // Numbers that differed in fewer bits differ in more.
            slots[slot.number as usize & (after - 1)] = *slot;
        }
        self.slots = slots.into_boxed_slice();
        self.limit = limit as u32;
        true
    }

    /// The user's token of a request that waits, which ends.
    #[inline(always)]
    pub(crate) fn answer(&mut self, number: u32) -> Option<u64> {
        let slot = self.slot(number)?;
        if slot.number != number || number == 0 {
            return None;
        }
        let user_token = slot.user_token;
        slot.number = 0;
        if number == self.stamps_from {
            self.stamps_from = number.wrapping_add(1);
        }
        self.end_one();
        Some(user_token)
    }

    #[inline(always)]
    fn end_one(&mut self) {
        self.waiting -= 1;
        if self.waiting == 0 {
            // Nothing waits: no deadline is left, stamped or not.
            self.deadline_ns = u64::MAX;
            self.least_timeout_ns = u64::MAX;
            self.stamps.clear();
            self.stamps_from = self.next_number;
        }
    }

    /// Takes a place for a request that is kept elsewhere.
    pub(crate) fn take_many(&mut self, deadline_ns: u64) -> bool {
        if self.count() >= self.limit && !self.grow() {
            return false;
        }
        self.waiting += 1;
        self.many += 1;
        self.deadline_ns = self.deadline_ns.min(deadline_ns);
        true
    }

    /// Such a request has ended with a record, or was not sent.
    pub(crate) fn end_many(&mut self) {
        self.many -= 1;
        self.end_one();
    }

    /// Such a request has ended without a record.
    pub(crate) fn settle_many(&mut self, user_token: u64, status: Status) {
        self.end_many();
        self.fates.push_back((user_token, status, view_flag::END));
    }

    /// True if requests are kept elsewhere.
    pub(crate) fn has_many(&self) -> bool {
        self.many > 0
    }

    /// A deadline of theirs.
    pub(crate) fn note_deadline(&mut self, deadline_ns: u64) {
        self.deadline_ns = self.deadline_ns.min(deadline_ns);
    }

    /// Says that several responders have the request.
    #[cold]
    pub(crate) fn share(&mut self, number: u32, responders: u32) {
        if let Some(slot) = self.slot(number)
            && slot.number == number
        {
            slot.others = responders - 1;
        }
    }

    /// One responder will not answer: that ends the request if no other has it.
    #[cold]
    pub(crate) fn leave(&mut self, number: u32, status: Status) {
        match self.slot(number) {
            Some(slot) if slot.number == number && slot.others > 0 => slot.others -= 1,
            _ => {
                self.settle(number, status);
            }
        }
    }

    /// Ends a request without a record: its fate is received next. False: it has ended already.
    #[cold]
    pub(crate) fn settle(&mut self, number: u32, status: Status) -> bool {
        let Some(user_token) = self.answer(number) else {
            return false;
        };
        debug_assert!(self.fates.len() < self.fates.capacity());
        self.fates.push_back((user_token, status, 0));
        true
    }

    /// True if a request ended without a record.
    #[inline(always)]
    pub(crate) fn has_fates(&self) -> bool {
        !self.fates.is_empty()
    }

    /// Hands fates over until `receive` refuses one.
    #[cold]
    pub(crate) fn receive_fates(&mut self, mut receive: impl FnMut(u64, Status, u32) -> bool) {
        while let Some((user_token, status, flags)) = self.fates.front()
            && receive(*user_token, *status, *flags)
        {
            self.fates.pop_front();
        }
    }

    /// The clock was read: from now the time-outs count that do not yet.
    pub(crate) fn stamp(&mut self, now_ns: u64) {
        if self.least_timeout_ns == u64::MAX {
            if self.stamps.is_empty() {
                // None of the numbers until now will need one.
                self.stamps_from = self.next_number;
            }
            return;
        }
        let least_ns = now_ns.saturating_add(self.least_timeout_ns);
        self.deadline_ns = self.deadline_ns.min(least_ns);
        self.least_timeout_ns = u64::MAX;
        if self.stamps.len() == STAMPS_MAX {
            self.resolve(STAMPS_MAX / 2);
        }
        let end = self.next_number;
        self.stamps.push(Stamp { end, now_ns });
    }

    /// Makes the deadlines absolute that the oldest stamps are for.
    #[cold]
    fn resolve(&mut self, count: usize) {
        let first = self.stamps_from;
        let passed = |number: u32| number.wrapping_sub(first) & !LEG;
        // Those of which all numbers have ended.
        let age = |number: u32| self.next_number.wrapping_sub(number) & !LEG;
        let has_ended = |stamp: &&Stamp| age(stamp.end) >= age(first);
        let ended = self.stamps.iter().take_while(has_ended).count();
        self.stamps.drain(..ended);
        let Some(count) = count.checked_sub(ended) else {
            return;
        };
        let (stamps, slots) = (&self.stamps[..count], &mut *self.slots);
        let Some(last) = stamps.last() else { return };
        let (total, mask) = (passed(last.end), slots.len() - 1);
        let stamp_of = |number| stamps.iter().find(|it| passed(number) < passed(it.end));
        let resolve = |slot: &mut Slot| {
            if slot.deadline_ns < STAMPED
                && let Some(stamp) = stamp_of(slot.number)
            {
                slot.deadline_ns = stamp.now_ns.saturating_add(slot.deadline_ns) | STAMPED;
            }
        };
        let last_end = last.end;
        if total as usize > slots.len() {
            let used = slots.iter_mut().filter(|slot| slot.number != 0);
            used.for_each(resolve);
        } else {
            for passed in 0..total {
                let number = first.wrapping_add(passed) & !LEG;
                let slot = &mut slots[number as usize & mask];
                if slot.number == number && number != 0 {
                    resolve(slot);
                }
            }
        }
        self.stamps.drain(..count);
        self.stamps_from = last_end;
    }

    /// True if a deadline may have passed.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.deadline_ns
    }

    /// Ends the requests whose time is up, each told to `timed_out`.
    pub(crate) fn expire(&mut self, now_ns: u64, mut timed_out: impl FnMut(u32)) {
        if now_ns < self.deadline_ns {
            return;
        }
        self.resolve(self.stamps.len());
        let mut next_ns = u64::MAX;
        for index in 0..self.slots.len() {
            let slot = self.slots[index];
            if slot.number == 0 || slot.deadline_ns == u64::MAX || slot.deadline_ns < STAMPED {
                continue;
            }
            let deadline_ns = slot.deadline_ns & !STAMPED;
            if deadline_ns <= now_ns {
                self.settle(slot.number, Status::Timeout);
                timed_out(slot.number);
            } else {
                next_ns = next_ns.min(deadline_ns);
            }
        }
        self.deadline_ns = next_ns;
    }

    /// The number of a request with this user token.
    pub(crate) fn find(&self, user_token: u64) -> Option<u32> {
        let mut used = self.slots.iter().filter(|slot| slot.number != 0);
        used.find(|slot| slot.user_token == user_token)
            .map(|slot| slot.number)
    }
}

/// Marks a deadline as absolute; monotonic nanoseconds and time-outs stay below it for 292 years.
const STAMPED: u64 = 1 << 63;

/// Time-outs at or above this mean "for ever".
pub(crate) fn timeout_of(timeout_ns: u64) -> u64 {
    if timeout_ns >= STAMPED >> 1 {
        u64::MAX
    } else {
        timeout_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(flight: &mut Flight) -> Vec<u64> {
        let mut ended = Vec::new();
        flight.receive_fates(|token, _, _| {
            ended.push(token);
            true
        });
        ended
    }

    #[test]
    fn an_answer_finds_its_request_once() {
        let mut flight = Flight::new(4);
        let number = flight.take(77, u64::MAX).unwrap();
        assert_eq!(flight.count(), 1);
        assert_eq!(flight.answer(number), Some(77));
        assert_eq!(flight.answer(number), None);
        assert_eq!(flight.count(), 0);
    }

    #[test]
    fn the_window_is_bounded() {
        let mut flight = Flight::new(3);
        let numbers: Vec<_> = (0..3).map(|token| flight.take(token, 5).unwrap()).collect();
        assert_eq!(flight.take(3, 5), None);
        assert_eq!(flight.answer(numbers[1]), Some(1));
        assert!(flight.take(4, 5).is_some());
    }

    #[test]
    fn a_fate_keeps_its_place_until_it_is_received() {
        let mut flight = Flight::new(1);
        let number = flight.take(7, 5).unwrap();
        assert!(flight.settle(number, Status::Busy));
        assert!(!flight.settle(number, Status::Busy));
        assert_eq!((flight.take(8, 5), flight.count()), (None, 1));
        flight.receive_fates(|_, _, _| false);
        assert_eq!((flight.take(8, 5), flight.count()), (None, 1));
        assert_eq!(fates(&mut flight), [7]);
        assert!(flight.take(8, 5).is_some());
    }

    /// Random takes and answers against a model, over the end of the numbers.
    #[test]
    fn a_number_names_one_request() {
        let mut state = 1_u64;
        let mut dice = |count: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % count
        };
        let mut flight = Flight::new(300);
        flight.next_number = LEG - 50_000;
        let mut open: Vec<(u32, u64)> = Vec::new();
        let mut ended: Vec<u32> = Vec::new();
        for token in 0..200_000 {
            if dice(2) == 0 {
                let taken = flight.take(token, 5);
                assert_eq!(taken.is_none(), open.len() == 300);
                open.extend(taken.map(|number| (number, token)));
            } else if !open.is_empty() {
                // The oldest stays for long, so that others pass over it.
                let at = dice(open.len() as u64) as usize;
                let (number, token) = open.remove(at);
                assert_eq!(flight.find(token), Some(number));
                assert_eq!(flight.answer(number), Some(token));
                ended.push(number);
            }
            if !ended.is_empty() {
                let old = ended[dice(ended.len() as u64) as usize];
                assert_eq!(flight.answer(old), None);
            }
            assert_eq!(flight.count() as usize, open.len());
        }
        assert!(ended.len() > 60_000);
    }

    #[test]
    fn time_runs_from_the_first_reading_of_the_clock() {
        let mut flight = Flight::new(64);
        flight.take(1, 100).unwrap();
        flight.take(2, 50).unwrap();
        let answered = flight.take(3, 10).unwrap();
        assert_eq!(flight.answer(answered), Some(3));
        flight.stamp(1000);
        // Not later than the next one; that of the answered one is as good.
        assert_eq!(flight.deadline_ns(), 1010);
        flight.expire(1010, |_| {});
        assert_eq!((fates(&mut flight), flight.deadline_ns()), (vec![], 1050));
        flight.expire(1049, |_| {});
        assert_eq!(fates(&mut flight), []);
        flight.expire(1050, |_| {});
        assert_eq!(fates(&mut flight), [2]);
        assert_eq!(flight.deadline_ns(), 1100);
        flight.expire(5000, |_| {});
        assert_eq!(fates(&mut flight), [1]);
        assert_eq!(flight.deadline_ns(), u64::MAX);
    }

    /// Random takes, answers and readings of the clock against a model, over the end of the
    /// numbers, with some requests that stay for long.
    #[test]
    fn every_time_out_counts_from_the_reading_after_its_submit() {
        let mut state = 7_u64;
        let mut dice = |count: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % count
        };
        let mut flight = Flight::new(200);
        flight.next_number = LEG - 5_000;
        flight.stamps_from = flight.next_number;
        // Number, user token, time-out, deadline once stamped.
        let mut open: Vec<(u32, u64, u64, Option<u64>)> = Vec::new();
        let (mut now_ns, mut ended) = (1_000_000, 0);
        for token in 0..100_000_u64 {
            match dice(8) {
                0..4 => {
                    let timeout_ns = [u64::MAX, 1 + dice(100_000), 50_000][dice(3) as usize];
                    let taken = flight.take(token, timeout_ns);
                    open.extend(taken.map(|number| (number, token, timeout_ns, None)));
                }
                4..7 if !open.is_empty() => {
                    // The oldest stay for longer.
                    let last = open.len() as u64 - 1;
                    let at = (last - dice(last + 1) / 3) as usize;
                    let (number, token, ..) = open.remove(at);
                    assert_eq!(flight.answer(number), Some(token));
                }
                _ => {
                    now_ns += dice(3_000);
                    flight.stamp(now_ns);
                    for (.., timeout_ns, deadline_ns) in &mut open {
                        deadline_ns.get_or_insert(now_ns.saturating_add(*timeout_ns));
                    }
                    let is_due = |deadline_ns: Option<u64>| deadline_ns <= Some(now_ns);
                    let late = open.iter().filter(|(.., deadline_ns)| is_due(*deadline_ns));
                    let mut expected: Vec<u64> = late.map(|(_, token, ..)| *token).collect();
                    open.retain(|(.., deadline_ns)| !is_due(*deadline_ns));
                    let next_ns = open.iter().map(|(.., deadline_ns)| deadline_ns.unwrap());
                    assert!(flight.deadline_ns() <= next_ns.min().unwrap_or(u64::MAX));
                    flight.expire(now_ns, |_| {});
                    let mut told = fates(&mut flight);
                    told.sort_unstable();
                    expected.sort_unstable();
                    assert_eq!(told, expected);
                    ended += told.len();
                }
            }
        }
        assert!(ended > 1000, "{ended}");
    }

    /// One that waits for ever, and as many others behind it as there are numbers.
    #[test]
    fn a_time_out_counts_from_its_submit_after_numbers_have_gone_round() {
        let mut flight = Flight::new(8);
        flight.take(1, u64::MAX).unwrap();
        flight.next_number = LEG - 2;
        flight.stamp(500);
        for token in 2..6 {
            flight.take(token, 50).unwrap();
        }
        flight.stamp(1000);
        flight.expire(1049, |_| {});
        assert_eq!(fates(&mut flight), []);
        flight.expire(1050, |_| {});
        let mut late = fates(&mut flight);
        late.sort_unstable();
        assert_eq!(late, [2, 3, 4, 5]);
    }

    #[test]
    fn deadlines_are_kept_while_requests_are_answered_in_a_row() {
        const OPEN: u64 = 100;
        let mut flight = Flight::new(OPEN as u32);
        flight.next_number = LEG - 500;
        flight.stamps_from = flight.next_number;
        let mut open = VecDeque::new();
        for token in 1..=1000 {
            if open.len() as u64 == OPEN {
                let (number, token) = open.pop_front().unwrap();
                assert_eq!(flight.answer(number), Some(token));
            }
            open.push_back((flight.take(token, 50_000).unwrap(), token));
            flight.stamp(10 * token);
        }
        for (_, token) in open {
            flight.expire(10 * token + 49_999, |_| {});
            assert_eq!(fates(&mut flight), []);
            flight.expire(10 * token + 50_000, |_| {});
            assert_eq!(fates(&mut flight), [token]);
        }
    }

    #[test]
    fn many_readings_of_the_clock_take_no_memory() {
        let mut flight = Flight::new(64);
        let kept = flight.take(0, 1_000_000).unwrap();
        let capacity = flight.stamps.capacity();
        for round in 1..10_000 {
            let number = flight.take(round, 10).unwrap();
            flight.stamp(round);
            assert_eq!(flight.answer(number), Some(round));
        }
        assert_eq!(flight.stamps.capacity(), capacity);
        flight.expire(1_000_000, |_| {});
        assert_eq!(fates(&mut flight), []);
        flight.expire(1_000_001, |_| {});
        assert_eq!(fates(&mut flight), [0]);
        assert_eq!(flight.answer(kept), None);
    }
}

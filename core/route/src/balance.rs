//! Which member of a group takes the next message.
//!
//! The less loaded of two members picked at random, chosen for a *run* of messages: changing the
//! member for every message would make every queue a little warm and no batch large. Two random
//! candidates spread the load almost as well as looking at all of them, and need no order among
//! writers that choose at the same time.
//!
//! A `Run` is held by one writer for one group. It has no clock and no random source of its own:
//! both come with the call, so a seed replays every choice.
//!
//! Not here: what load is (the caller's figures), and who is a member.

use crate::allocation::NoMemory;

/// Messages that go to one member before another is considered.
pub const RUN_MESSAGES_MAX: u32 = 32;
/// How long a run lasts at most, by the caller's cached clock.
pub const RUN_NS_MAX: u64 = 50_000;

/// The weights of a group's members: their parts of the load beside each other.
#[derive(Debug, Default)]
pub struct Weights {
    /// Each with those before it.
    sums: Vec<u64>,
    is_even: bool,
}

impl Weights {
    /// Adds a member, whose weight is not 0.
    ///
    /// # Errors
    /// There is no memory.
    pub fn add(&mut self, weight: u32) -> Result<(), NoMemory> {
        self.sums.try_reserve(1).map_err(|_| NoMemory)?;
        let sum = self.sums.last().copied().unwrap_or(0);
        self.sums.push(sum + u64::from(weight));
        let first = self.of(0);
        self.is_even = u64::from(weight) == first && (self.is_even || self.sums.len() == 1);
        Ok(())
    }

    fn of(&self, member: usize) -> u64 {
        let before = member.checked_sub(1).map_or(0, |other| self.sums[other]);
        self.sums[member] - before
    }

    /// Two members, each as likely as its weight says; the same only if there is one.
    fn candidates(&self, random: u64) -> [usize; 2] {
        let total = self.sums.last().copied().unwrap_or(0);
        let pick = |bits: u64| {
            let at = ((bits & 0xFFFF_FFFF) * total) >> 32;
            self.sums.partition_point(|sum| *sum <= at)
        };
        let (a, b) = (pick(random), pick(random >> 32));
        let other = if a + 1 < self.sums.len() { a + 1 } else { 0 };
        [a, if a == b { other } else { b }]
    }
}

/// The run of one writer in one group.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    until_ns: u64,
    chosen: u32,
    left: u32,
}

impl Run {
    /// No run yet: the first message chooses.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            until_ns: 0,
            chosen: 0,
            left: 0,
        }
    }

    /// The member, below `count`, that takes the next message. `weights` are theirs.
    ///
    /// `load` gives the load of a member, in any unit that grows with its backlog; it and
    /// `random` are called only when a new run starts. A `count` of 0 or 1 gives 0.
    #[inline]
    pub fn next(
        &mut self,
        count: usize,
        weights: &Weights,
        now_ns: u64,
        load: impl Fn(usize) -> u64,
        random: impl FnMut() -> u64,
    ) -> usize {
        let chosen = self.chosen as usize;
        if self.left > 0 && now_ns < self.until_ns && chosen < count {
            self.left -= 1;
            return chosen;
        }
        self.start(count, weights, now_ns, load, random)
    }

    /// The member of the run.
    #[inline]
    #[must_use]
    pub fn chosen(&self) -> usize {
        self.chosen as usize
    }

    /// Goes on with another member, for one that had room when the chosen one had not.
    #[inline]
    pub fn choose(&mut self, member: usize) {
        self.chosen = member as u32;
    }

    /// Ends the run: the next message chooses again. For a member that was full or has gone.
    #[inline]
    pub fn end_run(&mut self) {
        self.left = 0;
    }

    fn start(
        &mut self,
        count: usize,
        weights: &Weights,
        now_ns: u64,
        load: impl Fn(usize) -> u64,
        mut random: impl FnMut() -> u64,
    ) -> usize {
        let chosen = match count {
            0 | 1 => 0,
            _ if weights.is_even => less_loaded(candidates(count, random()), load, |_| 1),
            _ => less_loaded(weights.candidates(random()), load, |one| weights.of(one)),
        };
        self.chosen = u32::try_from(chosen).unwrap_or(u32::MAX);
        self.left = RUN_MESSAGES_MAX - 1;
        self.until_ns = now_ns.saturating_add(RUN_NS_MAX);
        chosen
    }
}

fn less_loaded(
    [a, b]: [usize; 2],
    load: impl Fn(usize) -> u64,
    weight: impl Fn(usize) -> u64,
) -> usize {
    // The first wins a tie: it is as random as the second.
    let is_less = load(b).saturating_mul(weight(a)) < load(a).saturating_mul(weight(b));
    if is_less { b } else { a }
}

/// Two different members of `count`, at least 2.
fn candidates(count: usize, random: u64) -> [usize; 2] {
    // A multiplication instead of a division; the bias is below `count` in 2^32.
    let below = |bits: u64, bound: usize| (((bits & 0xFFFF_FFFF) * bound as u64) >> 32) as usize;
    let a = below(random, count);
    let b = below(random >> 32, count - 1);
    [a, if b >= a { b + 1 } else { b }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// xorshift64*, enough for a test that repeats.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
        }
    }

    fn weights(weights: impl IntoIterator<Item = u32>) -> Weights {
        let mut all = Weights::default();
        weights
            .into_iter()
            .for_each(|weight| all.add(weight).unwrap());
        all
    }

    fn even(count: usize) -> Weights {
        weights((0..count).map(|_| 1))
    }

    /// Sends `messages` into `members` queues that are never drained, and gives their lengths.
    fn fill(members: usize, messages: usize, seed: u64) -> Vec<u64> {
        let (mut run, mut random) = (Run::new(), Random(seed));
        let mut queues = vec![0_u64; members];
        for _ in 0..messages {
            let member = run.next(members, &even(members), 0, |i| queues[i], || random.next());
            queues[member] += 1;
        }
        queues
    }

    #[test]
    fn load_spreads_over_all_members() {
        for seed in 1..20 {
            for members in [2, 3, 8, 50] {
                let queues = fill(members, members * 3_200, seed);
                let [least, most] = [queues.iter().min(), queues.iter().max()].map(Option::unwrap);
                assert!(
                    most - least <= 10 * 32,
                    "{members} members, seed {seed}: {queues:?}"
                );
            }
        }
    }

    #[test]
    fn a_run_keeps_its_member_for_32_messages() {
        let (mut run, mut random) = (Run::new(), Random(3));
        let weights = even(1_000);
        let mut members = Vec::new();
        let calls = RefCell::new(0);
        for _ in 0..320 {
            let draw = || {
                *calls.borrow_mut() += 1;
                random.next()
            };
            members.push(run.next(1_000, &weights, 7, |_| 0, draw));
        }
        for run in members.chunks(32) {
            assert!(run.iter().all(|member| *member == run[0]), "{run:?}");
        }
        assert_eq!(*calls.borrow(), 10);
        members.dedup();
        assert_eq!(members.len(), 10);
    }

    #[test]
    fn a_run_ends_with_time_or_when_told_or_with_its_member() {
        let (mut run, weights) = (Run::new(), even(2));
        let loads = |idle: usize| move |i: usize| u64::from(i != idle);
        assert_eq!(run.next(2, &weights, 1_000, loads(1), || 0), 1);
        assert_eq!(
            run.next(2, &weights, 1_000 + RUN_NS_MAX - 1, loads(0), || 0),
            1
        );
        assert_eq!(run.next(2, &weights, 1_000 + RUN_NS_MAX, loads(0), || 0), 0);
        run.end_run();
        assert_eq!(run.next(2, &weights, 1_000 + RUN_NS_MAX, loads(1), || 0), 1);
        assert_eq!(run.next(1, &weights, 1_000 + RUN_NS_MAX, loads(1), || 0), 0);
        assert_eq!(run.next(0, &weights, 1_000 + RUN_NS_MAX, loads(1), || 0), 0);
    }

    #[test]
    fn a_stalled_member_is_avoided() {
        let weights = even(4);
        for seed in 1..20 {
            let (mut run, mut random) = (Run::new(), Random(seed));
            // Member 0 never drains, the others are drained after every run.
            let mut queues = [0_u64; 4];
            let mut stalled = 0;
            for i in 0..32_000 {
                let member = run.next(4, &weights, 0, |i| queues[i], || random.next());
                queues[member] += 1;
                stalled += u64::from(member == 0);
                if i % 32 == 31 {
                    queues[1..].fill(0);
                }
            }
            assert!(
                stalled <= 32,
                "seed {seed}: {stalled} messages to the stalled member"
            );
        }
    }

    #[test]
    fn candidates_are_two_different_members() {
        let mut random = Random(9);
        for count in [2, 3, 7, 1_000] {
            let mut seen = vec![false; count];
            for _ in 0..count * 30 {
                let [a, b] = candidates(count, random.next());
                assert!(a != b && a < count && b < count);
                (seen[a], seen[b]) = (true, true);
            }
            assert!(seen.iter().all(|seen| *seen), "{count}");
        }
        assert_eq!(candidates(2, 0), [0, 1]);
        assert_eq!(candidates(2, u64::MAX), [1, 0]);
    }

    #[test]
    fn members_take_their_parts_by_weight_idle_or_not() {
        let parts = [1, 2, 5];
        let weights = weights(parts);
        assert!(!weights.is_even);
        for is_idle in [true, false] {
            let (mut run, mut random) = (Run::new(), Random(5));
            let mut queues = [0_u64; 3];
            for _ in 0..320_000 {
                let load = |i: usize| if is_idle { 0 } else { queues[i] };
                let member = run.next(3, &weights, 0, load, || random.next());
                queues[member] += 1;
            }
            for (queue, part) in queues.iter().zip(parts) {
                let due = 40_000 * u64::from(part);
                assert!(queue.abs_diff(due) < due / 10, "idle {is_idle}: {queues:?}");
            }
        }
    }
}

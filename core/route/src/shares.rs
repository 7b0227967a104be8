//! Which member of a key-shared group has which keys.
//!
//! Keys fall into a fixed number of slots by their hash, and each slot belongs to one member.
//! Members have slots in proportion to their weights; one that comes takes slots from those that
//! have the most for their weight, one that goes leaves its own to those that have the fewest. No
//! other slot moves. Leaving needs no memory.
//!
//! Not here: what a move means for the messages of a slot.

use crate::allocation::NoMemory;

/// Slots of a group, and the most members that it may have.
pub const SLOTS: usize = 1024;
/// The owner of a slot in a group without members.
pub const NOBODY: u16 = u16::MAX;
/// Largest weight of a member.
pub const WEIGHT_MAX: u32 = 1000;

/// The slot of a key with this hash.
#[inline(always)]
#[must_use]
pub fn slot_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SLOTS.ilog2())) as usize
}

/// Why there is no room for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoShare {
    /// Each slot has a member of its own.
    Full,
    /// The allocator had no memory.
    NoMemory,
}

impl From<NoMemory> for NoShare {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

/// The slots of a group.
#[derive(Debug)]
pub struct Shares {
    owners: Box<[u16]>,
    members: Vec<Share>,
}

/// What a member has; a weight of 0: there is none here.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    weight: u32,
    slots: u32,
}

impl Share {
    /// Whether one more slot is more due here than there.
    fn wants_more_than(&self, other: &Self) -> bool {
        // By what each would have for its weight; whoever has none comes first.
        let with_one = |share: &Self| u64::from(share.slots + u32::from(share.slots > 0));
        with_one(self) * u64::from(other.weight) < with_one(other) * u64::from(self.weight)
    }

    /// Whether a slot is better given away here than there; the last one never is.
    fn has_more_than(&self, other: &Self) -> bool {
        let more = u64::from(self.slots) * u64::from(other.weight)
            > u64::from(other.slots) * u64::from(self.weight);
        self.slots > 1 && (other.slots <= 1 || more)
    }

    /// Whether a slot that leaves `self` for `to` makes the two more even.
    fn is_to_give(&self, to: &Self) -> bool {
        self.slots > 1
            && (to.slots == 0
                || u64::from(to.slots + 1) * u64::from(self.weight)
                    < u64::from(self.slots) * u64::from(to.weight))
    }
}

impl Shares {
    /// Slots without a member.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> Result<Self, NoMemory> {
        let mut owners = Vec::new();
        owners.try_reserve_exact(SLOTS).map_err(|_| NoMemory)?;
        owners.resize(SLOTS, NOBODY);
        Ok(Self {
            owners: owners.into_boxed_slice(),
            members: Vec::new(),
        })
    }

    /// The member that each slot belongs to, or [`NOBODY`].
    #[must_use]
    pub fn owners(&self) -> &[u16] {
        &self.owners
    }

    /// Gives a new member its share, and says by which number it is known.
    ///
    /// # Errors
    /// There are as many members as slots, or there is no memory; nothing has changed.
    pub fn join(&mut self, weight: u32) -> Result<usize, NoShare> {
        let free = self.members.iter().position(|share| share.weight == 0);
        let member = free.unwrap_or(self.members.len());
        if member == SLOTS {
            return Err(NoShare::Full);
        }
        if member == self.members.len() {
            self.members.try_reserve(1).map_err(|_| NoMemory)?;
            self.members.push(Share::default());
        }
        self.members[member].weight = weight.clamp(1, WEIGHT_MAX);
        self.give_homeless();
        let mut cursor = 0;
        while let Some(giver) = self.best(Share::has_more_than)
            && self.members[giver].is_to_give(&self.members[member])
        {
            while usize::from(self.owners[cursor]) != giver {
                cursor = (cursor + 1) % SLOTS;
            }
            self.give(cursor, member);
        }
        Ok(member)
    }

    /// Takes a member out; its slots go to those that are left.
    pub fn leave(&mut self, member: usize) {
        self.members[member] = Share::default();
        for owner in &mut self.owners {
            if usize::from(*owner) == member {
                *owner = NOBODY;
            }
        }
        self.give_homeless();
    }

    fn give_homeless(&mut self) {
        for slot in 0..SLOTS {
            if self.owners[slot] == NOBODY
                && let Some(member) = self.best(Share::wants_more_than)
            {
                self.give(slot, member);
            }
        }
    }

    fn give(&mut self, slot: usize, member: usize) {
        if let Some(giver) = self.members.get_mut(usize::from(self.owners[slot])) {
            giver.slots -= 1;
        }
        self.owners[slot] = member as u16;
        self.members[member].slots += 1;
    }

    /// The first of the members that are no worse than any other.
    fn best(&self, is_better: impl Fn(&Share, &Share) -> bool) -> Option<usize> {
        let members = self.members.iter().enumerate();
        let members = members.filter(|(_, share)| share.weight > 0);
        let best = members.reduce(|best, one| if is_better(one.1, best.1) { one } else { best });
        best.map(|(member, _)| member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(shares: &Shares, member: usize) -> usize {
        let mine = |owner: &&u16| usize::from(**owner) == member;
        shares.owners().iter().filter(mine).count()
    }

    fn moved(before: &[u16], after: &[u16]) -> usize {
        before.iter().zip(after).filter(|(a, b)| a != b).count()
    }

    #[test]
    fn slots_are_shared_by_weight_and_only_those_move_that_must() {
        for weights in [vec![1; 7], vec![1, 2, 3, 4], vec![1000, 1, 500, 7, 1, 1]] {
            let mut shares = Shares::new().unwrap();
            let mut before = shares.owners().to_vec();
            for (member, weight) in weights.iter().enumerate() {
                assert_eq!(shares.join(*weight), Ok(member));
                let got = count(&shares, member);
                assert_eq!(moved(&before, shares.owners()), got, "{weights:?}");
                before = shares.owners().to_vec();
            }
            let check = |shares: &Shares, weights: &[u32]| {
                let total: u32 = weights.iter().sum();
                for (member, weight) in weights.iter().enumerate() {
                    let due = SLOTS as f64 * f64::from(*weight) / f64::from(total);
                    let got = count(shares, member) as f64;
                    assert!(
                        (got - due).abs() <= weights.len() as f64,
                        "{got} of {due}: {weights:?}"
                    );
                    assert!(*weight == 0 || got >= 1.0, "everybody has something");
                }
            };
            check(&shares, &weights);
            let mut left = weights.clone();
            for member in [2, 0] {
                let its = count(&shares, member);
                shares.leave(member);
                left[member] = 0;
                assert_eq!(moved(&before, shares.owners()), its);
                before = shares.owners().to_vec();
                check(&shares, &left);
            }
            assert_eq!(shares.join(3), Ok(0), "the number is used again");
        }
    }

    #[test]
    fn there_are_as_many_members_as_slots_and_each_has_one() {
        let mut shares = Shares::new().unwrap();
        for member in 0..SLOTS {
            assert_eq!(shares.join(1 + member as u32 % 1000), Ok(member));
        }
        assert!((0..SLOTS).all(|member| count(&shares, member) == 1));
        assert_eq!(shares.join(1), Err(NoShare::Full));
        (0..SLOTS).for_each(|member| shares.leave(member));
        assert!(shares.owners().iter().all(|owner| *owner == NOBODY));
    }
}

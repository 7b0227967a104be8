//! The entries of one slot of the table: a small immutable array of (tag, subscription).
//!
//! A bucket is one cache line when `S` is a pointer: four entries in place, and a pointer to the
//! rest, which few buckets have. A change copies it. Entries of one tag that become many move
//! into a `Crowd`, which is shared by all later copies and changes in place.
//!
//! A tag is 32 bits of the key; its low bits are also the index of the slot, so a bucket can be
//! split without asking for the patterns again. A reader verifies every hit on the text.
//!
//! Not here: which slot (`table`), and whether the text matches (`interest`).
//! The `Arc` of a crowd is the one allocation of this crate that cannot be refused (some 40
//! bytes, once for each pattern with more than `CROWD_MIN` subscriptions).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastmq_memory::snapshot::Pin;

use crate::allocation::{NoMemory, boxed};
use crate::crowd::Crowd;
use crate::interest::Subscriber;

/// Entries in place.
const INLINE: usize = 4;
/// Entries of one tag that stay loose; one more makes them a crowd.
const CROWD_MIN: usize = 16;

/// The entries of one slot.
pub(crate) struct Bucket<S: Subscriber> {
    tags: [u32; INLINE],
    /// The entry was removed when there was no memory for a copy without it.
    gone: [AtomicBool; INLINE],
    members: [Option<S>; INLINE],
    more: Option<Box<[More<S>; 1]>>,
}

const _: () = assert!(size_of::<[Option<Arc<u8>>; INLINE]>() == 32);

/// What does not fit in place.
struct More<S: Subscriber> {
    loose: Vec<Loose<S>>,
    crowds: Vec<(u32, Arc<Crowd<S>>)>,
}

struct Loose<S> {
    tag: u32,
    gone: AtomicBool,
    member: S,
}

/// What a change of a bucket asks of its slot.
pub(crate) enum Change<S: Subscriber> {
    /// Nothing; the change was made in a crowd.
    Made,
    /// Put this bucket in place of the old one.
    Replace(Box<[Bucket<S>; 1]>),
    /// Empty the slot.
    Clear,
}

impl<S: Subscriber> Bucket<S> {
    pub(crate) fn new() -> Self {
        Self {
            tags: [0; INLINE],
            gone: [const { AtomicBool::new(false) }; INLINE],
            members: [const { None }; INLINE],
            more: None,
        }
    }

    /// Calls `visit` with every entry of `tag`.
    #[inline]
    pub(crate) fn probe<'g>(&'g self, tag: u32, pin: &'g Pin, visit: &mut impl FnMut(&'g S)) {
        for (place, member) in self.members.iter().enumerate() {
            if self.tags[place] == tag
                && let Some(member) = member
                && !self.gone[place].load(Ordering::Acquire)
            {
                visit(member);
            }
        }
        if let Some(more) = &self.more {
            more[0].probe(tag, pin, visit);
        }
    }

    /// This bucket (or an empty one) with one entry more.
    pub(crate) fn insert(
        old: Option<&Self>,
        tag: u32,
        member: &S,
        pin: &Pin,
    ) -> Result<Change<S>, NoMemory> {
        if let Some(crowd) = old.and_then(|old| old.crowd(tag)) {
            crowd.insert(member, pin)?;
            return Ok(Change::Made);
        }
        let mut new = Self::new();
        let is_many = old.is_some_and(|old| old.loose_of(tag).count() >= CROWD_MIN);
        if let Some(old) = old {
            new.copy(old, |other| !is_many || other != tag)?;
            if is_many {
                let members = old.loose_of(tag).chain(std::iter::once(member));
                new.push_crowd(tag, Arc::new(Crowd::new(members)?))?;
                return Ok(Change::Replace(boxed(new)?));
            }
        }
        new.push(tag, member.clone())?;
        Ok(Change::Replace(boxed(new)?))
    }

    /// This bucket without `member`, or `None` if it is not in it. Never fails: without memory
    /// for a copy the entry is marked as gone.
    pub(crate) fn remove(&self, tag: u32, member: &S, pin: &Pin) -> Option<Change<S>> {
        if let Some(crowd) = self.crowd(tag) {
            if !crowd.remove(member, pin) {
                return None;
            }
            if crowd.len() > 0 {
                return Some(Change::Made);
            }
            // An empty crowd that is not left out for want of memory does no harm.
            return Some(self.without_crowd(tag).unwrap_or(Change::Made));
        }
        let gone = self.find(tag, member)?;
        gone.store(true, Ordering::Release);
        let mut rest = Self::new();
        match rest.copy(self, |_| true) {
            Ok(()) => Some(rest.into_change().unwrap_or(Change::Made)),
            Err(NoMemory) => Some(Change::Made),
        }
    }

    /// The entries whose tag satisfies `belongs`, and the others.
    pub(crate) fn split(&self, belongs: impl Fn(u32) -> bool) -> Result<[Change<S>; 2], NoMemory> {
        let (mut inside, mut outside) = (Self::new(), Self::new());
        inside.copy(self, &belongs)?;
        outside.copy(self, |tag| !belongs(tag))?;
        Ok([inside.into_change()?, outside.into_change()?])
    }

    /// The entries of two buckets in one.
    pub(crate) fn merge(old: [Option<&Self>; 2]) -> Result<Change<S>, NoMemory> {
        let mut merged = Self::new();
        for bucket in old.into_iter().flatten() {
            merged.copy(bucket, |_| true)?;
        }
        merged.into_change()
    }

    fn without_crowd(&self, tag: u32) -> Result<Change<S>, NoMemory> {
        let mut rest = Self::new();
        rest.copy(self, |other| other != tag)?;
        rest.into_change()
    }

    fn into_change(self) -> Result<Change<S>, NoMemory> {
        let is_empty = self.members[0].is_none() && self.more.is_none();
        if is_empty {
            return Ok(Change::Clear);
        }
        Ok(Change::Replace(boxed(self)?))
    }

    /// Takes over the entries of `old` whose tag satisfies `belongs`.
    fn copy(&mut self, old: &Self, belongs: impl Fn(u32) -> bool) -> Result<(), NoMemory> {
        for (tag, member, _) in old.loose().filter(|&(tag, ..)| belongs(tag)) {
            self.push(tag, member.clone())?;
        }
        if let Some(more) = &old.more {
            for (tag, crowd) in more[0].crowds.iter().filter(|&&(tag, _)| belongs(tag)) {
                self.push_crowd(*tag, Arc::clone(crowd))?;
            }
        }
        Ok(())
    }

    /// Adds an entry; this bucket is not shared yet.
    fn push(&mut self, tag: u32, member: S) -> Result<(), NoMemory> {
        if let Some(place) = self.members.iter().position(Option::is_none) {
            self.tags[place] = tag;
            self.members[place] = Some(member);
            return Ok(());
        }
        let loose = &mut self.more()?.loose;
        loose.try_reserve(1).map_err(|_| NoMemory)?;
        let gone = AtomicBool::new(false);
        loose.push(Loose { tag, gone, member });
        Ok(())
    }

    fn push_crowd(&mut self, tag: u32, crowd: Arc<Crowd<S>>) -> Result<(), NoMemory> {
        let crowds = &mut self.more()?.crowds;
        crowds.try_reserve_exact(1).map_err(|_| NoMemory)?;
        crowds.push((tag, crowd));
        Ok(())
    }

    fn more(&mut self) -> Result<&mut More<S>, NoMemory> {
        let more = match self.more.take() {
            Some(more) => more,
            None => boxed(More {
                loose: Vec::new(),
                crowds: Vec::new(),
            })?,
        };
        Ok(&mut self.more.insert(more)[0])
    }

    /// All entries that are not in a crowd and not gone.
    fn loose(&self) -> impl Iterator<Item = (u32, &S, &AtomicBool)> {
        let inline = self.tags.iter().zip(&self.members).zip(&self.gone);
        let inline =
            inline.filter_map(|((&tag, member), gone)| Some((tag, member.as_ref()?, gone)));
        let more = self.more.iter().flat_map(|more| &more[0].loose);
        let more = more.map(|entry| (entry.tag, &entry.member, &entry.gone));
        let all = inline.chain(more);
        all.filter(|(_, _, gone)| !gone.load(Ordering::Acquire))
    }

    fn loose_of(&self, tag: u32) -> impl Iterator<Item = &S> {
        let entries = self.loose();
        entries.filter_map(move |(other, member, _)| (other == tag).then_some(member))
    }

    fn find(&self, tag: u32, member: &S) -> Option<&AtomicBool> {
        let mut entries = self.loose();
        let (_, _, gone) = entries.find(|&(other, entry, _)| other == tag && entry.same(member))?;
        Some(gone)
    }

    fn crowd(&self, tag: u32) -> Option<&Crowd<S>> {
        let crowds = &self.more.as_ref()?[0].crowds;
        let (_, crowd) = crowds.iter().find(|&&(other, _)| other == tag)?;
        Some(crowd)
    }
}

impl<S: Subscriber> More<S> {
    fn probe<'g>(&'g self, tag: u32, pin: &'g Pin, visit: &mut impl FnMut(&'g S)) {
        for entry in &self.loose {
            if entry.tag == tag && !entry.gone.load(Ordering::Acquire) {
                visit(&entry.member);
            }
        }
        for (other, crowd) in &self.crowds {
            if *other == tag {
                crowd.for_each(pin, visit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastmq_memory::snapshot::pin;

    type Member = Arc<(u32, [u8; 0])>;

    impl Subscriber for Member {
        fn pattern(&self) -> &[u8] {
            &self.1
        }
        fn same(&self, other: &Self) -> bool {
            Arc::ptr_eq(self, other)
        }
    }

    fn member(number: u32) -> Member {
        Arc::new((number, []))
    }

    /// A bucket outside a table; `None` is an empty slot.
    #[derive(Default)]
    struct Slot(Option<Box<[Bucket<Member>; 1]>>);

    impl Slot {
        fn apply(&mut self, change: Change<Member>) {
            match change {
                Change::Made => {}
                Change::Replace(bucket) => self.0 = Some(bucket),
                Change::Clear => self.0 = None,
            }
        }

        fn bucket(&self) -> Option<&Bucket<Member>> {
            self.0.as_ref().map(|bucket| &bucket[0])
        }

        fn insert(&mut self, tag: u32, member: &Member) {
            let change = Bucket::insert(self.bucket(), tag, member, &pin()).unwrap();
            self.apply(change);
        }

        fn remove(&mut self, tag: u32, member: &Member) -> bool {
            let change = self.bucket().and_then(|b| b.remove(tag, member, &pin()));
            let is_removed = change.is_some();
            self.apply(change.unwrap_or(Change::Made));
            is_removed
        }

        fn check(&self, tag: u32, expected: impl IntoIterator<Item = u32>) {
            let (mut seen, pin) = (Vec::new(), pin());
            if let Some(bucket) = self.bucket() {
                bucket.probe(tag, &pin, &mut |member| seen.push(member.0));
            }
            seen.sort_unstable();
            assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_bucket_of_pointers_is_one_cache_line() {
        assert_eq!(size_of::<Bucket<Member>>(), 64);
    }

    #[test]
    fn a_bucket_grows_from_inline_to_loose_to_crowd_and_back() {
        let all: Vec<Member> = (0..40).map(member).collect();
        let other = member(99);
        let mut slot = Slot::default();
        slot.insert(5, &other);
        for (count, member) in (0..).zip(&all) {
            slot.check(7, 0..count);
            slot.insert(7, member);
            slot.check(5, [99]);
        }
        assert!(slot.bucket().unwrap().crowd(7).is_some());
        for (count, member) in (0..).zip(&all) {
            assert!(!slot.remove(5, member), "another tag");
            assert!(slot.remove(7, member));
            assert!(!slot.remove(7, member));
            slot.check(7, count + 1..40);
            slot.check(5, [99]);
        }
        assert!(slot.bucket().unwrap().more.is_none(), "the crowd is gone");
        assert!(slot.remove(5, &other));
        assert!(slot.bucket().is_none());
    }

    #[test]
    fn a_split_and_a_merge_keep_every_entry() {
        let mut slot = Slot::default();
        for number in 0..60 {
            slot.insert(if number < 30 { 2 } else { number }, &member(number));
        }
        let [even, odd] = slot.bucket().unwrap().split(|tag| tag % 2 == 0).unwrap();
        let (mut a, mut b, mut both) = (Slot::default(), Slot::default(), Slot::default());
        a.apply(even);
        b.apply(odd);
        a.check(2, 0..30);
        a.check(32, [32]);
        a.check(33, []);
        b.check(33, [33]);
        b.check(2, []);
        both.apply(Bucket::merge([a.bucket(), b.bucket()]).unwrap());
        both.check(2, 0..30);
        (30..60).for_each(|tag| both.check(tag, [tag]));
    }

    #[test]
    fn an_entry_that_is_marked_as_gone_is_not_seen_and_not_copied() {
        let all: Vec<Member> = (0..8).map(member).collect();
        let mut slot = Slot::default();
        all.iter().for_each(|member| slot.insert(1, member));
        for gone in [1, 6] {
            let found = slot.bucket().unwrap().find(1, &all[gone]);
            found.unwrap().store(true, Ordering::Release);
        }
        slot.check(1, [0, 2, 3, 4, 5, 7]);
        assert!(!slot.remove(1, &all[6]));
        let weak = Arc::downgrade(&all[6]);
        slot.insert(2, &member(9));
        slot.check(1, [0, 2, 3, 4, 5, 7]);
        drop(all);
        assert!(weak.upgrade().is_none());
    }
}

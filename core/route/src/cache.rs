//! The routes that one writer has computed before, by subject.
//!
//! Set-associative: a set has four ways whose hashes lie together, the text is compared only
//! where a hash is equal. A subject belongs in its home set and, while that is full, in one other
//! set, so that a cache which is half full has room for nearly every subject and a cycle through
//! sequential names does not evict what it needs next. The cache starts with nothing, then
//! doubles from 64 to 16,384 routes whenever a subject finds both sets full (and a quarter of the
//! cache is, which a few equal hashes do not achieve): in practice when it is half full. It does
//! not grow for subjects that do not come back. Without memory it stays as large as it is.
//!
//! A *doorkeeper* remembers, in three bits a subject, who missed lately. The first miss of a
//! subject is not worth a route: a storm of subjects that are used once leaves no trace but bits.
//!
//! Not here: whether a route is still right (`stamp`), and what is in it. One thread at a time.

use crate::allocation::{NoMemory, filled};
use crate::hash::is_same;

/// Routes of the smallest cache and of the largest.
pub const ROUTES_MIN: usize = 64;
/// The most routes that a cache holds.
pub const ROUTES_MAX: usize = 16_384;

const WAYS: usize = 4;
/// Bits of the doorkeeper: eight for each subject it remembers, of which it sets three. So one
/// subject in a hundred is taken for another.
const DOOR_BITS: usize = DOOR_SUBJECTS * 8;
/// Subjects that the doorkeeper remembers before it starts anew.
const DOOR_SUBJECTS: usize = ROUTES_MAX;

/// Nobody has to leave, and the cache does not grow, unless one miss of so many is of a subject
/// that comes back.
const MISSES_FOR_A_RETURN: usize = 16;

/// What a cache holds: something that knows its subject.
pub trait CachedRoute {
    /// The subject that the route belongs to; it never changes.
    fn subject(&self) -> &[u8];
}

/// A bounded cache from subject to route, for one writer.
#[derive(Debug)]
pub struct RouteCache<R> {
    /// One for each set; a power of two, or none.
    hashes: Box<[[u64; WAYS]]>,
    routes: Box<[[Option<R>; WAYS]]>,
    count: usize,
    /// The way that is evicted next; one for all sets, which is random enough.
    hand: usize,
    door: Box<[u64]>,
    /// Subjects in the doorkeeper, and how many misses of them it has seen again.
    door_count: usize,
    admitted: usize,
}

impl<R: CachedRoute> RouteCache<R> {
    /// An empty cache; it allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            hashes: Box::default(),
            routes: Box::default(),
            count: 0,
            hand: 0,
            door: Box::default(),
            door_count: 0,
            admitted: 0,
        }
    }

    /// Routes in the cache.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Routes that fit without growing.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.hashes.len() * WAYS
    }

    /// The route of `subject`, whose hash is `hash`.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, hash: u64, subject: &[u8]) -> Option<&R> {
        if self.hashes.is_empty() {
            return None;
        }
        // Nearly every hit is in the home set.
        let [home, other] = sets(hash, self.hashes.len());
        let hashes = &self.hashes[home];
        let routes = &self.routes[home];
        for way in 0..WAYS {
            if hashes[way] == hash
                && let Some(route) = &routes[way]
                && is_same(route.subject(), subject)
            {
                return Some(route);
            }
        }
        if has(&self.hashes[other], hash) {
            return self.get_elsewhere(hash, subject);
        }
        None
    }

    /// Whether there is a route with this hash: that of a subject which has one, or rarely of
    /// another.
    #[inline]
    #[must_use]
    pub fn knows(&self, hash: u64) -> bool {
        if self.hashes.is_empty() {
            return false;
        }
        let [home, other] = sets(hash, self.hashes.len());
        has(&self.hashes[home], hash) || has(&self.hashes[other], hash)
    }

    #[cold]
    fn get_elsewhere(&self, hash: u64, subject: &[u8]) -> Option<&R> {
        let (set, way) = self.find(hash, subject)?;
        self.routes[set][way].as_ref()
    }

    /// The same, to be changed. Never allocates.
    #[inline]
    pub fn get_mut(&mut self, hash: u64, subject: &[u8]) -> Option<&mut R> {
        let (set, way) = self.find(hash, subject)?;
        self.routes[set][way].as_mut()
    }

    /// Keeps `route` under the hash of its subject, and gives back what had to leave: the route
    /// that the subject had, or a stranger's, or `route` itself if there is no memory at all or
    /// no room where hardly a subject comes back.
    pub fn insert(&mut self, hash: u64, route: R) -> Option<R> {
        if let Some((set, way)) = self.find(hash, route.subject()) {
            return self.routes[set][way].replace(route);
        }
        let mut place = self.room(hash);
        if place.is_none() && !self.hashes.is_empty() && !self.is_useful() {
            return Some(route);
        }
        while place.is_none() && self.is_crowded() && self.grow().is_ok() {
            place = self.room(hash);
        }
        if self.hashes.is_empty() {
            return Some(route);
        }
        let (set, way) = place.unwrap_or_else(|| self.victim(hash));
        self.hashes[set][way] = hash;
        let evicted = self.routes[set][way].replace(route);
        self.count += usize::from(evicted.is_none());
        evicted
    }

    /// Whether a subject that has just missed is worth a route: false for its first miss in a
    /// while, true for the second. Without memory for the doorkeeper everybody may enter.
    pub fn admit(&mut self, hash: u64) -> bool {
        if self.door.is_empty() {
            let Ok(door) = filled(DOOR_BITS / 64, || 0) else {
                return true;
            };
            self.door = door;
        }
        // Not the bits that pick the set. All in one word: one line to wait for.
        let word = &mut self.door[(hash >> 18) as usize % (DOOR_BITS / 64)];
        let bits = [36, 44, 52].map(|at| 1 << (hash >> at & 63));
        let mask = bits[0] | bits[1] | bits[2];
        if *word & mask == mask {
            self.admitted += 1;
            return true;
        }
        *word |= mask;
        self.door_count += 1;
        if self.door_count == DOOR_SUBJECTS {
            self.door.fill(0);
            self.door_count = 0;
            self.admitted = 0;
        }
        false
    }

    /// Keeps the routes that `keep` says yes to, and drops the others.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut R) -> bool) {
        for slot in self.routes.iter_mut().flatten() {
            if let Some(route) = slot
                && !keep(route)
            {
                *slot = None;
                self.count -= 1;
            }
        }
    }

    /// Drops all routes and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    #[inline]
    fn find(&self, hash: u64, subject: &[u8]) -> Option<(usize, usize)> {
        if self.hashes.is_empty() {
            return None;
        }
        for set in sets(hash, self.hashes.len()) {
            for way in 0..WAYS {
                if self.hashes[set][way] == hash
                    && let Some(route) = &self.routes[set][way]
                    && route.subject() == subject
                {
                    return Some((set, way));
                }
            }
        }
        None
    }

    /// An empty way for `hash`.
    fn room(&self, hash: u64) -> Option<(usize, usize)> {
        if self.hashes.is_empty() {
            return None;
        }
        let mut places = sets(hash, self.hashes.len()).into_iter();
        places.find_map(|set| {
            let way = self.routes[set].iter().position(Option::is_none)?;
            Some((set, way))
        })
    }

    fn victim(&mut self, hash: u64) -> (usize, usize) {
        self.hand = self.hand.wrapping_add(1);
        // Both sets take turns, so that a pair of full sets acts as one set of eight.
        let [home, other] = sets(hash, self.hashes.len());
        let set = if self.hand & WAYS == 0 { home } else { other };
        (set, self.hand % WAYS)
    }

    fn is_crowded(&self) -> bool {
        self.capacity() < ROUTES_MAX && self.count * 4 >= self.capacity()
    }

    /// Whether enough of those who miss come back. Where hardly one does, a larger cache finds no
    /// more and costs more to miss, and whoever is in it is worth more than who comes.
    fn is_useful(&self) -> bool {
        self.admitted * MISSES_FOR_A_RETURN >= self.door_count
    }

    /// Doubles the cache. A route that finds no room in the new sets is dropped; with three
    /// quarters of the ways empty that is rare.
    fn grow(&mut self) -> Result<(), NoMemory> {
        let sets = (self.hashes.len() * 2).max(ROUTES_MIN / WAYS);
        let hashes = filled(sets, || [0; WAYS])?;
        let routes = filled(sets, || [const { None }; WAYS])?;
        let old_hashes = std::mem::replace(&mut self.hashes, hashes);
        let old_routes = std::mem::replace(&mut self.routes, routes);
        self.count = 0;
        let old = old_hashes
            .iter()
            .flatten()
            .zip(old_routes.into_iter().flatten());
        for (&hash, route) in old {
            let Some(route) = route else { continue };
            if let Some((set, way)) = self.room(hash) {
                self.hashes[set][way] = hash;
                self.routes[set][way] = Some(route);
                self.count += 1;
            }
        }
        Ok(())
    }
}

impl<R: CachedRoute> Default for RouteCache<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a hash is in a set. Without a branch for each way: mostly none is equal.
#[inline(always)]
fn has(set: &[u64; WAYS], hash: u64) -> bool {
    set.iter().fold(false, |has, &other| has | (other == hash))
}

/// The home set of `hash` and the other one, in a cache of `count` sets (at least 2).
#[inline]
fn sets(hash: u64, count: usize) -> [usize; 2] {
    let home = hash as usize & (count - 1);
    let other = home ^ (hash >> 40) as usize & (count - 1);
    [home, if other == home { home ^ 1 } else { other }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::SubjectHash;
    use std::rc::Rc;

    struct Route(Rc<str>);

    impl CachedRoute for Route {
        fn subject(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }

    const HASH: SubjectHash = SubjectHash::new(77);

    /// Uses `subject` as a writer would; says whether its route was there.
    fn touch(cache: &mut RouteCache<Route>, subject: &str) -> bool {
        let hash = HASH.hash(subject.as_bytes());
        if let Some(route) = cache.get_mut(hash, subject.as_bytes()) {
            assert_eq!(&*route.0, subject);
            return true;
        }
        if cache.admit(hash) {
            cache.insert(hash, Route(subject.into()));
        }
        false
    }

    /// The share of hits, in a thousand, of the last of `rounds` rounds over `subjects` names.
    fn hits_per_mille(subjects: usize, rounds: usize) -> usize {
        let mut cache = RouteCache::new();
        let mut hits = 0;
        for _ in 0..rounds {
            hits = (0..subjects)
                .filter(|i| touch(&mut cache, &format!("player.{i}")))
                .count();
            assert!(cache.len() <= cache.capacity() && cache.capacity() <= ROUTES_MAX);
        }
        hits * 1_000 / subjects
    }

    #[test]
    fn an_unused_cache_holds_no_memory_and_finds_nothing() {
        let mut cache = RouteCache::<Route>::new();
        assert!(cache.get_mut(0, b"a").is_none());
        assert_eq!((cache.capacity(), cache.door.len()), (0, 0));
    }

    #[test]
    fn the_second_miss_is_admitted() {
        let mut cache = RouteCache::new();
        assert!(!touch(&mut cache, "a.b"));
        assert!(cache.is_empty());
        assert!(!touch(&mut cache, "a.b"));
        assert!(touch(&mut cache, "a.b"));
        assert_eq!((cache.len(), cache.capacity()), (1, ROUTES_MIN));
    }

    #[test]
    fn sequential_names_do_not_thrash() {
        for subjects in [1, 30, 64, 100, 1_000, 4_000] {
            assert_eq!(hits_per_mille(subjects, 6), 1_000, "{subjects} subjects");
        }
        assert!(hits_per_mille(10_000, 6) >= 999);
        assert!(hits_per_mille(14_000, 8) >= 950);
    }

    #[test]
    fn a_storm_of_subjects_used_once_takes_little() {
        let mut cache = RouteCache::new();
        for i in 0..20 {
            let hot = format!("hot.{i}");
            assert!(!touch(&mut cache, &hot) && !touch(&mut cache, &hot));
        }
        for i in 0..100_000 {
            touch(&mut cache, &format!("once.{i}"));
        }
        assert!((0..20).all(|i| touch(&mut cache, &format!("hot.{i}"))));
        assert!(cache.len() < 10_000, "{} routes", cache.len());
    }

    #[test]
    fn the_cache_is_bounded_and_gives_back_what_leaves() {
        let mut cache = RouteCache::new();
        let mut evicted = 0;
        for i in 0..40_000 {
            let subject = format!("s.{i}");
            let hash = HASH.hash(subject.as_bytes());
            evicted += usize::from(cache.insert(hash, Route(subject.as_str().into())).is_some());
            assert!(cache.get_mut(hash, subject.as_bytes()).is_some());
        }
        assert_eq!(cache.capacity(), ROUTES_MAX);
        assert!(cache.len() + evicted <= 40_000 && cache.len() + evicted > 39_900);
        assert!(cache.len() > ROUTES_MAX * 95 / 100);
    }

    #[test]
    fn a_cache_does_not_grow_for_subjects_that_do_not_come_back() {
        let mut cache = RouteCache::new();
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for _ in 0..200_000 {
            touch(&mut cache, &format!("player.{}", next(1_000_000)));
        }
        assert_eq!(cache.capacity(), ROUTES_MIN);
        for _ in 0..100_000 {
            touch(&mut cache, &format!("player.{}", next(1_000)));
        }
        assert!(cache.capacity() >= 1_000 && cache.len() > 900);
    }

    #[test]
    fn equal_hashes_are_told_apart_by_the_text() {
        let mut cache = RouteCache::new();
        for subject in ["a", "b", "c"] {
            assert!(cache.insert(5, Route(subject.into())).is_none());
        }
        for subject in ["a", "b", "c"] {
            assert_eq!(&*cache.get_mut(5, subject.as_bytes()).unwrap().0, subject);
        }
        assert!(cache.get_mut(5, b"d").is_none());
        let old = cache.insert(5, Route("b".into()));
        assert_eq!(&*old.unwrap().0, "b");
        assert_eq!(cache.len(), 3);
    }

    #[test]
    fn many_equal_hashes_evict_without_growing_for_ever() {
        let mut cache = RouteCache::new();
        for i in 0..1_000 {
            cache.insert(5, Route(format!("{i}").into()));
        }
        assert_eq!((cache.len(), cache.capacity()), (8, ROUTES_MIN));
    }

    #[test]
    fn retain_and_clear_drop_routes() {
        let mut cache = RouteCache::new();
        for i in 0..50 {
            let subject = format!("{i}");
            cache.insert(HASH.hash(subject.as_bytes()), Route(subject.into()));
        }
        cache.retain(|route| route.0.ends_with('7'));
        assert_eq!(cache.len(), 5);
        assert!(cache.get_mut(HASH.hash(b"17"), b"17").is_some());
        assert!(cache.get_mut(HASH.hash(b"18"), b"18").is_none());
        cache.clear();
        assert_eq!((cache.len(), cache.capacity()), (0, 0));
    }
}

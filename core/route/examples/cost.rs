//! Prints what the interest table costs: `cargo run --release -p fastmq-route --example cost`.
//!
//! Rough figures for whoever changes this crate, not results; those come from `make bench`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use fastmq_memory::snapshot::pin;
use fastmq_route::{CachedRoute, Interest, RouteCache, SubjectHash, check_subject};

/// A subscription to this pattern; its value is a handle, as the engine's is.
fn insert(interest: &Interest<Arc<()>>, id: usize, pattern: &str, value: &Arc<()>) {
    let id = u32::try_from(id).expect("few");
    let inserted = interest.insert(id, pattern.as_bytes(), value.clone());
    inserted.expect("there is memory");
}

fn remove(interest: &Interest<Arc<()>>, id: usize, pattern: &str) -> bool {
    let id = u32::try_from(id).expect("few");
    interest.remove(pattern.as_bytes(), id).is_some()
}

struct Route(Arc<str>);

impl CachedRoute for Route {
    fn subject(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Resident memory in KiB, where the system says so.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Runs `step` for every index below `count` and prints the time of one.
fn measure(what: &str, count: usize, mut step: impl FnMut(usize)) {
    let start = Instant::now();
    (0..count).for_each(&mut step);
    let each = start.elapsed().as_nanos() as f64 / count as f64;
    println!("{what:<58} {each:>9.1} ns");
}

/// A permutation of the indices below `count`, so that no prefetcher helps.
fn scattered(i: usize, count: usize) -> usize {
    (i.wrapping_mul(0x9E37_79B1) ^ i >> 7) % count
}

fn literals() {
    const COUNT: usize = 1_000_000;
    let all: Vec<String> = (0..COUNT).map(|i| format!("player.{i}.moved")).collect();
    let (interest, value) = (Interest::new(1), Arc::new(()));
    let before = resident();
    measure("subscribe, 1,000,000 literals", COUNT, |i| {
        insert(&interest, i, &all[i], &value);
    });
    (0..8).for_each(|_| pin().flush());
    let bytes = (resident() - before) * 1_024 / COUNT as i64;
    println!("{:<58} {bytes:>9} B", "memory of one");
    let mut out = Vec::new();
    let mut look = |subject: &[u8]| {
        out.clear();
        black_box(interest.lookup(subject, &mut out));
        assert_eq!(out.len(), 1);
    };
    measure("lookup, random subject of 1,000,000", COUNT, |i| {
        look(all[scattered(i, COUNT)].as_bytes());
    });
    measure("lookup, one of 64 hot subjects of 1,000,000", COUNT, |i| {
        look(all[scattered(i, 64)].as_bytes());
    });
    let stars = ["player.*.moved", "*.7.moved", "player.>", "other.*"];
    for (i, star) in stars.iter().enumerate() {
        insert(&interest, COUNT + i, star, &value);
    }
    measure("the same with 4 wildcard patterns, 3 shapes", COUNT, |i| {
        out.clear();
        black_box(interest.lookup(all[scattered(i, 64)].as_bytes(), &mut out));
    });
    let stamp = interest.lookup(b"player.1.moved", &mut out);
    measure("is_current, nothing changed", COUNT * 10, |_| {
        assert!(interest.is_current(black_box(&stamp)));
    });
    measure("insert and remove elsewhere, is_current", COUNT / 4, |_| {
        insert(&interest, COUNT + 9, "elsewhere", &value);
        remove(&interest, COUNT + 9, "elsewhere");
        assert!(interest.is_current(black_box(&stamp)));
    });
    measure("unsubscribe, random order", COUNT, |i| {
        let id = i * 7_919 % COUNT;
        remove(&interest, id, &all[id]);
    });
    (0..8).for_each(|_| pin().flush());
    println!("{:<58} {:>9} KiB", "memory still held", resident() - before);
}

fn crowd() {
    const COUNT: usize = 100_000;
    let (interest, value) = (Interest::new(1), Arc::new(()));
    for order in ["first in first out", "last in first out", "random"] {
        measure("subscribe, 100,000 times the same pattern", COUNT, |i| {
            insert(&interest, i, "same.*", &value);
        });
        measure(&format!("unsubscribe, {order}"), COUNT, |i| {
            let index = match order {
                "first in first out" => i,
                "last in first out" => COUNT - 1 - i,
                _ => i * 7_919 % COUNT,
            };
            assert!(remove(&interest, index, "same.*"));
        });
    }
}

fn small_parts() {
    const COUNT: usize = 10_000_000;
    let hash = SubjectHash::new(1);
    let names: Vec<Arc<str>> = (0..1_024)
        .map(|i| format!("player.{i:04}.pos").into())
        .collect();
    measure("hash of 16 bytes", COUNT, |i| {
        black_box(hash.hash(black_box(names[i % 1_024].as_bytes())));
    });
    measure("check_subject of 16 bytes", COUNT, |i| {
        assert!(check_subject(black_box(names[i % 1_024].as_bytes())).is_ok());
    });
    let mut cache = RouteCache::new();
    for name in &names {
        cache.insert(hash.hash(name.as_bytes()), Route(name.clone()));
    }
    measure("hash and cached route, 1,024 subjects", COUNT, |i| {
        let subject = names[i % 1_024].as_bytes();
        assert!(black_box(cache.get_mut(hash.hash(subject), subject)).is_some());
    });
    measure("hash and cached route, one subject", COUNT, |_| {
        let subject = black_box(names[7].as_bytes());
        assert!(black_box(cache.get_mut(hash.hash(subject), subject)).is_some());
    });
}

fn main() {
    small_parts();
    literals();
    crowd();
}

//! Promises of [`fastmq_memory::snapshot`]: readers see whole values, values die once and late.

#![cfg(not(loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fastmq_memory::snapshot::{Snapshot, pin};

const ALIVE: u64 = 0xA11E_A11E_A11E_A11E;
const DEAD: u64 = 0xDEAD_DEAD_DEAD_DEAD;

/// Shouts when it is read after its drop, torn, or dropped twice; counts the living.
struct Canary {
    state: AtomicU64,
    version: u64,
    mirror: u64,
    living: Arc<AtomicU64>,
}

impl Canary {
    fn new(version: u64, living: &Arc<AtomicU64>) -> Self {
        living.fetch_add(1, Ordering::Relaxed);
        let living = Arc::clone(living);
        Self {
            state: AtomicU64::new(ALIVE),
            version,
            mirror: !version,
            living,
        }
    }

    fn check(&self) -> u64 {
        assert_eq!(self.state.load(Ordering::Relaxed), ALIVE, "read after drop");
        assert_eq!(self.version, !self.mirror, "torn value");
        self.version
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        assert_eq!(
            self.state.swap(DEAD, Ordering::Relaxed),
            ALIVE,
            "dropped twice"
        );
        self.living.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Turns the epoch until `living` falls to `expected`; other tests may hold it back for a while.
fn collect_until(living: &AtomicU64, expected: u64) {
    const TURNS_MAX: u32 = 10_000_000;
    for _ in 0..TURNS_MAX {
        if living.load(Ordering::Acquire) == expected {
            return;
        }
        pin().flush();
        thread::yield_now();
    }
    panic!(
        "{} values still live, expected {expected}",
        living.load(Ordering::Acquire)
    );
}

#[test]
fn an_empty_snapshot_loads_nothing_and_a_stored_one_its_value() {
    let snapshot = Snapshot::<u32>::empty();
    let pin = pin();
    assert_eq!(snapshot.load(&pin), None);
    snapshot.store(Some(Box::new(7)));
    assert_eq!(snapshot.load(&pin), Some(&7));
    snapshot.store(None);
    assert_eq!(snapshot.load(&pin), None);
    assert_eq!(Snapshot::new(9u8).load(&pin), Some(&9));
}

#[test]
fn a_loaded_value_outlives_the_store_and_the_snapshot_while_pinned() {
    let living = Arc::new(AtomicU64::new(0));
    let snapshot = Snapshot::new(Canary::new(1, &living));
    {
        let pin = pin();
        let first = snapshot.load(&pin).expect("one was stored");
        snapshot.store(Some(Box::new(Canary::new(2, &living))));
        let second = snapshot.load(&pin).expect("one was stored");
        drop(snapshot);
        for _ in 0..1000 {
            pin.flush();
        }
        assert_eq!((first.check(), second.check()), (1, 2));
        assert_eq!(living.load(Ordering::Relaxed), 2);
    }
    collect_until(&living, 0);
}

#[test]
fn snapshots_inside_snapshots_are_all_dropped() {
    struct Node {
        _canary: Canary,
        _next: Snapshot<Node>,
    }
    let living = Arc::new(AtomicU64::new(0));
    let mut chain = Snapshot::<Node>::empty();
    for depth in 0..100 {
        chain = Snapshot::new(Node {
            _canary: Canary::new(depth, &living),
            _next: chain,
        });
    }
    assert_eq!(living.load(Ordering::Relaxed), 100);
    drop(chain);
    collect_until(&living, 0);
}

#[test]
fn readers_see_whole_values_in_order_while_a_writer_replaces_them() {
    const VERSIONS: u64 = 20_000;
    const READERS: usize = 3;
    let living = Arc::new(AtomicU64::new(0));
    let snapshot = Snapshot::new(Canary::new(0, &living));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // The sanitizer sees a join, not the end of a scope.
        let mut threads = Vec::new();
        for _ in 0..READERS {
            threads.push(scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Acquire) {
                    let pin = pin();
                    let first = snapshot.load(&pin).expect("never empty");
                    let again = snapshot.load(&pin).expect("never empty");
                    assert!(seen <= first.check(), "versions went back");
                    assert!(first.version <= again.check());
                    seen = first.check();
                }
                let pin = pin();
                assert_eq!(snapshot.load(&pin).expect("never empty").check(), VERSIONS);
            }));
        }
        for version in 1..=VERSIONS {
            snapshot.store(Some(Box::new(Canary::new(version, &living))));
        }
        done.store(true, Ordering::Release);
        for thread in threads {
            thread.join().unwrap();
        }
    });
    drop(snapshot);
    collect_until(&living, 0);
}

#[test]
fn writers_that_race_lose_and_double_nothing() {
    const STORES: u64 = 5_000;
    let living = Arc::new(AtomicU64::new(0));
    let snapshot = Snapshot::empty();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for writer in 0..3 {
            let (living, snapshot) = (&living, &snapshot);
            threads.push(scope.spawn(move || {
                for count in 0..STORES {
                    let value = Canary::new(writer * STORES + count, living);
                    snapshot.store((count % 7 != 0).then(|| Box::new(value)));
                    if let Some(value) = snapshot.load(&pin()) {
                        value.check();
                    }
                }
            }));
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
    drop(snapshot);
    collect_until(&living, 0);
}

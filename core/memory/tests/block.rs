//! Promises of [`fastmq_memory::block`]: a payload is read whole or not at all, whatever the
//! descriptor says; nothing is leaked, nothing freed twice, and memory stays within its bounds.

mod fixture;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use fastmq_memory::block::{
    BLOCK_BYTES_MAX, BlockError, BlockPool, BlockRef, CACHED_BYTES_MAX, Descriptor, REFERENCES_MAX,
};
use fastmq_memory::budget::Budget;

use fixture::Lock;

fn pool(memory_max: u64) -> (Arc<BlockPool>, Arc<Budget>) {
    let budget = Arc::new(Budget::new(memory_max));
    (Arc::new(BlockPool::new(Arc::clone(&budget))), budget)
}

/// Nothing is live, the cache is within its bound, and the budget agrees with the pool.
fn check_idle(pool: &BlockPool, budget: &Budget) {
    let usage = pool.usage();
    assert_eq!((usage.blocks, usage.live_bytes), (0, 0));
    assert!(usage.cached_bytes <= CACHED_BYTES_MAX, "{usage:?}");
    assert_eq!(budget.used(), usage.cached_bytes + usage.table_bytes);
}

#[test]
fn each_reference_reads_the_payload_once_and_the_last_returns_it() {
    let (pool, budget) = pool(0);
    let payload: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
    let descriptor = pool.write(&payload, 3).unwrap();
    assert_eq!(descriptor.size, 5000);
    let first = pool.get(&descriptor).unwrap();
    let second = pool.get(&descriptor).unwrap();
    assert_eq!(&first[..], &payload[..]);
    assert_eq!(
        first.as_ptr().addr() % 64,
        0,
        "payloads start on a cache line"
    );
    drop(first);
    assert_eq!(pool.usage().blocks, 1);
    drop(pool.get(&descriptor).unwrap());
    assert!(
        pool.get(&descriptor).is_none(),
        "three references were written"
    );
    assert_eq!(&second[..], &payload[..]);
    drop(second);
    check_idle(&pool, &budget);
    drop(pool);
    assert_eq!(budget.used(), 0);
}

#[test]
fn sizes_from_nothing_to_the_largest_are_kept() {
    let (pool, budget) = pool(0);
    for size in [0, 1, 1023, 1024, 1025, 65_536, 1_000_000, BLOCK_BYTES_MAX] {
        let payload: Vec<u8> = (0..size).map(|at| (at * 7) as u8).collect();
        let descriptor = pool.write(&payload, 1).unwrap();
        assert!(
            *pool.get(&descriptor).unwrap() == payload[..],
            "{size} bytes"
        );
    }
    let large = vec![0; BLOCK_BYTES_MAX + 1];
    assert_eq!(pool.write(&large, 1), Err(BlockError::TooLarge));
    let large = BlockError::TooLarge.to_string();
    assert_eq!(large, "a block holds 67108864 bytes at most");
    check_idle(&pool, &budget);
}

#[test]
fn a_wrong_descriptor_names_nothing_and_costs_nothing() {
    let (pool, budget) = pool(0);
    let right = pool.write(b"payload", 1).unwrap();
    let wrong = [
        Descriptor {
            pool: right.pool + 1,
            ..right
        },
        Descriptor {
            index: right.index + 1,
            ..right
        },
        Descriptor { index: 64, ..right },
        Descriptor {
            index: u32::MAX,
            ..right
        },
        Descriptor {
            generation: 0,
            ..right
        },
        Descriptor {
            generation: right.generation + 1,
            ..right
        },
        Descriptor {
            generation: right.generation + (1 << 16),
            ..right
        },
        Descriptor { size: 6, ..right },
        Descriptor {
            size: u64::MAX,
            ..right
        },
    ];
    for descriptor in wrong {
        assert!(pool.get(&descriptor).is_none(), "{descriptor:?}");
        assert!(!pool.release(&descriptor, 1), "{descriptor:?}");
        assert!(!pool.add_references(&descriptor, 1), "{descriptor:?}");
    }
    assert_eq!(&*pool.get(&right).unwrap(), b"payload");
    assert!(pool.get(&right).is_none(), "stale");
    let reused = pool.write(b"payloae", 1).unwrap();
    assert_eq!(reused.index, right.index, "the same place and size");
    assert!(
        pool.get(&right).is_none(),
        "the place holds another block now"
    );
    assert!(!pool.release(&right, 1));
    assert_eq!(&*pool.get(&reused).unwrap(), b"payloae");
    check_idle(&pool, &budget);
}

#[test]
fn a_doubled_descriptor_cannot_free_what_another_reads() {
    let (pool, _budget) = pool(0);
    let descriptor = pool.write(b"mine", 1).unwrap();
    let held = pool.get(&descriptor).unwrap();
    assert!(pool.get(&descriptor).is_none());
    assert!(!pool.release(&descriptor, 1));
    assert_eq!(pool.usage().blocks, 1);
    for _ in 0..10 {
        drop(pool.get(&pool.write(b"else", 1).unwrap()));
    }
    assert_eq!(&*held, b"mine");
}

#[test]
fn references_are_added_and_released_in_numbers() {
    let (pool, budget) = pool(0);
    let descriptor = pool.write(b"x", 1).unwrap();
    assert!(pool.add_references(&descriptor, 9));
    assert!(!pool.release(&descriptor, 11), "there are ten");
    assert!(pool.release(&descriptor, 0));
    assert!(pool.release(&descriptor, 8));
    let held = pool.get(&descriptor).unwrap();
    assert!(pool.release(&descriptor, 1));
    assert!(
        pool.add_references(&descriptor, 1),
        "alive while one is held"
    );
    drop(held);
    drop(pool.get(&descriptor).unwrap());
    assert!(!pool.add_references(&descriptor, 1), "gone");
    check_idle(&pool, &budget);
    let none = pool.write(b"x", 0).unwrap();
    assert!(pool.get(&none).is_none());
    check_idle(&pool, &budget);
}

#[test]
fn the_number_of_references_is_bounded() {
    let (pool, budget) = pool(0);
    assert_eq!(
        pool.write(b"x", REFERENCES_MAX + 1),
        Err(BlockError::TooManyReferences)
    );
    let descriptor = pool.write(b"x", REFERENCES_MAX).unwrap();
    assert!(!pool.add_references(&descriptor, 1));
    assert!(!pool.add_references(&descriptor, u32::MAX));
    let held = pool.get(&descriptor).unwrap();
    assert!(!pool.add_references(&descriptor, 1), "held ones count");
    assert!(pool.release(&descriptor, REFERENCES_MAX - 1));
    assert_eq!(&*held, b"x");
    drop(held);
    check_idle(&pool, &budget);
}

#[test]
fn the_memory_cap_refuses_and_later_gives_again() {
    const CAP: u64 = 1 << 20;
    let (pool, budget) = pool(CAP);
    let payload = vec![7; 100_000];
    let mut written = Vec::new();
    let error = loop {
        match pool.write(&payload, 1) {
            Ok(descriptor) => written.push(descriptor),
            Err(error) => break error,
        }
    };
    assert_eq!(error, BlockError::OverBudget);
    assert_eq!(written.len(), 7, "131,072 bytes each, and the table");
    assert!(budget.used() <= CAP);
    for descriptor in &written {
        assert!(pool.release(descriptor, 1));
    }
    assert!(
        pool.usage().cached_bytes <= CAP / 8,
        "a small client keeps little"
    );
    // What is kept for one size gives way to another.
    let large = pool.write(&vec![1; 900_000], 1);
    assert_eq!(
        large,
        Err(BlockError::OverBudget),
        "a megabyte and the table are too much"
    );
    assert_eq!(pool.usage().cached_bytes, 0);
    assert!(pool.release(&pool.write(&vec![1; 500_000], 1).unwrap(), 1));
    check_idle(&pool, &budget);
}

#[test]
fn steady_traffic_allocates_nothing_new() {
    let (pool, budget) = pool(0);
    let round = || {
        let written: Vec<_> = (0..8)
            .map(|n| pool.write(&vec![n; 60_000], 2).unwrap())
            .collect();
        for descriptor in written {
            drop(pool.get(&descriptor).unwrap());
            assert!(pool.release(&descriptor, 1));
        }
    };
    round();
    let (used, high) = (budget.used(), budget.high());
    for _ in 0..100 {
        round();
    }
    assert_eq!((budget.used(), budget.high()), (used, high));
    pool.trim();
    assert_eq!(pool.usage().cached_bytes, 0);
    check_idle(&pool, &budget);
}

#[test]
fn the_cache_follows_the_sizes_of_the_traffic() {
    let (pool, budget) = pool(0);
    let fill = |size: usize, count: usize| {
        let payload = vec![0; size];
        let written: Vec<_> = (0..count)
            .map(|_| pool.write(&payload, 1).unwrap())
            .collect();
        assert!(written.iter().all(|descriptor| pool.release(descriptor, 1)));
    };
    fill(1024, 10_000);
    assert_eq!(pool.usage().cached_bytes, CACHED_BYTES_MAX);
    check_idle(&pool, &budget);
    for _ in 0..20 {
        fill(1 << 20, 4);
    }
    let high = budget.high();
    for _ in 0..20 {
        fill(1 << 20, 4);
    }
    assert_eq!(budget.high(), high);
    check_idle(&pool, &budget);
}

#[test]
fn a_pool_that_is_dropped_frees_what_lanes_still_named() {
    let (pool, budget) = pool(0);
    let kept = pool.write(b"pending for ever", 5).unwrap();
    let held = pool.get(&kept).unwrap();
    drop(pool);
    assert_eq!(&*held, b"pending for ever");
    assert!(budget.used() > 0);
    drop(held);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_claim_is_written_in_place_and_then_shared() {
    let (pool, budget) = pool(0);
    for size in [0, 1, 1024, 1025, 100_000] {
        let mut claim = pool.claim(size).unwrap();
        assert_eq!((claim.len(), claim.as_ptr().addr() % 64), (size, 0));
        claim.fill(7);
        assert_eq!(pool.usage().blocks, 1);
        let shared = claim.share(size / 2, 2).unwrap();
        let descriptor = shared.descriptor();
        assert_eq!(&shared[..], vec![7; size / 2]);
        let first = pool.get(&descriptor).unwrap();
        assert_eq!(&first[..], vec![7; size / 2]);
        drop(shared);
        assert!(pool.release(&descriptor, 1));
        assert!(pool.get(&descriptor).is_none());
        drop(first);
        check_idle(&pool, &budget);
    }
    drop(pool.claim(10).unwrap());
    check_idle(&pool, &budget);
    assert_eq!(
        pool.claim(BLOCK_BYTES_MAX + 1).err(),
        Some(BlockError::TooLarge)
    );
}

#[test]
fn a_claim_comes_back_only_when_nobody_else_has_it() {
    let (pool, budget) = pool(0);
    let mut claim = pool.claim(100).unwrap();
    for round in 0..3 {
        claim.fill(round);
        let shared = claim.share(100 - usize::from(round), 5).unwrap();
        let descriptor = shared.descriptor();
        assert!(pool.release(&descriptor, 5));
        claim = shared.take_back().expect("all were given back");
        assert_eq!(claim.len(), 100 - usize::from(round));
        assert!(!pool.add_references(&descriptor, 1), "it names nothing now");
        claim = claim.resized(1024).unwrap().resized(100).unwrap();
        assert!(claim.iter().all(|byte| *byte == round));
    }
    assert!(
        pool.claim(1).unwrap().resized(1025).is_none(),
        "its memory ends"
    );
    let claim = claim.share(10, REFERENCES_MAX).expect_err("too many");
    let shared = claim.share(10, 2).unwrap();
    let descriptor = shared.descriptor();
    let reader = pool.get(&descriptor).unwrap();
    assert!(pool.release(&descriptor, 1));
    assert!(shared.take_back().is_none(), "it is being read");
    assert_eq!(reader.len(), 10);
    drop(reader);
    check_idle(&pool, &budget);
    // What comes next in the same place counts its generations on.
    let next = pool.write(b"next", 1).unwrap();
    assert_eq!(next.index, descriptor.index);
    assert!(next.generation > descriptor.generation);
    assert!(pool.release(&next, 1));
}

#[test]
fn a_claim_cannot_be_named_by_whoever_guesses_its_descriptor() {
    let (pool, budget) = pool(0);
    let before = pool.write(&[1; 100], 1).unwrap();
    assert!(pool.release(&before, 1));
    let mut claim = pool.claim(100).unwrap();
    let check_hidden = |generation: u64| {
        for generation in 0..generation + 2 {
            let forged = Descriptor {
                generation,
                ..before
            };
            assert!(!pool.add_references(&forged, 1));
            assert!(pool.get(&forged).is_none());
            assert!(!pool.release(&forged, 1));
        }
    };
    check_hidden(before.generation + 1);
    claim.fill(2);
    let shared = claim.share(100, 1).unwrap();
    let descriptor = shared.descriptor();
    assert!(pool.release(&descriptor, 1));
    let claim = shared.take_back().unwrap();
    check_hidden(descriptor.generation + 1);
    drop(claim);
    check_idle(&pool, &budget);
}

#[test]
fn claims_take_memory_of_the_cache_and_the_cap() {
    let (pool, budget) = pool(0);
    // Raw memory of a copy becomes that of a claim, whose bytes all have a value.
    let copied = pool.write(&[9; 10], 1).unwrap();
    assert!(pool.release(&copied, 1));
    let claim = pool.claim(1000).unwrap();
    assert!(claim.iter().all(|byte| *byte == 0));
    drop(claim);
    assert_eq!(pool.usage().cached_bytes, 1024);
    check_idle(&pool, &budget);
    let (pool, budget) = self::pool(100_000);
    let claim = pool.claim(60_000).unwrap();
    assert_eq!(pool.claim(60_000).err(), Some(BlockError::OverBudget));
    drop(claim);
    drop(pool);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_descriptor_survives_its_bytes() {
    let descriptor = Descriptor {
        pool: 0x0403_0201,
        index: 0x0807_0605,
        generation: 9,
        size: 1 << 40,
    };
    let mut bytes = descriptor.to_bytes();
    assert_eq!(bytes[..9], [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(bytes[21], 1);
    assert_eq!(bytes[24..], [0; 8]);
    assert_eq!(Descriptor::from_bytes(&bytes), descriptor);
    bytes[31] = 1;
    assert_eq!(
        Descriptor::from_bytes(&bytes).generation,
        0,
        "reserved bytes are 0"
    );
}

/// A payload whose every byte says whose it is.
fn stamped(writer: u8, round: usize, size: usize) -> Vec<u8> {
    let mut payload = vec![writer ^ round as u8; size];
    payload[0] = writer;
    payload
}

fn check_stamp(block: &BlockRef, round: usize) {
    let stamp = block[0] ^ round as u8;
    assert!(
        block[1..].iter().all(|byte| *byte == stamp),
        "another payload's bytes"
    );
}

#[test]
fn writers_and_readers_on_all_threads_lose_and_double_nothing() {
    const WRITERS: usize = 2;
    const READERS: usize = 2;
    const ROUNDS: usize = 3_000;
    const REFERENCES: u32 = 4;
    let (pool, budget) = pool(0);
    // Each reader gets two of the four references of every block, in a lane of its own.
    let lanes: [Lock<VecDeque<(Descriptor, usize)>>; READERS] = Default::default();
    // How many references of each block the readers have used up.
    let used: Vec<AtomicU32> = (0..WRITERS * ROUNDS).map(|_| AtomicU32::new(0)).collect();
    let write = |writer: usize| {
        for round in writer * ROUNDS..(writer + 1) * ROUNDS {
            let size = 2 + round * 7919 % 5_000;
            let descriptor = pool.write(&stamped(writer as u8, round, size), 1).unwrap();
            assert!(pool.add_references(&descriptor, REFERENCES));
            for lane in &lanes {
                lane.with(|lane| {
                    lane.push_back((descriptor, round));
                    lane.push_back((descriptor, round));
                });
            }
            assert!(pool.release(&descriptor, 1));
        }
    };
    let read = |lane: &Lock<VecDeque<(Descriptor, usize)>>| {
        let mut held = VecDeque::new();
        let mut seen = VecDeque::new();
        let mut left = WRITERS * ROUNDS * REFERENCES as usize / READERS;
        while left > 0 {
            let Some((descriptor, round)) = lane.with(VecDeque::pop_front) else {
                thread::yield_now();
                continue;
            };
            left -= 1;
            if left.is_multiple_of(5) {
                assert!(pool.release(&descriptor, 1), "evicted");
            } else {
                let block = pool.get(&descriptor).expect("one reference was ours");
                check_stamp(&block, round);
                held.push_back((block, round));
            }
            used[round].fetch_add(1, Ordering::SeqCst);
            seen.push_back((descriptor, round));
            if held.len() > 16 {
                let (block, round) = held.pop_front().unwrap();
                check_stamp(&block, round);
            }
            // A descriptor of a while ago whose references are all used up names nothing.
            if seen.len() > 32 {
                let (descriptor, round) = seen.pop_front().unwrap();
                if used[round].load(Ordering::SeqCst) == REFERENCES {
                    assert!(pool.get(&descriptor).is_none());
                    assert!(!pool.release(&descriptor, 1));
                }
            }
        }
    };
    thread::scope(|scope| {
        let (write, read) = (&write, &read);
        let writers = (0..WRITERS).map(|writer| scope.spawn(move || write(writer)));
        let mut threads: Vec<_> = writers.collect();
        threads.extend(lanes.iter().map(|lane| scope.spawn(move || read(lane))));
        // The sanitizer sees a join, not the end of a scope.
        for thread in threads {
            thread.join().unwrap();
        }
    });
    assert!(lanes.iter().all(|lane| lane.with(|lane| lane.is_empty())));
    check_idle(&pool, &budget);
    drop(pool);
    assert_eq!(budget.used(), 0);
}

#[test]
fn forged_descriptors_from_a_hostile_thread_break_nothing() {
    const ROUNDS: usize = 5_000;
    let (pool, budget) = pool(0);
    let first = pool.write(b"first", 1).unwrap();
    assert!(pool.release(&first, 1));
    thread::scope(|scope| {
        let hostile = scope.spawn(|| {
            let mut taken = 0_u64;
            for round in 0..ROUNDS as u64 * 4 {
                let forged = Descriptor {
                    index: (round % 3) as u32,
                    generation: round / 4,
                    size: 100,
                    ..first
                };
                taken += u64::from(pool.release(&forged, 1));
                if let Some(block) = pool.get(&forged) {
                    check_stamp(&block, usize::from(block[0]));
                    taken += 1;
                }
            }
            taken
        });
        let mut refused = 0;
        for round in 0..ROUNDS {
            // All bytes but the first are 0 if the block is whole.
            let payload = stamped(round as u8, round, 100);
            let descriptor = pool.write(&payload, 2).unwrap();
            let block = pool.get(&descriptor);
            if let Some(block) = &block {
                assert_eq!(&block[..], &payload[..]);
            }
            refused += u64::from(block.is_none()) + u64::from(!pool.release(&descriptor, 1));
            drop(block);
        }
        let taken = hostile.join().unwrap();
        assert_eq!(
            taken, refused,
            "each stolen reference is missed once, and nothing else is"
        );
    });
    check_idle(&pool, &budget);
}

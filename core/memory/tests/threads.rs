//! Queues under real threads: many writers and one reader that sleeps when there is nothing, under
//! every policy, with batches held open and writers that move between lanes. Order per writer is
//! kept, nothing is lost or doubled under backpressure, and every drop is told.
//!
//! Threads are joined by their handles, which the thread sanitizer sees.

#![cfg(not(loom))]

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastmq_memory::block::BlockError;
use fastmq_memory::gate::FUTEX;
use fastmq_memory::queue::Wake;
use fastmq_memory::record::{Draft, Plain, flag};
use fastmq_memory::{Kind, LaneWriter, Policy, Pushed, Queue, Refused};

use fixture::{Place, Random, message};

/// Messages of one test; fewer where the sanitizer makes each of them dear.
const MESSAGES: u64 = if cfg!(fastmq_tsan) { 60_000 } else { 1_000_000 };

/// How long a sleeper waits before it says that its wake was lost.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `is_woken`; giving the core away stands for sleep, as the sanitizer sees neither
/// parked threads nor the standard library's conditions.
fn sleep_until(is_woken: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_woken() {
        assert!(start.elapsed() < DEADLINE, "a wake was lost");
        thread::yield_now();
    }
}

/// The reader's wake is one flag. Writers share a generation: each wake is for all who sleep.
#[derive(Default)]
struct Beds {
    is_reader_woken: AtomicBool,
    generation: AtomicU64,
}

impl Beds {
    fn sleep_reader(&self) {
        sleep_until(|| self.is_reader_woken.swap(false, Ordering::Acquire));
    }

    fn wake_reader(&self) {
        self.is_reader_woken.store(true, Ordering::Release);
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn sleep_writer(&self, seen: u64) {
        sleep_until(|| self.generation() != seen);
    }
}

struct WakeBeds(Arc<Beds>);

impl Wake for WakeBeds {
    fn wake_reader(&self, bits: u32) {
        assert_eq!(bits, FUTEX);
        self.0.wake_reader();
    }

    fn wake_writers(&self, bits: u32) {
        assert_eq!(bits, FUTEX);
        self.0.generation.fetch_add(1, Ordering::Release);
    }
}

/// One message, in any of the ways that a writer has.
fn push(
    writer: &mut LaneWriter,
    random: &mut Random,
    payload: &[u8],
    id: u32,
    sequence: u64,
) -> Result<Pushed, Refused> {
    let draft = message(b"subject", payload, sequence);
    let plain = Plain {
        kind: Kind::Message,
        flags: flag::SEQUENCE,
        status: 0,
        word: sequence,
        subject: b"subject",
        payload,
    };
    match random.below(5) {
        0 => writer.push(&draft, id),
        1 => writer.push_plain(&plain, id),
        2 => {
            let pushed = writer.push_quiet(&draft, id)?;
            writer.publish().map(|()| pushed)
        }
        3 if writer.queue().policy() == Policy::Backpressure => {
            writer.reserve(&draft, 1)?;
            writer.push_reserved(&draft, id)
        }
        _ => {
            let pushed = writer.push_plain_quiet(&plain, id)?;
            writer.publish().map(|()| pushed)
        }
    }
}

/// Writes `count` messages, asleep while there is no room; returns what its policy dropped.
fn write(place: &Place, beds: &Beds, id: u32, count: u64) -> u64 {
    let mut random = Random::new(u64::from(id));
    let mut writer = place.writer();
    let mut dropped = 0;
    let mut payload = [0; 600];
    for sequence in 1..=count {
        let size = if random.one_in(50) {
            random.below(600)
        } else {
            random.below(32)
        };
        let payload = &mut payload[..size as usize];
        payload.fill(sequence as u8);
        loop {
            let seen = beds.generation();
            match push(&mut writer, &mut random, payload, id, sequence) {
                Ok(Pushed::Written) => break,
                Ok(Pushed::Dropped) => {
                    dropped += 1;
                    break;
                }
                Err(Refused::Full) => {
                    // Says that it will sleep, looks again, and only then sleeps.
                    place.queue.writers().arm(FUTEX);
                    match writer.push(&message(b"subject", payload, sequence), id) {
                        Ok(pushed) => {
                            assert_eq!(pushed, Pushed::Written);
                            break;
                        }
                        Err(refused) => assert_eq!(refused, Refused::Full),
                    }
                    beds.sleep_writer(seen);
                }
                Err(refused) => panic!("{refused:?}"),
            }
        }
        dropped += writer.take_evicted().len() as u64;
        if random.one_in(5000) {
            writer.sweep();
            writer.sweep();
        }
        if random.one_in(20_000) {
            // As if another handle of the same publisher: it has to wait until all is read.
            while place.queue.statistics().pending > 0
                && place.queue.policy() == Policy::Backpressure
            {
                thread::yield_now();
            }
            if place.queue.policy() == Policy::Backpressure {
                writer = place.writer();
            }
        }
    }
    dropped
}

struct Read {
    by_writer: Vec<u64>,
    told: u64,
    count: u64,
}

/// Reads until `is_over` and nothing is left; some batches stay open for a while.
fn read(queue: &Queue, beds: &Beds, writers: u32, is_over: &AtomicBool) -> Read {
    let mut random = Random::new(99);
    let mut seen = Read {
        by_writer: vec![0; writers as usize],
        told: 0,
        count: 0,
    };
    let mut one = |limit: usize, hold: u64| {
        let mut reader = queue.reader().unwrap();
        reader.fill(limit, &|| 0, |_| true).unwrap();
        let batch = reader.into_batch();
        for _ in 0..hold {
            thread::yield_now();
        }
        for view in batch.messages() {
            let last = &mut seen.by_writer[view.subscription_id as usize];
            assert!(view.sequence > *last, "{} after {last}", view.sequence);
            if queue.policy() == Policy::Backpressure {
                assert_eq!(
                    view.sequence,
                    *last + 1,
                    "of writer {}",
                    view.subscription_id
                );
            }
            *last = view.sequence;
            assert!(
                view.payload()
                    .iter()
                    .all(|byte| *byte == view.sequence as u8),
                "torn"
            );
            assert_eq!(view.subject(), b"subject");
            seen.told += u64::from(view.lost_before);
        }
        seen.count += batch.messages().len() as u64;
        batch.messages().len()
    };
    loop {
        let limit = 1 + random.below(300) as usize;
        let hold = if random.one_in(20) {
            random.below(20)
        } else {
            0
        };
        if one(limit, hold) > 0 {
            continue;
        }
        let is_last = is_over.load(Ordering::Acquire);
        queue.readers().arm(FUTEX);
        if one(limit, 0) > 0 {
            queue.readers().disarm(FUTEX);
            continue;
        }
        if is_last {
            return seen;
        }
        beds.sleep_reader();
    }
}

fn check(policy: Policy, writers: u32, capacity: u64) {
    let beds = Arc::new(Beds::default());
    let place = Arc::new(Place::with_wake(
        policy,
        capacity,
        0,
        Box::new(WakeBeds(beds.clone())),
    ));
    let is_over = Arc::new(AtomicBool::new(false));
    let count = MESSAGES / u64::from(writers);
    let reader = {
        let (place, beds, is_over) = (place.clone(), beds.clone(), is_over.clone());
        thread::spawn(move || read(&place.queue, &beds, writers, &is_over))
    };
    let handles: Vec<_> = (0..writers)
        .map(|id| {
            let (place, beds) = (place.clone(), beds.clone());
            thread::spawn(move || write(&place, &beds, id, count))
        })
        .collect();
    let dropped: u64 = handles
        .into_iter()
        .map(|handle| handle.join().unwrap())
        .sum();
    is_over.store(true, Ordering::Release);
    beds.wake_reader();
    let seen = reader.join().unwrap();

    let statistics = place.queue.statistics();
    assert_eq!(seen.count + dropped, count * u64::from(writers));
    assert_eq!(statistics.delivered, seen.count);
    assert_eq!(statistics.dropped, dropped);
    assert_eq!((statistics.pending, statistics.pending_bytes), (0, 0));
    // What was dropped last has no message behind it that could tell.
    assert!(seen.told <= dropped);
    match policy {
        Policy::Backpressure => {
            assert_eq!((dropped, seen.told), (0, 0));
            assert_eq!(seen.by_writer, vec![count; writers as usize]);
        }
        _ => {
            let missing: u64 = seen.by_writer.iter().map(|last| count - last).sum();
            assert!(
                dropped - seen.told <= missing,
                "{} of {dropped} not told",
                dropped - seen.told
            );
        }
    }
    for _ in 0..100 {
        assert!(place.read_all().is_empty());
    }
    assert_eq!(place.queue.statistics().lanes, 0);
    assert_eq!(place.budget.used(), 0);
}

#[test]
fn two_writers_and_a_reader_under_backpressure() {
    check(Policy::Backpressure, 2, 1 << 16);
}

#[test]
fn four_writers_and_a_reader_in_little_room() {
    check(Policy::Backpressure, 4, 4096);
}

#[test]
fn four_writers_and_a_reader_with_drop_newest() {
    check(Policy::DropNewest, 4, 1 << 14);
}

#[test]
fn three_writers_and_a_reader_with_drop_oldest() {
    check(Policy::DropOldest, 3, 1 << 14);
}

#[test]
fn a_lone_writer_races_its_reader_for_the_oldest() {
    check(Policy::DropOldest, 1, 4096);
}

/// Payloads by descriptor, evicted by their writer while the reader takes and holds them.
#[test]
fn blocks_survive_eviction_races_and_none_is_left() {
    let count = MESSAGES / 10;
    for policy in [Policy::DropOldest, Policy::DropNewest] {
        let place = Arc::new(Place::new(policy, 4096));
        let is_over = Arc::new(AtomicBool::new(false));
        let reader = {
            let (place, is_over) = (place.clone(), is_over.clone());
            thread::spawn(move || {
                let mut last = 0;
                loop {
                    let is_last = is_over.load(Ordering::Acquire);
                    let mut reader = place.queue.reader().unwrap();
                    reader.fill(50, &|| 0, |_| true).unwrap();
                    let batch = reader.into_batch();
                    for view in batch.messages() {
                        assert!(view.sequence > last);
                        last = view.sequence;
                        assert_eq!(view.payload().len(), 700);
                        assert!(
                            view.payload().iter().all(|byte| *byte == last as u8),
                            "reused"
                        );
                    }
                    if batch.messages().is_empty() && is_last {
                        return;
                    }
                }
            })
        };
        let mut writer = place.writer();
        for sequence in 1..=count {
            let descriptor = match place.blocks.write(&[sequence as u8; 700], 1) {
                Ok(descriptor) => descriptor,
                Err(error) => panic!("{:?} {error}", BlockError::NoMemory),
            };
            let draft = Draft {
                flags: flag::SEQUENCE | flag::BLOCK,
                sequence,
                subject: b"subject",
                payload: &descriptor.to_bytes(),
                ..Draft::default()
            };
            if writer.push(&draft, 0).unwrap() == Pushed::Dropped {
                assert!(
                    place.blocks.release(&descriptor, 1),
                    "a dropped message keeps nothing"
                );
            }
        }
        is_over.store(true, Ordering::Release);
        reader.join().unwrap();
        assert_eq!(place.blocks.usage().blocks, 0, "{policy:?}");
    }
}

/// Closing while others write: what was said to be written before is read or purged, never lost.
#[test]
fn a_close_under_load_accounts_for_every_written_message() {
    for round in 0..30 {
        let place = Arc::new(Place::new(Policy::Backpressure, 1 << 14));
        let writers: Vec<_> = (0..2)
            .map(|id| {
                let place = place.clone();
                thread::spawn(move || {
                    let mut writer = place.writer();
                    let mut written = 0;
                    loop {
                        match writer.push(&message(b"subject", b"payload", written + 1), id) {
                            Ok(_) => written += 1,
                            Err(Refused::Full) => thread::yield_now(),
                            Err(refused) => {
                                let closed = [Refused::Closed, Refused::Unread];
                                assert!(closed.contains(&refused), "{refused:?}");
                                return (writer, written);
                            }
                        }
                    }
                })
            })
            .collect();
        let mut last = [0; 2];
        let mut see = |id: u32, sequence: u64| {
            assert_eq!(sequence, last[id as usize] + 1);
            last[id as usize] = sequence;
        };
        for _ in 0..200 + 10 * round {
            for seen in place.read(100) {
                see(seen.subscription, seen.sequence);
            }
        }
        assert!(place.queue.close());
        let written = writers.into_iter().map(|writer| writer.join().unwrap());
        let (writers, written): (Vec<_>, Vec<u64>) = written.unzip();
        assert!(
            place
                .queue
                .purge(|view, _| see(view.subscription_id, view.sequence))
        );
        for (last, written) in last.into_iter().zip(written) {
            // The push that was told "closed" may be in the queue too.
            assert!(
                last == written || last == written + 1,
                "{last} of {written}"
            );
        }
        drop(writers);
        // Lanes of writers that were still there at the purge go now.
        assert!(place.queue.purge(|_, _| ()));
        assert_eq!(place.budget.used(), 0);
    }
}

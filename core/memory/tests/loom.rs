//! Models of lane, hand-over and parking: loom walks through every interleaving, up to its
//! preemption bound, of the code that ships.
//!
//! Two kinds of memory: [`Cells`] lets loom check that the two ends of a lane never touch the same
//! data at once, copies included; queues live on `HeapWords`, whose control words loom sees too.

#![cfg(loom)]

use std::sync::Arc;

use fastmq_memory::arena::Arena;
use fastmq_memory::block::BlockPool;
use fastmq_memory::budget::Budget;
use fastmq_memory::consumer::Consumer;
use fastmq_memory::gate::{FUTEX, Gate};
use fastmq_memory::lane::{NoRoom, Producer, lane};
use fastmq_memory::queue::{QueueOptions, Wake};
use fastmq_memory::record::{Draft, Parsed, flag};
use fastmq_memory::ring::{Capacities, Memory, Rings};
use fastmq_memory::snapshot::{Snapshot, pin};
use fastmq_memory::words::{Control, NoMemory, Words};
use fastmq_memory::writer::HOT_MESSAGES;
use fastmq_memory::{KeptMessage, Label, LaneWriter, Plain, Policy, Pushed, Queue, SlotWriter};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

/// Memory of a ring whose every access loom checks.
struct Cells {
    control: [AtomicU64; 2],
    capacity: usize,
    /// Bytes of one cell: records of a model start at multiples of it.
    grain: usize,
    cells: Vec<UnsafeCell<Vec<u8>>>,
}

// SAFETY: the cells are reached under the contract of `Words`, which loom checks at each access.
unsafe impl Send for Cells {}
// SAFETY: as above.
unsafe impl Sync for Cells {}

impl Cells {
    fn word(&self, word: Control) -> &AtomicU64 {
        &self.control[usize::from(word == Control::Head)]
    }

    /// Cells of a range, each with the place in it and the size.
    fn ranges(&self, offset: usize, size: usize) -> Vec<(usize, usize, usize)> {
        assert!(offset + size <= self.capacity, "{offset} + {size}");
        let (mut at, end) = (offset, offset + size);
        let mut ranges = Vec::new();
        while at < end {
            let cell = at / self.grain;
            let next = ((cell + 1) * self.grain).min(end);
            ranges.push((cell, at % self.grain, next - at));
            at = next;
        }
        ranges
    }
}

// SAFETY: the cells are allocated as long as `self` and reached only inside the asked range.
unsafe impl Words for Cells {
    fn allocate(capacity: usize, _: Option<&Arc<Arena>>) -> Result<Self, NoMemory> {
        let grain = (capacity / 16).max(8);
        Ok(Self {
            control: [AtomicU64::new(0), AtomicU64::new(0)],
            capacity,
            grain,
            cells: (0..capacity / grain)
                .map(|_| UnsafeCell::new(vec![0; grain]))
                .collect(),
        })
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn load(&self, word: Control, order: Ordering) -> u64 {
        self.word(word).load(order)
    }

    fn store(&self, word: Control, value: u64, order: Ordering) {
        self.word(word).store(value, order);
    }

    unsafe fn read(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        // SAFETY: the caller's contract.
        unsafe { self.copy_out(offset, &mut bytes) };
        u64::from_le_bytes(bytes)
    }

    unsafe fn write(&self, offset: usize, value: u64) {
        // SAFETY: the caller's contract.
        unsafe { self.copy_in(offset, &value.to_le_bytes()) };
    }

    unsafe fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let mut from = 0;
        for (cell, at, size) in self.ranges(offset, bytes.len()) {
            self.cells[cell].with_mut(|cell| {
                // SAFETY: unshared by the contract; loom fails the model if that is not so.
                let cell = unsafe { &mut *cell };
                cell[at..at + size].copy_from_slice(&bytes[from..from + size]);
            });
            from += size;
        }
    }

    unsafe fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        let mut to = 0;
        for (cell, at, size) in self.ranges(offset, bytes.len()) {
            self.cells[cell].with(|cell| {
                // SAFETY: nobody writes it by the contract; loom fails the model if that is not so.
                let cell = unsafe { &*cell };
                bytes[to..to + size].copy_from_slice(&cell[at..at + size]);
            });
            to += size;
        }
    }
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(model);
}

const BYTES: usize = 8 - 1;

/// A message that says its sequence three times: in a word, in its payload and as subscription.
fn message(payload: &[u8], sequence: u64) -> Draft<'_> {
    Draft {
        flags: flag::SEQUENCE,
        sequence,
        subject: b"s",
        payload,
        ..Draft::default()
    }
}

fn push<W: Words>(producer: &mut Producer<W>, size: usize, sequence: u64) -> Result<(), NoRoom> {
    producer.push(
        &message(&vec![sequence as u8; size], sequence),
        sequence as u32,
    )
}

fn check_record(parsed: &Parsed, record: &[u8]) -> u64 {
    let at = parsed.word_at(flag::SEQUENCE);
    let sequence = u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
    assert_eq!(u64::from(parsed.subscription), sequence);
    let payload = parsed.payload_at as usize..(parsed.payload_at + parsed.payload_size) as usize;
    assert!(
        record[payload].iter().all(|byte| *byte == sequence as u8),
        "a torn record"
    );
    sequence
}

fn take<W: Words>(consumer: &mut Consumer<W>, record: &mut Vec<u8>) -> Option<u64> {
    let parsed = consumer.next_copied(record).unwrap()?;
    Some(check_record(&parsed, record))
}

/// One producer, one reader that takes `count` records, releasing after each.
fn check_lane(capacity: u64, size: usize, count: u64) {
    check(move || {
        let (mut producer, mut consumer) = lane::<Cells>(capacity, None, None).unwrap();
        let writer = thread::spawn(move || {
            for sequence in 1..=count {
                while let Err(no_room) = push(&mut producer, size, sequence) {
                    assert_eq!(no_room, NoRoom::Full);
                    thread::yield_now();
                }
            }
        });
        let mut record = Vec::new();
        let mut last = 0;
        while last < count {
            match take(&mut consumer, &mut record) {
                Some(sequence) => {
                    assert_eq!(sequence, last + 1);
                    last = sequence;
                    consumer.release();
                }
                None => thread::yield_now(),
            }
        }
        assert_eq!(take(&mut consumer, &mut record), None);
        writer.join().unwrap();
        assert!(consumer.is_finished());
    });
}

#[test]
fn a_lane_that_wraps_gives_every_record_whole_and_in_order() {
    // 32 bytes each in a ring of 64: the second round writes where the first was read.
    check_lane(64, BYTES, 4);
}

#[test]
fn a_claim_is_written_where_nobody_reads_until_it_is_committed() {
    check(|| {
        let label = Some(Label {
            subject: Arc::from(&b"s"[..]),
            publisher: 0,
        });
        let (mut producer, mut consumer) = lane::<Cells>(64, label, None).unwrap();
        let writer = thread::spawn(move || {
            for sequence in 1..=3 {
                let payload = [sequence as u8; BYTES];
                let message = message(&[], sequence);
                let plain = Plain {
                    kind: message.kind,
                    flags: message.flags,
                    status: 0,
                    word: sequence,
                    subject: message.subject,
                    payload: &[],
                };
                while let Err(no_room) = producer.claim(&plain, BYTES) {
                    assert_eq!(no_room, NoRoom::Full);
                    thread::yield_now();
                }
                // The first is abandoned, and its room written again.
                if sequence == 1 {
                    producer.fill_claimed(&plain, &[0xaa; BYTES]);
                    assert_eq!(producer.claim(&plain, BYTES), Ok(true));
                }
                producer.fill_claimed(&plain, &payload);
                producer.commit(&plain, BYTES, sequence as u32);
                producer.publish();
            }
        });
        let (mut record, mut last) = (Vec::new(), 0);
        while last < 3 {
            match take(&mut consumer, &mut record) {
                Some(sequence) => {
                    assert_eq!(sequence, last + 1);
                    last = sequence;
                    consumer.release();
                }
                None => thread::yield_now(),
            }
        }
        writer.join().unwrap();
        assert!(consumer.is_finished());
    });
}

#[test]
fn a_filler_at_the_end_of_the_ring_is_not_mistaken_for_a_record() {
    // 40 bytes each in a ring of 128: 8 bytes are skipped after the third.
    check_lane(128, BYTES + 8, 4);
}

#[test]
fn a_lane_that_grows_loses_nothing_between_its_rings() {
    // Records of half of the first ring: the third needs a larger one, unless two were released.
    check_lane(8192, 2048 - 25, 4);
}

#[test]
fn records_held_in_two_rings_stay_whole_until_released() {
    check(|| {
        let (mut producer, mut consumer) = lane::<Cells>(8192, None, None).unwrap();
        push(&mut producer, 2048 - 25, 1).unwrap();
        push(&mut producer, 2048 - 25, 2).unwrap();
        let writer = thread::spawn(move || {
            push(&mut producer, 2048 - 25, 3).unwrap();
            let mut sequence = 4;
            while sequence < 5 {
                sequence += u64::from(push(&mut producer, 4096 - 25, sequence).is_ok());
                thread::yield_now();
            }
        });
        let (mut record, mut last) = (Vec::new(), 0);
        while last < 3 {
            match take(&mut consumer, &mut record) {
                Some(sequence) => {
                    assert_eq!(sequence, last + 1);
                    last = sequence;
                }
                None => thread::yield_now(),
            }
        }
        consumer.release();
        while take(&mut consumer, &mut record).is_none() {
            thread::yield_now();
        }
        writer.join().unwrap();
    });
}

#[test]
fn evicting_and_reading_a_lane_never_meet() {
    check(|| {
        let (mut producer, consumer) = lane::<Cells>(64, None, None).unwrap();
        let consumer = Arc::new(Mutex::new(consumer));
        let evict = consumer.clone();
        let writer = thread::spawn(move || {
            let mut evicted = Vec::new();
            let mut record = Vec::new();
            for sequence in 1..=4 {
                if push(&mut producer, BYTES, sequence).is_ok() {
                    continue;
                }
                if let Ok(mut consumer) = evict.try_lock()
                    && let Some(sequence) = take(&mut consumer, &mut record)
                {
                    evicted.push(sequence);
                    consumer.release();
                }
                if push(&mut producer, BYTES, sequence).is_err() {
                    evicted.push(sequence);
                }
            }
            evicted
        });
        let mut record = Vec::new();
        let mut read = Vec::new();
        for _ in 0..2 {
            let mut consumer = consumer.lock().unwrap();
            read.extend(take(&mut consumer, &mut record));
            consumer.release();
        }
        let evicted = writer.join().unwrap();
        let mut consumer = consumer.lock().unwrap();
        while let Some(sequence) = take(&mut consumer, &mut record) {
            read.push(sequence);
        }
        assert!(read.is_sorted());
        let mut all = [read, evicted].concat();
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4]);
    });
}

/// A sleeper that a gate wakes. Sleeping when nobody will wake it is a deadlock that loom reports.
#[derive(Default)]
struct Bed {
    is_woken: Mutex<bool>,
    condvar: Condvar,
}

impl Bed {
    fn sleep(&self) {
        let mut is_woken = self.is_woken.lock().unwrap();
        while !*is_woken {
            is_woken = self.condvar.wait(is_woken).unwrap();
        }
        *is_woken = false;
    }

    fn wake(&self) {
        *self.is_woken.lock().unwrap() = true;
        self.condvar.notify_one();
    }
}

#[derive(Default)]
struct Beds {
    reader: Bed,
    writer: Bed,
}

struct WakeBeds(Arc<Beds>);

impl Wake for WakeBeds {
    fn wake_reader(&self, bits: u32) {
        assert_eq!(bits, FUTEX);
        self.0.reader.wake();
    }

    fn wake_writers(&self, bits: u32) {
        assert_eq!(bits, FUTEX);
        self.0.writer.wake();
    }
}

fn queue(policy: Policy) -> (Arc<Queue>, Arc<Beds>) {
    let beds = Arc::new(Beds::default());
    let budget = Arc::new(Budget::new(0));
    let queue = Queue::new(QueueOptions {
        policy,
        capacity: 4096,
        blocks: Arc::new(BlockPool::new(budget.clone())),
        budget,
        wake: Box::new(WakeBeds(beds.clone())),
    });
    (Arc::new(queue), beds)
}

/// What a batch says: subscription, sequence and losses of each message.
fn read(queue: &Queue) -> Vec<(u32, u64, u64)> {
    let mut reader = queue.reader().expect("one reader");
    reader.fill(10, &|| 0, |_| true).unwrap();
    let batch = reader.into_batch();
    let mut seen = Vec::new();
    for view in batch.messages() {
        assert!(
            view.payload()
                .iter()
                .all(|byte| u64::from(*byte) == view.sequence)
        );
        seen.push((
            view.subscription_id,
            view.sequence,
            u64::from(view.lost_before),
        ));
    }
    seen
}

/// Reads at least one message, asleep while there is none; `None`: closed and nothing there.
fn read_asleep(queue: &Queue, beds: &Beds) -> Option<Vec<(u32, u64, u64)>> {
    loop {
        let seen = read(queue);
        if !seen.is_empty() {
            return Some(seen);
        }
        queue.readers().arm(FUTEX);
        let seen = read(queue);
        if !seen.is_empty() {
            queue.readers().disarm(FUTEX);
            return Some(seen);
        }
        if queue.is_closed() {
            return None;
        }
        beds.reader.sleep();
    }
}

fn send(writer: &mut LaneWriter, size: usize, id: u32, sequence: u64) -> bool {
    let payload = vec![sequence as u8; size];
    writer.push(&message(&payload, sequence), id) == Ok(Pushed::Written)
}

#[test]
fn a_reader_that_sleeps_is_woken_by_either_of_two_writers() {
    check(|| {
        let (queue, beds) = queue(Policy::Backpressure);
        let writers: Vec<_> = (0..2)
            .map(|id| {
                let mut writer = LaneWriter::new(queue.clone(), None);
                thread::spawn(move || assert!(send(&mut writer, BYTES, id, 1)))
            })
            .collect();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(read_asleep(&queue, &beds).expect("not closed"));
        }
        for writer in writers {
            writer.join().unwrap();
        }
        seen.sort_unstable();
        assert_eq!(seen, [(0, 1, 0), (1, 1, 0)]);
    });
}

#[test]
fn a_reader_that_sleeps_is_woken_for_every_message() {
    check(|| {
        let (queue, beds) = queue(Policy::Backpressure);
        let mut writer = LaneWriter::new(queue.clone(), None);
        let sender = thread::spawn(move || {
            assert!(send(&mut writer, BYTES, 0, 1));
            assert!(send(&mut writer, BYTES, 0, 2));
        });
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(read_asleep(&queue, &beds).expect("not closed"));
        }
        sender.join().unwrap();
        assert_eq!(seen, [(0, 1, 0), (0, 2, 0)]);
    });
}

#[test]
fn a_reader_that_sleeps_is_woken_by_the_close() {
    check(|| {
        let (queue, beds) = queue(Policy::Backpressure);
        let mut writer = LaneWriter::new(queue.clone(), None);
        let closer = {
            let queue = queue.clone();
            thread::spawn(move || assert!(queue.close()))
        };
        let sender = thread::spawn(move || send(&mut writer, BYTES, 0, 1));
        let mut seen = Vec::new();
        while let Some(more) = read_asleep(&queue, &beds) {
            seen.extend(more);
        }
        closer.join().unwrap();
        // What was said to be written before the close is there, now or at one more look.
        if sender.join().unwrap() {
            seen.extend(read(&queue));
            assert_eq!(seen, [(0, 1, 0)]);
        }
    });
}

#[test]
fn a_writer_that_waits_for_room_is_woken_by_the_release() {
    check(|| {
        let (queue, beds) = queue(Policy::Backpressure);
        let mut writer = LaneWriter::new(queue.clone(), None);
        assert!(send(&mut writer, 2048 - 25, 0, 1));
        assert!(send(&mut writer, 2048 - 25, 0, 2));
        let sender = {
            let queue = queue.clone();
            thread::spawn(move || {
                loop {
                    queue.writers().arm(FUTEX);
                    if send(&mut writer, 2048 - 25, 0, 3) {
                        queue.writers().disarm(FUTEX);
                        return;
                    }
                    beds.writer.sleep();
                }
            })
        };
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(read(&queue));
            thread::yield_now();
        }
        sender.join().unwrap();
        assert_eq!(seen, [(0, 1, 0), (0, 2, 0), (0, 3, 0)]);
    });
}

#[test]
fn an_armed_bit_goes_to_exactly_one_notifier() {
    check(|| {
        let gate = Arc::new(Gate::default());
        gate.arm(FUTEX);
        let notifiers: Vec<_> = (0..2)
            .map(|_| {
                let gate = gate.clone();
                thread::spawn(move || gate.notify())
            })
            .collect();
        let taken: u32 = notifiers
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert_eq!(taken, FUTEX);
        assert_eq!(gate.bits(), 0);
    });
}

/// Makes a writer hot: all that it wrote is read.
fn heat(queue: &Arc<Queue>) -> LaneWriter {
    let mut writer = LaneWriter::new(queue.clone(), None);
    for sequence in 1..u64::from(HOT_MESSAGES) {
        assert!(send(&mut writer, 1, 0, sequence));
    }
    while !read(queue).is_empty() {}
    writer
}

/// A writer that puts its next message into a lane of its own, and has one unread in the shared
/// one. With another writer's lane there, the reader goes round; after one look more or less it
/// comes by the own lane before the shared one.
fn hot_writer(queue: &Arc<Queue>, looks: usize) -> (LaneWriter, LaneWriter) {
    let mut first = heat(queue);
    for sequence in 0..2 {
        assert!(send(&mut first, 1, 0, u64::from(HOT_MESSAGES) + sequence));
    }
    assert!(first.is_own());
    let mut writer = heat(queue);
    for _ in 0..looks {
        assert!(read(queue).is_empty());
    }
    assert!(send(&mut writer, 1, 0, u64::from(HOT_MESSAGES)));
    assert!(!writer.is_own());
    (first, writer)
}

fn check_hand_over(policy: Policy, with_other: bool) {
    for looks in [0, 1] {
        for is_late in [false, true] {
            check_hand_over_at(policy, with_other, looks, is_late);
        }
    }
}

/// Lets the threads that were spawned go first. Loom starts with the thread that spawns and does
/// not try every later start within its preemption bound.
fn let_others_go(is_late: bool) {
    if is_late {
        thread::yield_now();
    }
}

fn check_hand_over_at(policy: Policy, with_other: bool, looks: usize, is_late: bool) {
    check(move || {
        let (queue, _) = queue(policy);
        let (_first, mut hot) = hot_writer(&queue, looks);
        let first = u64::from(HOT_MESSAGES);
        let sender = thread::spawn(move || {
            for sequence in first + 1..=first + 2 {
                assert!(send(&mut hot, 1, 0, sequence));
                assert!(hot.is_own());
            }
            hot
        });
        let other = with_other.then(|| {
            let mut other = LaneWriter::new(queue.clone(), None);
            thread::spawn(move || assert!(send(&mut other, 1, 1, 1)))
        });
        let mut last = first - 1;
        let mut others = 0;
        let_others_go(is_late);
        while last < first + 2 || others < u64::from(with_other) {
            let seen = read(&queue);
            if seen.is_empty() {
                thread::yield_now();
            }
            for (id, sequence, lost) in seen {
                assert_eq!(lost, 0);
                let last = if id == 0 { &mut last } else { &mut others };
                assert_eq!(sequence, *last + 1, "the order of writer {id}");
                *last = sequence;
            }
        }
        drop(sender.join().unwrap());
        if let Some(other) = other {
            other.join().unwrap();
        }
        assert!(read(&queue).is_empty());
    });
}

#[test]
fn a_writer_that_moves_to_its_own_lane_keeps_its_order() {
    check_hand_over(Policy::Backpressure, false);
}

#[test]
fn a_writer_that_moves_keeps_its_order_beside_another_in_the_shared_lane() {
    check_hand_over(Policy::Backpressure, true);
}

#[test]
fn a_writer_that_moves_keeps_its_order_where_records_may_be_evicted() {
    check_hand_over(Policy::DropOldest, false);
}

#[test]
fn a_reader_and_an_evicting_writer_account_for_every_message() {
    check_account(false);
    check_account(true);
}

fn check_account(is_late: bool) {
    check(move || {
        let (queue, _) = queue(Policy::DropOldest);
        let mut writer = LaneWriter::new(queue.clone(), None);
        assert!(send(&mut writer, 2048 - 25, 0, 1));
        assert!(send(&mut writer, 2048 - 25, 0, 2));
        let sender = thread::spawn(move || {
            let written = send(&mut writer, 2048 - 25, 0, 3);
            (writer, written)
        });
        let_others_go(is_late);
        let mut seen = read(&queue);
        let (mut writer, written) = sender.join().unwrap();
        seen.extend(read(&queue));
        assert!(send(&mut writer, 1, 0, 4));
        seen.extend(read(&queue));
        let mut last = 0;
        let mut told = 0;
        for (_, sequence, lost) in seen {
            assert_eq!(lost, sequence - last - 1, "before {sequence}");
            last = sequence;
            told += lost;
        }
        assert_eq!(last, 4);
        let evicted = writer.take_evicted().len() as u64;
        assert_eq!(told, evicted + u64::from(!written));
        assert_eq!(queue.statistics().dropped, told);
    });
}

/// A value whose use loom checks against its end.
struct Value(UnsafeCell<u64>);

// SAFETY: readers only read, and whoever drops it is alone; loom checks both.
unsafe impl Sync for Value {}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more; loom fails the model if that is not so.
        self.0.with_mut(|value| unsafe { *value = 0 });
    }
}

/// Pins, and looks at the value of a snapshot.
fn look(snapshot: &Snapshot<Value>) {
    let pin = pin();
    if let Some(value) = snapshot.load(&pin) {
        // SAFETY: the pin keeps it; loom fails the model if that is not so.
        let number = value.0.with(|value| unsafe { *value });
        assert!(number > 0);
    }
}

fn value(number: u64) -> Value {
    Value(UnsafeCell::new(number))
}

#[test]
fn a_value_that_is_replaced_stays_while_a_pin_could_have_seen_it() {
    check(|| {
        let snapshot = Arc::new(Snapshot::new(value(1)));
        let reader = {
            let snapshot = snapshot.clone();
            thread::spawn(move || look(&snapshot))
        };
        snapshot.store(Some(Box::new(value(2))));
        snapshot.store(None);
        pin().flush();
        reader.join().unwrap();
        // Whoever was pinned is gone: the second flush frees what the first could not.
        pin().flush();
        pin().flush();
    });
}

#[test]
fn values_stay_while_two_threads_replace_them_and_pin_again_and_again() {
    check(|| {
        let snapshots = Arc::new([Snapshot::new(value(1)), Snapshot::new(value(2))]);
        let other = {
            let snapshots = snapshots.clone();
            thread::spawn(move || {
                look(&snapshots[0]);
                snapshots[1].store(None);
                look(&snapshots[0]);
            })
        };
        snapshots[0].store(Some(Box::new(value(3))));
        look(&snapshots[1]);
        snapshots[0].store(None);
        other.join().unwrap();
    });
}

fn put(slot: &SlotWriter, sequence: u64) -> bool {
    slot.put(&message(&[sequence as u8; BYTES], sequence)) == Ok(Pushed::Written)
}

#[test]
fn a_reader_that_sleeps_sees_or_is_told_of_every_update_of_two_writers() {
    check(|| {
        let (queue, beds) = queue(Policy::Latest);
        let slot = |subject| queue.latest_slot(0, subject, 0).unwrap();
        let (one, two) = (slot(b"one"), slot(b"two"));
        let again = one.clone();
        let other = thread::spawn(move || {
            assert!(put(&one, 1));
            assert!(put(&two, 3));
        });
        let another = thread::spawn(move || assert!(put(&again, 2)));
        let (mut seen, mut counted) = (Vec::new(), 0);
        while counted < 3 {
            for (_, sequence, lost) in read_asleep(&queue, &beds).expect("not closed") {
                seen.push(sequence);
                counted += 1 + lost;
            }
        }
        other.join().unwrap();
        another.join().unwrap();
        assert_eq!(read(&queue), []);
        assert_eq!(counted, 3);
        assert!(seen.contains(&3) && (seen.contains(&1) || seen.contains(&2)));
    });
}

#[test]
fn a_put_that_has_returned_is_found_by_the_next_look() {
    check(|| {
        let (queue, _) = queue(Policy::Latest);
        let slot = queue.latest_slot(0, b"s", 0).unwrap();
        let other = {
            let slot = slot.clone();
            thread::spawn(move || assert!(put(&slot, 1)))
        };
        assert!(put(&slot, 2));
        let mut seen = read(&queue);
        assert_eq!(seen.len(), 1);
        other.join().unwrap();
        seen.extend(read(&queue));
        let counted: u64 = seen.iter().map(|(_, _, lost)| 1 + lost).sum();
        assert_eq!(counted, 2);
    });
}

#[test]
fn a_batch_stays_as_it_is_while_its_slot_changes_twice() {
    check(|| {
        let (queue, _) = queue(Policy::Latest);
        let slot = queue.latest_slot(0, b"s", 0).unwrap();
        assert!(put(&slot, 1));
        let mut reader = queue.reader().unwrap();
        reader.fill(10, &|| 0, |_| true).unwrap();
        let writer = thread::spawn(move || {
            assert!(put(&slot, 2));
            assert!(put(&slot, 3));
        });
        let batch = reader.into_batch();
        assert_eq!(batch.messages()[0].payload(), [1; BYTES]);
        thread::yield_now();
        assert_eq!(batch.messages()[0].payload(), [1; BYTES]);
        drop(batch);
        let mut seen = read(&queue);
        writer.join().unwrap();
        seen.extend(read(&queue));
        assert_eq!(seen.last().map(|one| one.1), Some(3));
        assert_eq!(seen.iter().map(|one| 1 + one.2).sum::<u64>(), 2);
    });
}

#[test]
fn what_is_put_beside_a_close_is_dropped_once_its_writer_has_emptied_the_queue() {
    check(|| {
        let (queue, _) = queue(Policy::Latest);
        let slot = queue.latest_slot(0, b"s", 0).unwrap();
        let closer = {
            let queue = queue.clone();
            thread::spawn(move || {
                queue.close();
                queue.purge(|_, _| ())
            })
        };
        // Whoever is told that the queue is closed empties it, as the engine does.
        let is_unread = !put(&slot, 1);
        let is_purged = closer.join().unwrap();
        assert!(is_purged);
        if is_unread {
            assert!(queue.purge(|_, _| ()));
        }
        assert_eq!(read(&queue), []);
    });
}

#[test]
fn a_replay_comes_before_whatever_is_written_once_no_look_can_have_missed_it() {
    for policy in [Policy::Backpressure, Policy::Latest] {
        check(move || {
            let (queue, _) = queue(policy);
            let budget = Arc::new(Budget::new(0));
            let kept = KeptMessage::new(&message(&[1; BYTES], 1), 0, &budget).unwrap();
            queue.promise_replays(1).unwrap();
            let newcomer = {
                let queue = queue.clone();
                thread::spawn(move || {
                    queue.add_replay(0, kept);
                    while queue.is_looking() {
                        thread::yield_now();
                    }
                    if policy == Policy::Latest {
                        assert!(put(&queue.latest_slot(0, b"s", 0).unwrap(), 2));
                    } else {
                        assert!(send(&mut LaneWriter::new(queue, None), BYTES, 0, 2));
                    }
                })
            };
            let mut seen = read(&queue);
            seen.extend(read(&queue));
            newcomer.join().unwrap();
            seen.extend(read(&queue));
            assert_eq!(seen, [(0, 1, 0), (0, 2, 0)]);
        });
    }
}

/// What an eventfd is to the two sides of rings.
#[derive(Default)]
struct Bell {
    is_rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.is_rung.lock().unwrap() = true;
        self.rings.notify_one();
    }

    fn wait(&self) {
        let mut is_rung = self.is_rung.lock().unwrap();
        while !*is_rung {
            is_rung = self.rings.wait(is_rung).unwrap();
        }
        *is_rung = false;
    }
}

/// Both ends of rings of two words, and what wakes the server and the client.
fn rings() -> (Rings, Rings, Arc<(Bell, Bell)>) {
    let capacities = Capacities::new(16, 16).unwrap();
    let memory = Memory::new(capacities);
    let server = Rings::make(memory.clone(), capacities);
    let client = Rings::join(memory, capacities).unwrap();
    (server, client, Arc::default())
}

/// A frame that is all header.
fn short_frame(number: u8) -> [u8; 8] {
    [8, 0, 0, 0, 1, number, 0, 0]
}

/// Three frames through a ring with room for two: the one side sleeps until there is something, the
/// other until there is room, and neither for ever.
#[test]
fn frames_get_through_shared_rings_while_both_sides_sleep() {
    check(|| {
        let (mut server, mut client, bells) = rings();
        let theirs = bells.clone();
        let sender = thread::spawn(move || {
            let frames: Vec<u8> = (1..=3).flat_map(short_frame).collect();
            let mut sent = 0;
            loop {
                sent += client.send(&frames[sent..]).unwrap();
                if client.publish() {
                    theirs.0.ring();
                }
                if sent == frames.len() {
                    return;
                }
                client.announce_sleep(true);
                if !client.has_moved() {
                    theirs.1.wait();
                }
                client.awake();
            }
        });
        let mut bytes = Vec::new();
        while bytes.len() < 24 {
            if server.receive(&mut bytes, 64).unwrap() > 0 {
                if server.publish() {
                    bells.1.ring();
                }
                continue;
            }
            server.announce_sleep(false);
            if !server.has_arrived() {
                bells.0.wait();
            }
            server.awake();
        }
        let expected: Vec<u8> = (1..=3).flat_map(short_frame).collect();
        assert_eq!(bytes, expected);
        sender.join().unwrap();
    });
}

/// A question and its answer, each side asleep until the other has spoken.
#[test]
fn two_sides_of_shared_rings_answer_each_other() {
    check(|| {
        let (mut server, mut client, bells) = rings();
        let theirs = bells.clone();
        let asker = thread::spawn(move || {
            client.send(&short_frame(1)).unwrap();
            if client.publish() {
                theirs.0.ring();
            }
            let mut bytes = Vec::new();
            while client.receive(&mut bytes, 64).unwrap() == 0 {
                client.announce_sleep(false);
                if !client.has_arrived() {
                    theirs.1.wait();
                }
                client.awake();
            }
            assert_eq!(bytes, short_frame(2));
        });
        let mut bytes = Vec::new();
        while server.receive(&mut bytes, 64).unwrap() == 0 {
            server.announce_sleep(false);
            if !server.has_arrived() {
                bells.0.wait();
            }
            server.awake();
        }
        assert_eq!(bytes, short_frame(1));
        server.send(&short_frame(2)).unwrap();
        if server.publish() {
            bells.1.ring();
        }
        asker.join().unwrap();
    });
}

//! The newest value of each of 1,000 subjects: a value is written in place under a version, and a
//! reader who looks 60 times a second takes what has changed.
//!
//! One writer, so a sequence lock is enough: no list of what has changed, no memory, no loss to
//! count. The pace is 10 M updates a second in all; waiting for it is not in the figure.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

use crate::Address;
use crate::report::Plan;
use crate::ring::{pin, thread_time};
use crate::subjects::{Table, names};

const SUBJECTS: usize = 1000;
/// All subjects once.
const ROUND: Duration = Duration::from_micros(100);
const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 60);

/// Which clock says what an update costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    Wall,
    Thread,
}

/// A line of its own for each subject.
#[derive(Default)]
#[repr(align(64))]
struct Slot {
    /// Odd while the value changes.
    version: AtomicU64,
    value: [AtomicU64; 2],
}

impl Slot {
    /// Only the writer calls it.
    #[inline(always)]
    fn write(&self, value: [u64; 2]) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, new) in self.value.iter().zip(value) {
            word.store(new, Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }

    /// The value and its version, unless it is `seen`.
    fn read(&self, seen: u64) -> Option<(u64, [u64; 2])> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            if version == seen {
                return None;
            }
            let value = [0, 1].map(|at: usize| self.value[at].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version {
                return Some((version, value));
            }
            std::hint::spin_loop();
        }
    }
}

/// Reads frames until `stop`, then the last one; the newest of each subject, and how many values
/// were wrong.
fn read(slots: &[Slot], stop: &AtomicBool) -> (Vec<u64>, u64) {
    let mut newest = vec![0; slots.len()];
    let mut versions = vec![0; slots.len()];
    let mut wrong = 0;
    let mut next = Instant::now();
    loop {
        let is_last = stop.load(Ordering::Acquire);
        for (at, slot) in slots.iter().enumerate() {
            if let Some((version, [number, subject])) = slot.read(versions[at]) {
                wrong += u64::from(subject != at as u64 || number <= newest[at]);
                newest[at] = number;
                versions[at] = version;
            }
        }
        if is_last {
            return (newest, wrong);
        }
        next += FRAME;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Nanoseconds of the clock.
fn now_ns(clock: Clock, started: Instant) -> u64 {
    match clock {
        Clock::Wall => started.elapsed().as_nanos() as u64,
        Clock::Thread => thread_time().as_nanos() as u64,
    }
}

/// What an update costs, in nanoseconds.
pub(crate) fn run(plan: Plan, address: Address, clock: Clock) -> Result<f64, String> {
    let names = names();
    let table = Table::new(&names);
    let slots: Vec<Slot> = (0..SUBJECTS).map(|_| Slot::default()).collect();
    let stop = AtomicBool::new(false);
    let mut number = 0;
    let mut update_all = || {
        number += 1;
        for (at, name) in names.iter().enumerate().take(SUBJECTS) {
            let at = match address {
                Address::Text => table.find(name.as_bytes()).expect("it is in the table") as usize,
                Address::Handle => at,
            };
            slots[at].write([number, at as u64]);
        }
    };
    let mut update = |span: Duration| {
        let started = Instant::now();
        let (mut next, mut spent_ns, mut rounds) = (started, 0, 0);
        while rounds == 0 || started.elapsed() < span {
            let before_ns = now_ns(clock, started);
            update_all();
            spent_ns += now_ns(clock, started) - before_ns;
            rounds += 1;
            next += ROUND;
            while Instant::now() < next {}
            // Who is late does not hurry afterwards.
            next = next.max(Instant::now() - ROUND);
        }
        spent_ns as f64 / (rounds * SUBJECTS) as f64
    };
    let (cost, (newest, wrong), are_pinned) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let is_pinned = pin(0);
            (read(&slots, &stop), is_pinned)
        });
        let is_pinned = pin(1);
        update(plan.warm_up);
        let cost = update(plan.measure);
        stop.store(true, Ordering::Release);
        match reader.join() {
            Ok((seen, pinned)) => (cost, seen, is_pinned && pinned),
            Err(_) => (cost, (Vec::new(), u64::MAX), false),
        }
    });
    if !are_pinned {
        return Err("cores 0 and 1 are not both here".to_owned());
    }
    let old = newest.iter().filter(|seen| **seen != number).count();
    match (wrong, old) {
        (0, 0) => Ok(cost),
        _ => Err(format!(
            "{wrong} values are wrong, {old} are not the newest"
        )),
    }
}

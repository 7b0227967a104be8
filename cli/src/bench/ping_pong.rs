//! The calibration: one cache line goes to the other core and back.
//!
//! Its time says where the host has put the two cores. Figures across cores are compared only
//! between rounds whose calibration says the same.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::clock::Stopwatch;
use super::pin;
use super::plan::Cores;

/// Few: on a busy machine each may take as long as the kernel lets others run.
const ROUNDS_PER_STEP: u64 = 50;
/// The median of this many slices counts, so that a short disturbance does not.
const SLICES: usize = 5;
const SLICE: Duration = Duration::from_millis(4);

/// A value with cache lines of its own.
#[repr(align(128))]
struct Line(AtomicU64);

/// Nanoseconds of one way there and back; `None`: there are no two cores that are known.
pub(super) fn run(cores: &Cores) -> io::Result<Option<f64>> {
    let (Some(server), Some(load)) = (cores.server.0, cores.load.0) else {
        return Ok(None);
    };
    if server == load {
        return Ok(None);
    }
    let (line, is_over) = (Line(AtomicU64::new(0)), AtomicBool::new(false));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let pinned = pin(cores.server);
            let mut seen = 0;
            while !is_over.load(Ordering::Relaxed) {
                let value = line.0.load(Ordering::Acquire);
                if value != seen {
                    seen = value + 1;
                    line.0.store(seen, Ordering::Release);
                }
            }
            pinned
        });
        let pinned = pin(cores.load);
        let mut slices = [0.0; SLICES];
        let mut value = 0;
        for slice in &mut slices {
            let (started, mut rounds) = (Stopwatch::start(), 0);
            while started.elapsed() < SLICE {
                for _ in 0..ROUNDS_PER_STEP {
                    value += 1;
                    line.0.store(value, Ordering::Release);
                    value += 1;
                    while line.0.load(Ordering::Acquire) != value {}
                }
                rounds += ROUNDS_PER_STEP;
            }
            *slice = started.elapsed_ns() as f64 / rounds as f64;
        }
        is_over.store(true, Ordering::Relaxed);
        let other = other.join();
        other.map_err(|_| io::Error::other("a thread of the bench has panicked"))??;
        pinned?;
        slices.sort_by(f64::total_cmp);
        Ok(Some(slices[SLICES / 2]))
    })
}

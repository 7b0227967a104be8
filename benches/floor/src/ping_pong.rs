//! The calibration: one cache line goes to the other core and back.
//!
//! Its time says where the host has put the two cores. Figures across cores are compared only
//! between runs whose calibration says the same placement.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crossbeam_utils::CachePadded;

use crate::report::Plan;
use crate::ring::pin;

const ROUNDS_PER_STEP: u64 = 1000;
/// The median of this many slices is reported, so that a short disturbance does not count.
const SLICES: u32 = 10;

/// Nanoseconds per round trip of the line.
pub(crate) fn run(plan: Plan) -> Result<f64, String> {
    let line = CachePadded::new(AtomicU64::new(0));
    let stop = CachePadded::new(AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(0);
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                let value = line.load(Ordering::Acquire);
                if value != seen {
                    seen = value + 1;
                    line.store(seen, Ordering::Release);
                }
            }
        });
        let pinned = pin(1);
        let mut value = 0;
        let mut slices: Vec<f64> = Vec::new();
        for _ in 0..SLICES {
            let started = Instant::now();
            let mut rounds = 0;
            while started.elapsed() < plan.measure / SLICES {
                for _ in 0..ROUNDS_PER_STEP {
                    value += 1;
                    line.store(value, Ordering::Release);
                    value += 1;
                    while line.load(Ordering::Acquire) != value {}
                }
                rounds += ROUNDS_PER_STEP;
            }
            slices.push(started.elapsed().as_nanos() as f64 / rounds as f64);
        }
        stop.store(true, Ordering::Relaxed);
        slices.sort_by(f64::total_cmp);
        if pinned {
            Ok(slices[slices.len() / 2])
        } else {
            Err("there is no core 1".to_owned())
        }
    })
}

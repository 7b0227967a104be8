//! What a run is asked for and what it prints.
//!
//! Every figure is timed the same way: warm up, let the other side drain, measure, let it drain
//! again, stop the clock. So everything counted was also received and checked.

use std::fmt;
use std::time::{Duration, Instant};

/// How long a run warms up and measures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            warm_up: Duration::from_millis(60),
            measure: Duration::from_millis(300),
        }
    }
}

/// Repeats `step`, which says how many operations it did, and returns millions a second.
/// `settle` waits until the other side has done its part of all of them.
pub(crate) fn rate(plan: Plan, mut step: impl FnMut() -> u64, mut settle: impl FnMut()) -> f64 {
    let started = Instant::now();
    while started.elapsed() < plan.warm_up {
        step();
    }
    settle();
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < plan.measure {
        count += step();
    }
    settle();
    count as f64 / started.elapsed().as_secs_f64() / 1e6
}

/// Percentiles of a set of round trips, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Percentiles {
    p50: u32,
    p99: u32,
    p999: u32,
}

/// At most this many round trips are timed in one run.
const SAMPLES_MAX: usize = 2_000_000;

/// Times `step` again and again; the one clock call per step is inside the figure.
pub(crate) fn percentiles(plan: Plan, mut step: impl FnMut()) -> Percentiles {
    let started = Instant::now();
    while started.elapsed() < plan.warm_up {
        step();
    }
    let mut samples: Vec<u32> = vec![0; SAMPLES_MAX];
    let mut count = 0;
    let started = Instant::now();
    let mut before = started;
    while count < SAMPLES_MAX && before.duration_since(started) < plan.measure {
        step();
        let after = Instant::now();
        let elapsed = after.duration_since(before).as_nanos();
        samples[count] = u32::try_from(elapsed).unwrap_or(u32::MAX);
        count += 1;
        before = after;
    }
    samples.truncate(count);
    of_samples(samples)
}

/// Percentiles of these times, of which there is one at least.
pub(crate) fn of_samples(mut samples: Vec<u32>) -> Percentiles {
    samples.sort_unstable();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    Percentiles {
        p50: at(0.50),
        p99: at(0.99),
        p999: at(0.999),
    }
}

/// One line of output.
#[derive(Debug)]
pub(crate) struct Row {
    name: [String; 3],
    unit: &'static str,
    value: f64,
    percentiles: Option<Percentiles>,
}

impl Row {
    pub(crate) fn rate(
        program: &str,
        case: &str,
        param: &str,
        unit: &'static str,
        value: f64,
    ) -> Row {
        Row {
            name: [program, case, param].map(String::from),
            unit,
            value,
            percentiles: None,
        }
    }

    pub(crate) fn latency(program: &str, case: &str, param: &str, of: Percentiles) -> Row {
        let row = Row::rate(program, case, param, "ns", f64::from(of.p50));
        Row {
            percentiles: Some(of),
            ..row
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [program, case, param] = &self.name;
        write!(
            f,
            "{program},{case},{param},{},{:.3}",
            self.unit, self.value
        )?;
        if let Some(Percentiles { p50, p99, p999 }) = self.percentiles {
            write!(f, ",{p50},{p99},{p999}")?;
        }
        Ok(())
    }
}

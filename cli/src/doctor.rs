//! `fastmq doctor`: what the machine offers, and what its absence means.
//!
//! Each line is a fact that the library found out by trying, or that the kernel says of itself.

use std::fs;
use std::io::{self, Write};

use fastmq::border::{core_count, fence, fork};
use fastmq::{Driver, NullDriver};

/// Readings of the clock to take the mean of.
const CLOCK_READS: u64 = 100_000;

/// Writes the table.
pub(crate) fn run(out: &mut dyn Write) -> io::Result<()> {
    crate::version::run(out)?;
    for (name, value) in facts() {
        writeln!(out, "{name:<20} {value}")?;
    }
    Ok(())
}

fn facts() -> [(&'static str, String); 7] {
    [
        ("kernel", kernel()),
        ("cores", cores()),
        ("clock", clock()),
        ("time stamps", counter()),
        ("membarrier", membarrier()),
        ("locked memory", locked_memory()),
        ("fork", forks()),
    ]
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(
        |_| "unknown".to_owned(),
        |release| release.trim().to_owned(),
    )
}

fn cores() -> String {
    match core_count() {
        1 => "1: readers do not spin before they sleep".to_owned(),
        count => format!("{count}"),
    }
}

fn clock() -> String {
    let driver = NullDriver::new();
    let start_ns = driver.monotonic_ns();
    for _ in 1..CLOCK_READS {
        driver.monotonic_ns();
    }
    let spent_ns = driver.monotonic_ns() - start_ns;
    format!("{} ns a reading", spent_ns / CLOCK_READS)
}

fn counter() -> String {
    let driver = NullDriver::new();
    let Some(tsc) = driver.tsc() else {
        return "from the clock: the processor has no invariant TSC".to_owned();
    };
    let start_ns = driver.monotonic_ns();
    for _ in 0..CLOCK_READS {
        tsc.unix_ns();
    }
    let spent_ns = driver.monotonic_ns() - start_ns;
    format!(
        "from the TSC, if asked for: {} ns a reading",
        spent_ns / CLOCK_READS
    )
}

fn membarrier() -> String {
    match fence::register() {
        true => "yes: a publish needs no full fence".to_owned(),
        false => "no: each publish pays for a full fence (Linux 4.14 or newer has it)".to_owned(),
    }
}

fn locked_memory() -> String {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    limit(&limits).unwrap_or_else(|| "unknown".to_owned())
}

/// The soft limit in the kernel's table.
fn limit(limits: &str) -> Option<String> {
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max locked memory"))?;
    let soft = line["Max locked memory".len()..]
        .split_whitespace()
        .next()?;
    Some(match soft {
        "unlimited" => "no limit".to_owned(),
        bytes => format!("{bytes} bytes"),
    })
}

fn forks() -> String {
    match fork::arm() {
        true => "a forked child is noticed".to_owned(),
        false => "a forked child is not noticed: do not use its parent's handles in it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_has_a_value() {
        for (name, value) in facts() {
            assert!(!name.is_empty() && !value.is_empty(), "{name}");
        }
    }

    #[test]
    fn the_limit_is_read_from_the_kernels_table() {
        let check = |line: &str, expected: Option<&str>| {
            let table = format!("Limit Soft Hard Units\n{line}\nMax processes 1 1 processes\n");
            assert_eq!(limit(&table).as_deref(), expected);
        };
        check(
            "Max locked memory         8388608   8388608   bytes",
            Some("8388608 bytes"),
        );
        check(
            "Max locked memory         unlimited unlimited bytes",
            Some("no limit"),
        );
        check("Max locked memory", None);
        check("", None);
    }
}

//! `fastmq doctor`: what the machine offers, and what its absence means.
//!
//! Each line is a fact that the library found out by trying, or that the kernel says of itself.

use std::fs;
use std::io::{self, Write};

use clap::{Arg, ArgAction, ArgMatches, Command};
use fastmq::border::{core_count, descriptors, fence, fork, pages, sockets};
use fastmq::{Driver, NullDriver};
use serde_json::{Map, Value};

/// Readings of the clock to take the mean of.
const CLOCK_READS: u64 = 100_000;

/// The command line.
pub(crate) fn command() -> Command {
    let json = Arg::new("json")
        .long("json")
        .help("An object of JSON")
        .action(ArgAction::SetTrue);
    Command::new("doctor")
        .about("Shows what this machine offers the library")
        .arg(json)
}

/// Writes the table.
pub(crate) fn run(out: &mut dyn Write, matches: &ArgMatches) -> io::Result<()> {
    if matches.get_flag("json") {
        let facts = facts().map(|(name, value)| (name.to_owned(), Value::from(value)));
        let object: Map<String, Value> = facts.into_iter().collect();
        return writeln!(out, "{}", Value::Object(object));
    }
    crate::version::run(out)?;
    for (name, value) in facts() {
        writeln!(out, "{name:<20} {value}")?;
    }
    Ok(())
}

fn facts() -> [(&'static str, String); 12] {
    [
        ("kernel", kernel()),
        ("cores", cores()),
        ("clock", clock()),
        ("time stamps", counter()),
        ("membarrier", membarrier()),
        ("I/O driver", io_driver()),
        ("open files", open_files()),
        ("waiting connections", waiting_connections()),
        ("memory", memory()),
        ("locked memory", locked_memory()),
        ("huge pages", huge_pages()),
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

/// The tier that the sockets of a server would have here, and why it is not a better one.
fn io_driver() -> String {
    match sockets::open(&sockets::Config::default()) {
        Ok(opened) => opened.report.to_string(),
        Err(error) => format!("none: {error}"),
    }
}

fn open_files() -> String {
    match descriptors::limit() {
        Err(error) => format!("unknown: {error}"),
        Ok(limit) if limit.soft == limit.hard => {
            format!("{}: a connection needs one (RLIMIT_NOFILE)", limit.soft)
        }
        Ok(limit) => format!(
            "{}, which fastmq serve raises to {}: a connection needs one (RLIMIT_NOFILE)",
            limit.soft, limit.hard
        ),
    }
}

/// How many connections the kernel keeps until they are accepted.
fn waiting_connections() -> String {
    let wanted = u64::from(sockets::BACKLOG.unsigned_abs());
    match number_in("/proc/sys/net/core/somaxconn") {
        None => "unknown".to_owned(),
        Some(limit) if limit >= wanted => format!("{wanted} for each listener"),
        Some(limit) => format!(
            "{limit} for each listener; sysctl net.core.somaxconn={wanted} has room for more"
        ),
    }
}

/// What a container or a service lets the process have.
fn memory() -> String {
    let paths = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    // Without a limit the newer file says `max`, the older one a number beyond all memory.
    let limit = paths.into_iter().find_map(number_in);
    match limit.filter(|bytes| *bytes < 1 << 60) {
        Some(bytes) => format!("{} MiB (of the control group)", bytes >> 20),
        None => "no limit of the control group".to_owned(),
    }
}

fn number_in(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn locked_memory() -> String {
    match pages::lock_limit() {
        None => "no limit (RLIMIT_MEMLOCK)".to_owned(),
        Some(bytes) => format!("{bytes} bytes (RLIMIT_MEMLOCK; ulimit -l raises it)"),
    }
}

fn huge_pages() -> String {
    let table = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = free_huge_pages(&table);
    match (free, pages::has_transparent_huge_pages()) {
        (0, true) => "the kernel makes some, if asked for; none are reserved".to_owned(),
        (0, false) => "none: vm.nr_hugepages reserves some, transparent_hugepage/enabled allows \
                       the kernel to make some"
            .to_owned(),
        (count, true) => format!("{count} of 2 MiB are reserved; the kernel makes more"),
        (count, false) => format!("{count} of 2 MiB are reserved; the kernel makes no more"),
    }
}

/// The reserved ones of 2 MiB in the kernel's table that nobody has.
fn free_huge_pages(table: &str) -> u64 {
    let field = |name| {
        let line = table.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    match field("Hugepagesize:") {
        Some(2048) => field("HugePages_Free:").unwrap_or(0),
        _ => 0,
    }
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
    fn huge_pages_are_counted_by_the_kernels_table() {
        let check = |table, expected| assert_eq!(free_huge_pages(table), expected, "{table}");
        check(
            "HugePages_Total: 9\nHugePages_Free:   7\nHugepagesize: 2048 kB\n",
            7,
        );
        check("HugePages_Free: 7\nHugepagesize: 1048576 kB\n", 0);
        check("HugePages_Free: 7\n", 0);
        check("HugePages_Free: many\nHugepagesize: 2048 kB\n", 0);
        check("", 0);
    }
}

//! Which tier a shard gets: the first that can be had, by trying.
//!
//! Never by the kernel's version: containers forbid what the kernel has, and distributions bring
//! what it had not. Whoever wonders why it is not the first is told, with the cure.

use std::env;
use std::fmt;
use std::fs;
use std::io;

use super::epoll::Epoll;
use super::readiness::ReadinessSockets;
use super::ring_poll::RingPoll;
use super::uring::UringSockets;
use super::{Config, Sockets};

/// The environment variable that forces a tier, for tests and comparisons.
pub const VARIABLE: &str = "FASTMQ_DRIVER";

/// The smallest ring that is tried.
const RING_ENTRIES_MIN: u32 = 64;
/// The kernel's limits.
const RING_ENTRIES_MAX: u32 = 4096;
const RECEIVE_BUFFERS_MAX: u16 = 1 << 15;
const RECEIVE_BYTES_MAX: u32 = 1 << 30;

/// How the sockets of a shard are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tier {
    /// io_uring with multishot requests, provided buffers and deferred task work: Linux 6.1.
    Uring,
    /// io_uring for readiness, plain calls for the bytes: Linux 5.1.
    UringBasic,
    /// epoll, everywhere.
    Epoll,
    /// A simulated network.
    Simulated,
}

impl Tier {
    /// The tiers of the kernel, best first.
    pub const ALL: [Tier; 3] = [Tier::Uring, Tier::UringBasic, Tier::Epoll];

    /// As [`VARIABLE`] and `fastmq doctor` call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Tier::Uring => "uring",
            Tier::UringBasic => "uring-basic",
            Tier::Epoll => "epoll",
            Tier::Simulated => "simulated",
        }
    }

    fn of(name: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| tier.name() == name)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The sockets of a shard, and how they were chosen.
pub struct Opened {
    /// The sockets. They stay on this thread.
    pub sockets: Box<dyn Sockets>,
    /// How they were chosen, for a line of the log.
    pub report: Report,
}

/// Which tier it is and why: one sentence for each tier that could not be had.
#[derive(Debug)]
pub struct Report {
    /// The tier.
    pub tier: Tier,
    /// Whether [`VARIABLE`] asked for it.
    pub is_forced: bool,
    /// Entries of its ring, if they are fewer than asked for: memory was short.
    pub smaller_ring: Option<u32>,
    /// Better tiers that could not be had, best first.
    pub passed_over: Vec<PassedOver>,
}

/// A tier that could not be had.
#[derive(Debug)]
pub struct PassedOver {
    /// Which.
    pub tier: Tier,
    /// What the kernel said, and the cure.
    pub why: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tier)?;
        if self.is_forced {
            write!(f, " (forced by {VARIABLE})")?;
        }
        if let Some(entries) = self.smaller_ring {
            write!(
                f,
                " (a ring of {entries} entries: more did not fit into memory)"
            )?;
        }
        for passed_over in &self.passed_over {
            write!(f, "; not {}: {}", passed_over.tier, passed_over.why)?;
        }
        Ok(())
    }
}

/// Opens the sockets of a shard: the tier that [`VARIABLE`] names, else the best there is.
///
/// # Errors
/// The variable names no tier, or one that cannot be had; `InvalidInput` for a [`Config`] that no
/// tier takes; else not even epoll can be had: the process is out of descriptors or memory.
pub fn open(config: &Config) -> io::Result<Opened> {
    let Some(name) = env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
        return choose(config);
    };
    let name = name.to_string_lossy();
    let Some(tier) = Tier::of(&name) else {
        let says = format!("{VARIABLE} is {name}; it may be uring, uring-basic or epoll");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, says));
    };
    let mut opened = open_tier(tier, config)?;
    opened.report.is_forced = true;
    Ok(opened)
}

/// Opens sockets that may move between threads: those of a client that its host's threads drive in
/// turn. Always epoll, because a ring belongs to one thread; for one connection it costs the same.
///
/// # Errors
/// As [`open`], without the variable.
pub fn open_movable(config: &Config) -> io::Result<Box<dyn Sockets + Send>> {
    check(config)?;
    let sockets = ReadinessSockets::new(Epoll::new()?, config)?;
    Ok(Box::new(sockets))
}

/// Tries the tiers in turn.
fn choose(config: &Config) -> io::Result<Opened> {
    check(config)?;
    let mut passed_over = Vec::new();
    for tier in [Tier::Uring, Tier::UringBasic] {
        match try_tier(tier, config) {
            Ok(mut opened) => {
                opened.report.passed_over = passed_over;
                return Ok(opened);
            }
            Err(error) => passed_over.push(PassedOver {
                tier,
                why: explain(tier, &error),
            }),
        }
    }
    let mut opened = try_tier(Tier::Epoll, config)?;
    opened.report.passed_over = passed_over;
    Ok(opened)
}

/// Opens the sockets of a shard in this tier or not at all.
///
/// # Errors
/// Why the tier cannot be had, with the cure; `InvalidInput` for a [`Config`] that no tier takes.
pub fn open_tier(tier: Tier, config: &Config) -> io::Result<Opened> {
    check(config)?;
    try_tier(tier, config).map_err(|error| {
        let says = format!("the {tier} driver cannot be had: {}", explain(tier, &error));
        io::Error::new(error.kind(), says)
    })
}

fn check(config: &Config) -> io::Result<()> {
    let refuse = |says: String| Err(io::Error::new(io::ErrorKind::InvalidInput, says));
    let Config {
        connections_max,
        ring_entries,
        receive_bytes,
        receive_buffers,
        ..
    } = *config;
    if connections_max == 0 {
        return refuse("connections_max is 0; it must be 1 or more".to_owned());
    }
    let entries = RING_ENTRIES_MIN..=RING_ENTRIES_MAX;
    if !ring_entries.is_power_of_two() || !entries.contains(&ring_entries) {
        return refuse(format!(
            "ring_entries is {ring_entries}; it must be a power of two from {RING_ENTRIES_MIN} \
             to {RING_ENTRIES_MAX}"
        ));
    }
    if !(1..=RECEIVE_BYTES_MAX).contains(&receive_bytes) {
        return refuse(format!(
            "receive_bytes is {receive_bytes}; it must be 1 to {RECEIVE_BYTES_MAX}"
        ));
    }
    if !receive_buffers.is_power_of_two() || receive_buffers > RECEIVE_BUFFERS_MAX {
        return refuse(format!(
            "receive_buffers is {receive_buffers}; it must be a power of two up to \
             {RECEIVE_BUFFERS_MAX}"
        ));
    }
    Ok(())
}

fn try_tier(tier: Tier, config: &Config) -> io::Result<Opened> {
    let asked = config.ring_entries;
    let (sockets, entries): (Box<dyn Sockets>, u32) = match tier {
        Tier::Uring => {
            let (sockets, entries) =
                with_a_ring(asked, |entries| UringSockets::new(config, entries))?;
            (Box::new(sockets), entries)
        }
        Tier::UringBasic => {
            let uses_newer = config.uses_newer_features;
            let (poll, entries) = with_a_ring(asked, |entries| RingPoll::new(entries, uses_newer))?;
            (Box::new(ReadinessSockets::new(poll, config)?), entries)
        }
        Tier::Epoll => {
            let sockets = ReadinessSockets::new(Epoll::new()?, config)?;
            (Box::new(sockets), asked)
        }
        Tier::Simulated => {
            let says = "simulated sockets are made by their network, SimulatedSockets::new";
            return Err(io::Error::new(io::ErrorKind::Unsupported, says));
        }
    };
    let report = Report {
        tier,
        is_forced: false,
        smaller_ring: (entries < asked).then_some(entries),
        passed_over: Vec::new(),
    };
    Ok(Opened { sockets, report })
}

/// Makes a ring of `entries`; of fewer if there is no memory for it (before Linux 5.12 rings count
/// as locked memory, of which a process may have little).
fn with_a_ring<T>(mut entries: u32, make: impl Fn(u32) -> io::Result<T>) -> io::Result<(T, u32)> {
    loop {
        match make(entries) {
            Ok(made) => return Ok((made, entries)),
            Err(error)
                if error.raw_os_error() == Some(libc::ENOMEM) && entries > RING_ENTRIES_MIN =>
            {
                entries /= 2;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What stands in the way of a tier, and the cure.
fn explain(tier: Tier, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match disabled() {
            Some(value) => format!(
                "io_uring is switched off (EPERM); set the sysctl kernel.io_uring_disabled, \
                 which is {value}, to 0"
            ),
            None => "a seccomp filter forbids io_uring (EPERM); run the container with the \
                     profile packaging/seccomp.json"
                .to_owned(),
        },
        Some(libc::ENOSYS) => "the kernel has no io_uring, or a sandbox hides it (ENOSYS); use \
                               Linux 5.1 or newer, or allow its calls"
            .to_owned(),
        Some(libc::ENOMEM) => format!(
            "there is no memory for a ring, not even of {RING_ENTRIES_MIN} entries (ENOMEM); \
             raise the limit of locked memory (ulimit -l)"
        ),
        Some(libc::EINVAL) if tier == Tier::Uring => {
            "the kernel lacks what it needs (EINVAL); use Linux 6.1 or newer".to_owned()
        }
        _ => error.to_string(),
    }
}

/// The switch of the system, if it is on.
fn disabled() -> Option<String> {
    let value = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    let value = value.trim();
    (value != "0").then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_has_a_name_that_finds_it() {
        for tier in Tier::ALL {
            assert_eq!(Tier::of(tier.name()), Some(tier));
        }
        assert_eq!(Tier::of("simulated"), None);
        assert_eq!(Tier::of("io_uring"), None);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let check = |code, expected: &str| {
            let says = explain(Tier::Uring, &io::Error::from_raw_os_error(code));
            assert!(says.contains(expected), "{says}");
        };
        check(libc::ENOSYS, "Linux 5.1 or newer");
        check(libc::ENOMEM, "ulimit -l");
        check(libc::EINVAL, "Linux 6.1 or newer");
        check(libc::EMFILE, "os error 24");
    }

    #[test]
    fn a_ring_that_does_not_fit_is_tried_smaller() {
        let fits = |most: u32| {
            with_a_ring(1024, move |entries| match entries {
                entries if entries <= most => Ok(()),
                _ => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
            })
        };
        assert_eq!(fits(4096).unwrap().1, 1024);
        assert_eq!(fits(300).unwrap().1, 256);
        assert_eq!(fits(64).unwrap().1, 64);
        assert_eq!(fits(63).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
    }

    #[test]
    fn a_config_that_no_tier_takes_is_refused_with_the_limit() {
        let check = |config: Config, expected: &str| {
            let error = open_tier(Tier::Epoll, &config).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(expected), "{error}");
        };
        let config = Config::default;
        check(
            Config {
                connections_max: 0,
                ..config()
            },
            "1 or more",
        );
        check(
            Config {
                ring_entries: 300,
                ..config()
            },
            "a power of two from 64 to 4096",
        );
        check(
            Config {
                receive_bytes: 0,
                ..config()
            },
            "1 to 1073741824",
        );
        check(
            Config {
                receive_buffers: 3,
                ..config()
            },
            "a power of two up to 32768",
        );
    }
}

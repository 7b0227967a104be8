//! What needs a process of its own: refused calls, limits, the environment, signals.
//!
//! A child cannot say why it failed but by its number: 0 is success, 101 a panic.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;

use fastmq_driver::sockets::{
    Config, ConnectionId, Opened, SendMode, Sending, Tier, VARIABLE, open, open_tier,
};
use fastmq_test_support::child::{self, Ended};

use crate::echo;
use crate::world::{Family, Happened, Kind, PLAIN, Side, World};

/// The machine has no seccomp filters: an emulator.
const NO_FILTERS: i32 = 125;

/// The names in a list of a profile: what stands between quotes behind `"names":`.
fn names_of(profile: &str) -> Vec<&str> {
    let lists = profile.split("\"names\": [").skip(1);
    let lists = lists.map(|rest| rest.split(']').next().unwrap());
    lists
        .flat_map(|list| list.split('"').skip(1).step_by(2))
        .collect()
}

/// The number of a system call, by the kernel's header; `None` without one.
fn number_of(header: &str, name: &str) -> Option<libc::c_long> {
    let define = format!("#define __NR_{name} ");
    let line = header.lines().find(|line| line.starts_with(&define))?;
    line[define.len()..].trim().parse().ok()
}

#[test]
fn the_profile_for_containers_allows_what_the_best_tier_needs() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let profile = fs::read_to_string(format!("{root}/packaging/seccomp.json")).unwrap();
    let names = names_of(&profile);
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(names.contains(&name), "{name} is missing");
    }
    for name in [
        "bpf",
        "mount",
        "ptrace",
        "init_module",
        "kexec_load",
        "setns",
        "unshare",
    ] {
        assert!(!names.contains(&name), "{name} is allowed");
    }
    let header = match fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h") {
        Ok(header) if cfg!(target_arch = "x86_64") && has_uring() => header,
        _ => {
            println!("skipped: no uring, or no header with the numbers of system calls");
            return;
        }
    };
    let run = |names: &[&str], tier: Tier| {
        let numbers = names.iter().filter_map(|name| number_of(&header, name));
        let numbers: Vec<libc::c_long> = numbers.collect();
        let ended = child::with_allowed_calls(&numbers, || {
            let opened = open(&Config::default()).unwrap();
            let kind = match tier {
                Tier::Uring => Kind::Uring,
                _ => Kind::Epoll,
            };
            let mut world = World::new(kind, Family::Unix).unwrap();
            echo::run(&mut world, 10, 10_000, 500, SendMode::Batched);
            i32::from(opened.sockets.tier() != tier)
        });
        let ended = ended.unwrap();
        assert!(matches!(ended, Ended::Exited(0 | NO_FILTERS)), "{ended:?}");
    };
    run(&names, Tier::Uring);
    let without: Vec<&str> = names
        .into_iter()
        .filter(|name| !name.starts_with("io_uring"))
        .collect();
    run(&without, Tier::Epoll);
}

fn has_uring() -> bool {
    open_tier(Tier::Uring, &Config::default()).is_ok()
}

/// Opens the best tier in a child to which `io_uring_setup` answers `error` for rings of at least
/// `entries_min`.
fn refused(error: i32, entries_min: u32, check: impl FnOnce(&Opened) -> bool) {
    let ended = child::with_refused_call(libc::SYS_io_uring_setup, entries_min, error, || {
        // SAFETY: the child has one thread.
        unsafe { env::remove_var(VARIABLE) };
        let opened = open(&Config::default()).unwrap();
        i32::from(!check(&opened))
    });
    let ended = ended.unwrap();
    if ended == Ended::Exited(NO_FILTERS) {
        println!("skipped: this kernel has no seccomp filters");
        return;
    }
    assert_eq!(ended, Ended::Exited(0));
}

#[test]
fn a_refused_ring_falls_back_to_epoll_and_says_why_with_the_cure() {
    for (error, cure) in [
        (libc::EPERM, "packaging/seccomp.json"),
        (libc::ENOSYS, "Linux 5.1 or newer"),
        (libc::ENOMEM, "ulimit -l"),
    ] {
        refused(error, 0, |opened| {
            let says = opened.report.to_string();
            let passed_over = &opened.report.passed_over;
            let is_off = says.contains("kernel.io_uring_disabled");
            opened.sockets.tier() == Tier::Epoll
                && passed_over
                    .iter()
                    .map(|it| it.tier)
                    .eq([Tier::Uring, Tier::UringBasic])
                && passed_over.iter().all(|it| it.why.contains(cure) || is_off)
                && says.starts_with("epoll; not uring: ")
        });
    }
}

#[test]
fn sockets_work_where_io_uring_is_forbidden() {
    refused(libc::EPERM, 0, |_| {
        assert!(open_tier(Tier::Uring, &Config::default()).is_err());
        let mut world = World::new(Kind::Epoll, Family::Unix).unwrap();
        echo::run(&mut world, 10, 10_000, 500, SendMode::Batched);
        true
    });
}

#[test]
fn a_ring_that_does_not_fit_into_memory_is_made_smaller() {
    if !has_uring() {
        println!("skipped: no uring here");
        return;
    }
    refused(libc::ENOMEM, 257, |opened| {
        let says = opened.report.to_string();
        opened.sockets.tier() == Tier::Uring
            && opened.report.smaller_ring == Some(256)
            && says.starts_with("uring (a ring of 256 entries")
    });
}

#[test]
fn the_environment_forces_a_tier() {
    let ended = child::run(|| {
        let with = |name: &str| {
            // SAFETY: the child has one thread.
            unsafe { env::set_var(VARIABLE, name) };
            open(&Config::default())
        };
        for tier in Tier::ALL {
            match with(tier.name()) {
                Ok(opened) => {
                    assert_eq!(opened.sockets.tier(), tier);
                    assert!(opened.report.is_forced);
                    let says = opened.report.to_string();
                    assert!(says.ends_with("(forced by FASTMQ_DRIVER)"));
                }
                Err(error) => {
                    assert_ne!(tier, Tier::Epoll);
                    assert!(error.to_string().contains(tier.name()));
                }
            }
        }
        let error = with("kqueue").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("uring, uring-basic or epoll"));
        // Empty is as good as not there.
        assert!(!with("").unwrap().report.is_forced);
        0
    });
    assert_eq!(ended.unwrap(), Ended::Exited(0));
}

/// Takes all descriptors that this process may have but `count`. Keep what it returns.
fn leave_descriptors(count: usize) -> Vec<File> {
    let highest = fs::read_dir("/proc/self/fd").unwrap().map(|it| {
        let name = it.unwrap().file_name();
        name.to_str().unwrap().parse::<u64>().unwrap()
    });
    set_limit(highest.max().unwrap() + count as u64 + 1);
    let mut taken = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                break;
            }
        }
    }
    taken.truncate(taken.len() - count);
    taken
}

fn set_limit(count: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(read, 0);
    limit.rlim_cur = (count as libc::rlim_t).min(limit.rlim_max);
    // SAFETY: `limit` is alive for the call.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0);
}

/// Accepts until the listener rests, then until it has all of them.
fn accept_without_descriptors(kind: Kind) {
    const CLIENTS: usize = 20;
    const ROOM: usize = 5;
    let Some(mut world) = World::new(kind, Family::Unix) else {
        return;
    };
    let (_, address) = world.listen();
    for _ in 0..CLIENTS {
        world.connect(&address);
    }
    world.client.wait(0, 0, &mut |_| false).unwrap();
    let taken = leave_descriptors(ROOM);
    let (mut open, mut accepted, mut pauses) = (Vec::<ConnectionId>::new(), 0, 0);
    while accepted < CLIENTS - 1 {
        let happened = world.until(|side, happened| {
            side == Side::Server && !matches!(happened, Happened::Closed(_))
        });
        match happened {
            Happened::Accepted(socket) => {
                accepted += 1;
                open.push(world.server.adopt(socket, PLAIN).unwrap());
            }
            Happened::AcceptPaused(error) => {
                pauses += 1;
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                assert!(open.len() <= ROOM);
                // A connection that closes makes room for another one.
                if let Some(first) = open.pop() {
                    world.server.close(first);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(pauses > 0);
    // Nothing closes, but there is room again: the pause ends by itself.
    let late = world.until(|side, happened| {
        side == Side::Server
            && matches!(happened, Happened::Accepted(_) | Happened::AcceptPaused(_))
    });
    if let Happened::AcceptPaused(_) = late {
        drop(taken);
        world.until(|_, happened| matches!(happened, Happened::Accepted(_)));
    }
}

#[test]
fn a_listener_without_descriptors_rests_and_goes_on() {
    for kind in [Kind::Uring, Kind::UringBasic, Kind::Epoll] {
        let ended = child::run(|| {
            accept_without_descriptors(kind);
            0
        });
        assert_eq!(ended.unwrap(), Ended::Exited(0), "{kind:?}");
    }
}

#[test]
fn a_peer_that_is_gone_raises_no_signal() {
    for kind in [Kind::Uring, Kind::UringBasic, Kind::Epoll] {
        for mode in [SendMode::Batched, SendMode::Direct] {
            let ended = child::run(|| {
                // SAFETY: sets the signal back to what kills.
                unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
                let Some(mut world) = World::new(kind, Family::Unix) else {
                    return 0;
                };
                let (server, client) = world.pair();
                world.close(Side::Client, client);
                let sending = world.server.send(server, &mut vec![1], mode);
                if let Ok(Sending::Started) = sending {
                    let is_sent = |_, it: &Happened| matches!(it, Happened::Sent(_, _, Err(_)));
                    world.until(is_sent);
                    return 0;
                }
                i32::from(sending.unwrap_err().kind() != ErrorKind::BrokenPipe)
            });
            assert_eq!(ended.unwrap(), Ended::Exited(0), "{kind:?}");
        }
    }
}

#[test]
fn a_ring_spins_without_a_system_call() {
    let is_sanitized = cfg!(fastmq_tsan) || env::var_os("ASAN_OPTIONS").is_some();
    if !has_uring() || is_sanitized {
        println!("skipped: no uring here, or a sanitizer that makes calls of its own");
        return;
    }
    let prepare = || {
        let mut world = World::new(Kind::Uring, Family::Unix).unwrap();
        let (server, client) = world.pair();
        world.send(Side::Client, client, b"x");
        world.receive(Side::Server, server, 1);
        world.server.wait(0, 0, &mut |_| false).unwrap();
        assert!(world.server.next().is_none());
        world
    };
    let ended = child::without_system_calls(prepare, |world| {
        let mut looks = 0;
        let mut look = |_| {
            looks += 1;
            looks > 10_000
        };
        let waited = world.server.wait(u64::MAX, u64::MAX / 2, &mut look);
        i32::from(!matches!(waited, Ok(fastmq_driver::sockets::Waited::Spun)))
    });
    let ended = ended.unwrap();
    if ended != Ended::Exited(NO_FILTERS) {
        assert_eq!(ended, Ended::Exited(0));
    }
}

#[test]
fn a_forked_child_drops_its_copy_and_the_parent_goes_on() {
    for kind in [Kind::Uring, Kind::UringBasic, Kind::Epoll] {
        let ended = child::run(|| {
            let Some(mut world) = World::new(kind, Family::Unix) else {
                return 0;
            };
            let (server, client) = world.pair();
            let mut copy = Some(World::new(kind, Family::Unix).unwrap());
            std::mem::swap(copy.as_mut().unwrap(), &mut world);
            let forked = child::run(|| {
                drop(copy.take());
                0
            });
            assert_eq!(forked.unwrap(), Ended::Exited(0));
            let mut world = copy.take().unwrap();
            world.send(Side::Client, client, b"after");
            assert_eq!(world.receive(Side::Server, server, 5), b"after");
            0
        });
        assert_eq!(ended.unwrap(), Ended::Exited(0), "{kind:?}");
    }
}

//! Promises of the real driver: sleeping threads wake, descriptors tell the truth, all is counted.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use fastmq_driver::{
    Driver, FOREVER_NS, LoopFd, NullDriver, Parked, core_count, fence, pin_current_thread,
};

const MILLISECOND_NS: u64 = 1_000_000;
const MINUTE_NS: u64 = 60_000_000_000;

fn driver() -> Arc<dyn Driver> {
    Arc::new(NullDriver::new())
}

/// Waits in `poll` until the descriptor is readable; a negative time-out waits for ever.
fn poll(fd: RawFd, timeout_ms: i32) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: `poll` is one live `pollfd`, and one is what the count says.
    let ready = unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
    assert!(ready >= 0, "poll: {}", io::Error::last_os_error());
    ready == 1
}

/// Parks until `word` is no longer `expected`, as the engine does.
fn park_while(driver: &dyn Driver, word: &AtomicU32, expected: u32) {
    while word.load(Ordering::Acquire) == expected {
        let parked = driver.park(word, expected, FOREVER_NS);
        assert!(
            matches!(parked, Parked::Woken | Parked::Changed),
            "{parked:?}"
        );
    }
}

#[test]
fn a_changed_word_does_not_sleep() {
    let driver = driver();
    let word = AtomicU32::new(1);
    assert_eq!(driver.park(&word, 0, FOREVER_NS), Parked::Changed);
    assert_eq!(driver.counters().parks, 1);
}

#[test]
fn a_park_ends_at_its_deadline_and_not_before() {
    let driver = driver();
    let word = AtomicU32::new(0);
    let deadline_ns = driver.monotonic_ns() + 5 * MILLISECOND_NS;
    loop {
        match driver.park(&word, 0, deadline_ns) {
            Parked::TimedOut => break,
            parked => assert_eq!(parked, Parked::Woken),
        }
    }
    assert!(driver.monotonic_ns() >= deadline_ns);
    assert_eq!(driver.park(&word, 0, deadline_ns), Parked::TimedOut);
    assert_eq!(driver.park(&word, 0, 0), Parked::TimedOut);
}

#[test]
fn two_threads_hand_a_word_to_each_other() {
    const ROUNDS: u32 = 2_000;
    let driver = driver();
    let word = Arc::new(AtomicU32::new(0));
    let other = {
        let (driver, word) = (Arc::clone(&driver), Arc::clone(&word));
        let body = move |driver: &dyn Driver| {
            for round in 0..ROUNDS {
                park_while(driver, &word, 2 * round);
                word.store(2 * round + 2, Ordering::Release);
                driver.wake(&word, 1);
            }
        };
        let inner = Arc::clone(&driver);
        driver
            .spawn("echo", Box::new(move || body(&*inner)))
            .unwrap()
    };
    for round in 0..ROUNDS {
        word.store(2 * round + 1, Ordering::Release);
        driver.wake(&word, 1);
        park_while(&*driver, &word, 2 * round + 1);
    }
    other.join().unwrap();
    assert_eq!(word.load(Ordering::Relaxed), 2 * ROUNDS);
    assert_eq!(driver.counters().wakes, u64::from(2 * ROUNDS));
}

#[test]
fn one_wake_reaches_all_who_sleep() {
    let driver = driver();
    let word = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (inner, word) = (Arc::clone(&driver), Arc::clone(&word));
            driver
                .spawn("sleeper", Box::new(move || park_while(&*inner, &word, 0)))
                .unwrap()
        })
        .collect();
    while driver.counters().parks < 4 {
        thread::yield_now();
    }
    word.store(1, Ordering::Release);
    driver.wake(&word, u32::MAX);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_loop_fd_is_readable_exactly_while_signalled() {
    let loop_fd = driver().loop_fd().unwrap();
    assert!(!poll(loop_fd.fd(), 0));
    loop_fd.signal();
    assert!(poll(loop_fd.fd(), 0));
    assert!(poll(loop_fd.fd(), 0), "level-triggered");
    assert!(loop_fd.is_ready());
    loop_fd.clear();
    assert!(!poll(loop_fd.fd(), 0));
}

#[test]
fn a_loop_fd_becomes_readable_at_its_deadline() {
    let driver = driver();
    let loop_fd = driver.loop_fd().unwrap();
    let deadline_ns = driver.monotonic_ns() + 5 * MILLISECOND_NS;
    loop_fd.set_deadline(Some(deadline_ns));
    assert!(poll(loop_fd.fd(), -1));
    assert!(driver.monotonic_ns() >= deadline_ns);
    loop_fd.clear();
    assert!(!poll(loop_fd.fd(), 0));
    loop_fd.set_deadline(Some(deadline_ns));
    assert!(
        poll(loop_fd.fd(), 0),
        "a deadline in the past is ready at once"
    );
    loop_fd.set_deadline(None);
    assert!(
        !poll(loop_fd.fd(), 0),
        "a deadline that is taken away is forgotten"
    );
    loop_fd.set_deadline(Some(0));
    assert!(poll(loop_fd.fd(), 0), "time zero is in the past");
}

#[test]
fn a_loop_fd_keeps_the_earliest_deadline() {
    let driver = driver();
    let loop_fd = driver.loop_fd().unwrap();
    let now_ns = driver.monotonic_ns();
    loop_fd.set_deadline(Some(now_ns + MINUTE_NS));
    assert!(!poll(loop_fd.fd(), 0));
    loop_fd.clear();
    loop_fd.set_deadline(Some(now_ns));
    assert!(poll(loop_fd.fd(), 0), "an earlier deadline is armed");
    loop_fd.set_deadline(Some(now_ns + MINUTE_NS));
    assert!(poll(loop_fd.fd(), 0), "a later one does not hide it");
    loop_fd.clear();
    loop_fd.set_deadline(Some(now_ns + MINUTE_NS));
    assert!(
        !poll(loop_fd.fd(), 0),
        "after a clear it is armed for the later one"
    );
}

#[test]
fn a_loop_fd_loses_no_deadline_between_threads() {
    const ROUNDS: u64 = 5_000;
    let driver = driver();
    let loop_fd: Arc<LoopFd> = Arc::new(driver.loop_fd().unwrap());
    let due = Arc::new(AtomicU64::new(0));
    let submitter = {
        let (loop_fd, due) = (Arc::clone(&loop_fd), Arc::clone(&due));
        thread::spawn(move || {
            for round in 1..=ROUNDS {
                due.store(round, Ordering::SeqCst);
                loop_fd.set_deadline(Some(round));
            }
        })
    };
    let mut seen = 0;
    while seen < ROUNDS {
        assert!(poll(loop_fd.fd(), 60_000), "lost after {seen}");
        loop_fd.clear();
        seen = due.load(Ordering::SeqCst);
    }
    submitter.join().unwrap();
}

#[test]
fn threads_are_named_counted_and_know_themselves() {
    let driver = driver();
    assert_eq!(driver.counters().threads, 0);
    let gate = Arc::new(Barrier::new(2));
    let name = Arc::new(std::sync::Mutex::new(String::new()));
    let thread = {
        let (gate, name) = (Arc::clone(&gate), Arc::clone(&name));
        let body = move || {
            let text = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            *name.lock().unwrap() = text.trim_end().to_owned();
            gate.wait();
            gate.wait();
        };
        driver
            .spawn("a name that is too long", Box::new(body))
            .unwrap()
    };
    gate.wait();
    assert_eq!(driver.counters().threads, 1);
    assert_eq!(*name.lock().unwrap(), "fmq-a name that");
    assert!(!thread.is_current());
    assert!(!thread.is_finished());
    gate.wait();
    thread.join().unwrap();
    assert_eq!(driver.counters().threads, 0);
}

#[test]
fn a_thread_that_joins_itself_does_not_hang() {
    let driver = driver();
    let (send, receive) = std::sync::mpsc::channel::<fastmq_driver::Thread>();
    let (ended, end) = std::sync::mpsc::channel();
    let body = move || {
        let own = receive.recv().unwrap();
        assert!(own.is_current());
        own.join().unwrap();
        ended.send(()).unwrap();
    };
    send.send(driver.spawn("own", Box::new(body)).unwrap())
        .unwrap();
    end.recv().unwrap();
}

#[test]
fn a_panic_in_a_thread_is_told_to_who_joins() {
    let driver = driver();
    let body = || std::panic::resume_unwind(Box::new("on purpose"));
    let thread = driver.spawn("panic", Box::new(body)).unwrap();
    let panic = thread.join().unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    assert_eq!(driver.counters().threads, 0);
}

#[test]
fn a_library_thread_takes_no_signal_of_the_host_and_the_host_keeps_its_own() {
    fn blocks(signal: i32) -> bool {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the new set is absent, and the old one is written to `set`.
        let result = unsafe { libc::pthread_sigmask(0, std::ptr::null(), set.as_mut_ptr()) };
        assert_eq!(result, 0);
        // SAFETY: the call above has written the set.
        unsafe { libc::sigismember(set.as_ptr(), signal) == 1 }
    }
    let answers = Arc::new(AtomicBool::new(false));
    let inner = Arc::clone(&answers);
    let before = blocks(libc::SIGTERM);
    let body = move || {
        let is_right = blocks(libc::SIGTERM) && blocks(libc::SIGCHLD) && !blocks(libc::SIGSEGV);
        inner.store(is_right, Ordering::SeqCst);
    };
    driver()
        .spawn("deaf", Box::new(body))
        .unwrap()
        .join()
        .unwrap();
    assert!(answers.load(Ordering::SeqCst));
    assert_eq!(blocks(libc::SIGTERM), before);
}

#[test]
fn the_counters_count_each_call() {
    let driver = driver();
    driver.monotonic_ns();
    driver.unix_ns();
    let event = driver.event().unwrap();
    event.signal();
    driver.wake(&AtomicU32::new(0), 1);
    let counters = driver.counters();
    assert_eq!(
        (counters.clock_calls, counters.parks, counters.wakes),
        (2, 0, 2)
    );
}

#[test]
fn a_thread_can_be_bound_to_a_core_and_only_to_one_that_exists() {
    let cores = core_count();
    assert!(cores >= 1);
    thread::spawn(move || {
        // SAFETY: takes nothing.
        let core = unsafe { libc::sched_getcpu() };
        let core = usize::try_from(core).unwrap();
        pin_current_thread(core).unwrap();
        // SAFETY: takes nothing.
        let pinned = unsafe { libc::sched_getcpu() };
        // Between the two calls the thread may have moved; it is back where it was bound to.
        assert_eq!(usize::try_from(pinned).unwrap(), core);
        assert_eq!(core_count(), cores, "remembered");
        let error = pin_current_thread(1 << 20).unwrap_err();
        assert_eq!(
            error.to_string(),
            "core is 1048576, and the highest number is 1023"
        );
        assert!(pin_current_thread(1023).is_err());
    })
    .join()
    .unwrap();
}

/// Dekker's game: each side writes its word and reads the other's. Without the fences both miss.
/// The kernel is asked meanwhile, so that the switch falls into the first rounds.
#[test]
fn at_least_one_side_of_the_asymmetric_fence_sees_the_other() {
    const ROUNDS: u32 = 20_000;
    let words: [AtomicU32; 2] = Default::default();
    let seen: [AtomicU32; 2] = Default::default();
    let gate = Barrier::new(2);
    // The rounds must start as close together as can be, so no barrier that sleeps.
    let arrived = AtomicU32::new(0);
    let meet = |round: u32| {
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < 2 * round {
            thread::yield_now();
        }
    };
    let is_granted = thread::scope(|scope| {
        let asking = scope.spawn(fence::register);
        let other = scope.spawn(|| {
            gate.wait();
            for round in 1..=ROUNDS {
                words[0].store(round, Ordering::Relaxed);
                fence::light();
                seen[0].store(words[1].load(Ordering::Relaxed), Ordering::Relaxed);
                meet(2 * round - 1);
                meet(2 * round);
            }
        });
        gate.wait();
        for round in 1..=ROUNDS {
            words[1].store(round, Ordering::Relaxed);
            fence::heavy();
            seen[1].store(words[0].load(Ordering::Relaxed), Ordering::Relaxed);
            meet(2 * round - 1);
            let both: Vec<u32> = seen
                .iter()
                .map(|word| word.load(Ordering::Relaxed))
                .collect();
            assert!(
                both.contains(&round),
                "round {round}: both sides read {both:?}"
            );
            meet(2 * round);
        }
        // ThreadSanitizer sees a join, not the end of a scope.
        other.join().unwrap();
        asking.join().unwrap()
    });
    assert_eq!(fence::register(), is_granted, "decided once");
}

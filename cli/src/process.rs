//! A command that answers one request: bounded in time and in what it says.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use fastmq::border::signals::kill_group;
use fastmq::{Driver, NullDriver};

/// Bytes of standard error that are kept.
const SAID_MAX: usize = 4096;
/// Bytes of standard output: the largest payload that there may be.
const ANSWER_MAX: usize = 64 << 20;
/// How often a command that has closed its outputs is looked at.
const LOOK_NS: u64 = 1_000_000;

/// One request.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) token: u64,
    pub(crate) subject: String,
    pub(crate) payload: Vec<u8>,
}

/// How a command has ended.
#[derive(Debug)]
pub(crate) enum Ended {
    ByItself(Output),
    /// It was killed, with all that it has started, as its time was up.
    TooLate,
    /// It said more than an answer may have.
    TooLarge,
}

/// Runs a command by the shell, in a process group of its own.
///
/// # Errors
/// It cannot be started, or its pipes fail.
pub(crate) fn run(job: &Job, command: &str, timeout_ns: u64) -> io::Result<Ended> {
    let clock = NullDriver::new();
    let due_ns = clock.monotonic_ns().saturating_add(timeout_ns);
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("FASTMQ_SUBJECT", &job.subject)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // How many of its outputs are still read.
    let open = AtomicU32::new(2);
    let (out, err, is_late) = thread::scope(|scope| {
        // Beside the reading: a command may say much before it has read all.
        scope.spawn(move || {
            // One that does not want to read is no failure.
            let _ = input.map(|mut input| input.write_all(&job.payload));
        });
        let ends = || {
            open.fetch_sub(1, Ordering::SeqCst);
            NullDriver::new().wake(&open, 1);
        };
        let out = scope.spawn(move || {
            let read = read_up_to(out, ANSWER_MAX);
            ends();
            read
        });
        let err = scope.spawn(move || {
            let read = read_up_to(err, SAID_MAX);
            ends();
            read
        });
        let is_late = !ends_before(&clock, &open, &mut child, due_ns);
        if is_late {
            // It is ours to wait for, so its number is still its own.
            let _ = kill_group(child.id());
        }
        (out.join(), err.join(), is_late)
    });
    let status = child.wait()?;
    let panicked = |_| io::Error::other("a thread that reads has panicked");
    let (stdout, is_too_large) = out.map_err(panicked)??;
    let (stderr, _) = err.map_err(panicked)??;
    Ok(match (is_late, is_too_large) {
        (true, _) => Ended::TooLate,
        (_, true) => Ended::TooLarge,
        _ => Ended::ByItself(Output {
            status,
            stdout,
            stderr,
        }),
    })
}

/// Waits until it has closed its outputs and ended. False: it has not, and its time is up.
fn ends_before(clock: &NullDriver, open: &AtomicU32, child: &mut Child, due_ns: u64) -> bool {
    loop {
        let count = open.load(Ordering::SeqCst);
        // Whether it has ended is asked last: then nobody may use its number any more.
        if count == 0 && child.try_wait().is_ok_and(|status| status.is_some()) {
            return true;
        }
        let now_ns = clock.monotonic_ns();
        if now_ns >= due_ns {
            return false;
        }
        let until_ns = match count {
            0 => due_ns.min(now_ns + LOOK_NS),
            _ => due_ns,
        };
        clock.park(open, count, until_ns);
    }
}

/// All bytes up to `max`, and whether there were more; those are read and dropped.
fn read_up_to(from: Option<impl Read>, max: usize) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let Some(mut from) = from else {
        return Ok((bytes, false));
    };
    from.by_ref().take(max as u64).read_to_end(&mut bytes)?;
    let more = io::copy(&mut from, &mut io::sink())?;
    Ok((bytes, more > 0))
}

//! Child processes: one that dies of its first system call, one to which the kernel refuses a
//! call, one that may abort.
//!
//! A child is a fork with one thread. [`without_system_calls`] prepares, then installs a filter
//! that kills the process on every system call but `exit_group`, and does its work: the proof that
//! a path makes none. The allocator of glibc is usable in the child of a fork; locks of ours that
//! another thread held stay held, so the parent holds none while it forks.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It did its work and left with this number.
    Exited(i32),
    /// The filter killed it (`SIGSYS`), or another signal did.
    Killed(i32),
}

/// The exit number of a child that panicked.
pub const PANICKED: i32 = 101;

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn step(code: u16, if_true: u8, if_false: u8, number: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: if_true,
        jf: if_false,
        k: number,
    }
}

/// Forks; the child runs `prepare`, forbids itself all system calls, runs `work` on the result and
/// leaves with the number that it returned.
///
/// # Errors
/// What `fork` or `waitpid` said; a kernel without seccomp filters shows as exit number 125.
pub fn without_system_calls<T>(
    prepare: impl FnOnce() -> T,
    work: impl FnOnce(&mut T) -> i32,
) -> io::Result<Ended> {
    // SAFETY: takes no pointer. The child calls only what the module doc allows.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let number = caught(|| {
                let mut prepared = prepare();
                if forbid_system_calls() {
                    let number = work(&mut prepared);
                    // Its end may make system calls.
                    std::mem::forget(prepared);
                    number
                } else {
                    125
                }
            });
            // SAFETY: ends the process at once; no destructor runs.
            unsafe { libc::_exit(number) }
        }
        child => wait(child),
    }
}

/// Forks; in the child one system call fails with `error` if its first argument is at least
/// `argument_min` (0: always). It runs `body` and leaves with the number that it returned.
///
/// # Errors
/// What `fork` or `waitpid` said; a kernel without seccomp filters shows as exit number 125.
pub fn with_refused_call(
    call: libc::c_long,
    argument_min: u32,
    error: i32,
    body: impl FnOnce() -> i32,
) -> io::Result<Ended> {
    run_with(|| match refuse_call(call, argument_min, error) {
        true => body(),
        false => 125,
    })
}

/// Forks; in the child every system call that is not among `calls` fails with EPERM, as a
/// container's profile has it. It runs `body` and leaves with the number that it returned.
///
/// # Errors
/// What `fork` or `waitpid` said; a kernel without seccomp filters shows as exit number 125.
pub fn with_allowed_calls(calls: &[libc::c_long], body: impl FnOnce() -> i32) -> io::Result<Ended> {
    let mut filter = vec![step(LOAD_WORD, 0, 0, 0)];
    for call in calls {
        filter.push(step(JUMP_EQUAL, 0, 1, *call as u32));
        filter.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    }
    filter.push(step(
        RETURN,
        0,
        0,
        libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
    ));
    run_with(|| match install(&mut filter) {
        true => body(),
        false => 125,
    })
}

/// Forks; the child writes its standard error nowhere, runs `body` and leaves with the number
/// that it returned. For what may abort the process.
///
/// # Errors
/// What `fork` or `waitpid` said.
pub fn run(body: impl FnOnce() -> i32) -> io::Result<Ended> {
    run_with(|| {
        // SAFETY: the path is a C string.
        let nowhere = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY) };
        // SAFETY: numbers; what was standard error is closed, and its number is not free.
        unsafe { libc::dup2(nowhere, libc::STDERR_FILENO) };
        body()
    })
}

fn run_with(body: impl FnOnce() -> i32) -> io::Result<Ended> {
    // SAFETY: takes no pointer. The child calls only what the module doc allows.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let number = caught(body);
            // SAFETY: ends the process at once; no destructor runs.
            unsafe { libc::_exit(number) }
        }
        child => wait(child),
    }
}

/// A child that panics must not go on as if it were the parent.
fn caught(body: impl FnOnce() -> i32) -> i32 {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED)
}

fn wait(child: libc::pid_t) -> io::Result<Ended> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    if waited != child {
        return Err(io::Error::last_os_error());
    }
    if libc::WIFEXITED(status) {
        return Ok(Ended::Exited(libc::WEXITSTATUS(status)));
    }
    Ok(Ended::Killed(libc::WTERMSIG(status)))
}

fn forbid_system_calls() -> bool {
    // The number of the call is the first word of what the filter sees.
    install(&mut [
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_EQUAL, 0, 1, libc::SYS_exit_group as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ])
}

fn refuse_call(call: libc::c_long, argument_min: u32, error: i32) -> bool {
    // The first argument follows number, architecture and instruction pointer, low word first.
    const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") {
        16
    } else {
        20
    };
    install(&mut [
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_EQUAL, 0, 3, call as u32),
        step(LOAD_WORD, 0, 0, FIRST_ARGUMENT),
        step(JUMP_AT_LEAST, 0, 1, argument_min),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ])
}

/// Puts a filter over this process, for good.
fn install(filter: &mut [libc::sock_filter]) -> bool {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes numbers only.
    let prepared = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if prepared != 0 {
        return false;
    }
    let mode = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
    // SAFETY: `program` and the filter it points to outlive the call, which copies them.
    let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    installed == 0
}

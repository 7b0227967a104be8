//! A child process that dies of its first system call: the proof that a path makes none.
//!
//! The child is a fork with one thread. It prepares without a filter, then installs one that kills
//! the process on every system call but `exit_group`, and does its work. It may allocate only
//! before: a lock of the allocator that another thread held at the fork stays held.

use std::io;

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It did its work and left with this number.
    Exited(i32),
    /// The filter killed it (`SIGSYS`), or another signal did.
    Killed(i32),
}

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
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
            let mut prepared = prepare();
            let number = if forbid_system_calls() { work(&mut prepared) } else { 125 };
            // SAFETY: ends the process at once; no destructor runs.
            unsafe { libc::_exit(number) }
        }
        child => wait(child),
    }
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
    let mut filter = [
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_EQUAL, 0, 1, libc::SYS_exit_group as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
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

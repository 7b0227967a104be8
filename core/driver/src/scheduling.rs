//! How a thread runs: its name, its cores, its scheduling; and whether it is a real-time thread.
//!
//! A thread sets itself up, so that nothing of another one is touched. Who spins asks
//! [`is_realtime`]: such a thread takes its core from everybody else, who may hold what it waits
//! for. The answer is remembered, since asking the kernel costs as much as a wake-up; a thread that
//! was set up elsewhere becomes known by [`set_up_current_thread`] with the default options.
//! Not here: how long a real-time thread may spin. That is the engine's choice.

use core::cell::Cell;
use core::mem::zeroed;
use std::io;

/// How the kernel chooses among threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// As it is; a new thread begins with that of the thread that starts it.
    #[default]
    Keep,
    /// `SCHED_OTHER`: shares its core with the others.
    Other,
    /// `SCHED_FIFO`: runs until it sleeps or one of a higher priority comes.
    Fifo,
    /// `SCHED_RR`: the same, in turns with those of its own priority.
    RoundRobin,
}

/// The lowest priority of a real-time thread.
pub const PRIORITY_MIN: u32 = 1;
/// The highest.
pub const PRIORITY_MAX: u32 = 99;
/// What the kernel keeps of a name.
pub const NAME_BYTES_MAX: usize = 15;

/// A name of a thread; empty: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadName {
    /// With the zeros that the kernel wants behind it.
    bytes: [u8; NAME_BYTES_MAX + 1],
}

/// What a thread is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadOptions {
    /// What `/proc` shows; empty: as it is.
    pub name: ThreadName,
    /// The cores it may run on, bit n for core n; 0: as it is.
    pub cores: u64,
    /// Its scheduling.
    pub scheduling: Scheduling,
    /// 1 to 99 for `Fifo` and `RoundRobin`, else 0.
    pub priority: u32,
}

/// Why a thread is not what it was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// These cores are not there, or closed to this process.
    Cores(u64),
    /// The right to this scheduling and priority is missing.
    Denied,
    /// Another refusal of the system, by its number.
    System(i32),
}

thread_local! {
    static IS_REALTIME: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is known to be a real-time thread. No system call.
#[inline]
#[must_use]
pub fn is_realtime() -> bool {
    IS_REALTIME.get()
}

/// Says what [`is_realtime`] answers on the calling thread. For simulations.
pub fn assume_realtime(is_realtime: bool) {
    IS_REALTIME.set(is_realtime);
}

impl ThreadName {
    /// A name of at most 15 bytes; `None` if it is longer, or has a control character.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return None;
        }
        let mut bytes = [0; NAME_BYTES_MAX + 1];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Self { bytes })
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes[0] == 0
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let size = self.bytes.iter().take_while(|byte| **byte != 0).count();
        &self.bytes[..size]
    }
}

/// Makes the calling thread what the options say, and learns whether it is a real-time thread.
///
/// # Errors
/// [`SetupError`]; then nothing has changed.
pub fn set_up_current_thread(options: &ThreadOptions) -> Result<(), SetupError> {
    if options.cores != 0 {
        let before = affinity()?;
        if let Err(error) = set_cores(options.cores).and_then(|()| set_scheduling(options)) {
            // What the kernel gave a moment ago is valid; if a cpuset has shrunk, it says so.
            let _ = set_affinity(&before);
            return Err(error);
        }
    } else {
        set_scheduling(options)?;
    }
    if !options.name.is_empty() {
        set_name(&options.name);
    }
    assume_realtime(is_realtime_policy(policy()?));
    Ok(())
}

/// The cores of the calling thread, bit n for core n; those above 63 are left out.
///
/// # Errors
/// [`SetupError::System`]: the kernel has more cores than the set can hold.
pub fn current_cores() -> Result<u64, SetupError> {
    Ok(mask_of(&affinity()?))
}

fn set_name(name: &ThreadName) {
    // SAFETY: the bytes end with a zero and are read during the call only.
    let result = unsafe { libc::prctl(libc::PR_SET_NAME, name.bytes.as_ptr(), 0, 0, 0) };
    debug_assert_eq!(result, 0, "any readable name can be set");
}

fn set_cores(cores: u64) -> Result<(), SetupError> {
    // SAFETY: a set of bits, for which zeros are a value.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    for core in (0..64).filter(|core| cores >> core & 1 == 1) {
        // SAFETY: every set has more than 64 bits.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    match set_affinity(&set) {
        Ok(()) => {}
        Err(SetupError::System(libc::EINVAL)) => return Err(SetupError::Cores(cores)),
        Err(error) => return Err(error),
    }
    // The kernel leaves out silently what is not there or closed to the process.
    match cores & !mask_of(&affinity()?) {
        0 => Ok(()),
        missing => Err(SetupError::Cores(missing)),
    }
}

fn set_scheduling(options: &ThreadOptions) -> Result<(), SetupError> {
    let policy = match options.scheduling {
        Scheduling::Keep => return Ok(()),
        Scheduling::Other => libc::SCHED_OTHER,
        Scheduling::Fifo => libc::SCHED_FIFO,
        Scheduling::RoundRobin => libc::SCHED_RR,
    };
    // SAFETY: integers (and padding on some targets), for which zeros are a value.
    let mut parameter: libc::sched_param = unsafe { zeroed() };
    parameter.sched_priority = options.priority as libc::c_int;
    // The system call itself: musl's function refuses always, since it is about processes.
    // SAFETY: 0 is the calling thread, and the parameter is read during the call only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            policy,
            &raw const parameter,
        )
    };
    match last_error(result) {
        Ok(()) => Ok(()),
        Err(SetupError::System(libc::EPERM)) => Err(SetupError::Denied),
        Err(error) => Err(error),
    }
}

fn policy() -> Result<libc::c_int, SetupError> {
    // SAFETY: no pointer is passed; 0 is the calling thread.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    last_error(policy.min(0))?;
    // A flag of it says that children do not inherit it.
    Ok(policy as libc::c_int & !libc::SCHED_RESET_ON_FORK)
}

fn is_realtime_policy(policy: libc::c_int) -> bool {
    matches!(
        policy,
        libc::SCHED_FIFO | libc::SCHED_RR | libc::SCHED_DEADLINE
    )
}

fn affinity() -> Result<libc::cpu_set_t, SetupError> {
    // SAFETY: a set of bits, for which zeros are a value.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: 0 is the calling thread, and the set is writable and as large as said.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    last_error(result.into())?;
    Ok(set)
}

fn set_affinity(set: &libc::cpu_set_t) -> Result<(), SetupError> {
    // SAFETY: 0 is the calling thread, and the set is alive and as large as said.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(set), set) };
    last_error(result.into())
}

fn mask_of(set: &libc::cpu_set_t) -> u64 {
    let has = |core: &usize| {
        // SAFETY: every set has more than 64 bits.
        unsafe { libc::CPU_ISSET(*core, set) }
    };
    (0..64).filter(has).fold(0, |mask, core| mask | 1 << core)
}

fn last_error(result: libc::c_long) -> Result<(), SetupError> {
    if result >= 0 {
        return Ok(());
    }
    let number = io::Error::last_os_error().raw_os_error();
    Err(SetupError::System(number.unwrap_or(libc::EINVAL)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_15_bytes_without_control_characters() {
        let check =
            |name: &str, is_name: bool| assert_eq!(ThreadName::new(name).is_some(), is_name);
        check("", true);
        check("feed", true);
        check("123456789012345", true);
        check("1234567890123456", false);
        check("a\nb", false);
        check("a\0", false);
        assert!(ThreadName::new("").unwrap().is_empty());
        assert_eq!(ThreadName::new("fé").unwrap().as_bytes(), "fé".as_bytes());
    }

    /// Runs `body` on a thread of its own, which may be changed.
    fn apart(body: impl FnOnce() + Send + 'static) {
        std::thread::spawn(body).join().unwrap();
    }

    #[test]
    fn a_thread_gets_its_name_and_its_cores() {
        apart(|| {
            let all = current_cores().unwrap();
            let first = 1 << all.trailing_zeros();
            let options = ThreadOptions {
                name: ThreadName::new("feed-7").unwrap(),
                cores: first,
                ..ThreadOptions::default()
            };
            set_up_current_thread(&options).unwrap();
            assert_eq!(current_cores(), Ok(first));
            let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            assert_eq!(name.trim_end(), "feed-7");
            assert!(!is_realtime());
        });
    }

    #[test]
    fn cores_that_are_not_there_are_named_and_nothing_changes() {
        apart(|| {
            let all = current_cores().unwrap();
            if all == u64::MAX {
                return;
            }
            let absent = 1 << (63 - (!all).leading_zeros());
            for cores in [absent, absent | all] {
                let options = ThreadOptions {
                    name: ThreadName::new("never").unwrap(),
                    cores,
                    ..ThreadOptions::default()
                };
                let error = set_up_current_thread(&options).unwrap_err();
                assert_eq!(error, SetupError::Cores(absent));
                assert_eq!(current_cores(), Ok(all));
            }
            let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            assert_ne!(name.trim_end(), "never");
        });
    }

    /// The lowest priority, on a thread that ends at once. Where the right is missing the answer
    /// is that, and nothing has changed.
    #[test]
    fn a_real_time_thread_knows_that_it_is_one() {
        apart(|| {
            let options = |scheduling, priority| ThreadOptions {
                scheduling,
                priority,
                ..ThreadOptions::default()
            };
            for scheduling in [Scheduling::Fifo, Scheduling::RoundRobin] {
                let may = match set_up_current_thread(&options(scheduling, PRIORITY_MIN)) {
                    Ok(()) => true,
                    Err(error) => {
                        assert_eq!(error, SetupError::Denied);
                        false
                    }
                };
                assert_eq!(is_realtime(), may);
                assert_eq!(is_realtime_policy(policy().unwrap()), may);
                set_up_current_thread(&options(Scheduling::Keep, 0)).unwrap();
                assert_eq!(is_realtime(), may, "as it is");
                set_up_current_thread(&options(Scheduling::Other, 0)).unwrap();
                assert!(!is_realtime());
                assert_eq!(policy(), Ok(libc::SCHED_OTHER));
            }
        });
    }
}

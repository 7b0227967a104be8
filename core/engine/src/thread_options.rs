//! What threads are to be: the checks, and the sentences that name the cure.

use fastmq_driver::scheduling::{
    self, PRIORITY_MAX, PRIORITY_MIN, Scheduling, SetupError, ThreadName, ThreadOptions,
};

use crate::error::{Error, Fault, Result, Status};

/// Longest name of library threads: a number follows it.
pub const LIBRARY_NAME_BYTES_MAX: usize = scheduling::NAME_BYTES_MAX - 4;

/// Makes the calling thread what the options say.
///
/// Whatever they say, it lets the library know whether this is a real-time thread: one that
/// became one elsewhere calls this once, with the default options.
///
/// # Errors
/// INVALID: a core that is not there, or a priority out of range. DENIED: the right is missing. IO.
/// Nothing has changed then.
pub fn set_up_thread(options: &ThreadOptions) -> Result<()> {
    check_thread_options(options)?;
    scheduling::set_up_current_thread(options).map_err(|error| refused(options, error))
}

/// A name of a thread.
///
/// # Errors
/// INVALID.
pub fn thread_name(name: &[u8]) -> Result<ThreadName> {
    let text = std::str::from_utf8(name).ok();
    text.and_then(ThreadName::new).ok_or(Error::new(&Fault(
        Status::Invalid,
        "the name of a thread has at most 15 bytes of UTF-8 without control characters",
    )))
}

/// The name of a client's thread: the options' and a number.
pub(crate) fn numbered(name: &ThreadName, number: usize) -> ThreadName {
    let mut text = [0_u8; scheduling::NAME_BYTES_MAX];
    let digits = [number / 100, number / 10 % 10, number % 10].map(|digit| b'0' + digit as u8);
    let from = match number {
        0..10 => 2,
        10..100 => 1,
        _ => 0,
    };
    let parts = [name.as_bytes(), b"-", &digits[from..]];
    let mut size = 0;
    for byte in parts.into_iter().flatten() {
        text[size] = *byte;
        size += 1;
    }
    let text = std::str::from_utf8(&text[..size]).ok();
    text.and_then(ThreadName::new).unwrap_or_default()
}

/// The checks for the threads of a client.
pub(crate) fn check_library_threads(options: &ThreadOptions) -> Result<()> {
    let size = options.name.as_bytes().len();
    if size > LIBRARY_NAME_BYTES_MAX {
        return Err(Error::with(
            &Fault(Status::Invalid, "the name of threads has at most 11 bytes"),
            format_args!(
                "the name of threads has {size} bytes; at most {LIBRARY_NAME_BYTES_MAX}, as a \
                 number follows it"
            ),
        ));
    }
    check_thread_options(options)
}

fn check_thread_options(options: &ThreadOptions) -> Result<()> {
    let priority = options.priority;
    let is_realtime = matches!(
        options.scheduling,
        Scheduling::Fifo | Scheduling::RoundRobin
    );
    if is_realtime && !(PRIORITY_MIN..=PRIORITY_MAX).contains(&priority) {
        return Err(Error::with(
            &Fault(
                Status::Invalid,
                "the priority under FIFO and RR is between 1 and 99",
            ),
            format_args!(
                "priority is {priority}; between {PRIORITY_MIN} and {PRIORITY_MAX} under FIFO \
                 and RR"
            ),
        ));
    }
    if !is_realtime && priority != 0 {
        return Err(Error::with(
            &Fault(Status::Invalid, "a priority needs FIFO or RR"),
            format_args!("priority is {priority}; it needs scheduling FIFO or RR, else 0"),
        ));
    }
    Ok(())
}

/// What the system refused, and what cures it.
#[cold]
pub(crate) fn refused(options: &ThreadOptions, error: SetupError) -> Error {
    match error {
        SetupError::Cores(missing) => {
            let core = missing.trailing_zeros();
            Error::with(
                &Fault(
                    Status::Invalid,
                    "cores names a core that is not there, or that this process may not use",
                ),
                format_args!(
                    "cores names core {core}, which is not there or not for this process; \
                     Cpus_allowed_list in /proc/self/status names those that are"
                ),
            )
        }
        SetupError::Denied => {
            let priority = options.priority;
            Error::with(
                &Fault(
                    Status::Denied,
                    "the right to real-time scheduling is missing: RLIMIT_RTPRIO or CAP_SYS_NICE",
                ),
                format_args!(
                    "real-time priority {priority} is not permitted; raise RLIMIT_RTPRIO \
                     (ulimit -r {priority}, LimitRTPRIO={priority} of systemd, rtprio in \
                     limits.conf) or give CAP_SYS_NICE"
                ),
            )
        }
        SetupError::System(number) => {
            let fault = &Fault(Status::Io, "the system refuses these options of a thread");
            Error::with_io(fault, fault.1, &std::io::Error::from_raw_os_error(number))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_of_a_client_has_a_name_of_its_own() {
        let name = ThreadName::new("elevenbytes").unwrap();
        for (number, expected) in [
            (0, "elevenbytes-0"),
            (9, "elevenbytes-9"),
            (10, "elevenbytes-10"),
            (99, "elevenbytes-99"),
            (100, "elevenbytes-100"),
            (255, "elevenbytes-255"),
        ] {
            assert_eq!(numbered(&name, number).as_bytes(), expected.as_bytes());
        }
        assert!(
            check_library_threads(&ThreadOptions {
                name,
                ..ThreadOptions::default()
            })
            .is_ok()
        );
        let name = ThreadName::new("twelve bytes").unwrap();
        let error = check_library_threads(&ThreadOptions {
            name,
            ..ThreadOptions::default()
        });
        assert_eq!(error.unwrap_err().status(), Status::Invalid);
    }

    #[test]
    fn a_priority_goes_with_real_time_scheduling_only() {
        let check = |scheduling, priority, is_right| {
            let options = ThreadOptions {
                scheduling,
                priority,
                ..ThreadOptions::default()
            };
            let status = check_thread_options(&options).map_err(|error| error.status());
            assert_eq!(
                status,
                if is_right {
                    Ok(())
                } else {
                    Err(Status::Invalid)
                }
            );
        };
        check(Scheduling::Keep, 0, true);
        check(Scheduling::Keep, 1, false);
        check(Scheduling::Other, 0, true);
        check(Scheduling::Other, 99, false);
        check(Scheduling::Fifo, 0, false);
        check(Scheduling::Fifo, 1, true);
        check(Scheduling::Fifo, 99, true);
        check(Scheduling::RoundRobin, 99, true);
        check(Scheduling::RoundRobin, 100, false);
    }

    #[test]
    fn a_refusal_names_its_cure() {
        let options = ThreadOptions {
            priority: 42,
            ..ThreadOptions::default()
        };
        let check = |error, status, word: &str| {
            let error = refused(&options, error);
            assert_eq!(error.status(), status);
            assert!(error.text().contains(word), "{}", error.text());
        };
        check(SetupError::Denied, Status::Denied, "ulimit -r 42");
        check(SetupError::Cores(0b1010_0000), Status::Invalid, "core 5");
        check(SetupError::System(1), Status::Io, "refuses");
    }
}

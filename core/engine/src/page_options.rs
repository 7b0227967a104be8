//! Memory that is there from the start: taken when the broker opens, and what to do if it is not.

use std::sync::Arc;

use fastmq_driver::pages::{self, Pages, PagesError};
use fastmq_memory::allocation::try_arc;
use fastmq_memory::arena::Arena;
use fastmq_memory::budget::Budget;

use crate::error::{Error, Fault, Result, Status};
use crate::options::Options;

/// The memory of a broker: a cap on what the allocator gives, or all of it at once.
pub(crate) fn take_memory(options: &Options) -> Result<Arc<Budget>> {
    let bytes = options.memory_max;
    if !options.memory.is_special() {
        return Ok(try_arc(Budget::new(bytes))?);
    }
    // More than can be addressed is more than there is.
    let size = usize::try_from(bytes).unwrap_or(usize::MAX);
    let pages = Pages::map(size, options.memory).map_err(|error| refused(bytes, error))?;
    let arena = try_arc(Arena::new(pages)?)?;
    Ok(try_arc(Budget::of_arena(bytes, arena))?)
}

pub(crate) fn check_page_options(options: &Options) -> Result<()> {
    if options.memory.is_special() && options.memory_max == 0 {
        return Err(Error::new(&Fault(
            Status::Invalid,
            "memory that is there from the start needs memory_max, which says how much",
        )));
    }
    Ok(())
}

/// What the system refused, and what cures it.
#[cold]
fn refused(bytes: u64, error: PagesError) -> Error {
    match error {
        PagesError::LockDenied => {
            let limit = pages::lock_limit().unwrap_or(u64::MAX);
            let kib = bytes.div_ceil(1024);
            Error::with(
                &Fault(
                    Status::Denied,
                    "the right to lock so much memory is missing: RLIMIT_MEMLOCK or CAP_IPC_LOCK",
                ),
                format_args!(
                    "memory_max is {bytes} bytes, and RLIMIT_MEMLOCK allows to lock {limit} with \
                     all that is locked already; raise it (ulimit -l {kib}, LimitMEMLOCK={bytes} \
                     of systemd, memlock in limits.conf) or give CAP_IPC_LOCK"
                ),
            )
        }
        PagesError::NoHugePages => {
            let count = bytes.div_ceil(pages::HUGE_BYTES as u64);
            Error::with(
                &Fault(
                    Status::Unsupported,
                    "there are no huge pages: vm.nr_hugepages reserves some, and \
                     /sys/kernel/mm/transparent_hugepage/enabled lets the kernel make some",
                ),
                format_args!(
                    "there are no {count} huge pages; reserve them (vm.nr_hugepages={count}), or \
                     write madvise to /sys/kernel/mm/transparent_hugepage/enabled"
                ),
            )
        }
        PagesError::NoMemory => Error::with(
            &Fault(Status::NoMemory, "the system has no memory_max bytes"),
            format_args!("memory_max is {bytes} bytes, which the system has not"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_cure() {
        let check = |error, status, word: &str| {
            let error = refused(5 << 20, error);
            assert_eq!(error.status(), status);
            assert!(error.text().contains(word), "{}", error.text());
        };
        check(PagesError::LockDenied, Status::Denied, "ulimit -l 5120,");
        check(PagesError::LockDenied, Status::Denied, "RLIMIT_MEMLOCK");
        check(
            PagesError::NoHugePages,
            Status::Unsupported,
            "vm.nr_hugepages=3)",
        );
        check(PagesError::NoMemory, Status::NoMemory, "5242880 bytes");
    }
}

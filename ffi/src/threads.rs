//! What threads are to be: the library's, by the options of a client, and the caller's own.

use std::mem::{offset_of, size_of};

use fastmq::{Result, Scheduling, ThreadOptions, set_up_thread, thread_name};

use crate::bytes::fastmq_bytes;
use crate::error::boundary;
use crate::message::check_zero;
use crate::options::{Plain, one_of, read_or_default};
use crate::status::fastmq_status;

/// How the kernel chooses among threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_scheduling {
    /// As it is; a new thread begins with that of the thread that starts it.
    FASTMQ_SCHEDULING_KEEP = 0,
    /// SCHED_OTHER: shares its core with the others.
    FASTMQ_SCHEDULING_OTHER = 1,
    /// SCHED_FIFO: runs until it sleeps or one of a higher priority comes.
    FASTMQ_SCHEDULING_FIFO = 2,
    /// SCHED_RR: the same, in turns with those of its own priority.
    FASTMQ_SCHEDULING_RR = 3,
}

/// What a thread is to be: set `struct_size`; 0 in the others leaves it as it is. A new thread
/// begins with the cores and the scheduling of the thread that starts it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_thread_options {
    /// sizeof(fastmq_thread_options).
    pub struct_size: u32,
    /// How the kernel chooses: fastmq_scheduling.
    pub scheduling: u32,
    /// What /proc shows: at most 15 bytes; 11 for the threads of a client, whose names are this,
    /// "-" and a number from 0. They are called fmq-call and a number by default.
    pub name: fastmq_bytes,
    /// The cores it may run on: bit n for core n, of the first 64.
    pub cores: u64,
    /// 1 to 99 under FIFO and RR, else 0.
    pub priority: u32,
    /// 0, reserved.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<fastmq_thread_options>() == 40);
    assert!(offset_of!(fastmq_thread_options, scheduling) == 4);
    assert!(offset_of!(fastmq_thread_options, name) == 8);
    assert!(offset_of!(fastmq_thread_options, cores) == 24);
    assert!(offset_of!(fastmq_thread_options, priority) == 32);
    assert!(offset_of!(fastmq_thread_options, reserved) == 36);
};

// SAFETY: integers and a pointer in C order without padding, zeros are a value, size first.
unsafe impl Plain for fastmq_thread_options {
    const NAME: &'static str = "thread options";
    const FIRST_SIZE: usize = 40;
}

const SCHEDULINGS: [Scheduling; 4] = [
    Scheduling::Keep,
    Scheduling::Other,
    Scheduling::Fifo,
    Scheduling::RoundRobin,
];

impl fastmq_thread_options {
    /// # Safety
    /// The name is readable.
    pub(crate) unsafe fn convert(&self) -> Result<ThreadOptions> {
        check_zero("thread options", &[("reserved", self.reserved)])?;
        // SAFETY: by the contract.
        let name = unsafe { self.name.read("name") }?;
        Ok(ThreadOptions {
            name: thread_name(name)?,
            cores: self.cores,
            scheduling: one_of("scheduling", self.scheduling, &SCHEDULINGS)?,
            priority: self.priority,
        })
    }
}

/// Makes the calling thread what `options` say: its name, its cores, its scheduling.
///
/// `options` is borrowed until the call returns; NULL: nothing changes. In either case the library
/// learns whether this is a real-time thread (FIFO, RR), which pauses when it spins: 50 us after
/// 10 ms. A thread that became one by other means calls this once. Safe from any thread; it does
/// not block, and no client is needed.
/// Returns OK, INVALID (a core that is not there or not for this process, a priority out of range),
/// DENIED (the right is missing; the sentence names the cure), IO, MISUSE; after a failure nothing
/// has changed.
///
/// # Safety
/// `options` is NULL or readable for its `struct_size`, and so is its `name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_thread_setup(
    options: *const fastmq_thread_options,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let options = unsafe { read_or_default(options) }?;
        // SAFETY: by the contract.
        set_up_thread(&unsafe { options.convert() }?)
    })
}

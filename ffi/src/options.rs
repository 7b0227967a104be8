//! Structs that the caller fills: how they are read, and the options that are among them.
//!
//! Rules: `docs/formats.md` §5. The first published sizes stand beside each struct and never
//! change; fields are added at the end only.

use std::ffi::c_void;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::{ptr, slice};

use fastmq::{
    Error, Fault, ManyOptions, Options, PageOptions, Policy, Profile, QueueOptions, Result, Status,
    Timestamps,
};

use crate::bytes::{fastmq_bytes, is_null};
use crate::message::{check_zero, fastmq_message};
use crate::queue::fastmq_queue;
use crate::threads::fastmq_thread_options;

/// No struct is ever this large: a size beyond it is a mistake, and its tail is not ours to read.
const STRUCT_BYTES_MAX: usize = 4096;

/// A struct that crosses the border by size.
///
/// # Safety
/// `repr(C)` without padding, begins with `u32 struct_size`, and all zeros is a value of it.
pub(crate) unsafe trait Plain: Copy {
    /// The parameter, for sentences.
    const NAME: &'static str;
    /// The size of its first published version.
    const FIRST_SIZE: usize;
}

/// Checks a pointer to a struct and gives the `struct_size` in it.
///
/// # Safety
/// Unless it is NULL, `from` is readable for 4 bytes.
pub(crate) unsafe fn size_of_struct<T: Plain>(from: *const T) -> Result<usize> {
    if from.is_null() {
        return Err(is_null(T::NAME));
    }
    if !from.is_aligned() {
        let arguments = format_args!("{} is not aligned to {} bytes", T::NAME, align_of::<T>());
        return Err(Error::with(
            &Fault(Status::Invalid, "a struct is not aligned"),
            arguments,
        ));
    }
    // SAFETY: not NULL, aligned, and readable by the contract.
    let size = unsafe { from.cast::<u32>().read() } as usize;
    if !(T::FIRST_SIZE..=STRUCT_BYTES_MAX).contains(&size) {
        let (name, first) = (T::NAME, T::FIRST_SIZE);
        let arguments = format_args!("struct_size of {name} is {size}; it has {first} bytes");
        return Err(Error::with(
            &Fault(Status::Invalid, "struct_size is wrong"),
            arguments,
        ));
    }
    Ok(size)
}

/// Reads a struct of the caller: absent fields are 0, unknown ones must be.
///
/// # Safety
/// Unless it is NULL, `from` is readable for the `struct_size` that it says.
pub(crate) unsafe fn read<T: Plain>(from: *const T) -> Result<T> {
    // SAFETY: by the contract.
    let size = unsafe { size_of_struct(from) }?;
    let known = size.min(size_of::<T>());
    let start = from.cast::<u8>();
    // SAFETY: readable for `size` bytes by the contract; `known` is not more.
    let tail = unsafe { slice::from_raw_parts(start.wrapping_add(known), size - known) };
    if tail.iter().any(|byte| *byte != 0) {
        let (name, ours) = (T::NAME, size_of::<T>());
        let arguments = format_args!(
            "{name} sets a field behind its {ours} known bytes: it is made for a newer library"
        );
        return Err(Error::with(
            &Fault(Status::Invalid, "an unknown field is set"),
            arguments,
        ));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: both are valid for `known` bytes, and a local does not overlap the caller's struct.
    unsafe { ptr::copy_nonoverlapping(start, value.as_mut_ptr().cast::<u8>(), known) };
    // SAFETY: zeros are a value of `T`, and what was copied over them is a prefix of one.
    Ok(unsafe { value.assume_init() })
}

/// As [`read`], but NULL means the default.
///
/// # Safety
/// As for [`read`].
pub(crate) unsafe fn read_or_default<T: Plain>(from: *const T) -> Result<T> {
    if from.is_null() {
        let value = MaybeUninit::<T>::zeroed();
        // SAFETY: zeros are a value of `T`.
        return Ok(unsafe { value.assume_init() });
    }
    // SAFETY: by the contract.
    unsafe { read(from) }
}

/// What a queue does with messages for which there is no room, or which newer ones replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_policy {
    /// The publish is refused with AGAIN, and nobody gets the message.
    FASTMQ_POLICY_BACKPRESSURE = 0,
    /// The oldest messages are dropped and counted.
    FASTMQ_POLICY_DROP_OLDEST = 1,
    /// The new message is dropped and counted.
    FASTMQ_POLICY_DROP_NEWEST = 2,
    /// Of each subject the newest message waits, and replaces one that nobody has received: the
    /// receiver gets what has changed, in the order of the first changes. Never full. Requests
    /// pass it by; a subscription of a group cannot use it.
    FASTMQ_POLICY_LATEST = 3,
}

/// How a reader waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_wait {
    /// Spins for a while that adapts, then sleeps. In the options of a queue: as the client.
    FASTMQ_WAIT_BALANCED = 0,
    /// Spins longer before it sleeps.
    FASTMQ_WAIT_LATENCY = 1,
    /// Sleeps at once.
    FASTMQ_WAIT_LOW_POWER = 2,
    /// Never sleeps.
    FASTMQ_WAIT_BUSY_POLL = 3,
}

/// Where a client's time stamps come from. With them a message that was published by subject, by
/// handle, in a batch of either or as a request carries its time in timestamp_ns, and a batch that
/// was received has one: fastmq_batch_time. A message of a claim carries none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_timestamps {
    /// There are none, and they cost nothing.
    FASTMQ_TIMESTAMPS_NONE = 0,
    /// The host's clock.
    FASTMQ_TIMESTAMPS_CLOCK = 1,
    /// The counter of the processor, calibrated by the host's clock each second: a few microseconds
    /// off. Where it is no clock, the host's; `fastmq doctor` and the log say so. The first client
    /// that asks for it takes a millisecond to open.
    FASTMQ_TIMESTAMPS_TSC = 2,
}

/// What the memory of a client's queues, blocks and latest values is: bits of
/// fastmq_options.memory.
///
/// With any of them fastmq_open takes memory_max bytes, which must not be 0, in one piece, and has
/// the system put memory behind each page. Queues that open and grow get their part of it, and no
/// call waits for the system to find memory for a message. The process as a whole is left as it
/// is: handles, routes, copies of messages (of FASTMQ_POLICY_DROP_OLDEST, of fastmq_batch_detach)
/// and your own memory are the allocator's. It is given back when the client and all that was
/// opened with it are closed, open batches included, and other threads that published by subject
/// have ended or begun to use another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_memory {
    /// It is there from the start, as with the other bits.
    FASTMQ_MEMORY_PREFAULT = 1,
    /// It is locked (mlock): never written to a swap file. DENIED if RLIMIT_MEMLOCK does not allow
    /// so much, and CAP_IPC_LOCK is missing.
    FASTMQ_MEMORY_LOCK = 2,
    /// It is in huge pages of 2 MiB, to which memory_max is rounded up: those that vm.nr_hugepages
    /// has reserved if there are enough, else such as the kernel makes; these may be fewer where
    /// its memory is in pieces (AnonHugePages in /proc/self/smaps). UNSUPPORTED if there are
    /// neither.
    FASTMQ_MEMORY_HUGE_PAGES = 4,
}

/// How a subscription's messages reach the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_delivery {
    /// Pulled with fastmq_receive.
    FASTMQ_DELIVERY_QUEUE = 0,
    /// on_message, on a thread of the library.
    FASTMQ_DELIVERY_THREAD = 1,
    /// on_message, inside fastmq_dispatch.
    FASTMQ_DELIVERY_DISPATCH = 2,
    /// on_message, on the publishing thread; no queue.
    FASTMQ_DELIVERY_INLINE = 3,
}

/// Bits of `fastmq_subscribe_options.flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_subscribe_flag {
    /// Of each subject that matches, the last value comes first, if one is kept
    /// (FASTMQ_OUTGOING_KEEP_LAST): before all newer messages of its publisher, and once. These
    /// take no room of the queue, whatever its policy. Not for groups and not for
    /// FASTMQ_DELIVERY_INLINE: INVALID. With FASTMQ_SUBJECT_JOINED: who is there comes first.
    FASTMQ_SUBSCRIBE_REPLAY_LAST = 1,
}

/// How the members of a group share its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_group_mode {
    /// Each message goes to a member that is less loaded than others.
    FASTMQ_GROUP_BALANCED = 0,
    /// Messages of one key go to one member, those of one publisher in order, while members come,
    /// go and stall. The key of a message without one is its subject. Members have a queue whose
    /// policy is FASTMQ_POLICY_BACKPRESSURE, and the same pattern: with another it is another
    /// group.
    ///
    /// A key moves to a member that joins, and away from one that leaves, once the messages of it
    /// that the publisher sent before were handled: the batch freed, or the callback returned.
    /// Until then a publish of that key returns AGAIN. What a member that leaves has not read goes
    /// to the others first; what it is shown then is still its own. Of a member in another process
    /// a message counts as handled once it has reached that process: when members join or leave,
    /// what waits there may be handled beside what comes after, and who leaves takes it along.
    FASTMQ_GROUP_KEY_SHARED = 1,
}

/// Gets a message, which is readable until it returns. No C++ exception and no longjmp may leave
/// it: the process would end.
pub type fastmq_on_message =
    Option<unsafe extern "C" fn(message: *const fastmq_message, context: *mut c_void)>;

/// Options of a client: set `struct_size`; 0 in the others is the default.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_options {
    /// sizeof(fastmq_options).
    pub struct_size: u32,
    /// 0, reserved.
    pub flags: u32,
    /// Cap on the bytes of lanes, blocks and latest values; 0: no cap.
    pub memory_max: u64,
    /// Default capacity of a lane in bytes; 0: 8 MiB.
    pub queue_capacity: u64,
    /// Largest payload; 0: 1 MiB; at most 64 MiB.
    pub payload_max: u64,
    /// How readers wait: fastmq_wait.
    pub wait: u32,
    /// Library threads for FASTMQ_DELIVERY_THREAD; 0: 1.
    pub threads_max: u32,
    /// How long close waits for running callbacks; 0: 5 s.
    pub close_timeout_ns: u64,
    /// What library threads are, borrowed by fastmq_open, which tries it; NULL: as the thread that
    /// starts them.
    pub threads: *const fastmq_thread_options,
    /// Whether messages and batches carry their time: fastmq_timestamps.
    pub timestamps: u32,
    /// What memory is: bits of fastmq_memory; 0: the allocator's, taken when it is needed.
    pub memory: u32,
}

/// Options of a queue: set `struct_size`; 0 in the others is the default.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_queue_options {
    /// sizeof(fastmq_queue_options).
    pub struct_size: u32,
    /// What happens when a lane is full: fastmq_policy.
    pub policy: u32,
    /// Bytes per lane at most; 0: the client's default. Not used by FASTMQ_POLICY_LATEST.
    pub capacity: u64,
    /// How the reader waits: fastmq_wait; 0: the client's default.
    pub wait: u32,
    /// 0, reserved.
    pub reserved: u32,
}

/// Options of a subscription: set `struct_size`; 0 in the others is the default.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_subscribe_options {
    /// sizeof(fastmq_subscribe_options).
    pub struct_size: u32,
    /// How messages arrive: fastmq_delivery.
    pub delivery: u32,
    /// Members of a group share its messages; empty: no group.
    pub group: fastmq_bytes,
    /// Where messages wait, for FASTMQ_DELIVERY_QUEUE; NULL: a queue of its own.
    pub queue: *mut fastmq_queue,
    /// Comes back in fastmq_message.tag.
    pub tag: u64,
    /// What is called, for the other deliveries.
    pub on_message: fastmq_on_message,
    /// Passed to on_message, which may run on any thread.
    pub context: *mut c_void,
    /// What happens when a queue of its own, or that of its callback, is full: fastmq_policy.
    pub policy: u32,
    /// FASTMQ_SUBSCRIBE_... bits.
    pub flags: u32,
    /// How the members of the group share its messages, the same for all: fastmq_group_mode.
    pub group_mode: u32,
    /// This member's part of the group's messages beside that of the others, at most 1,000; 0: 1.
    pub weight: u32,
}

/// Options of a requester: set `struct_size`; 0 in the others is the default.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_requester_options {
    /// sizeof(fastmq_requester_options).
    pub struct_size: u32,
    /// Requests in flight at most; 0: 1,024; at most 65,535.
    pub in_flight_max: u32,
    /// The subject of every request; empty: each submit names its own.
    pub subject: fastmq_bytes,
    /// How receive waits: fastmq_wait; 0: the client's default.
    pub wait: u32,
    /// 0, reserved.
    pub reserved: u32,
}

/// How the streams of a request get more credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_credit {
    /// Each reply that is received grants another one.
    FASTMQ_CREDIT_AUTOMATIC = 0,
    /// Only fastmq_requester_grant does.
    FASTMQ_CREDIT_MANUAL = 1,
}

/// What a request wants to which several answers may come: set `struct_size`; 0 in the others is
/// the default.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_many_options {
    /// sizeof(fastmq_many_options).
    pub struct_size: u32,
    /// How many responders' answers; FASTMQ_ANSWERS_ALL: of all that get the request; 0: 1.
    pub answers_max: u32,
    /// Replies that a responder may stream before the first is received; at most 1,048,576; 0: no
    /// reply streams.
    pub credit: u32,
    /// How streams get more credit: fastmq_credit.
    pub credit_mode: u32,
    /// The longest time without a message for this request, which then ends with TIMEOUT; 0: any.
    pub gap_ns: u64,
}

const _: () = {
    assert!(size_of::<fastmq_many_options>() == 24);
    assert!(offset_of!(fastmq_many_options, answers_max) == 4);
    assert!(offset_of!(fastmq_many_options, credit) == 8);
    assert!(offset_of!(fastmq_many_options, credit_mode) == 12);
    assert!(offset_of!(fastmq_many_options, gap_ns) == 16);
    assert!(size_of::<fastmq_options>() == 64);
    assert!(offset_of!(fastmq_options, memory_max) == 8);
    assert!(offset_of!(fastmq_options, queue_capacity) == 16);
    assert!(offset_of!(fastmq_options, payload_max) == 24);
    assert!(offset_of!(fastmq_options, wait) == 32);
    assert!(offset_of!(fastmq_options, threads_max) == 36);
    assert!(offset_of!(fastmq_options, close_timeout_ns) == 40);
    assert!(offset_of!(fastmq_options, threads) == 48);
    assert!(offset_of!(fastmq_options, timestamps) == 56);
    assert!(offset_of!(fastmq_options, memory) == 60);
    assert!(size_of::<fastmq_queue_options>() == 24);
    assert!(offset_of!(fastmq_queue_options, policy) == 4);
    assert!(offset_of!(fastmq_queue_options, capacity) == 8);
    assert!(offset_of!(fastmq_queue_options, wait) == 16);
    assert!(offset_of!(fastmq_queue_options, reserved) == 20);
    assert!(size_of::<fastmq_subscribe_options>() == 72);
    assert!(offset_of!(fastmq_subscribe_options, delivery) == 4);
    assert!(offset_of!(fastmq_subscribe_options, group) == 8);
    assert!(offset_of!(fastmq_subscribe_options, queue) == 24);
    assert!(offset_of!(fastmq_subscribe_options, tag) == 32);
    assert!(offset_of!(fastmq_subscribe_options, on_message) == 40);
    assert!(offset_of!(fastmq_subscribe_options, context) == 48);
    assert!(offset_of!(fastmq_subscribe_options, policy) == 56);
    assert!(offset_of!(fastmq_subscribe_options, flags) == 60);
    assert!(offset_of!(fastmq_subscribe_options, group_mode) == 64);
    assert!(offset_of!(fastmq_subscribe_options, weight) == 68);
    assert!(size_of::<fastmq_requester_options>() == 32);
    assert!(offset_of!(fastmq_requester_options, in_flight_max) == 4);
    assert!(offset_of!(fastmq_requester_options, subject) == 8);
    assert!(offset_of!(fastmq_requester_options, wait) == 24);
    assert!(offset_of!(fastmq_requester_options, reserved) == 28);
};

// SAFETY: integers and a pointer in C order without padding, zeros are a value, size first.
unsafe impl Plain for fastmq_options {
    const NAME: &'static str = "options";
    const FIRST_SIZE: usize = 48;
}

// SAFETY: as above.
unsafe impl Plain for fastmq_queue_options {
    const NAME: &'static str = "options";
    const FIRST_SIZE: usize = 24;
}

// SAFETY: as above, with pointers and an optional function, for which zeros are NULL.
unsafe impl Plain for fastmq_subscribe_options {
    const NAME: &'static str = "options";
    const FIRST_SIZE: usize = 56;
}

// SAFETY: as above.
unsafe impl Plain for fastmq_requester_options {
    const NAME: &'static str = "options";
    const FIRST_SIZE: usize = 32;
}

// SAFETY: as above, without pointers.
unsafe impl Plain for fastmq_many_options {
    const NAME: &'static str = "options";
    const FIRST_SIZE: usize = 24;
}

/// The value of an enum, or INVALID with its name and number.
pub(crate) fn one_of<T: Copy>(name: &'static str, value: u32, values: &[T]) -> Result<T> {
    match values.get(value as usize) {
        Some(found) => Ok(*found),
        None => {
            let arguments = format_args!("{name} is {value}; between 0 and {}", values.len() - 1);
            Err(Error::with(
                &Fault(Status::Invalid, "an enum has an unknown value"),
                arguments,
            ))
        }
    }
}

const PROFILES: [Profile; 4] = [
    Profile::Balanced,
    Profile::Latency,
    Profile::LowPower,
    Profile::BusyPoll,
];
const POLICIES: [Policy; 4] = [
    Policy::Backpressure,
    Policy::DropOldest,
    Policy::DropNewest,
    Policy::Latest,
];

/// A policy.
pub(crate) fn policy_of(value: u32) -> Result<Policy> {
    one_of("policy", value, &POLICIES)
}

const TIMESTAMPS: [Timestamps; 3] = [Timestamps::None, Timestamps::Clock, Timestamps::Tsc];

/// By the bits PREFAULT, LOCK and HUGE_PAGES.
const MEMORY: [PageOptions; 8] = {
    let mut all = [PageOptions {
        prefault: false,
        lock: false,
        huge: false,
    }; 8];
    let mut bits = 0;
    while bits < all.len() {
        all[bits].prefault = bits & 1 != 0;
        all[bits].lock = bits & 2 != 0;
        all[bits].huge = bits & 4 != 0;
        bits += 1;
    }
    all
};

/// A wait profile; 0: the client's.
pub(crate) fn wait_of(value: u32) -> Result<Option<Profile>> {
    let profile = one_of("wait", value, &PROFILES)?;
    Ok((value != 0).then_some(profile))
}

impl fastmq_options {
    /// # Safety
    /// What `threads` points to is readable, and so is the name in it.
    pub(crate) unsafe fn convert(&self) -> Result<Options> {
        check_zero("options", &[("flags", self.flags)])?;
        let mut options = Options {
            memory_max: self.memory_max,
            ..Options::default()
        };
        options.wait = one_of("wait", self.wait, &PROFILES)?;
        options.timestamps = one_of("timestamps", self.timestamps, &TIMESTAMPS)?;
        options.memory = one_of("memory", self.memory, &MEMORY)?;
        if self.queue_capacity != 0 {
            options.queue_capacity = self.queue_capacity;
        }
        if self.payload_max != 0 {
            options.payload_max = self.payload_max;
        }
        if self.threads_max != 0 {
            options.threads_max = self.threads_max;
        }
        if self.close_timeout_ns != 0 {
            options.close_timeout_ns = self.close_timeout_ns;
        }
        // SAFETY: by the contract.
        let threads = unsafe { read_or_default(self.threads) }?;
        // SAFETY: by the contract.
        options.threads = unsafe { threads.convert() }?;
        Ok(options)
    }
}

impl fastmq_many_options {
    pub(crate) fn convert(&self) -> Result<ManyOptions> {
        Ok(ManyOptions {
            answers_max: self.answers_max,
            credit: self.credit,
            is_manual: one_of("credit_mode", self.credit_mode, &[false, true])?,
            gap_ns: self.gap_ns,
        })
    }
}

impl fastmq_queue_options {
    pub(crate) fn convert(&self) -> Result<QueueOptions> {
        check_zero("options", &[("reserved", self.reserved)])?;
        Ok(QueueOptions {
            policy: policy_of(self.policy)?,
            capacity: self.capacity,
            wait: wait_of(self.wait)?,
        })
    }
}

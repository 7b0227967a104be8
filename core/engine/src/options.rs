//! What a broker is opened with and how it is subscribed to, the limits of that, and the checks.

use std::sync::Arc;

use fastmq_driver::pages::PageOptions;
use fastmq_driver::scheduling::ThreadOptions;
use fastmq_memory::Policy;
use fastmq_route::shares::WEIGHT_MAX;

use crate::error::{Error, Fault, Result, Status};
use crate::page_options::check_page_options;
use crate::place::Place;
use crate::subscription::{Delivery, GroupMode, Membership, OnMessage};
use crate::thread_options::check_library_threads;
use crate::timestamps::Timestamps;
use crate::wait::Profile;

/// Default capacity of a lane in bytes.
pub const QUEUE_BYTES_DEFAULT: u64 = 8 << 20;
/// Default largest payload in bytes.
pub const PAYLOAD_BYTES_DEFAULT: u64 = 1 << 20;
/// Largest payload that can be asked for.
pub const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
/// Most library threads that can be asked for.
pub const THREADS_MAX: u32 = 256;
/// Longest group name in bytes.
pub const NAME_BYTES_MAX: usize = 255;
const CLOSE_TIMEOUT_NS_DEFAULT: u64 = 5_000_000_000;

/// How a broker is opened. `Options::default()` is what most want.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Cap on the bytes of lanes, blocks and latest values; 0: none.
    pub memory_max: u64,
    /// Default capacity of a lane in bytes.
    pub queue_capacity: u64,
    /// Largest payload in bytes.
    pub payload_max: u64,
    /// Default wait profile.
    pub wait: Profile,
    /// Library threads for handlers.
    pub threads_max: u32,
    /// How long close waits for running handlers, in nanoseconds.
    pub close_timeout_ns: u64,
    /// What library threads are: their name, which a number follows, cores and scheduling.
    pub threads: ThreadOptions,
    /// Whether messages and batches carry their time.
    pub timestamps: Timestamps,
    /// Whether `memory_max` bytes are taken at once, and what that memory is.
    pub memory: PageOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_max: 0,
            queue_capacity: QUEUE_BYTES_DEFAULT,
            payload_max: PAYLOAD_BYTES_DEFAULT,
            wait: Profile::Balanced,
            threads_max: 1,
            close_timeout_ns: CLOSE_TIMEOUT_NS_DEFAULT,
            threads: ThreadOptions::default(),
            timestamps: Timestamps::None,
            memory: PageOptions::default(),
        }
    }
}

pub(crate) fn check_capacity(capacity: u64) -> Result<()> {
    if capacity > fastmq_memory::lane::LANE_BYTES_MAX {
        return Err(Error::with(
            &Fault(Status::Invalid, "capacity is at most 1 GiB"),
            format_args!("capacity is {capacity}; at most 1 GiB"),
        ));
    }
    Ok(())
}

/// How to subscribe; the default is a queue of its own and no group.
#[derive(Default)]
pub struct SubscribeOptions<'a> {
    /// Members of a group share its messages; empty: no group.
    pub group: &'a [u8],
    /// How the members of the group share them; the same for all members.
    pub group_mode: GroupMode,
    /// This member's part beside that of the others, up to 1,000; 0: 1.
    pub weight: u32,
    /// How messages reach the application.
    pub delivery: Delivery,
    /// For [`Delivery::Queue`]: where they wait; `None`: a queue of its own.
    pub queue: Option<&'a Arc<Place>>,
    /// What happens when a queue of its own is full.
    pub policy: Policy,
    /// The last value of each matching subject comes first.
    pub replay_last: bool,
    /// Comes back with each message.
    pub tag: u64,
    /// What is called, for the other deliveries.
    pub on_message: Option<Box<OnMessage>>,
}

impl<'a> SubscribeOptions<'a> {
    pub(crate) fn membership(&self) -> Membership<'a> {
        Membership {
            group: self.group,
            mode: self.group_mode,
            weight: self.weight,
        }
    }
}

pub(crate) fn check_subscribe(options: &SubscribeOptions<'_>) -> Result<()> {
    check_membership(options)?;
    let has_handler = options.on_message.is_some();
    let wrong = |sentence| Err(Error::new(sentence));
    match (options.delivery, has_handler, options.queue) {
        (Delivery::Queue, true, _) => {
            return wrong(&Fault(
                Status::Invalid,
                "on_message is set, but delivery is QUEUE; choose THREAD, DISPATCH or INLINE, or \
                 leave on_message out",
            ));
        }
        (Delivery::Queue, false, Some(place)) if place.is_closed() => {
            return wrong(&Fault(Status::Closed, "the queue is closed"));
        }
        (Delivery::Queue, false, _) => {}
        (_, false, _) => {
            return wrong(&Fault(Status::Invalid, "this delivery needs on_message"));
        }
        (_, true, Some(_)) => {
            return wrong(&Fault(
                Status::Invalid,
                "a subscription with on_message has a queue of its own; leave queue out",
            ));
        }
        (_, true, None) => {}
    }
    let owns_queue = options.queue.is_none() && options.delivery != Delivery::Inline;
    if options.policy != Policy::Backpressure && !owns_queue {
        return wrong(&Fault(
            Status::Invalid,
            "policy is for a queue of the subscription's own, and it has none; leave policy out",
        ));
    }
    if options.replay_last && options.delivery == Delivery::Inline {
        return wrong(&Fault(
            Status::Invalid,
            "replay_last needs a queue, and this delivery has none; choose QUEUE, THREAD or \
             DISPATCH",
        ));
    }
    if options.replay_last && !options.group.is_empty() {
        return wrong(&Fault(
            Status::Invalid,
            "a member of a group gets no last values: no message is for all members; leave \
             replay_last or group out",
        ));
    }
    let policy = options.queue.map_or(options.policy, |place| place.policy());
    if policy == Policy::Latest && !options.group.is_empty() {
        return wrong(&Fault(
            Status::Invalid,
            "a latest queue takes no part in a group: what its members share is not one subject's \
             newest value; choose another policy or leave group out",
        ));
    }
    Ok(())
}

fn check_group(group: &[u8]) -> Result<()> {
    if group.len() > NAME_BYTES_MAX {
        let size = group.len();
        return Err(Error::with(
            &Fault(Status::Invalid, "a group name has at most 255 bytes"),
            format_args!("the group name has {size} bytes; at most 255"),
        ));
    }
    let Ok(name) = std::str::from_utf8(group) else {
        return Err(Error::new(&Fault(
            Status::Invalid,
            "the group name is not UTF-8",
        )));
    };
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let fault = &Fault(
            Status::Invalid,
            "the group name has white space or a control character",
        );
        return Err(Error::new(fault));
    }
    Ok(())
}

fn check_membership(options: &SubscribeOptions<'_>) -> Result<()> {
    check_group(options.group)?;
    let is_keyed = options.group_mode == GroupMode::KeyShared;
    if options.group.is_empty() && (is_keyed || options.weight > 0) {
        return Err(Error::new(&Fault(
            Status::Invalid,
            "group_mode and weight are for members of a group; set group",
        )));
    }
    if options.weight > WEIGHT_MAX {
        let weight = options.weight;
        return Err(Error::with(
            &Fault(Status::Invalid, "weight is at most 1,000"),
            format_args!("weight is {weight}; at most 1,000"),
        ));
    }
    if is_keyed && options.delivery == Delivery::Inline {
        return Err(Error::new(&Fault(
            Status::Invalid,
            "a member of a key-shared group needs a queue; choose QUEUE, THREAD or DISPATCH",
        )));
    }
    // The others let messages go before they were handled.
    let policy = options.queue.map_or(options.policy, |place| place.policy());
    if is_keyed && policy != Policy::Backpressure {
        return Err(Error::new(&Fault(
            Status::Invalid,
            "a member of a key-shared group needs a queue whose policy is BACKPRESSURE",
        )));
    }
    Ok(())
}

pub(crate) fn check_options(options: &Options) -> Result<()> {
    check_capacity(options.queue_capacity)?;
    if options.payload_max == 0 || options.payload_max > PAYLOAD_BYTES_MAX {
        let max = options.payload_max;
        return Err(Error::with(
            &Fault(Status::Invalid, "payload_max is between 1 and 64 MiB"),
            format_args!("payload_max is {max}; between 1 and 64 MiB"),
        ));
    }
    if options.threads_max == 0 || options.threads_max > THREADS_MAX {
        let max = options.threads_max;
        return Err(Error::with(
            &Fault(Status::Invalid, "threads_max is between 1 and 256"),
            format_args!("threads_max is {max}; between 1 and 256"),
        ));
    }
    check_page_options(options)?;
    check_library_threads(&options.threads)
}

/// What a request wants to which several answers may come.
#[derive(Clone, Copy, Debug, Default)]
pub struct ManyOptions {
    /// How many responders' answers at most; 0: 1; [`ANSWERS_ALL`](crate::ANSWERS_ALL): of all that
    /// get the request.
    pub answers_max: u32,
    /// Replies that a responder may stream before the first is received; 0: no streams.
    pub credit: u32,
    /// Only `grant` gives more credit; else each reply that is received does.
    pub is_manual: bool,
    /// The longest time without a message for this request in nanoseconds; 0: any.
    pub gap_ns: u64,
}

//! Subscriptions: subscribe, their queue, unsubscribe.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use fastmq::{
    Delivery, Error, Fault, GroupMode, OnMessage, Result, Status, SubscribeOptions, Subscription,
    View,
};

use fastmq::border::try_box;

use crate::bytes::{Out, fastmq_bytes};
use crate::client::{client_of, fastmq_client};
use crate::error::{boundary, closing, guarded};
use crate::handle::{self, Kind, Object, Table, find, kind};
use crate::log::Context;
use crate::message::{flags_of, for_c};
use crate::options::{
    fastmq_subscribe_flag, fastmq_subscribe_options, one_of, policy_of, read_or_default,
};
use crate::queue::{fastmq_queue, lend, queue_of, take_back};
use crate::status::fastmq_status;

/// A pattern and where its messages go.
pub struct fastmq_subscription;

static SUBSCRIPTIONS: Table<SubscriptionObject> = Table::new();

/// What the handle names.
pub(crate) struct SubscriptionObject {
    pub(crate) subscription: Subscription,
    pub(crate) client: fastmq::Client,
    /// The handle of its queue: given at subscribe, or lent when first asked for; else 0.
    queue: AtomicU64,
}

impl Object for SubscriptionObject {
    const KIND: Kind = kind!(4, "subscription");
    type Beside = ();
    fn table() -> &'static Table<Self> {
        &SUBSCRIPTIONS
    }
}

const REPLAY_LAST: u32 = fastmq_subscribe_flag::FASTMQ_SUBSCRIBE_REPLAY_LAST as u32;
const DELIVERIES: [Delivery; 4] = [
    Delivery::Queue,
    Delivery::Thread,
    Delivery::Dispatch,
    Delivery::Inline,
];

const GROUP_MODES: [GroupMode; 2] = [GroupMode::Balanced, GroupMode::KeyShared];

/// The caller's function as the engine calls it.
fn handler(options: &fastmq_subscribe_options) -> Result<Option<Box<OnMessage>>> {
    let Some(on_message) = options.on_message else {
        return Ok(None);
    };
    let context = Context::new(options.context);
    let call = move |view: &View| {
        // SAFETY: the caller of `fastmq_subscribe` vouches for the function; the message lives
        // until it returns.
        unsafe { on_message(for_c(view), context.get()) };
    };
    let call: Box<OnMessage> = try_box(call).map_err(|_| Error::NO_MEMORY)?;
    Ok(Some(call))
}

/// Subscribes to every subject that matches `pattern`.
///
/// A pattern that begins with the token $SYS is told by the library who subscribes and who leaves:
/// see FASTMQ_SUBJECT_JOINED. Wildcards in the first token match no such subject.
///
/// `pattern` and `options` are borrowed until the call returns; NULL options: a queue of its own.
/// `*out` is yours until fastmq_unsubscribe. Safe from any thread, callbacks included.
/// A client of a server waits for the server's answer for at most `operation_timeout_ns`, and also
/// returns what that is, UNAVAILABLE or TIMEOUT.
/// Returns OK, INVALID, CONFLICT (the group has another group_mode), CLOSED, NO_MEMORY, NO_SPACE (a
/// key-shared group has 1,024 members), UNSUPPORTED, MISUSE.
///
/// # Safety
/// `pattern` is readable; `options` is NULL or readable for its `struct_size`; `on_message` may be
/// called with `context` until fastmq_unsubscribe has returned; `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_subscribe(
    client: *mut fastmq_client,
    pattern: fastmq_bytes,
    options: *const fastmq_subscribe_options,
    out: *mut *mut fastmq_subscription,
) -> fastmq_status {
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        let client = client_of(client)?;
        // SAFETY: by the contract.
        let pattern = unsafe { pattern.read("pattern") }?;
        // SAFETY: by the contract.
        let options = unsafe { read_or_default(options) }?;
        // SAFETY: by the contract.
        let group = unsafe { options.group.read("group") }?;
        let flags = flags_of("options", options.flags, REPLAY_LAST)?;
        let queue = match options.queue.is_null() {
            true => None,
            false => Some(queue_of(options.queue)?),
        };
        if queue
            .as_ref()
            .is_some_and(|queue| queue.client().broker().id() != client.broker().id())
        {
            let fault = &Fault(Status::Invalid, "queue belongs to another client");
            return Err(Error::new(fault));
        }
        let subscription = client.subscribe_with(
            pattern,
            SubscribeOptions {
                group,
                group_mode: one_of("group_mode", options.group_mode, &GROUP_MODES)?,
                weight: options.weight,
                delivery: one_of("delivery", options.delivery, &DELIVERIES)?,
                queue: queue.as_ref(),
                tag: options.tag,
                on_message: handler(&options)?,
                policy: policy_of(options.policy)?,
                replay_last: flags & REPLAY_LAST != 0,
            },
        )?;
        let queue = AtomicU64::new(handle::number(options.queue));
        let number = SUBSCRIPTIONS.open(SubscriptionObject {
            subscription,
            client,
            queue,
        })?;
        out.set(handle::handle(number));
        Ok(())
    })
}

/// Gives the queue that a subscription feeds.
///
/// A queue that the subscription owns is lent: fastmq_unsubscribe closes it. Safe from any thread.
/// Returns NULL on failure: INVALID, MISUSE (its messages go to a callback), NO_MEMORY in
/// fastmq_last_error.
///
/// # Safety
/// None: any value of `subscription` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_subscription_queue(
    subscription: *mut fastmq_subscription,
) -> *mut fastmq_queue {
    guarded(ptr::null_mut(), || {
        let number = handle::number(subscription);
        find::<SubscriptionObject>(number)?.look(number, |object| {
            let known = object.queue.load(Ordering::Relaxed);
            if known != 0 {
                return Ok(handle::handle(known));
            }
            let Some(queue) = object.subscription.queue() else {
                let fault = &Fault(
                    Status::Misuse,
                    "this subscription's messages go to on_message; it has no queue",
                );
                return Err(Error::new(fault));
            };
            // Under the slot's lock, so it is lent once.
            let lent = lend(queue.clone())?;
            object.queue.store(lent, Ordering::Relaxed);
            Ok(handle::handle(lent))
        })?
    })
}

/// Gives the number that a subscription's messages carry as `subscription_id`.
///
/// Safe from any thread. Returns 0 on failure: INVALID, MISUSE in fastmq_last_error.
///
/// # Safety
/// None: any value of `subscription` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_subscription_id(subscription: *mut fastmq_subscription) -> u32 {
    guarded(0, || {
        let number = handle::number(subscription);
        find::<SubscriptionObject>(number)?.look(number, |object| object.subscription.id())
    })
}

/// Ends a subscription, and its queue if it owns that.
///
/// Takes NULL. When it returns, its callback does not run and will not, unless that callback is
/// what calls; it waits for at most `close_timeout_ns`, and so do two callbacks on two threads that
/// end each other's subscriptions. Safe from any thread. In a forked child it ends the handle only.
///
/// # Safety
/// None: any value of `subscription` is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_unsubscribe(subscription: *mut fastmq_subscription) {
    if subscription.is_null() {
        return;
    }
    closing(|| {
        let taken = handle::take::<SubscriptionObject>(handle::number(subscription))?;
        if let Some(object) = taken {
            object.subscription.unsubscribe();
            let lent = object.queue.load(Ordering::Relaxed);
            if object.subscription.owns_queue() && lent != 0 {
                take_back(lent);
            }
        }
        Ok(())
    });
}

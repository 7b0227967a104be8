//! Clients of a server in another process: how they connect, and what they are told.

use std::ffi::{c_char, c_void};
use std::mem::{offset_of, size_of};
use std::sync::Arc;

use fastmq::border::try_arc;
use fastmq::{Client, ConnectOptions, Error, Event, OnEvent, Result};

use crate::bytes::{Out, copy_of, fastmq_bytes, read_c_text, text_of};
use crate::client::{fastmq_client, open_handle};
use crate::error::{boundary, quiet_panics};
use crate::handle;
use crate::log::Context;
use crate::message::flags_of;
use crate::options::{Plain, fastmq_options, read_or_default};
use crate::status::fastmq_status;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_event_kind {
    /// There is a connection, to `server`; the subscriptions were asked for again, `count` of them.
    /// `flags` say whether it is the first one.
    FASTMQ_EVENT_CONNECTED = 1,
    /// The connection broke or could not be made: `status` and `detail` say why. `count` accepted
    /// publishes had not left, and are lost. The client tries again by itself, until it is closed:
    /// then the last event is this one, with CLOSED.
    FASTMQ_EVENT_DISCONNECTED = 2,
    /// The server has refused a publish to `subject`: `status`, `detail`.
    FASTMQ_EVENT_REFUSED = 3,
    /// The server refuses the subscription `subscription_id`, which it had taken on an earlier
    /// connection: `status`, `detail`.
    FASTMQ_EVENT_UNSUBSCRIBED = 4,
    /// `count` messages of `subscription_id` were lost at the server; its next message counts them
    /// in lost_before.
    FASTMQ_EVENT_GAP = 5,
    /// The server has to keep `count` bytes for this client, which reads too slowly.
    FASTMQ_EVENT_SLOW = 6,
    /// The server will close; the client goes to another one, or comes back.
    FASTMQ_EVENT_DRAINING = 7,
    /// The server will refuse something soon: `detail`.
    FASTMQ_EVENT_LIMIT = 8,
}

/// Bits of `fastmq_event.flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_event_flag {
    /// CONNECTED, and not for the first time: what was published elsewhere since the last
    /// connection broke has not come.
    FASTMQ_EVENT_AGAIN = 1,
    /// CONNECTED to a server that is not the one of the last connection, or was restarted.
    FASTMQ_EVENT_OTHER_INSTANCE = 2,
}

/// What has happened to a client's connection; 0 and empty where the kind names no field. Like
/// fastmq_message it never grows: new facts take reserved fields.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_event {
    /// fastmq_event_kind. Ignore one that you do not know.
    pub kind: u32,
    /// FASTMQ_EVENT_... bits.
    pub flags: u32,
    /// Why: fastmq_status.
    pub status: u32,
    /// Which subscription.
    pub subscription_id: u32,
    /// How many: see the kind.
    pub count: u64,
    /// What the server is called.
    pub server: fastmq_bytes,
    /// The subject of a message.
    pub subject: fastmq_bytes,
    /// Why, as a sentence.
    pub detail: fastmq_bytes,
    /// 0, reserved.
    pub reserved: [u64; 2],
}

/// Is told what happens to a connection. The event and its bytes are readable until it returns.
///
/// It runs on the thread that drives the connection, one event at a time: the client's own, or one
/// of yours inside a call that waits. Nothing is read or sent meanwhile: it must not block. It may
/// publish, reply and close the client, which is told once more then; a request or a subscription
/// made there is MISUSE. No C++ exception and no longjmp may leave it: the process would end.
pub type fastmq_on_event =
    Option<unsafe extern "C" fn(event: *const fastmq_event, context: *mut c_void)>;

/// Bits of `fastmq_connect_options.flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_connect_flag {
    /// fastmq_connect does not wait for a connection, whatever connect_timeout_ns is, and does not
    /// fail for want of one. Publishes wait for it, up to store_max.
    FASTMQ_CONNECT_LATER = 1,
    /// fastmq_subscribe does not wait for the server's answer, whatever operation_timeout_ns is; a
    /// refusal is FASTMQ_EVENT_UNSUBSCRIBED.
    FASTMQ_CONNECT_UNCONFIRMED = 2,
    /// The client has no thread for its connection: it sends and receives inside its calls that
    /// wait, ask, receive or dispatch, on_event included, and not between them. For a loop of your
    /// own, which waits for fastmq_fd and then calls fastmq_dispatch. A publish makes that readable
    /// and goes with the next such call, or by itself where 64 KiB wait.
    FASTMQ_CONNECT_POLLED = 4,
}

/// How a client connects: set `struct_size`; 0 in the others is the default.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct fastmq_connect_options {
    /// sizeof(fastmq_connect_options).
    pub struct_size: u32,
    /// FASTMQ_CONNECT_... bits.
    pub flags: u32,
    /// What the client is called, at most 255 bytes; copied.
    pub name: fastmq_bytes,
    /// The secret that the server asks for, at most 4,096 bytes; copied.
    pub token: fastmq_bytes,
    /// How long fastmq_connect waits for a connection; 0: 5 s.
    pub connect_timeout_ns: u64,
    /// How long fastmq_subscribe waits for the server's answer; 0: 5 s.
    pub operation_timeout_ns: u64,
    /// Bytes of publishes that wait while there is no connection, beyond which they get AGAIN; 0:
    /// 1 MiB; 1: none wait.
    pub store_max: u64,
    /// The shortest pause before the servers are tried again; 0: 20 ms.
    pub backoff_min_ns: u64,
    /// The longest; 0: 5 s, or the shortest if that is longer.
    pub backoff_max_ns: u64,
    /// Is told what happens to the connection; NULL: nobody.
    pub on_event: fastmq_on_event,
    /// Passed to on_event.
    pub context: *mut c_void,
    /// As of a client of a broker in this process, borrowed; its `threads` are also what the
    /// client's own thread is; NULL: the defaults.
    pub client: *const fastmq_options,
}

const _: () = {
    assert!(size_of::<fastmq_event>() == 88);
    assert!(offset_of!(fastmq_event, flags) == 4);
    assert!(offset_of!(fastmq_event, status) == 8);
    assert!(offset_of!(fastmq_event, subscription_id) == 12);
    assert!(offset_of!(fastmq_event, count) == 16);
    assert!(offset_of!(fastmq_event, server) == 24);
    assert!(offset_of!(fastmq_event, subject) == 40);
    assert!(offset_of!(fastmq_event, detail) == 56);
    assert!(offset_of!(fastmq_event, reserved) == 72);
    assert!(size_of::<fastmq_connect_options>() == 104);
    assert!(offset_of!(fastmq_connect_options, flags) == 4);
    assert!(offset_of!(fastmq_connect_options, name) == 8);
    assert!(offset_of!(fastmq_connect_options, token) == 24);
    assert!(offset_of!(fastmq_connect_options, connect_timeout_ns) == 40);
    assert!(offset_of!(fastmq_connect_options, operation_timeout_ns) == 48);
    assert!(offset_of!(fastmq_connect_options, store_max) == 56);
    assert!(offset_of!(fastmq_connect_options, backoff_min_ns) == 64);
    assert!(offset_of!(fastmq_connect_options, backoff_max_ns) == 72);
    assert!(offset_of!(fastmq_connect_options, on_event) == 80);
    assert!(offset_of!(fastmq_connect_options, context) == 88);
    assert!(offset_of!(fastmq_connect_options, client) == 96);
};

// SAFETY: integers, pointers and an optional function in C order without padding, zeros are a
// value, size first.
unsafe impl Plain for fastmq_connect_options {
    const NAME: &'static str = "connect options";
    const FIRST_SIZE: usize = 104;
}

const LATER: u32 = fastmq_connect_flag::FASTMQ_CONNECT_LATER as u32;
const UNCONFIRMED: u32 = fastmq_connect_flag::FASTMQ_CONNECT_UNCONFIRMED as u32;
const POLLED: u32 = fastmq_connect_flag::FASTMQ_CONNECT_POLLED as u32;
const AGAIN: u32 = fastmq_event_flag::FASTMQ_EVENT_AGAIN as u32;
const OTHER_INSTANCE: u32 = fastmq_event_flag::FASTMQ_EVENT_OTHER_INSTANCE as u32;

/// An event as C sees it: a view of the engine's.
fn for_c(event: &Event<'_>) -> Option<fastmq_event> {
    use fastmq_event_kind as kind;
    let of = |kind: kind| fastmq_event {
        kind: kind as u32,
        flags: 0,
        status: 0,
        subscription_id: 0,
        count: 0,
        server: fastmq_bytes::EMPTY,
        subject: fastmq_bytes::EMPTY,
        detail: fastmq_bytes::EMPTY,
        reserved: [0; 2],
    };
    Some(match *event {
        Event::Connected {
            server,
            is_again,
            is_other_instance,
            subscriptions,
        } => fastmq_event {
            flags: u32::from(is_again) * AGAIN + u32::from(is_other_instance) * OTHER_INSTANCE,
            count: subscriptions as u64,
            server: fastmq_bytes::of(server.as_bytes()),
            ..of(kind::FASTMQ_EVENT_CONNECTED)
        },
        Event::Disconnected {
            status,
            why,
            unsent,
        } => fastmq_event {
            status: status as u32,
            count: unsent,
            detail: fastmq_bytes::of(why.as_bytes()),
            ..of(kind::FASTMQ_EVENT_DISCONNECTED)
        },
        Event::Refused {
            subject,
            status,
            why,
        } => fastmq_event {
            status: status as u32,
            subject: fastmq_bytes::of(subject),
            detail: fastmq_bytes::of(why.as_bytes()),
            ..of(kind::FASTMQ_EVENT_REFUSED)
        },
        Event::Unsubscribed {
            subscription,
            status,
            why,
        } => fastmq_event {
            status: status as u32,
            subscription_id: subscription,
            detail: fastmq_bytes::of(why.as_bytes()),
            ..of(kind::FASTMQ_EVENT_UNSUBSCRIBED)
        },
        Event::Gap {
            subscription,
            messages,
        } => fastmq_event {
            subscription_id: subscription,
            count: messages,
            ..of(kind::FASTMQ_EVENT_GAP)
        },
        Event::Slow { bytes } => fastmq_event {
            count: bytes,
            ..of(kind::FASTMQ_EVENT_SLOW)
        },
        Event::Draining => of(kind::FASTMQ_EVENT_DRAINING),
        Event::Limit { why } => fastmq_event {
            detail: fastmq_bytes::of(why.as_bytes()),
            ..of(kind::FASTMQ_EVENT_LIMIT)
        },
        // The enum of the engine may grow; whoever adds to it adds here.
        _ => return None,
    })
}

/// The caller's function as the engine calls it.
fn listener(options: &fastmq_connect_options) -> Result<Option<Arc<OnEvent>>> {
    let Some(on_event) = options.on_event else {
        return Ok(None);
    };
    let context = Context::new(options.context);
    let call = move |event: &Event<'_>| {
        if let Some(event) = for_c(event) {
            // SAFETY: the caller of `fastmq_connect` vouches for the function; the event and what
            // it points to live until it returns.
            unsafe { on_event(&raw const event, context.get()) };
        }
    };
    let call: Arc<OnEvent> = try_arc(call).map_err(|_| Error::NO_MEMORY)?;
    Ok(Some(call))
}

impl fastmq_connect_options {
    /// # Safety
    /// `name`, `token`, and `client` with what that points to, are readable.
    unsafe fn convert(&self) -> Result<ConnectOptions> {
        let flags = flags_of("connect options", self.flags, LATER | UNCONFIRMED | POLLED)?;
        // SAFETY: by the contract.
        let client = unsafe { read_or_default(self.client) }?;
        let mut options = ConnectOptions {
            // SAFETY: by the contract.
            broker: unsafe { client.convert() }?,
            // SAFETY: by the contract.
            name: text_of(unsafe { self.name.read("name") }?, "name")?,
            // SAFETY: by the contract.
            token: copy_of(unsafe { self.token.read("token") }?)?,
            on_event: listener(self)?,
            polled: flags & POLLED != 0,
            ..ConnectOptions::default()
        };
        let set = |field: &mut u64, value: u64| {
            if value != 0 {
                *field = value;
            }
        };
        set(&mut options.connect_timeout_ns, self.connect_timeout_ns);
        set(&mut options.operation_timeout_ns, self.operation_timeout_ns);
        set(&mut options.store_max, self.store_max);
        set(&mut options.backoff_min_ns, self.backoff_min_ns);
        options.backoff_max_ns = options.backoff_max_ns.max(options.backoff_min_ns);
        set(&mut options.backoff_max_ns, self.backoff_max_ns);
        if flags & LATER != 0 {
            options.connect_timeout_ns = 0;
        }
        if flags & UNCONFIRMED != 0 {
            options.operation_timeout_ns = 0;
        }
        Ok(options)
    }
}

/// Connects to the first of the servers that answers, and opens a client of it.
///
/// `urls` ends with a zero: `unix:/path`, `shm:NAME` (shared memory with a server that listens so)
/// or `tcp://host:port`, with commas between several. What the client can do is what that of
/// fastmq_open can, with the same calls, over a thread of its own (or none: FASTMQ_CONNECT_POLLED),
/// which connects again whenever the connection breaks: then it subscribes again, and publishes
/// wait for the next connection, up to `store_max`.
///
/// What differs: a publish that OK accepted may be refused by the server, or lost with the
/// connection, and on_event is told. A subscribe waits for the server's answer, and may also return
/// what that is, UNAVAILABLE or TIMEOUT. A request or its answer may be DISCONNECTED (it was open
/// when the connection broke: it may or may not have been handled) or UNAVAILABLE (there is none).
/// A callback with FASTMQ_DELIVERY_INLINE runs where on_event does, and must not ask or subscribe
/// there (MISUSE). UNSUPPORTED: keeping last values, fastmq_listen. All that differs is in
/// docs/reference/processes.md.
///
/// `urls` and `options` are borrowed until the call returns; NULL options: the defaults. `*out` is
/// yours until fastmq_close, which sends what was accepted and waits for a running on_event for at
/// most `close_timeout_ns`; afterwards, and after a failure, on_event is not called. Safe from any
/// thread; blocks for at most `connect_timeout_ns`.
/// Returns OK, INVALID (a URL or an option; the sentence says which), UNAVAILABLE, DENIED, or what
/// else the last server said once all were tried; TIMEOUT, UNSUPPORTED (no thread can be started),
/// IO, NO_MEMORY, MISUSE.
///
/// # Safety
/// `urls` ends with a zero; `options` is NULL or readable for its `struct_size`, and so is what it
/// points to; `on_event` may be called with `context` until fastmq_close has returned; `out` is
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_connect(
    urls: *const c_char,
    options: *const fastmq_connect_options,
    out: *mut *mut fastmq_client,
) -> fastmq_status {
    quiet_panics();
    boundary(|| {
        // SAFETY: by the contract.
        let out = unsafe { Out::new(out, handle::handle(0), "out") }?;
        // SAFETY: by the contract.
        let urls = unsafe { read_c_text(urls, "urls") }?;
        // SAFETY: by the contract.
        let options = unsafe { read_or_default(options) }?;
        // SAFETY: by the contract.
        let options = unsafe { options.convert() }?;
        out.set(open_handle(Client::connect(urls, options)?)?);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastmq::Status;

    fn bytes_of(view: fastmq_bytes) -> &'static [u8] {
        // SAFETY: the events of the tests have static texts.
        unsafe { view.read("view") }.unwrap()
    }

    #[test]
    fn each_event_has_the_fields_of_its_kind() {
        let seen = for_c(&Event::Connected {
            server: "hub",
            is_again: true,
            is_other_instance: true,
            subscriptions: 3,
        });
        let seen = seen.unwrap();
        assert_eq!((seen.kind, seen.flags, seen.count), (1, 3, 3));
        assert_eq!(bytes_of(seen.server), b"hub");
        assert_eq!((seen.subject.size, seen.detail.size), (0, 0));

        let (status, why) = (Status::Denied, "why");
        let seen = for_c(&Event::Disconnected {
            status,
            why,
            unsent: 9,
        });
        let seen = seen.unwrap();
        assert_eq!((seen.kind, seen.status, seen.count), (2, 40, 9));
        assert_eq!(bytes_of(seen.detail), b"why");

        let subject = b"a.b";
        let seen = for_c(&Event::Refused {
            subject,
            status,
            why,
        });
        let seen = seen.unwrap();
        assert_eq!((seen.kind, seen.status), (3, 40));
        assert_eq!(
            (bytes_of(seen.subject), bytes_of(seen.detail)),
            (&subject[..], &b"why"[..])
        );

        let seen = for_c(&Event::Unsubscribed {
            subscription: 7,
            status,
            why,
        });
        let seen = seen.unwrap();
        assert_eq!((seen.kind, seen.status, seen.subscription_id), (4, 40, 7));
        assert_eq!(bytes_of(seen.detail), b"why");

        let seen = for_c(&Event::Gap {
            subscription: 7,
            messages: 5,
        });
        let seen = seen.unwrap();
        assert_eq!((seen.kind, seen.subscription_id, seen.count), (5, 7, 5));
        let seen = for_c(&Event::Slow { bytes: 8 }).unwrap();
        assert_eq!((seen.kind, seen.count), (6, 8));
        assert_eq!(for_c(&Event::Draining).unwrap().kind, 7);
        let seen = for_c(&Event::Limit { why }).unwrap();
        assert_eq!((seen.kind, seen.detail.size), (8, why.len()));
    }
}

//! Presence: who subscribes and who leaves, told as messages on reserved subjects.
//!
//! A *listener* is a subscription whose pattern begins with the token `$SYS`. Listeners stand in a
//! list of their own, beside the interest table, and are told by whoever subscribes or leaves.
//! The lock of that list is held while the table changes and while the listeners' queues get the
//! record: so all of them see the changes in the order in which they were made, and who begins to
//! listen finds in the table what was told before. Readers are woken once it is released, since
//! that may call the user's own waker. No publish comes here.
//!
//! Nobody waits for a listener: what its queue has no room for is dropped, counted and told.
//!
//! Not here: clients that connect (`connections`); there is no other subject that begins with
//! `$SYS`.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use fastmq_memory::record::flag;
use fastmq_memory::sync::{Mutex, lock};
use fastmq_memory::{Draft, KeptMessage, Kind, Policy, Pushed};
use fastmq_route::{SUBJECT_BYTES_MAX, SUBJECT_TOKENS_MAX, Text, matches};

use crate::broker::Broker;
use crate::connections::{self, SUBJECT_CONNECTED};
use crate::error::{Error, Fault, Result, Status};
use crate::options::SubscribeOptions;
use crate::place::Place;
use crate::server::SUBJECT_STATS;
use crate::subscription::{Delivery, Entry, Interested};

/// Who subscribes: on this subject and the pattern behind it, whose wildcards stand in parentheses.
///
/// The payload is the pattern as given, the key the group, the header [`HEADER_SUBSCRIPTION`] has
/// the id. A pattern that would make it more than a subject is told on this subject alone.
pub const SUBJECT_JOINED: &str = "$SYS.JOINED";
/// Who leaves, likewise.
pub const SUBJECT_LEFT: &str = "$SYS.LEFT";
/// The header that has the subscription's id, in decimal.
pub const HEADER_SUBSCRIPTION: &str = "Subscription";

const RESERVED: &[u8] = b"$SYS";
/// A number of twenty digits and a short text, with their sizes and names.
const HEADERS_BYTES: usize = 192;

/// Whether the first token of a subject or a pattern is reserved.
#[inline]
fn is_reserved(text: &[u8]) -> bool {
    let rest = text.strip_prefix(RESERVED);
    rest.is_some_and(|rest| matches!(rest, [] | [b'.', ..]))
}

/// Checks a subject that a user publishes to, or asks.
#[inline]
pub(crate) fn check_subject(subject: &[u8]) -> Result<()> {
    fastmq_route::check_subject(subject)?;
    check_not_reserved(subject)
}

/// Checks the same of a subject that is one.
#[inline]
pub(crate) fn check_not_reserved(subject: &[u8]) -> Result<()> {
    match is_reserved(subject) {
        true => Err(reserved()),
        false => Ok(()),
    }
}

/// Checks what a client of a server asks, which answers what it is asked of itself.
#[inline]
pub(crate) fn check_remote_subject(subject: &[u8]) -> Result<()> {
    match subject == SUBJECT_STATS.as_bytes() {
        true => Ok(()),
        false => check_subject(subject),
    }
}

#[cold]
fn reserved() -> Error {
    Error::new(&Fault(
        Status::Denied,
        "subjects that begin with $SYS are the library's: subscribe to them, publish to others",
    ))
}

/// Checks what a listener asks for.
pub(crate) fn check_listener(pattern: &[u8], options: &SubscribeOptions<'_>) -> Result<()> {
    if !is_reserved(pattern) {
        return Ok(());
    }
    let policy = options.queue.map_or(options.policy, |place| place.policy());
    let wrong = |sentence| Err(Error::new(sentence));
    if !options.group.is_empty() {
        return wrong(&Fault(
            Status::Invalid,
            "a subscription to $SYS takes no part in a group: each is told of everybody; leave \
             group out",
        ));
    }
    if options.delivery == Delivery::Inline {
        return wrong(&Fault(
            Status::Invalid,
            "a subscription to $SYS needs a queue: its handler would run inside the calls of those \
             who subscribe; choose QUEUE, THREAD or DISPATCH",
        ));
    }
    if policy == Policy::Latest {
        return wrong(&Fault(
            Status::Invalid,
            "a subscription to $SYS needs a queue that keeps each message: several may join with \
             one pattern; choose another policy than LATEST",
        ));
    }
    Ok(())
}

/// The listeners of a broker.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    pub(crate) listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// By their serials.
    list: Vec<Listener>,
    next: u64,
    /// Clients of servers of this broker, by server and number, and their names.
    pub(crate) connections: HashMap<(u64, u64), Box<[u8]>>,
}

#[derive(Debug)]
struct Listener {
    serial: u64,
    id: u32,
    pattern: Text,
    place: Arc<Place>,
    /// Its reader has to be woken.
    is_due: bool,
}

impl Listeners {
    fn remove(&mut self, id: u32) -> Option<Listener> {
        let at = self.list.iter().position(|listener| listener.id == id)?;
        let listener = self.list.remove(at);
        if self.list.is_empty() {
            self.list = Vec::new();
        }
        Some(listener)
    }
}

impl Presence {
    /// Wakes the readers that have something new. One by one, without the lock: that may call the
    /// user's own waker, which may subscribe.
    pub(crate) fn wake(&self, broker: &Broker) {
        let mut after = 0;
        while let Some(place) = self.next_due(&mut after) {
            place.notice_added(broker);
        }
    }

    fn next_due(&self, after: &mut u64) -> Option<Arc<Place>> {
        let mut listeners = lock(&self.listeners);
        let list = &mut listeners.list;
        let from = list.partition_point(|listener| listener.serial <= *after);
        let due = list[from..].iter_mut().find(|listener| listener.is_due)?;
        due.is_due = false;
        *after = due.serial;
        Some(due.place.clone())
    }
}

impl Broker {
    /// Enters a subscription into the table, and tells the listeners; true: they have to be woken.
    /// A listener is told first, if it wants to be, of all who are there.
    pub(crate) fn insert(
        &self,
        id: u32,
        pattern: &Text,
        group: &[u8],
        interested: Interested,
        replay: bool,
    ) -> Result<bool> {
        let text = pattern.as_bytes();
        if self.uplink.is_some() {
            // The server tells of its own, and of this one.
            let inserted = self.interest.insert(id, text, interested);
            return inserted.map(|()| false).map_err(|_| Error::NO_MEMORY);
        }
        let mut listeners = lock(&self.presence.listeners);
        if let Some(place) = interested.target().queue()
            && is_reserved(text)
        {
            let place = place.clone();
            let reserved = listeners.list.try_reserve(1);
            reserved.map_err(|_| Error::NO_MEMORY)?;
            if replay {
                self.replay_present(&listeners, id, text, &place)?;
            }
            if self.interest.insert(id, text, interested).is_err() {
                place.lanes.forget_replays(id);
                return Err(Error::NO_MEMORY);
            }
            listeners.next += 1;
            let listener = Listener {
                serial: listeners.next,
                id,
                pattern: pattern.clone(),
                place,
                is_due: replay,
            };
            listeners.list.push(listener);
            return Ok(replay);
        }
        let inserted = self.interest.insert(id, text, interested);
        inserted.map_err(|_| Error::NO_MEMORY)?;
        let notice = Notice::of(SUBJECT_JOINED, id, text, group);
        Ok(self.tell(&mut listeners, &notice))
    }

    /// Takes a subscription out of the table, and tells the listeners; true: they have to be woken.
    pub(crate) fn remove(&self, pattern: &[u8], id: u32) -> (Option<Entry>, bool) {
        let mut listeners = lock(&self.presence.listeners);
        let Some(entry) = self.interest.remove(pattern, id) else {
            return (None, false);
        };
        if self.uplink.is_some() {
            return (Some(entry), false);
        }
        if !is_reserved(pattern) {
            let notice = Notice::of(SUBJECT_LEFT, id, pattern, entry.value().group());
            let is_told = self.tell(&mut listeners, &notice);
            return (Some(entry), is_told);
        }
        let listener = listeners.remove(id);
        drop(listeners);
        // Whoever has told it finds it no more.
        if let Some(listener) = listener.filter(|listener| listener.is_due) {
            listener.place.notice_added(self);
        }
        (Some(entry), false)
    }

    /// Tells of a change; true if somebody has to be woken.
    pub(crate) fn tell(&self, listeners: &mut Listeners, notice: &Notice<'_>) -> bool {
        if listeners.list.is_empty() || !self.is_open() {
            return false;
        }
        let draft = notice.draft(self);
        let mut is_told = false;
        for listener in &mut listeners.list {
            if !matches(listener.pattern.as_bytes(), draft.subject) {
                continue;
            }
            match listener.place.lanes.post(&draft, listener.id) {
                Ok(Pushed::Written) => {
                    listener.is_due = true;
                    is_told = true;
                }
                Ok(Pushed::Dropped) => self.count_dropped(listener.id),
                // It is closing, and with it the listener.
                Err(_) => {}
            }
        }
        is_told
    }

    /// Hands to a new listener who is there, before all that comes later.
    fn replay_present(
        &self,
        listeners: &Listeners,
        id: u32,
        pattern: &[u8],
        place: &Arc<Place>,
    ) -> Result<()> {
        let mut rest = 0;
        self.each_present(listeners, pattern, |_| rest += 1);
        let promised = place.lanes.promise_replays(rest);
        promised.map_err(|_| Error::NO_MEMORY)?;
        let mut result = Ok(());
        self.each_present(listeners, pattern, |draft| {
            if result.is_err() {
                return;
            }
            match KeptMessage::new(draft, 0, &self.budget) {
                Ok(kept) => {
                    place.lanes.add_replay(id, kept);
                    rest -= 1;
                }
                Err(refused) => result = Err(refused),
            }
        });
        if let Err(refused) = result {
            place.lanes.forget_replays(id);
            place.lanes.give_up_replays(rest);
            return Err(Error::from(refused));
        }
        place.await_look(&*self.driver);
        Ok(())
    }

    /// Visits who is there, as it was told when they joined, if a pattern matches that.
    fn each_present(
        &self,
        listeners: &Listeners,
        pattern: &[u8],
        mut visit: impl FnMut(&Draft<'_>),
    ) {
        for ((_, client), name) in &listeners.connections {
            let notice = connections::notice(SUBJECT_CONNECTED, *client, name);
            if matches(pattern, notice.subject.as_bytes()) {
                visit(&notice.draft(self));
            }
        }
        self.interest.for_each(|entry| {
            let text = entry.pattern().as_bytes();
            if is_reserved(text) {
                return;
            }
            let notice = Notice::of(SUBJECT_JOINED, entry.id(), text, entry.value().group());
            if matches(pattern, notice.subject.as_bytes()) {
                visit(&notice.draft(self));
            }
        });
    }

    /// Counts a message that was dropped for a subscription.
    #[cold]
    pub(crate) fn count_dropped(&self, subscription: u32) {
        if let Some(slot) = self.slots.get(subscription)
            && slot.is(subscription)
        {
            slot.count_dropped();
        }
    }
}

/// What is told of one change.
pub(crate) struct Notice<'a> {
    subject: Bytes<SUBJECT_BYTES_MAX>,
    headers: Bytes<HEADERS_BYTES>,
    /// The pattern of a subscription, or the name of a client.
    text: &'a [u8],
    group: &'a [u8],
}

impl<'a> Notice<'a> {
    /// Of a subscription.
    fn of(base: &str, id: u32, pattern: &'a [u8], group: &'a [u8]) -> Self {
        Self::new(base, (HEADER_SUBSCRIPTION, u64::from(id)), pattern, group)
    }

    pub(crate) fn new(
        base: &str,
        (name, number): (&str, u64),
        text: &'a [u8],
        group: &'a [u8],
    ) -> Self {
        let mut notice = Self {
            subject: subject_of(base.as_bytes(), text),
            headers: Bytes::default(),
            text,
            group,
        };
        let mut digits = [0; 20];
        let mut room = &mut digits[..];
        // Twenty digits are enough for 64 bits.
        let _ = write!(room, "{number}");
        let size = 20 - room.len();
        notice.add_header(name, &digits[..size]);
        notice
    }

    /// Adds a header; what is too long for it is cut.
    pub(crate) fn add_header(&mut self, name: &str, value: &[u8]) {
        let headers = &mut self.headers;
        let left = HEADERS_BYTES.saturating_sub(headers.size + 4 + name.len());
        let value = &value[..value.len().min(left)];
        headers.push(&(name.len() as u16).to_le_bytes());
        headers.push(&(value.len() as u16).to_le_bytes());
        headers.push(name.as_bytes());
        headers.push(value);
    }

    fn draft(&self, broker: &Broker) -> Draft<'_> {
        let timestamp = broker.stamp_ns();
        let stamped = if timestamp > 0 { flag::TIMESTAMP } else { 0 };
        Draft {
            kind: Kind::Message,
            flags: flag::SIZES | stamped,
            timestamp,
            subject: self.subject.as_bytes(),
            payload: self.text,
            key: self.group,
            headers: self.headers.as_bytes(),
            ..Draft::default()
        }
    }
}

/// The subject that tells of a pattern: behind `base`, its wildcards in parentheses, so that it is
/// a subject; `base` alone if that would be too long for one.
fn subject_of(base: &[u8], pattern: &[u8]) -> Bytes<SUBJECT_BYTES_MAX> {
    let mut subject = Bytes::default();
    subject.push(base);
    let base_size = subject.size;
    let mut is_fitting = true;
    let mut tokens = 2;
    for token in pattern.split(|byte| *byte == b'.') {
        tokens += 1;
        is_fitting &= subject.push(b".");
        is_fitting &= match token {
            b"*" => subject.push(b"(*)"),
            b">" => subject.push(b"(>)"),
            token => subject.push(token),
        };
    }
    is_fitting &= tokens <= SUBJECT_TOKENS_MAX;
    // What is no pattern, as the name of a client may be, is not told by the subject either.
    if !is_fitting || fastmq_route::check_subject(subject.as_bytes()).is_err() {
        subject.size = base_size;
    }
    subject
}

/// Some bytes in place: telling needs no memory.
struct Bytes<const N: usize> {
    bytes: [u8; N],
    size: usize,
}

impl<const N: usize> Default for Bytes<N> {
    fn default() -> Self {
        let (bytes, size) = ([0; N], 0);
        Self { bytes, size }
    }
}

impl<const N: usize> Bytes<N> {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    /// Adds bytes at the end; false: they do not fit.
    fn push(&mut self, bytes: &[u8]) -> bool {
        let end = self.size + bytes.len();
        let Some(room) = self.bytes.get_mut(self.size..end) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.size = end;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_subject_of(pattern: &str, expected: &str) {
        let subject = subject_of(SUBJECT_JOINED.as_bytes(), pattern.as_bytes());
        assert_eq!(std::str::from_utf8(subject.as_bytes()), Ok(expected));
        fastmq_route::check_subject(subject.as_bytes()).unwrap();
    }

    #[test]
    fn a_pattern_becomes_a_subject() {
        check_subject_of("room.1", "$SYS.JOINED.room.1");
        check_subject_of("room.*.>", "$SYS.JOINED.room.(*).(>)");
        check_subject_of("*", "$SYS.JOINED.(*)");
        check_subject_of(">", "$SYS.JOINED.(>)");
        check_subject_of("a*.x>y.>z", "$SYS.JOINED.a*.x>y.>z");
    }

    #[test]
    fn a_pattern_that_is_too_long_is_left_out() {
        // 12 bytes and two tokens stand before it.
        let longest = "x".repeat(SUBJECT_BYTES_MAX - 12);
        check_subject_of(&longest, &format!("{SUBJECT_JOINED}.{longest}"));
        check_subject_of(&format!("{longest}x"), SUBJECT_JOINED);
        let wild = "x".repeat(SUBJECT_BYTES_MAX - 16);
        check_subject_of(
            &format!("{wild}.>"),
            &format!("{SUBJECT_JOINED}.{wild}.(>)"),
        );
        check_subject_of(&format!("{wild}x.>"), SUBJECT_JOINED);
        let most = vec!["x"; SUBJECT_TOKENS_MAX - 2].join(".");
        check_subject_of(&most, &format!("{SUBJECT_JOINED}.{most}"));
        check_subject_of(&format!("{most}.x"), SUBJECT_JOINED);
    }

    #[test]
    fn reserved_is_the_first_token() {
        for text in ["$SYS", "$SYS.x", "$SYS.>", "$SYS.JOINED.a"] {
            assert!(is_reserved(text.as_bytes()), "{text}");
        }
        for text in ["$SYSx", "$SY", "a.$SYS", "$sys.x", "*", ">", "*.JOINED"] {
            assert!(!is_reserved(text.as_bytes()), "{text}");
        }
    }
}

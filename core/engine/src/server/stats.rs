//! What a server says of itself: the answer to a request to [`SUBJECT_STATS`], as JSON.
//!
//! A connection counts in numbers of its own, without atomics, and shows them once for each turn
//! that had something to do with it. So whichever shard is asked can read those of all. The list of
//! who is there changes with connections alone.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use fastmq_memory::allocation::{try_arc, try_bytes};
use fastmq_memory::sync::{Mutex, lock};
use fastmq_wire::{Message as Received, NoMemory};

use crate::broker::Broker;
use crate::error::{Error, Status};

use super::parts::Parts;
use super::session::{Fatal, Session};

/// Whom to ask for the figures of a server. Only a server answers, and only connections.
pub const SUBJECT_STATS: &str = "$SYS.SERVER.STATS";
/// Connections in an answer: those that most waits for, then those that most bytes went over.
const CLIENTS_SHOWN_MAX: usize = 64;
/// Patterns in an answer: those that most waits for, then those with the most subscriptions.
const PATTERNS_SHOWN_MAX: usize = 64;
/// Subscriptions above which no patterns are shown: looking at all takes too long.
const PATTERNS_OF_MAX: u64 = 100_000;
/// How old an answer may be.
const STATS_AGE_NS: u64 = 250_000_000;
/// Bytes of a name or pattern that are shown.
const TEXT_MAX: usize = 128;
/// Room of an answer: a byte of text is an escape of 6 at most, a number has 20 digits at most.
const ANSWER_BYTES_MAX: usize =
    4096 + (CLIENTS_SHOWN_MAX + PATTERNS_SHOWN_MAX) * (6 * TEXT_MAX + 512);

/// An answer, as JSON.
type Answer = Arc<Box<[u8]>>;

/// What everybody may know of one connection.
#[derive(Debug, Default)]
pub(super) struct Figures {
    name: OnceLock<Box<[u8]>>,
    opened_ns: u64,
    received_messages: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    waiting_bytes: AtomicU64,
    subscriptions: AtomicU64,
    /// Since when it is slow; 0: it is not.
    slow_since_ns: AtomicU64,
}

/// What a connection counts.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) received_messages: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    /// Bytes in queues, when it was last looked, while it is held up.
    pub(super) queued_bytes: u64,
    figures: Option<Arc<Figures>>,
}

/// What the shards of a server share for the figures.
#[derive(Debug, Default)]
pub struct Board {
    started_ns: u64,
    clients: Mutex<HashMap<u64, Arc<Figures>>>,
    /// When the last answer was made, and the answer.
    last: Mutex<Option<(u64, Answer)>>,
    accepted: AtomicU64,
}

impl Board {
    /// For a server that starts now.
    ///
    /// # Errors
    /// NO_MEMORY.
    pub fn new(now_ns: u64) -> Result<Arc<Self>, Error> {
        let board = try_arc(Self {
            started_ns: now_ns,
            ..Self::default()
        });
        Ok(board?)
    }

    /// Lists a connection. Without memory it is not listed.
    fn enter(&self, serial: u64, name: &[u8], now_ns: u64) -> Option<Arc<Figures>> {
        let figures = try_arc(Figures {
            opened_ns: now_ns,
            ..Figures::default()
        });
        let (figures, name) = (figures.ok()?, try_bytes(name).ok()?);
        let _ = figures.name.set(name);
        let mut clients = lock(&self.clients);
        clients.try_reserve(1).ok()?;
        clients.insert(serial, figures.clone());
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Some(figures)
    }

    fn leave(&self, serial: u64) {
        let mut clients = lock(&self.clients);
        clients.remove(&serial);
        if clients.is_empty() {
            *clients = HashMap::new();
        }
    }
}

impl Session {
    /// It was let in.
    pub(super) fn begin_figures(&mut self, parts: &Parts, name: &[u8]) {
        self.traffic.figures = parts.board.enter(self.key.serial, name, parts.now_ns);
    }

    /// It ends.
    pub(super) fn end_figures(&mut self, parts: &Parts) {
        if self.traffic.figures.take().is_some() {
            parts.board.leave(self.key.serial);
        }
    }

    /// Shows what it has counted, at the end of its part of a turn.
    #[inline]
    pub(super) fn show_figures(&self, now_ns: u64, is_slow: bool) {
        let Some(figures) = &self.traffic.figures else {
            return;
        };
        let show = |figure: &AtomicU64, value| figure.store(value, Ordering::Relaxed);
        let traffic = &self.traffic;
        show(&figures.received_messages, traffic.received_messages);
        show(&figures.received_bytes, traffic.received_bytes);
        show(&figures.sent_bytes, traffic.sent_bytes);
        show(&figures.subscriptions, self.feed_of.len() as u64);
        let queued = if is_slow { traffic.queued_bytes } else { 0 };
        show(&figures.waiting_bytes, queued + self.out.waiting() as u64);
        if is_slow != (figures.slow_since_ns.load(Ordering::Relaxed) != 0) {
            show(&figures.slow_since_ns, if is_slow { now_ns } else { 0 });
        }
    }

    /// A request to a subject that is the library's.
    #[cold]
    pub(super) fn on_reserved(
        &mut self,
        parts: &Parts,
        message: &Received<'_>,
        error: &Error,
    ) -> Result<(), Fatal> {
        let subject = match message.alias() {
            Some(alias) => &*self.aliases.get(alias)?.value.subject,
            None => message.subject(),
        };
        if subject != SUBJECT_STATS.as_bytes() {
            return self.request_failed(message.correlation(), error);
        }
        // One read may hold thousands of them, and an answer is long.
        self.check_commands()?;
        match answer(parts) {
            Ok(json) => Ok(self.say(message.correlation(), Status::Ok, &json)?),
            Err(NoMemory) => Ok(self.say(message.correlation(), Status::Busy, b"")?),
        }
    }
}

/// The figures, made anew if they are old.
fn answer(parts: &Parts) -> Result<Answer, NoMemory> {
    let board = &parts.board;
    let mut last = lock(&board.last);
    if let Some((made_ns, answer)) = &*last
        && parts.now_ns.saturating_sub(*made_ns) < STATS_AGE_NS
    {
        return Ok(answer.clone());
    }
    let mut json = Json::new()?;
    json.object(|json| describe(json, parts))?;
    let bytes = try_bytes(json.text.as_bytes()).map_err(|_| NoMemory)?;
    let answer = try_arc(bytes).map_err(|_| NoMemory)?;
    *last = Some((parts.now_ns, answer.clone()));
    Ok(answer)
}

fn describe(json: &mut Json, parts: &Parts) -> Result<(), NoMemory> {
    let (board, broker) = (&parts.board, &parts.broker);
    let sums = broker.statistics();
    json.text("version", env!("CARGO_PKG_VERSION").as_bytes());
    json.text("name", parts.options.name.as_bytes());
    for (name, number) in [
        ("uptime_ns", parts.now_ns.saturating_sub(board.started_ns)),
        ("shards", u64::from(parts.options.shards)),
        ("connections_max", u64::from(parts.options.connections_max)),
        ("accepted", board.accepted.load(Ordering::Relaxed)),
        ("subscriptions", sums.subscriptions),
        ("queues", sums.queues),
        ("published", sums.published),
        ("delivered", sums.delivered),
        ("dropped", sums.dropped),
        ("expired", sums.expired),
        ("refused", sums.refused),
        ("requests", sums.requests),
        ("answers", sums.answers),
        ("late_answers", sums.late_answers),
        ("last_values", sums.last_values),
        ("memory", sums.memory),
        ("memory_high", sums.memory_high),
        ("memory_max", broker.options().memory_max),
    ] {
        json.number(name, number);
    }
    describe_clients(json, parts)?;
    if sums.subscriptions <= PATTERNS_OF_MAX {
        describe_patterns(json, broker)?;
    }
    Ok(())
}

fn describe_clients(json: &mut Json, parts: &Parts) -> Result<(), NoMemory> {
    let mut clients = Vec::new();
    {
        let listed = lock(&parts.board.clients);
        clients.try_reserve(listed.len()).map_err(|_| NoMemory)?;
        clients.extend(listed.iter().map(|(serial, it)| (*serial, it.clone())));
    }
    let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    let is_slow = |it: &Figures| read(&it.slow_since_ns) != 0;
    json.number("connections", clients.len() as u64);
    let slow = clients.iter().filter(|(_, it)| is_slow(it)).count();
    json.number("slow", slow as u64);
    clients.sort_unstable_by_key(|(serial, it)| {
        let bytes = read(&it.received_bytes) + read(&it.sent_bytes);
        let order = (is_slow(it), read(&it.waiting_bytes), bytes);
        (std::cmp::Reverse(order), *serial)
    });
    clients.truncate(CLIENTS_SHOWN_MAX);
    json.list("clients", clients.iter(), |json, (serial, it)| {
        let since = |ns: u64| {
            if ns == 0 {
                0
            } else {
                parts.now_ns.saturating_sub(ns)
            }
        };
        json.number("id", *serial);
        json.text("name", it.name.get().map_or(b"", |name| &name[..]));
        json.number("open_ns", parts.now_ns.saturating_sub(it.opened_ns));
        json.number("subscriptions", read(&it.subscriptions));
        json.number("received_messages", read(&it.received_messages));
        json.number("received_bytes", read(&it.received_bytes));
        json.number("sent_bytes", read(&it.sent_bytes));
        json.number("waiting_bytes", read(&it.waiting_bytes));
        json.number("slow_ns", since(read(&it.slow_since_ns)));
    });
    Ok(())
}

/// What is known of the subscriptions of one pattern.
#[derive(Clone, Copy, Default)]
struct Sum {
    subscriptions: u64,
    waiting_bytes: u64,
    dropped: u64,
}

fn describe_patterns(json: &mut Json, broker: &Broker) -> Result<(), NoMemory> {
    let mut sums: HashMap<Box<[u8]>, Sum> = HashMap::new();
    let mut has_room = true;
    broker.interest.for_each(|entry| {
        let text = entry.pattern().as_bytes();
        if !sums.contains_key(text) {
            match (sums.try_reserve(1), try_bytes(text)) {
                (Ok(()), Ok(key)) => drop(sums.insert(key, Sum::default())),
                _ => has_room = false,
            }
        }
        if let Some(sum) = sums.get_mut(text) {
            sum.subscriptions += 1;
            if let Some(place) = entry.value().target().queue() {
                let queue = place.statistics();
                sum.waiting_bytes += queue.pending_bytes;
                sum.dropped += queue.dropped;
            }
        }
    });
    let mut patterns = Vec::new();
    if !has_room || patterns.try_reserve(sums.len()).is_err() {
        return Err(NoMemory);
    }
    patterns.extend(sums);
    patterns.sort_unstable_by(|(a_text, a), (b_text, b)| {
        let order = |it: &Sum| (it.waiting_bytes, it.subscriptions);
        order(b).cmp(&order(a)).then_with(|| a_text.cmp(b_text))
    });
    patterns.truncate(PATTERNS_SHOWN_MAX);
    json.list("patterns", patterns.iter(), |json, (text, sum)| {
        json.text("pattern", text);
        json.number("subscriptions", sum.subscriptions);
        json.number("waiting_bytes", sum.waiting_bytes);
        json.number("dropped", sum.dropped);
    });
    Ok(())
}

/// An object that is being written. Room for all of it is there from the start.
struct Json {
    text: String,
}

impl Json {
    fn new() -> Result<Self, NoMemory> {
        let mut text = String::new();
        let reserved = text.try_reserve(ANSWER_BYTES_MAX);
        reserved.map(|()| Self { text }).map_err(|_| NoMemory)
    }

    fn object<E>(&mut self, body: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.text.push('{');
        body(self)?;
        self.text.push('}');
        Ok(())
    }

    fn key(&mut self, name: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        let _ = write!(self.text, "\"{name}\":");
    }

    fn number(&mut self, name: &str, number: u64) {
        self.key(name);
        let _ = write!(self.text, "{number}");
    }

    fn text(&mut self, name: &str, bytes: &[u8]) {
        self.key(name);
        self.text.push('"');
        let shown = &bytes[..bytes.len().min(TEXT_MAX)];
        for chunk in shown.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' | '\\' => self.text.extend(['\\', character]),
                    '\0'..='\x1f' => drop(write!(self.text, "\\u{:04x}", character as u32)),
                    _ => self.text.push(character),
                }
            }
        }
        self.text.push('"');
    }

    fn list<T>(
        &mut self,
        name: &str,
        items: impl Iterator<Item = T>,
        mut body: impl FnMut(&mut Self, T),
    ) {
        self.key(name);
        self.text.push('[');
        for (at, item) in items.enumerate() {
            self.text.push_str(if at == 0 { "{" } else { ",{" });
            body(self, item);
            self.text.push('}');
        }
        self.text.push(']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_numbers_texts_and_lists() {
        let mut json = Json::new().unwrap();
        let written: Result<(), NoMemory> = json.object(|json| {
            json.number("a", 1);
            json.text("b", b"\"\\\n\xff\xc3\xa4");
            json.list("c", [2, 3].iter(), |json, number| json.number("d", *number));
            json.list("e", [0; 0].iter(), |_, _: &i32| {});
            Ok(())
        });
        written.unwrap();
        let expected =
            "{\"a\":1,\"b\":\"\\\"\\\\\\u000a\u{e4}\",\"c\":[{\"d\":2},{\"d\":3}],\"e\":[]}";
        assert_eq!(json.text, expected);
    }
}

//! Publishes in a row: what a connection says about one subject, one behind the other.
//!
//! Whoever publishes fast sends many plain messages to one alias. What they have in common is
//! looked at once for the row: alias, route, publisher, the handler's announcement, credit, counts.
//! What may change meanwhile is looked at for each: the route, the client's end, the handler's.
//! A row ends before whatever needs more, which takes the general way.

use fastmq_memory::View;
use fastmq_memory::view::Numbers;
use fastmq_wire::Frames;

use crate::route::Targets;
use crate::writer::count;

use super::parts::Parts;
use super::publishing::origin_of;
use super::session::{Fatal, Session};

impl Session {
    /// Publishes the plain messages at the front that go to one inline handler, and gives how many
    /// they were.
    pub(super) fn publish_rows(
        &mut self,
        parts: &Parts,
        frames: &mut Frames<'_>,
    ) -> Result<u64, Fatal> {
        let mut published = 0;
        if !self.parked.is_empty() {
            return Ok(0);
        }
        while let Some(first) = frames.plain() {
            match self.publish_row(parts, frames, first.alias)? {
                0 => break,
                count => published += count,
            }
        }
        Ok(published)
    }

    /// The same for messages of one alias.
    fn publish_row(
        &mut self,
        parts: &Parts,
        frames: &mut Frames<'_>,
        alias: u32,
    ) -> Result<u64, Fatal> {
        let writer = &parts.writer;
        let Ok(entry) = self.aliases.get(alias) else {
            return Ok(0);
        };
        let (known, of_alias) = (&mut entry.value, entry.publisher);
        let publisher = origin_of(&mut self.publishers, known, 1, of_alias).publisher;
        let Some(route) = &known.route else {
            return Ok(0);
        };
        let Targets::Inline(handler) = &route.targets else {
            return Ok(0);
        };
        let Ok(row) = parts.calls.row(handler) else {
            return Ok(0);
        };
        let (mut called, mut bytes, left) = (0, 0, self.receiving.left());
        while let Some(plain) = frames.plain() {
            let size = plain.size as u64;
            let is_next = plain.alias == alias && bytes + size <= left;
            if !is_next || !writer.is_usual(plain.payload) || !writer.is_current(route) {
                break;
            }
            let numbers = Numbers {
                sequence: plain.sequence,
                publisher: if plain.sequence > 0 { publisher } else { 0 },
                subscription_id: handler.id,
                tag: handler.tag,
                ..Numbers::default()
            };
            let call = |view: &View| row.call(view);
            if !View::with_borrowed(&known.subject, plain.payload, numbers, None, call) {
                break;
            }
            frames.pass(&plain);
            (called, bytes) = (called + 1, bytes + size);
        }
        drop(row);
        if called == 0 {
            return Ok(0);
        }
        count(&writer.counters.inline, called);
        writer.count_calls(&writer.counters.published, called);
        self.receiving.receive(bytes as usize)?;
        self.done_with(bytes as usize)?;
        Ok(called)
    }
}

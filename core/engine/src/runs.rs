//! Runs: several payloads by one call, which the reader of a single queue sees at once.

use fastmq_memory::record::flag;
use fastmq_memory::{Kind, Plain, Pushed, Refused};

use crate::error::Result;
use crate::link::Remote;
use crate::message::Message;
use crate::route::{LaneTarget, Route, Targets};
use crate::writer::{Writer, count};

/// Payloads that leave together.
const RUN_MESSAGES: usize = 64;

/// Some payloads of a batch. They are taken from the caller before anything is locked: his
/// iterator may call the client.
struct Run<'m> {
    payloads: [&'m [u8]; RUN_MESSAGES],
    count: usize,
}

impl<'m> Run<'m> {
    #[inline(always)]
    fn of(first: &'m [u8]) -> Self {
        Self {
            payloads: [first; RUN_MESSAGES],
            count: 1,
        }
    }

    /// Adds those that follow up to this size, as far as there is room; gives the next one.
    #[inline(always)]
    fn gather(
        &mut self,
        bytes_max: usize,
        payloads: &mut impl Iterator<Item = &'m [u8]>,
    ) -> Option<&'m [u8]> {
        loop {
            let next = payloads.next()?;
            match self.payloads.get_mut(self.count) {
                Some(place) if next.len() <= bytes_max => *place = next,
                _ => return Some(next),
            }
            self.count += 1;
        }
    }

    fn payloads(&self) -> &[&'m [u8]] {
        &self.payloads[..self.count]
    }
}

impl Writer {
    /// Publishes several payloads by a kept route; returns how many were accepted, and why not
    /// more.
    #[inline(always)]
    pub(crate) fn publish_many_by<'m>(
        &self,
        route: &mut Option<Route>,
        subject: &[u8],
        sequence: &mut u64,
        mut payloads: impl Iterator<Item = &'m [u8]>,
    ) -> (usize, Result<()>) {
        let mut accepted = 0;
        let mut next = payloads.next();
        while let Some(payload) = next {
            // Again for each run: a subscriber may leave meanwhile.
            let route = match self.renewed(route, subject) {
                Ok(route) => route,
                Err(error) => return (accepted, Err(error)),
            };
            // A run of usual messages for one queue becomes visible at once.
            if let Targets::One(target) = &route.targets
                && self.is_usual(payload)
            {
                let before = *sequence;
                let run = self.publish_run(*target, subject, sequence, payload, &mut payloads);
                accepted += (*sequence - before) as usize;
                match run {
                    Ok(rest) => next = rest,
                    Err(error) => return (accepted, Err(error)),
                }
                continue;
            }
            if let Targets::Remote(remote) = &route.targets
                && self.is_usual(payload)
            {
                let mut run = Run::of(payload);
                next = run.gather(self.usual_bytes, &mut payloads);
                let sent = self.send_run(route, remote, subject, run.payloads(), *sequence);
                *sequence += sent.0 as u64;
                accepted += sent.0;
                if sent.1.is_err() {
                    return (accepted, sent.1);
                }
                continue;
            }
            let message = Message {
                subject,
                payload,
                ..Message::default()
            };
            if let Err(error) = self.send_numbered(route, &message, *sequence + 1) {
                return (accepted, Err(error));
            }
            *sequence += 1;
            accepted += 1;
            next = payloads.next();
        }
        (accepted, Ok(()))
    }

    /// Sends usual messages to the server, which get the numbers behind `sequence`; how many were
    /// accepted, and why not more.
    fn send_run(
        &self,
        route: &Route,
        remote: &Remote,
        subject: &[u8],
        payloads: &[&[u8]],
        sequence: u64,
    ) -> (usize, Result<()>) {
        let mut accepted = 0;
        loop {
            let next = sequence + accepted as u64 + 1;
            let sent = remote.publish_run(&payloads[accepted..], next, self.publisher());
            count(&self.counters.published, sent as u64);
            accepted += sent;
            let Some(payload) = payloads.get(accepted).copied() else {
                return (accepted, Ok(()));
            };
            // One that the short way does not take: the subject has no number yet, say.
            let message = Message {
                subject,
                payload,
                ..Message::default()
            };
            let next = sequence + accepted as u64 + 1;
            if let Err(error) = self.send_numbered(route, &message, next) {
                return (accepted, Err(error));
            }
            accepted += 1;
        }
    }

    /// Writes usual messages to one queue and publishes them together, counting them in
    /// `sequence`. Gives the first payload that is not usual, or that comes after the queue was
    /// closed, if one stopped it.
    #[inline(always)]
    pub(crate) fn publish_run<'m>(
        &self,
        target: LaneTarget,
        subject: &[u8],
        sequence: &mut u64,
        first: &'m [u8],
        payloads: &mut impl Iterator<Item = &'m [u8]>,
    ) -> Result<Option<&'m [u8]>> {
        let before = *sequence;
        let mut next = Some(first);
        let mut pushed = Ok(Pushed::Written);
        let mut lanes = self.lanes.borrow_mut();
        let (published, has_evicted) = match lanes.get(target.lane) {
            Some(lane) => {
                while let Some(payload) = next {
                    if payload.len() > self.usual_bytes {
                        break;
                    }
                    let plain = Plain {
                        kind: Kind::Message,
                        flags: flag::SEQUENCE,
                        status: 0,
                        word: *sequence + 1,
                        subject,
                        payload,
                    };
                    pushed = lane.writer.push_plain_quiet(&plain, target.subscription);
                    match pushed {
                        Ok(Pushed::Written) => {}
                        Ok(Pushed::Dropped) => self.count_dropped(target.subscription),
                        Err(Refused::Unread) => {}
                        Err(_) => break,
                    }
                    *sequence += 1;
                    next = payloads.next();
                    if pushed.is_err() {
                        break;
                    }
                }
                (lane.writer.publish(), lane.writer.has_evicted())
            }
            None => (Err(Refused::Closed), false),
        };
        drop(lanes);
        if has_evicted {
            self.report_evicted(target.lane);
        }
        let refused = pushed.map(|_| ()).and(published);
        if refused == Err(Refused::Closed) && next.is_some() {
            // The queue is no longer a target; nobody was left for this one.
            *sequence += 1;
            next = payloads.next();
        }
        count(&self.counters.published, *sequence - before);
        match (refused, next) {
            (Ok(()), _) => Ok(next),
            // By block.
            (Err(Refused::TooLarge), Some(payload)) => {
                let targets = Targets::One(target);
                self.send_usual_slow(&targets, subject, payload, flag::SEQUENCE, *sequence + 1)?;
                *sequence += 1;
                Ok(payloads.next())
            }
            (Err(refused), _) => self.note_push(target, Err(refused)).map(|()| next),
        }
    }
}

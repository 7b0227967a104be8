//! Runs: several payloads by one call, which the reader of a single queue sees at once.

use fastmq_memory::record::flag;
use fastmq_memory::{Kind, Plain, Pushed, Refused};

use crate::error::Result;
use crate::message::Message;
use crate::route::{LaneTarget, Route, Targets};
use crate::writer::{Writer, count};

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

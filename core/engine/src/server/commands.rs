//! Control frames of a ready connection: subscriptions, aliases, credit, signs of life, ends.

use fastmq_memory::Policy;
use fastmq_memory::sync::lock;
use fastmq_route::shares;
use fastmq_wire::control::{event, flag, write_error};
use fastmq_wire::handshake::capability;
use fastmq_wire::{Control, ControlDraft, Field, Kind, NoMemory, Reason};

use crate::error::{Error, Status};
use crate::subscription::GroupMode;

use super::feed::{Feed, Wanted};
use super::inbox::{Nudge, Source};
use super::parts::Parts;
use super::publishing::Known;
use super::session::{Fatal, Session};

/// Largest weight that the protocol knows.
const WEIGHT_MAX: u64 = 65_535;

impl Session {
    #[inline(never)]
    pub(super) fn on_control(
        &mut self,
        parts: &mut Parts,
        control: &Control<'_>,
    ) -> Result<(), Fatal> {
        match control.kind() {
            Kind::Ping => {
                ControlDraft::whole(&mut self.out.bytes, Kind::Pong, control.whole())?;
            }
            Kind::Credit => self.on_credit(control.whole())?,
            Kind::Alias => self.on_alias(parts, control)?,
            Kind::Subscribe => self.on_subscribe(parts, control)?,
            Kind::Unsubscribe => self.on_unsubscribe(parts, control)?,
            Kind::Drain => self.on_drain(parts, control)?,
            Kind::Close => self.on_close(parts)?,
            Kind::Grant | Kind::Cancel if self.has(capability::MANY) => {
                self.on_asker_control(control);
            }
            Kind::Error if control.is_fatal() => {
                let _is_owed = self.state.heard_goodbye();
                self.let_go(parts, Some("the client has refused what it was sent"));
            }
            Kind::Pong | Kind::Error => {}
            // GRANT, CANCEL, PRESENCE: of capabilities that this server does not offer.
            _ => {
                let says = "a frame of a capability that this connection does not have";
                return Err(Fatal::new(Reason::State, Status::Misuse, says));
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, operation: u32) -> Result<(), NoMemory> {
        ControlDraft::pair(&mut self.out.bytes, Kind::Ack, operation, 0)?;
        Ok(())
    }

    /// Answers an operation with an ERROR.
    pub(super) fn fail(
        &mut self,
        operation: u32,
        reason: Reason,
        status: Status,
        text: &str,
    ) -> Result<(), Fatal> {
        self.log_refusal(reason, &text);
        write_error(
            &mut self.out.bytes,
            operation,
            reason,
            status as u8,
            0,
            text,
        )?;
        Ok(())
    }

    fn on_alias(&mut self, parts: &mut Parts, control: &Control<'_>) -> Result<(), Fatal> {
        let subject = control.bytes(Field::Subject).unwrap_or_default();
        if !subject.is_empty() && fastmq_route::check_subject(subject).is_err() {
            let says = "the subject of an alias is none";
            return Err(Fatal::new(Reason::Alias, Status::Invalid, says));
        }
        self.keep_parked(control.alias())?;
        let publisher = control.number(Field::Publisher).unwrap_or(0);
        let (alias, make) = (control.alias(), || Known::new(parts.next_known(), subject));
        self.aliases.define(alias, subject, publisher, make)?;
        Ok(())
    }

    fn on_subscribe(&mut self, parts: &mut Parts, control: &Control<'_>) -> Result<(), Fatal> {
        let (number, operation) = (control.subscription(), control.operation());
        if let Err((reason, status, text)) = self.check_number(number, false) {
            return self.fail(operation, reason, status, text);
        }
        let subscriptions_max = lock(&parts.changes).subscriptions_max;
        if self.feed_of.len() >= subscriptions_max as usize {
            let says = "this connection has as many subscriptions as it may";
            return self.fail(operation, Reason::Limit, Status::NoSpace, says);
        }
        if parts.is_draining {
            let says = "the server is closing";
            return self.fail(operation, Reason::Draining, Status::Unavailable, says);
        }
        let wanted = match self.wanted(control) {
            Ok(wanted) => wanted,
            Err((reason, status, text)) => return self.fail(operation, reason, status, text),
        };
        match self.subscribe(parts, number, &wanted) {
            Ok(()) => {
                self.acknowledge(operation)?;
                self.warn_of_limit(subscriptions_max)
            }
            Err(error) => {
                let reason = match error.status() {
                    Status::NoMemory | Status::NoSpace => Reason::Limit,
                    Status::Closed => Reason::Draining,
                    Status::Denied => Reason::Permission,
                    _ => Reason::Pattern,
                };
                let status = match error.status() {
                    Status::NoMemory => Status::NoSpace,
                    Status::Closed => Status::Unavailable,
                    _ => error.status(),
                };
                self.fail(operation, reason, status, error.text())
            }
        }
    }

    /// Tells of the limit of subscriptions when a sixteenth of it is left.
    fn warn_of_limit(&mut self, max: u32) -> Result<(), Fatal> {
        let count = self.feed_of.len();
        if count < 15 || count != (max - max / 16) as usize {
            return Ok(());
        }
        let says = format!("this connection has {count} subscriptions of {max} that it may have");
        ControlDraft::pair(&mut self.out.bytes, Kind::Event, 0, event::LIMIT)?
            .bytes(Field::Sentence, says.as_bytes())?;
        Ok(())
    }

    fn wanted<'c>(
        &self,
        control: &Control<'c>,
    ) -> Result<Wanted<'c>, (Reason, Status, &'static str)> {
        let lacks = |says| Err((Reason::Option, Status::Unsupported, says));
        let wrong = |says| Err((Reason::Pattern, Status::Invalid, says));
        let flags = control.flags();
        let is_keyed = flags & flag::KEY_SHARED != 0;
        if is_keyed && !self.has(capability::KEY_SHARED) {
            return lacks("this connection has no groups that keep the order of a key");
        }
        let replay_last = flags & flag::LAST_VALUE != 0;
        if replay_last && !self.has(capability::LAST_VALUE) {
            return lacks("this connection has no last values");
        }
        let weight = match control.number(Field::Weight).unwrap_or(1) {
            weight if (1..=u64::from(shares::WEIGHT_MAX)).contains(&weight) => weight as u32,
            1..=WEIGHT_MAX => return lacks("this server takes weights up to 1,000"),
            _ => return wrong("a weight is 1 to 65,535"),
        };
        let policy = match control.number(Field::Policy).unwrap_or(0) {
            0 => None,
            1 => Some(Policy::Backpressure),
            2 => Some(Policy::DropOldest),
            3 => Some(Policy::DropNewest),
            4 if self.has(capability::LATEST) => Some(Policy::Latest),
            4 => return lacks("this connection has no latest queues"),
            _ => return wrong("a policy is 0 to 4"),
        };
        Ok(Wanted {
            pattern: control.bytes(Field::Pattern).unwrap_or_default(),
            group: control.bytes(Field::Group).unwrap_or_default(),
            group_mode: match is_keyed {
                true => GroupMode::KeyShared,
                false => GroupMode::Balanced,
            },
            weight,
            policy,
            capacity: control.number(Field::Capacity).unwrap_or(0),
            replay_last,
        })
    }

    fn subscribe(
        &mut self,
        parts: &mut Parts,
        number: u32,
        wanted: &Wanted<'_>,
    ) -> Result<(), Error> {
        let free = self.feeds.iter().position(Option::is_none);
        let at = free.unwrap_or(self.feeds.len());
        let has_room = self.feeds.try_reserve(1).is_ok()
            && self.feed_of.try_reserve(1).is_ok()
            && self.ready.try_reserve(at + 1).is_ok();
        if !has_room {
            return Err(Error::NO_MEMORY);
        }
        let source = Source::Feed(at as u32);
        let nudge = Nudge::new(&parts.inbox, self.key, source).ok_or(Error::NO_MEMORY)?;
        let feed = Feed::open(parts, self.key, number, wanted, nudge.into())?;
        match self.feeds.get_mut(at) {
            Some(place) => *place = Some(feed),
            None => self.feeds.push(Some(feed)),
        }
        self.feed_of.insert(number, at as u32);
        // Looked at once, which arms it.
        self.set_ready(at as u32);
        Ok(())
    }

    /// Whether there is a subscription with this number, as there has to be, or not to be.
    fn check_number(
        &self,
        number: u32,
        is_there: bool,
    ) -> Result<(), (Reason, Status, &'static str)> {
        let wrong = |status, says| Err((Reason::Subscription, status, says));
        match (number, self.feed_of.contains_key(&number)) {
            (0, _) => wrong(Status::Invalid, "no subscription has the number 0"),
            (_, true) if !is_there => wrong(Status::Exists, "the subscription's number is in use"),
            (_, false) if is_there => wrong(Status::NotFound, "there is no such subscription"),
            _ => Ok(()),
        }
    }

    fn on_unsubscribe(&mut self, parts: &mut Parts, control: &Control<'_>) -> Result<(), Fatal> {
        let (number, operation) = (control.subscription(), control.operation());
        if let Err((reason, status, text)) = self.check_number(number, true) {
            return self.fail(operation, reason, status, text);
        }
        self.end_feed(parts, number);
        self.acknowledge(operation)?;
        self.end_draining()
    }

    fn end_feed(&mut self, parts: &mut Parts, number: u32) {
        self.cancel_held(parts, Some(number));
        if let Some(at) = self.feed_of.remove(&number) {
            self.ready.retain(|ready| *ready != at);
            if let Some(feed) = self.feeds[at as usize].take() {
                feed.end(parts);
            }
        }
    }

    fn on_drain(&mut self, parts: &mut Parts, control: &Control<'_>) -> Result<(), Fatal> {
        let (number, operation) = (control.subscription(), control.operation());
        if number == 0 {
            if self.draining_all.is_some() {
                let says = "all subscriptions are being drained already";
                return self.fail(operation, Reason::Subscription, Status::Exists, says);
            }
            self.draining_all = Some(operation);
            for at in 0..self.feeds.len() {
                self.drain_feed(parts, at, 0);
            }
            return self.end_draining();
        }
        if let Err((reason, status, text)) = self.check_number(number, true) {
            return self.fail(operation, reason, status, text);
        }
        let at = self.feed_of[&number] as usize;
        if self.feeds[at]
            .as_ref()
            .is_some_and(|feed| feed.draining.is_some())
        {
            let says = "the subscription is being drained already";
            return self.fail(operation, Reason::Subscription, Status::Exists, says);
        }
        self.drain_feed(parts, at, operation);
        Ok(())
    }

    fn drain_feed(&mut self, parts: &Parts, at: usize, operation: u32) {
        let Some(Some(feed)) = self.feeds.get_mut(at) else {
            return;
        };
        if feed.draining.is_none() {
            feed.stop(&parts.broker);
            feed.draining = Some(operation);
            self.set_ready(at as u32);
        }
    }

    /// A feed has nothing that waits; `is_over`: and never will, as the broker has ended.
    pub(super) fn found_empty(
        &mut self,
        parts: &mut Parts,
        at: u32,
        is_over: bool,
    ) -> Result<(), Fatal> {
        let Some(Some(feed)) = self.feeds.get(at as usize) else {
            return Ok(());
        };
        let (number, draining) = (feed.number, feed.draining);
        match draining {
            None if is_over && parts.broker.is_closed() => {
                self.say_close(parts, Status::Closed);
            }
            None => {}
            // What waits for credit is still to come.
            Some(_) if self.is_held_up() => self.set_ready(at),
            Some(operation) => {
                self.end_feed(parts, number);
                if operation > 0 {
                    self.acknowledge(operation)?;
                }
                self.end_draining()?;
            }
        }
        Ok(())
    }

    /// Answers DRAIN of all when the last subscription is gone.
    fn end_draining(&mut self) -> Result<(), Fatal> {
        if self.feed_of.is_empty()
            && let Some(operation) = self.draining_all.take()
        {
            self.acknowledge(operation)?;
        }
        Ok(())
    }

    fn on_close(&mut self, parts: &mut Parts) -> Result<(), Fatal> {
        self.retry_parked(parts)?;
        self.is_close_owed = true;
        self.answer_close(parts);
        Ok(())
    }

    /// Answers CLOSE when no publish waits any more.
    pub(super) fn answer_close(&mut self, parts: &mut Parts) {
        if self.is_close_owed && self.parked.is_empty() {
            let is_owed = self.state.heard_goodbye();
            if is_owed {
                self.say_close(parts, Status::Ok);
            }
        }
    }
}

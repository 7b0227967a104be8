//! Claims: a message whose payload the publisher writes where its readers will read it.
//!
//! With one queue to go to, a lane of its own there and a usual size, that is in the lane: the room
//! behind its last record, which is the publisher's anyway. Everything else is written into a
//! block, which each queue then refers to; what would be larger by reference is copied from there.
//!
//! Invariant: the commit is the publish. Whatever has changed since the claim, it finds the targets
//! of now, and sends whole or not at all: a claim in a lane whose route is no longer right becomes
//! a block first. So a claim promises nothing to anybody and takes nothing from anybody, and there
//! is nothing to give back when it is abandoned or forgotten.

use fastmq_memory::block::BlockClaim;
use fastmq_memory::record::{DESCRIPTOR_BYTES, flag};
use fastmq_memory::{Kind, Plain, Policy, Refused, Tried};

use crate::delivery::{FAN_OUT_BYTES, block_refused, is_too_wide};
use crate::error::{Error, Fault, Result, Status};
use crate::publisher::Publisher;
use crate::route::{Group, LaneTarget, Route, Targets};
use crate::writer::{BLOCK_BYTES, Message, Writer};

/// An open claim of a publisher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    size: usize,
    place: Place,
}

/// Where its bytes are.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Behind the last record of a lane.
    Lane(LaneTarget),
    /// In the publisher's block.
    Block,
}

/// Room for one message's payload, to be written in place and committed; dropping it abandons it.
#[derive(Debug)]
pub struct Claim<'p> {
    publisher: &'p mut Publisher,
}

impl Claim<'_> {
    /// The payload to write, of as many bytes as were claimed, from an address that is a multiple
    /// of 8 on; what it holds at first is unspecified. Empty once it is committed.
    #[inline]
    pub fn bytes(&mut self) -> &mut [u8] {
        self.publisher.claimed()
    }

    /// Publishes the first `size` bytes. Never blocks. What is refused is gone.
    ///
    /// # Errors
    /// As [`Claim::try_commit`].
    #[inline]
    pub fn commit(mut self, size: usize) -> Result<()> {
        self.try_commit(size)
    }

    /// Publishes the first `size` bytes; what is refused may be committed again. Never blocks.
    ///
    /// # Errors
    /// As [`Publisher::publish`]. AGAIN is rare, as there was room when the claim was made: a queue
    /// came since, or shares the room that it had with other publishers. INVALID: less was claimed.
    /// MISUSE: it is committed already.
    #[inline]
    pub fn try_commit(&mut self, size: usize) -> Result<()> {
        self.publisher.commit(size)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.publisher.abandon();
    }
}

impl Publisher {
    /// Claims room for a payload of at most `size` bytes, to be written in place. Never blocks.
    ///
    /// What is committed is published then, to whoever subscribes then. It has a payload and
    /// nothing else.
    ///
    /// # Errors
    /// AGAIN: a backpressure queue is full. TOO_LARGE, NO_SPACE, NO_MEMORY, CLOSED.
    pub fn claim(&mut self, size: usize) -> Result<Claim<'_>> {
        // One that is still open was forgotten: no `Claim` can be alive.
        self.abandon();
        self.open_claim(size)?;
        Ok(Claim { publisher: self })
    }

    /// Opens a claim, which stays open until it is committed or abandoned; gives its first byte.
    #[doc(hidden)]
    #[inline(always)]
    pub fn open_claim(&mut self, size: usize) -> Result<*mut u8> {
        if self.claim.is_none()
            && let Some(route) = &self.route
            && let Targets::One(target) = &route.targets
            && self.writer.is_current(route)
            && self.writer.is_usual_size(size)
            && let Some(lane) = self.writer.lanes.get_mut().get(target.lane)
            && let Some(room) = lane.writer.try_claim(&around(&self.subject, 0), size)
        {
            let place = Place::Lane(*target);
            self.claim = Some(Open { size, place });
            return Ok(room.as_mut_ptr());
        }
        self.open_claim_slow(size)
    }

    #[inline(never)]
    fn open_claim_slow(&mut self, size: usize) -> Result<*mut u8> {
        self.check_unclaimed()?;
        if size as u64 > self.writer.broker.options.payload_max {
            return Err(self.writer.too_large(size));
        }
        if !self.writer.broker.is_open() {
            return Err(self.writer.closed());
        }
        let route = self.writer.renewed(&mut self.route, &self.subject)?;
        let place = match &route.targets {
            Targets::One(target)
                if self.writer.is_usual_size(size)
                    && self.writer.claim_in_lane(*target, &self.subject, size)? =>
            {
                Place::Lane(*target)
            }
            _ => {
                let block = match self.block.take().and_then(|block| block.resized(size)) {
                    Some(block) => block,
                    None => (self.writer.broker.blocks.claim(size)).map_err(block_refused)?,
                };
                let has_room = self.writer.look_for_room(route, &self.subject, &block);
                self.block = Some(block);
                if let Err(error) = has_room {
                    self.abandon();
                    return Err(error);
                }
                Place::Block
            }
        };
        self.claim = Some(Open { size, place });
        Ok(self.claimed().as_mut_ptr())
    }

    /// MISUSE while a claim is open.
    #[inline(always)]
    pub(crate) fn check_unclaimed(&self) -> Result<()> {
        if self.claim.is_some() {
            return Err(Error::new(&Fault(
                Status::Misuse,
                "the publisher has an open claim; commit or abandon it first",
            )));
        }
        Ok(())
    }

    /// The bytes of the open claim.
    fn claimed(&mut self) -> &mut [u8] {
        match (self.claim, &mut self.block) {
            (
                Some(Open {
                    size,
                    place: Place::Lane(target),
                }),
                _,
            ) => match self.writer.lanes.get_mut().get(target.lane) {
                Some(lane) => lane.writer.claimed(&around(&self.subject, 0), size),
                None => &mut [],
            },
            (
                Some(Open {
                    place: Place::Block,
                    ..
                }),
                Some(block),
            ) => block,
            _ => &mut [],
        }
    }

    /// Publishes the first `size` bytes of the open claim, which stays open if they are refused.
    #[doc(hidden)]
    #[inline(always)]
    pub fn commit(&mut self, size: usize) -> Result<()> {
        if let Some(open) = self.claim
            && let Place::Lane(target) = open.place
            && size <= open.size
            && let Some(route) = &self.route
            && self.writer.is_current(route)
            && self.writer.broker.is_open()
            && let Some(lane) = self.writer.lanes.get_mut().get(target.lane)
        {
            let around = around(&self.subject, self.sequence + 1);
            let tried = lane.writer.commit(&around, size, target.subscription);
            self.claim = None;
            self.sequence += 1;
            if tried == Tried::Unnoticed {
                self.writer.notice(target)?;
            }
            self.writer.count_call(&self.writer.counters.published);
            return Ok(());
        }
        self.commit_slow(size)
    }

    #[inline(never)]
    fn commit_slow(&mut self, size: usize) -> Result<()> {
        if !self.writer.broker.is_open() {
            return Err(self.writer.broker.closed_error());
        }
        let Some(open) = self.claim else {
            return Err(Error::new(&Fault(
                Status::Misuse,
                "the publisher has no open claim",
            )));
        };
        if size > open.size {
            return Err(longer(size, open.size));
        }
        if let Place::Lane(_) = open.place {
            // Before the route is made new, which may give its lane back.
            let mut block = (self.writer.broker.blocks.claim(open.size)).map_err(block_refused)?;
            block.copy_from_slice(self.claimed());
            self.block = Some(block);
            self.claim = Some(Open {
                size: open.size,
                place: Place::Block,
            });
        }
        let route = self.writer.renewed(&mut self.route, &self.subject)?;
        let Some(block) = self.block.take() else {
            return Ok(());
        };
        // A handler that unwinds leaves no claim behind.
        self.claim = None;
        let sequence = self.sequence + 1;
        let (block, sent) = self
            .writer
            .send_claimed(route, &self.subject, block, size, sequence);
        match sent {
            Ok(()) => {
                self.sequence = sequence;
                self.block = block;
                self.abandon();
            }
            // As large as it was, should more of it be committed next.
            Err(_) => {
                self.block = block.and_then(|block| block.resized(open.size));
                self.claim = self.block.is_some().then_some(Open {
                    size: open.size,
                    place: Place::Block,
                });
            }
        }
        sent
    }

    /// Gives the open claim back, if there is one.
    #[doc(hidden)]
    #[inline(always)]
    pub fn abandon(&mut self) {
        self.claim = None;
        // A small block is kept for the next claim, which needs no lock then.
        if let Some(block) = &self.block
            && block.len() > BLOCK_BYTES
        {
            self.block = None;
        }
    }
}

impl Writer {
    /// True if a record in a lane can carry so many bytes, while the client is open.
    #[inline(always)]
    fn is_usual_size(&self, size: usize) -> bool {
        size <= self.usual_bytes && self.broker.is_open()
    }

    /// Makes room in the writer's own lane; false if the payload has to be written elsewhere.
    fn claim_in_lane(&self, target: LaneTarget, subject: &[u8], size: usize) -> Result<bool> {
        let mut lanes = self.lanes.borrow_mut();
        let Some(lane) = lanes.get(target.lane) else {
            return Ok(false);
        };
        match lane.writer.claim(&around(subject, 0), size) {
            Ok(is_there) => Ok(is_there),
            Err(refused @ (Refused::Full | Refused::OverBudget | Refused::NoMemory))
                if lane.writer.queue().policy() == Policy::Backpressure =>
            {
                Err(self.refuse(refused, &lane.place))
            }
            // What a policy drops, it drops at the commit.
            Err(_) => Ok(false),
        }
    }

    /// Refuses what a publish along the route would refuse for want of room now.
    fn look_for_room(&self, route: &Route, subject: &[u8], payload: &[u8]) -> Result<()> {
        let (plain, groups) = queues_of(&route.targets);
        if plain.is_empty() && groups.is_empty() {
            return Ok(());
        }
        let message = Message {
            subject,
            payload,
            ..Message::default()
        };
        let mut draft = self.draft(&message)?;
        draft.flags |= flag::SEQUENCE;
        let mut by_block = draft;
        by_block.flags |= flag::BLOCK;
        by_block.payload = &[0; DESCRIPTOR_BYTES];
        if is_shared(payload.len()) {
            draft = by_block;
        }
        let mut chosen = self.promise(plain, groups, &message, &draft);
        if is_too_wide(&chosen, &draft) {
            chosen = self.promise(plain, groups, &message, &by_block);
        }
        self.take_back(plain, &chosen?);
        Ok(())
    }

    /// Sends the first `size` bytes of a block along a route, whole or not at all. The block comes
    /// back if nobody has it.
    fn send_claimed(
        &self,
        route: &Route,
        subject: &[u8],
        block: BlockClaim,
        size: usize,
        sequence: u64,
    ) -> (Option<BlockClaim>, Result<()>) {
        let (plain, groups) = queues_of(&route.targets);
        let references = plain.len() + groups.len();
        if references == 0 || !is_shared(size) {
            let message = Message {
                subject,
                payload: &block[..size],
                ..Message::default()
            };
            let sent = self.send_numbered(route, &message, sequence);
            return (Some(block), sent);
        }
        let shared = match block.share(size, references as u32) {
            Ok(shared) => shared,
            Err(block) => return (Some(block), Err(Error::NO_MEMORY)),
        };
        let message = Message {
            subject,
            payload: &shared,
            ..Message::default()
        };
        let descriptor = shared.descriptor();
        if let Targets::Many(many) = &route.targets {
            many.forget_room();
        }
        let sent = self.draft(&message).and_then(|mut draft| {
            draft.sequence = sequence;
            draft.flags |= flag::SEQUENCE;
            self.send_descriptor(plain, groups, &message, &draft, &descriptor)?;
            if let Targets::Many(many) = &route.targets {
                self.send_rest(many, &message, &draft);
            }
            Ok(())
        });
        if let Err(error) = sent {
            return (shared.take_back(), Err(error));
        }
        self.count_call(&self.counters.published);
        (None, Ok(()))
    }
}

/// The record around a claimed payload.
#[inline(always)]
fn around(subject: &[u8], sequence: u64) -> Plain<'_> {
    Plain {
        kind: Kind::Message,
        flags: flag::SEQUENCE,
        status: 0,
        word: sequence,
        subject,
        payload: &[],
    }
}

/// True for a payload that is sent by reference once it is in a block.
fn is_shared(size: usize) -> bool {
    size > FAN_OUT_BYTES
}

/// The queues and groups of a route.
fn queues_of(targets: &Targets) -> (&[LaneTarget], &[Group]) {
    match targets {
        Targets::One(target) => (std::slice::from_ref(target), &[]),
        Targets::Group(group) => (&[], std::slice::from_ref(&**group)),
        Targets::Many(many) => (&many.plain, &many.groups),
        Targets::Inline(_) | Targets::Latest(_) | Targets::Nobody | Targets::Remote(_) => {
            (&[], &[])
        }
    }
}

#[cold]
fn longer(size: usize, claimed: usize) -> Error {
    Error::with(
        &Fault(Status::Invalid, "more is committed than was claimed"),
        format_args!("size is {size}, but {claimed} bytes were claimed"),
    )
}

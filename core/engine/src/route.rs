//! Where a subject's messages go: the route that a writer caches.
//!
//! A route names lanes of its own writer by index, so it is used by that writer only. It holds
//! while its stamp is current (`fastmq_route::interest`).

use std::cell::{Cell, RefCell};
use std::slice;
use std::sync::Arc;

use fastmq_memory::allocation::{try_box, try_bytes};
use fastmq_route::Stamp;
use fastmq_route::balance::{Run, Weights};
use fastmq_route::cache::CachedRoute;

use crate::delivery::Choice;
use crate::error::{Error, Result};
use crate::latest::LatestTarget;
use crate::link::Remote;
use crate::subscription::Handler;

/// A lane of the writer, and the subscription that its record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneTarget {
    pub(crate) lane: u32,
    pub(crate) subscription: u32,
}

/// A member of a group.
#[derive(Debug)]
pub(crate) enum Member {
    Lane(LaneTarget),
    Inline(Arc<Handler>),
}

/// A group that wants each message once.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: Box<[u8]>,
    /// Of a group that balances by load.
    pub(crate) members: Vec<Member>,
    pub(crate) weights: Weights,
    /// Of a key-shared group: the writer's view of it.
    pub(crate) keyed: Option<u32>,
    /// The slot of the subject, which is the key of a message that has none.
    pub(crate) slot: usize,
    pub(crate) run: RefCell<Run>,
}

impl Group {
    /// A group that balances by load.
    pub(crate) fn new(name: &[u8]) -> Result<Self> {
        Ok(Self {
            name: try_bytes(name)?,
            members: Vec::new(),
            weights: Weights::default(),
            keyed: None,
            slot: 0,
            run: RefCell::default(),
        })
    }

    /// A member that runs inline.
    pub(crate) fn inline_member(&self) -> Option<&Handler> {
        self.members.iter().find_map(|member| match member {
            Member::Inline(handler) => Some(&**handler),
            Member::Lane(_) => None,
        })
    }
}

/// Who answers a request: one target, or one of a group.
pub(crate) enum Responder<'t> {
    Queue(LaneTarget),
    Group(&'t Group),
    Inline(&'t Handler),
    Remote(&'t Remote),
}

impl Responder<'_> {
    /// The subscription that gets the request; of a group, that of the chosen member.
    pub(crate) fn subscription(&self, choice: Choice) -> u32 {
        match self {
            Self::Queue(target) => target.subscription,
            Self::Inline(handler) => handler.id,
            Self::Remote(_) => 0,
            Self::Group(group) => match choice {
                Choice::Lane(target) => target.subscription,
                Choice::Inline(member) => match group.members.get(member) {
                    Some(Member::Inline(handler)) => handler.id,
                    _ => 0,
                },
                Choice::Nobody => 0,
            },
        }
    }

    /// The same if it is known before the request is sent; else 0.
    pub(crate) fn known_subscription(&self) -> u32 {
        match self {
            Self::Group(group) => group.inline_member().map_or(0, |handler| handler.id),
            _ => self.subscription(Choice::Nobody),
        }
    }
}

/// Several targets.
#[derive(Debug, Default)]
pub(crate) struct Many {
    /// Sorted by lane: targets of one lane stand together.
    pub(crate) plain: Vec<LaneTarget>,
    pub(crate) groups: Vec<Group>,
    pub(crate) inline: Vec<Arc<Handler>>,
    pub(crate) latest: Vec<LatestTarget>,
    /// Bytes that each lane of `plain` has free as far as is known (`wide.rs`).
    pub(crate) room: Cell<u64>,
}

/// Where messages go; the usual cases without an allocation.
#[derive(Debug, Default)]
pub(crate) enum Targets {
    #[default]
    Nobody,
    One(LaneTarget),
    Inline(Arc<Handler>),
    Group(Box<Group>),
    Latest(Box<LatestTarget>),
    Many(Box<Many>),
    /// All targets of a remote client.
    Remote(Box<Remote>),
}

impl Targets {
    /// The same targets as a list that can have more.
    pub(crate) fn into_many(self) -> Result<Box<Many>> {
        let mut many = match self {
            Self::Many(many) => return Ok(many),
            _ => try_box(Many::default())?,
        };
        match self {
            Self::One(target) => add(&mut many.plain, target)?,
            Self::Inline(handler) => add(&mut many.inline, handler)?,
            Self::Group(group) => add(&mut many.groups, *group)?,
            Self::Latest(target) => add(&mut many.latest, *target)?,
            Self::Nobody | Self::Many(_) | Self::Remote(_) => {}
        }
        Ok(many)
    }

    /// Those who answer a request.
    pub(crate) fn responders(&self) -> impl Iterator<Item = Responder<'_>> {
        type Parts<'t> = (&'t [LaneTarget], &'t [Group], &'t [Arc<Handler>]);
        let remote = match self {
            Self::Remote(remote) => Some(Responder::Remote(remote)),
            _ => None,
        };
        let (queues, groups, inline): Parts<'_> = match self {
            // A queue that keeps the newest of its messages would drop requests.
            Self::Nobody | Self::Latest(_) | Self::Remote(_) => (&[], &[], &[]),
            Self::One(target) => (slice::from_ref(target), &[], &[]),
            Self::Inline(handler) => (&[], &[], slice::from_ref(handler)),
            Self::Group(group) => (&[], slice::from_ref(&**group), &[]),
            Self::Many(many) => (&many.plain, &many.groups, &many.inline),
        };
        let queues = queues.iter().map(|target| Responder::Queue(*target));
        let groups = groups.iter().map(Responder::Group);
        let inline = inline.iter().map(|handler| Responder::Inline(handler));
        queues.chain(groups).chain(inline).chain(remote)
    }
}

/// Adds to a list, or says that there is no memory.
pub(crate) fn add<T>(list: &mut Vec<T>, item: T) -> Result<()> {
    list.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
    list.push(item);
    Ok(())
}

/// A cached route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) subject: Box<[u8]>,
    pub(crate) stamp: Stamp,
    pub(crate) targets: Targets,
}

impl CachedRoute for Route {
    #[inline(always)]
    fn subject(&self) -> &[u8] {
        &self.subject
    }
}

impl Many {
    /// Before anything is written to these lanes but by `Writer::send_wide`.
    #[inline(always)]
    pub(crate) fn forget_room(&self) {
        self.room.set(0);
    }

    /// The simplest form of these targets.
    pub(crate) fn simplify(mut self) -> Result<Targets> {
        let counts = (self.plain.len(), self.groups.len(), self.inline.len());
        let targets = match counts {
            _ if !self.latest.is_empty() => Targets::Many(self.sorted()?),
            (0, 0, 0) => Targets::Nobody,
            (1, 0, 0) => Targets::One(self.plain[0]),
            (0, 0, 1) => self.inline.pop().map_or(Targets::Nobody, Targets::Inline),
            (0, 1, 0) => match self.groups.pop() {
                Some(group) => Targets::Group(try_box(group)?),
                None => Targets::Nobody,
            },
            _ => Targets::Many(self.sorted()?),
        };
        Ok(targets)
    }

    fn sorted(mut self) -> Result<Box<Self>> {
        let order = |target: &LaneTarget| (target.lane, target.subscription);
        self.plain.sort_unstable_by_key(order);
        Ok(try_box(self)?)
    }
}

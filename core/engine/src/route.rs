//! Where a subject's messages go: the route that a writer caches.
//!
//! A route names lanes of its own writer by index, so it is used by that writer only. It holds
//! while its stamp is current (`fastmq_route::interest`).

use std::cell::RefCell;
use std::sync::Arc;

use fastmq_memory::allocation::try_box;
use fastmq_route::Stamp;
use fastmq_route::balance::Run;
use fastmq_route::cache::CachedRoute;

use crate::error::{Error, Result};
use crate::latest::LatestTarget;
use crate::subscription::Handler;

/// A lane of the writer, and the subscription that its record is for.
#[derive(Clone, Copy, Debug)]
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
    pub(crate) members: Vec<Member>,
    pub(crate) run: RefCell<Run>,
}

/// Several targets.
#[derive(Debug, Default)]
pub(crate) struct Many {
    /// Sorted by lane: targets of one lane stand together.
    pub(crate) plain: Vec<LaneTarget>,
    pub(crate) groups: Vec<Group>,
    pub(crate) inline: Vec<Arc<Handler>>,
    pub(crate) latest: Vec<LatestTarget>,
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
            Self::Nobody | Self::Many(_) => {}
        }
        Ok(many)
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

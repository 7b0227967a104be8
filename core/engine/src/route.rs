//! Where a subject's messages go: the route that a writer caches.
//!
//! A route names lanes of its own writer by index, so it is used by that writer only. It holds
//! while its stamp is current (`fastmq_route::interest`).

use std::cell::RefCell;
use std::sync::Arc;

use fastmq_memory::allocation::{NoMemory, try_box};
use fastmq_route::Stamp;
use fastmq_route::balance::Run;
use fastmq_route::cache::CachedRoute;

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
}

/// Where messages go; the usual cases without an allocation.
#[derive(Debug, Default)]
pub(crate) enum Targets {
    #[default]
    Nobody,
    One(LaneTarget),
    Inline(Arc<Handler>),
    Group(Box<Group>),
    Many(Box<Many>),
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
    pub(crate) fn simplify(mut self) -> Result<Targets, NoMemory> {
        let targets = match (self.plain.len(), self.groups.len(), self.inline.len()) {
            (0, 0, 0) => Targets::Nobody,
            (1, 0, 0) => Targets::One(self.plain[0]),
            (0, 0, 1) => self.inline.pop().map_or(Targets::Nobody, Targets::Inline),
            (0, 1, 0) => match self.groups.pop() {
                Some(group) => Targets::Group(try_box(group)?),
                None => Targets::Nobody,
            },
            _ => {
                self.plain
                    .sort_unstable_by_key(|target| (target.lane, target.subscription));
                Targets::Many(try_box(self)?)
            }
        };
        Ok(targets)
    }
}

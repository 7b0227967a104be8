//! Lists of views that queues without messages have lent to those with some.
//!
//! A queue that is found empty gives its list away, and takes one when it has messages again. So a
//! thread that serves very many queues writes views into the same few cache lines, and queues at
//! rest hold no memory for views. Nothing waits here: whoever finds a place taken does without.

use crossbeam_utils::CachePadded;

use crate::snapshot::{SHARDS, shard};
use crate::sync::{Mutex, try_lock};
use crate::view::View;

/// A list with more places stays with its queue.
const SPARE_VIEWS_MAX: usize = 256;

/// One list for each shard of threads.
pub(crate) struct Spares {
    lists: [CachePadded<Mutex<Vec<View>>>; SHARDS],
}

impl Spares {
    pub(crate) fn new() -> Self {
        Self {
            lists: core::array::from_fn(|_| CachePadded::new(Mutex::new(Vec::new()))),
        }
    }

    /// A list; without places if there is none to be had.
    pub(crate) fn take(&self) -> Vec<View> {
        match try_lock(&self.lists[shard()]) {
            Some(mut list) => std::mem::take(&mut list),
            None => Vec::new(),
        }
    }

    /// Takes an empty list, unless it is too large to be kept; frees the smaller of two.
    pub(crate) fn give(&self, views: &mut Vec<View>) {
        if views.capacity() > SPARE_VIEWS_MAX || !views.is_empty() {
            return;
        }
        if let Some(mut list) = try_lock(&self.lists[shard()]) {
            if list.capacity() < views.capacity() {
                std::mem::swap(&mut *list, views);
            }
            *views = Vec::new();
        }
    }
}

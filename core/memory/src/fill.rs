//! Turning records into views: in place, or copied where the writer may evict.
//!
//! The hot loop of a receive. Owned by [`crate::reader`], which decides which lane comes next.

use crate::block::{BlockRef, Descriptor};
use crate::consumer::{Consumer, PlainTaken, Taken};
use crate::queue::Queue;
use crate::record::{DESCRIPTOR_BYTES, Kind, Parsed, RecordError, flag};
use crate::view::{Field, View, Visit, view_flag};

/// Bytes copied out of evicting lanes for one batch, unless one record is larger.
pub(crate) const COPY_BYTES: u64 = 64 << 10;
/// Views by which a full list grows at least.
pub(crate) const VIEWS_MORE: usize = 16;

/// What a look at the lanes found.
pub(crate) struct Fill<'a, V> {
    pub(crate) limit: usize,
    pub(crate) clock: &'a dyn Fn() -> u64,
    pub(crate) visit: &'a mut V,
    pub(crate) expired: u64,
    /// Records taken that gave no view.
    pub(crate) skipped: u64,
    pub(crate) waiting: u64,
    /// There was no memory for more views.
    pub(crate) is_refused: bool,
    /// Where the view stands, or will, that tells the losses which the lane has not told.
    pub(crate) gap_at: usize,
}

#[inline(always)]
pub(crate) fn fill_plain<V: FnMut(&mut Visit<'_>) -> bool>(
    queue: &Queue,
    consumer: &mut Consumer,
    views: &mut Vec<View>,
    blocks: &mut Vec<BlockRef>,
    fill: &mut Fill<'_, V>,
) -> Result<(), RecordError> {
    let mut result = Ok(());
    fill.gap_at = views.len();
    // The first run looks at the tail itself if nothing is left of the last look.
    let mut is_fresh = consumer.read == consumer.tail_seen;
    loop {
        // A batch covers at most half of a ring, so that its writer can go on meanwhile.
        let stop = consumer.released + consumer.capacity() / 2;
        if views.len() >= fill.limit || consumer.read >= stop {
            break;
        }
        if views.len() == views.capacity() && !more_views(queue, views) {
            fill.is_refused = true;
            break;
        }
        let before = consumer.read;
        fill_run(consumer, stop, views, fill);
        // What came meanwhile is for the next look: the line with the tail is the writer's now.
        if consumer.is_empty() {
            if is_fresh {
                break;
            }
            is_fresh = true;
            continue;
        }
        if consumer.read != before {
            continue;
        }
        match next_unusual(queue, consumer, views, blocks, fill) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    tell_lost(consumer, views, fill.gap_at);
    fill.waiting += consumer.waiting_bytes();
    result
}

/// Makes places in a list that has none; false: no memory.
#[cold]
pub(crate) fn more_views(queue: &Queue, views: &mut Vec<View>) -> bool {
    if views.capacity() == 0 {
        *views = queue.blocks().spares.take();
    }
    views.len() < views.capacity() || views.try_reserve(VIEWS_MORE).is_ok()
}

/// Adds the views of plain records that stand in a row before `stop`, as far as the list has room.
#[inline(always)]
fn fill_run<V: FnMut(&mut Visit<'_>) -> bool>(
    consumer: &mut Consumer,
    stop: u64,
    views: &mut Vec<View>,
    fill: &mut Fill<'_, V>,
) {
    let before = views.len();
    let limit = fill.limit - before;
    let spare = views.spare_capacity_mut();
    let mut count = 0;
    let mut run = consumer.plain_run(stop);
    while count < limit
        && let Some(place) = spare.get_mut(count)
        && let Some(taken) = run.next()
    {
        let address = run.address(&taken);
        let view = place.write(plain_view(&taken, address, run.label(), run.publisher()));
        let (is_expired, expiry_ns) = (false, u64::MAX);
        if (fill.visit)(&mut Visit {
            view,
            is_expired,
            expiry_ns,
        }) {
            count += 1;
        } else {
            fill.skipped += 1;
        }
    }
    let taken = run.end();
    consumer.took(taken);
    // SAFETY: these elements are within the capacity and were written above.
    unsafe { views.set_len(before + count) };
}

/// Takes a record that is not a plain one, or follows to the next ring; false: there is none.
#[inline(never)]
pub(crate) fn next_unusual<V: FnMut(&mut Visit<'_>) -> bool>(
    queue: &Queue,
    consumer: &mut Consumer,
    views: &mut Vec<View>,
    blocks: &mut Vec<BlockRef>,
    fill: &mut Fill<'_, V>,
) -> Result<bool, RecordError> {
    // Before the record is taken, which may need it.
    if blocks.try_reserve(1).is_err() {
        fill.is_refused = true;
        return Ok(false);
    }
    let Some(taken) = consumer.next()? else {
        return Ok(false);
    };
    let address = consumer.address(&taken);
    add_view(queue, consumer, &taken, address, views, blocks, fill)?;
    Ok(true)
}

/// Losses that no record has told are told by the first message after the gap, if it is there yet.
#[inline(always)]
pub(crate) fn tell_lost(consumer: &mut Consumer, views: &mut [View], gap_at: usize) {
    if consumer.untold > 0
        && let Some(view) = views.get_mut(gap_at)
    {
        let untold = u32::try_from(std::mem::take(&mut consumer.untold)).unwrap_or(u32::MAX);
        view.lost_before = view.lost_before.saturating_add(untold);
    }
}

/// A record that gives no view leaves the losses that it tells to the next one.
#[cold]
pub(crate) fn pass_lost<V>(
    consumer: &mut Consumer,
    taken: &Taken,
    views: &mut [View],
    fill: &mut Fill<'_, V>,
) {
    fill.skipped += 1;
    let lost = consumer.word(taken, flag::LOST);
    if lost > 0 {
        tell_lost(consumer, views, fill.gap_at);
        consumer.untold = consumer.untold.saturating_add(lost);
        fill.gap_at = views.len();
    }
}

/// The view of a plain record that starts at `address`.
#[inline(always)]
fn plain_view(taken: &PlainTaken, address: *const u8, label: &[u8], publisher: u64) -> View {
    let payload = address.wrapping_add(taken.payload_at);
    let is_reply = taken.kind == Kind::Reply as u8;
    let subject = if is_reply {
        Field::EMPTY
    } else if taken.flags & flag::SUBJECT_ID != 0 {
        Field {
            data: label.as_ptr(),
            size: label.len(),
        }
    } else {
        Field {
            data: payload.wrapping_add(taken.payload_size),
            size: taken.subject_size,
        }
    };
    let has_token = taken.flags & flag::TOKEN != 0;
    // One literal with every field: a constant that is then changed would be copied by a call.
    View {
        subject,
        payload: Field {
            data: payload,
            size: taken.payload_size,
        },
        reply_to: Field::EMPTY,
        headers: Field::EMPTY,
        key: Field::EMPTY,
        sequence: if has_token { 0 } else { taken.word },
        timestamp_ns: 0,
        token: if has_token { taken.word } else { 0 },
        delivery_count: 1,
        lost_before: 0,
        status: if is_reply { taken.subject } else { 0 },
        subscription_id: taken.subscription,
        flags: if taken.kind == Kind::Request as u8 {
            view_flag::REQUEST
        } else {
            0
        },
        reserved0: 0,
        tag: 0,
        publisher,
    }
}

/// As `fill_plain`, but the records are copied and given back at once.
#[inline(never)]
pub(crate) fn fill_copies<V: FnMut(&mut Visit<'_>) -> bool>(
    queue: &Queue,
    consumer: &mut Consumer,
    (views, blocks, copies): (&mut Vec<View>, &mut Vec<BlockRef>, &mut Vec<u64>),
    fill: &mut Fill<'_, V>,
) -> Result<(), RecordError> {
    let mut result = Ok(());
    fill.gap_at = views.len();
    while views.len() < fill.limit {
        if views.len() == views.capacity() && !more_views(queue, views)
            || blocks.try_reserve(1).is_err()
        {
            fill.is_refused = true;
            break;
        }
        let step = match consumer.peek_step() {
            Ok(Some(step)) => step,
            Ok(None) => break,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        if views.is_empty() && blocks.is_empty() {
            // No view points into the copies: they may move.
            let room = (step.max(COPY_BYTES) / 8) as usize;
            copies.clear();
            if copies.try_reserve(room).is_err() {
                fill.is_refused = true;
                break;
            }
        }
        let words = (step / 8) as usize;
        if copies.capacity() - copies.len() < words {
            break;
        }
        let Ok(Some(taken)) = consumer.next() else {
            break;
        };
        let at = copies.len();
        copies.resize(at + words, 0);
        let address = copies[at..].as_mut_ptr().cast::<u8>();
        // SAFETY: `words` words were just added at `at`; u8 has no alignment or validity needs.
        let target = unsafe { std::slice::from_raw_parts_mut(address, words * 8) };
        consumer.copy_record(&taken, target);
        if let Err(error) = add_view(queue, consumer, &taken, address, views, blocks, fill) {
            result = Err(error);
            break;
        }
    }
    tell_lost(consumer, views, fill.gap_at);
    fill.waiting += consumer.waiting_bytes();
    consumer.release();
    result
}

/// Adds the view of a record whose bytes start at `address`. There is room for a block.
#[inline(always)]
pub(crate) fn add_view<V: FnMut(&mut Visit<'_>) -> bool>(
    queue: &Queue,
    consumer: &mut Consumer,
    taken: &Taken,
    address: *const u8,
    views: &mut Vec<View>,
    blocks: &mut Vec<BlockRef>,
    fill: &mut Fill<'_, V>,
) -> Result<(), RecordError> {
    let mut block = None;
    let (mut view, is_expired) = view_of(queue, consumer, taken, address, &mut block, fill.clock)?;
    blocks.extend(block);
    let expiry_ns = expiry_of(consumer, taken);
    if is_expired {
        fill.expired += 1;
        if view.flags & view_flag::REQUEST != 0 {
            let view = &mut view;
            (fill.visit)(&mut Visit {
                view,
                is_expired,
                expiry_ns,
            });
        }
        pass_lost(consumer, taken, views, fill);
        return Ok(());
    }
    let is_shown = (fill.visit)(&mut Visit {
        view: &mut view,
        is_expired,
        expiry_ns,
    });
    if is_shown {
        views.push(view);
    } else {
        pass_lost(consumer, taken, views, fill);
    }
    Ok(())
}

/// When a record expires; `u64::MAX`: never.
#[inline(always)]
pub(crate) fn expiry_of(consumer: &Consumer, taken: &Taken) -> u64 {
    match taken.parsed.flags & flag::EXPIRY {
        0 => u64::MAX,
        _ => consumer.word(taken, flag::EXPIRY),
    }
}

/// The view of a record whose bytes start at `address`, and the block where its payload is, if it
/// is in one. `None`: the message has expired.
#[inline(always)]
pub(crate) fn view_of(
    queue: &Queue,
    consumer: &Consumer,
    taken: &Taken,
    address: *const u8,
    block: &mut Option<BlockRef>,
    clock: &dyn Fn() -> u64,
) -> Result<(View, bool), RecordError> {
    let parsed = &taken.parsed;
    let mut view = View::EMPTY;
    let payload = address.wrapping_add(parsed.payload_at as usize);
    let subject = payload.wrapping_add(parsed.payload_size as usize);
    view.payload = Field {
        data: payload,
        size: parsed.payload_size as usize,
    };
    view.subscription_id = parsed.subscription;
    if parsed.kind as u8 == Kind::Reply as u8 {
        view.status = parsed.subject;
    } else {
        view.subject = Field {
            data: subject,
            size: parsed.subject_size as usize,
        };
        if parsed.flags & flag::SUBJECT_ID != 0 {
            let label = consumer.state().label().unwrap_or(&[]);
            view.subject = Field {
                data: label.as_ptr(),
                size: label.len(),
            };
        }
        if parsed.kind as u8 == Kind::Request as u8 {
            view.flags = view_flag::REQUEST;
        }
    }
    if parsed.flags & flag::SEQUENCE != 0 {
        view.sequence = consumer.word(taken, flag::SEQUENCE);
        view.publisher = consumer.state().publisher();
    }
    if parsed.flags & flag::TOKEN != 0 {
        view.token = consumer.word(taken, flag::TOKEN);
    }
    const RARE: u16 = flag::EXPIRY
        | flag::TIMESTAMP
        | flag::LOST
        | flag::SIZES
        | flag::BLOCK
        | flag::MORE
        | flag::PUBLISHER;
    let is_expired =
        parsed.flags & RARE != 0 && !add_rare(queue, consumer, taken, &mut view, block, clock)?;
    Ok((view, is_expired))
}

/// The fields that few messages have. False: the message has expired.
#[inline(never)]
pub(crate) fn add_rare(
    queue: &Queue,
    consumer: &Consumer,
    taken: &Taken,
    view: &mut View,
    block: &mut Option<BlockRef>,
    clock: &dyn Fn() -> u64,
) -> Result<bool, RecordError> {
    let parsed: &Parsed = &taken.parsed;
    let lost = consumer.word(taken, flag::LOST);
    view.lost_before = u32::try_from(lost).unwrap_or(u32::MAX);
    view.timestamp_ns = consumer.word(taken, flag::TIMESTAMP);
    if parsed.flags & flag::PUBLISHER != 0 {
        view.publisher = consumer.word(taken, flag::PUBLISHER);
    }
    if parsed.flags & flag::MORE != 0 {
        view.flags |= view_flag::MORE;
    }
    let mut at = view
        .payload
        .data
        .wrapping_add((parsed.payload_size + parsed.subject_size) as usize);
    let mut field = |size: u32| {
        let field = Field {
            data: at,
            size: size as usize,
        };
        at = at.wrapping_add(size as usize);
        if size == 0 { Field::EMPTY } else { field }
    };
    view.reply_to = field(parsed.reply_to_size);
    view.key = field(parsed.key_size);
    view.headers = field(parsed.headers_size);
    if parsed.flags & flag::BLOCK != 0 {
        let bytes: [u8; DESCRIPTOR_BYTES] =
            view.payload().try_into().map_err(|_| RecordError::Block)?;
        let found = queue.blocks().get(&Descriptor::from_bytes(&bytes));
        *block = Some(found.ok_or(RecordError::Block)?);
    }
    if parsed.flags & flag::EXPIRY != 0 && consumer.word(taken, flag::EXPIRY) < clock() {
        // Dropping the block gives its reference back.
        *block = None;
        return Ok(false);
    }
    if let Some(block) = block {
        view.payload = Field {
            data: block.as_ptr(),
            size: block.len(),
        };
    }
    Ok(true)
}

//! Handles: numbers that name a slot, checked before anything is followed.
//!
//! A handle is `generation << 40 | type << 32 | index`, cast to the opaque pointer type. Slots live
//! in one table per type, in chunks that are never freed, so a look at the slot of *any* number is
//! safe. A slot is open for exactly one handle: the one that equals its `word`. Closing takes the
//! type out of the word; the slot is used again late, after at least `FREE_MIN` others, with the
//! next generation.
//!
//! # How an object lives while it is used and dies when it is closed
//! - [`Slot::look`] holds the slot's lock; for seldom calls from any thread.
//! - [`enter`] is for objects with one user at a time, and costs no lock and no read-modify-write:
//!   it stores BUSY, passes the light fence and reads the word again. Closing changes the word,
//!   passes the heavy fence and reads the state. So either the user sees the change and leaves the
//!   object alone, or the closer sees BUSY and leaves the object to the user, who frees it when it
//!   leaves ([`Slot::retire`], under the lock; whoever comes second finds nothing to free).
//! - [`Hold::is_held`] keeps the object for an open batch in the same way.
//!
//! Not seen: two users that enter in the same few instructions, and a user that stands between two
//! instructions of `enter` while a thousand other handles of the type are closed and opened. Both
//! break the rule of one thread at a time, which the header states.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastmq::border::{fence, fork};
use fastmq::{Error, Fault, Result, Status};

/// Slots of the first chunk; each chunk is twice as large as the one before.
const CHUNK_FIRST: u32 = 16;
/// Chunks: room for 33.5 million handles of one type at once.
const CHUNKS: usize = 21;
/// An index is `chunk << CHUNK_SHIFT | slot`; chunks that an index could name are all in the table.
const CHUNK_SHIFT: u32 = 27;
const CHUNK_AT_END: u32 = 1 << CHUNK_SHIFT;
const CHUNK_NAMES: usize = 1 << (32 - CHUNK_SHIFT);
const _: () = assert!(CHUNKS < CHUNK_NAMES && CHUNK_FIRST << (CHUNKS - 1) <= CHUNK_AT_END);
/// Slots that stay unused before the oldest of them is used again.
const FREE_MIN: usize = 1024;
const TYPE_SHIFT: u32 = 32;
const GENERATION_SHIFT: u32 = 40;
const GENERATION_MAX: u64 = (1 << 24) - 1;

/// State of a slot that nobody uses, and of one that is in use.
const IDLE: u32 = 0;
const BUSY: u32 = 1;

/// What a type of handle says of itself.
pub(crate) struct Kind {
    /// Unique among all types, batches included; never 0.
    pub(crate) number: u8,
    /// Refusals, each with the parameter's name in it.
    pub(crate) null: &'static Fault,
    pub(crate) stale: &'static Fault,
    pub(crate) foreign: &'static Fault,
    pub(crate) overlap: &'static Fault,
}

/// Makes a [`Kind`] for the parameter of this name.
macro_rules! kind {
    ($number:expr, $name:literal) => {{
        use fastmq::{Fault, Status};
        $crate::handle::Kind {
            number: $number,
            null: &Fault(Status::Invalid, concat!($name, " is NULL")),
            stale: &Fault(Status::Misuse, concat!($name, " was closed already")),
            foreign: &Fault(
                Status::Misuse,
                concat!($name, " is not a handle of this type"),
            ),
            overlap: &Fault(
                Status::Misuse,
                concat!($name, " is in use by another call; it takes one at a time"),
            ),
        }
    }};
}
pub(crate) use kind;

/// What may keep a closed object alive, beside calls that use it.
pub(crate) trait Hold: Default + Sync {
    /// True while something still points into the object.
    fn is_held(&self) -> bool {
        false
    }
}

impl Hold for () {}

/// What a handle can name.
pub(crate) trait Object: Send + Sync + Sized + 'static {
    /// Its type of handle.
    const KIND: Kind;
    /// What the slot keeps beside the object.
    type Beside: Hold;
    /// Where its slots are.
    fn table() -> &'static Table<Self>;
}

/// The place of one object.
pub(crate) struct Slot<T: Object> {
    /// The handle while open; else generation and index of the last one, without a type.
    word: AtomicU64,
    state: AtomicU32,
    /// What the slot keeps beside the object.
    pub(crate) beside: T::Beside,
    lock: Mutex<()>,
    object: UnsafeCell<Option<T>>,
}

// SAFETY: `object` is written only under `lock` while nobody is inside and nothing is held, and is
// read by reference under `lock` or by who has entered; `T` may be sent and shared.
unsafe impl<T: Object> Sync for Slot<T> {}

#[derive(Default)]
struct Free {
    next: u32,
    returned: VecDeque<u32>,
}

/// All slots of one type.
pub(crate) struct Table<T: Object> {
    chunks: [AtomicPtr<Slot<T>>; CHUNK_NAMES],
    free: Mutex<Free>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chunk and slot in it of an index, which has them in separate bits: a warm call does not look
/// for its chunk. `None`: no index.
#[inline(always)]
fn locate(index: u32) -> Option<(usize, usize)> {
    let (chunk, at) = (index >> CHUNK_SHIFT, index & (CHUNK_AT_END - 1));
    (at < CHUNK_FIRST << chunk).then_some((chunk as usize, at as usize))
}

/// The index after this one.
fn next_index(index: u32) -> u32 {
    match locate(index + 1) {
        Some(_) => index + 1,
        None => ((index >> CHUNK_SHIFT) + 1) << CHUNK_SHIFT,
    }
}

/// The number of a handle.
pub(crate) fn number<H>(handle: *const H) -> u64 {
    handle.addr() as u64
}

/// The type in a handle's number.
pub(crate) fn type_of(number: u64) -> u8 {
    (number >> TYPE_SHIFT) as u8
}

/// The handle for a number.
pub(crate) fn handle<H>(number: u64) -> *mut H {
    ptr::without_provenance_mut(number as usize)
}

/// The number of a handle with these parts.
pub(crate) fn compose(generation: u64, kind: u8, index: u32) -> u64 {
    (generation & GENERATION_MAX) << GENERATION_SHIFT
        | u64::from(kind) << TYPE_SHIFT
        | u64::from(index)
}

const _: () = assert!(
    size_of::<usize>() == 8,
    "a handle needs pointers of 64 bits"
);

impl<T: Object> Table<T> {
    /// No slots yet.
    pub(crate) const fn new() -> Self {
        Self {
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNK_NAMES],
            free: Mutex::new(Free {
                next: 0,
                returned: VecDeque::new(),
            }),
        }
    }

    /// The slot of any handle, if there is one.
    #[inline(always)]
    pub(crate) fn slot(&self, number: u64) -> Option<&Slot<T>> {
        let (chunk, at) = locate(number as u32)?;
        let first = self.chunks.get(chunk)?.load(Ordering::Acquire);
        if first.is_null() {
            return None;
        }
        // SAFETY: chunk `chunk` has `CHUNK_FIRST << chunk` slots, and `locate` gives less.
        let slot = unsafe { first.add(at) };
        // SAFETY: chunks are never freed.
        Some(unsafe { &*slot })
    }

    /// Puts an object into a slot and gives its handle. NO_MEMORY, or NO_SPACE when all are used.
    pub(crate) fn open(&'static self, object: T) -> Result<u64> {
        let index = self.take()?;
        let slot = self.slot(u64::from(index)).ok_or(Error::NO_MEMORY)?;
        let guard = lock(&slot.lock);
        let generation = (slot.word.load(Ordering::Relaxed) >> GENERATION_SHIFT) + 1;
        // SAFETY: the slot was free: it is closed, nobody is inside and nothing is held.
        unsafe { *slot.object.get() = Some(object) };
        let number = compose(generation, T::KIND.number, index);
        slot.word.store(number, Ordering::Release);
        drop(guard);
        Ok(number)
    }

    fn take(&self) -> Result<u32> {
        let mut free = lock(&self.free);
        if free.returned.len() > FREE_MIN
            && let Some(index) = free.returned.pop_front()
        {
            return Ok(index);
        }
        let index = free.next;
        let Some(cell) = self.chunks[..CHUNKS].get((index >> CHUNK_SHIFT) as usize) else {
            let fault = &Fault(
                Status::NoSpace,
                "there are 33 million handles of this type; close some",
            );
            return free.returned.pop_front().ok_or(Error::new(fault));
        };
        if cell.load(Ordering::Relaxed).is_null() {
            let Some(slots) = self.make_chunk(index >> CHUNK_SHIFT, &mut free) else {
                return free.returned.pop_front().ok_or(Error::NO_MEMORY);
            };
            cell.store(slots, Ordering::Release);
        }
        free.next = next_index(index);
        Ok(index)
    }

    fn make_chunk(&self, chunk: u32, free: &mut Free) -> Option<*mut Slot<T>> {
        let size = (CHUNK_FIRST as usize) << chunk;
        // Room for each index, so that giving one back never allocates.
        free.returned.try_reserve(2 * size).ok()?;
        let mut slots = Vec::new();
        slots.try_reserve_exact(size).ok()?;
        slots.resize_with(size, || Slot {
            word: AtomicU64::new(0),
            state: AtomicU32::new(IDLE),
            beside: T::Beside::default(),
            lock: Mutex::new(()),
            object: UnsafeCell::new(None),
        });
        Some(Box::leak(slots.into_boxed_slice()).as_mut_ptr())
    }

    /// Gives a slot back. One that has used up its generations is not used again.
    fn give(&self, word: u64) {
        if word >> GENERATION_SHIFT < GENERATION_MAX {
            lock(&self.free).returned.push_back(word as u32);
        }
    }
}

/// The slot that is open for this handle.
#[inline(always)]
pub(crate) fn find<T: Object>(number: u64) -> Result<&'static Slot<T>> {
    match T::table().slot(number) {
        Some(slot) if slot.word.load(Ordering::Acquire) == number => Ok(slot),
        _ => Err(refusal::<T>(number)),
    }
}

/// Why a number is not an open handle of this type.
#[cold]
#[inline(never)]
fn refusal<T: Object>(number: u64) -> Error {
    if number == 0 {
        return Error::new(T::KIND.null);
    }
    if type_of(number) == T::KIND.number
        && let Some(slot) = T::table().slot(number)
        && slot.word.load(Ordering::Acquire) >> GENERATION_SHIFT >= number >> GENERATION_SHIFT
    {
        return Error::new(T::KIND.stale);
    }
    Error::new(T::KIND.foreign)
}

/// Enters an object that has one user at a time.
#[inline(always)]
pub(crate) fn enter<T: Object>(number: u64) -> Result<Entered<T>> {
    let slot = find::<T>(number)?;
    if slot.state.load(Ordering::Relaxed) != IDLE {
        return Err(Error::new(T::KIND.overlap));
    }
    slot.state.store(BUSY, Ordering::Relaxed);
    // Pairs with the heavy fence of `close`: see the head of this file.
    fence::light();
    let entered = Entered {
        slot,
        number,
        not_send: PhantomData,
    };
    if slot.word.load(Ordering::Acquire) != number {
        return Err(closed_meanwhile(entered));
    }
    Ok(entered)
}

#[cold]
fn closed_meanwhile<T: Object>(entered: Entered<T>) -> Error {
    let number = entered.number;
    drop(entered);
    refusal::<T>(number)
}

/// The right to use an object, until it is dropped.
pub(crate) struct Entered<T: Object> {
    pub(crate) slot: &'static Slot<T>,
    number: u64,
    /// It is left on the thread that entered.
    not_send: PhantomData<*const ()>,
}

impl<T: Object> Entered<T> {
    /// The object.
    #[inline(always)]
    pub(crate) fn object(&self) -> Result<&T> {
        // SAFETY: we are inside and saw the word of our handle after saying so, so nobody takes
        // the object before we leave; it is only handed out by shared reference.
        let object = unsafe { &*self.slot.object.get() };
        object.as_ref().ok_or(EMPTY)
    }

    /// The index of the slot.
    #[inline(always)]
    pub(crate) fn index(&self) -> u32 {
        self.number as u32
    }
}

const EMPTY: Error = Error::new(&Fault(
    Status::Internal,
    "a bug in fastmq: an open slot is empty",
));

impl<T: Object> Drop for Entered<T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.slot.state.store(IDLE, Ordering::Release);
        self.slot.left(self.number);
    }
}

/// Ends a handle: nobody enters any more. False: it ended in a forked child, whose copy of the
/// object stays as it is, since threads that no longer exist may have been changing it.
fn end<T: Object>(slot: &Slot<T>, number: u64) -> Result<bool> {
    let closed = number & !(0xff << TYPE_SHIFT);
    match slot
        .word
        .compare_exchange(number, closed, Ordering::AcqRel, Ordering::Acquire)
    {
        Ok(_) => Ok(!fork::is_forked_child()),
        Err(_) => Err(refusal::<T>(number)),
    }
}

/// Closes a handle whose object may be in use: `copy` takes what `last` needs, under the lock;
/// `last` runs without it. The object is freed by whoever leaves it last.
pub(crate) fn close<T: Object, R>(
    number: u64,
    copy: impl FnOnce(&T) -> R,
    last: impl FnOnce(R),
) -> Result<()> {
    let slot = find::<T>(number)?;
    if fork::is_forked_child() {
        return end(slot, number).map(|_| ());
    }
    let copied = {
        // A user that leaves meanwhile waits here, so that the object is there to be copied.
        let _guard = lock(&slot.lock);
        end(slot, number)?;
        // SAFETY: the object is taken under this lock only.
        let object = unsafe { &*slot.object.get() };
        object.as_ref().map(copy)
    };
    if let Some(copied) = copied {
        last(copied);
    }
    // Pairs with the light fences of `enter` and `left`.
    fence::heavy();
    slot.retire();
    Ok(())
}

/// Closes a handle whose object is only looked at, and gives the object; `None` in a forked child.
pub(crate) fn take<T: Object>(number: u64) -> Result<Option<T>> {
    let slot = find::<T>(number)?;
    if fork::is_forked_child() {
        return end(slot, number).map(|_| None);
    }
    let object = {
        let _guard = lock(&slot.lock);
        end(slot, number)?;
        // SAFETY: under the lock, and nobody enters objects of this type.
        unsafe { (*slot.object.get()).take() }
    };
    T::table().give(slot.word.load(Ordering::Relaxed));
    Ok(object)
}

impl<T: Object> Slot<T> {
    /// Runs `body` on the object of an open handle, under the lock. Keep it short.
    pub(crate) fn look<R>(&self, number: u64, body: impl FnOnce(&T) -> R) -> Result<R> {
        let _guard = lock(&self.lock);
        if self.word.load(Ordering::Acquire) != number {
            return Err(refusal::<T>(number));
        }
        // SAFETY: the object is taken under this lock only.
        let object = unsafe { &*self.object.get() };
        object.as_ref().map(body).ok_or(EMPTY)
    }

    /// The object of a slot that is held: see [`Hold`].
    ///
    /// # Safety
    /// `beside.is_held()` is true until the result is no longer used.
    #[inline(always)]
    pub(crate) unsafe fn held(&self) -> Result<&T> {
        // SAFETY: `retire` takes nothing that is held.
        let object = unsafe { &*self.object.get() };
        object.as_ref().ok_or(EMPTY)
    }

    /// After a user has left: frees the object if its handle was closed meanwhile.
    #[inline(always)]
    pub(crate) fn left(&self, number: u64) {
        // Pairs with the heavy fence of `close`.
        fence::light();
        if self.word.load(Ordering::Acquire) != number {
            self.retire();
        }
    }

    /// True if the slot is open for a handle.
    pub(crate) fn is_open(&self) -> bool {
        type_of(self.word.load(Ordering::Acquire)) != 0
    }

    /// The handle that the slot is open for; only to compare with.
    #[inline(always)]
    pub(crate) fn number(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }

    /// Frees the object of a closed handle, unless it is in use or held.
    #[cold]
    #[inline(never)]
    fn retire(&self) {
        let object = {
            let _guard = lock(&self.lock);
            if self.is_open() || self.state.load(Ordering::Acquire) != IDLE || self.beside.is_held()
            {
                return;
            }
            // SAFETY: under the lock; closed, not in use and not held. Whoever enters now sees the
            // word of a closed slot and leaves the object alone.
            unsafe { (*self.object.get()).take() }
        };
        if let Some(object) = object {
            drop(object);
            T::table().give(self.word.load(Ordering::Relaxed));
        }
    }
}

/// Something that only the user who entered its slot touches. On cache lines of its own, as the
/// users of its neighbours are other threads.
#[repr(align(128))]
pub(crate) struct Own<P>(UnsafeCell<P>);

// SAFETY: it is touched by one thread at a time, and may be sent.
unsafe impl<P: Send> Sync for Own<P> {}

impl<P> Own<P> {
    pub(crate) fn new(object: P) -> Self {
        Self(UnsafeCell::new(object))
    }

    /// The object.
    ///
    /// # Safety
    /// The caller has entered the slot that holds it, and uses no other result of this function.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn get(&self) -> &mut P {
        // SAFETY: exclusive by the contract.
        unsafe { &mut *self.0.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct Thing(Arc<()>);

    static THINGS: Table<Thing> = Table::new();

    impl Object for Thing {
        const KIND: Kind = kind!(200, "thing");
        type Beside = ();
        fn table() -> &'static Table<Self> {
            &THINGS
        }
    }

    fn check(number: u64, status: Status, text: &str) {
        let error = find::<Thing>(number).err().unwrap();
        assert_eq!((error.status(), error.text()), (status, text));
    }

    #[test]
    fn only_an_open_handle_is_found() {
        let number = THINGS.open(Thing(Arc::default())).unwrap();
        assert!(find::<Thing>(number).is_ok());
        check(0, Status::Invalid, "thing is NULL");
        for garbage in [1, 0x1234, u64::MAX, number ^ (1 << 32), number + (1 << 40)] {
            check(
                garbage,
                Status::Misuse,
                "thing is not a handle of this type",
            );
        }
        close::<Thing, _>(number, |_| (), |()| ()).unwrap();
        check(number, Status::Misuse, "thing was closed already");
        let again = close::<Thing, _>(number, |_| (), |()| ());
        assert_eq!(again.unwrap_err().status(), Status::Misuse);
    }

    #[test]
    fn an_object_that_is_in_use_is_freed_when_its_user_leaves() {
        let alive = Arc::new(());
        let number = THINGS.open(Thing(alive.clone())).unwrap();
        let entered = enter::<Thing>(number).unwrap();
        assert_eq!(
            enter::<Thing>(number).err().unwrap().status(),
            Status::Misuse
        );
        close::<Thing, _>(number, |_| (), |()| ()).unwrap();
        assert!(Arc::ptr_eq(&entered.object().unwrap().0, &alive));
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(entered);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn a_slot_is_used_again_late_and_with_another_generation() {
        let first = THINGS.open(Thing(Arc::default())).unwrap();
        drop(take::<Thing>(first).unwrap());
        let mut used_after = 0;
        for round in 1..5000 {
            let number = THINGS.open(Thing(Arc::default())).unwrap();
            assert_ne!(number, first);
            drop(take::<Thing>(number).unwrap());
            if number as u32 == first as u32 {
                used_after = round;
                break;
            }
        }
        assert!(used_after >= FREE_MIN);
        check(first, Status::Misuse, "thing was closed already");
    }

    #[test]
    fn indices_fill_the_chunks_without_gap() {
        let (mut index, mut expected) = (0, (0, 0));
        for _ in 0..10_000 {
            assert_eq!(locate(index), Some(expected), "index {index}");
            index = next_index(index);
            expected.1 += 1;
            if expected.1 == (CHUNK_FIRST as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        for index in [16, 1 << CHUNK_SHIFT | 32, 31 << CHUNK_SHIFT | 9, u32::MAX] {
            assert!(
                locate(index).is_none_or(|(chunk, _)| chunk >= CHUNKS),
                "{index:#x}"
            );
        }
    }

    #[test]
    fn closing_beside_a_user_frees_once() {
        let alive = Arc::new(());
        for _ in 0..2000 {
            let number = THINGS.open(Thing(alive.clone())).unwrap();
            let user = std::thread::spawn(move || {
                let mut seen = 0;
                while let Ok(entered) = enter::<Thing>(number) {
                    seen += Arc::strong_count(&entered.object().unwrap().0);
                }
                seen
            });
            close::<Thing, _>(number, |_| (), |()| ()).unwrap();
            user.join().unwrap();
            assert_eq!(Arc::strong_count(&alive), 1);
        }
    }
}

//! Memory that is read and written in place: the only unsafe code here.
//!
//! Beside a question about the interpreter ([`is_main_interpreter`]) and the program's descriptors
//! ([`duplicate`]), four things: buffers of Python that we copy ([`copy_of`]) or write to
//! ([`Room`]), batches that stay open without a guard ([`InPlace`]), and what Python reads and
//! writes of ours through the buffer protocol ([`PayloadView`], [`Table`], [`ClaimView`]). Whoever
//! exports memory holds what keeps it alive, so a view that outlives its batch keeps that batch
//! open instead of dangling.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use fastmq::border::fork::is_forked_child;
use fastmq::{Detached, Error, Publisher, Queue, Requester, Result, Status, View};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::wrong_type;
use crate::errors::raise_text;
use crate::lifetime::Kept;

/// Whether the interpreter that calls is the first one of its process.
pub(crate) fn is_main_interpreter(_py: Python<'_>) -> bool {
    // SAFETY: the interpreter is held, so there is one.
    let current = unsafe { ffi::PyInterpreterState_Get() };
    // SAFETY: that is the state of the interpreter that is held.
    unsafe { ffi::PyInterpreterState_GetID(current) == 0 }
}

/// A descriptor of our own for one of the program's.
pub(crate) fn duplicate(number: i32) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: not -1, and used for one call of the system, which checks it.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
}

/// A copy of what a buffer of Python holds, and what its elements are; `None`: it has no buffer.
///
/// Always a copy: whoever holds the buffer may write to it while the engine reads, if only in a
/// handler that the engine calls.
pub(crate) fn copy_of(value: &Bound<'_, PyAny>) -> PyResult<Option<(Vec<u8>, Element)>> {
    let buffer = match PyUntypedBuffer::get(value) {
        Ok(buffer) => buffer,
        // Of a type that has none; whatever else is wrong with it, Python has said.
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err(
            "the buffer is not contiguous; make a contiguous copy of it",
        ));
    }
    let size = buffer.len_bytes();
    let mut bytes: Vec<u8> = Vec::with_capacity(size);
    if size > 0 {
        let (from, to) = (buffer.buf_ptr().cast_const().cast(), bytes.as_mut_ptr());
        // SAFETY: the exporter keeps so many bytes readable until the buffer is released, which is
        // below; so many are reserved, in memory that is new. The interpreter is held.
        unsafe { ptr::copy_nonoverlapping(from, to, size) };
        // SAFETY: so many were reserved and written.
        unsafe { bytes.set_len(size) };
    }
    let is_integer = matches!(
        buffer.format().to_bytes().last(),
        Some(b'b' | b'B' | b'h' | b'H' | b'i' | b'I' | b'l' | b'L' | b'q' | b'Q' | b'n' | b'N')
    );
    let size = buffer.item_size();
    Ok(Some((bytes, Element { size, is_integer })))
}

/// What one element of a buffer is.
pub(crate) struct Element {
    /// Its bytes.
    pub(crate) size: usize,
    /// Whether it is a whole number.
    pub(crate) is_integer: bool,
}

/// Memory of the program's that an answer is written to.
pub(crate) struct Room(PyUntypedBuffer);

impl Room {
    /// Takes a contiguous buffer that can be written to.
    pub(crate) fn of(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(value)?;
        if buffer.readonly() || !buffer.is_c_contiguous() {
            let wanted = "a contiguous buffer to write to";
            return Err(wrong_type("into", wanted, value));
        }
        Ok(Self(buffer))
    }

    /// Writes bytes to its begin; how many they were. TOO_LARGE: it has no room for them.
    pub(crate) fn put(&self, bytes: &Bound<'_, PyBytes>) -> PyResult<usize> {
        let (bytes, room) = (bytes.as_bytes(), self.0.len_bytes());
        let size = bytes.len();
        if size > room {
            let text = format!("the answer has {size} bytes; there is room for {room}");
            return Err(raise_text(Status::TooLarge, &text));
        }
        // SAFETY: the exporter keeps so many bytes writable until the buffer is released, with us;
        // what is read is an object of Python's that nobody writes to. The interpreter is held.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.buf_ptr().cast(), size) };
        Ok(size)
    }
}

/// A batch that is open without a guard; dropping it gives the room back.
#[derive(Debug)]
pub(crate) struct InPlace {
    queue: Queue,
}

impl InPlace {
    /// Receives from a queue.
    #[inline]
    pub(crate) fn receive(queue: &Queue, limit: usize, timeout_ns: u64) -> Result<Self> {
        queue.receive(limit, timeout_ns)?.keep_open();
        Ok(Self {
            queue: queue.clone(),
        })
    }

    /// Receives answers; `queue` is that of the requester.
    #[inline]
    pub(crate) fn receive_answers(
        requester: &mut Requester,
        queue: &Queue,
        limit: usize,
        timeout_ns: u64,
    ) -> Result<Self> {
        assert!(Arc::ptr_eq(requester.place(), queue.place()));
        requester.receive(limit, timeout_ns)?.keep_open();
        Ok(Self {
            queue: queue.clone(),
        })
    }

    /// The messages.
    #[inline]
    pub(crate) fn messages(&self) -> &[View] {
        // SAFETY: `self` was made with an open batch and is the only one that closes it, when it
        // is dropped: after the borrow of this result has ended.
        unsafe { self.queue.place().lanes().open_views() }
    }

    /// When it was received, in Unix nanoseconds; 0: without time stamps.
    pub(crate) fn received_ns(&self) -> u64 {
        self.queue.place().lanes().received_ns()
    }

    /// A copy that outlives the batch.
    pub(crate) fn copy(&self) -> Result<Detached> {
        let mut copy = Detached::copy(self.messages()).ok_or(Error::NO_MEMORY)?;
        copy.received_ns = self.received_ns();
        Ok(copy)
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        if is_forked_child() {
            return;
        }
        // SAFETY: the batch is open, `self` is its only owner, and nobody borrows its views: such
        // a borrow is one of `self`.
        drop(unsafe { self.queue.place().lanes().open_batch() });
        self.queue.place().finish(self.queue.client().broker());
    }
}

/// Fills what Python asks for with read-only or writable bytes, and gives it `owner` to keep.
///
/// # Safety
/// `out` is NULL or the struct that the interpreter gave to `__getbuffer__`; the bytes stay where
/// they are, readable (and writable unless `is_read_only`), as long as `owner` or until its
/// `__releasebuffer__`.
unsafe fn fill(
    owner: Bound<'_, PyAny>,
    out: *mut ffi::Py_buffer,
    (start, size): (*mut c_void, usize),
    is_read_only: bool,
    flags: c_int,
) -> PyResult<()> {
    let Ok(size) = isize::try_from(size) else {
        return Err(PyBufferError::new_err("the buffer is too large"));
    };
    // An empty buffer still wants an address.
    let start = if start.is_null() {
        NonNull::<u8>::dangling().as_ptr().cast()
    } else {
        start
    };
    let is_read_only = c_int::from(is_read_only);
    // SAFETY: by the contract; the call takes a reference of its own to the owner, and refuses
    // NULL and a request to write what is read-only.
    let filled =
        unsafe { ffi::PyBuffer_FillInfo(out, owner.as_ptr(), start, size, is_read_only, flags) };
    match filled {
        0 => Ok(()),
        _ => Err(PyErr::fetch(owner.py())),
    }
}

/// Messages that a batch shows: in place, or copied out.
#[derive(Debug)]
pub(crate) enum Messages {
    /// In the queue's rings.
    InPlace(InPlace),
    /// In memory of their own.
    Detached(Detached),
}

impl Messages {
    /// The messages.
    #[inline]
    pub(crate) fn views(&self) -> &[View] {
        match self {
            Self::InPlace(batch) => batch.messages(),
            Self::Detached(batch) => batch.messages(),
        }
    }

    /// When they were received, in Unix nanoseconds; 0: without time stamps.
    pub(crate) fn received_ns(&self) -> u64 {
        match self {
            Self::InPlace(batch) => batch.received_ns(),
            Self::Detached(batch) => batch.received_ns,
        }
    }
}

/// One payload of a batch, exported read-only; the batch stays open while it is there.
#[pyclass(frozen, module = "fastmq._fastmq")]
pub(crate) struct PayloadView {
    messages: Arc<Messages>,
    index: usize,
}

impl PayloadView {
    /// The payload of the message with this index, which exists.
    pub(crate) fn new(messages: Arc<Messages>, index: usize) -> Self {
        Self { messages, index }
    }
}

#[pymethods]
impl PayloadView {
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        out: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let payload = slf.get().messages.views()[slf.get().index].payload();
        let range = (payload.as_ptr().cast_mut().cast(), payload.len());
        // SAFETY: the interpreter's struct; the payload is in a batch that stays open as long as
        // somebody holds it, and we do.
        unsafe { fill(slf.into_any(), out, range, true, flags) }
    }
}

/// Numbers or bytes of a columnar batch, exported read-only as they are.
///
/// `format` is a code of the module `struct`: what `memoryview` and NumPy read them as.
#[pyclass(frozen, module = "fastmq._fastmq")]
pub(crate) struct Table {
    column: Column,
    shape: [isize; 1],
    strides: [isize; 1],
}

/// What a column holds.
pub(crate) enum Column {
    /// Bytes, one after another.
    Bytes(Vec<u8>),
    /// Numbers of 32 bits.
    Small(Vec<u32>),
    /// Numbers of 64 bits.
    Large(Vec<u64>),
    /// Offsets.
    Offsets(Vec<i64>),
}

impl Table {
    /// Exports a column.
    pub(crate) fn new(column: Column) -> Self {
        let (count, size) = match &column {
            Column::Bytes(bytes) => (bytes.len(), 1),
            Column::Small(numbers) => (numbers.len(), 4),
            Column::Large(numbers) => (numbers.len(), 8),
            Column::Offsets(numbers) => (numbers.len(), 8),
        };
        Self {
            column,
            // A vector has at most so many bytes.
            shape: [count as isize],
            strides: [size],
        }
    }
}

#[pymethods]
impl Table {
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        out: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let table = slf.get();
        let (start, size, format) = match &table.column {
            Column::Bytes(bytes) => (bytes.as_ptr().cast_mut().cast(), bytes.len(), c"B"),
            Column::Small(numbers) => (numbers.as_ptr().cast_mut().cast(), 4 * numbers.len(), c"I"),
            Column::Large(numbers) => (numbers.as_ptr().cast_mut().cast(), 8 * numbers.len(), c"Q"),
            Column::Offsets(numbers) => {
                (numbers.as_ptr().cast_mut().cast(), 8 * numbers.len(), c"q")
            }
        };
        let (shape, strides) = (table.shape.as_ptr(), table.strides.as_ptr());
        // SAFETY: the interpreter's struct; the vector is never changed, and lives as long as the
        // table, which the buffer holds.
        unsafe { fill(slf.clone().into_any(), out, (start, size), true, flags) }?;
        // SAFETY: filled above, so not NULL.
        let out = unsafe { &mut *out };
        // Both live as long as the table, and nobody writes to them.
        out.itemsize = table.strides[0];
        if flags & ffi::PyBUF_FORMAT == ffi::PyBUF_FORMAT {
            out.format = format.as_ptr().cast_mut();
        }
        if flags & ffi::PyBUF_ND == ffi::PyBUF_ND {
            out.shape = shape.cast_mut();
        }
        if flags & ffi::PyBUF_STRIDES == ffi::PyBUF_STRIDES {
            out.strides = strides.cast_mut();
        }
        Ok(())
    }
}

/// A publisher that may have an open claim whose memory Python writes.
pub(crate) struct Claiming {
    publisher: Publisher,
    claim: Option<Open>,
    /// Numbers claims, so that a view of an earlier one finds nothing.
    claims: u64,
    /// Buffers that Python holds of the claim.
    exports: Arc<AtomicUsize>,
}

/// An open claim.
struct Open {
    /// `None` after a commit that was refused, which may have moved the bytes.
    start: Option<NonNull<u8>>,
    size: usize,
}

// SAFETY: the pointer is into memory that the publisher owns, which is `Send`; it is followed only
// by Python, through a buffer whose exporter holds all of this.
unsafe impl Send for Claiming {}

impl Claiming {
    /// A publisher without a claim.
    pub(crate) fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            claim: None,
            claims: 0,
            exports: Arc::default(),
        }
    }

    /// The publisher, to publish. It refuses that while a claim is open.
    #[inline]
    pub(crate) fn publisher(&mut self) -> &mut Publisher {
        &mut self.publisher
    }

    /// Claims room, filled with zeros, and gives the claim's number.
    pub(crate) fn claim(&mut self, size: usize) -> Result<u64> {
        let start = self.publisher.open_claim(size)?;
        // What is there is unspecified, and may be what others have sent.
        // SAFETY: the engine has just given us so many bytes to write, from there on.
        unsafe { ptr::write_bytes(start, 0, size) };
        let start = NonNull::new(start);
        self.claim = Some(Open { start, size });
        self.claims += 1;
        Ok(self.claims)
    }

    /// True while the claim with this number is open.
    pub(crate) fn is_open(&self, number: u64) -> bool {
        self.claim.is_some() && self.claims == number
    }

    /// True while Python can write to the claim.
    pub(crate) fn is_exported(&self) -> bool {
        self.exports.load(Ordering::Acquire) > 0
    }

    /// Publishes the first `size` bytes; the caller has seen that nobody writes to them. What is
    /// refused may be committed again, but not written to.
    pub(crate) fn commit(&mut self, size: usize) -> Result<()> {
        assert!(!self.is_exported(), "somebody writes to the claim");
        if let Some(open) = &mut self.claim {
            open.start = None;
        }
        self.publisher.commit(size)?;
        self.claim = None;
        Ok(())
    }

    /// Gives the claim back; the caller has seen that nobody writes to it.
    pub(crate) fn abandon(&mut self) {
        assert!(!self.is_exported(), "somebody writes to the claim");
        self.publisher.abandon();
        self.claim = None;
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        // Whoever exports holds us, and closing refuses.
        assert!(!self.is_exported(), "somebody writes to the claim");
    }
}

/// The publisher's part that its claims share.
pub(crate) type Shared = Arc<Mutex<Option<Kept<Claiming>>>>;

/// A claim, exported to be written to; the publisher cannot be closed or commit meanwhile.
#[pyclass(frozen, module = "fastmq._fastmq")]
pub(crate) struct ClaimView {
    shared: Shared,
    exports: Arc<AtomicUsize>,
    number: u64,
    /// Whether somebody has the claim itself.
    is_held: Weak<()>,
}

impl ClaimView {
    /// The claim with this number.
    pub(crate) fn new(shared: Shared, claiming: &Claiming, number: u64, is_held: Weak<()>) -> Self {
        Self {
            shared,
            exports: claiming.exports.clone(),
            number,
            is_held,
        }
    }
}

impl Drop for ClaimView {
    /// The last view of a claim that was forgotten.
    fn drop(&mut self) {
        if self.is_held.strong_count() == 0 && !is_forked_child() {
            forget_claim(&self.shared, self.number);
        }
    }
}

/// Gives back a claim that nobody can commit any more, unless somebody can write to it.
pub(crate) fn forget_claim(shared: &Shared, number: u64) {
    if let Ok(mut shared) = shared.try_lock()
        && let Some(claiming) = shared.as_deref_mut()
        && claiming.is_open(number)
        && !claiming.is_exported()
    {
        claiming.abandon();
    }
}

#[pymethods]
impl ClaimView {
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        out: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let refused = |text: &'static str| PyBufferError::new_err(text);
        let Ok(shared) = this.shared.try_lock() else {
            return Err(refused("the publisher is in use"));
        };
        let open = match shared.as_deref() {
            Some(claiming) if claiming.is_open(this.number) => claiming.claim.as_ref(),
            _ => return Err(refused("the claim is over")),
        };
        let Some((start, size)) = open.and_then(|open| Some((open.start?, open.size))) else {
            return Err(refused(
                "the claim was committed once; it can only be committed again",
            ));
        };
        let range = (start.as_ptr().cast(), size);
        // SAFETY: the interpreter's struct; the bytes are the claim's, which is neither committed
        // nor given back while `exports` is not 0.
        unsafe { fill(slf.clone().into_any(), out, range, false, flags) }?;
        // Under the lock: whoever looks at it has that, too.
        this.exports.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    unsafe fn __releasebuffer__(slf: Bound<'_, Self>, _buffer: *mut ffi::Py_buffer) {
        slf.get().exports.fetch_sub(1, Ordering::AcqRel);
    }
}

//! Memory of an asker for its answer, and the loan of it to a responder further down its stack.
//!
//! An answer that is given while its asker waits on the same thread is written once, straight to
//! where the asker wants it. Callers: `engine`, `ffi`.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::words::copy;

/// Memory for one answer, borrowed from the asker, and what came.
#[derive(Debug)]
pub struct ReplyBuffer<'a> {
    data: *mut u8,
    capacity: usize,
    size: usize,
    status: u32,
    bytes: PhantomData<&'a mut [u8]>,
}

impl<'a> ReplyBuffer<'a> {
    /// Memory for an answer of at most this size.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        // SAFETY: a slice is writable while it is borrowed.
        unsafe { Self::from_raw(bytes.as_mut_ptr(), bytes.len()) }
    }

    /// The same by address.
    ///
    /// # Safety
    /// `data` is writable for `capacity` bytes for `'a`, and nobody else uses them meanwhile. It
    /// may be anything if `capacity` is 0.
    #[inline(always)]
    pub unsafe fn from_raw(data: *mut u8, capacity: usize) -> Self {
        Self {
            data,
            capacity,
            size: 0,
            status: 0,
            bytes: PhantomData,
        }
    }

    /// Size of the answer's payload, also if it was larger than the memory.
    #[inline(always)]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The status that the responder gave.
    #[inline(always)]
    pub fn status(&self) -> u32 {
        self.status
    }

    /// True if the answer was larger than the memory; nothing was written then.
    #[inline(always)]
    pub fn is_too_small(&self) -> bool {
        self.size > self.capacity
    }

    /// The size of the memory.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes an answer.
    pub fn put(&mut self, status: u32, payload: &[u8]) {
        self.status = status;
        self.size = payload.len();
        if payload.len() <= self.capacity {
            // SAFETY: `from_raw`'s contract; a slice that is borrowed now lies elsewhere.
            unsafe { copy(payload.as_ptr(), self.data, payload.len()) };
        }
    }

    /// Takes an answer that was written through a [`Loan`].
    #[inline(always)]
    pub fn set_written(&mut self, status: u32, loan: &Loan) {
        self.status = status;
        self.size = loan.written.get();
    }
}

/// Where an asker's memory can be reached while it is lent.
#[derive(Debug, Default)]
pub struct Loan {
    data: Cell<*mut u8>,
    /// The capacity and one, so that 0 means that nothing is lent.
    room: Cell<usize>,
    written: Cell<usize>,
}

impl Loan {
    /// Lends the memory to [`Loan::write`] while `body` runs.
    #[inline(always)]
    pub fn lend<R>(&self, reply: &mut ReplyBuffer<'_>, body: impl FnOnce() -> R) -> R {
        struct TakeBack<'l>(&'l Loan);
        impl Drop for TakeBack<'_> {
            #[inline(always)]
            fn drop(&mut self) {
                self.0.room.set(0);
            }
        }
        self.data.set(reply.data);
        self.room.set(reply.capacity.saturating_add(1));
        // Also when `body` unwinds: the memory is the asker's again.
        let _take_back = TakeBack(self);
        body()
    }

    /// Writes an answer's payload to the memory that is lent. False: nothing is, or it is too
    /// small.
    #[inline(always)]
    pub fn write(&self, payload: &[u8]) -> bool {
        if payload.len() >= self.room.get() {
            return false;
        }
        // SAFETY: `lend` borrows the memory exclusively for as long as `room` is not 0, and it has
        // room; this type is of one thread. A slice that is borrowed now lies elsewhere.
        unsafe { copy(payload.as_ptr(), self.data.get(), payload.len()) };
        self.written.set(payload.len());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_written_where_the_asker_wants_it_and_only_while_it_is_lent() {
        let loan = Loan::default();
        let mut bytes = [0u8; 8];
        let mut reply = ReplyBuffer::new(&mut bytes);
        assert!(!loan.write(b""), "nothing is lent");
        loan.lend(&mut reply, || {
            assert!(!loan.write(b"123456789"), "too large");
            assert!(loan.write(b"12345678"));
            assert!(loan.write(b"abc"));
        });
        assert!(!loan.write(b"later"));
        reply.set_written(7, &loan);
        assert_eq!(
            (reply.size(), reply.status(), reply.is_too_small()),
            (3, 7, false)
        );
        assert_eq!(&bytes, b"abc45678");
    }

    #[test]
    fn memory_is_taken_back_when_the_responder_unwinds() {
        let loan = Loan::default();
        let mut bytes = [0u8; 8];
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            loan.lend(&mut ReplyBuffer::new(&mut bytes), || {
                std::panic::resume_unwind(Box::new(()));
            });
        }));
        assert!(unwound.is_err());
        assert!(!loan.write(b"x"));
        assert_eq!(bytes, [0; 8]);
    }

    #[test]
    fn no_memory_takes_an_empty_answer_and_tells_the_size_of_another() {
        let loan = Loan::default();
        // SAFETY: no bytes.
        let mut reply = unsafe { ReplyBuffer::from_raw(std::ptr::null_mut(), 0) };
        loan.lend(&mut reply, || {
            assert!(loan.write(b""));
            assert!(!loan.write(b"1"));
        });
        reply.put(0, b"1");
        assert!(reply.is_too_small());
        assert_eq!(reply.size(), 1);
        reply.put(0, b"");
        assert!(!reply.is_too_small());
    }
}

//! The atomics and locks of this crate and of those above it: the real ones, loom's when it
//! explores interleavings, or ones that the thread sanitizer sees.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
#[cfg(loom)]
pub use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
#[cfg(not(any(loom, fastmq_tsan)))]
pub use std::sync::{Mutex, MutexGuard, OnceLock};

#[cfg(loom)]
pub use modelled::OnceLock;
#[cfg(all(fastmq_tsan, not(loom)))]
pub use seen::OnceLock;
#[cfg(all(fastmq_tsan, not(loom)))]
pub use seen::{Mutex, MutexGuard};

pub(crate) use std::sync::atomic::Ordering;

#[cfg(loom)]
pub(crate) use loom::thread::yield_now;
#[cfg(not(loom))]
pub(crate) use std::thread::yield_now;

/// The cheap side of the asymmetric fence: between a store and a load of the fast side.
#[inline(always)]
pub(crate) fn fence_light() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    fastmq_driver::fence::light();
}

/// The dear side: after it, every fast side has passed its own fence or will see our stores.
pub(crate) fn fence_heavy() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    fastmq_driver::fence::heavy();
}

/// A fence that another process sees too.
#[inline(always)]
pub(crate) fn fence_full() {
    #[cfg(not(loom))]
    std::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}

/// For loom alone: it takes sequentially consistent loads and stores for acquire and release, and
/// knows the one order of all of them only from fences.
#[inline(always)]
pub(crate) fn fence_of_model() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}

/// Locks a mutex. A panic while it was held cannot leave our data half done (no user code runs
/// under these locks), so poison is ignored.
#[inline]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// Locks a mutex if nobody holds it.
#[inline]
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(poison)) => Some(poison.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}

/// For loom alone: it has no `OnceLock`.
#[cfg(loom)]
mod modelled {
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicBool, Ordering};

    /// A value that is set once, by one thread at a time.
    #[derive(Debug)]
    pub struct OnceLock<T> {
        is_set: AtomicBool,
        value: std::sync::OnceLock<T>,
        /// Loom checks uses of this against the setting and the end.
        access: UnsafeCell<()>,
    }

    // SAFETY: the value is as safe as the standard one's; in the cell there is nothing.
    unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

    impl<T> OnceLock<T> {
        /// No value yet.
        #[must_use]
        pub fn new() -> Self {
            Self {
                is_set: AtomicBool::new(false),
                value: std::sync::OnceLock::new(),
                access: UnsafeCell::new(()),
            }
        }

        /// The value, if it is there.
        pub fn get(&self) -> Option<&T> {
            if !self.is_set.load(Ordering::Acquire) {
                return None;
            }
            self.access.with(|_| self.value.get())
        }

        /// Sets the value, unless there is one.
        pub fn set(&self, value: T) -> Result<(), T> {
            if self.is_set.load(Ordering::Relaxed) {
                return Err(value);
            }
            self.access.with_mut(|_| self.value.set(value))?;
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }
    }

    impl<T> Drop for OnceLock<T> {
        fn drop(&mut self) {
            self.access.with_mut(|_| ());
        }
    }
}

/// For the thread sanitizer alone: what the standard library has is compiled without it, so that
/// what is behind would look like a race. The interfaces are those of the standard ones.
#[cfg(fastmq_tsan)]
mod seen {
    use std::cell::UnsafeCell;
    use std::ops::{Deref, DerefMut};
    use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
    use std::sync::{LockResult, TryLockError, TryLockResult};

    /// A value behind a flag.
    #[derive(Debug, Default)]
    pub struct Mutex<T> {
        is_held: AtomicBool,
        value: UnsafeCell<T>,
    }

    // SAFETY: the value is reached by whoever has set the flag, one at a time.
    unsafe impl<T: Send> Sync for Mutex<T> {}

    impl<T> Mutex<T> {
        /// A lock that nobody holds.
        pub const fn new(value: T) -> Self {
            Self {
                is_held: AtomicBool::new(false),
                value: UnsafeCell::new(value),
            }
        }

        /// Waits for the lock.
        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            loop {
                match self.try_lock() {
                    Ok(guard) => return Ok(guard),
                    Err(_) => std::thread::yield_now(),
                }
            }
        }

        /// Takes the lock if nobody holds it.
        pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
            if self.is_held.swap(true, Ordering::Acquire) {
                return Err(TryLockError::WouldBlock);
            }
            Ok(MutexGuard { mutex: self })
        }
    }

    /// The right to the value, given back when dropped.
    #[derive(Debug)]
    pub struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: this guard has set the flag, and nobody else reaches the value until it
            // is dropped.
            unsafe { &*self.mutex.value.get() }
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: as above, and the guard is borrowed mutably.
            unsafe { &mut *self.mutex.value.get() }
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            self.mutex.is_held.store(false, Ordering::Release);
        }
    }

    const EMPTY: u8 = 0;
    const BUSY: u8 = 1;
    const FULL: u8 = 2;

    /// A value that is set once.
    #[derive(Debug)]
    pub struct OnceLock<T> {
        state: AtomicU8,
        value: UnsafeCell<Option<T>>,
    }

    // SAFETY: one thread writes the value, before the state says that it is there.
    unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

    impl<T> OnceLock<T> {
        /// No value yet.
        #[must_use]
        pub const fn new() -> Self {
            Self {
                state: AtomicU8::new(EMPTY),
                value: UnsafeCell::new(None),
            }
        }

        /// The value, if it is there.
        pub fn get(&self) -> Option<&T> {
            if self.state.load(Ordering::Acquire) != FULL {
                return None;
            }
            // SAFETY: nobody writes it once it is there.
            unsafe { &*self.value.get() }.as_ref()
        }

        /// Sets the value, unless there is one.
        pub fn set(&self, value: T) -> Result<(), T> {
            let order = (Ordering::Relaxed, Ordering::Relaxed);
            let taken = self.state.compare_exchange(EMPTY, BUSY, order.0, order.1);
            if taken.is_err() {
                return Err(value);
            }
            // SAFETY: only whoever made the state BUSY writes, and nobody reads before FULL.
            unsafe { *self.value.get() = Some(value) };
            self.state.store(FULL, Ordering::Release);
            Ok(())
        }
    }

    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            Self::new()
        }
    }
}

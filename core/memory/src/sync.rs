//! The atomics and locks of this crate: the real ones, or loom's when it explores interleavings.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64};
#[cfg(not(any(loom, fastmq_tsan)))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(all(fastmq_tsan, not(loom)))]
pub(crate) use spin::{Mutex, MutexGuard};

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
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// Locks a mutex if nobody holds it.
#[inline]
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(poison)) => Some(poison.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}

/// A lock for the thread sanitizer alone: the standard one is compiled without it, so that what is
/// behind that lock would look like a race. The interface is that of the standard one.
#[cfg(all(fastmq_tsan, not(loom)))]
mod spin {
    use std::cell::UnsafeCell;
    use std::ops::{Deref, DerefMut};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{LockResult, TryLockError, TryLockResult};

    /// A value behind a flag.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T> {
        is_held: AtomicBool,
        value: UnsafeCell<T>,
    }

    // SAFETY: the value is reached by whoever has set the flag, one at a time.
    unsafe impl<T: Send> Sync for Mutex<T> {}

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self {
                is_held: AtomicBool::new(false),
                value: UnsafeCell::new(value),
            }
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            loop {
                match self.try_lock() {
                    Ok(guard) => return Ok(guard),
                    Err(_) => std::thread::yield_now(),
                }
            }
        }

        pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
            if self.is_held.swap(true, Ordering::Acquire) {
                return Err(TryLockError::WouldBlock);
            }
            Ok(MutexGuard { mutex: self })
        }
    }

    /// The right to the value, given back when dropped.
    pub(crate) struct MutexGuard<'a, T> {
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
}

//! The atomics and locks of this crate: the real ones, or loom's when it explores interleavings.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64},
};

pub(crate) use std::sync::atomic::Ordering;

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

//! The log hook: one function of the process that gets what the library has to say.
//!
//! Nothing is ever printed; without a hook nothing is formatted either.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use fastmq_memory::allocation::try_arc;

use crate::error::Result;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something is not as it should be.
    Warn = 2,
    /// Something that happens seldom.
    Info = 3,
    /// Something for the developers.
    Debug = 4,
}

/// Gets (level, target, text).
pub type OnLog = dyn Fn(Level, &str, &str) + Send + Sync;

static LEVEL: AtomicU32 = AtomicU32::new(0);
static HOOK: RwLock<Option<Arc<OnLog>>> = RwLock::new(None);

/// Sets the hook and the least important level it gets; 0 or no hook: nothing.
pub fn set(level: u32, hook: Option<Arc<OnLog>>) {
    let level = if hook.is_some() { level } else { 0 };
    *HOOK.write().unwrap_or_else(PoisonError::into_inner) = hook;
    LEVEL.store(level, Ordering::Release);
}

/// A hook to set.
///
/// # Errors
/// NO_MEMORY.
pub fn hook(on_log: impl Fn(Level, &str, &str) + Send + Sync + 'static) -> Result<Arc<OnLog>> {
    let hook: Arc<OnLog> = try_arc(on_log)?;
    Ok(hook)
}

/// Says something.
pub fn write(level: Level, target: &str, text: &str) {
    if level as u32 > LEVEL.load(Ordering::Acquire) {
        return;
    }
    // Cloned, so that a hook that sets another hook does not wait for itself.
    let hook = HOOK.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(hook) = hook {
        hook(level, target, text);
    }
}

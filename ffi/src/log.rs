//! The log hook: the one function of the process that gets what the library has to say.

use std::ffi::{CStr, c_char, c_void};

use fastmq::log::{self, Level};

use crate::error::boundary;

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum fastmq_log_level {
    /// No lines.
    FASTMQ_LOG_OFF = 0,
    /// Something failed.
    FASTMQ_LOG_ERROR = 1,
    /// Something is not as it should be.
    FASTMQ_LOG_WARN = 2,
    /// Something that happens seldom.
    FASTMQ_LOG_INFO = 3,
    /// Something for the developers.
    FASTMQ_LOG_DEBUG = 4,
}

/// Gets a line of the log; the texts are readable until it returns. It may run on any thread.
pub type fastmq_on_log = Option<
    unsafe extern "C" fn(
        level: u32,
        target: *const c_char,
        text: *const c_char,
        context: *mut c_void,
    ),
>;

/// A pointer of the caller that is passed back on any thread.
#[derive(Clone, Copy)]
pub(crate) struct Context(*mut c_void);

// SAFETY: the library never follows it; the header says that callbacks run on any thread, so what
// it points to is the caller's to protect.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(crate) fn new(context: *mut c_void) -> Self {
        Self(context)
    }

    #[inline(always)]
    pub(crate) fn get(self) -> *mut c_void {
        self.0
    }
}

/// Longest line in bytes; the rest is cut.
const LINE_BYTES_MAX: usize = 1024;

/// Hands a text to `body` as a C string on the stack.
fn with_c_string(text: &str, body: impl FnOnce(&CStr)) {
    let mut line = [0; LINE_BYTES_MAX];
    let mut size = text.len().min(LINE_BYTES_MAX - 1);
    while !text.is_char_boundary(size) {
        size -= 1;
    }
    for (to, from) in line.iter_mut().zip(&text.as_bytes()[..size]) {
        *to = if *from == 0 { b'?' } else { *from };
    }
    if let Ok(line) = CStr::from_bytes_until_nul(&line) {
        body(line);
    }
}

/// Sets what gets the lines of the log up to `level` (fastmq_log_level); NULL or 0: nothing.
///
/// One hook for the process; `context` is passed to it and stays yours. The hook that was set
/// before may still be running on another thread when this returns. Safe from any thread.
///
/// # Safety
/// `on_log` is NULL or may be called with `context` from any thread until another one is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastmq_set_log(level: u32, on_log: fastmq_on_log, context: *mut c_void) {
    boundary(|| {
        let level = level.min(Level::Debug as u32);
        let context = Context::new(context);
        let Some(on_log) = on_log else {
            log::set(0, None);
            return Ok(());
        };
        let hook = move |level: Level, target: &str, text: &str| {
            with_c_string(target, |target| {
                with_c_string(text, |text| {
                    // SAFETY: the caller of `fastmq_set_log` vouches for the function; both texts
                    // live until it returns.
                    unsafe { on_log(level as u32, target.as_ptr(), text.as_ptr(), context.get()) };
                });
            });
        };
        log::set(level, Some(log::hook(hook)?));
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_letters_and_has_no_zero_inside() {
        let check = |text: &str, expected: &str| {
            with_c_string(text, |line| assert_eq!(line.to_str().unwrap(), expected));
        };
        check("", "");
        check("a\0b", "a?b");
        let long = "x".repeat(LINE_BYTES_MAX - 2) + "é";
        check(&long, &long[..LINE_BYTES_MAX - 2]);
    }
}

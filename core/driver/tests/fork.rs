//! A real fork: the child knows that it is one, the parent that it is not, before and after.
//!
//! A binary of its own, because arming lasts for the process.

use fastmq_driver::fork;

#[test]
fn a_child_knows_and_its_parent_does_not() {
    assert!(!fork::is_forked_child());
    assert!(fork::arm());
    assert!(fork::arm(), "a second call changes nothing");
    assert!(!fork::is_forked_child());
    // SAFETY: the child reads two words and ends by `_exit`; nothing else runs in it.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let code = if fork::is_forked_child() { 42 } else { 1 };
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is writable, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(libc::WIFEXITED(status), "status {status}");
    assert_eq!(libc::WEXITSTATUS(status), 42);
    assert!(!fork::is_forked_child());
}

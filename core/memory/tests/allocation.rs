//! Promises of [`fastmq_memory::allocation`]: whatever request for memory is refused, the answer is
//! an error, and nothing is kept.

#![cfg(not(loom))]

use std::alloc::Layout;
use std::rc::Rc;
use std::sync::Arc;

use fastmq_memory::allocation::with_memory;
use fastmq_memory::allocation::{Allocator, NoMemory, try_arc, try_box, try_bytes, try_rc};
use fastmq_test_support::allocation::{Counting, count, refusing};

#[global_allocator]
static ALLOCATOR: Allocator<Counting> = Allocator::over(Counting);

/// On lines of its own, so that the system must align it by hand.
#[repr(align(128))]
struct Aligned([u64; 3]);

/// Refuses each of the requests of `make` in turn; says how many there were.
fn check<T>(make: impl Fn() -> Result<T, NoMemory>, is_right: impl Fn(&T) -> bool) -> u64 {
    for k in 1.. {
        let (made, is_refused) = refusing(k, &make);
        assert_eq!(made.is_err(), is_refused, "request {k}");
        if let Ok(made) = made {
            assert!(is_right(&made));
            return k - 1;
        }
    }
    unreachable!("every request was refused")
}

#[test]
fn what_is_refused_is_an_error_and_what_is_not_is_right() {
    assert_eq!(check(|| try_box([7_u64; 9]), |made| **made == [7; 9]), 1);
    assert_eq!(check(|| try_bytes(b"abc"), |made| **made == *b"abc"), 1);
    assert_eq!(check(|| try_bytes(b""), |made| made.is_empty()), 0);
    assert_eq!(check(|| try_arc(1_u8), |made| **made == 1), 1);
    assert_eq!(check(|| try_rc(()), |made| Rc::strong_count(made) == 1), 1);
    let is_aligned =
        |made: &Arc<Aligned>| Arc::as_ptr(made).addr().is_multiple_of(128) && made.0 == [1, 2, 3];
    assert_eq!(check(|| try_arc(Aligned([1, 2, 3])), is_aligned), 1);
}

#[test]
fn memory_that_was_taken_serves_what_cannot_ask() {
    let layouts = [Layout::new::<[u64; 8]>(), Layout::new::<[u64; 4]>()];
    let make = || {
        let zeros = vec![0_u64; 5];
        (zeros, Box::new([1_u64; 4]))
    };
    let made = check(
        || with_memory(&layouts, make),
        |(zeros, ones)| zeros.iter().all(|zero| *zero == 0) && **ones == [1; 4],
    );
    assert_eq!(made, 2, "nothing but what was taken");
}

#[test]
fn memory_that_was_taken_serves_growth_that_is_refused() {
    let layouts = [Layout::new::<[u64; 2]>(), Layout::new::<[u64; 8]>()];
    let grow = || {
        let mut numbers = Vec::with_capacity(2);
        numbers.extend([1_u64, 2]);
        numbers.extend([3, 4, 5]);
        numbers
    };
    // The third request is the growth.
    let (grown, is_refused) = refusing(3, || with_memory(&layouts, grow));
    assert!(is_refused);
    assert_eq!(grown.unwrap(), [1, 2, 3, 4, 5]);
}

#[test]
fn what_was_taken_and_not_used_is_given_back() {
    let before = count();
    let layouts = [Layout::new::<u64>(); 3];
    let inner = || with_memory(&layouts[..1], || drop(Box::new(1_u64)));
    let made = with_memory(&layouts, inner).unwrap();
    assert_eq!(made, Ok(()));
    let (unwound, is_refused) = refusing(u64::MAX, || {
        std::panic::catch_unwind(|| {
            with_memory(&layouts, || std::panic::resume_unwind(Box::new(0)))
        })
    });
    assert!(unwound.is_err() && !is_refused);
    // Nothing of it is handed out any more.
    let now = count();
    assert!(now > before);
    drop(std::hint::black_box(Box::new(1_u64)));
    assert_eq!(count(), now + 1);
}

//! What changes of the table leave behind is freed while they go on. Alone in its process: any
//! other pin would hold it back.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fastmq_route::Interest;

/// Counts the living, and the most there ever were.
struct Counted(Arc<[AtomicUsize; 2]>);

impl Counted {
    fn new(counts: &Arc<[AtomicUsize; 2]>) -> Self {
        let living = counts[0].fetch_add(1, Ordering::Relaxed) + 1;
        counts[1].fetch_max(living, Ordering::Relaxed);
        Self(counts.clone())
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0[0].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Threads that wait for their turn to change the table hold nothing back: only the one whose turn
/// it is has a pin.
#[test]
fn threads_that_wait_to_change_the_table_hold_nothing_back() {
    const THREADS: u32 = 8;
    const CHANGES: u32 = if cfg!(fastmq_tsan) { 500 } else { 5_000 };
    const STAYING: u32 = 40;
    // A few pages of 58 cells, which wait for the change after next.
    const LIVING_MAX: usize = 20 * 58;
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let interest = Arc::new(Interest::new(1));
    let insert = |id: u32, pattern: &str| {
        let value = Counted::new(&counts);
        interest.insert(id, pattern.as_bytes(), value).unwrap();
    };
    (0..STAYING).for_each(|id| insert(id, &format!("stays.{id}")));
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS)
            .map(|id| {
                let (interest, insert) = (&interest, &insert);
                scope.spawn(move || {
                    let (id, pattern) = (STAYING + id, format!("goes.{id}"));
                    for _ in 0..CHANGES {
                        insert(id, &pattern);
                        assert!(interest.remove(pattern.as_bytes(), id).is_some());
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    let most = counts[1].load(Ordering::Relaxed);
    assert!(most < LIVING_MAX, "{most} values were alive at once");
    assert_eq!(interest.len(), STAYING as usize);
}

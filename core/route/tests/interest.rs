//! What `Interest` promises: it finds exactly what a scan of all patterns would, while
//! subscriptions come and go, and its stamps tell when an answer no longer holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fastmq_memory::snapshot::pin;
use fastmq_route::{Interest, matches};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Subscription(Arc<(String, usize)>);

impl Subscription {
    fn new(pattern: &str, number: usize) -> Self {
        Self(Arc::new((pattern.to_string(), number)))
    }

    fn pattern(&self) -> &[u8] {
        self.0.0.as_bytes()
    }

    fn id(&self) -> u32 {
        self.0.1 as u32
    }
}

fn insert(interest: &Interest<Subscription>, subscription: &Subscription) {
    let (id, pattern) = (subscription.id(), subscription.pattern());
    interest.insert(id, pattern, subscription.clone()).unwrap();
}

fn is_removed(interest: &Interest<Subscription>, subscription: &Subscription) -> bool {
    let removed = interest.remove(subscription.pattern(), subscription.id());
    removed.is_some_and(|removed| Arc::ptr_eq(&removed.value().0, &subscription.0))
}

fn found(interest: &Interest<Subscription>, subject: &str) -> Vec<usize> {
    let mut out = Vec::new();
    interest.lookup(subject.as_bytes(), &mut out);
    let mut numbers: Vec<usize> = out.iter().map(|entry| entry.id() as usize).collect();
    numbers.sort_unstable();
    numbers
}

fn scanned(all: &[Subscription], subject: &str) -> Vec<usize> {
    let hits = all
        .iter()
        .filter(|s| matches(s.pattern(), subject.as_bytes()));
    let mut numbers: Vec<usize> = hits.map(|subscription| subscription.0.1).collect();
    numbers.sort_unstable();
    numbers
}

/// A few tokens, so that patterns and subjects meet often.
fn token() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "a*", "long-token-of-many-bytes"])
}

fn subject() -> impl Strategy<Value = String> {
    prop::collection::vec(token(), 1..6).prop_map(|tokens| tokens.join("."))
}

fn pattern() -> impl Strategy<Value = String> {
    let token = prop_oneof![3 => token(), 1 => Just("*")];
    (prop::collection::vec(token, 0..5), any::<bool>()).prop_map(|(mut tokens, is_open)| {
        if is_open || tokens.is_empty() {
            tokens.push(">");
        }
        tokens.join(".")
    })
}

#[derive(Clone, Debug)]
enum Step {
    Insert(String, usize),
    Remove(usize),
    Lookup(String),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // Several at once, so that crowds form.
        3 => (pattern(), 1..9_usize).prop_map(|(pattern, count)| Step::Insert(pattern, count)),
        2 => any::<usize>().prop_map(Step::Remove),
        2 => subject().prop_map(Step::Lookup),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn a_lookup_equals_a_scan(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..120),
        subjects in prop::collection::vec(subject(), 1..20),
    ) {
        let interest = Interest::new(seed);
        let mut all = Vec::new();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Insert(pattern, count) => {
                    for _ in 0..count {
                        number += 1;
                        let subscription = Subscription::new(&pattern, number);
                        insert(&interest, &subscription);
                        all.push(subscription);
                    }
                }
                Step::Remove(index) => {
                    if !all.is_empty() {
                        let subscription = all.swap_remove(index % all.len());
                        prop_assert!(is_removed(&interest, &subscription));
                        prop_assert!(!is_removed(&interest, &subscription));
                    }
                }
                Step::Lookup(subject) => {
                    prop_assert_eq!(found(&interest, &subject), scanned(&all, &subject));
                }
            }
            prop_assert_eq!(interest.len(), all.len());
        }
        for subject in subjects {
            prop_assert_eq!(found(&interest, &subject), scanned(&all, &subject));
        }
    }

    #[test]
    fn a_stamp_is_void_exactly_when_the_answer_could_change(
        before in prop::collection::vec(pattern(), 0..6),
        change in pattern(),
        subject in subject(),
    ) {
        let interest = Interest::new(1);
        for (number, pattern) in before.iter().enumerate() {
            insert(&interest, &Subscription::new(pattern, number));
        }
        let subscription = Subscription::new(&change, 99);
        let is_match = matches(change.as_bytes(), subject.as_bytes());
        for is_insert in [true, false] {
            let stamp = interest.lookup(subject.as_bytes(), &mut Vec::new());
            prop_assert!(interest.is_current(&stamp));
            if is_insert {
                insert(&interest, &subscription);
            } else {
                prop_assert!(is_removed(&interest, &subscription));
            }
            prop_assert!(!is_match || !interest.is_current(&stamp), "{} {}", change, subject);
        }
    }
}

#[test]
fn a_change_elsewhere_voids_nothing() {
    let interest = Interest::new(1);
    let stamp = interest.lookup(b"flight.LAX.7", &mut Vec::new());
    for i in 0..50 {
        for pattern in [
            format!("x{i}.>"),
            format!("flight.x{i}.*"),
            format!("y{i}.*.7"),
            format!("z.{i}"),
        ] {
            let subscription = Subscription::new(&pattern, i);
            insert(&interest, &subscription);
            assert!(interest.is_current(&stamp), "after {pattern} came");
            assert!(is_removed(&interest, &subscription));
            assert!(interest.is_current(&stamp), "after {pattern} went");
        }
    }
    for pattern in ["flight.LAX.7", "flight.*.7", "flight.LAX.>", "*.LAX.7", ">"] {
        let stamp = interest.lookup(b"flight.LAX.7", &mut Vec::new());
        let subscription = Subscription::new(pattern, 1);
        insert(&interest, &subscription);
        assert!(!interest.is_current(&stamp), "after {pattern} came");
        let stamp = interest.lookup(b"flight.LAX.7", &mut Vec::new());
        assert!(is_removed(&interest, &subscription));
        assert!(!interest.is_current(&stamp), "after {pattern} went");
    }
}

#[test]
fn thousands_of_shapes_only_cost_time() {
    let interest = Interest::new(3);
    let mut all = Vec::new();
    for mask in 0..2_048_usize {
        let tokens: Vec<&str> = (0..11)
            .map(|i| if mask >> i & 1 == 1 { "*" } else { "t" })
            .collect();
        for end in ["", ".>"] {
            let pattern = tokens.join(".") + end;
            let subscription = Subscription::new(&pattern, all.len());
            insert(&interest, &subscription);
            all.push(subscription);
        }
    }
    let subject = ["t"; 11].join(".");
    assert_eq!(found(&interest, &subject).len(), 2_048);
    assert_eq!(found(&interest, &(subject.clone() + ".u")).len(), 2_048);
    let other = "x.".repeat(10) + "t";
    assert_eq!(found(&interest, &other), scanned(&all, &other));
    assert!(
        all.iter()
            .all(|subscription| is_removed(&interest, subscription))
    );
    assert!(interest.is_empty());
    assert!(found(&interest, &subject).is_empty());
}

#[test]
fn what_is_removed_is_dropped() {
    let interest = Interest::new(4);
    let subscriptions: Vec<Subscription> = (0..3_000)
        .map(|i| Subscription::new(if i % 2 == 0 { "same.>" } else { "own" }, i))
        .collect();
    for subscription in &subscriptions {
        insert(&interest, subscription);
    }
    for subscription in &subscriptions {
        assert!(is_removed(&interest, subscription));
    }
    let is_back = || subscriptions.iter().all(|s| Arc::strong_count(&s.0) == 1);
    // Reclamation is a matter of turns, not of time; other tests of this process hold pins, too.
    let turns = (0..1_000_000).take_while(|_| {
        pin().flush();
        thread::yield_now();
        !is_back()
    });
    assert!(turns.count() < 1_000_000, "handles are still held");
}

#[test]
fn subscriptions_that_stay_are_found_once_while_others_come_and_go() {
    const STABLE: usize = 200;
    const CHANGES: usize = 30_000;
    let interest = Interest::new(5);
    // For each subject: a literal, a wildcard and a crowd that all have.
    for i in 0..STABLE {
        insert(&interest, &Subscription::new(&format!("s.{i}"), i));
    }
    for i in 0..40 {
        insert(&interest, &Subscription::new("s.*", 1_000 + i));
    }
    let is_over = AtomicBool::new(false);
    let lookups = AtomicU64::new(0);
    thread::scope(|scope| {
        let readers = [0, 1].map(|reader| {
            let (interest, is_over, lookups) = (&interest, &is_over, &lookups);
            scope.spawn(move || {
                let mut out = Vec::new();
                for i in (reader..).step_by(7) {
                    let subject = i % STABLE;
                    out.clear();
                    interest.lookup(format!("s.{subject}").as_bytes(), &mut out);
                    let mut stable: Vec<usize> = out
                        .iter()
                        .map(|entry| entry.id() as usize)
                        .filter(|&number| number < 100_000)
                        .collect();
                    stable.sort_unstable();
                    let expected: Vec<usize> =
                        std::iter::once(subject).chain(1_000..1_040).collect();
                    assert_eq!(stable, expected);
                    let count = out.len();
                    out.sort_unstable_by_key(|entry| entry.id());
                    out.dedup_by_key(|entry| entry.id());
                    assert_eq!(out.len(), count, "a subscription was found twice");
                    lookups.fetch_add(1, Ordering::Relaxed);
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            })
        });
        // The table grows and shrinks, pages split and merge, the crowd grows and shrinks.
        let mut live: Vec<Subscription> = Vec::new();
        for i in 0..CHANGES {
            let is_growing = i / 3_000 % 2 == 0;
            if is_growing || live.is_empty() {
                let pattern = match i % 4 {
                    0 => "s.*".to_string(),
                    1 => format!("s.{}", i % STABLE),
                    2 => format!("other.{i}.*"),
                    _ => format!("other.{i}"),
                };
                let subscription = Subscription::new(&pattern, 100_000 + i);
                insert(&interest, &subscription);
                live.push(subscription);
            } else {
                let subscription = live.swap_remove(i * 31 % live.len());
                assert!(is_removed(&interest, &subscription));
            }
        }
        is_over.store(true, Ordering::Relaxed);
        // By hand: ThreadSanitizer does not see the end of a scope (tests/support/tsan.txt).
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert!(lookups.load(Ordering::Relaxed) >= 2);
}

/// A reader keeps one cached answer, as a publisher does. Whenever the writer has returned from
/// a change (and said so), a stamp that is still current must belong to an answer with it.
#[test]
fn a_current_stamp_never_hides_a_finished_change() {
    const ROUNDS: u64 = 30_000;
    let interest = Interest::new(6);
    // Odd: the subscription is there for certain; even: it is gone for certain.
    let announced = AtomicU64::new(0);
    let started = AtomicU64::new(0);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let patterns = ["news.*", "news.x", ">", "*.x"];
            let subscriptions: Vec<Subscription> = (0..)
                .zip(patterns)
                .map(|(number, pattern)| Subscription::new(pattern, number))
                .collect();
            for round in 0..ROUNDS {
                let subscription = &subscriptions[round as usize % patterns.len()];
                started.store(2 * round + 1, Ordering::SeqCst);
                insert(&interest, subscription);
                announced.store(2 * round + 1, Ordering::SeqCst);
                // Noise that moves the global generation only.
                let noise = Subscription::new("elsewhere.y", 9);
                insert(&interest, &noise);
                assert!(is_removed(&interest, &noise));
                started.store(2 * round + 2, Ordering::SeqCst);
                assert!(is_removed(&interest, subscription));
                announced.store(2 * round + 2, Ordering::SeqCst);
            }
        });
        let reader = scope.spawn(|| {
            let mut cached = Vec::new();
            let mut stamp = interest.lookup(b"news.x", &mut cached);
            loop {
                let finished = announced.load(Ordering::SeqCst);
                if !interest.is_current(&stamp) {
                    cached.clear();
                    stamp = interest.lookup(b"news.x", &mut cached);
                }
                // Only if nothing began meanwhile is it known what the answer has to be.
                if started.load(Ordering::SeqCst) == finished {
                    let expected = (finished % 2) as usize;
                    assert_eq!(cached.len(), expected, "after change {finished}");
                }
                if finished == 2 * ROUNDS {
                    break;
                }
            }
        });
        // By hand, as above.
        for thread in [writer, reader] {
            thread.join().unwrap();
        }
    });
}

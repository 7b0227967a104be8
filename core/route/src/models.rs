//! Models of the table and of the stamps: loom walks through every interleaving, up to its
//! preemption bound, of the code that ships. Pages have four cells here, and a third entry of one
//! key makes a crowd. That no cell is read after its end is checked by `memory::sync::OnceLock`.

use std::sync::Arc;

use fastmq_memory::snapshot::pin;
use loom::thread;

use crate::interest::Interest;
use crate::page::{CELLS, home_of, tag_of};
use crate::table::Table;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(model);
}

/// A key with this home and tag.
fn key(home: usize, tag: u32) -> u64 {
    let high = ((home as u64) << 32).div_ceil(CELLS as u64);
    let key = high << 32 | u64::from(tag);
    assert_eq!((home_of(key), tag_of(key)), (home, tag));
    key
}

/// A table with an entry for each tag, which is its id too; all are at home in one cell.
fn table(tags: &[u32]) -> Table<u32> {
    let table = Table::new();
    tags.iter().for_each(|tag| insert(&table, *tag, *tag));
    table
}

fn insert(table: &Table<u32>, tag: u32, id: u32) {
    table
        .insert(key(1, tag), id, b"", !id, &pin())
        .expect("a model has memory and sound threads");
}

fn remove(table: &Table<u32>, tag: u32, id: u32) {
    let removed = table.remove(key(1, tag), id, &pin());
    assert!(removed.is_some_and(|entry| *entry.value() == !id));
}

/// How often an entry is found.
fn found(table: &Table<u32>, tag: u32, id: u32) -> usize {
    let (mut count, pin) = (0, pin());
    table.probe(key(1, tag), &pin).visit(&pin, |entry| {
        assert_eq!(*entry.value(), !entry.id());
        count += usize::from(entry.id() == id);
    });
    count
}

/// While `change` is made to a table with entries of these tags, one that stays is found once.
fn check_change(tags: &'static [u32], stays: u32, change: fn(&Table<u32>)) {
    check(move || {
        let table = Arc::new(table(tags));
        let reader = {
            let table = table.clone();
            thread::spawn(move || assert_eq!(found(&table, stays, stays), 1))
        };
        change(&table);
        reader.join().expect("a model has memory and sound threads");
        assert_eq!(found(&table, stays, stays), 1);
    });
}

#[test]
fn an_entry_is_found_once_while_its_page_is_split() {
    check_change(&[0, 1, 2, 3], 3, |table| {
        insert(table, 4, 4);
        assert_eq!(found(table, 4, 4), 1);
    });
}

#[test]
fn an_entry_is_found_once_while_its_page_is_split_twice() {
    // All but one have a low bit in common: the first split frees one cell.
    check_change(&[0, 2, 4, 6], 6, |table| insert(table, 8, 8));
}

#[test]
fn an_entry_is_found_once_while_its_page_is_merged() {
    check_change(&[0, 2, 4, 3, 1], 3, |table| {
        for gone in [0, 2, 4, 1] {
            remove(table, gone, gone);
        }
    });
}

#[test]
fn an_entry_is_found_once_while_its_page_is_copied() {
    check_change(&[0, 1], 1, |table| {
        remove(table, 0, 0);
        insert(table, 5, 5);
        remove(table, 5, 5);
    });
}

#[test]
fn an_entry_is_found_once_while_it_comes_into_a_crowd_and_others_go() {
    check(|| {
        let table = Arc::new(table(&[7]));
        insert(&table, 7, 17);
        let reader = {
            let table = table.clone();
            thread::spawn(move || assert_eq!(found(&table, 7, 7), 1))
        };
        insert(&table, 7, 27);
        remove(&table, 7, 17);
        reader.join().expect("a model has memory and sound threads");
        assert_eq!([7, 17, 27].map(|id| found(&table, 7, id)), [1, 0, 1]);
    });
}

#[test]
fn an_entry_whose_insert_or_removal_was_heard_of_is_seen_so() {
    check(|| {
        let table = Arc::new(table(&[0, 1, 2, 3]));
        let heard = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let reader = {
            let (table, heard) = (table.clone(), heard.clone());
            thread::spawn(move || {
                if heard.load(loom::sync::atomic::Ordering::Acquire) {
                    assert_eq!([1, 5].map(|tag| found(&table, tag, tag)), [0, 1]);
                }
            })
        };
        insert(&table, 5, 5);
        remove(&table, 1, 1);
        heard.store(true, loom::sync::atomic::Ordering::Release);
        reader.join().expect("a model has memory and sound threads");
    });
}

/// A lookup beside a change: an answer that misses it is not current afterwards.
fn check_stamp(before: &'static [&'static str], pattern: &'static str, subject: &'static str) {
    check(move || {
        let interest = Arc::new(Interest::new(1));
        for (id, pattern) in (10..).zip(before) {
            interest
                .insert(id, pattern.as_bytes(), 0_u32)
                .expect("a model has memory and sound threads");
        }
        let reader = {
            let interest = interest.clone();
            thread::spawn(move || {
                let mut found = Vec::new();
                let stamp = interest.lookup(subject.as_bytes(), &mut found);
                // A check beside the change must not take it for one that the answer knows.
                let _ = interest.is_current(&stamp);
                (stamp, found.iter().filter(|entry| entry.id() == 1).count())
            })
        };
        interest
            .insert(1, pattern.as_bytes(), 0)
            .expect("a model has memory and sound threads");
        let (stamp, count) = reader.join().expect("a model has memory and sound threads");
        assert!(count == 1 || !interest.is_current(&stamp));
        assert!(count <= 1);
        let current = interest.lookup(subject.as_bytes(), &mut Vec::new());
        assert!(interest.remove(pattern.as_bytes(), 1).is_some());
        assert!(!interest.is_current(&current));
    });
}

#[test]
fn an_answer_that_misses_the_first_subscription_is_not_current() {
    check_stamp(&[], "a.b", "a.b");
}

#[test]
fn an_answer_that_misses_a_subscription_is_not_current() {
    check_stamp(&["a.b", "a.c"], "a.*", "a.b");
}

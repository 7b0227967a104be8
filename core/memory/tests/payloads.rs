//! Payloads by descriptor in queues: every reference goes back, whichever way its record leaves.

#![cfg(not(loom))]

mod fixture;

use fastmq_memory::reader::FillError;
use fastmq_memory::record::{Draft, RecordError, flag};
use fastmq_memory::{LaneWriter, Policy, Pushed, Refused};

use fixture::{Owned, Place, Random, message, with_seeds};

const POLICIES: [Policy; 3] = [Policy::Backpressure, Policy::DropOldest, Policy::DropNewest];

/// Writes a payload once for all `writers` and pushes its descriptor through each; as the engine
/// does, gives back the references of those that did not take it. Returns how many did.
fn publish(
    place: &Place,
    writers: &mut [LaneWriter],
    payload: &[u8],
    sequence: u64,
    expiry: Option<u64>,
) -> u32 {
    let count = writers.len() as u32;
    let descriptor = place
        .blocks
        .write(payload, count)
        .expect("memory for a block");
    let bytes = descriptor.to_bytes();
    let mut draft = message(b"big", &bytes, sequence);
    draft.flags |= flag::BLOCK;
    if let Some(expiry) = expiry {
        draft.flags |= flag::EXPIRY;
        draft.expiry = expiry;
    }
    let mut written = 0;
    for writer in writers {
        match writer.push(&draft, 0) {
            Ok(Pushed::Written) => written += 1,
            Ok(Pushed::Dropped) | Err(Refused::Full) => {}
            Err(refused) => panic!("{refused:?}"),
        }
        let _ = writer.take_evicted();
    }
    assert!(place.blocks.release(&descriptor, count - written));
    written
}

fn check_none_left(place: &Place) {
    let usage = place.blocks.usage();
    assert_eq!((usage.blocks, usage.live_bytes), (0, 0));
}

#[test]
fn a_block_is_read_in_place_and_given_back_with_its_batch() {
    for policy in POLICIES {
        let place = Place::new(policy, 1 << 16);
        let mut writers = [place.writer(), place.writer()];
        let payload = Random::new(1).bytes(5000);
        assert_eq!(publish(&place, &mut writers, &payload, 1, None), 2);
        let mut reader = place.queue.reader().unwrap();
        reader.fill(1, &|| 0, |_| true).unwrap();
        let batch = reader.into_batch();
        assert_eq!(Owned::of(&batch.messages()[0]).payload, payload);
        assert_eq!(
            batch.messages()[0].payload().as_ptr().addr() % 64,
            0,
            "not copied"
        );
        assert!(place.queue.reader().is_err(), "a batch is open");
        let detached = batch.detach().expect("memory");
        assert_eq!(place.blocks.usage().blocks, 1);
        drop(batch);
        assert_eq!(place.read_all().len(), 1);
        check_none_left(&place);
        assert_eq!(
            detached.messages()[0].payload(),
            payload,
            "a copy of its own"
        );
    }
}

#[test]
fn whichever_way_a_record_leaves_its_block_goes_back() {
    for policy in POLICIES {
        with_seeds("whichever_way", 40, |random| {
            let place = Place::new(policy, 4096);
            let mut writers: Vec<LaneWriter> = (0..3).map(|_| place.writer()).collect();
            let mut now = 0;
            for sequence in 1..=400 {
                let size = random.below(3000) as usize;
                let payload = vec![sequence as u8; size];
                let expiry = random.one_in(4).then(|| now + random.below(20));
                publish(&place, &mut writers, &payload, sequence, expiry);
                now += random.below(10);
                match random.below(12) {
                    // Read, expired or left out by the visitor.
                    0 => {
                        for seen in place.read_at(1 + random.below(100) as usize, now) {
                            let byte = seen.sequence as u8;
                            assert!(seen.payload.iter().all(|seen| *seen == byte), "reused");
                        }
                    }
                    1 => {
                        let mut reader = place.queue.reader().unwrap();
                        reader
                            .fill(20, &|| now, |visit| visit.view().sequence % 2 == 0)
                            .unwrap();
                    }
                    _ => {}
                }
            }
            if random.one_in(2) {
                place.queue.close();
                drop(writers);
                assert!(place.queue.purge(|_, _| ()));
            } else {
                place.read_all();
                drop(writers);
            }
            check_none_left(&place);
            assert!(place.blocks.usage().cached_bytes <= place.budget.used());
        });
    }
}

#[test]
fn a_descriptor_that_names_no_block_is_an_error_and_the_next_record_is_read() {
    for policy in POLICIES {
        let place = Place::new(policy, 1 << 14);
        let mut writer = place.writer();
        let stale = place.blocks.write(b"gone", 1).unwrap();
        assert!(place.blocks.release(&stale, 1));
        let draft = Draft {
            flags: flag::BLOCK,
            subject: b"s",
            payload: &stale.to_bytes(),
            ..Draft::default()
        };
        let _ = writer.push(&draft, 0).unwrap();
        let _ = writer.push(&message(b"s", b"after", 2), 0).unwrap();
        let mut reader = place.queue.reader().unwrap();
        let error = reader.fill(10, &|| 0, |_| true).unwrap_err();
        assert_eq!(error, FillError::Damaged(RecordError::Block));
        drop(reader);
        assert_eq!(place.read_all()[0].payload, b"after");
        let _ = writer.push(&draft, 0).unwrap();
        let _ = writer.push(&draft, 0).unwrap();
        let _ = writer.push(&message(b"s", b"behind", 3), 0).unwrap();
        let mut purged = Vec::new();
        place.queue.close();
        assert!(
            place
                .queue
                .purge(|view, _| purged.push(view.payload().to_vec()))
        );
        assert_eq!(purged, [b"behind"]);
    }
}

#[test]
fn blocks_count_against_the_memory_cap() {
    let place = Place::with_memory_max(Policy::Backpressure, 1 << 20, 1 << 20);
    let mut writer = place.writer();
    let _ = writer.push(&message(b"s", b"", 1), 0).unwrap();
    let mut descriptors = Vec::new();
    while let Ok(descriptor) = place.blocks.write(&[1; 100_000], 1) {
        descriptors.push(descriptor);
    }
    assert!(descriptors.len() >= 6, "{} of 128 KiB", descriptors.len());
    assert!(place.budget.used() <= place.budget.max());
    for descriptor in &descriptors {
        assert!(place.blocks.release(descriptor, 1));
    }
    assert!(place.blocks.write(&[1; 100_000], 1).is_ok());
}

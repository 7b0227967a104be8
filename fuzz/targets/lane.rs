//! A lane over whose memory a hostile writer scribbles: each record that the reader takes lies
//! where its bytes are, all others are refused, and the reader ends.
//! Input: 8 bytes of tail, then the ring.
#![no_main]

use fastmq_memory::lane::lane;
use fastmq_memory::words::HeapWords;
use libfuzzer_sys::fuzz_target;

const CAPACITY: u64 = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((tail, ring)) = data.split_first_chunk() else {
        return;
    };
    let tail = u64::from_le_bytes(*tail);
    let ring = &ring[..ring.len().min(CAPACITY as usize)];
    let Ok((mut producer, mut consumer)) = lane::<HeapWords>(CAPACITY, None, None) else {
        return;
    };
    // Usually a tail that could be; else any.
    let tail = if tail % 4 == 0 {
        tail
    } else {
        tail % (CAPACITY + 64)
    };
    producer.scribble(0, ring, tail);
    let mut record = Vec::new();
    for _ in 0..=CAPACITY / 8 {
        match consumer.next_copied(&mut record) {
            Ok(Some(parsed)) => {
                assert_eq!(parsed.step, record.len() as u64);
                assert!(parsed.step <= CAPACITY / 2 && consumer.held_bytes() <= CAPACITY);
                let fields = [
                    (parsed.payload_at as usize, parsed.payload_size as usize),
                    (
                        parsed.payload_at as usize + parsed.payload_size as usize,
                        parsed.subject_size as usize,
                    ),
                ];
                for (at, size) in fields {
                    assert!(
                        record.get(at..at + size).is_some(),
                        "a field outside its record"
                    );
                }
            }
            Ok(None) => {
                consumer.release();
                return;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert_eq!(
                    consumer.next_copied(&mut record),
                    Err(error),
                    "it stays refused"
                );
                consumer.release();
                return;
            }
        }
    }
    panic!("more records than the ring has room for");
});

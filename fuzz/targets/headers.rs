//! Encoded headers: any bytes are read without panic, and what was added comes out.
#![no_main]

use fastmq::headers::{self, Headers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (mut cursor, mut read) = (0, Headers::new());
    let end = loop {
        match headers::next(data, cursor) {
            Ok(Some((name, value, after))) => {
                assert!(after > cursor && after <= data.len());
                assert!(headers::get(data, name).is_ok(), "it is found by its name");
                cursor = after;
                if read.add(name, value).is_err() {
                    // A name that only a hostile writer gives, or too many bytes.
                    return;
                }
            }
            Ok(None) => break cursor,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break cursor;
            }
        }
    };
    assert_eq!(
        read.as_bytes(),
        &data[..end],
        "one encoding for one meaning"
    );
    // Any place to start from is refused or read.
    for start in 0..data.len().min(64) {
        let _ = headers::next(data, start);
    }
});

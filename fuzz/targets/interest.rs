//! The interest table against a scan of all patterns, while subscriptions come and go.
//! Input: steps of a byte that says what to do, and bytes that choose the tokens.
#![no_main]

use fastmq_route::{Interest, matches};
use libfuzzer_sys::fuzz_target;

const TOKENS: [&str; 8] = [
    "a",
    "b",
    "c",
    "a*",
    "*",
    "*",
    ">",
    "a.long.token.of.many.bytes",
];

/// A pattern of up to four tokens; without `with_wildcards` a subject.
fn text(choice: u8, more: u8, with_wildcards: bool) -> String {
    let count = 1 + usize::from(choice & 3);
    let mut bits = u32::from(choice >> 2) | u32::from(more) << 6;
    let mut text = String::new();
    for at in 0..count {
        let token = match TOKENS[(bits & 7) as usize] {
            "*" | ">" if !with_wildcards => "d",
            ">" if at + 1 < count => "e",
            token => token,
        };
        bits >>= 3;
        if at > 0 {
            text.push('.');
        }
        text.push_str(token);
    }
    text
}

fuzz_target!(|data: &[u8]| {
    let interest = Interest::new(1);
    let mut all: Vec<(u32, String)> = Vec::new();
    let mut out = Vec::new();
    for (step, bytes) in data.chunks_exact(3).take(500).enumerate() {
        match bytes[0] % 4 {
            0 | 1 => {
                let pattern = text(bytes[1], bytes[2], true);
                interest
                    .insert(step as u32, pattern.as_bytes(), step as u64)
                    .expect("memory");
                all.push((step as u32, pattern));
            }
            2 if !all.is_empty() => {
                let (id, pattern) = all.swap_remove(bytes[1] as usize % all.len());
                let gone = interest
                    .remove(pattern.as_bytes(), id)
                    .expect("it was there");
                assert_eq!(*gone.value(), u64::from(id));
                assert!(interest.remove(pattern.as_bytes(), id).is_none());
            }
            _ => {
                let subject = text(bytes[1], bytes[2], false);
                out.clear();
                let stamp = interest.lookup(subject.as_bytes(), &mut out);
                assert!(interest.is_current(&stamp));
                let mut found: Vec<u32> = out.iter().map(|entry| entry.id()).collect();
                found.sort_unstable();
                let hits = all
                    .iter()
                    .filter(|(_, pattern)| matches(pattern.as_bytes(), subject.as_bytes()));
                let mut wanted: Vec<u32> = hits.map(|(id, _)| *id).collect();
                wanted.sort_unstable();
                assert_eq!(found, wanted, "of {subject}");
            }
        }
    }
    assert_eq!(interest.len(), all.len());
});

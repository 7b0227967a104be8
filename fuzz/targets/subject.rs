//! Subjects and patterns: any bytes are checked, and what passes matches as the grammar says.
//! Input: a pattern, a newline, a subject.
#![no_main]

use fastmq_route::{check_pattern, check_subject, pattern};
use libfuzzer_sys::fuzz_target;

/// The grammar once more, slowly.
fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let mut subject = subject.split(|&byte| byte == b'.');
    for token in pattern.split(|&byte| byte == b'.') {
        match (token, subject.next()) {
            (b">", rest) => return rest.is_some(),
            (_, None) => return false,
            (b"*", Some(_)) => {}
            (token, Some(other)) if token != other => return false,
            _ => {}
        }
    }
    subject.next().is_none()
}

fuzz_target!(|data: &[u8]| {
    let cut = data.iter().position(|&byte| byte == b'\n');
    let (left, right) = data.split_at(cut.unwrap_or(data.len()));
    let right = right.get(1..).unwrap_or_default();
    let (pattern_check, subject_check) = (check_pattern(left), check_subject(right));
    for error in [pattern_check.as_ref().err(), subject_check.as_ref().err()] {
        assert!(error.is_none_or(|error| !error.to_string().is_empty()));
    }
    if check_subject(left).is_ok() {
        assert!(pattern_check.is_ok(), "a subject is a pattern");
        assert!(pattern::matches(left, left), "and matches itself");
    }
    if pattern_check.is_ok() && subject_check.is_ok() {
        assert_eq!(pattern::matches(left, right), matches(left, right));
    }
});

//! Patterns: what they match, and their shape.
//!
//! The *shape* of a pattern is everything but its literal tokens: how many tokens, which of them
//! are `*`, and whether it ends in `>`. Patterns of one shape differ only in literal tokens, so
//! one hash probe finds all of those that match a subject. All patterns without a wildcard count
//! as one shape.
//!
//! Text is checked by `subject` before it comes here.

use std::cmp::Ordering;

use crate::hash::SubjectHash;
use crate::subject::SUBJECT_TOKENS_MAX;

/// Whether `pattern` matches `subject`; both are checked text.
///
/// This is the definition that everything else is tested against.
#[must_use]
pub fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let mut tokens = subject.split(|&byte| byte == b'.');
    for wanted in pattern.split(|&byte| byte == b'.') {
        match (wanted, tokens.next()) {
            (_, None) => return false,
            (b">", Some(_)) => return true,
            (b"*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// A pattern without its literal tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bit `i`: token `i` is `*`.
    pub(crate) wild: u64,
    /// Tokens, without the last one if that is `>`.
    pub(crate) tokens: u8,
    /// Ends in `>`.
    pub(crate) is_open: bool,
}

impl Shape {
    /// The shape of a checked pattern, or `None` if it has no wildcard.
    pub(crate) fn of(pattern: &[u8]) -> Option<Self> {
        let mut shape = Self {
            wild: 0,
            tokens: 0,
            is_open: false,
        };
        for token in pattern.split(|&byte| byte == b'.').take(SUBJECT_TOKENS_MAX) {
            match token {
                b">" => {
                    shape.is_open = true;
                    break;
                }
                b"*" => shape.wild |= 1 << shape.tokens,
                _ => {}
            }
            shape.tokens += 1;
        }
        (shape.wild != 0 || shape.is_open).then_some(shape)
    }

    /// The key of the patterns of this shape that match the subject whose tokens hash to `hashes`
    /// (or of one pattern, if these are the hashes of its own tokens).
    #[inline]
    pub(crate) fn key(self, hash: &SubjectHash, hashes: &[u64]) -> u64 {
        let start = u64::from(self.tokens) << 1 | u64::from(self.is_open);
        let mut key = hash.join(start, self.wild);
        for (index, &token) in hashes[..usize::from(self.tokens)].iter().enumerate() {
            if self.wild >> index & 1 == 0 {
                key = hash.join(key, token);
            }
        }
        key
    }

    /// Whether `pattern` has this shape and matches `subject`.
    ///
    /// The first half matters where two shapes' keys collide: an entry found by the probe for
    /// another shape is found again by its own.
    #[inline]
    pub(crate) fn admits(self, pattern: &[u8], subject: &[u8]) -> bool {
        Self::of(pattern) == Some(self) && matches(pattern, subject)
    }

    fn order(self) -> (bool, u8, u64) {
        (self.is_open, self.tokens, self.wild)
    }
}

impl Ord for Shape {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Shape {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The hashes of the tokens of one subject or pattern.
pub(crate) struct TokenHashes {
    hashes: [u64; SUBJECT_TOKENS_MAX],
    count: usize,
}

impl TokenHashes {
    /// Hashes each token of `text`; tokens beyond the limit are left out.
    pub(crate) fn of(hash: &SubjectHash, text: &[u8]) -> Self {
        let mut hashes = [0; SUBJECT_TOKENS_MAX];
        let mut count = 0;
        for (slot, token) in hashes.iter_mut().zip(text.split(|&byte| byte == b'.')) {
            *slot = hash.hash(token);
            count += 1;
        }
        Self { hashes, count }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u64] {
        &self.hashes[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, subject: &str, expected: bool) {
        let (pattern, subject) = (pattern.as_bytes(), subject.as_bytes());
        assert_eq!(matches(pattern, subject), expected);
        let hash = SubjectHash::new(1);
        if let Some(shape) = Shape::of(pattern) {
            assert_eq!(shape.admits(pattern, subject), expected);
            let tokens = TokenHashes::of(&hash, subject);
            if expected {
                let own = TokenHashes::of(&hash, pattern);
                let key = shape.key(&hash, own.as_slice());
                assert_eq!(key, shape.key(&hash, tokens.as_slice()));
            }
        } else {
            assert_eq!(pattern == subject, expected);
        }
    }

    #[test]
    fn a_literal_matches_itself_only() {
        check("a.b", "a.b", true);
        check("a.b", "a.c", false);
        check("a.b", "a", false);
        check("a", "a.b", false);
        check("a*", "a*", true);
        check("a*", "ab", false);
    }

    #[test]
    fn a_star_is_exactly_one_token() {
        check("*", "a", true);
        check("*", "a.b", false);
        check("a.*.c", "a.b.c", true);
        check("a.*.c", "a.b.b", false);
        check("a.*", "a", false);
        check("*.*", "a.b", true);
    }

    #[test]
    fn a_tail_is_one_or_more_tokens() {
        check(">", "a", true);
        check(">", "a.b.c", true);
        check("a.>", "a", false);
        check("a.>", "a.b", true);
        check("a.>", "a.b.c.d", true);
        check("*.b.>", "a.b.c", true);
        check("*.b.>", "a.b", false);
        check("a.>", "b.c", false);
    }

    #[test]
    fn shapes_tell_patterns_apart() {
        let shape = |text: &str| Shape::of(text.as_bytes());
        assert_eq!(shape("a.b.c"), None);
        assert_eq!(shape("a.*.c"), shape("x.*.z"));
        assert_ne!(shape("a.*"), shape("*.a"));
        assert_ne!(shape("a.*"), shape("a.>"));
        assert_ne!(shape("a.*"), shape("a.*.b"));
        assert_ne!(shape(">"), shape("a.>"));
        let widest = ["*"; SUBJECT_TOKENS_MAX].join(".");
        assert_eq!(shape(&widest).unwrap().wild, u64::MAX);
    }

    #[test]
    fn keys_tell_shapes_and_tokens_apart() {
        let hash = SubjectHash::new(5);
        let key = |text: &str| {
            let tokens = TokenHashes::of(&hash, text.as_bytes());
            Shape::of(text.as_bytes())
                .unwrap()
                .key(&hash, tokens.as_slice())
        };
        let patterns = [
            "a.*", "*.a", "a.>", "a.*.b", "a.b.*", "a.b.>", "b.a.*", ">", "*", "*.*", "*.>",
        ];
        for (i, a) in patterns.iter().enumerate() {
            for b in &patterns[..i] {
                assert_ne!(key(a), key(b), "{a} and {b}");
            }
        }
        assert_eq!(key("a.*"), key("a.*"));
    }
}

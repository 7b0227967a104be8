//! What a subject and a pattern may look like: the grammar of NATS, and its limits.
//!
//! A subject is UTF-8: tokens separated by `.`, none of them empty, without white space and
//! control characters. In a pattern a token `*` stands for any one token and a last token `>` for
//! one or more; a subject to publish to has no such token. `*` and `>` inside a longer token
//! (`a*`, `x>y`) are ordinary characters, as in NATS.
//!
//! Everything else in this crate assumes checked text.

use std::fmt;

/// The longest subject and the longest pattern, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 1024;
/// The most tokens of a subject and of a pattern. A wildcard mask of 64 bits relies on it.
pub const SUBJECT_TOKENS_MAX: usize = 64;

/// How much of a bad subject an error repeats, in bytes.
const EXCERPT_BYTES: usize = 48;

/// Checks a subject to publish to: no wildcards.
///
/// # Errors
/// Says what is wrong and at which byte.
#[inline]
pub fn check_subject(subject: &[u8]) -> Result<(), SubjectError> {
    check(subject, Role::Subject)
}

/// Checks a pattern to subscribe to: `*` for one token, `>` at the end for one or more.
///
/// # Errors
/// Says what is wrong and at which byte.
#[inline]
pub fn check_pattern(pattern: &[u8]) -> Result<(), SubjectError> {
    check(pattern, Role::Pattern)
}

/// Why a text is not a subject or not a pattern; its `Display` is a sentence for people.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectError {
    role: Role,
    problem: Problem,
    at: u32,
    excerpt: [u8; EXCERPT_BYTES],
    excerpt_size: u8,
    is_cut: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Subject,
    Pattern,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Problem {
    Empty,
    EmptyToken,
    TooLong { bytes: usize },
    TooManyTokens { tokens: usize },
    NotUtf8,
    WhiteSpace,
    Control,
    Wildcard { is_tail: bool },
    TailNotLast,
}

fn check(text: &[u8], role: Role) -> Result<(), SubjectError> {
    let fail = |problem, at| Err(SubjectError::new(text, role, problem, at));
    if text.is_empty() {
        return fail(Problem::Empty, 0);
    }
    if text.len() > SUBJECT_BYTES_MAX {
        let bytes = text.len();
        return fail(Problem::TooLong { bytes }, SUBJECT_BYTES_MAX);
    }
    if is_plain(text) {
        return Ok(());
    }
    check_tokens(text, role)
}

/// Whether `text` is a subject and a pattern of the ordinary kind: ASCII, and without the two
/// wildcard characters anywhere. Eight bytes a step; everything else takes the slow way.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    const FILLER: u64 = ONES * b'x' as u64;
    // The byte before the first counts as a dot.
    let mut dot_before = 0x80;
    let mut dots_all = 0;
    let mut strange = u64::from(text.last() == Some(&b'.'));
    let mut scan = |word: u64| {
        let ascii = word & !HIGH;
        // The high bit of every byte that is equal to `byte`; exact where all bytes are ASCII.
        let equal = |byte: u8| !((ascii ^ (ONES * u64::from(byte))) + 0x7F * ONES) & HIGH;
        let is_above_space = ascii + (0x80 - 0x21) * ONES;
        let dots = equal(b'.');
        strange |= word & HIGH | !is_above_space & HIGH | equal(0x7F);
        strange |= equal(b'*') | equal(b'>') | dots & (dots << 8 | dot_before);
        dot_before = dots >> 56;
        dots_all += dots.count_ones();
    };
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        scan(u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let last = rest.iter().rev();
        scan(last.fold(FILLER, |word, &byte| word << 8 | u64::from(byte)));
    }
    strange == 0 && (dots_all as usize) < SUBJECT_TOKENS_MAX
}

/// Checks byte by byte and names what is wrong.
#[inline(never)]
fn check_tokens(text: &[u8], role: Role) -> Result<(), SubjectError> {
    let fail = |problem, at| Err(SubjectError::new(text, role, problem, at));
    // The text is read as characters only if one of its bytes is not ASCII.
    let mut tokens = 0;
    let mut start = 0;
    let mut is_ascii = true;
    for at in 0..=text.len() {
        let byte = text.get(at).copied().unwrap_or(b'.');
        if byte == b'.' {
            let is_last = at == text.len();
            match &text[start..at] {
                [] => return fail(Problem::EmptyToken, start),
                [wildcard @ (b'*' | b'>')] if role == Role::Subject => {
                    let is_tail = *wildcard == b'>';
                    return fail(Problem::Wildcard { is_tail }, start);
                }
                [b'>'] if !is_last => return fail(Problem::TailNotLast, start),
                _ => {}
            }
            tokens += 1;
            start = at + 1;
        } else if byte <= b' ' || byte == 0x7F {
            let is_space = matches!(byte, b' ' | b'\t'..=b'\r');
            let problem = if is_space {
                Problem::WhiteSpace
            } else {
                Problem::Control
            };
            return fail(problem, at);
        } else if byte >= 0x80 {
            is_ascii = false;
        }
    }
    if tokens > SUBJECT_TOKENS_MAX {
        return fail(Problem::TooManyTokens { tokens }, 0);
    }
    if is_ascii {
        return Ok(());
    }
    match check_characters(text) {
        None => Ok(()),
        Some((problem, at)) => fail(problem, at),
    }
}

/// What is wrong with the characters beyond ASCII, and where.
#[cold]
fn check_characters(text: &[u8]) -> Option<(Problem, usize)> {
    let characters = match std::str::from_utf8(text) {
        Ok(characters) => characters,
        Err(error) => return Some((Problem::NotUtf8, error.valid_up_to())),
    };
    characters.char_indices().find_map(|(at, character)| {
        if character.is_whitespace() {
            Some((Problem::WhiteSpace, at))
        } else if character.is_control() {
            Some((Problem::Control, at))
        } else {
            None
        }
    })
}

impl SubjectError {
    #[cold]
    fn new(text: &[u8], role: Role, problem: Problem, at: usize) -> Self {
        let mut size = text.len().min(EXCERPT_BYTES);
        let is_cut = size < text.len();
        // Cut between characters where there are any.
        while is_cut && size > EXCERPT_BYTES - 4 && text[size] & 0xC0 == 0x80 {
            size -= 1;
        }
        let mut excerpt = [0; EXCERPT_BYTES];
        excerpt[..size].copy_from_slice(&text[..size]);
        Self {
            role,
            problem,
            at: u32::try_from(at).unwrap_or(u32::MAX),
            excerpt,
            excerpt_size: size as u8,
            is_cut,
        }
    }

    /// Whether the text is well formed but beyond a limit of size.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(
            self.problem,
            Problem::TooLong { .. } | Problem::TooManyTokens { .. }
        )
    }
}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = match self.role {
            Role::Subject => "subject",
            Role::Pattern => "pattern",
        };
        if self.problem == Problem::Empty {
            return write!(f, "{noun} is empty; it needs at least one token");
        }
        write!(f, "{noun} \"")?;
        for chunk in self.excerpt[..usize::from(self.excerpt_size)].utf8_chunks() {
            write!(f, "{}", chunk.valid().escape_debug())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_str(if self.is_cut { "...\" " } else { "\" " })?;
        let at = self.at;
        match self.problem {
            Problem::Empty => Ok(()),
            Problem::EmptyToken => write!(f, "has an empty token at byte {at}"),
            Problem::TooLong { bytes } => {
                write!(f, "has {bytes} bytes, at most {SUBJECT_BYTES_MAX} fit")
            }
            Problem::TooManyTokens { tokens } => {
                write!(f, "has {tokens} tokens, at most {SUBJECT_TOKENS_MAX} fit")
            }
            Problem::NotUtf8 => write!(f, "is not UTF-8 at byte {at}"),
            Problem::WhiteSpace => write!(f, "has white space at byte {at}"),
            Problem::Control => write!(f, "has a control character at byte {at}"),
            Problem::Wildcard { is_tail } => {
                let wildcard = if is_tail { '>' } else { '*' };
                write!(f, "has the wildcard {wildcard} at byte {at}; ")?;
                f.write_str("a message is published to one subject, only a pattern has wildcards")
            }
            Problem::TailNotLast => {
                write!(f, "has > at byte {at}, which may only be the last token")
            }
        }
    }
}

impl fmt::Debug for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectError({self})")
    }
}

impl std::error::Error for SubjectError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &[u8], subject: &str, pattern: &str) {
        let say = |result: Result<(), SubjectError>| match result {
            Ok(()) => "ok".to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(say(check_subject(text)), subject);
        assert_eq!(say(check_pattern(text)), pattern);
    }

    #[test]
    fn ordinary_subjects_are_both() {
        for text in [
            "a",
            "a.b",
            "player.1.moved",
            "a*",
            "*a.b>",
            "a>.b",
            "$SYS.x",
            "Straße.Δ.日本",
            "a-b_c",
        ] {
            check_text(text.as_bytes(), "ok", "ok");
        }
    }

    #[test]
    fn wildcards_are_for_patterns_only() {
        let tail = "; a message is published to one subject, only a pattern has wildcards";
        let cases = [
            ("*", '*', 0),
            ("a.*.b", '*', 2),
            (">", '>', 0),
            ("a.b.>", '>', 4),
        ];
        for (text, wildcard, at) in cases {
            let error =
                format!("subject \"{text}\" has the wildcard {wildcard} at byte {at}{tail}");
            check_text(text.as_bytes(), &error, "ok");
        }
    }

    #[test]
    fn a_tail_is_last() {
        let error = check_pattern(b"a.>.b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "pattern \"a.>.b\" has > at byte 2, which may only be the last token"
        );
        assert!(check_pattern(b">.a").is_err());
    }

    #[test]
    fn empty_tokens_are_named_with_their_place() {
        for (text, at) in [("a..b", 2), (".a", 0), ("a.", 2), (".", 0)] {
            check_text(
                text.as_bytes(),
                &format!("subject \"{text}\" has an empty token at byte {at}"),
                &format!("pattern \"{text}\" has an empty token at byte {at}"),
            );
        }
        check_text(
            b"",
            "subject is empty; it needs at least one token",
            "pattern is empty; it needs at least one token",
        );
    }

    #[test]
    fn white_space_and_control_characters_are_refused_and_escaped() {
        let cases: [(&[u8], &str); 6] = [
            (b"a b", "\"a b\" has white space at byte 1"),
            (b"a.\tb", "\"a.\\tb\" has white space at byte 2"),
            (b"a\0", "\"a\\0\" has a control character at byte 1"),
            (b"a\x7f", "\"a\\u{7f}\" has a control character at byte 1"),
            (
                "é\u{2003}".as_bytes(),
                "\"é\\u{2003}\" has white space at byte 2",
            ),
            (
                "é\u{85}".as_bytes(),
                "\"é\\u{85}\" has white space at byte 2",
            ),
        ];
        for (text, end) in cases {
            check_text(text, &format!("subject {end}"), &format!("pattern {end}"));
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_escaped() {
        check_text(
            b"a.\xff\xfeb",
            "subject \"a.\\xff\\xfeb\" is not UTF-8 at byte 2",
            "pattern \"a.\\xff\\xfeb\" is not UTF-8 at byte 2",
        );
    }

    #[test]
    fn limits_are_exact_and_long_text_is_cut() {
        assert!(check_subject(&[b'a'; SUBJECT_BYTES_MAX]).is_ok());
        let error = check_subject(&[b'a'; SUBJECT_BYTES_MAX + 1]).unwrap_err();
        let text = format!(
            "subject \"{}...\" has 1025 bytes, at most 1024 fit",
            "a".repeat(48)
        );
        assert_eq!(error.to_string(), text);
        assert!(error.is_too_large());

        let tokens = |count: usize| vec!["t"; count].join(".");
        assert!(check_pattern(tokens(SUBJECT_TOKENS_MAX).as_bytes()).is_ok());
        let error = check_pattern(tokens(SUBJECT_TOKENS_MAX + 1).as_bytes()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("...\" has 65 tokens, at most 64 fit")
        );
        assert!(error.is_too_large());
        assert!(!check_pattern(b"").unwrap_err().is_too_large());
    }

    #[test]
    fn the_fast_way_and_the_slow_way_agree() {
        let bytes = b"ab.*> \t\x00\x1f\x20\x21\x7e\x7f\x80\xc3\xa9/-?=+)_";
        let mut random = 1_u64;
        let mut plain = 0;
        for round in 0..200_000 {
            let text: Vec<u8> = (0..1 + round % 27)
                .map(|_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    // Mostly letters and dots, so that many texts are good ones.
                    let pick = (random >> 33) as usize;
                    bytes[if pick.is_multiple_of(32) {
                        pick / 32 % bytes.len()
                    } else {
                        pick % 3
                    }]
                })
                .collect();
            let is_slow_ok = check_tokens(&text, Role::Subject).is_ok();
            assert!(!is_plain(&text) || is_slow_ok, "{text:?}");
            let is_ordinary = text.is_ascii() && !text.iter().any(|b| matches!(b, b'*' | b'>'));
            assert_eq!(is_plain(&text), is_slow_ok && is_ordinary, "{text:?}");
            plain += usize::from(is_plain(&text));
        }
        assert!(plain > 1_000, "{plain} of the texts were good");
    }

    #[test]
    fn a_cut_falls_between_characters() {
        let text = format!("{}é b", "a".repeat(47));
        let error = check_subject(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "subject \"{}...\" has white space at byte 49",
                "a".repeat(47)
            )
        );
    }
}

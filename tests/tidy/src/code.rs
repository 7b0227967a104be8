//! Rust text, taken apart into code and comments, line by line.
//!
//! A small reader of the lexical form: line and block comments, strings, raw strings, characters
//! and lifetimes. It knows no grammar; what it cannot tell, it calls code.

/// One line, as code and as comment. Both keep nothing of strings but their quotes.
#[derive(Debug, Default, Clone)]
pub struct Line {
    /// The code, with the inside of strings and all comments removed.
    pub code: String,
    /// The text of comments on this line.
    pub comment: String,
    /// Whether the line is in a `mod tests` or another part under `#[cfg(test)]`.
    pub is_test: bool,
}

#[derive(Clone, Copy)]
enum State {
    Code,
    LineComment,
    BlockComment { depth: usize },
    String,
    RawString { hashes: usize },
}

/// Takes a file apart.
#[must_use]
pub fn lines(text: &str) -> Vec<Line> {
    let mut out = vec![Line::default()];
    let chars: Vec<char> = text.chars().collect();
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        let here = chars[at];
        let next = chars.get(at + 1).copied();
        let mut taken = 1;
        if here == '\n' {
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            out.push(Line::default());
            at += 1;
            continue;
        }
        let line = out.last_mut().expect("there is always a line");
        match state {
            State::Code => match (here, next) {
                ('/', Some('/')) => {
                    state = State::LineComment;
                    line.comment.push_str("//");
                    taken = 2;
                }
                ('/', Some('*')) => {
                    state = State::BlockComment { depth: 1 };
                    taken = 2;
                }
                ('"', _) => {
                    state = State::String;
                    line.code.push('"');
                }
                ('r', Some('"' | '#')) if !ends_in_word(&line.code) || line.code.ends_with('b') => {
                    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
                    if chars.get(at + 1 + hashes) == Some(&'"') {
                        state = State::RawString { hashes };
                        line.code.push('"');
                        taken = hashes + 2;
                    } else {
                        line.code.push('r');
                    }
                }
                ('\'', _) => {
                    taken = char_length(&chars[at..]).unwrap_or(1);
                    line.code.push('\'');
                }
                _ => line.code.push(here),
            },
            State::LineComment => line.comment.push(here),
            State::BlockComment { depth } => match (here, next) {
                ('*', Some('/')) => {
                    taken = 2;
                    state = if depth == 1 {
                        State::Code
                    } else {
                        State::BlockComment { depth: depth - 1 }
                    };
                }
                ('/', Some('*')) => {
                    taken = 2;
                    state = State::BlockComment { depth: depth + 1 };
                }
                _ => line.comment.push(here),
            },
            State::String => match here {
                // An escaped line end is left to the line count above.
                '\\' if next != Some('\n') => taken = 2,
                '"' => {
                    state = State::Code;
                    line.code.push('"');
                }
                _ => {}
            },
            State::RawString { hashes } => {
                let ends = here == '"'
                    && chars[at + 1..]
                        .iter()
                        .take(hashes)
                        .filter(|c| **c == '#')
                        .count()
                        == hashes;
                if ends {
                    state = State::Code;
                    line.code.push('"');
                    taken = hashes + 1;
                }
            }
        }
        at += taken;
    }
    mark_tests(&mut out);
    out
}

/// Whether `word` stands in `code` as a word of its own.
#[must_use]
pub fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| {
        !is_part(code[..at].chars().next_back()) && !is_part(code[at + word.len()..].chars().next())
    })
}

fn ends_in_word(code: &str) -> bool {
    code.chars()
        .next_back()
        .is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// Length of a character literal that starts here; `None` for a lifetime.
fn char_length(chars: &[char]) -> Option<usize> {
    match (chars.get(1)?, chars.get(2)?) {
        ('\\', _) => {
            let end = chars.iter().skip(3).take(12).position(|c| *c == '\'')?;
            Some(end + 4)
        }
        (_, '\'') => Some(3),
        _ => None,
    }
}

/// Marks what follows a `#[cfg(test)]` or is a `mod tests`, to its closing brace.
fn mark_tests(lines: &mut [Line]) {
    let mut depth = 0usize;
    let mut inside = false;
    let mut waits = false;
    for line in lines {
        let code = line.code.trim().to_owned();
        if !inside {
            let is_gate = code.starts_with("#[cfg(") && has_word(&code, "test");
            if is_gate || code.starts_with("mod tests") {
                waits = true;
            }
        }
        line.is_test = inside || waits;
        for c in code.chars() {
            match c {
                '{' if waits || inside => {
                    depth += 1;
                    inside = true;
                    waits = false;
                }
                '}' if inside => {
                    depth -= 1;
                    if depth == 0 {
                        inside = false;
                    }
                }
                ';' if waits => waits = false,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        let codes: Vec<String> = lines(text).into_iter().map(|line| line.code).collect();
        codes.join("\n")
    }

    #[test]
    fn comments_and_the_inside_of_strings_are_not_code() {
        assert_eq!(code("a // unsafe\nb"), "a \nb");
        assert_eq!(code("a /* x /* y */ z */ b"), "a  b");
        assert_eq!(code("f(\"unsafe \\\" {\") + 1"), "f(\"\") + 1");
        assert_eq!(code("f(r#\"un\"safe\"#)"), "f(\"\")");
        assert_eq!(code("f(br\"\\\", x)"), "f(b\"\", x)");
        assert_eq!(code("let c = '\"'; g()"), "let c = '; g()");
        assert_eq!(code("let c = '\\''; g()"), "let c = '; g()");
        assert_eq!(code("let c = '\\u{1F600}'; g()"), "let c = '; g()");
        assert_eq!(code("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(code("for var in 0.."), "for var in 0..");
    }

    #[test]
    fn a_string_over_two_lines_keeps_the_line_count() {
        assert_eq!(lines("\"a\\\n b\"\nc").len(), 3);
        assert_eq!(lines("r\"a\n b\"\nc").len(), 3);
    }

    #[test]
    fn tests_end_with_their_brace() {
        let text =
            "a\n#[cfg(test)]\nmod tests {\n b {\n }\n}\nc\n#[cfg(all(test, loom))]\nuse x;\nd";
        let marks: Vec<bool> = lines(text).iter().map(|line| line.is_test).collect();
        assert_eq!(
            marks,
            [
                false, true, true, true, true, true, false, true, true, false
            ]
        );
    }

    #[test]
    fn a_word_stands_alone() {
        assert!(has_word("x = unsafe {", "unsafe"));
        assert!(!has_word("forbid(unsafe_code)", "unsafe"));
        assert!(has_word("#[unsafe(no_mangle)]", "unsafe"));
    }
}

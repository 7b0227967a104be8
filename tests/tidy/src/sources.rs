//! Rules about the form of source files: names, length, width, words that may not stand there.

use crate::code::lines;
use crate::tree::{Finding, Tree};

/// Lines of a file, its tests left out.
const FILE_LINES_MAX: usize = 600;
/// Characters of a line.
const LINE_CHARS_MAX: usize = 100;

/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc"];

/// File names are nouns of the domain.
#[must_use]
pub fn names_say_something(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let parts = file.path.trim_end_matches(".rs").split('/');
        for part in parts.filter(|part| EMPTY_NAMES.contains(part)) {
            let says = format!("`{part}` says nothing; name the noun it is about");
            findings.push(Finding::new(file, 0, says));
        }
    }
    findings
}

/// Files stay short.
#[must_use]
pub fn files_stay_short(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let is_excepted = LONG_FILES.iter().any(|(path, _)| file.path == *path);
        let is_rust_test = file.path.contains("/tests/");
        if is_excepted || is_rust_test {
            continue;
        }
        let count = lines(&file.text)
            .iter()
            .filter(|line| !line.is_test)
            .count();
        if count > FILE_LINES_MAX {
            let says = format!("{count} lines without tests, above {FILE_LINES_MAX}; split it");
            findings.push(Finding::new(file, 0, says));
        }
    }
    findings
}

/// Lines stay narrow.
#[must_use]
pub fn lines_stay_narrow(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (index, line) in file.text.lines().enumerate() {
            let count = line.chars().count();
            if count > LINE_CHARS_MAX {
                let says = format!("{count} characters, above {LINE_CHARS_MAX}");
                findings.push(Finding::new(file, index + 1, says));
            }
        }
    }
    findings
}

/// Every Rust file starts with what it is for.
#[must_use]
pub fn files_say_what_they_are_for(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| Finding::new(file, 1, "the file does not start with its `//!` doc"))
        .collect()
}

/// The product does not unwrap: `expect` says why it cannot fail.
#[must_use]
pub fn nothing_unwraps(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_test()) {
        for (index, line) in lines(&file.text).iter().enumerate() {
            let unwraps = [".unwrap()", ".unwrap_err()"]
                .iter()
                .any(|call| line.code.contains(call));
            if unwraps && !line.is_test {
                let says = "unwrap outside tests; return an error, or expect(\"why\")";
                findings.push(Finding::new(file, index + 1, says));
            }
        }
    }
    findings
}

/// A note for later names its issue: `TODO(#12)`.
#[must_use]
pub fn notes_name_their_issue(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| !is_about_rules(&file.path)) {
        for (index, line) in file.text.lines().enumerate() {
            // Spelt in halves, as this file is read by its own rule.
            for word in [
                concat!("TO", "DO"),
                concat!("FIX", "ME"),
                concat!("XX", "X"),
            ] {
                let mut rest = line;
                while let Some(at) = rest.find(word) {
                    let after = &rest[at + word.len()..];
                    let is_word = !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')
                        && !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                    if is_word && !after.starts_with("(#") {
                        let says = format!("{word} without an issue: write {word}(#NUMBER)");
                        findings.push(Finding::new(file, index + 1, says));
                    }
                    rest = after;
                }
            }
        }
    }
    findings
}

/// Nothing names a directory of the machine it was written on.
#[must_use]
pub fn nothing_names_a_machine(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (index, line) in file.text.lines().enumerate() {
            for path in [
                concat!("/wo", "rk/"),
                concat!("/ro", "ot/"),
                concat!("/ho", "me/"),
            ] {
                if line.contains(path) {
                    let says = format!("`{path}` is a directory of one machine");
                    findings.push(Finding::new(file, index + 1, says));
                }
            }
        }
    }
    findings
}

/// Texts that must name the words they forbid.
fn is_about_rules(path: &str) -> bool {
    path == "CONTRIBUTING.md"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str, expected: usize) {
        let findings = rule(&Tree::of(&[(path, text)]));
        assert_eq!(findings.len(), expected, "{path}: {findings:?}");
    }

    #[test]
    fn an_empty_name_is_seen() {
        for name in EMPTY_NAMES {
            check(
                names_say_something,
                &format!("core/route/src/{name}.rs"),
                "",
                1,
            );
            check(
                names_say_something,
                &format!("core/route/src/{name}/a.rs"),
                "",
                1,
            );
        }
        check(names_say_something, "core/route/src/pattern.rs", "", 0);
    }

    #[test]
    fn a_long_file_is_seen() {
        let long = "//! A.\n".repeat(FILE_LINES_MAX + 1);
        check(files_stay_short, "core/route/src/a.rs", &long, 1);
        check(files_stay_short, "core/route/tests/a.rs", &long, 0);
        let tests = "    fn f() {}\n".repeat(FILE_LINES_MAX);
        let tested = format!("//! A.\n#[cfg(test)]\nmod tests {{\n{tests}}}\n");
        check(files_stay_short, "core/route/src/a.rs", &tested, 0);
    }

    #[test]
    fn a_wide_line_is_seen() {
        check(
            lines_stay_narrow,
            "a.rs",
            &"x".repeat(LINE_CHARS_MAX + 1),
            1,
        );
        check(lines_stay_narrow, "a.rs", &"ü".repeat(LINE_CHARS_MAX), 0);
    }

    #[test]
    fn a_file_without_a_doc_is_seen() {
        check(files_say_what_they_are_for, "a.rs", "use std::io;\n", 1);
        check(
            files_say_what_they_are_for,
            "a.rs",
            "#![cfg(loom)]\n//! Late.\n",
            1,
        );
        check(
            files_say_what_they_are_for,
            "a.rs",
            "//! A.\n#![cfg(loom)]\n",
            0,
        );
    }

    #[test]
    fn an_unwrap_is_seen() {
        check(
            nothing_unwraps,
            "ffi/src/a.rs",
            "fn f() { g().unwrap(); }",
            1,
        );
        check(
            nothing_unwraps,
            "ffi/src/a.rs",
            "fn f() { g().unwrap_err(); }",
            1,
        );
        check(
            nothing_unwraps,
            "ffi/src/a.rs",
            "/// `g().unwrap()`\nfn f() {}",
            0,
        );
        check(
            nothing_unwraps,
            "ffi/src/a.rs",
            "fn f() { g().unwrap_or(1); }",
            0,
        );
        check(
            nothing_unwraps,
            "ffi/tests/a.rs",
            "fn f() { g().unwrap(); }",
            0,
        );
        let tested = "#[cfg(test)]\nmod tests {\n    fn f() { g().unwrap(); }\n}";
        check(nothing_unwraps, "ffi/src/a.rs", tested, 0);
    }

    #[test]
    fn a_note_without_an_issue_is_seen() {
        for word in [
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("XX", "X"),
        ] {
            check(
                notes_name_their_issue,
                "a.rs",
                &format!("// {word}: later\n"),
                1,
            );
            check(
                notes_name_their_issue,
                "a.md",
                &format!("{word} later\n"),
                1,
            );
            check(
                notes_name_their_issue,
                "a.rs",
                &format!("// {word}(#12): later\n"),
                0,
            );
            check(
                notes_name_their_issue,
                "a.rs",
                &format!("let {word}_LIST = 1;\n"),
                0,
            );
        }
    }

    #[test]
    fn a_directory_of_a_machine_is_seen() {
        for path in [
            concat!("/wo", "rk/a"),
            concat!("/ro", "ot/a"),
            concat!("/ho", "me/a"),
        ] {
            check(
                nothing_names_a_machine,
                "docs/a.md",
                &format!("see {path}\n"),
                1,
            );
        }
        check(nothing_names_a_machine, "docs/a.md", "see /tmp/a\n", 0);
    }
}

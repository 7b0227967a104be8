//! Rules about where unsafe code, clocks and sleep may stand.
//!
//! Unsafe code: `docs/architecture.md` names the few places. Clocks: time comes from the driver,
//! so that a simulation can decide it.

use crate::code::{Line, has_word, lines};
use crate::tree::{Finding, Tree};

/// Where unsafe code may stand.
const UNSAFE_PLACES: &[&str] = &[
    "core/driver/",
    "core/memory/",
    "ffi/",
    "tests/support/",
    // No part of the product: the bare ring that the product is measured against.
    "benches/floor/src/ring.rs",
    // Nor this: the bare echo that the product's sockets are measured against.
    "benches/floor/src/epoll.rs",
];

/// Crates outside those places whose root need not forbid unsafe code, each with its reason.
const FORBID_EXCEPTIONS: &[(&str, &str)] = &[(
    "benches/floor/src/main.rs",
    "denies it everywhere but in ring.rs and epoll.rs, the bare ring and echo of the floor",
)];

/// Where clocks and sleeping may stand, beside tests and benches.
const CLOCK_PLACES: &[&str] = &["core/driver/"];

/// Single files that read a clock outside the driver, each with its reason.
const CLOCK_EXCEPTIONS: &[(&str, &str)] = &[];

/// Calls that read time or stop a thread behind the driver's back.
const CLOCK_CALLS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "thread::park",
    "thread::park_timeout",
    "thread::sleep",
];

/// Lines above an `unsafe` that are searched for its comment.
const SAFETY_LINES_MAX: usize = 10;

/// Whether unsafe code may stand in a file.
#[must_use]
pub fn may_be_unsafe(path: &str) -> bool {
    UNSAFE_PLACES.iter().any(|place| path.starts_with(place))
        || (path.starts_with("bindings/") && path.ends_with("/src/view.rs"))
}

/// Unsafe code stands in its places only.
#[must_use]
pub fn unsafe_stays_in_its_places(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !may_be_unsafe(&file.path)) {
        for (index, line) in lines(&file.text).iter().enumerate() {
            if has_word(&line.code, "unsafe") {
                let says = "unsafe code outside core/driver, core/memory, ffi and tests/support";
                findings.push(Finding::new(file, index + 1, says));
            }
        }
    }
    findings
}

/// Every unsafe block and impl has a `SAFETY:` comment on it or above it.
#[must_use]
pub fn unsafe_says_why(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let lines = lines(&file.text);
        for (index, line) in lines.iter().enumerate() {
            if opens_unsafe(&lines, index) && !is_explained(&lines, index) {
                let says = format!("no SAFETY comment for: {}", line.code.trim());
                findings.push(Finding::new(file, index + 1, says));
            }
        }
    }
    findings
}

/// A crate that needs no unsafe code forbids it.
#[must_use]
pub fn safe_crates_forbid_unsafe(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let roots = tree.rust().filter(|file| {
        file.path.ends_with("/src/lib.rs")
            || (file.path.ends_with("/src/main.rs")
                && tree
                    .file(&file.path.replace("/main.rs", "/lib.rs"))
                    .is_none())
    });
    for file in roots {
        let is_excepted = FORBID_EXCEPTIONS.iter().any(|(path, _)| file.path == *path);
        let is_binding = file.path.starts_with("bindings/");
        if may_be_unsafe(&file.path) || is_excepted || is_binding {
            continue;
        }
        let says_so = lines(&file.text)
            .iter()
            .any(|line| line.code.trim() == "#![forbid(unsafe_code)]");
        if !says_so {
            findings.push(Finding::new(
                file,
                0,
                "the crate lacks #![forbid(unsafe_code)]",
            ));
        }
    }
    findings
}

/// Time and sleep come from the driver.
#[must_use]
pub fn time_comes_from_the_driver(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let is_driver = CLOCK_PLACES
            .iter()
            .any(|place| file.path.starts_with(place));
        let is_excepted = CLOCK_EXCEPTIONS.iter().any(|(path, _)| file.path == *path);
        if is_driver || is_excepted || file.is_test() {
            continue;
        }
        for (index, line) in lines(&file.text).iter().enumerate() {
            if line.is_test {
                continue;
            }
            for call in CLOCK_CALLS.iter().filter(|call| has_word(&line.code, call)) {
                let says = format!("{call} outside core/driver; ask the driver");
                findings.push(Finding::new(file, index + 1, says));
            }
        }
    }
    findings
}

/// Whether the line opens an unsafe block or impl. `unsafe fn` and `unsafe trait` put the duty on
/// somebody else, and clippy asks for their `# Safety` text.
fn opens_unsafe(lines: &[Line], index: usize) -> bool {
    let code = &lines[index].code;
    if !has_word(code, "unsafe") {
        return false;
    }
    let mut rest = code.as_str();
    while let Some(at) = rest.find("unsafe") {
        let after = rest[at + "unsafe".len()..].trim_start();
        let stands_alone = has_word(&rest[at..], "unsafe");
        let next_line = lines.get(index + 1).map_or("", |line| line.code.trim());
        let opens = after.starts_with('{')
            || after.starts_with("impl")
            || (after.is_empty() && next_line.starts_with('{'));
        if stands_alone && opens {
            return true;
        }
        rest = &rest[at + "unsafe".len()..];
    }
    false
}

fn is_explained(lines: &[Line], index: usize) -> bool {
    if lines[index].comment.contains("SAFETY:") {
        return true;
    }
    for line in lines[..index].iter().rev().take(SAFETY_LINES_MAX) {
        if line.comment.contains("SAFETY:") {
            return true;
        }
        let code = line.code.trim();
        let is_blank = code.is_empty() && line.comment.is_empty();
        // A comment reaches over attributes and the earlier lines of its own statement.
        if is_blank || code.ends_with(';') || code.ends_with('}') {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_in_the_engine_is_seen() {
        let bad = Tree::of(&[(
            "core/engine/src/a.rs",
            "//! A.\nfn f() { unsafe { g() } }\n",
        )]);
        assert_eq!(unsafe_stays_in_its_places(&bad)[0].line, 2);
        let good = Tree::of(&[
            (
                "core/memory/src/a.rs",
                "//! A.\nfn f() { unsafe { g() } }\n",
            ),
            (
                "bindings/python/src/view.rs",
                "//! A.\nfn f() { unsafe { g() } }\n",
            ),
            (
                "core/engine/src/a.rs",
                "//! No unsafe here.\n#![forbid(unsafe_code)]\n",
            ),
        ]);
        assert_eq!(unsafe_stays_in_its_places(&good), []);
    }

    #[test]
    fn an_unexplained_unsafe_is_seen() {
        let bad = [
            "fn f() {\n    unsafe { g() }\n}",
            "fn f() {\n    // SAFETY: of the first.\n    unsafe { g() };\n    unsafe { h() };\n}",
            "unsafe impl Send for A {}",
            "// SAFETY: too far away.\n\nunsafe impl Send for A {}",
            "fn f() {\n    unsafe\n    { g() }\n}",
        ];
        for text in bad {
            let tree = Tree::of(&[("ffi/src/a.rs", text)]);
            assert_eq!(unsafe_says_why(&tree).len(), 1, "{text}");
        }
        let good = [
            "fn f() {\n    // SAFETY: fine.\n    unsafe { g() }\n}",
            "// SAFETY: fine,\n// for two reasons.\n#[allow(x)]\nunsafe impl Send for A {}",
            "// SAFETY: fine.\nlet a =\n    unsafe { g() };",
            "let a = unsafe { g() }; // SAFETY: fine.",
            "/// # Safety\n/// As said.\npub unsafe fn f() {}",
            "#[unsafe(no_mangle)]\npub extern \"C\" fn f() {}",
        ];
        for text in good {
            assert_eq!(
                unsafe_says_why(&Tree::of(&[("ffi/src/a.rs", text)])),
                [],
                "{text}"
            );
        }
    }

    #[test]
    fn a_safe_crate_without_forbid_is_seen() {
        let bad = Tree::of(&[
            (
                "core/route/src/lib.rs",
                "//! Route.\n// #![forbid(unsafe_code)]\n",
            ),
            ("cli/src/main.rs", "//! The command.\n"),
            ("core/memory/src/lib.rs", "//! Memory.\n"),
        ]);
        let paths: Vec<_> = safe_crates_forbid_unsafe(&bad)
            .into_iter()
            .map(|f| f.path)
            .collect();
        assert_eq!(paths, ["core/route/src/lib.rs", "cli/src/main.rs"]);
        let good = Tree::of(&[(
            "core/route/src/lib.rs",
            "//! Route.\n#![forbid(unsafe_code)]\n",
        )]);
        assert_eq!(safe_crates_forbid_unsafe(&good), []);
    }

    #[test]
    fn a_clock_in_the_engine_is_seen() {
        for call in CLOCK_CALLS {
            let text = format!("//! A.\nfn f() {{ std::{call}(); }}\n");
            let bad = Tree::of(&[("core/engine/src/a.rs", &text)]);
            assert_eq!(time_comes_from_the_driver(&bad).len(), 1, "{call}");
            let good = Tree::of(&[
                ("core/driver/src/clock.rs", &text),
                ("core/engine/tests/a.rs", &text),
                ("benches/floor/src/main.rs", &text),
            ]);
            assert_eq!(time_comes_from_the_driver(&good), [], "{call}");
        }
        let text = "//! A.\n#[cfg(test)]\nmod tests {\n    fn f() { Instant::now(); }\n}\n";
        let tested = Tree::of(&[("core/engine/src/a.rs", text)]);
        assert_eq!(time_comes_from_the_driver(&tested), []);
    }
}

//! Rules about documents: what they promise must be there.
//!
//! Links resolve, code blocks are files that are compiled and run, commands are targets that exist,
//! the change log has a place for what is not released, the header has every exported symbol.

use crate::code::has_word;
use crate::tree::{File, Finding, Tree};

const CHANGELOG: &str = "CHANGELOG.md";
const HEADER: &str = "include/fastmq.h";
const MAKEFILE: &str = "Makefile";
const SYMBOLS: &str = "ffi/symbols.txt";

/// Languages whose blocks are code: they stand in a file that is compiled or run.
const CODE: &[&str] = &[
    "c",
    "cpp",
    "javascript",
    "js",
    "python",
    "rust",
    "toml",
    "ts",
    "typescript",
];

/// Mark before a block that is a whole file: `<!-- file: PATH -->`.
const WHOLE: &str = "<!-- file: ";
/// Mark before a block that is a part of a file: `<!-- part of: PATH -->`.
const PART: &str = "<!-- part of: ";

struct Block<'a> {
    language: &'a str,
    text: String,
    mark: &'a str,
    line: usize,
}

/// Links to files of the repository resolve.
#[must_use]
pub fn links_resolve(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in documents(tree) {
        let mut in_block = false;
        for (index, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_block = !in_block;
            }
            if in_block {
                continue;
            }
            for target in link_targets(line) {
                let path = target.split('#').next().unwrap_or_default();
                if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                    continue;
                }
                let resolved = join(file.directory(), path);
                if !tree.paths.contains(&resolved) && !resolved.is_empty() {
                    let says = format!("the link to `{target}` leads to no file");
                    findings.push(Finding::new(file, index + 1, says));
                }
            }
        }
    }
    findings
}

/// A code block in a document is a file, or a part of one.
#[must_use]
pub fn code_blocks_are_files(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in documents(tree) {
        for block in blocks(&file.text) {
            if !CODE.contains(&block.language) {
                continue;
            }
            if let Some(says) = compare(tree, &block) {
                findings.push(Finding::new(file, block.line, says));
            }
        }
    }
    findings
}

/// A `make TARGET` in a shell block is a target of the Makefile.
#[must_use]
pub fn commands_exist(tree: &Tree) -> Vec<Finding> {
    let Some(makefile) = tree.file(MAKEFILE) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for file in documents(tree) {
        for block in blocks(&file.text) {
            if !matches!(block.language, "sh" | "bash" | "console" | "shell") {
                continue;
            }
            for (index, line) in block.text.lines().enumerate() {
                let command = line.trim_start_matches("$ ").trim();
                let Some(rest) = command.strip_prefix("make ") else {
                    continue;
                };
                let target = rest.split_whitespace().next().unwrap_or_default();
                let rule = format!("{target}:");
                if !makefile.text.lines().any(|line| line.starts_with(&rule)) {
                    let says = format!("`make {target}` is not in the Makefile");
                    findings.push(Finding::new(file, block.line + index + 1, says));
                }
            }
        }
    }
    findings
}

/// The change log has a place for what is not released yet.
#[must_use]
pub fn changelog_has_unreleased(tree: &Tree) -> Vec<Finding> {
    let Some(file) = tree.file(CHANGELOG) else {
        return vec![Finding {
            path: CHANGELOG.to_owned(),
            line: 0,
            says: "the change log is not there".to_owned(),
        }];
    };
    let first = file.text.lines().find(|line| line.starts_with("## "));
    match first {
        Some("## Unreleased") => Vec::new(),
        _ => vec![Finding::new(
            file,
            0,
            "the first section is not `## Unreleased`",
        )],
    }
}

/// Every exported symbol is a function of the header.
#[must_use]
pub fn symbols_are_in_the_header(tree: &Tree) -> Vec<Finding> {
    let Some(symbols) = tree.file(SYMBOLS) else {
        return Vec::new();
    };
    let header = tree.file(HEADER).map_or("", |file| file.text.as_str());
    let mut findings = Vec::new();
    for (index, symbol) in symbols.text.lines().enumerate() {
        let symbol = symbol.trim();
        if symbol.is_empty() || symbol.starts_with('#') {
            continue;
        }
        let is_there = header
            .lines()
            .any(|line| line.contains(&format!("{symbol}(")) && has_word(line, symbol));
        if !is_there {
            let says = format!("`{symbol}` is not in {HEADER}");
            findings.push(Finding::new(symbols, index + 1, says));
        }
    }
    findings
}

fn documents(tree: &Tree) -> impl Iterator<Item = &File> {
    tree.files.iter().filter(|file| file.path.ends_with(".md"))
}

/// What stands in the round brackets of `[text](target)`.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, _)| {
        let rest = &line[at + 2..];
        let target = &rest[..rest.find(')')?];
        // A title may follow: [text](target "title").
        target.split_whitespace().next()
    })
}

/// A relative path from a directory, without `.` and `..`.
fn join(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = if path.starts_with('/') {
        Vec::new()
    } else {
        directory
            .split('/')
            .filter(|part| !part.is_empty())
            .collect()
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return "..".to_owned();
                }
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut open: Option<Block<'_>> = None;
    let mut mark = "";
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        match (&mut open, trimmed.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block {
                    language,
                    text: String::new(),
                    mark,
                    line: index + 1,
                });
            }
            (Some(_), Some("")) => found.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) if !trimmed.is_empty() => mark = trimmed,
            (None, None) => {}
        }
        if open.is_none() && trimmed.starts_with("```") {
            mark = "";
        }
    }
    found
}

/// What is wrong with a block, if anything.
fn compare(tree: &Tree, block: &Block<'_>) -> Option<String> {
    let whole = block.mark.strip_prefix(WHOLE);
    let path = whole.or_else(|| block.mark.strip_prefix(PART));
    let Some(path) = path.and_then(|rest| rest.strip_suffix(" -->")) else {
        return Some(format!("no `{WHOLE}PATH -->` stands before this block"));
    };
    let Some(file) = tree.file(path) else {
        return Some(format!("`{path}` is not there"));
    };
    let is_same = if whole.is_some() {
        file.text == block.text
    } else {
        file.text.contains(&block.text)
    };
    (!is_same).then(|| format!("the block differs from `{path}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_link_is_seen() {
        let text = "[a](b.md) [c](../README.md#top) [d](https://example.org) [e](#here)\n\
                    [f](gone.md) [g](../../out.md)\n```c\n[h](x)\n```\n";
        let tree = Tree::of(&[("docs/a.md", text), ("docs/b.md", ""), ("README.md", "")]);
        let lines: Vec<_> = links_resolve(&tree).iter().map(|f| f.line).collect();
        assert_eq!(lines, [2, 2]);
    }

    #[test]
    fn a_block_that_is_no_file_is_seen() {
        let file = ("examples/c/a.c", "int a;\nint b;\n");
        let check = |text: &str, expected: usize| {
            let tree = Tree::of(&[file, ("README.md", text)]);
            assert_eq!(code_blocks_are_files(&tree).len(), expected, "{text}");
        };
        check(
            "<!-- file: examples/c/a.c -->\n```c\nint a;\nint b;\n```\n",
            0,
        );
        check(
            "<!-- file: examples/c/a.c -->\n\n```c\nint a;\nint b;\n```\n",
            0,
        );
        check("<!-- part of: examples/c/a.c -->\n```c\nint b;\n```\n", 0);
        check("```text\nint a;\n```\n", 0);
        check("<!-- file: examples/c/a.c -->\n```c\nint b;\n```\n", 1);
        check("<!-- part of: examples/c/a.c -->\n```c\nint c;\n```\n", 1);
        check("<!-- file: examples/c/gone.c -->\n```c\nint a;\n```\n", 1);
        check("So:\n```c\nint a;\nint b;\n```\n", 1);
        let second =
            "<!-- file: examples/c/a.c -->\n```c\nint a;\nint b;\n```\n```c\nint a;\n```\n";
        check(second, 1);
    }

    #[test]
    fn a_command_that_is_no_target_is_seen() {
        let makefile = ("Makefile", "run: build\nbuild:\n");
        let text = "```sh\nmake run\n$ make gone\nmake build ARGS=1\n```\n";
        let findings = commands_exist(&Tree::of(&[makefile, ("README.md", text)]));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 3);
    }

    #[test]
    fn a_change_log_without_unreleased_is_seen() {
        assert_eq!(changelog_has_unreleased(&Tree::default()).len(), 1);
        let bad = Tree::of(&[(CHANGELOG, "# Changes\n\n## 0.1.0\n\n## Unreleased\n")]);
        assert_eq!(changelog_has_unreleased(&bad).len(), 1);
        let good = Tree::of(&[(CHANGELOG, "# Changes\n\n## Unreleased\n")]);
        assert_eq!(changelog_has_unreleased(&good), []);
    }

    #[test]
    fn a_symbol_without_a_declaration_is_seen() {
        let tree = Tree::of(&[
            (SYMBOLS, "fastmq_abi\nfastmq_open\nfastmq_op\n"),
            (
                HEADER,
                "uint32_t fastmq_abi(void);\nx fastmq_open(y);\n/* fastmq_op */\n",
            ),
        ]);
        let findings = symbols_are_in_the_header(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 3);
    }
}

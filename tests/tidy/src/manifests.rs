//! Rules about `Cargo.toml` files: which crate may know which, and why a dependency is there.
//!
//! The reader below knows the little of TOML that these files use: sections and `name = …` or
//! `name.workspace = …` lines.

use crate::tree::{File, Finding, Tree};

/// The crates and what each may depend on. Arrows go down only: `docs/architecture.md`.
const ARROWS: &[(&str, &[&str])] = &[
    ("fastmq-driver", &[]),
    ("fastmq-wire", &[]),
    ("fastmq-stream", &[]),
    ("fastmq-memory", &["fastmq-driver"]),
    ("fastmq-route", &["fastmq-driver", "fastmq-memory"]),
    ("fastmq-log", &["fastmq-driver", "fastmq-memory"]),
    (
        "fastmq-cluster",
        &["fastmq-wire", "fastmq-stream", "fastmq-log"],
    ),
    (
        "fastmq-engine",
        &[
            "fastmq-driver",
            "fastmq-wire",
            "fastmq-stream",
            "fastmq-memory",
            "fastmq-route",
            "fastmq-log",
            "fastmq-cluster",
        ],
    ),
    ("fastmq", &["fastmq-engine"]),
    ("fastmq-ffi", &["fastmq"]),
    // The bench loads servers with frames of its own.
    ("fastmq-cli", &["fastmq", "fastmq-wire"]),
];

/// Directories beside the layers, whose crates may know any layer.
const BESIDE: &[&str] = &["benches/", "examples/", "fuzz/", "tests/"];

/// What the tests of any layer may use; no part of the product.
const FOR_TESTS: &str = "fastmq-test-support";

/// Where a dependency says why it is there.
const REASONS: &str = "docs/dependencies.md";

#[derive(Debug, PartialEq, Eq)]
struct Dependency {
    name: String,
    line: usize,
    /// For tests only.
    is_dev: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Manifest {
    package: Option<String>,
    dependencies: Vec<Dependency>,
}

/// A crate knows only the layers below it.
#[must_use]
pub fn arrows_go_down(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in manifests(tree) {
        let manifest = read(&file.text);
        let is_beside = BESIDE.iter().any(|place| file.path.starts_with(place));
        let (Some(package), false) = (&manifest.package, is_beside) else {
            continue;
        };
        let is_binding = file.path.starts_with("bindings/");
        let allowed = ARROWS.iter().find(|(name, _)| name == package);
        let allowed = match allowed {
            Some((_, allowed)) => *allowed,
            None if is_binding => &["fastmq"],
            None => {
                let says = format!("{package} has no place in the layers of tests/tidy");
                findings.push(Finding::new(file, 0, says));
                continue;
            }
        };
        for dependency in &manifest.dependencies {
            let is_for_tests = dependency.is_dev && dependency.name == FOR_TESTS;
            let is_allowed = is_for_tests || allowed.contains(&dependency.name.as_str());
            if is_ours(&dependency.name) && !is_allowed {
                let says = format!("{package} may not depend on {}", dependency.name);
                findings.push(Finding::new(file, dependency.line, says));
            }
        }
    }
    findings
}

/// A dependency has a row in the table that says why it is there.
#[must_use]
pub fn dependencies_have_a_reason(tree: &Tree) -> Vec<Finding> {
    let reasons = tree.file(REASONS).map_or("", |file| file.text.as_str());
    let mut findings = Vec::new();
    for file in manifests(tree) {
        for dependency in read(&file.text).dependencies {
            let row = format!("| `{}` |", dependency.name);
            let has_row = reasons.lines().any(|line| line.starts_with(&row));
            if !is_ours(&dependency.name) && !has_row {
                let says = format!("`{}` has no row in {REASONS}", dependency.name);
                findings.push(Finding::new(file, dependency.line, says));
            }
        }
    }
    findings
}

/// The table names nothing that is no longer used.
#[must_use]
pub fn reasons_have_a_dependency(tree: &Tree) -> Vec<Finding> {
    let Some(reasons) = tree.file(REASONS) else {
        return Vec::new();
    };
    let used: Vec<String> = manifests(tree)
        .flat_map(|file| read(&file.text).dependencies)
        .map(|dependency| dependency.name)
        .collect();
    let mut findings = Vec::new();
    for (index, line) in reasons.text.lines().enumerate() {
        let Some(name) = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split('`').next())
        else {
            continue;
        };
        if !used.iter().any(|used| used == name) {
            let says = format!("`{name}` is in no Cargo.toml");
            findings.push(Finding::new(reasons, index + 1, says));
        }
    }
    findings
}

fn manifests(tree: &Tree) -> impl Iterator<Item = &File> {
    tree.files.iter().filter(|file| file.name() == "Cargo.toml")
}

fn is_ours(name: &str) -> bool {
    name == "fastmq" || name.starts_with("fastmq-")
}

fn read(text: &str) -> Manifest {
    let mut manifest = Manifest::default();
    let mut section = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
            // [dependencies.NAME]
            if let Some((parent, name)) = section.rsplit_once('.')
                && is_dependencies(parent)
            {
                manifest.dependencies.push(Dependency {
                    name: name.to_owned(),
                    line: index + 1,
                    is_dev: parent.ends_with("dev-dependencies"),
                });
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let name = key.trim().split('.').next().unwrap_or_default();
        if line.starts_with('#') || name.is_empty() {
            continue;
        }
        if section == "package" && name == "name" {
            manifest.package = Some(value.trim().trim_matches('"').to_owned());
        } else if is_dependencies(&section) {
            manifest.dependencies.push(Dependency {
                name: name.trim_matches('"').to_owned(),
                line: index + 1,
                is_dev: section.ends_with("dev-dependencies"),
            });
        }
    }
    manifest
}

fn is_dependencies(section: &str) -> bool {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .any(|kind| section == *kind || section.ends_with(&format!(".{kind}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n\n{rest}")
    }

    #[test]
    fn every_form_of_a_dependency_is_read() {
        let text = crate_of(
            "a",
            "[dependencies]\none.workspace = true\ntwo = \"1\"\n# no = \"1\"\n\
             [target.'cfg(loom)'.dependencies]\nthree = { version = \"1\" }\n\
             [dev-dependencies.four]\nversion = \"1\"\n[features]\nfive = []\n",
        );
        let manifest = read(&text);
        let names: Vec<_> = manifest
            .dependencies
            .iter()
            .map(|d| d.name.as_str())
            .collect();
        assert_eq!(names, ["one", "two", "three", "four"]);
        assert_eq!(manifest.package.as_deref(), Some("a"));
    }

    #[test]
    fn an_arrow_up_is_seen() {
        let up = [
            ("fastmq-driver", "fastmq-memory"),
            ("fastmq-memory", "fastmq-route"),
            ("fastmq-route", "fastmq-engine"),
            ("fastmq-ffi", "fastmq-engine"),
            ("fastmq-cli", "fastmq-memory"),
            ("fastmq-stream", "fastmq-driver"),
        ];
        for (package, dependency) in up {
            for section in [
                "dependencies",
                "dev-dependencies",
                "target.'cfg(x)'.dependencies",
            ] {
                let text = crate_of(
                    package,
                    &format!("[{section}]\n{dependency}.workspace = true\n"),
                );
                let findings = arrows_go_down(&Tree::of(&[("core/a/Cargo.toml", &text)]));
                assert_eq!(findings.len(), 1, "{package} -> {dependency}");
            }
        }
        let down = crate_of(
            "fastmq-memory",
            "[dependencies]\nfastmq-driver.workspace = true\n",
        );
        assert_eq!(
            arrows_go_down(&Tree::of(&[("core/memory/Cargo.toml", &down)])),
            []
        );
    }

    #[test]
    fn what_tests_use_is_for_tests_only() {
        for (section, count) in [("dependencies", 1), ("dev-dependencies", 0)] {
            let dependency = format!("[{section}]\n{FOR_TESTS}.workspace = true\n");
            let text = crate_of("fastmq-engine", &dependency);
            let findings = arrows_go_down(&Tree::of(&[("core/engine/Cargo.toml", &text)]));
            assert_eq!(findings.len(), count, "{section}");
        }
    }

    #[test]
    fn a_crate_outside_the_layers_is_seen() {
        let text = crate_of("fastmq-extra", "");
        assert_eq!(
            arrows_go_down(&Tree::of(&[("core/extra/Cargo.toml", &text)])).len(),
            1
        );
        assert_eq!(
            arrows_go_down(&Tree::of(&[("tests/extra/Cargo.toml", &text)])),
            []
        );
    }

    #[test]
    fn a_dependency_without_a_reason_is_seen() {
        let text = crate_of(
            "a",
            "[dependencies]\nlibc.workspace = true\nbytes = \"1\"\n",
        );
        let tree = Tree::of(&[
            ("core/a/Cargo.toml", &text),
            (REASONS, "| `libc` | system calls | much |\n"),
        ]);
        assert_eq!(dependencies_have_a_reason(&tree)[0].line, 6);
        assert_eq!(dependencies_have_a_reason(&tree).len(), 1);
    }

    #[test]
    fn a_reason_without_a_dependency_is_seen() {
        let text = crate_of("a", "[dependencies]\nlibc.workspace = true\n");
        let tree = Tree::of(&[
            ("core/a/Cargo.toml", &text),
            (REASONS, "| for |\n|---|\n| `libc` | x |\n| `bytes` | y |\n"),
        ]);
        assert_eq!(reasons_have_a_dependency(&tree)[0].line, 4);
    }
}

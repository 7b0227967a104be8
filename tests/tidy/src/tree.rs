//! The files that the rules look at.
//!
//! Owns the walk: what is read, what is left out, and the form of a finding. A tree is a value, so
//! that a sample of one bad file is as good as the repository.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Directories that hold nothing we wrote.
const SKIPPED: &[&str] = &[
    ".git",
    ".tools",
    ".venv",
    "__pycache__",
    "build",
    "node_modules",
    "target",
];

/// Endings of the files that are read.
const ENDINGS: &[&str] = &[
    "c", "cjs", "cpp", "cts", "h", "hpp", "js", "json", "md", "mjs", "mts", "py", "pyi", "rs",
    "sh", "toml", "ts", "txt",
];

/// Files without an ending that are read.
const NAMES: &[&str] = &["LICENSE", "Makefile", "run"];

/// Files larger than this are data.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One file: its path from the root, with `/`, and its text.
#[derive(Debug, Clone)]
pub struct File {
    /// Path from the root of the repository.
    pub path: String,
    /// The whole text.
    pub text: String,
}

impl File {
    /// The last part of the path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The path without its last part; empty at the root.
    #[must_use]
    pub fn directory(&self) -> &str {
        self.path
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory)
    }

    /// Whether this is Rust.
    #[must_use]
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the whole file is test, example or measurement, not product.
    #[must_use]
    pub fn is_test(&self) -> bool {
        let path = &self.path;
        path.starts_with("tests/")
            || path.contains("/tests/")
            || path.starts_with("benches/")
            || path.contains("/benches/")
            || path.starts_with("examples/")
            || path.contains("/examples/")
            || path.starts_with("fuzz/")
    }
}

/// What a rule has to say about a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Path of the file.
    pub path: String,
    /// Line from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What is wrong, and the cure.
    pub says: String,
}

impl Finding {
    /// A finding at a line.
    pub fn new(file: &File, line: usize, says: impl Into<String>) -> Self {
        Self {
            path: file.path.clone(),
            line,
            says: says.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.says)
    }
}

/// All files, sorted by path.
#[derive(Debug, Default)]
pub struct Tree {
    /// The files.
    pub files: Vec<File>,
    /// Paths that exist, files that are not read included; for links.
    pub paths: Vec<String>,
}

impl Tree {
    /// The repository that this crate stands in.
    ///
    /// # Errors
    /// A directory or file cannot be read, or cargo did not start this program.
    pub fn repository() -> io::Result<Self> {
        // Asked when it runs: a target directory may be shared by two copies of the repository.
        let here = std::env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
        let root = Path::new(&here)
            .ancestors()
            .nth(2)
            .ok_or_else(|| io::Error::other(format!("{here} is not two levels below a root")))?;
        let mut tree = Self::default();
        tree.read(root, root)?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree.paths.sort();
        Ok(tree)
    }

    /// A tree of these paths and texts.
    #[must_use]
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self {
            files: files
                .iter()
                .map(|(path, text)| File {
                    path: (*path).to_owned(),
                    text: (*text).to_owned(),
                })
                .collect(),
            paths: files.iter().map(|(path, _)| (*path).to_owned()).collect(),
        }
    }

    /// The file at a path.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    fn read(&mut self, root: &Path, directory: &Path) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    self.paths.push(relative(root, &path));
                    self.read(root, &path)?;
                }
            } else if kind.is_file() {
                self.paths.push(relative(root, &path));
                let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
                let is_ours = ENDINGS.contains(&ending) || NAMES.contains(&name.as_str());
                if is_ours && entry.metadata()?.len() <= FILE_BYTES_MAX {
                    self.files.push(File {
                        path: relative(root, &path),
                        text: fs::read_to_string(&path).map_err(|error| named(&path, &error))?,
                    });
                }
            }
        }
        Ok(())
    }
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .replace('\\', "/")
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

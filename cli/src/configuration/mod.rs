//! What a command is told: by flags, else by variables of the environment, else by `fastmq.toml`
//! in the root, else by its profile and the table of defaults.
//!
//! A server looks for the file in `WORK_ROOT`, or in `.fastmq` of the current directory. A client
//! looks only if somebody has named a root: a directory that it happens to be in must not decide
//! to whom it sends a token.

mod settings;
mod value;

use std::fmt;
use std::fs;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use clap::ArgMatches;
use clap::parser::ValueSource;
use fastmq::border;
use toml::de::DeTable;

use crate::failure::{Failure, Outcome};

pub(crate) use settings::{Part, SETTINGS, Setting, WAITS, arguments};
pub(crate) use value::Value;

/// Where a server listens and a client looks for it if nobody says.
pub(crate) const URL_DEFAULT: &str = "tcp://127.0.0.1:4860";
/// The socket in the root.
const SOCKET_NAME: &str = "fastmq.sock";
const FILE_NAME: &str = "fastmq.toml";
/// Threads of a server if nobody says, at most.
const SHARDS_DEFAULT_MAX: usize = 16;

/// Who has said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Flag(&'static str),
    Variable(&'static str),
    /// A file, and the line in it.
    File(PathBuf, usize),
    Profile,
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Profile => f.write_str("profile small"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting with its value; none: nobody has said anything, and there is no default.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) setting: &'static Setting,
    pub(crate) value: Option<Value>,
    pub(crate) source: Source,
}

impl Entry {
    /// The value as text for people.
    pub(crate) fn show(&self) -> String {
        match &self.value {
            Some(value) => self.setting.kind.show(value),
            None => "-".to_owned(),
        }
    }
}

/// All settings of a part.
#[derive(Debug)]
pub(crate) struct Configuration {
    entries: Vec<Entry>,
}

/// Where a value may come from beside the defaults.
struct Said<'a> {
    arguments: &'a ArgMatches,
    variables: &'a dyn Fn(&str) -> Option<String>,
    file: File,
}

impl Configuration {
    /// What a command of this part is told.
    ///
    /// # Errors
    /// A value that is wrong, a file that cannot be read, a key that nobody knows: with the place.
    pub(crate) fn load(part: Part, arguments: &ArgMatches) -> Outcome<Self> {
        let loaded = Self::load_from(part, arguments, &|name| std::env::var(name).ok())?;
        if !loaded.is_default("root") {
            border::name_root(loaded.path("root"));
        }
        Ok(loaded)
    }

    fn load_from(
        part: Part,
        arguments: &ArgMatches,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Outcome<Self> {
        let mut said = Said {
            arguments,
            variables,
            file: File::default(),
        };
        let (root, source) = said.find(&SETTINGS[0])?;
        let is_looked_at = part != Part::Client || source != Source::Default;
        if let Some(root) = root.filter(|_| is_looked_at) {
            said.file = File::read(&root.path().join(FILE_NAME))?;
        }
        let mut configuration = Self {
            entries: Vec::new(),
        };
        for setting in SETTINGS
            .iter()
            .filter(|it| it.is_of(part) || part == Part::Both)
        {
            let (value, source) = said.find(setting)?;
            configuration.entries.push(Entry {
                setting,
                value,
                source,
            });
        }
        configuration.fill_in();
        Ok(configuration)
    }

    /// The defaults that depend on others.
    fn fill_in(&mut self) {
        let is_small = self.text("profile") == "small";
        let root = self.path("root");
        let is_named = !self.is_default("root");
        for entry in &mut self.entries {
            let setting = entry.setting;
            if entry.value.is_some() {
                continue;
            }
            if is_small && !setting.small.is_empty() {
                entry.value = setting.kind.read(setting.small).ok();
                entry.source = Source::Profile;
                continue;
            }
            let in_root = |name| root.join(name).display().to_string();
            entry.value = match setting.key {
                "data_root" => Some(Value::Text(in_root("data"))),
                "listen" => {
                    let socket = format!("unix:{}", in_root(SOCKET_NAME));
                    Some(Value::Texts(vec![URL_DEFAULT.to_owned(), socket]))
                }
                "shards" => Some(Value::Number(shards_default())),
                "url" if is_named => Some(Value::Text(format!("unix:{}", in_root(SOCKET_NAME)))),
                "url" => Some(Value::Text(URL_DEFAULT.to_owned())),
                _ if setting.default.is_empty() => None,
                _ => setting.kind.read(setting.default).ok(),
            };
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The value of a setting.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        let entry = self.entries.iter().find(|it| it.setting.key == key);
        entry?.value.as_ref()
    }

    /// Whether nobody has said anything of a setting.
    pub(crate) fn is_default(&self, key: &str) -> bool {
        let is_told = |it: &Entry| it.setting.key == key && it.source != Source::Default;
        !self.entries.iter().any(is_told)
    }

    /// Empty: none.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).map_or("", Value::text)
    }

    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.text(key).into()
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        self.get(key).map_or(0, Value::number)
    }

    pub(crate) fn is_true(&self, key: &str) -> bool {
        self.get(key).is_some_and(Value::is_true)
    }

    /// The secret; empty: none.
    pub(crate) fn token(&self) -> Outcome<Vec<u8>> {
        match self.text("token_file") {
            "" => Ok(Vec::new()),
            path => token_in(path),
        }
    }
}

impl Said<'_> {
    /// What the user says; the default if there is one for all profiles.
    fn find(&self, setting: &Setting) -> Outcome<(Option<Value>, Source)> {
        let wrong = |source: &dyn fmt::Display, says| Failure::usage(format!("{source}: {says}"));
        if let Some(value) = self.flag(setting) {
            let source = Source::Flag(setting.flag);
            let value = value.map_err(|says| wrong(&source, says))?;
            return Ok((Some(value), source));
        }
        let variable = (self.variables)(setting.variable).filter(|text| !text.is_empty());
        if let Some(text) = variable {
            let source = Source::Variable(setting.variable);
            let value = setting.kind.read(&text);
            let value = value.map_err(|says| wrong(&source, says))?;
            return Ok((Some(value), source));
        }
        if let Some((value, line)) = self.file.find(setting.key) {
            let source = Source::File(self.file.path.clone(), *line);
            return Ok((Some(value.clone()), source));
        }
        let is_for_all = setting.small.is_empty() && !setting.default.is_empty();
        let value = match is_for_all {
            true => setting.kind.read(setting.default).ok(),
            false => None,
        };
        Ok((value, Source::Default))
    }

    fn flag(&self, setting: &Setting) -> Option<Result<Value, String>> {
        let arguments = self.arguments;
        let id = setting.flag;
        // Not every command has every flag.
        if !arguments.try_contains_id(id).is_ok_and(|is_there| is_there)
            || arguments.value_source(id) != Some(ValueSource::CommandLine)
        {
            return None;
        }
        if setting.kind == value::Kind::Flag {
            return Some(Ok(Value::Flag(true)));
        }
        if setting.kind == value::Kind::Texts {
            let texts = arguments.get_many::<String>(id)?.cloned().collect();
            return Some(Ok(Value::Texts(texts)));
        }
        Some(setting.kind.read(arguments.get_one::<String>(id)?))
    }
}

/// A `fastmq.toml`, whose values were checked; the default is one that is not there.
#[derive(Debug, Default)]
struct File {
    path: PathBuf,
    /// Key, value, line.
    values: Vec<(&'static str, Value, usize)>,
}

impl File {
    fn read(path: &Path) -> Outcome<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if is_missing(&error) => return Ok(Self::default()),
            Err(error) => return Err(Failure::usage(format!("{}: {error}", path.display()))),
        };
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Outcome<Self> {
        let wrong = |at: usize, says: &dyn fmt::Display| {
            let line = line_of(text, at);
            Failure::usage(format!("{}:{line}: {says}", path.display()))
        };
        let table = DeTable::parse(text)
            .map_err(|error| wrong(error.span().map_or(0, |span| span.start), &error.message()))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut values = Vec::new();
        for (key, value) in table.get_ref() {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            // The file is in the root: it cannot say where that is.
            let known = SETTINGS.iter().skip(1).find(|it| it.key == name);
            let Some(setting) = known else {
                let keys: Vec<_> = SETTINGS.iter().skip(1).map(|it| it.key).collect();
                let says = format!("`{name}` is no key; the keys are {}", keys.join(", "));
                return Err(wrong(at, &says));
            };
            let read = setting.kind.read_toml(value.get_ref(), directory);
            let value = read.map_err(|says| wrong(at, &format_args!("{name}: {says}")))?;
            values.push((setting.key, value, line_of(text, at)));
        }
        Ok(Self {
            path: path.to_owned(),
            values,
        })
    }

    fn find(&self, key: &str) -> Option<(&Value, &usize)> {
        let found = self.values.iter().find(|(known, ..)| *known == key);
        found.map(|(_, value, line)| (value, line))
    }
}

/// There is none; whether the directory is one is told by whoever needs it.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// One thread for each core, but one alone where there are no more than two: clients need some.
fn shards_default() -> u64 {
    match thread::available_parallelism().map_or(1, NonZero::get) {
        ..=2 => 1,
        cores => cores.min(SHARDS_DEFAULT_MAX) as u64,
    }
}

/// The line of a place in a text, from 1.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

/// The secret in a file.
fn token_in(path: &str) -> Outcome<Vec<u8>> {
    let explain = |error: io::Error| Failure::usage(format!("{path}: {error}"));
    let mut token = fs::read(path).map_err(explain)?;
    token.truncate(token.trim_ascii_end().len());
    match token.is_empty() {
        true => Err(Failure::usage(format!("{path} is empty: it has no token"))),
        false => Ok(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        let parsed = File::parse(Path::new("/srv/fastmq.toml"), text);
        parsed.map_err(|failure| failure.text().to_owned())
    }

    #[test]
    fn every_default_is_a_value() {
        for setting in SETTINGS {
            for default in [setting.default, setting.small] {
                let is_fine = default.is_empty() || setting.kind.read(default).is_ok();
                assert!(is_fine, "{}: {default}", setting.key);
            }
        }
    }

    #[test]
    fn a_file_has_values_with_lines() {
        let file = parse(
            "# The server.\nlisten = ['tcp://[::1]:1', \"unix:/s\"]\nmemory_max = '1 GiB'\n\
             \ninsecure = true\ntoken_file = 'token'\nconnections_max = 1_000\n",
        )
        .unwrap();
        let check = |key, expected: Value, line: usize| {
            assert_eq!(file.find(key), Some((&expected, &line)), "{key}");
        };
        let texts = ["tcp://[::1]:1", "unix:/s"].map(str::to_owned).to_vec();
        check("listen", Value::Texts(texts), 2);
        check("memory_max", Value::Number(1 << 30), 3);
        check("insecure", Value::Flag(true), 5);
        check("token_file", Value::Text("/srv/token".to_owned()), 6);
        check("connections_max", Value::Number(1000), 7);
        assert_eq!(file.find("name"), None);
    }

    #[test]
    fn the_example_of_the_documents_is_one() {
        let file = parse(include_str!("../../../packaging/fastmq.toml")).unwrap();
        assert_eq!(file.values.len(), 3);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told_with_its_line_and_key() {
        let check = |text: &str, expected: &[&str]| {
            let says = parse(text).unwrap_err();
            for part in expected {
                assert!(says.contains(part), "{says}");
            }
        };
        check("\nlisten = 7", &["/srv/fastmq.toml:2: listen: ", "list"]);
        check("listen = [7]", &["fastmq.toml:1: listen: "]);
        check("\n\nlsten = ''", &["fastmq.toml:3: `lsten`", "listen"]);
        check("root = '/x'", &["fastmq.toml:1: `root` is no key"]);
        check("drain_seconds = 9999", &["drain_seconds: `9999`", "3600"]);
        check("drain_seconds = '9'", &["drain_seconds: ", "a number"]);
        check("memory_max = 1.5", &["memory_max: ", "bytes"]);
        check("wait = 'never'", &["wait: `never`", "low-power"]);
        check("a = 1\nb = \n", &["/srv/fastmq.toml:2: "]);
    }
}

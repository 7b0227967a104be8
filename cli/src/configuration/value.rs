//! A value of a setting: out of words and out of a file, and back as text.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::json;
use toml::de::DeValue;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// Several, with commas between them where they are one word.
    Texts,
    Path,
    /// `true` or `false`.
    Flag,
    /// From, up to.
    Number(u64, u64),
    /// A number of bytes, or text with a unit.
    Bytes(u64, u64),
    Choice(&'static [&'static str]),
}

/// A value of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Texts(Vec<String>),
    Flag(bool),
    Number(u64),
}

impl Kind {
    /// The value that a word of the shell says, or what it should be.
    pub(crate) fn read(self, word: &str) -> Result<Value, String> {
        let wrong = |what: &dyn fmt::Display| Err(format!("`{word}` is no {what}"));
        match self {
            Self::Text | Self::Path => Ok(Value::Text(word.to_owned())),
            Self::Texts => {
                let parts = word.split(',').map(str::trim).filter(|it| !it.is_empty());
                Ok(Value::Texts(parts.map(str::to_owned).collect()))
            }
            Self::Flag => match word {
                "true" | "1" | "yes" => Ok(Value::Flag(true)),
                "false" | "0" | "no" => Ok(Value::Flag(false)),
                _ => wrong(&"`true` or `false`"),
            },
            Self::Number(from, to) => match word.parse() {
                Ok(number) if (from..=to).contains(&number) => Ok(Value::Number(number)),
                _ => wrong(&format_args!("number from {from} to {to}")),
            },
            Self::Bytes(from, to) => match bytes_in(word) {
                Some(bytes) if (from..=to).contains(&bytes) => Ok(Value::Number(bytes)),
                Some(_) => Err(format!(
                    "`{word}` is not from {} to {}",
                    Bytes(from),
                    Bytes(to)
                )),
                None => wrong(&"number of bytes, such as 65536, 512 KiB or 2 GiB"),
            },
            Self::Choice(names) => match names.contains(&word) {
                true => Ok(Value::Text(word.to_owned())),
                false => Err(format!("`{word}` is none of {}", names.join(", "))),
            },
        }
    }

    /// The value that a file says. Paths in it are relative to `directory`.
    pub(crate) fn read_toml(self, value: &DeValue<'_>, directory: &Path) -> Result<Value, String> {
        let what = match self {
            Self::Text | Self::Path | Self::Choice(_) => "text in quotes",
            Self::Texts => "a list of texts, or one text",
            Self::Flag => "true or false",
            Self::Number(..) => "a number",
            Self::Bytes(..) => "a number of bytes, or text such as \"512 KiB\"",
        };
        match (self, value) {
            (Self::Path, DeValue::String(text)) => {
                let path = directory.join(&**text);
                Ok(Value::Text(path.display().to_string()))
            }
            (Self::Number(..) | Self::Bytes(..), DeValue::Integer(number)) => {
                // The digits as they are written: 1_000 is one thousand.
                match number.radix() {
                    10 => self.read(&number.as_str().replace('_', "")),
                    _ => Err("write the number in decimal".to_owned()),
                }
            }
            (Self::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
            (Self::Texts, DeValue::Array(texts)) => {
                let texts = texts.iter().map(|it| it.get_ref().as_str());
                let texts: Option<Vec<_>> = texts.map(|it| it.map(str::to_owned)).collect();
                texts
                    .map(Value::Texts)
                    .ok_or_else(|| format!("expects {what}"))
            }
            (Self::Flag | Self::Number(..), _) => Err(format!("expects {what}")),
            (_, DeValue::String(text)) => self.read(text),
            _ => Err(format!("expects {what}")),
        }
    }

    /// Text for people.
    pub(crate) fn show(self, value: &Value) -> String {
        match (self, value) {
            (Self::Bytes(..), Value::Number(bytes)) => Bytes(*bytes).to_string(),
            (_, Value::Text(text)) => text.clone(),
            (_, Value::Texts(texts)) => texts.join(", "),
            (_, Value::Flag(flag)) => flag.to_string(),
            (_, Value::Number(number)) => number.to_string(),
        }
    }
}

impl Value {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.text().into()
    }

    pub(crate) fn texts(&self) -> &[String] {
        match self {
            Self::Texts(texts) => texts,
            _ => &[],
        }
    }

    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            _ => 0,
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        *self == Self::Flag(true)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Texts(texts) => json!(texts),
            Self::Flag(flag) => json!(flag),
            Self::Number(number) => json!(number),
        }
    }
}

/// Bytes as people write them.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("GiB", GIB), ("MiB", MIB), ("KiB", KIB)] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{} {unit}", self.0 / size);
            }
        }
        write!(f, "{}", self.0)
    }
}

fn bytes_in(text: &str) -> Option<u64> {
    let end = text.find(|character: char| !character.is_ascii_digit());
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    let size = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" => KIB,
        "MiB" | "M" => MIB,
        "GiB" | "G" => GIB,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        let check = |text, expected| assert_eq!(bytes_in(text), expected, "{text}");
        check("0", Some(0));
        check("65536", Some(65_536));
        check("512 KiB", Some(512 << 10));
        check("2G", Some(2 << 30));
        check("1.5 MiB", None);
        check("MiB", None);
        check("-1", None);
        check("99999999999999 GiB", None);
        assert_eq!(Bytes(3 << 20).to_string(), "3 MiB");
        assert_eq!(Bytes(1025).to_string(), "1025");
    }

    #[test]
    fn what_is_wrong_is_told_with_what_it_should_be() {
        let check = |kind: Kind, word, expected: &str| {
            let says = kind.read(word).unwrap_err();
            assert!(says.contains(word) && says.contains(expected), "{says}");
        };
        check(Kind::Number(0, 9), "10", "0 to 9");
        check(Kind::Number(0, 9), "-1", "0 to 9");
        check(Kind::Flag, "maybe", "true");
        check(Kind::Bytes(1, 2 << 20), "3 MiB", "2 MiB");
        check(Kind::Bytes(1, 2), "much", "KiB");
        check(Kind::Choice(&["a", "b"]), "c", "a, b");
    }
}

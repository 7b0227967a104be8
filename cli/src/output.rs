//! What a message looks like: for people, for the next program in a pipe, and as JSON.

use std::io::{self, IsTerminal, Write};

use clap::{Arg, ArgAction, ArgMatches};
use fastmq::{View, headers};
use serde_json::{Map, Value, json};

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Subject, a space, payload, a new line; on a terminal nothing in it can move the cursor.
    Text {
        is_terminal: bool,
        is_coloured: bool,
    },
    /// The payload and a new line.
    Raw,
    /// An object of JSON, and a new line.
    Json,
}

/// The options that choose it.
pub(crate) fn arguments() -> [Arg; 2] {
    let json = Arg::new("json")
        .long("json")
        .help("A line of JSON for each message")
        .action(ArgAction::SetTrue);
    let raw = Arg::new("raw")
        .long("raw")
        .help("The payload alone, and a new line")
        .conflicts_with("json")
        .action(ArgAction::SetTrue);
    [json, raw]
}

/// Whether standard output may have colours.
pub(crate) fn is_coloured() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

impl Form {
    pub(crate) fn of(arguments: &ArgMatches) -> Self {
        match (arguments.get_flag("json"), arguments.get_flag("raw")) {
            (true, _) => Self::Json,
            (_, true) => Self::Raw,
            _ => Self::Text {
                is_terminal: io::stdout().is_terminal(),
                is_coloured: is_coloured(),
            },
        }
    }

    /// Writes a message that came by a subscription.
    pub(crate) fn write(self, out: &mut dyn Write, view: &View) -> io::Result<()> {
        match self {
            Self::Text {
                is_terminal,
                is_coloured,
            } => {
                let (begin, end) = if is_coloured {
                    ("\x1b[36m", "\x1b[0m")
                } else {
                    ("", "")
                };
                let subject = String::from_utf8_lossy(view.subject());
                let subject = if is_terminal {
                    harmless(subject.as_bytes())
                } else {
                    subject.into()
                };
                write!(out, "{begin}{subject}{end} ")?;
                match is_terminal {
                    true => out.write_all(harmless(view.payload()).as_bytes())?,
                    false => out.write_all(view.payload())?,
                }
                out.write_all(b"\n")
            }
            Self::Raw => {
                out.write_all(view.payload())?;
                out.write_all(b"\n")
            }
            Self::Json => writeln!(out, "{}", object_of(view)),
        }
    }

    /// Writes an answer.
    pub(crate) fn write_answer(
        self,
        out: &mut dyn Write,
        status: u32,
        payload: &[u8],
        encoded: &[u8],
    ) -> io::Result<()> {
        if self == Self::Json {
            let mut object = Map::new();
            object.insert("status".to_owned(), json!(status));
            add_content(&mut object, payload, encoded);
            return writeln!(out, "{}", Value::Object(object));
        }
        match self {
            Self::Text {
                is_terminal: true, ..
            } => out.write_all(harmless(payload).as_bytes())?,
            _ => out.write_all(payload)?,
        }
        out.write_all(b"\n")
    }
}

/// Text for a terminal: control characters, which could move its cursor, as escapes.
pub(crate) fn harmless(bytes: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '\t' | '\n' => text.push(character),
            _ if character.is_control() => text.extend(character.escape_default()),
            _ => text.push(character),
        }
    }
    text
}

fn object_of(view: &View) -> Value {
    let mut object = Map::new();
    let text = |bytes| json!(String::from_utf8_lossy(bytes));
    object.insert("subject".to_owned(), text(view.subject()));
    add_content(&mut object, view.payload(), view.headers());
    for (name, bytes) in [("reply_to", view.reply_to()), ("key", view.key())] {
        if !bytes.is_empty() {
            object.insert(name.to_owned(), text(bytes));
        }
    }
    for (name, number) in [
        ("sequence", view.sequence),
        ("publisher", view.publisher),
        ("timestamp_ns", view.timestamp_ns),
        ("lost_before", u64::from(view.lost_before)),
    ] {
        if number != 0 {
            object.insert(name.to_owned(), json!(number));
        }
    }
    Value::Object(object)
}

/// Adds `payload`, or `payload_base64` if it is no text, and `headers` if there are any.
fn add_content(object: &mut Map<String, Value>, payload: &[u8], encoded: &[u8]) {
    match std::str::from_utf8(payload) {
        Ok(text) => object.insert("payload".to_owned(), json!(text)),
        Err(_) => object.insert("payload_base64".to_owned(), json!(base64(payload))),
    };
    let mut pairs = Vec::new();
    let mut cursor = 0;
    while let Ok(Some((name, value, next))) = headers::next(encoded, cursor) {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        pairs.push(json!([text(name), text(value)]));
        cursor = next;
    }
    if !pairs.is_empty() {
        object.insert("headers".to_owned(), Value::Array(pairs));
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            match digit <= chunk.len() {
                true => text.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] as char),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        let check = |bytes: &str, expected: &str| assert_eq!(base64(bytes.as_bytes()), expected);
        check("", "");
        check("f", "Zg==");
        check("fo", "Zm8=");
        check("foo", "Zm9v");
        check("foobar", "Zm9vYmFy");
    }

    #[test]
    fn a_payload_does_not_move_the_cursor() {
        assert_eq!(harmless(b"a\x1b[2Jb\tc\r"), "a\\u{1b}[2Jb\tc\\r");
    }
}

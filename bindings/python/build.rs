//! Cuts the documentation of the stub, `python/fastmq/_fastmq.pyi`, into a file for each name, so
//! that `help(fastmq)` says what editors show and it is written once. `doc!` in the crate has it.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

const STUB: &str = "python/fastmq/_fastmq.pyi";

fn main() {
    println!("cargo::rerun-if-changed={STUB}");
    println!("cargo::rerun-if-changed=build.rs");
    let stub = fs::read_to_string(STUB).expect("the stub is there");
    let out = env::var("OUT_DIR").expect("cargo says where");
    for (name, text) in cut(&stub) {
        fs::write(Path::new(&out).join(name), text).expect("the target can be written to");
    }
}

/// What a dictionary of options says: its base, and a line for each field.
type Options<'a> = BTreeMap<&'a str, (Option<&'a str>, String)>;

/// The documentation by name: `open`, `Client`, `Client.publish`.
fn cut(stub: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut options: Options<'_> = BTreeMap::new();
    let (mut class, mut name, mut taken) = ("", String::new(), None);
    let mut lines = stub.lines();
    while let Some(line) = lines.next() {
        let inner = line.trim_start();
        let is_outer = inner.len() == line.len();
        if let Some(rest) = line.strip_prefix("class ") {
            class = word(rest);
            name = class.to_owned();
            let base = rest.split_once('(').map(|(_, base)| word(base));
            options.insert(class, (base, String::new()));
        } else if let Some(rest) = inner.strip_prefix("def ") {
            if is_outer {
                class = "";
            }
            name = match class {
                "" => word(rest).to_owned(),
                _ => format!("{class}.{}", word(rest)),
            };
            taken = None;
        } else if let Some(text) = inner.strip_prefix("\"\"\"") {
            let text = docstring(text, line.len() - inner.len(), &mut lines);
            match name.strip_prefix("field ") {
                Some(field) => {
                    let fields = &mut options.get_mut(class).expect("it is in a class").1;
                    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                    fields.push_str(&format!("    {field}: {text}\n"));
                }
                None => {
                    let fields = taken.map_or_else(String::new, |of| fields(&options, of));
                    found.push((name.clone(), text + &fields));
                }
            }
        } else if class.ends_with("Options")
            && let Some((field, _)) = inner.split_once(": ")
        {
            name = format!("field {field}");
        }
        if let Some((_, of)) = line.split_once("Unpack[") {
            taken = Some(word(of));
        }
    }
    found
}

/// What may be given by name to whoever takes these options.
fn fields(options: &Options<'_>, of: &str) -> String {
    let mut all = String::new();
    let mut next = Some(of);
    while let Some((base, fields)) = next.and_then(|name| options.get(name)) {
        all.push_str(fields);
        next = *base;
    }
    format!("\n\nOptions, by name:\n{}", all.trim_end())
}

/// The rest of a docstring that begins with `text`, without its indentation.
fn docstring<'a>(text: &str, indent: usize, lines: &mut impl Iterator<Item = &'a str>) -> String {
    let mut whole = text.to_owned();
    while !whole.contains("\"\"\"") {
        let line = lines.next().expect("a docstring ends");
        whole.push('\n');
        whole.push_str(line.get(indent..).unwrap_or_default());
    }
    whole.truncate(whole.find("\"\"\"").unwrap_or(whole.len()));
    whole.trim_end().to_owned()
}

/// The name that a text begins with.
fn word(text: &str) -> &str {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    &text[..text.find(|c| !is_part(c)).unwrap_or(text.len())]
}

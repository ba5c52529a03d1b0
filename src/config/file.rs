//! The YAML file of `--config`: the same keys as the flags, flat. Each value remembers its line.
//!
//! Scalars are kept as the text that stands in the file (`1.10` stays `1.10`), so that one parser, the flag's own,
//! reads them wherever they come from. No message quotes a value of the file: it may hold secrets.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess};
use serde_saphyr::Spanned;

use super::{Error, Origin};

/// A setting as the file has it: its values, in the form in which the flag takes them.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) line: u64,
    pub(super) values: Vec<String>,
}

/// What form the value of a key has in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Scalar,
    List,
    Map,
    /// Only sensible as a flag or variable.
    NotInFile,
    Unknown,
}

/// What form `key` has.
pub(super) fn shape(key: &str, known: bool) -> Shape {
    match key {
        _ if !known => Shape::Unknown,
        "config" => Shape::NotInFile,
        "namespace" => Shape::List,
        "kafka-config" => Shape::Map,
        _ => Shape::Scalar,
    }
}

/// Reads the file; `keys` are the keys there are.
pub(super) fn read(path: &Path, keys: &[String]) -> Result<BTreeMap<String, Entry>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
        key: "config",
        path: path.to_owned(),
        source,
        mend: "name a readable YAML file with --config or POD_MONITOR_CONFIG",
    })?;
    parse(path, &text, keys)
}

fn parse(path: &Path, text: &str, keys: &[String]) -> Result<BTreeMap<String, Entry>, Error> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(BTreeMap::new());
    }
    let raw: Raw = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        // Without its snippet: that would print the neighbouring lines, and a secret may stand there.
        Error::Yaml { path: path.to_owned(), line, why: error.without_snippet().to_string() }
    })?;
    let mut entries = BTreeMap::new();
    for (key, line, value) in raw.0 {
        let at = |why: String| Error::Setting {
            origin: Origin::File { path: path.to_owned(), line },
            key: key.escape_debug().to_string(),
            why,
        };
        let values = match (shape(&key, keys.contains(&key)), value) {
            (Shape::Unknown, _) => return Err(at(unknown(&key, keys))),
            (Shape::NotInFile, _) => {
                return Err(at("cannot stand in the file: use the flag or the variable".to_owned()));
            }
            (Shape::Scalar, Value::Scalar(value)) => vec![value],
            (Shape::List, Value::List(values)) => values,
            (Shape::Map, Value::Map(values)) => {
                values.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
            }
            (Shape::Scalar, _) => return Err(at("takes one value: write 'key: value'".to_owned())),
            (Shape::List, _) => return Err(at("takes a list: write for instance [a, b]".to_owned())),
            (Shape::Map, _) => return Err(at("takes a map: write for instance {security.protocol: ssl}".to_owned())),
        };
        entries.insert(key, Entry { line, values });
    }
    Ok(entries)
}

fn unknown(key: &str, keys: &[String]) -> String {
    let near = keys.iter().filter(|known| known.as_str() != "config").min_by_key(|known| distance(key, known));
    match near.filter(|known| distance(key, known) <= 3) {
        Some(known) => format!("is not a key: did you mean {known}?"),
        None => "is not a key: 'pod-monitor run --help' lists them (the flags without the dashes)".to_owned(),
    }
}

/// Levenshtein distance in characters; keys are short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.iter().enumerate() {
            let cost = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The document as it stands: keys in order with their lines.
struct Raw(Vec<(String, u64, Value)>);

/// A value of the file.
enum Value {
    Scalar(String),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
    /// Something of an unknown key.
    Skipped,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("settings, one 'key: value' a line")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    // The type asked for keeps scalars as they are written; a wrong one is an error with its line.
                    let value = match shape(&key.value, true) {
                        Shape::Scalar if is_known(&key.value) => Value::Scalar(map.next_value()?),
                        Shape::List => Value::List(map.next_value()?),
                        Shape::Map => Value::Map(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            Value::Skipped
                        }
                    };
                    entries.push((key.value, key.referenced.line(), value));
                }
                Ok(Raw(entries))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Whether a flag of that name exists; unknown keys may hold anything, since they are refused anyway.
fn is_known(key: &str) -> bool {
    super::layers::keys().iter().any(|known| known == key)
}

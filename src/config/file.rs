//! The YAML file of `--config`: the same keys as the flags, flat. Each value remembers its line.
//!
//! Scalars are kept as the text that stands in the file (`1.10` stays `1.10`), so that one parser, the flag's own,
//! reads them wherever they come from. No message quotes a value of the file: it may hold secrets.

use std::{cell::RefCell, collections::BTreeMap, fmt, path::Path};

use serde::de::{self, Deserializer as _, IgnoredAny, MapAccess};
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

impl Shape {
    /// What to write.
    fn mend(self) -> &'static str {
        match self {
            Self::Scalar => "takes one value: write 'key: value', with quotes where the value is empty",
            Self::List => "takes a list: write for instance [a, b]",
            Self::Map => "takes a map of single values: write for instance {security.protocol: ssl}",
            Self::NotInFile | Self::Unknown => "its value cannot be read",
        }
    }
}

/// What form `key` has.
pub(super) fn shape(key: &str, known: bool) -> Shape {
    match key {
        _ if !known => Shape::Unknown,
        "config" => Shape::NotInFile,
        "namespace" | "stall-grace" => Shape::List,
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
    let open = RefCell::new(None);
    let reader = Reader { keys, open: &open };
    let entries_read = serde_saphyr::with_deserializer_from_str(text, |yaml| yaml.deserialize_map(reader));
    let raw = entries_read.map_err(|error| refused(path, error.without_snippet(), open.take()))?;
    let mut entries = BTreeMap::new();
    for (key, line, value) in raw {
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
            (shape, _) => return Err(at(shape.mend().to_owned())),
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
pub(super) fn distance(a: &str, b: &str) -> usize {
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

/// A value of the file.
enum Value {
    Scalar(String),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
    /// Something of an unknown key.
    Skipped,
}

/// The key whose value is being read: its name, line and shape.
type OpenKey = (String, u64, Shape);

/// Reads the document as it stands: keys in order with their lines.
struct Reader<'a> {
    keys: &'a [String],
    /// Left behind by a value that cannot be read, since the parser's error names no key.
    open: &'a RefCell<Option<OpenKey>>,
}

impl<'de> de::Visitor<'de> for Reader<'_> {
    type Value = Vec<(String, u64, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings, one 'key: value' a line")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let (key, line) = (key.value, key.referenced.line());
            let shape = shape(&key, self.keys.contains(&key));
            self.open.replace(Some((key.clone(), line, shape)));
            // The type asked for keeps scalars as they are written; a wrong one is an error.
            let value = match shape {
                Shape::Scalar => Value::Scalar(map.next_value()?),
                Shape::List => Value::List(map.next_value()?),
                Shape::Map => Value::Map(map.next_value()?),
                // May hold anything, since it is refused anyway.
                Shape::NotInFile | Shape::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    Value::Skipped
                }
            };
            self.open.replace(None);
            entries.push((key, line, value));
        }
        Ok(entries)
    }
}

/// The parser's refusal in our words. Without its snippet, which would print the neighbouring lines: a secret may
/// stand there.
fn refused(path: &Path, error: &serde_saphyr::Error, open: Option<OpenKey>) -> Error {
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    let path = path.to_owned();
    let why = match (error, open) {
        (serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. }, _) => {
            format!("{}: stands twice: leave one of them out", key.escape_debug())
        }
        (serde_saphyr::Error::Unexpected { .. } | serde_saphyr::Error::NullIntoString { .. }, open) => match open {
            Some((key, line, shape)) => {
                return Error::Setting { origin: Origin::File { path, line }, key, why: shape.mend().to_owned() };
            }
            None => "the file has to hold settings, one 'key: value' a line".to_owned(),
        },
        (other, _) => other.to_string(),
    };
    // The place stands in front already.
    let why = why.strip_suffix(&format!(" at line {line}, column {column}")).unwrap_or(&why).to_owned();
    Error::Yaml { path, line, why }
}

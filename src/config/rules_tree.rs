//! A YAML document as a tree in which everything remembers its place, for errors that show it. Pure.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess};
use serde_saphyr::Spanned;

/// Deepest nesting that is read; rules need 6.
const DEPTH_MAX: usize = 16;
/// How much of a line is shown on each side of the caret, in characters.
const SHOWN_CHARS: usize = 60;

/// Where something stands; both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    column: u64,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) at: Place,
    pub(super) why: String,
}

/// A value with its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// What stands there. Scalars as text, so that one reader takes `42` and `"42"`.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Field>),
}

/// One key of a map.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) at: Place,
    pub(super) key: String,
    pub(super) value: Node,
}

impl Wrong {
    pub(super) fn new(at: Place, why: impl Into<String>) -> Self {
        Self { at, why: why.into() }
    }

    /// The message with the line it speaks of and a caret below the place.
    pub(super) fn shown(&self, text: &str) -> String {
        let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).saturating_sub(1);
        let line = text.lines().nth(index(self.at.line)).unwrap_or_default();
        let before = line.chars().count().min(index(self.at.column));
        let from = before.saturating_sub(SHOWN_CHARS);
        // The file may hold anything: nothing of it may steer the terminal, and a tab would move the caret.
        let plain = |c: char| if c.is_control() { '?' } else { c };
        let part: String = line.chars().skip(from).take(2 * SHOWN_CHARS).map(plain).collect();
        format!("{}\n    {part}\n    {}^", self.why, " ".repeat(before - from))
    }
}

/// Reads one document.
pub(super) fn read(text: &str) -> Result<Node, Wrong> {
    let options = serde_saphyr::options! { budget: serde_saphyr::budget! { max_depth: DEPTH_MAX } };
    serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options).map(node).map_err(|error| refused(&error))
}

fn refused(error: &serde_saphyr::Error) -> Wrong {
    let error = error.without_snippet();
    let (line, column) = error.location().map_or((1, 1), |at| (at.line().max(1), at.column().max(1)));
    let why = match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("{}: stands twice: leave one of them out", key.escape_debug())
        }
        other => other.to_string(),
    };
    // The place stands in front already.
    let why = why.lines().next().unwrap_or_default();
    let why = why.strip_suffix(&format!(" at line {line}, column {column}")).unwrap_or(why);
    Wrong::new(Place { line, column }, why)
}

fn place(at: serde_saphyr::Location) -> Place {
    Place { line: at.line().max(1), column: at.column().max(1) }
}

fn node(spanned: Spanned<Value>) -> Node {
    Node { at: place(spanned.referenced), value: spanned.value }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> de::Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Value>>()? {
            list.push(node(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = node(map.next_value::<Spanned<Value>>()?);
            fields.push(Field { at: place(key.referenced), key: key.value, value });
        }
        Ok(Value::Map(fields))
    }
}

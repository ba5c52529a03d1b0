//! The JSON report: one line that is a JSON object with at least a usable `exit_code` or `stdout`; the last one counts.
//!
//! Fields of a wrong type count as absent, since one odd number must not cost the output. Escaped output may make the line
//! several times as long as what it holds, so a line is kept whole up to [`REPORT_LINE_BYTES_MAX`].

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::numbers;
use crate::lifecycle::event::ResourceUsage;

/// The longest line that can be a JSON report, in bytes. A longer one is raw output.
pub const REPORT_LINE_BYTES_MAX: usize = 4 << 20;

/// Finds the last JSON report among the lines of a stream.
#[derive(Default)]
pub(super) struct Lines {
    /// The line so far, if it can be a report.
    line: Vec<u8>,
    /// What the line so far can be.
    at: At,
    last: Option<Claim>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    LineStart,
    Candidate,
    Other,
}

impl Lines {
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            if self.at == At::LineStart {
                self.at = if *first == b'{' { At::Candidate } else { At::Other };
            }
            let (part, ended) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&bytes[..end], true),
                None => (bytes, false),
            };
            if self.at == At::Candidate {
                self.extend(part);
            }
            bytes = &bytes[part.len() + usize::from(ended)..];
            if ended {
                self.end_line();
            }
        }
    }

    fn extend(&mut self, part: &[u8]) {
        let needed = self.line.len() + part.len();
        if needed > REPORT_LINE_BYTES_MAX {
            self.at = At::Other;
            self.line = Vec::new();
            return;
        }
        if needed > self.line.capacity() {
            let wanted = (self.line.capacity() * 2).clamp(needed, REPORT_LINE_BYTES_MAX);
            self.line.reserve_exact(wanted - self.line.len());
        }
        self.line.extend_from_slice(part);
    }

    fn end_line(&mut self) {
        if self.at == At::Candidate
            && let Some(claim) = parse(&self.line)
        {
            self.last = Some(claim);
        }
        self.line.clear();
        self.at = At::LineStart;
    }

    pub(super) fn has_stderr(&self) -> bool {
        // The last line may lack its newline; then it is not judged yet.
        self.at == At::LineStart && self.last.as_ref().is_some_and(|claim| claim.stderr.is_some())
    }

    pub(super) fn capacity(&self) -> usize {
        let claimed = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        self.line.capacity() + self.last.as_ref().map_or(0, |last| claimed(&last.stdout) + claimed(&last.stderr))
    }

    pub(super) fn finish(mut self) -> Option<Claim> {
        self.end_line();
        self.last
    }
}

/// What a JSON report claims.
#[derive(Default)]
pub(super) struct Claim {
    pub(super) exit_code: Option<i64>,
    pub(super) stdout: Option<String>,
    pub(super) stderr: Option<String>,
    pub(super) usage: Option<ResourceUsage>,
}

fn parse(line: &[u8]) -> Option<Claim> {
    // Programs that log JSON print many lines like this one: most are dismissed without parsing them.
    let line = line.trim_ascii_end();
    if !line.ends_with(b"}") || !(contains(line, b"\"exit_code\"") || contains(line, b"\"stdout\"")) {
        return None;
    }
    let text: Cow<'_, str> = String::from_utf8_lossy(line);
    let claim: Claim = serde_json::from_str(&text).ok()?;
    (claim.exit_code.is_some() || claim.stdout.is_some()).then_some(claim)
}

fn contains(line: &[u8], word: &[u8]) -> bool {
    // From quote to quote: a plain scan by windows is several times slower.
    let mut rest = line;
    while let Some(at) = rest.iter().position(|byte| *byte == b'"') {
        rest = &rest[at..];
        if rest.starts_with(word) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

impl<'de> Deserialize<'de> for Claim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimVisitor;
        impl<'de> Visitor<'de> for ClaimVisitor {
            type Value = Claim;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a report object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claim, A::Error> {
                let mut claim = Claim::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    match &*key {
                        "exit_code" => claim.exit_code = map.next_value::<Value>()?.integer(),
                        "stdout" => claim.stdout = map.next_value::<Value>()?.text(),
                        "stderr" => claim.stderr = map.next_value::<Value>()?.text(),
                        "resource_usage" => claim.usage = map.next_value::<Value>()?.usage(),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(claim)
            }
        }
        deserializer.deserialize_map(ClaimVisitor)
    }
}

/// Any JSON value, of which only what a report may hold is kept: a forged megabyte of nested arrays costs nothing.
enum Value {
    Text(String),
    Integer(u64),
    Float(f64),
    Usage(ResourceUsage),
    Other,
}

impl Value {
    fn integer(self) -> Option<i64> {
        match self {
            Self::Integer(number) => i64::try_from(number).ok(),
            Self::Text(_) | Self::Float(_) | Self::Usage(_) | Self::Other => None,
        }
    }

    fn count(self) -> Option<u64> {
        match self {
            Self::Integer(number) => Some(number),
            Self::Text(_) | Self::Float(_) | Self::Usage(_) | Self::Other => None,
        }
    }

    fn seconds(self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(number as f64),
            Self::Float(number) => numbers::seconds(number),
            Self::Text(_) | Self::Usage(_) | Self::Other => None,
        }
    }

    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Integer(_) | Self::Float(_) | Self::Usage(_) | Self::Other => None,
        }
    }

    fn usage(self) -> Option<ResourceUsage> {
        match self {
            Self::Usage(usage) => numbers::some(usage),
            Self::Text(_) | Self::Integer(_) | Self::Float(_) | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(u64::try_from(number).map_or(Value::Other, Value::Integer))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut usage = ResourceUsage::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "execution_time_wall_seconds" => {
                    usage.execution_time_wall_seconds = map.next_value::<Value>()?.seconds();
                }
                "cpu_time_jiffies" => usage.cpu_time_jiffies = map.next_value::<Value>()?.count(),
                "clk_tck_hertz" => usage.clk_tck_hertz = map.next_value::<Value>()?.count(),
                "peak_memory_kb" => usage.peak_memory_kb = map.next_value::<Value>()?.count(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Usage(usage))
    }
}

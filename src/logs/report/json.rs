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
use crate::{
    lifecycle::event::ResourceUsage,
    logs::limits::{Keeper, Kept},
};

/// The longest line that can be a JSON report, in bytes. A longer one is raw output.
pub const REPORT_LINE_BYTES_MAX: usize = 4 << 20;

/// Finds the last JSON report among the lines of a stream. Of each report only as much is kept as can be told.
pub(super) struct Lines {
    stream_bytes_max: usize,
    line_bytes_max: usize,
    /// A line that began like a report was longer than that.
    gave_up: bool,
    /// The line so far, if it can be a report.
    line: Vec<u8>,
    /// What the line so far can be.
    at: At,
    last: Option<Claim<Kept>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    LineStart,
    Candidate,
    Other,
}

impl Lines {
    pub(super) fn new(stream_bytes_max: usize, line_bytes_max: usize) -> Self {
        Self { stream_bytes_max, line_bytes_max, gave_up: false, line: Vec::new(), at: At::LineStart, last: None }
    }

    pub(super) fn gave_up(&self) -> bool {
        self.gave_up
    }

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
        if needed > self.line_bytes_max {
            (self.at, self.gave_up) = (At::Other, true);
            self.line = Vec::new();
            return;
        }
        if needed > self.line.capacity() {
            let wanted = (self.line.capacity() * 2).clamp(needed, self.line_bytes_max);
            self.line.reserve_exact(wanted - self.line.len());
        }
        self.line.extend_from_slice(part);
    }

    fn end_line(&mut self) {
        if self.at == At::Candidate
            && let Some(claim) = parse(&self.line)
        {
            let keep = |text: Option<String>| text.map(|text| keep(&text, self.stream_bytes_max));
            let Claim { exit_code, stdout, stderr, usage } = claim;
            self.last = Some(Claim { exit_code, stdout: keep(stdout), stderr: keep(stderr), usage });
        }
        self.line.clear();
        self.at = At::LineStart;
    }

    pub(super) fn has_stderr(&self) -> bool {
        // The last line may lack its newline; then it is not judged yet.
        self.at == At::LineStart && self.last.as_ref().is_some_and(|claim| claim.stderr.is_some())
    }

    pub(super) fn capacity(&self) -> usize {
        let claimed = |text: &Option<Kept>| text.as_ref().map_or(0, Kept::capacity);
        self.line.capacity() + self.last.as_ref().map_or(0, |last| claimed(&last.stdout) + claimed(&last.stderr))
    }

    pub(super) fn finish(mut self) -> Option<Claim<Kept>> {
        self.end_line();
        self.last
    }
}

/// What a JSON report claims; its streams as they stand there, or as they are kept.
pub(super) struct Claim<T> {
    pub(super) exit_code: Option<i64>,
    pub(super) stdout: Option<T>,
    pub(super) stderr: Option<T>,
    pub(super) usage: Option<ResourceUsage>,
}

fn keep(text: &str, bytes_max: usize) -> Kept {
    let mut keeper = Keeper::new(bytes_max);
    keeper.push(text.as_bytes());
    keeper.finish()
}

fn parse(line: &[u8]) -> Option<Claim<String>> {
    // Programs that log JSON print many lines like this one: most are dismissed without parsing them.
    let line = line.trim_ascii_end();
    if !line.ends_with(b"}") || !(contains(line, b"\"exit_code\"") || contains(line, b"\"stdout\"")) {
        return None;
    }
    let text: Cow<'_, str> = String::from_utf8_lossy(line);
    let claim: Claim<String> = serde_json::from_str(&text).ok()?;
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

impl<'de> Deserialize<'de> for Claim<String> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimVisitor;
        impl<'de> Visitor<'de> for ClaimVisitor {
            type Value = Claim<String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a report object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut claim = Claim { exit_code: None, stdout: None, stderr: None, usage: None };
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

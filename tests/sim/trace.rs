//! What happened, in order: a fingerprint that must come out the same when a seed is replayed, and lines for people.

use std::{
    fmt::{Arguments, Write as _},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

#[derive(Clone, Default)]
pub struct Trace {
    hasher: DefaultHasher,
    line: String,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Keeps the lines, too.
    pub fn with_lines() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    pub fn note(&mut self, at: Duration, who: &str, what: Arguments<'_>) {
        self.line.clear();
        let (second, ms) = (at.as_secs(), at.subsec_millis());
        write!(self.line, "{second:>4}.{ms:03} {who:<12} {what}").expect("a String takes everything");
        self.line.hash(&mut self.hasher);
        if let Some(lines) = &mut self.lines {
            lines.push(self.line.clone());
        }
    }

    pub fn fingerprint(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

//! One line of `check`, for people and for programs. Pure.

use serde::Serialize;

use crate::cli::screen::{Ink, Paint, plain};

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and should be otherwise.
    Warning,
    /// It will not work.
    Failed,
    /// It could not be looked at.
    Skipped,
}

impl Verdict {
    fn word(self) -> (&'static str, Ink) {
        match self {
            Self::Ok => ("ok", Ink::Green),
            Self::Warning => ("warn", Ink::Yellow),
            Self::Failed => ("FAIL", Ink::Red),
            Self::Skipped => ("skip", Ink::Dim),
        }
    }
}

/// One check. A field without a value is absent from the JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at, in one word.
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) said: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
}

/// As wide as the longest name of a check.
const CHECK_CHARS: usize = 13;

impl Finding {
    fn new(check: &'static str, verdict: Verdict, said: impl Into<String>) -> Self {
        Self { check, verdict, said: said.into(), mend: None }
    }

    pub(super) fn ok(check: &'static str, said: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, said)
    }

    pub(super) fn warning(check: &'static str, said: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warning, said)
    }

    pub(super) fn failed(check: &'static str, said: impl Into<String>) -> Self {
        Self::new(check, Verdict::Failed, said)
    }

    pub(super) fn skipped(check: &'static str, said: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, said)
    }

    pub(super) fn mend(self, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }

    /// One line, without its end.
    pub(super) fn line(&self, paint: Paint) -> String {
        let (word, ink) = self.verdict.word();
        let mend = self.mend.as_ref().map(|mend| format!("; to mend it: {mend}")).unwrap_or_default();
        // Some messages show a place below their text.
        let said = plain(&format!("{}{mend}", self.said)).split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{}  {:<CHECK_CHARS$}  {said}", paint.with(ink, &format!("{word:<4}")), self.check)
    }
}

/// What all of them come to.
pub(super) fn summary(findings: &[Finding]) -> String {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (failed, warnings, skipped) = (count(Verdict::Failed), count(Verdict::Warning), count(Verdict::Skipped));
    let more = [(warnings, "warned"), (skipped, "not looked at")];
    let more: String = more.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}")).collect();
    format!("{} checks, {failed} failed{more}", findings.len())
}

/// Whether none failed.
pub(super) fn is_passed(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_its_mend() {
        let finding = Finding::failed("topic", "it is\n    gone\u{1b}[1m").mend("make it");
        assert_eq!(finding.line(Paint::none()), "FAIL  topic          it is gone [1m; to mend it: make it");
        let all = [finding, Finding::ok("kafka", "x"), Finding::warning("clock", "y"), Finding::skipped("rights", "z")];
        assert_eq!(summary(&all), "4 checks, 1 failed, 1 warned, 1 not looked at");
        assert!(!is_passed(&all) && is_passed(&all[1..]), "a warning and what was not looked at are no failures");
        let json = serde_json::to_value(&all).unwrap_or_default();
        assert_eq!(
            (&json[0]["verdict"], &json[0]["mend"], json[1].get("mend")),
            (&"failed".into(), &"make it".into(), None)
        );
    }
}

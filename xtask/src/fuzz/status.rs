//! How far a fuzzer is: what libFuzzer says on standard error.

use std::fmt;

/// The newest that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Inputs that were run.
    pub(super) executions: u64,
    pub(super) per_second: u64,
    /// Places of the code that some input reached.
    pub(super) edges: u64,
    /// Inputs that are kept since they lead somewhere new.
    pub(super) corpus: u64,
    /// Peak memory, in MiB.
    pub(super) rss_mb: u64,
}

impl Status {
    /// Takes in a line: `#1024 NEW cov: 300 ft: 400 corp: 12/3Kb lim: 64 exec/s: 512 rss: 90Mb ...`, or one of the counts at
    /// the end.
    pub(super) fn take_in(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number(count);
        } else if let Some(count) = line.strip_prefix("stat::average_exec_per_sec:") {
            self.per_second = number(count);
        } else if let Some(rest) = line.strip_prefix('#') {
            self.executions = self.executions.max(number(rest));
            let after = |key: &str| rest.split_once(key).map(|(_, value)| number(value));
            self.edges = after(" cov: ").unwrap_or(self.edges);
            self.corpus = after(" corp: ").unwrap_or(self.corpus);
            self.per_second = after(" exec/s: ").unwrap_or(self.per_second);
            self.rss_mb = self.rss_mb.max(after(" rss: ").unwrap_or_default());
        }
    }
}

/// The number that a text begins with; 0 where it begins with none.
fn number(text: &str) -> u64 {
    let text = text.trim_start();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().unwrap_or_default()
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executions, per_second, edges, corpus, rss_mb } = self;
        write!(f, "{executions} executions, {per_second}/s, {edges} edges, corpus {corpus}, {rss_mb} MiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_read() {
        let mut status = Status::default();
        for line in [
            "INFO: seed corpus: files: 11 min: 5b max: 80b total: 300b rss: 40Mb",
            "#11\tINITED cov: 301 ft: 640 corp: 9/260b exec/s: 0 rss: 41Mb",
            "#1024\tNEW    cov: 312 ft: 700 corp: 12/3Kb lim: 64 exec/s: 512 rss: 90Mb L: 5/64 MS: 2 Custom-",
            "#2048\tpulse  cov: 312 ft: 700 corp: 12/3Kb lim: 70 exec/s: 400 rss: 88Mb",
        ] {
            status.take_in(line);
        }
        let expected = Status { executions: 2048, per_second: 400, edges: 312, corpus: 12, rss_mb: 90 };
        assert_eq!(status, expected);
        status.take_in("stat::number_of_executed_units: 4000");
        status.take_in("stat::average_exec_per_sec:     250");
        assert_eq!((status.executions, status.per_second), (4000, 250));
    }
}

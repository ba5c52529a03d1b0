//! The report as text. Pure.

use std::fmt::Write as _;

use serde_json::Value;
use testkit::clients::replicas::Fault;

use super::run::Outcome;

/// Legs of a take-over, as the monitor logs them.
const LEGS: [(&str, &str); 6] = [
    ("acquired_ms", "Lease acquired"),
    ("fenced_ms", "older producers refused"),
    ("restored_ms", "restored"),
    ("watching_ms", "watch open"),
    ("reconciled_ms", "reconciled"),
    ("first_commit_ms", "first commit"),
];

/// Faults shown one by one.
const FAULTS_MAX: usize = 20;

pub(crate) fn text(outcome: &Outcome) -> String {
    let count = |fault| outcome.changes.iter().filter(|(f, _)| *f == fault).count();
    let mut text = format!(
        "{} leaders killed (SIGKILL), {} stopped (SIGTERM) within {:.0} s; {} pods, {} events: ",
        count(Fault::Kill),
        count(Fault::Terminate),
        outcome.took.as_secs_f64(),
        outcome.pods,
        outcome.events
    );
    match outcome.faults.len() {
        0 => text.push_str("0 lost, 0 doubled, 0 out of order, 0 torn.\n"),
        n => writeln!(text, "{n} FAULTS").expect("a String takes everything"),
    }
    for fault in outcome.faults.iter().take(FAULTS_MAX) {
        writeln!(text, "  {fault}").expect("a String takes everything");
    }
    text.push_str("\n| from the moment when the Lease could be had until | p50 ms | p99 ms | max ms |\n| --- | --- | --- | --- |\n");
    for (field, name) in LEGS {
        let mut reached: Vec<f64> = outcome.take_overs.iter().filter_map(|line| line[field].as_f64()).collect();
        reached.sort_by(f64::total_cmp);
        if let Some(max) = reached.last() {
            let (p50, p99) = (at(&reached, 0.5), at(&reached, 0.99));
            writeln!(text, "| {name} | {p50:.1} | {p99:.1} | {max:.1} |").expect("a String takes everything");
        }
    }
    writeln!(text, "\n{} take-overs, by reason: {}", outcome.take_overs.len(), reasons(&outcome.take_overs))
        .expect("a String takes everything");
    text
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

fn reasons(take_overs: &[Value]) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for line in take_overs {
        *counts.entry(line["why"].as_str().unwrap_or("?")).or_default() += 1;
    }
    counts.iter().map(|(why, count)| format!("{why} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_says_what_is_wrong_and_what_a_take_over_cost() {
        let take_over = |ms: f64| json!({ "why": "Dead", "acquired_ms": ms, "first_commit_ms": ms * 10.0 });
        let mut outcome = Outcome {
            took: Duration::from_secs(60),
            pods: 10,
            events: 33,
            changes: vec![(Fault::Kill, Duration::ZERO), (Fault::Terminate, Duration::ZERO)],
            take_overs: vec![take_over(1.0), take_over(3.0)],
            faults: vec![],
        };
        let good = text(&outcome);
        assert!(
            good.starts_with("1 leaders killed (SIGKILL), 1 stopped (SIGTERM) within 60 s; 10 pods, 33 events: 0 lost"),
            "{good}"
        );
        assert!(good.contains("| first commit | 30.0 | 30.0 | 30.0 |") && good.contains("Dead 2"), "{good}");
        outcome.faults = vec!["lost: x of pod y".into()];
        let bad = text(&outcome);
        assert!(bad.contains("1 FAULTS\n  lost: x of pod y"), "{bad}");
    }
}

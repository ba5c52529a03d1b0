//! The report as text, and the figures that both reports show. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;

use crate::{kind::Kind, run::Outcome};

/// Legs of a take-over, as the monitor logs them.
pub(crate) const LEGS: [(&str, &str); 6] = [
    ("acquired_ms", "Lease acquired"),
    ("fenced_ms", "older producers refused"),
    ("restored_ms", "restored"),
    ("watching_ms", "watch open"),
    ("reconciled_ms", "reconciled"),
    ("first_commit_ms", "first commit"),
];

/// What is wrong is shown one by one up to here.
const FAULTS_MAX: usize = 20;

/// One kind of fault in figures.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Row {
    pub(crate) count: usize,
    /// Seconds from the strike until somebody led: median, largest.
    pub(crate) led: (f64, f64),
    /// Longest silence of the events topic around it, seconds: median, largest; none where it is not known.
    pub(crate) silent: Option<(f64, f64)>,
}

impl Row {
    /// The silence for people.
    pub(crate) fn silence(&self) -> String {
        self.silent.map_or_else(|| "-".to_owned(), |(p50, max)| format!("{p50:.2} / {max:.2}"))
    }
}

/// Figures by kind.
pub(crate) fn rows(outcome: &Outcome) -> BTreeMap<Kind, Row> {
    let mut found: BTreeMap<Kind, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for strike in outcome.timeline.strikes.borrow().iter() {
        let (led, silent) = found.entry(strike.kind).or_default();
        led.push(strike.led - strike.at);
        silent.extend(outcome.timeline.silence(strike));
    }
    let figures = |(led, silent): (Vec<f64>, Vec<f64>)| Row {
        count: led.len(),
        led: median_and_max(led),
        silent: (!silent.is_empty()).then(|| median_and_max(silent)),
    };
    found.into_iter().map(|(kind, values)| (kind, figures(values))).collect()
}

fn median_and_max(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (at(&values, 0.5), at(&values, 1.0))
}

/// The value at a share of the sorted ones; 0 of none.
pub(crate) fn at(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share).round() as usize).copied().unwrap_or_default()
}

/// One sentence: what was done and what came of it.
pub fn headline(outcome: &Outcome) -> String {
    let strikes = outcome.timeline.strikes.borrow().len();
    let mut text = format!(
        "{strikes} faults, {} leaders killed within {:.0} s; {} pods, {} events: ",
        outcome.kills,
        outcome.took.as_secs_f64(),
        outcome.pods,
        outcome.events
    );
    match outcome.verdict.faults.len() {
        0 => text.push_str("0 lost, 0 doubled, 0 out of order, 0 torn"),
        n => write!(text, "{n} FAULTS").expect("a String takes everything"),
    }
    text
}

/// What else is to be known of the verdict, one line each.
pub(crate) fn remarks(outcome: &Outcome) -> Vec<String> {
    let verdict = &outcome.verdict;
    let mut lines = vec![format!("The checker found {0} of {0} faults planted into this history.", verdict.planted)];
    if verdict.unseen > 0 {
        lines.push(format!(
            "Of {} pods that ended and were deleted while the API server was made to forget, {} are told as seen by nobody.",
            verdict.hidden, verdict.unseen
        ));
    }
    if verdict.lost_by_node > 0 {
        lines.push(format!(
            "Of {} pods the node itself has kept less than they printed: told as the node has it.",
            verdict.lost_by_node
        ));
    }
    lines.push(match &outcome.second_opinion {
        Ok(_) => "pod-monitor verify, a second opinion: all is well.".to_owned(),
        Err(said) => format!("pod-monitor verify, a second opinion, disagrees: {said}"),
    });
    if let Some(deaf) = *outcome.timeline.deaf_since.borrow() {
        lines.push(format!(
            "The reader that measures silences gave up after {deaf:.0} s; the verdict rests on another."
        ));
    }
    lines.push(format!("Seed {}: cargo xtask chaos --seed {0} repeats the order of faults.", outcome.seed));
    lines
}

/// For a terminal.
pub fn text(outcome: &Outcome) -> String {
    let mut text = headline(outcome) + ".\n";
    let mut line = |args: std::fmt::Arguments<'_>| {
        text.write_fmt(args).expect("a String takes everything");
        text.push('\n');
    };
    for fault in outcome.verdict.faults.iter().take(FAULTS_MAX) {
        line(format_args!("  {fault}"));
    }
    line(format_args!(""));
    for remark in remarks(outcome) {
        line(format_args!("{remark}"));
    }
    line(format_args!("\n| fault | times | somebody leads after, p50 / max s | longest silence, p50 / max s |"));
    line(format_args!("| --- | --- | --- | --- |"));
    for (kind, row) in rows(outcome) {
        let (Row { count, led, .. }, silence) = (&row, row.silence());
        line(format_args!("| {} | {count} | {:.2} / {:.2} | {silence} |", kind.name(), led.0, led.1));
    }
    line(format_args!("\n| from the moment when the Lease could be had until | p50 ms | p99 ms | max ms |"));
    line(format_args!("| --- | --- | --- | --- |"));
    for (name, reached) in legs(outcome) {
        let (p50, p99, max) = (at(&reached, 0.5), at(&reached, 0.99), at(&reached, 1.0));
        line(format_args!("| {name} | {p50:.1} | {p99:.1} | {max:.1} |"));
    }
    line(format_args!("\n{} take-overs, by reason: {}", outcome.take_overs.len(), reasons(&outcome.take_overs)));
    text
}

/// Each leg with its times, sorted.
pub(crate) fn legs(outcome: &Outcome) -> Vec<(&'static str, Vec<f64>)> {
    let of = |field: &str| {
        let mut reached: Vec<f64> = outcome.take_overs.iter().filter_map(|line| line[field].as_f64()).collect();
        reached.sort_by(f64::total_cmp);
        reached
    };
    LEGS.iter().map(|(field, name)| (*name, of(field))).filter(|(_, reached)| !reached.is_empty()).collect()
}

pub(crate) fn reasons(take_overs: &[Value]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for line in take_overs {
        *counts.entry(line["why"].as_str().unwrap_or("?")).or_default() += 1;
    }
    counts.iter().map(|(why, count)| format!("{why} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{
        timeline::{Strike, Timeline},
        verdict::Verdict,
    };

    /// Two strikes, some events, a change of hands.
    pub(crate) fn outcome() -> Outcome {
        let timeline = Timeline::begin();
        let strike = |kind, note: &str, at, led| Strike { kind, note: note.into(), at, led, settled: led + 1.0 };
        *timeline.strikes.borrow_mut() =
            vec![strike(Kind::Kill, "r0_<a>", 1.0, 1.5), strike(Kind::KillKafka, "away for 1s", 4.0, 8.0)];
        *timeline.arrivals.borrow_mut() = vec![0.5, 0.9, 1.4, 2.0, 3.9, 7.9, 8.5];
        *timeline.holders.borrow_mut() = vec![(0.0, "r0_a".into()), (1.2, "r1_b".into()), (6.0, String::new())];
        let take_over = |ms: f64| json!({ "why": "Dead", "acquired_ms": ms, "first_commit_ms": ms * 10.0 });
        Outcome {
            seed: 7,
            took: Duration::from_secs(10),
            pods: 10,
            events: 33,
            kills: 1,
            timeline,
            take_overs: vec![take_over(1.0), take_over(3.0)],
            verdict: Verdict { planted: 5, hidden: 4, unseen: 1, ..Verdict::default() },
            second_opinion: Ok(String::new()),
        }
    }

    #[test]
    fn a_report_says_what_is_wrong_and_what_each_fault_cost() {
        let mut outcome = outcome();
        let good = text(&outcome);
        for expected in [
            "2 faults, 1 leaders killed within 10 s; 10 pods, 33 events: 0 lost, 0 doubled, 0 out of order, 0 torn.",
            "found 5 of 5 faults planted",
            "Of 4 pods that ended and were deleted while the API server was made to forget, 1 are told",
            "verify, a second opinion: all is well",
            "Seed 7",
            "| kill | 1 | 0.50 / 0.50 | 0.60 / 0.60 |",
            "| kill-kafka | 1 | 4.00 / 4.00 | 4.00 / 4.00 |",
            "| first commit | 30.0 | 30.0 | 30.0 |",
            "Dead 2",
        ] {
            assert!(good.contains(expected), "{expected} is not in\n{good}");
        }
        outcome.verdict.faults = vec!["lost: x of pod y".into()];
        outcome.second_opinion = Err("lost 1".into());
        let bad = text(&outcome);
        assert!(bad.contains("1 FAULTS.\n  lost: x of pod y") && bad.contains("disagrees: lost 1"), "{bad}");
        assert!(!outcome.is_good());
    }
}

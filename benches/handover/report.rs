//! The tables of docs/benchmarks.md.

use std::fmt::Write as _;

use clap::ValueEnum as _;

use crate::{
    cases::Case,
    legs::LEGS,
    results::{Results, Trial, percentile},
};

/// Markdown: what was measured where, changes of hands, and the legs of ours.
pub(crate) fn markdown(results: &Results) -> String {
    let loads: Vec<f64> = results.trials.iter().map(|trial| trial.load).collect();
    let mut text = format!(
        "Measured {}, commit {}, {}; release build, everything on the same cores. Load average of the machine: p50 {:.1}, \
         p90 {:.1}.\n\n",
        dates(results),
        results.commits().join(", "),
        testkit::machine::describe(),
        percentile(&loads, 0.5),
        percentile(&loads, 0.9)
    );
    text.push_str("| case | N | gap p50 | p90 | p99 | max | first new event p50 | p99 | target |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for case in Case::value_variants() {
        let trials = results.of(*case);
        if !trials.is_empty() {
            text.push_str(&row(*case, &trials));
        }
    }
    text.push('\n');
    text.push_str(&legs(results));
    let ours = results.trials.iter().filter(|trial| trial.case.is_exact());
    let (mut all, mut lost, mut doubled) = (0, 0, 0);
    ours.for_each(|trial| (all, lost, doubled) = (all + 1, lost + trial.lost, doubled + trial.doubled));
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\nIn these {all} changes of hands of ours: {lost} statuses lost, {doubled} told twice.");
    text
}

fn row(case: Case, trials: &[&Trial]) -> String {
    let gaps: Vec<f64> = trials.iter().map(|trial| trial.gap_ms).collect();
    let firsts: Vec<f64> = trials.iter().map(|trial| trial.first_ms).collect();
    let gap = |share| if case.plan().is_some() { milliseconds(percentile(&gaps, share)) } else { String::new() };
    let first = |share| milliseconds(percentile(&firsts, share));
    let aimed = if case.aims_at_first() { &firsts } else { &gaps };
    let target = |(share, limit): &(f64, f64)| {
        let missed = if percentile(aimed, *share) > *limit { " **missed**" } else { "" };
        format!("p{:.0} {limit}{missed}", share * 100.0)
    };
    let targets: Vec<String> = case.targets().iter().map(target).collect();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        case.title(),
        trials.len(),
        gap(0.5),
        gap(0.9),
        gap(0.99),
        gap(1.0),
        first(0.5),
        first(0.99),
        targets.join(", ")
    )
}

fn milliseconds(value: f64) -> String {
    match value {
        _ if value.is_nan() => String::new(),
        _ if value >= 1000.0 => format!("{:.2} s", value / 1000.0),
        _ if value >= 100.0 => format!("{value:.0} ms"),
        _ => format!("{value:.1} ms"),
    }
}

fn legs(results: &Results) -> String {
    let mut text = format!("| leg, p50 / p99 in ms | {} |\n", LEGS.join(" | "));
    text.push_str(&format!("| --- |{}\n", " --- |".repeat(LEGS.len())));
    for case in Case::value_variants().iter().filter(|case| case.is_exact()) {
        let trials: Vec<_> = results.of(*case).into_iter().filter(|trial| !trial.legs.is_empty()).collect();
        if trials.is_empty() {
            continue;
        }
        let cell = |leg: &&str| {
            let values: Vec<f64> = trials.iter().filter_map(|trial| trial.legs.get(*leg).copied()).collect();
            if values.is_empty() {
                return "-".to_owned();
            }
            format!("{:.1} / {:.1}", percentile(&values, 0.5), percentile(&values, 0.99))
        };
        let cells: Vec<String> = LEGS.iter().map(cell).collect();
        text.push_str(&format!("| {} ({}) | {} |\n", case.title(), trials.len(), cells.join(" | ")));
    }
    text
}

fn dates(results: &Results) -> String {
    let mut dates: Vec<&str> = results.trials.iter().filter_map(|trial| trial.at.split('T').next()).collect();
    dates.sort_unstable();
    dates.dedup();
    dates.join(", ")
}

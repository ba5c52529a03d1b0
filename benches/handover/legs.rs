//! The legs of a change of hands, from the successor's own log lines.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;

/// Milliseconds by leg.
pub(crate) type Legs = BTreeMap<String, f64>;

/// In their order; `visible` ends with the first new event at a consumer, `listed` runs beside it.
pub(crate) const LEGS: [&str; 6] = ["noticed", "acquired", "fenced", "restored", "visible", "listed"];

/// What the log of one replica says of a change of hands that began at `fault`; `None`: it did not take over.
pub(crate) fn of(logs: &[String], fault: Timestamp, first_ms: f64) -> Result<Option<Legs>> {
    for log in logs {
        let lines = lines(log, fault)?;
        let at = |message: &str| {
            let found = lines.iter().find(|(_, line)| line["message"] == message);
            found.map(|(at, _)| milliseconds(*at, fault))
        };
        let (Some(taking), Some(acquired), Some(fenced), Some(restored)) =
            (at("taking the lease"), at("lease acquired"), at("fenced"), at("shard taken over"))
        else {
            continue;
        };
        let mut legs = Legs::from([
            ("noticed".to_owned(), taking),
            ("acquired".to_owned(), acquired - taking),
            ("fenced".to_owned(), fenced - acquired),
            ("restored".to_owned(), restored - fenced),
            ("visible".to_owned(), first_ms - restored),
        ]);
        if let Some(listed) = at("reconciled") {
            legs.insert("listed".to_owned(), listed - restored);
        }
        return Ok(Some(legs));
    }
    Ok(None)
}

fn milliseconds(at: Timestamp, since: Timestamp) -> f64 {
    at.duration_since(since).as_secs_f64() * 1000.0
}

fn lines(log: &str, since: Timestamp) -> Result<Vec<(Timestamp, Value)>> {
    let mut lines = Vec::new();
    for text in log.lines() {
        // librdkafka and panics write lines of their own.
        let Ok(line) = serde_json::from_str::<Value>(text) else { continue };
        let at: Timestamp = line["timestamp"].as_str().context("a log line has a time")?.parse()?;
        if at >= since {
            lines.push((at, line));
        }
    }
    Ok(lines)
}

/// How many lines have this message.
pub(crate) fn count(logs: &[String], message: &str) -> usize {
    let wanted = format!("\"message\":\"{message}\"");
    logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains(&wanted)).count()
}

//! The one look: a word, a sentence, four numbers.

use super::{count, escape};
use crate::{
    http::status::{Missing, ShardStatus, Status},
    telemetry::metrics::Role,
};

const STANDBY: &str = Role::Standby.as_str();
const LIVE: &str = Role::Live.as_str();

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Nothing to do.
    Good,
    /// It gets on, or will: worth a look.
    Look,
    /// Somebody must act.
    Bad,
}

/// The verdict, in words that change only when it does: it is read aloud.
pub(super) fn word(status: &Status) -> String {
    let (level, sentence) = judge(status);
    let (class, sign, word) = match level {
        Level::Good => ("ok", "\u{2713}", "Good"),
        Level::Look => ("look", "\u{25b2}", "Look"),
        Level::Bad => ("bad", "\u{2717}", "Bad"),
    };
    let sentence = escape(&sentence);
    format!("<p class=\"{class}\" id=\"word\"><b><span aria-hidden=\"true\">{sign}</span> {word}</b> {sentence}</p>")
}

/// What of all that could be wrong weighs most.
pub(super) fn judge(status: &Status) -> (Level, String) {
    let (shown, shards) = (&status.shown, &status.shown.shards);
    let mut wrong: Vec<(Level, String)> = Vec::new();
    let mut add = |level, sentence: String| wrong.push((level, sentence));
    if !status.live {
        add(Level::Bad, format!("A loop of this replica does not turn: {}.", status.stuck.join(", ")));
    }
    for shard in shards {
        if shard.holder.is_none() {
            add(Level::Bad, format!("Nobody leads shard {}.", shard.shard));
        }
        if acts_against_lease(shard, &shown.identity) {
            add(Level::Bad, format!("Shard {} is held by another, and this replica acts too.", shard.shard));
        }
        if shard.kafka_waits_ms.is_some() {
            add(Level::Look, format!("Kafka does not answer for shard {}: events wait.", shard.shard));
        }
        if shard.role != STANDBY && shard.role != LIVE {
            add(Level::Look, format!("Shard {} is changing hands: this replica is {}.", shard.shard, shard.role));
        }
    }
    if let Some(check) = status.checks.iter().find(|check| !check.ok) {
        let why = check.why.as_deref().unwrap_or("waiting");
        add(Level::Look, format!("This replica is not ready: {}: {why}.", check.name));
    } else if !status.ready {
        add(Level::Look, "This replica is not ready: it has just started.".to_owned());
    }
    if shown.missing.pods > 0 {
        let pods = count(shown.missing.pods, "pod", "pods");
        add(Level::Bad, format!("Of {pods} nothing more is told: see the ERROR lines of the log."));
    }
    if shown.missing.drift > 0 {
        add(Level::Look, "The periodic comparison found what the watch had not told.".to_owned());
    }
    let leads = shards.iter().filter(|shard| shard.role == LIVE).count();
    if leads > 0 && shown.elects && status.members.len() == 1 {
        add(Level::Look, "Nobody stands by: if this replica dies, nobody takes over.".to_owned());
    }
    let worst = wrong.iter().map(|(level, _)| *level).max();
    let first = wrong.into_iter().find(|(level, _)| Some(*level) == worst);
    first.unwrap_or_else(|| (Level::Good, calm(shards.len(), leads)))
}

/// We act, and the Lease names another: one of the two will find out by the fence.
pub(super) fn acts_against_lease(shard: &ShardStatus, me: &str) -> bool {
    shard.role != STANDBY && shard.holder.as_deref().is_some_and(|holder| holder != me)
}

fn calm(shards: usize, leads: usize) -> String {
    match (shards, leads) {
        (0, _) => "This replica takes part in no shard yet.".to_owned(),
        (1, 0) => "The shard is led. This replica stands by.".to_owned(),
        (1, _) => "The shard is led by this replica.".to_owned(),
        (all, 0) => format!("All {all} shards are led. This replica stands by for them."),
        (all, leads) => format!("All {all} shards are led, {leads} of them by this replica."),
    }
}

/// Is it led, does it keep up, how do executions end, is anything missing.
pub(super) fn numbers(status: &Status) -> String {
    let (shown, shards) = (&status.shown, &status.shown.shards);
    let led = shards.iter().filter(|shard| shard.holder.is_some()).count();
    let sum = |of: fn(&ShardStatus) -> Option<u64>| shards.iter().filter_map(of).reduce(|a, b| a.saturating_add(b));
    let (waiting, lag) = (sum(|shard| shard.waiting_pods), sum(|shard| shard.lag_records));
    let ends = &shown.ends;
    let missing = shown.missing.output + shown.missing.drift + shown.missing.pods;
    let behind = match (waiting, lag) {
        (Some(pods), None) => (pods.to_string(), "pods wait to be told".to_owned()),
        (None, Some(records)) => (records.to_string(), "records to read, as a standby".to_owned()),
        (Some(pods), Some(records)) => {
            (pods.to_string(), format!("pods wait to be told; {records} records to read, as a standby"))
        }
        (None, None) => ("–".to_owned(), "not known yet".to_owned()),
    };
    let what = match (missing, shown.missing) {
        (0, _) => "everything was told whole, and in time".to_owned(),
        (_, Missing { output, drift, pods }) => {
            let (ends, pods) = (count(output, "end", "ends"), count(pods, "pod", "pods"));
            format!("output of {ends}, {drift} found by comparing, {pods} set aside")
        }
    };
    let tiles = [
        (
            "Led",
            format!("{led} of {}", shards.len()),
            if led < shards.len() { "bad" } else { "" },
            "shards have a holder",
        ),
        ("Behind", behind.0, "", behind.1.as_str()),
        (
            "Ended",
            (ends.completed + ends.failed + ends.timeout).to_string(),
            "",
            "executions, told by this replica since it started",
        ),
        ("Missing", missing.to_string(), if missing > 0 { "look" } else { "" }, what.as_str()),
    ];
    let tile = |(name, number, class, what): &(&str, String, &str, &str)| {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        format!("<div><dt>{name}</dt><dd><b{class}>{number}</b> <small>{what}</small></dd></div>")
    };
    let tiles: String = tiles.iter().map(tile).collect();
    format!("<dl class=\"tiles\">{tiles}</dl>")
}

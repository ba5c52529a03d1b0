//! The one look: a word, a sentence, four numbers.

use std::{cmp::Reverse, collections::BTreeSet};

use jiff::Timestamp;

use super::{count, escape};
use crate::{
    http::status::{Missing, ShardStatus, Status},
    telemetry::metrics::Role,
};

const STANDBY: &str = Role::Standby.as_str();
const LIVE: &str = Role::Live.as_str();
const DRAINING: &str = Role::Draining.as_str();

/// What should be over soon and lasts longer is somebody's business.
const LASTS_MS: u64 = 60_000;
/// What a comparison found is told by now: it weighs for as long as somebody may want to look why.
const DRIFT_WEIGHS_MS: u64 = 30 * 60_000;

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
        // It knows of nothing wrong, and not of much.
        Level::Good if leads(status) == 0 => ("ok", "\u{2713}", "Good, as far as seen from here"),
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
    if !status.live {
        wrong.push((Level::Bad, format!("A loop of this replica does not turn: {}.", status.stuck.join(", "))));
    }
    shards.iter().for_each(|shard| wrong.extend(of_shard(shard, status)));
    // Of several the one that has waited longest.
    let waiting = status.checks.iter().filter(|check| !check.ok).min_by_key(|check| Reverse(check.waits_ms));
    if let Some(check) = waiting {
        let why = check.why.as_deref().unwrap_or("waiting");
        wrong.push(match lasts(check.waits_ms) {
            (level, "") => (level, format!("This replica is not ready: {}: {why}.", check.name)),
            (level, long) => (level, format!("This replica has not been ready{long}: {}: {why}.", check.name)),
        });
    } else if !status.ready {
        wrong.push((Level::Look, "This replica is not ready: it has just started.".to_owned()));
    }
    if shown.missing.pods > 0 {
        let pods = count(shown.missing.pods, "pod", "pods");
        wrong.push((Level::Bad, format!("Of {pods} nothing more is told: see the ERROR lines of the log.")));
    }
    if shown.missing.drift_at.is_some_and(|at| ms_since(at, status.at) < DRIFT_WEIGHS_MS) {
        wrong.push((Level::Look, "The periodic comparison found what the watch had not told.".to_owned()));
    }
    let leads = leads(status);
    let others = || status.members.iter().filter(|member| !member.this);
    if leads > 0 && shown.elects && others().all(|member| member.able == Some(false)) {
        let why = match others().count() {
            0 => "Nobody stands by: if this replica dies, nobody takes over.",
            _ => "Nobody could take over: no standby reaches Kafka and has read the changelog.",
        };
        wrong.push((Level::Look, why.to_owned()));
    }
    let worst = wrong.iter().map(|(level, _)| *level).max();
    let first = wrong.into_iter().find(|(level, _)| Some(*level) == worst);
    first.unwrap_or_else(|| (Level::Good, calm(shards.len(), leads)))
}

fn of_shard(shard: &ShardStatus, status: &Status) -> Vec<(Level, String)> {
    let (mut wrong, number) = (Vec::new(), shard.shard);
    if shard.holder.is_none() {
        wrong.push((Level::Bad, format!("Nobody leads shard {number}.")));
    }
    if acts_against_lease(shard, &status.shown.identity) {
        wrong.push((Level::Bad, format!("Shard {number} is held by another, and this replica acts too.")));
    }
    if shard.kafka_waits_ms.is_some() {
        wrong.push(match lasts(shard.kafka_waits_ms) {
            (level, "") => (level, format!("Kafka does not answer for shard {number}: events wait.")),
            (level, long) => (level, format!("Kafka has not answered for shard {number}{long}: events wait.")),
        });
    }
    if shard.is_changing() {
        let role = shard.role;
        wrong.push(match lasts(shard.changing_since.map(|since| ms_since(since, status.at))) {
            (level, "") => (level, format!("Shard {number} is changing hands: this replica is {role}.")),
            (level, long) => (level, format!("Shard {number} has been changing hands{long}: this replica is {role}.")),
        });
    }
    wrong
}

/// What gets on by itself does so soon. The words change once, not with the clock: they are read aloud.
fn lasts(ms: Option<u64>) -> (Level, &'static str) {
    if ms > Some(LASTS_MS) { (Level::Bad, " for more than a minute") } else { (Level::Look, "") }
}

/// A clock that was set back since says 0.
fn ms_since(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond() - then.as_millisecond()).unwrap_or_default()
}

/// We act, and the Lease names another: one of the two will find out by the fence. Whoever drains has let go.
pub(super) fn acts_against_lease(shard: &ShardStatus, me: &str) -> bool {
    let acts = shard.role != STANDBY && shard.role != DRAINING;
    acts && shard.holder.as_deref().is_some_and(|holder| holder != me)
}

/// Shards of which this replica knows how they are told.
fn leads(status: &Status) -> usize {
    status.shown.shards.iter().filter(|shard| shard.role == LIVE).count()
}

fn calm(shards: usize, leads: usize) -> String {
    match (shards, leads) {
        (0, _) => "This replica takes part in no shard yet.".to_owned(),
        (1, 0) => "The shard is led; this replica stands by and knows of its Lease only.".to_owned(),
        (1, _) => "The shard is led by this replica.".to_owned(),
        (all, 0) => format!("All {all} shards are led; this replica stands by and knows of their Leases only."),
        (all, leads) => format!("All {all} shards are led, {leads} of them by this replica."),
    }
}

/// Is it led, does it keep up, how do executions end, is anything missing.
pub(super) fn numbers(status: &Status) -> String {
    let shards = &status.shown.shards;
    let led = shards.iter().filter(|shard| shard.holder.is_some()).count();
    let sum = |of: fn(&ShardStatus) -> Option<u64>| shards.iter().filter_map(of).reduce(|a, b| a.saturating_add(b));
    let (waiting, lag) = (sum(|shard| shard.waiting_pods), sum(|shard| shard.lag_records));
    let behind = match (waiting, lag) {
        (Some(pods), None) => (pods.to_string(), "pods wait to be told".to_owned()),
        (None, Some(records)) => (records.to_string(), "records to read, as a standby".to_owned()),
        (Some(pods), Some(records)) => {
            (pods.to_string(), format!("pods wait to be told; {records} records to read, as a standby"))
        }
        (None, None) => ("–".to_owned(), "not known yet".to_owned()),
    };
    let ((ended, told), (missing, what)) = (ended(status), missing(status));
    let class = if missing.parse::<u64>().is_ok_and(|missing| missing > 0) { "look" } else { "" };
    let tiles = [
        (
            "Led",
            format!("{led} of {}", shards.len()),
            if led < shards.len() { "bad" } else { "" },
            "shards have a holder",
        ),
        ("Behind", behind.0, "", behind.1.as_str()),
        ("Ended", ended, "", told.as_str()),
        ("Missing", missing, class, what.as_str()),
    ];
    let tile = |(name, number, class, what): &(&str, String, &str, &str)| {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        format!("<div><dt>{name}</dt><dd><b{class}>{number}</b> <small>{what}</small></dd></div>")
    };
    let tiles: String = tiles.iter().map(tile).collect();
    format!("<dl class=\"tiles\">{tiles}</dl>")
}

/// A number, and what it counts, as HTML.
fn ended(status: &Status) -> (String, String) {
    let ends = &status.shown.ends;
    match (ends.completed + ends.failed + ends.timeout, knows_who(status)) {
        (0, Some(who)) => ("–".to_owned(), who),
        (all, _) => (all.to_string(), "executions, told by this replica since it started".to_owned()),
    }
}

/// The same. Nothing is said of what others tell.
fn missing(status: &Status) -> (String, String) {
    let Missing { output, drift, pods, .. } = status.shown.missing;
    let (ends, aside) = (count(output, "end", "ends"), count(pods, "pod", "pods"));
    let what = format!("output of {ends}, {drift} found by comparing, {aside} set aside");
    match (output + drift + pods, knows_who(status)) {
        (0, Some(who)) => ("–".to_owned(), who),
        (all, Some(who)) => (all.to_string(), format!("{what}, while this replica led; what is now: {who}")),
        (0, None) if leads(status) == status.shown.shards.len() => {
            ("0".to_owned(), "everything was told whole, and in time".to_owned())
        }
        (0, None) => ("0".to_owned(), "what this replica told was whole, and in time".to_owned()),
        (all, None) => (all.to_string(), what),
    }
}

/// Whom to ask, as HTML, where this replica tells nothing.
fn knows_who(status: &Status) -> Option<String> {
    let (shards, me) = (&status.shown.shards, &status.shown.identity);
    if shards.iter().any(|shard| shard.role != STANDBY) {
        return None;
    }
    let holders: BTreeSet<&String> = shards.iter().filter_map(|s| s.holder.as_ref()).filter(|who| *who != me).collect();
    let names: Vec<String> = holders.into_iter().map(|name| escape(name)).collect();
    let ask = if names.is_empty() { String::new() } else { format!(": ask {}", names.join(", ")) };
    Some(format!("known by whoever leads{ask}"))
}

//! Who leads which shard, and how well it gets on.

use super::{escape, table, time, verdict::acts_against_lease, write};
use crate::http::status::{ShardStatus, Status};

const HEADS: [&str; 7] = ["Shard", "Holder", "Role here", "Term", "Behind", "Tracked pods", "Since (UTC)"];

pub(super) fn section(status: &Status) -> String {
    let shown = &status.shown;
    if shown.shards.is_empty() {
        return "<h2>Shards</h2><p>This replica takes part in no shard yet.</p>".to_owned();
    }
    let mut rows = String::new();
    for shard in &shown.shards {
        let (class, holder) = holder(shard, &shown.identity);
        let number = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
        let since = match (shard.since, shown.started_at) {
            (Some(since), _) => time(since, status.at, "age"),
            (None, Some(started)) => format!("before {}", time(started, status.at, "")),
            (None, None) => "–".to_owned(),
        };
        write(&mut rows, format_args!("<tr id=\"s{0}\"><th scope=\"row\">{0}</th>", shard.shard));
        write(&mut rows, format_args!("<td class=\"name{class}\">{holder}</td><td>{}</td>", role(shard)));
        write(&mut rows, format_args!("<td>{}</td><td>{}</td>", number(shard.term), behind(shard)));
        write(&mut rows, format_args!("<td>{}</td><td>{since}</td></tr>", number(shard.tracked_pods)));
    }
    format!("<h2>Shards</h2>{}", table("shards", "Shards and who leads them", &HEADS, &rows))
}

/// A class and what it says, as HTML.
fn holder(shard: &ShardStatus, me: &str) -> (&'static str, String) {
    match shard.holder.as_deref() {
        None => (" bad", "\u{2717} nobody".to_owned()),
        Some(other) if acts_against_lease(shard, me) => {
            (" bad", format!("\u{2717} {}, and this replica acts too", escape(other)))
        }
        Some(holder) if holder == me => ("", format!("{} <small>(this replica)</small>", escape(holder))),
        Some(holder) => ("", escape(holder)),
    }
}

fn role(shard: &ShardStatus) -> String {
    // A role is one of a few words of ours.
    match shard.role {
        "live" => "<b>live</b>".to_owned(),
        role => role.to_owned(),
    }
}

/// A leader counts pods that wait to be told, a standby records of the changelog that it has yet to read.
fn behind(shard: &ShardStatus) -> String {
    let mut text = match (shard.waiting_pods, shard.lag_records) {
        (Some(pods), _) => format!("{pods} pods"),
        (None, Some(records)) => format!("{records} records"),
        (None, None) => "–".to_owned(),
    };
    if let Some(ms) = shard.kafka_waits_ms {
        write(&mut text, format_args!(" <span class=\"look\">\u{25b2} Kafka silent for {} s</span>", ms / 1000));
    }
    text
}

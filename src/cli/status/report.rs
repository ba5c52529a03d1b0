//! What `status` found, and how it is told. Pure.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    leases::{Leases, Seen},
    replicas::{Asked, Member, Reply, Shard},
};
use crate::{
    cli::screen::{Ink, Paint, plain, table},
    config::duration,
};

/// One shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Row {
    shard: u32,
    lease: Option<Seen>,
    /// What its holder says of it.
    held: Option<Shard>,
    /// Records that the standby which is furthest behind has not read.
    lag_records: Option<u64>,
}

impl Row {
    fn of(shard: u32, found: &Leases, replies: &[&Reply]) -> Self {
        let lease = found.shards.get(&shard).cloned();
        let holder = lease.as_ref().and_then(Seen::holder);
        let says = |reply: &Reply| reply.shards.iter().find(|own| own.shard == shard).cloned();
        let leader = replies.iter().find(|reply| holder == Some(&*reply.identity));
        let others = replies.iter().filter(|reply| holder != Some(&*reply.identity));
        let lag_records = others.filter_map(|reply| says(reply)?.lag_records).max();
        // Of one shard only no Lease names who stands by, and who stands by says its lag of no other shard.
        let told = leader.filter(|reply| reply.shards.len() == 1).into_iter().flat_map(|reply| &reply.members);
        let told = told.filter_map(|member| member.lag_records).max();
        Self { shard, lease, held: leader.and_then(|reply| says(reply)), lag_records: lag_records.max(told) }
    }

    fn is_held(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.holder().is_some() && !lease.silent)
    }

    fn since(&self) -> Option<Timestamp> {
        let lease = self.lease.as_ref().filter(|lease| lease.holder().is_some());
        self.held.as_ref().and_then(|held| held.since).or_else(|| lease?.acquired_at)
    }

    fn cells(&self, now: Timestamp) -> Vec<(String, Option<Ink>)> {
        let number = |value: Option<u64>| (value.map_or_else(|| "-".to_owned(), |value| value.to_string()), None);
        let holder = match &self.lease {
            None => ("nobody: there is no Lease".to_owned(), Some(Ink::Red)),
            Some(lease) => match (lease.holder(), lease.silent) {
                (None, _) => ("nobody".to_owned(), Some(Ink::Red)),
                (Some(holder), true) => (format!("{}: silent", plain(holder)), Some(Ink::Red)),
                (Some(holder), false) => (plain(holder), Some(Ink::Green)),
            },
        };
        let held = self.held.as_ref();
        let role = held.map(|held| plain(&held.role)).filter(|role| !role.is_empty());
        let changes = self.lease.as_ref().and_then(|lease| u64::try_from(lease.record.transitions).ok());
        let since = self.since().map_or_else(|| "-".to_owned(), |at| format!("{at:.0} ({})", age(at, now)));
        vec![
            (self.shard.to_string(), None),
            holder,
            (role.unwrap_or_else(|| "-".to_owned()), None),
            number(held.and_then(|held| held.term)),
            number(changes),
            number(self.lag_records),
            number(held.and_then(|held| held.tracked_pods)),
            (since, None),
        ]
    }

    fn json(&self) -> Value {
        let (lease, held) = (self.lease.as_ref(), self.held.as_ref());
        let holder = lease.and_then(Seen::holder);
        let address = lease.and_then(|lease| lease.record.address.as_deref()).filter(|_| holder.is_some());
        present([
            ("shard", json!(self.shard)),
            ("held", json!(self.is_held())),
            ("holder", json!(holder)),
            ("silent", lease.filter(|lease| lease.silent).map_or(Value::Null, |_| json!(true))),
            ("address", json!(address)),
            ("role", json!(held.map(|held| &held.role))),
            ("term", json!(held.and_then(|held| held.term))),
            ("lease_transitions", json!(lease.map(|lease| lease.record.transitions))),
            ("lag_records", json!(self.lag_records)),
            ("tracked_pods", json!(held.and_then(|held| held.tracked_pods))),
            ("since", json!(self.since())),
            ("renewed_at", json!(lease.and_then(|lease| lease.renewed_at))),
        ])
    }
}

/// The status of an installation.
#[derive(Debug)]
pub(super) struct Report {
    namespace: String,
    name: String,
    rows: Vec<Row>,
    asked: Vec<Asked>,
    /// Shards that were left out: Leases that a larger number of shards left behind.
    left_over: usize,
}

impl Report {
    /// Of what was found. `shards`: how many there should be, where that was said.
    pub(super) fn of(namespace: &str, name: &str, shards: Option<u32>, found: &Leases, asked: Vec<Asked>) -> Self {
        let replies: Vec<&Reply> = asked.iter().filter_map(|asked| asked.said.as_ref().ok()).collect();
        let said = replies.iter().map(|reply| reply.shards.len()).max().filter(|count| *count > 0);
        let all: BTreeSet<u32> = match shards.or_else(|| said.and_then(|count| u32::try_from(count).ok())) {
            Some(count) => (0..count).collect(),
            // A gap is a shard without a Lease.
            None => (0..=found.shards.keys().copied().max().unwrap_or_default()).collect(),
        };
        let rows = all.iter().map(|shard| Row::of(*shard, found, &replies)).collect();
        let left_over = found.shards.keys().filter(|shard| !all.contains(shard)).count();
        Self { namespace: namespace.to_owned(), name: name.to_owned(), rows, asked, left_over }
    }

    /// Whether each shard has a holder that lives.
    pub(super) fn is_held(&self) -> bool {
        self.rows.iter().all(Row::is_held)
    }

    /// For people.
    pub(super) fn text(&self, paint: Paint, now: Timestamp) -> String {
        let heads = ["SHARD", "HOLDER", "ROLE", "TERM", "CHANGES", "LAG", "TRACKED", "SINCE"];
        let rows: Vec<_> = self.rows.iter().map(|row| row.cells(now)).collect();
        let mut text = table(paint, &heads, &rows);
        if !self.asked.is_empty() {
            let heard_of = self.heard_of().into_iter().map(|member| {
                let state = match member.able {
                    Some(true) => ("stands by, as it told a leader".to_owned(), Some(Ink::Green)),
                    _ => ("does not reach Kafka, as it told a leader".to_owned(), Some(Ink::Red)),
                };
                vec![(plain(&member.identity), None), ("-".to_owned(), None), ("-".to_owned(), None), state]
            });
            let replicas: Vec<_> = self.replicas().into_iter().chain(heard_of).collect();
            text.push('\n');
            text.push_str(&table(paint, &["REPLICA", "ADDRESS", "VERSION", "STATE"], &replicas));
        }
        let mut note = |said: String| text.push_str(&format!("\n{said}\n"));
        let open = self.rows.iter().filter(|row| !row.is_held()).count();
        if self.rows.iter().all(|row| row.lease.is_none()) {
            note(format!(
                "There is no Lease {}-<shard> in namespace {}: name the installation by --lease-name and --lease-namespace, or \
                 start it.",
                self.name, self.namespace
            ));
        } else if open > 0 {
            note(format!(
                "{open} of {} shards have no holder: /readyz?verbose of a replica says why.",
                self.rows.len()
            ));
        }
        if self.asked.iter().any(|asked| asked.said.is_err()) {
            note(format!(
                "Not all replicas can be reached from here. From outside the cluster: kubectl --namespace {} port-forward pod/<name> \
                 8080, then add --replica 127.0.0.1:8080.",
                self.namespace
            ));
        }
        if self.left_over > 0 {
            note(format!("{} Leases of further shards are there: left behind by a reshard.", self.left_over));
        }
        text
    }

    /// Replicas that were not asked, since no Lease names them, and that told one which was asked whether they could lead.
    fn heard_of(&self) -> Vec<&Member> {
        let replies = || self.asked.iter().filter_map(|asked| asked.said.as_ref().ok());
        let answered = |member: &&Member| replies().any(|reply| reply.identity == member.identity);
        let members = replies().flat_map(|reply| &reply.members).filter(|member| member.able.is_some());
        let mut heard_of: Vec<&Member> = members.filter(|member| !answered(member)).collect();
        heard_of.sort_by(|a, b| a.identity.cmp(&b.identity));
        heard_of.dedup_by(|a, b| a.identity == b.identity);
        heard_of
    }

    fn replicas(&self) -> Vec<Vec<(String, Option<Ink>)>> {
        let row = |asked: &Asked| {
            let (identity, version, state) = match &asked.said {
                Ok(reply) => (plain(&reply.identity), plain(&reply.version), state(reply)),
                Err(why) => {
                    ("-".to_owned(), "-".to_owned(), (format!("not reached: {}", plain(why)), Some(Ink::Yellow)))
                }
            };
            vec![(identity, None), (plain(&asked.address), None), (version, None), state]
        };
        self.asked.iter().map(row).collect()
    }

    /// For programs. A field without a value is absent.
    pub(super) fn json(&self) -> Value {
        let replica = |asked: &Asked| match &asked.said {
            Ok(reply) => {
                let mut said = json!(reply);
                said["address"] = json!(asked.address);
                said
            }
            Err(why) => json!({ "address": asked.address, "error": why }),
        };
        json!({
            "lease_namespace": self.namespace,
            "lease_name": self.name,
            "held": self.is_held(),
            "shards": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "replicas": self.asked.iter().map(replica).collect::<Vec<_>>(),
        })
    }
}

fn state(reply: &Reply) -> (String, Option<Ink>) {
    let failed = reply.checks.iter().find(|check| !check.ok);
    let why = failed.map(|check| {
        let why = check.why.as_deref().map(|why| format!(": {}", plain(why))).unwrap_or_default();
        format!(", {}{why}", plain(&check.name))
    });
    match (reply.live, reply.ready) {
        (false, _) => ("stuck".to_owned(), Some(Ink::Red)),
        (true, true) => ("ready".to_owned(), Some(Ink::Green)),
        (true, false) => (format!("not ready{}", why.unwrap_or_default()), Some(Ink::Red)),
    }
}

fn age(at: Timestamp, now: Timestamp) -> String {
    // Clocks may differ: what is in the future has just been.
    let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
    let seconds = age.as_secs();
    let shown = match seconds {
        0..120 => seconds,
        120..7200 => seconds - seconds % 60,
        _ => seconds - seconds % 3600,
    };
    duration::format(Duration::from_secs(shown))
}

fn present<const N: usize>(fields: [(&str, Value); N]) -> Value {
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.to_owned(), value))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

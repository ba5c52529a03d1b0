//! Kafka: whether it is reached, its topics, the rights to them, and whose changelog that is. Nothing is written
//! (`publish/probe.rs`). What is asked and not answered is a failure: a monitor would wait there, too.

use std::{sync::Arc, time::Duration};

use rdkafka::util::get_rdkafka_version;
use tokio::time::timeout;

use super::finding::Finding;
use crate::{
    cli::chain,
    compose,
    config::{Config, Kafka},
    leadership::tenure::ShardId,
    publish::{
        identity::Identity,
        probe,
        settings::Settings,
        topics::{self, Found, Single},
    },
    verify::read,
};

const RIGHTS: &str = "kafka-rights";
/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// How long the changelog may take, which is read whole; transactions that are open are waited for.
const CHANGELOG_MAX: Duration = Duration::from_secs(120);
/// Shards whose right to produce is asked for at most: each needs a client of its own.
const SHARDS_ASKED_MAX: u32 = 16;

/// What is asked of Kafka.
struct Look {
    settings: Arc<Settings>,
    identity: Identity,
    /// The cluster's name is known, and so are transactional ids.
    named: bool,
}

/// Looks at everything; `false`: Kafka is not reached. `cluster_id`: the cluster's name, where it is known.
pub(super) async fn check(config: &Config, kafka: &Kafka, cluster_id: Option<&str>) -> (Vec<Finding>, bool) {
    let identity = compose::identity(config, kafka.generation, cluster_id.unwrap_or("unknown"));
    let settings = match compose::settings(kafka, identity.clone(), compose::service(config)) {
        Ok(settings) => Arc::new(settings),
        Err(error) => return (vec![Finding::failed("kafka", chain(&error))], false),
    };
    let look = Look { settings, identity, named: cluster_id.is_some() };
    let singles = match timeout(LOOK_MAX, topics::each(&look.settings, kafka.create_topics)).await {
        Err(_) => return (vec![Finding::failed("kafka", late(LOOK_MAX))], false),
        Ok(Err(error)) => return (vec![Finding::failed("kafka", chain(&error))], false),
        Ok(Ok(singles)) => singles,
    };
    let (_, library) = get_rdkafka_version();
    let mut found = vec![Finding::ok("kafka", format!("{} answers (librdkafka {library})", kafka.bootstrap_servers))];
    for single in &singles {
        found.extend(topic(single));
    }
    // Side by side: each has to wait for clients of its own.
    let (writing, producing, changelog) =
        tokio::join!(look.writing(&singles), look.producing(), look.changelog(&singles));
    found.extend(writing);
    found.extend(producing);
    found.extend(changelog);
    (found, true)
}

fn late(max: Duration) -> String {
    format!("no answer within {max:?}")
}

/// What became of a question after a right to `what`. `mend`: what to look at where nothing was heard.
fn judged(what: &str, mend: &str, answer: Result<(), probe::Error>) -> Finding {
    match answer {
        Ok(()) => Finding::ok(RIGHTS, format!("may {what}")),
        Err(error @ probe::Error::NotAsked { .. }) => Finding::skipped(RIGHTS, chain(&error)),
        Err(error @ probe::Error::Unanswered { .. }) => Finding::failed(RIGHTS, chain(&error)).mend(mend),
        Err(error @ probe::Error::Taken { .. }) => Finding::failed(RIGHTS, chain(&error)).mend(
            "skip that record where it is read, and do not run check against this broker again: it would write another",
        ),
        Err(error) => Finding::failed(RIGHTS, chain(&error)),
    }
}

fn topic(single: &Single) -> Vec<Finding> {
    let name = &single.topic;
    match &single.found {
        Ok(Found::ToBeMade) => {
            vec![Finding::ok("topic", format!("{name} is not there, and may be made (--create-topics)"))]
        }
        Ok(Found::There { partitions, message_bytes_max, advice }) => {
            let bytes = message_bytes_max.map(|bytes| format!(", max.message.bytes {bytes}")).unwrap_or_default();
            let said = format!("{name}: partitions {partitions}{bytes}");
            let advice = advice.iter().map(|advice| Finding::warning("topic", advice));
            std::iter::once(Finding::ok("topic", said)).chain(advice).collect()
        }
        Err(topics::Error::Wrong { topic, wrong, mend }) => {
            vec![Finding::failed("topic", format!("{topic}: {wrong}")).mend(mend)]
        }
        Err(error) => vec![Finding::failed("topic", chain(error))],
    }
}

/// The right to produce, and as which shards it was asked for.
fn produce_as(first: &str, asked: u32, shards: u32) -> String {
    match (asked, shards) {
        (1, _) => format!("produce as {first}"),
        _ if asked < shards => {
            format!("produce as {first} to {} (of {shards}, only the first {asked} were asked for)", asked - 1)
        }
        _ => format!("produce as {first} to {}", asked.saturating_sub(1)),
    }
}

/// Whether Kafka did not answer, rather than refused or said something odd.
fn is_silence(error: &probe::Error) -> bool {
    matches!(
        error,
        probe::Error::Unanswered { .. } | probe::Error::Read(read::Error::Silent { .. } | read::Error::Ask { .. })
    )
}

impl Look {
    /// Whether records may be written to each topic that can be used.
    async fn writing(&self, singles: &[Single]) -> Vec<Finding> {
        let asked = singles.iter().map(async |single| {
            let name = single.topic.clone();
            let Ok(Found::There { message_bytes_max, .. }) = &single.found else {
                return Finding::skipped(RIGHTS, format!("write to {name}: it cannot be used as it is"));
            };
            let (settings, topic, bytes) = (Arc::clone(&self.settings), name.clone(), *message_bytes_max);
            let changelog = single.changelog;
            let ask = move || match changelog {
                true => probe::may_write_changelog(&settings),
                false => probe::may_write_events(&settings, &topic, bytes),
            };
            let mend = self.describe(&name);
            self.right(&format!("write to {name}"), &mend, ask).await
        });
        futures::future::join_all(asked).await
    }

    async fn producing(&self) -> Vec<Finding> {
        let first = self.identity.transactional_id(ShardId(0));
        let (shards, asked) = (self.identity.shards, self.identity.shards.min(SHARDS_ASKED_MAX));
        if !self.named {
            return vec![Finding::skipped(RIGHTS, "produce: the cluster's name is part of the transactional ids")];
        }
        let settings = Arc::clone(&self.settings);
        let ask = move || (0..asked).try_for_each(|shard| probe::may_produce(&settings, ShardId(shard)));
        let mend = format!(
            "the transaction coordinator does not answer, and nobody leads without it: {}; the brokers' \
             transaction.state.log.replication.factor and transaction.state.log.min.isr must be at most the number of \
             brokers",
            self.describe("__transaction_state")
        );
        vec![self.right(&produce_as(&first, asked, shards), &mend, ask).await]
    }

    async fn right(
        &self,
        what: &str,
        mend: &str,
        ask: impl FnOnce() -> Result<(), probe::Error> + Send + 'static,
    ) -> Finding {
        match timeout(LOOK_MAX, tokio::task::spawn_blocking(ask)).await {
            Err(_) => Finding::failed(RIGHTS, format!("{what}: {}", late(LOOK_MAX))).mend(mend),
            Ok(Err(error)) => Finding::failed(RIGHTS, format!("{what}: {}", chain(&error))),
            Ok(Ok(answer)) => judged(what, mend, answer),
        }
    }

    /// The command that shows why nothing is heard of a topic.
    fn describe(&self, topic: &str) -> String {
        let servers = self.settings.bootstrap_servers();
        format!(
            "kafka-topics.sh --bootstrap-server {servers} --describe --topic {topic} shows whether it is there, its \
             partitions have leaders, and enough replicas are in sync (min.insync.replicas)"
        )
    }

    /// Whose changelog it is.
    async fn changelog(&self, singles: &[Single]) -> Vec<Finding> {
        const CHECK: &str = "changelog";
        let name = self.settings.changelog_topic();
        match singles.iter().find(|single| single.changelog).map(|single| &single.found) {
            Some(Ok(Found::There { .. })) => {}
            Some(Ok(Found::ToBeMade)) => return vec![Finding::ok(CHECK, "new: nothing was told yet")],
            _ => return vec![Finding::skipped(CHECK, format!("{name} cannot be used as it is"))],
        }
        let settings = Arc::clone(&self.settings);
        let read = tokio::task::spawn_blocking(move || probe::read_changelog(&settings));
        let written = match timeout(CHANGELOG_MAX, read).await {
            Err(_) => {
                let said = format!("{name} was not read to its end within {CHANGELOG_MAX:?}");
                let mend = "run it nearer to the brokers; if that is near already, see whether the topic is compacted: \
                            each replica reads it whole";
                return vec![Finding::failed(CHECK, said).mend(mend)];
            }
            Ok(Err(error)) => return vec![Finding::failed(CHECK, chain(&error))],
            Ok(Ok(Err(error))) => {
                let found = Finding::failed(CHECK, chain(&error));
                return vec![if is_silence(&error) { found.mend(self.describe(name)) } else { found }];
            }
            Ok(Ok(Ok(written))) => written,
        };
        let Some(owner) = written.identity.as_ref().filter(|_| !self.named) else {
            return vec![match self.identity.may_use(written.identity.as_ref(), written.moved.as_ref()) {
                Ok(()) if written.identity.is_none() => {
                    Finding::ok(CHECK, format!("{name} is new: nothing was told yet"))
                }
                Ok(()) => {
                    Finding::ok(CHECK, format!("{name} is this installation's, and remembers {} pods", written.pods))
                }
                Err(mismatch) => Finding::failed(CHECK, format!("{name}: {mismatch}")),
            }];
        };
        // All but the cluster's name can be compared.
        let ours = Identity { cluster_id: owner.cluster_id.clone(), ..self.identity.clone() };
        vec![match ours.may_use(Some(owner), written.moved.as_ref()) {
            Ok(()) => {
                Finding::ok(CHECK, format!("{name} is that of cluster {}, which may be this one", owner.cluster_id))
            }
            Err(mismatch) => Finding::failed(CHECK, format!("{name}: {mismatch}")),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::finding::Verdict;

    #[test]
    fn what_is_not_answered_is_a_failure_with_a_mend_and_only_what_was_not_asked_is_skipped() {
        let what = || "produce".to_owned();
        let taken = probe::Error::Taken { what: what(), refused: "noise", partition: 0, offset: 7 };
        let cases = [
            (Ok(()), Verdict::Ok, "may produce", false),
            (Err(probe::Error::NotAsked { what: what() }), Verdict::Skipped, "none is sent", false),
            (
                Err(probe::Error::Unanswered { what: what(), said: "timed out".into() }),
                Verdict::Failed,
                "timed out",
                true,
            ),
            (Err(taken), Verdict::Failed, "partition 0 at offset 7", true),
        ];
        for (answer, verdict, part, mends) in cases {
            let found = judged("produce", "look", answer);
            assert!(found.verdict == verdict && found.said.contains(part), "{found:?}");
            assert_eq!(found.mend.is_some(), mends, "{found:?}");
        }
    }

    #[test]
    fn only_the_shards_that_were_asked_for_are_named() {
        assert_eq!(produce_as("a.0", 1, 1), "produce as a.0");
        assert_eq!(produce_as("a.0", 2, 2), "produce as a.0 to 1");
        let some = produce_as("a.0", 16, 128);
        assert_eq!(some, "produce as a.0 to 15 (of 128, only the first 16 were asked for)");
    }
}

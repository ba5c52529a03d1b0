//! Kafka: whether it is reached, its topics, the rights to them, and whose changelog that is. Nothing is written
//! (`publish/probe.rs`).

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
};

/// How long one look may take. The changelog is read whole.
const LOOK_MAX: Duration = Duration::from_secs(30);
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
        Err(_) => return (vec![Finding::failed("kafka", late())], false),
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

fn late() -> String {
    format!("no answer within {LOOK_MAX:?}")
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

impl Look {
    /// Whether records may be written to each topic that can be used.
    async fn writing(&self, singles: &[Single]) -> Vec<Finding> {
        let asked = singles.iter().map(async |single| {
            let name = single.topic.clone();
            let Ok(Found::There { message_bytes_max, .. }) = &single.found else {
                return Finding::skipped("kafka-rights", format!("write to {name}: it cannot be used as it is"));
            };
            let (settings, topic, bytes) = (Arc::clone(&self.settings), name.clone(), *message_bytes_max);
            let changelog = single.changelog;
            let ask = move || match changelog {
                true => probe::may_write_changelog(&settings),
                false => probe::may_write_events(&settings, &topic, bytes),
            };
            self.right(&format!("write to {name}"), ask).await
        });
        futures::future::join_all(asked).await
    }

    async fn producing(&self) -> Vec<Finding> {
        let shards = self.identity.shards;
        let of = |shard| self.identity.transactional_id(ShardId(shard));
        let what = match shards {
            1 => format!("produce as {}", of(0)),
            _ => format!("produce as {} to {}", of(0), shards.saturating_sub(1)),
        };
        if !self.named {
            return vec![Finding::skipped(
                "kafka-rights",
                "produce: the cluster's name is part of the transactional ids",
            )];
        }
        let settings = Arc::clone(&self.settings);
        let ask = move || {
            (0..shards.min(SHARDS_ASKED_MAX)).try_for_each(|shard| probe::may_produce(&settings, ShardId(shard)))
        };
        vec![self.right(&what, ask).await]
    }

    async fn right(&self, what: &str, ask: impl FnOnce() -> Result<(), probe::Error> + Send + 'static) -> Finding {
        const CHECK: &str = "kafka-rights";
        match timeout(LOOK_MAX, tokio::task::spawn_blocking(ask)).await {
            Err(_) => Finding::skipped(CHECK, format!("{what}: {}", late())),
            Ok(Err(error)) => Finding::skipped(CHECK, format!("{what}: {}", chain(&error))),
            Ok(Ok(Ok(()))) => Finding::ok(CHECK, format!("may {what}")),
            Ok(Ok(Err(error @ (probe::Error::Unanswered { .. } | probe::Error::NotAsked { .. })))) => {
                Finding::skipped(CHECK, chain(&error))
            }
            Ok(Ok(Err(error))) => Finding::failed(CHECK, chain(&error)),
        }
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
        let written = match timeout(LOOK_MAX, read).await {
            Err(_) => return vec![Finding::skipped(CHECK, format!("{name} was not read within {LOOK_MAX:?}"))],
            Ok(Err(error)) => return vec![Finding::skipped(CHECK, chain(&error))],
            Ok(Ok(Err(error))) => return vec![Finding::failed(CHECK, chain(&error))],
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

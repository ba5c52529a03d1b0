//! The settings of `reshard`.

use std::num::NonZeroU32;

use super::{Error, Kafka, ReshardArgs, ResultKind, Surroundings, Variables, effective, lease, load_with_kafka};
use crate::{leadership::election::Times, lifecycle::rules::ShardBy};

/// The checked settings of `reshard`.
#[derive(Debug)]
pub struct Reshard {
    /// How Kafka is reached; the generation that is the truth now.
    pub kafka: Kafka,
    /// How many shards there are to be.
    pub shards: NonZeroU32,
    /// What they are to be shared by, if by something else than now.
    pub shard_by: Option<ShardBy>,
    /// How many there are now, where that was said.
    pub from_shards: Option<u32>,
    /// Do nothing.
    pub dry_run: bool,
    /// How the result is told.
    pub output: ResultKind,
    /// Records in one transaction.
    pub records_max: usize,
    /// Name of the installation.
    pub lease_name: String,
    /// Namespace of the installation.
    pub lease_namespace: String,
    /// How the Leases are held.
    pub lease_times: Times,
    /// Names the cluster in ids; `None`: the uid of namespace kube-system.
    pub cluster_id: Option<String>,
    /// This process; unique per start.
    pub identity: String,
}

/// Reads the settings from all layers.
pub fn load(given: &clap::ArgMatches, variables: Variables<'_>, around: &Surroundings) -> Result<Reshard, Error> {
    let (args, kafka) = load_with_kafka::<ReshardArgs>(given, variables, |args| &args.kafka)?;
    let shards = args.shards.and_then(NonZeroU32::new).ok_or(Error::Missing {
        key: "shards",
        mend: "say how many shards there are to be, for instance --shards 4",
    })?;
    Ok(Reshard {
        kafka: Kafka { create_topics: args.create_topics, ..kafka },
        shards,
        shard_by: args.shard_by.map(Into::into),
        from_shards: args.from_shards,
        dry_run: args.dry_run,
        output: args.output,
        records_max: usize::try_from(args.records_max).unwrap_or(usize::MAX),
        lease_times: lease::of(&args.lease)?,
        lease_name: args.lease.installation.lease_name,
        lease_namespace: args
            .lease
            .installation
            .lease_namespace
            .or(around.own_namespace.clone())
            .unwrap_or("default".to_owned()),
        cluster_id: args.cluster_id,
        identity: effective::identity(args.identity.as_deref().or(around.host_name.as_deref()), around.random),
    })
}

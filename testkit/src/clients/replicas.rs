//! Several replicas of one installation, their leader, and what is done to it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use rustix::process::Signal;

use serde_json::Value;

use super::{
    cluster::Cluster,
    monitor::{Launch, Monitor},
    proxy::Proxy,
    until,
};
use crate::stack::Endpoints;

/// How many there are.
const REPLICAS: usize = 3;
/// Longest wait for a change of hands: a Lease that runs out, on a machine at its limit.
const CHANGE_MAX: Duration = Duration::from_secs(40);

/// Replicas of one installation, each with ways to the API server and to Kafka that can be cut.
pub struct Replicas {
    cluster: Cluster,
    lease: String,
    replicas: Vec<Replica>,
}

/// One replica.
pub struct Replica {
    /// How it is started; its identities begin with `r<index>_`.
    pub launch: Launch,
    /// Its ways, where they can be cut.
    pub ways: Option<Ways>,
    /// The process, while there is one.
    pub running: Option<Monitor>,
}

/// The ways of one replica to its servers.
#[derive(Debug)]
pub struct Ways {
    /// To the API server.
    pub api: Proxy,
    /// To Kafka.
    pub kafka: Proxy,
}

/// What is done to a leader, so that another takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGSTOP, and SIGCONT after three lease durations.
    Freeze,
    /// No packet to or from the API server.
    CutApi,
    /// No packet to or from Kafka.
    CutKafka,
}

impl Replicas {
    /// Starts three replicas like `launch`, which reach their servers directly.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(launch: &Launch, cluster: &Cluster) -> Result<Self> {
        Self::with_ways(launch, cluster, std::iter::repeat_with(|| Ok(None)))
    }

    /// Starts three replicas like `launch`, whose ways to their servers can be cut: each has a listener of the broker of
    /// its own.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_cuttable(launch: &Launch, endpoints: &Endpoints, cluster: &Cluster) -> Result<Self> {
        let server = endpoints.api_server.trim_start_matches("https://");
        let cuts = endpoints.kafka_cuts().into_iter();
        let ways = cuts.map(|(at, target)| {
            let (api, kafka) = (Proxy::open("127.0.0.1:0", server)?, Proxy::open(&at, &target)?);
            let kubeconfig = api.kubeconfig(endpoints, &format!("{}-{}", cluster.namespace(), kafka.address.port()))?;
            Ok(Some((Ways { api, kafka }, kubeconfig)))
        });
        Self::with_ways(launch, cluster, ways)
    }

    fn with_ways(
        launch: &Launch,
        cluster: &Cluster,
        ways: impl Iterator<Item = Result<Option<(Ways, String)>>>,
    ) -> Result<Self> {
        let name = launch.argument("--lease-name").context("an installation's name")?;
        let mut started = Self { cluster: cluster.clone(), lease: format!("{name}-0"), replicas: Vec::new() };
        for (index, ways) in ways.enumerate().take(REPLICAS) {
            let mut launch = launch.clone().variable("POD_NAME", &format!("r{index}")).relocated()?;
            launch.log = launch.log.with_file_name(format!("monitor-{name}-{index}.log"));
            let ways = match ways? {
                Some((ways, kubeconfig)) => {
                    let kafka = ways.kafka.address.to_string();
                    launch = launch.set("--kafka", &kafka).variable("KUBECONFIG", &kubeconfig);
                    Some(ways)
                }
                None => None,
            };
            started.replicas.push(Replica { launch, ways, running: None });
            started.restart(index)?;
        }
        Ok(started)
    }

    /// Starts a replica that is down; one that runs is killed first.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        let replica = &mut self.replicas[index];
        drop(replica.running.take());
        replica.running = Some(replica.launch.start()?);
        Ok(())
    }

    /// Waits until every replica that runs is ready.
    ///
    /// # Errors
    /// When one is not, within `limit`.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        for monitor in self.replicas.iter_mut().filter_map(|replica| replica.running.as_mut()) {
            monitor.ready(limit).await?;
        }
        Ok(())
    }

    /// All of them.
    pub fn all(&self) -> &[Replica] {
        &self.replicas
    }

    /// One of them, to do something to.
    pub fn one(&mut self, index: usize) -> &mut Replica {
        &mut self.replicas[index]
    }

    /// `spec.holderIdentity` of the Lease; empty if nobody holds it.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn holder(&self) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.cluster.client(), self.cluster.namespace());
        let lease = leases.get_opt(&self.lease).await?;
        Ok(lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default())
    }

    /// Waits for a leader other than `not`, one that says itself that it is live; gives its index and identity.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn leader(&self, not: &str) -> Result<(usize, String)> {
        let look = async || {
            let holder = self.holder().await?;
            let index = holder.strip_prefix('r').and_then(|rest| rest.split('_').next()?.parse::<usize>().ok());
            let Some(index) = index.filter(|_| holder != not) else { return Ok(None) };
            let Some(monitor) = self.replicas.get(index).and_then(|r| r.running.as_ref()) else { return Ok(None) };
            Ok(monitor.is_leading().then_some((index, holder)))
        };
        until(CHANGE_MAX, &format!("a leader other than {not:?}"), look).await
    }

    /// Does this to the leader, waits until another leads, and mends it again; gives the identity of the old leader.
    ///
    /// # Errors
    /// When nobody takes over, or the replica does not come back.
    pub async fn change_hands(&mut self, fault: Fault, lease_duration: Duration) -> Result<String> {
        let (index, holder) = self.leader("").await?;
        let replica = &mut self.replicas[index];
        let monitor = replica.running.as_mut().context("the leader runs")?;
        match fault {
            Fault::Kill => {
                monitor.signal(Signal::KILL)?;
                monitor.ended(CHANGE_MAX).await?;
            }
            Fault::Terminate => {
                monitor.signal(Signal::TERM)?;
                let status = monitor.ended(CHANGE_MAX).await?;
                ensure!(status.code() == Some(0), "asked to stop, it ended with {status}\n{}", monitor.log_end());
            }
            Fault::Freeze => {
                monitor.signal(Signal::STOP)?;
                // A fault has a duration; nothing is waited for by it.
                tokio::time::sleep(3 * lease_duration).await;
            }
            Fault::CutApi => replica.ways()?.api.cut(),
            Fault::CutKafka => replica.ways()?.kafka.cut(),
        }
        self.leader(&holder).await.with_context(|| format!("after {fault:?} of {holder}"))?;
        match fault {
            Fault::Kill | Fault::Terminate => self.restart(index)?,
            Fault::Freeze => {
                let monitor = self.replicas[index].running.as_ref().context("it runs")?;
                monitor.signal(Signal::CONT)?;
            }
            Fault::CutApi => self.replicas[index].ways()?.api.heal(),
            Fault::CutKafka => self.replicas[index].ways()?.kafka.heal(),
        }
        self.ready(CHANGE_MAX).await?;
        Ok(holder)
    }

    /// That none has ended by itself.
    ///
    /// # Errors
    /// When one has; with the end of its log.
    pub fn all_run(&mut self) -> Result<()> {
        for monitor in self.replicas.iter_mut().filter_map(|replica| replica.running.as_mut()) {
            if let Some(status) = monitor.try_ended()? {
                bail!("a replica has ended: {status}\n{}", monitor.log_end());
            }
        }
        Ok(())
    }

    /// SIGTERM to all; each must end with 0.
    ///
    /// # Errors
    /// When one does not.
    pub async fn stop(self, limit: Duration) -> Result<()> {
        for monitor in self.replicas.into_iter().filter_map(|replica| replica.running) {
            let status = monitor.stop(limit).await?;
            ensure!(status.code() == Some(0), "asked to stop, it ended with {status}");
        }
        Ok(())
    }

    /// The processes, to be left running.
    pub fn into_running(self) -> impl Iterator<Item = Monitor> {
        self.replicas.into_iter().filter_map(|replica| replica.running)
    }

    /// The log lines of all replicas with this message, oldest first.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn said(&self, message: &str) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        for replica in &self.replicas {
            let log = std::fs::read_to_string(&replica.launch.log).context("read a replica's log")?;
            let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.extend(parsed.filter(|line| line["message"] == message));
        }
        lines.sort_by_key(|line| line["timestamp"].to_string());
        Ok(lines)
    }

    /// The sum of a series over all replicas that answer.
    pub fn sum(&self, series: &str) -> f64 {
        let running = self.replicas.iter().filter_map(|replica| replica.running.as_ref());
        running.filter_map(|monitor| monitor.metric(series).ok()).sum()
    }
}

impl Replica {
    /// Its ways to its servers.
    ///
    /// # Errors
    /// When they cannot be cut.
    pub fn ways(&self) -> Result<&Ways> {
        self.ways.as_ref().context("the ways of these replicas cannot be cut")
    }
}

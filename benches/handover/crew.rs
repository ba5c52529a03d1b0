//! Three replicas of one installation, as processes, and what can be done to their leader.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use testkit::{
    clients::{
        history::create_topic,
        monitor::{Launch, Monitor},
        proxy::Proxy,
        until,
    },
    stack::{Endpoints, Signal, baseline},
};

use crate::{
    cases::{Fault, Plan, Who},
    field::Field,
};

const REPLICAS: usize = 3;
const LOG_LEVEL: &str = "info,pod_monitor::publish::fence=debug,pod_monitor::leadership=debug";
/// Longest start, and longest wait for a leader: beyond the baselines' 15 s Lease.
const LEADER_MAX: Duration = Duration::from_secs(60);
/// Longest orderly end.
const END_MAX: Duration = Duration::from_secs(15);

/// The replicas.
pub(crate) struct Crew {
    slots: Vec<Slot>,
    leases: Api<Lease>,
    lease: String,
    /// Where the consumer reads.
    pub(crate) topic: String,
}

struct Slot {
    launch: Launch,
    monitor: Option<Monitor>,
    identity: String,
    proxy: Option<Proxy>,
}

/// How the three programs are found.
pub(crate) struct Programs {
    pub(crate) ours: PathBuf,
    pub(crate) kube_leader_election: PathBuf,
    pub(crate) client_go: PathBuf,
}

impl Programs {
    /// Ours is copied: another build must not change what is measured halfway.
    pub(crate) fn find(endpoints: &Endpoints, program: Option<&Path>) -> Result<Self> {
        let ours = endpoints.run_dir.join(format!("pod-monitor-{}", std::process::id()));
        let built = Path::new(env!("CARGO_BIN_EXE_pod-monitor"));
        std::fs::copy(program.unwrap_or(built), &ours).context("copy the monitor")?;
        Ok(Self { ours, kube_leader_election: std::env::current_exe()?, client_go: baseline::client_go()? })
    }

    fn of(&self, who: Who) -> &PathBuf {
        match who {
            Who::Ours => &self.ours,
            Who::KubeLeaderElection => &self.kube_leader_election,
            Who::ClientGo => &self.client_go,
        }
    }
}

impl Crew {
    /// Starts them and waits until one leads.
    pub(crate) async fn start(endpoints: &Endpoints, programs: &Programs, plan: &Plan, field: &Field) -> Result<Self> {
        let app = field.app();
        let mut slots = Vec::new();
        for number in 0..REPLICAS {
            let api_server = endpoints.api_server.trim_start_matches("https://");
            let through = plan.fault == Fault::Partition;
            let proxy = through.then(|| Proxy::open("127.0.0.1:0", api_server)).transpose()?;
            slots.push(Slot::new(endpoints, programs.of(plan.who), plan, app, number, proxy)?);
        }
        let topic = format!("{app}.events");
        let lease = if plan.who == Who::Ours { format!("{app}-0") } else { app.to_owned() };
        if plan.who != Who::Ours {
            // It may be there since an earlier block.
            drop(create_topic(&endpoints.kafka, &topic, 1, &[]).await);
        }
        let leases = Api::namespaced(field.cluster.client(), field.cluster.namespace());
        let mut crew = Self { slots, leases, lease, topic };
        for slot in 0..REPLICAS {
            crew.begin(slot)?;
        }
        crew.ready().await?;
        crew.leader().await?;
        if plan.who == Who::Ours {
            crew.tracks(field.size()).await?;
        }
        Ok(crew)
    }

    fn begin(&mut self, slot: usize) -> Result<()> {
        // Never the same twice, in no crew: the barrier of an earlier process would be taken for that of a later one.
        static STARTS: AtomicUsize = AtomicUsize::new(0);
        let number = STARTS.fetch_add(1, Ordering::Relaxed);
        let slot = &mut self.slots[slot];
        slot.identity = format!("{}-{}-{number}", self.lease, std::process::id());
        let launch = slot.launch.clone().with(&["--identity", &slot.identity]);
        slot.monitor = Some(launch.start()?);
        Ok(())
    }

    /// Waits until all are ready.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            let monitor = slot.monitor.as_mut().context("a replica runs")?;
            monitor.ready(LEADER_MAX).await?;
        }
        Ok(())
    }

    /// Who holds the Lease, once it is one of those that run.
    pub(crate) async fn leader(&self) -> Result<usize> {
        let look = async || {
            let lease = self.leases.get_opt(&self.lease).await?;
            let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
            // Ours puts a mark of the process start behind the identity it was given; the baselines do not.
            let given = holder.split('_').next().unwrap_or_default();
            Ok(self.slots.iter().position(|slot| slot.monitor.is_some() && slot.identity == given))
        };
        until(LEADER_MAX, "one of the replicas leads", look).await
    }

    async fn tracks(&self, pods: usize) -> Result<()> {
        let look = async || {
            let tracked = |slot: &Slot| slot.monitor.as_ref()?.metric("pod_monitor_tracked_pods").ok();
            Ok(self.slots.iter().filter_map(tracked).any(|tracked| tracked >= pods as f64).then_some(()))
        };
        until(LEADER_MAX, "the leader tracks all pods", look).await
    }

    /// Makes the leader go.
    pub(crate) fn strike(&self, leader: usize, fault: Fault) -> Result<()> {
        let slot = &self.slots[leader];
        let monitor = slot.monitor.as_ref().context("the leader runs")?;
        match fault {
            Fault::Term => monitor.signal(Signal::TERM),
            Fault::Kill => monitor.signal(Signal::KILL),
            Fault::Stop => monitor.signal(Signal::STOP),
            Fault::Partition => {
                slot.proxy.as_ref().context("a proxy")?.cut();
                Ok(())
            }
        }
    }

    /// When the process that was asked to stop has ended.
    pub(crate) async fn ended(&mut self, slot: usize) -> Result<Instant> {
        let monitor = self.slots[slot].monitor.as_mut().context("the leader runs")?;
        monitor.ended(END_MAX).await?;
        Ok(Instant::now())
    }

    /// Brings back who was struck, and waits until all three are ready.
    pub(crate) async fn mend(&mut self, struck: usize, fault: Fault) -> Result<()> {
        let slot = &mut self.slots[struck];
        let mut monitor = slot.monitor.take().context("a replica runs")?;
        match fault {
            Fault::Term | Fault::Kill => {
                monitor.ended(END_MAX).await?;
                self.begin(struck)?;
            }
            Fault::Stop => {
                monitor.signal(Signal::CONT)?;
                slot.monitor = Some(monitor);
            }
            Fault::Partition => {
                slot.proxy.as_ref().context("a proxy")?.heal();
                slot.monitor = Some(monitor);
            }
        }
        self.ready().await
    }

    /// The log lines of all but one.
    pub(crate) fn logs_but(&self, struck: usize) -> Result<Vec<String>> {
        let others = self.slots.iter().enumerate().filter(|(number, _)| *number != struck);
        others.map(|(_, slot)| std::fs::read_to_string(&slot.launch.log).context("read a log")).collect()
    }

    /// Every log line.
    pub(crate) fn logs(&self) -> Result<Vec<String>> {
        self.logs_but(usize::MAX)
    }

    /// Fails when one has ended by itself.
    pub(crate) fn all_run(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            let monitor = slot.monitor.as_mut().context("a replica runs")?;
            if let Some(status) = monitor.try_ended()? {
                bail!("a replica has ended by itself: {status}\n{}", monitor.log_end());
            }
        }
        Ok(())
    }

    /// Ends all of them, the leader last: nothing changes hands.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let leader = self.leader().await?;
        let order = (0..REPLICAS).filter(|slot| *slot != leader).chain([leader]);
        for slot in order {
            let monitor = self.slots[slot].monitor.take().context("a replica runs")?;
            monitor.stop(END_MAX).await?;
        }
        Ok(())
    }
}

impl Slot {
    fn new(
        endpoints: &Endpoints,
        program: &Path,
        plan: &Plan,
        app: &str,
        number: usize,
        proxy: Option<Proxy>,
    ) -> Result<Self> {
        let mut launch = Launch::new(program, endpoints, app, app);
        if plan.who == Who::Ours {
            launch = launch.with(&["--reconcile-interval", "3600s"]);
            // The lines of a change of hands; those about single records would be measured too.
            let level = launch.arguments.iter().position(|a| a == "--log-level").context("the launch sets a level")?;
            launch.arguments[level + 1] = LOG_LEVEL.into();
        } else {
            launch.arguments = baseline_arguments(&launch.arguments);
        }
        if let Some(proxy) = &proxy {
            let file = proxy.kubeconfig(endpoints, &format!("bench-{app}-{number}"))?;
            launch.variables = vec![("KUBECONFIG".into(), file)];
        }
        launch.log = endpoints.run_dir.join(format!("bench-{app}-{number}.log"));
        // Lines of earlier blocks are not looked at again.
        std::fs::write(&launch.log, "").context("empty a log")?;
        Ok(Self { launch, monitor: None, identity: String::new(), proxy })
    }
}

/// The baselines take some of the arguments of `pod-monitor run`.
fn baseline_arguments(all: &[String]) -> Vec<String> {
    const KNOWN: [&str; 5] = ["--selector", "--namespace", "--kafka", "--events-topic", "--lease-name"];
    all.windows(2).filter(|pair| KNOWN.contains(&&*pair[0])).flatten().cloned().collect()
}

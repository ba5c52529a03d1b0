//! Three replicas on the stack, what can be asked of them, and the clock that one of them believes in.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use testkit::{
    clients::{
        fault::Random,
        installation::Installation,
        monitor::{Launch, Monitor},
        replicas::{Replica, Replicas},
        until,
    },
    stack::{Endpoints, Signal, Stack},
};
use tokio::task::spawn_blocking;

use crate::{
    plan::Deck,
    strikes::{EDITS, HANDING_OVER, TAKING_OVER, WAYS},
};

/// Longest wait for anything: a Lease that runs out, a broker that comes back, on a machine at its limit.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The replica whose clock jumps.
pub(crate) const JUMPER: usize = 2;
/// The variable by which a monitor dies at a step (src/failpoint.rs).
const DIE_AT: &str = "POD_MONITOR_DIE_AT";

/// What makes one replica believe in another wall clock (Debian package `libfaketime`).
fn fake_time() -> String {
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH)
}

/// Ways in which faults are done, each dealt once before any comes again.
pub(crate) struct Decks {
    pub(crate) taking_over: Deck<&'static str>,
    pub(crate) handing_over: Deck<&'static str>,
    pub(crate) edits: Deck<usize>,
    /// Indices of [`WAYS`]: of the link to the API server cut and slow, of that to Kafka cut and slow.
    pub(crate) links: [[Deck<usize>; 2]; 2],
}

impl Default for Decks {
    fn default() -> Self {
        let ways = || Deck::new(0..WAYS.len());
        Self {
            taking_over: Deck::new(TAKING_OVER),
            handing_over: Deck::new(HANDING_OVER),
            edits: Deck::new(0..EDITS),
            links: [[ways(), ways()], [ways(), ways()]],
        }
    }
}

/// What is struck.
pub(crate) struct Crew {
    pub(crate) replicas: Replicas,
    pub(crate) stack: Arc<Stack>,
    /// A Deployment beside them that contends for the same Lease, and has no replica but for one kind of fault.
    pub(crate) installed: Installation,
    /// Where the Lease is.
    pub(crate) leases: Api<Lease>,
    pub(crate) random: Random,
    /// Name of the Lease.
    pub(crate) lease: String,
    /// Leaders that were killed, in whatever way.
    pub(crate) kills: usize,
    /// What is still to be done, of each kind that is done in several ways.
    pub(crate) decks: Decks,
    clock: PathBuf,
    struck_at: Option<Instant>,
}

impl Crew {
    /// Starts three replicas and waits until one leads.
    pub(crate) async fn start(
        launch: &Launch,
        endpoints: &Endpoints,
        installed: Installation,
        random: Random,
    ) -> Result<Self> {
        ensure!(
            Path::new(&fake_time()).exists(),
            "{} is missing: apt-get install libfaketime (cargo xtask chaos does it)",
            fake_time()
        );
        let clock = endpoints.run_dir.join("chaos-clock");
        std::fs::write(&clock, "+0").context("write the false clock")?;
        let mut replicas = Replicas::start(launch, endpoints, &installed.watched)?;
        let jumper = replicas.one(JUMPER);
        let variables = [
            ("LD_PRELOAD", fake_time()),
            ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Wall clocks jump; what deadlines go by does not.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        for (key, value) in variables {
            jumper.launch = jumper.launch.clone().variable(key, &value);
        }
        replicas.restart(JUMPER)?;
        let lease = format!("{}-0", launch.argument("--lease-name").context("an installation's name")?);
        let stack = Arc::new(Stack::from_env()?);
        let leases = Api::namespaced(installed.watched.client(), &installed.name);
        let decks = Decks::default();
        let mut crew =
            Self { replicas, stack, installed, leases, random, lease, kills: 0, decks, clock, struck_at: None };
        crew.settle().await?;
        Ok(crew)
    }

    /// The fault happens now: what came before was its preparation.
    pub(crate) fn strikes_now(&mut self) {
        self.struck_at = Some(Instant::now());
    }

    /// When the last fault happened.
    pub(crate) fn struck_at(&mut self) -> Option<Instant> {
        self.struck_at.take()
    }

    /// Waits until all replicas are ready and one leads.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        self.replicas.ready(LIMIT).await?;
        self.leader().await.map(drop)
    }

    /// Index and identity of who leads now.
    pub(crate) async fn leader(&self) -> Result<(usize, String)> {
        self.leader_but("").await
    }

    /// Who leads and is another, once there is one. An API server that is away is asked again.
    pub(crate) async fn leader_but(&self, not: &str) -> Result<(usize, String)> {
        let look = async || Ok(self.replicas.leader(not).await.ok());
        until(LIMIT, &format!("a leader other than {not:?}"), look).await
    }

    /// Everyone but this one.
    pub(crate) fn others(&self, index: usize) -> Vec<usize> {
        (0..self.replicas.all().len()).filter(|other| *other != index).collect()
    }

    /// The process of a replica.
    pub(crate) fn monitor(&mut self, index: usize) -> Result<&mut Monitor> {
        self.replicas.one(index).running.as_mut().with_context(|| format!("replica {index} runs"))
    }

    /// SIGKILL to a replica, and its end. Counted: only leaders are killed.
    pub(crate) async fn kill(&mut self, index: usize) -> Result<()> {
        self.kills += 1;
        self.strikes_now();
        let monitor = self.monitor(index)?;
        monitor.signal(Signal::KILL)?;
        monitor.ended(LIMIT).await.map(drop)
    }

    /// SIGKILL to all replicas, the leader first, and their ends. Counted as one leader.
    pub(crate) async fn kill_all(&mut self) -> Result<()> {
        let (leader, _) = self.leader().await?;
        for index in [vec![leader], self.others(leader)].concat() {
            self.monitor(index)?.signal(Signal::KILL)?;
        }
        self.kills += 1;
        for index in 0..self.replicas.all().len() {
            self.monitor(index)?.ended(LIMIT).await?;
        }
        Ok(())
    }

    /// Starts all replicas that are down; the others anew.
    pub(crate) fn restart_all(&mut self) -> Result<()> {
        (0..self.replicas.all().len()).try_for_each(|index| self.replicas.restart(index))
    }

    /// Starts a replica anew, so that it dies when it comes to a step.
    pub(crate) fn arm(&mut self, index: usize, step: &str) -> Result<()> {
        let Replica { launch, .. } = self.replicas.one(index);
        let plain = launch.clone();
        *launch = launch.clone().variable(DIE_AT, step);
        let started = self.replicas.restart(index);
        self.replicas.one(index).launch = plain;
        started
    }

    /// Waits for the death of a replica that was armed. Counted: it led.
    pub(crate) async fn dies(&mut self, index: usize, step: &str) -> Result<()> {
        let status = self.monitor(index)?.ended(LIMIT).await.with_context(|| format!("it dies at {step}"))?;
        self.kills += 1;
        let log = std::fs::read_to_string(&self.replicas.one(index).launch.log).context("read a replica's log")?;
        // By its own hand, and nothing else: a panic or an error is a defect.
        if status.signal() != Some(Signal::ABORT.as_raw()) || !log.contains(&format!("dying at {step},")) {
            bail!("replica {index} should have died at {step} and ended with {status}");
        }
        Ok(())
    }

    /// The wall clock that [`JUMPER`] believes in is now off by so much, as libfaketime takes it: `+3600`.
    pub(crate) fn set_clock(&self, offset: &str) -> Result<()> {
        std::fs::write(&self.clock, offset).context("write the false clock")
    }

    /// Does something to the stack, on a thread that may block.
    pub(crate) async fn with_stack<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Stack) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let stack = Arc::clone(&self.stack);
        spawn_blocking(move || act(&stack)).await.context("act on the stack")?
    }

    /// How long a fault lasts.
    pub(crate) async fn lasts(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

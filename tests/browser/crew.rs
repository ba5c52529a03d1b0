//! Three replicas of one installation, and a page of one of them.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::Value;
use testkit::{
    clients::{
        browser::Browser,
        cluster::{Cluster, execution},
        monitor::{Launch, Monitor},
        until,
    },
    stack::Endpoints,
};

/// Longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const REPLICAS: usize = 3;

pub(crate) struct Crew {
    pub(crate) endpoints: Endpoints,
    pub(crate) cluster: Cluster,
    app: String,
    leases: Api<Lease>,
    pub(crate) launches: Vec<Launch>,
    /// Each is killed by its own pid when dropped.
    pub(crate) running: Vec<Option<Monitor>>,
}

impl Crew {
    /// All ready, one of them leading.
    pub(crate) async fn start(test: &str) -> Result<Self> {
        let endpoints = Endpoints::from_env()?;
        let app = format!("page-{test}-{}", std::process::id());
        let cluster = Cluster::connect(&endpoints, &app).await?;
        cluster.ready_for_pods().await?;
        let leases = Api::namespaced(cluster.client(), &app);
        let mut crew = Self { endpoints, cluster, app, leases, launches: Vec::new(), running: Vec::new() };
        for index in 0..REPLICAS {
            let program = Path::new(env!("CARGO_BIN_EXE_pod-monitor"));
            let launch = Launch::new(program, &crew.endpoints, &crew.app, &crew.app);
            let mut launch = launch.variable("POD_NAME", &format!("r{index}")).relocated()?;
            launch.log = launch.log.with_file_name(format!("monitor-{}-{index}.log", crew.app));
            crew.running.push(Some(launch.start()?));
            crew.launches.push(launch);
        }
        for monitor in crew.running.iter_mut().flatten() {
            monitor.ready(LIMIT).await?;
        }
        crew.leader().await?;
        Ok(crew)
    }

    /// `spec.holderIdentity` of the shard's Lease; empty where nobody holds it.
    pub(crate) async fn holder(&self) -> Result<String> {
        let lease = self.leases.get_opt(&format!("{}-0", self.app)).await?;
        Ok(lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default())
    }

    /// Which one leads and says so, and its identity.
    pub(crate) async fn leader(&self) -> Result<(usize, String)> {
        let look = async || {
            let holder = self.holder().await?;
            let led = self.running.iter().position(|one| one.as_ref().is_some_and(Monitor::is_leading));
            Ok(led.filter(|index| holder.starts_with(&format!("r{index}_"))).map(|index| (index, holder)))
        };
        until(LIMIT, "one leads", look).await
    }

    /// One that stands by, other than `not`.
    pub(crate) fn standby(&self, leader: usize, not: Option<usize>) -> usize {
        let free = |index: &usize| *index != leader && Some(*index) != not && self.running[*index].is_some();
        (0..REPLICAS).find(free).unwrap()
    }

    /// The address of a replica's page.
    pub(crate) fn page(&self, index: usize) -> String {
        format!("http://{}/", self.launches[index].address)
    }

    /// `/api/status` of a replica.
    pub(crate) fn status(&self, index: usize) -> Result<Value> {
        let (_, json) = self.running[index].as_ref().context("it runs")?.get("/api/status")?;
        serde_json::from_str(&json).context("JSON")
    }

    /// A pod that runs this script and ends.
    pub(crate) async fn execute(&self, id: &str, script: &str) -> Result<()> {
        self.cluster.create(execution(&self.app, id, script)).await.map(drop)
    }

    /// A browser.
    pub(crate) fn browser(&self) -> Result<Browser> {
        Browser::start(&self.endpoints.run_dir)
    }

    /// The test is over: no page complained, and none asked for anything but its own replica.
    pub(crate) async fn close(self, mut browser: Browser) -> Result<()> {
        let complaints = browser.complaints();
        ensure!(complaints.is_empty(), "{complaints:#?}");
        let own: Vec<String> = self.launches.iter().map(|launch| format!("http://{}/", launch.address)).collect();
        let is_own =
            |url: &String| own.iter().any(|own| url.starts_with(own)) || url == "data:," || url == "about:blank";
        let requested = browser.requested();
        ensure!(requested.iter().any(|url| url.ends_with("/")), "nothing was asked for: {requested:?}");
        let foreign: Vec<&String> = requested.iter().filter(|url| !is_own(url)).collect();
        ensure!(foreign.is_empty(), "asked for {foreign:?}");
        drop(browser);
        for monitor in self.running.into_iter().flatten() {
            monitor.stop(LIMIT).await?;
        }
        self.cluster.remove_namespace().await
    }
}

/// Waits until an element's text holds all of these words; gives the text.
pub(crate) async fn shows(browser: &mut Browser, selector: &str, words: &[&str], limit: Duration) -> Result<String> {
    let mut last = String::new();
    let look = async || {
        last = browser.text(selector)?;
        Ok(words.iter().all(|word| last.contains(word)).then(|| last.clone()))
    };
    let waited = until(limit, &format!("{selector} shows {words:?}"), look).await;
    waited.with_context(|| format!("{selector} showed last: {last}"))
}

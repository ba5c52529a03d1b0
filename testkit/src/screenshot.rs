//! Pictures of the status page for the README: three replicas that share three shards, sample executions, a killed leader.
//!
//! What they show is real; only the moment is chosen. Ends with everything that it started.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    clients::{
        asked_to_stop,
        browser::Browser,
        cluster::{Cluster, execution},
        monitor::{Launch, Monitor},
        until,
    },
    stack::Endpoints,
};

const APP: &str = "executor";
const NAMESPACE: &str = "executions";
const REPLICAS: usize = 3;
const LIMIT: Duration = Duration::from_secs(90);
/// Ends that the page shows before it is taken.
const ENDS_MIN: u64 = 8;
const STOP_MAX: Duration = Duration::from_secs(20);
/// Of the pictures, in CSS pixels.
const SIZE: (u32, u32) = (1000, 1240);

/// What is shown, and where the pictures go.
#[derive(Debug)]
pub struct Screenshot {
    /// The monitor.
    pub program: PathBuf,
    /// Directory of `status-page.png` and `status-page-dark.png`.
    pub to: PathBuf,
}

struct Crew {
    launches: Vec<Launch>,
    running: Vec<Option<Monitor>>,
}

impl Screenshot {
    /// Takes both pictures.
    ///
    /// # Errors
    /// When the stack, a monitor or the browser does not do its part, or when interrupted.
    pub async fn take(&self, endpoints: &Endpoints) -> Result<()> {
        tokio::select! {
            taken = self.taken(endpoints) => taken,
            signal = asked_to_stop() => anyhow::bail!("{}", signal?),
        }
    }

    async fn taken(&self, endpoints: &Endpoints) -> Result<()> {
        let cluster = Cluster::connect(endpoints, NAMESPACE).await?;
        cluster.ready_for_pods().await?;
        let mut crew = Crew::start(&self.program, endpoints).await?;
        let samples = samples();
        for (name, pod) in &samples {
            cluster.create(pod.clone()).await.with_context(|| format!("create {name}"))?;
        }
        // In the middle of them.
        crew.until("half of them have ended", |crew| crew.ended() * 2 >= samples.len() as u64).await?;
        let killed = crew.to_kill()?;
        crew.running[killed].take().context("it runs")?.kill()?;
        crew.until("the others lead all shards", |crew| crew.even()).await?;
        crew.running[killed].insert(crew.launches[killed].start()?).ready(LIMIT).await?;
        crew.until("the shards are shared again", |crew| crew.even()).await?;
        crew.until("a page has enough to show", |crew| crew.shown().is_ok()).await?;
        self.picture(&crew.page()?, endpoints)?;
        for monitor in crew.running.into_iter().flatten() {
            monitor.stop(STOP_MAX).await?;
        }
        cluster.remove_namespace().await
    }

    fn picture(&self, address: &str, endpoints: &Endpoints) -> Result<()> {
        let mut browser = Browser::start(&endpoints.run_dir)?;
        for (scheme, name) in [("light", "status-page.png"), ("dark", "status-page-dark.png")] {
            browser.look(SIZE.0, SIZE.1, scheme)?;
            browser.goto(address)?;
            // The newest hand-over, opened as whoever is on call would.
            browser.evaluate("document.querySelector('#hand-overs details').open = true")?;
            let path = self.to.join(name);
            browser.screenshot(&path)?;
            smaller(&path)?;
        }
        let complaints = browser.complaints();
        ensure!(complaints.is_empty(), "{complaints:#?}");
        Ok(())
    }
}

impl Crew {
    async fn start(program: &Path, endpoints: &Endpoints) -> Result<Self> {
        let mut crew = Self { launches: Vec::new(), running: Vec::new() };
        for index in 0..REPLICAS {
            let launch = Launch::new(program, endpoints, NAMESPACE, APP).set("--shards", &REPLICAS.to_string());
            let mut launch =
                launch.set("--events-topic", "pod-monitor.events").set("--changelog-topic", "pod-monitor.changelog");
            launch = launch.variable("POD_NAME", &format!("pod-monitor-{index}")).relocated()?;
            launch.log = launch.log.with_file_name(format!("monitor-{index}.log"));
            crew.running.push(Some(launch.start()?));
            crew.launches.push(launch);
        }
        for monitor in crew.running.iter_mut().flatten() {
            monitor.ready(LIMIT).await?;
        }
        crew.until("the shards are shared", |crew| crew.even()).await?;
        Ok(crew)
    }

    async fn until(&self, what: &str, mut seen: impl FnMut(&Self) -> bool) -> Result<()> {
        until(LIMIT, what, async || Ok(seen(self).then_some(()))).await
    }

    /// What each replica that runs says of itself.
    fn statuses(&self) -> Vec<(usize, Value)> {
        let running = self.running.iter().enumerate().filter_map(|(index, one)| Some((index, one.as_ref()?)));
        let read = |monitor: &Monitor| serde_json::from_str(&monitor.get("/api/status").ok()?.1).ok();
        running.filter_map(|(index, monitor)| Some((index, read(monitor)?))).collect()
    }

    /// Whether each shard is live at one of those that run, fairly.
    fn even(&self) -> bool {
        let led: Vec<usize> = self.statuses().iter().map(|(_, status)| live(status)).collect();
        let share = REPLICAS.div_ceil(led.len().max(1));
        led.iter().sum::<usize>() == REPLICAS && led.iter().all(|led| *led <= share)
    }

    /// Executions that ended, as those that run told.
    fn ended(&self) -> u64 {
        self.statuses().iter().map(|(_, status)| ends(status)).sum()
    }

    /// The replica that leads and told the fewest ends: the others have more to show.
    fn to_kill(&self) -> Result<usize> {
        let statuses = self.statuses();
        let leads = statuses.iter().filter(|(_, status)| live(status) > 0);
        leads.min_by_key(|(_, status)| ends(status)).map(|(index, _)| *index).context("one leads")
    }

    /// One that took over from the dead, and has ends of several kinds to show.
    fn shown(&self) -> Result<usize> {
        let statuses = self.statuses();
        let took_over = |status: &Value| status["shards"].to_string().contains("\"dead\"");
        let varied = |status: &Value| status["ends"]["failed"].as_u64() >= Some(1) && ends(status) >= ENDS_MIN;
        let found = statuses.iter().find(|(_, status)| took_over(status) && varied(status) && status["ready"] == true);
        found.map(|(index, _)| *index).context("one took over and has told enough")
    }

    fn page(&self) -> Result<String> {
        Ok(format!("http://{}/", self.launches[self.shown()?].address))
    }
}

/// In 256 colours: a third of the bytes, and nobody sees it.
fn smaller(path: &Path) -> Result<()> {
    let mut command = Command::new("pngquant");
    let status = command.args(["--force", "--strip", "--output"]).arg(path).arg("256").arg(path).status();
    ensure!(status.context("run pngquant")?.success(), "pngquant does not take {}", path.display());
    Ok(())
}

fn live(status: &Value) -> usize {
    let shards = status["shards"].as_array().map(Vec::as_slice).unwrap_or_default();
    shards.iter().filter(|shard| shard["role"] == "live").count()
}

fn ends(status: &Value) -> u64 {
    ["completed", "failed", "timeout"].iter().filter_map(|kind| status["ends"][*kind].as_u64()).sum()
}

/// Executions that end in different ways, several of each: every shard has its share.
fn samples() -> Vec<(String, Value)> {
    let mut samples = Vec::new();
    let kinds: [(&str, &str, Value); 4] = [
        ("report", "sleep 2; echo done", json!({})),
        ("import", "sleep 1; echo no input >&2; exit 3", json!({})),
        ("render", "sleep 60", json!({ "activeDeadlineSeconds": 4 })),
        ("train", "tail /dev/zero", json!({})),
    ];
    for number in 1..=6 {
        for (kind, script, spec) in &kinds {
            let id = format!("{kind}-{number}");
            let mut pod = execution(APP, &id, script);
            for (key, value) in spec.as_object().into_iter().flatten() {
                pod["spec"][key] = value.clone();
            }
            if *kind == "train" {
                pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "16Mi" } });
            }
            samples.push((id, pod));
        }
    }
    samples
}

//! Plays cases on a real stack and keeps what the API server's watch sends meanwhile.

use std::{
    io::Write,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::{AsyncBufReadExt, TryStreamExt};
use http::Request;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{Case, Header, Line, Needs, Recording, Step, matches};
use crate::clients::{cluster::Cluster, until};
use crate::stack::{Component, Endpoints, Node, Signal, Stack};

/// Longest wait of one step: an eviction for full disks takes a minute, garbage collection of orphans longer.
const STEP_MAX: Duration = Duration::from_secs(180);
/// Cases that are played at the same time.
const AT_ONCE: usize = 4;
/// Controllers beyond those of the usual stack, and a node that is given up sooner.
const CONTROLLERS: [&str; 2] = ["--controllers=*", "--node-monitor-grace-period=20s"];

/// Plays these cases and writes their recordings below `root`. The second node is made when a case needs it, and taken
/// away afterwards.
///
/// # Errors
/// When a case cannot be played; the others are played all the same.
pub async fn record(stack: &Stack, root: &Path, cases: Vec<Case>) -> Result<()> {
    if cases.iter().any(|case| case.needs != Needs::OneNode) {
        stack.restart_with(Component::KubeControllerManager, &CONTROLLERS)?;
    }
    let (usual, further): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(|case| case.needs == Needs::OneNode);
    let mut failures = Vec::new();
    let mut usual = usual.into_iter();
    loop {
        let batch: Vec<Case> = usual.by_ref().take(AT_ONCE).collect();
        if batch.is_empty() {
            break;
        }
        let played = futures::future::join_all(batch.iter().map(|case| one(stack, root, case, None)));
        failures.extend(played.await.into_iter().filter_map(Result::err));
    }
    if !further.is_empty() {
        failures.extend(on_second_node(stack, root, further).await?);
    }
    for failure in &failures {
        eprintln!("{failure:#}");
    }
    ensure!(failures.is_empty(), "{} cases could not be recorded", failures.len());
    Ok(())
}

/// Plays a case without recording it, its pods labelled `app=<app>`, in a namespace of its own. Gives their UIDs, in the
/// order of its stories.
///
/// # Errors
/// When it cannot be played.
pub async fn live(endpoints: &Endpoints, case: &Case, app: &str) -> Result<Vec<String>> {
    ensure!(case.needs == Needs::OneNode, "{} needs a node of its own", case.name);
    let case = case.clone().labelled(app);
    let player = Player::new(endpoints, case.name, None).await?;
    player.play(&case).await.with_context(|| format!("case {}", case.name))?;
    player.finish(&case).await?;
    player.cluster.remove_namespace().await?;
    let recording = player.recording(&case, endpoints).await?;
    Ok(recording.pods().into_iter().map(str::to_owned).collect())
}

async fn on_second_node(stack: &Stack, root: &Path, cases: Vec<Case>) -> Result<Vec<anyhow::Error>> {
    let node = stack.add_node()?;
    let mut failures = Vec::new();
    let (doomed, disturbed): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(|c| c.needs == Needs::DoomedNode);
    for case in &disturbed {
        failures.extend(one(stack, root, case, Some(&node)).await.err());
    }
    // All in the same fall of the node.
    let played = futures::future::join_all(doomed.iter().map(|case| one(stack, root, case, Some(&node))));
    failures.extend(played.await.into_iter().filter_map(Result::err));
    failures.extend(node.remove().context("remove the second node").err());
    Ok(failures)
}

async fn one(stack: &Stack, root: &Path, case: &Case, node: Option<&Node>) -> Result<()> {
    let player = Player::new(stack.endpoints(), case.name, node).await?;
    let played = player.play(case).await.with_context(|| {
        let seen = player.lines();
        let last = seen.last().map(|line| line.object["status"].to_string()).unwrap_or_default();
        format!("case {}; {} states seen, the last one: {last}", case.name, seen.len())
    });
    let played = match played {
        Ok(()) => player.finish(case).await,
        Err(error) => Err(error),
    };
    player.cluster.remove_namespace().await?;
    let recording = player.recording(case, stack.endpoints()).await?;
    if played.is_ok() {
        recording.write(root)?;
        println!("{:<36} {} states of {} pods", case.name, recording.lines.len(), recording.pods().len());
    }
    played
}

struct Player<'a> {
    cluster: Cluster,
    endpoints: &'a Endpoints,
    node: Option<&'a Node>,
    lines: Arc<Mutex<Vec<Line>>>,
    watch: tokio::task::JoinHandle<()>,
}

impl Drop for Player<'_> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl<'a> Player<'a> {
    async fn new(endpoints: &'a Endpoints, case: &str, node: Option<&'a Node>) -> Result<Self> {
        // A namespace takes a while to go: one of its own for each time.
        let namespace = format!("rec-{case}-{:x}", Timestamp::now().as_millisecond());
        let cluster = Cluster::connect(endpoints, &namespace).await?;
        cluster.ready_for_pods().await?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let path = format!("/api/v1/namespaces/{namespace}/pods?watch=1&timeoutSeconds=3600");
        let stream = cluster.client().request_stream(Request::get(path).body(Vec::new())?).await?;
        let (kept, run) = (Arc::clone(&lines), endpoints.run_dir.display().to_string());
        let watch = tokio::spawn(async move {
            let mut stream = stream.lines();
            while let Ok(Some(text)) = stream.try_next().await {
                // What the machine calls its directories is nobody's news.
                let text = text.replace(&run, "/run/stack");
                if let Some(line) = line(&text) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
        });
        Ok(Self { cluster, endpoints, node, lines, watch })
    }

    fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn play(&self, case: &Case) -> Result<()> {
        for step in &case.steps {
            self.step(step).await.with_context(|| format!("{step:?}").chars().take(300).collect::<String>())?;
        }
        Ok(())
    }

    async fn step(&self, step: &Step) -> Result<()> {
        match step {
            Step::Make(object) => self.kubectl(&["create", "-f", "-"], Some(object)).await,
            Step::Kubectl(arguments, input) => self.kubectl(arguments, input.as_ref()).await,
            Step::Until { pod, path, one_of } => {
                let found = |line: &Line| line.name().starts_with(pod) && matches(&line.object, path, one_of);
                let look = async || Ok(self.lines().iter().any(found).then_some(()));
                until(STEP_MAX, &format!("{path} of {pod} is one of {one_of:?}"), look).await
            }
            Step::Kubelet { runs } => {
                let node = self.node.context("the case has no second node")?;
                node.signal(Component::Kubelet, if *runs { Signal::CONT } else { Signal::STOP })
            }
            Step::AllGone => until(STEP_MAX, "all pods are gone", async || Ok(self.all_gone().then_some(()))).await,
        }
    }

    fn all_gone(&self) -> bool {
        let lines = self.lines();
        let gone = |line: &Line| lines.iter().any(|other| other.uid() == line.uid() && other.kind == "DELETED");
        !lines.is_empty() && lines.iter().all(gone)
    }

    /// Deletes what is left, and waits until its going was seen.
    async fn finish(&self, case: &Case) -> Result<()> {
        self.kubectl(&["delete", "jobs,pods", "--all", "--wait=false"], None).await?;
        self.step(&Step::AllGone).await.with_context(|| format!("end of case {}", case.name))
    }

    async fn recording(&self, case: &Case, endpoints: &Endpoints) -> Result<Recording> {
        let version = self.cluster.client().apiserver_version().await?.git_version;
        ensure!(!self.watch.is_finished(), "the watch of {} ended early", case.name);
        let header = Header { case: case.name.into(), kubernetes: version, does: case.does.into() };
        let lines = self.lines();
        let cache = endpoints.run_dir.ancestors().nth(2).unwrap_or(&endpoints.run_dir).display().to_string();
        for line in &lines {
            ensure!(!line.object.to_string().contains(&cache), "{} names a path of this machine", case.name);
        }
        Ok(Recording { header, lines })
    }

    async fn kubectl(&self, arguments: &[&str], input: Option<&Value>) -> Result<()> {
        let mut command = self.endpoints.kubectl();
        let namespace = self.cluster.namespace().to_owned();
        command.arg("--namespace").arg(&namespace);
        command.args(arguments.iter().map(|argument| argument.replace("{namespace}", &namespace)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.map(Value::to_string).unwrap_or_default();
        let run = move || -> Result<std::process::Output> {
            let mut child = command.spawn()?;
            child.stdin.take().context("kubectl's input is a pipe")?.write_all(input.as_bytes())?;
            Ok(child.wait_with_output()?)
        };
        let output = tokio::task::spawn_blocking(run).await.context("run kubectl")??;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// A line of the watch, less what no reader needs.
fn line(text: &str) -> Option<Line> {
    let mut event: Value = serde_json::from_str(text).ok()?;
    let mut object = event["object"].take();
    object["metadata"].as_object_mut()?.remove("managedFields");
    Some(Line { at: Timestamp::now().to_string(), kind: event["type"].as_str()?.to_owned(), object })
}

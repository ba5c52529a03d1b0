//! What the suites against the real stack share: a bench per test with names of its own, pods whose status the test
//! writes, and the reading of log lines. Uses nothing of the monitor's code.
#![allow(clippy::unwrap_used, dead_code, reason = "tests; no suite uses all of it")]

pub(crate) mod changelog;
pub(crate) mod proxy;
pub(crate) mod status;
pub(crate) mod tamper;

use std::{io::Write, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::{
    clients::{
        checker::{self, Truth},
        cluster::{Cluster, execution},
        history::{History, Record},
        monitor::{Launch, Monitor},
        until,
    },
    stack::Endpoints,
};

/// Longest wait for anything. Above the default `--capture-deadline`: of output that does not come, the end says so.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How long to listen for events that must not come, after one has come that was told after them.
const SILENCE: Duration = Duration::from_millis(300);

/// One test's place: a namespace, a label, topics and an installation of its own.
pub(crate) struct Bench {
    /// The stack.
    pub(crate) endpoints: Endpoints,
    /// Its Kubernetes.
    pub(crate) cluster: Cluster,
    /// Value of the label `app`; also the prefix of the topics, and the installation's name.
    pub(crate) app: String,
    /// How its monitor is started.
    pub(crate) launch: Launch,
}

/// A name that no other test and no other run has.
pub(crate) fn unique(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

impl Bench {
    /// A place on the stack that the environment names; without one the test fails.
    pub(crate) async fn new(test: &str) -> Result<Self> {
        Self::on(Endpoints::from_env()?, test).await
    }

    /// A place on this stack.
    pub(crate) async fn on(endpoints: Endpoints, test: &str) -> Result<Self> {
        let app = unique(test);
        let cluster = Cluster::connect(&endpoints, &app).await?;
        let program = Path::new(env!("CARGO_BIN_EXE_pod-monitor"));
        let launch = Launch::new(program, &endpoints, &app, &app).with(&["--capture-deadline", "2s"]);
        Ok(Self { endpoints, cluster, app, launch })
    }

    /// The monitor, ready and leading.
    pub(crate) async fn monitor(&self, arguments: &[&str]) -> Result<Monitor> {
        let mut monitor = self.launch.clone().with(arguments).start()?;
        monitor.leading(LIMIT).await?;
        Ok(monitor)
    }

    /// The events; the monitor must have made the topic.
    pub(crate) fn history(&self) -> Result<History> {
        History::open(&self.endpoints.kafka, &[&format!("{}.events", self.app)])
    }

    /// A pod that no scheduler takes, ready to be bound by hand; gives its UID.
    pub(crate) async fn unscheduled(&self, id: &str) -> Result<String> {
        self.cluster.create(status::unscheduled(&self.app, id)).await
    }

    /// A pod that runs on a node that does not exist; gives its UID.
    pub(crate) async fn running(&self, id: &str) -> Result<String> {
        self.running_on(status::NODE, id).await
    }

    async fn running_on(&self, node: &str, id: &str) -> Result<String> {
        let mut pod = execution(&self.app, id, "true");
        pod["spec"]["nodeName"] = node.into();
        let uid = self.cluster.create(pod).await?;
        self.cluster.patch_status(&format!("exec-{id}"), status::running()).await?;
        Ok(uid)
    }

    /// A node that exists and where nothing runs. Pods of one that does not exist are taken away by a controller, some
    /// 40 s after it has seen the first of them: too soon for tests that last longer.
    pub(crate) fn empty_node(&self) -> Result<()> {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": self.app },
            "spec": { "unschedulable": true } });
        let mut kubectl = self.endpoints.kubectl().args(["apply", "-f", "-"]).stdin(Stdio::piped()).spawn()?;
        let mut input = kubectl.stdin.take().context("kubectl's input is a pipe")?;
        input.write_all(node.to_string().as_bytes())?;
        drop(input);
        ensure!(kubectl.wait()?.success(), "the node was not made");
        Ok(())
    }

    /// A pod that runs on [`Bench::empty_node`]; gives its UID.
    pub(crate) async fn running_there(&self, id: &str) -> Result<String> {
        self.running_on(&self.app, id).await
    }

    /// The execution of this id ends with an exit code.
    pub(crate) async fn end(&self, id: &str, exit_code: i32) -> Result<()> {
        self.cluster.patch_status(&format!("exec-{id}"), status::ended(exit_code)).await
    }

    /// Forces the pod of this id away.
    pub(crate) async fn delete(&self, id: &str) -> Result<()> {
        self.cluster.delete(&format!("exec-{id}"), Some(0)).await
    }

    /// Makes one more pod and waits for its first event: what the monitor had to tell before is told by then.
    pub(crate) async fn flush(&self, history: &mut History, id: &str) -> Result<Truth> {
        let uid = self.running(id).await?;
        expect(history, &uid, &["pod_scheduled", "execution_running"]).await?;
        history.read(SILENCE)?;
        Ok(Truth { uid, expected: vec!["pod_scheduled", "execution_running"] })
    }

    /// The log lines of this test's monitors.
    pub(crate) fn log(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.launch.log).context("read the monitor's log")?;
        Ok(text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| line.into())).collect())
    }

    /// Waits for a log line with this message.
    pub(crate) async fn log_line(&self, message: &str) -> Result<Value> {
        let look = async || Ok(self.log()?.into_iter().find(|line| line["message"] == message));
        until(LIMIT, &format!("a log line '{message}'"), look).await
    }

    /// How many log lines have this message.
    pub(crate) fn count(&self, message: &str) -> Result<usize> {
        Ok(self.log()?.iter().filter(|line| line["message"] == message).count())
    }

    /// Takes the test's pods and namespace away, and hands the test's result on.
    pub(crate) async fn close(self) -> Result<()> {
        for name in self.cluster.names().await? {
            self.cluster.delete(&name, Some(0)).await?;
        }
        self.cluster.remove_namespace().await
    }
}

/// Waits for exactly these events of a pod, in this order; gives them.
pub(crate) async fn expect(history: &mut History, uid: &str, types: &[&str]) -> Result<Vec<Record>> {
    let enough = |records: &[Record]| {
        let of_pod: Vec<Record> = records.iter().filter(|r| r.text("pod_uid") == uid).cloned().collect();
        (of_pod.len() >= types.len()).then_some(of_pod)
    };
    let seen = history.until(LIMIT, &format!("{types:?} of pod {uid}"), enough).await;
    let seen = seen.with_context(|| format!("told so far: {:?}", told(history, uid)))?;
    let told: Vec<&str> = seen.iter().map(Record::event_type).collect();
    let end = || seen.iter().find(|record| record.is_end()).map_or(Value::Null, |record| record.value.clone());
    ensure!(told == types, "pod {uid}: {told:?} instead of {types:?}; its end: {:#}", end());
    Ok(seen)
}

/// What has been read of a pod.
pub(crate) fn told(history: &History, uid: &str) -> Vec<String> {
    history.of_pod(uid).iter().map(|r| r.event_type().to_owned()).collect()
}

/// The checker finds nothing.
pub(crate) fn faultless(history: &History, truth: &[Truth]) -> Result<()> {
    let faults = checker::judge(truth, &history.records);
    ensure!(faults.is_empty(), "faults: {:#?}", faults.iter().map(ToString::to_string).collect::<Vec<_>>());
    Ok(())
}

/// What a pod should have told.
pub(crate) fn truth(uid: &str, expected: &[&'static str]) -> Truth {
    Truth { uid: uid.to_owned(), expected: expected.to_vec() }
}

/// Waits until `/readyz?verbose` says not ready, with all of these words; gives its text.
pub(crate) async fn unready(monitor: &Monitor, words: &[&str]) -> Result<String> {
    let mut last = String::new();
    let look = async || {
        // Not listening yet is not an answer.
        let Ok((code, body)) = monitor.get("/readyz?verbose") else { return Ok(None) };
        last.clone_from(&body);
        Ok((code == 503 && words.iter().all(|word| body.contains(word))).then_some(body))
    };
    let waited = until(LIMIT, &format!("/readyz names {words:?}"), look).await;
    waited.with_context(|| format!("last answer: {last}"))
}

/// Waits until `/readyz` is content again.
pub(crate) async fn ready(monitor: &mut Monitor) -> Result<()> {
    monitor.ready(LIMIT).await
}

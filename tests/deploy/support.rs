//! What the tests of deploy/ share: one image on the stack, and installations in namespaces of their own.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use testkit::{
    clients::{cluster::Cluster, history::History, until},
    monitor_image::{self, TEST_PROFILE},
    stack::{Endpoints, Stack},
};

/// Longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The stack of the environment, with the image on it.
pub(crate) fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| {
        let stack = Stack::from_env().unwrap();
        let built = monitor_image::build(Path::new(env!("CARGO_MANIFEST_DIR")), TEST_PROFILE).unwrap();
        eprintln!("the image: {:.1} MB in {:.0} s", built.bytes as f64 / 1e6, built.took.as_secs_f64());
        stack.load_image(&built.archive).unwrap();
        stack
    })
}

/// Runs kubectl; its standard output and standard error. Fails when it does, with both.
pub(crate) fn kubectl(endpoints: &Endpoints, arguments: &[&str]) -> Result<(String, String)> {
    let output = endpoints.kubectl().args(arguments).stdin(Stdio::null()).output().context("run kubectl")?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    anyhow::ensure!(output.status.success(), "kubectl {}: {out}{err}", arguments.join(" "));
    Ok((out, err))
}

/// What the Roles of an installation lack.
pub(crate) enum Lacking {
    Nothing,
    /// The rules of the watched namespace's Role are these instead.
    RoleIs(Value),
    /// The ClusterRole has no rules.
    ClusterId,
    /// The Role of its own namespace has no rules.
    Leases,
}

/// A monitor installed by an overlay of deploy/kustomize; taken away when dropped.
pub(crate) struct Installation {
    /// Of the monitor's namespace, of the label `app` of its pods, of its Lease and topics.
    pub(crate) name: String,
    /// The watched namespace.
    pub(crate) watched: Cluster,
    overlay: PathBuf,
}

impl Installation {
    /// Installs it. Its namespace enforces Pod Security `restricted`.
    pub(crate) async fn new(test: &str, lacking: Lacking) -> Self {
        let endpoints = stack().endpoints();
        // Of its own for each run: what an earlier one left in Kafka is not ours.
        let name = format!("deploy-{test}-{}", std::process::id());
        let overlay = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        write_overlay(&overlay, &name, endpoints, lacking).unwrap();
        let watched = Cluster::connect(endpoints, &watched(&name)).await.unwrap();
        let installed = Self { name, watched, overlay };
        let (_, said) = installed.kubectl(&["apply", "-k", &installed.overlay.display().to_string()]).unwrap();
        assert_eq!(said, "", "Pod Security and the API server admit it without a warning");
        installed.watched.ready_for_pods().await.unwrap();
        installed
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<(String, String)> {
        kubectl(stack().endpoints(), arguments)
    }

    /// Waits until the Deployment is available.
    pub(crate) fn ready(&self) {
        let timeout = format!("--timeout={}s", LIMIT.as_secs());
        let wait = ["--namespace", &self.name, "wait", "deployment/pod-monitor", "--for=condition=Available", &timeout];
        if let Err(error) = self.kubectl(&wait) {
            panic!("{error:#}\n{}", self.story());
        }
    }

    /// Waits until `/readyz?verbose` says no with all of these words.
    pub(crate) async fn not_ready(&self, words: &[&str]) {
        let mut last = String::new();
        let look = async || {
            // Refused by a pod, whose answer is then in the error, or not there yet. A standby may be ready all along.
            last = match self.readyz().await {
                Ok(ready) => ready,
                Err(error) => format!("{error:#}"),
            };
            Ok(words.iter().all(|word| last.contains(word)).then_some(()))
        };
        if let Err(error) = until(LIMIT, "readyz names what is missing", look).await {
            panic!("{error:#}; last: {last}\n{}", self.story());
        }
    }

    /// Waits until the monitor has ended with this exit code and has said so in its log.
    pub(crate) async fn ended(&self, code: i32, why: &str) {
        let path = "jsonpath={.items[*].status.containerStatuses[*]['state','lastState'].terminated.exitCode}";
        let look = async || {
            let (codes, _) = self.kubectl(&["--namespace", &self.name, "get", "pods", "--output", path])?;
            // Between two starts of the container there may be no log.
            let log = self.kubectl(&["--namespace", &self.name, "logs", "deployment/pod-monitor"]);
            let ended = codes.split_whitespace().any(|ended| ended == code.to_string());
            Ok((ended && log.is_ok_and(|(log, _)| log.contains(why))).then_some(()))
        };
        if let Err(error) = until(LIMIT, "the monitor has ended", look).await {
            panic!("{error:#}\n{}", self.story());
        }
    }

    /// Waits until another pod than `not` holds the Lease; its name.
    pub(crate) async fn leader(&self, not: &str) -> String {
        let lease = format!("{}-0", self.name);
        let path = "jsonpath={.spec.holderIdentity}";
        let look = async || {
            let get = ["--namespace", &self.name, "get", "lease", &lease, "--output", path];
            let (holder, _) = self.kubectl(&get)?;
            // Identities are the pod's name and a random part.
            let pod = holder.rsplit_once('_').map(|(pod, _)| pod.to_owned());
            Ok(pod.filter(|pod| pod != not))
        };
        match until(LIMIT, &format!("a leader other than {not:?}"), look).await {
            Ok(leader) => leader,
            Err(error) => panic!("{error:#}\n{}", self.story()),
        }
    }

    /// Deletes a pod of the monitor, without waiting for its end.
    pub(crate) fn delete(&self, pod: &str, at_once: bool) {
        let mut delete = vec!["--namespace", &self.name, "delete", "pod", pod, "--wait=false"];
        if at_once {
            delete.extend(["--grace-period=0", "--force"]);
        }
        self.kubectl(&delete).unwrap();
    }

    /// What the first of its pods says that is not ready, or else any of them.
    async fn readyz(&self) -> Result<String> {
        let names = ["--namespace", &self.name, "get", "pods", "--output", "jsonpath={.items[*].metadata.name}"];
        let (pods, _) = self.kubectl(&names)?;
        let mut ready = Err(anyhow::anyhow!("no pod yet"));
        for pod in pods.split_whitespace() {
            ready = Ok(self.readyz_of(pod).await?);
        }
        ready
    }

    async fn readyz_of(&self, pod: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{}/pods/http:{pod}:8080/proxy/readyz?verbose", self.name);
        // Not by kubectl, which keeps the body of an answer 503 to itself.
        let kubeconfig = Kubeconfig::read_from(&stack().endpoints().kubeconfig)?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // By default an answer 503, which is what we are after, is tried again for minutes.
        config.default_retry = false;
        let (client, request) = (kube::Client::try_from(config)?, http::Request::get(path).body(Vec::new())?);
        // The API server waits for minutes on a pod that has only just begun to exist.
        Ok(tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await??)
    }

    /// The events that this installation told, from the beginning. Its topics must be there: it is or was ready.
    pub(crate) fn history(&self) -> History {
        History::open(&stack().endpoints().kafka, &[&format!("{}.events", self.name)]).unwrap()
    }

    /// Deletes the pod and waits until its process has ended by itself: well before the grace period is over.
    pub(crate) fn stop(&self, limit: Duration) {
        let timeout = format!("--timeout={}s", limit.as_secs());
        let scale = ["--namespace", &self.name, "scale", "deployment/pod-monitor", "--replicas=0"];
        self.kubectl(&scale).unwrap();
        let wait = ["--namespace", &self.name, "wait", "pods", "--all", "--for=delete", &timeout];
        if let Err(error) = self.kubectl(&wait) {
            panic!("{error:#}\n{}", self.story());
        }
    }

    /// What there is to know after a failure.
    fn story(&self) -> String {
        let mut story = String::new();
        for what in [&["describe", "pods"][..], &["get", "events"], &["logs", "deployment/pod-monitor"]] {
            let told = self.kubectl(&[&["--namespace", &self.name], what].concat());
            let text = told.map_or_else(|error| format!("{error:#}"), |(out, _)| out);
            writeln!(story, "== {}\n{text}", what.join(" ")).unwrap();
        }
        story
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let overlay = self.overlay.display().to_string();
        let taken = self.kubectl(&["delete", "--ignore-not-found", "--wait=false", "-k", &overlay]);
        let watched = watched(&self.name);
        let emptied = self.kubectl(&["delete", "namespace", "--ignore-not-found", "--wait=false", &watched]);
        if let Err(error) = taken.and(emptied).and_then(|_| Ok(fs::remove_dir_all(&self.overlay)?)) {
            eprintln!("{}: not taken away: {error:#}", self.name);
        }
    }
}

pub(crate) fn watched(name: &str) -> String {
    format!("{name}-watched")
}

/// A namespace that admits only pods of Pod Security `restricted`, and says what it would not.
pub(crate) fn restricted_namespace(name: &str) -> Value {
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
        "pod-security.kubernetes.io/audit": "restricted",
    });
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

/// An overlay in the shape of overlays/example. JSON is YAML, too.
fn write_overlay(dir: &Path, name: &str, endpoints: &Endpoints, lacking: Lacking) -> Result<()> {
    fs::create_dir_all(dir.join("monitor"))?;
    fs::create_dir_all(dir.join("watched"))?;
    let write = |file: &str, value: Value| fs::write(dir.join(file), value.to_string());
    write("namespace.yaml", restricted_namespace(name))?;
    write("kustomization.yaml", json!({ "resources": ["namespace.yaml", "monitor", "watched"] }))?;
    let bases = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize");
    // Of the whole cluster, so their names must be this test's own.
    let role = format!("pod-monitor-cluster-id-{name}");
    let rename = json!([{ "op": "replace", "path": "/metadata/name", "value": role }]).to_string();
    let renamed =
        json!({ "target": { "kind": "ClusterRole.*" }, "options": { "allowNameChange": true }, "patch": rename });
    let mut cluster_patches = vec![renamed];
    if matches!(lacking, Lacking::ClusterId) {
        let patch = json!([{ "op": "replace", "path": "/rules", "value": [] }]);
        cluster_patches.push(json!({ "target": { "kind": "ClusterRole" }, "patch": patch.to_string() }));
    }
    if matches!(lacking, Lacking::Leases) {
        let patch = json!([{ "op": "replace", "path": "/rules", "value": [] }]);
        cluster_patches.push(json!({ "target": { "kind": "Role" }, "patch": patch.to_string() }));
    }
    write(
        "monitor/kustomization.yaml",
        json!({
            "namespace": name,
            "resources": [relative(&dir.join("monitor"), &bases.join("base"))?],
            "configMapGenerator": [{ "name": "pod-monitor", "behavior": "replace", "files": ["config.yaml"] }],
            "patches": cluster_patches,
        }),
    )?;
    write(
        "monitor/config.yaml",
        json!({
            "selector": format!("app={name}"), "namespace": [watched(name)], "kafka": endpoints.kafka,
            "create-topics": true, "lease-name": name,
            "events-topic": format!("{name}.events"), "changelog-topic": format!("{name}.changelog"),
        }),
    )?;
    let subject = json!([{ "op": "replace", "path": "/subjects/0/namespace", "value": name }]);
    let mut patches = vec![json!({ "target": { "kind": "RoleBinding" }, "patch": subject.to_string() })];
    if let Lacking::RoleIs(rules) = &lacking {
        let patch = json!([{ "op": "replace", "path": "/rules", "value": rules }]);
        patches.push(json!({ "target": { "kind": "Role" }, "patch": patch.to_string() }));
    }
    write(
        "watched/kustomization.yaml",
        json!({
            "namespace": watched(name),
            "resources": [relative(&dir.join("watched"), &bases.join("watched"))?],
            "patches": patches,
        }),
    )?;
    Ok(())
}

/// kustomize takes no absolute paths.
pub(crate) fn relative(from: &Path, to: &Path) -> Result<PathBuf> {
    let (from, to) = (fs::canonicalize(from)?, fs::canonicalize(to)?);
    let up: PathBuf = from.components().skip(1).map(|_| "..").collect();
    Ok(up.join(to.strip_prefix("/")?))
}

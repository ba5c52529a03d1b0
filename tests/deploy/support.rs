//! What the tests of deploy/ share: one image on the stack, and what they ask of installations of it.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::Result;
use kube::config::{KubeConfigOptions, Kubeconfig};
use testkit::{
    clients::{
        installation::{Installation, LIMIT, Plan, Rights, kubectl_blocking},
        until,
    },
    monitor_image::{self, Built},
    stack::{Endpoints, Stack},
};

/// The bases that are installed.
pub(crate) fn kustomize() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize")
}

/// The stack of the environment, with the image on it.
pub(crate) fn stack() -> &'static Stack {
    &prepared().0
}

/// The archive of the image.
pub(crate) fn image() -> &'static Path {
    &prepared().1.archive
}

fn prepared() -> &'static (Stack, Built) {
    static PREPARED: OnceLock<(Stack, Built)> = OnceLock::new();
    PREPARED.get_or_init(|| monitor_image::on_stack(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap())
}

/// The namespace `pod-monitor`, to be had by one test at a time.
pub(crate) fn pod_monitor_namespace() -> MutexGuard<'static, ()> {
    static TAKEN: Mutex<()> = Mutex::new(());
    // Whoever is next makes what it needs, and takes all of it away.
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs kubectl; its standard output and standard error. Fails when it does, with both.
pub(crate) fn kubectl(endpoints: &Endpoints, arguments: &[&str]) -> Result<(String, String)> {
    kubectl_blocking(endpoints, arguments).map(|said| (said.output, said.warnings))
}

/// An installation of this test's own: what an earlier run left in Kafka is not ours.
pub(crate) async fn install(test: &str, rights: Rights) -> Installation {
    let plan = Plan { rights, ..Plan::new(&format!("deploy-{test}-{}", std::process::id())) };
    Installation::install(stack().endpoints(), &kustomize(), &plan).await.unwrap()
}

/// Waits until `/readyz?verbose` of a replica says no with all of these words.
pub(crate) async fn not_ready(installed: &Installation, words: &[&str]) {
    let mut last = String::new();
    let look = async || {
        // Refused by a pod, whose answer is then in the error, or not there yet. A standby may be ready all along.
        last = match readyz(installed).await {
            Ok(ready) => ready,
            Err(error) => format!("{error:#}"),
        };
        Ok(words.iter().all(|word| last.contains(word)).then_some(()))
    };
    if let Err(error) = until(LIMIT, "readyz names what is missing", look).await {
        panic!("{error:#}; last: {last}\n{}", installed.story().await);
    }
}

/// Waits until a replica has ended with this exit code and has said so in its log.
pub(crate) async fn ended(installed: &Installation, code: i32, why: &str) {
    let path = "jsonpath={.items[*].status.containerStatuses[*]['state','lastState'].terminated.exitCode}";
    let look = async || {
        let codes = installed.kubectl(&["get", "pods", "--output", path]).await?;
        // Between two starts of the container there may be no log.
        let log = installed.kubectl(&["logs", "deployment/pod-monitor"]).await;
        let ended = codes.split_whitespace().any(|ended| ended == code.to_string());
        Ok((ended && log.is_ok_and(|log| log.contains(why))).then_some(()))
    };
    if let Err(error) = until(LIMIT, "the monitor has ended", look).await {
        panic!("{error:#}\n{}", installed.story().await);
    }
}

/// What the first of its pods says that is not ready, or else any of them.
async fn readyz(installed: &Installation) -> Result<String> {
    let mut ready = Err(anyhow::anyhow!("no pod yet"));
    for replica in installed.replicas().await? {
        ready = Ok(readyz_of(&installed.name, &replica.name).await?);
    }
    ready
}

async fn readyz_of(namespace: &str, pod: &str) -> Result<String> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/http:{pod}:8080/proxy/readyz?verbose");
    // Not by kubectl, which keeps the body of an answer 503 to itself.
    let kubeconfig = Kubeconfig::read_from(&stack().endpoints().kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // By default an answer 503, which is what we are after, is tried again for minutes.
    config.default_retry = false;
    let (client, request) = (kube::Client::try_from(config)?, http::Request::get(path).body(Vec::new())?);
    // The API server waits for minutes on a pod that has only just begun to exist.
    Ok(tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await??)
}

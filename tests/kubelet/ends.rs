//! How executions end: exit codes, limits, deadlines, init containers, sidecars.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    COMPLETED, FAILED, Watched,
    support::{expect, faultless, truth},
};

#[tokio::test]
async fn exit_codes_and_limits_become_verdicts() -> Result<()> {
    let mut w = Watched::new("ends", &[]).await?;
    let three = w.script("three", "echo out; echo err >&2; exit 3").await?;
    // Kubernetes makes one $ of two; the first process of a container would be spared.
    let signal = w.script("signal", "sh -c 'kill -SEGV $$$$'; exit $?").await?;
    // The shell's own memory: a variable that doubles until the limit is met.
    let greedy = "x=0123456789abcdef; while true; do x=$x$x; done";
    let oom = w
        .pod("oom", greedy, |pod| pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "16Mi" } }))
        .await?;
    let deadline = w.pod("deadline", "sleep 600", |_| {}).await?;

    let end = w.end(&three).await?.value;
    ensure!(end["event_type"] == "execution_failed" && end["exit_code"] == 3, "{end}");
    ensure!(end["error_type"] == "script_error" && end["cause"] == "exit_code", "{end}");
    ensure!(end["stdout"] == "out\n" && end["stderr"] == "err\n" && end["logs"]["status"] == "complete", "{end}");

    let end = w.end(&signal).await?.value;
    ensure!(end["exit_code"] == 139 && end["cause"] == "signal" && end["error_type"] == "script_error", "{end}");

    let end = w.end(&oom).await?.value;
    ensure!(end["event_type"] == "execution_failed" && end["cause"] == "oom_killed", "{end}");
    ensure!(end["error_type"] == "resource_limit" && end["exit_code"] == 137, "{end}");

    // Once it runs: on a busy node a container may start later than that.
    expect(&mut w.history, &deadline, &FAILED[..2]).await?;
    w.bench.cluster.patch("exec-deadline", json!({ "spec": { "activeDeadlineSeconds": 2 } })).await?;
    let end = w.end(&deadline).await?.value;
    ensure!(end["event_type"] == "execution_timeout" && end["cause"] == "deadline", "{end}");
    ensure!(end["error_type"] == "timeout" && end["timeout_seconds"] == 2, "{end}");
    let timed_out = ["pod_scheduled", "execution_running", "execution_timeout"];
    faultless(
        &w.history,
        &[truth(&three, &FAILED), truth(&signal, &FAILED), truth(&oom, &FAILED), truth(&deadline, &timed_out)],
    )?;
    w.close().await
}

fn add(pod: &mut Value, container: Value) {
    pod["spec"]["containers"].as_array_mut().unwrap().push(container);
}

#[tokio::test]
async fn pods_of_several_containers_end_by_their_main_one() -> Result<()> {
    let mut w = Watched::new("several", &[]).await?;
    let container = |name: &str, script: &str| {
        json!({ "name": name, "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", script] })
    };
    let init = w.pod("init", "echo never", |pod| {
        pod["spec"]["initContainers"] = json!([container("prepare", "echo no disk; exit 7")])
    });
    let init = init.await?;
    // A native sidecar that does not mind SIGTERM: the pod stays Running for its whole grace.
    let stubborn = "trap '' TERM; while true; do sleep 1; done";
    let sidecar = w.pod("sidecar", "echo done", |pod| {
        let mut sidecar = container("helper", stubborn);
        sidecar["restartPolicy"] = "Always".into();
        pod["spec"]["initContainers"] = json!([sidecar]);
        pod["spec"]["terminationGracePeriodSeconds"] = 20.into();
    });
    let sidecar = sidecar.await?;
    let two = w.pod("two", "echo main; exit 0", |pod| {
        add(pod, container("second", "echo second; exit 5"));
    });
    let two = two.await?;
    let annotated = w.pod("annotated", "echo first; sleep 600", |pod| {
        pod["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/default-container": "second" });
        add(pod, container("second", "echo second; exit 5"));
    });
    let annotated = annotated.await?;

    let end = w.end(&init).await?.value;
    ensure!(end["event_type"] == "execution_failed" && end["cause"] == "init", "{end}");
    ensure!(end["attempt_started"] == false && end.get("exit_code").is_none(), "{end}");
    // What it printed says why; the main container printed nothing.
    ensure!(end["stdout"] == "no disk\n" && end["logs"]["container"] == "prepare", "{end}");
    ensure!(end["containers"][0]["name"] == "prepare" && end["containers"][0]["exit_code"] == 7, "{end}");
    expect(&mut w.history, &init, &["pod_scheduled", "execution_failed"]).await?;

    let end = w.end(&sidecar).await?.value;
    ensure!(end["event_type"] == "execution_completed" && end["stdout"] == "done\n", "{end}");
    let pod = w.bench.cluster.pod("exec-sidecar").await?.unwrap_or_default();
    ensure!(pod["status"]["phase"] == "Running", "the sidecar was to outlive it: {}", pod["status"]);

    let end = w.end(&two).await?.value;
    ensure!(end["event_type"] == "execution_completed" && end["stdout"] == "main\n", "{end}");

    // Its main container failed while another one runs: told after the settle grace.
    let end = w.end(&annotated).await?.value;
    ensure!(end["exit_code"] == 5 && end["stdout"] == "second\n" && end["cause"] == "exit_code", "{end}");
    let truths = [
        truth(&init, &["pod_scheduled", "execution_failed"]),
        truth(&sidecar, &COMPLETED),
        truth(&two, &COMPLETED),
        truth(&annotated, &FAILED),
    ];
    faultless(&w.history, &truths)?;
    w.close().await
}

#[tokio::test]
async fn a_pod_that_never_starts_says_why() -> Result<()> {
    let mut w = Watched::new("unstarted", &[]).await?;
    let image = w
        .pod("image", "true", |pod| {
            pod["spec"]["containers"][0]["image"] = "localhost/no-such-image:1".into();
            pod["spec"]["containers"][0]["imagePullPolicy"] = "Never".into();
        })
        .await?;
    let command =
        w.pod("command", "true", |pod| pod["spec"]["containers"][0]["command"] = json!(["/no/such/program"])).await?;
    let end = w.end(&command).await?.value;
    ensure!(end["event_type"] == "execution_failed" && end["cause"] == "config", "{end}");
    ensure!(end["attempt_started"] == false && end.get("exit_code").is_none(), "{end}");
    ensure!(end["logs"]["status"] == "unavailable", "{end}");

    // What it waits for is remembered, and told when somebody gives up and deletes it.
    let waiting = async || {
        let pod = w.bench.cluster.pod("exec-image").await?.unwrap_or_default();
        let reason = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
        Ok((reason == "ErrImageNeverPull").then_some(()))
    };
    testkit::clients::until(crate::support::LIMIT, "the image is missed", waiting).await?;
    w.bench.cluster.delete("exec-image", None).await?;
    let told = expect(&mut w.history, &image, &["pod_scheduled", "execution_failed", "pod_terminated"]).await?;
    let end = &told[1].value;
    ensure!(end["cause"] == "image" && end["retryable"] == false && end["attempt_started"] == false, "{end}");
    // What `kubectl describe pod` would have shown.
    let reported = end["kubernetes_events"].as_array().context("events")?;
    ensure!(reported.iter().any(|event| event["reason"] == "ErrImageNeverPull"), "{reported:#?}");
    ensure!(reported.iter().any(|event| event["reason"] == "Scheduled"), "{reported:#?}");
    ensure!(told[2].value.get("exit_code").is_none() && told[2].value["observed"] == true, "{}", told[2].value);
    w.close().await
}

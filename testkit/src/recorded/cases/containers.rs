//! Pods of several containers, and containers that start more than once.

use serde_json::{Value, json};

use super::super::{
    steps::{Case, Step, container},
    story::Story,
};

pub(super) fn all() -> Vec<Case> {
    let mut cases = before_and_beside();
    cases.extend(several());
    cases.extend(restarts());
    cases.extend(rules());
    cases
}

fn add(pod: &mut Value, more: Value) {
    pod["spec"]["containers"].as_array_mut().expect("every pod has containers").push(more);
}

fn restart_count(case: Case, at_least_once: &'static str) -> Case {
    let path = match at_least_once {
        "init" => "status.initContainerStatuses.*.restartCount",
        _ => "status.containerStatuses.*.restartCount",
    };
    case.step(Step::Until { pod: "exec-", path, one_of: vec![json!(1)] })
}

fn before_and_beside() -> Vec<Case> {
    let init = |pod: &mut Value| pod["spec"]["initContainers"] = json!([container("prepare", "exit 7")]);
    let sidecar = |script: &'static str| {
        move |pod: &mut Value| {
            let mut sidecar = container("proxy", script);
            sidecar["restartPolicy"] = "Always".into();
            pod["spec"]["initContainers"] = json!([sidecar]);
            pod["spec"]["terminationGracePeriodSeconds"] = 3.into();
        }
    };
    let stubborn = "trap '' TERM; while true; do sleep 1; done";
    let init_story = || Story::never_ran("init", false).says("prepare");
    let retried = Case::of("init-retried", "its init container fails again and again; deleted", "true", |pod| {
        init(pod);
        pod["spec"]["restartPolicy"] = "OnFailure".into();
    });
    vec![
        Case::of("init-failed", "its init container fails", "true", init).phase("Failed").tells(init_story()),
        restart_count(retried, "init").tells(init_story()),
        Case::of(
            "sidecar-killed",
            "ends with 0; its sidecar minds no SIGTERM and is killed",
            "exit 0",
            sidecar(stubborn),
        )
        .phase("Succeeded")
        .tells(Story::completed()),
        Case::of("sidecar-outlives", "fails while its sidecar goes on until it is killed", "exit 4", sidecar(stubborn))
            .phase("Failed")
            .tells(Story::failed(4, "exit_code", "script_error")),
        restart_count(
            Case::of(
                "sidecar-restarts",
                "runs while its sidecar fails and is started again",
                "sleep 4",
                sidecar("sleep 1; exit 1"),
            ),
            "init",
        )
        .phase("Succeeded")
        .tells(Story::completed()),
        Case::of("sidecar-failed-start", "its sidecar's program is not there; deleted", "exit 0", |pod| {
            let mut sidecar = container("proxy", "");
            sidecar["command"] = json!(["/does/not/exist"]);
            sidecar["restartPolicy"] = "Always".into();
            pod["spec"]["initContainers"] = json!([sidecar]);
        })
        .until("exec-", "status.initContainerStatuses.*.lastState.terminated.reason", &["StartError"])
        .tells(Story::never_ran("config", false).says("proxy")),
    ]
}

fn several() -> Vec<Case> {
    let memory = json!({ "limits": { "memory": "32Mi" } });
    let second = |script: &'static str| move |pod: &mut Value| add(pod, container("second", script));
    let debugger = json!({ "spec": { "ephemeralContainers": [{ "name": "debug", "image": "localhost/busybox:1",
        "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", "exit 137"] }] } });
    let debug = ["patch", "pod", "exec-debugged", "--subresource=ephemeralcontainers", "--patch-file=/dev/stdin"];
    vec![
        Case::of("second-fails", "ends with 0, its second container with 5", "exit 0", second("exit 5"))
            .phase("Failed")
            .tells(Story::completed()),
        Case::of(
            "second-runs-on",
            "ends with 0 while its second container runs on; deleted",
            "exit 0",
            second("exec sleep 600"),
        )
        .until("exec-", "status.containerStatuses.*.state.terminated.exitCode", &[])
        .tells(Story::completed()),
        Case::of("second-oom", "fails after its second container took too much memory", "sleep 2; exit 3", |pod| {
            let mut greedy = container("second", "exec tail /dev/zero");
            greedy["resources"] = memory;
            add(pod, greedy);
        })
        .phase("Failed")
        .tells(Story::failed(3, "exit_code", "script_error")),
        Case::of(
            "default-container",
            "an annotation names its second container, which fails",
            "exec sleep 600",
            |pod| {
                pod["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/default-container": "second" });
                second("sleep 1; exit 6")(pod);
            },
        )
        .until("exec-", "status.containerStatuses.*.state.terminated.exitCode", &[])
        .tells(Story::failed(6, "exit_code", "script_error")),
        Case::of("debugged", "fails after a debugger in it was killed", "sleep 5; exit 3", |_| {})
            .phase("Running")
            .step(Step::Kubectl(debug.to_vec(), Some(debugger)))
            .phase("Failed")
            .tells(Story::failed(3, "exit_code", "script_error")),
    ]
}

/// Fails at its first attempt with this code, then ends with 0.
fn twice(code: i32) -> String {
    format!("[ -e /memory/x ] && exit 0; touch /memory/x; exit {code}")
}

fn remembers(pod: &mut Value) {
    pod["spec"]["volumes"] = json!([{ "name": "memory", "emptyDir": {} }]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "memory", "mountPath": "/memory" }]);
}

fn policy(policy: &'static str) -> impl Fn(&mut Value) {
    move |pod| {
        pod["spec"]["restartPolicy"] = policy.into();
        remembers(pod);
    }
}

fn restarts() -> Vec<Case> {
    let crashes =
        Case::of("crash-loop", "fails again and again; deleted between two attempts", "exit 1", policy("OnFailure"));
    let always = Case::of("always", "ends with 0 and is started again and again; deleted", "exit 0", policy("Always"));
    vec![
        Case::of("restarted", "fails once, is started again and ends with 0", &twice(9), policy("OnFailure"))
            .phase("Succeeded")
            .tells(Story::completed()),
        restart_count(crashes, "main").waiting("CrashLoopBackOff").tells(Story::failed(1, "exit_code", "script_error")),
        restart_count(always, "main").tells(Story::completed()),
        Case::of("crash-oom", "takes too much memory at each attempt; deleted", "exec tail /dev/zero", |pod| {
            policy("OnFailure")(pod);
            pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "32Mi" } });
        })
        .waiting("CrashLoopBackOff")
        .tells(Story::failed(137, "oom_killed", "resource_limit")),
    ]
}

fn rules() -> Vec<Case> {
    let rule = |action: &'static str| {
        move |pod: &mut Value| {
            remembers(pod);
            let main = &mut pod["spec"]["containers"][0];
            main["restartPolicy"] = "Never".into();
            main["restartPolicyRules"] =
                json!([{ "action": action, "exitCodes": { "operator": "In", "values": [42] } }]);
        }
    };
    vec![
        Case::of("container-on-failure", "its container's own policy starts it again", &twice(9), |pod| {
            remembers(pod);
            pod["spec"]["containers"][0]["restartPolicy"] = "OnFailure".into();
        })
        .phase("Succeeded")
        .tells(Story::completed()),
        Case::of("restart-rule", "a rule starts it again after exit code 42", &twice(42), rule("Restart"))
            .phase("Succeeded")
            .tells(Story::completed()),
        Case::of("restart-rule-other-code", "no rule speaks of its exit code", &twice(43), rule("Restart"))
            .phase("Failed")
            .tells(Story::failed(43, "exit_code", "script_error")),
        Case::of("restart-all", "a rule starts all containers again", &twice(42), |pod| {
            rule("RestartAllContainers")(pod);
            add(pod, container("second", "sleep 2"));
        })
        .phase("Succeeded")
        .tells(Story::completed()),
    ]
}

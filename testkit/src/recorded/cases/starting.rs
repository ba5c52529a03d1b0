//! Pods that do not get as far as their program: no node, refused, no image, no container.

use serde_json::{Value, json};

use super::super::{
    steps::{Case, Step, pod},
    story::Story,
};

pub(super) fn all() -> Vec<Case> {
    let mut cases = images();
    cases.extend(configurations());
    cases.extend(scheduling());
    cases.extend(refused());
    cases
}

fn image(image: &'static str, policy: &'static str) -> impl FnOnce(&mut Value) {
    move |pod| {
        pod["spec"]["containers"][0]["image"] = image.into();
        pod["spec"]["containers"][0]["imagePullPolicy"] = policy.into();
    }
}

fn images() -> Vec<Case> {
    let story = || Story::never_ran("image", false).last_alone("deleted", None);
    vec![
        Case::of(
            "image-pull",
            "names an image that nobody has; deleted while the kubelet tries again and again",
            "true",
            image("localhost/nobody-has-this:1", "IfNotPresent"),
        )
        .waiting("ErrImagePull")
        .waiting("ImagePullBackOff")
        .kubectl(&["delete", "pods", "--all"])
        .tells(story()),
        Case::of(
            "image-never",
            "names an image that is not there and must not be pulled; deleted",
            "true",
            image("localhost/nobody-has-this:1", "Never"),
        )
        .waiting("ErrImageNeverPull")
        .tells(story()),
        Case::of(
            "image-name",
            "names an image by an impossible name; deleted",
            "true",
            image("UPPER//CASE:1:2", "Always"),
        )
        .waiting("InvalidImageName")
        .tells(story()),
        Case::of("image-deadline", "its deadline passes while its image cannot be had", "true", |pod| {
            image("localhost/nobody-has-this:1", "IfNotPresent")(pod);
            pod["spec"]["activeDeadlineSeconds"] = 4.into();
        })
        .phase("Failed")
        .tells(Story { ran: false, exit_code: None, ..Story::failed(0, "deadline", "timeout") }.never_started()),
    ]
}

fn configurations() -> Vec<Case> {
    let command = |pod: &mut Value| pod["spec"]["containers"][0]["command"] = json!(["/does/not/exist"]);
    let missing = json!([{ "configMapRef": { "name": "nobody-made-this" } }]);
    let hook = json!({ "postStart": { "exec": { "command": ["sh", "-c", "exit 1"] } } });
    vec![
        Case::of("config-map-missing", "takes variables from a ConfigMap that is not there; deleted", "true", |pod| {
            pod["spec"]["containers"][0]["envFrom"] = missing;
        })
        .waiting("CreateContainerConfigError")
        .tells(Story::never_ran("config", false).last_alone("deleted", None)),
        Case::of("no-command", "neither it nor its image says what to run; deleted", "true", |pod| {
            pod["spec"]["containers"][0].as_object_mut().map(|container| container.remove("command"));
        })
        .waiting("CreateContainerError")
        .tells(Story::never_ran("config", false).last_alone("deleted", None)),
        Case::of("command-missing", "names a program that its image does not have", "true", command)
            .phase("Failed")
            .tells(Story::never_ran("config", false)),
        Case::of("command-missing-retried", "the same, to be restarted on failure; deleted", "true", |pod| {
            command(pod);
            pod["spec"]["restartPolicy"] = "OnFailure".into();
        })
        .until("exec-", "status.containerStatuses.*.state.waiting.reason", &["RunContainerError", "CrashLoopBackOff"])
        .step(Step::Until { pod: "exec-", path: "status.containerStatuses.*.restartCount", one_of: vec![json!(1)] })
        .tells(Story::never_ran("config", false)),
        Case::of("post-start-hook", "its postStart hook fails", "sleep 600", |pod| {
            pod["spec"]["containers"][0]["lifecycle"] = hook;
        })
        .phase("Failed")
        .tells(Story::disturbed(Some(137), "killed")),
    ]
}

fn scheduling() -> Vec<Case> {
    let nowhere = |pod: &mut Value| pod["spec"]["nodeSelector"] = json!({ "moon": "full" });
    let gate = |pod: &mut Value| pod["spec"]["schedulingGates"] = json!([{ "name": "test/quota" }]);
    let ungate = [
        "patch",
        "pod",
        "exec-gate-opened",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/spec/schedulingGates"}]"#,
    ];
    let gated = || Case::of("gate", "a scheduling gate holds it back; deleted", "true", gate);
    let reason = "status.conditions.*.reason";
    vec![
        Case::of("unschedulable", "asks for a node that there is not; deleted", "true", nowhere)
            .until("exec-", reason, &["Unschedulable"])
            .tells(Story::never_ran("unschedulable", true).unscheduled()),
        gated().until("exec-", reason, &["SchedulingGated"]).tells(Story::never_ran("deleted", true).unscheduled()),
        Case::of("gate-opened", "a scheduling gate holds it back for a while", "true", gate)
            .until("exec-", reason, &["SchedulingGated"])
            .kubectl(&ungate)
            .phase("Succeeded")
            .tells(Story::completed()),
    ]
}

fn refused() -> Vec<Case> {
    let bound = |pod: &mut Value| pod["spec"]["nodeName"] = "node-1".into();
    let wants = |name, does, resource: &str, amount: &str| {
        let requests = json!({ "requests": { resource: amount } });
        Case::of(name, does, "true", |pod| {
            bound(pod);
            pod["spec"]["containers"][0]["resources"] = requests;
        })
        .phase("Failed")
    };
    let story = |says| Story::never_ran("admission", true).says(says);
    vec![
        wants("refused-cpu", "bound to a node that has not as many processors", "cpu", "1000").tells(story("cpu")),
        wants("refused-memory", "bound to a node that has not as much memory", "memory", "100Ti")
            .tells(story("memory")),
        wants("refused-storage", "bound to a node that has not as much disk", "ephemeral-storage", "100Ti")
            .tells(story("ephemeral-storage")),
        Case::of("refused-affinity", "bound to a node that it does not select", "true", |pod| {
            bound(pod);
            pod["spec"]["nodeSelector"] = json!({ "moon": "full" });
        })
        .phase("Failed")
        .tells(story("affinity")),
        Case::new("refused-os", "bound to a node of another operating system")
            .make({
                let mut pod = pod("refused-os", "true");
                bound(&mut pod);
                pod["spec"]["os"] = json!({ "name": "windows" });
                pod
            })
            .phase("Failed")
            .tells(story("OS")),
    ]
}

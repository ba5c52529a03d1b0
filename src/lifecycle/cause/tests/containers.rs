//! Which container decides: those that never ran, sidecars, several, restarts.

use super::*;

#[test]
fn containers_that_never_ran() {
    let waiting = |reason: &str| of_main("Failed", json!({ "waiting": { "reason": reason } }));
    check(&[
        (
            "its command is not there",
            of_main("Failed", ended(128, "StartError")),
            "Failed, Config, SystemError, no exit code, never started",
        ),
        (
            "older name of that",
            of_main("Failed", ended(127, "ContainerCannotRun")),
            "Failed, Config, SystemError, no exit code, never started",
        ),
        (
            "failed while it waited for its image",
            waiting("ImagePullBackOff"),
            "Failed, Image, SystemError, no exit code, never started",
        ),
        (
            "a virtual kubelet's own reason",
            with(waiting("ContainerCreating"), because("ProviderFailed", "no quota")),
            "Failed, Admission, SystemError, no exit code, retry, never started",
        ),
        (
            "nothing at all",
            json!({ "status": { "phase": "Failed" } }),
            "Failed, Unknown, SystemError, no exit code, retry, never started",
        ),
    ]);
}

/// Its init container `prepare` ended with this code.
fn init(exit: i32) -> Value {
    let statuses = [container("prepare", ended(exit, "Error"))];
    let waits = json!({ "waiting": { "reason": "PodInitializing" } });
    json!({
        "spec": { "initContainers": [{ "name": "prepare" }] },
        "status": { "phase": "Failed", "initContainerStatuses": statuses, "containerStatuses": [container("main", waits)] },
    })
}

#[test]
fn init_containers_that_failed() {
    check(&[
        ("an init container failed", init(5), "Failed, Init, SystemError, no exit code, never started"),
        (
            "an init container's command is not there",
            with(
                init(5),
                json!({ "status": { "initContainerStatuses": [container("prepare", ended(128, "StartError"))] } }),
            ),
            "Failed, Config, SystemError, no exit code, never started",
        ),
        (
            "an init container took too much memory",
            with(
                init(5),
                json!({ "status": { "initContainerStatuses": [container("prepare", ended(137, "OOMKilled"))] } }),
            ),
            "Failed, Init, ResourceLimit, no exit code, never started",
        ),
        (
            "deleted while an init container ran",
            with(
                with(
                    init(5),
                    json!({ "status": { "initContainerStatuses": [container("prepare", ended(137, "Error"))] } }),
                ),
                json!({ "metadata": { "deletionTimestamp": "2026-11-25T10:00:59Z", "deletionGracePeriodSeconds": 1 } }),
            ),
            "Failed, Deleted, SystemError, no exit code, retry, never started",
        ),
        (
            "a sidecar's command is not there",
            with(
                with(
                    init(5),
                    json!({ "spec": { "initContainers": [{ "name": "prepare", "restartPolicy": "Always" }] } }),
                ),
                json!({ "status": { "initContainerStatuses": [container("prepare", ended(128, "StartError"))] } }),
            ),
            "Failed, Config, SystemError, no exit code, never started",
        ),
        (
            "a sidecar ended with the pod",
            with(
                init(143),
                json!({ "spec": { "initContainers": [{ "name": "prepare", "restartPolicy": "Always" }] } }),
            ),
            "Failed, Unknown, SystemError, no exit code, retry, never started",
        ),
    ]);
}

#[test]
fn sidecars_and_other_containers_do_not_decide() {
    let sidecar = |state: Value| {
        json!({
            "spec": { "initContainers": [{ "name": "proxy", "restartPolicy": "Always" }] },
            "status": { "initContainerStatuses": [container("proxy", state)] },
        })
    };
    let helper = |phase: &str, main: Value, helper: Value| {
        json!({
            "spec": { "containers": [{ "name": "main" }, { "name": "helper" }] },
            "status": { "phase": phase, "containerStatuses": [container("helper", helper), container("main", main)] },
        })
    };
    let runs = || json!({ "running": { "startedAt": STARTED } });
    check(&[
        (
            "a sidecar killed at the end",
            with(of_main("Succeeded", ended(0, "Completed")), sidecar(ended(137, "Error"))),
            "Completed, exit 0",
        ),
        (
            "a sidecar that runs on after a failure",
            with(of_main("Running", ended(4, "Error")), sidecar(runs())),
            "Failed, ExitCode, ScriptError, exit 4",
        ),
        ("a helper that runs on", helper("Running", ended(0, "Completed"), runs()), "Completed, exit 0"),
        ("a helper that failed", helper("Failed", ended(0, "Completed"), ended(1, "Error")), "Completed, exit 0"),
        (
            "statuses in another order",
            helper("Failed", ended(3, "Error"), ended(0, "Completed")),
            "Failed, ExitCode, ScriptError, exit 3",
        ),
        ("main runs while a helper is over", helper("Running", runs(), ended(1, "Error")), "Open"),
    ]);
    let debugged = json!({ "status": { "ephemeralContainerStatuses": [container("debug", ended(137, "OOMKilled"))] } });
    let pod = pod(with(of_main("Failed", ended(3, "Error")), debugged));
    assert_eq!(
        verdict(&pod),
        "Failed, ExitCode, ScriptError, exit 3",
        "an OOM kill of a debugger is not the program's"
    );
}

#[test]
fn restarts_are_not_ends() {
    let crashed = |phase: &str, policy: &str| {
        let mut main = container("main", json!({ "waiting": { "reason": "CrashLoopBackOff" } }));
        merge(&mut main, json!({ "restartCount": 2, "lastState": ended(1, "Error") }));
        json!({ "spec": { "restartPolicy": policy }, "status": { "phase": phase, "containerStatuses": [main] } })
    };
    check(&[
        ("crashes and is started again", crashed("Running", "OnFailure"), "Open"),
        (
            "always started again, over with 0 for now",
            with(of_main("Running", ended(0, "Completed")), json!({ "spec": { "restartPolicy": "Always" } })),
            "Open",
        ),
        ("all containers restart", of_main("Running", ended(3, "RestartingAllContainers")), "Open"),
        (
            "given up between two attempts: the exit is in lastState",
            crashed("Failed", "OnFailure"),
            "Failed, ExitCode, ScriptError, exit 1",
        ),
    ]);
}

#[test]
fn rules_of_containers_overrule_the_pods_policy() {
    let of = |container: Value, state: Value| {
        with(of_main("Running", state), json!({ "spec": { "containers": [container] } }))
    };
    let rule = |action: &str, operator: &str| {
        let codes = json!({ "operator": operator, "values": [42] });
        json!({ "name": "main", "restartPolicy": "Never", "restartPolicyRules": [{ "action": action, "exitCodes": codes }] })
    };
    let policy = |policy: &str| json!({ "name": "main", "restartPolicy": policy });
    let failed = |code: i32| ended(code, "Error");
    check(&[
        ("started again", of(rule("Restart", "In"), failed(42)), "Open"),
        ("all started again", of(rule("RestartAllContainers", "In"), failed(42)), "Open"),
        ("no rule", of(rule("Restart", "In"), failed(43)), "Failed, ExitCode, ScriptError, exit 43"),
        ("any code but", of(rule("Restart", "NotIn"), failed(43)), "Open"),
        ("an operator of the future", of(rule("Restart", "Gt"), failed(43)), "Failed, ExitCode, ScriptError, exit 43"),
        ("its own policy", of(policy("OnFailure"), failed(1)), "Open"),
        ("its own policy, over with 0", of(policy("OnFailure"), ended(0, "Completed")), "Completed, exit 0"),
        (
            "its own policy is against the pod's",
            with(of(policy("Never"), failed(1)), json!({ "spec": { "restartPolicy": "Always" } })),
            "Failed, ExitCode, ScriptError, exit 1",
        ),
    ]);
}

#[test]
fn another_container_may_restart_them_all() {
    let second = json!({ "name": "second", "restartPolicy": "Never", "restartPolicyRules":
        [{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } }] });
    let of = |main: Value, other: Value| {
        json!({ "spec": { "containers": [{ "name": "main" }, second.clone()] },
            "status": { "phase": "Running", "containerStatuses": [container("main", main), container("second", other)] } })
    };
    let (done, runs) = (|| ended(0, "Completed"), || json!({ "running": { "startedAt": STARTED } }));
    let restarting = condition("AllContainersRestarting", "RestartAllContainersStarted", "x");
    let all_over = json!({ "waiting": { "reason": "RestartingAllContainers" } });
    let given_up = with(
        of_main("Failed", all_over),
        json!({ "status": { "containerStatuses": [with(container("main", json!({ "waiting": { "reason": "RestartingAllContainers" } })),
            json!({ "lastState": ended(137, "RestartingAllContainers") }))] } }),
    );
    check(&[
        ("which still runs", of(done(), runs()), "Open"),
        ("which is about to", of(done(), ended(42, "Error")), "Open"),
        ("which is over for good", of(done(), ended(0, "Completed")), "Completed, exit 0"),
        ("which has begun to", with(of(done(), ended(42, "Error")), restarting.clone()), "Open"),
        ("which has begun to, and it had failed", with(of_main("Running", ended(42, "Error")), restarting), "Open"),
        (
            "deleted meanwhile: that 137 is not the program's",
            given_up,
            "Failed, Unknown, SystemError, no exit code, retry",
        ),
    ]);
}

#[test]
fn the_newest_end_counts() {
    let of = |state: Value, last: Value, restarts: u32| {
        let main = with(container("main", state), json!({ "lastState": last, "restartCount": restarts }));
        json!({ "spec": { "restartPolicy": "OnFailure" }, "status": { "phase": "Failed", "containerStatuses": [main] } })
    };
    let at = |code: i32, finished: &str| json!({ "terminated": { "exitCode": code, "reason": "Error", "startedAt": STARTED, "finishedAt": finished } });
    let lost = || json!({ "terminated": { "exitCode": 137, "reason": "ContainerStatusUnknown" } });
    check(&[
        ("that of state", of(at(1, ENDED), at(2, STARTED), 1), "Failed, ExitCode, ScriptError, exit 1"),
        ("that of lastState", of(at(1, STARTED), at(2, ENDED), 1), "Failed, ExitCode, ScriptError, exit 2"),
        (
            "one without a time is the present one",
            of(at(1, ""), at(2, ENDED), 1),
            "Failed, ExitCode, ScriptError, exit 1",
        ),
        (
            "the container was lost after its true end was seen",
            of(lost(), at(2, ENDED), 0),
            "Failed, ExitCode, ScriptError, exit 2",
        ),
        (
            "another attempt's end is not its own",
            of(lost(), at(2, ENDED), 1),
            "Failed, Unknown, SystemError, no exit code, retry",
        ),
        (
            "nor that of an attempt that still runs",
            of(json!({ "running": { "startedAt": ENDED } }), at(2, STARTED), 1),
            "Failed, NodeLost, SystemError, no exit code, retry",
        ),
    ]);
}

#[test]
fn an_earlier_success_is_not_how_a_failure_ended() {
    let waits = |before: Value| {
        let mut status = container("main", json!({ "waiting": { "reason": "CrashLoopBackOff" } }));
        (status["restartCount"], status["lastState"]) = (3.into(), before);
        let spec = json!({ "spec": { "restartPolicy": "Always" }, "status": { "containerStatuses": [status] } });
        with(spec, because("Evicted", "The node was low on resource: memory."))
    };
    check(&[
        ("evicted after a success", waits(ended(0, "Completed")), "Failed, Evicted, SystemError, no exit code, retry"),
        ("evicted after a failure", waits(ended(7, "Error")), "Failed, Evicted, SystemError, exit 7, retry"),
    ]);
}

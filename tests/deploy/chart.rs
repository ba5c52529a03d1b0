//! The chart without a cluster: what it refuses, and what it makes of its values.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testkit::stack::helm;

/// Where the chart is.
pub(crate) fn chart() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "deploy/helm/pod-monitor"].iter().collect()
}

/// The values that have no default.
pub(crate) const REQUIRED: [&str; 2] = ["--set=config.selector=app=executor", "--set=config.kafka=kafka:9092"];

/// Everything for Prometheus and Grafana; `helm template` asks no cluster which APIs there are.
pub(crate) const OPERATOR: [&str; 4] = [
    "--api-versions=monitoring.coreos.com/v1",
    "--set=monitoring.podMonitor.enabled=true",
    "--set=monitoring.prometheusRule.enabled=true",
    "--set=monitoring.dashboard.enabled=true",
];

/// Runs helm; its standard output and standard error. Fails when it does, with both.
pub(crate) fn run(command: &mut Command) -> Result<(String, String)> {
    let output = command.stdin(std::process::Stdio::null()).output().context("run helm")?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    anyhow::ensure!(output.status.success(), "helm: {out}{err}");
    let warnings = err.lines().filter(|line| !ends_own_watch(line)).map(|line| format!("{line}\n")).collect();
    Ok((out, warnings))
}

/// When helm has seen what it waited for, it ends its watch; now and then in the middle of an answer, which its client then
/// logs as an error.
fn ends_own_watch(line: &str) -> bool {
    line.contains("\"Unexpected error when reading response body\" err=\"context canceled\"")
}

/// What the chart makes of these values, as YAML, as release `pod-monitor` in namespace `pod-monitor`.
pub(crate) fn template(arguments: &[&str]) -> Result<String> {
    let mut command = helm::command()?;
    command.args(["template", "pod-monitor"]).arg(chart()).args(["--namespace", "pod-monitor"]).args(arguments);
    Ok(run(&mut command)?.0)
}

/// The objects in a text of several documents.
pub(crate) fn objects(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    documents.into_iter().filter(Value::is_object).collect()
}

/// Kind, namespace and name, as `kind namespace/name`.
pub(crate) fn name_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = &object["metadata"];
    format!("{} {}/{}", text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"]))
}

fn names(arguments: &[&str]) -> Vec<String> {
    objects(&template(&[&REQUIRED[..], arguments].concat()).unwrap()).iter().map(name_of).collect()
}

#[test]
fn the_chart_is_linted_without_a_remark() {
    let ha = format!("--values={}", chart().join("values-ha.yaml").display());
    let forms: [&[&str]; 4] = [&[], &[&ha], &["--set=config.all-namespaces=true"], &["--set=kafkaSecret.name=kafka"]];
    for values in forms {
        let mut command = helm::command().unwrap();
        command.args(["lint", "--strict", "--quiet"]).arg(chart()).args(REQUIRED).args(values);
        let (said, complained) = run(&mut command).unwrap();
        assert_eq!((said.trim(), complained.trim()), ("", ""), "{values:?}");
    }
}

#[test]
fn wrong_values_are_refused_by_their_names() {
    let cases: [(&[&str], &[&str]); 11] = [
        (
            &[REQUIRED[0], REQUIRED[1], "--set=kafkaSecret.propertiesKey=a/b"],
            &["/kafkaSecret/propertiesKey", "pattern"],
        ),
        (&["--set=config.sink=kafka"], &["/config", "'selector'", "'kafka'"]),
        (&["--set=config.selector=a=b"], &["/config", "missing property 'kafka'"]),
        (&["--set=config.sink=stdout"], &["/config", "missing property 'selector'"]),
        (&[REQUIRED[0], REQUIRED[1], "--set=config.selectr=a=b"], &["/config", "'selectr' not allowed"]),
        (&[REQUIRED[0], REQUIRED[1], "--set=replica=3"], &["'replica' not allowed"]),
        (&[REQUIRED[0], REQUIRED[1], "--set=replicas=three"], &["/replicas", "want integer"]),
        (&[REQUIRED[0], "--set=config.kafka=kafka"], &["/config/kafka", "'kafka' does not match pattern"]),
        (&[REQUIRED[0], REQUIRED[1], "--set-string=config.lease-duration=5"], &["/config/lease-duration", "pattern"]),
        (
            &[REQUIRED[0], REQUIRED[1], "--set=terminationGracePeriodSeconds=10"],
            &["/terminationGracePeriodSeconds", "26"],
        ),
        (
            &[REQUIRED[0], REQUIRED[1], "--set=monitoring.podMonitor.enabled=true"],
            &["monitoring.podMonitor.enabled", "no monitoring.coreos.com/v1", "Prometheus Operator"],
        ),
    ];
    for (values, words) in cases {
        let refused = format!("{:#}", template(values).expect_err("it is refused"));
        for word in words {
            assert!(refused.contains(word), "{values:?}: no {word} in {refused}");
        }
    }
    template(&[REQUIRED[0], "--set=config.sink=stdout"]).expect("the sink stdout needs no brokers");
}

#[test]
fn secrets_for_kafka_are_mounted_so_that_they_are_followed_and_named_by_the_settings() {
    let rendered = |arguments: &[&str]| {
        let all = objects(&template(arguments).unwrap());
        let of = |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap().clone();
        let settings: Value = serde_saphyr::from_str(of("ConfigMap")["data"]["config.yaml"].as_str().unwrap()).unwrap();
        (settings, of("Deployment")["spec"]["template"]["spec"].clone())
    };
    // The example of the documentation, as it stands there.
    let page = std::fs::read_to_string(chart().join("../../../docs/kafka.md")).unwrap();
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let values = std::env::temp_dir().join(format!("pod-monitor-kafka-values-{}.yaml", std::process::id()));
    std::fs::write(&values, example).unwrap();
    let (settings, pod) = rendered(&[&format!("--values={}", values.display())]);
    std::fs::remove_file(values).unwrap();
    let mount = pod["containers"][0]["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "kafka");
    let mount = mount.expect("a mount");
    let directory = mount["mountPath"].as_str().unwrap();
    assert!(mount["subPath"].is_null(), "what is mounted by subPath never changes: {mount}");
    let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "kafka").unwrap();
    assert_eq!(volume["secret"]["secretName"], "pod-monitor-kafka");
    // Without it the monitor would watch its own namespace, where no execution runs.
    assert_eq!(settings["namespace"], json!(["executions"]));
    assert_eq!(settings["kafka-config"]["sasl.password"], format!("@{directory}/password"));
    assert_eq!(settings["kafka-config"]["ssl.ca.location"], format!("{directory}/ca.crt"));
    assert!(settings["kafka-config-file"].is_null(), "{settings}");
    // A Secret with a file of properties, by its usual name or another.
    for (more, file) in [(None, "kafka.properties"), (Some("--set=kafkaSecret.propertiesKey=all"), "all")] {
        let arguments: Vec<&str> = REQUIRED.into_iter().chain(["--set=kafkaSecret.name=k"]).chain(more).collect();
        assert_eq!(rendered(&arguments).0["kafka-config-file"], format!("{directory}/{file}"));
    }
}

#[test]
fn roles_follow_the_watched_namespaces() {
    let cluster_id = "ClusterRole /pod-monitor-cluster-id-pod-monitor".to_owned();
    let own = names(&[]);
    assert!(own.contains(&"Role pod-monitor/pod-monitor".to_owned()) && own.contains(&cluster_id), "{own:?}");
    let two = names(&["--set=config.namespace={one,two}"]);
    for role in
        ["Role one/pod-monitor", "RoleBinding one/pod-monitor", "Role two/pod-monitor", "RoleBinding two/pod-monitor"]
    {
        assert!(two.contains(&role.to_owned()), "{role} in {two:?}");
    }
    assert!(!two.contains(&"Role pod-monitor/pod-monitor".to_owned()), "{two:?}");
    let all = names(&["--set=config.all-namespaces=true", "--set=config.cluster-id=c"]);
    assert!(all.contains(&"ClusterRole /pod-monitor-pod-monitor".to_owned()) && !all.contains(&cluster_id), "{all:?}");
    let none =
        names(&["--set=rbac.create=false", "--set=serviceAccount.create=false", "--set=serviceAccount.name=theirs"]);
    assert!(!none.iter().any(|name| name.contains("Role") || name.contains("ServiceAccount")), "{none:?}");
}

#[test]
fn two_releases_in_a_namespace_do_not_share_a_lease() {
    let mut command = helm::command().unwrap();
    command.args(["template", "second"]).arg(chart()).args(REQUIRED);
    let (rendered, _) = run(&mut command).unwrap();
    let config = objects(&rendered).into_iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    let settings: Value = serde_saphyr::from_str(config["data"]["config.yaml"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&config["metadata"]["name"], &settings["lease-name"]),
        (&"second-pod-monitor".into(), &"second-pod-monitor".into())
    );
}

#[test]
fn the_network_policy_lets_the_named_ones_through() {
    let values = [
        REQUIRED[0],
        "--set=config.kafka=one:9094\\,[fd00::1]:9095",
        "--set=networkPolicy.scraperNamespaces={metrics}",
        "--show-only=templates/network-policy.yaml",
    ];
    let policy = objects(&template(&values).unwrap()).remove(0);
    let ports = |rule: &Value| -> Vec<i64> {
        rule["ports"].as_array().unwrap().iter().map(|port| port["port"].as_i64().unwrap()).collect()
    };
    let egress: Vec<Vec<i64>> = policy["spec"]["egress"].as_array().unwrap().iter().map(ports).collect();
    assert_eq!(egress, [vec![53, 53], vec![443, 6443], vec![9094, 9095], vec![8080]]);
    let from: Vec<&Value> = policy["spec"]["ingress"].as_array().unwrap().iter().map(|rule| &rule["from"][0]).collect();
    let name = "app.kubernetes.io/name";
    assert_eq!(from[0]["podSelector"]["matchLabels"][name], "pod-monitor");
    assert_eq!(from[1]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], "metrics");
    assert_eq!(from[2]["podSelector"]["matchLabels"][name], "pod-monitor-test");
    assert_eq!(from.len(), 3);
}

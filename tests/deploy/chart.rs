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

/// The policy that puts the finalizer on pods.
pub(crate) const POLICY: [&str; 3] = [
    "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
    "--set=finalizerPolicy.enabled=true",
    "--set=config.finalizer=pod-monitor/captured",
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
    let forms: [&[&str]; 5] = [
        &[],
        &[&ha],
        &["--set=config.all-namespaces=true"],
        &["--set=kafkaSecret.name=kafka"],
        &["--set-json=rules=[{\"name\":\"a\",\"match\":\"any\",\"hint\":\"h\"}]"],
    ];
    for values in forms {
        let mut command = helm::command().unwrap();
        command.args(["lint", "--strict", "--quiet"]).arg(chart()).args(REQUIRED).args(values);
        let (said, complained) = run(&mut command).unwrap();
        assert_eq!((said.trim(), complained.trim()), ("", ""), "{values:?}");
    }
}

#[test]
fn wrong_values_are_refused_by_their_names() {
    let cases: [(&[&str], &[&str]); 17] = [
        (
            &[REQUIRED[0], REQUIRED[1], "--set=kafkaSecret.propertiesKey=a/b"],
            &["/kafkaSecret/propertiesKey", "pattern"],
        ),
        (&["--set=config.sink=kafka"], &["/config", "'selector'", "'kafka'"]),
        (&["--set=config.selector=a=b"], &["/config", "missing property 'kafka'"]),
        (&["--set=config.sink=stdout"], &["/config", "missing property 'selector'"]),
        (&[REQUIRED[0], REQUIRED[1], "--set=config.selectr=a=b"], &["/config", "'selectr' not allowed"]),
        (&[REQUIRED[0], REQUIRED[1], "--set=leaseShards=129"], &["/leaseShards", "128"]),
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
        (
            &[REQUIRED[0], REQUIRED[1], POLICY[1], POLICY[2]],
            &["finalizerPolicy.enabled", "no MutatingAdmissionPolicy", "Kubernetes 1.36"],
        ),
        (&[REQUIRED[0], REQUIRED[1], POLICY[0], POLICY[1]], &["finalizerPolicy.enabled", "set config.finalizer"]),
        (
            &["--set=config.selector=rank>3", REQUIRED[1], POLICY[0], POLICY[1], POLICY[2]],
            &["finalizerPolicy.enabled", "cannot compare numbers", "'rank>3'"],
        ),
        (&[REQUIRED[0], REQUIRED[1], "--set=rules[0].name=a"], &["/rules/0", "missing property 'match'"]),
        (
            &[REQUIRED[0], REQUIRED[1], "--set=config.rules=/a", "--set-string=rules=b"],
            &["config.rules and rules", "set one of them"],
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
    let granted = |arguments: &[&str]| {
        let all = objects(&template(&[&REQUIRED[..], arguments].concat()).unwrap());
        let role = all.into_iter().find(|object| name_of(object) == "Role pod-monitor/pod-monitor").unwrap();
        role["rules"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|rule| rule["resources"].as_array().unwrap().clone())
            .collect()
    };
    let asked: Vec<Value> = granted(&[]);
    assert_eq!(asked, [json!("pods"), json!("pods/log"), json!("events"), json!("jobs")]);
    let events_off: Vec<Value> = granted(&["--set=config.kubernetes-events=false"]);
    assert_eq!(events_off, [json!("pods"), json!("pods/log"), json!("jobs")], "what is not asked for is not granted");
    let none =
        names(&["--set=rbac.create=false", "--set=serviceAccount.create=false", "--set=serviceAccount.name=theirs"]);
    assert!(!none.iter().any(|name| name.contains("Role") || name.contains("ServiceAccount")), "{none:?}");
}

#[test]
fn leases_are_granted_for_as_many_shards_as_there_are_and_members_only_where_there_are_several() {
    let role = |values: &[&str]| -> Vec<(Value, Value)> {
        let all = objects(&template(&[&REQUIRED[..], values].concat()).unwrap());
        let role = all.into_iter().find(|object| name_of(object) == "Role pod-monitor/pod-monitor-leases").unwrap();
        let rules = role["rules"].as_array().unwrap().iter();
        rules.map(|rule| (rule["resourceNames"].clone(), rule["verbs"].clone())).collect()
    };
    let names = |of: &str, count: usize| json!((0..count).map(|n| format!("{of}-{n}")).collect::<Vec<_>>());
    let (create, held) = ((Value::Null, json!(["create"])), json!(["list", "watch", "patch"]));
    let one = [create.clone(), (names("pod-monitor", 1), held.clone())];
    assert_eq!(role(&[]), one, "without the setting");
    assert_eq!(role(&["--set=config.shards=1"]), one, "with it");
    let three = [
        create,
        (names("x", 3), held),
        (names("x-member", 16), json!(["patch"])),
        (Value::Null, json!(["list", "watch"])),
    ];
    assert_eq!(role(&["--set=config.shards=3", "--set=config.lease-name=x"]), three);
    // More for `reshard`, and never fewer than the replicas need.
    for (shards, named) in [(1, 3), (3, 1), (3, 0), (2, 3)] {
        let [shards, named] = [format!("--set=config.shards={shards}"), format!("--set=leaseShards={named}")];
        assert_eq!(role(&[&shards, &named, "--set=config.lease-name=x"]), three, "{shards} {named}");
    }
    let config = |values: &[&str]| -> Value {
        let all = objects(&template(&[&REQUIRED[..], values].concat()).unwrap());
        let made = all.into_iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        serde_saphyr::from_str(made["data"]["config.yaml"].as_str().unwrap()).unwrap()
    };
    let set = config(&["--set=config.shards=3", "--set=config.shard-by=execution", "--set=config.generation=2"]);
    assert_eq!(json!([set["shards"], set["shard-by"], set["generation"]]), json!([3, "execution", 2]));
    let unset = config(&[]);
    assert_eq!((&unset["shards"], &unset["shard-by"]), (&Value::Null, &Value::Null), "the monitor's own defaults");
}

#[test]
fn the_policy_selects_the_pods_that_the_monitor_selects() {
    let bound = |selector: &str, more: &[&str]| {
        let selector = format!("--set-json=config.selector={}", json!(selector));
        let all = objects(&template(&[&[&selector, REQUIRED[1]][..], &POLICY, more].concat()).unwrap());
        let found = all.into_iter().find(|object| object["kind"] == "MutatingAdmissionPolicyBinding");
        found.expect("a binding")["spec"]["matchResources"].clone()
    };
    let part = |key: &str, operator: &str, values: &[&str]| {
        let mut part = json!({ "key": key, "operator": operator });
        if !values.is_empty() {
            part["values"] = json!(values);
        }
        part
    };
    let labels = |labels: Value| json!({ "matchLabels": labels });
    let expressions = |parts: &[Value]| json!({ "matchExpressions": parts });
    let cases = [
        ("app=executor", labels(json!({ "app": "executor" }))),
        ("a.b/app == executor ,tier=", labels(json!({ "a.b/app": "executor", "tier": "" }))),
        ("here, !gone", expressions(&[part("here", "Exists", &[]), part("gone", "DoesNotExist", &[])])),
        ("a in (x, y),b notin(z)", expressions(&[part("a", "In", &["x", "y"]), part("b", "NotIn", &["z"])])),
        ("in in (in)", expressions(&[part("in", "In", &["in"])])),
        ("a != b", expressions(&[part("a", "NotIn", &["b"])])),
        // One label cannot be both: no pod, rather than those with the latter.
        ("a=b,a=c", json!({ "matchLabels": { "a": "b" }, "matchExpressions": [part("a", "In", &["c"])] })),
    ];
    for (selector, expected) in cases {
        assert_eq!(bound(selector, &[])["objectSelector"], expected, "{selector}");
    }
    let named = &bound("a", &["--set=config.namespace={one,two}"])["namespaceSelector"]["matchExpressions"];
    assert_eq!(*named, json!([part("kubernetes.io/metadata.name", "In", &["one", "two"])]));
    assert_eq!(bound("a", &["--set=config.all-namespaces=true"])["namespaceSelector"], Value::Null, "all of them");
    // The version that the cluster has, the newer where it has both.
    for (served, version) in [(&["v1beta1"][..], "v1beta1"), (&["v1", "v1beta1"], "v1")] {
        let served: Vec<String> = served
            .iter()
            .map(|version| format!("--api-versions=admissionregistration.k8s.io/{version}/MutatingAdmissionPolicy"))
            .collect();
        let values = REQUIRED.into_iter().chain(POLICY.into_iter().skip(1)).chain(served.iter().map(String::as_str));
        let all = objects(&template(&values.collect::<Vec<_>>()).unwrap());
        let policies = all.iter().filter(|object| object["kind"].as_str().unwrap().starts_with("MutatingAdmission"));
        let versions: Vec<&Value> = policies.map(|policy| &policy["apiVersion"]).collect();
        assert_eq!(versions, [&json!(format!("admissionregistration.k8s.io/{version}")); 2]);
    }
}

#[test]
fn rules_lie_beside_the_settings_and_a_change_of_them_is_a_roll_out() {
    let page = std::fs::read_to_string(chart().join("../../../docs/rules.md")).unwrap();
    let file = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let path = std::env::temp_dir().join(format!("pod-monitor-rules-{}.yaml", std::process::id()));
    std::fs::write(&path, file).unwrap();
    let rendered = |values: &[&str]| {
        let all = objects(&template(&[&REQUIRED[..], values].concat()).unwrap());
        let of = |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap().clone();
        let pod = &of("Deployment")["spec"]["template"];
        let sum = pod["metadata"]["annotations"]["checksum/config"].as_str().unwrap().to_owned();
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"], "/etc/pod-monitor");
        (of("ConfigMap")["data"].clone(), sum)
    };
    let parsed = |text: &Value| serde_saphyr::from_str::<Value>(text.as_str().unwrap_or_default()).unwrap();
    // The file itself as values, and its text as one.
    let (listed, first) = rendered(&[&format!("--values={}", path.display())]);
    let (text, second) = rendered(&[&format!("--set-file=rules={}", path.display())]);
    for data in [&listed, &text] {
        assert_eq!(parsed(&data["rules.yaml"]), serde_saphyr::from_str::<Value>(file).unwrap());
        assert_eq!(parsed(&data["config.yaml"])["rules"], "/etc/pod-monitor/rules.yaml");
    }
    std::fs::write(&path, file.replace("104", "105").replace("[42, 100-110]", "[42]")).unwrap();
    let (_, third) = rendered(&[&format!("--set-file=rules={}", path.display())]);
    std::fs::remove_file(path).unwrap();
    assert!(first != third && second != third, "a change of the rules changes the pods");
    let (none, _) = rendered(&[]);
    assert!(none["rules.yaml"].is_null() && parsed(&none["config.yaml"])["rules"].is_null(), "{none}");
}

/// A value for each key of `config`; which keys there are, tests/monitoring.rs compares with the flags. Choices, switches
/// and durations are made of the schema, so that only others need a line here.
fn every_setting(rules: &str) -> Value {
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    let mut all = json!({
        "selector": "app=executor,tier in (a,b)", "namespace": ["executions"], "container": "main",
        "stall-grace": ["image=1m", "gated=off"], "finalizer": "pod-monitor/captured", "rules": rules,
        "execution-label": "execution-id", "execution-annotation": "example.com/execution",
        "execution-name-prefix": "exec-", "user-label": "user-id", "cluster-id": "c-1", "environment": "production",
        "log-bytes-max": 16_777_216, "captures-max": 64, "captures-per-node-max": 16, "sink": "kafka",
        "kafka": "one:9092,two:9092", "kafka-config": { "linger.ms": 5, "sasl.password": "@/secret" },
        "kafka-config-file": "/secret", "events-topic": "events.{event_type}", "changelog-topic": "changelog",
        "shards": 1, "generation": 1, "lease-name": "mine", "log-level": "info,kube=debug",
    });
    for (key, known) in schema["properties"]["config"]["properties"].as_object().unwrap() {
        if all.get(key).is_some() {
            continue;
        }
        let duration = known["pattern"].as_str().is_some_and(|pattern| pattern.contains("ms|s|m|h"));
        all[key] = match known["enum"].as_array() {
            Some(choices) => choices.last().expect("a choice").clone(),
            None if known["type"] == "boolean" => json!(false),
            None if duration => json!("90s"),
            None => panic!("config.{key} is new: give it a value here"),
        };
    }
    all
}

#[test]
fn every_setting_that_the_schema_takes_reaches_the_monitor_as_one_that_it_takes() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("every-setting");
    std::fs::create_dir_all(&dir).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    write("rules.yaml", "rules: [{name: a, match: any, hint: h}]");
    let settings = every_setting(&path("rules.yaml"));
    // From a file, as users have it.
    write("values.yaml", &json!({ "config": settings }).to_string());
    let all = objects(&template(&[&format!("--values={}", path("values.yaml"))]).unwrap());
    let made = all.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    write("config.yaml", made["data"]["config.yaml"].as_str().unwrap());
    write("pod.yaml", "{kind: Pod, metadata: {name: exec-1, namespace: runs, uid: u}}");
    // It reads the file of `run`, and every line of it.
    let mut explain = Command::new(env!("CARGO_BIN_EXE_pod-monitor"));
    explain.env_clear().args(["explain", "-f", &path("pod.yaml"), "--config", &path("config.yaml")]);
    let output = explain.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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

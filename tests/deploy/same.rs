//! The chart and the kustomize base say the same: both rendered, object by object.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::{Value, json};

use crate::{
    chart::{OPERATOR, POLICY, name_of, objects, template},
    support::{kubectl, stack},
};
use testkit::clients::installation::relative;

/// What Helm's conventions add and kustomize knows nothing of: labels, and the annotation that makes a change of the
/// configuration a roll-out, where kustomize has a hash in the ConfigMap's name.
const HELMS: [&str; 5] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
    "checksum/config",
];

fn without_helms(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(key, _)| !HELMS.contains(&key.as_str()));
            let kept = kept.map(|(key, value)| (key, without_helms(value)));
            kept.filter(|(key, value)| key != "annotations" || *value != json!({})).collect()
        }
        Value::Array(values) => values.into_iter().map(without_helms).collect(),
        other => other,
    }
}

/// Objects by their names; texts that are YAML or JSON themselves as what they say.
fn by_name(rendered: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for mut object in objects(rendered).into_iter().map(without_helms) {
        if let Some(data) = object["data"].as_object_mut() {
            data.values_mut().for_each(|text| *text = serde_saphyr::from_str(text.as_str().unwrap()).unwrap());
        }
        let name = name_of(&object);
        assert!(found.insert(name.clone(), object).is_none(), "{name} twice");
    }
    found
}

/// What is installed.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// With nothing that is off by itself.
    Plain,
    /// With everything that both can do.
    Whole,
}

fn config(form: Form) -> Value {
    let mut config = json!({ "selector": "app=executor", "namespace": ["executions"], "kafka": "kafka:9092", "create-topics": true });
    if form == Form::Whole {
        config["finalizer"] = "pod-monitor/captured".into();
        config["delete-finished"] = "1h".into();
        config["shards"] = 4.into();
    }
    config
}

fn rules() -> Value {
    json!([{ "name": "gpu-lost", "match": { "exit-codes": [42] }, "cause": "gpu_lost" }])
}

fn chart(form: Form) -> BTreeMap<String, Value> {
    let (config, rules) = (format!("--set-json=config={}", config(form)), format!("--set-json=rules={}", rules()));
    // `helm test` is the chart's own, and with it its way through the network policy.
    let mut values = vec!["--set=image.tag=dev", "--set=test.enabled=false", &config];
    if form == Form::Whole {
        values.extend(OPERATOR.iter().chain(&POLICY));
        values.push(&rules);
    }
    // Named with the namespace, since several releases share the names of the whole cluster.
    let rendered = template(&values).unwrap().replace("pod-monitor-cluster-id-pod-monitor", "pod-monitor-cluster-id");
    by_name(&rendered.replace("pod-monitor-finalizer-pod-monitor", "pod-monitor-finalizer"))
}

fn kustomize(form: Form) -> BTreeMap<String, Value> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(if form == Form::Whole { "same-whole" } else { "same" });
    let bases = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize");
    let write = |file: &str, value: Value| fs::write(dir.join(file), value.to_string()).unwrap();
    for part in ["monitor", "watched"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    let from = |part: &str, to: &str| relative(&dir.join(part), &bases.join(to)).unwrap();
    let components = |part: &str, names: &[&str]| -> Value {
        // The policy is of no namespace: kustomize, which does not know that, would give it one in `monitor`.
        let wanted = names.iter().filter(|_| form == Form::Whole);
        wanted.map(|name| json!(from(part, &format!("components/{name}")))).collect()
    };
    let (mut config, mut files) = (config(form), vec!["config.yaml"]);
    if form == Form::Whole {
        // As docs/rules.md says.
        config["rules"] = "/etc/pod-monitor/rules.yaml".into();
        files.push("rules.yaml");
        write("monitor/rules.yaml", json!({ "rules": rules() }));
    }
    let policy = components("", &["finalizer"]);
    write("kustomization.yaml", json!({ "resources": ["monitor", "watched"], "components": policy }));
    let generator = json!({ "name": "pod-monitor", "behavior": "replace", "files": files });
    write(
        "monitor/kustomization.yaml",
        json!({
            "namespace": "pod-monitor", "resources": [from("monitor", "base")],
            "components": components("monitor", &["monitoring", "shards-4"]), "configMapGenerator": [generator],
        }),
    );
    write("monitor/config.yaml", config);
    write(
        "watched/kustomization.yaml",
        json!({
            "namespace": "executions", "resources": [from("watched", "watched")],
            "components": components("watched", &["rights-finalizer", "rights-delete-finished"]),
        }),
    );
    let (rendered, _) = kubectl(stack().endpoints(), &["kustomize", &dir.display().to_string()]).unwrap();
    let hashed = objects(&rendered).into_iter().find(|object| object["data"]["config.yaml"].is_string()).unwrap();
    by_name(&rendered.replace(hashed["metadata"]["name"].as_str().unwrap(), "pod-monitor"))
}

fn names(objects: &BTreeMap<String, Value>) -> Vec<String> {
    objects.keys().cloned().collect()
}

/// Compares both, object by object; what there is.
fn compared(form: Form) -> BTreeMap<String, Value> {
    let (chart, kustomize) = (chart(form), kustomize(form));
    assert_eq!(names(&chart), names(&kustomize));
    for (name, object) in &chart {
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
        let (left, right) = (pretty(object), pretty(&kustomize[name]));
        let differing = left.lines().zip(right.lines()).find(|(left, right)| left != right);
        assert!(left == right, "{name} differs, first in {differing:?}\n--- chart\n{left}\n--- kustomize\n{right}");
    }
    chart
}

#[test]
fn chart_and_kustomize_say_the_same_with_everything_that_may_be_turned_on() {
    let whole = compared(Form::Whole);
    for kind in [
        "Deployment",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PodMonitor",
        "PrometheusRule",
        "Service",
    ] {
        assert!(whole.keys().any(|name| name.starts_with(&format!("{kind} "))), "{kind} in {:?}", names(&whole));
    }
    assert_eq!(whole.len(), 17);
    let verbs = &whole["Role executions/pod-monitor"]["rules"][0]["verbs"];
    assert_eq!(*verbs, json!(["get", "list", "watch", "patch", "delete"]));
    assert!(whole["ConfigMap pod-monitor/pod-monitor"]["data"]["rules.yaml"].is_object(), "rules are there");
    assert_eq!(whole["Role pod-monitor/pod-monitor-leases"]["rules"].as_array().unwrap().len(), 4, "several shards");
}

#[test]
fn chart_and_kustomize_say_the_same_with_nothing_turned_on() {
    let plain = compared(Form::Plain);
    assert_eq!(plain.len(), 12, "{:?}", names(&plain));
    assert_eq!(plain["Role executions/pod-monitor"]["rules"][0]["verbs"], json!(["get", "list", "watch"]));
    assert_eq!(plain["Role pod-monitor/pod-monitor-leases"]["rules"].as_array().unwrap().len(), 2, "one shard");
}

/// What the table of deploy/README.md says of watched namespaces: verb and resource, the parts of a row's first columns.
fn table() -> BTreeSet<(String, String)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/README.md")).unwrap();
    let section = page.split("## What each verb is for\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.map(|row| row.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    let pairs = cells.map(|cells| (cells[0].clone(), cells[1].split([',', ' ']).next().unwrap().to_owned()));
    // Of the whole cluster and of the monitor's own namespace.
    pairs.filter(|(verb, on)| verb != "verb" && verb != "---" && on != "namespace" && on != "its").collect()
}

#[test]
fn the_table_of_verbs_says_what_the_role_grants() {
    let role = &chart(Form::Whole)["Role executions/pod-monitor"];
    let texts = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap() };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for verb in texts(&rule["verbs"]) {
            granted.extend(texts(&rule["resources"]).into_iter().map(|resource| (verb.clone(), resource)));
        }
    }
    assert_eq!(table(), granted);
    assert_eq!(granted.len(), 8);
}

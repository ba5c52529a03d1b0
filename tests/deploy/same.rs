//! The chart and the kustomize base say the same: both rendered, object by object.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use crate::{
    chart::{OPERATOR, name_of, objects, template},
    support::{kubectl, relative, stack},
};

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

fn config() -> Value {
    json!({ "selector": "app=executor", "namespace": ["executions"], "kafka": "kafka:9092", "create-topics": true })
}

fn chart() -> BTreeMap<String, Value> {
    let config = format!("--set-json=config={}", config());
    // `helm test` is the chart's own, and with it its way through the network policy.
    let values = [&["--set=image.tag=dev", "--set=test.enabled=false", &config][..], &OPERATOR[..]].concat();
    // Named with the namespace, since several releases share the names of the whole cluster.
    by_name(&template(&values).unwrap().replace("pod-monitor-cluster-id-pod-monitor", "pod-monitor-cluster-id"))
}

fn kustomize() -> BTreeMap<String, Value> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("same");
    let bases = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize");
    let write = |file: &str, value: Value| fs::write(dir.join(file), value.to_string()).unwrap();
    for part in ["monitor", "watched"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    let from = |part: &str, to: &str| relative(&dir.join(part), &bases.join(to)).unwrap();
    write("kustomization.yaml", json!({ "resources": ["monitor", "watched"] }));
    let generator = json!({ "name": "pod-monitor", "behavior": "replace", "files": ["config.yaml"] });
    write(
        "monitor/kustomization.yaml",
        json!({
            "namespace": "pod-monitor", "resources": [from("monitor", "base")],
            "components": [from("monitor", "components/monitoring")], "configMapGenerator": [generator],
        }),
    );
    write("monitor/config.yaml", config());
    write(
        "watched/kustomization.yaml",
        json!({ "namespace": "executions", "resources": [from("watched", "watched")] }),
    );
    let (rendered, _) = kubectl(stack().endpoints(), &["kustomize", &dir.display().to_string()]).unwrap();
    let hashed = objects(&rendered).into_iter().find(|object| object["data"]["config.yaml"].is_string()).unwrap();
    by_name(&rendered.replace(hashed["metadata"]["name"].as_str().unwrap(), "pod-monitor"))
}

#[test]
fn chart_and_kustomize_say_the_same() {
    let (chart, kustomize) = (chart(), kustomize());
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&chart), names(&kustomize));
    for (name, object) in &chart {
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
        let (left, right) = (pretty(object), pretty(&kustomize[name]));
        let differing = left.lines().zip(right.lines()).find(|(left, right)| left != right);
        assert!(left == right, "{name} differs, first in {differing:?}\n--- chart\n{left}\n--- kustomize\n{right}");
    }
    for kind in ["Deployment", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor", "PrometheusRule", "Service"] {
        assert!(chart.keys().any(|name| name.starts_with(&format!("{kind} "))), "{kind} in {:?}", names(&chart));
    }
    assert_eq!(chart.len(), 15);
}

//! What deploy/ says of the monitor is true: metrics of alerts and dashboard, runbooks, the chart's settings, and files
//! that are made of others. Needs no server; promtool and the chart itself are in tests/deploy.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use pod_monitor::{leadership::takeover::Leg, telemetry::Metrics};
use serde_json::Value;

/// How the names of our metrics begin.
const PREFIXES: [&str; 2] = ["pod_monitor_", "process_"];

/// Labels that Prometheus adds, and the bounds of buckets.
const FOREIGN: [&str; 6] = ["namespace", "job", "instance", "pod", "le", "version"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json(path: &str) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text of `/metrics` with all there may be. Take-overs have series only once there was one.
fn counted() -> String {
    let metrics = Metrics::new();
    metrics.set_rules(None);
    let legs =
        [Leg::Acquired, Leg::Fenced, Leg::Barrier, Leg::Restored, Leg::Watching, Leg::Reconciled, Leg::FirstCommit];
    legs.into_iter().for_each(|leg| metrics.taken_over(leg, Duration::ZERO));
    metrics.gap(Duration::ZERO);
    metrics.text().unwrap()
}

/// The values that each label of each series may have.
fn series() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut found: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for line in counted().lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = selector(line);
        let known = found.entry(name.to_owned()).or_default();
        for (label, value) in matchers(labels) {
            known.entry(label.to_owned()).or_default().insert(value.to_owned());
        }
    }
    found
}

/// Name and labels at the beginning of a text.
fn selector(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (name, rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(labels, _)| labels))
}

/// Label and value of each matcher. Our values hold neither commas nor quotes.
fn matchers(labels: &str) -> Vec<(&str, &str)> {
    let parts = labels.split(',').filter_map(|matcher| matcher.trim().split_once('"'));
    parts.map(|(left, value)| (left.trim_end_matches(['=', '!', '~']), value.trim_end_matches('"'))).collect()
}

/// Everything in an expression that is no series of ours; and how many were looked at.
fn strangers(expression: &str, series: &BTreeMap<String, BTreeMap<String, BTreeSet<String>>>) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    let ours = PREFIXES.iter().flat_map(|prefix| expression.match_indices(prefix));
    let places: Vec<usize> = ours.map(|(place, _)| place).collect();
    for place in &places {
        let (name, labels) = selector(&expression[*place..]);
        let Some(known) = series.get(name) else {
            wrong.push(name.to_owned());
            continue;
        };
        for (label, value) in matchers(labels).into_iter().filter(|(label, _)| !FOREIGN.contains(label)) {
            let values = known.get(label);
            // Grafana fills its variables in with values that there are.
            let filled = |value: &str| value.starts_with('$');
            let stranger = |value: &&str| values.is_none_or(|values| !values.contains(*value) && !filled(value));
            wrong.extend(value.split('|').filter(stranger).map(|value| format!("{name}{{{label}={value}}}")));
        }
    }
    (places.len(), wrong)
}

fn rules() -> Vec<Value> {
    yaml("deploy/alerts/rules.yaml")["groups"][0]["rules"].as_array().unwrap().clone()
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

#[test]
fn every_series_of_alerts_and_dashboard_is_one_of_ours() {
    let series = series();
    let rules = rules().into_iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    let panels = json("deploy/dashboards/pod-monitor.json")["panels"].as_array().unwrap().clone();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let shown = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    let mut seen = 0;
    for expression in rules.chain(shown) {
        let (looked_at, wrong) = strangers(&expression, &series);
        assert_eq!(wrong, Vec::<String>::new(), "in {expression}");
        seen += looked_at;
    }
    assert!(seen > 50, "only {seen} series found: the search is broken");
}

#[test]
fn panels_of_processes_show_ours_only() {
    let panels = json("deploy/dashboards/pod-monitor.json")["panels"].as_array().unwrap().clone();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let of_any = targets.filter_map(|target| target["expr"].as_str()).filter(|shown| shown.contains("process_"));
    let of_any: Vec<&str> = of_any.collect();
    assert_eq!(of_any.len(), 3);
    for shown in of_any {
        // Every program that Prometheus scrapes has these, and the variables may stand for all of them.
        assert!(shown.contains(" and on (namespace, job, instance) pod_monitor_build_info{"), "{shown}");
    }
}

#[test]
fn a_series_or_a_label_value_that_is_not_ours_is_found() {
    let series = series();
    for (expression, expected) in [
        ("rate(pod_monitor_event_total[5m])", "pod_monitor_event_total"),
        ("pod_monitor_role{role=~\"live|leader\"}", "pod_monitor_role{role=leader}"),
        ("pod_monitor_term{reason!=\"x\"}", "pod_monitor_term{reason=x}"),
        ("rate(process_cpu_total[5m])", "process_cpu_total"),
        ("pod_monitor_members{shard=~\"$shard\"}", "pod_monitor_members{shard=$shard}"),
        ("pod_monitor_role{shard=\"one\"}", "pod_monitor_role{shard=one}"),
        (
            "pod_monitor_takeover_duration_seconds_sum{leg=\"reconcile\"}",
            "pod_monitor_takeover_duration_seconds_sum{leg=reconcile}",
        ),
    ] {
        assert_eq!(strangers(expression, &series).1, [expected]);
    }
    for expression in [
        "pod_monitor_role{namespace=~\"$namespace\", role=\"live\"} == 1",
        "pod_monitor_role{shard=~\"$shard\", role=\"live\"} == 1",
    ] {
        assert_eq!(strangers(expression, &series).1, [""; 0]);
    }
}

#[test]
fn metrics_that_the_documentation_names_exist() {
    let series = series();
    let mut seen = 0;
    let pages = ["handover", "metrics", "rules", "evidence", "runbooks", "scaling", "simulation"]
        .map(|page| format!("docs/{page}.md"));
    for page in pages.iter().map(String::as_str).chain(["README.md", "deploy/README.md"]) {
        let text = read(page);
        for (place, _) in PREFIXES.iter().flat_map(|prefix| text.match_indices(prefix)) {
            let (name, _) = selector(&text[place..]);
            let known = series.keys().any(|known| known == name || known.strip_suffix("_bucket") == Some(name));
            assert!(known, "{page} names {name}, which is not counted");
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} metrics found: the search is broken");
}

/// What docs/metrics.md has to say of each metric: name, type, labels, help.
fn rows() -> Vec<String> {
    let (text, series) = (counted(), series());
    let helps = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let row = |((name, help), (same, kind)): ((&str, &str), (&str, &str))| {
        assert_eq!(name, same);
        let (shown, of) = match kind {
            "counter" => (format!("{name}_total"), format!("{name}_total")),
            "info" => (format!("{name}_info"), format!("{name}_info")),
            "histogram" => (name.to_owned(), format!("{name}_count")),
            _ => (name.to_owned(), name.to_owned()),
        };
        let mut labels: Vec<&str> = series[&of].keys().map(String::as_str).collect();
        labels.sort_by_key(|label| *label != "shard");
        format!("| `{shown}` | {kind} | {} | {} |", labels.join(", "), help.trim_end_matches('.'))
    };
    helps.zip(types).map(row).collect()
}

#[test]
fn the_page_of_metrics_lists_all_of_them_and_no_others() {
    let page = read("docs/metrics.md");
    let ours = |line: &&str| PREFIXES.iter().any(|prefix| line.starts_with(&format!("| `{prefix}")));
    let listed: Vec<&str> = page.lines().filter(ours).collect();
    let rows = rows();
    assert!(rows.len() > 30, "only {} metrics found", rows.len());
    assert!(listed == rows, "docs/metrics.md should list\n{}", rows.join("\n"));
}

#[test]
fn every_alert_says_what_it_means_and_has_a_runbook() {
    let runbooks = read("docs/runbooks.md");
    let headings: BTreeSet<&str> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        for text in ["summary", "description"] {
            assert!(alert["annotations"][text].as_str().is_some_and(|text| text.len() > 10), "{name} has no {text}");
        }
        assert_eq!(alert["annotations"]["runbook_url"], format!("docs/runbooks.md#{}", name.to_lowercase()), "{name}");
        assert!(headings.contains(name), "docs/runbooks.md has no section {name}");
        let severity = alert["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning")), "{name} has severity {severity:?}");
    }
    assert_eq!(headings.len(), alerts.len(), "a section of docs/runbooks.md has no alert: {headings:?}");
}

#[test]
fn every_alert_is_seen_to_fire_and_not_to_fire() {
    let tests = yaml("deploy/alerts/tests.yaml");
    let checks: Vec<&Value> = tests["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["promql_expr_test"].as_array().unwrap())
        .collect();
    let alerts = alerts();
    assert!(alerts.len() > 20, "only {} alerts found", alerts.len());
    for alert in alerts {
        let name = format!("alertname=\"{}\"", alert["alert"].as_str().unwrap());
        let of: Vec<&&Value> = checks.iter().filter(|check| check["expr"].as_str().unwrap().contains(&name)).collect();
        let firing = of.iter().filter(|check| check["exp_samples"] != Value::Array(Vec::new())).count();
        assert!(firing > 0 && firing < of.len(), "{name}: fires in {firing} of {} checks", of.len());
    }
}

#[test]
fn files_made_of_others_are_fresh() {
    let made = testkit::chart::generated(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert_eq!(made.len(), 4);
    for file in made {
        let path = file.path.display().to_string();
        assert!(read(&path) == file.text, "{path} is not as its source says: run cargo xtask chart");
    }
}

/// Flags that make no sense as settings of an installation: the file itself, and what the chart and the pod decide.
const NO_SETTINGS: [&str; 6] = ["help", "config", "identity", "listen", "advertise", "lease-namespace"];

#[test]
fn the_charts_schema_knows_every_flag_and_no_other() {
    let help = read("tests/golden/help-run.txt");
    let flag = |line: &str| -> Option<String> {
        let name = line.trim_start().split_once("--")?.1;
        let begins = line.trim_start().starts_with('-') && line.starts_with("  ");
        begins.then(|| name.split([' ', '[', '=']).next().unwrap_or_default().to_owned())
    };
    let mut flags: BTreeSet<String> =
        help.lines().take_while(|line| !line.starts_with("Every flag")).filter_map(flag).collect();
    for name in NO_SETTINGS {
        assert!(flags.remove(name), "there is no flag --{name} any more: adjust the list");
    }
    let schema = json("deploy/helm/pod-monitor/values.schema.json");
    let config = &schema["properties"]["config"];
    let known: BTreeSet<String> = config["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(known, flags, "values.schema.json and pod-monitor run --help differ");
    assert_eq!(
        (&schema["additionalProperties"], &config["additionalProperties"]),
        (&Value::Bool(false), &Value::Bool(false))
    );
}

#[test]
fn every_value_of_the_chart_is_explained_and_known_to_the_schema() {
    let readme = read("deploy/helm/pod-monitor/README.md");
    let schema = json("deploy/helm/pod-monitor/values.schema.json");
    let mut seen = 0;
    for (name, value) in yaml("deploy/helm/pod-monitor/values.yaml").as_object().unwrap() {
        walk(name, value, &schema["properties"][name], &mut |path, known| {
            assert!(readme.contains(&format!("| `{path}` |")), "{path} has no comment in values.yaml");
            assert!(known.is_object(), "{path} is not in values.schema.json");
            seen += 1;
        });
    }
    assert!(seen > 40, "only {seen} values found: the search is broken");
}

/// Every value below this one, with what the schema says of it.
fn walk(path: &str, value: &Value, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    let Some(below) = value.as_object() else { return };
    for (name, value) in below {
        let known = if schema["properties"].is_object() { &schema["properties"][name] } else { schema };
        // Maps of the user's own, like labels and requests, are one value to the schema.
        walk(&format!("{path}.{name}"), value, known, look);
    }
}

#[test]
fn chart_image_and_program_have_one_version() {
    let chart = yaml("deploy/helm/pod-monitor/Chart.yaml");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let example = yaml("deploy/kustomize/overlays/example/monitor/kustomization.yaml");
    assert_eq!(example["images"][0]["newTag"], env!("CARGO_PKG_VERSION"));
}

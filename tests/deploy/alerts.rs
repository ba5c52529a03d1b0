//! deploy/alerts and deploy/dashboards, as Prometheus reads them. tests/monitoring.rs holds their metrics to the program.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use testkit::stack::{process::checked, promtool};

fn promtool(arguments: &[&str], directory: &Path) -> anyhow::Result<String> {
    checked(Command::new(promtool::ensure()?).args(arguments).current_dir(directory))
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alerts");
    let said = promtool(&["check", "rules", "rules.yaml"], &alerts).unwrap();
    assert!(said.contains("25 rules found"), "{said}");
    promtool(&["test", "rules", "tests.yaml"], &alerts).unwrap();
}

#[test]
fn the_dashboards_expressions_can_be_read() {
    let dashboards = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/dashboards");
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(dashboards.join("pod-monitor.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    // Grafana fills its variables in before it asks.
    let filled = |text: &str| text.replace("$__rate_interval", "5m").replace("$__range", "1h");
    let expressions: Vec<String> = targets.map(|target| filled(target["expr"].as_str().unwrap())).collect();
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(number, expression)| serde_json::json!({ "record": format!("panel:{number}"), "expr": expression }))
        .collect();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = "dashboard-rules.yaml";
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    fs::write(directory.join(file), groups.to_string()).unwrap();
    let said = promtool(&["check", "rules", file], directory).unwrap();
    assert!(said.contains(&format!("{} rules found", expressions.len())), "{said}");
    assert!(expressions.len() > 45, "only {} expressions found", expressions.len());
}

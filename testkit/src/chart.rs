//! Files of deploy/ that are made of other files of it, so that what is said twice is written once.
//!
//! ```text
//!  helm/pod-monitor/values.yaml ----> helm/pod-monitor/README.md
//!  alerts/rules.yaml ---------------> helm/pod-monitor/files/rules.yaml, kustomize/components/monitoring/prometheus-rule.yaml
//!  dashboards/pod-monitor.json -----> helm/pod-monitor/files/dashboard.json
//! ```
//! `cargo xtask chart` writes them; a test holds them to their sources. Neither Helm nor kustomize reads files outside of
//! their own directories.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const CHART: &str = "deploy/helm/pod-monitor";
const RULES: &str = "deploy/alerts/rules.yaml";
const DASHBOARD: &str = "deploy/dashboards/pod-monitor.json";

const README_HEAD: &str = "# Chart pod-monitor
Written by `cargo xtask chart` from `values.yaml`: change that. What the parts are for, and how to install, upgrade and remove: [deploy/README.md](../../README.md).

```console
kubectl create namespace executions
helm upgrade --install pod-monitor deploy/helm/pod-monitor --namespace pod-monitor --create-namespace --wait \\
  --set image.repository=<your registry>/pod-monitor --set config.create-topics=true \\
  --set config.selector=app=executor --set 'config.namespace={executions}' --set config.kafka=kafka.kafka.svc:9092
helm test pod-monitor --namespace pod-monitor
```
For production add `--values deploy/helm/pod-monitor/values-ha.yaml`. Wrong values are refused by `values.schema.json` before anything is installed.

| value | default | |
| --- | --- | --- |
";

/// A file made of others: where it is in the repository, and what should stand in it.
#[derive(Debug)]
pub struct Generated {
    /// From the root of the repository.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// All of them.
///
/// # Errors
/// When a source cannot be read.
pub fn generated(root: &Path) -> Result<Vec<Generated>> {
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"));
    let (rules, dashboard) = (read(RULES)?, read(DASHBOARD)?);
    let values = read(&format!("{CHART}/values.yaml"))?;
    let made = |path: String, text: String| Generated { path: path.into(), text };
    Ok(vec![
        made(format!("{CHART}/README.md"), readme(&values)),
        made(format!("{CHART}/files/rules.yaml"), rules.clone()),
        made(format!("{CHART}/files/dashboard.json"), dashboard),
        made("deploy/kustomize/components/monitoring/prometheus-rule.yaml".into(), prometheus_rule(&rules)),
    ])
}

/// The rules as the object that the Prometheus Operator reads.
fn prometheus_rule(rules: &str) -> String {
    let mut text = format!(
        "# Written by `cargo xtask chart` from {RULES}: change that.\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: pod-monitor\nspec:\n"
    );
    for line in rules.lines().filter(|line| !line.starts_with('#')) {
        writeln!(text, "  {line}").expect("a String takes everything");
    }
    text
}

/// The table of values.
fn readme(values: &str) -> String {
    let mut text = README_HEAD.to_owned();
    for Value { path, default, what } in table(values) {
        let default = default.map_or_else(String::new, |default| format!("`{default}`"));
        writeln!(text, "| `{path}` | {default} | {what} |").expect("a String takes everything");
    }
    text
}

#[derive(Debug, PartialEq, Eq)]
struct Value {
    path: String,
    /// `None` for a group of values, and for what has none.
    default: Option<String>,
    what: String,
}

/// The values with their comments. Reads the form in which our values.yaml is written: two spaces a level, a comment
/// above each key, `#key: example` for one that is not set.
fn table(values: &str) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    let (mut above, mut comment): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let lines: Vec<&str> = values.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let level = (line.len() - code.len()) / 2;
        if let Some(text) = code.strip_prefix("# ") {
            comment.push(text);
            continue;
        }
        let unset = code.starts_with('#');
        let Some((key, value)) = code.trim_start_matches('#').split_once(':').filter(|_| !code.starts_with("- "))
        else {
            comment.clear();
            continue;
        };
        // Deeper lines of a list's items have no comment of their own.
        if comment.is_empty() {
            continue;
        }
        above.truncate(level);
        let path = [above.as_slice(), &[key]].concat().join(".");
        above.push(key);
        let mut what = comment.join(" ").replace('|', "\\|");
        comment.clear();
        let value = value.trim();
        let default = match value {
            _ if unset => {
                write!(what, " For instance `{value}`.").expect("a String takes everything");
                None
            }
            "" => lines
                .get(number + 1)
                .filter(|next| next.trim_start().starts_with("- "))
                .map(|_| "see values.yaml".into()),
            set => Some(set.to_owned()),
        };
        found.push(Value { path, default, what });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_with_their_paths_and_comments() {
        let values = "# A group.\nconfig:\n  # Required: this.\n  # And that.\n  #selector: app=x\n  # Off.\n  create: false\n\n\
                      # A list.\nspread:\n  - skew: 1\n    key: host\n# Last.\nname: \"\"\n";
        let value = |path: &str, default: Option<&str>, what: &str| Value {
            path: path.into(),
            default: default.map(Into::into),
            what: what.into(),
        };
        let expected = [
            value("config", None, "A group."),
            value("config.selector", None, "Required: this. And that. For instance `app=x`."),
            value("config.create", Some("false"), "Off."),
            value("spread", Some("see values.yaml"), "A list."),
            value("name", Some("\"\""), "Last."),
        ];
        assert_eq!(table(values), expected);
    }

    #[test]
    fn rules_become_an_object_without_their_comments() {
        let text = prometheus_rule("# A comment.\ngroups:\n  - name: x\n");
        assert!(text.ends_with("spec:\n  groups:\n    - name: x\n"), "{text}");
        assert!(!text.contains("A comment"), "{text}");
    }
}

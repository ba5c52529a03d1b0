//! The Prometheus Operator's definitions of PodMonitor and PrometheusRule, out of its Go module: with them the real API
//! server checks what the chart makes of the two. The Operator itself is neither built nor run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::process::checked;

const MODULE: &str = "github.com/prometheus-operator/prometheus-operator";
const VERSION: &str = "0.85.0";
/// As a go.sum has it.
const SUM: &str = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=";

/// The files with the definitions. Some seconds the first time.
///
/// # Errors
/// When Go cannot download the module, or it is not the one that was pinned.
pub fn prometheus_operator() -> Result<[PathBuf; 2]> {
    let module = format!("{MODULE}@v{VERSION}");
    let answer = checked(Command::new("go").args(["mod", "download", "-json", &module]).current_dir("/"))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("the answer of go mod download")?;
    anyhow::ensure!(answer["Sum"] == SUM, "{module} is not what was pinned: {}", answer["Sum"]);
    let dir = PathBuf::from(answer["Dir"].as_str().context("go mod download names the directory")?);
    let file = |kind| dir.join(format!("example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"));
    Ok([file("podmonitors"), file("prometheusrules")])
}

//! Writes `stack-modules/*/go.{mod,sum}` anew after a version in `versions.rs` changed.
//!
//! Kubernetes' own go.mod replaces its staging modules by directories that its release does not
//! contain; ours replaces each by its published release.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::process::checked;
use super::versions::{CONTAINERD, ETCD, HELM, KUBERNETES, RUNC};

const GO: &str = "1.26.0";

/// Writes the modules into `dir` (the repository's `testkit/stack-modules`). Needs the Go module proxy.
pub fn regenerate(dir: &Path) -> Result<()> {
    let staging = format!("v0.{}", KUBERNETES.split_once('.').context("a Kubernetes version has a dot")?.1);
    let mut go_mod = format!(
        "module kubernetes\n\ngo {GO}\n\nrequire (\n\tgo.etcd.io/etcd/server/v3 v{ETCD}\n\tk8s.io/kubernetes v{KUBERNETES}\n)\n\nreplace (\n"
    );
    for module in staging_modules()? {
        go_mod.push_str(&format!("\t{module} => {module} {staging}\n"));
    }
    go_mod.push_str(")\n");
    tidy(&dir.join("kubernetes"), &go_mod)?;
    let containers = format!(
        "module containers\n\ngo {GO}\n\nrequire (\n\tgithub.com/containerd/containerd/v2 v{CONTAINERD}\n\tgithub.com/opencontainers/runc v{RUNC}\n)\n"
    );
    tidy(&dir.join("containers"), &containers)?;
    let helm = format!("module helm\n\ngo {GO}\n\nrequire helm.sh/helm/v4 v{HELM}\n");
    tidy(&dir.join("helm"), &helm)
}

/// The modules that Kubernetes develops in its own repository.
fn staging_modules() -> Result<Vec<String>> {
    let module = format!("k8s.io/kubernetes@v{KUBERNETES}");
    let answer = checked(Command::new("go").args(["mod", "download", "-json", &module]).current_dir("/"))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("the answer of go mod download")?;
    let file = answer["GoMod"].as_str().context("go mod download names the go.mod")?;
    Ok(replaced(&fs::read_to_string(file)?))
}

fn replaced(go_mod: &str) -> Vec<String> {
    let staged = |line: &str| {
        let (module, target) = line.trim().trim_start_matches("replace ").split_once(" => ")?;
        target.starts_with("./staging/src/").then(|| module.to_owned())
    };
    go_mod.lines().filter_map(staged).collect()
}

/// `tools.go`, which is in `dir` already, imports the programs; tidying finds what they need.
fn tidy(dir: &Path, go_mod: &str) -> Result<()> {
    fs::write(dir.join("go.mod"), go_mod)?;
    let sum = dir.join("go.sum");
    if sum.exists() {
        fs::remove_file(&sum)?;
    }
    checked(Command::new("go").args(["mod", "tidy"]).env("GOWORK", "off").current_dir(dir))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_staging_modules_are_replaced() {
        let text = "replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\texample.org/x => example.org/y v1.0.0\n)\n";
        assert_eq!(replaced(text), ["k8s.io/api"]);
    }
}

//! The one place that pins what the stack is made of, and where the results are cached.
//!
//! The Go modules' exact versions are in `stack-modules/*/go.{mod,sum}`, which `modules.rs` writes.

use std::path::PathBuf;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Kubernetes: API server, controller manager, scheduler, kubelet, kube-proxy and kubectl.
pub const KUBERNETES: &str = "1.36.3";
/// The etcd that this Kubernetes requires.
pub const ETCD: &str = "3.6.8";
/// containerd, its shim and `ctr`.
pub const CONTAINERD: &str = "2.4.2";
/// The low-level container runtime.
pub const RUNC: &str = "1.5.2";
/// The Kafka broker (one node, KRaft).
pub const KAFKA: &str = "4.1.0";
/// Helm: no part of the stack, but of the tests of the chart.
pub const HELM: &str = "4.3.1";

pub(crate) const KUBERNETES_MODULE: Module = Module {
    name: "kubernetes",
    go_mod: include_str!("../../stack-modules/kubernetes/go.mod"),
    go_sum: include_str!("../../stack-modules/kubernetes/go.sum"),
};
pub(crate) const CONTAINERS_MODULE: Module = Module {
    name: "containers",
    go_mod: include_str!("../../stack-modules/containers/go.mod"),
    go_sum: include_str!("../../stack-modules/containers/go.sum"),
};
pub(crate) const HELM_MODULE: Module = Module {
    name: "helm",
    go_mod: include_str!("../../stack-modules/helm/go.mod"),
    go_sum: include_str!("../../stack-modules/helm/go.sum"),
};
pub(crate) const KAFKA_POM: &str = include_str!("../../stack-modules/kafka/pom.xml");
pub(crate) const PID1_SOURCE: &str = include_str!("scripts/pid1.c");

/// A Go module that exists only to name the versions of the programs built from it.
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) go_mod: &'static str,
    pub(crate) go_sum: &'static str,
}

/// The project's cache: `$XDG_CACHE_HOME/pod-monitor`, else `~/.cache/pod-monitor`.
///
/// Fails when neither variable holds an absolute path.
pub fn cache_dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    anyhow::ensure!(base.is_absolute(), "the cache directory {} is not absolute", base.display());
    Ok(base.join("pod-monitor"))
}

/// Where this set of pinned versions is built: any change of a pin is another directory.
pub fn stack_dir() -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for input in [
        KUBERNETES_MODULE.go_mod,
        KUBERNETES_MODULE.go_sum,
        CONTAINERS_MODULE.go_mod,
        CONTAINERS_MODULE.go_sum,
        KAFKA_POM,
        PID1_SOURCE,
        super::build::RECIPE,
    ] {
        hash.update(input.len().to_le_bytes());
        hash.update(input);
    }
    let digest = super::image::hex(&hash.finalize()[..4]);
    Ok(cache_dir()?.join("stack").join(format!("k8s-{KUBERNETES}-kafka-{KAFKA}-{digest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_names_what_the_tests_run_on() {
        let readme = include_str!("../../../README.md");
        assert!(
            readme
                .contains(&format!("tested on Kubernetes {KUBERNETES}, Apache Kafka {KAFKA} (KRaft) and Helm {HELM}"))
        );
        let chart = include_str!("../../../deploy/helm/pod-monitor/Chart.yaml");
        let oldest = chart.split("kubeVersion: \">=").nth(1).and_then(|rest| rest.split(".0-0").next());
        assert!(readme.contains(&format!("The chart takes Kubernetes {} and later", oldest.expect("kubeVersion"))));
    }

    #[test]
    fn pinned_versions_are_those_of_the_modules() {
        for (module, path, version) in [
            (&KUBERNETES_MODULE, "k8s.io/kubernetes", KUBERNETES),
            (&KUBERNETES_MODULE, "go.etcd.io/etcd/server/v3", ETCD),
            (&CONTAINERS_MODULE, "github.com/containerd/containerd/v2", CONTAINERD),
            (&CONTAINERS_MODULE, "github.com/opencontainers/runc", RUNC),
            (&HELM_MODULE, "helm.sh/helm/v4", HELM),
        ] {
            let line = format!("{path} v{version}\n");
            assert!(module.go_mod.contains(&line), "{} does not require {}", module.name, line.trim());
        }
        assert!(KAFKA_POM.contains(&format!("<version>{KAFKA}</version>")));
    }
}

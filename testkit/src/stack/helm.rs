//! Helm, built once into the cache from its Go module: what the tests install the chart with.
//!
//! Version 4: version 3 gets no more mends, and this one builds with the Go that Kubernetes needs anyway. The chart
//! itself is of the form (`apiVersion: v2`) that both read.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::tool::Tool;
use super::versions::{HELM, HELM_MODULE, cache_dir};

/// Where the program is. Minutes the first time.
///
/// # Errors
/// When Go cannot build it.
pub fn ensure() -> Result<PathBuf> {
    Tool {
        folder: "helm",
        name: "helm",
        package: "helm.sh/helm/v4/cmd/helm",
        ld_flags: &format!("-X helm.sh/helm/v4/internal/version.version=v{HELM}"),
        sources: &[("go.mod", HELM_MODULE.go_mod), ("go.sum", HELM_MODULE.go_sum)],
    }
    .ensure()
}

/// A helm that knows nothing of its user's own settings, plug-ins and repositories.
///
/// # Errors
/// When Go cannot build it.
pub fn command() -> Result<Command> {
    let homes = cache_dir()?.join("helm/home");
    let mut command = Command::new(ensure()?);
    for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(home, &homes);
    }
    Ok(command)
}

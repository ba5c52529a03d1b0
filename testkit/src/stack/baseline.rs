//! The Go program that `cargo xtask bench handover` measures beside ours, built once into the cache.

use std::path::PathBuf;

use anyhow::Result;

use super::tool::Tool;

/// Name and text of each file.
const SOURCES: [(&str, &str); 3] = [
    ("main.go", include_str!("../../../benches/baseline-client-go/main.go")),
    ("go.mod", include_str!("../../../benches/baseline-client-go/go.mod")),
    ("go.sum", include_str!("../../../benches/baseline-client-go/go.sum")),
];

/// The program with client-go's leader election, of the Kubernetes that the stack is made of. Seconds when Kubernetes is
/// built already.
///
/// # Errors
/// When Go cannot build it.
pub fn client_go() -> Result<PathBuf> {
    Tool { folder: "baseline", name: "client-go", package: ".", ld_flags: "", sources: &SOURCES }.ensure()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::versions::KUBERNETES;

    #[test]
    fn the_baseline_is_of_the_same_kubernetes_as_the_stack() {
        let version = format!("k8s.io/client-go v0.{}", KUBERNETES.split_once('.').expect("a version has dots").1);
        assert!(SOURCES[1].1.contains(&version), "go.mod does not require {version}");
    }
}

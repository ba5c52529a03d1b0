//! The Go program that `cargo xtask bench handover` measures beside ours, built once into the cache.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::image::{hex, temporary_beside};
use super::process::checked;
use super::versions::cache_dir;

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
    let mut hash = Sha256::new();
    for (_, text) in SOURCES {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    let dir = cache_dir()?.join("baseline").join(hex(&hash.finalize()[..8]));
    let program = dir.join("client-go");
    fs::create_dir_all(&dir)?;
    let lock = File::create(dir.join("lock"))?;
    lock.lock().context("wait for the build lock")?;
    if program.exists() {
        return Ok(program);
    }
    eprintln!("building the baseline with client-go ...");
    for (name, text) in SOURCES {
        fs::write(dir.join(name), text)?;
    }
    let out = temporary_beside(&program);
    checked(
        Command::new("go")
            .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", "-s -w", "-o"])
            .args([out.as_os_str(), ".".as_ref()])
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off")
            .current_dir(&dir),
    )?;
    fs::rename(&out, &program).context("put the baseline in place")?;
    Ok(program)
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

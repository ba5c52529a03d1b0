//! cargo-deny: licences, sources and duplicates of the dependencies.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use testkit::stack::versions::cache_dir;

const VERSION: &str = "0.20.2";

/// The program, installed into the project's cache when it is not there yet (minutes, once).
pub(crate) fn ensure() -> Result<PathBuf> {
    let root = cache_dir()?.join("tools").join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    eprintln!("installing cargo-deny {VERSION}, once");
    let status = Command::new("cargo")
        .args(["install", "--quiet", "--locked", "--version", VERSION, "--root"])
        .arg(&root)
        .arg("cargo-deny")
        // Apart from our own target directory: nothing of it is shared, and it can go.
        .env("CARGO_TARGET_DIR", root.join("target"))
        .status()
        .context("run cargo install")?;
    anyhow::ensure!(status.success(), "cargo install cargo-deny: {status}");
    std::fs::remove_dir_all(root.join("target")).context("remove cargo-deny's build directory")?;
    Ok(program)
}

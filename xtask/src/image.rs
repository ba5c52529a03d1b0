//! `image`: builds the image of the monitor and loads it into a local stack.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use testkit::monitor_image::{self, TAG, sbom::Sbom};
use testkit::stack::{Packages, Stack};

use crate::{stack, suites};

/// Build the image of the monitor from the Dockerfile, without a registry or a daemon.
///
/// The base images are made from this machine's own /usr and Rust, so the result is for the local stack, not for
/// publishing. Needs root. The first build takes minutes.
///
/// Beside the archive it writes the image's bill of materials (CycloneDX 1.5): the crates that are linked into the
/// binary, and each other file of the image with its SHA-256 and Debian package.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask up && cargo xtask image --load\n  \
    cargo xtask image --profile image-test\n  \
    cargo xtask image --sbom pod-monitor.cdx.json    # and write what is in it")]
pub(crate) struct Image {
    /// The cargo profile; `image-test` builds in a part of the time.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Write its bill of materials (CycloneDX 1.5 JSON: crates, libraries, files) here, too; it always lies beside the
    /// archive.
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,
    /// Load it into a stack that is up.
    #[arg(long)]
    load: bool,
    /// The stack to load it into.
    #[arg(long, default_value = stack::DEFAULT_NAME, requires = "load")]
    name: String,
}

impl Image {
    pub(crate) fn run(self) -> Result<()> {
        Packages::ensure()?;
        // Before the build: minutes are not spent for a directory or a stack that is not there.
        if let Some(file) = &self.sbom {
            let directory = file.parent().filter(|directory| *directory != Path::new(""));
            let there = directory.is_none_or(Path::is_dir);
            anyhow::ensure!(there, "--sbom {}: create its directory first", file.display());
        }
        let stack = self.load.then(|| Stack::attach(&self.name)).transpose();
        let stack = stack.with_context(|| format!("start it by: cargo xtask up --name {}", self.name))?;
        let built = monitor_image::build(suites::workspace(), &self.profile)?;
        println!(
            "{TAG}: {:.1} MB, built in {:.0} s ({}), {}",
            built.bytes as f64 / 1e6,
            built.took.as_secs_f64(),
            self.profile,
            built.archive.display()
        );
        let (beside, sbom) = &built.sbom;
        if let Some(file) = &self.sbom {
            fs::write(file, sbom.text()).with_context(|| format!("write {}", file.display()))?;
        }
        print_sbom(self.sbom.as_ref().unwrap_or(beside), sbom);
        if let Some(stack) = stack {
            stack.load_image(&built.archive)?;
            println!("loaded into the stack {}", self.name);
        }
        Ok(())
    }
}

fn print_sbom(file: &Path, sbom: &Sbom) {
    println!(
        "SBOM: {} crates in the binary ({} more at compile time), {} libraries of {} Debian packages beside it, {}",
        sbom.linked,
        sbom.compile_time,
        sbom.libraries,
        sbom.packages,
        file.display()
    );
    for path in &sbom.unowned {
        println!("SBOM: {path} is of no Debian package of this machine");
    }
}

//! Go programs beside the stack's own: each is built once into the cache, in a directory named by its sources.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::image::{hex, temporary_beside};
use super::process::checked;
use super::versions::cache_dir;

/// A program to be built from a module of ours.
pub(crate) struct Tool<'a> {
    /// Of its directory in the cache.
    pub(crate) folder: &'a str,
    /// Of the program.
    pub(crate) name: &'a str,
    /// The package, `.` for the module's own.
    pub(crate) package: &'a str,
    /// Flags of the linker beside `-s -w`.
    pub(crate) ld_flags: &'a str,
    /// Name and text of each file of the module.
    pub(crate) sources: &'a [(&'a str, &'a str)],
}

impl Tool<'_> {
    /// Where the program is; builds it when it is not there yet. Fails when Go cannot.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        for (_, text) in self.sources {
            hash.update(text.len().to_le_bytes());
            hash.update(text);
        }
        let dir = cache_dir()?.join(self.folder).join(hex(&hash.finalize()[..8]));
        let program = dir.join(self.name);
        fs::create_dir_all(&dir)?;
        let lock = File::create(dir.join("lock"))?;
        lock.lock().context("wait for the build lock")?;
        if program.exists() {
            return Ok(program);
        }
        eprintln!("building {}, once ...", self.name);
        for (name, text) in self.sources {
            fs::write(dir.join(name), text)?;
        }
        let out = temporary_beside(&program);
        let flags = format!("-s -w {}", self.ld_flags);
        checked(
            Command::new("go")
                .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", flags.trim(), "-o"])
                .args([out.as_os_str(), self.package.as_ref()])
                .env("CGO_ENABLED", "0")
                .env("GOWORK", "off")
                .current_dir(&dir),
        )
        .with_context(|| format!("build {}", self.name))?;
        fs::rename(&out, &program).with_context(|| format!("put {} in place", program.display()))?;
        Ok(program)
    }
}

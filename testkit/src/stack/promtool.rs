//! promtool, which checks and tests the alerts: taken out of Debian's package of Prometheus, not installed with it,
//! since that would start a server.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::build::fresh_dir;
use super::packages::apt_get;
use super::process::{checked, find_program};
use super::versions::cache_dir;

/// Where the program is: on the PATH, else in the cache, where this puts it (20 MB, once).
///
/// # Errors
/// When the package cannot be had.
pub fn ensure() -> Result<PathBuf> {
    if let Some(program) = find_program("promtool") {
        return Ok(program);
    }
    let dir = cache_dir()?.join("tools/promtool");
    fs::create_dir_all(&dir)?;
    let program = dir.join("promtool");
    let lock = File::create(dir.join("lock"))?;
    lock.lock().context("wait for another download")?;
    if !program.exists() {
        let scratch = fresh_dir(&dir.join("package"))?;
        unpack(&scratch).context("take promtool out of the Debian package prometheus")?;
        fs::rename(scratch.join("files/usr/bin/promtool"), &program).context("put promtool in place")?;
        fs::remove_dir_all(scratch)?;
    }
    Ok(program)
}

fn unpack(scratch: &Path) -> Result<()> {
    let download = || checked(apt_get().args(["download", "prometheus"]).current_dir(scratch));
    if download().is_err() {
        // The list of packages is missing or names a version that is gone.
        checked(apt_get().arg("update")).context("update the list of packages")?;
        download()?;
    }
    let package = fs::read_dir(scratch)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .context("apt-get download left no package")?;
    checked(Command::new("dpkg-deb").arg("--extract").arg(package).arg(scratch.join("files")))?;
    Ok(())
}

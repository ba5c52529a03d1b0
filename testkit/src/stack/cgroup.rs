//! The cgroup directories of one stack: one in each hierarchy, in which everything of it runs.
//!
//! Two kubelets on one hierarchy would remove each other's pods' cgroups, so each stack has a subtree
//! of its own, and a cgroup namespace that shows it as the root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::process::{ProcessId, Signal};

const ROOT: &str = "/sys/fs/cgroup";

/// The directories named `name`, one per hierarchy, beneath our own cgroups. They are not there yet, so
/// that they can be written down before they are.
pub(crate) fn plan(name: &str) -> Result<Vec<PathBuf>> {
    let own = fs::read_to_string("/proc/self/cgroup").context("read our own cgroups")?;
    let dirs: Vec<PathBuf> = parents(&own, Path::new(ROOT)).iter().map(|parent| parent.join(name)).collect();
    anyhow::ensure!(!dirs.is_empty(), "no cgroup hierarchy is mounted in {ROOT}");
    Ok(dirs)
}

/// Creates what was planned.
pub(crate) fn create(dirs: &[PathBuf]) -> Result<()> {
    for dir in dirs {
        let parent = dir.parent().context("a cgroup has a parent")?;
        fs::create_dir(dir).with_context(|| format!("create the cgroup {}", dir.display()))?;
        // Version 1: a new cpuset is empty and admits no process until it has CPUs and memory nodes.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if dir.join(file).exists() && !dir.join("cgroup.controllers").exists() {
                let inherited = fs::read_to_string(parent.join(file))?;
                fs::write(dir.join(file), inherited.trim())
                    .with_context(|| format!("set {file} of {}", dir.display()))?;
            }
        }
    }
    Ok(())
}

/// The directory of each hierarchy in which a stack's cgroup goes, from the text of `/proc/self/cgroup`.
fn parents(own: &str, root: &Path) -> Vec<PathBuf> {
    let entries: Vec<(&str, &str)> = own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
    if let [("", _)] = entries[..] {
        // Version 2 alone: our own cgroup holds us, a process, and so cannot hand controllers down.
        return vec![root.to_path_buf()];
    }
    let mut dirs = Vec::new();
    for (controllers, path) in entries {
        let hierarchy = match controllers {
            "" => root.join("unified"),
            named => root.join(named.strip_prefix("name=").unwrap_or(named)),
        };
        let nested = hierarchy.join(path.trim_start_matches('/'));
        // In a container the path may be that of the machine, which is not mounted here.
        let parent = if nested.is_dir() { nested } else { hierarchy };
        if parent.is_dir() {
            dirs.push(parent);
        }
    }
    dirs
}

/// Ends what still runs in these cgroups, and removes them. `Ok(false)` when something is still there.
///
/// The directories must be a dead stack's: they were made for it alone.
pub(crate) fn remove(dirs: &[PathBuf]) -> Result<bool> {
    let mut gone = true;
    for dir in dirs {
        if dir.exists() {
            remove_tree(dir)?;
            gone &= !dir.exists();
        }
    }
    Ok(gone)
}

/// The processes in the cgroup named `name`, somewhere beneath these directories; none when there is no such cgroup.
pub(crate) fn members(dirs: &[PathBuf], name: &str) -> Result<Vec<ProcessId>> {
    // A container has a cgroup of that name in each hierarchy, with the same processes.
    let Some(dir) = dirs.iter().find_map(|dir| find(dir, name)) else {
        return Ok(Vec::new());
    };
    let members = fs::read_to_string(dir.join("cgroup.procs")).with_context(|| format!("read {}", dir.display()))?;
    Ok(members.lines().filter_map(|pid| ProcessId::of(pid.parse().ok()?)).collect())
}

/// The first directory of that name beneath `dir`.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let below = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let mut below: Vec<PathBuf> = below.collect();
    below.sort();
    let named = below.iter().find(|path| path.ends_with(name)).cloned();
    named.or_else(|| below.iter().find_map(|path| find(path, name)))
}

fn remove_tree(dir: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for process in members.lines().filter_map(|pid| ProcessId::of(pid.parse().ok()?)) {
        process.signal(Signal::KILL)?;
    }
    match fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        // Busy: what we just ended is not reaped yet. The caller looks again.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::ResourceBusy | std::io::ErrorKind::NotFound) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove the cgroup {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_nests_in_our_own_cgroups() {
        let root = std::env::temp_dir().join(format!("testkit-cgroup-{}", std::process::id()));
        for dir in ["memory/ours", "cpu,cpuacct", "systemd", "unified"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let cases = [
            ("version 2", "0::/user.slice\n", vec![""]),
            ("nested", "4:memory:/ours\n", vec!["memory/ours"]),
            ("not mounted here", "4:memory:/elsewhere\n", vec!["memory"]),
            ("hybrid", "2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n", vec!["cpu,cpuacct", "systemd", "unified"]),
        ];
        for (name, own, expected) in cases {
            let expected: Vec<PathBuf> = expected.iter().map(|dir| root.join(dir)).collect();
            assert_eq!(parents(own, &root), expected, "{name}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_container_is_found_on_any_node() {
        let root = std::env::temp_dir().join(format!("testkit-members-{}", std::process::id()));
        let deep = root.join("memory/node-2/kubepods/burstable/pod1/c0ffee");
        for dir in [root.join("cpu/kubepods"), root.join("memory/kubepods/pod2/decaf"), deep.clone()] {
            fs::create_dir_all(dir).unwrap();
        }
        let own = ProcessId::own().unwrap();
        fs::write(deep.join("cgroup.procs"), format!("{}\n", own.pid)).unwrap();
        let hierarchies = ["cpu", "memory"].map(|dir| root.join(dir));
        assert_eq!(members(&hierarchies, "c0ffee").unwrap(), [own]);
        assert_eq!(members(&hierarchies, "gone").unwrap(), []);
        fs::remove_dir_all(root).unwrap();
    }
}

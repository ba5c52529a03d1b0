//! The end of stacks: ordered (`down`), and of what the dead left behind (`sweep`).
//!
//! Ending a stack is ending its first process; the kernel and the undertaker do the rest. The sweep is
//! for stacks whose undertaker was killed too. Both check a process's start time before touching it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::{ProcessId, Signal};
use super::readiness::until;
use super::state::{State, lock_stacks, run_dir, stacks_dir};
use super::{cgroup, namespace, process};

const BURIAL_MAX: Duration = Duration::from_secs(20);

/// The names of all stacks that have a directory, dead or alive.
pub fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(stacks_dir()?)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Ends the stack named `name` and waits until nothing of it is left. `Ok(false)` when there was none.
pub fn down(name: &str) -> Result<bool> {
    let run = run_dir(name)?;
    if !run.exists() {
        return Ok(false);
    }
    if let Ok(state) = State::of_run(&run)
        && state.is_alive()?
    {
        if let Some(init) = state.init {
            init.signal(Signal::KILL)?;
        }
        await_burial(&run, state.undertaker)?;
    }
    sweep()?;
    anyhow::ensure!(!run.exists(), "the stack {name} is being booted by another process; end that");
    Ok(true)
}

/// Waits until the undertaker is done: the run directory is the last that it removes.
pub(crate) fn await_burial(run: &Path, undertaker: Option<ProcessId>) -> Result<()> {
    until("the stack's end", BURIAL_MAX, || {
        let at_work = undertaker.is_some_and(ProcessId::is_alive);
        Ok((!at_work || !run.exists()).then_some(()))
    })
}

/// Removes what dead stacks left: processes in their cgroups, the cgroups, files. Returns their names.
pub fn sweep() -> Result<Vec<String>> {
    let _lock = lock_stacks()?;
    sweep_locked()
}

/// The sweep, by a caller that holds the lock.
pub(crate) fn sweep_locked() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for name in names()? {
        let run = stacks_dir()?.join(&name);
        // Without a state it died while being made: the lock is held from making it to writing the state.
        let state = State::of_run(&run).ok();
        if let Some(state) = &state {
            if state.is_alive()? {
                continue;
            }
            until("the end of a dead stack's processes", BURIAL_MAX, || {
                let gone = cgroup::remove(&state.cgroups)? && namespace::link_is_gone(&run);
                Ok(gone.then_some(()))
            })
            .with_context(|| format!("sweep the stack {name}"))?;
        }
        remove_dir(&run)?;
        swept.push(name);
    }
    Ok(swept)
}

/// Removes a directory of which processes have only just ended.
pub(crate) fn remove_dir(run: &Path) -> Result<()> {
    until("the removal of a run directory", BURIAL_MAX, || match fs::remove_dir_all(run) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((!run.exists()).then_some(())),
        Err(error) => Err(error).with_context(|| format!("remove {}", run.display())),
    })
}

/// Keeps the logs of a stack that failed to boot, since its directory goes with it. Returns where.
pub(crate) fn keep_logs(run: &Path, name: &str) -> Result<std::path::PathBuf> {
    let kept = super::versions::cache_dir()?.join("failed").join(name);
    super::build::fresh_dir(&kept)?;
    super::warm::copy_dir(&run.join("log"), &kept)?;
    Ok(kept)
}

/// Reaps an undertaker that is our own child, within the limit; ends the stack the hard way beyond it.
pub(crate) fn reap(undertaker: &mut std::process::Child, init: Option<process::ProcessId>) -> Result<()> {
    let mut ended = |limit| until("the undertaker", limit, || Ok(undertaker.try_wait()?.map(|_| ())));
    if ended(BURIAL_MAX).is_ok() {
        return Ok(());
    }
    if let Some(init) = init {
        init.signal(Signal::KILL)?;
    }
    ended(BURIAL_MAX)
}

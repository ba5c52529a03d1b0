//! Processes named so that a re-used number cannot be mistaken for them, and running commands.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A signal to a component or a stack.
pub use rustix::process::Signal;

/// A process of this boot: its number and when it started, which together are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The number in the host's pid namespace.
    pub pid: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has the number now; `None` when there is none or it is a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (!stat.has_ended()).then_some(Self { pid, start_time: stat.start_time })
    }

    /// Our own.
    pub fn own() -> Result<Self> {
        Self::of(std::process::id().cast_signed()).context("read our own /proc/<pid>/stat")
    }

    /// Whether it still runs. A zombie does not.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Whether it is stopped by a signal.
    pub fn is_stopped(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.start_time == self.start_time && stat.state == 'T')
    }

    /// Sends a signal. `Ok(false)` when the process is gone already.
    pub fn signal(self, signal: Signal) -> Result<bool> {
        let Some(handle) = self.open()? else {
            return Ok(false);
        };
        match pidfd_send_signal(handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("send signal {} to {}", signal.as_raw(), self.pid)),
        }
    }

    /// A handle that stays with this process. The number is checked after opening, so the
    /// handle is of the process meant, whoever gets the number later.
    fn open(self) -> Result<Option<OwnedFd>> {
        let pid = Pid::from_raw(self.pid).context("a process number above zero")?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Ok(self.is_alive().then_some(handle)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open process {}", self.pid)),
        }
    }
}

/// The parts of `/proc/<pid>/stat` that we need.
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) start_time: u64,
    threads: usize,
}

impl Stat {
    /// All of it: after a SIGKILL the first thread is a zombie while the others still end, and until the last of them
    /// has, the process holds its ports.
    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }

    pub(crate) fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &str) -> Option<Self> {
        // The command in parentheses may hold anything, spaces and parentheses too.
        let (_, rest) = line.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
        })
    }
}

/// The numbers of all processes that we can see.
pub(crate) fn all_pids() -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").context("list /proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The living children of a process.
pub(crate) fn children(parent: i32) -> Result<Vec<ProcessId>> {
    Ok(all_pids()?
        .into_iter()
        .filter(|pid| Stat::read(*pid).is_some_and(|stat| stat.parent == parent))
        .filter_map(ProcessId::of)
        .collect())
}

/// Where `program` is on the PATH.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Runs a command to its end and returns its standard output.
///
/// Fails with what it wrote to standard error when it does not succeed.
pub fn checked(command: &mut Command) -> Result<String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    // A caller may have set the standard input before; `output` would not inherit one.
    let output =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().with_context(|| format!("run {shown}"))?;
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} {}: {}\n{}", arguments.join(" "), output.status, tail(&error, 30));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last `lines_max` lines of a text.
pub(crate) fn tail(text: &str, lines_max: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}

/// The last lines of a log file, each cut to 400 characters; says so when it cannot be read.
pub(crate) fn log_tail(file: &Path, lines_max: usize) -> String {
    match fs::read(file) {
        Ok(bytes) => tail(&String::from_utf8_lossy(&bytes), lines_max)
            .lines()
            .map(|line| format!("  {}\n", line.chars().take(400).collect::<String>()))
            .collect(),
        Err(error) => format!("  ({}: {error})\n", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_may_hold_anything() {
        let line = "7 (a) S 9) R 12 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 8";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_time), ('R', 12, 4711));
    }

    #[test]
    fn a_number_with_another_start_time_is_another_process() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        let other = ProcessId { start_time: own.start_time + 1, ..own };
        assert!(!other.is_alive());
        assert!(!other.signal(Signal::KILL).unwrap());
    }

    #[test]
    fn a_zombie_whose_threads_still_end_has_not_ended() {
        let line =
            |state: char, threads: u32| format!("9 (a b) {state} 1 9 9 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 77 0");
        let ended = |state, threads| Stat::parse(&line(state, threads)).unwrap().has_ended();
        assert!(ended('Z', 1) && ended('X', 0));
        assert!(!ended('Z', 3), "its ports are still taken");
        assert!(!ended('S', 1));
        assert_eq!(Stat::parse(&line('Z', 1)).unwrap().start_time, 77);
    }
}

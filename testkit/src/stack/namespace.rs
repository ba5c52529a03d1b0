//! The namespaces of one stack: made, entered, and gone with their first process.
//!
//! ```text
//!  owner (test, xtask) --pipe--> undertaker.sh (own session) -- unshare -- pid1 --+-- etcd, kube-apiserver,
//!                                                            inside: net, mount,  |   kafka, containerd,
//!                                                            pid, cgroup, ipc ... +-- kubelet, pods
//!                                                                                 |
//!                                     a further node's mount, cgroup, uts inside: +-- node.sh, containerd, kubelet, pods
//! ```
//! Promises: when the owner dies, pid1 reads the end of the pipe and ends; the kernel then ends all that
//! runs inside and drops mounts and network; the undertaker, outside, removes cgroups and files.
//! Must not: leave components as children of a process outside, since a stopped or killed parent would
//! never reap them, and a pid namespace ends only when all its dead are reaped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::{ProcessId, all_pids, checked, children, log_tail};
use super::readiness::until;

const FURNISH_MAX: Duration = Duration::from_secs(20);
const LINK_FILE: &str = "link";
/// 10.99.1.x to 10.99.250.x.
const STACKS_MAX: u8 = 250;

/// The namespaces of a stack or of a further node of it, seen from outside.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    run: PathBuf,
    init: ProcessId,
    node: u8,
}

/// The undertaker, and the pipe that keeps the stack alive.
pub(crate) struct Keeper {
    pub(crate) undertaker: Child,
    pub(crate) pipe: ChildStdin,
}

/// The scripts and directories by which namespaces with this run directory are made, entered and used.
pub(crate) fn prepare(run: &Path) -> Result<()> {
    for (name, script) in [
        ("undertaker.sh", include_str!("scripts/undertaker.sh")),
        ("inside.sh", include_str!("scripts/inside.sh")),
        ("node.sh", include_str!("scripts/node.sh")),
        ("furnish.sh", include_str!("scripts/furnish.sh")),
        ("enter.sh", include_str!("scripts/enter.sh")),
        ("network.sh", include_str!("scripts/network.sh")),
    ] {
        fs::write(run.join(name), script)?;
    }
    for dir in ["inside/lib", "inside/log", "log", "tmp", "home", "services"] {
        fs::create_dir_all(run.join(dir))?;
    }
    Ok(())
}

/// Starts the undertaker. Its first process inside is found by [`Namespace::await_init`].
pub(crate) fn open(run: &Path, cache: &Path, pid1: &Path) -> Result<Keeper> {
    prepare(run)?;
    let log = fs::File::create(run.join("log/namespace.log"))?;
    let mut undertaker = Command::new("setsid")
        .arg("sh")
        .arg(run.join("undertaker.sh"))
        .args([run, cache, pid1])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the undertaker")?;
    let pipe = undertaker.stdin.take().context("the undertaker's standard input is a pipe")?;
    Ok(Keeper { undertaker, pipe })
}

impl Namespace {
    /// The namespaces whose first process is `init`.
    pub(crate) fn of(run: &Path, init: ProcessId) -> Self {
        Self { run: run.to_path_buf(), init, node: 1 }
    }

    /// Makes the namespaces of a further node in those of its stack: its own mounts, cgroups and host name; the same
    /// network and processes. `run` is prepared, and lists the node's cgroups.
    pub(crate) fn divide(&self, run: &Path, cache: &Path, node: u8) -> Result<Self> {
        let (log, script) = (run.join("log/namespace.log"), run.join("node.sh"));
        let mut command: Vec<String> =
            ["unshare", "--mount", "--cgroup", "--uts", "--", "sh"].map(String::from).to_vec();
        command.extend([script.as_path(), run, cache].map(|path| path.display().to_string()));
        command.push(node_name(node));
        // In the node's cgroups already: its cgroup namespace is rooted there.
        let holder = Self { run: run.to_path_buf(), ..self.clone() }.spawn(&command, &log)?;
        let found = until("the node's namespaces", FURNISH_MAX, || {
            anyhow::ensure!(holder.is_alive(), "{} ended", script.display());
            Ok(run.join("inside-ready").exists().then_some(()))
        });
        found.with_context(|| format!("namespace.log:\n{}", log_tail(&log, 20)))?;
        Ok(Self { run: run.to_path_buf(), init: holder, node })
    }

    /// The directory in which everything that runs here has its files.
    pub(crate) fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Which of the stack's nodes this is; the stack itself is the first.
    pub(crate) fn node(&self) -> u8 {
        self.node
    }

    /// Waits until the undertaker has furnished the namespaces.
    pub(crate) fn await_init(run: &Path, keeper: &mut Keeper) -> Result<Self> {
        let found = until("the stack's namespaces", FURNISH_MAX, || {
            let ended = keeper.undertaker.try_wait()?;
            anyhow::ensure!(ended.is_none(), "the undertaker ended ({ended:?})");
            Ok(run.join("inside-ready").exists().then_some(()))
        });
        found.with_context(|| format!("namespace.log:\n{}", log_tail(&run.join("log/namespace.log"), 20)))?;
        let undertaker = keeper.undertaker.id().cast_signed();
        let unshare = children(undertaker)?.pop().context("the undertaker has a child")?;
        let init = children(unshare.pid)?.pop().context("unshare has a child")?;
        Ok(Self::of(run, init))
    }

    /// The first process inside, by its number outside.
    pub(crate) fn init(&self) -> ProcessId {
        self.init
    }

    /// Joins the stack to the machine by a veth pair and returns the stack's number.
    ///
    /// The name of the outer end reserves the number: the kernel admits each name once. Since the other
    /// end is born inside, the pair cannot outlive the stack.
    pub(crate) fn connect(&self) -> Result<u8> {
        let init = self.init.pid.to_string();
        for number in 1..=STACKS_MAX {
            let link = link_name(number);
            if Path::new("/sys/class/net").join(&link).exists() {
                continue;
            }
            let created = Command::new("ip")
                .args(["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &init])
                .output()
                .context("run ip")?;
            if !created.status.success() {
                let error = String::from_utf8_lossy(&created.stderr);
                anyhow::ensure!(error.contains("File exists"), "create the veth pair {link}: {error}");
                continue;
            }
            let outer = format!("10.99.{number}.1");
            let inner = node_address(number, self.node);
            record_link(&self.run, &link)?;
            checked(Command::new("ip").args(["addr", "add", &format!("{outer}/24"), "dev", &link]))?;
            checked(Command::new("ip").args(["link", "set", &link, "up"]))?;
            self.run(&["sh", &self.run.join("network.sh").display().to_string(), &number.to_string()], Stdio::null())?;
            // Tests may call pods directly.
            checked(Command::new("ip").args(["route", "add", &pod_cidr(number, self.node), "via", &inner]))?;
            return Ok(number);
        }
        anyhow::bail!("all {STACKS_MAX} stack addresses are taken")
    }

    /// Runs a program inside to its end and returns its standard output.
    pub(crate) fn run(&self, arguments: &[&str], stdin: Stdio) -> Result<String> {
        checked(self.enter().args(arguments).stdin(stdin))
    }

    /// Starts a program inside that goes on by itself, its output appended to `log`.
    ///
    /// It becomes a child of pid1, which reaps it.
    pub(crate) fn spawn(&self, arguments: &[String], log: &Path) -> Result<ProcessId> {
        const BACKGROUND: &str = "log=$1; shift; cd /; setsid \"$@\" >>\"$log\" 2>&1 </dev/null & echo $!";
        let inner =
            checked(self.enter().args(["sh", "-c", BACKGROUND, "sh"]).arg(log).args(arguments).stdin(Stdio::null()))?;
        let inner = inner.trim();
        self.find(inner)?.with_context(|| format!("{arguments:?} ended at once:\n{}", log_tail(log, 20)))
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("sh");
        command.arg(self.run.join("enter.sh")).arg(&self.run).arg(self.init.pid.to_string());
        command
    }

    /// The process that has the number `inner` inside.
    fn find(&self, inner: &str) -> Result<Option<ProcessId>> {
        let namespace =
            fs::read_link(format!("/proc/{}/ns/pid", self.init.pid)).context("the stack's first process is gone")?;
        for pid in all_pids()? {
            let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
                continue;
            };
            let Some(numbers) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else {
                continue;
            };
            let numbers: Vec<&str> = numbers.split_ascii_whitespace().collect();
            // Deeper namespaces (pods) have more numbers: compare the namespace as well.
            if numbers.last() == Some(&inner)
                && fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|found| found == namespace)
            {
                return Ok(ProcessId::of(pid));
            }
        }
        Ok(None)
    }
}

/// Writes down which link is ours: the name alone may be another stack's later.
fn record_link(run: &Path, link: &str) -> Result<()> {
    let index = link_index(link).with_context(|| format!("the link {link} is gone at once"))?;
    fs::write(run.join(LINK_FILE), format!("{link} {index}\n")).context("record the link")
}

/// Whether a dead stack's link is gone: the kernel removes it some time after the last process.
pub(crate) fn link_is_gone(run: &Path) -> bool {
    let recorded = fs::read_to_string(run.join(LINK_FILE)).unwrap_or_default();
    recorded.trim().split_once(' ').is_none_or(|(link, index)| link_index(link).as_deref() != Some(index))
}

fn link_index(link: &str) -> Option<String> {
    let file = Path::new("/sys/class/net").join(link).join("ifindex");
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

/// The outer end of stack `number`'s veth pair.
pub(crate) fn link_name(number: u8) -> String {
    format!("pod-monitor{number}")
}

/// The name of a node, which is its host name, too.
pub(crate) fn node_name(node: u8) -> String {
    format!("node-{node}")
}

/// The address of a node of stack `number`; the first node's is the stack's.
pub(crate) fn node_address(number: u8, node: u8) -> String {
    format!("10.99.{number}.{}", node + 1)
}

/// The addresses of a node's pods in stack `number`.
pub(crate) fn pod_cidr(number: u8, node: u8) -> String {
    format!("10.{}.{number}.0/24", 243 + u16::from(node))
}

/// The bridge to which a node's pods are linked: all nodes share the stack's network namespace.
pub(crate) fn bridge(node: u8) -> String {
    format!("cni{}", node - 1)
}

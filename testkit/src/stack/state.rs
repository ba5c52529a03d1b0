//! What a stack leaves on disk for other processes: where it is reached, and who keeps it alive.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::files::{CUT_PORTS, JAVA_QUICK, JAVA_SHIPPED, MTLS_PORT, SCRAM_PORT};
use super::process::ProcessId;
use super::versions::cache_dir;

/// The variable with the broker's `host:port`.
pub const KAFKA_VARIABLE: &str = "POD_MONITOR_TEST_KAFKA";
/// The variable with the path of the stack's state file.
pub const STACK_VARIABLE: &str = "POD_MONITOR_TEST_STACK";

/// How much is booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Kubernetes with a node that runs pods, and Kafka.
    #[default]
    Full,
    /// etcd and the API server: objects, watches and Leases, but nothing that acts on them.
    ApiServer,
    /// The broker alone.
    Kafka,
}

impl Profile {
    /// Whether there is an API server.
    pub fn has_api_server(self) -> bool {
        self != Self::Kafka
    }

    /// Whether there is a broker.
    pub fn has_kafka(self) -> bool {
        self != Self::ApiServer
    }
}

/// What the broker runs for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broker {
    /// Tests: up within seconds, in little memory.
    #[default]
    Quick,
    /// Measurements: as Kafka's own scripts start it.
    AsShipped,
}

impl Broker {
    pub(crate) fn java(self) -> &'static [&'static str] {
        match self {
            Self::Quick => JAVA_QUICK,
            Self::AsShipped => JAVA_SHIPPED,
        }
    }
}

/// Where a stack is reached. The addresses are the same inside (pods too) and outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoints {
    /// The stack's name.
    pub name: String,
    /// What it consists of.
    pub profile: Profile,
    /// The `n` of its addresses: 10.99.n.2 for itself, 10.244.n.0/24 for its pods.
    pub number: u8,
    /// The machine's address on the stack's network.
    pub host_address: String,
    /// The stack's own address.
    pub address: String,
    /// URL of the API server.
    pub api_server: String,
    /// `host:port` of the broker.
    pub kafka: String,
    /// Admin access to the API server, its certificate verified.
    pub kubeconfig: PathBuf,
    /// The certificate authority of the API server.
    pub ca: PathBuf,
    /// kubectl and the other programs.
    pub bin_dir: PathBuf,
    /// One log per component.
    pub log_dir: PathBuf,
    /// Everything else of this stack.
    pub run_dir: PathBuf,
}

impl Endpoints {
    /// The stack that `xtask up` or `xtask test` told us of.
    ///
    /// Fails when the variable is unset or the file cannot be read: a suite without its server fails.
    pub fn from_env() -> Result<Self> {
        let file = std::env::var_os(STACK_VARIABLE).with_context(|| {
            format!("{STACK_VARIABLE} is not set: run by `cargo xtask test`, or after `cargo xtask up`")
        })?;
        State::read(Path::new(&file))?.endpoints.context("the stack is not up yet")
    }

    /// Ways to the broker that a proxy of ours can cut: (where the proxy listens, where it connects to). Clients
    /// bootstrap at the first and are told of no other.
    pub fn kafka_cuts(&self) -> [(String, String); 3] {
        CUT_PORTS.map(|port| (format!("{}:{port}", self.host_address), format!("{}:{port}", self.address)))
    }

    /// `host:port` of the broker's listener with TLS where clients log in by SCRAM-SHA-512.
    pub fn kafka_scram(&self) -> String {
        format!("{}:{SCRAM_PORT}", self.address)
    }

    /// `host:port` of the broker's listener with TLS that asks for a certificate of [`Endpoints::kafka_authority`].
    pub fn kafka_mtls(&self) -> String {
        format!("{}:{MTLS_PORT}", self.address)
    }

    /// Who vouches for the broker, and for those who come in by certificate.
    pub fn kafka_authority(&self) -> Authority {
        Authority::at(self.kafka_pki())
    }

    pub(crate) fn kafka_pki(&self) -> PathBuf {
        self.run_dir.join("kafka-pki")
    }

    /// kubectl with admin access to this stack.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.bin_dir.join("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// The variables by which a child process finds this stack.
    pub fn variables(&self) -> Result<BTreeMap<&'static str, OsString>> {
        let mut path = vec![self.bin_dir.clone()];
        path.extend(
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).filter(|dir| *dir != self.bin_dir),
        );
        let mut variables =
            BTreeMap::from([("PATH", std::env::join_paths(path)?), (STACK_VARIABLE, self.run_dir.join(FILE).into())]);
        if self.profile.has_api_server() {
            variables.insert("KUBECONFIG", self.kubeconfig.clone().into());
        }
        if self.profile.has_kafka() {
            variables.insert(KAFKA_VARIABLE, self.kafka.clone().into());
        }
        Ok(variables)
    }
}

const FILE: &str = "state.json";

/// The state file: first who owns the stack, so that leftovers are known, later the rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Process numbers and start times mean nothing after a reboot.
    pub(crate) boot_id: String,
    pub(crate) owner: ProcessId,
    /// Whether the stack outlives its owner.
    pub(crate) detached: bool,
    pub(crate) undertaker: Option<ProcessId>,
    pub(crate) init: Option<ProcessId>,
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) endpoints: Option<Endpoints>,
}

impl State {
    pub(crate) fn new(cgroups: Vec<PathBuf>) -> Result<Self> {
        let owner = ProcessId::own()?;
        Ok(Self { boot_id: boot_id()?, owner, detached: false, undertaker: None, init: None, cgroups, endpoints: None })
    }

    /// Whether somebody still keeps or buries the stack.
    pub(crate) fn is_alive(&self) -> Result<bool> {
        let keeper = [self.undertaker, self.init].into_iter().flatten().any(ProcessId::is_alive);
        let booting = self.undertaker.is_none() && self.owner.is_alive();
        Ok(self.boot_id == boot_id()? && (keeper || booting))
    }

    pub(crate) fn read(file: &Path) -> Result<Self> {
        let bytes = fs::read(file).with_context(|| format!("no stack: read {}", file.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", file.display()))
    }

    pub(crate) fn of_run(run: &Path) -> Result<Self> {
        Self::read(&run.join(FILE))
    }

    pub(crate) fn write(&self, run: &Path) -> Result<()> {
        let temporary = run.join(".state.json");
        fs::write(&temporary, serde_json::to_vec_pretty(self)?)?;
        // The undertaker's list, in a form that a shell reads.
        let cgroups: String = self.cgroups.iter().map(|dir| format!("{}\n", dir.display())).collect();
        fs::write(run.join("cgroups"), cgroups)?;
        fs::rename(temporary, run.join(FILE)).with_context(|| format!("write the state in {}", run.display()))
    }
}

/// The directory of all stacks, created when absent.
pub(crate) fn stacks_dir() -> Result<PathBuf> {
    let dir = cache_dir()?.join("run");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// Held while stacks are listed, created or swept.
pub(crate) fn lock_stacks() -> Result<File> {
    let file = File::create(stacks_dir()?.join(".lock"))?;
    file.lock().context("lock the list of stacks")?;
    Ok(file)
}

/// The directory of the stack named `name`.
///
/// Fails on a name that is not lower-case letters, digits and dashes, at most 40.
pub(crate) fn run_dir(name: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = !name.is_empty() && name.len() <= 40 && name.chars().all(plain);
    anyhow::ensure!(good, "a stack's name is 1 to 40 of a-z, 0-9 and -, not {name:?}");
    Ok(stacks_dir()?.join(name))
}

fn boot_id() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot id")?;
    Ok(text.trim().to_owned())
}

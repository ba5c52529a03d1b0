//! The programs of a stack, and how each is started. Starting again is by the same recorded command,
//! so that any process, not only the one that booted the stack, can kill and restart a component.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::build::Artifacts;
use super::files::{CONTAINERD_SOCKET, JAVA_FLAGS};
use super::namespace::{Namespace, node_name};
use super::process::ProcessId;
use super::state::Broker;
use super::warm;

/// The clients' own limits are meant for shared API servers; here they cost seconds of each boot.
const UNTHROTTLED: [&str; 2] = ["--kube-api-qps=500", "--kube-api-burst=1000"];

/// A program of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// The API server's store.
    Etcd,
    /// The Kubernetes API.
    KubeApiserver,
    /// Service accounts, garbage collection, Jobs and the like.
    KubeControllerManager,
    /// Binds pods to the node.
    KubeScheduler,
    /// Runs containers.
    Containerd,
    /// The node's agent.
    Kubelet,
    /// Makes Services reachable; only after [`super::Stack::start_proxy`].
    KubeProxy,
    /// The broker, which is its own controller.
    Kafka,
}

impl Component {
    /// All, in the order of `status`.
    pub const ALL: [Self; 8] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Containerd,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Kafka,
    ];

    /// The name of its program, log and record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Kafka => "kafka",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A component that was started: by what, and as which process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Which one.
    pub component: Component,
    /// The whole command, environment included.
    pub command: Vec<String>,
    /// Its output, over all restarts.
    pub log: PathBuf,
    /// The process last started.
    pub process: ProcessId,
}

impl Service {
    /// Starts a component inside and records it.
    pub(crate) fn start(run: &Path, namespace: &Namespace, component: Component, command: Vec<String>) -> Result<Self> {
        let log = log_file(run, component);
        let process = namespace.spawn(&command, &log).with_context(|| format!("start {component}"))?;
        let service = Self { component, command, log, process };
        let record = record_file(run, component);
        let temporary = record.with_extension("new");
        fs::write(&temporary, serde_json::to_vec_pretty(&service)?)?;
        fs::rename(&temporary, &record)?;
        Ok(service)
    }

    /// The record of a component; `None` when this stack never started it.
    pub(crate) fn load(run: &Path, component: Component) -> Result<Option<Self>> {
        match fs::read(record_file(run, component)) {
            Ok(bytes) => {
                Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("the record of {component}"))?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read the record of {component}")),
        }
    }
}

pub(crate) fn log_file(run: &Path, component: Component) -> PathBuf {
    run.join("log").join(format!("{component}.log"))
}

fn record_file(run: &Path, component: Component) -> PathBuf {
    run.join("services").join(format!("{component}.json"))
}

/// What the commands are made of.
pub(crate) struct Commands<'a> {
    pub(crate) run: &'a Path,
    pub(crate) artifacts: &'a Artifacts,
    /// The address of the node; the first one's is the stack's own.
    pub(crate) address: &'a str,
    /// Which node.
    pub(crate) node: u8,
    /// What the broker runs for.
    pub(crate) broker: Broker,
}

impl Commands<'_> {
    /// The command of a component.
    pub(crate) fn of(&self, component: Component) -> Result<Vec<String>> {
        let arguments = match component {
            Component::Etcd => self.etcd(),
            Component::KubeApiserver => self.api_server(),
            Component::KubeControllerManager => self.controller_manager(),
            Component::KubeScheduler => self.scheduler(),
            Component::Containerd => vec!["--config".into(), self.path("containerd.toml")],
            Component::Kubelet => self.kubelet(),
            Component::KubeProxy => self.proxy(),
            Component::Kafka => return self.broker(&self.run.join("kafka.properties")),
        };
        Ok(self.whole(&self.artifacts.bin().join(component.name()), arguments))
    }

    /// The command of a broker with these properties.
    pub(crate) fn broker(&self, properties: &Path) -> Result<Vec<String>> {
        let java = super::process::find_program("java").context("java is not on the PATH")?;
        Ok(self.whole(&java, self.kafka(properties)?))
    }

    fn whole(&self, program: &Path, arguments: Vec<String>) -> Vec<String> {
        let mut command = vec!["env".into(), "-i".into()];
        command.push(format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", self.artifacts.bin().display()));
        command.push(format!("HOME={}", self.path("home")));
        command.push(format!("TMPDIR={}", self.path("tmp")));
        command.push(program.display().to_string());
        command.extend(arguments);
        command
    }

    fn path(&self, inner: &str) -> String {
        self.run.join(inner).display().to_string()
    }

    fn flag(&self, name: &str, inner: &str) -> String {
        format!("--{name}={}", self.path(inner))
    }

    fn etcd(&self) -> Vec<String> {
        let mut flags = vec![self.flag("data-dir", "etcd")];
        // Tests kill processes, not machines: the page cache outlives etcd, so syncing buys nothing.
        flags.push("--unsafe-no-fsync".into());
        for (name, port) in [
            ("listen-client-urls", 2379),
            ("advertise-client-urls", 2379),
            ("listen-peer-urls", 2380),
            ("initial-advertise-peer-urls", 2380),
        ] {
            flags.push(format!("--{name}=http://127.0.0.1:{port}"));
        }
        flags.push("--initial-cluster=default=http://127.0.0.1:2380".into());
        flags
    }

    fn api_server(&self) -> Vec<String> {
        let address = self.address;
        let mut flags: Vec<String> = [
            "--etcd-servers=http://127.0.0.1:2379",
            "--secure-port=6443",
            "--bind-address=0.0.0.0",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--feature-gates=ShardedListAndWatch=true,PodLogsQuerySplitStreams=true",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            "--allow-privileged=true",
            // On shutdown, end at once: tests restart it often.
            "--shutdown-delay-duration=0s",
        ]
        .map(String::from)
        .to_vec();
        flags.push(format!("--advertise-address={address}"));
        for (name, file) in [
            ("cert-dir", "pki"),
            ("tls-cert-file", "pki/apiserver.crt"),
            ("tls-private-key-file", "pki/apiserver.key"),
            ("kubelet-client-certificate", "pki/apiserver.crt"),
            ("kubelet-client-key", "pki/apiserver.key"),
            ("service-account-key-file", "pki/sa.pub"),
            ("service-account-signing-key-file", "pki/sa.key"),
            ("token-auth-file", "pki/tokens.csv"),
        ] {
            flags.push(self.flag(name, file));
        }
        flags
    }

    fn scheduler(&self) -> Vec<String> {
        let mut flags = vec![self.flag("kubeconfig", "kubeconfig"), "--leader-elect=false".into()];
        flags.extend(UNTHROTTLED.map(String::from));
        flags
    }

    fn controller_manager(&self) -> Vec<String> {
        let mut flags = vec![
            self.flag("kubeconfig", "kubeconfig"),
            self.flag("service-account-private-key-file", "pki/sa.key"),
            self.flag("root-ca-file", "pki/ca.crt"),
            "--leader-elect=false".into(),
            // Tests bind pods to a node that does not exist; it would delete them all, now and then, once that is 40 s old.
            "--controllers=*,-pod-garbage-collector-controller".into(),
        ];
        flags.extend(UNTHROTTLED.map(String::from));
        flags
    }

    fn kubelet(&self) -> Vec<String> {
        vec![
            self.flag("config", "kubelet.json"),
            self.flag("kubeconfig", "kubeconfig"),
            self.flag("root-dir", "kubelet"),
            self.flag("cert-dir", "kubelet-pki"),
            format!("--hostname-override={}", node_name(self.node)),
            format!("--node-ip={}", self.address),
        ]
    }

    fn proxy(&self) -> Vec<String> {
        let mut flags = vec![
            self.flag("kubeconfig", "kubeconfig"),
            format!("--hostname-override={}", node_name(self.node)),
            format!("--healthz-bind-address={}:10256", self.address),
        ];
        let fixed = [
            "--proxy-mode=iptables",
            // Else the answer of a pod on the caller's own bridge takes the short way, past the translation of addresses.
            "--masquerade-all=true",
            "--iptables-localhost-nodeports=false",
            "--iptables-min-sync-period=100ms",
            "--metrics-bind-address=127.0.0.1:10249",
            // The limits of connections are the machine's, not ours to set.
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        ];
        flags.extend(fixed.map(String::from));
        flags
    }

    fn kafka(&self, properties: &Path) -> Result<Vec<String>> {
        let mut flags: Vec<String> =
            self.broker.java().iter().chain(JAVA_FLAGS).map(|flag| (*flag).to_owned()).collect();
        flags.push(format!("-XX:SharedArchiveFile={}", self.artifacts.kafka_classes().display()));
        flags.extend([
            "-cp".into(),
            warm::class_path(self.artifacts)?,
            "kafka.Kafka".into(),
            properties.display().to_string(),
        ]);
        Ok(flags)
    }
}

/// The arguments of `ctr` for the kubelet's images and containers.
pub(crate) fn ctr(artifacts: &Artifacts) -> [String; 5] {
    let program = artifacts.bin().join("ctr").display().to_string();
    [program, "--address".into(), CONTAINERD_SOCKET.into(), "--namespace".into(), "k8s.io".into()]
}

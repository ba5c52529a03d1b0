//! A further node of a running stack: what drains, spread and Services between nodes need. Made in seconds when asked
//! for, so that the usual stack stays as quick and as small as it is.
//!
//! ```text
//!  the stack's namespaces: net, pid, ipc -+- mount, cgroup, uts of its own -- etcd, ..., kubelet (node-1) -- cni0
//!                                         +- mount, cgroup, uts, held by node.sh --- containerd, kubelet (node-2) -- cni1
//! ```
//! Promises: it ends with its stack; after [`Node::remove`] no process, mount, cgroup, address, link or file of it is
//! left. Pods come there only if they tolerate [`NODE_TAINT`], or are bound to it by name.
//! Must not: share a directory or a cgroup with another node, whose kubelet would clean up what it does not know.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::boot::{self, Boot};
use super::build::Artifacts;
use super::component::{Component, Service};
use super::namespace::{self, Namespace, bridge, node_address, node_name, pod_cidr};
use super::process::{Signal, checked};
use super::readiness::until;
use super::state::{Broker, Endpoints, Profile, State};
use super::{cgroup, cleanup, versions};

pub use super::files::NODE_TAINT;

/// Its number. One is enough for everything that needs several.
const SECOND: u8 = 2;
/// How long its processes may take to be gone, once killed.
const END_MAX: Duration = Duration::from_secs(20);

/// The second node of a stack. Ends with the stack; not when dropped.
#[derive(Debug)]
pub struct Node {
    endpoints: Endpoints,
    artifacts: Artifacts,
    /// The stack's.
    stack: Namespace,
    run: PathBuf,
    cgroups: Vec<PathBuf>,
    /// Once it is there.
    namespace: Option<Namespace>,
}

impl Node {
    /// Adds it and waits until it is ready. Fails when the stack runs no pods or has a second node.
    pub(super) fn add(endpoints: &Endpoints, artifacts: &Artifacts, stack: &Namespace) -> Result<Self> {
        anyhow::ensure!(endpoints.profile == Profile::Full, "a stack of this profile runs no pods; boot the full one");
        let run = endpoints.run_dir.join(node_name(SECOND));
        fs::create_dir(&run).with_context(|| format!("the stack has a second node already ({})", run.display()))?;
        let cgroups: Vec<PathBuf> =
            State::of_run(&endpoints.run_dir)?.cgroups.iter().map(|dir| dir.join(node_name(SECOND))).collect();
        let mut node = Self {
            endpoints: endpoints.clone(),
            artifacts: artifacts.clone(),
            stack: stack.clone(),
            run,
            cgroups,
            namespace: None,
        };
        match node.start() {
            Ok(()) => Ok(node),
            Err(error) => {
                let error = error.context(format!("add {}", node.name()));
                match node.bury() {
                    Ok(()) => Err(error),
                    Err(left) => Err(error.context(format!("{left:#}; after this"))),
                }
            }
        }
    }

    fn start(&mut self) -> Result<()> {
        namespace::prepare(&self.run)?;
        let cgroups: String = self.cgroups.iter().map(|dir| format!("{}\n", dir.display())).collect();
        fs::write(self.run.join("cgroups"), cgroups)?;
        cgroup::create(&self.cgroups)?;
        let namespace = self.stack.divide(&self.run, &versions::cache_dir()?, SECOND)?;
        let number = self.endpoints.number;
        self.inside(&["ip", "addr", "add", &format!("{}/24", self.address()), "dev", "eth0"])?;
        // Tests may call its pods directly, as those of the first node.
        route("add", number, &self.endpoints.address)?;
        Boot { endpoints: &self.endpoints, artifacts: &self.artifacts, namespace: &namespace, broker: Broker::Quick }
            .further_node()?;
        self.namespace = Some(namespace);
        Ok(())
    }

    /// Its name in the cluster.
    pub fn name(&self) -> String {
        node_name(SECOND)
    }

    /// Its address, the same inside and outside.
    pub fn address(&self) -> String {
        node_address(self.endpoints.number, SECOND)
    }

    /// Its logs, one per component, and everything else of it.
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Loads an image archive, as [`super::Stack::load_image`] does for the first node.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let namespace = self.namespace.as_ref().context("a node that was added has its namespaces")?;
        boot::load_image(&self.artifacts, namespace, archive)
    }

    /// Sends a signal to a component of it. Fails when it is dead already.
    pub fn signal(&self, component: Component, signal: Signal) -> Result<()> {
        let service = Service::load(&self.run, component)?.with_context(|| format!("the node has no {component}"))?;
        anyhow::ensure!(service.process.signal(signal)?, "{component} is dead");
        Ok(())
    }

    /// Drains it, takes it out of the cluster and ends all of it.
    pub fn remove(self) -> Result<()> {
        let name = self.name();
        // Not by evictions: nothing is to hold up the end.
        let how = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", "--disable-eviction", "--timeout=60s"];
        let known = self.kubectl(&["get", "node", &name, "--ignore-not-found", "--output=name"]);
        let drained = match known {
            // A test took it out of the cluster: nothing is left to drain.
            Ok(none) if none.trim().is_empty() => Ok(none),
            _ => self.kubectl(&[&["drain", &name][..], &how].concat()),
        };
        // Whatever came of that, it ends.
        self.bury()?;
        drained.map(|_| ())
    }

    /// Ends its processes, then takes away what they leave: in the cluster, the network, the cgroups, on disk.
    fn bury(&self) -> Result<()> {
        until("the end of the node's processes", END_MAX, || Ok(cgroup::remove(&self.cgroups)?.then_some(())))?;
        let name = self.name();
        // Without a kubelet nobody confirms the end of pods that are still bound to it, such as those of DaemonSets.
        let bound = format!("--field-selector=spec.nodeName={name}");
        let orphans = ["delete", "pods", "--all-namespaces", &bound, "--force", "--grace-period=0", "--wait=false"];
        let forgotten =
            self.kubectl(&orphans).and_then(|_| self.kubectl(&["delete", "node", &name, "--ignore-not-found"]));
        self.unlink()?;
        cleanup::remove_dir(&self.run)?;
        forgotten.map(|_| ())
    }

    /// Takes away its address, its route and its bridge, as far as they came into being.
    fn unlink(&self) -> Result<()> {
        let (bridge, cidr) = (bridge(SECOND), format!("{}/24", self.address()));
        if self.inside(&["ip", "-o", "addr", "show", "dev", "eth0"])?.contains(&cidr) {
            self.inside(&["ip", "addr", "del", &cidr, "dev", "eth0"])?;
        }
        let pods = pod_cidr(self.endpoints.number, SECOND);
        if !checked(Command::new("ip").args(["route", "show", &pods]))?.trim().is_empty() {
            route("del", self.endpoints.number, &self.endpoints.address)?;
        }
        // The plug-in makes it for the first pod.
        if !self.inside(&["ip", "-o", "link", "show", "type", "bridge"])?.contains(&format!(" {bridge}:")) {
            return Ok(());
        }
        // The kernel takes away the links of killed pods a moment after their last process.
        until("the end of the links of the node's pods", END_MAX, || {
            Ok(self.inside(&["ip", "-o", "link", "show", "master", &bridge])?.trim().is_empty().then_some(()))
        })?;
        self.inside(&["ip", "link", "del", &bridge])?;
        Ok(())
    }

    fn inside(&self, arguments: &[&str]) -> Result<String> {
        self.stack.run(arguments, Stdio::null())
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        checked(self.endpoints.kubectl().args(arguments).stdin(Stdio::null()))
    }
}

/// Adds or deletes the machine's route to the pods of the second node.
fn route(change: &str, number: u8, via: &str) -> Result<()> {
    checked(Command::new("ip").args(["route", change, &pod_cidr(number, SECOND), "via", via]))?;
    Ok(())
}

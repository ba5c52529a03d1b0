//! The order of a boot: what waits for what, and how each part is seen to be ready.
//!
//! ```text
//!  namespaces - address -+- Kafka ---------------------------------------------+
//!                        +- containerd - images ------------------+            +- up
//!                        +- certificates - etcd, kube-apiserver --+- kubelet --+
//!                                                                 +- controllers, scheduler
//!  later, when asked for: kube-proxy; a further node, which is its containerd - images - kubelet
//! ```

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::authority::Authority;
use super::build::Artifacts;
use super::component::{Commands, Component, Service, ctr};
use super::namespace::{Namespace, bridge, node_address, node_name, pod_cidr};
use super::process::log_tail;
use super::readiness::{api_server_answers, kafka_answers, listens, until};
use super::state::{Broker, Endpoints, Profile};
use super::{files, image, warm};

/// How long a single component may take to be ready: generous, for machines at their limit.
pub(crate) const READY_MAX: Duration = Duration::from_secs(90);

/// A stack or a further node being booted: everything that its parts need to know.
pub(crate) struct Boot<'a> {
    pub(crate) endpoints: &'a Endpoints,
    pub(crate) artifacts: &'a Artifacts,
    pub(crate) namespace: &'a Namespace,
    pub(crate) broker: Broker,
}

impl Boot<'_> {
    /// Starts what the profile asks for and waits until it is ready.
    pub(crate) fn all(&self) -> Result<()> {
        let profile = self.endpoints.profile;
        thread::scope(|scope| {
            let kafka = profile.has_kafka().then(|| scope.spawn(|| self.kafka()));
            let containerd = (profile == Profile::Full).then(|| scope.spawn(|| self.containerd()));
            let api_server = profile.has_api_server().then(|| scope.spawn(|| self.control_plane()));
            for part in [api_server, containerd].into_iter().flatten() {
                part.join().map_err(|_| anyhow!("a part of the boot panicked"))??;
            }
            if profile == Profile::Full {
                self.kubelet()?;
            }
            if let Some(kafka) = kafka {
                kafka.join().map_err(|_| anyhow!("the boot of Kafka panicked"))??;
            }
            Ok(())
        })
    }

    /// Starts what makes these namespaces a node, and waits until pods can be bound to it.
    pub(crate) fn further_node(&self) -> Result<()> {
        // Where the kubelet looks for it.
        fs::copy(&self.endpoints.kubeconfig, self.run().join("kubeconfig"))?;
        self.containerd()?;
        self.kubelet()
    }

    /// Starts kube-proxy, which makes Services reachable, and waits until it has done so once.
    pub(crate) fn proxy(&self) -> Result<()> {
        let service = self.start(Component::KubeProxy)?;
        await_ready(self.endpoints, self.namespace, &service)
    }

    fn run(&self) -> &Path {
        self.namespace.run_dir()
    }

    fn start(&self, component: Component) -> Result<Service> {
        let node = self.namespace.node();
        let address = node_address(self.endpoints.number, node);
        let commands =
            Commands { run: self.run(), artifacts: self.artifacts, address: &address, node, broker: self.broker };
        Service::start(self.run(), self.namespace, component, commands.of(component)?)
    }

    fn kafka(&self) -> Result<()> {
        let data = self.run().join("kafka");
        warm::copy_dir(&self.artifacts.kafka_formatted(), &data)?;
        let Endpoints { address, host_address, .. } = self.endpoints;
        let pki = self.endpoints.kafka_pki();
        let alternatives = [format!("IP:{address}"), "DNS:localhost".into()];
        let broker = Authority::create(&pki)?.issue("broker", &alternatives.each_ref().map(String::as_str))?;
        broker.key_store(&pki.join(files::KEY_STORE))?;
        fs::write(
            self.run().join("kafka.properties"),
            files::kafka_properties(address, host_address, &data, Some(&pki)),
        )?;
        let service = self.start(Component::Kafka)?;
        await_ready(self.endpoints, self.namespace, &service)
    }

    fn containerd(&self) -> Result<()> {
        let cni = self.run().join("cni");
        fs::create_dir_all(&cni)?;
        let node = self.namespace.node();
        let network = files::pod_network(&bridge(node), &pod_cidr(self.endpoints.number, node))?;
        fs::write(cni.join("10-pods.conflist"), network)?;
        fs::write(self.run().join("containerd.toml"), files::containerd(self.run(), &self.artifacts.bin()))?;
        let service = self.start(Component::Containerd)?;
        await_ready(self.endpoints, self.namespace, &service)?;
        for name in ["pause", "busybox"] {
            load_image(self.artifacts, self.namespace, &self.artifacts.image(name))?;
        }
        Ok(())
    }

    fn control_plane(&self) -> Result<()> {
        let pki = self.run().join("pki");
        files::certificates(&pki, &self.endpoints.address)?;
        let token = random_token()?;
        fs::write(pki.join("tokens.csv"), format!("{token},admin,admin,system:masters\n"))?;
        let ca = fs::read_to_string(pki.join("ca.crt"))?;
        fs::write(&self.endpoints.kubeconfig, files::kubeconfig(&self.endpoints.api_server, &ca, &token)?)?;
        self.start(Component::Etcd)?;
        let api_server = self.start(Component::KubeApiserver)?;
        await_ready(self.endpoints, self.namespace, &api_server)?;
        if self.endpoints.profile == Profile::Full {
            self.start(Component::KubeControllerManager)?;
            self.start(Component::KubeScheduler)?;
        }
        Ok(())
    }

    fn kubelet(&self) -> Result<()> {
        let (number, node) = (self.endpoints.number, self.namespace.node());
        let config = files::kubelet(&node_address(number, node), &pod_cidr(number, node), node > 1)?;
        fs::write(self.run().join("kubelet.json"), config)?;
        let kubelet = self.start(Component::Kubelet)?;
        await_ready(self.endpoints, self.namespace, &kubelet)?;
        // Pods are refused in a namespace whose service account is not there yet.
        let account = ["wait", "--for=create", "serviceaccount/default", "--timeout=60s"];
        let controllers = Service::load(&self.endpoints.run_dir, Component::KubeControllerManager)?
            .context("the controllers were started")?;
        await_kubectl(self.endpoints, &controllers, &[&account])
    }
}

/// Waits until a component that was just started does its work.
///
/// Fails with the last lines of its log when it ends, or is not ready within [`READY_MAX`].
pub(crate) fn await_ready(endpoints: &Endpoints, namespace: &Namespace, service: &Service) -> Result<()> {
    look_until_ready(endpoints, namespace, service).with_context(|| {
        let log = log_tail(&service.log, 15);
        format!("{} is not ready; the end of its log:\n{log}", service.component)
    })
}

fn look_until_ready(endpoints: &Endpoints, namespace: &Namespace, service: &Service) -> Result<()> {
    match service.component {
        // What uses etcd waits for it; an API server that answers has it.
        Component::Etcd | Component::KubeControllerManager | Component::KubeScheduler => Ok(()),
        Component::KubeApiserver => {
            let port = format!("{}:6443", endpoints.address);
            await_look(service, || listens(&port))?;
            await_look(service, || api_server_answers(endpoints))
        }
        Component::Kafka => await_look(service, || kafka_answers(&endpoints.kafka)),
        Component::Containerd => {
            // Its socket is on a file system that only the stack has mounted.
            let root = format!("/proc/{}/root", namespace.init().pid);
            let socket = format!("{root}{}", files::CONTAINERD_SOCKET);
            await_look(service, || Ok(UnixStream::connect(&socket).is_ok()))
        }
        Component::Kubelet => {
            let node = format!("node/{}", node_name(namespace.node()));
            let created: &[&str] = &["wait", "--for=create", &node, "--timeout=60s"];
            let ready: &[&str] = &["wait", "--for=condition=Ready", &node, "--timeout=60s"];
            await_kubectl(endpoints, service, &[created, ready])
        }
        Component::KubeProxy => await_look(service, || {
            // Its first round has written the rule of the Service that each cluster has.
            let rules = namespace.run(&["iptables", "-w", "-t", "nat", "-S"], Stdio::null())?;
            Ok(rules.lines().any(|rule| rule.starts_with("-A KUBE-SERVICES -d 10.96.0.1/32 ")))
        }),
    }
}

fn await_look(service: &Service, look: impl Fn() -> Result<bool>) -> Result<()> {
    until(service.component.name(), READY_MAX, || {
        anyhow::ensure!(service.process.is_alive(), "it ended");
        Ok(look()?.then_some(()))
    })
}

/// Runs `kubectl wait` commands one after the other, as long as the component lives.
fn await_kubectl(endpoints: &Endpoints, service: &Service, commands: &[&[&str]]) -> Result<()> {
    for command in commands {
        let mut kubectl = endpoints
            .kubectl()
            .args(*command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("run kubectl")?;
        let outcome = await_look_child(service, &mut kubectl);
        if outcome.is_err() {
            kubectl.kill().context("end kubectl")?;
        }
        let output = kubectl.wait_with_output()?;
        outcome?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "kubectl {}: {}", command.join(" "), error.trim());
    }
    Ok(())
}

fn await_look_child(service: &Service, child: &mut Child) -> Result<()> {
    until(service.component.name(), READY_MAX, || {
        anyhow::ensure!(service.process.is_alive(), "it ended");
        Ok(child.try_wait()?.map(|_| ()))
    })
}

/// Loads an image archive into the stack's containerd.
pub(crate) fn load_image(artifacts: &Artifacts, namespace: &Namespace, archive: &Path) -> Result<()> {
    let file = fs::File::open(archive).with_context(|| format!("open {}", archive.display()))?;
    let ctr = ctr(artifacts);
    let mut arguments: Vec<&str> = ctr.iter().map(String::as_str).collect();
    // By standard input: the path may not be the same inside.
    arguments.extend(["images", "import", "-"]);
    namespace.run(&arguments, file.into()).with_context(|| format!("load {}", archive.display()))?;
    Ok(())
}

/// 32 random hexadecimal digits.
pub(crate) fn random_token() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0_u8; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes).context("read random bytes")?;
    Ok(image::hex(&bytes))
}

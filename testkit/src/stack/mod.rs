//! A real one-node Kubernetes and a real Kafka as plain processes, without Docker.
//!
//! ```text
//!  packages -> build -> [cache]       Debian packages, Go modules, Maven artifacts; once
//!                          |
//!  Stack::boot -> namespace, cgroup -> boot -> component ... readiness
//!                          |
//!                        state ------> Endpoints (this process), state.json (other processes)
//!  drop, death, down -> cleanup
//! ```
//! Promises: stacks live side by side with the same ports; a stack ends with its owner, whichever way
//! the owner ends, unless detached; after that no process, mount, link, cgroup or file of it is left.
//! Must not: send anything beyond loopback and the stack's own addresses (10.99.n.0/24, 10.244.n.0/24, 10.245.n.0/24).

mod authority;
pub mod baseline;
mod boot;
mod brokers;
pub mod build;
mod cgroup;
pub mod cleanup;
pub mod collector;
pub mod component;
pub mod crds;
mod files;
pub mod helm;
pub mod image;
pub mod kafka_image;
pub mod modules;
mod namespace;
mod node;
mod packages;
pub mod process;
pub mod progress;
pub mod promtool;
pub mod readiness;
mod state;
mod tool;
pub mod versions;
mod warm;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

pub use authority::{Authority, Issued};
pub use brokers::Brokers;
pub use build::Artifacts;
pub use component::{Component, Service};
pub use node::{NODE_TAINT, Node};
pub use packages::Packages;
pub use process::{ProcessId, Signal};
pub use state::{Broker, Endpoints, KAFKA_VARIABLE, Profile, STACK_VARIABLE};

use boot::Boot;
use namespace::{Keeper, Namespace};
use state::State;

const END_MAX: Duration = Duration::from_secs(20);

/// What to boot.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How much.
    pub profile: Profile,
    /// The stack's name; one of its own when `None`.
    pub name: Option<String>,
    /// What its broker runs for.
    pub broker: Broker,
}

impl Options {
    /// A stack of this profile, named by itself, for tests.
    pub fn new(profile: Profile) -> Self {
        Self { profile, ..Self::default() }
    }

    /// With a name by which other processes find it.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }
}

/// A running stack. The one that booted it ends it when dropped; one that was found leaves it alone.
pub struct Stack {
    endpoints: Endpoints,
    namespace: Namespace,
    artifacts: Artifacts,
    keeper: Option<Keeper>,
}

impl Stack {
    /// Boots a stack, building what is not built yet. Seconds when all is cached.
    ///
    /// Fails when not root, when a stack of that name is up, or when a component does not become ready;
    /// the error then shows the end of its log, and nothing stays behind but a copy of the logs.
    pub fn boot(options: Options) -> Result<Self> {
        anyhow::ensure!(rustix::process::geteuid().is_root(), "a stack makes namespaces and cgroups, which needs root");
        let artifacts = build::ensure()?;
        let name = options.name.unwrap_or_else(own_name);
        let (run, mut state) = reserve(&name)?;
        let mut keeper = match Self::open(&run, &artifacts, &mut state) {
            Ok(keeper) => keeper,
            Err(error) => {
                discard(&run, &state)?;
                return Err(error.context(format!("open the stack {name}")));
            }
        };
        let booted = Self::start(&name, (options.profile, options.broker), &run, &artifacts, &mut state, &mut keeper);
        match booted {
            Ok((endpoints, namespace)) => Ok(Self { endpoints, namespace, artifacts, keeper: Some(keeper) }),
            Err(error) => {
                let kept = cleanup::keep_logs(&run, &name);
                end(keeper, state.init);
                Err(match kept {
                    Ok(dir) => error.context(format!("boot the stack {name} (its logs: {})", dir.display())),
                    Err(_) => error.context(format!("boot the stack {name}")),
                })
            }
        }
    }

    fn open(run: &Path, artifacts: &Artifacts, state: &mut State) -> Result<Keeper> {
        let keeper = namespace::open(run, &versions::cache_dir()?, &artifacts.pid1())?;
        state.undertaker = ProcessId::of(keeper.undertaker.id().cast_signed());
        state.write(run)?;
        Ok(keeper)
    }

    fn start(
        name: &str,
        (profile, broker): (Profile, Broker),
        run: &Path,
        artifacts: &Artifacts,
        state: &mut State,
        keeper: &mut Keeper,
    ) -> Result<(Endpoints, Namespace)> {
        let namespace = Namespace::await_init(run, keeper)?;
        state.init = Some(namespace.init());
        state.write(run)?;
        let number = namespace.connect()?;
        let address = format!("10.99.{number}.2");
        let endpoints = Endpoints {
            name: name.to_owned(),
            profile,
            number,
            host_address: format!("10.99.{number}.1"),
            api_server: format!("https://{address}:6443"),
            kafka: format!("{address}:9092"),
            address,
            kubeconfig: run.join("kubeconfig"),
            ca: run.join("pki/ca.crt"),
            bin_dir: artifacts.bin(),
            log_dir: run.join("log"),
            run_dir: run.to_path_buf(),
        };
        Boot { endpoints: &endpoints, artifacts, namespace: &namespace, broker }.all()?;
        state.endpoints = Some(endpoints.clone());
        state.write(run)?;
        Ok((endpoints, namespace))
    }

    /// The stack that `xtask up` or `xtask test` told us of, to load images into and to break. Not ended on drop.
    pub fn from_env() -> Result<Self> {
        Self::attach(&Endpoints::from_env()?.name)
    }

    /// The running stack of this name. Not ended on drop.
    pub fn attach(name: &str) -> Result<Self> {
        let run = state::run_dir(name)?;
        let state = State::of_run(&run).with_context(|| format!("find the stack {name}"))?;
        let init = state.init.filter(|init| init.is_alive()).with_context(|| format!("the stack {name} is dead"))?;
        let endpoints = state.endpoints.with_context(|| format!("the stack {name} is not up yet"))?;
        Ok(Self { namespace: Namespace::of(&run, init), endpoints, artifacts: build::ensure()?, keeper: None })
    }

    /// Where it is reached.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Its first process: ending it ends the stack.
    pub fn init(&self) -> ProcessId {
        self.namespace.init()
    }

    /// The process outside that buries the stack; `None` when it was gone before it was recorded.
    pub fn undertaker(&self) -> Result<Option<ProcessId>> {
        Ok(State::of_run(&self.endpoints.run_dir)?.undertaker)
    }

    /// Lets the stack outlive us, until [`cleanup::down`].
    pub fn detach(mut self) -> Result<Endpoints> {
        use std::io::Write;
        if let Some(mut keeper) = self.keeper.take() {
            let mut state = State::of_run(&self.endpoints.run_dir)?;
            state.detached = true;
            state.write(&self.endpoints.run_dir)?;
            keeper.pipe.write_all(b"d").context("tell the stack that it is on its own")?;
        }
        Ok(self.endpoints.clone())
    }

    /// Loads an image archive, such as [`image::pack`] makes, for pods with `imagePullPolicy` other than `Always`.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        boot::load_image(&self.artifacts, &self.namespace, archive)
    }

    /// Gives an image of the stack a further name (`docker.io/library/busybox:1.37`), as if it had been pulled by that.
    pub fn name_image(&self, loaded: &str, name: &str) -> Result<()> {
        let ctr = component::ctr(&self.artifacts);
        let tag = ["images", "tag", "--force", loaded, name];
        let arguments: Vec<&str> = ctr.iter().map(String::as_str).chain(tag).collect();
        self.run_inside(&arguments).map(drop)
    }

    /// Adds a second node; seconds. It ends with the stack, or by [`Node::remove`].
    ///
    /// Fails when the stack runs no pods, has one already, or the node does not become ready; nothing of it is left then.
    pub fn add_node(&self) -> Result<Node> {
        Node::add(&self.endpoints, &self.artifacts, &self.namespace)
    }

    /// Starts kube-proxy, if it does not run: from then on Services are reached by their addresses, from pods of all
    /// nodes. Without it, only the API server's is. Fails when the stack runs no pods.
    pub fn start_proxy(&self) -> Result<()> {
        // Two of it would be one too many, and who finds it running relies on it.
        static STARTING: Mutex<()> = Mutex::new(());
        let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        anyhow::ensure!(self.endpoints.profile == Profile::Full, "a stack of this profile runs no pods");
        let started = Service::load(&self.endpoints.run_dir, Component::KubeProxy)?;
        if started.is_some_and(|service| service.process.is_alive()) {
            return Ok(());
        }
        Boot {
            endpoints: &self.endpoints,
            artifacts: &self.artifacts,
            namespace: &self.namespace,
            broker: Broker::Quick,
        }
        .proxy()
    }

    /// The processes of a container, by the part of `containerID` behind `containerd://`; on whichever node it runs.
    pub fn container(&self, id: &str) -> Result<Vec<ProcessId>> {
        anyhow::ensure!(!id.is_empty(), "a container that has not started has no processes");
        cgroup::members(&State::of_run(&self.endpoints.run_dir)?.cgroups, id)
    }

    /// The components that were started, as last started.
    pub fn services(&self) -> Result<Vec<Service>> {
        let load = |component| Service::load(&self.endpoints.run_dir, component).transpose();
        Component::ALL.into_iter().filter_map(load).collect()
    }

    /// One component, as last started. Fails when the profile has none.
    pub fn service(&self, component: Component) -> Result<Service> {
        Service::load(&self.endpoints.run_dir, component)?.with_context(|| format!("this stack has no {component}"))
    }

    /// Sends a signal to a component. Returns at once. Fails when it is dead already.
    pub fn signal(&self, component: Component, signal: Signal) -> Result<()> {
        anyhow::ensure!(self.service(component)?.process.signal(signal)?, "{component} is dead");
        Ok(())
    }

    /// Ends a component by a signal (KILL, TERM ...) and waits until it is gone. It stays down until [`Stack::restart`].
    pub fn kill(&self, component: Component, signal: Signal) -> Result<()> {
        self.signal(component, signal)?;
        let process = self.service(component)?.process;
        readiness::until(&format!("the end of {component}"), END_MAX, || Ok((!process.is_alive()).then_some(())))
    }

    /// Starts a component anew on the same data and port, ending it first if it still runs, and waits until it is ready.
    pub fn restart(&self, component: Component) -> Result<()> {
        let service = self.start_again(component)?;
        boot::await_ready(&self.endpoints, &self.namespace, &service)
    }

    /// Like [`Stack::restart`], with these flags (`--name=value`) instead of its own of these names; from then on they
    /// are its own.
    pub fn restart_with(&self, component: Component, flags: &[&str]) -> Result<()> {
        let mut service = self.service(component)?;
        if service.process.is_alive() {
            self.kill(component, Signal::KILL)?;
        }
        // Some flags gather values instead of taking the last one.
        let name = |flag: &str| flag.split('=').next().map(str::to_owned);
        service.command.retain(|argument| flags.iter().all(|flag| name(flag) != name(argument)));
        service.command.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let service = Service::start(&self.endpoints.run_dir, &self.namespace, component, service.command)?;
        boot::await_ready(&self.endpoints, &self.namespace, &service)
    }

    /// Like [`Stack::restart`], but does not wait until it is ready.
    pub fn start_again(&self, component: Component) -> Result<Service> {
        let service = self.service(component)?;
        if service.process.is_alive() {
            self.kill(component, Signal::KILL)?;
        }
        Service::start(&self.endpoints.run_dir, &self.namespace, component, service.command)
    }

    /// Stops a component without ending it: connections stay open and nothing answers.
    pub fn pause(&self, component: Component) -> Result<()> {
        self.signal(component, Signal::STOP)?;
        let process = self.service(component)?.process;
        readiness::until(&format!("the pause of {component}"), END_MAX, || Ok(process.is_stopped().then_some(())))
    }

    /// Lets a paused component go on.
    pub fn resume(&self, component: Component) -> Result<()> {
        self.signal(component, Signal::CONT)
    }

    /// Runs a program in the stack's namespaces, as root, and returns its standard output. Fails when it fails.
    pub fn run_inside(&self, arguments: &[&str]) -> Result<String> {
        self.namespace.run(arguments, std::process::Stdio::null())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            end(keeper, Some(self.namespace.init()));
        }
    }
}

/// Lets go of the pipe and waits for the burial. Says so when that fails: a drop has no other way.
fn end(keeper: Keeper, init: Option<ProcessId>) {
    let Keeper { mut undertaker, pipe } = keeper;
    drop(pipe);
    if let Err(error) = cleanup::reap(&mut undertaker, init) {
        eprintln!("a stack did not end: {error:#}");
    }
}

/// Makes the stack's directory and cgroups, under the lock, after sweeping what the dead left.
fn reserve(name: &str) -> Result<(PathBuf, State)> {
    let run = state::run_dir(name)?;
    let _lock = state::lock_stacks()?;
    cleanup::sweep_locked()?;
    fs::create_dir(&run).with_context(|| format!("a stack named {name} is up already ({})", run.display()))?;
    // Written down before they are made: whatever happens next, a sweep finds them.
    let state = State::new(cgroup::plan(&format!("pod-monitor-{}", &boot::random_token()?[..12]))?)?;
    state.write(&run)?;
    if let Err(error) = cgroup::create(&state.cgroups) {
        discard(&run, &state)?;
        return Err(error);
    }
    Ok((run, state))
}

/// Takes back what [`reserve`] made.
fn discard(run: &Path, state: &State) -> Result<()> {
    cgroup::remove(&state.cgroups)?;
    fs::remove_dir_all(run).with_context(|| format!("remove {}", run.display()))
}

fn own_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("own-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

//! `up`, `down`, `status`, `build-stack`.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use testkit::stack::{Endpoints, Options, Packages, Profile, Stack, build, cleanup, readiness};

/// The name of the stack that is meant when none is given.
pub(crate) const DEFAULT_NAME: &str = "dev";

#[derive(Clone, Copy, ValueEnum)]
enum ProfileName {
    /// Kubernetes with a node that runs pods, and Kafka.
    Full,
    /// etcd and the API server only.
    ApiServer,
    /// The broker only.
    Kafka,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Full => Self::Full,
            ProfileName::ApiServer => Self::ApiServer,
            ProfileName::Kafka => Self::Kafka,
        }
    }
}

/// Boot a local Kubernetes and Kafka that stay up until `down`.
///
/// Needs root (namespaces, cgroups). The first time it builds everything from Go modules and Maven
/// artifacts, which takes minutes; later it is up in seconds.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask up\n  \
    eval \"$(cargo xtask up --quiet-exports)\" && kubectl get nodes\n  \
    cargo xtask up --profile kafka --name broker\n  \
    cargo xtask up --second-node\n  \
    cargo xtask down")]
pub(crate) struct Up {
    /// How much to boot.
    #[arg(long, value_enum, default_value = "full")]
    profile: ProfileName,
    /// The stack's name: a-z, 0-9 and dashes.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Add a second node, node-2, and kube-proxy, so that pods reach Services. For pods that tolerate its taint.
    #[arg(long)]
    second_node: bool,
    /// Print nothing but the export lines, for `eval`. A stack that is up already is taken as it is.
    #[arg(long)]
    quiet_exports: bool,
}

impl Up {
    pub(crate) fn run(self) -> Result<()> {
        Packages::ensure()?;
        build::ensure()?;
        if self.quiet_exports
            && let Ok(stack) = Stack::attach(&self.name)
        {
            print!("{}", exports(stack.endpoints())?);
            return Ok(());
        }
        let started = Instant::now();
        let stack = Stack::boot(Options::new(self.profile.into()).named(&self.name))?;
        if self.second_node {
            stack.start_proxy()?;
            stack.add_node()?;
        }
        let exports = exports(stack.endpoints())?;
        stack.detach()?;
        if !self.quiet_exports {
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("up in {seconds:.1} s; end it by: cargo xtask down --name {}", self.name);
        }
        print!("{exports}");
        Ok(())
    }
}

/// Lines for a shell to evaluate.
fn exports(endpoints: &Endpoints) -> Result<String> {
    let mut lines = String::new();
    for (name, value) in endpoints.variables()? {
        let value = if name == "PATH" {
            format!("{}:\"$PATH\"", quoted(&endpoints.bin_dir.display().to_string()))
        } else {
            quoted(&value.to_string_lossy())
        };
        lines.push_str(&format!("export {name}={value}\n"));
    }
    Ok(lines)
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// End a local stack. Nothing of it stays behind; without one, does nothing.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask down\n  cargo xtask down --name broker\n  cargo xtask down --all")]
pub(crate) struct Down {
    /// The stack's name.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// All stacks of this cache directory, those of running tests too.
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl Down {
    pub(crate) fn run(self) -> Result<()> {
        let names = if self.all { cleanup::names()? } else { vec![self.name] };
        for name in names {
            let started = Instant::now();
            if cleanup::down(&name)? {
                println!("{name} is down ({:.1} s)", started.elapsed().as_secs_f64());
            } else {
                println!("{name} was not up");
            }
        }
        Ok(())
    }
}

/// Show the local stacks: components, addresses, logs, and whether they answer.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask status\n  cargo xtask status --name broker")]
pub(crate) struct Status {
    /// Only this stack; the command then fails when it is not up or does not answer.
    #[arg(long)]
    name: Option<String>,
}

impl Status {
    pub(crate) fn run(self) -> Result<()> {
        if let Some(name) = self.name {
            let answers = show(&Stack::attach(&name)?)?;
            anyhow::ensure!(answers, "the stack {name} does not answer");
            return Ok(());
        }
        let names = cleanup::names()?;
        if names.is_empty() {
            println!("no stack is up; boot one by: cargo xtask up");
        }
        for name in names {
            match Stack::attach(&name) {
                Ok(stack) => {
                    show(&stack)?;
                }
                Err(error) => println!("{name}: {error:#}"),
            }
        }
        Ok(())
    }
}

/// Prints one stack. Returns whether all that it should have answers.
fn show(stack: &Stack) -> Result<bool> {
    let endpoints = stack.endpoints();
    let mut answers = true;
    println!("{} ({:?})", endpoints.name, endpoints.profile);
    if endpoints.profile.has_api_server() {
        let ready = readiness::api_server_answers(endpoints)?;
        println!("  API server  {}  {}", endpoints.api_server, verdict(ready));
        println!("  kubeconfig  {}", endpoints.kubeconfig.display());
        answers &= ready;
    }
    if endpoints.profile.has_kafka() {
        let ready = readiness::kafka_answers(&endpoints.kafka)?;
        println!("  Kafka       {}  {}", endpoints.kafka, verdict(ready));
        answers &= ready;
    }
    println!("  address     {} (from {})", endpoints.address, endpoints.host_address);
    println!("  logs        {}", endpoints.log_dir.display());
    for service in stack.services().context("read the records of the components")? {
        let state = match (service.process.is_alive(), service.process.is_stopped()) {
            (_, true) => "paused",
            (true, _) => "running",
            (false, _) => "dead",
        };
        println!("  {:<24} pid {:<8} {state}", service.component.name(), service.process.pid);
    }
    Ok(answers)
}

fn verdict(ready: bool) -> &'static str {
    if ready { "answers" } else { "does NOT answer" }
}

/// `build-stack`.
pub(crate) fn build() -> Result<()> {
    Packages::ensure()?;
    let artifacts = build::ensure()?;
    println!("{}", artifacts.bin().display());
    Ok(())
}

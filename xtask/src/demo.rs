//! `demo`: boots a stack or takes a running one, builds the image, and lets testkit's `demo` tell the stories.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use testkit::monitor_image;
use testkit::stack::{Endpoints, Options, Packages, Profile, Stack, build};

use crate::claim;
use crate::stack::DEFAULT_NAME;
use crate::suites;

/// Show what the monitor tells: sample executions as real pods, and their stories as read back from Kafka.
///
/// Boots a local Kubernetes and Kafka (needs root; the first time it builds them, which takes minutes),
/// builds the monitor's image and installs three replicas by deploy/kustomize. Ends all of it, unless told to keep it. Exit code 1 when
/// a story is not as expected, or when an event is lost, doubled or out of order.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask demo\n  \
    cargo xtask demo --keep          stack and monitor stay up, to look around\n  \
    cargo xtask down                 ends both\n  \
    cargo xtask up --name mine && cargo xtask demo --name mine")]
pub(crate) struct Demo {
    /// Leave the stack and the monitor up, until `down`.
    #[arg(long)]
    keep: bool,
    /// The stack's name. One that is up is taken and left up [default with --keep: dev].
    #[arg(long)]
    name: Option<String>,
    /// Run the monitor as it is released; its build takes minutes.
    #[arg(long)]
    release: bool,
}

impl Demo {
    pub(crate) fn run(self) -> Result<()> {
        Packages::ensure()?;
        claim::target_dir()?;
        build::ensure()?;
        build_demo()?;
        let profile = if self.release { "release" } else { monitor_image::TEST_PROFILE };
        let image = monitor_image::build(suites::workspace(), profile)?;
        let (stack, ours) = self.stack()?;
        stack.load_image(&image.archive)?;
        let told = self.tell(stack.endpoints(), ours);
        if ours && self.keep {
            let kept = stack.detach()?;
            if !matches!(told, Ok(true)) {
                eprintln!("the stack stays up; end it by: cargo xtask down --name {}", kept.name);
            }
        } else {
            drop(stack);
        }
        // Not by an error: what is wrong was said already.
        if !told? {
            std::process::exit(1);
        }
        Ok(())
    }

    /// A stack, and whether we booted it.
    fn stack(&self) -> Result<(Stack, bool)> {
        let name = self.name.clone().or_else(|| self.keep.then(|| DEFAULT_NAME.to_owned()));
        if let Some(name) = &name
            && let Ok(stack) = Stack::attach(name)
        {
            anyhow::ensure!(
                stack.endpoints().profile == Profile::Full,
                "the stack {name} runs no pods; end it by: cargo xtask down --name {name}"
            );
            eprintln!("the stack {name} is up");
            return Ok((stack, false));
        }
        eprintln!("booting Kubernetes and Kafka ...");
        let options = Options::new(Profile::Full);
        Ok((Stack::boot(Options { name, ..options })?, true))
    }

    /// Whether the stories are as expected.
    fn tell(&self, endpoints: &Endpoints, ours: bool) -> Result<bool> {
        // On a stack that saw demos before, topics and namespaces of their names hold their stories.
        let app = if ours { "demo".to_owned() } else { format!("demo-{}", std::process::id()) };
        let mut command = Command::new(suites::target_dir()?.join("debug/demo"));
        command.arg("--deploy").arg(suites::workspace().join("deploy/kustomize")).arg("--app").arg(app);
        if self.keep {
            command.arg("--keep");
        }
        suites::with_stack(&mut command, endpoints)?;
        Ok(command.status().context("run the demo")?.success())
    }
}

/// What tells the stories. Alone: the monitor itself comes from the image.
fn build_demo() -> Result<()> {
    let mut command = suites::cargo(&["build", "--locked", "--package", "testkit", "--bin", "demo"]);
    command.args(["--features", "testkit/clients"]);
    command.current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
    anyhow::ensure!(command.status().context("run cargo")?.success(), "the demo does not compile");
    Ok(())
}

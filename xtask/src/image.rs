//! `image`: builds the image of the monitor and loads it into a local stack.

use anyhow::{Context, Result};
use clap::Args;
use testkit::monitor_image::{self, TAG};
use testkit::stack::{Packages, Stack};

use crate::{stack, suites};

/// Build the image of the monitor from the Dockerfile, without a registry or a daemon.
///
/// The base images are made from this machine's own /usr and Rust, so the result is for the local stack, not for
/// publishing. Needs root. The first build takes minutes.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask up && cargo xtask image --load\n  \
    cargo xtask image --profile image-test")]
pub(crate) struct Image {
    /// The cargo profile; `image-test` builds in a part of the time.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Load it into a stack that is up.
    #[arg(long)]
    load: bool,
    /// The stack to load it into.
    #[arg(long, default_value = stack::DEFAULT_NAME, requires = "load")]
    name: String,
}

impl Image {
    pub(crate) fn run(self) -> Result<()> {
        Packages::ensure()?;
        // Before the build: minutes are not spent for a stack that is not there.
        let stack = self.load.then(|| Stack::attach(&self.name)).transpose();
        let stack = stack.with_context(|| format!("start it by: cargo xtask up --name {}", self.name))?;
        let built = monitor_image::build(suites::workspace(), &self.profile)?;
        println!(
            "{TAG}: {:.1} MB, built in {:.0} s ({}), {}",
            built.bytes as f64 / 1e6,
            built.took.as_secs_f64(),
            self.profile,
            built.archive.display()
        );
        if let Some(stack) = stack {
            stack.load_image(&built.archive)?;
            println!("loaded into the stack {}", self.name);
        }
        Ok(())
    }
}

//! `cargo xtask sim`: as many seeds of the simulation as wanted.

use anyhow::{Result, ensure};
use clap::Args;
use testkit::stack::Packages;

use crate::{claim, suites};

/// Run seeds of the simulation until one fails.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  cargo xtask sim --seeds 20000\n  cargo xtask sim --seeds 1 --from 319\n  cargo xtask sim --shards 8 --replicas 4 --seeds 1000\n  cargo xtask sim --shards 8 --reshard-to 3 --seeds 1000"
)]
pub(crate) struct Sim {
    /// How many.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Into how many shards the pods are cut.
    #[arg(long, default_value_t = 1)]
    shards: u32,
    /// How many replicas share them.
    #[arg(long, default_value_t = 3)]
    replicas: u32,
    /// Change the number of shards to this in mid run, by a reshard that is killed and begun anew.
    #[arg(long, value_name = "COUNT")]
    reshard_to: Option<u32>,
}

impl Sim {
    pub(crate) fn run(&self) -> Result<()> {
        Packages::ensure()?;
        claim::target_dir()?;
        let mut command = suites::cargo_test(&["--test", "sim", "--", "--nocapture", "every_story"]);
        command.current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
        command.env_remove("SIM_SEED").env("SIM_PROGRESS", "1");
        command.env("SIM_SEEDS", self.seeds.to_string()).env("SIM_FROM", self.from.to_string());
        command.env("SIM_SHARDS", self.shards.to_string()).env("SIM_REPLICAS", self.replicas.to_string());
        command.env_remove("SIM_RESHARD_TO").envs(self.reshard_to.map(|to| ("SIM_RESHARD_TO", to.to_string())));
        let status = command.status()?;
        ensure!(status.success(), "a seed failed: {status}");
        Ok(())
    }
}

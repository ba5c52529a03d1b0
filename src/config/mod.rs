//! The configuration of `run`: flags, POD_MONITOR_* variables and a YAML file become one checked [`Config`].
//!
//! ```text
//!   flags ─▶ variables ─▶ file ─▶ defaults        (the first that says something wins, layers.rs)
//!                    │ RunArgs: each value parsed (args.rs)
//!                    ▼
//!                 Config: values that fit together (effective.rs)
//! ```
//!
//! Promises: nothing is accepted that has no effect; each refusal is one message that names the key, where its value
//! stands and the mend; secrets appear neither in Debug nor in messages. Reads files and variables only at start.

pub mod args;
pub mod check;
pub mod duration;
mod effective;
mod file;
pub mod kafka;
pub(crate) mod layers;
pub mod lease;
pub mod names;
pub mod properties;
pub mod reshard;
pub mod rules_file;
mod rules_tree;
pub mod selector;
mod sources;
mod stalls;

use std::{ffi::OsString, fmt, path::PathBuf};

use crate::lifecycle::rules::Rules;

pub use crate::lifecycle::identity::IdSources;
pub use args::{
    ExplainArgs, InstallationArgs, KafkaArgs, LogFormat, OutputKind, ReshardArgs, ResultKind, RunArgs, StreamArgs,
};
pub use effective::{Config, LogSettings, Namespaces, Sink, Surroundings};
pub use kafka::{Kafka, Stream};
pub use properties::Properties;
pub use reshard::Reshard;
pub use selector::Selector;
pub use sources::Sources;

/// Looks up an environment variable.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What to do where a command besides `run` is not told of Kafka.
const KAFKA_MEND: &str = "name the bootstrap servers with --kafka, POD_MONITOR_KAFKA or the key kafka in the file of \
                          --config, for instance --kafka kafka:9092";

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag,
    /// In the environment.
    Variable,
    /// In the file of `--config`.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
    },
}

/// Why the process cannot start as configured. Ends it with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What clap itself says: unknown flags, but also `--help` and `--version`, which are no failures.
    #[error("{0}")]
    Clap(clap::Error),
    /// A value that is wrong by itself, with its place.
    #[error("{}: {why}", At { origin, key })]
    Setting {
        /// Where the value stands.
        origin: Origin,
        /// The key, without dashes.
        key: String,
        /// What is wrong, and the mend.
        why: String,
    },
    /// The file of `--config` is no YAML, or has a value of a wrong type.
    #[error("{}:{line}: {why}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What the parser says.
        why: String,
    },
    /// A file that cannot be read.
    #[error("{key}: cannot read {}: {source}: {mend}", path.display())]
    Unreadable {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
        /// What to do.
        mend: &'static str,
    },
    /// A property whose value stands in a file that cannot be read.
    #[error("kafka-config {name}: cannot read {}: {source}: name a readable file that holds the value: {name}=@/path", path.display())]
    Secret {
        /// The property.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A required value is absent.
    #[error("{key} is missing: {mend}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What to do.
        mend: &'static str,
    },
    /// Values that do not go together.
    #[error("{why}")]
    Conflict {
        /// Which keys, where they stand, and the mend.
        why: String,
    },
}

/// The settings from all layers, checked against one another.
pub fn load(given: &clap::ArgMatches, variables: Variables<'_>, surroundings: &Surroundings) -> Result<Config, Error> {
    let (args, origins) = layers::resolve(given, variables)?;
    effective::build(args, &origins, surroundings)
}

/// The settings of another command, from all layers: its own flags, and how Kafka is reached.
pub fn load_with_kafka<A: clap::Args>(
    given: &clap::ArgMatches,
    variables: Variables<'_>,
    kafka: fn(&A) -> &KafkaArgs,
) -> Result<(A, Kafka), Error> {
    let (args, origins) = layers::resolve::<A>(given, variables)?;
    let kafka = kafka::build(kafka(&args), &origins, KAFKA_MEND)?;
    Ok((args, kafka))
}

/// The settings of a command that reads events and nothing else of Kafka, from all layers. `wrong` as for [`load_own`].
pub fn load_with_stream<A: clap::Args>(
    given: &clap::ArgMatches,
    variables: Variables<'_>,
    stream: fn(&A) -> &StreamArgs,
    wrong: impl FnOnce(&A, &dyn Fn(&str) -> String) -> Option<String>,
) -> Result<(A, Stream), Error> {
    let (args, origins) = layers::resolve::<A>(given, variables)?;
    if let Some(why) = wrong(&args, &|key| effective::at(&origins, key)) {
        return Err(Error::Conflict { why });
    }
    let stream = kafka::stream(stream(&args), &origins, KAFKA_MEND)?;
    Ok((args, stream))
}

/// The settings of `explain`, from all layers, and what the core decides by.
pub fn load_explain(given: &clap::ArgMatches, variables: Variables<'_>) -> Result<(ExplainArgs, Rules), Error> {
    let (args, _) = layers::resolve::<ExplainArgs>(given, variables)?;
    let rules = effective::story(args.story.clone())?;
    Ok((args, rules))
}

/// The settings of a command that has only its own flags, from all layers. `wrong`: what does not go together, if
/// anything; it is given the settings, and what names a key with its place.
pub fn load_own<A: clap::Args>(
    given: &clap::ArgMatches,
    variables: Variables<'_>,
    wrong: impl FnOnce(&A, &dyn Fn(&str) -> String) -> Option<String>,
) -> Result<A, Error> {
    let (args, origins) = layers::resolve::<A>(given, variables)?;
    match wrong(&args, &|key| effective::at(&origins, key)) {
        None => Ok(args),
        Some(why) => Err(Error::Conflict { why }),
    }
}

/// A key with its place: `--key`, `POD_MONITOR_KEY` or `file:line: key`.
struct At<'a> {
    origin: &'a Origin,
    key: &'a str,
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Flag => write!(f, "--{}", self.key),
            Origin::Variable => f.write_str(&layers::variable(self.key)),
            Origin::File { path, line } => write!(f, "{}:{line}: {}", path.display(), self.key),
        }
    }
}

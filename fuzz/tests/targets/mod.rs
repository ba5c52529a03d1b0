//! The five inputs that anybody may write, and what must hold of each whatever they hold.
//!
//! ```text
//!  bytes ──▶ statuses | logs | reports | rules | changelog ──▶ the code of src/ that meets them first
//!                                     │
//!                                     └─ life: a pod's story, each step of it held to what is promised ──▶ told: each event
//! ```
//! A target panics where a promise is broken; docs/fuzzing.md lists the promises. Deterministic: the same bytes give the
//! same run, with neither clock nor randomness.

mod changelog;
mod evidence;
mod life;
mod logs;
#[cfg(feature = "libfuzzer")]
pub(crate) mod minimise;
pub(crate) mod mutate;
mod recordings;
mod reports;
mod rules;
mod statuses;
mod told;

/// One kind of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Lines of a watch, over the whole life of some pods.
    Statuses,
    /// What containers print, as the log API sends it.
    Logs,
    /// Reports within that, and termination messages.
    Reports,
    /// Files of `--rules`, and the pods that they are asked about.
    Rules,
    /// Records of the changelog, and what a successor does with them.
    Changelog,
}

impl Target {
    /// Every target.
    pub(crate) const ALL: [Self; 5] = [Self::Statuses, Self::Logs, Self::Reports, Self::Rules, Self::Changelog];

    /// Its name: of its corpus, its regressions, and of `cargo xtask fuzz --target`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Statuses => "statuses",
            Self::Logs => "logs",
            Self::Reports => "reports",
            Self::Rules => "rules",
            Self::Changelog => "changelog",
        }
    }

    /// The target of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Runs it once.
    ///
    /// # Panics
    /// Where a promise is broken.
    pub(crate) fn run(self, data: &[u8]) {
        match self {
            Self::Statuses => statuses::run(data),
            Self::Logs => logs::run(data),
            Self::Reports => reports::run(data),
            Self::Rules => rules::run(data),
            Self::Changelog => changelog::run(data),
        }
    }

    /// Inputs to begin from: real ones, as far as there are.
    pub(crate) fn seeds(self) -> Vec<Vec<u8>> {
        match self {
            Self::Statuses => statuses::seeds(),
            Self::Logs => logs::seeds(),
            Self::Reports => reports::seeds(),
            Self::Rules => rules::seeds(),
            Self::Changelog => changelog::seeds(),
        }
    }
}

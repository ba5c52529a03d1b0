//! What is measured: whose leader, how it goes, how often.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Case {
    /// SIGTERM
    Graceful,
    /// SIGKILL
    Kill,
    /// SIGSTOP
    Frozen,
    /// No way to the API server
    Partition,
    /// SIGKILL with 10 000 tracked pods
    TakeOver,
    /// Fencing a leader that died inside a transaction, as the monitor does it
    FenceTwoShot,
    /// The same with one producer
    FenceOneShot,
    /// kube-leader-election: SIGTERM, then its step_down
    KleGraceful,
    /// kube-leader-election: SIGKILL
    KleKill,
    /// client-go with ReleaseOnCancel: SIGTERM
    ClientGoGraceful,
    /// client-go: SIGKILL
    ClientGoKill,
}

/// Whose replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Ours,
    KubeLeaderElection,
    ClientGo,
}

impl Who {
    /// Between two renewals of the Lease.
    pub(crate) fn period(self) -> Duration {
        Duration::from_secs(match self {
            Self::Ours => 1,
            Self::KubeLeaderElection => 5,
            Self::ClientGo => 2,
        })
    }
}

/// How a leader goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Term,
    Kill,
    Stop,
    Partition,
}

/// A change of hands to be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) who: Who,
    pub(crate) fault: Fault,
    /// Pods that are tracked meanwhile.
    pub(crate) pods: usize,
    /// Between two status writes: short beside the gap that is expected, and no more load than that needs.
    pub(crate) every: Duration,
}

impl Case {
    /// `None`: fences, which need no replicas.
    pub(crate) fn plan(self) -> Option<Plan> {
        use Fault::{Kill, Partition, Stop, Term};
        let plan = |who, fault, pods, every_ms| Plan { who, fault, pods, every: Duration::from_millis(every_ms) };
        Some(match self {
            Self::Graceful => plan(Who::Ours, Term, 1_000, 10),
            Self::Kill => plan(Who::Ours, Kill, 1_000, 10),
            Self::Frozen => plan(Who::Ours, Stop, 1_000, 20),
            Self::Partition => plan(Who::Ours, Partition, 1_000, 20),
            Self::TakeOver => plan(Who::Ours, Kill, 10_000, 10),
            Self::KleGraceful => plan(Who::KubeLeaderElection, Term, 1_000, 20),
            Self::KleKill => plan(Who::KubeLeaderElection, Kill, 1_000, 50),
            Self::ClientGoGraceful => plan(Who::ClientGo, Term, 1_000, 20),
            Self::ClientGoKill => plan(Who::ClientGo, Kill, 1_000, 50),
            Self::FenceTwoShot | Self::FenceOneShot => return None,
        })
    }

    /// Trials in a row before another case has its turn.
    pub(crate) fn block(self) -> usize {
        match self {
            Self::KleKill | Self::ClientGoKill => 1,
            Self::FenceTwoShot | Self::FenceOneShot => 10,
            _ => 5,
        }
    }

    /// Trials of a whole run; the baselines' kills take 15 s each.
    pub(crate) fn trials(self, trials: usize) -> usize {
        match self {
            Self::KleKill | Self::ClientGoKill => trials.div_ceil(5),
            _ => trials,
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Graceful => "ours: graceful (SIGTERM)",
            Self::Kill => "ours: SIGKILL, 1 000 pods",
            Self::Frozen => "ours: frozen (SIGSTOP)",
            Self::Partition => "ours: cut off from the API server",
            Self::TakeOver => "ours: SIGKILL, 10 000 pods",
            Self::FenceTwoShot => "fence, open transaction: ours",
            Self::FenceOneShot => "fence, open transaction: one shot",
            Self::KleGraceful => "kube-leader-election: graceful",
            Self::KleKill => "kube-leader-election: SIGKILL",
            Self::ClientGoGraceful => "client-go: graceful",
            Self::ClientGoKill => "client-go: SIGKILL",
        }
    }

    /// Percentile and limit in milliseconds, of the gap (of the first new event where that is what is aimed at).
    pub(crate) fn targets(self) -> &'static [(f64, f64)] {
        match self {
            Self::Graceful => &[(0.5, 40.0), (0.99, 90.0)],
            Self::Kill => &[(0.99, 400.0)],
            Self::Frozen | Self::Partition => &[(0.99, 5300.0)],
            Self::TakeOver => &[(0.99, 800.0)],
            Self::FenceTwoShot => &[(0.5, 30.0)],
            _ => &[],
        }
    }

    /// Whether the first new event is what the target is about, not the gap.
    pub(crate) fn aims_at_first(self) -> bool {
        matches!(self, Self::TakeOver | Self::FenceTwoShot | Self::FenceOneShot)
    }

    /// Whether every status must be told, and once.
    pub(crate) fn is_exact(self) -> bool {
        self.plan().is_some_and(|plan| plan.who == Who::Ours)
    }

    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

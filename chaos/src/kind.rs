//! What is done to the monitor, its servers and the ways between them.

use clap::ValueEnum;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// SIGKILL to the leader
    Kill,
    /// SIGTERM to the leader
    Terminate,
    /// SIGSTOP to the leader until another leads, then SIGCONT
    Freeze,
    /// SIGKILL to all replicas at once; pods end and go in the gap
    KillAll,
    /// The leader's pod is deleted by force: the object is gone before its process is
    ForceDelete,
    /// The successors die in one step of the take-over, one after the other
    DieTakingOver,
    /// The leader dies in one step of the hand-over
    DieHandingOver,
    /// One replica's wall clock jumps an hour ahead, and back
    ClockJump,
    /// The leader's link to the API server passes nothing, in one direction or both
    CutApi,
    /// The leader's link to the API server is slow, in one direction or both
    SlowApi,
    /// The leader's link to Kafka passes nothing, in one direction or both
    CutKafka,
    /// The leader's link to Kafka is slow, in one direction or both
    SlowKafka,
    /// Every connection to the API server breaks every 100 ms
    BreakWatches,
    /// The API server is killed and started again
    KillApiServer,
    /// etcd stands still
    PauseEtcd,
    /// etcd is compacted and the API server restarted: positions are too old
    Compact,
    /// Kafka is killed and started again
    KillKafka,
    /// The Lease is deleted
    DeleteLease,
    /// The Lease is edited by hand
    EditLease,
}

impl Kind {
    /// How often it comes up beside the others, after each came once.
    pub(crate) fn weight(self) -> usize {
        match self {
            Self::Kill => 24,
            Self::Terminate | Self::KillAll => 4,
            Self::DieTakingOver | Self::DieHandingOver => 5,
            Self::DeleteLease | Self::EditLease | Self::BreakWatches => 1,
            // Each takes seconds of waiting: once in a while.
            _ => 0,
        }
    }

    /// In how many ways it is done: each comes once before it counts as done (`strikes/`).
    pub(crate) fn ways(self) -> usize {
        match self {
            Self::DieTakingOver => crate::strikes::TAKING_OVER.len(),
            Self::DieHandingOver => crate::strikes::HANDING_OVER.len(),
            Self::CutApi | Self::SlowApi | Self::CutKafka | Self::SlowKafka => crate::strikes::WAYS.len(),
            Self::EditLease => crate::strikes::EDITS,
            _ => 1,
        }
    }

    /// Which part of the system it hits, for the timeline's colours.
    pub(crate) fn hits(self) -> Part {
        match self {
            Self::Kill
            | Self::Terminate
            | Self::Freeze
            | Self::KillAll
            | Self::ForceDelete
            | Self::DieTakingOver
            | Self::DieHandingOver
            | Self::ClockJump => Part::Replicas,
            Self::CutApi | Self::SlowApi | Self::CutKafka | Self::SlowKafka | Self::BreakWatches => Part::Links,
            Self::KillApiServer | Self::PauseEtcd | Self::Compact | Self::KillKafka => Part::Servers,
            Self::DeleteLease | Self::EditLease => Part::Lease,
        }
    }

    /// While it lasts, what happens to pods may pass the monitor by: the server forgets what it would have told.
    pub(crate) fn hides(self) -> bool {
        matches!(self, Self::KillApiServer | Self::Compact)
    }

    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// One line for people.
    pub(crate) fn help(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }
}

/// What a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Processes of the monitor.
    Replicas,
    /// Ways between a replica and its servers.
    Links,
    /// API server, etcd, Kafka.
    Servers,
    /// The Lease object.
    Lease,
}

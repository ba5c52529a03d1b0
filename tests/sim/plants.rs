//! Defects planted into the world around the code under test: each must be found, for the right reason.

/// What is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The changelog is read before older producers are refused.
    FenceAfterRestore,
    /// Writes to the Lease rest on no version.
    PatchWithoutVersion,
    /// Event ids are made up anew each time.
    RandomIds,
    /// Events and what remembers them go out in two transactions.
    OutsideTransaction,
    /// A producer is used on after an answer that was not clean.
    UncleanProducer,
    /// A LIST shows how it was some time ago, and says that it is now.
    StaleList,
    /// Of one pod nothing can be written: what would be told of it breaks a rule.
    UnsoundPod,
    /// One shard tells of the pods of the next one.
    WrongShare,
    /// What earlier generations had worked through is not handed on.
    ForgottenHeritage,
    /// It is forgotten with the first position that is told, however far that is.
    HeritageSpentAtOnce,
    /// A reshard fences nobody.
    UnfencedReshard,
    /// Replicas that have too many shards are not told so.
    NobodyGives,
}

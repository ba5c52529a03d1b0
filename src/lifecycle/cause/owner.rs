//! What the owner of a pod knows better: a Job whose deadline passes deletes its pods, which then show only that they
//! were deleted; and a pod that went unseen is counted by its Job all the same.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::lifecycle::event::{Cause, ErrorType, Outcome, Owner, Verdict};

/// A pod whose deletion a Job brought about ends after the Job said so, or this much before: both are clocks of whole
/// seconds, on two machines, and the pod's deletion is asked for first.
const CLOCKS_APART_MAX: SignedDuration = SignedDuration::from_secs(10);

/// What an owner says, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerSays {
    /// What.
    pub end: OwnerEnd,
    /// When its condition became true; `None` where it has none (yet).
    pub since: Option<Timestamp>,
}

/// What the owner of a pod says of its end, by the owner's own conditions and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerEnd {
    /// Condition Failed or FailureTarget, reason DeadlineExceeded.
    DeadlineExceeded {
        /// `spec.activeDeadlineSeconds` of the Job.
        seconds: Option<i64>,
    },
    /// The same, another reason (`PodFailurePolicy`, `BackoffLimitExceeded`, ...): another pod of it failed for good.
    Failed,
    /// `spec.suspend`: Kueue and its like take a Job's pods away to start them later.
    Suspended,
    /// Condition Complete, of a Job that wanted one success and can have had a single pod only: that one succeeded.
    Complete,
}

impl OwnerEnd {
    /// By the reason of a Job's condition Failed, FailureTarget or Suspended.
    pub fn by_condition(kind: &str, reason: &str, deadline: Option<i64>) -> Option<Self> {
        match (kind, reason) {
            ("Failed" | "FailureTarget", "DeadlineExceeded") => Some(Self::DeadlineExceeded { seconds: deadline }),
            ("Failed" | "FailureTarget", _) => Some(Self::Failed),
            ("Suspended", _) => Some(Self::Suspended),
            _ => None,
        }
    }
}

/// Whether this owner may know more of such an end than the pod shows.
pub fn may_know_better(owner: &Owner, verdict: &Verdict) -> bool {
    owner.is_job() && verdict.failure.as_ref().is_some_and(|failure| is_open(failure.cause))
}

/// A pod that somebody deleted, or that nobody saw end: why, its status does not say. Who was killed without being deleted
/// was not killed by its Job.
fn is_open(cause: Cause) -> bool {
    matches!(cause, Cause::Deleted | Cause::Lost)
}

/// Replaces the cause of a pod that was deleted or lost by what its owner says. An end of the program's own stays, and so
/// does that of a pod which had ended before. Whether it did.
pub fn explain_by_owner(verdict: &mut Verdict, says: OwnerSays) -> bool {
    let Some(failure) = verdict.failure.as_mut().filter(|failure| is_open(failure.cause)) else { return false };
    let before = says.since.is_some_and(|since| since.duration_since(verdict.at) > CLOCKS_APART_MAX);
    if before && says.end != OwnerEnd::Complete {
        return false;
    }
    let message = match says.end {
        OwnerEnd::DeadlineExceeded { seconds } => {
            verdict.outcome = Outcome::TimedOut;
            (failure.cause, failure.error_type, failure.retryable) = (Cause::Deadline, ErrorType::Timeout, false);
            failure.timeout_seconds = seconds;
            failure.hint = Some("raise activeDeadlineSeconds of the Job, or make the execution quicker".into());
            "the Job was active longer than its activeDeadlineSeconds"
        }
        OwnerEnd::Failed => "the Job failed, and its other pods were deleted",
        OwnerEnd::Suspended => {
            failure.cause = Cause::Disrupted;
            "the Job was suspended; it may be started anew"
        }
        // Who was seen to be deleted or killed did not succeed; who was seen by nobody may have.
        OwnerEnd::Complete if failure.cause == Cause::Lost => {
            (verdict.outcome, verdict.exit_code, verdict.failure) = (Outcome::Completed, Some(0), None);
            return true;
        }
        OwnerEnd::Complete => return false,
    };
    failure.message = Some(message.into());
    true
}

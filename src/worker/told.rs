//! What the status page remembers of the ends that were told. Pure.

use crate::{
    http::status::{EXECUTIONS_MAX, Execution, Shown},
    lifecycle::event::{Body, Cause, Ended, Event, LogsStatus, Outcome},
};

/// The ends of one transaction: counted all, remembered the last few. Few of the events that a busy worker tells are ends,
/// and of those of one transaction at most [`EXECUTIONS_MAX`] are copied.
#[derive(Debug, Default)]
pub(super) struct Ends {
    completed: u64,
    failed: u64,
    timeout: u64,
    /// Those whose output is missing, in whole or in part.
    without_output: u64,
    /// The last ones, newest first.
    last: Vec<Execution>,
}

impl Ends {
    /// Of these events of one shard; `None` where none is an end.
    pub(super) fn of(events: &[Event], shard: u32) -> Option<Box<Self>> {
        let mut ends = Self::default();
        for event in events.iter().rev() {
            let Body::Ended(ended) = &event.body else { continue };
            match ended.verdict.outcome {
                Outcome::Completed => ends.completed += 1,
                Outcome::Failed => ends.failed += 1,
                Outcome::TimedOut => ends.timeout += 1,
            }
            ends.without_output += u64::from(is_without_output(ended));
            if ends.last.len() < EXECUTIONS_MAX {
                ends.last.push(execution(event, ended, shard));
            }
        }
        (!ends.last.is_empty()).then(|| Box::new(ends))
    }

    /// They are committed, and these are the causes of the failures among them.
    pub(super) fn show(self, causes: &[Cause], shown: &mut Shown) {
        shown.ends.completed += self.completed;
        shown.ends.failed += self.failed;
        shown.ends.timeout += self.timeout;
        shown.missing.output += self.without_output;
        for cause in causes {
            *shown.ends.causes.entry(cause.as_str()).or_default() += 1;
        }
        shown.executions.truncate(EXECUTIONS_MAX - self.last.len());
        let told = shown.ends.completed + shown.ends.failed + shown.ends.timeout;
        let before = told - self.last.len() as u64;
        for (number, execution) in (before + 1..).zip(self.last.into_iter().rev()) {
            shown.executions.push_front(Execution { number, ..execution });
        }
    }
}

/// Of one that never ran there is nothing to miss.
fn is_without_output(ended: &Ended) -> bool {
    let ran = ended.verdict.failure.as_ref().is_none_or(|failure| failure.attempt_started);
    ran && matches!(ended.captured.logs.status, LogsStatus::Partial | LogsStatus::Unavailable)
}

fn execution(event: &Event, ended: &Ended, shard: u32) -> Execution {
    let verdict = &ended.verdict;
    let ran = verdict.started_at.zip(verdict.finished_at).map(|(from, to)| to.duration_since(from).as_secs_f64());
    Execution {
        number: 0,
        at: event.timestamp,
        shard,
        namespace: event.namespace.clone(),
        pod_name: event.pod_name.clone(),
        pod_uid: event.pod_uid.0.clone(),
        execution_id: event.execution_id.clone(),
        verdict: match verdict.outcome {
            Outcome::Completed => "completed",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timeout",
        },
        cause: verdict.failure.as_ref().map(|failure| failure.cause_name().into()),
        exit_code: verdict.exit_code,
        // By the clock of one node; one that was set back in between says nothing.
        duration_seconds: ran.filter(|seconds| *seconds >= 0.0),
        logs: match ended.captured.logs.status {
            LogsStatus::Complete => "complete",
            LogsStatus::Truncated => "truncated",
            LogsStatus::Partial => "partial",
            LogsStatus::Unavailable => "unavailable",
        },
    }
}

#[cfg(test)]
#[path = "told_tests.rs"]
mod tests;

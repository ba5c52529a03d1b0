//! What is to be told of a pod, as data: names as contract.md has them.

const SCHEDULED: &str = "pod_scheduled";
const RUNNING: &str = "execution_running";
const GONE: &str = "pod_terminated";

/// The story of one pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// Whether a node took it.
    pub scheduled: bool,
    /// Whether its container ran.
    pub ran: bool,
    /// `exit_code`, where a process exited.
    pub exit_code: Option<i32>,
    /// Why it did not complete.
    pub failed: Option<Failed>,
    /// A part of `message`.
    pub says: Option<&'static str>,
    /// How the main container's termination message begins.
    pub termination_message: Option<&'static str>,
    /// What the last state alone tells, where it cannot tell the same: (cause, exit code).
    pub last_alone: Option<(&'static str, Option<i32>)>,
}

/// The failure half of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// `cause`
    pub cause: &'static str,
    /// `error_type`
    pub error_type: &'static str,
    /// `retryable`
    pub retryable: bool,
    /// `attempt_started`
    pub attempt_started: bool,
}

impl Story {
    /// It ended with exit code 0.
    pub fn completed() -> Self {
        Self {
            scheduled: true,
            ran: true,
            exit_code: Some(0),
            failed: None,
            says: None,
            termination_message: None,
            last_alone: None,
        }
    }

    /// It ran and failed by itself: not to be tried again as it is.
    pub fn failed(exit_code: i32, cause: &'static str, error_type: &'static str) -> Self {
        let failed = Failed { cause, error_type, retryable: false, attempt_started: true };
        Self { exit_code: Some(exit_code), failed: Some(failed), ..Self::completed() }
    }

    /// The platform ended it while it ran.
    pub fn disturbed(exit_code: Option<i32>, cause: &'static str) -> Self {
        let failed = Failed { cause, error_type: "system_error", retryable: true, attempt_started: true };
        Self { exit_code, failed: Some(failed), ..Self::completed() }
    }

    /// It never ran.
    pub fn never_ran(cause: &'static str, retryable: bool) -> Self {
        let failed = Failed { cause, error_type: "system_error", retryable, attempt_started: false };
        Self { ran: false, exit_code: None, failed: Some(failed), ..Self::completed() }
    }

    /// The same, of a pod whose container never started.
    pub fn never_started(mut self) -> Self {
        if let Some(failed) = &mut self.failed {
            failed.attempt_started = false;
        }
        self
    }

    /// No node took it.
    pub fn unscheduled(mut self) -> Self {
        self.scheduled = false;
        self
    }

    /// The message says this.
    pub fn says(mut self, part: &'static str) -> Self {
        self.says = Some(part);
        self
    }

    /// The main container's termination message begins so.
    pub fn termination_message(mut self, begins: &'static str) -> Self {
        self.termination_message = Some(begins);
        self
    }

    /// Who sees only the last state cannot know as much.
    pub fn last_alone(mut self, cause: &'static str, exit_code: Option<i32>) -> Self {
        self.last_alone = Some((cause, exit_code));
        self
    }

    /// The type of its end.
    pub fn end(&self) -> &'static str {
        match &self.failed {
            None => "execution_completed",
            Some(failed) if failed.cause == "deadline" => "execution_timeout",
            Some(_) => "execution_failed",
        }
    }

    /// The types of its events, in order.
    pub fn events(&self) -> Vec<&'static str> {
        let told = [(self.scheduled, SCHEDULED), (self.ran, RUNNING), (true, self.end()), (true, GONE)];
        told.into_iter().filter(|(told, _)| *told).map(|(_, event)| event).collect()
    }
}

//! The fields of each event type as they stand in the JSON: serialisation and JSON Schema both come from these structs.
//!
//! ```text
//!  Event ── record.rs ──▶ Wire<PodScheduled | ... | PodTerminated> ──┬─ Serialize ──▶ the record's value
//!                          borrowed: no copies of captured output    └─ JsonSchema ──▶ schema/: docs/schema/*
//! ```
//! What the comments say of a field is what users read of it. The order of the fields is their order in the bytes.
//! Pure: no clock, no client, no logging.

use std::{borrow::Cow, marker::PhantomData, ops::Not};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer, ser::Error as _};
use uuid::Uuid;

use super::record::{EVENT_VERSION, Service};
use crate::lifecycle::event::{
    Cause, ContainerEnd, ContainerSummary, EarlierEnd, Ended, ErrorType, Event, EventType, Failure,
    KUBERNETES_EVENTS_MAX, KubernetesEvent, Logs, MESSAGE_CHARS_MAX, Owner, ResourceUsage,
};

/// Longest execution id, in characters: a legal label value, or the pod's UID.
const ID_CHARS_MAX: usize = 253;

/// What one kind of event has besides the fields of every event.
pub trait Kind: Serialize + JsonSchema {
    /// The event type that it makes.
    const TYPE: EventType;
}

/// One event: what all have, then what its kind has.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{K}")]
pub struct Wire<'a, K: Kind> {
    /// UUIDv5 of cluster, pod, attempt and kind: the same whoever tells it, whenever. A consumer that has seen it may
    /// skip the event.
    event_id: Uuid,
    event_type: TypeOf<K>,
    event_version: Version,
    /// When it happened, by the clocks of the cluster.
    timestamp: Timestamp,
    /// The same as `execution_id`.
    #[schemars(length(min = 1, max = ID_CHARS_MAX))]
    aggregate_id: &'a str,
    /// Which execution: from the pod's label, annotation or name, else the pod's UID. Also the key of the Kafka record.
    #[schemars(length(min = 1, max = ID_CHARS_MAX))]
    execution_id: &'a str,
    /// Who tells it, and whose execution it is.
    metadata: Metadata<'a>,
    /// `metadata.name` of the pod.
    #[schemars(length(min = 1))]
    pod_name: &'a str,
    /// `metadata.namespace` of the pod.
    #[schemars(length(min = 1))]
    namespace: &'a str,
    /// `metadata.uid` of the pod: names come back, UIDs do not.
    #[schemars(length(min = 1))]
    pod_uid: &'a str,
    /// `spec.nodeName`, once bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    node_name: Option<&'a str>,
    /// When the monitor saw it, by its own clock.
    observed_at: Timestamp,
    /// 1, 2, ... per pod: the order of its events, also over several topics.
    #[schemars(range(min = 1))]
    sequence: u32,
    /// What controls the pod (the ownerReference with `controller: true`), for instance its Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a Owner>,
    /// Another pod of the same execution had ended before this one was created: its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    earlier_end: Option<&'a EarlierEnd>,
    #[serde(flatten)]
    kind: K,
}

impl<'a, K: Kind> Wire<'a, K> {
    /// The event with what its kind has.
    pub fn of(event: &'a Event, service: &'a Service, kind: K) -> Self {
        Self {
            event_id: event.event_id,
            event_type: TypeOf(PhantomData),
            event_version: Version,
            timestamp: event.timestamp,
            aggregate_id: &event.execution_id,
            execution_id: &event.execution_id,
            metadata: Metadata {
                service_name: &service.name,
                service_version: &service.version,
                user_id: event.user_id.as_deref(),
                environment: service.environment.as_deref(),
            },
            pod_name: &event.pod_name,
            namespace: &event.namespace,
            pod_uid: &event.pod_uid.0,
            node_name: event.node_name.as_deref(),
            observed_at: event.observed_at,
            sequence: event.sequence,
            owner: event.owner.as_deref(),
            earlier_end: event.earlier_end.as_deref(),
            kind,
        }
    }
}

/// The one name that this kind of event has.
struct TypeOf<K>(PhantomData<K>);

impl<K: Kind> Serialize for TypeOf<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(K::TYPE.as_str())
    }
}

impl<K: Kind> JsonSchema for TypeOf<K> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        K::TYPE.as_str().into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "const": K::TYPE.as_str(),
            "description": "What happened. A consumer skips types that it does not know: later releases may tell more.",
        })
    }
}

/// The version of all event types.
struct Version;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(EVENT_VERSION)
    }
}

impl JsonSchema for Version {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "EventVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "const": EVENT_VERSION,
            "description": "Version of the fields. New optional fields do not change it.",
        })
    }
}

/// Who tells an event, and whose execution it is.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Metadata")]
struct Metadata<'a> {
    /// The service that tells: `pod-monitor`.
    #[schemars(length(min = 1))]
    service_name: &'a str,
    /// Its version.
    #[schemars(length(min = 1))]
    service_version: &'a str,
    /// Whose execution, where a label of the pod says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    user_id: Option<&'a str>,
    /// Environment of the service, where one is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    environment: Option<&'a str>,
}

/// Name of a cause: a known one, a later release's, or a user rule's own.
#[derive(Serialize)]
#[serde(transparent)]
pub struct CauseName<'a>(&'a str);

impl JsonSchema for CauseName<'_> {
    fn schema_name() -> Cow<'static, str> {
        "Cause".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let known: Vec<String> =
            Cause::ALL.iter().map(|cause| format!("- `{}`: {}", cause.as_str(), cause.what())).collect();
        let about = "Fine cause. Grows with time, and rules of the user may name their own; known are:";
        json_schema!({
            "type": "string",
            "pattern": "^[a-z][a-z0-9_]{0,62}$",
            "description": format!("{about}\n{}", known.join("\n")),
            "examples": Cause::ALL.map(Cause::as_str),
        })
    }
}

/// The pod is bound to a node.
#[derive(Serialize, JsonSchema)]
pub struct PodScheduled {}

impl Kind for PodScheduled {
    const TYPE: EventType = EventType::PodScheduled;
}

/// The execution's container runs, or ran.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExecutionRunning")]
pub struct ExecutionRunning<'a> {
    /// All ordinary containers at that moment; of more than some hundred, the first.
    container_statuses: &'a [ContainerSummary],
}

impl Kind for ExecutionRunning<'_> {
    const TYPE: EventType = EventType::ExecutionRunning;
}

impl<'a> ExecutionRunning<'a> {
    /// With the containers at that moment.
    pub fn of(container_statuses: &'a [ContainerSummary]) -> Self {
        Self { container_statuses }
    }
}

/// The execution does not get on: no end, but somebody may want to look. May come several times.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExecutionStalled")]
pub struct ExecutionStalled<'a> {
    /// Why it does not get on.
    cause: CauseName<'a>,
    /// What Kubernetes says of it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MESSAGE_CHARS_MAX))]
    message: Option<&'a str>,
    /// Since when, by the clocks of the cluster.
    since: Timestamp,
}

impl Kind for ExecutionStalled<'_> {
    const TYPE: EventType = EventType::ExecutionStalled;
}

impl<'a> ExecutionStalled<'a> {
    /// Of this cause, since then.
    pub fn of(cause: Cause, message: Option<&'a str>, since: Timestamp) -> Self {
        Self { cause: CauseName(cause.as_str()), message, since }
    }
}

/// A stall resolved itself: the execution gets on again.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExecutionResumed")]
pub struct ExecutionResumed<'a> {
    /// Why it had stalled.
    cause: CauseName<'a>,
    /// `since` of that stall.
    stalled_since: Timestamp,
}

impl Kind for ExecutionResumed<'_> {
    const TYPE: EventType = EventType::ExecutionResumed;
}

impl ExecutionResumed<'_> {
    /// After a stall of this cause.
    pub fn of(cause: Cause, stalled_since: Timestamp) -> Self {
        Self { cause: CauseName(cause.as_str()), stalled_since }
    }
}

/// What every end has.
#[derive(Serialize, JsonSchema)]
struct End<'a> {
    /// Of the main container; absent where no process exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// Standard output; everything, where the streams could not be told apart. Where it was cut, head and tail with a
    /// mark between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<&'a str>,
    /// Standard error, cut like `stdout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<&'a str>,
    /// Numbers that the executor reported; absent where it reported none.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_usage: Option<&'a ResourceUsage>,
    /// How complete the output is.
    logs: &'a Logs,
    /// When the main container started; absent where it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    /// When the main container finished, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
    /// All containers that ended, init containers first; of more than some hundred, the first.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    containers: &'a [ContainerEnd],
    /// The last Kubernetes Events about the pod, oldest first.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schemars(length(max = KUBERNETES_EVENTS_MAX))]
    kubernetes_events: &'a [KubernetesEvent],
    /// True where the output claims another exit code than the kubelet saw, whose word counts.
    #[serde(skip_serializing_if = "Not::not")]
    claims_conflict: bool,
}

impl<'a> End<'a> {
    /// Fails on a number that JSON cannot say: serde_json writes NaN and infinities as null, and a field of ours is
    /// never null.
    fn of(Ended { verdict, captured }: &'a Ended) -> Result<Self, serde_json::Error> {
        let seconds = captured.resource_usage.as_ref().and_then(|usage| usage.execution_time_wall_seconds);
        if seconds.is_some_and(|seconds| !seconds.is_finite()) {
            return Err(serde_json::Error::custom("execution_time_wall_seconds is not a finite number"));
        }
        let conflicts = |claimed| Some(claimed) != verdict.exit_code.map(i64::from);
        Ok(Self {
            exit_code: verdict.exit_code,
            stdout: captured.stdout.as_deref(),
            stderr: captured.stderr.as_deref(),
            resource_usage: captured.resource_usage.as_ref(),
            logs: &captured.logs,
            started_at: verdict.started_at,
            finished_at: verdict.finished_at,
            containers: &verdict.containers,
            kubernetes_events: &captured.kubernetes_events,
            claims_conflict: captured.claimed_exit_code.is_some_and(conflicts),
        })
    }
}

/// Why an execution did not complete.
#[derive(Serialize, JsonSchema)]
struct Why<'a> {
    /// Coarse class, stable.
    error_type: ErrorType,
    /// Fine cause.
    cause: CauseName<'a>,
    /// What Kubernetes said of it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MESSAGE_CHARS_MAX))]
    message: Option<&'a str>,
    /// What to do about it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    hint: Option<&'a str>,
    /// Whether the same execution may succeed when it is tried again as it is.
    retryable: bool,
    /// Whether the main container ever started.
    attempt_started: bool,
    /// `activeDeadlineSeconds` of the pod, in seconds, where a deadline ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<i64>,
    /// Name of the user's rule that decided the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    rule: Option<&'a str>,
    /// What that rule files such failures under.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    category: Option<&'a str>,
}

impl<'a> Why<'a> {
    /// A verdict always says why it is not a success; were one not to, that would be its cause.
    fn of(failure: Option<&'a Failure>) -> Self {
        let ruled = failure.and_then(|failure| failure.ruled.as_deref());
        Self {
            error_type: failure.map_or(ErrorType::SystemError, |failure| failure.error_type),
            cause: CauseName(failure.map_or(Cause::Unknown.as_str(), Failure::cause_name)),
            message: failure.and_then(|failure| failure.message.as_deref()),
            hint: failure.and_then(|failure| failure.hint.as_deref()),
            retryable: failure.is_some_and(|failure| failure.retryable),
            attempt_started: failure.is_some_and(|failure| failure.attempt_started),
            timeout_seconds: failure.and_then(|failure| failure.timeout_seconds),
            rule: ruled.map(|ruled| &*ruled.rule),
            category: ruled.and_then(|ruled| ruled.category.as_deref()),
        }
    }
}

/// The execution ended with exit code 0.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExecutionCompleted")]
pub struct ExecutionCompleted<'a> {
    #[serde(flatten)]
    end: End<'a>,
}

impl Kind for ExecutionCompleted<'_> {
    const TYPE: EventType = EventType::ExecutionCompleted;
}

impl<'a> ExecutionCompleted<'a> {
    /// Fails on numbers that JSON cannot say.
    pub fn of(ended: &'a Ended) -> Result<Self, serde_json::Error> {
        Ok(Self { end: End::of(ended)? })
    }
}

/// The execution ended otherwise, could not start, or vanished.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExecutionFailed")]
pub struct ExecutionFailed<'a> {
    #[serde(flatten)]
    end: End<'a>,
    #[serde(flatten)]
    why: Why<'a>,
}

impl Kind for ExecutionFailed<'_> {
    const TYPE: EventType = EventType::ExecutionFailed;
}

impl<'a> ExecutionFailed<'a> {
    /// Fails on numbers that JSON cannot say.
    pub fn of(ended: &'a Ended) -> Result<Self, serde_json::Error> {
        Ok(Self { end: End::of(ended)?, why: Why::of(ended.verdict.failure.as_ref()) })
    }
}

/// A deadline ended the execution.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExecutionTimeout")]
pub struct ExecutionTimeout<'a> {
    #[serde(flatten)]
    end: End<'a>,
    #[serde(flatten)]
    why: Why<'a>,
}

impl Kind for ExecutionTimeout<'_> {
    const TYPE: EventType = EventType::ExecutionTimeout;
}

impl<'a> ExecutionTimeout<'a> {
    /// Fails on numbers that JSON cannot say.
    pub fn of(ended: &'a Ended) -> Result<Self, serde_json::Error> {
        Ok(Self { end: End::of(ended)?, why: Why::of(ended.verdict.failure.as_ref()) })
    }
}

/// The Pod object is gone: the last event of a pod.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PodTerminated")]
pub struct PodTerminated<'a> {
    /// Of the execution, 0 where it completed; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    /// The pod's last `status.reason`, or the cause of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub(super) reason: Option<&'a str>,
    /// The pod's last `status.message`, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MESSAGE_CHARS_MAX))]
    pub(super) message: Option<&'a str>,
    /// False: nobody saw it go, its absence was found by a LIST.
    pub(super) observed: bool,
}

impl Kind for PodTerminated<'_> {
    const TYPE: EventType = EventType::PodTerminated;
}

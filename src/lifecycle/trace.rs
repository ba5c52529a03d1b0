//! The trace that an execution stands in. Pure: every replica derives the same ids, so that what a leader began and its
//! successor ended is one trace, and nothing need be remembered but the parent that the pod names.
//!
//! ```text
//!   parent: TRACEPARENT variable of a container, else annotation `traceparent`; none: the trace begins here
//!     └─ execution             from the kubelet's start to its end
//!          └─ send <topic>     one for each event; its id stands in the record's header `traceparent`
//! ```

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

use super::event::Event;
use crate::watch::pod::{Pod, PodUid};

/// The variable, as OpenTelemetry has it for parents across processes.
pub const VARIABLE: &str = "TRACEPARENT";
/// The annotation, where no container has the variable.
pub const ANNOTATION: &str = "traceparent";
/// Length of version 00, and of what later versions begin with.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// A W3C trace context: trace, span, and whether they are recorded. Source: <https://www.w3.org/TR/trace-context/>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// 16 bytes, not all 0.
    pub trace_id: u128,
    /// 8 bytes, not all 0.
    pub span_id: u64,
    /// Whether whoever made it records it.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads version 00, and what a later version has in common with it.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let (head, rest) = (text.get(..LENGTH)?, text.get(LENGTH..)?);
        let mut parts = head.split('-');
        let mut part = |length: usize| parts.next().filter(|part| part.len() == length && lower(part));
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let known = version != "ff" && (rest.is_empty() || (version != "00" && rest.starts_with('-')));
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        known.then_some(Self { trace_id, span_id, sampled: flags & SAMPLED != 0 })
    }

    /// What a pod names as the parent of its execution.
    pub fn of(pod: &Pod) -> Option<Self> {
        let variable = pod.spec.containers.iter().find_map(|container| container.traceparent.as_deref());
        let annotation = || pod.metadata.annotations.get(ANNOTATION).map(|text| &**text);
        variable.and_then(Self::parse).or_else(|| annotation().and_then(Self::parse))
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a traceparent"))
    }
}

/// One that is none costs nothing else of what it stands in.
pub(super) fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TraceParent>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(TraceParent::parse))
}

/// Which traces are recorded that have no parent: whoever has one is recorded where that is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// A parent decides for its children.
    pub parent_based: bool,
    /// The part of the traces that begin here, 0 to 1.
    pub ratio: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { parent_based: true, ratio: 1.0 }
    }
}

impl Sampling {
    fn sampled(&self, trace_id: u128, parent: Option<TraceParent>) -> bool {
        match parent.filter(|_| self.parent_based) {
            Some(parent) => parent.sampled,
            // As OpenTelemetry's samplers by ratio do: all replicas and all services judge alike.
            None => ((trace_id as u64) >> 1) as f64 <= self.ratio * ((1_u64 << 63) as f64) && self.ratio > 0.0,
        }
    }
}

/// The span of one execution, and of what is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutionTrace {
    /// The execution's own span.
    pub own: TraceParent,
    /// Span id of its parent.
    pub parent: Option<u64>,
}

impl ExecutionTrace {
    /// Of a pod that names this parent.
    pub fn of(uid: &PodUid, parent: Option<TraceParent>, sampling: Sampling) -> Self {
        let (upper, lower) = halves(uid);
        // Two UIDs differ in a half at least, so these do too; and they look random, on which samplers rest.
        let begun = || u128::from(mixed(upper)) << 64 | u128::from(mixed(lower).max(1));
        let trace_id = parent.map_or_else(begun, |parent| parent.trace_id);
        let sampled = sampling.sampled(trace_id, parent);
        let own = TraceParent { trace_id, span_id: mixed(mixed(upper) ^ lower).max(1), sampled };
        Self { own, parent: parent.map(|parent| parent.span_id) }
    }

    /// Of the pod that an event is told of.
    pub fn of_event(event: &Event, sampling: Sampling) -> Self {
        Self::of(&event.pod_uid, event.parent, sampling)
    }

    /// The span in which an event is sent: a child of the execution's, the same whoever sends it.
    pub fn sending(&self, event: &Event) -> TraceParent {
        TraceParent { span_id: fold(event.event_id.as_u128()), ..self.own }
    }
}

/// The bits of a UID. Those that an API server made are UUIDs, random already; others are made one.
fn halves(uid: &PodUid) -> (u64, u64) {
    let uuid = Uuid::try_parse(&uid.0).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, uid.0.as_bytes()));
    uuid.as_u64_pair()
}

/// Each bit hangs on all bits, and no two numbers give the same: one step of SplitMix64 (Steele et al., 2014). It is done
/// three times for each event, where a hash of text would be felt.
fn mixed(bits: u64) -> u64 {
    let z = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Eight bytes of a UUID, of which all count; never 0.
fn fold(id: u128) -> u64 {
    ((id >> 64) as u64 ^ id as u64).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_comes_back_and_what_is_none_is_refused() {
        let parent = TraceParent::parse(PARENT).expect("W3C's own example");
        assert_eq!((parent.to_string(), parent.sampled), (PARENT.to_owned(), true));
        let later = PARENT.replacen("00-", "01-", 1);
        assert_eq!(TraceParent::parse(&format!("{later}-more")), Some(parent), "a later version");
        let bad = [
            "",
            "00",
            &PARENT.replace("4bf9", "4BF9"),
            &PARENT.replacen("00-", "ff-", 1),
            &format!("{PARENT}-more"),
            &format!("{later}more"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            &"é".repeat(40),
        ];
        for text in bad {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn ids_hang_on_the_pod_alone_and_on_its_parent() {
        let (a, b) = (PodUid("a".into()), PodUid("b".into()));
        let trace = |uid: &PodUid, parent| ExecutionTrace::of(uid, parent, Sampling::default());
        assert_eq!(trace(&a, None), trace(&a, None));
        assert_ne!(trace(&a, None).own.trace_id, trace(&b, None).own.trace_id);
        let parent = TraceParent::parse(PARENT);
        let child = trace(&a, parent);
        assert_eq!(Some((child.own.trace_id, child.parent)), parent.map(|p| (p.trace_id, Some(p.span_id))));
        assert_ne!(child.own.span_id, trace(&b, parent).own.span_id, "two executions of one trace");
        assert_eq!(child.own.span_id, trace(&a, None).own.span_id);
        // One bit of either half.
        let near = |n: u128| trace(&PodUid(Uuid::from_u128(n).to_string().into()), None).own;
        let own = [near(0), near(1), near(1 << 64), near(u128::MAX)];
        let (traces, spans): (HashSet<_>, HashSet<_>) = own.iter().map(|own| (own.trace_id, own.span_id)).unzip();
        assert_eq!((traces.len(), spans.len()), (4, 4));
    }

    #[test]
    fn a_parent_decides_whether_its_children_are_recorded_and_a_ratio_whether_others_are() {
        let quiet = TraceParent::parse(PARENT).map(|parent| TraceParent { sampled: false, ..parent });
        let sampled = |n: u32, parent, parent_based, ratio| {
            let sampling = Sampling { parent_based, ratio };
            // As API servers make them, and as nobody forbids; ids that follow one another are sampled as others are.
            let uid = if n.is_multiple_of(2) { Uuid::from_u128(n.into()).to_string() } else { n.to_string() };
            ExecutionTrace::of(&PodUid(uid.into()), parent, sampling).own.sampled
        };
        assert!(!sampled(1, quiet, true, 1.0) && sampled(1, quiet, false, 1.0));
        let part = |ratio| (0..1000).filter(|n| sampled(*n, None, true, ratio)).count();
        assert_eq!((part(0.0), part(1.0)), (0, 1000));
        assert!((150..350).contains(&part(0.25)), "{}", part(0.25));
    }
}

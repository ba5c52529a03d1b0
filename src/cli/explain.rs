//! `explain`: what `run` would tell for a pod, and why. Reads no cluster, no logs, no Kafka.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{EXIT_FAILED, chain};
use crate::{
    clock,
    config::{self, OutputKind},
    lifecycle::{
        event::{Body, EarlierEnd, Event, Verdict},
        explain::{Chosen, Explained, explain, rests_on},
        identity::{IdSources, Source},
        rules::Rules,
        stall::Clock,
        user_rules::Candidate,
    },
    publish::record::{self, Service},
    watch::pod::{Pod, decode},
};

/// Largest input, in bytes: thousands of pods.
const INPUT_BYTES_MAX: u64 = 64 << 20;
/// Deepest nesting that is read; a Pod has 15 or so.
const DEPTH_MAX: usize = 100;

pub(super) const EXAMPLES: &str = "\
Asks no cluster and reads no output: of an end only the verdict is told, as of now or of --at. Settings may also come
from the variables and the file of 'run'; event ids are those of the cluster only with its --cluster-id.

Examples:
  A pod of the cluster, or many:
    kubectl get pod exec-7 -o yaml | pod-monitor explain -f -
    kubectl get pods -l app=executor -o json | pod-monitor explain -f - --output json
  Which of your rules decides:
    pod-monitor explain -f pod.yaml --rules rules.yaml
  Which stall clock ran at that time:
    pod-monitor explain -f pod.yaml --at 2026-11-25T12:00:00Z --stall-grace image=30s

Exit codes: 0 explained, 1 the pod cannot be read, 2 configuration.";

/// What to explain.
#[derive(Debug)]
pub struct Explain {
    file: PathBuf,
    at: Option<Timestamp>,
    output: OutputKind,
    rules: Rules,
    environment: Option<Box<str>>,
}

/// Reads the settings.
pub(super) fn parse(given: &clap::ArgMatches, variables: config::Variables<'_>) -> Result<Explain, config::Error> {
    let (args, rules) = config::load_explain(given, variables)?;
    let file = args.file.ok_or(config::Error::Missing {
        key: "file",
        mend: "name the file with the pod: -f pod.yaml, or -f - for standard input",
    })?;
    let environment = args.story.environment.map(Into::into);
    Ok(Explain { file, at: args.at, output: args.output, rules, environment })
}

/// Does it.
pub fn run(explain: &Explain) -> ExitCode {
    let told = pods_of(&explain.file).and_then(|pods| tell(explain, &pods));
    match told {
        // A reader that has gone away wanted no more of it.
        Ok(text) => drop(std::io::stdout().write_all(text.as_bytes())),
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            return ExitCode::from(EXIT_FAILED);
        }
    }
    ExitCode::SUCCESS
}

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {file}")]
    Input { file: String, source: std::io::Error },
    #[error("{file}: {why}: give it what 'kubectl get pod NAME -o yaml' prints")]
    Pod { file: String, why: String },
    #[error("write the event")]
    Encode(#[source] serde_json::Error),
}

fn pods_of(path: &Path) -> Result<Vec<Pod>, Error> {
    let file = plain(&path.display().to_string());
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text))
    };
    match read {
        Err(source) => return Err(Error::Input { file, source }),
        Ok(bytes) if bytes as u64 > INPUT_BYTES_MAX => {
            let why = format!("is larger than {INPUT_BYTES_MAX} bytes");
            return Err(Error::Pod { file, why });
        }
        Ok(_) => {}
    }
    pods(&text).map_err(|why| Error::Pod { file, why })
}

/// The pods of a text: YAML documents or JSON, each a Pod or a List of them. Total: any text gives pods or a reason.
fn pods(text: &str) -> Result<Vec<Pod>, String> {
    let documents = match serde_json::from_str::<Value>(text) {
        Ok(json) => vec![json],
        Err(_) => {
            let budget = serde_saphyr::budget! { max_depth: DEPTH_MAX, max_events: 10_000_000, max_nodes: 10_000_000,
            max_total_scalar_bytes: 64 << 20 };
            let options = serde_saphyr::options! { budget: budget };
            serde_saphyr::from_multiple_with_options::<Value>(text, options)
                .map_err(|error| plain(&error.without_snippet().to_string()))?
        }
    };
    let mut found = Vec::new();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        match document {
            Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) => {
                let Some(Value::Array(items)) = list.remove("items") else { continue };
                for (n, item) in items.into_iter().enumerate() {
                    found.push(pod(&item).map_err(|why| format!("items[{n}] {why}"))?);
                }
            }
            document => found.push(pod(&document)?),
        }
    }
    if found.is_empty() { Err("holds no pod".to_owned()) } else { Ok(found) }
}

fn pod(value: &Value) -> Result<Pod, String> {
    match value.get("kind").and_then(Value::as_str) {
        // Items of a PodList have none.
        None | Some("Pod") => {}
        Some(kind) => return Err(format!("is a {}, not a Pod", plain(kind))),
    }
    match decode(&value.to_string()).split() {
        (Some(pod), None) => Ok(*pod),
        (Some(pod), Some(odd)) => {
            let name = plain(&pod.metadata.name);
            eprintln!("warning: {} of pod {name} cannot be read; it is explained as 'run' would, without", odd.lost);
            Ok(*pod)
        }
        (None, odd) => Err(format!("is no pod: {}", plain(&odd.map(|odd| odd.lost).unwrap_or_default()))),
    }
}

fn tell(asked: &Explain, pods: &[Pod]) -> Result<String, Error> {
    let now = asked.at.unwrap_or_else(clock::now);
    let first: Vec<Explained> = pods.iter().map(|pod| explain(pod, None, now, &asked.rules)).collect();
    let mut text = String::new();
    for (pod, explained) in pods.iter().zip(&first) {
        let told = match earlier(pod, explained, pods.iter().zip(&first)) {
            Some(earlier) => &explain(pod, Some(&earlier), now, &asked.rules),
            None => explained,
        };
        if asked.output == OutputKind::Json {
            let shown = shown(asked, pod, told)?;
            text.push_str(&serde_json::to_string_pretty(&shown).map_err(Error::Encode)?);
            text.push('\n');
        } else {
            if !text.is_empty() {
                text.push('\n');
            }
            for (name, said) in lines(asked, pod, told) {
                // Writing to a String cannot fail.
                let _infallible = writeln!(text, "{name:<10} {}", plain(&said));
            }
        }
    }
    Ok(text)
}

/// How another of these pods ended the execution before this one was made.
fn earlier<'a>(
    pod: &Pod,
    explained: &Explained,
    all: impl Iterator<Item = (&'a Pod, &'a Explained)>,
) -> Option<EarlierEnd> {
    let made = pod.metadata.creation_timestamp?;
    let execution = &explained.tracked.as_ref()?.execution_id;
    let others = all.filter(|(other, _)| other.metadata.uid != pod.metadata.uid);
    let same = others.filter_map(|(other, told)| Some((other, told.tracked.as_ref()?)));
    let ends = same.filter(|(_, told)| told.execution_id == *execution);
    let ends = ends.filter_map(|(other, told)| told.ended(&other.metadata.uid));
    ends.filter(|end| end.timestamp <= made).max_by_key(|end| end.timestamp)
}

fn from(source: Source, ids: &IdSources) -> String {
    match source {
        Source::Label => format!("from its label {}", ids.execution_label),
        Source::Annotation => format!("from its annotation {}", ids.execution_annotation),
        Source::Name => format!("from its name, after {}", ids.execution_name_prefix),
        Source::Uid => "its uid: neither label, annotation nor name give a legal id".to_owned(),
    }
}

type Line = (&'static str, String);

fn lines(asked: &Explain, pod: &Pod, told: &Explained) -> Vec<Line> {
    let meta = &pod.metadata;
    let mut lines = vec![("pod", format!("{}/{}, uid {}", meta.namespace, meta.name, meta.uid))];
    if let Some(tracked) = &told.tracked {
        lines.push(("execution", format!("{}, {}", tracked.execution_id, from(told.source, &asked.rules.ids))));
        lines.extend(tracked.user_id.as_ref().map(|user| ("user", user.to_string())));
    }
    lines.push(match told.chosen {
        Chosen::Nothing => ("container", told.chosen.as_str().to_owned()),
        chosen => ("container", format!("{}: {}", told.container, chosen.as_str())),
    });
    match (&told.verdict, told.settles_at) {
        (Some(verdict), _) => ended(told, verdict, &mut lines),
        (None, Some(at)) => {
            lines.push(("verdict", format!("failed, and not judged before {at}: its final phase may say more")));
        }
        (None, None) => lines.push(("verdict", "it has not ended".to_owned())),
    }
    if let Some(Clock { cause, since, due, message }) = &told.clock {
        let said = message.as_deref().map(|m| format!(": {m}")).unwrap_or_default();
        let clock = format!("{} since {since}, told at {due}{said}", cause.as_str());
        lines.push(("stall", clock));
    }
    for (n, event) in told.events.iter().enumerate() {
        let name = if n == 0 { "events" } else { "" };
        lines.push((name, event_line(event)));
    }
    lines
}

fn event_line(event: &Event) -> String {
    let (more, message) = match &event.body {
        Body::Stalled { cause, since, message } => (format!(", {} since {since}", cause.as_str()), message.as_deref()),
        _ => (String::new(), None),
    };
    let earlier = event.earlier_end.as_ref().filter(|_| event.sequence == 1);
    let earlier = earlier.map(|end| format!(", after pod {} of the execution had ended", end.pod_uid));
    let said = message.map(|message| format!(": {message}")).unwrap_or_default();
    let (at, what) = (event.timestamp, event.body.event_type());
    format!("{} {what} at {at}{more}{}{said}", event.sequence, earlier.unwrap_or_default())
}

fn ended(told: &Explained, verdict: &Verdict, lines: &mut Vec<Line>) {
    let mut said = verdict.outcome.event_type().to_string();
    if let Some(failure) = &verdict.failure {
        let error_type = word(&failure.error_type);
        let _infallible = write!(said, ", cause {} ({error_type})", failure.cause_name());
    }
    if let Some(code) = verdict.exit_code {
        let _infallible = write!(said, ", exit code {code}");
    }
    let Some(failure) = &verdict.failure else {
        lines.push(("verdict", said));
        lines.push(("decided by", rests_on(verdict).to_owned()));
        return;
    };
    said.push_str(if failure.retryable { ", retryable" } else { ", not retryable" });
    lines.push(("verdict", said));
    lines.extend(failure.message.as_ref().map(|message| ("message", message.to_string())));
    lines.extend(failure.hint.as_ref().map(|hint| ("hint", hint.to_string())));
    let built_in = format!("{} ({})", rests_on(verdict), failure.cause.as_str());
    match &failure.ruled {
        Some(ruled) => {
            lines.extend(ruled.category.as_ref().map(|category| ("category", category.to_string())));
            lines.push(("decided by", format!("rule {}; without it: {built_in}", ruled.rule)));
        }
        None => lines.push(("decided by", built_in)),
    }
    for candidate in waiting(told) {
        let said = format!("rule {} decides instead where its Kubernetes Event is captured", candidate.rule);
        lines.push(("", said));
    }
    lines.extend(told.job.as_ref().map(|job| {
        let may = "it may say that its deadline passed, that it failed, or that it was suspended";
        ("job", format!("{} is asked first: {may}", job.name))
    }));
}

fn waiting(told: &Explained) -> impl Iterator<Item = &Candidate> {
    told.ruling.iter().flat_map(|ruling| &ruling.candidates).filter(|candidate| candidate.event.is_some())
}

/// How a word of an enum stands on the wire.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The JSON form. A field without a value is absent.
#[derive(Serialize)]
struct Shown<'a> {
    namespace: &'a str,
    pod_name: &'a str,
    pod_uid: &'a str,
    execution_id: &'a str,
    execution_id_from: Source,
    container: &'a str,
    container_by: Chosen,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settles_at: Option<Timestamp>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    failure: Option<ShownFailure<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_asked: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting_rules: Vec<&'a Candidate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stall_clock: Option<&'a Clock>,
    events: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct ShownFailure<'a> {
    cause: &'a str,
    known_cause: &'static str,
    error_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
}

fn shown<'a>(asked: &'a Explain, pod: &'a Pod, told: &'a Explained) -> Result<Shown<'a>, Error> {
    let service = Service {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        environment: asked.environment.clone(),
    };
    let encoded = |event| {
        let mut bytes = Vec::new();
        record::write_value(&mut bytes, event, &service).map_err(Error::Encode)?;
        serde_json::from_slice::<Box<RawValue>>(&bytes).map_err(Error::Encode)
    };
    let verdict = told.verdict.as_ref();
    let failure = verdict.and_then(|verdict| verdict.failure.as_ref());
    let ruled = failure.and_then(|failure| failure.ruled.as_deref());
    Ok(Shown {
        namespace: &pod.metadata.namespace,
        pod_name: &pod.metadata.name,
        pod_uid: &pod.metadata.uid.0,
        execution_id: told.tracked.as_ref().map_or(&*pod.metadata.uid.0, |tracked| &*tracked.execution_id),
        execution_id_from: told.source,
        container: &told.container,
        container_by: told.chosen,
        outcome: verdict.map(|verdict| word(&verdict.outcome)),
        settles_at: told.settles_at,
        failure: failure.map(|failure| ShownFailure {
            cause: failure.cause_name(),
            known_cause: failure.cause.as_str(),
            error_type: word(&failure.error_type),
            message: failure.message.as_deref(),
            hint: failure.hint.as_deref(),
            retryable: failure.retryable,
            rule: ruled.map(|ruled| &*ruled.rule),
            category: ruled.and_then(|ruled| ruled.category.as_deref()),
        }),
        decided_by: verdict.map(rests_on).filter(|_| ruled.is_none()),
        job_asked: told.job.as_ref().map(|job| &*job.name),
        waiting_rules: waiting(told).collect(),
        rules_hash: asked.rules.user.hash(),
        stall_clock: told.clock.as_ref(),
        events: told.events.iter().map(encoded).collect::<Result<_, _>>()?,
    })
}

/// Nothing of a pod reaches the terminal raw.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(output: OutputKind) -> Explain {
        let (file, at) = (PathBuf::new(), Some(Timestamp::UNIX_EPOCH));
        Explain { file, at, output, rules: Rules::default(), environment: None }
    }

    proptest! {
        #[test]
        fn no_input_panics_it(text in "(?s).{0,200}", key in "[a-z]{1,10}", json in prop::bool::ANY) {
            let texts = [text.clone(), format!("kind: Pod\nmetadata: {{uid: u, name: p, namespace: runs, {key}: {text}}}\nstatus: {text}\n")];
            for text in texts {
                if let Ok(pods) = pods(&text) {
                    let output = if json { OutputKind::Json } else { OutputKind::Text };
                    prop_assert!(!tell(&asked(output), &pods).unwrap().is_empty());
                }
            }
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
        for deep in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
            assert!(pods(&deep).is_err());
        }
    }

    #[test]
    fn lists_documents_and_single_pods_are_taken_and_other_kinds_named() {
        let one = "{kind: Pod, metadata: {uid: u, name: p, namespace: runs}}";
        for (text, expected) in [
            (one.to_owned(), 1),
            (format!("kind: List\nitems:\n- {one}\n- {one}\n"), 2),
            (format!("kind: PodList\nitems: [{{metadata: {{uid: v, name: q, namespace: runs}}}}, {one}]\n"), 2),
            (format!("---\n{one}\n---\n{one}\n"), 2),
        ] {
            assert_eq!(pods(&text).unwrap().len(), expected, "{text}");
        }
        for (text, expected) in [
            ("kind: Job\nmetadata: {uid: u}\n", "is a Job, not a Pod"),
            ("kind: List\nitems: [{kind: Node}]\n", "items[0] is a Node"),
            ("kind: Pod\nmetadata: {name: p}\n", "metadata.uid is absent"),
            ("", "holds no pod"),
            ("kind: List\nitems: []\n", "holds no pod"),
        ] {
            let said = pods(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}

//! Cases of the recordings, played anew under the eyes of a monitor: from the kubelet to Kafka.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::recorded::{self, Case, Story, play};

use crate::{
    Watched,
    support::{Bench, expect},
};

/// One of each kind that takes seconds.
const CASES: [&str; 11] = [
    "oom-child",
    "pod-deadline-done",
    "init-retried",
    "sidecar-failed-start",
    "restart-rule",
    "restart-all",
    "refused-affinity",
    "gate-opened",
    "debugged",
    "evicted-by-api",
    "job-retries",
];

#[tokio::test]
async fn recorded_cases_tell_their_stories_live() -> Result<()> {
    let mut bench = Bench::new("lives").await?;
    let arguments = &mut bench.launch.arguments;
    let at = arguments.iter().position(|argument| argument == "--namespace").context("the bench watches one")?;
    arguments.splice(at..at + 2, ["--all-namespaces".to_owned()]);
    let mut w = Watched::started(bench, &[]).await?;
    let cases: Vec<Case> = recorded::all().into_iter().filter(|case| CASES.contains(&case.name)).collect();
    ensure!(cases.len() == CASES.len(), "a case has another name now");
    for some in cases.chunks(4) {
        let played = some.iter().map(|case| play::live(&w.bench.endpoints, case, &w.bench.app));
        for (case, uids) in some.iter().zip(futures::future::join_all(played).await) {
            let uids = uids?;
            ensure!(uids.len() == case.stories.len(), "{}: {} pods", case.name, uids.len());
            for (uid, story) in uids.iter().zip(&case.stories) {
                let told = expect(&mut w.history, uid, &story.events()).await.context(case.name)?;
                let end = told.iter().find(|record| record.is_end()).context("an end")?;
                check(story, &end.value).with_context(|| format!("{}: {:#}", case.name, end.value))?;
            }
        }
    }
    w.close().await
}

fn check(story: &Story, end: &Value) -> Result<()> {
    let exit_code = story.exit_code.map_or(Value::Null, Value::from);
    ensure!(end["exit_code"] == exit_code, "exit_code is not {exit_code}");
    let failed = story.failed.as_ref();
    let fields = [
        ("cause", failed.map(|f| json!(f.cause))),
        ("error_type", failed.map(|f| json!(f.error_type))),
        ("retryable", failed.map(|f| json!(f.retryable))),
        ("attempt_started", failed.map(|f| json!(f.attempt_started))),
    ];
    for (field, expected) in fields {
        let expected = expected.unwrap_or_default();
        ensure!(end[field] == expected, "{field} is not {expected}");
    }
    let message = end["message"].as_str().unwrap_or_default();
    ensure!(message.contains(story.says.unwrap_or_default()), "message {message:?} does not say {:?}", story.says);
    Ok(())
}

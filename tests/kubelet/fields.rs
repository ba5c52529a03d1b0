//! Every field of every event, as contract.md has them.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use testkit::clients::history::Record;

use crate::{
    Watched,
    support::{expect, faultless, truth},
};

#[tokio::test]
async fn every_event_has_the_fields_of_the_contract() -> Result<()> {
    let mut w = Watched::new("fields", &["--environment", "test"]).await?;
    let uid = w.pod("f", "echo out; echo err >&2", |pod| pod["metadata"]["labels"]["user-id"] = "u-7".into()).await?;
    w.end(&uid).await?;
    w.bench.cluster.delete("exec-f", None).await?;
    let types = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];
    let told = expect(&mut w.history, &uid, &types).await?;
    let kube_system: k8s_openapi::api::core::v1::Namespace =
        kube::Api::all(w.bench.cluster.client()).get("kube-system").await?;
    let cluster = kube_system.metadata.uid.context("a uid")?;
    for (sequence, record) in (1..).zip(&told) {
        common(record, &uid, &w.bench.app, sequence).with_context(|| format!("{:#}", record.value))?;
        headers(record, &cluster, &w.bench.app).with_context(|| format!("{:#?}", record.headers))?;
    }
    let running = &told[1].value["container_statuses"][0];
    ensure!(running["name"] == "main" && running["restart_count"] == 0, "{running}");
    ensure!(running["ready"].is_boolean() && running["state"].is_string(), "{running}");
    end(&told[2].value).with_context(|| format!("{:#}", told[2].value))?;
    let gone = &told[3].value;
    ensure!(gone["exit_code"] == 0 && gone["observed"] == true, "{gone}");
    faultless(&w.history, &[truth(&uid, &types)])?;
    w.close().await
}

fn common(record: &Record, uid: &str, namespace: &str, sequence: u64) -> Result<()> {
    let value = &record.value;
    let object = value.as_object().context("an object")?;
    ensure!(record.key == "f" && value["aggregate_id"] == "f" && value["execution_id"] == "f", "ids");
    ensure!(value["event_version"] == "1.0" && value["sequence"] == sequence, "version and sequence");
    ensure!(value["pod_uid"] == uid && value["pod_name"] == "exec-f" && value["namespace"] == namespace, "pod");
    ensure!(value["node_name"] == "node-1", "node");
    let metadata = &value["metadata"];
    ensure!(metadata["service_name"] == "pod-monitor" && metadata["user_id"] == "u-7", "{metadata}");
    ensure!(metadata["service_version"].is_string() && metadata["environment"] == "test", "{metadata}");
    for field in ["timestamp", "observed_at", "started_at", "finished_at"] {
        match object.get(field) {
            Some(at) => {
                at.as_str().with_context(|| format!("{field} is text"))?.parse::<Timestamp>().context(field)?;
            }
            None => ensure!(field.ends_with("ed_at") && field != "observed_at", "no {field}"),
        }
    }
    ensure!(!has_null(value), "a field is null");
    let id = record.text("event_id");
    ensure!(id.len() == 36 && id.as_bytes()[14] == b'5', "{id} is not a UUIDv5");
    Ok(())
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        _ => false,
    }
}

fn headers(record: &Record, cluster: &str, namespace: &str) -> Result<()> {
    let header = |name: &str| record.headers.get(name).map(String::as_str).unwrap_or_default();
    ensure!(header("ce_specversion") == "1.0" && header("ce_id") == record.text("event_id"), "ce_id");
    ensure!(header("ce_type") == format!("dev.pod-monitor.{}.v1", record.event_type()), "ce_type");
    ensure!(header("ce_source") == format!("/kubernetes/{cluster}/{namespace}"), "ce_source");
    ensure!(header("ce_subject") == "f" && header("content-type") == "application/json", "ce_subject");
    ensure!(header("ce_time") == record.text("timestamp"), "ce_time");
    let parts: Vec<&str> = header("traceparent").split('-').collect();
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    ensure!(parts.len() == 4 && parts[0] == "00", "traceparent");
    ensure!(hex(parts[1], 32) && hex(parts[2], 16) && hex(parts[3], 2), "traceparent");
    ensure!(parts[1].bytes().any(|b| b != b'0') && parts[2].bytes().any(|b| b != b'0'), "traceparent is all zero");
    Ok(())
}

fn end(end: &Value) -> Result<()> {
    ensure!(end["exit_code"] == 0 && end["stdout"] == "out\n" && end["stderr"] == "err\n", "output");
    ensure!(end["logs"]["status"] == "complete" && end["logs"].get("reason").is_none(), "logs");
    ensure!(end["logs"]["stdout_bytes"] == 4 && end["logs"]["stderr_bytes"] == 4, "sizes");
    ensure!(end["finished_at"] == end["timestamp"] && end["started_at"].is_string(), "times");
    let container = &end["containers"][0];
    ensure!(
        container["name"] == "main" && container["exit_code"] == 0 && container["restart_count"] == 0,
        "containers"
    );
    for absent in ["error_type", "cause", "message", "hint", "retryable", "resource_usage", "claims_conflict"] {
        ensure!(end.get(absent).is_none(), "{absent} where there is none");
    }
    Ok(())
}

//! The API server: whether it can be reached, its clock, the namespaces.

use std::time::Duration;

use http::Request;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimeParser};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, client::Body};
use serde_json::Value;
use tokio::time::timeout;

use super::finding::Finding;
use crate::{
    cli::chain,
    clock,
    config::{Config, Namespaces},
};

/// How long one question may take.
const ASK_MAX: Duration = Duration::from_secs(10);
/// Clocks that differ by more make times in events hard to compare. An HTTP date is cut to whole seconds.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(5);
/// The oldest Kubernetes that the chart takes.
const MINOR_MIN: u32 = 30;

/// Asks for its version; `false`: there is no point in asking for more.
pub(super) async fn reach(client: &Client, url: &str) -> (Vec<Finding>, bool) {
    let request = Request::get("/version").body(Body::empty()).expect("a path is a URL");
    let asked = async {
        let answer = client.send(request).await.map_err(|error| chain(&error))?;
        let (head, body) = answer.into_parts();
        let body = body.collect_bytes().await.map_err(|error| chain(&error))?;
        Ok::<_, String>((head, body))
    };
    let failed = |why: String| {
        let mend =
            "look whether the kubeconfig (KUBECONFIG) names the right cluster, and whether it can be reached from here";
        (vec![Finding::failed("api-server", format!("{url} cannot be reached: {why}")).mend(mend)], false)
    };
    let (head, body) = match timeout(ASK_MAX, asked).await {
        Err(_) => return failed(format!("no answer within {ASK_MAX:?}")),
        Ok(Err(why)) => return failed(why),
        Ok(Ok(answer)) => answer,
    };
    if !head.status.is_success() {
        return failed(format!("it answers {}", head.status));
    }
    let version: Value = serde_json::from_slice(&body).unwrap_or_default();
    let date = head.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
    (vec![versioned(url, &version), skew(date, clock::now())], true)
}

fn versioned(url: &str, version: &Value) -> Finding {
    let text = version["gitVersion"].as_str().unwrap_or("of an unknown version");
    let number = |field: &str| {
        // Some providers write `30+`.
        version[field].as_str()?.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok()
    };
    let said = format!("{url} is Kubernetes {text}");
    match (number("major"), number("minor")) {
        (Some(1), Some(minor)) if minor < MINOR_MIN => {
            Finding::warning("api-server", format!("{said}, older than 1.{MINOR_MIN}, on which nothing was tried"))
        }
        _ => Finding::ok("api-server", said),
    }
}

fn skew(date: Option<&str>, now: Timestamp) -> Finding {
    let theirs = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
    let Some(theirs) = theirs else { return Finding::skipped("clock", "the API server says no time") };
    let ahead = now.duration_since(theirs);
    let seconds = ahead.as_secs();
    if ahead.abs() <= SKEW_MAX {
        return Finding::ok("clock", format!("within {} s of the API server's", SKEW_MAX.as_secs()));
    }
    let way = if seconds > 0 { "ahead of" } else { "behind" };
    Finding::warning("clock", format!("{} s {way} the API server's: observed_at of events will be off", seconds.abs()))
        .mend("synchronise the clocks (NTP) of this machine and of the API server's")
}

/// Whether the namespaces are there.
pub(super) async fn namespaces(client: &Client, config: &Config) -> Vec<Finding> {
    let mut names: Vec<&str> = match &config.namespaces {
        Namespaces::All => Vec::new(),
        Namespaces::Named(names) => names.iter().map(String::as_str).collect(),
    };
    if config.lease_times.is_some() && !names.contains(&config.lease_namespace.as_str()) {
        names.push(&config.lease_namespace);
    }
    futures::future::join_all(names.into_iter().map(|name| namespace(client, name))).await
}

async fn namespace(client: &Client, name: &str) -> Finding {
    let api: Api<Namespace> = Api::all(client.clone());
    match timeout(ASK_MAX, api.get(name)).await {
        Err(_) => Finding::failed("namespace", format!("{name}: no answer within {ASK_MAX:?}")),
        Ok(Ok(found)) => match found.metadata.deletion_timestamp {
            None => Finding::ok("namespace", format!("{name} is there")),
            Some(_) => Finding::warning("namespace", format!("{name} is being deleted")),
        },
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            Finding::failed("namespace", format!("{name} is not there"))
                .mend(format!("kubectl create namespace {name}"))
        }
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
            Finding::skipped("namespace", format!("{name}: this user may not look, and a monitor need not"))
        }
        Ok(Err(error)) => Finding::failed("namespace", format!("{name}: {}", chain(&error))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::check::finding::Verdict;

    #[test]
    fn old_servers_are_named() {
        for (minor, verdict) in
            [("30", Verdict::Ok), ("29+", Verdict::Warning), ("36+", Verdict::Ok), ("x", Verdict::Ok)]
        {
            let found = versioned("u", &json!({ "major": "1", "minor": minor, "gitVersion": format!("v1.{minor}") }));
            assert_eq!(found.verdict, verdict, "{minor}");
        }
    }

    #[test]
    fn clocks_that_differ_are_named() {
        let now: Timestamp = "2026-11-29T13:00:00Z".parse().unwrap();
        for (date, verdict, part) in [
            (Some("Sun, 29 Nov 2026 13:00:04 GMT"), Verdict::Ok, "within 5 s"),
            (Some("Sun, 29 Nov 2026 12:59:00 GMT"), Verdict::Warning, "60 s ahead of"),
            (Some("Sun, 29 Nov 2026 13:01:00 GMT"), Verdict::Warning, "60 s behind"),
            (Some("tomorrow"), Verdict::Skipped, "no time"),
            (None, Verdict::Skipped, "no time"),
        ] {
            let found = skew(date, now);
            assert!(found.verdict == verdict && found.said.contains(part), "{date:?}: {found:?}");
        }
    }
}

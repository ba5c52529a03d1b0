//! An API server that says what no API server should, or nothing: the monitor goes on, loses nothing, and asks with
//! pauses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use http::StatusCode;
use serde_json::{Value, json};
use testkit::clients::{monitor::Monitor, until};

use crate::support::{
    Bench, LIMIT, expect, faultless, ready,
    tamper::{Kind, Tamper},
    truth, unready,
};

const COMPLETED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];
const LOST: [&str; 4] = ["pod_scheduled", "execution_running", "execution_failed", "pod_terminated"];

/// A place whose monitors reach the API server through a proxy.
async fn place(test: &str) -> Result<(Bench, Tamper)> {
    let mut bench = Bench::new(test).await?;
    let tamper = Tamper::before(&bench.endpoints).await?;
    let kubeconfig = tamper.kubeconfig(&bench.endpoints, &bench.app)?;
    bench.launch = bench.launch.variable("KUBECONFIG", &kubeconfig);
    Ok((bench, tamper))
}

fn restarts(monitor: &Monitor, reason: &str) -> Result<f64> {
    monitor.metric(&format!("pod_monitor_watch_restarts_total{{reason=\"{reason}\"}}"))
}

fn unreadable(monitor: &Monitor, part: &str) -> Result<f64> {
    monitor.metric(&format!("pod_monitor_unreadable_pods_total{{part=\"{part}\"}}"))
}

/// The name of the pod that a line of a watch is about.
fn subject(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    Some(line["object"]["metadata"]["name"].as_str()?.to_owned())
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_found_and_nothing_is_lost() -> Result<()> {
    let (bench, tamper) = place("silent").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let (ends, goes) = (bench.running("ends").await?, bench.running("goes").await?);
    expect(&mut history, &ends, &COMPLETED[..2]).await?;
    expect(&mut history, &goes, &COMPLETED[..2]).await?;
    tamper.hush();
    bench.end("ends", 0).await?;
    bench.end("goes", 0).await?;
    bench.delete("goes").await?;
    let unseen = bench.running("unseen").await?;
    bench.end("unseen", 0).await?;
    bench.delete("unseen").await?;
    let silent = async || Ok((restarts(&monitor, "silent")? >= 1.0).then_some(()));
    until(LIMIT, "the silence is noticed", silent).await?;
    expect(&mut history, &ends, &COMPLETED[..3]).await?;
    for uid in [&goes, &unseen] {
        let told = expect(&mut history, uid, &COMPLETED).await?;
        ensure!(told[2].value["exit_code"] == 0 && told[3].value["observed"] == true, "{told:#?}");
    }
    let flush = bench.flush(&mut history, "flush").await?;
    faultless(&history, &[truth(&ends, &COMPLETED[..3]), truth(&goes, &COMPLETED), truth(&unseen, &COMPLETED), flush])?;
    ensure!(restarts(&monitor, "silent")? == 1.0, "counted once");
    drop(monitor);
    bench.close().await
}

/// Makes pods odd by their names, wherever they appear.
fn make_odd(pod: &mut Value) {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match name.split('-').next_back() {
        // Only once it has any: else there is nothing odd about it.
        Some("count") if pod["status"]["containerStatuses"][0].is_object() => {
            pod["status"]["containerStatuses"][0]["restartCount"] = "x".into();
        }
        Some("text") => pod["status"] = "Running, as far as I know".into(),
        Some("spec") => pod["spec"] = json!(["not", "a", "spec"]),
        Some("null") => pod["spec"] = Value::Null,
        Some("nouid") => drop(pod["metadata"].as_object_mut().unwrap().remove("uid")),
        Some("array") => *pod = json!([pod]),
        _ => {}
    }
}

fn odd_pods(kind: Kind, text: &str) -> Option<String> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    match kind {
        Kind::Watch => make_odd(&mut value["object"]),
        Kind::List => value["items"].as_array_mut()?.iter_mut().for_each(make_odd),
        Kind::Version | Kind::Other => return None,
    }
    Some(format!("{value}\n"))
}

/// How many events are told of each odd pod while it runs.
const ODD: [(&str, usize); 6] = [("count", 1), ("text", 1), ("spec", 2), ("null", 2), ("nouid", 0), ("array", 0)];

#[tokio::test]
async fn an_odd_pod_is_told_as_far_as_possible_and_disturbs_no_other() -> Result<()> {
    let (bench, tamper) = place("odd").await?;
    tamper.rewrite(odd_pods);
    // Some are seen first by the LIST, the others by the watch.
    let mut odd = Vec::new();
    for (name, events) in ODD {
        odd.push((format!("list-{name}"), bench.running(&format!("list-{name}")).await?, events));
    }
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    for (name, events) in ODD {
        odd.push((format!("watch-{name}"), bench.running(&format!("watch-{name}")).await?, events));
    }
    let good = bench.running("good").await?;
    expect(&mut history, &good, &COMPLETED[..2]).await?;
    for (name, uid, events) in &odd {
        expect(&mut history, uid, &COMPLETED[..*events]).await?;
        let lost = bench.log()?.into_iter().find(|line| {
            line["message"] == "pod cannot be read whole, told as far as possible"
                && line["pod"] == format!("{}/exec-{name}", bench.app)
                && line["level"] == "WARN"
        });
        // Null is absent, which is nothing odd; and an array has no name.
        let quiet = name.ends_with("null") || name.ends_with("array");
        ensure!(lost.is_some() != quiet, "{name}: {lost:?}");
    }
    for (part, at_least) in [("status", 4.0), ("spec", 2.0), ("object", 4.0)] {
        let counted = unreadable(&monitor, part)?;
        ensure!(counted >= at_least, "{part}: {counted}");
    }
    ensure!(restarts(&monitor, "broken")? == 0.0, "the watch went on");
    // Readable again: what was missing is told, in its order.
    tamper.behave();
    for (name, uid, _) in &odd {
        bench.end(name, 0).await?;
        let told = expect(&mut history, uid, &COMPLETED[..3]).await?;
        ensure!(told[2].value["exit_code"] == 0, "{name}: {told:#?}");
    }
    let truths: Vec<_> = odd.iter().map(|(_, uid, _)| truth(uid, &COMPLETED[..3])).collect();
    faultless(&history, &[truths, vec![truth(&good, &COMPLETED[..2])]].concat())?;
    drop(monitor);
    bench.close().await
}

#[tokio::test]
async fn a_line_that_is_garbled_once_is_asked_for_again() -> Result<()> {
    let (bench, tamper) = place("once").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    // The first line of each of these pods: cut, joined with another one, a page of a gateway.
    let mut garbled = Vec::new();
    tamper.rewrite(move |kind, line| {
        let name = subject(line).filter(|name| kind == Kind::Watch && !garbled.contains(name))?;
        let instead = match name.as_str() {
            "exec-cut" => line[..line.len() / 2].to_owned(),
            "exec-joined" => format!("{}{line}", &line[..line.len() / 2]),
            "exec-page" => "<html><body>502 Bad Gateway</body></html>\n".to_owned(),
            _ => return None,
        };
        garbled.push(name);
        Some(instead)
    });
    let mut truths = Vec::new();
    for name in ["cut", "joined", "page"] {
        let uid = bench.running(name).await?;
        bench.end(name, 0).await?;
        bench.delete(name).await?;
        let told = expect(&mut history, &uid, &COMPLETED).await?;
        ensure!(told[3].value["observed"] == true, "{name}: {told:#?}");
        truths.push(truth(&uid, &COMPLETED));
    }
    ensure!(restarts(&monitor, "broken")? == 3.0, "{}", restarts(&monitor, "broken")?);
    ensure!(restarts(&monitor, "garbled")? == 0.0, "once is no reason to give a position up");
    faultless(&history, &truths)?;
    drop(monitor);
    bench.close().await
}

#[tokio::test]
async fn a_line_that_stays_garbled_is_passed_by_a_list() -> Result<()> {
    let (bench, tamper) = place("stuck").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let goes = bench.running("goes").await?;
    expect(&mut history, &goes, &COMPLETED[..2]).await?;
    let lists = tamper.count(Kind::List);
    let on = Arc::new(AtomicBool::new(true));
    let (cut, lines) = (Arc::clone(&on), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&lines);
    tamper.rewrite(move |kind, line| {
        let name = subject(line).filter(|_| kind == Kind::Watch)?;
        let bad = cut.load(Ordering::SeqCst) && ["exec-stuck", "exec-goes"].contains(&name.as_str());
        counted.fetch_add(usize::from(bad), Ordering::SeqCst);
        bad.then(|| line[..line.len() / 2].to_owned())
    });
    let stuck = bench.running("stuck").await?;
    bench.delete("goes").await?;
    let after = bench.running("after").await?;
    expect(&mut history, &after, &COMPLETED[..2]).await?;
    expect(&mut history, &stuck, &COMPLETED[..2]).await?;
    // Its DELETED could not be read: a LIST lacks it, and a GET agrees.
    let told = expect(&mut history, &goes, &LOST).await?;
    ensure!(told[3].value["observed"] == false, "{told:#?}");
    let given_up = restarts(&monitor, "garbled")?;
    ensure!(given_up >= 1.0, "no position was given up");
    let said = bench.count("what follows the watch position stays unreadable, listing")?;
    ensure!(said as f64 == given_up, "logged {said} times, counted {given_up} times");
    ensure!(tamper.count(Kind::List) - lists <= said, "more LISTs than positions given up");
    let tries = lines.load(Ordering::SeqCst);
    ensure!(tries <= 3 * said + 2, "{tries} garbled lines for {said} positions");
    on.store(false, Ordering::SeqCst);
    bench.end("stuck", 0).await?;
    expect(&mut history, &stuck, &COMPLETED[..3]).await?;
    ensure!(restarts(&monitor, "garbled")? == given_up, "the watch goes on");
    faultless(&history, &[truth(&stuck, &COMPLETED[..3]), truth(&goes, &LOST), truth(&after, &COMPLETED[..2])])?;
    drop(monitor);
    bench.close().await
}

/// Nine requests in a row wait for eight pauses of 10 (or at first none), 20, 40, ... 1280 ms, each less a quarter at most.
const REQUESTS: usize = 9;
const PAUSES: Duration = Duration::from_millis(2540 * 3 / 4);

async fn asks_with_pauses(tamper: &Tamper, kind: Kind) -> Result<()> {
    let span = tamper.span(kind, REQUESTS).await?;
    ensure!(span >= PAUSES, "{REQUESTS} requests of kind {kind:?} within {span:?}");
    Ok(())
}

#[tokio::test]
async fn an_overloaded_api_server_is_asked_with_pauses_and_waited_for() -> Result<()> {
    let (bench, tamper) = place("overload").await?;
    bench.monitor(&[]).await?.stop(LIMIT).await?;
    let mut history = bench.history()?;
    let mut truths = Vec::new();
    for code in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        tamper.refuse(&[Kind::Watch, Kind::List], code);
        // It begins with a watch from its position and a LIST beside it.
        let mut monitor = bench.launch.start()?;
        tokio::try_join!(asks_with_pauses(&tamper, Kind::Watch), asks_with_pauses(&tamper, Kind::List))?;
        unready(&monitor, &["[-]kubernetes", &format!("answers {}", code.as_str())]).await?;
        tamper.behave();
        ready(&mut monitor).await?;
        truths.push(bench.flush(&mut history, code.as_str()).await?);
        ensure!(restarts(&monitor, "refused")? >= 8.0, "counted");
        ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    }
    faultless(&history, &truths)?;
    bench.close().await
}

#[tokio::test]
async fn positions_that_always_expire_are_given_up_with_pauses() -> Result<()> {
    let (bench, tamper) = place("expires").await?;
    let mut monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let mut truths = vec![bench.flush(&mut history, "before").await?];
    // LISTs work, and no watch can follow.
    tamper.refuse(&[Kind::Watch], StatusCode::GONE);
    tamper.close();
    asks_with_pauses(&tamper, Kind::Watch).await?;
    // Neither works: each LIST is begun anew.
    tamper.refuse(&[Kind::Watch, Kind::List], StatusCode::GONE);
    asks_with_pauses(&tamper, Kind::List).await?;
    unready(&monitor, &["[-]kubernetes", "too old"]).await?;
    tamper.behave();
    ready(&mut monitor).await?;
    truths.push(bench.flush(&mut history, "after").await?);
    // Said within the body of a watch, once.
    let mut once = Some(json!({ "type": "ERROR", "object": { "kind": "Status", "code": 410 } }).to_string() + "\n");
    tamper.rewrite(move |kind, _| once.take_if(|_| kind == Kind::Watch));
    let before = restarts(&monitor, "expired")?;
    truths.push(bench.flush(&mut history, "within").await?);
    ensure!(restarts(&monitor, "expired")? == before + 1.0, "counted");
    faultless(&history, &truths)?;
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

//! The Lease on a real API server: races, edits by hand, and what a standby does about them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use pod_monitor::leadership::{
    election::{Answer, Times},
    lease::Leases,
};
use serde_json::{Value, json};
use testkit::clients::until;

use crate::support::{Bench, LIMIT, expect, faultless, truth};

const TIMES: Times = Times {
    lease_duration: Duration::from_secs(5),
    renew_deadline: Duration::from_secs(3),
    retry_period: Duration::from_secs(1),
};
const STARTED: [&str; 2] = ["pod_scheduled", "execution_running"];

async fn leases(bench: &Bench, me: &str) -> Result<Leases> {
    let kubeconfig = Kubeconfig::read_from(&bench.endpoints.kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let address = Some("192.0.2.1:8080");
    Ok(Leases::new(Client::try_from(config)?, bench.cluster.namespace(), "race", me, address, TIMES))
}

fn api(bench: &Bench) -> Api<Lease> {
    Api::namespaced(bench.cluster.client(), bench.cluster.namespace())
}

async fn edit(bench: &Bench, name: &str, patch: Value) -> Result<()> {
    api(bench).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.context("edit the Lease by hand")?;
    Ok(())
}

#[tokio::test]
async fn of_two_who_take_the_same_lease_exactly_one_wins() -> Result<()> {
    let bench = Bench::new("lease-race").await?;
    let (a, b) = (leases(&bench, "a").await?, leases(&bench, "b").await?);
    let won = |answers: [&Answer; 2]| answers.iter().filter(|answer| matches!(answer, Answer::Ours(_))).count();
    let lost = |answers: [&Answer; 2]| answers.iter().filter(|answer| **answer == &Answer::Conflict).count();
    // It is not there: both make it.
    let ((first, _), (second, _)) = tokio::join!(a.take(None), b.take(None));
    ensure!((won([&first, &second]), lost([&first, &second])) == (1, 1), "{first:?} {second:?}");
    // It is held by a third, and both saw the same version of it.
    for round in 0..20 {
        edit(&bench, "race", json!({ "spec": { "holderIdentity": format!("third-{round}") } })).await?;
        let (seen, _) = a.look().await?;
        let ((first, _), (second, _)) = tokio::join!(a.take(seen.as_ref()), b.take(seen.as_ref()));
        ensure!((won([&first, &second]), lost([&first, &second])) == (1, 1), "{round}: {first:?} {second:?}");
    }
    bench.close().await
}

#[tokio::test]
async fn a_write_on_an_old_version_is_a_conflict_and_a_release_is_seen() -> Result<()> {
    let bench = Bench::new("lease-old").await?;
    let long = format!("{}_ffffffff", "x".repeat(119));
    let (a, b) = (leases(&bench, &long).await?, leases(&bench, "b").await?);
    let (Answer::Ours(first), _) = a.take(None).await else { anyhow::bail!("nobody else is there") };
    let (seen, _) = b.look().await?;
    let seen = seen.context("it is there")?;
    ensure!(*seen.holder == *long && seen.address.as_deref() == Some("192.0.2.1:8080"), "{seen:?}");
    let (Answer::Ours(second), _) = a.renew(first).await else { anyhow::bail!("it is its own") };
    ensure!(second > first, "a renewal is a change");
    ensure!(b.take(Some(&seen)).await.0 == Answer::Conflict, "renewed since");
    ensure!(a.renew(first).await.0 == Answer::Conflict, "an old version");
    ensure!(a.release(first).await.0 == Answer::Conflict, "an old version");
    ensure!(matches!(a.release(second).await.0, Answer::Ours(_)), "its own");
    let (seen, _) = b.look().await?;
    let seen = seen.context("it is there")?;
    ensure!(seen.holder.is_empty() && seen.address.is_none(), "{seen:?}");
    ensure!(matches!(b.take(Some(&seen)).await.0, Answer::Ours(_)), "free");
    // Deleted under its holder: a conflict, not an error.
    api(&bench).delete("race", &DeleteParams::default()).await?;
    ensure!(b.renew(second).await.0 == Answer::Conflict, "gone");
    bench.close().await
}

#[tokio::test]
async fn a_lease_with_null_fields_can_be_taken() -> Result<()> {
    let bench = Bench::new("lease-null").await?;
    let odd = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "race" },
        "spec": {} });
    api(&bench).create(&PostParams::default(), &serde_json::from_value(odd)?).await?;
    let a = leases(&bench, "a").await?;
    let (seen, _) = a.look().await?;
    ensure!(matches!(a.take(seen.as_ref()).await.0, Answer::Ours(_)), "the crate alone fails for ever on it");
    bench.close().await
}

async fn holder(bench: &Bench, name: &str) -> Result<Option<String>> {
    let lease = api(bench).get_opt(name).await?;
    Ok(lease.and_then(|lease| lease.spec?.holder_identity))
}

/// Whatever somebody does to the Lease by hand, the monitor leads again and goes on telling.
#[tokio::test]
async fn a_lease_edited_by_hand_never_stops_us_for_long() -> Result<()> {
    let bench = Bench::new("lease-hand").await?;
    let monitor =
        bench.monitor(&["--lease-duration", "2s", "--renew-deadline", "1200ms", "--retry-period", "300ms"]).await?;
    let mut history = bench.history()?;
    let name = format!("{}-0", bench.app);
    let ours = || holder(&bench, &name);
    let me = ours().await?.context("it leads")?;
    let edits = [
        ("renamed", json!({ "spec": { "holderIdentity": "somebody" } })),
        ("null", json!({ "spec": { "holderIdentity": null, "renewTime": null, "leaseTransitions": null } })),
        ("annotated", json!({ "metadata": { "annotations": { "note": "x" } } })),
        ("long", json!({ "spec": { "leaseDurationSeconds": 3 } })),
    ];
    let mut truths = Vec::new();
    for (what, patch) in edits {
        edit(&bench, &name, patch).await?;
        let led = until(LIMIT, "it leads again", async || Ok((ours().await? == Some(me.clone())).then_some(()))).await;
        led.with_context(|| what.to_owned())?;
        let uid = bench.running(what).await?;
        expect(&mut history, &uid, &STARTED).await?;
        truths.push(truth(&uid, &STARTED));
    }
    api(&bench).delete(&name, &DeleteParams::default()).await?;
    let uid = bench.running("deleted").await?;
    expect(&mut history, &uid, &STARTED).await?;
    truths.push(truth(&uid, &STARTED));
    until(LIMIT, "it is made anew", async || Ok((ours().await? == Some(me.clone())).then_some(()))).await?;
    faultless(&history, &truths)?;
    ensure!(monitor.metric(r#"pod_monitor_tenures_ended_total{reason="lost"}"#)? >= 2.0, "renamed, deleted");
    monitor.stop(LIMIT).await?;
    ensure!(ours().await?.unwrap_or_default().is_empty(), "released");
    bench.close().await
}

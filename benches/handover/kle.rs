//! A baseline: kube-leader-election as its README shows it (15 s, asked every 5 s) before a minimal pipeline, which lists
//! and watches pods and publishes one record for each status to Kafka.
//!
//! Not transactional and remembering nothing, which is in its favour; so are that the pipeline hears of leadership at once
//! instead of polling a flag, that its producer is connected ahead, and that SIGTERM calls the crate's `step_down`.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ListParams, WatchEvent, WatchParams},
};
use kube_leader_election::{LeaseLock, LeaseLockParams, LeaseLockResult};
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

type Producer = ThreadedProducer<DefaultProducerContext>;

/// Those arguments of `pod-monitor run` that it needs.
#[derive(Parser)]
pub(crate) struct Arguments {
    #[arg(long)]
    selector: String,
    #[arg(long)]
    namespace: String,
    #[arg(long)]
    kafka: String,
    #[arg(long)]
    events_topic: String,
    #[arg(long)]
    lease_name: String,
    #[arg(long)]
    identity: String,
    #[arg(long)]
    listen: String,
}

/// Runs until SIGTERM.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let client = Client::try_default().await?;
    let producer: Producer =
        ClientConfig::new().set("bootstrap.servers", &arguments.kafka).set("linger.ms", "0").create()?;
    producer.client().fetch_metadata(Some(&arguments.events_topic), Duration::from_secs(10))?;
    let params = LeaseLockParams {
        holder_id: arguments.identity.clone(),
        lease_name: arguments.lease_name.clone(),
        lease_ttl: Duration::from_secs(15),
    };
    let leadership = Arc::new(LeaseLock::new(client.clone(), &arguments.namespace, params));
    let (leads_in, leads) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let renewing = Arc::clone(&leadership);
    tasks.spawn(async move {
        loop {
            match renewing.try_acquire_or_renew().await {
                Ok(result) => drop(leads_in.send_replace(matches!(result, LeaseLockResult::Acquired(_)))),
                Err(error) => eprintln!("{error:?}"),
            }
            sleep(Duration::from_secs(5)).await;
        }
    });
    tasks.spawn(ready(TcpListener::bind(&arguments.listen).await?));
    let pods = Api::namespaced(client, &arguments.namespace);
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = pipeline(&pods, &producer, &arguments, leads.clone()) => ended,
        _ = terminated.recv() => {
            tasks.shutdown().await;
            if *leads.borrow() {
                leadership.step_down().await?;
            }
            Ok(())
        }
    }
}

async fn pipeline(
    pods: &Api<Pod>,
    producer: &Producer,
    arguments: &Arguments,
    mut leads: watch::Receiver<bool>,
) -> Result<()> {
    loop {
        leads.wait_for(|leads| *leads).await?;
        let mut lost = leads.clone();
        tokio::select! {
            followed = follow(pods, producer, arguments) => {
                if let Err(error) = followed {
                    eprintln!("begin anew: {error:#}");
                }
            }
            _ = lost.wait_for(|leads| !*leads) => {}
        }
    }
}

async fn follow(pods: &Api<Pod>, producer: &Producer, arguments: &Arguments) -> Result<()> {
    let list = pods.list(&ListParams::default().labels(&arguments.selector)).await?;
    for pod in &list.items {
        tell(producer, &arguments.events_topic, pod)?;
    }
    let from = list.metadata.resource_version.context("a list has a version")?;
    let watch = pods.watch(&WatchParams::default().labels(&arguments.selector).timeout(290), &from).await?;
    let mut watch = std::pin::pin!(watch);
    while let Some(event) = watch.try_next().await? {
        if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) = event {
            tell(producer, &arguments.events_topic, &pod)?;
        }
    }
    Ok(())
}

fn tell(producer: &Producer, topic: &str, pod: &Pod) -> Result<()> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
    let event = json!({ "pod_uid": pod.metadata.uid, "event_type": "status", "phase": phase }).to_string();
    let key = pod.metadata.name.clone().unwrap_or_default();
    producer.send(BaseRecord::to(topic).key(&key).payload(&event)).map_err(|(error, _)| error)?;
    Ok(())
}

/// Says yes to whoever asks.
async fn ready(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 1024];
        if stream.read(&mut request).await.is_ok() {
            // Whoever went away needs no answer.
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await);
        }
    }
}

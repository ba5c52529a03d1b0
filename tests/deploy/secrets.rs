//! A password for Kafka in a real Secret, mounted by a real kubelet, and rotated under running replicas.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::clients::{
    access::{Access, Operation, Resource, Right},
    checker::{Truth, judge},
    cluster::execution,
    history::Record,
    installation::{Installation, KAFKA_SECRETS, LIMIT, Plan, restricted_namespace},
    until,
};

use crate::{
    release::apply,
    support::{kustomize, stack},
};

const REPLICAS: usize = 3;
const SECRET: &str = "kafka-of-this-test";
const PASSWORDS: [&str; 2] = ["first-Ahm9ohgh", "second-aiT3ohch"];
/// A kubelet looks at what it has mounted once a minute or so.
const MOUNTED_MAX: Duration = Duration::from_secs(180);
const NOT_YET: &str = "changed kafka properties do not let us in yet, the old ones stay in use";
const LET_IN: &str = "kafka lets clients with the changed properties in";

/// Those of docs/kafka.md, and those by which the topics are made.
fn rights(name: &str) -> Vec<Right> {
    use Operation::{Create, DescribeConfigs, Read, Write};
    let on = |topic: &str, operations: &[Operation]| {
        let topic = format!("{name}.{topic}");
        operations.iter().map(|op| Right::new(*op, Resource::Topic, &topic)).collect::<Vec<_>>()
    };
    let id = format!("deployed.{name}.{name}.g1.0");
    let mut rights = on("events", &[Write, DescribeConfigs, Create]);
    rights.extend(on("changelog", &[Write, Read, DescribeConfigs, Create]));
    rights.push(Right::new(Write, Resource::TransactionalId, &id));
    rights
}

/// Writes the Secret, so that it holds this password.
fn secret(namespace: &str, password: &str) {
    let ca = std::fs::read_to_string(stack().endpoints().kafka_authority().ca()).unwrap();
    let metadata = json!({ "name": SECRET, "namespace": namespace });
    let data = json!({ "password": password, "ca.crt": ca });
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data });
    apply(&format!("{namespace}-secret"), &secret, &[]);
}

fn settings(user: &str) -> Value {
    json!({
        "kafka": stack().endpoints().kafka_scram(), "cluster-id": "deployed",
        "kafka-config": {
            "security.protocol": "sasl_ssl", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": user,
            "sasl.password": format!("@{KAFKA_SECRETS}/password"),
            "ssl.ca.location": format!("{KAFKA_SECRETS}/ca.crt"),
        },
    })
}

/// An execution that is told whole.
async fn told(installed: &Installation, id: &str) -> Truth {
    let uid = installed.watched.create(execution(&installed.name, id, "echo done")).await.unwrap();
    let mut history = installed.history().unwrap();
    let ended = |records: &[Record]| records.iter().any(|r| r.text("pod_uid") == uid && r.is_end()).then_some(());
    history.until(LIMIT, "an execution is told", ended).await.unwrap();
    Truth { uid, expected: vec!["pod_scheduled", "execution_running", "execution_completed"] }
}

/// Waits until each replica has said this.
async fn all_say(installed: &Installation, message: &str, limit: Duration) {
    let look = async || {
        let mut speakers = 0;
        for replica in installed.replicas().await? {
            let log = installed.kubectl(&["logs", &replica.name]).await?;
            speakers += usize::from(log.contains(&format!("\"{message}\"")));
        }
        Ok((speakers == REPLICAS).then_some(()))
    };
    if let Err(error) = until(limit, &format!("each replica says: {message}"), look).await {
        panic!("{error:#}\n{}", installed.story().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_taken_up_by_all_replicas_and_none_is_started_anew() {
    let endpoints = stack().endpoints();
    let name = format!("deploy-secret-{}", std::process::id());
    let mut access = Access::connect(&endpoints.kafka).unwrap();
    access.set_password(&name, PASSWORDS[0]).unwrap();
    access.allow(&name, &rights(&name)).unwrap();
    apply(&name, &restricted_namespace(&name), &[]);
    secret(&name, PASSWORDS[0]);
    let plan = Plan { kafka_secret: Some(SECRET.to_owned()), settings: settings(&name), ..Plan::new(&name) };
    let installed = Installation::install(endpoints, &kustomize(), &plan).await.unwrap();
    let before = installed.settled(REPLICAS).await.unwrap();
    let mut truths = vec![told(&installed, "before").await];

    // The file first: what is in use stays in use until the broker takes the new one.
    secret(&name, PASSWORDS[1]);
    all_say(&installed, NOT_YET, MOUNTED_MAX).await;
    truths.push(told(&installed, "between").await);
    access.set_password(&name, PASSWORDS[1]).unwrap();
    all_say(&installed, LET_IN, LIMIT).await;
    truths.push(told(&installed, "after").await);

    let after = installed.settled(REPLICAS).await.unwrap();
    assert!(after.iter().all(|replica| replica.restarts == 0), "{after:#?}");
    assert!(
        after.iter().all(|now| before.iter().any(|then| then.container == now.container)),
        "{before:#?} {after:#?}"
    );
    for replica in &after {
        let log = installed.kubectl(&["logs", &replica.name]).await.unwrap();
        assert!(PASSWORDS.iter().all(|password| !log.contains(password)), "a password in the log of {}", replica.name);
    }
    let mut history = installed.history().unwrap();
    history.until(LIMIT, "everything is told", |records| (records.len() >= 9).then_some(())).await.unwrap();
    history.read(Duration::from_millis(300)).unwrap();
    assert_eq!(judge(&truths, &history.records), []);
    installed.stop(Duration::from_secs(20)).await.unwrap();
}

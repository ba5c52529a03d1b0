//! Listeners with TLS, users, and a broker that asks what each may do: everything works with the rights that
//! docs/kafka.md lists, each of them is needed, and what is missing or wrong is named with its mend.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use pod_monitor::{
    cli::chain,
    leadership::tenure::ShardId,
    publish::{error::Class, topics},
};
use testkit::{
    clients::{
        access::{Operation, Resource, Right},
        history::create_topic,
        monitor::Launch,
        proxy::Proxy,
    },
    stack::{Authority, Endpoints},
};

use crate::{
    bench::{self, Bench, expect, faultless, truth, unready},
    secure::{Guarded, Way, documented, text, topics_of, tried},
    support::*,
};

const WAYS: [Way; 2] = [Way::Password, Way::Certificate];

fn endpoints() -> Endpoints {
    Endpoints::from_env().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn journals_work_by_password_and_by_certificate_with_the_documented_rights() {
    for way in WAYS {
        let (plain, _) = installation("guarded").await;
        let identity = plain.identity().clone();
        let (name, id) = (identity.lease_name.clone(), identity.transactional_id(ShardId(0)));
        let guarded = Guarded::new(endpoints(), way, &name);
        guarded.access().allow(&name, &documented(&name, &id)).unwrap();
        for round in 0..2 {
            tried(guarded.settings(identity.clone()), round..round + 1).await.unwrap();
        }
        let seen = seen_until(&topics_of(&name).0, |seen| seen.len() >= 2);
        assert_eq!(keys(&seen), [0, 1], "{way:?}");
    }
}

#[test]
fn the_commands_of_the_documentation_give_the_rights_of_its_table() {
    let id = "$CLUSTER_ID.pod-monitor.pod-monitor.g1.0";
    let page = text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kafka.md"));
    let mut given = Vec::new();
    for command in page.lines().filter_map(|line| line.strip_prefix("$ACLS ")) {
        let words: Vec<&str> = command.split(' ').collect();
        let (operations, on) = words.split_at(words.len() - 2);
        let resource = if on[0] == "--topic" { Resource::Topic } else { Resource::TransactionalId };
        assert!(resource == Resource::Topic || on[0] == "--transactional-id", "{command}");
        for pair in operations.chunks(2) {
            assert_eq!(pair[0], "--operation", "{command}");
            let known = [Operation::Read, Operation::Write, Operation::DescribeConfigs];
            let operation = known.into_iter().find(|known| format!("{known:?}") == pair[1]);
            given.push(Right::new(operation.expect("an operation"), resource, on[1]));
        }
    }
    let listed = documented("pod-monitor", id);
    assert_eq!(given.len(), listed.len(), "{given:?}");
    assert!(listed.iter().all(|right| given.contains(right)), "{given:?} instead of {listed:?}");
}

/// Tries until it cannot be done any more: rights that are taken away are gone a moment later.
async fn refused(guarded: &Guarded, identity: &pod_monitor::publish::identity::Identity) -> String {
    let started = Instant::now();
    loop {
        match tried(guarded.settings(identity.clone()), 0..1).await {
            Err(why) => return why,
            Ok(()) => assert!(started.elapsed() < LIMIT, "it is not refused"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_documented_right_is_needed_and_named_where_it_is_missing() {
    let (plain, _) = installation("lacking").await;
    let identity = plain.identity().clone();
    let (name, id) = (identity.lease_name.clone(), identity.transactional_id(ShardId(0)));
    let guarded = Guarded::new(endpoints(), Way::Password, &name);
    let (mut access, rights) = (guarded.access(), documented(&name, &id));
    access.allow(&name, &rights).unwrap();
    let named = |said: &str, right: &Right| {
        let flag = if right.resource == Resource::Topic { "--topic" } else { "--transactional-id" };
        let (operation, on) = (format!("--operation {:?} ", right.operation), format!("{flag} {}", right.name));
        let user = format!("--allow-principal User:{name} ");
        for part in ["kafka-acls.sh --bootstrap-server", &user, &operation, &on] {
            assert!(said.contains(part), "without {right:?}, '{part}' is not in: {said}");
        }
    };
    for right in &rights {
        access.take_away(&name, Some(right)).unwrap();
        let said = refused(&guarded, &identity).await;
        println!("without {right:?}: {said}\n");
        named(&said, right);
        access.allow(&name, std::slice::from_ref(right)).unwrap();
    }
    // Whoever sees the events topic but may not write to it learns so by the first event.
    let (events, _) = topics_of(&name);
    let right = |operation| Right::new(operation, Resource::Topic, &events);
    access.take_away(&name, Some(&right(Operation::Write))).unwrap();
    access.allow(&name, &[right(Operation::Describe)]).unwrap();
    let said = refused(&guarded, &identity).await;
    println!("with Describe alone: {said}");
    named(&said, &right(Operation::Write));
    access.allow(&name, &[right(Operation::Write)]).unwrap();
    tried(guarded.settings(identity.clone()), 1..2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_only_with_the_right_to_create_them() {
    let identity = identity(&unique("creating"), 1);
    let (name, id) = (identity.lease_name.clone(), identity.transactional_id(ShardId(0)));
    let guarded = Guarded::new(endpoints(), Way::Certificate, &name);
    let mut access = guarded.access();
    access.allow(&name, &documented(&name, &id)).unwrap();
    let settings = guarded.settings(identity);
    let (events, changelog) = topics_of(&name);
    for topic in [&events, &changelog] {
        let error = topics::ensure(&settings, true).await.unwrap_err();
        assert_eq!(error.class(), Class::Fatal);
        let said = chain(&error);
        assert!(
            said.contains("kafka-acls.sh") && said.contains(&format!("--operation Create --topic {topic}")),
            "{said}"
        );
        access.allow(&name, &[Right::new(Operation::Create, Resource::Topic, topic)]).unwrap();
        let started = Instant::now();
        // The right is there a moment later.
        while topics::ensure(&settings, true)
            .await
            .is_err_and(|error| chain(&error).contains(&format!("topic {topic}:")))
        {
            assert!(started.elapsed() < LIMIT, "{topic} cannot be made");
        }
    }
    tried(settings, 0..1).await.unwrap();
}

/// An installation whose monitor is a process, with its topics and the documented rights.
pub(crate) async fn process(test: &str, way: Way) -> Result<(Bench, Guarded)> {
    let bench = Bench::new(test).await?;
    let guarded = Guarded::new(bench.endpoints.clone(), way, &bench.app);
    let (events, changelog) = topics_of(&bench.app);
    create_topic(&bench.endpoints.kafka, &events, 1, &[]).await?;
    create_topic(&bench.endpoints.kafka, &changelog, 1, &[("cleanup.policy", "compact")]).await?;
    allow(&bench, &guarded, &bench.app)?;
    Ok((bench, guarded))
}

/// Lets a user be the monitor of this place.
pub(crate) fn allow(bench: &Bench, guarded: &Guarded, user: &str) -> Result<()> {
    let id = format!("secure.{}.{}.g1.0", bench.cluster.namespace(), bench.app);
    guarded.access().allow(user, &documented(&bench.app, &id))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monitor_runs_by_password_and_by_certificate_with_the_documented_rights() -> Result<()> {
    for (way, test) in WAYS.into_iter().zip(["runs-password", "runs-certificate"]) {
        let (bench, guarded) = process(test, way).await?;
        let mut monitor = guarded.launch(&bench.launch).start()?;
        monitor.leading(LIMIT).await?;
        let mut history = bench.history()?;
        let uid = bench.running("a").await?;
        expect(&mut history, &uid, &["pod_scheduled", "execution_running"]).await?;
        bench.end("a", 0).await?;
        let all = ["pod_scheduled", "execution_running", "execution_completed"];
        expect(&mut history, &uid, &all).await?;
        faultless(&history, &[truth(&uid, &all)])?;
        ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
        bench.close().await?;
    }
    Ok(())
}

/// One of several monitors of a place: with a log and an address of its own.
pub(crate) fn another(launch: Launch, name: &str) -> Result<Launch> {
    let log = launch.log.with_extension(format!("{name}.log"));
    Ok(Launch { log, ..launch.relocated()? })
}

/// What a log ends with.
fn last_lines(log: &Path) -> String {
    let log = text(log);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Sets a property anew: the last one counts.
fn with(launch: &Launch, property: &str) -> Launch {
    launch.clone().with(&["--kafka-config", property])
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_says_why_and_gets_in_once_it_is_mended() -> Result<()> {
    let (bench, mut guarded) = process("not-let-in", Way::Password).await?;
    let (launch, servers) = (guarded.launch(&bench.launch), guarded.servers());
    let by_another_name = Proxy::open("127.0.0.1:0", &servers)?.address.to_string();
    let closed = bench::proxy::Proxy::closed()?.address.to_string();
    let stranger = Authority::create(&bench.endpoints.run_dir.join(format!("stranger-{}", bench.app)))?;
    let (foreign, wrong) = (guarded.mount.path("foreign.crt"), guarded.mount.path("wrong"));
    let ca = text(&guarded.authority().ca());
    let files = |password: &'static str| [("wrong", password), ("password", crate::secure::PASSWORD)];
    let mount = |guarded: &mut Guarded, password, foreign: &str| {
        let mut all = files(password).to_vec();
        all.extend([("ca.crt", ca.as_str()), ("foreign.crt", foreign)]);
        guarded.mount.swap(&all);
    };
    mount(&mut guarded, "not the password", &text(&stranger.ca()));
    let mtls = bench.endpoints.kafka_mtls();
    let no_certificate = launch.clone().set("--kafka", &mtls);
    let cases: [(&str, Launch, &[&str]); 7] = [
        ("password", with(&launch, &format!("sasl.password=@{wrong}")), &["sasl.username, sasl.password and"]),
        ("authority", with(&launch, &format!("ssl.ca.location={foreign}")), &["ssl.ca.location must name"]),
        ("host", launch.clone().set("--kafka", &by_another_name), &["is not for the host that was connected to"]),
        ("closed", launch.clone().set("--kafka", &closed), &["Connection refused", "whether --kafka names"]),
        ("name", launch.clone().set("--kafka", "nowhere.invalid:9093"), &["Failed to resolve", "hosts in --kafka"]),
        ("certificate", with(&no_certificate, "security.protocol=ssl"), &["ssl.certificate.location"]),
        ("plain", with(&launch, "security.protocol=plaintext"), &["security.protocol"]),
    ];
    let mut monitors = Vec::new();
    for (name, launch, _) in &cases {
        monitors.push(another(launch.clone(), name)?.start()?);
    }
    for ((name, _, parts), monitor) in cases.iter().zip(&monitors) {
        let all: Vec<&str> = [["[-]kafka", "to mend it: "].as_slice(), *parts].concat();
        let said = unready(monitor, &all).await.with_context(|| (*name).to_owned())?;
        println!("{name}: {}", said.lines().find(|line| line.starts_with("[-]kafka")).unwrap_or_default());
        ensure!(monitor.get("/livez")?.0 == 200, "{name}: waiting is no reason to be killed");
        let status = monitor.get("/api/status")?.1;
        ensure!(status.contains("to mend it: "), "{name}: {status}");
    }
    mount(&mut guarded, crate::secure::PASSWORD, &ca);
    for (monitor, (name, ..)) in monitors.iter_mut().zip(&cases).take(2) {
        let pid = monitor.pid();
        monitor.ready(bench::LIMIT).await.with_context(|| format!("{name}, mended"))?;
        ensure!(monitor.pid() == pid && monitor.try_ended()?.is_none(), "{name}: the process is the same");
    }
    for (monitor, (name, ..)) in monitors.into_iter().zip(&cases) {
        let (log, ended) = (monitor.log.clone(), monitor.stop(LIMIT).await?);
        ensure!(ended.code() == Some(0), "{name}: asked to stop, it ended with {ended}:\n{}", last_lines(&log));
    }
    fs::remove_dir_all(bench.endpoints.run_dir.join(format!("stranger-{}", bench.app)))?;
    bench.close().await
}

//! What the README has a newcomer type: from a cluster without Kafka to the events of a first execution.
//!
//! As it stands there, but for what this place has not: no Docker and no registry (the same Dockerfile is built by
//! buildah; Kafka's image is one of ours), no DNS (the Service of Kafka is known by its address).

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::channel,
};

use testkit::{
    clients::installation::{LIMIT, kubectl_blocking},
    stack::{helm, kafka_image, readiness},
};

use tokio::time::Instant;

use crate::{
    chart::run,
    support::{pod_monitor_namespace, stack},
};

/// From the part of the range from which Services get no address by themselves.
const KAFKA_ADDRESS: &str = "10.96.0.92";
const KAFKA_NAME: &str = "kafka.kafka-throwaway.svc";
const MANIFEST: &str = "deploy/kafka-throwaway.yaml";
/// What the block makes.
const NAMESPACES: [&str; 3] = ["pod-monitor", "executions", "kafka-throwaway"];

/// What the page says to do once Kafka's pod was replaced.
const ANEW: &str = "kubectl -n pod-monitor rollout restart deployment/pod-monitor";

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// The commands of the README's block, each whole.
fn commands() -> Vec<String> {
    let page = readme();
    let blocks = page.split("```console\n").filter_map(|block| block.split("```").next());
    let block =
        blocks.into_iter().find(|block| block.contains("helm upgrade --install")).expect("a block that installs");
    block.replace(" \\\n", " ").lines().map(str::to_owned).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The manifest of Kafka for a cluster without DNS.
fn manifest() -> PathBuf {
    let text = fs::read_to_string(root().join(MANIFEST)).unwrap();
    let at = format!("kind: Service\n{}spec:\n", between(&text, "kind: Service\n", "spec:\n"));
    let here = text.replacen(&at, &format!("{at}  clusterIP: {KAFKA_ADDRESS}\n"), 1).replace(KAFKA_NAME, KAFKA_ADDRESS);
    assert_ne!(here, text);
    fs::write(manifest_file(), here).unwrap();
    manifest_file()
}

fn manifest_file() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka-throwaway.yaml")
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split(from).nth(1).and_then(|rest| rest.split(to).next()).unwrap()
}

/// A shell at the root of the repository, with kubectl and helm.
fn shell(line: &str) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", line]).current_dir(root()).envs(stack().endpoints().variables().unwrap());
    let helm = helm::command().unwrap();
    let variables = stack().endpoints().variables().unwrap();
    let path = [Path::new(helm.get_program()).parent().unwrap().as_os_str(), &variables["PATH"]].join(":".as_ref());
    shell
        .env("REGISTRY", "localhost")
        .env("PATH", path)
        .envs(helm.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// Takes away what the block makes, also when it fails, or when a run before it was killed.
struct Made;

impl Drop for Made {
    fn drop(&mut self) {
        let uninstalled = run(&mut shell("helm uninstall pod-monitor --namespace pod-monitor --ignore-not-found"));
        let delete = [&["delete", "namespace", "--ignore-not-found"][..], &NAMESPACES].concat();
        let deleted = kubectl_blocking(stack().endpoints(), &delete);
        if let Err(error) = uninstalled.and(deleted.map(|said| (said.output, said.warnings))) {
            eprintln!("not taken away: {error:#}");
        }
        // Not there before it was written.
        let _ = fs::remove_file(manifest_file());
    }
}

/// A command that goes on; ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command; what it warned of. When it fails, with what the cluster knows of the pods.
fn typed(line: &str) -> String {
    let told = run(&mut shell(line)).map(|(_, warned)| warned);
    told.unwrap_or_else(|error| {
        let mut story = format!("{line}: {error:#}\n");
        for (namespace, logs) in [("kafka-throwaway", "deployment/kafka"), ("pod-monitor", "deployment/pod-monitor")] {
            for what in [["describe", "pods"], ["logs", logs]] {
                let said = kubectl_blocking(stack().endpoints(), &[&what[..], &["--namespace", namespace]].concat());
                story += &said.map_or_else(|error| format!("{error:#}\n"), |said| said.output);
            }
        }
        panic!("{story}")
    })
}

/// What the command prints up to the line with these words.
fn printed_until(line: &str, words: &str) -> String {
    let mut child =
        Running(shell(&format!("exec {line}")).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let (sender, receiver) = channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let (mut printed, begun) = (String::new(), Instant::now());
    while !printed.contains(words) {
        let left = LIMIT.saturating_sub(begun.elapsed());
        let line = receiver.recv_timeout(left).unwrap_or_else(|end| panic!("{words}: {end}, after:\n{printed}"));
        printed += &format!("{line}\n");
    }
    printed
}

#[test]
fn the_readme_leads_from_a_cluster_without_kafka_to_the_events_of_a_first_execution() {
    let _alone = pod_monitor_namespace();
    let stack = stack();
    stack.start_proxy().unwrap();
    kafka_image::load(stack).unwrap();
    stack.name_image("localhost/pod-monitor:dev", "localhost/pod-monitor:0.1.0").unwrap();
    stack.name_image("localhost/busybox:1", "docker.io/library/busybox:1.37").unwrap();
    drop(Made);
    let (_made, manifest, begun) = (Made, manifest().display().to_string(), Instant::now());

    let mut commands = commands();
    let last = commands.pop().unwrap();
    for (begin, what) in [("export REGISTRY=", "a registry is named"), ("docker build ", "the image is built")] {
        commands.remove(commands.iter().position(|line| line.starts_with(begin)).expect(what));
    }
    assert!(commands.iter().any(|line| line.contains(MANIFEST)), "{commands:?}");
    for line in &commands {
        let warned = typed(&line.replace(MANIFEST, &manifest).replace(KAFKA_NAME, KAFKA_ADDRESS));
        assert_eq!(warned, "", "{line}");
    }
    let printed = printed_until(&last, "execution_completed");
    eprintln!("from nothing to the end of an execution in {:.0} s:\n{printed}", begun.elapsed().as_secs_f64());
    for event in ["pod_scheduled", "execution_running", "stdout hello"] {
        assert!(printed.contains(event), "{event} in\n{printed}");
    }

    assert!(readme().contains(ANEW));
    for line in [
        "kubectl -n kafka-throwaway delete pod --selector app=kafka",
        "kubectl -n kafka-throwaway wait deployment/kafka --for=condition=Available --timeout=180s",
        ANEW,
        "kubectl -n pod-monitor rollout status deployment/pod-monitor --timeout=180s",
    ] {
        typed(line);
    }
    // One that is on its way out would end the last command with it.
    let pods = || run(&mut shell("kubectl -n pod-monitor get pods --output name"));
    let only_new = || Ok((pods()?.0.lines().count() == 3).then_some(()));
    readiness::until("the old replicas are gone", LIMIT, only_new).unwrap();
    let printed = printed_until(&last, "execution_completed");
    assert!(printed.contains("stdout hello"), "told again: {printed}");
}

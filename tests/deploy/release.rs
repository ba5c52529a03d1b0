//! The chart on a real cluster: a release is admitted, works, is tested, upgraded and removed.

use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

use anyhow::Result;
use serde_json::{Value, json};
use testkit::{
    clients::{
        checker::{Truth, judge},
        cluster::{Cluster, execution},
        history::{History, Record},
        installation::{FINALIZER, LIMIT, restricted_namespace},
        until,
    },
    stack::{crds, helm},
};

use crate::{
    chart::{OPERATOR, POLICY, REQUIRED, chart, run, template},
    support::{kubectl, pod_monitor_namespace, stack},
};

/// Executions that may begin while the release is upgraded.
const DURING_MAX: usize = 30;
/// Every kind of object that the chart makes, and what the Deployment makes of it.
const KINDS: &str = "deployment,replicaset,pod,service,configmap,serviceaccount,role,rolebinding,clusterrole,\
    clusterrolebinding,networkpolicy,poddisruptionbudget,podmonitor,prometheusrule,mutatingadmissionpolicy,\
    mutatingadmissionpolicybinding";

/// A release in a namespace of its own that enforces Pod Security `restricted`; taken away when dropped.
struct Release {
    /// Of the release, its namespace, the label `app` of its pods, its topics.
    name: String,
    watched: Cluster,
    values: PathBuf,
}

impl Release {
    /// Makes its namespaces and its values.
    async fn prepare(test: &str) -> Self {
        let endpoints = stack().endpoints();
        // The pod of `helm test` asks the Service.
        stack().start_proxy().unwrap();
        operator_kinds();
        let name = format!("helm-{test}-{}", std::process::id());
        let values = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
        apply(&name, &restricted_namespace(&name), &[]);
        let watched = Cluster::connect(endpoints, &format!("{name}-watched")).await.unwrap();
        // The stack has no DNS: the kubelet tells the pod where the Service is. The static busybox of Debian crashes in
        // wget for want of glibc's name services, so that nc asks.
        let host = format!("{}_POD_MONITOR_SERVICE_HOST", name.to_uppercase().replace('-', "_"));
        let ask = format!("printf 'GET /readyz?verbose HTTP/1.0\\r\\n\\r\\n' | nc -w 10 \"${host}\" 8080");
        let ask = format!("{ask} | awk 'NR == 1 && !/ 200 / {{ bad = 1 }} {{ print }} END {{ exit bad || NR == 0 }}'");
        // The node's proxy learns of the Service in its own time: refused for so long is no answer.
        let ask = format!("i=0; until {ask}; do i=$((i+1)); [ $i -lt 30 ] || exit 1; sleep 0.5; done");
        let all = json!({
            "image": { "tag": "dev" },
            "config": {
                "selector": format!("app={name}"), "namespace": [watched.namespace()], "kafka": endpoints.kafka,
                "create-topics": true,
                "events-topic": format!("{name}.events"), "changelog-topic": format!("{name}.changelog"),
                "finalizer": FINALIZER,
            },
            "finalizerPolicy": { "enabled": true },
            "rules": [{ "name": "no-disk", "match": { "exit-codes": "70-79" }, "cause": "no_disk", "category": "disk" }],
            "monitoring": {
                "podMonitor": { "enabled": true }, "prometheusRule": { "enabled": true }, "dashboard": { "enabled": true },
            },
            "test": { "image": "localhost/busybox:1", "command": ["sh", "-c", ask] },
        });
        fs::write(&values, all.to_string()).unwrap();
        watched.ready_for_pods().await.unwrap();
        Self { name, watched, values }
    }

    /// Runs helm on this release; what it said, and where warnings of the API server would be.
    fn helm(&self, verb: &str, arguments: &[&str]) -> (String, String) {
        let mut command = self.command(verb, arguments).unwrap();
        run(&mut command).unwrap_or_else(|error| panic!("{error:#}\n{}", self.story()))
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = helm::command()?;
        command.arg("--kubeconfig").arg(&stack().endpoints().kubeconfig).args(["--namespace", &self.name]);
        command.args([verb, &self.name]).args(arguments);
        Ok(command)
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let namespaced = [&["--namespace", &self.name][..], arguments].concat();
        kubectl(stack().endpoints(), &namespaced).unwrap_or_else(|error| panic!("{error:#}")).0
    }

    fn object(&self) -> String {
        format!("{}-pod-monitor", self.name)
    }

    /// The monitor's pods.
    fn pods(&self) -> Vec<String> {
        let selector = format!("app.kubernetes.io/name=pod-monitor,app.kubernetes.io/instance={}", self.name);
        let names = "jsonpath={.items[*].metadata.name}";
        self.kubectl(&["get", "pods", "--selector", &selector, "--output", names])
            .split_whitespace()
            .map(Into::into)
            .collect()
    }

    /// Begins an execution that outlives a change of hands.
    async fn execute(&self, id: &str) -> Truth {
        let pod = execution(&self.name, id, "echo begun; sleep 2; echo ended");
        let uid = self.watched.create(pod).await.unwrap();
        Truth { uid, expected: vec!["pod_scheduled", "execution_running", "execution_completed"] }
    }

    /// An execution that fails as one of the user's rules says; it has the finalizer that the policy put there.
    async fn fail(&self) -> Truth {
        let uid = self.watched.create(execution(&self.name, "fails", "exit 73")).await.unwrap();
        let pod = self.watched.pod("exec-fails").await.unwrap().expect("it is there until it is told");
        assert_eq!(pod["metadata"]["finalizers"], json!([FINALIZER]));
        Truth { uid, expected: vec!["pod_scheduled", "execution_running", "execution_failed"] }
    }

    /// Waits until no execution carries a finalizer any more.
    async fn let_go(&self) {
        let finalizers = "jsonpath={.items[*].metadata.finalizers}";
        let get = ["get", "pods", "--namespace", self.watched.namespace(), "--output", finalizers];
        let look = async || Ok(kubectl(stack().endpoints(), &get)?.0.is_empty().then_some(()));
        until(LIMIT, "all executions are let go", look).await.unwrap();
    }

    fn story(&self) -> String {
        let ask = |what: &[&str]| {
            let told = kubectl(stack().endpoints(), &[&["--namespace", &self.name][..], what].concat());
            told.map_or_else(|error| format!("{error:#}"), |(out, _)| out)
        };
        let test = format!("{}-test", self.object());
        [ask(&["describe", "pods"]), ask(&["get", "events"]), ask(&["logs", &test])].join("\n")
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let removed = self.command("uninstall", &["--ignore-not-found"]).and_then(|mut command| run(&mut command));
        let gone = ["delete", "namespace", "--ignore-not-found", "--wait=false", &self.name, self.watched.namespace()];
        let emptied = kubectl(stack().endpoints(), &gone);
        if let Err(error) = removed.and(emptied) {
            eprintln!("{}: not taken away: {error:#}", self.name);
        }
    }
}

/// Teaches the API server PodMonitor and PrometheusRule as the Prometheus Operator defines them.
fn operator_kinds() {
    static TAUGHT: OnceLock<()> = OnceLock::new();
    TAUGHT.get_or_init(|| {
        let ask = |arguments: &[&str]| kubectl(stack().endpoints(), arguments).unwrap();
        for file in crds::prometheus_operator().unwrap() {
            ask(&["apply", "--server-side", "--filename", &file.display().to_string()]);
        }
        let [one, other] = ["podmonitors", "prometheusrules"].map(|kind| format!("crd/{kind}.monitoring.coreos.com"));
        ask(&["wait", "--for=condition=Established", &one, &other, "--timeout=60s"]);
    });
}

/// Applies something, and fails on a warning.
pub(crate) fn apply(name: &str, what: &impl ToString, arguments: &[&str]) {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-apply.yaml"));
    fs::write(&file, what.to_string()).unwrap();
    let file = file.display().to_string();
    let (_, warned) = kubectl(stack().endpoints(), &[&["apply", "--filename", &file][..], arguments].concat()).unwrap();
    assert_eq!(warned, "", "the API server takes {name} without a warning");
}

#[tokio::test]
async fn a_release_works_and_is_tested_upgraded_and_removed_without_losing_an_event() {
    let release = Release::prepare("life").await;
    let (chart, values) = (chart().display().to_string(), release.values.display().to_string());
    let (notes, warned) = release.helm("install", &[&chart, "--values", &values, "--wait", "--timeout", "60s"]);
    assert_eq!(warned, "", "Pod Security and the API server admit it without a warning");
    assert!(notes.contains(&format!("get lease {}-0", release.object())), "{notes}");
    let ready =
        release.kubectl(&["get", "deployment", &release.object(), "--output", "jsonpath={.status.readyReplicas}"]);
    assert_eq!(ready, "3", "three replicas");

    let (tested, answer) = release.helm("test", &["--timeout", "60s"]);
    // What the pod printed is what a ready replica answers.
    assert!(tested.contains("Succeeded") && answer.contains("[+]kafka ok"), "{tested}{answer}");

    let mut truths = vec![release.execute("before").await];
    let old = release.pods();
    truths.extend(upgrade_meanwhile(&release, &[&chart, "--values", &values]).await);
    // The last of them still has its grace when helm says that it is done.
    let look = async || {
        let now = release.pods();
        Ok((now.len() == 3 && now.iter().all(|pod| !old.contains(pod))).then_some(()))
    };
    until(LIMIT, "three new pods in place of the old ones", look).await.unwrap();
    assert_eq!(release.kubectl(&["get", "configmap", &release.object(), "--output", "yaml"]).matches("77s").count(), 1);
    truths.extend([release.execute("after").await, release.fail().await]);

    let mut history = History::open(&stack().endpoints().kafka, &[&format!("{}.events", release.name)]).unwrap();
    let ends =
        |records: &[Record]| (records.iter().filter(|record| record.is_end()).count() >= truths.len()).then_some(());
    history.until(LIMIT, "all executions have ended", ends).await.unwrap();
    history.read(std::time::Duration::from_millis(300)).unwrap();
    assert_eq!(judge(&truths, &history.records), []);
    let failed = history.records.iter().find(|record| record.event_type() == "execution_failed").unwrap();
    assert_eq!((failed.text("rule"), failed.text("cause")), ("no-disk", "no_disk"), "{}", failed.value);

    release.let_go().await;
    release.helm("uninstall", &["--wait", "--timeout", "60s"]);
    let instance = format!("app.kubernetes.io/instance={}", release.name);
    let list = ["get", KINDS, "--all-namespaces", "--selector", &instance, "--output", "name"];
    let look = async || Ok(kubectl(stack().endpoints(), &list)?.0.is_empty().then_some(()));
    until(LIMIT, "nothing of the release is left", look).await.unwrap();
}

/// Upgrades the release to other settings, and begins one execution after the other until that is done.
async fn upgrade_meanwhile(release: &Release, arguments: &[&str]) -> Vec<Truth> {
    let settings = ["--set", "config.reconcile-interval=77s", "--wait", "--timeout", "90s"];
    let mut command = release.command("upgrade", &[arguments, &settings].concat()).unwrap();
    let upgrade = tokio::task::spawn_blocking(move || run(&mut command));
    let mut truths = Vec::new();
    while !upgrade.is_finished() && truths.len() < DURING_MAX {
        let id = format!("during-{}", truths.len());
        truths.push(release.execute(&id).await);
        release.watched.wait_phase(&format!("exec-{id}"), &["Running", "Succeeded"], LIMIT).await.unwrap();
    }
    let (_, complained) = upgrade.await.unwrap().unwrap_or_else(|error| panic!("{error:#}\n{}", release.story()));
    assert_eq!(complained, "", "helm upgrade");
    assert!(truths.len() > 1, "executions began while the replicas were replaced");
    truths
}

/// What the API server makes of objects that the installations above do not use.
#[test]
fn every_form_of_the_chart_is_taken_by_the_api_server_without_a_warning() {
    let _alone = pod_monitor_namespace();
    operator_kinds();
    let ha = format!("--values={}", chart().join("values-ha.yaml").display());
    let name = format!("helm-dry-{}", std::process::id());
    let namespaces = ["pod-monitor".to_owned(), name.clone()].map(|name| restricted_namespace(&name));
    let both = json!({ "apiVersion": "v1", "kind": "List", "items": namespaces });
    apply(&name, &both, &[]);
    for namespace in ["pod-monitor", &name] {
        // Without it pods are refused, also on trial.
        let account = ["wait", "--for=create", "serviceaccount/default", "--timeout=60s", "--namespace", namespace];
        kubectl(stack().endpoints(), &account).unwrap();
    }
    let extra: Value = json!([{ "to": [{ "podSelector": {} }], "ports": [{ "port": 4318 }] }]);
    let egress = format!("--set-json=networkPolicy.extraEgress={extra}");
    let other = format!("--set=config.namespace={{{name}}}");
    let monitored = [&OPERATOR[..], &[&other, "--set=networkPolicy.kafkaTo[0].ipBlock.cidr=10.0.0.0/8"]].concat();
    let policy = [&POLICY[..], &["--set=config.selector=a in (b\\,c)\\,!d\\,e!=f"]].concat();
    let rules = json!([{ "name": "disk", "match": { "exit-codes": [73] }, "cause": "no_disk" }]);
    let rules = format!("--set-json=rules={rules}");
    let forms: [&[&str]; 6] = [
        &[&ha, "--set=imagePullSecrets[0].name=pull", "--set=priorityClassName=system-node-critical"],
        &["--set=config.all-namespaces=true", "--set=serviceAccount.annotations.a=b", "--set=podLabels.team=x"],
        &["--set=kafkaSecret.name=kafka", "--set=env[0].name=OTEL_SERVICE_NAME", "--set=env[0].value=x", &egress],
        &monitored,
        &policy,
        &[&rules, "--set=config.delete-finished=1h"],
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let rendered = template(&[&REQUIRED[..], form].concat()).unwrap();
        apply(&format!("{name}-{number}"), &rendered, &["--dry-run=server"]);
    }
    kubectl(stack().endpoints(), &["delete", "namespace", "pod-monitor", &name]).unwrap();
}

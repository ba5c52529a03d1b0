//! The local stack itself: that it works, stands side by side with others, and leaves nothing behind.
//!
//! Needs root and a built stack; run by `cargo xtask test --suite stack`.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test, like the test itself")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use testkit::stack::process::checked;
use testkit::stack::readiness::{kafka_answers, until};
use testkit::stack::{Component, Endpoints, NODE_TAINT, Node, Options, ProcessId, Profile, Signal, Stack, cleanup};

const LIMIT: Duration = Duration::from_secs(60);
/// Set in the process that a test starts to own a stack and be killed.
const OWNER_VARIABLE: &str = "TESTKIT_OWNED_STACK";

/// One whole stack for the tests that need pods. It ends with this process, through its pipe.
fn full() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| Stack::boot(Options::new(Profile::Full)).unwrap())
}

fn kubectl(endpoints: &Endpoints, arguments: &[&str]) -> anyhow::Result<String> {
    checked(endpoints.kubectl().args(arguments).stdin(Stdio::null()))
}

fn api_server_stack() -> Stack {
    Stack::boot(Options::new(Profile::ApiServer)).unwrap()
}

#[test]
fn two_stacks_live_side_by_side() {
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(api_server_stack);
        (api_server_stack(), one.join().unwrap())
    });
    assert_ne!(one.endpoints().address, two.endpoints().address);
    kubectl(one.endpoints(), &["create", "configmap", "only-in-one"]).unwrap();
    assert!(kubectl(one.endpoints(), &["get", "configmap", "only-in-one"]).is_ok());
    let error = kubectl(two.endpoints(), &["get", "configmap", "only-in-one"]).unwrap_err();
    assert!(error.to_string().contains("NotFound"), "{error}");
    drop(one);
    assert!(
        kubectl(two.endpoints(), &["get", "--raw", "/readyz"]).is_ok(),
        "the end of one is not the end of the other"
    );
}

#[test]
fn a_name_is_taken_once() {
    let stack = api_server_stack();
    let again = Options::new(Profile::ApiServer).named(stack.endpoints().name.clone());
    let error = Stack::boot(again).err().unwrap();
    assert!(error.to_string().contains("up already"), "{error:#}");
    assert!(kubectl(stack.endpoints(), &["get", "--raw", "/readyz"]).is_ok(), "the first is unharmed");
}

#[test]
fn dropping_a_stack_leaves_nothing() {
    let stack = api_server_stack();
    let traces = Traces::of(&stack);
    assert!(!traces.left().is_empty(), "the look finds a living stack");
    drop(stack);
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn killing_the_owner_leaves_nothing() {
    own_if_told();
    let (mut owner, stack) = owned("killing_the_owner_leaves_nothing");
    let traces = Traces::of(&stack);
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("the burial", LIMIT, || Ok((!stack.endpoints().run_dir.exists()).then_some(()))).unwrap();
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn a_sweep_buries_what_a_killed_undertaker_left() {
    own_if_told();
    let (mut owner, stack) = owned("a_sweep_buries_what_a_killed_undertaker_left");
    let traces = Traces::of(&stack);
    assert!(stack.undertaker().unwrap().unwrap().signal(Signal::KILL).unwrap());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let init = stack.init();
    until("the end of the first process", LIMIT, || Ok((!init.is_alive()).then_some(()))).unwrap();
    assert!(!traces.left().is_empty(), "without an undertaker something is left to sweep");
    cleanup::sweep().unwrap();
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn a_detached_stack_outlives_its_boot_and_ends_by_down() {
    let stack = Stack::boot(Options::new(Profile::Kafka)).unwrap();
    let traces = Traces::of(&stack);
    let endpoints = stack.detach().unwrap();
    assert!(cleanup::sweep().unwrap().iter().all(|name| *name != endpoints.name), "a living stack is not swept");
    assert!(kafka_answers(&endpoints.kafka).unwrap());
    assert!(cleanup::down(&endpoints.name).unwrap());
    assert_eq!(traces.left(), Vec::<String>::new());
    assert!(!cleanup::down(&endpoints.name).unwrap(), "down twice is no error");
}

#[test]
fn a_pod_runs_and_its_logs_are_read() {
    let endpoints = full().endpoints();
    let script = format!(
        "echo out; echo err >&2; cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt | md5sum; \
         nc -w 5 10.96.0.1 443 </dev/null && echo api server; \
         nc -w 5 {} 9092 </dev/null && echo kafka; exit 3",
        endpoints.address
    );
    run_pod(endpoints, "teller", &script);
    let phase = ["wait", "--for=jsonpath={.status.phase}=Failed", "pod/teller", "--timeout=60s"];
    kubectl(endpoints, &phase).unwrap();
    let exit = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(kubectl(endpoints, &["get", "pod", "teller", "-o", exit]).unwrap(), "3");

    let ca = checked(Command::new("md5sum").stdin(fs::File::open(&endpoints.ca).unwrap())).unwrap();
    let log = |stream: &str| {
        let path = format!("/api/v1/namespaces/default/pods/teller/log?stream={stream}");
        kubectl(endpoints, &["get", "--raw", &path]).unwrap()
    };
    assert_eq!(log("Stdout"), format!("out\n{ca}api server\nkafka\n"));
    assert_eq!(log("Stderr"), "err\n");
    kubectl(endpoints, &["delete", "pod", "teller", "--now"]).unwrap();
}

#[test]
fn a_killed_component_starts_again_on_its_data() {
    let stack = full();
    let endpoints = stack.endpoints();
    kubectl(endpoints, &["create", "configmap", "survivor"]).unwrap();
    for component in [Component::Etcd, Component::KubeApiserver, Component::Kubelet, Component::Kafka] {
        let before = stack.service(component).unwrap().process;
        stack.kill(component, Signal::KILL).unwrap();
        assert!(!before.is_alive(), "{component}");
        assert!(stack.signal(component, Signal::TERM).is_err(), "{component} is dead");
        stack.restart(component).unwrap();
        assert_ne!(stack.service(component).unwrap().process, before, "{component}");
        let found = || Ok(kubectl(endpoints, &["get", "configmap", "survivor"]).ok());
        until("the object's return", LIMIT, found).unwrap();
    }
    assert!(kafka_answers(&endpoints.kafka).unwrap());
    kubectl(endpoints, &["delete", "configmap", "survivor"]).unwrap();
}

#[test]
fn a_paused_broker_is_silent_until_resumed() {
    let stack = full();
    let kafka = &stack.endpoints().kafka;
    stack.pause(Component::Kafka).unwrap();
    assert!(!kafka_answers(kafka).unwrap());
    stack.resume(Component::Kafka).unwrap();
    until("the broker's answer", LIMIT, || Ok(kafka_answers(kafka)?.then_some(()))).unwrap();
}

#[test]
fn a_component_that_does_not_start_is_shown_by_its_log() {
    let stack = api_server_stack();
    stack.kill(Component::Etcd, Signal::KILL).unwrap();
    stack.kill(Component::KubeApiserver, Signal::KILL).unwrap();
    let key = stack.endpoints().run_dir.join("pki/apiserver.key");
    fs::write(key, "no key").unwrap();
    let error = format!("{:#}", stack.restart(Component::KubeApiserver).unwrap_err());
    assert!(error.contains("kube-apiserver is not ready"), "{error}");
    assert!(error.contains("failed to find any PEM data"), "{error}");
}

#[test]
fn a_second_node_runs_pods_is_reached_by_services_and_goes_without_a_trace() {
    let stack = full();
    let endpoints = stack.endpoints();
    stack.start_proxy().unwrap();
    let node = stack.add_node().unwrap();
    let error = format!("{:#}", stack.add_node().unwrap_err());
    assert!(error.contains("a second node already"), "{error}");

    let taints = ["get", "node", "node-2", "-o", "jsonpath={.spec.taints[*].key}"];
    assert!(kubectl(endpoints, &taints).unwrap().contains(NODE_TAINT), "pods come there only if they ask for it");
    kubectl(endpoints, &["create", "service", "clusterip", "answer", "--tcp=8080"]).unwrap();
    for name in ["node-1", "node-2"] {
        let script = format!("echo {name} > /tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp");
        run_pod_on(endpoints, name, &format!("answer-{name}"), "answer", &script);
    }
    let service = ["get", "service", "answer", "-o", "jsonpath={.spec.clusterIP}"];
    let service = kubectl(endpoints, &service).unwrap();
    // Of several calls some come to the pod on the caller's own node, some to the other.
    let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {service} 8080");
    let call = format!("until {get} | grep -x $name; do usleep 50000; done");
    let script = format!("hostname; for name in node-1 node-2; do {call}; done");
    for name in ["node-1", "node-2"] {
        let caller = format!("caller-{name}");
        run_pod_on(endpoints, name, &caller, "caller", &script);
        let pod = format!("pod/{caller}");
        kubectl(endpoints, &["wait", "--for=jsonpath={.status.phase}=Succeeded", &pod, "--timeout=60s"]).unwrap();
        assert_eq!(kubectl(endpoints, &["logs", &caller]).unwrap(), format!("{caller}\nnode-1\nnode-2\n"));
    }

    let traces = NodeTraces::of(stack, &node);
    let there = traces.left();
    for kind in ["process", "mount", "cgroup", "file", "link", "address", "route", "object"] {
        assert!(
            there.iter().any(|trace| trace.starts_with(kind)),
            "the look finds no {kind} of a living node: {there:?}"
        );
    }
    node.remove().unwrap();
    assert_eq!(traces.left(), Vec::<String>::new());
    kubectl(endpoints, &["delete", "pods,services", "--selector=app in (answer, caller)", "--now"]).unwrap();
}

/// Runs `script` in a pod on this node, whatever its taints are, with the label `app`.
fn run_pod_on(endpoints: &Endpoints, node: &str, name: &str, app: &str, script: &str) {
    let overrides = format!(r#"{{"spec":{{"nodeName":"{node}","terminationGracePeriodSeconds":1}}}}"#);
    let (overrides, labels) = (format!("--overrides={overrides}"), format!("--labels=app={app}"));
    let pod = ["run", name, "--image=localhost/busybox:1", "--restart=Never", &overrides, &labels];
    kubectl(endpoints, &[&pod[..], &["--command", "--", "sh", "-c", script]].concat()).unwrap();
}

/// Runs `script` in a pod from the test image that is not started again.
fn run_pod(endpoints: &Endpoints, name: &str, script: &str) {
    let image = ["run", name, "--image=localhost/busybox:1", "--restart=Never", "--command", "--", "sh", "-c", script];
    kubectl(endpoints, &image).unwrap();
}

/// In the process that a test started: own a stack until killed.
fn own_if_told() {
    if let Some(name) = std::env::var_os(OWNER_VARIABLE) {
        let _stack = Stack::boot(Options::new(Profile::Kafka).named(name.to_string_lossy())).unwrap();
        // Killed here; without a kill, the end of our input ends us.
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        std::process::exit(0);
    }
}

/// Another process that owns a stack, and the stack as found from here.
fn owned(test: &str) -> (Child, Stack) {
    let name = format!("owned-{}-{}", std::process::id(), test.len());
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .stdout(Stdio::null())
        .env(OWNER_VARIABLE, &name)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let found = || {
        anyhow::ensure!(owner.try_wait()?.is_none(), "the owner ended");
        Ok(Stack::attach(&name).ok())
    };
    let stack = until("the other process's stack", LIMIT, found).unwrap();
    (owner, stack)
}

/// Where a stack can be seen on the machine.
struct Traces {
    run: PathBuf,
    namespaces: Vec<PathBuf>,
    cgroups: Vec<PathBuf>,
    link: PathBuf,
    link_index: String,
    processes: Vec<ProcessId>,
}

impl Traces {
    fn of(stack: &Stack) -> Self {
        let init = stack.init().pid;
        let namespace = |kind: &str| fs::read_link(format!("/proc/{init}/ns/{kind}")).unwrap();
        let run = stack.endpoints().run_dir.clone();
        let link = Path::new("/sys/class/net").join(format!("pod-monitor{}", stack.endpoints().number));
        Self {
            namespaces: ["pid", "mnt", "net", "cgroup"].map(namespace).to_vec(),
            cgroups: fs::read_to_string(run.join("cgroups")).unwrap().lines().map(PathBuf::from).collect(),
            link_index: fs::read_to_string(link.join("ifindex")).unwrap(),
            processes: stack.services().unwrap().iter().map(|service| service.process).collect(),
            link,
            run,
        }
    }

    /// What of it is still there.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let run = self.run.display().to_string();
        left.extend(mounts.lines().filter(|line| line.contains(&run)).map(|line| format!("mount {line}")));
        left.extend(self.run.exists().then(|| run.clone()));
        left.extend(self.cgroups.iter().filter(|dir| dir.exists()).map(|dir| dir.display().to_string()));
        // Another stack may have taken the name since: it would have another index.
        let index = fs::read_to_string(self.link.join("ifindex")).unwrap_or_default();
        left.extend((index == self.link_index).then(|| self.link.display().to_string()));
        left.extend(self.processes.iter().filter(|process| process.is_alive()).map(|process| format!("{process:?}")));
        for entry in fs::read_dir("/proc").unwrap() {
            let process = entry.unwrap().path();
            for kind in ["pid", "mnt", "net", "cgroup"] {
                if fs::read_link(process.join("ns").join(kind)).is_ok_and(|found| self.namespaces.contains(&found)) {
                    left.push(format!("{} in the stack's {kind} namespace", process.display()));
                }
            }
        }
        left
    }
}

/// Where a second node can be seen, beside its stack.
struct NodeTraces<'a> {
    stack: &'a Stack,
    run: PathBuf,
    address: String,
    cgroups: Vec<PathBuf>,
    mounts: PathBuf,
    processes: Vec<ProcessId>,
}

impl<'a> NodeTraces<'a> {
    fn of(stack: &'a Stack, node: &Node) -> Self {
        let cgroups = fs::read_to_string(node.run_dir().join("cgroups")).unwrap();
        let cgroups: Vec<PathBuf> = cgroups.lines().map(PathBuf::from).collect();
        let mut processes = Vec::new();
        processes_below(&cgroups[0], &mut processes);
        // The first holds the namespaces; containers have mounts of their own beneath.
        let mounts = fs::read_link(format!("/proc/{}/ns/mnt", processes[0].pid)).unwrap();
        Self { stack, run: node.run_dir().to_owned(), address: node.address(), cgroups, mounts, processes }
    }

    /// What of it is still there, each beginning with its kind.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut add = |kind: &str, what: &dyn std::fmt::Display| left.push(format!("{kind} {what}"));
        self.processes.iter().filter(|process| process.is_alive()).for_each(|process| add("process", &process.pid));
        for entry in fs::read_dir("/proc").unwrap() {
            let process = entry.unwrap().path();
            if fs::read_link(process.join("ns/mnt")).is_ok_and(|mounts| mounts == self.mounts) {
                add("mount", &process.display());
            }
        }
        let here = [self.stack.init().pid.to_string(), "self".to_owned()];
        let run = self.run.display().to_string();
        for process in here {
            let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).unwrap();
            mounts.lines().filter(|line| line.contains(&run)).for_each(|line| add("mount", &line));
        }
        self.cgroups.iter().filter(|dir| dir.exists()).for_each(|dir| add("cgroup", &dir.display()));
        if self.run.exists() {
            add("file", &run);
        }
        let inside = |what: &str| self.stack.run_inside(&["ip", "-o", what, "show"]).unwrap();
        inside("link").lines().filter(|line| line.contains("cni1")).for_each(|line| add("link", &line));
        inside("addr").lines().filter(|line| line.contains(&self.address)).for_each(|line| add("address", &line));
        let number = self.stack.endpoints().number;
        let pods = format!("10.245.{number}.0/24");
        let route = checked(Command::new("ip").args(["route", "show", &pods])).unwrap();
        route.lines().for_each(|line| add("route", &line));
        let objects = kubectl(self.stack.endpoints(), &["get", "nodes,pods", "-A", "-o", "wide"]).unwrap();
        objects.lines().filter(|line| line.contains("node-2 ")).for_each(|line| add("object", &line));
        left
    }
}

fn processes_below(cgroup: &Path, found: &mut Vec<ProcessId>) {
    let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    found.extend(members.lines().filter_map(|pid| ProcessId::of(pid.parse().unwrap())));
    for entry in fs::read_dir(cgroup).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            processes_below(&entry.path(), found);
        }
    }
}

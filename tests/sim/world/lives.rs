//! Pods live random lives, as the API server shows them; what is true of them is noted for the oracle.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{World, after, etcd::Which};
use crate::{oracle::Fact, random::Random};

/// A pod as it stands.
struct Pod {
    uid: String,
    name: String,
    labelled: bool,
    bound: bool,
    waiting: &'static str,
    started: Option<Timestamp>,
    exit: Option<(i32, Timestamp)>,
    terminal: bool,
    /// `deletionTimestamp` and its grace.
    deleting: Option<(Timestamp, u64)>,
}

/// How long a step of a life takes: some pods hurry.
#[derive(Clone, Copy)]
struct Pace(u64);

impl Pace {
    fn pause(self, random: &mut Random) -> Duration {
        random.ms(self.0 / 10, self.0)
    }
}

/// Lets `count` pods begin their lives at random moments within `span`.
pub fn begin(world: &Arc<World>, random: &Random, called: &'static str, count: u64, span: Duration) {
    for number in 0..count {
        let mut random = random.fork(number);
        let begins = random.ms(0, span.as_millis() as u64);
        let world = Arc::clone(world);
        world.clone().spawn(async move {
            after(begins).await;
            let name = format!("{called}-{number}");
            live(&world, &mut random, &name).await;
            // The name comes back, the UID does not.
            if random.percent(20) && !world.etcd().kind(Which::Pods).objects.contains_key(&name) {
                after(random.ms(0, 50)).await;
                live(&world, &mut random, &name).await;
            }
        });
    }
}

async fn live(world: &World, random: &mut Random, name: &str) {
    let uid = format!("{:08x}-0000-4000-8000-{:012x}", random.next() as u32, random.next() & 0xffff_ffff_ffff);
    let pace = Pace(random.pick(&[5, 50, 500, 3000]));
    let mut pod = Pod {
        uid,
        name: name.to_owned(),
        labelled: true,
        bound: false,
        waiting: if random.percent(20) { "ErrImagePull" } else { "ContainerCreating" },
        started: None,
        exit: None,
        terminal: false,
        deleting: None,
    };
    pod.write(world);
    let goes = run(world, random, pace, &mut pod).await;
    if goes || random.percent(60) {
        after(pace.pause(random)).await;
        pod.go(world, random, pace).await;
    }
}

/// From binding to the end. Whether it is deleted on the way.
async fn run(world: &World, random: &mut Random, pace: Pace, pod: &mut Pod) -> bool {
    let steps: [fn(&mut Pod, &World, &mut Random); 4] = [
        |pod, _, _| pod.bound = true,
        |pod, world, _| pod.started = Some(world.now()),
        |pod, world, random| {
            pod.exit = Some((random.pick(&[0, 0, 0, 3, 137]), world.now()));
            // Mostly the kubelet writes both at once.
            pod.terminal = random.percent(70);
        },
        |pod, _, _| pod.terminal = true,
    ];
    for step in steps {
        after(pace.pause(random)).await;
        if random.percent(7) {
            return true;
        }
        if random.percent(4) {
            pod.leave_and_return(world, random, pace).await;
        }
        step(pod, world, random);
        pod.write(world);
        if pod.terminal {
            break;
        }
    }
    false
}

impl Pod {
    async fn leave_and_return(&mut self, world: &World, random: &mut Random, pace: Pace) {
        self.labelled = false;
        self.write(world);
        if random.percent(70) {
            after(pace.pause(random)).await;
            self.labelled = true;
            self.write(world);
        }
    }

    /// Deleted, with or without grace.
    async fn go(&mut self, world: &World, random: &mut Random, pace: Pace) {
        if random.percent(50) {
            self.deleting = Some((world.now() + Duration::from_secs(30), 30));
            self.write(world);
            after(pace.pause(random)).await;
            if self.started.is_some() && self.exit.is_none() {
                self.exit = Some((137, world.now()));
                self.terminal = true;
                self.write(world);
            }
            if random.percent(70) {
                self.deleting = Some((world.now(), 0));
                self.write(world);
            }
        }
        let mut etcd = world.etcd();
        if let Some(version) = etcd.remove(Which::Pods, &self.name) {
            etcd.truth.push(Fact { deleted: true, ..self.fact(version) });
            drop(etcd);
            world.note("pod", format_args!("{} {} is gone at {version}", self.name, self.uid));
        }
    }

    fn write(&self, world: &World) {
        let mut etcd = world.etcd();
        let version = etcd.put(Which::Pods, &self.name, self.object()).version;
        let fact = self.fact(version);
        world.note("pod", format_args!("{} {fact}", self.name));
        etcd.truth.push(fact);
    }

    fn fact(&self, version: u64) -> Fact {
        Fact {
            version,
            uid: self.uid.clone(),
            selected: self.labelled,
            bound: self.bound,
            started: self.started.is_some(),
            exit: self.exit.map(|(code, _)| code),
            terminal: self.terminal,
            deleted: false,
        }
    }

    fn object(&self) -> Value {
        let mut metadata = json!({ "uid": self.uid, "name": self.name, "namespace": "runs",
            "labels": { "execution-id": self.name } });
        if self.labelled {
            metadata["labels"]["app"] = json!("exec");
        }
        if let Some((at, grace)) = self.deleting {
            metadata["deletionTimestamp"] = json!(second(at));
            metadata["deletionGracePeriodSeconds"] = json!(grace);
        }
        let mut spec = json!({ "restartPolicy": "Never", "containers": [{ "name": "main" }] });
        let state = match (self.started, self.exit) {
            (None, _) => json!({ "waiting": { "reason": self.waiting } }),
            (Some(at), None) => json!({ "running": { "startedAt": second(at) } }),
            (Some(at), Some((code, end))) => json!({ "terminated": { "exitCode": code,
                "reason": if code == 0 { "Completed" } else { "Error" }, "startedAt": second(at), "finishedAt": second(end) } }),
        };
        let phase = match (self.exit, self.terminal, self.started) {
            (Some((0, _)), true, _) => "Succeeded",
            (Some(_), true, _) => "Failed",
            (_, _, Some(_)) => "Running",
            _ => "Pending",
        };
        let mut status = json!({ "phase": phase });
        if self.bound {
            spec["nodeName"] = json!("node-1");
            status["conditions"] = json!([{ "type": "PodScheduled", "status": "True" }]);
            status["containerStatuses"] = json!([{ "name": "main", "restartCount": 0, "state": state }]);
        }
        json!({ "metadata": metadata, "spec": spec, "status": status })
    }
}

/// Kubernetes writes whole seconds.
fn second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).expect("in range").to_string()
}

//! The demo: sample executions as real pods, and the story of each as a consumer of the events topic reads it.
//!
//! ```text
//!  samples ──▶ drive: pods in, acts, events out ──▶ story: as expected? ──▶ show: blocks for a terminal
//! ```
//! Promises: expectations are data that this code does not bend; a story that is not as expected fails the demo and is
//! shown with the pod's status. The monitor is installed as users do it. Must not: use code of the monitor, end a stack (that is xtask's business).

mod drive;
mod progress;
mod samples;
mod show;
mod story;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    clients::{
        asked_to_stop,
        checker::{self, Fault},
        cluster::Cluster,
        history::History,
        installation::{Installation, Plan, Replica},
    },
    stack::{Endpoints, Stack},
};
use drive::Execution;
use show::Style;

/// Shorter than the replicas' grace period: each ends by itself.
const STOP_MAX: Duration = Duration::from_secs(20);

/// How long the events topic must be silent before `read` takes it for its end.
const SILENCE: Duration = Duration::from_secs(2);

/// What to demonstrate, and where.
#[derive(Debug)]
pub struct Demo {
    /// What is installed: the repository's deploy/kustomize. The image is on the stack.
    pub deploy: PathBuf,
    /// Names the installation: its namespace, the pods' `app` label and the topics `<app>.events` and `<app>.changelog`.
    pub app: String,
    /// Leave the installation there; it ends with the stack.
    pub keep: bool,
}

impl Demo {
    /// Runs everything against the stack. Returns whether all stories were as expected.
    ///
    /// # Errors
    /// When the stack or the monitor does not answer, or when interrupted.
    pub async fn run(&self, endpoints: &Endpoints) -> Result<bool> {
        tokio::select! {
            result = self.tell(endpoints) => result,
            // Dropping what runs ends the monitor; by default a signal would leave it behind.
            signal = asked_to_stop() => anyhow::bail!("{}", signal?),
        }
    }

    /// As users do it who hold their pods, name their own failures, and hear of stalls soon.
    fn plan(&self) -> Plan {
        let rule = json!({ "name": "no-licence", "match": { "exit-codes": 43 }, "cause": "no_licence", "category": "licence",
            "hint": "the licence server had no seat left", "retryable": true });
        let settings = json!({ "stall-grace": ["config=2s"] });
        Plan { finalizer: true, rules: Some(json!({ "rules": [rule] })), settings, ..Plan::new(&self.app) }
    }

    async fn tell(&self, endpoints: &Endpoints) -> Result<bool> {
        let began = Instant::now();
        eprintln!("installing three replicas of the monitor ...");
        let stack = Stack::from_env()?;
        let installed = Installation::install(endpoints, &self.deploy, &self.plan()).await?;
        installed.ready().await?;
        let mut history = installed.history()?;
        let (told, killed) = drive::run(&installed, &stack, &mut history).await?;
        let good = self.report(&installed.watched, &told, &history, began).await?;
        let killed = killed.context("the stories were over before the leader was killed: too few events came")?;
        print(&show::change_of_hands(
            Style::of_stdout(),
            &killed.name,
            took_over_from(&installed, &killed).await?.as_ref(),
        ))?;
        if self.keep {
            self.leave(endpoints, installed).await?;
        } else {
            installed.stop(STOP_MAX).await?;
            println!("To look around while all of it runs: cargo xtask demo --keep");
        }
        Ok(good)
    }

    async fn report(&self, cluster: &Cluster, told: &[Execution], history: &History, began: Instant) -> Result<bool> {
        let style = Style::of_stdout();
        let truth: Vec<_> = told.iter().map(Execution::truth).collect();
        let faults = checker::judge(&truth, &history.records);
        let mut strange = 0;
        for execution in told {
            let records = history.of_pod(&execution.uid);
            let wrong = story::compare(&execution.sample, &execution.uid, &records);
            print(&show::block(style, execution, &records, &wrong))?;
            if !wrong.is_empty() {
                strange += 1;
                let status = cluster.pod(&execution.name).await?.map(|pod| pod["status"].clone());
                print(&show::evidence(&records, status.as_ref()))?;
            }
        }
        for fault in &faults {
            print(&format!("{}\n", style.bad(&fault.to_string())))?;
        }
        let seconds = began.elapsed().as_secs_f64();
        print(&summary(style, told.len(), strange, history, &faults, seconds))?;
        Ok(strange == 0 && faults.is_empty())
    }

    async fn leave(&self, endpoints: &Endpoints, installed: Installation) -> Result<()> {
        println!("The stack and the installation stay up. To look further:");
        for replica in installed.replicas().await? {
            println!("  status page   http://{}:8080/    {}", replica.address, replica.name);
        }
        let program = std::env::current_exe().context("find our own program")?;
        let (name, app, watched) = (&endpoints.name, &self.app, installed.watched.namespace());
        println!("  variables     eval \"$(cargo xtask up --name {name} --quiet-exports)\"");
        println!("  and then      kubectl get pods --namespace {watched}");
        println!("                kubectl delete pod exec-success --namespace {watched}");
        println!("                kubectl get pods,leases --namespace {app}");
        println!("                kubectl logs deployment/pod-monitor --namespace {app}");
        println!("                {} --read {}", program.display(), installed.topic());
        println!("To end all of it: cargo xtask down --name {name}");
        installed.leave();
        Ok(())
    }
}

/// What the successor of a killed leader says of its take-over. Nobody else may have been started again.
async fn took_over_from(installed: &Installation, killed: &Replica) -> Result<Option<Value>> {
    installed.restarted(killed).await?;
    let restarts: u64 = installed.replicas().await?.iter().map(|replica| replica.restarts).sum();
    ensure!(restarts == 1, "one replica was killed, and {restarts} were started again\n{}", installed.story().await);
    let took_over = installed.said("took over").await?;
    // Of the first leader, and of its successor.
    ensure!(took_over.len() >= 2, "nobody says that it took over from {}", killed.name);
    Ok(took_over.last().cloned())
}

fn summary(
    style: Style,
    executions: usize,
    strange: usize,
    history: &History,
    faults: &[Fault],
    seconds: f64,
) -> String {
    let count = |kind: fn(&Fault) -> bool| faults.iter().filter(|fault| kind(fault)).count();
    let lost = count(|f| matches!(f, Fault::Lost { .. }));
    let doubled = count(|f| matches!(f, Fault::Doubled { .. }));
    let disordered = count(|f| matches!(f, Fault::OutOfOrder { .. }));
    let others = faults.len() - lost - doubled - disordered;
    let events = history.records.len();
    let mut line = format!(
        "{events} events of {executions} executions in {seconds:.0} s: {lost} lost, {doubled} doubled, {disordered} out of \
         order"
    );
    if others > 0 {
        line.push_str(&format!(", {others} otherwise wrong"));
    }
    let verdict = match strange {
        0 if faults.is_empty() => style.good("All stories are as expected."),
        1 => style.bad("1 story is not as expected."),
        n => style.bad(&format!("{n} stories are not as expected.")),
    };
    format!("{}. {verdict}\n", style.strong(&line))
}

/// Prints the events of a topic to standard output, one JSON object a line, until it is silent.
///
/// # Errors
/// When the broker does not answer or there is no such topic.
pub fn read(endpoints: &Endpoints, topic: &str) -> Result<()> {
    let mut history = History::open(&endpoints.kafka, &[topic])?;
    history.read(SILENCE)?;
    let lines: String = history.records.iter().map(|record| format!("{}\n", record.value)).collect();
    print(&lines)?;
    if io::stdout().is_terminal() {
        eprintln!("{} events", history.records.len());
    }
    Ok(())
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to standard output"),
    }
}

//! The demo: sample executions as real pods, and the story of each as a consumer of the events topic reads it.
//!
//! ```text
//!  samples ──▶ drive: pods in, acts, events out ──▶ story: as expected? ──▶ show: blocks for a terminal
//! ```
//! Promises: expectations are data that this code does not bend; a story that is not as expected fails the demo and is
//! shown with the pod's status. Must not: use code of the monitor, end a stack (that is xtask's business).

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

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    clients::{
        checker::{self, Fault},
        cluster::Cluster,
        history::History,
        monitor::Launch,
        replicas::Replicas,
        until,
    },
    stack::{Endpoints, ProcessId, companions},
};
use drive::Execution;
use show::Style;

const READY_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(10);

/// How long the events topic must be silent before `read` takes it for its end.
const SILENCE: Duration = Duration::from_secs(2);

/// What to demonstrate, and where.
#[derive(Debug)]
pub struct Demo {
    /// The monitor's program.
    pub monitor: PathBuf,
    /// Names the namespace, the pods' `app` label and the topics `<app>.events` and `<app>.changelog`.
    pub app: String,
    /// Leave the replicas running; they end with the stack.
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

    async fn tell(&self, endpoints: &Endpoints) -> Result<bool> {
        let began = Instant::now();
        eprintln!("starting three replicas of the monitor ...");
        let cluster = Cluster::connect(endpoints, &self.app).await?;
        let launch = Launch::new(&self.monitor, endpoints, &self.app, &self.app);
        let mut replicas = Replicas::start(&launch, &cluster)?;
        replicas.ready(READY_MAX).await?;
        cluster.ready_for_pods().await?;
        let topic = self.topic();
        let open = async || Ok(History::open(&endpoints.kafka, &[&topic]).ok());
        let mut history = until(READY_MAX, "the monitor has made its topics", open).await?;
        let (told, killed) = drive::run(&self.app, &cluster, &mut replicas, &mut history).await?;
        let good = self.report(&cluster, &told, &history, began).await?;
        let took_over = replicas.said("took over")?;
        anyhow::ensure!(!killed.is_empty(), "the stories were over before the leader was killed: too few events came");
        // Of the first leader, and of its successor.
        anyhow::ensure!(took_over.len() >= 2, "nobody says that it took over from {killed}");
        print(&show::change_of_hands(Style::of_stdout(), &killed, took_over.last()))?;
        if self.keep {
            self.leave(endpoints, replicas)?;
        } else {
            replicas.stop(STOP_MAX).await?;
            cluster.remove_namespace().await?;
            println!("To look around while all of it runs: cargo xtask demo --keep");
        }
        Ok(good)
    }

    fn topic(&self) -> String {
        format!("{}.events", self.app)
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

    fn leave(&self, endpoints: &Endpoints, replicas: Replicas) -> Result<()> {
        println!("The stack and the replicas stay up. To look further:");
        for monitor in replicas.into_running() {
            let pid = i32::try_from(monitor.pid()).ok().and_then(ProcessId::of).context("a replica has ended")?;
            companions::add(&endpoints.run_dir, pid)?;
            println!("  status page   http://{}/    log {}", monitor.address, monitor.log.display());
            monitor.leave();
        }
        let program = std::env::current_exe().context("find our own program")?;
        let (name, app, topic) = (&endpoints.name, &self.app, self.topic());
        println!("  variables     eval \"$(cargo xtask up --name {name} --quiet-exports)\"");
        println!("  and then      kubectl get pods --namespace {app}");
        println!("                kubectl delete pod exec-success --namespace {app}");
        println!("                {} --read {topic}", program.display());
        println!("To end all of it: cargo xtask down --name {name}");
        Ok(())
    }
}

/// Waits for the signals that end a program at a terminal; says which one came.
async fn asked_to_stop() -> Result<&'static str> {
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt.map(|()| "interrupted").context("wait for Ctrl-C"),
        _ = terminate.recv() => Ok("asked to end"),
        _ = hangup.recv() => Ok("the terminal is gone"),
    }
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

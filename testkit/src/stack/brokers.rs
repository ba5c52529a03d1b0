//! Several brokers that are one Kafka, each of them a controller too: what a production has. Partitions and coordinators
//! change hands when one of them dies or is restarted.
//!
//! They take the place of a stack's single broker, and end with the stack.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::component::Commands;
use super::process::{ProcessId, Signal};
use super::readiness::{kafka_answers, until};
use super::{Component, END_MAX, Options, Profile, Stack, state, warm};

/// Where the first one's clients connect; those of the others at the ports after it.
const PORT: u16 = 9200;
/// Where the first one's fellow controllers connect.
const CONTROLLER_PORT: u16 = 9300;
/// Three that start side by side on two cores.
const READY_MAX: Duration = Duration::from_secs(90);

/// So many brokers, numbered from 1. Each topic has a replica on each of them unless it says otherwise, and a record is
/// acknowledged once all but one have it.
pub struct Brokers {
    stack: Stack,
    all: Vec<Broker>,
}

struct Broker {
    command: Vec<String>,
    log: PathBuf,
    address: String,
    process: Mutex<ProcessId>,
}

impl Brokers {
    /// Boots them, and waits until each answers. They may not have heard of each other yet.
    ///
    /// # Errors
    /// As [`Stack::boot`].
    pub fn boot(count: u8) -> Result<Self> {
        let stack = Stack::boot(Options::new(Profile::Kafka))?;
        stack.kill(Component::Kafka, Signal::KILL)?;
        let all = (1..=count).map(|number| Broker::start(&stack, number, count)).collect::<Result<Vec<_>>>()?;
        all.iter().try_for_each(Broker::await_ready)?;
        Ok(Self { stack, all })
    }

    /// Where clients begin: all of them.
    pub fn servers(&self) -> String {
        let addresses: Vec<&str> = self.all.iter().map(|broker| broker.address.as_str()).collect();
        addresses.join(",")
    }

    /// Ends one by a signal and waits until it is gone: by TERM it hands its partitions over first.
    ///
    /// # Errors
    /// When it does not end, or is dead already.
    pub fn end(&self, number: u8, signal: Signal) -> Result<()> {
        let process = self.signal(number, signal)?;
        until(&format!("the end of broker {number}"), END_MAX, || Ok((!process.is_alive()).then_some(())))
    }

    /// Freezes one: its connections stay open, and nothing answers.
    ///
    /// # Errors
    /// When it is dead.
    pub fn freeze(&self, number: u8) -> Result<()> {
        self.signal(number, Signal::STOP).map(drop)
    }

    /// Lets one that was frozen go on.
    ///
    /// # Errors
    /// When it is dead.
    pub fn thaw(&self, number: u8) -> Result<()> {
        self.signal(number, Signal::CONT).map(drop)
    }

    /// Gives the process that was sent it.
    fn signal(&self, number: u8, signal: Signal) -> Result<ProcessId> {
        let process = self.broker(number)?.process();
        anyhow::ensure!(process.signal(signal)?, "broker {number} is dead");
        Ok(process)
    }

    /// Starts one that ended on its own data, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_again(&self, number: u8) -> Result<()> {
        let broker = self.broker(number)?;
        let process = self.stack.namespace.spawn(&broker.command, &broker.log)?;
        *broker.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
        broker.await_ready()
    }

    fn broker(&self, number: u8) -> Result<&Broker> {
        let index = usize::from(number).checked_sub(1).context("brokers are counted from 1")?;
        self.all.get(index).with_context(|| format!("there is no broker {number}"))
    }
}

impl Broker {
    fn start(stack: &Stack, number: u8, count: u8) -> Result<Self> {
        let run = &stack.endpoints.run_dir;
        let (data, file) = (run.join(format!("kafka-{number}")), run.join(format!("kafka-{number}.properties")));
        warm::copy_dir(&stack.artifacts.kafka_formatted(), &data)?;
        become_node(&data, number)?;
        let address = &stack.endpoints.address;
        fs::write(&file, properties(address, number, count, &data))?;
        let commands =
            Commands { run, artifacts: &stack.artifacts, address, node: 0, broker: state::Broker::default() };
        let (command, log) = (commands.broker(&file)?, run.join("log").join(format!("kafka-{number}.log")));
        let process = Mutex::new(stack.namespace.spawn(&command, &log)?);
        Ok(Self { command, log, address: format!("{address}:{}", PORT + u16::from(number)), process })
    }

    fn process(&self) -> ProcessId {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn await_ready(&self) -> Result<()> {
        let process = self.process();
        until(&format!("the broker at {}", self.address), READY_MAX, || {
            anyhow::ensure!(process.is_alive(), "it ended:\n{}", super::process::log_tail(&self.log, 20));
            Ok(kafka_answers(&self.address)?.then_some(()))
        })
    }
}

/// A formatted directory is the first node's; the ids of directories differ, too.
fn become_node(data: &Path, number: u8) -> Result<()> {
    let file = data.join("meta.properties");
    let text = fs::read_to_string(&file).context("read what says whose directory it is")?;
    let line = |line: &str| match line.split('=').next() {
        Some("node.id") => format!("node.id={number}\n"),
        // The last of 22 digits of base 64 holds four bits only.
        Some("directory.id") => format!("directory.id=pod-monitor-broker-{number}{number}A\n"),
        _ => format!("{line}\n"),
    };
    fs::write(&file, text.lines().map(line).collect::<String>()).context("write whose directory it is")
}

/// The configuration of one of `count`.
fn properties(address: &str, number: u8, count: u8, data: &Path) -> String {
    let controller = |number: u8| format!("127.0.0.1:{}", CONTROLLER_PORT + u16::from(number));
    let voters: Vec<String> = (1..=count).map(|number| format!("{number}@{}", controller(number))).collect();
    let (here, in_sync) = (format!("{address}:{}", PORT + u16::from(number)), count.saturating_sub(1).max(1));
    format!(
        "process.roles=broker,controller\n\
         node.id={number}\n\
         controller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://{here},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{here}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         log.dirs={data}\n\
         auto.create.topics.enable=false\n\
         num.partitions=1\n\
         default.replication.factor={count}\n\
         min.insync.replicas={in_sync}\n\
         group.initial.rebalance.delay.ms=0\n\
         offsets.topic.num.partitions=4\n\
         offsets.topic.replication.factor={count}\n\
         transaction.state.log.num.partitions=4\n\
         transaction.state.log.replication.factor={count}\n\
         transaction.state.log.min.isr={in_sync}\n",
        voters = voters.join(","),
        controller = controller(number),
        data = data.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broker_knows_all_controllers_and_has_ports_of_its_own() {
        let text = properties("10.0.0.2", 2, 3, Path::new("/data"));
        for line in [
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:9301,2@127.0.0.1:9302,3@127.0.0.1:9303",
            "listeners=PLAINTEXT://10.0.0.2:9202,CONTROLLER://127.0.0.1:9302",
            "default.replication.factor=3",
            "min.insync.replicas=2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
}

//! `examples/result_processor.rs` beside a monitor's journal, killed again and again.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use pod_monitor::{
    ports::{Journal, Journals},
    publish::{
        journal::{KafkaJournal, KafkaJournals},
        settings::Settings,
    },
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::Value;

use crate::{support::*, verify};

/// Executions; each has three events.
const LIVES: u32 = 120;
/// How often it is killed while they are told.
const KILLS: usize = 6;

/// The example, which cargo builds beside the tests' own folder.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples/result_processor");
    let mend = "cargo build --workspace --profile test --example result_processor";
    assert!(program.exists(), "{} is not built: {mend}", program.display());
    program
}

struct Processor {
    group: String,
    topic: String,
    results: PathBuf,
    errors: PathBuf,
}

impl Processor {
    fn of(settings: &Settings) -> Self {
        let topic = settings.events_topics().remove(0);
        let place = |ending: &str| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{topic}.{ending}"));
        Self { group: format!("{topic}.processor"), results: place("jsonl"), errors: place("errors"), topic }
    }

    fn start(&self) -> Child {
        let errors = File::options().create(true).append(true).open(&self.errors).unwrap();
        let mut command = Command::new(program());
        command.args(["--kafka", &servers(), "--events-topic", &self.topic, "--group", &self.group]);
        command.arg("--results").arg(&self.results);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap()
    }

    /// Whole lines of its file.
    fn lines(&self) -> usize {
        fs::read(&self.results).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
    }

    /// Waits until it has this many results; it must not end meanwhile.
    async fn has(&self, child: &mut Child, lines: usize) {
        let started = Instant::now();
        while self.lines() < lines {
            assert_eq!(child.try_wait().unwrap(), None, "{}", fs::read_to_string(&self.errors).unwrap());
            assert!(started.elapsed() < 2 * LIMIT, "{} of {lines} results", self.lines());
            tokio::task::yield_now().await;
        }
    }

    /// How far the end of the topic is from the offset that the group noted, summed over partitions.
    fn lag(&self) -> i64 {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", servers()).set("group.id", &self.group).create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&self.topic), LIMIT).unwrap();
        let partitions = metadata.topics()[0].partitions().iter().map(|partition| partition.id());
        let of = |partition| {
            let mut noted = TopicPartitionList::new();
            noted.add_partition(&self.topic, partition);
            let noted = consumer.committed_offsets(noted, LIMIT).unwrap();
            let end = consumer.fetch_watermarks(&self.topic, partition, LIMIT).unwrap().1;
            match noted.elements()[0].offset() {
                Offset::Offset(offset) => end - offset,
                _ => end,
            }
        };
        partitions.map(of).sum()
    }
}

/// A monitor's journal, opened anew where it has to be: what is then told twice is the processor's to notice.
struct Teller {
    journals: KafkaJournals,
    journal: KafkaJournal,
}

impl Teller {
    async fn of(journals: KafkaJournals) -> Self {
        let (journal, _) = opened(&journals, "teller").await;
        Self { journals, journal }
    }

    async fn tell(&mut self, number: u32) {
        let started = Instant::now();
        while self.journal.commit(verify::told(number)).await.is_err() {
            assert!(started.elapsed() < LIMIT, "{number} cannot be told");
            if let Ok((journal, _)) = self.journals.open(&tenure("teller")).await {
                self.journal = journal;
            }
        }
    }
}

/// Half a line, as a death in the middle of writing leaves it.
fn tear(results: &Path) {
    let mut file = File::options().append(true).open(results).unwrap();
    file.write_all(br#"{"event_id":"half of"#).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_processor_that_is_killed_again_and_again_processes_each_execution_once() {
    let (settings, topics) = installation("processor").await;
    let processor = Processor::of(&settings);
    // Aborted: nobody may see it.
    dies_inside_a_transaction(&settings, &topics);
    let mut teller = Teller::of(warm(settings.clone(), &topics).await).await;
    let (mut told, mut child) = (0, processor.start());
    for kill in 1..=KILLS {
        let until = LIVES * u32::try_from(kill).unwrap() / u32::try_from(KILLS).unwrap();
        for number in told..until {
            teller.tell(number).await;
        }
        told = until;
        // In the middle of what was told last, or before it.
        processor.has(&mut child, told as usize - 8 - kill).await;
        child.kill().unwrap();
        child.wait().unwrap();
        tear(&processor.results);
        child = processor.start();
    }
    // As after a lost changelog: the same once more.
    for number in 0..3 {
        teller.tell(number).await;
    }
    teller.tell(LIVES).await;
    processor.has(&mut child, LIVES as usize + 1).await;
    // What is left are the marks that end transactions, one in each partition.
    let started = Instant::now();
    while processor.lag() != 1 {
        assert!(started.elapsed() < LIMIT, "a lag of {}", processor.lag());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let text = fs::read_to_string(&processor.results).unwrap();
    let results: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut executions: Vec<u32> =
        results.iter().map(|result| result["execution_id"].as_str().unwrap().parse().unwrap()).collect();
    executions.sort_unstable();
    assert_eq!(executions, Vec::from_iter(0..=LIVES), "each once");
    assert!(results.iter().all(|result| result["event_type"] == "execution_completed" && result["exit_code"] == 0));
    assert!(results.iter().all(|result| result["stdout"].as_str().is_some_and(|text| text.len() == 100)));
    let again = fs::read_to_string(&processor.errors).unwrap().matches("came again").count();
    assert!(again >= 3, "{again} events came again: the deaths tested nothing");
}

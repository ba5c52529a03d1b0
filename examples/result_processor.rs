//! A result processor: one line in a file for each execution that ended, whatever happens to this program in between.
//!
//! ```console
//! cargo run --example result_processor -- --kafka HOST:PORT
//! ```
//! Order: process, then note the offset. So a death in between brings events again, never loses one; what was processed
//! is known by its `event_id`. The file stands in for your database: a unique key on `event_id`, and
//! `INSERT ... ON CONFLICT DO NOTHING`. More of this: docs/consuming.md.

use std::{
    collections::HashSet,
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::Value;

#[derive(Parser)]
struct Arguments {
    /// Bootstrap servers, HOST:PORT.
    #[arg(long)]
    kafka: String,
    /// Any librdkafka property, NAME=VALUE: TLS, a password; repeatable.
    #[arg(long)]
    kafka_config: Vec<String>,
    #[arg(long, default_value = "pod-monitor.events")]
    events_topic: String,
    #[arg(long, default_value = "result-processor")]
    group: String,
    /// Where results are kept, one JSON object a line.
    #[arg(long, default_value = "results.jsonl")]
    results: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { kafka, kafka_config, events_topic, group, results } = Arguments::parse();
    let (mut results, mut done) = open(&results)?;
    let mut config = ClientConfig::new();
    for property in &kafka_config {
        let (name, value) = property.split_once('=').with_context(|| format!("{property}: write NAME=VALUE"))?;
        config.set(name, value);
    }
    let consumer: BaseConsumer = config
        .set("bootstrap.servers", kafka)
        .set("group.id", &group)
        // Begun anew after a death it has its partitions back at once. A second process needs another name.
        .set("group.instance.id", format!("{group}-1"))
        // What was aborted never happened. librdkafka's default, but not that of every client.
        .set("isolation.level", "read_committed")
        // A broker that froze is left for the next leader; by default that takes a minute.
        .set("socket.timeout.ms", "6000")
        // A new group begins with the oldest event.
        .set("auto.offset.reset", "earliest")
        // Offsets go to the broker now and then, but only those that were noted: of what is processed.
        .set("enable.auto.offset.store", "false")
        .create()?;
    consumer.subscribe(&[events_topic.as_str()])?;
    loop {
        let message = match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(message)) => message,
            // A broker that is away comes back by itself.
            Some(Err(error)) => {
                eprintln!("{error}");
                continue;
            }
            None => continue,
        };
        let event: Value = serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_else(|error| {
            // It will not become JSON by waiting: it is passed over.
            let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
            eprintln!("{topic}, partition {partition}, offset {offset}: no event: {error}");
            Value::Null
        });
        let of = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        // All other types are news of executions that go on, also those that a later release may add.
        if matches!(&*of("event_type"), "execution_completed" | "execution_failed" | "execution_timeout") {
            if done.insert(of("event_id")) {
                // A field without a value is absent.
                let fields = ["event_id", "execution_id", "event_type", "exit_code", "cause", "stdout", "stderr"];
                let result: Value = fields.iter().filter_map(|name| Some((*name, event.get(name)?.clone()))).collect();
                results.write_all(format!("{result}\n").as_bytes())?;
                results.sync_data()?;
                println!("{} {}", of("execution_id"), of("event_type"));
            } else {
                eprintln!("{} came again", of("event_id"));
            }
        }
        if let Err(error) = consumer.store_offset_from_message(&message) {
            // The partition went to another process of the group, which gets the event again.
            eprintln!("{error}");
        }
    }
}

/// The file, and which events are in it. Half a line is cut off: its event was not noted, so it comes again.
fn open(path: &Path) -> Result<(File, HashSet<String>)> {
    let mut file = File::options().read(true).append(true).create(true).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    file.set_len(whole as u64)?;
    let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let ids =
        lines.map(|line| Ok(serde_json::from_slice::<Value>(line)?["event_id"].as_str().unwrap_or_default().into()));
    Ok((file, ids.collect::<Result<_>>()?))
}

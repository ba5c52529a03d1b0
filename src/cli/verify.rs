//! `verify`: reads, judges, prints. The report goes to standard output, progress and errors to standard error.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{ArgAction, Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::{
    ClientConfig, Message,
    message::{BorrowedMessage, Headers as _},
};

use super::{
    EXIT_CONFIG, EXIT_FAILED, chain,
    screen::{Ink, Paint, ScreenArgs},
};
use crate::{
    config::{self, Kafka, KafkaArgs},
    lifecycle::{event::EventType, tracked::Tracked},
    publish::{
        changelog::{self, Entry},
        record, settings,
    },
    verify::{
        Judge, Report,
        judge::{Place, Topic},
        read::{Error, Extent},
        schema,
    },
    watch::pod::ByUid,
};

/// Findings that are shown to people; all that are kept are in the JSON.
const SHOWN_MAX: usize = 20;

pub(super) const EXAMPLES: &str = "\
Reads committed records only and joins no consumer group: it may be run beside a monitor, at any time.
Needs the rights to read and describe the topics, and memory: about 100 bytes an event. Settings may also come from the variables and the file of 'run'.

lost          a number of a pod's sequence stands nowhere, or the changelog says it was told and it is not there
doubled       an event stands there twice, or a pod has two ends
out of order  a pod's events do not stand in the order in which they happened
schema        a record is not as the contract says

Examples:
  pod-monitor verify --kafka kafka:9092
  pod-monitor verify --config /etc/pod-monitor/config.yaml --output json
  In a cluster, as a pod of its own (inside a monitor's container it would share its memory limit), with image, settings
  and secrets of what is installed: docs/handover.md, \"Was anything lost?\"

Exit codes: 0 all is well, 1 something is wrong or could not be read, 2 configuration.";

/// How the report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[value(aliases = ["table", "pretty"])]
    Text,
    /// One JSON object
    Json,
}

/// Flags of `verify`.
#[derive(Args)]
pub struct VerifyArgs {
    /// YAML file of 'run': its Kafka settings are taken
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// How Kafka is reached, and its topics
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Do not compare with the changelog: what is missing at the end of a story is then not noticed
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    no_changelog: bool,
    /// How the report looks
    #[arg(long, value_name = "FORM", default_value = "text")]
    output: Output,
    /// How it is shown
    #[command(flatten)]
    screen: ScreenArgs,
}

/// What to verify.
#[derive(Debug)]
pub struct Verify {
    kafka: Kafka,
    changelog: bool,
    output: Output,
    paint: Paint,
}

/// Reads the settings.
pub(super) fn parse(given: &clap::ArgMatches, variables: config::Variables<'_>) -> Result<Verify, config::Error> {
    let (args, kafka) = config::load_with_kafka::<VerifyArgs>(given, variables, |args| &args.kafka)?;
    let paint = Paint::of(&args.screen, variables, std::io::stdout().is_terminal());
    Ok(Verify { kafka, changelog: !args.no_changelog, output: args.output, paint })
}

/// Does it. Call it outside an async runtime.
pub fn run(verify: &Verify) -> ExitCode {
    let properties = verify.kafka.properties.to_map_with_secrets();
    let reader = match settings::reader(&verify.kafka.bootstrap_servers, &properties) {
        Ok(reader) => reader,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let report = match judge(verify, &reader) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let said = match verify.output {
        Output::Text => text(&report, verify.paint),
        Output::Json => serde_json::to_string_pretty(&report).expect("a report is texts and numbers") + "\n",
    };
    // A reader that has gone away wanted no more of it; the exit code still says what was found.
    drop(std::io::stdout().write_all(said.as_bytes()));
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}

fn judge(verify: &Verify, reader: &ClientConfig) -> Result<Report, Error> {
    // First: all that it says was told stands on the events topics by then.
    let told = verify.changelog.then(|| told(&verify.kafka.changelog(), reader)).transpose()?;
    // The last events of a life first: whatever came before those that are read is written by the time it is looked for.
    let mut names: Vec<String> =
        EventType::ALL.iter().rev().map(|kind| record::topic(&verify.kafka.events_topic, *kind)).collect();
    names.dedup();
    let (mut judge, shapes) = (Judge::default(), schema::Shapes::default());
    for name in &names {
        let extent = Extent::of(reader, name, "--events-topic")?;
        let topic = judge.begin(Topic {
            name: name.clone(),
            partitions: extent.partitions,
            cut: extent.cut.clone(),
            records: 0,
        });
        with_progress(extent, name, |message| {
            let mut wrong = Vec::new();
            let told = schema::read(&shapes, message.key(), message.payload(), ce_id(message), &mut wrong);
            let place = Place { topic, partition: message.partition(), offset: message.offset() };
            judge.take(place, told, wrong);
        })?;
    }
    Ok(judge.finish(told.as_ref()))
}

/// What the changelog says was told of each pod that is not forgotten yet.
fn told(topic: &str, reader: &ClientConfig) -> Result<ByUid<Tracked>, Error> {
    let (mut told, mut moved) = (ByUid::<Tracked>::default(), None);
    with_progress(
        Extent::of(reader, topic, "--changelog-topic and --generation, or leave it out by --no-changelog")?,
        topic,
        |message| match changelog::decode(message.key(), message.payload()) {
            Entry::Pod(uid, Some(tracked)) => drop(told.insert(uid, *tracked)),
            Entry::Pod(uid, None) => drop(told.remove(&uid)),
            Entry::Moved(to) => moved = Some(to),
            Entry::Identity(_) | Entry::Position(_) | Entry::Barrier(_) | Entry::Inherited(_) => {}
            Entry::Unreadable(unreadable) => drop(unreadable.pod().and_then(|uid| told.remove(&uid))),
        },
    )?;
    match moved {
        Some(moved) => Err(Error::LeftBehind { topic: topic.to_owned(), flags: moved.flags() }),
        None => Ok(told),
    }
}

fn ce_id<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    message.headers()?.iter().find(|header| header.key == "ce_id")?.value
}

/// A bar on a terminal, nothing elsewhere.
fn with_progress(extent: Extent, topic: &str, each: impl FnMut(&BorrowedMessage<'_>)) -> Result<(), Error> {
    let all = extent.left();
    let bar = ProgressBar::new(all).with_message(topic.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len}, about {eta} left") {
        bar.set_style(style);
    }
    let read = extent.read(each, |left| bar.set_position(all.saturating_sub(left)));
    bar.finish_and_clear();
    read
}

fn text(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _infallible = text.write_fmt(args);
        text.push('\n');
    };
    for topic in &report.topics {
        let cut = match topic.cut.len() {
            0 => String::new(),
            n => format!(", of {n} partitions the beginning taken by retention"),
        };
        line(format_args!("{}: {} partitions, {} records{cut}", topic.name, topic.partitions, topic.records));
    }
    line(format_args!(
        "{} events of {} pods in {} executions; {} pods have no end yet",
        report.events, report.pods, report.executions, report.open
    ));
    if report.unjudged > 0 {
        line(format_args!(
            "{} pods are not judged whole: what is missing of them may be what retention has taken",
            report.unjudged
        ));
    }
    if !report.changelog {
        line(format_args!("not compared with the changelog: what is missing at the end of a story is not noticed"));
    }
    let mut of = None;
    for finding in report.findings.iter().take(SHOWN_MAX) {
        if of.replace((&finding.execution_id, &finding.pod_uid)) != Some((&finding.execution_id, &finding.pod_uid)) {
            // Ids come from the topic: nothing in them reaches the terminal raw.
            line(format_args!(
                "\nexecution {}, pod {}",
                finding.execution_id.escape_debug(),
                finding.pod_uid.escape_debug()
            ));
        }
        let fault = paint.with(Ink::Red, &finding.fault.to_string());
        line(format_args!("  {fault}: {}", finding.what.escape_debug()));
    }
    let all: u64 = report.faults.values().sum();
    if all > SHOWN_MAX as u64 {
        line(format_args!("\n... and {} more: --output json has them", all - SHOWN_MAX as u64));
    }
    let counts: Vec<String> = report.faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
    let (ink, verdict) =
        if report.is_clean() { (Ink::Green, "all is well") } else { (Ink::Red, "the promise is broken") };
    let verdict = paint.with(ink, verdict);
    line(format_args!("\n{}: {verdict}", counts.join(", ")));
    text
}

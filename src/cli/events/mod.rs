//! `events`: the event stream for people. Events go to standard output, everything else to standard error.

mod line;
mod partition;
mod read;

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    process::ExitCode,
    time::Duration,
};

use clap::{ArgAction, Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, value::RawValue};
use tokio_util::sync::CancellationToken;

use self::{
    line::Lines,
    read::{Begin, Next, Reader, Told, Wish},
};
use super::{
    EXIT_CONFIG, EXIT_FAILED, chain,
    screen::{Paint, ScreenArgs, plain, plain_json},
    signals::Signals,
};
use crate::{
    clock,
    config::{self, Kafka, Stream, StreamArgs, duration},
    lifecycle::event::EventType,
    publish::{record, settings},
};
use tokio::runtime::Builder;

/// How long it waits at a time: what comes is shown at the latest after this, and Ctrl-C is heard.
const PATIENCE: Duration = Duration::from_millis(50);

pub(super) const EXAMPLES: &str = "\
Reads committed records only and joins no consumer group: it may be run beside a monitor, at any time, and needs the
rights to read and describe the topics. Events come in the order in which they were told. Without --follow it ends where
the topics ended when it began. Settings may also come from the variables and the file of 'run'.
What pods printed is shortened, and nothing of it reaches the terminal raw; --output json has all of it.

Examples:
  pod-monitor events --kafka kafka:9092 --from 10m
  pod-monitor events --kafka kafka:9092 --follow
  The whole story of one execution:
    pod-monitor events --kafka kafka:9092 --execution 17
  What failed today, and why:
    pod-monitor events --kafka kafka:9092 --from 24h --output json | jq 'select(.error_type) | {execution_id, cause}'

Exit codes: 0 read to the end, or asked to stop, 1 could not be read, 2 configuration.";

/// How events look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// One line an event, for people
    #[value(aliases = ["text", "table"])]
    Pretty,
    /// One JSON object a line, as it stands on the topic
    Json,
}

/// What `--follow` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    Yes,
    No,
    /// What `run` calls so, in a variable or file for it: which logs are followed. It says nothing about events.
    OfRun,
}

/// Where `--from` begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Beginning,
    End,
    At(Timestamp),
    Ago(Duration),
}

/// Flags of `events`.
#[derive(Args)]
pub struct EventsArgs {
    /// Go on with what is told from now on, until Ctrl-C
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", hide_default_value = true, value_parser = follow)]
    follow: Follow,
    /// Only events of this execution; of each topic one partition is read, the one that the monitor puts them into (as
    /// many partitions as there are now)
    #[arg(long, value_name = "ID")]
    execution: Option<String>,
    /// Where to begin: beginning, end, a time (2026-11-25T12:00:00Z), or so long ago (10m) [default: beginning; with --follow
    /// and without --execution: end]
    #[arg(long, value_name = "WHERE", value_parser = from)]
    from: Option<From>,
    /// How events look
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
    /// How it is shown
    #[command(flatten)]
    screen: ScreenArgs,
    /// YAML file of 'run': its Kafka settings are taken
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// How Kafka is reached, and where the events are
    #[command(flatten)]
    stream: StreamArgs,
}

/// What to show.
#[derive(Debug)]
pub struct Events {
    stream: Stream,
    follow: bool,
    execution: Option<String>,
    from: From,
    output: Output,
    paint: Paint,
}

fn follow(text: &str) -> Result<Follow, String> {
    match text {
        "true" => Ok(Follow::Yes),
        "false" => Ok(Follow::No),
        "deleted" | "running" => Ok(Follow::OfRun),
        _ => Err(format!("'{}' is not one of: true, false", text.escape_debug())),
    }
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "beginning" => return Ok(From::Beginning),
        "end" => return Ok(From::End),
        _ => {}
    }
    if let Ok(ago) = duration::parse(text) {
        return Ok(From::Ago(ago));
    }
    text.parse().map(From::At).map_err(|_| {
        format!(
            "'{}' is no place to begin: write beginning, end, a time as 2026-11-25T12:00:00Z, or a duration as 10m for so \
             long ago",
            text.escape_debug()
        )
    })
}

/// Reads the settings.
pub(super) fn parse(given: &clap::ArgMatches, variables: config::Variables<'_>) -> Result<Events, config::Error> {
    let typed = given.value_source("follow") == Some(clap::parser::ValueSource::CommandLine);
    let wrong = |args: &EventsArgs, at: &dyn Fn(&str) -> String| {
        if typed && args.follow == Follow::OfRun {
            let why = "takes no value here: which logs are followed is a setting of 'run'";
            return Some(format!("{}: {why}", at("follow")));
        }
        if args.from == Some(From::End) && args.follow != Follow::Yes {
            return Some(format!("{} end shows nothing by itself: add --follow", at("from")));
        }
        args.execution.as_ref().filter(|id| id.is_empty()).map(|_| format!("{}: needs an id", at("execution")))
    };
    let (args, stream) = config::load_with_stream::<EventsArgs>(given, variables, |args| &args.stream, wrong)?;
    let follow = args.follow == Follow::Yes;
    let usual = if follow && args.execution.is_none() { From::End } else { From::Beginning };
    let paint = Paint::of(&args.screen, variables, io::stdout().is_terminal());
    let from = args.from.unwrap_or(usual);
    Ok(Events { stream, follow, execution: args.execution, from, output: args.output, paint })
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Settings(#[from] settings::Error),
    #[error(transparent)]
    Read(#[from] crate::verify::read::Error),
    #[error("write to standard output")]
    Write(#[from] io::Error),
    #[error("take over SIGTERM and SIGINT")]
    Signals(#[source] io::Error),
    #[error("the reader ended unexpectedly")]
    Part(#[from] tokio::task::JoinError),
}

/// Does it. Call it outside an async runtime.
pub fn run(events: Events) -> ExitCode {
    let outcome = match super::block_on(Builder::new_current_thread(), work(events)) {
        Ok(outcome) => outcome,
        Err(code) => return code,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has gone away wanted no more of it.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::from(if matches!(error, Error::Settings(_)) { EXIT_CONFIG } else { EXIT_FAILED })
        }
    }
}

async fn work(events: Events) -> Result<(), Error> {
    let stop = CancellationToken::new();
    let signals = Signals::install().map_err(Error::Signals)?;
    let asked = stop.clone();
    let mut reading = tokio::task::spawn_blocking(move || show(&events, &asked));
    tokio::select! {
        ended = &mut reading => return ended?,
        () = signals.run(stop.clone()) => {}
        // What was read is written; what waits for a broker is not waited for.
        () = async { stop.cancelled().await; tokio::time::sleep(4 * PATIENCE).await } => {}
    }
    Ok(())
}

/// Tells every event of one execution from now on, until `stop` or nobody wants more. The first thing told is `None`: from
/// then on nothing is missed. Blocks.
pub(super) fn tail(
    kafka: &Kafka,
    execution: &str,
    stop: &CancellationToken,
    mut tell: impl FnMut(Option<Value>) -> bool,
) -> Result<(), Error> {
    let properties = kafka.properties.to_map_with_secrets();
    let config = settings::reader(&kafka.bootstrap_servers, &properties).map_err(Error::Settings)?;
    let topics = topics(&kafka.events_topic);
    let wish = Wish { topics: &topics, begin: Begin::End, key: Some(execution), follow: true };
    let mut reader = Reader::open(&config, &wish)?;
    let mut wanted = tell(None);
    while wanted && !stop.is_cancelled() {
        if let Next::Told(told) = reader.next(PATIENCE)?
            && told.key == execution.as_bytes()
            && let Ok(event) = serde_json::from_slice(&told.value)
        {
            wanted = tell(Some(event));
        }
    }
    Ok(())
}

/// The topics of this pattern, each once.
fn topics(pattern: &str) -> Vec<String> {
    let mut topics: Vec<String> = EventType::ALL.iter().map(|kind| record::topic(pattern, *kind)).collect();
    topics.dedup();
    topics
}

fn show(events: &Events, stop: &CancellationToken) -> Result<(), Error> {
    let properties = events.stream.properties.to_map_with_secrets();
    let config = settings::reader(&events.stream.bootstrap_servers, &properties)?;
    let topics = topics(&events.stream.events_topic);
    let begin = match events.from {
        From::Beginning => Begin::Beginning,
        From::End => Begin::End,
        From::At(at) => Begin::At(at),
        From::Ago(ago) => Begin::At(clock::now().checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH)),
    };
    let key = events.execution.as_deref();
    let mut reader = Reader::open(&config, &Wish { topics: &topics, begin, key, follow: events.follow })?;
    let mut out = Printer { out: BufWriter::new(io::stdout().lock()), lines: Lines::new(events.paint), events };
    let mut patience = Duration::ZERO;
    while !stop.is_cancelled() {
        match reader.next(patience)? {
            Next::Told(told) => {
                if key.is_none_or(|key| key.as_bytes() == told.key) {
                    out.tell(&told)?;
                }
                patience = Duration::ZERO;
            }
            Next::Nothing => {
                // What is there is seen before it is waited for more.
                out.out.flush()?;
                if let Some(error) = reader.trouble().filter(|_| events.follow) {
                    eprintln!("warning: {error}: trying again");
                }
                patience = PATIENCE;
            }
            Next::End => break,
        }
    }
    Ok(out.out.flush()?)
}

struct Printer<'a, W: Write> {
    out: W,
    lines: Lines,
    events: &'a Events,
}

impl<W: Write> Printer<'_, W> {
    fn tell(&mut self, told: &Told) -> io::Result<()> {
        let place = || format!("{}, partition {}, offset {}", plain(&told.topic), told.partition, told.offset);
        let object = || serde_json::from_slice::<Value>(&told.value).ok().filter(Value::is_object);
        match self.events.output {
            Output::Pretty => {
                let line = object().map(|event| self.lines.of(&event));
                writeln!(self.out, "{}", line.unwrap_or_else(|| self.lines.unreadable(&place())))
            }
            Output::Json => match json(&told.value) {
                Some(line) => writeln!(self.out, "{line}"),
                None => {
                    eprintln!("warning: {} is not a JSON object: left out", place());
                    Ok(())
                }
            },
        }
    }
}

/// A JSON object on one line that steers no terminal; `None`: it is none.
fn json(value: &[u8]) -> Option<String> {
    let raw: &RawValue = serde_json::from_slice(value).ok()?;
    let text = raw.get();
    if !text.starts_with('{') {
        return None;
    }
    // The monitor writes no line break; who else writes there might.
    let one_line = if text.contains(['\n', '\r', '\t']) {
        serde_json::from_str::<Value>(text).ok()?.to_string()
    } else {
        text.to_owned()
    };
    Some(plain_json(&one_line))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn places_to_begin_are_read_and_others_named() {
        assert_eq!(from("beginning"), Ok(From::Beginning));
        assert_eq!(from("end"), Ok(From::End));
        assert_eq!(from("10m"), Ok(From::Ago(Duration::from_secs(600))));
        assert_eq!(from("1970-01-01T00:00:01Z"), Ok(From::At(Timestamp::from_second(1).unwrap())));
        let said = from("yesterday\u{1b}").unwrap_err();
        assert!(said.contains("beginning, end") && said.contains("10m") && !said.contains('\u{1b}'), "{said}");
    }

    #[test]
    fn json_is_one_line_that_says_the_same() {
        let (value, same) =
            (r#"{"a":"x\u001b[1m\u009b","b":{"c":[1,2]}}"#, r#"{"a":"x\u001b[1m\u009b","b":{"c":[1,2]}}"#);
        assert_eq!(json(value.as_bytes()).as_deref(), Some(same));
        assert_eq!(json("{\"a\":\"\u{9b}\"}".as_bytes()).as_deref(), Some(r#"{"a":"\u009b"}"#));
        assert_eq!(json(b"{\n  \"a\": 1\n}").as_deref(), Some(r#"{"a":1}"#));
        for wrong in [&b"[1]"[..], b"{", b"", b"\xff"] {
            assert_eq!(json(wrong), None);
        }
    }
}

//! Log lines: for people on a terminal, else JSON.
//!
//! Promise: text from outside (pod names, messages, output) given as a field cannot steer the terminal that shows the
//! line, nor break a JSON line; control characters arrive escaped.

use std::{
    fmt::{self, Write as _},
    io::IsTerminal as _,
};

use tracing::{Subscriber, field::Field};
use tracing_subscriber::{
    Layer,
    field::MakeExt as _,
    fmt::{
        MakeWriter,
        format::{self, Writer},
    },
    registry::LookupSpan,
};

use crate::config::LogFormat;

/// The layer that writes log lines to `writer`. Without a format: pretty if standard error is a terminal, else JSON.
pub fn layer<S, W>(format: Option<LogFormat>, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    // NO_COLOR is how people ask for plain text (no-color.org).
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match format {
        LogFormat::Pretty => {
            // The default formatter lets control characters of `%` fields through.
            let fields = format::debug_fn(escaped_field).delimited(" ");
            tracing_subscriber::fmt::layer().with_ansi(colour).fmt_fields(fields).with_writer(writer).boxed()
        }
        LogFormat::Json => tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
    }
}

/// Writes `name=value`, the message without its name.
fn escaped_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(Escaped(writer), "{value:?}"),
        name => write!(Escaped(writer), "{name}={value:?}"),
    }
}

/// Passes text on with its control characters escaped: those that steer terminals, and line breaks, which would let
/// foreign text forge lines of its own.
struct Escaped<W>(W);

impl<W: fmt::Write> fmt::Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let clean = part.trim_end_matches(char::is_control);
            self.0.write_str(clean)?;
            for control in part[clean.len()..].chars() {
                write!(self.0, "{}", control.escape_debug())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(format: LogFormat, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(layer(Some(format), move || writer.clone()));
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().expect("no writer panics").clone();
        String::from_utf8(bytes).expect("log lines are UTF-8")
    }

    #[test]
    fn control_characters_of_foreign_text_arrive_escaped() {
        let foreign = "x\nforged\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m";
        let log = || {
            let span = tracing::info_span!("pod", name = foreign, shown = %foreign);
            let _inside = span.enter();
            tracing::warn!(message_display = %foreign, message_debug = ?foreign, text = foreign, "odd {foreign}");
        };
        for format in [LogFormat::Pretty, LogFormat::Json] {
            let text = lines(format, log);
            assert!(text.contains("owned"), "{text:?}");
            assert_eq!(text.lines().count(), 1, "{format:?} lets lines be forged: {text:?}");
            for raw in ['\u{1b}', '\u{7}', '\u{9b}'] {
                // C1 controls stand in JSON as they are, since JSON allows them; a program reads those lines.
                if format == LogFormat::Json && raw == '\u{9b}' {
                    continue;
                }
                assert!(!text.contains(raw), "{format:?} lets {raw:?} through: {text:?}");
            }
        }
    }

    #[test]
    fn json_lines_are_one_object_each() {
        let text = lines(LogFormat::Json, || tracing::info!(pod = "a\n\"b\"", "first\nline"));
        assert_eq!(text.lines().count(), 1, "{text:?}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("a JSON object");
        assert_eq!(line["pod"], "a\n\"b\"");
        assert_eq!(line["level"], "INFO");
    }
}

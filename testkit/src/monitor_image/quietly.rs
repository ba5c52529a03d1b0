//! A long step that says much: everything goes to a log, the last line to a terminal, and the end of the log to whoever
//! has to mend a failure.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::stack::process::log_tail;

/// Characters of a line that fit beside the spinner.
const LINE_CHARS_MAX: usize = 100;
/// Lines of the log that are shown after a failure.
const LINES_SHOWN: usize = 60;

/// Runs it to its end; `what` it does is shown meanwhile. Fails when it does, with the end of its log.
pub(super) fn run(mut command: Command, what: &str, log: &Path) -> Result<()> {
    let (said, speaker) = std::io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(speaker.try_clone()?).stderr(speaker);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("run {program}"))?;
    // It holds our end of the pipe open.
    drop(command);
    let spinner = spinner(what);
    let mut file = File::create(log).with_context(|| format!("write {}", log.display()))?;
    for line in BufReader::new(said).split(b'\n') {
        let line = line.with_context(|| format!("read what {program} says"))?;
        file.write_all(&line).and_then(|()| file.write_all(b"\n")).context("write the log")?;
        let shown: String = String::from_utf8_lossy(&line).trim().chars().take(LINE_CHARS_MAX).collect();
        spinner.set_message(format!("{what}: {shown}"));
    }
    let status = child.wait().with_context(|| format!("wait for {program}"))?;
    spinner.finish_and_clear();
    anyhow::ensure!(
        status.success(),
        "{what}: {program} ended with {status}; the end of {}:\n{}",
        log.display(),
        log_tail(log, LINES_SHOWN)
    );
    Ok(())
}

/// On a terminal; elsewhere one line says what begins.
fn spinner(what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("{what} ...");
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_said_is_in_the_log_and_a_failure_shows_its_end() {
        let log = std::env::temp_dir().join(format!("testkit-quietly-{}.log", std::process::id()));
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        run(shell("echo out; echo err >&2"), "speaking", &log).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "out\nerr\n");
        let error = run(shell("echo why; exit 3"), "failing", &log).unwrap_err().to_string();
        assert!(error.contains("failing: sh ended with exit status: 3") && error.contains("why"), "{error}");
        std::fs::remove_file(log).unwrap();
    }
}

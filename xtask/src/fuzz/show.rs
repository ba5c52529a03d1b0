//! How the fuzzers show how far they are: a bar each on a terminal, a line now and then elsewhere. On standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::status::Status;

/// Between two lines of one target, where there is no terminal.
const LINES_APART: Duration = Duration::from_secs(30);

/// All targets of a run.
pub(super) struct Show {
    bars: Option<MultiProgress>,
    time: Duration,
}

/// One target that runs.
pub(super) struct Shown {
    target: &'static str,
    bar: Option<ProgressBar>,
    time: Duration,
    began: Instant,
    said: Instant,
}

impl Show {
    pub(super) fn new(time: Duration) -> Self {
        Self { bars: std::io::stderr().is_terminal().then(MultiProgress::new), time }
    }

    /// A target begins.
    pub(super) fn begin(&self, target: &'static str) -> Shown {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(self.time.as_secs()));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:9} {bar:16} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(target);
            bar
        });
        let now = Instant::now();
        Shown { target, bar, time: self.time, began: now, said: now }
    }
}

impl Shown {
    /// It is that far.
    pub(super) fn update(&mut self, status: &Status) {
        let elapsed = self.began.elapsed();
        let left = self.time.saturating_sub(elapsed).as_secs();
        let line = format!("{status}, {}:{:02} left", left / 60, left % 60);
        match &self.bar {
            Some(bar) => {
                bar.set_position(elapsed.as_secs().min(self.time.as_secs()));
                bar.set_message(line);
                bar.tick();
            }
            None if self.said.elapsed() >= LINES_APART => {
                self.said = Instant::now();
                eprintln!("{:9} {line}", self.target);
            }
            None => {}
        }
    }

    /// Something else is done for it.
    pub(super) fn say(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => eprintln!("{:9} {what}", self.target),
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

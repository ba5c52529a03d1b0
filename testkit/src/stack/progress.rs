//! How a long build shows where it is: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows the parts of a build as they begin and end.
pub struct Progress {
    spinner: Option<ProgressBar>,
    started: Instant,
    part: Option<(String, Instant)>,
}

impl Progress {
    /// On standard error.
    pub fn new() -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { spinner, started: Instant::now(), part: None }
    }

    /// A part begins; the one before is done.
    pub(crate) fn begin(&mut self, part: &str) {
        self.end_part();
        self.part = Some((part.to_owned(), Instant::now()));
        match &self.spinner {
            Some(bar) => {
                bar.reset_elapsed();
                bar.set_message(format!("building {part}"));
            }
            None => eprintln!("building {part} ..."),
        }
    }

    /// All parts are done.
    pub(crate) fn finish(mut self) {
        self.end_part();
        self.line(&format!("the stack is built ({:.0} s)", self.started.elapsed().as_secs_f64()));
        if let Some(bar) = &self.spinner {
            bar.finish_and_clear();
        }
    }

    fn end_part(&mut self) {
        if let Some((part, began)) = self.part.take() {
            self.line(&format!("built {part} ({:.0} s)", began.elapsed().as_secs_f64()));
        }
    }

    fn line(&self, text: &str) {
        match &self.spinner {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

//! How far the stories are: a bar on a terminal, one plain line per story elsewhere. On standard error.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Names of samples that fit beside the bar.
const NAMES_MAX: usize = 3;

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    waiting: Vec<&'static str>,
    began: Instant,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:24} {pos}/{len} stories told  {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("{total} executions created");
        }
        Self { bar, total, waiting: Vec::new(), began: Instant::now() }
    }

    /// Shows for which samples events are still to come.
    pub(super) fn show(&mut self, waiting: &[&'static str]) {
        let done = self.total - waiting.len();
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            let more = if waiting.len() > NAMES_MAX { ", ..." } else { "" };
            let names = waiting[..waiting.len().min(NAMES_MAX)].join(", ");
            bar.set_message(if names.is_empty() { names } else { format!("waiting for {names}{more}") });
        } else if waiting != self.waiting && done > 0 {
            eprintln!("{done}/{} stories told ({:.1} s)", self.total, self.began.elapsed().as_secs_f64());
        }
        self.waiting = waiting.to_vec();
    }

    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

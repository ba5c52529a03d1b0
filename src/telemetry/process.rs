//! What the system says of this process, under the names that Prometheus' own clients have for it (`process_*`), so that
//! panels made for any program show this one, too. Read at each scrape.

use std::fmt;

use procfs::{
    WithCurrentSystemInfo as _,
    process::{LimitValue, Process},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// The registry of these metrics. Theirs is the prefix `process`, not that of the monitor's own.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::with_prefix("process");
    registry.register_collector(Box::new(OwnProcess));
    registry
}

#[derive(Debug)]
struct OwnProcess;

impl Collector for OwnProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // What cannot be read is left out: the rest of the text is what matters.
        let Ok(process) = Process::myself() else { return Ok(()) };
        let mut say = |name: &str, help: &str, value: &dyn EncodeMetric| {
            value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
        };
        if let Ok(stat) = process.stat() {
            let ticks = procfs::ticks_per_second() as f64;
            let used = (stat.utime + stat.stime) as f64 / ticks;
            say("cpu_seconds", "Processor time of this process", &ConstCounter::new(used))?;
            say("resident_memory_bytes", "Memory of this process", &ConstGauge::new(stat.rss_bytes().get()))?;
            if let Ok(booted) = procfs::boot_time_secs() {
                let began = booted as f64 + stat.starttime as f64 / ticks;
                say("start_time_seconds", "When this process began, since 1970", &ConstGauge::new(began))?;
            }
        }
        if let Ok(open) = process.fd_count() {
            say("open_fds", "Open files and connections of this process", &ConstGauge::new(open as u64))?;
        }
        if let Ok(LimitValue::Value(limit)) = process.limits().map(|limits| limits.max_open_files.soft_limit) {
            say("max_fds", "How many of them it may have", &ConstGauge::new(limit))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    #[test]
    fn what_is_told_is_this_process() {
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry()).expect("it can be written");
            text
        };
        let (files, before) = (|| value(&text(), "process_open_fds"), text());
        assert!(value(&before, "process_resident_memory_bytes") > 1e6, "{before}");
        let now = crate::clock::now().as_second() as f64;
        let age = now - value(&before, "process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "begun {age} s ago: {before}");
        // Other tests open and close files meanwhile, but not as many at each try.
        let is_counted = || {
            let before = files();
            let _opened: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").expect("it opens")).collect();
            files() >= before + 200.0
        };
        assert!((0..100).any(|_| is_counted()), "{before}");
        assert!(value(&before, "process_max_fds") >= value(&before, "process_open_fds"), "{before}");
        let (used, mut spun) = (value(&before, "process_cpu_seconds_total"), 0_u64);
        while value(&text(), "process_cpu_seconds_total") < used + 0.05 {
            (0..100_000_u64).for_each(|n| spun = std::hint::black_box(spun ^ n));
        }
    }
}

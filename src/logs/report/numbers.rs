//! The numbers of a report. Negative, infinite, overflowing or unreadable ones are absent: claims, never errors.

use crate::lifecycle::event::ResourceUsage;

/// Exit code and usage out of the `key=value` lines of a termination message. The last line of a key counts.
pub(super) fn from_termination_message(message: &str) -> (Option<i64>, Option<ResourceUsage>) {
    let mut exit_code = None;
    let mut usage = ResourceUsage::default();
    for (key, value) in message.lines().filter_map(|line| line.split_once('=')) {
        let value = value.trim();
        match key.trim() {
            "exit_code" => exit_code = count(value).and_then(|code| i64::try_from(code).ok()),
            "cpu_jiffies" => usage.cpu_time_jiffies = count(value),
            "clk_tck" => usage.clk_tck_hertz = count(value),
            "peak_memory_kb" => usage.peak_memory_kb = count(value),
            "wall_seconds" => usage.execution_time_wall_seconds = value.parse().ok().and_then(seconds),
            _ => {}
        }
    }
    (exit_code, some(usage))
}

/// Usage with at least one number.
pub(super) fn some(usage: ResourceUsage) -> Option<ResourceUsage> {
    (usage != ResourceUsage::default()).then_some(usage)
}

/// A time span in seconds that JSON can hold and that passed forwards. -0 is 0.
pub(super) fn seconds(number: f64) -> Option<f64> {
    (number.is_finite() && number >= 0.0).then_some(number.abs())
}

fn count(value: &str) -> Option<u64> {
    // Stricter than `parse`, which takes "+5".
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

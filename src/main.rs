//! pod-monitor.
fn main() {}

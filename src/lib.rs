//! pod-monitor.

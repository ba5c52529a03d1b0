//! The OpenTelemetry Collector that tests send to, built once into the cache from its Go modules.

use std::path::PathBuf;

use anyhow::Result;

use super::tool::Tool;

/// Name and text of each file.
const SOURCES: [(&str, &str); 3] = [
    ("main.go", include_str!("../../collector/main.go")),
    ("go.mod", include_str!("../../collector/go.mod")),
    ("go.sum", include_str!("../../collector/go.sum")),
];

/// A collector with an OTLP receiver and a file exporter.
///
/// # Errors
/// When Go cannot build it.
pub fn program() -> Result<PathBuf> {
    Tool { folder: "collector", name: "collector", package: ".", ld_flags: "", sources: &SOURCES }.ensure()
}

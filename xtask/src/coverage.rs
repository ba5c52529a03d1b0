//! Compiling with coverage for the fuzzer: cargo calls this program in rustc's place for the workspace's own packages.
//!
//! Only pod-monitor and the fuzzer get the flags. Their dependencies are those of every other build and are not compiled again, and
//! what cargo makes through a wrapper lies beside what it makes without.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context, Result};

/// Set where this program stands in for rustc.
const VARIABLE: &str = "POD_MONITOR_COVERAGE";
/// As rustc gets it. Its generic code is compiled in the fuzzer.
const CRATE: &str = "pod_monitor";
const FUZZER: &str = "libfuzzer";

/// What libFuzzer needs to see where an input leads: which edges it took, and what was compared with what.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Counters of one crate stand in one object.
    "-Ccodegen-units=1",
];

/// Has a cargo command compile with coverage.
pub(crate) fn apply(cargo: &mut Command) -> Result<()> {
    let ours = std::env::current_exe().context("find this program")?;
    cargo.env("RUSTC_WORKSPACE_WRAPPER", ours).env(VARIABLE, "1");
    Ok(())
}

/// Becomes rustc, where cargo calls for it; else comes back.
pub(crate) fn stand_in() -> Result<()> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(());
    }
    let mut arguments = std::env::args_os().skip(1);
    let rustc = arguments.next().context("cargo names the compiler")?;
    let arguments: Vec<OsString> = arguments.collect();
    let mut command = Command::new(rustc);
    command.args(&arguments);
    if is_covered(&arguments) {
        command.args(FLAGS);
    }
    Err(command.exec()).context("run rustc")
}

/// Whether this is linked with the fuzzer, which the counters need: pod-monitor's program and its tests are not.
fn is_covered(arguments: &[OsString]) -> bool {
    let pair = |key: &str, value: &str| arguments.windows(2).any(|two| two[0] == key && two[1] == value);
    pair("--crate-name", FUZZER) || (pair("--crate-name", CRATE) && pair("--crate-type", "lib"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_fuzzed_is_compiled_with_coverage() {
        let given = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        for ours in [
            "--crate-name pod_monitor --edition=2024 src/lib.rs --crate-type lib --emit=link",
            "--crate-name libfuzzer --edition=2024 fuzz/tests/libfuzzer.rs --emit=link",
        ] {
            assert!(is_covered(&given(ours)), "{ours}");
        }
        for other in [
            "--crate-name pod_monitor --edition=2024 src/main.rs --crate-type bin",
            "--crate-name pod_monitor --edition=2024 src/lib.rs --test",
            "--crate-name testkit --edition=2024 src/lib.rs --crate-type lib",
            "-vV",
        ] {
            assert!(!is_covered(&given(other)), "{other}");
        }
    }
}

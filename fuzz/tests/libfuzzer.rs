//! What `cargo xtask fuzz` runs: libFuzzer's `main` around one target, which the environment names.
//!
//! Reads FUZZ_TARGET; FUZZ_SEEDS: a directory into which the target's seeds are written before the corpus is read;
//! FUZZ_MINIMISE: a file that is to be made smaller, beside which the smaller one is written, and nothing else is done.
#![no_main]
#![allow(unsafe_code, reason = "libFuzzer calls by C symbols, which the two macros export")]
#![allow(clippy::unwrap_used, reason = "a fuzzer may stop at the first surprise")]

mod targets;

use std::{fs, sync::OnceLock};

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use targets::{Target, minimise, mutate};

static TARGET: OnceLock<Target> = OnceLock::new();

fn target() -> Target {
    *TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        Target::named(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} names no target"))
    })
}

fn begin() {
    if let Some(file) = std::env::var_os("FUZZ_MINIMISE") {
        let smaller = minimise::minimise(target(), &fs::read(&file).unwrap());
        fs::write(std::path::Path::new(&file).with_extension("min"), smaller).unwrap();
        std::process::exit(0);
    }
    let Some(folder) = std::env::var_os("FUZZ_SEEDS") else { return };
    for (n, seed) in target().seeds().into_iter().enumerate() {
        fs::write(std::path::Path::new(&folder).join(format!("seed-{n:03}")), seed).unwrap();
    }
}

fuzz_target!(init: begin(), |data: &[u8]| {
    target().run(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // By bytes as often as by values: what is no JSON at all must be met as well.
    if seed.is_multiple_of(2) {
        return fuzzer_mutate(data, size, max_size);
    }
    match mutate::values(&data[..size], max_size, seed) {
        Some(mutated) => {
            data[..mutated.len()].copy_from_slice(&mutated);
            mutated.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

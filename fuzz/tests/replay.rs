//! The fuzz targets without a fuzzer: over their seeds, over inputs that once broke them, and over small changes of both.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod targets;

use std::{fs, path::Path};

use targets::{Target, mutate};

/// Regressions are read by people too.
const REGRESSION_BYTES_MAX: usize = 16 << 10;
/// Mutations that each seed goes through.
const ROUNDS: u32 = 3;

fn seeds_hold(target: Target) {
    let seeds = target.seeds();
    assert!(seeds.len() >= 5, "{} has {} seeds", target.name(), seeds.len());
    for seed in seeds {
        target.run(&seed);
        for round in 0..ROUNDS {
            if let Some(mutated) = mutate::values(&seed, seed.len() + 1000, round) {
                assert!(mutated.len() <= seed.len() + 1000);
                target.run(&mutated);
            }
        }
        for cut in [seed.len() / 3, seed.len().saturating_sub(1)] {
            target.run(&seed[..cut]);
        }
    }
}

#[test]
fn statuses_keep_their_promises() {
    seeds_hold(Target::Statuses);
}

#[test]
fn logs_keep_their_promises() {
    seeds_hold(Target::Logs);
}

#[test]
fn reports_keep_their_promises() {
    seeds_hold(Target::Reports);
}

#[test]
fn rules_keep_their_promises() {
    seeds_hold(Target::Rules);
}

#[test]
fn changelog_keeps_its_promises() {
    seeds_hold(Target::Changelog);
}

/// fuzz/regressions/TARGET/*: what `cargo xtask fuzz` found, after it was mended.
#[test]
fn what_once_broke_holds_now() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for entry in fs::read_dir(&folder).unwrap() {
        let of_target = entry.unwrap().path();
        let name = of_target.file_name().unwrap().to_string_lossy().into_owned();
        let target = Target::named(&name).unwrap_or_else(|| panic!("regressions/{name} is of no target"));
        for file in fs::read_dir(&of_target).unwrap() {
            let file = file.unwrap().path();
            let input = fs::read(&file).unwrap();
            assert!(
                input.len() <= REGRESSION_BYTES_MAX,
                "{} has {} bytes: make it smaller",
                file.display(),
                input.len()
            );
            println!("{}", file.display());
            target.run(&input);
        }
    }
    for target in Target::ALL {
        assert_eq!(Target::named(target.name()), Some(target));
        target.run(b"");
    }
}

//! A hundred leaders killed, and every kind of fault that chaos/ knows: nothing is lost, doubled or out of order.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{path::Path, time::Duration};

use chaos::{Kind, Plan, html, report};
use clap::ValueEnum as _;
use testkit::clients::fault::Random;

const KILLS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_killed_leaders_lose_nothing_and_double_nothing() {
    let plan = Plan {
        monitor: env!("CARGO_BIN_EXE_pod-monitor").into(),
        kinds: Kind::value_variants().to_vec(),
        lasts: Duration::ZERO,
        kills: KILLS,
        every: Duration::from_millis(300),
        pods_at_once: 6,
        seed: Random::from_variable("CHAOS_SEED").unwrap().number(),
    };
    let outcome = chaos::run(&plan).await.unwrap();
    println!("{}", report::text(&outcome));
    let page = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos.html");
    std::fs::write(&page, html::page(&outcome, "cargo xtask test --suite chaos")).unwrap();
    println!("The timeline: {}", page.display());
    assert!(outcome.kills >= KILLS, "only {} leaders were killed", outcome.kills);
    assert!(outcome.is_good(), "{}", report::headline(&outcome));
}

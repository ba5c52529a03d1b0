//! What an open page shows while leaders die.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testkit::clients::{browser::Browser, until};

use crate::crew::{Crew, LIMIT, shows};

/// From the moment when the Lease names another holder until the page does.
const SHOWN_MAX: Duration = Duration::from_secs(2);

/// Kills the leader and waits until the page of a standby that is open shows the new one; gives how long that took since
/// the Lease changed, and who leads now.
async fn kill(crew: &mut Crew, browser: &mut Browser, leader: usize, old: &str) -> Result<(Duration, String)> {
    crew.running[leader].take().unwrap().kill()?;
    let killed = Instant::now();
    let look = async || Ok(Some(crew.holder().await?).filter(|holder| !holder.is_empty() && holder != old));
    let new = until(LIMIT, "another holds the Lease", look).await?;
    let changed = Instant::now();
    shows(browser, "#s0", &[&new], LIMIT).await?;
    let took = changed.elapsed();
    println!("killed, changed hands after {:?}, shown {took:?} later", changed - killed);
    Ok((took, new))
}

#[tokio::test]
async fn the_row_of_a_shard_shows_its_new_holder_within_two_seconds() -> Result<()> {
    let mut crew = Crew::start("kill").await?;
    let (leader, old) = crew.leader().await?;
    let watched = crew.standby(leader, None);
    let mut browser = crew.browser()?;
    browser.goto(&crew.page(watched))?;
    shows(&mut browser, "#link", &["Live"], LIMIT).await?;
    let row = shows(&mut browser, "#s0", &[&old], LIMIT).await?;
    ensure!(row.contains("standby") && !row.contains("nobody"), "{row}");

    let (took, new) = kill(&mut crew, &mut browser, leader, &old).await?;
    ensure!(took < SHOWN_MAX, "shown only after {took:?}");
    let (now, _) = crew.leader().await?;
    let role = if now == watched { "live" } else { "standby" };
    shows(&mut browser, "#s0", &[&new, role], SHOWN_MAX).await?;
    shows(&mut browser, "#word", &["Good"], LIMIT).await?;
    shows(&mut browser, "#hand-overs", &["shard 0 to", &new], SHOWN_MAX).await?;

    // Its legs are on the page of the one that took over, and the same in the JSON.
    browser.goto(&crew.page(now))?;
    shows(&mut browser, "#hand-overs", &["the one before died", "gap"], LIMIT).await?;
    let drawn = browser.evaluate("document.querySelectorAll('#hand-overs svg path').length")?;
    ensure!(drawn.as_u64() >= Some(3), "{drawn} parts are drawn");
    let status = crew.status(now)?;
    let newest = &status["shards"][0]["hand_overs"][0];
    ensure!(newest["why"] == "dead" && newest["from"] == old.as_str() && newest["holder"] == new.as_str(), "{newest}");
    let gap = newest["gap_ms"].as_f64().unwrap_or_default();
    ensure!(gap > 0.0 && newest["legs"].as_array().is_some_and(|legs| legs.len() == 7), "{newest}");
    crew.close(browser).await
}

#[tokio::test]
async fn a_page_whose_replica_dies_says_since_when_and_is_live_again_with_it() -> Result<()> {
    let mut crew = Crew::start("lost").await?;
    let (leader, _) = crew.leader().await?;
    let mut browser = crew.browser()?;
    browser.goto(&crew.page(leader))?;
    shows(&mut browser, "#link", &["Live"], LIMIT).await?;
    crew.running[leader].take().unwrap().kill()?;
    let said = shows(&mut browser, "#link", &["Connection lost, last seen", "UTC"], Duration::from_secs(5)).await?;
    ensure!(said.contains("out of date"), "{said}");
    ensure!(browser.text("#s0")?.contains("live"), "what was known last still stands there");
    // As its container would be: at the same address, as somebody else.
    crew.running[leader] = Some(crew.launches[leader].start()?);
    shows(&mut browser, "#link", &["Live"], LIMIT).await?;
    let (_, holder) = crew.leader().await?;
    shows(&mut browser, "#s0", &[&holder], LIMIT).await?;
    // While it was away, the browser told of refused connections: nothing else.
    let refused =
        |complaint: &String| complaint.contains("ERR_CONNECTION_REFUSED") || complaint.contains("ERR_INCOMPLETE");
    let others: Vec<String> = browser.complaints().into_iter().filter(|complaint| !refused(complaint)).collect();
    ensure!(others.is_empty(), "{others:#?}");
    drop(browser);
    for monitor in crew.running.into_iter().flatten() {
        monitor.stop(LIMIT).await?;
    }
    crew.cluster.remove_namespace().await
}

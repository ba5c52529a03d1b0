//! The page read without scripts, by keyboard, in the dark and on a phone.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::clients::browser::Browser;

use crate::crew::{Crew, LIMIT, shows};

/// What WCAG asks of text of any size.
const CONTRAST_MIN: f64 = 4.5;
/// Tabs that lead through the whole page at most.
const TABS_MAX: usize = 40;

/// The text with the least contrast to what is behind it, as [contrast, text].
const CONTRAST: &str = r#"(() => {
  const parse = color => color.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const part = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let least = [99, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const element = node.parentElement;
    if (!node.data.trim() || ["SCRIPT", "NOSCRIPT"].includes(element.tagName)) continue;
    const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < least[0]) least = [contrast, node.data.trim()];
  }
  return least;
})()"#;

async fn with_ends(crew: &Crew) -> Result<usize> {
    let (leader, _) = crew.leader().await?;
    crew.execute("good", "true").await?;
    crew.execute("bad", "exit 3").await?;
    Ok(leader)
}

#[tokio::test]
async fn without_scripts_everything_is_there_and_the_page_renews_itself() -> Result<()> {
    let crew = Crew::start("plain").await?;
    let leader = with_ends(&crew).await?;
    let mut browser = crew.browser()?;
    browser.scripts(false)?;
    browser.goto(&crew.page(leader))?;
    // Nobody opens it again but the page itself.
    shows(&mut browser, "#executions", &["completed", "failed", "exit_code", "good", "exec-bad"], LIMIT).await?;
    let (_, holder) = crew.leader().await?;
    let said = [
        ("#word", "The shard is led by this replica."),
        ("#s0", holder.as_str()),
        ("#hand-overs", "gap"),
        ("#replicas", holder.as_str()),
        ("#checks", "checks are ok"),
        ("#link", "without JavaScript"),
        (".about", "version"),
    ];
    for (selector, words) in said {
        shows(&mut browser, selector, &[words], LIMIT).await?;
    }
    let opened = browser.requested().iter().filter(|url| **url == crew.page(leader)).count();
    ensure!(opened >= 2, "it was loaded {opened} times");
    ensure!(!browser.requested().iter().any(|url| url.ends_with("api/live")), "no script ran");
    crew.close(browser).await
}

/// What has the focus: the id of it or of the nearest element around it that has one.
fn focus(browser: &mut Browser) -> Result<String> {
    let found = "((e) => e.tagName + ' ' + (e.id || (e.closest('[id]') || {}).id || ''))(document.activeElement)";
    Ok(browser.evaluate(found)?.as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn by_keyboard_everything_is_reached_and_stays_where_it_is_while_the_page_changes() -> Result<()> {
    let crew = Crew::start("keys").await?;
    let leader = with_ends(&crew).await?;
    let mut browser = crew.browser()?;
    browser.look(1000, 800, "light")?;
    browser.goto(&crew.page(leader))?;
    shows(&mut browser, "#executions", &["good", "bad"], LIMIT).await?;
    browser.press("Tab")?;
    ensure!(browser.text(":focus")? == "Skip to the shards", "the first stop: {}", focus(&mut browser)?);
    let mut stops = Vec::new();
    while stops.len() < TABS_MAX && !stops.iter().any(|stop: &String| stop.starts_with("SUMMARY h0-")) {
        browser.press("Tab")?;
        stops.push(focus(&mut browser)?);
    }
    ensure!(stops.iter().any(|stop| stop.starts_with("DIV shards-table")), "the table scrolls by keyboard: {stops:?}");
    let stop = stops.last().unwrap().clone();
    ensure!(stop.starts_with("SUMMARY h0-"), "{stops:?}");
    let outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle")?;
    ensure!(outline == "solid", "the focus is seen: {outline}");
    browser.press("Enter")?;
    ensure!(browser.text("#hand-overs details[open]")?.contains("first commit"), "it is open");
    browser.evaluate("getSelection().selectAllChildren(document.querySelector('#s0 .name')), 0")?;

    crew.execute("later", "exit 4").await?;
    shows(&mut browser, "#executions", &["later"], LIMIT).await?;
    ensure!(focus(&mut browser)? == stop, "focus went to {}", focus(&mut browser)?);
    ensure!(browser.text("#hand-overs details[open]")?.contains("first commit"), "it is still open");
    let (_, holder) = crew.leader().await?;
    let selected = browser.evaluate("getSelection().toString()")?;
    ensure!(selected.as_str().is_some_and(|text| text.contains(&holder)), "selected: {selected}");
    for _ in 0..TABS_MAX {
        browser.press("Tab")?;
        stops.push(focus(&mut browser)?);
    }
    // The same in a part that is itself drawn anew.
    browser.evaluate("document.querySelector('#executions-table').focus()")?;
    crew.execute("last", "exit 5").await?;
    shows(&mut browser, "#executions", &["exec-last"], LIMIT).await?;
    ensure!(focus(&mut browser)? == "DIV executions-table", "focus went to {}", focus(&mut browser)?);
    let links = browser.evaluate("[...document.querySelectorAll('footer a')].length")?;
    let reached = stops.iter().filter(|stop| stop.starts_with("A ")).count() as u64;
    ensure!(links.as_u64() == Some(4) && reached >= 4, "{stops:?}");
    crew.close(browser).await
}

#[tokio::test]
async fn light_and_dark_differ_and_both_can_be_read_on_a_phone_too() -> Result<()> {
    let crew = Crew::start("looks").await?;
    let leader = with_ends(&crew).await?;
    let mut browser = crew.browser()?;
    let mut backs = Vec::new();
    for (width, scheme) in [(1100, "light"), (1100, "dark"), (360, "light"), (360, "dark")] {
        browser.look(width, 800, scheme)?;
        browser.goto(&crew.page(leader))?;
        shows(&mut browser, "#executions", &["good", "bad"], LIMIT).await?;
        browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")?;
        let least = browser.evaluate(CONTRAST)?;
        println!("{scheme}, {width} px: least contrast {least}");
        ensure!(least[0].as_f64() >= Some(CONTRAST_MIN), "{scheme}: {least}");
        let wide = browser.evaluate("document.documentElement.scrollWidth")?;
        ensure!(wide.as_u64() <= Some(u64::from(width)), "{wide} px wide on a screen of {width}");
        backs.push(browser.evaluate("getComputedStyle(document.body).backgroundColor")?);
    }
    ensure!(backs[0] != backs[1] && backs[0] == backs[2] && backs[1] == backs[3], "{backs:?}");
    // Whoever is told so by colours is told so in words, too.
    let verdicts =
        browser.evaluate("[...document.querySelectorAll('#executions td:nth-child(2)')].map(d => d.innerText)")?;
    let said = verdicts.to_string();
    ensure!(said.contains("\u{2713} completed") && said.contains("\u{2717} failed"), "{said}");
    let captions = browser.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption && [...t.querySelectorAll('th')].every(h => h.scope))",
    )?;
    ensure!(captions == true, "every table has a caption, every head a scope");
    shows(&mut browser, "#verdict[aria-live=polite]", &["Good"], Duration::from_secs(5)).await?;
    crew.close(browser).await
}

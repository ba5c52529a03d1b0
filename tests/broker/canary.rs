//! Secrets appear nowhere: canaries are planted in every place where one may stand, everything is told that can be, and
//! then they are looked for.

use std::{
    process::{Command, Output},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use testkit::clients::{
    access::{Operation, Resource, Right},
    monitor::{Launch, Monitor},
};

use crate::{
    bench::{Bench, LIMIT},
    rotation::{LET_IN, said},
    secure::{Guarded, Way, text, topics_of},
    security::{another, process},
};

/// Everything that this monitor tells, its log included.
fn everything(monitor: &Monitor) -> Result<String> {
    let mut all = String::new();
    for path in ["/api/status", "/metrics", "/readyz?verbose", "/livez?verbose", "/"] {
        all += &monitor.get(path)?.1;
    }
    Ok(all + &text(&monitor.log))
}

/// None of the canaries is in what is told, and what must be there is: else nothing was looked at.
fn silent(told: &str, user: &str, canaries: &[&str]) -> Result<()> {
    let lines = told.lines().filter(|line| line.contains("\"message\":\"librdkafka\"")).count();
    ensure!(lines > 200, "librdkafka told only {lines} lines");
    ensure!(told.contains(user) && told.contains("effective configuration"), "{user} is not told");
    for canary in canaries {
        let found = told.lines().find(|line| line.contains(canary));
        ensure!(found.is_none(), "a secret is told: {}", found.unwrap_or_default());
    }
    Ok(())
}

/// [`crate::secure::Guarded::launch`] gives them last.
fn without_properties(launch: &mut Launch) {
    let first = launch.arguments.iter().position(|argument| argument == "--kafka-config");
    launch.arguments.truncate(first.unwrap_or(launch.arguments.len()));
}

/// What `verify` says with a monitor's Kafka settings, and whether it found all well.
fn verified(launch: &Launch) -> Result<(bool, String)> {
    let mut command = Command::new(&launch.program);
    command.arg("verify").envs(launch.variables.iter().map(|(key, value)| (key, value)));
    for pair in launch.arguments.windows(2).filter(|pair| pair[0].starts_with("--kafka") || pair[0].ends_with("-topic"))
    {
        command.args(pair);
    }
    let Output { status, stdout, stderr } = command.output().context("run verify")?;
    Ok((status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()))
}

/// `verify` works by these settings, fails by worse ones, and tells none of the canaries either way.
fn verify_is_silent(
    bench: &Bench,
    guarded: &Guarded,
    launch: &Launch,
    worse: &[(&str, &str)],
    canaries: &[&str],
) -> Result<()> {
    // Beside what the monitor needs, as docs/kafka.md says.
    let right = Right::new(Operation::Read, Resource::Topic, &topics_of(&bench.app).0);
    guarded.access().allow(&guarded.user, &[right])?;
    // The right is there a moment later.
    let (started, mut last) = (Instant::now(), verified(launch)?);
    while !last.0 && started.elapsed() < LIMIT {
        last = verified(launch)?;
    }
    let (well, mut told) = last;
    ensure!(well && told.contains("all is well"), "verify: {told}");
    for (property, named) in worse {
        let (well, said) = verified(&launch.clone().with(&["--kafka-config", property]))?;
        ensure!(!well && said.starts_with("error: ") && said.contains(named), "verify: {said}");
        told += &said;
    }
    let found = told.lines().find(|line| canaries.iter().any(|canary| line.contains(canary)));
    ensure!(found.is_none(), "verify tells a secret: {}", found.unwrap_or_default());
    Ok(())
}

/// Help is the same whatever stands in the variables.
fn help_is_silent(launch: &Launch, canary: &str) -> Result<()> {
    for name in ["run", "verify"] {
        let mut command = Command::new(&launch.program);
        command.args([name, "--help"]).envs(launch.variables.iter().map(|(key, value)| (key, value)));
        let said = String::from_utf8(command.output()?.stdout)?;
        ensure!(said.contains("POD_MONITOR_KAFKA_CONFIG") && !said.contains(canary), "{name} --help: {said}");
    }
    Ok(())
}

async fn works(bench: &Bench, monitor: &mut Monitor, id: &str) -> Result<()> {
    monitor.leading(LIMIT).await?;
    bench.flush(&mut bench.history()?, id).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_told_at_any_level() -> Result<()> {
    let (bench, mut guarded) = process("canary", Way::Password).await?;
    let base = guarded.launch(&bench.launch).set("--log-level", "trace");
    // In a file of its own; then in a variable, as it stands.
    let (first, second) = ("canary-aviary-first", "canary-aviary-second");
    guarded.access().set_password(&guarded.user, first)?;
    guarded.mount_password(first);
    let mut monitor = another(base.clone().with(&["--kafka-config", "debug=all"]), "file")?.start()?;
    works(&bench, &mut monitor, "a").await?;
    guarded.access().set_password(&guarded.user, second)?;
    guarded.mount_password(second);
    said(&monitor.log, LET_IN, 0).await?;
    monitor.leading(LIMIT).await?;
    silent(&everything(&monitor)?, &guarded.user, &[first, second])?;
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");

    let inline: Vec<String> = guarded.properties().into_iter().filter(|entry| !entry.contains("password")).collect();
    let variable = format!("{}\nsasl.password={second}\ndebug=all\n", inline.join("\n"));
    let mut launch = another(base, "variable")?.variable("POD_MONITOR_KAFKA_CONFIG", &variable);
    without_properties(&mut launch);
    let mut monitor = launch.start()?;
    works(&bench, &mut monitor, "b").await?;
    silent(&everything(&monitor)?, &guarded.user, &[first, second])?;
    help_is_silent(&launch, second)?;
    let wrong = "sasl.password=canary-aviary-wrong";
    let worse =
        [(wrong, "topic"), ("sasl.passwort=canary-aviary-typo", "sasl.passwort"), ("acks=canary-aviary", "acks")];
    // A flag is asked before the variable, so that with one all have to be given.
    let flags: Vec<&str> = inline.iter().flat_map(|entry| ["--kafka-config", entry.as_str()]).collect();
    let mounted = format!("sasl.password=@{}", guarded.mount.path("password"));
    let by_flags = launch.with(&flags).with(&["--kafka-config", &mounted, "--kafka-config", "debug=all"]);
    verify_is_silent(&bench, &guarded, &by_flags, &worse, &["canary-aviary"])?;
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_told_at_any_level() -> Result<()> {
    let (bench, mut guarded) = process("canary-key", Way::Certificate).await?;
    let issued = guarded.authority().issue(&guarded.user, &[])?;
    let lock = "canary-aviary-lock";
    let sealed = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", &format!("pass:{lock}"), "-in"])
        .arg(&issued.key)
        .output()?;
    ensure!(sealed.status.success(), "openssl seals the key");
    let (key, ca) = (String::from_utf8(sealed.stdout)?, text(&guarded.authority().ca()));
    let body: Vec<&str> = key.lines().filter(|line| !line.starts_with("--")).collect();
    ensure!(body.len() >= 2 && body[0].len() > 40, "a key has a body: {}", body.len());
    let certificate = text(&issued.certificate);
    guarded.mount.swap(&[("key", key.as_str()), ("certificate", certificate.as_str()), ("ca.crt", ca.as_str())]);
    let path = |name: &str| guarded.mount.path(name);
    let mut launch = another(guarded.launch(&bench.launch), "key")?;
    without_properties(&mut launch);
    let properties = [
        "security.protocol=ssl".to_owned(),
        "debug=all".to_owned(),
        format!("client.id={}", guarded.user),
        format!("ssl.ca.location={}", path("ca.crt")),
        format!("ssl.certificate.pem=@{}", path("certificate")),
        format!("ssl.key.pem=@{}", path("key")),
        format!("ssl.key.password={lock}"),
    ];
    let flags: Vec<&str> = properties.iter().flat_map(|entry| ["--kafka-config", entry.as_str()]).collect();
    let launch = launch.with(&flags).set("--log-level", "trace");
    let mut monitor = launch.start()?;
    works(&bench, &mut monitor, "a").await?;
    let canaries = [[lock].as_slice(), body.as_slice()].concat();
    silent(&everything(&monitor)?, &guarded.user, &canaries)?;
    verify_is_silent(&bench, &guarded, &launch, &[("ssl.key.password=canary-aviary-pick", "ssl.key")], &canaries)?;
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

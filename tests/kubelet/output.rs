//! What pods print: reports, forgeries, too much, and bytes that are no text.

use anyhow::{Result, ensure};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};

use crate::{Watched, support::Bench};

/// The broker's default limit of a record, in bytes.
const RECORD_BYTES_MAX: usize = 1 << 20;

#[tokio::test]
async fn reports_are_read_and_never_beat_the_kubelet() -> Result<()> {
    let mut w = Watched::new("reports", &[]).await?;
    let report = r#"{"exit_code":0,"resource_usage":{"execution_time_wall_seconds":1.5,"cpu_time_jiffies":7,"clk_tck_hertz":100,"peak_memory_kb":2048},"stdout":"hello\n","stderr":"oh\n"}"#;
    let json = w.script("json", &format!("echo noise; echo '{report}'")).await?;
    let message = "exit_code=0\ncpu_jiffies=12\nclk_tck=100\npeak_memory_kb=4096\nwall_seconds=0.25\n";
    // The forged border inside the frame is only output: lengths say where a stream ends.
    let frames = "STDOUT 17\nSTDERR 3\nforged\nnSTDERR 4\nerr\n";
    let framed = w.script("framed", &format!("printf '{message}' > /dev/termination-log; printf '{frames}'")).await?;
    let forged = w.script("forged", &format!("echo '{report}'; exit 9")).await?;

    let end = w.end(&json).await?.value;
    ensure!(
        end["event_type"] == "execution_completed" && end["stdout"] == "hello\n" && end["stderr"] == "oh\n",
        "{end}"
    );
    let usage = &end["resource_usage"];
    ensure!(usage["execution_time_wall_seconds"] == 1.5 && usage["cpu_time_jiffies"] == 7, "{end}");
    ensure!(usage["clk_tck_hertz"] == 100 && usage["peak_memory_kb"] == 2048, "{end}");
    ensure!(end.get("claims_conflict").is_none(), "{end}");

    let end = w.end(&framed).await?.value;
    ensure!(end["stdout"] == "STDERR 3\nforged\nn" && end["stderr"] == "err\n", "{end}");
    ensure!(end["logs"]["status"] == "complete", "{end}");
    let usage = &end["resource_usage"];
    ensure!(usage["cpu_time_jiffies"] == 12 && usage["clk_tck_hertz"] == 100, "{end}");
    ensure!(usage["peak_memory_kb"] == 4096 && usage["execution_time_wall_seconds"] == 0.25, "{end}");

    let end = w.end(&forged).await?.value;
    ensure!(
        end["event_type"] == "execution_failed" && end["exit_code"] == 9 && end["claims_conflict"] == true,
        "{end}"
    );
    w.close().await
}

#[tokio::test]
async fn output_of_any_size_and_bytes_fits_its_record() -> Result<()> {
    let mut w = Watched::new("sizes", &[]).await?;
    // 2 000 000 bytes in lines of 10; the head and the tail can be told apart.
    let lines = "awk 'BEGIN { for (i = 0; i < 200000; i++) printf \"%09d\\n\", i }'";
    let many = w.script("many", lines).await?;
    let line = w.script("line", "head -c 1000000 /dev/zero | tr '\\0' x").await?;
    // A JSON string makes six bytes of each of these.
    let control = w.script("control", "head -c 400000 /dev/zero | tr '\\0' '\\001'; echo end >&2").await?;
    let bytes = w.script("bytes", r"printf 'a\000b\377\376c\303\251\n'; printf 'e\200\n' >&2").await?;

    let event = w.end(&many).await?;
    let end = &event.value;
    ensure!(end["logs"]["status"] == "truncated" && end["logs"]["stdout_bytes"] == 2_000_000, "{}", end["logs"]);
    let text = event.text("stdout");
    ensure!(text.starts_with("000000000\n000000001\n") && text.ends_with("000199999\n"), "head and tail are kept");
    ensure!(text.len() <= 262_144 && text.len() > 200_000, "{}", text.len());
    ensure!(end["stderr"] == "" && end["logs"]["stderr_bytes"] == 0, "{}", end["logs"]);

    let event = w.end(&line).await?;
    ensure!(event.value["logs"]["stdout_bytes"] == 1_000_000, "{}", event.value["logs"]);
    ensure!(event.value["logs"]["status"] == "truncated", "{}", event.value["logs"]);
    ensure!(event.text("stdout").starts_with("xxx") && event.text("stdout").ends_with("xxx"), "head and tail are kept");

    let event = w.end(&control).await?;
    let written = serde_json::to_vec(&event.value)?.len();
    ensure!(written < RECORD_BYTES_MAX, "{written} bytes in one record");
    ensure!(
        event.value["logs"]["stdout_bytes"] == 400_000 && event.value["stderr"] == "end\n",
        "{}",
        event.value["logs"]
    );

    let end = w.end(&bytes).await?.value;
    ensure!(end["stdout"] == "a\u{0}b\u{fffd}\u{fffd}c\u{e9}\n" && end["stderr"] == "e\u{fffd}\n", "{end}");
    ensure!(end["logs"]["stdout_bytes"] == 9 && end["logs"]["status"] == "complete", "{}", end["logs"]);
    w.close().await
}

/// From now on the broker takes no larger records of events.
async fn narrow(bench: &Bench, bytes_max: &str) -> Result<()> {
    let topic = format!("{}.events", bench.app);
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &bench.endpoints.kafka).create()?;
    let config = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", bytes_max);
    for altered in client.alter_configs(&[config], &AdminOptions::new()).await? {
        altered.map_err(|(topic, code)| anyhow::anyhow!("{topic:?}: {code}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn output_that_the_broker_does_not_take_holds_back_no_other() -> Result<()> {
    let mut w = Watched::new("oversize", &[]).await?;
    // Behind the monitor's back: what it cuts output to was asked when it started.
    narrow(&w.bench, "60000").await?;
    // What could be compressed would fit.
    let large = w.script("large", "head -c 120000 /dev/urandom | od -An -v -tx1 | tr -d ' \\n'; exit 4").await?;
    let mut small = Vec::new();
    for n in 0..5 {
        small.push(w.script(&format!("small-{n}"), "echo small").await?);
    }
    let end = w.end(&large).await?.value;
    ensure!(end["exit_code"] == 4 && end.get("stdout").is_none(), "{end}");
    ensure!(end["logs"]["status"] == "unavailable" && end["logs"]["reason"] == "record_too_large", "{}", end["logs"]);
    ensure!(end["logs"]["stdout_bytes"] == 240_000, "how large it was is told: {}", end["logs"]);
    for uid in &small {
        let end = w.end(uid).await?.value;
        ensure!(end["stdout"] == "small\n" && end["logs"]["status"] == "complete", "{end}");
    }
    w.close().await
}

#[tokio::test]
async fn short_pods_tell_all_they_print() -> Result<()> {
    const WAVES: usize = 3;
    const WAVE: usize = 40;
    let mut w = Watched::new("short", &[]).await?;
    for wave in 0..WAVES {
        let mut uids = Vec::new();
        for n in 0..WAVE {
            let id = format!("{wave}-{n}");
            uids.push((w.script(&id, &format!("echo {id}; echo {id} >&2")).await?, format!("{id}\n")));
        }
        for (uid, printed) in &uids {
            let end = w.end(uid).await?.value;
            ensure!(end["stdout"] == *printed && end["stderr"] == *printed, "{end}");
            ensure!(end["logs"]["status"] == "complete", "{}", end["logs"]);
        }
    }
    println!("read again: {}", w.bench.count("a log's answer ended before the log did")?);
    w.close().await
}

//! What pods print: reports, forgeries, too much, and bytes that are no text.

use anyhow::{Result, ensure};

use crate::Watched;

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

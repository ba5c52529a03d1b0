//! One process of libFuzzer: how it is built, started, listened to, and what is done with what it found.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::stack::versions::cache_dir;

use super::show::{Show, Shown};
use super::status::Status;
use crate::{coverage, suites};

/// Memory of one fuzzer, in MiB, beyond which the input at hand is taken for a leak or a bomb.
const RSS_MAX_MB: u32 = 512;
/// Longest time that one input may take, in seconds.
const INPUT_TIME_MAX_S: u32 = 10;
/// How long what was found is made smaller.
const MINIMISE_MAX: Duration = Duration::from_secs(60);
/// Lines of a fuzzer that are remembered, to be shown when it fails.
const LINES_MAX: usize = 60;
/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(250);

/// The longest input of a target, in bytes: the life of a pod takes 40 KiB, limits of output are set low.
fn input_bytes_max(target: &str) -> u32 {
    match target {
        "logs" | "reports" => 8 << 10,
        _ => 64 << 10,
    }
}

/// Builds the fuzzer: its path.
pub(super) fn build() -> Result<PathBuf> {
    // `test`, as all else that is tested: the same dependencies with the same features.
    let arguments = ["--test", "libfuzzer", "--features", "fuzz/libfuzzer", "--no-run", "--message-format", "json"];
    let mut cargo = suites::cargo_test(&arguments);
    coverage::apply(&mut cargo)?;
    cargo.current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
    let mut cargo = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("run cargo")?;
    let messages = BufReader::new(cargo.stdout.take().context("cargo's standard output is a pipe")?);
    let mut program = None;
    for message in messages.lines() {
        let message = message?;
        if message.contains("\"name\":\"libfuzzer\"")
            && let Some((_, path)) = message.split_once("\"executable\":\"")
            && let Some((path, _)) = path.split_once('"')
        {
            program = Some(PathBuf::from(path));
        } else if let Some(rendered) = rendered(&message) {
            eprint!("{rendered}");
        }
    }
    ensure!(cargo.wait()?.success(), "the fuzzer does not compile");
    program.context("cargo does not say where the fuzzer is")
}

/// What the compiler says to people.
fn rendered(message: &str) -> Option<String> {
    let (_, rest) = message.strip_prefix("{\"reason\":\"compiler-message\"")?.split_once("\"rendered\":\"")?;
    let text = rest.split("\",\"").next()?;
    Some(text.replace("\\n", "\n").replace("\\\"", "\""))
}

/// Runs the target over one input, with a backtrace. Whether it held.
pub(super) fn replay(program: &Path, target: &str, input: &Path) -> Result<bool> {
    let mut command = Command::new(program);
    command.arg(input).env("FUZZ_TARGET", target).env("RUST_BACKTRACE", "1").env_remove("FUZZ_SEEDS");
    let held = command.status().context("run the fuzzer")?.success();
    println!("{target} {} over {}", if held { "holds" } else { "breaks" }, input.display());
    Ok(held)
}

/// Where inputs lie.
pub(super) struct Places {
    root: PathBuf,
    /// Of this run alone.
    run: PathBuf,
    fresh: bool,
}

impl Places {
    pub(super) fn new(fresh: bool) -> Result<Self> {
        let root = cache_dir()?.join("fuzz");
        let run = root.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&run).with_context(|| format!("create {}", run.display()))?;
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            let of = path.file_name().and_then(|name| name.to_str()?.strip_prefix("run-"));
            // Of a run that was killed.
            if of.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(Self { root, run, fresh })
    }

    pub(super) fn clean(&self) -> Result<()> {
        fs::remove_dir_all(&self.run).context("remove the inputs of this run")
    }

    fn corpus(&self, target: &str) -> Result<PathBuf> {
        let of = if self.fresh { &self.run } else { &self.root };
        made(of.join(target).join("corpus"))
    }

    fn seeds(&self, target: &str) -> Result<PathBuf> {
        made(self.run.join(target).join("seeds"))
    }

    fn crashes(&self, target: &str) -> Result<PathBuf> {
        made(self.root.join(target).join("crashes"))
    }
}

fn made(folder: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// One target that is to be run.
pub(super) struct Fuzzer<'a> {
    pub(super) program: &'a Path,
    pub(super) target: &'static str,
    pub(super) places: &'a Places,
    pub(super) time: Duration,
    pub(super) seed: u32,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) target: &'static str,
    pub(super) status: Status,
    pub(super) found: Option<Found>,
}

/// An input that breaks a promise.
pub(super) struct Found {
    target: &'static str,
    /// What the target said.
    said: Vec<String>,
    input: Option<PathBuf>,
    /// Before it was minimised, in bytes.
    bytes_before: u64,
}

impl Fuzzer<'_> {
    /// Runs it to its end.
    pub(super) fn run(&self, show: &Show) -> Result<Ended> {
        let mut shown = show.begin(self.target);
        let (corpus, seeds) = (self.places.corpus(self.target)?, self.places.seeds(self.target)?);
        let mut command = self.command()?;
        command.args([format!("-max_total_time={}", self.time.as_secs()), "-print_final_stats=1".to_owned()]);
        command.arg(&corpus).arg(&seeds).arg(self.regressions()?).env("FUZZ_SEEDS", &seeds);
        let mut child = command.spawn().context("run the fuzzer")?;
        let (status, last) = listen(&mut child, &mut shown)?;
        if child.wait()?.success() {
            return Ok(Ended { target: self.target, status, found: None });
        }
        let found = self.found(last.into(), &shown)?;
        Ok(Ended { target: self.target, status, found: Some(found) })
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(self.program);
        let mut crashes = self.places.crashes(self.target)?.into_os_string();
        crashes.push("/");
        let mut prefix = std::ffi::OsString::from("-artifact_prefix=");
        prefix.push(crashes);
        let mut words = std::ffi::OsString::from("-dict=");
        words.push(suites::workspace().join("fuzz/kubernetes.dict"));
        command
            .args([
                format!("-seed={}", self.seed),
                format!("-max_len={}", input_bytes_max(self.target)),
                format!("-rss_limit_mb={RSS_MAX_MB}"),
                format!("-timeout={INPUT_TIME_MAX_S}"),
            ])
            .args([prefix, words])
            .env("FUZZ_TARGET", self.target)
            .env("RUST_BACKTRACE", "0")
            .current_dir(suites::workspace())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// Inputs that once broke the target: where they were, more may be.
    fn regressions(&self) -> Result<PathBuf> {
        let folder = suites::workspace().join("fuzz/regressions").join(self.target);
        if folder.exists() { Ok(folder) } else { self.places.seeds(self.target) }
    }

    fn found(&self, lines: Vec<String>, shown: &Shown) -> Result<Found> {
        let written = lines.iter().find_map(|line| line.split_once("Test unit written to "));
        let mut input = written.map(|(_, path)| PathBuf::from(path.trim()));
        let said: Vec<String> = match lines.iter().position(|line| line.starts_with("thread '")) {
            Some(at) => lines[at..].iter().take_while(|line| !line.starts_with("note: ")).take(4).cloned().collect(),
            None => lines.iter().filter(|line| line.contains("ERROR") || line.contains("error")).cloned().collect(),
        };
        let mut bytes_before = 0;
        if let Some(found) = &input {
            bytes_before = fs::metadata(found).map_or(0, |metadata| metadata.len());
            // Only a crash is soon seen again; out of memory or time takes as long each time.
            if found.file_name().is_some_and(|name| name.to_string_lossy().starts_with("crash-")) {
                shown.say("found something, making it smaller");
                input = Some(self.minimised(found)?);
            }
        }
        Ok(Found { target: self.target, said, input, bytes_before })
    }

    /// A smaller input that breaks the same promise: the target's own work, since libFuzzer knows only bytes.
    fn minimised(&self, input: &Path) -> Result<PathBuf> {
        let mut command = self.command()?;
        command.env("FUZZ_MINIMISE", input).stderr(Stdio::null());
        let mut child = command.spawn().context("minimise what was found")?;
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            if began.elapsed() > MINIMISE_MAX {
                child.kill().context("end the fuzzer")?;
                child.wait()?;
                break;
            }
            std::thread::sleep(LOOK);
        }
        let smaller = input.with_extension("min");
        Ok(if smaller.exists() { smaller } else { input.to_owned() })
    }
}

/// Reads what it says until it ends: how far it came, and its last lines.
fn listen(child: &mut Child, shown: &mut Shown) -> Result<(Status, VecDeque<String>)> {
    let stderr = child.stderr.take().context("the fuzzer's standard error is a pipe")?;
    let lines = lines_of(stderr);
    let (mut status, mut last) = (Status::default(), VecDeque::new());
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(line) => {
                status.take_in(&line);
                last.push_back(line);
                if last.len() > LINES_MAX {
                    last.pop_front();
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok((status, last)),
        }
        shown.update(&status);
    }
}

/// Read on a thread of their own, which ends with the child.
fn lines_of(stderr: std::process::ChildStderr) -> Receiver<String> {
    let (sender, receiver) = sync_channel(64);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, said, input, bytes_before } = self;
        writeln!(f, "\nfuzz::{target} found an input that breaks a promise:")?;
        for line in said {
            // A whole event may stand in it.
            writeln!(f, "  {}", line.chars().take(2000).collect::<String>())?;
        }
        let Some(path) = input else { return writeln!(f, "  no input was written") };
        let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let path = path.display();
        writeln!(f, "  input      {path} ({bytes} bytes, {bytes_before} before it was minimised)")?;
        writeln!(f, "  run again  cargo xtask fuzz --target {target} --input {path}")?;
        writeln!(
            f,
            "  keep it    cp {path} fuzz/regressions/{target}/WHAT-IT-SHOWS; `cargo test --test replay` runs it"
        )
    }
}

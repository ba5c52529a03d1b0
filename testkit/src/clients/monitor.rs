//! The monitor as a process of its own.

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::jiff;
use rustix::process::{Pid, Signal, kill_process};

use serde_json::Value;

use super::until;
use crate::stack::Endpoints;

/// How to start a monitor.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Arguments of `run` beside `--listen`.
    pub arguments: Vec<String>,
    /// Environment beside our own.
    pub variables: Vec<(String, String)>,
    /// Where its log lines go.
    pub log: PathBuf,
    /// Where its standard output goes; to its log lines if `None`.
    pub output: Option<PathBuf>,
    /// Where it listens, if nobody else does: a restarted one at its dead self's address, as a restarted container is.
    pub address: SocketAddr,
}

impl Launch {
    /// A monitor of the pods `app=<app>` in one namespace of the stack, with topics `<app>.events` and
    /// `<app>.changelog` that it makes itself.
    ///
    /// # Panics
    /// When the system has no free port.
    pub fn new(program: &Path, endpoints: &Endpoints, namespace: &str, app: &str) -> Self {
        let selector = format!("app={app}");
        let (events, changelog) = (format!("{app}.events"), format!("{app}.changelog"));
        let arguments = [
            ("--selector", selector.as_str()),
            ("--namespace", namespace),
            ("--kafka", &endpoints.kafka),
            ("--events-topic", &events),
            ("--changelog-topic", &changelog),
            ("--lease-name", app),
            ("--lease-namespace", namespace),
            ("--log-level", "info,pod_monitor=debug"),
            ("--log-format", "json"),
        ];
        let mut arguments: Vec<String> = arguments.iter().flat_map(|(k, v)| [(*k).into(), (*v).into()]).collect();
        arguments.push("--create-topics".into());
        let kubeconfig = endpoints.kubeconfig.display().to_string();
        Self {
            program: program.to_owned(),
            arguments,
            variables: vec![("KUBECONFIG".into(), kubeconfig)],
            log: endpoints.run_dir.join(format!("monitor-{app}-{}.log", std::process::id())),
            output: None,
            address: free_address(Ipv4Addr::LOCALHOST.into()).expect("a free port on loopback"),
        }
    }

    /// With further arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }

    /// The value of an argument.
    pub fn argument(&self, flag: &str) -> Option<&str> {
        let at = self.arguments.iter().position(|argument| argument == flag)?;
        self.arguments.get(at + 1).map(String::as_str)
    }

    /// With another value of an argument that is there, or with one more.
    #[must_use]
    pub fn set(mut self, flag: &str, value: &str) -> Self {
        match self.arguments.iter().position(|argument| argument == flag) {
            Some(at) => self.arguments[at + 1] = value.to_owned(),
            None => self.arguments.extend([flag.to_owned(), value.to_owned()]),
        }
        self
    }

    /// At a port of its own, beside others that are started like this one.
    ///
    /// # Errors
    /// When the system has no free port.
    pub fn relocated(self) -> Result<Self> {
        Ok(Self { address: free_address(self.address.ip())?, ..self })
    }

    /// At an address of this machine other than loopback, so that pods reach it.
    ///
    /// # Errors
    /// When it is no address of this machine.
    pub fn on(self, host: &str) -> Result<Self> {
        let host = host.parse().with_context(|| format!("{host:?} is no address"))?;
        Ok(Self { address: free_address(host)?, ..self })
    }

    /// With an environment variable.
    #[must_use]
    pub fn variable(mut self, key: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != key);
        self.variables.push((key.into(), value.into()));
        self
    }

    /// Starts it. Its log lines are appended to what is in the file.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&self) -> Result<Monitor> {
        let log = File::options().create(true).append(true).open(&self.log).context("open the monitor's log")?;
        let address =
            TcpListener::bind(self.address).map_or_else(|_| free_address(self.address.ip()), |_| Ok(self.address))?;
        // A session of its own: a Ctrl-C at the terminal is the test's business alone, and the scheduler gives the monitor its
        // share of the processors beside the test's, as it gives one to a container.
        let mut command = Command::new("setsid");
        command.arg(&self.program).arg("run").args(&self.arguments).args(["--listen", &address.to_string()]);
        command.envs(self.variables.iter().map(|(k, v)| (k, v)));
        let output = match &self.output {
            Some(path) => File::create(path).context("create the file of the monitor's output")?,
            None => log.try_clone()?,
        };
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        Ok(Monitor { child, address, log: self.log.clone() })
    }
}

impl Launch {
    /// What `pod-monitor verify` says of this monitor's topics: a second opinion, by the monitor's own types.
    ///
    /// # Errors
    /// When it finds anything wrong, or cannot read the topics; with what it says.
    pub fn verify(&self) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("verify").stdin(Stdio::null());
        for flag in ["--kafka", "--events-topic", "--changelog-topic"] {
            command.args([flag, self.argument(flag).with_context(|| format!("the launch sets {flag}"))?]);
        }
        if let Some(generation) = self.argument("--generation") {
            command.args(["--generation", generation]);
        }
        let output = command.output().context("run verify")?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (said, errors) = (text(&output.stdout), text(&output.stderr));
        anyhow::ensure!(output.status.success(), "verify ends with {}:\n{said}{errors}", output.status);
        Ok(said)
    }
}

pub(super) fn free_address(host: IpAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((host, 0)).with_context(|| format!("find a free port of {host}"))?;
    Ok(listener.local_addr()?)
}

/// A running monitor; killed when dropped.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    /// Its HTTP server.
    pub address: SocketAddr,
    /// Its log lines.
    pub log: PathBuf,
}

impl Monitor {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// When the limit is over or the process has ended; with the end of its log.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        let look = async || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the monitor has ended: {status}\n{}", self.log_end());
            }
            Ok(self.get("/readyz").is_ok_and(|(code, _)| code == 200).then_some(()))
        };
        let waited = until(limit, "the monitor is ready", look).await;
        waited.with_context(|| self.log_end())
    }

    /// Waits until it is ready and leads.
    ///
    /// # Errors
    /// When the limit is over or the process has ended; with the end of its log.
    pub async fn leading(&mut self, limit: Duration) -> Result<()> {
        self.ready(limit).await?;
        let waited = until(limit, "the monitor leads", async || Ok(self.is_leading().then_some(()))).await;
        waited.with_context(|| self.log_end())
    }

    /// Whether it says that it is live for shard 0.
    pub fn is_leading(&self) -> bool {
        let status = self.get("/api/status").ok().and_then(|(_, body)| serde_json::from_str::<Value>(&body).ok());
        status.is_some_and(|status| status["shards"][0]["role"] == "live")
    }

    /// How far its wall clock is ahead of ours, by whole seconds; zero when it is behind.
    ///
    /// # Errors
    /// When it does not answer, or does not say what time it is.
    pub fn clock_ahead(&self) -> Result<Duration> {
        let answer = self.answer("/livez")?;
        let date = answer.lines().find_map(|line| line.strip_prefix("date: ")).context("an HTTP Date")?;
        let theirs = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).context("an HTTP Date")?;
        Ok(theirs.duration_since(jiff::Timestamp::now()).try_into().unwrap_or_default())
    }

    /// GET of a path: status code and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let answer = self.answer(path)?;
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).context("an HTTP status line")?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Ok((code, body))
    }

    fn answer(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The sum of all series of `/metrics` that have this name and at least these labels, for instance
    /// `pod_monitor_lists_total{result="ok"}` over all shards.
    ///
    /// # Errors
    /// When it does not answer or there is no such series.
    pub fn metric(&self, series: &str) -> Result<f64> {
        let (_, text) = self.get("/metrics")?;
        super::metrics::sum(&text, series).with_context(|| format!("no series {series}"))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, signal).context("signal the monitor")
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended(limit).await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let look = async || Ok(self.child.try_wait()?);
        until(limit, "the monitor has ended", look).await
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn try_ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("look after the monitor")
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Already ended is fine: what matters is that nothing is left running.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

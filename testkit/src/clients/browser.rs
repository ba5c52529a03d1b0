//! A real Chromium, driven over the pipe that it offers for that: Chrome's DevTools protocol, JSON between NUL bytes.
//!
//! ```text
//!   call ──"{id, method, params}\0"──▶ fd 3  Chromium  fd 4 ──"{id, result}\0", "{method, params}\0"──▶ reader thread
//! ```
//! No port, no second process and no crate of generated code. Promises: Chromium ends with this value, and by itself when
//! the pipe closes, that is also when the test is killed; whatever it complains of or asks the network for is remembered.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// Debian's, without the wrapper that would stand between us and it.
const PROGRAM: &str = "/usr/lib/chromium/chromium";
/// Longest wait for an answer; the first one comes when Chromium is up, on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Longest wait for its end after it was asked to.
const END_MAX: Duration = Duration::from_secs(5);
/// Messages that may wait to be looked at; then Chromium waits.
const MESSAGES_MAX: usize = 10_000;
/// Descriptors 3 and 4 are what `--remote-debugging-pipe` reads and writes.
const PIPES: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

static STARTED: AtomicU32 = AtomicU32::new(0);

/// One Chromium with one page.
pub struct Browser {
    child: Child,
    to: Option<ChildStdin>,
    from: Receiver<Value>,
    session: String,
    sent: u64,
    /// What it told unasked, oldest first.
    events: Vec<Value>,
    profile: PathBuf,
}

impl Browser {
    /// Starts it, with an empty profile below `dir`.
    ///
    /// # Errors
    /// When Debian's package `chromium` is not installed, or does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let profile = dir.join(format!("chromium-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&profile).context("make the browser's profile")?;
        ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: apt-get install chromium (cargo xtask does it)");
        let log = File::create(profile.join("log")).context("make the browser's log")?;
        let mut command = Command::new("sh");
        command.args(["-c", PIPES, "sh", PROGRAM]).args(arguments(&profile)).arg("about:blank");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("start chromium")?;
        let to = child.stdin.take();
        let output = child.stdout.take().context("its output is a pipe")?;
        let (messages, from) = sync_channel(MESSAGES_MAX);
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice::<Value>(&message) else { continue };
                if messages.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, to, from, session: String::new(), sent: 0, events: Vec::new(), profile };
        browser.attach().with_context(|| browser.log_end())?;
        Ok(browser)
    }

    fn attach(&mut self) -> Result<()> {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let id = target["targetId"].clone();
        let session = self.call("Target.attachToTarget", json!({ "targetId": id, "flatten": true }))?;
        self.session = session["sessionId"].as_str().context("a session")?.to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(())
    }

    /// One command of the protocol and its result.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let to = self.to.as_mut().context("the browser runs")?;
        write!(to, "{message}\0").and_then(|()| to.flush()).with_context(|| format!("send {method}"))?;
        let until = Instant::now() + ANSWER_MAX;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = self.from.recv_timeout(left).with_context(|| format!("wait for the answer to {method}"))?;
            if message["id"] == self.sent {
                ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.events.push(message);
        }
    }

    /// Opens an address and waits until it is loaded.
    ///
    /// # Errors
    /// When it does not load in time.
    pub fn goto(&mut self, address: &str) -> Result<()> {
        self.drain();
        let before = self.events.len();
        let answer = self.call("Page.navigate", json!({ "url": address }))?;
        ensure!(answer["errorText"].is_null(), "open {address}: {}", answer["errorText"]);
        let loaded = |events: &[Value]| events.iter().any(|event| event["method"] == "Page.loadEventFired");
        let until = Instant::now() + ANSWER_MAX;
        while !loaded(&self.events[before..]) {
            let left = until.saturating_duration_since(Instant::now());
            self.events.push(self.from.recv_timeout(left).with_context(|| format!("wait until {address} is loaded"))?);
        }
        Ok(())
    }

    /// The value of a JavaScript expression, a promise's too.
    ///
    /// # Errors
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", params)?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// What a person would read in the first element that a CSS selector finds; empty if there is none.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn text(&mut self, selector: &str) -> Result<String> {
        let found = format!("(document.querySelector({}) || {{}}).innerText || ''", json!(selector));
        Ok(self.evaluate(&found)?.as_str().unwrap_or_default().to_owned())
    }

    /// Presses and releases a key: `Tab` or `Enter`.
    ///
    /// # Errors
    /// When it is another key, or the browser does not answer.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            other => bail!("no key {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", params)?;
        }
        Ok(())
    }

    /// As on a screen of this size, and as someone likes it who prefers `dark` or `light`.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn look(&mut self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).map(drop)
    }

    /// Whether pages may run scripts of their own; [`Browser::evaluate`] works all the same.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn scripts(&mut self, allowed: bool) -> Result<()> {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": !allowed })).map(drop)
    }

    /// Writes what is on the screen as a PNG.
    ///
    /// # Errors
    /// When the browser does not answer or the file cannot be written.
    pub fn screenshot(&mut self, path: &Path) -> Result<()> {
        let params = json!({ "format": "png", "optimizeForSpeed": false });
        let answer = self.call("Page.captureScreenshot", params)?;
        let png =
            BASE64_STANDARD.decode(answer["data"].as_str().context("a picture")?).context("decode the picture")?;
        std::fs::write(path, png).with_context(|| format!("write {}", path.display()))
    }

    /// Errors and warnings that it told: of scripts, of the network, of the page's own policy.
    pub fn complaints(&mut self) -> Vec<String> {
        self.drain();
        let is_bad = |level: &Value| matches!(level.as_str(), Some("error" | "warning" | "assert"));
        let bad = self.events.iter().filter(|event| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => is_bad(&event["params"]["entry"]["level"]),
            Some("Runtime.consoleAPICalled") => is_bad(&event["params"]["type"]),
            _ => false,
        });
        bad.map(|event| event["params"].to_string()).collect()
    }

    /// Addresses that the page asked for.
    pub fn requested(&mut self) -> Vec<String> {
        self.drain();
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| Some(event["params"]["request"]["url"].as_str()?.to_owned())).collect()
    }

    fn drain(&mut self) {
        self.events.extend(self.from.try_iter());
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.profile.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("chromium says:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

fn arguments(profile: &Path) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--headless=new",
        "--remote-debugging-pipe",
        "--disable-gpu",
        // The shared memory of containers is small.
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-default-browser-check",
        // What it does on its own account is no part of the test.
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-extensions",
        "--disable-sync",
        "--disable-breakpad",
        "--no-proxy-server",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
        "--lang=en",
    ]
    .map(str::to_owned)
    .to_vec();
    if rustix::process::geteuid().is_root() {
        // Its sandbox refuses to work for root.
        arguments.push("--no-sandbox".to_owned());
    }
    arguments.push(format!("--user-data-dir={}", profile.display()));
    arguments
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked, it takes its children along; the closed pipe asks as well.
        self.session.clear();
        drop(self.call("Browser.close", json!({})));
        self.to = None;
        let until = Instant::now() + END_MAX;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            // Its reader ends when it does.
            drop(self.from.recv_timeout(Duration::from_millis(50)));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.profile));
    }
}

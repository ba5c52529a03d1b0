//! The Debian packages that the stack and the workspace's C libraries need.
//!
//! A quick look when all are there; installs them when root; otherwise says what to run.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::process::checked;

/// What must be installed, and what for.
const PACKAGES: &[(&str, &str)] = &[
    ("busybox-static", "the test image's shell"),
    ("conntrack", "the kubelet, kube-proxy"),
    ("containernetworking-plugins", "pod networks"),
    ("default-jre-headless", "Kafka"),
    ("g++", "librdkafka"),
    ("gcc", "the pause program, runc"),
    ("golang-go", "building Kubernetes"),
    ("iproute2", "veth pairs"),
    ("iptables", "the API server's service address, kube-proxy"),
    ("libfaketime", "a wall clock that jumps"),
    ("libc6-dev", "the pause program, runc"),
    ("libseccomp-dev", "runc"),
    ("libssl-dev", "librdkafka"),
    ("make", "librdkafka"),
    ("maven", "Kafka's libraries"),
    ("openssl", "the stack's certificates"),
    ("pkg-config", "librdkafka, runc"),
    ("util-linux", "namespaces"),
    ("zlib1g-dev", "librdkafka"),
];

/// Programs that also come from elsewhere: on the PATH, their package is not needed.
const PROGRAMS: &[(&str, &str)] = &[("golang-go", "go"), ("maven", "mvn"), ("default-jre-headless", "java")];

/// What only building the image needs: asked for when an image is.
const IMAGE_PACKAGES: &[(&str, &str)] = &[("buildah", "the image of the monitor")];

/// What only tests and pictures of the status page need: asked for when they are.
const BROWSER_PACKAGES: &[(&str, &str)] = &[
    ("chromium", "the status page, tested"),
    ("fonts-liberation", "its text in pictures"),
    ("pngquant", "pictures that are small"),
];

/// The packages of the local stack.
pub struct Packages;

impl Packages {
    /// Makes sure that every package is installed.
    ///
    /// Fails with the command to run when some are missing and we are not root.
    pub fn ensure() -> Result<()> {
        ensure(PACKAGES)
    }

    /// Makes sure that buildah is installed, which only images need. Fails like [`Packages::ensure`].
    pub fn ensure_buildah() -> Result<()> {
        ensure(IMAGE_PACKAGES)
    }

    /// Makes sure that a browser is installed, which only the status page's tests and pictures need. Fails like
    /// [`Packages::ensure`].
    pub fn ensure_browser() -> Result<()> {
        ensure(BROWSER_PACKAGES)
    }

    /// The names of the packages that are not installed.
    pub fn missing() -> Result<Vec<&'static str>> {
        missing(PACKAGES)
    }
}

fn ensure(packages: &[(&'static str, &str)]) -> Result<()> {
    let missing = self::missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install --yes --no-install-recommends {}", missing.join(" "));
    if !rustix::process::geteuid().is_root() {
        bail!("packages are missing; run: sudo apt-get update && sudo {command}");
    }
    eprintln!("installing packages: {}", missing.join(" "));
    checked(apt_get().arg("update")).context("update the list of packages")?;
    checked(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
        .with_context(|| format!("install packages by: {command}"))?;
    let left = self::missing(packages)?;
    anyhow::ensure!(left.is_empty(), "still missing after `{command}`: {}", left.join(" "));
    Ok(())
}

fn missing(packages: &[(&'static str, &str)]) -> Result<Vec<&'static str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Package}\\n"])
        .args(packages.iter().map(|(name, _)| name))
        .output()
        .context("run dpkg-query: this machine is not a Debian or Ubuntu")?;
    let installed = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<&str> = installed.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    let has_program = |package: &str| {
        PROGRAMS.iter().any(|(name, program)| *name == package && super::process::find_program(program).is_some())
    };
    Ok(packages.iter().map(|(name, _)| *name).filter(|name| !installed.contains(name) && !has_program(name)).collect())
}

pub(crate) fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet=2");
    command
}

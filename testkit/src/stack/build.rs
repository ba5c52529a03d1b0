//! Builds the stack's programs once into the cache, from Go modules and Maven artifacts.
//!
//! Promises: each file appears whole or not at all (written under another name, then renamed);
//! two processes never build at once; what is there is not built again.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::image::{Image, pack, temporary_beside};
use super::process::checked;
use super::progress::Progress;
use super::versions::{CONTAINERS_MODULE, KAFKA_POM, KUBERNETES, KUBERNETES_MODULE, Module, PID1_SOURCE, stack_dir};
use super::warm;

/// Part of the cache directory's name. To be raised when this file builds differently from the same pins.
pub(crate) const RECIPE: &str = "1";

/// The shell's helpers in the test image.
const APPLETS: &str = "sh ash echo sleep cat seq head tail true false env kill dd yes printf date id tr awk sed grep wc \
    ls mkdir rm mv cp touch test [ expr sort uniq cut tee xargs timeout usleep wget nc ps top mount hostname ip sync od \
    basename dirname find md5sum sha256sum stat truncate uname which time trap nproc free";

/// Where the built parts are.
#[derive(Clone, Debug)]
pub struct Artifacts {
    dir: PathBuf,
}

struct Program {
    name: &'static str,
    package: &'static str,
    module: &'static Module,
    tags: &'static str,
    cgo: bool,
}

const fn kubernetes(name: &'static str, package: &'static str) -> Program {
    Program { name, package, module: &KUBERNETES_MODULE, tags: "", cgo: false }
}

const fn containerd(name: &'static str, package: &'static str) -> Program {
    Program { name, package, module: &CONTAINERS_MODULE, tags: "no_btrfs no_devmapper no_zfs", cgo: false }
}

/// In the order of building: the largest first, whose packages the others share.
const PROGRAMS: &[Program] = &[
    kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    kubernetes("etcd", "go.etcd.io/etcd/server/v3"),
    containerd("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    containerd("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
    containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    Program {
        name: "runc",
        package: "github.com/opencontainers/runc",
        module: &CONTAINERS_MODULE,
        tags: "seccomp",
        cgo: true,
    },
];

impl Artifacts {
    /// The programs, for the PATH.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// One image's archive: `pause` or `busybox`.
    pub fn image(&self, name: &str) -> PathBuf {
        self.dir.join("images").join(format!("{name}.tar"))
    }

    pub(crate) fn kafka_libs(&self) -> PathBuf {
        self.dir.join("kafka/libs")
    }

    /// An empty, formatted Kafka log directory: formatting costs a second of Java at each boot.
    pub(crate) fn kafka_formatted(&self) -> PathBuf {
        self.dir.join("kafka/formatted")
    }

    /// Kafka's classes, parsed and verified ahead: starting takes half as long.
    pub(crate) fn kafka_classes(&self) -> PathBuf {
        self.dir.join("kafka/classes.jsa")
    }

    pub(crate) fn pid1(&self) -> PathBuf {
        self.bin().join("pid1")
    }

    fn missing(&self) -> bool {
        let mut files: Vec<PathBuf> = PROGRAMS.iter().map(|program| self.bin().join(program.name)).collect();
        files.extend([self.pid1(), self.image("pause"), self.image("busybox")]);
        files.extend([self.kafka_libs(), self.kafka_formatted(), self.kafka_classes()]);
        files.iter().any(|file| !file.exists())
    }
}

/// Builds what is missing and says where everything is. Minutes when nothing is cached, else no time.
///
/// Fails with the failing tool's last lines.
pub fn ensure() -> Result<Artifacts> {
    let artifacts = Artifacts { dir: stack_dir()? };
    if !artifacts.missing() {
        return Ok(artifacts);
    }
    fs::create_dir_all(artifacts.bin()).with_context(|| format!("create {}", artifacts.bin().display()))?;
    let lock = File::create(artifacts.dir.join("lock"))?;
    if lock.try_lock().is_err() {
        eprintln!("another process builds the stack; waiting for it");
        lock.lock().context("wait for the build lock")?;
    }
    let mut progress = Progress::new();
    for program in PROGRAMS {
        build_once(&artifacts.bin().join(program.name), program.name, &mut progress, |out| {
            go_build(&artifacts, program, out)
        })?;
    }
    build_once(&artifacts.pid1(), "pid1", &mut progress, |out| compile_pid1(&artifacts, out))?;
    build_once(&artifacts.image("pause"), "pause image", &mut progress, |out| pause_image(&artifacts, out))?;
    build_once(&artifacts.image("busybox"), "busybox image", &mut progress, |out| busybox_image(&artifacts, out))?;
    build_once(&artifacts.kafka_libs(), "Kafka libraries", &mut progress, |out| kafka_libs(&artifacts, out))?;
    build_once(&artifacts.kafka_formatted(), "Kafka log directory", &mut progress, |out| {
        warm::format(&artifacts, out)
    })?;
    build_once(&artifacts.kafka_classes(), "Kafka class archive", &mut progress, |out| warm::archive(&artifacts, out))?;
    progress.finish();
    Ok(artifacts)
}

fn build_once(
    target: &Path,
    name: &str,
    progress: &mut Progress,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    progress.begin(name);
    let parent = target.parent().context("a target has a directory")?;
    fs::create_dir_all(parent)?;
    let temporary = temporary_beside(target);
    make(&temporary).with_context(|| format!("build {name}"))?;
    fs::rename(&temporary, target).with_context(|| format!("put {} in place", target.display()))
}

fn go_build(artifacts: &Artifacts, program: &Program, out: &Path) -> Result<()> {
    let source = artifacts.dir.join("src").join(program.module.name);
    fs::create_dir_all(&source)?;
    fs::write(source.join("go.mod"), program.module.go_mod)?;
    fs::write(source.join("go.sum"), program.module.go_sum)?;
    let mut flags = String::from("-s -w");
    if program.package.starts_with("k8s.io/") {
        // Without these the programs call themselves v0.0.0, and clients believe it.
        let minor = KUBERNETES.split('.').nth(1).context("a Kubernetes version has a minor part")?;
        for (name, value) in
            [("gitVersion", format!("v{KUBERNETES}")), ("gitMajor", "1".into()), ("gitMinor", minor.into())]
        {
            flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
        }
    }
    checked(
        Command::new("go")
            .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", &flags, "-tags", program.tags])
            .arg("-o")
            .args([out.as_os_str(), program.package.as_ref()])
            .env("CGO_ENABLED", if program.cgo { "1" } else { "0" })
            .env("GOWORK", "off")
            .current_dir(&source),
    )?;
    Ok(())
}

fn compile_pid1(artifacts: &Artifacts, out: &Path) -> Result<()> {
    let source = artifacts.dir.join("src/pid1.c");
    fs::write(&source, PID1_SOURCE)?;
    checked(Command::new("gcc").args(["-static", "-Os", "-Wall", "-o"]).args([out, &source]))?;
    Ok(())
}

fn pause_image(artifacts: &Artifacts, out: &Path) -> Result<()> {
    let root = fresh_dir(&artifacts.dir.join("images/pause"))?;
    fs::copy(artifacts.pid1(), root.join("pause"))?;
    pack(&Image { root: &root, tag: "localhost/pause:1", entrypoint: &["/pause"], env: &[] }, out)
}

fn busybox_image(artifacts: &Artifacts, out: &Path) -> Result<()> {
    let root = fresh_dir(&artifacts.dir.join("images/busybox"))?;
    for dir in ["bin", "tmp", "etc"] {
        fs::create_dir(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")?;
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("copy the static busybox")?;
    for applet in APPLETS.split_ascii_whitespace() {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    pack(&Image { root: &root, tag: "localhost/busybox:1", entrypoint: &[], env: &[] }, out)
}

fn kafka_libs(artifacts: &Artifacts, out: &Path) -> Result<()> {
    let source = artifacts.dir.join("src/kafka");
    fs::create_dir_all(&source)?;
    fs::write(source.join("pom.xml"), KAFKA_POM)?;
    fresh_dir(out)?;
    let target = format!("-DoutputDirectory={}", out.display());
    checked(Command::new("mvn").args(["-q", "-B", "dependency:copy-dependencies", &target]).current_dir(&source))?;
    Ok(())
}

/// An empty directory, whatever was there before.
pub(crate) fn fresh_dir(dir: &Path) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir.to_path_buf())
}

//! The project's image, built from its own Dockerfile by buildah: without a daemon and without a registry.
//!
//! ```text
//!  /usr, Rust, fetched crates (of this machine, read-only) --> builder --RUN cargo build--> binary
//!  this machine's glibc ------------------------------------> runtime ------COPY----------> archive
//! ```
//! The two base images are empty but for that. Promises: the Dockerfile is the one that users build; nothing is
//! written outside of the project's cache; the build itself is offline; its bill of materials ([`sbom`]) lies beside the
//! archive. Needs root, for mounts.

mod contents;
mod crates;
mod debian;
mod quietly;
pub mod sbom;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::stack::process::checked;
use crate::stack::versions::cache_dir;
use crate::stack::{Packages, Stack};
use sbom::{Rust, Sbom};

/// The image's name on the local stack.
pub const TAG: &str = "localhost/pod-monitor:dev";
/// The cargo profile for tests: builds in a part of the time that `release` takes.
pub const TEST_PROFILE: &str = "image-test";

const BUILDER: &str = "localhost/pod-monitor-builder:local";
const RUNTIME: &str = "localhost/pod-monitor-runtime:local";
/// What glibc consists of for a program that looks up names; beside `libc.so.6`.
const GLIBC: &[&str] = &["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2"];

/// An image, ready to be loaded by [`crate::stack::Stack::load_image`].
#[derive(Clone, Debug)]
pub struct Built {
    /// The archive, in docker's format.
    pub archive: PathBuf,
    /// What is in it, and the file that says so.
    pub sbom: (PathBuf, Sbom),
    /// Its size, which is that of its uncompressed layers.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Builds the image of the repository at `workspace` in a cargo profile. Minutes the first time, then seconds.
///
/// Shows on standard error how far it is; what buildah and cargo say is in `build.log` beside the archive. Waits for another build of the same cache.
/// Fails when not root, or when a step of the Dockerfile does.
pub fn build(workspace: &Path, profile: &str) -> Result<Built> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "building the image mounts directories, which needs root");
    Packages::ensure_buildah()?;
    let root = cache_dir()?.join("buildah");
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let lock = File::create(root.join(".lock"))?;
    lock.lock().context("lock the directory of images")?;
    let started = Instant::now();
    let builder = Builder::prepare(root)?;
    let archive = builder.run(workspace, profile)?;
    let sbom = builder.describe(workspace, &archive)?;
    let bytes = fs::metadata(&archive)?.len();
    Ok(Built { archive, sbom, bytes, took: started.elapsed() })
}

/// Builds the image for tests and loads it into the stack of the environment.
///
/// Fails when there is no stack, or as [`build`] does.
pub fn on_stack(workspace: &Path) -> Result<(Stack, Built)> {
    let stack = Stack::from_env()?;
    let built = build(workspace, TEST_PROFILE)?;
    eprintln!("the image: {:.1} MB in {:.0} s", built.bytes as f64 / 1e6, built.took.as_secs_f64());
    stack.load_image(&built.archive)?;
    Ok((stack, built))
}

struct Builder {
    root: PathBuf,
}

impl Builder {
    fn prepare(root: PathBuf) -> Result<Self> {
        for name in ["storage", "run", "tmp", "target"] {
            fs::create_dir_all(root.join(name))?;
        }
        // Nothing is pulled, so there is nothing to verify; without a policy buildah refuses even local copies.
        fs::write(root.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
        Ok(Self { root })
    }

    fn run(&self, workspace: &Path, profile: &str) -> Result<PathBuf> {
        let base = self.root.join("base");
        if base.exists() {
            fs::remove_dir_all(&base)?;
        }
        lay_out_builder(&base.join("builder"))?;
        lay_out_runtime(&base.join("runtime"))?;
        let environment = "ENV PATH=/toolchain/bin:/usr/bin:/bin CARGO_HOME=/cargo CARGO_NET_OFFLINE=true\n";
        self.base(&base.join("builder"), BUILDER, environment)?;
        self.base(&base.join("runtime"), RUNTIME, "")?;
        fetch(workspace)?;
        self.monitor(workspace, profile)?;
        let archive = self.export()?;
        // Each build leaves the image before it without a name.
        checked(self.buildah("rmi").args(["--prune", "--force"])).context("remove older images")?;
        Ok(archive)
    }

    /// A base image of one directory.
    fn base(&self, root: &Path, tag: &str, instructions: &str) -> Result<()> {
        let file = root.with_extension("Dockerfile");
        fs::write(&file, format!("FROM scratch\nCOPY . /\n{instructions}"))?;
        checked(self.bud().arg("--file").arg(file).args(["--tag", tag]).arg(root))
            .with_context(|| format!("make the base image {tag}"))?;
        Ok(())
    }

    fn monitor(&self, workspace: &Path, profile: &str) -> Result<()> {
        let mut command = self.bud();
        for argument in [format!("BUILDER={BUILDER}"), format!("RUNTIME={RUNTIME}"), format!("PROFILE={profile}")] {
            command.arg("--build-arg").arg(argument);
        }
        for (outside, inside, mode) in mounts(workspace, &self.root)? {
            command.arg("--volume").arg(format!("{}:{inside}:{mode}", outside.display()));
        }
        command.args(["--tag", TAG]).arg(workspace);
        quietly::run(command, "building the monitor's image", &self.root.join("build.log"))
    }

    fn export(&self) -> Result<PathBuf> {
        let (archive, temporary) = (self.root.join("pod-monitor.tar"), self.root.join("tmp/pod-monitor.tar"));
        if temporary.exists() {
            fs::remove_file(&temporary)?;
        }
        let target = format!("docker-archive:{}:{TAG}", temporary.display());
        checked(self.buildah("push").args(["--quiet", TAG, &target])).context("export the image")?;
        fs::rename(temporary, &archive).with_context(|| format!("write {}", archive.display()))?;
        Ok(archive)
    }

    fn describe(&self, workspace: &Path, archive: &Path) -> Result<(PathBuf, Sbom)> {
        let (file, temporary) = (archive.with_extension("cdx.json"), self.root.join("tmp/pod-monitor.cdx.json"));
        // That of the image before it: must not lie beside this one, should there be none of it.
        if file.exists() {
            fs::remove_file(&file)?;
        }
        let sbom = Sbom::of(workspace, archive).context("write the bill of materials")?;
        fs::write(&temporary, sbom.text()).with_context(|| format!("write {}", temporary.display()))?;
        fs::rename(temporary, &file).with_context(|| format!("write {}", file.display()))?;
        Ok((file, sbom))
    }

    fn bud(&self) -> Command {
        let mut command = self.buildah("bud");
        // chroot needs neither a container runtime nor cgroups.
        command.args(["--isolation", "chroot", "--pull-never"]);
        command
    }

    fn buildah(&self, subcommand: &str) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.root.join("storage")).arg("--runroot").arg(self.root.join("run"));
        // Overlay mounts are not to be had everywhere, and the images are small.
        command.args(["--storage-driver", "vfs", subcommand]);
        if subcommand != "rmi" {
            command.arg("--signature-policy").arg(self.root.join("policy.json"));
        }
        command.env("TMPDIR", self.root.join("tmp"));
        command
    }
}

/// What the build sees of this machine: outside, inside, mode.
fn mounts(workspace: &Path, root: &Path) -> Result<Vec<(PathBuf, &'static str, &'static str)>> {
    let home = cargo_home()?;
    let sysroot = checked(Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace))?;
    let mut mounts = vec![
        ("/usr".into(), "/usr", "ro"),
        ("/etc/alternatives".into(), "/etc/alternatives", "ro"),
        (sysroot.trim().into(), "/toolchain", "ro"),
        (home.join("registry"), "/cargo/registry", "ro"),
        (root.join("target"), "/target", "rw"),
    ];
    // Where crates come from another source, they are cached under that source's name.
    let config = home.join("config.toml");
    if config.exists() {
        mounts.push((config, "/cargo/config.toml", "ro"));
    }
    Ok(mounts)
}

/// Downloads what the lock file names, since the build itself is offline.
fn fetch(workspace: &Path) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(["fetch", "--locked", "--target", &Rust::of(workspace)?.host]).current_dir(workspace);
    checked(&mut command).context("fetch the crates")?;
    Ok(())
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        return Ok(home.into());
    }
    Ok(PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"))
}

/// Empty places to mount on, and the links that a merged /usr has.
fn lay_out_builder(root: &Path) -> Result<()> {
    for place in ["cargo/registry", "etc/alternatives", "target", "tmp", "toolchain", "usr"] {
        fs::create_dir_all(root.join(place))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    for link in ["bin", "lib", "lib32", "lib64", "sbin"] {
        let outside = Path::new("/").join(link);
        if outside.is_symlink() {
            symlink(fs::read_link(&outside)?, root.join(link))?;
        } else if outside.exists() {
            bail!("/{link} is not a link into /usr, which the build mounts alone");
        }
    }
    Ok(())
}

/// The loader and the C library of this machine.
fn lay_out_runtime(root: &Path) -> Result<()> {
    // Not of our own program: cargo may have replaced that meanwhile.
    let needed = checked(Command::new("ldd").arg("/bin/sh"))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for word in needed.split_whitespace().filter(|word| word.starts_with('/')) {
        let path = Path::new(word);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("ld-linux") {
            files.push(path.to_owned());
        } else if name == "libc.so.6" {
            files.extend(GLIBC.iter().map(|library| path.with_file_name(library)));
        }
    }
    anyhow::ensure!(files.len() > GLIBC.len(), "ldd names no loader and libc.so.6:\n{needed}");
    for file in files.iter().filter(|file| file.exists()) {
        let copy = root.join(file.strip_prefix("/")?);
        fs::create_dir_all(copy.parent().context("a library is in a directory")?)?;
        fs::copy(file, copy).with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(())
}

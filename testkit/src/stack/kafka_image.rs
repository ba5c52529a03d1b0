//! An image by the name of Kafka's own, `apache/kafka`, which cannot be pulled here: the stack's Kafka and this machine's
//! Java, told by variables what to do as that one is.
//!
//! The variables are read by the class that reads them there (`kafka.docker.KafkaDockerWrapper`, part of Kafka), so that
//! what a manifest says is what the broker gets. Not shown by it: Kafka's own base system and its user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::Stack;
use super::image::{Image, hex, pack};
use super::process::{checked, find_program};
use super::versions::{KAFKA, cache_dir};

/// To be raised when the layout changes: archives of others are not taken then.
const LAYOUT: &str = "1";
const START: &str = include_str!("scripts/kafka-image.sh");
/// Parts of a Java home that only developers need.
const LEFT_OUT: &[&str] = &["jmods", "include", "man", "docs", "legal", "src.zip"];

/// Loads it into the stack, as `docker.io/apache/kafka` of the stack's version. Some 20 s the first time.
///
/// # Errors
/// When there is no Java on the PATH, or the stack runs no pods.
pub fn load(stack: &Stack) -> Result<()> {
    let java = java_home()?;
    let release = fs::read(java.join("release")).with_context(|| format!("read {}/release", java.display()))?;
    let key = hex(&Sha256::digest([&release, START.as_bytes(), KAFKA.as_bytes(), LAYOUT.as_bytes()].concat())[..4]);
    let archive = cache_dir()?.join(format!("kafka-image/{key}.tar"));
    if !archive.exists() {
        make(&java, &stack.artifacts.kafka_libs(), &archive).context("make an image of Kafka")?;
    }
    stack.load_image(&archive)
}

fn make(java: &Path, libs: &Path, archive: &Path) -> Result<()> {
    let root = archive.with_extension(format!("{}.root", std::process::id()));
    let made = lay_out(java, libs, &root).and_then(|()| {
        let tag = format!("docker.io/apache/kafka:{KAFKA}");
        pack(&Image { root: &root, tag: &tag, entrypoint: &["/bin/sh", "/etc/kafka/docker/run"], env: &[] }, archive)
    });
    // Hundreds of megabytes, also where it failed.
    let removed = fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()));
    made.and(removed)?;
    // So are those of other versions.
    for entry in fs::read_dir(archive.parent().context("an archive is in a directory")?)? {
        let path = entry?.path();
        if path != archive && path.extension().is_some_and(|extension| extension == "tar") {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Everything that a pod of another user than root needs to find and to write.
fn lay_out(java: &Path, libs: &Path, root: &Path) -> Result<()> {
    for dir in ["bin", "tmp", "etc/kafka/docker", "opt/kafka/config", "opt/kafka/logs"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for open in ["tmp", "opt/kafka/config", "opt/kafka/logs"] {
        fs::set_permissions(root.join(open), fs::Permissions::from_mode(0o1777))?;
    }
    copy_all(java, &root.join("opt/java"))?;
    copy_all(libs, &root.join("opt/kafka/libs"))?;
    fs::copy("/bin/busybox", root.join("bin/sh")).context("copy the static busybox")?;
    fs::write(root.join("etc/kafka/docker/run"), START)?;
    // The defaults of the image, which a manifest replaces.
    for default in ["server.properties", "log4j2.yaml", "tools-log4j2.yaml"] {
        fs::write(root.join("etc/kafka/docker").join(default), "")?;
    }
    for program in ["bin/java", "lib/server/libjvm.so"] {
        let needed = checked(Command::new("ldd").arg(java.join(program)))?;
        for library in needed.split_whitespace().map(Path::new).filter(|word| word.is_absolute()) {
            // Java's own are found beside it.
            if !library.starts_with(java) {
                let copy = root.join(library.strip_prefix("/")?);
                fs::create_dir_all(copy.parent().context("a library is in a directory")?)?;
                fs::copy(library, copy).with_context(|| format!("copy {}", library.display()))?;
            }
        }
    }
    Ok(())
}

/// Copies a directory with what its links point to.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let (path, name) = {
            let entry = entry?;
            (entry.path(), entry.file_name())
        };
        // A package may link to what another brings, which need not be installed.
        if LEFT_OUT.iter().any(|left_out| name == *left_out) || !path.exists() {
            continue;
        }
        if path.is_dir() {
            copy_all(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Where the Java of the PATH is.
fn java_home() -> Result<PathBuf> {
    let java = find_program("java").context("java is not on the PATH")?;
    let java = fs::canonicalize(&java).with_context(|| format!("find {}", java.display()))?;
    let home = java.parent().and_then(Path::parent).context("java is in a directory bin")?;
    Ok(home.to_owned())
}

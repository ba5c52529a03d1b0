//! Which Debian packages the files of an image come from: those of this machine, whose files they are copies of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::stack::image::hex;
use crate::stack::process::checked;

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    /// Advisories are about the source package: its name and version.
    pub(crate) source: (String, String),
    /// `ID` and `VERSION_ID` of os-release, like `debian` and `12`.
    pub(crate) system: (String, String),
}

/// The owners of those files (by their path in the image, with their SHA-256) that a package of this machine holds.
///
/// The place in the image is not the place on the machine, so a file is found by its name and told by its content.
/// Names are asked for in any directory: with a merged /usr, dpkg knows one of two paths.
pub(crate) fn owners(files: &BTreeMap<String, String>) -> Result<BTreeMap<String, Package>> {
    let names: BTreeSet<&str> = files.keys().filter_map(|path| path.rsplit('/').next()).collect();
    // It fails when one of them is not found, and tells about the others nevertheless.
    let output = Command::new("dpkg-query")
        .arg("--search")
        .args(names.iter().map(|name| format!("*/{name}")))
        .output()
        .context("run dpkg-query: this machine is not a Debian or Ubuntu")?;
    let mut by_content: BTreeMap<(String, String), String> = BTreeMap::new();
    for (package, path) in String::from_utf8_lossy(&output.stdout).lines().filter_map(parse_owned) {
        let name = path.rsplit('/').next().unwrap_or_default();
        if names.contains(name) && Path::new(path).is_file() {
            let digest = hex(&Sha256::digest(fs::read(path).with_context(|| format!("read {path}"))?));
            by_content.insert((name.to_owned(), digest), package.to_owned());
        }
    }
    let owner = |(path, digest): (&String, &String)| {
        let name = path.rsplit('/').next()?.to_owned();
        Some((path.clone(), by_content.get(&(name, digest.clone()))?.clone()))
    };
    let owned: BTreeMap<String, String> = files.iter().filter_map(owner).collect();
    let known = describe(&owned.values().cloned().collect())?;
    Ok(owned.into_iter().filter_map(|(path, package)| Some((path, known.get(&package)?.clone()))).collect())
}

/// A line such as `libc6:amd64, libc6:i386: /lib/file`: the first package, and the path.
fn parse_owned(line: &str) -> Option<(&str, &str)> {
    let at = line.find(": /").filter(|_| !line.starts_with("diversion by "))?;
    Some((line[..at].split(", ").next()?, &line[at + 2..]))
}

fn describe(packages: &BTreeSet<String>) -> Result<BTreeMap<String, Package>> {
    if packages.is_empty() {
        return Ok(BTreeMap::new());
    }
    let system = system(&fs::read_to_string("/etc/os-release").context("read /etc/os-release")?);
    let fields = ["Package", "Version", "Architecture", "source:Package", "source:Version"];
    let format: String = fields.iter().map(|field| format!("${{{field}}}\\t")).collect();
    let mut known = BTreeMap::new();
    for package in packages {
        let told = checked(Command::new("dpkg-query").args(["--show", "--showformat", &format]).arg(package))?;
        let [name, version, architecture, source, source_version, ..] = told.split('\t').collect::<Vec<_>>()[..] else {
            anyhow::bail!("dpkg-query printed of {package}: {told:?}");
        };
        let [name, version, architecture] = [name, version, architecture].map(str::to_owned);
        let source = (source.to_owned(), source_version.to_owned());
        known.insert(package.clone(), Package { name, version, architecture, source, system: system.clone() });
    }
    Ok(known)
}

fn system(os_release: &str) -> (String, String) {
    let value = |key: &str| {
        let value = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    (value("ID"), value("VERSION_ID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_dpkg_are_read() {
        assert_eq!(parse_owned("libc6:amd64: /lib/a/libc.so.6"), Some(("libc6:amd64", "/lib/a/libc.so.6")));
        assert_eq!(parse_owned("one:amd64, one:i386: /usr/a: /b"), Some(("one:amd64", "/usr/a: /b")));
        assert_eq!(parse_owned("diversion by dash from: /bin/sh"), None);
        let told = system("PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\n");
        assert_eq!(told, ("debian".to_owned(), "12".to_owned()));
    }

    #[test]
    fn a_file_is_told_by_its_content_wherever_it_lies() {
        let copied = "/usr/share/common-licenses/Apache-2.0";
        let digest = hex(&Sha256::digest(fs::read(copied).unwrap()));
        let files = [("/opt/Apache-2.0", digest.clone()), ("/other/name", digest), ("/x/Apache-2.0", "00".to_owned())];
        let files = files.into_iter().map(|(path, digest)| (path.to_owned(), digest)).collect();
        let owners: Vec<_> = owners(&files).unwrap().into_iter().map(|(path, owner)| (path, owner.name)).collect();
        assert_eq!(owners, [("/opt/Apache-2.0".to_owned(), "base-files".to_owned())]);
    }
}

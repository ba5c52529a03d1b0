//! The crates of a binary, as cargo resolves them for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::stack::process::checked;

/// A crate, by its name and version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// What is known of a crate.
#[derive(Default)]
pub(crate) struct Crate {
    /// An SPDX expression; empty when it names none.
    pub(crate) licence: String,
    /// SHA-256 of the package at the registry; `None` for our own.
    pub(crate) checksum: Option<String>,
    /// Whether it ends up in the binary. Otherwise it is a procedural macro, or only those need it.
    pub(crate) linked: bool,
    pub(crate) needs: BTreeSet<Id>,
}

/// The crates that `package` consists of on `target` with default features, itself included.
///
/// By `cargo tree`, which chooses features as a build of this package does: `cargo metadata`, which the usual SBOM
/// tools are built on, would add what only our tests and other members of the workspace ask for.
pub(crate) fn of(workspace: &Path, package: &str, target: &str) -> Result<BTreeMap<Id, Crate>> {
    let tree = |edges: &str| {
        let mut command = Command::new("cargo");
        command.args(["tree", "--locked", "--package", package, "--target", target, "--edges", edges]);
        // A tab first, since the depth is printed without one.
        command.args(["--prefix", "depth", "--format", "\t{p}\t{l}"]).current_dir(workspace);
        checked(&mut command).with_context(|| format!("list the crates of {package}"))
    };
    let mut crates = parse_tree(&tree("normal")?)?;
    for id in parse_tree(&tree("normal,no-proc-macro")?)?.keys() {
        crates.get_mut(id).with_context(|| format!("cargo tree is at odds with itself about {}", id.name))?.linked =
            true;
    }
    let lock = workspace.join("Cargo.lock");
    let checksums = fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
    let mut checksums = parse_lock(&checksums);
    for (id, known) in &mut crates {
        known.checksum =
            checksums.remove(id).with_context(|| format!("Cargo.lock has no {} {}", id.name, id.version))?;
    }
    Ok(crates)
}

/// Lines such as `2⇥serde v1.0.228 (/path) (proc-macro)⇥MIT OR Apache-2.0 (*)`, the depth first.
fn parse_tree(tree: &str) -> Result<BTreeMap<Id, Crate>> {
    let mut crates: BTreeMap<Id, Crate> = BTreeMap::new();
    let mut above: Vec<Id> = Vec::new();
    for line in tree.lines() {
        let parse = || {
            let [depth, package, licence] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
            let (name, version) = package.split_once(" v")?;
            let version = version.split(' ').next()?.to_owned();
            let id = Id { name: name.to_owned(), version };
            // `(*)`: what it needs was told before. The slash is how licences were joined before SPDX expressions.
            let licence = licence.trim_end_matches(" (*)").replace('/', " OR ");
            Some((depth.parse::<usize>().ok()?, id, licence))
        };
        let (depth, id, licence) = parse().with_context(|| format!("cargo tree printed {line:?}"))?;
        above.truncate(depth);
        if let Some(parent) = above.last().and_then(|parent| crates.get_mut(parent)) {
            parent.needs.insert(id.clone());
        }
        crates.entry(id.clone()).or_default().licence = licence;
        above.push(id);
    }
    Ok(crates)
}

fn parse_lock(lock: &str) -> BTreeMap<Id, Option<String>> {
    let packages = lock.split("[[package]]").skip(1).filter_map(|package| {
        let value = |key: &str| {
            let value = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(value.trim_matches('"').to_owned())
        };
        Some((Id { name: value("name")?, version: value("version")? }, value("checksum")))
    });
    packages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, version: &str) -> Id {
        Id { name: name.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn a_tree_tells_who_needs_whom() {
        let tree = "0\tour v0.1.0 (/somewhere)\tApache-2.0\n1\ta v1.0.0+c.2\tMIT/Apache-2.0\n2\tb v2.0.0\tMIT\n\
                    1\tm v3.0.0 (proc-macro)\t\n2\tb v2.0.0\tMIT (*)\n";
        let crates = parse_tree(tree).unwrap();
        let needs = |of: &Id| crates[of].needs.iter().cloned().collect::<Vec<_>>();
        let [our, a, b, m] = [id("our", "0.1.0"), id("a", "1.0.0+c.2"), id("b", "2.0.0"), id("m", "3.0.0")];
        assert_eq!(crates.keys().cloned().collect::<Vec<_>>(), [a.clone(), b.clone(), m.clone(), our.clone()]);
        assert_eq!((needs(&our), needs(&a), needs(&m)), (vec![a.clone(), m.clone()], vec![b.clone()], vec![b.clone()]));
        let licences = [&a, &b, &m].map(|id| crates[id].licence.as_str());
        assert_eq!(licences, ["MIT OR Apache-2.0", "MIT", ""]);
        assert!(parse_tree("something else\n").is_err());
    }

    #[test]
    fn a_lock_file_tells_checksums() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"r\"\nchecksum = \"c0\"\n\
                    \n[[package]]\nname = \"our\"\nversion = \"0.1.0\"\ndependencies = [\n \"a\",\n]\n";
        let told = BTreeMap::from([(id("a", "1.0.0"), Some("c0".to_owned())), (id("our", "0.1.0"), None)]);
        assert_eq!(parse_lock(lock), told);
    }
}

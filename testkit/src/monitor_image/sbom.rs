//! The bill of materials of an image: CycloneDX 1.5, JSON.
//!
//! ```text
//!  archive ---- files ----> binary    ---- cargo tree, Cargo.lock ----> crates, the C libraries within them
//!                     \---> the rest  ---- dpkg ----------------------> Debian packages
//! ```
//! Each regular file of the image is once a component of type `file`, below what it belongs to. The same archive gives
//! the same bytes: the time is the image's own. No path or address of the machine is in it: references are purls.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::contents::Contents;
use super::crates::{self, Crate, Id};
use super::debian::{self, Package};
use crate::stack::process::checked;

const PACKAGE: &str = "pod-monitor";
/// C libraries in the source packages of crates, which say so behind the `+` of their version: the crate, the library,
/// where it comes from, its licence.
const VENDORED: &[(&str, &str, &str, &str)] = &[
    ("rdkafka-sys", "librdkafka", "confluentinc/librdkafka", "BSD-2-Clause"),
    ("zstd-sys", "zstd", "facebook/zstd", "BSD-3-Clause OR GPL-2.0-only"),
];

/// A bill of materials.
#[derive(Clone, Debug)]
pub struct Sbom {
    /// The document.
    pub document: Value,
    /// Crates that are in the binary.
    pub linked: usize,
    /// Crates that only the compiler ran, of scope `excluded`: procedural macros and what only they need.
    pub compile_time: usize,
    /// Files beside the binary that a Debian package holds.
    pub libraries: usize,
    /// The number of those packages.
    pub packages: usize,
    /// Files of no package, by their path in the image.
    pub unowned: Vec<String>,
}

impl Sbom {
    /// Describes the image in an archive that was built from `workspace` on this machine.
    ///
    /// Fails when the archive cannot be read, or when cargo or dpkg cannot say what is in it.
    pub fn of(workspace: &Path, archive: &Path) -> Result<Self> {
        let contents = Contents::of(archive).with_context(|| format!("read the image {}", archive.display()))?;
        let rust = Rust::of(workspace)?;
        let crates = crates::of(workspace, PACKAGE, &rust.host)?;
        let owners = debian::owners(&contents.files)?;
        assemble(&contents, &crates, &owners, &rust)
    }

    /// Its bytes.
    pub fn text(&self) -> String {
        format!("{:#}\n", self.document)
    }
}

/// The compiler: its standard library is part of the binary.
pub(super) struct Rust {
    version: String,
    pub(super) host: String,
}

impl Rust {
    pub(super) fn of(workspace: &Path) -> Result<Self> {
        let told = checked(Command::new("rustc").arg("-vV").current_dir(workspace))?;
        let value = |key: &str| {
            let value = told.lines().find_map(|line| line.strip_prefix(key));
            value.map(str::to_owned).with_context(|| format!("rustc -vV does not say {key:?}"))
        };
        Ok(Self { version: value("release: ")?, host: value("host: ")? })
    }
}

/// Components, and who depends on whom.
#[derive(Default)]
struct Parts {
    components: Vec<Value>,
    dependencies: Vec<Value>,
}

impl Parts {
    fn add(&mut self, component: Value, needs: Vec<String>) -> String {
        let reference = component["bom-ref"].as_str().unwrap_or_default().to_owned();
        self.components.push(component);
        self.dependencies.push(json!({ "ref": reference, "dependsOn": needs }));
        reference
    }
}

fn assemble(
    contents: &Contents,
    crates: &BTreeMap<Id, Crate>,
    owners: &BTreeMap<String, Package>,
    rust: &Rust,
) -> Result<Sbom> {
    let binary = contents.entrypoint.as_ref().context("the image has no entrypoint")?;
    let digest = contents.files.get(binary).with_context(|| format!("{binary} is no file of the image"))?;
    let mut parts = Parts::default();
    let (mut linked, mut compile_time) = (0, 0);
    let mut in_image = Vec::new();
    for (id, known) in crates {
        let mut needs: Vec<String> = known.needs.iter().map(cargo_purl).collect();
        if id.name == PACKAGE {
            needs.push(parts.add(standard_library(rust), Vec::new()));
            in_image.push(parts.add(application(id, known, binary, digest), needs));
            continue;
        }
        needs.extend(vendored(id)?.map(|library| parts.add(library, Vec::new())));
        parts.add(library(id, known), needs);
        *(if known.linked { &mut linked } else { &mut compile_time }) += 1;
    }
    let mut packages: BTreeMap<&Package, Vec<Value>> = BTreeMap::new();
    let mut unowned = Vec::new();
    for (path, digest) in contents.files.iter().filter(|(path, _)| *path != binary) {
        match owners.get(path) {
            Some(package) => packages.entry(package).or_default().push(file(path, digest)),
            None => {
                unowned.push(path.clone());
                in_image.push(parts.add(file(path, digest), Vec::new()));
            }
        }
    }
    let libraries = packages.values().map(Vec::len).sum();
    let count = packages.len();
    in_image.extend(packages.into_iter().map(|(package, files)| parts.add(debian_package(package, files), Vec::new())));
    let image = image(contents);
    parts.dependencies.push(json!({ "ref": image["bom-ref"], "dependsOn": in_image }));
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": contents.created.as_deref().unwrap_or("1970-01-01T00:00:00Z"),
            "tools": { "components": [{
                "type": "application", "name": "cargo xtask image", "version": env!("CARGO_PKG_VERSION"),
            }] },
            "component": image,
        },
        "components": parts.components,
        "dependencies": parts.dependencies,
    });
    Ok(Sbom { document, linked, compile_time, libraries, packages: count, unowned })
}

fn image(contents: &Contents) -> Value {
    let mut properties = vec![json!({ "name": "image:id", "value": contents.id })];
    properties.extend(contents.tags.iter().map(|tag| json!({ "name": "image:tag", "value": tag })));
    // Not a digest of a registry's manifest: that comes to be when it is pushed.
    json!({
        "type": "container", "bom-ref": "image", "name": PACKAGE, "version": contents.id, "properties": properties,
    })
}

fn application(id: &Id, known: &Crate, path: &str, digest: &str) -> Value {
    let mut component = library(id, known);
    component["type"] = "application".into();
    component["hashes"] = hashes(digest);
    component["components"] = json!([file(path, digest)]);
    component
}

fn library(id: &Id, known: &Crate) -> Value {
    let purl = cargo_purl(id);
    let mut component = json!({
        "type": "library", "bom-ref": purl, "name": id.name, "version": id.version, "purl": purl,
        "scope": if known.linked { "required" } else { "excluded" },
    });
    if !known.licence.is_empty() {
        component["licenses"] = json!([{ "expression": known.licence }]);
    }
    if let Some(checksum) = &known.checksum {
        component["hashes"] = hashes(checksum);
    }
    component
}

fn standard_library(rust: &Rust) -> Value {
    let purl = format!("pkg:github/rust-lang/rust@{}", encoded(&rust.version));
    json!({
        "type": "library", "bom-ref": purl, "name": "std", "version": rust.version, "purl": purl, "scope": "required",
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    })
}

/// The C library in a crate of [`VENDORED`]. Fails when its version does not say which.
fn vendored(id: &Id) -> Result<Option<Value>> {
    let Some((_, name, repository, licence)) = VENDORED.iter().find(|(of, ..)| *of == id.name) else { return Ok(None) };
    let built = id.version.split_once('+').map(|(_, built)| built.trim_start_matches(|c: char| !c.is_ascii_digit()));
    let version = built.filter(|version| !version.is_empty());
    let version = version.with_context(|| format!("{} {} does not say which {name} it has", id.name, id.version))?;
    let purl = format!("pkg:github/{repository}@v{}", encoded(version));
    Ok(Some(json!({
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "scope": "required",
        "licenses": [{ "expression": licence }],
    })))
}

fn debian_package(package: &Package, files: Vec<Value>) -> Value {
    let (system, release) = &package.system;
    let (source, source_version) = &package.source;
    let purl = format!(
        "pkg:deb/{}/{}@{}?arch={}&distro={}&upstream={}",
        encoded(system),
        encoded(&package.name),
        encoded(&package.version),
        encoded(&package.architecture),
        encoded(&format!("{system}-{release}")),
        encoded(&format!("{source}@{source_version}")),
    );
    json!({
        "type": "library", "bom-ref": purl, "name": package.name, "version": package.version, "purl": purl,
        "scope": "required", "components": files,
    })
}

fn file(path: &str, digest: &str) -> Value {
    json!({ "type": "file", "bom-ref": format!("file:{path}"), "name": path, "hashes": hashes(digest) })
}

fn hashes(digest: &str) -> Value {
    json!([{ "alg": "SHA-256", "content": digest }])
}

fn cargo_purl(id: &Id) -> String {
    format!("pkg:cargo/{}@{}", encoded(&id.name), encoded(&id.version))
}

/// As purls want it: all but letters, digits and `.-_~:` by their code.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'-' | b'_' | b'~' | b':' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, version: &str) -> Id {
        Id { name: name.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn a_crate_says_which_library_it_has() {
        let version = |id: &Id| vendored(id).map(|library| library.map(|library| library["purl"].clone()));
        let of = version(&id("rdkafka-sys", "4.10.0+2.12.1")).unwrap();
        assert_eq!(of, Some(json!("pkg:github/confluentinc/librdkafka@v2.12.1")));
        let of = version(&id("zstd-sys", "2.1.3+zstd.1.5.7")).unwrap();
        assert_eq!(of, Some(json!("pkg:github/facebook/zstd@v1.5.7")));
        assert_eq!(version(&id("serde", "1.0.0+2")).unwrap(), None);
        assert!(vendored(&id("rdkafka-sys", "4.10.0")).is_err());
    }

    #[test]
    fn purls_are_encoded() {
        assert_eq!(cargo_purl(&id("a-sys", "1.0.0+2.1")), "pkg:cargo/a-sys@1.0.0%2B2.1");
        assert_eq!(encoded("1:3.0~deb12+u1 /"), "1:3.0~deb12%2Bu1%20%2F");
    }

    #[test]
    fn a_file_of_no_package_is_listed() {
        let files = ["/bin/it", "/lib/planted.so"].map(|path| (path.to_owned(), "00".repeat(32)));
        let contents = Contents {
            id: "sha256:1".to_owned(),
            tags: Vec::new(),
            created: None,
            entrypoint: Some("/bin/it".to_owned()),
            files: files.into(),
        };
        let crates = BTreeMap::from([(id(PACKAGE, "0.1.0"), Crate::default())]);
        let rust = Rust { version: "1.95.0".to_owned(), host: String::new() };
        let sbom = assemble(&contents, &crates, &BTreeMap::new(), &rust).unwrap();
        assert_eq!(sbom.unowned, ["/lib/planted.so"]);
        let names: Vec<_> = sbom.document["components"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["std", PACKAGE, "/lib/planted.so"]);
    }
}

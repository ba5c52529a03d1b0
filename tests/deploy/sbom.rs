//! The bill of materials of the image, against the image itself: its archive unpacked by tar, digests by sha256sum,
//! crates by what cargo and the binary say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;
use testkit::{
    monitor_image::{TAG, sbom::Sbom},
    stack::process::checked,
};

use crate::support::image;

/// Far below what a distribution's base alone would weigh; the image of the profile for tests has 36 MB.
const BYTES_MAX: u64 = 60_000_000;

/// An image, read without the code that describes it.
struct Unpacked {
    archive: PathBuf,
    root: PathBuf,
    id: String,
    config: Value,
    sbom: Sbom,
    /// The SHA-256 of each regular file, by its path in the image.
    files: BTreeMap<String, String>,
}

fn run(program: &str, arguments: &[&str]) -> String {
    checked(Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn unpacked() -> &'static Unpacked {
    static UNPACKED: OnceLock<Unpacked> = OnceLock::new();
    UNPACKED.get_or_init(|| {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deploy-sbom");
        if scratch.exists() {
            fs::remove_dir_all(&scratch).unwrap();
        }
        let root = scratch.join("root");
        fs::create_dir_all(&root).unwrap();
        // A build from another checkout may replace the cache's own.
        let archive = scratch.join("image.tar");
        fs::copy(image(), &archive).unwrap();
        let (outer, inner) = (scratch.display().to_string(), root.display().to_string());
        run("tar", &["-xf", &archive.display().to_string(), "-C", &outer]);
        let manifest: Value = serde_json::from_slice(&fs::read(scratch.join("manifest.json")).unwrap()).unwrap();
        for layer in manifest[0]["Layers"].as_array().unwrap() {
            run("tar", &["-xf", &scratch.join(layer.as_str().unwrap()).display().to_string(), "-C", &inner]);
        }
        let config = scratch.join(manifest[0]["Config"].as_str().unwrap());
        let settings = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        let (id, _) = digests(&run("sha256sum", &[&config.display().to_string()])).remove(0);
        let told = run("find", &[&inner, "-type", "f", "-exec", "sha256sum", "{}", "+"]);
        let inside = |(digest, path): (String, String)| (path.strip_prefix(&inner).unwrap().to_owned(), digest);
        let files: BTreeMap<_, _> = digests(&told).into_iter().map(inside).collect();
        assert!(files.len() > 8, "{files:?}");
        let sbom = Sbom::of(Path::new(env!("CARGO_MANIFEST_DIR")), &archive).unwrap();
        Unpacked { archive, root, id: format!("sha256:{id}"), config: settings, sbom, files }
    })
}

/// What sha256sum prints: digests and paths.
fn digests(told: &str) -> Vec<(String, String)> {
    let split = |line: &str| line.split_once("  ").map(|(digest, path)| (digest.to_owned(), path.to_owned()));
    told.lines().map(|line| split(line).unwrap()).collect()
}

fn components(document: &Value) -> &[Value] {
    document["components"].as_array().unwrap()
}

/// The files that a component has below it, or is: path and digest.
fn files_of(component: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if component["type"] == "file" {
        return vec![(text(&component["name"]), text(&component["hashes"][0]["content"]))];
    }
    component["components"].as_array().map_or_else(Vec::new, |inner| inner.iter().flat_map(files_of).collect())
}

/// Where a document and the files of an image differ: each path that only one of them has, or with another digest.
fn differences(document: &Value, files: &BTreeMap<String, String>) -> BTreeSet<String> {
    let told: BTreeSet<_> = components(document).iter().flat_map(files_of).collect();
    let there: BTreeSet<_> = files.iter().map(|(path, digest)| (path.clone(), digest.clone())).collect();
    told.symmetric_difference(&there).map(|(path, _)| path.clone()).collect()
}

/// The crates of a document with their scope.
fn crates_of(document: &Value) -> BTreeMap<(String, String), &str> {
    let is_crate = |component: &&Value| component["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let told = components(document).iter().filter(is_crate);
    told.map(|c| ((text(&c["name"]), text(&c["version"])), c["scope"].as_str().unwrap())).collect()
}

/// All components, those within others too.
fn every<'a>(components: &'a [Value], found: &mut Vec<&'a Value>) {
    for component in components {
        found.push(component);
        every(component["components"].as_array().map_or(&[], Vec::as_slice), found);
    }
}

/// What CycloneDX 1.5 asks of a component, as far as ours go.
fn is_valid(component: &Value) -> bool {
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let is_hash = |hash: &Value| {
        let digits = hash["content"].as_str().unwrap_or_default();
        hash["alg"] == "SHA-256" && digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    };
    let all = |key: &str, good: &dyn Fn(&Value) -> bool| {
        component.get(key).is_none_or(|list| list.as_array().is_some_and(|list| list.iter().all(good)))
    };
    let one_of = |key: &str, words: &[&str]| words.contains(&component[key].as_str().unwrap_or_default());
    one_of("type", &["application", "container", "file", "library"])
        && is_text(&component["name"])
        && is_text(&component["bom-ref"])
        && (component.get("scope").is_none() || one_of("scope", &["required", "excluded"]))
        && component.get("purl").is_none_or(|purl| purl.as_str().is_some_and(|purl| purl.starts_with("pkg:")))
        && all("hashes", &is_hash)
        && all("licenses", &|licence| is_text(&licence["expression"]))
        && all("properties", &|property| is_text(&property["name"]) && is_text(&property["value"]))
}

#[test]
fn the_image_is_small_runs_as_nobody_and_holds_one_program() {
    let image = unpacked();
    let bytes = fs::metadata(&image.archive).unwrap().len();
    assert!(bytes < BYTES_MAX, "{bytes} bytes");
    assert_eq!(image.config["config"]["User"], "65532:65532", "by number, for runAsNonRoot");
    let root = image.root.display().to_string();
    // The loader and the libraries may be executable, too: what can be run by itself has no ".so" in its name.
    let runnable =
        run("find", &[&root, "(", "-type", "f", "-o", "-type", "l", ")", "-perm", "/111", "!", "-name", "*.so*"]);
    let runnable: Vec<&str> = runnable.lines().map(|path| path.strip_prefix(&root).unwrap()).collect();
    assert_eq!(runnable, ["/usr/local/bin/pod-monitor"], "no shell, no package manager");
}

#[test]
fn the_sbom_is_valid_and_names_the_image() {
    let Unpacked { id, sbom, .. } = unpacked();
    let document = &sbom.document;
    assert_eq!(
        (&document["bomFormat"], &document["specVersion"], &document["version"]),
        (&"CycloneDX".into(), &"1.5".into(), &1.into())
    );
    assert!(document["metadata"]["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    let image = &document["metadata"]["component"];
    let mut all = vec![image];
    every(components(document), &mut all);
    assert_eq!(all.iter().filter(|component| !is_valid(component)).collect::<Vec<_>>(), Vec::<&&Value>::new());
    let references: BTreeSet<&str> = all.iter().map(|component| component["bom-ref"].as_str().unwrap()).collect();
    assert_eq!(references.len(), all.len(), "each reference is of one component");
    for one in document["dependencies"].as_array().unwrap() {
        let mut named = one["dependsOn"].as_array().unwrap().iter().chain([&one["ref"]]);
        assert!(named.all(|reference| references.contains(reference.as_str().unwrap())), "{one}");
    }
    assert_eq!(&image["version"], id);
    let properties = image["properties"].as_array().unwrap();
    assert!(properties.iter().any(|property| property["name"] == "image:tag" && property["value"] == TAG), "{image}");
}

#[test]
fn the_sbom_lies_beside_the_archive() {
    let Unpacked { archive, sbom, .. } = unpacked();
    let beside = fs::read_to_string(image().with_extension("cdx.json")).unwrap_or_default();
    // A build of another checkout may have come between: then the archive is not ours any more, either.
    let is_ours = || fs::read(image()).unwrap() == fs::read(archive).unwrap();
    assert!(beside == sbom.text() || !is_ours(), "{beside}");
}

#[test]
fn the_sbom_lists_each_file_of_the_image_with_its_digest_and_owner() {
    let Unpacked { root, sbom, files, .. } = unpacked();
    assert_eq!(differences(&sbom.document, files), BTreeSet::new());
    let is_elf = |path: &&String| fs::read(root.join(&path[1..])).unwrap().starts_with(b"\x7fELF");
    let elves: BTreeSet<&String> = files.keys().filter(is_elf).collect();
    for name in ["/pod-monitor", "/libssl.so.3", "/libcrypto.so.3", "/libz.so.1", "/libc.so.6"] {
        assert!(elves.iter().any(|path| path.ends_with(name)), "{name}: {elves:?}");
    }
    let mut of_packages = 0;
    for component in components(&sbom.document) {
        let purl = component["purl"].as_str().unwrap_or_default();
        if purl.starts_with("pkg:deb/") {
            let version = run("dpkg-query", &["-W", "-f=${Version}\n", component["name"].as_str().unwrap()]);
            assert_eq!(Some(version.lines().next().unwrap()), component["version"].as_str(), "{purl}");
            of_packages += files_of(component).len();
        }
    }
    assert_eq!((of_packages, sbom.unowned.as_slice()), (elves.len() - 1, [].as_slice()), "all but the binary");
}

/// What `cargo tree` lists for these edges.
fn tree(edges: &str, host: &str) -> BTreeSet<(String, String)> {
    let arguments = ["tree", "--locked", "--package=pod-monitor", "--target", host, "--edges", edges, "--prefix=none"];
    let told = run("cargo", &arguments);
    let parse = |line: &str| {
        let mut words = line.split(' ');
        (words.next().unwrap().to_owned(), words.next().unwrap().strip_prefix('v').unwrap().to_owned())
    };
    told.lines().map(parse).collect()
}

#[test]
fn the_sbom_lists_exactly_the_crates_of_the_binary() {
    let Unpacked { root, sbom, .. } = unpacked();
    let told = crates_of(&sbom.document);
    let host = run("rustc", &["-vV"]).lines().find_map(|line| Some(line.strip_prefix("host: ")?.to_owned())).unwrap();
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), tree("normal", &host));
    let linked: BTreeSet<_> =
        told.iter().filter(|(_, scope)| **scope == "required").map(|(id, _)| id.clone()).collect();
    assert_eq!(linked, tree("normal,no-proc-macro", &host));
    assert_eq!(
        (linked.len() - 1, told.len() - linked.len()),
        (sbom.linked, sbom.compile_time),
        "our own is no other's"
    );
    // Only for tests, only for build scripts, only in a macro.
    for (name, linked) in
        [("proptest", None), ("cc", None), ("syn", Some("excluded")), ("rdkafka-sys", Some("required"))]
    {
        assert_eq!(told.iter().find(|((told, _), _)| told == name).map(|(_, scope)| *scope), linked, "{name}");
    }
    // Panics name their place: `.../registry/src/<index>/<crate>-<version>/src/...`.
    let binary = fs::read(root.join("usr/local/bin/pod-monitor")).unwrap();
    let names: BTreeSet<String> = linked.iter().map(|(name, version)| format!("{name}-{version}")).collect();
    let text = String::from_utf8_lossy(&binary);
    let says = text.split("/registry/src/").skip(1).filter_map(|path| path.split('/').nth(1));
    let says: BTreeSet<String> = says.map(str::to_owned).collect();
    assert!(says.len() > 50, "the binary names few crates: {says:?}");
    assert_eq!(says.difference(&names).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_sbom_says_where_each_crate_is_from_and_what_it_brings() {
    let document = &unpacked().sbom.document;
    for component in components(document) {
        let purl = component["purl"].as_str().unwrap();
        let hash = component["hashes"][0]["content"].as_str();
        let hash_ok = hash.is_some_and(|hash| hash.len() == 64) || !purl.starts_with("pkg:cargo/");
        let licence_ok = component["licenses"][0]["expression"].is_string() || purl.starts_with("pkg:deb/");
        assert!(hash_ok && licence_ok, "{component}");
    }
    // The library that this test is linked with, by itself: of the same lock file.
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let version = |name: &str| components(document).iter().find(|c| c["name"] == name).map(|c| &c["version"]);
    assert_eq!(version("librdkafka").unwrap(), &librdkafka);
    assert!(version("zstd").is_some() && version("std").is_some());
}

/// All texts in a document.
fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(values) => values.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

#[test]
fn the_sbom_names_no_path_and_no_host_of_the_machine() {
    let Unpacked { sbom, files, .. } = unpacked();
    let mut found = Vec::new();
    texts(&sbom.document, &mut found);
    let own = [env!("CARGO_MANIFEST_DIR").to_owned(), std::env::var("HOME").unwrap(), "://".to_owned()];
    for text in found {
        let bad = own.iter().find(|own| text.contains(own.as_str()));
        let path = text.strip_prefix("file:").unwrap_or(text);
        assert!(bad.is_none() && (!path.starts_with('/') || files.contains_key(path)), "{text}");
        let qualified = text.starts_with("pkg:cargo/") && text.contains(['?', '#']);
        assert!(!qualified, "{text} is more than a name and a version");
    }
}

#[test]
fn a_file_that_an_sbom_lacks_invents_or_mistakes_is_found() {
    let Unpacked { sbom, files, .. } = unpacked();
    let path = |path: &str| BTreeSet::from([path.to_owned()]);
    let mut planted = files.clone();
    planted.insert("/usr/local/lib/planted.so".to_owned(), "00".repeat(32));
    assert_eq!(differences(&sbom.document, &planted), path("/usr/local/lib/planted.so"));
    let (first, _) = files.first_key_value().unwrap();
    let mut fewer = files.clone();
    fewer.remove(first);
    assert_eq!(differences(&sbom.document, &fewer), path(first));
    let mut other = files.clone();
    other.insert(first.clone(), "00".repeat(32));
    assert_eq!(differences(&sbom.document, &other), path(first));
}

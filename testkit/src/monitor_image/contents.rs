//! What is in an image: its files and its names, as its archive says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::stack::image::hex;

/// An image.
pub(crate) struct Contents {
    /// `sha256:` and the digest of its configuration: what kubelet and containerd call it.
    pub(crate) id: String,
    pub(crate) tags: Vec<String>,
    /// When it was made; RFC 3339.
    pub(crate) created: Option<String>,
    /// What its container starts: a path in the image.
    pub(crate) entrypoint: Option<String>,
    /// The SHA-256 of each regular file, by its path in the image, which begins with a slash.
    pub(crate) files: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    created: Option<String>,
    config: Run,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Run {
    entrypoint: Option<Vec<String>>,
}

impl Contents {
    /// Reads an archive in docker's format, of one image whose layers are not compressed.
    pub(crate) fn of(archive: &Path) -> Result<Self> {
        let manifests: Vec<Manifest> = serde_json::from_slice(&member(archive, "manifest.json")?)?;
        let [manifest] = manifests.as_slice() else { anyhow::bail!("it holds {} images, not one", manifests.len()) };
        let config = member(archive, &manifest.config)?;
        let id = format!("sha256:{}", hex(&Sha256::digest(&config)));
        let Config { created, config } = serde_json::from_slice(&config).context("read the image's configuration")?;
        let mut files = BTreeMap::new();
        for layer in &manifest.layers {
            let bytes = member(archive, layer)?;
            apply(&bytes, &mut files).with_context(|| format!("read the layer {layer}"))?;
        }
        let entrypoint = config.entrypoint.and_then(|words| words.into_iter().next());
        Ok(Self { id, tags: manifest.repo_tags.clone().unwrap_or_default(), created, entrypoint, files })
    }
}

fn member(archive: &Path, name: &str) -> Result<Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(archive)?);
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() == Path::new(name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
    }
    anyhow::bail!("it holds no {name}")
}

/// Lays a layer over the files of those below it.
fn apply(layer: &[u8], files: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in tar::Archive::new(layer).entries()? {
        let mut entry = entry?;
        let path = absolute(&entry.path()?);
        let (directory, name) = path.rsplit_once('/').unwrap_or_default();
        // How a layer says that something below it is gone.
        if let Some(gone) = name.strip_prefix(".wh.") {
            let all = gone == ".wh..opq";
            let gone = if all { directory.to_owned() } else { format!("{directory}/{gone}") };
            files.retain(|file, _| *file != gone && !file.starts_with(&format!("{gone}/")));
            continue;
        }
        let kind = entry.header().entry_type();
        if kind.is_hard_link() {
            let other = absolute(&entry.link_name()?.context("a hard link names no file")?);
            let digest = files.get(&other).with_context(|| format!("{path} is {other}, which is not there"))?.clone();
            files.insert(path, digest);
        } else if kind.is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.insert(path, hex(&Sha256::digest(&bytes)));
        } else if !kind.is_dir() {
            files.remove(&path);
        }
    }
    Ok(())
}

fn absolute(path: &Path) -> String {
    let path = path.to_string_lossy();
    format!("/{}", path.trim_start_matches("./").trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(members: &[(&str, &str)]) -> Vec<u8> {
        let mut layer = tar::Builder::new(Vec::new());
        for (path, text) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            layer.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        layer.into_inner().unwrap()
    }

    #[test]
    fn a_layer_replaces_and_removes_what_is_below_it() {
        let mut files = BTreeMap::new();
        apply(&layer(&[("lib/one", "1"), ("lib/two", "2"), ("etc/a/b", "3"), ("opt/c", "4")]), &mut files).unwrap();
        let over = layer(&[("lib/one", "new"), ("lib/.wh.two", ""), (".wh.etc", ""), ("opt/.wh..wh..opq", "")]);
        apply(&over, &mut files).unwrap();
        assert_eq!(files, BTreeMap::from([("/lib/one".to_owned(), hex(&Sha256::digest("new")))]));
    }
}

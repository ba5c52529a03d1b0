//! Container images without a registry: a directory becomes an archive that containerd imports.
//!
//! The same directory gives the same bytes: times, owners and order are fixed.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// An image to be packed.
pub struct Image<'a> {
    /// The directory that becomes the image's root.
    pub root: &'a Path,
    /// The full name, like `localhost/busybox:1`.
    pub tag: &'a str,
    /// What runs when the pod names no command; may be empty.
    pub entrypoint: &'a [&'a str],
    /// `NAME=value` pairs beside `PATH=/bin`.
    pub env: &'a [&'a str],
}

/// Packs `image` into an archive at `out` (one layer, uncompressed), replacing it atomically.
pub fn pack(image: &Image, out: &Path) -> Result<()> {
    let layer = layer(image.root).with_context(|| format!("pack {}", image.root.display()))?;
    let mut env = vec!["PATH=/bin"];
    env.extend(image.env);
    let config = serde_json::to_vec(&json!({
        "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", "x86_64" => "amd64", other => other },
        "os": "linux",
        "config": { "Entrypoint": image.entrypoint, "Env": env },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex(&Sha256::digest(&layer)))] },
        "history": [],
    }))?;
    let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
    let manifest = serde_json::to_vec(&json!([{
        "Config": config_name, "RepoTags": [image.tag], "Layers": ["layer.tar"],
    }]))?;

    let temporary = temporary_beside(out);
    let mut archive = Builder::new(File::create(&temporary)?);
    for (name, bytes) in [(config_name.as_str(), &config), ("layer.tar", &layer), ("manifest.json", &manifest)] {
        let mut header = header(EntryType::Regular, 0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes.as_slice())?;
    }
    archive.into_inner()?.flush()?;
    fs::rename(&temporary, out).with_context(|| format!("write {}", out.display()))
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name in the same directory, for writing in full before renaming.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}

fn layer(root: &Path) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    append_children(&mut archive, root, Path::new(""))?;
    Ok(archive.into_inner()?)
}

fn append_children(archive: &mut Builder<Vec<u8>>, root: &Path, inner: &Path) -> Result<()> {
    let mut entries = fs::read_dir(root.join(inner))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = inner.join(entry.file_name());
        let meta = fs::symlink_metadata(entry.path())?;
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_dir() {
            archive.append_data(&mut header(EntryType::Directory, mode), &path, std::io::empty())?;
            append_children(archive, root, &path)?;
        } else if meta.is_symlink() {
            archive.append_link(&mut header(EntryType::Symlink, 0o777), &path, fs::read_link(entry.path())?)?;
        } else {
            let mut header = header(EntryType::Regular, mode);
            header.set_size(meta.len());
            archive.append_data(&mut header, &path, File::open(entry.path())?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_directory_gives_the_same_archive() {
        let scratch = std::env::temp_dir().join(format!("testkit-image-{}", std::process::id()));
        let root = scratch.join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/tool"), "tool").unwrap();
        std::os::unix::fs::symlink("tool", root.join("bin/alias")).unwrap();
        let image = Image { root: &root, tag: "localhost/tool:1", entrypoint: &["/bin/tool"], env: &[] };
        pack(&image, &scratch.join("one.tar")).unwrap();
        // Another time of change must not show.
        fs::write(root.join("bin/tool"), "tool").unwrap();
        pack(&image, &scratch.join("two.tar")).unwrap();
        let one = fs::read(scratch.join("one.tar")).unwrap();
        assert_eq!(one, fs::read(scratch.join("two.tar")).unwrap());

        let mut names = Vec::new();
        for entry in tar::Archive::new(one.as_slice()).entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().display().to_string());
        }
        assert_eq!(names.len(), 3);
        assert_eq!(names[1..], ["layer.tar", "manifest.json"]);
        fs::remove_dir_all(scratch).unwrap();
    }
}

//! Where librdkafka properties stand, so that they can be read again: secrets are rotated while the monitor runs.
//!
//! ```text
//!   --kafka-config-file FILE ──┐
//!   --kafka-config NAME=VALUE ─┴─▶ name=value, name=@/path ──▶ Properties, each value in the clear
//! ```
//! A value that begins with `@/` names the file that holds it: what Kubernetes mounts of a Secret is one file a key.

use std::{fs, io, path::PathBuf};

use super::{Error, Properties};

/// What begins a value that stands in a file; only an absolute path, so that hardly any password looks like one.
const IN_FILE: &str = "@/";

/// Where the properties stand. Debug shows no value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// `--kafka-config-file`
    pub file: Option<PathBuf>,
    /// `--kafka-config`, which wins.
    pub given: Properties,
}

impl Sources {
    /// What the files and flags say now.
    ///
    /// # Errors
    /// When a file cannot be read, or holds something else. No message quotes a value.
    pub fn read(&self) -> Result<Properties, Error> {
        let mut properties = self.file.as_ref().map_or_else(|| Ok(Properties::default()), of_file)?;
        properties.extend(self.given.clone());
        properties.try_map(|name, value| match value.strip_prefix(IN_FILE) {
            None => Ok(value.to_owned()),
            Some(path) => value_in(name, &PathBuf::from(format!("/{path}"))),
        })
    }
}

fn of_file(path: &PathBuf) -> Result<Properties, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Unreadable {
        key: "kafka-config-file",
        path: path.clone(),
        source,
        mend: "name a readable file with name=value lines",
    })?;
    Properties::parse_lines(&text).map_err(|(line, why)| Error::Yaml {
        path: path.clone(),
        line: u64::try_from(line).unwrap_or(u64::MAX),
        why: format!("kafka-config-file: {why}"),
    })
}

/// The value that stands in a file: all of it, but for the line break that editors and `echo` leave at its end.
fn value_in(name: &str, path: &PathBuf) -> Result<String, Error> {
    let wrong = |source| Error::Secret { name: name.to_owned(), path: path.clone(), source };
    let text = fs::read_to_string(path).map_err(wrong)?;
    let value = text.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err(wrong(io::Error::new(io::ErrorKind::InvalidData, "the file is empty")));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;

    /// A directory of this test, empty.
    fn directory(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pod-monitor-sources-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn sources(file: Option<&Path>, given: &[String]) -> Sources {
        let mut properties = Properties::default();
        given.iter().for_each(|entry| properties.add(entry).unwrap());
        Sources { file: file.map(Path::to_owned), given: properties }
    }

    #[test]
    fn values_stand_in_files_and_are_read_again_where_a_link_was_swapped() {
        let here = directory("links");
        // As Kubernetes does it: the mounted names are links through `..data`, which is swapped whole.
        for (version, password) in [("v1", "old=1\n"), ("v2", "new, and longer")] {
            fs::create_dir_all(here.join(version)).unwrap();
            fs::write(here.join(version).join("password"), password).unwrap();
            fs::write(here.join(version).join("all"), "sasl.username=u\nsasl.mechanism = PLAIN\n").unwrap();
        }
        let swap = |version: &str| {
            let new = here.join("..new");
            std::os::unix::fs::symlink(version, &new).unwrap();
            fs::rename(new, here.join("..data")).unwrap();
        };
        swap("v1");
        std::os::unix::fs::symlink("..data/password", here.join("password")).unwrap();
        std::os::unix::fs::symlink("..data/all", here.join("all")).unwrap();
        let secret = format!("sasl.password=@{}/password", here.display());
        let sources = sources(Some(&here.join("all")), &[secret, "sasl.mechanism=SCRAM-SHA-512".into()]);
        let read = |name: &str| {
            let properties = sources.read().unwrap();
            properties.iter_with_secrets().find(|(known, _)| *known == name).unwrap().1.to_owned()
        };
        assert_eq!((read("sasl.password").as_str(), read("sasl.username").as_str()), ("old=1", "u"));
        assert_eq!(read("sasl.mechanism"), "SCRAM-SHA-512", "a flag wins over the file");
        swap("v2");
        assert_eq!(read("sasl.password"), "new, and longer");
        fs::remove_dir_all(here).unwrap();
    }

    #[test]
    fn a_file_that_is_missing_or_empty_is_named_with_its_property() {
        let here = directory("missing");
        fs::write(here.join("empty"), "\n").unwrap();
        for (file, why) in [("absent", "cannot read"), ("empty", "is empty")] {
            let path = here.join(file).display().to_string();
            let said = sources(None, &[format!("sasl.password=@{path}")]).read().unwrap_err().to_string();
            for part in ["sasl.password", path.as_str(), why, "sasl.password=@/path"] {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
        fs::remove_dir_all(here).unwrap();
    }

    #[test]
    fn only_an_absolute_path_is_taken_for_a_file() {
        let properties = sources(None, &["sasl.password=@hunter2".into()]).read().unwrap();
        assert_eq!(properties.iter_with_secrets().next(), Some(("sasl.password", "@hunter2")));
    }
}

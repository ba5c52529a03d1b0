//! A certificate authority of a stack's own, made by openssl: for the listeners of the broker that speak TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::boot::random_token;
use super::process::checked;

/// A fast kind of key.
pub(crate) const CURVE: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// Vouches for whom it issues certificates to.
#[derive(Clone, Debug)]
pub struct Authority {
    dir: PathBuf,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, PKCS#8.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one in a directory of its own.
    ///
    /// # Errors
    /// When openssl does not.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let names = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.crt", "-days", "365", "-subj"];
        let usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        checked(
            Command::new("openssl")
                .args(names)
                .arg("/CN=pod-monitor-test-kafka-ca")
                .args(CURVE)
                .args(usage)
                .current_dir(dir),
        )
        .context("make a CA")?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The one in this directory.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A certificate for `name` (CN), good for these alternative names (`IP:10.0.0.1`, `DNS:kafka`).
    ///
    /// # Errors
    /// When openssl does not make it.
    pub fn issue(&self, name: &str, alternatives: &[&str]) -> Result<Issued> {
        let serial = random_token()?;
        let file = |ending: &str| self.dir.join(format!("{name}-{}.{ending}", &serial[..8]));
        let issued = Issued { certificate: file("crt"), key: file("key") };
        let (request, extensions) = (file("csr"), file("ext"));
        let names = if alternatives.is_empty() { format!("DNS:{name}") } else { alternatives.join(",") };
        fs::write(
            &extensions,
            format!(
                "subjectAltName={names}\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                 extendedKeyUsage=serverAuth,clientAuth\n"
            ),
        )?;
        let openssl = |command: &mut Command| checked(command.current_dir(&self.dir));
        openssl(
            Command::new("openssl")
                .args(["req", "-subj", &format!("/CN={name}"), "-keyout"])
                .args([issued.key.as_os_str(), "-out".as_ref(), request.as_os_str()])
                .args(CURVE),
        )
        .with_context(|| format!("make a key for {name}"))?;
        openssl(
            Command::new("openssl")
                .args(["x509", "-req", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "365", "-set_serial"])
                .args([format!("0x{}", &serial[..16]).as_str(), "-in"])
                .args([request.as_os_str(), "-out".as_ref(), issued.certificate.as_os_str()])
                .args(["-extfile".as_ref(), extensions.as_os_str()]),
        )
        .with_context(|| format!("sign the certificate of {name}"))?;
        Ok(issued)
    }
}

impl Issued {
    /// Key and certificate in one file, as Java's PEM key stores are.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(crate) fn key_store(&self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(&self.key)? + &fs::read_to_string(&self.certificate)?;
        fs::write(path, text).context("write a key store")
    }
}

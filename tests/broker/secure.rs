//! An installation that has to say who it is, and may do exactly what docs/kafka.md says: its user, its rights, and its
//! secrets as Kubernetes mounts them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pod_monitor::{
    cli::chain,
    config::{Properties, Sources},
    leadership::tenure::ShardId,
    ports::{Journal, Journals, Readiness},
    publish::{error::Class, identity::Identity, journal::KafkaJournals, settings::Settings, topics},
};
use testkit::{
    clients::{
        access::{Access, Operation, Resource, Right},
        monitor::Launch,
    },
    stack::{Authority, Endpoints, Issued},
};

use crate::{kafka::lasts, support::*};

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Password,
    Certificate,
}

/// The first password of each user.
pub(crate) const PASSWORD: &str = "first, of its kind";

/// A directory whose names are links through `..data`, which is swapped whole, as those of a mounted Secret are.
pub(crate) struct Mount {
    dir: PathBuf,
    swaps: u32,
}

impl Mount {
    fn new(endpoints: &Endpoints, name: &str) -> Self {
        let dir = endpoints.run_dir.join(format!("mount-{name}"));
        fs::create_dir_all(&dir).unwrap();
        Self { dir, swaps: 0 }
    }

    /// From now on the files hold this.
    pub(crate) fn swap(&mut self, files: &[(&str, &str)]) {
        self.swaps += 1;
        let version = format!("..{}", self.swaps);
        fs::create_dir(self.dir.join(&version)).unwrap();
        for (name, text) in files {
            fs::write(self.dir.join(&version).join(name), text).unwrap();
            if !self.dir.join(name).is_symlink() {
                symlink(format!("..data/{name}"), self.dir.join(name)).unwrap();
            }
        }
        symlink(&version, self.dir.join("..new")).unwrap();
        fs::rename(self.dir.join("..new"), self.dir.join("..data")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// What one installation says who it is by.
pub(crate) struct Guarded {
    pub(crate) endpoints: Endpoints,
    pub(crate) user: String,
    pub(crate) mount: Mount,
    way: Way,
}

pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

impl Guarded {
    /// A user of its own without any right.
    pub(crate) fn new(endpoints: Endpoints, way: Way, name: &str) -> Self {
        let mut guarded = Self { mount: Mount::new(&endpoints, name), endpoints, user: name.to_owned(), way };
        match way {
            Way::Password => {
                guarded.access().set_password(name, PASSWORD).unwrap();
                guarded.mount_password(PASSWORD);
            }
            Way::Certificate => {
                let issued = guarded.authority().issue(name, &[]).unwrap();
                guarded.mount_certificate(&issued);
            }
        }
        guarded
    }

    pub(crate) fn authority(&self) -> Authority {
        self.endpoints.kafka_authority()
    }

    /// By whom everything may be done.
    pub(crate) fn access(&self) -> Access {
        Access::connect(&self.endpoints.kafka).unwrap()
    }

    pub(crate) fn mount_password(&mut self, password: &str) {
        let ca = text(&self.authority().ca());
        self.mount.swap(&[("password", password), ("ca.crt", ca.as_str())]);
    }

    pub(crate) fn mount_certificate(&mut self, issued: &Issued) {
        let ca = text(&self.authority().ca());
        let (certificate, key) = (text(&issued.certificate), text(&issued.key));
        self.mount.swap(&[("tls.crt", certificate.as_str()), ("tls.key", key.as_str()), ("ca.crt", ca.as_str())]);
    }

    /// `host:port` of the listener.
    pub(crate) fn servers(&self) -> String {
        match self.way {
            Way::Password => self.endpoints.kafka_scram(),
            Way::Certificate => self.endpoints.kafka_mtls(),
        }
    }

    /// As docs/kafka.md gives them.
    pub(crate) fn properties(&self) -> Vec<String> {
        let path = |name| self.mount.path(name);
        let ca = format!("ssl.ca.location={}", path("ca.crt"));
        match self.way {
            Way::Password => vec![
                "security.protocol=sasl_ssl".into(),
                "sasl.mechanism=SCRAM-SHA-512".into(),
                format!("sasl.username={}", self.user),
                format!("sasl.password=@{}", path("password")),
                ca,
            ],
            Way::Certificate => vec![
                "security.protocol=ssl".into(),
                format!("ssl.certificate.location={}", path("tls.crt")),
                format!("ssl.key.location={}", path("tls.key")),
                ca,
            ],
        }
    }

    pub(crate) fn settings(&self, identity: Identity) -> Settings {
        let mut given = Properties::default();
        self.properties().iter().for_each(|entry| given.add(entry).unwrap());
        let read = Sources { file: None, given }.read().unwrap();
        let properties: BTreeMap<_, _> =
            read.iter_with_secrets().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (events, changelog) = topics_of(&identity.lease_name);
        Settings::new(&self.servers(), properties, &events, &changelog, identity, service()).unwrap()
    }

    /// A monitor that comes in this way. The topics must be there.
    pub(crate) fn launch(&self, launch: &Launch) -> Launch {
        let mut launch = launch.clone().set("--kafka", &self.servers()).set("--cluster-id", "secure");
        launch.arguments.retain(|argument| argument != "--create-topics");
        let properties = self.properties();
        let flags: Vec<&str> = properties.iter().flat_map(|entry| ["--kafka-config", entry.as_str()]).collect();
        launch.with(&flags)
    }
}

/// The events topic and the changelog of an installation.
pub(crate) fn topics_of(name: &str) -> (String, String) {
    (format!("{name}.events"), format!("{name}.changelog"))
}

/// The rights that docs/kafka.md lists, for this installation.
pub(crate) fn documented(name: &str, transactional_id: &str) -> Vec<Right> {
    let page = text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kafka.md"));
    let (events, changelog) = topics_of(name);
    let right = |line: &str| {
        let mut cells = line.strip_prefix("| `--")?.split('|').map(|cell| cell.trim().trim_matches('`'));
        let (resource, name) = match cells.next()? {
            "topic EVENTS" => (Resource::Topic, events.as_str()),
            "topic CHANGELOG" => (Resource::Topic, changelog.as_str()),
            "transactional-id ID" => (Resource::TransactionalId, transactional_id),
            other => panic!("docs/kafka.md lists a right on {other}"),
        };
        let operation = match cells.next()? {
            "Read" => Operation::Read,
            "Write" => Operation::Write,
            "DescribeConfigs" => Operation::DescribeConfigs,
            other => panic!("docs/kafka.md lists a right to {other}"),
        };
        Some(Right::new(operation, resource, name))
    };
    let rights: Vec<Right> = page.lines().filter_map(right).collect();
    assert!(rights.len() >= 6, "docs/kafka.md lists {rights:?}");
    rights
}

/// Looks at the topics, stands by, takes over and tells one batch, each with clients of its own; or why that cannot be.
pub(crate) async fn tried(settings: Settings, numbers: std::ops::Range<u32>) -> Result<(), String> {
    let started = Instant::now();
    let topics = loop {
        match topics::ensure(&settings, false).await {
            Ok(topics) => break topics,
            // A user is known to every part of the broker a moment after it was made.
            Err(error) if error.class() == Class::Transient && started.elapsed() < LIMIT => {}
            Err(error) => return Err(chain(&error)),
        }
    };
    let journals = KafkaJournals::start(settings, &topics).map_err(|error| chain(&error))?;
    loop {
        match journals.readiness(ShardId(0)).map_err(|error| chain(&error))? {
            Readiness::Warm => break,
            Readiness::NotYet(why) if why.contains("to mend it") => return Err(why.into_owned()),
            Readiness::NotYet(why) => assert!(started.elapsed() < LIMIT, "it does not get warm: {why}"),
        }
        lasts(Duration::from_millis(20)).await;
    }
    let (mut journal, _) = taken_over(&journals, &tenure("t")).await.map_err(|error| chain(&error))?;
    journal.commit(batch(numbers)).await.map_err(|error| chain(&error))
}

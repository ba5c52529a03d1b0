//! Each topic by itself, for `pod-monitor check`: one that is wrong does not hide the others. Makes nothing.

use std::collections::HashMap;

use super::{Error, Looker, Settings, Topics, Wanted, check_configs, check_generation, wanted};

/// A topic by itself.
#[derive(Debug)]
pub struct Single {
    /// Its name.
    pub topic: String,
    /// Whether it is the changelog.
    pub changelog: bool,
    /// What is wrong with it, if anything.
    pub found: Result<Found, Error>,
}

/// A topic that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is there, with so many partitions.
    There {
        /// How many.
        partitions: usize,
        /// Its `max.message.bytes`, where that is told.
        message_bytes_max: Option<usize>,
        /// What should be otherwise; each with its mend.
        advice: Vec<String>,
    },
    /// It is not there, and may be made.
    ToBeMade,
}

/// As [`ensure`], but of each topic by itself, so that one that is wrong does not hide the others; makes nothing.
///
/// # Errors
/// When Kafka does not answer.
pub async fn each(settings: &Settings, create: bool) -> Result<Vec<Single>, Error> {
    let looker = Looker::new(settings)?;
    let all = looker.partitions().await?;
    let mut found = Vec::new();
    for wanted in wanted(settings) {
        let (topic, changelog) = (wanted.name.clone(), wanted.changelog);
        found.push(Single { topic, changelog, found: looker.one(wanted, &all, create).await });
    }
    Ok(found)
}

impl Looker<'_> {
    async fn one(&self, wanted: Wanted, all: &HashMap<String, usize>, create: bool) -> Result<Found, Error> {
        if wanted.changelog {
            check_generation(self.settings, all)?;
        }
        let Some(partitions) = all.get(&wanted.name).copied() else {
            if !create {
                return Err(wanted.missing(self.settings));
            }
            return self.create(&[&wanted], true).await.map(|()| Found::ToBeMade);
        };
        wanted.check_partitions(self.settings, all)?;
        let wanted = [wanted];
        let configs = self.configs(&wanted).await?;
        let Topics { advice, .. } = check_configs(self.settings, &wanted, &configs)?;
        let bytes = wanted.iter().filter_map(|topic| configs.get(&topic.name)?.get("max.message.bytes")).next();
        Ok(Found::There { partitions, message_bytes_max: bytes.and_then(|bytes| bytes.parse().ok()), advice })
    }
}

//! Each topic by itself, for `pod-monitor check`: one that is wrong does not hide the others. Makes nothing.
//!
//! A replica that hears nothing of Kafka begins anew; whoever checks looks once, so that silence is asked again here.

use std::time::Duration;

use tracing::debug;

use super::{Error, Looker, Settings, Topics, Wanted, check_configs, check_generation, layout::Layout, wanted};

/// How long after the look began a question may be asked again that was not answered.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Before it is asked again: not every failure takes its time.
const PAUSE: Duration = Duration::from_millis(100);

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
/// When Kafka does not answer: at once if it is heard why, else 20 s after the look began.
pub async fn each(settings: &Settings, create: bool) -> Result<Vec<Single>, Error> {
    let looker = Looker::new(settings)?;
    let all = looker.answered(async || looker.layout().await).await?;
    let mut found = Vec::new();
    for wanted in wanted(settings) {
        let (topic, changelog) = (wanted.name.clone(), wanted.changelog);
        found.push(Single { topic, changelog, found: looker.one(wanted, &all, create).await });
    }
    Ok(found)
}

impl Looker<'_> {
    /// Asks again where nothing came back, and no reason was heard: a broker that is busy for some seconds, or a connection
    /// that broke, is nothing to be mended.
    async fn answered<T>(&self, ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
        loop {
            match ask().await {
                Err(error @ Error::Unreachable { .. })
                    if self.reach.why().is_empty() && self.began.elapsed() < SILENCE_MAX =>
                {
                    debug!(%error, "asking Kafka again");
                    tokio::time::sleep(PAUSE).await;
                }
                ended => return ended,
            }
        }
    }

    async fn one(&self, wanted: Wanted, all: &Layout, create: bool) -> Result<Found, Error> {
        if wanted.changelog {
            check_generation(self.settings, all)?;
        }
        let Some(partitions) = all.partitions(&wanted.name) else {
            if !create {
                return Err(wanted.missing(self.settings, all));
            }
            let made = self.answered(async || self.create(&[&wanted], true).await).await;
            return made.map(|()| Found::ToBeMade);
        };
        wanted.check_partitions(self.settings, all)?;
        let wanted = [wanted];
        let configs = self.answered(async || self.configs(&wanted).await).await?;
        let Topics { advice, .. } = check_configs(self.settings, &wanted, all, &configs)?;
        let bytes = wanted.iter().filter_map(|topic| configs.get(&topic.name)?.get("max.message.bytes")).next();
        Ok(Found::There { partitions, message_bytes_max: bytes.and_then(|bytes| bytes.parse().ok()), advice })
    }
}

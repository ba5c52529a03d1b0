//! Several installations that tell at the same time while something happens to Kafka, each at another point of its commit.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use testkit::clients::fault::Random;

use crate::{
    kafka::lasts,
    story::{Kind, Story},
};

/// When a fault begins and when commits do, from a common start: from before a commit to well after its end.
const MOMENT_MAX: Duration = Duration::from_millis(40);

/// Installations that are in trouble together.
pub(crate) struct Fleet {
    stories: Vec<Story>,
    random: Random,
    /// How often each fault ended in which verdict.
    verdicts: BTreeMap<(&'static str, Kind), u32>,
}

impl Fleet {
    pub(crate) async fn begin(servers: &str) -> Self {
        let stories = join_all(["a", "b", "c", "d", "e", "f"].map(|name| Story::begin(name, servers, servers))).await;
        Self { stories, random: Random::from_variable("BROKER_SEED").unwrap(), verdicts: BTreeMap::new() }
    }

    /// Every story tells a batch, each beginning at a random moment, and so does the fault.
    pub(crate) async fn round(&mut self, name: &'static str, fault: impl Future<Output = anyhow::Result<()>>) {
        let begins = self.random.between(Duration::ZERO, MOMENT_MAX);
        let tells = self.stories.iter_mut().map(|story| {
            let moment = self.random.between(Duration::ZERO, MOMENT_MAX);
            async move {
                lasts(moment).await;
                story.tell().await
            }
        });
        let (ended, fault) = tokio::join!(join_all(tells), async {
            lasts(begins).await;
            fault.await
        });
        fault.unwrap();
        let settle = self.stories.iter_mut().zip(ended).map(|(story, ended)| story.settle(ended));
        for kind in join_all(settle).await {
            *self.verdicts.entry((name, kind)).or_default() += 1;
        }
    }

    pub(crate) fn ends(&self) {
        println!("verdicts: {:?}", self.verdicts);
        self.stories.iter().for_each(Story::is_whole);
    }
}

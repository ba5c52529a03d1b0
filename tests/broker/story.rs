//! Batches told through a journal while the broker is in trouble, and what must hold after each of them: an Ok means
//! that every event is visible once; after anything else the journal is opened anew, and what is restored is what a
//! separate read_committed consumer sees: all of the batch, or nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Instant,
};

use pod_monitor::{
    ports::{Journal, Journals},
    publish::{
        error::{Class, CommitError},
        journal::{KafkaJournal, KafkaJournals},
        settings::Settings,
        topics,
    },
};

use testkit::clients::until;

use crate::support::*;

/// Events of one batch.
const BATCH: u32 = 40;

/// How a commit ended, as far as its caller can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Committed,
    /// Committed, but the journal takes nothing more (INV-10).
    CommittedAndSpent,
    Aborted,
    Fenced,
    Unknown,
}

/// A batch whose verdict has come, and what has yet to be looked at.
pub(crate) type Ended = (Range<u32>, Result<(), CommitError>);

/// What one installation tells.
pub(crate) struct Story {
    /// Of the broker, for the consumer that judges.
    servers: String,
    settings: Settings,
    journals: KafkaJournals,
    journal: Option<KafkaJournal>,
    /// Numbers of the events that are told.
    told: BTreeSet<u32>,
    next: u32,
    pub(crate) verdicts: BTreeMap<Kind, u32>,
}

impl Story {
    /// An installation of its own, which reaches the broker at `by` and is judged at `servers`.
    pub(crate) async fn begin(name: &str, by: &str, servers: &str) -> Self {
        let settings = settings_at(by, identity(&unique(name), 1));
        // As a replica does: a broker that was only just started may take its time.
        let made = async || match topics::ensure(&settings, true).await {
            Ok(topics) => Ok(Some(topics)),
            Err(topics::Error::Unreachable { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        };
        let topics = until(LIMIT, "the topics are made", made).await.unwrap();
        let journals = KafkaJournals::start(settings.clone(), &topics).unwrap();
        let mut story = Self {
            servers: servers.to_owned(),
            settings,
            journals,
            journal: None,
            told: BTreeSet::new(),
            next: 0,
            verdicts: BTreeMap::new(),
        };
        story.open().await;
        story
    }

    /// Tells one more batch. Its verdict is then to be settled, once the broker can be asked again.
    pub(crate) async fn tell(&mut self) -> Ended {
        let numbers = self.next..self.next + BATCH;
        self.next = numbers.end;
        let ended = self.commit(numbers.clone()).await;
        (numbers, ended)
    }

    async fn commit(&mut self, numbers: Range<u32>) -> Result<(), CommitError> {
        self.journal.as_mut().unwrap().commit(batch(numbers)).await
    }

    /// Finds out what became of a batch, and tells it again if it was not told.
    pub(crate) async fn settle(&mut self, (numbers, ended): Ended) -> Kind {
        let kind = self.judge(&numbers, ended).await;
        *self.verdicts.entry(kind).or_default() += 1;
        let started = Instant::now();
        while !self.told.contains(&numbers.start) {
            assert!(started.elapsed() < LIMIT, "{numbers:?} cannot be told: {:?}", self.verdicts);
            let again = self.commit(numbers.clone()).await;
            self.judge(&numbers, again).await;
        }
        kind
    }

    async fn judge(&mut self, numbers: &Range<u32>, ended: Result<(), CommitError>) -> Kind {
        let kind = match ended {
            Ok(()) => {
                self.told.extend(numbers.clone());
                self.all_is_visible_once();
                // Nothing but the next answer says whether the journal is spent.
                match self.commit(0..0).await {
                    Ok(()) => return Kind::Committed,
                    Err(CommitError::Spent { .. }) => Kind::CommittedAndSpent,
                    Err(error) => panic!("after an Ok: {error:?}"),
                }
            }
            Err(CommitError::Aborted { .. }) => Kind::Aborted,
            Err(CommitError::Fenced { .. }) => Kind::Fenced,
            Err(CommitError::Unknown { .. }) => Kind::Unknown,
            Err(error) => panic!("{error:?}"),
        };
        self.journal = None;
        let before = self.told.clone();
        self.open().await;
        assert!(self.told.is_superset(&before), "told, and forgotten: {:?}", before.difference(&self.told));
        let of_batch = numbers.clone().filter(|number| self.told.contains(number)).count();
        assert!(of_batch == 0 || of_batch == numbers.len(), "{numbers:?} is torn: {of_batch} events of it were told");
        kind
    }

    /// Opens the journal, as often as it takes, and compares what is restored with what a consumer sees.
    async fn open(&mut self) {
        let started = Instant::now();
        let (journal, restored) = loop {
            match self.journals.open(&tenure("holder")).await {
                Ok(opened) => break opened,
                Err(error) => assert!(error.class() != Class::Fatal, "{error:?}"),
            }
            assert!(started.elapsed() < LIMIT, "the journal does not open");
        };
        self.journal = Some(journal);
        self.told = restored.told.keys().map(|uid| uid.0[24..].parse().unwrap()).collect();
        let changelog = seen_at(&self.servers, self.settings.changelog_topic());
        let pods = changelog.iter().filter_map(|record| record.key.strip_prefix("pod/"));
        let remembered: BTreeSet<u32> = pods.map(|uid| uid[24..].parse().unwrap()).collect();
        assert_eq!(self.told, remembered, "restored, and what a consumer sees of the changelog");
        let events = keys(&seen_at(&self.servers, &self.settings.events_topics()[0]));
        assert_eq!(events, Vec::from_iter(self.told.clone()), "events, and what is remembered of them");
    }

    /// Every event that was told is visible, and only once.
    fn all_is_visible_once(&self) {
        // An acknowledged commit is visible a moment later.
        let enough = |seen: &[Seen]| seen.len() >= self.told.len();
        let seen = seen_until_at(&self.servers, &self.settings.events_topics()[0], enough);
        assert_eq!(keys(&seen), Vec::from_iter(self.told.clone()));
    }

    /// At the end nothing is missing.
    pub(crate) fn is_whole(&self) {
        assert_eq!(Vec::from_iter(self.told.clone()), Vec::from_iter(0..self.next));
        self.all_is_visible_once();
    }
}

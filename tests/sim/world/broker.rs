//! Kafka as one shard's transactional id sees it: producer epochs, transactions, and what read_committed readers see.
//!
//! No KIP-890: the end of a transaction names no transaction, so one that arrives late ends whatever is open.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// The coordinator aborts what is open for longer.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Part of a transaction.
#[derive(Debug, Clone)]
pub enum Item {
    /// JSON of an event.
    Event(String),
    /// Key and value of a changelog record; `None` is a tombstone.
    Record(String, Option<String>),
}

/// A committed transaction, in the order of the log.
#[derive(Debug, Clone)]
pub struct Committed {
    pub items: Vec<Item>,
    /// When readers see it: some milliseconds after the commit was acknowledged.
    visible_at: Instant,
}

struct Open {
    items: Vec<Item>,
    begun: Instant,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    Ongoing,
    Committed(Instant),
    #[default]
    Aborted,
}

/// Why the broker says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("producer fenced: a newer epoch exists")]
    Fenced,
    #[error("concurrent transactions: try again")]
    Concurrent,
    #[error("invalid transaction state")]
    State,
}

/// One transactional id, and its partition of the changelog.
#[derive(Default)]
pub struct Broker {
    epoch: u32,
    /// Newest batch of the epoch: what is sent again is taken once.
    sequence: u64,
    open: Option<Open>,
    state: State,
    committed: Vec<Committed>,
    /// Transactions that are part of `seen`.
    applied: usize,
    /// The changelog as readers see it, compacted: the newest record of each key.
    seen: BTreeMap<String, String>,
}

impl Broker {
    /// Everything that was committed.
    pub fn committed(&self) -> &[Committed] {
        &self.committed
    }

    /// InitProducerId: a new epoch; what was open is aborted.
    pub fn fence(&mut self) -> Result<u32, Refusal> {
        self.sweep();
        self.settled()?;
        self.next_epoch();
        Ok(self.epoch)
    }

    /// Records of one epoch, in order. The first ones open a transaction.
    pub fn produce(&mut self, epoch: u32, sequence: u64, items: Vec<Item>) -> Result<(), Refusal> {
        self.sweep();
        self.of_epoch(epoch)?;
        self.settled()?;
        if sequence <= self.sequence {
            return Ok(());
        }
        self.sequence = sequence;
        self.state = State::Ongoing;
        let open = self.open.get_or_insert_with(|| Open { items: Vec::new(), begun: Instant::now() });
        open.items.extend(items);
        Ok(())
    }

    /// EndTxn. `marker`: how long it takes until readers see it.
    pub fn end(&mut self, epoch: u32, commit: bool, marker: Duration) -> Result<(), Refusal> {
        self.sweep();
        self.of_epoch(epoch)?;
        match (self.state, commit) {
            (State::Ongoing, true) => {
                let visible_at = Instant::now() + marker;
                let items = self.open.take().map(|open| open.items).unwrap_or_default();
                self.committed.push(Committed { items, visible_at });
                self.state = State::Committed(visible_at);
                Ok(())
            }
            (State::Ongoing, false) => {
                self.open = None;
                self.state = State::Aborted;
                Ok(())
            }
            // The same call again.
            (State::Committed(_), true) => self.settled(),
            (State::Aborted, false) => Ok(()),
            (State::Committed(_), false) | (State::Aborted, true) => Err(Refusal::State),
        }
    }

    /// The changelog, up to the last stable offset.
    pub fn read(&mut self) -> &BTreeMap<String, String> {
        let now = Instant::now();
        while let Some(next) = self.committed.get(self.applied).filter(|next| next.visible_at <= now) {
            for item in &next.items {
                match item {
                    Item::Event(_) => {}
                    Item::Record(key, Some(value)) => drop(self.seen.insert(key.clone(), value.clone())),
                    Item::Record(key, None) => drop(self.seen.remove(key)),
                }
            }
            self.applied += 1;
        }
        &self.seen
    }

    /// Ends what was open for too long; its producer is fenced.
    fn sweep(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.begun.elapsed() >= TRANSACTION_TIMEOUT) {
            self.next_epoch();
        }
    }

    fn next_epoch(&mut self) {
        if self.open.take().is_some() {
            self.state = State::Aborted;
        }
        self.epoch += 1;
        self.sequence = 0;
    }

    fn of_epoch(&self, epoch: u32) -> Result<(), Refusal> {
        if epoch == self.epoch { Ok(()) } else { Err(Refusal::Fenced) }
    }

    /// The markers of the last commit are written.
    fn settled(&self) -> Result<(), Refusal> {
        match self.state {
            State::Committed(visible_at) if Instant::now() < visible_at => Err(Refusal::Concurrent),
            _ => Ok(()),
        }
    }
}

//! Kafka as one shard's transactional id sees it: producer epochs, transactions, and what read_committed readers see.
//!
//! No KIP-890: the end of a transaction names no transaction, so one that arrives late ends whatever is open.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// The coordinator aborts what is open for longer.
pub use pod_monitor::publish::settings::TRANSACTION_TIMEOUT;

/// Part of a transaction.
#[derive(Debug, Clone)]
pub enum Item {
    /// JSON of an event.
    Event(String),
    /// Key and value of a changelog record; `None` is a tombstone.
    Record(String, Option<String>),
}

impl Item {
    /// A record of the changelog about the shard itself.
    pub fn meta(key: &str, value: &impl serde::Serialize) -> Self {
        Self::Record(key.into(), Some(serde_json::to_string(value).expect("JSON")))
    }
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

/// What another transactional id writes to this partition: it stands in the log where it was written, and readers of what
/// is committed stop there until it is decided.
struct Foreign {
    /// Transactions of ours before it.
    at: usize,
    items: Vec<Item>,
    begun: Instant,
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
    foreign: Option<Foreign>,
    /// Counts what its own producers put there: records and marks.
    written: u64,
    /// Transactions that are part of `seen`.
    applied: usize,
    /// The changelog as readers see it, compacted: the newest record of each key.
    seen: BTreeMap<String, String>,
}

impl Broker {
    /// Everything that was committed, up to what is not decided.
    pub fn committed(&self) -> &[Committed] {
        let decided = self.foreign.as_ref().map_or(self.committed.len(), |foreign| foreign.at);
        &self.committed[..decided]
    }

    /// What readers see of it by now, in the order of the log.
    pub fn visible(&mut self) -> impl Iterator<Item = &Item> {
        self.sweep();
        let now = Instant::now();
        let visible = self.committed().iter().take_while(move |transaction| transaction.visible_at <= now);
        visible.flat_map(|transaction| &transaction.items)
    }

    /// Whether all that stands in the log is decided and visible to readers.
    pub fn is_settled(&mut self) -> bool {
        self.sweep();
        let now = Instant::now();
        self.foreign.is_none() && self.committed.last().is_none_or(|last| last.visible_at <= now)
    }

    /// Grows with whatever producers of its own transactional id put there.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Another transactional id writes to it in a transaction that it began then, and does not commit yet.
    pub fn enter(&mut self, items: Vec<Item>, begun: Instant) {
        let at = self.committed.len();
        self.foreign.get_or_insert_with(|| Foreign { at, items: Vec::new(), begun }).items.extend(items);
    }

    /// What it wrote is committed. `marker`: how long it takes until readers see it.
    pub fn commit_foreign(&mut self, marker: Duration) {
        if let Some(Foreign { at, items, .. }) = self.foreign.take() {
            self.committed.insert(at, Committed { items, visible_at: Instant::now() + marker });
        }
    }

    pub fn abort_foreign(&mut self) {
        self.foreign = None;
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
        self.written += 1;
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
                self.written += 1;
                let visible_at = Instant::now() + marker;
                let items = self.open.take().map(|open| open.items).unwrap_or_default();
                self.committed.push(Committed { items, visible_at });
                self.state = State::Committed(visible_at);
                Ok(())
            }
            (State::Ongoing, false) => {
                self.written += 1;
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
        self.sweep();
        let now = Instant::now();
        let decided = self.committed().len();
        while let Some(next) = self.committed[..decided].get(self.applied).filter(|next| next.visible_at <= now) {
            compact(&mut self.seen, &next.items);
            self.applied += 1;
        }
        &self.seen
    }

    /// Ends what was open for too long; its producer is fenced.
    fn sweep(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.begun.elapsed() >= TRANSACTION_TIMEOUT) {
            self.next_epoch();
        }
        self.foreign.take_if(|foreign| foreign.begun.elapsed() >= TRANSACTION_TIMEOUT);
    }

    fn next_epoch(&mut self) {
        if self.open.take().is_some() {
            self.written += 1;
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

/// The newest record of each key.
pub fn compact(seen: &mut BTreeMap<String, String>, items: &[Item]) {
    for item in items {
        match item {
            Item::Event(_) => {}
            Item::Record(key, Some(value)) => drop(seen.insert(key.clone(), value.clone())),
            Item::Record(key, None) => drop(seen.remove(key)),
        }
    }
}

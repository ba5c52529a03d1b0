//! The Lease as a replica knows it: what is news of it, and what a death that was heard of means for it. Pure.

use super::{
    election::At,
    record::{Record, Version},
};

/// Who was heard to be dead, and when.
pub type Died = (Box<str>, At);

/// The Lease as we know it. `record` is `None` where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// What it says.
    pub record: Option<Record>,
    /// Since when we saw no change of it.
    pub since: At,
    /// Since when its holder is known to be dead.
    pub dead: Option<At>,
    /// Its holder has written since, once: that may have been on its way when it died. Twice, and it lives.
    pub straggled: bool,
}

impl Sighting {
    /// Who holds it, if anybody does.
    fn holder(&self) -> Option<&str> {
        holder(self.record.as_ref())
    }

    /// This instance is dead.
    pub(super) fn hear_of_death(&mut self, who: &str, now: At) {
        if self.holder() == Some(who) {
            self.dead.get_or_insert(now);
        }
    }
}

fn holder(record: Option<&Record>) -> Option<&str> {
    record.map(|record| &*record.holder).filter(|holder| !holder.is_empty())
}

/// What is news about the Lease: an older version is not, and the same one does not begin its silence anew, however much
/// newer the answer is that shows it. `died`: the last death that was heard of, forgotten where its holder lives.
pub(super) fn sight(
    died: &mut Option<Died>,
    known: Option<&Sighting>,
    record: Option<Record>,
    version: Version,
    now: At,
) -> Option<Sighting> {
    let changed_at = record.as_ref().map_or(version, |record| record.version);
    let news = match known.map(|known| &known.record) {
        Some(Some(known)) => changed_at > known.version,
        Some(None) => record.is_some(),
        None => true,
    };
    if !news {
        return None;
    }
    let holder = holder(record.as_ref());
    let (dead, straggled) = match known {
        // After something else than standing by: what was heard meanwhile counts.
        None => (died.as_ref().filter(|(who, _)| Some(&**who) == holder).map(|(_, at)| *at), false),
        Some(known) if known.holder() == holder => (known.dead.filter(|_| !known.straggled), known.dead.is_some()),
        Some(_) => (None, false),
    };
    if dead.is_none() {
        died.take_if(|(who, _)| Some(&**who) == holder);
    }
    Some(Sighting { record, since: now, dead, straggled })
}

//! The election step: who should act, decided from what was seen of the Lease. Pure: no client, no clock, no task.
//!
//! ```text
//!             ripe: absent, released, silent for a lease duration, or its holder is dead
//!   Standby ────────────────────────────────▶ Taking ──ours──▶ Holding ──stop, give up──▶ Draining ──drained──▶ Releasing
//!      ▲                                        │                 │ another holds it, deadline   │                    │
//!      └──────── conflict, no answer ───────────┘                 └──────▶ Draining (lost) ──────┴─────▶ Standby ◀────┘
//! ```
//! Times are monotonic, counted from the start of the process. Nothing here reads the record's own times: staleness is
//! how long *we* saw no change. Each write names the version that it was decided on, so it can only succeed if nothing
//! changed since. What this promises is availability; that nobody else can act is the fence's promise.

use std::time::Duration;

use super::{
    record::{Record, Version},
    sighting::{Died, Sighting, sight},
};

/// A moment: since the start of the process, on the monotonic clock.
pub type At = Duration;

/// The longest duration that we believe of another holder, as a multiple of ours: whoever edits a Lease by hand may write
/// a year. One that is alive shows it much more often.
const FOREIGN_DURATION_MAX: u32 = 3;

/// How a Lease is held and contended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// After so long without a change that we saw, it may be taken.
    pub lease_duration: Duration,
    /// The holder stops so long after it last asked for a renewal that was granted.
    pub renew_deadline: Duration,
    /// Between two renewals, and between two tries.
    pub retry_period: Duration,
}

impl Times {
    /// How long one that gave a Lease up leaves it to others.
    pub(crate) fn stands_back(self, why: GiveUp) -> Duration {
        match why {
            GiveUp::Watch | GiveUp::Kafka | GiveUp::Fault => self.lease_duration * 2,
            // It gets on well: only until the one that it was given up for has had its chance.
            GiveUp::Share => self.retry_period * 2,
        }
    }
}

/// Where we stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not the holder. Nothing is known before the first sighting.
    Standby {
        /// The Lease.
        seen: Option<Sighting>,
        /// Not to be tried before this moment: the last try met a conflict or got no answer.
        rest_until: At,
    },
    /// Our write that makes us the holder is on its way.
    Taking {
        /// What it was decided on, or what was seen since.
        seen: Sighting,
        /// When it was sent.
        asked_at: At,
        /// Something newer than what it was decided on was seen since.
        news: bool,
    },
    /// We are the holder, until the deadline.
    Holding(Hold),
    /// No longer to act; the worker settles what is on its way. The Lease is still renewed, unless it is lost.
    Draining {
        /// What we hold.
        hold: Hold,
        /// Somebody else has it, or our time is over.
        lost: bool,
        /// The worker is done; a write is still unanswered.
        drained: bool,
    },
    /// Our write that frees the Lease is on its way.
    Releasing,
    /// The process ends.
    Stopped,
}

/// A Lease that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Of our last write that was answered.
    pub version: Version,
    /// When to stop: counted from when we asked, since the server may have written at once and answered late.
    pub deadline: At,
    /// When to renew next.
    pub renew_at: At,
    /// A renewal is on its way since.
    pub asked_at: Option<At>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The Lease was read, as of this version, which is the server's and may be far above the Lease's own; `None`: there
    /// is none.
    Seen(Option<Record>, Version),
    /// Our write was answered.
    Answered(Answer),
    /// The holder of this identity is dead: its connection was closed by its kernel and nobody listens any more.
    Dead(Box<str>),
    /// Time has passed.
    Wake,
    /// Somebody doubts that we still hold it (we were fenced): the Lease is to say.
    Doubted,
    /// The holder cannot get on.
    GiveUp(GiveUp),
    /// The worker has settled everything.
    Drained,
    /// The process was asked to end.
    Stop,
}

/// How a write of ours ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Written: this version is ours.
    Ours(Version),
    /// Somebody changed the Lease since (409), or it is gone.
    Conflict,
    /// Refused or unanswered: it may have been written.
    Failed,
}

/// Why a holder cannot get on, although the Lease is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// The watch of pods cannot be kept open.
    Watch,
    /// Kafka does not answer us, and answers others.
    Kafka,
    /// What it does cannot go on in this process, for this shard.
    Fault,
    /// Another replica has fewer shards.
    Share,
}

/// Why a tenure ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Another holds the Lease, or it was deleted.
    Lost,
    /// No renewal was granted in time.
    Deadline,
    /// The process was asked to end.
    Stop,
    /// It could not get on.
    GaveUp(GiveUp),
}

/// Why the Lease was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// There was none.
    Absent,
    /// Its last holder let it go.
    Released,
    /// Its holder is dead.
    Dead,
    /// Its holder was silent for a whole lease duration.
    Silent,
    /// It was written to be ours already, and nobody had told us.
    Ours,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Write that we hold it, if it still is as we saw it (`None`: make it).
    Take(Option<Record>, Why),
    /// Write that we still hold it, if it still has this version.
    Renew(Version),
    /// Write that nobody holds it, if it still has this version.
    Release(Version),
    /// Read it now.
    Look,
    /// We may act until this moment; the renewal was asked for at the first.
    Grant(At, At),
    /// We may act longer: asked at the first, until the second.
    Extend(At, At),
    /// We may act no more.
    Revoke(Ended),
    /// Nothing more will come.
    Done,
}

/// One replica's part in the election of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Election {
    /// Our identity: unique per start of the process.
    pub me: Box<str>,
    /// The durations.
    pub times: Times,
    /// Where we stand.
    pub state: State,
    /// After giving up: others first.
    pub after_others: At,
    /// Who was last heard to be dead, and when: whatever we were doing then.
    pub died: Option<Died>,
    /// How long a Lease that may be taken is left to others: by one that is cold or does not reach Kafka, and by one that
    /// is not the next in turn.
    pub handicap: Duration,
    /// The process was asked to end.
    pub stopping: bool,
}

impl Election {
    /// Knows nothing yet.
    pub fn new(me: &str, times: Times) -> Self {
        let state = State::Standby { seen: None, rest_until: At::ZERO };
        Self { me: me.into(), times, state, after_others: At::ZERO, died: None, handicap: At::ZERO, stopping: false }
    }

    /// When [`Input::Wake`] is due next.
    pub fn wake_at(&self) -> Option<At> {
        match &self.state {
            State::Standby { seen: Some(seen), rest_until } => Some(self.ripe_at(seen).0.max(*rest_until)),
            State::Holding(hold) => Some(hold.wake_at()),
            State::Draining { hold, lost: false, .. } => Some(hold.wake_at()),
            State::Standby { seen: None, .. }
            | State::Draining { lost: true, .. }
            | State::Taking { .. }
            | State::Releasing
            | State::Stopped => None,
        }
    }

    /// Takes one input in.
    pub fn step(self, input: Input, now: At) -> (Self, Vec<Command>) {
        let mut next = self;
        match &input {
            Input::Stop => next.stopping = true,
            Input::Dead(who) => next.died = Some((who.clone(), now)),
            _ => {}
        }
        let state = std::mem::replace(&mut next.state, State::Stopped);
        let commands;
        (next.state, commands) = match state {
            State::Standby { seen, rest_until } => next.standby(seen, rest_until, input, now),
            State::Taking { seen, asked_at, news } => next.taking(seen, (asked_at, news), input, now),
            State::Holding(hold) => next.holding(hold, input, now),
            State::Draining { hold, lost, drained } => next.draining(hold, (lost, drained), input, now),
            State::Releasing => next.releasing(input),
            State::Stopped => (State::Stopped, vec![]),
        };
        (next, commands)
    }

    /// From when on the Lease may be taken, and why.
    fn ripe_at(&self, seen: &Sighting) -> (At, Why) {
        let handicap = self.handicap;
        let free_at = self.after_others.max(seen.since + handicap);
        match (&seen.record, seen.dead) {
            (None, _) => (free_at, Why::Absent),
            (Some(record), _) if record.holder.is_empty() => (free_at, Why::Released),
            // An answer that we never heard, or a tenure that ran out: nobody else can renew it.
            (Some(record), _) if record.holder == self.me => (self.after_others, Why::Ours),
            (Some(_), Some(died_at)) => (died_at + handicap, Why::Dead),
            // The holder goes by what it wrote; in a roll-out with other durations that may be longer than ours. Written
            // by hand it may be anything.
            (Some(record), None) => {
                let ours = self.times.lease_duration;
                let theirs = record.lease_duration.min(ours * FOREIGN_DURATION_MAX);
                (seen.since + ours.max(theirs) + handicap, Why::Silent)
            }
        }
    }

    /// How long nobody has given a sign of holding the Lease that is being taken.
    pub fn vacant_for(&self, why: Why, now: At) -> Duration {
        let State::Taking { seen, .. } = &self.state else { return Duration::ZERO };
        let since = seen.dead.filter(|_| why == Why::Dead).unwrap_or(seen.since);
        now.saturating_sub(since)
    }

    fn standby(&mut self, seen: Option<Sighting>, rest_until: At, input: Input, now: At) -> (State, Vec<Command>) {
        let standby = |seen| State::Standby { seen, rest_until };
        match (seen, input) {
            (_, Input::Stop) => (State::Stopped, vec![Command::Done]),
            (seen, Input::Seen(record, version)) => {
                let news = sight(&mut self.died, seen.as_ref(), record, version, now);
                // A conflict was about the older one.
                let rest_until = if news.is_some() { At::ZERO } else { rest_until };
                self.try_to_take(news.or(seen), rest_until, now)
            }
            (seen, Input::Wake) => self.try_to_take(seen, rest_until, now),
            (Some(mut seen), Input::Dead(who)) => {
                seen.hear_of_death(&who, now);
                self.try_to_take(Some(seen), rest_until, now)
            }
            (None, Input::Dead(_)) => (standby(None), vec![]),
            // Of a tenure that is over.
            (seen, Input::Answered(_) | Input::Doubted | Input::GiveUp(_) | Input::Drained) => (standby(seen), vec![]),
        }
    }

    fn try_to_take(&self, seen: Option<Sighting>, rest_until: At, now: At) -> (State, Vec<Command>) {
        match seen {
            Some(seen) => {
                let (ripe_at, why) = self.ripe_at(&seen);
                if now >= ripe_at.max(rest_until) {
                    return self.take(seen, why, now);
                }
                (State::Standby { seen: Some(seen), rest_until }, vec![])
            }
            None => (State::Standby { seen: None, rest_until }, vec![]),
        }
    }

    fn take(&self, seen: Sighting, why: Why, now: At) -> (State, Vec<Command>) {
        let command = Command::Take(seen.record.clone(), why);
        (State::Taking { seen, asked_at: now, news: false }, vec![command])
    }

    fn taking(
        &mut self,
        mut seen: Sighting,
        (asked_at, news): (At, bool),
        input: Input,
        now: At,
    ) -> (State, Vec<Command>) {
        let deadline = asked_at + self.times.renew_deadline;
        let standby = |seen, rest_until| State::Standby { seen: Some(seen), rest_until };
        match input {
            Input::Answered(Answer::Ours(version)) if self.stopping => {
                (State::Releasing, vec![Command::Release(version)])
            }
            Input::Answered(Answer::Ours(version)) if now < deadline => {
                self.died = None;
                let hold = Hold { version, deadline, renew_at: asked_at + self.times.retry_period, asked_at: None };
                (State::Holding(hold), vec![Command::Grant(asked_at, deadline)])
            }
            // Answered so late that others may have begun to count us out: what is seen next decides.
            Input::Answered(Answer::Ours(_)) => (standby(seen, now), vec![Command::Look]),
            Input::Answered(_) if self.stopping => (State::Stopped, vec![Command::Done]),
            // The conflict is explained: a holder that ends is noticed before its release is seen, for instance.
            Input::Answered(Answer::Conflict) if news => self.try_to_take(Some(seen), At::ZERO, now),
            // What we saw is out of date; the watch or the look brings what is true now.
            Input::Answered(Answer::Conflict) => (standby(seen, now + self.times.retry_period), vec![Command::Look]),
            Input::Answered(Answer::Failed) => (standby(seen, now + self.times.retry_period), vec![]),
            Input::Seen(record, version) => {
                let newer = sight(&mut self.died, Some(&seen), record, version, now);
                let news = news || newer.is_some();
                (State::Taking { seen: newer.unwrap_or(seen), asked_at, news }, vec![])
            }
            Input::Dead(who) => {
                seen.hear_of_death(&who, now);
                (State::Taking { seen, asked_at, news }, vec![])
            }
            // Stop: the answer is waited for, since what it may have written must be released.
            Input::Stop | Input::Wake | Input::Doubted | Input::GiveUp(_) | Input::Drained => {
                (State::Taking { seen, asked_at, news }, vec![])
            }
        }
    }

    fn holding(&mut self, mut hold: Hold, input: Input, now: At) -> (State, Vec<Command>) {
        let revoke = |hold, why| {
            let lost = matches!(why, Ended::Lost | Ended::Deadline);
            (State::Draining { hold, lost, drained: false }, vec![Command::Revoke(why)])
        };
        if let Input::Answered(answer) = input {
            let commands = hold.answered(answer, self.times, now);
            return if now < hold.deadline { (State::Holding(hold), commands) } else { revoke(hold, Ended::Deadline) };
        }
        match input {
            _ if now >= hold.deadline => revoke(hold, Ended::Deadline),
            Input::Seen(record, version) if version > hold.version => match record {
                // Somebody edited it by hand, or the watch was quicker than the answer.
                Some(record) if record.holder == self.me => {
                    hold.version = hold.version.max(record.version);
                    (State::Holding(hold), vec![])
                }
                _ => revoke(hold, Ended::Lost),
            },
            Input::Doubted if hold.asked_at.is_none() => {
                let command = hold.renew(now);
                (State::Holding(hold), vec![command])
            }
            Input::Wake if now >= hold.renew_at && hold.asked_at.is_none() => {
                let command = hold.renew(now);
                (State::Holding(hold), vec![command])
            }
            Input::Stop => revoke(hold, Ended::Stop),
            Input::GiveUp(why) => {
                self.after_others = now + self.times.stands_back(why);
                revoke(hold, Ended::GaveUp(why))
            }
            // The watch lags behind our own writes; a death notice is about an earlier holder; the renewal that a doubt
            // asks for is on its way; a worker ends only when told to.
            Input::Seen(..) | Input::Answered(_) | Input::Dead(_) | Input::Doubted | Input::Wake | Input::Drained => {
                (State::Holding(hold), vec![])
            }
        }
    }

    fn draining(&self, mut hold: Hold, ended: (bool, bool), input: Input, now: At) -> (State, Vec<Command>) {
        let (mut lost, mut drained) = ended;
        let mut commands = vec![];
        match input {
            Input::Seen(record, version) if version > hold.version => match record {
                Some(record) if record.holder == self.me => hold.version = hold.version.max(record.version),
                _ => lost = true,
            },
            // After a conflict the look says whether it is still ours.
            Input::Answered(answer) => {
                commands = hold.answered(answer, self.times, now);
                commands.retain(|command| *command == Command::Look);
            }
            Input::Wake if !lost && !drained && now >= hold.renew_at && hold.asked_at.is_none() => {
                commands.push(hold.renew(now));
            }
            Input::Drained => drained = true,
            Input::Seen(..) | Input::Wake | Input::Dead(_) | Input::Doubted | Input::GiveUp(_) | Input::Stop => {}
        }
        lost |= now >= hold.deadline;
        // Only with every write answered is it known which version to release, and only then may another be sent.
        match (drained && hold.asked_at.is_none(), lost) {
            (true, false) => {
                commands.push(Command::Release(hold.version));
                (State::Releasing, commands)
            }
            (true, true) => {
                let (state, more) = self.rest();
                commands.extend(more);
                (state, commands)
            }
            _ => (State::Draining { hold, lost, drained }, commands),
        }
    }

    fn releasing(&self, input: Input) -> (State, Vec<Command>) {
        match input {
            // Not released: it runs out by itself.
            Input::Answered(_) => self.rest(),
            // What is seen now is our own Lease, or what our release made of it: the look that follows tells.
            Input::Seen(..)
            | Input::Dead(_)
            | Input::Wake
            | Input::Doubted
            | Input::GiveUp(_)
            | Input::Drained
            | Input::Stop => (State::Releasing, vec![]),
        }
    }

    /// After a tenure: the end, or a standby that looks before it contends.
    fn rest(&self) -> (State, Vec<Command>) {
        if self.stopping {
            return (State::Stopped, vec![Command::Done]);
        }
        (State::Standby { seen: None, rest_until: At::ZERO }, vec![Command::Look])
    }
}

impl Hold {
    fn wake_at(&self) -> At {
        if self.asked_at.is_some() { self.deadline } else { self.deadline.min(self.renew_at) }
    }

    fn renew(&mut self, now: At) -> Command {
        self.asked_at = Some(now);
        Command::Renew(self.version)
    }

    fn answered(&mut self, answer: Answer, times: Times, now: At) -> Vec<Command> {
        let Some(asked_at) = self.asked_at.take() else { return vec![] };
        match answer {
            Answer::Ours(version) => {
                self.version = self.version.max(version);
                self.deadline = asked_at + times.renew_deadline;
                self.renew_at = asked_at + times.retry_period;
                vec![Command::Extend(asked_at, self.deadline)]
            }
            // Somebody changed it: perhaps only its annotations. Renewed again once it was read.
            Answer::Conflict => {
                self.renew_at = now + times.retry_period / 4;
                vec![Command::Look]
            }
            Answer::Failed => {
                self.renew_at = now + times.retry_period / 4;
                vec![]
            }
        }
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;

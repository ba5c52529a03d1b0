//! The Leases of all shards, held while the changelog is moved: replicas that still run do not get in the way.
//!
//! ```text
//!   per shard: Elector (takes it when free, released or silent for a lease duration; renews it) ──Tenure──▶ Holds
//!              Leases::look, again and again: changed by its holder ──▶ somebody leads: refused
//! ```
//! A Lease is a hint here as everywhere: that nobody can write is the fence's promise, and the switch's.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::Client;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::chain,
    leadership::{
        election::{Ended, Times, Why},
        elector::{Elector, Granted, Observer},
        lease::{self, Leases},
        tenure::{ShardId, Tenure},
    },
};

/// How much longer than the longest silence of a holder it may take to get the Leases.
const SPARE: Duration = Duration::from_secs(20);
/// Longest wait for the API server to take the Leases back.
const RELEASE_MAX: Duration = Duration::from_secs(5);
/// A holder's own lease duration may be longer than ours; the election believes three times as much.
const SILENCES: u32 = 4;

/// Why the Leases are not ours.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A replica leads.
    #[error(
        "shard {shard} is led by {holder} (Lease {namespace}/{name}): stop all replicas first, for instance kubectl \
         --namespace {namespace} scale deployment --selector app.kubernetes.io/name=pod-monitor --replicas=0"
    )]
    Led {
        /// Which.
        shard: ShardId,
        /// Who.
        holder: String,
        /// `--lease-namespace`
        namespace: String,
        /// The Lease.
        name: String,
    },
    /// The API server does not let us.
    #[error(transparent)]
    Lease(#[from] lease::Error),
    /// It takes too long.
    #[error("the Lease of shard {shard} could not be taken in time{why}")]
    Late {
        /// Which.
        shard: ShardId,
        /// `: ` and what was last heard.
        why: String,
    },
    /// Not ours any more.
    #[error("the Lease of shard {shard} was lost: another process took it, or the API server did not answer")]
    Lost {
        /// Which.
        shard: ShardId,
    },
    /// A part died: a bug.
    #[error("an election ended unexpectedly")]
    Task(#[source] JoinError),
}

/// Where the Leases are, and who takes them.
#[derive(Debug, Clone)]
pub struct Place {
    /// `--lease-namespace`
    pub namespace: String,
    /// `--lease-name`
    pub name: String,
    /// Unique per start of the process.
    pub me: String,
    /// How they are held.
    pub times: Times,
}

/// All Leases, until they are let go.
pub struct Holds {
    stop: CancellationToken,
    electors: JoinSet<Result<(), JoinError>>,
    held: Vec<Granted>,
}

/// What an election says.
#[derive(Default)]
struct Heard(Mutex<Option<lease::Error>>);

impl Observer for Heard {
    fn holder(&self, _: Option<&str>) {}

    fn taken(&self, why: Why) {
        tracing::debug!(?why, "lease acquired");
    }

    fn is_warm(&self) -> bool {
        true
    }

    fn is_next(&self) -> bool {
        true
    }

    fn is_to_give(&self) -> bool {
        false
    }

    fn dead(&self, _: &str) {}

    fn ended(&self, why: Ended) {
        tracing::debug!(?why, "tenure ended");
    }

    fn trouble(&self, error: lease::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl Heard {
    fn last(&self) -> Option<lease::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Holds {
    /// None yet. When `stop` is cancelled, none is taken any more.
    pub fn new(stop: &CancellationToken) -> Self {
        Self { stop: stop.child_token(), electors: JoinSet::new(), held: Vec::new() }
    }

    /// Takes the Leases of this many shards. Whatever it holds when this fails is let go by [`Holds::release`].
    ///
    /// # Errors
    /// When a replica leads, or the API server does not let us.
    pub async fn take(&mut self, client: &Client, place: &Place, shards: u32) -> Result<(), Error> {
        let mut taking = JoinSet::new();
        for shard in (0..shards).map(ShardId) {
            let name = format!("{}-{shard}", place.name);
            let leases = Arc::new(Leases::new(client.clone(), &place.namespace, &name, &place.me, None, place.times));
            let heard = Arc::new(Heard::default());
            // Whoever is dead is silent: nobody is asked whether it is.
            let attend = Arc::new(|_, _| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
                Box::pin(std::future::pending())
            });
            // It shares with nobody.
            let (_, cues) = mpsc::channel(1);
            let (elector, granted) =
                Elector::new(shard, Arc::clone(&leases), &place.me, place.times, Arc::clone(&heard), attend, cues);
            self.electors.spawn(elector.run(self.stop.clone()));
            taking.spawn(one(shard, leases, heard, granted, place.clone(), name));
        }
        let mut outcome = Ok(());
        while let Some(taken) = taking.join_next().await {
            let (granted, taken) = taken.map_err(Error::Task)?;
            self.held.extend(granted);
            if outcome.is_ok() && taken.is_err() {
                // The others need not go on; what they have got they hand over all the same, to be let go.
                self.stop.cancel();
                outcome = taken;
            }
        }
        outcome
    }

    /// The permit to act for a shard.
    pub fn tenure(&self, shard: ShardId) -> Option<&Tenure> {
        self.held.iter().map(|granted| &granted.tenure).find(|tenure| tenure.shard == shard)
    }

    /// Whether all are ours.
    ///
    /// # Errors
    /// When one is not any more.
    pub fn check(&self) -> Result<(), Error> {
        let lost = self.held.iter().find(|granted| granted.tenure.is_over(Instant::now()));
        lost.map_or(Ok(()), |granted| Err(Error::Lost { shard: granted.tenure.shard }))
    }

    /// Lets all go.
    pub async fn release(self) {
        let Self { stop, mut electors, held } = self;
        stop.cancel();
        for granted in held {
            granted.drained().await;
        }
        // One that could not be let go runs out by itself.
        let ends = async { while electors.join_next().await.is_some() {} };
        if timeout(RELEASE_MAX, ends).await.is_err() {
            tracing::debug!("a lease was not released");
        }
    }
}

async fn one(
    shard: ShardId,
    leases: Arc<Leases>,
    heard: Arc<Heard>,
    mut granted: mpsc::Receiver<Granted>,
    place: Place,
    name: String,
) -> (Option<Granted>, Result<(), Error>) {
    let limit = place.times.lease_duration * SILENCES + SPARE;
    let error = tokio::select! {
        granted = granted.recv() => {
            let taken = granted.as_ref().map(|_| ()).ok_or(Error::Lost { shard });
            return (granted, taken);
        }
        led = led(&leases, &place) => match led {
            Ok(holder) => Error::Led { shard, holder, namespace: place.namespace, name },
            Err(error) => error.into(),
        },
        () = sleep(limit) => {
            let why = heard.last().map(|error| format!(": {}", chain(&error))).unwrap_or_default();
            Error::Late { shard, why }
        }
    };
    granted.close();
    (granted.recv().await, Err(error))
}

/// Who changed the Lease while we looked, other than us; an error that waiting does not mend.
async fn led(leases: &Leases, place: &Place) -> Result<String, lease::Error> {
    let mut known = None;
    loop {
        match leases.look().await {
            Ok((Some(record), _)) if !record.holder.is_empty() && *record.holder != *place.me => {
                if known.replace(record.version).is_some_and(|known| known != record.version) {
                    return Ok(record.holder.into());
                }
            }
            Ok(_) => known = None,
            Err(error @ lease::Error::Forbidden { .. }) => return Err(error),
            Err(error) => tracing::debug!(error = %chain(&error), "the lease cannot be looked at yet"),
        }
        sleep(place.times.retry_period).await;
    }
}

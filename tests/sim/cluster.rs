//! Replicas and the world around them: started, killed, asked to end, and started again as the kubelet does.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    random::Random,
    world::{World, after, lock, process::Process, replica},
};

/// How long the kubelet takes to start one again, in ms.
const PAUSE_MS: (u64, u64) = (10, 2000);

pub struct Cluster {
    pub world: Arc<World>,
    slots: Mutex<BTreeMap<usize, Slot>>,
    /// When which place is filled (again).
    due: Mutex<Vec<(Instant, usize)>>,
    /// Places that stay empty until then.
    away: Mutex<BTreeMap<usize, Instant>>,
    /// All places that are empty stay so: the Deployment is scaled to zero.
    halted: AtomicBool,
    random: Mutex<Random>,
}

struct Slot {
    starts: u32,
    process: Arc<Process>,
    stop: CancellationToken,
    task: AbortHandle,
}

/// The place of a replica, and what it ended with.
pub type Ended = (usize, Result<(), String>);

impl Cluster {
    /// Nobody runs yet: founders are due now, the others join while things go wrong.
    pub fn new(world: Arc<World>, mut random: Random) -> Self {
        let setting = world.setting;
        let joins = |place| match place < setting.founders {
            true => Duration::ZERO,
            false => random.ms(0, setting.chaos.as_millis() as u64),
        };
        let due = (0..setting.replicas).map(joins).map(|pause| Instant::now() + pause).zip(0..).collect();
        let (slots, away) = (Mutex::default(), Mutex::default());
        let halted = AtomicBool::new(false);
        Self { world, slots, due: Mutex::new(due), away, halted, random: Mutex::new(random) }
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.world.spawn(task);
    }

    fn start(&self, place: usize, replicas: &mut JoinSet<Ended>) {
        let skew_ms = lock(&self.random).below(7_200_000) as i64 - 3_600_000;
        let mut slots = lock(&self.slots);
        let starts = slots.get(&place).map_or(0, |slot| slot.starts + 1);
        let process = Arc::new(Process::new(format!("pod-{place}_{starts}"), skew_ms));
        let stop = CancellationToken::new();
        self.world.note(&process.identity, format_args!("starts"));
        if let Some(slot) = slots.get(&place) {
            self.replaced(&slot.process, &process, &slots);
        }
        let running = Box::pin(replica::run(Arc::clone(&self.world), Arc::clone(&process), stop.clone()));
        let task = replicas.spawn(async move { (place, running.await) });
        slots.insert(place, Slot { starts, process, stop, task });
    }

    /// A container that starts again has the same address, a pod that is made again has not. Whoever finds another than it
    /// looked for at an address knows that that one is dead.
    fn replaced(&self, dead: &Process, by: &Process, slots: &BTreeMap<usize, Slot>) {
        if self.world.setting.steady || lock(&self.random).percent(70) {
            by.hear_of_death(&dead.identity);
            slots.values().for_each(|slot| slot.process.hear_of_death(&dead.identity));
        }
    }

    fn next_due(&self) -> Option<(Instant, usize)> {
        lock(&self.due).iter().min().copied().filter(|_| !self.halted.load(Ordering::Relaxed))
    }

    /// From now on nobody is started, or everybody is again.
    pub fn halt(&self, halted: bool) {
        self.halted.store(halted, Ordering::Relaxed);
    }

    /// Starts what is due, and again what has ended, for so long.
    pub async fn supervise(&self, replicas: &mut JoinSet<Ended>, lasts: Duration) {
        let over = Instant::now() + lasts;
        loop {
            let due = self.next_due();
            let at = due.map_or(over, |(at, _)| at);
            tokio::select! {
                biased;
                () = sleep_until(at), if due.is_some() => {
                    if let Some((at, place)) = due {
                        lock(&self.due).retain(|due| *due != (at, place));
                        self.start(place, replicas);
                    }
                }
                Some(ended) = replicas.join_next_with_id() => {
                    let place = match ended {
                        Ok((_, (place, result))) => {
                            self.ended(place, &result);
                            place
                        }
                        Err(error) => {
                            if error.is_panic() {
                                self.world.wrong(format!("panic: {error}"));
                            }
                            self.place_of(error.id())
                        }
                    };
                    let again = Instant::now() + lock(&self.random).ms(PAUSE_MS.0, PAUSE_MS.1);
                    let again = lock(&self.away).remove(&place).map_or(again, |until| until.max(again));
                    lock(&self.due).push((again, place));
                }
                () = sleep_until(over) => return,
            }
        }
    }

    fn ended(&self, place: usize, result: &Result<(), String>) {
        let process = Arc::clone(&lock(&self.slots)[&place].process);
        self.world.note(&process.identity, format_args!("ends: {result:?}"));
        if let Err(why) = result
            && (why.contains("panic") || why.contains("unexpectedly"))
        {
            self.world.wrong(format!("panic: {why}"));
        }
        self.obituary(&process);
        process.die();
    }

    fn place_of(&self, id: tokio::task::Id) -> usize {
        let slots = lock(&self.slots);
        slots.iter().find(|(_, slot)| slot.task.id() == id).map(|(place, _)| *place).expect("it was one of ours")
    }

    /// Those that run, by place.
    pub fn living(&self) -> Vec<(usize, Arc<Process>)> {
        let slots = lock(&self.slots);
        let living = slots.iter().filter(|(_, slot)| !slot.process.is_dead());
        living.map(|(place, slot)| (*place, Arc::clone(&slot.process))).collect()
    }

    /// Nothing of it runs on.
    pub fn crash(&self, place: usize) {
        let (process, task) = {
            let slots = lock(&self.slots);
            (Arc::clone(&slots[&place].process), slots[&place].task.clone())
        };
        process.die();
        task.abort();
        self.obituary(&process);
    }

    /// SIGTERM.
    pub fn stop(&self, place: usize) {
        lock(&self.slots)[&place].stop.cancel();
    }

    /// SIGTERM; its place stays empty for a while.
    pub fn leave(&self, place: usize, lasts: Duration) {
        lock(&self.away).insert(place, Instant::now() + lasts);
        self.stop(place);
    }

    /// The others notice: at once, late or never.
    fn obituary(&self, dead: &Process) {
        let steady = self.world.setting.steady;
        for (_, process) in self.living() {
            let (heard, late) = {
                let mut random = lock(&self.random);
                let late = if steady || random.percent(80) { random.ms(1, 10) } else { random.ms(10, 5000) };
                (steady || random.percent(85), late)
            };
            let who = dead.identity.clone();
            if heard && who != process.identity {
                self.spawn(async move {
                    after(late).await;
                    process.hear_of_death(&who);
                });
            }
        }
    }
}

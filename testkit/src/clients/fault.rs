//! Faults at random moments: the seed is printed, so that a run can be told apart and repeated in kind.

use std::time::Duration;

use anyhow::Result;
use tokio::{sync::watch, time::timeout};

use super::monitor::Launch;

/// A small, seeded generator (SplitMix64): enough for choosing moments.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed in this variable, else one from the clock; printed, since a failure is to be repeated with it.
    ///
    /// # Errors
    /// When the variable is set and no number.
    pub fn from_variable(variable: &str) -> Result<Self> {
        let seed = match std::env::var(variable) {
            Ok(text) => text.parse()?,
            Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64,
        };
        println!("{variable}={seed}");
        Ok(Self::new(seed))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A duration between the two.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_micros().max(1) as u64;
        low + Duration::from_micros(self.number() % span)
    }
}

impl Random {
    /// Waits for a random time: the next fault comes at a moment that nobody chose.
    pub async fn pause(&mut self, max: Duration) {
        tokio::time::sleep(self.between(Duration::ZERO, max)).await;
    }
}

/// A fault has a duration; nothing is waited for by it.
pub async fn lasts(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Starts the monitor and kills it (SIGKILL) after a random time within `life`, again and again until `stop` says so;
/// gives the number of kills. The last one is killed too.
///
/// # Errors
/// When it cannot be started, or ends by itself.
pub async fn kill_again_and_again(
    launch: &Launch,
    life: (Duration, Duration),
    mut random: Random,
    mut stop: watch::Receiver<bool>,
) -> Result<usize> {
    let mut kills = 0;
    while !*stop.borrow() {
        let mut monitor = launch.start()?;
        let stopped = timeout(random.between(life.0, life.1), stop.wait_for(|stop| *stop)).await.is_ok();
        if let Ok(status) = monitor.ended(Duration::ZERO).await {
            anyhow::bail!("the monitor ended by itself: {status}\n{}", monitor.log_end());
        }
        monitor.kill()?;
        kills += 1;
        if stopped {
            break;
        }
    }
    Ok(kills)
}

//! The network between one process and one server: delays, and faults of each direction by itself.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{World, after, process::Process};

/// What happens to what goes one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    #[default]
    Open,
    /// Gets lost; nobody is told.
    Hole,
    /// Gets lost; the connection breaks.
    Reset,
}

/// Both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    pub requests: Way,
    pub answers: Way,
    /// A message may take up to this long, in ms, beside the usual.
    pub slow_ms: u64,
    /// Of 100 requests, so many are refused by the server without being carried out.
    pub refused_percent: u64,
}

/// The connection broke: whether the request was carried out is not known.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("connection reset by peer")]
pub struct Broken;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Cluster,
    Kafka,
}

#[derive(Clone)]
pub struct Wire {
    pub world: Arc<World>,
    pub process: Arc<Process>,
    pub to: To,
}

impl Wire {
    pub fn link(&self) -> Link {
        *self.process.link(self.to)
    }

    /// How long a message takes now.
    pub fn delay(&self) -> Duration {
        let slow = self.link().slow_ms;
        let steady = self.world.setting.steady;
        self.world.draw(|random| match random.below(50) {
            0 if !steady => random.ms(3, 200),
            1..=20 if slow > 0 => random.ms(0, slow),
            _ => random.ms(0, 3),
        })
    }

    /// Whether the server refuses this request without looking at it.
    pub fn refused(&self) -> bool {
        let percent = self.link().refused_percent;
        percent > 0 && self.world.draw(|random| random.percent(percent))
    }

    /// Sends a request, which is carried out whether or not anybody still waits for its answer. Never returns where the
    /// request or its answer got lost in silence.
    pub async fn call<T: Send + 'static>(&self, serve: impl FnOnce() -> T + Send + 'static) -> Result<T, Broken> {
        let (answer, answered) = oneshot::channel();
        let wire = self.clone();
        self.world.spawn(async move {
            wire.process.thawed().await;
            // The dead send nothing; what they had sent arrives.
            if wire.process.is_dead() {
                return;
            }
            let result = wire.carry(serve).await;
            wire.process.thawed().await;
            if let Some(result) = result {
                // Whoever asked may have given up.
                drop(answer.send(result));
            }
        });
        match answered.await {
            Ok(result) => result,
            Err(_) => std::future::pending().await,
        }
    }

    /// `None`: lost in silence.
    async fn carry<T>(&self, serve: impl FnOnce() -> T) -> Option<Result<T, Broken>> {
        after(self.delay()).await;
        match self.link().requests {
            Way::Open => {}
            Way::Hole => return None,
            Way::Reset => return Some(Err(Broken)),
        }
        let answer = serve();
        after(self.delay()).await;
        match self.link().answers {
            Way::Open => Some(Ok(answer)),
            Way::Hole => None,
            Way::Reset => Some(Err(Broken)),
        }
    }
}

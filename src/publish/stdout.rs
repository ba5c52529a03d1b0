//! The sink for trying the monitor without Kafka: one JSON event a line on standard output, nothing kept.
//!
//! Promises what a pipe can: each batch is written and flushed before its commit returns. After a restart the story of
//! living pods is told anew, with the same event ids.

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Batch, error::CommitError, error::OpenError, record, record::Service, restore::Restored};
use crate::{
    leadership::tenure::{ShardId, Tenure},
    lifecycle::event::Event,
    ports::{Journal, Journals, Readiness},
};

/// Writes to standard output, or to what a test gives.
pub struct Stdout<W = std::io::Stdout> {
    out: Arc<Mutex<W>>,
    service: Arc<Service>,
}

impl Stdout {
    /// The process's standard output.
    pub fn new(service: Service) -> Self {
        Self::to(std::io::stdout(), service)
    }
}

impl<W> Stdout<W> {
    /// Any other output.
    pub fn to(out: W, service: Service) -> Self {
        Self { out: Arc::new(Mutex::new(out)), service: Arc::new(service) }
    }
}

impl<W: Write + Send + 'static> Journals for Stdout<W> {
    type Journal = Self;

    fn stand_by(&self, _: ShardId) -> Result<(), OpenError> {
        Ok(())
    }

    fn readiness(&self, _: ShardId) -> Result<Readiness, OpenError> {
        Ok(Readiness::Warm)
    }

    fn is_answered(&self, _: ShardId) -> bool {
        true
    }

    fn lag_records(&self, _: ShardId) -> Option<u64> {
        None
    }

    async fn open(&self, _: &Tenure) -> Result<(Self, Restored), OpenError> {
        let journal = Self { out: Arc::clone(&self.out), service: Arc::clone(&self.service) };
        Ok((journal, Restored::default()))
    }
}

impl<W: Write + Send + 'static> Journal for Stdout<W> {
    async fn commit(&mut self, batch: Batch) -> Result<(), CommitError> {
        let (out, service) = (Arc::clone(&self.out), Arc::clone(&self.service));
        // A reader that does not read blocks us: not on a thread of the runtime.
        let written = tokio::task::spawn_blocking(move || write(&out, &service, &batch)).await;
        written.unwrap_or_else(|error| Err(CommitError::Output(std::io::Error::other(error))))
    }
}

fn refused(event: &Event, reason: String) -> CommitError {
    CommitError::Refused { pod_uid: Some(event.pod_uid.clone()), key: event.event_id.to_string(), reason }
}

fn write<W: Write>(out: &Mutex<W>, service: &Service, batch: &Batch) -> Result<(), CommitError> {
    let mut lines = Vec::with_capacity(batch.events.len() * 1024);
    for event in &batch.events {
        record::write_value(&mut lines, event, service).map_err(|e| refused(event, e.to_string()))?;
        lines.push(b'\n');
    }
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    out.write_all(&lines).and_then(|()| out.flush()).map_err(CommitError::Output)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        leadership::tenure::ShardId,
        lifecycle::event::{Body, Event},
        watch::pod::PodUid,
    };

    /// Counts flushes; refuses everything once closed.
    #[derive(Default)]
    struct Pipe {
        bytes: Vec<u8>,
        flushed: usize,
        closed: bool,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.closed {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            self.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            self.flushed = self.bytes.len();
            Ok(())
        }
    }

    fn batch(count: u32) -> Batch {
        let event = |sequence| Event {
            event_id: uuid::Uuid::nil(),
            timestamp: jiff::Timestamp::UNIX_EPOCH,
            observed_at: jiff::Timestamp::UNIX_EPOCH,
            execution_id: "1".into(),
            user_id: None,
            pod_name: "p\nq".into(),
            namespace: "ns".into(),
            pod_uid: PodUid("u".into()),
            node_name: None,
            sequence,
            owner: None,
            earlier_end: None,
            parent: None,
            body: Body::Scheduled,
        };
        Batch { events: (1..=count).map(event).collect(), ..Batch::default() }
    }

    #[tokio::test]
    async fn each_batch_is_whole_lines_flushed_and_a_closed_pipe_is_an_error() {
        let service = Service { name: "s".into(), version: "1".into(), environment: None };
        let sink = Stdout::to(Pipe::default(), service);
        let tenure = Tenure::unconditional(ShardId(0), "h", tokio_util::sync::CancellationToken::new());
        let (mut journal, restored) = sink.open(&tenure).await.unwrap();
        assert_eq!(restored, Restored::default());
        journal.commit(batch(2)).await.unwrap();
        {
            let mut pipe = sink.out.lock().unwrap();
            let text = std::str::from_utf8(&pipe.bytes).unwrap();
            assert_eq!((text.lines().count(), text.ends_with('\n')), (2, true), "{text}");
            assert_eq!(pipe.flushed, pipe.bytes.len());
            pipe.closed = true;
        }
        let error = journal.commit(batch(1)).await.unwrap_err();
        assert!(matches!(&error, CommitError::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe), "{error:?}");
    }
}

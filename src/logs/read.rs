//! One read of the output: in two streams where the servers can tell them apart, else both in one.

use futures::StreamExt;

use super::{
    Report, Target,
    attempt::{Attempt, Progress},
    capture::{Shared, Stop},
    limits::Keeper,
    nodes::{Node, Split},
    streams::{LogRequest, LogSource, Part, Run, Stream},
};

impl<S: LogSource> Shared<S> {
    /// One read of everything: split into two streams where the servers can, else both in one.
    pub(super) async fn read(
        &self,
        target: &Target,
        run: Run,
        report: Report,
        node: &Node,
        progress: &mut Progress,
    ) -> Result<(), Stop> {
        if self.split.get() == Split::Missing || node.split.get() == Split::Missing {
            return self
                .read_stream((target, run), Stream::All, progress.begin(Attempt::new(report, &self.limits)))
                .await;
        }
        match self.read_split((target, run), node, progress.begin(Attempt::new(report, &self.limits))).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // The API server does not know the parameter or its gate is off.
            Err(Stop::Failed(error)) if error.status() == Some(http::StatusCode::UNPROCESSABLE_ENTITY) => {
                self.split.set(Split::Missing);
            }
            // The kubelet's gate is off, or there is no log at all: reading both in one tells.
            Err(Stop::Failed(error)) if error.status() == Some(http::StatusCode::BAD_REQUEST) => {
                let read = self
                    .read_stream((target, run), Stream::All, progress.begin(Attempt::new(report, &self.limits)))
                    .await;
                // Seen to work once, it does: then it was this log that was not there for a moment.
                if read.is_ok() && node.split.get() != Split::Works {
                    node.split.set(Split::Missing);
                }
                return read;
            }
            Err(stop) => return Err(stop),
        }
        self.read_again_as_one((target, run), report, node, progress).await
    }

    /// Reads both streams in one, after a read of two that may have held everything twice: the lengths tell.
    async fn read_again_as_one(
        &self,
        of: (&Target, Run),
        report: Report,
        node: &Node,
        progress: &mut Progress,
    ) -> Result<(), Stop> {
        // Aside until it is known to be no copy: if this read fails, nothing must be told twice.
        let mut split = progress.current.take();
        let stderr = split.as_mut().and_then(|split| split.stderr.take());
        let split_bytes = split.as_ref().map(|split| split.main.total());
        progress.current = split;
        let attempt = progress.begin(Attempt::new(report, &self.limits));
        self.read_stream(of, Stream::All, attempt).await?;
        let one_bytes = attempt.main.total();
        if self.split.get() == Split::Missing {
            return Ok(());
        }
        if Some(one_bytes) == split_bytes {
            node.split.set(Split::Missing);
            return Ok(());
        }
        // Both together are longer than each of them: they are two streams.
        node.split.set(Split::Works);
        if let Some(mut split) = progress.best.take().filter(|best| Some(best.main.total()) == split_bytes) {
            split.stderr = stderr;
            progress.current = Some(split);
        }
        Ok(())
    }

    /// Reads standard output and standard error. `false`: they are equally long, so perhaps each is everything, since
    /// servers before 1.32 ignore the parameter.
    async fn read_split(&self, of: (&Target, Run), node: &Node, attempt: &mut Attempt) -> Result<bool, Stop> {
        self.read_stream(of, Stream::Stdout, attempt).await?;
        if attempt.main.has_stderr() && node.split.get() == Split::Works {
            attempt.stderr_passed_over = true;
            return Ok(true);
        }
        attempt.stderr = Some(Keeper::new(self.limits.log_bytes_max));
        self.read_stream(of, Stream::Stderr, attempt).await?;
        let (stdout, stderr) = (attempt.main.total(), attempt.stderr.as_ref().map_or(0, Keeper::total));
        if stdout != stderr {
            node.split.set(Split::Works);
        }
        Ok(stdout != stderr || stdout == 0 || node.split.get() == Split::Works)
    }

    async fn read_stream(&self, of: (&Target, Run), stream: Stream, attempt: &mut Attempt) -> Result<(), Stop> {
        let mut chunks = self.source.read(&request(of, stream, Part::Whole)).await?;
        while let Some(chunk) = chunks.next().await {
            attempt.push(stream, &chunk?, &self.limits);
        }
        if stream != Stream::Stderr && attempt.is_kubelet_failure() {
            return Err(Stop::LogGone);
        }
        Ok(())
    }

    /// The last line of both streams, only to be compared.
    pub(super) async fn read_last_line(&self, target: &Target, run: Run, part: Part) -> Result<Attempt, Stop> {
        let mut chunks = self.source.read(&request((target, run), Stream::All, part)).await?;
        let mut line = Attempt::line();
        while let Some(chunk) = chunks.next().await {
            line.push(Stream::All, &chunk?, &self.limits);
        }
        Ok(line)
    }
}

pub(super) fn request((target, run): (&Target, Run), stream: Stream, part: Part) -> LogRequest<'_> {
    LogRequest {
        namespace: &target.namespace,
        pod_name: &target.pod_name,
        container: &target.container,
        stream,
        run,
        part,
    }
}

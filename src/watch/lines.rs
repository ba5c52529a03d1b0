//! The lines of an open watch.

use std::{io, pin::Pin, time::Duration};

use futures::{AsyncBufRead, AsyncBufReadExt as _};

use super::{
    api::{Error, WATCH_SECONDS, within},
    frame::{Frame, read_frame},
    traffic::Traffic,
};

/// A watch that is silent for longer than the server would keep it open is half-open.
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS + 5);
/// Longest line of a watch: etcd refuses objects over 1.5 MiB, JSON may double that.
const LINE_BYTES_MAX: usize = 8 << 20;

/// An open watch.
#[derive(Debug)]
pub struct Watch<R> {
    lines: Pin<Box<R>>,
    /// The beginning of a line that did not come at once.
    begun: Vec<u8>,
    traffic: Traffic,
}

impl<R: AsyncBufRead> Watch<R> {
    pub(super) fn new(lines: R, traffic: Traffic) -> Self {
        Self { lines: Box::pin(lines), begun: Vec::new(), traffic }
    }

    /// The next line; `None` when the server ended the watch, as it does after its time.
    ///
    /// # Errors
    /// `Timeout` where the connection is silent for longer than the server would keep it; `Broken` where it breaks.
    pub async fn next(&mut self) -> Result<Option<Frame>, Error> {
        let read = within("watch", SILENCE_MAX, self.line()).await?;
        read.map_err(|source| Error::Broken { verb: "watch", source })
    }

    /// The API server sends each line at once: it is read where it lies, without a copy.
    async fn line(&mut self) -> io::Result<Option<Frame>> {
        self.begun.clear();
        loop {
            let there = self.lines.fill_buf().await?;
            let room = LINE_BYTES_MAX - self.begun.len();
            let end = memchr::memchr(b'\n', there).map_or(there.len(), |at| at + 1).min(room);
            let part = &there[..end];
            let is_last = part.is_empty() || part.ends_with(b"\n") || end == room;
            let whole = is_last && self.begun.is_empty() && !part.is_empty();
            let frame = whole.then(|| frame(part));
            if !whole {
                self.begun.extend_from_slice(part);
            }
            self.lines.consume_unpin(end);
            self.traffic.read(end);
            if is_last {
                return Ok(frame.or_else(|| (!self.begun.is_empty()).then(|| self::frame(&self.begun))));
            }
        }
    }
}

fn frame(line: &[u8]) -> Frame {
    match std::str::from_utf8(line) {
        Ok(line) => read_frame(line),
        Err(error) => Frame::Garbled(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, TryStreamExt as _, stream};

    use super::{super::pod::ResourceVersion, *};

    fn bookmark(version: u64) -> String {
        format!("{{\"type\":\"BOOKMARK\",\"object\":{{\"metadata\":{{\"resourceVersion\":\"{version}\"}}}}}}\n")
    }

    /// What a watch says whose bytes come in these pieces, and how many bytes were counted.
    fn frames(pieces: Vec<Vec<u8>>) -> (Vec<Frame>, u64) {
        let (bytes, traffic) = (stream::iter(pieces.into_iter().map(io::Result::Ok)), Traffic::default());
        let mut watch = Watch::new(bytes.into_async_read(), traffic.clone());
        let mut frames = Vec::new();
        while let Some(frame) = watch.line().now_or_never().expect("all is there").expect("nothing breaks") {
            frames.push(frame);
        }
        (frames, traffic.take().bytes)
    }

    #[test]
    fn lines_are_read_however_their_bytes_come() {
        let text = [bookmark(1), bookmark(22), bookmark(333)].concat().into_bytes();
        let expected = [1, 22, 333].map(|version| Frame::Bookmark(ResourceVersion(version)));
        for size in 1..=text.len() {
            let (frames, bytes) = frames(text.chunks(size).map(<[u8]>::to_vec).collect());
            assert_eq!((&*frames, bytes), (&expected[..], text.len() as u64), "pieces of {size}");
        }
    }

    #[test]
    fn an_end_within_a_line_is_a_line_that_is_no_event() {
        let text = [bookmark(1), bookmark(2)].concat().into_bytes();
        let cut = text.len() - 9;
        for pieces in [vec![text[..cut].to_vec()], vec![text[..cut - 3].to_vec(), text[cut - 3..cut].to_vec()]] {
            let (frames, _) = frames(pieces);
            assert!(matches!(&*frames, [Frame::Bookmark(_), Frame::Garbled(_)]), "{frames:?}");
        }
        let (frames, _) = frames(vec![b"\xff\n".to_vec(), bookmark(7).into_bytes()]);
        assert!(matches!(&*frames, [Frame::Garbled(_), Frame::Bookmark(_)]), "no UTF-8: {frames:?}");
    }

    #[test]
    fn no_line_takes_more_memory_than_the_longest_may() {
        let piece = vec![b'x'; 3 << 20];
        let (frames, bytes) = frames(vec![piece; 4]);
        assert_eq!(frames.len(), 2, "cut at the longest, and what is left");
        assert!(frames.iter().all(|frame| matches!(frame, Frame::Garbled(_))), "{frames:?}");
        assert_eq!(bytes, 12 << 20);
    }
}

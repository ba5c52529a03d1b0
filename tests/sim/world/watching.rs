//! One open watch: lines as they come, bookmarks, its orderly end, and the network under it.

use std::{io, sync::Arc, time::Duration};

use futures::Stream;
use serde_json::json;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    after,
    etcd::Which,
    selection::Selection,
    wire::{Way, Wire},
};
use crate::oracle::Range;

/// The real server sends one about two seconds before it ends a watch, and once a minute.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

pub struct Watching {
    wire: Wire,
    range: Range,
    which: Which,
    selection: Selection,
    /// Everything up to here was sent.
    sent: u64,
    ends: Instant,
    bookmark: Instant,
    news: Arc<Notify>,
    /// Its beginning is forgotten already.
    expired: bool,
    over: bool,
}

/// What was asked for.
pub struct Opened {
    pub which: Which,
    pub selection: Selection,
    pub from: u64,
    pub seconds: u64,
    /// That is forgotten already.
    pub expired: bool,
}

enum Next {
    Line(String),
    End,
}

impl Watching {
    pub fn new(wire: Wire, range: Range, opened: Opened) -> Self {
        let Opened { which, selection, from, seconds, expired } = opened;
        let news = wire.world.etcd().kind(which).changes();
        let ends = Instant::now() + Duration::from_secs(seconds);
        let bookmark = ends - BOOKMARK_BEFORE_END;
        Self { wire, range, which, selection, sent: from, ends, bookmark, news, expired, over: false }
    }

    pub fn lines(self) -> impl Stream<Item = io::Result<String>> + Send {
        futures::stream::unfold(self, |mut watching| async move {
            if watching.over {
                return None;
            }
            match watching.next().await {
                Next::End => None,
                Next::Line(line) => watching.deliver(line).await.map(|line| (line, watching)),
            }
        })
    }

    /// Through the network. `None`: the connection ended in order.
    async fn deliver(&mut self, line: String) -> Option<io::Result<String>> {
        after(self.wire.delay()).await;
        let link = self.wire.link();
        let cut = if link.answers == Way::Open { link.requests } else { link.answers };
        match cut {
            Way::Open => Some(Ok(line)),
            Way::Reset => {
                self.over = true;
                Some(Err(io::ErrorKind::ConnectionReset.into()))
            }
            // Half-open: TCP gives up long after the client did.
            Way::Hole => std::future::pending().await,
        }
    }

    async fn next(&mut self) -> Next {
        let news = Arc::clone(&self.news);
        loop {
            // Before looking, so that nothing that comes meanwhile is missed.
            let changed = news.notified();
            let compacted = {
                let etcd = self.wire.world.etcd();
                let kind = etcd.kind(self.which);
                let next = kind.after(self.sent, &self.selection);
                let due = next.filter(|change| !self.expired && change.version > kind.compacted);
                if let Some((change, line)) = due.and_then(|change| Some((change, change.line(&self.selection)?))) {
                    self.sent = change.version;
                    return Next::Line(line);
                }
                // What was not sent yet is forgotten.
                self.expired || next.is_some()
            };
            if compacted {
                if self.which == Which::Pods {
                    self.wire.world.observed().expired(&self.wire.process.identity, self.range, self.sent);
                }
                self.over = true;
                let status = json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": "too old" });
                return Next::Line(format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n"));
            }
            tokio::select! {
                biased;
                () = sleep_until(self.ends) => return Next::End,
                () = sleep_until(self.bookmark) => {
                    // It says that all up to here was sent: what came in this very moment goes first.
                    if self.wire.world.etcd().kind(self.which).after(self.sent, &self.selection).is_some() {
                        continue;
                    }
                    self.bookmark = self.ends + BOOKMARK_BEFORE_END;
                    return Next::Line(self.bookmarked());
                }
                () = changed => {}
            }
        }
    }

    fn bookmarked(&mut self) -> String {
        self.sent = self.wire.world.etcd().version;
        let object = json!({ "kind": "Pod", "apiVersion": "v1", "spec": { "containers": null }, "status": {},
            "metadata": { "resourceVersion": self.sent.to_string(), "creationTimestamp": null } });
        format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n")
    }
}

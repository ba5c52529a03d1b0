//! One line of a watch, one page of a LIST: bytes to data. Pure and total.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::pod::{Decoded, Pod, ResourceVersion, decode};

/// What one line of a watch says.
#[derive(Debug, PartialEq)]
pub enum Frame {
    /// ADDED or MODIFIED.
    Applied(Decoded),
    /// DELETED, with the last state.
    Deleted(Decoded),
    /// BOOKMARK: everything up to here has been sent.
    Bookmark(ResourceVersion),
    /// ERROR with code 410: the resourceVersion asked for is compacted away.
    Expired,
    /// Any other ERROR.
    Error {
        /// HTTP-like code of the Status.
        code: u16,
        /// The Status' message.
        message: String,
    },
    /// Not a watch event: a cut line, a proxy's error page.
    Garbled(String),
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    object: Pod,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
    reason: String,
    message: String,
}

/// Reads one line of a watch.
pub fn read_frame(line: &str) -> Frame {
    // The common case in one pass: a well-formed pod.
    if let Ok(Typed { kind, object }) = serde_json::from_str::<Typed<'_>>(line)
        && object.odd().is_none()
    {
        match kind {
            "ADDED" | "MODIFIED" => return Frame::Applied(Decoded::Whole(object)),
            "DELETED" => return Frame::Deleted(Decoded::Whole(object)),
            _ => {}
        }
    }
    match serde_json::from_str::<Raw<'_>>(line) {
        Ok(Raw { kind: "ADDED" | "MODIFIED", object }) => Frame::Applied(decode(object.get())),
        Ok(Raw { kind: "DELETED", object }) => Frame::Deleted(decode(object.get())),
        Ok(Raw { kind: "BOOKMARK", object }) => match serde_json::from_str::<Pod>(object.get()) {
            Ok(pod) => Frame::Bookmark(pod.metadata.resource_version),
            Err(error) => Frame::Garbled(error.to_string()),
        },
        Ok(Raw { kind: "ERROR", object }) => error(object.get()),
        Ok(Raw { kind, .. }) => Frame::Garbled(format!("unknown event type {kind:?}")),
        Err(error) => Frame::Garbled(error.to_string()),
    }
}

fn error(object: &str) -> Frame {
    let status: Status = match serde_json::from_str(object) {
        Ok(status) => status,
        Err(error) => return Frame::Garbled(format!("an error that cannot be read ({error})")),
    };
    match status.code {
        410 => Frame::Expired,
        _ if status.reason == "Expired" || status.reason == "Gone" => Frame::Expired,
        code => Frame::Error { code, message: status.message },
    }
}

/// One page of a LIST.
#[derive(Debug, PartialEq)]
pub struct Page {
    /// Of the whole LIST: the same on every page.
    pub version: ResourceVersion,
    /// Token for the next page.
    pub next: Option<String>,
    /// The shard that it was cut down to by the server; `None`: to none.
    pub shard: Option<String>,
    /// The objects, each decoded by itself.
    pub pods: Vec<Decoded>,
}

#[derive(Deserialize)]
struct RawList<'a> {
    metadata: ListMeta,
    /// `null` where there are none. Never left out, so that an answer without it is no list: all pods would be gone.
    #[serde(borrow, deserialize_with = "Option::deserialize")]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: Option<String>,
    #[serde(default)]
    shard_info: Option<ShardInfo>,
}

#[derive(Deserialize)]
struct ShardInfo {
    selector: String,
}

/// Reads one page of a LIST.
///
/// # Errors
/// What is wrong, where the text is not a list or carries no resourceVersion.
pub fn read_page(json: &str) -> Result<Page, String> {
    let list: RawList<'_> = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let version = list.metadata.resource_version.parse();
    let version = version.map_err(|_| format!("resourceVersion {:?} of the list", list.metadata.resource_version))?;
    let pods = list.items.unwrap_or_default().into_iter().map(|item| decode(item.get())).collect();
    let ListMeta { next, shard_info, .. } = list.metadata;
    let (next, shard) = (next.filter(|next| !next.is_empty()), shard_info.map(|info| info.selector));
    Ok(Page { version: ResourceVersion(version), next, shard, pods })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_read() {
        let pod = r#"{"metadata":{"uid":"u","name":"n","namespace":"d","resourceVersion":"7"}}"#;
        let line = |kind: &str, object: &str| format!(r#"{{"type":"{kind}","object":{object}}}"#);
        let uid = |d: &Decoded| matches!(d, Decoded::Whole(p) if &*p.metadata.uid.0 == "u");
        assert!(matches!(read_frame(&line("ADDED", pod)), Frame::Applied(d) if uid(&d)));
        assert!(matches!(read_frame(&line("MODIFIED", pod)), Frame::Applied(d) if uid(&d)));
        assert!(matches!(read_frame(&line("DELETED", pod)), Frame::Deleted(d) if uid(&d)));
        let bookmark = r#"{"kind":"Pod","metadata":{"resourceVersion":"99","creationTimestamp":null},"spec":{"containers":null},"status":{}}"#;
        assert_eq!(read_frame(&line("BOOKMARK", bookmark)), Frame::Bookmark(ResourceVersion(99)));
        assert_eq!(read_frame(&line("ERROR", r#"{"kind":"Status","code":410,"reason":"Expired"}"#)), Frame::Expired);
        let other = read_frame(&line("ERROR", r#"{"code":500,"message":"etcd"}"#));
        assert_eq!(other, Frame::Error { code: 500, message: "etcd".into() });
        let odd = read_frame(&line("ERROR", r#"{"code":"many"}"#));
        assert!(matches!(&odd, Frame::Garbled(why) if why.contains("cannot be read")), "{odd:?}");
        for cut in 0..line("ADDED", pod).len() {
            assert!(matches!(read_frame(&line("ADDED", pod)[..cut]), Frame::Garbled(_)), "cut at {cut}");
        }
    }

    #[test]
    fn an_odd_pod_is_read_as_far_as_possible() {
        let odd = r#"{"metadata":{"uid":"u","name":"n","namespace":"d","resourceVersion":"7"},
            "spec":{"nodeName":"node-1"},
            "status":{"phase":"Running","containerStatuses":[{"name":"a","restartCount":"x"},{"name":"b"}]}}"#;
        let Decoded::Partly { pod, lost } = decode(odd) else { panic!("not salvaged") };
        assert_eq!(lost, ["status.containerStatuses"]);
        assert_eq!(pod.spec.node_name.as_deref(), Some("node-1"));
        assert_eq!(pod.status.container_statuses.len(), 1);
        let hopeless = decode(r#"{"metadata":{"name":"n","namespace":"d"}}"#);
        assert!(matches!(hopeless, Decoded::Unreadable { name: Some(n), .. } if n == "d/n"));
    }

    #[test]
    fn any_value_in_the_place_of_an_object_gives_an_answer() {
        for odd in ["[]", "[1]", "\"pod\"", "7", "true", "null", "{}", r#"{"metadata":[]}"#] {
            assert!(matches!(decode(odd), Decoded::Unreadable { name: None, .. }), "{odd}");
            for kind in ["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "OTHER"] {
                read_frame(&format!(r#"{{"type":"{kind}","object":{odd}}}"#));
            }
        }
    }

    #[test]
    fn only_what_is_there_and_unreadable_counts_as_lost() {
        let pod = |rest: &str| decode(&format!(r#"{{"metadata":{{"uid":"u","name":"n","namespace":"d"}},{rest}}}"#));
        let cases = [
            (r#""spec":null,"status":{}"#, None),
            (r#""spec":null,"status":"text""#, Some("status")),
            (r#""spec":"text","status":null"#, Some("spec")),
            (r#""spec":7,"status":[7]"#, Some("spec, status")),
            (r#""status":{"phase":"Running","conditions":[7]}"#, Some("status.conditions")),
        ];
        for (rest, lost) in cases {
            let (pod, odd) = pod(rest).split();
            assert_eq!(odd.map(|odd| (odd.name, odd.lost)), lost.map(|l| (Some("d/n".into()), l.into())), "{rest}");
            assert_eq!(pod.map(|pod| pod.metadata.name), Some("n".into()), "{rest}");
        }
    }

    #[test]
    fn a_page_keeps_good_pods_beside_bad_ones() {
        let page = read_page(
            r#"{"metadata":{"resourceVersion":"12","continue":"tok"},"items":[{"metadata":{"uid":"a"}},{"metadata":3}]}"#,
        )
        .expect("a list");
        assert_eq!((page.version, page.next.as_deref(), page.pods.len()), (ResourceVersion(12), Some("tok"), 2));
        assert!(matches!(page.pods[1], Decoded::Unreadable { .. }));
        assert_eq!(page.shard, None);
        let cut = r#"{"metadata":{"resourceVersion":"1","shardInfo":{"selector":"shardRange(x)"}},"items":[]}"#;
        assert_eq!(read_page(cut).expect("a list").shard.as_deref(), Some("shardRange(x)"));
        assert!(read_page("<html>").is_err());
        let without = read_page(r#"{"metadata":{"resourceVersion":"1"}}"#).expect_err("it says nothing of pods");
        assert!(without.contains("items"), "{without}");
        assert_eq!(read_page(r#"{"metadata":{"resourceVersion":"1"},"items":null}"#).expect("empty").pods.len(), 0);
    }
}

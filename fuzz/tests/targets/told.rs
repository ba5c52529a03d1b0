//! What is told, as a consumer gets it: each event and each changelog record is held to what is published of it.

use std::sync::LazyLock;

use pod_monitor::{
    lifecycle::{event::Body, event::Event, tracked::Tracked},
    logs::{limits, reason},
    publish::{
        changelog::{self, Entry},
        record::{REST_BYTES_MAX, Service, encode},
    },
    verify::schema::{self, Shapes},
    watch::pod::PodUid,
};

/// Which cluster tells.
pub(super) const CLUSTER: &str = "cluster-1";

static SHAPES: LazyLock<Shapes> = LazyLock::new(Shapes::default);

fn service() -> Service {
    Service { name: "pod-monitor".into(), version: "0.1.0".into(), environment: None }
}

/// Encodes an event and checks it: as the schema says, nothing null, not larger than the code says, and the same bytes
/// each time.
pub(super) fn check(event: &Event) {
    let service = service();
    let record = encode(event, &service, CLUSTER, None).expect("every event can be written");
    let ce_id = record.headers.iter().find(|(name, _)| *name == "ce_id").map(|(_, value)| value.as_bytes());
    let mut wrong = Vec::new();
    let told = schema::read(&SHAPES, Some(record.key.as_bytes()), Some(&record.value), ce_id, &mut wrong);
    assert!(wrong.is_empty(), "not as the schema says: {wrong:?}\n{}", String::from_utf8_lossy(&record.value));
    let told = told.expect("it can be told whose it is");
    assert_eq!((told.event_type, told.sequence), (event.body.event_type(), event.sequence));
    let again = encode(event, &service, CLUSTER, None).expect("as before");
    assert_eq!(record, again, "the same event gives the same bytes");
    let rest = record.value.len() - output_bytes(event);
    assert!(rest <= REST_BYTES_MAX, "{rest} bytes beside the output of {}", event.body.event_type());
    if let Body::Ended(ended) = &event.body
        && let Some(why) = &ended.captured.logs.reason
    {
        assert!(reason::ALL.contains(&&**why), "no known reason: {why}");
    }
}

/// How much of the event is captured output, as JSON, in bytes.
fn output_bytes(event: &Event) -> usize {
    let Body::Ended(ended) = &event.body else { return 0 };
    let streams = [&ended.captured.stdout, &ended.captured.stderr];
    streams.into_iter().flatten().map(|text| limits::encoded_len(text)).sum()
}

/// Writes a pod's changelog record, reads it again, and checks that both are the same; what was read.
pub(super) fn remembered(uid: &PodUid, tracked: &Tracked) -> Tracked {
    let mut bytes = Vec::new();
    changelog::write_tracked(&mut bytes, uid, tracked).expect("what is decided can be remembered");
    match changelog::decode(Some(changelog::pod_key(uid).as_bytes()), Some(&bytes)) {
        Entry::Pod(read_uid, Some(read)) => {
            assert_eq!((&read_uid, &*read), (uid, tracked), "a record changes on its way");
            *read
        }
        other => panic!("a record of ours is read as {other:?}"),
    }
}

/// Size of a pod's changelog record, in bytes.
pub(super) fn record_bytes(uid: &PodUid, tracked: &Tracked) -> usize {
    let mut bytes = Vec::new();
    changelog::write_tracked(&mut bytes, uid, tracked).expect("what is decided can be remembered");
    bytes.len()
}

//! Events of the pure core, held to the published schema as those are that went through Kafka.

use pod_monitor::{
    lifecycle::event::Event,
    publish::record::{Service, write_value},
};
use testkit::clients::shape::check_event;

/// What would go out of it is what docs/schema/ says, no field more.
///
/// # Panics
/// Where it is not.
pub(crate) fn assert_fits(event: &Event) {
    let service = Service { name: "pod-monitor".into(), version: "0.0.0".into(), environment: None };
    let mut value = Vec::new();
    write_value(&mut value, event, &service).expect("an event can be written");
    check_event(&serde_json::from_slice(&value).expect("as JSON")).expect("as the schema says");
}

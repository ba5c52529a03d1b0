//! What is sent by OTLP, and where to.
//!
//! ```text
//!   tracing spans ────────▶ traces.rs ───┐
//!   committed events ─────▶ stories.rs ──┤  OTLP/HTTP, batched, each on threads of their own
//!   log lines ────────────▶ logs.rs ─────┤  (only where an endpoint is set)
//!   /metrics, read again ─▶ readings.rs ─┘
//! ```
//! Promises: without an endpoint nothing is sent; with one that is down failures are counted by signal, and logged once
//! until it works again; nothing here holds up the work.

mod counted;
mod endpoint;
pub mod logs;
pub mod readings;
pub mod stories;
pub mod traces;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

pub use endpoint::{Error, Export, Signal};
pub(super) use endpoint::{Variables, push, sampling};

/// `service.name` where OTEL_SERVICE_NAME does not say otherwise.
const SERVICE_NAME: &str = "pod-monitor";

/// Who sends: the service's name from the environment wins over ours; the builder's detectors read it.
pub(super) fn resource(instance: &str) -> Resource {
    let named = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let in_attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ]);
    if !named("OTEL_SERVICE_NAME") && !in_attributes {
        resource = resource.with_service_name(SERVICE_NAME);
    }
    resource.build()
}

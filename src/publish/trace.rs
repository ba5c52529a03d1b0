//! The W3C `traceparent` of a span, for the headers of what is published inside it.

use opentelemetry::trace::TraceContextExt;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// `00-<trace id>-<span id>-<flags>`; `None` where no trace is recorded.
pub fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let parent = context.span();
    let of = parent.span_context();
    of.is_valid().then(|| format!("00-{}-{}-{:02x}", of.trace_id(), of.span_id(), of.trace_flags().to_u8()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn traceparent_is_that_of_the_span_and_absent_without_a_tracer() {
        assert_eq!(traceparent(&tracing::info_span!("publish")), None);
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let text = traceparent(&tracing::info_span!("publish")).unwrap();
            let parts: Vec<_> = text.split('-').map(str::len).collect();
            assert_eq!(parts, [2, 32, 16, 2], "{text}");
            assert!(text.starts_with("00-"));
        });
    }
}

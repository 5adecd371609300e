//! Spans to a collector of OpenTelemetry, over OTLP and gRPC. What is sampled, and under which names, say the usual
//! `OTEL_...` variables.

use opentelemetry::{
    Context,
    trace::{
        SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer as _, filter::Targets};

/// Spans on their way; the last ones go out when this is dropped.
#[derive(Debug)]
pub(crate) struct Spans(SdkTracerProvider);

impl Drop for Spans {
    fn drop(&mut self) {
        // A collector that does not answer must not keep a relay from ending; what is lost then are spans.
        if let Err(error) = self.0.shutdown() {
            eprintln!("dormouse-relay: the last spans did not go out: {error}");
        }
    }
}

/// A layer that sends what the relay itself tells, and nothing of the libraries below it, to this URL.
pub(super) fn open(endpoint: &str) -> Result<(super::Told, Spans), String> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter = exporter.map_err(|error| error.to_string())?;
    let resource = Resource::builder().with_service_name("dormouse-relay").build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("dormouse-relay"));
    let ours = Targets::new().with_target("dormouse_relay", Level::DEBUG);
    Ok((layer.with_filter(ours).boxed(), Spans(provider)))
}

/// Puts the span below one of the caller's. Without a collector that is no news to anybody.
pub(crate) fn continue_trace(span: &Span, trace_id: [u8; 16], span_id: [u8; 8], is_sampled: bool) {
    let flags = if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, parent) = (TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id));
    let remote = SpanContext::new(trace, parent, flags, true, TraceState::default());
    let _ = span.set_parent(Context::new().with_remote_span_context(remote));
}

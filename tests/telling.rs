//! What a relay tells of a call: to the caller, in its lines, and to a collector of OpenTelemetry.

#[path = "service/harness.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod harness;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dormouse_proto::wire::v1;
use dormouse_relay::{config::Config, telemetry};
use harness::{Caller, Outcome, Served, add};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value,
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// Keeps what is sent to it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn serve(&self) -> Outcome<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let service = TraceServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(url)
    }

    fn of_the_trace(&self) -> Vec<Span> {
        let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| span.trace_id == bytes(TRACE)).cloned().collect()
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(String::from_utf8_lossy);
    pairs.map(|pair| u8::from_str_radix(&pair, 16).expect("hexadecimal")).collect()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|it| it.key == key)?.value.clone()?.value?;
    Some(match value {
        any_value::Value::StringValue(text) => text,
        other => format!("{other:?}"),
    })
}

/// A span of that name below that one.
fn child<'a>(spans: &'a [Span], name: &str, parent: &[u8]) -> Option<&'a Span> {
    spans.iter().find(|span| span.name == name && span.parent_span_id == parent)
}

/// One process tells once, so all that is told of a call is tried together.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_told_below_the_span_of_its_caller_with_the_frame_that_carried_it() -> Outcome {
    let collector = Collector::default();
    let endpoint = collector.serve().await?;
    let config = Config { otlp_endpoint: Some(endpoint), log: "warn".to_owned(), ..Config::default() };
    let telemetry = telemetry::start(&config)?;
    let relay = Served::default().await?;

    let mut caller = Caller::new(&relay, 1).await;
    let mut said = caller.request(harness::awake(5_000));
    said.push = Some(caller.push(vec![add("shown", 3)]));
    let mut request = Request::new(said);
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{SPAN}-01").parse()?);
    request.metadata_mut().insert("x-request-id", "order-17".parse()?);
    let answer = caller.mailbox.sync(request).await?;
    assert_eq!(
        answer.metadata().get("x-request-id").map(tonic::metadata::MetadataValue::as_bytes),
        Some(&b"order-17"[..])
    );

    // Whoever brings no number is given one, with a refusal as well.
    let nobody = v1::GetMemberRequest { namespace: String::new(), node_id: "nobody".to_owned() };
    let refused = relay.membership().await.get_member(nobody).await.expect_err("there is no such node");
    assert_eq!(refused.metadata().get("x-request-id").map(tonic::metadata::MetadataValue::len), Some(16));

    relay.stop().await;
    // The last spans go out when it ends; it waits for the collector, which needs this runtime.
    tokio::task::spawn_blocking(move || drop(telemetry)).await?;
    let spans = collector.of_the_trace();
    let call = child(&spans, "/dormouse.v1.Mailbox/Sync", &bytes(SPAN)).ok_or("no span of the call")?;
    assert_eq!(attribute(call, "request_id").as_deref(), Some("order-17"));
    assert_eq!(attribute(call, "outcome").as_deref(), Some("Ok"));
    let write = child(&spans, "write", &call.span_id).ok_or("no span of the write")?;
    let append = child(&spans, "append", &write.span_id).ok_or("no span of the frame")?;
    assert!(attribute(append, "bytes").is_some(), "{append:?}");
    let length = |span: &Span| Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano);
    assert!(length(call) >= length(write), "a call takes at least as long as what it waits for");
    Ok(())
}

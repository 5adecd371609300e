//! Every call in the words of the relay's own output: a number to ask for it by, the trace that it belongs to, how it went.
//!
//! A caller that sends `x-request-id` gets it back, another one gets a number that the relay has drawn. Spans cost
//! nothing unless somebody listens: `DORMOUSE_LOG=dormouse_relay=debug`, or an OTLP endpoint.

mod trace_parent;

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, debug, debug_span, field::Empty, warn};

use trace_parent::TraceParent;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// The longest number of a caller's own that is repeated.
const REQUEST_ID_BYTES: usize = 64;

/// The layer.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    /// Different in each process, so that two relays do not draw the same numbers.
    seed: Arc<RandomState>,
    next: Arc<AtomicU64>,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { seed: Arc::default(), next: Arc::default() }
    }

    /// The caller's own, or a new one.
    fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        let given = headers.get(REQUEST_ID).filter(|given| is_harmless(given.as_bytes()));
        given.cloned().unwrap_or_else(|| {
            let drawn = self.seed.hash_one(self.next.fetch_add(1, Ordering::Relaxed));
            HeaderValue::try_from(format!("{drawn:016x}")).unwrap_or(HeaderValue::from_static("0"))
        })
    }
}

/// It comes back in a header and in lines of a log, where it must not pretend to be something else.
fn is_harmless(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.iter().all(is_plain)
}

/// What a listener is told of a call.
fn span(path: &str, request_id: &HeaderValue, headers: &HeaderMap) -> Span {
    let span = debug_span!(
        "call",
        otel.name = path,
        otel.kind = "server",
        otel.status_code = Empty,
        request_id = request_id.to_str().unwrap_or_default(),
        trace_id = Empty,
        outcome = Empty,
    );
    if !span.is_disabled()
        && let Some(parent) = headers.get(TRACE_PARENT).and_then(|it| TraceParent::parse(it.to_str().ok()?))
    {
        span.record("trace_id", tracing::field::display(parent));
        #[cfg(feature = "otlp")]
        crate::telemetry::otlp::continue_trace(&span, parent.trace_id, parent.span_id, parent.is_sampled);
    }
    span
}

/// How a call went, as far as the head of its answer tells: a refusal of gRPC has no body.
fn outcome(answer: &Response<Body>) -> Code {
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status.code();
    }
    match answer.status().as_u16() {
        200..=299 => Code::Ok,
        500 => Code::Internal,
        _ => Code::Unknown,
    }
}

fn tell(span: &Span, path: &str, request_id: &HeaderValue, answer: &Response<Body>) {
    let outcome = outcome(answer);
    if outcome == Code::Internal {
        let http = answer.status().as_u16();
        warn!(
            path,
            request_id = request_id.to_str().unwrap_or_default(),
            http,
            "a call failed in this relay"
        );
        span.record("otel.status_code", "ERROR");
    }
    if !span.is_disabled() {
        span.record("outcome", tracing::field::debug(outcome));
        debug!("answered");
    }
}

impl<S> Layer<S> for Calls {
    type Service = Called<S>;

    fn layer(&self, inner: S) -> Called<S> {
        Called { calls: self.clone(), inner }
    }
}

/// A service whose calls are told.
#[derive(Clone, Debug)]
pub(super) struct Called<S> {
    calls: Calls,
    inner: S,
}

impl<S, B> Service<Request<B>> for Called<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let uri = request.uri().clone();
        let request_id = self.calls.request_id(request.headers());
        let span = span(uri.path(), &request_id, request.headers());
        let answer = span.in_scope(|| self.inner.call(request));
        let within = span.clone();
        let told = async move {
            let mut answer = answer.await?;
            tell(&span, uri.path(), &request_id, &answer);
            answer.headers_mut().insert(REQUEST_ID, request_id);
            Ok(answer)
        };
        Box::pin(told.instrument(within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(given: Option<&'static str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(REQUEST_ID, HeaderValue::from_static(given));
        }
        Calls::new().request_id(&headers).to_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_callers_own_number_is_kept_and_another_is_drawn() {
        assert_eq!(id_of(Some("1-5759e988-bd862e3fe1be46a994272793")), "1-5759e988-bd862e3fe1be46a994272793");
        for none in [None, Some(""), Some("two words"), Some("quoted\"")] {
            assert_eq!(id_of(none).len(), 16, "{none:?}");
        }
        assert_ne!(id_of(None), id_of(None), "each process draws its own");
    }

    #[test]
    fn what_a_caller_says_is_not_repeated_without_bound() {
        assert!(is_harmless(&[b'a'; REQUEST_ID_BYTES]) && !is_harmless(&[b'a'; REQUEST_ID_BYTES + 1]));
    }

    #[test]
    fn a_refusal_is_read_from_the_head_of_its_answer() {
        assert_eq!(outcome(&Status::not_found("no such node").into_http()), Code::NotFound);
        assert_eq!(outcome(&Response::new(Body::empty())), Code::Ok);
        let mut failed = Response::new(Body::empty());
        *failed.status_mut() = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(outcome(&failed), Code::Internal);
    }
}

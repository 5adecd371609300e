//! Every unary call as JSON as well, at the same path and port: the unary form of the Connect protocol, over HTTP/1.1
//! and HTTP/2. So `curl`, Python's standard library and `fetch` are clients.
//!
//! Nothing is implemented twice. A request in JSON becomes the gRPC request that it stands for and goes on to whatever
//! stands behind this layer: who may call and what is refused is decided there, for both. The body is translated when it
//! is first read, so a caller that is sent away by its headers costs no translation.

mod answer;
mod body;
mod calls;
mod lookup;

use std::{
    convert::Infallible,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header, request::Parts};
use bytes::Bytes;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::metrics::Metrics;
use answer::Refusal;
use body::JsonBody;
use calls::{Call, Calls, Format};
use lookup::Asked;

/// The longest JSON text that is read: the bytes in it take a third more than in the message, and names are spelled out.
const TEXT_BYTES: usize = 2 * super::REQUEST_BYTES;
/// What is larger is translated beside the threads that answer calls.
const LARGE: usize = 64 << 10;

const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Answers JSON in front of services that speak gRPC; to be the outermost layer, because it translates refusals too.
#[derive(Clone, Debug)]
pub(super) struct JsonLayer {
    calls: Arc<Calls>,
    metrics: Arc<Metrics>,
}

impl JsonLayer {
    /// # Errors
    /// When the descriptors of what is served do not fit together.
    pub(super) fn new(metrics: Arc<Metrics>) -> Result<Self, Error> {
        Ok(Self { calls: Arc::new(Calls::served()?), metrics })
    }
}

impl<S> Layer<S> for JsonLayer {
    type Service = Json<S>;

    fn layer(&self, inner: S) -> Json<S> {
        Json { inner, layer: self.clone() }
    }
}

/// A service that answers gRPC as before, and JSON.
#[derive(Clone, Debug)]
pub(super) struct Json<S> {
    inner: S,
    layer: JsonLayer,
}

impl<S, B> Service<Request<Body>> for Json<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone is not ready yet, the one that was asked is.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        match lookup::asked(&layer.calls, &request) {
            Asked::Grpc => Box::pin(async move { Ok(inner.call(request).await?.map(Body::new)) }),
            Asked::Call(call, format) => {
                Box::pin(async move { Ok(layer.answer(inner, request, call, format).await) })
            }
            Asked::Nothing(refusal) => Box::pin(async move { Ok(refusal.response()) }),
        }
    }
}

impl JsonLayer {
    /// One unary call, from the request to the answer.
    async fn answer<S, B>(
        &self,
        inner: S,
        request: Request<Body>,
        call: Arc<Call>,
        format: Format,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let answered = match time_given(request.headers()) {
            Err(status) => Err(status),
            Ok(None) => self.pass_on(inner, request, None, &call, format).await,
            Ok(Some(time)) => {
                let passed = self.pass_on(inner, request, Some(time), &call, format);
                let late = |_| Status::deadline_exceeded(format!("no answer within {} ms", time.as_millis()));
                tokio::time::timeout(time, passed).await.map_err(late).flatten()
            }
        };
        match answered {
            Ok(bytes) => answer::whole(format, bytes),
            Err(status) => Refusal::of(&status, &self.calls).response(),
        }
    }

    /// Asks the service behind this layer, in its own words.
    async fn pass_on<S, B>(
        &self,
        mut inner: S,
        request: Request<Body>,
        time: Option<Duration>,
        call: &Arc<Call>,
        format: Format,
    ) -> Result<Bytes, Status>
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let (mut parts, body) = request.into_parts();
        let body = JsonBody::new(body, &parts.headers, Arc::clone(call), format, Arc::clone(&self.metrics));
        say_grpc(&mut parts, time)?;
        let request = Request::from_parts(parts, Body::new(body));
        let response = inner.call(request).await.unwrap_or_else(|never| match never {});
        let message = answer::message(response).await?;
        answer::translated(message, call, format).await
    }
}

/// Headers as a gRPC caller would send them. Those of this layer go, all others stay.
fn say_grpc(parts: &mut Parts, time: Option<Duration>) -> Result<(), Status> {
    let headers = &mut parts.headers;
    for name in [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONTENT_ENCODING,
        header::ACCEPT_ENCODING,
        header::ACCEPT,
        header::CONNECTION,
        header::EXPECT,
        TIMEOUT,
        VERSION,
    ] {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(time) = time {
        // Eight digits are all that gRPC has room for; nobody waits that long.
        let text = format!("{}m", time.as_millis().min(99_999_999));
        let text = HeaderValue::try_from(text).map_err(|_| Status::internal("a number is no header"))?;
        headers.insert("grpc-timeout", text);
    }
    Ok(())
}

/// What the caller says of its time and of the protocol.
fn time_given(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    if let Some(version) = headers.get(VERSION).filter(|version| *version != "1") {
        return Err(Status::invalid_argument(format!("{VERSION} is {version:?}, this relay speaks 1")));
    }
    let Some(said) = headers.get(TIMEOUT) else { return Ok(None) };
    let digits = said.to_str().ok().filter(|it| it.len() <= 10 && it.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|it| it.parse::<u64>().ok()) {
        Some(ms) => Ok(Some(Duration::from_millis(ms))),
        None => Err(Status::invalid_argument(format!("{TIMEOUT} is {said:?}, must be at most ten digits"))),
    }
}

/// Does the work at once if it is small, and beside the threads that answer calls if it is large.
async fn beside<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    if size <= LARGE {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Status::internal(format!("the translation ended early: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_time_is_at_most_ten_digits() {
        let time = |text| time_given(&headers(&[(TIMEOUT, text)])).ok();
        assert_eq!(time("1500"), Some(Some(Duration::from_millis(1_500))));
        assert_eq!(time("9999999999"), Some(Some(Duration::from_millis(9_999_999_999))));
        for wrong in ["", "-1", "1.5", "12345678901", "soon"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
        assert_eq!(time_given(&HeaderMap::new()).ok(), Some(None));
    }

    #[test]
    fn another_version_of_the_protocol_is_refused() {
        assert!(time_given(&headers(&[(VERSION, "1")])).is_ok());
        assert!(time_given(&headers(&[(VERSION, "2")])).is_err());
    }

    #[test]
    fn what_the_caller_says_beside_the_message_is_passed_on() {
        let mut parts = Request::new(()).into_parts().0;
        parts.headers = headers(&[
            (header::AUTHORIZATION, "Bearer a"),
            (header::CONTENT_TYPE, "application/json"),
            (header::CONTENT_LENGTH, "2"),
            (TIMEOUT, "99"),
        ]);
        say_grpc(&mut parts, Some(Duration::from_millis(12_345_678_900))).expect("headers");
        let expected = headers(&[
            (header::AUTHORIZATION, "Bearer a"),
            (header::CONTENT_TYPE, "application/grpc"),
            (header::TE, "trailers"),
            (HeaderName::from_static("grpc-timeout"), "99999999m"),
        ]);
        assert_eq!(parts.headers, expected);
    }
}

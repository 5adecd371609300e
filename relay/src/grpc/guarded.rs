//! Every call of a connection on its way in and out: its time, its bytes, and what it says of its caller.
//!
//! It is the outermost service. A body that comes too slowly, or is too large for the room that is left, fails the reading
//! with the status of that refusal, so whoever reads it passes the words on, in gRPC or in JSON.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::timeout;
use tonic::{Status, body::Body};
use tower::Service;

use super::{arriving::Arriving, headers, patience};
use crate::{
    listener::{Ended, Host, Member},
    metrics::Metrics,
};

/// Calls of these names go on for as long as both sides like; each has a patience of its own.
const STREAMS: [&str; 3] = ["/Watch", "/WatchMembers", "/ServerReflectionInfo"];
/// Frames around a call that are no part of it, with room: headers of frames, windows, a reset.
const AROUND: usize = 256;

/// Bytes of requests that are arriving, of all connections.
#[derive(Debug)]
pub(super) struct Inflow {
    most: u64,
    now: AtomicU64,
}

impl Inflow {
    pub(super) const fn new(most: u64) -> Self {
        Self { most, now: AtomicU64::new(0) }
    }

    /// Whether there was room for so many more.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let fits = self.now.fetch_add(bytes, Relaxed).saturating_add(bytes) <= self.most;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.now.fetch_sub(bytes, Relaxed);
    }
}

/// The services, for one connection.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    member: Arc<Member>,
    host: Arc<Host>,
    inflow: Arc<Inflow>,
    metrics: Arc<Metrics>,
    /// For a request to arrive in.
    request: Duration,
}

impl<S> Guarded<S> {
    pub(super) fn new(
        inner: S,
        member: Arc<Member>,
        host: Arc<Host>,
        inflow: Arc<Inflow>,
        metrics: Arc<Metrics>,
        request: Duration,
    ) -> Self {
        Self { inner, member, host, inflow, metrics, request }
    }
}

impl<S> Service<Request<Incoming>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Leaving>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Leaving>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        self.member.meant(headers::size(&request) + AROUND);
        let call = UnderWay::begin(&self.member, &self.host);
        let given = request.headers().get("grpc-timeout").and_then(|it| patience::parse(it.to_str().ok()?));
        let is_stream = STREAMS.iter().any(|name| request.uri().path().ends_with(name));
        let is_grpc = headers::is_grpc(request.headers());
        let request = request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            let caller = (Arc::clone(&self.member), Arc::clone(&self.host));
            let inflow = Arc::clone(&self.inflow);
            Body::new(Arriving::new(body, caller, inflow, Arc::clone(&self.metrics), self.request, is_grpc))
        });
        let answered = self.inner.call(request);
        Box::pin(async move {
            let answer = match given {
                None => answered.await,
                Some(time) => timeout(time, answered).await.unwrap_or_else(|_| {
                    Ok(Status::deadline_exceeded(format!("no answer within {} ms", time.as_millis()))
                        .into_http())
                }),
            };
            let answer = answer.unwrap_or_else(|never| match never {});
            call.judge(&answer, is_stream);
            Ok(answer.map(|body| Leaving::new(body, call)))
        })
    }
}

/// A call that has begun; it has ended when this is dropped.
#[derive(Debug)]
struct UnderWay {
    member: Arc<Member>,
    host: Arc<Host>,
    number: u64,
    how: Ended,
}

impl UnderWay {
    fn begin(member: &Arc<Member>, host: &Arc<Host>) -> Self {
        let number = member.call_began(host.now());
        Self { member: Arc::clone(member), host: Arc::clone(host), number, how: Ended::GivenUp }
    }

    /// What the answer says of the caller: whoever sends no token that is known is nobody.
    fn judge(&self, answer: &Response<Body>, is_stream: bool) {
        const UNAUTHENTICATED: &[u8] = b"16";
        let status = answer.headers().get("grpc-status").map(HeaderValue::as_bytes);
        if answer.status() == StatusCode::UNAUTHORIZED || status == Some(UNAUTHENTICATED) {
            self.member.sent_away();
        } else if answer.status() == StatusCode::OK && status.is_none_or(|it| it == b"0") {
            self.member.let_in();
            if is_stream {
                self.member.call_goes_on(self.number);
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.member.call_ended(self.number, self.how, self.host.now());
    }
}

/// The body of an answer; the call ends with it.
#[derive(Debug)]
pub(super) struct Leaving {
    body: Body,
    call: UnderWay,
}

impl Leaving {
    fn new(body: Body, mut call: UnderWay) -> Self {
        call.how = if body.is_end_stream() { Ended::Answered } else { Ended::Left };
        Self { body, call }
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) || self.body.is_end_stream() {
            self.call.how = Ended::Answered;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_takes_no_room() {
        let inflow = Inflow::new(100);
        assert!(inflow.take(60) && !inflow.take(41) && inflow.take(40) && !inflow.take(1));
        inflow.give_back(60);
        assert!(inflow.take(60) && !inflow.take(1));
    }
}

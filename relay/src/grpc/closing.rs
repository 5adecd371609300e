//! Tells whoever calls a relay that stops when to come back.
//!
//! It stands in front of the services, and knows only that the relay stops. What is under way is finished; what comes then is
//! refused at once, unread, instead of finding a connection that goes away. Health is still answered: it says so too.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::http::{Request, Response};
use tokio::sync::watch;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::status;
use crate::{access::Method, error::RelayError, metrics::Metrics};

/// The layer.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    stopping: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
}

impl Closing {
    /// Refuses from the moment on at which `stopping` turns true.
    pub(super) fn new(stopping: watch::Receiver<bool>, metrics: Arc<Metrics>) -> Self {
        Self { stopping, metrics }
    }

    fn refuses(&self, path: &str) -> bool {
        *self.stopping.borrow() && Method::at(path) != Method::Health
    }
}

impl<S> Layer<S> for Closing {
    type Service = Closable<S>;

    fn layer(&self, inner: S) -> Closable<S> {
        Closable { closing: self.clone(), inner }
    }
}

/// A service that hears of nothing any more when the relay stops.
#[derive(Clone, Debug)]
pub(super) struct Closable<S> {
    closing: Closing,
    inner: S,
}

impl<S, B> Service<Request<B>> for Closable<S>
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
        if !self.closing.refuses(request.uri().path()) {
            return Box::pin(self.inner.call(request));
        }
        self.closing.metrics.refused(status::word(&RelayError::Stopping));
        let answer = Status::from(RelayError::Stopping).into_http();
        Box::pin(async move { Ok(answer) })
    }
}

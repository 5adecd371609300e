//! What stands in front of the services and knows only headers: it lets a call through, or answers it unread.

use std::{
    future::{Future, ready},
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll},
};

use axum::http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

/// One reason to answer a call before it reaches the services.
pub(super) trait Front: Clone + Send + 'static {
    /// The call as it goes on, or the answer to it.
    fn meet<B>(&self, request: Request<B>) -> ControlFlow<Response<Body>, Request<B>>;
}

/// A front as a layer.
#[derive(Clone, Debug)]
pub(super) struct InFront<F>(pub(super) F);

impl<F: Front, S> Layer<S> for InFront<F> {
    type Service = Behind<F, S>;

    fn layer(&self, inner: S) -> Behind<F, S> {
        Behind { front: self.0.clone(), inner }
    }
}

/// A service that hears only of what its front lets through.
#[derive(Clone, Debug)]
pub(super) struct Behind<F, S> {
    front: F,
    inner: S,
}

impl<F, S, B> Service<Request<B>> for Behind<F, S>
where
    F: Front,
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
        match self.front.meet(request) {
            ControlFlow::Continue(request) => Box::pin(self.inner.call(request)),
            ControlFlow::Break(answer) => Box::pin(ready(Ok(answer))),
        }
    }
}

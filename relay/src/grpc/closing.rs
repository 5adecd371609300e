//! Tells whoever calls a relay that stops when to come back.
//!
//! It stands in front of the services, and knows only that the relay stops. What is under way is finished; what comes then is
//! refused at once, unread, instead of finding a connection that goes away. Health is still answered: it says so too.

use std::{ops::ControlFlow, sync::Arc};

use axum::http::{Request, Response};
use tokio::sync::watch;
use tonic::{Status, body::Body};

use super::{front::Front, status};
use crate::{access::Method, error::RelayError, metrics::Metrics};

/// The front.
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

impl Front for Closing {
    fn meet<B>(&self, request: Request<B>) -> ControlFlow<Response<Body>, Request<B>> {
        if !self.refuses(request.uri().path()) {
            return ControlFlow::Continue(request);
        }
        self.metrics.refused(status::word(&RelayError::Stopping));
        ControlFlow::Break(Status::from(RelayError::Stopping).into_http())
    }
}

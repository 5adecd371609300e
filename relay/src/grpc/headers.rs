//! A header that is larger than the settings allow is refused in words, with its limit.
//!
//! The transport reads four times as much before it gives up, because it can only end the connection, and a caller behind
//! a proxy would never learn why.

use std::{ops::ControlFlow, sync::Arc};

use axum::http::{HeaderMap, Request, Response, header::CONTENT_TYPE};
use dormouse_proto::convert::{Violation, Violations};
use tonic::body::Body;

use super::{authentication::refusal, front::Front, status};
use crate::{error::RelayError, metrics::Metrics};

/// Bytes of a header as HTTP/2 counts them: names and values, and 32 for each field.
pub(super) fn size<B>(request: &Request<B>) -> usize {
    const FIELD: usize = 32;
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    let uri = request.uri();
    fields.sum::<usize>() + uri.path().len() + uri.query().map_or(0, str::len)
}

/// Whether the body is one of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The front.
#[derive(Clone, Debug)]
pub(super) struct Headers {
    most: usize,
    metrics: Arc<Metrics>,
}

impl Headers {
    pub(super) fn new(most: u32, metrics: Arc<Metrics>) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX), metrics }
    }
}

impl Front for Headers {
    fn meet<B>(&self, request: Request<B>) -> ControlFlow<Response<Body>, Request<B>> {
        let size = size(&request);
        if size <= self.most {
            return ControlFlow::Continue(request);
        }
        let violation = Violation::too_large("headers", size, self.most, "bytes");
        let error = RelayError::Invalid(Violations(vec![violation]));
        self.metrics.refused(status::word(&error));
        ControlFlow::Break(refusal(error, request.headers()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_counts_with_what_is_around_it() {
        let request = Request::builder().uri("/a/b?c=1").header("x-ab", "12345").body(());
        assert_eq!(size(&request.expect("a request")), 4 + 3 + 4 + 5 + 32);
    }
}

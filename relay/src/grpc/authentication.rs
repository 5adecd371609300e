//! Asks every call for its token, before anything of its body is read.
//!
//! It stands in front of all services and knows only headers, so that nothing that is served there later can be reached
//! past it. What it finds out travels with the request, as a [`Caller`]; which namespace that opens is asked where the
//! request has been decoded.

use std::{ops::ControlFlow, sync::Arc};

use axum::http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use serde_json::json;
use tonic::{Code, Status, body::Body};

use super::{front::Front, headers::is_grpc, status};
use crate::{
    access::{Caller, Method, may},
    doors::Tokens,
    error::RelayError,
    metrics::Metrics,
};

/// The front.
#[derive(Clone, Debug)]
pub(super) struct Authentication {
    tokens: Option<Arc<Tokens>>,
    metrics: Arc<Metrics>,
}

impl Authentication {
    /// Without tokens nobody is asked.
    pub(super) fn new(tokens: Option<Arc<Tokens>>, metrics: Arc<Metrics>) -> Self {
        Self { tokens, metrics }
    }

    /// Who calls, if that one may call this.
    fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Caller, RelayError> {
        let Some(tokens) = &self.tokens else { return Ok(Caller::Anybody) };
        let method = Method::at(path);
        if method.is_open() {
            return Ok(Caller::Anybody);
        }
        let token = bearer(headers).ok_or(RelayError::TokenMissing)?;
        let holder = tokens.find(token).ok_or(RelayError::TokenUnknown)?;
        if !may(holder.role, method) {
            return Err(RelayError::RoleDenied(holder.role));
        }
        Ok(Caller::Holder(holder))
    }
}

/// The token of a request that sends exactly one.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (sent.next(), sent.next()) else { return None };
    let (scheme, token) = only.as_bytes().split_at_checked(b"Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

impl Front for Authentication {
    fn meet<B>(&self, mut request: Request<B>) -> ControlFlow<Response<Body>, Request<B>> {
        match self.admit(request.uri().path(), request.headers()) {
            Ok(caller) => {
                // Nobody behind this point has any use for it, so it cannot come up there.
                request.headers_mut().remove(AUTHORIZATION);
                request.extensions_mut().insert(caller);
                ControlFlow::Continue(request)
            }
            Err(error) => {
                self.metrics.refused(status::word(&error));
                ControlFlow::Break(refusal(error, request.headers()))
            }
        }
    }
}

/// The answer to somebody who is not let in, in the language of the request. Its body stays unread.
pub(super) fn refusal(error: RelayError, headers: &HeaderMap) -> Response<Body> {
    let word = status::word(&error);
    let status = Status::from(error);
    if is_grpc(headers) {
        return status.into_http();
    }
    let (code, name) = match status.code() {
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        Code::InvalidArgument => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "invalid_argument"),
        _ => (StatusCode::FORBIDDEN, "permission_denied"),
    };
    let text = json!({ "code": name, "message": format!("{word}: {}", status.message()) }).to_string();
    let mut answer = Response::new(Body::new(axum::body::Body::from(text)));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if code == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_of(values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        bearer(&headers).map(|token| String::from_utf8_lossy(token).into_owned())
    }

    #[test]
    fn one_bearer_is_one_token() {
        for value in ["Bearer dm_1", "bearer dm_1", "BEARER  dm_1 "] {
            assert_eq!(token_of(&[value]).as_deref(), Some("dm_1"), "{value}");
        }
    }

    #[test]
    fn what_is_no_bearer_is_no_token() {
        for values in
            [&[][..], &["dm_1"], &["Basic dm_1"], &["Bearer"], &["Bearer "], &["Bearer a", "Bearer a"]]
        {
            assert_eq!(token_of(values), None, "{values:?}");
        }
    }
}

//! Answers, and refusals, as the Connect protocol has them.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status, body::Body};

use super::{
    Error, beside,
    calls::{Call, Calls, FRAME_HEAD, Format},
};

/// The message of a gRPC answer, or the status that it ends with.
pub(super) async fn message<B>(response: Response<B>) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Error>,
{
    let (parts, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&parts.headers) {
        ok(status)?;
    }
    let collected = body.collect().await.map_err(|error| Status::from_error(error.into()))?;
    if let Some(status) = collected.trailers().and_then(Status::from_header_map) {
        ok(status)?;
    }
    let frame = collected.to_bytes();
    let broken = || Status::internal("the service gave no whole message");
    let head = frame.first_chunk::<FRAME_HEAD>().ok_or_else(broken)?;
    let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).ok();
    match (head[0], length) {
        (0, Some(length)) if frame.len() == FRAME_HEAD + length => Ok(frame.slice(FRAME_HEAD..)),
        _ => Err(broken()),
    }
}

fn ok(status: Status) -> Result<(), Status> {
    if status.code() == Code::Ok { Ok(()) } else { Err(status) }
}

/// The message in the caller's format.
pub(super) async fn translated(message: Bytes, call: &Arc<Call>, format: Format) -> Result<Bytes, Status> {
    let call = Arc::clone(call);
    beside(message.len(), move || call.response(format, message)).await.flatten()
}

/// An answer to a call that was not refused.
pub(super) fn whole(format: Format, bytes: Bytes) -> Response<Body> {
    respond(StatusCode::OK, format.media_type(), bytes)
}

fn respond(status: StatusCode, media_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Why a call was not answered.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    body: Value,
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, body: json!({ "code": code, "message": message.into() }), header: None }
    }

    /// What a status says. Its details are told twice: as bytes for programs that have their descriptors, and in JSON.
    pub(super) fn of(status: &Status, calls: &Calls) -> Self {
        let (http, code) = code(status.code());
        let mut refusal = Self::new(http, code, status.message());
        let inside = tonic_types::pb::Status::decode(status.details()).unwrap_or_default();
        let details = inside.details.iter().map(|detail| {
            let name = detail.type_url.rsplit('/').next().unwrap_or_default();
            let mut told = json!({ "type": name, "value": STANDARD_NO_PAD.encode(&detail.value) });
            if let Some(debug) = calls.detail(name, &detail.value) {
                told["debug"] = debug;
            }
            told
        });
        let details: Vec<Value> = details.collect();
        if !details.is_empty() {
            refusal.body["details"] = details.into();
        }
        refusal
    }

    /// Says what there is instead.
    pub(super) fn listing<'a>(mut self, paths: impl Iterator<Item = &'a str>) -> Self {
        self.body["calls"] = paths.map(|path| format!("POST {path}")).collect();
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    #[cfg(test)]
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn response(self) -> Response<Body> {
        let mut response = respond(self.status, Format::Json.media_type(), self.body.to_string().into());
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The status of HTTP and the word of Connect for a code of gRPC.
fn code(code: Code) -> (StatusCode, &'static str) {
    // 499 has no name in the crate: the caller went away first.
    let canceled = StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT);
    match code {
        Code::Cancelled => (canceled, "canceled"),
        Code::InvalidArgument => (StatusCode::BAD_REQUEST, "invalid_argument"),
        Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
        Code::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        Code::AlreadyExists => (StatusCode::CONFLICT, "already_exists"),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "permission_denied"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "resource_exhausted"),
        Code::FailedPrecondition => (StatusCode::BAD_REQUEST, "failed_precondition"),
        Code::Aborted => (StatusCode::CONFLICT, "aborted"),
        Code::OutOfRange => (StatusCode::BAD_REQUEST, "out_of_range"),
        Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "unimplemented"),
        Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        Code::DataLoss => (StatusCode::INTERNAL_SERVER_ERROR, "data_loss"),
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        Code::Ok | Code::Unknown => (StatusCode::INTERNAL_SERVER_ERROR, "unknown"),
    }
}

#[cfg(test)]
mod tests {
    use crate::error::RelayError;

    use super::*;

    fn told(error: RelayError) -> (u16, Value) {
        let refusal = Refusal::of(&Status::from(error), &Calls::served().expect("descriptors"));
        (refusal.status.as_u16(), refusal.body)
    }

    fn detail<'a>(body: &'a Value, name: &str) -> &'a Value {
        let details = body["details"].as_array().expect("a list");
        details.iter().find(|it| it["type"] == name).unwrap_or_else(|| panic!("no {name} in {body}"))
    }

    #[test]
    fn a_refusal_carries_the_reason_and_when_to_come_back() {
        let (status, body) = told(RelayError::Busy("writes"));
        assert_eq!((status, &body["code"]), (429, &json!("resource_exhausted")));
        let info = detail(&body, "google.rpc.ErrorInfo");
        assert_eq!(info["debug"], json!({"reason": "BUSY", "domain": "dormouse"}));
        let bytes = STANDARD_NO_PAD.decode(info["value"].as_str().expect("a text")).expect("base64");
        assert_eq!(tonic_types::pb::ErrorInfo::decode(&bytes[..]).expect("the same").reason, "BUSY");
        assert_eq!(detail(&body, "google.rpc.RetryInfo")["debug"], json!({"retryDelay": "0.200s"}));
    }

    #[test]
    fn a_refusal_names_the_fields() {
        use dormouse_proto::convert::{Violation, Violations};
        let (status, body) = told(RelayError::Invalid(Violations(vec![Violation::new("node", "required")])));
        assert_eq!((status, &body["code"]), (400, &json!("invalid_argument")));
        let wrong = json!({"fieldViolations": [{"field": "node", "description": "required"}]});
        assert_eq!(detail(&body, "google.rpc.BadRequest")["debug"], wrong);
    }

    #[test]
    fn each_code_has_its_word_and_they_differ() {
        let words: std::collections::BTreeSet<_> = (1..=16).map(|it| code(Code::from(it)).1).collect();
        assert_eq!(words.len(), 16);
    }
}

//! What a request asks for: its path, its method and the type of its body.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, Request, StatusCode, header};

use super::{
    answer::Refusal,
    calls::{Call, Calls, Format},
};

/// What is to be done.
#[derive(Debug)]
pub(super) enum Asked {
    /// It is gRPC already, or a preamble of it.
    Grpc,
    /// A unary call.
    Call(Arc<Call>, Format),
    /// Nothing that can be answered in JSON.
    Nothing(Refusal),
}

/// Sorts a request. Its body is not looked at.
pub(super) fn asked<B>(calls: &Calls, request: &Request<B>) -> Asked {
    let media_type = media_type(request.headers());
    if media_type.starts_with("application/grpc") {
        return Asked::Grpc;
    }
    let path = request.uri().path();
    let Some(call) = calls.get(path) else {
        let message = format!("{path} is no call of this relay; `calls` lists what is answered");
        let refusal = Refusal::new(StatusCode::NOT_FOUND, "unimplemented", message);
        return Asked::Nothing(refusal.listing(calls.unary()));
    };
    if call.is_stream {
        let message =
            format!("{path} is a stream, and streams are answered over gRPC alone: use a gRPC client");
        return Asked::Nothing(Refusal::new(StatusCode::NOT_IMPLEMENTED, "unimplemented", message));
    }
    if request.method() != Method::POST {
        let hint = format!("curl -d '{{}}' -H 'content-type: application/json' http://.../{}", &path[1..]);
        let message = format!("a call is a POST of its request, not a {}: {hint}", request.method());
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "unimplemented", message);
        return Asked::Nothing(refusal.with_header(header::ALLOW, "POST"));
    }
    if let Some(refusal) = compressed(request.headers()) {
        return Asked::Nothing(refusal);
    }
    match Format::of(&media_type) {
        Some(format) => Asked::Call(Arc::clone(call), format),
        None => {
            let types = "application/json, application/proto";
            let message =
                format!("the content-type is {media_type:?}, and must be application/json (or {types})");
            let refusal = Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_argument", message);
            Asked::Nothing(refusal.with_header(header::HeaderName::from_static("accept-post"), types))
        }
    }
}

/// Without its parameters, in small letters; empty: not said.
fn media_type(headers: &HeaderMap) -> String {
    let said = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn compressed(headers: &HeaderMap) -> Option<Refusal> {
    let encoding = headers.get(header::CONTENT_ENCODING).filter(|it| *it != "identity")?;
    let message =
        format!("the content-encoding is {encoding:?}; this relay reads bodies that are not compressed");
    let refusal = Refusal::new(StatusCode::NOT_IMPLEMENTED, "unimplemented", message);
    Some(refusal.with_header(header::ACCEPT_ENCODING, "identity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(method: &str, path: &str, media_type: &str) -> String {
        let request = Request::builder().method(method).uri(path).header("content-type", media_type);
        let calls = Calls::served().expect("descriptors");
        match asked(&calls, &request.body(()).expect("a request")) {
            Asked::Grpc => "gRPC".to_owned(),
            Asked::Call(_, format) => format.media_type().to_owned(),
            Asked::Nothing(refusal) => refusal.status().as_str().to_owned(),
        }
    }

    #[test]
    fn a_request_is_sorted_by_type_path_and_method() {
        let (sync, watch) = ("/dormouse.v1.Mailbox/Sync", "/dormouse.v1.Mailbox/Watch");
        for (method, path, media_type, expected) in [
            ("POST", sync, "application/grpc", "gRPC"),
            ("POST", "/other.Service/Call", "application/grpc+proto", "gRPC"),
            ("POST", sync, "application/json", "application/json"),
            ("POST", sync, "Application/JSON; charset=utf-8", "application/json"),
            ("POST", sync, "application/proto", "application/proto"),
            ("POST", sync, "application/x-www-form-urlencoded", "415"),
            ("POST", sync, "application/connect+json", "415"),
            ("GET", sync, "", "405"),
            ("GET", "/", "", "404"),
            ("POST", "/dormouse.v1.Mailbox/Snyc", "application/json", "404"),
            ("POST", watch, "application/json", "501"),
            ("POST", watch, "application/connect+json", "501"),
        ] {
            assert_eq!(sorted(method, path, media_type), expected, "{method} {path} {media_type}");
        }
    }
}

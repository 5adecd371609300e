//! The page for people: three files that are part of the program, as they are written. Nothing is built, and nothing is
//! asked of anybody but the relay itself, which the policy in the headers makes the browser hold to.

use axum::{
    http::{
        HeaderName,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};

/// No script, style or request but the relay's own, none inside of the page, and no frame around it. Images are for the
/// icon, which stands in the page.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                 img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn html() -> Response {
    answer("text/html; charset=utf-8", include_str!("page.html"))
}

pub(super) async fn css() -> Response {
    answer("text/css; charset=utf-8", include_str!("page.css"))
}

pub(super) async fn js() -> Response {
    answer("text/javascript; charset=utf-8", include_str!("page.js"))
}

/// A relay that was replaced may bring another page, so nothing is kept.
pub(super) fn answer(content_type: &'static str, body: impl IntoResponse) -> Response {
    let headers: [(HeaderName, &'static str); 5] = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}

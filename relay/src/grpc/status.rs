//! Errors become gRPC statuses here, and nowhere else.
//!
//! A `Refusal` inside an answer and the `Status` of a failed call are made of the same facts, so they cannot differ.

use std::time::Duration;

use dormouse_proto::{
    convert::Violation,
    wire::v1::{self, refusal},
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{error::RelayError, state::Reason};

/// Said in every status.
const DOMAIN: &str = "dormouse";
/// When to come back if nothing better is known.
const RETRY: Duration = Duration::from_millis(200);
/// When to come back to a relay that stops: in about the time that another one needs to start on its log.
const RESTART: Duration = Duration::from_millis(300);
/// A message longer than this may be lost on the way.
const MESSAGE_BYTES: usize = 512;
/// Likewise each description.
const DESCRIPTION_BYTES: usize = 200;

/// What there is to say of an error.
struct Facts {
    code: Code,
    reason: &'static str,
    retry_after: Option<Duration>,
    violations: Vec<Violation>,
}

impl Facts {
    const fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, retry_after: None, violations: Vec::new() }
    }

    const fn retry(mut self) -> Self {
        self.retry_after = Some(RETRY);
        self
    }
}

/// The word for a reason of the fold, as in `Settled.refused`.
pub(super) const fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::ContextInvalid => "CONTEXT_INVALID",
        Reason::Stale => "STALE",
        Reason::OutOfRange => "FIELD_INVALID",
        Reason::Quota => "QUOTA",
    }
}

/// The word for an error, as in metrics and on the wire.
pub(super) fn word(error: &RelayError) -> &'static str {
    facts(error).reason
}

fn facts(error: &RelayError) -> Facts {
    // No `_` arm: a new error must choose its code.
    match error {
        RelayError::Invalid(violations) => {
            // Nothing is wrong with what is only too large, so a caller may split it.
            let only_large = violations.0.iter().all(|it| it.too_large);
            let reason = if only_large { "TOO_LARGE" } else { "FIELD_INVALID" };
            Facts { violations: violations.0.clone(), ..Facts::new(Code::InvalidArgument, reason) }
        }
        RelayError::TokenMissing => Facts::new(Code::Unauthenticated, "TOKEN_MISSING"),
        RelayError::TokenUnknown => Facts::new(Code::Unauthenticated, "TOKEN_UNKNOWN"),
        RelayError::NamespaceDenied { .. } => Facts::new(Code::PermissionDenied, "NAMESPACE_DENIED"),
        RelayError::RoleDenied(_) | RelayError::NotOfAll { .. } => {
            Facts::new(Code::PermissionDenied, "ROLE_DENIED")
        }
        RelayError::PageTokenInvalid => Facts::new(Code::InvalidArgument, "PAGE_TOKEN_INVALID"),
        RelayError::Refused { refused, path } => {
            let code = match refused.reason {
                Reason::ContextInvalid | Reason::OutOfRange => Code::InvalidArgument,
                Reason::Stale => Code::FailedPrecondition,
                Reason::Quota => Code::ResourceExhausted,
            };
            let named = refused.deltas.iter().map(|nth| Violation::new(format!("{path}[{nth}]"), error));
            Facts { violations: named.collect(), ..Facts::new(code, reason_word(refused.reason)) }
        }
        RelayError::NodeUnknown(_) => Facts::new(Code::NotFound, "NODE_UNKNOWN"),
        RelayError::NodeGone(_) | RelayError::NodeEnded(_) => Facts::new(Code::NotFound, "NODE_GONE"),
        RelayError::Full { .. } | RelayError::TooManyNamespaces { .. } | RelayError::InboxFull { .. } => {
            Facts::new(Code::ResourceExhausted, "QUOTA")
        }
        RelayError::OutcomeUnknown => Facts::new(Code::Aborted, "OUTCOME_UNKNOWN"),
        RelayError::Busy(_) => Facts::new(Code::ResourceExhausted, "BUSY").retry(),
        RelayError::SlowReader { .. } => Facts::new(Code::ResourceExhausted, "SLOW_READER"),
        RelayError::SlowSender { .. } => Facts::new(Code::DeadlineExceeded, "SLOW_SENDER"),
        RelayError::Starting => Facts::new(Code::Unavailable, "STARTING").retry(),
        RelayError::Stopping => {
            Facts { retry_after: Some(RESTART), ..Facts::new(Code::Unavailable, "STARTING") }
        }
        RelayError::Behind { .. } => Facts::new(Code::Unavailable, "BEHIND").retry(),
        RelayError::LogUnreachable => Facts::new(Code::Unavailable, "LOG_UNREACHABLE").retry(),
        RelayError::StoreFull => Facts::new(Code::Unavailable, "STORE_FULL").retry(),
    }
}

fn cut(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let boundary = (0..=longest).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(boundary.unwrap_or(0));
    }
    text
}

impl From<RelayError> for Status {
    fn from(error: RelayError) -> Self {
        let Facts { code, reason, retry_after, violations } = facts(&error);
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, DOMAIN, [] as [(String, String); 0]);
        for violation in violations {
            details.add_bad_request_violation(
                cut(violation.field, DESCRIPTION_BYTES),
                cut(violation.description, DESCRIPTION_BYTES),
            );
        }
        if let Some(retry_after) = retry_after {
            details.set_retry_info(Some(retry_after));
        }
        match &error {
            RelayError::TooManyNamespaces { .. } => {
                details.add_quota_failure_violation("namespaces", error.to_string());
            }
            RelayError::InboxFull { .. } => {
                details.add_quota_failure_violation("inbox", error.to_string());
            }
            RelayError::NodeUnknown(node) | RelayError::NodeGone(node) | RelayError::NodeEnded(node) => {
                details.set_resource_info("node", node.as_str(), "", "");
            }
            RelayError::Full { .. } => {
                details.add_quota_failure_violation("nodes", error.to_string());
            }
            RelayError::Refused { refused, .. } if refused.reason == Reason::Quota => {
                details.add_quota_failure_violation("namespace", error.to_string());
            }
            _ => {}
        }
        Self::with_error_details(code, cut(error.to_string(), MESSAGE_BYTES), details)
    }
}

/// The same, inside an answer.
pub(super) fn refusal(error: &RelayError) -> v1::Refusal {
    let Facts { code, reason, retry_after, violations } = facts(error);
    v1::Refusal {
        code: code as i32,
        reason: reason.to_owned(),
        message: cut(error.to_string(), MESSAGE_BYTES),
        retry_after_ms: retry_after.map_or(0, |it| u32::try_from(it.as_millis()).unwrap_or(u32::MAX)),
        violations: violations
            .into_iter()
            .map(|it| refusal::Violation {
                field: cut(it.field, DESCRIPTION_BYTES),
                description: cut(it.description, DESCRIPTION_BYTES),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use dormouse_proto::{convert::Violations, ids::Namespace};

    use super::*;
    use crate::{access::Role, state::Refused};

    fn all() -> Vec<RelayError> {
        let refused = |reason| RelayError::Refused {
            refused: Refused { reason, deltas: vec![3] },
            path: "push.deltas",
        };
        vec![
            RelayError::Invalid(Violations(vec![Violation::new("node", "required")])),
            RelayError::TokenMissing,
            RelayError::TokenUnknown,
            RelayError::NamespaceDenied { own: Namespace::default() },
            RelayError::RoleDenied(Role::Reader),
            RelayError::NotOfAll { own: Namespace::default() },
            RelayError::PageTokenInvalid,
            refused(Reason::ContextInvalid),
            refused(Reason::Stale),
            refused(Reason::OutOfRange),
            refused(Reason::Quota),
            RelayError::Full { limit: 1 },
            RelayError::TooManyNamespaces { limit: 1 },
            RelayError::NodeUnknown("n".into()),
            RelayError::NodeGone("n".into()),
            RelayError::NodeEnded("n".into()),
            RelayError::InboxFull { messages: 1, bytes: 2 },
            RelayError::OutcomeUnknown,
            RelayError::Busy("writes"),
            RelayError::SlowReader { patience_ms: 30_000 },
            RelayError::SlowSender { patience_ms: 30_000 },
            RelayError::Starting,
            RelayError::Stopping,
            RelayError::LogUnreachable,
            RelayError::StoreFull,
        ]
    }

    #[test]
    fn a_status_and_a_refusal_say_the_same() {
        for error in all() {
            let (refusal, status) = (refusal(&error), Status::from(error.clone()));
            let details = status.get_error_details();
            let info = details.error_info().expect("every status carries ErrorInfo");
            assert_eq!((info.domain.as_str(), &info.reason), (DOMAIN, &refusal.reason));
            assert_eq!((status.code() as i32, status.message()), (refusal.code, refusal.message.as_str()));
            let violations = details.bad_request().map_or(0, |it| it.field_violations.len());
            assert_eq!(violations, refusal.violations.len());
            let delay = details.retry_info().and_then(|it| it.retry_delay).map_or(0, |it| it.as_millis());
            assert_eq!(delay, u128::from(refusal.retry_after_ms));
        }
    }

    #[test]
    fn what_can_be_retried_says_when() {
        for error in all() {
            let status = Status::from(error);
            let retryable = status.code() == Code::Unavailable
                || status.get_error_details().error_info().is_some_and(|it| it.reason == "BUSY");
            assert_eq!(status.get_error_details().retry_info().is_some(), retryable, "{status:?}");
        }
    }

    #[test]
    fn details_stay_within_what_travels() {
        let long = Violation::new("f".repeat(9_000), "d".repeat(9_000));
        let status = Status::from(RelayError::Invalid(Violations(vec![long; Violations::NAMED])));
        assert!(status.details().len() <= 4 * 1024, "{}", status.details().len());
    }
}

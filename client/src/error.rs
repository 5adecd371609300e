//! What can go wrong beside a write that does not fit: see [`WriteError`](crate::WriteError).

use std::{error::Error, time::Duration};

use tonic::Status;
use tonic_types::StatusExt as _;

/// A setting breaks its rule. Nothing has been contacted yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {rule}")]
pub struct ConfigError {
    key: String,
    rule: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { key: key.into(), rule: rule.into() }
    }

    /// The environment variable that sets it.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Why a call did not do what it was made for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// There has been no reason yet to call the relay, or none of its answers has come.
    #[error("no answer yet")]
    NoAnswerYet,
    /// No relay answered in time, or the connection broke twice.
    #[error("the relay was not reached: {0}")]
    NotReached(String),
    /// The relay said no. `word` is one of the contract's reasons, such as `QUOTA` or `TOKEN_UNKNOWN`.
    #[error("{word}: {message}")]
    Refused {
        /// What programs may compare.
        word: String,
        /// What was wrong, and what the limit is.
        message: String,
    },
    /// A path is malformed.
    #[error("{0}")]
    Malformed(String),
    /// The operating system gave no random bytes, without which no identity can be drawn.
    #[error("the system has no random bytes")]
    NoRandomness,
}

impl From<Status> for Reason {
    fn from(status: Status) -> Self {
        match status.get_details_error_info() {
            Some(info) => Self::Refused { word: info.reason, message: with_violations(&status) },
            None if is_answer(&status) => Self::Refused {
                word: status.code().description().to_owned(),
                message: status.message().to_owned(),
            },
            None => Self::NotReached(format!("{}: {}", status.code().description(), down_to_cause(&status))),
        }
    }
}

/// A connection fails with the words "transport error", and only its last cause says what is to be mended: an unknown
/// certificate authority, or nobody there.
fn down_to_cause(status: &Status) -> String {
    let mut deepest: Option<&dyn Error> = status.source();
    while let Some(next) = deepest.and_then(Error::source) {
        deepest = Some(next);
    }
    let cause = deepest.map(ToString::to_string).filter(|cause| !status.message().contains(cause.as_str()));
    cause.map_or_else(|| status.message().to_owned(), |cause| format!("{}: {cause}", status.message()))
}

/// What the relay says, and of which fields: without them nobody knows what to mend.
fn with_violations(status: &Status) -> String {
    let wrong = status.get_details_bad_request().map(|details| details.field_violations);
    let fields = wrong.iter().flatten().map(|wrong| format!("{}: {}", wrong.field, wrong.description));
    match fields.collect::<Vec<_>>().join("; ") {
        none if none.is_empty() => status.message().to_owned(),
        fields => format!("{}: {fields}", status.message()),
    }
}

fn is_answer(status: &Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Unimplemented
    )
}

/// The view is older than the program can accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the view is {}: {reason}", age.map_or_else(|| "empty".to_owned(), |age| format!("{age:?} old")))]
pub struct Stale {
    /// Since the view was last known to be complete; `None`: it never was.
    pub age: Option<Duration>,
    /// Why it is no newer.
    pub reason: Reason,
}

//! Everything that a caller can be refused for. `grpc/status.rs` alone decides how that looks on the wire.

use dormouse_proto::{
    convert::Violations,
    ids::{Namespace, Revision},
};

use crate::{
    access::Role,
    sequencer::Unwritten,
    state::{Reason, Refused},
};

/// Why a call, or a part of one, was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RelayError {
    /// Fields that break their rules. Nothing was applied.
    #[error("the request is not valid")]
    Invalid(Violations),
    /// This relay asks for tokens, and none came. No body was read.
    #[error("this relay asks for a token: send one as `authorization: Bearer ...`")]
    TokenMissing,
    /// The token stands for nothing, or not any more. No body was read.
    #[error("this relay does not know that token, or not any more")]
    TokenUnknown,
    /// The token is good in another namespace. Whether the one that was asked for exists is not said.
    #[error("the token is good in the namespace {own:?}, and the request names another one", own = own.as_str())]
    NamespaceDenied {
        /// The token's own.
        own: Namespace,
    },
    /// The token's role may not call this. No body was read.
    #[error("the token's role is {0}, which may not do this")]
    RoleDenied(Role),
    /// The token is good in one namespace, and what was asked for is in all of them. Nothing was told.
    #[error("this takes in every namespace, and the token is good in {own:?} alone: an admin's token for all (`*`) may do it", own = own.as_str())]
    NotOfAll {
        /// The token's own.
        own: Namespace,
    },
    /// The page token is not one of this call. Nothing happened.
    #[error("the page token is not one that this call gave")]
    PageTokenInvalid,
    /// The fold refused a push or a write; the same on every relay. Nothing of it was applied.
    #[error("{}", reason_text(.refused.reason))]
    Refused {
        /// Why, and for which deltas.
        refused: Refused,
        /// How the list of deltas is called in the request.
        path: &'static str,
    },
    /// The namespace has as many members as it may. Nothing happened.
    #[error("the namespace has as many members as it may have: {limit}")]
    Full {
        /// The quota.
        limit: u64,
    },
    /// There are as many namespaces as there may be, and this one is new. Nothing happened.
    #[error("there are as many namespaces as there may be: {limit}")]
    TooManyNamespaces {
        /// The limit.
        limit: u64,
    },
    /// No such member.
    #[error("no member {0} is known")]
    NodeUnknown(String),
    /// The member was ended by somebody with the right to do so.
    #[error("member {0} was evicted")]
    NodeGone(String),
    /// The node is no member any more. Nothing happened.
    #[error("member {0} is gone")]
    NodeEnded(String),
    /// As many messages wait for the node as may. Nothing was stored.
    #[error("the inbox is full: at most {messages} messages and {bytes} bytes wait for one node")]
    InboxFull {
        /// How many messages may wait.
        messages: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// Nobody can say whether the push was bound.
    #[error("the node was forgotten: nobody can say whether this push took effect")]
    OutcomeUnknown,
    /// Too much is waiting already. Nothing was written.
    #[error("too many {0} are waiting, come back later")]
    Busy(&'static str),
    /// The reader of a stream took nothing for as long as this relay waits. What it had read stays valid.
    #[error(
        "nothing of this stream was taken for {patience_ms} ms, the longest that this relay waits (watch_patience_ms); \
         go on with a new stream, from the token or the revision of the last message that arrived"
    )]
    SlowReader {
        /// How long was waited.
        patience_ms: u64,
    },
    /// A request did not arrive in the time that this relay gives it. Nothing happened.
    #[error(
        "the request did not arrive within {patience_ms} ms, the longest that this relay waits (request_ms)"
    )]
    SlowSender {
        /// How long was waited.
        patience_ms: u64,
    },
    /// The relay has not read its log yet. Nothing happened.
    #[error("this relay is starting, come back later")]
    Starting,
    /// The relay stops, and is likely to be there again soon. Nothing happened.
    #[error("this relay is stopping, come back later")]
    Stopping,
    /// This relay has not applied what the caller was shown elsewhere.
    #[error("this relay has applied revision {has}, {wanted} was asked for")]
    Behind {
        /// What the caller asked for.
        wanted: Revision,
        /// What this relay has.
        has: Revision,
    },
    /// The log did not answer in time. What was to be written may be written; a retry is harmless.
    #[error("the log cannot be reached, or did not answer in time")]
    LogUnreachable,
    /// The log's store has no room. Nothing was written.
    #[error("the log's store is full")]
    StoreFull,
}

const fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::ContextInvalid => "an as_of is not below the push's own revision",
        Reason::Stale => {
            "the history that a delta's as_of needs was collected, or was lost with the tail of the log"
        }
        Reason::OutOfRange => "a counter would leave the range of 64 bits",
        Reason::Quota => {
            "the namespace has as many rows, bytes or collections as it may have; or, of the deltas that are named, the node \
             holds up 64 things already, or the siblings that they touch are more than 2 MiB together"
        }
    }
}

impl From<Violations> for RelayError {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

impl From<Unwritten> for RelayError {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::Busy => Self::Busy("writes"),
            Unwritten::StoreFull => Self::StoreFull,
            Unwritten::TooLarge(_) | Unwritten::Unreachable => Self::LogUnreachable,
            Unwritten::Stopping => Self::Stopping,
        }
    }
}

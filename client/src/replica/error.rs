//! Why a write was not taken.

use dormouse_proto::lattice::{PRESENCES_PER_NODE, Value};

/// Why a write was not taken; nothing has changed then. No write fails because of the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The path or a name in the write breaks its rule.
    #[error("{path:?}: {rule}")]
    Malformed {
        /// What was given.
        path: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// What waits to be pushed has reached its bound, and this write coalesces with nothing that waits.
    #[error(
        "the outbox is full: {pending} bytes wait and this write needs {needed} more, the limit is {limit}"
    )]
    OutboxFull {
        /// Bytes that wait, the sealed push included.
        pending: usize,
        /// What this write would add.
        needed: usize,
        /// `outbox_bytes`.
        limit: usize,
    },
    /// An amount that one delta cannot carry.
    #[error("an amount is at most 2^48, this one is {0}")]
    AmountTooLarge(i128),
    /// A content is too large.
    #[error("a value is at most {limit} bytes, this one has {is}")]
    ValueTooLarge {
        /// Its bytes.
        is: usize,
        /// 256 KiB.
        limit: usize,
    },
    /// A content could not be written as JSON.
    #[error("the value is not JSON: {0}")]
    NotJson(String),
    /// A node holds up at most 64 presences.
    #[error("a node holds up at most {PRESENCES_PER_NODE} presences at once; withdraw one first")]
    TooManyPresences,
}

/// Whether a content fits.
pub(super) fn check_value(value: Option<&Value>) -> Result<(), WriteError> {
    match value.map_or(0, Value::len) {
        is if is > Value::MAX_BYTES => Err(WriteError::ValueTooLarge { is, limit: Value::MAX_BYTES }),
        _ => Ok(()),
    }
}

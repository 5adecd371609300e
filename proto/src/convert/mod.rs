//! Wire messages become domain types here, and nowhere else.
//!
//! Inward everything is checked once: whoever holds a [`Delta`](crate::lattice::Delta) need not ask again. Each message
//! is taken apart field by field, so that a new field stops the build until somebody decides what it means.

mod delta;
mod mail;
mod pull;
mod push;

pub use delta::{deltas_from_wire, value_from_wire};
pub use mail::Mail;
pub use pull::{Follow, PullRequest};
pub use push::{Admissible, Identity, Intent, PushRequest, SyncCall};

use crate::ids::InvalidName;

/// Bounds of a request that the contract states.
pub mod bounds {
    /// Deltas of one push.
    pub const DELTAS: usize = 1_024;
    /// Encoded bytes of one push.
    pub const PUSH_BYTES: usize = 1 << 20;
    /// Rows that one push touches: elements, events and the heads of their logs, and one for every other delta.
    pub const ROWS: usize = 1_024;
    /// Idempotency ids of one counter delta.
    pub const ONCE: usize = 1_000;
    /// Collections of one pull.
    pub const COLLECTIONS: usize = 64;
    /// Revisions in `Pull.acked`.
    pub const ACKED: usize = 1_024;
    /// The highest incarnation that a node may claim: none was ever that high, and the next one must fit.
    pub const INCARNATION: u64 = 1 << 48;
    /// Tags of one node.
    pub const TAGS: usize = 16;
    /// Bytes of all tags of one node.
    pub const TAG_BYTES: usize = 1_024;
    /// The least that a pull may be held to.
    pub const CHUNK_MIN: u32 = 16 << 10;
    /// What a pull is held to when it does not say.
    pub const CHUNK_DEFAULT: u32 = 1 << 20;
    /// The most that one answer carries.
    pub const CHUNK_MAX: u32 = 3 << 20;
    /// Names of one read.
    pub const READ_KEYS: usize = 100;
    /// Events of one key in one read; a single revision is never split.
    pub const READ_EVENTS: usize = 500;
    /// The payload of a message to one node.
    pub const MAIL_BYTES: usize = 64 << 10;
    /// The sender's name in it.
    pub const SENDER_BYTES: usize = 64;
    /// How long it waits if it does not say: a day of log time.
    pub const MAIL_TTL_MS: u64 = 24 * 3_600 * 1_000;
    /// How long it may wait at the most: seven days.
    pub const MAIL_TTL_MAX_MS: u64 = 7 * MAIL_TTL_MS;
}

/// One field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where: `push.deltas[3].set.add[0]`.
    pub field: String,
    /// What was wrong, and what the limit is.
    pub description: String,
    /// Nothing is wrong with it but its size.
    pub too_large: bool,
}

impl Violation {
    /// A field that breaks its rule.
    pub fn new(field: impl Into<String>, description: impl ToString) -> Self {
        Self { field: field.into(), description: description.to_string(), too_large: false }
    }

    /// A field that is larger than it may be.
    pub fn too_large(field: impl Into<String>, is: usize, limit: usize, unit: &str) -> Self {
        Self {
            field: field.into(),
            description: format!("{is} {unit}, the limit is {limit}"),
            too_large: true,
        }
    }
}

/// What is wrong with a request; at most [`Violations::NAMED`] fields are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    /// More would be lost on the way.
    pub const NAMED: usize = 8;

    fn add(&mut self, violation: Violation) {
        if self.0.len() < Self::NAMED {
            self.0.push(violation);
        }
    }

    fn check<T>(&mut self, field: impl FnOnce() -> String, result: Result<T, InvalidName>) -> Option<T> {
        result.map_err(|error| self.add(Violation::new(field(), error))).ok()
    }

    fn into_result<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self),
        }
    }
}

impl From<Violation> for Violations {
    fn from(violation: Violation) -> Self {
        Self(vec![violation])
    }
}

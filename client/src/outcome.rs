//! How calls ended, and what that says of the view and of what was written.

use std::time::Duration;

use dormouse_proto::wire::v1;

use crate::error::Reason;

/// How much the view can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Complete as of the newest answer.
    Current,
    /// The budget ended in the middle of the backlog.
    CatchingUp {
        /// An upper bound of the rows that are missing.
        rows_left: u64,
    },
    /// The newest call failed; the view is what it was.
    Stale {
        /// Since the view was last complete.
        age: Duration,
        /// Why it is no newer.
        reason: Reason,
    },
    /// The view was never complete.
    Never {
        /// Why not.
        reason: Reason,
    },
}

/// What the log promises of what it has accepted. Kinds, not a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Not said.
    #[default]
    Unknown,
    /// In the page cache of one machine.
    PageCache,
    /// In the memory of most machines of a cluster.
    Majority,
    /// On a disk.
    Fsync,
}

impl Durability {
    pub(crate) fn from_wire(kind: i32) -> Self {
        use v1::push_ack::Durability as Wire;
        match Wire::try_from(kind) {
            Ok(Wire::PageCache) => Self::PageCache,
            Ok(Wire::Majority) => Self::Majority,
            Ok(Wire::Fsync) => Self::Fsync,
            Ok(Wire::Unspecified) | Err(_) => Self::Unknown,
        }
    }
}

/// How an invocation's writes ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "writes that are not saved are lost if the process is killed while it sleeps"]
pub enum Slept {
    /// All of them are in the log.
    Saved {
        /// Where.
        revision: u64,
        /// What the log promises.
        durability: Durability,
    },
    /// Nothing was written.
    Nothing,
    /// Not all of them are. They are kept and go with the next wake, but are lost if the process is killed before;
    /// what was refused is in [`reports`](crate::Awake::reports) of the next wake.
    Unsaved {
        /// Rows that still wait, or were refused.
        deltas: usize,
        /// Why.
        reason: Reason,
    },
}

impl Slept {
    /// Prints one line to standard error if something is not saved.
    pub fn warn_if_unsaved(&self) {
        if let Self::Unsaved { deltas, reason } = self {
            eprintln!("dormouse: {deltas} writes are not saved: {reason}");
        }
    }
}

//! What a relay says, in the replica's own words. `convert.rs` makes these from the wire, strings moved, not copied.

use dormouse_proto::{
    ids::{Incarnation, NodeId, PushId, PushNo, Revision},
    lattice::{Delta, Type, Value},
};

/// Some rows of one key. They replace what is held, row by row, newest `as_of` first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRows {
    /// The collection.
    pub collection: String,
    /// The key.
    pub key: String,
    /// Its rows.
    pub rows: Rows,
}

/// Rows by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The one row of a counter.
    Counter {
        /// What a reader sees.
        value: i64,
        /// What a reset names.
        total: i64,
    },
    /// Elements of a set.
    Set {
        /// In the set.
        present: Vec<String>,
        /// Not in the set.
        removed: Vec<String>,
    },
    /// The one row of a register.
    Register {
        /// Its content; `None`: deleted.
        value: Option<Value>,
        /// The winning write's stamp.
        stamp_ms: u64,
    },
    /// The one row of a flag.
    Flag {
        /// Whether it is on.
        on: bool,
    },
    /// The one row of a flag in which an off wins.
    DisableWinsFlag {
        /// Whether it is on.
        on: bool,
    },
    /// The one row of a maximum.
    Max {
        /// The largest offer; `None`: nothing was offered.
        value: Option<i64>,
    },
    /// The one row of a minimum.
    Min {
        /// The smallest offer; `None`: nothing was offered.
        value: Option<i64>,
    },
    /// Entries of a log of events, in their order, and how far it was trimmed.
    Events {
        /// The entries.
        events: Vec<EventRow>,
        /// Entries up to here are gone, whoever still holds them; zero: this does not say.
        trimmed_upto: Revision,
    },
    /// What some nodes hold up.
    Presence {
        /// One row for each node.
        holders: Vec<HolderRow>,
    },
    /// The one row of siblings: all of them, oldest first.
    Siblings {
        /// Each with the revision of its write.
        values: Vec<(Revision, Value)>,
    },
    /// Elements of a set that only grows.
    GrowOnlySet {
        /// In the set.
        present: Vec<String>,
        /// Not in the set.
        removed: Vec<String>,
    },
    /// Elements of a set in which a remove wins.
    RemoveWinsSet {
        /// In the set.
        present: Vec<String>,
        /// Not in the set.
        removed: Vec<String>,
    },
}

impl Rows {
    /// Their type.
    pub const fn kind(&self) -> Type {
        match self {
            Self::Counter { .. } => Type::Counter,
            Self::Set { .. } => Type::Set,
            Self::Register { .. } => Type::Register,
            Self::Flag { .. } => Type::Flag,
            Self::DisableWinsFlag { .. } => Type::DisableWinsFlag,
            Self::Max { .. } => Type::Max,
            Self::Min { .. } => Type::Min,
            Self::Events { .. } => Type::Events,
            Self::Presence { .. } => Type::Presence,
            Self::Siblings { .. } => Type::Siblings,
            Self::GrowOnlySet { .. } => Type::GrowOnlySet,
            Self::RemoveWinsSet { .. } => Type::RemoveWinsSet,
        }
    }
}

/// An entry of a log of events. Named by its revision and index, it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Where it was accepted.
    pub revision: Revision,
    /// Its place among those that were accepted there.
    pub index: u32,
    /// Its content.
    pub payload: Value,
    /// Whose push it was; `None`: a caller that is no node.
    pub node: Option<NodeId>,
    /// The log's wall clock in milliseconds since 1970, for display; 0: not said.
    pub accepted_at_ms: u64,
}

/// What one node holds up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderRow {
    /// Who.
    pub node: NodeId,
    /// In which incarnation.
    pub incarnation: Incarnation,
    /// What it holds up; `None`: nothing any more.
    pub value: Option<Value>,
}

/// A message to this node alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRow {
    /// Where it was accepted.
    pub revision: Revision,
    /// Its sender's name for it.
    pub message_id: String,
    /// Who sent it, in its own words.
    pub sender: String,
    /// What it says.
    pub payload: Value,
}

/// A push was bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Which push.
    pub push_no: PushNo,
    /// Where it was bound.
    pub revision: Revision,
    /// When `keys` were read; not below `revision`.
    pub as_of: Revision,
    /// The touched rows. What is left out is exactly what the delta asked for.
    pub keys: Vec<KeyRows>,
}

/// What a refused push means for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided: the same push may be sent again.
    Later,
    /// Some deltas can never be accepted.
    Invalid,
    /// The namespace is full: what makes it grow is refused.
    Quota,
    /// The history that some contexts need was collected.
    Stale,
    /// Bound or not, nobody can know.
    OutcomeUnknown,
}

/// A push was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The relay's word for it, for reports.
    pub reason: String,
    /// What it means.
    pub verdict: Verdict,
    /// Indexes of the offending deltas; empty: the push as a whole.
    pub deltas: Vec<usize>,
}

/// The fate of the node's last push, from the same view as the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which push ...
    pub push_no: PushNo,
    /// ... and whose.
    pub push_id: PushId,
    /// Where it was bound; `None`: refused.
    pub bound: Option<Revision>,
}

/// Why a pull starts over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Dead rows that may still be shown here were collected.
    Compacted,
    /// The log has lost what was shown here.
    Lost,
    /// The token was none.
    BadToken,
}

/// A bounded piece of backlog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The revision that it was built at.
    pub as_of: Revision,
    /// The view is now exactly the state at `as_of`.
    pub caught_up: bool,
    /// Collections that are at their end; with `caught_up`: all that were asked for.
    pub caught_up_in: Vec<String>,
    /// To be sent with the next pull.
    pub token: Vec<u8>,
    /// An upper bound of what is left.
    pub rows_left: u64,
    /// Why the pull starts over.
    pub restart: Option<Restart>,
    /// Collections that start over; empty: all.
    pub restarted: Vec<String>,
    /// Members' rows.
    pub members: Vec<MemberRow>,
    /// Messages to this node, in the order in which the log accepted them.
    pub inbox: Vec<InboxRow>,
    /// Rows.
    pub keys: Vec<KeyRows>,
}

/// One member, or one that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// Who.
    pub node: NodeId,
    /// In which incarnation.
    pub incarnation: Incarnation,
    /// What it runs.
    pub group: String,
    /// It is a member no more.
    pub gone: bool,
}

/// How a call found the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// As it was.
    #[default]
    Renewed,
    /// New.
    Joined,
    /// Declared gone, wrongly; the same node, the next incarnation.
    Readmitted,
    /// Another process holds the id; a new one was given.
    Forked,
    /// The relay forgot the node; a new id was given, and a push that was sent before may have been bound.
    Forgotten,
}

/// What becomes of part of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was not and will not be applied.
    Dropped {
        /// The relay's word: `STALE`, `CONTEXT_INVALID`, `QUOTA`, `LOST`, ...
        reason: String,
    },
    /// `AT_RISK`: its push was sent, and nobody can know whether it was applied.
    Unknown {
        /// It says the same however often it is applied, so it is pushed again.
        repeated: bool,
    },
}

/// A write, or a part of one, did not end as the program was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was asked for.
    pub delta: Delta,
    /// What became of it.
    pub fate: Fate,
}

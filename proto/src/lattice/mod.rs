//! What is said about state and what it means.
//!
//! A [`Delta`] is an intent that travels upward. Its dot, the thing that makes it unique, is the
//! [`Revision`](crate::ids::Revision) that the log gives it, so no client ever appears in the state. A *row* is the part
//! of the state that one delta can change on its own: a whole counter, a whole register, one element of a set. The
//! families below hold a row's state and the exact rule by which a bound delta changes it; they know neither collections
//! nor clocks. A nested map needs no family: its leaves are rows whose keys lie below a path.
//!
//! Every row is the visible part of a join of monotone parts. Because a later dot is always greater, most of the join
//! need not be kept: the laws in each family's tests compare the short form with the whole lattice.

mod counter;
mod events;
mod flag;
pub mod laws;
mod number;
mod presence;
mod register;
mod remove_wins;
mod set;
mod siblings;

pub use counter::{Amount, Counter, CounterDelta, MAX_AMOUNT, Once, OutOfRange, Reset};
pub use events::{Append, EventsDelta, EventsHead};
pub use flag::{Flag, FlagDelta};
pub use number::{Max, Min};
pub use presence::{PRESENCES_PER_NODE, Presence, PresenceDelta};
pub use register::{Register, RegisterDelta};
pub use remove_wins::{GuardedAdd, RemoveWins, RemoveWinsSetDelta};
pub use set::{GrowOnlySetDelta, Remove, SetDelta, SetElement};
pub use siblings::{Siblings, SiblingsDelta};

use crate::ids::{Collection, Key};

/// The types of the lattice. The type is part of a row's name, so a type conflict cannot exist.
///
/// The number of each is its field number on the wire, in deltas and in states alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Type {
    /// A resettable counter.
    Counter = 4,
    /// A set in which an add wins over a concurrent remove.
    Set = 5,
    /// A register in which the last write wins.
    Register = 6,
    /// A flag in which an on wins over a concurrent off.
    Flag = 7,
    /// The largest number that was offered.
    Max = 8,
    /// The smallest number that was offered.
    Min = 9,
    /// A log of events.
    Events = 10,
    /// What nodes hold up while they are members.
    Presence = 11,
    /// A register that keeps what was written concurrently.
    Siblings = 12,
    /// A set from which nothing is removed.
    GrowOnlySet = 13,
    /// A set in which a remove wins over a concurrent add.
    RemoveWinsSet = 14,
    /// A flag in which an off wins over a concurrent on.
    DisableWinsFlag = 15,
}

impl Type {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Counter,
        Self::Set,
        Self::Register,
        Self::Flag,
        Self::Max,
        Self::Min,
        Self::Events,
        Self::Presence,
        Self::Siblings,
        Self::GrowOnlySet,
        Self::RemoveWinsSet,
        Self::DisableWinsFlag,
    ];

    /// The field number of this type on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The type with that field number, if this build knows it.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| u32::from(kind.number()) == number)
    }

    /// The word for it, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Set => "set",
            Self::Register => "register",
            Self::Flag => "flag",
            Self::Max => "max",
            Self::Min => "min",
            Self::Events => "events",
            Self::Presence => "presence",
            Self::Siblings => "siblings",
            Self::GrowOnlySet => "grow-only-set",
            Self::RemoveWinsSet => "remove-wins-set",
            Self::DisableWinsFlag => "disable-wins-flag",
        }
    }

    /// Whether nothing of this type is ever taken away again, so that no clear of a map can reach it.
    pub const fn only_grows(self) -> bool {
        matches!(self, Self::Max | Self::Min | Self::GrowOnlySet)
    }
}

/// The content of a register: at most [`Value::MAX_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Text; our clients put JSON here, so that everybody can read it.
    Text(String),
    /// Anything else.
    Data(Vec<u8>),
}

impl Value {
    /// 256 KiB.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Bytes of payload.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Data(data) => data.len(),
        }
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One change of one `(collection, key, type)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The unit of interest that the key belongs to.
    pub collection: Collection,
    /// The key.
    pub key: Key,
    /// What is to be done.
    pub change: Change,
}

/// What a delta does to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// To a counter.
    Counter(CounterDelta),
    /// To a set.
    Set(SetDelta),
    /// To a register.
    Register(RegisterDelta),
    /// To a flag.
    Flag(FlagDelta),
    /// An offer to a maximum.
    Max(i64),
    /// An offer to a minimum.
    Min(i64),
    /// To a log of events.
    Events(EventsDelta),
    /// To the presence of the node that says it.
    Presence(PresenceDelta),
    /// To siblings.
    Siblings(SiblingsDelta),
    /// To a set that only grows.
    GrowOnlySet(GrowOnlySetDelta),
    /// To a set in which a remove wins.
    RemoveWinsSet(RemoveWinsSetDelta),
    /// To a flag in which an off wins.
    DisableWinsFlag(FlagDelta),
}

impl Change {
    /// The type that this change is for.
    pub const fn kind(&self) -> Type {
        match self {
            Self::Counter(_) => Type::Counter,
            Self::Set(_) => Type::Set,
            Self::Register(_) => Type::Register,
            Self::Flag(_) => Type::Flag,
            Self::Max(_) => Type::Max,
            Self::Min(_) => Type::Min,
            Self::Events(_) => Type::Events,
            Self::Presence(_) => Type::Presence,
            Self::Siblings(_) => Type::Siblings,
            Self::GrowOnlySet(_) => Type::GrowOnlySet,
            Self::RemoveWinsSet(_) => Type::RemoveWinsSet,
            Self::DisableWinsFlag(_) => Type::DisableWinsFlag,
        }
    }

    /// How many rows it touches at the most, without looking at any.
    pub fn rows(&self) -> usize {
        match self {
            Self::Set(set) => set.add.len() + set.remove.iter().map(|it| it.elements.len()).sum::<usize>(),
            Self::GrowOnlySet(set) => set.add.len(),
            Self::RemoveWinsSet(set) => {
                set.remove.len() + set.add.iter().map(|it| it.elements.len()).sum::<usize>()
            }
            Self::Events(events) => events.append.len() + 1,
            Self::Counter(_)
            | Self::Register(_)
            | Self::Flag(_)
            | Self::Max(_)
            | Self::Min(_)
            | Self::Presence(_)
            | Self::Siblings(_)
            | Self::DisableWinsFlag(_) => 1,
        }
    }
}

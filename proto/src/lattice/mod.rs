//! What is said about state and what it means.
//!
//! A [`Delta`] is an intent that travels upward. Its dot, the thing that makes it unique, is the
//! [`Revision`](crate::ids::Revision) that the log gives it, so no client ever appears in the state. A *row* is the part
//! of the state that one delta can change on its own: a whole counter, a whole register, one element of a set. The three
//! families below hold a row's state and the exact rule by which a bound delta changes it; they know neither collections
//! nor clocks.
//!
//! Every row is the visible part of a join of monotone parts. Because a later dot is always greater, most of the join
//! need not be kept: the laws in each family's tests compare the short form with the whole lattice.

mod counter;
pub mod laws;
mod register;
mod set;

pub use counter::{Amount, Counter, CounterDelta, MAX_AMOUNT, Once, OutOfRange, Reset};
pub use register::{Register, RegisterDelta};
pub use set::{Remove, SetDelta, SetElement};

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
}

impl Type {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Counter, Self::Set, Self::Register];

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
        }
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
}

impl Change {
    /// The type that this change is for.
    pub const fn kind(&self) -> Type {
        match self {
            Self::Counter(_) => Type::Counter,
            Self::Set(_) => Type::Set,
            Self::Register(_) => Type::Register,
        }
    }
}

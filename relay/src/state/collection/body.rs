//! What a row holds, by type. The size of the largest common one decides what every row costs, so the rare ones that
//! would be larger lie in a box.

use compact_str::CompactString;
use dormouse_proto::{
    ids::{NodeId, Revision},
    lattice::{Counter, EventsHead, Flag, Max, Min, Presence, Register, RemoveWins, SetElement, Siblings},
};

use super::PLACE_BYTES;
use crate::state::{keys::KeyId, rows::Body};

/// A content as it goes on the wire: an encoded `Value`.
pub(in crate::state) type EncodedValue = Box<[u8]>;

/// An element of a remove-wins set.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct GuardedElement {
    pub(in crate::state) name: CompactString,
    pub(in crate::state) state: RemoveWins,
}

/// One entry of a log of events; its revision is the row's `chg`.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Entry {
    /// Its place in its delta.
    pub(in crate::state) index: u32,
    /// Log time of its append.
    pub(in crate::state) at_ms: u64,
    /// The encoded `Event`.
    pub(in crate::state) event: Box<[u8]>,
}

/// What one node holds up under a key.
#[derive(Clone, Debug)]
pub(in crate::state) struct Holder {
    pub(in crate::state) node: NodeId,
    pub(in crate::state) state: Presence<EncodedValue>,
}

/// What a row holds.
#[derive(Clone, Debug, Default)]
pub(in crate::state) enum RowBody {
    /// A free place.
    #[default]
    Vacant,
    Counter(KeyId, Counter),
    Element(KeyId, CompactString, SetElement),
    Register(KeyId, Register<EncodedValue>),
    Flag(KeyId, Flag),
    Max(KeyId, Max),
    Min(KeyId, Min),
    Siblings(KeyId, Siblings<EncodedValue>),
    /// An element of a set that only grows.
    Grown(KeyId, CompactString),
    /// An element of a remove-wins set.
    Guarded(KeyId, Box<GuardedElement>),
    GuardedFlag(KeyId, RemoveWins),
    EventsHead(KeyId, EventsHead),
    Event(KeyId, Entry),
    Presence(KeyId, Box<Holder>),
}

impl Body for RowBody {
    fn is_dead(&self) -> bool {
        match self {
            Self::Vacant => true,
            Self::Counter(_, counter) => counter.is_dead(),
            Self::Element(_, _, element) => !element.is_present(),
            Self::Register(_, register) => register.is_dead(),
            Self::Flag(_, flag) => !flag.is_on(),
            Self::Siblings(_, siblings) => siblings.is_dead(),
            Self::Guarded(_, element) => !element.state.is_present(),
            Self::GuardedFlag(_, flag) => !flag.is_present(),
            Self::EventsHead(_, head) => head.is_dead(),
            Self::Presence(_, holder) => holder.state.is_dead(),
            Self::Max(..) | Self::Min(..) | Self::Grown(..) | Self::Event(..) => false,
        }
    }

    fn touched(&self, chg: Revision) -> Revision {
        match self {
            // These can be news to the lattice without being observable: a delete where nobody had seen a value, a
            // remove of what was not there, entries that came and went while the trim point had not moved yet.
            Self::Register(_, register) => chg.max(register.revision),
            Self::Guarded(_, element) => chg.max(element.state.removed),
            Self::GuardedFlag(_, flag) => chg.max(flag.removed),
            Self::EventsHead(_, head) => chg.max(head.appended),
            _ => chg,
        }
    }
}

/// What the box of a remove-wins element takes.
pub(in crate::state) const GUARDED_BYTES: usize = 48;
/// What the box of a holder takes, and its name among those of its node.
pub(in crate::state) const HOLDER_BYTES: usize = 32 + 90;
/// What an entry takes in the queue of its log.
pub(in crate::state) const QUEUED_BYTES: usize = 6;
/// What the queue of a log takes, and its place among those that age, while it has entries.
pub(in crate::state) const LOG_BYTES: usize = 150;

impl RowBody {
    pub(in crate::state) fn key(&self) -> Option<KeyId> {
        match self {
            Self::Vacant => None,
            Self::Counter(key, _)
            | Self::Element(key, _, _)
            | Self::Register(key, _)
            | Self::Flag(key, _)
            | Self::Max(key, _)
            | Self::Min(key, _)
            | Self::Siblings(key, _)
            | Self::Grown(key, _)
            | Self::Guarded(key, _)
            | Self::GuardedFlag(key, _)
            | Self::EventsHead(key, _)
            | Self::Event(key, _)
            | Self::Presence(key, _) => Some(*key),
        }
    }

    /// The name of an element of a set of any kind.
    pub(in crate::state) fn element(&self) -> Option<&str> {
        match self {
            Self::Element(_, name, _) | Self::Grown(_, name) => Some(name),
            Self::Guarded(_, element) => Some(&element.name),
            _ => None,
        }
    }

    /// Bytes beyond the row itself.
    pub(in crate::state) fn heap_bytes(&self) -> usize {
        match self {
            Self::Vacant
            | Self::Counter(..)
            | Self::Flag(..)
            | Self::Max(..)
            | Self::Min(..)
            | Self::GuardedFlag(..) => 0,
            Self::EventsHead(_, head) => {
                if head.is_dead() {
                    0
                } else {
                    LOG_BYTES
                }
            }
            Self::Element(_, name, _) | Self::Grown(_, name) => PLACE_BYTES + name_bytes(name),
            Self::Register(_, register) => register.value.as_ref().map_or(0, |value| value.len()),
            Self::Siblings(_, siblings) => siblings.iter().map(|(_, value)| 24 + value.len()).sum(),
            Self::Guarded(_, element) => PLACE_BYTES + GUARDED_BYTES + name_bytes(&element.name),
            Self::Event(_, entry) => QUEUED_BYTES + entry.event.len(),
            Self::Presence(_, holder) => {
                PLACE_BYTES + HOLDER_BYTES + holder.state.value.as_ref().map_or(0, |it| it.len())
            }
        }
    }
}

/// Short names lie in the row itself.
pub(in crate::state) fn name_bytes(name: &str) -> usize {
    const INLINE: usize = 24;
    if name.len() > INLINE { name.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::rows::Row;

    #[test]
    fn a_row_has_48_bytes_whatever_types_there_are() {
        assert_eq!(size_of::<Row<RowBody>>(), 48);
    }
}

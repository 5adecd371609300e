//! The whole state as a stream of bytes, and back.
//!
//! The stream is canonical: relays that have applied the same records write the same bytes, whatever their memory looks
//! like. So the hash of the stream is the hash of the state.

mod parts;
mod read;
mod restamp;
mod row;
mod write;

use std::fmt;

pub use read::{Restore, RestoreError};

/// The format that this build writes and reads.
const FORMAT: u32 = 1;

/// The hash of the whole state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateHash(pub u128);

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

mod reason {
    //! The numbers of reasons in a snapshot.
    use crate::state::Reason;

    pub(super) fn number(reason: Reason) -> u32 {
        match reason {
            Reason::ContextInvalid => 1,
            Reason::Stale => 2,
            Reason::OutOfRange => 3,
            Reason::Quota => 4,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Reason> {
        [Reason::ContextInvalid, Reason::Stale, Reason::OutOfRange, Reason::Quota]
            .into_iter()
            .find(|it| self::number(*it) == number)
    }
}

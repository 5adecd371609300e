//! Who is alive, as far as anybody can know it of functions that are frozen between calls.
//!
//! A node is never asked; it is only heard. Each contact gives it a lease, and a node whose lease ran out is
//! SUSPECT, then proposed to be GONE. The room is pure: no I/O, no clock, no async. `now` is an argument, in
//! *virtual* milliseconds that leave out the time in which this relay itself stood still ([`guard`]).
//!
//! Invariants: nobody is proposed GONE without a whole lease of silence, measured by a relay that was itself
//! awake; a lease longer than the awake lease exists only once its evidence was applied; a contact that is not
//! newer than the newest known one changes nothing.

mod company;
mod floor;
mod group;
pub mod guard;
mod lease;
mod load;
mod mass_loss;
mod peers;
mod questions;
mod settings;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod untold;
mod wake_gaps;
mod wheel;

pub use company::{Company, Ends, Telling, Told};
pub use floor::{Floor, FloorEvent, FloorRule};
pub use group::Learned;
pub use lease::{Activity, Contact, Due, Evidence, Heard, LeaseState, LeaseView};
pub use peers::Peers;
pub use questions::Silent;
pub use settings::{LeasePolicy, LeaseSettings, LeaseSettingsError, UndeclaredFreeze};
pub use table::{Ended, GroupCounts, LeaseTable, Restored};
pub use tally::MemberCounts;

use std::{fmt, ops::Add, time::Duration};

use dormouse_proto::ids::NodeId;

/// A length of virtual time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// That many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }
}

impl Millis {
    /// That many milliseconds, without what is less than one; what is no length is none.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from a float saturates, and a fraction of a millisecond means nothing"
    )]
    const fn whole(ms: f64) -> Self {
        Self(ms as u64)
    }

    const fn as_f64(self) -> f64 {
        self.0 as f64
    }
}

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Add for Millis {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A moment of one relay's virtual time, in milliseconds since that relay started. Never compared between relays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than everything.
    const NEVER: Self = Self(u64::MAX);

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Millis> for Timestamp {
    type Output = Self;

    fn add(self, length: Millis) -> Self {
        Self(self.0.saturating_add(length.0))
    }
}

/// Names one lease: the namespace by its number in this relay, and the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// Number that the relay gave to the namespace.
    pub namespace: u32,
    /// The node.
    pub node: NodeId,
}

/// One connection of one relay to the log. Whoever's evidence was applied last holds the lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

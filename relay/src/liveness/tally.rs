//! Members by state, counted as they change, so that nobody has to walk the leases to know how many there are.

use std::sync::atomic::{AtomicU64, Ordering};

use super::LeaseState;

/// Members of a namespace, or of one group in it, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounts {
    /// Inside an invocation.
    pub awake: u64,
    /// Frozen, and said so.
    pub asleep: u64,
    /// Lease ran out.
    pub suspect: u64,
}

impl MemberCounts {
    /// How many there are.
    pub const fn all(self) -> u64 {
        self.awake + self.asleep + self.suspect
    }
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    awake: AtomicU64,
    asleep: AtomicU64,
    suspect: AtomicU64,
    /// The bits of an `f64`: how many of them are expected to live, by the last fit.
    expected: AtomicU64,
    expired: AtomicU64,
    back: AtomicU64,
}

impl Tally {
    fn of(&self, state: LeaseState) -> &AtomicU64 {
        match state {
            LeaseState::Awake => &self.awake,
            LeaseState::Asleep => &self.asleep,
            LeaseState::Suspect => &self.suspect,
        }
    }

    pub(super) fn joined(&self, state: LeaseState) {
        self.of(state).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left(&self, state: LeaseState) {
        self.of(state).fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn moved(&self, before: LeaseState, after: LeaseState) {
        if before != after {
            self.joined(after);
            self.left(before);
        }
    }

    pub(super) fn counts(&self) -> MemberCounts {
        MemberCounts {
            awake: self.awake.load(Ordering::Relaxed),
            asleep: self.asleep.load(Ordering::Relaxed),
            suspect: self.suspect.load(Ordering::Relaxed),
        }
    }

    /// One of them was declared GONE because nothing was heard of it.
    pub(super) fn expire(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were declared GONE so, since this relay knows of them.
    pub(super) fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// One that was declared GONE for its silence is heard of again.
    pub(super) fn come_back(&self) {
        self.back.fetch_add(1, Ordering::Relaxed);
    }

    /// How many of those came back while they were remembered.
    pub(super) fn back(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }

    pub(super) fn expect(&self, alive: f64) {
        self.expected.store(alive.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn expected(&self) -> f64 {
        f64::from_bits(self.expected.load(Ordering::Relaxed))
    }
}

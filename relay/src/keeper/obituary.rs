//! Why members were declared GONE, for whoever asks afterwards.

use std::collections::{HashMap, VecDeque};

use crate::liveness::{LeaseKey, LeaseView, Timestamp};

/// Older ones are forgotten beyond this many.
const KEPT: usize = 16_384;

/// A member that was declared GONE for its silence.
#[derive(Clone, Copy, Debug)]
pub struct Obituary {
    /// When.
    pub at: Timestamp,
    /// Its lease as it was then.
    pub lease: LeaseView,
}

#[derive(Debug, Default)]
pub(super) struct Obituaries {
    newest: HashMap<LeaseKey, Obituary>,
    order: VecDeque<(Timestamp, LeaseKey)>,
}

impl Obituaries {
    pub(super) fn note(&mut self, key: LeaseKey, obituary: Obituary) {
        self.newest.insert(key, obituary);
        self.order.push_back((obituary.at, key));
        if self.order.len() > KEPT
            && let Some((at, key)) = self.order.pop_front()
            && self.newest.get(&key).is_some_and(|it| it.at == at)
        {
            self.newest.remove(&key);
        }
    }

    pub(super) fn get(&self, key: LeaseKey) -> Option<Obituary> {
        self.newest.get(&key).copied()
    }
}

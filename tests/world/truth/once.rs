//! Idempotency ids, by the rule of the records: the oldest go when there are too many or when they are too old.

use std::collections::{HashMap, VecDeque};

use super::limits::Limits;

/// What an id led to: the revision where it took effect, or nothing.
pub(super) type Outcome = Option<u64>;

/// The ids of one namespace, each with what it is used for.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    known: HashMap<String, Outcome>,
    order: VecDeque<(String, u64)>,
}

impl Ids {
    pub(super) fn get(&self, id: &str) -> Option<Outcome> {
        self.known.get(id).copied()
    }

    /// Uses an id; whether it was new.
    pub(super) fn take(&mut self, id: String, outcome: Outcome, log_time_ms: u64, limits: &Limits) -> bool {
        if self.known.contains_key(&id) {
            return false;
        }
        self.known.insert(id.clone(), outcome);
        self.order.push_back((id, log_time_ms));
        self.forget(log_time_ms, limits);
        true
    }

    pub(super) fn forget(&mut self, log_time_ms: u64, limits: &Limits) {
        let most = limits.most(|it| it.once_max);
        // A history is much shorter than the hour that holds where no policy says anything.
        let oldest = limits.most(|it| it.once_ms);
        while let Some((id, at)) = self.order.front() {
            if log_time_ms - at <= oldest && self.known.len() as u64 <= most {
                break;
            }
            self.known.remove(id);
            self.order.pop_front();
        }
    }
}

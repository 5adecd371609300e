//! Limits as the policy records set them: a namespace's own go before those of all.

use dormouse_proto::{ids::Namespace, record::Policy};

/// What is in force in one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    all: Policy,
    own: Policy,
}

impl Limits {
    /// Takes note of a policy record.
    pub(super) fn note(&mut self, of: &Namespace, policy: &Policy) {
        match &policy.namespace {
            None => merge(&mut self.all, policy),
            Some(name) if name == of => merge(&mut self.own, policy),
            Some(_) => {}
        }
    }

    /// A limit; `None`: so large that no history meets it.
    pub(super) fn get(&self, of: impl Fn(&Policy) -> Option<u64>) -> Option<u64> {
        of(&self.own).or_else(|| of(&self.all))
    }

    /// A limit, the largest of all if none was set.
    pub(super) fn most(&self, of: impl Fn(&Policy) -> Option<u64>) -> u64 {
        self.get(of).unwrap_or(u64::MAX)
    }
}

/// Of the limits those that some history sets.
fn merge(policy: &mut Policy, newer: &Policy) {
    let set = |limit: &mut Option<u64>, to: Option<u64>| *limit = to.or(*limit);
    set(&mut policy.once_max, newer.once_max);
    set(&mut policy.once_ms, newer.once_ms);
    set(&mut policy.rows_max, newer.rows_max);
    set(&mut policy.bytes_max, newer.bytes_max);
    set(&mut policy.stamp_skew_ms, newer.stamp_skew_ms);
    set(&mut policy.events_max, newer.events_max);
    set(&mut policy.events_age_ms, newer.events_age_ms);
    set(&mut policy.inbox_max, newer.inbox_max);
}

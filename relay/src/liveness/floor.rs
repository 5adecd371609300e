//! Floors: how many must be alive for each value of a tag, and the two events of a count that crosses that number.
//!
//! A count crosses only once it has been on the other side for a whole settling time, measured while nothing held
//! expiry: a node that is re-admitted is missing for a moment, and a relay that has just started, or that stood still,
//! has not heard yet of those who live.
//!
//! Invariants: of one value no two events in a row say the same, and the first one says that it is below; while expiry
//! is held there is no event; at most [`FloorRule::VALUES`] values are kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Millis, Timestamp, guard::HoldReason};

/// What a floor asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloorRule {
    /// How the floor is called.
    pub name: Arc<str>,
    /// The values that are looked at, whether somebody carries them or not; none: each that was ever counted.
    pub values: BTreeSet<String>,
    /// Fewer live members than this are too few.
    pub minimum: u64,
    /// How long a count must have been too low, or high enough again, before that is an event.
    pub settle: Millis,
}

impl FloorRule {
    /// Values that one floor may have.
    pub const VALUES: usize = 1_000;
}

/// A count fell below its minimum, or is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloorEvent {
    /// Which floor.
    pub floor: Arc<str>,
    /// Which value of the tag that it counts by.
    pub value: Arc<str>,
    /// Members that are alive, at the moment of the event.
    pub live: u64,
    /// How many there should be.
    pub minimum: u64,
    /// Whether there are too few.
    pub below: bool,
}

/// What is known of one value.
#[derive(Debug, Default)]
struct Standing {
    live: u64,
    /// What the last event said. Before the first one nothing is wrong.
    below: bool,
    /// Whether there was an event.
    told: bool,
    /// When the count was first seen on the other side of what the last event said.
    crossed: Option<Timestamp>,
}

/// One floor and the counts that it has seen.
#[derive(Debug)]
pub struct Floor {
    rule: FloorRule,
    standings: BTreeMap<Arc<str>, Standing>,
    passed_over: u64,
}

impl Floor {
    /// A floor that has seen nothing yet.
    pub fn new(rule: FloorRule) -> Self {
        let listed = rule.values.iter().map(|value| (value.as_str().into(), Standing::default()));
        Self { standings: listed.collect(), rule, passed_over: 0 }
    }

    /// What it asks for.
    pub fn rule(&self) -> &FloorRule {
        &self.rule
    }

    /// Looks at how many are alive now for each value; a value that is not among them has nobody. Answers the events that
    /// this makes due, by value.
    pub fn observe(
        &mut self,
        now: Timestamp,
        hold: Option<HoldReason>,
        counts: &BTreeMap<String, u64>,
    ) -> Vec<FloorEvent> {
        self.get_to_know(counts);
        let mut events = Vec::new();
        for (value, standing) in &mut self.standings {
            standing.live = counts.get(value.as_ref()).copied().unwrap_or(0);
            let below = standing.live < self.rule.minimum;
            if below == standing.below || hold.is_some() {
                standing.crossed = None;
                continue;
            }
            let crossed = *standing.crossed.get_or_insert(now);
            if now.since(crossed) >= self.rule.settle {
                *standing = Standing { live: standing.live, below, told: true, crossed: None };
                events.push(event(&self.rule, value, standing));
            }
        }
        events
    }

    fn get_to_know(&mut self, counts: &BTreeMap<String, u64>) {
        if !self.rule.values.is_empty() {
            return;
        }
        self.passed_over = 0;
        for value in counts.keys() {
            if self.standings.contains_key(value.as_str()) {
                continue;
            }
            if self.standings.len() < FloorRule::VALUES {
                self.standings.insert(value.as_str().into(), Standing::default());
            } else {
                self.passed_over += 1;
            }
        }
    }

    /// The values of which the last event said that too few are alive, with the counts of now.
    pub fn below(&self) -> impl Iterator<Item = FloorEvent> {
        self.told().filter(|event| event.below)
    }

    /// What the last event of each value said, with the counts of now: what is needed by somebody who missed some.
    pub fn told(&self) -> impl Iterator<Item = FloorEvent> {
        let told = self.standings.iter().filter(|(_, standing)| standing.told);
        told.map(|(value, standing)| event(&self.rule, value, standing))
    }

    /// How many are alive for each value.
    pub fn live(&self) -> impl Iterator<Item = (&str, u64)> {
        self.standings.iter().map(|(value, standing)| (value.as_ref(), standing.live))
    }

    /// Values of the newest counts that are not looked at, because there are as many as there may be.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }
}

fn event(rule: &FloorRule, value: &Arc<str>, standing: &Standing) -> FloorEvent {
    FloorEvent {
        floor: Arc::clone(&rule.name),
        value: Arc::clone(value),
        live: standing.live,
        minimum: rule.minimum,
        below: standing.below,
    }
}

#[cfg(test)]
mod tests;

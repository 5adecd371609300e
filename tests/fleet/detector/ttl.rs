//! Leases of one length for everybody: a fixed one, as a user of etcd chooses it, and Nomad's, which grows with the
//! number of nodes.

use fastrand::Rng;

use super::{Detector, Opinion, Verdict, deadlines::Deadlines};
use crate::fleet::workload::whole_ms;

/// One time-to-live for everybody, renewed by every call.
#[derive(Debug)]
pub struct FixedTtl {
    ttl_ms: u64,
    deadlines: Deadlines,
}

impl FixedTtl {
    /// Whoever is silent for that long is dead.
    pub fn new(ttl_ms: u64) -> Self {
        Self { ttl_ms, deadlines: Deadlines::default() }
    }
}

impl Detector for FixedTtl {
    fn joined(&mut self, now_ms: u64, node: u32, _group: u32) {
        self.beat(now_ms, node);
    }

    fn woke(&mut self, now_ms: u64, node: u32) {
        self.beat(now_ms, node);
    }

    fn beat(&mut self, now_ms: u64, node: u32) {
        self.deadlines.set(node, now_ms + self.ttl_ms);
    }

    fn slept(&mut self, now_ms: u64, node: u32) {
        self.beat(now_ms, node);
    }

    fn left(&mut self, _now_ms: u64, node: u32) {
        self.deadlines.clear(node);
    }

    fn judge(&mut self, now_ms: u64, verdicts: &mut Vec<Verdict>) {
        while let Some(node) = self.deadlines.pop(now_ms) {
            verdicts.push(Verdict { node, opinion: Opinion::Gone });
        }
    }
}

/// `min_heartbeat_ttl`.
const MIN_TTL_MS: u64 = 10_000;
/// `max_heartbeats_per_second`: the ttl is what keeps all nodes together below it.
const BEATS_PER_SECOND: u64 = 50;
/// `heartbeat_grace`.
const GRACE_MS: u64 = 10_000;

/// Nomad's documented formula: a ttl of `max(10 s, N / 50 s)`, up to as much again at random, and a grace of 10 s.
///
/// Here every call renews it, more often than Nomad's client does. Its clients are servers that are never frozen.
#[derive(Debug)]
pub struct ScaledTtl {
    rng: Rng,
    factor: f64,
    alive: Vec<bool>,
    count: u64,
    deadlines: Deadlines,
}

impl ScaledTtl {
    /// Nobody yet. The stagger follows from the seed.
    pub fn new(seed: u64) -> Self {
        Self::scaled(seed, 1.0)
    }

    /// As [`Self::new`], with a ttl that many times as long.
    pub fn scaled(seed: u64, factor: f64) -> Self {
        let rng = Rng::with_seed(seed);
        Self { rng, factor, alive: Vec::new(), count: 0, deadlines: Deadlines::default() }
    }

    fn set_alive(&mut self, node: u32, alive: bool) {
        let index = node as usize;
        if index >= self.alive.len() {
            self.alive.resize(index + 1, false);
        }
        let before = std::mem::replace(&mut self.alive[index], alive);
        self.count = self.count + u64::from(alive) - u64::from(before);
    }
}

impl Detector for ScaledTtl {
    fn joined(&mut self, now_ms: u64, node: u32, _group: u32) {
        self.beat(now_ms, node);
    }

    fn woke(&mut self, now_ms: u64, node: u32) {
        self.beat(now_ms, node);
    }

    fn beat(&mut self, now_ms: u64, node: u32) {
        self.set_alive(node, true);
        let ttl_ms = MIN_TTL_MS.max(self.count * 1_000 / BEATS_PER_SECOND);
        let ttl_ms = whole_ms(self.factor * ttl_ms as f64).max(1);
        let stagger_ms = self.rng.u64(0..ttl_ms);
        self.deadlines.set(node, now_ms + ttl_ms + stagger_ms + GRACE_MS);
    }

    fn slept(&mut self, now_ms: u64, node: u32) {
        self.beat(now_ms, node);
    }

    fn left(&mut self, _now_ms: u64, node: u32) {
        self.set_alive(node, false);
        self.deadlines.clear(node);
    }

    fn judge(&mut self, now_ms: u64, verdicts: &mut Vec<Verdict>) {
        while let Some(node) = self.deadlines.pop(now_ms) {
            self.set_alive(node, false);
            verdicts.push(Verdict { node, opinion: Opinion::Gone });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the first of so many nodes that all spoke at 0 is dead, and when the last, in milliseconds.
    fn first_and_last(nodes: u32) -> Option<(u64, u64)> {
        let (mut detector, mut verdicts, mut times) = (ScaledTtl::new(1), Vec::new(), Vec::new());
        (0..nodes).for_each(|node| detector.joined(0, node, 0));
        // Each knows only those that joined before it, so it is said again.
        (0..nodes).for_each(|node| detector.beat(0, node));
        for now_ms in (0..1_000_000).step_by(100) {
            detector.judge(now_ms, &mut verdicts);
            times.resize(verdicts.len(), now_ms);
        }
        Some((*times.first()?, *times.last()?))
    }

    #[test]
    fn the_ttl_of_a_large_fleet_grows_with_its_size() {
        let (first, last) = first_and_last(1_024).expect("all are silent");
        assert!((30_400..=31_500).contains(&first) && (50_000..=51_000).contains(&last), "{first} {last}");
        let (first, last) = first_and_last(10_000).expect("all are silent");
        assert!(
            (210_000..=211_000).contains(&first) && (409_000..=410_000).contains(&last),
            "{first} {last}"
        );
    }
}

//! The accrual detector of chitchat 0.13, told again from its documentation: the crate does not export its class.
//!
//! Its phi is the time since the last heartbeat over the mean interval, with a prior of 5 s that weighs as much as five
//! intervals; intervals above 10 s are dropped, and a node that is taken for dead loses all of its intervals. A node
//! with no interval yet is not taken for alive.

use std::collections::VecDeque;

use super::{Detector, Opinion, Verdict, deadlines::Deadlines};
use crate::fleet::workload::whole_ms;

/// `sampling_window_size`.
const WINDOW: usize = 1_000;
/// `max_interval`.
const LONGEST_MS: u64 = 10_000;
/// `initial_interval`.
const PRIOR_MS: f64 = 5_000.0;
const PRIOR_WEIGHT: f64 = 5.0;

#[derive(Clone, Debug, Default)]
struct Node {
    last_ms: Option<u64>,
    intervals: VecDeque<u64>,
    sum_ms: u64,
}

impl Node {
    fn hear(&mut self, now_ms: u64) {
        let interval = self.last_ms.map(|last| now_ms - last).filter(|interval| *interval <= LONGEST_MS);
        self.last_ms = Some(now_ms);
        let Some(interval) = interval else {
            return;
        };
        if self.intervals.len() == WINDOW {
            self.sum_ms -= self.intervals.pop_front().unwrap_or_default();
        }
        self.intervals.push_back(interval);
        self.sum_ms += interval;
    }

    /// `None`: it was not heard twice since it was last taken for dead.
    fn mean_ms(&self) -> Option<f64> {
        let count = self.intervals.len() as f64;
        let sum = self.sum_ms as f64 + PRIOR_WEIGHT * PRIOR_MS;
        (count > 0.0).then(|| sum / (count + PRIOR_WEIGHT))
    }
}

/// Dead is whose phi is above a threshold.
#[derive(Debug)]
pub struct Phi {
    threshold: f64,
    nodes: Vec<Node>,
    deadlines: Deadlines,
}

impl Phi {
    /// Nobody yet. The documented threshold is 8.
    pub fn new(threshold: f64) -> Self {
        Self { threshold, nodes: Vec::new(), deadlines: Deadlines::default() }
    }
}

impl Detector for Phi {
    fn joined(&mut self, now_ms: u64, node: u32, _group: u32) {
        self.beat(now_ms, node);
    }

    fn woke(&mut self, now_ms: u64, node: u32) {
        self.beat(now_ms, node);
    }

    fn beat(&mut self, now_ms: u64, node: u32) {
        let index = node as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Node::default());
        }
        self.nodes[index].hear(now_ms);
        // Phi only grows in silence, so when it will pass the threshold is known.
        match self.nodes[index].mean_ms() {
            Some(mean_ms) => self.deadlines.set(node, now_ms + whole_ms(self.threshold * mean_ms)),
            None => self.deadlines.clear(node),
        }
    }

    fn slept(&mut self, now_ms: u64, node: u32) {
        self.beat(now_ms, node);
    }

    fn left(&mut self, _now_ms: u64, node: u32) {
        self.deadlines.clear(node);
        self.nodes[node as usize] = Node::default();
    }

    fn judge(&mut self, now_ms: u64, verdicts: &mut Vec<Verdict>) {
        while let Some(node) = self.deadlines.pop(now_ms) {
            let silent = &mut self.nodes[node as usize];
            silent.intervals.clear();
            silent.sum_ms = 0;
            verdicts.push(Verdict { node, opinion: Opinion::Gone });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after the last of so many beats, one each second, the node is dead, in seconds.
    fn dead_after(beats: u64) -> Option<f64> {
        let (mut detector, mut verdicts) = (Phi::new(8.0), Vec::new());
        (0..=beats).for_each(|beat| detector.beat(beat * 1_000, 0));
        let last_ms = beats * 1_000;
        let mut times = (last_ms..last_ms + 100_000).step_by(100);
        let dead = times.find(|now_ms| {
            detector.judge(*now_ms, &mut verdicts);
            !verdicts.is_empty()
        });
        dead.map(|now_ms| (now_ms - last_ms) as f64 / 1e3)
    }

    #[test]
    fn a_node_is_dead_when_the_documented_mean_says_so() {
        assert_eq!(dead_after(0), None, "one beat makes nobody alive, and nobody dead");
        assert_eq!(dead_after(1), Some(34.7));
        assert_eq!(dead_after(3), Some(28.0));
        assert_eq!(dead_after(10), Some(18.7));
        assert_eq!(dead_after(50), Some(11.0));
        assert_eq!(dead_after(1_000), Some(8.2));
    }

    #[test]
    fn a_long_pause_is_never_learned() {
        let mut detector = Phi::new(8.0);
        for round in 0..1_000 {
            detector.beat(round * 20_000, 0);
            detector.beat(round * 20_000 + 100, 0);
        }
        let mean_ms = detector.nodes[0].mean_ms().expect("heard often");
        assert!(mean_ms < 200.0, "{mean_ms}");
    }
}

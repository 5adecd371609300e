//! The single time-to-live that takes as many living nodes for dead as another detector does.
//!
//! A fixed ttl takes a node for dead in exactly the freezes that are longer, so its false deaths follow from the gaps
//! of the fleet, and the ttl is found by bisection over them without a trial for each guess.

use super::{
    trial::Window,
    workload::{Happening, What, Workload},
};

/// What is held equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equal {
    /// False deaths per freeze of the whole fleet. Fast groups freeze far more often, and decide.
    PerFreeze,
    /// The mean over the groups of false deaths per freeze. Slow groups count as much as fast ones.
    MeanOfGroups,
}

/// All gaps of one group.
#[derive(Clone, Debug, Default)]
struct GroupGaps {
    /// Of the freezes that ended in a thaw, the shortest first, in milliseconds.
    sorted_ms: Vec<u64>,
    /// Freezes that began, with or without a return.
    freezes: u64,
}

impl GroupGaps {
    fn false_deaths(&self, ttl_ms: u64) -> u64 {
        (self.sorted_ms.len() - self.sorted_ms.partition_point(|gap| *gap <= ttl_ms)) as u64
    }
}

/// The gaps of a fleet, by group.
#[derive(Clone, Debug)]
pub struct FleetGaps(Vec<GroupGaps>);

impl FleetGaps {
    /// Of the freezes that begin in the window, whenever they end.
    pub fn of(workload: &Workload, seed: u64, window: Window) -> Self {
        let mut groups = vec![GroupGaps::default(); workload.gaps.len()];
        let mut group_of: Vec<usize> = Vec::new();
        let fleet = workload.fleet(seed).take_while(|happening| happening.at_ms < window.to_ms);
        for Happening { at_ms, node, what } in fleet {
            let index = node as usize;
            match what {
                What::Joined { group } => {
                    group_of.resize(group_of.len().max(index + 1), 0);
                    group_of[index] = group as usize;
                }
                What::Slept { thaws_after_ms } if window.has(at_ms) => {
                    let group = &mut groups[group_of[index]];
                    group.freezes += 1;
                    group.sorted_ms.extend(thaws_after_ms);
                }
                What::Slept { .. } | What::Woke | What::Beat | What::Left | What::Died => {}
            }
        }
        for group in &mut groups {
            group.sorted_ms.sort_unstable();
        }
        Self(groups)
    }

    /// What share of living nodes a ttl takes for dead.
    pub fn false_death_rate(&self, ttl_ms: u64, equal: Equal) -> f64 {
        let of = |group: &GroupGaps| (group.false_deaths(ttl_ms) as f64, group.freezes.max(1) as f64);
        match equal {
            Equal::PerFreeze => {
                let sum = self.0.iter().map(of).fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
                sum.0 / sum.1.max(1.0)
            }
            Equal::MeanOfGroups => {
                self.0.iter().map(of).map(|(deaths, freezes)| deaths / freezes).sum::<f64>()
                    / self.0.len().max(1) as f64
            }
        }
    }

    /// The shortest ttl, in milliseconds, that takes no larger a share of living nodes for dead.
    pub fn best_ttl_ms(&self, rate: f64, equal: Equal) -> u64 {
        let longest = self.0.iter().filter_map(|group| group.sorted_ms.last()).max();
        // What lies below is too short, what lies at or above `long` is long enough.
        let (mut short, mut long) = (0, longest.copied().unwrap_or(0));
        while short < long {
            let middle = short.midpoint(long);
            if self.false_death_rate(middle, equal) > rate {
                short = middle + 1;
            } else {
                long = middle;
            }
        }
        long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_ttl_is_the_shortest_that_is_as_patient() {
        let gaps = FleetGaps::of(&Workload::mix(200), 1, Window::minutes(10, 60));
        for equal in [Equal::PerFreeze, Equal::MeanOfGroups] {
            for rate in [0.2, 0.02, 0.0] {
                let ttl = gaps.best_ttl_ms(rate, equal);
                assert!(gaps.false_death_rate(ttl, equal) <= rate);
                assert!(gaps.false_death_rate(ttl - 1, equal) > rate, "{ttl}");
            }
        }
    }
}

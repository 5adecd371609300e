//! Fleets, each a stream of what happens to its nodes, ordered by time. A stream follows from its seed alone, so every
//! detector meets the same one. Driven by events: a frozen node costs nothing until it wakes.

use std::{cmp::Reverse, collections::BinaryHeap};

use fastrand::Rng;

/// 99 % of a standard normal distribution lie below it.
const NORMAL_Q99: f64 = 2.326_347_874;
/// How far apart the first calls of a fleet lie.
const JOINS_WITHIN_MS: u64 = 60_000;
/// An awake node says so once a second.
const BEAT_MS: u64 = 1_000;

/// How long nodes of one group are frozen between two invocations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gaps {
    /// Most are short, some are very long.
    LogNormal {
        /// Half of them are shorter, in milliseconds.
        median_ms: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Each order of magnitude is as likely as any other.
    LogUniform {
        /// In milliseconds.
        shortest_ms: f64,
        /// In milliseconds.
        longest_ms: f64,
    },
}

impl Gaps {
    /// Draws one, in milliseconds; at least one millisecond.
    pub fn draw(self, rng: &mut Rng) -> u64 {
        let ms = match self {
            Self::LogNormal { median_ms, sigma } => median_ms * (sigma * standard_normal(rng)).exp(),
            Self::LogUniform { shortest_ms, longest_ms } => {
                shortest_ms * (longest_ms / shortest_ms).powf(rng.f64())
            }
        };
        whole_ms(ms).max(1)
    }
}

/// The part behind the point is dropped; below zero is zero.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such casts of floats saturate")]
pub(super) fn whole_ms(ms: f64) -> u64 {
    ms as u64
}

fn standard_normal(rng: &mut Rng) -> f64 {
    // One minus: the logarithm of zero is infinite, and 1 is never drawn.
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// A fleet of nodes that are called, frozen and called again.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The name of the workload on the command line.
    pub name: &'static str,
    /// How many nodes are alive at any moment; of as equal groups as divide.
    pub nodes: u32,
    /// One for each group.
    pub gaps: Vec<Gaps>,
    /// The share of freezes that end in a silent death. A new node takes the place of each dead one at once.
    pub death_per_freeze: f64,
    /// After so many freezes a node leaves and says so; never, if it is not given.
    pub freezes_per_node: Option<u32>,
}

impl Workload {
    /// Wake gaps with a median of 30 s, one in a hundred above 10 min; 0.2 % of freezes end in a silent death.
    pub fn w(nodes: u32) -> Self {
        let gaps = vec![Gaps::LogNormal { median_ms: 30_000.0, sigma: Self::sigma() }];
        Self { name: "w", nodes, gaps, death_per_freeze: 0.002, freezes_per_node: None }
    }

    /// As [`Self::w`], but 2 % of freezes end in a silent death.
    pub fn harsh(nodes: u32) -> Self {
        Self { name: "w-harsh", death_per_freeze: 0.02, ..Self::w(nodes) }
    }

    /// As [`Self::w`], but in ten groups whose median gaps lie between 1 s and 600 s, at equal ratios.
    pub fn mix(nodes: u32) -> Self {
        let median_ms = |group: u32| 1_000.0 * 600.0_f64.powf(f64::from(group) / 9.0);
        let gaps = |group| Gaps::LogNormal { median_ms: median_ms(group), sigma: Self::sigma() };
        Self { name: "w-mix", gaps: (0..10).map(gaps).collect(), ..Self::w(nodes) }
    }

    /// Nobody dies, and each node has so many freezes of 1 s to 15 min, which all end in a thaw.
    pub fn sleep(nodes: u32, freezes_per_node: u32) -> Self {
        let gaps = vec![Gaps::LogUniform { shortest_ms: 1_000.0, longest_ms: 900_000.0 }];
        let freezes_per_node = Some(freezes_per_node);
        Self { name: "sleep", nodes, gaps, death_per_freeze: 0.0, freezes_per_node }
    }

    /// Of the logarithm of wake gaps whose one in a hundred is twenty times the median.
    fn sigma() -> f64 {
        20.0_f64.ln() / NORMAL_Q99
    }

    /// What happens to that fleet.
    pub fn fleet(&self, seed: u64) -> Sleepers {
        Sleepers::new(self.clone(), seed)
    }
}

/// What happened to a node. Of all but the last two its detector is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A new node's first invocation begins.
    Joined {
        /// Its group.
        group: u32,
    },
    /// An invocation begins.
    Woke,
    /// The node is inside an invocation and says so.
    Beat,
    /// An invocation ends; the node says so and is frozen.
    Slept {
        /// How long it will be frozen; `None`: it never wakes. Nobody is told.
        thaws_after_ms: Option<u64>,
    },
    /// The node says that it ends.
    Left,
    /// The node ends inside an invocation and says nothing.
    Died,
}

/// What happened to which node, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happening {
    /// In virtual milliseconds since the fleet began.
    pub at_ms: u64,
    /// Numbered in the order in which they join.
    pub node: u32,
    /// What.
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Join,
    Wake,
    Sleep,
    Beat,
    Die,
}

type Agenda = BinaryHeap<Reverse<(u64, u32, Next)>>;

#[derive(Clone, Copy, Debug)]
struct Sleeper {
    group: u32,
    freezes: u32,
}

/// The stream of a [`Workload`]. Without a limit of freezes it never ends.
#[derive(Debug)]
pub struct Sleepers {
    workload: Workload,
    rng: Rng,
    agenda: Agenda,
    nodes: Vec<Sleeper>,
}

impl Sleepers {
    fn new(workload: Workload, seed: u64) -> Self {
        let mut fleet =
            Self { rng: Rng::with_seed(seed), agenda: Agenda::new(), nodes: Vec::new(), workload };
        let groups = u32::try_from(fleet.workload.gaps.len()).unwrap_or(u32::MAX);
        for node in 0..fleet.workload.nodes {
            let at = fleet.rng.u64(0..JOINS_WITHIN_MS);
            fleet.join_at(at, node % groups);
        }
        fleet
    }

    fn join_at(&mut self, at_ms: u64, group: u32) {
        let node = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Sleeper { group, freezes: 0 });
        self.agenda.push(Reverse((at_ms, node, Next::Join)));
    }

    fn invocation(&mut self, at_ms: u64, node: u32) {
        let ends = at_ms + self.rng.u64(50..=500);
        self.agenda.push(Reverse((ends, node, Next::Sleep)));
    }

    /// An invocation is over.
    fn end_invocation(&mut self, at_ms: u64, node: u32) -> What {
        let Sleeper { group, freezes } = self.nodes[node as usize];
        if self.workload.freezes_per_node == Some(freezes) {
            return What::Left;
        }
        self.nodes[node as usize].freezes += 1;
        if self.rng.f64() < self.workload.death_per_freeze {
            self.join_at(at_ms, group);
            return What::Slept { thaws_after_ms: None };
        }
        let gap = self.workload.gaps[group as usize].draw(&mut self.rng);
        self.agenda.push(Reverse((at_ms + gap, node, Next::Wake)));
        What::Slept { thaws_after_ms: Some(gap) }
    }
}

impl Iterator for Sleepers {
    type Item = Happening;

    fn next(&mut self) -> Option<Happening> {
        let Reverse((at_ms, node, next)) = self.agenda.pop()?;
        let what = match next {
            Next::Sleep => self.end_invocation(at_ms, node),
            Next::Join => {
                self.invocation(at_ms, node);
                What::Joined { group: self.nodes[node as usize].group }
            }
            Next::Wake | Next::Beat | Next::Die => {
                self.invocation(at_ms, node);
                What::Woke
            }
        };
        Some(Happening { at_ms, node, what })
    }
}

/// Nodes inside long invocations. Each says so once a second, until some die without a word.
#[derive(Debug)]
pub struct LongInvocations {
    agenda: Agenda,
    dead: Vec<bool>,
}

impl LongInvocations {
    /// All join within the first second. At most half of the nodes, and at most 1,000 of them, die within
    /// `deaths_ms`.
    pub fn new(nodes: u32, deaths_ms: std::ops::Range<u64>, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut agenda = Agenda::new();
        for node in 0..nodes {
            agenda.push(Reverse((rng.u64(0..BEAT_MS), node, Next::Join)));
        }
        // Any of them: when a node joined is drawn at random, and does not depend on its number.
        for node in 0..(nodes / 2).min(1_000) {
            agenda.push(Reverse((rng.u64(deaths_ms.clone()), node, Next::Die)));
        }
        Self { agenda, dead: vec![false; nodes as usize] }
    }
}

impl Iterator for LongInvocations {
    type Item = Happening;

    fn next(&mut self) -> Option<Happening> {
        loop {
            let Reverse((at_ms, node, next)) = self.agenda.pop()?;
            if self.dead[node as usize] {
                continue;
            }
            let what = match next {
                Next::Die => What::Died,
                Next::Join => What::Joined { group: 0 },
                Next::Beat | Next::Wake | Next::Sleep => What::Beat,
            };
            match what {
                What::Died => self.dead[node as usize] = true,
                _ => self.agenda.push(Reverse((at_ms + BEAT_MS, node, Next::Beat))),
            }
            return Some(Happening { at_ms, node, what });
        }
    }
}

//! One detector and one fleet, and the truth beside them.

use super::{
    detector::{Detector, Opinion, Verdict},
    workload::{Happening, What},
};

/// How often a detector is asked who is dead.
const JUDGED_EVERY_MS: u64 = 100;
/// How often its estimate of the living is compared with the truth.
const COUNTED_EVERY_MS: u64 = 60_000;

/// When is counted. What happens before warms the detector up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first millisecond that counts.
    pub from_ms: u64,
    /// The trial ends here, if the fleet does not end before.
    pub to_ms: u64,
}

impl Window {
    /// So many minutes of warm-up, so many minutes that count.
    pub const fn minutes(warm_up: u64, counted: u64) -> Self {
        Self { from_ms: warm_up * 60_000, to_ms: (warm_up + counted) * 60_000 }
    }

    /// Whether that moment counts.
    pub fn has(self, at_ms: u64) -> bool {
        (self.from_ms..self.to_ms).contains(&at_ms)
    }
}

/// What is counted of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Freezes that began, with or without a return.
    pub freezes: u64,
    /// Living nodes that were taken for dead, frozen or not.
    pub false_deaths: u64,
}

/// What came of a trial. All of it is of the window alone.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By group.
    pub groups: Vec<Tally>,
    /// Dead nodes not yet taken for dead, times milliseconds.
    pub ghost_ms: u128,
    /// Living nodes, times milliseconds.
    pub living_ms: u128,
    /// Of each node that died awake, from its death until it was suspected or taken for dead.
    pub suspected_after_ms: Vec<u64>,
    /// Of each node that died awake, from its death until it was taken for dead.
    pub gone_after_ms: Vec<u64>,
    /// How many nodes died awake.
    pub died_awake: u64,
    /// Relative errors of the estimate of the living, one each minute; none if there is no estimate.
    pub errors: Vec<f64>,
    /// The same, held against the living without those that were taken for dead by mistake and are still frozen.
    pub errors_of_members: Vec<f64>,
    /// What members were given as their likelihood to live, by tenths, and what became true of it.
    pub tenths: [Tenth; 10],
}

/// Members whose likelihood to live was said to be within one tenth, looked at each minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tenth {
    /// How many.
    pub members: u64,
    /// The sum of what was said.
    pub said: f64,
    /// How many of them did live.
    pub lived: u64,
}

impl Outcome {
    /// Over all groups.
    pub fn total(&self) -> Tally {
        self.groups.iter().fold(Tally::default(), |sum, group| Tally {
            freezes: sum.freezes + group.freezes,
            false_deaths: sum.false_deaths + group.false_deaths,
        })
    }

    /// False deaths per freeze, over all groups.
    pub fn false_deaths_per_freeze(&self) -> f64 {
        rate(self.total())
    }

    /// The mean over the groups of false deaths per freeze: a slow group weighs as much as a fast one.
    pub fn mean_of_groups(&self) -> f64 {
        self.groups.iter().copied().map(rate).sum::<f64>() / self.groups.len().max(1) as f64
    }

    /// Dead nodes not yet taken for dead, per living node.
    pub fn ghost_ratio(&self) -> f64 {
        self.ghost_ms as f64 / (self.living_ms as f64).max(1.0)
    }

    /// How far what was said of a member is from what is true of those of whom about the same is said, on average
    /// over all members.
    pub fn calibration_error(&self) -> f64 {
        let members: u64 = self.tenths.iter().map(|tenth| tenth.members).sum();
        let off = self.tenths.iter().map(|tenth| (tenth.said - tenth.lived as f64).abs()).sum::<f64>();
        off / members.max(1) as f64
    }
}

/// The mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn rate(tally: Tally) -> f64 {
    tally.false_deaths as f64 / tally.freezes.max(1) as f64
}

#[derive(Clone, Copy, Debug, Default)]
struct Truth {
    group: usize,
    living: bool,
    /// What it is taken for, since its last call.
    suspected: bool,
    gone: bool,
    /// When it died inside an invocation.
    died_awake_ms: Option<u64>,
}

struct Trial<'a> {
    detector: &'a mut dyn Detector,
    window: Window,
    nodes: Vec<Truth>,
    living: u64,
    ghosts: u64,
    /// Up to when living and ghosts are summed up.
    summed_ms: u64,
    verdicts: Vec<Verdict>,
    outcome: Outcome,
}

/// Shows a fleet to a detector, and counts.
pub fn run(fleet: impl Iterator<Item = Happening>, detector: &mut dyn Detector, window: Window) -> Outcome {
    let mut trial = Trial {
        detector,
        window,
        nodes: Vec::new(),
        living: 0,
        ghosts: 0,
        summed_ms: 0,
        verdicts: Vec::new(),
        outcome: Outcome::default(),
    };
    let mut next_ms = 0;
    for happening in fleet.take_while(|happening| happening.at_ms < window.to_ms) {
        while next_ms <= happening.at_ms {
            trial.judge(next_ms);
            next_ms += JUDGED_EVERY_MS;
        }
        trial.happen(happening);
    }
    trial.outcome
}

impl Trial<'_> {
    fn judge(&mut self, now_ms: u64) {
        let mut verdicts = std::mem::take(&mut self.verdicts);
        self.detector.judge(now_ms, &mut verdicts);
        for verdict in verdicts.drain(..) {
            self.take(now_ms, verdict);
        }
        self.verdicts = verdicts;
        if now_ms.is_multiple_of(COUNTED_EVERY_MS) && self.window.has(now_ms) {
            self.compare(now_ms);
        }
    }

    /// Holds what the detector says of the living against the truth.
    fn compare(&mut self, now_ms: u64) {
        let Some(expected) = self.detector.expected_alive() else {
            return;
        };
        let mistaken = self.nodes.iter().filter(|truth| truth.living && truth.gone).count() as u64;
        for (errors, living) in [
            (&mut self.outcome.errors, self.living),
            (&mut self.outcome.errors_of_members, self.living - mistaken),
        ] {
            let living = living.max(1) as f64;
            errors.push((expected - living).abs() / living);
        }
        for (node, truth) in (0..).zip(&self.nodes).filter(|(_, truth)| !truth.gone) {
            if let Some(p_alive) = self.detector.p_alive(now_ms, node) {
                let nth = (1..10).filter(|nth| p_alive >= f64::from(*nth) / 10.0).count();
                let tenth = &mut self.outcome.tenths[nth];
                tenth.members += 1;
                tenth.said += p_alive;
                tenth.lived += u64::from(truth.living);
            }
        }
    }

    fn take(&mut self, now_ms: u64, Verdict { node, opinion }: Verdict) {
        self.sum_up(now_ms);
        let Some(truth) = self.nodes.get_mut(node as usize) else {
            return;
        };
        let outcome = &mut self.outcome;
        let counted_death = truth.died_awake_ms.filter(|died| self.window.has(*died));
        if let (Some(died), false) = (counted_death, truth.suspected) {
            outcome.suspected_after_ms.push(now_ms - died);
        }
        truth.suspected = true;
        if opinion == Opinion::Suspect || truth.gone {
            return;
        }
        truth.gone = true;
        outcome.gone_after_ms.extend(counted_death.map(|died| now_ms - died));
        if truth.living {
            outcome.groups[truth.group].false_deaths += u64::from(self.window.has(now_ms));
        } else {
            self.ghosts -= 1;
        }
    }

    fn happen(&mut self, Happening { at_ms, node, what }: Happening) {
        self.sum_up(at_ms);
        match what {
            What::Joined { group } => {
                self.join(node, group as usize);
                self.detector.joined(at_ms, node, group);
            }
            What::Woke => {
                self.spoke(node);
                self.detector.woke(at_ms, node);
            }
            What::Beat => {
                self.spoke(node);
                self.detector.beat(at_ms, node);
            }
            What::Slept { thaws_after_ms } => {
                let group = self.nodes[node as usize].group;
                self.outcome.groups[group].freezes += u64::from(self.window.has(at_ms));
                self.detector.slept(at_ms, node);
                self.detector.unreachable(at_ms, node);
                if thaws_after_ms.is_none() {
                    self.die(node);
                }
            }
            What::Left => {
                self.living -= 1;
                self.nodes[node as usize].living = false;
                self.detector.left(at_ms, node);
            }
            What::Died => {
                self.detector.unreachable(at_ms, node);
                self.nodes[node as usize].died_awake_ms = Some(at_ms);
                self.outcome.died_awake += u64::from(self.window.has(at_ms));
                self.die(node);
            }
        }
    }

    /// A call shows that the node lives: from now on it can be taken for dead once more.
    fn spoke(&mut self, node: u32) {
        let truth = &mut self.nodes[node as usize];
        (truth.suspected, truth.gone) = (false, false);
    }

    fn join(&mut self, node: u32, group: usize) {
        let (index, groups) = (node as usize, &mut self.outcome.groups);
        groups.resize(groups.len().max(group + 1), Tally::default());
        self.nodes.resize(self.nodes.len().max(index + 1), Truth::default());
        self.nodes[index] = Truth { group, living: true, ..Truth::default() };
        self.living += 1;
    }

    fn die(&mut self, node: u32) {
        let truth = &mut self.nodes[node as usize];
        truth.living = false;
        self.living -= 1;
        // Whoever was taken for dead before it died is no ghost.
        self.ghosts += u64::from(!truth.gone);
    }

    fn sum_up(&mut self, now_ms: u64) {
        let counted_ms = u128::from(now_ms.saturating_sub(self.summed_ms.max(self.window.from_ms)));
        self.outcome.living_ms += counted_ms * u128::from(self.living);
        self.outcome.ghost_ms += counted_ms * u128::from(self.ghosts);
        self.summed_ms = self.summed_ms.max(now_ms);
    }
}

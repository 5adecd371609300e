//! SWIM with suspicion, told again from the paper and from the documented defaults that memberlist and foca's
//! `new_lan` share: a probe each second that is lost when neither the member nor three others answer within it, and
//! `4 * log10(N)` seconds of suspicion.
//!
//! The model is kind to SWIM: functions probe nobody while they are frozen, yet here every member is probed once a
//! second on average, whoever does it; a member that wakes refutes a suspicion at once; everybody learns of a death at
//! once. So whole clusters need not be simulated, and the number of nodes is the one of the other detectors.

use fastrand::Rng;

use super::{Detector, Opinion, Verdict, deadlines::Deadlines};
use crate::fleet::workload::whole_ms;

/// `probe_period`: a member that did not answer by its end is suspected.
const PERIOD_MS: u64 = 1_000;
/// `suspicion_mult`.
const SUSPICION: f64 = 4.0;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Member {
    #[default]
    Reachable,
    /// Answers nobody; the next probe fails.
    Unreachable,
    Suspect,
    Gone,
}

/// Members that ask each other.
#[derive(Debug)]
pub struct Swim {
    rng: Rng,
    members: Vec<Member>,
    count: u64,
    deadlines: Deadlines,
}

impl Swim {
    /// Nobody yet. Whom a probe reaches next follows from the seed.
    pub fn new(seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        Self { rng, members: Vec::new(), count: 0, deadlines: Deadlines::default() }
    }

    /// Who probes whom is drawn anew each period, so the next probe of a member is memoryless.
    fn until_probed_ms(&mut self) -> u64 {
        whole_ms(-(PERIOD_MS as f64) * (1.0 - self.rng.f64()).ln())
    }

    fn suspicion_ms(&self) -> u64 {
        whole_ms(SUSPICION * (self.count as f64).log10().max(1.0) * PERIOD_MS as f64)
    }
}

impl Detector for Swim {
    fn joined(&mut self, now_ms: u64, node: u32, _group: u32) {
        self.woke(now_ms, node);
    }

    fn woke(&mut self, _now_ms: u64, node: u32) {
        let index = node as usize;
        if index >= self.members.len() {
            self.members.resize(index + 1, Member::Gone);
        }
        let before = std::mem::replace(&mut self.members[index], Member::Reachable);
        self.count += u64::from(before == Member::Gone);
        self.deadlines.clear(node);
    }

    fn beat(&mut self, _now_ms: u64, _node: u32) {}

    fn slept(&mut self, _now_ms: u64, _node: u32) {}

    fn left(&mut self, _now_ms: u64, node: u32) {
        self.members[node as usize] = Member::Gone;
        self.count -= 1;
        self.deadlines.clear(node);
    }

    fn unreachable(&mut self, now_ms: u64, node: u32) {
        self.members[node as usize] = Member::Unreachable;
        let suspected_ms = now_ms + self.until_probed_ms() + PERIOD_MS;
        self.deadlines.set(node, suspected_ms);
    }

    fn judge(&mut self, now_ms: u64, verdicts: &mut Vec<Verdict>) {
        while let Some(node) = self.deadlines.pop(now_ms) {
            let suspected = self.members[node as usize] == Member::Suspect;
            let opinion = if suspected { Opinion::Gone } else { Opinion::Suspect };
            if suspected {
                self.members[node as usize] = Member::Gone;
                self.count -= 1;
            } else {
                self.members[node as usize] = Member::Suspect;
                self.deadlines.set(node, now_ms + self.suspicion_ms());
            }
            verdicts.push(Verdict { node, opinion });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_answers_nobody_is_dead_after_the_documented_suspicion() {
        let (mut detector, mut verdicts) = (Swim::new(1), Vec::new());
        (0..10_000).for_each(|node| detector.joined(0, node, 0));
        detector.unreachable(0, 7);
        detector.unreachable(0, 8);
        let mut gone = Vec::new();
        for now_ms in (0..60_000).step_by(100) {
            if now_ms == 10_000 {
                detector.woke(now_ms, 8);
            }
            verdicts.clear();
            detector.judge(now_ms, &mut verdicts);
            let dead = verdicts.iter().filter(|verdict| verdict.opinion == Opinion::Gone);
            gone.extend(dead.map(|verdict| (verdict.node, now_ms)));
        }
        assert!(matches!(gone[..], [(7, 17_000..=30_000)]), "{gone:?}");
    }
}

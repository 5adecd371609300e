//! What the sleeps of a group have taught: how long its members stay away, and how many never come back.
//!
//! Deaths are never seen, only absences. So the curve is a Kaplan-Meier estimate with a plateau: each sleep that ended
//! in a wake counts as an event at its length, each that is still going on only says that it was longer than that, one
//! that nobody waits for any more never ends, and what the curve never falls below is the share that died. Every sleep
//! is weighted by when it began, so events and what they are measured against fade alike.

use std::collections::BTreeMap;

use super::{Millis, Timestamp};

/// Buckets of a histogram.
pub(super) const BUCKETS: usize = 64;
/// Gaps below this are one bucket.
const FIRST_MS: f64 = 500.0;
/// Each bucket ends this much later than the one before, so that the last one begins at six hours.
const RATIO: f64 = 1.187_86;
/// Gaps above this are one bucket too.
pub(super) const LONGEST_GAP: Millis = Millis::from_secs(6 * 3_600);
/// A sleep weighs half as much as one that began this much later.
const HALF_LIFE: Millis = Millis::from_secs(4 * 3_600);
/// The exponent at which all weights are scaled down, far below what overflows.
const RESCALE_AT: f64 = 256.0;
/// Sleeps that go on are counted by the second in which they began.
const SLOT_MS: u64 = 1_000;
/// What is assumed of a group of which nothing is known, in sleeps: a wake at about a minute, one death in a hundred.
const ASSUMED: f64 = 0.5;
const ASSUMED_DEATHS: f64 = 0.01;
const ASSUMED_GAP: Millis = Millis::from_secs(60);

/// The bucket of a gap.
fn bucket(gap: Millis) -> usize {
    if gap.as_f64() < FIRST_MS {
        return 0;
    }
    let nth = Millis::whole((gap.as_f64() / FIRST_MS).log(RATIO)).0 + 1;
    usize::try_from(nth).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// Where a bucket begins, in milliseconds.
fn begins(bucket: usize) -> f64 {
    match i32::try_from(bucket) {
        Ok(0) | Err(_) => 0.0,
        Ok(nth) => FIRST_MS * RATIO.powi(nth - 1),
    }
}

/// Sleeps that go on, by the slot in which they began.
#[derive(Clone, Debug, Default)]
struct Slots(BTreeMap<u64, u32>);

impl Slots {
    fn add(&mut self, began: Timestamp) {
        *self.0.entry(began.0 / SLOT_MS).or_default() += 1;
    }

    fn remove(&mut self, began: Timestamp) {
        let slot = began.0 / SLOT_MS;
        if let Some(count) = self.0.get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&slot);
            }
        }
    }

    /// The middle of each slot, which stands for it, and how many sleeps it has.
    fn each(&self) -> impl Iterator<Item = (Timestamp, f64)> + '_ {
        self.0.iter().map(|(slot, count)| (Timestamp(slot * SLOT_MS + SLOT_MS / 2), f64::from(*count)))
    }
}

/// The sleeps of one group.
#[derive(Clone, Debug)]
pub(super) struct WakeGaps {
    woke: [f64; BUCKETS],
    /// Sleeps of which only a lower bound is known for good.
    broken_off: [f64; BUCKETS],
    /// Absences that nobody waits for any more. They are taken to last for ever: a wake could not be recognised.
    given_up: f64,
    /// Of members.
    going_on: Slots,
    /// Of nodes that were declared GONE for their silence and may still come back.
    missing: Slots,
    /// A sleep that begins here weighs one.
    landmark: Timestamp,
}

impl WakeGaps {
    pub(super) fn new(now: Timestamp) -> Self {
        let nothing = [0.0; BUCKETS];
        Self {
            woke: nothing,
            broken_off: nothing,
            given_up: 0.0,
            going_on: Slots::default(),
            missing: Slots::default(),
            landmark: now,
        }
    }

    fn weight(&self, began: Timestamp) -> f64 {
        let after = began.since(self.landmark).0 as f64 - self.landmark.since(began).0 as f64;
        (after / HALF_LIFE.0 as f64).exp2()
    }

    fn count(&self, began: Timestamp, now: Timestamp) -> (usize, f64) {
        (bucket(now.since(began)), self.weight(began))
    }

    /// A member fell asleep.
    pub(super) fn began(&mut self, at: Timestamp) {
        self.going_on.add(at);
    }

    /// A member woke.
    pub(super) fn woke(&mut self, began: Timestamp, now: Timestamp) {
        self.going_on.remove(began);
        let (nth, weight) = self.count(began, now);
        self.woke[nth] += weight;
    }

    /// A member is no member any more, and how its sleep would have gone on is not known.
    pub(super) fn broke_off(&mut self, began: Timestamp, now: Timestamp) {
        self.going_on.remove(began);
        let (nth, weight) = self.count(began, now);
        self.broken_off[nth] += weight;
    }

    /// A sleep of unknown beginning is over: it counted only for who is expected back.
    pub(super) fn forget(&mut self, began: Timestamp) {
        self.going_on.remove(began);
    }

    /// A member was declared GONE for its silence. Its absence goes on.
    pub(super) fn is_missing(&mut self, began: Timestamp) {
        self.going_on.remove(began);
        self.missing.add(began);
    }

    /// One that was declared GONE has come back.
    pub(super) fn came_back(&mut self, began: Timestamp, now: Timestamp) {
        self.missing.remove(began);
        let (nth, weight) = self.count(began, now);
        self.woke[nth] += weight;
    }

    /// One that was declared GONE could not be recognised any more.
    pub(super) fn gave_up(&mut self, began: Timestamp) {
        self.missing.remove(began);
        self.given_up += self.weight(began);
    }

    /// How many of the members that sleep, or are expected back from a sleep, are alive: the sum of the likelihoods.
    pub(super) fn expected(&self, curve: &Curve, now: Timestamp) -> f64 {
        self.going_on.each().map(|(began, count)| count * curve.p_alive(now.since(began))).sum()
    }

    /// The curve as it is known now.
    pub(super) fn fit(&mut self, now: Timestamp) -> Curve {
        self.rescale(now);
        let mut longer = self.broken_off;
        for (began, count) in self.going_on.each().chain(self.missing.each()) {
            let (nth, weight) = self.count(began, now);
            longer[nth] += count * weight;
        }
        let known: f64 = self.woke.iter().sum();
        let mut woke = self.woke;
        let today = self.weight(now);
        // Spread about the assumed gap, so that the curve falls over some buckets and not at one edge.
        let middle = bucket(ASSUMED_GAP);
        for weight in &mut woke[middle - 4..=middle + 4] {
            *weight += today * ASSUMED * (1.0 - ASSUMED_DEATHS) / 9.0;
        }
        longer[BUCKETS - 1] += self.given_up + today * ASSUMED * ASSUMED_DEATHS;
        Curve::of(&woke, &longer, known / today)
    }

    fn rescale(&mut self, now: Timestamp) {
        if now.since(self.landmark).0 as f64 / HALF_LIFE.0 as f64 <= RESCALE_AT {
            return;
        }
        let faded = self.weight(now).recip();
        let counts = self.woke.iter_mut().chain(&mut self.broken_off).chain([&mut self.given_up]);
        counts.for_each(|weight| *weight *= faded);
        self.landmark = now;
    }
}

/// How a group's members come back from a sleep.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Curve {
    /// The share that is not back yet at the beginning of each bucket, and after the last one.
    away: [f64; BUCKETS + 1],
    /// Wakes that the curve rests on, faded.
    pub(super) wakes: f64,
}

impl Curve {
    /// From wakes by bucket, and from absences of which only a lower bound is known.
    fn of(woke: &[f64; BUCKETS], longer: &[f64; BUCKETS], wakes: f64) -> Self {
        let mut at_risk: f64 = woke.iter().chain(longer).sum();
        let mut away = [1.0; BUCKETS + 1];
        for nth in 0..BUCKETS {
            // Those of which nothing more is known were looked at for half of the bucket, on average.
            let looked_at = at_risk - longer[nth] / 2.0;
            let back = if looked_at > 0.0 { (woke[nth] / looked_at).clamp(0.0, 1.0) } else { 0.0 };
            away[nth + 1] = away[nth] * (1.0 - back);
            at_risk -= woke[nth] + longer[nth];
        }
        Self { away, wakes }
    }

    /// The share that never comes back.
    pub(super) fn deaths(&self) -> f64 {
        self.away[BUCKETS]
    }

    fn away(&self, gap: Millis) -> f64 {
        let nth = bucket(gap);
        let (from, upto) = (begins(nth), begins(nth + 1));
        let part = ((gap.0 as f64 - from) / (upto - from)).clamp(0.0, 1.0);
        self.away[nth] + part * (self.away[nth + 1] - self.away[nth])
    }

    /// How likely a member comes back that has been away for so long.
    pub(super) fn p_alive(&self, away: Millis) -> f64 {
        let still_away = self.away(away);
        if still_away > 0.0 { (1.0 - self.deaths() / still_away).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The gap that this share of those who come back does not exceed.
    pub(super) fn gap(&self, share: f64) -> Millis {
        let wanted = 1.0 - share * (1.0 - self.deaths());
        let nth = (0..BUCKETS).find(|nth| self.away[nth + 1] <= wanted).unwrap_or(BUCKETS - 1);
        let fallen = self.away[nth] - self.away[nth + 1];
        let part = if fallen > 0.0 { ((self.away[nth] - wanted) / fallen).clamp(0.0, 1.0) } else { 1.0 };
        Millis::whole(begins(nth) + part * (begins(nth + 1) - begins(nth)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    const LIVE: u32 = 400;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * SECOND)
    }

    /// A log-normal gap: median 30 s, 99 % below 10 min.
    fn gap(random: &mut fastrand::Rng) -> Millis {
        let (u, v) = (random.f64().max(1e-12), random.f64());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        Millis::whole(30_000.0 * (1.288 * normal).exp())
    }

    /// A group of 400 in which each sleep ends in a death with this likelihood, after eight hours. The dead are
    /// replaced at once and waited for for an hour and a half; so many are members then, the dead among them.
    fn lived(deaths: f64, seed: u64) -> (WakeGaps, Timestamp) {
        let horizon = Millis::from_secs(5_400);
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut gaps, end) = (WakeGaps::new(at(0)), at(8 * 3_600));
        for _ in 0..LIVE {
            let mut now = Timestamp(random.u64(0..60_000));
            loop {
                gaps.began(now);
                if random.f64() < deaths {
                    if now + horizon < end {
                        gaps.is_missing(now);
                        gaps.gave_up(now);
                    }
                    continue;
                }
                let next = now + gap(&mut random);
                if next >= end {
                    break;
                }
                gaps.woke(now, next);
                now = next;
            }
        }
        (gaps, end)
    }

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        for nth in 1..BUCKETS {
            let edge = begins(nth);
            assert_eq!(bucket(Millis::whole(edge.ceil() + 1.0)), nth, "{edge}");
            assert_eq!(bucket(Millis::whole(edge.floor() - 1.0)), nth - 1, "{edge}");
        }
        let last = begins(BUCKETS - 1);
        assert!((21_000_000.0..22_000_000.0).contains(&last), "six hours, not {last}");
    }

    #[test]
    fn the_curve_finds_the_gaps_and_the_deaths_again() {
        for (deaths, seed) in [(0.002, 1), (0.02, 2)] {
            let (mut gaps, end) = lived(deaths, seed);
            let curve = gaps.fit(end);
            assert!((curve.deaths() / deaths - 1.0).abs() < 0.25, "{} of {deaths}", curve.deaths());
            let median = curve.gap(0.5).0 as f64;
            assert!((median / 30_000.0 - 1.0).abs() < 0.1, "{median}");
            let rare = curve.gap(0.99).0 as f64;
            assert!((rare / 600_000.0 - 1.0).abs() < 0.15, "{rare}");
        }
    }

    #[test]
    fn the_sum_of_the_likelihoods_is_how_many_live() {
        for (deaths, seed) in [(0.002, 3), (0.02, 4), (0.02, 5)] {
            let (mut gaps, end) = lived(deaths, seed);
            let curve = gaps.fit(end);
            let expected = gaps.expected(&curve, end);
            assert!((expected / f64::from(LIVE) - 1.0).abs() < 0.03, "{expected} of {LIVE}");
        }
    }

    #[test]
    fn who_is_away_longer_is_less_likely_to_live() {
        let (mut gaps, end) = lived(0.02, 4);
        let curve = gaps.fit(end);
        let likely: Vec<f64> =
            (0..10_000).step_by(100).map(|seconds| curve.p_alive(Millis::from_secs(seconds))).collect();
        assert!(likely.is_sorted_by(|a, b| a >= b), "{likely:?}");
        assert!(likely[0] > 0.97 && likely[99] < 0.05, "{likely:?}");
    }

    #[test]
    fn what_was_long_ago_fades() {
        let mut gaps = WakeGaps::new(at(0));
        for nth in 0..1_000 {
            gaps.began(at(nth));
            gaps.woke(at(nth), at(nth + 500));
        }
        let later = 40 * 3_600;
        for nth in 0..1_000 {
            gaps.began(at(later + nth));
            gaps.woke(at(later + nth), at(later + nth + 5));
        }
        let curve = gaps.fit(at(later + 2_000));
        assert!(curve.gap(0.99) < Millis::from_secs(120), "{}", curve.gap(0.99));
        // So late that all weights had to be scaled down.
        let curve = gaps.fit(at(2_000 * 3_600));
        assert!(curve.wakes < 1e-6 && curve.away.iter().all(|share| share.is_finite()), "{curve:?}");
    }

    #[test]
    fn a_group_of_which_nothing_is_known_is_taken_for_alive() {
        let curve = WakeGaps::new(at(0)).fit(at(0));
        assert!(curve.p_alive(Millis(0)) > 0.98 && curve.p_alive(Millis::from_secs(20)) > 0.95);
        assert!(curve.wakes < f64::EPSILON);
    }
}

//! What is known of the members of one group together: how they sleep, how many live, and what lease that earns.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use dormouse_proto::ids::{Group, NodeId};
use parking_lot::{Mutex, RwLock};

use super::{
    LeaseSettings, Millis, Timestamp,
    tally::Tally,
    wake_gaps::{Curve, LONGEST_GAP, WakeGaps},
};

/// The share of returns that a lease is meant to outlast, before it is stretched.
const SHARE: f64 = 0.995;
/// A lease is this much longer than that, because the longest gaps are those of which least is known.
const MARGIN: f64 = 1.5;
/// Wakes from which on the group's own gaps decide.
const WAKES: f64 = 30.0;
/// Up to a tenth more or less, so that what fell asleep together does not lapse together.
const JITTER: f64 = 0.1;
/// How long a node that was declared GONE is waited for: as long as its tombstone lives, unless that was set otherwise.
const MISSING: Millis = Millis::from_secs(3_600);
/// Absences that are waited for, per group.
const MISSING_MAX: usize = 65_536;
/// A lapse weighs this much less after the next one, so that about the last thousand count.
const LAPSE_FADE: f64 = 0.999;

/// What a member does, as far as its group learns from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Inside an invocation.
    Awake,
    /// Its lease ran out inside an invocation, and nothing said that it would sleep.
    Lapsed,
    /// Asleep, or SUSPECT after a sleep.
    Sleeping {
        /// When it fell asleep.
        began: Timestamp,
        /// Whether this relay knows that; otherwise it is when it first heard of the sleep.
        measured: bool,
    },
}

/// What is learned of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learned {
    /// Gap between falling asleep and waking that half of all wakes do not exceed.
    pub gap_p50: Millis,
    /// The same for 99 of 100.
    pub gap_p99: Millis,
    /// Share of the sleeps, 0 to 1, that nobody came back from.
    pub deaths: f64,
    /// Wakes that this rests on; older ones count less.
    pub wakes: f64,
    /// What a member that falls asleep is granted, before the jitter. `None`: too few wakes, the settings decide.
    pub asleep_lease: Option<Millis>,
    /// Share of the leases that ran out inside an invocation whose node was heard of again.
    pub lapses_back: f64,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    standing: Standing,
    since: Timestamp,
}

#[derive(Debug)]
struct Seen {
    gaps: WakeGaps,
    awake: u64,
    lapsed: u64,
    lapses_back: f64,
    lapses_ended: f64,
    missing: HashMap<NodeId, Missing>,
    missing_since: VecDeque<(Timestamp, NodeId)>,
}

/// The members of one group in one namespace.
#[derive(Debug)]
pub(super) struct GroupLife {
    pub(super) namespace: u32,
    /// The number of its settings.
    pub(super) settings: u16,
    /// Since when it is watched.
    pub(super) since: Timestamp,
    /// Its members by state.
    pub(super) tally: Tally,
    seen: Mutex<Seen>,
    curve: RwLock<Arc<(Curve, Learned)>>,
}

impl Seen {
    fn lapses_back(&self) -> f64 {
        // One of each is assumed.
        (self.lapses_back + 1.0) / (self.lapses_back + self.lapses_ended + 2.0)
    }

    fn lapse(&mut self, back: f64, ended: f64) {
        self.lapses_back = self.lapses_back * LAPSE_FADE + back;
        self.lapses_ended = (self.lapses_ended * LAPSE_FADE + ended).max(0.0);
    }

    fn enter(&mut self, standing: Standing) {
        match standing {
            Standing::Awake => self.awake += 1,
            Standing::Lapsed => self.lapsed += 1,
            Standing::Sleeping { began, .. } => self.gaps.began(began),
        }
    }

    /// A member is heard of at `now`, or its silence has led to something.
    fn leave(&mut self, standing: Standing, now: Timestamp) {
        match standing {
            Standing::Awake => self.awake -= 1,
            Standing::Lapsed => {
                self.lapsed -= 1;
                self.lapse(1.0, 0.0);
            }
            Standing::Sleeping { began, measured: true } => self.gaps.woke(began, now),
            Standing::Sleeping { began, measured: false } => self.gaps.forget(began),
        }
    }

    fn end(&mut self, node: NodeId, standing: Standing, now: Timestamp, of_silence: bool) {
        match standing {
            Standing::Awake => self.awake -= 1,
            Standing::Lapsed => {
                self.lapsed -= 1;
                self.lapse(0.0, if of_silence { 1.0 } else { 0.0 });
            }
            Standing::Sleeping { began, measured: false } => return self.gaps.forget(began),
            Standing::Sleeping { began, .. } if of_silence => self.gaps.is_missing(began),
            Standing::Sleeping { began, .. } => self.gaps.broke_off(began, now),
        }
        if of_silence {
            self.missing.insert(node, Missing { standing, since: now });
            self.missing_since.push_back((now, node));
        }
    }

    /// Answers whether it had been missing.
    fn came_back(&mut self, node: NodeId, now: Timestamp) -> bool {
        let missing = self.missing.remove(&node);
        match missing.map(|it| it.standing) {
            Some(Standing::Sleeping { began, .. }) => self.gaps.came_back(began, now),
            Some(Standing::Lapsed) => self.lapse(1.0, -1.0),
            Some(Standing::Awake) | None => {}
        }
        missing.is_some()
    }

    /// Gives up on those that nobody would recognise any more.
    fn give_up(&mut self, now: Timestamp) {
        while let Some((since, node)) = self.missing_since.front().copied() {
            if now.since(since) < MISSING && self.missing_since.len() <= MISSING_MAX {
                return;
            }
            self.missing_since.pop_front();
            // It may have come back and be missing again, for another time.
            if self.missing.get(&node).is_some_and(|it| it.since == since)
                && let Some(Missing { standing: Standing::Sleeping { began, .. }, .. }) =
                    self.missing.remove(&node)
            {
                self.gaps.gave_up(began);
            }
        }
    }
}

impl GroupLife {
    pub(super) fn new(namespace: u32, settings: u16, now: Timestamp) -> Self {
        let mut gaps = WakeGaps::new(now);
        let curve = gaps.fit(now);
        let seen = Seen {
            gaps,
            awake: 0,
            lapsed: 0,
            lapses_back: 0.0,
            lapses_ended: 0.0,
            missing: HashMap::new(),
            missing_since: VecDeque::new(),
        };
        let learned = learned(&curve, &seen);
        let curve = RwLock::new(Arc::new((curve, learned)));
        Self { namespace, settings, since: now, tally: Tally::default(), seen: Mutex::new(seen), curve }
    }

    /// A node is a member from here on. It may be one that had been declared GONE.
    pub(super) fn joined(&self, node: NodeId, standing: Standing, now: Timestamp) {
        let mut seen = self.seen.lock();
        if seen.came_back(node, now) {
            self.tally.come_back();
        }
        seen.enter(standing);
    }

    /// A member was heard of, or fell silent.
    pub(super) fn moved(&self, before: Standing, after: Standing, now: Timestamp) {
        if before == after {
            return;
        }
        let mut seen = self.seen.lock();
        match (before, after) {
            // Silence is no sign of life.
            (Standing::Awake, _) => seen.awake -= 1,
            _ => seen.leave(before, now),
        }
        seen.enter(after);
    }

    /// A membership ended. `of_silence`: it was declared GONE because nothing was heard of it.
    pub(super) fn ended(&self, node: NodeId, standing: Standing, now: Timestamp, of_silence: bool) {
        self.seen.lock().end(node, standing, now, of_silence);
    }

    /// Draws the conclusions of what was seen. Answers how many members are expected to live.
    pub(super) fn refit(&self, now: Timestamp, settings: &LeaseSettings) -> f64 {
        let mut seen = self.seen.lock();
        seen.give_up(now);
        let curve = seen.gaps.fit(now);
        let expected =
            seen.awake as f64 + seen.lapsed as f64 * seen.lapses_back() + seen.gaps.expected(&curve, now);
        let mut learned = learned(&curve, &seen);
        drop(seen);
        learned.asleep_lease = lease(&curve, settings, now.since(self.since));
        *self.curve.write() = Arc::new((curve, learned));
        expected
    }

    /// What was learned by the last fit.
    pub(super) fn learned(&self) -> Learned {
        self.curve.read().1
    }

    /// Whether it has taught anything that still counts.
    pub(super) fn is_remembered(&self) -> bool {
        self.learned().wakes >= 1.0 || !self.seen.lock().missing.is_empty()
    }

    /// How likely a member is alive.
    pub(super) fn p_alive(&self, standing: Standing, now: Timestamp) -> f64 {
        match standing {
            Standing::Awake => 1.0,
            Standing::Lapsed => self.curve.read().1.lapses_back,
            Standing::Sleeping { began, .. } => self.curve.read().0.p_alive(now.since(began)),
        }
    }

    /// The lease that a member which falls asleep has earned: as its group's gaps are, with its own jitter.
    pub(super) fn asleep_lease(&self, node: NodeId, settings: &LeaseSettings) -> Millis {
        let Some(lease) = self.curve.read().1.asleep_lease else { return settings.asleep };
        let share = (node.0 >> 32) as f64 / f64::from(u32::MAX);
        let jittered = Millis::whole(lease.as_f64() * (1.0 - JITTER + 2.0 * JITTER * share));
        jittered.clamp(settings.asleep_min, settings.asleep_max)
    }
}

/// The lease that a group has taught, if it has. A group that has been watched for a short time shows only its short gaps,
/// and those that are still asleep look as if they would never wake: until it has been watched for as long as any lease may
/// last, the lease only grows.
fn lease(curve: &Curve, settings: &LeaseSettings, watched: Millis) -> Option<Millis> {
    if curve.wakes < WAKES {
        return None;
    }
    let wanted = match curve.gap(SHARE) {
        // Gaps above that are not told apart.
        gap if gap >= LONGEST_GAP => settings.asleep_max,
        gap => Millis::whole(gap.as_f64() * MARGIN).clamp(settings.asleep_min, settings.asleep_max),
    };
    Some(if watched < settings.asleep_max { wanted.max(settings.asleep) } else { wanted })
}

fn learned(curve: &Curve, seen: &Seen) -> Learned {
    Learned {
        gap_p50: curve.gap(0.5),
        gap_p99: curve.gap(0.99),
        deaths: curve.deaths(),
        wakes: curve.wakes,
        asleep_lease: None,
        lapses_back: seen.lapses_back(),
    }
}

/// Finds the life of a group: its namespace and its name.
pub(super) type GroupKey = (u32, Group);

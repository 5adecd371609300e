//! Short random schedules of everything that can go wrong around the lease table, each checked by the
//! [oracle](super::oracle).
//!
//! Calls that are repeated, overtaken, of a clone or of an incarnation that is over; evidence that is read late, twice
//! or in another order; holds; ends that are void; a relay that is restarted and knows only what the log told.

mod adversity;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use super::oracle::Complaint;
use adversity::Adversity;

/// How many schedules a thread takes at once.
const TAKES: u64 = 256;

/// What happened in schedules: a search in which nothing happens finds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Schedules run to their end.
    pub schedules: u64,
    /// Steps of all of them.
    pub steps: u64,
    /// Contacts that were granted a lease.
    pub granted: u64,
    /// Contacts that were not newer.
    pub not_newer: u64,
    /// Contacts of a clone.
    pub forked: u64,
    /// Contacts of another incarnation.
    pub other_incarnation: u64,
    /// Evidence that counted.
    pub evidence: u64,
    /// Evidence that was overtaken or of another incarnation.
    pub evidence_refused: u64,
    /// Ends that were proposed.
    pub proposed: u64,
    /// Ends that took effect.
    pub ended: u64,
    /// Ends that were void or could not be appended.
    pub rejected: u64,
    /// Restarts of the relay.
    pub restarts: u64,
    /// Looks at the leases while expiry was held.
    pub held: u64,
}

impl Stats {
    fn add(&mut self, more: &Self) {
        self.schedules += more.schedules;
        self.steps += more.steps;
        self.granted += more.granted;
        self.not_newer += more.not_newer;
        self.forked += more.forked;
        self.other_incarnation += more.other_incarnation;
        self.evidence += more.evidence;
        self.evidence_refused += more.evidence_refused;
        self.proposed += more.proposed;
        self.ended += more.ended;
        self.rejected += more.rejected;
        self.restarts += more.restarts;
        self.held += more.held;
    }
}

/// A schedule whose answers break a law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Runs the same schedule again.
    pub seed: u64,
    /// What the oracle says.
    pub complaint: String,
}

/// What came of many schedules.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// What happened.
    pub stats: Stats,
    /// Those that are wrong, of the lowest seed first. The search ends soon after the first.
    pub findings: Vec<Finding>,
}

/// Runs the schedules of that many seeds, beginning with `first`, on so many threads.
pub fn search(first: u64, schedules: u64, threads: usize) -> Search {
    let (next, over, sum) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Search::default()));
    let work = || {
        let mut stats = Stats::default();
        while !over.load(Relaxed) {
            let from = next.fetch_add(TAKES, Relaxed);
            if from >= schedules {
                break;
            }
            for seed in (from..schedules.min(from + TAKES)).map(|nth| first.wrapping_add(nth)) {
                if let Err(complaint) = schedule_caught(seed, &mut stats) {
                    over.store(true, Relaxed);
                    let finding = Finding { seed, complaint };
                    sum.lock().unwrap_or_else(PoisonError::into_inner).findings.push(finding);
                }
            }
        }
        sum.lock().unwrap_or_else(PoisonError::into_inner).stats.add(&stats);
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.findings.sort_by_key(|finding| finding.seed);
    sum
}

/// A panic of the table is a finding like any other.
fn schedule_caught(seed: u64, stats: &mut Stats) -> Complaint {
    catch_unwind(AssertUnwindSafe(|| schedule(seed, Defect::Sound, stats)))
        .unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// A rule that is broken on purpose, to show that the search would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// None.
    Sound,
    /// Leases end a tenth of a second early.
    Hasty,
    /// Nobody tells the table that expiry is held.
    HoldForgotten,
    /// A call of another incarnation is taken for one of the incarnation that lives.
    IncarnationIgnored,
}

/// Runs one.
///
/// # Errors
///
/// What is wrong with the answers of the table.
pub fn schedule(seed: u64, defect: Defect, stats: &mut Stats) -> Complaint {
    let mut world = Adversity::new(seed, defect);
    let steps = world.rng.u32(10..=40);
    for _ in 0..steps {
        world.step()?;
    }
    world.fall_silent()?;
    world.stats.schedules += 1;
    world.stats.steps += u64::from(steps);
    stats.add(&world.stats);
    Ok(())
}

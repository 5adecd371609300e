//! The world: one log, three relays, some nodes, and everything that is under way between them.

use std::collections::HashSet;

use dormouse_proto::{
    ids::PushId,
    lattice::Type,
    record::{Policy, Record, Send},
    traps::Trap,
};
use fastrand::Rng;

use crate::{
    faults::Faults,
    healing::Seeds,
    log::{Entry, Log},
    machine::Snapshot,
    namespace,
    node::Node,
    relay::Relay,
    rows::{self, RowNo},
    said::Registry,
    trace::Trace,
    truth::Truth,
    violation::Violation,
};

/// How many relays there are.
pub const RELAYS: usize = 3;
/// How many nodes there are at first.
pub const NODES: usize = 4;
/// Dead rows that each collection keeps.
pub const fn dead_rows(faults: Faults) -> u64 {
    if faults.hungry { 1 } else { 3 }
}
/// Tombstones that are kept.
pub const TOMBSTONES: u64 = 2;
/// How far a register's stamp may be ahead.
pub const SKEW_MS: u64 = 20;

/// What happened in a history, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pushes that a relay wrote to the log.
    pub pushes: u64,
    /// Chunks that a node took in.
    pub chunks: u64,
    /// Rows in them.
    pub rows: u64,
    /// Chunks that were caught up, at which the whole view was compared.
    pub barriers: u64,
    /// Pulls that started over because something was collected.
    pub compacted: u64,
    /// Pulls that started over because the log had lost what was shown.
    pub lost: u64,
    /// Answers of relays that were behind.
    pub behind: u64,
    /// Refused pushes.
    pub refused: u64,
    /// Nodes that were admitted again.
    pub readmitted: u64,
    /// Nodes that were given a new identity because a clone had theirs.
    pub forked: u64,
    /// Nodes that were forgotten.
    pub forgotten: u64,
    /// Pushes whose outcome nobody could know.
    pub at_risk: u64,
    /// Starts from a snapshot.
    pub restored: u64,
    /// Tails that the log lost.
    pub regressed: u64,
    /// Tails that a relay gave back.
    pub healed: u64,
    /// Reseeds that came too late.
    pub voided: u64,
    /// Acknowledged pushes that went with them.
    pub acked_and_lost: u64,
    /// Frames in the log at the end.
    pub frames: u64,
    /// Messages that arrived.
    pub letters: u64,
    /// Keys that were read on their own.
    pub reads: u64,
    /// Rows that were sent while nothing was written.
    pub quiet_sent: u64,
    /// Rows that others had changed by then.
    pub quiet_changed: u64,
}

impl Stats {
    /// Adds those of another history.
    pub fn add(&mut self, other: &Self) {
        let all = self.each();
        for (mine, theirs) in all.into_iter().zip({ *other }.each()) {
            *mine += *theirs;
        }
    }

    fn each(&mut self) -> [&mut u64; 22] {
        let Self { pushes, chunks, rows, barriers, compacted, lost, behind, refused, .. } = self;
        let Self { readmitted, forked, forgotten, at_risk, restored, regressed, .. } = self;
        let Self {
            healed, voided, acked_and_lost, frames, letters, reads, quiet_sent, quiet_changed, ..
        } = self;
        [
            pushes,
            chunks,
            rows,
            barriers,
            compacted,
            lost,
            behind,
            refused,
            readmitted,
            forked,
            forgotten,
            at_risk,
            restored,
            regressed,
            healed,
            voided,
            acked_and_lost,
            frames,
            letters,
            reads,
            quiet_sent,
            quiet_changed,
        ]
    }
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// The only source of chance.
    pub rng: Rng,
    /// What may go wrong.
    pub faults: Faults,
    /// The rule that is left out.
    pub trap: Option<Trap>,
    /// The time, in milliseconds of some clock.
    pub now: u64,
    /// How likely a request or an answer is lost.
    pub loss: f64,
    /// The log.
    pub log: Log,
    /// The reference, by history of the log: a lost tail begins a new one.
    pub truths: Vec<Truth>,
    /// The relays.
    pub relays: Vec<Relay>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// What every sealed push was meant to say.
    pub registry: Registry,
    /// Snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// Push records that may land late.
    pub late: Vec<Record>,
    /// Reseeds that may land late.
    pub reseeds: Vec<Record>,
    /// What Reseeds refer to.
    pub seeds: Seeds,
    /// Frames that may land once more.
    pub copies: Vec<Entry>,
    /// Pushes whose author was told that they are bound.
    pub acked: HashSet<PushId>,
    /// The rows that this history is about.
    pub palette: Vec<RowNo>,
    /// Messages that were sent, to be repeated.
    pub sent: Vec<Send>,
    /// Bytes are limited too.
    pub by_bytes: bool,
    /// What happened, counted.
    pub stats: Stats,
    /// What happened, told.
    pub trace: Trace,
}

impl World {
    /// The world of a seed: relays that have opened, a policy under which everything is collected soon, new nodes.
    ///
    /// # Errors
    /// Only if the very first records break an invariant.
    pub fn new(seed: u64, faults: Faults, trap: Option<Trap>, trace: Trace) -> Result<Self, Violation> {
        let mut world = Self {
            rng: Rng::with_seed(seed),
            faults,
            trap,
            now: 1_000,
            loss: 0.18,
            log: Log::default(),
            truths: vec![Truth::new(trap)],
            relays: (0..RELAYS).map(|_| Relay::new(trap)).collect(),
            nodes: Vec::new(),
            registry: Registry::default(),
            snapshots: Vec::new(),
            late: Vec::new(),
            reseeds: Vec::new(),
            seeds: Seeds::default(),
            copies: Vec::new(),
            acked: HashSet::new(),
            palette: rows::of_types(|kind: Type| faults.types.has(kind)),
            sent: Vec::new(),
            by_bytes: false,
            stats: Stats::default(),
            trace,
        };
        for relay in 0..RELAYS {
            world.reconnect(relay)?;
        }
        world.set_limits()?;
        world.log.keep();
        for name in 0..NODES {
            let space = usize::from(faults.second && name > 0 && world.rng.bool());
            let mut node = Node::new(name, space, &mut world.rng, faults.interest, trap);
            if space > 0 && world.rng.bool() {
                // The same name may stand for a node in each namespace.
                node.boot_id = world.nodes[0].boot_id;
            }
            world.nodes.push(node);
        }
        Ok(world)
    }

    /// A policy under which everything is collected soon.
    fn set_limits(&mut self) -> Result<(), Violation> {
        let Faults { quota, window, second, .. } = self.faults;
        self.by_bytes = quota && self.rng.bool();
        let rng = &mut self.rng;
        let policy = Policy {
            dead_rows_min: Some(dead_rows(self.faults)),
            tombstones_max: Some(TOMBSTONES),
            stamp_skew_ms: Some(SKEW_MS),
            once_max: window.then(|| rng.u64(1..6)),
            once_ms: window.then(|| rng.u64(20..200)),
            events_max: Some(rng.u64(3..12)),
            events_age_ms: window.then(|| rng.u64(50..300)),
            rows_max: quota.then(|| rng.u64(4..20)),
            ..Policy::default()
        };
        self.write(0, Record::Policy(policy))?;
        if second {
            let own = Policy {
                namespace: Some(namespace(1).clone()),
                dead_rows_min: Some(2),
                once_max: Some(3),
                events_max: Some(2),
                ..Policy::default()
            };
            self.write(0, Record::Policy(own))?;
        }
        self.tell_time(0)
    }

    /// The reference at the end of the log.
    pub fn truth(&self) -> &Truth {
        self.truths.last().expect("there is a history from the beginning")
    }

    /// The reference at the end of the log.
    pub fn truth_mut(&mut self) -> &mut Truth {
        self.truths.last_mut().expect("there is a history from the beginning")
    }

    /// Whether something happens that does so with this likelihood.
    pub fn chance(&mut self, likelihood: f64) -> bool {
        self.rng.f64() < likelihood
    }

    /// Tells what happened.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        self.trace.say(self.now, line);
    }
}

//! The world: one log, three relays, some nodes, and everything that is under way between them.

use std::collections::HashSet;

use dormouse_proto::{
    ids::PushId,
    record::{Policy, Record},
    traps::Trap,
};
use fastrand::Rng;

use crate::{
    faults::Faults,
    log::{Entry, Log},
    machine::Snapshot,
    node::Node,
    relay::Relay,
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
    /// Acknowledged pushes that went with them.
    pub acked_and_lost: u64,
    /// Frames in the log at the end.
    pub frames: u64,
}

impl Stats {
    /// Adds those of another history.
    pub fn add(&mut self, other: &Self) {
        let Self { pushes, chunks, rows, barriers, compacted, lost, behind, refused, .. } = other;
        let Self {
            readmitted, forked, forgotten, at_risk, restored, regressed, acked_and_lost, frames, ..
        } = other;
        self.pushes += pushes;
        self.chunks += chunks;
        self.rows += rows;
        self.barriers += barriers;
        self.compacted += compacted;
        self.lost += lost;
        self.behind += behind;
        self.refused += refused;
        self.readmitted += readmitted;
        self.forked += forked;
        self.forgotten += forgotten;
        self.at_risk += at_risk;
        self.restored += restored;
        self.regressed += regressed;
        self.acked_and_lost += acked_and_lost;
        self.frames += frames;
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
    /// Frames that may land once more.
    pub copies: Vec<Entry>,
    /// Pushes whose author was told that they are bound.
    pub acked: HashSet<PushId>,
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
            registry: Registry::new(),
            snapshots: Vec::new(),
            late: Vec::new(),
            copies: Vec::new(),
            acked: HashSet::new(),
            stats: Stats::default(),
            trace,
        };
        for relay in 0..RELAYS {
            world.reconnect(relay)?;
        }
        let policy = Policy {
            dead_rows_min: Some(dead_rows(faults)),
            tombstones_max: Some(TOMBSTONES),
            stamp_skew_ms: Some(SKEW_MS),
            ..Policy::default()
        };
        world.write(0, Record::Policy(policy))?;
        world.log.keep();
        world.nodes = (0..NODES).map(|name| Node::new(name, &mut world.rng, trap)).collect();
        Ok(world)
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

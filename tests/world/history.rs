//! One history: a seed, a set of faults, perhaps a rule that is left out; and what was found.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dormouse_proto::{
    ids::Beat,
    record::{Cause, Gone, Record},
    traps::Trap,
};

use crate::{
    faults::Faults,
    namespace,
    node::Carries,
    rows,
    trace::Trace,
    violation::{Violation, violation},
    world::{NODES, RELAYS, Stats, World},
};

/// Seeds that ever showed a defect.
///
/// # Panics
/// If one of them is no number.
pub fn old_seeds() -> Vec<u64> {
    let lines = include_str!("../seeds.txt").lines();
    let lines = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a seed is a number")).collect()
}

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// Everything follows from it.
    pub seed: u64,
    /// What may go wrong.
    pub faults: Faults,
    /// A rule to leave out.
    pub trap: Option<Trap>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What happened, counted.
    pub stats: Stats,
    /// What happened, told, if it was asked for.
    pub trace: String,
    /// What was found.
    pub violation: Option<Violation>,
}

impl History {
    /// The history of a seed, with the faults that belong to it and every rule in force.
    pub fn of_seed(seed: u64) -> Self {
        Self { seed, faults: Faults::mixed(seed), trap: None }
    }

    /// Runs it without a trace.
    pub fn run(self) -> Outcome {
        self.run_with(Trace::default())
    }

    /// Runs it without a trace; a panic in the code under test is a finding like any other.
    pub fn run_caught(self) -> Outcome {
        catch_unwind(AssertUnwindSafe(|| self.run())).unwrap_or_else(|why| {
            let text = why.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| why.downcast_ref::<String>().cloned()).unwrap_or_default();
            let violation = Some(violation(format!("the code under test panicked: {text}")));
            Outcome { stats: Stats::default(), trace: String::new(), violation }
        })
    }

    /// What replays it.
    pub fn command(self) -> String {
        format!("cargo run --release -p dormouse-tests --bin exactness -- --tell {}", self.seed)
    }

    /// Runs it and tells what happens.
    pub fn tell(self) -> Outcome {
        self.run_with(Trace::kept())
    }

    fn run_with(self, trace: Trace) -> Outcome {
        let mut world = match World::new(self.seed, self.faults, self.trap, trace) {
            Ok(world) => world,
            Err(violation) => {
                return Outcome { stats: Stats::default(), trace: String::new(), violation: Some(violation) };
            }
        };
        let violation = world.live().and_then(|()| world.check_end()).err();
        if let Some(violation) = &violation {
            world.say(|| violation.0.clone());
        }
        Outcome { stats: world.stats, trace: world.trace.into_text(), violation }
    }
}

impl World {
    fn live(&mut self) -> Result<(), Violation> {
        let steps = if self.faults.long { 60..400 } else { 25..150 };
        for _ in 0..self.rng.u32(steps) {
            self.now += self.rng.u64(1..4);
            self.step()?;
            let down: Vec<usize> = (0..RELAYS).filter(|it| !self.relays[*it].connected).collect();
            if !down.is_empty() && self.chance(0.25) {
                let relay = down[self.rng.usize(..down.len())];
                self.reconnect(relay)?;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        let node = self.rng.usize(..self.nodes.len());
        let relay = self.rng.usize(..RELAYS);
        let connected = self.relays[relay].connected;
        let faults = self.faults;
        match self.rng.u32(..1000) {
            0..400 => self.edits(node),
            400..790 => {
                let carries = self.carries();
                self.call(node, relay, carries)?;
            }
            790..840 => self.beside(node, relay)?,
            840..900 if connected => {
                let upto = self.rng.usize(self.relays[relay].frames.len()..=self.log.len());
                self.catch_up(relay, upto)?;
                if self.chance(0.3) {
                    self.take_snapshot(relay);
                }
            }
            900..915 => self.cold_start(node),
            915..935 if faults.late && connected && !self.late.is_empty() => {
                let nth = self.rng.usize(..self.late.len());
                let record = self.late.swap_remove(nth);
                self.say(|| format!("a late copy lands: {record:?}"));
                self.write(relay, record)?;
            }
            935..945 if faults.reorder && self.relays.iter().any(|it| it.connected) => self.land_copy()?,
            945..958 if faults.gone && connected => self.declare_gone(node, relay)?,
            958..963 if faults.clone && self.nodes.len() < NODES + 2 => self.clone_node(node),
            963..970 if faults.regress && self.log.len() > 10 => self.regress()?,
            970..980 if faults.crash && connected => {
                self.crash(relay);
                self.reconnect(relay)?;
            }
            980..1000 if connected => self.land_reseed(relay)?,
            _ => {}
        }
        Ok(())
    }

    /// The program changes a row; sometimes it clears a whole set and puts something back in the same breath.
    fn edits(&mut self, node: usize) {
        let row = self.palette[self.rng.usize(..self.palette.len())];
        let percent = self.rng.u32(..100);
        if percent >= 6 {
            return self.edit(node, row);
        }
        if self.faults.clears && percent >= 2 {
            return self.clear(node);
        }
        let of_one_key: Vec<rows::RowNo> = self
            .palette
            .iter()
            .copied()
            .filter(|it| rows::all()[*it].path == rows::all()[row].path)
            .collect();
        for row in &of_one_key {
            if self.nodes[node].view(*row) == Some(rows::Shown::Present(true)) {
                self.edit(node, *row);
            }
        }
        self.edit(node, row);
    }

    /// What happens beside the round trips.
    fn beside(&mut self, node: usize, relay: usize) -> Result<(), Violation> {
        let (connected, faults) = (self.relays[relay].connected, self.faults);
        match self.rng.u32(..50) {
            0..12 if faults.interest => self.read(node, relay)?,
            12..16 if faults.interest => self.change_interest(node),
            16..28 if faults.mail && connected => self.send(node, relay)?,
            28..38 if faults.writes && connected => self.back_end(relay)?,
            38..46 if (faults.window || faults.mail) && connected => self.tell_time(relay)?,
            46..48 if faults.quota && connected => self.change_limits(relay)?,
            _ => {}
        }
        Ok(())
    }

    fn carries(&mut self) -> Carries {
        let (push, pull) = match self.rng.u32(..100) {
            0..40 => (true, true),
            40..65 => (true, false),
            _ => (false, true),
        };
        Carries { push, pull, max_bytes: self.rng.usize(1..200) }
    }

    /// Somebody ends a membership, mostly by mistake: the node is there and knows nothing of it.
    fn declare_gone(&mut self, node: usize, relay: usize) -> Result<(), Violation> {
        let Some((id, incarnation)) = self.nodes[node].replica.node() else { return Ok(()) };
        let cause = match self.rng.u32(..20) {
            0 => Cause::Evicted,
            1..4 => Cause::Left,
            _ => Cause::Expired,
        };
        let view = self.relays[relay].machine.fold.namespace(namespace(self.nodes[node].space));
        let heard = view.and_then(|view| view.member(id)).map_or(Beat(0), |it| it.soft.beat);
        let beat = if self.chance(0.8) { heard } else { Beat(heard.0.saturating_sub(1)) };
        self.say(|| format!("node {node} is declared gone: {cause:?}, beat {beat}"));
        let gone = Gone {
            namespace: namespace(self.nodes[node].space).clone(),
            node: id,
            incarnation,
            cause,
            beat,
            reason: String::new(),
        };
        self.write(relay, Record::Gone(gone))?;
        Ok(())
    }
}

//! Relays, their log and their nodes, in one queue of events. Everything follows from a seed.

use std::{cmp::Reverse, collections::BinaryHeap, rc::Rc};

use dormouse_proto::{
    ids::{Incarnation, Namespace, NodeId},
    record::{Frame, Record},
    traps::Trap,
};
use dormouse_relay::{
    liveness::{LeaseSettings, Millis},
    state::{Fold, Verdict},
};
use fastrand::Rng;

use crate::{
    calls::Call,
    faults::{self, Faults},
    ledger::{Broken, Ledger},
    node::Node,
    relay::{Phase, Relay},
    stats::Stats,
    trail::Entry,
};

/// How long nodes wake, sleep and die while things go wrong.
const TROUBLED_MS: u64 = 60_000;
/// After that everybody is silent. Whoever is still a member after this is lost.
const PATIENCE_MS: u64 = 90_000;

/// Something that happens. What is a relay's own carries the life of the process that it is for.
#[derive(Debug)]
pub(crate) enum Event {
    Look(usize, u32),
    Stir(usize, u32),
    /// A transmission of a frame reaches the log; of that try.
    Land(usize, u32, u64, Rc<Frame>),
    /// The log's answer reaches the relay; whether it has the frame.
    Acked(usize, u32, u64, bool),
    /// The answer to that try is overdue.
    Overdue(usize, u32, u64, u32),
    Transmit(usize, u32, u64),
    /// The log is read up to there.
    Deliver(usize, u32, usize),
    Arrive(usize),
    /// A call goes on: its node's end was under way, or the relay was behind.
    Again(usize),
    /// A call's patience is over.
    Impatient(usize),
    Wake(usize),
    Beat(usize),
    /// No answer to the transmission of that number.
    Unanswered(usize, u64),
    Die(usize),
    Fault,
    Start(usize, u32),
    Reconnect(usize),
}

/// An event in the queue, ordered by time and then by when it was planned.
struct Planned(u64, u64, Event);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) settings: LeaseSettings,
    queue: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    pub(crate) relays: Vec<Relay>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) calls: Vec<Call>,
    /// The log. A position is one more than the index.
    pub(crate) log: Vec<Rc<Frame>>,
    /// The state at the head of the log.
    truth: Fold,
    /// The log stands still until then.
    pub(crate) stalled_until: u64,
    /// When the newest frame of each relay lands, and is read: neither overtakes.
    lands: Vec<u64>,
    reads: Vec<u64>,
    late_reader: usize,
    pub(crate) ledger: Ledger,
    pub(crate) broken: Option<String>,
    pub(crate) stats: Stats,
    pub(crate) is_calm: bool,
    pub(crate) entries: Vec<Entry>,
}

impl World {
    /// A history of that seed. `change`: what it is to be about.
    pub(crate) fn new(seed: u64, trap: Option<Trap>, change: impl FnOnce(Faults) -> Faults) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (faults, settings) = (change(Faults::draw(&mut rng)), faults::leases(&mut rng));
        let (nodes, relays) = match faults {
            Faults { few: true, .. } => (1..=4, 2..=5),
            Faults { busy: true, .. } => (60..=80, 2..=2),
            _ => (20..=40, 2..=5),
        };
        let (nodes, relays) = (rng.usize(nodes), rng.usize(relays));
        let mut world = Self {
            now: 0,
            faults,
            settings,
            queue: BinaryHeap::new(),
            planned: 0,
            relays: (0..relays).map(|_| Relay::down(settings, trap)).collect(),
            nodes: (0..nodes).map(Node::new).collect(),
            calls: Vec::new(),
            log: Vec::new(),
            truth: Fold::new(),
            stalled_until: 0,
            lands: vec![0; relays],
            reads: vec![0; relays],
            late_reader: rng.usize(..relays),
            ledger: Ledger::new(nodes),
            broken: None,
            stats: Stats { histories: 1, ..Stats::default() },
            is_calm: false,
            entries: Vec::new(),
            rng,
        };
        for relay in 0..relays {
            let late = if relay > 0 && world.rng.u8(0..4) == 0 { 30_000 } else { 2_000 };
            let at = world.rng.u64(0..late);
            world.plan(at, Event::Start(relay, 0));
        }
        for node in 0..nodes {
            let at = world.rng.u64(1_000..12_000);
            world.plan(at, Event::Wake(node));
        }
        world.plan(5_000, Event::Fault);
        world
    }

    /// Plans an event, so many milliseconds from now.
    pub(crate) fn plan(&mut self, after: u64, event: Event) {
        self.planned += 1;
        self.queue.push(Reverse(Planned(self.now + after, self.planned, event)));
    }

    /// Runs until everybody is dead and GONE, or a rule is broken.
    pub(crate) fn run(&mut self) {
        while self.broken.is_none() {
            let Some(Reverse(Planned(at, _, event))) = self.queue.pop() else { break };
            if at >= TROUBLED_MS && !self.is_calm {
                self.calm();
            }
            self.now = at;
            self.happen(event);
            if self.is_calm && self.is_over() {
                return self.compare();
            }
            if at > TROUBLED_MS + PATIENCE_MS {
                let left = self.members();
                self.broken = Some(format!("{left} nodes are dead and members for ever"));
            }
        }
    }

    /// Nothing goes wrong from here on, and everybody falls silent.
    fn calm(&mut self) {
        self.is_calm = true;
        self.stats.deaths += self.nodes.iter().filter(|it| it.is_alive).count() as u64;
        self.nodes.iter_mut().for_each(|node| node.is_alive = false);
        for relay in 0..self.relays.len() {
            if self.relays[relay].phase == Phase::Down {
                let (life, at) = (self.relays[relay].life, self.rng.u64(0..3_000));
                self.plan(at, Event::Start(relay, life));
            }
        }
    }

    fn members(&self) -> usize {
        self.truth.namespace(&Namespace::default()).map_or(0, |it| it.members().len())
    }

    fn is_over(&self) -> bool {
        let is_read = |relay: &Relay| relay.phase == Phase::Serving && relay.applied == self.log.len();
        self.members() == 0 && self.now > TROUBLED_MS + 10_000 && self.relays.iter().all(is_read)
    }

    /// Relays at the same position have the same state, and leases of the same members.
    fn compare(&mut self) {
        let wanted = self.truth.hash();
        for (nth, relay) in self.relays.iter().enumerate() {
            let nodes = self.nodes.iter().map(|node| node.id);
            let differing = relay.disagreements(self.now, nodes);
            if relay.fold.hash() != wanted || differing > 0 {
                self.broken = Some(format!("relay {nth} differs from the log, in {differing} leases"));
            }
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some((relay, life)) = event.process() {
            if self.relays[relay].life != life || self.relays[relay].phase == Phase::Down {
                return;
            }
            let paused = self.relays[relay].paused_until;
            if paused > self.now {
                let later = paused - self.now + self.rng.u64(0..30);
                return self.plan(later, event);
            }
        }
        match event {
            Event::Look(relay, life) => self.look(relay, life),
            Event::Stir(relay, _) => {
                let now = self.now;
                self.relays[relay].answer_the_others(now);
                self.pump(relay);
            }
            Event::Land(relay, life, counter, frame) => self.land(relay, life, counter, &frame),
            Event::Acked(relay, _, counter, has_it) => self.acked(relay, counter, has_it),
            Event::Overdue(relay, life, counter, tries) => self.overdue(relay, life, counter, tries),
            Event::Transmit(relay, _, counter) => self.transmit(relay, counter),
            Event::Deliver(relay, life, upto) => self.deliver(relay, life, upto),
            Event::Arrive(call) => self.arrive(call),
            Event::Again(call) => self.again(call),
            Event::Impatient(call) => self.impatient(call),
            Event::Wake(node) => self.wake(node),
            Event::Beat(node) => self.beat(node),
            Event::Unanswered(node, beat) => self.unanswered(node, beat),
            Event::Die(node) => self.die(node),
            Event::Fault => self.fault(),
            Event::Start(relay, life) => self.start(relay, life),
            Event::Reconnect(relay) => self.reconnect(relay),
        }
    }

    fn look(&mut self, relay: usize, life: u32) {
        self.plan(100, Event::Look(relay, life));
        if self.relays[relay].phase == Phase::Serving {
            let now = self.now;
            if self.faults.late && relay == self.late_reader && !self.is_calm {
                self.relays[relay].company.leases().looked_late(Millis(700));
            }
            self.relays[relay].look(now);
            self.pump(relay);
        }
    }

    // ---- the log ----

    /// A frame reached the log.
    pub(crate) fn append(&mut self, relay: usize, frame: &Rc<Frame>) {
        let Self { truth, .. } = self;
        let mut ends = Vec::new();
        truth.apply_frame(frame, |_, _, record, verdict| match (record, verdict) {
            (Record::Gone(gone), Verdict::Gone(true)) => ends.push(Some((gone.node, gone.incarnation))),
            (Record::Gone(_), _) => ends.push(None),
            _ => {}
        });
        self.stats.frames += 1;
        self.log.push(Rc::clone(frame));
        self.note(relay, frame);
        for end in ends {
            match end {
                Some((node, incarnation)) => self.ended(node, incarnation),
                None => self.stats.void += 1,
            }
        }
        let position = self.log.len();
        for reader in 0..self.relays.len() {
            let lag = self.lag(reader);
            let at = self.reads[reader].max(self.now + lag);
            self.reads[reader] = at;
            let life = self.relays[reader].life;
            self.plan(at - self.now, Event::Deliver(reader, life, position));
        }
    }

    fn ended(&mut self, node: NodeId, incarnation: Incarnation) {
        self.stats.gone += 1;
        let Some(nth) = self.nodes.iter().position(|it| it.id == node) else { return };
        match self.ledger.ended(self.now, nth, incarnation) {
            Ok(Some(end)) if self.nodes[nth].died_asleep() => self.stats.delays.push(self.now - end),
            Ok(_) => {}
            Err(broken) => self.violated(broken),
        }
    }

    pub(crate) fn violated(&mut self, broken: Broken) {
        let trail = self.trail(broken.node);
        let told = format!("{:?}\n{:?}\n{trail}\n{broken}", self.faults, self.settings);
        self.broken.get_or_insert(told);
    }

    fn lag(&mut self, reader: usize) -> u64 {
        let most = if reader == self.late_reader && !self.is_calm {
            self.faults.lag_ms
        } else {
            self.faults.delay_ms
        };
        self.rng.u64(1..=most)
    }

    pub(crate) fn lands_at(&mut self, relay: usize, earliest: u64) -> u64 {
        let delay = self.rng.u64(1..self.faults.delay_ms);
        let at = self.lands[relay].max(earliest.max(self.stalled_until) + delay);
        self.lands[relay] = at;
        at
    }

    fn note(&mut self, relay: usize, frame: &Rc<Frame>) {
        for record in &frame.records {
            if let Record::Digest(digest) = record {
                self.stats.marks += digest.suspects.len() as u64;
            }
        }
        self.entries.push(Entry { at: self.now, relay, frame: Rc::clone(frame) });
    }
}

impl Event {
    /// Which process it is for, if any.
    fn process(&self) -> Option<(usize, u32)> {
        match self {
            Self::Look(relay, life)
            | Self::Stir(relay, life)
            | Self::Acked(relay, life, ..)
            | Self::Overdue(relay, life, ..)
            | Self::Transmit(relay, life, _)
            | Self::Deliver(relay, life, _) => Some((*relay, *life)),
            _ => None,
        }
    }
}

//! One relay, its log and its nodes, with a reference beside them that knows what no relay can: when each request
//! truly arrived, how long the observer truly ran, and what the node was promised.

use std::{collections::VecDeque, time::Duration};

use dormouse_proto::ids::{Beat, CallId, Group, Incarnation, NodeId, Revision};
use fastrand::Rng;

use crate::liveness::{
    Activity, Contact, Due, Ended, Evidence, Heard, LeaseKey, LeasePolicy, LeaseSettings, LeaseTable, Millis,
    Session, Timestamp, UndeclaredFreeze,
    guard::{HoldNumber, PAUSE, VirtualClock},
};

pub(super) const NODES: u64 = 3;
pub(super) const HERE: Session = Session(1);
const ELSEWHERE: Session = Session(2);

/// Short leases, so that much happens in few steps.
fn settings(freeze: UndeclaredFreeze) -> LeaseSettings {
    LeaseSettings {
        awake: Millis(1_000),
        asleep: Millis(5_000),
        asleep_min: Millis(5_000),
        asleep_max: Millis(5_000),
        margin: Millis(100),
        suspect_grace: Millis(500),
        undeclared_freeze: freeze,
    }
}

/// How long the observer truly ran, and how often it stood still.
#[derive(Clone, Copy, Default)]
pub(super) struct Observed {
    pub(super) ran_ms: u64,
    pub(super) pauses: u64,
}

#[derive(Default)]
pub(super) struct Node {
    pub(super) incarnation: u64,
    pub(super) beat: u64,
    /// What the fold knows: newest evidence, and the end of its lease in log time.
    pub(super) folded: Option<(Evidence, u64)>,
    /// When the newest request arrived, and what it was promised.
    pub(super) arrived: Observed,
    pub(super) promised: Millis,
    pub(super) newest_promise: u64,
    pub(super) ending: bool,
    pub(super) sent: Vec<Contact>,
}

pub(super) enum Record {
    Told(u64, Evidence, Session),
    Gone(u64, Incarnation, Beat),
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) settings: LeaseSettings,
    pub(super) clock: VirtualClock,
    pub(super) table: LeaseTable,
    pub(super) group: Group,
    pub(super) monotonic: u64,
    pub(super) observed: Observed,
    pub(super) ran_at_resume: u64,
    pub(super) unreported: Option<HoldNumber>,
    pub(super) nodes: Vec<Node>,
    pub(super) inbox: Vec<(u64, Contact)>,
    pub(super) log: VecDeque<Record>,
    /// Log time at the start of this relay, and how fast it follows virtual time, in percent: it may only be late.
    pub(super) log_time: u64,
    pub(super) log_pace: u64,
    pub(super) gone: u64,
}

pub(super) fn key(node: u64) -> LeaseKey {
    LeaseKey { namespace: 0, node: NodeId(node) }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let freeze = if rng.bool() { UndeclaredFreeze::Allow } else { UndeclaredFreeze::Deny };
        let settings = settings(freeze);
        let policy = LeasePolicy::new(settings, []).expect("settings of a test are valid");
        let log_pace = rng.u64(85..=100);
        let mut world = Self {
            rng,
            settings,
            clock: VirtualClock::starting(Duration::ZERO, settings.awake),
            table: LeaseTable::new(policy),
            group: "g".parse().expect("a valid name"),
            monotonic: 0,
            observed: Observed::default(),
            ran_at_resume: 0,
            unreported: None,
            nodes: (0..NODES).map(|_| Node::default()).collect(),
            inbox: Vec::new(),
            log: VecDeque::new(),
            log_time: 0,
            log_pace,
            gone: 0,
        };
        world.unreported = Some(world.clock.hold());
        (0..NODES).for_each(|node| world.join(node));
        world
    }

    pub(super) fn node(&mut self, node: u64) -> &mut Node {
        &mut self.nodes[usize::try_from(node).expect("a small number")]
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now(Duration::from_millis(self.monotonic))
    }

    pub(super) fn log_now(&self) -> u64 {
        self.log_time + self.now().0 * self.log_pace / 100
    }

    pub(super) fn activity(&mut self) -> Activity {
        let remaining = self.rng.bool().then(|| Millis(self.rng.u64(0..3_000)));
        match self.rng.u8(0..4) {
            0 => Activity::Asleep,
            1 => Activity::Awake { remaining, then_asleep: true },
            _ => Activity::Awake { remaining, then_asleep: false },
        }
    }

    pub(super) fn promise(&mut self, node: u64, beat: u64, ttl: Millis) {
        let observed = self.observed;
        let node = self.node(node);
        if beat > node.newest_promise {
            (node.arrived, node.promised, node.newest_promise) = (observed, ttl, beat);
        }
    }

    pub(super) fn join(&mut self, number: u64) {
        let (now, log_now, ttl) = (self.now(), self.log_now(), self.settings.awake);
        let node = self.node(number);
        node.incarnation += 1;
        node.beat += 1;
        node.ending = false;
        node.sent.clear();
        let activity = Activity::Awake { remaining: None, then_asleep: false };
        let (incarnation, beat) = (Incarnation(node.incarnation), node.beat);
        let evidence = Evidence { incarnation, beat: Beat(beat), activity, ttl };
        node.folded = Some((evidence, log_now + ttl.0));
        self.table.admitted(now, key(number), &self.group, &evidence, HERE);
        self.promise(number, beat, ttl);
    }

    /// A request reaches the relay's socket: a new one, or one that was sent before.
    pub(super) fn arrive(&mut self) {
        let number = self.rng.u64(0..NODES);
        let (activity, call_id, again) = (self.activity(), CallId(self.rng.u64(1..)), self.rng.u8(0..4) == 0);
        let pick = self.rng.usize(..);
        let ttl = self.settings.at_once(activity);
        let node = self.node(number);
        if again && !node.sent.is_empty() {
            let contact = node.sent[pick % node.sent.len()];
            return self.inbox.push((number, contact));
        }
        node.beat += 1;
        let (incarnation, beat, ending) = (Incarnation(node.incarnation), node.beat, node.ending);
        let contact = Contact { incarnation, beat: Beat(beat), call_id, activity, head: Revision::ZERO };
        node.sent.push(contact);
        if !ending {
            self.promise(number, beat, ttl);
        }
        self.inbox.push((number, contact));
    }

    /// A request of a node to another relay shows only in the log.
    pub(super) fn arrive_elsewhere(&mut self) {
        let number = self.rng.u64(0..NODES);
        let activity = self.activity();
        let ttl = self.settings.when_applied(activity);
        let node = self.node(number);
        node.beat += 1;
        let (incarnation, beat) = (Incarnation(node.incarnation), Beat(node.beat));
        self.log.push_back(Record::Told(number, Evidence { incarnation, beat, activity, ttl }, ELSEWHERE));
    }

    pub(super) fn handle_one(&mut self) {
        if self.inbox.is_empty() {
            return;
        }
        let place = self.rng.usize(..self.inbox.len());
        let (number, contact) = self.inbox.swap_remove(place);
        match self.table.heard(self.now(), key(number), &contact) {
            Heard::Granted { ttl: at_once, ttl_applied: ttl, .. } => {
                let Contact { incarnation, beat, activity, .. } = contact;
                // Already promised on arrival, unless its Gone was under way: then this must not happen.
                self.promise(number, beat.0, at_once);
                // Not every contact gets a record of its own: a digest has only the newest.
                if activity == Activity::Asleep || self.rng.bool() {
                    self.log.push_back(Record::Told(
                        number,
                        Evidence { incarnation, beat, activity, ttl },
                        HERE,
                    ));
                }
            }
            Heard::Forked => panic!("a repeated call is no clone"),
            // Nothing was granted, so nothing new is promised.
            _ => {}
        }
    }

    pub(super) fn read_one(&mut self) {
        match self.log.pop_front() {
            Some(Record::Told(number, evidence, by)) => self.read_evidence(number, evidence, by),
            Some(Record::Gone(number, incarnation, beat)) => self.read_gone(number, incarnation, beat),
            None => {}
        }
    }

    pub(super) fn read_evidence(&mut self, number: u64, evidence: Evidence, by: Session) {
        let (now, end) = (self.now(), self.log_now() + evidence.ttl.0);
        let node = self.node(number);
        let known = node.folded.is_some_and(|(known, _)| {
            known.incarnation == evidence.incarnation && known.beat <= evidence.beat
        });
        if known {
            node.folded = Some((evidence, end));
            if node.newest_promise == evidence.beat.0 {
                node.promised = node.promised.max(evidence.ttl);
            } else if by == ELSEWHERE {
                self.promise(number, evidence.beat.0, evidence.ttl);
            }
        }
        assert_eq!(
            self.table.evidence_applied(now, key(number), &evidence, by),
            known,
            "fold and table agree"
        );
        // What the log told after the Gone was proposed makes it void.
        self.node(number).ending &= !known;
    }

    pub(super) fn read_gone(&mut self, number: u64, incarnation: Incarnation, beat: Beat) {
        let node = self.node(number);
        node.ending = false;
        let valid =
            node.folded.is_some_and(|(known, _)| known.incarnation == incarnation && known.beat <= beat);
        if !valid {
            let now = self.now();
            return self.table.gone_rejected(now, key(number), incarnation, beat);
        }
        self.assert_a_whole_lease_of_silence(number);
        self.gone += 1;
        self.node(number).folded = None;
        assert!(
            self.table.ended(self.now(), key(number), incarnation, Ended::Silent),
            "the fold ends whom the table knows"
        );
    }

    pub(super) fn assert_a_whole_lease_of_silence(&self, number: u64) {
        let node = &self.nodes[usize::try_from(number).expect("a small number")];
        // A pause may count for at most as much as a gap that is not yet a pause.
        let silence = self.observed.ran_ms - node.arrived.ran_ms
            + (self.observed.pauses - node.arrived.pauses) * PAUSE.0;
        assert!(
            silence >= node.promised.0,
            "node {number}: {silence} ms of silence, {} promised",
            node.promised
        );
    }

    pub(super) fn tick_leases(&mut self) {
        let (now, mut due) = (self.now(), Vec::new());
        let held = self.clock.expiry_held(now);
        self.table.due(now, held, |_| true, &mut due);
        for due in due {
            let Due::Gone { key, incarnation, beat } = due else {
                continue;
            };
            let number = key.node.0;
            assert!(held.is_none(), "proposed although expiry is held");
            self.assert_a_whole_lease_of_silence(number);
            let awake = self.observed.ran_ms - self.ran_at_resume;
            assert!(awake >= self.settings.awake.0, "the observer was awake for only {awake} ms");
            self.node(number).ending = true;
            self.log.push_back(Record::Gone(number, incarnation, beat));
        }
    }
}

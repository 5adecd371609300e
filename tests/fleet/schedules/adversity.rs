//! One schedule: a lease table, its log, two nodes, and whatever may happen to them.

use dormouse_proto::ids::{Beat, CallId, Group, Incarnation, NodeId, Revision};
use dormouse_relay::liveness::{
    Activity, Contact, Due, Ended, Evidence, Heard, LeaseKey, LeasePolicy, LeaseSettings, LeaseTable, Millis,
    Restored, Session, Timestamp, UndeclaredFreeze, guard::HoldReason,
};
use fastrand::Rng;

use super::{Defect, Stats};
use crate::fleet::oracle::{Complaint, Oracle};

const NODES: usize = 2;
const HERE: Session = Session(1);
const ELSEWHERE: Session = Session(2);
/// Longer than all leases of a schedule together.
const LONG_SILENCE_MS: u64 = 100_000;

/// Short leases, so that much happens in few steps.
fn leases(undeclared_freeze: UndeclaredFreeze) -> LeaseSettings {
    LeaseSettings {
        awake: Millis(1_000),
        asleep: Millis(5_000),
        asleep_min: Millis(5_000),
        asleep_max: Millis(5_000),
        margin: Millis(100),
        suspect_grace: Millis(500),
        undeclared_freeze,
    }
}

#[derive(Default)]
struct Node {
    /// Newest incarnation that ever joined, and newest beat that was ever sent.
    incarnation: u64,
    beat: u64,
    /// All that it and its clones and predecessors ever sent.
    sent: Vec<Contact>,
    /// What the fold knows: newest evidence, and when its lease ends.
    folded: Option<(Evidence, u64)>,
}

pub(super) struct Adversity {
    pub(super) rng: Rng,
    defect: Defect,
    policy: LeasePolicy,
    table: LeaseTable,
    oracle: Oracle,
    group: Group,
    /// Time goes on while the relay is away; the table's began at its start.
    time_ms: u64,
    started_ms: u64,
    hold: Option<HoldReason>,
    nodes: Vec<Node>,
    /// Evidence on its way through the log.
    log: Vec<(usize, Evidence, Session)>,
    /// Ends that were proposed and have no verdict.
    verdicts: Vec<(usize, Incarnation, Beat)>,
    pub(super) stats: Stats,
}

fn key(node: usize) -> LeaseKey {
    LeaseKey { namespace: 0, node: NodeId(node as u64) }
}

impl Adversity {
    pub(super) fn new(seed: u64, defect: Defect) -> Self {
        let mut rng = Rng::with_seed(seed);
        let freeze = if rng.bool() { UndeclaredFreeze::Allow } else { UndeclaredFreeze::Deny };
        let leases = leases(freeze);
        let policy = LeasePolicy::new(leases, []).expect("the leases make sense");
        let mut world = Self {
            rng,
            defect,
            table: LeaseTable::new(policy.clone()),
            policy,
            oracle: Oracle::new(NODES, leases.awake),
            group: "g".parse().expect("a name"),
            time_ms: 0,
            started_ms: 0,
            hold: None,
            nodes: (0..NODES).map(|_| Node::default()).collect(),
            log: Vec::new(),
            verdicts: Vec::new(),
            stats: Stats::default(),
        };
        (0..NODES).for_each(|node| world.join(node));
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.time_ms - self.started_ms)
    }

    pub(super) fn step(&mut self) -> Complaint {
        let node = self.rng.usize(0..NODES);
        match self.rng.u8(0..64) {
            0..=11 => self.time_ms += self.rng.u64(0..1_500),
            12..=14 => self.time_ms += self.rng.u64(0..40_000),
            15..=23 => return self.call(node),
            24..=26 => return self.call_again(node),
            27..=28 => return self.call_of_another_incarnation(node),
            29..=30 => return self.call_of_a_clone(node),
            31..=37 => return self.read_evidence(),
            38..=40 => self.call_elsewhere(node),
            41..=52 => return self.look(),
            53..=57 => return self.read_verdict(),
            58..=59 => self.turn_hold(),
            60..=62 => return self.join_or_leave(node),
            _ => self.restart(),
        }
        Ok(())
    }

    fn activity(&mut self) -> Activity {
        let remaining = self.rng.bool().then(|| Millis(self.rng.u64(0..3_000)));
        match self.rng.u8(0..4) {
            0 | 1 => Activity::Asleep,
            2 => Activity::Awake { remaining, then_asleep: true },
            _ => Activity::Awake { remaining, then_asleep: false },
        }
    }

    /// A new incarnation, of a node that ended or of one that still lives.
    fn join(&mut self, number: usize) {
        let (now, time_ms) = (self.now(), self.time_ms);
        let node = &mut self.nodes[number];
        node.incarnation += 1;
        node.beat += 1;
        let activity = Activity::Awake { remaining: None, then_asleep: false };
        let (incarnation, beat) = (Incarnation(node.incarnation), Beat(node.beat));
        let evidence = Evidence { incarnation, beat, activity, ttl: Millis(1_000) };
        node.folded = Some((evidence, time_ms + evidence.ttl.0));
        self.table.admitted(now, key(number), &self.group, &evidence, HERE);
        self.oracle.admitted(now.0, number, &evidence);
    }

    fn join_or_leave(&mut self, number: usize) -> Complaint {
        let Some((folded, _)) = self.nodes[number].folded else {
            self.join(number);
            return Ok(());
        };
        match self.rng.u8(0..4) {
            0 => self.join(number),
            // The record of a Join is read a second time.
            1 => {
                let ttl = Millis(1_000);
                let evidence = Evidence { ttl, ..folded };
                self.table.admitted(self.now(), key(number), &self.group, &evidence, HERE);
                self.oracle.admitted(self.now().0, number, &evidence);
            }
            2 => return self.end(number, folded.incarnation, Ended::Told),
            // An end of whom the table does not know.
            _ => {
                let stale = Incarnation(folded.incarnation.0 - 1);
                let known = self.table.ended(self.now(), key(number), stale, Ended::Told);
                return self.oracle.ended(number, stale.0, known);
            }
        }
        Ok(())
    }

    fn end(&mut self, number: usize, incarnation: Incarnation, how: Ended) -> Complaint {
        self.nodes[number].folded = None;
        let known = self.table.ended(self.now(), key(number), incarnation, how);
        self.oracle.ended(number, incarnation.0, known)
    }

    fn call(&mut self, number: usize) -> Complaint {
        let (activity, call_id) = (self.activity(), CallId(self.rng.u64(1..)));
        let node = &mut self.nodes[number];
        node.beat += 1;
        let (incarnation, beat) = (Incarnation(node.incarnation), Beat(node.beat));
        let contact = Contact { incarnation, beat, call_id, activity, head: Revision::ZERO };
        node.sent.push(contact);
        // Some are overtaken: they arrive only when they are sent again.
        if self.rng.u8(0..8) == 0 { Ok(()) } else { self.arrive(number, contact) }
    }

    fn call_again(&mut self, number: usize) -> Complaint {
        let sent = &self.nodes[number].sent;
        match sent.get(self.rng.usize(0..=sent.len())).copied() {
            Some(contact) => self.arrive(number, contact),
            None => Ok(()),
        }
    }

    /// A zombie, or a node whose Join this relay has not read yet. Its beat may be above all others.
    fn call_of_another_incarnation(&mut self, number: usize) -> Complaint {
        let (activity, call_id, ahead) = (self.activity(), CallId(self.rng.u64(1..)), self.rng.u64(0..5));
        let node = &self.nodes[number];
        let other = if self.rng.bool() { node.incarnation - 1 } else { node.incarnation + 1 };
        let (incarnation, beat) = (Incarnation(other), Beat(node.beat + ahead));
        self.arrive(number, Contact { incarnation, beat, call_id, activity, head: Revision::ZERO })
    }

    fn call_of_a_clone(&mut self, number: usize) -> Complaint {
        let Some(contact) = self.nodes[number].sent.last().copied() else {
            return Ok(());
        };
        let clone = Contact { call_id: CallId(self.rng.u64(1..)), ..contact };
        self.arrive(number, clone)
    }

    fn arrive(&mut self, number: usize, contact: Contact) -> Complaint {
        let now = self.now();
        let mut shown = contact;
        if let (Defect::IncarnationIgnored, Some(living)) = (self.defect, self.oracle.living(number)) {
            shown.incarnation = Incarnation(living);
        }
        let answer = self.table.heard(now, key(number), &shown);
        match answer {
            Heard::Granted { ttl_applied: ttl, .. } => {
                let Contact { incarnation, beat, activity, .. } = contact;
                self.log.push((number, Evidence { incarnation, beat, activity, ttl }, HERE));
                self.stats.granted += 1;
            }
            Heard::NotNewer { .. } => self.stats.not_newer += 1,
            Heard::Forked => self.stats.forked += 1,
            Heard::OtherIncarnation { .. } => self.stats.other_incarnation += 1,
            Heard::Ending | Heard::Unknown => {}
        }
        self.oracle.heard(now.0, number, &contact, answer)
    }

    /// A call to another relay shows only in the log. A clone's may be of a beat that is known here.
    fn call_elsewhere(&mut self, number: usize) {
        let (activity, ttl) = (self.activity(), Millis(self.rng.u64(1_000..8_000)));
        let node = &mut self.nodes[number];
        node.beat += u64::from(self.rng.u8(0..4) > 0);
        let zombie = u64::from(self.rng.u8(0..8) == 0);
        let (incarnation, beat) = (Incarnation(node.incarnation - zombie), Beat(node.beat));
        self.log.push((number, Evidence { incarnation, beat, activity, ttl }, ELSEWHERE));
    }

    /// Of whatever is under way: late, in another order, and some of it twice.
    fn read_evidence(&mut self) -> Complaint {
        if self.log.is_empty() {
            return Ok(());
        }
        let place = if self.rng.bool() { 0 } else { self.rng.usize(0..self.log.len()) };
        let twice = self.rng.u8(0..4) == 0;
        let (number, evidence, by) = if twice { self.log[place] } else { self.log.remove(place) };
        let node = &mut self.nodes[number];
        let newest = node.folded.is_some_and(|(known, _)| {
            known.incarnation == evidence.incarnation && known.beat < evidence.beat
        });
        if newest {
            node.folded = Some((evidence, self.time_ms + evidence.ttl.0));
        }
        let now = self.now();
        let counted = self.table.evidence_applied(now, key(number), &evidence, by);
        self.stats.evidence += u64::from(counted);
        self.stats.evidence_refused += u64::from(!counted);
        self.oracle.applied(now.0, number, &evidence, counted)
    }

    fn turn_hold(&mut self) {
        let reasons = [HoldReason::Started, HoldReason::Paused, HoldReason::LogLost];
        self.hold = if self.hold.is_none() { self.rng.choice(reasons) } else { None };
    }

    fn look(&mut self) -> Complaint {
        let (now, mut due) = (self.now(), Vec::new());
        // A relay does not answer for leases that another one holds.
        let answers = self.rng.u8(0..8) > 0;
        let hold = self.hold.filter(|_| self.defect != Defect::HoldForgotten);
        let ahead = if self.defect == Defect::Hasty { Millis(100) } else { Millis(0) };
        self.table.due(now + ahead, hold, |_| answers, &mut due);
        for due in &due {
            if let Due::Gone { key, incarnation, beat } = *due {
                let number = usize::try_from(key.node.0).unwrap_or(usize::MAX);
                self.verdicts.push((number, incarnation, beat));
                self.stats.proposed += 1;
            }
        }
        self.stats.held += u64::from(self.hold.is_some());
        self.oracle.concluded(now.0, self.hold.is_some() || !answers, &due)
    }

    /// The log tells an end that was proposed, and it is void if the fold knows of anything newer. Some never get
    /// into the log.
    fn read_verdict(&mut self) -> Complaint {
        if self.verdicts.is_empty() {
            return Ok(());
        }
        let (number, incarnation, beat) = self.verdicts.swap_remove(self.rng.usize(0..self.verdicts.len()));
        let lost = self.rng.u8(0..4) == 0;
        let newest = self.nodes[number].folded.map(|(known, _)| (known.incarnation, known.beat));
        let valid = newest.is_some_and(|(living, known)| living == incarnation && known <= beat);
        if valid && !lost {
            self.stats.ended += 1;
            return self.end(number, incarnation, Ended::Silent);
        }
        self.stats.rejected += 1;
        self.table.gone_rejected(self.now(), key(number), incarnation, beat);
        self.oracle.rejected(number, incarnation.0, beat.0);
        Ok(())
    }

    /// A new relay knows what the fold knows, and nothing of what was only heard.
    fn restart(&mut self) {
        self.stats.restarts += 1;
        self.time_ms += self.rng.u64(0..3_000);
        self.started_ms = self.time_ms;
        self.table = LeaseTable::new(self.policy.clone());
        self.oracle = Oracle::new(NODES, leases(UndeclaredFreeze::Deny).awake);
        self.verdicts.clear();
        for (number, node) in self.nodes.iter().enumerate() {
            let Some((evidence, until_ms)) = node.folded else {
                continue;
            };
            let left = Millis(until_ms.saturating_sub(self.time_ms));
            let evidence = Evidence { ttl: left, ..evidence };
            let restored = Restored { key: key(number), group: self.group.clone(), evidence, holder: HERE };
            self.table.restored(self.now(), [restored]);
            self.oracle.restored(self.now().0, number, &evidence);
        }
    }

    /// Nobody calls any more, nothing holds expiry, no verdict comes: whoever lives is proposed to be gone.
    pub(super) fn fall_silent(&mut self) -> Complaint {
        for _ in 0..3 {
            self.time_ms += LONG_SILENCE_MS;
            let (now, mut due) = (self.now(), Vec::new());
            self.table.due(now, None, |_| true, &mut due);
            self.oracle.concluded(now.0, false, &due)?;
        }
        self.oracle.all_proposed()
    }
}

//! The project's own lease table, told what a relay tells it.

use dormouse_proto::ids::{Beat, CallId, Group, Incarnation, NodeId, Revision};
use dormouse_relay::liveness::{
    Activity, Contact, Due, Ended, Evidence, Heard, LeaseKey, LeasePolicy, LeaseSettings, LeaseTable, Millis,
    Session, Timestamp,
};

use super::{Detector, Opinion, Verdict};

/// The one relay.
const HERE: Session = Session(1);
const NAMESPACE: u32 = 0;
/// What an invocation has left at its calls.
const REMAINING: Millis = Millis::from_secs(900);
/// The golden ratio in 32 bits: what lies close together is far apart behind it.
const SPREAD: u32 = 0x9E37_79B9;
/// The keeper of a relay draws its conclusions about groups once a second.
const REFIT_MS: u64 = 1_000;
const AWAKE: Activity = Activity::Awake { remaining: Some(REMAINING), then_asleep: false };

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    incarnation: Incarnation,
    beat: Beat,
    group: usize,
}

/// A relay that is alone: the log tells at once what was appended, and a Gone that is proposed takes effect.
#[derive(Debug)]
pub struct Dormouse {
    table: LeaseTable,
    groups: Vec<Group>,
    nodes: Vec<Node>,
    due: Vec<Due>,
    unexpected: u64,
}

/// Node ids are drawn at random, and the table's jitter rests on that: their upper half is spread here.
fn key(node: u32) -> LeaseKey {
    let spread = node.wrapping_mul(SPREAD);
    LeaseKey { namespace: NAMESPACE, node: NodeId(u64::from(spread) << 32 | u64::from(node)) }
}

fn node_of(key: LeaseKey) -> u32 {
    u32::try_from(key.node.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

impl Dormouse {
    /// Nobody yet. That many groups, all with these leases.
    ///
    /// # Errors
    ///
    /// Leases that make no sense are refused.
    pub fn new(leases: LeaseSettings, groups: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let groups =
            (0..groups).map(|group| format!("g{group}").parse()).collect::<Result<Vec<Group>, _>>()?;
        let table = LeaseTable::new(LeasePolicy::new(leases, [])?);
        Ok(Self { table, groups, nodes: Vec::new(), due: Vec::new(), unexpected: 0 })
    }

    /// Answers of the table that a node without rivals on a perfect network must not get.
    pub fn unexpected(&self) -> u64 {
        self.unexpected
    }

    /// The table is told of a Join, or of the next incarnation of a node that it took for dead.
    fn admit(&mut self, now: Timestamp, node: u32) {
        let known = &mut self.nodes[node as usize];
        known.incarnation = Incarnation(known.incarnation.0 + 1);
        let ttl = self.table.policy().of(&self.groups[known.group]).when_applied(AWAKE);
        let evidence = Evidence { incarnation: known.incarnation, beat: known.beat, activity: AWAKE, ttl };
        self.table.admitted(now, key(node), &self.groups[known.group], &evidence, HERE);
    }

    fn call(&mut self, now: Timestamp, node: u32, activity: Activity) {
        let known = &mut self.nodes[node as usize];
        known.beat = Beat(known.beat.0 + 1);
        let Node { incarnation, beat, .. } = *known;
        let head = Revision::ZERO;
        let contact = Contact { incarnation, beat, call_id: CallId(beat.0), activity, head };
        match self.table.heard(now, key(node), &contact) {
            Heard::Granted { ttl_applied: ttl, .. } if activity == Activity::Asleep => {
                let evidence = Evidence { incarnation, beat, activity, ttl };
                let counted = self.table.evidence_applied(now, key(node), &evidence, HERE);
                self.unexpected += u64::from(!counted);
            }
            Heard::Granted { .. } => {}
            Heard::Unknown => self.admit(now, node),
            _ => self.unexpected += 1,
        }
    }
}

impl Detector for Dormouse {
    fn joined(&mut self, now_ms: u64, node: u32, group: u32) {
        let index = node as usize;
        self.nodes.resize(self.nodes.len().max(index + 1), Node::default());
        self.nodes[index] = Node { incarnation: Incarnation(0), beat: Beat(1), group: group as usize };
        self.admit(Timestamp(now_ms), node);
    }

    fn woke(&mut self, now_ms: u64, node: u32) {
        self.call(Timestamp(now_ms), node, AWAKE);
    }

    fn beat(&mut self, now_ms: u64, node: u32) {
        self.call(Timestamp(now_ms), node, AWAKE);
    }

    fn slept(&mut self, now_ms: u64, node: u32) {
        self.call(Timestamp(now_ms), node, Activity::Asleep);
    }

    fn left(&mut self, now_ms: u64, node: u32) {
        let incarnation = self.nodes[node as usize].incarnation;
        let known = self.table.ended(Timestamp(now_ms), key(node), incarnation, Ended::Told);
        self.unexpected += u64::from(!known);
    }

    fn judge(&mut self, now_ms: u64, verdicts: &mut Vec<Verdict>) {
        let mut due = std::mem::take(&mut self.due);
        self.table.due(Timestamp(now_ms), None, |holder| holder == HERE, &mut due);
        for due in due.drain(..) {
            let (key, opinion) = match due {
                Due::Suspect { key, .. } => (key, Opinion::Suspect),
                Due::Gone { key, incarnation, .. } => {
                    let known = self.table.ended(Timestamp(now_ms), key, incarnation, Ended::Silent);
                    self.unexpected += u64::from(!known);
                    (key, Opinion::Gone)
                }
            };
            verdicts.push(Verdict { node: node_of(key), opinion });
        }
        self.due = due;
        if now_ms.is_multiple_of(REFIT_MS) {
            self.table.refit(Timestamp(now_ms));
        }
    }

    fn expected_alive(&self) -> Option<f64> {
        Some(self.table.expected_alive(NAMESPACE))
    }

    fn p_alive(&self, now_ms: u64, node: u32) -> Option<f64> {
        self.table.view(key(node), Timestamp(now_ms)).map(|view| view.p_alive)
    }
}

//! A Sync call at a relay, as `relay/src/grpc/sync.rs` answers it, without its waiting and its leases.

use std::collections::BTreeMap;

use dormouse_proto::{
    convert::PushRequest,
    ids::{Beat, BootId, CallId, Group, Incarnation, NodeId, Revision},
    record::{Cause, Contact, Join, Push, Record},
    rows::RowWriter,
    wire::v1::{self, lease::Admission, sync_response as response},
};
use dormouse_relay::state::{JoinVerdict, PushVerdict, Touched, Verdict};
use prost::Message as _;

use crate::{
    answer::{reason_word, refuse},
    namespace,
    violation::Violation,
    world::World,
};

/// What a node sends.
#[derive(Clone, Debug)]
pub struct Request {
    /// The number of its namespace.
    pub space: usize,
    /// Whose process it is.
    pub boot_id: BootId,
    /// As the last lease said.
    pub node: Option<(NodeId, Incarnation)>,
    /// Raised at every transmission.
    pub beat: Beat,
    /// Drawn for every call.
    pub call_id: CallId,
    /// The highest revision that the node was ever shown.
    pub head: u64,
    /// What it pushes.
    pub push: Option<v1::Push>,
    /// What it pulls.
    pub pull: Option<v1::Pull>,
    /// The bound of the chunk; below what the wire allows, so that a few rows need many chunks.
    pub max_bytes: usize,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum NoAnswer {
    /// The relay does not reach the log, or has not started.
    Unreachable,
    /// The membership was ended by somebody with the right to do so.
    Evicted,
    /// An invariant is broken.
    Broken(Violation),
}

impl From<Violation> for NoAnswer {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    pub(crate) node: NodeId,
    incarnation: Incarnation,
    how: Admission,
}

enum Known {
    Live { incarnation: Incarnation, same_process: bool },
    Ended { incarnation: Incarnation, same_process: bool, evicted: bool },
    Nothing,
}

const TRIES: u32 = 4;

/// A call at a relay.
pub struct Call<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) relay: usize,
    pub(crate) request: &'a Request,
}

impl<'a> Call<'a> {
    /// A call that has arrived.
    pub fn new(world: &'a mut World, relay: usize, request: &'a Request) -> Self {
        Self { world, relay, request }
    }

    /// The answer.
    ///
    /// # Errors
    /// If there is none.
    pub fn run(mut self) -> Result<v1::SyncResponse, NoAnswer> {
        if !self.world.relays[self.relay].has_state {
            return Err(NoAnswer::Unreachable);
        }
        if self.world.relays[self.relay].connected && self.revision() < self.request.head {
            self.world.catch_up(self.relay, self.world.log.len())?;
        }
        let mut admitted = self.admit()?;
        let mut answer = v1::SyncResponse::default();
        if let Some(push) = self.request.push.clone() {
            let push = PushRequest::try_from(push).expect("the replica seals only what is acceptable");
            self.push(&mut admitted, &push, &mut answer)?;
        }
        answer.lease = Some(v1::Lease {
            node_id: admitted.node.to_string(),
            incarnation: admitted.incarnation.0,
            ttl_ms: 3_000,
            admission: admitted.how as i32,
            send_tags: false,
        });
        self.pull(&admitted, &mut answer)?;
        Ok(answer)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.world.relays[self.relay].revision().0
    }

    pub(crate) fn write(&mut self, record: Record) -> Result<Option<Verdict>, NoAnswer> {
        if !self.world.relays[self.relay].connected {
            return Err(NoAnswer::Unreachable);
        }
        Ok(self.world.write(self.relay, record)?)
    }

    // ---- admission ----

    fn admit(&mut self) -> Result<Admitted, NoAnswer> {
        let Some((node, incarnation)) = self.request.node else { return self.join_first() };
        match self.known(node) {
            Known::Live { incarnation: living, same_process: true } => {
                let how = if living == incarnation { Admission::Renewed } else { Admission::Readmitted };
                Ok(Admitted { node, incarnation: living, how })
            }
            Known::Ended { evicted: true, .. } => Err(NoAnswer::Evicted),
            Known::Ended { incarnation: ended, same_process: true, .. } => {
                self.rejoin(node, ended.max(incarnation).next(), incarnation)
            }
            Known::Live { .. } | Known::Ended { .. } => self.become_another(node, Admission::Forked),
            Known::Nothing => self.rejoin(node, incarnation.next(), incarnation),
        }
    }

    fn known(&self, node: NodeId) -> Known {
        let boot_id = self.request.boot_id;
        let fold = &self.world.relays[self.relay].machine.fold;
        let Some(view) = fold.namespace(namespace(self.request.space)) else { return Known::Nothing };
        if let Some(member) = view.member(node) {
            let same_process = member.boot_id == boot_id;
            return Known::Live { incarnation: member.incarnation, same_process };
        }
        view.tombstone(node).map_or(Known::Nothing, |tombstone| Known::Ended {
            incarnation: tombstone.incarnation,
            same_process: tombstone.boot_id == boot_id,
            evicted: tombstone.cause == Cause::Evicted,
        })
    }

    fn join_first(&mut self) -> Result<Admitted, NoAnswer> {
        let boot_id = self.request.boot_id;
        for attempt in 0..TRIES {
            let node = node_id(&[&boot_id.0, &attempt.to_le_bytes()]);
            match self.known(node) {
                Known::Live { incarnation, same_process: true } => {
                    return Ok(Admitted { node, incarnation, how: Admission::Joined });
                }
                Known::Ended { incarnation, same_process: true, evicted: false } => {
                    return self.rejoin(node, incarnation.next(), incarnation);
                }
                Known::Ended { evicted: true, same_process: true, .. } => return Err(NoAnswer::Evicted),
                Known::Live { .. } | Known::Ended { .. } => {}
                Known::Nothing => match self.join(node, Incarnation(1), None)? {
                    JoinVerdict::Admitted { .. } => {
                        return Ok(Admitted { node, incarnation: Incarnation(1), how: Admission::Joined });
                    }
                    JoinVerdict::Evicted => return Err(NoAnswer::Evicted),
                    _ => {}
                },
            }
        }
        Err(NoAnswer::Unreachable)
    }

    fn rejoin(
        &mut self,
        node: NodeId,
        mut next: Incarnation,
        previous: Incarnation,
    ) -> Result<Admitted, NoAnswer> {
        let how = Admission::Readmitted;
        for _ in 0..TRIES {
            match self.join(node, next, Some(previous))? {
                JoinVerdict::Admitted { .. } => {
                    self.world.stats.readmitted += 1;
                    return Ok(Admitted { node, incarnation: next, how });
                }
                JoinVerdict::Forgotten => return self.become_another(node, Admission::Forgotten),
                JoinVerdict::Superseded => match self.known(node) {
                    Known::Live { incarnation, same_process: true } => {
                        return Ok(Admitted { node, incarnation, how });
                    }
                    Known::Ended { incarnation, same_process: true, .. } => next = incarnation.next(),
                    _ => return self.become_another(node, Admission::Forked),
                },
                JoinVerdict::Evicted => return Err(NoAnswer::Evicted),
                JoinVerdict::Full => break,
            }
        }
        Err(NoAnswer::Unreachable)
    }

    fn become_another(&mut self, was: NodeId, how: Admission) -> Result<Admitted, NoAnswer> {
        let salt = self.request.call_id.0.to_le_bytes();
        let node = node_id(&[&self.request.boot_id.0, &was.0.to_le_bytes(), &salt]);
        match self.join(node, Incarnation(1), None)? {
            JoinVerdict::Admitted { .. } => {
                match how {
                    Admission::Forked => self.world.stats.forked += 1,
                    _ => self.world.stats.forgotten += 1,
                }
                Ok(Admitted { node, incarnation: Incarnation(1), how })
            }
            _ => Err(NoAnswer::Unreachable),
        }
    }

    fn join(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        previous: Option<Incarnation>,
    ) -> Result<JoinVerdict, NoAnswer> {
        let join = Join {
            namespace: namespace(self.request.space).clone(),
            node,
            incarnation,
            previous,
            boot_id: self.request.boot_id,
            group: "g".parse::<Group>().expect("a group"),
            tags: BTreeMap::new(),
            contact: Some(contact(Beat(0))),
        };
        let verdict = self.write(Record::Join(join))?;
        self.world.say(|| format!("   join {node}/{incarnation} after {previous:?}: {verdict:?}"));
        match verdict {
            Some(Verdict::Join(verdict)) => Ok(verdict),
            // The relay takes the frame for one that it has applied, so it takes the node for admitted.
            _ => Ok(JoinVerdict::Admitted { again: true }),
        }
    }

    // ---- the push ----

    fn push(
        &mut self,
        admitted: &mut Admitted,
        push: &PushRequest,
        answer: &mut v1::SyncResponse,
    ) -> Result<(), NoAnswer> {
        if matches!(admitted.how, Admission::Forked | Admission::Forgotten) {
            // Whose push it was is not this node any more: only the client can tell what to repeat.
            if admitted.how == Admission::Forgotten {
                refuse(answer, "OUTCOME_UNKNOWN", &[]);
            }
            return Ok(());
        }
        for _ in 0..TRIES {
            if !self.world.relays[self.relay].connected {
                refuse(answer, "LOG_UNREACHABLE", &[]);
                return Ok(());
            }
            let decided = self.push_once(admitted, push, answer)?;
            if decided || matches!(admitted.how, Admission::Forked | Admission::Forgotten) {
                return Ok(());
            }
        }
        refuse(answer, "BUSY", &[]);
        Ok(())
    }

    fn push_once(
        &mut self,
        admitted: &mut Admitted,
        push: &PushRequest,
        answer: &mut v1::SyncResponse,
    ) -> Result<bool, NoAnswer> {
        let record = Record::Push(Push {
            namespace: namespace(self.request.space).clone(),
            node: admitted.node,
            incarnation: admitted.incarnation,
            push_no: push.push_no,
            push_id: push.push_id,
            deltas: push.deltas.clone(),
            contact: Some(contact(self.request.beat)),
        });
        if self.world.faults.late && self.world.chance(0.2) {
            self.world.late.push(record.clone());
        }
        self.world.stats.pushes += 1;
        let verdict = match self.write(record)? {
            Some(Verdict::Push(verdict)) => verdict,
            // The relay takes the frame for one that it has applied, and acknowledges.
            _ => PushVerdict::Bound { revision: Revision(self.revision()), duplicate: true },
        };
        let no = push.push_no;
        self.world.say(|| format!("   push {no} of {}/{}: {verdict:?}", admitted.node, admitted.incarnation));
        match verdict {
            PushVerdict::Bound { revision, .. } => {
                let ack = self.ack(admitted.node, push, revision);
                answer.push_result = Some(response::PushResult::Pushed(ack));
            }
            PushVerdict::Refused(refused) => {
                self.world.stats.refused += 1;
                refuse(answer, reason_word(refused.reason), &refused.deltas);
            }
            PushVerdict::Fork => *admitted = self.become_another(admitted.node, Admission::Forked)?,
            PushVerdict::Old => {
                *admitted = self.become_another(admitted.node, Admission::Forgotten)?;
                refuse(answer, "OUTCOME_UNKNOWN", &[]);
            }
            PushVerdict::Unknown => {
                *admitted = self.admit()?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn ack(&self, node: NodeId, push: &PushRequest, revision: Revision) -> v1::PushAck {
        let fold = &self.world.relays[self.relay].machine.fold;
        let mut ack = v1::PushAck {
            push_no: push.push_no.0,
            revision: revision.0,
            as_of: fold.revision().0,
            durability: v1::push_ack::Durability::Fsync as i32,
            keys: Vec::new(),
        }
        .encode_to_vec();
        if let Some(view) = fold.namespace(namespace(self.request.space)) {
            let mut writer = RowWriter::new(&mut ack, RowWriter::PUSH_ACK);
            let touched = Touched { deltas: &push.deltas, bound_at: revision, author: Some(node) };
            view.write_touched(&touched, usize::MAX, &mut writer);
            writer.finish();
        }
        v1::PushAck::decode(ack.as_slice()).expect("an acknowledgement decodes")
    }
}

fn contact(beat: Beat) -> Contact {
    Contact { beat, asleep: false, lease_ms: 3_000, awake_ms: 0 }
}

/// Follows from what is given, as in the relay; any function that spreads will do.
fn node_id(parts: &[&[u8]]) -> NodeId {
    let bytes = parts.iter().copied().flatten();
    NodeId(bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
    }))
}

//! A node: the project's replica, an identity, a clock that is wrong, and the shadow of what it was shown.

use dormouse::{
    replica::{
        Follow, Replica,
        message::{Fate, Report},
    },
    simulation,
};
use dormouse_proto::{
    ids::{Beat, BootId, CallId, OnceId, PushId, Revision},
    lattice::{Type, Value},
    traps::Trap,
    wire::v1::{self, chunk::Restart, lease::Admission, sync_response as response},
};
use fastrand::Rng;

use crate::{
    machine::traps,
    rows::{self, COLLECTIONS, RowNo, Shown},
    said::{Op, Shadow},
    sync::{Call, NoAnswer, Request},
    trace,
    violation::Violation,
    world::World,
};

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Which, in traces.
    pub name: usize,
    /// The code under test.
    pub replica: Replica,
    /// What it was really shown.
    pub shadow: Shadow,
    /// Whether the members' rows are followed.
    pub follows_members: bool,
    boot_id: BootId,
    beat: u64,
    skew_ms: i64,
}

/// What a call carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carries {
    /// What waits is sealed and pushed.
    pub push: bool,
    /// The backlog is asked for.
    pub pull: bool,
    /// The bound of the chunk.
    pub max_bytes: usize,
}

impl Node {
    /// A process at its first wake.
    pub fn new(name: usize, rng: &mut Rng, trap: Option<Trap>) -> Self {
        let follows_members = rng.bool();
        let mut names: Vec<String> = if rng.bool() {
            vec![Follow::ALL.into()]
        } else {
            COLLECTIONS.iter().map(ToString::to_string).collect()
        };
        names.extend(follows_members.then(|| Follow::MEMBERS.to_owned()));
        let follow = Follow::new(names).expect("collections of the world are well named");
        Self {
            name,
            replica: Replica::new(follow, 1 << 20).with_traps(traps(trap)),
            shadow: Shadow::default(),
            follows_members,
            boot_id: BootId(rng.u128(..).to_be_bytes()),
            beat: 0,
            skew_ms: rng.i64(-60..60),
        }
    }

    /// What it shows of a row; `None`: it says that it does not know.
    pub fn view(&self, row: RowNo) -> Option<Shown> {
        let it = &rows::all()[row];
        match (it.kind, &it.element) {
            (Type::Set, Some(element)) => {
                self.replica.set_contains(&it.path, element.as_str()).map(Shown::Element)
            }
            (Type::Set, None) => None,
            (Type::Counter, _) => self.replica.counter(&it.path).map(Shown::Counter),
            (Type::Register, _) => {
                self.replica.register(&it.path).map(|value| Shown::Register(value.cloned()))
            }
        }
    }

    /// Seals what waits, if nothing is under way. Never before it has an identity.
    fn seal(&mut self, push_id: PushId, registry: &mut crate::said::Registry) {
        if self.replica.sealed().is_some() || self.replica.node().is_none() {
            return;
        }
        match self.replica.seal(push_id) {
            Some(push) => {
                let touched: Vec<RowNo> = push.deltas().iter().flat_map(rows::touched).collect();
                self.shadow.seal(push_id, &touched, registry);
            }
            None => self.shadow.waiting.clear(),
        }
    }
}

// ---- what the program does ----

impl World {
    /// The program changes a row, by what it sees of it.
    pub fn edit(&mut self, node: usize, row: RowNo) {
        let it = &rows::all()[row];
        let seen = self.nodes[node].view(row).unwrap_or(Shown::nothing(it.kind));
        self.say(|| format!("node {node} sees {} as {seen:?} and changes it", rows::name(row)));
        match (&seen, &it.element) {
            (Shown::Element(present), Some(element)) => {
                let removes = *present && self.chance(0.6);
                let node = &mut self.nodes[node];
                let said = if removes {
                    node.replica.set_remove(&it.path, element.clone())
                } else {
                    node.replica.set_add(&it.path, element.clone())
                };
                said.expect("the outbox is large");
                node.shadow.say(row, if removes { Op::Remove } else { Op::Add }, false);
            }
            (Shown::Counter(value), _) => self.count(node, row, *value),
            (Shown::Register(value), _) => {
                let deletes = value.is_some() && self.chance(0.4);
                let text = self.rng.u32(..).to_string();
                let stamp = self.now.saturating_add_signed(self.nodes[node].skew_ms);
                let node = &mut self.nodes[node];
                let value = (!deletes).then_some(Value::Text(text));
                node.replica.register_set(&it.path, value, stamp).expect("the outbox is large");
                node.shadow.say(row, Op::Write, false);
            }
            (Shown::Element(_), None) => {}
        }
    }

    fn count(&mut self, node: usize, row: RowNo, value: i64) {
        let path = &rows::all()[row].path;
        let resets = value != 0 && self.nodes[node].shadow.is_held(row) && self.chance(0.35);
        let (adds, once) = (!resets || self.chance(0.4), self.chance(0.15));
        // After a reset often the very value that was there: the value alone does not tell that anything changed.
        let amount = if resets { value } else { self.rng.i64(1..5) * if self.chance(0.33) { -1 } else { 1 } };
        let id = if self.chance(0.5) { self.rng.u32(..5) } else { self.rng.u32(..) };
        let node = &mut self.nodes[node];
        if resets {
            node.replica.counter_reset(path).expect("the outbox is large");
            node.shadow.say(row, Op::Count, true);
        }
        if adds {
            let said = if once && !resets {
                let id: OnceId = id.to_string().parse().expect("an id");
                node.replica.counter_add_once(path, id, amount)
            } else {
                node.replica.counter_add(path, amount)
            };
            said.expect("the outbox is large");
            node.shadow.say(row, Op::Count, false);
        }
    }

    /// A process is lost with all it held; another one starts in its place.
    pub fn cold_start(&mut self, node: usize) {
        self.nodes[node] = Node::new(node, &mut self.rng, self.trap);
        self.say(|| format!("node {node} starts anew"));
    }

    /// A process image is copied while no push is sealed.
    pub fn clone_node(&mut self, node: usize) {
        if self.nodes[node].replica.node().is_some() && self.nodes[node].replica.sealed().is_none() {
            let name = self.nodes.len();
            let clone = Node { name, ..self.nodes[node].clone() };
            self.nodes.push(clone);
            self.say(|| format!("node {node} is cloned as {name}"));
        }
    }
}

// ---- one round trip ----

impl World {
    /// One round trip at a relay, which may fail anywhere. Whether the node is caught up then.
    ///
    /// # Errors
    /// A broken invariant.
    pub fn call(&mut self, node: usize, relay: usize, carries: Carries) -> Result<bool, Violation> {
        let (push_id, call_id) = (PushId(self.rng.u64(..)), CallId(self.rng.u64(..)));
        let it = &mut self.nodes[node];
        if carries.push {
            it.seal(push_id, &mut self.registry);
        }
        it.beat += 1;
        let (push, pull, head) = simulation::outgoing(&mut it.replica);
        let mut request = Request {
            boot_id: it.boot_id,
            node: it.replica.node(),
            beat: Beat(it.beat),
            call_id,
            head,
            push: push.filter(|_| carries.push),
            pull: carries.pull.then(|| pull.clone()),
            max_bytes: carries.max_bytes,
        };
        if self.faults.regress
            && request.pull.is_none()
            && !self.truth().machine.fold.is_valid(Revision(head))
        {
            // Only a chunk can say that a history is lost, and the acknowledgement would hide that it is.
            request.pull = Some(pull);
        }
        self.say(|| {
            let push = request.push.as_ref().map(|push| push.push_no);
            format!(
                "node {node} calls relay {relay}: push {push:?}, pull {}, head {head}",
                request.pull.is_some()
            )
        });
        if self.chance(self.loss) {
            self.say(|| "   the request is lost".into());
            return Ok(false);
        }
        match Call::new(self, relay, &request).run() {
            Ok(_) if self.chance(self.loss) => {
                self.say(|| "   the answer is lost".into());
                Ok(false)
            }
            Ok(answer) => self.absorb(node, relay, &request, &answer),
            Err(NoAnswer::Unreachable) => Ok(false),
            Err(NoAnswer::Evicted) => {
                self.cold_start(node);
                Ok(false)
            }
            Err(NoAnswer::Broken(violation)) => Err(violation),
        }
    }

    fn absorb(
        &mut self,
        node: usize,
        relay: usize,
        request: &Request,
        answer: &v1::SyncResponse,
    ) -> Result<bool, Violation> {
        self.check_rows(node, relay, answer)?;
        let it = &mut self.nodes[node];
        let deltas = it.replica.sealed().map(|push| push.deltas().to_vec()).unwrap_or_default();
        let had_node = it.replica.node();
        let progress = simulation::absorb(&mut it.replica, answer.clone());
        let reports = it.replica.take_reports();
        self.say(|| trace::tell(answer, &reports));
        self.say(|| format!("   absorbed: {progress:?}"));
        self.follow_identity(node, answer, had_node.is_some(), &reports);
        self.follow_push(node, relay, answer, &deltas);
        let acks_sent = request.pull.as_ref().is_some_and(|pull| !pull.acked.is_empty());
        let caught_up = self.follow_chunk(node, relay, answer, acks_sent);
        let it = &mut self.nodes[node];
        if it.replica.sealed().is_none()
            && let Some((push_id, _)) = it.shadow.sealed.take()
        {
            self.acked.insert(push_id);
        }
        if it.replica.waiting() == 0 {
            it.shadow.waiting.clear();
        }
        if caught_up {
            self.check_view(node, relay)?;
        }
        Ok(caught_up)
    }

    /// Who the node is from now on, and what becomes of its sealed push for that.
    fn follow_identity(
        &mut self,
        node: usize,
        answer: &v1::SyncResponse,
        had_node: bool,
        reports: &[Report],
    ) {
        let shadow = &mut self.nodes[node].shadow;
        let unknown = reports.iter().any(|report| matches!(report.fate, Fate::Unknown { .. }));
        let admission = answer.lease.as_ref().map(v1::Lease::admission);
        if unknown {
            self.stats.at_risk += 1;
            shadow.risk();
        } else if admission == Some(Admission::Forked)
            || (admission == Some(Admission::Forgotten) && had_node)
            || (admission == Some(Admission::Readmitted) && self.trap == Some(Trap::Resend))
        {
            shadow.put_back(&self.registry, &[]);
        }
    }

    fn follow_push(
        &mut self,
        node: usize,
        relay: usize,
        answer: &v1::SyncResponse,
        deltas: &[dormouse_proto::lattice::Delta],
    ) {
        let truth = &self.truths[self.relays[relay].history];
        let shadow = &mut self.nodes[node].shadow;
        match &answer.push_result {
            Some(response::PushResult::Pushed(ack)) => {
                if let Some((push_id, said)) = shadow.sealed.take() {
                    self.acked.insert(push_id);
                    for row in said.keys() {
                        shadow.show(*row, ack.as_of, truth.dots(*row, ack.as_of));
                    }
                }
            }
            Some(response::PushResult::PushRefused(refused))
                if matches!(refused.reason.as_str(), "STALE" | "CONTEXT_INVALID" | "FIELD_INVALID") =>
            {
                let named = |nth: &usize| {
                    let field = format!("push.deltas[{nth}]");
                    refused.violations.is_empty() || refused.violations.iter().any(|it| it.field == field)
                };
                let stale: Vec<RowNo> =
                    (0..deltas.len()).filter(named).flat_map(|nth| rows::touched(&deltas[nth])).collect();
                shadow.put_back(&self.registry, &stale);
            }
            _ => {}
        }
    }

    /// Takes note of what a chunk showed; whether the node is caught up.
    fn follow_chunk(
        &mut self,
        node: usize,
        relay: usize,
        answer: &v1::SyncResponse,
        acks_sent: bool,
    ) -> bool {
        let Some(response::PullResult::Chunk(chunk)) = &answer.pull_result else { return false };
        let truth = &self.truths[self.relays[relay].history];
        let shadow = &mut self.nodes[node].shadow;
        self.stats.chunks += 1;
        match chunk.restart() {
            Restart::Unspecified => {}
            Restart::Compacted => self.stats.compacted += 1,
            Restart::Lost | Restart::BadToken => self.stats.lost += 1,
        }
        if chunk.restart() == Restart::Lost {
            shadow.lose_history();
        }
        let acked = acks_sent || matches!(answer.push_result, Some(response::PushResult::Pushed(_)));
        if chunk.restart() != Restart::Unspecified && acked {
            // The replica takes nothing of a chunk that left rows out for acknowledgements of before the restart.
            return false;
        }
        let told = rows::told(&chunk.keys).unwrap_or_default();
        self.stats.rows += told.len() as u64;
        for it in &told {
            shadow.show(it.row, chunk.as_of, truth.dots(it.row, chunk.as_of));
        }
        for (nth, name) in COLLECTIONS.iter().enumerate() {
            if chunk.caught_up || chunk.caught_up_in.iter().any(|it| it == name) {
                shadow.reach(nth, chunk.as_of);
            }
        }
        chunk.caught_up
    }
}

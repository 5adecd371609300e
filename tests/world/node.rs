//! A node: the project's replica, an identity, a clock that is wrong, and the shadow of what it was shown.

use std::collections::{BTreeMap, BTreeSet};

use dormouse::{
    replica::{
        Follow, Replica,
        message::{Fate, Report},
    },
    simulation,
};
use dormouse_proto::{
    ids::{Beat, BootId, CallId, NodeId, PushId, Revision},
    lattice::{Change, Delta, Type, Value},
    traps::Trap,
    wire::v1::{self, chunk::Restart, lease::Admission, sync_response as response},
};
use fastrand::Rng;

use crate::{
    machine::traps,
    rows::{self, COLLECTIONS, Event, RowNo, Shown},
    said::{Registry, Shadow},
    sync::{Call, NoAnswer, Request},
    told::told,
    trace,
    violation::{Violation, ensure},
    world::World,
};

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Which, in traces.
    pub name: usize,
    /// The number of its namespace.
    pub space: usize,
    /// The code under test.
    pub replica: Replica,
    /// What it was really shown.
    pub shadow: Shadow,
    /// What its program wants to follow; that may have to wait for an answer.
    pub wants: Vec<String>,
    /// What the program holds up, or has taken back; `true`: that may not have become so, and it was told.
    pub standing: BTreeMap<RowNo, (Option<Value>, bool)>,
    /// Messages that have arrived, by their senders' names for them.
    pub letters: BTreeSet<String>,
    /// The revision of the newest message in this history.
    pub newest_letter: u64,
    /// The newest answer told of a later push of its name than the one that it has under way.
    pub settled_other: bool,
    /// Whose process it is.
    pub boot_id: BootId,
    pub(crate) beat: u64,
    /// How wrong its clock is.
    pub skew_ms: i64,
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

/// What a node follows at first.
fn first_interest(rng: &mut Rng, picky: bool) -> Vec<String> {
    let members = rng.bool();
    let mut names: Vec<String> = if rng.bool() {
        vec![Follow::ALL.into()]
    } else {
        COLLECTIONS.iter().map(ToString::to_string).collect()
    };
    if picky {
        names.retain(|_| rng.bool());
    }
    names.extend(members.then(|| Follow::MEMBERS.to_owned()));
    names
}

impl Node {
    /// A process at its first wake. `picky`: it does not follow everything.
    pub fn new(name: usize, space: usize, rng: &mut Rng, picky: bool, trap: Option<Trap>) -> Self {
        let names = first_interest(rng, picky);
        let follow = Follow::new(names.clone()).expect("collections of the world are well named");
        Self {
            name,
            space,
            replica: Replica::new(follow, 1 << 20).with_traps(traps(trap)),
            shadow: Shadow::new(names.clone()),
            wants: names,
            standing: BTreeMap::new(),
            letters: BTreeSet::new(),
            newest_letter: 0,
            settled_other: false,
            boot_id: BootId(rng.u128(..).to_be_bytes()),
            beat: 0,
            skew_ms: rng.i64(-60..60),
        }
    }

    /// What it shows of a row; `None`: it says that it does not know.
    pub fn view(&self, row: RowNo) -> Option<Shown> {
        let (it, replica) = (&rows::all()[row], &self.replica);
        let (path, element) = (&it.path, it.element.as_ref().map_or("", |it| it.as_str()));
        match it.kind {
            Type::Set => replica.set_contains(path, element).map(Shown::Present),
            Type::GrowOnlySet => replica.grow_only_set_contains(path, element).map(Shown::Present),
            Type::RemoveWinsSet => replica.remove_wins_set_contains(path, element).map(Shown::Present),
            Type::Flag => replica.flag(path).map(Shown::Present),
            Type::DisableWinsFlag => replica.disable_wins_flag(path).map(Shown::Present),
            Type::Counter => replica.counter(path).map(Shown::Counter),
            Type::Register => replica.register(path).map(|value| Shown::Register(value.cloned())),
            Type::Max => replica.max(path).map(Shown::Number),
            Type::Min => replica.min(path).map(Shown::Number),
            Type::Siblings => {
                let one = |(at, value): (Option<Revision>, &Value)| (at.map_or(0, |it| it.0), value.clone());
                let all = replica.siblings_with_revisions(path)?;
                Some(Shown::Siblings(all.into_iter().map(one).collect()))
            }
            Type::Events => {
                let at = |at: Option<(Revision, u32)>| at.map_or((0, 0), |(at, index)| (at.0, index));
                let all = replica.events(path)?.into_iter();
                let all = all.map(|it| Event { at: at(it.at), payload: it.payload.clone() });
                Some(Shown::Events(all.collect()))
            }
            Type::Presence => {
                let all = replica.presence(path)?;
                Some(Shown::Holders(all.into_iter().map(|(node, value)| (node, value.clone())).collect()))
            }
        }
    }

    /// Seals what waits, if nothing is under way. Never before it has an identity.
    fn seal(&mut self, push_id: PushId, registry: &mut Registry) -> Result<(), Violation> {
        if self.replica.sealed().is_some() || self.replica.node().is_none() {
            return Ok(());
        }
        let Some(push) = self.replica.seal(push_id) else {
            self.shadow.waiting.clear();
            return Ok(());
        };
        let touched: Vec<RowNo> = push.deltas().iter().flat_map(rows::touched).collect();
        let held_up = |delta: &&Delta| matches!(delta.change, Change::Presence(_));
        for delta in push.deltas().iter().filter(held_up) {
            let said = rows::touched(delta).first().and_then(|row| self.standing.get(row));
            let Change::Presence(presence) = &delta.change else { continue };
            ensure(said.is_some_and(|said| said.0 == presence.value), || {
                format!("presence: node {} pushes {delta:?}, its program said {said:?}", self.name)
            })?;
        }
        self.shadow.seal(push_id, &touched, registry);
        Ok(())
    }

    /// An answer says what became of the newest push of its name.
    fn hear_of_pushes(&mut self, answer: &v1::SyncResponse) {
        let (Some(settled), Some(push)) = (&answer.settled, self.replica.sealed()) else { return };
        let is_mine = *settled.push_id == push.push_id().0.to_be_bytes();
        self.settled_other = !is_mine && settled.push_no >= push.push_no().0;
        if is_mine && !settled.refused.is_empty() {
            self.shadow.told_refused = Some(push.push_id());
        }
    }

    /// Its name at the relays.
    pub fn id(&self) -> Option<NodeId> {
        self.replica.node().map(|(node, _)| node)
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
        if carries.push {
            self.nodes[node].seal(push_id, &mut self.registry)?;
        }
        let request = self.request(node, call_id, carries);
        if self.faults.interest && self.chance(0.04) {
            self.change_interest(node);
        }
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

    fn request(&mut self, node: usize, call_id: CallId, carries: Carries) -> Request {
        let it = &mut self.nodes[node];
        it.beat += 1;
        let (push, pull, head) = simulation::outgoing(&mut it.replica);
        let mut request = Request {
            space: it.space,
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
            let pull = request.pull.as_ref().map(|pull| &pull.collections);
            format!("node {node} calls relay {relay}: push {push:?}, pull {pull:?}, head {head}", relay = "")
        });
        request
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
        let had_node = it.id();
        let progress = simulation::absorb(&mut it.replica, answer.clone());
        let reports = it.replica.take_reports();
        self.say(|| trace::tell(answer, &reports));
        self.say(|| format!("   absorbed: {progress:?}"));
        self.follow_identity(node, answer, had_node.is_some(), &reports);
        self.follow_push(node, relay, answer, &deltas, &reports);
        let caught_up = self.follow_chunk(node, relay, request, answer);
        self.follow_interest(node);
        self.take_letters(node, relay)?;
        let it = &mut self.nodes[node];
        it.hear_of_pushes(answer);
        if it.replica.sealed().is_none()
            && let Some((push_id, _)) = it.shadow.sealed.take()
        {
            self.acked.insert(push_id);
        }
        if it.replica.waiting() == 0 {
            it.shadow.waiting.clear();
        }
        if caught_up && let Some(response::PullResult::Chunk(chunk)) = &answer.pull_result {
            let asked = request.pull.as_ref().map_or(&[][..], |pull| &pull.collections);
            self.check_view(node, relay, chunk.as_of, asked)?;
        }
        Ok(caught_up && progress.is_some_and(|it| it.caught_up))
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
            shadow.put_back(&self.registry, &[], &[]);
        }
    }

    fn follow_push(
        &mut self,
        node: usize,
        relay: usize,
        answer: &v1::SyncResponse,
        deltas: &[Delta],
        reports: &[Report],
    ) {
        let truth = &self.truths[self.relays[relay].history];
        let Node { shadow, standing, space, .. } = &mut self.nodes[node];
        match &answer.push_result {
            Some(response::PushResult::Pushed(ack)) => {
                if let Some((push_id, said)) = shadow.sealed.take() {
                    self.acked.insert(push_id);
                    for row in said.keys() {
                        shadow.show(*row, ack.as_of, truth.dots(*space, *row, ack.as_of));
                    }
                }
            }
            Some(response::PushResult::PushRefused(refused))
                if matches!(
                    refused.reason.as_str(),
                    "STALE" | "CONTEXT_INVALID" | "FIELD_INVALID" | "QUOTA"
                ) =>
            {
                let named = |nth: &usize| {
                    let field = format!("push.deltas[{nth}]");
                    refused.violations.is_empty() || refused.violations.iter().any(|it| it.field == field)
                };
                let is_stale = refused.reason != "QUOTA";
                let stale = (0..deltas.len()).filter(|nth| is_stale && named(nth));
                let stale: Vec<RowNo> = stale.flat_map(|nth| rows::touched(&deltas[nth])).collect();
                shadow.put_back(&self.registry, &stale, &dropped(reports));
            }
            _ => {}
        }
        for row in dropped(reports) {
            standing.entry(row).and_modify(|said| said.1 = true);
        }
    }

    /// Takes note of what a chunk showed; whether the node is caught up in what it asked for.
    fn follow_chunk(
        &mut self,
        node: usize,
        relay: usize,
        request: &Request,
        answer: &v1::SyncResponse,
    ) -> bool {
        let Some(response::PullResult::Chunk(chunk)) = &answer.pull_result else { return false };
        let Some(pull) = &request.pull else { return false };
        let truth = &self.truths[self.relays[relay].history];
        let Node { shadow, space, newest_letter, .. } = &mut self.nodes[node];
        self.stats.chunks += 1;
        match chunk.restart() {
            Restart::Unspecified => {}
            Restart::Compacted => self.stats.compacted += 1,
            Restart::Lost | Restart::BadToken => self.stats.lost += 1,
        }
        if chunk.restart() == Restart::Lost {
            shadow.lose_history();
            *newest_letter = 0;
        }
        let pushed = matches!(answer.push_result, Some(response::PushResult::Pushed(_)));
        if chunk.restart() != Restart::Unspecified && (pushed || !pull.acked.is_empty()) {
            // The replica takes nothing of a chunk that left rows out for acknowledgements of before the restart.
            return false;
        }
        let told = told(&chunk.keys).unwrap_or_default();
        self.stats.rows += told.len() as u64;
        for it in &told {
            shadow.show(it.row, chunk.as_of, truth.dots(*space, it.row, chunk.as_of));
        }
        for (nth, name) in COLLECTIONS.iter().enumerate() {
            let asked = pull.collections.iter().any(|it| it == name || it == Follow::ALL);
            let reached = chunk.caught_up || chunk.caught_up_in.iter().any(|it| it == name);
            if asked && reached && shadow.follows(nth) {
                shadow.reach(nth, chunk.as_of);
            }
        }
        chunk.caught_up
    }
}

/// The rows of which the replica said that what was said of them is dropped. A reset that was dropped leaves its amount,
/// entries that were dropped leave their trim, and the other way round.
fn dropped(reports: &[Report]) -> Vec<RowNo> {
    let whole = |report: &&Report| {
        let reset_only = matches!(&report.delta.change,
            Change::Counter(it) if it.reset.is_some() && it.amount == 0 && it.once.is_empty());
        let of_events = matches!(&report.delta.change, Change::Events(_));
        matches!(report.fate, Fate::Dropped { .. }) && !reset_only && !of_events
    };
    reports.iter().filter(whole).flat_map(|report| rows::touched(&report.delta)).collect()
}

//! The comparisons: what arrives, what a node shows, and what all agree on at the end.

use std::collections::BTreeSet;

use dormouse_proto::{
    lattice::{Change, Delta, Type},
    wire::v1::{self, sync_response as response},
};

use crate::{
    namespace,
    node::Carries,
    rows::{self, RowNo, Shown},
    truth::read,
    violation::{Violation, ensure, violation},
    world::{TOMBSTONES, World, dead_rows},
};

impl World {
    /// I3: every row that arrives is what the row was at the revision that it is told for.
    pub(crate) fn check_rows(
        &self,
        node: usize,
        relay: usize,
        answer: &v1::SyncResponse,
    ) -> Result<(), Violation> {
        let truth = &self.truths[self.relays[relay].history];
        let check = |row: RowNo, is: &Shown, at: u64| {
            let want = truth.shown(row, at);
            let name = rows::name(row);
            ensure(is == want, || {
                format!("I3: node {node} is told {is:?} of {name} as of {at}, but it was {want:?}")
            })
        };
        if let Some(response::PullResult::Chunk(chunk)) = &answer.pull_result {
            for told in rows::told(&chunk.keys).map_err(violation)? {
                check(told.row, &told.shown, chunk.as_of)?;
            }
        }
        let (Some(response::PushResult::Pushed(ack)), Some(push)) =
            (&answer.push_result, self.nodes[node].replica.sealed())
        else {
            return Ok(());
        };
        let told = rows::told(&ack.keys).map_err(violation)?;
        for delta in push.deltas() {
            for row in rows::touched(delta) {
                let named = told.iter().find(|it| it.row == row).map(|it| it.shown.clone());
                let is = named.or_else(|| asked_for(delta, row));
                let is = is.ok_or_else(|| violation("I3: an acknowledgement leaves a counter out"))?;
                check(row, &is, ack.as_of)?;
            }
        }
        Ok(())
    }

    /// I2: a node that is caught up shows the state at that revision, with its own writes that are not in it.
    pub(crate) fn check_view(&mut self, node: usize, relay: usize) -> Result<(), Violation> {
        self.stats.barriers += 1;
        let it = &self.nodes[node];
        let at = it.shadow.barrier(0);
        let truth = &self.truths[self.relays[relay].history];
        for row in 0..rows::all().len() {
            if it.shadow.waiting.contains_key(&row) || it.shadow.held_at(row) > at {
                continue;
            }
            let state = truth.shown(row, at);
            let under_way = it.replica.sealed().filter(|push| {
                let decided = truth.decided(push.push_id());
                decided.is_none_or(|decided| decided > at)
            });
            let delta =
                under_way.and_then(|push| push.deltas().iter().find(|it| rows::touched(it).contains(&row)));
            let want = match delta {
                None => Some(state.clone()),
                Some(delta) => foretold(&delta.change, row, state),
            };
            let Some(want) = want else { continue };
            let is = it.view(row);
            ensure(is.as_ref() == Some(&want), || {
                let (name, pending) = (rows::name(row), delta.is_some());
                format!(
                    "I2: node {node}, caught up as of {at}, shows {is:?} for {name}, must be {want:?}, own write under way: {pending}"
                )
            })?;
        }
        self.check_members(node, relay)
    }

    fn check_members(&self, node: usize, relay: usize) -> Result<(), Violation> {
        let it = &self.nodes[node];
        let fold = &self.relays[relay].machine.fold;
        if !it.follows_members || fold.revision().0 != it.shadow.barrier(0) {
            return Ok(());
        }
        let shown: BTreeSet<_> =
            it.replica.members().into_iter().flatten().map(|row| (row.node, row.incarnation)).collect();
        let live = fold.namespace(namespace()).map(|view| view.members());
        let live: BTreeSet<_> =
            live.into_iter().flatten().map(|(id, member)| (*id, member.incarnation)).collect();
        ensure(shown == live, || format!("I2: node {node} shows the members {shown:?}, must be {live:?}"))
    }

    /// After a quiet time everybody agrees.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check_end(&mut self) -> Result<(), Violation> {
        self.loss = 0.0;
        for relay in 0..self.relays.len() {
            if !self.relays[relay].connected {
                self.reconnect(relay)?;
            }
        }
        self.settle_all()?;
        self.check_state()?;
        self.check_quiet_window()?;
        self.check_agreement()?;
        let missing: Vec<_> =
            self.acked.iter().filter(|push_id| self.truth().bound(**push_id).is_none()).collect();
        ensure(missing.is_empty() || self.faults.regress, || {
            format!("I6: an acknowledged push is missing: {missing:?}")
        })?;
        self.stats.acked_and_lost = missing.len() as u64;
        self.stats.frames = self.log.len() as u64;
        Ok(())
    }

    /// Every node pushes what it has and is caught up.
    fn settle_all(&mut self) -> Result<(), Violation> {
        for node in 0..self.nodes.len() {
            let mut done = false;
            for _ in 0..60 {
                let caught_up = self.call(node, 0, Carries { push: true, pull: true, max_bytes: 64 })?;
                done = caught_up && self.nodes[node].replica.pending().deltas == 0;
                if done {
                    break;
                }
            }
            ensure(done, || format!("node {node} never settles"))?;
        }
        for node in 0..self.nodes.len() {
            self.pull_all(node)?;
        }
        Ok(())
    }

    /// Pulls in small chunks until the node is caught up.
    fn pull_all(&mut self, node: usize) -> Result<(), Violation> {
        for _ in 0..200 {
            if self.call(node, 0, Carries { push: true, pull: true, max_bytes: 64 })? {
                return Ok(());
            }
        }
        Err(violation(format!("node {node} never catches up")))
    }

    /// All nodes and the fold show what the dots say, and nothing has grown with the nodes that ever were.
    fn check_state(&self) -> Result<(), Violation> {
        let (truth, fold) = (self.truth(), &self.relays[0].machine.fold);
        for (row, it) in rows::all().iter().enumerate() {
            let want = truth.shown(row, u64::MAX);
            let is = read(fold, row)?.map_or_else(|| Shown::nothing(it.kind), |told| told.shown);
            let name = rows::name(row);
            ensure(is == *want, || format!("I4: at the end {name} is {is:?}, must be {want:?}"))?;
            for node in &self.nodes {
                let is = node.view(row);
                ensure(is.as_ref() == Some(want), || {
                    format!("I2: at the end node {} shows {is:?} for {name}, must be {want:?}", node.name)
                })?;
            }
        }
        let Some(view) = fold.namespace(namespace()) else { return Ok(()) };
        let ended = view.roster_entries().filter(|(_, entry)| entry.gone.is_some()).count() as u64;
        let live = view.members().len() as u64;
        let tombstones = view.roster_entries().filter(|(_, it)| view.tombstone(it.node).is_some()).count();
        let kept = dead_rows(self.faults);
        let bound = kept.max(live / 4);
        ensure(ended <= bound && tombstones as u64 <= TOMBSTONES, || {
            format!("I9: {ended} rows of ended members, {tombstones} tombstones")
        })?;
        let (dead, bound) = (view.dead_rows(), rows::COLLECTIONS.len() as u64 * kept.max(2));
        ensure(dead <= bound, || format!("I9: {dead} dead rows, at most {bound} may be kept"))
    }

    /// I8: without writes meanwhile, every row that others changed is sent exactly once.
    fn check_quiet_window(&mut self) -> Result<(), Violation> {
        let before = self.truth().machine.fold.revision().0;
        for _ in 0..4 {
            for _ in 0..3 {
                let row = self.rng.usize(..rows::all().len());
                self.touch(row);
            }
            self.call(0, 0, Carries { push: true, pull: false, max_bytes: 0 })?;
        }
        let changed =
            (0..rows::all().len()).filter(|row| self.truth().changed_at(*row) > before).count() as u64;
        for node in 0..self.nodes.len() {
            let (rows, restarts) = (self.stats.rows, self.stats.compacted + self.stats.lost);
            self.pull_all(node)?;
            let sent = self.stats.rows - rows;
            // What node 0 changed came with its acknowledgements.
            let want = if node == 0 { 0 } else { changed };
            let restarted = self.stats.compacted + self.stats.lost > restarts;
            ensure(sent == want || restarted, || {
                format!("I8: {sent} rows were sent to node {node} for {want} rows that others changed")
            })?;
        }
        Ok(())
    }

    /// A change of node 0 that nothing is collected for.
    fn touch(&mut self, row: RowNo) {
        let it = &rows::all()[row];
        let text = self.rng.u32(..).to_string();
        let stamp = self.now + 1;
        let node = &mut self.nodes[0];
        let (said, op) = match (it.kind, &it.element) {
            (Type::Set, Some(element)) => {
                (node.replica.set_add(&it.path, element.clone()), crate::said::Op::Add)
            }
            (Type::Register, _) => {
                let value = Some(dormouse_proto::lattice::Value::Text(text));
                (node.replica.register_set(&it.path, value, stamp), crate::said::Op::Write)
            }
            _ => (node.replica.counter_add(&it.path, 1_000), crate::said::Op::Count),
        };
        said.expect("the outbox is large");
        node.shadow.say(row, op, false);
    }

    /// I5: all relays, a relay that reads the log from its first frame, and a restored snapshot have one state.
    fn check_agreement(&mut self) -> Result<(), Violation> {
        for relay in 0..self.relays.len() {
            self.catch_up(relay, self.log.len())?;
            self.compare_hash(relay)?;
        }
        let want = self.truth_mut().hash();
        ensure(self.replay().fold.hash() == want, || "I5: a replay comes to another state".into())?;
        let (machine, applied) = (&self.relays[0].machine, &self.relays[0].applied);
        let restored = crate::machine::Snapshot::of(machine, applied).restore(self.trap);
        ensure(restored.fold.hash() == want, || "I5: a restored snapshot is another state".into())
    }
}

/// What a delta asked for; an acknowledgement leaves out rows that are exactly that. Counters are always named.
fn asked_for(delta: &Delta, row: RowNo) -> Option<Shown> {
    match &delta.change {
        Change::Counter(_) => None,
        Change::Register(register) => Some(Shown::Register(register.value.clone())),
        Change::Set(set) => rows::all()[row].element.as_ref().map(|it| Shown::Element(set.add.contains(it))),
    }
}

/// What a row will show while that delta of it is under way; `None`: it depends on what the log knows.
fn foretold(change: &Change, row: RowNo, state: &Shown) -> Option<Shown> {
    match (change, state) {
        (Change::Counter(delta), Shown::Counter(value)) => {
            (delta.reset.is_none() && delta.once.is_empty()).then(|| Shown::Counter(value + delta.amount))
        }
        (Change::Register(delta), _) => Some(Shown::Register(delta.value.clone())),
        (Change::Set(delta), _) => {
            let element = rows::all()[row].element.as_ref()?;
            Some(Shown::Element(delta.add.contains(element)))
        }
        _ => None,
    }
}

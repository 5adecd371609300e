//! After a quiet time: what all agree on.

use dormouse_proto::{
    lattice::Type,
    record::{Policy, Record},
};

use crate::{
    SPACES,
    check::holder,
    namespace,
    node::Carries,
    rows::{self, RowNo, Shown},
    said::Op,
    truth::read,
    violation::{Violation, ensure, violation},
    world::{TOMBSTONES, World, dead_rows},
};

const ALL: Carries = Carries { push: true, pull: true, max_bytes: 300 };

impl World {
    /// After a quiet time everybody agrees.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check_end(&mut self) -> Result<(), Violation> {
        self.loss = 0.0;
        while let Some(relay) = self.relays.iter().position(|it| !it.connected) {
            self.reconnect(relay)?;
        }
        self.catch_up(0, self.log.len())?;
        self.lift_limits()?;
        self.faults.interest = false;
        (0..self.nodes.len()).for_each(|node| self.follow_all(node));
        self.settle_all()?;
        self.check_state()?;
        self.check_quiet_window()?;
        self.check_agreement()?;
        self.truth().check_letters()?;
        let missing: Vec<_> =
            self.acked.iter().filter(|push_id| self.truth().bound(**push_id).is_none()).collect();
        ensure(missing.is_empty() || self.faults.regress, || {
            format!("I6: an acknowledged push is missing: {missing:?}")
        })?;
        self.stats.acked_and_lost = missing.len() as u64;
        self.stats.frames = self.log.len() as u64;
        Ok(())
    }

    /// Nobody could settle who may not come in.
    fn lift_limits(&mut self) -> Result<(), Violation> {
        if !self.faults.quota {
            return Ok(());
        }
        for space in [None, Some(namespace(1).clone())] {
            let policy = Policy {
                namespace: space,
                rows_max: Some(1 << 40),
                bytes_max: Some(1 << 40),
                nodes_max: Some(1 << 40),
                inbox_max: Some(1 << 40),
                ..Policy::default()
            };
            self.write(0, Record::Policy(policy))?;
        }
        Ok(())
    }

    /// Every node pushes what it has and is caught up. What was taken from it by mistake is said again only when the node
    /// hears of it, so one round may not be enough.
    fn settle_all(&mut self) -> Result<(), Violation> {
        for _ in 0..8 {
            let before = self.log.len();
            for node in 0..self.nodes.len() {
                self.settle(node)?;
            }
            if self.log.len() == before {
                return Ok(());
            }
        }
        Err(violation("the nodes never settle"))
    }

    fn settle(&mut self, node: usize) -> Result<(), Violation> {
        for _ in 0..200 {
            let caught_up = self.call(node, 0, ALL)?;
            if caught_up && self.nodes[node].replica.pending().deltas == 0 {
                return Ok(());
            }
        }
        Err(violation(format!("node {node} never settles")))
    }

    /// All nodes and the fold show what the dots say, and nothing has grown with the nodes that ever were.
    fn check_state(&self) -> Result<(), Violation> {
        let (truth, fold) = (self.truth(), &self.relays[0].machine.fold);
        for space in 0..SPACES {
            for row in self.palette.iter().copied() {
                let kind = rows::all()[row].kind;
                let want = truth.shown(space, row, u64::MAX);
                let is = read(fold, space, row)?.map_or_else(|| Shown::nothing(kind), |told| told.0);
                let name = rows::name(row);
                ensure(is == *want, || format!("I4: at the end {name} is {is:?}, must be {want:?}"))?;
                for node in self.nodes.iter().filter(|node| node.space == space) {
                    let is = node.view(row);
                    ensure(is.as_ref() == Some(want), || {
                        format!("I2: at the end node {} shows {is:?} for {name}, must be {want:?}", node.name)
                    })?;
                    let certain = |said: &&(Option<_>, bool)| !said.1 && self.is_certain(said.0.is_some());
                    let held = node.standing.get(&row).filter(certain);
                    ensure(held.is_none_or(|said| said.0.as_ref() == holder(want, node.id())), || {
                        format!("presence: at the end node {} holds {held:?} up, but {want:?}", node.name)
                    })?;
                }
            }
            self.check_growth(space)?;
        }
        Ok(())
    }

    /// What was taken back may stand again where the log has lost that. And two processes of one name that the log told
    /// apart before it lost its tail may share the name for ever: the one that pushes less is never found out.
    fn is_certain(&self, holds: bool) -> bool {
        !self.faults.regress || holds && !self.faults.clone
    }

    fn check_growth(&self, space: usize) -> Result<(), Violation> {
        let Some(view) = self.relays[0].machine.fold.namespace(namespace(space)) else { return Ok(()) };
        let ended = view.roster_entries().filter(|(_, entry)| entry.gone.is_some()).count() as u64;
        let live = view.members().len() as u64;
        let tombstones = view.roster_entries().filter(|(_, it)| view.tombstone(it.node).is_some()).count();
        let kept = dead_rows(self.faults).max(2);
        let bound = kept.max(live / 4);
        ensure(ended <= bound && tombstones as u64 <= TOMBSTONES, || {
            format!("I9: {ended} rows of ended members, {tombstones} tombstones")
        })?;
        // A quarter of the live rows may stay beside them.
        let (dead, bound) = (view.dead_rows(), rows::COLLECTIONS.len() as u64 * kept + view.rows() / 4);
        ensure(dead <= bound, || format!("I9: {dead} dead rows, at most {bound} may be kept"))
    }

    /// I8: without writes meanwhile, every row that others changed is sent exactly once.
    fn check_quiet_window(&mut self) -> Result<(), Violation> {
        let before = self.truth().machine.fold.revision().0;
        let space = self.nodes[0].space;
        for _ in 0..3 {
            for _ in 0..3 {
                let row = self.palette[self.rng.usize(..self.palette.len())];
                self.touch(row);
            }
            // More than once only if another name is given to it in between.
            for _ in 0..8 {
                self.call(0, 0, Carries { pull: false, ..ALL })?;
                if self.nodes[0].replica.pending().deltas == 0 {
                    break;
                }
            }
        }
        let of = |row: &RowNo| self.truth().changed_after(space, *row, before);
        let changed: u64 = self.palette.iter().map(of).sum();
        for node in 0..self.nodes.len() {
            let (rows, restarts) = (self.stats.rows, self.stats.compacted + self.stats.lost);
            self.settle(node)?;
            let sent = self.stats.rows - rows;
            let others = node == 0 || self.nodes[node].space != space;
            if others && self.faults.window && self.faults.reorder {
                continue; // Events that have become too old meanwhile are not its own change.
            }
            // What node 0 changed came with its acknowledgements.
            let want = if node == 0 || self.nodes[node].space != space { 0 } else { changed };
            let restarted = self.stats.compacted + self.stats.lost > restarts;
            ensure(sent == want || restarted, || {
                format!("I8: {sent} rows were sent to node {node} for {want} rows that others changed")
            })?;
            if !restarted {
                self.stats.quiet_sent += sent;
                self.stats.quiet_changed += want;
            }
        }
        Ok(())
    }

    /// A change of node 0 that nothing is collected for.
    fn touch(&mut self, row: RowNo) {
        let it = &rows::all()[row];
        let (content, stamp) = (self.content(), self.now + 1);
        let node = &mut self.nodes[0];
        if matches!(node.view(row), Some(Shown::Present(true))) {
            return;
        }
        if it.kind == Type::Presence {
            node.standing.insert(row, (Some(content.clone()), false));
        }
        let replica = &mut node.replica;
        let (said, op) = match it.kind {
            Type::Register => (replica.register_set(&it.path, Some(content), stamp), Op::Write),
            Type::Counter => (replica.counter_add(&it.path, 1_000), Op::Count),
            Type::Max => (replica.max_offer(&it.path, 1_000), Op::Plain),
            Type::Min => (replica.min_offer(&it.path, -1_000), Op::Plain),
            Type::Siblings => (replica.siblings_set(&it.path, Some(content)), Op::Write),
            Type::Events => (replica.events_append(&it.path, content, None), Op::Plain),
            Type::Presence => (replica.presence_set(&it.path, Some(content)), Op::Plain),
            _ => return node.switch(row, true),
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
        let (machine, frames) = (&self.relays[0].machine, &self.relays[0].frames);
        let restored = crate::machine::Snapshot::of(machine, frames).restore(self.trap);
        ensure(restored.fold.hash() == want, || "I5: a restored snapshot is another state".into())
    }
}

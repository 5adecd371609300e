//! What the program of a node does between its round trips.

use dormouse::simulation;
use dormouse_proto::{
    ids::{OnceId, Revision},
    lattice::{Type, Value},
};

use crate::{
    node::Node,
    rows::{self, COLLECTIONS, Event, MAP, RowNo, Shown},
    said::Op,
    world::World,
};

const FITS: &str = "the outbox is large";

impl World {
    /// A content that nobody else writes.
    pub fn content(&mut self) -> Value {
        Value::Text(self.rng.u32(..).to_string())
    }

    /// An id that others use too, or one that nobody else does.
    pub fn once_id(&mut self) -> OnceId {
        let id = if self.chance(0.5) { self.rng.u32(..5) } else { self.rng.u32(..) };
        id.to_string().parse().expect("an id")
    }

    /// The program changes a row, by what it sees of it.
    pub fn edit(&mut self, node: usize, row: RowNo) {
        let it = &rows::all()[row];
        let seen = self.nodes[node].view(row).unwrap_or(Shown::nothing(it.kind));
        self.say(|| format!("node {node} sees {} as {seen:?} and changes it", rows::name(row)));
        match seen {
            Shown::Present(present) => {
                let on = !(present && self.chance(0.6) || !present && self.chance(0.05));
                self.nodes[node].switch(row, on);
            }
            Shown::Counter(value) => self.count(node, row, value),
            Shown::Register(value) => self.write_register(node, row, value.is_some()),
            Shown::Number(_) => self.offer(node, row),
            Shown::Siblings(siblings) => {
                let removes = !siblings.is_empty() && self.chance(0.25);
                let content = (!removes).then(|| self.content());
                let node = &mut self.nodes[node];
                node.replica.siblings_set(&it.path, content).expect(FITS);
                node.shadow.say(row, if removes { Op::Remove } else { Op::Write }, false);
            }
            Shown::Events(events) => self.log(node, row, &events),
            Shown::Holders(_) => {
                let content = self.chance(0.7).then(|| self.content());
                let node = &mut self.nodes[node];
                node.replica.presence_set(&it.path, content.clone()).expect(FITS);
                node.standing.insert(row, (content, false));
                node.shadow.say(row, Op::Plain, false);
            }
        }
    }

    fn write_register(&mut self, node: usize, row: RowNo, is_there: bool) {
        let path = &rows::all()[row].path;
        let deletes = is_there && self.chance(0.4);
        let content = self.content();
        let stamp = self.now.saturating_add_signed(self.nodes[node].skew_ms);
        let node = &mut self.nodes[node];
        node.replica.register_set(path, (!deletes).then_some(content), stamp).expect(FITS);
        node.shadow.say(row, Op::Write, false);
    }

    fn offer(&mut self, node: usize, row: RowNo) {
        let it = &rows::all()[row];
        let offer = self.rng.i64(-20..20);
        let node = &mut self.nodes[node];
        let offered = match it.kind {
            Type::Max => node.replica.max_offer(&it.path, offer),
            _ => node.replica.min_offer(&it.path, offer),
        };
        offered.expect(FITS);
        node.shadow.say(row, Op::Plain, false);
    }

    fn count(&mut self, node: usize, row: RowNo, value: i64) {
        let path = &rows::all()[row].path;
        let shadow = &self.nodes[node].shadow;
        let follows = shadow.follows(rows::all()[row].collection);
        let resets = value != 0 && (shadow.is_held(row) || !follows) && self.chance(0.35);
        let (adds, once) = (!resets || self.chance(0.4), self.chance(0.15));
        // After a reset often the very value that was there: the value alone does not tell that anything changed.
        let amount = if resets { value } else { self.rng.i64(1..5) * if self.chance(0.33) { -1 } else { 1 } };
        let id = self.once_id();
        let node = &mut self.nodes[node];
        if resets {
            node.replica.counter_reset(path).expect(FITS);
            node.shadow.say(row, Op::Count, true);
        }
        if adds {
            let said = if once && !resets {
                node.replica.counter_add_once(path, id, amount)
            } else {
                node.replica.counter_add(path, amount)
            };
            said.expect(FITS);
            node.shadow.say(row, Op::Count, false);
        }
    }

    fn log(&mut self, node: usize, row: RowNo, events: &[Event]) {
        let path = &rows::all()[row].path;
        let bound: Vec<u64> = events.iter().map(|it| it.at.0).filter(|at| *at > 0).collect();
        if !bound.is_empty() && self.chance(0.12) {
            let upto = bound[self.rng.usize(..bound.len())];
            self.nodes[node].replica.events_trim(path, Revision(upto)).expect(FITS);
        } else {
            let content = self.content();
            let id = self.chance(0.3).then(|| self.once_id());
            self.nodes[node].replica.events_append(path, content, id).expect(FITS);
        }
        self.nodes[node].shadow.say(row, Op::Plain, false);
    }

    /// The program clears a map, all that it sees of it, and perhaps puts a leaf back in the same breath.
    pub fn clear(&mut self, node: usize) {
        let collection = self.rng.usize(..2);
        let prefix = format!("{MAP}/");
        let is_leaf = |row: &RowNo| {
            let path = &rows::all()[*row].path;
            path.collection.as_str() == COLLECTIONS[collection] && path.key.as_str().starts_with(&prefix)
        };
        let leaves: Vec<RowNo> = self.palette.iter().copied().filter(is_leaf).collect();
        let it = &mut self.nodes[node];
        let visible = |row: &RowNo| {
            let nothing = Shown::nothing(rows::all()[*row].kind);
            it.view(*row).is_some_and(|view| view != nothing)
        };
        let cleared: Vec<RowNo> = leaves.iter().copied().filter(visible).collect();
        let path = format!("{}/{MAP}", COLLECTIONS[collection]).parse().expect("a path");
        let told = it.replica.map_clear(&path).expect(FITS);
        debug_assert!(told.kept.is_empty());
        for row in &cleared {
            let op = match rows::all()[*row].kind {
                Type::Counter => Op::Count,
                Type::Register => Op::Write,
                Type::RemoveWinsSet | Type::DisableWinsFlag => Op::Plain,
                _ => Op::Remove,
            };
            it.shadow.say(*row, op, op == Op::Count);
        }
        self.say(|| format!("node {node} clears {path}: {} rows", cleared.len()));
        if !leaves.is_empty() && self.chance(0.5) {
            let row = leaves[self.rng.usize(..leaves.len())];
            self.edit(node, row);
        }
    }

    // ---- what it follows ----

    /// The program takes up a collection, or gives one up.
    pub fn change_interest(&mut self, node: usize) {
        const NAMES: [&str; 8] = ["a", "b", "c", "a", "b", "c", "*", "@members"];
        let name = NAMES[self.rng.usize(..NAMES.len())];
        self.turn(node, name);
    }

    /// Follows what is not followed by that name, and the other way round.
    fn turn(&mut self, node: usize, name: &str) {
        let it = &mut self.nodes[node];
        if it.wants.iter().any(|it| it == name) {
            assert!(it.replica.unfollow(name), "it was followed by that name, or was to be");
            it.wants.retain(|it| it != name);
        } else {
            it.replica.follow(name).expect("well named, and not too many");
            it.wants.push(name.to_owned());
        }
        self.say(|| format!("node {node} follows or gives up {name}"));
        self.follow_interest(node);
    }

    /// Takes note of what the replica really follows by now.
    pub fn follow_interest(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        if sorted(&it.wants) != sorted(&it.shadow.follow) {
            // What a request would ask for; the copy is not the one that counts transmissions.
            let (_, pull, _) = simulation::outgoing(&mut it.replica.clone());
            it.shadow.turn_to(pull.collections);
        }
    }

    /// Follows every collection that is not followed yet.
    pub fn follow_all(&mut self, node: usize) {
        for name in COLLECTIONS {
            let wants = &self.nodes[node].wants;
            if !wants.iter().any(|it| it == name || it == "*") {
                self.turn(node, name);
            }
        }
    }

    // ---- processes ----

    /// A process is lost with all it held; another one starts in its place.
    pub fn cold_start(&mut self, node: usize) {
        let space = self.nodes[node].space;
        self.nodes[node] = Node::new(node, space, &mut self.rng, self.faults.interest, self.trap);
        self.say(|| format!("node {node} starts anew"));
    }

    /// A process image is copied while no push is sealed.
    pub fn clone_node(&mut self, node: usize) {
        if self.nodes[node].replica.node().is_some() && self.nodes[node].replica.sealed().is_none() {
            // Until one of them is given another name, they hold up and receive under the same one.
            self.nodes[node].standing.values_mut().for_each(|said| said.1 = true);
            let name = self.nodes.len();
            let clone = Node { name, ..self.nodes[node].clone() };
            self.nodes.push(clone);
            self.say(|| format!("node {node} is cloned as {name}"));
        }
    }
}

impl Node {
    /// Puts an element into its set or takes it out, or switches a flag.
    pub(crate) fn switch(&mut self, row: RowNo, on: bool) {
        let it = &rows::all()[row];
        let (path, replica) = (&it.path, &mut self.replica);
        let element = || it.element.clone().expect("a set has elements");
        let said = match (it.kind, on) {
            (Type::Set, true) => replica.set_add(path, element()),
            (Type::Set, false) => replica.set_remove(path, element()),
            (Type::RemoveWinsSet, true) => replica.remove_wins_set_add(path, element()),
            (Type::RemoveWinsSet, false) => replica.remove_wins_set_remove(path, element()),
            (Type::Flag, on) => replica.flag_set(path, on),
            (Type::DisableWinsFlag, on) => replica.disable_wins_flag_set(path, on),
            _ => replica.grow_only_set_add(path, element()),
        };
        said.expect(FITS);
        let op = match (it.kind, on) {
            (Type::Set | Type::Flag, false) => Op::Remove,
            (Type::RemoveWinsSet | Type::DisableWinsFlag, true) => Op::Guarded,
            _ => Op::Plain,
        };
        self.shadow.say(row, op, false);
    }
}

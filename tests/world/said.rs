//! What a node's author has really observed, kept beside the replica and without its revisions.
//!
//! A remove, a reset or a write names a revision. The reference does not believe it: it remembers which dots the
//! author was shown, so that a context that says too little or too much is found when the push is bound.

use std::collections::{BTreeMap, HashMap, HashSet};

use dormouse_proto::{
    ids::{NodeId, PushId},
    lattice::Type,
};

use crate::rows::{self, RowNo};

/// What the author of a write had observed of a row.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Dots that were shown.
    pub dots: Vec<u64>,
    /// Everything up to here was shown.
    pub barrier: u64,
}

impl Seen {
    /// Whatever is there when the log accepts it: what an author means who looks at nothing.
    pub const EVERYTHING: Self = Self { dots: Vec::new(), barrier: u64::MAX };

    const fn names_history(&self) -> bool {
        self.barrier < u64::MAX
    }
}

/// What was said of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Something that means the same whatever its author had seen.
    Plain,
    /// Something was taken away that its author had seen: of no use without that.
    Remove,
    /// Something that loses against what its author had not seen: an add to a remove-wins set.
    Guarded,
    /// An amount was added to a counter, perhaps after a reset.
    Count,
    /// A content was put in the place of what its author had seen.
    Write,
}

/// What was said of a row, with what its author had observed.
#[derive(Clone, Debug)]
pub struct Said {
    /// What.
    pub op: Op,
    /// `None`: to be taken when it is sealed, or without meaning.
    pub seen: Option<Seen>,
    /// Own pushes whose effect the author sees although they have no revision yet.
    pub own: Vec<PushId>,
}

/// A push, as its author meant it.
#[derive(Clone, Debug, Default)]
pub struct Meant {
    /// By row.
    pub said: BTreeMap<RowNo, Said>,
    /// Earlier pushes whose content went back and is in this one; none of them may ever bind beside it.
    pub before: Vec<PushId>,
}

/// What was said and heard in all histories of the log.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    pushes: HashMap<PushId, Meant>,
    /// Messages that a process of that identity has taken in, by their senders' names for them.
    pub delivered: HashSet<(NodeId, String)>,
}

impl Registry {
    /// A push is sealed.
    pub fn insert(&mut self, push_id: PushId, meant: Meant) {
        self.pushes.insert(push_id, meant);
    }

    /// What a push was meant to say.
    pub fn get(&self, push_id: PushId) -> Option<&Meant> {
        self.pushes.get(&push_id)
    }
}

/// What one node was shown, and what waits there.
#[derive(Clone, Debug)]
pub struct Shadow {
    dots: Vec<Vec<u64>>,
    /// The newest revision at which a row was delivered; zero: in a history that is lost.
    held_at: Vec<Option<u64>>,
    /// Rows of keys that were read on their own.
    fetched: Vec<bool>,
    /// By collection.
    barrier: [u64; rows::COLLECTIONS.len()],
    /// What is followed, as a pull lists it.
    pub follow: Vec<String>,
    /// Not sealed yet.
    pub waiting: BTreeMap<RowNo, Said>,
    /// The push under way.
    pub sealed: Option<(PushId, BTreeMap<RowNo, Said>)>,
    /// Pushes whose content went back into what waits.
    before: Vec<PushId>,
    /// A push that some relay called refused. It is shown no more, even if the log has lost that since.
    pub told_refused: Option<PushId>,
}

impl Shadow {
    /// Of a node that has seen nothing.
    pub fn new(follow: Vec<String>) -> Self {
        let rows = rows::all().len();
        Self {
            dots: vec![Vec::new(); rows],
            held_at: vec![None; rows],
            fetched: vec![false; rows],
            barrier: [0; rows::COLLECTIONS.len()],
            follow,
            waiting: BTreeMap::new(),
            sealed: None,
            before: Vec::new(),
            told_refused: None,
        }
    }

    fn seen(&self, row: RowNo) -> Seen {
        let collection = rows::all()[row].collection;
        if self.follows(collection) {
            return Seen { dots: self.dots[row].clone(), barrier: self.barrier[collection] };
        }
        match self.held_at[row] {
            Some(_) => Seen { dots: self.dots[row].clone(), barrier: 0 },
            None => Seen::EVERYTHING,
        }
    }

    /// Whether the row was delivered in this history.
    pub fn is_held(&self, row: RowNo) -> bool {
        self.held_at(row) > 0
    }

    /// The newest revision at which the row was delivered.
    pub fn held_at(&self, row: RowNo) -> u64 {
        self.held_at[row].unwrap_or(0)
    }

    /// The program says something. A counter's context is that of its reset, so adding more leaves it as it was.
    pub fn say(&mut self, row: RowNo, op: Op, resets: bool) {
        let mut own: Vec<PushId> = self.waiting.get(&row).map(|it| it.own.clone()).unwrap_or_default();
        if op == Op::Count && !resets {
            self.waiting.entry(row).or_insert(Said { op, seen: Some(Seen::default()), own });
            return;
        }
        let under_way = self.sealed.as_ref().filter(|(_, said)| said.contains_key(&row)).map(|(id, _)| *id);
        own.extend(under_way);
        let seen = under_way.is_none().then(|| self.seen(row));
        self.waiting.insert(row, Said { op, seen, own });
    }

    /// What waits is sealed; of it only these rows have something to say.
    pub fn seal(&mut self, push_id: PushId, touched: &[RowNo], registry: &mut Registry) {
        let mut said = std::mem::take(&mut self.waiting);
        said.retain(|row, _| touched.contains(row));
        for (row, it) in &mut said {
            if it.seen.is_none() {
                it.seen = Some(self.seen(*row));
            }
        }
        registry.insert(push_id, Meant { said: said.clone(), before: std::mem::take(&mut self.before) });
        self.sealed = Some((push_id, said));
    }

    // ---- what arrives ----

    /// A row was delivered at `at`, with these dots. Of what is neither followed nor fetched nothing is held.
    pub fn show(&mut self, row: RowNo, at: u64, dots: impl Iterator<Item = u64>) {
        if !self.follows(rows::all()[row].collection) && !self.fetched[row] {
            return;
        }
        self.held_at[row] = self.held_at[row].max(Some(at));
        for dot in dots {
            if !self.dots[row].contains(&dot) {
                self.dots[row].push(dot);
            }
        }
    }

    /// A collection is known as a whole.
    pub fn reach(&mut self, collection: usize, at: u64) {
        self.barrier[collection] = self.barrier[collection].max(at);
    }

    /// The newest revision at which the whole collection was known; zero: it never was, or is not followed.
    pub fn barrier(&self, collection: usize) -> u64 {
        if self.follows(collection) { self.barrier[collection] } else { 0 }
    }

    /// All rows of a key are about to be shown as they were read on their own.
    pub fn fetch(&mut self, row: RowNo) {
        if !self.follows(rows::all()[row].collection) {
            self.held_at[row] = None;
            self.dots[row].clear();
        }
        self.fetched[row] = true;
    }

    /// Whether the key of that row was read on its own.
    pub fn is_fetched(&self, row: RowNo) -> bool {
        self.fetched[row]
    }

    // ---- what is followed ----

    /// Whether rows of that collection arrive by themselves.
    pub fn follows(&self, collection: usize) -> bool {
        self.follow.iter().any(|name| name == "*" || name == rows::COLLECTIONS[collection])
    }

    /// From now on the node follows these. What it held of a collection that it takes up or gives up is gone.
    pub fn turn_to(&mut self, follow: Vec<String>) {
        let before: Vec<bool> = (0..rows::COLLECTIONS.len()).map(|it| self.follows(it)).collect();
        let turned = |name: &str| {
            let lists = |names: &[String]| names.iter().any(|it| it == name);
            lists(&self.follow) != lists(&follow)
        };
        let named = |name: &str| self.follow.iter().any(|it| it == name);
        let is_turned = |row: &RowNo| {
            let name = rows::COLLECTIONS[rows::all()[*row].collection];
            turned(name) || turned("*") && !named(name)
        };
        // What is still to be taken of what was seen there, and no own push is under way for, is taken before that is
        // forgotten.
        let under_way = |row: &RowNo| self.sealed.as_ref().is_some_and(|(_, said)| said.contains_key(row));
        let open = self.waiting.iter().filter(|(_, said)| said.seen.is_none());
        let open = open.filter(|(row, _)| is_turned(row) && !under_way(row));
        for row in open.map(|(row, _)| *row).collect::<Vec<_>>() {
            let seen = self.seen(row);
            self.waiting.entry(row).and_modify(|said| said.seen = Some(seen));
        }
        self.follow = follow;
        for (collection, followed) in before.into_iter().enumerate() {
            if self.follows(collection) == followed {
                continue;
            }
            // What is said from here on is said by somebody who sees nothing of it yet, not even his own settled pushes.
            let here = |(row, _): &(&RowNo, &mut Said)| rows::all()[**row].collection == collection;
            let taken = self.waiting.iter_mut().filter(here).filter(|(_, said)| said.seen.is_some());
            taken.for_each(|(_, said)| said.own.clear());
            self.barrier[collection] = 0;
            for row in (0..rows::all().len()).filter(|row| rows::all()[*row].collection == collection) {
                self.held_at[row] = None;
                self.fetched[row] = false;
                self.dots[row].clear();
            }
        }
    }

    // ---- what goes wrong ----

    /// The history of all that was shown is lost (C8).
    pub fn lose_history(&mut self) {
        self.dots.iter_mut().for_each(Vec::clear);
        self.held_at.iter_mut().flatten().for_each(|at| *at = 0);
        self.barrier.fill(0);
        self.told_refused = None;
        let under_way = self.sealed.as_ref().map(|(id, _)| *id);
        let names_history = |said: &Said| said.seen.as_ref().is_none_or(Seen::names_history);
        self.waiting.retain(|_, said| said.op != Op::Remove || !names_history(said));
        for said in self.waiting.values_mut().filter(|said| names_history(said)) {
            // A write whose context is still open takes it later; a reset is dropped, and its amount has no context.
            let open = said.seen.is_none() && said.op != Op::Count;
            said.own.retain(|id| open && Some(*id) == under_way);
            if !open {
                said.seen = Some(Seen::default());
            }
        }
    }

    /// The content of the sealed push goes back in front of what waits. `stale`: these rows were refused as such and
    /// are said again as by somebody who has seen nothing (C5); `dropped`: these were reported and are not said again.
    pub fn put_back(&mut self, registry: &Registry, stale: &[RowNo], dropped: &[RowNo]) {
        let Some((push_id, said)) = self.sealed.take() else { return };
        self.before.push(push_id);
        self.before.extend(registry.get(push_id).iter().flat_map(|meant| &meant.before));
        for (row, mut earlier) in said {
            if dropped.contains(&row) {
                continue;
            }
            if stale.contains(&row) {
                earlier.seen = Some(Seen::default());
                earlier.own.clear();
            }
            self.put_back_row(row, earlier);
        }
    }

    fn put_back_row(&mut self, row: RowNo, earlier: Said) {
        let later = self.waiting.get(&row);
        // A later reset has a context of its own, or one that is still open; a mere amount has an empty one.
        let keeps_later = later.is_some_and(|later| {
            let amount = later.seen.as_ref().is_some_and(|seen| seen.barrier == 0 && seen.dots.is_empty());
            later.op != Op::Count || !amount
        });
        if !keeps_later {
            self.waiting.insert(row, earlier);
        }
    }

    /// Nobody can know what became of the sealed push: what can be repeated goes back, the rest was reported.
    pub fn risk(&mut self) {
        let Some((_, said)) = self.sealed.take() else { return };
        self.waiting.values_mut().for_each(|it| it.own.clear());
        for (row, earlier) in said {
            if rows::all()[row].kind != Type::Counter {
                self.put_back_row(row, earlier);
            }
        }
    }
}

//! What a node's author has really observed, kept beside the replica and without its revisions.
//!
//! A remove, a reset or a write names a revision. The reference does not believe it: it remembers which dots the
//! author was shown, so that a context that says too little or too much is found when the push is bound.

use std::collections::{BTreeMap, HashMap};

use dormouse_proto::{ids::PushId, lattice::Type};

use crate::rows::{self, RowNo};

/// What the author of a write had observed of a row.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Dots that were shown.
    pub dots: Vec<u64>,
    /// Everything up to here was shown.
    pub barrier: u64,
}

/// What was said of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// An element was added.
    Add,
    /// An element was removed.
    Remove,
    /// An amount was added to a counter, perhaps after a reset.
    Count,
    /// A register was written or deleted.
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

/// Every push that was ever sealed.
pub type Registry = HashMap<PushId, Meant>;

/// What one node was shown, and what waits there.
#[derive(Clone, Debug)]
pub struct Shadow {
    dots: Vec<Vec<u64>>,
    /// The newest revision at which a row was delivered; 0: never, or in a history that is lost.
    held_at: Vec<u64>,
    /// By collection.
    barrier: [u64; rows::COLLECTIONS.len()],
    /// Not sealed yet.
    pub waiting: BTreeMap<RowNo, Said>,
    /// The push under way.
    pub sealed: Option<(PushId, BTreeMap<RowNo, Said>)>,
    /// Pushes whose content went back into what waits.
    before: Vec<PushId>,
}

impl Default for Shadow {
    fn default() -> Self {
        let rows = rows::all().len();
        Self {
            dots: vec![Vec::new(); rows],
            held_at: vec![0; rows],
            barrier: [0; rows::COLLECTIONS.len()],
            waiting: BTreeMap::new(),
            sealed: None,
            before: Vec::new(),
        }
    }
}

impl Shadow {
    fn seen(&self, row: RowNo) -> Seen {
        let barrier = self.barrier[rows::all()[row].collection];
        Seen { dots: self.dots[row].clone(), barrier }
    }

    /// Whether the row was delivered in this history.
    pub fn is_held(&self, row: RowNo) -> bool {
        self.held_at[row] > 0
    }

    /// The newest revision at which the row was delivered.
    pub fn held_at(&self, row: RowNo) -> u64 {
        self.held_at[row]
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

    /// A row was delivered at `at`, with these dots.
    pub fn show(&mut self, row: RowNo, at: u64, dots: impl Iterator<Item = u64>) {
        self.held_at[row] = self.held_at[row].max(at);
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

    /// The newest revision at which the whole collection was known.
    pub fn barrier(&self, collection: usize) -> u64 {
        self.barrier[collection]
    }

    /// The history of all that was shown is lost (C8).
    pub fn lose_history(&mut self) {
        self.dots.iter_mut().for_each(Vec::clear);
        self.held_at.fill(0);
        self.barrier.fill(0);
        let under_way = self.sealed.as_ref().map(|(id, _)| *id);
        self.waiting.retain(|_, said| said.op != Op::Remove);
        for said in self.waiting.values_mut() {
            // A write whose context is still open takes it later; a reset is dropped, and its amount has no context.
            let open = said.seen.is_none() && said.op != Op::Count;
            said.own.retain(|id| open && Some(*id) == under_way);
            if !open {
                said.seen = Some(Seen::default());
            }
        }
    }

    /// The content of the sealed push goes back in front of what waits. `stale`: these rows were refused as such.
    pub fn put_back(&mut self, registry: &Registry, stale: &[RowNo]) {
        let Some((push_id, said)) = self.sealed.take() else { return };
        self.before.push(push_id);
        self.before.extend(registry.get(&push_id).iter().flat_map(|meant| &meant.before));
        for (row, mut earlier) in said {
            if stale.contains(&row) {
                // It is said again as by somebody who has seen nothing (C5).
                earlier.seen = Some(Seen::default());
                earlier.own.clear();
                if earlier.op == Op::Remove {
                    continue;
                }
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
